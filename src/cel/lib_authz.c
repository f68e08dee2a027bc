/* cel/lib_authz.c - the authorizer: attributes are collected step by step, check() asks the caller. */
#include "cel/lib.h"

#include "codec/regex.h"

#include <ctype.h>

#define NO_OVERLOAD no_overload(e, call, args, n)

static struct cel_value make(struct arena *a, const struct authz_value *v, enum opaque what, const struct cel_type *type)
{
    struct authz_value *o = arena_memdup(a, v, sizeof *v);

    o->head.what = (uint8_t)what;
    return opaque_value(&o->head, type);
}

struct cel_value cel_authorizer(struct arena *a, const struct cel_authorizer *auth)
{
    struct authz_value v = {.auth = auth, .check = {.group = "", .version = "*", .resource = "", .subresource = "",
                                                    .namespace_ = "", .name = "", .verb = ""}};

    return make(a, &v, OPAQUE_AUTHORIZER, &cel_authorizer_type);
}

struct cel_value cel_resource_check(struct arena *a, const struct cel_authorizer *auth, const struct cel_check *res)
{
    struct authz_value v = {.auth = auth, .check = *res};

    v.check.version = "*"; /* upstream asks for any version, too */
    v.check.verb = "";
    return make(a, &v, OPAQUE_RESOURCE, &cel_resource_check_type);
}

static bool blank(const char *s)
{
    while (isspace((unsigned char)*s))
        s++;
    return !*s;
}

static bool dns_name(const char *s, bool points)
{
    size_t n = strlen(s);

    if (!n || n > (points ? 253 : 63))
        return false;
    for (const char *p = s; *p; p++) {
        bool alnum = islower((unsigned char)*p) || isdigit((unsigned char)*p);
        bool edge = p == s || !p[1] || p[-1] == '.' || p[1] == '.';
        if (!alnum && !(*p == '-' && !edge) && !(points && *p == '.' && !edge))
            return false;
    }
    return true;
}

static struct cel_value next(struct eval *e, const struct authz_value *v, enum opaque what, const struct cel_type *type)
{
    e->bytes += sizeof *v + 64;
    return make(e->arena, v, what, type);
}

FN(fn_authz_build)
{
    const char *name = call->fn->name, *s, *second = NULL;
    struct authz_value v;
    uint8_t what;

    if (args[0].kind != CEL_OPAQUE || args[0].opaque->what < OPAQUE_AUTHORIZER || args[0].opaque->what > OPAQUE_RESOURCE ||
        args[1].kind != CEL_STRING || (n > 2 && args[2].kind != CEL_STRING))
        return NO_OVERLOAD;
    what = args[0].opaque->what;
    v = *(const struct authz_value *)args[0].opaque;
    s = make_str(e, args[1].s, args[1].n).s;
    if (n > 2)
        second = make_str(e, args[2].s, args[2].n).s;
    if (streq(name, "path") && what == OPAQUE_AUTHORIZER) {
        v.check.path = s;
        return blank(s) ? fail_lit("path must not be empty") : next(e, &v, OPAQUE_PATH, &cel_path_check_type);
    }
    if (streq(name, "group") && what == OPAQUE_AUTHORIZER) {
        v.check.group = s;
        return next(e, &v, OPAQUE_GROUP, &cel_group_check_type);
    }
    if (streq(name, "serviceAccount") && what == OPAQUE_AUTHORIZER && second) {
        if (!dns_name(second, true))
            return fail_lit("Invalid service account name");
        if (!dns_name(s, false))
            return fail_lit("Invalid service account namespace");
        v.check.service_account_namespace = s;
        v.check.service_account_name = second;
        return next(e, &v, OPAQUE_AUTHORIZER, &cel_authorizer_type);
    }
    if (streq(name, "resource") && what == OPAQUE_GROUP) {
        v.check.resource = s;
        return blank(s) ? fail_lit("resource must not be empty") : next(e, &v, OPAQUE_RESOURCE, &cel_resource_check_type);
    }
    if (what != OPAQUE_RESOURCE)
        return NO_OVERLOAD;
    if (streq(name, "subresource"))
        v.check.subresource = s;
    else if (streq(name, "namespace"))
        v.check.namespace_ = s;
    else if (streq(name, "name"))
        v.check.name = s;
    else if (streq(name, "fieldSelector"))
        v.check.field_selector = *s ? s : NULL;
    else if (streq(name, "labelSelector"))
        v.check.label_selector = *s ? s : NULL;
    else
        return NO_OVERLOAD;
    return next(e, &v, OPAQUE_RESOURCE, &cel_resource_check_type);
}

FN(fn_authz_check)
{
    struct decision_value *d;
    struct authz_value v;

    if (args[0].kind != CEL_OPAQUE || (args[0].opaque->what != OPAQUE_PATH && args[0].opaque->what != OPAQUE_RESOURCE) ||
        args[1].kind != CEL_STRING)
        return NO_OVERLOAD;
    v = *(const struct authz_value *)args[0].opaque;
    v.check.verb = make_str(e, args[1].s, args[1].n).s;
    d = mem(e, sizeof *d);
    d->head.what = OPAQUE_DECISION;
    d->d.reason = "";
    v.auth->check(v.auth->data, &v.check, e->arena, &d->d);
    return opaque_value(&d->head, &cel_decision_type);
}

FN(fn_decision)
{
    const struct cel_decision *d;
    const char *name = call->fn->name;

    if (args[0].kind != CEL_OPAQUE || args[0].opaque->what != OPAQUE_DECISION)
        return NO_OVERLOAD;
    d = &((const struct decision_value *)args[0].opaque)->d;
    if (streq(name, "allowed"))
        return cel_bool(d->allowed);
    if (streq(name, "errored"))
        return cel_bool(d->error);
    return cel_str(streq(name, "error") ? (d->error ? d->error : "") : d->reason ? d->reason : "");
}
