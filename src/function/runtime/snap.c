/* snap.c of zygote.so - the memory of an initialised runtime as an image, and a process that goes on from it.
 *
 * The one that makes the image and those that go on from it are forks of one base: program, libraries, thread control
 * block and stack lie at the same addresses in all of them. Each of them is in its own sandbox, as its function's user,
 * before it comes here, and whoever reads an image reads it inside its sandbox: nothing in it is trusted by anybody else.
 *
 *   image: struct head (with the registers), regions, names of files, then pages, all at fixed places of a memfd
 *   made:  every private page that differs from its file is written; the process ends here
 *   taken: own mappings that the image has not are removed, files are mapped as they were, anonymous memory is
 *          mapped anew and pages of the image over it, private: the kernel copies what is written to. Then the registers.
 *
 * While memory is exchanged a stack of its own is used (struct work), and nothing but system calls: what libc keeps in
 * memory changes under us. Code stays where it is: it is the same file in both.
 * Not of memory: descriptors, files in /tmp, signal handlers. The driver notes them before and makes them anew after. */
#include "base/base.h"
#include "function/runtime/zygote.h"
#include "function/runtime/zygote_so.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

enum {
    PAGE = 4096, REGIONS_MAX = 8192, RUNS_MAX = 32768, NAMES_MAX = 1 << 19, MAPS_MAX = 4 << 20, STACK_BYTES = 256 << 10,
    PIECE_BYTES = 1 << 20,
    GAP_PAGES = 8, /* two runs with fewer untouched pages between them are one */
};
static const uint64_t MAGIC = 0x31706e736d646e74;

enum region_kind {
    ANON,  /* zeros, and the pages of the image */
    FILE_, /* a file's pages, and those of the image */
    STACK, /* grows: its pages are copied, the mapping stays */
    KEPT,  /* the kernel's (vdso): it lies there in any fork */
};

struct region {
    uint64_t from, to, offset, inode, dev;
    uint32_t prot, kind, shared, name; /* name: offset into names */
    uint32_t run, runs_n;              /* its pages */
};

struct run {
    uint64_t at, n, in_image;
};

struct head {
    uint64_t magic, brk, end; /* end: where the next page goes, the size of the image */
    uint32_t regions_n, runs_n, names_n;
    struct region regions[REGIONS_MAX];
    struct run runs[RUNS_MAX];
    char names[NAMES_MAX];
};

enum { HEAD_BYTES = (sizeof(struct head) + PAGE - 1) / PAGE * PAGE };

/* A mapping that is no part of what is saved, and survives what is exchanged. */
struct work {
    struct head head;
    struct region own[REGIONS_MAX]; /* when an image is taken: what was mapped here before */
    uint32_t own_n, own_names_n;
    char own_names[NAMES_MAX];
    char maps[MAPS_MAX];
    struct z_info info;
    int image;
    char stack[STACK_BYTES] __attribute__((aligned(64)));
    ucontext_t ctx;
};

/* Of the image: this lies in memory that is saved. */
static struct {
    ucontext_t ctx;
    struct work *work;
    volatile int resumed;
} snap;

/* ---- what is mapped ---- */

static uint64_t hex(const char **p)
{
    uint64_t n = 0;

    for (;; (*p)++) {
        int c = **p;

        if (c >= '0' && c <= '9')
            n = n << 4 | (uint64_t)(c - '0');
        else if (c >= 'a' && c <= 'f')
            n = n << 4 | (uint64_t)(c - 'a' + 10);
        else
            return n;
    }
}

static const char *skip(const char *p, char c)
{
    while (*p && *p != '\n' && *p == c)
        p++;
    return p;
}

static bool is_name(const char *name, size_t n, const char *what)
{
    return n >= strlen(what) && memcmp(name, what, strlen(what)) == 0;
}

/* One line of maps. False: there is no room for it. */
static bool read_line(const char *p, struct region *r, char *names, uint32_t *names_n)
{
    uint64_t major, minor, inode = 0;
    size_t n;

    memset(r, 0, sizeof *r);
    r->from = hex(&p);
    p++;
    r->to = hex(&p);
    p++;
    r->prot = (p[0] == 'r' ? PROT_READ : 0) | (p[1] == 'w' ? PROT_WRITE : 0) | (p[2] == 'x' ? PROT_EXEC : 0);
    r->shared = p[3] == 's';
    p += 5;
    r->offset = hex(&p);
    p++;
    major = hex(&p);
    p++;
    minor = hex(&p);
    r->dev = major << 32 | minor;
    for (p++; *p >= '0' && *p <= '9'; p++)
        inode = inode * 10 + (uint64_t)(*p - '0');
    r->inode = inode;
    p = skip(p, ' ');
    n = strcspn(p, "\n");
    if (*names_n + n + 1 > NAMES_MAX)
        return false;
    r->name = *names_n;
    memcpy(names + *names_n, p, n);
    names[*names_n + n] = 0;
    *names_n += (uint32_t)n + 1;
    if (is_name(p, n, "[v"))
        r->kind = KEPT;
    else if (is_name(p, n, "[stack]"))
        r->kind = STACK;
    else if (*p == '/')
        r->kind = FILE_;
    else
        r->kind = ANON;
    return true;
}

/* All that is mapped but this work itself; 0 or -errno. */
static int read_maps(struct work *w, struct region *list, uint32_t *ret_n, char *names, uint32_t *names_n)
{
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    size_t have = 0;
    ssize_t n = 0;

    *ret_n = *names_n = 0;
    if (fd < 0)
        return -errno;
    while (have < MAPS_MAX - 1 && (n = read(fd, w->maps + have, MAPS_MAX - 1 - have)) > 0)
        have += (size_t)n;
    close(fd);
    if (n != 0)
        return -E2BIG;
    w->maps[have] = 0;
    for (const char *p = w->maps; *p; p = strchr(p, '\n') + 1) {
        struct region *r = &list[*ret_n];

        if (*ret_n == REGIONS_MAX || !strchr(p, '\n') || !read_line(p, r, names, names_n))
            return -E2BIG;
        if (r->from < (uint64_t)(uintptr_t)(w + 1) && r->to > (uint64_t)(uintptr_t)w)
            continue;
        *ret_n += 1;
    }
    return 0;
}

/* Where neither this process nor the image (NULL: none yet) has anything; -errno when there is no such place. */
static int work_new(const struct head *h, struct work **ret)
{
    size_t bytes = (sizeof(struct work) + PAGE - 1) / PAGE * PAGE;

    for (uint64_t at = 0x100000000000; at < 0x500000000000; at += 0x1000000000) {
        bool taken = false;
        void *p;

        for (uint32_t i = 0; h && i < h->regions_n; i++)
            taken |= h->regions[i].from < at + bytes && h->regions[i].to > at;
        if (taken)
            continue;
        p = mmap((void *)at, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0);
        if (p == (void *)at) {
            *ret = p;
            return 0;
        }
        if (p != MAP_FAILED)
            munmap(p, bytes);
    }
    return -ENOMEM;
}

static void work_free(struct work *w)
{
    munmap(w, (sizeof(struct work) + PAGE - 1) / PAGE * PAGE);
}

/* ---- made ---- */

static bool deleted(const char *name)
{
    size_t n = strlen(name);

    return n > 10 && strcmp(name + n - 10, " (deleted)") == 0;
}

/* Pages at..at+n go into the image, as one with the run before when it ends near by. */
static int add_run(struct head *h, struct region *r, uint64_t at, uint64_t n)
{
    struct run *last = r->runs_n ? &h->runs[h->runs_n - 1] : NULL;

    if (last && r->kind != FILE_ && at - (last->at + last->n) <= GAP_PAGES * PAGE) {
        h->end += at + n - (last->at + last->n);
        last->n = at + n - last->at;
        return 0;
    }
    if (last && at == last->at + last->n) {
        last->n += n;
        h->end += n;
        return 0;
    }
    if (h->runs_n == RUNS_MAX)
        return -E2BIG;
    if (!r->runs_n)
        r->run = h->runs_n;
    r->runs_n++;
    h->runs[h->runs_n++] = (struct run){at, n, h->end};
    h->end += n;
    return 0;
}

static int find_pages(struct head *h, struct region *r, int pagemap)
{
    uint64_t entry[512];

    for (uint64_t at = r->from; at < r->to;) {
        uint64_t want = (r->to - at) / PAGE < 512 ? (r->to - at) / PAGE : 512;
        ssize_t got = pread(pagemap, entry, want * 8, (off_t)(at / PAGE * 8));

        if (got <= 0)
            return got < 0 ? -errno : -EIO;
        for (ssize_t k = 0; k < got / 8; k++, at += PAGE) {
            bool there = entry[k] >> 62 & 3, of_file = entry[k] >> 61 & 1;

            if ((r->kind == FILE_ ? there && !of_file : there) && add_run(h, r, at, PAGE) < 0)
                return -E2BIG;
        }
    }
    return 0;
}

/* Ours have been opened where this sandbox does not see them. */
static bool file_is_there(const struct region *r, const char *names)
{
    struct stat st;

    return stat(names + r->name, &st) == 0 && st.st_ino == r->inode;
}

/* What is to be saved, before anything is changed. */
static int plan(struct work *w)
{
    struct head *h = &w->head;
    int pagemap, e = read_maps(w, h->regions, &h->regions_n, h->names, &h->names_n);

    if (e < 0)
        return e;
    h->magic = MAGIC;
    h->brk = (uint64_t)syscall(SYS_brk, 0);
    h->end = HEAD_BYTES;
    pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
    if (pagemap < 0)
        return -errno;
    for (uint32_t i = 0; i < h->regions_n && !e; i++) {
        struct region *r = &h->regions[i];
        const char *name = h->names + r->name;

        if (r->kind == KEPT)
            continue;
        if (r->shared && (r->kind != FILE_ || (r->prot & PROT_WRITE) || deleted(name)))
            e = -EMLINK; /* shared with others, or with a file that is written: of a fork's siblings it would be one */
        else if (r->kind == FILE_ && !r->shared && (deleted(name) || ((r->prot & PROT_WRITE) && !file_is_there(r, h->names))))
            r->kind = ANON, e = (r->prot & PROT_READ) ? add_run(h, r, r->from, r->to - r->from) : 0;
        else if (!r->shared)
            e = find_pages(h, r, pagemap);
    }
    close(pagemap);
    return e;
}

static int write_all(int fd, const void *p, size_t n, uint64_t at)
{
    for (size_t done = 0; done < n;) {
        ssize_t got = pwrite(fd, (const char *)p + done, n - done, (off_t)(at + done));

        if (got <= 0)
            return -1;
        done += (size_t)got;
    }
    return 0;
}

static bool holds(const struct region *r, const void *p)
{
    return (uint64_t)(uintptr_t)p >= r->from && (uint64_t)(uintptr_t)p < r->to;
}

/* Pages that lie in the image need not lie here any more: a snapshot needs little more memory than what it is of. */
static void write_run(const struct region *r, const struct run *u, int image)
{
    bool keep = r->kind != ANON || (r->prot & PROT_EXEC) || holds(r, &snap) || holds(r, (void *)pthread_self());

    for (uint64_t done = 0, n; done < u->n; done += n) {
        n = MIN(u->n - done, (uint64_t)PIECE_BYTES);
        if (write_all(image, (void *)(u->at + done), n, u->in_image + done) < 0)
            _exit(122);
        if (!keep)
            madvise((void *)(u->at + done), n, MADV_DONTNEED);
    }
}

_Noreturn static void write_image(struct work *w, int image, const void *last_words, size_t n)
{
    struct head *h = &w->head;

    if (ftruncate(image, (off_t)h->end) < 0 || write_all(image, h, sizeof *h, 0) < 0)
        _exit(120);
    for (uint32_t i = 0; i < h->regions_n; i++) {
        const struct region *r = &h->regions[i];

        if (r->runs_n && !(r->prot & PROT_READ) && mprotect((void *)r->from, r->to - r->from, PROT_READ) < 0)
            _exit(121);
        for (uint32_t k = r->run; k < r->run + r->runs_n; k++)
            write_run(r, &h->runs[k], image);
    }
    for (size_t done = 0; done < n;) {
        ssize_t got = write(3, (const char *)last_words + done, n - done);

        if (got <= 0)
            _exit(123);
        done += (size_t)got;
    }
    _exit(0);
}

static int threads(void)
{
    DIR *d = opendir("/proc/self/task");
    struct dirent *e;
    int n = 0;

    while (d && (e = readdir(d)))
        n += e->d_name[0] != '.';
    if (d)
        closedir(d);
    return n;
}

/* Saves this process in image, tells last_words to the gateway (descriptor 3) and ends it; comes back in each process
 * that goes on from the image, with 1. Not possible: -errno, nothing has changed. EDEADLK: it has more than one thread;
 * EMLINK: memory that is shared. */
EXPORT int z_snapshot(int image, const char *last_words, unsigned n)
{
    struct work *w;
    char words[256];
    int e;

    if (threads() != 1)
        return -EDEADLK;
    if (n > sizeof words)
        return -EINVAL;
    e = work_new(NULL, &w);
    if (e < 0)
        return e;
    memcpy(words, last_words, n);
    snap.resumed = 0;
    snap.work = w;
    if (getcontext(&snap.ctx) < 0)
        return -errno;
    if (snap.resumed) {
        work_free(snap.work);
        return 1;
    }
    e = plan(w);
    if (e < 0) {
        work_free(w);
        return e;
    }
    write_image(w, image, words, n); /* the stack down to here is part of it */
}

/* ---- taken ---- */

static long sys(long nr, long a, long b, long c, long d, long e, long f)
{
#if defined(__x86_64__)
    register long r10 __asm__("r10") = d, r8 __asm__("r8") = e, r9 __asm__("r9") = f;
    long ret;

    __asm__ volatile("syscall" : "=a"(ret) : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return ret;
#elif defined(__aarch64__)
    register long x8 __asm__("x8") = nr, x0 __asm__("x0") = a, x1 __asm__("x1") = b, x2 __asm__("x2") = c, x3 __asm__("x3") = d,
                  x4 __asm__("x4") = e, x5 __asm__("x5") = f;

    __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory");
    return x0;
#endif
}

_Noreturn static void fail(int step)
{
    for (;;)
        sys(SYS_exit_group, step, 0, 0, 0, 0, 0);
}

static bool same_name(const char *a, const char *b)
{
    while (*a && *a == *b)
        a++, b++;
    return *a == *b;
}

/* It is mapped here already, and nobody can have written to it. */
static bool has_it(const struct work *w, const struct region *r)
{
    uint32_t low = 0, high = w->own_n;

    if ((r->prot & PROT_WRITE) && !r->shared)
        return false;
    while (low < high) {
        uint32_t mid = (low + high) / 2;

        if (w->own[mid].from < r->from)
            low = mid + 1;
        else
            high = mid;
    }
    return low < w->own_n && w->own[low].from == r->from && w->own[low].to == r->to && w->own[low].prot == r->prot &&
           w->own[low].offset == r->offset && w->own[low].inode == r->inode && w->own[low].dev == r->dev &&
           w->own[low].shared == r->shared && same_name(w->own_names + w->own[low].name, w->head.names + r->name);
}

static void map_at(const struct region *r, uint64_t at, uint64_t n, int flags, int fd, uint64_t offset, int step)
{
    if (sys(SYS_mmap, (long)at, (long)n, (long)r->prot, flags | MAP_FIXED, fd, (long)offset) != (long)at)
        fail(step);
}

static void map_file(struct work *w, const struct region *r, int *fd, uint32_t *fd_name)
{
    const char *name = w->head.names + r->name;

    if (*fd < 0 || !same_name(name, w->head.names + *fd_name)) {
        if (*fd >= 0)
            sys(SYS_close, *fd, 0, 0, 0, 0, 0);
        *fd = (int)sys(SYS_openat, AT_FDCWD, (long)name, O_RDONLY | O_CLOEXEC, 0, 0, 0);
        *fd_name = r->name;
        if (*fd < 0)
            fail(112);
    }
    map_at(r, r->from, r->to - r->from, r->shared ? MAP_SHARED : MAP_PRIVATE, *fd, r->offset, 113);
}

/* Pages of the image over what the region is. */
static void take_pages(struct work *w, const struct region *r)
{
    for (uint32_t k = r->run; k < r->run + r->runs_n; k++) {
        const struct run *u = &w->head.runs[k];

        if (r->kind != STACK) {
            map_at(r, u->at, u->n, MAP_PRIVATE, w->image, u->in_image, 114);
            continue;
        }
        for (uint64_t done = 0; done < u->n;) {
            long got = sys(SYS_pread64, w->image, (long)(u->at + done), (long)(u->n - done), (long)(u->in_image + done), 0, 0);

            if (got <= 0)
                fail(115);
            done += (uint64_t)got;
        }
    }
}

/* On a stack of the work: the rest of memory is exchanged. */
static void exchange(unsigned low, unsigned high)
{
    struct work *w = (struct work *)((uintptr_t)low | (uintptr_t)high << 32);
    struct head *h = &w->head;
    uint64_t at = 0, self = (uint64_t)(uintptr_t)w, self_end = (uint64_t)(uintptr_t)(w + 1);
    uint32_t fd_name = 0;
    int fd = -1;

    self_end = (self_end + PAGE - 1) / PAGE * PAGE;
    for (uint32_t i = 0; i < h->regions_n; i++) { /* what lies between the image's regions goes */
        uint64_t to = h->regions[i].from;

        if (at < self_end && to > self) {
            if (self > at)
                sys(SYS_munmap, (long)at, (long)(self - at), 0, 0, 0, 0);
            at = self_end;
        }
        if (to > at && h->regions[i].kind != STACK) /* the stack may grow to there again */
            sys(SYS_munmap, (long)at, (long)(to - at), 0, 0, 0, 0);
        at = h->regions[i].to;
    }
    if ((uint64_t)sys(SYS_brk, (long)h->brk, 0, 0, 0, 0, 0) != h->brk)
        fail(111);
    for (uint32_t i = 0; i < h->regions_n; i++) {
        const struct region *r = &h->regions[i];

        if (r->kind == KEPT)
            continue;
        if (r->kind == ANON)
            map_at(r, r->from, r->to - r->from, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0, 116);
        else if (r->kind == FILE_ && !has_it(w, r))
            map_file(w, r, &fd, &fd_name);
        take_pages(w, r);
    }
    if (fd >= 0)
        sys(SYS_close, fd, 0, 0, 0, 0, 0);
    z_info = w->info;
    snap.work = w;
    snap.resumed = 1;
    setcontext(&snap.ctx);
    fail(117);
}

/* What is not mapped here already must be there, and be the same file. */
static int check_files(const struct work *w)
{
    for (uint32_t i = 0; i < w->head.regions_n; i++) {
        const struct region *r = &w->head.regions[i];

        if (r->kind == FILE_ && !has_it(w, r) && !file_is_there(r, w->head.names))
            return -ESTALE;
    }
    return 0;
}

/* Comes back only with -errno. */
static int leave_for(struct work *w)
{
    if (getcontext(&w->ctx) < 0)
        return -errno;
    w->ctx.uc_stack = (stack_t){.ss_sp = w->stack, .ss_size = sizeof w->stack};
    w->ctx.uc_link = NULL;
    makecontext(&w->ctx, (void (*)(void))exchange, 2, (unsigned)(uintptr_t)w, (unsigned)((uintptr_t)w >> 32));
    setcontext(&w->ctx);
    return -errno;
}

/* Goes on from the image, in z_snapshot(). Comes back only when that cannot be: -errno; nothing has changed then. */
EXPORT int z_restore(int image)
{
    struct head *h = mmap(NULL, HEAD_BYTES, PROT_READ, MAP_PRIVATE, image, 0);
    struct work *w;
    int e;

    if (h == MAP_FAILED)
        return -errno;
    e = h->magic != MAGIC ? -EINVAL : work_new(h, &w);
    if (e < 0) {
        munmap(h, HEAD_BYTES);
        return e;
    }
    memcpy(&w->head, h, offsetof(struct head, regions));
    memcpy(w->head.regions, h->regions, h->regions_n * sizeof h->regions[0]);
    memcpy(w->head.runs, h->runs, h->runs_n * sizeof h->runs[0]);
    memcpy(w->head.names, h->names, h->names_n);
    munmap(h, HEAD_BYTES);
    e = read_maps(w, w->own, &w->own_n, w->own_names, &w->own_names_n);
    if (!e)
        e = check_files(w);
    if (!e) {
        w->image = image;
        w->info = z_info;
        e = leave_for(w);
    }
    work_free(w);
    return e;
}
