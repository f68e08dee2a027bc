/* Listing. S3 wants keys in the order of their bytes over the whole key, and '/' is a byte like any other:
 * "a-b" < "a/b" < "a0". So within a folder, names are sorted with a '/' behind those of folders, and then
 * the walk in that order is the order of keys. */
#include "volume/volume.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

enum { DEPTH_MAX = 512 };

struct walk {
    struct arena *a;
    const char *prefix, *after;
    bool shallow; /* delimiter "/" */
    uint32_t max;
    struct volume_list *list;
};

static int by_bytes(const void *x, const void *y)
{
    return strcmp(*(char *const *)x, *(char *const *)y);
}

/* The names of a folder, those of folders with '/' behind. */
static char **names_of(struct arena *a, int fd, bool top, uint32_t *ret_n)
{
    int own = openat(fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC); /* with an offset of its own */
    DIR *dir = own >= 0 ? fdopendir(own) : NULL;
    char **v = NULL;
    uint32_t n = 0, cap = 0;
    struct dirent *d;

    while (dir && (d = readdir(dir))) {
        bool folder = d->d_type == DT_DIR;
        struct stat st;

        if (streq(d->d_name, ".") || streq(d->d_name, "..") || (top && streq(d->d_name, VOLUME_PRIVATE)))
            continue;
        if (d->d_type == DT_UNKNOWN && fstatat(fd, d->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0)
            folder = S_ISDIR(st.st_mode);
        else if (d->d_type != DT_DIR && d->d_type != DT_REG && d->d_type != DT_UNKNOWN)
            continue; /* sockets, pipes and links are no objects */
        if (n == cap) {
            char **more = arena_array(a, char *, cap = cap ? cap * 2 : 64);

            if (n)
                memcpy(more, v, n * sizeof *v);
            v = more;
        }
        v[n++] = arena_printf(a, "%s%s", d->d_name, folder ? "/" : "");
    }
    if (dir)
        closedir(dir);
    if (n)
        qsort(v, n, sizeof *v, by_bytes);
    *ret_n = n;
    return v;
}

static void add(struct walk *w, const char *key, bool prefix, int dir, const char *name)
{
    struct volume_list *l = w->list;
    struct volume_entry *e;
    struct stat st;

    if (l->n == w->max) {
        l->more = true;
        return;
    }
    e = &l->v[l->n];
    *e = (struct volume_entry){.key = key, .prefix = prefix};
    if (!prefix) {
        _auto_(closep) int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

        if (fd < 0 || fstat(fd, &st) < 0)
            return; /* it went while we looked */
        e->size = st.st_size;
        e->mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000 + st.st_mtim.tv_nsec;
        volume_etag(fd, &st, e->etag);
    }
    l->n++;
}

static void walk(struct walk *w, int fd, const char *path, int depth)
{
    uint32_t n;
    char **names = names_of(w->a, fd, !*path, &n);
    size_t prefix_n = strlen(w->prefix);

    if (*path && !n) { /* an empty folder is the object that its name with '/' is */
        if (strncmp(path, w->prefix, prefix_n) == 0 && (!w->after || strcmp(path, w->after) > 0)) {
            if (w->list->n == w->max)
                w->list->more = true;
            else
                w->list->v[w->list->n++] = (struct volume_entry){.key = path, .etag = "d41d8cd98f00b204e9800998ecf8427e"};
        }
        return;
    }
    for (uint32_t i = 0; i < n && !w->list->more; i++) {
        char *key = arena_printf(w->a, "%s%s", path, names[i]);
        size_t key_n = strlen(key), common = MIN(key_n, prefix_n);
        bool folder = key[key_n - 1] == '/';

        if (strncmp(key, w->prefix, common) != 0)
            continue;
        if (!folder) {
            if (key_n >= prefix_n && (!w->after || strcmp(key, w->after) > 0))
                add(w, key, false, fd, names[i]);
            continue;
        }
        /* all of it lies before `after`? */
        if (w->after && strncmp(key, w->after, key_n) < 0)
            continue;
        names[i][strlen(names[i]) - 1] = 0;
        if (w->shallow && key_n > prefix_n) {
            if (!w->after || strcmp(key, w->after) > 0)
                add(w, key, true, fd, names[i]);
            continue;
        }
        if (depth < DEPTH_MAX) {
            _auto_(closep) int sub = openat(fd, names[i], O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

            if (sub >= 0)
                walk(w, sub, key, depth + 1);
        }
    }
}

/* Delimiters other than "/" are rare: the flat list is folded. */
static void fold(struct volume_list *l, struct arena *a, const char *prefix, const char *delimiter,
                 const char *after)
{
    size_t prefix_n = strlen(prefix), delimiter_n = strlen(delimiter);
    uint32_t n = 0;

    for (uint32_t i = 0; i < l->n; i++) {
        const char *at = strstr(l->v[i].key + prefix_n, delimiter);

        if (at) {
            char *common = arena_strndup(a, l->v[i].key, (size_t)(at - l->v[i].key) + delimiter_n);

            if ((n && l->v[n - 1].prefix && streq(l->v[n - 1].key, common)) ||
                (after && strncmp(common, after, strlen(common)) == 0))
                continue;
            l->v[n++] = (struct volume_entry){.key = common, .prefix = true};
        } else {
            l->v[n++] = l->v[i];
        }
    }
    l->n = n;
}

int volume_list(int root, struct arena *a, const char *prefix, const char *delimiter, const char *after,
                uint32_t max, struct volume_list *ret, struct err *err)
{
    bool slash = delimiter && streq(delimiter, "/"), other = !str_empty(delimiter) && !slash;
    struct walk w = {.a = a, .prefix = prefix, .after = str_empty(after) ? NULL : after, .shallow = slash,
                     .max = other ? 100000 : max, .list = ret};

    *ret = (struct volume_list){.v = arena_array(a, struct volume_entry, w.max + 1)};
    if (!max)
        return 0;
    walk(&w, root, "", 0);
    if (other) {
        fold(ret, a, prefix, delimiter, w.after);
        if (ret->n > max) {
            ret->n = max;
            ret->more = true;
        }
    }
    return 0;
}
