/* door/aws/lambda/stream.c - InvokeWithResponseStream: the answer as events of
 * application/vnd.amazon.eventstream, PayloadChunk as the function writes and InvokeComplete at its end.
 *
 * An event, numbers big-endian: length of all (4), length of the headers (4), CRC-32 of these eight (4),
 * headers, payload, CRC-32 of everything before (4). A header: length of the name (1), name, 7 = text (1),
 * length of the value (2), value. */
#include "door/aws/lambda/lambda_int.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <zlib.h>

enum { CHUNK_MAX = 256 * 1024, QUEUE_MAX = 256 * 1024 };

struct stream {
    struct op *op;
    uint64_t ticket;
    bool started, done;
};

static void add_u32(struct buf *b, uint32_t n)
{
    n = htonl(n);
    buf_add(b, &n, 4);
}

static void add_header(struct buf *b, const char *name, const char *value)
{
    uint16_t n = htons((uint16_t)strlen(value));

    buf_addc(b, (char)strlen(name));
    buf_adds(b, name);
    buf_addc(b, 7);
    buf_add(b, &n, 2);
    buf_adds(b, value);
}

static uint32_t crc_of(const struct buf *b)
{
    return (uint32_t)crc32(0, (const Bytef *)b->p, (uInt)b->n);
}

static void send_event(struct stream *s, const char *type, const char *content_type, const void *p, size_t n)
{
    struct buf headers = {0}, b = {0};

    add_header(&headers, ":message-type", "event");
    add_header(&headers, ":event-type", type);
    add_header(&headers, ":content-type", content_type);
    add_u32(&b, (uint32_t)(16 + headers.n + n));
    add_u32(&b, (uint32_t)headers.n);
    add_u32(&b, crc_of(&b));
    buf_add(&b, headers.p, headers.n);
    if (n)
        buf_add(&b, p, n);
    add_u32(&b, crc_of(&b));
    http_write(s->op->q->req, b.p, b.n);
    buf_done(&headers);
    buf_done(&b);
}

static void on_drain(struct http_req *req, void *arg)
{
    struct stream *s = arg;

    if (!s->done)
        function_pause(s->op->q->d->o.functions, s->ticket, false);
}

static void start(struct stream *s, const char *version)
{
    struct http_req *req = s->op->q->req;

    if (s->started)
        return;
    s->started = true;
    http_header(req, "content-type", "application/vnd.amazon.eventstream");
    http_header(req, "x-amzn-RequestId", s->op->q->id);
    http_header(req, "X-Amz-Executed-Version", version);
    http_on_drain(req, on_drain, s);
    http_start(req, 200, -1);
}

static void on_begin(void *arg, const char *content_type, const char *version)
{
    start(arg, version);
}

static void on_data(void *arg, const char *p, size_t n)
{
    struct stream *s = arg;

    send_event(s, "PayloadChunk", "application/octet-stream", p, n);
    if (http_queued_bytes(s->op->q->req) > QUEUE_MAX)
        function_pause(s->op->q->d->o.functions, s->ticket, true);
}

static void complete(struct stream *s, const struct function_result *r)
{
    struct arena *a = s->op->q->req->arena;
    struct val *v = val_map(a);
    struct err err;
    size_t n;
    char *text;

    if (r->function_error) {
        struct val *error = r->n ? json_parse(a, r->payload, r->n, &err) : NULL;

        val_put_str(a, v, "ErrorCode", val_str_at(error, "errorType", r->function_error));
        val_put_str(a, v, "ErrorDetails", r->n ? r->payload : "");
    }
    if (r->log_tail)
        val_put_str(a, v, "LogResult", b64_encode(a, r->log_tail, r->log_tail_n));
    text = json_text(a, v, &n);
    send_event(s, "InvokeComplete", "application/json", text, n);
}

static void on_done(void *arg, const struct function_result *r)
{
    struct stream *s = arg;
    struct http_req *req = s->op->q->req;

    s->done = true;
    if (s->started && r->err.code != ERR_OK) {
        http_abort(req);
        return;
    }
    if (lambda_refused(s->op, r))
        return;
    start(s, r->version);
    if (!r->streamed && !r->function_error)
        for (size_t at = 0; at < r->n; at += CHUNK_MAX)
            send_event(s, "PayloadChunk", "application/octet-stream", r->payload + at, MIN(r->n - at, (size_t)CHUNK_MAX));
    complete(s, r);
    http_end(req);
}

static void on_gone(struct http_req *req, void *arg)
{
    struct stream *s = arg;

    if (s->done)
        return;
    s->done = true;
    function_forget(s->op->q->d->o.functions, s->ticket);
    http_abort(req);
}

static const struct function_stream pieces = {on_begin, on_data};

void op_invoke_stream(struct op *op)
{
    struct aws_req *q = op->q;
    const char *type = http_get(q->req, "x-amz-invocation-type");
    struct stream *s = arena_new_of(q->req->arena, struct stream);
    struct function_call call;
    uint64_t ticket;

    if (lambda_call_of(op, &call) < 0)
        return;
    if (type && streq(type, "DryRun")) {
        lambda_reply(q, 204, NULL);
    } else if (type && !streq(type, "RequestResponse")) {
        lambda_error(q, 400, "InvalidParameterValueException",
                     "1 validation error detected: Value '%.100s' at 'invocationType' failed to satisfy constraint: Member must "
                     "satisfy enum value set: [RequestResponse, DryRun]", type);
    } else if (q->body_n > FUNCTION_PAYLOAD_MAX) {
        lambda_error(q, 413, "RequestEntityTooLargeException",
                     "%zu byte payload is too large for the RequestResponse invocation type (limit %d bytes)", q->body_n,
                     (int)FUNCTION_PAYLOAD_MAX);
    } else {
        s->op = op;
        call.stream = &pieces;
        http_on_close(q->req, on_gone, s);
        ticket = function_invoke(q->d->o.functions, &call, on_done, s);
        if (ticket) /* else the request, and s with it, are gone */
            s->ticket = ticket;
    }
}
