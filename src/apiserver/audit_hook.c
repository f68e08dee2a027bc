/* apiserver/audit_hook.c - audit events to a webhook: an EventList each time a batch is full or a
 * second is over; one batch is under way at a time. A batch that does not arrive is tried again
 * RETRIES times with growing pauses, then it is dropped and counted. */
#include "apiserver/audit_sink.h"
#include "apiserver/kubeconf.h"
#include "base/buf.h"
#include "base/log.h"
#include "env/env.h"

enum {
    BATCH_EVENTS_MAX = 400, /* as upstream's default */
    BATCH_WAIT_MS = 1000,
    RETRIES = 4,
    PAUSE_MS = 500,
    TIMEOUT_MS = 30000,
};

struct audit_hook {
    struct env *env;
    struct arena *arena;
    struct kubeconf conf;
    struct http_client *client;
    struct http_origin *origin;
    struct http_call *call; /* under way */
    struct env_timer *timer;
    struct buf queue;       /* events, a comma behind each */
    uint32_t queued;
    struct buf batch;       /* the text that is sent; n 0: none */
    uint32_t batch_events;
    int tried;
    uint64_t dropped, failed;
};

static void send_batch(struct audit_hook *h);

static void batch_over(struct audit_hook *h)
{
    buf_done(&h->batch);
    h->batch = (struct buf){0};
    h->tried = 0;
    if (h->queued)
        env_timer_start(h->timer, h->queued >= BATCH_EVENTS_MAX ? 0 : BATCH_WAIT_MS, 0);
}

static void on_answer(const struct http_answer *a, char *body, size_t n, const struct err *err, void *arg)
{
    struct audit_hook *h = arg;

    (void)body;
    (void)n;
    h->call = NULL;
    if (err && err->code == ERR_CANCELLED)
        return;
    if (!err && a->status < 300) {
        batch_over(h);
        return;
    }
    h->failed++;
    LOG(WARN, "audit", "did=webhook url=%s%s status=%d err=\"%s\"", h->conf.server, h->conf.path,
        a ? a->status : 0, err ? err->msg : "");
    if (++h->tried > RETRIES || (a && a->status >= 400 && a->status < 500 && a->status != 429)) {
        h->dropped += h->batch_events;
        batch_over(h);
        return;
    }
    env_timer_start(h->timer, (int64_t)PAUSE_MS << h->tried, 0);
}

static void send_batch(struct audit_hook *h)
{
    struct http_header headers[2] = {{"content-type", "application/json"}};
    struct http_call_opts o = {.method = "POST", .path = h->conf.path, .headers = headers,
                               .headers_n = 1, .body = h->batch.p, .body_n = h->batch.n,
                               .timeout_ms = TIMEOUT_MS};
    _auto_(freep) char *token = NULL;

    if (h->conf.token) {
        token = xasprintf("Bearer %s", h->conf.token);
        headers[o.headers_n++] = (struct http_header){"authorization", token};
    }
    h->call = http_fetch(h->origin, &o, 1 << 16, on_answer, h);
}

/* A batch: as many of the oldest events as one may hold. */
static void take_batch(struct audit_hook *h)
{
    static const char head[] = "{\"kind\":\"EventList\",\"apiVersion\":\"audit.k8s.io/v1\",\"metadata\":{},\"items\":[";

    buf_adds(&h->batch, head);
    buf_add(&h->batch, h->queue.p, h->queue.n - 1); /* the last comma */
    buf_adds(&h->batch, "]}");
    h->batch_events = h->queued;
    h->queued = 0;
    buf_reset(&h->queue);
}

static void on_timer(void *arg)
{
    struct audit_hook *h = arg;

    if (h->call)
        return;
    if (!h->batch.n && h->queued)
        take_batch(h);
    if (h->batch.n)
        send_batch(h);
}

void audit_hook_add(struct audit_hook *h, const char *event, size_t n)
{
    if (h->queue.n + n + 1 > AUDIT_BUFFER_MAX) {
        h->dropped++;
        LOG(ERROR, "audit", "did=drop why=\"the webhook does not keep up\" url=%s", h->conf.server);
        return;
    }
    buf_add(&h->queue, event, n);
    buf_addc(&h->queue, ',');
    h->queued++;
    if (h->call || h->batch.n)
        return;
    if (h->queued >= BATCH_EVENTS_MAX)
        env_timer_start(h->timer, 0, 0);
    else if (!env_timer_active(h->timer))
        env_timer_start(h->timer, BATCH_WAIT_MS, 0);
}

struct audit_hook *audit_hook_new(struct env *env, const char *path, struct err *err)
{
    struct audit_hook *h = xcalloc(1, sizeof(*h));

    h->env = env;
    h->arena = arena_new();
    buf_init(&h->queue, AUDIT_BUFFER_MAX);
    h->client = http_client_new(env_loop(env), NULL);
    h->timer = env_timer_new(env, on_timer, h);
    if (kubeconf_read(path, h->arena, &h->conf, err) < 0 ||
        !(h->origin = kubeconf_origin(h->client, &h->conf, err))) {
        err_wrap(err, "audit webhook");
        return audit_hook_free(h);
    }
    return h;
}

void *audit_hook_free(struct audit_hook *h)
{
    if (!h)
        return NULL;
    env_timer_free(h->timer);
    http_client_free(h->client); /* on_answer comes with CANCELLED, from inside */
    buf_done(&h->queue);
    buf_done(&h->batch);
    arena_free(h->arena);
    free(h);
    return NULL;
}

void audit_hook_counts(const struct audit_hook *h, struct audit_counts *n)
{
    n->dropped += h->dropped;
    n->failed += h->failed;
}
