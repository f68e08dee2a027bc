/* Topology spread constraints and pod (anti-)affinity: both count pods by domain, the value of a
 * node label. Counts are made once per pod that is placed, then each node is a look-up. */
#include <stdio.h>

#include "codec/selector.h"
#include "scheduler/place_int.h"

static const char *domain_of(const struct node_info *n, const char *key)
{
    return val_text(val_get(val_get(obj_meta(n->node), "labels"), key), NULL);
}

struct count {
    int64_t n;
};

static struct count *count_at(struct arena *a, struct map *m, const char *domain)
{
    struct count *c = map_get(m, domain);

    if (!c) {
        c = arena_new_of(a, struct count);
        map_put(m, domain, c);
    }
    return c;
}

static void drop_map(void *m)
{
    map_done(m);
}

static struct map *map_in(struct arena *a)
{
    struct map *m = arena_new_of(a, struct map);

    arena_pin(a, drop_map, m);
    return m;
}

/* ---- topology spread ---- */

struct spread {
    const char *key;
    int64_t max_skew, min_domains;
    bool hard, self; /* self: the pod counts itself */
    struct map *counts;
    int64_t least;
};

static bool counts_in(const struct work *w, const struct val *c, const struct node_info *n)
{
    bool affinity = !streq(val_str_at(c, "nodeAffinityPolicy", "Honor"), "Ignore");
    bool taints = streq(val_str_at(c, "nodeTaintsPolicy", "Ignore"), "Honor");

    if (affinity && !node_wanted(w, n))
        return false;
    if (taints)
        VAL_EACH(val_at(obj_val(n->node), "spec.taints"), taint) {
            bool borne = streq(val_str_at(taint, "effect", ""), "PreferNoSchedule");

            VAL_EACH(val_get(w->spec, "tolerations"), t)
                borne = borne || tolerates(t, taint);
            if (!borne)
                return false;
        }
    return true;
}

static const struct val *with_match_keys(struct work *w, const struct val *c, const struct val *selector)
{
    struct arena *a = w->p->arena;
    struct val *copy;

    if (!val_len(val_get(c, "matchLabelKeys")))
        return selector;
    copy = selector ? val_copy(a, selector) : val_map(a);
    VAL_EACH(val_get(c, "matchLabelKeys"), k) {
        const struct val *mine = val_get(w->labels, val_text(k, ""));

        if (mine)
            val_put(a, val_need_map(a, copy, "matchLabels"), val_text(k, ""), mine);
    }
    return copy;
}

static void spread_count(struct work *w, struct spread *s, const struct val *c)
{
    const struct val *selector = with_match_keys(w, c, val_get(c, "labelSelector"));
    const char *key;
    void *count;
    int64_t domains = 0;

    s->self = selector_matches(selector, w->labels);
    EACH_NODE(w->p->cache, n) {
        const char *domain = domain_of(n, s->key);
        struct count *at;

        if (!domain || !counts_in(w, c, n))
            continue;
        at = count_at(w->p->arena, s->counts, domain);
        LIST_EACH(&n->pods, l) {
            const struct obj *pod = list_entry(l, struct placed, on_node)->pod;

            at->n += streq(pod->namespace_, w->p->pod->namespace_) && !obj_deleting(pod) &&
                     selector_matches(selector, val_get(obj_meta(pod), "labels"));
        }
    }
    s->least = INT64_MAX;
    for (uint32_t i = 0; map_next(s->counts, &i, &key, &count); domains++)
        s->least = MIN(s->least, ((struct count *)count)->n);
    if (s->least == INT64_MAX || domains < s->min_domains)
        s->least = 0; /* domains that are still to come count as empty */
}

void spread_prepare(struct work *w)
{
    const struct val *list = val_get(w->spec, "topologySpreadConstraints");

    w->spreads = arena_array(w->p->arena, struct spread, val_len(list) + 1);
    VAL_EACH(list, c) {
        struct spread *s = &w->spreads[w->spreads_n++];

        s->key = val_str_at(c, "topologyKey", "");
        s->max_skew = val_int_at(c, "maxSkew", 1);
        s->min_domains = val_int_at(c, "minDomains", 0);
        s->hard = !streq(val_str_at(c, "whenUnsatisfiable", ""), "ScheduleAnyway");
        s->counts = map_in(w->p->arena);
        spread_count(w, s, c);
    }
}

const char *spread_forbids(struct work *w, struct node_info *n)
{
    for (uint32_t i = 0; i < w->spreads_n; i++) {
        const struct spread *s = &w->spreads[i];
        const char *domain = domain_of(n, s->key);
        const struct count *c = domain ? map_get(s->counts, domain) : NULL;

        if (!s->hard)
            continue;
        if (!domain)
            return "node(s) didn't match pod topology spread constraints (missing required label)";
        if ((c ? c->n : 0) + s->self - s->least > s->max_skew)
            return "node(s) didn't match pod topology spread constraints";
    }
    return NULL;
}

double spread_soft(struct work *w, struct node_info *n)
{
    double sum = 0;

    for (uint32_t i = 0; i < w->spreads_n; i++) {
        const struct spread *s = &w->spreads[i];
        const char *domain = domain_of(n, s->key);
        const struct count *c = domain ? map_get(s->counts, domain) : NULL;

        if (!s->hard)
            sum += domain ? (double)(c ? c->n : 0) : 1000;
    }
    return sum;
}

/* ---- pod affinity ---- */

#define REQUIRED "requiredDuringSchedulingIgnoredDuringExecution"
#define PREFERRED "preferredDuringSchedulingIgnoredDuringExecution"

struct near {
    const char *key;
    bool away, hard;
    double weight;
    struct map *domains; /* those with pods that match; counts */
    bool first;          /* nobody matches anywhere, and the pod matches itself: it may be the first */
};

static bool in_namespaces(struct work *w, const struct val *term, const char *own_ns, const char *ns)
{
    const struct val *list = val_get(term, "namespaces"), *selector = val_get(term, "namespaceSelector");

    if (!val_len(list) && !selector)
        return streq(ns, own_ns);
    VAL_EACH(list, it)
        if (streq(val_text(it, ""), ns))
            return true;
    return selector && w->p->names.labels_of &&
           selector_matches(selector, w->p->names.labels_of(w->p->names.arg, ns));
}

static const struct val *term_selector(struct work *w, const struct val *term)
{
    return with_match_keys(w, term, val_get(term, "labelSelector"));
}

static void near_count(struct work *w, struct near *x, const struct val *term)
{
    const struct val *selector = term_selector(w, term);
    const char *own = w->p->pod->namespace_;
    bool any = false;

    EACH_NODE(w->p->cache, n) {
        const char *domain = domain_of(n, x->key);

        if (!domain)
            continue;
        LIST_EACH(&n->pods, l) {
            const struct obj *pod = list_entry(l, struct placed, on_node)->pod;

            if (!obj_deleting(pod) && in_namespaces(w, term, own, pod->namespace_) &&
                selector_matches(selector, val_get(obj_meta(pod), "labels"))) {
                count_at(w->p->arena, x->domains, domain)->n++;
                any = true;
            }
        }
    }
    x->first = !any && in_namespaces(w, term, own, own) && selector_matches(selector, w->labels);
}

static void near_add(struct work *w, const struct val *term, bool away, bool hard, double weight)
{
    struct near *x = &w->nears[w->nears_n++];

    *x = (struct near){.key = val_str_at(term, "topologyKey", ""), .away = away, .hard = hard,
                       .weight = weight, .domains = map_in(w->p->arena)};
    near_count(w, x, term);
}

void affinity_prepare(struct work *w)
{
    const struct val *both[] = {val_at(w->spec, "affinity.podAffinity"),
                                val_at(w->spec, "affinity.podAntiAffinity")};
    uint32_t n = 0;

    for (int i = 0; i < 2; i++)
        n += val_len(val_get(both[i], REQUIRED)) + val_len(val_get(both[i], PREFERRED));
    w->nears = arena_array(w->p->arena, struct near, n + 1);
    for (int i = 0; i < 2; i++) {
        VAL_EACH(val_get(both[i], REQUIRED), term)
            near_add(w, term, i, true, 0);
        VAL_EACH(val_get(both[i], PREFERRED), t)
            near_add(w, val_get(t, "podAffinityTerm"), i, false, (double)val_int_at(t, "weight", 1));
    }
}

/* Pods that are there already may not want us in their domain. */
static bool others_forbid(struct work *w, struct node_info *n)
{
    LIST_EACH(&w->p->cache->anti, l) {
        const struct placed *other = list_entry(l, struct placed, in_anti);

        if (!other->node->node)
            continue;
        VAL_EACH(val_at(obj_val(other->pod), "spec.affinity.podAntiAffinity." REQUIRED), term) {
            const char *key = val_str_at(term, "topologyKey", ""), *ours = domain_of(n, key);

            if (ours && streq0(ours, domain_of(other->node, key)) &&
                in_namespaces(w, term, other->pod->namespace_, w->p->pod->namespace_) &&
                selector_matches(val_get(term, "labelSelector"), w->labels))
                return true;
        }
    }
    return false;
}

const char *affinity_forbids(struct work *w, struct node_info *n)
{
    const char *why = NULL;

    for (uint32_t i = 0; i < w->nears_n && !why; i++) {
        const struct near *x = &w->nears[i];
        const char *domain = domain_of(n, x->key);
        bool there = domain && map_get(x->domains, domain);

        if (!x->hard)
            continue;
        if (x->away && there)
            why = "node(s) didn't match pod anti-affinity rules";
        else if (!x->away && !there && !(x->first && domain))
            why = "node(s) didn't match pod affinity rules";
    }
    if (!why && others_forbid(w, n))
        why = "node(s) didn't satisfy existing pods anti-affinity rules";
    return why;
}

double affinity_wishes(struct work *w, struct node_info *n)
{
    double sum = 0;

    for (uint32_t i = 0; i < w->nears_n; i++) {
        const struct near *x = &w->nears[i];
        const char *domain = domain_of(n, x->key);
        const struct count *c = domain ? map_get(x->domains, domain) : NULL;

        if (!x->hard && c)
            sum += (x->away ? -x->weight : x->weight) * (double)c->n;
    }
    return sum;
}
