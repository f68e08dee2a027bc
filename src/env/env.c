#include "env/env_int.h"

#include <stdio.h>

void *env_free(struct env *env)
{
    if (env)
        env->ops->free(env);
    return NULL;
}

uv_loop_t *env_loop(struct env *env)
{
    return env->ops->loop(env);
}

int64_t env_now_ms(struct env *env)
{
    return env->ops->now_ms(env);
}

int64_t env_mono_us(struct env *env)
{
    return env->ops->mono_us(env);
}

void env_bytes(struct env *env, void *p, size_t n)
{
    env->ops->bytes(env, p, n);
}

uint64_t env_random(struct env *env)
{
    uint64_t v;

    env->ops->bytes(env, &v, sizeof v);
    return v;
}

uint32_t env_below(struct env *env, uint32_t n)
{
    ASSERT(n > 0);
    return (uint32_t)(env_random(env) % n); /* bias below 2^-32 */
}

const char *env_uuid(struct env *env, char out[ENV_UUID_BYTES])
{
    uint8_t b[16];

    env_bytes(env, b, sizeof b);
    return uuid_text(b, out);
}

const char *env_suffix(struct env *env, char out[ENV_SUFFIX_BYTES])
{
    /* Kubernetes' alphabet: no vowels and no look-alikes, so no words and no misreading */
    static const char letters[] = "bcdfghjklmnpqrstvwxz2456789";

    for (int i = 0; i < ENV_SUFFIX_BYTES - 1; i++)
        out[i] = letters[env_below(env, sizeof letters - 1)];
    out[ENV_SUFFIX_BYTES - 1] = 0;
    return out;
}

struct env_timer *env_timer_new(struct env *env, env_fn *fn, void *arg)
{
    struct env_timer *t = env->ops->timer_new(env, fn, arg);

    t->env = env;
    t->fn = fn;
    t->arg = arg;
    return t;
}

void env_timer_start(struct env_timer *t, int64_t delay_ms, int64_t repeat_ms)
{
    t->env->ops->timer_start(t, delay_ms < 0 ? 0 : delay_ms, repeat_ms < 0 ? 0 : repeat_ms);
}

void env_timer_stop(struct env_timer *t)
{
    t->env->ops->timer_stop(t);
}

bool env_timer_active(const struct env_timer *t)
{
    return t->env->ops->timer_active(t);
}

void *env_timer_free(struct env_timer *t)
{
    if (t)
        t->env->ops->timer_free(t);
    return NULL;
}

void env_post(struct env *env, env_fn *fn, void *arg)
{
    env->ops->post(env, fn, arg);
}
