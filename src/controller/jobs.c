#include "controller/jobs.h"

#include "base/buf.h"

int64_t job_wanted(int64_t parallelism, int64_t completions, int64_t succeeded, int64_t active)
{
    int64_t left;

    if (completions < 0) /* one success says that the queue is empty: nobody new */
        return succeeded > 0 ? MIN(active, parallelism) : parallelism;
    left = completions - succeeded;
    left = MAX(left, (int64_t)0);
    return MIN(left, parallelism);
}

int64_t job_backoff_ms(int64_t failures_in_a_row)
{
    if (failures_in_a_row <= 0)
        return 0;
    return failures_in_a_row > 6 ? 600000 : MIN((int64_t)10000 << (failures_in_a_row - 1), (int64_t)600000);
}

/* ---- sets of indexes ---- */

void indexes_init(struct indexes *x, struct arena *a, int64_t n)
{
    *x = (struct indexes){.a = a, .n = MAX(n, (int64_t)0)};
}

/* The first range that ends at i or behind it. */
static uint32_t range_at(const struct indexes *x, int64_t i)
{
    uint32_t low = 0, high = x->v_n;

    while (low < high) {
        uint32_t mid = low + (high - low) / 2;

        if (x->v[mid].last >= i)
            high = mid;
        else
            low = mid + 1;
    }
    return low;
}

bool indexes_has(const struct indexes *x, int64_t i)
{
    uint32_t at = range_at(x, i);

    return i >= 0 && at < x->v_n && x->v[at].first <= i;
}

static void add_range(struct indexes *x, int64_t first, int64_t last)
{
    uint32_t from, to;

    first = MAX(first, (int64_t)0);
    last = MIN(last, x->n - 1);
    if (first > last)
        return;
    from = to = range_at(x, first - 1); /* a neighbour melts into it, too */
    while (to < x->v_n && x->v[to].first <= last + 1) {
        first = MIN(first, x->v[to].first);
        last = MAX(last, x->v[to].last);
        to++;
    }
    if (from == to && x->v_n == x->v_cap) {
        struct index_range *v = arena_array(x->a, struct index_range, x->v_cap ? 2 * x->v_cap : 8);

        if (x->v_n)
            memcpy(v, x->v, x->v_n * sizeof *v);
        x->v = v;
        x->v_cap = x->v_cap ? 2 * x->v_cap : 8;
    }
    if (x->v_n > to || from == to)
        memmove(&x->v[from + 1], &x->v[to], (x->v_n - to) * sizeof *x->v);
    x->v[from] = (struct index_range){first, last};
    x->v_n = x->v_n + 1 - (to - from);
}

void indexes_add(struct indexes *x, int64_t i)
{
    if (i >= 0)
        add_range(x, i, i);
}

void indexes_add_all(struct indexes *x, const struct indexes *more)
{
    for (uint32_t i = 0; i < more->v_n; i++)
        add_range(x, more->v[i].first, more->v[i].last);
}

void indexes_read(struct indexes *x, const char *text)
{
    while (text && *text) {
        char *end;
        long long first = strtoll(text, &end, 10), last = first;

        if (end == text)
            return;
        if (*end == '-')
            last = strtoll(end + 1, &end, 10);
        add_range(x, first, last);
        text = *end == ',' ? end + 1 : NULL;
    }
}

int64_t indexes_count(const struct indexes *x)
{
    int64_t n = 0;

    for (uint32_t i = 0; i < x->v_n; i++)
        n += x->v[i].last - x->v[i].first + 1;
    return n;
}

int64_t indexes_common(const struct indexes *x, const struct indexes *y)
{
    int64_t n = 0;

    for (uint32_t i = 0, k = 0; i < x->v_n && k < y->v_n;) {
        int64_t first = MAX(x->v[i].first, y->v[k].first), last = MIN(x->v[i].last, y->v[k].last);

        n += MAX(last - first + 1, (int64_t)0);
        if (x->v[i].last < y->v[k].last)
            i++;
        else
            k++;
    }
    return n;
}

int64_t indexes_gap(const struct indexes *x)
{
    return x->v_n && x->v[0].first == 0 ? MIN(x->v[0].last + 1, x->n) : 0;
}

const char *indexes_text(const struct indexes *x, struct arena *a)
{
    struct buf b = {0};
    const char *text;

    for (uint32_t i = 0; i < x->v_n; i++) {
        int64_t first = x->v[i].first, last = x->v[i].last;

        buf_printf(&b, b.n ? ",%lld" : "%lld", (long long)first);
        if (last > first) /* two in a row are a list, three a range, as Kubernetes writes them */
            buf_printf(&b, last == first + 1 ? ",%lld" : "-%lld", (long long)last);
    }
    text = arena_strndup(a, b.p ? b.p : "", b.n);
    buf_done(&b);
    return text;
}

/* ---- policies ---- */

static bool code_fits(const struct val *want, int64_t code)
{
    bool in = false;

    VAL_EACH(val_get(want, "values"), v)
        in |= val_is(v, VAL_INT) && v->i == code;
    return streq(val_str_at(want, "operator", ""), "In") ? in : !in;
}

/* The container whose exit code the rule means, or NULL. */
static const struct val *exited(const struct val *status, const struct val *want)
{
    static const char *const lists[] = {"containerStatuses", "initContainerStatuses"};
    const char *name = val_str_at(want, "containerName", NULL);

    for (size_t i = 0; i < ARRAY_LEN(lists); i++)
        VAL_EACH(val_get(status, lists[i]), c) {
            int64_t code = val_int_at(c, "state.terminated.exitCode", 0);

            if (code != 0 && (!name || streq(name, val_str_at(c, "name", ""))) && code_fits(want, code))
                return c;
        }
    return NULL;
}

static const char *fitting_condition(const struct val *status, const struct val *patterns)
{
    VAL_EACH(val_get(status, "conditions"), c)
        VAL_EACH(patterns, want)
            if (streq(val_str_at(c, "type", ""), val_str_at(want, "type", "")) &&
                streq(val_str_at(c, "status", ""), val_str_at(want, "status", "")))
                return val_str_at(c, "type", "");
    return NULL;
}

enum failure_action job_failure_action(struct arena *a, const struct val *policy, const struct obj *pod,
                                       const char **ret_message)
{
    const struct val *status = val_get(obj_val(pod), "status"), *c;
    int i = -1;

    VAL_EACH(val_get(policy, "rules"), rule) {
        const char *action = val_str_at(rule, "action", ""), *why = NULL;
        const struct val *codes = val_get(rule, "onExitCodes");

        i++;
        if (!val_is_null(codes)) {
            if ((c = exited(status, codes)))
                why = arena_printf(a, "Container %s for pod %s/%s failed with exit code %lld matching %s rule at index %d",
                                   val_str_at(c, "name", ""), pod->namespace_, pod->name,
                                   (long long)val_int_at(c, "state.terminated.exitCode", 0), action, i);
        } else if ((why = fitting_condition(status, val_get(rule, "onPodConditions")))) {
            why = arena_printf(a, "Pod %s/%s has condition %s matching %s rule at index %d", pod->namespace_, pod->name, why,
                               action, i);
        }
        if (!why)
            continue;
        if (ret_message)
            *ret_message = why;
        return streq(action, "Ignore")      ? FAILURE_IGNORE
               : streq(action, "FailIndex") ? FAILURE_INDEX
               : streq(action, "FailJob")   ? FAILURE_JOB
                                            : FAILURE_COUNT;
    }
    return FAILURE_COUNT;
}

int job_success_rule(struct arena *a, const struct val *policy, const struct indexes *done)
{
    int64_t have = indexes_count(done);
    int i = -1;

    if (!have)
        return -1;
    VAL_EACH(val_get(policy, "rules"), rule) {
        const char *wanted = val_str_at(rule, "succeededIndexes", NULL);
        int64_t enough = val_int_at(rule, "succeededCount", -1), all, there = have;
        struct indexes x;

        i++;
        if (!wanted) {
            if (enough >= 0 && there >= enough)
                return i;
            continue;
        }
        indexes_init(&x, a, done->n);
        indexes_read(&x, wanted);
        if (!(all = indexes_count(&x)))
            continue;
        there = indexes_common(&x, done);
        if (there == all || (enough >= 0 && there >= enough))
            return i;
    }
    return -1;
}
