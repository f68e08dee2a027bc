/* door/aws/identity.c - see identity.h. */
#include "door/aws/identity_int.h"

#include <ctype.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>

#include "auth/session.h"
#include "auth/sigv4.h"
#include "base/map.h"
#include "base/log.h"
#include "codec/json.h"
#include "codec/kubetime.h"
#include "env/env.h"
#include "env/fs.h"
#include "env/random.h"
#include "http/server.h"

extern const char iam_managed_text[];
enum { WAIT_MS = 2000, SECRET_CHARS = 40 };

static const char DENY_ALL[] =
    "{\"Version\":\"2012-10-17\",\"Statement\":{\"Effect\":\"Deny\",\"Action\":\"*\",\"Resource\":\"*\"}}";

/* ---- names ---- */

char *aws_name_hash(struct arena *a, const char *text)
{
    char hex[SIGV4_HEX_BYTES];

    sigv4_sha256_hex(text, strlen(text), hex);
    return arena_strndup(a, hex, 16);
}

const char *iam_object_name(struct arena *a, const char *name)
{
    size_t n = strlen(name);
    char *low = arena_strdup(a, name), *safe;
    bool fits = n && isalnum((unsigned char)name[0]) && isalnum((unsigned char)name[n - 1]);

    for (char *p = low; *p; p++) {
        *p = (char)tolower((unsigned char)*p);
        fits &= isalnum((unsigned char)*p) || *p == '-';
    }
    if (fits)
        return low;
    safe = arena_strdup(a, low);
    for (char *p = safe; *p; p++)
        if (!isalnum((unsigned char)*p))
            *p = '-';
    safe += strspn(safe, "-");
    return arena_printf(a, "%.46s%s%s", safe, *safe ? "-" : "x-", aws_name_hash(a, low));
}

const char *iam_name_of(const struct obj *o)
{
    const char *name = val_str_at(obj_val(o), "spec.name", "");

    return *name ? name : o->name;
}

const char *iam_arn_of(struct identity *id, struct arena *a, const struct obj *o, const char *type)
{
    return arena_printf(a, "arn:aws:iam::%s:%s%s%s", id->account, type, val_str_at(obj_val(o), "spec.path", "/"), iam_name_of(o));
}

static const char BASE32[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

const char *iam_id_of(struct arena *a, const struct obj *o, const char *prefix)
{
    const char *made = val_str_at(obj_val(o), "spec.id", "");
    unsigned char sum[32];
    char out[18] = "";

    if (*made)
        return made;
    EVP_Digest(o->uid, strlen(o->uid), sum, NULL, EVP_sha256(), NULL);
    for (size_t i = 0; i < 17; i++)
        out[i] = BASE32[sum[i] & 31];
    return arena_printf(a, "%s%s", prefix, out);
}

const char *iam_created_of(const struct obj *o)
{
    const char *made = val_str_at(obj_val(o), "spec.created", "");

    return *made ? made : val_str_at(obj_val(o), "metadata.creationTimestamp", "");
}

static void new_pair(char key[21] /* its first four are there */, char secret[SECRET_CHARS + 1])
{
    random_text(key + 4, 16, BASE32);
    random_text(secret, SECRET_CHARS, "abcdefghijkmnpqrstuvwxyzABCDEFGH");
}

struct val *identity_new_key(struct arena *a, const char *name, const char **ret_id, const char **ret_secret)
{
    struct val *v = val_map(a), *data;
    char id[21] = "AKIA", secret[SECRET_CHARS + 1], lower[21];

    new_pair(id, secret);
    for (int i = 0; i < 21; i++)
        lower[i] = (char)tolower((unsigned char)id[i]);
    val_put_str(a, v, "apiVersion", "v1");
    val_put_str(a, v, "kind", "Secret");
    val_put_str(a, v, "type", "tandem.dev/access-key");
    val_put_str(a, val_need_map(a, v, "metadata"), "name", name ? name : arena_printf(a, "access-key-%s", lower));
    data = val_need_map(a, v, "stringData"); /* last: a put to v moves it */
    val_put_str(a, data, "accessKeyId", id);
    val_put_str(a, data, "secretAccessKey", secret);
    *ret_id = val_str_at(data, "accessKeyId", "");
    *ret_secret = val_str_at(data, "secretAccessKey", "");
    return v;
}

char *iam_new_id(struct arena *a, const char *prefix)
{
    char text[18];

    random_text(text, 17, BASE32);
    return arena_printf(a, "%s%s", prefix, text);
}

const struct obj *iam_find(struct mirror *m, struct arena *a, const char *name)
{
    const struct obj *o = m ? mirror_get(m, "", iam_object_name(a, name)) : NULL;

    return o && !obj_deleting(o) && strcasecmp(iam_name_of(o), name) == 0 ? o : NULL;
}

/* ---- policies by their ARN ---- */

const struct iam_managed *iam_managed(const struct identity *id, const char *arn)
{
    for (uint32_t i = 0; i < id->managed_n; i++)
        if (streq(id->managed[i].arn, arn))
            return &id->managed[i];
    return NULL;
}

const struct obj *iam_policy(struct identity *id, struct arena *a, const char *arn)
{
    const char *slash = strrchr(arn, '/');
    const struct obj *o = slash ? iam_find(id->policies, a, slash + 1) : NULL;

    return o && streq(iam_arn_of(id, a, o, "policy"), arn) ? o : NULL;
}

const struct val *iam_policy_document(const struct obj *policy, const char *version)
{
    const struct val *spec = val_get(obj_val(policy), "spec");

    if (!version)
        version = val_str_at(spec, "defaultVersion", "v1");
    VAL_EACH(val_get(spec, "versions"), it)
        if (streq(val_str_at(it, "id", ""), version))
            return val_get(it, "document");
    return NULL;
}

/* The documents lie in the arena: objects are pinned in it by who looked them up, their trees are not. */
static void add_document(struct arena *a, struct policy_docs *to, const struct val *v, const char *whose)
{
    struct err err;
    const struct val *doc = v ? policy_read(a, v->type == VAL_STR ? v : val_copy(a, v), POLICY_IDENTITY, &err) : NULL;

    if (!doc) { /* made by other means than this door: what it was to deny is not known */
        if (v)
            LOG(WARN, "aws", "did=read-policy of=%s error=\"%s\"", whose, err.msg);
        doc = json_parse(a, DENY_ALL, sizeof DENY_ALL - 1, &err);
    }
    to->v[to->n++] = doc;
}

static bool add_by_arn(struct identity *id, struct arena *a, struct policy_docs *to, const char *arn)
{
    const struct iam_managed *m = iam_managed(id, arn);
    const struct obj *o = m ? NULL : iam_policy(id, a, arn);

    if (m)
        to->v[to->n++] = m->document;
    else if (o)
        add_document(a, to, iam_policy_document(o, NULL), arn);
    return m || o;
}

void iam_load(struct identity *id, struct arena *a, const struct obj *o, struct policy_set *set)
{
    const struct val *spec = val_get(obj_val(o), "spec"), *inline_ = val_get(spec, "policies"), *attached = val_get(spec, "attached");
    const char *boundary = val_str_at(spec, "boundary", "");

    set->identity.v = arena_array(a, const struct val *, val_len(inline_) + val_len(attached) + 1);
    VAL_EACH(inline_, it)
        add_document(a, &set->identity, val_get(it, "document"), o->name);
    VAL_EACH(attached, it)
        if (!add_by_arn(id, a, &set->identity, val_text(it, "")))
            LOG(WARN, "aws", "of=%s did=read-policy error=\"there is no %s\"", o->name, val_text(it, ""));
    if (!*boundary)
        return;
    set->has_boundary = true; /* one that is not there allows nothing */
    set->boundary.v = arena_array(a, const struct val *, 1);
    add_by_arn(id, a, &set->boundary, boundary);
}

/* ---- who asks ---- */

const char *identity_secret_text(struct arena *a, const struct obj *secret, const char *name)
{
    const struct val *v = val_get(val_get(obj_val(secret), "data"), name);
    unsigned char *out;
    int n;

    if (!val_is(v, VAL_STR) || v->n % 4 || !v->n)
        return NULL;
    out = arena_alloc(a, v->n / 4 * 3 + 1);
    n = EVP_DecodeBlock(out, (const unsigned char *)v->s, (int)v->n);
    if (n < 0)
        return NULL;
    for (uint32_t i = v->n; i > 0 && v->s[i - 1] == '='; i--)
        n--;
    out[n] = 0;
    return memchr(out, 0, (size_t)n) ? NULL : (const char *)out;
}

static const struct obj *find_secret(struct identity *id, struct arena *a, const char *key_id)
{
    char *name = arena_printf(a, "access-key-%s", key_id);
    const struct obj *o;
    struct objs all;

    for (char *p = name; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    o = mirror_get(id->keys, "kube-system", name);
    if (o && streq0(identity_secret_text(a, o, "accessKeyId"), key_id))
        return o;
    all = mirror_list(id->keys, a, "kube-system");
    for (uint32_t i = 0; i < all.n; i++)
        if (streq0(identity_secret_text(a, all.v[i], "accessKeyId"), key_id))
            return all.v[i];
    return NULL;
}

static void be_root(struct identity *id, struct arena *a, struct caller *c)
{
    c->kind = CALLER_ROOT;
    c->arn = arena_printf(a, "arn:aws:iam::%s:root", id->account);
    c->id = id->account;
    c->set.root = true;
    c->who = (struct policy_who){.account = id->account, .arn = c->arn, .root = true};
}

static int be_user(struct identity *id, struct arena *a, const char *name, struct caller *c, struct err *err)
{
    const struct obj *o = iam_find(id->users, a, name);

    if (!o)
        return err_set(err, NOT_FOUND, "The security token included in the request is invalid.");
    c->kind = CALLER_USER;
    c->name = arena_strdup(a, iam_name_of(o));
    c->arn = iam_arn_of(id, a, o, "user");
    c->id = arena_strdup(a, iam_id_of(a, o, "AIDA"));
    c->who = (struct policy_who){.account = id->account, .arn = c->arn};
    if (val_is(val_at(obj_val(o), "spec.tags"), VAL_MAP))
        c->tags = val_copy(a, val_at(obj_val(o), "spec.tags"));
    iam_load(id, a, o, &c->set);
    return 0;
}

static char *session_arn(struct identity *id, struct arena *a, const struct obj *role, const char *session)
{
    return arena_printf(a, "arn:aws:sts::%s:assumed-role/%s/%s", id->account, iam_name_of(role), session);
}

/* The role of a session's token: the same one, not a later one of its name. */
static int be_role(struct identity *id, struct arena *a, const struct val *t, struct caller *c, struct err *err)
{
    const struct obj *o = iam_find(id->roles, a, val_str_at(t, "role", ""));
    const char *session = val_str_at(t, "name", "");

    if (!o || !streq(iam_id_of(a, o, "AROA"), val_str_at(t, "id", "")))
        return err_set(err, NOT_FOUND, "The security token included in the request is invalid.");
    c->kind = CALLER_ROLE;
    c->name = arena_strdup(a, iam_name_of(o));
    c->session = session;
    c->arn = session_arn(id, a, o, session);
    c->id = arena_printf(a, "%s:%s", iam_id_of(a, o, "AROA"), session);
    c->who = (struct policy_who){.account = id->account, .arn = c->arn, .role = iam_arn_of(id, a, o, "role")};
    if (val_is(val_at(obj_val(o), "spec.tags"), VAL_MAP))
        c->tags = val_copy(a, val_at(obj_val(o), "spec.tags"));
    VAL_EACH_MEMBER(val_get(t, "tags"), m)
        val_put_str(a, c->tags, m->key, val_text(&m->v, ""));
    iam_load(id, a, o, &c->set);
    return 0;
}

/* Session policies: the shipped or account's policies are read now, as all others. */
static void add_session_policies(struct identity *id, struct arena *a, const struct val *list, struct policy_set *set)
{
    uint32_t n = val_len(list);

    if (!n)
        return;
    set->has_session = true;
    set->session.v = arena_array(a, const struct val *, n);
    VAL_EACH(list, it)
        if (!str_starts(val_text(it, ""), "arn:"))
            add_document(a, &set->session, it, "session");
        else
            add_by_arn(id, a, &set->session, val_text(it, ""));
}

static int find_session(struct identity *id, struct arena *a, const char *key_id, const char *token, int64_t now_s,
                        struct caller *ret, struct err *err)
{
    const struct val *t = session_open(id->key, token, a, err);
    const char *user;

    if (!t)
        return -1;
    if (!streq(val_str_at(t, "key", ""), key_id))
        return err_set(err, INVALID_ARGUMENT, "The security token included in the request is invalid.");
    if (val_int_at(t, "until", 0) <= now_s)
        return err_set(err, EXPIRED, "The security token included in the request is expired");
    ret->secret = val_str_at(t, "secret", "");
    ret->issued_s = val_int_at(t, "since", 0);
    if (val_get(t, "role")) {
        if (be_role(id, a, t, ret, err) < 0)
            return -1;
    } else if ((user = val_str_at(t, "user", NULL))) {
        if (be_user(id, a, user, ret, err) < 0)
            return -1;
        if (!streq(ret->id, val_str_at(t, "id", "")))
            return err_set(err, NOT_FOUND, "The security token included in the request is invalid.");
    } else {
        be_root(id, a, ret);
    }
    add_session_policies(id, a, val_get(t, "policies"), &ret->set);
    return 0;
}

int identity_find(struct identity *id, struct arena *a, const char *key_id, const char *token, const struct obj *secret,
                  int64_t now_s, struct caller *ret, struct err *err)
{
    const char *user, *status;

    *ret = (struct caller){.key_id = key_id, .tags = val_map(a)};
    if (!str_empty(token))
        return find_session(id, a, key_id, token, now_s, ret, err);
    if (!mirror_synced(id->keys) && !secret)
        return err_set(err, UNAVAILABLE, "the access keys are not known yet");
    secret = secret ? secret : find_secret(id, a, key_id);
    ret->secret = secret ? identity_secret_text(a, secret, "secretAccessKey") : NULL;
    if (!ret->secret || !*ret->secret)
        return err_set(err, NOT_FOUND, "The security token included in the request is invalid.");
    status = obj_annotation(secret, A_KEY_STATUS);
    if (status && streq(status, "Inactive"))
        return err_set(err, FORBIDDEN, "The security token included in the request is invalid.");
    user = obj_annotation(secret, A_KEY_USER);
    if (user)
        return be_user(id, a, user, ret, err);
    be_root(id, a, ret);
    return 0;
}

char *identity_caller_seal(struct identity *id, struct arena *a, const char *key_id, const char *token, int64_t now_s)
{
    struct val *t = val_map(a);

    val_put_str(a, t, "caller", key_id); /* a session's token has no such member, this has no "key" */
    val_put_int(a, t, "at", now_s);
    if (!str_empty(token))
        val_put_str(a, t, "token", token);
    return session_seal(id->key, t, a);
}

char *identity_sign(struct identity *id, struct arena *a, const char *about, const struct val *v)
{
    return session_sign(id->key, about, v, a);
}

int identity_caller_open(struct identity *id, struct arena *a, const char *sealed, struct caller *ret, struct err *err)
{
    const struct val *t = session_open(id->key, sealed, a, err);
    const char *key_id = val_str_at(t, "caller", NULL);

    if (!t)
        return -1;
    if (!key_id)
        return err_set(err, INVALID_ARGUMENT, "The security token included in the request is invalid.");
    return identity_find(id, a, key_id, val_str_at(t, "token", NULL), NULL, val_int_at(t, "at", 0), ret, err);
}

/* ---- may he? ---- */

static const char *type_of(const struct caller *c)
{
    return c->kind == CALLER_ROOT ? "Account" : c->kind == CALLER_USER ? "User" : "AssumedRole";
}

static struct val *context_of(struct arena *a, const struct caller *c, const struct val *more)
{
    struct val *v = more ? val_copy(a, more) : val_map(a);
    char text[KUBETIME_MAX];

    val_put_str(a, v, "aws:principalarn", c->who.role ? c->who.role : c->arn); /* of a session: its role */
    val_put_str(a, v, "aws:principalaccount", c->who.account);
    val_put_str(a, v, "aws:principaltype", type_of(c));
    val_put_str(a, v, "aws:principalisawsservice", "false");
    val_put_str(a, v, "aws:userid", c->id);
    if (c->kind == CALLER_USER)
        val_put_str(a, v, "aws:username", c->name);
    if (c->issued_s) {
        val_put_str(a, v, "aws:tokenissuetime", kubetime_text(text, c->issued_s * 1000));
        val_put_str(a, v, "aws:multifactorauthpresent", "false");
    }
    VAL_EACH_MEMBER(c->tags, m)
    {
        char *key = arena_printf(a, "aws:principaltag/%s", m->key);

        for (char *p = key; *p; p++)
            *p = (char)tolower((unsigned char)*p);
        val_put_str(a, v, key, val_text(&m->v, ""));
    }
    return v;
}

/* What never leaves the machine needs no TLS: SAM's and CDK's own buckets deny all that is not secure. */
static bool is_secure(const struct http_peer *peer)
{
    return peer->tls || !*peer->addr || str_starts(peer->addr, "127.") || streq(peer->addr, "::1") || str_starts(peer->addr, "::ffff:127.");
}

struct val *identity_context(const struct identity *id, const struct http_req *req, const char *region)
{
    struct arena *a = req->arena;
    struct val *v = val_map(a);
    const char *agent = http_get(req, "user-agent"), *referer = http_get(req, "referer");
    int64_t now = (int64_t)time(NULL);
    char text[KUBETIME_MAX];

    val_put_str(a, v, "aws:sourceip", req->peer->addr);
    val_put_str(a, v, "aws:securetransport", is_secure(req->peer) ? "true" : "false");
    val_put_str(a, v, "aws:currenttime", kubetime_text(text, now * 1000));
    val_put(a, v, "aws:epochtime", val_printf(a, "%lld", (long long)now));
    val_put_str(a, v, "aws:requestedregion", str_empty(region) ? id->region : region);
    val_put_str(a, v, "aws:viaawsservice", "false");
    if (agent)
        val_put_str(a, v, "aws:useragent", agent);
    if (referer)
        val_put_str(a, v, "aws:referer", referer);
    return v;
}

const struct val *identity_policy_at(struct arena *a, const struct obj *o, const char *annotation)
{
    static const char NOBODY[] = "{\"Statement\":{\"Effect\":\"Deny\",\"Principal\":\"*\",\"Action\":\"*\",\"Resource\":\"*\"}}";
    const char *text = o ? obj_annotation(o, annotation) : NULL;
    struct err err;
    const struct val *v = text ? policy_read(a, val_lit(a, text), POLICY_RESOURCE, &err) : NULL;

    return v || !text ? v : json_parse(a, NOBODY, sizeof NOBODY - 1, &err);
}

enum policy_verdict identity_decide(struct identity *id, struct arena *a, const struct caller *c, const char *action,
                                    const char *resource, const struct val *context, const struct val *resource_policy,
                                    enum policy_kind resource_kind)
{
    struct policy_set set = c->set;
    struct policy_ask ask = {action, resource, NULL, &c->who, a};

    (void)id;
    set.resource = resource_policy;
    set.resource_kind = resource_kind;
    set.resource_must = resource_policy && resource_kind == POLICY_TRUST;
    if (set.root && !resource_policy && !set.has_session)
        return POLICY_ALLOWED;
    ask.context = context_of(a, c, context);
    return policy_decide(&set, &ask);
}

char *identity_refusal(struct arena *a, const struct caller *c, enum policy_verdict verdict, enum policy_kind resource_kind,
                       const char *action, const char *resource)
{
    return arena_printf(a, "User: %s is not authorized to perform: %s on resource: %s %s", c->arn, action, resource,
                        policy_why(a, verdict, resource_kind, action));
}

/* ---- roles ---- */

const struct obj *identity_role(struct identity *id, const char *arn)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const char *slash = strrchr(arn, '/');
    const struct obj *o = slash && str_starts(arn, "arn:aws:iam::") ? iam_find(id->roles, a, slash + 1) : NULL;

    return o && streq(iam_arn_of(id, a, o, "role"), arn) ? o : NULL;
}

enum policy_verdict identity_trusts(struct identity *id, struct arena *a, const struct obj *role, const struct policy_who *who,
                                    const char *action, const struct val *context)
{
    const struct val *trust = val_at(obj_val(role), "spec.trust");
    const struct val *doc;
    struct policy_ask ask = {action, iam_arn_of(id, a, role, "role"), context, who, a};
    struct err err;

    doc = trust ? policy_read(a, trust->type == VAL_STR ? trust : val_copy(a, trust), POLICY_TRUST, &err) : NULL;
    if (!doc)
        return POLICY_NO_RESOURCE;
    switch (policy_says(doc, POLICY_TRUST, &ask)) {
    case POLICY_SAYS_DENY: return POLICY_DENY_RESOURCE;
    case POLICY_SAYS_NOTHING: return POLICY_NO_RESOURCE;
    case POLICY_SAYS_ACCOUNT:
    case POLICY_SAYS_ROLE:
    case POLICY_SAYS_ALLOW: break;
    }
    return POLICY_ALLOWED;
}

void identity_session(struct identity *id, struct arena *a, const struct obj *role, const struct caller *who,
                      const struct session_opts *o, struct session_keys *ret)
{
    struct val *t = val_map(a), *list;
    char key[21] = "ASIA", secret[SECRET_CHARS + 1];

    new_pair(key, secret);
    *ret = (struct session_keys){.key_id = arena_strdup(a, key), .secret = arena_strdup(a, secret),
                                 .expires_s = o->now_s + o->seconds};
    val_put_str(a, t, "key", key);
    val_put_str(a, t, "secret", secret);
    val_put_int(a, t, "since", o->now_s);
    val_put_int(a, t, "until", ret->expires_s);
    if (role) {
        val_put_str(a, t, "role", iam_name_of(role));
        val_put_str(a, t, "id", iam_id_of(a, role, "AROA"));
        val_put_str(a, t, "name", o->name);
        ret->arn = session_arn(id, a, role, o->name);
        ret->id = arena_printf(a, "%s:%s", iam_id_of(a, role, "AROA"), o->name);
    } else if (who->kind == CALLER_USER) {
        val_put_str(a, t, "user", who->name);
        val_put_str(a, t, "id", who->id);
    }
    if (val_len(o->tags))
        val_put(a, t, "tags", o->tags);
    if (val_len(o->transitive))
        val_put(a, t, "transitive", o->transitive);
    if (o->policies[0]) {
        list = val_need_list(a, t, "policies");
        for (size_t i = 0; i < ARRAY_LEN(o->policies) && o->policies[i]; i++)
            val_push_str(a, list, o->policies[i]);
    }
    ret->token = session_seal(id->key, t, a);
}

/* ---- our own writes, seen ---- */

struct iam_wait {
    struct iam_wait *next;
    struct mirror *mirror;
    char *ns, *name;
    int64_t revision, until_us;
    iam_wait_fn *fn;
    void *arg;
};

static bool is_seen(const struct iam_wait *w)
{
    const struct obj *o = w->mirror ? mirror_get(w->mirror, w->ns, w->name) : NULL;

    return !w->mirror ? true : w->revision ? o && o->revision >= w->revision : !o || obj_deleting(o);
}

static void look(struct identity *id, bool all)
{
    int64_t now = env_mono_us(client_env(id->o.client));
    struct iam_wait **at = &id->waits, *ready = NULL, **last = &ready;

    while (*at) {
        struct iam_wait *w = *at;

        if (!all && !is_seen(w) && w->until_us > now) {
            at = &w->next;
            continue;
        }
        *at = w->next;
        w->next = NULL;
        *last = w;
        last = &w->next;
    }
    while (ready) { /* what fn does may wait again */
        struct iam_wait *w = ready;

        ready = w->next;
        w->fn(w->arg);
        free(w->ns);
        free(w->name);
        free(w);
    }
    if (id->waits)
        env_timer_start(id->timer, 100, 0);
}

static void on_timer(void *arg)
{
    look(arg, false);
}

void iam_wait(struct identity *id, struct mirror *m, const char *ns, const char *name, int64_t revision, iam_wait_fn *fn, void *arg)
{
    struct iam_wait *w = xcalloc(1, sizeof *w);

    *w = (struct iam_wait){.next = id->waits, .mirror = m, .ns = xstrdup(ns), .name = xstrdup(name), .revision = revision,
                           .until_us = env_mono_us(client_env(id->o.client)) + WAIT_MS * 1000, .fn = fn, .arg = arg};
    id->waits = w;
    env_timer_start(id->timer, 0, 0);
}

void iam_wait_end(struct identity *id, const struct mirror *m)
{
    for (struct iam_wait *w = id->waits; w; w = w->next)
        if (w->mirror == m)
            w->mirror = NULL;
}

/* ---- news ---- */

static void any_added(void *arg, const struct obj *o)
{
    struct identity *id = arg;

    (void)o;
    if (id->waits)
        env_timer_start(id->timer, 0, 0);
}
static void any_changed(void *arg, const struct obj *was, const struct obj *o)
{
    (void)was;
    any_added(arg, o);
}

static void role_news(struct identity *id, const struct obj *o)
{
    _auto_(arena_freep) struct arena *a = arena_new();

    any_added(id, o);
    if (id->o.role_changed)
        id->o.role_changed(id->o.arg, iam_arn_of(id, a, o, "role"));
}
static void role_added(void *arg, const struct obj *o)
{
    role_news(arg, o);
}
static void roles_known(void *arg)
{
    struct identity *id = arg;

    if (id->o.role_changed)
        id->o.role_changed(id->o.arg, NULL);
}
/* Policies are read with each request: only another role of the name makes other keys. */
static void role_changed(void *arg, const struct obj *was, const struct obj *o)
{
    if (streq(was->uid, o->uid))
        any_added(arg, o);
    else
        role_news(arg, o);
}

/* ---- life ---- */

static void read_managed(struct identity *id)
{
    struct err err;
    struct arena *a = id->arena;
    const struct val *all = json_parse(a, iam_managed_text, strlen(iam_managed_text), &err);
    struct iam_managed *m;

    ASSERT(all);
    id->managed = arena_array(a, struct iam_managed, val_len(all));
    VAL_EACH(all, it)
    {
        unsigned char sum[32];
        char text[18] = "";

        m = &id->managed[id->managed_n++];
        m->name = val_str_at(it, "name", "");
        m->path = val_str_at(it, "path", "/");
        m->arn = arena_printf(a, "arn:aws:iam::aws:policy%s%s", m->path, m->name);
        m->description = val_str_at(it, "description", "");
        m->version = val_str_at(it, "version", "v1");
        m->created = val_str_at(it, "created", "");
        m->document = val_get(it, "document");
        EVP_Digest(m->arn, strlen(m->arn), sum, NULL, EVP_sha256(), NULL);
        for (size_t i = 0; i < 17; i++)
            text[i] = BASE32[sum[i] & 31];
        m->id = arena_printf(a, "ANPA%s", text);
        if (policy_check(m->document, POLICY_IDENTITY, &err) < 0)
            assert_failed(m->name, __FILE__, __LINE__, __func__);
    }
}

struct identity *identity_new(const struct identity_opts *o, struct err *err)
{
    struct identity *id = xcalloc(1, sizeof *id);
    _auto_(freep) char *folder = xasprintf("%s/iam", o->state), *path = xasprintf("%s/session.key", folder);

    if (fs_mkdirs(folder, 0700, err) < 0 || session_key(path, id->key, err) < 0) {
        free(id);
        err_wrap(err, "the key of sessions");
        return NULL;
    }
    id->o = *o;
    id->region = xstrdup(o->region ? o->region : "us-east-1");
    id->account = xstrdup(o->account ? o->account : "000000000000");
    id->o.state = id->o.region = id->o.account = NULL;
    id->arena = arena_new();
    read_managed(id);
    id->timer = env_timer_new(client_env(o->client), on_timer, id);
    id->keys = client_mirror(o->client, &(struct mirror_args){
        .resource = "v1/secrets", .ns = "kube-system", .field_selector = "type=tandem.dev/access-key",
        .added = any_added, .changed = any_changed, .removed = any_added, .arg = id});
    id->users = client_mirror(o->client, &(struct mirror_args){
        .resource = IAM_USERS, .added = any_added, .changed = any_changed, .removed = any_added, .arg = id});
    id->policies = client_mirror(o->client, &(struct mirror_args){
        .resource = IAM_POLICIES, .added = any_added, .changed = any_changed, .removed = any_added, .arg = id});
    id->roles = client_mirror(o->client, &(struct mirror_args){
        .resource = IAM_ROLES, .added = role_added, .changed = role_changed, .removed = role_added, .synced = roles_known,
        .arg = id});
    return id;
}

void *identity_free(struct identity *id)
{
    if (!id)
        return NULL;
    look(id, true);
    env_timer_free(id->timer);
    mirror_free(id->keys);
    mirror_free(id->users);
    mirror_free(id->policies);
    mirror_free(id->roles);
    arena_free(id->arena);
    OPENSSL_cleanse(id->key, sizeof id->key);
    free(id->region);
    free(id->account);
    free(id);
    return NULL;
}

bool identity_ready(const struct identity *id)
{
    return mirror_synced(id->roles);
}

const char *identity_account(const struct identity *id)
{
    return id->account;
}

const char *identity_region(const struct identity *id)
{
    return id->region;
}
