/* Both ends of the wire; shim_spawn and shim_connect are the node's side. Compiled into the static
 * shim too (send and receive), so only base and codec/json.h's interface are used. */
#include "sandbox/shim.h"

#include "base/arena.h"
#include "codec/json.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

extern char **environ;

int shim_send(int fd, const struct val *v, const int *fds, int fds_n, struct err *err)
{
    struct buf text = {0};
    union {
        char room[CMSG_SPACE(sizeof(int) * SHIM_FDS_MAX)];
        struct cmsghdr align;
    } u;
    struct msghdr m = {0};
    struct iovec iov;
    ssize_t n;

    ASSERT(fds_n >= 0 && fds_n <= SHIM_FDS_MAX);
    json_write(&text, v);
    iov = (struct iovec){text.p, text.n};
    m.msg_iov = &iov;
    m.msg_iovlen = 1;
    if (fds_n) {
        memset(&u, 0, sizeof u);
        m.msg_control = u.room;
        m.msg_controllen = CMSG_SPACE(sizeof(int) * (size_t)fds_n);
        struct cmsghdr *c = CMSG_FIRSTHDR(&m);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(sizeof(int) * (size_t)fds_n);
        memcpy(CMSG_DATA(c), fds, sizeof(int) * (size_t)fds_n);
    }
    do {
        n = sendmsg(fd, &m, MSG_NOSIGNAL);
    } while (n < 0 && errno == EINTR);
    buf_done(&text);
    return n < 0 ? err_sys(err, "send to shim") : 0;
}

int shim_recv(int fd, struct arena *a, struct val **ret_v, struct shim_message *ret_m,
              struct err *err)
{
    union {
        char room[CMSG_SPACE(sizeof(int) * SHIM_FDS_MAX)];
        struct cmsghdr align;
    } u;
    ssize_t n = recv(fd, NULL, 0, MSG_PEEK | MSG_TRUNC);
    struct iovec iov;
    struct msghdr m = {0};

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return err_set(err, TIMEOUT, "nothing to read");
    if (n <= 0)
        return err_set(err, UNAVAILABLE, "the shim's connection is closed");
    if (n > SHIM_MESSAGE_MAX)
        return err_set(err, TOO_LARGE, "message of %zd bytes", n);
    char *text = arena_raw(a, (size_t)n + 1);
    iov = (struct iovec){text, (size_t)n};
    m = (struct msghdr){
        .msg_iov = &iov, .msg_iovlen = 1, .msg_control = u.room, .msg_controllen = sizeof u.room};
    n = recvmsg(fd, &m, MSG_CMSG_CLOEXEC);
    if (n <= 0)
        return err_set(err, UNAVAILABLE, "the shim's connection is closed");
    text[n] = 0;
    *ret_m = (struct shim_message){.text = text, .n = (size_t)n};
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&m); c; c = CMSG_NXTHDR(&m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        ret_m->fds_n = (int)((c->cmsg_len - CMSG_LEN(0)) / sizeof(int));
        memcpy(ret_m->fds, CMSG_DATA(c), sizeof(int) * (size_t)ret_m->fds_n);
    }
    *ret_v = json_parse(a, text, (size_t)n, err);
    if (!*ret_v) {
        for (int i = 0; i < ret_m->fds_n; i++)
            close(ret_m->fds[i]);
        return -1;
    }
    return 0;
}

#ifndef TANDEM_SHIM

/* DIR may be longer than sun_path: the socket is named through the directory's descriptor. */
static int named(const char *dir, struct sockaddr_un *ret_at, int *ret_dir_fd, struct err *err)
{
    *ret_dir_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*ret_dir_fd < 0)
        return err_sys(err, "open %s", dir);
    *ret_at = (struct sockaddr_un){.sun_family = AF_UNIX};
    snprintf(ret_at->sun_path, sizeof ret_at->sun_path, "/proc/self/fd/%d/shim.sock", *ret_dir_fd);
    return 0;
}

int shim_connect(const char *dir, int *ret_fd, struct err *err)
{
    struct sockaddr_un at;
    _auto_(closep) int dir_fd = -1;
    _auto_(closep) int fd = -1;
    int room = SHIM_MESSAGE_MAX;

    if (named(dir, &at, &dir_fd, err) < 0)
        return -1;
    fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return err_sys(err, "socket");
    if (connect(fd, (struct sockaddr *)&at, sizeof at) < 0) {
        err_sys(err, "connect to the shim of %s", dir);
        err->code = ERR_UNAVAILABLE;
        return -1;
    }
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &room, sizeof room);
    *ret_fd = STEAL_FD(fd);
    return 0;
}

/* Hands the configuration over in memory: a file less to make and remove. */
static int pod_fd(const struct val *pod, struct err *err)
{
    struct buf text = {0};
    int fd = memfd_create("pod", MFD_CLOEXEC);

    if (fd < 0)
        return err_sys(err, "memory for the pod's configuration");
    json_write(&text, pod);
    ssize_t n = write(fd, text.p, text.n);
    bool ok = n == (ssize_t)text.n && lseek(fd, 0, SEEK_SET) == 0;
    if (!ok)
        err_sys(err, "write the pod's configuration");
    buf_done(&text);
    if (!ok)
        close(fd);
    return ok ? fd : -1;
}

/* Out of the way of the numbers that the shim gets. */
static int high(int fd)
{
    int up = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 10);

    closep(&fd);
    return up;
}

int shim_spawn(const char *binary, const char *dir, const char *log_path, const struct val *pod,
               int *ret_fd, pid_t *ret_pid, struct err *err)
{
    struct sockaddr_un at;
    _auto_(closep) int dir_fd = -1;
    _auto_(closep) int listener = -1;
    _auto_(closep) int log = -1;
    _auto_(closep) int config = -1;
    posix_spawn_file_actions_t fa;
    posix_spawnattr_t attr;
    sigset_t none, all;
    const char *argv[] = {binary, dir, NULL};
    pid_t pid;
    int bad;

    if ((config = high(pod_fd(pod, err))) < 0 || named(dir, &at, &dir_fd, err) < 0)
        return -1;
    log = high(
        open(log_path ? log_path : "/dev/null", O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600));
    (void)unlinkat(dir_fd, "shim.sock", 0);
    /* The socket listens before the shim runs: whoever connects waits for it and cannot be refused.
     */
    listener = high(socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0));
    if (listener < 0 || bind(listener, (struct sockaddr *)&at, sizeof at) < 0 ||
        listen(listener, 64) < 0)
        return err_sys(err, "listen at %s/shim.sock", dir);
    (void)fchmodat(dir_fd, "shim.sock", 0600, 0);

    posix_spawn_file_actions_init(&fa);
    posix_spawn_file_actions_addopen(&fa, 0, "/dev/null", O_RDWR, 0);
    posix_spawn_file_actions_adddup2(&fa, log >= 0 ? log : 0, 1);
    posix_spawn_file_actions_adddup2(&fa, log >= 0 ? log : 0, 2);
    posix_spawn_file_actions_adddup2(&fa, listener, 3);
    posix_spawn_file_actions_adddup2(&fa, config, 4);
    posix_spawn_file_actions_addclosefrom_np(&fa, 5);
    posix_spawnattr_init(&attr);
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setflags(&attr,
                             POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    bad = posix_spawn(&pid, binary, &fa, &attr, (char *const *)(uintptr_t)argv, environ);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&fa);
    if (bad) {
        errno = bad;
        return err_sys(err, "start %s", binary);
    }
    *ret_pid = pid;
    return shim_connect(dir, ret_fd, err);
}

#endif
