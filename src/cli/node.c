#include "cli/cli.h"
#include "cli/part.h"

#include "node/node.h"

int cmd_node(struct cli_opts *o, int argc, char **argv)
{
    struct node_options options = {
        .state = o->state,
        .instance = o->id,
        .name = o->node_name,
        .pod_cidr = o->pod_cidr,
        .service_cidr = o->service_cidr,
        .version = KUBERNETES_VERSION,
    };

    part_begin("node");
    return node_main(&options);
}
