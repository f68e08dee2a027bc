#include "gateway/triggers.h"

#include "base/base.h"
#include "base/log.h"
#include "client/client.h"
#include "event/schedule.h"

#define SCHEDULES "tandem.dev/v1/schedules"
#define RULES "tandem.dev/v1/eventrules"

struct triggers {
    struct client *client;
    struct schedules *schedules;
    struct mirror *mirrors[2];
};

static const char *resource_of(const struct obj *o)
{
    return streq(val_str_at(obj_val(o), "kind", ""), "EventRule") ? RULES : SCHEDULES;
}

static void on_written(void *arg, const struct client_result *r)
{
    const char *did = arg;

    if (r->err && r->err->code != ERR_NOT_FOUND && r->err->code != ERR_CANCELLED)
        LOG(WARN, "gateway", "did=%s error=\"%s\"", did, r->err->msg);
}

static void tell(void *arg, const struct obj *o, const char *state, const char *reason)
{
    struct triggers *t = arg;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *patch = val_map(a), *status = val_need_map(a, patch, "status");
    const struct val *v = obj_val(o);

    if (streq(val_str_at(v, "status.state", ""), state) && streq(val_str_at(v, "status.reason", ""), reason))
        return;
    val_put_str(a, status, "state", state);
    val_put_str(a, status, "reason", reason);
    client_call(t->client, &(struct client_call){.verb = CLIENT_PATCH, .resource = resource_of(o), .ns = o->namespace_,
        .name = o->name, .sub = "status", .body = patch, .patch_type = CLIENT_PATCH_MERGE}, on_written, "schedule-status");
}

static void complete(void *arg, const struct obj *o)
{
    struct triggers *t = arg;

    client_call(t->client, &(struct client_call){.verb = CLIENT_DELETE, .resource = SCHEDULES, .ns = o->namespace_, .name = o->name},
                on_written, "delete-schedule");
}

static void on_added(void *arg, const struct obj *o)
{
    schedules_put(((struct triggers *)arg)->schedules, o);
}
static void on_changed(void *arg, const struct obj *was, const struct obj *o)
{
    (void)was;
    on_added(arg, o);
}
static void on_removed(void *arg, const struct obj *last)
{
    schedules_remove(((struct triggers *)arg)->schedules, last);
}

struct triggers *triggers_new(uv_loop_t *loop, const char *state, struct client *client, struct functions *functions)
{
    static const char *const resources[] = {SCHEDULES, RULES};
    struct triggers *t = xcalloc(1, sizeof *t);

    t->client = client;
    t->schedules = schedules_new(&(struct schedules_opts){
        .loop = loop, .state = state, .functions = functions, .tell = tell, .complete = complete, .arg = t});
    for (size_t i = 0; i < ARRAY_LEN(resources); i++)
        t->mirrors[i] = client_mirror(client, &(struct mirror_args){
            .resource = resources[i], .added = on_added, .changed = on_changed, .removed = on_removed, .arg = t});
    return t;
}

void *triggers_free(struct triggers *t)
{
    if (!t)
        return NULL;
    for (size_t i = 0; i < ARRAY_LEN(t->mirrors); i++)
        mirror_free(t->mirrors[i]);
    schedules_free(t->schedules);
    free(t);
    return NULL;
}
