/* A node that only pretends: its pods become Running after a while, end, die or go away when they
 * are told to. It works by the client door alone, as the real one does. */
#include "sim.h"

#include "codec/kubetime.h"

enum { HEARTBEAT_MS = 10000, LEASE_S = 40 };

struct played { /* one pod */
    struct node *n;
    struct env_timer *timer;
    char *uid, *ns, *name;
    enum { STARTS, RUNS, ENDS, ENDED } stage;
    bool leaving;
    int ip;
};
struct node {
    struct sim *s;
    struct client *c;
    struct mirror *pods;
    struct lease *lease;
    struct env_timer *beat;
    struct map played; /* by uid */
    int number, next_ip;
};

const char *node_name(int number)
{
    static const char *const names[NODES] = {"n0", "n1", "n2"};

    return names[number];
}


/* --- the node itself -------------------------------------------------------------------------- */
static void put_conditions(struct arena *a, struct val *status, const char *now)
{
    static const char *const types[][3] = {{"MemoryPressure", "False", "KubeletHasSufficientMemory"},
                                           {"DiskPressure", "False", "KubeletHasNoDiskPressure"},
                                           {"PIDPressure", "False", "KubeletHasSufficientPID"},
                                           {"Ready", "True", "KubeletReady"}};
    struct val *list = val_need_list(a, status, "conditions");

    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        struct val *c = val_push(a, list, val_map(a));

        val_put_str(a, c, "type", types[i][0]);
        val_put_str(a, c, "status", types[i][1]);
        val_put_str(a, c, "reason", types[i][2]);
        val_put_str(a, c, "message", "simulated");
        val_put_str(a, c, "lastHeartbeatTime", now);
        val_put_str(a, c, "lastTransitionTime", "2026-01-01T00:00:00Z"); /* else each beat would be news */
    }
}

static void beat_answered(void *arg, const struct client_result *r);

static void beat(void *arg)
{
    struct node *n = arg;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = val_map(a), *status = val_need_map(a, v, "status"), *cap;
    char t[KUBETIME_MAX];
    struct client_call call = {.verb = CLIENT_PATCH,
                               .resource = "v1/nodes",
                               .name = node_name(n->number),
                               .sub = "status",
                               .patch_type = CLIENT_PATCH_MERGE,
                               .body = v};

    put_conditions(a, status, kubetime_text(t, env_now_ms(n->s->env)));
    for (int i = 0; i < 2; i++) {
        cap = val_need_map(a, status, i ? "allocatable" : "capacity");
        val_put_str(a, cap, "cpu", "4");
        val_put_str(a, cap, "memory", "8Gi");
        val_put_str(a, cap, "pods", "40");
    }
    client_call(n->c, &call, beat_answered, n);
}

static void made(void *arg, const struct client_result *r)
{
    if (!r->err)
        beat(arg);
}

static void beat_answered(void *arg, const struct client_result *r)
{
    struct node *n = arg;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = val_map(a);
    struct client_call call = {.verb = CLIENT_CREATE, .resource = "v1/nodes", .body = v};

    if (!r->err || r->err->code != ERR_NOT_FOUND)
        return;
    val_put_str(a, v, "apiVersion", "v1");
    val_put_str(a, v, "kind", "Node");
    val_set_at(a, v, "metadata.name", val_str(a, node_name(n->number)));
    val_put_str(a, val_set_at(a, v, "metadata.labels", val_map(a)), "kubernetes.io/hostname", node_name(n->number));
    client_call(n->c, &call, made, n);
}

/* --- pods ------------------------------------------------------------------------------------- */
static void played_free(struct played *p)
{
    env_timer_free(p->timer);
    free(p->uid);
    free(p->ns);
    free(p->name);
    free(p);
}

static void later(struct played *p, int64_t min_ms, int64_t max_ms)
{
    env_timer_start(p->timer, min_ms + env_below(p->n->s->env, (uint32_t)(max_ms - min_ms + 1)), 0);
}

static void again(void *arg, const struct client_result *r)
{
    struct sim *s = arg;

    if (!r->err || r->err->code == ERR_CANCELLED)
        return;
    SIM_TRACE(s, "node: %s: %s", err_name(r->err->code), r->err->msg);
    s->refused++;
}

static void write_status(struct played *p, const char *phase, bool ready, int exit_code)
{
    struct sim *s = p->n->s;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = val_map(a), *st, *cs, *c;
    char t[KUBETIME_MAX];
    static const char *const types[] = {"PodScheduled", "Initialized", "ContainersReady", "Ready"};
    struct client_call call = {.verb = CLIENT_PATCH,
                               .resource = "v1/pods",
                               .ns = p->ns,
                               .name = p->name,
                               .sub = "status",
                               .patch_type = CLIENT_PATCH_MERGE,
                               .body = v};

    kubetime_text(t, env_now_ms(s->env));
    val_set_at(a, v, "metadata.uid", val_str(a, p->uid)); /* this very pod */
    st = val_need_map(a, v, "status");
    val_put_str(a, st, "phase", phase);
    val_put_str(a, st, "startTime", t);
    val_put_str(a, st, "podIP", arena_printf(a, "10.42.%d.%d", p->n->number, p->ip));
    for (size_t i = 0; i < ARRAY_LEN(types); i++) {
        c = val_push(a, val_need_list(a, st, "conditions"), val_map(a));
        val_put_str(a, c, "type", types[i]);
        val_put_str(a, c, "status", i < 2 || ready ? "True" : "False");
        val_put_str(a, c, "lastTransitionTime", t);
    }
    cs = val_push(a, val_need_list(a, st, "containerStatuses"), val_map(a));
    val_put_str(a, cs, "name", "c");
    val_put_str(a, cs, "image", "x");
    val_put_str(a, cs, "imageID", "x");
    val_put_bool(a, cs, "ready", ready);
    val_put_int(a, cs, "restartCount", 0);
    if (ready) {
        val_set_at(a, cs, "state.running.startedAt", val_str(a, t));
    } else {
        val_set_at(a, cs, "state.terminated.exitCode", val_int(a, exit_code));
        val_set_at(a, cs, "state.terminated.finishedAt", val_str(a, t));
    }
    client_call(p->n->c, &call, again, s);
}

static bool for_ever(const struct obj *pod)
{
    return streq(val_str_at(obj_val(pod), "spec.restartPolicy", "Always"), "Always");
}

static bool is_ready(const struct obj *pod)
{
    VAL_EACH(val_at(obj_val(pod), "status.conditions"), c)
        if (streq(val_str_at(c, "type", ""), "Ready"))
            return streq(val_str_at(c, "status", ""), "True");
    return false;
}

/* What the pod does next. Its answer comes back as a change in the mirror; should the write have
 * been refused, the timer tries again. */
static void act(void *arg)
{
    struct played *p = arg;
    struct sim *s = p->n->s;
    const struct obj *pod = mirror_get(p->n->pods, p->ns, p->name);
    const char *phase;

    if (!pod || !streq(pod->uid, p->uid))
        return; /* on_removed follows */
    phase = val_str_at(obj_val(pod), "status.phase", "");
    if (obj_deleting(pod)) {
        _auto_(arena_freep) struct arena *a = arena_new();
        struct val *o = val_map(a);
        struct client_call call = {
            .verb = CLIENT_DELETE, .resource = "v1/pods", .ns = p->ns, .name = p->name, .body = o};

        val_put_str(a, o, "apiVersion", "v1");
        val_put_str(a, o, "kind", "DeleteOptions");
        val_put_int(a, o, "gracePeriodSeconds", 0);
        val_put_str(a, val_need_map(a, o, "preconditions"), "uid", p->uid);
        client_call(p->n->c, &call, again, s);
        if (p->stage != ENDED && !streq(phase, "Succeeded") && !streq(phase, "Failed") && pod->namespace_[0] && val_len(val_at(obj_val(pod), "metadata.finalizers")))
            write_status(p, "Failed", false, 137); /* a finalizer keeps it: it has ended all the same */
        later(p, 1000, 5000);
        return;
    }
    if (streq(phase, "Succeeded") || streq(phase, "Failed")) {
        p->stage = ENDED;
        return;
    }
    if (!streq(phase, "Running") || !is_ready(pod)) { /* also when somebody thought that we are gone */
        write_status(p, "Running", true, 0);
        p->stage = RUNS;
        later(p, 500, 2000);
        return;
    }
    if (p->stage != ENDS) { /* it runs: how long? */
        p->stage = ENDS;
        if (!for_ever(pod))
            later(p, 500, 20000);
        else if (env_below(s->env, 20) == 0)
            later(p, 5000, 200000);
        return;
    }
    s->died++;
    if (for_ever(pod) || env_below(s->env, 10) == 0)
        write_status(p, "Failed", false, 1);
    else
        write_status(p, "Succeeded", false, 0);
    later(p, 1000, 3000);
}

static void on_pod(void *arg, const struct obj *pod)
{
    struct node *n = arg;
    struct played *p = map_get(&n->played, pod->uid);

    if (!p) {
        p = xcalloc(1, sizeof *p);
        p->n = n;
        p->uid = xstrdup(pod->uid);
        p->ns = xstrdup(pod->namespace_);
        p->name = xstrdup(pod->name);
        p->timer = env_timer_new(n->s->env, act, p);
        p->ip = ++n->next_ip % 250 + 1;
        map_put(&n->played, pod->uid, p);
        later(p, 20, 3000);
    }
    if (!obj_deleting(pod))
        p->leaving = false; /* also when a full disk took the delete back */
    if (obj_deleting(pod) && !p->leaving) {
        p->leaving = true;
        later(p, 5, 2000);
    } else if (p->stage == ENDS && streq(val_str_at(obj_val(pod), "status.phase", ""), "Running") && !is_ready(pod)) {
        p->stage = STARTS;
        later(p, 5, 2000);
    }
}

static void on_removed(void *arg, const struct obj *last)
{
    struct node *n = arg;
    struct played *p = map_del(&n->played, last->uid);

    if (p)
        played_free(p);
}

static void on_changed(void *arg, const struct obj *was, const struct obj *pod)
{
    if (!streq(was->uid, pod->uid))
        on_removed(arg, was);
    on_pod(arg, pod);
}

/* --- life ------------------------------------------------------------------------------------- */
struct node *node_start(struct sim *s, int number)
{
    struct node *n = xcalloc(1, sizeof *n);
    char selector[64], user[64];
    struct mirror_args args = {.resource = "v1/pods",
                               .field_selector = selector,
                               .added = on_pod,
                               .changed = on_changed,
                               .removed = on_removed,
                               .arg = n};

    snprintf(selector, sizeof selector, "spec.nodeName=%s", node_name(number));
    snprintf(user, sizeof user, "system:node:%s", node_name(number));
    n->s = s;
    n->number = number;
    n->c = client_local_new(s->env, s->api, s->schema, user);
    n->pods = client_mirror(n->c, &args);
    n->lease = client_lease(n->c, "kube-node-lease", node_name(number), node_name(number), LEASE_S, HEARTBEAT_MS);
    n->beat = env_timer_new(s->env, beat, n);
    env_timer_start(n->beat, 0, HEARTBEAT_MS);
    return n;
}

void *node_stop(struct node *n)
{
    const char *key;
    void *p;

    if (!n)
        return NULL;
    env_timer_free(n->beat);
    client_lease_free(n->lease);
    mirror_free(n->pods);
    for (uint32_t i = 0; map_next(&n->played, &i, &key, &p);)
        played_free(p);
    map_done(&n->played);
    client_free(n->c);
    free(n);
    return NULL;
}
