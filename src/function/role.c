/* In whose name a function's code acts: the keys of its role, or those that all functions share; what runs with keys that are no
 * more, or with none, starts anew. */
#include "function/function_int.h"

/* The keys of its role, or those that all functions share. */
void role_keys(struct version *v, struct arena *a, struct function_keys *ret)
{
    struct functions *fs = v->f->fs;
    const char *role = v->f->obj ? val_str_at(version_spec(v->f->obj), "role", "") : "";
    struct function_keys k = {0};
    bool own = *role && fs->keys_of && fs->keys_of(fs->keys_arg, a, role, v->f->name, &k);

    v->keyless = own && !k.access_key;
    v->renew_us = own && k.seconds ? now_us() + k.seconds * 1000000 / 2 : 0;
    if (!own)
        k = (struct function_keys){.access_key = fs->access_key, .secret_key = fs->secret_key};
    *ret = k;
}

void role_put_keys(struct version *v, struct arena *a, struct val *env)
{
    struct function_keys k;

    role_keys(v, a, &k);
    if (!k.access_key || !k.secret_key)
        return;
    val_put_str(a, env, "AWS_ACCESS_KEY_ID", k.access_key);
    val_put_str(a, env, "AWS_SECRET_ACCESS_KEY", k.secret_key);
    if (k.session_token)
        val_put_str(a, env, "AWS_SESSION_TOKEN", k.session_token);
}

/* Its keys are others now. Who has them in his environment starts anew. */
static void renew(struct version *v)
{
    if (v->snap.state != SNAP_NONE)
        snapshot_keys_renew(v);
    else
        version_replace(v->f);
}

void functions_set_key(struct functions *fs, const char *access_key, const char *secret_key)
{
    if (streq0(fs->access_key, access_key) && streq0(fs->secret_key, secret_key))
        return;
    free(fs->access_key);
    free(fs->secret_key);
    fs->access_key = access_key ? xstrdup(access_key) : NULL;
    fs->secret_key = secret_key ? xstrdup(secret_key) : NULL;
    LIST_EACH(&fs->all, l)
    {
        struct function *f = list_entry(l, struct function, link);

        if (f->now && f->now->zygote != ZYGOTE_NONE) /* it runs with the old ones, or none */
            renew(f->now);
    }
}

void functions_set_keys_of(struct functions *fs, function_keys_fn *keys_of, void *arg)
{
    fs->keys_of = keys_of;
    fs->keys_arg = arg;
}

void functions_role_changed(struct functions *fs, const char *role)
{
    LIST_EACH(&fs->all, l)
    {
        struct function *f = list_entry(l, struct function, link);
        bool runs = !f->removed && f->obj && f->now && f->now->zygote != ZYGOTE_NONE;

        if (!fs->stopping && runs && (role ? streq(val_str_at(version_spec(f->obj), "role", ""), role) : f->now->keyless))
            renew(f->now);
    }
}

enum { RENEW_LOOK_US = 60 * 1000000 };

void functions_renew_keys(struct functions *fs)
{
    int64_t now = now_us();

    if (fs->stopping || now - fs->renew_look_us < RENEW_LOOK_US)
        return;
    fs->renew_look_us = now;
    LIST_EACH(&fs->all, l)
    {
        struct function *f = list_entry(l, struct function, link);

        if (!f->removed && f->obj && f->now && f->now->zygote != ZYGOTE_NONE && f->now->renew_us && now > f->now->renew_us)
            renew(f->now);
    }
}
