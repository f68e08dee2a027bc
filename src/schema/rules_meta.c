/* schema/rules_meta.c - what metadata, labels and selectors must look like, for every kind. */
#include "schema/crd_int.h"

#include <arpa/inet.h>
#include <stdio.h>

static const char *name_check(const struct check *c, const char *name, bool prefix)
{
    char cut[512];
    enum name_rule rule = c->r ? c->r->priv->name_rule : NAME_SUBDOMAIN;

    /* a generateName may end in what a whole name may not */
    if (prefix) {
        size_t n = strlen(name);
        if (n >= sizeof(cut))
            return "must be no more than 253 characters";
        memcpy(cut, name, n + 1);
        if (n > 1 && cut[n - 1] == '-')
            cut[n - 1] = 'a';
        name = cut;
    }
    switch (rule) {
    case NAME_LABEL:
        return name_dns_label(name);
    case NAME_LABEL1035:
        return name_dns1035_label(name);
    case NAME_PATH:
        return name_path_segment(name);
    case NAME_ANY:
        return NULL;
    case NAME_IP: {
        const struct named_check *ip = named_check_find("ip", 2);
        unsigned char bytes[16];
        char text[INET6_ADDRSTRLEN];
        const char *why = ip->fn(name);

        if (why || inet_pton(AF_INET6, name, bytes) != 1 || strchr(name, '.') || str_starts(name, "::"))
            return why;
        /* one address has one name (of those that begin with zeros, libraries disagree) */
        return streq(inet_ntop(AF_INET6, bytes, text, sizeof text), name) ? NULL : "must be in canonical form";
    }
    default:
        return name_dns_subdomain(name);
    }
}

void validate_labels(struct check *c, const char *rel, const struct val *labels)
{
    VAL_EACH_MEMBER(labels, m) {
        struct val key = {.type = VAL_STR, .n = m->n, .s = m->key};
        const char *whys[4], *why;
        uint32_t bad = name_whys(name_qualified, m->key, whys);
        for (uint32_t i = 0; i < bad; i++)
            check_fail(c, CAUSE_INVALID, rel, &key, "%s", whys[i]);
        if (m->v.type == VAL_STR && (why = name_label_value(m->v.s)))
            check_fail(c, CAUSE_INVALID, rel, &m->v, "%s", why);
    }
}

static void annotations(struct check *c, const struct val *notes)
{
    size_t total = 0;

    VAL_EACH_MEMBER(notes, m) {
        struct val key = {.type = VAL_STR, .n = m->n, .s = m->key};
        char *lower = arena_strdup(c->a, m->key);
        for (char *p = lower; *p; p++)
            *p |= (*p >= 'A' && *p <= 'Z') ? 0x20 : 0;
        const char *why = name_qualified(lower);
        if (why)
            check_fail(c, CAUSE_INVALID, "annotations", &key, "%s", why);
        total += m->n + (m->v.type == VAL_STR ? m->v.n : 0);
    }
    if (total > 256 * 1024)
        check_fail(c, CAUSE_TOO_LONG, "annotations", NULL, "may not be more than 262144 bytes");
}

static void owners(struct check *c, const struct val *list)
{
    const struct val *controller = NULL;

    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const struct val *o = &list->items[i];
        static const char *const need[] = {"apiVersion", "kind", "name", "uid"};
        for (uint32_t k = 0; k < ARRAY_LEN(need); k++)
            if (!*val_text(val_get(o, need[k]), ""))
                check_fail(c, CAUSE_INVALID,
                           arena_printf(c->a, "ownerReferences.%s", need[k]), val_get(o, need[k]),
                           "must not be empty");
        if (streq(val_text(val_get(o, "kind"), ""), "Event") &&
            (streq(val_text(val_get(o, "apiVersion"), ""), "v1") ||
             streq(val_text(val_get(o, "apiVersion"), ""), "events.k8s.io/v1")))
            check_fail(c, CAUSE_INVALID, "ownerReferences", o, "is disallowed from being an owner");
        if (val_bool_at(o, "controller", false)) {
            if (controller)
                check_fail(c, CAUSE_INVALID, "ownerReferences", list,
                           "Only one reference can have Controller set to true");
            controller = o;
        }
    }
}

static bool stock_finalizer(const char *s)
{
    return streq(s, "orphan") || streq(s, "foregroundDeletion") || streq(s, "kubernetes");
}

/* Kinds of the API machinery itself take names without a domain. */
static bool lenient(const struct resource *r)
{
    return r->custom || r->priv->meta_lenient;
}

static void finalizer_domains(struct check *c, const struct val *list)
{
    for (uint32_t i = 0; i < val_items_n_(list) && !lenient(c->r); i++) {
        const char *s = val_text(&list->items[i], "");

        if (!strchr(s, '/') && !stock_finalizer(s))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "finalizers[%u]", i), &list->items[i],
                       "name is neither a standard finalizer name nor is it fully qualified");
    }
}

static void finalizers(struct check *c, const struct val *list)
{
    bool orphan = false, foreground = false;

    for (uint32_t i = 0; i < val_items_n_(list); i++) {
        const char *s = val_text(&list->items[i], ""), *whys[4];
        uint32_t bad = name_whys(name_qualified, s, whys);
        for (uint32_t k = 0; k < bad; k++)
            check_fail(c, CAUSE_INVALID, "finalizers", &list->items[i], "%s", whys[k]);
        orphan |= streq(s, "orphan");
        foreground |= streq(s, "foregroundDeletion");
    }
    if (orphan && foreground)
        check_fail(c, CAUSE_INVALID, "finalizers", list,
                   "finalizers orphan and foregroundDeletion cannot be both set");
}

static void names(struct check *c, const struct val *meta)
{
    const char *name = val_text(val_get(meta, "name"), "");
    const char *gen = val_text(val_get(meta, "generateName"), "");
    const char *why;

    if (*gen && streq(c->r->group, "apiregistration.k8s.io")) /* they have one name that is right */
        check_fail(c, CAUSE_INVALID, "generateName", val_get(meta, "generateName"),
                   "must be `spec.version+\".\"+spec.group`");
    else if (*gen && (why = name_check(c, gen, true)))
        check_fail(c, CAUSE_INVALID, "generateName", val_get(meta, "generateName"), "%s", why);
    if (!*name)
        check_fail(c, CAUSE_REQUIRED, "name", NULL, "name or generateName is required");
    else if ((why = name_check(c, name, false)))
        check_fail(c, CAUSE_INVALID, "name", val_get(meta, "name"), "%s", why);
}

static const struct val *text_or_null(const struct val *map, const char *key)
{
    const struct val *v = val_get(map, key);

    return v && !(v->type == VAL_STR && !v->n) ? v : NULL;
}

static void same(struct check *c, const struct val *meta, const struct val *old, const char *key)
{
    const struct val *x = text_or_null(meta, key), *y = text_or_null(old, key);

    if (x == y || (x && y && val_equal(x, y)))
        return;
    check_fail(c, CAUSE_INVALID, key, x, "field is immutable");
}

static void update(struct check *c, const struct val *meta, const struct val *old)
{
    static const char *const kept[] = {"name", "namespace", "uid", "creationTimestamp",
                                       "deletionTimestamp", "deletionGracePeriodSeconds"};

    for (uint32_t i = 0; i < ARRAY_LEN(kept); i++)
        same(c, meta, old, kept[i]);
    if (val_is_null(val_get(old, "deletionTimestamp")))
        return;
    const struct val *had = val_get(old, "finalizers");
    for (uint32_t i = 0; i < val_items_n_(val_get(meta, "finalizers")); i++) {
        const struct val *f = &val_get(meta, "finalizers")->items[i];
        bool known = false;
        VAL_EACH(had, h)
            known |= val_equal(h, f);
        if (!known)
            check_fail(c, CAUSE_FORBIDDEN, "finalizers", NULL,
                       "no new finalizers can be added if the object is being deleted");
    }
}

void validate_metadata(struct check *c, const struct val *v, const struct val *old);
/* Upstream's machinery judges metadata once when it is new and twice when it changes (as new, and as changed);
 * many kinds judge a change once more themselves, in one of these ways or in both (meta-once, meta-again). */
void validate_metadata(struct check *c, const struct val *v, const struct val *old)
{
    const struct val *meta = val_get(v, "metadata"), *was = val_get(old, "metadata");
    uint32_t mark = check_push(c, "metadata");
    uint32_t changed = old ? !c->r->priv->meta_once : 0, as_new = old && !*c->sub ? c->r->priv->meta_again : 0;

    if (!old && !c->r->virtual_)
        names(c, meta);
    for (uint32_t i = 0; old && i < 1 + (c->r->custom ? 0 : changed); i++)
        update(c, meta, was);
    for (uint32_t i = 0; i < (old ? 2 : 1) + changed + as_new; i++) {
        validate_labels(c, "labels", val_get(meta, "labels"));
        annotations(c, val_get(meta, "annotations"));
        owners(c, val_get(meta, "ownerReferences"));
    }
    for (uint32_t i = 0; i < 1 + as_new; i++)
        finalizers(c, val_get(meta, "finalizers"));
    for (uint32_t i = 0; i < (old ? changed + as_new : 1); i++)
        finalizer_domains(c, val_get(meta, "finalizers"));
    check_pop(c, mark);
}

void validate_embedded(struct check *c, const struct val *v)
{
    const struct val *meta = val_get(v, "metadata"), *version = val_get(v, "apiVersion"), *kind = val_get(v, "kind");
    const char *why, *name = val_str_at(meta, "name", ""), *gen = val_str_at(meta, "generateName", "");
    char *low = arena_strdup(c->a, val_text(kind, ""));
    const char *slash = strchr(val_text(version, ""), '/');

    for (char *s = low; *s; s++)
        *s |= *s >= 'A' && *s <= 'Z' ? 0x20 : 0;
    if (!version)
        check_fail(c, CAUSE_REQUIRED, "apiVersion", NULL, "%s", "");
    else if (val_is(version, VAL_STR) && !version->n)
        check_fail(c, CAUSE_INVALID, "apiVersion", version, "must not be empty");
    else if (slash && strchr(slash + 1, '/'))
        check_fail(c, CAUSE_INVALID, "apiVersion", version, "unexpected GroupVersion string: %s", version->s);
    if (!kind)
        check_fail(c, CAUSE_REQUIRED, "kind", NULL, "%s", "");
    else if (val_is(kind, VAL_STR) && !kind->n)
        check_fail(c, CAUSE_INVALID, "kind", kind, "must not be empty");
    else if ((why = name_dns1035_label(low)))
        check_fail(c, CAUSE_INVALID, "kind", kind, "may have mixed case, but should otherwise match: %s", why);
    if (!val_is(meta, VAL_MAP))
        return;
    uint32_t mark = check_push(c, "%smetadata", c->path_n ? "." : "");
    if (*gen && (strchr(gen, '/') || strchr(gen, '%')))
        check_fail(c, CAUSE_INVALID, "generateName", val_get(meta, "generateName"), "may not contain '/' or '%%'");
    if (*name && (why = name_path_segment(name)))
        check_fail(c, CAUSE_INVALID, "name", val_get(meta, "name"), "%s", why);
    if (*val_str_at(meta, "namespace", "") && (why = name_dns_label(val_str_at(meta, "namespace", ""))))
        check_fail(c, CAUSE_INVALID, "namespace", val_get(meta, "namespace"), "%s", why);
    validate_labels(c, "labels", val_get(meta, "labels"));
    annotations(c, val_get(meta, "annotations"));
    owners(c, val_get(meta, "ownerReferences"));
    finalizers(c, val_get(meta, "finalizers"));
    check_pop(c, mark);
}

static void requirement(struct check *c, const char *at, const struct val *e)
{
    const char *op = val_text(val_get(e, "operator"), ""), *why;
    uint32_t n = val_len(val_get(e, "values"));

    if (streq(op, "In") || streq(op, "NotIn")) {
        if (!n)
            check_fail(c, CAUSE_REQUIRED, arena_printf(c->a, "%s.values", at), NULL,
                       "must be specified when `operator` is 'In' or 'NotIn'");
    } else if (streq(op, "Exists") || streq(op, "DoesNotExist")) {
        if (n)
            check_fail(c, CAUSE_FORBIDDEN, arena_printf(c->a, "%s.values", at), NULL,
                       "may not be specified when `operator` is 'Exists' or 'DoesNotExist'");
    } else {
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.operator", at), val_get(e, "operator"),
                   "not a valid selector operator");
    }
    const char *whys[4];
    uint32_t bad = name_whys(name_qualified, val_text(val_get(e, "key"), ""), whys);
    for (uint32_t i = 0; i < bad; i++)
        check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.key", at), val_get(e, "key"), "%s", whys[i]);
    for (uint32_t i = 0; i < n; i++) {
        const struct val *x = &val_get(e, "values")->items[i];
        if ((why = name_label_value(val_text(x, ""))))
            check_fail(c, CAUSE_INVALID, arena_printf(c->a, "%s.values[%u]", at, i), x, "%s", why);
    }
}

void validate_label_selector(struct check *c, const char *rel, const struct val *sel)
{
    const struct val *exprs = val_get(sel, "matchExpressions");

    if (!val_is(sel, VAL_MAP))
        return;
    validate_labels(c, arena_printf(c->a, "%s%smatchLabels", rel, *rel ? "." : ""),
                    val_get(sel, "matchLabels"));
    for (uint32_t i = 0; i < val_items_n_(exprs); i++)
        requirement(c, arena_printf(c->a, "%s%smatchExpressions[%u]", rel, *rel ? "." : "", i),
                    &exprs->items[i]);
}
