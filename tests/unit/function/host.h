/* tests/unit/function/host.h - a functions registry on a loop of its own, for tests and benches:
 * code is handed in as text, calls are waited for. */
#pragma once

#include "base/log.h"
#include "codec/json.h"
#include "codec/obj.h"
#include "function/code.h"
#include "function/function.h"
#include "logs/logs.h"

#include <archive.h>
#include <archive_entry.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

struct host {
    uv_loop_t loop;
    char state[64];
    struct functions *fs;
    struct logs *logs;
    bool stopped;
    int64_t revision;
};

struct answer {
    bool done;
    struct err err;
    char *error, *payload, *tail;
    char id[FUNCTION_ID_MAX], version[24];
    const char *throttle;
    size_t n;
    bool cold;
    enum function_rung rung;
    int64_t queue_us, place_us, start_us, init_us, handler_us, duration_us, wall_us;
    int64_t at_us;
};

static inline int64_t host_us(void)
{
    return (int64_t)(uv_hrtime() / 1000);
}

static la_ssize_t host_zip_write(struct archive *ar, void *arg, const void *p, size_t n)
{
    buf_add(arg, p, n);
    return (la_ssize_t)n;
}

/* One file of any bytes. */
static inline void host_zip_bytes(struct buf *out, const char *name, const void *p, size_t n, unsigned mode)
{
    struct archive *ar = archive_write_new();
    struct archive_entry *e = archive_entry_new();

    archive_write_set_format_zip(ar);
    archive_write_open(ar, out, NULL, host_zip_write, NULL);
    archive_entry_set_pathname(e, name);
    archive_entry_set_filetype(e, AE_IFREG);
    archive_entry_set_perm(e, mode);
    archive_entry_set_size(e, (la_int64_t)n);
    archive_write_header(ar, e);
    archive_write_data(ar, p, n);
    archive_entry_free(e);
    archive_write_close(ar);
    archive_write_free(ar);
}

/* name, text, name, text, ..., NULL */
static inline void host_zip_mode(struct buf *out, const char *const *files, unsigned mode)
{
    struct archive *ar = archive_write_new();

    archive_write_set_format_zip(ar);
    archive_write_open(ar, out, NULL, host_zip_write, NULL);
    for (; *files; files += 2) {
        struct archive_entry *e = archive_entry_new();

        archive_entry_set_pathname(e, files[0]);
        archive_entry_set_filetype(e, AE_IFREG);
        archive_entry_set_perm(e, mode);
        archive_entry_set_size(e, (la_int64_t)strlen(files[1]));
        archive_write_header(ar, e);
        archive_write_data(ar, files[1], strlen(files[1]));
        archive_entry_free(e);
    }
    archive_write_close(ar);
    archive_write_free(ar);
}

static inline void host_zip(struct buf *out, const char *const *files)
{
    host_zip_mode(out, files, 0644);
}

static inline int host_start(struct host *h, const struct functions_options *o, struct err *err)
{
    struct functions_options opts = *o;
    char dir[128];

    if (!h->state[0]) {
        snprintf(h->state, sizeof h->state, "/tmp/tandem-fn-XXXXXX");
        if (!mkdtemp(h->state))
            return err_sys(err, "mkdtemp");
        chmod(h->state, 0755);
    }
    uv_loop_init(&h->loop);
    h->stopped = false;
    opts.loop = &h->loop;
    opts.state = h->state;
    snprintf(dir, sizeof dir, "%s/logs", h->state);
    h->logs = opts.logs = logs_new(&(struct logs_options){.loop = &h->loop, .dir = dir}, err);
    h->fs = h->logs ? functions_new(&opts, err) : NULL;
    return h->fs ? 0 : -1;
}

static inline void host_on_stopped(void *arg)
{
    ((struct host *)arg)->stopped = true;
}

static inline void host_stop(struct host *h)
{
    functions_stop(h->fs, host_on_stopped, h);
    while (!h->stopped)
        uv_run(&h->loop, UV_RUN_ONCE);
    h->stopped = false;
    logs_stop(h->logs, host_on_stopped, h);
    while (!h->stopped)
        uv_run(&h->loop, UV_RUN_ONCE);
    while (uv_loop_close(&h->loop) != 0)
        uv_run(&h->loop, UV_RUN_NOWAIT);
}

static inline void host_remove(struct host *h)
{
    char cmd[128];

    snprintf(cmd, sizeof cmd, "rm -rf %s", h->state);
    if (system(cmd) != 0)
        fprintf(stderr, "cannot remove %s\n", h->state);
}

/* spec: JSON members beside code, or "". annotations: JSON members. */
static inline void host_put_noted(struct host *h, const char *name, const char *sha256, const char *spec, const char *annotations)
{
    struct arena *a = arena_new();
    struct err err;
    char *text = arena_printf(a,
                              "{\"apiVersion\":\"tandem.dev/v1\",\"kind\":\"Function\",\"metadata\":{\"name\":\"%s\","
                              "\"namespace\":\"default\",\"uid\":\"u-%s\",\"annotations\":{%s}},\"spec\":{\"codeSha256\":\"%s\"%s%s}}",
                              name, name, annotations, sha256, spec[0] ? "," : "", spec);
    struct val *v = json_parse(a, text, strlen(text), &err);
    struct obj *o;

    if (!v) {
        fprintf(stderr, "bad test spec: %s: %s\n", text, err.msg);
        abort();
    }
    o = obj_seal(v, ++h->revision);
    functions_put(h->fs, o);
    obj_unref(o);
    arena_free(a);
}

static inline void host_put(struct host *h, const char *name, const char *sha256, const char *spec)
{
    host_put_noted(h, name, sha256, spec, "");
}

/* One file lambda_function.py. */
static inline void host_function_noted(struct host *h, const char *name, const char *python, const char *spec, const char *annotations)
{
    const char *const files[] = {"lambda_function.py", python, NULL};
    struct buf zip = {0};
    char sha[CODE_HEX];
    struct err err;

    host_zip(&zip, files);
    if (code_put(h->state, zip.p, zip.n, sha, &err) < 0) {
        fprintf(stderr, "code_put: %s\n", err.msg);
        abort();
    }
    buf_done(&zip);
    host_put_noted(h, name, sha, spec, annotations);
}

static inline void host_function(struct host *h, const char *name, const char *python, const char *spec)
{
    host_function_noted(h, name, python, spec, "");
}

static inline void host_on_done(void *arg, const struct function_result *r)
{
    struct answer *a = arg;

    a->done = true;
    a->err = r->err;
    a->error = r->function_error ? xstrdup(r->function_error) : NULL;
    a->payload = r->payload ? xstrndup(r->payload, r->n) : NULL;
    a->n = r->n;
    a->tail = r->log_tail ? xstrndup(r->log_tail, r->log_tail_n) : NULL;
    a->throttle = r->throttle_reason;
    snprintf(a->id, sizeof a->id, "%s", r->request_id);
    snprintf(a->version, sizeof a->version, "%s", r->version);
    a->cold = r->cold;
    a->rung = r->rung;
    a->queue_us = r->queue_us;
    a->place_us = r->place_us;
    a->handler_us = r->handler_us;
    a->start_us = r->start_us;
    a->init_us = r->init_us;
    a->duration_us = r->duration_us;
    a->wall_us = host_us() - a->at_us;
}

static inline void answer_done(struct answer *a)
{
    free(a->error);
    free(a->payload);
    free(a->tail);
}

static inline void host_send(struct host *h, const char *name, const char *event, struct answer *a)
{
    struct function_call c = {.name = name, .payload = event, .n = strlen(event), .log_tail = true};

    *a = (struct answer){.at_us = host_us()};
    function_invoke(h->fs, &c, host_on_done, a);
}

static inline void host_wait(struct host *h, struct answer *a)
{
    uv_timer_t unused;

    (void)unused;
    while (!a->done)
        uv_run(&h->loop, UV_RUN_ONCE);
}

static inline void host_call(struct host *h, const char *name, const char *event, struct answer *a)
{
    host_send(h, name, event, a);
    host_wait(h, a);
}

static inline void host_on_timer(uv_timer_t *t)
{
    *(bool *)t->data = true;
}

static inline void host_sleep(struct host *h, int ms)
{
    uv_timer_t t;
    bool done = false;

    uv_timer_init(&h->loop, &t);
    t.data = &done;
    uv_timer_start(&t, host_on_timer, (uint64_t)ms, 0);
    while (!done)
        uv_run(&h->loop, UV_RUN_ONCE);
    uv_close((uv_handle_t *)&t, NULL);
    uv_run(&h->loop, UV_RUN_NOWAIT);
}
