/* schema/rules_apps.c - workloads: apps, batch, autoscaling, policy. */
#include "schema/rules_int.h"
#include "schema/select.h"

#include <stdio.h>

static bool same(const struct val *x, const struct val *y)
{
    return (!x && !y) || (x && y && val_equal(x, y));
}

/* Can it be turned into a selector at all? (The causes themselves come from its own rule.) */
static bool selector_valid(const struct val *sel)
{
    VAL_EACH_MEMBER(val_get(sel, "matchLabels"), m)
        if (name_qualified(m->key) || name_label_value(val_text(&m->v, "")))
            return false;
    VAL_EACH(val_get(sel, "matchExpressions"), e) {
        const char *op = val_str_at(e, "operator", "");
        bool in = streq(op, "In") || streq(op, "NotIn");
        bool exists = streq(op, "Exists") || streq(op, "DoesNotExist");
        uint32_t n = val_len(val_get(e, "values"));
        if ((!in && !exists) || (in && !n) || (exists && n) || name_qualified(val_str_at(e, "key", "")))
            return false;
        VAL_EACH(val_get(e, "values"), x)
            if (name_label_value(val_text(x, "")))
                return false;
    }
    return true;
}

/* The template's labels must be among what the selector selects. */
static void selector_fits(struct check *c, const struct val *spec)
{
    const struct val *sel = val_get(spec, "selector");
    struct err err = {0};

    if (val_is_null(sel)) {
        check_fail(c, CAUSE_INVALID, "spec.template.metadata.labels",
                   val_at(spec, "template.metadata.labels"), "`selector` does not match template `labels`");
        return;
    }
    if (!val_len(val_get(sel, "matchLabels")) && !val_len(val_get(sel, "matchExpressions"))) {
        check_fail(c, CAUSE_INVALID, "spec.selector", sel, "empty selector is invalid for deployment");
        return;
    }
    struct selector *s = selector_valid(sel) ? selector_of(c->a, sel, &err) : NULL;
    if (!s)
        check_fail(c, CAUSE_INVALID, "spec.selector", sel, "invalid label selector");
    else if (!selector_match(s, val_at(spec, "template.metadata.labels")))
        check_fail(c, CAUSE_INVALID, "spec.template.metadata.labels",
                   val_at(spec, "template.metadata.labels"), "`selector` does not match template `labels`");
}

static void always(struct check *c, const struct val *spec)
{
    const char *policy = val_str_at(spec, "template.spec.restartPolicy", "Always");

    if (!streq(policy, "Always"))
        check_fail(c, CAUSE_NOT_SUPPORTED, "spec.template.spec.restartPolicy",
                   val_at(spec, "template.spec.restartPolicy"), "supported values: \"Always\"");
    if (val_at(spec, "template.spec.activeDeadlineSeconds"))
        check_fail(c, CAUSE_FORBIDDEN, "spec.template.spec.activeDeadlineSeconds", NULL,
                   "activeDeadlineSeconds in pod template is not supported");
}

static void immutable(struct check *c, const struct val *v, const struct val *old, const char *path)
{
    const struct val *x = val_at(v, path), *y = val_at(old, path);

    if (old && !*c->sub && !same(x, y))
        check_fail(c, CAUSE_INVALID, path, x, "field is immutable");
}

/* "25%" or a number; 0 when it is neither. Over a hundred counts as it is. */
static double portion(struct check *c, const char *rel, const struct val *v, bool whole)
{
    if (!v)
        return 0;
    if (v->type == VAL_INT) {
        if (v->i < 0)
            check_fail(c, CAUSE_INVALID, rel, v, "must be greater than or equal to 0");
        return (double)v->i;
    }
    size_t n = strspn(v->s, "0123456789");
    if (!n || v->s[n] != '%' || v->s[n + 1]) {
        check_fail(c, CAUSE_INVALID, rel, v, "a valid percent string must be a numeric string followed "
                                             "by an ending '%%'");
        return 0;
    }
    int pct = atoi(v->s);
    if (pct > 100 && whole)
        check_fail(c, CAUSE_INVALID, rel, v, "must not be greater than 100%%");
    return pct;
}

HOOK(v_deployment)
{
    const struct val *spec = val_get(v, "spec"), *roll = val_at(spec, "strategy.rollingUpdate");
    const char *type = val_str_at(spec, "strategy.type", "");

    if (*c->sub)
        return;
    selector_fits(c, spec);
    always(c, spec);
    immutable(c, v, old, "spec.selector");
    if (streq(type, "Recreate")) {
        if (roll)
            check_fail(c, CAUSE_FORBIDDEN, "spec.strategy.rollingUpdate", NULL,
                       "may not be specified when strategy `type` is 'Recreate'");
    } else if (!streq(type, "RollingUpdate")) {
        check_fail(c, CAUSE_NOT_SUPPORTED, "spec.strategy", val_get(spec, "strategy"),
                   "supported values: \"Recreate\", \"RollingUpdate\"");
    } else if (!roll) {
        check_fail(c, CAUSE_REQUIRED, "spec.strategy.rollingUpdate", NULL,
                   "this should be defaulted and never be nil");
    } else {
        double un = portion(c, "spec.strategy.rollingUpdate.maxUnavailable", val_get(roll, "maxUnavailable"), true);
        double surge = portion(c, "spec.strategy.rollingUpdate.maxSurge", val_get(roll, "maxSurge"), false);
        if (un == 0 && surge == 0)
            check_fail(c, CAUSE_INVALID, "spec.strategy.rollingUpdate.maxUnavailable",
                       val_get(roll, "maxUnavailable"), "may not be 0 when `maxSurge` is 0");
    }
    int64_t deadline = val_int_at(spec, "progressDeadlineSeconds", INT64_MAX);
    if (deadline <= val_int_at(spec, "minReadySeconds", 0))
        check_fail(c, CAUSE_INVALID, "spec.progressDeadlineSeconds", val_get(spec, "progressDeadlineSeconds"),
                   "must be greater than minReadySeconds");
}

HOOK(v_replicaset)
{
    if (*c->sub)
        return;
    selector_fits(c, val_get(v, "spec"));
    always(c, val_get(v, "spec"));
    immutable(c, v, old, "spec.selector");
}

HOOK(v_replicationcontroller)
{
    const struct val *spec = val_get(v, "spec"), *sel = val_get(spec, "selector");
    (void)old;

    if (*c->sub)
        return;
    if (!val_len(sel))
        check_fail(c, CAUSE_REQUIRED, "spec.selector", NULL, "%s", "");
    else if (val_get(spec, "template") &&
             !selector_match(selector_of_map(c->a, sel), val_at(spec, "template.metadata.labels")))
        check_fail(c, CAUSE_INVALID, "spec.template.metadata.labels",
                   val_at(spec, "template.metadata.labels"), "`selector` does not match template `labels`");
    if (val_get(spec, "template"))
        always(c, spec);
}

HOOK(v_daemonset)
{
    const struct val *spec = val_get(v, "spec"), *sel = val_get(spec, "selector");
    const char *type = val_str_at(spec, "updateStrategy.type", "");
    const struct val *roll = val_at(spec, "updateStrategy.rollingUpdate");
    struct err err = {0};

    if (*c->sub)
        return;
    bool valid = val_is_null(sel) || selector_valid(sel); /* no selector selects nothing */
    struct selector *s = val_is_null(sel) || !valid ? NULL : selector_of(c->a, sel, &err);
    if (valid && (!s || !selector_match(s, val_at(spec, "template.metadata.labels"))))
        check_fail(c, CAUSE_INVALID, "spec.template.metadata.labels",
                   val_at(spec, "template.metadata.labels"), "`selector` does not match template `labels`");
    if (!val_is_null(sel) && !val_len(val_get(sel, "matchLabels")) && !val_len(val_get(sel, "matchExpressions")))
        check_fail(c, CAUSE_INVALID, "spec.selector", sel, "empty selector is invalid for daemonset");
    always(c, spec);
    immutable(c, v, old, "spec.selector");
    if (streq(type, "OnDelete"))
        return;
    if (!streq(type, "RollingUpdate")) {
        check_fail(c, CAUSE_NOT_SUPPORTED, "spec.updateStrategy", val_get(spec, "updateStrategy"),
                   "supported values: \"OnDelete\", \"RollingUpdate\"");
        return;
    }
    const char *at = "spec.updateStrategy.rollingUpdate";
    const struct val *un = val_get(roll, "maxUnavailable"), *surge = val_get(roll, "maxSurge");
    double u = portion(c, arena_printf(c->a, "%s.maxUnavailable", at), un, true);
    double g = portion(c, arena_printf(c->a, "%s.maxSurge", at), surge, true);
    if (u == 0 && g == 0)
        check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.maxUnavailable", at), NULL,
                   "cannot be 0 when maxSurge is 0");
    if (u != 0 && g != 0)
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.maxSurge", at), surge,
                   "may not be set when maxUnavailable is non-zero");
}

HOOK(v_statefulset)
{
    static const char *const free_fields[] = {"replicas", "ordinals", "template", "updateStrategy",
                                              "revisionHistoryLimit",
                                              "persistentVolumeClaimRetentionPolicy", "minReadySeconds"};
    const struct val *spec = val_get(v, "spec"), *was = val_get(old, "spec");
    const char *type = val_str_at(spec, "updateStrategy.type", "");
    const char *order = val_str_at(spec, "podManagementPolicy", "");
    const struct val *roll = val_at(spec, "updateStrategy.rollingUpdate");

    if (*c->sub)
        return;
    if (!streq(order, "OrderedReady") && !streq(order, "Parallel"))
        check_fail(c, *order ? CAUSE_INVALID : CAUSE_REQUIRED, "spec.podManagementPolicy",
                   val_get(spec, "podManagementPolicy"), "must be '%s' or '%s'", "OrderedReady", "Parallel");
    if (streq(type, "OnDelete")) {
        if (roll)
            check_fail(c, CAUSE_INVALID, "spec.updateStrategy.rollingUpdate", roll,
                       "only allowed for updateStrategy 'RollingUpdate'");
    } else if (!streq(type, "RollingUpdate")) {
        check_fail(c, *type ? CAUSE_INVALID : CAUSE_REQUIRED, "spec.updateStrategy",
                   val_get(spec, "updateStrategy"), "must be 'RollingUpdate' or 'OnDelete'");
    }
    const struct val *part = val_get(roll, "partition");
    if (part && part->i < 0)
        check_fail(c, CAUSE_INVALID, "spec.updateStrategy.rollingUpdate.partition", part,
                   "must be greater than or equal to 0");
    selector_fits(c, spec);
    always(c, spec);
    validate_labels(c, "spec.template.labels", val_at(spec, "template.metadata.labels"));
    if (!was)
        return;
    struct val *x = val_copy(c->a, spec), *y = val_copy(c->a, was);
    for (uint32_t i = 0; i < ARRAY_LEN(free_fields); i++) {
        val_del(x, free_fields[i]);
        val_del(y, free_fields[i]);
    }
    if (!val_equal(x, y))
        check_fail(c, CAUSE_FORBIDDEN, "spec", NULL,
                   "updates to statefulset spec for fields other than 'replicas', 'ordinals', "
                   "'template', 'updateStrategy', 'revisionHistoryLimit', "
                   "'persistentVolumeClaimRetentionPolicy' and 'minReadySeconds' are forbidden");
}

HOOK(v_revision)
{
    if (!val_is(val_get(v, "data"), VAL_MAP))
        check_fail(c, CAUSE_REQUIRED, "data", NULL, "data is mandatory");
    if (old && !same(val_get(v, "data"), val_get(old, "data")))
        check_fail(c, CAUSE_INVALID, "data", val_get(v, "data"), "field is immutable");
}

/* a must not be more than b */
static void at_most(struct check *c, const struct val *v, const char *a, const char *b)
{
    if (val_int_at(v, a, 0) > val_int_at(v, b, 0))
        check_fail(c, CAUSE_INVALID, a, val_get(v, a), "cannot be greater than status.%s", b);
}

HOOK(v_replica_status)
{
    (void)old;
    at_most(c, v, "fullyLabeledReplicas", "replicas");
    at_most(c, v, "readyReplicas", "replicas");
    at_most(c, v, "availableReplicas", "replicas");
    at_most(c, v, "availableReplicas", "readyReplicas");
}

HOOK(v_deployment_status)
{
    at_most(c, v, "updatedReplicas", "replicas");
    at_most(c, v, "readyReplicas", "replicas");
    at_most(c, v, "availableReplicas", "replicas");
    at_most(c, v, "availableReplicas", "readyReplicas");
    if (old && val_get(old, "collisionCount") &&
        val_int_at(v, "collisionCount", -1) < val_int_at(old, "collisionCount", 0))
        check_fail(c, CAUSE_INVALID, "collisionCount", val_get(v, "collisionCount"),
                   "cannot be decremented");
}

HOOK(v_statefulset_status)
{
    at_most(c, v, "readyReplicas", "replicas");
    at_most(c, v, "currentReplicas", "replicas");
    at_most(c, v, "updatedReplicas", "replicas");
    at_most(c, v, "availableReplicas", "replicas");
    at_most(c, v, "availableReplicas", "readyReplicas");
    const struct val *n = val_get(v, "collisionCount");
    if (n && n->i < 0)
        check_fail(c, CAUSE_INVALID, "collisionCount", n, "must be greater than or equal to 0");
    if (val_get(old, "collisionCount") && val_int_at(v, "collisionCount", -1) < val_int_at(old, "collisionCount", 0))
        check_fail(c, CAUSE_INVALID, "collisionCount", n, "cannot be decremented");
}

/* ---- batch ---- */

static void restart_policy(struct check *c, const char *at, const struct val *job_spec)
{
    const char *policy = val_str_at(job_spec, "template.spec.restartPolicy", "");

    if (*policy && !streq(policy, "Always") && !streq(policy, "Never") && !streq(policy, "OnFailure"))
        check_fail(c, CAUSE_NOT_SUPPORTED, arena_printf(c->a, "%s.template.spec.restartPolicy", at),
                   val_at(job_spec, "template.spec.restartPolicy"), "supported values: \"OnFailure\", \"Never\"");
    if (!*policy || streq(policy, "Always"))
        check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.template.spec.restartPolicy", at), NULL,
                   "valid values: \"OnFailure\", \"Never\"");
}

static void exit_codes(struct check *c, const char *at, const struct val *rule, const struct val *spec)
{
    const struct val *codes = val_get(rule, "onExitCodes"), *values = val_get(codes, "values");
    const struct val *name = val_get(codes, "containerName");
    bool found = !name;

    VAL_EACH(val_at(spec, "template.spec.containers"), ctr)
        found |= name && streq(val_str_at(ctr, "name", ""), val_text(name, ""));
    VAL_EACH(val_at(spec, "template.spec.initContainers"), ctr)
        found |= name && streq(val_str_at(ctr, "name", ""), val_text(name, ""));
    if (!found)
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.onExitCodes.containerName", at), name,
                   "must be one of the container or initContainer names in the pod template");
    if (!val_len(values))
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.onExitCodes.values", at), values, "at least one value is required");
    for (uint32_t i = 0; i < val_items_n_(values); i++) {
        int64_t n = values->items[i].i;
        if (streq(val_str_at(codes, "operator", ""), "In") && n == 0)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.onExitCodes.values[%u]", at, i),
                       &values->items[i], "must not be 0 for the In operator");
        else {
            bool again = false;
            for (uint32_t k = 0; k < i; k++)
                again |= values->items[k].i == n;
            if (again)
                check_fail(c, CAUSE_DUPLICATE, arena_printf(c->a, "%s.onExitCodes.values[%u]", at, i),
                           &values->items[i], "%s", "");
        }
    }
    for (uint32_t i = 1; i < val_items_n_(values); i++)
        if (values->items[i - 1].i > values->items[i].i) {
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.onExitCodes.values", at), values, "must be ordered");
            break;
        }
}

static void failure_policy(struct check *c, const struct val *spec, bool indexed_backoff)
{
    const struct val *rules = val_at(spec, "podFailurePolicy.rules");

    if (!val_get(spec, "podFailurePolicy"))
        return;
    if (streq(val_str_at(spec, "template.spec.restartPolicy", ""), "OnFailure"))
        check_fail(c, CAUSE_INVALID, "spec.template.spec.restartPolicy",
                   val_at(spec, "template.spec.restartPolicy"),
                   "only \"Never\" is supported when podFailurePolicy is specified");
    for (uint32_t i = 0; i < val_items_n_(rules); i++) {
        const struct val *r = &rules->items[i];
        const char *at = arena_printf(c->a, "spec.podFailurePolicy.rules[%u]", i);
        bool codes = val_get(r, "onExitCodes"), conds = val_len(val_get(r, "onPodConditions"));
        if (!indexed_backoff && streq(val_str_at(r, "action", ""), "FailIndex"))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.action", at), val_get(r, "action"),
                       "requires the backoffLimitPerIndex to be set");
        if (codes)
            exit_codes(c, at, r, spec);
        if (codes && conds)
            check_fail(c, CAUSE_INVALID, at, r, "specifying both OnExitCodes and OnPodConditions is not supported");
        if (!codes && !conds)
            check_fail(c, CAUSE_INVALID, at, r, "specifying one of OnExitCodes and OnPodConditions is required");
    }
}

/* "1,3-5": rising numbers below n; -1: it is not that. */
static int64_t indexes(const char *s, int64_t n)
{
    int64_t last = -1, count = 0;

    while (*s) {
        char *end;
        if (*s < '0' || *s > '9')
            return -1;
        int64_t x = strtoll(s, &end, 10), y = x;
        if (*end == '-') {
            if (end[1] < '0' || end[1] > '9')
                return -1;
            y = strtoll(end + 1, &end, 10);
            if (y <= x)
                return -1;
        }
        if (x <= last || y >= n)
            return -1;
        count += y - x + 1;
        last = y;
        if (*end == ',' && end[1])
            end++;
        else if (*end)
            return -1;
        s = end;
    }
    return count;
}

static void success_policy(struct check *c, const struct val *spec, bool indexed)
{
    const struct val *policy = val_get(spec, "successPolicy"), *rules = val_get(policy, "rules");
    int64_t n = val_int_at(spec, "completions", 0);

    if (!policy)
        return;
    if (!indexed) {
        check_fail(c, CAUSE_INVALID, "spec.successPolicy", policy, "requires indexed completion mode");
        return;
    }
    for (uint32_t i = 0; i < val_items_n_(rules); i++) {
        const struct val *r = &rules->items[i], *idx = val_get(r, "succeededIndexes"),
                         *cnt = val_get(r, "succeededCount");
        const char *at = arena_printf(c->a, "spec.successPolicy.rules[%u]", i);
        int64_t listed = idx ? indexes(val_text(idx, ""), n) : 0;
        if (!idx && !cnt)
            check_fail(c, CAUSE_REQUIRED, at, NULL, "at least one of succeededCount or succeededIndexes must be specified");
        if (idx && listed < 0)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.succeededIndexes", at), idx, "cannot parse as indexes below completions");
        if (cnt && cnt->i < 0)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.succeededCount", at), cnt, "must be greater than or equal to 0");
        if (cnt && cnt->i > n)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.succeededCount", at), cnt, "must be less than or equal to %lld (the number of specified completions)", (long long)n);
        if (cnt && idx && cnt->i > (listed < 0 ? 0 : listed))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.succeededCount", at), cnt, "must be less than or equal to the number of indexes in the specified succeededIndexes field");
    }
}

static void job_spec(struct check *c, const struct val *spec)
{
    bool indexed = streq(val_str_at(spec, "completionMode", ""), "Indexed");
    const struct val *per = val_get(spec, "backoffLimitPerIndex"), *most = val_get(spec, "maxFailedIndexes");
    const struct val *n = val_get(spec, "completions");
    bool plain = streq(val_str_at(spec, "completionMode", ""), "NonIndexed");

    if (indexed && !n)
        check_fail(c, CAUSE_REQUIRED, "spec.completions", NULL, "when completion mode is Indexed");
    if (per && plain)
        check_fail(c, CAUSE_INVALID, "spec.backoffLimitPerIndex", per, "requires indexed completion mode");
    if (most && plain)
        check_fail(c, CAUSE_INVALID, "spec.maxFailedIndexes", most, "requires indexed completion mode");
    if (most && indexed && !per)
        check_fail(c, CAUSE_REQUIRED, "spec.backoffLimitPerIndex", NULL, "when maxFailedIndexes is specified");
    if (most && n && indexed && most->i > n->i)
        check_fail(c, CAUSE_INVALID, "spec.maxFailedIndexes", most, "must be less than or equal to completions");
    if (val_get(spec, "podFailurePolicy") && streq(val_str_at(spec, "podReplacementPolicy", ""), "TerminatingOrFailed"))
        check_fail(c, CAUSE_NOT_SUPPORTED, "spec.podReplacementPolicy", val_get(spec, "podReplacementPolicy"),
                   "supported values: \"Failed\"");
    failure_policy(c, spec, per != NULL);
    success_policy(c, spec, indexed);
}

static bool condition_true(const struct val *status, const char *type)
{
    VAL_EACH(val_get(status, "conditions"), c)
        if (streq(val_str_at(c, "type", ""), type))
            return streq(val_str_at(c, "status", ""), "True");
    return false;
}

static void job_status(struct check *c, const struct val *v, const struct val *old)
{
    static const char *const grow[] = {"succeeded", "failed"};
    for (uint32_t i = 0; i < ARRAY_LEN(grow); i++)
        if (val_int_at(val_get(v, "status"), grow[i], 0) < val_int_at(val_get(old, "status"), grow[i], 0))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "status.%s", grow[i]), val_get(val_get(v, "status"), grow[i]),
                       "cannot decrease the %s counter", grow[i]);
    static const char *const lists[] = {"completedIndexes", "failedIndexes"};
    const struct val *st = val_get(v, "status"), *done = val_get(st, "completionTime");
    bool complete = condition_true(st, "Complete"), failed = condition_true(st, "Failed");
    int64_t n = val_int_at(v, "spec.completions", 0);
    const struct val *open = val_get(st, "uncountedTerminatedPods");

    for (uint32_t i = 0; i < ARRAY_LEN(lists); i++) {
        const struct val *l = val_get(st, lists[i]);
        if (l && l->n && indexes(l->s, n) < 0)
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "status.%s", lists[i]), l, "cannot be parsed");
    }
    if (val_int_at(st, "ready", 0) > val_int_at(st, "active", 0))
        check_fail(c, CAUSE_INVALID, "status.ready", val_get(st, "ready"), "cannot set more ready pods than active");
    if (complete && !done)
        check_fail(c, CAUSE_REQUIRED, "status.completionTime", NULL, "must be set for completed jobs");
    if (!complete && done)
        check_fail(c, CAUSE_INVALID, "status.completionTime", done, "cannot set completionTime when there is no Complete=True condition");
    if (!complete && !failed)
        return;
    if (val_int_at(st, "active", 0) > 0)
        check_fail(c, CAUSE_INVALID, "status.active", val_get(st, "active"), "active>0 is invalid for finished job");
    if (val_len(val_get(open, "succeeded")) || val_len(val_get(open, "failed")))
        check_fail(c, CAUSE_INVALID, "status.uncountedTerminatedPods", open, "uncountedTerminatedPods needs to be empty for finished job");
    if (complete && failed)
        check_fail(c, CAUSE_INVALID, "status.conditions", NULL, "cannot set Complete=True and Failed=true conditions");
    if (complete && !condition_true(st, "SuccessCriteriaMet")) {
        check_fail(c, CAUSE_INVALID, "status.conditions", NULL, "cannot set Complete=True condition without the SuccessCriteriaMet=true condition");
        check_fail(c, CAUSE_INVALID, "status.conditions", NULL, "cannot set Complete=True condition for Job with SuccessCriteria without SuccessCriteriaMet condition");
    }
    if (failed && !condition_true(st, "FailureTarget"))
        check_fail(c, CAUSE_INVALID, "status.conditions", NULL, "cannot set Failed=True condition without the FailureTarget condition");
}

static void must_have_label(struct check *c, const struct val *labels, const char *key, const char *want)
{
    const struct val *have = val_get(labels, key);
    const char *at = arena_printf(c->a, "spec.template.metadata.labels[%s]", key);

    if (!have)
        check_fail(c, CAUSE_REQUIRED, at, NULL, "must be '%s'", want);
    else if (!streq(val_text(have, ""), want))
        check_fail(c, CAUSE_INVALID, at, labels, "must be '%s'", want);
}

/* A selector that the server makes is of the job's own name and uid, and so are the labels of its pods. */
static void generated_selector(struct check *c, const struct val *v)
{
    static const char *const keys[] = {"controller-uid", "job-name", "batch.kubernetes.io/controller-uid",
                                       "batch.kubernetes.io/job-name"};
    const struct val *spec = val_get(v, "spec"), *sel = val_get(spec, "selector");
    const struct val *labels = val_at(spec, "template.metadata.labels");
    const char *uid = val_str_at(v, "metadata.uid", ""), *name = val_str_at(v, "metadata.name", "");
    struct val *expected = val_map(c->a);

    if (val_bool_at(spec, "manualSelector", false) || !sel)
        return;
    if (!*uid)
        check_fail(c, CAUSE_REQUIRED, "metadata.uid", NULL, "%s", "");
    for (uint32_t i = 0; i < ARRAY_LEN(keys); i++) {
        must_have_label(c, labels, keys[i], i % 2 ? name : uid);
        val_put_str(c->a, expected, keys[i], i % 2 ? name : uid);
    }
    if (selector_valid(sel) && !selector_match(selector_of(c->a, sel, &(struct err){0}), expected))
        check_fail(c, CAUSE_INVALID, "spec.selector", sel, "`selector` not auto-generated");
}

/* Made by the server or by hand: it must match the pods that the job will make. */
static void job_selector(struct check *c, const struct val *spec)
{
    const struct val *sel = val_get(spec, "selector"), *labels = val_at(spec, "template.metadata.labels");
    struct err err = {0};
    struct selector *s = sel ? selector_of(c->a, sel, &err) : NULL;

    if (!sel)
        check_fail(c, CAUSE_REQUIRED, "spec.selector", NULL, "%s", "");
    if (!sel || (s && !selector_match(s, labels)))
        check_fail(c, CAUSE_INVALID, "spec.template.metadata.labels", labels, "`selector` does not match template `labels`");
}

HOOK(v_job)
{
    const struct val *spec = val_get(v, "spec");
    static const char *const kept[] = {"spec.completionMode", "spec.podFailurePolicy",
                                       "spec.backoffLimitPerIndex",
                                       "spec.successPolicy", "spec.managedBy", "spec.selector"};

    if (streq(c->sub, "status"))
        job_status(c, v, old);
    if (*c->sub)
        return;
    restart_policy(c, "spec", spec);
    job_spec(c, spec);
    if (!old)
        generated_selector(c, v);
    job_selector(c, spec);
    for (uint32_t i = 0; i < ARRAY_LEN(kept) && old; i++)
        immutable(c, v, old, kept[i]);
    if (old && !val_bool_at(old, "spec.suspend", false))
        immutable(c, v, old, "spec.template");
    bool indexed = streq(val_str_at(spec, "completionMode", ""), "Indexed");
    int64_t pods = indexed && !old ? val_int_at(spec, "completions", 0) : 0;
    const char *last = arena_printf(c->a, "%s-%lld", val_str_at(v, "metadata.name", ""), (long long)pods - 1);
    if (pods > 0 && name_dns_label(last))
        check_fail(c, CAUSE_INVALID, "metadata.name", val_at(v, "metadata.name"),
                   "will not able to create pod with invalid DNS label: %s", last);
    const struct val *n = val_get(spec, "completions"), *was = val_at(old, "spec.completions");
    if (old && !same(n, was) && !(indexed && same(n, val_get(spec, "parallelism"))))
        check_fail(c, CAUSE_INVALID, "spec.completions", n, "field is immutable");
}

static bool cron_field(const char *s, size_t n, int lo, int hi, const char *names)
{
    char text[64];

    if (!n || n >= sizeof(text))
        return false;
    memcpy(text, s, n);
    text[n] = 0;
    for (char *save = NULL, *part = strtok_r(text, ",", &save); part; part = strtok_r(NULL, ",", &save)) {
        char *slash = strchr(part, '/'), *end;
        if (slash) {
            *slash = 0;
            long step = strtol(slash + 1, &end, 10);
            if (*end || step <= 0)
                return false;
        }
        if (streq(part, "*") || streq(part, "?"))
            continue;
        for (int k = 0; k < 2; k++) {
            long x;
            if (part[0] >= '0' && part[0] <= '9') {
                x = strtol(part, &end, 10);
            } else {
                const char *at = strlen(part) >= 3 ? strcasestr(names, (char[]){part[0], part[1], part[2], 0}) : NULL;
                if (!at)
                    return false;
                x = lo + (at - names) / 3;
                end = part + 3;
            }
            if (x < lo || x > hi)
                return false;
            if (!*end)
                break;
            if (*end != '-' || k)
                return false;
            part = end + 1;
        }
    }
    return true;
}

static bool cron_schedule(const char *s)
{
    static const char *const named[] = {"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"};
    static const struct {
        int lo, hi;
        const char *names;
    } f[] = {{0, 59, ""}, {0, 23, ""}, {1, 31, ""}, {1, 12, "janfebmaraprmayjunjulaugsepoctnovdec"},
             {0, 6, "sunmontuewedthufrisat"}};
    int64_t ns;

    if (*s == '@') {
        for (uint32_t i = 0; i < ARRAY_LEN(named); i++)
            if (streq(s, named[i]))
                return true;
        return str_starts(s, "@every ") && duration_parse(s + 7, &ns);
    }
    for (uint32_t i = 0; i < ARRAY_LEN(f); i++) {
        s += strspn(s, " \t");
        size_t n = strcspn(s, " \t");
        if (!cron_field(s, n, f[i].lo, f[i].hi, f[i].names))
            return false;
        s += n;
    }
    return !s[strspn(s, " \t")];
}

HOOK(v_cronjob)
{
    const struct val *spec = val_get(v, "spec"), *zone = val_get(spec, "timeZone");
    const char *when = val_str_at(spec, "schedule", "");
    const struct val *js = val_at(spec, "jobTemplate.spec");

    if (*c->sub)
        return;
    if (*when && !old && (strstr(when, "TZ=")))
        check_fail(c, CAUSE_INVALID, "spec.schedule", val_get(spec, "schedule"), "cannot use TZ or CRON_TZ in schedule");
    else if (*when && !cron_schedule(when))
        check_fail(c, CAUSE_INVALID, "spec.schedule", val_get(spec, "schedule"), "not a cron schedule");
    if (zone) {
        const char *z = val_text(zone, "");
        bool bad = !*z || strcasecmp(z, "local") == 0 || strchr(z, ' ') || strstr(z, "..") || *z == '/';
        static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_+-/";
        bad |= strspn(z, letters) != strlen(z);
        bool known = streq(z, "UTC") || streq(z, "GMT") || str_starts(z, "Etc/");
        static const char *const areas[] = {"Africa/", "America/", "Antarctica/", "Arctic/", "Asia/",
                                            "Atlantic/", "Australia/", "Brazil/", "Canada/", "Chile/",
                                            "Europe/", "Indian/", "Mexico/", "Pacific/", "US/"};
        for (uint32_t i = 0; i < ARRAY_LEN(areas); i++)
            known |= str_starts(z, areas[i]) && z[strlen(areas[i])] >= 'A' && z[strlen(areas[i])] <= 'Z';
        if (bad || (!known && strchr(z, '/')) || (!known && strlen(z) < 3))
            check_fail(c, CAUSE_INVALID, "spec.timeZone", zone, "unknown time zone %s", z);
    }
    if (!old && strlen(val_str_at(v, "metadata.name", "")) > 52)
        check_fail(c, CAUSE_INVALID, "metadata.name", val_at(v, "metadata.name"), "must be no more than 52 characters");
    restart_policy(c, "spec.jobTemplate.spec", js);
    if (val_bool_at(js, "manualSelector", false))
        check_fail(c, CAUSE_NOT_SUPPORTED, "spec.jobTemplate.spec.manualSelector", val_get(js, "manualSelector"),
                   "supported values: \"nil\", \"false\"");
    if (val_get(js, "selector"))
        check_fail(c, CAUSE_INVALID, "spec.jobTemplate.spec.selector", val_get(js, "selector"), "`selector` will be auto-generated");
}

/* ---- autoscaling ---- */

static void target(struct check *c, const char *at, const struct val *t)
{
    const char *type = val_str_at(t, "type", "");
    const struct val *use = val_get(t, "averageUtilization"), *value = val_get(t, "value"), *avg = val_get(t, "averageValue");

    if (!*type)
        check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.type", at), NULL, "must specify a metric target type");
    if (!streq(type, "Utilization") && !streq(type, "Value") && !streq(type, "AverageValue"))
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.type", at), val_get(t, "type"), "must be either Utilization, Value, or AverageValue");
    if (value && quantity_num(value, 0) <= 0)
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.value", at), value, "must be positive");
    if (avg && quantity_num(avg, 0) <= 0)
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.averageValue", at), avg, "must be positive");
    if (use && use->i < 1)
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.averageUtilization", at), use, "must be greater than 0");
}

static void of_container(struct check *c, const char *at, const struct val *s)
{
    const char *name = val_str_at(s, "name", ""), *ctr = val_str_at(s, "container", ""), *whys[4];
    const char *rel = arena_printf(c->a, "%s.name", at);
    uint32_t bad = *name ? name_whys(name_qualified, name, whys) : 0;

    for (uint32_t i = 0; i < bad; i++)
        check_fail(c, CAUSE_INVALID, rel, val_get(s, "name"), "%s", whys[i]);
    if (*name && !strchr(name, '/') && !streq(name, "cpu") && !streq(name, "memory") &&
        !streq(name, "ephemeral-storage") && !str_starts(name, "hugepages-"))
        check_fail(c, CAUSE_INVALID, rel, val_get(s, "name"), "must be a standard resource for containers");
    bad = *ctr ? name_whys(name_dns_label, ctr, whys) : 0;
    for (uint32_t i = 0; i < bad; i++)
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.container", at), val_get(s, "container"), "%s", whys[i]);
    if (!*ctr)
        check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.container", at), NULL, "must specify a container");
}

static void metric(struct check *c, const struct val *m, uint32_t i)
{
    static const struct {
        const char *type, *member;
    } known[] = {{"Object", "object"}, {"Pods", "pods"}, {"Resource", "resource"},
                 {"External", "external"}, {"ContainerResource", "containerResource"}};
    const char *type = val_str_at(m, "type", ""), *base = arena_printf(c->a, "spec.metrics[%u]", i);
    const char *member = NULL;
    uint32_t given = 0;

    for (uint32_t k = 0; k < ARRAY_LEN(known); k++) {
        if (streq(type, known[k].type))
            member = known[k].member;
        given += val_get(m, known[k].member) != NULL;
    }
    if (!*type)
        check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.type", base), NULL, "must specify a metric source type");
    for (int twice = 0; twice < 2 && !member; twice++) /* as upstream says it */
        check_fail(c, CAUSE_NOT_SUPPORTED, arena_printf(c->a, "%s.type", base), val_get(m, "type"), "supported values: as documented");
    for (uint32_t k = 0; k < ARRAY_LEN(known); k++) {
        const struct val *s = val_get(m, known[k].member);
        const char *at = arena_printf(c->a, "%s.%s", base, known[k].member);
        if (!s)
            continue;
        if (given > 1 && !streq(known[k].member, member ? member : "")) {
            check_fail(c, CAUSE_FORBIDDEN, at, NULL, "must populate the given metric source only");
            continue;
        }
        const struct val *t = val_get(s, "target");
        target(c, arena_printf(c->a, "%s.target", at), t);
        if (k == 2 || k == 4) {
            if (!*val_str_at(s, "name", ""))
                check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.name", at), NULL, "must specify a resource name");
            if (k == 4)
                of_container(c, at, s);
            const struct val *use = val_get(t, "averageUtilization"), *avg = val_get(t, "averageValue");
            if (!use && !avg)
                check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.target.averageUtilization", at), NULL, "must set either a target raw value or a target utilization");
            if (use && avg)
                check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "%s.target.averageValue", at), NULL, "may not set both a target raw value and a target utilization");
        } else {
            if (!*val_str_at(s, "metric.name", ""))
                check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.metric.name", at), NULL, "must specify a metric name");
            if (!val_get(t, "averageValue") && (k == 1 || !val_get(t, "value")))
                check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.target.averageValue", at), NULL, "must set either a target value or averageValue");
        }
    }
    if (member && !val_get(m, member))
        check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.%s", base, member), NULL, "must populate information for the given metric source");
}

HOOK(v_hpa)
{
    const struct val *spec = val_get(v, "spec"), *metrics = val_get(spec, "metrics");
    const struct val *min = val_get(spec, "minReplicas"), *max = val_get(spec, "maxReplicas");
    const struct val *cpu = val_get(spec, "targetCPUUtilizationPercentage");
    (void)old;

    if (*c->sub)
        return;
    if (min && min->i < 1)
        check_fail(c, CAUSE_INVALID, "spec.minReplicas", min, "must be greater than or equal to 1");
    bool outside = false; /* what is measured elsewhere can wake it from zero */
    VAL_EACH(metrics, m)
        outside |= streq(val_str_at(m, "type", ""), "Object") || streq(val_str_at(m, "type", ""), "External");
    if (min && min->i == 0 && !outside)
        check_fail(c, CAUSE_FORBIDDEN, "spec.metrics", NULL, "must specify at least one Object or External metric to support scaling to zero replicas");
    if (val_int_at(spec, "maxReplicas", 0) < 1)
        check_fail(c, CAUSE_INVALID, "spec.maxReplicas", max, "must be greater than 0");
    if (val_int_at(spec, "maxReplicas", 0) == 0)
        check_fail(c, CAUSE_REQUIRED, "spec.maxReplicas", NULL, "%s", "");
    const char *target_version = val_str_at(spec, "scaleTargetRef.apiVersion", ""), *slash = strchr(target_version, '/');
    const char *target_kind = val_str_at(spec, "scaleTargetRef.kind", "");
    /* a version without a group is that of the one kind of the core that scales */
    bool named = slash ? slash != target_version && !strchr(slash + 1, '/') : streq(target_kind, "ReplicationController");
    bool kept = old && streq(val_str_at(old, "spec.scaleTargetRef.apiVersion", ""), target_version) &&
                streq(val_str_at(old, "spec.scaleTargetRef.kind", ""), target_kind);
    if (!named && !kept)
        check_fail(c, CAUSE_INVALID, "spec.scaleTargetRef.apiVersion", val_at(spec, "scaleTargetRef.apiVersion"),
                   "must name a version");
    if (min && max && max->i && max->i < min->i)
        check_fail(c, CAUSE_INVALID, "spec.maxReplicas", max, "must be greater than or equal to `minReplicas`");
    if (cpu && cpu->i < 1)
        check_fail(c, CAUSE_INVALID, "spec.metrics[0].resource.target.averageUtilization", cpu, "must be greater than 0");
    for (uint32_t i = 0; i < val_items_n_(metrics); i++)
        metric(c, &metrics->items[i], i);
}

HOOK(v_budget)
{
    const struct val *min = val_get(v, "minAvailable"), *max = val_get(v, "maxUnavailable");
    (void)old;

    if (min && max)
        check_fail(c, CAUSE_INVALID, "", v, "minAvailable and maxUnavailable cannot be both set");
    portion(c, "minAvailable", min, true);
    portion(c, "maxUnavailable", max, true);
}
