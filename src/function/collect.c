/* Code that nobody needs any more goes: zips and unpacked folders that no function, version or layer names and no
 * instance runs, COLLECT_KEEP_S after that was seen first. The look at the disk is a pool thread's. */
#include "function/function_int.h"

#include "base/log.h"
#include "function/code.h"

enum { LOOK_MS = 60 * 1000, COLLECT_KEEP_S = 600 };

struct collector {
    struct functions *fs;
    uv_timer_t timer;
    uv_work_t work;
    bool busy, closing;
    struct map used, idle; /* the thread's while busy */
    uint32_t gone;
    functions_code_fn *others;
    void *others_arg;
};

static void use(void *arg, const char *sha256)
{
    if (!str_empty(sha256))
        map_put(arg, sha256, arg);
}

/* What is running counts, too: a version that was replaced is in the list until its last instance has ended. */
static void use_version(struct map *used, const struct version *v)
{
    use(used, v->sha256);
    for (uint32_t i = 0; i < v->layers_n; i++)
        use(used, v->layers[i]);
}

static void use_object(struct map *used, const struct obj *o)
{
    const struct val *spec = o ? val_get(obj_val(o), "spec") : NULL;

    if (val_get(spec, "template"))
        spec = val_get(spec, "template");
    use(used, val_str_at(spec, "codeSha256", NULL));
    VAL_EACH(val_get(spec, "layers"), it)
    use(used, val_str_at(it, "codeSha256", NULL));
}

static void look(uv_work_t *w)
{
    struct collector *c = w->data;

    c->gone = code_collect(c->fs->state, &c->used, &c->idle, now_us() / 1000000, COLLECT_KEEP_S);
}

static void collector_free(struct collector *c)
{
    struct functions *fs = c->fs;

    map_done(&c->used);
    map_done(&c->idle);
    free(c);
    fs->handles--;
    functions_let_go(fs);
}

static void on_closed(uv_handle_t *h)
{
    struct collector *c = h->data;

    if (!c->busy)
        collector_free(c);
    else
        c->closing = true; /* on_looked() ends it */
}

static void on_looked(uv_work_t *w, int status)
{
    struct collector *c = w->data;

    c->busy = false;
    if (c->gone)
        LOG(INFO, "function", "did=collect-code n=%u", c->gone);
    if (c->closing)
        collector_free(c);
}

static void on_time(uv_timer_t *t)
{
    struct collector *c = t->data;

    if (c->busy || !c->others) /* nobody said that all functions are known */
        return;
    map_done(&c->used);
    if (!c->others(c->others_arg, use, &c->used))
        return;
    LIST_EACH(&c->fs->all, l)
    {
        struct function *f = list_entry(l, struct function, link);

        use_object(&c->used, f->obj);
        LIST_EACH(&f->versions, k)
        use_version(&c->used, list_entry(k, struct version, link));
    }
    c->busy = true;
    c->work.data = c;
    if (uv_queue_work(c->fs->loop, &c->work, look, on_looked) < 0)
        c->busy = false;
}

void functions_collect_code(struct functions *fs, functions_code_fn *others, void *arg)
{
    fs->collector->others = others;
    fs->collector->others_arg = arg;
}

void collector_start(struct functions *fs)
{
    struct collector *c = xcalloc(1, sizeof *c);

    c->fs = fs;
    fs->collector = c;
    fs->handles++;
    uv_timer_init(fs->loop, &c->timer);
    c->timer.data = c;
    uv_timer_start(&c->timer, on_time, LOOK_MS, LOOK_MS);
    uv_unref((uv_handle_t *)&c->timer);
}

void collector_stop(struct functions *fs)
{
    uv_close((uv_handle_t *)&fs->collector->timer, on_closed);
}
