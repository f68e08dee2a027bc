/* codec/obj.h - a sealed API object: the JSON text as the store keeps it, and what is asked of it
 * all the time (name, revision) beside.
 *
 * It never changes after obj_seal(); an edit is a copy of the tree (obj_edit) and a new object.
 * The text is the truth: a GET answers with it as it is. The tree is parsed when somebody first
 * asks for it and stays with the object; most objects are never asked.
 * Owner: atomic reference counts, from any thread. */
#pragma once

#include "base/err.h"
#include "codec/val.h"

struct obj {
    _Atomic uint32_t refs;
    uint32_t text_n;
    int64_t revision;      /* metadata.resourceVersion */
    const char *namespace_; /* "" for cluster-wide kinds */
    const char *name;
    const char *uid; /* "" when it has none */
    const char *text; /* JSON, ends in 0 */
    struct obj_tree *_Atomic tree; /* see obj_val() */
};

/* Seals a tree: writes its text (with metadata.resourceVersion = revision) and takes namespace,
 * name and uid from its metadata. The tree itself is not kept. */
struct obj *obj_seal(const struct val *v, int64_t revision);
/* From text that a store kept. NULL and err when it is not JSON with a metadata. */
struct obj *obj_load(const char *text, size_t n, int64_t revision, struct err *err);
/* The same without looking into the text, for a store that kept the names beside it. */
struct obj *obj_restore(const char *text, size_t n, int64_t revision, const char *ns,
                        const char *name, const char *uid);
struct obj *obj_ref(const struct obj *o);
void *obj_unref(const struct obj *o); /* NULL is fine; gives back NULL */
DEFINE_AUTO(const struct obj *, obj_unref, obj_unref)

/* The tree, borrowed for as long as the object lives. */
const struct val *obj_val(const struct obj *o);
/* A copy to change. */
struct val *obj_edit(const struct obj *o, struct arena *a);

/* Short forms for what controllers ask of every object. */
const struct val *obj_meta(const struct obj *o);
const char *obj_label(const struct obj *o, const char *key);      /* NULL: none */
const char *obj_annotation(const struct obj *o, const char *key); /* NULL: none */
bool obj_deleting(const struct obj *o);                           /* metadata.deletionTimestamp is set */
const struct val *obj_controller(const struct obj *o); /* the owner reference with controller: true */
size_t obj_bytes(const struct obj *o);                 /* memory held, the tree included */
