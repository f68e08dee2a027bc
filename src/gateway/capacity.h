/* gateway/capacity.h - what the pods that are bound to this machine leave to functions: the Node's allocatable less their
 * requests, told to functions_set_capacity() whenever it changes. */
#pragma once

struct client;
struct functions;
struct capacity;

/* node: the Node's name. All else outlives it. */
struct capacity *capacity_new(struct client *client, const char *node, struct functions *functions);
void *capacity_free(struct capacity *c);
