/* apiserver/front_watch.c - a watch on its way to a client: a stream of an HTTP answer, or messages of
 * a WebSocket. What a slow client does not take is not made: its watch pauses, and the store's
 * history is its queue. */
#include "apiserver/front_int.h"
#include "apiserver/told.h"
#include "base/log.h"
#include "codec/json.h"
#include "codec/yaml.h"
#include "schema/protobuf.h"

enum { LENGTH_BYTES = 4 /* before a protobuf event in a stream; messages know their length */ };
enum { WATCH_QUEUE_MAX = 1 << 20 }; /* a reader behind by more waits for the history to be told */

static void let_go(struct exchange *x)
{
    list_remove(&x->link);
    x->events = arena_free(x->events);
}

/* The stream ends as it should: a client takes it up where it was. */
static void end(struct exchange *x)
{
    if (x->ws)
        ws_close(x->ws, 1000, "");
    else
        http_end(x->http);
}

void watch_finish(struct exchange *x)
{
    x->watch = api_watch_free(x->watch);
    let_go(x);
    end(x);
}

static void on_gone(struct http_req *http, void *arg)
{
    (void)http;
    watch_finish(arg);
}

static void resume(struct exchange *x)
{
    if (x->paused && x->watch) {
        x->paused = false;
        api_watch_pause(x->watch, false);
    }
}

static void on_drain(struct http_req *http, void *arg)
{
    (void)http;
    resume(arg);
}

/* ---------------------------------------------------------------- texts */

static void put_part(struct buf *b, uint8_t number, const void *p, size_t n)
{
    size_t left = n;

    buf_addc(b, (char)(number << 3 | 2));
    do {
        buf_addc(b, (char)((left & 127) | (left > 127 ? 128 : 0)));
    } while (left >>= 7);
    buf_add(b, p, n);
}

/* As the stream holds it: a length in four bytes, then WatchEvent {type = 1, object = 2 {raw = 1}}. */
static void event_protobuf(struct exchange *x, struct buf *out, const char *type, const struct val *v)
{
    struct buf object = {0}, raw = {0}, event = {0};
    struct err err = {0};
    char length[LENGTH_BYTES];

    if (protobuf_write(x->f->api->schema, &object, v, &err) < 0) {
        LOG(WARN, "api", "did=watch err=\"%s\"", err.msg);
    } else {
        put_part(&raw, 1, object.p, object.n);
        put_part(&event, 1, type, strlen(type));
        put_part(&event, 2, raw.p, raw.n);
        for (int i = 0; i < LENGTH_BYTES; i++)
            length[i] = (char)(event.n >> (24 - 8 * i));
        buf_add(out, length, LENGTH_BYTES);
        buf_add(out, event.p, event.n);
    }
    buf_done(&object);
    buf_done(&raw);
    buf_done(&event);
}

static void event_text(struct exchange *x, struct buf *b, const struct api_event *ev)
{
    static const char *const names[] = {"ADDED", "MODIFIED", "DELETED", "BOOKMARK", "ERROR"};
    bool yaml = streq0(x->resp.content_type, "application/yaml");

    if (str_starts(x->resp.content_type, PROTOBUF_TYPE)) {
        event_protobuf(x, b, names[ev->type], ev->val ? ev->val : obj_val(ev->obj));
        return;
    }
    if (yaml) {
        struct val *doc = val_map(x->events);

        val_put_str(x->events, doc, "type", names[ev->type]);
        val_put(x->events, doc, "object", ev->val ? ev->val : obj_val(ev->obj));
        buf_adds(b, "---\n");
        yaml_write(b, doc);
        arena_reset(x->events);
        return;
    }
    buf_printf(b, "{\"type\":\"%s\",\"object\":", names[ev->type]);
    if (ev->val)
        json_write(b, ev->val);
    else
        obj_text_add(b, ev->obj);
    buf_adds(b, "}\n");
}

/* ---------------------------------------------------------------- streams */

static size_t queued(const struct exchange *x)
{
    return x->ws ? ws_queued_bytes(x->ws) : http_queued_bytes(x->http);
}

/* told: whose text it is, NULL: ours for this call only. */
static void put_out(struct exchange *x, const char *p, size_t n, struct told *told)
{
    bool protobuf = str_starts(x->resp.content_type, PROTOBUF_TYPE);

    if (!n)
        return;
    if (x->ws && protobuf)
        ws_send(x->ws, WS_BINARY, p + LENGTH_BYTES, n - LENGTH_BYTES);
    else if (x->ws)
        ws_send(x->ws, WS_TEXT, p, n);
    else if (told)
        http_write_obj(x->http, p, n, told_unref, told_ref(told));
    else
        http_write(x->http, p, n);
}

static bool on_event(void *arg, const struct api_event *ev)
{
    struct exchange *x = arg;
    struct buf b = {0};

    if (ev->told) {
        if (!ev->told->text) {
            event_text(x, &b, ev);
            told_put(ev->told, &b);
        }
        put_out(x, ev->told->text, ev->told->n, ev->told);
    } else if (ev->type != API_END) {
        event_text(x, &b, ev);
        put_out(x, b.p, b.n, NULL);
        buf_done(&b);
    }
    if (ev->type == API_END || ev->type == API_ERROR) {
        x->watch = NULL; /* freed by our answer */
        let_go(x);
        end(x);
        return false;
    }
    if (!x->paused && queued(x) > WATCH_QUEUE_MAX) {
        x->paused = true;
        api_watch_pause(x->watch, true);
    }
    return true;
}

static void ws_drained(struct ws *ws, void *arg)
{
    (void)ws;
    resume(arg);
}

static void ws_message(struct ws *ws, enum ws_type type, const char *data, size_t n, void *arg)
{
    (void)ws, (void)type, (void)data, (void)n, (void)arg; /* clients have nothing to say */
}

static void ws_closed(struct ws *ws, int code, void *arg)
{
    struct exchange *x = arg;

    (void)ws, (void)code;
    if (list_linked(&x->link)) {
        x->watch = api_watch_free(x->watch);
        let_go(x);
    }
}

void watch_serve(struct exchange *x)
{
    struct err err = {0};

    audit_started(x->req.audit, 200); /* it ends when the request's arena goes */
    x->watch = x->resp.watch;
    x->events = arena_new();
    if (ws_wanted(x->http)) {
        struct ws_opts opts = {.message_bytes_max = 64 << 10, .on_message = ws_message,
                               .on_drain = ws_drained, .on_close = ws_closed, .arg = x};

        x->ws = ws_accept(x->http, NULL, &opts, &err);
    }
    if (!x->ws) {
        exchange_headers(x, &x->resp);
        http_header(x->http, "content-type", x->resp.content_type);
        http_on_close(x->http, on_gone, x);
        http_on_drain(x->http, on_drain, x);
        http_start(x->http, 200, -1);
    }
    exchange_over(x, 200);
    list_push(&x->f->watches, &x->link);
    api_watch_texts(x->watch);
    api_watch_start(x->watch, on_event, x);
}
