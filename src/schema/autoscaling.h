/* schema/autoscaling.h - Knative's annotations of how many instances there are (autoscaling.knative.dev/...), with its
 * meaning, bounds, defaults (config-autoscaler as it is installed) and words for what is wrong. The names of before 1.0
 * ("minScale") count where the new one ("min-scale") is not given. */
#pragma once

#include "codec/val.h"

#define AUTOSCALING_GROUP "autoscaling.knative.dev/"
#define AUTOSCALING_KPA "kpa.autoscaling.knative.dev"

enum autoscaling_class {
    AUTOSCALING_BY_KPA,
    AUTOSCALING_BY_HPA,
    AUTOSCALING_BY_OTHERS, /* a class outside of Knative: nothing of it is judged or done here */
};

struct autoscaling {
    bool given; /* something of it is said: without, it is the owner's way to count */
    enum autoscaling_class class_;
    bool rps;              /* the metric: requests a second; else how many are under way at once */
    double target;         /* of an instance; 0: the default of the metric, or what an instance takes at once */
    double utilization;    /* the part of the target that is aimed at: 0.01 .. 1; 0.7 */
    double burst;          /* capacity kept for bursts; -1: without end; 211 */
    int min, max;          /* max 0: no limit */
    int initial;           /* of a new revision; 1 */
    int activation;        /* at least so many when it comes up from none; 1 */
    int64_t window_ms;     /* 60,000 */
    double panic_window;   /* part of the window: 0.1 */
    double panic_threshold; /* of what the instances there are made for: 2 */
    int64_t delay_ms;      /* fewer only after so long of it; 0 */
    int64_t retention_ms;  /* the last one stays so long after it is not needed; 0 */
};

/* Told once for each thing wrong. key and other (NULL: one only) are annotations' names; bad is the value as given. */
typedef void autoscaling_fault_fn(void *arg, const char *key, const char *other, const struct val *bad, const char *message);
/* annotations: a map of texts, or NULL. What is wrong has its default in ret; fault may be NULL. True: nothing is wrong. */
bool autoscaling_read(const struct val *annotations, struct autoscaling *ret, autoscaling_fault_fn *fault, void *arg);
