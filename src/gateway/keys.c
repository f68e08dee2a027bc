#include "gateway/keys.h"

#include "auth/sigv4.h"
#include "base/log.h"
#include "client/client.h"
#include "door/aws/identity.h"
#include "function/function.h"

#include <stdio.h>
#include <time.h>

static const char FUNCTIONS_KEY[] = "access-key-functions";
enum { SESSION_S = 12 * 3600 };

struct keys {
    struct client *client;
    struct functions *functions;
    struct identity *identity;
    struct mirror *mirror;
    struct client_op *making;
};

static void on_secret(void *arg, const struct obj *o)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct keys *k = arg;

    if (streq(o->name, FUNCTIONS_KEY))
        functions_set_key(k->functions, identity_secret_text(a, o, "accessKeyId"), identity_secret_text(a, o, "secretAccessKey"));
}

static void on_changed(void *arg, const struct obj *was, const struct obj *o)
{
    on_secret(arg, o);
}

static void on_made(void *arg, const struct client_result *r)
{
    struct keys *k = arg;

    k->making = NULL;
    if (r->err && r->err->code != ERR_ALREADY_EXISTS && r->err->code != ERR_CANCELLED)
        LOG(WARN, "gateway", "did=make-key error=\"%s\"", r->err->msg);
}

static void on_synced(void *arg)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct keys *k = arg;
    const char *id, *secret;

    if (mirror_get(k->mirror, "kube-system", FUNCTIONS_KEY))
        return;
    k->making = client_call(k->client, &(struct client_call){.verb = CLIENT_CREATE, .resource = "v1/secrets",
                                                             .ns = "kube-system",
                                                             .body = identity_new_key(a, FUNCTIONS_KEY, &id, &secret)}, on_made, k);
}

/* A session of the function's role, named as the function; it is replaced when half of it is over. */
static bool keys_of(void *arg, struct arena *a, const char *role, const char *function, struct function_keys *ret)
{
    static const struct policy_who LAMBDA = {.service = "lambda.amazonaws.com"};
    struct keys *k = arg;
    struct session_opts o = {.name = function, .now_s = (int64_t)time(NULL), .seconds = SESSION_S};
    struct session_keys s;
    const struct obj *obj;
    struct val *context = val_map(a);

    *ret = (struct function_keys){0};
    if (!identity_ready(k->identity))
        return true; /* none for now: not those of the account, which may be more */
    obj = identity_role(k->identity, role);
    if (!obj)
        return false;
    val_put_str(a, context, "aws:sourceaccount", identity_account(k->identity));
    val_put(a, context, "aws:sourcearn", val_printf(a, "arn:aws:lambda:%s:%s:function:%s", identity_region(k->identity),
                                                    identity_account(k->identity), function));
    if (identity_trusts(k->identity, a, obj, &LAMBDA, "sts:AssumeRole", context) != POLICY_ALLOWED) {
        LOG(WARN, "gateway", "function=%s role=%s error=\"the role cannot be assumed by Lambda: no keys\"", function, role);
        return true;
    }
    identity_session(k->identity, a, obj, NULL, &o, &s);
    *ret = (struct function_keys){s.key_id, s.secret, s.token, SESSION_S};
    return true;
}

struct keys *keys_new(struct client *client, struct functions *functions, struct identity *identity)
{
    struct keys *k = xcalloc(1, sizeof *k);

    k->client = client;
    k->functions = functions;
    k->identity = identity;
    if (identity)
        functions_set_keys_of(functions, keys_of, k);
    k->mirror = client_mirror(client, &(struct mirror_args){
        .resource = "v1/secrets", .ns = "kube-system", .field_selector = "type=tandem.dev/access-key",
        .added = on_secret, .changed = on_changed, .synced = on_synced, .arg = k});
    return k;
}

void *keys_free(struct keys *k)
{
    if (!k)
        return NULL;
    if (k->making)
        client_cancel(k->making);
    mirror_free(k->mirror);
    free(k);
    return NULL;
}

int keys_check(const struct keys *k, struct http_req *req, const void *body, unsigned long n, struct caller *ret, struct err *err)
{
    const char *said = http_get(req, "x-amz-content-sha256"), *token = http_get(req, "x-amz-security-token");
    char hash[SIGV4_HEX_BYTES];
    struct sigv4 s;

    if (sigv4_find(req, &s, err) < 0)
        return -1;
    if (s.kind != SIGV4_HEADER && s.kind != SIGV4_QUERY)
        return err_set(err, FORBIDDEN, "Forbidden");
    sigv4_sha256_hex(body, n, hash);
    if (said && !streq(said, "UNSIGNED-PAYLOAD") && !streq(said, hash))
        return err_set(err, FORBIDDEN, "the body is not the one that was signed");
    if (!k || !k->identity)
        return err_set(err, UNAVAILABLE, "the access keys are not known yet");
    token = token ? token : http_param(req, "X-Amz-Security-Token");
    if (identity_find(k->identity, req->arena, s.key_id, token, NULL, (int64_t)time(NULL), ret, err) < 0)
        return -1;
    return sigv4_check(req, &s, ret->secret, said ? said : hash, NULL, (int64_t)time(NULL), err);
}
