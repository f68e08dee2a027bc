#include "base/arena.h"

#include <stdarg.h>
#include <stdio.h>

enum { BLOCK_FIRST = 4096, BLOCK_MAX = 256 * 1024, ALIGN = 16 };

struct block {
    struct block *next;
    size_t cap;
    char data[] __attribute__((aligned(ALIGN)));
};

struct pin {
    struct pin *next;
    void (*release)(void *);
    void *what;
};

struct arena {
    struct block *blocks; /* newest first */
    char *at, *end;
    struct pin *pins;
    size_t bytes;
};

/* The arena struct lies at the start of its first block. */
static struct block *block_new(size_t cap)
{
    struct block *b = xmalloc(sizeof *b + cap);

    b->next = NULL;
    b->cap = cap;
    return b;
}

struct arena *arena_new_sized(size_t first)
{
    struct block *b = block_new(MAX(first, (size_t)BLOCK_FIRST) - sizeof(struct block));
    struct arena *a = (struct arena *)b->data;

    memset(a, 0, sizeof *a);
    a->blocks = b;
    a->at = b->data + ((sizeof *a + ALIGN - 1) & ~(size_t)(ALIGN - 1));
    a->end = b->data + b->cap;
    return a;
}

struct arena *arena_new(void)
{
    return arena_new_sized(BLOCK_FIRST);
}

static void run_pins(struct arena *a)
{
    while (a->pins) {
        struct pin *p = a->pins;

        a->pins = p->next;
        p->release(p->what);
    }
}

void *arena_free(struct arena *a)
{
    if (!a)
        return NULL;
    run_pins(a);
    for (struct block *b = a->blocks, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    return NULL;
}

void arena_reset(struct arena *a)
{
    run_pins(a);
    while (a->blocks->next) {
        struct block *b = a->blocks;

        a->blocks = b->next;
        free(b);
    }
    a->at = a->blocks->data + ((sizeof *a + ALIGN - 1) & ~(size_t)(ALIGN - 1));
    a->end = a->blocks->data + a->blocks->cap;
    a->bytes = 0;
}

void *arena_raw(struct arena *a, size_t n)
{
    size_t need = (n + ALIGN - 1) & ~(size_t)(ALIGN - 1);
    void *p;

    if ((size_t)(a->end - a->at) < need) {
        size_t cap = MIN(a->blocks->cap * 2, (size_t)BLOCK_MAX);
        struct block *b;

        if (need > cap / 4) { /* a big one gets its own block, behind the one in use */
            b = block_new(need);
            b->next = a->blocks->next;
            a->blocks->next = b;
            if (b->next == NULL && a->blocks->data == (char *)a) {
                /* the first block must stay last in the chain: it holds the arena itself */
                b->next = a->blocks;
                a->blocks->next = NULL;
                a->blocks = b;
                /* keep bumping in the first block: at and end still point there */
            }
            a->bytes += need;
            return b->data;
        }
        b = block_new(cap);
        b->next = a->blocks;
        a->blocks = b;
        a->at = b->data;
        a->end = b->data + cap;
    }
    p = a->at;
    a->at += need;
    a->bytes += need;
    return p;
}

void *arena_alloc(struct arena *a, size_t n)
{
    return memset(arena_raw(a, n), 0, n);
}

char *arena_strndup(struct arena *a, const char *s, size_t n)
{
    char *p = arena_raw(a, n + 1);

    memcpy(p, s, n);
    p[n] = 0;
    return p;
}

char *arena_strdup(struct arena *a, const char *s)
{
    return arena_strndup(a, s, strlen(s));
}

void *arena_memdup(struct arena *a, const void *p, size_t n)
{
    return memcpy(arena_raw(a, n), p, n);
}

char *arena_vprintf(struct arena *a, const char *fmt, va_list ap)
{
    char small[256], *p;
    va_list again;
    int n;

    va_copy(again, ap);
    n = vsnprintf(small, sizeof small, fmt, ap);
    ASSERT(n >= 0);
    p = arena_raw(a, (size_t)n + 1);
    if ((size_t)n < sizeof small)
        memcpy(p, small, (size_t)n + 1);
    else
        vsnprintf(p, (size_t)n + 1, fmt, again);
    va_end(again);
    return p;
}

char *arena_printf(struct arena *a, const char *fmt, ...)
{
    va_list ap;
    char *p;

    va_start(ap, fmt);
    p = arena_vprintf(a, fmt, ap);
    va_end(ap);
    return p;
}

size_t arena_bytes(const struct arena *a)
{
    return a->bytes;
}

void arena_pin(struct arena *a, void (*release)(void *), void *what)
{
    struct pin *p = arena_raw(a, sizeof *p);

    *p = (struct pin){.next = a->pins, .release = release, .what = what};
    a->pins = p;
}
