/* codec/pack.h - small texts made much smaller by what others of their kind look like.
 *
 * A pack is a dictionary: the text of a few objects. Two pods of one Deployment differ in a dozen
 * words, so beside it the second one takes a twentieth of its size, and unpacking costs less than
 * reading the text once. Without a dictionary (p NULL) only long texts are worth it.
 * By zstd, at its quickest level. Never changes after pack_new().
 * Owner: reference counts, from any thread. pack_write() of one dictionary: one thread at a time. */
#pragma once

#include "base/base.h"

enum {
    PACK_DICT_BYTES_MAX = 24 << 10,
    PACK_TEXT_MIN = 256,  /* with a dictionary */
    PACK_ALONE_MIN = 4096, /* without */
};

struct pack;

struct pack *pack_new(int64_t id, const void *content, size_t n);
struct pack *pack_ref(struct pack *p);
void *pack_unref(struct pack *p); /* NULL is fine; gives back NULL */
int64_t pack_id(const struct pack *p); /* 0 for NULL */
const void *pack_content(const struct pack *p, size_t *ret_n);
/* No more writing with it: lets go of what only that needs. */
void pack_rest(struct pack *p);
/* The packed form (malloc'ed), or NULL when it would not be at least a quarter smaller. */
void *pack_write(struct pack *p, const char *text, size_t n, uint32_t *ret_n) _must_check_;
/* Fills out[0, out_n) and a final 0 behind it; false: these bytes are not what pack_write() made. */
bool pack_read(const struct pack *p, const void *packed, size_t n, char *out, size_t out_n) _must_check_;
