/* A call as OpenTelemetry spans, in protobuf (opentelemetry/proto/trace/v1): one of the call and one for each step that took
 * time, with the names of the semantic conventions for FaaS and HTTP. */
#include "gateway/otlp_int.h"

#include "env/clock.h"
#include "function/function.h"

#include <strings.h>
#include <time.h>

enum { INTERNAL = 1, SERVER = 2, PRODUCER = 4, CONSUMER = 5 };
enum { FLAG_SAMPLED = 1, FLAG_HAS_REMOTE = 0x100, FLAG_REMOTE = 0x200 };
enum { VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };

/* ---- protobuf ---- */

static void put_varint(struct buf *b, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        buf_addc(b, (char)(v | 0x80));
    buf_addc(b, (char)v);
}

static void put_tag(struct buf *b, int field, int wire)
{
    put_varint(b, (uint64_t)field << 3 | (uint64_t)wire);
}

void otlp_bytes(struct buf *b, int field, const void *p, size_t n)
{
    put_tag(b, field, BYTES);
    put_varint(b, n);
    buf_add(b, p, n);
}

static void put_int(struct buf *b, int field, uint64_t v)
{
    put_tag(b, field, VARINT);
    put_varint(b, v);
}

/* Both sides are little-endian, as all machines are that we run on. */
static void put_fixed(struct buf *b, int field, uint64_t v, size_t n)
{
    put_tag(b, field, n == 8 ? FIXED64 : FIXED32);
    buf_add(b, &v, n);
}

size_t otlp_begin(struct buf *b, int field)
{
    put_tag(b, field, BYTES);
    buf_addc(b, 0);
    return b->n;
}

void otlp_end(struct buf *b, size_t at)
{
    size_t n = b->n - at, more = 0;

    if (b->over)
        return; /* what was begun may not be there */
    for (size_t v = n; v >= 0x80; v >>= 7)
        more++;
    if (more) { /* the length takes more than the byte that was left for it */
        buf_add(b, "\0\0\0\0\0\0\0\0\0", more);
        if (b->over)
            return;
        memmove(b->p + at + more, b->p + at, n);
    }
    for (size_t i = 0, v = n; i <= more; i++, v >>= 7)
        b->p[at - 1 + i] = (char)((v & 0x7f) | (i < more ? 0x80 : 0));
}

/* ---- attributes: KeyValue in `field` ---- */

static size_t key_begin(struct buf *b, int field, const char *key, size_t *ret_value)
{
    size_t at = otlp_begin(b, field);

    otlp_bytes(b, 1, key, strlen(key));
    *ret_value = otlp_begin(b, 2);
    return at;
}

static void key_end(struct buf *b, size_t at, size_t value)
{
    otlp_end(b, value);
    otlp_end(b, at);
}

/* Text that is no UTF-8 may not stand in a string of protobuf. */
static bool is_clean(const char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s >= 0x80 || (unsigned char)*s < 0x20)
            return false;
    return true;
}

void otlp_attr(struct buf *b, int field, const char *key, const char *value)
{
    size_t v, at;

    if (str_empty(value) || !is_clean(value))
        return;
    at = key_begin(b, field, key, &v);
    otlp_bytes(b, 1, value, MIN(strlen(value), (size_t)2048));
    key_end(b, at, v);
}

enum { SPAN_ATTR = 9 };

static void attr_int(struct buf *b, const char *key, int64_t value)
{
    size_t v, at = key_begin(b, SPAN_ATTR, key, &v);

    put_int(b, 3, (uint64_t)value);
    key_end(b, at, v);
}

static void attr_bool(struct buf *b, const char *key, bool value)
{
    size_t v, at = key_begin(b, SPAN_ATTR, key, &v);

    put_int(b, 2, value);
    key_end(b, at, v);
}

/* ---- spans ---- */

static uint64_t wall_ns(int64_t us)
{
    return (uint64_t)clock_real_ns() - (uint64_t)((int64_t)(uv_hrtime() / 1000) - us) * 1000;
}

static void put_id(struct buf *b, int field, const char *hex)
{
    char raw[16];
    size_t n = strlen(hex) / 2;

    for (size_t i = 0; i < n && i < sizeof raw; i++) {
        int high = hex[2 * i] <= '9' ? hex[2 * i] - '0' : hex[2 * i] - 'a' + 10;
        int low = hex[2 * i + 1] <= '9' ? hex[2 * i + 1] - '0' : hex[2 * i + 1] - 'a' + 10;

        raw[i] = (char)(high << 4 | low);
    }
    if (n)
        otlp_bytes(b, field, raw, n);
}

static size_t span_begin(struct buf *b, const struct function_span *s, const char *id, const char *parent, const char *name, int kind,
                         int64_t start_us, int64_t end_us, uint32_t flags)
{
    size_t at = otlp_begin(b, 2); /* ScopeSpans.spans */

    put_id(b, 1, s->trace.id);
    put_id(b, 2, id);
    if (s->state && is_clean(s->state))
        otlp_bytes(b, 3, s->state, strlen(s->state));
    put_id(b, 4, parent);
    otlp_bytes(b, 5, name, strlen(name));
    put_int(b, 6, (uint64_t)kind);
    put_fixed(b, 7, wall_ns(start_us), 8);
    put_fixed(b, 8, wall_ns(MAX(end_us, start_us)), 8);
    put_fixed(b, 16, flags | FLAG_SAMPLED | FLAG_HAS_REMOTE, 4);
    return at;
}

/* A step of the call, [from, from + us); gives back its end. */
static int64_t step(struct buf *b, const struct function_span *s, const char *name, int64_t from, int64_t us, uint32_t *n)
{
    char id[17];

    if (us <= 0)
        return from;
    function_span_id(id);
    otlp_end(b, span_begin(b, s, id, s->trace.span, name, INTERNAL, from, from + us, 0));
    ++*n;
    return from + us;
}

static void put_status(struct buf *b, const struct function_span *s)
{
    size_t at;

    /* what a client did wrong is no failure of the server that tells it so */
    if (!s->error || (s->status >= 400 && s->status < 500))
        return;
    at = otlp_begin(b, 15);
    if (is_clean(s->error))
        otlp_bytes(b, 2, s->error, strlen(s->error));
    put_int(b, 3, 2);
    otlp_end(b, at);
}

/* What opens a door to whoever reads it stays here, as the conventions ask: signatures and tokens of presigned requests. */
static void put_query(struct buf *b, const char *query)
{
    static const char *const secret[] = {"AWSAccessKeyId", "Signature", "sig", "X-Goog-Signature", "X-Amz-Signature", "X-Amz-Credential",
                                         "X-Amz-Security-Token"};
    struct buf shown = {0};

    for (const char *p = query; p && *p;) {
        size_t n = strcspn(p, "&"), name = MIN(strcspn(p, "="), n);
        bool hide = false;

        for (size_t i = 0; i < ARRAY_LEN(secret); i++)
            hide |= name < n && name == strlen(secret[i]) && strncasecmp(p, secret[i], name) == 0;
        buf_add(&shown, p, hide ? name + 1 : n);
        if (hide)
            buf_adds(&shown, "REDACTED");
        p += n;
        if (*p)
            buf_addc(&shown, *p++);
    }
    buf_addc(&shown, 0);
    otlp_attr(b, SPAN_ATTR, "url.query", shown.p);
    buf_done(&shown);
}

static void put_http(struct buf *b, const struct function_span *s)
{
    static const char *const known[] = {"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH", "QUERY"};
    const char *colon = s->host ? strrchr(s->host, ':') : NULL, *method = "_OTHER";
    char host[256];
    int n;

    if (!s->method)
        return;
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (streq(known[i], s->method))
            method = known[i];
    otlp_attr(b, SPAN_ATTR, "http.request.method", method);
    if (*method == '_')
        otlp_attr(b, SPAN_ATTR, "http.request.method_original", s->method);
    otlp_attr(b, SPAN_ATTR, "url.scheme", s->tls ? "https" : "http");
    otlp_attr(b, SPAN_ATTR, "url.path", s->path);
    put_query(b, s->query);
    otlp_attr(b, SPAN_ATTR, "client.address", s->peer);
    otlp_attr(b, SPAN_ATTR, "user_agent.original", s->agent);
    otlp_attr(b, SPAN_ATTR, "network.protocol.version", s->http_version == 20 ? "2" : s->http_version == 10 ? "1.0" : "1.1");
    if (colon && strchr(colon, ']'))
        colon = NULL;
    n = s->host ? snprintf(host, sizeof host, "%.*s", (int)MIN(colon ? (size_t)(colon - s->host) : strlen(s->host), sizeof host - 1), s->host) : 0;
    if (n > 0)
        otlp_attr(b, SPAN_ATTR, "server.address", host);
    if (colon && atoi(colon + 1) > 0)
        attr_int(b, "server.port", atoi(colon + 1));
    if (s->status)
        attr_int(b, "http.response.status_code", s->status);
}

/* The ARN of the version that answered, whatever the caller named. */
static void put_resource(struct buf *b, const struct function_span *s)
{
    const char *p = s->arn;
    char text[400];
    int colons = 0;

    for (; *p && !(*p == ':' && ++colons == 7); p++)
        ;
    snprintf(text, sizeof text, "%.*s%s%s", (int)MIN((size_t)(p - s->arn), (size_t)300), s->arn, streq(s->version, "$LATEST") ? "" : ":",
             streq(s->version, "$LATEST") ? "" : s->version);
    otlp_attr(b, SPAN_ATTR, "cloud.resource_id", text);
    otlp_attr(b, SPAN_ATTR, "aws.lambda.invoked_arn", s->arn);
}

static void put_call(struct buf *b, const struct function_span *s)
{
    const struct function_result *r = s->result;
    char name[200];
    size_t at;

    snprintf(name, sizeof name, "%s%.180s", s->queued ? "send " : "", s->name);
    at = span_begin(b, s, s->trace.span, s->trace.parent, name, s->queued ? PRODUCER : s->event ? CONSUMER : SERVER, s->start_us, s->end_us,
                    FLAG_REMOTE);
    put_http(b, s);
    otlp_attr(b, SPAN_ATTR, "k8s.namespace.name", s->namespace_);
    put_resource(b, s);
    otlp_attr(b, SPAN_ATTR, "error.type", s->error_type);
    put_status(b, s);
    if (s->queued) {
        otlp_attr(b, SPAN_ATTR, "faas.invoked_name", s->name);
        otlp_attr(b, SPAN_ATTR, "messaging.message.id", s->request_id);
    } else {
        otlp_attr(b, SPAN_ATTR, "faas.name", s->name);
        otlp_attr(b, SPAN_ATTR, "faas.version", s->version);
        otlp_attr(b, SPAN_ATTR, "faas.invocation_id", s->request_id);
        otlp_attr(b, SPAN_ATTR, "faas.trigger", function_trigger_names[s->trigger]);
        attr_int(b, "faas.max_memory", (int64_t)s->memory_mb << 20);
    }
    if (r && r->err.code == ERR_OK && !s->queued) {
        attr_bool(b, "faas.coldstart", r->cold);
        otlp_attr(b, SPAN_ATTR, "tandem.rung", function_rung_names[r->rung]);
    }
    otlp_end(b, at);
}

uint32_t otlp_encode(struct buf *b, const struct function_span *s)
{
    const struct function_result *r = s->result;
    int64_t handler_us, t = s->since_us;
    uint32_t n = 1;

    put_call(b, s);
    if (!r || s->queued)
        return n;
    handler_us = r->handler_us ? r->handler_us : r->duration_us - r->start_us - r->init_us;
    step(b, s, "gateway", s->start_us, s->since_us - s->start_us, &n);
    t = step(b, s, "queue", t, r->queue_us, &n);
    t = step(b, s, "place", t, r->place_us, &n);
    t = step(b, s, "fork", t, r->start_us, &n);
    t = step(b, s, "init", t, r->init_us, &n);
    step(b, s, "handler", t, handler_us, &n);
    return n;
}
