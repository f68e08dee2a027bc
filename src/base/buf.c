#include "base/buf.h"

#include <stdio.h>

void buf_done(struct buf *b)
{
    free(b->p);
    *b = (struct buf){.max = b->max};
}

bool buf_reserve(struct buf *b, size_t more)
{
    size_t need, cap;

    if (__builtin_add_overflow(b->n, more, &need) || (b->max && need > b->max)) {
        b->over = true;
        return false;
    }
    if (need + 1 <= b->cap)
        return true;
    cap = b->cap ? b->cap * 2 : 256;
    if (cap < need + 1)
        cap = need + 1;
    b->p = xrealloc(b->p, cap);
    b->cap = cap;
    return true;
}

void buf_add_slow(struct buf *b, const void *p, size_t n)
{
    if (!buf_reserve(b, n))
        return;
    if (n)
        memcpy(b->p + b->n, p, n);
    b->n += n;
    b->p[b->n] = 0;
}

void buf_addi(struct buf *b, long long v)
{
    char text[24], *p = text + sizeof text;
    unsigned long long u = v < 0 ? 0ull - (unsigned long long)v : (unsigned long long)v;

    do {
        *--p = (char)('0' + u % 10);
    } while (u /= 10);
    if (v < 0)
        *--p = '-';
    buf_add(b, p, (size_t)(text + sizeof text - p));
}

/* Into the room that there is; only what does not fit is formatted a second time. */
void buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
    size_t room = b->cap - b->n;
    va_list again;
    int n;

    va_copy(again, ap);
    n = vsnprintf(room ? b->p + b->n : NULL, room, fmt, again);
    va_end(again);
    ASSERT(n >= 0);
    if ((size_t)n >= room || (b->max && b->n + (size_t)n > b->max)) {
        if (room)
            b->p[b->n] = 0;
        if (!buf_reserve(b, (size_t)n))
            return;
        vsnprintf(b->p + b->n, (size_t)n + 1, fmt, ap);
    }
    b->n += (size_t)n;
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    buf_vprintf(b, fmt, ap);
    va_end(ap);
}

void buf_eat(struct buf *b, size_t n)
{
    ASSERT(n <= b->n);
    if (!n)
        return;
    memmove(b->p, b->p + n, b->n - n + 1);
    b->n -= n;
}

char *buf_take(struct buf *b)
{
    char *p = b->p ? b->p : xstrdup("");

    *b = (struct buf){.max = b->max};
    return p;
}
