#include "node/node_int.h"
#include "sandbox/shim.h"

#include <fcntl.h>
#include <unistd.h>

struct call {
    struct list link;
    int64_t id;
    slink_fn *fn;
    void *arg;
};

struct slink {
    int fd;
    uv_poll_t poll;
    uv_idle_t later; /* tells of a send that failed, from the loop */
    struct slink_events ev;
    struct list calls;
    int64_t id;
    bool dead, in_read, freed;
    int handles;
};

static void fail_calls(struct slink *l)
{
    while (!list_empty(&l->calls)) {
        struct call *c = list_entry(list_first(&l->calls), struct call, link);
        list_remove(&c->link);
        if (c->fn)
            c->fn(c->arg, NULL, -1);
        free(c);
    }
}

static void handle_closed(uv_handle_t *h)
{
    struct slink *l = h->data;

    if (--l->handles == 0)
        free(l);
}

static void dead(struct slink *l)
{
    if (l->dead)
        return;
    l->dead = true;
    uv_poll_stop(&l->poll);
    fail_calls(l);
    if (!l->freed)
        l->ev.closed(l->ev.arg);
}

static void answer(struct slink *l, const struct val *v, int fd)
{
    int64_t id = val_int_at(v, "id", 0);

    LIST_EACH (&l->calls, it) {
        struct call *c = list_entry(it, struct call, link);
        if (c->id != id)
            continue;
        list_remove(&c->link);
        if (c->fn)
            c->fn(c->arg, v, fd);
        else
            closep(&fd);
        free(c);
        return;
    }
    closep(&fd);
}

static void readable(uv_poll_t *h, int status, int events)
{
    struct slink *l = h->data;
    struct err err = {0};

    (void)status;
    (void)events;
    for (;;) {
        _auto_(arena_freep) struct arena *a = arena_new();
        struct shim_message m = {0};
        struct val *v;

        if (shim_recv(l->fd, a, &v, &m, &err) < 0) {
            if (err.code != ERR_TIMEOUT)
                dead(l);
            return;
        }
        for (int i = 1; i < m.fds_n; i++)
            close(m.fds[i]);
        if (val_get(v, "event")) {
            if (m.fds_n)
                close(m.fds[0]);
            l->ev.event(l->ev.arg, v);
        } else {
            answer(l, v, m.fds_n ? m.fds[0] : -1);
        }
        if (l->freed || l->dead)
            return; /* handles close later: l itself is still there */
    }
}

static void told_later(uv_idle_t *h)
{
    uv_idle_stop(h);
    dead(h->data);
}

struct slink *slink_new(uv_loop_t *loop, int fd, const struct slink_events *ev)
{
    struct slink *l = xcalloc(1, sizeof *l);

    l->fd = fd;
    l->ev = *ev;
    list_init(&l->calls);
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    uv_poll_init(loop, &l->poll, fd);
    uv_idle_init(loop, &l->later);
    l->poll.data = l->later.data = l;
    l->handles = 2;
    uv_poll_start(&l->poll, UV_READABLE, readable);
    return l;
}

void *slink_free(struct slink *l)
{
    if (!l || l->freed)
        return NULL;
    l->freed = true;
    uv_poll_stop(&l->poll);
    fail_calls(l);
    close(l->fd);
    uv_close((uv_handle_t *)&l->poll, handle_closed);
    uv_close((uv_handle_t *)&l->later, handle_closed);
    return NULL;
}

void slink_call(struct slink *l, struct arena *a, struct val *v, const int *fds, int fds_n,
                slink_fn *fn, void *arg)
{
    struct call *c = xcalloc(1, sizeof *c);
    struct err err = {0};

    *c = (struct call){.id = ++l->id, .fn = fn, .arg = arg};
    val_put_int(a, v, "id", c->id);
    list_push(&l->calls, &c->link);
    if (l->dead || shim_send(l->fd, v, fds, fds_n, &err) < 0) {
        LOG(WARN, "node", "did=shim_send err=\"%s\"", err.msg);
        uv_idle_start(&l->later, told_later);
    }
}

struct val *slink_verb(struct arena *a, const char *name, const char *container)
{
    struct val *v = val_map(a);

    val_put_str(a, v, "do", name);
    if (container)
        val_put_str(a, v, "container", container);
    return v;
}

void slink_error(const struct val *answer, struct err *err)
{
    if (!answer) {
        err_set(err, UNAVAILABLE, "the pod's shim is gone");
        return;
    }
    err_set_(err, (enum err_code)val_int_at(answer, "code", ERR_INTERNAL),
             (int)val_int_at(answer, "sys", 0), "%s",
             val_str_at(answer, "error", "the shim gave no reason"));
}
