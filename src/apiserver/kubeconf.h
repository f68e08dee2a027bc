/* apiserver/kubeconf.h - the kubeconfig files that name a webhook: where it is, how it is trusted and
 * who we are there. Only the parts that a server needs: no exec plugins, no auth providers. */
#pragma once

#include "http/client.h"

struct kubeconf {
    const char *server, *path; /* "https://host:port" and "/what/follows" ("/") */
    const char *ca_pem, *cert_pem, *key_pem, *server_name, *token; /* NULL: none */
    bool insecure;
};
/* All texts are in the arena. INVALID_ARGUMENT says what is missing. */
int kubeconf_read(const char *file, struct arena *a, struct kubeconf *ret, struct err *err)
    _must_check_;
struct http_origin *kubeconf_origin(struct http_client *c, const struct kubeconf *k, struct err *err)
    _must_check_;
