/* auth/policy_match.c - patterns of policies: wildcards and variables.
 *
 * A pattern is cut at its stars. Its pieces are looked for from left to right, each at the first place behind the one
 * before: no step back is ever needed, so a text is walked once for the pieces without '?', and at most once for each
 * byte of a piece that has some. */
#include "auth/policy_int.h"

#include <ctype.h>

char *match_lower(struct arena *a, const char *s)
{
    char *low = arena_strdup(a, s);

    for (char *p = low; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    return low;
}

const char *context_text(const struct val *context, const char *key, struct arena *a)
{
    const struct val *v = val_get(context, match_lower(a, key));

    if (val_is(v, VAL_LIST))
        v = v->n ? &v->items[0] : NULL;
    return val_text(v, NULL);
}

/* ---- making one ---- */

struct out {
    char *p;
    size_t n;
};

static void put_literal(struct out *o, const char *s, size_t n, bool fold)
{
    for (size_t i = 0; i < n; i++) {
        char c = s[i];

        if (c == MATCH_ANY || c == MATCH_ONE)
            c = '\xff'; /* no text in UTF-8 holds it */
        o->p[o->n++] = fold ? (char)tolower((unsigned char)c) : c;
    }
}

/* ${key} or ${key, 'otherwise'}; s stands behind "${", n up to the brace. NULL: no value. */
static const char *variable(const struct policy_ask *ask, const char *s, size_t n)
{
    struct arena *a = ask->arena;
    const char *comma = memchr(s, ',', n), *quote, *end, *v;
    size_t key = comma ? (size_t)(comma - s) : n;

    while (key && s[key - 1] == ' ')
        key--;
    v = context_text(ask->context, arena_strndup(a, s, key), a);
    if (v || !comma)
        return v;
    quote = memchr(comma, '\'', n - (size_t)(comma - s));
    end = s + n;
    while (end > s && end[-1] != '\'')
        end--;
    return quote && end - 1 > quote ? arena_strndup(a, quote + 1, (size_t)(end - 1 - quote - 1)) : quote ? "" : NULL;
}

bool match_make(const struct policy_ask *ask, const char *pattern, unsigned how, struct match *ret)
{
    size_t n = strlen(pattern), room = n + 1;
    struct out o;
    const char *v = NULL, *close;

    /* twice: the values of variables are counted, then copied */
    for (const char *p = pattern; (how & MATCH_VARS) && (p = strstr(p, "${")); p = close + 1) {
        close = strchr(p, '}');
        if (!close)
            break;
        if (close - p == 3 && strchr("*?$", p[2]))
            continue;
        v = variable(ask, p + 2, (size_t)(close - p - 2));
        if (!v)
            return false;
        room += strlen(v);
    }
    o = (struct out){arena_raw(ask->arena, room), 0};
    for (const char *p = pattern; *p; p++) {
        close = (how & MATCH_VARS) && p[0] == '$' && p[1] == '{' ? strchr(p, '}') : NULL;
        if (close && close - p == 3 && strchr("*?$", p[2])) {
            put_literal(&o, p + 2, 1, false);
            p = close;
        } else if (close) {
            v = variable(ask, p + 2, (size_t)(close - p - 2));
            put_literal(&o, v, strlen(v), how & MATCH_FOLD);
            p = close;
        } else if ((how & MATCH_WILD) && (*p == '*' || *p == '?')) {
            o.p[o.n++] = *p == '*' ? MATCH_ANY : MATCH_ONE;
        } else {
            put_literal(&o, p, 1, how & MATCH_FOLD);
        }
    }
    o.p[o.n] = 0;
    *ret = (struct match){o.p, o.n};
    return true;
}

/* ---- matching ---- */

static bool piece_at(const char *piece, const char *text, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (piece[i] != MATCH_ONE && piece[i] != text[i])
            return false;
    return true;
}

/* Where the piece comes first in the text; NULL: nowhere. */
static const char *piece_find(const char *piece, size_t n, const char *text, size_t left)
{
    if (!n)
        return text;
    if (!memchr(piece, MATCH_ONE, n))
        return memmem(text, left, piece, n);
    for (; left >= n; text++, left--)
        if (piece_at(piece, text, n))
            return text;
    return NULL;
}

bool match_text(const struct match *m, const char *text, size_t n)
{
    const char *p = m->s, *end = m->s + m->n, *star = memchr(p, MATCH_ANY, m->n);

    if (!star)
        return m->n == n && piece_at(p, text, n);
    if ((size_t)(star - p) > n || !piece_at(p, text, (size_t)(star - p)))
        return false;
    text += star - p;
    n -= (size_t)(star - p);
    for (p = star + 1;; p = star + 1) {
        size_t len;
        const char *at;

        star = memchr(p, MATCH_ANY, (size_t)(end - p));
        len = (size_t)((star ? star : end) - p);
        if (!star) /* the last one stands at the end */
            return n >= len && piece_at(p, text + n - len, len);
        at = piece_find(p, len, text, n);
        if (!at)
            return false;
        n -= (size_t)(at - text) + len;
        text = at + len;
    }
}

bool match_arn(const struct match *m, const char *arn)
{
    const char *p = m->s, *end = m->s + m->n;

    if (m->n == 1 && *p == MATCH_ANY)
        return true;
    for (int i = 0; i < 5; i++) {
        const char *colon = memchr(p, ':', (size_t)(end - p)), *theirs = strchr(arn, ':');
        struct match part;

        if (!colon) /* cut short behind a star: the rest may be anything */
            return p < end && end[-1] == MATCH_ANY &&
                   match_text(&(struct match){p, (size_t)(end - p)}, arn, strlen(arn));
        if (!theirs)
            return false;
        part = (struct match){p, (size_t)(colon - p)};
        if (!match_text(&part, arn, (size_t)(theirs - arn)))
            return false;
        p = colon + 1;
        arn = theirs + 1;
    }
    return match_text(&(struct match){p, (size_t)(end - p)}, arn, strlen(arn));
}

bool policy_glob(const char *pattern, const char *text)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct policy_ask ask = {.arena = a};
    struct match m;

    return match_make(&ask, pattern, MATCH_WILD, &m) && match_text(&m, text, strlen(text));
}
