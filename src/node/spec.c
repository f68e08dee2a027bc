/* From a container of a pod to what the shim starts. */
#include "codec/quantity.h"
#include "env/fs.h"
#include "node/node_int.h"
#include "sandbox/caps.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

struct build {
    struct ctr *c;
    struct arena *a;
    struct sandbox_spec s;
    const struct val *ctr, *pod, *csc, *psc; /* specs, security contexts */
    const struct val *vars;
    struct sandbox_mount *mounts;
    uint32_t mounts_n;
};

enum { MOUNTS_MAX = 512 };

static int add_mount(struct build *b, const struct sandbox_mount *m, struct err *err)
{
    if (b->mounts_n == MOUNTS_MAX)
        return err_set(err, INVALID_ARGUMENT, "more than %d mounts", MOUNTS_MAX);
    b->mounts[b->mounts_n++] = *m;
    return 0;
}

/* ---- command --------------------------------------------------------------------------------- */

static const char *put_in(struct build *b,
                          const char *text) /* $(NAME) by the container's variables */
{
    struct buf out = {0};
    const char *p = text;

    if (!strchr(text, '$'))
        return arena_strdup(b->a, text);
    for (; *p; p++) {
        const char *end;
        if (*p == '$' && p[1] == '$') {
            buf_addc(&out, '$');
            p++;
        } else if (*p == '$' && p[1] == '(' && (end = strchr(p, ')'))) {
            const struct val *v = val_getn(b->vars, p + 2, (size_t)(end - p - 2));
            if (v)
                buf_adds(&out, v->s);
            else
                buf_add(&out, p, (size_t)(end - p + 1));
            p = end;
        } else {
            buf_addc(&out, *p);
        }
    }
    const char *done = arena_strdup(b->a, out.p ? out.p : "");
    buf_done(&out);
    return done;
}

static int set_command(struct build *b, struct err *err)
{
    const struct val *command = val_get(b->ctr, "command"), *args = val_get(b->ctr, "args");
    const struct image_config *ic = &b->c->image->config;
    uint32_t n = val_len(command) + val_len(args);
    const char **v;

    for (const char *const *e = ic->entrypoint; *e; e++)
        n++;
    for (const char *const *e = ic->cmd; *e; e++)
        n++;
    v = arena_array(b->a, const char *, n + 1);
    n = 0;
    if (val_len(command)) {
        VAL_EACH (command, it)
            v[n++] = put_in(b, val_text(it, ""));
    } else {
        for (const char *const *e = ic->entrypoint; *e; e++)
            v[n++] = arena_strdup(b->a, *e);
    }
    if (val_len(args)) {
        VAL_EACH (args, it)
            v[n++] = put_in(b, val_text(it, ""));
    } else if (!val_len(command)) {
        for (const char *const *e = ic->cmd; *e; e++)
            v[n++] = arena_strdup(b->a, *e);
    }
    if (!n)
        return err_set(err, INTERNAL, "no command specified");
    b->s.args = v;
    b->s.args_n = n;
    return 0;
}

/* ---- who ------------------------------------------------------------------------------------ */

static const struct val *sec(const struct build *b,
                             const char *name) /* container's wins over pod's */
{
    const struct val *v = val_get(b->csc, name);

    return val_is_null(v) ? val_get(b->psc, name) : v;
}

static int set_user(struct build *b, struct err *err)
{
    const struct val *uid = sec(b, "runAsUser"), *gid = sec(b, "runAsGroup"),
                     *non_root = sec(b, "runAsNonRoot");
    const struct val *more = val_get(b->psc, "supplementalGroups");
    const char *image_user = b->c->image->config.user;
    int64_t fs_group = val_int_at(b->psc, "fsGroup", -1), *groups;
    uint32_t n = 0;

    if (val_is(uid, VAL_INT)) {
        b->s.user = arena_printf(b->a, "%lld", (long long)uid->i);
    } else {
        b->s.user = *image_user ? arena_strdup(b->a, image_user) : "0";
    }
    if (val_is(gid, VAL_INT)) {
        b->s.gid = gid->i;
        b->s.gid_set = true;
    }
    if (val_is(non_root, VAL_BOOL) && non_root->b) {
        const char *u = b->s.user;
        size_t digits = strspn(u, "0123456789");
        bool numeric = digits > 0 && (u[digits] == 0 || u[digits] == ':');
        if (!numeric)
            return err_set(err, INVALID_ARGUMENT,
                           "container has runAsNonRoot and image has non-numeric user (%s), cannot "
                           "verify user is non-root",
                           u);
        if (atoll(u) == 0)
            return err_set(
                err, INVALID_ARGUMENT,
                val_is(uid, VAL_INT)
                    ? "container's runAsUser breaks non-root policy (pod: \"%s_%s\", container: %s)"
                    : "container has runAsNonRoot and image will run as root (pod: \"%s_%s\", "
                      "container: %s)",
                b->c->pod->name, b->c->pod->ns, b->c->name);
    }
    groups = arena_array(b->a, int64_t, val_len(more) + 1);
    VAL_EACH (more, g)
        if (g->type == VAL_INT)
            groups[n++] = g->i;
    if (fs_group >= 0)
        groups[n++] = fs_group;
    b->s.groups = groups;
    b->s.groups_n = n;
    return 0;
}

static int set_caps(struct build *b, struct err *err)
{
    uint64_t caps = b->s.privileged ? caps_all() : caps_default();
    const struct val *drop = val_at(b->csc, "capabilities.drop"),
                     *add = val_at(b->csc, "capabilities.add");

    VAL_EACH (drop, it) {
        int c = caps_parse(val_text(it, ""));
        if (streq(val_text(it, ""), "ALL") || streq(val_text(it, ""), "all"))
            caps = 0;
        else if (c >= 0)
            caps &= ~(1ull << c);
    }
    VAL_EACH (add, it) {
        int c = caps_parse(val_text(it, ""));
        if (streq(val_text(it, ""), "ALL") || streq(val_text(it, ""), "all"))
            caps = caps_all();
        else if (c < 0)
            return err_set(err, INTERNAL, "unknown capability \"CAP_%s\"", val_text(it, ""));
        else
            caps |= 1ull << c;
    }
    b->s.caps = (int64_t)(caps & caps_all());
    return 0;
}

static int set_security(struct build *b, struct err *err)
{
    const struct val *profile = sec(b, "seccompProfile");
    const struct val *escalate = val_get(b->csc, "allowPrivilegeEscalation");

    b->s.privileged = val_bool_at(b->csc, "privileged", false);
    b->s.no_new_privs = val_is(escalate, VAL_BOOL) && !escalate->b;
    b->s.seccomp =
        !b->s.privileged && !streq(val_str_at(profile, "type", "RuntimeDefault"), "Unconfined");
    if (streq(val_str_at(profile, "type", ""), "Localhost"))
        return err_set(err, INTERNAL, "seccompProfile type Localhost is not supported");
    b->s.read_only_root = val_bool_at(b->csc, "readOnlyRootFilesystem", false);
    return set_user(b, err) < 0 ? -1 : set_caps(b, err);
}

/* ---- resources ------------------------------------------------------------------------------ */

static void set_limits(struct build *b)
{
    const struct val *limits = val_at(b->ctr, "resources.limits"),
                     *requests = val_at(b->ctr, "resources.requests");
    const struct val *cpu_limit = val_get(limits, "cpu"), *cpu_request = val_get(requests, "cpu"),
                     *memory = val_get(limits, "memory");
    struct cgroup_limits *l = &b->s.limits;
    const char *qos = pod_qos(b->c->pod);

    if (cpu_limit)
        l->cpu_quota_us = MAX(quantity_milli(quantity_of(cpu_limit)) * 100, (int64_t)1000);
    l->cpu_shares = 2;
    if (cpu_request || cpu_limit)
        l->cpu_shares =
            MAX(quantity_milli(quantity_of(cpu_request ? cpu_request : cpu_limit)) * 1024 / 1000,
                (int64_t)2);
    if (memory)
        l->memory_bytes = quantity_value(quantity_of(memory));
    if (streq(qos, "Guaranteed")) {
        b->s.oom_score_adj = -997;
    } else if (streq(qos, "BestEffort")) {
        b->s.oom_score_adj = 1000;
    } else {
        int64_t asked = quantity_value(quantity_of(val_get(requests, "memory")));
        int64_t adj = 1000 - 1000 * asked / MAX(b->c->pod->n->memory_bytes, (int64_t)1);
        b->s.oom_score_adj = MIN(MAX(adj, (int64_t)3), (int64_t)999);
    }
}

/* ---- mounts --------------------------------------------------------------------------------- */

static int mount_file(struct build *b, const char *source, const char *target, bool read_only,
                      struct err *err)
{
    for (uint32_t i = 0; i < b->mounts_n; i++)
        if (streq(b->mounts[i].target, target))
            return 0; /* the pod brings its own */
    return add_mount(
        b,
        &(struct sandbox_mount){
            .kind = SANDBOX_BIND, .source = source, .target = target, .read_only = read_only},
        err);
}

static int volume_mounts(struct build *b, struct err *err)
{
    VAL_EACH (val_get(b->ctr, "volumeMounts"), m) {
        const char *name = val_str_at(m, "name", ""), *target = val_str_at(m, "mountPath", "");
        const char *sub = val_str_at(m, "subPath", ""), *expr = val_str_at(m, "subPathExpr", "");
        const char *propagation = val_str_at(m, "mountPropagation", "None");
        bool volume_ro = false;
        const char *path = volume_path(b->c->pod, name, &volume_ro);

        if (!path)
            return err_set(err, INVALID_ARGUMENT, "volume %s is not there", name);
        if (*expr)
            sub = put_in(b, expr);
        if (*sub == '/' || strstr(sub, ".."))
            return err_set(err, INVALID_ARGUMENT, "subPath %s of volume %s is not below it", sub,
                           name);
        if (*target != '/')
            target = arena_printf(b->a, "/%s", target);
        if (add_mount(
                b,
                &(struct sandbox_mount){.kind = SANDBOX_BIND,
                                        .source = arena_strdup(b->a, path),
                                        .sub_path = *sub ? arena_strdup(b->a, sub) : NULL,
                                        .target = arena_strdup(b->a, target),
                                        .read_only = volume_ro || val_bool_at(m, "readOnly", false),
                                        .recursive = true,
                                        .propagate = !streq(propagation, "None")},
                err) < 0)
            return -1;
    }
    return 0;
}

/* Volumes that the image declares get a directory of the container's own, as in docker. */
static int image_volumes(struct build *b, struct err *err)
{
    uint32_t k = 0;

    for (const char *const *v = b->c->image->config.volumes; *v; v++, k++) {
        bool own = false;
        for (uint32_t i = 0; i < b->mounts_n; i++)
            own |= streq(b->mounts[i].target, *v);
        if (own || **v != '/')
            continue;
        char *path = arena_printf(b->a, "%s/volumes/.image-%s-%u", b->c->pod->disk, b->c->name, k);
        if (fs_mkdirs(path, 0755, err) < 0 ||
            add_mount(b,
                      &(struct sandbox_mount){
                          .kind = SANDBOX_BIND, .source = path, .target = arena_strdup(b->a, *v)},
                      err) < 0)
            return -1;
    }
    return 0;
}

static int standard_mounts(struct build *b, struct err *err)
{
    struct pod *p = b->c->pod;
    char *term, *shm = arena_printf(b->a, "%s/shm", p->dir);
    char id[NAME_BYTES];

    if (mount_file(b, arena_printf(b->a, "%s/etc-hosts", p->dir), "/etc/hosts", false, err) < 0 ||
        mount_file(b, arena_printf(b->a, "%s/etc-hostname", p->dir), "/etc/hostname", false, err) <
            0 ||
        mount_file(b, arena_printf(b->a, "%s/resolv.conf", p->dir), "/etc/resolv.conf", false,
                   err) < 0)
        return -1;
    if (!val_bool_at(b->pod, "hostIPC", false)) {
        if (fs_mkdirs(shm, 01777, err) < 0)
            return -1;
        (void)chmod(shm, 01777);
        if (mount_file(b, shm, "/dev/shm", false, err) < 0)
            return -1;
    }
    ctr_id(b->c, b->c->attempt, id);
    term = arena_printf(b->a, "%s/term/%s", p->dir, id);
    if (fs_mkdirs(arena_printf(b->a, "%s/term", p->dir), 0755, err) < 0)
        return -1;
    int fd = open(term, O_CREAT | O_WRONLY | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return err_sys(err, "make %s", term);
    (void)fchmod(fd, 0666);
    close(fd);
    b->s.termination_log = term;
    return mount_file(b, term, val_str_at(b->ctr, "terminationMessagePath", "/dev/termination-log"),
                      false, err);
}

static int set_mounts(struct build *b, struct err *err)
{
    b->mounts = arena_array(b->a, struct sandbox_mount, MOUNTS_MAX);
    if (b->s.privileged &&
        add_mount(b,
                  &(struct sandbox_mount){
                      .kind = SANDBOX_BIND, .source = "/dev", .target = "/dev", .recursive = true},
                  err) < 0)
        return -1;
    if (volume_mounts(b, err) < 0 || image_volumes(b, err) < 0 || standard_mounts(b, err) < 0)
        return -1;
    b->s.mounts = b->mounts;
    b->s.mounts_n = b->mounts_n;
    sandbox_spec_defaults(&b->s, b->a);
    /* By depth of the path: a mount inside another comes after it, and what lies below /dev after
     * /dev. */
    for (uint32_t i = 1; i < b->s.mounts_n; i++)
        for (uint32_t k = i; k > 0; k--) {
            struct sandbox_mount *x = &b->s.mounts[k - 1], *y = &b->s.mounts[k];
            size_t n = strlen(y->target);
            if (strncmp(x->target, y->target, n) != 0 || (x->target[n] != '/' && n > 1))
                continue;
            struct sandbox_mount t = *x;
            *x = *y;
            *y = t;
        }
    return 0;
}

struct val *ctr_spec_build(struct ctr *c, struct arena *a, struct err *err)
{
    struct pod *p = c->pod;
    struct build b = {.c = c, .a = a, .ctr = ctr_spec(c), .pod = pod_spec(p)};
    char id[NAME_BYTES];
    uint32_t n = 0;

    ctr_id(c, c->attempt, id);
    b.csc = val_get(b.ctr, "securityContext");
    b.psc = val_get(b.pod, "securityContext");
    struct val *env = ctr_env(c, a, err);
    if (!env)
        return NULL;
    b.vars = &env->items[0];
    b.s.env = arena_array(a, const char *, env->n);
    for (uint32_t i = 1; i < env->n; i++)
        b.s.env[n++] = env->items[i].s;
    b.s.tty = val_bool_at(b.ctr, "tty", false);
    if (b.s.tty)
        b.s.env[n++] = "TERM=xterm"; /* one slot is free: item 0 was the map */
    b.s.env_n = n;
    b.s.id = arena_strdup(a, id);
    b.s.name = c->name;
    b.s.lower_n = c->image->n_lowers;
    b.s.lower = arena_array(a, const char *, b.s.lower_n + 1);
    for (uint32_t i = 0; i < b.s.lower_n; i++)
        b.s.lower[i] = c->image->lowers[i];
    b.s.lower[b.s.lower_n++] = arena_printf(a, "%s/run/mem/.skeleton", p->n->o.state);
    b.s.upper = arena_printf(a, "%s/%s/upper", p->disk, id);
    b.s.work = arena_printf(a, "%s/%s/work", p->disk, id);
    b.s.root = arena_printf(a, "%s/root-%s", p->dir, id);
    b.s.cwd = val_str_at(b.ctr, "workingDir", "");
    if (!*b.s.cwd)
        b.s.cwd = c->image->config.workdir;
    if (!*b.s.cwd)
        b.s.cwd = "/";
    b.s.cgroup = arena_printf(a, "%s/%s", p->cgroup, c->name);
    b.s.stdio = SANDBOX_STDIO_LOG;
    b.s.log_path = ctr_log_path(a, c, c->attempt);
    b.s.stdin_open = val_bool_at(b.ctr, "stdin", false);
    b.s.stdin_once = val_bool_at(b.ctr, "stdinOnce", false);
    if (set_command(&b, err) < 0 || set_security(&b, err) < 0 || set_mounts(&b, err) < 0)
        return NULL;
    set_limits(&b);
    return sandbox_spec_write(&b.s, a);
}
