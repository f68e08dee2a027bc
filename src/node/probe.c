/* Probes and life-cycle hooks: exec in the container, HTTP or TCP to the pod.
 *
 * One try at a time per probe. A startup probe holds back the other two; liveness that fails
 * failureThreshold times in a row ends the container (and its restart policy decides what comes
 * next); readiness only switches the Ready condition. */
#include "http/client.h"
#include "node/node_int.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <unistd.h>

struct probe_try {
    struct node *n;
    struct probe *probe; /* NULL: nobody waits any more (or it is a hook's) */
    char *uid, *name;    /* of a hook: whose */
    void (*hook_done)(struct ctr *c, bool ok);
    const char *hook;
    struct env_timer *limit;
    /* exactly one of these is under way */
    struct node_exec *exec;
    struct http_origin *origin;
    struct http_call *call;
    uv_tcp_t *tcp;
    char why[512];
    int out; /* read end of an exec's output */
};

static const char *const FIELD[PROBES] = {"startupProbe", "livenessProbe", "readinessProbe"};
static const char *const LABEL[PROBES] = {"Startup", "Liveness", "Readiness"};

static void probe_result(struct probe *p, bool ok, const char *why);

/* ---- one try -----------------------------------------------------------------------------------
 */

static void tcp_closed(uv_handle_t *h)
{
    free(h);
}

/* Frees the try. Whatever is still under way will not report to us. */
static void try_drop(struct probe_try *t)
{
    env_timer_free(t->limit);
    if (t->exec) {
        node_exec_signal(t->exec, 9);
        node_exec_forget(t->exec);
    }
    if (t->call)
        http_call_cancel(t->call);
    if (t->origin)
        http_origin_free(t->origin);
    if (t->tcp) {
        t->tcp->data = NULL;
        uv_close((uv_handle_t *)t->tcp, tcp_closed);
    }
    closep(&t->out);
    free(t->uid);
    free(t->name);
    free(t);
}

static void try_over(struct probe_try *t, bool ok, const char *why)
{
    struct probe *p = t->probe;
    struct pod *pod;
    struct ctr *c = NULL;
    void (*done)(struct ctr *, bool) = t->hook_done;
    char text[600];

    snprintf(text, sizeof text, "%s", why);
    if (done) {
        pod = map_get(&t->n->by_uid, t->uid);
        c = pod ? pod_ctr(pod, t->name) : NULL;
        if (c && !ok)
            pod_event(pod, "Warning",
                      streq(t->hook, "preStop") ? "FailedPreStopHook" : "FailedPostStartHook",
                      "%s failed: %s", t->hook, text);
    }
    if (p)
        p->try_ = NULL;
    try_drop(t);
    if (p)
        probe_result(p, ok, text);
    if (done && c)
        done(c, ok);
}

static void timed_out(void *arg)
{
    try_over(arg, false, "timed out");
}

static void exec_exited(void *arg, struct node_exec *e, int code)
{
    struct probe_try *t = arg;
    char text[200] = "";
    ssize_t n;

    (void)e;
    t->exec = NULL;
    n = t->out >= 0 ? read(t->out, text, sizeof text - 1) : 0;
    text[MAX(n, (ssize_t)0)] = 0;
    char why[256];
    if (*text)
        snprintf(why, sizeof why, "%s", text);
    else
        snprintf(why, sizeof why, "exit code %d", code);
    try_over(t, code == 0, why);
}

static void exec_started(void *arg, struct node_exec *e, int master)
{
    struct probe_try *t = arg;

    t->exec = e;
    closep(&master);
}

static void exec_failed(void *arg, const struct err *err)
{
    struct probe_try *t = arg;

    t->exec = NULL;
    try_over(t, false, err->msg);
}

static void failed_later(void *arg)
{
    struct probe_try *t = arg;

    try_over(t, false, t->why);
}

/* The result is never told inside the call that starts a try. */
static void fail_soon(struct probe_try *t, const char *why)
{
    snprintf(t->why, sizeof t->why, "%s", why);
    env_timer_free(t->limit);
    t->limit = env_timer_new(t->n->env, failed_later, t);
    env_timer_start(t->limit, 0, 0);
}

static void try_exec(struct probe_try *t, struct ctr *c, const struct val *spec)
{
    const struct val *command = val_at(spec, "exec.command");
    _auto_(arena_freep) struct arena *a = arena_new();
    const char **args = arena_array(a, const char *, val_len(command) + 1);
    struct err err = {0};
    int p[2] = {-1, -1};
    uint32_t n = 0;

    VAL_EACH (command, it)
        args[n++] = val_text(it, "");
    if (uv_pipe(p, UV_NONBLOCK_PIPE, 0) < 0)
        p[0] = p[1] = -1;
    t->out = p[0];
    if (node_exec(c->pod->n,
                  &(struct node_exec_args){.ns = c->pod->ns,
                                           .pod = c->pod->name,
                                           .container = c->name,
                                           .command = args,
                                           .stdio = {-1, p[1], p[1]},
                                           .started = exec_started,
                                           .failed = exec_failed,
                                           .exited = exec_exited,
                                           .arg = t},
                  &t->exec, &err) < 0)
        fail_soon(t, err.msg);
    closep(&p[1]);
}

static void fetched(const struct http_answer *a, char *body, size_t n, const struct err *err,
                    void *arg)
{
    struct probe_try *t = arg;
    char why[600];

    (void)n;
    t->call = NULL;
    if (err || !a)
        snprintf(why, sizeof why, "%s", err ? err->msg : "no answer");
    else
        snprintf(why, sizeof why, "HTTP probe failed with statuscode: %d", a->status);
    (void)body;
    try_over(t, a && a->status >= 200 && a->status < 400, why);
}

/* A port by number or by the name it has in the container. */
static int port_of(struct ctr *c, const struct val *v)
{
    if (val_is(v, VAL_INT))
        return (int)v->i;
    if (!val_is(v, VAL_STR))
        return 0;
    VAL_EACH (val_get(ctr_spec(c), "ports"), p)
        if (streq(val_str_at(p, "name", ""), v->s))
            return (int)val_int_at(p, "containerPort", 0);
    return atoi(v->s);
}

static void try_http(struct probe_try *t, struct ctr *c, const struct val *get, int64_t timeout_ms)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    bool tls = streq(val_str_at(get, "scheme", "HTTP"), "HTTPS");
    const char *host = val_str_at(get, "host", c->pod->host_net ? "127.0.0.1" : c->pod->ip);
    int port = port_of(c, val_get(get, "port"));
    const struct val *headers = val_get(get, "httpHeaders");
    struct http_header *h = arena_array(a, struct http_header, val_len(headers) + 3);
    const char *path = val_str_at(get, "path", "/"), *as_host = NULL;
    size_t n = 0;
    struct err err = {0};

    h[n++] = (struct http_header){"user-agent", "kube-probe/1.36"};
    h[n++] = (struct http_header){"connection", "close"};
    VAL_EACH (headers, it) {
        if (strcasecmp(val_str_at(it, "name", ""), "host") == 0)
            as_host = val_str_at(it, "value", "");
        else
            h[n++] = (struct http_header){val_str_at(it, "name", ""), val_str_at(it, "value", "")};
    }
    t->origin = http_origin_new(c->pod->n->http,
                                arena_printf(a, "%s://%s:%d", tls ? "https" : "http", host, port),
                                &(struct http_origin_opts){.insecure = true}, &err);
    if (!t->origin) {
        fail_soon(t, err.msg);
        return;
    }
    t->call = http_fetch(
        t->origin,
        &(struct http_call_opts){.method = "GET",
                                 .path = *path == '/' ? path : arena_printf(a, "/%s", path),
                                 .host = as_host,
                                 .headers = h,
                                 .headers_n = n,
                                 .timeout_ms = (uint32_t)timeout_ms},
        1 << 20, fetched, t);
}

static void tcp_connected(uv_connect_t *req, int status)
{
    struct probe_try *t = req->handle->data;

    free(req);
    if (t)
        try_over(t, status == 0, status ? uv_strerror(status) : "");
}

static void try_tcp(struct probe_try *t, struct ctr *c, const struct val *spec)
{
    struct sockaddr_in to;
    const char *host = val_str_at(spec, "host", c->pod->host_net ? "127.0.0.1" : c->pod->ip);
    uv_connect_t *req;
    int bad;

    t->tcp = xcalloc(1, sizeof *t->tcp);
    uv_tcp_init(&t->n->loop, t->tcp);
    t->tcp->data = t;
    if (uv_ip4_addr(host, port_of(c, val_get(spec, "port")), &to) < 0) {
        fail_soon(t, "bad address");
        return;
    }
    req = xcalloc(1, sizeof *req);
    bad = uv_tcp_connect(req, t->tcp, (struct sockaddr *)&to, tcp_connected);
    if (bad) {
        free(req);
        fail_soon(t, uv_strerror(bad));
    }
}

static void slept(void *arg)
{
    try_over(arg, true, "");
}

static void try_start(struct probe_try *t, struct ctr *c, const struct val *spec,
                      int64_t timeout_ms)
{
    const struct val *x;

    t->limit = env_timer_new(t->n->env, timed_out, t);
    env_timer_start(t->limit, timeout_ms, 0);
    if (val_get(spec, "exec")) {
        try_exec(t, c, spec);
    } else if ((x = val_get(spec, "httpGet"))) {
        try_http(t, c, x, timeout_ms);
    } else if ((x = val_get(spec, "tcpSocket"))) {
        try_tcp(t, c, x);
    } else if ((x = val_get(spec, "sleep"))) {
        env_timer_free(t->limit);
        t->limit = env_timer_new(t->n->env, slept, t);
        env_timer_start(t->limit, val_int_at(x, "seconds", 0) * 1000, 0);
    } else {
        fail_soon(t, "this kind of probe is not supported (exec, httpGet and tcpSocket are)");
    }
}

static struct probe_try *try_new(struct ctr *c)
{
    struct probe_try *t = xcalloc(1, sizeof *t);

    t->n = c->pod->n;
    t->out = -1;
    return t;
}

/* ---- probes ------------------------------------------------------------------------------------
 */

static const struct val *probe_spec(const struct probe *p)
{
    return val_get(ctr_spec(p->c), FIELD[p->kind]);
}

static void probe_tick(void *arg)
{
    struct probe *p = arg;
    struct ctr *c = p->c;
    const struct val *spec = probe_spec(p);

    if (p->try_ || c->state != CTR_RUNNING || !spec)
        return;
    if (p->kind != PROBE_STARTUP && !c->started)
        return; /* not yet */
    p->try_ = try_new(c);
    p->try_->probe = p;
    try_start(p->try_, c, spec, MAX(val_int_at(spec, "timeoutSeconds", 1), (int64_t)1) * 1000);
}

static void now_started(struct ctr *c)
{
    c->started = true;
    if (!c->probe[PROBE_READINESS].there)
        c->ready = true;
    for (int i = PROBE_LIVENESS; i < PROBES; i++)
        if (c->probe[i].there &&
            val_int_at(probe_spec(&c->probe[i]), "initialDelaySeconds", 0) == 0)
            probe_tick(&c->probe[i]);
    pod_poke(c->pod);
}

static void probe_result(struct probe *p, bool ok, const char *why)
{
    struct ctr *c = p->c;
    const struct val *spec = probe_spec(p);

    if (!p->there || c->state != CTR_RUNNING)
        return;
    p->passed = ok ? p->passed + 1 : 0;
    p->failed = ok ? 0 : p->failed + 1;
    if (!ok)
        pod_event(c->pod, "Warning", "Unhealthy", "%s probe failed: %s", LABEL[p->kind], why);
    if (ok && p->passed >= val_int_at(spec, "successThreshold", 1)) {
        if (p->kind == PROBE_STARTUP && !c->started)
            now_started(c);
        if (p->kind == PROBE_READINESS && !c->ready) {
            c->ready = true;
            pod_poke(c->pod);
        }
    }
    if (!ok && p->failed >= val_int_at(spec, "failureThreshold", 3)) {
        if (p->kind == PROBE_READINESS && c->ready) {
            c->ready = false;
            pod_poke(c->pod);
        }
        if (p->kind != PROBE_READINESS && !c->want_kill && !c->stopping) {
            pod_event(c->pod, "Normal", "Killing",
                      "Container %s failed %s probe, will be restarted", c->name,
                      p->kind == PROBE_STARTUP ? "startup" : "liveness");
            c->want_kill = true;
            int64_t grace =
                val_int_at(spec, "terminationGracePeriodSeconds",
                           val_int_at(pod_spec(c->pod), "terminationGracePeriodSeconds", 30));
            ctr_stop(c, grace * 1000, NULL);
            pod_poke(c->pod);
        }
    }
    /* A container that is not up yet is asked often: Ready shall not lag by a whole period. */
    if (!ok && p->kind == PROBE_READINESS && c->started && p->passed == 0 && p->failed < 20 &&
        !p->ok && p->timer) {
        int64_t period = MAX(val_int_at(spec, "periodSeconds", 10), (int64_t)1) * 1000;
        env_timer_start(p->timer, MIN(period, (int64_t)100 << MIN(p->failed, 7)), period);
    }
    p->ok |= ok;
}

void probes_start(struct ctr *c)
{
    if (c->state != CTR_RUNNING)
        return;
    for (int i = 0; i < PROBES; i++) {
        struct probe *p = &c->probe[i];
        const struct val *spec = val_get(ctr_spec(c), FIELD[i]);
        if (val_is_null(spec) || p->there)
            continue;
        *p = (struct probe){.c = c, .kind = (enum probe_kind)i, .there = true};
        p->timer = env_timer_new(c->pod->n->env, probe_tick, p);
        env_timer_start(p->timer, val_int_at(spec, "initialDelaySeconds", 0) * 1000,
                        MAX(val_int_at(spec, "periodSeconds", 10), (int64_t)1) * 1000);
    }
}

void probes_stop(struct ctr *c)
{
    for (int i = 0; i < PROBES; i++) {
        struct probe *p = &c->probe[i];
        if (p->try_)
            try_drop(STEAL(p->try_));
        p->timer = env_timer_free(p->timer);
        p->there = false;
    }
}

void ctr_hook(struct ctr *c, const char *which, void (*done)(struct ctr *c, bool ok))
{
    const struct val *spec = val_get(val_get(ctr_spec(c), "lifecycle"), which);
    struct probe_try *t = try_new(c);
    int64_t limit = val_int_at(pod_spec(c->pod), "terminationGracePeriodSeconds", 30) * 1000;

    t->uid = xstrdup(c->pod->uid);
    t->name = xstrdup(c->name);
    t->hook = which;
    t->hook_done = done;
    try_start(t, c, spec, MAX(limit, (int64_t)1000));
}
