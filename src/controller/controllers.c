/* The frame in which the controllers run: one mirror per kind that any of them watches, one work
 * queue per controller, and turns of the loop that work on a bounded number of keys.
 *
 * News from a mirror may come inside a write of a pass (the mirrors follow the store's head), so
 * changed() only ever puts keys on queues. */
#include "controller/controllers.h"

#include <stdio.h>

#include "base/log.h"
#include "client/workq.h"
#include "controller/ctl_int.h"
#include "controller/guard.h"

enum { KEYS_MAX = 4000000, PASSES_A_TURN = 64, TURN_US = 4000, BURST = 500 };

#define CONTROLLER(name) extern const struct controller name##_controller;
#include "controller/controllers.def"
#undef CONTROLLER

static const struct controller *const table[] = {
#define CONTROLLER(name) &name##_controller,
#include "controller/controllers.def"
#undef CONTROLLER
};

const struct kind_row kind_rows[KINDS] = {
#define KIND(name, resource, api_version, kind) {resource, api_version, kind},
#include "controller/kinds.def"
#undef KIND
};

/* ---- news ---- */

static void tell(struct controllers *all, enum kind kind, const struct obj *was,
                 const struct obj *now)
{
    if (!all->running)
        return; /* all that is there is told when they begin */
    for (uint32_t i = 0; i < all->slots_n; i++) {
        struct ctl *ctl = &all->slots[i].ctl;
        struct arena *before = ctl->arena;

        if (!(ctl->me->kinds & KIND_BIT(kind)))
            continue;
        ctl->arena = all->news;
        ctl->me->changed(ctl, kind, was, now);
        ctl->arena = before;
    }
    arena_reset(all->news);
}

static void on_added(void *arg, const struct obj *o)
{
    struct mirrored *m = arg;

    tell(m->all, m->kind, NULL, o);
}

static void on_changed(void *arg, const struct obj *was, const struct obj *o)
{
    struct mirrored *m = arg;

    tell(m->all, m->kind, was, o);
}

static void on_removed(void *arg, const struct obj *last)
{
    struct mirrored *m = arg;

    tell(m->all, m->kind, last, NULL);
}

/* Owned ones by the uid of their controller, the others by their namespace. */
static const char *owner_or_orphan(const struct obj *o, char *out, size_t n)
{
    const struct val *owner = obj_controller(o);

    if (owner)
        return val_text(val_get(owner, "uid"), "");
    snprintf(out, n, "orphan/%s", o->namespace_);
    return out;
}

static void tell_all(struct controllers *all)
{
    for (int k = 0; k < KINDS; k++) {
        struct arena *a = arena_new();
        struct objs there = all->kinds[k].mirror ? mirror_list(all->kinds[k].mirror, a, NULL) : (struct objs){0};

        for (uint32_t i = 0; i < there.n; i++)
            tell(all, (enum kind)k, NULL, there.v[i]);
        arena_free(a);
    }
}

/* Nobody works before all that is there has been seen (over HTTPS the mirrors fill later). */
static void kind_synced(void *arg)
{
    struct controllers *all = ((struct mirrored *)arg)->all;

    if (!all || all->running || !all->mirroring)
        return;
    for (int k = 0; k < KINDS; k++)
        if (all->kinds[k].mirror && !mirror_synced(all->kinds[k].mirror))
            return;
    all->running = true;
    for (uint32_t i = 0; i < all->slots_n; i++) {
        struct slot *s = &all->slots[i];

        if (s->ctl.me->start)
            s->ctl.me->start(&s->ctl);
        if (workq_len(s->ctl.q))
            env_timer_start(s->next, 0, 0);
    }
    if (!client_is_local(all->client)) /* a local mirror tells what there was after this */
        tell_all(all);
    arena_reset(all->pass);
}

static void mirror_kind(struct controllers *all, enum kind kind)
{
    struct mirrored *m = &all->kinds[kind];
    struct mirror_args args = {.resource = kind_rows[kind].resource, .added = on_added,
                               .changed = on_changed, .removed = on_removed,
                               .synced = kind_synced, .arg = m};

    *m = (struct mirrored){.all = all, .kind = kind};
    m->mirror = client_mirror(all->client, &args);
    m->by_owner = mirror_index(m->mirror, owner_or_orphan);
    if (kind == K_POD)
        m->by_node = mirror_index(m->mirror, key_node_name);
}

/* ---- turns ---- */

static void after_pass(struct slot *s, const char *key, enum again again, struct err *err)
{
    struct err lost;

    s->ctl.all->stats.passes++;
    if (again == RETRY) {
        s->ctl.all->stats.failures++;
        if (err->code == ERR_CONFLICT || err->code == ERR_NOT_FOUND)
            LOG(DEBUG, "controller", "ctl=%s key=%s did=retry why=\"%s\"", s->ctl.me->name, key,
                err->msg);
        else
            LOG(WARN, "controller", "ctl=%s key=%s did=retry why=\"%s\"", s->ctl.me->name, key,
                err->msg);
        if (workq_retry(s->ctl.q, key, &lost) < 0)
            LOG(ERROR, "controller", "ctl=%s key=%s lost: %s", s->ctl.me->name, key, lost.msg);
        return;
    }
    workq_forget(s->ctl.q, key);
    if (again == AGAIN)
        ctl_want_key(&s->ctl, key);
}

static void turn(void *arg)
{
    struct slot *s = arg;
    struct controllers *all = s->ctl.all;
    int64_t until = env_mono_us(all->env) + TURN_US;
    const char *key;

    for (int i = 0; i < PASSES_A_TURN && (key = workq_take(s->ctl.q)); i++) {
        struct err err = {0};
        enum again again;

        s->ctl.now_ms = env_now_ms(all->env);
        again = s->ctl.me->reconcile(&s->ctl, key, &err);
        after_pass(s, key, again, &err);
        workq_done(s->ctl.q, key);
        arena_reset(all->pass);
        if (env_mono_us(all->env) > until)
            break;
    }
    if (workq_len(s->ctl.q)) /* the others first, then on */
        env_timer_start(s->next, 0, 0);
}

static void ready(void *arg)
{
    struct slot *s = arg;

    if (s->ctl.all->running && !env_timer_active(s->next))
        turn(s);
}

/* ---- life ---- */

/* Is this piece of a list ("job", "job-controller") the controller's name? */
static bool names(const char *p, size_t n, const char *name)
{
    static const char tail[] = "-controller";
    size_t k = strlen(name);

    return n >= k && strncmp(p, name, k) == 0 &&
           (n == k || (n == k + strlen(tail) && strncmp(p + k, tail, strlen(tail)) == 0));
}

static bool wanted(const char *only, const char *name)
{
    bool all = false;

    if (!only)
        return true;
    for (size_t n; *only; only += n + (only[n] == ',')) {
        bool no = *only == '-';

        n = strcspn(only, ",");
        if (names(only + no, n - no, name))
            return !no;
        all |= n == 1 && *only == '*';
    }
    return all;
}

struct controllers *controllers_start(struct client *client, struct env *env,
                                      const struct controllers_opts *opts, struct err *err)
{
    struct controllers *all = xcalloc(1, sizeof *all);
    uint64_t kinds = 0;

    (void)err;
    all->client = client;
    all->env = env;
    all->opts = *opts;
    if (!all->opts.node_grace_ms)
        all->opts.node_grace_ms = 40000;
    if (!all->opts.finished_pods_max)
        all->opts.finished_pods_max = 12500;
    all->pass = arena_new();
    all->news = arena_new();
    all->slots = xcalloc(ARRAY_LEN(table), sizeof *all->slots);
    for (size_t i = 0; i < ARRAY_LEN(table); i++) {
        struct slot *s = &all->slots[all->slots_n];

        if (!wanted(opts->only, table[i]->name))
            continue;
        s->ctl = (struct ctl){.all = all, .client = client, .env = env, .arena = all->pass,
                              .me = table[i], .now_ms = env_now_ms(env), .burst = BURST};
        s->ctl.guard = guard_new();
        s->ctl.q = workq_new(env, KEYS_MAX);
        s->next = env_timer_new(env, turn, s);
        workq_on_ready(s->ctl.q, ready, s);
        kinds |= table[i]->kinds;
        all->slots_n++;
    }
    for (int k = 0; k < KINDS; k++) /* reads of kinds that nobody watches are made to work too */
        if (kinds)
            mirror_kind(all, (enum kind)k);
    all->mirroring = true;
    kind_synced(&all->kinds[0]);
    return all;
}

void controllers_set_ca(struct controllers *all, const char *ca_pem)
{
    if (all->opts.ca_pem && streq(all->opts.ca_pem, ca_pem)) {
        all->opts.ca_pem = ca_pem;
        return;
    }
    all->opts.ca_pem = ca_pem;
    for (uint32_t i = 0; i < all->slots_n; i++) {
        struct ctl *ctl = &all->slots[i].ctl;

        if (streq(ctl->me->name, "rootca"))
            ctl_want_all(ctl, K_NAMESPACE, NULL);
        else if (streq(ctl->me->name, "tokens"))
            ctl_want_all(ctl, K_SECRET, NULL);
    }
    arena_reset(all->pass);
}

void *controllers_stop(struct controllers *all)
{
    if (!all)
        return NULL;
    for (uint32_t i = 0; i < all->slots_n; i++)
        if (all->slots[i].ctl.me->stop)
            all->slots[i].ctl.me->stop(&all->slots[i].ctl);
    for (int k = 0; k < KINDS; k++)
        if (all->kinds[k].mirror)
            mirror_free(all->kinds[k].mirror);
    for (uint32_t i = 0; i < all->slots_n; i++)
        workq_free(all->slots[i].ctl.q), guard_free(all->slots[i].ctl.guard);
    for (uint32_t i = 0; i < all->slots_n; i++)
        env_timer_free(all->slots[i].next);
    arena_free(all->pass);
    arena_free(all->news);
    free(all->slots);
    free(all);
    return NULL;
}

struct controllers_stats controllers_stats(const struct controllers *all)
{
    struct controllers_stats stats = all->stats;

    for (uint32_t i = 0; i < all->slots_n; i++)
        stats.queued += workq_len(all->slots[i].ctl.q);
    return stats;
}
