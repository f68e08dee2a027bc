/* The gateway process: loop, signals, servers, and the mirror of the Function objects.
 *
 * It starts at the same time as the API server and serves what it knows; the mirror catches up.
 * Of each Function it also tells the status: Active once its code lies here and its runtime is on
 * this machine, Failed with the reason otherwise. */
#include "gateway/gateway_int.h"

#include "advisor/gather.h"
#include "base/log.h"
#include "client/client.h"
#include "door/aws/identity.h"
#include "env/env.h"
#include "env/fs.h"
#include "gateway/aws.h"
#include "gateway/capacity.h"
#include "gateway/groups.h"
#include "gateway/keys.h"
#include "gateway/otlp.h"
#include "gateway/triggers.h"
#include "http/client.h"
#include "logs/logs.h"
#include "series/series.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { CONNECT_MS = 50, RETELL_MS = 2000, TLS_LOOK_MS = 30000 };

struct process {
    struct gateway g;
    struct env *env;
    struct http_client *http;
    struct client *client;
    struct mirror *mirror, *versions, *layers, *namespaces;
    struct aws_door *aws;
    struct triggers *triggers;
    struct capacity *capacity; /* NULL: no node was named */
    struct env_timer *connect, *retell, *tls_look;
    struct http_server *https; /* NULL: no TLS port */
    char *cert, *key;          /* what it shows */
    uv_signal_t term, intr;
    char *kubeconfig;
    bool stopping;
    int left; /* parts that are still closing */
    int tries;
};

/* ---- what a Function's status says ---- */

struct tell {
    struct process *p;
    char *key;
};

static void on_told(void *arg, const struct client_result *r)
{
    struct tell *t = arg;

    if (r->err && r->err->code != ERR_NOT_FOUND && r->err->code != ERR_CANCELLED && !t->p->stopping) {
        LOG(WARN, "gateway", "function=%s did=status error=\"%s\"", t->key, r->err->msg);
        env_timer_start(t->p->retell, RETELL_MS, 0);
    }
    free(t->key);
    free(t);
}

static bool code_is_here(struct process *p, const char *sha256)
{
    _auto_(freep) char *blob = xasprintf("%s/blobs/sha256/%s", p->g.o->state, sha256);

    return *sha256 && !strchr(sha256, '/') && access(blob, R_OK) == 0;
}

static bool is_told(const struct val *now, const struct val *want)
{
    VAL_EACH_MEMBER(want, m)
    if (!val_get(now, m->key) || !val_equal(val_get(now, m->key), &m->v))
        return false;
    return true;
}

static void tell_status(struct process *p, const struct obj *o)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const struct val *v = obj_val(o);
    struct val *patch = val_map(a), *status = val_need_map(a, patch, "status");
    const char *sha256 = val_str_at(v, "spec.codeSha256", "");
    struct client_call call = {.verb = CLIENT_PATCH, .resource = "tandem.dev/v1/functions", .ns = o->namespace_,
                               .name = o->name, .sub = "status", .body = patch, .patch_type = CLIENT_PATCH_MERGE};
    struct tell *t;
    struct err err;
    const char *failed = NULL, *code = NULL;
    bool image = streq(val_str_at(v, "spec.packageType", "Zip"), "Image") || val_str_at(v, "spec.image", NULL);
    int there = image ? functions_image_state(p->g.functions, o->namespace_, o->name, &err) : 1;

    if (there < 0) {
        failed = err.msg;
        code = "ImageAccessDenied";
    } else if (image) {
        /* neither runtime nor zip */
    } else if ((val_is_null(val_at(v, "spec.http")) || (streq(val_str_at(v, "spec.runtime", ""), "wasm") && !val_len(val_at(v, "spec.http.command")))) &&
               function_runtime_check(val_str_at(v, "spec.runtime", ""), &err) < 0) {
        failed = err.msg;
        code = "InvalidRuntime";
    } else if (!code_is_here(p, sha256)) {
        failed = "the code is not on this machine";
        code = "InvalidZipFileException";
    } else if ((there = functions_wasm_state(p->g.functions, o->namespace_, o->name, &err)) < 0) {
        failed = err.msg;
        code = "FunctionError.InvalidEntryPoint";
    }
    val_put_str(a, status, "state", failed ? "Failed" : there ? "Active" : "Pending");
    val_put_str(a, status, "lastUpdateStatus", failed ? "Failed" : there ? "Successful" : "InProgress");
    if (there <= 0)
        env_timer_start(p->retell, RETELL_MS, 0); /* it may come yet */
    val_put_int(a, status, "observedGeneration", val_int_at(v, "metadata.generation", 0));
    if (failed) {
        val_put_str(a, status, "stateReason", failed);
        val_put_str(a, status, "stateReasonCode", code);
    }
    if (val_get(val_get(v, "spec"), "url") && val_bool_at(v, "spec.url.enabled", true))
        val_put(a, status, "url",
                val_printf(a, "http://127.0.0.1:%d/function/%s/", p->g.port, o->name));
    if (is_told(val_get(v, "status"), status))
        return;
    if (!failed && val_at(v, "status.stateReason")) {
        val_put(a, status, "stateReason", val_null(a));
        val_put(a, status, "stateReasonCode", val_null(a));
    }
    t = xcalloc(1, sizeof *t);
    *t = (struct tell){p, xasprintf("%s/%s", o->namespace_, o->name)};
    client_call(p->client, &call, on_told, t);
}

static void on_state(void *arg, const char *ns, const char *name)
{
    struct process *p = arg;
    const struct obj *o = p->client && !p->stopping ? mirror_get(p->mirror, ns, name) : NULL;

    if (o)
        tell_status(p, o);
}

static void on_retell(void *arg)
{
    struct process *p = arg;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct objs all = mirror_list(p->mirror, a, NULL);

    for (uint32_t i = 0; i < all.n; i++)
        tell_status(p, all.v[i]);
    functions_retell_snapshots(p->g.functions);
}

/* ---- the mirror ---- */

static void on_added(void *arg, const struct obj *o)
{
    struct process *p = arg;

    functions_put(p->g.functions, o);
    tell_status(p, o);
}

static void on_changed(void *arg, const struct obj *was, const struct obj *o)
{
    on_added(arg, o);
}

static void on_removed(void *arg, const struct obj *o)
{
    struct process *p = arg;

    functions_remove(p->g.functions, o->namespace_, o->name);
}

/* What layers hold, for whoever names them next. */
static bool layers_code(void *arg, void (*use)(void *use_arg, const char *sha256), void *use_arg)
{
    struct process *p = arg;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct objs all;

    if (!p->layers || !mirror_synced(p->layers) || p->stopping)
        return false;
    all = mirror_list(p->layers, a, NULL);
    for (uint32_t i = 0; i < all.n; i++)
        use(use_arg, val_str_at(obj_val(all.v[i]), "spec.codeSha256", NULL));
    return true;
}

static void on_synced(void *arg)
{
    struct process *p = arg;

    if (p->mirror && p->versions && mirror_synced(p->mirror) && mirror_synced(p->versions)) {
        functions_settled(p->g.functions);
        functions_collect_code(p->g.functions, layers_code, p);
    }
}

static void on_version(void *arg, const struct obj *o)
{
    functions_put_version(((struct process *)arg)->g.functions, o);
}

static void on_version_changed(void *arg, const struct obj *was, const struct obj *o)
{
    on_version(arg, o);
}

static void on_version_removed(void *arg, const struct obj *o)
{
    functions_remove_version(((struct process *)arg)->g.functions, o);
}

/* ---- spending limits ---- */

#define SPENDING_LIMIT "tandem.dev/spending-limit"

static void on_namespace(void *arg, const struct obj *o)
{
    struct process *p = arg;
    const char *text = val_text(val_get(val_at(obj_val(o), "metadata.annotations"), SPENDING_LIMIT), "");
    char *end;
    double limit = strtod(text, &end);

    if (*text && (end == text || *end || !(limit >= 0)))
        LOG(WARN, "gateway", "namespace=%s did=ignore-spending-limit error=\"%s is no amount\"", o->name, text);
    functions_limit_namespace(p->g.functions, o->name, *text && end != text && !*end && limit >= 0 ? limit : -1);
}

static void on_namespace_changed(void *arg, const struct obj *was, const struct obj *o)
{
    (void)was;
    on_namespace(arg, o);
}

static void on_namespace_removed(void *arg, const struct obj *o)
{
    functions_limit_namespace(((struct process *)arg)->g.functions, o->name, -1);
}

/* An event on the function or the namespace, and the function's condition. */
static void on_spending(void *arg, const char *ns, const char *name, bool stopped, const char *text)
{
    struct process *p = arg;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *patch = val_map(a), *c = val_map(a);
    const struct obj *o = !p->client ? NULL : name ? mirror_get(p->mirror, ns, name) : mirror_get(p->namespaces, "", ns);
    struct tell *t;
    char when[32];
    time_t now = time(NULL);
    struct tm tm;

    if (!o || p->stopping)
        return;
    client_event(p->client, "tandem-gateway", o, stopped ? "Warning" : "Normal", stopped ? "SpendingLimitReached" : "SpendingLimitCleared",
                 "%s", text);
    if (!name)
        return;
    gmtime_r(&now, &tm);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
    val_put_str(a, c, "type", "SpendingLimitReached");
    val_put_str(a, c, "status", stopped ? "True" : "False");
    val_put_str(a, c, "reason", stopped ? "LimitReached" : "BelowLimit");
    val_put_str(a, c, "message", text);
    val_put_str(a, c, "lastTransitionTime", when);
    val_push(a, val_need_list(a, val_need_map(a, patch, "status"), "conditions"), c);
    t = xcalloc(1, sizeof *t);
    *t = (struct tell){p, xasprintf("%s/%s", ns, name)};
    client_call(p->client, &(struct client_call){.verb = CLIENT_PATCH, .resource = "tandem.dev/v1/functions", .ns = ns, .name = name,
        .sub = "status", .body = patch, .patch_type = CLIENT_PATCH_MERGE}, on_told, t);
}

/* What came of a published version's snapshot goes into its status: State, and whether starts are from it. */
static void on_snapshot(void *arg, const char *ns, const char *object, bool active, bool on, const char *code, const char *reason)
{
    struct process *p = arg;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *patch = val_map(a), *status = val_need_map(a, patch, "status");
    const struct obj *o;
    struct tell *t;

    if (!p->client || p->stopping)
        return;
    val_put_str(a, status, "state", active ? "Active" : "Failed");
    val_put_str(a, status, "lastUpdateStatus", active ? "Successful" : "Failed");
    val_put_str(a, status, "snapshot", on ? "On" : "Off");
    o = mirror_get(p->versions, ns, object);
    if (o && is_told(val_get(obj_val(o), "status"), status) &&
        streq(val_str_at(obj_val(o), "status.stateReason", ""), reason ? reason : ""))
        return; /* said again */
    val_put(a, status, "stateReason", reason ? val_str(a, reason) : val_null(a));
    val_put(a, status, "stateReasonCode", code ? val_str(a, code) : val_null(a));
    t = xcalloc(1, sizeof *t);
    *t = (struct tell){p, xasprintf("%s/%s", ns, object)};
    client_call(p->client, &(struct client_call){.verb = CLIENT_PATCH, .resource = "tandem.dev/v1/functionversions", .ns = ns,
        .name = object, .sub = "status", .body = patch, .patch_type = CLIENT_PATCH_MERGE}, on_told, t);
}

static void on_role(void *arg, const char *arn)
{
    struct process *p = arg;

    if (!p->stopping)
        functions_role_changed(p->g.functions, arn);
}

/* The kubeconfig appears when the server has made its keys; until then nothing is wrong. */
static void on_connect(void *arg)
{
    struct process *p = arg;
    struct mirror_args m = {.resource = "tandem.dev/v1/functions", .added = on_added, .changed = on_changed,
                            .removed = on_removed, .synced = on_synced, .arg = p};
    struct mirror_args v = {.resource = "tandem.dev/v1/functionversions", .added = on_version,
                            .changed = on_version_changed, .removed = on_version_removed, .synced = on_synced,
                            .arg = p};
    struct mirror_args n = {.resource = "v1/namespaces", .added = on_namespace, .changed = on_namespace_changed,
                            .removed = on_namespace_removed, .arg = p};
    struct err err;

    if (access(p->kubeconfig, R_OK) == 0)
        p->client = client_remote_new(p->env, p->http, p->kubeconfig, "tandem-gateway", &err);
    else
        err_sys(&err, "read %s", p->kubeconfig);
    if (!p->client) {
        if (++p->tries % 100 == 0)
            LOG(WARN, "gateway", "did=wait-for-server error=\"%s\"", err.msg);
        env_timer_start(p->connect, CONNECT_MS, 0);
        return;
    }
    p->mirror = client_mirror(p->client, &m);
    p->versions = client_mirror(p->client, &v);
    p->layers = client_mirror(p->client, &(struct mirror_args){.resource = "tandem.dev/v1/functionlayers"});
    p->namespaces = client_mirror(p->client, &n);
    LOG(INFO, "gateway", "did=mirror kubeconfig=%s", p->kubeconfig);
    p->g.identity = identity_new(&(struct identity_opts){.client = p->client, .state = p->g.o->state,
                                                         .role_changed = on_role, .arg = p}, &err);
    if (!p->g.identity)
        LOG(ERROR, "gateway", "did=identity error=\"%s\"", err.msg);
    p->g.keys = keys_new(p->client, p->g.functions, p->g.identity);
    p->g.groups = groups_new(p->client, p->g.logs);
    p->aws = aws_start(&p->g, p->client, p->mirror);
    if (!str_empty(p->g.o->node_name))
        p->capacity = capacity_new(p->client, p->g.o->node_name, p->g.functions);
    p->triggers = triggers_new(&p->g.loop, p->g.o->state, p->client, p->g.functions);
}

/* ---- start and stop ---- */

static void on_http(struct http_req *req, void *arg)
{
    url_request(arg, req);
}

static void on_admin(struct http_req *req, void *arg)
{
    admin_request(arg, req);
}

static void on_part_gone(void *arg)
{
    struct process *p = arg;

    p->left--;
}

static void stop(struct process *p)
{
    if (p->stopping)
        return;
    p->stopping = true;
    LOG(INFO, "gateway", "did=stop");
    debug_stop(&p->g);
    p->triggers = triggers_free(p->triggers);
    p->capacity = capacity_free(p->capacity);
    if (p->aws)
        p->left++, aws_stop(p->aws, on_part_gone, p);
    env_timer_free(p->connect);
    env_timer_free(p->retell);
    env_timer_free(p->tls_look);
    if (p->g.http)
        p->left++, http_server_stop(p->g.http, 500, on_part_gone, p);
    if (p->https)
        p->left++, http_server_stop(p->https, 500, on_part_gone, p);
    if (p->g.admin)
        p->left++, http_server_stop(p->g.admin, 500, on_part_gone, p);
    if (p->g.functions)
        p->left++, functions_stop(p->g.functions, on_part_gone, p);
    uv_close((uv_handle_t *)&p->term, NULL);
    uv_close((uv_handle_t *)&p->intr, NULL);
}

static void on_signal(uv_signal_t *s, int number)
{
    stop(s->data);
}

/* ---- the TLS port ---- */

static char *read_pem(const char *path, struct err *err)
{
    size_t n;

    return fs_read(path, 1 << 20, &n, err);
}

/* Who renews a certificate writes one file after the other: what does not go together is not taken, and looked at again. */
static void on_tls_look(void *arg)
{
    struct process *p = arg;
    const struct gateway_options *o = p->g.o;
    struct err err;
    _auto_(freep) char *cert = read_pem(o->tls_cert, &err), *key = cert ? read_pem(o->tls_key, &err) : NULL;
    struct http_tls tls = {.cert_pem = cert, .key_pem = key};

    env_timer_start(p->tls_look, TLS_LOOK_MS, 0);
    if (key && streq(cert, p->cert) && streq(key, p->key))
        return;
    if (!key || http_server_set_tls(p->https, &tls, &err) < 0) {
        LOG(WARN, "gateway", "did=keep-certificate error=\"%s\"", err.msg);
        return;
    }
    LOG(INFO, "gateway", "did=renew-certificate file=%s", o->tls_cert);
    free(p->cert);
    free(p->key);
    p->cert = STEAL(cert);
    p->key = STEAL(key);
}

static int open_tls(struct process *p, struct http_server_opts http, struct err *err)
{
    const struct gateway_options *o = p->g.o;
    struct http_tls tls;

    p->cert = read_pem(o->tls_cert, err);
    p->key = p->cert ? read_pem(o->tls_key, err) : NULL;
    if (!p->key)
        return err_wrap(err, "the gateway's certificate");
    tls = (struct http_tls){.cert_pem = p->cert, .key_pem = p->key};
    http.port = o->tls_port;
    http.tls = &tls;
    p->https = http_server_new(&p->g.loop, &http, err);
    if (!p->https)
        return err_wrap(err, "gateway's TLS port %d", o->tls_port);
    env_timer_start(p->tls_look, TLS_LOOK_MS, 0);
    return 0;
}

static int open_servers(struct process *p, struct err *err)
{
    const struct gateway_options *o = p->g.o;
    _auto_(freep) char *path = xasprintf("%s/run/gateway.sock", o->state);
    struct http_server_opts http = {.addr = o->address ? o->address : "0.0.0.0", .port = o->gateway_port,
                                    .body_bytes_max = FUNCTION_PAYLOAD_MAX, .on_request = on_http, .arg = &p->g};
    struct http_server_opts admin = {.unix_path = path, .body_bytes_max = FUNCTION_PAYLOAD_MAX,
                                     .on_request = on_admin, .arg = &p->g};

    p->g.admin = http_server_new(&p->g.loop, &admin, err); /* first: who sees the ports open asks it next */
    if (!p->g.admin)
        return err_wrap(err, "admin socket");
    if (o->gateway_port) {
        p->g.http = http_server_new(&p->g.loop, &http, err);
        if (!p->g.http)
            return err_wrap(err, "gateway port %d", o->gateway_port);
        p->g.port = http_server_port(p->g.http);
    }
    return o->tls_port ? open_tls(p, http, err) : 0;
}

/* As the advisor reckons; read once, at the start. */
static void take_prices(struct process *p, struct arena *a, struct functions_options *f)
{
    struct prices prices;
    struct err err;

    f->on_spending = on_spending;
    f->on_snapshot = on_snapshot;
    f->snapshot_arg = p;
    f->spending_arg = p;
    if (gather_prices(a, p->g.o->state, &prices, &err) < 0) {
        LOG(WARN, "gateway", "did=run-without-prices error=\"%s\"", err.msg);
        return;
    }
    f->price_gb_s = prices.gb_s;
    f->price_request = prices.million_requests / 1e6;
    f->currency = prices.currency;
}

static struct logs *open_logs(struct process *p, struct err *err)
{
    _auto_(freep) char *above = xasprintf("%s/logs", p->g.o->state), *dir = xasprintf("%s/groups", above);

    if (mkdir(above, 0755) < 0 && errno != EEXIST) {
        err_sys(err, "make %s", above);
        return NULL;
    }
    return logs_new(&(struct logs_options){.loop = &p->g.loop, .dir = dir}, err);
}

static int start(struct process *p, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const struct gateway_options *o = p->g.o;
    struct functions_options f = {.loop = &p->g.loop, .state = o->state, .instance = o->instance, .node_ip = o->node_ip,
                                  .pod_cidr = o->pod_cidr, .service_cidr = o->service_cidr,
                                  .keep_ms = o->keep_ms, .zygote_keep_ms = o->zygote_keep_ms,
                                  .scale_burst = o->scale_burst, .scale_per_10s = o->scale_per_10s,
                                  .evict_mb = o->evict_mb, .aws_port = o->aws_port,
                                  .retry_ms = {o->event_retry_s * 1000, o->event_retry_s * 2000}, .events_wait = true,
                                  .on_state = on_state, .state_arg = p};

    take_prices(p, a, &f);
    p->g.otlp = otlp_new(&p->g.loop, p->http, o->otlp_endpoint, err);
    if (p->g.otlp)
        f.tracing = (struct functions_tracing){otlp_sample, otlp_span, p->g.otlp};
    else if (err->code != ERR_OK)
        LOG(ERROR, "gateway", "did=run-without-traces error=\"%s\"", err->msg);
    p->g.logs = f.logs = open_logs(p, err);
    p->g.metrics = f.metrics = p->g.logs ? series_new(&p->g.loop, arena_printf(a, "%s/metrics", o->state), err) : NULL;
    if (!p->g.metrics)
        return -1;
    p->g.functions = functions_new(&f, err);
    if (!p->g.functions || open_servers(p, err) < 0)
        return -1;
    p->kubeconfig = o->kubeconfig ? xstrdup(o->kubeconfig) : xasprintf("%s/kubeconfig", o->state);
    on_connect(p);
    return 0;
}

/* They wait for disks, not for cores: eight may read durable executions (function/durable/job.c), others unpack code, and commits must
 * not stand in line behind them. libuv's own number is 4. */
#define POOL_THREADS "16"

int gateway_main(const struct gateway_options *o)
{
    struct process p = {.g.o = o};
    struct err err;
    int ret = 0;

    signal(SIGPIPE, SIG_IGN);
    setenv("UV_THREADPOOL_SIZE", POOL_THREADS, 0);
    uv_loop_init(&p.g.loop);
    list_init(&p.g.debugs);
    p.env = env_real_new(&p.g.loop);
    p.http = http_client_new(&p.g.loop, &(struct http_client_opts){0});
    p.connect = env_timer_new(p.env, on_connect, &p);
    p.retell = env_timer_new(p.env, on_retell, &p);
    p.tls_look = env_timer_new(p.env, on_tls_look, &p);
    uv_signal_init(&p.g.loop, &p.term);
    uv_signal_init(&p.g.loop, &p.intr);
    p.term.data = p.intr.data = &p;
    uv_signal_start(&p.term, on_signal, SIGTERM);
    uv_signal_start(&p.intr, on_signal, SIGINT);
    if (start(&p, &err) < 0) {
        LOG(ERROR, "gateway", "did=start error=\"%s\"", err.msg);
        ret = 1;
        stop(&p);
    } else {
        LOG(INFO, "gateway", "did=start port=%d aws_port=%d", p.g.port, o->aws_port);
    }
    while (!p.stopping || p.left)
        uv_run(&p.g.loop, UV_RUN_ONCE);
    p.g.groups = groups_free(p.g.groups);
    if (p.g.metrics)
        p.left++, series_stop(p.g.metrics, on_part_gone, &p);
    if (p.g.otlp)
        p.left++, otlp_stop(p.g.otlp, on_part_gone, &p);
    if (p.g.logs) { /* what the last calls printed is on disk then */
        p.left++;
        logs_stop(p.g.logs, on_part_gone, &p);
    }
    while (p.left)
        uv_run(&p.g.loop, UV_RUN_ONCE);
    /* the doors used them until here */
    p.g.keys = keys_free(p.g.keys);
    p.g.identity = identity_free(p.g.identity);
    if (p.mirror)
        mirror_free(p.mirror), mirror_free(p.versions), mirror_free(p.layers), mirror_free(p.namespaces);
    if (p.client)
        client_free(p.client);
    http_client_free(p.http);
    env_free(p.env);
    for (int i = 0; i < 1000 && uv_loop_alive(&p.g.loop); i++)
        uv_run(&p.g.loop, UV_RUN_NOWAIT);
    uv_loop_close(&p.g.loop);
    free(p.kubeconfig);
    free(p.cert);
    free(p.key);
    LOG(INFO, "gateway", "did=stopped");
    return ret;
}
