#include "cli/guess.h"

#include "codec/json.h"
#include "codec/val.h"
#include "env/fs.h"
#include "function/code.h"
#include "function/function.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

enum { SOURCE_MAX = 4 << 20, SAID_MAX = 4096, FILES_MAX = 64, CHECK_NODE_MAX = 8 };

static const char *const PY[] = {".py", NULL};
static const char *const JS[] = {".mjs", ".js", ".cjs", NULL};

static bool is_file(struct arena *a, const char *folder, const char *name)
{
    struct stat st;

    return stat(arena_printf(a, "%s/%s", folder, name), &st) == 0 && S_ISREG(st.st_mode);
}

/* STEM with the first of these endings that is there; NULL: none. */
static const char *with_ending(struct arena *a, const char *folder, const char *stem, const char *const *endings)
{
    for (; *endings; endings++) {
        const char *name = arena_printf(a, "%s%s", stem, *endings);

        if (is_file(a, folder, name))
            return name;
    }
    return NULL;
}

static bool is_word(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '$';
}

/* Does the text speak of this name at all, as a word? */
static bool mentions(const char *text, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = text; (p = strstr(p, word)); p++)
        if ((p == text || !is_word(p[-1])) && !is_word(p[n]))
            return true;
    return false;
}

/* The function of a file that is to be called: the first of these names that it has. NULL and err: none. */
static const char *function_of(struct arena *a, const char *folder, const char *file, const char *first, const char *second,
                               struct err *err)
{
    _auto_(freep) char *text = NULL;
    size_t n;

    text = fs_read(arena_printf(a, "%s/%s", folder, file), SOURCE_MAX, &n, err);
    if (!text)
        return NULL;
    if (mentions(text, first))
        return first;
    if (second && mentions(text, second))
        return second;
    err_set(err, INVALID_ARGUMENT, "%s has no function %s; name the one to call: --handler FILE.FUNCTION", file, first);
    return NULL;
}

/* "src/index.mjs" -> "src/index" */
static const char *stem_of(struct arena *a, const char *file)
{
    const char *dot = strrchr(file, '.');

    return dot ? arena_strndup(a, file, (size_t)(dot - file)) : file;
}

static bool ends_in(const char *name, const char *const *endings)
{
    for (; *endings; endings++)
        if (str_ends(name, *endings))
            return true;
    return false;
}

/* The file of Node's that the folder is about: what package.json calls main, else by its name. */
static const char *node_file(struct arena *a, const char *folder)
{
    static const char *const stems[] = {"index", "app", "handler"};
    _auto_(freep) char *text = NULL;
    const char *file;
    struct err ignored;
    size_t n;

    text = fs_read(arena_printf(a, "%s/package.json", folder), 1 << 20, &n, &ignored);
    if (text) {
        struct val *v = json_parse(a, text, n, &ignored);
        const char *main = val_str_at(v, "main", "");

        while (str_starts(main, "./"))
            main += 2;
        if (*main && main[0] != '/' && !strstr(main, "..")) {
            if (ends_in(main, JS) && is_file(a, folder, main))
                return arena_strdup(a, main);
            file = with_ending(a, folder, main, JS);
            if (file)
                return file;
        }
    }
    for (size_t i = 0; i < ARRAY_LEN(stems); i++) {
        file = with_ending(a, folder, stems[i], JS);
        if (file)
            return file;
    }
    return NULL;
}

static const char *python_file(struct arena *a, const char *folder)
{
    static const char *const stems[] = {"lambda_function", "handler", "app", "main", "index"};

    for (size_t i = 0; i < ARRAY_LEN(stems); i++) {
        const char *file = with_ending(a, folder, stems[i], PY);

        if (file)
            return file;
    }
    return NULL;
}

/* The first of a language's runtimes that this machine has; the first of all when it has none (the gateway says why). */
static const char *first_here(const char *const *runtimes)
{
    struct err ignored;

    for (const char *const *r = runtimes; *r; r++)
        if (function_runtime_check(*r, &ignored) == 0)
            return *r;
    return runtimes[0];
}

static const char *python_runtime(void)
{
    return first_here((const char *const[]){"python3.11", "python3.12", "python3.13", "python3.10", NULL});
}

static const char *node_runtime(void)
{
    return first_here((const char *const[]){"nodejs20.x", "nodejs22.x", "nodejs18.x", NULL});
}

const char *guess_file(struct arena *a, const char *folder, const struct guess *g)
{
    const char *dot = strrchr(g->handler, '.');
    char *stem = arena_strndup(a, g->handler, dot ? (size_t)(dot - g->handler) : strlen(g->handler));

    if (streq(g->runtime, "wasm"))
        return is_file(a, folder, g->handler) ? g->handler : NULL;
    if (str_starts(g->runtime, "nodejs"))
        return with_ending(a, folder, stem, JS);
    if (!str_starts(g->runtime, "python"))
        return NULL;
    for (char *p = stem; *p; p++) /* a module of a package is written either way */
        if (*p == '.')
            *p = '/';
    return with_ending(a, folder, stem, PY);
}

static int known_handler(struct arena *a, const char *folder, const char *runtime, struct guess *g, struct err *err)
{
    if (runtime ? streq(runtime, "wasm") : str_ends(g->handler, ".wasm") || str_ends(g->handler, ".wat")) {
        g->runtime = "wasm";
        return is_file(a, folder, g->handler) ? 0 : err_set(err, INVALID_ARGUMENT, "there is no module %s in %s", g->handler, folder);
    }
    if (!strchr(g->handler, '.') || g->handler[0] == '/' || strstr(g->handler, ".."))
        return err_set(err, INVALID_ARGUMENT, "--handler wants FILE.FUNCTION, for example app.handler, not '%s'", g->handler);
    if (runtime && !str_starts(runtime, "python") && !str_starts(runtime, "nodejs"))
        return 0; /* a bootstrap reads it as it likes */
    if (!runtime) {
        g->runtime = python_runtime();
        if (!guess_file(a, folder, g))
            g->runtime = node_runtime();
    }
    if (!guess_file(a, folder, g))
        return err_set(err, INVALID_ARGUMENT, "there is no file for the handler %s in %s", g->handler, folder);
    return 0;
}

/* main.wasm, main.wat, or the only module of the top folder; NULL: none, or several without a main. */
static const char *wasm_file(struct arena *a, const char *folder)
{
    const char *only = NULL;
    struct dirent *e;
    DIR *dir;

    if (is_file(a, folder, "main.wasm"))
        return "main.wasm";
    if (is_file(a, folder, "main.wat"))
        return "main.wat";
    dir = opendir(folder);
    while (dir && (e = readdir(dir)))
        if ((str_ends(e->d_name, ".wasm") || str_ends(e->d_name, ".wat")) && e->d_name[0] != '.') {
            only = only ? "" : arena_strdup(a, e->d_name);
            if (!*only)
                break;
        }
    if (dir)
        closedir(dir);
    return str_empty(only) ? NULL : only;
}

static bool has(const char *p, size_t n, const char *word)
{
    return n && memmem(p, n, word, strlen(word));
}

/* A component's binary form is sections behind eight bytes: an id, a length (LEB128) and so many bytes; exports have 11. */
static bool exports_handler(const char *p, size_t n)
{
    size_t at = 8;

    while (at < n) {
        unsigned char id = (unsigned char)p[at++];
        uint64_t len = 0;

        for (int shift = 0; at < n && shift < 35; shift += 7) {
            len |= (uint64_t)((unsigned char)p[at] & 0x7f) << shift;
            if (!(p[at++] & 0x80))
                break;
        }
        if (len > n - at)
            return false;
        if (id == 11 && has(p + at, len, "wasi:http/incoming-handler@0.2."))
            return true;
        at += len;
    }
    return false;
}

bool guess_wasm_http(struct arena *a, const char *folder, const char *file)
{
    struct err err;
    size_t n;
    _auto_(freep) char *p = fs_read(arena_printf(a, "%s/%s", folder, file), CODE_ZIP_MAX * 5, &n, &err);

    if (!p)
        return false;
    if (n >= 8 && memcmp(p, "\0asm", 4) == 0)
        return p[6] == 1 && exports_handler(p, n);
    return has(p, n, "(export \"wasi:http/incoming-handler@0.2.");
}

static int guess_bootstrap(struct arena *a, const char *folder, struct guess *g, struct err *err)
{
    struct stat st;

    if (stat(arena_printf(a, "%s/bootstrap", folder), &st) < 0 || !(st.st_mode & 0111))
        return err_set(err, INVALID_ARGUMENT, "%s/bootstrap cannot be executed; chmod +x it", folder);
    g->handler = "bootstrap";
    return 0;
}

int guess_folder(struct arena *a, const char *folder, const char *handler, const char *runtime, struct guess *ret,
                 struct err *err)
{
    struct guess g = {.handler = handler, .runtime = runtime};
    const char *py, *js, *wasm, *function;

    if (handler) {
        if (known_handler(a, folder, runtime, &g, err) < 0)
            return -1;
        *ret = g;
        return 0;
    }
    if (runtime ? str_starts(runtime, "provided") : is_file(a, folder, "bootstrap")) {
        g.runtime = runtime ? runtime : "provided.al2023";
        if (guess_bootstrap(a, folder, &g, err) < 0)
            return -1;
        *ret = g;
        return 0;
    }
    wasm = !runtime || streq(runtime, "wasm") ? wasm_file(a, folder) : NULL;
    if (runtime && streq(runtime, "wasm") && !wasm)
        return err_set(err, INVALID_ARGUMENT, "%s holds no main.wasm and not just one module; say which it is: --handler FILE.wasm", folder);
    py = runtime && !str_starts(runtime, "python") ? NULL : python_file(a, folder);
    js = runtime && !str_starts(runtime, "nodejs") ? NULL : node_file(a, folder);
    if (wasm && !py && !js) {
        *ret = (struct guess){wasm, "wasm"};
        return 0;
    }
    if (py && js)
        return err_set(err, INVALID_ARGUMENT, "%s holds %s and %s; say which it is: --handler FILE.FUNCTION", folder, py, js);
    if (!py && !js)
        return err_set(err, INVALID_ARGUMENT, "%s has no handler: lambda_function.py, handler.py, app.py, main.py or index.py, "
                       "index.mjs, index.js or package.json's main, a module main.wasm or main.wat, or an executable bootstrap; else --handler", folder);
    function = py ? function_of(a, folder, py, streq(py, "lambda_function.py") ? "lambda_handler" : "handler",
                                streq(py, "lambda_function.py") ? "handler" : "lambda_handler", err)
                  : function_of(a, folder, js, "handler", NULL, err);
    if (!function)
        return -1;
    g.handler = arena_printf(a, "%s.%s", stem_of(a, py ? py : js), function);
    if (!runtime)
        g.runtime = py ? python_runtime() : node_runtime();
    *ret = g;
    return 0;
}

/* ---- can it be read? ---- */

static const char PYTHON_CHECK[] = "import sys\n"
                                   "for f in sys.argv[1:]:\n"
                                   "    try:\n"
                                   "        compile(open(f, 'rb').read(), f, 'exec', dont_inherit=True)\n"
                                   "    except SyntaxError as e:\n"
                                   "        sys.exit(f'{f}:{e.lineno}: {type(e).__name__}: {e.msg}')\n"
                                   "    except (ValueError, OSError):\n"
                                   "        pass\n";

static const char *program(struct arena *a, const char *name)
{
    static const char *const dirs[] = {"/usr/local/bin", "/usr/bin", "/bin"};

    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        const char *path = arena_printf(a, "%s/%s", dirs[i], name);

        if (access(path, X_OK) == 0)
            return path;
    }
    return NULL;
}

/* Runs a program with its standard error read into said; its exit code, or -1: it could not be run. */
static int run(char *const *argv, char said[SAID_MAX])
{
    static char *const env[] = {"PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C.UTF-8", "NO_COLOR=1", NULL};
    posix_spawn_file_actions_t fa;
    int ends[2], status = -1;
    size_t n = 0;
    char piece[1024];
    ssize_t got;
    pid_t pid;

    if (pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&fa, 1, "/dev/null", O_WRONLY, 0);
    posix_spawn_file_actions_adddup2(&fa, ends[1], 2);
    if (posix_spawn(&pid, argv[0], &fa, NULL, argv, env) != 0)
        pid = -1;
    posix_spawn_file_actions_destroy(&fa);
    close(ends[1]);
    while (pid > 0 && ((got = read(ends[0], piece, sizeof piece)) > 0 || (got < 0 && errno == EINTR)))
        for (ssize_t i = 0; i < got; i++) /* read to its end, so that nobody waits for us */
            if (n < SAID_MAX - 1)
                said[n++] = piece[i];
    close(ends[0]);
    said[n] = 0;
    if (pid < 0 || waitpid(pid, &status, 0) < 0 || !WIFEXITED(status))
        return -1;
    return WEXITSTATUS(status);
}

/* What Node says of a file it cannot read: "/path:3", the line, a mark, "SyntaxError: ...". Put on one line. */
static const char *node_line(struct arena *a, const char *said)
{
    const char *what = strstr(said, "Error:");

    while (what && what > said && what[-1] != '\n')
        what--;
    if (!what)
        return arena_strndup(a, said, strcspn(said, "\n"));
    return arena_printf(a, "%.*s: %.*s", (int)strcspn(said, "\n"), said, (int)strcspn(what, "\n"), what);
}

int guess_check(const char *folder, const char *runtime, const char *const *files, size_t n, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    bool python = str_starts(runtime, "python"), node = str_starts(runtime, "nodejs");
    char *argv[FILES_MAX + 8] = {NULL}, said[SAID_MAX];
    const char *with;
    size_t args = 0, prefix = strlen(folder) + 1, checked = 0;

    with = python ? program(a, runtime) : node ? program(a, "node") : NULL;
    if (!with && python)
        with = program(a, "python3");
    if (!with)
        return 0;
    argv[args++] = (char *)(uintptr_t)with;
    if (python) {
        argv[args++] = "-ISc"; /* nothing of the folder or of the user is imported */
        argv[args++] = (char *)(uintptr_t)PYTHON_CHECK;
    } else {
        argv[args++] = "--check";
    }
    for (size_t i = 0; i < n; i++) {
        if (!ends_in(files[i], python ? PY : JS) || !is_file(a, folder, files[i]))
            continue;
        if (checked == (python ? FILES_MAX : CHECK_NODE_MAX))
            break;
        checked++;
        argv[args] = (char *)(uintptr_t)arena_printf(a, "%s/%s", folder, files[i]);
        if (python)
            args++;
        else if (run(argv, said) == 1 && strstr(said, "SyntaxError"))
            return err_set(err, INVALID_ARGUMENT, "%s", node_line(a, said) + (str_starts(said, folder) ? prefix : 0));
    }
    if (python && checked && run(argv, said) == 1 && strstr(said, "Error: "))
        return err_set(err, INVALID_ARGUMENT, "%.*s", (int)strcspn(said + (str_starts(said, folder) ? prefix : 0), "\n"),
                       said + (str_starts(said, folder) ? prefix : 0));
    return 0;
}
