/* tandem logs, tail: what functions print. Both read one answer of the gateway (gateway/follow.c) that goes on for as long
 * as they look; nobody polls. When the gateway is started again they go on from the last line they saw. */
#include "cli/logs.h"
#include "env/clock.h"

#include <time.h>
#include <unistd.h>

enum { EVENT_MAX = 2 << 20, TAIL_MAX = 10000, AGAIN_MS = 300 };

int logs_since_ms(const char *word, int64_t *ret)
{
    static const struct {
        const char *unit;
        int64_t ms;
    } UNITS[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}, {"w", 604800000}};
    struct tm tm = {0};
    char *end;
    long long n;

    end = strptime(word, "%Y-%m-%dT%H:%M:%S", &tm);
    if (end) {
        if (*end == '.')
            end += 1 + strspn(end + 1, "0123456789");
        if (*end && !streq(end, "Z"))
            return complain(EXIT_USAGE, "--since: times are told in UTC, as 2026-01-31T12:00:00Z");
        *ret = (int64_t)timegm(&tm) * 1000;
        return 0;
    }
    n = strtoll(word, &end, 10);
    for (size_t i = 0; end > word && n >= 0 && n < 1000000000 && i < ARRAY_LEN(UNITS); i++)
        if (streq(end, UNITS[i].unit)) {
            *ret = MAX(clock_real_ms() - n * UNITS[i].ms, (int64_t)0);
            return 0;
        }
    return complain(EXIT_USAGE, "--since wants a duration (30s, 10m, 2h, 1d) or a time (2026-01-31T12:00:00Z), not '%s'", word);
}

/* ---- the stream ---- */

struct reader {
    struct buf rest; /* of an event that is not whole yet */
    log_event_fn *fn;
    void *arg;
    char last[40]; /* time of the last event */
    bool stop;
};

static char *cut(char **at, char *end)
{
    char *p = *at, *tab = memchr(p, '\t', (size_t)(end - p));

    if (!tab)
        return NULL;
    *tab = 0;
    *at = tab + 1;
    return p;
}

static bool one_event(struct reader *r, char *p, char *end)
{
    struct log_seen e = {0};

    *end = 0;
    e.time = cut(&p, end);
    e.group = e.time ? cut(&p, end) : NULL;
    e.stream = e.group ? cut(&p, end) : NULL;
    if (!e.stream)
        return true; /* nothing of ours */
    e.text = p;
    e.n = (size_t)(end - p);
    while (e.n && (p[e.n - 1] == '\n' || p[e.n - 1] == '\r'))
        p[--e.n] = 0;
    snprintf(r->last, sizeof r->last, "%s", e.time);
    return r->fn(r->arg, &e);
}

static bool on_bytes(void *arg, const char *p, size_t n)
{
    struct reader *r = arg;
    char *at, *stop;

    buf_add(&r->rest, p, n);
    if (r->rest.over)
        return false;
    for (at = r->rest.p; (stop = memchr(at, '\x1e', r->rest.n - (size_t)(at - r->rest.p))); at = stop + 1)
        if (!one_event(r, at, stop)) {
            r->stop = true;
            return false;
        }
    r->rest.n -= (size_t)(at - r->rest.p);
    memmove(r->rest.p, at, r->rest.n);
    fflush(stdout);
    return !ferror(stdout); /* whoever read it is gone */
}

int64_t logs_seen_ms(const char *time)
{
    struct tm tm = {0};
    const char *end = strptime(time, "%Y-%m-%dT%H:%M:%S", &tm);

    return end ? (int64_t)timegm(&tm) * 1000 + (*end == '.' ? atoi(end + 1) : 0) : 0;
}

int logs_read(const struct cli_opts *o, const char *name, const char *how, bool follow, log_event_fn *fn, void *arg,
              struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const char *base = arena_printf(a, "/follow/%s%s%s", o->namespace_ ? o->namespace_ : "default", name ? "/" : "", name ? name : "");
    struct reader r = {.rest = {.max = EVENT_MAX}, .fn = fn, .arg = arg};
    const char *path = arena_printf(a, "%s?%s%s", base, how, follow ? "" : "&once=1");
    int rc, began = 0;

    for (;;) {
        rc = socket_stream(o, "gateway", path, on_bytes, &r, err);
        began |= rc == 0 || *r.last;
        if (!follow || r.stop || ferror(stdout) || !began || !instance_pid(o))
            break;
        r.rest.n = 0; /* the gateway went; it is started again */
        nanosleep(&(struct timespec){0, AGAIN_MS * 1000000L}, NULL);
        path = *r.last ? arena_printf(a, "%s?since=%lld", base, (long long)logs_seen_ms(r.last) + 1) : arena_printf(a, "%s?%s", base, how);
    }
    buf_done(&r.rest);
    return r.stop || ferror(stdout) ? 0 : rc;
}

/* ---- the commands ---- */

static bool print_event(void *arg, const struct log_seen *e)
{
    (void)arg;
    printf("%s\t%s\t%s\n", e->time, e->stream, e->text);
    return true;
}

int cmd_logs(struct cli_opts *o, int argc, char **argv)
{
    char how[64];
    struct err err;
    int64_t since;
    int rc;

    (void)argc, (void)argv;
    if (o->args_n != 1 || !function_name_ok(o->args[0]))
        return complain(EXIT_USAGE, "usage: tandem logs NAME [-f] [--tail N] [--since TIME]");
    if (o->since && o->tail >= 0)
        return complain(EXIT_USAGE, "--tail and --since exclude each other");
    if (o->since && (rc = logs_since_ms(o->since, &since)))
        return rc;
    if (o->since)
        snprintf(how, sizeof how, "since=%lld", (long long)since);
    else
        snprintf(how, sizeof how, "tail=%d", o->tail >= 0 ? MIN(MAX(o->tail, 1), TAIL_MAX) : TAIL_MAX);
    return logs_read(o, o->args[0], how, o->follow, print_event, NULL, &err) < 0 ? complain_err(&err) : EXIT_SUCCESS;
}

struct tail {
    bool colours;
};

/* A colour per name, the same every time; 31 (red) is kept for what went wrong. */
static int colour_of(const char *name)
{
    static const int colours[] = {32, 33, 34, 35, 36, 92, 93, 94, 95, 96};
    uint32_t h = 2166136261u;

    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * 16777619u;
    return colours[(h >> 16) % ARRAY_LEN(colours)];
}

static bool is_bad(const char *text)
{
    return str_starts(text, "[ERROR]") || str_starts(text, "Traceback") || strstr(text, "\tERROR\t") || strstr(text, "Task timed out") ||
           strstr(text, "Error Type: ");
}

static bool tail_event(void *arg, const struct log_seen *e)
{
    const struct tail *t = arg;
    const char *name = str_starts(e->group, "/aws/lambda/") ? e->group + strlen("/aws/lambda/") : e->group;

    if (t->colours)
        printf("\033[2m%s\033[0m \033[%dm%-20s\033[0m %s%s%s\n", e->time, colour_of(name), name, is_bad(e->text) ? "\033[31m" : "", e->text,
               is_bad(e->text) ? "\033[0m" : "");
    else
        printf("%s %-20s %s\n", e->time, name, e->text);
    return true;
}

int cmd_tail(struct cli_opts *o, int argc, char **argv)
{
    struct tail t = {.colours = on_terminal()};
    int64_t since = clock_real_ms();
    char how[64];
    struct err err;
    int rc;

    (void)argc, (void)argv;
    if (o->args_n)
        return complain(EXIT_USAGE, "usage: tandem tail [--since TIME] (of one function: tandem logs -f NAME)");
    if (o->since && (rc = logs_since_ms(o->since, &since)))
        return rc;
    snprintf(how, sizeof how, "since=%lld", (long long)since);
    return logs_read(o, NULL, how, !o->once, tail_event, &t, &err) < 0 ? complain_err(&err) : EXIT_SUCCESS;
}
