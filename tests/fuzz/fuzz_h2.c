/* Whatever frames a client sends over HTTP/2, the server lives on and lets go of it. The input is the
 * bodies of frames: a type, flags, a stream and a length each, so that most of them are frames. */
#include "fuzz_http.h"

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    static uint8_t out[120000];
    size_t at = 0;

    while (n >= 4 && at + 300 < sizeof out) {
        size_t len = p[3] < n - 4 ? p[3] : n - 4;
        const uint8_t head[9] = {0, 0, (uint8_t)len, p[0] % 11, p[1], 0, 0, 0, p[2] % 16};

        memcpy(out + at, head, 9);
        memcpy(out + at + 9, p + 4, len);
        at += 9 + len;
        p += 4 + len;
        n -= 4 + len;
    }
    /* the preface, and empty settings: no byte of theirs is 0 in the string, so they go in two parts */
    memmove(out + 9, out, at);
    memcpy(out, "\0\0\0\4\0\0\0\0\0", 9);
    one("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", out, at + 9);
    return 0;
}
