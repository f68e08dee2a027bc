/* GET /follow/NS and /follow/NS/NAME on the admin socket: lines of all log groups of a namespace, or of a function's, as one
 * answer that goes on for as long as the client likes.
 *   ?since=MS   from that time on (ms since 1970)      ?tail=N   the last N of each group first
 *   ?until=MS   and before that one
 *   ?filter=PATTERN   only what matches, as CloudWatch reads patterns (logs/pattern.h)
 *   ?once=1     ends when all that is there was told
 * An event is TIME \t GROUP \t STREAM \t TEXT \x1e (a \x1e in the text becomes a blank).
 *
 * Nobody polls: logs/ tells which group has new lines on disk (log_watch), and that group is asked from where we stopped.
 * One page is under way at a time; a client that does not read gets no further pages, so nothing piles up here. */
#include "gateway/gateway_int.h"

#include "base/list.h"
#include "base/map.h"
#include "logs/logs.h"
#include "logs/pattern.h"

#include <time.h>

enum { PAGE_EVENTS = 500, QUEUE_MAX = 256 * 1024 };

struct group {
    struct list link; /* follow.dirty: may have lines that were not told */
    char *name;
    struct log_pos at;
    bool begun;
};
struct follow {
    struct gateway *g;
    struct http_req *req; /* NULL: the client is gone, or has been told all */
    struct log_watch watch;
    struct map groups;
    struct list dirty;
    struct group *asked; /* a page of it is under way */
    char *ns, *only, *filter;
    int64_t since, until;
    uint32_t tail;
    bool once;
};

static void follow_free(struct follow *f)
{
    const char *key;
    void *p;

    for (uint32_t i = 0; map_next(&f->groups, &i, &key, &p);) {
        struct group *g = p;

        free(g->name);
        free(g);
    }
    map_done(&f->groups);
    free(f->ns);
    free(f->only);
    free(f->filter);
    free(f);
}

/* The request is finished; what is under way is let come back. */
static void leave(struct follow *f)
{
    f->req = NULL;
    logs_unwatch(&f->watch);
    if (!f->asked)
        follow_free(f);
}

static void mark(struct follow *f, const char *name)
{
    struct group *g = map_get(&f->groups, name);

    if (!g) {
        g = xcalloc(1, sizeof *g);
        g->name = xstrdup(name);
        g->at = LOG_POS_FIRST;
        map_put(&f->groups, g->name, g);
    }
    if (!list_linked(&g->link))
        list_push(&f->dirty, &g->link);
}

static void write_page(struct follow *f, const struct group *g, const struct log_page *page)
{
    struct buf b = {0};
    struct tm tm;

    for (uint32_t i = 0; i < page->n; i++) {
        const struct log_event *e = &page->events[i];
        time_t t = (time_t)(e->time_ms / 1000);
        char when[40];
        size_t from;

        gmtime_r(&t, &tm);
        strftime(when, sizeof when, "%Y-%m-%dT%H:%M:%S", &tm);
        buf_printf(&b, "%s.%03dZ\t%s\t%s\t", when, (int)(e->time_ms % 1000), g->name, e->stream);
        from = b.n;
        buf_add(&b, e->text, e->n);
        for (; from < b.n; from++)
            if (b.p[from] == '\x1e')
                b.p[from] = ' ';
        buf_addc(&b, '\x1e');
    }
    if (b.n)
        http_write(f->req, b.p, b.n);
    buf_done(&b);
}

static void ask(struct follow *f);

static void on_page(void *arg, const struct log_page *page, const struct err *err)
{
    struct follow *f = arg;
    struct group *g = STEAL(f->asked);

    (void)err; /* the group was removed: it may come again */
    if (!f->req) {
        follow_free(f);
        return;
    }
    if (page) {
        bool last_ones = !g->begun && f->tail;

        write_page(f, g, page);
        if (!last_ones)
            g->at = page->next;
        else if (page->n)
            g->at = page->events[page->n - 1].pos;
        if (!last_ones && !page->end)
            mark(f, g->name);
    }
    g->begun = true;
    ask(f);
}

/* The next page, when there is reason for one and the client takes it. May end the request. */
static void ask(struct follow *f)
{
    struct log_query q = {.ns = f->ns, .from_ms = f->since, .to_ms = f->until, .limit = PAGE_EVENTS};
    struct list *l = list_first(&f->dirty);
    struct group *g;
    struct err ignored;

    if (f->asked || http_queued_bytes(f->req) > QUEUE_MAX)
        return;
    if (!l) {
        if (f->once) {
            http_end(f->req);
            leave(f);
        }
        return;
    }
    g = list_entry(l, struct group, link);
    list_remove(&g->link);
    f->asked = g;
    q.group = g->name;
    q.at = g->at;
    if (!g->begun && f->tail) {
        q.backward = true;
        q.at = LOG_POS_LAST;
        q.limit = f->tail;
    }
    if (f->filter)
        q.pattern = log_pattern_parse(f->filter, &ignored); /* it was good at the start; the query frees it */
    logs_query(f->g->logs, &q, on_page, f);
}

static void on_lines(void *arg, const char *ns, const char *group)
{
    struct follow *f = arg;

    if (streq(ns, f->ns) && (!f->only || streq(group, f->only))) {
        mark(f, group);
        ask(f);
    }
}

static void on_drain(struct http_req *req, void *arg)
{
    (void)req;
    ask(arg);
}

static void on_gone(struct http_req *req, void *arg)
{
    http_abort(req);
    leave(arg);
}

void follow_request(struct gateway *g, struct http_req *req, const char *ns, const char *group)
{
    const char *since = http_param(req, "since"), *tail = http_param(req, "tail"), *filter = http_param(req, "filter");
    const char *until = http_param(req, "until");
    struct log_pattern *pattern = NULL;
    struct log_group_info info;
    struct follow *f;
    struct err err;

    if (filter && !(pattern = log_pattern_parse(filter, &err))) {
        http_reply_str(req, 400, "text/plain", err.msg);
        return;
    }
    log_pattern_free(pattern);
    f = xcalloc(1, sizeof *f);

    f->g = g;
    f->req = req;
    f->ns = xstrdup(ns);
    f->only = group ? xstrdup(group) : NULL;
    f->since = since ? strtoll(since, NULL, 10) : 0;
    f->until = until ? strtoll(until, NULL, 10) : INT64_MAX;
    f->tail = tail && atoi(tail) > 0 ? (uint32_t)MIN(atoi(tail), LOGS_PAGE_EVENTS_MAX) : 0;
    f->filter = filter ? xstrdup(filter) : NULL;
    f->once = http_param(req, "once") != NULL;
    list_init(&f->dirty);
    logs_watch(g->logs, &f->watch, on_lines, f);
    http_header(req, "content-type", "text/plain; charset=utf-8");
    http_on_close(req, on_gone, f);
    http_on_drain(req, on_drain, f);
    http_start(req, 200, -1);
    if (group)
        mark(f, group);
    for (uint32_t i = 0; !group && logs_group_next(g->logs, &i, &info);)
        if (streq(info.ns, ns))
            mark(f, info.name);
    ask(f);
}
