/* sandbox/seccomp.h - the system call filter of containers and function instances.
 *
 * The usual OCI default profile as data (seccomp.def), turned into a range/binary search once: some
 * 100 instructions, of which a call passes about ten. Denied calls give EPERM; unknown ones, other
 * architectures' and clone3 give ENOSYS (so that libcs fall back).
 * Plain C, no allocation: forked children and the static shim use it too. A filter is inherited
 * across fork for free, so zygotes load it once. */
#pragma once

#include "base/err.h"

#include <linux/filter.h>

enum { SECCOMP_INSTR_MAX = 1024 };

struct seccomp_filter {
    uint16_t n;
    struct sock_filter code[SECCOMP_INSTR_MAX];
};

/* The default profile as it applies to a process with these capabilities (bit n = CAP n):
 * CAP_SYS_ADMIN allows mount and friends, CAP_SYS_PTRACE process_vm_*, and so on. */
void seccomp_default(struct seccomp_filter *ret_filter, uint64_t caps);
/* Loads it for the calling thread. Needs no_new_privs or CAP_SYS_ADMIN. */
int seccomp_load(const struct seccomp_filter *filter, struct err *err);
/* Runs the filter over a call as the kernel would: SECCOMP_RET_* value. For tests and "explain". */
uint32_t seccomp_eval(const struct seccomp_filter *filter, uint32_t arch, int nr,
                      const uint64_t args[6]);
