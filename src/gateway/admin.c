/* The admin socket: meter, instances, invocations and logs for tandem's own commands and advisor. */
#include "gateway/gateway_int.h"

#include "codec/json.h"

#include <stdio.h>

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
    buf_printf(&b, "{\"requestId\":\"%s\",", r->request_id);
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
    struct function_call c = {.namespace_ = i->ns, .name = i->name, .payload = data, .n = n, .log_tail = true};
    uint64_t ticket;

    if (err) {
        if (err->code == ERR_CANCELLED)
            http_abort(req);
        else
            say(req, err_http(err->code), err_reason(err->code), err->msg);
        return;
    }
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

void admin_request(struct gateway *g, struct http_req *req)
{
    bool get = streq(req->method, "GET");
    const char *ns, *name;
    struct buf b = {0};
    struct err err;

    if (get && streq(req->path, "/healthz")) {
        http_reply_str(req, 200, "text/plain", "ok\n");
    } else if (get && streq(req->path, "/meter")) {
        functions_meter_json(g->functions, &b);
        reply_buf(req, "application/json", &b);
    } else if (get && streq(req->path, "/instances")) {
        functions_instances_json(g->functions, &b);
        reply_buf(req, "application/json", &b);
    } else if (get && split(req, "/log/", &ns, &name)) {
        if (functions_log_tail(g->functions, ns, name, 1 << 20, &b, &err) < 0)
            say(req, err_http(err.code), err_reason(err.code), err.msg);
        else
            reply_buf(req, "text/plain; charset=utf-8", &b);
    } else if (streq(req->method, "POST") && split(req, "/invoke/", &ns, &name)) {
        struct invoke *i = arena_new_of(req->arena, struct invoke);

        *i = (struct invoke){.g = g, .req = req, .ns = ns, .name = name};
        http_body(req, FUNCTION_PAYLOAD_MAX, on_body, i);
    } else {
        say(req, 404, "NotFound", "GET /meter, /instances, /log/NS/NAME, /healthz; POST /invoke/NS/NAME");
    }
}
