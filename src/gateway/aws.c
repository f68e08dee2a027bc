#include "gateway/aws.h"

#include "base/log.h"
#include "gateway/gateway_int.h"

void aws_start(struct gateway *g, struct env *env, struct client *client, struct mirror *functions)
{
    if (g->o->aws_port)
        LOG(WARN, "gateway", "did=no-aws-door port=%d", g->o->aws_port);
}

void aws_stop(void)
{
}
