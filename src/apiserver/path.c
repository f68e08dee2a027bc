#include "apiserver/api_int.h"

static int hex(char ch)
{
    return ch >= '0' && ch <= '9' ? ch - '0' : ch >= 'a' && ch <= 'f' ? ch - 'a' + 10
                                           : ch >= 'A' && ch <= 'F'   ? ch - 'A' + 10
                                                                      : -1;
}

char *path_unescape(struct arena *a, const char *s, size_t n, bool plus)
{
    char *out = arena_alloc(a, n + 1), *o = out;

    for (size_t i = 0; i < n; i++) {
        if (s[i] == '%') {
            int hi, lo;

            if (i + 2 >= n || (hi = hex(s[i + 1])) < 0 || (lo = hex(s[i + 2])) < 0 || !(hi | lo))
                return NULL;
            *o++ = (char)(hi << 4 | lo);
            i += 2;
        } else {
            *o++ = plus && s[i] == '+' ? ' ' : s[i];
        }
    }
    *o = 0;
    return out;
}

enum { PARTS_MAX = 64 };

/* The parts between slashes, decoded. -1: malformed or empty inside. */
static int split(struct arena *a, const char *text, const char *parts[PARTS_MAX],
                 const char *tails[PARTS_MAX])
{
    int n = 0;

    while (*text) {
        size_t len;

        text += *text == '/';
        len = strcspn(text, "/");
        if (!len && !text[len])
            break; /* a final slash */
        if (n == PARTS_MAX)
            return -1;
        tails[n] = text;
        if (!(parts[n] = path_unescape(a, text, len, false)))
            return -1;
        n++;
        text += len;
    }
    return n;
}

bool path_parse(struct arena *a, const char *text, struct path *ret)
{
    const char *parts[PARTS_MAX], *tails[PARTS_MAX];
    int n, at;

    *ret = (struct path){.text = text, .group = "", .version = "", .ns = "", .plural = "",
                         .name = "", .sub = "", .rest = ""};
    n = split(a, text, parts, tails);
    if (n < 3)
        return false;
    for (int i = 0; i < n && i < 6; i++)
        if (!*parts[i])
            return false;
    if (streq(parts[0], "api")) {
        ret->version = parts[1];
        at = 2;
    } else if (streq(parts[0], "apis") && n > 3) {
        ret->group = parts[1];
        ret->version = parts[2];
        at = 3;
    } else {
        return false;
    }
    if (streq(parts[at], "watch") && n > at + 1) {
        ret->old_watch = true;
        at++;
    }
    if (streq(parts[at], "proxy") && n > at + 1) /* gone since 1.12 */
        return false;
    ret->resource = true;
    /* namespaces/NS/plural...; but namespaces/NS/status and /finalize are the namespace's own */
    if (streq(parts[at], "namespaces") && n > at + 2 &&
        !(n == at + 3 && !*ret->group &&
          (streq(parts[at + 2], "status") || streq(parts[at + 2], "finalize")))) {
        ret->ns = parts[at + 1];
        at += 2;
    }
    ret->plural = parts[at++];
    if (at < n)
        ret->name = parts[at++];
    if (at < n)
        ret->sub = parts[at++];
    if (at < n)
        ret->rest = tails[at];
    return true;
}
