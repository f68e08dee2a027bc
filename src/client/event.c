/* Events. The same news about the same object counts up one Event for ten minutes; an object that
 * makes too many of them is cut short (25 at once, then one every five minutes, as client-go). */
#include "client/client_int.h"
#include "codec/kubetime.h"

#include <stdio.h>

enum {
    SAME_MS = 10 * 60 * 1000,
    BURST = 25,
    REFILL_MS = 5 * 60 * 1000,
    REMEMBER_MAX = 4096,
};
struct known { /* one Event that was told */
    char *name, *ns;
    int64_t first_ms, last_ms, count;
};
struct budget { /* of one object */
    int64_t since_ms;
    int tokens;
};
struct events {
    struct map known, budgets;
};

static void forget(struct events *e)
{
    const char *key;
    void *v;

    for (uint32_t i = 0; map_next(&e->known, &i, &key, &v);) {
        struct known *k = v;

        free(k->name);
        free(k->ns);
        free(k);
    }
    for (uint32_t i = 0; map_next(&e->budgets, &i, &key, &v);)
        free(v);
    map_done(&e->known);
    map_done(&e->budgets);
    *e = (struct events){0};
}

void events_free(struct client *c);
void events_free(struct client *c)
{
    if (!c->events)
        return;
    forget(c->events);
    free(c->events);
    c->events = NULL;
}

static bool spend(struct events *e, const char *uid, int64_t now)
{
    struct budget *b = map_get(&e->budgets, uid);
    int64_t more;

    if (!b) {
        b = xmalloc(sizeof *b);
        *b = (struct budget){now, BURST};
        map_put(&e->budgets, uid, b);
    }
    more = (now - b->since_ms) / REFILL_MS;
    if (more > 0) {
        b->since_ms += more * REFILL_MS;
        b->tokens = (int)MIN(b->tokens + more, (int64_t)BURST);
    }
    if (b->tokens == 0)
        return false;
    b->tokens--;
    return true;
}

static void ignore(_unused_ void *arg, _unused_ const struct client_result *r)
{
    /* an event that could not be told is no reason to do anything */
}

static void tell_again(struct client *c, struct arena *a, const struct known *k)
{
    struct val *patch = val_map(a);
    char t[KUBETIME_MAX];
    struct client_call call = {.verb = CLIENT_PATCH,
                               .resource = "v1/events",
                               .ns = k->ns,
                               .name = k->name,
                               .patch_type = CLIENT_PATCH_MERGE,
                               .body = patch};

    val_put_int(a, patch, "count", k->count);
    val_put_str(a, patch, "lastTimestamp", kubetime_text(t, k->last_ms));
    client_call(c, &call, ignore, NULL);
}

static void tell_new(struct client *c, struct arena *a, const struct known *k, const char *component,
                     const struct obj *about, const char *type, const char *reason, const char *text)
{
    const struct val *v = obj_val(about);
    struct val *ev = val_map(a), *meta = val_need_map(a, ev, "metadata"), *ref;
    char t[KUBETIME_MAX];
    struct client_call call = {
        .verb = CLIENT_CREATE, .resource = "v1/events", .ns = k->ns, .body = ev};

    val_put_str(a, ev, "apiVersion", "v1");
    val_put_str(a, ev, "kind", "Event");
    meta = val_need_map(a, ev, "metadata");
    val_put_str(a, meta, "name", k->name);
    val_put_str(a, meta, "namespace", k->ns);
    ref = val_need_map(a, ev, "involvedObject");
    val_put_str(a, ref, "kind", val_str_at(v, "kind", ""));
    val_put_str(a, ref, "apiVersion", val_str_at(v, "apiVersion", ""));
    if (*about->namespace_)
        val_put_str(a, ref, "namespace", about->namespace_);
    val_put_str(a, ref, "name", about->name);
    val_put_str(a, ref, "uid", about->uid);
    val_put_str(a, ref, "resourceVersion", arena_printf(a, "%lld", (long long)about->revision));
    val_put_str(a, ev, "type", type);
    val_put_str(a, ev, "reason", reason);
    val_put_str(a, ev, "message", text);
    val_put_str(a, val_need_map(a, ev, "source"), "component", component);
    val_put_str(a, ev, "reportingComponent", component);
    val_put_str(a, ev, "firstTimestamp", kubetime_text(t, k->first_ms));
    val_put_str(a, ev, "lastTimestamp", kubetime_text(t, k->last_ms));
    val_put_int(a, ev, "count", 1);
    client_call(c, &call, ignore, NULL);
}

void client_event(struct client *c, const char *component, const struct obj *about, const char *type,
                  const char *reason, const char *fmt, ...)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct events *e = c->events;
    int64_t now = env_now_ms(c->env);
    struct buf b;
    va_list ap;
    char *key;
    struct known *k;

    if (!e)
        e = c->events = xcalloc(1, sizeof *e);
    buf_init(&b, 1024); /* what Kubernetes takes as a message */
    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    key = arena_printf(a, "%s|%s|%s|%s|%s", about->uid, component, type, reason, b.n ? b.p : "");
    k = map_get(&e->known, key);
    if (!spend(e, about->uid, now)) {
        buf_done(&b);
        return;
    }
    if (k && now - k->last_ms < SAME_MS) {
        k->count++;
        k->last_ms = now;
        tell_again(c, a, k);
    } else {
        if (e->known.n >= REMEMBER_MAX)
            forget(e);
        k = map_get(&e->known, key);
        if (!k) {
            k = xcalloc(1, sizeof *k);
            map_put(&e->known, key, k);
        }
        free(k->name);
        free(k->ns);
        k->name = xasprintf("%.230s.%016llx", about->name, (unsigned long long)env_random(c->env));
        k->ns = xstrdup(*about->namespace_ ? about->namespace_ : "default");
        k->first_ms = k->last_ms = now;
        k->count = 1;
        tell_new(c, a, k, component, about, type, reason, b.n ? b.p : "");
    }
    buf_done(&b);
}
