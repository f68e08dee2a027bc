/* tandem debug: one more instance of a function, under a debugger, as long as this command runs. The gateway opens a port of the
 * loopback (gateway/debug.c); what speaks DAP (VS Code) or to Node's inspector connects to it.
 *
 * Python's debugger is debugpy, which is no part of tandem: STATE/debug/RUNTIME/ is used when it is there, else pip of that same
 * Python fetches it once. Node brings its own. */
#include "cli/cli.h"

#include "codec/json.h"
#include "env/fs.h"

#include <errno.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static int run(const char *const *argv, struct err *err)
{
    int status = 0, rc;
    pid_t pid;

    rc = posix_spawnp(&pid, argv[0], NULL, NULL, (char **)(uintptr_t)argv, environ);
    if (rc) {
        errno = rc;
        return err_sys(err, "start %s", argv[0]);
    }
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    return status ? err_set(err, UNAVAILABLE, "%s failed", argv[0]) : 0;
}

/* Into a folder beside, which takes its place when it is whole. */
static int fetch_debugpy(const struct cli_opts *o, struct arena *a, const char *runtime, struct err *err)
{
    const char *dir = arena_printf(a, "%s/debug/%s", o->state, runtime), *part = arena_printf(a, "%s.part", dir);
    const char *const pip[] = {runtime, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", part, "debugpy", NULL};
    const char *const rm[] = {"rm", "-rf", part, NULL};

    if (access(arena_printf(a, "%s/debugpy", dir), R_OK) == 0)
        return 0;
    if (mkdir(arena_printf(a, "%s/debug", o->state), 0755) < 0 && errno != EEXIST)
        return err_sys(err, "make %s/debug", o->state);
    umask(022); /* the function's user is to read it */
    fprintf(stderr, "fetching debugpy for %s into %s\n", runtime, dir);
    if (run(rm, err) < 0 || run(pip, err) < 0)
        return err_wrap(err, "debugpy could not be fetched; install it yourself: %s -m pip install --target %s debugpy", runtime, dir);
    if (rename(part, dir) < 0)
        return err_sys(err, "make %s", dir);
    return 0;
}

struct session {
    const struct cli_opts *o;
    char line[4096];
    size_t n;
    int rc;
    bool told;
};

static void show(struct session *s, struct arena *a, const struct val *v)
{
    const char *runtime = val_str_at(v, "runtime", ""), *host = val_str_at(v, "host", ""), *token = val_str_at(v, "token", "");
    int port = (int)val_int_at(v, "port", 0);
    bool node = str_starts(runtime, "nodejs");
    struct val *launch = val_map(a), *c = val_map(a), *map = val_map(a);
    struct buf b = {0};

    val_put_str(a, launch, "version", "0.2.0");
    val_put_str(a, c, "name", arena_printf(a, "tandem: %s", s->o->args[0]));
    val_put_str(a, c, "type", node ? "node" : "debugpy");
    val_put_str(a, c, "request", "attach");
    if (node) {
        val_put_str(a, c, "address", host);
        val_put_int(a, c, "port", port);
        val_put_str(a, c, "localRoot", "${workspaceFolder}");
        val_put_str(a, c, "remoteRoot", "/var/task");
    } else {
        struct val *at = val_need_map(a, c, "connect");

        val_put_str(a, at, "host", host);
        val_put_int(a, at, "port", port);
        val_put_str(a, map, "localRoot", "${workspaceFolder}");
        val_put_str(a, map, "remoteRoot", "/var/task");
        val_push(a, val_need_list(a, c, "pathMappings"), map);
    }
    val_push(a, val_need_list(a, launch, "configurations"), c);
    if (s->o->json) {
        struct val *all = val_copy(a, v);

        val_put(a, all, "launch", launch);
        printf("%s\n", json_text(a, all, NULL));
    } else {
        json_write_pretty(&b, launch);
        printf("%s is debugged at %s:%d (%s). Calls that stop there, without a time limit: `tandem invoke %s --debug`, and any\n"
               "request with the header   x-tandem-debug: %s\nAll others are answered as always. Ctrl-C ends it.\n\nVS Code, .vscode/launch.json:\n%s\n",
               s->o->args[0], host, port, node ? "Node's inspector; chrome://inspect works, too" : "debugpy", s->o->args[0], token, b.p);
        buf_done(&b);
    }
    fflush(stdout);
}

static bool on_piece(void *arg, const char *p, size_t n)
{
    struct session *s = arg;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err ignored;
    struct val *v;
    char *end;

    n = MIN(n, sizeof s->line - 1 - s->n);
    memcpy(s->line + s->n, p, n);
    s->n += n;
    s->line[s->n] = 0;
    while ((end = memchr(s->line, '\n', s->n))) {
        v = json_parse(a, s->line, (size_t)(end - s->line), &ignored);
        s->n -= (size_t)(end + 1 - s->line);
        memmove(s->line, end + 1, s->n + 1);
        if (val_str_at(v, "error", NULL)) {
            s->rc = complain(EXIT_FAILURE, "%s", val_str_at(v, "error", ""));
            return false;
        }
        s->told = true;
        show(s, a, v);
    }
    return true;
}

int cmd_debug(struct cli_opts *o, int argc, char **argv)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct session s = {.o = o};
    const char *ns = o->namespace_ ? o->namespace_ : "default", *sudo = getenv("SUDO_UID"), *runtime;
    unsigned uid = sudo && !getuid() ? (unsigned)strtoul(sudo, NULL, 10) : getuid(); /* whose editor will connect */
    struct val *f;
    struct err err;

    (void)argc, (void)argv;
    if (o->args_n != 1 || !function_name_ok(o->args[0]))
        return complain(EXIT_USAGE, "usage: tandem debug NAME [--port N] [--json]");
    f = api_request(o, a, "GET", arena_printf(a, "/apis/tandem.dev/v1/namespaces/%s/functions/%s", ns, o->args[0]), NULL, &err);
    if (!f)
        return complain_err(&err);
    runtime = val_str_at(f, "spec.runtime", "python3.11");
    if (str_starts(runtime, "python3.") && strlen(runtime) <= 10 && strspn(runtime + 8, "0123456789") == strlen(runtime + 8) &&
        str_empty(val_str_at(f, "spec.image", NULL)) && val_is_null(val_at(f, "spec.http")) && fetch_debugpy(o, a, runtime, &err) < 0)
        return complain_err(&err);
    if (socket_stream(o, "gateway", arena_printf(a, "/debug/%s/%s?port=%d&uid=%u", ns, o->args[0], o->port, uid), on_piece, &s, &err) < 0)
        return complain_err(&err);
    return s.rc ? s.rc : complain(EXIT_FAILURE, s.told ? "the gateway has ended it" : "the gateway gave no answer");
}
