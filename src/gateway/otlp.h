/* gateway/otlp.h - spans of sampled calls to an OpenTelemetry collector, by OTLP over HTTP (protobuf).
 *
 * Configured as every OpenTelemetry SDK is, by the environment: OTEL_EXPORTER_OTLP_TRACES_ENDPOINT (as it is) or
 * OTEL_EXPORTER_OTLP_ENDPOINT (/v1/traces is put behind), ..._HEADERS, ..._TIMEOUT, ..._CERTIFICATE, ..._PROTOCOL (http/protobuf
 * is what there is), OTEL_SERVICE_NAME, OTEL_RESOURCE_ATTRIBUTES, OTEL_TRACES_SAMPLER with _ARG, OTEL_TRACES_EXPORTER=none,
 * OTEL_SDK_DISABLED. An endpoint handed in wins over those of the environment.
 *
 * A batch leaves when BATCH_BYTES are there or a second after its first span; one is on its way at a time, tried again as the
 * protocol says (429, 502, 503, 504, no answer). What comes meanwhile waits, up to WAITING_BYTES; more is dropped and counted.
 * Nothing here waits: a collector that is slow or away costs memory up to that limit, and never a call its time.
 * Thread: the loop's. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "function/trace.h"

#include <uv.h>

struct http_client;
struct otlp;

/* NULL with err.code ERR_OK: traces are to go nowhere. NULL with a text: they cannot. endpoint may be NULL; http has to
 * outlive it. */
struct otlp *otlp_new(uv_loop_t *loop, struct http_client *http, const char *endpoint, struct err *err) _must_check_;
/* As functions_tracing wants them; arg is the otlp. */
bool otlp_sample(void *arg, const char *id, int decided);
void otlp_span(void *arg, const struct function_span *s);
/* Counters for Prometheus; o may be NULL. */
void otlp_prometheus(const struct otlp *o, struct buf *out);
/* Sends what is there, once and for at most a second, then frees; stopped() tells. No span may come any more. */
void otlp_stop(struct otlp *o, void (*stopped)(void *arg), void *arg);
