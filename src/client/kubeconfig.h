/* client/kubeconfig.h - where an API server is and how we show who we are. */
#pragma once

#include "base/arena.h"
#include "base/err.h"

struct kubeconfig {
    const char *server;    /* "https://127.0.0.1:6443" */
    const char *ca_pem;    /* NULL: the system's */
    const char *cert_pem, *key_pem;
    const char *token, *token_file; /* the file is read again for each connection's life: it rotates */
    const char *server_name;
    const char *namespace_; /* of the context; "default" */
    bool insecure;
};
/* The current context. All in the arena. Files named relative to the kubeconfig's folder. */
int kubeconfig_read(struct arena *a, const char *path, struct kubeconfig *ret, struct err *err) _must_check_;
