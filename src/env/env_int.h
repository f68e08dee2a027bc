/* env/env_int.h - the table behind a struct env. */
#pragma once

#include "env/env.h"

struct env_ops {
    int64_t (*now_ms)(struct env *env);
    int64_t (*mono_us)(struct env *env);
    void (*bytes)(struct env *env, void *p, size_t n);
    struct env_timer *(*timer_new)(struct env *env, env_fn *fn, void *arg);
    void (*timer_start)(struct env_timer *t, int64_t delay_ms, int64_t repeat_ms);
    void (*timer_stop)(struct env_timer *t);
    bool (*timer_active)(const struct env_timer *t);
    void (*timer_free)(struct env_timer *t);
    void (*post)(struct env *env, env_fn *fn, void *arg);
    void (*free)(struct env *env);
    uv_loop_t *(*loop)(struct env *env);
};
struct env {
    const struct env_ops *ops;
};
struct env_timer {
    struct env *env;
    env_fn *fn;
    void *arg;
};

/* One call that was posted. */
struct env_posted {
    struct env_posted *next;
    env_fn *fn;
    void *arg;
};
