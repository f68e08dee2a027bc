/* What must hold when nobody changes anything any more and every node is there. */
#include "sim.h"

#include "codec/selector.h"

struct look {
    struct sim *s;
    struct arena *a;
    char *out;
    size_t out_n;
    bool ok;
};
#define BAD(l, ...)                                                                                \
    do {                                                                                           \
        if ((l)->ok)                                                                               \
            snprintf((l)->out, (l)->out_n, __VA_ARGS__);                                           \
        (l)->ok = false;                                                                           \
    } while (0)

static struct objs all(struct look *l, const char *resource)
{
    return client_list(l->s->user, l->a, resource, NULL, NULL, NULL);
}

static bool finished(const struct obj *pod)
{
    const char *phase = val_str_at(obj_val(pod), "status.phase", "");

    return streq(phase, "Succeeded") || streq(phase, "Failed");
}

static bool condition(const struct obj *o, const char *type)
{
    VAL_EACH(val_at(obj_val(o), "status.conditions"), c)
        if (streq(val_str_at(c, "type", ""), type))
            return streq(val_str_at(c, "status", ""), "True");
    return false;
}

static void look_at_deployments(struct look *l)
{
    struct objs ds = all(l, "apps/v1/deployments");

    for (uint32_t i = 0; i < ds.n; i++) {
        const struct val *v = obj_val(ds.v[i]);
        int64_t want = val_int_at(v, "spec.replicas", -1), live = 0;
        struct objs sets = client_owned(l->s->user, l->a, "apps/v1/replicasets", ds.v[i]->namespace_, ds.v[i]->uid);
        const char *name = ds.v[i]->name, *ns = ds.v[i]->namespace_;

        if (val_int_at(v, "status.observedGeneration", 0) != val_int_at(v, "metadata.generation", -1))
            BAD(l, "deployment %s/%s: its generation is not observed", ns, name);
        if (val_int_at(v, "status.replicas", 0) != want || val_int_at(v, "status.updatedReplicas", 0) != want ||
            val_int_at(v, "status.availableReplicas", 0) != want)
            BAD(l, "deployment %s/%s wants %lld, status: replicas %lld updated %lld available %lld", ns, name, (long long)want,
                (long long)val_int_at(v, "status.replicas", 0), (long long)val_int_at(v, "status.updatedReplicas", 0),
                (long long)val_int_at(v, "status.availableReplicas", 0));
        for (uint32_t k = 0; k < sets.n; k++)
            live += val_int_at(obj_val(sets.v[k]), "spec.replicas", 0) > 0;
        if (live != (want > 0))
            BAD(l, "deployment %s/%s has %lld replica sets with pods", ns, name, (long long)live);
    }
}

static void look_at_sets(struct look *l)
{
    struct objs sets = all(l, "apps/v1/replicasets");

    for (uint32_t i = 0; i < sets.n; i++) {
        struct objs pods = client_owned(l->s->user, l->a, "v1/pods", sets.v[i]->namespace_, sets.v[i]->uid);
        int64_t active = 0, want = val_int_at(obj_val(sets.v[i]), "spec.replicas", 0);

        for (uint32_t k = 0; k < pods.n; k++)
            active += !finished(pods.v[k]) && !obj_deleting(pods.v[k]);
        if (active != want)
            BAD(l, "replica set %s/%s wants %lld pods and has %lld", sets.v[i]->namespace_, sets.v[i]->name,
                (long long)want, (long long)active);
    }
}

static void look_at_pods(struct look *l)
{
    struct objs pods = all(l, "v1/pods");
    int64_t cpu[NODES] = {0}, count[NODES] = {0};

    for (uint32_t i = 0; i < pods.n; i++) {
        const struct obj *p = pods.v[i];
        const char *node = val_str_at(obj_val(p), "spec.nodeName", "");
        int n = 0;

        while (n < NODES && !(l->s->nodes[n] && streq(node, node_name(n))))
            n++;
        if (n == NODES)
            BAD(l, "pod %s/%s is on node \"%s\"", p->namespace_, p->name, node);
        if (obj_deleting(p))
            BAD(l, "pod %s/%s is still going away", p->namespace_, p->name);
        if (!finished(p) && !streq(val_str_at(obj_val(p), "status.phase", ""), "Running"))
            BAD(l, "pod %s/%s is %s", p->namespace_, p->name, val_str_at(obj_val(p), "status.phase", ""));
        if (n == NODES || finished(p))
            continue;
        count[n]++;
        VAL_EACH(val_at(obj_val(p), "spec.containers"), c)
            cpu[n] += (int64_t)strtol(val_str_at(c, "resources.requests.cpu", "0"), NULL, 10); /* all in m */
    }
    for (int n = 0; n < NODES; n++)
        if (cpu[n] > 4000 || count[n] > 40)
            BAD(l, "node %s is overfull: %lldm, %lld pods", node_name(n), (long long)cpu[n], (long long)count[n]);
}

static void look_at_jobs(struct look *l)
{
    struct objs jobs = all(l, "batch/v1/jobs");

    for (uint32_t i = 0; i < jobs.n; i++)
        if (!condition(jobs.v[i], "Complete") && !condition(jobs.v[i], "Failed"))
            BAD(l, "job %s/%s has not ended", jobs.v[i]->namespace_, jobs.v[i]->name);
}

/* The ready pods that a service selects are the ready addresses of its slices. */
static void look_at_services(struct look *l)
{
    struct objs services = all(l, "v1/services"), slices = all(l, "discovery.k8s.io/v1/endpointslices");
    struct objs pods = all(l, "v1/pods");

    for (uint32_t i = 0; i < services.n; i++) {
        const struct obj *s = services.v[i];
        const struct val *selector = val_at(obj_val(s), "spec.selector");
        int want = 0, have = 0;

        if (!val_len(selector))
            continue;
        for (uint32_t k = 0; k < pods.n; k++)
            want += streq(pods.v[k]->namespace_, s->namespace_) && condition(pods.v[k], "Ready") && !finished(pods.v[k]) &&
                    labels_contain(val_get(obj_meta(pods.v[k]), "labels"), selector);
        for (uint32_t k = 0; k < slices.n; k++)
            if (streq(slices.v[k]->namespace_, s->namespace_) &&
                streq0(obj_label(slices.v[k], "kubernetes.io/service-name"), s->name))
                VAL_EACH(val_get(obj_val(slices.v[k]), "endpoints"), e)
                    have += val_bool_at(e, "conditions.ready", false);
        if (want != have)
            BAD(l, "service %s/%s: %d ready pods, %d ready endpoints", s->namespace_, s->name, want, have);
    }
}

/* No object names an owner that is gone; none lies in a namespace that is not there. */
static void look_at_owners(struct look *l)
{
    static const char *const resources[] = {
        "v1/pods", "apps/v1/replicasets", "apps/v1/deployments", "batch/v1/jobs", "v1/services", "v1/endpoints",
        "discovery.k8s.io/v1/endpointslices", "v1/configmaps", "v1/serviceaccounts"};
    struct map uids = {0}, spaces = {0};
    struct objs ns = all(l, "v1/namespaces");

    for (uint32_t i = 0; i < ns.n; i++) {
        map_put(&spaces, ns.v[i]->name, (void *)1);
        if (obj_deleting(ns.v[i]))
            BAD(l, "namespace %s is still going away", ns.v[i]->name);
    }
    for (int round = 0; round < 2; round++)
        for (size_t r = 0; r < ARRAY_LEN(resources); r++) {
            struct objs os = all(l, resources[r]);

            for (uint32_t i = 0; i < os.n; i++) {
                if (round == 0) {
                    map_put(&uids, os.v[i]->uid, (void *)1);
                    continue;
                }
                if (!map_get(&spaces, os.v[i]->namespace_))
                    BAD(l, "%s %s/%s has no namespace", resources[r], os.v[i]->namespace_, os.v[i]->name);
                VAL_EACH(val_get(obj_meta(os.v[i]), "ownerReferences"), ref)
                    if (!map_get(&uids, val_str_at(ref, "uid", "")))
                        BAD(l, "%s %s/%s: its owner %s %s is gone", resources[r], os.v[i]->namespace_, os.v[i]->name,
                            val_str_at(ref, "kind", ""), val_str_at(ref, "name", ""));
            }
        }
    map_done(&uids);
    map_done(&spaces);
}

bool check_rest(struct sim *s, char *out, size_t out_n)
{
    struct look l = {.s = s, .a = arena_new(), .out = out, .out_n = out_n, .ok = true};

    look_at_deployments(&l);
    look_at_sets(&l);
    look_at_pods(&l);
    look_at_jobs(&l);
    look_at_services(&l);
    look_at_owners(&l);
    if (store_durable(s->store) != store_head(s->store))
        BAD(&l, "writes are not durable");
    arena_free(l.a);
    return l.ok;
}
