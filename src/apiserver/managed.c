/* apiserver/managed.c - see managed.h. The algorithm is upstream's: an update takes over what it
 * changes; an apply takes what it says, is refused when it changes what others say, and removes
 * what it said before, says no more and nobody else says. */
#include "apiserver/managed.h"

#include "apiserver/fieldset.h"
#include "codec/json.h"

#include <stdio.h>

enum { MANAGERS_MAX = 64, UPDATERS_MAX = 10, ANNOTATIONS_BYTES_MAX = 256 << 10 };

#define KUBECTL_MANAGER "kubectl"
#define LAST_APPLIED "kubectl.kubernetes.io/last-applied-configuration"

struct manager {
    const char *name, *operation, *api_version, *sub, *time;
    struct fset *fields;
    bool touched;
};

struct managers {
    struct manager v[MANAGERS_MAX];
    uint32_t n;
};

/* Fields that belong to nobody. */
static struct fset *nobodys(struct call *c)
{
    static const char *const paths[] = {
        "f:apiVersion", "f:kind", "f:metadata", "f:metadata f:name", "f:metadata f:namespace",
        "f:metadata f:creationTimestamp", "f:metadata f:selfLink", "f:metadata f:uid",
        "f:metadata f:clusterName", "f:metadata f:generation", "f:metadata f:managedFields",
        "f:metadata f:resourceVersion"};
    struct fset *s = fset_new(c->a);

    for (size_t i = 0; i < ARRAY_LEN(paths); i++)
        fset_add(c->a, s, paths[i]);
    return s;
}

/* What this request cannot write, with all below: the status, or everything but it. */
static struct fset *out_of_reach(struct call *c)
{
    struct fset *s = fset_new(c->a);
    bool status = c->sub && streq(c->sub->name, "status");
    bool flow = streq(c->r->group, "flowcontrol.apiserver.k8s.io");

    if (!c->r->custom && streq(c->r->plural, "certificatesigningrequests")) {
        fset_add(c->a, s, "f:spec"); /* never changes after its creation, which leaves it to nobody */
        fset_add(c->a, s, status ? "f:status f:conditions" : "f:status");
        return s;
    }
    if (status)
        fset_add(c->a, s, "f:spec");
    else if (c->stored->has_status)
        fset_add(c->a, s, "f:status");
    /* kinds whose status is written without their metadata */
    if (status && (c->r->custom || flow || streq(c->r->plural, "volumeattachments") || streq(c->r->plural, "resourceclaims") ||
                   streq(c->r->plural, "validatingadmissionpolicies")))
        fset_add(c->a, s, "f:metadata");
    return s;
}

static const char *sub_of(const struct call *c)
{
    return c->managed_sub ? c->managed_sub : c->sub ? c->sub->name : "";
}

static const char *manager_name(struct call *c)
{
    const char *agent = c->req->user_agent;

    if (!str_empty(c->o.field_manager))
        return c->o.field_manager;
    return str_empty(agent) ? "unknown" : arena_strndup(c->a, agent, MIN(strcspn(agent, "/"), (size_t)128));
}

static void read_managers(struct call *c, const struct val *v, struct managers *ms)
{
    VAL_EACH(val_at(v, "metadata.managedFields"), e) {
        if (ms->n == MANAGERS_MAX)
            return;
        if (!val_get(e, "fieldsV1"))
            continue;
        ms->v[ms->n++] = (struct manager){
            .name = val_str_at(e, "manager", ""), .operation = val_str_at(e, "operation", ""),
            .api_version = val_str_at(e, "apiVersion", ""), .sub = val_str_at(e, "subresource", ""),
            .time = val_str_at(e, "time", ""), .fields = fset_read(c->a, val_get(e, "fieldsV1"))};
    }
}

static struct manager *find_manager(struct call *c, struct managers *ms, const char *name, const char *operation)
{
    for (uint32_t i = 0; i < ms->n; i++) {
        struct manager *m = &ms->v[i];

        if (streq(m->name, name) && streq(m->operation, operation) && streq(m->sub, sub_of(c)) &&
            (streq(operation, "Apply") || streq(m->api_version, c->r->api_version)))
            return m;
    }
    if (ms->n == MANAGERS_MAX)
        return &ms->v[MANAGERS_MAX - 1];
    ms->v[ms->n] = (struct manager){.name = name, .operation = operation, .sub = sub_of(c),
                                    .api_version = c->r->api_version, .fields = fset_new(c->a), .time = ""};
    return &ms->v[ms->n++];
}

static bool older(const struct manager *x, const struct manager *y)
{
    int by = strcmp(x->time, y->time);

    return by ? by < 0 : strcmp(x->name, y->name) < 0;
}

static struct manager *oldest_but(struct managers *ms, const struct manager *const *but, uint32_t n)
{
    struct manager *found = NULL;

    for (uint32_t i = 0; i < ms->n; i++) {
        struct manager *m = &ms->v[i];
        bool skip = !streq(m->operation, "Update") || fset_empty(m->fields);

        for (uint32_t k = 0; k < n && !skip; k++)
            skip = but[k] == m;
        if (!skip && (!found || older(m, found)))
            found = m;
    }
    return found;
}

/* No more than ten that updated: the oldest ones become "ancient-changes", one a version. */
static void cap_updaters(struct call *c, struct managers *ms)
{
    const struct manager *seen[MANAGERS_MAX];
    struct manager *first[MANAGERS_MAX], *m;
    uint32_t seen_n = 0, first_n = 0, left = 0, k;

    for (uint32_t i = 0; i < ms->n; i++)
        left += streq(ms->v[i].operation, "Update") && !fset_empty(ms->v[i].fields);
    while (left > UPDATERS_MAX && (m = oldest_but(ms, seen, seen_n))) {
        seen[seen_n++] = m;
        for (k = 0; k < first_n && !streq(first[k]->api_version, m->api_version); k++)
            ;
        if (k == first_n) {
            first[first_n++] = m;
            continue;
        }
        first[k]->name = "ancient-changes";
        first[k]->sub = "";
        first[k]->time = m->time;
        first[k]->fields = fset_union(c->a, first[k]->fields, m->fields);
        m->fields = fset_new(c->a);
        left--;
    }
}

static int order(const struct manager *x, const struct manager *y)
{
    int by = strcmp(x->operation, y->operation); /* Apply before Update */

    if (!by)
        by = strcmp(x->time, y->time);
    return by ? by : strcmp(x->name, y->name);
}

static struct val *write_managers(struct call *c, struct managers *ms)
{
    struct val *list = val_list(c->a);

    for (uint32_t i = 1; i < ms->n; i++)
        for (uint32_t k = i; k > 0 && order(&ms->v[k], &ms->v[k - 1]) < 0; k--) {
            struct manager t = ms->v[k];
            ms->v[k] = ms->v[k - 1];
            ms->v[k - 1] = t;
        }
    for (uint32_t i = 0; i < ms->n; i++) {
        const struct manager *m = &ms->v[i];
        struct val *e;

        if (fset_empty(m->fields))
            continue;
        e = val_map(c->a);
        val_put_str(c->a, e, "manager", m->name);
        val_put_str(c->a, e, "operation", m->operation);
        val_put_str(c->a, e, "apiVersion", m->api_version);
        if (*m->time)
            val_put_str(c->a, e, "time", m->time);
        val_put_str(c->a, e, "fieldsType", "FieldsV1");
        val_put(c->a, e, "fieldsV1", fset_write(c->a, m->fields));
        if (*m->sub)
            val_put_str(c->a, e, "subresource", m->sub);
        val_push(c->a, list, e);
    }
    return list;
}

/* Shallow, without what no manager is asked about. */
static const struct val *bare(struct call *c, const struct val *v)
{
    struct val *out = val_map(c->a), *meta = val_map(c->a);

    VAL_EACH_MEMBER(v, m)
        val_putn(c->a, out, m->key, m->n, &m->v);
    VAL_EACH_MEMBER(val_get(v, "metadata"), m)
        if (!streq(m->key, "managedFields"))
            val_putn(c->a, meta, m->key, m->n, &m->v);
    val_put(c->a, out, "metadata", meta);
    return out;
}

/* What a new object of the kind is before anybody says anything. */
static const struct val *empty_object(struct call *c)
{
    struct val *v = val_map(c->a);
    struct err ignored = {0};

    val_put_str(c->a, v, "apiVersion", c->r->api_version);
    val_put_str(c->a, v, "kind", c->r->kind);
    if (schema_decode(c->r, c->a, v, NULL, &ignored) < 0)
        return val_map(c->a);
    return v;
}

static struct typed_diff differences(struct call *c, const struct type *t, const struct val *live,
                                     const struct val *now)
{
    struct typed_diff d = typed_compare(c->a, t, live, now);
    struct fset *out = out_of_reach(c), *none = nobodys(c);

    d.added = fset_without(c->a, fset_without(c->a, d.added, out, true), none, false);
    d.removed = fset_without(c->a, fset_without(c->a, d.removed, out, true), none, false);
    d.modified = fset_without(c->a, fset_without(c->a, d.modified, out, true), none, false);
    return d;
}

/* A change as each version of the kind sees it: the fields of a manager are those of the version in
 * which he spoke. */
struct delta {
    const char *api_version;
    bool known; /* false: no such version (any more); its managers are left as they are */
    struct typed_diff d;
    struct fset *changed;
};
struct change {
    struct call *c;
    const struct val *was, *now; /* in version c->r */
    struct delta v[8];
    uint32_t n;
};

static const struct val *in_version(struct call *c, const struct resource *r, const struct val *v)
{
    struct val *copy = val_copy(c->a, v);
    struct err ignored = {0};

    return schema_convert(c->r, r, c->a, copy, &ignored) < 0 ? NULL : bare(c, copy);
}

static const struct delta *change_in(struct change *ch, const char *api_version)
{
    struct call *c = ch->c;
    const char *slash = strchr(api_version, '/');
    const struct val *was = ch->was, *now = ch->now;
    const struct resource *r = c->r;
    struct delta *x;

    for (uint32_t i = 0; i < ch->n; i++)
        if (streq(ch->v[i].api_version, api_version))
            return &ch->v[i];
    if (ch->n == ARRAY_LEN(ch->v))
        return NULL;
    x = &ch->v[ch->n++];
    *x = (struct delta){.api_version = api_version};
    if (!streq(api_version, c->r->api_version)) {
        if (strncmp(api_version, c->r->group, slash ? (size_t)(slash - api_version) : 0) != 0 ||
            !(r = schema_resource(c->api->schema, c->r->group, slash ? slash + 1 : api_version, c->r->plural)) ||
            !(was = in_version(c, r, was)) || !(now = in_version(c, r, now)))
            return x;
    }
    x->known = true;
    x->d = differences(c, resource_type(r), was, now);
    x->changed = fset_union(c->a, x->d.added, x->d.modified);
    return x;
}

/* Others lose what changed. */
static void take_over(struct change *ch, struct managers *ms, const struct manager *self)
{
    struct arena *a = ch->c->a;

    for (uint32_t i = 0; i < ms->n; i++) {
        struct manager *m = &ms->v[i];
        const struct delta *x = m == self ? NULL : change_in(ch, m->api_version);

        if (!x || !x->known)
            continue;
        m->fields = fset_without(a, m->fields, x->changed, false);
        m->fields = fset_without(a, m->fields, x->d.removed, false);
    }
}

static void note_update(struct call *c, struct managers *ms, const char *name, const struct val *live,
                        const struct val *now)
{
    struct change ch = {.c = c, .was = live, .now = now};
    const struct delta *own = change_in(&ch, c->r->api_version);
    struct manager *self = find_manager(c, ms, name, "Update");
    struct fset *mine;

    take_over(&ch, ms, self);
    mine = fset_union(c->a, fset_without(c->a, self->fields, own->d.removed, false), own->changed);
    if (!fset_equal(mine, self->fields) || !*self->time)
        self->time = c->managed_sub ? "" : now_text(c); /* as upstream has it for a Scale */
    self->fields = mine;
}

struct val *managed_update(struct call *c, const struct val *live, const struct val *now)
{
    struct managers *ms = arena_new_of(c->a, struct managers);
    const struct val *said = val_at(now, "metadata.managedFields");

    if (!live && (!c->user || auth_user_in(c->user, "system:nodes") ||
                  str_starts(c->user->name, "system:tandem-")))
        return NULL; /* our own parts: not tracked before somebody applies */
    if (live && !val_len(val_at(live, "metadata.managedFields")))
        return NULL;
    if (live && val_len(said) == 1 && !val_len(&said->items[0]))
        return NULL; /* the way to ask for no managers at all */
    if (live && !*sub_of(c)) /* who writes the object may write its managers, too */
        read_managers(c, now, ms);
    if (live && !ms->n)
        read_managers(c, live, ms);
    note_update(c, ms, manager_name(c), bare(c, live ? live : empty_object(c)), bare(c, now));
    cap_updaters(c, ms);
    return write_managers(c, ms);
}

/* ---------------------------------------------------------------- apply */

struct conflict {
    struct call *c;
    struct val *causes;
    const struct manager *with;
    struct buf text;
    uint32_t n;
};

static void add_conflict(void *arg, const char *path)
{
    struct conflict *x = arg;
    struct val *cause = val_map(x->c->a);

    val_put_str(x->c->a, cause, "reason", "FieldManagerConflict");
    val_put(x->c->a, cause, "message",
            val_printf(x->c->a, "conflict with \"%s\"%s%s%s using %s", x->with->name,
                       *x->with->sub ? " with subresource \"" : "", x->with->sub, *x->with->sub ? "\"" : "",
                       x->with->api_version));
    val_put_str(x->c->a, cause, "field", path);
    val_push(x->c->a, x->causes, cause);
    buf_printf(&x->text, "%s%s: conflict with \"%s\"", x->n++ ? ", " : "", path, x->with->name);
}

/* Who applies with kubectl what was applied with an older kubectl from the client's side may take
 * over what that one said (its words are in an annotation) and is still so. NULL: nothing. */
static struct fset *last_applied_fields(struct call *c, const struct val *live)
{
    const struct val *annotations = val_at(live, "metadata.annotations");
    const char *text = val_text(val_get(annotations, LAST_APPLIED), "");
    const struct type *t = resource_type(c->r);
    struct err ignored = {0};
    struct typed_diff d;
    struct val *said;

    if (!*text || !(said = json_parse(c->a, text, strlen(text), &ignored)) ||
        !streq(val_str_at(said, "apiVersion", ""), c->r->api_version))
        return NULL;
    d = typed_compare(c->a, t, said, live);
    return fset_without(c->a,
                        fset_without(c->a, fset_without(c->a, typed_fields(c->a, t, said, NULL), d.modified, false),
                                     d.added, false),
                        d.removed, false);
}

static int check_conflicts(struct change *ch, struct managers *ms, const struct manager *self)
{
    struct call *c = ch->c;
    struct conflict x = {.c = c, .causes = val_list(c->a), .text = {.max = 1 << 16}};
    struct fset *allowed = streq(self->name, KUBECTL_MANAGER) ? last_applied_fields(c, ch->was) : NULL;
    struct val *s, *d;

    for (uint32_t i = 0; i < ms->n; i++) {
        const struct delta *in = &ms->v[i] == self ? NULL : change_in(ch, ms->v[i].api_version);
        struct fset *both;

        if (!in || !in->known)
            continue;
        x.with = &ms->v[i];
        both = fset_both(c->a, ms->v[i].fields, in->changed);
        fset_each(c->a, allowed ? fset_without(c->a, both, allowed, false) : both, add_conflict, &x);
    }
    if (!x.n)
        return 0;
    s = status_doc(c->a, 409, "Conflict", arena_printf(c->a, "Apply failed with %u conflict%s: %s", x.n,
                                                       x.n > 1 ? "s" : "", x.text.p));
    buf_done(&x.text);
    d = val_map(c->a);
    val_put(c->a, d, "causes", x.causes);
    val_put(c->a, s, "details", d);
    return fail_status(c, s);
}

/* Without what self said before, says no more, and nobody else says. */
static const struct val *prune(struct call *c, struct managers *ms, const struct val *merged, const struct fset *last)
{
    const struct type *t = resource_type(c->r);
    struct fset *managed = fset_new(c->a), *merged_set, *pruned_set, *named_last;
    const struct val *pruned;

    if (fset_empty(last))
        return merged;
    named_last = typed_named(c->a, t, last);
    pruned = typed_remove(c->a, t, merged, named_last);
    for (uint32_t i = 0; i < ms->n; i++)
        managed = fset_union(c->a, managed, ms->v[i].fields); /* of any version: mostly they agree on paths */
    merged_set = typed_named(c->a, t, typed_fields(c->a, t, merged, NULL));
    pruned_set = typed_named(c->a, t, typed_fields(c->a, t, pruned, NULL));
    /* back comes what anybody owns ... */
    pruned = typed_remove(c->a, t, merged,
                          fset_without(c->a, merged_set,
                                       fset_union(c->a, pruned_set, typed_named(c->a, t, managed)), false));
    /* ... and what was not ours to remove */
    pruned_set = typed_named(c->a, t, typed_fields(c->a, t, pruned, NULL));
    return typed_remove(c->a, t, merged,
                        fset_both(c->a, fset_without(c->a, merged_set, pruned_set, false), named_last));
}

/* Keeps the annotation of a kubectl that applies from the client's side as if it had applied this
 * now, so that both ways may be mixed. Gives back the object to be stored. */
static const struct val *note_last_applied(struct call *c, const struct val *now, const struct val *config)
{
    struct val *said, *annotations, *v;
    struct buf text = {0};

    if (!*val_text(val_get(val_at(now, "metadata.annotations"), LAST_APPLIED), ""))
        return now;
    said = val_copy(c->a, config);
    annotations = val_at(said, "metadata.annotations");
    if (annotations && val_del(annotations, LAST_APPLIED) && !val_len(annotations))
        val_del(val_get(said, "metadata"), "annotations");
    val_sort_keys(said);
    json_write(&text, said);
    buf_addc(&text, '\n');
    v = val_copy(c->a, now);
    if (text.n < ANNOTATIONS_BYTES_MAX)
        val_put_str(c->a, val_at(v, "metadata.annotations"), LAST_APPLIED, text.p);
    buf_done(&text);
    return v;
}

int managed_apply(struct call *c, const struct val *live, const struct val *config,
                  const struct val **ret_new, struct val **ret_managed)
{
    struct managers *ms = arena_new_of(c->a, struct managers);
    const struct val *empty = empty_object(c), *was = bare(c, live ? live : empty), *now, *said = config;
    struct change ch = {.c = c};
    struct fset *set, *last;
    struct manager *self;
    bool twice = false;

    config = bare(c, config);
    set = typed_fields(c->a, resource_type(c->r), config, &twice);
    if (twice)
        return fail(c, 500, "", "failed to create typed patch object: an item of a list by keys "
                    "has none of them, or one that another item has");
    if (live)
        read_managers(c, live, ms);
    if (live && !ms->n) { /* what was there before is somebody's too */
        note_update(c, ms, "before-first-apply", bare(c, empty), was);
        ms->v[0].sub = "";
    }
    self = find_manager(c, ms, manager_name(c), "Apply");
    last = self->fields;
    self->api_version = c->r->api_version;
    self->fields = fset_without(c->a, set, out_of_reach(c), true);
    now = prune(c, ms, typed_merge(c->a, resource_type(c->r), was, config), last);
    self->fields = fset_without(c->a, self->fields, nobodys(c), false);
    ch.was = was;
    ch.now = now;
    if (!c->o.force && check_conflicts(&ch, ms, self) < 0)
        return -1;
    take_over(&ch, ms, self);
    if (streq(self->name, KUBECTL_MANAGER))
        now = note_last_applied(c, now, said);
    if (live && val_equal(was, now)) { /* the time is that of the last change of the object */
        *ret_new = fset_equal(last, self->fields) ? NULL : now;
    } else {
        self->time = c->managed_sub ? "" : now_text(c);
        *ret_new = now;
    }
    *ret_managed = write_managers(c, ms);
    return 0;
}
