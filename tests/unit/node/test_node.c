/* The node's parts that need no cluster: files of volumes. */
#include "tt.h"

#include "env/fs.h"
#include "node/node_int.h"

#include <dirent.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64];

static char *read_at(const char *name)
{
    char path[256];
    struct err err;

    snprintf(path, sizeof path, "%s/v/%s", dir, name);
    return fs_read(path, 65536, NULL, &err);
}

static int entries(const char *below) /* those that do not start with ".." */
{
    char path[256];
    struct dirent *e;
    int n = 0;

    snprintf(path, sizeof path, "%s/v%s", dir, below);
    DIR *d = opendir(path);
    while (d && (e = readdir(d)))
        n += !str_starts(e->d_name, "..") && !streq(e->d_name, ".");
    if (d)
        closedir(d);
    return n;
}

/* Goal: after each write exactly the new set is there, whatever was there before, and nothing of
 * the old ones is left behind. Method: random sets of names (some with folders), written one over
 * the other. */
TT_PROP(volume, a_write_replaces_the_whole_set, 40)
{
    static const char *const names[] = {"a", "b.txt", "deep/er/c", "deep/d", "e"};
    char path[128];
    int changes = 0;

    snprintf(path, sizeof path, "%s/v", dir);
    for (int step = 0; step < 8; step++) {
        struct volume_file files[ARRAY_LEN(names)];
        char text[ARRAY_LEN(names)][16];
        bool in[ARRAY_LEN(names)] = {false};
        size_t n = 0;

        for (size_t i = 0; i < ARRAY_LEN(names); i++) {
            if (!(in[i] = tt_below(rng, 2)))
                continue;
            snprintf(text[i], sizeof text[i], "%u", tt_below(rng, 1000));
            files[n++] = (struct volume_file){names[i], text[i], strlen(text[i]), 0640};
        }
        TT_OK(volume_write_files(path, files, n, -1, &err) == 0);
        for (size_t i = 0; i < ARRAY_LEN(names); i++) {
            char *is = read_at(names[i]);
            TT_OK((is != NULL) == in[i]);
            TT_OK(!is || streq(is, text[i]));
            free(is);
            changes += in[i];
        }
        TT_OK(entries("") == (int)in[0] + in[1] + (in[2] || in[3]) + in[4]);
    }
    /* ..data and the one set it points at, no older one */
    DIR *d = opendir(path);
    struct dirent *e;
    int hidden = 0;
    while ((e = readdir(d)))
        hidden += str_starts(e->d_name, "..") && e->d_name[2];
    closedir(d);
    TT_OK(hidden == 2);
    TT_OK(changes > 5);
}

static void names_stay_inside(void **state)
{
    static const char *const bad[] = {"../x", "/etc/x", "a/../../x", "..", "", "a/.."};
    char path[128], out[128];
    struct err err = {0};

    (void)state;
    snprintf(path, sizeof path, "%s/w", dir);
    for (size_t i = 0; i < ARRAY_LEN(bad); i++) {
        struct volume_file f = {bad[i], "x", 1, 0644};
        assert_int_equal(volume_write_files(path, &f, 1, -1, &err), -1);
    }
    snprintf(out, sizeof out, "%s/x", dir);
    assert_int_equal(access(out, F_OK), -1);
    struct volume_file f = {"secret", "x", 1, 0400};
    struct stat st;
    assert_int_equal(volume_write_files(path, &f, 1, -1, &err), 0);
    snprintf(out, sizeof out, "%s/w/secret", dir);
    assert_int_equal(stat(out, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0400);
}

static int setup(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/tandem-node-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    struct err err;

    (void)state;
    return fs_remove_tree(dir, &err);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tt_volume_a_write_replaces_the_whole_set),
        cmocka_unit_test(names_stay_inside),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
