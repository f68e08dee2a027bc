/* The life of one pod on this machine. The moves between its stages: see MOVES. */
#include "codec/json.h"
#include "codec/kubetime.h"
#include "codec/quantity.h"
#include "env/clock.h"
#include "env/fs.h"
#include "node/node_int.h"
#include "sandbox/shim.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SETUP_RETRY_MS = 1000, ABSENT_GRACE_MS = 1000, PIDS_MAX = 16384 };

static const char *const STAGES[] = {"new", "setup", "run", "stop", "clean", "kept", "gone"};
/* MOVES[from] has a bit for each stage that may follow. */
static const uint8_t MOVES[] = {
    [POD_NEW] = 1 << POD_SETUP | 1 << POD_STOP | 1 << POD_CLEAN,
    [POD_SETUP] = 1 << POD_NEW | 1 << POD_RUN | 1 << POD_STOP | 1 << POD_CLEAN,
    [POD_RUN] = 1 << POD_NEW | 1 << POD_STOP,
    [POD_STOP] = 1 << POD_CLEAN,
    [POD_CLEAN] = 1 << POD_KEPT | 1 << POD_GONE,
    [POD_KEPT] = 1 << POD_GONE,
    [POD_GONE] = 0,
};

static void pod_move(struct pod *p, enum pod_stage to)
{
    if (p->stage == to)
        return;
    ASSERT(MOVES[p->stage] & 1 << to);
    LOG(DEBUG, "node", "pod=%s/%s from=%s to=%s", p->ns, p->name, STAGES[p->stage], STAGES[to]);
    p->stage = to;
}

int64_t mono_ms(struct node *n)
{
    return env_mono_us(n->env) / 1000;
}

const struct val *pod_spec(const struct pod *p)
{
    return p->o ? val_get(obj_val(p->o), "spec") : NULL;
}

bool pod_stopping(const struct pod *p)
{
    return p->stage >= POD_STOP;
}

void pod_event(struct pod *p, const char *type, const char *reason, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    if (p->o)
        client_event(p->n->client, "kubelet", p->o, type, reason, "%s", text);
}

struct ctr *pod_ctr(struct pod *p, const char *name)
{
    for (uint32_t i = 0; i < p->ctrs_n; i++)
        if (streq(p->ctrs[i].name, name))
            return &p->ctrs[i];
    return NULL;
}

struct pod *pod_by_name(struct node *n, const char *ns, const char *name)
{
    struct pod *found = NULL;

    LIST_EACH (&n->all, l) {
        struct pod *p = list_entry(l, struct pod, link);
        if (!p->orphan && streq(p->ns, ns) && streq(p->name, name) && (!found || found->absent))
            found = p;
    }
    return found;
}

const char *pod_qos(const struct pod *p)
{
    static const char *const lists[] = {"containers", "initContainers"};
    static const char *const names[] = {"cpu", "memory"};
    const char *told = p->o ? val_str_at(obj_val(p->o), "status.qosClass", "") : "";
    bool any = false, all = true;

    if (*told)
        return told;
    for (size_t l = 0; l < 2; l++)
        VAL_EACH (val_get(pod_spec(p), lists[l]), c) {
            const struct val *r = val_at(c, "resources.requests"),
                             *m = val_at(c, "resources.limits");
            for (size_t i = 0; i < 2; i++) {
                quantity req = quantity_of(val_get(r, names[i])),
                         lim = quantity_of(val_get(m, names[i]));
                any |= req > 0 || lim > 0;
                all &= lim > 0 && (req == lim || req == 0);
            }
        }
    return !any ? "BestEffort" : all ? "Guaranteed" : "Burstable";
}

/* ---- poking ------------------------------------------------------------------------------------
 */

static void pod_sync(struct pod *p);

static void sync_dirty(void *arg)
{
    struct node *n = arg;

    n->dirty_posted = false;
    while (!list_empty(&n->dirty)) {
        struct pod *p = list_entry(list_first(&n->dirty), struct pod, dirty);
        list_remove(&p->dirty);
        pod_sync(p);
    }
}

void pod_poke(struct pod *p)
{
    struct node *n = p->n;

    if (!list_linked(&p->dirty))
        list_push(&n->dirty, &p->dirty);
    if (!n->dirty_posted) {
        n->dirty_posted = true;
        env_post(n->env, sync_dirty, n);
    }
}

static void woken(void *arg)
{
    struct pod *p = arg;

    p->wake_ms = INT64_MAX;
    pod_poke(p);
}

void pod_poke_at(struct pod *p, int64_t mono)
{
    int64_t now = mono_ms(p->n);

    if (mono >= p->wake_ms && p->wake_ms > now)
        return;
    p->wake_ms = mono;
    env_timer_start(p->wake, MAX(mono - now, (int64_t)1), 0);
}

/* ---- making ------------------------------------------------------------------------------------
 */

static struct pod *pod_bare(struct node *n, const char *uid)
{
    struct pod *p = xcalloc(1, sizeof *p);

    p->n = n;
    p->uid = xstrdup(uid);
    p->ns = xstrdup("");
    p->name = xstrdup("");
    p->dir = xasprintf("%s/run/mem/%s", n->o.state, uid);
    p->disk = xasprintf("%s/pods/%s", n->o.state, uid);
    p->cgroup = xasprintf("pods/%s", uid);
    p->wake_ms = INT64_MAX;
    p->wake = env_timer_new(n->env, woken, p);
    p->seen_us = env_mono_us(n->env);
    list_push(&n->all, &p->link);
    map_put(&n->by_uid, uid, p);
    return p;
}

static void add_ctrs(struct pod *p, const char *list, enum ctr_kind kind)
{
    const struct val *l = val_get(pod_spec(p), list);
    uint32_t i = 0;

    VAL_EACH (l, s) {
        struct ctr *c = &p->ctrs[p->ctrs_n++];
        bool side = kind == CTR_INIT && streq(val_str_at(s, "restartPolicy", ""), "Always");
        *c = (struct ctr){.pod = p,
                          .kind = side ? CTR_SIDECAR : kind,
                          .index = i++,
                          .name = xstrdup(val_str_at(s, "name", ""))};
        ctr_wait(c,
                 kind == CTR_MAIN && val_len(val_get(pod_spec(p), "initContainers"))
                     ? "PodInitializing"
                     : "ContainerCreating",
                 "%s", "");
    }
}

static void read_conds(struct pod *p)
{
    static const char *const types[CONDS] = {"PodReadyToStartContainers", "Initialized", "Ready",
                                             "ContainersReady", "PodScheduled"};

    VAL_EACH (val_at(obj_val(p->o), "status.conditions"), it)
        for (int i = 0; i < CONDS; i++)
            if (streq(val_str_at(it, "type", ""), types[i])) {
                p->cond[i].known = true;
                p->cond[i].is = streq(val_str_at(it, "status", ""), "True");
                p->cond[i].since_ms = kubetime_parse(val_str_at(it, "lastTransitionTime", ""));
            }
}

/* The first look at the object: what follows from its spec and never changes. */
static void pod_known(struct pod *p)
{
    const struct val *spec = pod_spec(p);

    free(p->ns);
    free(p->name);
    p->ns = xstrdup(p->o->namespace_);
    p->name = xstrdup(p->o->name);
    p->host_net = val_bool_at(spec, "hostNetwork", false) || !p->n->net;
    p->ctrs =
        xcalloc(val_len(val_get(spec, "initContainers")) + val_len(val_get(spec, "containers")) + 1,
                sizeof *p->ctrs);
    add_ctrs(p, "initContainers", CTR_INIT);
    add_ctrs(p, "containers", CTR_MAIN);
    volumes_init(p);
    read_conds(p);
    p->start_ms = kubetime_parse(val_str_at(obj_val(p->o), "status.startTime", ""));
    if (p->start_ms < 0)
        p->start_ms = clock_real_ms();
}

struct pod *pod_new(struct node *n, const struct obj *o)
{
    struct pod *p = pod_bare(n, o->uid);

    p->o = obj_ref(o);
    pod_known(p);
    pod_poke(p);
    return p;
}

static void states_merge(struct pod *p, const struct val *list, bool alive);

void pod_seen(struct pod *p, const struct obj *o)
{
    const struct obj *was = p->o;
    bool first = p->orphan;

    p->o = obj_ref(o);
    obj_unref(was);
    if (first) {
        p->orphan = false;
        pod_known(p);
        if (p->shim) {
            p->shim_said_hello = false; /* asked again, now that we know whom it is about */
            p->stage = POD_NEW;
        } else {
            _auto_(arena_freep) struct arena *a = arena_new();
            struct err err;
            size_t n;
            _auto_(freep) char *text =
                fs_read(arena_printf(a, "%s/shim.json", p->disk), 8 << 20, &n, &err);
            const struct val *v = text ? json_parse(a, text, n, &err) : NULL;
            states_merge(p, val_get(v, "containers"), false);
        }
    }
    pod_poke(p);
}

void pod_missing(struct pod *p)
{
    p->absent = true;
    pod_poke(p);
}

static void removed_dir(uv_work_t *w, int status)
{
    (void)status;
    free(w->data);
    free(w);
}

static void remove_dir(uv_work_t *w)
{
    struct err ignored;

    (void)fs_remove_tree(w->data, &ignored);
}

/* On a worker: a container may have written a million files. */
static void remove_later(struct node *n, const char *path)
{
    uv_work_t *w = xcalloc(1, sizeof *w);
    static int nr;
    char *gone = xasprintf("%s/pods/.gone-%d-%d", n->o.state, (int)getpid(), nr++);

    if (rename(path, gone) < 0) {
        free(gone);
        free(w);
        return;
    }
    w->data = gone;
    uv_queue_work(&n->loop, w, remove_dir, removed_dir);
}

void pod_free(struct pod *p)
{
    if (p->shim)
        p->shim = slink_free(p->shim);
    for (uint32_t i = 0; i < p->ctrs_n; i++)
        ctr_free_parts(&p->ctrs[i]);
    free(p->ctrs);
    if (map_get(&p->n->by_uid, p->uid) == p)
        map_del(&p->n->by_uid, p->uid);
    list_remove(&p->link);
    list_remove(&p->dirty);
    env_timer_free(p->wake);
    obj_unref(p->o);
    free(p->uid);
    free(p->ns);
    free(p->name);
    free(p->dir);
    free(p->disk);
    free(p->cgroup);
    free(p->status_sent);
    free(p->setup_error);
    free(p->end_message);
    free(p);
}

/* ---- what the shim knows ------------------------------------------------------------------------
 */

/* Takes over what a shim (alive) or its file (not) says about the containers. */
static void states_merge(struct pod *p, const struct val *list, bool alive)
{
    VAL_EACH (list, s) {
        struct ctr *c = pod_ctr(p, val_str_at(s, "name", ""));
        const char *id = val_str_at(s, "id", ""), *dot = strrchr(id, '.');
        int attempt = dot ? atoi(dot + 1) : 0;
        bool running = streq(val_str_at(s, "state", ""), "running");

        if (!c || (c->now.there && c->now.attempt > attempt))
            continue;
        if (c->now.there) {
            ctr_run_done(&c->last);
            c->last = c->now;
            c->now = (struct ctr_run){0};
        }
        ctr_run_set(&c->now, s);
        c->attempt = attempt + 1;
        c->restarts = attempt;
        c->state = running && alive ? CTR_RUNNING : CTR_EXITED;
        if (running && !alive) { /* it ended with its shim */
            c->now.code = 137;
            c->now.signal = 9;
            c->now.finished_ms = clock_real_ms();
            snprintf(c->now.reason, sizeof c->now.reason, "Error");
        }
    }
    /* What only the API remembers. */
    for (int l = 0; l < 2; l++)
        VAL_EACH (
            val_at(obj_val(p->o), l ? "status.initContainerStatuses" : "status.containerStatuses"),
            s) {
            struct ctr *c = pod_ctr(p, val_str_at(s, "name", ""));
            if (!c)
                continue;
            c->restarts = MAX(c->restarts, (int)val_int_at(s, "restartCount", 0));
            c->attempt = MAX(c->attempt, c->restarts + (c->now.there ? 1 : 0));
            if (c->state == CTR_RUNNING) {
                c->ready = val_bool_at(s, "ready", false);
                c->started = val_bool_at(s, "started", false);
            }
        }
    for (uint32_t i = 0; i < p->ctrs_n; i++)
        if (p->ctrs[i].state == CTR_RUNNING)
            probes_start(&p->ctrs[i]);
}

static void shim_event(void *arg, const struct val *v)
{
    struct pod *p = arg;
    const char *event = val_str_at(v, "event", "");

    if (streq(event, "exit") && !p->orphan) {
        struct ctr *c = pod_ctr(p, val_str_at(v, "name", ""));
        if (c)
            ctr_exited(c, v);
    } else if (streq(event, "exec-exit")) {
        exec_ended(p, val_int_at(v, "exec", 0), (int)val_int_at(v, "code", 0));
    }
}

static void shim_closed(void *arg)
{
    struct pod *p = arg;

    p->shim = slink_free(p->shim);
    p->shim_said_hello = false;
    execs_dropped(p);
    if (p->stage == POD_STOP || p->stage == POD_CLEAN || p->orphan) {
        for (uint32_t i = 0; i < p->ctrs_n; i++)
            if (p->ctrs[i].state == CTR_RUNNING || p->ctrs[i].state == CTR_STARTING)
                p->ctrs[i].state = p->ctrs[i].now.there ? CTR_EXITED : CTR_WAITING;
        pod_poke(p);
        return;
    }
    LOG(WARN, "node",
        "pod=%s/%s did=lost_shim then=\"its containers count as killed, a new one is started\"",
        p->ns, p->name);
    for (uint32_t i = 0; i < p->ctrs_n; i++) {
        struct ctr *c = &p->ctrs[i];
        if (c->state == CTR_STARTING)
            ctr_wait(c, "ContainerCreating", "%s", "");
        if (c->state != CTR_RUNNING)
            continue;
        probes_stop(c);
        c->state = CTR_EXITED;
        c->now.code = 137;
        c->now.signal = 9;
        c->now.finished_ms = clock_real_ms();
        snprintf(c->now.reason, sizeof c->now.reason, "Error");
        c->ready = c->started = false;
        c->restart_at_ms = 0;
    }
    pod_move(p, POD_NEW);
    pod_poke(p);
}

static void hello_came(void *arg, const struct val *answer, int fd)
{
    struct pod *p = arg;

    closep(&fd);
    if (!answer)
        return; /* shim_closed() deals with it */
    p->shim_pid = (pid_t)val_int_at(answer, "pid", 0);
    p->shim_said_hello = true;
    if (p->orphan)
        return;
    if (p->n->net && !p->host_net && !p->has_net) {
        _auto_(arena_freep) struct arena *a = arena_new();
        _auto_(closep) int ns =
            open(arena_printf(a, "/proc/%d/ns/net", (int)p->shim_pid), O_RDONLY | O_CLOEXEC);
        struct err err = {0};
        const struct net_ns *net = ns < 0 ? NULL : net_adopt(p->n->net, p->uid, ns, &err);
        if (net) {
            p->has_net = true;
            snprintf(p->ip, sizeof p->ip, "%s", net->ip);
            proxy_pod_ports(p->n, p, true);
        } else {
            LOG(WARN, "node",
                "pod=%s/%s did=adopt_net err=\"%s\" then=\"it goes on with the address it had\"",
                p->ns, p->name, err.msg);
            snprintf(p->ip, sizeof p->ip, "%s", val_str_at(answer, "pod.ip", ""));
        }
    }
    states_merge(p, val_get(answer, "containers"), true);
    if (p->stage == POD_SETUP)
        pod_move(p, POD_RUN);
    pod_poke(p);
}

static void say_hello(struct pod *p)
{
    _auto_(arena_freep) struct arena *a = arena_new();

    slink_call(p->shim, a, slink_verb(a, "hello", NULL), NULL, 0, hello_came, p);
}

static void shim_take(struct pod *p, int fd)
{
    p->shim = slink_new(&p->n->loop, fd, &(struct slink_events){shim_event, shim_closed, p});
}

/* Whose directory this is, as it was written for its shim: for the log, and to find its logs. */
static void name_by_file(struct pod *p)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err;
    size_t n;
    _auto_(freep) char *text = fs_read(arena_printf(a, "%s/shim.json", p->disk), 1 << 20, &n, &err);
    const struct val *v = text ? json_parse(a, text, n, &err) : NULL;

    free(p->ns);
    free(p->name);
    p->ns = xstrdup(val_str_at(v, "pod.namespace", ""));
    p->name = xstrdup(val_str_at(v, "pod.name", ""));
}

struct pod *pod_orphan(struct node *n, const char *uid)
{
    struct pod *p = pod_bare(n, uid);
    struct err err;
    int fd;

    p->orphan = true;
    name_by_file(p);
    if (shim_connect(p->disk, &fd, &err) == 0) {
        shim_take(p, fd);
        say_hello(p);
    }
    return p;
}

int pods_found(struct node *n)
{
    char path[PATH_MAX];
    struct dirent *e;
    DIR *d;
    int found = 0;

    snprintf(path, sizeof path, "%s/pods", n->o.state);
    d = opendir(path);
    while (d && (e = readdir(d))) {
        if (str_starts(e->d_name, ".gone-")) {
            struct err ignored;
            snprintf(path, sizeof path, "%s/pods/%s", n->o.state, e->d_name);
            (void)fs_remove_tree(path, &ignored);
        }
        if (e->d_name[0] == '.')
            continue;
        pod_orphan(n, e->d_name);
        found++;
    }
    if (d)
        closedir(d);
    return found;
}

/* ---- setting up ---------------------------------------------------------------------------------
 */

static int put_text(const char *dir, const char *name, struct buf *b, struct err *err)
{
    char path[PATH_MAX];
    int bad;

    snprintf(path, sizeof path, "%s/%s", dir, name);
    /* In place: it is bound into containers, a new file would not be seen there. */
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) {
        buf_done(b);
        return err_sys(err, "write %s", path);
    }
    bad = fs_write_all(fd, b->p ? b->p : "", b->n, err);
    close(fd);
    buf_done(b);
    return bad;
}

static int write_hosts(struct pod *p, const char *host, struct err *err)
{
    const struct val *spec = pod_spec(p);
    const char *sub = val_str_at(spec, "subdomain", "");
    struct buf b = {0};

    buf_adds(&b, "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n::1\tlocalhost "
                 "ip6-localhost ip6-loopback\n"
                 "fe00::0\tip6-localnet\nfe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::"
                 "2\tip6-allrouters\n");
    const char *ip = p->host_net ? p->n->host_ip : p->ip;
    if (*sub)
        buf_printf(&b, "%s\t%s.%s.%s.svc.cluster.local\t%s\n", ip, host, sub, p->ns, host);
    else
        buf_printf(&b, "%s\t%s\n", ip, host);
    const struct val *aliases = val_get(spec, "hostAliases");
    if (val_len(aliases))
        buf_adds(&b, "\n# Entries added by HostAliases.\n");
    VAL_EACH (aliases, h) {
        buf_printf(&b, "%s", val_str_at(h, "ip", ""));
        VAL_EACH (val_get(h, "hostnames"), name)
            buf_printf(&b, "\t%s", val_text(name, ""));
        buf_addc(&b, '\n');
    }
    return put_text(p->dir, "etc-hosts", &b, err);
}

static int write_resolv(struct pod *p, struct err *err)
{
    const struct val *spec = pod_spec(p), *conf = val_get(spec, "dnsConfig");
    const char *policy = val_str_at(spec, "dnsPolicy", "ClusterFirst");
    bool cluster = (streq(policy, "ClusterFirst") && !val_bool_at(spec, "hostNetwork", false)) ||
                   streq(policy, "ClusterFirstWithHostNet");
    struct buf b = {0}, search = {0}, options = {0};
    char *host = NULL, *save = NULL;
    struct err ignored;

    cluster = cluster && p->n->o.cluster_dns;
    if (!streq(policy, "None"))
        host = fs_read("/etc/resolv.conf", 65536, NULL, &ignored);
    if (cluster) {
        buf_printf(&b, "nameserver %s\n", p->n->o.cluster_dns);
        buf_printf(&search, " %s.svc.cluster.local svc.cluster.local cluster.local", p->ns);
    }
    for (char *line = host ? strtok_r(host, "\n", &save) : NULL; line;
         line = strtok_r(NULL, "\n", &save)) {
        if (str_starts(line, "search ") || str_starts(line, "domain "))
            buf_printf(&search, " %s", line + 7);
        else if (!cluster && str_starts(line, "nameserver "))
            buf_printf(&b, "%s\n", line);
        else if (!cluster && str_starts(line, "options "))
            buf_printf(&options, " %s", line + 8);
    }
    free(host);
    VAL_EACH (val_get(conf, "nameservers"), it)
        buf_printf(&b, "nameserver %s\n", val_text(it, ""));
    VAL_EACH (val_get(conf, "searches"), it)
        buf_printf(&search, " %s", val_text(it, ""));
    bool ndots = false;
    VAL_EACH (val_get(conf, "options"), it) {
        const char *name = val_str_at(it, "name", ""), *value = val_str_at(it, "value", NULL);
        ndots |= streq(name, "ndots");
        buf_printf(&options, value ? " %s:%s" : " %s", name, value);
    }
    if (cluster && !ndots)
        buf_adds(&options, " ndots:5");
    if (search.n)
        buf_printf(&b, "search%s\n", search.p);
    if (options.n)
        buf_printf(&b, "options%s\n", options.p);
    buf_done(&search);
    buf_done(&options);
    return put_text(p->dir, "resolv.conf", &b, err);
}

static int take_net(struct pod *p, char *ret_path, size_t cap, struct err *err)
{
    const struct net_ns *ns;

    *ret_path = 0;
    if (p->host_net) {
        snprintf(p->ip, sizeof p->ip, "%.15s", p->n->host_ip);
        return 0;
    }
    ns = net_find(p->n->net, p->uid);
    if (ns && ns->fd < 0) {
        net_give_back(p->n->net, p->uid,
                      false); /* of an earlier life, and nobody holds it any more */
        ns = NULL;
    }
    if (!ns && !(ns = net_take(p->n->net, p->uid, err)))
        return -1;
    p->has_net = true;
    snprintf(p->ip, sizeof p->ip, "%s", ns->ip);
    snprintf(ret_path, cap, "/proc/%d/fd/%d", (int)getpid(), ns->fd);
    proxy_pod_ports(p->n, p, true);
    return 0;
}

static struct val *shim_pod(struct pod *p, struct arena *a, const char *net, const char *host)
{
    const struct val *spec = pod_spec(p);
    struct val *v = val_map(a), *limits;
    int64_t milli = 0;

    val_put_str(a, v, "instance", p->n->o.instance);
    val_put_str(a, v, "uid", p->uid);
    val_put_str(a, v, "namespace", p->ns);
    val_put_str(a, v, "name", p->name);
    val_put_str(a, v, "ip", p->ip);
    if (*net)
        val_put_str(a, v, "net_ns", net);
    val_put_bool(a, v, "host_uts", val_bool_at(spec, "hostNetwork", false));
    val_put_str(a, v, "hostname", host);
    val_put_bool(a, v, "host_ipc", val_bool_at(spec, "hostIPC", false));
    val_put_bool(a, v, "host_pid", val_bool_at(spec, "hostPID", false));
    val_put_bool(a, v, "share_pid", val_bool_at(spec, "shareProcessNamespace", false));
    val_put_str(a, v, "cgroup", p->cgroup);
    VAL_EACH (val_get(spec, "containers"), c)
        milli += quantity_milli(quantity_of(val_at(c, "resources.requests.cpu")));
    limits = val_need_map(a, v, "limits");
    val_put_int(a, limits, "cpu_shares", MAX(milli * 1024 / 1000, (int64_t)2));
    val_put_int(a, limits, "pids", PIDS_MAX);
    VAL_EACH (val_at(spec, "securityContext.sysctls"), s)
        val_push_str(
            a, val_need_list(a, v, "sysctls"),
            arena_printf(a, "%s=%s", val_str_at(s, "name", ""), val_str_at(s, "value", "")));
    return v;
}

static int setup(struct pod *p, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const char *host = val_bool_at(pod_spec(p), "hostNetwork", false)
                           ? p->n->o.name
                           : val_str_at(pod_spec(p), "hostname", p->name);
    char net[64], name[64];
    struct buf b = {0};
    int fd;

    snprintf(name, sizeof name, "%.63s", host);
    if (fs_mkdirs(p->disk, 0755, err) < 0 || fs_mkdirs(p->dir, 0755, err) < 0 ||
        take_net(p, net, sizeof net, err) < 0)
        return -1;
    buf_printf(&b, "%s\n", name);
    if (put_text(p->dir, "etc-hostname", &b, err) < 0 || write_hosts(p, name, err) < 0 ||
        write_resolv(p, err) < 0)
        return -1;
    if (shim_spawn(p->n->shim, p->disk, arena_printf(a, "%s/logs/shim.log", p->n->o.state),
                   shim_pod(p, a, net, name), &fd, &p->shim_pid, err) < 0)
        return -1;
    shim_take(p, fd);
    return 0;
}

/* No shim knows anything of a container that the API says has run: the machine was started anew. It
 * counts as killed then, one that had ended keeps how. */
static void states_from_api(struct pod *p)
{
    for (int l = 0; l < 2; l++)
        VAL_EACH (
            val_at(obj_val(p->o), l ? "status.initContainerStatuses" : "status.containerStatuses"),
            s) {
            struct ctr *c = pod_ctr(p, val_str_at(s, "name", ""));
            const struct val *t = val_at(s, "state.terminated");
            if (!c || c->now.there || str_empty(val_str_at(s, "containerID", "")))
                continue;
            c->restarts = (int)val_int_at(s, "restartCount", 0);
            c->attempt = c->restarts + 1;
            c->now = (struct ctr_run){
                .there = true, .attempt = c->restarts, .code = 137, .finished_ms = clock_real_ms()};
            snprintf(c->now.reason, sizeof c->now.reason, "ContainerStatusUnknown");
            c->now.started_ms = kubetime_parse(
                val_str_at(s, "state.running.startedAt", val_str_at(t, "startedAt", "")));
            if (t) {
                c->now.code = (int)val_int_at(t, "exitCode", 0);
                c->now.finished_ms = kubetime_parse(val_str_at(t, "finishedAt", ""));
                snprintf(c->now.reason, sizeof c->now.reason, "%.31s", val_str_at(t, "reason", ""));
            }
            c->state = CTR_EXITED;
        }
}

static void sync_new(struct pod *p)
{
    struct err err = {0};

    if (p->shim) { /* found again */
        pod_move(p, POD_SETUP);
        say_hello(p);
        return;
    }
    if (setup(p, &err) < 0) {
        if (!streq0(p->setup_error, err.msg)) {
            pod_event(p, "Warning", "FailedCreatePodSandBox", "Failed to create pod sandbox: %s",
                      err.msg);
            LOG(WARN, "node", "pod=%s/%s did=setup err=\"%s\" then=\"tried again in a second\"",
                p->ns, p->name, err.msg);
            free(p->setup_error);
            p->setup_error = xstrdup(err.msg);
        }
        pod_poke_at(p, mono_ms(p->n) + SETUP_RETRY_MS);
        return;
    }
    pod_move(p, POD_SETUP);
    say_hello(p);
}

/* ---- running ------------------------------------------------------------------------------------
 */

static void sync_volumes(struct pod *p)
{
    struct err err = {0};

    if (volumes_sync(p, &err) >= 0) {
        free(STEAL(p->setup_error));
        return;
    }
    pod_poke_at(p, mono_ms(p->n) + SETUP_RETRY_MS);
    /* What it needs may be a moment behind it on another watch: only the second failure is told. */
    if (env_mono_us(p->n->env) - p->seen_us < 500000 || streq0(p->setup_error, err.msg))
        return;
    pod_event(p, "Warning", "FailedMount", "%s", err.msg);
    free(p->setup_error);
    p->setup_error = xstrdup(err.msg);
}

/* True: the init containers are done (or, sidecars, up): the others may start. */
static bool sync_init(struct pod *p)
{
    for (uint32_t i = 0; i < p->ctrs_n; i++) {
        struct ctr *c = &p->ctrs[i];
        if (c->kind == CTR_SIDECAR) {
            ctr_sync(c);
            if (c->state != CTR_RUNNING || !c->started)
                return false;
        } else if (c->kind == CTR_INIT) {
            if (c->state == CTR_EXITED && c->now.code == 0)
                continue;
            ctr_sync(c);
            return false;
        }
    }
    return true;
}

static void end_pod(struct pod *p, const char *reason, const char *message)
{
    if (p->end_reason)
        return;
    p->end_reason = reason;
    p->end_message = xstrdup(message);
}

/* Why it is to end, or not (false). */
static bool must_stop(struct pod *p)
{
    int64_t deadline = val_int_at(pod_spec(p), "activeDeadlineSeconds", 0);
    bool all = true, any = false;
    const char *phase = val_str_at(obj_val(p->o), "status.phase", "");

    if (p->absent || obj_deleting(p->o) || p->end_reason || streq(phase, "Failed") ||
        streq(phase, "Succeeded"))
        return true;
    if (deadline) {
        int64_t left = p->start_ms + deadline * 1000 - clock_real_ms();
        if (left <= 0) {
            end_pod(p, "DeadlineExceeded",
                    "Pod was active on the node longer than the specified deadline");
            pod_event(p, "Normal", "DeadlineExceeded",
                      "Pod was active on the node longer than the specified deadline");
            return true;
        }
        pod_poke_at(p, mono_ms(p->n) + left);
    }
    for (uint32_t i = 0; i < p->ctrs_n; i++) {
        struct ctr *c = &p->ctrs[i];
        if (c->kind == CTR_INIT && ctr_over(c) && c->now.code != 0)
            return true;
        if (c->kind == CTR_MAIN) {
            any = true;
            all &= ctr_over(c);
        }
    }
    return any && all;
}

static void sync_run(struct pod *p)
{
    sync_volumes(p);
    for (uint32_t i = 0; i < p->ctrs_n; i++) {
        struct ctr *c = &p->ctrs[i];
        if (c->want_kill && c->state == CTR_RUNNING)
            ctr_stop(c, val_int_at(pod_spec(p), "terminationGracePeriodSeconds", 30) * 1000, NULL);
        if (c->stopping && c->state == CTR_RUNNING)
            ctr_stop(c, INT32_MAX, NULL); /* only its deadline */
    }
    if (!sync_init(p))
        return;
    for (uint32_t i = 0; i < p->ctrs_n; i++)
        if (p->ctrs[i].kind == CTR_MAIN)
            ctr_sync(&p->ctrs[i]);
}

/* ---- ending -------------------------------------------------------------------------------------
 */

static int64_t grace_left(struct pod *p)
{
    int64_t grace = val_int_at(pod_spec(p), "terminationGracePeriodSeconds", 30) * 1000,
            now = mono_ms(p->n), at;

    if (p->absent && !obj_deleting(p->o))
        grace = ABSENT_GRACE_MS;
    else if (obj_deleting(p->o))
        grace = val_int_at(obj_meta(p->o), "deletionGracePeriodSeconds", grace / 1000) * 1000;
    at = now + grace;
    /* A second, shorter deletion shortens what is left; nothing makes it longer. */
    p->stop_deadline_ms = p->stop_deadline_ms ? MIN(p->stop_deadline_ms, at) : at;
    return MAX(p->stop_deadline_ms - now, (int64_t)0);
}

static void sync_stop(struct pod *p)
{
    bool busy = false, mains = false;
    int64_t left = p->orphan ? 0 : grace_left(p);

    for (uint32_t i = 0; i < p->ctrs_n; i++) {
        struct ctr *c = &p->ctrs[i];
        if (c->job) {
            image_job_cancel(c->job);
            c->job = NULL;
            ctr_wait(c, "ContainerCreating", "%s", "");
        }
        busy |= c->state == CTR_STARTING || c->state == CTR_RUNNING;
        mains |= c->state == CTR_RUNNING && c->kind != CTR_SIDECAR;
    }
    for (uint32_t i = 0; i < p->ctrs_n; i++) {
        struct ctr *c = &p->ctrs[i];
        char why[NAME_BYTES + 32];
        snprintf(why, sizeof why, "Stopping container %s", c->name);
        if (c->state == CTR_RUNNING && (c->kind != CTR_SIDECAR || !mains || left == 0))
            ctr_stop(c, left, why);
    }
    if (!busy)
        pod_move(p, POD_CLEAN);
}

static void shim_stopped(void *arg, const struct val *answer, int fd)
{
    struct pod *p = arg;

    (void)answer;
    closep(&fd);
    slink_free(STEAL(p->shim));
    pod_poke(p);
}

static bool
touches_net(struct pod *p) /* may have changed its network namespace: not for anybody else */
{
    if (p->orphan || val_len(val_at(pod_spec(p), "securityContext.sysctls")))
        return true;
    for (uint32_t i = 0; i < p->ctrs_n; i++) {
        const struct val *sc = val_get(ctr_spec(&p->ctrs[i]), "securityContext");
        if (val_bool_at(sc, "privileged", false) || val_len(val_at(sc, "capabilities.add")))
            return true;
    }
    return false;
}

/* The shim is gone: everything else that this pod had on the machine. */
static void clean(struct pod *p)
{
    struct err ignored = {0};

    (void)cgroup_kill(&p->n->cgroups, p->cgroup, &ignored);
    (void)cgroup_remove(&p->n->cgroups, p->cgroup, &ignored);
    volumes_done(p);
    if (p->has_net || (p->orphan && p->n->net)) {
        proxy_pod_ports(p->n, p, false);
        net_give_back(p->n->net, p->uid, !touches_net(p));
    }
    p->has_net = false;
    (void)image_release(p->n->images, p->uid, &ignored);
    remove_later(p->n, p->disk);
}

static void sync_clean(struct pod *p)
{
    if (p->shim) {
        _auto_(arena_freep) struct arena *a = arena_new();
        if (!p->shim_lost)
            slink_call(p->shim, a, slink_verb(a, "stop", NULL), NULL, 0, shim_stopped, p);
        p->shim_lost = true; /* asked once; the answer or the closed connection goes on */
        return;
    }
    clean(p);
    pod_move(p, p->orphan || p->absent ? POD_GONE : POD_KEPT);
}

struct pod_arg { /* outlives the pod: looked up again */
    struct node *n;
    char *uid;
};

static void deleted(void *arg, const struct client_result *r)
{
    struct pod_arg *d = arg;
    struct node *n = d->n;
    struct pod *p = map_get(&n->by_uid, d->uid);

    free(d->uid);
    free(d);
    if (!p)
        return;
    p->delete_busy = false;
    if (!r->err || r->err->code == ERR_NOT_FOUND || r->err->code == ERR_CONFLICT)
        p->deleted = true; /* conflict: another uid has the name by now */
    else if (r->err->code != ERR_CANCELLED)
        pod_poke_at(p, mono_ms(n) + 1000);
}

static void delete_object(struct pod *p)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *body = val_map(a);
    struct pod_arg *arg = xcalloc(1, sizeof *arg);

    *arg = (struct pod_arg){p->n, xstrdup(p->uid)};
    p->delete_busy = true;
    val_put_str(a, body, "kind", "DeleteOptions");
    val_put_str(a, body, "apiVersion", "v1");
    val_put_int(a, body, "gracePeriodSeconds", 0);
    val_put_str(a, val_need_map(a, body, "preconditions"), "uid", p->uid);
    client_call(p->n->client,
                &(struct client_call){.verb = CLIENT_DELETE,
                                      .resource = "v1/pods",
                                      .ns = p->ns,
                                      .name = p->name,
                                      .body = body},
                deleted, arg);
}

static void sync_kept(struct pod *p)
{
    if (p->absent) {
        pod_move(p, POD_GONE);
        return;
    }
    /* The last word about the containers goes out before the object does. */
    if (obj_deleting(p->o) && !p->status_busy && !p->delete_busy && !p->deleted)
        delete_object(p);
}

static void remove_logs(struct pod *p)
{
    _auto_(arena_freep) struct arena *a = arena_new();

    if (*p->name)
        remove_later(
            p->n, arena_printf(a, "%s/logs/pods/%s_%s_%s", p->n->o.state, p->ns, p->name, p->uid));
}

static void pod_sync(struct pod *p)
{
    enum pod_stage was;

    if (p->orphan && !p->n->synced)
        return; /* the API may still name it */
    do {
        was = p->stage;
        switch (p->stage) {
        case POD_NEW:
            if (!p->orphan && !p->shim)
                states_from_api(p);
            if (p->orphan || (!p->shim && must_stop(p)))
                pod_move(p, POD_CLEAN);
            else
                sync_new(p);
            break;
        case POD_SETUP: /* until the shim has said what runs, nothing is stopped either */
            if (p->orphan)
                pod_move(p, POD_CLEAN);
            else
                sync_run(p);
            break;
        case POD_RUN:
            if (must_stop(p))
                pod_move(p, POD_STOP);
            else
                sync_run(p);
            break;
        case POD_STOP:
            sync_stop(p);
            break;
        case POD_CLEAN:
            sync_clean(p);
            break;
        case POD_KEPT:
            pod_status_write(p);
            sync_kept(p);
            break;
        case POD_GONE:
            remove_logs(p);
            pod_free(p);
            return;
        }
    } while (p->stage != was);
    if (!p->orphan && !p->absent)
        pod_status_write(p);
}
