/* The spec as JSON by a table of its fields: one row a field, the same for both ways. */
#include "sandbox/spec.h"

#include <sys/resource.h>

enum type { T_STR, T_INT, T_BOOL, T_STRS, T_INTS, T_STRUCT, T_STRUCTS };
struct table;
struct field {
    const char *name;
    enum type type;
    size_t at, n_at;
    const struct table *sub;
};
struct table {
    size_t size;
    const struct field *fields;
    size_t n;
};

#define F(s, type, name)                                                                           \
    {                                                                                              \
#name, type, offsetof(struct s, name), 0, NULL                                             \
    }
#define FN(s, type, name, sub)                                                                     \
    {                                                                                              \
#name, type, offsetof(struct s, name), offsetof(struct s, name##_n), sub                   \
    }
#define TABLE(s, rows)                                                                             \
    {                                                                                              \
        sizeof(struct s), rows, ARRAY_LEN(rows)                                                    \
    }

static const struct field MOUNT_ROWS[] = {
    F(sandbox_mount, T_INT, kind),       F(sandbox_mount, T_STR, source),
    F(sandbox_mount, T_STR, sub_path),   F(sandbox_mount, T_STR, target),
    F(sandbox_mount, T_BOOL, read_only), F(sandbox_mount, T_BOOL, recursive),
    F(sandbox_mount, T_BOOL, no_exec),   F(sandbox_mount, T_BOOL, no_suid),
    F(sandbox_mount, T_BOOL, no_dev),    F(sandbox_mount, T_BOOL, propagate),
    F(sandbox_mount, T_BOOL, optional),  F(sandbox_mount, T_INT, size_bytes),
    F(sandbox_mount, T_INT, mode),
};
static const struct table MOUNT = TABLE(sandbox_mount, MOUNT_ROWS);

static const struct field RLIMIT_ROWS[] = {F(sandbox_rlimit, T_INT, resource),
                                           F(sandbox_rlimit, T_INT, soft),
                                           F(sandbox_rlimit, T_INT, hard)};
static const struct table RLIMIT = TABLE(sandbox_rlimit, RLIMIT_ROWS);

static const struct field DEVICE_ROWS[] = {F(sandbox_device, T_STR, source),
                                           F(sandbox_device, T_STR, target)};
static const struct table DEVICE = TABLE(sandbox_device, DEVICE_ROWS);

static const struct field LIMIT_ROWS[] = {
    F(cgroup_limits, T_INT, memory_bytes),  F(cgroup_limits, T_INT, cpu_quota_us),
    F(cgroup_limits, T_INT, cpu_period_us), F(cgroup_limits, T_INT, cpu_shares),
    F(cgroup_limits, T_INT, pids),
};
static const struct table LIMITS = TABLE(cgroup_limits, LIMIT_ROWS);

static const struct field SPEC_ROWS[] = {
    F(sandbox_spec, T_STR, id),
    F(sandbox_spec, T_STR, name),
    FN(sandbox_spec, T_STRS, lower, NULL),
    F(sandbox_spec, T_STR, upper),
    F(sandbox_spec, T_STR, work),
    F(sandbox_spec, T_STR, root),
    F(sandbox_spec, T_BOOL, read_only_root),
    FN(sandbox_spec, T_STRUCTS, mounts, &MOUNT),
    FN(sandbox_spec, T_STRS, masked, NULL),
    FN(sandbox_spec, T_STRS, read_only, NULL),
    FN(sandbox_spec, T_STRUCTS, devices, &DEVICE),
    FN(sandbox_spec, T_STRS, args, NULL),
    FN(sandbox_spec, T_STRS, env, NULL),
    F(sandbox_spec, T_STR, cwd),
    F(sandbox_spec, T_STR, user),
    F(sandbox_spec, T_INT, uid),
    F(sandbox_spec, T_INT, gid),
    F(sandbox_spec, T_BOOL, gid_set),
    FN(sandbox_spec, T_INTS, groups, NULL),
    F(sandbox_spec, T_INT, caps),
    F(sandbox_spec, T_BOOL, no_new_privs),
    F(sandbox_spec, T_BOOL, seccomp),
    F(sandbox_spec, T_BOOL, privileged),
    FN(sandbox_spec, T_STRUCTS, rlimits, &RLIMIT),
    F(sandbox_spec, T_INT, oom_score_adj),
    F(sandbox_spec, T_INT, umask),
    F(sandbox_spec, T_STR, hostname),
    FN(sandbox_spec, T_STRS, sysctls, NULL),
    F(sandbox_spec, T_STR, net_ns),
    F(sandbox_spec, T_STR, ipc_ns),
    F(sandbox_spec, T_STR, uts_ns),
    F(sandbox_spec, T_STR, pid_ns),
    F(sandbox_spec, T_BOOL, new_net),
    F(sandbox_spec, T_BOOL, new_ipc),
    F(sandbox_spec, T_BOOL, new_uts),
    F(sandbox_spec, T_BOOL, new_pid),
    F(sandbox_spec, T_BOOL, new_cgroup),
    F(sandbox_spec, T_STR, cgroup),
    {"limits", T_STRUCT, offsetof(struct sandbox_spec, limits), 0, &LIMITS},
    F(sandbox_spec, T_INT, stdio),
    F(sandbox_spec, T_STR, log_path),
    F(sandbox_spec, T_INT, log_max_bytes),
    F(sandbox_spec, T_INT, log_files),
    F(sandbox_spec, T_BOOL, tty),
    F(sandbox_spec, T_BOOL, stdin_open),
    F(sandbox_spec, T_BOOL, stdin_once),
    F(sandbox_spec, T_STR, termination_log),
};
static const struct table SPEC = TABLE(sandbox_spec, SPEC_ROWS);

#define AT(type, base, offset) (*(type *)((char *)(base) + (offset)))
#define CAT(type, base, offset) (*(const type *)((const char *)(base) + (offset)))

static void write_table(const struct table *t, const void *from, struct val *to, struct arena *a);

static void write_array(const struct field *f, const void *from, struct val *to, struct arena *a)
{
    uint32_t n = CAT(uint32_t, from, f->n_at);
    const void *items = CAT(void *, from, f->at);
    struct val *list;

    if (!n)
        return;
    list = val_need_list(a, to, f->name);
    for (uint32_t i = 0; i < n; i++) {
        if (f->type == T_STRS) {
            val_push_str(a, list, ((const char *const *)items)[i]);
        } else if (f->type == T_INTS) {
            val_push(a, list, val_int(a, ((const int64_t *)items)[i]));
        } else {
            struct val *one = val_map(a);
            write_table(f->sub, (const char *)items + i * f->sub->size, one, a);
            val_push(a, list, one);
        }
    }
}

/* What is 0 is left out: reading starts from zero. */
static void write_table(const struct table *t, const void *from, struct val *to, struct arena *a)
{
    for (size_t i = 0; i < t->n; i++) {
        const struct field *f = &t->fields[i];
        switch (f->type) {
        case T_STR:
            if (CAT(char *, from, f->at))
                val_put_str(a, to, f->name, CAT(char *, from, f->at));
            break;
        case T_INT:
            if (CAT(int64_t, from, f->at))
                val_put_int(a, to, f->name, CAT(int64_t, from, f->at));
            break;
        case T_BOOL:
            if (CAT(bool, from, f->at))
                val_put_bool(a, to, f->name, true);
            break;
        case T_STRUCT:
            write_table(f->sub, (const char *)from + f->at, val_need_map(a, to, f->name), a);
            break;
        default:
            write_array(f, from, to, a);
        }
    }
}

static int bad_type(const struct field *f, const char *want, struct err *err)
{
    return err_set(err, INVALID_ARGUMENT, "sandbox spec: %s is no %s", f->name, want);
}

static int read_table(const struct table *t, void *to, const struct val *from, struct arena *a,
                      struct err *err);

static int read_array(const struct field *f, void *to, const struct val *v, struct arena *a,
                      struct err *err)
{
    uint32_t n = 0;
    char *items;
    size_t size = f->type == T_STRS   ? sizeof(char *)
                  : f->type == T_INTS ? sizeof(int64_t)
                                      : f->sub->size;

    if (v->type != VAL_LIST)
        return bad_type(f, "list", err);
    items = arena_alloc(a, size * MAX(v->n, 1u));
    VAL_EACH (v, it) {
        if (f->type == T_STRS) {
            if (it->type != VAL_STR)
                return bad_type(f, "list of strings", err);
            ((const char **)(void *)items)[n++] = arena_strdup(a, it->s);
        } else if (f->type == T_INTS) {
            if (it->type != VAL_INT)
                return bad_type(f, "list of numbers", err);
            ((int64_t *)(void *)items)[n++] = it->i;
        } else if (read_table(f->sub, items + size * n++, it, a, err) < 0) {
            return -1;
        }
    }
    AT(void *, to, f->at) = items;
    AT(uint32_t, to, f->n_at) = n;
    return 0;
}

static int read_table(const struct table *t, void *to, const struct val *from, struct arena *a,
                      struct err *err)
{
    if (!val_is(from, VAL_MAP))
        return err_set(err, INVALID_ARGUMENT, "sandbox spec: a part is no map");
    for (size_t i = 0; i < t->n; i++) {
        const struct field *f = &t->fields[i];
        const struct val *v = val_get(from, f->name);
        if (val_is_null(v))
            continue;
        switch (f->type) {
        case T_STR:
            if (v->type != VAL_STR)
                return bad_type(f, "string", err);
            AT(const char *, to, f->at) = arena_strdup(a, v->s);
            break;
        case T_INT:
            if (v->type != VAL_INT)
                return bad_type(f, "number", err);
            AT(int64_t, to, f->at) = v->i;
            break;
        case T_BOOL:
            if (v->type != VAL_BOOL)
                return bad_type(f, "truth value", err);
            AT(bool, to, f->at) = v->b;
            break;
        case T_STRUCT:
            if (read_table(f->sub, (char *)to + f->at, v, a, err) < 0)
                return -1;
            break;
        default:
            if (read_array(f, to, v, a, err) < 0)
                return -1;
        }
    }
    return 0;
}

struct val *sandbox_spec_write(const struct sandbox_spec *s, struct arena *a)
{
    struct val *v = val_map(a);

    write_table(&SPEC, s, v, a);
    return v;
}

int sandbox_spec_read(struct sandbox_spec *ret_s, const struct val *v, struct arena *a,
                      struct err *err)
{
    struct sandbox_spec s = {0};

    if (read_table(&SPEC, &s, v, a, err) < 0)
        return -1;
    *ret_s = s;
    return 0;
}

void sandbox_spec_defaults(struct sandbox_spec *s, struct arena *a)
{
    static const struct sandbox_mount usual[] = {
        {.kind = SANDBOX_PROC, .target = "/proc"},
        {.kind = SANDBOX_DEV, .target = "/dev"},
        {.kind = SANDBOX_DEVPTS, .target = "/dev/pts"},
        {.kind = SANDBOX_MQUEUE, .target = "/dev/mqueue"},
        {.kind = SANDBOX_SYSFS, .target = "/sys", .read_only = true},
        {.kind = SANDBOX_CGROUP, .target = "/sys/fs/cgroup", .read_only = true},
        {.kind = SANDBOX_TMPFS,
         .target = "/dev/shm",
         .size_bytes = 64 << 20,
         .no_exec = true,
         .no_suid = true,
         .no_dev = true},
    };
    static const char *const masked[] = {"/proc/acpi",
                                         "/proc/asound",
                                         "/proc/kcore",
                                         "/proc/keys",
                                         "/proc/latency_stats",
                                         "/proc/timer_list",
                                         "/proc/timer_stats",
                                         "/proc/sched_debug",
                                         "/proc/scsi",
                                         "/sys/firmware",
                                         "/sys/devices/virtual/powercap",
                                         "/proc/interrupts"};
    static const char *const read_only[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                                            "/proc/sysrq-trigger"};
    struct sandbox_mount *m = arena_array(a, struct sandbox_mount, ARRAY_LEN(usual) + s->mounts_n);
    uint32_t n = 0;

    /* Those that the caller brings himself (a shared /dev/shm, say) take the place of ours. */
    for (size_t i = 0; i < ARRAY_LEN(usual); i++) {
        bool own = false;
        for (uint32_t k = 0; k < s->mounts_n; k++)
            own |= streq(s->mounts[k].target, usual[i].target);
        if (own)
            continue;
        m[n] = usual[i];
        if (s->privileged)
            m[n].read_only = false;
        n++;
    }
    if (s->mounts_n)
        memcpy(m + n, s->mounts, s->mounts_n * sizeof *m);
    s->mounts = m;
    s->mounts_n += n;
    if (s->privileged)
        return;
    s->masked = arena_memdup(a, masked, sizeof masked);
    s->masked_n = ARRAY_LEN(masked);
    s->read_only = arena_memdup(a, read_only, sizeof read_only);
    s->read_only_n = ARRAY_LEN(read_only);
}
