/* tandem deploy: a folder, a zip or an image becomes a Function, or the new code of one that is there; with --watch again
 * whenever the files change. What is not said is guessed (guess.h) or stays as it is. */
#include "cli/deploy.h"

#include "env/fs.h"
#include "function/code.h"
#include "image/image.h"

#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { ACTIVE_MS = 15000, IMAGE_MS = 600000 };

/* ---- what runs ---- */

/* The zip of the source, kept where the gateway finds it, and what its files are. */
static int put_code(const struct cli_opts *o, struct arena *a, const struct target *t, const struct val *now, struct val *spec,
                    struct err *err)
{
    const char *handler = o->handler, *runtime = o->runtime, *file, *folder = t->path;
    bool was_image = now && !str_empty(val_str_at(now, "spec.image", NULL)), was_http = !val_is_null(val_at(now, "spec.http"));
    bool was_wasm = was_http && streq(val_str_at(now, "spec.runtime", ""), "wasm") && !val_len(val_at(now, "spec.http.command"));
    bool http = o->http || (was_http && !was_wasm && !was_image && !handler && !runtime), component = false;
    _auto_(freep) char *unpacked = NULL;
    _auto_(freep) char *zip = NULL;
    char sha256[CODE_HEX];
    struct guess g;
    size_t n;

    if (t->kind == TARGET_ZIP) {
        bool module = str_ends(t->path, ".wasm") || str_ends(t->path, ".wat");

        if (module ? code_zip_file(t->path, &zip, &n, err) < 0 : !(zip = fs_read(t->path, CODE_ZIP_MAX, &n, err)))
            return err_wrap(err, "%s", t->path);
        if (code_put(o->state, zip, n, sha256, err) < 0)
            return err_wrap(err, "%s", t->path);
        folder = unpacked = code_folder(o->state, sha256, err);
        if (!folder)
            return -1;
    }
    if (!handler && !runtime && now) { /* what was said at an earlier time counts while its file is there */
        g = (struct guess){val_str_at(now, "spec.handler", ""), val_str_at(now, "spec.runtime", "")};
        if (guess_file(a, folder, &g)) {
            handler = g.handler;
            runtime = g.runtime;
        }
    }
    if (!http && guess_folder(a, folder, handler, runtime, &g, err) < 0)
        return -1;
    if (!http && (file = guess_file(a, folder, &g)) && guess_check(folder, g.runtime, &file, 1, err) < 0)
        return -1;
    component = !http && streq(g.runtime, "wasm") && guess_wasm_http(a, folder, g.handler);
    if (t->kind == TARGET_FOLDER && (code_zip_folder(t->path, &zip, &n, err) < 0 || code_put(o->state, zip, n, sha256, err) < 0))
        return -1;
    if (!http) {
        val_put_str(a, spec, "runtime", arena_strdup(a, g.runtime));
        val_put_str(a, spec, "handler", arena_strdup(a, g.handler));
    }
    val_put_str(a, spec, "codeSha256", arena_strdup(a, sha256));
    val_put_int(a, spec, "codeSize", (int64_t)n);
    if (component) /* it serves HTTP itself */
        val_put(a, val_need_map(a, spec, "http"), "command", val_null(a));
    else if (was_http && !http)
        val_put(a, spec, "http", val_null(a));
    if (was_image) {
        val_put_str(a, spec, "packageType", "Zip");
        val_put(a, spec, "image", val_null(a));
        val_put(a, spec, "imageDigest", val_null(a));
        val_put(a, spec, "imageConfig", val_null(a));
    }
    return 0;
}

/* An image of this machine's store is named by its digest, too: so a tag that moved is new code. One that is not here
 * is pulled by the gateway. */
static int put_image(const struct cli_opts *o, struct arena *a, const struct val *now, struct val *spec, struct err *err)
{
    _auto_(freep) char *dir = xasprintf("%s/images", o->state);
    _auto_(freep) char *registries = xasprintf("%s/registries.json", o->state);
    _auto_(image_store_closep) struct image_store *store = image_store_open(dir, registries, err);
    struct err ignored;

    if (!store)
        return -1;
    _auto_(image_unrefp) const struct image *img = image_resolve(store, o->image, &ignored);

    val_put_str(a, spec, "packageType", "Image");
    val_put_str(a, spec, "image", o->image);
    if (img)
        val_put_str(a, spec, "imageDigest", arena_strdup(a, img->digest));
    else if (now)
        val_put(a, spec, "imageDigest", val_null(a));
    if (now)
        for (size_t i = 0; i < 4; i++)
            val_put(a, spec, (const char *const[]){"runtime", "handler", "codeSha256", "codeSize"}[i], val_null(a));
    return 0;
}

/* ---- how it runs ---- */

/* NAME=VALUE sets one, NAME- takes one away. */
static int put_env(const struct cli_opts *o, struct arena *a, bool is_new, struct val *spec, struct err *err)
{
    for (int i = 0; i < o->env_n; i++) {
        const char *word = o->env[i], *eq = strchr(word, '=');
        size_t n = eq ? (size_t)(eq - word) : strlen(word);
        struct val *env = val_need_map(a, spec, "environment");

        if (!n || (!eq && (n < 2 || word[n - 1] != '-')))
            return err_set(err, INVALID_ARGUMENT, "--env wants NAME=VALUE, or NAME- to take one away, not '%s'", word);
        if (eq)
            val_put_str(a, env, arena_strndup(a, word, n), eq + 1);
        else if (!is_new)
            val_put(a, env, arena_strndup(a, word, n - 1), val_null(a));
    }
    return 0;
}

static int put_options(const struct cli_opts *o, struct arena *a, bool is_new, struct val *spec, struct err *err)
{
    const char *url = o->url ? o->url : is_new ? "none" : NULL; /* one that is there stays as safe as it is */

    if (o->memory_mb > 0)
        val_put_int(a, spec, "memoryMB", o->memory_mb);
    if (o->timeout_s > 0)
        val_put_int(a, spec, "timeoutSeconds", o->timeout_s);
    if (url && !streq(url, "none") && !streq(url, "iam") && !streq(url, "off"))
        return err_set(err, INVALID_ARGUMENT, "--url wants none (open to all), iam (signed requests) or off, not '%s'", url);
    if (url && streq(url, "off")) {
        if (!is_new)
            val_put(a, spec, "url", val_null(a));
    } else if (url) {
        struct val *v = val_need_map(a, spec, "url");

        val_put_bool(a, v, "enabled", true);
        val_put_str(a, v, "authType", streq(url, "iam") ? "AWS_IAM" : "NONE");
    }
    if (o->http) {
        struct val *command = val_list(a);

        for (size_t i = 0; *o->http && i < 3; i++)
            val_push(a, command, val_str(a, (const char *const[]){"/bin/sh", "-c", arena_printf(a, "exec %s", o->http)}[i]));
        val_put(a, val_need_map(a, spec, "http"), "command", *o->http ? command : val_null(a));
    }
    return put_env(o, a, is_new, spec, err);
}

/* ---- until it answers ---- */

/* The gateway tells what generation it serves; a new call meets that code then. */
static int wait_served(const struct cli_opts *o, struct arena *a, const struct target *t, const char *path, int64_t generation,
                       struct err *err)
{
    int64_t left_us = (int64_t)(t->kind == TARGET_IMAGE ? IMAGE_MS : ACTIVE_MS) * 1000, nap_us = 1000;

    for (; left_us > 0; left_us -= nap_us, nap_us = MIN(nap_us * 2, t->kind == TARGET_IMAGE ? 200000 : 10000)) {
        _auto_(arena_freep) struct arena *turn = arena_new();
        struct val *v = api_request(o, turn, "GET", path, NULL, err);
        const char *state = val_str_at(v, "status.state", "");

        if (!v)
            return -1;
        if (val_int_at(v, "status.observedGeneration", 0) >= generation) {
            if (streq(state, "Active"))
                return 0;
            if (streq(state, "Failed"))
                return err_set(err, UNAVAILABLE, "%s: %s", t->name, val_str_at(v, "status.stateReason", "failed"));
        }
        nanosleep(&(struct timespec){0, nap_us * 1000}, NULL);
    }
    return err_set(err, TIMEOUT, "%s does not become active; 'kubectl describe function %s' may say why", t->name, t->name);
}

int deploy(const struct cli_opts *o, const struct target *t, char **ret_url, const char **ret_runtime, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const char *base = arena_printf(a, "/apis/tandem.dev/v1/namespaces/%s/functions", o->namespace_ ? o->namespace_ : "default");
    const char *path = arena_printf(a, "%s/%s", base, t->name), *runtime;
    struct val *now = api_request(o, a, "GET", path, NULL, err), *v = val_map(a), *spec, *made;

    if (!now && err->code != ERR_NOT_FOUND)
        return -1;
    spec = val_need_map(a, v, "spec");
    if ((t->kind == TARGET_IMAGE ? put_image(o, a, now, spec, err) : put_code(o, a, t, now, spec, err)) < 0 ||
        put_options(o, a, !now, spec, err) < 0)
        return -1;
    if (!now) {
        val_put_str(a, v, "apiVersion", "tandem.dev/v1");
        val_put_str(a, v, "kind", "Function");
        val_put_str(a, val_need_map(a, v, "metadata"), "name", t->name);
    }
    made = api_request(o, a, now ? "PATCH" : "POST", now ? path : base, v, err);
    if (!made || wait_served(o, a, t, path, val_int_at(made, "metadata.generation", 1), err) < 0)
        return -1;
    runtime = val_str_at(made, "spec.runtime", "");
    *ret_runtime = str_starts(runtime, "python") || str_starts(runtime, "nodejs") ? arena_strdup(o->arena, runtime) : "";
    *ret_url = !val_is_null(val_at(made, "spec.url")) && val_bool_at(made, "spec.url.enabled", true)
                   ? xasprintf("http://127.0.0.1:%d/function/%s/", o->gateway_port, t->name)
                   : NULL;
    return 0;
}

/* ---- the command ---- */

static int usage(void)
{
    return complain(EXIT_USAGE, "usage: tandem deploy FOLDER|FILE.zip|FILE.wasm [NAME] [options], or --image IMAGE NAME (tandem deploy --help says more)");
}

/* "…/shop/" and "…/shop.zip" -> "shop" */
static const char *name_of(struct arena *a, const char *path)
{
    _auto_(freep) char *full = realpath(path, NULL);
    const char *last = strrchr(full ? full : path, '/');
    char *name = arena_strdup(a, last ? last + 1 : path);

    if (str_ends(name, ".zip") || str_ends(name, ".wat"))
        name[strlen(name) - 4] = 0;
    if (str_ends(name, ".wasm"))
        name[strlen(name) - 5] = 0;
    return name;
}

static int read_target(struct cli_opts *o, struct target *t)
{
    struct stat st;

    if (o->http && (o->handler || o->runtime))
        return complain(EXIT_USAGE, "a program that serves HTTP has no handler: --http goes without --handler and --runtime");
    if (o->http && !*o->http && !o->image)
        return complain(EXIT_USAGE, "--http wants the command that starts the server, for example 'python3 server.py'");
    if (o->image) {
        *t = (struct target){.kind = TARGET_IMAGE, .name = o->args[0]};
        if (o->args_n != 1)
            return usage();
        if (o->handler || o->runtime || o->watch)
            return complain(EXIT_USAGE, "an image says itself what runs: --image goes without --handler, --runtime and --watch");
    } else {
        char *path;

        if (o->args_n < 1 || o->args_n > 2)
            return usage();
        path = arena_strdup(o->arena, o->args[0]);
        while (strlen(path) > 1 && str_ends(path, "/"))
            path[strlen(path) - 1] = 0;
        if (stat(path, &st) < 0)
            return complain(EXIT_USAGE, "%s: there is no such folder, zip or module", path);
        *t = (struct target){.kind = S_ISDIR(st.st_mode) ? TARGET_FOLDER : TARGET_ZIP, .path = path};
        t->name = o->args_n == 2 ? o->args[1] : name_of(o->arena, path);
        if (t->kind == TARGET_ZIP && !S_ISREG(st.st_mode))
            return complain(EXIT_USAGE, "%s is no folder and no zip or module", path);
    }
    if (!function_name_ok(t->name))
        return complain(EXIT_USAGE, "'%s' is no name for a function (lower-case letters, digits and '-', at most 63); give one: "
                        "tandem deploy FOLDER NAME", t->name);
    return 0;
}

int cmd_deploy(struct cli_opts *o, int argc, char **argv)
{
    _auto_(freep) char *url = NULL;
    struct target t;
    const char *runtime = "";
    struct err err;
    int rc = read_target(o, &t);

    (void)argc, (void)argv;
    if (rc)
        return rc;
    if (deploy(o, &t, &url, &runtime, &err) == 0) {
        if (url)
            printf("%s\n", url);
        else
            printf("function %s is deployed, without a URL: tandem invoke %s\n", t.name, t.name);
        fflush(stdout);
    } else if (!o->watch || err.code != ERR_INVALID_ARGUMENT) {
        complain(EXIT_FAILURE, "%s", err.msg);
        return err.code == ERR_INVALID_ARGUMENT ? EXIT_USAGE : EXIT_FAILURE;
    } else {
        complain(EXIT_FAILURE, "%s", err.msg); /* it may be mended while we look */
    }
    return o->watch ? deploy_watch(o, &t, runtime) : EXIT_SUCCESS;
}
