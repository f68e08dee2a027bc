/* Code by content: what nobody needs goes, what somebody needs or has just put stays. */
#include "tt.h"

#include "function/host.h"

#include "base/map.h"

#include <fcntl.h>

static char state[64];

static void put(const char *text, char hex[CODE_HEX])
{
    struct buf zip = {0};
    struct err err = {0};

    host_zip(&zip, (const char *const[]){"app.py", text, "pkg/mod.py", "x = 1\n", NULL});
    assert_int_equal(code_put(state, zip.p, zip.n, hex, &err), 0);
    buf_done(&zip);
}

static bool there(const char *folder, const char *hex, const char *ending)
{
    _auto_(freep) char *path = xasprintf("%s/%s/%s%s", state, folder, hex, ending);

    return access(path, F_OK) == 0;
}

/* As if it had been put an hour ago. */
static void age(const char *folder, const char *name)
{
    _auto_(freep) char *path = xasprintf("%s/%s/%s", state, folder, name);
    struct timespec then[2];

    clock_gettime(CLOCK_REALTIME, &then[0]);
    then[0].tv_sec -= 3600;
    then[1] = then[0];
    assert_int_equal(utimensat(AT_FDCWD, path, then, 0), 0);
}

static void make(const char *folder, const char *name)
{
    _auto_(freep) char *path = xasprintf("%s/%s/%s", state, folder, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    close(fd);
}

static void what_nobody_names_goes(void **unused)
{
    char used[CODE_HEX], idle[CODE_HEX], fresh[CODE_HEX], again[CODE_HEX];
    struct map names = {0}, seen = {0};
    _auto_(freep) char *mark = NULL;
    _auto_(freep) char *half = NULL;

    snprintf(state, sizeof state, "/tmp/tandem-code-XXXXXX");
    assert_non_null(mkdtemp(state));
    put("a = 1\n", used);
    put("a = 2\n", idle);
    put("a = 3\n", fresh);
    mark = xasprintf("%s.compiled", idle);
    half = xasprintf(".%s.abcdef", idle);
    make("functions", mark);
    make("functions", half);
    make("functions", ".boot");
    make("functions", "something-else");
    for (int i = 0; i < 2; i++) {
        age(i ? "functions" : "blobs/sha256", used);
        age(i ? "functions" : "blobs/sha256", idle);
    }
    age("functions", mark);
    age("functions", half);
    age("functions", ".boot");
    age("functions", "something-else");
    map_put(&names, used, state);

    assert_int_equal(code_collect(state, &names, &seen, 1000, 600), 1); /* the half-made folder only: the rest is seen for the first time */
    assert_true(there("blobs/sha256", idle, "") && there("functions", idle, "") && !there("functions", half, ""));
    assert_int_equal(code_collect(state, &names, &seen, 1599, 600), 0);
    assert_int_equal(code_collect(state, &names, &seen, 1600, 600), 3);
    assert_false(there("blobs/sha256", idle, "") || there("functions", idle, "") || there("functions", idle, ".compiled"));
    assert_true(there("blobs/sha256", used, "") && there("functions", used, ""));
    assert_true(there("functions", ".boot", "") && there("functions", "something-else", ""));
    assert_true(there("blobs/sha256", fresh, "") && there("functions", fresh, "")); /* put a moment ago: perhaps in no object yet */

    /* what is put again counts as new, however long nobody named it */
    age("blobs/sha256", fresh);
    age("functions", fresh);
    put("a = 3\n", again);
    assert_string_equal(again, fresh);
    assert_int_equal(code_collect(state, &names, &seen, 9000, 600), 0);
    age("blobs/sha256", fresh);
    age("functions", fresh);
    assert_int_equal(code_collect(state, &names, &seen, 9001, 600), 2);
    assert_false(there("blobs/sha256", fresh, "") || there("functions", fresh, ""));

    /* named again before its time was over: it begins anew */
    put("a = 2\n", idle);
    age("blobs/sha256", idle);
    age("functions", idle);
    assert_int_equal(code_collect(state, &names, &seen, 10000, 600), 0);
    map_put(&names, idle, state);
    assert_int_equal(code_collect(state, &names, &seen, 10500, 600), 0);
    map_del(&names, idle);
    assert_int_equal(code_collect(state, &names, &seen, 10700, 600), 0);
    assert_int_equal(code_collect(state, &names, &seen, 11300, 600), 2);

    map_done(&names);
    map_done(&seen);
    struct host h;
    snprintf(h.state, sizeof h.state, "%s", state);
    host_remove(&h);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(what_nobody_names_goes)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
