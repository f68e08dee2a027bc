/* apiserver/front.h - the API over HTTPS: who asks (client certificate, token, nobody;
 * impersonation), bodies, streams of watches, compression, tunnels to nodes.
 *
 * Nothing leaves before it is durable. Thread: the loop of the API. */
#pragma once

#include "base/err.h"

struct api;
struct front;
struct http_server;

/* Files that are read again when they change; NULL each: what the instance has itself. */
struct front_opts {
    const char *cert_path, *key_path; /* shown to clients */
    const char *client_ca_path;       /* whose client certificates count, beside our own CA's */
    const char *proxy_ca_path;        /* whose certificates are front proxies' */
};
/* Listens on addr:port (0: the kernel picks). o may be NULL. */
struct front *front_new(struct api *api, const char *addr, int port, const struct front_opts *o,
                        struct err *err) _must_check_;
void front_reload(struct front *f); /* certificates, if their files changed */
/* fn is called after certificates were read or made anew. */
void front_on_renewal(struct front *f, void (*fn)(void *arg), void *arg);
int front_port(const struct front *f);
/* Stops accepting, cuts watches, lets requests end; done is called when all is gone and freed. */
void front_stop(struct front *f, uint32_t deadline_ms, void (*done)(void *), void *arg);
