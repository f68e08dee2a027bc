/* apiserver/watch.c - streams of events.
 *
 * A watch is a cursor into the store's history with a filter before it: nothing is queued here but
 * the objects that were there at its start (as references). An object that enters or leaves what
 * the selectors select is told as ADDED or DELETED. */
#include "apiserver/api_int.h"
#include "apiserver/told.h"

#include "schema/table.h"

#define CONVERT_AT_ONCE 500u /* objects */

enum { BOOKMARK_EVERY_MS = 60000, BOOKMARK_BEFORE_END_MS = 2000, TIMEOUT_MIN_S = 1800,
       TIMEOUT_MAX_S = 365 * 86400 };

struct api_watch {
    struct list all; /* api.watching */
    struct arena *a;     /* what lives as long as the watch */
    struct arena *event; /* what one event needs */
    struct api *api;
    struct call shape; /* form, version, include_object: as answer_item() wants it */
    struct selector *labels;
    struct field_selector *fields;
    const char *ns; /* NULL: all */

    struct store_watch *w;
    struct env_timer *end, *tick, *last; /* last: the bookmark shortly before the end */
    api_event_fn *fn;
    void *arg;

    const struct obj **first; /* what was there at the start */
    uint32_t first_n, first_at;
    int64_t revision, told; /* of the start; of the last event */
    uint64_t *events; /* told of this resource, by all watches (metrics.c) */
    bool initial, bookmarks, initial_end, ready, paused, columns_sent, texts, over, expired, posted, calling,
        dead;
    bool too_new; /* wants all that is there at a revision that is not there yet */
    struct convert_job *job; /* objects that a webhook converts before they can be told */
    struct {
        enum store_event_type type;
        const struct obj *obj, *prev;
        int64_t revision;
    } held; /* the event that waits for it; obj NULL: none */
    uint32_t first_ready; /* of first: so many can be told */
    bool waiting; /* a callback of store_when_durable() is still to come */
};

/* Lets go of everything at once; the struct itself stays until no callback can come any more (it
 * may outlive the API then). */
static void watch_free(struct api_watch *w)
{
    if (!w)
        return;
    if (!w->dead) {
        w->dead = true;
        w->fn = NULL;
        w->w = store_watch_free(w->w);
        w->end = env_timer_free(w->end);
        w->tick = env_timer_free(w->tick);
        w->last = env_timer_free(w->last);
        w->job = convert_free(w->api, w->job);
        obj_unref(w->held.obj);
        obj_unref(w->held.prev);
        for (uint32_t i = 0; i < w->first_n; i++)
            obj_unref(w->first[i]);
        free(w->first);
        resource_unref(w->shape.r);
        resource_unref(w->shape.stored);
        w->api->watches--;
        list_remove(&w->all);
    }
    if (w->calling || w->waiting || w->posted)
        return;
    arena_free(w->event);
    arena_free(w->a);
    free(w);
}

void *api_watch_free(struct api_watch *w)
{
    watch_free(w);
    return NULL;
}

/* false: the watch is gone. */
static bool tell(struct api_watch *w, const struct api_event *ev)
{
    bool go;

    if (w->over || w->dead)
        return !w->dead;
    if (ev->type == API_ERROR || ev->type == API_END)
        w->over = true;
    w->calling = true;
    go = w->fn(w->arg, ev);
    w->calling = false;
    if (!go || w->dead) {
        watch_free(w);
        return false;
    }
    w->told = MAX(w->told, ev->revision);
    ++*w->events;
    return true;
}

static bool labels_match(const struct api_watch *w, const struct obj *o)
{
    return selector_everything(w->labels) || selector_match(w->labels, val_get(obj_meta(o), "labels"));
}

static bool matches(struct api_watch *w, const struct obj *o)
{
    struct call *c = &w->shape;

    return o && labels_match(w, o) &&
           (field_selector_everything(w->fields) ||
            field_selector_match(w->fields, answer_version(c, o)));
}

/* Where others that want the same leave the event's text: NULL when it is this watch's alone. */
static struct told *place(struct api_watch *w, enum api_event_type type, const struct obj *o)
{
    const struct call *c = &w->shape;
    struct told_key key = {.obj = o, .r = c->r, .type = type, .form = c->form, .encoding = c->encoding,
                           .form_version = c->form_version, .include_object = c->include_object};

    if (!w->texts || !w->w || (c->form == FORM_TABLE && !w->columns_sent) || versions_by_webhook(c->r))
        return NULL;
    return told_find(w->api->told, &key);
}

static bool tell_object(struct api_watch *w, enum api_event_type type, const struct obj *o,
                        int64_t revision)
{
    struct api_event ev = {.type = type, .obj = o, .revision = revision, .told = place(w, type, o)};
    struct call *c = &w->shape;

    if (ev.told && ev.told->text)
        return tell(w, &ev);
    if (!answer_as_stored(c, o)) {
        ev.val = answer_item(c, answer_version(c, o), !w->columns_sent);
        w->columns_sent = true;
    }
    return tell(w, &ev);
}

static bool tell_bookmark(struct api_watch *w, int64_t revision, bool initial_end)
{
    struct arena *a = w->event;
    struct val *v = val_map(a), *meta = val_map(a);
    const struct resource *r = w->shape.r;
    struct api_event ev = {.type = API_BOOKMARK, .val = v, .revision = revision};

    val_put_str(a, v, "kind", r->kind);
    val_put_str(a, v, "apiVersion", r->api_version);
    val_put(a, meta, "resourceVersion", val_printf(a, "%lld", (long long)revision));
    if (streq(r->plural, "daemonsets") && !r->custom) /* upstream writes no daemon set without it */
        val_put_str(a, val_need_map(a, meta, "annotations"), "deprecated.daemonset.template.generation", "0");
    if (initial_end)
        val_put_str(a, val_need_map(a, meta, "annotations"), "k8s.io/initial-events-end", "true");
    val_put(a, v, "metadata", meta);
    if (w->shape.form == FORM_PARTIAL || w->shape.form == FORM_PARTIAL_LIST)
        ev.val = partial_of(a, v, w->shape.form_version);
    return tell(w, &ev);
}

/* false: the watch is gone. */
static bool event_tell(struct api_watch *w, const struct store_event *ev)
{
    bool now = ev->type != STORE_DELETED && matches(w, ev->obj), go = true;
    bool before = ev->type != STORE_ADDED && matches(w, ev->prev ? ev->prev : ev->obj);

    if (now) {
        go = tell_object(w, before ? API_MODIFIED : API_ADDED, ev->obj, ev->revision);
    } else if (before && ev->type == STORE_DELETED) {
        go = tell_object(w, API_DELETED, ev->obj, ev->revision);
    } else if (before) {
        /* it left the selection: told as it was, with the version of what made it leave */
        const struct obj *last = obj_seal(answer_version(&w->shape, ev->prev), ev->revision);

        go = tell_object(w, API_DELETED, last, ev->revision);
        obj_unref(last);
    }
    return go;
}

static void event_begin(struct api_watch *w)
{
    arena_reset(w->event);
    w->shape.a = w->event;
    w->shape.now_ms = env_now_ms(w->api->env);
}

static void run(struct api_watch *w);

/* A webhook made the wanted versions of what is held, or of some of what was there at the start. */
static void on_converted(void *arg, const struct val *bad, struct version *v, uint32_t n)
{
    struct api_watch *w = arg;
    struct store_event ev = {.type = w->held.type, .obj = w->held.obj, .prev = w->held.prev,
                             .revision = w->held.revision};
    struct api_event error = {.type = API_ERROR, .val = bad, .revision = w->told};

    event_begin(w);
    if (bad) {
        tell(w, &error);
        return;
    }
    w->shape.versions = v;
    w->shape.versions_n = n;
    w->shape.versions_at = 0;
    if (!ev.obj) {
        w->first_ready = MIN(w->first_n, w->first_at + CONVERT_AT_ONCE);
        run(w);
        return;
    }
    if (!event_tell(w, &ev))
        return;
    w->held.obj = obj_unref(w->held.obj);
    w->held.prev = obj_unref(w->held.prev);
    w->shape.versions_n = 0;
    w->job = convert_free(w->api, w->job);
    if (!w->paused)
        store_watch_resume(w->w);
}

static void convert(struct api_watch *w, const struct obj *const *o, uint32_t n)
{
    w->shape.versions_n = 0;
    w->job = convert_free(w->api, w->job);
    w->job = convert_start(&w->shape, o, n, on_converted, w);
    convert_go(w->api, w->job);
}

/* Keeps the event, and those after it in the store's history, until its objects are converted. */
static void hold(struct api_watch *w, const struct store_event *ev)
{
    const struct obj *both[2] = {ev->obj, ev->prev};

    w->held.type = ev->type;
    w->held.obj = obj_ref(ev->obj);
    w->held.prev = ev->prev ? obj_ref(ev->prev) : NULL;
    w->held.revision = ev->revision;
    store_watch_pause(w->w);
    convert(w, both, ev->prev ? 2 : 1);
}

static void watch_event(void *arg, const struct store_event *e)
{
    struct api_watch *w = arg;
    struct store_event ev = *e;

    event_begin(w);
    if (ev.type == STORE_EXPIRED) {
        struct api_event gone = {.type = API_ERROR, .revision = w->told};

        gone.val = status_doc(w->event, 410, "Expired", "too old resource version");
        tell(w, &gone);
        return;
    }
    if (w->ns && !streq(ev.obj->namespace_, w->ns))
        return;
    if (version_needs_webhook(&w->shape, ev.obj) || version_needs_webhook(&w->shape, ev.prev))
        hold(w, &ev);
    else
        event_tell(w, &ev);
}

static int follow(struct api_watch *w)
{
    struct err err = {0};

    w->w = store_watch(w->api->store, w->shape.table, w->revision, 0, watch_event, w, &err);
    if (!w->w) {
        w->expired = true;
        return -1;
    }
    if (w->paused)
        store_watch_pause(w->w);
    return 0;
}

static void run_posted(void *arg)
{
    struct api_watch *w = arg;

    w->posted = false;
    if (w->dead)
        watch_free(w);
    else
        run(w);
}

static void post(struct api_watch *w)
{
    if (w->posted)
        return;
    w->posted = true;
    env_post(w->api->env, run_posted, w);
}

/* Tells what was there at the start, then turns to what comes. */
static void run(struct api_watch *w)
{
    bool hooked = versions_by_webhook(w->shape.r);

    while (!w->paused && w->first_at < w->first_n) {
        const struct obj *o;

        if (hooked && w->first_at == w->first_ready) {
            convert(w, w->first + w->first_at, MIN(w->first_n - w->first_at, CONVERT_AT_ONCE));
            return;
        }
        o = w->first[w->first_at++];
        event_begin(w);
        if (hooked && !matches(w, o))
            continue;
        if (!tell_object(w, API_ADDED, o, o->revision))
            return;
    }
    if (w->paused || w->w || w->over)
        return;
    w->shape.versions_n = 0;
    w->job = convert_free(w->api, w->job);
    arena_reset(w->event);
    w->told = MAX(w->told, w->revision);
    if (w->initial_end && !tell_bookmark(w, w->revision, true))
        return;
    if (follow(w) < 0) {
        struct api_event gone = {.type = API_ERROR, .revision = w->revision};

        gone.val = status_doc(w->event, 410, "Expired",
                              arena_printf(w->event, "too old resource version: %lld (%lld)",
                                           (long long)w->revision,
                                           (long long)store_floor(w->api->store)));
        tell(w, &gone);
    }
}

static void start_durable(void *arg, const struct err *err)
{
    struct api_watch *w = arg;

    w->waiting = false;
    if (w->dead) {
        watch_free(w);
        return;
    }
    w->ready = true;
    if (w->too_new && w->revision > store_head(w->api->store)) {
        struct api_event bad = {.type = API_ERROR};

        arena_reset(w->event);
        w->shape.a = w->event;
        bad.val = too_new(&w->shape, w->revision);
        tell(w, &bad);
        return;
    }
    if (err) { /* what we wanted to show was taken back */
        struct api_event bad = {.type = API_ERROR};

        arena_reset(w->event);
        bad.val = status_doc(w->event, 500, "InternalError", err->msg);
        tell(w, &bad);
        return;
    }
    post(w);
}

static void on_end(void *arg)
{
    struct api_watch *w = arg;
    struct api_event ev = {.type = API_END};

    tell(w, &ev);
}

static void on_tick(void *arg)
{
    struct api_watch *w = arg;

    if (!w->w || w->paused || w->over || w->held.obj)
        return;
    arena_reset(w->event);
    tell_bookmark(w, store_watch_revision(w->w), false);
}

void api_watch_texts(struct api_watch *w)
{
    w->texts = true;
}

void api_watch_start(struct api_watch *w, api_event_fn *fn, void *arg)
{
    int64_t end_ms;

    w->fn = fn;
    w->arg = arg;
    end_ms = (w->shape.o.timeout_s > 0 ? MIN(w->shape.o.timeout_s, (int64_t)TIMEOUT_MAX_S)
                                       : TIMEOUT_MIN_S + env_below(w->api->env, TIMEOUT_MIN_S)) * 1000;
    env_timer_start(w->end, end_ms, 0);
    if (w->bookmarks)
        env_timer_start(w->tick, BOOKMARK_EVERY_MS, BOOKMARK_EVERY_MS);
    if (w->bookmarks && end_ms > BOOKMARK_BEFORE_END_MS) /* so that the next watch starts where this one ends */
        env_timer_start(w->last, end_ms - BOOKMARK_BEFORE_END_MS, 0);
    w->waiting = true;
    store_when_durable(w->api->store, MIN(w->revision, store_head(w->api->store)), start_durable, w);
}

void api_watch_pause(struct api_watch *w, bool paused)
{
    if (w->paused == paused)
        return;
    w->paused = paused;
    if (w->w && paused)
        store_watch_pause(w->w);
    else if (w->w && w->held.obj)
        return; /* goes on when that is told */
    else if (w->w)
        store_watch_resume(w->w);
    else if (!paused && w->ready && (!w->job || w->first_at < w->first_ready))
        post(w);
}

/* What the selectors select right now, for watches that begin with it. */
static int take_first(struct api_watch *w)
{
    struct store_iter it;
    struct err err = {0};
    const struct obj *o;
    uint32_t cap = 0;

    w->shape.a = w->event;
    if (store_iter_init(&it, w->api->store, w->shape.table, w->ns, 0, NULL, NULL, &err) < 0)
        return -1;
    while ((o = store_iter_next(&it))) {
        unsigned had = obj_look(o);
        /* fields are those of a version that a webhook has to make first: see run() */
        bool yes = versions_by_webhook(w->shape.r) ? labels_match(w, o) : matches(w, o);

        obj_look_away(o, had);
        if (!yes)
            continue;
        if (w->first_n == cap) {
            cap = cap ? cap * 2 : 16;
            w->first = xrealloc(w->first, cap * sizeof(*w->first));
        }
        w->first[w->first_n++] = obj_ref(o);
    }
    store_iter_done(&it);
    w->revision = store_head(w->api->store);
    return 0;
}

static struct api_watch *watch_new(struct call *c)
{
    struct api_watch *w = xcalloc(1, sizeof(*w));

    w->a = arena_new();
    w->event = arena_new();
    w->api = c->api;
    w->api->watches++;
    list_push(&w->api->watching, &w->all);
    w->shape = (struct call){.api = c->api, .a = w->event, .r = resource_ref(c->r),
                             .stored = resource_ref(c->stored), .table = c->table,
                             .form = c->form, .encoding = c->encoding, .o = c->o};
    if (c->r == c->stored)
        w->shape.stored = w->shape.r;
    w->shape.form_version = c->form_version ? arena_strdup(w->a, c->form_version) : NULL;
    w->shape.include_object = c->include_object ? arena_strdup(w->a, c->include_object) : NULL;
    w->events = metrics_watch_events(c->api->metrics, c->r->group, c->r->version, c->r->plural);
    w->ns = *c->path.ns ? arena_strdup(w->a, c->path.ns) : NULL;
    w->end = env_timer_new(c->api->env, on_end, w);
    w->tick = env_timer_new(c->api->env, on_tick, w);
    w->last = env_timer_new(c->api->env, on_tick, w);
    return w;
}

int watch_begin(struct call *c)
{
    struct err err = {0};
    struct api_watch *w;
    const char *fields = c->o.field_selector;
    int64_t rv;

    if (options_list(c) < 0 || answer_negotiate(c, true, true) < 0)
        return -1;
    if (!parse_revision(c->o.resource_version, &rv))
        return fail(c, 400, "BadRequest", "invalid resource version \"%s\"", c->o.resource_version);
    if (*c->path.name) /* /watch/.../NAME */
        fields = arena_printf(c->a, "metadata.name=%s%s%s", c->path.name, *fields ? "," : "", fields);
    w = watch_new(c);
    if (!(w->labels = selector_parse(w->a, c->o.label_selector, &err)) ||
        !(w->fields = field_selector_parse(c->r, w->a, fields, &err))) {
        watch_free(w);
        return fail(c, 400, "BadRequest", "%s", err.msg);
    }
    w->bookmarks = c->o.bookmarks;
    w->initial = c->o.send_initial_set ? c->o.send_initial : rv == 0;
    w->initial_end = c->o.send_initial && c->o.bookmarks;
    w->revision = rv ? rv : store_head(c->api->store);
    w->too_new = w->initial && rv > store_head(c->api->store);
    if (w->initial && !w->too_new && take_first(w) < 0) {
        watch_free(w);
        return fail(c, 500, "InternalError", "cannot list");
    }
    c->resp.status = 200;
    c->resp.content_type = c->encoding == ENC_YAML       ? "application/yaml"
                           : c->encoding == ENC_PROTOBUF ? PROTOBUF_TYPE ";stream=watch"
                                                         : "application/json";
    c->resp.watch = w;
    return 0;
}

void watch_each(struct api *api, void (*fn)(void *arg, const struct resource *r, bool ns), void *arg)
{
    LIST_EACH(&api->watching, l) {
        const struct api_watch *w = list_entry(l, struct api_watch, all);

        fn(arg, w->shape.r, w->ns != NULL);
    }
}
