/* What goes into a function's log, and what of it a caller sees (the tail).
 *
 * Lines are handed to logs/ as they come, which costs a copy. The function's own are passed on; the platform's (START,
 * END, REPORT, INIT_START) are made here as Lambda writes them: text, or with logFormat JSON one object a line, of which
 * those below the chosen level are left out.
 *
 * Who prints without end: an instance may print LOG_BURST at once and LOG_PER_TICK a tick after that. What is over it
 * is moved to /dev/null by the kernel, unread, a pipeful every few milliseconds, so that neither its handler waits
 * nor anybody else; one line says how much it was. */
#include "function/function_int.h"

#include "base/log.h"
#include "codec/json.h"
#include "logs/logs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { FLOOD_MS = 5, FLOOD_PIPE = 1 << 20 };

const char *function_own_name(const struct function *f)
{
    const struct function *head = function_find(f->fs, f->namespace_, f->name);
    const struct val *annotations = head && head->obj ? val_at(obj_val(head->obj), "metadata.annotations") : NULL;

    return val_text(val_get(annotations, "tandem.dev/function-name"), f->name);
}

const char *flog_group(struct version *v)
{
    if (!v->log_group)
        v->log_group = xasprintf("/aws/lambda/%s", function_own_name(v->f));
    return v->log_group;
}

const char *functions_log_group(struct functions *fs, struct arena *a, const char *ns, const char *name)
{
    struct function *f = function_find(fs, ns, name);

    if (!f)
        return NULL;
    return f->now ? arena_strdup(a, flog_group(f->now)) : arena_printf(a, "/aws/lambda/%s", function_own_name(f));
}

/* As CloudWatch names the log stream of an execution environment. */
const char *flog_stream(struct instance *i)
{
    char day[32];

    if (*i->log_stream)
        return i->log_stream;
    wall_text(wall_ms(), day);
    day[4] = day[7] = '/';
    snprintf(i->log_stream, sizeof i->log_stream, "%.10s/[%.24s]%.32s", day, i->v->shown, i->stream);
    return i->log_stream;
}

static void line(struct instance *i, const char *text, size_t n)
{
    struct functions *fs = i->v->f->fs;

    if (fs->logs)
        logs_line(fs->logs, i->v->f->namespace_, flog_group(i->v), flog_stream(i), wall_ms(), text, n);
}

/* ---- the function's own ---- */

/* The value of "level" in a line of JSON; LEVEL_FATAL (never left out) when it says none. */
static enum log_level_of_function level_in(const char *text, size_t n)
{
    static const struct {
        const char *name;
        enum log_level_of_function level;
    } names[] = {{"TRACE", LEVEL_TRACE}, {"DEBUG", LEVEL_DEBUG}, {"INFO", LEVEL_INFO}, {"WARN", LEVEL_WARN}, {"ERROR", LEVEL_ERROR}};
    const char *at = memmem(text, n, "\"level\"", 7), *end = text + n;

    for (at = at ? at + 7 : end; at < end && strchr(" \t:\"", *at); at++)
        ;
    for (size_t k = 0; k < ARRAY_LEN(names); k++) {
        size_t len = strlen(names[k].name);

        if ((size_t)(end - at) > len && strncasecmp(at, names[k].name, len) == 0)
            return names[k].level;
    }
    return LEVEL_FATAL;
}

void flog_text(struct instance *i, const char *text, size_t n)
{
    const struct version *v = i->v;

    if (v->log_json && n && text[0] == '{' && level_in(text, n) < v->log_app)
        return;
    line(i, text, n);
}

void tail_add(struct call *c, const char *text, size_t n)
{
    if (!c->want_tail)
        return;
    if (n > FUNCTION_LOG_TAIL_MAX) {
        text += n - FUNCTION_LOG_TAIL_MAX;
        n = FUNCTION_LOG_TAIL_MAX;
    }
    if (c->tail.n + n > 2 * FUNCTION_LOG_TAIL_MAX)
        buf_eat(&c->tail, c->tail.n - FUNCTION_LOG_TAIL_MAX);
    buf_add(&c->tail, text, n);
}

/* ---- the platform's ---- */

/* In the log, and (c not NULL) in the tail of the call. */
static void say(struct instance *i, struct call *c, const char *text, size_t n)
{
    line(i, text, n);
    if (c && c->want_tail) {
        tail_add(c, text, n);
        tail_add(c, "\n", 1);
    }
}

/* {"time", "type", "record": {...}}: the caller writes what is in the record. */
static void event_begin(struct buf *b, const char *type)
{
    char when[32];

    buf_printf(b, "{\"time\":\"%s\",\"type\":\"platform.%s\",\"record\":{", wall_text(wall_ms(), when), type);
}

/* ,"tracing":{...} of a call that is sampled. */
static void add_tracing(struct buf *b, const struct call *c)
{
    const char *parent = strstr(c->trace_id, ";Parent=");

    if (!c->trace.sampled)
        return;
    buf_adds(b, ",\"tracing\":{");
    if (parent)
        buf_printf(b, "\"spanId\":\"%.16s\",", parent + 8);
    buf_adds(b, "\"type\":\"X-Amzn-Trace-Id\",\"value\":");
    json_write_str(b, c->trace_id, strlen(c->trace_id));
    buf_addc(b, '}');
}

static void event_end(struct instance *i, struct call *c, enum log_level_of_function level, struct buf *b)
{
    buf_adds(b, "}}");
    if (level >= i->v->log_system)
        say(i, c, b->p, b->n);
    buf_done(b);
}

void flog_init_start(struct instance *i)
{
    const struct version *v = i->v;
    struct buf b = {0};
    char text[200];
    int n;

    if (v->log_json) {
        event_begin(&b, "initStart");
        buf_printf(&b, "\"initializationType\":\"%s\",\"phase\":\"init\",\"runtimeVersion\":\"%s\",\"functionName\":\"%s\","
                       "\"functionVersion\":\"%s\"", i->maker ? "snap-start" : v->f->provisioned ? "provisioned-concurrency" : "on-demand",
                   v->runtime, v->f->name, v->shown);
        event_end(i, NULL, LEVEL_INFO, &b);
        return;
    }
    n = snprintf(text, sizeof text, "INIT_START Runtime Version: %.60s\tRuntime Version ARN: ", v->runtime);
    say(i, NULL, text, (size_t)n);
}

void flog_init_report(struct instance *i, const char *status)
{
    struct buf b = {0};
    char text[200];
    int n;

    if (i->v->log_json) {
        event_begin(&b, "initReport");
        buf_printf(&b, "\"initializationType\":\"snap-start\",\"phase\":\"init\",\"status\":\"%s\",\"metrics\":{\"durationMs\":%.3f}",
                   status ? status : "success", (double)i->init_us / 1000);
        event_end(i, NULL, status ? LEVEL_WARN : LEVEL_INFO, &b);
        return;
    }
    n = snprintf(text, sizeof text, "INIT_REPORT Init Duration: %.2f ms\tPhase: init%s%s", (double)i->init_us / 1000,
                 status ? "\tStatus: " : "", status ? status : "");
    say(i, NULL, text, (size_t)n);
}

void flog_restore_start(struct instance *i)
{
    const struct version *v = i->v;
    struct buf b = {0};
    char text[200];
    int n;

    if (v->log_json) {
        event_begin(&b, "restoreStart");
        buf_printf(&b, "\"runtimeVersion\":\"%s\",\"functionName\":\"%s\",\"functionVersion\":\"%s\"", v->runtime, v->f->name, v->shown);
        event_end(i, NULL, LEVEL_INFO, &b);
        return;
    }
    n = snprintf(text, sizeof text, "RESTORE_START Runtime Version: %.60s\tRuntime Version ARN: ", v->runtime);
    say(i, NULL, text, (size_t)n);
}

void flog_restore_report(struct instance *i)
{
    struct buf b = {0};
    char text[100];
    int n;

    if (i->v->log_json) {
        event_begin(&b, "restoreReport");
        buf_printf(&b, "\"status\":\"success\",\"metrics\":{\"durationMs\":%.3f}", (double)i->restore_us / 1000);
        event_end(i, NULL, LEVEL_INFO, &b);
        return;
    }
    n = snprintf(text, sizeof text, "RESTORE_REPORT Restore Duration: %.2f ms", (double)i->restore_us / 1000);
    say(i, NULL, text, (size_t)n);
}

/* Of a restore that a call waited for, its hooks are billed: Lambda's "Billed Restore Duration". */
static unsigned long long restore_billed_ms(const struct instance *i, const struct function_result *r)
{
    return (unsigned long long)((MIN(i->hooks_us, r->init_us) + 999) / 1000);
}

void flog_start(struct instance *i, struct call *c)
{
    const struct version *v = i->v;
    struct buf b = {0};
    char text[200];
    int n;

    if (i->restored && !i->inited) {
        i->start_owed = true; /* after RESTORE_REPORT */
        return;
    }
    if (!i->warm && !i->restored && !i->init_told) {
        i->init_told = true; /* its first calls may be several */
        flog_init_start(i);
    }
    if (v->log_json) {
        event_begin(&b, "start");
        buf_printf(&b, "\"requestId\":\"%s\",\"version\":\"%s\"", c->id, v->shown);
        add_tracing(&b, c);
        event_end(i, c, LEVEL_INFO, &b);
        return;
    }
    n = (int)(stpcpy(stpcpy(stpcpy(stpcpy(text, "START RequestId: "), c->id), " Version: "), v->shown) - text);
    say(i, c, text, (size_t)n);
}

/* With JSON the report says it. */
void flog_note(struct instance *i, struct call *c, const char *text, const char *tail)
{
    if (!i->v->log_json)
        line(i, text, strlen(text));
    if (c && !i->v->log_json) {
        tail_add(c, text, strlen(text));
        tail_add(c, tail, strlen(tail));
    }
}

/* How a call ended: "success", "error" (the handler raised), "failure" (its process ended), "timeout". */
static const char *status_of(const struct instance *i, const struct call *c, const struct function_result *r)
{
    if (c->timed_out)
        return "timeout";
    if (!r->function_error)
        return "success";
    return i->exited || i->state == INSTANCE_DYING ? "failure" : "error";
}

static void report_json(struct instance *i, struct call *c, const struct function_result *r, int64_t handler_us, uint64_t billed_ms)
{
    const char *status = status_of(i, c, r);
    bool well = streq(status, "success");
    char timing[FUNCTION_TIMING_MAX];
    struct buf b = {0};

    event_begin(&b, "runtimeDone");
    buf_printf(&b, "\"requestId\":\"%s\",\"status\":\"%s\",\"metrics\":{\"durationMs\":%.3f,\"producedBytes\":%zu}", c->id, status,
               (double)handler_us / 1000, r->n);
    add_tracing(&b, c);
    event_end(i, c, well ? LEVEL_DEBUG : LEVEL_WARN, &b);
    event_begin(&b, "report");
    buf_printf(&b, "\"requestId\":\"%s\",\"metrics\":{\"durationMs\":%.3f,\"billedDurationMs\":%llu,\"memorySizeMB\":%d,"
                   "\"maxMemoryUsedMB\":%llu", c->id, (double)handler_us / 1000, (unsigned long long)billed_ms, i->v->memory_mb,
               (unsigned long long)((i->memory_kb + 1023) / 1024));
    if (i->restored && r->cold)
        buf_printf(&b, ",\"restoreDurationMs\":%.3f,\"billedRestoreDurationMs\":%llu", (double)i->restore_us / 1000, restore_billed_ms(i, r));
    else if (r->init_us)
        buf_printf(&b, ",\"initDurationMs\":%.3f", (double)r->init_us / 1000);
    function_timing_text(r, timing);
    buf_printf(&b, "},\"status\":\"%s\",\"timing\":\"%s\"", status, timing);
    add_tracing(&b, c);
    event_end(i, c, well ? LEVEL_INFO : LEVEL_WARN, &b);
}

/* Microseconds as milliseconds with two places. */
static char *put_ms(char *at, int64_t us)
{
    int64_t hundredths = (us + 5) / 10;

    at = function_put_number(at, hundredths / 100);
    *at++ = '.';
    *at++ = (char)('0' + hundredths / 10 % 10);
    *at++ = (char)('0' + hundredths % 10);
    *at = 0;
    return at;
}

void flog_report(struct instance *i, struct call *c, const struct function_result *r, int64_t handler_us, uint64_t billed_ms)
{
    const char *status = status_of(i, c, r);
    char text[500 + FUNCTION_TIMING_MAX], *at;
    const char *parent = strstr(c->trace_id, ";Parent=");

    if (i->v->log_json) {
        report_json(i, c, r, handler_us, billed_ms);
        return;
    }
    at = stpcpy(stpcpy(text, "END RequestId: "), c->id);
    say(i, c, text, (size_t)(at - text));
    at = put_ms(stpcpy(stpcpy(stpcpy(text, "REPORT RequestId: "), c->id), "\tDuration: "), handler_us);
    at = function_put_number(stpcpy(at, " ms\tBilled Duration: "), (int64_t)billed_ms);
    at = function_put_number(stpcpy(at, " ms\tMemory Size: "), i->v->memory_mb);
    at = function_put_number(stpcpy(at, " MB\tMax Memory Used: "), (int64_t)((i->memory_kb + 1023) / 1024));
    at = stpcpy(at, " MB\t");
    if (i->restored && r->cold) {
        at = put_ms(stpcpy(at, "Restore Duration: "), i->restore_us);
        at = stpcpy(function_put_number(stpcpy(at, " ms\tBilled Restore Duration: "), (int64_t)restore_billed_ms(i, r)), " ms\t");
    } else if (r->init_us) {
        at = stpcpy(put_ms(stpcpy(at, "Init Duration: "), r->init_us), " ms\t");
    }
    if (streq(status, "timeout"))
        at = stpcpy(at, "Status: timeout\t");
    else if (i->exited)
        at = stpcpy(at, "Status: error\tError Type: Runtime.ExitError\t");
    at = stpcpy(at, "Timing: ");
    function_timing_text(r, at);
    at = stpcpy(at + strlen(at), "\t");
    if (c->trace.sampled)
        at += snprintf(at, sizeof text - (size_t)(at - text), "XRAY TraceId: 1-%.8s-%s\tSegmentId: %.16s\tSampled: true\t", c->trace.id,
                       c->trace.id + 8, parent ? parent + 8 : "");
    say(i, c, text, (size_t)(at - text));
}

/* ---- printing without end ---- */

static void throw_away(struct instance *i, size_t most)
{
    for (size_t done = 0; done < most;) {
        ssize_t n = splice(i->log, NULL, i->v->f->fs->null_fd, NULL, most - done, SPLICE_F_NONBLOCK);

        if (n <= 0)
            return;
        done += (size_t)n;
        i->log_thrown += (size_t)n;
    }
}

static void tell_thrown(struct instance *i)
{
    char text[160];
    int n = snprintf(text, sizeof text, "tandem: %llu bytes that were printed here are lost: more than %d MiB at once and %d MiB a second are not kept",
                     (unsigned long long)i->log_thrown, LOG_BURST >> 20, (4 * LOG_PER_TICK) >> 20);

    if (i->log_thrown)
        line(i, text, (size_t)n);
    i->log_thrown = 0;
}

static void on_flood(uv_timer_t *t)
{
    struct functions *fs = t->data;

    LIST_EACH(&fs->flooding, l)
    throw_away(list_entry(l, struct instance, flood_link), FLOOD_PIPE);
}

bool flog_flooded(struct instance *i, size_t n)
{
    struct functions *fs = i->v->f->fs;

    if (i->log_left > n) {
        i->log_left -= n;
        return false;
    }
    i->log_left = 0;
    if (list_linked(&i->flood_link))
        return true;
    list_push(&fs->flooding, &i->flood_link);
    (void)!fcntl(i->log, F_SETPIPE_SZ, FLOOD_PIPE);
    if (!uv_is_active((uv_handle_t *)&fs->flood) && !fs->stopping)
        uv_timer_start(&fs->flood, on_flood, FLOOD_MS, FLOOD_MS);
    return true;
}

void flog_unflood(struct instance *i)
{
    int there = 0;

    if (list_linked(&i->flood_link) && ioctl(i->log, FIONREAD, &there) == 0 && there > 16384)
        throw_away(i, (size_t)there - 16384);
    tell_thrown(i);
}

/* Four times a second: who flooded may print again. */
void flog_tick(struct functions *fs)
{
    LIST_EACH(&fs->flooding, l)
    {
        struct instance *i = list_entry(l, struct instance, flood_link);

        throw_away(i, FLOOD_PIPE);
        list_remove(l);
        i->log_left = LOG_PER_TICK;
        tell_thrown(i);
        instance_read_log(i);
    }
    uv_timer_stop(&fs->flood);
}
