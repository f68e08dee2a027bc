/* controller/ctl_int.h - inside of the frame: controllers.c and ctl.c. */
#pragma once

#include "controller/controllers.h"
#include "controller/ctl.h"

struct mirrored {
    struct controllers *all;
    enum kind kind;
    struct mirror *mirror;
    int by_owner, by_node;
};
struct slot {
    struct ctl ctl;
    struct env_timer *next; /* runs when there is more to do than one turn took */
};
struct controllers {
    struct client *client;
    struct env *env;
    struct controllers_opts opts;
    struct arena *pass; /* one pass at a time, so one arena for all */
    struct arena *news;
    struct mirrored kinds[KINDS];
    struct slot *slots;
    uint32_t slots_n;
    struct controllers_stats stats;
    bool mirroring, running; /* all mirrors were asked for; all are filled */
};
