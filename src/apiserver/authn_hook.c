/* apiserver/authn_hook.c - tokens that a webhook knows (TokenReview), asked last.
 *
 * The call that needs the answer waits for it (apiserver/outside.h) and runs again with it. What the webhook
 * said, yes or no, is kept for as long as the options say, under a hash of the token: no token is kept.
 * An answer that could not be had is never kept. Bound: CACHE_MAX answers, then all are forgotten. */
#include "apiserver/authn_int.h"

#include "apiserver/api_int.h"
#include "apiserver/kubeconf.h"
#include "apiserver/outside.h"
#include "base/log.h"
#include "codec/json.h"

#include <openssl/sha.h>

enum { CACHE_MAX = 4096, TIMEOUT_MS = 30000 };

struct kept {
    int64_t until_ms;
    size_t n;
    char status[]; /* of the TokenReview, as JSON */
};

struct token_hook {
    struct api *api;
    struct arena *arena;
    struct kubeconf conf;
    const char *version;
    int64_t keep_ms;
    struct map cache; /* hash of what was asked -> struct kept */
};

static void forget_all(struct token_hook *h)
{
    const char *key;
    void *kept;

    for (uint32_t i = 0; map_next(&h->cache, &i, &key, &kept);)
        free(kept);
    map_done(&h->cache);
    h->cache = (struct map){0};
}

struct token_hook *token_hook_new(struct api *api, const struct authn_opts *o, struct err *err)
{
    struct token_hook *h = xcalloc(1, sizeof(*h));

    h->api = api;
    h->arena = arena_new();
    h->version = arena_strdup(h->arena, str_empty(o->hook_version) ? "v1beta1" : o->hook_version);
    h->keep_ms = o->hook_keep_ms;
    if (!streq(h->version, "v1") && !streq(h->version, "v1beta1"))
        err_set(err, INVALID_ARGUMENT, "token webhook: version \"%s\" is neither v1 nor v1beta1", h->version);
    else if (kubeconf_read(o->hook_path, h->arena, &h->conf, err) == 0)
        return h;
    return token_hook_free(h);
}

void *token_hook_free(struct token_hook *h)
{
    if (!h)
        return NULL;
    forget_all(h);
    arena_free(h->arena);
    free(h);
    return NULL;
}

static enum authn_result no(struct err *err, const char *why)
{
    err_set(err, UNAUTHENTICATED, "%s", why);
    return AUTHN_NO;
}

/* Those of wanted that are among got. */
static const struct val *common(struct arena *a, const struct val *wanted, const struct val *got)
{
    struct val *both = val_list(a);

    VAL_EACH(wanted, w)
        VAL_EACH(got, g)
            if (streq(val_text(w, ""), val_text(g, "\1"))) {
                val_push_str(a, both, val_text(w, ""));
                break;
            }
    return both;
}

static enum authn_result take(const struct val *status, const struct val *wanted, struct arena *a,
                              struct authn_answer *ret, struct err *err)
{
    const struct val *user = val_get(status, "user"), *got = val_get(status, "audiences"), *groups = val_get(user, "groups");
    const char *why = val_str_at(status, "error", ""), **names;
    struct val *own = val_list(a);
    uint32_t n = 0;

    if (!val_bool_at(status, "authenticated", false))
        return no(err, *why ? why : "invalid bearer token");
    val_push_str(a, own, TOKEN_ISSUER); /* a webhook that knows nothing of audiences speaks for the API itself */
    ret->audiences = common(a, wanted, val_len(got) ? got : own);
    if (!val_len(ret->audiences))
        return no(err, "invalid bearer token");
    names = arena_array(a, const char *, val_len(groups) + 2);
    VAL_EACH(groups, g)
        names[n++] = val_text(g, "");
    names[n] = GROUP_AUTHENTICATED;
    ret->user = (struct auth_user){.name = val_str_at(user, "username", ""), .uid = val_str_at(user, "uid", ""),
                                   .groups = names, .extra = val_len(val_get(user, "extra")) ? val_get(user, "extra") : NULL};
    return AUTHN_OK;
}

static void keep(struct token_hook *h, const char *key, const struct val *status)
{
    struct buf b = {0};
    struct kept *k;

    if (h->keep_ms <= 0)
        return;
    json_write(&b, status);
    k = xcalloc(1, sizeof(*k) + b.n + 1);
    k->until_ms = env_now_ms(h->api->env) + h->keep_ms;
    k->n = b.n;
    memcpy(k->status, b.p, b.n);
    buf_done(&b);
    if (h->cache.n >= CACHE_MAX)
        forget_all(h);
    free(map_put(&h->cache, key, k));
}

static enum authn_result answered(struct token_hook *h, const char *key, const struct outside_answer *answer,
                                  const struct val *wanted, struct arena *a, struct authn_answer *ret, struct err *err)
{
    const char *trouble = outside_trouble(a, answer);
    struct err bad = {0};
    const struct val *v = trouble ? NULL : json_parse(a, answer->body, answer->n, &bad), *status;

    if (!trouble && !v)
        trouble = bad.msg;
    if (!trouble && (!streq(val_str_at(v, "kind", ""), "TokenReview") || !val_is(status = val_get(v, "status"), VAL_MAP)))
        trouble = "the answer is no TokenReview with a status";
    if (trouble) {
        LOG(WARN, "authn", "webhook=%s err=\"%s\"", h->conf.server, trouble);
        return no(err, trouble);
    }
    keep(h, key, status);
    return take(status, wanted, a, ret, err);
}

/* What is asked, as text, and its hash. */
static char *question(struct token_hook *h, const struct authn_ask *q, const struct val *wanted, size_t *ret_n, char key[65])
{
    struct val *review = val_map(q->arena), *spec = val_map(q->arena);
    unsigned char sum[SHA256_DIGEST_LENGTH];
    char *text;

    val_put_str(q->arena, review, "apiVersion", arena_printf(q->arena, "authentication.k8s.io/%s", h->version));
    val_put_str(q->arena, review, "kind", "TokenReview");
    val_put(q->arena, review, "metadata", val_map(q->arena));
    val_put_str(q->arena, spec, "token", q->token);
    val_put(q->arena, spec, "audiences", val_copy(q->arena, wanted));
    val_put(q->arena, review, "spec", spec);
    text = json_text(q->arena, review, ret_n);
    SHA256((const unsigned char *)text, *ret_n, sum);
    for (size_t i = 0; i < sizeof(sum); i++) {
        key[2 * i] = "0123456789abcdef"[sum[i] >> 4];
        key[2 * i + 1] = "0123456789abcdef"[sum[i] & 15];
    }
    key[64] = 0;
    return text;
}

enum authn_result token_hook_ask(struct token_hook *h, const struct authn_ask *q, struct authn_answer *ret, struct err *err)
{
    struct place place = {.url = h->conf.server, .server_name = h->conf.server_name, .ca_pem = h->conf.ca_pem,
                          .cert_pem = h->conf.cert_pem, .key_pem = h->conf.key_pem, .token = h->conf.token,
                          .insecure = h->conf.insecure};
    const struct outside_answer *answer;
    struct val *own = val_list(q->arena);
    const struct val *wanted = val_len(q->audiences) ? q->audiences : own, *status;
    struct kept *k;
    const char *id;
    char key[65], *text;
    size_t n;

    val_push_str(q->arena, own, TOKEN_ISSUER);
    text = question(h, q, wanted, &n, key);
    if ((k = map_get(&h->cache, key)) && k->until_ms > env_now_ms(h->api->env) &&
        (status = json_parse(q->arena, k->status, k->n, err)))
        return take(status, wanted, q->arena, ret, err);
    if (!q->call)
        return no(err, "the token webhook can not be asked here");
    id = outside_id(q->call, "authn", text, n);
    if ((answer = outside_known(q->call, id)))
        return answered(h, key, answer, wanted, q->arena, ret, err);
    outside_post(q->call, id, &place, h->conf.path, text, n, TIMEOUT_MS);
    return AUTHN_WAIT;
}
