/* tandem up: the supervisor. One process that starts the parts and starts each again when it
 * dies; it holds the lock of the state folder and does nothing else, so there is nothing in it
 * that could fail. SIGTERM stops the parts and leaves containers running (their shims hold them):
 * a new `tandem up` finds them again. `tandem down` is SIGTERM plus the node's clean-up. */
#include "cli/cli.h"

#include "base/log.h"
#include "env/clock.h"
#include "env/fs.h"
#include "network/network.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum {
    START_LIMIT_MS = 30000, /* no part may need longer to listen */
    STOP_LIMIT_MS = 8000,   /* then SIGKILL: nothing acknowledged is lost by it */
    BACKOFF_MAX_MS = 5000,
    CALM_MS = 10000, /* a part that lived so long starts again at once */
};

enum part_id { SERVER, NODE, GATEWAY, PARTS };
struct part {
    const char *name;
    pid_t pid;
    int64_t started_ms, again_ms; /* again_ms: when to start it again, 0 = it runs or is not wanted */
    int backoff_ms;
};

struct supervisor {
    const struct cli_opts *o;
    struct part parts[PARTS];
    int ready_fd; /* -1, or the pipe that a waiting `up --detach` reads */
    bool told_ready, stopping;
};

int instance_pid(const struct cli_opts *o)
{
    char path[128], text[32] = "";
    _auto_(closep) int fd = -1;

    snprintf(path, sizeof path, "%s/run/tandem.lock", o->state);
    fd = open(path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || flock(fd, LOCK_SH | LOCK_NB) == 0 || errno != EWOULDBLOCK)
        return 0;
    return read(fd, text, sizeof text - 1) > 0 ? atoi(text) : 0;
}

/* The lock stays with the process (and is inherited by nobody: O_CLOEXEC). */
static int take_lock(const struct cli_opts *o, struct err *err)
{
    _auto_(freep) char *run = xasprintf("%s/run", o->state);
    _auto_(freep) char *path = xasprintf("%s/run/tandem.lock", o->state);
    int fd;

    if (fs_mkdirs(run, 0755, err) < 0)
        return -1;
    fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0)
        return err_sys(err, "open %s", path);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        close(fd);
        return err_set(err, ALREADY_EXISTS,
                       "an instance with this state folder is already running (pid %d); stop it "
                       "with: tandem down --state %s",
                       instance_pid(o), o->state);
    }
    return fd;
}

static int write_pid(int fd)
{
    char text[32];
    int n = snprintf(text, sizeof text, "%d\n", (int)getpid());

    return ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)n, 0) != n ? -1 : 0;
}

static bool listening(int port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    _auto_(closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    return fd >= 0 && connect(fd, (struct sockaddr *)&to, sizeof to) == 0;
}

static bool socket_there(const struct cli_opts *o, const char *name)
{
    char path[128];

    snprintf(path, sizeof path, "%s/run/%s.sock", o->state, name);
    return access(path, F_OK) == 0;
}

static int spawn(struct supervisor *s, struct part *p, struct err *err)
{
    char api[16], gateway[16], aws[16], keep[16], parent[40], mb[16], files[16], days[16];
    const struct cli_opts *o = s->o;
    const char *argv[96] = {"tandem", p->name, "--state", o->state, "--api-port", api, "--gateway-port",
                            gateway, "--aws-port", aws, "--keep-alive-ms", keep, "--pod-cidr",
                            o->pod_cidr, "--node-name", o->node_name, "--region", o->region,
                            "--service-cidr", o->service_cidr, "--controllers",
                            o->controllers ? o->controllers : "*"};
    const struct {
        const char *name, *value; /* NULL: not given on */
    } more[] = {{"--authorization-config", o->authorization_config},
                {"--authentication-config", o->authentication_config},
                {"--authentication-token-webhook-config-file", o->token_webhook},
                {"--authentication-token-webhook-cache-ttl", o->token_webhook_ttl},
                {"--authentication-token-webhook-version", o->token_webhook_version},
                {"--requestheader-client-ca-file", o->requestheader_ca},
                {"--requestheader-allowed-names", o->requestheader_names},
                {"--tls-cert-file", o->tls_cert}, {"--tls-private-key-file", o->tls_key},
                {"--client-ca-file", o->client_ca},
                {"--audit-policy-file", o->audit_policy}, {"--audit-log-path", o->audit_log},
                {"--audit-log-maxsize", mb}, {"--audit-log-maxbackup", files},
                {"--audit-log-maxage", days}, {"--audit-webhook-config-file", o->audit_webhook}};
    const struct {
        const char *name;
        int value; /* -1: not given on */
    } numbers[] = {{"--zygote-keep-ms", o->zygote_keep_ms}, {"--scale-burst", o->scale_burst},
                   {"--scale-per-10s", o->scale_per_10s}, {"--evict-mb", o->evict_mb},
                   {"--event-retry-s", o->event_retry_s}};
    char text[ARRAY_LEN(numbers)][16], tls[16];
    size_t n = 22;
    posix_spawnattr_t attr;
    sigset_t none;
    int rc;

    snprintf(api, sizeof api, "%d", o->api_port);
    snprintf(gateway, sizeof gateway, "%d", o->gateway_port);
    snprintf(aws, sizeof aws, "%d", o->aws_port);
    snprintf(keep, sizeof keep, "%d", o->keep_alive_ms);
    snprintf(parent, sizeof parent, "%d", (int)getpid());
    snprintf(mb, sizeof mb, "%d", o->audit_mb);
    snprintf(files, sizeof files, "%d", o->audit_files);
    snprintf(days, sizeof days, "%d", o->audit_days);
    for (size_t i = 0; i < ARRAY_LEN(more) && p == &s->parts[SERVER]; i++)
        if (more[i].value) {
            argv[n++] = more[i].name;
            argv[n++] = more[i].value;
        }
    if (p == &s->parts[GATEWAY] && o->gateway_tls_port) {
        snprintf(tls, sizeof tls, "%d", o->gateway_tls_port);
        argv[n++] = "--gateway-tls-port";
        argv[n++] = tls;
        argv[n++] = "--gateway-tls-cert-file";
        argv[n++] = o->gateway_tls_cert;
        argv[n++] = "--gateway-tls-private-key-file";
        argv[n++] = o->gateway_tls_key;
    }
    for (size_t i = 0; i < ARRAY_LEN(numbers); i++)
        if (numbers[i].value >= 0) {
            snprintf(text[i], sizeof text[i], "%d", numbers[i].value);
            argv[n++] = numbers[i].name;
            argv[n++] = text[i];
        }
    if (o->otlp_endpoint && p == &s->parts[GATEWAY]) {
        argv[n++] = "--otlp-endpoint";
        argv[n++] = o->otlp_endpoint;
    }
    if (o->api_only || o->no_scheduler)
        argv[n++] = o->api_only ? "--api-only" : "--no-scheduler";
    setenv("TANDEM_SUPERVISOR", parent, 1); /* see part_begin() */
    sigemptyset(&none);
    posix_spawnattr_init(&attr);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK);
    rc = posix_spawn(&p->pid, "/proc/self/exe", NULL, &attr, (char **)(uintptr_t)argv, environ);
    posix_spawnattr_destroy(&attr);
    if (rc) {
        p->pid = 0;
        errno = rc;
        return err_sys(err, "start %s", p->name);
    }
    p->started_ms = clock_mono_ms();
    p->again_ms = 0;
    LOG(INFO, "supervisor", "did=started what=%s pid=%d", p->name, (int)p->pid);
    return 0;
}

static bool part_ready(const struct supervisor *s, enum part_id id)
{
    switch (id) {
    case SERVER:
        return listening(s->o->api_port);
    case NODE:
        return socket_there(s->o, "node");
    case GATEWAY:
        if (!listening(s->o->aws_port))
            return false;
        return listening(s->o->gateway_port);
    case PARTS:
        break;
    }
    UNREACHABLE();
}

static void part_ended(struct supervisor *s, struct part *p, int status)
{
    int64_t lived = clock_mono_ms() - p->started_ms;

    p->backoff_ms = lived > CALM_MS ? 0 : MIN(MAX(p->backoff_ms * 2, 50), (int)BACKOFF_MAX_MS);
    LOG(WARN, "supervisor", "did=ended what=%s pid=%d %s=%d lived_ms=%lld again_in_ms=%d", p->name,
        (int)p->pid, WIFSIGNALED(status) ? "signal" : "exit",
        WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status), (long long)lived,
        p->backoff_ms);
    p->pid = 0;
    p->again_ms = s->stopping ? 0 : clock_mono_ms() + p->backoff_ms + 1;
}

static void reap(struct supervisor *s)
{
    int status;
    pid_t pid;

    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (int i = 0; i < PARTS; i++)
            if (s->parts[i].pid == pid)
                part_ended(s, &s->parts[i], status);
}

/* Waits for a signal that the supervisor knows, at most until wait_ms; 0 on time-out. */
static int wait_signal(int wait_ms)
{
    struct timespec t = {wait_ms / 1000, (wait_ms % 1000) * 1000000L};
    sigset_t set;
    int sig;

    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sig = wait_ms < 0 ? sigwaitinfo(&set, NULL) : sigtimedwait(&set, NULL, &t);
    return sig > 0 ? sig : 0;
}

static void stop_all(struct supervisor *s)
{
    static const enum part_id ORDER[] = {GATEWAY, NODE, SERVER}; /* each before what it leans on */

    s->stopping = true;
    for (size_t i = 0; i < ARRAY_LEN(ORDER); i++) {
        struct part *p = &s->parts[ORDER[i]];
        int64_t limit = clock_mono_ms() + STOP_LIMIT_MS;

        if (!p->pid)
            continue;
        kill(p->pid, SIGTERM);
        while (p->pid && clock_mono_ms() < limit) {
            wait_signal((int)(limit - clock_mono_ms()));
            reap(s);
        }
        if (p->pid) {
            LOG(WARN, "supervisor", "did=kill what=%s reason=\"did not stop in %d ms\"", p->name,
                STOP_LIMIT_MS);
            kill(p->pid, SIGKILL);
            waitpid(p->pid, NULL, 0);
            p->pid = 0;
        }
    }
}

/* Starts the parts in their order, each when the one before listens. */
static int start_all(struct supervisor *s, struct err *err)
{
    int last = s->o->api_only ? SERVER : GATEWAY;

    for (int i = SERVER; i <= last; i++) {
        int64_t limit = clock_mono_ms() + START_LIMIT_MS;
        int sig;

        if (spawn(s, &s->parts[i], err) < 0)
            return -1;
        if (i == NODE)
            continue; /* the gateway does not lean on it: both start at once */
        while (!part_ready(s, (enum part_id)i)) {
            sig = wait_signal(2);
            if (sig == SIGTERM || sig == SIGINT)
                return err_set(err, CANCELLED, "stopped while starting");
            reap(s);
            if (!s->parts[i].pid)
                return err_set(err, INTERNAL, "the %s ended while it started; its last words are "
                               "above or in %s/logs/tandem.log", s->parts[i].name, s->o->state);
            if (clock_mono_ms() > limit)
                return err_set(err, TIMEOUT, "the %s does not listen after %d s",
                               s->parts[i].name, START_LIMIT_MS / 1000);
        }
    }
    while (last == GATEWAY && !part_ready(s, NODE) && s->parts[NODE].pid) {
        int sig = wait_signal(2);

        if (sig == SIGTERM || sig == SIGINT)
            return err_set(err, CANCELLED, "stopped while starting");
        reap(s);
    }
    return 0;
}

static void tell_ready(struct supervisor *s)
{
    if (s->ready_fd >= 0 && write(s->ready_fd, "1", 1) == 1)
        close(s->ready_fd);
    s->ready_fd = -1;
}

static int supervise(struct supervisor *s)
{
    for (;;) {
        int64_t now = clock_mono_ms(), next = -1;
        struct err err;
        int sig;

        for (int i = 0; i < PARTS; i++) {
            struct part *p = &s->parts[i];

            if (p->again_ms && p->again_ms <= now && spawn(s, p, &err) < 0) {
                LOG(ERROR, "supervisor", "did=start what=%s err=\"%s\"", p->name, err.msg);
                p->again_ms = now + BACKOFF_MAX_MS;
            }
            if (p->again_ms && (next < 0 || p->again_ms < next))
                next = p->again_ms;
        }
        sig = wait_signal(next < 0 ? -1 : (int)MAX(next - now, (int64_t)1));
        if (sig == SIGTERM || sig == SIGINT)
            return EXIT_SUCCESS;
        reap(s);
    }
}

static int check_ports(const struct cli_opts *o)
{
    const struct { const char *name; int port; } ports[] = {
        {"api", o->api_port}, {"gateway", o->gateway_port}, {"aws", o->aws_port}};
    size_t n = o->api_only ? 1 : ARRAY_LEN(ports);

    for (size_t i = 0; i < n; i++)
        if (ports[i].port && listening(ports[i].port))
            return complain(EXIT_FAILURE, "port %d is taken by another program; choose one with "
                            "--%s-port N", ports[i].port, ports[i].name);
    return 0;
}

/* Two instances on one host need ranges of their own: one that runs has claimed its range, one that
 * was killed may have left pods, and then the range's first address is this host's. An instance that
 * ran before finds its own there, which is fine. The claim stays with this process and what it forks. */
static int check_pod_cidr(const struct cli_opts *o)
{
    _auto_(freep) char *saved = xasprintf("%s/instance.json", o->state);
    struct sockaddr_in first = {.sin_family = AF_INET};
    _auto_(closep) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    char text[INET_ADDRSTRLEN] = "";

    snprintf(text, sizeof text, "%.*s", (int)strcspn(o->pod_cidr, "/"), o->pod_cidr);
    if (inet_pton(AF_INET, text, &first.sin_addr) != 1 || !strchr(o->pod_cidr, '/'))
        return complain(EXIT_USAGE, "--pod-cidr wants a range such as 10.42.0.0/16, not '%s'", o->pod_cidr);
    first.sin_addr.s_addr = htonl(ntohl(first.sin_addr.s_addr) + 1);
    if (net_claim(o->pod_cidr) >= 0 && (fs_exists(saved) || fd < 0 || bind(fd, (struct sockaddr *)&first, sizeof first) < 0))
        return 0;
    return complain(EXIT_FAILURE, "the pod range %s is used on this host already, by another instance perhaps; choose "
                    "one with --pod-cidr CIDR", o->pod_cidr);
}

/* A free port of this moment, for --NAME-port 0. */
static int pick_port(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t n = sizeof at;
    _auto_(closep) int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0 || bind(fd, (struct sockaddr *)&at, n) < 0 ||
        getsockname(fd, (struct sockaddr *)&at, &n) < 0)
        return 0;
    return ntohs(at.sin_port);
}

/* The background process: its log goes to a file, its start-up to the pipe. */
static int detach(const struct cli_opts *o, int *ret_ready_fd, bool *ret_parent)
{
    _auto_(freep) char *logs = xasprintf("%s/logs", o->state);
    _auto_(freep) char *path = xasprintf("%s/logs/tandem.log", o->state);
    struct err err;
    int fds[2], log_fd, null_fd;
    char byte;
    pid_t pid;

    *ret_parent = true;
    if (fs_mkdirs(logs, 0755, &err) < 0)
        return complain_err(&err);
    log_fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (log_fd < 0 || null_fd < 0 || pipe2(fds, O_CLOEXEC) < 0)
        return complain(EXIT_FAILURE, "cannot open %s: %s", path, strerror(errno));
    pid = fork();
    if (pid < 0)
        return complain(EXIT_FAILURE, "cannot start a background process: %s", strerror(errno));
    if (pid == 0) {
        *ret_parent = false;
        close(fds[0]);
        setsid();
        dup2(null_fd, STDIN_FILENO);
        dup2(log_fd, STDOUT_FILENO);
        dup2(log_fd, STDERR_FILENO);
        *ret_ready_fd = fds[1];
        return 0;
    }
    close(fds[1]);
    if (read(fds[0], &byte, 1) == 1)
        return EXIT_SUCCESS;
    return complain(EXIT_FAILURE, "the instance did not start; the last lines of %s say why", path);
}

int cmd_up(struct cli_opts *o, int argc, char **argv)
{
    struct supervisor s = {.o = o, .ready_fd = -1,
                           .parts = {{.name = "server"}, {.name = "node"}, {.name = "gateway"}}};
    int *ports[] = {&o->api_port, &o->gateway_port, &o->aws_port}, lock, rc = EXIT_SUCCESS;
    bool parent = false;
    struct err err;
    sigset_t all;

    if (o->args_n)
        return complain(EXIT_USAGE, "up takes no words, only options; 'tandem up --help' lists them");
    if (o->otlp_endpoint && !streq(o->otlp_endpoint, "none") && !str_starts(o->otlp_endpoint, "http://") && !str_starts(o->otlp_endpoint, "https://"))
        return complain(EXIT_USAGE, "--otlp-endpoint wants http://HOST:PORT or https://..., or none, not '%s'", o->otlp_endpoint);
    if (!o->api_only && geteuid() != 0)
        return complain(EXIT_FAILURE, "containers need root; 'tandem up --api-only' does not");
    lock = take_lock(o, &err);
    if (lock < 0)
        return complain_err(&err);
    for (size_t i = 0; i < ARRAY_LEN(ports); i++)
        if (!*ports[i])
            *ports[i] = pick_port();
    rc = check_ports(o);
    if (!rc && !o->api_only)
        rc = check_pod_cidr(o);
    if (rc)
        return rc;
    if (opts_save(o, &err) < 0)
        return complain_err(&err);
    if (o->detach) {
        rc = detach(o, &s.ready_fd, &parent);
        if (parent)
            return rc;
    }
    log_set_part("supervisor");
    if (write_pid(lock) < 0)
        return complain(EXIT_FAILURE, "cannot write the lock file: %s", strerror(errno));
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, NULL);
    if (start_all(&s, &err) < 0) {
        LOG(ERROR, "supervisor", "did=start err=\"%s\"", err.msg);
        rc = EXIT_FAILURE;
    } else {
        LOG(INFO, "supervisor", "did=ready api=%d gateway=%d aws=%d", o->api_port, o->gateway_port,
            o->aws_port);
        tell_ready(&s);
        rc = supervise(&s);
    }
    stop_all(&s);
    return rc;
}
