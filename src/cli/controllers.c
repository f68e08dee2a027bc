/* tandem controllers: our controllers and scheduler in a process of their own, for whichever API server
 * the kubeconfig names. They see it through the same door as in the server's process (client/), by HTTPS.
 * One such process a cluster: it elects nobody. */
#include "cli/cli.h"
#include "cli/part.h"

#include "base/log.h"
#include "client/client.h"
#include "client/kubeconfig.h"
#include "controller/controllers.h"
#include "env/env.h"
#include "http/client.h"
#include "scheduler/scheduler.h"
#include "schema/schema.h"

#include <signal.h>
#include <uv.h>

struct apart {
    uv_loop_t loop;
    uv_signal_t term, intr;
    struct env *env;
    struct http_client *http;
    struct schema *schema;
    struct kubeconfig config;
    struct client *controllers_client, *scheduler_client;
    struct controllers *controllers;
    struct scheduler *scheduler;
};

static void on_signal(uv_signal_t *h, int number)
{
    struct apart *p = h->data;

    LOG(INFO, "controllers", "did=stop signal=%d", number);
    p->scheduler = scheduler_stop(p->scheduler);
    p->controllers = controllers_stop(p->controllers);
    p->scheduler_client = client_free(p->scheduler_client);
    p->controllers_client = client_free(p->controllers_client);
    p->http = http_client_free(p->http);
    p->env = env_free(p->env);
    uv_close((uv_handle_t *)&p->term, NULL);
    uv_close((uv_handle_t *)&p->intr, NULL);
}

static int start(struct apart *p, const struct cli_opts *o, struct err *err)
{
    struct controllers_opts opts = {.schema = p->schema, .only = o->controllers};

    if (kubeconfig_read(o->arena, o->kubeconfig, &p->config, err) < 0)
        return -1;
    opts.ca_pem = p->config.ca_pem;
    p->controllers_client = client_remote_new(p->env, p->http, o->kubeconfig, "kube-controller-manager", err);
    if (!p->controllers_client ||
        !(p->controllers = controllers_start(p->controllers_client, p->env, &opts, err)))
        return -1;
    if (o->no_scheduler)
        return 0;
    p->scheduler_client = client_remote_new(p->env, p->http, o->kubeconfig, "kube-scheduler", err);
    return p->scheduler_client &&
                   (p->scheduler = scheduler_start(p->scheduler_client, p->env, NULL, err))
               ? 0
               : -1;
}

int cmd_controllers(struct cli_opts *o, _unused_ int argc, _unused_ char **argv)
{
    struct apart *p = xcalloc(1, sizeof *p);
    struct err err = {0};

    if (str_empty(o->kubeconfig))
        return complain(EXIT_USAGE, "controllers wants --kubeconfig FILE");
    part_begin("controllers");
    uv_loop_init(&p->loop);
    p->env = env_real_new(&p->loop);
    p->http = http_client_new(&p->loop, NULL);
    p->schema = schema_new();
    if (start(p, o, &err) < 0)
        return complain_err(&err);
    uv_signal_init(&p->loop, &p->term);
    uv_signal_init(&p->loop, &p->intr);
    p->term.data = p->intr.data = p;
    uv_signal_start(&p->term, on_signal, SIGTERM);
    uv_signal_start(&p->intr, on_signal, SIGINT);
    LOG(INFO, "controllers", "did=ready server=%s", p->config.server);
    uv_run(&p->loop, UV_RUN_DEFAULT);
    uv_loop_close(&p->loop);
    schema_free(p->schema);
    free(p);
    return 0;
}
