/* Goal: what a user sees of the controllers after each change. */
#include "controller/world.h"

/* ---- tests ---- */

static void namespaces_are_furnished_and_emptied(void **state)
{
    struct world *w = *state;

    node(w, "n1", "4");
    make_in(w, "v1/namespaces", "", "{\"metadata\":{\"name\":\"x\"}}");
    pass_ms(w, 400);
    assert_non_null(client_get(w->user, w->a, "v1/serviceaccounts", "x", "default"));
    assert_non_null(client_get(w->user, w->a, "v1/configmaps", "x", "kube-root-ca.crt"));
    make_in(w, "apps/v1/deployments", "x", WEB("i", "2"));
    make_in(w, "v1/secrets", "x", "{\"metadata\":{\"name\":\"s\"}}");
    pass_ms(w, 1000);
    assert_int_equal(count(w, "v1/pods", "x"), 2);
    struct err err;
    assert_int_equal(client_delete(w->user, "v1/namespaces", "", "x", NULL, &err), 0);
    env_sim_run_until(w->env, env_now_ms(w->env) + 100);
    assert_int_equal(count(w, "v1/secrets", "x"), 1); /* pods first: they may still need it */
    pass_ms(w, 4000);
    assert_int_equal(count(w, "v1/pods", "x"), 0);
    assert_null(client_get(w->user, w->a, "v1/namespaces", "", "x"));
}

static void deployments_roll_and_roll_back(void **state)
{
    struct world *w = *state;
    const struct val *d;

    node(w, "n1", "4");
    make(w, "apps/v1/deployments", WEB("one", "3"));
    pass_ms(w, 2000);
    d = get(w, "apps/v1/deployments", "web");
    assert_int_equal(val_int_at(d, "status.availableReplicas", 0), 3);
    assert_string_equal(val_text(val_get(val_at(d, "metadata.annotations"), "deployment.kubernetes.io/revision"), ""), "1");
    patch(w, "apps/v1/deployments", "web", "", IMAGE("two"));
    for (int i = 0; i < 20; i++) { /* 25 % of 3: one more at most, never one less */
        uint32_t live = 0;
        struct objs pods = client_list(w->user, w->a, "v1/pods", "default", NULL, NULL);

        for (uint32_t k = 0; k < pods.n; k++)
            live += !obj_deleting(pods.v[k]);
        assert_in_range(live, 3, 4);
        pass_ms(w, 200);
    }
    assert_int_equal(count(w, "apps/v1/replicasets", "default"), 2);
    patch(w, "apps/v1/deployments", "web", "", IMAGE("one"));
    pass_ms(w, 4000);
    d = get(w, "apps/v1/deployments", "web");
    assert_int_equal(count(w, "apps/v1/replicasets", "default"), 2); /* the old set came back */
    assert_string_equal(val_text(val_get(val_at(d, "metadata.annotations"), "deployment.kubernetes.io/revision"), ""), "3");
    assert_int_equal(val_int_at(d, "status.updatedReplicas", 0), 3);
    VAL_EACH(val_at(d, "status.conditions"), c)
        assert_string_equal(val_str_at(c, "status", ""), "True");
    patch(w, "apps/v1/deployments", "web", "", "{\"spec\":{\"replicas\":6}}");
    pass_ms(w, 1000);
    assert_int_equal(count(w, "v1/pods", "default"), 6);
}

static void a_stuck_rollout_says_so(void **state)
{
    struct world *w = *state;
    bool told = false;

    make(w, "apps/v1/deployments", WEB("one", "1")); /* there is no node */
    patch(w, "apps/v1/deployments", "web", "", "{\"spec\":{\"progressDeadlineSeconds\":30}}");
    pass_ms(w, 40000);
    VAL_EACH(val_at(get(w, "apps/v1/deployments", "web"), "status.conditions"), c)
        told |= streq(val_str_at(c, "reason", ""), "ProgressDeadlineExceeded");
    assert_true(told);
}

static void jobs_count_exactly(void **state)
{
    struct world *w = *state;
    struct objs pods;

    node(w, "n1", "4");
    make(w, "batch/v1/jobs", "{\"metadata\":{\"name\":\"ok\"},\"spec\":{\"completions\":7,\"parallelism\":3,\"template\":{\"metadata\":{\"annotations\":"
         "{\"end\":\"Succeeded\"}},\"spec\":{\"restartPolicy\":\"Never\",\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}}}");
    make(w, "batch/v1/jobs", "{\"metadata\":{\"name\":\"bad\"},\"spec\":{\"backoffLimit\":2,\"ttlSecondsAfterFinished\":50,\"template\":{\"metadata\":{\"annotations\":"
         "{\"end\":\"Failed\"}},\"spec\":{\"restartPolicy\":\"Never\",\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}}}");
    pass_ms(w, 5000);
    assert_int_equal(val_int_at(get(w, "batch/v1/jobs", "ok"), "status.succeeded", 0), 7);
    assert_true(val_get(val_get(get(w, "batch/v1/jobs", "ok"), "status"), "completionTime") != NULL);
    assert_int_equal(val_int_at(get(w, "batch/v1/jobs", "bad"), "status.failed", 0), 1); /* waits 10 s */
    pass_ms(w, 15000);
    assert_int_equal(val_int_at(get(w, "batch/v1/jobs", "bad"), "status.failed", 0), 2);
    pass_ms(w, 30000);
    assert_int_equal(val_int_at(get(w, "batch/v1/jobs", "bad"), "status.failed", 0), 3);
    pods = client_list(w->user, w->a, "v1/pods", "default", NULL, NULL);
    assert_int_equal(pods.n, 7 + 3);
    for (uint32_t i = 0; i < pods.n; i++)
        assert_int_equal(val_len(val_get(obj_meta(pods.v[i]), "finalizers")), 0);
    pass_ms(w, 80000);
    assert_null(get(w, "batch/v1/jobs", "bad")); /* its time was over */
    assert_int_equal(count(w, "v1/pods", "default"), 7);
}

static void owners_take_their_own(void **state)
{
    struct world *w = *state;

    node(w, "n1", "4");
    make(w, "apps/v1/deployments", WEB("i", "2"));
    pass_ms(w, 1000);
    drop(w, "apps/v1/deployments", "web", "Orphan");
    pass_ms(w, 1000);
    assert_null(get(w, "apps/v1/deployments", "web"));
    assert_int_equal(count(w, "apps/v1/replicasets", "default"), 1);
    assert_int_equal(count(w, "v1/pods", "default"), 2);
    make(w, "apps/v1/deployments", WEB("i", "2")); /* takes the orphans in */
    pass_ms(w, 1000);
    assert_int_equal(count(w, "apps/v1/replicasets", "default"), 1);
    assert_int_equal(count(w, "v1/pods", "default"), 2);
    drop(w, "apps/v1/deployments", "web", "Foreground");
    env_sim_run_until(w->env, env_now_ms(w->env) + 100);
    assert_non_null(get(w, "apps/v1/deployments", "web")); /* the owner waits for its pods */
    pass_ms(w, 2000);
    assert_null(get(w, "apps/v1/deployments", "web"));
    assert_int_equal(count(w, "v1/pods", "default"), 0);
    make(w, "apps/v1/deployments", WEB("i", "2"));
    pass_ms(w, 1000);
    drop(w, "apps/v1/deployments", "web", "Background");
    assert_null(get(w, "apps/v1/deployments", "web"));
    pass_ms(w, 2000);
    assert_int_equal(count(w, "apps/v1/replicasets", "default") + count(w, "v1/pods", "default"), 0);
}

static void services_know_their_pods(void **state)
{
    struct world *w = *state;
    struct objs slices;

    node(w, "n1", "4");
    make(w, "apps/v1/deployments", WEB("i", "3"));
    make(w, "v1/services", "{\"metadata\":{\"name\":\"web\"},\"spec\":{\"selector\":{\"a\":\"web\"},\"ports\":[{\"port\":80,\"targetPort\":8080}]}}");
    pass_ms(w, 1500);
    assert_int_equal(val_len(val_at(get(w, "v1/endpoints", "web"), "subsets[0].addresses")), 3);
    slices = client_list(w->user, w->a, "discovery.k8s.io/v1/endpointslices", "default", NULL, NULL);
    for (uint32_t i = 0; i < slices.n; i++)
        if (streq0(obj_label(slices.v[i], "kubernetes.io/service-name"), "web")) {
            assert_int_equal(val_len(val_get(obj_val(slices.v[i]), "endpoints")), 3);
            assert_int_equal(val_int_at(obj_val(slices.v[i]), "ports[0].port", 0), 8080);
        }
    patch(w, "apps/v1/deployments", "web", "", "{\"spec\":{\"replicas\":0}}");
    pass_ms(w, 1500);
    assert_int_equal(val_len(val_at(get(w, "v1/endpoints", "web"), "subsets")), 0);
    drop(w, "v1/services", "web", NULL);
    pass_ms(w, 1000);
    assert_null(get(w, "v1/endpoints", "web"));
}

static void claims_get_volumes_and_give_them_back(void **state)
{
    struct world *w = *state;
    const char *volume;

    pass_ms(w, 200);
    make(w, "v1/persistentvolumeclaims", "{\"metadata\":{\"name\":\"mine\"},\"spec\":{\"accessModes\":[\"ReadWriteMany\"],\"resources\":{\"requests\":{\"storage\":\"1Gi\"}}}}");
    make(w, "v1/persistentvolumeclaims", "{\"metadata\":{\"name\":\"shared\",\"annotations\":{\"tandem.dev/volume\":\"pictures\"}},\"spec\":{\"accessModes\":[\"ReadWriteMany\"],\"resources\":{\"requests\":{\"storage\":\"1Gi\"}}}}");
    pass_ms(w, 600);
    assert_string_equal(val_str_at(get(w, "v1/persistentvolumeclaims", "mine"), "status.phase", ""), "Bound");
    volume = val_str_at(get(w, "v1/persistentvolumeclaims", "shared"), "spec.volumeName", "");
    assert_string_equal(val_str_at(obj_val(client_get(w->user, w->a, "v1/persistentvolumes", "", volume)), "spec.csi.volumeHandle", ""), "pictures");
    assert_int_equal(count(w, "tandem.dev/v1/volumes", NULL), 2);
    drop(w, "v1/persistentvolumeclaims", "mine", NULL);
    drop(w, "v1/persistentvolumeclaims", "shared", NULL);
    pass_ms(w, 1000);
    assert_int_equal(count(w, "v1/persistentvolumes", NULL), 0);
    assert_int_equal(count(w, "tandem.dev/v1/volumes", NULL), 1); /* what a person named stays */
    assert_non_null(client_get(w->user, w->a, "tandem.dev/v1/volumes", "", "pictures"));
}

static void silent_nodes_lose_their_pods(void **state)
{
    struct world *w = *state;
    const struct obj *n;
    bool tainted = false;

    node(w, "n1", "4");
    make(w, "v1/pods", "{\"metadata\":{\"name\":\"p\"},\"spec\":{\"tolerations\":[{\"key\":\"node.kubernetes.io/unreachable\",\"operator\":\"Exists\",\"effect\":\"NoExecute\",\"tolerationSeconds\":60}],"
         "\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}");
    pass_ms(w, 1000);
    assert_string_equal(val_str_at(get(w, "v1/pods", "p"), "status.phase", ""), "Running");
    w->mute = true;
    pass_ms(w, 39000);
    n = client_get(w->user, w->a, "v1/nodes", "", "n1");
    assert_int_equal(val_len(val_at(obj_val(n), "spec.taints")), 0);
    pass_ms(w, 3000);
    n = client_get(w->user, w->a, "v1/nodes", "", "n1");
    VAL_EACH(val_at(obj_val(n), "spec.taints"), t)
        tainted |= streq(val_str_at(t, "key", ""), "node.kubernetes.io/unreachable") && streq(val_str_at(t, "effect", ""), "NoExecute");
    assert_true(tainted);
    assert_null(val_at(get(w, "v1/pods", "p"), "metadata.deletionTimestamp"));
    pass_ms(w, 65000);
    assert_non_null(val_at(get(w, "v1/pods", "p"), "metadata.deletionTimestamp"));
}

static void stateful_pods_come_in_order(void **state)
{
    struct world *w = *state;

    node(w, "n1", "4");
    make(w, "apps/v1/statefulsets", "{\"metadata\":{\"name\":\"db\"},\"spec\":{\"serviceName\":\"db\",\"replicas\":3,\"selector\":{\"matchLabels\":{\"a\":\"db\"}},\"template\":{\"metadata\":{\"labels\":{\"a\":\"db\"}},"
         "\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}},\"volumeClaimTemplates\":[{\"metadata\":{\"name\":\"d\"},\"spec\":{\"accessModes\":[\"ReadWriteOnce\"],\"resources\":{\"requests\":{\"storage\":\"1Gi\"}}}}]}}");
    make(w, "apps/v1/daemonsets", "{\"metadata\":{\"name\":\"log\"},\"spec\":{\"selector\":{\"matchLabels\":{\"a\":\"log\"}},\"template\":{\"metadata\":{\"labels\":{\"a\":\"log\"}},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}}}");
    env_sim_run_until(w->env, env_now_ms(w->env) + 100);
    assert_non_null(get(w, "v1/pods", "db-0"));
    assert_null(get(w, "v1/pods", "db-1")); /* waits for the first */
    pass_ms(w, 8000);
    assert_int_equal(val_int_at(get(w, "apps/v1/statefulsets", "db"), "status.readyReplicas", 0), 3);
    assert_int_equal(val_int_at(get(w, "apps/v1/daemonsets", "log"), "status.numberReady", 0), 1);
    node(w, "n2", "4");
    patch(w, "apps/v1/statefulsets", "db", "", "{\"spec\":{\"replicas\":1}}");
    pass_ms(w, 3000);
    assert_null(get(w, "v1/pods", "db-1"));
    assert_non_null(get(w, "v1/persistentvolumeclaims", "d-db-1")); /* the data stays */
    assert_int_equal(val_int_at(get(w, "apps/v1/daemonsets", "log"), "status.numberReady", 0), 2);
}

static void schedules_make_jobs(void **state)
{
    struct world *w = *state;

    node(w, "n1", "4");
    make(w, "batch/v1/cronjobs", "{\"metadata\":{\"name\":\"tick\"},\"spec\":{\"schedule\":\"*/2 * * * *\",\"successfulJobsHistoryLimit\":2,\"jobTemplate\":{\"spec\":{\"template\":{\"metadata\":{\"annotations\":"
         "{\"end\":\"Succeeded\"}},\"spec\":{\"restartPolicy\":\"Never\",\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}}}}}");
    pass_ms(w, 119000 - env_now_ms(w->env) % 120000);
    assert_int_equal(count(w, "batch/v1/jobs", "default"), 0);
    pass_ms(w, 10000);
    assert_int_equal(count(w, "batch/v1/jobs", "default"), 1);
    pass_ms(w, 120000);
    assert_int_equal(count(w, "batch/v1/jobs", "default"), 2);
    pass_ms(w, 240000);
    assert_int_equal(count(w, "batch/v1/jobs", "default"), 2); /* four were made, two are kept */
    assert_non_null(val_get(val_get(get(w, "batch/v1/cronjobs", "tick"), "status"), "lastSuccessfulTime"));
}

static void unfit_pods_wait_for_room(void **state)
{
    struct world *w = *state;
    const char *said = "";

    node(w, "n1", "1");
    make(w, "v1/pods", "{\"metadata\":{\"name\":\"big\"},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":\"i\",\"resources\":{\"requests\":{\"cpu\":\"2\"}}}]}}");
    pass_ms(w, 2000);
    VAL_EACH(val_at(get(w, "v1/pods", "big"), "status.conditions"), c)
        if (streq(val_str_at(c, "type", ""), "PodScheduled"))
            said = val_str_at(c, "message", "");
    assert_string_equal(said, "0/1 nodes are available: 1 Insufficient cpu.");
    node(w, "n2", "4");
    pass_ms(w, 3000);
    assert_string_equal(val_str_at(get(w, "v1/pods", "big"), "spec.nodeName", ""), "n2");
}

/* Goal: what cannot be made is tried with growing pauses, not in a circle through our own status.
 * Method: an account that is not there; the passes of ten seconds are counted. */
static void failures_do_not_spin(void **state)
{
    struct world *w = *state;
    uint64_t before;
    bool told = false;

    make(w, "apps/v1/replicasets", "{\"metadata\":{\"name\":\"rs\"},\"spec\":{\"replicas\":2,\"selector\":{\"matchLabels\":{\"a\":\"x\"}},\"template\":{\"metadata\":{\"labels\":{\"a\":\"x\"}},"
         "\"spec\":{\"serviceAccountName\":\"nobody\",\"containers\":[{\"name\":\"c\",\"image\":\"i\"}]}}}}");
    before = controllers_stats(w->controllers).passes;
    env_sim_run_until(w->env, env_now_ms(w->env) + 10000);
    VAL_EACH(val_at(get(w, "apps/v1/replicasets", "rs"), "status.conditions"), c)
        told |= streq(val_str_at(c, "reason", ""), "FailedCreate");
    assert_true(told);
    assert_in_range(controllers_stats(w->controllers).passes - before, 5, 80);
    make(w, "v1/serviceaccounts", "{\"metadata\":{\"name\":\"nobody\"}}");
    env_sim_run_until(w->env, env_now_ms(w->env) + 30000);
    assert_int_equal(count(w, "v1/pods", "default"), 2);
    assert_int_equal(val_len(val_at(get(w, "apps/v1/replicasets", "rs"), "status.conditions")), 0);
}

/* Goal: a thousand pods are made and bound, each once, and the pace is printed. */
static void a_thousand_pods_are_placed(void **state)
{
    struct world *w = *state;
    struct timespec t0, t1;

    node(w, "n1", "400");
    env_sim_run_until(w->env, env_now_ms(w->env) + 100);
    clock_gettime(CLOCK_MONOTONIC, &t0);
    make(w, "apps/v1/replicasets", WEB("i", "1000"));
    env_sim_run_until(w->env, env_now_ms(w->env) + 3000);
    clock_gettime(CLOCK_MONOTONIC, &t1);
    assert_int_equal(scheduler_stats(w->scheduler).placed, 1000);
    assert_int_equal(count(w, "v1/pods", "default"), 1000);
    fprintf(stderr, "             1000 pods made and bound in %.0f ms\n",
            (double)(t1.tv_sec - t0.tv_sec) * 1e3 + (double)(t1.tv_nsec - t0.tv_nsec) / 1e6);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        WORLD_TEST(namespaces_are_furnished_and_emptied),
        WORLD_TEST(deployments_roll_and_roll_back),
        WORLD_TEST(a_stuck_rollout_says_so),
        WORLD_TEST(jobs_count_exactly),
        WORLD_TEST(owners_take_their_own),
        WORLD_TEST(services_know_their_pods),
        WORLD_TEST(claims_get_volumes_and_give_them_back),
        WORLD_TEST(silent_nodes_lose_their_pods),
        WORLD_TEST(stateful_pods_come_in_order),
        WORLD_TEST(schedules_make_jobs),
        WORLD_TEST(unfit_pods_wait_for_room),
        WORLD_TEST(failures_do_not_spin),
        WORLD_TEST(a_thousand_pods_are_placed),
    };

    return cmocka_run_group_tests_name("controller-passes", tests, NULL, NULL);
}
