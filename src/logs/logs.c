/* Groups, streams, and what waits to be written.
 *
 * A record is made on the loop, into its group's waiting bytes. A round of writing takes the waiting bytes of all groups
 * at once to a pool thread; there is one round at a time. When it is back, the blocks that it wrote are in the index,
 * whoever waits for them is told, and the next round starts when something waits again. */
#include "logs/logs_int.h"

#include "base/log.h"
#include "codec/val.h"
#include "env/clock.h"

#include <ctype.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <sys/stat.h>

enum { SWEEP_MS = 60000, IDS_PER_ROUND = 512 };

/* ---- groups ---- */

enum { KEY_BYTES = 64 + LOGS_GROUP_NAME_MAX + 2 };

static const char *key_of(const char *ns, const char *name, char out[KEY_BYTES])
{
    snprintf(out, KEY_BYTES, "%s\n%s", ns, name);
    return out;
}

struct log_group *group_find(const struct logs *l, const char *ns, const char *name)
{
    char key[KEY_BYTES];

    return map_get(&l->groups, key_of(ns, name, key));
}

static char *folder_of(const struct logs *l, const char *ns, const char *key)
{
    uint64_t h = 14695981039346656037u;

    for (const char *p = key; *p; p++)
        h = (h ^ (unsigned char)*p) * 1099511628211u;
    return xasprintf("%s/%.63s.%016llx", l->dir, ns, (unsigned long long)h);
}

struct log_group *group_new(struct logs *l, const char *ns, const char *name)
{
    struct log_group *g = xcalloc(1, sizeof *g);
    char key[KEY_BYTES];

    g->logs = l;
    g->key = xstrdup(key_of(ns, name, key));
    g->ns = xstrdup(ns);
    g->name = xstrdup(name);
    g->uid = xstrdup("");
    g->dir = folder_of(l, ns, g->key);
    g->created = clock_real_ms();
    list_init(&g->streams);
    list_init(&g->segments);
    list_init(&g->puts);
    list_init(&g->queries);
    map_put(&l->groups, g->key, g);
    return g;
}

static void segment_free(struct segment *s)
{
    list_remove(&s->link);
    buf_done(&s->names);
    free(s->gone);
    free(s->blocks.v);
    free(s);
}

void group_let_go(struct log_group *g)
{
    if (!g->removed || g->users)
        return;
    LIST_EACH(&g->streams, k)
    stream_forget(g, list_entry(k, struct stream, link));
    LIST_EACH(&g->segments, k)
    segment_free(list_entry(k, struct segment, link));
    map_done(&g->streams_by_name);
    buf_done(&g->waiting);
    list_remove(&g->link);
    free(g->key);
    free(g->ns);
    free(g->name);
    free(g->uid);
    free(g->dir);
    free(g);
}

static void on_flush(uv_timer_t *t)
{
    logs_round(t->data);
}

/* Something of it waits to be written. */
static void dirty(struct log_group *g)
{
    struct logs *l = g->logs;

    if (!list_linked(&g->link))
        list_push(&l->dirty, &g->link);
    if (!l->running && !l->stopping && !uv_is_active((uv_handle_t *)&l->flush))
        uv_timer_start(&l->flush, on_flush, FLUSH_MS, 0);
}

static void puts_end(struct log_group *g, const struct err *err, bool all)
{
    LIST_EACH(&g->puts, k)
    {
        struct put *p = list_entry(k, struct put, link);

        if (!all && p->until > g->written)
            break;
        list_remove(&p->link);
        p->done(p->arg, err);
        free(p);
    }
}

static void add_path(char ***v, uint32_t *n, char *path)
{
    *v = xrealloc(*v, (*n + 1) * sizeof **v);
    (*v)[(*n)++] = path;
}

static void group_drop(struct log_group *g)
{
    struct logs *l = g->logs;
    struct err err;

    map_del(&l->groups, g->key);
    g->removed = true;
    l->bytes -= MIN(l->bytes, g->bytes);
    l->waiting -= MIN(l->waiting, g->waiting.n);
    list_remove(&g->link);
    err_set(&err, NOT_FOUND, "The specified log group does not exist.");
    g->users++;
    puts_end(g, &err, true);
    query_cancel(g);
    g->users--;
    group_let_go(g);
}

void logs_group_remove(struct logs *l, const char *ns, const char *name, const char *uid)
{
    struct log_group *g = group_find(l, ns, name);

    if (!g || (uid && *g->uid && !streq(uid, g->uid)))
        return;
    if (g->made || g->users) { /* out of the way at once: another of that name may come before it is removed */
        char *gone = xasprintf("%s/.gone-%lld-%u", l->dir, (long long)clock_real_ms(), ++l->gone_next);

        if (rename(g->dir, gone) == 0)
            add_path(&l->remove, &l->remove_n, gone);
        else
            free(gone);
    }
    group_drop(g);
    logs_round(l);
}

int logs_group_put(struct logs *l, const char *ns, const char *name, const char *uid, int retention_days,
                   struct err *err)
{
    struct log_group *g = group_find(l, ns, name);

    if (str_empty(name) || strlen(name) > LOGS_GROUP_NAME_MAX || str_empty(ns) || strlen(ns) > 63)
        return err_set(err, INVALID_ARGUMENT, "a log group's name has 1 to %d bytes", LOGS_GROUP_NAME_MAX);
    if (!g) {
        if (l->groups.n >= GROUPS_MAX)
            return err_set(err, TOO_MANY, "there are %d log groups already", GROUPS_MAX);
        g = group_new(l, ns, name);
    }
    g->retention_days = retention_days;
    if (!g->made || (uid && !streq(g->uid, uid))) {
        if (uid) {
            free(g->uid);
            g->uid = xstrdup(uid);
        }
        g->meta_dirty = true;
        dirty(g);
        logs_round(l);
    }
    return 0;
}

static void info_of(const struct log_group *g, struct log_group_info *ret)
{
    *ret = (struct log_group_info){.ns = g->ns, .name = g->name, .uid = g->uid, .created_ms = g->created, .bytes = g->bytes,
                                   .retention_days = g->retention_days, .streams = g->streams_n};
}

bool logs_group_get(const struct logs *l, const char *ns, const char *name, struct log_group_info *ret)
{
    const struct log_group *g = group_find(l, ns, name);

    if (g)
        info_of(g, ret);
    return g;
}

bool logs_group_next(const struct logs *l, uint32_t *i, struct log_group_info *ret)
{
    const char *key;
    void *g;

    if (!map_next(&l->groups, i, &key, &g))
        return false;
    info_of(g, ret);
    return true;
}

const char *logs_object_name(const char *group, char out[80])
{
    unsigned char sum[32];
    size_t n = 0;

    for (const char *p = group; *p && n < 60; p++)
        if (isalnum((unsigned char)*p))
            out[n++] = (char)tolower((unsigned char)*p);
        else if (n && out[n - 1] != '-')
            out[n++] = '-';
    ASSERT(EVP_Digest(group, strlen(group), sum, NULL, EVP_sha256(), NULL) == 1);
    if (n && out[n - 1] != '-')
        out[n++] = '-';
    for (int i = 0; i < 8; i++) /* so long that nobody finds two names that share it */
        n += (size_t)snprintf(out + n, 80 - n, "%02x", sum[i]);
    return out;
}

struct val *logs_object(struct arena *a, const char *group)
{
    struct val *v = val_map(a);
    char name[80];

    val_put_str(a, v, "apiVersion", "tandem.dev/v1");
    val_put_str(a, v, "kind", "LogGroup");
    val_put_str(a, val_need_map(a, v, "metadata"), "name", logs_object_name(group, name));
    val_put_str(a, val_need_map(a, v, "spec"), "name", group);
    return v;
}

/* ---- segments ---- */

struct segment *segment_add(struct log_group *g, uint32_t number)
{
    struct segment *s = xcalloc(1, sizeof *s);

    s->number = number;
    s->max = INT64_MIN;
    g->segment_next = MAX(g->segment_next, number + 1);
    list_push(&g->segments, &s->link);
    return s;
}

void segment_gone(struct segment *s, uint32_t stream)
{
    s->gone = xrealloc(s->gone, (s->gone_n + 1) * sizeof *s->gone);
    s->gone[s->gone_n++] = stream;
}

struct segment *group_segment(struct log_group *g)
{
    return list_empty(&g->segments) ? segment_add(g, g->segment_next) : list_entry(g->segments.prev, struct segment, link);
}

/* ---- streams ---- */

struct stream *stream_by_id(const struct log_group *g, uint32_t id)
{
    char key[16];

    snprintf(key, sizeof key, "\n%x", id); /* no name begins so */
    return map_get(&g->streams_by_name, key);
}

static struct stream *stream_find(const struct log_group *g, const char *name)
{
    return *name == '\n' ? NULL : map_get(&g->streams_by_name, name);
}

struct stream *stream_add(struct log_group *g, const char *name, size_t n, uint32_t id, int64_t created)
{
    struct stream *s = xcalloc(1, sizeof *s);
    char key[16];

    if (g->streams_n >= STREAMS_MAX)
        stream_forget(g, list_entry(list_first(&g->streams), struct stream, link));
    s->name = xstrndup(name, n);
    s->id = id;
    s->created = created;
    s->named_in = UINT32_MAX;
    g->stream_next = MAX(g->stream_next, id + 1);
    g->streams_n++;
    list_push(&g->streams, &s->link);
    map_put(&g->streams_by_name, s->name, s);
    snprintf(key, sizeof key, "\n%x", id);
    map_put(&g->streams_by_name, key, s);
    return s;
}

void stream_forget(struct log_group *g, struct stream *s)
{
    char key[16];

    snprintf(key, sizeof key, "\n%x", s->id);
    map_del(&g->streams_by_name, key);
    if (map_get(&g->streams_by_name, s->name) == s)
        map_del(&g->streams_by_name, s->name);
    list_remove(&s->link);
    g->streams_n--;
    free(s->name);
    free(s);
}

void stream_saw(struct stream *s, int64_t time, int64_t ingested, uint32_t n)
{
    s->first = s->first ? MIN(s->first, time) : time;
    s->last = MAX(s->last, time);
    s->ingested = MAX(s->ingested, ingested);
    s->bytes += n + 26;
}

/* ---- records ---- */

static void record_add(struct log_group *g, uint32_t kind, uint32_t stream, int64_t time, int64_t ingested,
                       const char *text, uint32_t n)
{
    static const char zeros[8];
    struct record r = {.kind = kind, .n = n, .stream = stream, .time = time, .ingested = ingested};
    size_t before = g->waiting.n;

    buf_reserve(&g->waiting, record_bytes(n));
    buf_add(&g->waiting, &r, sizeof r);
    buf_add(&g->waiting, text, n);
    buf_add(&g->waiting, zeros, record_bytes(n) - sizeof r - n);
    g->said += g->waiting.n - before;
    g->logs->waiting += g->waiting.n - before;
    dirty(g);
}

static void stream_name(struct log_group *g, struct stream *s)
{
    uint32_t now = group_segment(g)->number;

    if (s->named_in == now)
        return;
    s->named_in = now;
    record_add(g, RECORD_STREAM, s->id, s->created, 0, s->name, (uint32_t)strlen(s->name));
}

static void event_add(struct log_group *g, struct stream *s, int64_t time, int64_t now, const char *text, size_t n)
{
    stream_name(g, s);
    record_add(g, RECORD_EVENT, s->id, time, now, text, (uint32_t)n);
    stream_saw(s, time, now, (uint32_t)n);
    if (s->link.next != &g->streams) {
        list_remove(&s->link);
        list_push(&g->streams, &s->link);
    }
}

/* There is room again: what was lost is said where it was lost. */
static void tell_lost(struct log_group *g, int64_t now)
{
    struct stream *s = stream_by_id(g, g->lost_stream);
    char text[120];
    int n = snprintf(text, sizeof text, "tandem: %llu lines (%llu bytes) were lost here: they came faster than they could be kept",
                     (unsigned long long)g->lost, (unsigned long long)g->lost_bytes);

    g->lost = g->lost_bytes = 0;
    if (s)
        event_add(g, s, now, now, text, (size_t)n);
}

void logs_line(struct logs *l, const char *ns, const char *group, const char *stream, int64_t time, const char *text,
               size_t n)
{
    struct log_group *g = group_find(l, ns, group);
    struct stream *s;

    if (l->stopping || strlen(stream) > LOGS_STREAM_NAME_MAX || !*stream)
        return;
    if (!g) {
        struct err err;

        if (logs_group_put(l, ns, group, NULL, 0, &err) < 0) {
            LOG(WARN, "logs", "group=%s did=drop-line error=\"%s\"", group, err.msg);
            return;
        }
        g = group_find(l, ns, group);
        if (l->appeared)
            l->appeared(l->arg, g->ns, g->name);
    }
    s = stream_find(g, stream);
    if (!s)
        s = stream_add(g, stream, strlen(stream), g->stream_next, time);
    n = MIN(n, (size_t)LOGS_EVENT_MAX);
    if (g->waiting.n + n > WAITING_GROUP_MAX || l->waiting + n > WAITING_MAX) {
        g->lost++;
        g->lost_bytes += n;
        g->lost_stream = s->id;
        logs_round(l);
        return;
    }
    if (g->lost)
        tell_lost(g, time);
    event_add(g, s, time, time, text, n);
    if (g->waiting.n > FLUSH_SOON_BYTES)
        logs_round(l);
}

int logs_stream_make(struct logs *l, const char *ns, const char *group, const char *stream, struct err *err)
{
    struct log_group *g = group_find(l, ns, group);

    if (!g)
        return err_set(err, NOT_FOUND, "The specified log group does not exist.");
    if (!*stream || *stream == '\n' || strlen(stream) > LOGS_STREAM_NAME_MAX)
        return err_set(err, INVALID_ARGUMENT, "a log stream's name has 1 to %d bytes", LOGS_STREAM_NAME_MAX);
    if (stream_find(g, stream))
        return err_set(err, ALREADY_EXISTS, "The specified log stream already exists");
    stream_name(g, stream_add(g, stream, strlen(stream), g->stream_next, clock_real_ms()));
    return 0;
}

int logs_stream_remove(struct logs *l, const char *ns, const char *group, const char *stream, struct err *err)
{
    struct log_group *g = group_find(l, ns, group);
    struct stream *s = g ? stream_find(g, stream) : NULL;

    if (!s)
        return err_set(err, NOT_FOUND, "The specified log %s does not exist.", g ? "stream" : "group");
    record_add(g, RECORD_GONE, s->id, clock_real_ms(), 0, "", 0);
    segment_gone(group_segment(g), s->id);
    stream_forget(g, s);
    return 0;
}

static void stream_info(const struct stream *s, struct log_stream_info *ret)
{
    *ret = (struct log_stream_info){s->name, s->created, s->first, s->last, s->ingested, s->bytes};
}

bool logs_stream_get(const struct logs *l, const char *ns, const char *group, const char *stream,
                     struct log_stream_info *ret)
{
    const struct log_group *g = group_find(l, ns, group);
    const struct stream *s = g ? stream_find(g, stream) : NULL;

    if (s)
        stream_info(s, ret);
    return s;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct log_stream_info *)a)->name, ((const struct log_stream_info *)b)->name);
}

struct log_stream_info *logs_streams(const struct logs *l, struct arena *a, const char *ns, const char *group,
                                     const char *prefix, uint32_t *ret_n)
{
    const struct log_group *g = group_find(l, ns, group);
    struct log_stream_info *v = arena_array(a, struct log_stream_info, (g ? g->streams_n : 0) + 1);
    uint32_t n = 0;

    if (g)
        LIST_EACH(&g->streams, k)
        {
            const struct stream *s = list_entry(k, struct stream, link);

            if (!prefix || str_starts(s->name, prefix))
                stream_info(s, &v[n++]);
        }
    qsort(v, n, sizeof *v, by_name);
    *ret_n = n;
    return v;
}

int logs_put(struct logs *l, const char *ns, const char *group, const char *stream, const struct log_put *events, size_t n,
             logs_put_fn *done, void *arg, struct err *err)
{
    struct log_group *g = group_find(l, ns, group);
    struct stream *s = g ? stream_find(g, stream) : NULL;
    int64_t now = clock_real_ms();
    struct put *p;
    size_t bytes = 0;

    if (!s)
        return err_set(err, NOT_FOUND, "The specified log %s does not exist.", g ? "stream" : "group");
    for (size_t i = 0; i < n; i++)
        bytes += events[i].n;
    if (l->stopping)
        return err_set(err, UNAVAILABLE, "tandem is stopping");
    if (g->waiting.n + bytes > PUT_GROUP_MAX || l->waiting + bytes > 2 * WAITING_MAX)
        return err_set(err, TOO_MANY, "Rate exceeded");
    for (size_t i = 0; i < n; i++)
        event_add(g, s, events[i].time_ms, now, events[i].text, MIN(events[i].n, (size_t)LOGS_EVENT_MAX));
    if (!n)
        stream_name(g, s);
    p = xcalloc(1, sizeof *p);
    *p = (struct put){.until = g->said, .done = done, .arg = arg};
    list_push(&g->puts, &p->link);
    g->sync = true;
    dirty(g);
    logs_round(l);
    return 0;
}

/* ---- bounds ---- */

static void segment_drop(struct log_group *g, struct segment *s)
{
    struct logs *l = g->logs;

    add_path(&l->unlink, &l->unlink_n, segment_path(g->dir, s->number, "log"));
    add_path(&l->unlink, &l->unlink_n, segment_path(g->dir, s->number, "idx"));
    g->bytes -= MIN(g->bytes, s->bytes);
    l->bytes -= MIN(l->bytes, s->bytes);
    LIST_EACH(&g->streams, k) /* whom no segment names any more */
    {
        struct stream *t = list_entry(k, struct stream, link);

        if (t->named_in <= s->number)
            stream_forget(g, t);
    }
    segment_free(s);
}

static bool has_closed(struct log_group *g)
{
    return !list_empty(&g->segments) && g->segments.next->next != &g->segments;
}

static void bound(struct log_group *g)
{
    struct logs *l = g->logs;

    while (g->bytes > l->group_bytes_max && has_closed(g)) {
        LOG(INFO, "logs", "group=%s did=drop-oldest why=\"over %llu bytes\"", g->name, (unsigned long long)l->group_bytes_max);
        segment_drop(g, list_entry(list_first(&g->segments), struct segment, link));
    }
    while (l->bytes > l->bytes_max) {
        struct log_group *most = NULL;
        const char *key;
        void *it;

        for (uint32_t i = 0; map_next(&l->groups, &i, &key, &it);)
            if (has_closed(it) && (!most || ((struct log_group *)it)->bytes > most->bytes))
                most = it;
        if (!most)
            break;
        LOG(INFO, "logs", "group=%s did=drop-oldest why=\"all groups are over %llu bytes\"", most->name,
            (unsigned long long)l->bytes_max);
        segment_drop(most, list_entry(list_first(&most->segments), struct segment, link));
    }
}

/* Closes the open segment: the next record goes into a new one. */
static void roll(struct log_group *g)
{
    index_streams(g, group_segment(g));
    segment_add(g, g->segment_next);
}

static void sweep_group(struct log_group *g, int64_t now)
{
    int64_t oldest = now - (int64_t)g->retention_days * 86400000;

    if (!g->retention_days)
        return;
    if (!list_empty(&g->segments) && !g->waiting.n && !g->users) {
        struct segment *open = group_segment(g);

        if (open->bytes && open->max < oldest)
            roll(g);
    }
    while (has_closed(g)) {
        struct segment *s = list_entry(list_first(&g->segments), struct segment, link);

        if (s->max >= oldest)
            break;
        segment_drop(g, s);
    }
}

static void on_sweep(uv_timer_t *t)
{
    struct logs *l = t->data;
    int64_t now = clock_real_ms();
    const char *key;
    void *g;

    for (uint32_t i = 0; map_next(&l->groups, &i, &key, &g);)
        sweep_group(g, now);
    logs_round(l);
}

/* ---- rounds ---- */

static char *meta_text(const struct log_group *g)
{
    struct buf b = {0};
    /* names have no byte that JSON would have to escape but these two */
    buf_printf(&b, "{\"namespace\":\"%s\",\"name\":\"", g->ns);
    for (const char *p = g->name; *p; p++) {
        if (*p == '"' || *p == '\\')
            buf_addc(&b, '\\');
        buf_addc(&b, (unsigned char)*p < 32 ? '?' : *p);
    }
    buf_printf(&b, "\",\"created\":%lld,\"uid\":\"%s\"}\n", (long long)g->created, g->uid);
    return buf_take(&b);
}

static void share_take(struct share *s, struct log_group *g)
{
    struct segment *open = group_segment(g);

    *s = (struct share){.g = g, .dir = xstrdup(g->dir), .segment = open->number, .offset = open->bytes, .sync = g->sync};
    if (g->meta_dirty || !g->made)
        s->meta = meta_text(g);
    s->bytes = g->waiting;
    g->waiting = (struct buf){0};
    g->meta_dirty = g->sync = false;
    g->users++;
    if (open->bytes + s->bytes.n >= SEGMENT_BYTES)
        roll(g); /* what comes now names its streams anew; the index follows when this is written */
}

static void share_done(struct share *s, bool made)
{
    struct log_group *g = s->g;
    struct segment *to = NULL;

    g->logs->waiting -= MIN(g->logs->waiting, g->removed ? 0 : s->bytes.n);
    g->written += s->bytes.n;
    g->made |= made;
    LIST_EACH(&g->segments, k)
    if (list_entry(k, struct segment, link)->number == s->segment)
        to = list_entry(k, struct segment, link);
    if (s->failed)
        LIST_EACH(&g->streams, k)
        list_entry(k, struct stream, link)->named_in = UINT32_MAX; /* their names may be among what was not written */
    if (to && !s->failed) {
        to->bytes = s->offset + s->bytes.n;
        for (uint32_t i = 0; i < s->blocks.n; i++) {
            to->max = MAX(to->max, s->blocks.v[i].max);
            blocks_add(&to->blocks, &s->blocks.v[i]);
        }
        if (!g->removed) {
            g->bytes += s->bytes.n;
            g->logs->bytes += s->bytes.n;
        }
    }
    puts_end(g, s->failed ? &s->err : NULL, false);
    if (!g->removed) {
        query_wake(g);
        bound(g);
    }
    buf_done(&s->bytes);
    buf_done(&s->idx);
    free(s->blocks.v);
    free(s->dir);
    free(s->meta);
    g->users--;
    group_let_go(g);
}

void logs_watch(struct logs *l, struct log_watch *w, void (*fn)(void *arg, const char *ns, const char *group), void *arg)
{
    w->fn = fn;
    w->arg = arg;
    list_push(&l->watches, &w->link);
}

void logs_unwatch(struct log_watch *w)
{
    list_remove(&w->link);
}

static void tell_watches(struct logs *l, const struct log_group *g)
{
    LIST_EACH(&l->watches, k)
    {
        struct log_watch *w = list_entry(k, struct log_watch, link);

        w->fn(w->arg, g->ns, g->name);
    }
}

static void on_round_work(uv_work_t *w)
{
    round_run(w->data);
}

static void on_round(uv_work_t *w, int status)
{
    struct round *r = w->data;
    struct logs *l = r->l;

    l->running = false;
    for (uint32_t i = 0; i < r->n; i++) {
        struct log_group *g = r->v[i].g;
        bool news = r->v[i].bytes.n && !r->v[i].failed && !g->removed && !l->stopping;

        if (r->v[i].failed)
            LOG(WARN, "logs", "group=%s did=drop-lines bytes=%zu error=\"%s\"", r->v[i].g->name, r->v[i].bytes.n,
                r->v[i].err.msg);
        share_done(&r->v[i], !r->v[i].failed);
        if (news)
            tell_watches(l, g);
    }
    free(r->v);
    free(r);
    if (l->stopping) {
        if (!list_empty(&l->dirty))
            logs_round(l);
        logs_let_go(l);
    } else if (!list_empty(&l->dirty)) {
        dirty(list_entry(list_first(&l->dirty), struct log_group, link));
    }
}

/* The index of a segment that was closed, once it is written. */
static void indexes_take(struct round *r)
{
    for (uint32_t i = 0; i < r->n; i++) {
        struct log_group *g = r->v[i].g;

        LIST_EACH(&g->segments, k)
        {
            struct segment *s = list_entry(k, struct segment, link);

            if (k->next == &g->segments || s->number == r->v[i].segment || s->indexed)
                continue;
            s->indexed = true;
            r->v[i].idx_segment = s->number;
            index_write(s, &r->v[i].idx);
            buf_done(&s->names);
            break; /* one a round: there is another round soon */
        }
    }
}

void logs_round(struct logs *l)
{
    struct round *r;

    if (l->running || (list_empty(&l->dirty) && !l->unlink_n && !l->remove_n))
        return;
    uv_timer_stop(&l->flush);
    r = xcalloc(1, sizeof *r);
    r->l = l;
    r->v = xcalloc(IDS_PER_ROUND, sizeof *r->v);
    while (r->n < IDS_PER_ROUND && !list_empty(&l->dirty)) {
        struct log_group *g = list_entry(list_first(&l->dirty), struct log_group, link);

        list_remove(&g->link);
        share_take(&r->v[r->n++], g);
    }
    indexes_take(r);
    r->unlink = STEAL(l->unlink);
    r->remove = STEAL(l->remove);
    r->unlink_n = l->unlink_n;
    r->remove_n = l->remove_n;
    l->unlink_n = l->remove_n = 0;
    r->work.data = r;
    l->running = true;
    ASSERT(uv_queue_work(l->loop, &r->work, on_round_work, on_round) == 0);
}

/* ---- life ---- */

struct logs *logs_new(const struct logs_options *o, struct err *err)
{
    struct logs *l = xcalloc(1, sizeof *l);

    l->loop = o->loop;
    l->dir = xstrdup(o->dir);
    l->group_bytes_max = o->group_bytes_max ? o->group_bytes_max : 256 << 20;
    l->bytes_max = o->bytes_max ? o->bytes_max : 4ull << 30;
    l->appeared = o->appeared;
    l->arg = o->arg;
    list_init(&l->dirty);
    list_init(&l->watches);
    if ((mkdir(l->dir, 0755) < 0 && errno != EEXIST && err_sys(err, "make %s", l->dir) < 0) || logs_load(l, err) < 0) {
        const char *key;
        void *g;

        for (uint32_t i = 0; map_next(&l->groups, &i, &key, &g);)
            group_drop(g);
        map_done(&l->groups);
        free(l->dir);
        free(l);
        return NULL;
    }
    uv_timer_init(l->loop, &l->flush);
    uv_timer_init(l->loop, &l->sweep);
    l->flush.data = l->sweep.data = l;
    l->handles = 2;
    uv_timer_start(&l->sweep, on_sweep, SWEEP_MS, SWEEP_MS);
    uv_unref((uv_handle_t *)&l->sweep);
    return l;
}

void logs_on_appear(struct logs *l, void (*appeared)(void *arg, const char *ns, const char *name), void *arg)
{
    l->appeared = appeared;
    l->arg = arg;
}

static void logs_free(struct logs *l)
{
    void (*done)(void *) = l->done;
    void *arg = l->done_arg, *g;
    const char *key;

    for (uint32_t i = 0; map_next(&l->groups, &i, &key, &g);) {
        index_leave(g);
        group_drop(g);
    }
    map_done(&l->groups);
    for (uint32_t i = 0; i < l->unlink_n; i++)
        free(l->unlink[i]);
    for (uint32_t i = 0; i < l->remove_n; i++)
        free(l->remove[i]);
    free(l->unlink);
    free(l->remove);
    free(l->dir);
    free(l);
    if (done)
        done(arg);
}

static void on_timer_closed(uv_handle_t *h)
{
    struct logs *l = h->data;

    l->handles--;
    logs_let_go(l);
}

void logs_let_go(struct logs *l)
{
    if (!l->stopping || l->running || l->queries || !list_empty(&l->dirty))
        return;
    if (!l->timers_closed) {
        l->timers_closed = true;
        uv_close((uv_handle_t *)&l->flush, on_timer_closed);
        uv_close((uv_handle_t *)&l->sweep, on_timer_closed);
        return;
    }
    if (!l->handles)
        logs_free(l);
}

void logs_stop(struct logs *l, void (*done)(void *arg), void *arg)
{
    const char *key;
    void *g;

    l->stopping = true;
    l->done = done;
    l->done_arg = arg;
    uv_timer_stop(&l->flush);
    for (uint32_t i = 0; map_next(&l->groups, &i, &key, &g);)
        query_cancel(g);
    logs_round(l);
    logs_let_go(l);
}
