/* After the node process: everything that its pods have on this machine. Works from what lies in
 * STATE/pods, STATE/run/mem and in the groups, so it does not matter how that process ended. */
#include "codec/json.h"
#include "env/fs.h"
#include "node/node_int.h"
#include "sandbox/shim.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/mount.h>
#include <unistd.h>

enum { EMPTY_MS = 10000 };

/* Tells a shim to stop and waits until it is gone. */
static void stop_shim(const char *dir)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err;
    int fd;
    struct shim_message m;
    struct val *v;

    if (shim_connect(dir, &fd, &err) < 0)
        return;
    v = slink_verb(a, "stop", NULL);
    val_put_int(a, v, "id", 1);
    if (shim_send(fd, v, NULL, 0, &err) == 0)
        for (struct pollfd p = {.fd = fd, .events = POLLIN}; poll(&p, 1, EMPTY_MS) == 1;)
            if (shim_recv(fd, a, &v, &m, &err) < 0)
                break;
    close(fd);
}

static void unmount_below(const char *dir)
{
    char path[PATH_MAX + 300];
    struct dirent *e;
    DIR *d = opendir(dir);

    while (d && (e = readdir(d))) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        (void)umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
    }
    if (d)
        closedir(d);
}

int node_teardown(const char *state, const char *instance, struct err *err)
{

    _auto_(arena_freep) struct arena *a = arena_new();
    struct cgroup_host h;
    char path[PATH_MAX], *text;
    const struct val *saved = NULL;
    struct dirent *e;
    size_t n;
    DIR *d;

    snprintf(path, sizeof path, "%s/pods", state);
    d = opendir(path);
    while (d && (e = readdir(d))) {
        if (e->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "%s/pods/%s", state, e->d_name);
        stop_shim(path);
        snprintf(path, sizeof path, "%s/pods/%s/volumes", state, e->d_name);
        unmount_below(path);
    }
    if (d)
        closedir(d);
    if (cgroup_mount_missing(err) < 0 || cgroup_host_init(&h, instance, err) < 0)
        return -1;
    /* What was left without a shim, and function instances. */
    if (cgroup_kill(&h, "", err) < 0)
        return -1;
    (void)cgroup_wait_empty(&h, "", EMPTY_MS);
    if (cgroup_remove(&h, "", err) < 0)
        return -1;
    snprintf(path, sizeof path, "%s/run/mem", state);
    (void)umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
    snprintf(path, sizeof path, "%s/pods", state);
    if (fs_remove_tree(path, err) < 0)
        return err_wrap(err, "remove %s", path);
    snprintf(path, sizeof path, "%s/instance.json", state);
    text = fs_read(path, 1 << 20, &n, err);
    if (text)
        saved = json_parse(a, text, n, err);
    free(text);
    if (!saved || val_bool_at(saved, "apiOnly", false))
        return 0; /* it never was on the network; somebody else with the same range may be */
    return network_teardown(state, instance, val_str_at(saved, "podCidr", "10.42.0.0/16"),
                            val_str_at(saved, "serviceCidr", "10.96.0.0/16"), err);
}
