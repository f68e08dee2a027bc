/* tests/unit/tt.h - what our unit tests add to cmocka: properties by seed.
 *
 * TT_PROP(group, name, rounds) { ... } is a test function tt_group_name(void **); inside, rng is a
 * generator seeded anew each round (TT_SEED=N replays one round) and err a struct err. A failed
 * TT_OK prints the seed. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "base/err.h"

struct tt_rng {
    uint64_t state, seed;
};

static inline uint64_t tt_next(struct tt_rng *r) /* splitmix64 */
{
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}
static inline uint32_t tt_below(struct tt_rng *r, uint32_t n)
{
    return (uint32_t)(tt_next(r) % n);
}

#define TT_OK(x)                                                                                   \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            fprintf(stderr, "%s:%d: %s (TT_SEED=%llu)\n", __FILE__, __LINE__, #x,                  \
                    (unsigned long long)rng->seed);                                                \
            fail();                                                                                \
        }                                                                                          \
    } while (0)

#define TT_PROP(group, name, rounds)                                                               \
    static void tt_round_##group##_##name(struct tt_rng *rng, struct err err);                     \
    static void tt_##group##_##name(void **state)                                                  \
    {                                                                                              \
        const char *one = getenv("TT_SEED");                                                       \
        (void)state;                                                                               \
        for (uint64_t seed = 1; seed <= (one ? 1 : (rounds)); seed++) {                            \
            struct tt_rng rng = {0};                                                               \
            struct err err = {0};                                                                  \
            rng.state = rng.seed = one ? strtoull(one, NULL, 10) : seed;                           \
            tt_round_##group##_##name(&rng, err);                                                  \
        }                                                                                          \
    }                                                                                              \
    static void tt_round_##group##_##name(_unused_ struct tt_rng *rng, _unused_ struct err err)
