/* schema/select.h - label and field selectors: parse and match.
 * A parsed selector lies in the arena it was parsed into and borrows nothing. */
#pragma once

#include "schema/schema.h"

/* ---- labels: "a=b,c!=d,e in (x,y),!f,g>1" and metav1.LabelSelector objects ---- */
struct selector;

/* "" selects everything. NULL and INVALID_ARGUMENT with Kubernetes' text. */
struct selector *selector_parse(struct arena *a, const char *text, struct err *err) _must_check_;
/* NULL or null selects nothing, {} everything. */
struct selector *selector_of(struct arena *a, const struct val *label_selector, struct err *err)
    _must_check_;
/* A plain map as in a Service's spec.selector; an empty one selects everything. */
struct selector *selector_of_map(struct arena *a, const struct val *map);
bool selector_match(const struct selector *s, const struct val *labels); /* labels may be NULL */
bool selector_everything(const struct selector *s);
char *selector_text(struct arena *a, const struct selector *s); /* as the server writes it back */
/* "k=v" when it demands exactly that: NULL otherwise (for indexes). */
const char *selector_exact(const struct selector *s, const char *key);

/* ---- fields: "metadata.name=x,spec.nodeName!=y" ---- */
struct field_selector;

/* Only the fields r lets select (metadata.name, metadata.namespace, its own such as spec.nodeName,
 * selectableFields of custom resources); else INVALID_ARGUMENT. */
struct field_selector *field_selector_parse(const struct resource *r, struct arena *a,
                                            const char *text, struct err *err) _must_check_;
bool field_selector_match(const struct field_selector *f, const struct val *obj);
bool field_selector_everything(const struct field_selector *f);
/* The value that the field must equal, NULL when any will do: name and namespace for direct gets. */
const char *field_selector_exact(const struct field_selector *f, const char *field);
