/* cel/lib_kube.c - quantities, semantic versions, named formats, and what opaque values share. */
#include "cel/lib.h"

#include "codec/quantity.h"
#include "codec/regex.h"

#include <ctype.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>

#define NO_OVERLOAD no_overload(e, call, args, n)

static bool is_opaque(struct cel_value v, enum opaque what)
{
    return v.kind == CEL_OPAQUE && v.opaque->what == what;
}

/* ---- quantities ---- */

static const struct quantity_value *quantity_in(struct cel_value v)
{
    return is_opaque(v, OPAQUE_QUANTITY) ? (const struct quantity_value *)v.opaque : NULL;
}

static struct cel_value quantity_make(struct eval *e, quantity q, bool binary)
{
    /* the arena aligns to 8 bytes at least; a quantity wants 16 */
    char *p = mem(e, sizeof(struct quantity_value) + 16);
    struct quantity_value *o = (void *)(((uintptr_t)p + 15) & ~(uintptr_t)15);

    o->head.what = OPAQUE_QUANTITY;
    o->nano = q;
    o->binary = binary;
    return opaque_value(&o->head, &cel_quantity_type);
}

static bool quantity_read(struct cel_value s, quantity *q, bool *binary)
{
    char text[200];
    size_t sign = s.n && (*s.s == '-' || *s.s == '+'), zero;

    if (!s.n || s.n >= sizeof text - 1 || memchr(s.s, '\0', s.n))
        return false;
    /* "-", "k" and "." are none of something, upstream says */
    zero = sign == s.n || !strchr("0123456789", s.s[sign]);
    memcpy(text, s.s, sign);
    if (zero)
        text[sign] = '0';
    memcpy(text + sign + zero, s.s + sign, s.n - sign);
    text[s.n + zero] = '\0';
    *binary = quantity_is_binary(text);
    return quantity_parse(text, q);
}

/* The number's form is looked at before its suffix. */
static const char *quantity_why(struct cel_value s)
{
    uint32_t i = s.n && (*s.s == '-' || *s.s == '+');

    while (i < s.n && strchr("0123456789.", s.s[i]))
        i++;
    while (i < s.n && strchr("eEinumkKMGTP", s.s[i]))
        i++;
    i += i < s.n && (s.s[i] == '-' || s.s[i] == '+');
    while (i < s.n && isdigit((unsigned char)s.s[i]))
        i++;
    return s.n && i == s.n ? "unable to parse quantity's suffix"
                           : "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'";
}

FN(fn_quantity)
{
    quantity q;
    bool binary;

    if (args[0].kind != CEL_STRING)
        return NO_OVERLOAD;
    if (!quantity_read(args[0], &q, &binary))
        return fail_lit(quantity_why(args[0]));
    return quantity_make(e, q, binary);
}
FN(fn_is_quantity)
{
    quantity q;
    bool binary;

    return args[0].kind == CEL_STRING ? cel_bool(quantity_read(args[0], &q, &binary)) : NO_OVERLOAD;
}
FN(fn_quantity_sign)
{
    const struct quantity_value *q = quantity_in(args[0]);

    return q ? cel_int(q->nano < 0 ? -1 : q->nano > 0) : NO_OVERLOAD;
}
FN(fn_quantity_float)
{
    const struct quantity_value *q = quantity_in(args[0]);

    if (!q)
        return NO_OVERLOAD;
    if (q->nano % QUANTITY_ONE == 0)
        return cel_double((double)(q->nano / QUANTITY_ONE));
    return cel_double((double)q->nano / 1e9);
}
static bool whole(const struct quantity_value *q)
{
    quantity v = q->nano / QUANTITY_ONE;

    return q->nano % QUANTITY_ONE == 0 && v >= INT64_MIN && v <= INT64_MAX;
}
FN(fn_quantity_int)
{
    const struct quantity_value *q = quantity_in(args[0]);

    if (!q)
        return NO_OVERLOAD;
    return whole(q) ? cel_int((int64_t)(q->nano / QUANTITY_ONE)) : fail_lit("cannot convert value to integer");
}
FN(fn_quantity_is_int)
{
    const struct quantity_value *q = quantity_in(args[0]);

    return q ? cel_bool(whole(q)) : NO_OVERLOAD;
}
FN(fn_quantity_add)
{
    const struct quantity_value *q = quantity_in(args[0]), *o = quantity_in(args[1]);
    quantity other;

    if (!q || (!o && args[1].kind != CEL_INT))
        return NO_OVERLOAD;
    other = o ? o->nano : (quantity)args[1].i * QUANTITY_ONE;
    return quantity_make(e, *call->fn->name == 'a' ? q->nano + other : q->nano - other, q->binary);
}

/* ---- versions ---- */

static bool semver_ids(const char *s, bool numbers) /* identifiers with points between */
{
    for (;;) {
        size_t n = strcspn(s, "."), digits = strspn(s, "0123456789");
        if (!n)
            return false;
        for (size_t i = 0; i < n; i++)
            if (!isalnum((unsigned char)s[i]) && s[i] != '-')
                return false;
        if (numbers && digits == n && n > 1 && *s == '0')
            return false;
        if (!s[n])
            return true;
        s += n + 1;
    }
}

static bool semver_parse(struct arena *a, const char *text, struct semver_value *v)
{
    char *s = arena_strdup(a, text), *plus, *minus;

    memset(v, 0, sizeof *v);
    v->head.what = OPAQUE_SEMVER;
    v->pre = v->build = "";
    if ((plus = strchr(s, '+'))) {
        *plus = '\0';
        v->build = plus + 1;
        if (!semver_ids(v->build, false))
            return false;
    }
    if ((minus = strchr(s, '-'))) {
        *minus = '\0';
        v->pre = minus + 1;
        if (!semver_ids(v->pre, true))
            return false;
    }
    for (int i = 0; i < 3; i++) {
        size_t n = strspn(s, "0123456789");
        if (!n || n > 19 || (n > 1 && *s == '0') || s[n] != (i < 2 ? '.' : '\0'))
            return false;
        v->part[i] = strtoull(s, NULL, 10);
        s += n + (i < 2);
    }
    return true;
}

/* "v1.02" as 1.2.0; NULL: it can not be. */
static char *semver_normal(struct arena *a, const char *s)
{
    const char *part[3] = {"0", "0", "0"};
    int n = 0;

    if (*s == 'v')
        s++;
    for (;;) {
        size_t len = n < 2 ? strcspn(s, ".") : strlen(s);
        const char *p = arena_strndup(a, s, len);
        if (len > 1) {
            p += strspn(p, "0");
            if (!isdigit((unsigned char)*p))
                p = arena_printf(a, "0%s", p);
        }
        part[n++] = p;
        if (!s[len] || n == 3)
            break;
        s += len + 1;
    }
    if (n < 3 && strpbrk(part[n - 1], "+-"))
        return NULL;
    return arena_printf(a, "%s.%s.%s", part[0], part[1], part[2]);
}

static bool semver_read(struct eval *e, struct cel_value *args, uint32_t n, struct semver_value *v)
{
    const char *s;

    if (args[0].n > 256 || memchr(args[0].s, '\0', args[0].n))
        return false;
    e->bytes += 2000;
    s = arena_strndup(e->arena, args[0].s, args[0].n);
    if (n > 1 && args[1].b)
        s = semver_normal(e->arena, s);
    return s && semver_parse(e->arena, s, v);
}

static struct cel_value semver_wrong(struct eval *e, struct cel_value *args, uint32_t n)
{
    static const char *const parts[] = {"Major", "Minor", "Patch"}, *const small[] = {"major", "minor", "patch"};
    const char *s = arena_strndup(e->arena, args[0].s, MIN(args[0].n, 256u)), *p;
    int dots = 0;

    if (n > 1 && args[1].b) {
        s = semver_normal(e->arena, s);
        if (!s)
            return fail_lit("short version cannot contain PreRelease/Build meta data");
    }
    for (p = s; *p && dots < 2; p++)
        dots += *p == '.';
    if (dots < 2)
        return fail_lit("No Major.Minor.Patch elements found");
    for (int i = 0; i < 3; i++) {
        size_t len = strcspn(s, i < 2 ? "." : "-+"), digits = strspn(s, "0123456789");
        if (digits < len || !len)
            return fail(e, "Invalid character(s) found in %s number \"%.*s\"", small[i], (int)MIN(len, (size_t)100), s);
        if (len > 1 && *s == '0')
            return fail(e, "%s number must not contain leading zeroes \"%.*s\"", parts[i], (int)MIN(len, (size_t)100), s);
        s += len + 1;
    }
    return fail_lit("Invalid character(s) found in prerelease or build metadata");
}

FN(fn_semver)
{
    struct semver_value v, *o;

    if (args[0].kind != CEL_STRING || (n > 1 && args[1].kind != CEL_BOOL))
        return NO_OVERLOAD;
    if (!args[0].n)
        return fail_lit("Version string empty");
    if (!semver_read(e, args, n, &v))
        return semver_wrong(e, args, n);
    o = mem(e, sizeof *o);
    *o = v;
    return opaque_value(&o->head, &cel_semver_type);
}
FN(fn_is_semver)
{
    struct semver_value v;

    if (args[0].kind != CEL_STRING || (n > 1 && args[1].kind != CEL_BOOL))
        return NO_OVERLOAD;
    return cel_bool(args[0].n && semver_read(e, args, n, &v));
}
FN(fn_semver_part)
{
    const char *name = call->fn->name;

    if (!is_opaque(args[0], OPAQUE_SEMVER))
        return NO_OVERLOAD;
    return cel_int((int64_t)((const struct semver_value *)args[0].opaque)->part[streq(name, "major") ? 0 : streq(name, "minor") ? 1 : 2]);
}

static int compare_pre(const char *x, const char *y)
{
    if (!*x || !*y)
        return *x ? -1 : *y ? 1 : 0;
    while (*x && *y) {
        size_t n = strcspn(x, "."), m = strcspn(y, ".");
        bool xnum = strspn(x, "0123456789") == n, ynum = strspn(y, "0123456789") == m;
        int r;
        if (xnum != ynum)
            return xnum ? -1 : 1;
        if (xnum && n != m)
            return n < m ? -1 : 1;
        r = memcmp(x, y, MIN(n, m));
        if (r)
            return r < 0 ? -1 : 1;
        if (n != m)
            return n < m ? -1 : 1;
        x += n + (x[n] == '.');
        y += m + (y[m] == '.');
    }
    return *x ? 1 : *y ? -1 : 0;
}

static int semver_compare(const struct semver_value *x, const struct semver_value *y)
{
    for (int i = 0; i < 3; i++)
        if (x->part[i] != y->part[i])
            return x->part[i] < y->part[i] ? -1 : 1;
    return compare_pre(x->pre, y->pre);
}

/* <0, 0, >0; 2: these cannot be compared */
static int compare(struct cel_value x, struct cel_value y)
{
    const struct quantity_value *q = quantity_in(x), *r = quantity_in(y);

    if (q && r)
        return q->nano < r->nano ? -1 : q->nano > r->nano;
    if (is_opaque(x, OPAQUE_SEMVER) && is_opaque(y, OPAQUE_SEMVER))
        return semver_compare((const struct semver_value *)x.opaque, (const struct semver_value *)y.opaque);
    return 2;
}
FN(fn_is_greater)
{
    int r = compare(args[0], args[1]);
    return r == 2 ? NO_OVERLOAD : cel_bool(r > 0);
}
FN(fn_is_less)
{
    int r = compare(args[0], args[1]);
    return r == 2 ? NO_OVERLOAD : cel_bool(r < 0);
}
FN(fn_compare_to)
{
    int r = compare(args[0], args[1]);
    return r == 2 ? NO_OVERLOAD : cel_int(r);
}

/* ---- named formats ---- */

#define LABEL "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
#define SUBDOMAIN LABEL "(\\." LABEL ")*"
#define LABEL_WHY                                                                                  \
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "   \
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex "     \
    "used for validation is '" LABEL "')"
#define SUBDOMAIN_WHY                                                                              \
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "   \
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "  \
    "for validation is '" SUBDOMAIN "')"
#define LABEL1035_WHY                                                                              \
    "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an "   \
    "alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', " \
    "regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')"
#define NAME_WHY                                                                                   \
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "  \
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for " \
    "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
#define VALUE_WHY                                                                                  \
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or "    \
    "'.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value', " \
    " or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"

enum { F_PATTERN, F_PREFIX, F_QUALIFIED, F_URI, F_BYTE, F_DATE, F_DATETIME };
static const struct {
    const char *name, *shown;
    uint8_t how;
    int max;
    const char *pattern, *why;
    int size;
} formats[] = {
    {"dns1123Label", "DNS1123Label", F_PATTERN, 63, LABEL, LABEL_WHY, 30},
    {"dns1123Subdomain", "DNS1123Subdomain", F_PATTERN, 253, SUBDOMAIN, SUBDOMAIN_WHY, 60},
    {"dns1035Label", "DNS1035Label", F_PATTERN, 63, "[a-z]([-a-z0-9]*[a-z0-9])?", LABEL1035_WHY, 30},
    {"qualifiedName", "QualifiedName", F_QUALIFIED, 63, "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]", NAME_WHY, 60},
    {"dns1123LabelPrefix", "DNS1123LabelPrefix", F_PREFIX, 63, LABEL, LABEL_WHY, 30},
    {"dns1123SubdomainPrefix", "DNS1123SubdomainPrefix", F_PREFIX, 253, SUBDOMAIN, SUBDOMAIN_WHY, 60},
    {"dns1035LabelPrefix", "DNS1035LabelPrefix", F_PREFIX, 63, "[a-z]([-a-z0-9]*[a-z0-9])?", LABEL1035_WHY, 30},
    {"labelValue", "LabelValue", F_PATTERN, 63, "(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?", VALUE_WHY, 40},
    {"uri", "URI", F_URI, 0, NULL, NULL, 1103},
    {"uuid", "uuid", F_PATTERN, 0, "(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}", "does not match the UUID format", 71},
    {"byte", "byte", F_BYTE, 0, NULL, "invalid base64", 84},
    {"date", "date", F_DATE, 0, NULL, "invalid date", 70},
    {"datetime", "datetime", F_DATETIME, 0, NULL, "invalid datetime", 70},
};
static struct regex *format_patterns[ARRAY_LEN(formats)];
static struct regex *subdomain_pattern;
static pthread_once_t formats_once = PTHREAD_ONCE_INIT;

static struct regex *whole_pattern(const char *p)
{
    char text[400];
    struct err err;
    struct regex *re;

    snprintf(text, sizeof text, "^(?:%s)$", p);
    re = regex_new(text, strlen(text), &err);
    ASSERT(re);
    return re;
}
static void formats_make(void)
{
    for (size_t i = 0; i < ARRAY_LEN(formats); i++)
        if (formats[i].pattern)
            format_patterns[i] = whole_pattern(formats[i].pattern);
    subdomain_pattern = whole_pattern(SUBDOMAIN);
}

const char *format_name(unsigned index)
{
    return formats[index].shown;
}
int format_size(unsigned index)
{
    return formats[index].size;
}

static struct cel_value format_make(struct eval *e, const char *name, size_t n)
{
    struct format_value *o;

    for (size_t i = 0; i < ARRAY_LEN(formats); i++)
        if (strlen(formats[i].name) == n && !memcmp(formats[i].name, name, n)) {
            o = mem(e, sizeof *o);
            o->head.what = OPAQUE_FORMAT;
            o->index = (uint8_t)i;
            return opaque_value(&o->head, &cel_format_type);
        }
    return (struct cel_value){0};
}
FN(fn_format_constant)
{
    const char *name = strchr(call->fn->name, '.') + 1;

    return format_make(e, name, strlen(name));
}
FN(fn_format_named)
{
    struct cel_value f;

    if (args[0].kind != CEL_STRING)
        return NO_OVERLOAD;
    f = format_make(e, args[0].s, args[0].n);
    return f.kind == CEL_OPAQUE ? opt_some(e, f) : opt_none();
}

static struct cel_value why(struct eval *e, struct cel_value list, const char *text)
{
    return list_push(e, list, cel_str(text));
}

static struct cel_value too_long(struct eval *e, struct cel_value list, size_t n, int max)
{
    struct cel_value t;

    if (n <= (size_t)max || !max)
        return list;
    t = make_printf(e, "must be no more than %d bytes", max);
    return list_push(e, list, t);
}

static struct cel_value qualified(struct eval *e, struct cel_value list, unsigned i, struct cel_value s)
{
    const char *slash = s.n ? memchr(s.s, '/', s.n) : NULL, *name = s.s;
    size_t n = s.n, prefix;

    if (slash) {
        prefix = (size_t)(slash - s.s);
        if (memchr(slash + 1, '/', s.n - prefix - 1))
            return why(e, list, "a qualified name must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an "
                "alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
                "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]') with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')");
        if (!prefix)
            list = why(e, list, "prefix part must be non-empty");
        else if (prefix > 253)
            list = why(e, list, "prefix part must be no more than 253 bytes");
        else if (regex_match(subdomain_pattern, s.s, prefix) != 1)
            list = why(e, list, "prefix part " SUBDOMAIN_WHY);
        name = slash + 1;
        n -= prefix + 1;
    }
    if (!n)
        list = why(e, list, "name part must be non-empty");
    else if (n > 63)
        list = why(e, list, "name part must be no more than 63 bytes");
    if (regex_match(format_patterns[i], name, n) != 1)
        list = why(e, list, NAME_WHY);
    return list;
}

FN(fn_format_validate)
{
    struct cel_value list, s = args[1], tmp;
    unsigned i;
    char *bytes;
    size_t len;

    if (!is_opaque(args[0], OPAQUE_FORMAT) || s.kind != CEL_STRING)
        return NO_OVERLOAD;
    pthread_once(&formats_once, formats_make);
    i = ((const struct format_value *)args[0].opaque)->index;
    list = list_new(e, 0);
    switch (formats[i].how) {
    case F_PREFIX: /* a name may still follow a '-' at the end */
        if (s.n > 1 && s.s[s.n - 1] == '-') {
            char *copy = arena_strndup(e->arena, s.s, s.n);
            copy[s.n - 1] = 'a';
            s.s = copy;
            e->bytes += s.n;
        }
        /* fall through */
    case F_PATTERN:
        list = too_long(e, list, s.n, formats[i].max);
        if (regex_match(format_patterns[i], s.s, s.n) != 1)
            list = why(e, list, formats[i].why);
        break;
    case F_QUALIFIED:
        list = qualified(e, list, i, s);
        break;
    case F_URI: {
        const struct func *f = func_find(e->prog->env, "url", 3);
        tmp = f->fn(e, call, &s, 1);
        if (is_error(tmp)) { /* "URL parse error during conversion from string: " is not said here */
            const char *text = cel_text(e->arena, tmp);
            list = why(e, list, text + strlen("URL parse error during conversion from string: "));
        }
        break;
    }
    case F_BYTE:
        bytes = mem(e, (size_t)s.n + 4);
        if (!s.n || !base64_read(s.s, s.n, bytes, &len))
            list = why(e, list, formats[i].why);
        break;
    default:
        if (formats[i].how == F_DATE ? !date_read(s.s, s.n, &tmp) : !timestamp_read_lax(s.s, s.n, &tmp))
            list = why(e, list, formats[i].why);
    }
    return list.n ? opt_some(e, list) : opt_none();
}

/* ---- all of them ---- */

struct cel_value opaque_equal(struct eval *e, struct cel_value a, struct cel_value b)
{
    const struct addr_value *x, *y;
    int r;

    if (a.opaque->what != b.opaque->what)
        return cel_bool(false);
    switch (a.opaque->what) {
    case OPAQUE_IP: case OPAQUE_CIDR:
        x = (const struct addr_value *)a.opaque;
        y = (const struct addr_value *)b.opaque;
        return cel_bool(x->v6 == y->v6 && x->bits == y->bits && !memcmp(x->b, y->b, sizeof x->b));
    case OPAQUE_URL:
        return cel_bool(streq(((const struct url_value *)a.opaque)->text, ((const struct url_value *)b.opaque)->text));
    case OPAQUE_FORMAT:
        return cel_bool(((const struct format_value *)a.opaque)->index == ((const struct format_value *)b.opaque)->index);
    case OPAQUE_QUANTITY: case OPAQUE_SEMVER:
        r = compare(a, b);
        return cel_bool(r == 0);
    default:
        return cel_bool(a.opaque == b.opaque);
    }
}

const char *opaque_text(struct arena *a, struct cel_value v)
{
    const struct semver_value *s;
    char text[64];

    switch (v.opaque->what) {
    case OPAQUE_IP: case OPAQUE_CIDR:
        addr_text((const struct addr_value *)v.opaque, text);
        return arena_strdup(a, text);
    case OPAQUE_URL:
        return ((const struct url_value *)v.opaque)->text;
    case OPAQUE_QUANTITY:
        return quantity_text(a, ((const struct quantity_value *)v.opaque)->nano, ((const struct quantity_value *)v.opaque)->binary);
    case OPAQUE_SEMVER:
        s = (const struct semver_value *)v.opaque;
        return arena_printf(a, "%" PRIu64 ".%" PRIu64 ".%" PRIu64 "%s%s%s%s", s->part[0], s->part[1], s->part[2], *s->pre ? "-" : "",
                            s->pre, *s->build ? "+" : "", s->build);
    default:
        return NULL;
    }
}

uint64_t opaque_size(struct cel_value v)
{
    const struct addr_value *x = (const struct addr_value *)v.opaque;

    switch (v.opaque->what) {
    case OPAQUE_IP:
        return x->v6 ? 16 : 4;
    case OPAQUE_CIDR:
        return (uint64_t)(x->bits + 7) / 8;
    default:
        return 1;
    }
}

/* ---- made by a caller ---- */

#define OUTSIDE(a) {.run = &(struct cel_run){.arena = (a)}, .arena = (a), .bytes_max = SIZE_MAX}

struct cel_value cel_map_of(struct arena *a, const struct cel_value (*pairs)[2], uint32_t n)
{
    struct eval e = OUTSIDE(a);
    struct cel_value m = map_new(&e, n);

    for (uint32_t i = 0; i < n; i++)
        m = map_push(&e, m, pairs[i][0], pairs[i][1]);
    return m;
}

struct cel_value cel_object_of(struct arena *a, const struct cel_type *type, const struct cel_value (*pairs)[2], uint32_t n)
{
    struct cel_value m = cel_map_of(a, pairs, n);

    m.kind = CEL_OBJECT;
    m.type = type;
    return m;
}

struct cel_value cel_list_of(struct arena *a, const struct cel_value *items, uint32_t n)
{
    struct eval e = OUTSIDE(a);
    struct cel_value l = list_new(&e, n);

    for (uint32_t i = 0; i < n; i++)
        l = list_push(&e, l, items[i]);
    return l;
}

struct cel_value cel_quantity(struct arena *a, const char *text)
{
    struct eval e = OUTSIDE(a);
    quantity q;
    bool binary;

    if (!quantity_read(cel_str(text), &q, &binary))
        return (struct cel_value){.kind = CEL_ERROR, .s = "not a quantity", .n = 14};
    return quantity_make(&e, q, binary);
}

struct cel_value cel_semver(struct arena *a, const char *text)
{
    struct eval e = OUTSIDE(a);
    struct cel_value arg = cel_str(text);
    struct semver_value *o = arena_new_of(a, struct semver_value);

    if (!arg.n || !semver_read(&e, &arg, 1, o))
        return (struct cel_value){.kind = CEL_ERROR, .s = "not a semantic version", .n = 22};
    o->head.what = OPAQUE_SEMVER;
    return opaque_value(&o->head, &cel_semver_type);
}
