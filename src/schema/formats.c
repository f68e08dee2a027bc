/* schema/formats.c - see formats.h. Most formats are a pattern and a bound; the others a function. */
#include "schema/formats.h"

#include "codec/regex.h"
#include "schema/schema_int.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <string.h>

static bool is_date(const char *s)
{
    int64_t us;
    char text[32];

    if (strlen(s) != 10)
        return false;
    snprintf(text, sizeof(text), "%sT00:00:00Z", s);
    return time_parse(text, &us);
}

/* A day, "t", and a time of day somewhere behind it. */
static bool is_datetime(const char *s)
{
    char day[11] = "", time[64];
    const char *t = strpbrk(s, "tT");
    size_t n = t ? strcspn(t + 1, "tT") : 0;

    if (!t || t - s != 10 || n >= sizeof(time))
        return false;
    memcpy(day, s, 10);
    memcpy(time, t + 1, n);
    time[n] = 0;
    return is_date(day) && regex_match_text("^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](.[0-9]+)?"
                                            "([zZ]|[+-][0-9]{2}:[0-9]{2})$", time) == 1;
}

/* As Go writes them, or as Scala does: "22 ns", "3 days". */
static bool is_duration(const char *s)
{
    int64_t ns;

    return duration_parse(s, &ns) ||
           regex_match_text("(?i)\\d+\\s*(ns|us|µs|ms|s|m|h|hr|d|w|wk|(nano|micro|milli|sec|min|hour|day|week)[a-zµ]*)"
                            "([^a-zµ]|$)", s) == 1;
}

static bool is_ip4(const char *s)
{
    uint8_t raw[16];

    return strchr(s, '.') && (inet_pton(AF_INET, s, raw) == 1 || inet_pton(AF_INET6, s, raw) == 1 ||
                              regex_match_text("^0*(\\d|\\d\\d|1\\d\\d|2[0-4]\\d|25[0-5])(\\.0*(\\d|\\d\\d|1\\d\\d|2[0-4]\\d|25[0-5])){3}$", s) == 1);
}

static bool is_ip6(const char *s)
{
    uint8_t raw[16];

    return strchr(s, ':') && inet_pton(AF_INET6, s, raw) == 1;
}

static bool is_cidr(const char *s)
{
    char ip[64];
    const char *slash = strchr(s, '/');
    size_t n = slash ? (size_t)(slash - s) : sizeof(ip);

    if (n >= sizeof(ip) || !slash[1] || strspn(slash + 1, "0123456789") != strlen(slash + 1) || strlen(slash) > 4)
        return false;
    memcpy(ip, s, n);
    ip[n] = 0;
    return strchr(ip, ':') ? is_ip6(ip) && atoi(slash + 1) <= 128 : is_ip4(ip) && atoi(slash + 1) <= 32;
}

/* The digits of a text (and an X) with what may stand between left out; false: something else is in it. */
static bool digits(const char *s, const char *between, char *out, size_t size)
{
    size_t n = 0;

    for (; *s; s++) {
        if ((isdigit((unsigned char)*s) || *s == 'X') && n + 1 < size)
            out[n++] = *s;
        else if (!between ? isdigit((unsigned char)*s) : !strchr(between, *s))
            return false;
    }
    out[n] = 0;
    return true;
}

static bool is_isbn10(const char *s)
{
    char d[16];
    int sum = 0;

    if (!digits(s, " -\t\n\r\f\v", d, sizeof(d)) || strlen(d) != 10 || strspn(d, "0123456789") < 9)
        return false;
    for (int i = 0; i < 10; i++)
        sum += (10 - i) * (d[i] == 'X' ? 10 : d[i] - '0');
    return sum % 11 == 0;
}

static bool is_isbn13(const char *s)
{
    char d[16];
    int sum = 0;

    if (!digits(s, " -\t\n\r\f\v", d, sizeof(d)) || strlen(d) != 13 || strspn(d, "0123456789") != 13)
        return false;
    for (int i = 0; i < 13; i++)
        sum += (i % 2 ? 3 : 1) * (d[i] - '0');
    return sum % 10 == 0;
}

static bool is_isbn(const char *s)
{
    return is_isbn10(s) || is_isbn13(s);
}

static bool is_creditcard(const char *s)
{
    char d[32];
    size_t n = 0;
    int sum = 0;

    for (; *s; s++)
        if (isdigit((unsigned char)*s) && n + 1 < sizeof(d))
            d[n++] = *s;
    d[n] = 0;
    for (size_t i = 0; i < n; i++) {
        int x = (d[n - 1 - i] - '0') * (i % 2 ? 2 : 1);

        sum += x > 9 ? x - 9 : x;
    }
    return sum % 10 == 0 &&
           regex_match_text("^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|"
                            "3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35\\d{3})\\d{11})$", d) == 1;
}

/* What may stand behind GET: a path, or a URI with a scheme. */
static bool is_uri(const char *s)
{
    for (const char *p = s; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f || (*p == '%' && (!isxdigit((unsigned char)p[1]) || !isxdigit((unsigned char)p[2]))))
            return false;
    return *s == '/' || streq(s, "*") || regex_match_text("^[a-zA-Z][a-zA-Z0-9+.-]*:(//[^ <>\"\\[\\]\\\\^`{|}/?#]*(\\[[0-9a-fA-F:.]+\\])?(:[0-9]*)?([/?#]|$)|[^/]|/[^/])", s) == 1;
}

static bool is_hostname(const char *s)
{
    size_t label = 0;

    for (const char *p = s; *p; p++) {
        label = *p == '.' ? 0 : label + 1;
        if (label > 63)
            return false;
    }
    return strlen(s) <= 255 &&
           regex_match_text("^([a-zA-Z0-9\\p{S}\\p{L}]((-?[a-zA-Z0-9\\p{S}\\p{L}]{0,62})?)|([a-zA-Z0-9\\p{S}\\p{L}]"
                            "(([a-zA-Z0-9-\\p{S}\\p{L}]{0,61}[a-zA-Z0-9\\p{S}\\p{L}])?)(\\.)){1,}([a-zA-Z\\p{L}]){2,63})$", s) == 1;
}

#define ATOM "[A-Za-z0-9!#$%&'*+/=?^_`{|}~\\x80-\\x{10FFFF}-]+"
#define SHORT_NAME "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
#define HEX "[0-9a-f]"

/* Names without dashes. */
static const struct {
    const char *name;
    bool (*fn)(const char *s);
    const char *pattern; /* when fn is NULL */
    size_t max;          /* bytes; 0: any */
} FORMATS[] = {
    {"date", is_date, NULL, 0},
    {"datetime", is_datetime, NULL, 0},
    {"duration", is_duration, NULL, 0},
    {"ipv4", is_ip4, NULL, 0},
    {"ipv6", is_ip6, NULL, 0},
    {"cidr", is_cidr, NULL, 0},
    {"isbn", is_isbn, NULL, 0},
    {"isbn10", is_isbn10, NULL, 0},
    {"isbn13", is_isbn13, NULL, 0},
    {"creditcard", is_creditcard, NULL, 0},
    {"uri", is_uri, NULL, 0},
    {"hostname", is_hostname, NULL, 0},
    {"uuid", NULL, "(?i)^" HEX "{8}-?" HEX "{4}-?" HEX "{4}-?" HEX "{4}-?" HEX "{12}$", 0},
    {"uuid3", NULL, "(?i)^" HEX "{8}-?" HEX "{4}-?3" HEX "{3}-?" HEX "{4}-?" HEX "{12}$", 0},
    {"uuid4", NULL, "(?i)^" HEX "{8}-?" HEX "{4}-?4" HEX "{3}-?[89ab]" HEX "{3}-?" HEX "{12}$", 0},
    {"uuid5", NULL, "(?i)^" HEX "{8}-?" HEX "{4}-?5" HEX "{3}-?[89ab]" HEX "{3}-?" HEX "{12}$", 0},
    {"byte", NULL, "^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$", 0},
    {"ssn", NULL, "^\\d{3}[- ]?\\d{2}[- ]?\\d{4}$", 0},
    {"hexcolor", NULL, "^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$", 0},
    {"rgbcolor", NULL, "^rgb\\(\\s*(0|[1-9]\\d?|1\\d\\d?|2[0-4]\\d|25[0-5])\\s*,\\s*(0|[1-9]\\d?|1\\d\\d?|2[0-4]\\d|25[0-5])"
                       "\\s*,\\s*(0|[1-9]\\d?|1\\d\\d?|2[0-4]\\d|25[0-5])\\s*\\)$", 0},
    {"mac", NULL, "^(" HEX "{2}:){5}(" HEX "{2}|(" HEX "{2}:){2}" HEX "{2}|(" HEX "{2}:){14}" HEX "{2})$|"
                  "^(" HEX "{2}-){5}(" HEX "{2}|(" HEX "{2}-){2}" HEX "{2}|(" HEX "{2}-){14}" HEX "{2})$|"
                  "^(" HEX "{4}\\.){2}(" HEX "{4}|" HEX "{4}\\." HEX "{4}|(" HEX "{4}\\.){7}" HEX "{4})$|^(" HEX "{12}|" HEX "{16}|" HEX "{40})$", 0},
    {"email", NULL, "^\\s*((\"([^\"\\\\]|\\\\.)*\"|[^<>\"@,:;()\\[\\]\\\\]*)\\s*<\\s*(" ATOM "(\\." ATOM ")*|\"([^\"\\\\]|\\\\.)+\")@(" ATOM
                    "(\\." ATOM ")*|\\[[^\\[\\]]*\\])\\s*>|(" ATOM "(\\." ATOM ")*|\"([^\"\\\\]|\\\\.)+\")@(" ATOM "(\\." ATOM ")*|\\[[^\\[\\]]*\\]))\\s*$", 0},
    {"bsonobjectid", NULL, "^[0-9a-fA-F]{24}$", 0},
    {"k8sshortname", NULL, "^" SHORT_NAME "$", 63},
    {"k8slongname", NULL, "^" SHORT_NAME "(\\." SHORT_NAME ")*$", 253},
};

bool format_fits(const char *format, const char *s)
{
    char name[32], lower[64];
    size_t n = 0;

    if (!*format)
        return true;
    for (const char *p = format; *p && n + 1 < sizeof(name); p++)
        if (*p != '-')
            name[n++] = *p;
    name[n] = 0;
    for (size_t i = 0; i < ARRAY_LEN(FORMATS); i++) {
        if (!streq(FORMATS[i].name, name))
            continue;
        if (FORMATS[i].fn)
            return FORMATS[i].fn(s);
        if (FORMATS[i].max && strlen(s) > FORMATS[i].max)
            return false;
        if (streq(name, "mac")) {
            if (strlen(s) >= sizeof(lower))
                return false;
            for (n = 0; s[n]; n++)
                lower[n] = (char)tolower((unsigned char)s[n]);
            lower[n] = 0;
            s = lower;
        }
        return regex_match_text(FORMATS[i].pattern, s) != 0;
    }
    return true;
}
