/* cel/lib_net.c - IP addresses, CIDRs, URLs; as the Go library reads them. */
#include "cel/lib.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>

#define NO_OVERLOAD no_overload(e, call, args, n)

static bool is_opaque(struct cel_value v, enum opaque what)
{
    return v.kind == CEL_OPAQUE && v.opaque->what == what;
}
static const struct addr_value *addr_of(struct cel_value v)
{
    return (const struct addr_value *)v.opaque;
}

/* ---- addresses ---- */

static bool addr_parse(const char *s, size_t n, struct addr_value *ret)
{
    char text[64];

    if (n >= sizeof text || memchr(s, '\0', n) || memchr(s, '%', n))
        return false;
    memcpy(text, s, n);
    text[n] = '\0';
    memset(ret, 0, sizeof *ret);
    ret->bits = -1;
    ret->v6 = strchr(text, ':') != NULL;
    return inet_pton(ret->v6 ? AF_INET6 : AF_INET, text, ret->b) == 1;
}

/* Why it is no address, as the Go library says it. */
static const char *addr_why(struct arena *a, const char *s, size_t n)
{
    const char *dot = n ? memchr(s, '.', n) : NULL, *colon = n ? memchr(s, ':', n) : NULL;
    int fields = 0;
    size_t digits = 0;
    unsigned value = 0;

    if (!dot && !colon)
        return n && memchr(s, '%', n) ? "missing IPv6 address" : "unable to parse IP";
    if (colon && (!dot || colon < dot)) {
        if (*s != ':' && !isxdigit((unsigned char)*s))
            return arena_printf(a, "each colon-separated field must have at least one digit (at \"%.*s\")", (int)MIN(n, (size_t)100), s);
        return "unable to parse IP";
    }
    for (size_t i = 0; i < n; i++) {
        if (isdigit((unsigned char)s[i])) {
            if (digits == 1 && value == 0)
                return "IPv4 field has octet with leading zero";
            value = value * 10 + (unsigned)(s[i] - '0');
            digits++;
            if (value > 255)
                return "IPv4 field has value >255";
        } else if (s[i] == '.') {
            if (!digits || i == n - 1)
                return arena_printf(a, "IPv4 field must have at least one digit (at \"%.*s\")", (int)MIN(n - i, (size_t)100), s + i);
            if (++fields > 3)
                return "IPv4 address too long";
            digits = value = 0;
        } else {
            return arena_printf(a, "unexpected character (at \"%.*s\")", (int)MIN(n - i, (size_t)100), s + i);
        }
    }
    return fields < 3 ? "IPv4 address too short" : "unable to parse IP";
}

static bool mapped(const struct addr_value *v) /* ::ffff:1.2.3.4 */
{
    static const unsigned char prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    return v->v6 && !memcmp(v->b, prefix, 12);
}

static bool cidr_parse(const char *s, size_t n, struct addr_value *ret)
{
    const char *slash = n ? memrchr(s, '/', n) : NULL;
    size_t digits;
    int bits = 0;

    if (!slash || !addr_parse(s, (size_t)(slash - s), ret))
        return false;
    digits = n - (size_t)(slash + 1 - s);
    if (digits < 1 || digits > 3 || (digits > 1 && slash[1] == '0'))
        return false;
    for (size_t i = 1; i <= digits; i++) {
        if (!isdigit((unsigned char)slash[i]))
            return false;
        bits = bits * 10 + (slash[i] - '0');
    }
    ret->bits = bits;
    return bits <= (ret->v6 ? 128 : 32);
}

void addr_text(const struct addr_value *v, char out[static 64])
{
    int at = 0, zero = -1, zeros = 0;
    char *o = out;

    if (!v->v6) {
        o += sprintf(o, "%u.%u.%u.%u", v->b[0], v->b[1], v->b[2], v->b[3]);
    } else {
        unsigned w[8];
        for (int i = 0; i < 8; i++)
            w[i] = (unsigned)v->b[2 * i] << 8 | v->b[2 * i + 1];
        for (int i = 0; i < 8; i++) { /* the longest run of zeros, of two at least */
            int k = i;
            while (k < 8 && !w[k])
                k++;
            if (k - i > zeros && k - i >= 2) {
                zero = i;
                zeros = k - i;
            }
        }
        for (at = 0; at < 8;) {
            if (at == zero) {
                o += sprintf(o, "::");
                at += zeros;
                continue;
            }
            o += sprintf(o, "%s%x", at && at != zero + zeros ? ":" : "", w[at]);
            at++;
        }
        *o = '\0';
    }
    if (v->bits >= 0)
        sprintf(o, "/%d", v->bits);
}

static struct cel_value addr_value(struct eval *e, const struct addr_value *v)
{
    struct addr_value *o = mem(e, sizeof *o);

    *o = *v;
    o->head.what = v->bits < 0 ? OPAQUE_IP : OPAQUE_CIDR;
    return opaque_value(&o->head, v->bits < 0 ? &cel_ip_type : &cel_cidr_type);
}

static struct cel_value ip_from(struct eval *e, struct cel_value s)
{
    struct addr_value v;
    int len = (int)MIN(s.n, 100u);

    if (!addr_parse(s.s, s.n, &v)) {
        const char *zone = s.n ? memchr(s.s, '%', s.n) : NULL;
        if (zone && zone + 1 < s.s + s.n && addr_parse(s.s, (size_t)(zone - s.s), &v) && v.v6)
            return fail(e, "IP address \"%.*s\" with zone value is not allowed", len, s.s);
        return fail(e, "IP Address \"%.*s\" parse error during conversion from string: ParseAddr(\"%.*s\"): %s", len, s.s, len, s.s,
                    addr_why(e->arena, s.s, s.n));
    }
    if (mapped(&v))
        return fail(e, "IPv4-mapped IPv6 address \"%.*s\" is not allowed", len, s.s);
    return addr_value(e, &v);
}
static struct cel_value cidr_from(struct eval *e, struct cel_value s)
{
    struct addr_value v;
    int len = (int)MIN(s.n, 100u);

    if (!cidr_parse(s.s, s.n, &v)) {
        const char *slash = s.n ? memrchr(s.s, '/', s.n) : NULL, *why = "no '/'";
        if (slash && !addr_parse(s.s, (size_t)(slash - s.s), &v))
            why = arena_printf(e->arena, "ParseAddr(\"%.*s\"): %s", (int)MIN(slash - s.s, 100), s.s, addr_why(e->arena, s.s, (size_t)(slash - s.s)));
        else if (slash && slash[1] != '0' && strspn(slash + 1, "0123456789") >= (size_t)(s.s + s.n - slash - 1) && slash + 1 < s.s + s.n)
            why = "prefix length out of range";
        else if (slash)
            why = arena_printf(e->arena, "bad bits after slash: \"%.*s\"", (int)MIN(s.s + s.n - slash - 1, 100), slash + 1);
        return fail(e, "network address parse error during conversion from string: network address parse error during conversion from "
                       "string: netip.ParsePrefix(\"%.*s\"): %s", len, s.s, why);
    }
    if (mapped(&v))
        return fail(e, "network address parse error during conversion from string: IPv4-mapped IPv6 address \"%.*s\" is not allowed", len, s.s);
    return addr_value(e, &v);
}

FN(fn_ip)
{
    struct addr_value v;

    if (args[0].kind == CEL_STRING)
        return ip_from(e, args[0]);
    if (!is_opaque(args[0], OPAQUE_CIDR))
        return NO_OVERLOAD;
    v = *addr_of(args[0]);
    v.bits = -1;
    return addr_value(e, &v);
}
FN(fn_cidr)
{
    return args[0].kind == CEL_STRING ? cidr_from(e, args[0]) : NO_OVERLOAD;
}
FN(fn_is_ip)
{
    struct addr_value v;

    if (args[0].kind != CEL_STRING)
        return NO_OVERLOAD;
    return cel_bool(addr_parse(args[0].s, args[0].n, &v) && !mapped(&v));
}
FN(fn_is_cidr)
{
    struct addr_value v;

    if (args[0].kind != CEL_STRING)
        return NO_OVERLOAD;
    return cel_bool(cidr_parse(args[0].s, args[0].n, &v) && !mapped(&v));
}
FN(fn_ip_canonical)
{
    struct cel_value v;
    char text[64];

    if (args[0].kind != CEL_STRING)
        return NO_OVERLOAD;
    v = ip_from(e, args[0]);
    if (is_error(v))
        return v;
    addr_text(addr_of(v), text);
    return cel_bool(strlen(text) == args[0].n && !memcmp(text, args[0].s, args[0].n));
}

static bool all_zero(const unsigned char *b, int n)
{
    while (n--)
        if (*b++)
            return false;
    return true;
}

FN(fn_ip_test)
{
    const char *name = call->fn->name;
    const struct addr_value *v;
    const unsigned char *b;
    bool unspecified, loopback, multicast, link;

    if (!is_opaque(args[0], OPAQUE_IP))
        return NO_OVERLOAD;
    v = addr_of(args[0]);
    b = v->b;
    if (streq(name, "family"))
        return cel_int(v->v6 ? 6 : 4);
    unspecified = all_zero(b, v->v6 ? 16 : 4);
    loopback = v->v6 ? all_zero(b, 15) && b[15] == 1 : b[0] == 127;
    multicast = v->v6 ? b[0] == 0xff : b[0] >= 224 && b[0] < 240;
    link = v->v6 ? b[0] == 0xfe && (b[1] & 0xc0) == 0x80 : b[0] == 169 && b[1] == 254;
    if (streq(name, "isUnspecified"))
        return cel_bool(unspecified);
    if (streq(name, "isLoopback"))
        return cel_bool(loopback);
    if (streq(name, "isLinkLocalMulticast"))
        return cel_bool(v->v6 ? b[0] == 0xff && (b[1] & 0x0f) == 2 : b[0] == 224 && b[1] == 0 && b[2] == 0);
    if (streq(name, "isLinkLocalUnicast"))
        return cel_bool(link);
    if (!v->v6 && b[0] == 255 && b[1] == 255 && b[2] == 255 && b[3] == 255)
        return cel_bool(false);
    return cel_bool(!unspecified && !loopback && !multicast && !link);
}

static bool same_prefix(const struct addr_value *x, const struct addr_value *y, int bits)
{
    int bytes = bits / 8, rest = bits % 8;

    if (x->v6 != y->v6 || memcmp(x->b, y->b, (size_t)bytes) != 0)
        return false;
    return !rest || ((x->b[bytes] ^ y->b[bytes]) >> (8 - rest)) == 0;
}

FN(fn_contains_ip)
{
    struct cel_value ip = args[1];

    if (!is_opaque(args[0], OPAQUE_CIDR))
        return NO_OVERLOAD;
    if (ip.kind == CEL_STRING)
        ip = ip_from(e, ip);
    if (is_error(ip)) /* upstream does not say why */
        return fail_lit("no such overload");
    if (!is_opaque(ip, OPAQUE_IP))
        return NO_OVERLOAD;
    return cel_bool(same_prefix(addr_of(args[0]), addr_of(ip), addr_of(args[0])->bits));
}
FN(fn_contains_cidr)
{
    struct cel_value o = args[1];

    if (!is_opaque(args[0], OPAQUE_CIDR))
        return NO_OVERLOAD;
    if (o.kind == CEL_STRING)
        o = cidr_from(e, o);
    if (is_error(o))
        return fail_lit("no such overload");
    if (!is_opaque(o, OPAQUE_CIDR))
        return NO_OVERLOAD;
    return cel_bool(addr_of(args[0])->bits <= addr_of(o)->bits && same_prefix(addr_of(args[0]), addr_of(o), addr_of(args[0])->bits));
}
FN(fn_prefix_length)
{
    return is_opaque(args[0], OPAQUE_CIDR) ? cel_int(addr_of(args[0])->bits) : NO_OVERLOAD;
}
FN(fn_masked)
{
    struct addr_value v;

    if (!is_opaque(args[0], OPAQUE_CIDR))
        return NO_OVERLOAD;
    v = *addr_of(args[0]);
    for (int i = v.bits; i < 128; i++)
        v.b[i / 8] &= (unsigned char)~(0x80 >> i % 8);
    return addr_value(e, &v);
}

/* ---- URLs ---- */

struct url_parts {
    const char *why; /* the error, NULL: none */
    const char *scheme, *user, *host, *path, *query, *fragment; /* as written; NULL: absent */
    size_t scheme_n, user_n, host_n, path_n, query_n;
};

static bool hex(char c)
{
    return isxdigit((unsigned char)c);
}

/* The percent escapes of a part are whole; a host may only escape what is not ASCII. */
static const char *escapes_wrong(struct arena *a, const char *s, size_t n, bool host)
{
    for (size_t i = 0; i < n; i++) {
        if (s[i] == '%') {
            if (i + 2 >= n || !hex(s[i + 1]) || !hex(s[i + 2]))
                return arena_printf(a, "invalid URL escape \"%.*s\"", (int)MIN(n - i, (size_t)3), s + i);
            if (host && s[i + 1] < '8' && !(s[i + 1] == '2' && s[i + 2] == '5'))
                return arena_printf(a, "invalid URL escape \"%.*s\"", 3, s + i);
            i += 2;
        } else if (host && (unsigned char)s[i] < 0x80 && !isalnum((unsigned char)s[i]) && !strchr("!$&'()*+,;=:[]<>\"-_.~", s[i])) {
            return arena_printf(a, "invalid character \"%c\" in host name", s[i]);
        }
    }
    return NULL;
}

static bool port_ok(const char *s, size_t n)
{
    if (!n)
        return true;
    if (*s != ':')
        return false;
    for (size_t i = 1; i < n; i++)
        if (!isdigit((unsigned char)s[i]))
            return false;
    return true;
}

static const char *authority(struct arena *a, const char *s, size_t n, struct url_parts *p)
{
    const char *at = n ? memrchr(s, '@', n) : NULL, *close, *colon;

    if (at) {
        p->user = s;
        p->user_n = (size_t)(at - s);
        for (const char *c = s; c < at; c++)
            if (!isalnum((unsigned char)*c) && !strchr("-._:~!$&'()*+,;=%@", *c))
                return "net/url: invalid userinfo";
        n -= (size_t)(at + 1 - s);
        s = at + 1;
    }
    p->host = s;
    p->host_n = n;
    if (n && *s == '[') {
        close = memrchr(s, ']', n);
        if (!close)
            return "missing ']' in host";
        if (!port_ok(close + 1, n - (size_t)(close + 1 - s)))
            return arena_printf(a, "invalid port \"%.*s\" after host", (int)MIN(n - (size_t)(close + 1 - s), (size_t)60), close + 1);
        return NULL;
    }
    colon = n ? memrchr(s, ':', n) : NULL;
    if (colon && !port_ok(colon, n - (size_t)(colon - s)))
        return arena_printf(a, "invalid port \"%.*s\" after host", (int)MIN(n - (size_t)(colon - s), (size_t)60), colon);
    return escapes_wrong(a, s, n, true);
}

/* As url.ParseRequestURI (request) and url.Parse; why stays NULL when it is one. */
static void url_split(struct arena *a, const char *s, size_t n, bool request, struct url_parts *p)
{
    const char *q, *end;

    memset(p, 0, sizeof *p);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f) {
            p->why = "net/url: invalid control character in URL";
            return;
        }
    if (!request && n && (q = memchr(s, '#', n))) {
        p->fragment = q + 1;
        p->why = escapes_wrong(a, q + 1, n - (size_t)(q + 1 - s), false);
        if (p->why)
            return;
        n = (size_t)(q - s);
    }
    if (!n) {
        p->why = request ? "empty url" : NULL;
        p->path = s;
        return;
    }
    if (n == 1 && *s == '*') {
        p->path = s;
        p->path_n = 1;
        return;
    }
    for (size_t i = 0; i < n; i++) {
        if (isalpha((unsigned char)s[i]) || (i && (isdigit((unsigned char)s[i]) || strchr("+-.", s[i]))))
            continue;
        if (s[i] == ':') {
            if (!i) {
                p->why = "missing protocol scheme";
                return;
            }
            p->scheme = s;
            p->scheme_n = i;
        }
        break;
    }
    if (p->scheme) {
        s += p->scheme_n + 1;
        n -= p->scheme_n + 1;
    }
    if (n && (q = memchr(s, '?', n))) {
        p->query = q + 1;
        p->query_n = n - (size_t)(q + 1 - s);
        n = (size_t)(q - s);
    }
    if (!n || *s != '/') {
        if (p->scheme) { /* opaque */
            p->path = s;
            return;
        }
        if (request) {
            p->why = "invalid URI for request";
            return;
        }
    }
    if ((p->scheme || (!request && !(n > 2 && s[2] == '/'))) && n > 1 && s[0] == '/' && s[1] == '/') {
        end = memchr(s + 2, '/', n - 2);
        if (!end)
            end = s + n;
        p->why = authority(a, s + 2, (size_t)(end - s - 2), p);
        if (p->why)
            return;
        n -= (size_t)(end - s);
        s = end;
    }
    p->path = s;
    p->path_n = n;
    p->why = escapes_wrong(a, s, n, false);
}

static char *unescape(struct arena *a, const char *s, size_t n, bool plus)
{
    char *out = arena_raw(a, n + 1);
    size_t o = 0;

    for (size_t i = 0; i < n; i++) {
        if (s[i] == '%' && i + 2 < n) {
            char two[3] = {s[i + 1], s[i + 2], '\0'};
            out[o++] = (char)strtol(two, NULL, 16);
            i += 2;
        } else {
            out[o++] = plus && s[i] == '+' ? ' ' : s[i];
        }
    }
    out[o] = '\0';
    return out;
}

/* The path as it was when it is written rightly, else what must be escaped is. */
static char *escaped_path(struct arena *a, const char *s, size_t n)
{
    char *out = arena_raw(a, n * 3 + 1);
    bool right = true;
    size_t o = 0;
    const char *raw;

    for (size_t i = 0; i < n && right; i++)
        right = isalnum((unsigned char)s[i]) || strchr("-_.~!$&'()*+,;=:@[]/%", s[i]);
    if (right)
        return arena_strndup(a, s, n);
    raw = unescape(a, s, n, false);
    for (; *raw; raw++)
        if (isalnum((unsigned char)*raw) || strchr("-_.~$&+,/:;=@", *raw))
            out[o++] = *raw;
        else
            o += (size_t)sprintf(out + o, "%%%02X", (unsigned char)*raw);
    out[o] = '\0';
    return out;
}

FN(fn_is_url)
{
    struct url_parts p;

    if (args[0].kind != CEL_STRING)
        return NO_OVERLOAD;
    url_split(e->arena, args[0].s, args[0].n, true, &p);
    return cel_bool(!p.why);
}

FN(fn_url)
{
    struct cel_value s = args[0];
    struct url_parts p;
    struct url_value *u;
    char *scheme;

    if (s.kind != CEL_STRING)
        return NO_OVERLOAD;
    url_split(e->arena, s.s, s.n, true, &p);
    if (!p.why)
        url_split(e->arena, s.s, s.n, false, &p);
    if (p.why)
        return fail(e, "URL parse error during conversion from string: parse \"%.*s\": %s", (int)MIN(s.n, 300u), s.s, p.why);
    e->bytes += (size_t)s.n * 8;
    u = mem(e, sizeof *u);
    u->head.what = OPAQUE_URL;
    u->scheme = scheme = arena_strndup(e->arena, p.scheme ? p.scheme : "", p.scheme_n);
    for (; *scheme; scheme++)
        *scheme = (char)tolower((unsigned char)*scheme);
    u->host = unescape(e->arena, p.host ? p.host : "", p.host_n, false);
    u->path = escaped_path(e->arena, p.path ? p.path : "", p.path_n);
    u->query = arena_strndup(e->arena, p.query ? p.query : "", p.query_n);
    u->text = arena_strndup(e->arena, s.s, s.n);
    return opaque_value(&u->head, &cel_url_type);
}

FN(fn_url_part)
{
    const char *name = call->fn->name + 3, *host, *colon, *close;
    const struct url_value *u;

    if (!is_opaque(args[0], OPAQUE_URL))
        return NO_OVERLOAD;
    u = (const struct url_value *)args[0].opaque;
    host = u->host;
    if (streq(name, "Scheme"))
        return cel_str(u->scheme);
    if (streq(name, "Host"))
        return cel_str(host);
    if (streq(name, "EscapedPath"))
        return cel_str(u->path);
    close = *host == '[' ? strrchr(host, ']') : NULL;
    colon = strrchr(close ? close : host, ':');
    if (streq(name, "Port"))
        return cel_str(colon ? colon + 1 : "");
    if (close)
        return cel_strn(host + 1, (size_t)(close - host - 1));
    return colon ? cel_strn(host, (size_t)(colon - host)) : cel_str(host);
}

FN(fn_url_query)
{
    const struct url_value *u;
    struct cel_value out, was;

    if (!is_opaque(args[0], OPAQUE_URL))
        return NO_OVERLOAD;
    u = (const struct url_value *)args[0].opaque;
    out = map_new(e, 0);
    for (const char *s = u->query; *s;) {
        size_t part = strcspn(s, "&");
        const char *eq = memchr(s, '=', part);
        struct cel_value key, value;
        if (part && !memchr(s, ';', part) && !escapes_wrong(e->arena, s, part, false)) {
            size_t key_n = eq ? (size_t)(eq - s) : part;
            e->bytes += part + 32;
            key = cel_str(unescape(e->arena, s, key_n, true));
            value = cel_str(eq ? unescape(e->arena, eq + 1, part - key_n - 1, true) : "");
            if (!map_find(e, out, key, &was)) {
                out = map_push(e, out, key, list_push(e, list_new(e, 1), value));
            } else {
                for (uint32_t i = 0; i < out.n; i++)
                    if (values_same(e, out.map->entries[i].key, key))
                        ((struct cel_map *)out.map)->entries[i].value = list_push(e, was, value);
            }
        }
        s += part + (s[part] == '&');
    }
    return out;
}
