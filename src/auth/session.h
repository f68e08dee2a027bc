/* auth/session.h - session tokens: what somebody may know of himself, sealed so that only we can read or make it.
 *
 *   token = base64url(version 1, 12 bytes nonce, AES-256-GCM(JSON), 16 bytes tag)
 * Nothing about them is stored; who opens one looks at its times. A key file of 32 bytes, mode 0600. */
#pragma once

#include "base/err.h"
#include "codec/val.h"

enum { SESSION_KEY_BYTES = 32, SESSION_TOKEN_MAX = 32768 };

/* Reads the key, or makes it. */
int session_key(const char *path, unsigned char ret[SESSION_KEY_BYTES], struct err *err) _must_check_;
char *session_seal(const unsigned char key[SESSION_KEY_BYTES], const struct val *v, struct arena *a);
/* NULL and INVALID_ARGUMENT: it is none of ours. */
struct val *session_open(const unsigned char key[SESSION_KEY_BYTES], const char *token, struct arena *a, struct err *err);
/* Says of a document that we wrote it, as what `about` names: base64url(HMAC-SHA256). By meaning: neither the order of keys nor
 * how a number is written nor bytes that are no UTF-8 nor members that are null count (nor v's own that are empty), so it holds however a store keeps it. Nobody without the key can make it. */
char *session_sign(const unsigned char key[SESSION_KEY_BYTES], const char *about, const struct val *v, struct arena *a);
