/* Goal: what volume.h promises, on a real folder: puts are whole, nothing leaves the root, listings are in the order
 * of whole keys and can be resumed anywhere. */
#include "tt.h"

#include "env/fs.h"
#include "volume/volume.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

static char *home;
static int root;

static int setup(void **unused)
{
    struct err err;
    char name[] = "/tmp/tvol-XXXXXX";

    home = xstrdup(mkdtemp(name));
    root = volume_root(home, "v", true, &err);
    return root < 0;
}

static int teardown(void **unused)
{
    struct err err;

    close(root);
    fs_remove_tree(home, &err);
    free(home);
    return 0;
}

static int put(const char *key, const char *text, const char *etag, struct err *err)
{
    char temp[VOLUME_TEMP_BYTES];
    _auto_(closep) int fd = volume_temp(root, temp, err);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    return volume_commit(root, fd, temp, key, etag, NULL, false, NULL, err);
}

static void a_put_is_there_with_its_etag_until_somebody_writes(void **unused)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    static const char ETAG[] = "0123456789abcdef0123456789abcdef";
    struct volume_info info;
    struct err err;
    int fd;

    assert_int_equal(put("a/b/c.txt", "one", ETAG, &err), 0);
    assert_int_equal(volume_stat(root, a, "a/b/c.txt", &info, &err), 0);
    assert_string_equal(info.etag, ETAG);
    assert_int_equal(info.size, 3);
    fd = openat(root, "a/b/c.txt", O_WRONLY | O_APPEND);
    assert_int_equal(write(fd, "x", 1), 1);
    close(fd);
    assert_int_equal(volume_stat(root, a, "a/b/c.txt", &info, &err), 0);
    assert_string_not_equal(info.etag, ETAG);
    assert_non_null(strstr(info.etag, "-0")); /* nobody takes it for an MD5 */
}

static void removing_takes_the_folders_that_it_leaves_empty(void **unused)
{
    struct err err;
    bool was;

    assert_int_equal(put("r/x/1", "", "e", &err), 0);
    assert_int_equal(put("r/2", "", "e", &err), 0);
    assert_int_equal(volume_remove(root, "r/x/1", &was, &err), 0);
    assert_true(was);
    assert_int_equal(faccessat(root, "r/x", F_OK, 0), -1);
    assert_int_equal(faccessat(root, "r/2", F_OK, 0), 0);
    assert_int_equal(volume_remove(root, "r/x/1", &was, &err), 0);
    assert_false(was);
}

static void nothing_leaves_the_root(void **unused)
{
    static const char *const BAD[] = {"", "/a", "a//b", "../x", "a/../../x", "a/./b", ".tandem/x", ".tandem"};
    _auto_(arena_freep) struct arena *a = arena_new();
    struct volume_info info;
    struct err err = {0};

    for (size_t i = 0; i < ARRAY_LEN(BAD); i++)
        assert_non_null(volume_key_problem(BAD[i]));
    assert_int_equal(symlinkat("/etc", root, "etc"), 0); /* as a pod may do */
    assert_int_equal(symlinkat("/etc/passwd", root, "passwd"), 0);
    assert_true(volume_read(root, a, "etc/passwd", &info, &err) < 0);
    assert_true(volume_read(root, a, "passwd", &info, &err) < 0);
    assert_int_equal(put("etc/evil", "x", "e", &err), -1);
    assert_int_equal(access("/etc/evil", F_OK), -1);
    assert_false(volume_name_ok("../v"));
    assert_false(volume_name_ok("a/b"));
    unlinkat(root, "etc", 0);
    unlinkat(root, "passwd", 0);
}

static void a_key_below_a_file_is_an_error_and_nothing_is_lost(void **unused)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct volume_info info;
    struct err err;

    assert_int_equal(put("file", "kept", "e", &err), 0);
    assert_int_equal(put("file/below", "x", "e", &err), -1);
    assert_int_equal(volume_stat(root, a, "file", &info, &err), 0);
    assert_int_equal(info.size, 4);
}

static int by_bytes(const void *x, const void *y)
{
    return strcmp(*(const char *const *)x, *(const char *const *)y);
}

/* Goal: any set of keys is listed in the order of their bytes, whole or in pages of any size. Method: random keys of
 * the letters that make '/' interesting. */
TT_PROP(volume, lists_in_the_order_of_keys, 40)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    static const char LETTERS[] = "a-0/b.";
    char *own = xasprintf("%s/volumes/p%llu", home, (unsigned long long)rng->seed), *keys[40];
    int keep = root;
    uint32_t n = 0, seen = 0;
    struct volume_list list;
    const char *after = NULL;

    mkdir(own, 0777);
    root = open(own, O_RDONLY | O_DIRECTORY);
    while (n < 25) {
        char key[12];
        uint32_t len = 1 + tt_below(rng, 9);

        for (uint32_t i = 0; i < len; i++)
            key[i] = LETTERS[tt_below(rng, sizeof LETTERS - 1)];
        key[len] = 0;
        if (volume_key_problem(key) || key[len - 1] == '/' || put(key, "x", "e", &err) < 0)
            continue;
        keys[n] = arena_strdup(a, key);
        for (uint32_t i = 0; i < n; i++)
            if (streq(keys[i], key))
                goto again;
        n++;
    again:;
    }
    qsort(keys, n, sizeof *keys, by_bytes);
    do {
        TT_OK(volume_list(root, a, "", NULL, after, 1 + tt_below(rng, 7), &list, &err) == 0);
        for (uint32_t i = 0; i < list.n; i++, seen++)
            TT_OK(seen < n && streq(list.v[i].key, keys[seen]));
        after = list.n ? list.v[list.n - 1].key : NULL;
    } while (list.more);
    TT_OK(seen == n);
    close(root);
    root = keep;
    free(own);
}

static void folders_come_once_with_a_delimiter(void **unused)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct volume_list list;
    struct err err;

    assert_int_equal(put("d/a", "x", "e", &err) | put("d/x/1", "x", "e", &err) | put("d/x/2", "x", "e", &err) |
                         put("d/x-1", "x", "e", &err), 0);
    assert_int_equal(volume_list(root, a, "d/", "/", NULL, 10, &list, &err), 0);
    assert_int_equal(list.n, 3);
    assert_string_equal(list.v[0].key, "d/a");
    assert_string_equal(list.v[1].key, "d/x-1");
    assert_string_equal(list.v[2].key, "d/x/");
    assert_true(list.v[2].prefix);
    assert_int_equal(volume_list(root, a, "d/", "/", "d/x-1", 10, &list, &err), 0);
    assert_int_equal(list.n, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_put_is_there_with_its_etag_until_somebody_writes),
        cmocka_unit_test(removing_takes_the_folders_that_it_leaves_empty),
        cmocka_unit_test(nothing_leaves_the_root),
        cmocka_unit_test(a_key_below_a_file_is_an_error_and_nothing_is_lost),
        cmocka_unit_test(tt_volume_lists_in_the_order_of_keys),
        cmocka_unit_test(folders_come_once_with_a_delimiter),
    };

    return cmocka_run_group_tests_name("volume", tests, setup, teardown);
}
