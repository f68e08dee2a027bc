/* auth/b64.h - base64 as JWTs (URL alphabet, no padding) and PEM-like fields (padded) have it. */
#pragma once

#include "base/arena.h"

char *b64url(struct arena *a, const void *data, size_t n); /* 0-terminated */
/* NULL when it is not of that alphabet or length; a 0 stands behind the last byte. */
unsigned char *b64url_decode(struct arena *a, const char *s, size_t n, size_t *ret_n);
/* Standard alphabet with padding; line ends are passed over. NULL: malformed. */
unsigned char *base64_decode(struct arena *a, const char *s, size_t n, size_t *ret_n);
char *base64_encode(struct arena *a, const void *data, size_t n);
