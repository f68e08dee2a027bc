/* cel/lex.h - the words of an expression. */
#pragma once

#include "cel/cel_int.h"

enum tok {
    T_EOF,
    T_IDENT,
    T_ESC_IDENT, /* `a-b` */
    T_INT,
    T_UINT,
    T_FLOAT,
    T_STRING,
    T_BYTES,
    T_TRUE,
    T_FALSE,
    T_NULL,
    T_IN,
    T_OP, /* one or two characters, see is_op */
    T_BAD,
};
struct token {
    enum tok kind;
    uint32_t pos, n; /* bytes of the text */
};
/* The word at or after *at, which moves behind it. T_BAD: no word starts there, n bytes are wrong. */
struct token lex_next(const char *text, size_t text_n, uint32_t *at);
/* How far the words go on that begin with a quote and are no string. */
size_t lex_bad_string(const char *s, size_t n);
/* The value of a string or bytes word in the arena; NULL and *why when an escape is wrong. */
const char *lex_unquote(struct arena *a, const char *s, size_t n, bool bytes, size_t *ret_n, const char **why);
