/* Trace context: trace.h has the rules. Nothing here allocates for a call that is not sampled. */
#include "function/function_int.h"

#include "codec/json.h"
#include "env/random.h"
#include "http/server.h"

#include <stdio.h>

const char *const function_trigger_names[FUNCTION_TRIGGERS] = {"other", "http", "timer", "datasource", "pubsub"};

static const char HEX[] = "0123456789abcdef";

/* n hex digits of a number. */
static char *put_hex(char *out, uint64_t v, int n)
{
    for (int i = n - 1; i >= 0; i--, v >>= 4)
        out[i] = HEX[v & 15];
    return out + n;
}

/* Good for names, not for secrets: splitmix64 from a seed of the kernel's. Never 0. */
static uint64_t random_id(void)
{
    static uint64_t state;
    uint64_t z;

    if (!state)
        random_bytes(&state, sizeof state);
    z = (state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    z ^= z >> 31;
    return z ? z : 1;
}

void function_span_id(char out[17])
{
    *put_hex(out, random_id(), 16) = 0;
}

/* The first 8 digits are the time, as X-Ray wants it of its ids. */
static void new_id(char out[33])
{
    char *p = put_hex(out, (uint64_t)(wall_ms() / 1000), 8);

    p = put_hex(p, random_id(), 8);
    p = put_hex(p, random_id(), 16);
    *p = 0;
}

/* n lower-case hex digits that are not all 0; X-Ray's are read in upper case, too. */
static bool take_hex(char *to, const char *from, int n, bool upper)
{
    bool some = false;

    for (int i = 0; i < n; i++) {
        char c = from[i];

        if (upper && c >= 'A' && c <= 'F')
            c = (char)(c - 'A' + 'a');
        if (!((c >= '0' && c <= '9') || (c >= 'a' && c <= 'f')))
            return false;
        some |= c != '0';
        to[i] = c;
    }
    to[n] = 0;
    return some;
}

/* version 00 ends behind the flags; a later one may have more to say behind another '-'. */
static bool read_w3c(struct function_trace *t, const char *s, int *ret_decided)
{
    char id[33], parent[17];
    size_t n = strlen(s);

    if (n < 55 || s[2] != '-' || s[35] != '-' || s[52] != '-' || (n > 55 && (s[55] != '-' || str_starts(s, "00"))))
        return false;
    if (strspn(s, HEX) != 2 || str_starts(s, "ff") || !take_hex(id, s + 3, 32, false) || !take_hex(parent, s + 36, 16, false) ||
        strspn(s + 53, HEX) < 2)
        return false;
    memcpy(t->id, id, sizeof id);
    memcpy(t->parent, parent, sizeof parent);
    *ret_decided = (strchr(HEX, s[54]) - HEX) & 1;
    return true;
}

static bool read_xray(struct function_trace *t, const char *s, int *ret_decided, char rest[TRACE_REST_MAX])
{
    bool root = false;
    size_t rest_n = 0;

    while (*s) {
        size_t n;

        s += strspn(s, "; ");
        n = strcspn(s, ";");
        while (n && s[n - 1] == ' ')
            n--;
        if (n == 40 && str_starts(s, "Root=1-") && s[15] == '-') {
            char id[33];

            memcpy(id, s + 7, 8);
            memcpy(id + 8, s + 16, 24);
            root = take_hex(t->id, id, 32, true);
        } else if (n == 23 && str_starts(s, "Parent=")) {
            if (!take_hex(t->parent, s + 7, 16, true))
                t->parent[0] = 0;
        } else if (n == 9 && str_starts(s, "Sampled=")) {
            *ret_decided = s[8] == '1' ? 1 : s[8] == '0' ? 0 : -1;
        } else if (n && !str_starts(s, "Self=") && !str_starts(s, "Root=") && !str_starts(s, "Parent=") && !str_starts(s, "Sampled=") &&
                   rest_n + n + 2 < TRACE_REST_MAX) {
            rest[rest_n++] = ';';
            memcpy(rest + rest_n, s, n);
            rest_n += n;
        }
        s += strcspn(s, ";");
    }
    rest[rest_n] = 0;
    return root;
}

int trace_read(struct function_trace *t, const char *traceparent, const char *xray, int *ret_decided, char rest[TRACE_REST_MAX])
{
    *ret_decided = -1;
    rest[0] = t->parent[0] = 0;
    if (traceparent && read_w3c(t, traceparent, ret_decided))
        return 0;
    if (xray && read_xray(t, xray, ret_decided, rest))
        return 0;
    t->id[0] = t->parent[0] = rest[0] = 0;
    *ret_decided = -1;
    return -1;
}

bool trace_parent_text(const struct function_trace *t, char out[TRACEPARENT_BYTES])
{
    const char *span = *t->span ? t->span : t->parent;

    if (!*span)
        return false;
    memcpy(out, "00-", 3);
    memcpy(out + 3, t->id, 32);
    out[35] = '-';
    memcpy(out + 36, span, 16);
    memcpy(out + 52, t->sampled ? "-01" : "-00", 4);
    return true;
}

/* X-Ray's own rule: the first of each second, and 5 % of what else comes. */
static bool sample_as_xray(struct functions *fs)
{
    int64_t second = now_us() / 1000000;

    if (fs->sampled_s != second) {
        fs->sampled_s = second;
        return true;
    }
    return random_id() % 100 < 5;
}

static bool sampled(struct functions *fs, const struct version *v, const char *id, int decided)
{
    if (decided < 0 && v->tracing == TRACING_PASS_THROUGH)
        return false;
    if (fs->tracing.sample)
        return fs->tracing.sample(fs->tracing.arg, id, decided);
    return decided < 0 ? v->tracing == TRACING_ACTIVE && sample_as_xray(fs) : decided == 1;
}

static char *put_text(char *p, const char *s, size_t n)
{
    memcpy(p, s, n);
    return p + n;
}

/* The X-Ray form. parent: "" leaves it out. */
static void write_text(char *p, const struct function_trace *t, const char *parent, const char *rest)
{
    p = put_text(p, "Root=1-", 7);
    p = put_text(p, t->id, 8);
    *p++ = '-';
    p = put_text(p, t->id + 8, 24);
    if (*parent) {
        p = put_text(p, ";Parent=", 8);
        p = put_text(p, parent, 16);
    }
    p = put_text(p, t->sampled ? ";Sampled=1" : ";Sampled=0", 10);
    memcpy(p, rest, strlen(rest) + 1);
}

static const char *header(const struct function_call *q, const char *name)
{
    return q->req ? http_get(q->req, name) : NULL;
}

void trace_begin(struct function_trace *t, const struct version *v, const struct function_call *q, bool to_queue, char text[TRACE_TEXT_MAX])
{
    struct functions *fs = v->f->fs;
    char rest[TRACE_REST_MAX], parent[17] = "";
    int decided;

    *t = (struct function_trace){0};
    if (trace_read(t, header(q, "traceparent"), q->trace_id ? q->trace_id : header(q, "x-amzn-trace-id"), &decided, rest) < 0)
        new_id(t->id);
    t->sampled = sampled(fs, v, t->id, decided);
    if (t->sampled && fs->tracing.span)
        function_span_id(t->span);
    else if (!*t->parent && !to_queue)
        function_span_id(parent); /* Lambda always names one */
    write_text(text, t, *t->span ? t->span : *t->parent ? t->parent : parent, rest);
}

/* ---- spans ---- */

static char *dup_or_null(const char *s)
{
    return str_empty(s) ? NULL : xstrdup(s);
}

struct function_span *trace_span(const struct function_trace *t, const struct version *v, const struct function_call *q)
{
    struct function_span *s;
    const struct http_req *req = q->req;
    const char *state;

    if (!*t->span)
        return NULL;
    s = xcalloc(1, sizeof *s);
    s->trace = *t;
    state = q->tracestate ? q->tracestate : header(q, "tracestate");
    if (state && strlen(state) <= TRACE_STATE_MAX)
        s->state = xstrdup(state);
    s->trigger = q->trigger;
    s->event = q->event;
    s->namespace_ = xstrdup(v->f->namespace_);
    s->name = xstrdup(function_own_name(v->f));
    s->memory_mb = v->memory_mb;
    snprintf(s->version, sizeof s->version, "%s", v->shown);
    s->start_us = s->since_us = now_us();
    if (q->arn)
        s->arn = xstrdup(q->arn);
    else
        s->arn = xasprintf("arn:aws:lambda:%s:%s:function:%s", v->f->fs->region, v->f->fs->account, s->name);
    if (!req || q->trigger != FUNCTION_BY_HTTP)
        return s;
    s->start_us = MIN((int64_t)(req->start_ns / 1000), s->since_us);
    s->method = dup_or_null(req->method);
    s->path = dup_or_null(req->raw_path);
    s->query = dup_or_null(req->query);
    s->host = dup_or_null(req->host);
    s->agent = dup_or_null(http_get(req, "user-agent"));
    s->peer = dup_or_null(req->peer->addr);
    s->tls = req->peer->tls;
    s->http_version = req->version;
    return s;
}

struct function_span *trace_span_free(struct function_span *s)
{
    if (!s)
        return NULL;
    free(s->state);
    free(s->namespace_);
    free(s->name);
    free(s->arn);
    free(s->method);
    free(s->path);
    free(s->query);
    free(s->host);
    free(s->agent);
    free(s->peer);
    free(s->error);
    free(s->error_type);
    free(s);
    return NULL;
}

void trace_span_result(struct function_span *s, const struct function_result *r)
{
    _auto_(arena_freep) struct arena *a = NULL;
    struct err ignored;
    struct val *v;

    s->end_us = now_us();
    s->result = r;
    if (r->request_id)
        snprintf(s->request_id, sizeof s->request_id, "%s", r->request_id);
    if (r->err.code != ERR_OK) {
        s->error = xstrdup(r->err.msg);
        s->error_type = xstrdup(r->throttle_reason ? r->throttle_reason : err_name(r->err.code));
        return;
    }
    if (!r->function_error)
        return;
    if (s->status >= 500) {
        s->error = xasprintf("it answered %d", s->status);
        s->error_type = xasprintf("%d", s->status);
        return;
    }
    a = arena_new();
    v = r->n && r->payload ? json_parse(a, r->payload, r->n, &ignored) : NULL;
    s->error = xstrndup(val_str_at(v, "errorMessage", "the function failed"), 1024);
    s->error_type = xstrndup(val_str_at(v, "errorType", r->function_error), 200);
}

void trace_span_end(struct functions *fs, struct function_span *s)
{
    if (!s)
        return;
    if (!s->end_us)
        s->end_us = now_us();
    fs->tracing.span(fs->tracing.arg, s);
    trace_span_free(s);
}
