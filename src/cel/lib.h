/* cel/lib.h - what the libraries' files share. */
#pragma once

#include "cel/cel_int.h"

/* times (lib_time.c): false when the text is none */
bool timestamp_read(const char *s, size_t n, struct cel_value *ret);     /* RFC 3339 */
bool timestamp_read_lax(const char *s, size_t n, struct cel_value *ret); /* what format: date-time takes */
bool date_read(const char *s, size_t n, struct cel_value *ret);
bool duration_read(const char *s, size_t n, struct cel_value *ret);     /* Go's: 1h30m, 1.5s */
bool duration_read_lax(const char *s, size_t n, struct cel_value *ret); /* also 2 days, 1w */
void timestamp_write(char out[static 64], struct cel_value v);
void duration_write(char out[static 64], struct cel_value v);
void double_write(char out[static 40], double d);

/* base64: out holds n bytes and some; false: it is none */
bool base64_read(const char *s, size_t n, char *out, size_t *ret_n);
void base64_write(const char *s, size_t n, char *out);

const struct cel_type *value_type(struct cel_value v);
const char *type_name(struct arena *a, const struct cel_type *t); /* as type() shows it */
bool list_keys_same(struct eval *e, const struct cel_type *t, struct cel_value a, struct cel_value b);

/* One character of UTF-8 at s[*at], which moves behind it; broken bytes are U+FFFD one by one. */
uint32_t utf8_next(const char *s, size_t n, size_t *at);

/* ---- opaque values ---- */

struct addr_value { /* ip and cidr; bits -1: an ip */
    struct cel_opaque head;
    bool v6;
    int bits;
    unsigned char b[16];
};
struct url_value {
    struct cel_opaque head;
    const char *scheme, *host, *path, *query; /* host unescaped, with its port; path escaped */
    const char *text;
};
struct quantity_value {
    struct cel_opaque head;
    __int128 nano __attribute__((aligned(16)));
    bool binary;
};
struct semver_value {
    struct cel_opaque head;
    uint64_t part[3];
    const char *pre, *build; /* "" for none */
};
struct format_value {
    struct cel_opaque head;
    uint8_t index; /* of formats[] */
};
struct authz_value { /* authorizer, its checks */
    struct cel_opaque head;
    const struct cel_authorizer *auth;
    struct cel_check check;
};
struct decision_value {
    struct cel_opaque head;
    struct cel_decision d;
};
const char *format_name(unsigned index); /* "DNS1123Label" */
int format_size(unsigned index);         /* what a check costs: the length of its pattern */
void addr_text(const struct addr_value *v, char out[static 64]);

static inline struct cel_value opaque_value(const struct cel_opaque *o, const struct cel_type *t)
{
    return (struct cel_value){.kind = CEL_OPAQUE, .opaque = o, .type = t};
}
