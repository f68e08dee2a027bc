/* http.c of zygote.so - wasi:http of an HTTP component: the request that came in, the answer to it, and the requests that do
 * not go out; see host.h.
 *
 * The answer's head leaves with the first flush after response-outparam.set: until then all that is written is kept, so a
 * body that is finished by that flush is sent with its length. What a component that fails leaves open, host.c ends. */
#include "function/runtime/wasm/host.h"

#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

/* ---- how the answer is sent ---- */

static void add_line(void *arg_, const char *name, const char *value, size_t n)
{
    struct buf *b = arg_;

    if (strcasecmp(name, "content-length") == 0) {
        char digits[24];

        snprintf(digits, sizeof digits, "%.*s", (int)MIN(n, sizeof digits - 1), value);
        wasm_req.length = n && n < 19 && strspn(digits, "0123456789") == n ? (int64_t)strtoll(digits, NULL, 10) : -1;
        return;
    }
    buf_adds(b, name);
    buf_adds(b, ": ");
    buf_add(b, value, n);
    buf_adds(b, "\r\n");
}

bool wasm_flush(struct body *b)
{
    bool ok = !b->broken;

    if (!ok || !b->mine || !wasm_req.set)
        return ok;
    if (!wasm_req.web->answered) {
        struct buf lines = {0};

        wasm_req.length = -1;
        wasm_each_field(wasm_req.answer_fields, add_line, &lines);
        if (wasm_req.length < 0 && b->finished)
            wasm_req.length = (int64_t)b->data.n;
        ok = web_answer(wasm_req.web, wasm_req.status, lines.n ? lines.p : "", lines.n, wasm_req.length);
        buf_done(&lines);
    }
    ok = ok && web_say(wasm_req.web, b->data.p, b->data.n);
    buf_reset(&b->data);
    b->broken |= !ok;
    wasm_alive();
    return ok;
}

/* ---- the request ---- */

static void request_method(struct in *in)
{
    static const struct {
        llhttp_method_t method;
        const char *name;
    } known[] = {{HTTP_GET, "get"}, {HTTP_HEAD, "head"}, {HTTP_POST, "post"}, {HTTP_PUT, "put"}, {HTTP_DELETE, "delete"},
                 {HTTP_CONNECT, "connect"}, {HTTP_OPTIONS, "options"}, {HTTP_TRACE, "trace"}, {HTTP_PATCH, "patch"}};
    const char *name = llhttp_method_name((llhttp_method_t)wasm_req.web->parser.method);
    struct wasm_val v;

    if (!wasm_arg_res(in, 0, K_REQUEST))
        return;
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (wasm_req.web->parser.method == known[i].method) {
            give(in, v_case(known[i].name));
            return;
        }
    v = v_case("other");
    v.of.variant.val = boxed(v_str(name, strlen(name)));
    give(in, v);
}

static void request_path(struct in *in)
{
    if (wasm_arg_res(in, 0, K_REQUEST))
        give(in, v_some(v_str(wasm_req.web->url.p, wasm_req.web->url.n)));
}

static void request_scheme(struct in *in)
{
    const char *proto = web_field(wasm_req.web, "x-forwarded-proto");

    if (wasm_arg_res(in, 0, K_REQUEST))
        give(in, v_some(v_case(proto && strcasecmp(proto, "https") == 0 ? "HTTPS" : "HTTP")));
}

static void request_authority(struct in *in)
{
    const char *host = web_field(wasm_req.web, "host");

    if (wasm_arg_res(in, 0, K_REQUEST))
        give(in, host && wasm_is_ascii(host) ? v_some(v_str(host, strlen(host))) : v_none());
}

static void show_fields(struct in *in, enum kind of)
{
    struct obj *o = wasm_arg_res(in, 0, of);
    struct fields *f = o ? o->fields : NULL;
    uint32_t rep = o ? wasm_obj_new(K_FIELDS) : 0;

    if (!o)
        return;
    if (rep)
        wasm_req.objs[rep].fields = f;
    give(in, wasm_resource(in, rep));
}

static void request_headers(struct in *in)
{
    show_fields(in, K_REQUEST);
}

/* What can be had once. */
static void take(struct in *in, enum kind of, enum kind kind)
{
    struct obj *o = wasm_arg_res(in, 0, of);
    uint32_t at = o ? (uint32_t)(o - wasm_req.objs) : 0, rep;

    if (!o)
        return;
    if (o->taken) {
        give(in, v_done(false));
        return;
    }
    o->taken = true;
    rep = wasm_obj_new(kind);
    o = &wasm_req.objs[at]; /* it may have moved */
    if (rep && (kind == K_OUTGOING_BODY || kind == K_OUTPUT)) {
        if (!o->body)
            o->body = wasm_hold(sizeof *o->body, true);
        wasm_req.objs[rep].body = o->body;
    }
    give(in, v_ok(wasm_resource(in, rep)));
}

static void request_consume(struct in *in)
{
    take(in, K_REQUEST, K_INCOMING_BODY);
}

static void incoming_body_stream(struct in *in)
{
    take(in, K_INCOMING_BODY, K_INPUT);
}

/* Consumes the argument; what it was. */
static struct obj consume(struct in *in, size_t i, enum kind kind)
{
    struct obj *o = wasm_arg_res(in, i, kind), was = {0};

    if (o) {
        was = *o;
        obj_free((uint32_t)(o - wasm_req.objs));
    }
    return was;
}

static void incoming_body_finish(struct in *in)
{
    if (consume(in, 0, K_INCOMING_BODY).kind)
        give(in, wasm_resource(in, wasm_obj_new(K_FUTURE_TRAILERS)));
}

static void trailers_get(struct in *in)
{
    if (wasm_arg_res(in, 0, K_FUTURE_TRAILERS))
        give(in, v_some(v_ok(v_ok(v_none()))));
}

/* ---- the answer ---- */

static void new_of_fields(struct in *in, enum kind kind)
{
    struct obj was = consume(in, 0, K_FIELDS);
    uint32_t rep;

    if (!was.kind)
        return;
    rep = wasm_obj_new(kind);
    if (rep) {
        was.fields->fixed = true;
        wasm_req.objs[rep].fields = was.fields;
        wasm_req.objs[rep].status = 200;
    }
    give(in, wasm_resource(in, rep));
}

static void response_new(struct in *in)
{
    new_of_fields(in, K_RESPONSE);
}

static void response_status(struct in *in)
{
    struct obj *o = wasm_arg_res(in, 0, K_RESPONSE);

    if (o)
        give(in, (struct wasm_val){.kind = WASM_U16, .of.u16 = o->status});
}

static void response_set_status(struct in *in)
{
    struct obj *o = wasm_arg_res(in, 0, K_RESPONSE);
    const struct wasm_val *v = o ? arg(in, 1, WASM_U16) : NULL;
    bool ok = v && v->of.u16 >= 200 && v->of.u16 <= 999;

    if (!v)
        return;
    if (ok)
        o->status = v->of.u16;
    give(in, v_done(ok));
}

static void response_headers(struct in *in)
{
    show_fields(in, K_RESPONSE);
}

static void response_body(struct in *in)
{
    take(in, K_RESPONSE, K_OUTGOING_BODY);
}

static void outgoing_body_write(struct in *in)
{
    take(in, K_OUTGOING_BODY, K_OUTPUT);
}

static void outgoing_body_finish(struct in *in)
{
    const struct wasm_val *t = in->n > 1 ? arg(in, 1, WASM_OPTION) : NULL;
    struct obj was = consume(in, 0, K_OUTGOING_BODY), *f = NULL;
    uint32_t rep = was.kind && t && t->of.option ? wasm_rep_of(in, t->of.option, K_FIELDS) : 0;
    struct buf lines = {0};
    bool ok = true;

    if (!was.kind || in->trap)
        return;
    f = rep ? &wasm_req.objs[rep] : NULL;
    if (was.body) {
        if (f && !wasm_req.web->answered && was.body->mine && wasm_req.set)
            ok = wasm_flush(was.body); /* with trailers it has to be in chunks */
        was.body->finished = true;
        if (f && was.body->mine && wasm_req.set && (ok = wasm_flush(was.body))) {
            int64_t length = wasm_req.length;

            wasm_each_field(f->fields, add_line, &lines);
            wasm_req.length = length;
            ok = web_end(wasm_req.web, lines.n ? lines.p : "", lines.n);
            wasm_req.cut = true; /* it has been ended here; the connection says the rest */
            wasm_req.web->close = !ok;
        }
    }
    buf_done(&lines);
    if (rep)
        obj_free(rep);
    give(in, ok ? v_done(true) : v_err(v_case("HTTP-protocol-error")));
}

static void outparam_set(struct in *in)
{
    const struct wasm_val *v = arg(in, 1, WASM_RESULT);
    uint32_t rep = 0;
    struct obj o;

    if (!v || !consume(in, 0, K_OUTPARAM).kind)
        return;
    if (wasm_req.set) {
        in->trap = "the answer was set before";
        return;
    }
    if (v->of.result.ok && v->of.result.val)
        rep = wasm_rep_of(in, v->of.result.val, K_RESPONSE);
    if (in->trap)
        return;
    if (!rep) {
        struct buf text = {0};
        const struct wasm_val *why = v->of.result.val;

        buf_adds(&text, "the component answers with the error ");
        if (why && why->kind == WASM_VARIANT && why->of.variant.name.n)
            buf_add(&text, why->of.variant.name.p, why->of.variant.name.n);
        wasm_log_error("Runtime.ErrorCode", &text);
        buf_done(&text);
        return; /* nothing is set: 502 */
    }
    o = wasm_req.objs[rep];
    obj_free(rep);
    wasm_req.set = true;
    wasm_req.status = o.status;
    wasm_req.answer_fields = o.fields;
    wasm_req.answer_body = o.body ? o.body : wasm_hold(sizeof *o.body, true);
    wasm_req.answer_body->mine = true;
    wasm_req.answer_body->finished |= !o.body;
}

/* ---- requests that go out: there is no network ---- */

static void outgoing_request_new(struct in *in)
{
    new_of_fields(in, K_OUTGOING_REQUEST);
}

static void outgoing_request_body(struct in *in)
{
    take(in, K_OUTGOING_REQUEST, K_OUTGOING_BODY);
}

static void outgoing_request_headers(struct in *in)
{
    show_fields(in, K_OUTGOING_REQUEST);
}

static void options_new(struct in *in)
{
    give(in, wasm_resource(in, wasm_obj_new(K_OPTIONS)));
}

static void fine(struct in *in)
{
    give(in, v_done(true));
}

static void handle_out(struct in *in)
{
    const struct wasm_val *t = in->n > 1 ? arg(in, 1, WASM_OPTION) : NULL;
    uint32_t rep = t && t->of.option ? wasm_rep_of(in, t->of.option, K_OPTIONS) : 0;

    if (!consume(in, 0, K_OUTGOING_REQUEST).kind || in->trap)
        return;
    if (rep)
        obj_free(rep);
    give(in, v_err(v_case("HTTP-request-denied")));
}

/* ---- the rows ---- */

const struct wasm_function wasm_http_functions[] = {
    {"wasi:http/types", "http-error-code", wasm_none},
    {"wasi:http/types", "[method]incoming-request.method", request_method},
    {"wasi:http/types", "[method]incoming-request.path-with-query", request_path},
    {"wasi:http/types", "[method]incoming-request.scheme", request_scheme},
    {"wasi:http/types", "[method]incoming-request.authority", request_authority},
    {"wasi:http/types", "[method]incoming-request.headers", request_headers},
    {"wasi:http/types", "[method]incoming-request.consume", request_consume},
    {"wasi:http/types", "[method]incoming-body.stream", incoming_body_stream},
    {"wasi:http/types", "[static]incoming-body.finish", incoming_body_finish},
    {"wasi:http/types", "[method]future-trailers.subscribe", wasm_always_ready},
    {"wasi:http/types", "[method]future-trailers.get", trailers_get},
    {"wasi:http/types", "[constructor]outgoing-response", response_new},
    {"wasi:http/types", "[method]outgoing-response.status-code", response_status},
    {"wasi:http/types", "[method]outgoing-response.set-status-code", response_set_status},
    {"wasi:http/types", "[method]outgoing-response.headers", response_headers},
    {"wasi:http/types", "[method]outgoing-response.body", response_body},
    {"wasi:http/types", "[method]outgoing-body.write", outgoing_body_write},
    {"wasi:http/types", "[static]outgoing-body.finish", outgoing_body_finish},
    {"wasi:http/types", "[static]response-outparam.set", outparam_set},
    {"wasi:http/types", "[constructor]outgoing-request", outgoing_request_new},
    {"wasi:http/types", "[method]outgoing-request.body", outgoing_request_body},
    {"wasi:http/types", "[method]outgoing-request.headers", outgoing_request_headers},
    {"wasi:http/types", "[method]outgoing-request.set-method", fine},
    {"wasi:http/types", "[method]outgoing-request.set-path-with-query", fine},
    {"wasi:http/types", "[method]outgoing-request.set-scheme", fine},
    {"wasi:http/types", "[method]outgoing-request.set-authority", fine},
    {"wasi:http/types", "[constructor]request-options", options_new},
    {"wasi:http/types", "[method]request-options.connect-timeout", wasm_none},
    {"wasi:http/types", "[method]request-options.first-byte-timeout", wasm_none},
    {"wasi:http/types", "[method]request-options.between-bytes-timeout", wasm_none},
    {"wasi:http/types", "[method]request-options.set-connect-timeout", fine},
    {"wasi:http/types", "[method]request-options.set-first-byte-timeout", fine},
    {"wasi:http/types", "[method]request-options.set-between-bytes-timeout", fine},
    {"wasi:http/outgoing-handler", "handle", handle_out},
    {0},
};
