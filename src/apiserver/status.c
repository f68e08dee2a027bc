/* apiserver/status.c - errors as Kubernetes words them. */
#include "apiserver/api_int.h"

#include <stdarg.h>

struct val *status_doc(struct arena *a, int code, const char *reason, const char *message)
{
    struct val *s = val_map(a);

    val_put_str(a, s, "kind", "Status");
    val_put_str(a, s, "apiVersion", "v1");
    val_put(a, s, "metadata", val_map(a));
    val_put_str(a, s, "status", code < 400 ? "Success" : "Failure");
    if (!str_empty(message))
        val_put_str(a, s, "message", message);
    if (!str_empty(reason))
        val_put_str(a, s, "reason", reason);
    val_put_int(a, s, "code", code);
    return s;
}

int fail_status(struct call *c, const struct val *status)
{
    struct api_response *r = &c->resp;

    *r = (struct api_response){.status = (int)val_int_at(status, "code", 500), .val = status,
                               .content_type = "application/json", .remaining = -1,
                               .warnings = r->warnings};
    if (val_int_at(status, "details.retryAfterSeconds", 0))
        r->retry_after = arena_printf(c->a, "%lld",
                                      (long long)val_int_at(status, "details.retryAfterSeconds", 0));
    return -1;
}

int fail(struct call *c, int code, const char *reason, const char *fmt, ...)
{
    struct buf b = {.max = 1 << 16};
    va_list ap;

    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    fail_status(c, status_doc(c->a, code, reason, b.p ? b.p : ""));
    buf_done(&b);
    return -1;
}

int fail_internal(struct call *c, const char *why)
{
    struct val *s, *d = val_map(c->a), *cause = val_map(c->a);

    s = status_doc(c->a, 500, "InternalError", arena_printf(c->a, "Internal error occurred: %s", why));
    val_put_str(c->a, cause, "message", why);
    val_push(c->a, val_need_list(c->a, d, "causes"), cause);
    val_put(c->a, s, "details", d);
    return fail_status(c, s);
}

int fail_err(struct call *c, const struct err *err)
{
    return fail(c, err_http(err->code), err_reason(err->code), "%s", err->msg);
}

static struct val *details(struct call *c, struct val *s, const char *group, const char *plural,
                           const char *name)
{
    struct val *d = val_map(c->a);

    if (!str_empty(name))
        val_put_str(c->a, d, "name", name);
    if (!str_empty(group))
        val_put_str(c->a, d, "group", group);
    if (!str_empty(plural))
        val_put_str(c->a, d, "kind", plural);
    return val_put(c->a, s, "details", d);
}

/* "deployments.apps" */
static const char *qualified(struct call *c, const char *group, const char *plural)
{
    return str_empty(group) ? plural : arena_printf(c->a, "%s.%s", plural, group);
}

int fail_not_found_in(struct call *c, const char *group, const char *plural, const char *name)
{
    struct val *s = status_doc(c->a, 404, "NotFound",
                               arena_printf(c->a, "%s \"%s\" not found",
                                            qualified(c, group, plural), name));

    details(c, s, group, plural, name);
    return fail_status(c, s);
}

int fail_not_found(struct call *c, const char *name)
{
    return fail_not_found_in(c, c->r->group, c->r->plural, name);
}

int fail_exists(struct call *c, const char *name)
{
    struct val *s = status_doc(c->a, 409, "AlreadyExists",
                               arena_printf(c->a, "%s \"%s\" already exists",
                                            qualified(c, c->r->group, c->r->plural), name));

    details(c, s, c->r->group, c->r->plural, name);
    return fail_status(c, s);
}

int fail_conflict(struct call *c, const char *name, const char *fmt, ...)
{
    struct buf b = {.max = 1 << 16};
    struct val *s;
    va_list ap;

    buf_printf(&b, "Operation cannot be fulfilled on %s \"%s\": ",
               qualified(c, c->r->group, c->r->plural), name);
    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    s = status_doc(c->a, 409, "Conflict", b.p);
    buf_done(&b);
    details(c, s, c->r->group, c->r->plural, name);
    return fail_status(c, s);
}

int fail_forbidden(struct call *c, const char *name, const char *fmt, ...)
{
    const char *group = c->r ? c->r->group : c->path.group;
    const char *plural = c->r ? c->r->plural : c->path.plural;
    struct buf b = {.max = 1 << 16};
    struct val *s;
    va_list ap;

    buf_printf(&b, "%s%s%s%s is forbidden: ", qualified(c, group, plural),
               str_empty(name) ? "" : " \"", str_empty(name) ? "" : name,
               str_empty(name) ? "" : "\"");
    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    s = status_doc(c->a, 403, "Forbidden", b.p);
    buf_done(&b);
    details(c, s, group, plural, name);
    return fail_status(c, s);
}

int fail_causes_of(struct call *c, const struct causes *causes, const char *group, const char *kind,
                   const char *name)
{
    struct val *s = causes_status_of(causes, c->a, group, kind, name), *d = val_get(s, "details");

    if (!*kind)
        val_del(d, "kind");
    if (!*group)
        val_del(d, "group");
    if (!*name)
        val_del(d, "name");
    return fail_status(c, s);
}

int fail_causes(struct call *c, const struct causes *causes, const char *name)
{
    return fail_status(c, causes_status(causes, c->a, c->r, name));
}

int fail_no_method(struct call *c)
{
    struct val *s = status_doc(c->a, 405, "MethodNotAllowed",
                               "the server does not allow this method on the requested resource");

    val_put(c->a, s, "details", val_map(c->a));
    return fail_status(c, s);
}

int fail_no_page(struct call *c)
{
    struct val *s = status_doc(c->a, 404, "NotFound", "the server could not find the requested resource");

    val_put(c->a, s, "details", val_map(c->a));
    return fail_status(c, s);
}

struct val *status_success(struct arena *a, const char *group, const char *plural,
                           const char *name, const char *uid)
{
    struct val *s = val_map(a), *d = val_map(a);

    val_put_str(a, s, "kind", "Status");
    val_put_str(a, s, "apiVersion", "v1");
    val_put(a, s, "metadata", val_map(a));
    val_put_str(a, s, "status", "Success");
    val_put_str(a, d, "name", name);
    if (*group)
        val_put_str(a, d, "group", group);
    val_put_str(a, d, "kind", plural);
    if (!str_empty(uid))
        val_put_str(a, d, "uid", uid);
    val_put(a, s, "details", d);
    return s;
}
