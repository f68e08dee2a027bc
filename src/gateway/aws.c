#include "gateway/aws.h"

#include "base/log.h"
#include "gateway/gateway_int.h"

#include "door/aws/aws.h"

struct aws_door *aws_start(struct gateway *g, struct client *client, struct mirror *functions)
{
    _auto_(freep) char *url = g->port ? xasprintf("http://127.0.0.1:%d/function/", g->port) : NULL;
    _auto_(freep) char *inside = xasprintf("http://%s:%d", functions_node_ip(g->functions), g->o->aws_port);
    struct aws_door_opts o = {.loop = &g->loop, .state = g->o->state, .address = g->o->address ? g->o->address : "0.0.0.0",
                              .port = g->o->aws_port, .client = client, .functions = g->functions, .logs = g->logs, .metrics = g->metrics,
                              .mirror = functions, .identity = g->identity, .function_url = url, .inside_url = inside};
    struct aws_door *door;
    struct err err;

    if (!o.port || !o.identity)
        return NULL;
    door = aws_door_new(&o, &err);
    if (!door)
        LOG(ERROR, "gateway", "did=aws-door port=%d error=\"%s\"", o.port, err.msg);
    return door;
}

void aws_stop(struct aws_door *door, void (*done)(void *arg), void *arg)
{
    aws_door_stop(door, 500, done, arg);
}
