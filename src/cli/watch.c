/* tandem deploy --watch: inotify on every folder of the code. What comes within QUIET_MS of each other is one change, but
 * a folder that is never quiet is deployed every LONGEST_MS. Before each deploy the changed files are read by their
 * language (guess_check): code that cannot even be read is told, and what answered before goes on answering. */
#include "cli/deploy.h"
#include "env/clock.h"

#include <errno.h>
#include <fts.h>
#include <poll.h>
#include <sys/inotify.h>
#include <time.h>
#include <unistd.h>

enum { QUIET_MS = 15, LONGEST_MS = 300, FOLDERS_MAX = 4096, CHANGED_MAX = 64 };
#define EVENTS (IN_CLOSE_WRITE | IN_MOVED_TO | IN_MOVED_FROM | IN_CREATE | IN_DELETE | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF)

struct watch {
    int fd;
    const char *root;   /* the folder, or the one that the zip lies in */
    const char *only;   /* the zip's name; NULL: everything counts */
    struct {
        int wd;
        char *path; /* below root: "" or "dir/"; owned */
    } folders[FOLDERS_MAX];
    size_t folders_n;
    char *changed[CHANGED_MAX]; /* since the last deploy, below root; owned */
    size_t changed_n;
    bool dirty, root_gone;
};

/* Of editors and of version control, or never part of what is saved by hand. */
static bool is_noise(const char *name)
{
    size_t n = strlen(name);

    return streq(name, ".git") || streq(name, "__pycache__") || streq(name, "node_modules") || streq(name, "4913") ||
           str_starts(name, ".#") || (name[0] == '.' && (str_ends(name, ".swp") || str_ends(name, ".swx"))) || (n && name[n - 1] == '~');
}

static const char *folder_of(const struct watch *w, int wd)
{
    for (size_t i = 0; i < w->folders_n; i++)
        if (w->folders[i].wd == wd)
            return w->folders[i].path;
    return NULL;
}

static void forget(struct watch *w, int wd)
{
    for (size_t i = 0; i < w->folders_n; i++)
        if (w->folders[i].wd == wd) {
            free(w->folders[i].path);
            w->folders[i] = w->folders[--w->folders_n];
            return;
        }
}

static int add_folder(struct watch *w, const char *full, const char *below, struct err *err)
{
    int wd = inotify_add_watch(w->fd, full, EVENTS | IN_ONLYDIR | IN_DONT_FOLLOW);

    if (wd < 0 && (errno == ENOENT || errno == ENOTDIR))
        return 0; /* it went meanwhile */
    if (wd < 0 && errno == ENOSPC)
        return err_set(err, TOO_MANY, "this machine watches no more folders (sysctl fs.inotify.max_user_watches)");
    if (wd < 0)
        return err_sys(err, "watch %s", full);
    if (folder_of(w, wd))
        return 0;
    if (w->folders_n == FOLDERS_MAX)
        return err_set(err, TOO_MANY, "%s holds more than %d folders; that is more than --watch looks at", w->root, FOLDERS_MAX);
    w->folders[w->folders_n].wd = wd;
    w->folders[w->folders_n++].path = *below ? xasprintf("%s/", below) : xstrdup("");
    return 0;
}

/* The folder and all below it. */
static int add_tree(struct watch *w, const char *full, struct err *err)
{
    char *const argv[] = {(char *)(uintptr_t)full, NULL};
    size_t prefix = strlen(w->root);
    FTS *fts;
    FTSENT *f;
    int rc = 0;

    if (w->only)
        return add_folder(w, full, "", err);
    fts = fts_open(argv, FTS_PHYSICAL | FTS_NOCHDIR, NULL);
    while (rc == 0 && fts && (f = fts_read(fts)))
        if (f->fts_info == FTS_D) {
            const char *below = f->fts_path + prefix;

            if (f->fts_level > 0 && is_noise(f->fts_name))
                fts_set(fts, f, FTS_SKIP);
            else
                rc = add_folder(w, f->fts_path, below + strspn(below, "/"), err);
        }
    if (fts)
        fts_close(fts);
    return rc;
}

static void add_changed(struct watch *w, const char *folder, const char *name)
{
    _auto_(freep) char *path = xasprintf("%s%s", folder, name);

    w->dirty = true;
    for (size_t i = 0; i < w->changed_n; i++)
        if (streq(w->changed[i], path))
            return;
    if (w->changed_n < CHANGED_MAX)
        w->changed[w->changed_n++] = STEAL(path);
}

static int on_event(struct watch *w, const struct inotify_event *e, struct err *err)
{
    const char *folder = folder_of(w, e->wd), *name = e->len ? e->name : "";

    if (e->mask & IN_Q_OVERFLOW) { /* nobody knows what it was */
        w->dirty = true;
        return add_tree(w, w->root, err);
    }
    if (e->mask & (IN_IGNORED | IN_DELETE_SELF | IN_MOVE_SELF)) {
        w->root_gone |= folder && !*folder;
        if (e->mask & IN_IGNORED)
            forget(w, e->wd);
        return 0;
    }
    if (!folder || is_noise(name) || (w->only && !streq(name, w->only)))
        return 0;
    if ((e->mask & IN_ISDIR) && (e->mask & (IN_CREATE | IN_MOVED_TO))) {
        _auto_(freep) char *full = xasprintf("%s/%s%s", w->root, folder, name);

        w->dirty = true;
        return add_tree(w, full, err);
    }
    if ((e->mask & IN_CREATE) && !(e->mask & IN_ISDIR))
        return 0; /* its IN_CLOSE_WRITE comes when it has been written */
    add_changed(w, folder, name);
    return 0;
}

static int read_events(struct watch *w, struct err *err)
{
    char buf[16384] __attribute__((aligned(__alignof__(struct inotify_event))));
    ssize_t n = read(w->fd, buf, sizeof buf);

    if (n < 0)
        return errno == EAGAIN || errno == EINTR ? 0 : err_sys(err, "watch %s", w->root);
    for (char *p = buf; p < buf + n;) {
        const struct inotify_event *e = (const struct inotify_event *)(void *)p;

        if (on_event(w, e, err) < 0)
            return -1;
        p += sizeof *e + e->len;
    }
    return 0;
}

/* Waits for a change and its end. 0 with the time of its begin; -1 and err: there is nothing to watch any more. */
static int wait_change(struct watch *w, int64_t *ret_begin_ms, struct err *err)
{
    int64_t begin = 0;

    for (;;) {
        int64_t longest = w->dirty ? begin + LONGEST_MS - clock_mono_ms() : 0;
        int got = poll(&(struct pollfd){.fd = w->fd, .events = POLLIN}, 1,
                       !w->dirty ? -1 : (int)MAX(MIN((int64_t)QUIET_MS, longest), (int64_t)0));

        if (got < 0 && errno != EINTR)
            return err_sys(err, "watch %s", w->root);
        if (got > 0 && read_events(w, err) < 0)
            return -1;
        if (w->root_gone)
            return err_set(err, NOT_FOUND, "%s is gone", w->root);
        if (w->dirty && !begin)
            begin = clock_mono_ms();
        if (w->dirty && (got == 0 || clock_mono_ms() - begin >= LONGEST_MS))
            break;
    }
    *ret_begin_ms = begin;
    return 0;
}

static void say_time(FILE *to)
{
    time_t t = time(NULL);
    struct tm tm;

    localtime_r(&t, &tm);
    fprintf(to, "%02d:%02d:%02d ", tm.tm_hour, tm.tm_min, tm.tm_sec);
}

static void again(struct cli_opts *o, const struct target *t, struct watch *w, const char **runtime, int64_t begin_ms)
{
    _auto_(freep) char *url = NULL;
    struct err err;

    if (guess_check(w->root, *runtime, (const char *const *)w->changed, w->changed_n, &err) < 0 ||
        deploy(o, t, &url, runtime, &err) < 0) {
        say_time(stderr);
        complain(EXIT_FAILURE, "%s; not deployed, the code before this goes on answering", err.msg);
    } else {
        say_time(stdout);
        printf("deployed in %lld ms (%s%s)\n", (long long)(clock_mono_ms() - begin_ms), w->changed_n ? w->changed[0] : t->path,
               w->changed_n > 1 ? ", ..." : "");
        fflush(stdout);
    }
}

static const char *split(struct arena *a, const char *path, const char **ret_name)
{
    const char *slash = strrchr(path, '/');

    *ret_name = slash ? slash + 1 : path;
    return !slash ? "." : slash == path ? "/" : arena_strndup(a, path, (size_t)(slash - path));
}

int deploy_watch(struct cli_opts *o, const struct target *t, const char *runtime)
{
    struct watch *w = xcalloc(1, sizeof *w);
    struct err err;
    int64_t begin_ms = 0;
    int rc;

    w->root = t->path;
    if (t->kind == TARGET_ZIP)
        w->root = split(o->arena, t->path, &w->only);
    w->fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
    rc = w->fd < 0 ? err_sys(&err, "inotify") : add_tree(w, w->root, &err);
    if (rc == 0) {
        printf("watching %s\n", t->path);
        fflush(stdout);
    }
    while (rc == 0 && (rc = wait_change(w, &begin_ms, &err)) == 0) {
        again(o, t, w, &runtime, begin_ms);
        while (w->changed_n)
            free(w->changed[--w->changed_n]);
        w->dirty = false;
    }
    while (w->folders_n)
        free(w->folders[--w->folders_n].path);
    while (w->changed_n)
        free(w->changed[--w->changed_n]);
    closep(&w->fd);
    free(w);
    return complain_err(&err);
}
