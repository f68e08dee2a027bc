#include "function/destination.h"

#include "base/log.h"
#include "codec/json.h"
#include "function/function_int.h"
#include "function/queue.h"
#include "volume/volume.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

enum { TARGETS = 2 };

/* One record on its way to one place. */
struct parcel {
    struct round *round;
    char *text, *bucket, *key;
    char *ns, *function, *qualifier, *trace, *delivery;
    size_t n;
    uv_work_t work;
    struct err err;
};

struct round {
    struct functions *fs;
    uint64_t event;
    struct parcel *last; /* to a function: it ends the event, so it goes when all others are there. Or NULL */
    int left;
    bool whole;
    void (*done)(void *arg, bool whole);
    void *arg;
};

bool destination_is(const struct val *to)
{
    return !str_empty(val_str_at(to, "function", NULL)) || !str_empty(val_str_at(to, "bucket", NULL));
}

const struct val *events_rules(const struct obj *function, const char *qualifier)
{
    VAL_EACH(val_at(obj_val(function), "spec.events"), it)
    if (streq(val_str_at(it, "qualifier", ""), str_empty(qualifier) ? "$LATEST" : qualifier))
        return it;
    return NULL;
}

/* JSON as a value, what is none as text. */
static struct val *json_or_text(struct arena *a, const char *text, size_t n)
{
    struct err err;
    struct val *v = n ? json_parse(a, text, n, &err) : val_map(a);

    return v ? v : val_strn(a, text, n);
}

/* As Lambda's documentation of destinations shows it. */
char *destination_record(const struct destination_record *d, struct arena *a, size_t *ret_n)
{
    const struct function_result *r = d->result;
    struct val *v = val_map(a), *context, *answer;
    char when[32];

    val_put_str(a, v, "version", "1.0");
    val_put_str(a, v, "timestamp", wall_text(wall_ms(), when));
    context = val_need_map(a, v, "requestContext");
    val_put_str(a, context, "requestId", d->request_id);
    val_put(a, context, "functionArn",
            val_printf(a, "arn:aws:lambda:%s:%s:function:%s:%s", d->region, d->account, val_str_at(d->meta, "name", ""),
                       val_str_at(d->meta, "qualifier", "$LATEST")));
    val_put_str(a, context, "condition", d->condition);
    val_put_int(a, context, "approximateInvokeCount", d->tries);
    val_put(a, v, "requestPayload", json_or_text(a, d->payload, d->n));
    if (r->err.code == ERR_OK) {
        answer = val_need_map(a, v, "responseContext");
        val_put_int(a, answer, "statusCode", 200);
        val_put_str(a, answer, "executedVersion", r->version ? r->version : "$LATEST");
        if (r->function_error)
            val_put_str(a, answer, "functionError", r->function_error);
        val_put(a, v, "responsePayload", json_or_text(a, r->payload ? r->payload : "null", r->payload ? r->n : 4));
    }
    return json_text(a, v, ret_n);
}

static void parcel_free(struct parcel *p)
{
    free(p->text);
    free(p->bucket);
    free(p->key);
    free(p->ns);
    free(p->function);
    free(p->qualifier);
    free(p->trace);
    free(p->delivery);
    free(p);
}

static void send_event(struct parcel *p, uint64_t ends);

static void round_leave(struct round *round, bool whole)
{
    struct parcel *last = round->last;

    round->whole &= whole;
    if (--round->left)
        return;
    if (last && round->whole) {
        round->last = NULL;
        round->left++;
        send_event(last, round->event);
        return;
    }
    if (last)
        parcel_free(last);
    round->done(round->arg, round->whole);
    free(round);
}

/* ---- into a bucket ---- */

static void write_work(uv_work_t *w)
{
    struct parcel *p = w->data;
    char temp[VOLUME_TEMP_BYTES];
    struct volume_info info;
    _auto_(closep) int root = volume_root(p->round->fs->state, p->bucket, false, &p->err);
    _auto_(closep) int fd = root < 0 ? -1 : volume_temp(root, temp, &p->err);

    if (fd < 0)
        return;
    for (size_t at = 0; at < p->n;) {
        ssize_t n = write(fd, p->text + at, p->n - at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            err_sys(&p->err, "write %s", p->key);
            unlinkat(root, temp, 0);
            return;
        }
        at += (size_t)n;
    }
    (void)!volume_commit(root, fd, temp, p->key, NULL, NULL, false, &info, &p->err);
}

static void on_written(uv_work_t *w, int status)
{
    struct parcel *p = w->data;
    struct round *round = p->round;
    /* a bucket that is not there would be tried for ever */
    bool whole = status == 0 && (p->err.code == ERR_OK || p->err.code == ERR_NOT_FOUND || p->err.code == ERR_INVALID_ARGUMENT);

    if (p->err.code != ERR_OK)
        LOG(WARN, "function", "did=deliver bucket=%s error=\"%s\"", p->bucket, p->err.msg);
    parcel_free(p);
    round_leave(round, whole);
}

/* aws/lambda/async/FUNCTION/YYYY/MM/DD/YYYY-MM-DDTHH.MM.SS-ID: the same event gives the same key, so that
 * a delivery that is made twice is one file. */
static char *key_of_record(const struct delivery *d, const char *kind)
{
    time_t at = (time_t)(val_int_at(d->meta, "at", 0) / 1000);
    char day[16], second[32];
    struct tm tm;

    gmtime_r(&at, &tm);
    strftime(day, sizeof day, "%Y/%m/%d", &tm);
    strftime(second, sizeof second, "%Y-%m-%dT%H.%M.%S", &tm);
    return xasprintf("aws/lambda/%s/%s/%s/%s-%s", kind, val_str_at(d->meta, "name", "unknown"), day, second, d->request_id);
}

/* ---- to a function ---- */

static void on_queued(void *arg, const struct err *err, const char *request_id)
{
    struct parcel *p = arg;
    struct round *round = p->round;
    bool again = err->code == ERR_UNAVAILABLE || err->code == ERR_TOO_MANY || err->code == ERR_IO;

    if (err->code != ERR_OK)
        LOG(WARN, "function", "did=deliver function=%s error=\"%s\"", p->function, err->msg);
    parcel_free(p);
    round_leave(round, !again);
}

static void send_event(struct parcel *p, uint64_t ends)
{
    struct function_call c = {.namespace_ = p->ns, .name = p->function, .qualifier = p->qualifier, .payload = p->text, .n = p->n, .delivery = p->delivery,
                              .trigger = FUNCTION_BY_PUBSUB, .trace_id = p->trace};

    queue_invoke(p->round->fs, &c, ends, on_queued, p);
}

static void send_one(const struct delivery *d, struct round *round, const struct val *to, const char *text, size_t n, const char *kind)
{
    const char *function = val_str_at(to, "function", NULL), *bucket = val_str_at(to, "bucket", NULL);
    struct parcel *p = xcalloc(1, sizeof *p);

    p->round = round;
    p->text = xstrndup(text, n);
    p->n = n;
    if (!str_empty(function)) {
        p->function = xstrdup(function);
        p->delivery = xasprintf("%s/%s", d->request_id, kind);
        p->ns = xstrdup(val_str_at(d->meta, "ns", "default"));
        p->qualifier = val_str_at(to, "qualifier", NULL) ? xstrdup(val_str_at(to, "qualifier", NULL)) : NULL;
        p->trace = d->trace ? xstrdup(d->trace) : NULL;
        if (round->last) {
            send_event(p, 0);
        } else {
            round->left--;
            round->last = p;
        }
        return;
    }
    p->bucket = xstrdup(bucket);
    p->key = key_of_record(d, kind);
    p->work.data = p;
    uv_queue_work(d->fs->loop, &p->work, write_work, on_written);
}

void deliver(const struct delivery *d, void (*done)(void *arg, bool whole), void *arg)
{
    struct round *round = xcalloc(1, sizeof *round);

    *round = (struct round){.fs = d->fs, .event = d->event, .left = 1, .whole = true, .done = done, .arg = arg};
    for (int i = 0; i < TARGETS; i++) {
        if (!destination_is(d->to[i]))
            continue;
        round->left++;
        send_one(d, round, d->to[i], d->text[i], d->n[i], i == 0 ? "async" : "dead-letter");
    }
    round_leave(round, true);
}
