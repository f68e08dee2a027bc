/* Goal: jobs end as their policies say. Method: pods whose end the annotation "end" foretells, or
 * whose status the test writes. */
#include "controller/world.h"

#define JOBS "batch/v1/jobs"
#define TEMPLATE(end)                                                                                       \
    "\"template\":{\"metadata\":{\"annotations\":{" end "}},\"spec\":{\"restartPolicy\":\"Never\","         \
    "\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}"
#define JOB(spec, end) "{\"metadata\":{\"name\":\"j\"},\"spec\":{" spec "," TEMPLATE(end) "}}"
#define FAILS "\"end\":\"Failed\""
#define WINS "\"end\":\"Succeeded\""

static const struct val *condition(struct world *w, const char *type)
{
    VAL_EACH(val_at(get(w, JOBS, "j"), "status.conditions"), c)
        if (streq(val_str_at(c, "type", ""), type) && streq(val_str_at(c, "status", ""), "True"))
            return c;
    return NULL;
}

static const char *reason(struct world *w, const char *type)
{
    return val_str_at(condition(w, type), "reason", "");
}

static int64_t status(struct world *w, const char *key)
{
    return val_int_at(val_get(get(w, JOBS, "j"), "status"), key, 0);
}

static const char *pod_of_index(struct world *w, const char *index)
{
    struct objs pods = client_list(w->user, w->a, "v1/pods", "default", NULL, NULL);

    for (uint32_t i = 0; i < pods.n; i++)
        if (streq0(obj_label(pods.v[i], "batch.kubernetes.io/job-completion-index"), index) &&
            streq(val_str_at(obj_val(pods.v[i]), "status.phase", ""), "Running"))
            return pods.v[i]->name;
    return NULL;
}

static void ends(struct world *w, const char *pod, int code)
{
    patch(w, "v1/pods", pod, "status", arena_printf(w->a,
          "{\"status\":{\"phase\":\"%s\",\"containerStatuses\":[{\"name\":\"c\",\"ready\":false,\"restartCount\":0,\"image\":\"i\",\"imageID\":\"\","
          "\"state\":{\"terminated\":{\"exitCode\":%d}}}]}}", code ? "Failed" : "Succeeded", code));
}

static void indexes_give_up_one_by_one(void **state)
{
    struct world *w = *state;
    struct objs pods;
    int64_t most = 0;

    node(w, "n1", "8");
    make(w, JOBS, JOB("\"completionMode\":\"Indexed\",\"completions\":3,\"parallelism\":3,\"backoffLimitPerIndex\":1", ""));
    pass_ms(w, 1000);
    ends(w, pod_of_index(w, "0"), 0);
    ends(w, pod_of_index(w, "1"), 1);
    ends(w, pod_of_index(w, "2"), 1);
    pass_ms(w, 15000); /* 10 s of waiting */
    pods = client_list(w->user, w->a, "v1/pods", "default", NULL, NULL);
    for (uint32_t i = 0; i < pods.n; i++) {
        const char *n = obj_annotation(pods.v[i], "batch.kubernetes.io/job-index-failure-count");

        most = MAX(most, n ? atoll(n) : -1);
    }
    assert_int_equal(most, 1); /* the second pod of an index knows of the first */
    assert_null(condition(w, "Failed"));
    ends(w, pod_of_index(w, "1"), 0);
    ends(w, pod_of_index(w, "2"), 1);
    pass_ms(w, 3000);
    assert_string_equal(reason(w, "Failed"), "FailedIndexes");
    assert_string_equal(reason(w, "FailureTarget"), "FailedIndexes");
    assert_string_equal(val_str_at(get(w, JOBS, "j"), "status.failedIndexes", ""), "2");
    assert_string_equal(val_str_at(get(w, JOBS, "j"), "status.completedIndexes", ""), "0,1");
    assert_int_equal(status(w, "failed"), 3);
    assert_int_equal(status(w, "succeeded"), 2);
}

static void too_many_lost_indexes_end_it(void **state)
{
    struct world *w = *state;

    node(w, "n1", "8");
    make(w, JOBS, JOB("\"completionMode\":\"Indexed\",\"completions\":8,\"parallelism\":2,\"backoffLimitPerIndex\":0,\"maxFailedIndexes\":2", FAILS));
    pass_ms(w, 5000);
    assert_string_equal(reason(w, "Failed"), "MaxFailedIndexesExceeded");
}

static void an_exit_code_ends_it(void **state)
{
    struct world *w = *state;

    node(w, "n1", "8");
    make(w, JOBS, JOB("\"completionMode\":\"Indexed\",\"completions\":2,\"parallelism\":2,\"podFailurePolicy\":{\"rules\":["
                      "{\"action\":\"Ignore\",\"onExitCodes\":{\"operator\":\"In\",\"values\":[7]}},"
                      "{\"action\":\"FailJob\",\"onExitCodes\":{\"operator\":\"In\",\"values\":[42]}}]}", ""));
    pass_ms(w, 1000);
    ends(w, pod_of_index(w, "0"), 7);
    pass_ms(w, 15000); /* the next one waits all the same */
    assert_int_equal(status(w, "failed"), 0); /* as if it had not been */
    assert_non_null(pod_of_index(w, "0"));
    ends(w, pod_of_index(w, "1"), 42);
    pass_ms(w, 3000);
    assert_string_equal(reason(w, "Failed"), "PodFailurePolicy");
    assert_non_null(strstr(val_str_at(condition(w, "Failed"), "message", ""), "exit code 42 matching FailJob rule at index 1"));
    assert_int_equal(status(w, "failed"), 2); /* who was still running did not make it */
}

static void a_leader_is_enough(void **state)
{
    struct world *w = *state;

    node(w, "n1", "8");
    make(w, JOBS, JOB("\"completionMode\":\"Indexed\",\"completions\":4,\"parallelism\":4,\"successPolicy\":{\"rules\":[{\"succeededIndexes\":\"0,2-3\",\"succeededCount\":1}]}", ""));
    pass_ms(w, 1000);
    ends(w, pod_of_index(w, "1"), 0);
    pass_ms(w, 1000);
    assert_null(condition(w, "SuccessCriteriaMet"));
    ends(w, pod_of_index(w, "2"), 0);
    pass_ms(w, 4000);
    assert_string_equal(reason(w, "Complete"), "SuccessPolicy");
    assert_string_equal(val_str_at(condition(w, "SuccessCriteriaMet"), "message", ""), "Matched rules at index 0");
    assert_int_equal(status(w, "succeeded"), 2);
    assert_int_equal(status(w, "failed"), 0);
    assert_int_equal(status(w, "active"), 0);
}

static void others_may_manage_it(void **state)
{
    struct world *w = *state;

    node(w, "n1", "8");
    make(w, JOBS, JOB("\"managedBy\":\"example.com/mine\"", WINS));
    pass_ms(w, 2000);
    assert_int_equal(count(w, "v1/pods", "default"), 0);
}

static void it_waits_while_suspended(void **state)
{
    struct world *w = *state;

    node(w, "n1", "8");
    make(w, JOBS, JOB("\"suspend\":true", WINS));
    pass_ms(w, 2000);
    assert_int_equal(count(w, "v1/pods", "default"), 0);
    assert_string_equal(reason(w, "Suspended"), "JobSuspended");
    patch(w, JOBS, "j", "", "{\"spec\":{\"suspend\":false}}");
    pass_ms(w, 3000);
    assert_string_equal(reason(w, "Complete"), "CompletionsReached");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(indexes_give_up_one_by_one),
        WORLD_TEST(too_many_lost_indexes_end_it),
        WORLD_TEST(an_exit_code_ends_it),
        WORLD_TEST(a_leader_is_enough),
        WORLD_TEST(others_may_manage_it),
        WORLD_TEST(it_waits_while_suspended),
    };

    return cmocka_run_group_tests_name("controller-jobs", tests, NULL, NULL);
}
