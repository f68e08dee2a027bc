/* The node process: what it opens, and how the API's news reach the pods.
 *
 * It may be killed at any moment; SIGTERM is the same with a log line. Nothing is kept in memory
 * that the shims, the kernel and the API do not know. */
#include "codec/json.h"
#include "env/fs.h"
#include "http/client.h"
#include "http/server.h"
#include "node/node_int.h"

#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SWEEP_MS = 20000, IMPORT_MS = 300, KUBECONFIG_WAIT_MS = 30000 };

/* ---- news from the API
 * ----------------------------------------------------------------------------- */

static void pod_added(void *arg, const struct obj *o)
{
    struct node *n = arg;
    struct pod *p = map_get(&n->by_uid, o->uid);

    if (p)
        pod_seen(p, o);
    else
        pod_new(n, o);
}

static void pod_removed(void *arg, const struct obj *o)
{
    struct node *n = arg;
    struct pod *p = map_get(&n->by_uid, o->uid);

    if (p)
        pod_missing(p);
}

static void pod_changed(void *arg, const struct obj *was, const struct obj *o)
{
    if (!streq(was->uid, o->uid))
        pod_removed(arg, was);
    pod_added(arg, o);
}

static void pods_synced(void *arg)
{
    struct node *n = arg;

    n->synced = true;
    LIST_EACH (&n->all, l)
        pod_poke(
            list_entry(l, struct pod, link)); /* those that the API does not name are orphans now */
    LOG(INFO, "node", "did=synced pods=%u", mirror_count(n->pods));
}

static void config_added(void *arg, const struct obj *o)
{
    volumes_changed(arg, "configMap", o->namespace_, o->name);
}
static void config_changed(void *arg, const struct obj *was, const struct obj *o)
{
    (void)was;
    config_added(arg, o);
}
static void secret_added(void *arg, const struct obj *o)
{
    volumes_changed(arg, "secret", o->namespace_, o->name);
}
static void secret_changed(void *arg, const struct obj *was, const struct obj *o)
{
    (void)was;
    secret_added(arg, o);
}

static void watch_all(struct node *n)
{
    char *mine = xasprintf("spec.nodeName=%s", n->o.name);

    if (!n->services) /* the proxy has it otherwise */
        n->services =
            client_mirror(n->client, &(struct mirror_args){.resource = "v1/services", .arg = n});
    n->configmaps = client_mirror(n->client, &(struct mirror_args){.resource = "v1/configmaps",
                                                                   .added = config_added,
                                                                   .changed = config_changed,
                                                                   .arg = n});
    n->secrets = client_mirror(n->client, &(struct mirror_args){.resource = "v1/secrets",
                                                                .added = secret_added,
                                                                .changed = secret_changed,
                                                                .arg = n});
    n->pods = client_mirror(n->client, &(struct mirror_args){.resource = "v1/pods",
                                                             .field_selector = mine,
                                                             .added = pod_added,
                                                             .changed = pod_changed,
                                                             .removed = pod_removed,
                                                             .synced = pods_synced,
                                                             .arg = n});
    free(mine);
}

/* ---- the socket
 * --------------------------------------------------------------------------------------- */

static void reply_val(struct http_req *req, struct val *v)
{
    struct buf b = {0};

    json_write(&b, v);
    http_reply(req, 200, "application/json", b.p ? b.p : "", b.n);
    buf_done(&b);
}

static void on_request(struct http_req *req, void *arg)
{
    struct node *n = arg;

    if (streq(req->path, "/healthz")) {
        http_reply(req, 200, "text/plain; charset=utf-8", "ok", 2);
    } else if (streq(req->path, "/stats/summary")) {
        reply_val(req, stats_summary(n, req->arena));
    } else if (streq(req->path, "/pods") || streq(req->path, "/pods/")) {
        struct val *v = val_map(req->arena), *items;
        val_put_str(req->arena, v, "kind", "PodList");
        val_put_str(req->arena, v, "apiVersion", "v1");
        val_need_map(req->arena, v, "metadata");
        items = val_need_list(req->arena, v, "items");
        LIST_EACH (&n->all, l) {
            struct pod *p = list_entry(l, struct pod, link);
            if (p->o && !p->absent)
                val_push(req->arena, items, obj_val(p->o));
        }
        reply_val(req, v);
    } else if (!node_stream_request(n, req)) {
        http_reply(req, 404, "text/plain; charset=utf-8", "404 page not found\n", 19);
    }
}

static int open_socket(struct node *n, struct err *err)
{
    char *path = xasprintf("%s/run/node.sock", n->o.state);

    n->server = http_server_new(
        &n->loop,
        &(struct http_server_opts){
            .unix_path = path, .unix_mode = 0600, .on_request = on_request, .arg = n},
        err);
    free(path);
    return n->server ? 0 : -1;
}

/* ---- archives dropped into STATE/images/import
 * ------------------------------------------------------------ */

static uv_fs_event_t import_watch;
static struct env_timer *import_timer;
static bool import_busy, import_again;

static void import_now(void *arg);

static void imported(void *arg, struct image *img, const struct err *err)
{
    struct node *n = arg;

    image_unref(img);
    import_busy = false;
    if (err && err->code != ERR_OK)
        LOG(WARN, "node", "did=import err=\"%s\"", err->msg);
    LIST_EACH (&n->all, l)
        pod_poke(list_entry(l, struct pod, link));
    node_status_poke(n);
    if (import_again)
        import_now(n);
}

static void import_now(void *arg)
{
    struct node *n = arg;
    char *dir = xasprintf("%s/images/import", n->o.state);

    import_again = import_busy;
    if (!import_busy) {
        import_busy = true;
        image_import_dir_async(n->images, &n->loop, dir, imported, n);
    }
    free(dir);
}

static void import_changed(uv_fs_event_t *h, const char *name, int events, int status)
{
    (void)h;
    (void)name;
    (void)events;
    (void)status;
    env_timer_start(import_timer, IMPORT_MS, 0); /* when it has been quiet for a moment */
}

static void watch_imports(struct node *n)
{
    char *dir = xasprintf("%s/images/import", n->o.state);
    struct err err;

    if (fs_mkdirs(dir, 0755, &err) < 0)
        LOG(WARN, "node", "did=make_import_folder err=\"%s\"", err.msg);
    import_timer = env_timer_new(n->env, import_now, n);
    uv_fs_event_init(&n->loop, &import_watch);
    uv_fs_event_start(&import_watch, import_changed, dir, 0);
    import_now(n);
    free(dir);
}

/* ---- start
 * --------------------------------------------------------------------------------------------- */

static char *find_shim(void)
{
    static const char *const places[] = {"tandem-shim", "../sandbox/tandem-shim",
                                         "../libexec/tandem/tandem-shim",
                                         "../../src/sandbox/tandem-shim"};
    const char *named = getenv("TANDEM_SHIM");
    char self[PATH_MAX], path[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);

    if (named)
        return xstrdup(named);
    self[MAX(n, (ssize_t)0)] = 0;
    char *slash = strrchr(self, '/');
    if (slash)
        slash[1] = 0;
    for (size_t i = 0; i < ARRAY_LEN(places); i++) {
        if ((size_t)snprintf(path, sizeof path, "%s%s", self, places[i]) < sizeof path &&
            access(path, X_OK) == 0)
            return realpath(path, NULL);
    }
    return NULL;
}

static int make_dirs(struct node *n, struct err *err)
{
    static const char *const dirs[] = {"run", "pods", "images", "volumes", "meter", "logs/pods"};
    char path[PATH_MAX];

    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        snprintf(path, sizeof path, "%s/%s", n->o.state, dirs[i]);
        if (fs_mkdirs(path, 0755, err) < 0)
            return -1;
    }
    return mem_mount(n, err);
}

static void sweep(void *arg)
{
    struct node *n = arg;

    if (!n->synced)
        return; /* comes again: until the API has spoken nobody is an orphan */
    if (n->net) {
        uint32_t gone = net_sweep(n->net);
        if (gone)
            LOG(INFO, "node", "did=sweep nets=%u", gone);
    }
    env_timer_stop(n->sweep);
}

static void on_signal(uv_signal_t *h, int sig)
{
    struct node *n = h->data;
    char path[PATH_MAX];

    LOG(INFO, "node", "did=leave signal=%d", sig);
    snprintf(path, sizeof path, "%s/run/node.sock", n->o.state);
    (void)unlink(path);
    /* Everything that must last does so by itself: see the top of this file. */
    _exit(0);
}

static int open_net(struct node *n, struct err *err)
{
    if (n->o.no_network)
        return 0;
    n->net = network_open(n, err);
    if (!n->net)
        return -1;
    if (!n->o.cluster_dns)
        n->o.cluster_dns = net_host_ip(n->net);
    return 0;
}

/* Started together with the server, which writes the file. The administrator's own one is taken
 * when there is none for the node (another kind of API server). */
static int find_kubeconfig(struct node *n, char *path, size_t cap, struct err *err)
{
    if (n->o.kubeconfig) {
        snprintf(path, cap, "%s", n->o.kubeconfig);
        return 0;
    }
    for (int waited = 0; waited < KUBECONFIG_WAIT_MS; waited += 5) {
        snprintf(path, cap, "%s/pki/node.kubeconfig", n->o.state);
        if (fs_exists(path))
            return 0;
        snprintf(path, cap, "%s/kubeconfig", n->o.state);
        if (waited > KUBECONFIG_WAIT_MS / 10 && fs_exists(path))
            return 0;
        usleep(5000);
    }
    return err_set(err, NOT_FOUND, "no kubeconfig in %s after %d s", n->o.state,
                   KUBECONFIG_WAIT_MS / 1000);
}

/* This process and with it all shims that it starts are members of the instance's own group: so
 * node_teardown() finds every one of them, whatever became of their directories. Only in the
 * hierarchy that says who is a member. */
static void own_group(struct node *n)
{
    struct cgroup_host h = n->cgroups;
    struct err err;

    for (int c = 0; c < CGROUP_HIERARCHIES; c++)
        if (*h.mount[CGROUP_V2] ? c != CGROUP_V2 : c != CGROUP_MEMORY)
            h.mount[c][0] = 0;
    /* All pods together weigh as much as the machine has: what they leave idle is the functions' (function/scaling/capacity.c). */
    if (cgroup_make(&n->cgroups, "pods", &(struct cgroup_limits){.cpu_shares = sysconf(_SC_NPROCESSORS_ONLN) * 1024}, &err) < 0)
        LOG(WARN, "node", "did=own_group err=\"%s\"", err.msg);
    if (cgroup_make(&h, "node", NULL, &err) < 0 || cgroup_attach(&h, "node", 0, &err) < 0)
        LOG(WARN, "node", "did=own_group err=\"%s\" then=\"shims are only found by their sockets\"",
            err.msg);
}

static int node_open(struct node *n, struct err *err)
{
    char path[PATH_MAX], registries[PATH_MAX];

    n->shim = find_shim();
    if (!n->shim)
        return err_set(err, NOT_FOUND,
                       "tandem-shim is not beside the program (TANDEM_SHIM names it otherwise)");
    if (make_dirs(n, err) < 0 || cgroup_mount_missing(err) < 0 ||
        cgroup_host_init(&n->cgroups, n->o.instance, err) < 0)
        return -1;
    own_group(n);
    if (!cgroup_favor_dynmods())
        LOG(INFO, "node",
            "did=favordynmods ok=0 then=\"containers start some milliseconds later\"");
    snprintf(path, sizeof path, "%s/images", n->o.state);
    snprintf(registries, sizeof registries, "%s/registries.json", n->o.state);
    n->images = image_store_open(path, registries, err);
    if (!n->images)
        return err_wrap(err, "images");
    if (open_net(n, err) < 0)
        return err_wrap(err, "network");
    node_host_ip(n->host_ip);
    if (n->net && streq(n->host_ip, "127.0.0.1"))
        snprintf(n->host_ip, sizeof n->host_ip, "%s", net_host_ip(n->net));
    n->http = http_client_new(&n->loop, NULL);
    if (find_kubeconfig(n, path, sizeof path, err) < 0)
        return -1;
    n->client = client_remote_new(n->env, n->http, path, "tandem-node", err);
    return n->client ? 0 : err_wrap(err, "client");
}

int node_main(const struct node_options *o)
{
    struct node *n = xcalloc(1, sizeof *n);
    static const int signals[2] = {SIGTERM, SIGINT};
    struct err err = {0};

    n->o = *o;
    if (!n->o.pod_cidr)
        n->o.pod_cidr = "10.42.0.0/16";
    if (!n->o.service_cidr)
        n->o.service_cidr = "10.96.0.0/16";
    if (!n->o.version)
        n->o.version = "v1.36.3";
    signal(SIGPIPE, SIG_IGN);
    signal(SIGCHLD, SIG_IGN); /* shims are our children, but nobody waits for them */
    list_init(&n->all);
    list_init(&n->dirty);
    uv_loop_init(&n->loop);
    n->env = env_real_new(&n->loop);
    if (node_open(n, &err) < 0) {
        LOG(ERROR, "node", "did=start err=\"%s\"", err.msg);
        return 1;
    }
    for (int i = 0; i < 2; i++) {
        uv_signal_init(&n->loop, &n->sig[i]);
        n->sig[i].data = n;
        uv_signal_start(&n->sig[i], on_signal, signals[i]);
    }
    int found = pods_found(n); /* before the first news: who runs already is known then */
    if (proxy_start(n, &err) < 0) {
        LOG(ERROR, "node", "did=start_proxy err=\"%s\"", err.msg);
        return 1;
    }
    watch_all(n);
    if (node_register_start(n, &err) < 0 || open_socket(n, &err) < 0) {
        LOG(ERROR, "node", "did=start err=\"%s\"", err.msg);
        return 1;
    }
    stats_start(n);
    watch_imports(n);
    n->sweep = env_timer_new(n->env, sweep, n);
    env_timer_start(n->sweep, SWEEP_MS, SWEEP_MS);
    LOG(INFO, "node", "did=start node=%s found=%d", n->o.name, found);
    uv_run(&n->loop, UV_RUN_DEFAULT);
    UNREACHABLE();
}
