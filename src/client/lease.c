/* A Lease that is kept: patched every renew_ms, made when it is not there. A renewal under way is
 * never doubled; a failed one is tried again at the next beat. */
#include "client/client_int.h"
#include "codec/kubetime.h"

struct lease {
    struct client *c;
    struct arena *arena;
    const char *ns, *name, *holder;
    int64_t duration_s;
    struct env_timer *beat;
    struct client_op *op;
    bool make; /* the last answer was "not there" */
};

static void answered(void *arg, const struct client_result *r);

static void beat(void *arg)
{
    struct lease *l = arg;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = val_map(a), *spec;
    char t[KUBETIME_MAX];
    struct client_call call = {.verb = l->make ? CLIENT_CREATE : CLIENT_PATCH,
                               .resource = "coordination.k8s.io/v1/leases",
                               .ns = l->ns,
                               .name = l->make ? NULL : l->name,
                               .patch_type = CLIENT_PATCH_MERGE,
                               .body = v};

    if (l->op)
        return;
    kubetime_micro(t, env_now_ms(l->c->env) * 1000);
    if (l->make) {
        val_put_str(a, v, "apiVersion", "coordination.k8s.io/v1");
        val_put_str(a, v, "kind", "Lease");
        val_put_str(a, val_need_map(a, v, "metadata"), "name", l->name);
        val_put_str(a, val_need_map(a, v, "metadata"), "namespace", l->ns);
    }
    spec = val_need_map(a, v, "spec");
    val_put_str(a, spec, "holderIdentity", l->holder);
    val_put_int(a, spec, "leaseDurationSeconds", l->duration_s);
    val_put_str(a, spec, "renewTime", t);
    l->op = client_call(l->c, &call, answered, l);
}

static void answered(void *arg, const struct client_result *r)
{
    struct lease *l = arg;
    bool make = r->err && r->err->code == ERR_NOT_FOUND && !l->make;

    l->op = NULL;
    l->make = make;
    if (make)
        beat(l);
}

struct lease *client_lease(struct client *c, const char *ns, const char *name, const char *holder,
                           int64_t duration_s, int64_t renew_ms)
{
    struct arena *a = arena_new();
    struct lease *l = arena_new_of(a, struct lease);

    l->arena = a;
    l->c = c;
    l->ns = arena_strdup(a, ns);
    l->name = arena_strdup(a, name);
    l->holder = arena_strdup(a, holder);
    l->duration_s = duration_s;
    l->beat = env_timer_new(c->env, beat, l);
    env_timer_start(l->beat, 0, renew_ms);
    return l;
}

void *client_lease_free(struct lease *l)
{
    if (!l)
        return NULL;
    if (l->op)
        client_cancel(l->op);
    env_timer_free(l->beat);
    arena_free(l->arena);
    return NULL;
}
