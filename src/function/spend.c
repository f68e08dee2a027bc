/* Spending limits: what a function (all its versions) and a namespace cost this month, and the stop at the limit.
 *
 * Cost is reckoned from what is billed: calls and GB-seconds at the prices handed in, without free tiers. Counted at the end
 * of each call, so those at work when the limit is reached still end: a limit may be passed by what was at work at once.
 * Kept with the meter (a crash forgets its last few seconds). Months are those of UTC. */
#include "function/function_int.h"

#include "base/log.h"

#include <stdio.h>
#include <time.h>

static int month_now(void)
{
    time_t t = (time_t)(wall_ms() / 1000);
    struct tm tm;

    gmtime_r(&t, &tm);
    return (tm.tm_year + 1900) * 100 + tm.tm_mon + 1;
}

struct spending *spending_of(struct functions *fs, const char *key)
{
    struct spending *s = map_get(&fs->spendings, key);

    if (!s) {
        s = xcalloc(1, sizeof *s);
        s->key = xstrdup(key);
        s->limit = -1;
        s->month = fs->month ? fs->month : month_now();
        map_put(&fs->spendings, key, s);
    }
    return s;
}

double spending_cost(const struct functions *fs, const struct spending *s)
{
    return (double)s->requests * fs->price_request + (double)s->gb_us / 1e6 * fs->price_gb_s;
}

static const char *what_of(const struct spending *s, char out[360])
{
    const char *slash = strchr(s->key, '/');

    snprintf(out, 360, "%s %.300s", slash ? "The function" : "The namespace", slash ? slash + 1 : s->key);
    return out;
}

static void tell_text(const struct functions *fs, const struct spending *s, char *out, size_t n)
{
    char what[360];

    snprintf(out, n, "%s has reached its spending limit of %.6g %s for %04d-%02d: calls are refused until the limit is raised or the "
                     "month (UTC) ends", what_of(s, what), s->limit, fs->currency, s->month / 100, s->month % 100);
}

/* Says so when it begins to be stopped, or no longer is. */
static void judge(struct functions *fs, struct spending *s)
{
    bool stopped = s->limit >= 0 && spending_cost(fs, s) >= s->limit;
    char text[800], what[360], ns[256];
    const char *slash = strchr(s->key, '/');

    if (stopped == s->stopped)
        return;
    s->stopped = stopped;
    if (stopped)
        tell_text(fs, s, text, sizeof text);
    else
        snprintf(text, sizeof text, "%s is below its spending limit again: calls are served", what_of(s, what));
    LOG(INFO, "function", "what=%s did=%s cost=%.6g limit=%.6g", s->key, stopped ? "stop-at-spending-limit" : "serve-again", spending_cost(fs, s), s->limit);
    snprintf(ns, sizeof ns, "%.*s", slash ? (int)(slash - s->key) : 255, s->key);
    if (fs->on_spending)
        fs->on_spending(fs->spending_arg, ns, slash ? slash + 1 : NULL, stopped, text);
}

void spending_limit(struct functions *fs, const char *key, double limit)
{
    struct spending *s = limit < 0 ? map_get(&fs->spendings, key) : spending_of(fs, key);

    if (!s)
        return;
    s->limit = limit < 0 ? -1 : limit;
    judge(fs, s);
}

void functions_limit_namespace(struct functions *fs, const char *ns, double limit)
{
    spending_limit(fs, ns, limit);
}

static void count(struct functions *fs, struct spending *s, uint64_t requests, uint64_t gb_us)
{
    s->requests += requests;
    s->gb_us += gb_us;
    if (s->limit >= 0)
        judge(fs, s);
}

void spending_count(struct function *f, uint64_t gb_us)
{
    count(f->fs, spending_of(f->fs, f->family->key), 1, gb_us);
    count(f->fs, spending_of(f->fs, f->namespace_), 1, gb_us);
}

void spending_use(struct function *f, uint64_t gb_us)
{
    count(f->fs, spending_of(f->fs, f->family->key), 0, gb_us);
    count(f->fs, spending_of(f->fs, f->namespace_), 0, gb_us);
}

bool spending_stops(struct function *f, struct err *err)
{
    struct functions *fs = f->fs;
    const char *const keys[] = {f->family->key, f->namespace_};

    for (size_t i = 0; i < ARRAY_LEN(keys); i++) {
        const struct spending *s = map_get(&fs->spendings, keys[i]);
        char text[800];

        if (!s || !s->stopped)
            continue;
        tell_text(fs, s, text, sizeof text);
        err_set(err, TOO_MANY, "%s", text);
        return true;
    }
    return false;
}

/* A new month begins at nothing. */
void spending_tick(struct functions *fs)
{
    int month = month_now();
    const char *key;
    void *it;

    if (month == fs->month)
        return;
    fs->month = month;
    for (uint32_t i = 0; map_next(&fs->spendings, &i, &key, &it);) {
        struct spending *s = it;

        if (s->month != month) {
            s->month = month;
            s->requests = s->gb_us = 0;
            judge(fs, s);
        }
    }
}

bool spending_waits(const struct functions *fs)
{
    const char *key;
    void *it;

    for (uint32_t i = 0; map_next(&fs->spendings, &i, &key, &it);)
        if (((const struct spending *)it)->stopped)
            return true;
    return false;
}

struct val *spendings_val(struct functions *fs, struct arena *a)
{
    struct val *list = val_list(a);
    const char *key;
    void *it;

    for (uint32_t i = 0; map_next(&fs->spendings, &i, &key, &it);) {
        const struct spending *s = it;
        struct val *o = val_map(a);

        val_put_str(a, o, "of", s->key);
        val_put_int(a, o, "month", s->month);
        val_put_int(a, o, "requests", (int64_t)s->requests);
        val_put_int(a, o, "gb_us", (int64_t)s->gb_us);
        val_put(a, o, "cost", val_double(a, spending_cost(fs, s)));
        if (s->limit >= 0) {
            val_put(a, o, "limit", val_double(a, s->limit));
            val_put_bool(a, o, "stopped", s->stopped);
        }
        val_push(a, list, o);
    }
    return list;
}

void spendings_read(struct functions *fs, const struct val *list)
{
    fs->month = month_now();
    VAL_EACH(list, o)
    {
        struct spending *s;

        if (!val_str_at(o, "of", NULL) || val_int_at(o, "month", 0) != fs->month)
            continue;
        s = spending_of(fs, val_str_at(o, "of", ""));
        s->requests = (uint64_t)val_int_at(o, "requests", 0);
        s->gb_us = (uint64_t)val_int_at(o, "gb_us", 0);
    }
}

void spendings_free(struct functions *fs)
{
    const char *key;
    void *it;

    for (uint32_t i = 0; map_next(&fs->spendings, &i, &key, &it);) {
        free(((struct spending *)it)->key);
        free(it);
    }
    map_done(&fs->spendings);
}
