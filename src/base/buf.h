/* base/buf.h - a growing run of bytes with a limit from birth.
 *
 * Writers never check: past the limit the buffer stays as it is and remembers (buf.over); whoever
 * sends it asks once. Always 0-terminated behind the last byte, so b.p prints.
 * Owner: who called buf_init (or made it {0} = no limit); buf_done frees. */
#pragma once

#include "base/base.h"

#include <stdarg.h>

struct buf {
    char *p;    /* NULL while empty */
    size_t n;   /* bytes used */
    size_t cap; /* bytes allocated */
    size_t max; /* limit on n; 0 = none */
    bool over;  /* something did not fit */
};

static inline void buf_init(struct buf *b, size_t max_bytes)
{
    *b = (struct buf){.max = max_bytes};
}
void buf_done(struct buf *b);
static inline void buf_reset(struct buf *b)
{
    b->n = 0;
    b->over = false;
}
bool buf_reserve(struct buf *b, size_t more); /* false: over the limit */
void buf_add_slow(struct buf *b, const void *p, size_t n); /* of buf_add: when there is no room */
static inline void buf_add(struct buf *b, const void *p, size_t n)
{
    if (__builtin_expect(b->cap - b->n <= n || (b->max && b->n + n > b->max) || !n, 0)) {
        buf_add_slow(b, p, n);
        return;
    }
    memcpy(b->p + b->n, p, n);
    b->n += n;
    b->p[b->n] = 0;
}
static inline void buf_addc(struct buf *b, char c)
{
    buf_add(b, &c, 1);
}
static inline void buf_adds(struct buf *b, const char *s)
{
    buf_add(b, s, strlen(s));
}
void buf_addi(struct buf *b, long long v); /* decimal */
void buf_printf(struct buf *b, const char *fmt, ...) _printf_(2, 3);
void buf_vprintf(struct buf *b, const char *fmt, va_list ap) _printf_(2, 0);
void buf_eat(struct buf *b, size_t n); /* drops n bytes from the front */
char *buf_take(struct buf *b);         /* hands the bytes over (free() them), never NULL; b is empty after */
