/* apiserver/hooks_quota.c - LimitRanges: defaults and bounds for the containers of a pod. */
#include "apiserver/hooks.h"

/* Puts what the range has for a container's requests or limits where the container has nothing. */
static void put_defaults(struct call *c, struct val *container, const char *which,
                         const struct val *defaults)
{
    struct val *resources = val_need_map(c->a, container, "resources");

    VAL_EACH_MEMBER(defaults, m) {
        struct val *have = val_need_map(c->a, resources, which);

        if (!val_get(have, m->key))
            val_put(c->a, have, m->key, &m->v);
    }
}

static int check_bound(struct call *c, const struct val *v, const struct val *container,
                       const struct val *bounds, const char *which, bool max)
{
    VAL_EACH_MEMBER(bounds, m) {
        const struct val *got = val_get(val_get(val_get(container, "resources"), which), m->key);
        double bound = quantity_num(&m->v, 0), is = quantity_num(got, -1);

        if (max ? (!got || is > bound) : (!got || is < bound))
            return fail_forbidden(c, val_str_at(v, "metadata.name", ""),
                                  "%s %s usage per Container is %s%s", max ? "maximum" : "minimum",
                                  m->key, val_text(&m->v, ""),
                                  got ? arena_printf(c->a, ", but %s is %s",
                                                     max ? "limit" : "request", val_text(got, ""))
                                      : max ? ".  No limit is specified"
                                            : ".  No request is specified");
    }
    return 0;
}

int limits_admit(struct call *c, struct val *pod)
{
    static const char *const lists[] = {"containers", "initContainers"};
    struct store_iter it;
    struct err err = {0};
    const struct obj *o;
    int r = 0;

    if (store_iter_init(&it, c->api->store, table_named(c->api->store, "", "limitranges"),
                        c->path.ns, 0, NULL, NULL, &err) < 0)
        return fail_err(c, &err);
    while (r == 0 && (o = store_iter_next(&it))) {
        pin_obj(c->a, obj_ref(o));
        VAL_EACH(val_at(obj_val(o), "spec.limits"), limit) {
            if (!streq(val_str_at(limit, "type", ""), "Container"))
                continue;
            for (size_t i = 0; r == 0 && i < ARRAY_LEN(lists); i++) {
                VAL_EACH(val_get(val_get(pod, "spec"), lists[i]), ct) {
                    if (!val_is(ct, VAL_MAP))
                        continue;
                    put_defaults(c, ct, "limits", val_get(limit, "default"));
                    put_defaults(c, ct, "requests", val_get(limit, "defaultRequest"));
                    if (check_bound(c, pod, ct, val_get(limit, "max"), "limits", true) < 0 ||
                        check_bound(c, pod, ct, val_get(limit, "min"), "requests", false) < 0) {
                        r = -1;
                        break;
                    }
                }
            }
        }
    }
    store_iter_done(&it);
    return r;
}
