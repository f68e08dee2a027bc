/* env/env.h - the outside world, as far as the store, the controllers and the scheduler need it:
 * clock, random, timers, "later on this loop". There are two of them behind one table: the real one
 * runs on a libuv loop, the simulated one plays a whole cluster in one thread from a seed.
 *
 * Code of those rooms takes a struct env and never asks the system itself; so a run can be played
 * again from its seed. Thread: the loop's own, except env_post() (see there). */
#pragma once

#include "base/base.h"
#include "env/random.h"

struct env;
struct env_timer;
typedef struct uv_loop_s uv_loop_t; /* <uv.h> is only needed by who runs the loop */

typedef void env_fn(void *arg);

/* The real world on this loop. The loop stays the caller's; env_free first, then run the loop once
 * more (handles close in their callbacks), then uv_loop_close. */
struct env *env_real_new(uv_loop_t *loop);
/* A simulated one. Time stands at 2026-01-01T00:00:00Z until env_sim_step() moves it. */
struct env *env_sim_new(uint64_t seed);
void *env_free(struct env *env); /* timers must be gone; what was posted and not run is dropped */
DEFINE_AUTO(struct env *, env_free, env_free)

uv_loop_t *env_loop(struct env *env); /* NULL in the simulation */

/* Clocks. Wall time may jump, the monotonic one never goes back. */
int64_t env_now_ms(struct env *env);  /* since 1970 */
int64_t env_mono_us(struct env *env);

/* Random. Good enough for tokens in the real world, replayable in the simulated one. */
uint64_t env_random(struct env *env);
uint32_t env_below(struct env *env, uint32_t n); /* 0 .. n-1; n > 0 */
void env_bytes(struct env *env, void *p, size_t n);
enum { ENV_UUID_BYTES = UUID_BYTES, ENV_SUFFIX_BYTES = 6 };
const char *env_uuid(struct env *env, char out[ENV_UUID_BYTES]);     /* version 4; gives back out */
const char *env_suffix(struct env *env, char out[ENV_SUFFIX_BYTES]); /* 5 letters as generateName's */

/* Timers. Made stopped. start: fn after delay_ms, then every repeat_ms (0: once); starting a
 * running one starts it anew. Inside fn the timer may be started, stopped or freed. */
struct env_timer *env_timer_new(struct env *env, env_fn *fn, void *arg);
void env_timer_start(struct env_timer *t, int64_t delay_ms, int64_t repeat_ms);
void env_timer_stop(struct env_timer *t); /* stopped is fine */
bool env_timer_active(const struct env_timer *t);
void *env_timer_free(struct env_timer *t); /* NULL is fine; fn is not called any more */
DEFINE_AUTO(struct env_timer *, env_timer_free, env_timer_free)

/* Runs fn(arg) on the loop, soon, never inside this call; what is posted by one thread runs in
 * that order. From any thread in the real world (the env must outlive the call). */
void env_post(struct env *env, env_fn *fn, void *arg);

/* --- the simulated one only ---------------------------------------------------------------- */
/* Runs the next event: what was posted (in order), else the earliest timer (among equals the seed
 * chooses), moving the clock there. false: nothing is left to happen. */
bool env_sim_step(struct env *env);
/* Steps until the clock stands at t_ms (wall); returns the events run. */
uint64_t env_sim_run_until(struct env *env, int64_t t_ms);
/* Steps until nothing is posted and no timer is due at the present moment. */
uint64_t env_sim_settle(struct env *env);
