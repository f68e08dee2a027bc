/* What a random user does to the cluster, and what the world does to it. */
#include "sim.h"

#include "codec/yaml.h"

#include <stdarg.h>

static const char *const spaces[] = {"default", "green", "blue"};
static const char *const policies[] = {NULL, "Background", "Foreground", "Orphan"};

static uint32_t dice(struct sim *s, uint32_t n)
{
    return env_below(s->env, n);
}

static const char *some_ns(struct sim *s)
{
    return spaces[dice(s, ARRAY_LEN(spaces))];
}

/* Errors are fine (exists, not found, disk full): a user gets them too. What must not come is an
 * internal error or a refusal of what is valid. */
static void note(struct sim *s, const char *what, int rc, const struct err *err)
{
    s->ops++;
    SIM_TRACE(s, "user: %s: %s", what, rc < 0 ? err->msg : "ok");
    if (rc == 0)
        return;
    s->refused++;
    switch (err->code) {
    case ERR_ALREADY_EXISTS:
    case ERR_NOT_FOUND:
    case ERR_CONFLICT:
    case ERR_NO_SPACE:
    case ERR_UNAVAILABLE:
        return;
    case ERR_FORBIDDEN: /* into a namespace that is going away; its default account is not there yet */
        if (strstr(err->msg, "being terminated") || strstr(err->msg, "serviceaccount"))
            return;
        break;
    default:
        break;
    }
    if (!s->full) /* a full disk may show through as anything that says so */
        sim_wrong(s, "user: %s: %s: %s", what, err_name(err->code), err->msg);
}

static void create(struct sim *s, const char *resource, const char *ns, const char *fmt, ...) _printf_(4, 5);
static void create(struct sim *s, const char *resource, const char *ns, const char *fmt, ...)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err = {0};
    char text[2000], what[200];
    va_list ap;
    struct val *v;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    v = yaml_parse(a, text, strlen(text), NULL, NULL, &err);
    if (!v)
        sim_wrong(s, "yaml: %s", err.msg);
    snprintf(what, sizeof what, "create %s %s/%s", resource, ns, val_str_at(v, "metadata.name", ""));
    if (v)
        note(s, what, client_create(s->user, resource, ns, v, NULL, &err), &err);
}

static void patch(struct sim *s, const char *resource, const char *ns, const char *name, const char *fmt, ...)
    _printf_(5, 6);
static void patch(struct sim *s, const char *resource, const char *ns, const char *name, const char *fmt, ...)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err = {0};
    char text[600], what[900];
    va_list ap;
    struct val *v;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    v = yaml_parse(a, text, strlen(text), NULL, NULL, &err);
    snprintf(what, sizeof what, "patch %s %s/%s %s", resource, ns, name, text);
    if (v)
        note(s, what, client_patch(s->user, resource, ns, name, "", CLIENT_PATCH_STRATEGIC, v, NULL, &err), &err);
}

static void remove_one(struct sim *s, const char *resource, const char *ns, const char *name)
{
    struct client_delete how = {.propagation = policies[dice(s, ARRAY_LEN(policies))], .grace_s = -1};
    struct err err = {0};
    char what[200];

    if (streq(resource, "v1/namespaces") || streq(resource, "v1/pods"))
        how.propagation = NULL;
    snprintf(what, sizeof what, "delete %s %s/%s %s", resource, ns, name, how.propagation ? how.propagation : "");
    note(s, what, client_delete(s->user, resource, ns, name, &how, &err), &err);
}

/* Some object of the resource that is there, or NULL. */
static const struct obj *some(struct sim *s, struct arena *a, const char *resource)
{
    struct objs all = client_list(s->user, a, resource, NULL, NULL, NULL);

    return all.n ? all.v[dice(s, all.n)] : NULL;
}

static void deployment(struct sim *s)
{
    uint32_t app = dice(s, 4);
    const char *ns = some_ns(s);
    bool rolling = dice(s, 3);

    create(s, "apps/v1/deployments", ns,
           "metadata: {name: d%u, labels: {app: d%u}}\n"
           "spec:\n"
           "  replicas: %u\n"
           "  strategy: {type: %s}\n"
           "  minReadySeconds: %u\n"
           "  selector: {matchLabels: {app: d%u}}\n"
           "  template:\n"
           "    metadata: {labels: {app: d%u}}\n"
           "    spec: {containers: [{name: c, image: 'x:1', resources: {requests: {cpu: %um, memory: 64Mi}}}]}\n",
           app, app, dice(s, 6), rolling ? "RollingUpdate" : "Recreate", dice(s, 3), app, app, 50 + dice(s, 200));
}

static void job(struct sim *s)
{
    create(s, "batch/v1/jobs", some_ns(s),
           "metadata: {name: j%u}\n"
           "spec:\n"
           "  completions: %u\n"
           "  parallelism: %u\n"
           "  backoffLimit: 6\n"
           "  template:\n"
           "    spec: {restartPolicy: Never, containers: [{name: c, image: 'x:1', resources: {requests: {cpu: 50m}}}]}\n",
           dice(s, 5), 1 + dice(s, 4), 1 + dice(s, 3));
}

static void user_step(struct sim *s)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const struct obj *o;
    static const char *const kinds[] = {"apps/v1/deployments", "batch/v1/jobs", "v1/services", "apps/v1/replicasets",
                                        "v1/pods"};
    const char *kind;

    switch (dice(s, 12)) {
    case 0:
    case 1:
    case 2:
        deployment(s);
        break;
    case 3:
        job(s);
        break;
    case 4: {
        uint32_t app = dice(s, 4);

        create(s, "v1/services", some_ns(s),
               "metadata: {name: s%u}\nspec: {selector: {app: d%u}, ports: [{port: 80, targetPort: 8080}]}\n", app, app);
        break;
    }
    case 5:
    case 6:
        if ((o = some(s, a, "apps/v1/deployments")))
            patch(s, "apps/v1/deployments", o->namespace_, o->name, "spec: {replicas: %u}", dice(s, 7));
        break;
    case 7:
    case 8:
        if ((o = some(s, a, "apps/v1/deployments")))
            patch(s, "apps/v1/deployments", o->namespace_, o->name,
                  "spec: {template: {spec: {containers: [{name: c, image: 'x:%u'}]}}}", dice(s, 4));
        break;
    case 9:
    case 10:
        kind = kinds[dice(s, ARRAY_LEN(kinds))];
        if ((o = some(s, a, kind)) && !streq(o->name, "kubernetes"))
            remove_one(s, kind, o->namespace_, o->name);
        break;
    default:
        if (dice(s, 2))
            create(s, "v1/namespaces", "", "metadata: {name: %s}", spaces[1 + dice(s, 2)]);
        else if (dice(s, 3) == 0)
            remove_one(s, "v1/namespaces", "", spaces[1 + dice(s, 2)]);
    }
}

static void fault_step(struct sim *s)
{
    int i = (int)dice(s, NODES);
    struct err err = {0};

    switch (dice(s, 6)) {
    case 0:
    case 1:
        world_crash(s);
        break;
    case 2:
        s->full = !s->full;
        s->fulls += s->full;
        SIM_TRACE(s, "DISK %s", s->full ? "full" : "fine");
        store_disk_full(s->disk, s->full);
        break;
    case 3:
    case 4:
        SIM_TRACE(s, "NODE %s %s", node_name(i), s->nodes[i] ? "goes" : "comes");
        if (s->nodes[i]) {
            s->nodes[i] = node_stop(s->nodes[i]);
            s->gone++;
        } else {
            s->nodes[i] = node_start(s, i);
        }
        break;
    default:
        if (!s->nodes[i] && client_delete(s->user, "v1/nodes", "", node_name(i), NULL, &err) == 0) {
            SIM_TRACE(s, "NODE %s is removed", node_name(i));
            s->removed++;
        }
    }
}

void chaos_step(struct sim *s)
{
    static const int64_t pauses_ms[] = {0, 0, 10, 100, 1000, 5000, 20000, 60000};
    int64_t pause = pauses_ms[dice(s, ARRAY_LEN(pauses_ms))];

    if (dice(s, 10) == 0)
        fault_step(s);
    else
        user_step(s);
    env_sim_run_until(s->env, env_now_ms(s->env) + (pause ? (int64_t)dice(s, (uint32_t)pause) : 0));
}

void chaos_heal(struct sim *s)
{
    _auto_(arena_freep) struct arena *a = arena_new();

    SIM_TRACE(s, "HEAL");
    s->full = false;
    store_disk_full(s->disk, false);
    for (int i = 0, lost = 0; i < NODES; i++) {
        if (s->nodes[i])
            continue;
        if (!client_get(s->user, a, "v1/nodes", "", node_name(i)) && !lost)
            lost = 1; /* one that was removed may never come back: its pods must be somewhere else */
        else
            s->nodes[i] = node_start(s, i);
    }
}
