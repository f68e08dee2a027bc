/* Snapshots (SnapStart): a published version is initialised once, and its instances go on from there.
 *
 *   WANTED --zygote ready--> MAKING --image whole--> READY --base process gone, memory short--> WANTED
 *                              |--what it holds cannot be kept--> UNABLE: instances initialise themselves
 *                              |--its initialisation failed-----> FAILED: it is not called (before it was READY once)
 *
 * Made by an instance like any other: in its own sandbox, as the function's user, behind the filter; runtime/snap.c
 * tells how. The image is a memfd, of one version of one owner, that nobody else is ever given: sealed when it is whole,
 * read by instances of the version inside their sandboxes only. The gateway and the zygote never look into it.
 * It is good as long as the base process that all of them are forks of: its addresses are those of the image.
 *
 * Credentials are not part of it: whoever goes on from it has a keeper beside him (runtime/keys.c), which we send them
 * by a socket, anew before they expire. */
#include "function/function_int.h"

#include "base/log.h"
#include "codec/json.h"
#include "env/random.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { KEYS_FOR_EVER_S = 6 * 3600, SNAP_TEXT_MAX = 600, SNAP_LEAST_MS = 130000 /* Lambda's own figure */, MAKER_LEAVES_MS = 2000,
       IDLE_SHARE = 16 /* of the machine's memory: one in so many */ };

bool snapshot_usable(const struct version *v)
{
    return v->snap.state == SNAP_READY && v->base && v->snap.base_pid == v->base->pid;
}

bool snapshot_awaited(const struct version *v)
{
    return v->snap.state == SNAP_WANTED || v->snap.state == SNAP_MAKING || (v->snap.state == SNAP_READY && !snapshot_usable(v));
}

int snapshot_limit_ms(const struct version *v)
{
    return MAX(v->timeout_ms, (int)SNAP_LEAST_MS);
}

void snapshot_drop(struct version *v)
{
    closep(&v->snap.image);
    v->snap.image = -1;
    if (v->snap.state == SNAP_READY)
        v->snap.state = SNAP_WANTED;
}

/* Images that nobody uses at the moment may have a part of the machine's memory, all together; none when it is short. */
void snapshot_rest(struct version *v)
{
    struct functions *fs = v->f->fs;
    struct functions_memory m = {0};
    int64_t bytes = 0;
    struct stat st;

    if (v->snap.image < 0)
        return;
    fs->memory_of(fs->memory_arg, &m);
    LIST_EACH(&fs->all, l)
    LIST_EACH(&list_entry(l, struct function, link)->versions, k)
    {
        const struct version *one = list_entry(k, struct version, link);

        if (one->snap.image >= 0 && (one == v || one->zygote == ZYGOTE_NONE) && fstat(one->snap.image, &st) == 0)
            bytes += st.st_blocks * 512;
    }
    if (fs->short_us || bytes >> 20 > m.total_mb / IDLE_SHARE)
        snapshot_drop(v);
}

/* ---- credentials ---- */

/* "TOKEN TAB JSON LF", a message of its own: it comes whole or not at all */
static char *keys_line(struct version *v, struct arena *a)
{
    struct function_keys k;
    struct val *c = val_map(a);
    char when[32];
    struct tm tm;
    time_t until;

    role_keys(v, a, &k);
    if (!k.access_key || !k.secret_key)
        return arena_printf(a, "%s\t{}\n", v->snap.token);
    until = time(NULL) + (k.seconds ? k.seconds : KEYS_FOR_EVER_S);
    gmtime_r(&until, &tm);
    strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%SZ", &tm);
    val_put_str(a, c, "AccessKeyId", k.access_key);
    val_put_str(a, c, "SecretAccessKey", k.secret_key);
    val_put_str(a, c, "Token", k.session_token ? k.session_token : "");
    val_put_str(a, c, "Expiration", when);
    return arena_printf(a, "%s\t%s\n", v->snap.token, json_text(a, c, NULL));
}

/* The other end of the socket with the credentials of this moment in it; -1: there is none to be had. */
int snapshot_keys_open(struct instance *i, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    int ends[2];
    char *text;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0) {
        err_sys(err, "make a socket for credentials");
        return -1;
    }
    text = keys_line(i->v, a);
    (void)!send(ends[1], text, strlen(text), MSG_NOSIGNAL);
    i->keys = ends[1];
    return ends[0];
}

void snapshot_keys_renew(struct version *v)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    char *text = keys_line(v, a);

    LIST_EACH(&v->instances, l)
    {
        struct instance *i = list_entry(l, struct instance, link);

        if (i->keys >= 0 && !i->exited)
            (void)!send(i->keys, text, strlen(text), MSG_NOSIGNAL); /* full: it reads nothing any more */
    }
}

void snapshot_env(struct version *v, struct arena *a, struct val *env)
{
    unsigned char b[16];

    if (!v->snap.token[0]) {
        random_bytes(b, sizeof b);
        for (int k = 0; k < 16; k++)
            snprintf(v->snap.token + 2 * k, 3, "%02x", b[k]);
    }
    val_put_str(a, env, "AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9001/2021-04-23/credentials");
    val_put_str(a, env, "AWS_CONTAINER_AUTHORIZATION_TOKEN", v->snap.token);
}

/* ---- made ---- */

static void retell(struct version *v)
{
    struct functions *fs = v->f->fs;

    if (fs->on_snapshot && v->snap.said && v->f->obj && v == v->f->now && !fs->stopping)
        fs->on_snapshot(fs->snapshot_arg, v->f->namespace_, v->f->obj->name, v->snap.said_active, v->snap.said_on, v->snap.said_code,
                        v->snap.said_reason);
}

static void tell(struct version *v, bool active, bool on, const char *code, const char *reason)
{
    free(v->snap.said_reason);
    v->snap.said = true;
    v->snap.said_active = active;
    v->snap.said_on = on;
    v->snap.said_code = code;
    v->snap.said_reason = reason ? xstrdup(reason) : NULL;
    retell(v);
}

void functions_retell_snapshots(struct functions *fs)
{
    LIST_EACH(&fs->all, l)
    LIST_EACH(&list_entry(l, struct function, link)->versions, k)
        retell(list_entry(k, struct version, link));
}

/* It goes on without: who waits is served as without SnapStart. */
static void unable(struct version *v, const char *why)
{
    LOG(WARN, "function", "function=%s did=no-snapshot why=\"%s\"", v->f->key, why);
    snapshot_drop(v);
    v->snap.state = SNAP_UNABLE;
    v->snap.good = true;
    tell(v, true, false, NULL, why);
    pool_refill_soon(v->f->fs);
    pool_feed(v->f);
}

static void failed(struct version *v, const char *why)
{
    struct err err;

    if (v->snap.good) { /* it was whole once: its instances say what is wrong now */
        unable(v, why);
        return;
    }
    LOG(WARN, "function", "function=%s did=snapshot error=\"%s\"", v->f->key, why);
    snapshot_drop(v);
    v->snap.state = SNAP_FAILED;
    tell(v, false, true, "FunctionError", why);
    err_set(&err, UNAVAILABLE, "%s", why);
    pool_fail_waiting(v->f, &err);
}

void snapshot_make(struct version *v)
{
    char name[32];
    struct instance *i;
    struct err err = {0};

    if (!snapshot_awaited(v) || v->snap.state == SNAP_MAKING || v->zygote != ZYGOTE_READY || v->removed)
        return;
    if (functions_net_ready(v, &err) == 0)
        return; /* it comes back here */
    snapshot_drop(v);
    if (!v->forks || v->program) {
        unable(v, "functions with extensions are not restored from snapshots: each instance initializes itself");
        return;
    }
    snprintf(name, sizeof name, "snapshot-%llu", (unsigned long long)v->number);
    v->snap.image = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
    v->snap.state = SNAP_MAKING;
    v->snap.base_pid = v->base ? v->base->pid : 0;
    if (v->snap.image < 0)
        err_sys(&err, "make a snapshot's memory");
    i = v->snap.image < 0 ? NULL : instance_make(v, false, &err);
    if (!i) {
        unable(v, err.msg);
        return;
    }
    i->maker = true;
    i->restored = false;
    i->state = INSTANCE_BUSY;
    flog_init_start(i);
    i->told = true; /* what goes wrong here is no failure of the function's: unable() says it */
    if (instance_launch(i, &err) < 0) {
        unable(v, err.msg);
        return;
    }
    i->told = false;
    uv_timer_start(&i->timer, snapshot_late, (uint64_t)snapshot_limit_ms(v), 0);
}

void snapshot_late(uv_timer_t *t)
{
    struct instance *i = t->data;

    i->deadline_hit = true;
    instance_kill(i); /* its end is told by snapshot_exited() */
}

/* The error of an initialisation as Lambda shows it: what came is JSON of the function's making. */
static void reason_of(const char *body, size_t n, char *out, size_t size)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err;
    const struct val *v = json_parse(a, body, n, &err);

    snprintf(out, size, "%.120s: %.400s", val_str_at(v, "errorType", "Runtime.Unknown"), val_str_at(v, "errorMessage", ""));
}

bool snapshot_frame(struct instance *i, const struct instance_frame *f, const char *body)
{
    struct version *v = i->v;
    uint64_t limit = (uint64_t)snapshot_limit_ms(v) * 1000;
    char why[SNAP_TEXT_MAX];
    struct stat st;

    if (f->type != FRAME_SNAPSHOT || v->snap.state != SNAP_MAKING || f->n > 65536)
        return false;
    i->told = true;
    uv_timer_start(&i->timer, snapshot_late, MAKER_LEAVES_MS, 0); /* it has nothing more to do */
    i->init_us = (int64_t)MIN(f->b, limit);
    v->f->m->init_us += (uint64_t)i->init_us;
    if (f->result == RESULT_OK) {
        instance_read_all(i);
        flog_init_report(i, NULL);
        if (fstat(v->snap.image, &st) < 0 || st.st_size == 0) { /* whoever says so has made none */
            unable(v, "no snapshot was made: each instance initializes itself");
            return true;
        }
        if (fcntl(v->snap.image, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0) {
            unable(v, "its memory could not be sealed");
            return true;
        }
        v->snap.state = SNAP_READY;
        LOG(INFO, "function", "function=%s did=snapshot us=%lld", v->f->key, (long long)(now_us() - i->asked_us));
        if (!v->snap.good)
            tell(v, true, true, NULL, NULL);
        v->snap.good = true;
        pool_refill_soon(v->f->fs);
        pool_feed(v->f);
        return true;
    }
    instance_read_all(i);
    if (f->result == RESULT_UNABLE) {
        char text[SNAP_TEXT_MAX];

        for (size_t k = 0; k < f->n && k < sizeof why - 1; k++)
            why[k] = (uint8_t)body[k] < ' ' || body[k] == '"' ? ' ' : body[k];
        why[MIN((size_t)f->n, sizeof why - 1)] = 0;
        flog_init_report(i, NULL);
        snprintf(text, sizeof text, "tandem: no snapshot is kept of this version, each of its instances initializes itself: %.400s", why);
        flog_note(i, NULL, text, "");
        unable(v, text);
    } else {
        reason_of(body, f->n, why, sizeof why);
        flog_init_report(i, "error");
        failed(v, why);
    }
    return true;
}

void snapshot_exited(struct instance *i, int status, bool oom)
{
    struct version *v = i->v;
    char why[160];

    if (i->told || v->snap.state != SNAP_MAKING)
        return;
    if (i->deadline_hit)
        snprintf(why, sizeof why, "Runtime.Timeout: the initialization did not end in %d s", snapshot_limit_ms(v) / 1000);
    else if (oom)
        snprintf(why, sizeof why, "Runtime.OutOfMemory: the initialization needs more than %d MB", v->memory_mb);
    else if (WIFEXITED(status))
        snprintf(why, sizeof why, "Runtime.ExitError: the runtime exited with status %d during initialization", WEXITSTATUS(status));
    else
        snprintf(why, sizeof why, "Runtime.ExitError: the runtime was killed by signal %d during initialization", WTERMSIG(status));
    if (v->removed || v->f->fs->stopping || v->zygote != ZYGOTE_READY) {
        v->snap.state = SNAP_WANTED; /* not the function's fault */
        return;
    }
    if (WIFEXITED(status) && (WEXITSTATUS(status) == 125 || (WEXITSTATUS(status) >= 120 && WEXITSTATUS(status) < 124))) {
        unable(v, "a snapshot could not be made on this machine now: each instance initializes itself");
        return;
    }
    flog_init_report(i, i->deadline_hit ? "timeout" : "error");
    failed(v, why);
}

/* An instance died while it was being restored: the image is not to be used any more. */
bool snapshot_broke(struct instance *i, int status)
{
    bool ours = i->restored && !i->inited && WIFEXITED(status) && WEXITSTATUS(status) >= 110 && WEXITSTATUS(status) < 120;

    if (ours && i->v->snap.state == SNAP_READY) {
        LOG(WARN, "function", "function=%s did=drop-snapshot step=%d", i->v->f->key, WEXITSTATUS(status));
        snapshot_drop(i->v);
        i->v->snap.state = SNAP_UNABLE;
        tell(i->v, true, false, NULL, "instances could not go on from the snapshot: each of them initializes itself");
    }
    return ours;
}
