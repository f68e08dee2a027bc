/* The admin socket: meter, instances, invocations and logs for tandem's own commands and advisor. */
#include "gateway/gateway_int.h"

#include "codec/json.h"
#include "gateway/otlp.h"
#include "logs/logs.h"

#include <stdio.h>
#include <time.h>

struct invoke {
    struct gateway *g;
    struct http_req *req;
    const char *ns, *name;
    uint64_t ticket;
    bool answered, invoked;
};

static void say(struct http_req *req, int status, const char *reason, const char *message)
{
    struct arena *a = req->arena;
    struct val *v = val_map(a);
    size_t n;
    char *text;

    val_put_str(a, v, "kind", "Status");
    val_put_str(a, v, "status", "Failure");
    val_put_str(a, v, "reason", reason);
    val_put_str(a, v, "message", message);
    val_put_int(a, v, "code", status);
    text = json_text(a, v, &n);
    http_reply(req, status, "application/json", text, n);
}

static void on_done(void *arg, const struct function_result *r)
{
    struct invoke *i = arg;
    struct http_req *req = i->req;
    char timing[FUNCTION_TIMING_MAX];
    struct buf b = {0};
    struct err err;

    i->answered = true;
    function_timing_text(r, timing);
    http_header(req, "x-tandem-timing", timing);
    if (r->err.code != ERR_OK) {
        say(req, err_http(r->err.code), err_reason(r->err.code), r->err.msg);
        return;
    }
    buf_printf(&b, "{\"requestId\":\"%s\",\"traceId\":\"%s\",", r->request_id, r->trace->id);
    if (r->function_error)
        buf_printf(&b, "\"functionError\":\"%s\",", r->function_error);
    buf_printf(&b,
               "\"timing\":{\"queue_us\":%lld,\"start_us\":%lld,\"init_us\":%lld,\"duration_us\":%lld,\"cold\":%s},\"log\":",
               (long long)r->queue_us, (long long)r->start_us, (long long)r->init_us, (long long)r->duration_us,
               r->cold ? "true" : "false");
    json_write_str(&b, r->log_tail ? r->log_tail : "", r->log_tail_n);
    buf_adds(&b, ",\"payload\":");
    if (r->n && !json_parse(req->arena, r->payload, r->n, &err)) /* a runtime may answer what it likes */
        json_write_str(&b, r->payload, r->n);
    else if (r->n)
        buf_add(&b, r->payload, r->n);
    else
        buf_adds(&b, "null");
    buf_addc(&b, '}');
    http_reply(req, 200, "application/json", b.p, b.n);
    buf_done(&b);
}

static void on_gone(struct http_req *req, void *arg)
{
    struct invoke *i = arg;

    if (i->answered || !i->invoked)
        return;
    i->answered = true;
    function_forget(i->g->functions, i->ticket);
    http_abort(req);
}

static void on_body(struct http_req *req, char *data, size_t n, const struct err *err, void *arg)
{
    struct invoke *i = arg;
    struct function_call c = {.namespace_ = i->ns, .name = i->name, .payload = data, .n = n, .log_tail = true, .req = req};
    uint64_t ticket;

    if (err) {
        if (err->code == ERR_CANCELLED)
            http_abort(req);
        else
            say(req, err_http(err->code), err_reason(err->code), err->msg);
        return;
    }
    c.debug = http_param(req, "debug") != NULL;
    i->invoked = true;
    http_on_close(req, on_gone, i);
    ticket = function_invoke(i->g->functions, &c, on_done, i);
    if (ticket)
        i->ticket = ticket;
}

/* "/verb/NS/NAME"; false: not of that form */
static bool split(struct http_req *req, const char *prefix, const char **ret_ns, const char **ret_name)
{
    const char *p = req->path, *slash;

    if (!str_starts(p, prefix))
        return false;
    p += strlen(prefix);
    slash = strchr(p, '/');
    if (!slash || slash == p || !slash[1] || strchr(slash + 1, '/'))
        return false;
    *ret_ns = arena_strndup(req->arena, p, (size_t)(slash - p));
    *ret_name = arena_strdup(req->arena, slash + 1);
    return true;
}

static void reply_buf(struct http_req *req, const char *type, struct buf *b)
{
    http_reply(req, 200, type, b->p ? b->p : "", b->n);
    buf_done(b);
}

/* ---- a function's log ---- */

struct log_lines {
    struct http_req *req;
    bool with_next, backward;
};

static void on_lines(void *arg, const struct log_page *page, const struct err *err)
{
    struct log_lines *l = arg;
    struct buf b = {0};
    struct tm tm;

    if (err && err->code != ERR_NOT_FOUND) {
        say(l->req, err_http(err->code), err_reason(err->code), err->msg);
        return;
    }
    for (uint32_t i = 0; page && i < page->n; i++) {
        const struct log_event *e = &page->events[i];
        time_t t = (time_t)(e->time_ms / 1000);
        char when[40];

        gmtime_r(&t, &tm);
        strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
        buf_printf(&b, "%s.%03dZ\t%s\t", when, (int)(e->time_ms % 1000), e->stream);
        buf_add(&b, e->text, e->n);
        buf_addc(&b, '\n');
    }
    if (l->with_next && page) { /* of the last lines, too, it goes on behind them */
        struct log_pos at = !l->backward ? page->next : page->n ? page->events[page->n - 1].pos : LOG_POS_FIRST;

        buf_printf(&b, "\x1e%lld.%u.%u", (long long)at.time_ms, at.segment, at.offset);
    }
    reply_buf(l->req, "text/plain; charset=utf-8", &b);
}

/* ?tail=N: the last lines; ?after=POSITION: those behind it. With ?next=1 the answer ends with a byte 30 and the position
 * to go on from. */
static void log_request(struct gateway *g, struct http_req *req, const char *ns, const char *name)
{
    const char *group = functions_log_group(g->functions, req->arena, ns, name), *after = http_param(req, "after");
    const char *tail = http_param(req, "tail");
    struct log_lines *l = arena_new_of(req->arena, struct log_lines);
    struct log_query q = {.ns = ns, .group = group ? group : arena_printf(req->arena, "/aws/lambda/%s", name), .from_ms = 0,
                          .to_ms = INT64_MAX, .at = LOG_POS_LAST, .backward = true};
    struct log_group_info info;
    long long time;

    *l = (struct log_lines){req, http_param(req, "next"), !after};
    if (tail && atoi(tail) > 0)
        q.limit = (uint32_t)MIN(atoi(tail), LOGS_PAGE_EVENTS_MAX);
    if (after) {
        q.backward = false;
        q.at = LOG_POS_FIRST;
        if (sscanf(after, "%lld.%u.%u", &time, &q.at.segment, &q.at.offset) == 3)
            q.at.time_ms = time;
    }
    if (!group && !logs_group_get(g->logs, ns, q.group, &info)) {
        say(req, 404, "NotFound", arena_printf(req->arena, "%s has no log", name));
        return;
    }
    logs_query(g->logs, &q, on_lines, l);
}

static void follow_function(struct gateway *g, struct http_req *req, const char *ns, const char *name)
{
    const char *group = functions_log_group(g->functions, req->arena, ns, name);
    struct log_group_info info;

    if (!group) { /* it has gone, its lines may be there still */
        group = arena_printf(req->arena, "/aws/lambda/%s", name);
        if (!logs_group_get(g->logs, ns, group, &info)) {
            say(req, 404, "NotFound", arena_printf(req->arena, "there is no function %s", name));
            return;
        }
    }
    follow_request(g, req, ns, group);
}

void admin_request(struct gateway *g, struct http_req *req)
{
    bool get = streq(req->method, "GET");
    const char *ns, *name;
    struct buf b = {0};

    if (get && streq(req->path, "/healthz")) {
        http_reply_str(req, 200, "text/plain", "ok\n");
    } else if (get && streq(req->path, "/meter")) {
        functions_meter_json(g->functions, &b);
        reply_buf(req, "application/json", &b);
    } else if (get && streq(req->path, "/metrics")) {
        functions_meter_prometheus(g->functions, &b);
        otlp_prometheus(g->otlp, &b);
        reply_buf(req, "text/plain; version=0.0.4; charset=utf-8", &b);
    } else if (get && streq(req->path, "/instances")) {
        functions_instances_json(g->functions, &b);
        reply_buf(req, "application/json", &b);
    } else if (get && split(req, "/follow/", &ns, &name)) {
        follow_function(g, req, ns, name);
    } else if (get && str_starts(req->path, "/follow/") && req->path[8] && !strchr(req->path + 8, '/')) {
        follow_request(g, req, req->path + 8, NULL);
    } else if (get && split(req, "/debug/", &ns, &name)) {
        debug_request(g, req, ns, name);
    } else if (get && split(req, "/log/", &ns, &name)) {
        log_request(g, req, ns, name);
    } else if (streq(req->method, "POST") && split(req, "/invoke/", &ns, &name)) {
        struct invoke *i = arena_new_of(req->arena, struct invoke);

        *i = (struct invoke){.g = g, .req = req, .ns = ns, .name = name};
        http_body(req, FUNCTION_PAYLOAD_MAX, on_body, i);
    } else {
        say(req, 404, "NotFound", "GET /meter, /metrics, /instances, /log/NS/NAME, /follow/NS, /follow/NS/NAME, /debug/NS/NAME, /healthz; POST /invoke/NS/NAME");
    }
}
