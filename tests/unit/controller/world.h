/* All controllers and the scheduler over the real API, a store in memory and a simulated clock; the
 * node is played by kubelet(). Tests write as a user does and look at what a user sees. */
#pragma once

#include "client/client.h"
#include "codec/json.h"
#include "codec/kubetime.h"
#include "controller/controllers.h"
#include "scheduler/scheduler.h"

#include "../api_world.h"

#include <time.h>

struct world {
    union {
        struct api_world below;
        struct {
            API_WORLD
        };
    };
    struct client *user, *manager, *placer;
    struct controllers *controllers;
    struct scheduler *scheduler;
    int ips;
    bool mute; /* the node says nothing any more */
};

static __attribute__((unused)) int world_up(void **state)
{
    struct world *w = xcalloc(1, sizeof *w);
    struct controllers_opts opts = {0};
    struct err err = {0};

    api_world_up(&w->below, 11);
    w->user = client_local_new(w->env, w->api, w->schema, "test:user");
    w->manager = client_local_new(w->env, w->api, w->schema, "system:kube-controller-manager");
    w->placer = client_local_new(w->env, w->api, w->schema, "system:kube-scheduler");
    opts = (struct controllers_opts){.schema = w->schema, .ca_pem = "the ca"};
    assert_non_null(w->controllers = controllers_start(w->manager, w->env, &opts, &err));
    assert_non_null(w->scheduler = scheduler_start(w->placer, w->env, NULL, &err));
    env_sim_run_until(w->env, env_now_ms(w->env) + 100); /* service accounts, the storage class */
    *state = w;
    return 0;
}

static __attribute__((unused)) int world_down(void **state)
{
    struct world *w = *state;

    arena_free(w->a);
    w->scheduler = scheduler_stop(w->scheduler);
    w->controllers = controllers_stop(w->controllers);
    client_free(w->placer);
    client_free(w->manager);
    client_free(w->user);
    api_world_down(&w->below);
    free(w);
    return 0;
}

/* ---- what a user does ---- */

static __attribute__((unused)) struct val *parse(struct world *w, const char *text)
{
    struct err err;
    struct val *v = json_parse(w->a, text, strlen(text), &err);

    if (!v)
        fail_msg("%s in %s", err.msg, text);
    return v;
}

static __attribute__((unused)) void make_in(struct world *w, const char *resource, const char *ns, const char *text)
{
    struct err err;

    if (client_create(w->user, resource, ns, parse(w, text), NULL, &err) < 0)
        fail_msg("%s: %s", resource, err.msg);
}

static __attribute__((unused)) void make(struct world *w, const char *resource, const char *text)
{
    make_in(w, resource, "default", text);
}

static __attribute__((unused)) void patch(struct world *w, const char *resource, const char *name, const char *sub, const char *text)
{
    struct err err;

    if (client_patch(w->user, resource, streq(resource, "v1/nodes") ? "" : "default", name, sub, CLIENT_PATCH_MERGE,
                     parse(w, text), NULL, &err) < 0)
        fail_msg("%s/%s: %s", resource, name, err.msg);
}

static __attribute__((unused)) void drop(struct world *w, const char *resource, const char *name, const char *policy)
{
    struct client_delete how = {.propagation = policy, .grace_s = -1};
    struct err err;

    if (client_delete(w->user, resource, "default", name, &how, &err) < 0)
        fail_msg("%s/%s: %s", resource, name, err.msg);
}

static __attribute__((unused)) const struct val *get(struct world *w, const char *resource, const char *name)
{
    const struct obj *o = client_get(w->user, w->a, resource, "default", name);

    return o ? obj_val(o) : NULL;
}

static __attribute__((unused)) uint32_t count(struct world *w, const char *resource, const char *ns)
{
    return client_list(w->user, w->a, resource, ns, NULL, NULL).n;
}

static __attribute__((unused)) void node(struct world *w, const char *name, const char *cpu)
{
    char now[KUBETIME_MAX];

    make_in(w, "v1/nodes", "", arena_printf(w->a, "{\"metadata\":{\"name\":\"%s\",\"labels\":{\"kubernetes.io/hostname\":\"%s\"}}}", name, name));
    kubetime_text(now, env_now_ms(w->env));
    patch(w, "v1/nodes", name, "status", arena_printf(w->a,
          "{\"status\":{\"allocatable\":{\"cpu\":\"%s\",\"memory\":\"64Gi\",\"pods\":\"5000\"},\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\",\"reason\":\"r\",\"message\":\"m\",\"lastHeartbeatTime\":\"%s\",\"lastTransitionTime\":\"%s\"}]}}", cpu, now, now));
}

/* ---- the node ---- */

static __attribute__((unused)) void beat(struct world *w)
{
    struct objs nodes = client_list(w->user, w->a, "v1/nodes", NULL, NULL, NULL);
    struct err err;
    char now[KUBETIME_MAX];

    for (uint32_t i = 0; i < nodes.n; i++) {
        struct val *v = obj_edit(nodes.v[i], w->a);

        VAL_EACH(val_at(v, "status.conditions"), c)
            if (streq(val_str_at(c, "type", ""), "Ready"))
                val_put_str(w->a, c, "lastHeartbeatTime", kubetime_text(now, env_now_ms(w->env)));
        assert_int_equal(client_update_status(w->user, "v1/nodes", v, NULL, &err), 0);
    }
}

/* Bound pods run and are ready; those with the annotation end come to that end at once. */
static __attribute__((unused)) bool kubelet(struct world *w)
{
    struct objs pods = client_list(w->user, w->a, "v1/pods", NULL, NULL, NULL);
    bool any = false;
    struct err err;
    char now[KUBETIME_MAX];

    kubetime_text(now, env_now_ms(w->env));
    for (uint32_t i = 0; i < pods.n; i++) {
        const struct obj *p = pods.v[i];
        const char *end = obj_annotation(p, "end");
        struct client_delete gone = {.uid = p->uid, .grace_s = 0};
        struct val *v, *s;

        if (!*val_str_at(obj_val(p), "spec.nodeName", ""))
            continue;
        if (obj_deleting(p)) {
            any |= client_delete(w->user, "v1/pods", p->namespace_, p->name, &gone, &err) == 0;
            continue;
        }
        if (!streq(val_str_at(obj_val(p), "status.phase", "Pending"), "Pending"))
            continue;
        v = obj_edit(p, w->a);
        s = val_need_map(w->a, v, "status");
        val_put_str(w->a, s, "phase", end ? end : "Running");
        val_put(w->a, s, "podIP", val_printf(w->a, "10.42.%d.%d", w->ips / 250, w->ips % 250 + 1));
        val_put(w->a, s, "podIPs", parse(w, arena_printf(w->a, "[{\"ip\":\"10.42.%d.%d\"}]", w->ips / 250, w->ips % 250 + 1)));
        w->ips++;
        if (end)
            val_put(w->a, s, "containerStatuses", parse(w, arena_printf(w->a,
                "[{\"name\":\"c\",\"ready\":false,\"restartCount\":0,\"image\":\"i\",\"imageID\":\"\",\"state\":{\"terminated\":{\"exitCode\":%d,\"finishedAt\":\"%s\"}}}]",
                streq(end, "Failed"), now)));
        val_push(w->a, val_need_list(w->a, s, "conditions"), parse(w, arena_printf(w->a,
                "{\"type\":\"Ready\",\"status\":\"%s\",\"lastTransitionTime\":\"%s\"}", end ? "False" : "True", now)));
        any |= client_update_status(w->user, "v1/pods", v, NULL, &err) == 0;
    }
    return any;
}

static __attribute__((unused)) void pass_ms(struct world *w, int64_t ms)
{
    int64_t until = env_now_ms(w->env) + ms;

    do {
        int64_t step = MIN(until - env_now_ms(w->env), (int64_t)(ms > 20000 ? 5000 : 200));

        env_sim_run_until(w->env, env_now_ms(w->env) + step);
        if (!w->mute) {
            beat(w);
            kubelet(w);
        }
    } while (env_now_ms(w->env) < until);
    env_sim_run_until(w->env, env_now_ms(w->env) + 20);
}

#define WEB(image, replicas)                                                                       \
    "{\"metadata\":{\"name\":\"web\"},\"spec\":{\"replicas\":" replicas ",\"selector\":{\"matchLabels\":{\"a\":\"web\"}},"  \
    "\"template\":{\"metadata\":{\"labels\":{\"a\":\"web\"}},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"" image "\"}]}}}}"
#define IMAGE(image) "{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"" image "\"}]}}}}"

#define WORLD_TEST(f) cmocka_unit_test_setup_teardown(f, world_up, world_down)
