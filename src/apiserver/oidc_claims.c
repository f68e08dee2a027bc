/* apiserver/oidc_claims.c - from claims to a user: claim mappings, claim rules, user rules. */
#include "apiserver/authn_int.h"

#include "apiserver/expression.h"
#include "base/base.h"

enum { EXTRAS_MAX = 64, RULES_MAX = 64 };

struct mapping {
    const struct val *conf; /* JWTAuthenticator */
    struct expression *username, *groups, *uid, *extra[EXTRAS_MAX], *claim_rules[RULES_MAX],
        *user_rules[RULES_MAX];
    uint32_t extra_n, claim_rules_n, user_rules_n;
};

/* ---------------------------------------------------------------- the file */

/* Exactly one of claim and expression; *ret is NULL for a claim. */
static int read_one(const struct val *v, const char *what, bool needed, bool prefix,
                    struct expression **ret, struct err *err)
{
    const char *claim = val_str_at(v, "claim", ""), *text = val_str_at(v, "expression", "");

    if (*claim && *text)
        return err_set(err, INVALID_ARGUMENT, "claimMappings.%s: claim and expression can not both be set", what);
    if (!*claim && !*text)
        return needed ? err_set(err, INVALID_ARGUMENT, "claimMappings.%s: claim or expression is required", what) : 0;
    if (prefix && *claim && !val_is(val_get(v, "prefix"), VAL_STR))
        return err_set(err, INVALID_ARGUMENT, "claimMappings.%s.prefix is required with a claim; it may be "
                       "empty", what);
    if (*text && val_get(v, "prefix"))
        return err_set(err, INVALID_ARGUMENT, "claimMappings.%s.prefix can not be set with an expression", what);
    if (*text && !(*ret = expression_new(EXPRESSION_CLAIMS, text, err)))
        return err_wrap(err, "claimMappings.%s.expression", what);
    return 0;
}

/* example.com/path, lower case, none of Kubernetes' own */
static bool key_fine(const char *key)
{
    const char *slash = strchr(key, '/');
    size_t n = slash ? (size_t)(slash - key) : 0;
    static const char *const own[] = {"kubernetes.io", "k8s.io"};

    if (!slash || !n || !slash[1])
        return false;
    for (const char *s = key; *s; s++)
        if ((*s >= 'A' && *s <= 'Z') || *s <= ' ')
            return false;
    for (size_t i = 0; i < ARRAY_LEN(own); i++) {
        size_t len = strlen(own[i]);

        if (n >= len && strncmp(slash - len, own[i], len) == 0 && (n == len || slash[-1 - (int)len] == '.'))
            return false;
    }
    return true;
}

static int read_extra(struct mapping *m, struct err *err)
{
    VAL_EACH(val_at(m->conf, "claimMappings.extra"), it) {
        const char *key = val_str_at(it, "key", ""), *text = val_str_at(it, "valueExpression", "");

        if (m->extra_n == EXTRAS_MAX || !key_fine(key))
            return err_set(err, INVALID_ARGUMENT, "claimMappings.extra[%u].key: \"%s\" is not a path in lower "
                           "case under a domain of one's own", m->extra_n, key);
        if (!(m->extra[m->extra_n] = expression_new(EXPRESSION_CLAIMS, text, err)))
            return err_wrap(err, "claimMappings.extra[%u].valueExpression", m->extra_n);
        m->extra_n++;
    }
    return 0;
}

static int read_rules(struct mapping *m, struct err *err)
{
    uint32_t i = 0;

    VAL_EACH(val_get(m->conf, "claimValidationRules"), it) {
        const char *claim = val_str_at(it, "claim", ""), *text = val_str_at(it, "expression", "");

        if (i == RULES_MAX || !*claim == !*text)
            return err_set(err, INVALID_ARGUMENT, "claimValidationRules[%u]: claim or expression is required, "
                           "not both", i);
        if (*text && !(m->claim_rules[i] = expression_new(EXPRESSION_CLAIMS, text, err)))
            return err_wrap(err, "claimValidationRules[%u].expression", i);
        m->claim_rules_n = ++i;
    }
    i = 0;
    VAL_EACH(val_get(m->conf, "userValidationRules"), it) {
        if (i == RULES_MAX || !(m->user_rules[i] = expression_new(EXPRESSION_USER, val_str_at(it, "expression", ""), err)))
            return err_wrap(err, "userValidationRules[%u].expression", i);
        m->user_rules_n = ++i;
    }
    return 0;
}

/* An address that nobody verified must not become a name by an oversight. */
static int check_email(const struct val *conf, struct err *err)
{
    const char *text = val_str_at(conf, "claimMappings.username.expression", "");
    bool verified = strstr(text, "claims.email_verified");

    for (const char *at = text; (at = strstr(at, "claims.email")); at++) {
        char next = at[strlen("claims.email")];

        if (next == '_' || (next >= 'a' && next <= 'z') || (next >= '0' && next <= '9'))
            continue;
        VAL_EACH(val_at(conf, "claimMappings.extra"), it)
            verified |= strstr(val_str_at(it, "valueExpression", ""), "claims.email_verified") != NULL;
        VAL_EACH(val_get(conf, "claimValidationRules"), it)
            verified |= strstr(val_str_at(it, "expression", ""), "claims.email_verified") != NULL;
        return verified ? 0 : err_set(err, INVALID_ARGUMENT, "claimMappings.username.expression: claims.email_verified "
                                      "must be used somewhere when claims.email is used");
    }
    return 0;
}

struct mapping *mapping_new(const struct val *conf, struct err *err)
{
    struct mapping *m = xcalloc(1, sizeof(*m));
    const struct val *maps = val_get(conf, "claimMappings");

    m->conf = conf;
    if (read_one(val_get(maps, "username"), "username", true, true, &m->username, err) == 0 &&
        read_one(val_get(maps, "groups"), "groups", false, true, &m->groups, err) == 0 &&
        read_one(val_get(maps, "uid"), "uid", false, false, &m->uid, err) == 0 &&
        read_extra(m, err) == 0 && read_rules(m, err) == 0 && check_email(conf, err) == 0)
        return m;
    return mapping_free(m);
}

void *mapping_free(struct mapping *m)
{
    if (!m)
        return NULL;
    expression_free(m->username);
    expression_free(m->groups);
    expression_free(m->uid);
    for (uint32_t i = 0; i < EXTRAS_MAX; i++)
        expression_free(m->extra[i]);
    for (uint32_t i = 0; i < RULES_MAX; i++) {
        expression_free(m->claim_rules[i]);
        expression_free(m->user_rules[i]);
    }
    free(m);
    return NULL;
}

/* ---------------------------------------------------------------- a token */

#define refuse(err, ...) err_set(err, UNAUTHENTICATED, "oidc: " __VA_ARGS__)

/* A text or a list of texts, "" left out, as a list; false: it is neither. */
static bool texts_of(const struct val *v, struct arena *a, struct val *ret, bool keep_empty)
{
    if (val_is_null(v))
        return true;
    if (val_is(v, VAL_STR)) {
        if (*v->s || keep_empty)
            val_push_str(a, ret, v->s);
        return true;
    }
    if (!val_is(v, VAL_LIST))
        return false;
    VAL_EACH(v, it) {
        if (!val_is(it, VAL_STR))
            return false;
        if (*it->s || keep_empty)
            val_push_str(a, ret, it->s);
    }
    return true;
}

static int get_name(const struct mapping *m, const struct val *claims, struct arena *a, const char **ret,
                    struct err *err)
{
    const char *claim = val_str_at(m->conf, "claimMappings.username.claim", "");
    const struct val *v, *verified = val_get(claims, "email_verified");

    if (m->username) {
        if (expression_run(m->username, claims, a, &v, err) < 0)
            return err_wrap(err, "oidc: error evaluating username claim expression");
        if (!*val_text(v, ""))
            return refuse(err, "the username claim expression must return a string that is not empty");
        *ret = v->s;
        return 0;
    }
    v = val_get(claims, claim);
    if (!val_is(v, VAL_STR))
        return refuse(err, "parse username claims \"%s\": claim not present or no text", claim);
    if (streq(claim, "email") && verified && !(val_is(verified, VAL_BOOL) && verified->b))
        return refuse(err, "email not verified");
    *ret = arena_printf(a, "%s%s", val_str_at(m->conf, "claimMappings.username.prefix", ""), v->s);
    return 0;
}

static int get_groups(const struct mapping *m, const struct val *claims, struct arena *a, struct val *ret,
                      struct err *err)
{
    const char *claim = val_str_at(m->conf, "claimMappings.groups.claim", "");
    const char *prefix = val_str_at(m->conf, "claimMappings.groups.prefix", "");
    const struct val *v = NULL;
    struct val *plain = val_list(a);

    if (m->groups) {
        if (expression_run(m->groups, claims, a, &v, err) < 0)
            return err_wrap(err, "oidc: error evaluating group claim expression");
        return texts_of(v, a, ret, false) ? 0 : refuse(err, "group claim expression must return a string or a "
                                                       "list of strings");
    }
    if (!*claim || !(v = val_get(claims, claim)))
        return 0;
    if (!texts_of(v, a, plain, true))
        return refuse(err, "parse groups claim \"%s\"", claim);
    VAL_EACH(plain, g)
        val_push(a, ret, val_printf(a, "%s%s", prefix, g->s));
    return 0;
}

static int get_uid(const struct mapping *m, const struct val *claims, struct arena *a, const char **ret,
                   struct err *err)
{
    const char *claim = val_str_at(m->conf, "claimMappings.uid.claim", "");
    const struct val *v;

    *ret = "";
    if (m->uid) {
        if (expression_run(m->uid, claims, a, &v, err) < 0)
            return err_wrap(err, "oidc: error evaluating uid claim expression");
        if (!val_is(v, VAL_STR))
            return refuse(err, "uid claim expression must return a string");
        *ret = v->s;
        return 0;
    }
    if (!*claim)
        return 0;
    v = val_get(claims, claim);
    if (!val_is(v, VAL_STR))
        return refuse(err, "parse uid claim \"%s\": claim not present or no text", claim);
    *ret = v->s;
    return 0;
}

static int get_extra(const struct mapping *m, const struct val *claims, struct arena *a, struct val *ret,
                     struct err *err)
{
    const char *jti = val_text(val_get(claims, "jti"), "");
    const struct val *all = val_at(m->conf, "claimMappings.extra"), *v;

    if (*jti)
        val_push(a, val_need_list(a, ret, "authentication.kubernetes.io/credential-id"),
                 val_printf(a, "JTI=%s", jti));
    for (uint32_t i = 0; i < m->extra_n; i++) {
        struct val *list = val_list(a);

        if (expression_run(m->extra[i], claims, a, &v, err) < 0)
            return err_wrap(err, "oidc: error evaluating extra claim expression");
        if (!texts_of(v, a, list, false))
            return refuse(err, "extra claim expression must return a string or a list of strings");
        if (val_len(list))
            val_put(a, ret, val_str_at(&all->items[i], "key", ""), list);
    }
    return 0;
}

static int rule_holds(const struct expression *x, const struct val *rule, const struct val *about,
                      struct arena *a, struct err *err)
{
    const struct val *v;

    if (expression_run(x, about, a, &v, err) < 0)
        return err_wrap(err, "oidc: error evaluating a validation rule");
    if (val_is(v, VAL_BOOL) && v->b)
        return 0;
    return err_set(err, UNAUTHENTICATED, "oidc: validation expression '%.200s' failed: %.200s",
                   val_str_at(rule, "expression", ""), val_str_at(rule, "message", ""));
}

static int check_claims(const struct mapping *m, const struct val *claims, struct arena *a, struct err *err)
{
    const struct val *rules = val_get(m->conf, "claimValidationRules");

    for (uint32_t i = 0; i < m->claim_rules_n; i++) {
        const struct val *rule = &rules->items[i], *v;
        const char *claim = val_str_at(rule, "claim", "");

        if (m->claim_rules[i]) {
            if (rule_holds(m->claim_rules[i], rule, claims, a, err) < 0)
                return -1;
            continue;
        }
        v = val_get(claims, claim);
        if (!v)
            return refuse(err, "required claim %s not present in ID token", claim);
        if (!val_is(v, VAL_STR) || !streq(v->s, val_str_at(rule, "requiredValue", "")))
            return refuse(err, "required claim %s value does not match", claim);
    }
    return 0;
}

static int check_user(const struct mapping *m, const struct auth_user *u, const struct val *groups,
                      struct arena *a, struct err *err)
{
    const struct val *rules = val_get(m->conf, "userValidationRules");
    struct val *user = val_map(a);

    val_put_str(a, user, "username", u->name);
    val_put_str(a, user, "uid", u->uid);
    val_put(a, user, "groups", groups);
    val_put(a, user, "extra", u->extra ? u->extra : val_map(a));
    for (uint32_t i = 0; i < m->user_rules_n; i++)
        if (rule_holds(m->user_rules[i], &rules->items[i], user, a, err) < 0)
            return -1;
    return 0;
}

int mapping_user(const struct mapping *m, const struct val *claims, struct arena *a, struct auth_user *ret,
                 struct err *err)
{
    struct auth_user u = {0};
    struct val *groups = val_list(a), *extra = val_map(a);
    const char **list;
    size_t n = 0;

    if (get_name(m, claims, a, &u.name, err) < 0 || get_groups(m, claims, a, groups, err) < 0 ||
        get_uid(m, claims, a, &u.uid, err) < 0 || get_extra(m, claims, a, extra, err) < 0 ||
        check_claims(m, claims, a, err) < 0)
        return -1;
    list = arena_array(a, const char *, val_len(groups) + 1);
    VAL_EACH(groups, g)
        list[n++] = g->s;
    u.groups = list;
    u.extra = val_len(extra) ? extra : NULL;
    if (check_user(m, &u, groups, a, err) < 0)
        return -1;
    *ret = u;
    return 0;
}
