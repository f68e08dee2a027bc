/* apiserver/audit.c - see audit.h. Texts of objects are made at once, when they come by: the trees
 * they are made of may change or go before the event ends. */
#include "apiserver/audit.h"

#include "apiserver/apiserver.h"
#include "apiserver/audit_sink.h"
#include "base/log.h"
#include "codec/json.h"
#include "codec/kubetime.h"
#include "codec/yaml.h"
#include "env/env.h"
#include "env/fs.h"

enum { POLICY_BYTES_MAX = 1 << 20, AGENT_BYTES_MAX = 1024, NOTES_MAX = 64 };

struct audit {
    struct env *env;
    struct arena *arena;
    struct val *policy;
    struct audit_log *log;
    struct audit_hook *hook;
    uint64_t events;
};

struct audit_event {
    struct audit *au;
    struct arena *a;
    struct audit_verdict how;
    struct audit_request rq;
    struct rbac_ask ask;
    const char *uid, *revision; /* of the object, for objectRef */
    const struct auth_user *as;
    const char *constraint;
    char *request, *response; /* JSON texts */
    size_t request_n, response_n;
    const struct val *status; /* of an answer that is one */
    struct val *notes;
    int code;
    bool ended;
};

/* ---------------------------------------------------------------- life */

static struct val *read_policy(struct audit *au, const char *path, struct err *err)
{
    size_t n;
    _auto_(freep) char *text = fs_read(path, POLICY_BYTES_MAX, &n, err);
    struct val *v = text ? yaml_parse(au->arena, text, n, NULL, NULL, err) : NULL;

    if (!v || audit_policy_check(v, err) < 0)
        return err_wrap(err, "audit policy %s", path), NULL;
    return v;
}

struct audit *audit_new(struct env *env, const struct audit_opts *o, struct err *err)
{
    struct audit *au;

    err->code = ERR_OK;
    if (!o->policy_path) {
        if (o->log_path || o->webhook_path)
            err_set(err, INVALID_ARGUMENT, "an audit log needs a policy: --audit-policy-file");
        return NULL;
    }
    au = xcalloc(1, sizeof(*au));
    au->env = env;
    au->arena = arena_new();
    if (!(au->policy = read_policy(au, o->policy_path, err)) ||
        (o->log_path && !(au->log = audit_log_new(o, err))) ||
        (o->webhook_path && !(au->hook = audit_hook_new(env, o->webhook_path, err))))
        return audit_free(au);
    return au;
}

void *audit_free(struct audit *au)
{
    if (!au)
        return NULL;
    audit_log_free(au->log);
    audit_hook_free(au->hook);
    arena_free(au->arena);
    free(au);
    return NULL;
}

struct audit_counts audit_counts(const struct audit *au)
{
    struct audit_counts n = {0};

    if (!au)
        return n;
    n.events = au->events;
    if (au->log)
        audit_log_counts(au->log, &n);
    if (au->hook)
        audit_hook_counts(au->hook, &n);
    return n;
}

/* ---------------------------------------------------------------- the text of an event */

static void put_user(struct arena *a, struct val *ev, const char *key, const struct auth_user *u)
{
    struct val *v = val_map(a), *groups = val_list(a);

    if (u) {
        val_put_str(a, v, "username", u->name);
        if (!str_empty(u->uid))
            val_put_str(a, v, "uid", u->uid);
        for (const char *const *g = u->groups; g && *g; g++)
            val_push_str(a, groups, *g);
        if (val_len(groups))
            val_put(a, v, "groups", groups);
        if (val_len(u->extra))
            val_put(a, v, "extra", u->extra);
    }
    val_put(a, ev, key, v);
}

static void put_text(struct arena *a, struct val *v, const char *key, const char *s)
{
    if (!str_empty(s))
        val_put_str(a, v, key, s);
}

static void put_ref(const struct audit_event *e, struct arena *a, struct val *ev)
{
    struct val *ref = val_map(a);

    if (e->ask.path)
        return;
    put_text(a, ref, "resource", e->ask.resource);
    put_text(a, ref, "namespace", e->ask.ns);
    put_text(a, ref, "name", e->ask.name);
    put_text(a, ref, "uid", e->uid);
    put_text(a, ref, "apiGroup", e->ask.group);
    put_text(a, ref, "apiVersion", e->ask.version);
    put_text(a, ref, "resourceVersion", e->revision);
    put_text(a, ref, "subresource", e->ask.subresource);
    val_put(a, ev, "objectRef", ref);
}

static void put_status(const struct audit_event *e, struct arena *a, struct val *ev)
{
    static const char *const keys[] = {"status", "message", "reason", "details"};
    struct val *st = val_map(a);

    val_put(a, st, "metadata", val_map(a));
    for (size_t i = 0; i < ARRAY_LEN(keys); i++)
        if (val_get(e->status, keys[i]))
            val_put(a, st, keys[i], val_get(e->status, keys[i]));
    val_put_int(a, st, "code", e->code);
    val_put(a, ev, "responseStatus", st);
}

static struct val *head_of(const struct audit_event *e, struct arena *a, enum audit_stage stage)
{
    struct val *ev = val_map(a), *ips = val_list(a);

    val_put_str(a, ev, "kind", "Event");
    val_put_str(a, ev, "apiVersion", "audit.k8s.io/v1");
    val_put_str(a, ev, "level", audit_level_name(e->how.level));
    val_put_str(a, ev, "auditID", e->rq.id);
    val_put_str(a, ev, "stage", audit_stage_name(stage));
    val_put_str(a, ev, "requestURI", e->rq.uri);
    val_put_str(a, ev, "verb", e->rq.verb);
    put_user(a, ev, "user", e->rq.user);
    if (e->as)
        put_user(a, ev, "impersonatedUser", e->as);
    if (!str_empty(e->constraint)) {
        struct val *m = val_map(a);

        val_put_str(a, m, "impersonationConstraint", e->constraint);
        val_put(a, ev, "authenticationMetadata", m);
    }
    for (const char *const *ip = e->rq.source_ips; ip && *ip; ip++)
        val_push_str(a, ips, *ip);
    if (val_len(ips))
        val_put(a, ev, "sourceIPs", ips);
    put_text(a, ev, "userAgent", e->rq.user_agent);
    put_ref(e, a, ev);
    if (stage != AUDIT_RECEIVED)
        put_status(e, a, ev);
    return ev;
}

/* Without its last brace: the objects are texts already. */
static void write_event(const struct audit_event *e, struct arena *a, enum audit_stage stage,
                        struct buf *b)
{
    char at[KUBETIME_MAX];
    struct val *tail = val_map(a);

    json_write(b, head_of(e, a, stage));
    b->n--;
    if (stage == AUDIT_COMPLETE && e->request) {
        buf_adds(b, ",\"requestObject\":");
        buf_add(b, e->request, e->request_n);
    } else if (stage == AUDIT_STARTED && e->request) {
        buf_adds(b, ",\"requestObject\":");
        buf_add(b, e->request, e->request_n);
    }
    if (stage == AUDIT_COMPLETE && e->response) {
        buf_adds(b, ",\"responseObject\":");
        buf_add(b, e->response, e->response_n);
    }
    val_put_str(a, tail, "requestReceivedTimestamp", kubetime_micro(at, e->rq.received_us));
    val_put_str(a, tail, "stageTimestamp", kubetime_micro(at, env_now_ms(e->au->env) * 1000));
    if (val_len(e->notes))
        val_put(a, tail, "annotations", e->notes);
    buf_addc(b, ',');
    {
        size_t from = b->n;

        json_write(b, tail);
        memmove(b->p + from, b->p + from + 1, b->n - from - 1); /* its first brace */
        b->n--;
    }
    buf_addc(b, '\n');
}

static void tell(struct audit_event *e, enum audit_stage stage)
{
    _auto_(arena_freep) struct arena *a = NULL;
    struct buf b = {0};

    if (e->how.omit & stage)
        return;
    a = arena_new();
    write_event(e, a, stage, &b);
    e->au->events++;
    if (e->au->log)
        audit_log_add(e->au->log, b.p, b.n);
    if (e->au->hook)
        audit_hook_add(e->au->hook, b.p, b.n - 1);
    buf_done(&b);
}

/* ---------------------------------------------------------------- the life of an event */

static void at_last(void *arg)
{
    audit_end(arg, 0);
}

struct audit_event *audit_begin(struct audit *au, struct arena *a, const struct audit_request *rq)
{
    struct audit_verdict how;
    struct audit_event *e;

    if (!au)
        return NULL;
    how = audit_policy_ask(au->policy, rq->user, rq->ask);
    if (how.level == AUDIT_NONE)
        return NULL;
    e = arena_new_of(a, struct audit_event);
    *e = (struct audit_event){.au = au, .a = a, .how = how, .rq = *rq, .ask = *rq->ask};
    if (rq->user) { /* what the request is done as may be written over */
        struct auth_user *u = arena_new_of(a, struct auth_user);

        *u = *rq->user;
        e->rq.user = u;
    }
    if (rq->user_agent && strlen(rq->user_agent) > AGENT_BYTES_MAX)
        e->rq.user_agent = arena_printf(a, "%.*s...TRUNCATED", AGENT_BYTES_MAX - 12, rq->user_agent);
    arena_pin(a, at_last, e);
    tell(e, AUDIT_RECEIVED);
    return e;
}

void audit_note(struct audit_event *e, const char *key, const char *value)
{
    if (!e || e->ended)
        return;
    if (!e->notes)
        e->notes = val_map(e->a);
    if (val_get(e->notes, key)) { /* the first one counts */
        if (!streq(val_text(val_get(e->notes, key), value), value))
            LOG(WARN, "audit", "note=%s said=twice", key);
        return;
    }
    if (val_len(e->notes) < NOTES_MAX)
        val_put_str(e->a, e->notes, key, value);
}

void audit_impersonated(struct audit_event *e, const struct auth_user *u, const char *constraint)
{
    if (!e)
        return;
    e->as = u;
    e->constraint = constraint;
}

/* A copy of the object without managedFields, also for the items of a list. */
static const struct val *without_managed(struct arena *a, const struct val *v)
{
    struct val *copy = val_copy(a, v);

    val_del(val_get(copy, "metadata"), "managedFields");
    VAL_EACH(val_get(copy, "items"), it)
        val_del(val_get(it, "metadata"), "managedFields");
    return copy;
}

void audit_object(struct audit_event *e, const struct val *v)
{
    const struct val *meta = val_get(v, "metadata");

    if (!e || e->ended)
        return;
    if (!e->ask.path) {
        if (!*e->ask.ns)
            e->ask.ns = arena_strdup(e->a, val_str_at(meta, "namespace", ""));
        if (!*e->ask.name)
            e->ask.name = arena_strdup(e->a, val_str_at(meta, "name", ""));
        e->uid = arena_strdup(e->a, val_str_at(meta, "uid", ""));
        e->revision = arena_strdup(e->a, val_str_at(meta, "resourceVersion", ""));
    }
    if (e->how.level >= AUDIT_REQUEST)
        e->request = json_text(e->a, e->how.omit_managed_fields ? without_managed(e->a, v) : v,
                               &e->request_n);
}

void audit_patch(struct audit_event *e, const char *text, size_t n)
{
    struct err ignored = {0};
    struct val *v;

    if (!e || e->ended || e->how.level < AUDIT_REQUEST || !n)
        return;
    if (!(v = json_parse(e->a, text, n, &ignored)) &&
        !(v = yaml_parse(e->a, text, n, NULL, NULL, &ignored)))
        return;
    e->request = json_text(e->a, v, &e->request_n);
}

void audit_answer(struct audit_event *e, const struct api_response *r)
{
    const struct val *v;

    if (!e || e->ended)
        return;
    e->code = r->status;
    if (r->val && streq(val_str_at(r->val, "kind", ""), "Status"))
        e->status = val_copy(e->a, r->val);
    if (e->how.level < AUDIT_REQUEST_RESPONSE || r->watch || (!r->val && !r->obj && !r->list_kind))
        return;
    v = api_response_val(e->a, r);
    if (e->how.omit_managed_fields)
        v = without_managed(e->a, v);
    e->response = json_text(e->a, v, &e->response_n);
}

void audit_started(struct audit_event *e, int code)
{
    if (!e || e->ended)
        return;
    e->code = code;
    tell(e, AUDIT_STARTED);
}

void audit_end(struct audit_event *e, int code)
{
    if (!e || e->ended)
        return;
    e->ended = true;
    if (code)
        e->code = code;
    tell(e, AUDIT_COMPLETE);
}
