/* base/arena.h - memory that goes in one go.
 *
 * The owner of everything a request makes: parsed bodies, lists, replies. Allocation is a pointer
 * bump, never fails (see xmalloc) and is zero-filled; nothing is freed singly. Also holds
 * references: arena_pin() runs a release when the arena goes, so that a handler never pairs ref
 * with unref.
 * Thread: one at a time. Small arenas cost one malloc; blocks double from 4 KiB to 256 KiB. */
#pragma once

#include <stdarg.h>

#include "base/base.h"

struct arena;

struct arena *arena_new(void);
struct arena *arena_new_sized(size_t first_block_bytes); /* for one that is reset often and needs so much each time */
void *arena_free(struct arena *a); /* runs the pins, last first; NULL is fine; gives back NULL */
void arena_reset(struct arena *a); /* as free + new, but keeps the first block */
DEFINE_AUTO(struct arena *, arena_free, arena_free)

void *arena_alloc(struct arena *a, size_t n) __attribute__((malloc, returns_nonnull));
void *arena_raw(struct arena *a, size_t n) __attribute__((malloc, returns_nonnull)); /* not zeroed */
char *arena_strdup(struct arena *a, const char *s);
char *arena_strndup(struct arena *a, const char *s, size_t n); /* adds the final 0 */
char *arena_printf(struct arena *a, const char *fmt, ...) _printf_(2, 3);
char *arena_vprintf(struct arena *a, const char *fmt, va_list ap) _printf_(2, 0);
void *arena_memdup(struct arena *a, const void *p, size_t n);
size_t arena_bytes(const struct arena *a); /* handed out so far */

void arena_pin(struct arena *a, void (*release)(void *), void *what);

#define arena_new_of(a, type) ((type *)arena_alloc(a, sizeof(type)))
#define arena_array(a, type, n) ((type *)arena_alloc(a, sizeof(type) * (size_t)(n)))
