/* gateway/aws.h - where the AWS door hangs on: it lives in this process, on this loop. */
#pragma once

struct gateway;
struct env;
struct client;
struct mirror;

/* Opens the door on the gateway's aws_port (0: not). functions: the mirror of Function objects. */
void aws_start(struct gateway *g, struct env *env, struct client *client, struct mirror *functions);
void aws_stop(void);
