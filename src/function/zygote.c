/* The gateway's side of a zygote: start, messages, end. runtime/zygote.h has the protocol. */
#include "function/function_int.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

static void on_ctl_closed(uv_handle_t *h)
{
    struct version *v = h->data;

    v->ctl_closing = false;
    close(v->ctl_fd);
    v->ctl_fd = -1;
    v->zygote = ZYGOTE_NONE;
    if (!v->removed && v->f->waiting_n)
        pool_feed(v->f); /* somebody came while it was leaving */
    version_let_go(v);
}

void zygotes_reap(struct functions *fs)
{
    for (uint32_t i = 0; i < fs->corpses_n;)
        if (waitpid(fs->corpses[i], NULL, WNOHANG) != 0)
            fs->corpses[i] = fs->corpses[--fs->corpses_n];
        else
            i++;
}

static void kill_zygote(struct version *v);

/* The process is told to go (its socket closes) and made to. */
static void zygote_end(struct version *v)
{
    if (v->zygote != ZYGOTE_STARTING && v->zygote != ZYGOTE_READY)
        return;
    v->zygote = ZYGOTE_GONE;
    v->compiling = false;
    v->ctl_closing = true;
    uv_poll_stop(&v->ctl);
    uv_close((uv_handle_t *)&v->ctl, on_ctl_closed);
    kill_zygote(v);
    /* instances die with it (their parent-death signal) */
    LIST_EACH(&v->instances, l)
    instance_exited(list_entry(l, struct instance, link), SIGKILL, 0);
    v->starting_n = 0;
    berths_trim(v, true);
    snapshot_rest(v);
}

void zygote_stop(struct version *v)
{
    zygote_end(v);
}

static void zygote_broke(struct version *v, const char *why)
{
    bool early = v->zygote == ZYGOTE_STARTING, from_node = v->from_node;
    struct err err;

    LOG(WARN, "function", "function=%s did=zygote-end pid=%d early=%d why=\"%s\"", v->f->key, v->zygote_pid, early, why);
    zygote_end(v);
    if (early && v->wasm)
        version_wasm_settled(v);
    if (early && v->broken.code != ERR_OK) {
        pool_fail_waiting(v->f, &v->broken);
        return;
    }
    if (early && from_node && !v->removed) { /* what it is, and no other, may be no fork of a base: it comes again on its own */
        v->no_node_base = true;
        return;
    }
    if (early && v->program && str_starts(v->runtime, "nodejs") && v->f->fs->node_failures < NODE_FAILURES_MAX) {
        v->f->fs->node_failed_us = now_us();
        v->f->fs->node_failures++; /* it comes again, in the end the plain way, when its socket is closed */
        return;
    }
    if (early && !v->removed) {
        err_set(&err, UNAVAILABLE, "the function's runtime could not be started: %s", why);
        pool_fail_waiting(v->f, &err);
    }
}

static void on_compiled(struct version *v, const struct zygote_tell *t)
{
    _auto_(freep) char *mark = xasprintf("%s.compiled", v->folder);

    v->compiling = false;
    if (WIFEXITED(t->status) && WEXITSTATUS(t->status) == 0) {
        int fd = open(mark, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);

        if (fd >= 0)
            close(fd);
    }
}

static void on_tell(struct version *v, const struct zygote_tell *t)
{
    struct functions *fs = v->f->fs;
    struct instance *i = instance_by_slot(fs, t->slot);

    switch (t->what) {
    case TELL_READY:
        v->zygote = ZYGOTE_READY;
        v->forks = t->status == 1;
        if (v->forks && v->program)
            v->f->fs->node_failures = 0;
        v->zygote_started_us = now_us();
        v->used_us = now_us();
        LOG(INFO, "function", "function=%s did=zygote pid=%d us=%lld", v->f->key, v->zygote_pid,
            (long long)(now_us() - v->zygote_since_us));
        if (v->wasm)
            version_wasm_settled(v);
        snapshot_make(v);
        pool_feed(v->f);
        pool_refill_soon(fs);
        break;
    case TELL_FORKED:
        if (i && i->v == v && !i->forked) {
            i->forked = true;
            i->pid = t->pid;
            v->starting_n -= v->starting_n > 0;
        }
        pool_feed(v->f);
        break;
    case TELL_EXIT:
        if (!i || i->v != v)
            break;
        if (i->compiler)
            on_compiled(v, t);
        instance_exited(i, t->status, t->cpu_us);
        pool_feed(v->f);
        break;
    case TELL_FAILED:
        if (v->zygote == ZYGOTE_STARTING) {
            zygote_broke(v, t->text);
            break;
        }
        LOG(WARN, "function", "function=%s did=fork error=\"%.60s: %s\"", v->f->key, t->text, strerror(t->status));
        if (i && i->v == v && !i->forked) {
            v->starting_n -= v->starting_n > 0;
            instance_exited(i, 125 << 8, 0);
        }
        pool_feed(v->f);
        break;
    default:
        break;
    }
}

static void on_ctl(uv_poll_t *h, int status, int events)
{
    struct version *v = h->data;

    for (int n = 0; n < 64; n++) {
        struct zygote_tell t;
        ssize_t got = recv(v->ctl_fd, &t, sizeof t, MSG_DONTWAIT);

        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got != (ssize_t)sizeof t) {
            zygote_broke(v, "it ended");
            return;
        }
        t.text[sizeof t.text - 1] = 0;
        on_tell(v, &t);
        if (v->zygote != ZYGOTE_STARTING && v->zygote != ZYGOTE_READY)
            return; /* on_tell may end it; the version itself lives until the handle is closed */
    }
}

/* ---- the base ---- */

static void base_end(struct base *b);
static int send_ask(int fd, const struct zygote_ask *ask, const int *fds, int fds_n);

/* A base that did not come up is not tried again so soon; nor are forks of Node after too many that failed. */
static const int64_t NODE_REST_US = 60000000, NODE_FAILED_US = 600000000;
static const int64_t NODE_BASE_UP_US = 15000000; /* to come up */

static struct version *version_by_number(struct functions *fs, uint32_t number)
{
    LIST_EACH(&fs->all, l)
    LIST_EACH(&list_entry(l, struct function, link)->versions, k)
    if ((uint32_t)list_entry(k, struct version, link)->number == number)
        return list_entry(k, struct version, link);
    return NULL;
}

static void on_base_tell(struct base *b, const struct zygote_tell *t)
{
    struct version *v = version_by_number(b->fs, t->slot);
    struct functions *fs = b->fs;
    char group[208];
    struct err e;

    if (b->node && t->what == TELL_READY)
        b->up = true;
    if (!v || v->base != b || (v->zygote != ZYGOTE_STARTING && v->zygote != ZYGOTE_READY))
        return;
    if (t->what == TELL_FAILED) {
        zygote_broke(v, strerror(t->status));
    } else if (t->what == TELL_FORKED) {
        b->up = true;
        v->zygote_pid = t->pid;
        snprintf(group, sizeof group, "%s/zygote", v->cgroup);
        if (fs->has_cgroups && (cgroup_make(&fs->cgroups, group, &(struct cgroup_limits){0}, &e) < 0 ||
                                cgroup_attach(&fs->cgroups, group, v->zygote_pid, &e) < 0))
            LOG(WARN, "function", "function=%s did=zygote-cgroup error=\"%s\"", v->f->key, e.msg);
    }
}

static void on_base(uv_poll_t *h, int status, int events)
{
    struct base *b = h->data;

    while (!b->gone) {
        struct zygote_tell t;
        ssize_t got = recv(b->fd, &t, sizeof t, MSG_DONTWAIT);

        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            return;
        if (got != (ssize_t)sizeof t) {
            LOG(WARN, "function", "did=base-end pid=%d", b->pid);
            base_end(b);
            return;
        }
        on_base_tell(b, &t);
    }
}

static void on_base_closed(uv_handle_t *h)
{
    struct base *b = h->data;
    struct functions *fs = b->fs;

    close(b->fd);
    free(b->interpreter);
    free(b);
    fs->handles--;
    functions_let_go(fs);
}

static void base_end(struct base *b)
{
    struct functions *fs = b->fs;

    b->gone = true;
    list_remove(&b->link);
    uv_close((uv_handle_t *)&b->poll, on_base_closed);
    if (b->node) { /* its socket closes, and that is its end */
        fs->node_bases_n--;
        if (b->maker) /* should it not be listening */
            (void)!send_ask(b->maker->fd, &(struct zygote_ask){.what = ASK_KILL, .slot = b->slot}, NULL, 0);
        if (!b->up && !fs->stopping)
            fs->node_rest_us = now_us() + NODE_REST_US;
    } else {
        LIST_EACH(&fs->bases, l)
        if (list_entry(l, struct base, link)->maker == b)
            list_entry(l, struct base, link)->maker = NULL;
        kill(b->pid, SIGKILL);
        if (fs->corpses_n == fs->corpses_cap) {
            fs->corpses_cap = fs->corpses_cap ? 2 * fs->corpses_cap : 8;
            fs->corpses = xrealloc(fs->corpses, fs->corpses_cap * sizeof *fs->corpses);
        }
        fs->corpses[fs->corpses_n++] = b->pid;
    }
    pool_wake(fs);
    LIST_EACH(&fs->all, l)
    LIST_EACH(&list_entry(l, struct function, link)->versions, k)
    {
        struct version *v = list_entry(k, struct version, link);

        if (v->base == b)
            v->base = NULL; /* their own sockets tell their end */
    }
}

void bases_stop(struct functions *fs)
{
    LIST_EACH(&fs->bases, l)
    base_end(list_entry(l, struct base, link));
}

static void kill_zygote(struct version *v)
{
    struct zygote_ask ask = {.what = ASK_KILL, .slot = (uint32_t)v->number};

    if (v->base)
        (void)!send_ask(v->base->fd, &ask, NULL, 0); /* its own socket is closed too */
    if (v->base && v->base->maker) /* who makes its root, and may still be at it */
        (void)!send_ask(v->base->maker->fd, &ask, NULL, 0);
    v->base = NULL;
    v->zygote_pid = 0;
}

/* posix_spawn: the gateway is big and threaded, its memory is not to be copied for this. */
static int spawn(struct base *b, int child_end, struct err *err)
{
    struct functions *fs = b->fs;
    char *argv[] = {b->interpreter, "-I", "-S", "-B", fs->driver, fs->library, NULL};
    char *envp[] = {"LANG=C.UTF-8", "PATH=/usr/bin:/bin",
                    "LD_LIBRARY_PATH=/lib64:/usr/lib64:/var/runtime:/var/runtime/lib:/var/task:/var/task/lib:/opt/lib",
                    NULL};
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t at;
    sigset_t none, all;
    int e;

    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_adddup2(&fa, 2, 1);
    posix_spawn_file_actions_adddup2(&fa, child_end, 3);
    posix_spawnattr_init(&at);
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&at, &none);
    posix_spawnattr_setsigdefault(&at, &all);
    posix_spawnattr_setpgroup(&at, 0);
    posix_spawnattr_setflags(&at, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    e = posix_spawn(&b->pid, b->interpreter, &fa, &at, argv, envp);
    posix_spawn_file_actions_destroy(&fa);
    posix_spawnattr_destroy(&at);
    if (e) {
        errno = e;
        return err_sys(err, "start %s", b->interpreter);
    }
    return 0;
}

static struct base *base_find(struct functions *fs, const char *interpreter)
{
    LIST_EACH(&fs->bases, l)
    if (streq(list_entry(l, struct base, link)->interpreter, interpreter))
        return list_entry(l, struct base, link);
    return NULL;
}

static void base_add(struct base *b)
{
    struct functions *fs = b->fs;

    uv_poll_init(fs->loop, &b->poll, b->fd);
    b->poll.data = b;
    uv_poll_start(&b->poll, UV_READABLE, on_base);
    fs->handles++;
    list_push(&fs->bases, &b->link);
    LOG(INFO, "function", "did=base interpreter=\"%s\" pid=%d", b->interpreter, b->pid);
}

static struct base *base_of(struct functions *fs, const char *interpreter, struct err *err)
{
    struct base *b = base_find(fs, interpreter);
    int pair[2];

    if (b)
        return b;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        err_sys(err, "start %s", interpreter);
        return NULL;
    }
    b = xcalloc(1, sizeof *b);
    b->fs = fs;
    b->interpreter = xstrdup(interpreter);
    b->fd = pair[0];
    if (spawn(b, pair[1], err) < 0) {
        close(pair[0]);
        close(pair[1]);
        free(b->interpreter);
        free(b);
        return NULL;
    }
    close(pair[1]);
    base_add(b);
    return b;
}

/* ---- a base of Node's ----
 *
 * A Node that has nothing of a function's, one for each program and memory size (its heap's limit is set when it starts). It
 * is a zygote of the Python base, in a root of its own without code, and forks zygotes of functions: each goes into the root
 * that a child of the Python base has made for it meanwhile. */

enum { NODE_BASES_MAX = 4 }; /* 45 MB each; the zygotes of functions of other sizes start on their own */
static const int64_t NODE_BASE_KEEP_US = 600000000;

static bool may_be_fork_of_node(const struct version *v)
{
    /* these have a say in how a Node starts (driver.py's may_fork() has the same) */
    static const char *const mine[] = {"NODE_OPTIONS", "NODE_EXTRA_CA_CERTS", "NODE_V8_COVERAGE", "AWS_LAMBDA_EXEC_WRAPPER", "SSL_CERT_FILE", "OPENSSL_CONF"};

    if (!v->program || v->image || v->http_port || v->places > 1 || !str_starts(v->runtime, "nodejs") || v->no_node_base || now_us() < v->f->fs->node_rest_us ||
        v->f->fs->node_failures)
        return false;
    for (char **e = v->env; e && *e; e += 2)
        for (size_t i = 0; i < ARRAY_LEN(mine); i++)
            if (streq(e[0], mine[i]) && e[1][0])
                return false;
    return true;
}

/* NULL: there is none, and there cannot be one now. */
static struct base *node_base_of(const struct version *v, struct base *python, struct arena *a)
{
    struct functions *fs = v->f->fs;
    const char *name = arena_printf(a, "%s %d MB", v->program, v->memory_mb), *config;
    struct zygote_ask ask = {.what = ASK_ZYGOTE, .slot = ZYGOTE_ALL - 1 - fs->node_base_next++ % 65536};
    _auto_(freep) char *nothing = xasprintf("%s/run/function/nothing", fs->state);
    struct base *b = base_find(fs, name);
    int pair[2];

    if (b || fs->node_bases_n >= NODE_BASES_MAX || (mkdir(nothing, 0755) < 0 && errno != EEXIST))
        return b;
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return NULL;
    config = node_base_config(v, nothing, a);
    if (send(pair[0], config, strlen(config), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 || send_ask(python->fd, &ask, &pair[1], 1) < 0) {
        close(pair[0]);
        close(pair[1]);
        return NULL;
    }
    close(pair[1]);
    b = xcalloc(1, sizeof *b);
    b->fs = fs;
    b->interpreter = xstrdup(name);
    b->fd = pair[0];
    b->node = true;
    b->maker = python;
    b->slot = ask.slot;
    b->since_us = b->used_us = now_us();
    base_add(b);
    fs->node_bases_n++;
    return b;
}

void node_bases_tick(struct functions *fs, int64_t now)
{
    if (fs->node_failures && now - fs->node_failed_us > NODE_FAILED_US)
        fs->node_failures = 0;
    if (!fs->node_bases_n)
        return;
    LIST_EACH(&fs->all, l)
    LIST_EACH(&list_entry(l, struct function, link)->versions, k)
    if (list_entry(k, struct version, link)->from_node && list_entry(k, struct version, link)->base)
        list_entry(k, struct version, link)->base->used_us = now;
    LIST_EACH(&fs->bases, l)
    {
        struct base *b = list_entry(l, struct base, link);

        if (b->node && (now - b->used_us > NODE_BASE_KEEP_US || (!b->up && now - b->since_us > NODE_BASE_UP_US)))
            base_end(b); /* the sockets of zygotes that were asked of it close with it */
    }
}

bool zygote_base_needed(const struct base *b)
{
    LIST_EACH(&b->fs->all, l)
    LIST_EACH(&list_entry(l, struct function, link)->versions, k)
    if (list_entry(k, struct version, link)->base == b)
        return true;
    return false;
}

void zygote_base_end(struct base *b)
{
    base_end(b);
}

/* ---- a zygote ---- */

/* The root is made by a child of the Python base and sent to the one that is forked by Node's. */
static int ask_node(struct base *node, struct base *python, const struct zygote_ask *ask, int ctl, const char *config)
{
    int pair[2], ret = -1;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -1;
    if (send(pair[0], config, strlen(config), MSG_NOSIGNAL | MSG_DONTWAIT) >= 0 && send_ask(python->fd, ask, &pair[1], 1) == 0)
        ret = send_ask(node->fd, ask, (int[]){ctl, pair[0]}, 2);
    close(pair[0]);
    close(pair[1]);
    return ret;
}

static int start(struct version *v, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct zygote_ask ask = {.what = ASK_ZYGOTE, .slot = (uint32_t)v->number};
    struct functions *fs = v->f->fs;
    struct base *b, *node = NULL;
    const char *config;
    int pair[2];

    b = base_of(fs, v->interpreter, err);
    if (!b)
        return -1;
    if (may_be_fork_of_node(v))
        node = node_base_of(v, b, a);
    v->from_node = node != NULL;
    config = version_config(v, a);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(err, "start a zygote");
    /* all of it waits in the sockets until the base, and then the zygote, come to it */
    if (send(pair[0], config, strlen(config), MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ||
        (node ? ask_node(node, b, &ask, pair[1], config) : send_ask(b->fd, &ask, &pair[1], 1)) < 0) {
        err_sys(err, "start a zygote");
        close(pair[0]);
        close(pair[1]);
        return -1;
    }
    close(pair[1]);
    b = node ? node : b;
    b->used_us = now_us();
    v->base = b;
    v->zygote_rung = b->up ? FUNCTION_RUNTIME : FUNCTION_FRESH;
    v->ctl_fd = pair[0];
    v->zygote = ZYGOTE_STARTING;
    v->zygote_since_us = now_us();
    v->starting_n = 0;
    uv_poll_init(fs->loop, &v->ctl, v->ctl_fd);
    v->ctl.data = v;
    uv_poll_start(&v->ctl, UV_READABLE, on_ctl);
    return 0;
}

void zygote_start(struct version *v)
{
    struct err err = {0};

    if (v->zygote != ZYGOTE_NONE || v->removed || v->f->fs->stopping)
        return; /* GONE: on_ctl_closed comes back here when somebody waits */
    pool_wake(v->f->fs);
    if (v->image && !v->img) {
        int there = version_image(v, &err);

        if (there < 0)
            goto failed;
        if (!there)
            return; /* it comes back here */
    }
    if (!v->image) {
        int there = version_code(v, &err);

        if (there < 0)
            goto failed;
        if (!there)
            return; /* it comes back here */
    }
    if (start(v, &err) == 0)
        return;
failed:
    v->zygote_since_us = now_us(); /* the tick waits a while before it tries again */
    LOG(WARN, "function", "function=%s did=zygote error=\"%s\"", v->f->key, err.msg);
    err.code = ERR_UNAVAILABLE; /* the function is there, its code or its runtime is not */
    pool_fail_waiting(v->f, &err);
}

/* 0, or -1 with errno. The descriptors stay the caller's. */
static int send_ask(int fd, const struct zygote_ask *ask, const int *fds, int fds_n)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * ZYGOTE_FDS_MAX)];
    } c = {0};
    struct iovec iov = {(void *)ask, sizeof *ask};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1};

    ASSERT(fds_n <= ZYGOTE_FDS_MAX);
    if (fds_n) {
        struct cmsghdr *h;

        m.msg_control = &c;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)fds_n);
        h = CMSG_FIRSTHDR(&m);
        h->cmsg_level = SOL_SOCKET;
        h->cmsg_type = SCM_RIGHTS;
        h->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)fds_n);
        memcpy(CMSG_DATA(h), fds, sizeof(int) * (size_t)fds_n);
    }
    return sendmsg(fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -1 : 0;
}

int zygote_ask(struct version *v, const struct zygote_ask *ask, const int *fds, int fds_n, struct err *err)
{
    if (v->zygote != ZYGOTE_READY)
        return err_set(err, UNAVAILABLE, "the zygote has gone");
    if (send_ask(v->ctl_fd, ask, fds, fds_n) < 0)
        return err_sys(err, "ask the zygote");
    return 0;
}
