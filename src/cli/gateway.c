#include "cli/cli.h"
#include "cli/part.h"

#include "gateway/gateway.h"

int cmd_gateway(struct cli_opts *o, int argc, char **argv)
{
    struct gateway_options options = {
        .state = o->state,
        .instance = o->id,
        .node_name = o->node_name,
        .pod_cidr = o->pod_cidr,
        .service_cidr = o->service_cidr,
        .gateway_port = o->gateway_port,
        .aws_port = o->aws_port,
        .tls_port = o->gateway_tls_port,
        .tls_cert = o->gateway_tls_cert,
        .tls_key = o->gateway_tls_key,
        .otlp_endpoint = o->otlp_endpoint,
        .keep_ms = o->keep_alive_ms,
        .zygote_keep_ms = MAX(o->zygote_keep_ms, 0),
        .scale_burst = MAX(o->scale_burst, 0),
        .scale_per_10s = o->scale_per_10s < 0 ? 0 : o->scale_per_10s ? o->scale_per_10s : -1,
        .evict_mb = o->evict_mb < 0 ? 0 : o->evict_mb ? o->evict_mb : -1,
        .event_retry_s = MAX(o->event_retry_s, 0),
    };

    part_begin("gateway");
    return gateway_main(&options);
}
