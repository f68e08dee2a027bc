/* apiserver/health.c - /healthz, /livez, /readyz and their single checks; /flagz and /statusz. */
#include "apiserver/api_int.h"

#include <stdio.h>
#include <time.h>

static const char PLAIN[] = "text/plain; charset=utf-8";

enum where { LIVE = 1, READY = 2, BOTH = 3 };
enum look { DONE_AT_START, STORE, STOPPING };

/* The checks of a stock server that have something behind them here. What runs after its start there
 * (poststarthook/...) is done here before the first connection is taken. */
static const struct check {
    const char *name;
    enum where where;
    enum look look;
} CHECKS[] = {
    {"ping", BOTH, DONE_AT_START},
    {"log", BOTH, DONE_AT_START},
    {"loopback-serving-certificate", LIVE, DONE_AT_START},
    {"etcd", BOTH, STORE},
    {"etcd-readiness", READY, STORE},
    {"informer-sync", READY, DONE_AT_START},
    {"poststarthook/start-apiserver-admission-initializer", BOTH, DONE_AT_START},
    {"poststarthook/generic-apiserver-start-informers", BOTH, DONE_AT_START},
    {"poststarthook/priority-and-fairness-config-consumer", BOTH, DONE_AT_START},
    {"poststarthook/priority-and-fairness-filter", BOTH, DONE_AT_START},
    {"poststarthook/start-apiextensions-informers", BOTH, DONE_AT_START},
    {"poststarthook/start-apiextensions-controllers", BOTH, DONE_AT_START},
    {"poststarthook/crd-informer-synced", BOTH, DONE_AT_START},
    {"poststarthook/start-system-namespaces-controller", BOTH, DONE_AT_START},
    {"poststarthook/storage-readiness", BOTH, STORE},
    {"poststarthook/rbac/bootstrap-roles", BOTH, DONE_AT_START},
    {"poststarthook/scheduling/bootstrap-system-priority-classes", BOTH, DONE_AT_START},
    {"poststarthook/priority-and-fairness-config-producer", BOTH, DONE_AT_START},
    {"poststarthook/bootstrap-controller", BOTH, DONE_AT_START},
    {"shutdown", READY, STOPPING},
};

static bool fails(struct call *c, const struct check *k)
{
    struct err why;

    return (k->look == STORE && store_failing(c->api->store, &why)) ||
           (k->look == STOPPING && c->api->stopping);
}

static int plain(struct call *c, int status, struct buf *b)
{
    answer_text(c, status, PLAIN, arena_memdup(c->a, b->p ? b->p : "", b->n), b->n);
    buf_done(b);
    return 0;
}

static bool excluded(struct call *c, const char *name)
{
    for (uint32_t i = 0; i < c->params_n; i++)
        if (streq(c->params[i].name, "exclude") && streq(c->params[i].value, name))
            return true;
    return false;
}

static void warn_unknown(struct call *c, struct buf *b, enum where where)
{
    const char *sep = "warn: some health checks cannot be excluded: no matches for ";

    for (uint32_t i = 0; i < c->params_n; i++) {
        bool known = !streq(c->params[i].name, "exclude") || !*c->params[i].value;

        for (size_t k = 0; k < ARRAY_LEN(CHECKS); k++)
            known |= CHECKS[k].where & where && streq(CHECKS[k].name, c->params[i].value);
        if (known)
            continue;
        buf_printf(b, "%s\"%s\"", sep, c->params[i].value);
        sep = ", ";
    }
    if (*sep == ',')
        buf_addc(b, '\n');
}

int health_serve(struct call *c, const char *which, const char *check)
{
    enum where where = streq(which, "readyz") ? READY : LIVE;
    struct buf b = {.max = 1 << 16};
    bool bad = false;

    for (size_t i = 0; i < ARRAY_LEN(CHECKS); i++) {
        const struct check *k = &CHECKS[i];
        bool out = excluded(c, k->name);

        if (!(k->where & where))
            continue;
        if (streq(check, k->name)) {
            buf_done(&b);
            buf_adds(&b, fails(c, k) ? "internal server error: it does not take writes\n" : "ok");
            return plain(c, fails(c, k) ? 500 : 200, &b);
        }
        bad |= !out && fails(c, k);
        buf_printf(&b, !out && fails(c, k) ? "[-]%s failed: reason withheld\n" : out ? "[+]%s excluded: ok\n" : "[+]%s ok\n",
                   k->name);
    }
    if (*check) {
        buf_done(&b);
        buf_adds(&b, "404 page not found\n");
        return plain(c, 404, &b);
    }
    warn_unknown(c, &b, where);
    buf_printf(&b, "%s check %s\n", which, bad ? "failed" : "passed");
    if (!bad && !param(c, "verbose")) {
        buf_reset(&b);
        buf_adds(&b, "ok");
    }
    return plain(c, bad ? 500 : 200, &b);
}

static const char NOT_FOR_MACHINES[] =
    "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for "
    "debugging purposes only.\n";

int flagz_serve(struct call *c)
{
    struct buf b = {.max = 1 << 20};

    buf_printf(&b, "apiserver flagz\n%s%s", NOT_FOR_MACHINES, c->api->flags);
    return plain(c, 200, &b);
}

int statusz_serve(struct call *c)
{
    int64_t up_s = (c->now_ms - c->api->start_ms) / 1000;
    time_t start = (time_t)(c->api->start_ms / 1000);
    struct buf b = {.max = 1 << 20};
    char text[64];
    struct tm tm;

    strftime(text, sizeof text, "%a %b %e %H:%M:%S UTC %Y", gmtime_r(&start, &tm));
    buf_printf(&b, "\napiserver statusz\n%s\nStarted:  %s\nUp:  %lld hr %02lld min %02lld sec\nGo version:  none\n"
               "Binary version:  %s\nEmulation version:  1.36\n"
               "Paths:  /flagz /healthz /livez /metrics /readyz /statusz /version\n",
               NOT_FOR_MACHINES, text, (long long)up_s / 3600, (long long)up_s / 60 % 60, (long long)up_s % 60,
               KUBERNETES_VERSION + 1);
    return plain(c, 200, &b);
}
