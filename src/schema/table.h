/* schema/table.h - what `kubectl get` shows: meta.k8s.io/v1 Table and PartialObjectMetadata. */
#pragma once

#include "schema/schema.h"

enum include_object { INCLUDE_METADATA, INCLUDE_NONE, INCLUDE_OBJECT };

/* "Metadata" (also ""), "None", "Object"; -1: none of them (400). */
int table_include(const char *text);

/* A Table without rows: kind, apiVersion (of meta.k8s.io, "v1" or "v1beta1"), metadata (a ListMeta
 * or NULL), columnDefinitions. Push what table_row() makes to its "rows". Watches send a Table a
 * event, columns only in the first (columns = false leaves [] there). */
/* r of table_new() and table_row() may be NULL: the object is a Scale. */
struct val *table_new(const struct resource *r, struct arena *a, const char *version,
                      const struct val *list_meta, bool columns);
/* obj is in version r; version: that of the metadata in the row. now_us: microseconds since 1970. */
struct val *table_row(const struct resource *r, struct arena *a, const struct val *obj,
                      enum include_object include, const char *version, int64_t now_us);

/* The same for a built-in kind from the text of a sealed object (obj_text_own(), which is changed) that is in version r; to
 * be written only. If !partial_is_metadata(r), metadata may not be included. */
struct val *table_row_text(const struct resource *r, struct arena *a, char *text, size_t n, enum include_object include,
                           const char *version, int64_t now_us, struct err *err) _must_check_;

/* meta.k8s.io PartialObjectMetadata of an object; version "v1" or "v1beta1". */
struct val *partial_of(struct arena *a, const struct val *obj, const char *version);
/* Its metadata is the object's as it is stored. */
bool partial_is_metadata(const struct resource *r);
/* Then: from the text of a sealed object, JSON_ROOM bytes behind it; to be written only. NULL: it does not read as one of ours. */
struct val *partial_of_text(struct arena *a, const char *text, size_t n, const char *version);
