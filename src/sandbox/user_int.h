/* sandbox/user_int.h - who a process in a container is, by the container's own /etc/passwd and
 * /etc/group (the caller's root is already the container's). */
#pragma once

#include "sandbox/spec.h"

enum { SANDBOX_GROUPS_MAX = 256 };
struct sandbox_user {
    uint32_t uid, gid;
    uint32_t groups[SANDBOX_GROUPS_MAX];
    size_t groups_n;
    char home[256];
};
int sandbox_user_find(const struct sandbox_spec *s, struct sandbox_user *ret_user, struct err *err);
int setgroups_sys(const uint32_t *groups, size_t n);
