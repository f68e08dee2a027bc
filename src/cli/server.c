/* tandem server: the API, the store, controllers and scheduler, on one loop.
 *
 * SIGTERM ends it in order: no new requests, what runs ends, what was acknowledged is on disk. */
#include "cli/cli.h"
#include "cli/part.h"

#include "apiserver/apiserver.h"
#include "apiserver/audit.h"
#include "apiserver/authn.h"
#include "apiserver/front.h"
#include "auth/pki.h"
#include "base/log.h"
#include "env/env.h"
#include "schema/schema.h"
#include "store/engine.h"
#include "client/client.h"
#include "controller/controllers.h"
#include "scheduler/scheduler.h"
#include "advisor/advisor.h"

#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <malloc.h>
#include <net/if.h>
#include <signal.h>
#include <sys/stat.h>
#include <uv.h>

enum {
    STOP_MS = 3000,
    CACHE_BYTES = 8 << 20, /* of parsed objects; what is hot in a cluster of a few hundred pods */
};

struct server {
    const struct cli_opts *o;
    uv_loop_t loop;
    uv_signal_t term, intr, hup;
    struct env *env;
    struct store *store;
    struct schema *schema;
    struct pki *pki;
    struct api *api;
    struct front *front;
    struct client *client;
    struct controllers *controllers;
    struct controllers_keys keys;
    struct client *scheduler_client;
    struct scheduler *scheduler;
    struct advisor *advisor;
    bool stopping;
};

static void stop_parts(struct server *s)
{
    s->advisor = advisor_stop(s->advisor);
    s->scheduler = scheduler_stop(s->scheduler);
    s->scheduler_client = client_free(s->scheduler_client);
    s->controllers = controllers_stop(s->controllers);
    s->client = client_free(s->client);
}

static void front_gone(void *arg)
{
    struct server *s = arg;

    s->front = NULL;
    stop_parts(s);
    s->api = api_free(s->api);
    s->store = store_close(s->store);
    s->env = env_free(s->env);
    uv_close((uv_handle_t *)&s->term, NULL);
    uv_close((uv_handle_t *)&s->intr, NULL);
    uv_close((uv_handle_t *)&s->hup, NULL);
}

static void on_signal(uv_signal_t *h, int number)
{
    struct server *s = h->data;

    if (s->stopping)
        return;
    s->stopping = true;
    LOG(INFO, "server", "did=stop signal=%d", number);
    front_stop(s->front, STOP_MS, front_gone, s);
}

static void on_hup(uv_signal_t *h, int number)
{
    struct server *s = h->data;

    (void)number;
    if (!s->stopping)
        front_reload(s->front);
}

static int make_folders(const struct cli_opts *o, struct err *err)
{
    static const char *const names[] = {"", "/run", "/pki"};
    char path[256];

    for (size_t i = 0; i < ARRAY_LEN(names); i++) {
        snprintf(path, sizeof(path), "%s%s", o->state, names[i]);
        if (mkdir(path, i == 2 ? 0700 : 0755) < 0 && errno != EEXIST)
            return err_sys(err, "mkdir %s", path);
    }
    return 0;
}

static int write_kubeconfigs(struct server *s, struct err *err)
{
    char url[64], path[256];
    const char *node = str_empty(s->o->node_name) ? "node" : s->o->node_name;
    _auto_(freep) char *node_user = xasprintf("system:node:%s", node);

    snprintf(url, sizeof(url), "https://127.0.0.1:%d", s->front ? front_port(s->front) : s->o->api_port);
    snprintf(path, sizeof(path), "%s/kubeconfig", s->o->state);
    if (pki_write_kubeconfig(s->pki, path, url, "admin", "kubernetes-admin", "system:masters", err) < 0)
        return -1;
    snprintf(path, sizeof(path), "%s/pki/node.kubeconfig", s->o->state);
    if (pki_write_kubeconfig(s->pki, path, url, "node", node_user, "system:nodes", err) < 0)
        return -1;
    snprintf(path, sizeof(path), "%s/pki/gateway.kubeconfig", s->o->state);
    return pki_write_kubeconfig(s->pki, path, url, "gateway", "system:tandem-gateway",
                                "system:masters", err);
}

/* Our own clients' certificates are made anew before they end, and the CA may have changed. */
static void on_renewal(void *arg)
{
    struct server *s = arg;
    struct err err = {0};

    if (write_kubeconfigs(s, &err) < 0)
        LOG(ERROR, "server", "did=kubeconfigs err=\"%s\"", err.msg);
    if (s->controllers)
        controllers_set_ca(s->controllers, pki_ca_pem(s->pki));
}

static int start_parts(struct server *s, struct err *err)
{
    (void)err;
    if (s->o->api_only)
        return 0;
    s->client = client_local_new(s->env, s->api, s->schema, "system:kube-controller-manager");
    s->keys = keys_of(s->pki);
    struct controllers_opts opts = {.schema = s->schema, .ca_pem = pki_ca_pem(s->pki), .keys = &s->keys,
                                    .only = s->o->controllers};

    s->controllers = controllers_start(s->client, s->env, &opts, err);
    if (!s->controllers)
        return err_wrap(err, "controllers");
    s->scheduler_client = client_local_new(s->env, s->api, s->schema, "system:kube-scheduler");
    if (!s->o->no_scheduler &&
        !(s->scheduler = scheduler_start(s->scheduler_client, s->env, NULL, err)))
        return err_wrap(err, "scheduler");
    if (!(s->advisor = advisor_start(s->client, s->env, s->o->state, err)))
        return err_wrap(err, "advisor");
    return 0;
}

/* Where pods reach us: the first address of this machine that is not its own loopback. */
static const char *host_address(char out[INET_ADDRSTRLEN])
{
    struct ifaddrs *all, *i;

    snprintf(out, INET_ADDRSTRLEN, "127.0.0.1");
    if (getifaddrs(&all) < 0)
        return out;
    for (i = all; i; i = i->ifa_next) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)i->ifa_addr;

        if (!in || in->sin_family != AF_INET || !(i->ifa_flags & IFF_UP) || (i->ifa_flags & IFF_LOOPBACK))
            continue;
        inet_ntop(AF_INET, &in->sin_addr, out, INET_ADDRSTRLEN);
        break;
    }
    freeifaddrs(all);
    return out;
}

static void first_address(const char *cidr, char out[INET_ADDRSTRLEN])
{
    char text[64];
    struct in_addr net;

    snprintf(text, sizeof text, "%s", cidr);
    text[strcspn(text, "/")] = 0;
    if (inet_pton(AF_INET, text, &net) != 1)
        return;
    net.s_addr = htonl(ntohl(net.s_addr) + 1);
    inet_ntop(AF_INET, &net, out, INET_ADDRSTRLEN);
}

static int start(struct server *s, struct err *err)
{
    char path[256], host[INET_ADDRSTRLEN] = "127.0.0.1";
    const char *listen = s->o->api_only ? "127.0.0.1" : "0.0.0.0";
    struct store_args store = {0};
    int64_t keep_ns = 0;
    _auto_(freep) char *flags = NULL;
    struct api_config api = {0};
    struct audit_opts audit = {.policy_path = s->o->audit_policy, .log_path = s->o->audit_log,
                               .log_mb_max = s->o->audit_mb, .log_files_max = s->o->audit_files,
                               .log_days_max = s->o->audit_days, .webhook_path = s->o->audit_webhook};
    struct front_opts files = {.cert_path = s->o->tls_cert, .key_path = s->o->tls_key,
                               .client_ca_path = s->o->client_ca,
                               .proxy_ca_path = s->o->requestheader_ca};
    struct authn_opts authn = {.config_path = s->o->authentication_config,
                               .proxy_names = s->o->requestheader_names,
                               .hook_path = s->o->token_webhook,
                               .hook_version = s->o->token_webhook_version, .hook_keep_ms = 120000};

    if (s->o->token_webhook_ttl && !duration_parse(s->o->token_webhook_ttl, &keep_ns))
        return err_set(err, INVALID_ARGUMENT, "--authentication-token-webhook-cache-ttl: \"%s\" is not a duration",
                       s->o->token_webhook_ttl);
    if (s->o->token_webhook_ttl)
        authn.hook_keep_ms = keep_ns / 1000000;
    if (make_folders(s->o, err) < 0)
        return -1;
    if (!s->o->api_only)
        host_address(host);
    if (!s->o->api_only && streq(host, "127.0.0.1")) /* pods reach this machine at the first of their addresses */
        first_address(s->o->pod_cidr, host);
    snprintf(path, sizeof(path), "%s/store.db", s->o->state);
    s->env = env_real_new(&s->loop);
    store = (struct store_args){.env = s->env, .engine = &store_sqlite, .path = path,
                                .cache_bytes = CACHE_BYTES};
    s->schema = schema_new();
    if (s->o->api_only) /* a stock API server: nothing here would work on functions and volumes */
        schema_hide_group(s->schema, "tandem.dev");
    if (!(s->store = store_open(&store, err)) || !(s->pki = pki_open(s->o->state, host, err)))
        return -1;
    api = (struct api_config){.env = s->env, .store = s->store, .schema = s->schema, .pki = s->pki,
                              .state_dir = s->o->state, .instance = s->o->id, .host = host,
                              .port = s->o->api_port, .service_cidr = s->o->service_cidr,
                              .node_name = s->o->api_only ? NULL : s->o->node_name,
                              .audit = &audit, .authn = &authn, .authz_path = s->o->authorization_config};
    flags = opts_text(s->o);
    api.flags = flags;
    if (!(s->api = api_new(&api, err)))
        return -1;
    if (s->o->api_port && write_kubeconfigs(s, err) < 0) /* first: who waits for the port goes by them next */
        return -1;
    if (!(s->front = front_new(s->api, listen, s->o->api_port, &files, err)))
        return err_wrap(err, "listen on %s:%d", listen, s->o->api_port);
    front_on_renewal(s->front, on_renewal, s);
    return (!s->o->api_port && write_kubeconfigs(s, err) < 0) || start_parts(s, err) < 0 ? -1 : 0;
}

/* What is big goes back to the system when it is freed: by itself the allocator learns from one big list to keep the
 * next ones in its heap, where a small thing behind them holds them for ever. */
static void tame_allocator(void)
{
    mallopt(M_MMAP_THRESHOLD, 1 << 20);
    mallopt(M_TRIM_THRESHOLD, 512 << 10);
}

int cmd_server(struct cli_opts *o, int argc, char **argv)
{
    struct server *s = xcalloc(1, sizeof(*s));
    struct err err = {0};

    (void)argc;
    (void)argv;
    part_begin("server");
    tame_allocator();
    signal(SIGPIPE, SIG_IGN);
    s->o = o;
    uv_loop_init(&s->loop);
    uv_signal_init(&s->loop, &s->term);
    uv_signal_init(&s->loop, &s->intr);
    uv_signal_init(&s->loop, &s->hup);
    s->term.data = s->intr.data = s->hup.data = s;
    uv_signal_start(&s->term, on_signal, SIGTERM);
    uv_signal_start(&s->intr, on_signal, SIGINT);
    uv_signal_start(&s->hup, on_hup, SIGHUP); /* heard from before anybody can connect, handled when the loop runs */
    if (start(s, &err) < 0)
        return complain_err(&err);
    LOG(INFO, "server", "did=ready port=%d", front_port(s->front));
    uv_run(&s->loop, UV_RUN_DEFAULT);
    uv_loop_close(&s->loop);
    schema_free(s->schema);
    pki_free(s->pki);
    free(s);
    return 0;
}
