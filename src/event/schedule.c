#include "event/schedule.h"

#include <stdio.h>
#include <string.h>

#include "base/base.h"
#include "base/log.h"
#include "base/map.h"
#include "codec/json.h"
#include "codec/kubetime.h"
#include "codec/obj.h"
#include "env/clock.h"
#include "env/fs.h"
#include "env/random.h"
#include "event/expression.h"
#include "event/input.h"
#include "function/function.h"

enum {
    TARGETS_MAX = 64,
    TRIES = 185,      /* EventBridge's defaults */
    AGE_S = 86400,
    WAIT_MAX_S = 300, /* between two tries */
    TIMER_MAX_MS = 3600 * 1000, /* the wall clock may be set: look at least so often */
    RECORD_MAX = 64 * 1024 * 1024,
};

struct entry { /* by uid */
    struct schedules *s;
    const struct obj *obj;
    bool rule, suspended, gone;
    struct expression x;
    struct zone *zone;
    int64_t start_s, end_s; /* end 0: none */
    int flexible_s;
    int64_t due_s;  /* the time to tell next, -1: none */
    int64_t fire_s; /* when to do so: later than due in a flexible window, or for another try */
    uint64_t owed;  /* bits of the targets that have not taken due_s yet; 0: it is not being told */
    uint64_t failed;
    int asked, tries;
};

struct schedules {
    struct schedules_opts o;
    char *region, *account, *path;
    struct map entries; /* uid -> struct entry */
    struct map last;    /* uid -> the second that was told last (as a pointer) */
    uv_timer_t timer;
    bool dirty, writing, gone;
    int busy; /* calls, a write, the timer: what still comes back */
};

struct asked { /* a target that was called */
    struct entry *e;
    int target;
};

static int64_t now_s(const struct schedules *s)
{
    return (s->o.now_ms ? s->o.now_ms(s->o.arg) : clock_real_ms()) / 1000;
}

/* ---- the record of what was told ---- */

static void read_record(struct schedules *s)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    _auto_(freep) char *text = NULL;
    struct err err;
    size_t n;
    struct val *v;

    text = fs_read(s->path, RECORD_MAX, &n, &err);
    v = text ? json_parse(a, text, n, &err) : NULL;
    if (!v && err.code != ERR_NOT_FOUND)
        LOG(ERROR, "event", "did=read-schedules error=\"%s\"", err.msg);
    VAL_EACH_MEMBER(v, m)
        if (m->v.type == VAL_INT && m->v.i > 0)
            map_put(&s->last, m->key, (void *)(intptr_t)m->v.i);
}

static void record_text(const struct schedules *s, struct buf *b)
{
    const char *uid;
    void *last;
    bool first = true;

    buf_addc(b, '{');
    for (uint32_t i = 0; map_next(&s->last, &i, &uid, &last); first = false)
        buf_printf(b, "%s\"%s\":%lld", first ? "" : ",", uid, (long long)(intptr_t)last);
    buf_addc(b, '}');
}

struct write {
    uv_work_t work;
    struct schedules *s;
    char *path;
    struct buf text;
    struct err err;
    bool ok;
};
static void write_run(uv_work_t *work)
{
    struct write *w = work->data;

    w->ok = fs_write(w->path, w->text.p, w->text.n, 0600, &w->err) == 0;
}
static void write_record(struct schedules *s);
static void unbusy(struct schedules *s);
static void write_done(uv_work_t *work, int status)
{
    struct write *w = work->data;
    struct schedules *s = w->s;

    (void)status;
    if (!w->ok)
        LOG(ERROR, "event", "did=write-schedules error=\"%s\"", w->err.msg);
    s->writing = false;
    if (s->dirty && !s->gone)
        write_record(s);
    buf_done(&w->text);
    free(w->path);
    free(w);
    unbusy(s);
}

/* On the pool, one at a time; what changes meanwhile is written behind it. */
static void write_record(struct schedules *s)
{
    struct write *w;

    s->dirty = true;
    if (s->writing)
        return;
    w = xcalloc(1, sizeof *w);
    w->s = s;
    w->path = xstrdup(s->path);
    w->work.data = w;
    record_text(s, &w->text);
    s->writing = true;
    s->dirty = false;
    s->busy++;
    uv_queue_work(s->o.loop, &w->work, write_run, write_done);
}

static int64_t told_last(const struct schedules *s, const char *uid)
{
    return (intptr_t)map_get(&s->last, uid);
}

/* ---- when ---- */

static void arm(struct schedules *s);

/* The time behind `after`, -1 when there is none, or it lies behind the end. */
static int64_t next(const struct entry *e, int64_t after)
{
    int64_t t = expression_next(&e->x, e->zone, e->start_s, after);

    return e->end_s && t > e->end_s ? -1 : t;
}

/* The latest time in (after, now], or the first one behind now; of many that were missed, the latest is enough. The
 * look goes back by an hour, a day, ..., so that few steps lie between. */
static int64_t next_or_missed(const struct entry *e, int64_t after, int64_t now)
{
    static const int64_t back[] = {3600, 86400, 31 * 86400, INT64_C(400) * 86400};
    int64_t t = next(e, after), later;

    if (t < 0 || t > now)
        return t;
    for (size_t i = 0; i < ARRAY_LEN(back); i++) {
        int64_t from = now - back[i] > after ? now - back[i] : after;

        t = next(e, from);
        if (t >= 0 && t <= now) {
            while ((later = next(e, t)) >= 0 && later <= now)
                t = later;
            return t;
        }
    }
    return next(e, after);
}

/* A flexible window spreads schedules evenly, each time of one alike. */
static void set_due(struct entry *e, int64_t due)
{
    e->due_s = due;
    e->fire_s = due;
    e->owed = e->failed = 0;
    e->tries = 0;
    if (due >= 0 && e->flexible_s)
        e->fire_s += str_hash(e->obj->uid, strlen(e->obj->uid)) % (uint32_t)e->flexible_s;
}

/* ---- telling the targets ---- */

static const struct val *targets_of(const struct entry *e, struct arena *a)
{
    const struct val *spec = val_get(obj_val(e->obj), "spec");
    struct val *one;

    if (e->rule)
        return val_get(spec, "targets");
    one = val_list(a);
    if (val_get(spec, "target"))
        val_push(a, one, val_get(spec, "target"));
    return one;
}

static const char *arn_of(const struct entry *e, struct arena *a, const char **ret_name)
{
    const struct val *spec = val_get(obj_val(e->obj), "spec");
    const char *name = val_str_at(spec, "name", e->obj->name), *group = val_str_at(spec, "group", "default");

    *ret_name = name;
    return e->rule ? arena_printf(a, "arn:aws:events:%s:%s:rule/%s", e->s->region, e->s->account, name)
                   : arena_printf(a, "arn:aws:scheduler:%s:%s:schedule/%s/%s", e->s->region, e->s->account, group, name);
}

static void entry_free(struct entry *e)
{
    obj_unref(e->obj);
    zone_free(e->zone);
    free(e);
}

static void tell(struct entry *e, const char *state, const char *reason)
{
    if (e->s->o.tell)
        e->s->o.tell(e->s->o.arg, e->obj, state, reason);
}

/* All targets have it, or will not get it: on to the next time. */
static void told(struct entry *e)
{
    struct schedules *s = e->s;

    map_put(&s->last, e->obj->uid, (void *)(intptr_t)e->due_s);
    write_record(s);
    set_due(e, next_or_missed(e, e->due_s, now_s(s)));
    if (e->due_s < 0) {
        tell(e, "Completed", "");
        if (!e->rule && val_bool_at(obj_val(e->obj), "spec.deleteAfterCompletion", false) && s->o.complete)
            s->o.complete(s->o.arg, e->obj);
    }
}

/* Every target that was called has answered. */
static void answered(struct entry *e)
{
    struct schedules *s = e->s;
    _auto_(arena_freep) struct arena *a = arena_new();
    int64_t now = now_s(s), wait = e->tries < 9 ? INT64_C(1) << e->tries : WAIT_MAX_S;
    int i = 0;

    VAL_EACH(targets_of(e, a), t)
    {
        uint64_t bit = UINT64_C(1) << i++;

        if ((e->owed & bit) && (e->tries >= val_int_at(t, "retries", TRIES) ||
                                now + wait - e->due_s > val_int_at(t, "maximumEventAgeSeconds", AGE_S))) {
            LOG(WARN, "event", "schedule=%s/%s target=%d did=give-up tries=%d", e->obj->namespace_, e->obj->name, i, e->tries + 1);
            e->owed &= ~bit;
        }
        if (i == TARGETS_MAX)
            break;
    }
    e->tries++;
    if (e->owed)
        e->fire_s = now + wait;
    else
        told(e);
    arm(s);
}

static void on_asked(void *arg, const struct err *err, const char *request_id)
{
    struct asked *k = arg;
    struct entry *e = k->e;
    struct schedules *s = e->s;
    bool for_good = err->code == ERR_INVALID_ARGUMENT || err->code == ERR_TOO_LARGE;

    (void)request_id;
    if (err->code == ERR_OK || for_good)
        e->owed &= ~(UINT64_C(1) << k->target);
    if (err->code != ERR_OK)
        LOG(WARN, "event", "schedule=%s/%s did=invoke error=\"%s\"", e->obj->namespace_, e->obj->name, err->msg);
    free(k);
    if (--e->asked == 0) {
        if (e->gone)
            entry_free(e);
        else
            answered(e);
    }
    unbusy(s);
}

static void call_target(struct entry *e, int i, const struct val *target, const struct input_event *event)
{
    struct schedules *s = e->s;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct asked *k = xcalloc(1, sizeof *k);
    struct err err = {0};
    size_t n = 0;
    const char *text = input_text(a, target, event, &n, &err);

    *k = (struct asked){e, i};
    e->asked++;
    s->busy++;
    if (text && str_empty(val_str_at(target, "function", NULL)))
        err_set(&err, INVALID_ARGUMENT, "the target is no function");
    if (err.code != ERR_OK) {
        on_asked(k, &err, NULL);
        return;
    }
    function_invoke_async(s->o.functions, &(struct function_call){
        .namespace_ = e->obj->namespace_, .name = val_str_at(target, "function", ""),
        .qualifier = val_str_at(target, "qualifier", NULL), .payload = text, .n = n, .trigger = FUNCTION_BY_TIMER,
        .delivery = arena_printf(a, "schedule/%s/%lld/%d", e->obj->uid, (long long)e->due_s, i)}, on_asked, k);
}

static void fire(struct entry *e)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const struct val *targets = targets_of(e, a);
    struct input_event event = {.source = e->rule ? "aws.events" : "aws.scheduler", .region = e->s->region,
                                .account = e->s->account, .time_s = e->due_s, .attempt = e->tries + 1};
    char id[FUNCTION_ID_MAX];
    int i = 0;

    if (!e->tries)
        VAL_EACH(targets, t)
            if (t && i < TARGETS_MAX)
                e->owed |= UINT64_C(1) << i++;
    if (!e->owed) {
        told(e);
        return;
    }
    uuid_new(id);
    event.id = id;
    event.arn = arn_of(e, a, &event.name);
    e->asked++; /* a target may answer at once; the last word is ours */
    e->s->busy++;
    i = 0;
    VAL_EACH(val_copy(a, targets), t) /* the tree may go while targets are called */
    {
        if (i < TARGETS_MAX && (e->owed >> i & 1))
            call_target(e, i, t, &event);
        i++;
    }
    e->s->busy--;
    if (--e->asked == 0)
        answered(e);
}

/* ---- the timer ---- */

void schedules_run(struct schedules *s)
{
    int64_t now = now_s(s);
    struct entry **due = NULL;
    uint32_t n = 0, cap = 0;
    void *v;

    for (uint32_t i = 0; map_next(&s->entries, &i, NULL, &v);) {
        struct entry *e = v;

        if (e->suspended || e->due_s < 0 || e->asked || e->fire_s > now)
            continue;
        if (n == cap)
            due = xrealloc(due, (cap = cap ? cap * 2 : 64) * sizeof(struct entry *));
        due[n++] = e;
    }
    for (uint32_t i = 0; i < n; i++)
        fire(due[i]);
    free(due);
    arm(s);
}

static void on_timer(uv_timer_t *t)
{
    schedules_run(t->data);
}

static void arm(struct schedules *s)
{
    int64_t now = now_s(s), first = INT64_MAX, ms;
    void *v;

    if (s->gone)
        return;
    for (uint32_t i = 0; map_next(&s->entries, &i, NULL, &v);) {
        const struct entry *e = v;

        if (!e->suspended && e->due_s >= 0 && !e->asked && e->fire_s < first)
            first = e->fire_s;
    }
    uv_timer_stop(&s->timer);
    if (first == INT64_MAX)
        return;
    uv_update_time(s->o.loop);
    ms = (first - now) * 1000;
    uv_timer_start(&s->timer, on_timer, ms <= 0 ? 1 : ms > TIMER_MAX_MS ? TIMER_MAX_MS : (uint64_t)ms, 0);
}

/* ---- objects ---- */

static int read_object(struct entry *e, struct err *err)
{
    const struct val *v = obj_val(e->obj), *spec = val_get(v, "spec");
    const char *zone = val_str_at(spec, "timeZone", "");
    int64_t start = kubetime_parse(val_str_at(spec, "startTime", "")), end = kubetime_parse(val_str_at(spec, "endTime", ""));
    int64_t made = kubetime_parse(val_str_at(v, "metadata.creationTimestamp", ""));

    made = made > 0 ? made / 1000 : now_s(e->s);
    e->suspended = val_bool_at(spec, "suspend", false);
    e->flexible_s = (int)val_int_at(spec, "flexibleMinutes", 0) * 60;
    e->end_s = end > 0 ? end / 1000 : 0;
    e->due_s = -1;
    if (e->rule && str_empty(val_str_at(spec, "schedule", NULL))) {
        e->suspended = true;
        return err_set(err, INVALID_ARGUMENT, "a rule without a schedule matches nothing: event patterns are not served yet");
    }
    if (expression_parse(val_str_at(spec, e->rule ? "schedule" : "expression", ""), &e->x, err) < 0)
        return -1;
    if (*zone && !streq(zone, "UTC") && !(e->zone = zone_load(zone, err)))
        return -1;
    /* a rule's rate has its first time one interval after the rule was made, a schedule's at its start */
    e->start_s = start > 0 ? start / 1000 : e->rule && e->x.kind == EXPRESSION_RATE ? made + e->x.every_s : made;
    return 0;
}

void schedules_put(struct schedules *s, const struct obj *o)
{
    struct entry *was = map_get(&s->entries, o->uid), *e;
    struct err err = {0};
    int64_t after = told_last(s, o->uid), now = now_s(s);
    bool same = was && val_equal(val_get(obj_val(was->obj), "spec"), val_get(obj_val(o), "spec"));

    if (same) { /* its status was told */
        obj_unref(was->obj);
        was->obj = obj_ref(o);
        return;
    }
    if (!was && s->entries.n >= SCHEDULES_MAX) {
        LOG(ERROR, "event", "schedule=%s/%s did=refuse error=\"there are %d already\"", o->namespace_, o->name, SCHEDULES_MAX);
        return;
    }
    if (was)
        schedules_remove(s, was->obj), after = now - 1; /* changed: from now on */
    e = xcalloc(1, sizeof *e);
    e->s = s;
    e->obj = obj_ref(o);
    e->rule = streq(val_str_at(obj_val(o), "kind", ""), "EventRule");
    map_put(&s->entries, o->uid, e);
    if (read_object(e, &err) < 0) {
        e->due_s = -1;
        tell(e, "Failed", err.msg);
        return;
    }
    if (!after)
        after = e->start_s - 1;
    if (was) {
        map_put(&s->last, o->uid, (void *)(intptr_t)after);
        write_record(s);
    }
    set_due(e, next_or_missed(e, after, now));
    tell(e, e->suspended ? "Suspended" : e->due_s < 0 ? "Completed" : "Active", "");
    arm(s);
}

void schedules_remove(struct schedules *s, const struct obj *o)
{
    struct entry *e = map_del(&s->entries, o->uid);

    if (!e)
        return;
    if (map_del(&s->last, o->uid))
        write_record(s);
    e->gone = true;
    if (!e->asked)
        entry_free(e);
}

/* ---- life ---- */

struct schedules *schedules_new(const struct schedules_opts *o)
{
    struct schedules *s = xcalloc(1, sizeof *s);

    s->o = *o;
    s->region = xstrdup(o->region ? o->region : "us-east-1");
    s->account = xstrdup(o->account ? o->account : "000000000000");
    s->path = xasprintf("%s/queue/schedules.json", o->state);
    read_record(s);
    uv_timer_init(o->loop, &s->timer);
    s->timer.data = s;
    s->busy = 1;
    return s;
}

static void unbusy(struct schedules *s)
{
    if (--s->busy || !s->gone)
        return;
    map_done(&s->entries);
    map_done(&s->last);
    free(s->region);
    free(s->account);
    free(s->path);
    free(s);
}

static void on_timer_gone(uv_handle_t *h)
{
    unbusy(h->data);
}

void *schedules_free(struct schedules *s)
{
    struct err err;
    void *v;

    if (!s)
        return NULL;
    s->gone = true;
    if (s->dirty || s->writing) {
        _auto_(buf_done) struct buf b = {0};

        record_text(s, &b);
        if (fs_write(s->path, b.p, b.n, 0600, &err) < 0)
            LOG(ERROR, "event", "did=write-schedules error=\"%s\"", err.msg);
    }
    for (uint32_t i = 0; map_next(&s->entries, &i, NULL, &v);) {
        struct entry *e = v;

        e->gone = true;
        if (!e->asked)
            entry_free(e);
    }
    uv_close((uv_handle_t *)&s->timer, on_timer_gone);
    return NULL;
}
