/* door/aws/sts.c - STS: who one is, and keys of sessions. Nothing about a session is kept: its token says all (identity.h). */
#include "door/aws/aws_int.h"

#include <ctype.h>
#include <openssl/pem.h>
#include <stdio.h>
#include <time.h>

#include "auth/jwt.h"
#include "auth/token.h"
#include "codec/kubetime.h"
#include "door/aws/identity_int.h"
#include "env/fs.h"

enum { POLICY_ARNS_MAX = 10, TAGS_MAX = 50, SESSION_POLICY_MAX = 2048, CHAINED_MAX_S = 3600, WEB_TOKEN_MAX = 20000 };
#define OIDC_HOST "kubernetes.default.svc.cluster.local" /* of TOKEN_ISSUER */
#define WEB_AUDIENCE "sts.amazonaws.com"

struct sts_op {
    struct aws_req *q;
    struct identity *id;
    struct arena *a;
    const char *action;
    struct session_opts session;
    struct val *context;
    const struct val *claims; /* of a web identity */
};

static int fail(struct sts_op *op, int status, const char *code, const char *message)
{
    query_error(op->q, status, code, message);
    return -1;
}

/* A number parameter within bounds. */
static int number(struct sts_op *op, const char *name, int64_t least, int64_t most, int64_t otherwise, int64_t *ret)
{
    const char *s = query_param(op->q, name);
    char *end;

    *ret = s ? strtoll(s, &end, 10) : otherwise;
    if (s && (*end || !*s || *ret < least || *ret > most))
        return fail(op, 400, "ValidationError",
                    arena_printf(op->a, "1 validation error detected: Value '%.20s' at 'durationSeconds' failed to satisfy constraint: "
                                 "Member must have value %s than or equal to %lld", s, *end || *ret < least ? "greater" : "less",
                                 (long long)(*end || *ret < least ? least : most)));
    return 0;
}

static void credentials_xml(struct sts_op *op, struct buf *b, const struct session_keys *k)
{
    char text[KUBETIME_MAX];

    buf_adds(b, "<Credentials>");
    xml_element(b, "AccessKeyId", k->key_id);
    xml_element(b, "SecretAccessKey", k->secret);
    xml_element(b, "SessionToken", k->token);
    xml_element(b, "Expiration", kubetime_text(text, k->expires_s * 1000));
    buf_adds(b, "</Credentials>");
}

static void assumed_xml(struct sts_op *op, struct buf *b, const struct session_keys *k)
{
    buf_adds(b, "<AssumedRoleUser>");
    xml_element(b, "AssumedRoleId", k->id);
    xml_element(b, "Arn", k->arn);
    buf_adds(b, "</AssumedRoleUser>");
}

/* ---- what the session is to be ---- */

static int read_name(struct sts_op *op)
{
    const char *name = query_param(op->q, "RoleSessionName");
    bool good = name && strlen(name) >= 2 && strlen(name) <= 64;

    for (const char *p = name; good && *p; p++)
        good = isalnum((unsigned char)*p) || strchr("_+=,.@-", *p);
    if (!good)
        return fail(op, 400, "ValidationError",
                    arena_printf(op->a, "1 validation error detected: Value '%.100s' at 'roleSessionName' failed to satisfy constraint: Member "
                                 "must satisfy regular expression pattern: [\\w+=,.@-]{2,64}", name ? name : "null"));
    op->session.name = name;
    val_put_str(op->a, op->context, "sts:rolesessionname", name);
    return 0;
}

static int read_policies(struct sts_op *op)
{
    const char *text = query_param(op->q, "Policy"), *arn;
    struct err err = {0};
    size_t n = 0;

    if (text && policy_bytes(text) > SESSION_POLICY_MAX)
        return fail(op, 400, "PackedPolicyTooLarge", "the session policy has more than 2048 characters");
    if (text && !policy_read(op->a, val_lit(op->a, text), POLICY_IDENTITY, &err))
        return fail(op, 400, "MalformedPolicyDocument", arena_strdup(op->a, err.msg));
    if (text)
        op->session.policies[n++] = text;
    for (int i = 1; (arn = query_param(op->q, arena_printf(op->a, "PolicyArns.member.%d.arn", i))); i++) {
        if (i > POLICY_ARNS_MAX || n + 1 >= ARRAY_LEN(op->session.policies))
            return fail(op, 400, "ValidationError", "a session has at most 10 managed policies");
        if (!iam_managed(op->id, arn) && !iam_policy(op->id, op->a, arn))
            return fail(op, 400, "MalformedPolicyDocument", arena_printf(op->a, "Policy %.200s does not exist or is not attachable.", arn));
        op->session.policies[n++] = arn;
    }
    return 0;
}

static int read_tags(struct sts_op *op)
{
    struct val *tags = val_map(op->a), *transitive = val_list(op->a);
    const char *key, *value;

    for (int i = 1; (key = query_param(op->q, arena_printf(op->a, "Tags.member.%d.Key", i))); i++) {
        value = query_param(op->q, arena_printf(op->a, "Tags.member.%d.Value", i));
        if (i > TAGS_MAX || !*key || strlen(key) > 128 || !value || strlen(value) > 256)
            return fail(op, 400, "ValidationError", "a session has at most 50 tags, with keys of 1 to 128 and values of at most 256 characters");
        val_put_str(op->a, tags, key, value);
    }
    for (int i = 1; i <= TAGS_MAX && (key = query_param(op->q, arena_printf(op->a, "TransitiveTagKeys.member.%d", i))); i++)
        val_push_str(op->a, transitive, key);
    aws_context_tags(op->q, op->context, "aws:requesttag", tags);
    if (transitive->n)
        val_put(op->a, op->context, "sts:transitivetagkeys", transitive);
    op->session.tags = tags;
    op->session.transitive = transitive;
    return 0;
}

static int read_session(struct sts_op *op)
{
    const char *external = query_param(op->q, "ExternalId"), *source = query_param(op->q, "SourceIdentity");

    if (external)
        val_put_str(op->a, op->context, "sts:externalid", external);
    if (source)
        val_put_str(op->a, op->context, "sts:sourceidentity", source);
    op->session.now_s = (int64_t)time(NULL);
    if (number(op, "DurationSeconds", 900, 43200, 3600, &op->session.seconds) < 0)
        return -1;
    return read_name(op) < 0 || read_policies(op) < 0 || read_tags(op) < 0 ? -1 : 0;
}

static int check_duration(struct sts_op *op, const struct obj *role)
{
    int64_t most = val_int_at(obj_val(role), "spec.maxSessionSeconds", 3600);

    if (op->q->caller.kind == CALLER_ROLE && op->q->caller.arn && op->session.seconds > CHAINED_MAX_S)
        return fail(op, 400, "ValidationError",
                    "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining");
    if (op->session.seconds > most)
        return fail(op, 400, "ValidationError", "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.");
    return 0;
}

static const char *need_role_arn(struct sts_op *op)
{
    const char *arn = query_param(op->q, "RoleArn");

    if (!arn || strlen(arn) < 20 || strlen(arn) > 2048 || !str_starts(arn, "arn:")) {
        fail(op, 400, "ValidationError", arena_printf(op->a, "1 validation error detected: Value '%.200s' at 'roleArn' failed to satisfy "
                                                      "constraint: Member must have length greater than or equal to 20", arn ? arn : "null"));
        return NULL;
    }
    return arn;
}

/* ---- AssumeRole ---- */

static const struct val *trust_of(struct sts_op *op, const struct obj *role)
{
    const struct val *v = val_at(obj_val(role), "spec.trust");
    struct err err;

    return v ? policy_read(op->a, v->type == VAL_STR ? v : val_copy(op->a, v), POLICY_TRUST, &err) : NULL;
}

static void assume_role(struct sts_op *op)
{
    static const char *const ACTIONS[] = {"sts:AssumeRole", "sts:TagSession", "sts:SetSourceIdentity"};
    const char *arn = need_role_arn(op);
    bool wanted[3] = {true, false, query_param(op->q, "SourceIdentity") != NULL};
    const struct obj *role;
    const struct val *trust;
    _auto_(buf_done) struct buf b = {0};
    struct session_keys keys;
    char *message;

    if (!arn || read_session(op) < 0)
        return;
    wanted[1] = val_len(op->session.tags) > 0;
    role = identity_role(op->id, arn);
    trust = role ? trust_of(op, role) : NULL;
    if (role)
        aws_context_tags(op->q, op->context, "iam:resourcetag", val_at(obj_val(role), "spec.tags"));
    if (!trust) { /* whether it exists is told to nobody */
        aws_refuse(op->q, arena_printf(op->a, "User: %s is not authorized to perform: sts:AssumeRole on resource: %s", op->q->caller.arn, arn));
        return;
    }
    for (size_t i = 0; i < ARRAY_LEN(ACTIONS); i++) {
        message = wanted[i] ? aws_denied(op->q, ACTIONS[i], arn, op->context, trust, POLICY_TRUST) : NULL;
        if (message) {
            aws_refuse(op->q, message);
            return;
        }
    }
    if (check_duration(op, role) < 0)
        return;
    identity_session(op->id, op->a, role, NULL, &op->session, &keys);
    query_begin(op->q, &b, op->action);
    assumed_xml(op, &b, &keys);
    credentials_xml(op, &b, &keys);
    if (op->session.policies[0])
        buf_printf(&b, "<PackedPolicySize>%zu</PackedPolicySize>", 1 + strlen(op->session.policies[0]) * 100 / (2 * SESSION_POLICY_MAX));
    query_end(op->q, &b, op->action);
}

/* ---- AssumeRoleWithWebIdentity: service accounts of our own cluster ---- */

/* The keys that sign tokens, as they lie beside the API server. */
static bool signed_by_us(struct sts_op *op, const struct jwt *t)
{
    struct err err;
    size_t n;
    _auto_(freep) char *path = xasprintf("%s/pki/sa.pub", op->q->d->state), *text = fs_read(path, 1 << 16, &n, &err);
    BIO *bio = text ? BIO_new_mem_buf(text, (int)n) : NULL;
    EVP_PKEY *key = bio ? PEM_read_bio_PUBKEY(bio, NULL, NULL, NULL) : NULL;
    bool good = key && jwt_signed_by(t, key);

    EVP_PKEY_free(key);
    BIO_free(bio);
    return good;
}

static bool has_audience(const struct val *aud)
{
    if (val_is(aud, VAL_STR))
        return streq(aud->s, WEB_AUDIENCE);
    VAL_EACH(aud, it)
        if (streq(val_text(it, ""), WEB_AUDIENCE))
            return true;
    return false;
}

static int read_web_token(struct sts_op *op)
{
    const char *text = query_param(op->q, "WebIdentityToken");
    struct jwt t;
    struct err err = {0};
    int64_t now = (int64_t)time(NULL);

    if (!text || strlen(text) > WEB_TOKEN_MAX)
        return fail(op, 400, "ValidationError", "1 validation error detected: Value at 'webIdentityToken' failed to satisfy constraint: "
                    "Member must have length between 4 and 20000");
    if (jwt_parse(text, op->a, &t, &err) < 0)
        return fail(op, 400, "InvalidIdentityToken", "The ID Token provided is not a valid JWT. (You may see this error if you sent an Access Token)");
    if (!streq(val_str_at(t.claims, "iss", ""), TOKEN_ISSUER))
        return fail(op, 400, "InvalidIdentityToken", arena_printf(op->a, "No OpenIDConnect provider found in your account for %.200s",
                                                                  val_str_at(t.claims, "iss", "")));
    if (!signed_by_us(op, &t))
        return fail(op, 400, "InvalidIdentityToken", "Couldn't verify the signature of the token with the keys of the cluster");
    if (!has_audience(val_get(t.claims, "aud")))
        return fail(op, 400, "InvalidIdentityToken", "Incorrect token audience");
    if (val_int_at(t.claims, "exp", 0) <= now)
        return fail(op, 400, "ExpiredTokenException", "Token expired");
    if (val_int_at(t.claims, "nbf", 0) > now + 60)
        return fail(op, 400, "InvalidIdentityToken", "Token is not valid yet");
    op->claims = t.claims;
    return 0;
}

static const struct val *kubernetes(const struct sts_op *op)
{
    return val_get(op->claims, "kubernetes.io");
}

/* The account is still there: the same one. */
static void on_account(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct sts_op *op = arg;
    struct policy_who who = {.account = NULL, .federated = arena_printf(op->a, "arn:aws:iam::%s:oidc-provider/" OIDC_HOST, op->id->account)};
    const char *arn = query_param(q, "RoleArn"), *sub = val_str_at(op->claims, "sub", "");
    const struct obj *role;
    _auto_(buf_done) struct buf b = {0};
    struct session_keys keys;

    if (r->err && r->err->code != ERR_NOT_FOUND) {
        fail(op, 503, "IDPCommunicationError", "the API server cannot be asked for the service account");
        return;
    }
    if (r->err || !r->obj || !streq(r->obj->uid, val_str_at(val_get(kubernetes(op), "serviceaccount"), "uid", "-"))) {
        fail(op, 400, "InvalidIdentityToken", "the service account of the token is gone");
        return;
    }
    val_put_str(op->a, op->context, OIDC_HOST ":sub", sub);
    val_put_str(op->a, op->context, OIDC_HOST ":aud", WEB_AUDIENCE);
    role = identity_role(op->id, arn);
    if (!role || identity_trusts(op->id, op->a, role, &who, "sts:AssumeRoleWithWebIdentity", op->context) != POLICY_ALLOWED) {
        fail(op, 403, "AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity");
        return;
    }
    if (check_duration(op, role) < 0)
        return;
    identity_session(op->id, op->a, role, NULL, &op->session, &keys);
    query_begin(q, &b, op->action);
    xml_element(&b, "SubjectFromWebIdentityToken", sub);
    xml_element(&b, "Audience", WEB_AUDIENCE);
    assumed_xml(op, &b, &keys);
    credentials_xml(op, &b, &keys);
    xml_element(&b, "Provider", who.federated);
    query_end(q, &b, op->action);
}

static void assume_with_web_identity(struct sts_op *op)
{
    const char *arn = need_role_arn(op), *ns, *name;

    if (!arn || read_session(op) < 0 || read_web_token(op) < 0)
        return;
    op->session.tags = NULL; /* an account's token has none */
    ns = val_str_at(kubernetes(op), "namespace", "");
    name = val_str_at(val_get(kubernetes(op), "serviceaccount"), "name", "");
    if (!*ns || !*name) {
        fail(op, 400, "InvalidIdentityToken", "the token names no service account");
        return;
    }
    aws_call(op->q, &(struct client_call){.verb = CLIENT_GET, .resource = "v1/serviceaccounts", .ns = ns, .name = name}, on_account, op);
}

/* ---- the rest ---- */

static void caller_identity(struct sts_op *op)
{
    _auto_(buf_done) struct buf b = {0};

    query_begin(op->q, &b, op->action);
    xml_element(&b, "Arn", op->q->caller.arn);
    xml_element(&b, "UserId", op->q->caller.id);
    xml_element(&b, "Account", op->q->d->account);
    query_end(op->q, &b, op->action);
}

static void session_token(struct sts_op *op)
{
    const struct caller *c = &op->q->caller;
    int64_t most = c->kind == CALLER_ROOT ? 3600 : 129600;
    _auto_(buf_done) struct buf b = {0};
    struct session_keys keys;

    if (c->issued_s) {
        fail(op, 403, "AccessDenied", "Cannot call GetSessionToken with session credentials");
        return;
    }
    if (number(op, "DurationSeconds", 900, 129600, MIN(most, (int64_t)43200), &op->session.seconds) < 0)
        return;
    op->session.seconds = MIN(op->session.seconds, most);
    op->session.now_s = (int64_t)time(NULL);
    identity_session(op->id, op->a, NULL, c, &op->session, &keys);
    query_begin(op->q, &b, op->action);
    credentials_xml(op, &b, &keys);
    query_end(op->q, &b, op->action);
}

static void key_info(struct sts_op *op)
{
    _auto_(buf_done) struct buf b = {0};

    if (!aws_may(op->q, "sts:GetAccessKeyInfo", "*", NULL))
        return;
    query_begin(op->q, &b, op->action);
    xml_element(&b, "Account", op->q->d->account);
    query_end(op->q, &b, op->action);
}

static const struct {
    const char *name;
    void (*run)(struct sts_op *op);
    bool unsigned_; /* may come without a signature */
} ACTIONS[] = {
    {"GetCallerIdentity", caller_identity, false},
    {"AssumeRole", assume_role, false},
    {"AssumeRoleWithWebIdentity", assume_with_web_identity, true},
    {"GetSessionToken", session_token, false},
    {"GetAccessKeyInfo", key_info, false},
};

void sts_request(struct aws_req *q)
{
    const char *action = query_param(q, "Action");
    struct sts_op *op = arena_new_of(q->req->arena, struct sts_op);

    if (!action) {
        query_error(q, 400, "MissingAction", "the request has no Action");
        return;
    }
    *op = (struct sts_op){.q = q, .id = q->d->o.identity, .a = q->req->arena, .action = action};
    op->context = aws_context(q);
    for (size_t i = 0; i < ARRAY_LEN(ACTIONS); i++) {
        if (!streq(ACTIONS[i].name, action))
            continue;
        if (q->caller.arn || ACTIONS[i].unsigned_)
            ACTIONS[i].run(op);
        else
            query_error(q, 403, "MissingAuthenticationToken", "Request is missing Authentication Token");
        return;
    }
    if (!q->caller.arn)
        query_error(q, 403, "MissingAuthenticationToken", "Request is missing Authentication Token");
    else
        aws_error(q, 501, "NotImplemented", "tandem does not serve the STS action %.64s", action);
}
