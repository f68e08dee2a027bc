/* schema/protobuf.h - application/vnd.kubernetes.protobuf by the description of the kinds.
 *
 * A body is the four bytes "k8s\0" and a runtime.Unknown {typeMeta 1 {apiVersion 1, kind 2}, raw 2,
 * contentEncoding 3, contentType 4} whose raw is the message. Numbers come from the kinds' text.
 * Decoding gives a tree as JSON would have given it (schema_decode brings it into normal form);
 * encoding writes fields in ascending order, absent ones not at all. */
#pragma once

#include "base/buf.h"
#include "schema/schema.h"

/* Does the body begin as one? */
bool protobuf_is(const char *p, size_t n);
/* The tree, with apiVersion and kind; the kind is one of the registry or a type that requests use
 * (DeleteOptions, Scale, Eviction, TokenRequest, ...). INVALID_ARGUMENT when it cannot be read. */
struct val *protobuf_read(const struct schema *s, struct arena *a, const char *p, size_t n,
                          struct err *err) _must_check_;
/* An object (or list: "PodList" of a described item kind; or Status) with its envelope. NOT_FOUND
 * when its kind is not described (custom resources have no protobuf form). */
int protobuf_write(const struct schema *s, struct buf *b, const struct val *v, struct err *err)
    _must_check_;

/* A list in parts, for lists that are not put together first: metadata (a ListMeta), then each item
 * (all of one kind), then the whole in its envelope. NOT_FOUND as above. */
int protobuf_list_begin(const struct schema *s, struct buf *m, const struct val *metadata,
                        struct err *err) _must_check_;
int protobuf_list_item(const struct schema *s, struct arena *a, struct buf *m, const char *item_api_version,
                       const char *item_kind, const struct val *v, struct err *err) _must_check_;
/* The same from the texts of sealed objects (obj_text_own(), which are changed), one after the other: what they have in
 * common is read once. meta_only: items are PartialObjectMetadata. NULL and NOT_FOUND as above. Remembers up to half a
 * megabyte. */
struct protobuf_items;
struct protobuf_items *protobuf_items_new(const struct schema *s, const char *api_version, const char *kind, bool meta_only,
                                          struct err *err) _must_check_;
void *protobuf_items_free(struct protobuf_items *w); /* NULL is fine; gives back NULL */
int protobuf_items_add(struct protobuf_items *w, struct arena *a, struct buf *m, char *text, size_t n,
                       struct err *err) _must_check_;
/* What comes before the message of n bytes, and behind it. */
void protobuf_list_head(struct buf *b, const char *api_version, const char *kind, size_t n);
void protobuf_list_tail(struct buf *b);
