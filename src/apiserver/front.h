/* apiserver/front.h - the API over HTTPS: who asks (client certificate, token, nobody;
 * impersonation), bodies, streams of watches, compression, tunnels to nodes.
 *
 * Nothing leaves before it is durable. Thread: the loop of the API. */
#pragma once

#include "base/err.h"

struct api;
struct front;
struct http_server;

/* Listens on addr:port (0: the kernel picks). */
struct front *front_new(struct api *api, const char *addr, int port, struct err *err) _must_check_;
int front_port(const struct front *f);
/* Stops accepting, cuts watches, lets requests end; done is called when all is gone and freed. */
void front_stop(struct front *f, uint32_t deadline_ms, void (*done)(void *), void *arg);
