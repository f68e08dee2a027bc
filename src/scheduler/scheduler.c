/* The loop of the scheduler: pods come from a mirror into the queue, each turn places a bounded
 * number of them, and news that may help stirs those that fit nowhere.
 *
 * A binding is a write to the store's head; the mirror shows it before the call comes back, so the
 * next pod is placed over what is true, without a list of assumed pods. */
#include "scheduler/scheduler.h"

#include "base/log.h"
#include "client/client.h"
#include "codec/kubetime.h"
#include "schema/deviceexpr.h"
#include "scheduler/devices.h"
#include "scheduler/place.h"
#include "scheduler/preempt.h"
#include "scheduler/queue.h"

enum { PLACES_A_TURN = 128, TURN_US = 5000, CONSUMERS_MAX = 256 };

#define COMPONENT "default-scheduler"
#define DEVICE_FINALIZER "resource.kubernetes.io/delete-protection"
#define SELECTED_NODE "volume.kubernetes.io/selected-node"

/* A pod for which others were displaced: until it is bound its room is taken, for all that do not
 * matter more, by a stand-in in the cache. */
struct nominee {
    const struct obj *stand_in;
    int64_t priority;
    char *node;
};
struct scheduler {
    struct client *client;
    struct env *env;
    char *name;
    struct arena *arena;
    struct mirror *pods, *nodes, *claims, *volumes, *classes, *namespaces, *budgets, *devices, *slices, *device_classes;
    struct device_exprs *device_exprs; /* NULL: no pod asked for a device yet */
    struct map nominated; /* uid -> struct nominee */
    struct cache cache;
    struct queue queue;
    struct env_timer *turn, *wake;
    struct scheduler_stats stats;
};

/* ---- news ---- */

static void go_on(struct scheduler *s)
{
    if (!env_timer_active(s->turn))
        env_timer_start(s->turn, 0, 0);
}

static void stir(struct scheduler *s)
{
    if (!s->queue.unfit_n)
        return;
    queue_stir(&s->queue, env_now_ms(s->env));
    go_on(s);
}

static bool is_ours(struct scheduler *s, const struct obj *pod)
{
    const struct val *spec = val_get(obj_val(pod), "spec");
    const char *phase = val_str_at(obj_val(pod), "status.phase", "");

    return !*val_str_at(spec, "nodeName", "") && !obj_deleting(pod) &&
           !val_len(val_get(spec, "schedulingGates")) && !streq(phase, "Succeeded") &&
           !streq(phase, "Failed") &&
           streq(val_str_at(spec, "schedulerName", COMPONENT), s->name);
}

/* Only what bears on placing makes an unfit pod worth another try; our own condition does not. */
static bool pod_differs(const struct obj *was, const struct obj *now)
{
    return !was || !val_equal(val_get(obj_val(was), "spec"), val_get(obj_val(now), "spec")) ||
           !val_equal(val_get(obj_meta(was), "labels"), val_get(obj_meta(now), "labels"));
}

static void forget_nominee(struct scheduler *s, const char *uid)
{
    struct nominee *n = map_del(&s->nominated, uid);

    if (!n)
        return;
    cache_pod_gone(&s->cache, n->stand_in);
    obj_unref(n->stand_in);
    free(n->node);
    free(n);
}

static void see_nominee(struct scheduler *s, const struct obj *pod)
{
    const char *node = val_str_at(obj_val(pod), "status.nominatedNodeName", "");
    struct nominee *n = map_get(&s->nominated, pod->uid);
    struct arena *a;
    struct val *v;

    if (n && streq(n->node, node))
        return;
    forget_nominee(s, pod->uid);
    if (!*node)
        return;
    a = arena_new();
    v = obj_edit(pod, a);
    val_put(a, val_get(v, "metadata"), "uid", val_printf(a, "nominated:%s", pod->uid));
    val_put_str(a, val_need_map(a, v, "spec"), "nodeName", node);
    n = xcalloc(1, sizeof *n);
    *n = (struct nominee){obj_seal(v, pod->revision), pod_priority(pod), xstrdup(node)};
    map_put(&s->nominated, pod->uid, n);
    cache_pod(&s->cache, n->stand_in);
    arena_free(a);
}

/* Nominees that do not matter more than this pod make room for it, and take it back. */
static void set_nominees(struct scheduler *s, const struct obj *pod, bool there)
{
    const char *uid;
    void *it;

    for (uint32_t i = 0; map_next(&s->nominated, &i, &uid, &it);) {
        struct nominee *n = it;

        if (!streq(uid, pod->uid) && n->priority >= pod_priority(pod))
            continue;
        if (there)
            cache_pod(&s->cache, n->stand_in);
        else
            cache_pod_gone(&s->cache, n->stand_in);
    }
}

static void pod_news(struct scheduler *s, const struct obj *was, const struct obj *pod)
{
    if (cache_pod(&s->cache, pod))
        stir(s);
    if (is_ours(s, pod))
        see_nominee(s, pod);
    else
        forget_nominee(s, pod->uid);
    if (is_ours(s, pod)) {
        waitq_put(&s->queue, pod, env_now_ms(s->env), pod_differs(was, pod));
        go_on(s);
    } else {
        queue_drop(&s->queue, pod->uid);
    }
}

static void pod_added(void *arg, const struct obj *pod)
{
    pod_news(arg, NULL, pod);
}

static void pod_changed(void *arg, const struct obj *was, const struct obj *pod)
{
    pod_news(arg, was, pod);
}

static void pod_removed(void *arg, const struct obj *pod)
{
    struct scheduler *s = arg;

    queue_drop(&s->queue, pod->uid);
    forget_nominee(s, pod->uid);
    if (cache_pod_gone(&s->cache, pod))
        stir(s);
}

static void node_added(void *arg, const struct obj *node)
{
    struct scheduler *s = arg;

    if (cache_node(&s->cache, node->name, node))
        stir(s);
}

static void node_changed(void *arg, const struct obj *was, const struct obj *node)
{
    (void)was;
    node_added(arg, node);
}

static void node_removed(void *arg, const struct obj *node)
{
    struct scheduler *s = arg;

    cache_node(&s->cache, node->name, NULL);
}

static void other_added(void *arg, const struct obj *o)
{
    (void)o;
    stir(arg);
}

static void other_changed(void *arg, const struct obj *was, const struct obj *o)
{
    (void)was, (void)o;
    stir(arg);
}

/* ---- what a placing needs to know ---- */

static void look_up_claim(struct scheduler *s, const struct obj *pod, struct claims *c, const char *name)
{
    struct claim *k = &c->v[c->n++];
    const char *volume, *class_name;

    k->name = name;
    k->pvc = mirror_get(s->claims, pod->namespace_, name);
    if (!k->pvc) {
        c->wait = arena_printf(s->arena, "persistentvolumeclaim \"%s\" not found", name);
        return;
    }
    if (obj_deleting(k->pvc)) {
        c->wait = arena_printf(s->arena, "persistentvolumeclaim \"%s\" is being deleted", name);
        return;
    }
    if (streq(val_str_at(obj_val(k->pvc), "status.phase", ""), "Lost")) {
        c->wait = arena_printf(s->arena, "persistentvolumeclaim \"%s\" bound to non-existent "
                               "persistentvolume \"%s\"", name,
                               val_str_at(obj_val(k->pvc), "spec.volumeName", ""));
        return;
    }
    volume = val_str_at(obj_val(k->pvc), "spec.volumeName", "");
    if (*volume && streq(val_str_at(obj_val(k->pvc), "status.phase", ""), "Bound")) {
        k->pv = mirror_get(s->volumes, "", volume);
        return;
    }
    class_name = val_str_at(obj_val(k->pvc), "spec.storageClassName", "");
    k->class_ = *class_name ? mirror_get(s->classes, "", class_name) : NULL;
    if (!k->class_ ||
        !streq(val_str_at(obj_val(k->class_), "volumeBindingMode", ""), "WaitForFirstConsumer"))
        c->wait = "pod has unbound immediate PersistentVolumeClaims";
}

/* ---- devices ---- */

static const struct obj *device_class(void *arg, const char *name)
{
    struct scheduler *s = arg;

    return mirror_get(s->device_classes, "", name);
}

static bool reserved_for(const struct obj *claim, const struct obj *pod)
{
    VAL_EACH(val_at(obj_val(claim), "status.reservedFor"), r)
        if (streq(val_str_at(r, "uid", ""), pod->uid))
            return true;
    return false;
}

/* A claim of the pod. NULL and *ret_wait: why it can not be used now. */
static const struct obj *device_claim(struct scheduler *s, const struct obj *pod, const struct val *c, const char **ret_wait)
{
    const char *name = val_str_at(c, "resourceClaimName", "");
    const struct obj *claim;
    const struct val *owner;

    VAL_EACH(val_at(obj_val(pod), "status.resourceClaimStatuses"), st)
        if (streq(val_str_at(st, "name", ""), val_str_at(c, "name", "")))
            name = val_str_at(st, "resourceClaimName", "");
    claim = *name ? mirror_get(s->devices, pod->namespace_, name) : NULL;
    owner = claim ? obj_controller(claim) : NULL;
    if (!claim)
        *ret_wait = *name ? arena_printf(s->arena, "resourceclaim \"%s\" not found", name)
                          : arena_printf(s->arena, "pod \"%s\": ResourceClaim not created yet", pod->name);
    else if (obj_deleting(claim))
        *ret_wait = arena_printf(s->arena, "resourceclaim \"%s\" is being deleted", name);
    else if (*val_str_at(c, "resourceClaimTemplateName", "") && (!owner || !streq(val_str_at(owner, "uid", ""), pod->uid)))
        *ret_wait = arena_printf(s->arena, "ResourceClaim %s/%s was not created for pod %s/%s (pod is not owner)", pod->namespace_,
                                 name, pod->namespace_, pod->name);
    else if (val_len(val_at(obj_val(claim), "status.reservedFor")) >= CONSUMERS_MAX && !reserved_for(claim, pod))
        *ret_wait = "resourceclaim in use";
    return *ret_wait ? NULL : claim;
}

static void add_all(struct scheduler *s, struct mirror *m, const struct obj *const **ret, uint32_t *ret_n)
{
    struct objs all = mirror_list(m, s->arena, NULL);

    *ret = all.v;
    *ret_n = all.n;
}

static void look_up_devices(struct scheduler *s, const struct obj *pod, struct claims *c)
{
    const struct val *list = val_at(obj_val(pod), "spec.resourceClaims");
    struct devices *d;
    const struct obj **claims;

    if (!val_len(list))
        return;
    d = arena_new_of(s->arena, struct devices);
    claims = arena_array(s->arena, const struct obj *, val_len(list));
    if (!s->device_exprs)
        s->device_exprs = device_exprs_new();
    *d = (struct devices){.arena = s->arena, .exprs = s->device_exprs, .classes = {device_class, s}, .claims = claims};
    VAL_EACH(list, it) {
        if (!(claims[d->claims_n] = device_claim(s, pod, it, &c->wait)))
            return;
        d->claims_n++;
    }
    add_all(s, s->slices, &d->slices, &d->slices_n);
    add_all(s, s->devices, &d->all_claims, &d->all_claims_n);
    c->devices = d;
}

static bool protected_already(const struct obj *claim)
{
    VAL_EACH(val_get(obj_meta(claim), "finalizers"), f)
        if (streq(val_text(f, ""), DEVICE_FINALIZER))
            return true;
    return false;
}

/* Writes what was found for the node into the pod's claims, and that the pod uses them. */
static int take_devices(struct scheduler *s, const struct obj *pod, struct devices *d, const struct node_info *n, struct err *err)
{
    const struct val *labels = val_get(obj_meta(n->node), "labels");
    struct val **found = arena_array(s->arena, struct val *, d->claims_n + 1);

    for (uint32_t i = 0; i < d->claims_n; i++) /* before the first write: objects are those that were searched */
        found[i] = devices_allocation(d, i, n->name, labels);
    for (uint32_t i = 0; i < d->claims_n; i++) {
        const struct obj *claim = d->claims[i];
        struct val *v, *status, *ref;

        if (reserved_for(claim, pod))
            continue;
        v = obj_edit(claim, s->arena);
        if (found[i] && !protected_already(claim)) {
            val_push_str(s->arena, val_need_list(s->arena, val_get(v, "metadata"), "finalizers"), DEVICE_FINALIZER);
            if (client_update(s->client, "resource.k8s.io/v1/resourceclaims", v, &claim, err) < 0)
                return -1;
            v = obj_edit(claim, s->arena);
        }
        status = val_need_map(s->arena, v, "status");
        if (found[i])
            val_put(s->arena, status, "allocation", found[i]);
        else if (!val_is(val_get(status, "allocation"), VAL_MAP))
            return err_set(err, CONFLICT, "resourceclaim %s is not what it was", claim->name);
        ref = val_push(s->arena, val_need_list(s->arena, status, "reservedFor"), val_map(s->arena));
        val_put_str(s->arena, ref, "resource", "pods");
        val_put_str(s->arena, ref, "name", pod->name);
        val_put_str(s->arena, ref, "uid", pod->uid);
        if (client_update_status(s->client, "resource.k8s.io/v1/resourceclaims", v, NULL, err) < 0)
            return -1;
    }
    return 0;
}

static struct claims *look_up_claims(struct scheduler *s, const struct obj *pod)
{
    const struct val *volumes = val_at(obj_val(pod), "spec.volumes");
    struct claims *c = arena_new_of(s->arena, struct claims);
    struct objs all, *free_ones;

    c->v = arena_array(s->arena, struct claim, val_len(volumes) + 1);
    VAL_EACH(volumes, v) {
        const char *name = val_str_at(v, "persistentVolumeClaim.claimName", NULL);

        if (!name && val_get(v, "ephemeral"))
            name = arena_printf(s->arena, "%s-%s", pod->name, val_str_at(v, "name", ""));
        if (name && !c->wait)
            look_up_claim(s, pod, c, name);
    }
    if (!c->wait)
        look_up_devices(s, pod, c);
    for (uint32_t i = 0; i < c->n; i++)
        if (c->v[i].class_ && !c->free_volumes) {
            all = mirror_list(s->volumes, s->arena, NULL);
            free_ones = arena_new_of(s->arena, struct objs);
            free_ones->v = arena_array(s->arena, const struct obj *, all.n + 1);
            for (uint32_t k = 0; k < all.n; k++)
                if (!val_at(obj_val(all.v[k]), "spec.claimRef") && !obj_deleting(all.v[k]))
                    free_ones->v[free_ones->n++] = all.v[k];
            c->free_volumes = free_ones->v;
            c->free_n = free_ones->n;
        }
    return c;
}

static const struct val *namespace_labels(void *arg, const char *ns)
{
    struct scheduler *s = arg;
    const struct obj *o = mirror_get(s->namespaces, "", ns);

    return o ? val_get(obj_meta(o), "labels") : NULL;
}

/* ---- acts ---- */

static int bind(struct scheduler *s, const struct obj *pod, const char *node, struct err *err)
{
    struct arena *a = s->arena;
    struct val *v = val_map(a), *target;
    const struct val *answer;

    val_put_str(a, v, "apiVersion", "v1");
    val_put_str(a, v, "kind", "Binding");
    val_put_str(a, val_need_map(a, v, "metadata"), "name", pod->name);
    val_put_str(a, val_get(v, "metadata"), "namespace", pod->namespace_);
    val_put_str(a, val_get(v, "metadata"), "uid", pod->uid);
    target = val_need_map(a, v, "target");
    val_put_str(a, target, "apiVersion", "v1");
    val_put_str(a, target, "kind", "Node");
    val_put_str(a, target, "name", node);
    return client_post_sub(s->client, a, "v1/pods", pod->namespace_, pod->name, "binding", v, &answer,
                           err);
}

/* Claims that wait for their first consumer learn where it will be; true: one had to be told, the
 * pod is bound when they are. */
static int choose_for_claims(struct scheduler *s, const struct claims *c, const char *node,
                             bool *ret_told, struct err *err)
{
    *ret_told = false;
    for (uint32_t i = 0; i < c->n; i++) {
        const struct obj *pvc = c->v[i].pvc;
        struct val *v;

        if (c->v[i].pv)
            continue;
        *ret_told = true;
        if (streq0(obj_annotation(pvc, SELECTED_NODE), node))
            continue;
        v = obj_edit(pvc, s->arena);
        val_put_str(s->arena, val_need_map(s->arena, val_get(v, "metadata"), "annotations"),
                    SELECTED_NODE, node);
        if (client_update(s->client, "v1/persistentvolumeclaims", v, NULL, err) < 0)
            return -1;
    }
    return 0;
}

/* The condition PodScheduled: false, and why. Written when it says something new. nominated: where
 * room is being made for it, or NULL. */
static void tell_unfit(struct scheduler *s, const struct obj *pod, const char *why, const char *nominated)
{
    struct arena *a = s->arena;
    struct val *v = obj_edit(pod, a), *list, *c = NULL;
    char now[KUBETIME_MAX];
    struct err err;

    client_event(s->client, COMPONENT, pod, "Warning", "FailedScheduling", "%s", why);
    list = val_need_list(a, val_need_map(a, v, "status"), "conditions");
    VAL_EACH(list, it)
        if (streq(val_str_at(it, "type", ""), "PodScheduled"))
            c = it;
    if (c && streq(val_str_at(c, "status", ""), "False") && streq(val_str_at(c, "message", ""), why) &&
        (!nominated || streq(val_str_at(v, "status.nominatedNodeName", ""), nominated)))
        return;
    if (!c) {
        c = val_push(a, list, val_map(a));
        val_put_str(a, c, "type", "PodScheduled");
    }
    if (!streq(val_str_at(c, "status", ""), "False"))
        val_put_str(a, c, "lastTransitionTime", kubetime_text(now, env_now_ms(s->env)));
    val_put_str(a, c, "status", "False");
    val_put_str(a, c, "reason", "Unschedulable");
    val_put_str(a, c, "message", why);
    if (nominated)
        val_put_str(a, val_get(v, "status"), "nominatedNodeName", nominated);
    if (client_update_status(s->client, "v1/pods", v, NULL, &err) < 0 && err.code != ERR_NOT_FOUND &&
        err.code != ERR_CONFLICT)
        LOG(WARN, "scheduler", "pod=%s/%s did=tell failed=\"%s\"", pod->namespace_, pod->name, err.msg);
}

/* ---- making room ---- */

/* Says on the victim why it goes, and lets it go. */
static void displace(struct scheduler *s, const struct obj *pod, const struct obj *victim, const char *node)
{
    struct client_delete how = {.uid = victim->uid, .grace_s = -1};
    struct val *v = obj_edit(victim, s->arena), *list, *c = NULL;
    char now[KUBETIME_MAX];
    struct err err;

    if (obj_deleting(victim))
        return;
    list = val_need_list(s->arena, val_need_map(s->arena, v, "status"), "conditions");
    VAL_EACH(list, it)
        if (streq(val_str_at(it, "type", ""), "DisruptionTarget"))
            c = it;
    if (!c) {
        c = val_push(s->arena, list, val_map(s->arena));
        val_put_str(s->arena, c, "type", "DisruptionTarget");
    }
    val_put_str(s->arena, c, "status", "True");
    val_put_str(s->arena, c, "reason", "PreemptionByScheduler");
    val_put_str(s->arena, c, "message", arena_printf(s->arena, "%s: preempting to accommodate a higher priority pod", s->name));
    val_put_str(s->arena, c, "lastTransitionTime", kubetime_text(now, env_now_ms(s->env)));
    if (client_update_status(s->client, "v1/pods", v, NULL, &err) < 0 && err.code != ERR_NOT_FOUND)
        LOG(DEBUG, "scheduler", "pod=%s/%s did=mark failed=\"%s\"", victim->namespace_, victim->name, err.msg);
    if (client_delete(s->client, "v1/pods", victim->namespace_, victim->name, &how, &err) < 0) {
        if (err.code != ERR_NOT_FOUND && err.code != ERR_CONFLICT)
            LOG(WARN, "scheduler", "pod=%s/%s did=preempt failed=\"%s\"", victim->namespace_, victim->name, err.msg);
        return;
    }
    client_event(s->client, COMPONENT, victim, "Normal", "Preempted", "Preempted by pod %s on node %s", pod->uid, node);
}

/* Room was asked for already, and those who give it are on their way out. */
static bool room_comes(struct scheduler *s, const struct obj *pod)
{
    const char *name = val_str_at(obj_val(pod), "status.nominatedNodeName", "");
    struct node_info *n = *name ? map_get(&s->cache.nodes_by_name, name) : NULL;

    if (n)
        LIST_EACH(&n->pods, l) {
            const struct obj *other = list_entry(l, struct placed, on_node)->pod;

            if (obj_deleting(other) && pod_priority(other) < pod_priority(pod))
                return true;
        }
    return false;
}

/* The node on which room is being made for the pod, or NULL. */
static const char *make_room(struct scheduler *s, struct placing *p)
{
    struct preemption found;
    struct objs budgets;
    const struct obj **victims;
    uint32_t n;

    if (streq(val_str_at(obj_val(p->pod), "spec.preemptionPolicy", ""), "Never") || room_comes(s, p->pod))
        return NULL;
    budgets = mirror_list(s->budgets, s->arena, NULL);
    found = preempt(p, budgets.v, budgets.n);
    if (!found.node)
        return NULL;
    victims = found.victims;
    n = found.n;
    for (uint32_t i = 0; i < n; i++) /* the writes take them out of the cache */
        obj_ref(victims[i]);
    for (uint32_t i = 0; i < n; i++)
        displace(s, p->pod, victims[i], found.node);
    for (uint32_t i = 0; i < n; i++)
        obj_unref(victims[i]);
    s->stats.preempted += n;
    return found.node;
}

static void unfit(struct scheduler *s, const char *uid, const struct obj *pod, const char *why, const char *nominated)
{
    struct waiting *w;

    s->stats.failed++;
    tell_unfit(s, pod, why, nominated);
    w = map_get(&s->queue.by_uid, uid); /* the write may have taken it out */
    if (w && w->state == WAIT_READY)
        queue_unfit(&s->queue, w, env_now_ms(s->env));
}

static void postpone(struct scheduler *s, const char *uid, const struct obj *pod, const struct err *err)
{
    struct waiting *w = map_get(&s->queue.by_uid, uid);

    if (err && err->code != ERR_CONFLICT && err->code != ERR_NOT_FOUND)
        LOG(WARN, "scheduler", "pod=%s/%s did=bind failed=\"%s\"", pod->namespace_, pod->name, err->msg);
    if (w && w->state == WAIT_READY)
        queue_pause(&s->queue, w, env_now_ms(s->env));
}

static void place_one(struct scheduler *s, const struct obj *pod)
{
    struct placing p = {.cache = &s->cache, .arena = s->arena, .pod = pod,
                        .claims = look_up_claims(s, pod), .names = {namespace_labels, s},
                        .dice = (uint32_t)env_random(s->env)};
    struct err err = {0};
    struct node_info *asked;
    const char *node;
    bool told;

    if (p.claims->wait) {
        unfit(s, pod->uid, pod, s->cache.nodes_n
              ? arena_printf(s->arena, "0/%u nodes are available: %s.", s->cache.nodes_n, p.claims->wait)
              : "no nodes available to schedule pods", NULL);
        return;
    }
    set_nominees(s, pod, false);
    place(&p);
    asked = map_get(&s->cache.nodes_by_name, val_str_at(obj_val(pod), "status.nominatedNodeName", ""));
    if (p.node && asked && asked->node && !p.reasons[asked->index])
        p.node = asked; /* where room was made for it */
    set_nominees(s, pod, true);
    if (!p.node) {
        const char *why = why_nowhere(&p);

        set_nominees(s, pod, false);
        node = s->cache.nodes_n ? make_room(s, &p) : NULL;
        set_nominees(s, pod, true);
        pod = mirror_get(s->pods, pod->namespace_, pod->name);
        if (pod) /* as it is by now */
            unfit(s, p.pod->uid, pod, why, node);
        return;
    }
    node = arena_strdup(s->arena, p.node->name);
    if (choose_for_claims(s, p.claims, node, &told, &err) < 0) {
        postpone(s, pod->uid, pod, &err);
        return;
    }
    if (told) { /* the binder needs a moment */
        postpone(s, pod->uid, pod, NULL);
        return;
    }
    if (p.claims->devices && take_devices(s, pod, p.claims->devices, p.node, &err) < 0) {
        postpone(s, pod->uid, pod, &err);
        return;
    }
    if (bind(s, pod, node, &err) < 0) {
        postpone(s, pod->uid, pod, &err);
        return;
    }
    s->stats.placed++;
    queue_drop(&s->queue, pod->uid);
    client_event(s->client, COMPONENT, pod, "Normal", "Scheduled", "Successfully assigned %s/%s to %s",
                 pod->namespace_, pod->name, node);
}

static void set_wake(struct scheduler *s)
{
    int64_t now = env_now_ms(s->env), next = queue_wake(&s->queue, now);

    if (next < 0)
        env_timer_stop(s->wake);
    else
        env_timer_start(s->wake, MAX(next - now, (int64_t)1), 0);
    if (s->queue.heap_n)
        go_on(s);
}

static void turn(void *arg)
{
    struct scheduler *s = arg;
    int64_t until = env_mono_us(s->env) + TURN_US;
    struct waiting *w;

    for (int i = 0; i < PLACES_A_TURN && (w = queue_first(&s->queue)); i++) {
        const struct obj *pod = obj_ref(w->pod);

        place_one(s, pod);
        obj_unref(pod);
        arena_reset(s->arena);
        if (env_mono_us(s->env) > until)
            break;
    }
    set_wake(s);
}

static void wake(void *arg)
{
    set_wake(arg);
}

/* ---- life ---- */

struct scheduler *scheduler_start(struct client *client, struct env *env,
                                  const struct scheduler_opts *opts, struct err *err)
{
    struct scheduler *s;
    struct mirror_args args = {.added = other_added, .changed = other_changed};

    (void)err;
    s = xcalloc(1, sizeof *s);
    s->client = client;
    s->env = env;
    s->name = xstrdup(opts && opts->name ? opts->name : COMPONENT);
    s->arena = arena_new();
    cache_init(&s->cache);
    queue_init(&s->queue);
    s->turn = env_timer_new(env, turn, s);
    s->wake = env_timer_new(env, wake, s);
    args.arg = s;
    args.resource = "v1/persistentvolumeclaims";
    s->claims = client_mirror(client, &args);
    args.resource = "v1/persistentvolumes";
    s->volumes = client_mirror(client, &args);
    args.resource = "storage.k8s.io/v1/storageclasses";
    s->classes = client_mirror(client, &args);
    s->namespaces = client_mirror(client, &(struct mirror_args){.resource = "v1/namespaces"});
    args.resource = "resource.k8s.io/v1/resourceclaims";
    s->devices = client_mirror(client, &args);
    args.resource = "resource.k8s.io/v1/resourceslices";
    s->slices = client_mirror(client, &args);
    args.resource = "resource.k8s.io/v1/deviceclasses";
    s->device_classes = client_mirror(client, &args);
    s->budgets = client_mirror(client, &(struct mirror_args){.resource = "policy/v1/poddisruptionbudgets"});
    s->nodes = client_mirror(client, &(struct mirror_args){.resource = "v1/nodes", .added = node_added,
                                                           .changed = node_changed,
                                                           .removed = node_removed, .arg = s});
    s->pods = client_mirror(client, &(struct mirror_args){.resource = "v1/pods", .added = pod_added,
                                                          .changed = pod_changed,
                                                          .removed = pod_removed, .arg = s});
    return s;
}

void *scheduler_stop(struct scheduler *s)
{
    if (!s)
        return NULL;
    mirror_free(s->pods);
    mirror_free(s->nodes);
    mirror_free(s->claims);
    mirror_free(s->volumes);
    mirror_free(s->classes);
    mirror_free(s->namespaces);
    mirror_free(s->budgets);
    mirror_free(s->devices);
    mirror_free(s->slices);
    mirror_free(s->device_classes);
    device_exprs_free(s->device_exprs);
    env_timer_free(s->turn);
    env_timer_free(s->wake);
    queue_done(&s->queue);
    while (s->nominated.n) {
        const char *uid;
        void *it;

        for (uint32_t i = 0; map_next(&s->nominated, &i, &uid, &it);) {
            forget_nominee(s, uid);
            break;
        }
    }
    map_done(&s->nominated);
    cache_done(&s->cache);
    arena_free(s->arena);
    free(s->name);
    free(s);
    return NULL;
}

struct scheduler_stats scheduler_stats(const struct scheduler *s)
{
    struct scheduler_stats stats = s->stats;

    stats.unfit = s->queue.unfit_n;
    stats.waiting = s->queue.by_uid.n - s->queue.unfit_n;
    return stats;
}
