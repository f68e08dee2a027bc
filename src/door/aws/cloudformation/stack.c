/* door/aws/cloudformation/stack.c - stacks in memory, and the Stack objects that outlive them.
 *
 * Memory is ahead of the object by CFN_SAVE_MS at most; what is answered to a client is in the object. Writes of a stack go one
 * after another. Names of what is made follow from the stack's id (cfn_name), so a step that was made but not yet written is
 * found again after a crash instead of being made twice.
 *
 * A stack acts in the name of who asked for it, so its object is worth as much as he is. What the door writes is signed
 * (spec.seal, status.seal) as this object's: one that somebody else made, changed, or copied to another name is found out when it
 * is read, and is no stack: not listed, not acted for, and gone without a trace when it is deleted (what it names stays). So who
 * may write Stack objects can put back what the door itself had written to the same one, and no more. */
#include "door/aws/cloudformation/cfn_int.h"

#include <ctype.h>
#include <stdio.h>

#include "base/log.h"
#include "codec/kubetime.h"
#include "env/clock.h"
#include "env/random.h"

enum { ARENA_SPARE = 4 << 20, REASON_MAX = 1024, RETRY_MS = 1000 };

char *cfn_uuid(struct arena *a)
{
    char text[UUID_BYTES];

    return arena_strdup(a, uuid_new(text));
}

bool cfn_running(const struct cfn_stack *s)
{
    return str_ends(s->status, "_IN_PROGRESS") && !streq(s->status, "REVIEW_IN_PROGRESS");
}

/* ---- in memory ---- */

static struct cfn_stack *stack_bare(struct cfn *c)
{
    struct cfn_stack *s = xcalloc(1, sizeof *s);

    s->c = c;
    s->a = arena_new();
    s->outputs = val_list(s->a);
    s->change_sets = val_list(s->a);
    s->timer = xcalloc(1, sizeof *s->timer);
    uv_timer_init(c->d->o.loop, s->timer);
    s->timer->data = s;
    list_push(&c->stacks, &s->link);
    return s;
}

struct cfn_stack *cfn_stack_new(struct cfn *c, const char *name)
{
    struct cfn_stack *s = stack_bare(c);
    char *low;

    s->name = arena_strdup(s->a, name);
    s->uuid = cfn_uuid(s->a);
    s->id = arena_printf(s->a, "arn:aws:cloudformation:%s:%s:stack/%s/%s", c->d->region, c->d->account, name, s->uuid);
    low = arena_printf(s->a, "%.40s", name);
    for (char *p = low; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    s->object = arena_printf(s->a, "%s-%.8s", low, s->uuid);
    s->status = "REVIEW_IN_PROGRESS";
    s->created_ms = clock_real_ms();
    s->spec = val_map(s->a);
    val_put_str(s->a, s->spec, "stackName", name);
    val_put_str(s->a, s->spec, "stackId", s->id);
    return s;
}

static void timer_gone(uv_handle_t *h)
{
    free(h);
}

void cfn_stack_free(struct cfn_stack *s)
{
    cfn_works_cancel(s);
    cfn_plan_free(s->plan);
    arena_free(s->plan_arena);
    list_remove(&s->link);
    for (uint32_t i = 0; i < s->res_n; i++)
        free(s->res[i]);
    free(s->res);
    free(s->events);
    while (s->waits) {
        struct cfn_wait *w = s->waits;

        s->waits = w->next;
        free(w);
    }
    uv_close((uv_handle_t *)s->timer, timer_gone);
    arena_free(s->a);
    free(s);
}

struct cfn_stack *cfn_find(struct cfn *c, const char *name)
{
    bool id = str_starts(name, "arn:");
    struct cfn_stack *found = NULL;

    LIST_EACH(&c->stacks, l)
    {
        struct cfn_stack *s = list_entry(l, struct cfn_stack, link);

        if (id ? streq(s->id, name) : streq(s->name, name) && !streq(s->status, "DELETE_COMPLETE"))
            found = s;
    }
    return found;
}

struct val *cfn_change_set(struct cfn *c, const char *want, const char *stack, struct cfn_stack **ret)
{
    if (!want)
        return NULL;
    LIST_EACH(&c->stacks, l)
    {
        struct cfn_stack *s = list_entry(l, struct cfn_stack, link);

        if (streq(s->status, "DELETE_COMPLETE") || (stack && !streq(s->name, stack) && !streq(s->id, stack)))
            continue;
        VAL_EACH(s->change_sets, v)
            if (streq(val_str_at(v, "ChangeSetId", ""), want) || (stack && streq(val_str_at(v, "ChangeSetName", ""), want))) {
                *ret = s;
                return v;
            }
    }
    return NULL;
}

struct cfn_res *cfn_res_find(const struct cfn_stack *s, const char *logical)
{
    for (uint32_t i = 0; i < s->res_n; i++)
        if (!s->res[i]->old && streq(s->res[i]->logical, logical))
            return s->res[i];
    return NULL;
}

struct cfn_res *cfn_res_new(struct cfn_stack *s, const char *logical, const char *type)
{
    struct cfn_res *r = xcalloc(1, sizeof *r);

    if (s->res_n == s->res_cap) {
        s->res_cap = s->res_cap ? 2 * s->res_cap : 16;
        s->res = xrealloc(s->res, s->res_cap * sizeof *s->res);
    }
    s->res[s->res_n++] = r;
    r->logical = arena_strdup(s->a, logical);
    r->type = arena_strdup(s->a, type);
    r->at_ms = clock_real_ms();
    r->status = "CREATE_IN_PROGRESS";
    return r;
}

void cfn_res_remove(struct cfn_stack *s, struct cfn_res *r)
{
    for (uint32_t i = 0; i < s->res_n; i++)
        if (s->res[i] == r) {
            memmove(s->res + i, s->res + i + 1, (--s->res_n - i) * sizeof *s->res);
            free(r);
            return;
        }
}

static struct cfn_event *event_room(struct cfn_stack *s)
{
    if (s->events_n == CFN_EVENTS_MAX)
        memmove(s->events, s->events + 1, --s->events_n * sizeof *s->events);
    if (s->events_n == s->events_cap) {
        s->events_cap = s->events_cap ? 2 * s->events_cap : 32;
        s->events = xrealloc(s->events, s->events_cap * sizeof *s->events);
    }
    return &s->events[s->events_n++];
}

void cfn_event(struct cfn_stack *s, const struct cfn_res *r, const char *status, const char *reason)
{
    struct cfn_event *e = event_room(s);
    const char *uuid = cfn_uuid(s->a);

    *e = (struct cfn_event){
        .id = r ? arena_printf(s->a, "%s-%s-%s", r->logical, status, uuid) : uuid,
        .logical = r ? r->logical : s->name, .phys = r ? r->phys : s->id,
        .type = r ? r->type : "AWS::CloudFormation::Stack", .status = arena_strdup(s->a, status),
        .reason = reason ? arena_strndup(s->a, reason, MIN(strlen(reason), (size_t)REASON_MAX)) : NULL, .at_ms = clock_real_ms()};
}

void cfn_res_status(struct cfn_stack *s, struct cfn_res *r, const char *status, const char *reason)
{
    r->status = arena_strdup(s->a, status);
    r->reason = reason ? arena_strndup(s->a, reason, MIN(strlen(reason), (size_t)REASON_MAX)) : NULL;
    r->at_ms = clock_real_ms();
    cfn_event(s, r, status, reason);
}

void cfn_stack_status(struct cfn_stack *s, const char *status, const char *reason)
{
    s->status = arena_strdup(s->a, status);
    s->reason = reason ? arena_strndup(s->a, reason, MIN(strlen(reason), (size_t)REASON_MAX)) : NULL;
    cfn_event(s, NULL, status, reason);
    LOG(INFO, "cfn", "stack=%s status=%s%s%s", s->name, status, reason ? " reason=" : "", reason ? reason : "");
}

/* ---- to and from the object ---- */

static void put_text(struct arena *a, struct val *m, const char *key, const char *text)
{
    if (text)
        val_put_str(a, m, key, text);
}
static void put_time(struct arena *a, struct val *m, const char *key, int64_t ms)
{
    if (ms)
        val_put_str(a, m, key, iso_time(a, ms));
}

static struct val *res_to_val(struct arena *a, const struct cfn_res *r)
{
    struct val *v = val_map(a);

    put_text(a, v, "logicalId", r->logical);
    put_text(a, v, "type", r->type);
    put_text(a, v, "physicalId", r->phys);
    put_text(a, v, "status", r->status);
    put_text(a, v, "reason", r->reason);
    put_time(a, v, "at", r->at_ms);
    put_text(a, v, "deletionPolicy", r->keep);
    put_text(a, v, "updateReplacePolicy", r->replace_keep);
    put_text(a, v, "token", r->token);
    if (r->props)
        val_put(a, v, "properties", r->props);
    if (r->attrs)
        val_put(a, v, "attributes", r->attrs);
    if (r->needs)
        val_put(a, v, "needs", r->needs);
    if (r->done)
        val_put_int(a, v, "operation", r->done);
    if (r->generation)
        val_put_int(a, v, "generation", r->generation);
    if (r->old)
        val_put_int(a, v, "replacedIn", r->old);
    if (r->dirty)
        val_put_bool(a, v, "dirty", true);
    if (r->made)
        val_put_bool(a, v, "made", true);
    if (r->failed)
        val_put_bool(a, v, "failed", true);
    return v;
}

static const char *text_of(struct arena *a, const struct val *v, const char *key)
{
    const char *s = val_str_at(v, key, NULL);

    return s ? arena_strdup(a, s) : NULL;
}
static int64_t time_of(const struct val *v, const char *key)
{
    const char *s = val_str_at(v, key, NULL);
    int64_t ms = s ? kubetime_parse(s) : 0;

    return MAX(ms, 0);
}
static struct val *tree_of(struct arena *a, const struct val *v, const char *key)
{
    const struct val *t = val_get(v, key);

    return val_is_null(t) ? NULL : val_copy(a, t);
}

static void res_from_val(struct cfn_stack *s, const struct val *v)
{
    struct arena *a = s->a;
    struct cfn_res *r = cfn_res_new(s, val_str_at(v, "logicalId", ""), val_str_at(v, "type", ""));
    const char *status = text_of(a, v, "status");

    r->phys = text_of(a, v, "physicalId");
    r->status = status ? status : r->status;
    r->reason = text_of(a, v, "reason");
    r->at_ms = time_of(v, "at");
    r->keep = text_of(a, v, "deletionPolicy");
    r->replace_keep = text_of(a, v, "updateReplacePolicy");
    r->token = text_of(a, v, "token");
    r->props = tree_of(a, v, "properties");
    r->attrs = tree_of(a, v, "attributes");
    r->needs = tree_of(a, v, "needs");
    r->done = val_int_at(v, "operation", 0);
    r->generation = val_int_at(v, "generation", 0);
    r->old = val_int_at(v, "replacedIn", 0);
    r->dirty = val_bool_at(v, "dirty", false);
    r->made = val_bool_at(v, "made", false);
    r->failed = val_bool_at(v, "failed", false);
}

static struct val *status_to_val(struct cfn_stack *s, struct arena *a)
{
    struct val *v = val_map(a), *op = val_map(a), *list;

    val_put_str(a, v, "description", s->description ? s->description : "");
    val_put_str(a, v, "status", s->status);
    val_put_str(a, v, "statusReason", s->reason ? s->reason : "");
    put_time(a, v, "createdAt", s->created_ms);
    put_time(a, v, "updatedAt", s->updated_ms);
    put_time(a, v, "deletedAt", s->deleted_ms);
    val_put_int(a, op, "number", s->op);
    val_put(a, op, "token", s->token ? val_str(a, s->token) : val_null(a));
    val_put(a, op, "retain", s->retain ? val_str(a, s->retain) : val_null(a));
    val_put(a, v, "operation", op);
    val_put(a, v, "previous", s->previous ? s->previous : val_null(a));
    list = val_list(a);
    for (uint32_t i = 0; i < s->res_n; i++)
        val_push(a, list, res_to_val(a, s->res[i]));
    val_put(a, v, "resources", list);
    val_put(a, v, "outputs", s->outputs);
    val_put(a, v, "changeSets", s->change_sets);
    list = val_list(a);
    for (uint32_t i = 0; i < s->events_n; i++) {
        const struct cfn_event *e = &s->events[i];
        struct val *m = val_map(a);

        put_text(a, m, "id", e->id);
        put_text(a, m, "logicalId", e->logical);
        put_text(a, m, "physicalId", e->phys);
        put_text(a, m, "type", e->type);
        put_text(a, m, "status", e->status);
        put_text(a, m, "reason", e->reason);
        put_time(a, m, "at", e->at_ms);
        val_push(a, list, m);
    }
    val_put(a, v, "events", list);
    return v;
}

static void status_from_val(struct cfn_stack *s, const struct val *v)
{
    struct arena *a = s->a;
    const char *status = text_of(a, v, "status");

    s->status = status ? status : "REVIEW_IN_PROGRESS";
    s->description = text_of(a, v, "description");
    s->reason = text_of(a, v, "statusReason");
    if (s->reason && !*s->reason)
        s->reason = NULL;
    s->created_ms = time_of(v, "createdAt");
    s->updated_ms = time_of(v, "updatedAt");
    s->deleted_ms = time_of(v, "deletedAt");
    s->op = val_int_at(v, "operation.number", 0);
    s->token = val_at(v, "operation.token") ? text_of(a, val_get(v, "operation"), "token") : NULL;
    s->retain = val_at(v, "operation.retain") ? text_of(a, val_get(v, "operation"), "retain") : NULL;
    s->previous = tree_of(a, v, "previous");
    s->outputs = val_is(val_get(v, "outputs"), VAL_LIST) ? tree_of(a, v, "outputs") : val_list(a);
    s->change_sets = val_is(val_get(v, "changeSets"), VAL_LIST) ? tree_of(a, v, "changeSets") : val_list(a);
    VAL_EACH(val_get(v, "resources"), it)
        res_from_val(s, it);
    VAL_EACH(val_get(v, "events"), it)
    {
        struct cfn_event *e = event_room(s);

        *e = (struct cfn_event){.id = text_of(a, it, "id"), .logical = text_of(a, it, "logicalId"),
                                .phys = text_of(a, it, "physicalId"), .type = text_of(a, it, "type"),
                                .status = text_of(a, it, "status"), .reason = text_of(a, it, "reason"), .at_ms = time_of(it, "at")};
    }
}

size_t cfn_stack_bytes(struct cfn_stack *s)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    size_t spec, status;

    (void)json_text(a, s->spec, &spec);
    (void)json_text(a, status_to_val(s, a), &status);
    return spec + status;
}

/* What changed long ago still lies in the arena: everything is laid into a new one when that is much. */
static void repack(struct cfn_stack *s)
{
    struct arena *old = s->a;
    struct val *status;

    if (arena_bytes(old) < ARENA_SPARE || s->works || s->plan || s->waits)
        return;
    status = status_to_val(s, old);
    for (uint32_t i = 0; i < s->res_n; i++)
        free(s->res[i]);
    s->res_n = s->events_n = 0;
    s->a = arena_new();
    s->object = arena_strdup(s->a, s->object);
    s->name = arena_strdup(s->a, s->name);
    s->id = arena_strdup(s->a, s->id);
    s->uuid = arena_strdup(s->a, s->uuid);
    s->spec = val_copy(s->a, s->spec);
    status_from_val(s, status);
    arena_free(old);
}

/* ---- writes ---- */

static void flush(struct cfn_stack *s);

static void told(struct cfn_stack *s)
{
    while (s->waits && s->waits->number <= s->written) {
        struct cfn_wait *w = s->waits;

        s->waits = w->next;
        w->fn(w->arg);
        free(w);
    }
}

static void on_retry(uv_timer_t *t)
{
    flush(t->data);
}

static void on_written(void *arg, const struct client_result *r)
{
    struct cfn_stack *s = arg;

    s->writing = false;
    if (s->c->stopping)
        return;
    if (r->err && r->err->code == ERR_ALREADY_EXISTS && !s->exists) {
        s->exists = true; /* the answer of our own create was lost */
    } else if (r->err && r->err->code == ERR_NOT_FOUND && s->exists) {
        s->removed = true;
        s->spec_dirty = s->status_dirty = false;
    } else if (r->err) {
        LOG(WARN, "cfn", "stack=%s did=write error=\"%s\"", s->name, r->err->msg);
        s->status_dirty = s->spec_dirty = true;
        uv_timer_start(s->timer, on_retry, RETRY_MS, 0);
        return;
    } else {
        s->exists = true;
        s->written = MAX(s->written, s->in_flight);
    }
    if (s->removed)
        s->written = s->saves;
    told(s);
    if (s->waits)
        flush(s);
    else if (s->spec_dirty || s->status_dirty)
        uv_timer_start(s->timer, on_retry, CFN_SAVE_MS, 0);
    else
        repack(s);
}

static const char *seal_of(struct cfn *c, struct arena *a, const char *object, const char *part, const struct val *v)
{
    return identity_sign(c->d->o.identity, a, arena_printf(a, "stack/%s/%s", object, part), v);
}

/* With the seal in it; v's members are shared. */
static struct val *sealed(struct cfn_stack *s, struct arena *a, const char *part, const struct val *v)
{
    struct val *all = val_map(a);

    VAL_EACH_MEMBER(v, m)
        val_put(a, all, m->key, &m->v);
    val_put_str(a, all, "seal", seal_of(s->c, a, s->object, part, v));
    return all;
}

/* Did the door write it? What was never written is nobody's. */
static bool is_ours(struct cfn *c, const struct obj *o, const char *part)
{
    const struct val *v = val_get(obj_val(o), part);
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *bare;

    if (!val_len(v))
        return true;
    bare = val_copy(a, v);
    val_del(bare, "seal");
    return streq(seal_of(c, a, o->name, part, bare), val_str_at(v, "seal", ""));
}

static void push_change(struct arena *a, struct val *list, const char *path, const struct val *value)
{
    struct val *one = val_map(a);

    val_put_str(a, one, "op", "add");
    val_put_str(a, one, "path", path);
    val_put(a, one, "value", value);
    val_push(a, list, one);
}

static void flush(struct cfn_stack *s)
{
    _auto_(arena_freep) struct arena *a = NULL;
    struct val *v, *meta;
    struct client_call call = {.resource = CFN_STACKS, .ns = CFN_NS, .name = s->object, .patch_type = CLIENT_PATCH_JSON};

    if (s->writing || s->c->stopping || s->removed)
        return;
    a = arena_new();
    v = s->exists ? val_list(a) : val_map(a);
    call.body = v;
    if (!s->exists) {
        val_put_str(a, v, "apiVersion", "tandem.dev/v1");
        val_put_str(a, v, "kind", "Stack");
        meta = val_need_map(a, v, "metadata");
        val_put_str(a, meta, "name", s->object);
        val_push_str(a, val_need_list(a, meta, "finalizers"), CFN_FINALIZER);
        val_put(a, v, "spec", sealed(s, a, "spec", s->spec));
        call.verb = CLIENT_CREATE;
        call.name = NULL;
        s->spec_dirty = false;
    } else if (s->spec_dirty) {
        push_change(a, v, "/spec", sealed(s, a, "spec", s->spec));
        if (s->finalizer_gone)
            push_change(a, v, "/metadata/finalizers", val_list(a));
        call.verb = CLIENT_PATCH;
        s->spec_dirty = false;
    } else if (s->status_dirty) {
        push_change(a, v, "/status", sealed(s, a, "status", status_to_val(s, a)));
        call.verb = CLIENT_PATCH;
        call.sub = "status";
        s->status_dirty = false;
        s->in_flight = s->saves;
    } else {
        return;
    }
    s->writing = true;
    client_call(s->c->d->o.client, &call, on_written, s);
}

void cfn_save_spec(struct cfn_stack *s)
{
    s->spec_dirty = true;
}

void cfn_save(struct cfn_stack *s, bool now, void (*fn)(void *), void *arg)
{
    s->status_dirty = true;
    s->saves++;
    if (fn) {
        struct cfn_wait *w = xcalloc(1, sizeof *w), **end = &s->waits;

        *w = (struct cfn_wait){.fn = fn, .arg = arg, .number = s->saves};
        while (*end)
            end = &(*end)->next;
        *end = w;
    }
    if (now)
        flush(s);
    else if (!uv_is_active((uv_handle_t *)s->timer))
        uv_timer_start(s->timer, on_retry, CFN_SAVE_MS, 0);
}

/* ---- the objects of an earlier start, and those that somebody else touches ---- */

static struct cfn_stack *by_object(struct cfn *c, const char *name)
{
    LIST_EACH(&c->stacks, l)
        if (streq(list_entry(l, struct cfn_stack, link)->object, name))
            return list_entry(l, struct cfn_stack, link);
    return NULL;
}

static void deleted_too_many(struct cfn *c)
{
    uint32_t n = 0;

    LIST_EACH(&c->stacks, l)
        n += streq(list_entry(l, struct cfn_stack, link)->status, "DELETE_COMPLETE");
    LIST_EACH(&c->stacks, l)
    {
        struct cfn_stack *s = list_entry(l, struct cfn_stack, link);

        if (n <= CFN_DELETED_MAX)
            break;
        if (streq(s->status, "DELETE_COMPLETE") && !s->writing && s->exists && !s->removed) {
            s->removed = true;
            n--;
            client_call(c->d->o.client, &(struct client_call){.verb = CLIENT_DELETE, .resource = CFN_STACKS, .ns = CFN_NS,
                                                              .name = s->object}, on_written, s);
        }
    }
}

static void nothing_more(void *arg, const struct client_result *r)
{
    (void)arg;
    if (r->err)
        LOG(WARN, "cfn", "did=let-go error=\"%s\"", r->err->msg);
}

static void ignore(struct cfn *c, const struct obj *o)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *patch = val_list(a);

    LOG(WARN, "cfn", "object=%s did=ignore why=\"it was not written by this door\"", o->name);
    if (!obj_deleting(o) || c->stopping)
        return;
    push_change(a, patch, "/metadata/finalizers", val_list(a));
    client_call(c->d->o.client, &(struct client_call){.verb = CLIENT_PATCH, .resource = CFN_STACKS, .ns = CFN_NS, .name = o->name,
                                                      .body = patch, .patch_type = CLIENT_PATCH_JSON}, nothing_more, c);
}

static void on_added(void *arg, const struct obj *o)
{
    struct cfn *c = arg;
    struct cfn_stack *s = by_object(c, o->name);
    const struct val *v = obj_val(o), *spec = val_get(v, "spec");
    const char *id = val_str_at(spec, "stackId", ""), *slash = strrchr(id, '/');

    if (!s && (!is_ours(c, o, "spec") || !is_ours(c, o, "status"))) {
        ignore(c, o);
        return;
    }
    if (!s && slash) {
        s = stack_bare(c);
        s->exists = true;
        s->object = arena_strdup(s->a, o->name);
        s->spec = val_copy(s->a, spec);
        s->name = arena_strdup(s->a, val_str_at(spec, "stackName", ""));
        s->id = arena_strdup(s->a, id);
        s->uuid = arena_strdup(s->a, slash + 1);
        status_from_val(s, val_get(v, "status"));
        val_del(s->spec, "seal");
        s->reloaded = cfn_running(s);
        if (s->reloaded)
            cfn_step(s);
    }
    if (s && obj_deleting(o) && !streq(s->status, "DELETE_COMPLETE") && !streq(s->status, "DELETE_IN_PROGRESS"))
        cfn_begin_delete(s, NULL);
    else if (s && obj_deleting(o) && streq(s->status, "DELETE_COMPLETE") && !s->finalizer_gone) {
        s->finalizer_gone = true;
        cfn_save_spec(s);
        cfn_save(s, true, NULL, NULL);
    }
    deleted_too_many(c);
}

static void on_changed(void *arg, const struct obj *was, const struct obj *o)
{
    (void)was;
    if (obj_deleting(o))
        on_added(arg, o);
}

static void on_removed(void *arg, const struct obj *o)
{
    struct cfn_stack *s = by_object(arg, o->name);

    if (!s)
        return;
    s->removed = true;
    if (!s->writing && !s->works)
        cfn_stack_free(s);
}

void cfn_load(struct cfn *c)
{
    c->mirror = client_mirror(c->d->o.client, &(struct mirror_args){.resource = CFN_STACKS, .ns = CFN_NS, .added = on_added,
        .changed = on_changed, .removed = on_removed, .arg = c});
}
