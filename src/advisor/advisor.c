#include "advisor/advisor.h"

#include <stdio.h>

#include "advisor/gather.h"
#include "base/log.h"
#include "client/client.h"
#include "codec/json.h"
#include "codec/kubetime.h"
#include "env/clock.h"

enum { FIRST_MS = 5000, EVERY_MS = 30000, REWRITE_MS = 300000 };
#define ADVICE "tandem.dev/v1/advice"

struct advisor {
    struct client *client;
    struct env *env;
    const char *state;
    struct env_timer *timer;
};

/* Constraints come before any price: what binds this pod to being one? */
static const char *blocked(void *arg, struct arena *a, const char *ns, const char *name)
{
    struct advisor *ad = arg;
    const struct obj *pod = client_get(ad->client, a, "v1/pods", ns, name), *pvc;
    const struct val *spec = pod ? val_get(obj_val(pod), "spec") : NULL;

    if (!pod)
        return NULL;
    if (val_bool_at(spec, "hostNetwork", false) || val_bool_at(spec, "hostPID", false))
        return "uses the machine's own namespaces";
    if (val_len(val_get(spec, "containers")) > 1)
        return "has several containers in a pod";
    VAL_EACH(val_get(spec, "containers"), c) {
        VAL_EACH_MEMBER(val_at(c, "resources.limits"), m)
            if (strchr(m->key, '/'))
                return arena_printf(a, "needs a device (%s)", m->key);
        if (val_bool_at(c, "securityContext.privileged", false))
            return "is privileged";
        if (val_bool_at(c, "tty", false) || val_bool_at(c, "stdin", false))
            return "has a terminal";
    }
    VAL_EACH(val_get(spec, "volumes"), v) {
        const char *claim = val_str_at(v, "persistentVolumeClaim.claimName", NULL);

        if (val_get(v, "hostPath"))
            return "uses a folder of the machine (hostPath)";
        pvc = claim ? client_get(ad->client, a, "v1/persistentvolumeclaims", ns, claim) : NULL;
        VAL_EACH(pvc ? val_at(obj_val(pvc), "spec.accessModes") : NULL, mode)
            if (streq(val_text(mode, ""), "ReadWriteOncePod"))
                return arena_printf(a, "volume %s has a single writer", claim);
    }
    return NULL;
}

static bool alive(void *arg, const char *kind, const char *ns, const char *name)
{
    struct advisor *ad = arg;
    _auto_(arena_freep) struct arena *a = arena_new();
    static const struct {
        const char *kind, *resource;
    } rows[] = {
        {"Function", "tandem.dev/v1/functions"},  {"Deployment", "apps/v1/deployments"},
        {"StatefulSet", "apps/v1/statefulsets"},  {"DaemonSet", "apps/v1/daemonsets"},
        {"ReplicaSet", "apps/v1/replicasets"},    {"Job", "batch/v1/jobs"},
        {"CronJob", "batch/v1/cronjobs"},         {"Pod", "v1/pods"},
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (streq(kind, rows[i].kind))
            return client_get(ad->client, a, rows[i].resource, ns, name) != NULL;
    return true;
}

/* ---- objects ---- */

static void write_one(struct advisor *ad, struct arena *a, const struct prices *p, const struct advice *r)
{
    char now[KUBETIME_MAX];
    int64_t now_ms = env_now_ms(ad->env);
    struct val *v = advice_object(a, p, r, kubetime_text(now, now_ms));
    const struct obj *old = client_get(ad->client, a, ADVICE, r->use->ns, val_str_at(v, "metadata.name", ""));
    struct err err;
    int rc;

    if (!old) {
        rc = client_create(ad->client, ADVICE, r->use->ns, v, NULL, &err);
    } else {
        const struct val *o = obj_val(old);

        if (streq(val_str_at(o, "advised", ""), val_str_at(v, "advised", "")) &&
            streq(val_str_at(o, "now", ""), val_str_at(v, "now", "")) &&
            now_ms - kubetime_parse(val_str_at(o, "updatedAt", "")) < REWRITE_MS)
            return;
        val_put(a, v, "metadata", obj_meta(old));
        rc = client_update(ad->client, ADVICE, v, NULL, &err);
    }
    if (rc < 0 && err.code != ERR_CONFLICT && err.code != ERR_FORBIDDEN && err.code != ERR_NOT_FOUND)
        LOG(WARN, "advisor", "workload=%s/%s did=write failed=\"%s\"", r->use->ns, r->use->name, err.msg);
}

static void drop_stale(struct advisor *ad, struct arena *a, const struct advices *all)
{
    struct objs there = client_list(ad->client, a, ADVICE, NULL, NULL, NULL);
    struct err err;

    for (uint32_t i = 0; i < there.n; i++) {
        const struct val *w = val_get(obj_val(there.v[i]), "workload");
        bool found = false;

        for (uint32_t k = 0; k < all->n && !found; k++)
            found = streq(all->v[k].use->ns, there.v[i]->namespace_) &&
                    streq(all->v[k].use->kind, val_str_at(w, "kind", "")) &&
                    streq(all->v[k].use->name, val_str_at(w, "name", ""));
        if (!found && client_delete(ad->client, ADVICE, there.v[i]->namespace_, there.v[i]->name, NULL, &err) < 0 &&
            err.code != ERR_NOT_FOUND)
            LOG(WARN, "advisor", "advice=%s/%s did=delete failed=\"%s\"", there.v[i]->namespace_,
                there.v[i]->name, err.msg);
    }
}

static int pass(struct advisor *ad, struct arena *a, struct err *err)
{
    struct prices prices;
    struct advices all = {0};
    struct uses uses;
    struct val *workloads = gather_workloads(a, ad->state, blocked, ad, err);

    if (!workloads)
        return -1;
    if (gather_save(ad->state, workloads, err) < 0 || gather_prices(a, ad->state, &prices, err) < 0 ||
        gather_uses(a, ad->state, workloads, env_now_ms(ad->env), alive, ad, &uses, err) < 0)
        return -1;
    all.v = arena_array(a, struct advice, uses.n + 1);
    for (; all.n < uses.n; all.n++) {
        advise(a, &prices, &uses.v[all.n], &all.v[all.n]);
        write_one(ad, a, &prices, &all.v[all.n]);
    }
    drop_stale(ad, a, &all);
    return 0;
}

static void tick(void *arg)
{
    struct advisor *ad = arg;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err;

    if (pass(ad, a, &err) < 0)
        LOG(WARN, "advisor", "did=pass failed=\"%s\" then=\"again in half a minute\"", err.msg);
}

/* ---- life ---- */

struct advisor *advisor_start(struct client *client, struct env *env, const char *state, struct err *err)
{
    struct advisor *ad;

    if (!client_is_local(client)) {
        err_set(err, NOT_IMPLEMENTED, "the advisor needs a local client");
        return NULL;
    }
    ad = xcalloc(1, sizeof *ad);
    *ad = (struct advisor){.client = client, .env = env, .state = state};
    ad->timer = env_timer_new(env, tick, ad);
    env_timer_start(ad->timer, FIRST_MS, EVERY_MS);
    return ad;
}

void *advisor_stop(struct advisor *ad)
{
    if (!ad)
        return NULL;
    env_timer_free(ad->timer);
    free(ad);
    return NULL;
}

int advise_print(const char *state, bool json, advise_exists_fn *exists, void *arg, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct prices prices;
    struct advices all;
    struct buf b = {0};

    if (gather_advice(a, state, clock_real_ms(), exists, arg, &prices, &all, err) < 0)
        return -1;
    if (json)
        json_write_pretty(&b, advices_val(a, &prices, &all));
    else
        advices_table(&b, &prices, &all);
    fwrite(b.p, 1, b.n, stdout);
    buf_done(&b);
    return fflush(stdout) ? err_sys(err, "write") : 0;
}
