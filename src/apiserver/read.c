/* apiserver/read.c - get and list. */
#include "apiserver/api_int.h"

#include "codec/json.h"

#include <ctype.h>

bool parse_revision(const char *s, int64_t *ret)
{
    int64_t n = 0;

    if (!*s) {
        *ret = 0;
        return true;
    }
    for (; *s; s++) {
        if (!isdigit((unsigned char)*s) || n > INT64_MAX / 10 - 10)
            return false;
        n = n * 10 + (*s - '0');
    }
    *ret = n;
    return true;
}

struct val *too_new(struct call *c, int64_t wanted)
{
    struct val *s = status_doc(c->a, 504, "Timeout",
                               arena_printf(c->a, "Timeout: Too large resource version: %lld, current: %lld",
                                            (long long)wanted,
                                            (long long)store_head(c->api->store)));
    struct val *d = val_map(c->a), *cause = val_map(c->a);

    val_put_str(c->a, cause, "reason", "ResourceVersionTooLarge");
    val_put_str(c->a, cause, "message", "Too large resource version");
    val_push(c->a, val_need_list(c->a, d, "causes"), cause);
    val_put_int(c->a, d, "retryAfterSeconds", 1);
    val_put(c->a, s, "details", d);
    return s;
}

static int fail_too_new(struct call *c, int64_t wanted)
{
    return fail_status(c, too_new(c, wanted));
}

const struct obj *find(struct call *c)
{
    const struct obj *o = store_get(c->api->store, c->table, c->path.ns, c->path.name);

    if (o)
        pin_obj(c->a, obj_ref(o));
    return o;
}

int read_get(struct call *c)
{
    int64_t rv;
    const struct obj *o;

    if (answer_negotiate(c, false, true) < 0)
        return -1;
    if (!parse_revision(c->o.resource_version, &rv))
        return fail(c, 500, "", "invalid resource version \"%s\"", c->o.resource_version);
    if (rv > store_head(c->api->store))
        return fail_too_new(c, rv);
    if (!(o = find(c)))
        return fail_not_found(c, c->path.name);
    c->resp.revision = o->revision;
    answer_obj(c, 200, o);
    return 0;
}

/* ---------------------------------------------------------------- list */

/* A page ends at (revision, namespace, name): base64url of {"v":..,"rv":..,"start":"ns/name"}.
 * Revision -1: whatever is there now behind that name; given out when the revision is forgotten. */
static const char b64[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static char *token_make_(struct arena *a, int64_t rv, const char *ns, const char *name)
{
    char *text = arena_printf(a, "{\"v\":\"meta.k8s.io/v1\",\"rv\":%lld,\"start\":\"%s/%s\"}",
                              (long long)rv, ns, name);
    size_t n = strlen(text);
    char *out = arena_alloc(a, n * 4 / 3 + 4), *o = out;

    for (size_t i = 0; i < n; i += 3) {
        uint32_t v = (uint32_t)(unsigned char)text[i] << 16 |
                     (i + 1 < n ? (uint32_t)(unsigned char)text[i + 1] << 8 : 0) |
                     (i + 2 < n ? (unsigned char)text[i + 2] : 0);

        *o++ = b64[v >> 18];
        *o++ = b64[v >> 12 & 63];
        if (i + 1 < n)
            *o++ = b64[v >> 6 & 63];
        if (i + 2 < n)
            *o++ = b64[v & 63];
    }
    return out;
}

static bool token_read(struct arena *a, const char *s, int64_t *ret_rv, char **ret_ns, char **ret_name)
{
    size_t n = strlen(s), o = 0;
    char *text = arena_alloc(a, n + 4), *slash;
    struct err ignored = {0};
    const struct val *v;
    uint32_t bits = 0;
    int have = 0;

    for (size_t i = 0; i < n; i++) {
        const char *at = strchr(b64, s[i]);

        if (!at || !*at)
            return false;
        bits = bits << 6 | (uint32_t)(at - b64);
        if ((have += 6) >= 8)
            text[o++] = (char)(bits >> (have -= 8));
    }
    v = json_parse(a, text, o, &ignored);
    *ret_rv = val_int_at(v, "rv", -2);
    text = arena_strdup(a, val_str_at(v, "start", ""));
    slash = strchr(text, '/');
    if (*ret_rv < -1 || !slash)
        return false;
    *slash = 0;
    *ret_ns = text;
    *ret_name = slash + 1;
    return true;
}

struct listing {
    int64_t revision; /* 0: head */
    char *after_ns, *after_name;
    struct selector *labels;
    struct field_selector *fields;
};

/* The revision is forgotten. Whoever was paging may go on where he was, with what is there now. */
static int fail_gone(struct call *c, const struct listing *l)
{
    struct val *s, *meta = val_map(c->a);

    if (!*c->o.continue_)
        return fail(c, 410, "Expired", "The resourceVersion for the provided list is too old.");
    s = status_doc(c->a, 410, "Expired",
                   "The provided continue parameter is too old to display a consistent list result. "
                   "You can start a new list without the continue parameter, or use the continue token "
                   "in this response to retrieve the remainder of the results. Continuing with the "
                   "provided token results in an inconsistent list - objects that were created, "
                   "modified, or deleted between the time the first chunk was returned and now may "
                   "show up in the list.");
    val_put_str(c->a, meta, "continue", token_make_(c->a, -1, l->after_ns, l->after_name));
    val_put(c->a, s, "metadata", meta);
    return fail_status(c, s);
}

static int list_options(struct call *c, struct listing *l)
{
    struct err err = {0};
    int64_t rv;

    if (!(l->labels = selector_parse(c->a, c->o.label_selector, &err)))
        return fail(c, 400, "BadRequest", "unable to parse requirement: %s", err.msg);
    if (!(l->fields = field_selector_parse(c->r, c->a, c->o.field_selector, &err)))
        return fail(c, 400, "BadRequest", "%s", err.msg);
    if (!parse_revision(c->o.resource_version, &rv))
        return fail(c, 400, "BadRequest", "invalid resource version \"%s\"", c->o.resource_version);
    if (*c->o.continue_) {
        if (*c->o.resource_version && rv != 0)
            return fail(c, 400, "BadRequest",
                        "specifying resource version is not allowed when using continue");
        if (!token_read(c->a, c->o.continue_, &l->revision, &l->after_ns, &l->after_name))
            return fail(c, 400, "BadRequest", "continue key is not valid");
        if (l->revision < 0)
            l->revision = 0;
        return 0;
    }
    if (rv > store_head(c->api->store))
        return fail_too_new(c, rv);
    /* "0" is answered out of a cache upstream, in one piece; events have no cache there */
    if (*c->o.resource_version && !rv && !streq(c->stored->plural, "events"))
        c->o.limit = 0;
    if (streq(c->o.resource_version_match, "Exact") ||
        (rv && c->o.limit > 0 && !*c->o.resource_version_match))
        l->revision = rv;
    return 0;
}

static void keep(struct call *c, struct listed *l, const struct obj *o, uint32_t *cap)
{
    if (l->n == *cap) {
        const struct obj **more = arena_array(c->a, const struct obj *, *cap * 2);

        memcpy(more, l->v, l->n * sizeof(*l->v));
        l->v = more;
        *cap *= 2;
    }
    pin_obj(c->a, obj_ref(o));
    l->v[l->n++] = o;
}

static bool wanted(struct call *c, const struct listing *l, const struct obj *o)
{
    unsigned had = obj_look(o);
    bool yes = selector_match(l->labels, val_get(obj_meta(o), "labels")) &&
               (field_selector_everything(l->fields) || field_selector_match(l->fields, answer_version(c, o)));

    obj_look_away(o, had);
    return yes;
}

int list_find(struct call *c, struct listed *ret)
{
    struct listing l = {0};
    struct store *s = c->api->store;
    struct store_iter it;
    struct err err = {0};
    const struct obj *o;
    const char *ns = *c->path.ns ? c->path.ns : NULL, *by_name;
    uint32_t cap = 64;
    bool whole;

    if (list_options(c, &l) < 0)
        return -1;
    *ret = (struct listed){.revision = l.revision ? l.revision : store_head(s), .remaining = -1,
                           .v = arena_array(c->a, const struct obj *, cap)};
    c->resp.revision = ret->revision;
    whole = selector_everything(l.labels) && field_selector_everything(l.fields);
    by_name = field_selector_exact(l.fields, "metadata.name");
    if (by_name && !l.revision && (ns || !c->r->namespaced)) {
        o = store_get(s, c->table, ns ? ns : "", by_name);
        if (o && wanted(c, &l, o))
            keep(c, ret, o, &cap);
        return 0;
    }
    if (store_iter_init(&it, s, c->table, ns, l.revision, l.after_ns, l.after_name, &err) < 0) {
        if (err.code == ERR_EXPIRED)
            return fail_gone(c, &l);
        return fail_err(c, &err);
    }
    while ((o = store_iter_next(&it))) {
        if (!whole && !wanted(c, &l, o))
            continue;
        if (c->o.limit > 0 && ret->n == (uint64_t)c->o.limit) {
            ret->next = token_make_(c->a, ret->revision, ret->v[ret->n - 1]->namespace_,
                                    ret->v[ret->n - 1]->name);
            if (whole)
                ret->remaining = store_iter_left(&it) + 1;
            break;
        }
        keep(c, ret, o, &cap);
    }
    store_iter_done(&it);
    return 0;
}

int read_list(struct call *c)
{
    struct listed l;

    if (options_list(c) < 0 || answer_negotiate(c, true, true) < 0 || list_find(c, &l) < 0)
        return -1;
    answer_list(c, l.v, l.n, l.revision, l.next, l.remaining);
    return 0;
}
