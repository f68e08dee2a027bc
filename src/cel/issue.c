/* cel/issue.c - the errors of a text, each with its line and a mark below it, in upstream's form. */
#include "cel/cel_int.h"

#include "base/buf.h"

#include <stdio.h>

void issue(struct issues *is, uint32_t pos, const char *fmt, ...)
{
    char text[4096];
    va_list ap;

    if (is->n >= ISSUES_MAX)
        return;
    if (is->n == is->cap) {
        uint32_t cap = is->cap ? is->cap * 2 : 4;
        struct issue *v = arena_array(is->arena, struct issue, cap);
        if (is->n)
            memcpy(v, is->v, is->n * sizeof *v);
        is->v = v;
        is->cap = cap;
    }
    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    is->v[is->n++] = (struct issue){pos, arena_strdup(is->arena, text)};
}

static size_t char_len(const char *s, size_t n) /* bytes of the character at s */
{
    size_t i = 1;

    while (i < n && ((unsigned char)s[i] & 0xc0) == 0x80)
        i++;
    return i;
}

static void issue_write(struct buf *b, const struct issues *is, const struct issue *it)
{
    uint32_t pos = MIN(it->pos, (uint32_t)is->text_n);
    size_t line = 1, start = 0, end, column = 0;

    for (size_t i = 0; i < pos; i++)
        if (is->text[i] == '\n') {
            line++;
            start = i + 1;
        }
    for (end = start; end < is->text_n && is->text[end] != '\n';)
        end++;
    for (size_t i = start; i < pos; i += char_len(is->text + i, is->text_n - i))
        column++;
    buf_printf(b, "ERROR: <input>:%zu:%zu: %s", line, column + 1, it->msg);
    if (end - start > 16384)
        return;
    buf_adds(b, "\n | ");
    for (size_t i = start; i < end; i++)
        buf_addc(b, is->text[i] == '\t' ? ' ' : is->text[i]);
    buf_adds(b, "\n | ");
    for (size_t i = start; i < pos; i += char_len(is->text + i, is->text_n - i))
        buf_adds(b, char_len(is->text + i, is->text_n - i) > 1 ? "\xef\xbc\x8e" : ".");
    buf_adds(b, pos < end && char_len(is->text + pos, end - pos) > 1 ? "\xef\xbc\xbe" : "^");
}

const char *issues_text(struct issues *is)
{
    struct buf b;
    const char *text;

    buf_init(&b, 1 << 20);
    for (uint32_t i = 1; i < is->n; i++) /* by place; few, and mostly in order */
        for (uint32_t k = i; k > 0 && is->v[k].pos < is->v[k - 1].pos; k--) {
            struct issue x = is->v[k];
            is->v[k] = is->v[k - 1];
            is->v[k - 1] = x;
        }
    for (uint32_t i = 0; i < is->n; i++) {
        if (i)
            buf_addc(&b, '\n');
        issue_write(&b, is, is->v + i);
    }
    text = arena_strndup(is->arena, b.p ? b.p : "", b.n);
    buf_done(&b);
    return text;
}
