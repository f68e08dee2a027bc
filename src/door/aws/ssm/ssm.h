/* door/aws/ssm/ssm.h - what SSM's parameters need beside objects: the key that seals SecureStrings. */
#pragma once

#include "base/arena.h"
#include "base/err.h"

enum { SSM_KEY_BYTES = 32 };
/* STATE/pki/parameters.key, made when it is not there (0600). */
int ssm_key_open(const char *state, unsigned char key[SSM_KEY_BYTES], struct err *err) _must_check_;
/* AES-256-GCM, bound to `about` (name and version): base64 of nonce, text and tag, in the arena. */
char *ssm_seal(struct arena *a, const unsigned char key[SSM_KEY_BYTES], const char *about, const char *text);
/* NULL: it is not ours, or was changed. */
char *ssm_unseal(struct arena *a, const unsigned char key[SSM_KEY_BYTES], const char *about, const char *sealed);
/* The parameter's name in "/a/b", "/a/b:3", "/a/b:label" or an ARN, in the arena; *ret_selector "" when there is none. */
const char *ssm_name_of(struct arena *a, const char *s, const char **ret_selector);
