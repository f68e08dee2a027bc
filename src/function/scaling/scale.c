/* Functions that are annotated as Knative's services are (autoscaling.knative.dev/...): kpa.c says how many instances
 * there should be, and that many are kept. What is more goes when it says so, not when it was idle for long; what is
 * missing is forked ahead. A call that finds nobody free still does not wait for the next look: it starts an instance, as
 * everywhere here, unless max-scale are there. The waiting room is what Knative calls the activator, and is always in the
 * way: so capacity for bursts is only told of. */
#include "function/function_int.h"

#include "base/log.h"
#include "function/scaling/kpa.h"

static int takes(const struct function *f)
{
    return f->now ? f->now->places : 1;
}

static const struct val *annotations_of(const struct function *f)
{
    return val_at(obj_val(f->obj), "metadata.annotations");
}

void scale_read(struct function *f)
{
    struct autoscaling s;

    (void)autoscaling_read(annotations_of(f), &s, NULL, NULL);
    if (!s.given || s.class_ != AUTOSCALING_BY_KPA) {
        f->kpa = kpa_free(f->kpa);
        return;
    }
    if (!f->kpa) {
        f->kpa = kpa_new(&s, takes(f), now_us());
        scale_seen(f, (int)f->busy);
    } else {
        kpa_change(f->kpa, &s, takes(f));
    }
    if (f->now && f->now->broken.code == ERR_OK && pool_wanted(f->now)) {
        pool_wake(f->fs);
        zygote_start(f->now);
        pool_refill_soon(f->fs);
    }
}

void scale_done(struct function *f)
{
    f->kpa = kpa_free(f->kpa);
}

void scale_seen(struct function *f, int calls)
{
    if (f->kpa && kpa_seen(f->kpa, calls, now_us()))
        pool_refill_soon(f->fs);
}

static int alive(const struct version *v)
{
    int n = 0;

    LIST_EACH(&v->instances, l)
    {
        const struct instance *i = list_entry(l, struct instance, link);

        n += i->state != INSTANCE_DYING && !i->compiler;
    }
    return n;
}

bool scale_full(const struct version *v)
{
    const struct kpa *k = v->f->kpa;

    return k && kpa_says(k)->max && alive(v) >= kpa_says(k)->max;
}

int scale_wanted(const struct function *f)
{
    return f->kpa ? MIN(kpa_wanted(f->kpa), f->fs->concurrency_max) : 0;
}

int scale_owed(const struct function *f)
{
    return f->kpa ? MIN(kpa_says(f->kpa)->min, f->fs->concurrency_max) : 0;
}

/* Those that have answered nobody yet, then those that were used longest ago. */
static void trim(struct version *v, int n)
{
    while (n > 0 && v->stems_n) {
        instance_kill(list_entry(v->stems.prev, struct instance, free));
        n--;
    }
    for (struct list *l = v->idle.prev, *before; n > 0 && l != &v->idle; l = before) {
        struct instance *i = list_entry(l, struct instance, free);

        before = l->prev;
        if (!i->leases_n) {
            instance_stop(i, serve_grace_ms(i));
            n--;
        }
    }
}

void scale_tick(struct function *f, int64_t now)
{
    struct version *v = f->now;
    int was, have, want;

    if (!f->kpa || !v || v->broken.code != ERR_OK)
        return;
    was = pool_wanted(v);
    have = alive(v);
    if (!kpa_look(f->kpa, have, now))
        return;
    want = pool_wanted(v);
    if (want != was) {
        struct kpa_view k = kpa_view(f->kpa);

        LOG(INFO, "function", "function=%s did=scale from=%d to=%d there=%d stable=%.3f panic=%.3f target=%.3f panics=%d", f->key, was,
            want, have, k.stable, k.panic, k.target, k.panics);
    }
    if (have > want)
        trim(v, have - want);
    else if (have < want)
        pool_refill_soon(f->fs);
}

void scale_tell(const struct function *f, struct arena *a, struct val *o)
{
    struct kpa_view k;

    if (!f->kpa)
        return;
    k = kpa_view(f->kpa);
    val_put_int(a, o, "scaleWanted", scale_wanted(f));
    val_put(a, o, "scaleStable", val_double(a, k.stable));
    val_put(a, o, "scalePanic", val_double(a, k.panic));
    val_put(a, o, "scaleTarget", val_double(a, k.target));
    val_put_int(a, o, "scaleExcessBurst", k.excess);
    val_put_bool(a, o, "scalePanics", k.panics);
}
