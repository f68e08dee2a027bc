#include "sandbox/shim/crilog.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static void make_parents(const char *path)
{
    char at[1024];

    if ((size_t)snprintf(at, sizeof at, "%s", path) >= sizeof at)
        return;
    for (char *p = strchr(at + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = 0;
        (void)mkdir(at, 0755);
        *p = '/';
    }
}

static void reopen(struct crilog *l)
{
    struct stat st;

    l->fd = open(l->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    if (l->fd < 0 && errno == ENOENT) {
        make_parents(l->path);
        l->fd = open(l->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
    }
    l->bytes = l->fd >= 0 && fstat(l->fd, &st) == 0 ? st.st_size : 0;
}

void crilog_open(struct crilog *l, const char *path, int64_t bytes_max, int files)
{
    *l = (struct crilog){
        .fd = -1, .bytes_max = bytes_max ? bytes_max : 10 << 20, .files = files ? files : 5};
    if (!path)
        return;
    l->path = xstrdup(path);
    reopen(l);
}

void crilog_close(struct crilog *l)
{
    closep(&l->fd);
    l->fd = -1;
    free(STEAL(l->path));
    buf_done(&l->out);
}

static void rotate(struct crilog *l)
{
    char from[1100], to[1100];

    for (int i = l->files - 1; i > 0; i--) {
        if (i > 1)
            snprintf(from, sizeof from, "%s.%d", l->path, i - 1);
        else
            snprintf(from, sizeof from, "%s", l->path);
        snprintf(to, sizeof to, "%s.%d", l->path, i);
        (void)rename(from, to);
    }
    if (l->files <= 1)
        (void)unlink(l->path);
    close(l->fd);
    reopen(l);
}

static void record(struct crilog *l, const char *stamp, const char *stream, char tag, const char *p,
                   size_t n)
{
    buf_adds(&l->out, stamp);
    buf_adds(&l->out, stream);
    buf_add(&l->out, (char[]){' ', tag, ' '}, 3);
    buf_add(&l->out, p, n);
    buf_addc(&l->out, '\n');
}

static void make_stamp(char stamp[40])
{
    struct timespec t;
    struct tm tm;
    size_t n;

    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &tm);
    n = strftime(stamp, 40, "%Y-%m-%dT%H:%M:%S", &tm);
    snprintf(stamp + n, 40 - n, ".%09ldZ ", t.tv_nsec);
}

static void flush(struct crilog *l)
{
    size_t at = 0;

    while (l->fd >= 0 && at < l->out.n) {
        ssize_t n = write(l->fd, l->out.p + at, l->out.n - at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break; /* a full disk loses lines, it does not stop the container */
        at += (size_t)n;
    }
    l->bytes += (int64_t)at;
    buf_reset(&l->out);
    if (l->fd >= 0 && l->bytes > l->bytes_max)
        rotate(l);
}

void crilog_write(struct crilog *l, struct crilog_stream *s, const char *p, size_t n)
{
    char stamp[40];

    if (l->fd < 0)
        return;
    make_stamp(stamp);
    while (n) {
        const char *nl = memchr(p, '\n', n);
        size_t part = nl ? (size_t)(nl - p) : n, room = CRILOG_LINE_MAX - s->line.n;
        if (part > room) {
            part = room;
            nl = NULL;
        }
        buf_add(&s->line, p, part);
        if (nl || s->line.n == CRILOG_LINE_MAX) {
            record(l, stamp, s->name, nl ? 'F' : 'P', s->line.p, s->line.n);
            buf_reset(&s->line);
        }
        part += nl != NULL;
        p += part;
        n -= part;
    }
    if (l->out.n)
        flush(l);
}

void crilog_end(struct crilog *l, struct crilog_stream *s)
{
    char stamp[40];

    if (s->line.n && l->fd >= 0) {
        make_stamp(stamp);
        record(l, stamp, s->name, 'P', s->line.p, s->line.n);
        flush(l);
    }
    buf_done(&s->line);
}
