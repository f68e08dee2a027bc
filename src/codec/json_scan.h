/* codec/json_scan.h - looking for the bytes of a JSON string that are not plain text, eight at a time.
 * In a word, the lowest byte whose high bit comes out set is the first one that was looked for.
 * And for the end of an object or a list, 64 bytes at a time where the processor has vectors. */
#pragma once

#include "base/base.h"

#include <endian.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { JSON_SCAN_BYTES = 8 };

static inline uint64_t json_scan_word(const char *p)
{
    uint64_t w;

    memcpy(&w, p, sizeof w);
    return le64toh(w);
}

static inline uint64_t json_scan_is(uint64_t w, uint8_t c)
{
    uint64_t x = w ^ (0x0101010101010101u * c);

    return (x - 0x0101010101010101u) & ~x & 0x8080808080808080u;
}

static inline uint64_t json_scan_below(uint64_t w, uint8_t c)
{
    return (w - 0x0101010101010101u * c) & ~w & 0x8080808080808080u;
}

/* The first quote or backslash from p on, or end. Reads up to JSON_SCAN_BYTES - 1 behind end. */
static inline char *json_scan_quote(char *p, char *end)
{
    for (; p < end; p += JSON_SCAN_BYTES) {
        uint64_t w = json_scan_word(p), hit = json_scan_is(w, '"') | json_scan_is(w, '\\');

        if (hit) {
            p += __builtin_ctzll(hit) / 8;
            return MIN(p, end);
        }
    }
    return end;
}

/* How deep the walk is, and whether in a string. */
struct json_walk {
    int depth;
    bool quoted;
};

/* Walks to stop, or behind the bracket that closes the first one (depth 0 then). May end behind stop by one. */
static inline char *json_walk_slowly(char *p, char *stop, struct json_walk *w)
{
    while (p < stop) {
        char c = *p++;

        if (w->quoted) {
            p += c == '\\';
            w->quoted = c != '"';
        } else if (c == '"') {
            w->quoted = true;
        } else if ((c | 32) == '{') {
            w->depth++;
        } else if ((c | 32) == '}' && --w->depth == 0) {
            break;
        }
    }
    return p;
}

#ifdef __SSE2__
static inline uint64_t json_mask(const __m128i v[4], char c)
{
    __m128i x = _mm_set1_epi8(c);
    uint64_t m = 0;

    for (int i = 3; i >= 0; i--)
        m = m << 16 | (uint64_t)_mm_movemask_epi8(_mm_cmpeq_epi8(v[i], x));
    return m;
}

static inline int json_bits(uint64_t v)
{
    v -= v >> 1 & 0x5555555555555555u;
    v = (v & 0x3333333333333333u) + (v >> 2 & 0x3333333333333333u);
    v = (v + (v >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (int)(v * 0x0101010101010101u >> 56);
}

/* 64 bytes in which the first bracket is not closed; false: not sure of that, or backslashes that need a closer look. */
static inline bool json_walk_block(const char *p, struct json_walk *w)
{
    const __m128i bit = _mm_set1_epi8(32);
    __m128i v[4];
    uint64_t in, open, shut, slash;

    for (int i = 0; i < 4; i++)
        v[i] = _mm_loadu_si128((const __m128i *)(const void *)(p + 16 * i));
    slash = json_mask(v, '\\');
    if (slash & (slash << 1 | 1ull << 63))
        return false; /* two in a row, or the last byte */
    in = json_mask(v, '"') & ~(slash << 1);
    for (int i = 1; i < 64; i *= 2) /* each bit: the parity of the quotes up to it */
        in ^= in << i;
    if (w->quoted)
        in = ~in;
    for (int i = 0; i < 4; i++)
        v[i] = _mm_or_si128(v[i], bit); /* both kinds of brackets at once */
    open = json_mask(v, '{') & ~in;
    shut = json_mask(v, '}') & ~in;
    if (json_bits(shut) >= w->depth)
        return false;
    w->depth += json_bits(open) - json_bits(shut);
    w->quoted = in >> 63;
    return true;
}
#endif

/* p: at the opening bracket of an object or a list. Behind its closing one, or NULL: it does not end. */
static inline char *json_scan_close(char *p, char *end)
{
    struct json_walk w = {.depth = 1};

    for (p++; w.depth && p < end;) {
#ifdef __SSE2__
        if (end - p >= 64 && json_walk_block(p, &w)) {
            p += 64;
            continue;
        }
#endif
        p = json_walk_slowly(p, end - p > 64 ? p + 64 : end, &w);
    }
    return w.depth || p > end ? NULL : p;
}
