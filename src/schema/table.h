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

/* meta.k8s.io PartialObjectMetadata of an object; version "v1" or "v1beta1". */
struct val *partial_of(struct arena *a, const struct val *obj, const char *version);
/* Its metadata is the object's as it is stored. */
bool partial_is_metadata(const struct resource *r);
