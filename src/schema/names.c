/* schema/names.c - the forms that names and small texts must have, and why one has not. */
#include "schema/schema_int.h"

#include "schema/rules_pod.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>

#define LABEL_WHY                                                                                  \
    "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and "   \
    "must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex "     \
    "used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
#define SUBDOMAIN_WHY                                                                              \
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or "   \
    "'.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used "  \
    "for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
#define QUALIFIED_WHY                                                                              \
    "name part must consist of alphanumeric characters, '-', '_' or '.', and must start and end "  \
    "with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for " \
    "validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"

static bool lower_alnum(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
}

static bool label_n(const char *s, size_t n)
{
    if (!n || !lower_alnum(s[0]) || !lower_alnum(s[n - 1]))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!lower_alnum(s[i]) && s[i] != '-')
            return false;
    return true;
}

const char *name_dns_label(const char *s)
{
    size_t n = strlen(s);

    if (n > 63)
        return "must be no more than 63 characters";
    return label_n(s, n) ? NULL : LABEL_WHY;
}

const char *name_dns_subdomain(const char *s)
{
    size_t n = strlen(s);

    if (n > 253)
        return "must be no more than 253 characters";
    for (;;) {
        size_t part = strcspn(s, ".");
        if (!label_n(s, part))
            return SUBDOMAIN_WHY;
        if (!s[part])
            return NULL;
        s += part + 1;
    }
}

static const char *dns_subdomain_wild(const char *s)
{
    if (strncmp(s, "*.", 2) == 0)
        s += 2;
    return name_dns_subdomain(s);
}

const char *name_dns1035_label(const char *s)
{
    size_t n = strlen(s);

    if (n > 63)
        return "must be no more than 63 characters";
    if (label_n(s, n) && !isdigit((unsigned char)s[0]))
        return NULL;
    return "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with "
           "an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or "
           "'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
}

static const char *name_part(const char *s)
{
    size_t n = strlen(s);

    if (!n)
        return "name part must be non-empty";
    if (n > 63)
        return "name part must be no more than 63 characters";
    if (!isalnum((unsigned char)s[0]) || !isalnum((unsigned char)s[n - 1]))
        return QUALIFIED_WHY;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)s[i]) && !strchr("-_.", s[i]))
            return QUALIFIED_WHY;
    return NULL;
}

const char *name_qualified(const char *s)
{
    const char *slash = strchr(s, '/');
    char prefix[256];

    if (!slash)
        return name_part(s);
    if (strchr(slash + 1, '/'))
        return "a qualified name " QUALIFIED_WHY;
    if (slash == s)
        return "prefix part must be non-empty";
    if (slash - s > 253)
        return "prefix part must be no more than 253 characters";
    memcpy(prefix, s, (size_t)(slash - s));
    prefix[slash - s] = 0;
    const char *why = name_dns_subdomain(prefix);
    return why ? why : name_part(slash + 1);
}

const char *name_label_value(const char *s)
{
    if (!*s)
        return NULL;
    if (strlen(s) > 63)
        return "must be no more than 63 characters";
    if (!name_part(s))
        return NULL;
    return "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' "
           "or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or "
           "'my_value',  or '12345', regex used for validation is "
           "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";
}

const char *name_path_segment(const char *s)
{
    if (streq(s, ".") || streq(s, ".."))
        return "may not be '.' or '..'";
    if (strchr(s, '/'))
        return "may not contain '/'";
    if (strchr(s, '%'))
        return "may not contain '%'";
    return NULL;
}

/* ::ffff:10.1.2.3 */
static bool mapped(const unsigned char *b)
{
    static const unsigned char head[12] = {[10] = 0xff, [11] = 0xff};

    return memcmp(b, head, sizeof(head)) == 0;
}

static const char *ip_any(const char *s)
{
    unsigned char out[16];

    if (inet_pton(AF_INET, s, out) == 1)
        return NULL;
    if (inet_pton(AF_INET6, s, out) == 1)
        return mapped(out) ? "must not be an IPv4-mapped IPv6 address" : NULL;
    return "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
}

static const char *cidr_any(const char *s)
{
    char addr[64];
    const char *slash = strchr(s, '/');
    unsigned char out[16];
    static const char why[] = "must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)";

    if (!slash || (size_t)(slash - s) >= sizeof(addr) || !slash[1] || strlen(slash + 1) > 3 ||
        strspn(slash + 1, "0123456789") != strlen(slash + 1))
        return why;
    memcpy(addr, s, (size_t)(slash - s));
    addr[slash - s] = 0;
    int bits = atoi(slash + 1), size = 32;
    if (inet_pton(AF_INET, addr, out) != 1) {
        if (inet_pton(AF_INET6, addr, out) != 1)
            return why;
        size = 128;
    }
    if (bits > size)
        return why;
    if (slash[1] == '0' && slash[2])
        return "must not have leading 0s in IP or prefix length";
    if (size == 128 && mapped(out))
        return "must not have an IPv4-mapped IPv6 address";
    for (int i = bits; i < size; i++)
        if (out[i / 8] & (0x80 >> (i % 8)))
            return "must not have bits set beyond the prefix length";
    return NULL;
}

/* Names of container ports: IANA_SVC_NAME. */
static const char *port_name(const char *s)
{
    size_t n = strlen(s);
    bool letter = false;

    if (n > 15)
        return "must be no more than 15 characters";
    for (size_t i = 0; i < n; i++) {
        if (!lower_alnum(s[i]) && s[i] != '-')
            return "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)";
        letter |= s[i] >= 'a' && s[i] <= 'z';
        if (s[i] == '-' && i + 1 < n && s[i + 1] == '-')
            return "must not contain consecutive hyphens";
    }
    if (!letter)
        return "must contain at least one letter (a-z)";
    if (s[0] == '-' || s[n - 1] == '-')
        return "must not begin or end with a hyphen";
    return NULL;
}

/* Keys of ConfigMaps and Secrets. */
static const char *config_key(const char *s)
{
    size_t n = strlen(s);

    if (n > 253)
        return "must be no more than 253 characters";
    if (!n || strspn(s, "-._abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") != n)
        return "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. "
               "'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is "
               "'[-._a-zA-Z0-9]+')";
    if (streq(s, "."))
        return "must not be '.'";
    if (streq(s, ".."))
        return "must not be '..'";
    if (strncmp(s, "..", 2) == 0)
        return "must not start with '..'";
    return NULL;
}

static const char *env_name(const char *s)
{
    for (const char *p = s; *p; p++)
        if (*p < 0x20 || *p > 0x7e || *p == '=')
            return "a valid environment variable name must consist only of printable ASCII "
                   "characters other than '='";
    return *s ? NULL : "environment variable name must be non-empty";
}

static const char *absolute_path(const char *s)
{
    return *s == '/' ? NULL : "must be an absolute path";
}

static const char *no_backsteps(const char *s)
{
    for (const char *p = s; p;) {
        if (strncmp(p, "..", 2) == 0 && (p[2] == '/' || !p[2]))
            return "must not contain '..'";
        p = strchr(p, '/');
        p = p ? p + 1 : NULL;
    }
    return NULL;
}

static const char *local_path(const char *s)
{
    if (*s == '/')
        return "must be a relative path";
    if (strncmp(s, "..", 2) == 0 && s[2] && s[2] != '/')
        return "must not start with '..'";
    return no_backsteps(s);
}

/* As a subdomain, underscores allowed (search paths of resolvers). */
static const char *dns_underscore(const char *s)
{
    char copy[256];
    size_t n = strlen(s);

    if (n > 253)
        return "must be no more than 253 characters";
    for (size_t i = 0; i <= n; i++)
        copy[i] = s[i] == '_' ? 'a' : s[i];
    return name_dns_subdomain(copy) ? SUBDOMAIN_WHY : NULL;
}

static const char *dns_subdomain_caseless(const char *s)
{
    char copy[256];
    size_t n = strlen(s);

    if (n > 253)
        return "must be no more than 253 characters";
    for (size_t i = 0; i <= n; i++)
        copy[i] = s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] | 0x20) : s[i];
    return name_dns_subdomain(copy);
}

/* A name that may end as a prefix does. */
static const char *dns_prefix(const char *s)
{
    char copy[256];
    size_t n = strlen(s);

    if (n > 253)
        return "must be no more than 253 characters";
    memcpy(copy, s, n + 1);
    if (n > 1 && copy[n - 1] == '-')
        copy[n - 1] = 'a';
    return name_dns_subdomain(copy);
}

/* iqn., eui. and naa. names of iSCSI. */
static const char *iscsi_name(const char *s)
{
    static const char hex[] = "0123456789abcdefABCDEF";
    static const char why[] = "must be valid format";

    if (strncmp(s, "eui.", 4) == 0)
        return strlen(s) == 20 && strspn(s + 4, hex) == 16 ? NULL : why;
    if (strncmp(s, "naa.", 4) == 0)
        return (strlen(s) == 20 || strlen(s) == 36) && strspn(s + 4, hex) == strlen(s + 4) ? NULL : why;
    if (strncmp(s, "iqn.", 4) != 0)
        return why;
    const char *p = s + 4; /* iqn.YYYY-MM.domain[:text] */
    if (strspn(p, "0123456789") != 4 || p[4] != '-' || strspn(p + 5, "0123456789") != 2 || p[7] != '.')
        return why;
    size_t n = strcspn(p + 8, ":");
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)p[8 + i]) && !strchr(".-", p[8 + i]))
            return why;
    return n ? NULL : why;
}

static const char *not_ip(const char *s)
{
    return ip_any(s) ? NULL : "must be a DNS name, not an IP address";
}

static const char *group_version(const char *s)
{
    static const char why[] = "must be a valid group/version";
    const char *slash = strchr(s, '/');
    char group[256];

    if (!slash)
        return name_dns1035_label(s);
    if (strchr(slash + 1, '/') || slash - s > 253)
        return why;
    memcpy(group, s, (size_t)(slash - s));
    group[slash - s] = 0;
    const char *bad = name_dns_subdomain(group);
    return bad ? bad : name_dns1035_label(slash + 1);
}

/* As a label, letters of both cases. */
static const char *kind_name(const char *s)
{
    char copy[64];
    size_t n = strlen(s);

    if (n > 63)
        return "must be no more than 63 characters";
    for (size_t i = 0; i <= n; i++)
        copy[i] = s[i] >= 'A' && s[i] <= 'Z' ? (char)(s[i] | 0x20) : s[i];
    return name_dns1035_label(copy);
}

/* Subdomains with slashes between them. */
static const char *pool_name(const char *s)
{
    char part[256];

    for (;; s++) {
        size_t n = strcspn(s, "/");
        if (n > 253)
            return "must be no more than 253 characters";
        memcpy(part, s, n);
        part[n] = 0;
        const char *why = name_dns_subdomain(part);
        if (why)
            return why;
        s += n;
        if (!*s)
            return NULL;
    }
}

/* One dotted list of a semantic version; numbers: without leading zeros. */
static size_t idents(const char *s, bool numbers)
{
    size_t used = 0;

    for (;;) {
        size_t n = 0;
        bool digits = true;
        while (isalnum((unsigned char)s[used + n]) || s[used + n] == '-')
            digits &= isdigit((unsigned char)s[used + n]) != 0, n++;
        if (!n || (numbers && digits && n > 1 && s[used] == '0'))
            return 0;
        used += n;
        if (s[used] != '.')
            return used;
        used++;
    }
}

static const char *semver(const char *s)
{
    static const char why[] = "must be a string compatible with semver.org spec 2.0.0";

    for (int i = 0; i < 3; i++) {
        size_t n = strspn(s, "0123456789");
        if (!n || (n > 1 && *s == '0') || (i < 2 && s[n] != '.'))
            return why;
        s += n + (i < 2);
    }
    if (*s == '-') {
        size_t n = idents(s + 1, true);
        if (!n)
            return why;
        s += n + 1;
    }
    if (*s == '+') {
        size_t n = idents(s + 1, false);
        if (!n)
            return why;
        s += n + 1;
    }
    return *s ? why : NULL;
}

static const char *node_id(const char *s)
{
    return strlen(s) > 256 ? "must be 256 characters or less" : NULL;
}

const char *name_signer(const char *s)
{
    static const char why[] = "must be a fully qualified domain and path of the form 'example.com/signer-name'";
    const char *slash = strchr(s, '/');
    char domain[256];

    if (!slash || strchr(slash + 1, '/') || slash - s > 253)
        return why;
    memcpy(domain, s, (size_t)(slash - s));
    domain[slash - s] = 0;
    if (!strchr(domain, '.'))
        return "should be a domain with at least two segments separated by dots";
    const char *bad = name_dns_subdomain(domain);
    return bad ? bad : name_dns_subdomain(slash + 1);
}

static const char *header_name(const char *s)
{
    size_t n = strlen(s);

    if (n && strspn(s, "-abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == n)
        return NULL;
    return "a valid HTTP header must consist of alphanumeric characters or '-' (e.g. "
           "'X-Header-Name', regex used for validation is '[-A-Za-z0-9]+')";
}

static const char *trimmed(const char *s)
{
    size_t n = strlen(s);

    if (n && (isspace((unsigned char)s[0]) || isspace((unsigned char)s[n - 1])))
        return "must not have leading or trailing whitespace";
    return NULL;
}

static const char *fully_qualified(const char *s)
{
    const char *why = name_dns_subdomain(s);

    if (why)
        return why;
    return strchr(s, '.') ? NULL : "should be a domain with at least two segments separated by dots";
}

static const char *c_identifier(const char *s)
{
    if ((isalpha((unsigned char)*s) || *s == '_') &&
        strspn(s, "_abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") == strlen(s))
        return NULL;
    return "a valid C identifier must start with alphabetic character or '_', followed by a string "
           "of alphanumeric characters or '_'";
}

static const char *base_name(const char *s)
{
    return strchr(s, '/') ? "must not contain '/'" : NULL;
}

static const char *quantity_positive(const char *s)
{
    double v;

    return !schema_quantity_parse(s, &v) || v < 0 ? "must be greater than or equal to 0" : NULL;
}

/* "25%" only: for int-or-strings the engine checks numbers by min and max. */
static const char *percent(const char *s)
{
    size_t n = strspn(s, "0123456789");

    if (n && s[n] == '%' && !s[n + 1])
        return NULL;
    return "a valid percent string must be a numeric string followed by an ending '%' (e.g. '1%',  "
           "or '93%', regex used for validation is '[0-9]+%')";
}

/* A name that may carry a prefix with a slash, as in finalizers: domain/path. */
static const char *domain_path(const char *s)
{
    const char *slash = strchr(s, '/');
    char domain[256];

    if (!slash || slash - s > 253 || slash == s)
        return "must be a domain-prefixed path (such as \"acme.io/foo\")";
    memcpy(domain, s, (size_t)(slash - s));
    domain[slash - s] = 0;
    const char *why = name_dns_subdomain(domain);
    return why ? why : slash[1] ? NULL : "must be a domain-prefixed path (such as \"acme.io/foo\")";
}

uint32_t name_whys(const char *(*fn)(const char *), const char *s, const char *out[4])
{
    size_t n = strlen(s);
    uint32_t k = 0;
    const char *why = fn(s), *cut = NULL;
    char part[300];

    if (!why)
        return 0;
    out[k++] = why;
    if (fn == name_qualified && !*s)
        out[k++] = QUALIFIED_WHY;
    /* too long and of the wrong letters as well */
    size_t most = fn == name_dns_label || fn == name_dns1035_label ? 63 : fn == name_dns_subdomain || fn == dns_underscore || fn == dns_prefix || fn == dns_subdomain_caseless ? 253 : 0;
    if (most && n > most) {
        memcpy(part, s, most);
        part[most] = 0;
        while (most && (part[most - 1] == '-' || part[most - 1] == '.'))
            part[--most] = 'a', most = 0;
        cut = fn(part);
        if (cut)
            out[k++] = cut;
    }
    if (fn == port_name) {
        bool letter = false, chars = !n, twice = false;
        for (size_t i = 0; i < n; i++) {
            chars |= !lower_alnum(s[i]) && s[i] != '-';
            letter |= s[i] >= 'a' && s[i] <= 'z';
            twice |= s[i] == '-' && s[i + 1] == '-';
        }
        k = 0;
        if (n > 15)
            out[k++] = "must be no more than 15 characters";
        if (chars)
            out[k++] = "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)";
        if (!letter)
            out[k++] = "must contain at least one letter (a-z)";
        if (twice && k < 4)
            out[k++] = "must not contain consecutive hyphens";
        if (n && (s[0] == '-' || s[n - 1] == '-') && k < 4)
            out[k++] = "must not begin or end with a hyphen";
    }
    return k;
}

static const struct named_check checks[] = {
    {"dns-label", name_dns_label},
    {"dns-subdomain", name_dns_subdomain},
    {"dns-subdomain-wild", dns_subdomain_wild},
    {"dns1035", name_dns1035_label},
    {"qualified", name_qualified},
    {"label-value", name_label_value},
    {"path-segment", name_path_segment},
    {"ip", ip_any},
    {"cidr", cidr_any},
    {"port-name", port_name},
    {"config-key", config_key},
    {"env-name", env_name},
    {"absolute-path", absolute_path},
    {"no-backsteps", no_backsteps},
    {"local-path", local_path},
    {"header-name", header_name},
    {"trimmed", trimmed},
    {"dns-underscore", dns_underscore},
    {"dns-caseless", dns_subdomain_caseless},
    {"dns-prefix", dns_prefix},
    {"iscsi-name", iscsi_name},
    {"signer", name_signer},
    {"no-ip", not_ip},
    {"node-id", node_id},
    {"pool-name", pool_name},
    {"semver", semver},
    {"group-version", group_version},
    {"kind-name", kind_name},
    {"fully-qualified", fully_qualified},
    {"c-identifier", c_identifier},
    {"base-name", base_name},
    {"quantity-positive", quantity_positive},
    {"percent", percent},
    {"domain-path", domain_path},
};

const struct named_check *named_check_find(const char *name, size_t n)
{
    for (uint32_t i = 0; i < ARRAY_LEN(checks); i++)
        if (strlen(checks[i].name) == n && memcmp(checks[i].name, name, n) == 0)
            return &checks[i];
    return NULL;
}
