/* Watches. One pass per change over the watches of its table, no copies, no queues: a watch that
 * reads slowly is paused and later reads the history from its cursor on. The order is kept when
 * callbacks write: pump() is not entered twice, the outer one goes on with what they added. */
#include "store/store_int.h"

static void tell(struct store_watch *w, const struct hist *h)
{
    struct store_event ev = {
        .type = h->type, .revision = h->revision, .obj = h->obj, .prev = h->prev, .table = h->t};

    w->cursor = h->revision;
    w->fn(w->arg, &ev);
}

static void tell_list(struct list *watches, const struct hist *h, bool head)
{
    LIST_EACH(watches, l) {
        struct store_watch *w = list_entry(l, struct store_watch, link);

        if (!(w->flags & STORE_WATCH_HEAD) == head || w->dead || w->expired || w->cursor >= h->revision)
            continue;
        if (!w->paused && !list_linked(&w->lag))
            tell(w, h);
    }
}

static void pump(struct store *s, struct hist **next, bool head)
{
    s->hold++;
    while (*next && (head || (*next)->revision <= s->durable)) {
        struct hist *h = *next;

        tell_list(&h->t->watches, h, head);
        tell_list(&s->watches_all, h, head);
        *next = hist_next(s, h);
    }
    watch_release(s);
}

void watch_pump_head(struct store *s)
{
    if (s->pumping_head)
        return;
    s->pumping_head = true;
    pump(s, &s->next_head, true);
    s->pumping_head = false;
}

void watch_pump_durable(struct store *s)
{
    if (s->pumping_durable)
        return;
    s->pumping_durable = true;
    pump(s, &s->next_durable, false);
    s->pumping_durable = false;
}

static void sweep_list(struct list *watches)
{
    LIST_EACH(watches, l) {
        struct store_watch *w = list_entry(l, struct store_watch, link);

        if (w->dead) {
            list_remove(&w->link);
            free(w);
        }
    }
}

void watch_release(struct store *s)
{
    if (--s->hold || !s->sweep)
        return;
    s->sweep = false;
    for (struct store_table *t = s->tables; t; t = t->next)
        sweep_list(&t->watches);
    sweep_list(&s->watches_all);
}

/* --- the reversed events after a disk failure ------------------------------------------------- */
static void reverse(struct store_watch *w, const struct hist *h, int64_t revision)
{
    struct store_event ev = {.revision = revision, .table = h->t, .obj = h->prev, .prev = h->obj};

    switch (h->type) {
    case STORE_ADDED:
        ev.type = STORE_DELETED;
        ev.obj = h->obj;
        break;
    case STORE_DELETED:
        ev.type = STORE_ADDED;
        ev.prev = NULL;
        break;
    default:
        ev.type = STORE_MODIFIED;
    }
    w->fn(w->arg, &ev);
}

static void take_back_list(struct list *watches, struct store_table *t, struct hist **undone,
                           uint32_t n, int64_t revision)
{
    LIST_EACH(watches, l) {
        struct store_watch *w = list_entry(l, struct store_watch, link);
        int64_t knows = w->cursor;

        if (!(w->flags & STORE_WATCH_HEAD))
            continue;
        for (uint32_t i = 0; i < n && !w->dead; i++) /* newest first */
            if ((!t || undone[i]->t == t) && undone[i]->revision <= knows)
                reverse(w, undone[i], revision);
        if (w->paused || list_linked(&w->lag))
            w->cursor = MIN(w->cursor, revision);
        else
            w->cursor = revision;
    }
}

void watch_take_back(struct store *s, struct hist **undone, uint32_t n)
{
    s->hold++;
    for (struct store_table *t = s->tables; t; t = t->next)
        take_back_list(&t->watches, t, undone, n, s->head);
    take_back_list(&s->watches_all, NULL, undone, n, s->head);
    watch_release(s);
}

/* --- catching up ------------------------------------------------------------------------------ */
/* The chain of changes that the watch sees: of its table, or all. */
static struct list *chain(struct store_watch *w)
{
    return w->t ? &w->t->history : &w->s->history;
}
static struct hist *chain_hist(struct store_watch *w, struct list *l)
{
    return w->t ? list_entry(l, struct hist, in_table) : hist_of(l);
}

static void expire(struct store_watch *w)
{
    struct store_event ev = {.type = STORE_EXPIRED, .revision = w->s->floor, .table = w->t};

    w->expired = true;
    w->fn(w->arg, &ev);
}

static void catch_up_one(struct store_watch *w)
{
    struct store *s = w->s;
    struct list *head = chain(w), *l = head;

    list_remove(&w->lag);
    if (w->cursor < s->floor) {
        expire(w);
        return;
    }
    while (l->prev != head && chain_hist(w, l->prev)->revision > w->cursor)
        l = l->prev;
    /* While it reads it counts as lagging: what its callback writes is appended to the chain and
     * read here, in order. */
    list_push(&s->lagging, &w->lag);
    for (; l != head && !w->dead && !w->paused; l = l->next) {
        struct hist *h = chain_hist(w, l);

        if (!(w->flags & STORE_WATCH_HEAD) && h->revision > s->durable)
            break;
        tell(w, h);
    }
    list_remove(&w->lag);
}

void watch_catch_up(void *arg)
{
    struct store *s = arg;
    struct list now;

    list_init(&now);
    if (!list_empty(&s->lagging)) { /* those that become lagging meanwhile have their own turn */
        now = s->lagging;
        now.next->prev = now.prev->next = &now;
        list_init(&s->lagging);
    }
    s->hold++;
    for (struct list *l; (l = list_first(&now));)
        catch_up_one(list_entry(l, struct store_watch, lag));
    watch_release(s);
}

static void lag(struct store_watch *w)
{
    if (list_linked(&w->lag) || w->dead || w->expired)
        return;
    list_push(&w->s->lagging, &w->lag);
    env_timer_start(w->s->catch_up, 0, 0);
}

/* --- the door --------------------------------------------------------------------------------- */
struct store_watch *store_watch(struct store *s, struct store_table *t, int64_t from_revision,
                                unsigned flags, store_watch_fn *fn, void *arg, struct err *err)
{
    struct store_watch *w;
    int64_t now = flags & STORE_WATCH_HEAD ? s->head : s->durable;

    if (from_revision && from_revision < s->floor) {
        err_set(err, EXPIRED, "too old resource version: %lld (%lld)", (long long)from_revision,
                (long long)s->floor);
        return NULL;
    }
    w = xcalloc(1, sizeof *w);
    w->s = s;
    w->t = t;
    w->cursor = from_revision ? from_revision : now;
    w->flags = flags;
    w->fn = fn;
    w->arg = arg;
    list_push(t ? &t->watches : &s->watches_all, &w->link);
    s->stats.watches++;
    /* Also when a pump is under way: it may be anywhere between the cursor and the head. */
    if (w->cursor < s->head)
        lag(w);
    return w;
}

void *store_watch_free(struct store_watch *w)
{
    if (!w)
        return NULL;
    ASSERT(!w->dead);
    w->s->stats.watches--;
    list_remove(&w->lag);
    if (w->s->hold) { /* somebody walks the list: it stays there, dumb */
        w->dead = true;
        w->s->sweep = true;
    } else {
        list_remove(&w->link);
        free(w);
    }
    return NULL;
}

void store_watch_pause(struct store_watch *w)
{
    if (w->paused)
        return;
    w->cursor = store_watch_revision(w);
    w->paused = true;
}

void store_watch_resume(struct store_watch *w)
{
    if (!w->paused)
        return;
    w->paused = false;
    lag(w);
}

int64_t store_watch_revision(const struct store_watch *w)
{
    const struct store *s = w->s;
    bool head = w->flags & STORE_WATCH_HEAD;
    const struct hist *untold = head ? s->next_head : s->next_durable;
    int64_t now = head ? s->head : s->durable;

    if (w->paused || list_linked(&w->lag) || w->expired)
        return w->cursor;
    /* told all; in the midst of a pump, up to the change before the one that is being told */
    if (untold && untold->revision <= now)
        now = untold->revision - 1;
    return MAX(w->cursor, now);
}
