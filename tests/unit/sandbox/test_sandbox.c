/* The sandbox room: filter and spec anywhere; groups, containers and the shim for real where the
 * test is root (with busybox-static as the image), in a directory and groups of its own. */
#include "tt.h"

#include "base/buf.h"
#include "codec/json.h"
#include "sandbox/caps.h"
#include "sandbox/cgroup.h"
#include "sandbox/seccomp.h"
#include "sandbox/shim.h"
#include "sandbox/spec.h"
#include "sandbox/start.h"

#include <asm/unistd.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define BUSYBOX "/bin/busybox"

static void filter_answers_as_the_table_says(void **state)
{
    struct seccomp_filter f;
    static const uint64_t no[6], vsock[6] = {40}, newns[6] = {0x20000}, weird[6] = {0x1234};

    (void)state;
    seccomp_default(&f, caps_default());
    assert_true(f.n < 256);
    static const struct {
        int nr;
        const uint64_t *args;
        uint32_t want;
    } cases[] = {
        {__NR_read, no, SECCOMP_RET_ALLOW},
        {__NR_execve, no, SECCOMP_RET_ALLOW},
        {__NR_clone3, no, SECCOMP_RET_ERRNO | ENOSYS},
        {__NR_clone, no, SECCOMP_RET_ALLOW},
        {__NR_clone, newns, SECCOMP_RET_ERRNO | EPERM},
        {__NR_mount, no, SECCOMP_RET_ERRNO | EPERM},
        {__NR_socket, no, SECCOMP_RET_ALLOW},
        {__NR_socket, vsock, SECCOMP_RET_ERRNO | EPERM},
        {__NR_personality, no, SECCOMP_RET_ALLOW},
        {__NR_personality, weird, SECCOMP_RET_ERRNO | EPERM},
        {__NR_keyctl, no, SECCOMP_RET_ERRNO | EPERM},
        {__NR_chroot, no, SECCOMP_RET_ALLOW},
        {500, no, SECCOMP_RET_ERRNO | ENOSYS},
        {0x40000000, no, SECCOMP_RET_ERRNO | ENOSYS},
    };
    for (size_t i = 0; i < ARRAY_LEN(cases); i++)
        assert_int_equal(seccomp_eval(&f, AUDIT_ARCH_X86_64, cases[i].nr, cases[i].args),
                         cases[i].want);
    assert_int_equal(seccomp_eval(&f, AUDIT_ARCH_I386, __NR_read, no), SECCOMP_RET_ERRNO | ENOSYS);
    seccomp_default(&f, caps_default() | 1ull << CAP_SYS_ADMIN);
    assert_int_equal(seccomp_eval(&f, AUDIT_ARCH_X86_64, __NR_mount, no), SECCOMP_RET_ALLOW);
    assert_int_equal(seccomp_eval(&f, AUDIT_ARCH_X86_64, __NR_clone, newns), SECCOMP_RET_ALLOW);
}

/* Goal: the binary search answers for every call number what the rows say. Method: all numbers,
 * against a linear look through the same table, for random sets of capabilities. */
TT_PROP(seccomp, search_equals_linear, 50)
{
    static const struct {
        int nr, cap;
    } rows[] = {
#define CALL(name) {__NR_##name, -1},
#define CALL_CAP(name, c) {__NR_##name, CAP_##c},
#define CHECK(name, rule)
#define __NR_cachestat 451
#define __NR_fchmodat2 452
#define __NR_map_shadow_stack 453
#define __NR_futex_wake 454
#define __NR_futex_wait 455
#define __NR_futex_requeue 456
#include "sandbox/seccomp.def"
    };
    uint64_t caps = tt_next(rng) & ~(1ull << CAP_SYS_ADMIN);
    struct seccomp_filter f;
    static const uint64_t no[6];
    int allowed = 0;

    seccomp_default(&f, caps);
    for (int nr = 0; nr < 512; nr++) {
        bool want = false;
        for (size_t i = 0; i < ARRAY_LEN(rows); i++)
            want |= rows[i].nr == nr && (rows[i].cap < 0 || caps & 1ull << rows[i].cap);
        if (nr == __NR_clone || nr == __NR_clone3 || nr == __NR_personality || nr == __NR_socket)
            continue;
        TT_OK((seccomp_eval(&f, AUDIT_ARCH_X86_64, nr, no) == SECCOMP_RET_ALLOW) == want);
        allowed += want;
    }
    TT_OK(allowed > 250);
}

static void spec_survives_json(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err = {0};
    const char *args[] = {"/bin/sh", "-c", "echo \"x\"\n\t\xc3\xa9"}, *lower[] = {"/a", "/b"};
    int64_t groups[] = {1, 2};
    struct sandbox_spec s = {.id = "c.0",
                             .args = args,
                             .args_n = 3,
                             .lower = lower,
                             .lower_n = 2,
                             .groups = groups,
                             .groups_n = 2,
                             .caps = (int64_t)caps_default(),
                             .tty = true,
                             .new_pid = true,
                             .limits = {.memory_bytes = 1 << 20, .pids = 10},
                             .oom_score_adj = -998};
    struct sandbox_spec back;

    (void)state;
    sandbox_spec_defaults(&s, a);
    char *text = json_text(a, sandbox_spec_write(&s, a), NULL);
    struct val *v = json_parse(a, text, strlen(text), &err);
    assert_non_null(v);
    assert_int_equal(sandbox_spec_read(&back, v, a, &err), 0);
    assert_string_equal(json_text(a, sandbox_spec_write(&back, a), NULL), text);
    assert_string_equal(back.args[2], args[2]);
    assert_int_equal(back.limits.pids, 10);
    v = json_parse(a, "{\"args\":[1]}", 12, &err);
    assert_int_equal(sandbox_spec_read(&back, v, a, &err), -1);
}

/* The shim's own JSON code under other names. */
#define json_parse shim_json_parse
#define json_write shim_json_write
#define json_write_str shim_json_write_str
struct val *shim_json_parse(struct arena *a, const char *text, size_t n, struct err *err);
void shim_json_write(struct buf *b, const struct val *v);
void shim_json_write_str(struct buf *b, const char *s, size_t n);
#include "sandbox/shim/json.c"
#undef json_parse
#undef json_write
#undef json_write_str
#include "sandbox/shim/crilog.c"

static struct val *random_val(struct tt_rng *rng, struct arena *a, int depth)
{
    static const char *const texts[] = {
        "", "plain", "q\"b\\s/", "\n\t\r\b\f\x01", "\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80", "0"};
    struct val *v;

    switch (tt_below(rng, depth > 4 ? 4 : 6)) {
    case 0:
        return val_null(a);
    case 1:
        return val_bool(a, tt_below(rng, 2));
    case 2:
        return val_int(a, (int64_t)tt_next(rng) >> tt_below(rng, 60));
    case 3:
        return val_str(a, texts[tt_below(rng, ARRAY_LEN(texts))]);
    case 4:
        v = val_list(a);
        for (uint32_t i = tt_below(rng, 6); i > 0; i--)
            val_push(a, v, random_val(rng, a, depth + 1));
        return v;
    default:
        v = val_map(a);
        for (uint32_t i = tt_below(rng, 6); i > 0; i--)
            val_put(a, v, arena_printf(a, "k%u%s", i, texts[tt_below(rng, ARRAY_LEN(texts))]),
                    random_val(rng, a, depth + 1));
        return v;
    }
}

/* Goal: the node and its shims understand each other. Method: random trees written by one and read
 * by the other, both ways. */
TT_PROP(shim, json_agrees_with_the_node, 300)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = random_val(rng, a, 0), *back;
    struct buf b = {0};
    size_t n;
    char *text = json_text(a, v, &n);

    back = shim_json_parse(a, text, n, &err);
    TT_OK(back && val_equal(v, back));
    shim_json_write(&b, v);
    back = json_parse(a, b.p, b.n, &err);
    TT_OK(back && val_equal(v, back));
    /* Cut short it is an error, never a crash. */
    if (n > 1)
        TT_OK(v->type < VAL_LIST ||
              !shim_json_parse(a, arena_strndup(a, text, n - 1), n - 1, &err));
    buf_done(&b);
}

/* Goal: no byte of a container's output is lost or doubled by the CRI form. Method: random output
 * in random pieces; the log, put together again, is the output. */
TT_PROP(crilog, log_holds_the_output, 60)
{
    char path[] = "/tmp/tandem-log-XXXXXX", *text = xcalloc(1, 200001), *back = xcalloc(1, 400001);
    struct crilog l;
    struct crilog_stream s = {.name = "stdout"};
    uint32_t n = tt_below(rng, 200000), got = 0, partial = 0;
    int fd = mkstemp(path);
    FILE *f;
    char *line = NULL;
    size_t cap = 0;
    ssize_t len;

    close(fd);
    for (uint32_t i = 0; i < n; i++)
        text[i] =
            tt_below(rng, tt_below(rng, 2) ? 40 : 60000) ? (char)('a' + tt_below(rng, 26)) : '\n';
    crilog_open(&l, path, 100 << 20, 1);
    for (uint32_t at = 0; at < n;) {
        uint32_t part = MIN(n - at, 1 + tt_below(rng, 40000));
        crilog_write(&l, &s, text + at, part);
        at += part;
    }
    crilog_end(&l, &s);
    crilog_close(&l);
    f = fopen(path, "r");
    while ((len = getline(&line, &cap, f)) > 0) {
        char *tag = strstr(line, "Z stdout ");
        TT_OK(tag && (tag[9] == 'F' || tag[9] == 'P') && tag[10] == ' ' && line[len - 1] == '\n');
        partial += tag[9] == 'P';
        size_t body = (size_t)(line + len - 1 - (tag + 11));
        TT_OK(body <= CRILOG_LINE_MAX);
        memcpy(back + got, tag + 11, body);
        got += (uint32_t)body;
        if (tag[9] == 'F')
            back[got++] = '\n';
    }
    TT_OK(got == n && memcmp(back, text, n) == 0);
    free(line);
    fclose(f);
    unlink(path);
    free(text);
    free(back);
    (void)partial;
}

/* ---- for real ----------------------------------------------------------------------------- */

static struct {
    char dir[64], root[96], instance[32];
    struct cgroup_host host;
} T;

static bool for_real(void)
{
    return geteuid() == 0 && access(BUSYBOX, X_OK) == 0;
}

static void copy_file(const char *from, const char *to)
{
    static char piece[65536];
    int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT, 0755);
    ssize_t n;

    assert_true(in >= 0 && out >= 0);
    while ((n = read(in, piece, sizeof piece)) > 0)
        assert_int_equal(write(out, piece, (size_t)n), n);
    close(in);
    close(out);
}

static void put_file(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static int setup(void **state)
{
    static const char *const dirs[] = {"bin", "etc", "tmp", "proc"};
    static const char *const tools[] = {"sh", "cat",      "echo", "id",    "sleep",
                                        "ls", "stty",     "tty",  "touch", "mount",
                                        "dd", "hostname", "true", "mknod", "grep"};
    char at[160], to[160];
    struct err err = {0};

    (void)state;
    if (!for_real())
        return 0;
    strcpy(T.dir, "/tmp/tandem-test-XXXXXX");
    assert_non_null(mkdtemp(T.dir));
    snprintf(T.root, sizeof T.root, "%s/image", T.dir);
    mkdir(T.root, 0755);
    for (size_t i = 0; i < ARRAY_LEN(dirs); i++) {
        snprintf(at, sizeof at, "%s/%s", T.root, dirs[i]);
        mkdir(at, 0755);
    }
    snprintf(at, sizeof at, "%s/bin/busybox", T.root);
    copy_file(BUSYBOX, at);
    for (size_t i = 0; i < ARRAY_LEN(tools); i++) {
        snprintf(to, sizeof to, "%s/bin/%s", T.root, tools[i]);
        assert_int_equal(symlink("busybox", to), 0);
    }
    snprintf(at, sizeof at, "%s/etc/passwd", T.root);
    put_file(at, "root:x:0:0:root:/root:/bin/sh\nweb:x:33:44:web:/srv:/bin/sh\n");
    snprintf(at, sizeof at, "%s/etc/group", T.root);
    put_file(at, "root:x:0:\nweb:x:44:\npics:x:55:web,root\n");
    snprintf(T.instance, sizeof T.instance, "t%d", (int)getpid());
    assert_int_equal(cgroup_host_init(&T.host, T.instance, &err), 0);
    (void)cgroup_favor_dynmods();
    return 0;
}

static int teardown(void **state)
{
    struct err err = {0};
    char command[128];

    (void)state;
    if (!for_real())
        return 0;
    (void)cgroup_kill(&T.host, "", &err);
    (void)cgroup_wait_empty(&T.host, "", 2000);
    assert_int_equal(cgroup_remove(&T.host, "", &err), 0);
    snprintf(command, sizeof command, "rm -rf %s", T.dir);
    assert_int_equal(system(command), 0);
    return 0;
}

#define NEED_ROOT()                                                                                \
    do {                                                                                           \
        (void)state;                                                                               \
        if (!for_real())                                                                           \
            skip();                                                                                \
    } while (0)

static void group_limits_counts_and_kills(void **state)
{
    struct cgroup_limits limits = {
        .memory_bytes = 64 << 20, .pids = 20, .cpu_quota_us = 50000, .cpu_shares = 512};
    struct cgroup_usage u;
    struct err err = {0};

    NEED_ROOT();
    assert_int_equal(cgroup_make(&T.host, "g/one", &limits, &err), 0);
    assert_true(cgroup_empty(&T.host, "g/one"));
    pid_t pid = fork();
    if (pid == 0) {
        if (cgroup_attach(&T.host, "g/one", 0, &err) < 0)
            _exit(1);
        for (volatile int i = 0;; i++)
            ;
    }
    struct timespec nap = {0, 60000000};
    u = (struct cgroup_usage){0};
    for (int i = 0; i < 500 && u.cpu_us <= 1000; i++) {
        nanosleep(&nap, NULL);
        assert_int_equal(cgroup_usage(&T.host, "g/one", &u, &err), 0);
    }
    assert_true(u.cpu_us > 1000);
    assert_false(cgroup_empty(&T.host, "g/one"));
    assert_int_equal(u.pids, 1);
    assert_int_equal(cgroup_remove(&T.host, "g", &err), -1);
    assert_int_equal(cgroup_kill(&T.host, "g", &err), 0);
    waitpid(pid, NULL, 0);
    assert_true(cgroup_wait_empty(&T.host, "g", 1000));
    assert_int_equal(cgroup_remove(&T.host, "g", &err), 0);
    assert_int_equal(cgroup_remove(&T.host, "g", &err), 0);
}

static struct sandbox_spec *spec_of(struct arena *a, const char *id, const char *script)
{
    struct sandbox_spec *s = arena_new_of(a, struct sandbox_spec);
    const char **args = arena_array(a, const char *, 3);
    static const char *env[] = {"A=b", "TERM=xterm"};

    args[0] = "sh";
    args[1] = "-c";
    args[2] = arena_strdup(a, script);
    s->id = id;
    s->name = "c";
    s->lower = arena_array(a, const char *, 1);
    s->lower[0] = T.root;
    s->lower_n = 1;
    s->upper = arena_printf(a, "%s/%s/upper", T.dir, id);
    s->work = arena_printf(a, "%s/%s/work", T.dir, id);
    s->root = arena_printf(a, "%s/%s/root", T.dir, id);
    s->args = args;
    s->args_n = 3;
    s->env = env;
    s->env_n = 2;
    s->caps = (int64_t)caps_default();
    s->seccomp = true;
    s->new_pid = s->new_ipc = s->new_uts = s->new_net = s->new_cgroup = true;
    s->hostname = "box";
    s->user = "0";
    s->cgroup = arena_printf(a, "pods/%s", id);
    s->limits = (struct cgroup_limits){.memory_bytes = 64 << 20, .pids = 50};
    sandbox_spec_defaults(s, a);
    return s;
}

/* Runs to its end; what it wrote, and its wait status. */
static char *run(struct arena *a, struct sandbox_spec *s, int *ret_status, struct err *err)
{
    int p[2], stdio[3];
    struct sandbox_child child = {0};
    char *text = arena_alloc(a, 65536);
    size_t n = 0;
    ssize_t got;

    assert_int_equal(pipe(p), 0);
    stdio[0] = -1;
    stdio[1] = stdio[2] = p[1];
    if (cgroup_make(&T.host, s->cgroup, &s->limits, err) < 0 ||
        sandbox_start(&T.host, s, stdio, &child, err) < 0) {
        close(p[0]);
        close(p[1]);
        return NULL;
    }
    close(p[1]);
    while ((got = read(p[0], text + n, 65535 - n)) > 0)
        n += (size_t)got;
    close(p[0]);
    waitpid(child.pid, ret_status, 0);
    close(child.pid_fd);
    return text;
}

static void container_is_isolated(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err = {0};
    int status = 0;

    NEED_ROOT();
    struct sandbox_spec *s =
        spec_of(a, "iso",
                "echo pid $$; hostname; echo $A $HOME; ls / ; touch /new && echo wrote; mount -t "
                "tmpfs x /tmp || echo nomount;"
                "mknod /tmp/sda b 8 0 || echo nomknod; cat /proc/sys/kernel/hostname; echo x > "
                "/proc/sys/kernel/hostname || echo rosys;"
                "ls /sys/firmware | grep -c . ; ls /proc/self/fd | grep -c .; id; cat "
                "/sys/fs/cgroup/memory/memory.limit_in_bytes; exit 7");
    char *text = run(a, s, &status, &err);
    if (!text)
        fail_msg("%s", err.msg);
    assert_non_null(strstr(text, "pid 1\nbox\nb /root\n"));
    assert_non_null(strstr(text, "wrote"));
    assert_non_null(strstr(text, "nomount"));
    assert_non_null(strstr(text, "nomknod"));
    assert_non_null(strstr(text, "rosys"));
    assert_non_null(strstr(text, "uid=0(root) gid=0(root) groups=55(pics)"));
    if (!T.host.v2_controls)
        assert_non_null(strstr(text, "67108864"));
    assert_int_equal(WEXITSTATUS(status), 7);
    /* What it wrote lies in its own layer, the image is as it was. */
    char at[160];
    snprintf(at, sizeof at, "%s/new", T.root);
    assert_int_equal(access(at, F_OK), -1);
    snprintf(at, sizeof at, "%s/new", s->upper);
    assert_int_equal(access(at, F_OK), 0);
}

static void container_users_binds_and_read_only(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err = {0};
    int status = 0;
    char at[160];

    NEED_ROOT();
    snprintf(at, sizeof at, "%s/vol", T.dir);
    mkdir(at, 0777);
    snprintf(at, sizeof at, "%s/vol/file", T.dir);
    put_file(at, "hello from the host\n");
    struct sandbox_spec *s =
        spec_of(a, "user",
                "id; cat /data/deep/file; touch /data/deep/x || echo robind; touch /x || echo "
                "roroot; grep -i -E 'capeff|nonew|seccomp:' /proc/self/status; pwd; echo $HOME");
    struct sandbox_mount m[] = {
        {.kind = SANDBOX_BIND,
         .source = arena_printf(a, "%s/vol", T.dir),
         .target = "/data/deep",
         .read_only = true},
        {.kind = SANDBOX_TMPFS, .target = "/scratch", .size_bytes = 1 << 20}};
    struct sandbox_mount *all = arena_array(a, struct sandbox_mount, s->mounts_n + 2);
    memcpy(all, s->mounts, s->mounts_n * sizeof *all);
    memcpy(all + s->mounts_n, m, sizeof m);
    s->mounts = all;
    s->mounts_n += 2;
    s->user = "web";
    s->no_new_privs = true;
    s->read_only_root = true;
    s->cwd = "/app/here";
    char *text = run(a, s, &status, &err);
    if (!text)
        fail_msg("%s", err.msg);
    assert_non_null(strstr(text, "uid=33(web) gid=44(web) groups=55(pics)"));
    assert_non_null(strstr(text, "hello from the host"));
    assert_non_null(strstr(text, "robind"));
    assert_non_null(strstr(text, "roroot"));
    assert_non_null(strstr(text, "CapEff:\t0000000000000000"));
    assert_non_null(strstr(text, "NoNewPrivs:\t1"));
    assert_non_null(strstr(text, "Seccomp:\t2"));
    assert_non_null(strstr(text, "/app/here\n/srv\n"));
}

static void bad_specs_say_why(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err = {0};
    int status;

    NEED_ROOT();
    struct sandbox_spec *s = spec_of(a, "bad", "true");
    s->args[0] = "/nope";
    assert_null(run(a, s, &status, &err));
    assert_non_null(strstr(err.msg, "exec /nope: No such file or directory"));
    assert_int_equal(err.sys, ENOENT);
    s->args[0] = "nope";
    assert_null(run(a, s, &status, &err));
    assert_string_equal(err.msg, "exec \"nope\": executable file not found in $PATH");
    s->args[0] = "sh";
    s->user = "ghost";
    assert_null(run(a, s, &status, &err));
    assert_non_null(strstr(err.msg, "unable to find user ghost"));
    s->user = NULL;
    struct sandbox_mount m = {.kind = SANDBOX_BIND, .source = "/does/not/exist", .target = "/x"};
    s->mounts = &m;
    s->mounts_n = 1;
    assert_null(run(a, s, &status, &err));
    assert_non_null(strstr(err.msg, "/does/not/exist"));
}

/* ---- the shim ------------------------------------------------------------------------------ */

static struct val *ask(int fd, struct arena *a, struct val *v, int *fds, int fds_n, int *ret_fd)
{
    static int id = 0;
    struct err err = {0};
    struct shim_message m;
    struct val *got;

    val_put_int(a, v, "id", ++id);
    assert_int_equal(shim_send(fd, v, fds, fds_n, &err), 0);
    for (;;) {
        if (shim_recv(fd, a, &got, &m, &err) < 0)
            fail_msg("%s", err.msg);
        if (val_int_at(got, "id", 0) == id)
            break;
    }
    if (ret_fd)
        *ret_fd = m.fds_n ? m.fds[0] : -1;
    return got;
}

static struct val *event(int fd, struct arena *a, const char *name)
{
    struct err err = {0};
    struct shim_message m;
    struct val *got;

    for (;;) {
        struct pollfd p = {.fd = fd, .events = POLLIN};
        if (poll(&p, 1, 5000) != 1)
            fail_msg("no event %s", name);
        if (shim_recv(fd, a, &got, &m, &err) < 0)
            fail_msg("%s", err.msg);
        if (streq(val_str_at(got, "event", ""), name))
            return got;
    }
}

static struct val *verb(struct arena *a, const char *name, const char *container)
{
    struct val *v = val_map(a);

    val_put_str(a, v, "do", name);
    if (container)
        val_put_str(a, v, "container", container);
    return v;
}

static char *slurp(struct arena *a, int fd)
{
    char *text = arena_alloc(a, 65536);
    size_t n = 0;
    ssize_t got;

    while ((got = read(fd, text + n, 65535 - n)) > 0)
        n += (size_t)got;
    return text;
}

static struct val *start_ask(struct arena *a, struct sandbox_spec *s)
{
    struct val *v = verb(a, "start", NULL);

    s->new_ipc = s->new_uts = s->new_net = false;
    s->stdio = SANDBOX_STDIO_LOG;
    s->log_path = arena_printf(a, "%s/logs/%s.log", T.dir, s->id);
    val_put(a, v, "spec", sandbox_spec_write(s, a));
    return v;
}

static void shim_runs_a_pod(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err = {0};
    struct val *pod = val_map(a), *got;
    int fd, fds[3], p[2], master;
    pid_t shim;

    NEED_ROOT();
    char *dir = arena_printf(
        a,
        "%s/a-long-directory-name-so-that-the-socket-does-not-fit-into-sun-path/as-it-happens/pod",
        T.dir);
    assert_int_equal(system(arena_printf(a, "mkdir -p %s", dir)), 0);
    val_put_str(a, pod, "instance", T.instance);
    val_put_str(a, pod, "hostname", "podname");
    val_put_str(a, pod, "cgroup", "shimpod");
    if (shim_spawn(SHIM, dir, NULL, pod, &fd, &shim, &err) < 0)
        fail_msg("%s", err.msg);

    struct sandbox_spec *s =
        spec_of(a, "one.0", "hostname; echo to stderr >&2; echo -n half; exit 3");
    s->cgroup = "shimpod/one";
    got = ask(fd, a, start_ask(a, s), NULL, 0, NULL);
    if (!val_bool_at(got, "ok", false))
        fail_msg("%s", val_str_at(got, "error", ""));
    got = event(fd, a, "exit");
    assert_int_equal(val_int_at(got, "code", -1), 3);
    int log = open(arena_printf(a, "%s/logs/one.0.log", T.dir), O_RDONLY);
    char *text = slurp(a, log);
    close(log);
    assert_non_null(strstr(text, "Z stdout F podname\n"));
    assert_non_null(strstr(text, "Z stderr F to stderr\n"));
    assert_non_null(strstr(text, "Z stdout P half\n"));

    /* A program that is not there is an error with its text, and leaves nothing behind. */
    s = spec_of(a, "bad.0", "x");
    s->args[0] = "/nope";
    s->cgroup = "shimpod/bad";
    got = ask(fd, a, start_ask(a, s), NULL, 0, NULL);
    assert_false(val_bool_at(got, "ok", true));
    assert_int_equal(val_int_at(got, "sys", 0), ENOENT);

    /* Its starter goes, another one connects and finds it; exec with pipes and with a terminal. */
    s = spec_of(a, "two.0",
                "trap 'echo bye; exit 5' TERM; echo up; while true; do sleep 0.05; done");
    s->cgroup = "shimpod/two";
    got = ask(fd, a, start_ask(a, s), NULL, 0, NULL);
    assert_true(val_bool_at(got, "ok", false));
    close(fd);
    assert_int_equal(shim_connect(dir, &fd, &err), 0);
    got = ask(fd, a, verb(a, "hello", NULL), NULL, 0, NULL);
    assert_int_equal(val_len(val_get(got, "containers")), 2);
    assert_string_equal(val_str_at(got, "containers[1].state", ""), "running");

    struct sandbox_spec what = {
        .args = (const char *[]){"sh", "-c", "echo out; echo $A; id; exit 9"}, .args_n = 3};
    struct val *e = verb(a, "exec", "two.0");
    val_put(a, e, "spec", sandbox_spec_write(&what, a));
    assert_int_equal(pipe(p), 0);
    fds[0] = open("/dev/null", O_RDONLY);
    fds[1] = fds[2] = p[1];
    got = ask(fd, a, e, fds, 3, NULL);
    if (!val_bool_at(got, "ok", false))
        fail_msg("%s", val_str_at(got, "error", ""));
    close(p[1]);
    close(fds[0]);
    text = slurp(a, p[0]);
    close(p[0]);
    assert_non_null(strstr(text, "out\nb\nuid=0(root)"));
    got = event(fd, a, "exec-exit");
    assert_int_equal(val_int_at(got, "code", -1), 9);

    what = (struct sandbox_spec){
        .args = (const char *[]){"sh", "-c", "tty; stty size"}, .args_n = 3, .tty = true};
    e = verb(a, "exec", "two.0");
    val_put(a, e, "spec", sandbox_spec_write(&what, a));
    got = ask(fd, a, e, NULL, 0, &master);
    if (!val_bool_at(got, "ok", false))
        fail_msg("%s", val_str_at(got, "error", ""));
    assert_true(master >= 0);
    text = slurp(a, master);
    close(master);
    assert_non_null(strstr(text, "/dev/pts/0"));

    /* attach hears what is written from now on */
    assert_int_equal(pipe(p), 0);
    e = verb(a, "attach", "two.0");
    val_put_bool(a, e, "stdout", true);
    got = ask(fd, a, e, &p[1], 1, NULL);
    close(p[1]);
    assert_true(val_bool_at(got, "ok", false));
    e = verb(a, "signal", "two.0");
    val_put_int(a, e, "signal", SIGTERM);
    got = ask(fd, a, e, NULL, 0, NULL);
    assert_true(val_bool_at(got, "ok", false));
    assert_string_equal(slurp(a, p[0]), "bye\n");
    close(p[0]);
    got = ask(fd, a, verb(a, "hello", NULL), NULL, 0, NULL);
    assert_int_equal(val_int_at(got, "containers[1].code", -1), 5);

    /* too much memory */
    s = spec_of(a, "oom.0", "dd if=/dev/zero of=/dev/null bs=200M count=1");
    s->cgroup = "shimpod/oom";
    s->limits.memory_bytes = 32 << 20;
    got = ask(fd, a, start_ask(a, s), NULL, 0, NULL);
    assert_true(val_bool_at(got, "ok", false));
    got = event(fd, a, "exit");
    assert_true(val_bool_at(got, "oom", false));

    /* the shim dies hard: what it held ends with it */
    s = spec_of(a, "three.0", "sleep 1000");
    s->cgroup = "shimpod/three";
    got = ask(fd, a, start_ask(a, s), NULL, 0, NULL);
    assert_true(val_bool_at(got, "ok", false));
    got = ask(fd, a, verb(a, "hello", NULL), NULL, 0, NULL);
    assert_int_equal(val_int_at(got, "pid", 0), shim);
    kill(shim, SIGKILL);
    waitpid(shim, NULL, 0);
    assert_true(cgroup_wait_empty(&T.host, "shimpod", 3000));
    close(fd);
    assert_int_equal(shim_connect(dir, &fd, &err), -1);

    /* another one in its place, and an orderly end */
    if (shim_spawn(SHIM, dir, NULL, pod, &fd, &shim, &err) < 0)
        fail_msg("%s", err.msg);
    got = ask(fd, a, start_ask(a, s), NULL, 0, NULL);
    assert_true(val_bool_at(got, "ok", false));
    got = ask(fd, a, verb(a, "stop", NULL), NULL, 0, NULL);
    assert_true(val_bool_at(got, "ok", false));
    waitpid(shim, NULL, 0);
    close(fd);
    assert_true(cgroup_empty(&T.host, "shimpod"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(filter_answers_as_the_table_says),
        cmocka_unit_test(tt_seccomp_search_equals_linear),
        cmocka_unit_test(spec_survives_json),
        cmocka_unit_test(tt_shim_json_agrees_with_the_node),
        cmocka_unit_test(tt_crilog_log_holds_the_output),
        cmocka_unit_test(group_limits_counts_and_kills),
        cmocka_unit_test(container_is_isolated),
        cmocka_unit_test(container_users_binds_and_read_only),
        cmocka_unit_test(bad_specs_say_why),
        cmocka_unit_test(shim_runs_a_pod),
    };

    signal(SIGPIPE, SIG_IGN);
    return cmocka_run_group_tests(tests, setup, teardown);
}
