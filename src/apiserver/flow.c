#include "apiserver/flow.h"

#include "codec/kubetime.h"

#include <math.h>
#include <stdio.h>

enum {
    SEATS = 600, /* as a stock server: 400 reading and 200 writing */
    WINDOW_US = 4000,
    BUDGET_US = 2000,
    TURN_US = 2000, /* of waiting requests in one turn of the loop */
    WAIT_MAX_US = 15 * 1000 * 1000,
    WAIT_BYTES_MAX = 64 << 20,
    LIST_SEATS_MAX = 10, /* a seat for each hundred objects */
    QUEUES_MAX = 1024,
    HAND_MAX = 32,
};

struct flow_queue {
    struct list waiting; /* flow_ticket.link */
    uint32_t n;
    double took; /* microseconds, the level's measure of what its flows have had */
};

/* Stays, under its name, as long as there are tickets for it. */
struct flow_level {
    struct list link;
    char *name, *uid;
    bool gone, exempt, reject;
    uint32_t shares, hand, length; /* of a queue */
    int lend_percent, borrow_percent; /* -1: no limit */
    uint32_t nominal, kept /* not lent */, upper;
    struct flow_queue *queues;
    uint32_t queues_n, queues_want;
    uint32_t in_use, running, waiting, refs;
    double took; /* by its shares */
    uint64_t dispatched, refused_full, refused_time;
};

struct flow_schema {
    struct list link;
    char *name, *uid, *level_name;
    struct flow_level *level;
    struct val *spec; /* in flow.config */
    int64_t precedence;
    enum { BY_NOTHING, BY_USER, BY_NAMESPACE } distinguisher;
    bool gone;
    uint32_t refs, running, waiting;
    uint64_t dispatched, refused;
    double wait_s;
};

struct flow {
    struct api *api;
    struct arena *config; /* what the schemas' rules lie in */
    struct list schemas /* by precedence */, levels;
    struct flow_level *last; /* for what nothing matches: rejects beyond 30 seats */
    struct flow_schema *none;
    struct store_watch *watch[2];
    struct store_table *tables[2]; /* schemas, levels */
    struct env_timer *clock;
    uint32_t in_use, waiting;
    size_t waiting_bytes;
    int64_t window_us, spent_us;
    bool dirty, posted, tell;
};

/* ---------------------------------------------------------------- configuration */

static struct flow_level *level_need(struct flow *f, const char *name)
{
    struct flow_level *l;

    LIST_EACH(&f->levels, it)
        if (streq((l = list_entry(it, struct flow_level, link))->name, name))
            return l;
    l = xcalloc(1, sizeof *l);
    l->name = xstrdup(name);
    list_push(&f->levels, &l->link);
    return l;
}

static void level_read(struct flow *f, const struct obj *o)
{
    const struct val *spec = val_get(obj_val(o), "spec"), *limited = val_get(spec, "limited");
    const struct val *own = limited ? limited : val_get(spec, "exempt");
    struct flow_level *l = level_need(f, o->name);

    free(l->uid);
    l->uid = xstrdup(o->uid);
    l->gone = false;
    l->exempt = streq(val_str_at(spec, "type", ""), "Exempt");
    l->reject = !streq(val_str_at(limited, "limitResponse.type", "Reject"), "Queue");
    l->shares = (uint32_t)MAX(val_int_at(own, "nominalConcurrencyShares", l->exempt ? 0 : 30), 0);
    l->lend_percent = (int)MIN(MAX(val_int_at(own, "lendablePercent", 0), 0), 100);
    l->borrow_percent = (int)val_int_at(own, "borrowingLimitPercent", -1);
    l->queues_want = l->reject ? 1 : (uint32_t)MIN(MAX(val_int_at(limited, "limitResponse.queuing.queues", 64), 1), QUEUES_MAX);
    l->hand = (uint32_t)MIN(MAX(val_int_at(limited, "limitResponse.queuing.handSize", 8), 1), HAND_MAX);
    l->length = (uint32_t)MIN(MAX(val_int_at(limited, "limitResponse.queuing.queueLengthLimit", 50), 1), 10000);
}

static void schema_put(struct flow *f, struct flow_schema *s)
{
    struct list *before = &f->schemas;

    LIST_EACH(&f->schemas, it) {
        struct flow_schema *other = list_entry(it, struct flow_schema, link);

        if (s->precedence < other->precedence ||
            (s->precedence == other->precedence && strcmp(s->name, other->name) < 0)) {
            before = it;
            break;
        }
    }
    list_insert(before, &s->link);
}

static void schema_read(struct flow *f, const struct obj *o)
{
    struct flow_schema *s = NULL;
    const char *how;

    LIST_EACH(&f->schemas, it)
        if (streq(list_entry(it, struct flow_schema, link)->name, o->name))
            s = list_entry(it, struct flow_schema, link);
    if (!s) {
        s = xcalloc(1, sizeof *s);
        s->name = xstrdup(o->name);
    }
    list_remove(&s->link);
    free(s->uid);
    free(s->level_name);
    s->uid = xstrdup(o->uid);
    s->gone = false;
    s->spec = val_get(obj_edit(o, f->config), "spec");
    s->level_name = xstrdup(val_str_at(s->spec, "priorityLevelConfiguration.name", ""));
    s->precedence = val_int_at(s->spec, "matchingPrecedence", 1000);
    how = val_str_at(s->spec, "distinguisherMethod.type", "");
    s->distinguisher = streq(how, "ByUser") ? BY_USER : streq(how, "ByNamespace") ? BY_NAMESPACE : BY_NOTHING;
    schema_put(f, s);
}

static void each_object(struct flow *f, int which, void (*fn)(struct flow *f, const struct obj *o))
{
    struct store_iter it;
    const struct obj *o;
    struct err err;

    if (store_iter_init(&it, f->api->store, f->tables[which], NULL, 0, NULL, NULL, &err) < 0)
        return;
    while ((o = store_iter_next(&it)))
        fn(f, o);
    store_iter_done(&it);
}

static void queues_resize(struct flow_level *l)
{
    if (l->waiting || l->exempt || l->queues_n == l->queues_want)
        return;
    l->queues_n = l->queues_want;
    l->queues = xrealloc(l->queues, l->queues_n * sizeof *l->queues);
    for (uint32_t i = 0; i < l->queues_n; i++) {
        l->queues[i] = (struct flow_queue){0};
        list_init(&l->queues[i].waiting);
    }
}

static void level_free(struct flow_level *l)
{
    list_remove(&l->link);
    free(l->queues);
    free(l->name);
    free(l->uid);
    free(l);
}

static void schema_free_(struct flow_schema *s)
{
    list_remove(&s->link);
    free(s->name);
    free(s->uid);
    free(s->level_name);
    free(s);
}

static void seats_deal(struct flow *f)
{
    uint64_t all = 0;

    LIST_EACH(&f->levels, it)
        all += list_entry(it, struct flow_level, link)->shares;
    LIST_EACH(&f->levels, it) {
        struct flow_level *l = list_entry(it, struct flow_level, link);

        l->nominal = all ? (uint32_t)ceil((double)SEATS * l->shares / (double)all) : 1;
        l->kept = l->nominal - l->nominal * (uint32_t)l->lend_percent / 100;
        l->upper = l->borrow_percent < 0 ? SEATS + l->nominal
                                         : l->nominal + l->nominal * (uint32_t)l->borrow_percent / 100;
        queues_resize(l);
    }
}

static void told(void *arg, const struct api_response *resp)
{
    (void)arg;
    (void)resp; /* a change in between tells us again */
}

/* Applied, by the name that upstream's part has; but where nobody's fields are tracked nothing begins it. */
static void tell(struct flow *f, struct arena *a, const struct obj *o, struct val *v)
{
    struct api_request req = {.arena = a, .method = "PATCH", .body_val = v, .user_agent = "tandem", .at_once = true,
                              .content_type = "application/merge-patch+json"};

    req.path = arena_printf(a, "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/%s/status", o->name);
    if (val_len(val_get(obj_meta(o), "managedFields"))) {
        val_put_str(a, v, "apiVersion", "flowcontrol.apiserver.k8s.io/v1");
        val_put_str(a, v, "kind", "FlowSchema");
        val_put_str(a, val_need_map(a, v, "metadata"), "name", o->name);
        req.content_type = "application/apply-patch+yaml";
        req.query = "fieldManager=api-priority-and-fairness-config-consumer-v1&force=true";
    }
    api_do(f->api, &req, told, NULL);
}

/* What a FlowSchema's status says: does its level exist? Said after a change, by a post. */
static void tell_dangling(struct flow *f)
{
    _auto_(arena_freep) struct arena *a = arena_new();

    LIST_EACH(&f->schemas, it) {
        struct flow_schema *s = list_entry(it, struct flow_schema, link);
        const struct obj *o = s->gone ? NULL : store_get(f->api->store, f->tables[0], "", s->name);
        const char *status = s->level ? "False" : "True";
        struct val *v, *cond;
        char now[KUBETIME_MAX];
        bool said = false;

        VAL_EACH(o ? val_at(obj_val(o), "status.conditions") : NULL, c)
            said |= streq(val_str_at(c, "type", ""), "Dangling") && streq(val_str_at(c, "status", ""), status);
        if (!o || said)
            continue;
        v = val_map(a);
        cond = val_map(a);
        val_put_str(a, cond, "type", "Dangling");
        val_put_str(a, cond, "status", status);
        val_put_str(a, cond, "lastTransitionTime", kubetime_text(now, env_now_ms(f->api->env)));
        val_put_str(a, cond, "reason", s->level ? "Found" : "NotFound");
        val_put(a, cond, "message",
                val_printf(a, "This FlowSchema references the PriorityLevelConfiguration object named \"%s\" %s",
                           s->level_name, s->level ? "and it exists" : "but there is no such object"));
        val_push(a, val_need_list(a, val_need_map(a, v, "status"), "conditions"), cond);
        tell(f, a, o, v);
    }
}

static void config_read(struct flow *f)
{
    f->dirty = false;
    LIST_EACH(&f->levels, it)
        list_entry(it, struct flow_level, link)->gone = true;
    LIST_EACH(&f->schemas, it)
        list_entry(it, struct flow_schema, link)->gone = true;
    arena_reset(f->config);
    each_object(f, 1, level_read);
    each_object(f, 0, schema_read);
    LIST_EACH(&f->schemas, it) {
        struct flow_schema *s = list_entry(it, struct flow_schema, link);

        s->level = NULL;
        if (s->gone)
            s->spec = NULL;
        if (s->gone && !s->refs)
            schema_free_(s);
    }
    LIST_EACH(&f->levels, it) {
        struct flow_level *l = list_entry(it, struct flow_level, link);

        if (l->gone)
            l->shares = 0;
        if (l->gone && !l->refs && l != f->last)
            level_free(l);
    }
    LIST_EACH(&f->schemas, it) {
        struct flow_schema *s = list_entry(it, struct flow_schema, link);

        LIST_EACH(&f->levels, k) {
            struct flow_level *l = list_entry(k, struct flow_level, link);

            if (!s->gone && !l->gone && l != f->last && streq(l->name, s->level_name))
                s->level = l;
        }
    }
    seats_deal(f);
}

static void posted(void *arg);

static void post(struct flow *f)
{
    if (f->posted)
        return;
    f->posted = true;
    env_timer_start(f->clock, 0, 0);
}

static void on_change(void *arg, const struct store_event *ev)
{
    struct flow *f = arg;

    (void)ev;
    f->dirty = f->tell = true;
    post(f);
}

/* ---------------------------------------------------------------- whose flow is it */

static bool has_text(const struct val *list, const char *text)
{
    VAL_EACH(list, v)
        if (streq(val_text(v, ""), "*") || streq(val_text(v, ""), text))
            return true;
    return false;
}

static bool subject_is(const struct val *s, const struct auth_user *u)
{
    const char *kind = val_str_at(s, "kind", ""), *name, *ns = val_str_at(s, "serviceAccount.namespace", NULL);
    char account[640];

    if (streq(kind, "User")) {
        name = val_str_at(s, "user.name", "");
        return streq(name, "*") || streq(name, u->name);
    }
    if (streq(kind, "Group")) {
        name = val_str_at(s, "group.name", "");
        return streq(name, "*") || auth_user_in(u, name);
    }
    name = val_str_at(s, "serviceAccount.name", "");
    snprintf(account, sizeof account, "system:serviceaccount:%s:%s", ns ? ns : "", streq(name, "*") ? "" : name);
    return streq(name, "*") ? str_starts(u->name, account) : streq(u->name, account);
}

static bool resource_rule_is(const struct val *r, const struct about *a)
{
    char both[320];

    snprintf(both, sizeof both, "%s%s%s", a->resource, *a->sub ? "/" : "", a->sub);
    if (!has_text(val_get(r, "verbs"), a->verb) || !has_text(val_get(r, "apiGroups"), a->group) ||
        !has_text(val_get(r, "resources"), both))
        return false;
    return *a->ns ? has_text(val_get(r, "namespaces"), a->ns) : val_bool_at(r, "clusterScope", false);
}

static bool page_rule_is(const struct val *r, const struct about *a)
{
    if (!has_text(val_get(r, "verbs"), a->verb))
        return false;
    VAL_EACH(val_get(r, "nonResourceURLs"), u) {
        const char *url = val_text(u, "");
        size_t n = strlen(url);

        if (streq(url, "*") || streq(url, a->path) ||
            (n && url[n - 1] == '*' && strncmp(url, a->path, n - 1) == 0))
            return true;
    }
    return false;
}

static bool schema_is(const struct flow_schema *s, const struct about *a, const struct auth_user *u)
{
    VAL_EACH(val_get(s->spec, "rules"), rule) {
        bool subject = false, rest = false;

        VAL_EACH(val_get(rule, "subjects"), x)
            subject = subject || subject_is(x, u);
        if (!subject)
            continue;
        if (a->resource_request)
            VAL_EACH(val_get(rule, "resourceRules"), x)
                rest = rest || resource_rule_is(x, a);
        else
            VAL_EACH(val_get(rule, "nonResourceRules"), x)
                rest = rest || page_rule_is(x, a);
        if (rest)
            return true;
    }
    return false;
}

static void classify(struct flow *f, struct flow_ticket *t, const struct about *a, const struct auth_user *u)
{
    t->schema = f->none;
    t->level = f->last;
    LIST_EACH(&f->schemas, it) {
        struct flow_schema *s = list_entry(it, struct flow_schema, link);

        if (s->gone || !s->level || !schema_is(s, a, u))
            continue;
        t->schema = s;
        t->level = s->level;
        return;
    }
}

/* The shortest of the queues that the flow's hash deals. */
static struct flow_queue *queue_pick(struct flow_level *l, const struct flow_schema *s, const struct about *a,
                                     const struct auth_user *u)
{
    const char *who = s->distinguisher == BY_USER ? u->name : s->distinguisher == BY_NAMESPACE ? a->ns : "";
    uint64_t hash = (uint64_t)str_hash(who, strlen(who)) << 32 | str_hash(s->name, strlen(s->name));
    struct flow_queue *best = NULL;

    for (uint32_t i = 0; i < l->hand; i++) {
        struct flow_queue *q;

        hash = hash * 6364136223846793005u + 1442695040888963407u;
        q = &l->queues[(hash >> 33) % l->queues_n];
        if (!best || q->n < best->n || (q->n == best->n && q->took < best->took))
            best = q;
    }
    return best;
}

static uint32_t seats_of(struct flow *f, const struct about *a, int64_t limit)
{
    char key[512];
    uint32_t n;

    if (!streq(a->verb, "list"))
        return 1;
    snprintf(key, sizeof key, "%s%s%s", a->group, *a->group ? "/" : "", a->resource);
    n = store_count(f->api->store, store_table(f->api->store, key), NULL);
    if (limit > 0 && limit < n)
        n = (uint32_t)limit;
    return MIN(MAX((n + 99) / 100, 1u), (uint32_t)LIST_SEATS_MAX);
}

/* ---------------------------------------------------------------- seats and turns */

/* What a level keeps for itself is always there for it; the rest is a pool for all. */
static bool seat_free(const struct flow *f, const struct flow_level *l, uint32_t seats)
{
    uint32_t taken = 0;

    if (l->exempt || !l->in_use || l->in_use + seats <= l->kept)
        return true;
    if (l->in_use + seats > l->upper)
        return false;
    LIST_EACH(&f->levels, it) {
        const struct flow_level *other = list_entry(it, struct flow_level, link);

        if (other != l && !other->exempt)
            taken += MAX(other->in_use, other->kept);
    }
    return taken + l->in_use + seats <= SEATS;
}

static void take(struct flow *f, struct flow_ticket *t)
{
    t->holds = true;
    t->level->in_use += t->seats;
    t->level->running++;
    t->level->dispatched++;
    t->schema->running++;
    t->schema->dispatched++;
    t->schema->wait_s += (double)(env_mono_us(f->api->env) - t->since_us) / 1e6;
}

static void unqueue(struct flow *f, struct flow_ticket *t)
{
    list_remove(&t->link);
    t->queue->n--;
    t->queue = NULL;
    t->level->waiting--;
    t->schema->waiting--;
    f->waiting--;
    f->waiting_bytes -= t->bytes;
}

static void let_go(struct flow_ticket *t)
{
    t->level->refs--;
    t->schema->refs--;
    t->level = NULL;
    t->schema = NULL;
}

void flow_leave(struct flow *f, struct flow_ticket *t)
{
    if (!t->level)
        return;
    if (t->queue)
        unqueue(f, t);
    if (t->holds) {
        t->holds = false;
        t->level->in_use -= t->seats;
        t->level->running--;
        t->schema->running--;
        if (f->waiting)
            post(f);
    }
    let_go(t);
}

void flow_spent(struct flow *f, struct flow_level *level, int64_t us)
{
    f->spent_us += us;
    level->took += (double)us / MAX(level->shares, 1u);
}

/* The level whose turn it is: the one that had least, by its shares. A level that comes back after
 * idle time does not bring what it did not use then. */
static struct flow_level *level_next(struct flow *f)
{
    struct flow_level *best = NULL;

    LIST_EACH(&f->levels, it) {
        struct flow_level *l = list_entry(it, struct flow_level, link);

        if (l->waiting && seat_free(f, l, 1) && (!best || l->took < best->took))
            best = l;
    }
    return best;
}

static struct flow_queue *queue_next(struct flow_level *l)
{
    struct flow_queue *best = NULL;

    for (uint32_t i = 0; i < l->queues_n; i++)
        if (l->queues[i].n && (!best || l->queues[i].took < best->took))
            best = &l->queues[i];
    return best;
}

static void refuse_old(struct flow *f)
{
    int64_t now = env_mono_us(f->api->env);

    LIST_EACH(&f->levels, it) {
        struct flow_level *l = list_entry(it, struct flow_level, link);

        for (uint32_t i = 0; l->waiting && i < l->queues_n; i++)
            while (l->queues[i].n) {
                struct flow_ticket *t = list_entry(list_first(&l->queues[i].waiting), struct flow_ticket, link);

                if (now - t->since_us < WAIT_MAX_US)
                    break;
                l->refused_time++;
                t->schema->refused++;
                unqueue(f, t);
                let_go(t);
                t->refuse(t->arg);
            }
    }
}

static void posted(void *arg)
{
    struct flow *f = arg;
    int64_t began = env_mono_us(f->api->env), now = began;
    struct flow_level *l;

    f->posted = false;
    if (f->dirty)
        config_read(f);
    if (f->tell) {
        f->tell = false;
        tell_dangling(f);
    }
    refuse_old(f);
    while (now - began < TURN_US && f->waiting && (l = level_next(f))) {
        struct flow_queue *q = queue_next(l);
        struct flow_ticket *t = list_entry(list_first(&q->waiting), struct flow_ticket, link);
        int64_t after;

        unqueue(f, t);
        take(f, t);
        t->go(t->arg); /* t may be over, and l be gone with the next reading of the configuration */
        after = env_mono_us(f->api->env);
        l->took += (double)(after - now) / MAX(l->shares, 1u);
        q->took += (double)(after - now);
        now = after;
    }
    f->window_us = now;
    f->spent_us = f->waiting ? BUDGET_US : 0; /* those who come now line up behind those who wait */
    if (f->waiting && level_next(f))
        post(f);
    else if (f->waiting)
        env_timer_start(f->clock, 1000, 0); /* for those who wait too long */
}

enum flow_verdict flow_enter(struct flow *f, struct flow_ticket *t, struct arena *a,
                             const struct about *about, const struct auth_user *user, int64_t limit)
{
    int64_t now = env_mono_us(f->api->env);
    struct flow_level *l;
    bool budget;

    if (f->dirty)
        config_read(f);
    classify(f, t, about, user);
    l = t->level;
    t->schema_uid = arena_strdup(a, t->schema->uid ? t->schema->uid : "");
    t->level_uid = arena_strdup(a, l->uid ? l->uid : "");
    t->since_us = now;
    t->seats = l->exempt ? 1 : MIN(seats_of(f, about, limit), MAX(l->nominal, 1u));
    l->refs++;
    t->schema->refs++;
    if (now - f->window_us > WINDOW_US) {
        f->window_us = now;
        f->spent_us = 0;
    }
    budget = f->spent_us < BUDGET_US;
    if (l->exempt || (budget && !l->waiting && seat_free(f, l, t->seats))) {
        take(f, t);
        return FLOW_GO;
    }
    t->queue = queue_pick(l, t->schema, about, user);
    if ((l->reject && !seat_free(f, l, t->seats)) || t->queue->n >= l->length ||
        f->waiting_bytes + t->bytes > WAIT_BYTES_MAX) {
        t->queue = NULL;
        l->refused_full++;
        t->schema->refused++;
        let_go(t);
        return FLOW_REFUSED;
    }
    if (!l->waiting) { /* it begins where the others are */
        struct flow_level *least = level_next(f);

        if (least)
            l->took = MAX(l->took, least->took);
    }
    if (!t->queue->n) {
        struct flow_queue *least = queue_next(l);

        if (least)
            t->queue->took = MAX(t->queue->took, least->took);
    }
    list_push(&t->queue->waiting, &t->link);
    t->queue->n++;
    l->waiting++;
    t->schema->waiting++;
    f->waiting++;
    f->waiting_bytes += t->bytes;
    post(f);
    return FLOW_WAIT;
}

/* ---------------------------------------------------------------- what is seen from outside */

void flow_metrics(struct flow *f, struct buf *b)
{
    static const struct {
        const char *name, *type;
    } levels[] = {{"nominal_limit_seats", "gauge"}, {"lower_limit_seats", "gauge"}, {"upper_limit_seats", "gauge"},
                  {"current_limit_seats", "gauge"}, {"request_concurrency_limit", "gauge"}};

    for (size_t i = 0; i < ARRAY_LEN(levels); i++) {
        buf_printf(b, "# TYPE apiserver_flowcontrol_%s %s\n", levels[i].name, levels[i].type);
        LIST_EACH(&f->levels, it) {
            const struct flow_level *l = list_entry(it, struct flow_level, link);
            uint32_t value = i == 1 ? l->kept : i == 2 ? l->upper : i == 3 ? MAX(l->nominal, l->in_use) : l->nominal;

            if (!l->gone && l != f->last)
                buf_printf(b, "apiserver_flowcontrol_%s{priority_level=\"%s\"} %u\n", levels[i].name, l->name, value);
        }
    }
    buf_adds(b, "# TYPE apiserver_flowcontrol_current_executing_requests gauge\n"
                "# TYPE apiserver_flowcontrol_current_inqueue_requests gauge\n"
                "# TYPE apiserver_flowcontrol_dispatched_requests_total counter\n"
                "# TYPE apiserver_flowcontrol_rejected_requests_total counter\n"
                "# TYPE apiserver_flowcontrol_request_wait_duration_seconds summary\n");
    LIST_EACH(&f->schemas, it) {
        const struct flow_schema *s = list_entry(it, struct flow_schema, link);
        char labels[1400];

        if (s->gone)
            continue;
        snprintf(labels, sizeof labels, "flow_schema=\"%s\",priority_level=\"%s\"", s->name, s->level_name);
        buf_printf(b, "apiserver_flowcontrol_current_executing_requests{%s} %u\n", labels, s->running);
        buf_printf(b, "apiserver_flowcontrol_current_inqueue_requests{%s} %u\n", labels, s->waiting);
        buf_printf(b, "apiserver_flowcontrol_dispatched_requests_total{%s} %llu\n", labels, (unsigned long long)s->dispatched);
        if (s->refused)
            buf_printf(b, "apiserver_flowcontrol_rejected_requests_total{%s,reason=\"queue-full\"} %llu\n", labels,
                       (unsigned long long)s->refused);
        buf_printf(b, "apiserver_flowcontrol_request_wait_duration_seconds_sum{%s,execute=\"true\"} %.6f\n"
                   "apiserver_flowcontrol_request_wait_duration_seconds_count{%s,execute=\"true\"} %llu\n",
                   labels, s->wait_s, labels, (unsigned long long)s->dispatched);
    }
}

static void dump_levels(struct flow *f, struct buf *b)
{
    buf_adds(b, "PriorityLevelName, ActiveQueues, IsIdle, IsQuiescing, WaitingRequests, ExecutingRequests, "
                "DispatchedRequests, RejectedRequests, TimedoutRequests, CancelledRequests\n");
    LIST_EACH(&f->levels, it) {
        const struct flow_level *l = list_entry(it, struct flow_level, link);
        uint32_t active = 0;

        for (uint32_t i = 0; i < l->queues_n; i++)
            active += l->queues[i].n > 0;
        if (l != f->last)
            buf_printf(b, "%s, %u, %s, %s, %u, %u, %llu, %llu, %llu, 0\n", l->name, active,
                       l->running || l->waiting ? "false" : "true", l->gone ? "true" : "false", l->waiting, l->running,
                       (unsigned long long)l->dispatched, (unsigned long long)l->refused_full,
                       (unsigned long long)l->refused_time);
    }
}

static void dump_queues(struct flow *f, struct buf *b)
{
    buf_adds(b, "PriorityLevelName, Index, PendingRequests, TookSeconds\n");
    LIST_EACH(&f->levels, it) {
        const struct flow_level *l = list_entry(it, struct flow_level, link);

        for (uint32_t i = 0; i < l->queues_n && l != f->last; i++)
            buf_printf(b, "%s, %u, %u, %.6f\n", l->name, i, l->queues[i].n, l->queues[i].took / 1e6);
    }
}

static void dump_requests(struct flow *f, struct buf *b)
{
    int64_t now = env_mono_us(f->api->env);

    buf_adds(b, "PriorityLevelName, FlowSchemaName, QueueIndex, RequestIndexInQueue, InitialSeats, WaitedSeconds\n");
    LIST_EACH(&f->levels, it) {
        const struct flow_level *l = list_entry(it, struct flow_level, link);

        for (uint32_t i = 0; i < l->queues_n; i++) {
            uint32_t k = 0;

            LIST_EACH(&l->queues[i].waiting, q) {
                const struct flow_ticket *t = list_entry(q, struct flow_ticket, link);

                buf_printf(b, "%s, %s, %u, %u, %u, %.3f\n", l->name, t->schema->name, i, k++, t->seats,
                           (double)(now - t->since_us) / 1e6);
            }
        }
    }
}

int flow_dump(struct call *c, const char *what)
{
    struct buf b = {.max = 16 << 20};

    if (streq(what, "dump_priority_levels"))
        dump_levels(c->api->flow, &b);
    else if (streq(what, "dump_queues"))
        dump_queues(c->api->flow, &b);
    else if (streq(what, "dump_requests"))
        dump_requests(c->api->flow, &b);
    else
        return fail_no_page(c);
    answer_text(c, 200, "text/plain; charset=utf-8", arena_memdup(c->a, b.p, b.n), b.n);
    buf_done(&b);
    return 0;
}

/* ---------------------------------------------------------------- life */

struct flow *flow_new(struct api *api)
{
    static const char *const plurals[] = {"flowschemas", "prioritylevelconfigurations"};
    struct flow *f = xcalloc(1, sizeof *f);
    struct err err;

    f->api = api;
    f->config = arena_new();
    list_init(&f->schemas);
    list_init(&f->levels);
    f->last = level_need(f, "");
    *f->last = (struct flow_level){.link = f->last->link, .name = f->last->name, .reject = true, .queues_want = 1,
                                   .hand = 1, .length = 50};
    f->none = xcalloc(1, sizeof *f->none); /* in no list */
    f->none->name = xstrdup("");
    f->none->level_name = xstrdup("");
    f->clock = env_timer_new(api->env, posted, f);
    for (int i = 0; i < 2; i++) {
        f->tables[i] = table_named(api->store, "flowcontrol.apiserver.k8s.io", plurals[i]);
        f->watch[i] = store_watch(api->store, f->tables[i], 0, STORE_WATCH_HEAD, on_change, f, &err);
    }
    f->tell = true;
    config_read(f);
    post(f);
    return f;
}

void *flow_free(struct flow *f)
{
    if (!f)
        return NULL;
    for (int i = 0; i < 2; i++)
        store_watch_free(f->watch[i]);
    env_timer_free(f->clock);
    LIST_EACH(&f->schemas, it)
        schema_free_(list_entry(it, struct flow_schema, link));
    LIST_EACH(&f->levels, it)
        level_free(list_entry(it, struct flow_level, link));
    free(f->none->name);
    free(f->none->level_name);
    free(f->none);
    arena_free(f->config);
    free(f);
    return NULL;
}
