/* Log files of functions: STATE/logs/functions/NAMESPACE/NAME/current.log, and previous.log before it.
 *
 * A line: time TAB instance TAB text. Lines are gathered and written a few times a second; a file
 * holds FILE_BYTES_MAX and there are two, so a function that prints without end fills nothing but
 * its own log. A disk that takes no more costs log lines, never answers. */
#include "function/function_int.h"

#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

enum { FILE_BYTES_MAX = 10 << 20, PENDING_MAX = 64 << 10 };

static char *dir_of(const struct functions *fs, const char *ns, const char *name)
{
    return xasprintf("%s/logs/functions/%s/%s", fs->state, ns, name);
}

void flog_open(struct flog *l, const struct functions *fs, const char *ns, const char *name)
{
    *l = (struct flog){.fd = -1, .dir = dir_of(fs, ns, name)};
}

void flog_done(struct flog *l)
{
    closep(&l->fd);
    l->fd = -1;
    free(l->dir);
    buf_done(&l->pending);
}

static int open_file(struct flog *l)
{
    _auto_(freep) char *path = xasprintf("%s/current.log", l->dir);
    struct stat st;

    if (mkdir(l->dir, 0755) < 0 && errno == ENOENT) { /* the first of its namespace */
        char *slash = strrchr(l->dir, '/');

        *slash = 0;
        mkdir(l->dir, 0755);
        *slash = '/';
        mkdir(l->dir, 0755);
    }
    l->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    if (l->fd < 0)
        return -1;
    l->size = fstat(l->fd, &st) == 0 ? (size_t)st.st_size : 0;
    return 0;
}

static void rotate(struct flog *l)
{
    _auto_(freep) char *path = xasprintf("%s/current.log", l->dir);
    _auto_(freep) char *old = xasprintf("%s/previous.log", l->dir);

    closep(&l->fd);
    l->fd = -1;
    (void)!rename(path, old);
}

void flog_flush(struct flog *l)
{
    size_t at = 0;

    if (!l->pending.n)
        return;
    if (l->fd >= 0 && l->size > FILE_BYTES_MAX)
        rotate(l);
    if (l->fd < 0 && open_file(l) < 0)
        goto broken;
    while (at < l->pending.n) {
        ssize_t n = write(l->fd, l->pending.p + at, l->pending.n - at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            goto broken;
        at += (size_t)n;
        l->size += (size_t)n;
    }
    l->broken = false;
    buf_reset(&l->pending);
    return;
broken:
    if (!l->broken)
        LOG(WARN, "function", "did=drop-log dir=%s error=\"%s\"", l->dir, strerror(errno));
    l->broken = true;
    buf_reset(&l->pending);
}

void flog_line(struct flog *l, const char *stream, const char *text, size_t n)
{
    char when[32];

    wall_text(wall_ms(), when);
    buf_add(&l->pending, when, strlen(when));
    buf_addc(&l->pending, '\t');
    buf_add(&l->pending, stream, strlen(stream));
    buf_addc(&l->pending, '\t');
    buf_add(&l->pending, text, n);
    buf_addc(&l->pending, '\n');
    if (l->pending.n > PENDING_MAX)
        flog_flush(l);
}

void tail_add(struct call *c, const char *text, size_t n)
{
    if (!c->want_tail)
        return;
    if (n > FUNCTION_LOG_TAIL_MAX) {
        text += n - FUNCTION_LOG_TAIL_MAX;
        n = FUNCTION_LOG_TAIL_MAX;
    }
    if (c->tail.n + n > 2 * FUNCTION_LOG_TAIL_MAX)
        buf_eat(&c->tail, c->tail.n - FUNCTION_LOG_TAIL_MAX);
    buf_add(&c->tail, text, n);
}

int functions_log_tail(struct functions *fs, const char *ns, const char *name, size_t max, struct buf *out,
                       struct err *err)
{
    static const char *const files[] = {"previous.log", "current.log"};
    _auto_(freep) char *dir = NULL;
    struct function *f = function_find(fs, ns, name);
    struct buf all = {0};
    const char *from;
    bool found = false;

    if (str_empty(name) || strchr(name, '/') || name[0] == '.' || (ns && strchr(ns, '/')))
        return err_set(err, NOT_FOUND, "no such function");
    dir = dir_of(fs, str_empty(ns) ? "default" : ns, name);
    if (f)
        flog_flush(&f->family->log);
    for (size_t i = 0; i < ARRAY_LEN(files); i++) {
        _auto_(freep) char *path = xasprintf("%s/%s", dir, files[i]);
        _auto_(closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
        struct stat st;
        off_t at;

        if (fd < 0 || fstat(fd, &st) < 0)
            continue;
        found = true;
        at = MAX(st.st_size - (off_t)max, (off_t)0);
        if (!buf_reserve(&all, (size_t)(st.st_size - at)))
            continue;
        for (ssize_t n; at < st.st_size; at += n) {
            n = pread(fd, all.p + all.n, (size_t)(st.st_size - at), at);
            if (n <= 0)
                break;
            all.n += (size_t)n;
        }
    }
    if (!found && !f) {
        buf_done(&all);
        return err_set(err, NOT_FOUND, "%s has no log", name);
    }
    from = all.p;
    if (all.n > max) {
        from = memchr(all.p + all.n - max, '\n', max);
        from = from ? from + 1 : all.p + all.n - max;
    }
    if (from)
        buf_add(out, from, all.n - (size_t)(from - all.p));
    buf_done(&all);
    return 0;
}
