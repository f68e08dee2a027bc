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

/* Which form of a z-page is wanted: 0 text, 1 and 2 structured (v1alpha1, v1beta1 of config.k8s.io), -1 none that
 * there is. The first that fits, as it was asked; a structured form must be named whole. */
static int z_form(const char *accept, const char *kind, bool *ret_yaml)
{
    _auto_(freep) char *as = xasprintf(";as=%s", kind);

    if (str_empty(accept))
        return 0;
    for (const char *s = accept; *s;) {
        size_t n = strcspn(s, ","), k = 0;
        char one[256];

        for (size_t i = 0; i < n && k + 1 < sizeof(one); i++)
            if (s[i] != ' ')
                one[k++] = s[i];
        one[k] = 0;
        *ret_yaml = str_starts(one, "application/yaml;");
        if (str_starts(one, "*/*") || str_starts(one, "text/*") || str_starts(one, "text/plain"))
            return 0;
        if ((*ret_yaml || str_starts(one, "application/json;")) && strstr(one, as) && strstr(one, ";g=config.k8s.io") &&
            (strstr(one, ";v=v1alpha1") || strstr(one, ";v=v1beta1")))
            return strstr(one, ";v=v1alpha1") ? 1 : 2;
        s += n + (s[n] == ',');
    }
    return -1;
}

/* The head of a structured page. NULL: the call is answered (or refused) already. */
static struct val *z_page(struct call *c, const char *kind, int form)
{
    struct val *v = val_map(c->a);

    val_put_str(c->a, v, "kind", kind);
    val_put_str(c->a, v, "apiVersion", form == 1 ? "config.k8s.io/v1alpha1" : "config.k8s.io/v1beta1");
    val_put_str(c->a, val_need_map(c->a, v, "metadata"), "name", "apiserver");
    if (form == 1) {
        char *low = arena_strdup(c->a, kind);

        low[0] |= 0x20;
        texts_add(&c->warnings, "This version of the %s endpoint is deprecated. Please use a newer version.", low);
    }
    return v;
}

static int z_refuse(struct call *c)
{
    return fail(c, 406, "NotAcceptable", "only the following media types are accepted: application/json, application/yaml, "
                "text/plain");
}

static int z_answer(struct call *c, const struct val *v, bool yaml)
{
    if (yaml)
        c->encoding = ENC_YAML;
    answer_val(c, 200, v);
    return 0;
}

int flagz_serve(struct call *c)
{
    struct buf b = {.max = 1 << 20};
    struct val *v, *flags;
    bool yaml;
    int form = z_form(c->req->accept, "Flagz", &yaml);

    if (form < 0)
        return z_refuse(c);
    if (!form) {
        buf_printf(&b, "\napiserver flagz\n%s%s", NOT_FOR_MACHINES, c->api->flags);
        return plain(c, 200, &b);
    }
    v = z_page(c, "Flagz", form);
    flags = val_map(c->a);
    for (const char *s = c->api->flags; *s;) {
        size_t n = strcspn(s, "\n"), name = strcspn(s, "=");

        if (name < n)
            val_putn(c->a, flags, arena_strndup(c->a, s, name), (uint32_t)name, val_strn(c->a, s + name + 1, n - name - 1));
        s += n + (s[n] == '\n');
    }
    if (val_len(flags))
        val_put(c->a, v, "flags", flags);
    return z_answer(c, v, yaml);
}

/* What is worth a look while something is wrong: the first words of the paths that "/" lists. */
static const char *const Z_PATHS[] = {"/debug", "/flagz", "/healthz", "/livez", "/metrics", "/readyz", "/statusz", "/version"};

int statusz_serve(struct call *c)
{
    int64_t up_s = (c->now_ms - c->api->start_ms) / 1000;
    time_t start = (time_t)(c->api->start_ms / 1000);
    struct buf b = {.max = 1 << 20};
    struct val *v;
    char text[64];
    struct tm tm;
    bool yaml;
    int form = z_form(c->req->accept, "Statusz", &yaml);

    if (form < 0)
        return z_refuse(c);
    if (form) {
        v = z_page(c, "Statusz", form);
        val_put_str(c->a, v, "startTime", time_text(c->a, c->api->start_ms / 1000 * 1000000, false));
        val_put_int(c->a, v, "uptimeSeconds", up_s);
        val_put_str(c->a, v, "goVersion", "");
        val_put_str(c->a, v, "binaryVersion", KUBERNETES_VERSION + 1);
        val_put_str(c->a, v, "emulationVersion", "1.36");
        for (size_t i = 0; i < ARRAY_LEN(Z_PATHS); i++)
            val_push_str(c->a, val_need_list(c->a, v, "paths"), Z_PATHS[i]);
        return z_answer(c, v, yaml);
    }
    strftime(text, sizeof text, "%a %b %e %H:%M:%S UTC %Y", gmtime_r(&start, &tm));
    buf_printf(&b, "\napiserver statusz\n%s\nStarted: %s\nUp: %lld hr %02lld min %02lld sec\nGo version: none\n"
               "Binary version: %s\nEmulation version: 1.36\nPaths:",
               NOT_FOR_MACHINES, text, (long long)up_s / 3600, (long long)up_s / 60 % 60, (long long)up_s % 60,
               KUBERNETES_VERSION + 1);
    for (size_t i = 0; i < ARRAY_LEN(Z_PATHS); i++)
        buf_printf(&b, " %s", Z_PATHS[i]);
    buf_addc(&b, '\n');
    return plain(c, 200, &b);
}
