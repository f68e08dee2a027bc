/* codec/val_build.h - for who decodes into values (JSON, YAML, ... in any room): how arrays are laid out. */
#pragma once

#include "codec/val.h"

/* The room that an array of n elements must have: the next power of two. */
static inline size_t val_cap(uint32_t n)
{
    return n <= 1 ? n : (size_t)1 << (32 - __builtin_clz(n - 1));
}

/* Appends a member without looking whether the key is there; the key is borrowed. */
struct val *val_append_(struct arena *a, struct val *map, const char *key, uint32_t n);
