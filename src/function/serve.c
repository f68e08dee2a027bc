/* Places: an instance that takes several calls at once has so many. HTTP functions: a program that listens on $PORT,
 * each request is a call in a place. Other functions with spec.concurrency get theirs in frames (instance.c).
 *
 * A call for such a function is a place in an instance: whoever asked for it sends its request to the
 * instance's origin as it likes and gives the place back. Connections are made inside the sandbox (by the
 * first process of the instance, api.c, to the program on its loopback) and handed out over the instance's
 * socket, so the program needs no address of its own and nobody else can reach it:
 *
 *   http/client wants a connection --> frame DIAL --> connect() in there --> frame DIALED with the descriptor
 *
 * Billed is the time in which an instance has at least one place taken. */
#include "function/function_int.h"

#include "base/log.h"
#include "http/client.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { HTTP_START_MS = 60000, GRACE_MS = 10000, DIALS_MAX = 4096 };

struct dial {
    struct list link; /* instance.dials */
    struct instance *i;
    uint64_t id;
    struct http_dial *d;
    function_dialed_fn *fn; /* instead of d: of a debugger */
    void *arg;
};

int serve_grace_ms(const struct instance *i)
{
    return i->v->http_port ? GRACE_MS : i->grace_ms;
}

/* ---- connections ---- */

/* It is answered later, with -1 at the end of the instance at the latest. */
static void dial_begin(struct instance *i, struct dial like)
{
    struct dial *x = xcalloc(1, sizeof *x);

    *x = like;
    x->i = i;
    list_push(&i->dials, &x->link);
    if (++i->dials_n > MAX((uint32_t)DIALS_MAX, 2 * (uint32_t)i->v->places)) { /* who asked has long gone: it answers none of them */
        LOG(WARN, "function", "function=%s did=kill slot=%u why=\"it makes no connections\"", i->v->f->key, i->slot);
        instance_kill(i);
        return;
    }
    instance_frame(i, &(struct instance_frame){.type = FRAME_DIAL, .id = like.id});
}

static void on_dial(void *arg, struct http_dial *d)
{
    struct instance *i = arg;

    dial_begin(i, (struct dial){.d = d, .id = ++i->frames});
}

/* Ids of these are no frames of calls. */
void serve_dial(struct instance *i, function_dialed_fn *fn, void *arg)
{
    static uint64_t next = UINT64_C(1) << 40;

    dial_begin(i, (struct dial){.fn = fn, .arg = arg, .id = ++next});
}

static void dial_end(struct dial *x, int fd)
{
    struct dial was = *x;

    list_remove(&x->link);
    was.i->dials_n--;
    free(x);
    if (was.fn)
        was.fn(was.arg, fd);
    else
        http_dialed(was.d, fd);
}

/* It came from a process that runs somebody's code: only a stream socket is taken. */
static bool is_stream(int fd)
{
    int type = 0, domain = 0;
    socklen_t n = sizeof type, m = sizeof domain;

    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &n) == 0 && getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &m) == 0 &&
           type == SOCK_STREAM && (domain == AF_INET || domain == AF_INET6 || domain == AF_UNIX);
}

bool serve_dialed(struct instance *i, uint64_t id, bool made, int fd)
{
    if (made != (fd >= 0)) {
        closep(&fd);
        return false;
    }
    if (fd >= 0 && !is_stream(fd)) {
        close(fd);
        return false;
    }
    if (fd < 0 && i->v->http_port) /* it listened once and does no more: nobody else shall be sent there */
        instance_stop(i, GRACE_MS);
    LIST_EACH(&i->dials, l)
    if (list_entry(l, struct dial, link)->id == id) {
        dial_end(list_entry(l, struct dial, link), fd);
        return true;
    }
    if (fd >= 0)
        close(fd);
    return false;
}

/* ---- places ---- */

static void place(struct instance *i, struct call *c)
{
    c->placed = true;
    c->sent_us = now_us();
    c->cold = !i->warm;
    i->warm = true;
    c->on_place(c->arg, i->origin, &c->trace);
}

static void on_start_late(uv_timer_t *t)
{
    struct instance *i = t->data;

    LOG(WARN, "function", "function=%s did=kill slot=%u why=\"nothing listens on port %d\"", i->v->f->key, i->slot, i->v->http_port);
    instance_kill(i);
}

void place_take(struct instance *i, struct call *c)
{
    struct version *v = i->v;

    instance_leave_lists(i);
    c->i = i;
    list_push(&i->leases, &c->lease);
    if (!i->leases_n++)
        i->active_us = now_us();
    i->state = i->leases_n < (uint32_t)v->places ? INSTANCE_IDLE : INSTANCE_BUSY;
    if (i->state == INSTANCE_IDLE)
        list_push_front(&v->idle, &i->free);
}

void serve_take(struct instance *i, struct call *c)
{
    c->placed = false;
    place_take(i, c);
    if (i->inited)
        place(i, c);
    else if (!uv_is_active((uv_handle_t *)&i->timer))
        uv_timer_start(&i->timer, on_start_late, HTTP_START_MS, 0);
}

/* Nobody is in there any more: what it was used is counted. */
static void settle(struct instance *i)
{
    int64_t us = now_us() - i->active_us;

    meter_active(i->v->f, us, (uint64_t)(us + 999) / 1000);
    i->idle_since_us = i->v->used_us = now_us();
}

void place_give(struct call *c)
{
    struct instance *i = c->i;

    list_remove(&c->lease);
    c->i = NULL;
    if (!i)
        return;
    if (!--i->leases_n)
        settle(i);
    if (i->exited || i->state == INSTANCE_DYING)
        return;
    if ((i->v->removed || i->overdue) && !i->leases_n) {
        instance_stop(i, serve_grace_ms(i));
    } else if (!i->v->removed && !i->overdue && i->state == INSTANCE_BUSY) {
        i->state = INSTANCE_IDLE;
        list_push_front(&i->v->idle, &i->free);
    }
}

bool serve_forget(struct call *c)
{
    if (!c->on_place || !c->i)
        return false;
    place_give(c);
    return true;
}

/* Its launch failed: the calls are their owners' again. */
void serve_drop(struct instance *i)
{
    struct list *l;

    while ((l = list_first(&i->leases)))
        place_give(list_entry(l, struct call, lease));
}

void function_leave(struct functions *fs, uint64_t ticket, bool ok, int status)
{
    struct call *c = (struct call *)(uintptr_t)ticket;
    struct function_result r = {0};
    struct instance *i = c->i;
    struct function *f = c->f;

    r.duration_us = now_us() - c->sent_us;
    r.queue_us = c->sent_us - c->since_us;
    r.cold = c->cold;
    r.rung = c->rung;
    r.function_error = ok ? NULL : "Unhandled";
    if (c->span)
        c->span->status = status;
    meter_call(f, &r, r.duration_us, 0, 0, c->alias_series);
    if (i)
        flog_report(i, c, &r, r.duration_us, 0); /* billed is the instance, see settle() */
    f->busy++; /* stays while its call ends */
    place_give(c);
    c->done = NULL;
    pool_end(c, &r);
    f->busy--;
    if (f->waiting_n)
        pool_feed(f);
    function_let_go(f);
}

/* ---- its socket ---- */

static void on_listening(struct instance *i)
{
    struct functions *fs = i->v->f->fs;
    struct http_origin_opts o = {.dial = on_dial, .dial_arg = i};
    _auto_(freep) char *url = xasprintf("http://127.0.0.1:%d", i->v->http_port);
    struct err err;

    if (!fs->http)
        fs->http = http_client_new(fs->loop, &(struct http_client_opts){.idle_conns_max = 64, .connect_timeout_ms = 30000});
    i->origin = http_origin_new(fs->http, url, &o, &err);
    i->inited = true;
    uv_timer_stop(&i->timer);
    if (!i->origin) {
        instance_kill(i);
        return;
    }
    LIST_EACH(&i->leases, l)
    if (!list_entry(l, struct call, lease)->placed)
        place(i, list_entry(l, struct call, lease));
}

/* One frame; false: nothing (more) to read. */
bool serve_read(struct instance *i)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * 4)];
    } control;
    struct instance_frame f;
    struct iovec iov = {&f, sizeof f};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n = recvmsg(i->sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    int fd = -1;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    for (struct cmsghdr *h = n > 0 ? CMSG_FIRSTHDR(&m) : NULL; h; h = CMSG_NXTHDR(&m, h))
        if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS)
            for (size_t k = 0; k < (h->cmsg_len - CMSG_LEN(0)) / sizeof(int); k++) {
                int one;

                memcpy(&one, CMSG_DATA(h) + k * sizeof one, sizeof one);
                if (fd < 0)
                    fd = one;
                else
                    close(one);
            }
    if (n == (ssize_t)sizeof f && f.type == FRAME_INITED && !i->inited && fd < 0) {
        on_listening(i);
        return !i->exited;
    }
    if (n == (ssize_t)sizeof f && f.type == FRAME_DIALED && i->inited && serve_dialed(i, f.id, f.result == 0, STEAL_FD(fd)))
        return true;
    closep(&fd); /* it has no business here */
    if (n > 0)
        LOG(WARN, "function", "function=%s did=kill slot=%u why=\"it does not keep the protocol\"", i->v->f->key, i->slot);
    instance_unwatch(i);
    instance_kill(i);
    return false;
}

void serve_dials_end(struct instance *i)
{
    struct list *l;

    while ((l = list_first(&i->dials)))
        dial_end(list_entry(l, struct dial, link), -1);
}

void serve_exited(struct instance *i, int status)
{
    struct list *l;
    struct err err;

    if (i->stopping)
        uv_timer_stop(&i->timer);
    serve_dials_end(i);
    if (i->v->wasm)
        err_set(&err, UNAVAILABLE, "the component's process ended before it could serve");
    else if (WIFEXITED(status))
        err_set(&err, UNAVAILABLE, "the program ended with status %d before it listened on port %d", WEXITSTATUS(status), i->v->http_port);
    else
        err_set(&err, UNAVAILABLE, "the program was ended before it listened on port %d", i->v->http_port);
    i->v->f->busy++;
    while ((l = list_first(&i->leases))) {
        struct call *c = list_entry(l, struct call, lease);

        place_give(c);
        if (!c->placed) /* else its connections broke: its owner knows */
            pool_refuse(c, &err);
    }
    i->v->f->busy--;
    if (i->origin)
        i->origin = http_origin_free(i->origin);
}
