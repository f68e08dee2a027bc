/* How the filter looks: a check of the architecture, then a binary search over ranges of call
 * numbers that share one answer. The kernel runs a filter once per call number when it is loaded,
 * so a linear list of 300 comparisons costs 400 us there, this form about 30. */
#include "sandbox/seccomp.h"

#include <asm/unistd.h>
#include <errno.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Newer than some headers; these numbers are the same on all architectures. */
#ifndef __NR_set_mempolicy_home_node
#define __NR_set_mempolicy_home_node 450
#endif
#ifndef __NR_cachestat
#define __NR_cachestat 451
#endif
#ifndef __NR_fchmodat2
#define __NR_fchmodat2 452
#endif
#ifndef __NR_map_shadow_stack
#define __NR_map_shadow_stack 453
#endif
#ifndef __NR_futex_wake
#define __NR_futex_wake 454
#define __NR_futex_wait 455
#define __NR_futex_requeue 456
#endif

#if defined(__x86_64__)
#define ARCH AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define ARCH AUDIT_ARCH_AARCH64
#else
#error "sandbox/seccomp.c: this architecture needs its AUDIT_ARCH_ value"
#endif

/* The namespace flags of clone(2): they need CAP_SYS_ADMIN. */
#define CLONE_NS_MASK 0x7e020000u
#define PF_VSOCK 40

enum { CALLS_MAX = 512 };
enum answer { DENY, ALLOW, NOSYS, CHECK_CLONE, CHECK_PERSONALITY, CHECK_SOCKET };

struct row {
    uint16_t nr;
    uint8_t answer;
    uint8_t cap; /* CAP number + 1, 0 = always */
};

#define CHECK_clone CHECK_CLONE
#define CHECK_clone3 NOSYS /* its flags lie behind a pointer; libcs fall back to clone */
#define CHECK_personality CHECK_PERSONALITY
#define CHECK_socket CHECK_SOCKET
static const struct row ROWS[] = {
#define CALL(name) {__NR_##name, ALLOW, 0},
#define CALL_CAP(name, c) {__NR_##name, ALLOW, CAP_##c + 1},
#define CHECK(name, rule) {__NR_##name, CHECK_##rule, 0},
#include "sandbox/seccomp.def"
#undef CALL
#undef CALL_CAP
#undef CHECK
};

struct range {
    uint16_t from;
    uint8_t answer;
};

static void put(struct seccomp_filter *f, uint16_t code, uint8_t jt, uint8_t jf, uint32_t k)
{
    ASSERT(f->n < SECCOMP_INSTR_MAX);
    f->code[f->n++] = (struct sock_filter){code, jt, jf, k};
}

static void put_ret(struct seccomp_filter *f, uint32_t value)
{
    put(f, BPF_RET | BPF_K, 0, 0, value);
}

static void put_arg0(struct seccomp_filter *f)
{
    put(f, BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, args[0]));
}

#define RET_EPERM (SECCOMP_RET_ERRNO | EPERM)
#define RET_ENOSYS (SECCOMP_RET_ERRNO | ENOSYS)

static void put_answer(struct seccomp_filter *f, enum answer answer)
{
    static const uint32_t personality_ok[] = {0x0, 0x8, 0x20000, 0x20008, 0xffffffff};

    switch (answer) {
    case ALLOW:
        put_ret(f, SECCOMP_RET_ALLOW);
        return;
    case NOSYS:
        put_ret(f, RET_ENOSYS);
        return;
    case CHECK_CLONE:
        put_arg0(f);
        put(f, BPF_JMP | BPF_JSET | BPF_K, 0, 1, CLONE_NS_MASK);
        put_ret(f, RET_EPERM);
        put_ret(f, SECCOMP_RET_ALLOW);
        return;
    case CHECK_PERSONALITY:
        put_arg0(f);
        for (size_t i = 0, n = ARRAY_LEN(personality_ok); i < n; i++)
            put(f, BPF_JMP | BPF_JEQ | BPF_K, (uint8_t)(n - i), 0, personality_ok[i]);
        put_ret(f, RET_EPERM);
        put_ret(f, SECCOMP_RET_ALLOW);
        return;
    case CHECK_SOCKET:
        put_arg0(f);
        put(f, BPF_JMP | BPF_JEQ | BPF_K, 0, 1, PF_VSOCK);
        put_ret(f, RET_EPERM);
        put_ret(f, SECCOMP_RET_ALLOW);
        return;
    case DENY:
        put_ret(f, RET_EPERM);
        return;
    }
}

/* nr < r[mid].from goes on with the next instruction, others jump over the left half. */
static void put_search(struct seccomp_filter *f, const struct range *r, int n)
{
    int mid = n / 2, at = f->n;

    if (n == 1) {
        put_answer(f, r->answer);
        return;
    }
    put(f, BPF_JMP | BPF_JGE | BPF_K, 0, 0, r[mid].from);
    put_search(f, r, mid);
    if (f->n - at - 1 <= 255) {
        f->code[at].jt = (uint8_t)(f->n - at - 1);
    } else {
        /* Too far for one byte: an unconditional jump right behind the test takes the long way. */
        int left = f->n - at - 1;
        ASSERT(f->n < SECCOMP_INSTR_MAX);
        memmove(&f->code[at + 2], &f->code[at + 1], (size_t)left * sizeof f->code[0]);
        f->code[at].jf = 1;
        f->code[at + 1] = (struct sock_filter){BPF_JMP | BPF_JA, 0, 0, (uint32_t)left};
        f->n++;
    }
    put_search(f, r + mid, n - mid);
}

void seccomp_default(struct seccomp_filter *ret_filter, uint64_t caps)
{
    uint8_t answer[CALLS_MAX] = {0}; /* DENY */
    struct range ranges[CALLS_MAX + 1];
    int n = 0, newest = 0;

    for (size_t i = 0; i < ARRAY_LEN(ROWS); i++) {
        const struct row *r = &ROWS[i];
        ASSERT(r->nr < CALLS_MAX);
        newest = MAX(newest, (int)r->nr);
        if (r->cap && !(caps & 1ull << (r->cap - 1)))
            continue;
        answer[r->nr] = r->answer;
    }
    if (caps & 1ull << CAP_SYS_ADMIN)
        answer[__NR_clone] = answer[__NR_clone3] = ALLOW;
    for (int i = newest + 1; i < CALLS_MAX; i++)
        answer[i] = NOSYS;
    for (int i = 0; i < CALLS_MAX; i++)
        if (!n || ranges[n - 1].answer != answer[i])
            ranges[n++] = (struct range){(uint16_t)i, answer[i]};

    ret_filter->n = 0;
    put(ret_filter, BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, arch));
    put(ret_filter, BPF_JMP | BPF_JEQ | BPF_K, 1, 0, ARCH);
    put_ret(ret_filter, RET_ENOSYS); /* x32 has large numbers and falls into the last range */
    put(ret_filter, BPF_LD | BPF_W | BPF_ABS, 0, 0, offsetof(struct seccomp_data, nr));
    put_search(ret_filter, ranges, n);
}

int seccomp_load(const struct seccomp_filter *filter, struct err *err)
{
    struct sock_fprog prog = {filter->n, (struct sock_filter *)(uintptr_t)filter->code};

    if (syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &prog) < 0)
        return err_sys(err, "load seccomp filter (%d instructions)", filter->n);
    return 0;
}

uint32_t seccomp_eval(const struct seccomp_filter *filter, uint32_t arch, int nr,
                      const uint64_t args[6])
{
    struct seccomp_data d = {.nr = nr, .arch = arch};
    uint32_t acc = 0;

    memcpy(d.args, args, sizeof d.args);
    for (int pc = 0; pc < filter->n; pc++) {
        const struct sock_filter *i = &filter->code[pc];
        switch (i->code) {
        case BPF_LD | BPF_W | BPF_ABS:
            memcpy(&acc, (const char *)&d + i->k, sizeof acc);
            break;
        case BPF_JMP | BPF_JA:
            pc += (int)i->k;
            break;
        case BPF_JMP | BPF_JEQ | BPF_K:
            pc += acc == i->k ? i->jt : i->jf;
            break;
        case BPF_JMP | BPF_JGE | BPF_K:
            pc += acc >= i->k ? i->jt : i->jf;
            break;
        case BPF_JMP | BPF_JSET | BPF_K:
            pc += acc & i->k ? i->jt : i->jf;
            break;
        case BPF_RET | BPF_K:
            return i->k;
        default:
            UNREACHABLE();
        }
    }
    UNREACHABLE();
}
