/* schema/protobuf_int.h - between protobuf.c and protobuf_text.c: how fields are written. */
#pragma once

#include "schema/protobuf.h"
#include "schema/type.h"

/* A message in place: what is written between these two is its content. One byte is kept free for its length;
 * a longer one moves the content up. */
size_t message_begin(struct buf *b, uint32_t number);
void message_end(struct buf *b, size_t from);
void put_bytes(struct buf *b, uint32_t number, const char *p, size_t n);

/* The field of that number with this value. */
void protobuf_value(struct buf *b, uint32_t number, const struct val *v, const struct type *t);
/* NULL: it has no protobuf form. The arena is for the call only. */
const struct type *protobuf_type(const struct schema *s, struct arena *a, const char *api_version, const char *kind);
bool protobuf_either(const struct type *t); /* has fields that take two forms: protobuf_value() knows them */
/* The field of that name, or NULL. Members mostly come in the order of the fields: so the search goes on where the
 * last one was found. */
const struct field *field_next(const struct type *t, const char *name, uint32_t n, uint16_t *at);
