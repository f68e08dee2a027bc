/* base/base.h - the few words that every file of the house uses.
 *
 * Nothing here allocates or fails. ASSERT stays on in release builds: it guards our own thinking
 * (arguments, invariants), never bytes that came from outside. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/param.h> /* brings MIN and MAX of its own: ours replace them once and for all */

#define _must_check_ __attribute__((warn_unused_result))
#define _printf_(a, b) __attribute__((format(printf, a, b)))
#define _unused_ __attribute__((unused))
#define _noreturn_ __attribute__((noreturn))

/* _auto_(freep) char *p = ...; runs freep(&p) when p goes out of scope. */
#define _auto_(fn) __attribute__((cleanup(fn)))

/* Hands a pointer or descriptor over: yields the value and leaves the empty one behind. */
#define STEAL(p)                                                                                   \
    ({                                                                                             \
        typeof(p) *_pp = &(p);                                                                     \
        typeof(p) _v = *_pp;                                                                       \
        *_pp = NULL;                                                                               \
        _v;                                                                                        \
    })
#define STEAL_FD(fd)                                                                               \
    ({                                                                                             \
        int *_pp = &(fd);                                                                          \
        int _v = *_pp;                                                                             \
        *_pp = -1;                                                                                 \
        _v;                                                                                        \
    })

/* Makes NAMEp for _auto_: calls free_fn on what the variable holds. */
#define DEFINE_AUTO(type, name, free_fn)                                                           \
    static inline void name##p(type *v)                                                            \
    {                                                                                              \
        if (*v)                                                                                    \
            free_fn(*v);                                                                           \
    }

#undef MIN
#undef MAX
/* Each use has names of its own (the counter), so that they can be nested. */
#define MIN(a, b) COMPARE_(a, b, <, __COUNTER__)
#define MAX(a, b) COMPARE_(a, b, >, __COUNTER__)
#define COMPARE_(a, b, op, n) COMPARE__(a, b, op, n)
#define COMPARE__(a, b, op, n)                                                                     \
    ({                                                                                             \
        typeof(a) _a##n = (a);                                                                     \
        typeof(b) _b##n = (b);                                                                     \
        _a##n op _b##n ? _a##n : _b##n;                                                            \
    })
#define ARRAY_LEN(a) (sizeof(a) / sizeof((a)[0]))
#define container_of(ptr, type, member) ((type *)((char *)(ptr) - offsetof(type, member)))

_noreturn_ void assert_failed(const char *expr, const char *file, int line, const char *func);
#define ASSERT(x)                                                                                  \
    do {                                                                                           \
        if (__builtin_expect(!(x), 0))                                                             \
            assert_failed(#x, __FILE__, __LINE__, __func__);                                       \
    } while (0)
#define UNREACHABLE() assert_failed("unreachable", __FILE__, __LINE__, __func__)

/* malloc and friends that never return NULL: tandem bounds what it allocates and dies loudly
 * otherwise (a supervisor starts the part again, nothing acknowledged is lost). */
void *xmalloc(size_t n) __attribute__((malloc, returns_nonnull));
void *xcalloc(size_t n, size_t size) __attribute__((malloc, returns_nonnull));
void *xrealloc(void *p, size_t n) __attribute__((returns_nonnull));
char *xstrdup(const char *s) __attribute__((malloc, returns_nonnull));
char *xstrndup(const char *s, size_t n) __attribute__((malloc, returns_nonnull));
char *xasprintf(const char *fmt, ...) _printf_(1, 2) __attribute__((returns_nonnull));

static inline void freep(void *p)
{
    free(*(void **)p);
}
void closep(int *fd); /* closes what is >= 0; keeps errno */

static inline bool streq(const char *a, const char *b)
{
    return strcmp(a, b) == 0;
}
/* NULL equals only NULL. */
static inline bool streq0(const char *a, const char *b)
{
    return a == b || (a && b && strcmp(a, b) == 0);
}
static inline bool str_empty(const char *s)
{
    return !s || !*s;
}
bool str_starts(const char *s, const char *prefix);
bool str_ends(const char *s, const char *suffix);
