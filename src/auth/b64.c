/* auth/b64.c - see b64.h. */
#include "auth/b64.h"

#include <stdint.h>
#include <string.h>

static const char URL[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
static const char STD[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

static char *encode(struct arena *a, const char *abc, bool pad, const void *data, size_t n)
{
    const unsigned char *p = data;
    char *out = arena_raw(a, n * 4 / 3 + 8), *o = out;

    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) |
                     (i + 2 < n ? p[i + 2] : 0);
        *o++ = abc[v >> 18];
        *o++ = abc[v >> 12 & 63];
        if (i + 1 < n)
            *o++ = abc[v >> 6 & 63];
        else if (pad)
            *o++ = '=';
        if (i + 2 < n)
            *o++ = abc[v & 63];
        else if (pad)
            *o++ = '=';
    }
    *o = 0;
    return out;
}

static int digit(const char *abc, char c)
{
    if (c >= 'A' && c <= 'Z')
        return c - 'A';
    if (c >= 'a' && c <= 'z')
        return c - 'a' + 26;
    if (c >= '0' && c <= '9')
        return c - '0' + 52;
    return c && c == abc[62] ? 62 : c && c == abc[63] ? 63 : -1;
}

/* n digits without padding */
static unsigned char *decode(struct arena *a, const char *abc, const char *s, size_t n, size_t *ret_n)
{
    unsigned char *out = arena_raw(a, n * 3 / 4 + 4);
    uint32_t v = 0;
    size_t o = 0, digits = 0;
    int bits = 0;

    for (size_t i = 0; i < n; i++) {
        int d = digit(abc, s[i]);

        if (d < 0 && abc == STD && (s[i] == '\n' || s[i] == '\r'))
            continue;
        if (d < 0)
            return NULL;
        digits++;
        v = v << 6 | (uint32_t)d;
        if ((bits += 6) >= 8)
            out[o++] = (unsigned char)(v >> (bits -= 8));
    }
    if (digits % 4 == 1)
        return NULL;
    out[o] = 0;
    *ret_n = o;
    return out;
}

char *b64url(struct arena *a, const void *data, size_t n)
{
    return encode(a, URL, false, data, n);
}

char *base64_encode(struct arena *a, const void *data, size_t n)
{
    return encode(a, STD, true, data, n);
}

unsigned char *b64url_decode(struct arena *a, const char *s, size_t n, size_t *ret_n)
{
    return decode(a, URL, s, n, ret_n);
}

unsigned char *base64_decode(struct arena *a, const char *s, size_t n, size_t *ret_n)
{
    while (n && (s[n - 1] == '=' || s[n - 1] == '\n' || s[n - 1] == '\r'))
        n--;
    return decode(a, STD, s, n, ret_n);
}
