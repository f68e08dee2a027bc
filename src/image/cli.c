/* `tandem image ...`: the store from a command line. */
#include "image/image_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

static const char USAGE[] =
    "usage: tandem image COMMAND\n"
    "  import [--name NAME] [--cmd JSON] [--entrypoint JSON] [--env K=V]... [--workdir DIR]\n"
    "         [--user USER] [--stop-signal SIG] FILE...   OCI layout, docker save or root file system (tar)\n"
    "  pull [--username U --password-stdin] NAME...\n"
    "  ls [-q|--json]\n"
    "  inspect NAME\n"
    "  tag NAME NEW\n"
    "  rm NAME...\n"
    "  gc\n";

static int usage(const char *why)
{
    if (why)
        fprintf(stderr, "tandem image: %s\n", why);
    fputs(USAGE, why ? stderr : stdout);
    return why ? 2 : 0;
}

static int failed(const struct err *err)
{
    fprintf(stderr, "tandem image: %s\n", err->msg);
    return err->code == ERR_INVALID_ARGUMENT ? 2 : 1;
}

static bool show_progress(void *arg, const char *what, int64_t done, int64_t total)
{
    static int last = -1;
    int now = total > 0 ? (int)(done * 100 / total) : (int)(done >> 20);

    if (now != last) {
        if (total > 0)
            fprintf(stderr, "\r%-20.20s %3d %%", what, now > 100 ? 100 : now);
        else
            fprintf(stderr, "\r%-20.20s %d MiB", what, now);
        last = now;
    }
    return true;
}

static image_progress_fn *progress_wanted(void)
{
    return isatty(STDERR_FILENO) ? show_progress : NULL;
}

static void progress_end(void)
{
    if (isatty(STDERR_FILENO))
        fputs("\r\033[K", stderr);
}

/* ["a","b"] or words between blanks. */
static const char *const *words(struct arena *a, const char *text)
{
    struct err ignored = {0};
    const char **v;
    struct val *list = *text == '[' ? json_parse(a, text, strlen(text), &ignored) : NULL;
    char *rest = arena_strdup(a, text), *one;
    size_t n = 0;

    v = arena_array(a, const char *, strlen(text) + 2);
    if (list) {
        VAL_EACH(list, it)
            v[n++] = val_text(it, "");
        return v;
    }
    while ((one = strsep(&rest, " \t")))
        if (*one)
            v[n++] = one;
    return v;
}

struct cli {
    struct image_store *s;
    struct arena *a;
    int argc; /* without "image COMMAND" */
    char **argv;
};

static int do_import(struct cli *c)
{
    struct image_import_options o = {.progress = progress_wanted()};
    const char **env = arena_array(c->a, const char *, c->argc + 1);
    int i = 0, n_env = 0, rc = 0;

    for (; i < c->argc && c->argv[i][0] == '-'; i += 2) {
        const char *opt = c->argv[i], *value = i + 1 < c->argc ? c->argv[i + 1] : NULL;

        if (!value)
            return usage("an option without a value");
        if (streq(opt, "--name") || streq(opt, "-t"))
            o.name = value;
        else if (streq(opt, "--cmd"))
            o.cmd = words(c->a, value);
        else if (streq(opt, "--entrypoint"))
            o.entrypoint = words(c->a, value);
        else if (streq(opt, "--env") || streq(opt, "-e"))
            env[n_env++] = value;
        else if (streq(opt, "--workdir") || streq(opt, "-w"))
            o.workdir = value;
        else if (streq(opt, "--user") || streq(opt, "-u"))
            o.user = value;
        else if (streq(opt, "--stop-signal"))
            o.stop_signal = value;
        else
            return usage(arena_printf(c->a, "import has no option %s", opt));
    }
    if (i == c->argc)
        return usage("import: which file?");
    o.env = n_env ? env : NULL;
    for (; i < c->argc; i++) {
        struct err err = {0};
        struct image *img = image_import(c->s, c->argv[i], &o, &err);

        progress_end();
        if (!img) {
            rc = failed(&err);
            continue;
        }
        printf("%s\n", img->name);
        image_unref(img);
    }
    return rc;
}

static int do_pull(struct cli *c)
{
    struct image_pull_options o = {.progress = progress_wanted()};
    char *password = arena_alloc(c->a, 4096);
    int i = 0, rc = 0;

    for (; i < c->argc && c->argv[i][0] == '-'; i++) {
        if (streq(c->argv[i], "--username") && i + 1 < c->argc) {
            o.username = c->argv[++i];
        } else if (streq(c->argv[i], "--password-stdin")) {
            if (!fgets(password, 4096, stdin))
                return usage("no password on standard input");
            password[strcspn(password, "\r\n")] = 0;
            o.password = password;
        } else {
            return usage(arena_printf(c->a, "pull has no option %s", c->argv[i]));
        }
    }
    if (i == c->argc)
        return usage("pull: which image?");
    for (; i < c->argc; i++) {
        struct err err = {0};
        struct image *img = image_pull(c->s, c->argv[i], &o, &err);

        progress_end();
        if (!img) {
            rc = failed(&err);
            continue;
        }
        printf("%s\n", img->repo_digest);
        image_unref(img);
    }
    return rc;
}

static struct val *image_val(struct arena *a, const struct image *img)
{
    struct val *v = val_map(a), *list;
    const struct {
        const char *key;
        const char *const *v;
    } lists[] = {{"lowers", img->lowers}, {"entrypoint", img->config.entrypoint},
                 {"cmd", img->config.cmd}, {"env", img->config.env}, {"exposed", img->config.exposed}};

    val_put_str(a, v, "name", img->name);
    val_put_str(a, v, "id", img->id);
    val_put_str(a, v, "digest", img->digest);
    val_put_str(a, v, "created", img->created);
    val_put_int(a, v, "size", img->size);
    for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
        list = val_need_list(a, v, lists[i].key);
        for (const char *const *p = lists[i].v; *p; p++)
            val_push_str(a, list, *p);
    }
    val_put_str(a, v, "workdir", img->config.workdir);
    val_put_str(a, v, "user", img->config.user);
    val_put_str(a, v, "stopSignal", img->config.stop_signal);
    return v;
}

static void human(int64_t n, char ret[16])
{
    static const char unit[] = "BKMGT";
    double v = (double)n;
    int u = 0;

    while (v >= 1000 && u < 4)
        v /= 1000, u++;
    snprintf(ret, 16, u ? "%.1f%c%s" : "%.0f%c%s", v, unit[u], u ? "B" : "");
}

static int do_ls(struct cli *c)
{
    bool quiet = c->argc > 0 && (streq(c->argv[0], "-q") || streq(c->argv[0], "--quiet"));
    bool json = c->argc > 0 && streq(c->argv[0], "--json");
    struct image **list;
    struct err err = {0};
    size_t n, wide = 4;

    if (c->argc > (quiet || json))
        return usage("ls takes -q or --json");
    if (image_ls(c->s, &list, &n, &err) < 0)
        return failed(&err);
    if (json) {
        struct val *all = val_list(c->a);
        struct buf b = {0};

        for (size_t i = 0; i < n; i++)
            val_push(c->a, all, image_val(c->a, list[i]));
        json_write_pretty(&b, all);
        fputs(b.p, stdout);
        buf_done(&b);
    } else {
        for (size_t i = 0; i < n; i++)
            wide = MAX(wide, strlen(list[i]->name));
        if (!quiet)
            printf("%-*s  %-12s  %-20s  %s\n", (int)wide, "NAME", "ID", "CREATED", "SIZE");
        for (size_t i = 0; i < n; i++) {
            char size[16];

            human(list[i]->size, size);
            if (quiet)
                printf("%s\n", list[i]->name);
            else
                printf("%-*s  %-12.12s  %-20.20s  %s\n", (int)wide, list[i]->name, list[i]->id + 7,
                       list[i]->created, size);
        }
    }
    image_list_free(list, n);
    return 0;
}

static int do_inspect(struct cli *c)
{
    struct err err = {0};
    struct image *img;
    struct buf b = {0};

    if (c->argc != 1)
        return usage("inspect: which image?");
    img = image_resolve(c->s, c->argv[0], &err);
    if (!img)
        return failed(&err);
    json_write_pretty(&b, image_val(c->a, img));
    fputs(b.p, stdout);
    buf_done(&b);
    image_unref(img);
    return 0;
}

static int do_tag(struct cli *c)
{
    struct err err = {0};

    if (c->argc != 2)
        return usage("tag: NAME NEW");
    return image_tag(c->s, c->argv[0], c->argv[1], &err) < 0 ? failed(&err) : 0;
}

static int do_rm(struct cli *c)
{
    int rc = 0;

    if (c->argc == 0)
        return usage("rm: which image?");
    for (int i = 0; i < c->argc; i++) {
        struct err err = {0};

        if (image_rm(c->s, c->argv[i], &err) < 0)
            rc = failed(&err);
    }
    return rc;
}

static int do_gc(struct cli *c)
{
    struct err err = {0};
    int64_t freed = 0;
    char text[16];

    if (image_gc(c->s, &freed, &err) < 0)
        return failed(&err);
    human(freed, text);
    printf("freed %s\n", text);
    return 0;
}

int image_cli(int argc, char **argv, const char *state_dir)
{
    static const struct {
        const char *name;
        int (*run)(struct cli *c);
    } commands[] = {{"import", do_import}, {"pull", do_pull}, {"ls", do_ls},   {"list", do_ls},
                    {"inspect", do_inspect}, {"tag", do_tag},  {"rm", do_rm}, {"gc", do_gc}};
    _auto_(arena_freep) struct arena *a = arena_new();
    _auto_(image_store_closep) struct image_store *s = NULL;
    struct err err = {0};

    if (argc < 2)
        return usage("which command?");
    if (streq(argv[1], "help") || streq(argv[1], "--help") || streq(argv[1], "-h"))
        return usage(NULL);
    for (size_t i = 0; i < ARRAY_LEN(commands); i++) {
        struct cli c = {.a = a, .argc = argc - 2, .argv = argv + 2};

        if (!streq(argv[1], commands[i].name))
            continue;
        s = image_store_open(arena_printf(a, "%s/images", state_dir),
                             arena_printf(a, "%s/registries.json", state_dir), &err);
        if (!s)
            return failed(&err);
        c.s = s;
        return commands[i].run(&c);
    }
    return usage(arena_printf(a, "no command %s", argv[1]));
}
