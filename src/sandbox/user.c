#include "sandbox/user_int.h"

#include <stdio.h>
#include <sys/syscall.h>
#include <unistd.h>

int setgroups_sys(const uint32_t *groups, size_t n)
{
    return (int)syscall(SYS_setgroups, n, groups);
}

/* Cuts a line of passwd(5)/group(5) into its fields. */
static int cut(char *line, char *fields[], int max)
{
    int n = 0;

    line[strcspn(line, "\n")] = 0;
    for (char *p = line; p && n < max; n++) {
        fields[n] = p;
        if ((p = strchr(p, ':')))
            *p++ = 0;
    }
    return n;
}

static bool number(const char *s, uint32_t *ret_n)
{
    char *end;
    unsigned long n = strtoul(s, &end, 10);

    if (!*s || *s == '-' || *end || n > UINT32_MAX)
        return false;
    *ret_n = (uint32_t)n;
    return true;
}

/* The passwd line of a name, or of a number when name is NULL. */
static bool find_passwd(const char *name, uint32_t uid, char ret_name[64], struct sandbox_user *u,
                        uint32_t *ret_gid)
{
    char line[1024], *f[7];
    uint32_t id, gid;
    bool found = false;
    FILE *file = fopen("/etc/passwd", "re");

    while (file && !found && fgets(line, sizeof line, file)) {
        if (cut(line, f, 7) < 6 || !number(f[2], &id) || !number(f[3], &gid))
            continue;
        if (name ? !streq(f[0], name) : id != uid)
            continue;
        found = true;
        u->uid = id;
        *ret_gid = gid;
        snprintf(ret_name, 64, "%.63s", f[0]);
        snprintf(u->home, sizeof u->home, "%.255s", *f[5] ? f[5] : "/");
    }
    if (file)
        fclose(file);
    return found;
}

static void add_group(struct sandbox_user *u, uint32_t gid)
{
    for (size_t i = 0; i < u->groups_n; i++)
        if (u->groups[i] == gid)
            return;
    if (u->groups_n < SANDBOX_GROUPS_MAX)
        u->groups[u->groups_n++] = gid;
}

/* The number of a group's name; adds the groups that `member` belongs to. */
static bool scan_groups(const char *name, const char *member, struct sandbox_user *u,
                        uint32_t *ret_gid)
{
    char line[4096], *f[4], *save;
    uint32_t gid;
    bool found = false;
    FILE *file = fopen("/etc/group", "re");

    while (file && fgets(line, sizeof line, file)) {
        int n = cut(line, f, 4);
        if (n < 3 || !number(f[2], &gid))
            continue;
        if (name && streq(f[0], name)) {
            *ret_gid = gid;
            found = true;
        }
        if (n < 4 || str_empty(member))
            continue;
        for (char *m = strtok_r(f[3], ",", &save); m; m = strtok_r(NULL, ",", &save))
            if (streq(m, member))
                add_group(u, gid);
    }
    if (file)
        fclose(file);
    return found;
}

int sandbox_user_find(const struct sandbox_spec *s, struct sandbox_user *ret_user, struct err *err)
{
    char text[128], name[64] = "", *group;
    uint32_t primary = 0;
    bool known;

    memset(ret_user, 0, sizeof *ret_user);
    strcpy(ret_user->home, "/");
    for (uint32_t i = 0; i < s->groups_n; i++)
        add_group(ret_user, (uint32_t)s->groups[i]);
    if (!s->user) {
        ret_user->uid = (uint32_t)s->uid;
        ret_user->gid = (uint32_t)s->gid;
        return 0;
    }
    snprintf(text, sizeof text, "%s", s->user);
    if ((group = strchr(text, ':')))
        *group++ = 0;
    if (!*text)
        strcpy(text, "0");
    if (number(text, &ret_user->uid)) {
        known = find_passwd(NULL, ret_user->uid, name, ret_user, &primary);
    } else {
        known = find_passwd(text, 0, name, ret_user, &primary);
        if (!known)
            return err_set(err, INVALID_ARGUMENT,
                           "unable to find user %s: no matching entries in passwd file", text);
    }
    if (!known && ret_user->uid == 0)
        strcpy(ret_user->home, "/root");
    ret_user->gid = primary;
    if (!str_empty(group) && !number(group, &ret_user->gid) &&
        !scan_groups(group, NULL, ret_user, &ret_user->gid))
        return err_set(err, INVALID_ARGUMENT,
                       "unable to find group %s: no matching entries in group file", group);
    if (s->gid_set)
        ret_user->gid = (uint32_t)s->gid;
    scan_groups(NULL, name, ret_user, &primary);
    return 0;
}
