/* sandbox/caps.h - Linux capabilities by name and as sets of bits (bit n = CAP n). Plain C. */
#pragma once

#include "base/err.h"

/* What a container has when nothing is said: the set of containerd without MKNOD and AUDIT_WRITE's
 * friends that need a device group; see caps.c. */
#define CAPS_DEFAULT caps_default()
uint64_t caps_default(void);
uint64_t caps_all(void); /* those this kernel knows */
int caps_parse(
    const char *name); /* "NET_ADMIN", "cap_net_admin": its number; -1 unknown; "ALL" is not here */
const char *caps_name(int cap); /* "CAP_NET_ADMIN" */
/* Effective and permitted of the calling thread become `caps` with keep_effective (root), empty
 * without; inheritable and ambient become empty. Drop the bounding set first (that needs
 * CAP_SETPCAP). */
int caps_set(uint64_t caps, bool keep_effective, struct err *err);
int caps_drop_bounding(uint64_t keep, struct err *err);
