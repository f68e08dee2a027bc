/* advisor/advise.h - where a workload belongs, and what it would cost there: pure functions over
 * measured use and a price sheet.
 *
 * Both prices are always reckoned from the same measurement, and the reason names the numbers that
 * decided. A workload is told to move only when it may (constraints come first), when enough was
 * measured, and when the saving is worth a move; so the advice does not swing to and fro. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "codec/val.h"

struct prices {
    const char *currency, *function_name, *pod_name;
    double hours; /* in a month */
    double gb_s, million_requests, free_gb_s, free_requests;
    struct {
        double up_to, factor;
    } tiers[8];
    int tiers_n;
    double vcpu_per_gb; /* of a function: its share of processor grows with its memory */
    double vcpu_h, gb_h;
    double cold_gb_s; /* what a second of cold start is worth, in GB-s of idle memory */
    double target, at_once_max;
    double share_min, saving_min, hours_min, points_min; /* what makes a move worth it */
};
/* From a sheet; INVALID names what is missing or no number. Strings are borrowed from v. */
int prices_from(const struct val *v, struct prices *ret, struct err *err) _must_check_;

struct use { /* of one workload over `seconds`, all totals */
    const char *kind, *ns, *name; /* kind: Function, Deployment, StatefulSet, Pod, ... */
    double seconds;
    double requests, busy_s, gb_s, cold, cold_s; /* functions */
    double cpu_s;
    double memory_gb, peak_gb;                   /* as configured; as seen at most */
    double pod_s, vcpu_s, pod_gb_s;              /* pods: seconds, and max(request, usage) over them */
    const char *blocked;                         /* why it cannot be a function; NULL: it can */
};
static inline bool use_is_function(const struct use *u)
{
    return streq(u->kind, "Function");
}

enum confidence { CONFIDENCE_LOW, CONFIDENCE_MEDIUM, CONFIDENCE_HIGH };
struct advice {
    const struct use *use;
    bool now_function, advised_function;
    double as_function, as_pods; /* per month */
    double saved;                /* per month, by following; 0 when it stays */
    double replicas, at_once, pod_vcpu, pod_gb; /* of the pods in as_pods */
    double requests_month, gb_s_month, cold_day, busy_share;
    enum confidence confidence;
    const char *reason, *blocked; /* in the arena */
};
void advise(struct arena *a, const struct prices *p, const struct use *u, struct advice *ret);
const char *confidence_text(enum confidence c);

/* The forms of many rows. */
struct advices {
    struct advice *v;
    uint32_t n;
};
struct val *advices_val(struct arena *a, const struct prices *p, const struct advices *all);
void advices_table(struct buf *b, const struct prices *p, const struct advices *all);
/* One tandem.dev/v1 Advice object. */
struct val *advice_object(struct arena *a, const struct prices *p, const struct advice *v,
                          const char *now_text);
