/* auth/user.h - who asks.
 *
 * Made by whoever ends a connection (the HTTP front from a certificate, a token or nothing; parts
 * of the same process by hand) and handed down with each request. All strings are borrowed from
 * the maker, mostly from the request's arena. */
#pragma once

#include "codec/val.h"

struct auth_user {
    const char *name;
    const char *uid;           /* "" when there is none */
    const char *const *groups; /* NULL-terminated; may be NULL */
    const struct val *extra;   /* map of lists of strings, or NULL */
};

#define GROUP_MASTERS "system:masters"
#define GROUP_AUTHENTICATED "system:authenticated"
#define GROUP_UNAUTHENTICATED "system:unauthenticated"
#define USER_ANONYMOUS "system:anonymous"

bool auth_user_in(const struct auth_user *u, const char *group);
