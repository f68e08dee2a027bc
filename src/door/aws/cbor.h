/* door/aws/cbor.h - CBOR (RFC 8949) to and from values, as Smithy's RPC v2 uses it: maps with text keys, lists, texts, whole
 * and floating numbers, booleans, null; tag 1 (time) is dropped when read, and written before the times of `is_time`.
 * Indefinite lengths are read, not written; a map has at most 1,000 keys. Byte strings become texts. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "codec/val.h"

/* NULL and INVALID_ARGUMENT; depth is limited to 32. */
struct val *cbor_read(struct arena *a, const void *p, size_t n, struct err *err) _must_check_;
/* is_time (may be NULL): do the numbers below this key stand for times? */
void cbor_write(struct buf *b, const struct val *v, bool (*is_time)(const char *key));
