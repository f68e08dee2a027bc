/* apiserver/authz.c - see authz.h. */
#include "apiserver/authz.h"

#include "apiserver/expression.h"
#include "apiserver/kubeconf.h"
#include "apiserver/outside.h"
#include "base/log.h"
#include "codec/json.h"
#include "codec/yaml.h"
#include "env/fs.h"

#include <stdio.h>

enum {
    FILE_BYTES_MAX = 1 << 20,
    STEPS_MAX = 32,
    CONDITIONS_MAX = 64,
    CACHE_MAX = 4096,
    KEEP_MS = 2000,
    TIMEOUT_MAX_MS = 30000,
    LOOK_MS = 2000, /* at the file */
};

enum step_kind { STEP_NODE, STEP_RBAC, STEP_WEBHOOK };
struct step {
    enum step_kind kind;
    const char *name;
    struct kubeconf conf;
    bool deny_on_failure, cache_yes, cache_no;
    int64_t yes_ms, no_ms, timeout_ms;
    struct expression *conditions[CONDITIONS_MAX];
    uint32_t conditions_n;
};

struct kept {
    enum authz_verdict verdict;
    int64_t until_ms;
    char reason[];
};

/* What a file says. Answers that are kept are about it, so they go with it. */
struct rules {
    struct arena *arena;
    struct step v[STEPS_MAX];
    uint32_t n;
};

struct authz {
    struct api *api;
    char *path;
    struct fs_mark seen;
    struct env_timer *look;
    struct rules *rules;
    struct map cache; /* step/spec as text -> struct kept */
};

/* ---------------------------------------------------------------- the file */

static int read_time(const struct val *w, const char *key, int64_t *ret, struct err *err)
{
    const char *text = val_str_at(w, key, "");
    int64_t ns;

    *ret = duration_parse(text, &ns) ? ns / 1000000 : 0;
    return *ret > 0 ? 0 : err_set(err, INVALID_ARGUMENT, "webhook.%s: \"%s\" is not a duration above 0", key, text);
}

static int read_conditions(struct step *st, const struct val *w, struct err *err)
{
    VAL_EACH(val_get(w, "matchConditions"), it) {
        if (st->conditions_n == CONDITIONS_MAX)
            return err_set(err, INVALID_ARGUMENT, "webhook.matchConditions: at most %d", CONDITIONS_MAX);
        if (!(st->conditions[st->conditions_n] = expression_new(EXPRESSION_REVIEW, val_str_at(it, "expression", ""), err)))
            return err_wrap(err, "webhook.matchConditions[%u].expression", st->conditions_n);
        st->conditions_n++;
    }
    return 0;
}

static int read_webhook(struct rules *z, struct step *st, const struct val *w, struct err *err)
{
    const char *policy = val_str_at(w, "failurePolicy", "");
    const char *file = val_str_at(w, "connectionInfo.kubeConfigFile", "");

    if (read_time(w, "timeout", &st->timeout_ms, err) < 0 || read_time(w, "authorizedTTL", &st->yes_ms, err) < 0 ||
        read_time(w, "unauthorizedTTL", &st->no_ms, err) < 0)
        return -1;
    if (st->timeout_ms > TIMEOUT_MAX_MS)
        return err_set(err, INVALID_ARGUMENT, "webhook.timeout must be at most 30s");
    if (!streq(val_str_at(w, "subjectAccessReviewVersion", ""), "v1") ||
        (val_len(val_get(w, "matchConditions")) &&
         !streq(val_str_at(w, "matchConditionSubjectAccessReviewVersion", ""), "v1")))
        return err_set(err, INVALID_ARGUMENT, "webhook: SubjectAccessReviews are spoken in version v1");
    if (!streq(policy, "NoOpinion") && !streq(policy, "Deny"))
        return err_set(err, INVALID_ARGUMENT, "webhook.failurePolicy must be NoOpinion or Deny");
    if (!streq(val_str_at(w, "connectionInfo.type", ""), "KubeConfigFile") || *file != '/')
        return err_set(err, INVALID_ARGUMENT, "webhook.connectionInfo: type must be KubeConfigFile, and "
                       "kubeConfigFile an absolute path");
    st->deny_on_failure = streq(policy, "Deny");
    st->cache_yes = val_bool_at(w, "cacheAuthorizedRequests", true);
    st->cache_no = val_bool_at(w, "cacheUnauthorizedRequests", true);
    if (kubeconf_read(file, z->arena, &st->conf, err) < 0)
        return -1;
    return read_conditions(st, w, err);
}

static int read_step(struct rules *z, struct step *st, const struct val *v, struct err *err)
{
    const char *type = val_str_at(v, "type", "");

    st->name = val_str_at(v, "name", "");
    st->kind = streq(type, "Webhook") ? STEP_WEBHOOK : streq(type, "Node") ? STEP_NODE : STEP_RBAC;
    if (st->kind == STEP_RBAC && !streq(type, "RBAC"))
        return err_set(err, INVALID_ARGUMENT, "type: \"%s\" is not one of Node, RBAC, Webhook", type);
    if (name_dns_subdomain(st->name))
        return err_set(err, INVALID_ARGUMENT, "name: \"%s\" is not a DNS subdomain", st->name);
    for (uint32_t i = 0; i < z->n; i++)
        if (streq(z->v[i].name, st->name) || (st->kind != STEP_WEBHOOK && z->v[i].kind == st->kind))
            return err_set(err, INVALID_ARGUMENT, "\"%s\" is there already", st->name);
    return st->kind == STEP_WEBHOOK ? read_webhook(z, st, val_get(v, "webhook"), err) : 0;
}

static int read_file(struct rules *z, const char *path, struct err *err)
{
    size_t n;
    _auto_(freep) char *text = fs_read(path, FILE_BYTES_MAX, &n, err);
    struct val *v = text ? yaml_parse(z->arena, text, n, NULL, NULL, err) : NULL;
    const char *version = val_str_at(v, "apiVersion", "");

    if (!v)
        return -1;
    if (!streq(val_str_at(v, "kind", ""), "AuthorizationConfiguration") ||
        (!streq(version, "apiserver.config.k8s.io/v1") && !streq(version, "apiserver.config.k8s.io/v1beta1")))
        return err_set(err, INVALID_ARGUMENT, "it must be an AuthorizationConfiguration of apiserver.config.k8s.io/v1");
    if (!val_len(val_get(v, "authorizers")) || val_len(val_get(v, "authorizers")) > STEPS_MAX)
        return err_set(err, INVALID_ARGUMENT, "authorizers: from 1 to %d are wanted", STEPS_MAX);
    VAL_EACH(val_get(v, "authorizers"), it) {
        int r = read_step(z, &z->v[z->n], it, err);

        z->n++; /* what it has is freed with the others */
        if (r < 0)
            return err_wrap(err, "authorizers[%u]", z->n - 1);
    }
    return 0;
}

static struct rules *rules_free(struct rules *rs)
{
    if (!rs)
        return NULL;
    for (uint32_t i = 0; i < rs->n; i++)
        for (uint32_t k = 0; k < rs->v[i].conditions_n; k++)
            expression_free(rs->v[i].conditions[k]);
    arena_free(rs->arena);
    free(rs);
    return NULL;
}

static struct rules *rules_read(const char *path, struct err *err)
{
    struct rules *rs = xcalloc(1, sizeof(*rs));

    rs->arena = arena_new();
    if (read_file(rs, path, err) == 0)
        return rs;
    err_wrap(err, "authorization configuration %s", path);
    return rules_free(rs);
}

static void forget_all(struct authz *z)
{
    const char *key;
    void *kept;

    for (uint32_t i = 0; map_next(&z->cache, &i, &key, &kept);)
        free(kept);
    map_done(&z->cache);
    z->cache = (struct map){0};
}

/* What is bad is told, and what was in force stays. */
static void look(void *arg)
{
    struct authz *z = arg;
    struct err err = {0};
    struct rules *rs;

    if (!fs_changed(z->path, &z->seen))
        return;
    rs = rules_read(z->path, &err);
    metrics_reload(z->api->metrics, "authorization", rs != NULL, env_now_ms(z->api->env));
    if (!rs) {
        LOG(ERROR, "authz", "did=reload kept=old err=\"%s\"", err.msg);
        return;
    }
    rules_free(z->rules);
    z->rules = rs;
    forget_all(z);
    LOG(INFO, "authz", "did=reload authorizers=%u", rs->n);
}

struct authz *authz_new(struct api *api, const char *path, struct err *err)
{
    struct authz *z = xcalloc(1, sizeof(*z));

    z->api = api;
    z->path = xstrdup(path);
    fs_changed(path, &z->seen);
    if (!(z->rules = rules_read(path, err)))
        return authz_free(z);
    z->look = env_timer_new(api->env, look, z);
    env_timer_start(z->look, LOOK_MS, LOOK_MS);
    return z;
}

void *authz_free(struct authz *z)
{
    if (!z)
        return NULL;
    forget_all(z);
    env_timer_free(z->look);
    rules_free(z->rules);
    free(z->path);
    free(z);
    return NULL;
}

/* ---------------------------------------------------------------- what is asked */

/* "a=b,c!=d" as requirements; what is not of that form is sent as it is. */
static void put_selector(struct arena *a, struct val *ra, const char *key, const char *text)
{
    struct val *sel = val_map(a), *reqs = val_list(a);

    if (str_empty(text))
        return;
    for (const char *s = text; *s;) {
        size_t n = strcspn(s, ","), op = strcspn(s, "=!");
        bool not_ = s[op] == '!';
        size_t at = op + (not_ ? 2 : s[op + 1] == '=' ? 2 : 1);
        struct val *r = val_map(a), *values = val_list(a);

        if (op == 0 || op >= n || at > n || (not_ && s[op + 1] != '=') || strpbrk(text, "() ")) {
            val_put_str(a, sel, "rawSelector", text);
            val_put(a, ra, key, sel);
            return;
        }
        val_put(a, r, "key", val_strn(a, s, op));
        val_put_str(a, r, "operator", not_ ? "NotIn" : "In");
        val_push(a, values, val_strn(a, s + at, n - at));
        val_put(a, r, "values", values);
        val_push(a, reqs, r);
        s += n + (s[n] == ',');
    }
    val_put(a, sel, "requirements", reqs);
    val_put(a, ra, key, sel);
}

struct val *authz_spec(struct arena *a, const struct auth_user *u, const struct rbac_ask *q)
{
    struct val *spec = val_map(a), *at = val_map(a), *groups = val_list(a);

    if (q->path) {
        val_put_str(a, at, "path", q->path);
        val_put_str(a, at, "verb", q->verb);
        val_put(a, spec, "nonResourceAttributes", at);
    } else {
        const char *const members[][2] = {{"namespace", q->ns}, {"verb", q->verb}, {"group", q->group},
                                          {"version", q->version ? q->version : ""}, {"resource", q->resource},
                                          {"subresource", q->subresource}, {"name", q->name}};

        for (size_t i = 0; i < ARRAY_LEN(members); i++)
            if (*members[i][1])
                val_put_str(a, at, members[i][0], members[i][1]);
        put_selector(a, at, "fieldSelector", q->field_selector);
        put_selector(a, at, "labelSelector", q->label_selector);
        val_put(a, spec, "resourceAttributes", at);
    }
    val_put_str(a, spec, "user", u->name);
    for (const char *const *g = u->groups; g && *g; g++)
        val_push_str(a, groups, *g);
    if (val_len(groups))
        val_put(a, spec, "groups", groups);
    if (val_len(u->extra))
        val_put(a, spec, "extra", u->extra);
    if (!str_empty(u->uid))
        val_put_str(a, spec, "uid", u->uid);
    return spec;
}

/* As expressions see it: texts that are not set are "". */
static struct val *for_conditions(struct arena *a, const struct val *spec)
{
    static const char *const keys[] = {"namespace", "verb", "group", "version", "resource", "subresource", "name"};
    struct val *v = val_copy(a, spec), *ra = val_get(v, "resourceAttributes");

    for (size_t i = 0; ra && i < ARRAY_LEN(keys); i++)
        if (!val_get(ra, keys[i]))
            val_put_str(a, ra, keys[i], "");
    if (!val_get(v, "groups"))
        val_put(a, v, "groups", val_list(a));
    if (!val_get(v, "uid"))
        val_put_str(a, v, "uid", "");
    return v;
}

/* ---------------------------------------------------------------- a webhook */

static void count(struct authz *z, const char *name, const struct step *st, const char *result)
{
    char labels[320];

    snprintf(labels, sizeof(labels), "name=\"%s\"%s%s%s", st->name, *result ? ",result=\"" : "", result, *result ? "\"" : "");
    metrics_add(z->api->metrics, name, labels, 1);
}

static enum authz_verdict failed(struct authz *z, const struct step *st, const char *why)
{
    if (!st->deny_on_failure)
        count(z, "apiserver_authorization_webhook_evaluations_fail_open_total", st, "");
    LOG(WARN, "authz", "webhook=%s err=\"%s\"", st->name, why);
    return st->deny_on_failure ? AUTHZ_DENY : AUTHZ_NONE;
}

static enum authz_verdict keep(struct authz *z, const struct step *st, const char *key,
                               enum authz_verdict verdict, const char *reason)
{
    bool yes = verdict == AUTHZ_ALLOW;
    int64_t ms = yes ? (st->cache_yes ? st->yes_ms : 0) : (st->cache_no ? st->no_ms : 0);
    struct kept *k = xcalloc(1, sizeof(*k) + strlen(reason) + 1);

    k->verdict = verdict;
    k->until_ms = env_now_ms(z->api->env) + MAX(ms, (int64_t)KEEP_MS);
    memcpy(k->reason, reason, strlen(reason));
    if (z->cache.n >= CACHE_MAX)
        forget_all(z);
    free(map_put(&z->cache, key, k));
    return verdict;
}

static enum authz_verdict answer_of(struct authz *z, const struct step *st, const char *key,
                                    const struct outside_answer *answer, struct arena *a, const char **ret_reason)
{
    struct err err = {0};
    const struct val *v, *status;

    count(z, "apiserver_authorization_webhook_evaluations_total", st,
          !answer->err.code                  ? answer->status == 200 || answer->status == 201 ? "success" : "error"
          : answer->err.code == ERR_TIMEOUT ? "timeout"
                                             : "error");
    if (answer->err.code)
        return failed(z, st, answer->err.msg);
    if (answer->status != 200 && answer->status != 201)
        return failed(z, st, "the answer is not 200");
    if (!(v = json_parse(a, answer->body, answer->n, &err)))
        return failed(z, st, err.msg);
    status = val_get(v, "status");
    *ret_reason = val_str_at(status, "reason", "");
    if (val_bool_at(status, "allowed", false) && val_bool_at(status, "denied", false))
        return failed(z, st, "allowed and denied at once");
    return keep(z, st, key, val_bool_at(status, "allowed", false)  ? AUTHZ_ALLOW
                            : val_bool_at(status, "denied", false) ? AUTHZ_DENY
                                                                   : AUTHZ_NONE, *ret_reason);
}

/* 1: the webhook is meant, 0: it is not, -1: a condition fails. */
static int meant(const struct step *st, const struct val *spec, struct arena *a, struct err *err)
{
    const struct val *about = st->conditions_n ? for_conditions(a, spec) : NULL, *v;
    int r = 1;

    for (uint32_t i = 0; i < st->conditions_n; i++) {
        if (expression_run(st->conditions[i], about, a, &v, err) < 0)
            r = -1;
        else if (!val_is(v, VAL_BOOL) || !v->b)
            return 0;
    }
    return r;
}

static enum authz_verdict ask_webhook(struct authz *z, const struct step *st, struct call *c,
                                      const struct val *spec, struct arena *a, const char **ret_reason)
{
    const struct outside_answer *answer;
    struct place place = {.url = st->conf.server, .server_name = st->conf.server_name, .ca_pem = st->conf.ca_pem,
                          .cert_pem = st->conf.cert_pem, .key_pem = st->conf.key_pem, .token = st->conf.token, .insecure = st->conf.insecure};
    struct val *review = val_map(a);
    struct err err = {0};
    struct kept *k;
    size_t n, spec_n;
    char *text, *spec_text = json_text(a, spec, &spec_n), *key = arena_printf(a, "%s/%s", st->name, spec_text);
    const char *id;
    int m = meant(st, spec, a, &err);

    if (m < 0)
        count(z, "apiserver_authorization_match_condition_evaluation_errors_total", st, "");
    if (m == 0)
        count(z, "apiserver_authorization_match_condition_exclusions_total", st, "");
    if (m <= 0)
        return m < 0 ? failed(z, st, err.msg) : AUTHZ_NONE;
    if ((k = map_get(&z->cache, key)) && k->until_ms > env_now_ms(z->api->env)) {
        *ret_reason = arena_strdup(a, k->reason);
        return k->verdict;
    }
    if (!c || !c->done)
        return failed(z, st, "there is no answer yet");
    id = outside_id(c, arena_printf(a, "authz/%s", st->name), spec_text, spec_n);
    if ((answer = outside_known(c, id)))
        return answer_of(z, st, key, answer, a, ret_reason);
    val_put_str(a, review, "apiVersion", "authorization.k8s.io/v1");
    val_put_str(a, review, "kind", "SubjectAccessReview");
    val_put(a, review, "metadata", val_map(a));
    val_put(a, review, "spec", spec);
    text = json_text(a, review, &n);
    outside_post(c, id, &place, st->conf.path, text, n, (uint32_t)st->timeout_ms);
    return AUTHZ_WAIT;
}

enum authz_verdict authz_decide(struct authz *z, struct call *c, const struct auth_user *u,
                                const struct rbac_ask *ask, struct arena *a, const char **ret_reason)
{
    struct val *spec = NULL;

    *ret_reason = "";
    for (uint32_t i = 0; i < z->rules->n; i++) {
        const struct step *st = &z->rules->v[i];
        enum authz_verdict v = AUTHZ_NONE;

        if (st->kind == STEP_NODE) {
            v = node_allows(z->api, u, ask) ? AUTHZ_ALLOW : AUTHZ_NONE;
        } else if (st->kind == STEP_RBAC) {
            v = rbac_decides(&z->api->rbac, u, ask, a, ret_reason) ? AUTHZ_ALLOW : AUTHZ_NONE;
        } else {
            if (!spec)
                spec = authz_spec(a, u, ask);
            v = ask_webhook(z, st, c, spec, a, ret_reason);
        }
        if (v != AUTHZ_NONE)
            return v;
    }
    return AUTHZ_NONE;
}
