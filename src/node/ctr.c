/* One container of a pod: its image, its start, its end, its pause before the next start. */
#include "codec/json.h"
#include "env/clock.h"
#include "env/fs.h"
#include "node/node_int.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <unistd.h>

enum {
    IMAGE_BACKOFF_FIRST_MS = 10000,
    TERM_MESSAGE_MAX = 4096,
    TERM_LOG_LINES = 80,
    TERM_LOG_MAX = 2048
};

const struct val *ctr_spec(const struct ctr *c)
{
    const char *list = c->kind == CTR_MAIN        ? "containers"
                       : c->kind == CTR_EPHEMERAL ? "ephemeralContainers"
                                                  : "initContainers";
    const struct val *l = val_get(pod_spec(c->pod), list);

    return l && c->index < val_len(l) ? &l->items[c->index] : NULL;
}

void ctr_id(const struct ctr *c, int attempt, char out[NAME_BYTES])
{
    snprintf(out, NAME_BYTES, "%s.%d", c->name, attempt);
}

char *ctr_log_path(struct arena *a, const struct ctr *c, int attempt)
{
    struct pod *p = c->pod;

    return arena_printf(a, "%s/logs/pods/%s_%s_%s/%s/%d.log", p->n->o.state, p->ns, p->name, p->uid,
                        c->name, attempt);
}

void ctr_run_done(struct ctr_run *r)
{
    free(r->message);
    *r = (struct ctr_run){0};
}

void ctr_run_set(struct ctr_run *r, const struct val *state)
{
    const char *id = val_str_at(state, "id", ""), *dot = strrchr(id, '.');

    r->there = true;
    r->attempt = dot ? atoi(dot + 1) : 0;
    r->pid = val_int_at(state, "pid", 0);
    r->started_ms = val_int_at(state, "started_ns", 0) / 1000000;
    r->finished_ms = val_int_at(state, "finished_ns", 0) / 1000000;
    r->code = (int)val_int_at(state, "code", 0);
    r->signal = (int)val_int_at(state, "signal", 0);
    r->oom = val_bool_at(state, "oom", false);
    snprintf(r->reason, sizeof r->reason, "%s",
             r->oom    ? "OOMKilled"
             : r->code ? "Error"
                       : "Completed");
}

void ctr_wait(struct ctr *c, const char *reason, const char *fmt, ...)
{
    va_list ap;
    char text[1024];

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    c->state = CTR_WAITING;
    snprintf(c->wait_reason, sizeof c->wait_reason, "%s", reason);
    free(c->wait_message);
    c->wait_message = *text ? xstrdup(text) : NULL;
}

bool ctr_over(const struct ctr *c)
{
    const char *policy = val_str_at(pod_spec(c->pod), "restartPolicy", "Always");

    if (c->state != CTR_EXITED)
        return false;
    if (pod_stopping(c->pod) || c->kind == CTR_EPHEMERAL)
        return true;
    if (c->kind == CTR_SIDECAR)
        return false;
    if (c->now.code == 0)
        return c->kind == CTR_INIT || !streq(policy, "Always");
    return streq(policy, "Never");
}

/* ---- image ------------------------------------------------------------------------------------
 */

static void image_failed(struct ctr *c, const struct err *err)
{
    struct pod *p = c->pod;
    const char *ref = c->image_ref ? c->image_ref : "";

    c->image_backoff_ms = c->image_backoff_ms
                              ? MIN(c->image_backoff_ms * 2, (int64_t)BACKOFF_MAX_MS)
                              : IMAGE_BACKOFF_FIRST_MS;
    c->image_retry_ms = mono_ms(p->n) + c->image_backoff_ms;
    pod_poke_at(p, c->image_retry_ms);
    pod_event(p, "Warning", "Failed", "Failed to pull image \"%s\": %s", ref, err->msg);
    pod_event(p, "Warning", "Failed", "Error: ErrImagePull");
    ctr_wait(c, "ErrImagePull", "%s", err->msg);
    pod_poke(p);
}

struct start_arg { /* outlives the container when the pod goes meanwhile: looked up again by name */
    struct node *n;
    char *uid, *name;
    int attempt;
};

static struct start_arg *arg_new(struct ctr *c)
{
    struct start_arg *s = xcalloc(1, sizeof *s);

    *s = (struct start_arg){c->pod->n, xstrdup(c->pod->uid), xstrdup(c->name), c->attempt};
    return s;
}

static struct ctr *arg_done(struct start_arg *s) /* NULL: it went meanwhile */
{
    struct pod *p = map_get(&s->n->by_uid, s->uid);
    struct ctr *c = p ? pod_ctr(p, s->name) : NULL;

    free(s->uid);
    free(s->name);
    free(s);
    return c;
}

static void pulled(void *arg, struct image *img, const struct err *err)
{
    struct ctr *c = arg_done(arg);
    struct pod *p;

    if (!c || (err && err->code == ERR_CANCELLED)) {
        image_unref(img);
        return;
    }
    p = c->pod;
    c->job = NULL;
    if (!img) {
        image_failed(c, err);
        return;
    }
    c->image = img;
    c->image_backoff_ms = 0;
    ctr_wait(c, "ContainerCreating", "%s", "");
    pod_event(p, "Normal", "Pulled", "Successfully pulled image \"%s\". Image size: %lld bytes.",
              c->image_ref, (long long)img->size);
    node_status_poke(p->n);
    pod_poke(p);
}

/* Credentials of the pod's imagePullSecrets for this image's registry. */
static bool pull_secret(struct pod *p, struct arena *a, const char *image, const char **ret_user,
                        const char **ret_password)
{
    VAL_EACH (val_get(pod_spec(p), "imagePullSecrets"), it) {
        const struct obj *o = node_secret(p->n, p->ns, val_str_at(it, "name", ""));
        const char *data;
        size_t n;
        struct err err;

        if (!o || !map_data(o, true, ".dockerconfigjson", a, &data, &n))
            continue;
        const struct val *auths = val_get(json_parse(a, data, n, &err), "auths");
        VAL_EACH_MEMBER (auths, m) {
            const char *host = m->key;
            if (str_starts(host, "https://"))
                host += 8;
            if (str_starts(host, "http://"))
                host += 7;
            size_t len = strcspn(host, "/");
            if (strncmp(image, host, len) != 0 &&
                !(strstr(host, "docker.io") && str_starts(image, "docker.io/")))
                continue;
            *ret_user = val_str_at(&m->v, "username", NULL);
            *ret_password = val_str_at(&m->v, "password", NULL);
            if (*ret_user)
                return true;
        }
    }
    return false;
}

static void pull_start(struct ctr *c, const char *ref)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct pod *p = c->pod;
    struct image_pull_options o = {0};
    struct err err;
    char *name = image_name_normal(ref, &err);

    if (name)
        (void)pull_secret(p, a, name, &o.username, &o.password);
    free(name);
    pod_event(p, "Normal", "Pulling", "Pulling image \"%s\"", ref);
    c->state = CTR_PULLING;
    snprintf(c->wait_reason, sizeof c->wait_reason, "ContainerCreating");
    c->job = image_pull_async(p->n->images, &p->n->loop, ref, &o, pulled, arg_new(c));
}

/* True: the image is here. */
static bool image_sync(struct ctr *c)
{
    struct pod *p = c->pod;
    const char *ref = val_str_at(ctr_spec(c), "image", ""), *policy;
    struct err err = {0};

    if (c->image && streq0(c->image_ref, ref))
        return true;
    if (c->job)
        return false;
    c->image = image_unref(c->image);
    free(c->image_ref);
    c->image_ref = xstrdup(ref);
    char *normal = image_name_normal(ref, &err);
    if (!normal) {
        if (!streq(c->wait_reason, "InvalidImageName"))
            pod_event(p, "Warning", "InspectFailed", "Failed to apply default image tag \"%s\": %s",
                      ref, err.msg);
        ctr_wait(c, "InvalidImageName", "Failed to apply default image tag \"%s\": %s", ref,
                 err.msg);
        return false;
    }
    bool latest = str_ends(normal, ":latest");
    free(normal);
    policy = val_str_at(ctr_spec(c), "imagePullPolicy", latest ? "Always" : "IfNotPresent");
    if (!streq(policy, "Always") || c->now.there || c->last.there ||
        str_starts(ref, "localhost/")) {
        c->image = image_resolve(p->n->images, ref, &err);
        if (c->image) {
            if (!c->now.there)
                pod_event(p, "Normal", "Pulled",
                          "Container image \"%s\" already present on machine", ref);
            return true;
        }
        if (err.code != ERR_NOT_FOUND) {
            image_failed(c, &err);
            return false;
        }
    }
    if (streq(policy, "Never")) {
        if (!streq(c->wait_reason, "ErrImageNeverPull")) {
            pod_event(p, "Warning", "ErrImageNeverPull",
                      "Container image \"%s\" is not present with pull policy of Never", ref);
            ctr_wait(c, "ErrImageNeverPull",
                     "Container image \"%s\" is not present with pull policy of Never", ref);
        }
        pod_poke_at(p, mono_ms(p->n) + 5000); /* it may be imported by hand */
        return false;
    }
    if (mono_ms(p->n) < c->image_retry_ms) {
        if (streq(c->wait_reason, "ErrImagePull")) {
            pod_event(p, "Normal", "BackOff", "Back-off pulling image \"%s\"", ref);
            ctr_wait(c, "ImagePullBackOff", "Back-off pulling image \"%s\"", ref);
        }
        pod_poke_at(p, c->image_retry_ms);
        return false;
    }
    pull_start(c, ref);
    return false;
}

/* ---- start ------------------------------------------------------------------------------------
 */

static void start_failed(struct ctr *c, const struct err *err)
{
    struct pod *p = c->pod;
    int64_t now = clock_real_ms();

    pod_event(p, "Warning", "Failed", "Error: failed to start container \"%s\": %s", c->name,
              err->msg);
    ctr_run_done(&c->last);
    c->last = c->now;
    c->now = (struct ctr_run){
        .there = true, .attempt = c->attempt, .started_ms = now, .finished_ms = now};
    c->now.code = err->sys == ENOENT || err->sys == ENOTDIR   ? 127
                  : err->sys == EACCES || err->sys == ENOEXEC ? 126
                                                              : 128;
    snprintf(c->now.reason, sizeof c->now.reason, "StartError");
    c->now.message = xasprintf("failed to start container: %s", err->msg);
    c->state = CTR_EXITED;
    c->attempt++;
}

static void hook_after_start(struct ctr *c, bool ok)
{
    if (!ok && c->state == CTR_RUNNING)
        ctr_stop(c, 0, "FailedPostStartHook");
    probes_start(c);
    pod_poke(c->pod);
}

static void started(struct ctr *c)
{
    struct pod *p = c->pod;
    const struct val *spec = ctr_spec(c);

    c->state = CTR_RUNNING;
    c->stopping = c->want_kill = c->hook_busy = c->hook_done = false;
    c->kill_at_ms = 0;
    c->started = val_is_null(val_get(spec, "startupProbe"));
    c->ready = c->started && val_is_null(val_get(spec, "readinessProbe"));
    if (!val_is_null(val_at(spec, "lifecycle.postStart")))
        ctr_hook(c, "postStart", hook_after_start);
    else
        probes_start(c);
    if (!p->told_running) {
        p->told_running = true;
        p->n->pods_started++;
        LOG(DEBUG, "node", "pod=%s/%s did=first_start us=%lld", p->ns, p->name,
            (long long)(env_mono_us(p->n->env) - p->seen_us));
    }
}

static void start_answer(void *arg, const struct val *answer, int fd)
{
    int attempt = ((struct start_arg *)arg)->attempt;
    struct ctr *c = arg_done(arg);
    struct pod *p = c ? c->pod : NULL;

    closep(&fd);
    if (c && c->state == CTR_STARTING && c->attempt == attempt) {
        if (answer && val_bool_at(answer, "ok", false)) {
            if (c->now.there) {
                ctr_run_done(&c->last);
                c->last = c->now;
                c->now = (struct ctr_run){0};
            }
            ctr_run_set(&c->now, val_get(answer, "container"));
            c->attempt++;
            started(c);
            pod_event(p, "Normal", "Created", "Container created: %s", c->name);
            pod_event(p, "Normal", "Started", "Container started: %s", c->name);
        } else if (!answer) {
            ctr_wait(c, "ContainerCreating", "%s", "");
        } else {
            struct err err = {0};
            slink_error(answer, &err);
            start_failed(c, &err);
        }
        pod_poke(p);
    }
}

/* Runs before the last but one are of no use to anybody. */
static void forget_old(struct ctr *c)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    char id[NAME_BYTES];
    struct err ignored;

    if (c->attempt < 2)
        return;
    ctr_id(c, c->attempt - 2, id);
    (void)fs_remove_tree(arena_printf(a, "%s/%s", c->pod->disk, id), &ignored);
    (void)unlink(arena_printf(a, "%s/term/%s", c->pod->dir, id));
    (void)unlink(ctr_log_path(a, c, c->attempt - 2));
    slink_call(c->pod->shim, a, slink_verb(a, "remove", id), NULL, 0, NULL, NULL);
}

static void start(struct ctr *c)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct pod *p = c->pod;
    struct err err = {0};
    struct val *spec = ctr_spec_build(c, a, &err), *v;

    if (!spec) {
        const char *reason = err.code == ERR_INVALID_ARGUMENT ? "CreateContainerConfigError"
                                                              : "CreateContainerError";
        bool again = streq(c->wait_reason, reason) && streq0(c->wait_message, err.msg);
        if (!again)
            pod_event(p, "Warning", "Failed", "Error: %s", err.msg);
        ctr_wait(c, reason, "%s", err.msg);
        pod_poke_at(p, mono_ms(p->n) + 5000);
        return;
    }
    (void)image_hold(p->n->images, p->uid, c->image, &err);
    forget_old(c);
    c->state = CTR_STARTING;
    v = slink_verb(a, "start", NULL);
    val_put(a, v, "spec", spec);
    slink_call(p->shim, a, v, NULL, 0, start_answer, arg_new(c));
}

void ctr_sync(struct ctr *c)
{
    struct pod *p = c->pod;
    int64_t now = mono_ms(p->n);

    if (c->state == CTR_STARTING || c->state == CTR_RUNNING || ctr_over(c))
        return;
    if (!image_sync(c))
        return;
    if (!p->vols_ready || !p->shim_said_hello)
        return;
    if (c->state == CTR_EXITED) {
        /* The first restart is at once, later ones wait 10 s, 20 s, ... 5 min; a long life makes up
         * for all. */
        if (!c->restart_at_ms) {
            if (c->now.finished_ms - c->now.started_ms > BACKOFF_CALM_MS)
                c->backoff_ms = 0;
            c->restart_at_ms = now + c->backoff_ms;
            c->backoff_ms =
                c->backoff_ms ? MIN(c->backoff_ms * 2, (int64_t)BACKOFF_MAX_MS) : BACKOFF_FIRST_MS;
        }
        if (now < c->restart_at_ms) {
            if (!streq(c->wait_reason, "CrashLoopBackOff")) {
                int64_t pause =
                    c->backoff_ms / 2 >= BACKOFF_FIRST_MS ? c->backoff_ms / 2 : BACKOFF_FIRST_MS;
                snprintf(c->wait_reason, sizeof c->wait_reason, "CrashLoopBackOff");
                free(c->wait_message);
                c->wait_message =
                    xasprintf("back-off %s restarting failed container=%s pod=%s_%s(%s)",
                              pause >= 300000   ? "5m0s"
                              : pause >= 160000 ? "2m40s"
                              : pause >= 80000  ? "1m20s"
                              : pause >= 40000  ? "40s"
                              : pause >= 20000  ? "20s"
                                                : "10s",
                              c->name, p->name, p->ns, p->uid);
                pod_event(p, "Warning", "BackOff",
                          "Back-off restarting failed container %s in pod %s_%s(%s)", c->name,
                          p->name, p->ns, p->uid);
            }
            pod_poke_at(p, c->restart_at_ms);
            return;
        }
        c->restart_at_ms = 0;
        c->wait_reason[0] = 0;
        c->restarts++;
    }
    start(c);
}

/* ---- end --------------------------------------------------------------------------------------
 */

static char *read_tail(const char *path, size_t max)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t end = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    char *text = xcalloc(1, max + 1);
    ssize_t n = fd < 0 ? 0 : pread(fd, text, max, end > (off_t)max ? end - (off_t)max : 0);

    closep(&fd);
    text[n > 0 ? n : 0] = 0;
    return text;
}

/* The last lines of a CRI log without their stamps: FallbackToLogsOnError. */
static char *log_tail(const char *path)
{
    char *raw = read_tail(path, 16384), *save = NULL;
    struct buf b = {0};

    for (char *line = strtok_r(raw, "\n", &save); line; line = strtok_r(NULL, "\n", &save)) {
        char *text = strchr(line, ' ');
        for (int i = 0; i < 2 && text; i++)
            text = strchr(text + 1, ' ');
        if (text)
            buf_printf(&b, "%s\n", text + 1);
    }
    free(raw);
    if (b.n > TERM_LOG_MAX)
        buf_eat(&b, b.n - TERM_LOG_MAX);
    return buf_take(&b);
}

static void take_message(struct ctr *c)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    char id[NAME_BYTES];

    ctr_id(c, c->now.attempt, id);
    char *text = read_tail(arena_printf(a, "%s/term/%s", c->pod->dir, id), TERM_MESSAGE_MAX);
    if (!*text && c->now.code != 0 && c->pod->o &&
        streq(val_str_at(ctr_spec(c), "terminationMessagePolicy", "File"),
              "FallbackToLogsOnError")) {
        free(text);
        text = log_tail(ctr_log_path(a, c, c->now.attempt));
    }
    free(c->now.message);
    c->now.message = *text ? text : NULL;
    if (!*text)
        free(text);
}

void ctr_exited(struct ctr *c, const struct val *state)
{
    struct pod *p = c->pod;
    const char *id = val_str_at(state, "id", ""), *dot = strrchr(id, '.');
    int attempt = dot ? atoi(dot + 1) : -1;

    /* A program that ends at once is heard of before the answer to "start" was looked at. */
    if (c->state == CTR_STARTING && attempt == c->attempt) {
        if (c->now.there) {
            ctr_run_done(&c->last);
            c->last = c->now;
            c->now = (struct ctr_run){0};
        }
        c->attempt++;
    } else if (c->state != CTR_RUNNING || attempt != c->now.attempt) {
        return;
    }
    ctr_run_set(&c->now, state);
    probes_stop(c);
    c->state = CTR_EXITED;
    c->ready = c->started = false;
    c->restart_at_ms = 0;
    c->wait_reason[0] = 0;
    c->stopping = false;
    take_message(c);
    LOG(INFO, "node", "pod=%s/%s container=%s did=exited code=%d oom=%d", p->ns, p->name, c->name,
        c->now.code, c->now.oom);
    pod_poke(p);
}

static void ignore(void *arg, const struct val *answer, int fd)
{
    (void)arg;
    (void)answer;
    closep(&fd);
}

static void send_signal(struct ctr *c, int sig, bool all)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    char id[NAME_BYTES];
    struct val *v;

    if (!c->pod->shim)
        return;
    ctr_id(c, c->now.attempt, id);
    v = slink_verb(a, "signal", id);
    val_put_int(a, v, "signal", sig);
    if (all)
        val_put_bool(a, v, "all", true);
    slink_call(c->pod->shim, a, v, NULL, 0, ignore, NULL);
}

static int signal_of(const char *name)
{
    static const struct {
        const char *name;
        int nr;
    } known[] = {{"TERM", SIGTERM}, {"INT", SIGINT},   {"QUIT", SIGQUIT}, {"HUP", SIGHUP},
                 {"KILL", SIGKILL}, {"USR1", SIGUSR1}, {"USR2", SIGUSR2}, {"WINCH", SIGWINCH},
                 {"ABRT", SIGABRT}, {"PWR", SIGPWR},   {"RTMIN+3", 37}};

    if (str_starts(name, "SIG"))
        name += 3;
    for (size_t i = 0; i < ARRAY_LEN(known); i++)
        if (streq(name, known[i].name))
            return known[i].nr;
    int nr = atoi(name);
    return nr > 0 && nr < 65 ? nr : SIGTERM;
}

static void term_now(struct ctr *c, bool ok)
{
    const char *own = val_str_at(ctr_spec(c), "lifecycle.stopSignal",
                                 c->image ? c->image->config.stop_signal : "");

    (void)ok; /* the hook's event has told it */
    c->hook_busy = false;
    c->hook_done = true;
    if (c->state == CTR_RUNNING)
        send_signal(c, str_empty(own) ? SIGTERM : signal_of(own), false);
}

void ctr_stop(struct ctr *c, int64_t grace_ms, const char *why)
{
    struct pod *p = c->pod;
    int64_t at = mono_ms(p->n) + grace_ms;

    if (c->state != CTR_RUNNING)
        return;
    if (!c->stopping) {
        c->stopping = true;
        c->kill_at_ms = at;
        if (why)
            pod_event(p, "Normal", "Killing", "%s", why);
        if (p->o && !val_is_null(val_at(ctr_spec(c), "lifecycle.preStop")) && grace_ms > 0) {
            c->hook_busy = true;
            ctr_hook(c, "preStop", term_now);
        } else {
            term_now(c, true);
        }
    }
    c->kill_at_ms = MIN(c->kill_at_ms, at);
    if (mono_ms(p->n) >= c->kill_at_ms) {
        send_signal(c, SIGKILL, true);
        c->kill_at_ms = mono_ms(p->n) + 2000; /* again, should that one be lost */
    }
    pod_poke_at(p, c->kill_at_ms);
}

void ctr_free_parts(struct ctr *c)
{
    probes_stop(c);
    if (c->job)
        image_job_cancel(c->job);
    image_unref(c->image);
    free(c->image_ref);
    free(c->wait_message);
    ctr_run_done(&c->now);
    ctr_run_done(&c->last);
    free(c->name);
}
