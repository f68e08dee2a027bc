#include "controller/rollout.h"

#include <math.h>
#include <stdio.h>

#include "codec/json.h"

int64_t int_or_percent(const struct val *v, int64_t total, bool round_up, int64_t otherwise)
{
    double share;
    char *end;

    if (val_is(v, VAL_INT))
        return v->i;
    if (!val_is(v, VAL_STR))
        return otherwise;
    share = strtod(v->s, &end);
    if (end == v->s || !streq(end, "%"))
        return otherwise;
    share = share * (double)total / 100;
    return (int64_t)(round_up ? ceil(share) : floor(share));
}

void rollout_limits(const struct val *max_surge, const struct val *max_unavailable,
                    int64_t replicas, int64_t *ret_surge, int64_t *ret_unavailable)
{
    static const struct val quarter = {.type = VAL_STR, .n = 3, .s = "25%"};
    int64_t surge = int_or_percent(max_surge ? max_surge : &quarter, replicas, true, 1);
    int64_t un = int_or_percent(max_unavailable ? max_unavailable : &quarter, replicas, false, 0);

    /* both 0 (25 % of one, rounded down, and no surge) would never move */
    if (surge <= 0 && un <= 0)
        un = 1;
    un = MAX(un, 0);
    *ret_surge = MAX(surge, 0);
    *ret_unavailable = MIN(un, replicas);
}

/* ---- rolling update ---- */

static int64_t sum_spec(const struct rollout *r)
{
    int64_t n = r->fresh ? r->fresh->spec : 0;

    for (size_t i = 0; i < r->old_n; i++)
        n += r->old[i]->spec;
    return n;
}

static void keep_all(struct rollout *r)
{
    if (r->fresh)
        r->fresh->next = r->fresh->spec;
    for (size_t i = 0; i < r->old_n; i++)
        r->old[i]->next = r->old[i]->spec;
}

static int older_first(const void *x, const void *y)
{
    const struct rollout_set *a = *(struct rollout_set *const *)x;
    const struct rollout_set *b = *(struct rollout_set *const *)y;

    return (a->created > b->created) - (a->created < b->created);
}

static int64_t fresh_target(const struct rollout *r, int64_t have)
{
    int64_t room = r->replicas + r->surge - sum_spec(r);

    if (have >= r->replicas)
        return r->replicas;
    return room <= 0 ? have : have + MIN(room, r->replicas - have);
}

int64_t rollout_first(const struct rollout *r)
{
    return fresh_target(r, 0);
}

/* Old pods that do not work go first: they help nobody, and go without touching availability. */
static int64_t drop_unhealthy(struct rollout *r, int64_t max)
{
    int64_t done = 0;

    for (size_t i = 0; i < r->old_n && done < max; i++) {
        struct rollout_set *s = r->old[i];
        int64_t n = MIN(max - done, s->next - s->available);

        if (s->next == 0 || n <= 0)
            continue;
        s->next -= n;
        done += n;
    }
    return done;
}

static int64_t drop_healthy(struct rollout *r)
{
    int64_t available = r->fresh->available, done = 0, max;

    for (size_t i = 0; i < r->old_n; i++)
        available += r->old[i]->available;
    max = available - (r->replicas - r->unavailable);
    for (size_t i = 0; i < r->old_n && done < max; i++) {
        struct rollout_set *s = r->old[i];
        int64_t n = MIN(s->next, max - done);

        s->next -= n;
        done += n;
    }
    return done;
}

bool rollout_step(struct rollout *r)
{
    int64_t old = 0, max;

    keep_all(r);
    ASSERT(r->fresh);
    r->fresh->next = fresh_target(r, r->fresh->spec);
    if (r->fresh->next != r->fresh->spec)
        return true;
    for (size_t i = 0; i < r->old_n; i++)
        old += r->old[i]->spec;
    if (old == 0)
        return false;
    max = sum_spec(r) - (r->replicas - r->unavailable) - (r->fresh->spec - r->fresh->available);
    if (max <= 0)
        return false;
    qsort(r->old, r->old_n, sizeof *r->old, older_first);
    return (drop_unhealthy(r, max) > 0) | (drop_healthy(r) > 0);
}

/* ---- scaling ---- */

/* How much of `add` this set takes: its share of the whole by size, never past what is left. */
static int64_t share_of(const struct rollout *r, const struct rollout_set *s, int64_t add,
                        int64_t added, int64_t status_replicas)
{
    int64_t noted = s->max_noted >= 0 ? s->max_noted : status_replicas, part, left = add - added;

    if (s->spec == 0 || add == 0 || left == 0)
        return 0;
    if (r->replicas == 0)
        part = -s->spec;
    else
        part = (int64_t)llround((double)s->spec * (double)(r->replicas + r->surge) /
                                (double)MAX(noted, 1)) - s->spec;
    return add > 0 ? MIN(part, left) : MAX(part, left);
}

static int bigger_then_newer(const void *x, const void *y)
{
    const struct rollout_set *a = *(struct rollout_set *const *)x;
    const struct rollout_set *b = *(struct rollout_set *const *)y;

    if (a->spec != b->spec)
        return a->spec < b->spec ? 1 : -1;
    return -older_first(x, y);
}

static int bigger_then_older(const void *x, const void *y)
{
    const struct rollout_set *a = *(struct rollout_set *const *)x;
    const struct rollout_set *b = *(struct rollout_set *const *)y;

    if (a->spec != b->spec)
        return a->spec < b->spec ? 1 : -1;
    return older_first(x, y);
}

static bool changed(const struct rollout *r)
{
    bool any = r->fresh && r->fresh->next != r->fresh->spec;

    for (size_t i = 0; i < r->old_n; i++)
        any |= r->old[i]->next != r->old[i]->spec;
    return any;
}

static void scale_in_proportion(struct rollout *r, int64_t status_replicas)
{
    size_t n = 0;
    struct rollout_set **sets = xcalloc(r->old_n + 1, sizeof *sets);
    int64_t allowed = r->replicas > 0 ? r->replicas + r->surge : 0, add = allowed, added = 0;

    if (r->fresh && r->fresh->spec > 0)
        sets[n++] = r->fresh;
    for (size_t i = 0; i < r->old_n; i++)
        if (r->old[i]->spec > 0)
            sets[n++] = r->old[i];
    for (size_t i = 0; i < n; i++)
        add -= sets[i]->spec;
    qsort(sets, n, sizeof *sets, add > 0 ? bigger_then_newer : bigger_then_older);
    for (size_t i = 0; i < n; i++) {
        int64_t part = share_of(r, sets[i], add, added, status_replicas);

        sets[i]->next = sets[i]->spec + part;
        added += part;
    }
    if (n && add)
        sets[0]->next = MAX(sets[0]->next + add - added, 0); /* what rounding left over */
    free(sets);
}

bool rollout_scale(struct rollout *r, bool rolling, int64_t status_replicas)
{
    struct rollout_set *active = NULL, *latest = NULL;
    size_t active_n = 0;

    keep_all(r);
    for (size_t i = 0; i < r->old_n; i++) {
        struct rollout_set *s = r->old[i];

        if (s->spec > 0) {
            active = s;
            active_n++;
        }
        if (!latest || s->created > latest->created)
            latest = s;
    }
    if (r->fresh) {
        latest = r->fresh;
        if (r->fresh->spec > 0) {
            active = r->fresh;
            active_n++;
        }
    }
    if (active_n <= 1) { /* one set is all there is: it takes the whole */
        active = active_n ? active : latest;
        if (active)
            active->next = r->replicas;
        return changed(r);
    }
    if (r->fresh && r->fresh->spec == r->replicas && r->fresh->available == r->replicas) {
        for (size_t i = 0; i < r->old_n; i++) /* the new one is full: the old are leftovers */
            r->old[i]->next = 0;
        return changed(r);
    }
    if (rolling)
        scale_in_proportion(r, status_replicas);
    return changed(r);
}

/* ---- templates ---- */

static const struct val *without_hash(struct arena *a, const struct val *template)
{
    struct val *copy, *labels;

    if (!val_get(val_at(template, "metadata.labels"), "pod-template-hash"))
        return template;
    copy = val_copy(a, template);
    labels = val_at(copy, "metadata.labels");
    val_del(labels, "pod-template-hash");
    if (labels->n == 0)
        val_del(val_get(copy, "metadata"), "labels");
    return copy;
}

bool template_equal(struct arena *a, const struct val *x, const struct val *y)
{
    return val_equal(without_hash(a, x), without_hash(a, y));
}

static int by_key(const void *x, const void *y)
{
    return strcmp(((const struct val_member *)x)->key, ((const struct val_member *)y)->key);
}

/* Keys in order, so that two writings of one template give one hash. */
static void sort_keys(struct val *v)
{
    VAL_EACH(v, it)
        sort_keys(it);
    VAL_EACH_MEMBER(v, m)
        sort_keys(&m->v);
    if (v->type == VAL_MAP && v->n > 1)
        qsort(v->members, v->n, sizeof *v->members, by_key);
}

const char *template_hash(struct arena *a, const struct val *template, int64_t collisions)
{
    static const char letters[] = "bcdfghjklmnpqrstvwxz2456789"; /* no vowels: no words */
    struct val *copy = val_copy(a, without_hash(a, template));
    uint32_t h = 2166136261u;
    char digits[16];
    const char *text;
    size_t n;

    sort_keys(copy);
    text = json_text(a, copy, &n);
    for (size_t i = 0; i < n; i++)
        h = (h ^ (uint8_t)text[i]) * 16777619u;
    for (int i = 0; collisions && i < 8; i++)
        h = (h ^ (uint8_t)(collisions >> (8 * i))) * 16777619u;
    n = (size_t)snprintf(digits, sizeof digits, "%u", h);
    for (size_t i = 0; i < n; i++)
        digits[i] = letters[(unsigned char)digits[i] % (sizeof letters - 1)];
    return arena_strdup(a, digits);
}
