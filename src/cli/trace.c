/* tandem trace: where the time of a call went, or of a function's last calls. All of it stands in the REPORT line that each
 * call leaves in the log (text, or with logFormat JSON an object); the lines between START and END are the call's own. */
#include "cli/logs.h"

#include "codec/json.h"
#include "http/server.h"

#include <time.h>

enum { CALLS_MAX = 1000, LINES_MAX = 200, BAR = 40 };

static const struct {
    const char *name, *what;
} STEPS[] = {
    {"queue", "waited for a place"},        {"place", "found an instance"}, {"fork", "started one"},
    {"init", "loaded the module"},          {"handler", "the function"},    {"answer", "there and back"},
};
enum { STEPS_N = ARRAY_LEN(STEPS) };
static const struct {
    const char *name, *what;
} RUNGS[] = {
    {"warm", "an instance that had answered before"}, {"stem", "an instance that was forked ahead"},
    {"zygote", "a fork of the version's own zygote"}, {"runtime", "a fork of the runtime's zygote"},
    {"fresh", "a new process"},
};

struct call {
    char time[32], group[200], stream[120], id[64], rung[12], status[16];
    char trace[33], span[17]; /* "": it was not sampled */
    int64_t us[STEPS_N], total;
    double billed_ms, memory_mb, used_mb;
    bool cold;
};
struct calls {
    struct call *v;    /* a ring: the last `want` */
    uint32_t n, want;
    const char *id;    /* only this request */
    char *lines[LINES_MAX];
    uint32_t lines_n, more;
};

static void read_timing(struct call *c, const char *text)
{
    for (const char *p = text; *p;) {
        size_t n = strcspn(p, ";\t ");
        const char *eq = memchr(p, '=', n);

        if (!eq)
            break;
        for (size_t i = 0; i < STEPS_N; i++)
            if (strlen(STEPS[i].name) == (size_t)(eq - p) && strncmp(p, STEPS[i].name, (size_t)(eq - p)) == 0)
                c->us[i] = strtoll(eq + 1, NULL, 10);
        if (str_starts(p, "rung="))
            snprintf(c->rung, sizeof c->rung, "%.*s", (int)(p + n - eq - 1), eq + 1);
        else if (str_starts(p, "total="))
            c->total = strtoll(eq + 1, NULL, 10);
        else if (str_starts(p, "cold="))
            c->cold = eq[1] == '1';
        p += n;
        p += *p == ';';
    }
}

static double after_word(const char *text, const char *word)
{
    const char *p = strstr(text, word);

    return p ? strtod(p + strlen(word), NULL) : 0;
}

static const char *behind(const char *text, const char *word)
{
    const char *p = strstr(text, word);

    return p ? p + strlen(word) : NULL;
}

/* "1-8hex-24hex" and "16hex"; NULL: not said. */
static void read_ids(struct call *c, const char *root, const char *span)
{
    if (!root || strlen(root) < 35 || root[1] != '-' || root[10] != '-')
        return;
    snprintf(c->trace, sizeof c->trace, "%.8s%.24s", root + 2, root + 11);
    snprintf(c->span, sizeof c->span, "%.16s", span ? span : "");
}

/* false: it is no REPORT. */
static bool read_text(struct call *c, const char *text)
{
    const char *timing = strstr(text, "Timing: "), *status = strstr(text, "Status: ");

    if (!str_starts(text, "REPORT RequestId: ") || !timing)
        return false;
    text += strlen("REPORT RequestId: ");
    snprintf(c->id, sizeof c->id, "%.*s", (int)strcspn(text, "\t "), text);
    snprintf(c->status, sizeof c->status, "%.*s", status ? (int)strcspn(status + 8, "\t") : 2, status ? status + 8 : "ok");
    c->billed_ms = after_word(text, "Billed Duration: ");
    c->memory_mb = after_word(text, "Memory Size: ");
    c->used_mb = after_word(text, "Max Memory Used: ");
    read_timing(c, timing + strlen("Timing: "));
    read_ids(c, behind(text, "XRAY TraceId: "), behind(text, "\tSegmentId: "));
    return true;
}

static bool read_json(struct call *c, const char *text, size_t n)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err ignored;
    struct val *v = n && text[0] == '{' ? json_parse(a, text, n, &ignored) : NULL;
    const char *timing = val_str_at(v, "record.timing", NULL), *status = val_str_at(v, "record.status", "");

    if (!timing || !streq(val_str_at(v, "type", ""), "platform.report"))
        return false;
    snprintf(c->id, sizeof c->id, "%s", val_str_at(v, "record.requestId", ""));
    snprintf(c->status, sizeof c->status, "%s", streq(status, "success") ? "ok" : status);
    c->billed_ms = val_num_at(v, "record.metrics.billedDurationMs", 0);
    c->memory_mb = val_num_at(v, "record.metrics.memorySizeMB", 0);
    c->used_mb = val_num_at(v, "record.metrics.maxMemoryUsedMB", 0);
    read_timing(c, timing);
    read_ids(c, behind(val_str_at(v, "record.tracing.value", ""), "Root="), val_str_at(v, "record.tracing.spanId", NULL));
    return true;
}

static bool on_line(void *arg, const struct log_seen *e)
{
    struct calls *all = arg;
    struct call c = {0};

    if ((!read_text(&c, e->text) && !read_json(&c, e->text, e->n)) || (all->id && !streq(c.id, all->id)))
        return true;
    snprintf(c.time, sizeof c.time, "%s", e->time);
    snprintf(c.group, sizeof c.group, "%s", e->group);
    snprintf(c.stream, sizeof c.stream, "%s", e->stream);
    all->v[all->n++ % all->want] = c;
    return true;
}

/* What the call printed: an instance has one call at a time, so all that its stream holds of that while. */
static bool on_own_line(void *arg, const struct log_seen *e)
{
    struct calls *all = arg;
    const struct call *c = &all->v[0];
    bool start = str_starts(e->text, "START RequestId: ") || (e->text[0] == '{' && strstr(e->text, "\"type\":\"platform.start\""));

    if (!streq(e->stream, c->stream) || !streq(e->group, c->group))
        return true;
    if (start && strstr(e->text, all->id)) /* what was before is of the call before */
        while (all->lines_n)
            free(all->lines[--all->lines_n]);
    if (start || str_starts(e->text, "END RequestId: ") || str_starts(e->text, "REPORT RequestId: ") || str_starts(e->text, "INIT_START ") ||
        (e->text[0] == '{' && strstr(e->text, "\"type\":\"platform.")))
        return true;
    if (all->lines_n < LINES_MAX)
        all->lines[all->lines_n++] = xasprintf("%s %s", e->time + MIN(strlen(e->time), (size_t)11), e->text);
    else
        all->more++;
    return true;
}

static int read_own_lines(const struct cli_opts *o, struct calls *all, struct err *err)
{
    int64_t end = logs_seen_ms(all->v[0].time);
    char how[80];

    snprintf(how, sizeof how, "since=%lld&until=%lld", (long long)(end - all->v[0].total / 1000 - 2), (long long)end + 1);
    return logs_read(o, NULL, how, false, on_own_line, all, err);
}

/* ---- shown ---- */

static const char *short_name(const struct call *c)
{
    return str_starts(c->group, "/aws/lambda/") ? c->group + strlen("/aws/lambda/") : c->group;
}

static struct val *call_val(struct arena *a, const struct call *c)
{
    struct val *v = val_map(a), *us;

    val_put_str(a, v, "requestId", c->id);
    val_put_str(a, v, "function", short_name(c));
    val_put_str(a, v, "time", c->time);
    val_put_str(a, v, "stream", c->stream);
    val_put_str(a, v, "status", c->status);
    val_put_str(a, v, "rung", c->rung);
    val_put_bool(a, v, "cold", c->cold);
    if (*c->trace) {
        val_put_str(a, v, "traceId", c->trace);
        val_put_str(a, v, "spanId", c->span);
    }
    us = val_put(a, v, "us", val_map(a));
    for (size_t i = 0; i < STEPS_N; i++)
        val_put_int(a, us, STEPS[i].name, c->us[i]);
    val_put_int(a, us, "total", c->total);
    val_put(a, v, "billedMs", val_double(a, c->billed_ms));
    val_put(a, v, "memoryMB", val_double(a, c->memory_mb));
    val_put(a, v, "memoryUsedMB", val_double(a, c->used_mb));
    return v;
}

static void show_one(const struct call *c, const struct calls *all)
{
    const char *rung = "";

    for (size_t i = 0; i < ARRAY_LEN(RUNGS); i++)
        if (streq(RUNGS[i].name, c->rung))
            rung = RUNGS[i].what;
    printf("request   %s\nfunction  %s\nat        %s (its end)\nended     %s\nby        %s%s%s%s\nbilled    %.0f ms, %.0f of %.0f MB\n", c->id,
           short_name(c), c->time, c->status, c->rung, *rung ? ": " : "", rung, c->cold ? ", a cold start" : "", c->billed_ms, c->used_mb,
           c->memory_mb);
    if (*c->trace)
        printf("trace     %s, span %s\n", c->trace, c->span);
    printf("\n");
    for (size_t i = 0; i < STEPS_N; i++) {
        int n = c->total > 0 ? (int)MIN(c->us[i] * BAR / c->total, (int64_t)BAR) : 0;

        printf("%-8s %10.3f ms  %.*s%*s  %s\n", STEPS[i].name, (double)c->us[i] / 1000, n, "########################################", BAR - n, "",
               STEPS[i].what);
    }
    printf("%-8s %10.3f ms\n", "total", (double)c->total / 1000);
    if (all->lines_n)
        printf("\n");
    for (uint32_t i = 0; i < all->lines_n; i++)
        printf("%s\n", all->lines[i]);
    if (all->more)
        printf("... and %u lines more\n", all->more);
}

static void show_many(const struct calls *all)
{
    printf("%-24s  %-36s  %-7s", "TIME", "REQUEST", "RUNG");
    for (size_t i = 0; i < STEPS_N; i++)
        printf(" %9s", STEPS[i].name);
    printf(" %9s  %s\n", "total ms", "STATUS");
    for (uint32_t i = all->n - MIN(all->n, all->want); i < all->n; i++) {
        const struct call *c = &all->v[i % all->want];

        printf("%-24s  %-36s  %-7s", c->time, c->id, c->rung);
        for (size_t k = 0; k < STEPS_N; k++)
            printf(" %9.3f", (double)c->us[k] / 1000);
        printf(" %9.3f  %s\n", (double)c->total / 1000, c->status);
    }
}

static bool is_request_id(const char *w)
{
    static const char FORM[] = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";

    if (strlen(w) != sizeof FORM - 1)
        return false;
    for (size_t i = 0; FORM[i]; i++)
        if ((w[i] == '-') != (FORM[i] == '-') || (w[i] != '-' && !strchr("0123456789abcdef", w[i])))
            return false;
    return true;
}

static int show(const struct cli_opts *o, const struct calls *all)
{
    if (o->json) {
        _auto_(arena_freep) struct arena *a = arena_new();
        struct val *list = val_list(a);

        for (uint32_t i = all->n - MIN(all->n, all->want); i < all->n; i++)
            val_push(a, list, call_val(a, &all->v[i % all->want]));
        printf("%s\n", json_text(a, list, NULL));
        return EXIT_SUCCESS;
    }
    if (!all->n)
        return all->id ? complain(EXIT_FAILURE, "no call %s has ended since then; look further back with --since 1d", all->id)
                       : complain(EXIT_FAILURE, "%s has not been called yet", o->args[0]);
    if (all->id)
        show_one(&all->v[0], all);
    else
        show_many(all);
    return EXIT_SUCCESS;
}

int cmd_trace(struct cli_opts *o, int argc, char **argv)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct calls all = {.want = o->tail >= 0 ? (uint32_t)MIN(MAX(o->tail, 1), CALLS_MAX) : 10};
    const char *filter = "?\"REPORT RequestId\" ?\"platform.report\"", *how;
    int64_t since = 0;
    struct err err;
    int rc;

    (void)argc, (void)argv;
    if (o->args_n != 1 || !function_name_ok(o->args[0]))
        return complain(EXIT_USAGE, "usage: tandem trace REQUEST_ID | NAME [--tail N] [--since TIME] [--json]");
    if (is_request_id(o->args[0])) {
        all.id = o->args[0];
        all.want = 1;
        filter = arena_printf(a, "\"%s\"", all.id);
        since = ((int64_t)time(NULL) - 3600) * 1000;
    }
    if (o->since && (rc = logs_since_ms(o->since, &since)))
        return rc;
    /* without a time it is the log's end that counts: the last N that match */
    how = all.id || o->since ? arena_printf(a, "since=%lld&filter=%s", (long long)since, http_escape(a, filter, ""))
                             : arena_printf(a, "tail=%u&filter=%s", all.want, http_escape(a, filter, ""));
    all.v = xcalloc(all.want, sizeof *all.v);
    if (logs_read(o, all.id ? NULL : o->args[0], how, false, on_line, &all, &err) < 0 ||
        (all.id && all.n && !o->json && read_own_lines(o, &all, &err) < 0))
        rc = complain_err(&err);
    else
        rc = show(o, &all);
    free(all.v);
    while (all.lines_n)
        free(all.lines[--all.lines_n]);
    return rc;
}
