#include "advisor/advise.h"

#include <math.h>

/* ---- prices ---- */

static int number(const struct val *v, const char *path, double *ret, struct err *err)
{
    const struct val *x = val_at(v, path);

    if (!val_is_number(x) || val_num_at(v, path, -1) < 0)
        return err_set(err, INVALID, "prices: \"%s\" must be a number, 0 or more", path);
    *ret = val_num_at(v, path, 0);
    return 0;
}

int prices_from(const struct val *v, struct prices *ret, struct err *err)
{
    struct prices p = {.currency = val_str_at(v, "currency", "USD"),
                       .function_name = val_str_at(v, "function.name", "function"),
                       .pod_name = val_str_at(v, "pod.name", "pod")};
    const struct {
        const char *path;
        double *to;
    } rows[] = {
        {"hours_per_month", &p.hours},
        {"function.gb_second", &p.gb_s},
        {"function.million_requests", &p.million_requests},
        {"function.free_gb_seconds", &p.free_gb_s},
        {"function.free_requests", &p.free_requests},
        {"function.vcpu_per_gb", &p.vcpu_per_gb},
        {"pod.vcpu_hour", &p.vcpu_h},
        {"pod.gb_hour", &p.gb_h},
        {"cold_second_in_gb_seconds", &p.cold_gb_s},
        {"target_utilisation", &p.target},
        {"requests_at_once_max", &p.at_once_max},
        {"move.saving_share_min", &p.share_min},
        {"move.saving_min", &p.saving_min},
        {"move.hours_min", &p.hours_min},
        {"move.points_min", &p.points_min},
    };

    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        if (number(v, rows[i].path, rows[i].to, err) < 0)
            return -1;
    if (p.hours <= 0 || p.target <= 0 || p.target > 1 || p.at_once_max < 1)
        return err_set(err, INVALID, "prices: hours_per_month must be above 0, target_utilisation in (0, 1], "
                                     "requests_at_once_max at least 1");
    VAL_EACH(val_at(v, "function.tiers"), t) {
        if (p.tiers_n == (int)ARRAY_LEN(p.tiers))
            return err_set(err, INVALID, "prices: more than %zu tiers", ARRAY_LEN(p.tiers));
        p.tiers[p.tiers_n].up_to = val_num_at(t, "up_to_gb_seconds", INFINITY);
        if (number(t, "factor", &p.tiers[p.tiers_n].factor, err) < 0)
            return err_wrap(err, "function.tiers[%d]", p.tiers_n);
        p.tiers_n++;
    }
    *ret = p;
    return 0;
}

static double price_gb_s(const struct prices *p, double gb_s)
{
    double sum = 0, from = 0, left = fmax(gb_s - p->free_gb_s, 0);

    for (int i = 0; i < p->tiers_n && left > 0; i++) {
        double here = fmin(left, p->tiers[i].up_to - from);

        sum += here * p->tiers[i].factor * p->gb_s;
        left -= here;
        from = p->tiers[i].up_to;
    }
    return sum + (p->tiers_n ? 0 : left * p->gb_s);
}

/* ---- one workload ---- */

static double pod_month(const struct prices *p, double vcpu, double gb)
{
    return (vcpu * p->vcpu_h + gb * p->gb_h) * p->hours;
}

/* The same work in pods: as big as the function is (its memory, and the processor that comes with
 * it), as many as its mean concurrency fills, each with as many requests at once as they wait. */
static void function_as_pods(const struct prices *p, const struct use *u, struct advice *r)
{
    double conc = u->seconds > 0 ? u->busy_s / u->seconds : 0;

    r->at_once = u->cpu_s > 0 ? fmin(fmax(u->busy_s / u->cpu_s, 1), p->at_once_max) : 1;
    r->pod_gb = fmax(u->memory_gb, u->peak_gb); /* never below what was seen */
    r->pod_vcpu = r->pod_gb * p->vcpu_per_gb;
    r->replicas = fmax(1, ceil(conc / (r->at_once * p->target) - 1e-9));
    r->as_pods = r->replicas * pod_month(p, r->pod_vcpu, r->pod_gb);
    r->busy_share = conc / r->replicas;
}

static void function_as_function(const struct prices *p, const struct use *u, double months,
                                 struct advice *r)
{
    double cold = u->cold_s * p->cold_gb_s * p->gb_h / 3600; /* waiting has its price too */

    r->requests_month = u->requests * months;
    r->gb_s_month = u->gb_s * months;
    r->as_function = price_gb_s(p, r->gb_s_month) +
                     fmax(r->requests_month - p->free_requests, 0) * p->million_requests / 1e6 +
                     cold * months;
}

/* Pods are metered by their seconds; how many requests they answered nobody saw. What they would
 * cost as a function is reckoned from the seconds in which they computed. */
static void pods_both_ways(const struct prices *p, const struct use *u, double months, struct advice *r)
{
    double busy_s;

    r->replicas = u->seconds > 0 ? u->pod_s / u->seconds : 0;
    r->pod_vcpu = u->pod_s > 0 ? u->vcpu_s / u->pod_s : 0;
    r->pod_gb = u->pod_s > 0 ? u->pod_gb_s / u->pod_s : 0;
    r->as_pods = r->replicas * pod_month(p, r->pod_vcpu, r->pod_gb);
    busy_s = u->cpu_s;
    r->busy_share = u->pod_s > 0 ? busy_s / u->pod_s : 0;
    r->gb_s_month = busy_s * fmax(r->pod_gb, u->peak_gb) * months;
    r->as_function = price_gb_s(p, r->gb_s_month);
}

static enum confidence confidence_of(const struct prices *p, const struct use *u)
{
    double hours = u->seconds / 3600;

    if (!use_is_function(u))
        return hours >= 7 * 24 ? CONFIDENCE_MEDIUM : CONFIDENCE_LOW; /* requests are not counted */
    if (hours < p->hours_min || u->requests < p->points_min)
        return CONFIDENCE_LOW;
    return hours >= 7 * 24 && u->requests >= 10 * p->points_min ? CONFIDENCE_HIGH : CONFIDENCE_MEDIUM;
}

const char *confidence_text(enum confidence c)
{
    return c == CONFIDENCE_HIGH ? "high" : c == CONFIDENCE_MEDIUM ? "medium" : "low";
}

static const char *span(struct arena *a, double seconds)
{
    if (seconds < 120)
        return arena_printf(a, "%.0f s", seconds);
    if (seconds < 7200)
        return arena_printf(a, "%.0f min", seconds / 60);
    return seconds < 172800 ? arena_printf(a, "%.1f h", seconds / 3600)
                            : arena_printf(a, "%.1f days", seconds / 86400);
}

static const char *sums(struct arena *a, const struct prices *p, const struct use *u,
                        const struct advice *r)
{
    const char *pods = arena_printf(a, "pods: %.3g x (%.2f vCPU x $%g + %.2f GB x $%g) x %g h = $%.2f",
                                    r->replicas, r->pod_vcpu, p->vcpu_h, r->pod_gb, p->gb_h, p->hours,
                                    r->as_pods);

    if (!use_is_function(u))
        return arena_printf(a, "%s; function: computing %.1f%% of the time = %.4g GB-s x $%g = $%.2f, requests not counted",
                            pods, r->busy_share * 100, r->gb_s_month, p->gb_s, r->as_function);
    return arena_printf(a, "function: %.4g requests x $%g/M + %.4g GB-s x $%g + cold starts = $%.2f; %s, "
                           "%.3g at once, busy %.1f%%",
                        r->requests_month, p->million_requests, r->gb_s_month, p->gb_s,
                        r->as_function, pods, r->at_once, r->busy_share * 100);
}

void advise(struct arena *a, const struct prices *p, const struct use *u, struct advice *ret)
{
    double months = u->seconds > 0 ? p->hours * 3600 / u->seconds : 0, saving, now;
    bool function = use_is_function(u), enough;
    const char *stays = NULL, *numbers;

    *ret = (struct advice){.use = u, .now_function = function, .advised_function = function,
                           .blocked = u->blocked, .confidence = confidence_of(p, u)};
    if (function) {
        function_as_function(p, u, months, ret);
        function_as_pods(p, u, ret);
    } else {
        pods_both_ways(p, u, months, ret);
    }
    ret->cold_day = u->seconds > 0 ? u->cold * 86400 / u->seconds : 0;
    now = function ? ret->as_function : ret->as_pods;
    saving = now - (function ? ret->as_pods : ret->as_function);
    enough = u->seconds / 3600 >= p->hours_min && (!function || u->requests >= p->points_min);

    if (!function && u->blocked)
        stays = u->blocked;
    else if (saving <= 0)
        stays = arena_printf(a, "the other way costs $%.2f a month more", -saving);
    else if (saving < p->saving_min || saving < p->share_min * now)
        stays = arena_printf(a, "$%.2f a month is not worth a move", saving);
    else if (!enough && function)
        stays = arena_printf(a, "measured for %s and %.0f requests only (%g h and %g requests are needed)",
                             span(a, u->seconds), u->requests, p->hours_min, p->points_min);
    else if (!enough)
        stays = arena_printf(a, "measured for %s only (%g h are needed)", span(a, u->seconds), p->hours_min);
    numbers = sums(a, p, u, ret);
    if (stays) {
        ret->reason = arena_printf(a, "stays: %s; %s", stays, numbers);
        return;
    }
    ret->advised_function = !function;
    ret->saved = saving;
    ret->reason = arena_printf(a, "saves $%.2f of $%.2f a month; %s", saving, now, numbers);
}
