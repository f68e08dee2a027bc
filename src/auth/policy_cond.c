/* auth/policy_cond.c - the Condition of a statement: {OPERATOR: {key: value or values}}.
 *
 * All operators and all keys must hold; of a key's values one must match, or none for the operators with "Not" in
 * them. A key that the request lacks matches nothing: so the Not operators hold, and the others do not, unless the
 * operator ends in IfExists. Set operators: ForAllValues holds for no value at all, ForAnyValue does not. */
#include "auth/policy_int.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <math.h>
#include <strings.h>
#include <time.h>

#include "codec/json.h"

enum type { TEXT, LIKE, NUMBER, DATE, TRUTH, IP, ARN, NONE };
enum order { SAME = 1, LESS = 2, MORE = 4 };

struct op {
    const char *name;
    enum type type;
    bool fold, negated;
    unsigned order; /* of numbers and dates: which of them match */
};
static const struct op OPS[] = {
    {"StringEquals", TEXT, false, false, 0},
    {"StringNotEquals", TEXT, false, true, 0},
    {"StringEqualsIgnoreCase", TEXT, true, false, 0},
    {"StringNotEqualsIgnoreCase", TEXT, true, true, 0},
    {"StringLike", LIKE, false, false, 0},
    {"StringNotLike", LIKE, false, true, 0},
    {"NumericEquals", NUMBER, false, false, SAME},
    {"NumericNotEquals", NUMBER, false, true, SAME},
    {"NumericLessThan", NUMBER, false, false, LESS},
    {"NumericLessThanEquals", NUMBER, false, false, LESS | SAME},
    {"NumericGreaterThan", NUMBER, false, false, MORE},
    {"NumericGreaterThanEquals", NUMBER, false, false, MORE | SAME},
    {"DateEquals", DATE, false, false, SAME},
    {"DateNotEquals", DATE, false, true, SAME},
    {"DateLessThan", DATE, false, false, LESS},
    {"DateLessThanEquals", DATE, false, false, LESS | SAME},
    {"DateGreaterThan", DATE, false, false, MORE},
    {"DateGreaterThanEquals", DATE, false, false, MORE | SAME},
    {"Bool", TRUTH, true, false, 0},
    {"BinaryEquals", TEXT, false, false, 0},
    {"IpAddress", IP, false, false, 0},
    {"NotIpAddress", IP, false, true, 0},
    {"ArnEquals", ARN, false, false, 0},
    {"ArnLike", ARN, false, false, 0},
    {"ArnNotEquals", ARN, false, true, 0},
    {"ArnNotLike", ARN, false, true, 0},
    {"Null", NONE, false, false, 0},
};

enum set { ONE, ALL, ANY };
struct how {
    const struct op *op;
    enum set set;
    bool if_exists;
};

static bool how_of(const char *name, struct how *ret)
{
    size_t n;

    *ret = (struct how){0};
    if (strncasecmp(name, "ForAllValues:", 13) == 0)
        ret->set = ALL, name += 13;
    else if (strncasecmp(name, "ForAnyValue:", 12) == 0)
        ret->set = ANY, name += 12;
    n = strlen(name);
    if (n > 8 && strcasecmp(name + n - 8, "IfExists") == 0)
        ret->if_exists = true, n -= 8;
    for (size_t i = 0; i < ARRAY_LEN(OPS); i++)
        if (strlen(OPS[i].name) == n && strncasecmp(OPS[i].name, name, n) == 0)
            ret->op = &OPS[i];
    return ret->op && !(ret->op->type == NONE && (ret->if_exists || ret->set));
}

/* ---- are they well-formed? ---- */

static bool is_scalar(const struct val *v)
{
    return v->type == VAL_STR || v->type == VAL_BOOL || v->type == VAL_INT || v->type == VAL_DOUBLE;
}

int cond_check(const struct val *condition, struct err *err)
{
    struct how how;

    if (!val_is(condition, VAL_MAP))
        return err_set(err, INVALID, "Syntax errors in policy.");
    VAL_EACH_MEMBER(condition, m)
    {
        if (!how_of(m->key, &how))
            return err_set(err, INVALID, "Invalid Condition type : %.64s", m->key);
        if (m->v.type != VAL_MAP || !m->v.n)
            return err_set(err, INVALID, "Syntax errors in policy.");
        VAL_EACH_MEMBER(&m->v, k)
        {
            bool good = is_scalar(&k->v) || k->v.type == VAL_LIST;

            if (!strchr(k->key, ':'))
                return err_set(err, INVALID, "Condition keys must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.");
            VAL_EACH(&k->v, it)
                good &= is_scalar(it);
            if (!good)
                return err_set(err, INVALID, "Syntax errors in policy.");
        }
    }
    return 0;
}

/* ---- values ---- */

/* Seconds since 1970 of "2026-01-02", "2026-01-02T03:04Z", "...:05Z", "...:05.123+01:00" or of a number. */
static bool date_of(const char *s, double *ret)
{
    static const char *const FORMS[] = {"%Y-%m-%dT%H:%M:%S", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H", "%Y-%m-%d"};
    char *end;

    *ret = strtod(s, &end);
    if (*s && !*end)
        return isfinite(*ret);
    for (size_t i = 0; i < ARRAY_LEN(FORMS); i++) {
        struct tm tm = {.tm_mday = 1};
        const char *at = strptime(s, FORMS[i], &tm);

        if (!at)
            continue;
        *ret = (double)timegm(&tm);
        if (*at == '.') {
            *ret += strtod(at, &end);
            at = end;
        }
        if (*at == '+' || *at == '-') {
            long hours = strtol(at + 1, &end, 10), minutes = *end == ':' ? strtol(end + 1, &end, 10) : 0;

            *ret -= (*at == '+' ? 1 : -1) * (double)(hours * 3600 + minutes * 60);
            at = end;
        } else if (*at == 'Z' || *at == 'z') {
            at++;
        }
        if (!*at)
            return true;
    }
    return false;
}

static bool number_of(const char *s, double *ret)
{
    char *end;

    *ret = strtod(s, &end);
    return *s && !*end && isfinite(*ret);
}

static bool in_network(const char *network, const char *address)
{
    unsigned char net[16], addr[16];
    const char *slash = strchr(network, '/');
    char text[64], *end;
    size_t n = slash ? (size_t)(slash - network) : strlen(network);
    int family = memchr(network, ':', n) ? AF_INET6 : AF_INET;
    long most = family == AF_INET ? 32 : 128, bits = slash ? strtol(slash + 1, &end, 10) : most;

    if (n >= sizeof text || bits < 0 || bits > most || (slash && (!slash[1] || *end)))
        return false;
    memcpy(text, network, n);
    text[n] = 0;
    if (str_starts(address, "::ffff:") && strchr(address, '.'))
        address += 7;
    if (inet_pton(family, text, net) != 1 || inet_pton(family, address, addr) != 1)
        return false;
    if (memcmp(net, addr, (size_t)bits / 8) != 0)
        return false;
    return bits % 8 == 0 || (net[bits / 8] ^ addr[bits / 8]) >> (8 - bits % 8) == 0;
}

/* ---- one value of the policy against one of the request ---- */

static const char *scalar(struct arena *a, const struct val *v)
{
    return v->type == VAL_STR ? v->s : json_text(a, v, NULL);
}

static bool pattern_fits(const struct op *op, const char *want, const char *have, bool vars, const struct policy_ask *ask)
{
    unsigned how = (vars ? MATCH_VARS : 0) | (op->fold ? MATCH_FOLD : 0) | (op->type == TEXT ? 0 : MATCH_WILD);
    struct match m;

    if (!match_make(ask, want, how, &m))
        return false;
    if (op->type == ARN)
        return match_arn(&m, have);
    if (op->fold)
        have = match_lower(ask->arena, have);
    return match_text(&m, have, strlen(have));
}

static bool fits(const struct op *op, const char *want, const char *have, bool vars, const struct policy_ask *ask)
{
    double x, y;

    switch (op->type) {
    case TEXT:
    case LIKE:
    case ARN:
        return pattern_fits(op, want, have, vars, ask);
    case NUMBER:
        if (!number_of(want, &x) || !number_of(have, &y))
            return false;
        return op->order & (y == x ? SAME : y < x ? LESS : MORE);
    case DATE:
        if (!date_of(want, &x) || !date_of(have, &y))
            return false;
        return op->order & (y == x ? SAME : y < x ? LESS : MORE);
    case TRUTH:
        return strcasecmp(want, have) == 0;
    case IP:
        return in_network(want, have);
    case NONE:
        break;
    }
    return false;
}

static bool any_fits(const struct op *op, const struct val *wants, const char *have, bool vars, const struct policy_ask *ask)
{
    if (wants->type != VAL_LIST)
        return fits(op, scalar(ask->arena, wants), have, vars, ask);
    VAL_EACH(wants, it)
        if (fits(op, scalar(ask->arena, it), have, vars, ask))
            return true;
    return false;
}

static bool null_holds(const struct val *wants, bool there, struct arena *a)
{
    const struct val *v = wants->type == VAL_LIST ? (wants->n ? &wants->items[0] : NULL) : wants;

    return v && (strcasecmp(scalar(a, v), "true") == 0) == !there;
}

static bool key_holds(const struct how *how, const char *key, const struct val *wants, bool vars, const struct policy_ask *ask)
{
    const struct val *have = val_get(ask->context, match_lower(ask->arena, key));
    uint32_t n = !have ? 0 : have->type == VAL_LIST ? have->n : 1, good = 0;

    if (how->op->type == NONE)
        return null_holds(wants, n > 0, ask->arena);
    if (!n)
        return how->if_exists || how->set == ALL || (how->set == ONE && how->op->negated);
    for (uint32_t i = 0; i < n; i++) {
        const struct val *one = have->type == VAL_LIST ? &have->items[i] : have;

        good += any_fits(how->op, wants, scalar(ask->arena, one), vars, ask) != how->op->negated;
    }
    /* an operator without a set on a key with several values: one that matches is enough, one that must not
     * match is too much */
    return how->set == ALL || (how->set == ONE && how->op->negated) ? good == n : good > 0;
}

bool cond_holds(const struct val *condition, bool vars, const struct policy_ask *ask)
{
    struct how how;

    VAL_EACH_MEMBER(condition, m)
    {
        if (!how_of(m->key, &how))
            return false;
        VAL_EACH_MEMBER(&m->v, k)
            if (!key_holds(&how, k->key, &k->v, vars, ask))
                return false;
    }
    return true;
}
