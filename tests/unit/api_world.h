/* The API over a store in memory and a simulated clock: the same code as in the server, but for the
 * sockets. What the tests of the API and of the controllers stand on. */
#pragma once

#include "apiserver/apiserver.h"
#include "auth/pki.h"
#include "env/env.h"
#include "schema/schema.h"
#include "store/engine.h"
#include "store/store.h"

#include "tt.h"

#include <unistd.h>

#define API_WORLD                                                                                  \
    char dir[32];                                                                                  \
    struct env *env;                                                                               \
    struct store *store;                                                                           \
    struct store_disk *disk;                                                                       \
    struct schema *schema;                                                                         \
    struct pki *pki;                                                                               \
    struct api *api;                                                                               \
    struct arena *a;

struct api_world {
    API_WORLD
};

/* Nothing that a value tree or text borrows outlives a turn of the loop here: the cache holds a byte. */
static inline void api_world_up(struct api_world *w, uint64_t seed)
{
    struct store_args args = {.cache_bytes = 1, .engine = &store_memory};
    struct api_config config = {.state_dir = w->dir, .host = "192.0.2.1", .port = 6443};
    struct err err = {0};

    strcpy(w->dir, "/tmp/ttapiXXXXXX");
    assert_non_null(mkdtemp(w->dir));
    args.env = config.env = w->env = env_sim_new(seed);
    args.disk = w->disk = store_disk_new(w->env, 1, 3);
    assert_non_null(config.store = w->store = store_open(&args, &err));
    config.schema = w->schema = schema_new();
    assert_non_null(config.pki = w->pki = pki_open(w->dir, NULL, &err));
    if (!(w->api = api_new(&config, &err)))
        fail_msg("%s", err.msg);
    w->a = arena_new();
}

/* The disk of this world takes some milliseconds. */
static inline void api_world_settle(struct api_world *w)
{
    env_sim_run_until(w->env, env_now_ms(w->env) + 50);
}

static inline void api_world_down(struct api_world *w)
{
    char command[64];

    api_world_settle(w);
    api_free(w->api);
    store_close(w->store);
    store_disk_free(w->disk);
    env_free(w->env);
    schema_free(w->schema);
    pki_free(w->pki);
    snprintf(command, sizeof command, "rm -r %s", w->dir);
    assert_int_equal(system(command), 0);
}

/* Set-up and tear-down of a test that needs no more. */
static inline int api_world_set_up(void **state)
{
    *state = xcalloc(1, sizeof(struct api_world));
    api_world_up(*state, 7);
    return 0;
}
static inline int api_world_tear_down(void **state)
{
    arena_free(((struct api_world *)*state)->a);
    api_world_down(*state);
    free(*state);
    return 0;
}
