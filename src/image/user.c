/* Names of users -> numbers, by the image's own /etc/passwd and /etc/group. The files are looked
 * for from the topmost layer down; symlinks cannot lead out of a layer. */
#include "image/image_int.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

static bool whiteout(const struct stat *st)
{
    return S_ISCHR(st->st_mode) && st->st_rdev == 0;
}

/* The text of a file of the image; empty when it is in no layer. */
static void image_file(const struct image *img, const char *path, struct buf *ret)
{
    struct open_how how = {.flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK, .resolve = RESOLVE_IN_ROOT};

    for (uint32_t i = 0; i < img->n_lowers; i++) {
        _auto_(closep) int root = open(img->lowers[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
        struct err ignored = {0};
        struct stat st;
        int fd;

        if (root < 0)
            continue;
        if (fstatat(root, path, &st, AT_SYMLINK_NOFOLLOW) == 0 && whiteout(&st))
            return;
        fd = (int)syscall(SYS_openat2, root, path, &how, sizeof(how));
        if (fd < 0)
            continue;
        if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode)) {
            char self[40];

            snprintf(self, sizeof(self), "/proc/self/fd/%d", fd);
            fsat_read(AT_FDCWD, self, 4 << 20, ret, &ignored);
        }
        close(fd);
        return;
    }
}

/* Cuts the next line into up to max fields at ':'. NULL-safe; false at the end. */
static bool next_fields(char **text, char **field, int max, int *ret_n)
{
    char *line, *sep;
    int n = 0;

    line = strsep(text, "\n");
    if (!line)
        return false;
    while (n < max && (sep = strsep(&line, ":")))
        field[n++] = sep;
    *ret_n = n;
    return true;
}

static bool number(const char *s, uint32_t *ret)
{
    char *end;
    unsigned long long v;

    if (!*s || strspn(s, "0123456789") != strlen(s) || strlen(s) > 10)
        return false;
    v = strtoull(s, &end, 10);
    if (v > 4294967294ull)
        return false;
    *ret = (uint32_t)v;
    return true;
}

struct who {
    char name[64]; /* login name, "" when a bare number without an entry */
    uint32_t uid, gid;
    char home[256];
};

static bool passwd_find(char *text, const char *user, struct who *ret)
{
    uint32_t want = 0, uid, gid;
    bool by_number = number(user, &want);
    char *f[7];
    int n;

    while (next_fields(&text, f, 7, &n)) {
        if (n < 4 || !number(f[2], &uid) || !number(f[3], &gid))
            continue;
        if (by_number ? uid != want : !streq(f[0], user))
            continue;
        snprintf(ret->name, sizeof(ret->name), "%s", f[0]);
        snprintf(ret->home, sizeof(ret->home), "%s", n >= 6 && f[5][0] == '/' ? f[5] : "/");
        ret->uid = uid;
        ret->gid = gid;
        return true;
    }
    ret->uid = want;
    return by_number;
}

static bool member(char *list, const char *name)
{
    char *one;

    while ((one = strsep(&list, ",")))
        if (streq(one, name))
            return true;
    return false;
}

int image_user(const struct image *img, const char *user, uid_t *ret_uid, gid_t *ret_gid,
               gid_t *groups, size_t groups_max, size_t *ret_n_groups, char *ret_home,
               struct err *err)
{
    struct who who = {.home = "/"};
    struct buf passwd = {0}, group = {0};
    _auto_(freep) char *text = xstrdup(user ? user : "");
    char *want_group = strchr(text, ':'), *at, *f[4];
    bool found_group = false;
    size_t n_groups = 0;
    uint32_t gid;
    int n, rc = 0;

    if (want_group)
        *want_group++ = 0;
    image_file(img, "etc/passwd", &passwd);
    image_file(img, "etc/group", &group);
    if (!passwd_find(passwd.p, *text ? text : "0", &who))
        rc = err_set(err, INVALID_ARGUMENT, "the image has no user \"%.60s\" in /etc/passwd", text);
    if (rc == 0 && !str_empty(want_group)) {
        found_group = number(want_group, &gid);
        if (found_group)
            who.gid = gid;
    }
    for (at = group.p; rc == 0 && next_fields(&at, f, 4, &n);) {
        if (n < 3 || !number(f[2], &gid))
            continue;
        if (!str_empty(want_group)) {
            if (!found_group && streq(f[0], want_group)) {
                who.gid = gid;
                found_group = true;
            }
        } else if (n == 4 && who.name[0] && gid != who.gid && n_groups < groups_max &&
                   member(f[3], who.name)) {
            groups[n_groups++] = gid;
        }
    }
    buf_done(&passwd);
    buf_done(&group);
    if (rc == 0 && !str_empty(want_group) && !found_group)
        rc = err_set(err, INVALID_ARGUMENT, "the image has no group \"%.60s\" in /etc/group", want_group);
    if (rc < 0)
        return -1;
    *ret_uid = who.uid;
    *ret_gid = who.gid;
    if (ret_n_groups)
        *ret_n_groups = n_groups;
    if (ret_home)
        snprintf(ret_home, 256, "%s", who.home);
    return 0;
}
