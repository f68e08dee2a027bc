/* codec/json_scan.h - looking for the bytes of a JSON string that are not plain text, eight at a time.
 * In a word, the lowest byte whose high bit comes out set is the first one that was looked for. */
#pragma once

#include "base/base.h"

#include <endian.h>

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
