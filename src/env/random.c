#include "env/random.h"

#include <errno.h>
#include <sys/random.h>

#include "base/base.h"

void random_bytes(void *p, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t got = getrandom((char *)p + at, n - at, 0);

        ASSERT(got > 0 || errno == EINTR);
        at += got > 0 ? (size_t)got : 0;
    }
}

void random_text(char *to, size_t n, const char *alphabet32)
{
    unsigned char bytes[64];

    for (size_t at = 0; at < n; at += sizeof bytes) {
        size_t some = n - at < sizeof bytes ? n - at : sizeof bytes;

        random_bytes(bytes, some);
        for (size_t i = 0; i < some; i++)
            to[at + i] = alphabet32[bytes[i] & 31];
    }
    to[n] = 0;
}

const char *uuid_text(const unsigned char random[16], char out[UUID_BYTES])
{
    char *to = out;

    for (int i = 0; i < 16; i++) { /* not by printf: there is one for each request */
        unsigned byte = i == 6 ? (random[i] & 0x0fu) | 0x40 : i == 8 ? (random[i] & 0x3fu) | 0x80 : random[i];

        if (i == 4 || i == 6 || i == 8 || i == 10)
            *to++ = '-';
        *to++ = "0123456789abcdef"[byte >> 4];
        *to++ = "0123456789abcdef"[byte & 15];
    }
    *to = 0;
    return out;
}

const char *uuid_new(char out[UUID_BYTES])
{
    static __thread unsigned char pool[512]; /* one system call for many */
    static __thread size_t left;

    if (left < 16) {
        random_bytes(pool, sizeof pool);
        left = sizeof pool;
    }
    left -= 16;
    return uuid_text(pool + left, out);
}
