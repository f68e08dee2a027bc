/* apiserver/audit_log.c - audit events to a file. The loop appends lines to one buffer, the thread
 * takes it whole and writes it. A file that would grow over its limit is renamed to
 * NAME-TIME.EXT first; old ones go by number and by age. */
#include "apiserver/audit_sink.h"
#include "base/log.h"
#include "env/fs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { DEFAULT_MB = 100, DAY_S = 86400 };

struct audit_log {
    char *path, *folder, *stem, *ext; /* ext with its dot, or "" */
    int64_t bytes_max, bytes;
    int files_max, days_max, fd;
    pthread_t thread;
    pthread_mutex_t lock; /* of what follows */
    pthread_cond_t wake;
    struct buf lines;
    bool stop;
    uint64_t dropped, failed;
};

/* ---------------------------------------------------------------- files (the thread's) */

static int file_open(struct audit_log *l, struct err *err)
{
    struct stat st;

    if (streq(l->path, "-")) {
        l->fd = dup(STDOUT_FILENO);
        return l->fd < 0 ? err_sys(err, "standard output") : 0;
    }
    l->fd = open(l->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (l->fd < 0 || fstat(l->fd, &st) < 0)
        return err_sys(err, "audit log %s", l->path);
    l->bytes = st.st_size;
    return 0;
}

static int by_name(const struct dirent **x, const struct dirent **y)
{
    return strcmp((*y)->d_name, (*x)->d_name); /* newest first */
}

/* The backups of this log in the folder, newest first. */
static void drop_old(const struct audit_log *l)
{
    struct dirent **list;
    int n = scandir(l->folder, &list, NULL, by_name), seen = 0;
    size_t stem = strlen(l->stem), ext = strlen(l->ext), time_n = strlen("-2006-01-02T15-04-05.000");
    time_t before = time(NULL) - (time_t)l->days_max * DAY_S;

    for (int i = 0; i < n; i++) {
        const char *name = list[i]->d_name;
        struct stat st;

        if (strlen(name) == stem + time_n + ext && strncmp(name, l->stem, stem) == 0 &&
            name[stem] == '-' && streq(name + stem + time_n, l->ext)) {
            _auto_(freep) char *path = xasprintf("%s/%s", l->folder, name);

            seen++;
            if ((l->files_max && seen > l->files_max) ||
                (l->days_max && stat(path, &st) == 0 && st.st_mtime < before))
                unlink(path);
        }
        free(list[i]);
    }
    if (n >= 0)
        free(list);
}

static void turn_over(struct audit_log *l)
{
    struct timespec now;
    struct tm tm;
    char at[40];
    _auto_(freep) char *aside = NULL;
    struct err err = {0};

    clock_gettime(CLOCK_REALTIME, &now);
    gmtime_r(&now.tv_sec, &tm);
    strftime(at, sizeof(at), "%Y-%m-%dT%H-%M-%S", &tm);
    aside = xasprintf("%s/%s-%s.%03ld%s", l->folder, l->stem, at, now.tv_nsec / 1000000, l->ext);
    close(l->fd);
    if (rename(l->path, aside) < 0)
        LOG(WARN, "audit", "did=rotate path=%s err=\"%s\"", l->path, strerror(errno));
    if (file_open(l, &err) < 0)
        LOG(ERROR, "audit", "did=rotate err=\"%s\"", err.msg);
    drop_old(l);
}

/* At most so many bytes of whole lines that the file still takes; at least one line. */
static size_t portion(const struct audit_log *l, const char *p, size_t n)
{
    size_t room = l->bytes_max > l->bytes ? (size_t)(l->bytes_max - l->bytes) : 0;
    const char *end;

    if (n <= room)
        return n;
    end = memrchr(p, '\n', room);
    if (end)
        return (size_t)(end - p) + 1;
    end = memchr(p, '\n', n);
    return end ? (size_t)(end - p) + 1 : n;
}

static bool write_out(struct audit_log *l, const char *p, size_t n)
{
    struct err err = {0};
    bool good = true;

    while (n) {
        size_t part = l->bytes_max ? portion(l, p, n) : n;

        if (l->bytes_max && l->bytes && l->bytes + (int64_t)part > l->bytes_max) {
            turn_over(l);
            part = portion(l, p, n);
        }
        if (fs_write_all(l->fd, p, part, &err) < 0) {
            LOG(ERROR, "audit", "did=write path=%s err=\"%s\"", l->path, err.msg);
            good = false;
        }
        l->bytes += (int64_t)part;
        p += part;
        n -= part;
    }
    return good;
}

static void *run(void *arg)
{
    struct audit_log *l = arg;
    struct buf mine = {0};
    bool last = false;

    pthread_mutex_lock(&l->lock);
    while (!last) {
        while (!l->stop && !l->lines.n)
            pthread_cond_wait(&l->wake, &l->lock);
        last = l->stop;
        mine = l->lines;
        buf_init(&l->lines, AUDIT_BUFFER_MAX);
        pthread_mutex_unlock(&l->lock);
        if (!write_out(l, mine.p, mine.n)) {
            pthread_mutex_lock(&l->lock);
            l->failed++;
            pthread_mutex_unlock(&l->lock);
        }
        buf_done(&mine);
        pthread_mutex_lock(&l->lock);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

/* ---------------------------------------------------------------- the loop's side */

static void split_path(struct audit_log *l)
{
    const char *slash = strrchr(l->path, '/'), *base = slash ? slash + 1 : l->path;
    const char *dot = strrchr(base, '.');

    l->folder = slash ? xstrndup(l->path, (size_t)(slash - l->path) + (slash == l->path)) : xstrdup(".");
    l->stem = dot && dot != base ? xstrndup(base, (size_t)(dot - base)) : xstrdup(base);
    l->ext = xstrdup(dot && dot != base ? dot : "");
}

struct audit_log *audit_log_new(const struct audit_opts *o, struct err *err)
{
    struct audit_log *l = xcalloc(1, sizeof(*l));

    l->path = xstrdup(o->log_path);
    split_path(l);
    if (!streq(l->path, "-"))
        l->bytes_max = (int64_t)(o->log_mb_max ? o->log_mb_max : DEFAULT_MB) << 20;
    l->files_max = o->log_files_max;
    l->days_max = o->log_days_max;
    buf_init(&l->lines, AUDIT_BUFFER_MAX);
    l->fd = -1;
    if (file_open(l, err) < 0)
        goto bad;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->wake, NULL);
    if (pthread_create(&l->thread, NULL, run, l) == 0)
        return l;
    err_set(err, INTERNAL, "cannot make the thread of the audit log");
bad:
    if (l->fd >= 0)
        close(l->fd);
    free(l->path);
    free(l->folder);
    free(l->stem);
    free(l->ext);
    free(l);
    return NULL;
}

void *audit_log_free(struct audit_log *l)
{
    if (!l)
        return NULL;
    pthread_mutex_lock(&l->lock);
    l->stop = true;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->lock);
    pthread_join(l->thread, NULL);
    pthread_mutex_destroy(&l->lock);
    pthread_cond_destroy(&l->wake);
    close(l->fd);
    buf_done(&l->lines);
    free(l->path);
    free(l->folder);
    free(l->stem);
    free(l->ext);
    free(l);
    return NULL;
}

void audit_log_add(struct audit_log *l, const char *line, size_t n)
{
    bool fits;

    pthread_mutex_lock(&l->lock);
    fits = l->lines.n + n <= AUDIT_BUFFER_MAX;
    if (fits)
        buf_add(&l->lines, line, n);
    else
        l->dropped++;
    pthread_cond_signal(&l->wake);
    pthread_mutex_unlock(&l->lock);
    if (!fits)
        LOG(ERROR, "audit", "did=drop why=\"the disk does not keep up\" path=%s", l->path);
}

void audit_log_counts(struct audit_log *l, struct audit_counts *n)
{
    pthread_mutex_lock(&l->lock);
    n->dropped += l->dropped;
    n->failed += l->failed;
    pthread_mutex_unlock(&l->lock);
}
