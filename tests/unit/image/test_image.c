/* Goal: an image that comes in by any road (root file system, OCI layout, docker save, registry)
 * is the same image: its layers as overlayfs wants them, its config, its name; hostile archives are
 * refused and leave nothing; removal frees exactly what nobody uses. Method: archives and a real
 * registry on loopback, both made by fixtures.py. */
#include "tt.h"

#include "image/image_int.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <sys/xattr.h>
#include <unistd.h>
#include <uv.h>

static char dir[] = "/tmp/tandem-image-XXXXXX";
static int port, secure_port;
static pid_t registry_pid;

static char *fmt(const char *f, ...) _printf_(1, 2);
static char *fmt(const char *f, ...)
{
    static char ring[8][512];
    static int at;
    va_list ap;

    va_start(ap, f);
    vsnprintf(ring[++at % 8], 512, f, ap);
    va_end(ap);
    return ring[at % 8];
}

static pid_t python(char *verb, char *a, char *b)
{
    char *argv[] = {"python3", FIXTURES, verb, a, b, NULL};
    pid_t pid = -1;

    assert_int_equal(posix_spawnp(&pid, "python3", NULL, NULL, argv, environ), 0);
    return pid;
}

static int setup(void **state)
{
    int status;
    FILE *f = NULL;

    (void)state;
    assert_non_null(mkdtemp(dir));
    assert_true(waitpid(python("make", fmt("%s/in", dir), NULL), &status, 0) > 0 && status == 0);
    registry_pid = python("serve", fmt("%s/in", dir), fmt("%s/port", dir));
    for (int i = 0; i < 1200 && !(f = fopen(fmt("%s/port", dir), "r")); i++)
        usleep(50000);
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d %d", &port, &secure_port), 2);
    fclose(f);
    return 0;
}

static int teardown(void **state)
{
    struct err err = {0};

    (void)state;
    kill(registry_pid, SIGKILL);
    waitpid(registry_pid, NULL, 0);
    return fsat_remove_tree(AT_FDCWD, dir, &err);
}

static struct image_store *store(const char *name)
{
    struct err err = {0};
    struct image_store *s = image_store_open(fmt("%s/%s", dir, name), fmt("%s/registries.json", dir), &err);

    if (!s)
        fail_msg("%s", err.msg);
    return s;
}

static int count(const char *path)
{
    _auto_(freep) char *cmd = xasprintf("ls -A '%s' | wc -l", path);
    FILE *f = popen(cmd, "r");
    int n = -1;

    assert_int_equal(fscanf(f, "%d", &n), 1);
    pclose(f);
    return n;
}

/* Both layers of the fixture's image, as an overlay wants them. */
static void check_layers(const struct image *img)
{
    struct stat st, other;
    char value[32] = "";

    assert_int_equal(img->n_lowers, 2);
    const char *top = img->lowers[0], *base = img->lowers[1];
    assert_int_equal(stat(fmt("%s/etc/motd", top), &st), 0);
    assert_int_equal(lstat(fmt("%s/etc/old", top), &st), 0);
    assert_true(S_ISCHR(st.st_mode) && st.st_rdev == 0);
    assert_int_equal(getxattr(fmt("%s/var/cache", top), "trusted.overlay.opaque", value, 32), 1);
    assert_int_equal(value[0], 'y');
    assert_int_equal(stat(fmt("%s/var/cache", top), &st), 0);
    assert_int_equal(st.st_mode & 07777, 0700);
    assert_int_equal(lstat(fmt("%s/.wh..wh.plnk", top), &st), -1);
    assert_int_equal(stat(fmt("%s/usr/bin/tool", base), &st), 0);
    assert_int_equal(st.st_mode & 07777, 04755);
    assert_true(st.st_uid == 33 && st.st_gid == 34 && st.st_mtime == 1700000000);
    assert_int_equal(stat(fmt("%s/usr/bin/again", base), &other), 0);
    assert_true(st.st_ino == other.st_ino);
    assert_int_equal(stat(fmt("%s/usr/bin/through", base), &st), 0);
    assert_int_equal(lstat(fmt("%s/dev/null", base), &st), -1);
    assert_int_equal(lstat(fmt("%s/run/pipe", base), &st), 0);
    assert_true(S_ISFIFO(st.st_mode) && (st.st_mode & 0777) == 0666);
    assert_int_equal(getxattr(fmt("%s/etc/attr", base), "trusted.overlay.redirect", value, 32), -1);
    assert_int_equal(stat(fmt("%s/etc", base), &st), 0);
    assert_int_equal(st.st_mtime, 1700000000);
}

static void check_config(const struct image *img)
{
    assert_string_equal(img->config.entrypoint[0], "/bin/tool");
    assert_string_equal(img->config.cmd[0], "-v");
    assert_string_equal(img->config.env[1], "A=b");
    assert_null(img->config.env[2]);
    assert_string_equal(img->config.workdir, "/srv");
    assert_string_equal(img->config.user, "www");
    assert_string_equal(img->config.stop_signal, "SIGINT");
    assert_string_equal(img->config.exposed[0], "80/tcp");
}

static void names_are_normalised(void **state)
{
    static const char *const good[][2] = {
        {"nginx", "docker.io/library/nginx:latest"},
        {"nginx:1.25", "docker.io/library/nginx:1.25"},
        {"me/app", "docker.io/me/app:latest"},
        {"docker.io/nginx", "docker.io/library/nginx:latest"},
        {"localhost/app", "localhost/app:latest"},
        {"localhost:5000/a/b/c:t", "localhost:5000/a/b/c:t"},
        {"reg.example.com/a_b/c-d:V1.0_x", "reg.example.com/a_b/c-d:V1.0_x"},
        {"busybox:1@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
         "docker.io/library/busybox@sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"}};
    static const char *const bad[] = {"", "Upper", "a//b", "-a", "a:", "a:b:c", "a/", "/a", "a@sha256:12",
                                      "a b", "a:../x", "../a", "a/../b", "a@md5:aa"};
    struct err err = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(good); i++) {
        _auto_(freep) char *n = image_name_normal(good[i][0], &err);
        if (!n)
            fail_msg("%s: %s", good[i][0], err.msg);
        assert_string_equal(n, good[i][1]);
    }
    for (size_t i = 0; i < ARRAY_LEN(bad); i++)
        if (image_name_normal(bad[i], &err))
            fail_msg("\"%s\" passed", bad[i]);
}

static void rootfs_becomes_an_image(void **state)
{
    _auto_(image_store_closep) struct image_store *s = store("rootfs");
    const char *cmd[] = {"/bin/tool", "x", NULL}, *env[] = {"K=v", NULL};
    struct image_import_options o = {.name = "Demo", .cmd = cmd, .env = env, .user = "33"};
    struct err err = {0};
    struct image *img, *again;

    (void)state;
    assert_null(image_import(s, fmt("%s/in/rootfs.tar", dir), NULL, &err));
    assert_int_equal(err.code, ERR_INVALID_ARGUMENT);
    assert_null(image_import(s, fmt("%s/in/rootfs.tar", dir), &o, &err)); /* bad name */
    o.name = "demo";
    img = image_import(s, fmt("%s/in/rootfs.tar", dir), &o, &err);
    if (!img)
        fail_msg("%s", err.msg);
    assert_string_equal(img->name, "docker.io/library/demo:latest");
    assert_string_equal(img->config.cmd[1], "x");
    assert_true(str_starts(img->config.env[0], "PATH="));
    assert_string_equal(img->config.env[1], "K=v");
    assert_int_equal(img->n_lowers, 1);
    again = image_import(s, fmt("%s/in/rootfs.tar.gz", dir), &o, &err);
    assert_non_null(again);
    assert_string_equal(img->lowers[0], again->lowers[0]); /* the same diff-id */
    image_unref(img);
    image_unref(again);
    assert_int_equal(count(fmt("%s/rootfs/layers", dir)), 1);
}

static void users_are_found(void **state)
{
    _auto_(image_store_closep) struct image_store *s = store("users");
    struct image_import_options o = {.name = "demo"};
    struct err err = {0};
    _auto_(image_unrefp) const struct image *img = image_import(s, fmt("%s/in/rootfs.tar", dir), &o, &err);
    gid_t groups[4], gid;
    char home[256];
    size_t n;
    uid_t uid;

    (void)state;
    assert_non_null(img);
    assert_int_equal(image_user(img, "www", &uid, &gid, groups, 4, &n, home, &err), 0);
    assert_true(uid == 33 && gid == 34 && n == 1 && groups[0] == 44);
    assert_string_equal(home, "/srv/www");
    assert_int_equal(image_user(img, "", &uid, &gid, groups, 4, &n, home, &err), 0);
    assert_true(uid == 0 && gid == 0 && n == 1);
    assert_int_equal(image_user(img, "4711", &uid, &gid, groups, 4, &n, home, &err), 0);
    assert_true(uid == 4711 && gid == 0 && n == 0);
    assert_int_equal(image_user(img, "www:media", &uid, &gid, groups, 4, &n, NULL, &err), 0);
    assert_true(uid == 33 && gid == 44 && n == 0);
    assert_int_equal(image_user(img, "7:8", &uid, &gid, groups, 4, NULL, NULL, &err), 0);
    assert_true(uid == 7 && gid == 8);
    assert_int_equal(image_user(img, "nobody", &uid, &gid, groups, 4, &n, home, &err), -1);
    assert_int_equal(image_user(img, "www:none", &uid, &gid, groups, 4, &n, home, &err), -1);
}

static void layouts_are_imported(void **state)
{
    static const char *const from[][2] = {{"oci", "docker.io/library/oci:v1"}, {"oci.tar", "docker.io/library/oci:v1"},
                                          {"docker.tar", "docker.io/demo/app:1.0"}};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(from); i++) {
        _auto_(image_store_closep) struct image_store *s = store(fmt("layout%zu", i));
        struct err err = {0};
        _auto_(image_unrefp) const struct image *img = image_import(s, fmt("%s/in/%s", dir, from[i][0]), NULL, &err);

        if (!img)
            fail_msg("%s: %s", from[i][0], err.msg);
        assert_string_equal(img->name, from[i][1]);
        check_layers(img);
        check_config(img);
    }
}

static void hostile_archives_are_refused(void **state)
{
    static const char *const bad[] = {"dotdot", "linkup", "linkout", "hardout", "hardabs", "whiteout", "text", "empty"};
    _auto_(image_store_closep) struct image_store *s = store("hostile");
    struct image_import_options o = {.name = "evil"};
    struct err err = {0};
    struct image *img;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        img = image_import(s, fmt("%s/in/hostile-%s.tar", dir, bad[i]), &o, &err);
        /* climbing by a link ends at the layer's root, as in a container; a whiteout of nothing
         * means nothing in the bottom layer */
        if (img && !streq(bad[i], "linkup") && !streq(bad[i], "whiteout"))
            fail_msg("%s passed", bad[i]);
        image_unref(img);
    }
    img = image_import(s, fmt("%s/in/hostile-cut.tar.gz", dir), &o, &err);
    assert_null(img);
    assert_int_equal(err.code, ERR_INVALID);
    assert_int_equal(access("/etc/tandem-evil", F_OK), -1);
    assert_int_equal(access("/tandem-evil", F_OK), -1);
    assert_int_equal(image_rm(s, "evil", &err), 0);
    assert_int_equal(count(fmt("%s/hostile/layers", dir)), 0);
    assert_int_equal(count(fmt("%s/hostile/blobs/sha256", dir)), 0);
}

static void removal_frees_what_nobody_uses(void **state)
{
    _auto_(image_store_closep) struct image_store *s = store("rm"), *other = NULL;
    struct image_import_options o = {.name = "base"};
    struct err err = {0};
    struct image *img, **list;
    size_t n;

    (void)state;
    img = image_import(s, fmt("%s/in/docker.tar", dir), NULL, &err);
    assert_non_null(img);
    image_unref(image_import(s, fmt("%s/in/rootfs.tar", dir), &o, &err)); /* shares the base layer */
    assert_int_equal(count(fmt("%s/rm/layers", dir)), 2);
    assert_int_equal(image_tag(s, "demo/app:1.0", "other:tag", &err), 0);
    assert_int_equal(image_ls(s, &list, &n, &err), 0);
    assert_int_equal(n, 4);
    assert_string_equal(list[0]->name, "docker.io/demo/app:1.0");
    image_list_free(list, n);
    other = store("rm"); /* another process sees it and changes it */
    assert_int_equal(image_rm(other, "demo/app:1.0", &err), 0);
    assert_null(image_resolve(s, "demo/app:1.0", &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(image_hold(s, "pod-1", img, &err), 0);
    assert_int_equal(image_rm(s, "demo/app", &err), 0);
    assert_int_equal(image_rm(s, fmt("%.12s", img->id + 7), &err), 0); /* the last name, by id */
    assert_int_equal(count(fmt("%s/rm/layers", dir)), 2);              /* held */
    char **who = image_holders(s, &err);
    assert_string_equal(who[0], "pod-1");
    assert_null(who[1]);
    free(who);
    assert_int_equal(image_release(s, "pod-1", &err), 0);
    assert_int_equal(image_gc(s, NULL, &err), 0);
    assert_int_equal(count(fmt("%s/rm/layers", dir)), 1); /* base has it */
    assert_int_equal(image_rm(s, "base", &err), 0);
    assert_int_equal(count(fmt("%s/rm/layers", dir)), 0);
    assert_int_equal(image_rm(s, "base", &err), -1);
    image_unref(img);
}

static void a_folder_is_imported_once(void **state)
{
    _auto_(image_store_closep) struct image_store *s = store("folder");
    struct err err = {0};
    struct image *img;
    FILE *f;

    (void)state;
    assert_int_equal(link(fmt("%s/in/rootfs.tar.gz", dir), fmt("%s/folder/import/web.tar.gz", dir)), 0);
    assert_int_equal(link(fmt("%s/in/docker.tar", dir), fmt("%s/folder/import/d.tar", dir)), 0);
    assert_int_equal(link(fmt("%s/in/hostile-text.tar", dir), fmt("%s/folder/import/junk.tar", dir)), 0);
    f = fopen(fmt("%s/folder/import/web.json", dir), "w");
    fputs("{\"name\":\"web:2\",\"cmd\":[\"/bin/tool\"],\"env\":[\"A=1\"]}", f);
    fclose(f);
    assert_int_equal(image_import_dir(s, NULL, &err), 2);
    assert_int_equal(image_import_dir(s, NULL, &err), 0);
    img = image_resolve(s, "web:2", &err);
    assert_non_null(img);
    assert_string_equal(img->config.cmd[0], "/bin/tool");
    image_unref(img);
    img = image_resolve(s, "demo/app:latest", &err);
    assert_non_null(img);
    image_unref(img);
}

static void pulls_from_a_registry(void **state)
{
    static const char *const repos[] = {"t/plain:one", "t/plain:many", "t/plain:docker", "t/plain:zstd", "t/flaky:one"};
    struct err err = {0};
    struct image *img;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(repos); i++) {
        _auto_(image_store_closep) struct image_store *s = store(fmt("pull%zu", i));

        img = image_pull(s, fmt("127.0.0.1:%d/%s", port, repos[i]), NULL, &err);
        if (!img)
            fail_msg("%s: %s", repos[i], err.msg);
        check_layers(img);
        check_config(img);
        assert_true(str_starts(strchr(img->repo_digest, '@'), "@sha256:"));
        image_unref(img);
        assert_int_equal(count(fmt("%s/pull%zu/blobs", dir, i)), 1); /* no left-overs */
        img = image_resolve(s, fmt("127.0.0.1:%d/%s", port, repos[i]), &err);
        assert_non_null(img);
        image_unref(img);
    }
}

static void refusals_of_a_registry_are_clear(void **state)
{
    _auto_(image_store_closep) struct image_store *s = store("refuse");
    struct image_pull_options o = {.username = "me", .password = "secret"};
    struct err err = {0};
    struct image *img;

    (void)state;
    assert_null(image_pull(s, fmt("127.0.0.1:%d/t/plain:nope", port), NULL, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_non_null(strstr(err.msg, "manifest unknown"));
    assert_null(image_pull(s, fmt("127.0.0.1:%d/t/private:one", port), NULL, &err));
    assert_int_equal(err.code, ERR_UNAUTHENTICATED);
    img = image_pull(s, fmt("127.0.0.1:%d/t/private:one", port), &o, &err);
    assert_non_null(img);
    image_unref(img);
    assert_null(image_pull(s, fmt("127.0.0.1:%d/t/basic:one", port), NULL, &err));
    assert_int_equal(err.code, ERR_UNAUTHENTICATED);
    img = image_pull(s, fmt("127.0.0.1:%d/t/basic:one", port), &o, &err);
    assert_non_null(img);
    image_unref(img);
    o = (struct image_pull_options){.timeout_ms = 5000};
    assert_null(image_pull(s, "127.0.0.1:1/t/none", &o, &err));
    assert_int_equal(err.code, ERR_BAD_GATEWAY);
    _auto_(image_store_closep) struct image_store *fresh = store("refuse2");
    assert_null(image_pull(fresh, fmt("127.0.0.1:%d/t/lying:one", port), NULL, &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_int_equal(count(fmt("%s/refuse2/layers", dir)), 0);
}

static void mirrors_come_first(void **state)
{
    FILE *f = fopen(fmt("%s/registries.json", dir), "w");
    struct err err = {0};
    struct image *img;

    (void)state;
    fprintf(f, "{\"registries\":{\"docker.io\":{\"mirrors\":[\"http://127.0.0.1:1\",\"http://127.0.0.1:%d\"]}}}", port);
    fclose(f);
    _auto_(image_store_closep) struct image_store *s = store("mirror");
    img = image_pull(s, "t/plain:one", NULL, &err);
    if (!img)
        fail_msg("%s", err.msg);
    assert_string_equal(img->name, "docker.io/t/plain:one");
    check_layers(img);
    image_unref(img);
    unlink(fmt("%s/registries.json", dir));
}

static void tls_is_checked(void **state)
{
    struct err err = {0};
    struct image *img;
    FILE *f;

    (void)state;
    _auto_(image_store_closep) struct image_store *s = store("tls");
    assert_null(image_pull(s, fmt("localhost:%d/t/plain:one", secure_port), NULL, &err)); /* nobody vouches for it */
    for (int i = 0; i < 2; i++) {
        f = fopen(fmt("%s/registries.json", dir), "w");
        if (i)
            fprintf(f, "{\"registries\":{\"localhost:%d\":{\"insecure\":true}}}", secure_port);
        else
            fprintf(f, "{\"registries\":{\"localhost:%d\":{\"ca\":\"%s/in/ca.pem\"}}}", secure_port, dir);
        fclose(f);
        img = image_pull(s, fmt("localhost:%d/t/plain:one", secure_port), NULL, &err);
        if (!img)
            fail_msg("%d: %s", i, err.msg);
        check_layers(img);
        image_unref(img);
        assert_int_equal(image_rm(s, fmt("localhost:%d/t/plain:one", secure_port), &err), 0);
    }
    unlink(fmt("%s/registries.json", dir));
}

struct outcome {
    int done, failed, progress;
    struct image *img;
    struct err err;
};
static void on_done(void *arg, struct image *img, const struct err *err)
{
    struct outcome *o = arg;

    o->done++;
    o->failed += img == NULL;
    image_unref(o->img);
    o->img = img;
    o->err = *err;
}

static void jobs_report_to_the_loop(void **state)
{
    _auto_(image_store_closep) struct image_store *s = store("async");
    struct outcome o = {0};
    uv_loop_t loop;

    (void)state;
    assert_int_equal(uv_loop_init(&loop), 0);
    for (int i = 0; i < 5; i++) /* equal pulls: one does it, the others find it done */
        image_pull_async(s, &loop, fmt("127.0.0.1:%d/t/plain:many", port), NULL, on_done, &o);
    image_pull_async(s, &loop, fmt("127.0.0.1:%d/t/plain:nope", port), NULL, on_done, &o);
    image_job_cancel(image_pull_async(s, &loop, "127.0.0.1:1/t/none", NULL, on_done, &o));
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(o.done, 7);
    assert_int_equal(o.failed, 2);
    image_unref(o.img);
    assert_int_equal(uv_loop_close(&loop), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_normalised),
        cmocka_unit_test(rootfs_becomes_an_image),
        cmocka_unit_test(users_are_found),
        cmocka_unit_test(layouts_are_imported),
        cmocka_unit_test(hostile_archives_are_refused),
        cmocka_unit_test(removal_frees_what_nobody_uses),
        cmocka_unit_test(a_folder_is_imported_once),
        cmocka_unit_test(pulls_from_a_registry),
        cmocka_unit_test(refusals_of_a_registry_are_clear),
        cmocka_unit_test(mirrors_come_first),
        cmocka_unit_test(tls_is_checked),
        cmocka_unit_test(jobs_report_to_the_loop),
    };
    if (geteuid() != 0) {
        fprintf(stderr, "layers keep owners: run as root\n");
        return 77;
    }
    return cmocka_run_group_tests(tests, setup, teardown);
}
