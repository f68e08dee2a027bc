/* gateway/otlp_int.h - spans in bytes (otlp_span.c), for who sends them (otlp.c). Messages are written in place: begin leaves a
 * byte for the length, end puts it there. */
#pragma once

#include "gateway/otlp.h"

size_t otlp_begin(struct buf *b, int field);
void otlp_end(struct buf *b, size_t at);
void otlp_bytes(struct buf *b, int field, const void *p, size_t n);
/* A KeyValue; nothing for an empty text or one that is not plain ASCII. */
void otlp_attr(struct buf *b, int field, const char *key, const char *value);
/* As ScopeSpans.spans; how many. Over the limit of b: b->over. */
uint32_t otlp_encode(struct buf *b, const struct function_span *s);
