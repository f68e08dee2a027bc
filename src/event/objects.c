/* event/objects.c - notifications of volumes.
 *
 * One inotify descriptor watches every folder of the volumes that have notifications. What it says waits
 * WAIT_MS and is then looked at as it is on disk: many writes to one file in that time are one event, and a put
 * through the S3 door, which was told by the door itself, is known by its ETag (an ETag holds only as long as
 * the file is unchanged). Folders that appear are walked on a pool thread; while that goes on the descriptor is not
 * read, so nothing in them is missed. When the kernel's queue overflows the folders are walked again.
 *
 * A volume without notifications costs nothing. Watches live in memory: POSIX writes made while this process is not
 * running are not told (puts through S3 need this process, so none of them is lost). */
#include "event/event.h"

#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "codec/json.h"
#include "codec/obj.h"
#include "env/clock.h"
#include "function/function.h"
#include "volume/volume.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <stdio.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

enum {
    WAIT_MS = 25,        /* a written file rests so long before it is told */
    TOLD_MS = 5000,      /* how long the door's own puts are remembered */
    PENDING_MAX = 100000,
    DEPTH_MAX = 128,
};
#define MASK (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_DELETE | IN_CREATE | IN_ONLYDIR | IN_EXCL_UNLINK)

struct watched { /* a volume with notifications */
    struct objects *os;
    const struct obj *obj;
    char *name;
    bool walked;
};
struct folder { /* by watch descriptor */
    struct watched *w;
    int wd;
    char *path; /* below the root, "" or ending in '/' */
};
struct pending { /* by "VOLUME/KEY" */
    struct list link;
    char *volume, *key, *id;
    bool removed;
    int64_t since_ms;
};
struct told {
    struct list link;
    char *volume, *key;
    char etag[VOLUME_ETAG_BYTES];
    bool removed;
    int64_t at_ms;
};
struct walk { /* of a folder that appeared, on a pool thread */
    uv_work_t work;
    struct objects *os;
    char *volume, *root, *path;
    bool tell_files, full;
    int fd;
    struct found {
        int wd; /* -1: a file */
        char *path;
    } *found;
    uint32_t n, cap;
};

struct objects {
    struct objects_opts o;
    char *state, *region;
    struct map volumes; /* name -> struct watched */
    struct map folders; /* wd in decimal -> struct folder */
    struct map pending_by_id;
    struct list pending, told;
    int fd;
    uv_poll_t poll;
    uv_timer_t timer;
    int walks, closing;
    bool gone;
    uint64_t sequence;
};

/* ---- events to functions ---- */

static bool event_wanted(const struct val *notification, const char *name)
{
    VAL_EACH(val_get(notification, "events"), e)
    {
        const char *text = val_text(e, ""), *pattern = str_starts(text, "s3:") ? strchr(text, ':') + 1 : text;
        size_t n = strlen(pattern);

        if (streq(pattern, name) || (n && pattern[n - 1] == '*' && strncmp(pattern, name, n - 1) == 0))
            return true;
    }
    return false;
}

static bool wanted(const struct val *notification, const struct object_event *e)
{
    const char *suffix = val_str_at(notification, "filterSuffix", "");

    return event_wanted(notification, e->name) &&
           str_starts(e->key, val_str_at(notification, "filterPrefix", "")) && str_ends(e->key, suffix);
}

/* As S3 writes keys into events: percent-encoded, a blank is '+'. */
static char *event_key(struct arena *a, const char *key)
{
    char *out = arena_raw(a, strlen(key) * 3 + 1), *p = out;

    for (; *key; key++) {
        unsigned char c = (unsigned char)*key;

        if ((c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || strchr("-_.~/*", c))
            *p++ = (char)c;
        else if (c == ' ')
            *p++ = '+';
        else
            p += sprintf(p, "%%%02X", c);
    }
    *p = 0;
    return out;
}

static struct val *record(struct objects *os, struct arena *a, const struct val *notification,
                          const struct object_event *e)
{
    struct val *r = val_map(a), *s3, *object, *bucket;
    struct timespec now;
    char text[40];
    struct tm tm;

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    val_put_str(a, r, "eventVersion", "2.1");
    val_put_str(a, r, "eventSource", "aws:s3");
    val_put_str(a, r, "awsRegion", os->region);
    val_put_str(a, r, "eventTime", arena_printf(a, "%s.%03dZ", text, (int)(now.tv_nsec / 1000000)));
    val_put_str(a, r, "eventName", e->name);
    val_put_str(a, val_need_map(a, r, "userIdentity"), "principalId", "tandem");
    val_put_str(a, val_need_map(a, r, "requestParameters"), "sourceIPAddress", "127.0.0.1");
    val_need_map(a, r, "responseElements");
    val_need_map(a, r, "s3");
    s3 = val_get(r, "s3");
    val_put_str(a, s3, "s3SchemaVersion", "1.0");
    val_put_str(a, s3, "configurationId", val_str_at(notification, "id", ""));
    val_put(a, s3, "bucket", val_map(a));
    bucket = val_get(s3, "bucket");
    val_put_str(a, bucket, "name", e->volume);
    val_put_str(a, val_need_map(a, bucket, "ownerIdentity"), "principalId", "tandem");
    val_put_str(a, bucket, "arn", arena_printf(a, "arn:aws:s3:::%s", e->volume));
    val_put(a, s3, "object", val_map(a));
    object = val_get(s3, "object");
    val_put_str(a, object, "key", event_key(a, e->key));
    if (!str_starts(e->name, "ObjectRemoved:")) {
        val_put_int(a, object, "size", e->size);
        val_put_str(a, object, "eTag", e->etag);
    }
    val_put_str(a, object, "sequencer", arena_printf(a, "%011llX%05llX", (long long)now.tv_sec,
                                                     (unsigned long long)(++os->sequence & 0xfffff)));
    return r;
}

static void queued(void *arg, const struct err *err, const char *request_id)
{
    char *about = arg;

    if (err->code != ERR_OK)
        LOG(ERROR, "event", "object=%s did=drop error=\"%s\"", about, err->msg);
    else
        LOG(DEBUG, "event", "object=%s did=queue request=%s", about, request_id);
    free(about);
}

static void fire(struct objects *os, const struct object_event *e)
{
    struct watched *w = map_get(&os->volumes, e->volume);

    if (!w)
        return;
    VAL_EACH(val_at(obj_val(w->obj), "spec.notifications"), n)
    {
        _auto_(arena_freep) struct arena *a = arena_new();
        const char *function = val_str_at(n, "function", ""), *arn = val_str_at(n, "functionArn", ""), *at;
        struct val *event = val_map(a);
        size_t text_n;
        char *text;

        if (!wanted(n, e))
            continue;
        if (!*function && (at = strstr(arn, ":function:")))
            function = arena_strndup(a, at + 10, strcspn(at + 10, ":"));
        val_push(a, val_need_list(a, event, "Records"), record(os, a, n, e));
        text = json_text(a, event, &text_n);
        function_invoke_async(os->o.functions, &(struct function_call){
                                  .name = function, .payload = text, .n = text_n, .req = e->req, .trigger = FUNCTION_BY_DATASOURCE},
                              queued, xasprintf("%s/%s", e->volume, e->key));
    }
}

/* ---- what the door told ---- */

static void told_free(struct told *t)
{
    list_remove(&t->link);
    free(t->volume);
    free(t->key);
    free(t);
}

static void forget_old(struct objects *os, int64_t now)
{
    LIST_EACH(&os->told, l)
    {
        struct told *t = list_entry(l, struct told, link);

        if (t->at_ms + TOLD_MS > now)
            break;
        told_free(t);
    }
}

void objects_tell(struct objects *os, const struct object_event *e)
{
    struct watched *w = map_get(&os->volumes, e->volume);
    struct told *t;

    if (!w)
        return;
    forget_old(os, clock_mono_ms());
    t = xcalloc(1, sizeof *t);
    t->volume = xstrdup(e->volume);
    t->key = xstrdup(e->key);
    t->removed = str_starts(e->name, "ObjectRemoved:");
    t->at_ms = clock_mono_ms();
    snprintf(t->etag, sizeof t->etag, "%s", e->etag);
    list_push(&os->told, &t->link);
    fire(os, e);
}

static bool was_told(struct objects *os, const char *volume, const char *key, bool removed, const char *etag)
{
    LIST_EACH(&os->told, l)
    {
        struct told *t = list_entry(l, struct told, link);

        if (t->removed == removed && streq(t->key, key) && streq(t->volume, volume) &&
            (removed || streq(t->etag, etag)))
            return true;
    }
    return false;
}

/* ---- what the kernel says ---- */

static void pending_free(struct objects *os, struct pending *p)
{
    map_del(&os->pending_by_id, p->id);
    list_remove(&p->link);
    free(p->volume);
    free(p->key);
    free(p->id);
    free(p);
}

static void look(struct objects *os, struct pending *p)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct volume_info info = {0};
    struct err err;
    int root = volume_root(os->state, p->volume, false, &err);
    bool there = root >= 0 && volume_stat(root, a, p->key, &info, &err) == 0;

    closep(&root);
    if (there == p->removed) /* it came and went, or came back: the later event says so */
        return;
    if (was_told(os, p->volume, p->key, p->removed, info.etag))
        return;
    fire(os, &(struct object_event){.volume = p->volume, .key = p->key, .size = info.size, .etag = info.etag,
                                    .name = p->removed ? "ObjectRemoved:Delete" : "ObjectCreated:Put"});
}

static void on_timer(uv_timer_t *timer)
{
    struct objects *os = timer->data;
    int64_t now = clock_mono_ms();
    int looked = 0;

    LIST_EACH(&os->pending, l)
    {
        struct pending *p = list_entry(l, struct pending, link);

        if (p->since_ms + WAIT_MS > now || ++looked > 200) { /* a bounded piece a turn */
            uv_timer_start(&os->timer, on_timer, looked > 200 ? 1 : (uint64_t)(p->since_ms + WAIT_MS - now), 0);
            return;
        }
        look(os, p);
        pending_free(os, p);
    }
}

static void later(struct objects *os, const char *volume, const char *key, bool removed)
{
    _auto_(freep) char *id = xasprintf("%s/%s", volume, key);
    struct pending *p = map_get(&os->pending_by_id, id);

    if (!p) {
        if (os->pending_by_id.n >= PENDING_MAX) {
            LOG(ERROR, "event", "object=%s did=drop reason=\"more than %d files changed at once\"", id, PENDING_MAX);
            return;
        }
        p = xcalloc(1, sizeof *p);
        p->volume = xstrdup(volume);
        p->key = xstrdup(key);
        p->id = STEAL(id);
        map_put(&os->pending_by_id, p->id, p);
    } else {
        list_remove(&p->link);
    }
    p->removed = removed;
    p->since_ms = clock_mono_ms();
    list_push(&os->pending, &p->link);
    if (!uv_is_active((uv_handle_t *)&os->timer))
        uv_timer_start(&os->timer, on_timer, WAIT_MS, 0);
}

static void folder_forget(struct objects *os, struct folder *f, bool remove_watch)
{
    char id[16];

    snprintf(id, sizeof id, "%d", f->wd);
    map_del(&os->folders, id);
    if (remove_watch)
        inotify_rm_watch(os->fd, f->wd);
    free(f->path);
    free(f);
}

/* Those of a volume whose path begins so. */
static void folders_forget(struct objects *os, const struct watched *w, const char *path)
{
    void *v;

    for (uint32_t i = 0; map_next(&os->folders, &i, NULL, &v);) {
        struct folder *f = v;

        if (f->w == w && str_starts(f->path, path))
            folder_forget(os, f, true);
    }
}

static void walk_start(struct objects *os, struct watched *w, const char *path, bool tell_files);

static void on_event(struct objects *os, const struct inotify_event *e)
{
    struct folder *f;
    char id[16];
    _auto_(freep) char *key = NULL;

    if (e->mask & IN_Q_OVERFLOW) {
        void *v;

        LOG(WARN, "event", "did=overflow then=\"the volumes' folders are walked again\"");
        for (uint32_t i = 0; map_next(&os->volumes, &i, NULL, &v);)
            walk_start(os, v, "", false);
        return;
    }
    snprintf(id, sizeof id, "%d", e->wd);
    f = map_get(&os->folders, id);
    if (!f)
        return;
    if (e->mask & IN_IGNORED) {
        folder_forget(os, f, false);
        return;
    }
    if (!e->len || (!*f->path && streq(e->name, VOLUME_PRIVATE)))
        return;
    if (e->mask & IN_ISDIR) {
        key = xasprintf("%s%s/", f->path, e->name);
        if (e->mask & (IN_CREATE | IN_MOVED_TO))
            walk_start(os, f->w, key, true);
        else if (e->mask & IN_MOVED_FROM)
            folders_forget(os, f->w, key);
        return;
    }
    key = xasprintf("%s%s", f->path, e->name);
    if (e->mask & (IN_CLOSE_WRITE | IN_MOVED_TO))
        later(os, f->w->name, key, false);
    else if (e->mask & (IN_DELETE | IN_MOVED_FROM))
        later(os, f->w->name, key, true);
}

static void on_readable(uv_poll_t *poll, int status, int events)
{
    struct objects *os = poll->data;
    char block[32768] __attribute__((aligned(__alignof__(struct inotify_event))));
    ssize_t n = read(os->fd, block, sizeof block);

    (void)status, (void)events;
    for (ssize_t at = 0; n > 0 && at < n;) {
        const struct inotify_event *e = (const struct inotify_event *)(block + at);

        on_event(os, e);
        at += (ssize_t)(sizeof *e + e->len);
    }
}

/* ---- walking ---- */

static void found_add(struct walk *k, int wd, const char *path)
{
    if (k->n == k->cap) {
        k->cap = k->cap ? k->cap * 2 : 32;
        k->found = xrealloc(k->found, k->cap * sizeof *k->found);
    }
    k->found[k->n++] = (struct found){wd, xstrdup(path)};
}

static void walk_folder(struct walk *k, const char *path, int depth)
{
    _auto_(freep) char *full = xasprintf("%s/%s", k->root, path);
    int wd = inotify_add_watch(k->fd, full, MASK | IN_DONT_FOLLOW); /* first: nothing falls in between */
    DIR *dir;
    struct dirent *d;

    if (wd < 0) {
        k->full |= errno == ENOSPC;
        return;
    }
    found_add(k, wd, path);
    dir = opendir(full);
    while (dir && (d = readdir(dir))) {
        _auto_(freep) char *sub = NULL;

        if (streq(d->d_name, ".") || streq(d->d_name, "..") || (!*path && streq(d->d_name, VOLUME_PRIVATE)))
            continue;
        sub = xasprintf("%s%s%s", path, d->d_name, d->d_type == DT_DIR ? "/" : "");
        if (d->d_type == DT_DIR && depth < DEPTH_MAX)
            walk_folder(k, sub, depth + 1);
        else if (d->d_type == DT_REG && k->tell_files)
            found_add(k, -1, sub);
    }
    if (dir)
        closedir(dir);
}

static void walk_run(uv_work_t *work)
{
    struct walk *k = work->data;

    walk_folder(k, k->path, 0);
}

static void objects_over(struct objects *os);

static void walk_done(uv_work_t *work, int status)
{
    struct walk *k = work->data;
    struct objects *os = k->os;
    struct watched *w = os->gone ? NULL : map_get(&os->volumes, k->volume);

    (void)status;
    if (k->full)
        LOG(ERROR, "event", "volume=%s did=watch error=\"no inotify watches left\" then=\"writes of pods below some folders are "
            "not told; raise fs.inotify.max_user_watches\"", k->volume);
    for (uint32_t i = 0; i < k->n; i++) {
        struct found *f = &k->found[i];
        char id[16];

        snprintf(id, sizeof id, "%d", f->wd);
        if (w && f->wd >= 0 && !map_get(&os->folders, id)) {
            struct folder *folder = xcalloc(1, sizeof *folder);

            *folder = (struct folder){.w = w, .wd = f->wd, .path = STEAL(f->path)};
            map_put(&os->folders, id, folder);
        } else if (w && f->wd < 0) {
            later(os, k->volume, f->path, false);
        }
        free(f->path);
    }
    free(k->found);
    free(k->volume);
    free(k->root);
    free(k->path);
    free(k);
    if (--os->walks == 0) {
        if (os->gone)
            objects_over(os);
        else
            uv_poll_start(&os->poll, UV_READABLE, on_readable);
    }
}

static void walk_start(struct objects *os, struct watched *w, const char *path, bool tell_files)
{
    struct walk *k = xcalloc(1, sizeof *k);

    *k = (struct walk){.os = os, .volume = xstrdup(w->name), .path = xstrdup(path), .tell_files = tell_files, .fd = os->fd,
                       .root = xasprintf("%s/volumes/%s", os->state, w->name)};
    k->work.data = k;
    os->walks++;
    uv_poll_stop(&os->poll);
    uv_queue_work(os->o.loop, &k->work, walk_run, walk_done);
}

/* ---- volumes ---- */

static void watched_free(struct objects *os, struct watched *w)
{
    folders_forget(os, w, "");
    map_del(&os->volumes, w->name);
    obj_unref(w->obj);
    free(w->name);
    free(w);
}

void objects_volume(struct objects *os, const struct obj *volume)
{
    struct watched *w = map_get(&os->volumes, volume->name);
    bool has = val_len(val_at(obj_val(volume), "spec.notifications")) > 0;
    struct err err;
    int root;

    if (w && volume->revision < w->obj->revision)
        return;
    if (!has) {
        if (w)
            watched_free(os, w);
        return;
    }
    if (!w) {
        root = volume_root(os->state, volume->name, true, &err); /* there must be something to watch */
        if (root < 0) {
            LOG(ERROR, "event", "volume=%s did=watch error=\"%s\"", volume->name, err.msg);
            return;
        }
        close(root);
        w = xcalloc(1, sizeof *w);
        *w = (struct watched){.os = os, .name = xstrdup(volume->name)};
        map_put(&os->volumes, w->name, w);
        walk_start(os, w, "", false);
    }
    obj_unref(w->obj);
    w->obj = obj_ref(volume);
}

void objects_volume_gone(struct objects *os, const char *name)
{
    struct watched *w = map_get(&os->volumes, name);

    if (w)
        watched_free(os, w);
}

/* ---- life ---- */

struct objects *objects_new(const struct objects_opts *o)
{
    struct objects *os = xcalloc(1, sizeof *os);

    os->o = *o;
    os->state = xstrdup(o->state);
    os->region = xstrdup(o->region);
    os->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    ASSERT(os->fd >= 0);
    list_init(&os->pending);
    list_init(&os->told);
    uv_poll_init(o->loop, &os->poll, os->fd);
    uv_timer_init(o->loop, &os->timer);
    os->poll.data = os->timer.data = os;
    uv_poll_start(&os->poll, UV_READABLE, on_readable);
    return os;
}

static void on_closed(uv_handle_t *h)
{
    struct objects *os = h->data;

    if (--os->closing)
        return;
    close(os->fd);
    free(os->state);
    free(os->region);
    free(os);
}

/* Closes the handles once no walk uses the descriptor any more. */
static void objects_over(struct objects *os)
{
    os->closing = 2;
    uv_close((uv_handle_t *)&os->poll, on_closed);
    uv_close((uv_handle_t *)&os->timer, on_closed);
}

struct objects *objects_free(struct objects *os)
{
    void *v;

    if (!os)
        return NULL;
    os->gone = true;
    for (uint32_t i = 0; map_next(&os->volumes, &i, NULL, &v);)
        watched_free(os, v);
    LIST_EACH(&os->pending, l)
        pending_free(os, list_entry(l, struct pending, link));
    LIST_EACH(&os->told, l)
        told_free(list_entry(l, struct told, link));
    map_done(&os->volumes);
    map_done(&os->folders);
    map_done(&os->pending_by_id);
    uv_timer_stop(&os->timer);
    uv_poll_stop(&os->poll);
    if (!os->walks)
        objects_over(os);
    return NULL;
}
