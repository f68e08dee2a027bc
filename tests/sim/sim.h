/* tests/sim/sim.h - a whole cluster in one thread: API server, store, controllers and scheduler are
 * the real ones; clock, disk and nodes are played, from one seed. */
#pragma once

#include "apiserver/apiserver.h"
#include "base/list.h"
#include "base/map.h"
#include "client/client.h"
#include "controller/controllers.h"
#include "env/env.h"
#include "schema/schema.h"
#include "scheduler/scheduler.h"
#include "store/engine.h"

#include <stdio.h>

struct pki;
struct node;

enum { NODES = 3 };

struct sim {
    uint64_t seed;
    bool trace;
    struct env *env;
    struct store_disk *disk;
    struct schema *schema; /* shared by all runs of this process */
    struct pki *pki;
    const char *state_dir;
    /* what dies in a crash */
    struct store *store;
    struct api *api;
    struct client *user, *manager_client, *scheduler_client;
    struct controllers *controllers;
    struct scheduler *scheduler;
    struct store_watch *watch;
    struct node *nodes[NODES]; /* NULL: away */
    struct map bound;          /* pod uid -> node name: for "bound once" */
    bool full;
    /* what happened */
    uint64_t hash; /* over all durable events: a replay must come to the same */
    uint32_t events, ops, refused, crashes, fulls, gone, removed, died;
    uint64_t written, beats; /* changes that went to the disk, and those that did not have to */
    char wrong[600]; /* the first invariant that broke; "" */
};
#define SIM_TRACE(s, ...)                                                                          \
    do {                                                                                           \
        if ((s)->trace) {                                                                          \
            fprintf(stderr, "%8.3f ", (double)env_mono_us((s)->env) / 1e6);                        \
            fprintf(stderr, __VA_ARGS__);                                                          \
            fputc('\n', stderr);                                                                   \
        }                                                                                          \
    } while (0)
void sim_wrong(struct sim *s, const char *fmt, ...) _printf_(2, 3); /* only the first is kept */

/* world.c */
void world_start(struct sim *s);
void world_crash(struct sim *s); /* all processes die; what is durable stays */
void world_stop(struct sim *s);

/* node.c */
struct node *node_start(struct sim *s, int number);
void *node_stop(struct node *n); /* as if its cable was pulled */
const char *node_name(int number);

/* chaos.c: one random thing happens */
void chaos_step(struct sim *s);
void chaos_heal(struct sim *s);

/* check.c: why the cluster is not at rest as it should be, in out; true: it is */
bool check_rest(struct sim *s, char *out, size_t out_n);
