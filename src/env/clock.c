#include "env/clock.h"

#include <stdio.h>
#include <time.h>

static int64_t read_ns(clockid_t id)
{
    struct timespec ts;

    clock_gettime(id, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

int64_t clock_real_ns(void)
{
    return read_ns(CLOCK_REALTIME);
}

int64_t clock_real_ms(void)
{
    return clock_real_ns() / 1000000;
}

int64_t clock_mono_ns(void)
{
    return read_ns(CLOCK_MONOTONIC);
}

int64_t clock_mono_ms(void)
{
    return clock_mono_ns() / 1000000;
}

int64_t clock_mono_us(void)
{
    return clock_mono_ns() / 1000;
}

const char *clock_rfc3339_nano(int64_t ns, char out[CLOCK_TEXT_BYTES])
{
    time_t s = (time_t)(ns / 1000000000);
    struct tm tm;
    size_t n;

    gmtime_r(&s, &tm);
    n = strftime(out, CLOCK_TEXT_BYTES, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(out + n, CLOCK_TEXT_BYTES - n, ".%09dZ", (int)(ns % 1000000000));
    return out;
}
