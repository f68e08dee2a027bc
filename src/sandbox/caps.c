#include "sandbox/caps.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <stdio.h>
#include <strings.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static const char *const NAMES[] = {
#define CAP(nr, name) [nr] = "CAP_" #name,
#include "sandbox/caps.def"
#undef CAP
};

uint64_t caps_default(void)
{
    /* containerd's set without MKNOD: there is no device group behind it that would say which
     * devices may be made, so it is only for those who ask. */
    return 1ull << CAP_CHOWN | 1ull << CAP_DAC_OVERRIDE | 1ull << CAP_FOWNER | 1ull << CAP_FSETID |
           1ull << CAP_KILL | 1ull << CAP_SETGID | 1ull << CAP_SETUID | 1ull << CAP_SETPCAP |
           1ull << CAP_NET_BIND_SERVICE | 1ull << CAP_NET_RAW | 1ull << CAP_SYS_CHROOT |
           1ull << CAP_AUDIT_WRITE | 1ull << CAP_SETFCAP;
}

uint64_t caps_all(void)
{
    uint64_t all = 0;
    int in;

    for (int c = 0; c < 64 && (in = prctl(PR_CAPBSET_READ, c, 0, 0, 0)) >= 0; c++)
        all |= (uint64_t)(in > 0) << c;
    return all;
}

int caps_parse(const char *name)
{
    if (strncasecmp(name, "CAP_", 4) == 0)
        name += 4;
    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        if (NAMES[i] && strcasecmp(NAMES[i] + 4, name) == 0)
            return (int)i;
    return -1;
}

const char *caps_name(int cap)
{
    return cap >= 0 && cap < (int)ARRAY_LEN(NAMES) && NAMES[cap] ? NAMES[cap] : "CAP_UNKNOWN";
}

int caps_drop_bounding(uint64_t keep, struct err *err)
{
    for (int c = 0; c < 64; c++) {
        if (keep & 1ull << c)
            continue;
        if (prctl(PR_CAPBSET_DROP, c, 0, 0, 0) < 0) {
            if (errno == EINVAL)
                break; /* past the last one this kernel knows */
            return err_sys(err, "drop %s", caps_name(c));
        }
    }
    return 0;
}

int caps_set(uint64_t caps, bool keep_effective, struct err *err)
{
    struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
    struct __user_cap_data_struct data[2];
    uint64_t own = keep_effective ? caps : 0;

    for (int i = 0; i < 2; i++) {
        data[i].effective = data[i].permitted = (uint32_t)(own >> (32 * i));
        /* Inheritable stays empty: with it, a program with file capabilities could raise what its
         * starter never had (CVE-2022-24769). */
        data[i].inheritable = 0;
    }
    if (syscall(SYS_capset, &head, data) < 0)
        return err_sys(err, "set capabilities");
    return 0;
}
