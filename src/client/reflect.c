/* Mirrors of the remote backend: list, then watch.
 *
 *   LIST   pages of 500; when the last one is there the content is replaced (only differences are
 *          told) and the watch starts at the list's revision
 *   WATCH  lines of {"type","object"}; each moves the revision, bookmarks too. When the
 *          connection ends, the watch starts again where it was. 410: LIST.
 *   WAIT   after a failure: 0.5 s, doubling up to 30 s, with jitter; then what was tried before */
#include "base/log.h"
#include "client/remote_int.h"
#include "codec/json.h"

enum {
    PAGE = 500,
    WAIT_MS_MIN = 500,
    WAIT_MS_MAX = 30000,
    WATCH_S = 290,                /* asked of the server; plus jitter */
    SILENCE_MS = 400 * 1000,      /* a watch without a byte for so long is dead */
    LINE_BYTES_MAX = 64 << 20,
};
struct reflect {
    struct mirror *m;
    struct remote *r;
    struct http_call *call;
    struct env_timer *timer;
    struct buf line;
    bool list_next; /* what the timer starts: LIST or WATCH */
    bool news;      /* this watch has brought something: it works */
    int status;     /* of the watch's answer */
    int64_t wait_ms;
    const struct obj **objs; /* of the list under way */
    uint32_t n, cap;
    char *more; /* continue token */
    struct map gone; /* uids that we deleted ourselves, until the watch says so */
};

static void list_drop(struct reflect *f)
{
    for (uint32_t i = 0; i < f->n; i++)
        obj_unref(f->objs[i]);
    free(f->objs);
    free(f->more);
    f->objs = NULL;
    f->more = NULL;
    f->n = f->cap = 0;
}

/* Goes on, at once or after a failure. */
static void go_on(struct reflect *f, bool list, const struct err *why)
{
    struct env *env = f->m->c->env;
    int64_t wait = 0;

    f->list_next = list;
    if (why) {
        f->wait_ms = f->wait_ms ? MIN(2 * f->wait_ms, (int64_t)WAIT_MS_MAX) : WAIT_MS_MIN;
        wait = f->wait_ms / 2 + env_below(env, (uint32_t)f->wait_ms / 2 + 1);
        if (why->code == ERR_NOT_FOUND) /* not served: it may be one day */
            LOG(DEBUG, "client", "mirror=%s did=list retry_ms=%lld err=\"%s\"", f->m->args.resource,
                (long long)wait, why->msg);
        else
            LOG(WARN, "client", "mirror=%s did=%s retry_ms=%lld err=\"%s\"", f->m->args.resource,
                list ? "list" : "watch", (long long)wait, why->msg);
    }
    env_timer_start(f->timer, wait, 0);
}

static char *selectors(struct reflect *f, struct arena *a)
{
    const struct mirror_args *args = &f->m->args;

    return arena_printf(a, "%s%s%s%s", args->field_selector ? "&fieldSelector=" : "",
                        args->field_selector ? client_escape(a, args->field_selector) : "",
                        args->label_selector ? "&labelSelector=" : "",
                        args->label_selector ? client_escape(a, args->label_selector) : "");
}

/* --- list ------------------------------------------------------------------------------------- */
static void list_send(struct reflect *f);

static void list_add(struct reflect *f, struct arena *a, const struct val *list)
{
    uint32_t n;
    const struct obj **v = remote_list_objs(a, list, &n);

    for (uint32_t i = 0; i < n; i++) {
        if (f->n == f->cap)
            f->objs = xrealloc(f->objs, (f->cap = f->cap ? 2 * f->cap : 64) * sizeof *f->objs);
        f->objs[f->n++] = v[i];
    }
}

static void list_answered(const struct http_answer *ans, char *body, size_t n, const struct err *err, void *arg)
{
    struct reflect *f = arg;
    struct mirror *m = f->m;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err own;
    struct val *v = NULL;
    const char *more;

    f->call = NULL;
    if (err)
        own = *err;
    else if (ans->status != 200)
        remote_status_err(ans->status, body, n, &own);
    else
        v = json_parse(a, body, n, &own);
    if (!v) {
        bool none = !err && ans->status == 404; /* a kind that is not served has no objects */

        list_drop(f);
        go_on(f, true, &own);
        if (none) {
            mirror_hold(m);
            m->telling = true;
            mirror_tell_synced(m);
            mirror_release(m);
        }
        return;
    }
    list_add(f, a, v);
    m->revision = strtoll(val_str_at(v, "metadata.resourceVersion", "0"), NULL, 10);
    more = val_str_at(v, "metadata.continue", "");
    if (*more) {
        free(f->more);
        f->more = xstrdup(more);
        list_send(f);
        return;
    }
    f->wait_ms = 0;
    mirror_hold(m);
    m->telling = true;
    map_done(&f->gone);
    f->gone = (struct map){0};
    mirror_replace(m, f->objs, f->n);
    if (!m->dead)
        mirror_tell_synced(m);
    if (!m->dead) {
        list_drop(f);
        go_on(f, false, NULL);
    }
    mirror_release(m);
}

static void list_send(struct reflect *f)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct http_header headers[HEADERS_MAX];
    struct http_call_opts opts = {
        .method = "GET",
        .path = arena_printf(a, "%s%s?limit=%d%s%s%s", f->r->prefix,
                             client_path(a, f->m->args.resource, f->m->args.ns, NULL, NULL), PAGE,
                             f->more ? "&continue=" : "", f->more ? client_escape(a, f->more) : "",
                             selectors(f, a)),
        .headers = headers,
        .headers_n = remote_headers(f->r, a, NULL, headers),
        .timeout_ms = 60000,
    };

    f->call = http_fetch(remote_origin(f->r), &opts, ANSWER_BYTES_MAX, list_answered, f);
}

/* --- our own writes, and older news of them --- */
void reflect_news(struct mirror *m, const struct obj *o)
{
    const struct obj *have = mirror_get(m, o->namespace_, o->name);

    /* revisions of one server grow; those of other servers are not compared by anybody */
    if (!have || have->revision < o->revision)
        mirror_set(m, o);
}

void reflect_gone(struct mirror *m, const char *ns, const char *name)
{
    struct reflect *f = m->backend;
    const struct obj *have = mirror_get(m, ns, name);

    if (!have)
        return;
    map_put(&f->gone, have->uid, f);
    mirror_del(m, ns, name, NULL);
}

/* The watch says that this object has gone: another one of its name may be there by now. */
static void told_gone(struct reflect *f, const struct obj *o)
{
    const struct obj *have = mirror_get(f->m, o->namespace_, o->name);

    map_del(&f->gone, o->uid);
    if (have && streq(have->uid, o->uid))
        mirror_del(f->m, o->namespace_, o->name, o);
}

/* --- watch ------------------------------------------------------------------------------------ */
/* false: the watch is over (an ERROR event, or nonsense), and what comes next is set up. */
static bool watch_line(struct reflect *f, const char *line, size_t n)
{
    struct mirror *m = f->m;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err;
    struct val *v = json_parse(a, line, n, &err), *ov = val_get(v, "object");
    const char *type = val_str_at(v, "type", "");
    int64_t rev = strtoll(val_str_at(ov, "metadata.resourceVersion", "0"), NULL, 10);
    const struct obj *o;

    if (!v) {
        go_on(f, true, &err);
        return false;
    }
    if (streq(type, "ERROR")) {
        bool gone = val_int_at(ov, "code", 0) == 410;

        err_set(&err, EXPIRED, "%s", val_str_at(ov, "message", "the watch ended"));
        go_on(f, gone, gone ? NULL : &err);
        return false;
    }
    f->news = true;
    f->wait_ms = 0;
    if (streq(type, "BOOKMARK")) {
        m->revision = MAX(m->revision, rev);
        return true;
    }
    o = remote_obj(ov);
    if (!o)
        return true;
    m->revision = MAX(m->revision, rev);
    if (streq(type, "DELETED"))
        told_gone(f, o);
    else if (!map_get(&f->gone, o->uid) || obj_deleting(o))
        reflect_news(m, o);
    obj_unref(o);
    return true;
}

static void watch_cut(struct reflect *f)
{
    if (f->call)
        http_call_cancel(STEAL(f->call));
    buf_done(&f->line);
}

static void on_head(_unused_ struct http_call *call, const struct http_answer *a, void *arg)
{
    ((struct reflect *)arg)->status = a->status;
}

static void on_data(_unused_ struct http_call *call, const char *data, size_t n, void *arg)
{
    struct reflect *f = arg;
    struct mirror *m = f->m;
    size_t at = 0;
    char *end;
    struct err err;

    buf_add(&f->line, data, n);
    if (f->line.over) {
        watch_cut(f);
        err_set(&err, TOO_LARGE, "an event of more than %d bytes", LINE_BYTES_MAX);
        go_on(f, true, &err);
        return;
    }
    if (f->status != 200)
        return; /* a Status; looked at in the end */
    mirror_hold(m);
    while (!m->dead && (end = memchr(f->line.p + at, '\n', f->line.n - at))) {
        size_t len = (size_t)(end - f->line.p) - at;

        if (len && !watch_line(f, f->line.p + at, len)) {
            watch_cut(f);
            mirror_release(m);
            return;
        }
        at += len + 1;
    }
    if (!m->dead)
        buf_eat(&f->line, at);
    mirror_release(m);
}

static void on_done(_unused_ struct http_call *call, _unused_ const struct http_answer *a, const struct err *err,
                    void *arg)
{
    struct reflect *f = arg;
    struct err own;
    bool list = false;

    f->call = NULL;
    if (f->status && f->status != 200) {
        remote_status_err(f->status, f->line.p, f->line.n, &own);
        err = &own;
        list = f->status == 410 || f->status == 404 || f->status == 400;
    } else if (!f->news && !err) {
        err_set(&own, UNAVAILABLE, "the watch ended at once");
        err = &own;
    }
    buf_done(&f->line);
    go_on(f, list, f->news ? NULL : err);
}

static void watch_send(struct reflect *f)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct http_header headers[HEADERS_MAX];
    struct http_call_opts opts = {
        .method = "GET",
        .path = arena_printf(a, "%s%s?watch=true&allowWatchBookmarks=true&resourceVersion=%lld&timeoutSeconds=%d%s",
                             f->r->prefix, client_path(a, f->m->args.resource, f->m->args.ns, NULL, NULL),
                             (long long)f->m->revision, WATCH_S + (int)env_below(f->m->c->env, 60), selectors(f, a)),
        .headers = headers,
        .headers_n = remote_headers(f->r, a, NULL, headers),
        .timeout_ms = 30000,
        .idle_timeout_ms = SILENCE_MS,
        .on_head = on_head,
        .on_data = on_data,
        .on_done = on_done,
        .arg = f,
    };

    buf_init(&f->line, LINE_BYTES_MAX);
    f->news = false;
    f->status = 0;
    f->call = http_call(remote_origin(f->r), &opts);
}

/* --- life ------------------------------------------------------------------------------------- */
static void on_timer(void *arg)
{
    struct reflect *f = arg;

    if (f->list_next)
        list_send(f);
    else
        watch_send(f);
}

void reflect_start(struct client *c, struct mirror *m)
{
    struct reflect *f = arena_new_of(m->arena, struct reflect);

    f->m = m;
    f->r = (struct remote *)c;
    f->timer = env_timer_new(c->env, on_timer, f);
    m->backend = f;
    go_on(f, true, NULL);
}

void reflect_stop(struct mirror *m)
{
    struct reflect *f = m->backend;

    watch_cut(f);
    env_timer_free(f->timer);
    list_drop(f);
    map_done(&f->gone);
}
