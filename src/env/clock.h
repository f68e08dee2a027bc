/* env/clock.h - the real clocks, for rooms that are not simulated (node, function, gateway, http).
 * Texts of times: codec/kubetime.h. */
#pragma once

#include "base/base.h"

int64_t clock_real_ms(void); /* since 1970 */
int64_t clock_real_ns(void);
int64_t clock_mono_ms(void); /* never goes back */
int64_t clock_mono_us(void);
int64_t clock_mono_ns(void);

enum { CLOCK_TEXT_BYTES = 40 };
/* "2026-01-02T15:04:05.123456789Z": log lines in CRI form. Gives back out. */
const char *clock_rfc3339_nano(int64_t ns, char out[CLOCK_TEXT_BYTES]);
