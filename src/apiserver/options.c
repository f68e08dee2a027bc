/* apiserver/options.c - the query: read as Kubernetes reads it, checked as it checks. */
#include "apiserver/api_int.h"

#include <ctype.h>
#include <errno.h>
#include <strings.h>

enum { PARAMS_MAX = 256, MANAGER_MAX = 128 };

int options_params(struct call *c)
{
    const char *q = c->req->query;
    uint32_t cap = 1;

    if (str_empty(q) || c->params)
        return 0;
    for (const char *p = q; *p; p++)
        cap += *p == '&';
    if (cap > PARAMS_MAX)
        return fail(c, 400, "BadRequest", "too many query parameters");
    c->params = arena_array(c->a, struct param, cap);
    while (*q) {
        size_t n = strcspn(q, "&"), eq = strcspn(q, "=");
        struct param *p = &c->params[c->params_n];

        if (eq > n)
            eq = n;
        p->name = path_unescape(c->a, q, eq, true);
        p->value = eq < n ? path_unescape(c->a, q + eq + 1, n - eq - 1, true) : "";
        if (p->name && p->value && *p->name)
            c->params_n++;
        q += n + (q[n] == '&');
    }
    return 0;
}

const char *param(const struct call *c, const char *name)
{
    for (uint32_t i = 0; i < c->params_n; i++)
        if (streq(c->params[i].name, name))
            return c->params[i].value;
    return NULL;
}

/* "" and any other word is yes; only "false" and "0" are no. */
bool param_bool(const struct call *c, const char *name)
{
    const char *v = param(c, name);

    return v && strcasecmp(v, "false") != 0 && !streq(v, "0");
}

static const char *param_text(const struct call *c, const char *name)
{
    const char *v = param(c, name);

    return v ? v : "";
}

static int param_int(struct call *c, const char *name, int64_t *ret, bool *ret_set)
{
    const char *v = param(c, name);
    char *end;

    if (str_empty(v))
        return 0;
    errno = 0;
    *ret = strtoll(v, &end, 10);
    if (*end || errno || isspace((unsigned char)*v))
        return fail(c, 400, "BadRequest",
                    "strconv.ParseInt: parsing \"%s\": invalid syntax", v);
    if (ret_set)
        *ret_set = true;
    return 0;
}

int options_read(struct call *c)
{
    struct options *o = &c->o;

    o->watch = param_bool(c, "watch") || c->path.old_watch;
    o->bookmarks = param_bool(c, "allowWatchBookmarks");
    o->send_initial_set = param(c, "sendInitialEvents") != NULL;
    o->send_initial = param_bool(c, "sendInitialEvents");
    o->force_set = param(c, "force") != NULL;
    o->force = param_bool(c, "force");
    o->label_selector = param_text(c, "labelSelector");
    o->field_selector = param_text(c, "fieldSelector");
    o->resource_version = param_text(c, "resourceVersion");
    o->resource_version_match = param_text(c, "resourceVersionMatch");
    o->continue_ = param_text(c, "continue");
    o->field_manager = param(c, "fieldManager");
    o->field_validation = param(c, "fieldValidation");
    o->pretty = param_bool(c, "pretty");
    return param_int(c, "limit", &o->limit, NULL) < 0 ||
                   param_int(c, "timeoutSeconds", &o->timeout_s, &o->timeout_set) < 0
               ? -1
               : 0;
}

static int fail_options(struct call *c, const struct causes *causes, const char *kind)
{
    return fail_causes_of(c, causes, "meta.k8s.io", kind, "");
}

/* ValidateListOptions, word for word in its conditions. */
int options_list(struct call *c)
{
    struct causes bad = {.a = c->a};
    const struct options *o = &c->o;
    const char *match = o->resource_version_match;

    if (o->watch) {
        if (*match && !o->send_initial_set)
            causes_add(&bad, CAUSE_FORBIDDEN, "resourceVersionMatch", NULL,
                       "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided");
        if (o->send_initial_set && !streq(match, "NotOlderThan"))
            causes_add(&bad, CAUSE_FORBIDDEN, "resourceVersionMatch", NULL,
                       "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        if (o->send_initial_set && *o->continue_)
            causes_add(&bad, CAUSE_FORBIDDEN, "continue", NULL,
                       "sendInitialEvents is forbidden with continue");
    } else {
        if (o->send_initial_set)
            causes_add(&bad, CAUSE_FORBIDDEN, "sendInitialEvents", NULL,
                       "sendInitialEvents is forbidden for list");
        if (*match && !*o->resource_version)
            causes_add(&bad, CAUSE_FORBIDDEN, "resourceVersionMatch", NULL,
                       "resourceVersionMatch is forbidden unless resourceVersion is provided");
        if (*match && *o->continue_)
            causes_add(&bad, CAUSE_FORBIDDEN, "resourceVersionMatch", NULL,
                       "resourceVersionMatch is forbidden when continue is provided");
        if (*match && !streq(match, "Exact") && !streq(match, "NotOlderThan"))
            causes_add(&bad, CAUSE_NOT_SUPPORTED, "resourceVersionMatch", val_str(c->a, match),
                       "supported values: \"Exact\", \"NotOlderThan\", \"\"");
        if (streq(match, "Exact") && streq(o->resource_version, "0"))
            causes_add(&bad, CAUSE_FORBIDDEN, "resourceVersionMatch", NULL,
                       "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
    }
    if (o->watch && *match && !streq(match, "NotOlderThan"))
        causes_add(&bad, CAUSE_NOT_SUPPORTED, "resourceVersionMatch", val_str(c->a, match), "%s",
                   "supported values: \"NotOlderThan\"");
    return bad.n ? fail_options(c, &bad, "ListOptions") : 0;
}

static void check_dry_run(struct call *c, struct causes *bad)
{
    for (uint32_t i = 0; i < c->params_n; i++) {
        if (!streq(c->params[i].name, "dryRun"))
            continue;
        if (streq(c->params[i].value, "All"))
            c->o.dry_run = true;
        else
            causes_add(bad, CAUSE_NOT_SUPPORTED, "dryRun", val_str(c->a, c->params[i].value),
                       "supported values: \"All\"");
    }
}

int options_write(struct call *c, const char *kind)
{
    struct causes bad = {.a = c->a};
    struct options *o = &c->o;
    const char *type = c->req->content_type ? c->req->content_type : "";
    bool apply = streq(kind, "PatchOptions") && (str_starts(type, "application/apply-patch+yaml") ||
                                                 str_starts(type, "application/apply-patch+cbor"));

    check_dry_run(c, &bad);
    if (streq(kind, "DeleteOptions"))
        return bad.n ? fail_options(c, &bad, kind) : 0;
    if (apply && str_empty(o->field_manager))
        causes_add(&bad, CAUSE_REQUIRED, "fieldManager", NULL, "is required for apply patch");
    if (streq(kind, "PatchOptions") && !apply && o->force_set)
        causes_add(&bad, CAUSE_FORBIDDEN, "force", NULL, "may not be specified for non-apply patch");
    if (o->field_manager && strlen(o->field_manager) > MANAGER_MAX)
        causes_add(&bad, CAUSE_TOO_LONG, "fieldManager", NULL, "may not be more than 128 bytes");
    for (const char *p = o->field_manager; p && *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f) {
            causes_add(&bad, CAUSE_INVALID, "fieldManager", val_str(c->a, o->field_manager),
                       "should only contain printable characters");
            break;
        }
    if (!str_empty(o->field_validation) && !streq(o->field_validation, "Strict") &&
        !streq(o->field_validation, "Warn") && !streq(o->field_validation, "Ignore"))
        causes_add(&bad, CAUSE_NOT_SUPPORTED, "fieldValidation", val_str(c->a, o->field_validation),
                   "supported values: \"Ignore\", \"Warn\", \"Strict\"");
    return bad.n ? fail_options(c, &bad, kind) : 0;
}
