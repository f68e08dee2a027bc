/* schema/table.c - Tables and partial objects.
 *
 * A column's cell is an expression: a path (".spec.x"), or KIND:PATH with KIND one of
 *   age     how long ago the time there was (alone: of metadata.creationTimestamp)
 *   int bool   0 and false when absent          text   numbers as text
 *   any     whatever lies there                  count  members or items
 *   join    items with ',' between               labels a map as "k=v,k=v", "<none>" when empty
 *   selector   a LabelSelector as text           json   a JSONPath of a custom resource
 *   fn      a function of cells.c
 * and "?text" behind it: what stands there when nothing (or "") is found. */
#include "schema/table.h"

#include "schema/jsonpath.h"
#include "schema/crd_int.h"
#include "schema/select.h"

#include "codec/json.h"
#include "codec/json_scan.h"

#include <stdio.h>

int table_include(const char *text)
{
    if (!text || !*text || streq(text, "Metadata"))
        return INCLUDE_METADATA;
    if (streq(text, "None"))
        return INCLUDE_NONE;
    return streq(text, "Object") ? INCLUDE_OBJECT : -1;
}

static struct val *column_val(struct arena *a, const struct column *c)
{
    struct val *v = val_map(a);

    val_put(a, v, "name", val_lit(a, c->name));
    val_put(a, v, "type", val_lit(a, c->type));
    val_put(a, v, "format", val_lit(a, c->format));
    val_put(a, v, "description", val_lit(a, c->description ? c->description : c->name));
    val_put_int(a, v, "priority", c->priority);
    return v;
}

/* Kinds without columns of their own (custom resources mostly). */
static const struct column created = {.name = "Created At", .type = "date", .format = "",
                                      .expr = ".metadata.creationTimestamp"};
static const struct column plain_name = {.next = &created, .name = "Name", .type = "string",
                                         .format = "name", .expr = ".metadata.name"};

/* Of a Scale, which is no resource. */
static const struct column scale_age = {.name = "Age", .type = "string", .format = "", .expr = "age"};
static const struct column scale_now = {.next = &scale_age, .name = "Available", .type = "integer",
                                        .format = "", .expr = "int:.status.replicas"};
static const struct column scale_want = {.next = &scale_now, .name = "Desired", .type = "integer",
                                         .format = "", .expr = "int:.spec.replicas"};
static const struct column scale_name = {.next = &scale_want, .name = "Name", .type = "string",
                                         .format = "", .expr = ".metadata.name"};

static const struct column *columns_of(const struct resource *r)
{
    if (!r)
        return &scale_name;
    const struct column *own = r->custom ? crd_made(r)->columns : r->priv->columns;
    return own ? own : &plain_name;
}

struct val *table_new(const struct resource *r, struct arena *a, const char *version,
                      const struct val *list_meta, bool columns)
{
    struct val *t = val_map(a), *defs = val_list(a);

    if (columns)
        for (const struct column *c = columns_of(r); c; c = c->next)
            if (!streq(c->name, "-")) /* "-": upstream has such a cell, but does not say so */
                val_push(a, defs, column_val(a, c));
    val_put_str(a, t, "kind", "Table");
    val_put(a, t, "apiVersion", val_printf(a, "meta.k8s.io/%s", version));
    val_put(a, t, "metadata", list_meta ? list_meta : val_map(a));
    if (columns)
        val_put(a, t, "columnDefinitions", defs);
    else
        val_put(a, t, "columnDefinitions", val_null(a));
    val_put(a, t, "rows", val_list(a));
    return t;
}

/* As kubectl shows durations: two or three figures. */
char *age_text(struct arena *a, int64_t us)
{
    int64_t s = us / 1000000, m = s / 60, h = m / 60;

    if (s < -1)
        return arena_strdup(a, "<invalid>");
    if (s <= 0)
        return arena_strdup(a, "0s");
    if (s < 120)
        return arena_printf(a, "%ds", (int)s);
    if (m < 10)
        return s % 60 ? arena_printf(a, "%dm%ds", (int)m, (int)(s % 60)) : arena_printf(a, "%dm", (int)m);
    if (m < 180)
        return arena_printf(a, "%dm", (int)m);
    if (h < 8)
        return m % 60 ? arena_printf(a, "%dh%dm", (int)h, (int)(m % 60)) : arena_printf(a, "%dh", (int)h);
    if (h < 48)
        return arena_printf(a, "%dh", (int)h);
    if (h < 24 * 8)
        return h % 24 ? arena_printf(a, "%dd%dh", (int)(h / 24), (int)(h % 24))
                      : arena_printf(a, "%dd", (int)(h / 24));
    if (h < 24 * 365 * 2)
        return arena_printf(a, "%dd", (int)(h / 24));
    int days = (int)(h / 24 % 365), years = (int)(h / 24 / 365);
    if (h < 24 * 365 * 8 && days)
        return arena_printf(a, "%dy%dd", years, days);
    return arena_printf(a, "%dy", years);
}

static const struct val *age_cell(struct arena *a, const struct val *time, int64_t now_us)
{
    int64_t us;

    if (!val_is(time, VAL_STR) || !time_parse(time->s, &us))
        return val_lit(a, "<unknown>");
    return val_lit(a, age_text(a, now_us - us));
}

static int label_cmp(const void *x, const void *y)
{
    return strcmp((*(const struct val_member *const *)x)->key,
                  (*(const struct val_member *const *)y)->key);
}

char *labels_text(struct arena *a, const struct val *map);
char *labels_text(struct arena *a, const struct val *map)
{
    _auto_(buf_done) struct buf b = {0};
    uint32_t n = val_members_n_(map), i = 0;
    const struct val_member **sorted = arena_array(a, const struct val_member *, n + 1);

    if (!n)
        return arena_strdup(a, "<none>");
    VAL_EACH_MEMBER(map, m)
        sorted[i++] = m;
    qsort(sorted, n, sizeof(*sorted), label_cmp);
    for (i = 0; i < n; i++)
        buf_printf(&b, "%s%s=%s", i ? "," : "", sorted[i]->key, val_text(&sorted[i]->v, ""));
    return arena_strndup(a, b.p, b.n);
}

char *label_selector_text(struct arena *a, const struct val *v);
char *label_selector_text(struct arena *a, const struct val *v)
{
    struct err err = {0};
    struct selector *s = val_is_null(v) ? NULL : selector_of(a, v, &err);

    if (!s)
        return arena_strdup(a, val_is_null(v) ? "<none>" : "<error>");
    char *text = selector_text(a, s);
    return *text ? text : arena_strdup(a, "<none>");
}

static const struct val *join_cell(struct arena *a, const struct val *list)
{
    _auto_(buf_done) struct buf b = {0};

    VAL_EACH(list, it)
        buf_printf(&b, "%s%s", b.n ? "," : "", val_text(it, ""));
    return val_strn(a, b.p ? b.p : "", b.n);
}

static const struct val *text_cell(struct arena *a, const struct val *v)
{
    if (val_is(v, VAL_INT))
        return val_printf(a, "%lld", (long long)v->i);
    return v;
}

static bool nothing(const struct val *v)
{
    return val_is_null(v) || (v->type == VAL_STR && !v->n);
}

/* A cell of a custom resource's column by its type: integers, numbers, booleans, dates, text. */
static const struct val *json_cell(struct arena *a, const struct column *c, const struct val *obj, const char *path,
                                   int64_t now_us)
{
    const struct val *v = NULL;
    int64_t us;

    if (jsonpath_first(a, obj, path, &v) < 0 || !v)
        return val_null(a);
    if (streq(c->type, "string"))
        return val_is(v, VAL_STR) ? v : val_lit(a, jsonpath_text(a, v));
    if (streq(c->type, "date") && val_is(v, VAL_STR))
        return v->n && !time_parse(v->s, &us) ? val_lit(a, "<invalid>") : age_cell(a, v, now_us);
    if (streq(c->type, "integer") && val_is_number(v))
        return val_is(v, VAL_DOUBLE) ? val_int(a, (int64_t)val_num(v)) : v;
    if (streq(c->type, "number") && val_is_number(v))
        return v;
    if (streq(c->type, "boolean") && val_is(v, VAL_BOOL))
        return v;
    return val_null(a);
}

enum how { HOW_UNREAD, HOW_VALUE, HOW_FN, HOW_JSON, HOW_AGE, HOW_INT, HOW_BOOL, HOW_COUNT, HOW_LABELS, HOW_SELECTOR, HOW_JOIN,
           HOW_TEXT };

static enum how how_of(const char *word, size_t n)
{
    static const char *const words[] = {[HOW_AGE] = "age", [HOW_INT] = "int", [HOW_BOOL] = "bool", [HOW_COUNT] = "count",
                                        [HOW_LABELS] = "labels", [HOW_SELECTOR] = "selector", [HOW_JOIN] = "join",
                                        [HOW_TEXT] = "text"};

    for (enum how h = HOW_AGE; h < ARRAY_LEN(words); h++)
        if (strlen(words[h]) == n && memcmp(words[h], word, n) == 0)
            return h;
    return HOW_VALUE;
}

void table_column_read(struct arena *a, struct column *c)
{
    const char *e = c->expr, *otherwise = strchr(e, '?'), *colon = strchr(e, ':');
    size_t n;

    c->how = HOW_VALUE;
    if (str_starts(e, "fn:") || str_starts(e, "json:") || streq(e, "age")) {
        c->how = str_starts(e, "fn:") ? HOW_FN : str_starts(e, "json:") ? HOW_JSON : HOW_AGE;
        c->path = c->how == HOW_JSON ? e + 5 : "metadata.creationTimestamp";
        return;
    }
    if (*e != '.' && colon) {
        c->how = how_of(e, (size_t)(colon - e));
        e = colon + 1;
    }
    n = otherwise ? (size_t)(otherwise - e) : strlen(e);
    while (n && e[n - 1] == ' ')
        n--;
    c->path = n ? arena_strndup(a, e + 1, n - 1) : "";
    c->otherwise = otherwise ? otherwise + 1 : "";
}

static const struct val *cell(struct arena *a, const struct column *c, const struct val *obj,
                              int64_t now_us)
{
    struct column read = *c;
    const struct val *v;

    if (c->how == HOW_UNREAD) {
        table_column_read(a, &read);
        c = &read;
    }
    if (c->how == HOW_FN)
        return ((cell_fn *)(uintptr_t)c->fn)(a, obj, now_us);
    if (c->how == HOW_JSON)
        return json_cell(a, c, obj, c->path, now_us);
    v = val_at(obj, c->path);
    switch ((enum how)c->how) {
    case HOW_AGE:
        return age_cell(a, v, now_us);
    case HOW_INT:
        return val_is(v, VAL_INT) ? v : val_int(a, 0);
    case HOW_BOOL:
        return val_is(v, VAL_BOOL) ? v : val_bool(a, false);
    case HOW_COUNT:
        return val_int(a, (int64_t)val_len(v));
    case HOW_LABELS:
        return val_lit(a, labels_text(a, v));
    case HOW_SELECTOR:
        return val_lit(a, label_selector_text(a, v));
    case HOW_JOIN:
        v = join_cell(a, v);
        break;
    case HOW_TEXT:
        v = text_cell(a, v);
        break;
    default:
        break;
    }
    return nothing(v) ? val_lit(a, c->otherwise) : v;
}

struct val *partial_of(struct arena *a, const struct val *obj, const char *version)
{
    struct val *p = val_map(a);
    /* what autoscaling/v1 has no fields for */
    static const char *const v2_only[] = {
        "autoscaling.alpha.kubernetes.io/metrics", "autoscaling.alpha.kubernetes.io/current-metrics",
        "autoscaling.alpha.kubernetes.io/behavior", "autoscaling.alpha.kubernetes.io/conditions"};
    static const char template_generation[] = "deprecated.daemonset.template.generation";
    const struct val *meta = val_get(obj, "metadata");

    const struct val *notes = val_get(meta, "annotations");
    bool scaler = streq(val_str_at(obj, "kind", ""), "HorizontalPodAutoscaler") &&
                  streq(val_str_at(obj, "apiVersion", ""), "autoscaling/v1");
    if (val_get(notes, template_generation) || (scaler && notes)) { /* of the whole object only */
        struct val *less = val_copy(a, meta), *left = val_get(less, "annotations");
        val_del(left, template_generation);
        for (uint32_t i = 0; scaler && i < ARRAY_LEN(v2_only); i++)
            val_del(left, v2_only[i]);
        if (!left->n)
            val_del(less, "annotations");
        meta = less;
    }
    val_put_str(a, p, "kind", "PartialObjectMetadata");
    val_put(a, p, "apiVersion", val_printf(a, "meta.k8s.io/%s", version));
    val_put(a, p, "metadata", meta ? meta : val_map(a));
    return p;
}

bool partial_is_metadata(const struct resource *r)
{
    return !streq(r->kind, "DaemonSet") && !streq(r->kind, "HorizontalPodAutoscaler");
}

/* Pods that are over say so in the row: kubectl hides such rows on demand. */
static const struct val *conditions(const struct resource *r, struct arena *a,
                                    const struct val *obj)
{
    const char *phase = val_str_at(obj, "status.phase", "");
    bool ok = streq(phase, "Succeeded");

    if (!r || *r->group || !streq(r->plural, "pods") || (!ok && !streq(phase, "Failed")))
        return NULL;
    struct val *list = val_list(a), *one = val_map(a);
    val_put_str(a, one, "type", "Completed");
    val_put_str(a, one, "status", "True");
    val_put_str(a, one, "reason", phase);
    val_put_str(a, one, "message", ok ? "The pod has completed successfully."
                                      : "The pod failed.");
    val_push(a, list, one);
    return list;
}

static struct val *row_of(const struct resource *r, struct arena *a, const struct val *obj, const struct val *shown, int64_t now_us)
{
    struct val *row = val_map(a), *cells = val_list(a);
    const struct val *cond = conditions(r, a, obj);

    for (const struct column *c = columns_of(r); c; c = c->next)
        val_push(a, cells, cell(a, c, obj, now_us));
    val_put(a, row, "cells", cells);
    if (cond)
        val_put(a, row, "conditions", cond);
    val_put(a, row, "object", shown);
    return row;
}

struct val *table_row(const struct resource *r, struct arena *a, const struct val *obj,
                      enum include_object include, const char *version, int64_t now_us)
{
    return row_of(r, a, obj, include == INCLUDE_OBJECT ? obj : include == INCLUDE_METADATA ? partial_of(a, obj, version) : val_null(a),
                  now_us);
}

/* What no cell of a built-in kind looks into, and what is long. */
static const struct json_key unseen[] = {
#define UNSEEN(key) {key, sizeof key - 1}
    UNSEEN("managedFields"), UNSEEN("env"), UNSEEN("envFrom"), UNSEEN("volumes"), UNSEEN("volumeMounts"), UNSEEN("tolerations"),
    UNSEEN("affinity"), UNSEEN("livenessProbe"), UNSEEN("readinessProbe"), UNSEEN("startupProbe"), UNSEEN("securityContext"),
    UNSEEN("lifecycle"), {0}};

static struct val *text_val(struct arena *a, char *text, size_t n)
{
    struct val *v = arena_new_of(a, struct val);

    *v = (struct val){.type = VAL_STR, .flag = VAL_FLAG_JSON, .n = (uint32_t)n, .s = text};
    return v;
}

/* partial_of() by the text of the metadata. */
static struct val *partial_text(struct arena *a, const char *version, const char *meta, size_t n)
{
    static const char head[] = "{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/", mid[] = "\",\"metadata\":";
    size_t version_n = strlen(version);
    char *text = arena_raw(a, sizeof head + version_n + sizeof mid + n + 1), *p = text;

    p = mempcpy(p, head, sizeof head - 1);
    p = mempcpy(p, version, version_n);
    p = mempcpy(p, mid, sizeof mid - 1);
    p = mempcpy(p, meta, n);
    *p++ = '}';
    return text_val(a, text, (size_t)(p - text));
}

struct val *table_row_text(const struct resource *r, struct arena *a, char *text, size_t n, enum include_object include,
                           const char *version, int64_t now_us, struct err *err)
{
    struct json_skim skim = {.unseen = unseen};
    char *as_was = include == INCLUDE_NONE ? NULL : arena_memdup(a, text, n);
    struct val *v = json_parse_skim(a, text, n, &skim, err), *shown;

    if (!v)
        return NULL;
    shown = include == INCLUDE_NONE || !skim.meta_n ? val_null(a)
            : include == INCLUDE_OBJECT             ? text_val(a, as_was, n)
                                                    : partial_text(a, version, as_was + skim.meta, skim.meta_n);
    return row_of(r, a, v, shown, now_us);
}

struct val *partial_of_text(struct arena *a, const char *text, size_t n, const char *version)
{
    static const char key[] = "\"metadata\":{";
    char *p = (char *)(uintptr_t)text + 1, *end = (char *)(uintptr_t)text + n, *from;

    while (end - p > (ptrdiff_t)sizeof key && memcmp(p, key, sizeof key - 1) != 0) {
        p = json_scan_quote(p + 1, end); /* names of ours have no escapes, and what comes before metadata is a string */
        if (end - p < 4 || *p != '"' || p[1] != ':' || p[2] != '"')
            return NULL;
        p = json_scan_quote(p + 3, end);
        if (end - p < 2 || *p != '"' || p[1] != ',')
            return NULL;
        p += 2;
    }
    if (end - p <= (ptrdiff_t)sizeof key)
        return NULL;
    from = p + sizeof key - 2;
    p = json_scan_close(from, end);
    return p ? partial_text(a, version, from, (size_t)(p - from)) : NULL;
}
