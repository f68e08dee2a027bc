/* The forms in which advice is shown: a table for people, JSON for programs, objects for kubectl. */
#include <ctype.h>
#include <stdio.h>

#include "advisor/advise.h"

static const char *model(bool function)
{
    return function ? "function" : "pods";
}

static void put_num(struct arena *a, struct val *v, const char *key, double d)
{
    val_put(a, v, key, val_double(a, d));
}

struct val *advices_val(struct arena *a, const struct prices *p, const struct advices *all)
{
    struct val *top = val_map(a), *list = val_list(a);

    for (uint32_t i = 0; i < all->n; i++) {
        const struct advice *r = &all->v[i];
        struct val *v = val_push(a, list, val_map(a));

        val_put_str(a, v, "namespace", r->use->ns);
        val_put_str(a, v, "kind", r->use->kind);
        val_put_str(a, v, "workload", r->use->name);
        val_put_str(a, v, "now", model(r->now_function));
        val_put_str(a, v, "advised", model(r->advised_function));
        put_num(a, v, "perMonthAsFunction", r->as_function);
        put_num(a, v, "perMonthAsPods", r->as_pods);
        put_num(a, v, "savedPerMonth", r->saved);
        put_num(a, v, "coldStartsPerDay", r->cold_day);
        val_put_str(a, v, "confidence", confidence_text(r->confidence));
        val_put_str(a, v, "reason", r->reason);
        if (r->blocked)
            val_put_str(a, v, "blockedBy", r->blocked);
        put_num(a, v, "measuredSeconds", r->use->seconds);
        put_num(a, v, "requestsPerMonth", r->requests_month);
        put_num(a, v, "gbSecondsPerMonth", r->gb_s_month);
        put_num(a, v, "replicas", r->replicas);
        put_num(a, v, "podVcpu", r->pod_vcpu);
        put_num(a, v, "podGb", r->pod_gb);
        put_num(a, v, "busyShare", r->busy_share);
    }
    val_put_str(a, top, "currency", p->currency);
    val_put_str(a, top, "functionPrices", p->function_name);
    val_put_str(a, top, "podPrices", p->pod_name);
    val_put(a, top, "workloads", list);
    return top;
}

void advices_table(struct buf *b, const struct prices *p, const struct advices *all)
{
    int width = 8;

    for (uint32_t i = 0; i < all->n; i++) {
        int n = (int)(strlen(all->v[i].use->ns) + strlen(all->v[i].use->kind) + strlen(all->v[i].use->name)) + 2;

        width = MAX(width, n);
    }
    if (!all->n) {
        buf_adds(b, "No workload was measured yet.\n");
        return;
    }
    buf_printf(b, "%-*s  %-8s  %-8s  %11s  %8s  %8s  %8s  %-6s  %s\n", width, "WORKLOAD", "NOW", "ADVISED",
               "$/MO FUNC", "$/MO POD", "SAVED", "COLD/DAY", "CONF", "REASON");
    for (uint32_t i = 0; i < all->n; i++) {
        const struct advice *r = &all->v[i];
        char name[600], kind[64];

        snprintf(kind, sizeof kind, "%s", r->use->kind);
        for (char *c = kind; *c; c++)
            *c = (char)tolower((unsigned char)*c);
        snprintf(name, sizeof name, "%s/%s/%s", r->use->ns, kind, r->use->name);
        buf_printf(b, "%-*s  %-8s  %-8s  %11.2f  %8.2f  %8.2f  %8.1f  %-6s  %s\n", width, name,
                   model(r->now_function), model(r->advised_function), r->as_function, r->as_pods, r->saved,
                   r->cold_day, confidence_text(r->confidence), r->reason);
    }
    buf_printf(b, "Prices: function %s, pods %s (%s a month of %g h).\n", p->function_name, p->pod_name,
               p->currency, p->hours);
}

static void put_number(struct arena *a, struct val *v, const char *key, int decimals, double d)
{
    val_put(a, v, key, val_printf(a, "%.*f", decimals, d));
}

struct val *advice_object(struct arena *a, const struct prices *p, const struct advice *r,
                          const char *now_text)
{
    struct val *v = val_map(a), *part;
    char *name = arena_printf(a, "%s-%s", r->use->kind, r->use->name);

    for (char *c = name; *c; c++)
        *c = isalnum((unsigned char)*c) || *c == '-' || *c == '.' ? (char)tolower((unsigned char)*c) : '-';
    part = val_need_map(a, v, "metadata");
    val_put_str(a, part, "name", name);
    val_put_str(a, part, "namespace", r->use->ns);
    part = val_need_map(a, v, "workload");
    val_put_str(a, part, "kind", r->use->kind);
    val_put_str(a, part, "name", r->use->name);
    val_put_str(a, part, "namespace", r->use->ns);
    val_put_str(a, v, "now", model(r->now_function));
    val_put_str(a, v, "advised", model(r->advised_function));
    put_number(a, v, "costAsFunction", 2, r->as_function);
    put_number(a, v, "costAsPods", 2, r->as_pods);
    val_put_str(a, v, "currency", p->currency);
    val_put_str(a, v, "reason", r->reason);
    val_put_str(a, v, "confidence", confidence_text(r->confidence));
    val_put_str(a, v, "updatedAt", now_text);
    part = val_need_map(a, v, "numbers");
    put_number(a, part, "saved", 2, r->saved);
    put_number(a, part, "measuredSeconds", 0, r->use->seconds);
    put_number(a, part, "requestsPerMonth", 0, r->requests_month);
    put_number(a, part, "gbSecondsPerMonth", 1, r->gb_s_month);
    put_number(a, part, "coldStartsPerDay", 1, r->cold_day);
    put_number(a, part, "replicas", 2, r->replicas);
    put_number(a, part, "busyShare", 4, r->busy_share);
    if (r->blocked)
        val_put_str(a, part, "blockedBy", r->blocked);
    return v;
}
