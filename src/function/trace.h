/* function/trace.h - where a call stands in a trace, and what is told of it when it has ended.
 *
 * Two ways to say the same are read: W3C's headers `traceparent` and `tracestate`, and X-Ray's `X-Amzn-Trace-Id`
 * (Root=1-8hex-24hex;Parent=16hex;Sampled=1); a valid traceparent wins. Both name 128 bits of a trace and 64 of the span
 * of who called, so one becomes the other without loss. A Lambda function is given the X-Ray form (_X_AMZN_TRACE_ID, the
 * Runtime API's Lambda-Runtime-Trace-Id), an HTTP function the headers.
 *
 * Whether a call is sampled: as its caller decided; else by spec.tracingMode: "Active" asks the sampler (functions_tracing.sample;
 * without one X-Ray's rule, the first call of each second and 5 % of the rest), "PassThrough" is no. A function that says
 * neither asks the sampler where there is one. A call has a span of its own only when it is sampled and somebody takes spans:
 * otherwise who called stays the parent of what comes after, so that no trace names a span that nobody ever sees. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct http_req;
struct function_call;
struct function_result;

enum { TRACE_STATE_MAX = 512, TRACE_REST_MAX = 256, TRACE_TEXT_MAX = 120 + TRACE_REST_MAX, TRACEPARENT_BYTES = 56 };

struct function_trace {
    char id[33], span[17], parent[17]; /* hex; span: "" the call has none of its own; parent: "" nobody's */
    bool sampled;
};

/* What made the call, as OpenTelemetry's faas.trigger names it. */
enum function_trigger { FUNCTION_BY_OTHER, FUNCTION_BY_HTTP, FUNCTION_BY_TIMER, FUNCTION_BY_DATASOURCE, FUNCTION_BY_PUBSUB, FUNCTION_TRIGGERS };
extern const char *const function_trigger_names[FUNCTION_TRIGGERS];

/* A sampled call that has ended (or was refused), or an event that was put into the queue (queued: no result then). */
struct function_span {
    struct function_trace trace;
    char *state; /* tracestate as it came, or NULL */
    enum function_trigger trigger;
    bool event;  /* it came from the queue */
    bool queued;
    char request_id[40], version[24];
    char *namespace_, *name, *arn; /* all texts are the span's own */
    int memory_mb;
    int64_t start_us, since_us, end_us; /* CLOCK_MONOTONIC: came, was handed to the pool, ended */
    /* FUNCTION_BY_HTTP; texts may be NULL */
    char *method, *path, *query, *host, *agent, *peer;
    int http_version; /* 10, 11, 20 */
    bool tls;
    int status; /* of the answer; 0: none was sent */
    /* of how it ended */
    char *error, *error_type; /* NULL: well */
    const struct function_result *result; /* its times; NULL when queued */
};

/* All NULL: nobody takes spans. */
struct functions_tracing {
    /* decided: what the caller said, 1, 0, or -1 for nothing. id: 32 hex digits. */
    bool (*sample)(void *arg, const char *id, int decided);
    void (*span)(void *arg, const struct function_span *s); /* borrowed for the call; may not call back */
    void *arg;
};

/* A fresh id for a span. */
void function_span_id(char out[17]);
/* "00-ID-SPAN-01" for who comes after: the call's own span, else its caller's. False: there is neither. */
bool trace_parent_text(const struct function_trace *t, char out[TRACEPARENT_BYTES]);
/* Reads either form (NULL: not said) into id and parent; -1: neither is of use. ret_decided: as functions_tracing.sample has
 * it. ret_rest: what else an X-Ray text says (";Lineage=..."), "" when nothing. */
int trace_read(struct function_trace *t, const char *traceparent, const char *xray, int *ret_decided, char ret_rest[TRACE_REST_MAX]);
