/* gateway/triggers.h - where event/ hangs on: schedules and rules as the API has them, and what is told of them. */
#pragma once

#include <uv.h>

struct client;
struct functions;
struct triggers;

/* The client outlives it. */
struct triggers *triggers_new(uv_loop_t *loop, const char *state, struct client *client, struct functions *functions);
void *triggers_free(struct triggers *t); /* before the client and the functions; NULL is fine */
