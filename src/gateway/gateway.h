/* gateway/gateway.h - the data plane process: takes traffic from outside, owns the functions.
 *
 * One loop. HTTP on the gateway port (HTTP/2, too: with prior knowledge; by TLS on a port of its own): function URLs by Host (http://NAME.anything:PORT/) and by
 * path (/function/NAME/..., /lambda-url/NAME/...). Admin HTTP on STATE/run/gateway.sock:
 *   GET  /meter             what every function used (function/README.md)
 *   GET  /instances         instances and zygotes now
 *   POST /invoke/NS/NAME    body = event; ?debug=1: by the instance that is debugged; answers body = result, headers x-tandem-function-error,
 *                           x-tandem-log (base64), x-tandem-timing
 *   GET  /metrics           the meter for Prometheus
 *   GET  /log/NS/NAME       the end of its log; ?tail=N, ?after=POSITION, ?next=1 (admin.c)
 *   GET  /debug/NS/NAME     runs an instance under a debugger as long as the answer goes on; ?port=N, ?uid=N who may connect beside root (debug.c)
 *   GET  /healthz */
#pragma once

struct gateway_options {
    const char *state;
    const char *instance;   /* NULL: from the state path */
    const char *kubeconfig; /* NULL: STATE/kubeconfig */
    const char *node_name;  /* the Node whose pods' requests count; NULL: none do */
    const char *node_ip;    /* where functions reach this machine; NULL: the first of pod_cidr */
    const char *pod_cidr;   /* NULL: functions have no network */
    const char *service_cidr;
    const char *address;    /* to listen at; NULL: 0.0.0.0 */
    int gateway_port, aws_port; /* 0: not opened */
    int tls_port;               /* as the gateway port, by HTTPS (HTTP/1.1 and HTTP/2); 0: not opened */
    const char *tls_cert, *tls_key; /* files of it in PEM, read again when they change */
    const char *otlp_endpoint;   /* where traces go, "none"; NULL: what the environment says (gateway/otlp.h) */
    int keep_ms, zygote_keep_ms, scale_burst, scale_per_10s, evict_mb, event_retry_s; /* 0: the defaults of function/function.h */
};

/* Runs until SIGTERM or SIGINT; the process's exit status. */
int gateway_main(const struct gateway_options *o);
