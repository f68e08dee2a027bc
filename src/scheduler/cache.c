#include "scheduler/cache.h"

#include "codec/quantity.h"

/* what Kubernetes counts for a container that asks nothing, when it weighs nodes */
enum { CPU_LEAST = 100, MEMORY_LEAST = 200 << 20 };

void cache_init(struct cache *c)
{
    *c = (struct cache){.names_n = RES_NAMED};
    list_init(&c->nodes);
    list_init(&c->all);
    list_init(&c->anti);
}

/* ---- resources ---- */

int cache_resource(struct cache *c, const char *name)
{
    static const char *const fixed[] = {"cpu", "memory", "ephemeral-storage", "pods"};

    for (int i = 0; i < RES_NAMED; i++)
        if (streq(name, fixed[i]))
            return i;
    for (uint32_t i = RES_NAMED; i < c->names_n; i++)
        if (streq(name, c->names[i]))
            return (int)i;
    if (c->names_n == RES_MAX)
        return -1;
    c->names[c->names_n] = xstrdup(name);
    return (int)c->names_n++;
}

const char *cache_resource_name(const struct cache *c, int r)
{
    static const char *const fixed[] = {"cpu", "memory", "ephemeral-storage", "pods"};

    return r < RES_NAMED ? fixed[r] : c->names[r];
}

static void read_amounts(struct cache *c, const struct val *map, struct amounts *ret,
                         const char **ret_unknown)
{
    VAL_EACH_MEMBER(map, m) {
        int r = cache_resource(c, m->key);
        quantity q = quantity_of(&m->v);

        if (r >= 0)
            ret->v[r] = r == RES_CPU ? quantity_milli(q) : quantity_value(q);
        else if (ret_unknown && q > 0)
            *ret_unknown = m->key;
    }
}

static int64_t plus(int64_t a, int64_t b)
{
    int64_t sum;

    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static void add(struct amounts *to, const struct amounts *x)
{
    for (int i = 0; i < RES_MAX; i++)
        to->v[i] = plus(to->v[i], x->v[i]);
}

static void most(struct amounts *to, const struct amounts *x)
{
    for (int i = 0; i < RES_MAX; i++)
        to->v[i] = MAX(to->v[i], x->v[i]);
}

static void container_asks(struct cache *c, const struct val *container, struct amounts *ret,
                           struct amounts *least, const char **ret_unknown)
{
    const struct val *asks = val_at(container, "resources.requests");

    *ret = (struct amounts){{0}};
    read_amounts(c, asks, ret, ret_unknown);
    *least = *ret;
    if (!val_get(asks, "cpu"))
        least->v[RES_CPU] = CPU_LEAST;
    if (!val_get(asks, "memory"))
        least->v[RES_MEMORY] = MEMORY_LEAST;
}

/* Init containers run one after the other, each beside the sidecars started before it; then all
 * containers run beside all sidecars. The pod asks for the most of any moment. */
void pod_asks(struct cache *c, const struct val *spec, struct amounts *ret, int64_t *ret_cpu_least,
              int64_t *ret_memory_least, const char **ret_unknown)
{
    struct amounts sum = {{0}}, init = {{0}}, one, least_one, least = {{0}}, least_init = {{0}};
    struct amounts side = {{0}}, least_side = {{0}}, over = {{0}};

    *ret_unknown = NULL;
    VAL_EACH(val_get(spec, "initContainers"), ic) {
        struct amounts with, least_with;

        container_asks(c, ic, &one, &least_one, ret_unknown);
        with = side;
        least_with = least_side;
        add(&with, &one);
        add(&least_with, &least_one);
        if (streq(val_str_at(ic, "restartPolicy", ""), "Always")) {
            side = with;
            least_side = least_with;
        }
        most(&init, &with);
        most(&least_init, &least_with);
    }
    VAL_EACH(val_get(spec, "containers"), k) {
        container_asks(c, k, &one, &least_one, ret_unknown);
        add(&sum, &one);
        add(&least, &least_one);
    }
    add(&sum, &side);
    add(&least, &least_side);
    most(&sum, &init);
    most(&least, &least_init);
    read_amounts(c, val_at(spec, "resources.requests"), &sum, ret_unknown); /* of the pod itself */
    read_amounts(c, val_get(spec, "overhead"), &over, ret_unknown);
    add(&sum, &over);
    add(&least, &over);
    sum.v[RES_PODS] = 1;
    *ret = sum;
    *ret_cpu_least = MAX(least.v[RES_CPU], sum.v[RES_CPU]);
    *ret_memory_least = MAX(least.v[RES_MEMORY], sum.v[RES_MEMORY]);
}

/* ---- nodes ---- */

static struct node_info *info_of(struct cache *c, const char *name)
{
    struct node_info *n = map_get(&c->nodes_by_name, name);

    if (n)
        return n;
    n = xcalloc(1, sizeof *n);
    n->name = xstrdup(name);
    list_init(&n->pods);
    map_put(&c->nodes_by_name, name, n);
    return n;
}

static void drop_if_empty(struct cache *c, struct node_info *n)
{
    if (n->node || !list_empty(&n->pods))
        return;
    map_del(&c->nodes_by_name, n->name);
    free(n->name);
    free(n);
}

static void number_nodes(struct cache *c)
{
    c->nodes_n = 0;
    EACH_NODE(c, n)
        n->index = c->nodes_n++;
}

static void link_node(struct cache *c, struct node_info *n)
{
    struct list *at = &c->nodes;

    EACH_NODE(c, other)
        if (at == &c->nodes && strcmp(other->name, n->name) > 0)
            at = &other->link;
    list_insert(at, &n->link);
    number_nodes(c);
}

/* Heartbeats come every few seconds; what a pod could not care less for is no news. */
static bool node_differs(const struct obj *was, const struct obj *now)
{
    static const char *const parts[] = {"status.allocatable", "spec.taints", "spec.unschedulable",
                                        "metadata.labels"};

    for (size_t i = 0; i < ARRAY_LEN(parts); i++)
        if (!val_equal(val_at(obj_val(was), parts[i]), val_at(obj_val(now), parts[i])))
            return true;
    return false;
}

bool cache_node(struct cache *c, const char *name, const struct obj *node)
{
    struct node_info *n = info_of(c, name);
    const struct obj *was = n->node;
    bool news = false;

    if (node) {
        const struct val *has = val_at(obj_val(node), "status.allocatable");

        news = !was || node_differs(was, node);
        n->node = obj_ref(node);
        n->has = (struct amounts){{0}};
        read_amounts(c, has ? has : val_at(obj_val(node), "status.capacity"), &n->has, NULL);
        if (!was)
            link_node(c, n);
    } else {
        n->node = NULL;
        if (was) {
            list_remove(&n->link);
            number_nodes(c);
        }
        drop_if_empty(c, n);
    }
    obj_unref(was);
    return news;
}

/* ---- pods ---- */

static void read_ports(struct placed *p)
{
    static const char *const lists[] = {"containers", "initContainers"};
    const struct val *spec = val_get(obj_val(p->pod), "spec");

    for (size_t l = 0; l < ARRAY_LEN(lists); l++)
        VAL_EACH(val_get(spec, lists[l]), k) {
            if (l == 1 && !streq(val_str_at(k, "restartPolicy", ""), "Always"))
                continue;
            VAL_EACH(val_get(k, "ports"), port) {
                int64_t number = val_int_at(port, "hostPort", 0);

                if (number <= 0)
                    continue;
                p->ports = xrealloc(p->ports, (p->ports_n + 1) * sizeof *p->ports);
                p->ports[p->ports_n++] = (struct host_port){
                    (uint16_t)number, val_str_at(port, "protocol", "TCP"), val_str_at(port, "hostIP", "")};
            }
        }
}

static void remove_placed(struct cache *c, struct placed *p)
{
    struct node_info *n = p->node;

    for (int i = 0; i < RES_MAX; i++)
        n->used.v[i] -= p->asks.v[i];
    n->cpu_used_least -= p->cpu_least;
    n->memory_used_least -= p->memory_least;
    list_remove(&p->on_node);
    list_remove(&p->in_all);
    list_remove(&p->in_anti);
    map_del(&c->pods, p->pod->uid);
    obj_unref(p->pod);
    free(p->ports);
    free(p);
    drop_if_empty(c, n);
}

static void insert_placed(struct cache *c, const struct obj *pod, const char *node)
{
    struct placed *p = xcalloc(1, sizeof *p);
    const struct val *spec = val_get(obj_val(pod), "spec");
    const char *unknown;

    p->pod = obj_ref(pod);
    p->node = info_of(c, node);
    pod_asks(c, spec, &p->asks, &p->cpu_least, &p->memory_least, &unknown);
    read_ports(p);
    for (int i = 0; i < RES_MAX; i++)
        p->node->used.v[i] += p->asks.v[i];
    p->node->cpu_used_least += p->cpu_least;
    p->node->memory_used_least += p->memory_least;
    list_push(&p->node->pods, &p->on_node);
    list_push(&c->all, &p->in_all);
    if (val_at(spec, "affinity.podAntiAffinity.requiredDuringSchedulingIgnoredDuringExecution"))
        list_push(&c->anti, &p->in_anti);
    map_put(&c->pods, pod->uid, p);
}

bool cache_pod(struct cache *c, const struct obj *pod)
{
    struct placed *p = map_get(&c->pods, pod->uid);
    const char *node = val_str_at(obj_val(pod), "spec.nodeName", "");
    const char *phase = val_str_at(obj_val(pod), "status.phase", "");
    bool counts = *node && !streq(phase, "Succeeded") && !streq(phase, "Failed");
    bool had;

    if (p && counts && streq(p->node->name, node)) {
        bool labels = !val_equal(val_get(obj_meta(p->pod), "labels"), val_get(obj_meta(pod), "labels"));
        bool asks = !val_equal(val_at(obj_val(p->pod), "spec"), val_at(obj_val(pod), "spec"));

        if (asks) { /* resized in place */
            remove_placed(c, p);
            insert_placed(c, pod, node);
        } else {
            const struct obj *was = p->pod;

            p->pod = obj_ref(pod);
            p->ports_n = 0; /* their texts lie in the object */
            read_ports(p);
            obj_unref(was);
        }
        return labels || asks;
    }
    had = p;
    if (had)
        remove_placed(c, p);
    if (counts)
        insert_placed(c, pod, node);
    return had || counts; /* room was made, or somebody came whom others want to be near */
}

bool cache_pod_gone(struct cache *c, const struct obj *pod)
{
    struct placed *p = map_get(&c->pods, pod->uid);

    if (!p)
        return false;
    remove_placed(c, p);
    return true;
}

void cache_done(struct cache *c)
{
    LIST_EACH(&c->all, l)
        remove_placed(c, list_entry(l, struct placed, in_all));
    LIST_EACH(&c->nodes, l) {
        struct node_info *n = list_entry(l, struct node_info, link);

        cache_node(c, n->name, NULL);
    }
    map_done(&c->nodes_by_name);
    map_done(&c->pods);
    for (uint32_t i = RES_NAMED; i < c->names_n; i++)
        free(c->names[i]);
}
