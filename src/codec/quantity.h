/* codec/quantity.h - Kubernetes' amounts: "100m", "1.5", "2Gi", "1e3".
 *
 * A whole number of billionths, so that every suffix from n to Ei is exact and sums do not drift.
 * What is finer than a billionth is rounded up, as Kubernetes does. */
#pragma once

#include "codec/val.h"

typedef __int128 quantity; /* billionths */
#define QUANTITY_ONE ((quantity)1000000000)

bool quantity_parse(const char *s, quantity *ret_q); /* false: no quantity; *ret_q untouched */
/* Of a tree: strings and plain numbers; 0 for what is absent or no quantity. */
quantity quantity_of(const struct val *v);
int64_t quantity_milli(quantity q); /* thousandths, rounded up, held inside int64 */
int64_t quantity_value(quantity q); /* ones, rounded up, held inside int64 */
static inline quantity quantity_from_milli(int64_t milli)
{
    return (quantity)milli * (QUANTITY_ONE / 1000);
}
static inline quantity quantity_from_value(int64_t value)
{
    return (quantity)value * QUANTITY_ONE;
}
/* Canonical text in the arena: binary (Ki, Mi, ...) when asked and it is whole, else decimal. */
char *quantity_text(struct arena *a, quantity q, bool binary);
/* The form a text came in: true for Ki, Mi, Gi, Ti, Pi, Ei. */
bool quantity_is_binary(const char *s);
