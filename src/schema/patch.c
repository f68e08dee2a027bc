/* schema/patch.c - JSON patch (RFC 6902) and JSON merge patch (RFC 7386).
 *
 * JSON patch works on a deep copy of the document; merge patch makes new maps only on the way to
 * what changes and shares the rest. */
#include "schema/patch.h"
#include "schema/schema_int.h"

#include "codec/json.h"

enum { OPS_MAX = 10000, COPIED_MAX = 1000000 };

/* ---- RFC 7386 ---- */

static void merge(struct arena *a, struct val *out, const struct val *doc, const struct val *patch,
                  int depth)
{
    if (patch->type != VAL_MAP) {
        *out = *patch;
        return;
    }
    *out = (struct val){.type = VAL_MAP};
    VAL_EACH_MEMBER(doc, m) {
        const struct val *p = val_getn(patch, m->key, m->n);
        if (!p) {
            val_putn(a, out, m->key, m->n, &m->v);
        } else if (p->type != VAL_NULL) {
            struct val v = {0};
            if (depth < 900)
                merge(a, &v, &m->v, p, depth + 1);
            val_putn(a, out, m->key, m->n, &v);
        }
    }
    VAL_EACH_MEMBER(patch, m) {
        if (m->v.type == VAL_NULL || val_getn(doc, m->key, m->n))
            continue;
        struct val v = {0}, none = {.type = VAL_NULL};
        if (depth < 900)
            merge(a, &v, &none, &m->v, depth + 1); /* drops the nulls inside */
        val_putn(a, out, m->key, m->n, &v);
    }
}

struct val *patch_merge(struct arena *a, const struct val *doc, const struct val *patch,
                        struct err *err)
{
    struct val *out = arena_new_of(a, struct val);

    if (patch->type != VAL_MAP) {
        err_set(err, INVALID_ARGUMENT, "json: cannot unmarshal patch: it must be an object");
        return NULL;
    }
    merge(a, out, doc, patch, 0);
    return out;
}

/* ---- RFC 6902 ---- */

struct pointer {
    const char *parts[128];
    uint32_t n;
};

static int pointer_parse(struct arena *a, const char *text, struct pointer *p, struct err *err)
{
    p->n = 0;
    if (!*text)
        return 0;
    if (*text != '/')
        return err_set(err, INVALID, "JSON patch: path \"%.80s\" must begin with '/'", text);
    while (*text == '/') {
        size_t n = strcspn(++text, "/");
        if (p->n == ARRAY_LEN(p->parts))
            return err_set(err, INVALID, "JSON patch: path is too deep");
        char *part = arena_strndup(a, text, n), *w = part;
        for (char *r = part; *r; r++) {
            if (*r == '~' && (r[1] == '0' || r[1] == '1'))
                *w++ = *++r == '0' ? '~' : '/';
            else
                *w++ = *r;
        }
        *w = 0;
        p->parts[p->n++] = part;
        text += n;
    }
    return 0;
}

/* -1: no number. "-" is the place behind the last one. Negative indexes count from the end, as the
 * library that upstream uses allows. */
static int64_t index_of(const char *s, uint32_t n, bool adding)
{
    char *end;

    if (streq(s, "-"))
        return adding ? (int64_t)n : -1;
    if (!*s || (*s == '0' && s[1]) || strlen(s) > 9)
        return -1;
    long i = strtol(s, &end, 10);
    if (*end || *s == '+' || *s == ' ')
        return -1;
    if (i < 0)
        i += (long)n + adding;
    return i < 0 || i > (long)n || (!adding && i == (long)n) ? -1 : i;
}

static struct val *step(struct val *v, const char *part)
{
    if (v->type == VAL_MAP)
        return val_get(v, part);
    if (v->type != VAL_LIST)
        return NULL;
    int64_t i = index_of(part, v->n, false);
    return i < 0 ? NULL : &v->items[i];
}

static struct val *find(struct val *root, const struct pointer *p, uint32_t n)
{
    struct val *v = root;

    for (uint32_t i = 0; i < n && v; i++)
        v = step(v, p->parts[i]);
    return v;
}

static int missing(struct err *err, const char *op, const char *path)
{
    return err_set(err, INVALID, "%s operation does not apply: doc is missing path: %.200s: missing value",
                   op, path);
}

static int op_add(struct arena *a, struct val *root, const struct pointer *p, const struct val *v,
                  const char *op, const char *path, struct err *err)
{
    if (p->n == 0) {
        *root = *v;
        return 0;
    }
    struct val *parent = find(root, p, p->n - 1);
    const char *last = p->parts[p->n - 1];
    if (val_is(parent, VAL_MAP)) {
        val_put(a, parent, last, v);
        return 0;
    }
    if (!val_is(parent, VAL_LIST))
        return missing(err, op, path);
    int64_t i = index_of(last, parent->n, true);
    if (i < 0)
        return missing(err, op, path);
    val_push(a, parent, v); /* makes room */
    for (int64_t k = (int64_t)parent->n - 1; k > i; k--)
        parent->items[k] = parent->items[k - 1];
    parent->items[i] = *v;
    return 0;
}

static int op_remove(struct val *root, const struct pointer *p, const char *op, const char *path,
                     struct err *err)
{
    if (p->n == 0)
        return err_set(err, INVALID, "%s operation does not apply: the whole document", op);
    struct val *parent = find(root, p, p->n - 1);
    const char *last = p->parts[p->n - 1];
    if (val_is(parent, VAL_MAP) && val_del(parent, last))
        return 0;
    if (!val_is(parent, VAL_LIST))
        return missing(err, op, path);
    int64_t i = index_of(last, parent->n, false);
    if (i < 0)
        return missing(err, op, path);
    val_remove(parent, (uint32_t)i);
    return 0;
}

static uint32_t size_of(const struct val *v)
{
    uint32_t n = 1 + (v->type == VAL_STR ? v->n / 16 : 0);

    VAL_EACH(v, it)
        n += size_of(it);
    VAL_EACH_MEMBER(v, m)
        n += size_of(&m->v);
    return n;
}

/* Parts that are moved and copied into one another nest deeper than any document that came in. */
static bool too_deep(const struct val *v, uint32_t left)
{
    if (v->type != VAL_LIST && v->type != VAL_MAP)
        return false;
    if (!left)
        return true;
    VAL_EACH(v, it)
        if (too_deep(it, left - 1))
            return true;
    VAL_EACH_MEMBER(v, m)
        if (too_deep(&m->v, left - 1))
            return true;
    return false;
}

static int deep_check(const struct val *v, const struct pointer *p, struct err *err)
{
    if (p->n < JSON_DEPTH_MAX && !too_deep(v, JSON_DEPTH_MAX - p->n))
        return 0;
    return err_set(err, INVALID, "JSON patch: the result would be nested more than %d levels deep", JSON_DEPTH_MAX);
}

struct patching {
    struct arena *a;
    struct val *root;
    uint64_t copied;
    struct err *err;
};

static int op_apply(struct patching *s, const struct val *o)
{
    const char *op = val_text(val_get(o, "op"), NULL);
    const char *path = val_text(val_get(o, "path"), NULL);
    const char *from = val_text(val_get(o, "from"), NULL);
    const struct val *value = val_get(o, "value");
    struct pointer p, f;

    if (!op || !path)
        return err_set(s->err, INVALID, "JSON patch: an operation wants op and path");
    if (pointer_parse(s->a, path, &p, s->err) < 0)
        return -1;
    bool moves = streq(op, "move") || streq(op, "copy");
    if (moves && (!from || pointer_parse(s->a, from, &f, s->err) < 0))
        return from ? -1 : err_set(s->err, INVALID, "JSON patch: %s wants from", op);
    if ((streq(op, "add") || streq(op, "replace")) && !value)
        value = val_null(s->a);
    if ((streq(op, "add") || streq(op, "replace")) && deep_check(value, &p, s->err) < 0)
        return -1;
    if (streq(op, "add"))
        return op_add(s->a, s->root, &p, val_copy(s->a, value), op, path, s->err);
    if (streq(op, "remove"))
        return op_remove(s->root, &p, op, path, s->err);
    if (streq(op, "replace")) {
        struct val *at = find(s->root, &p, p.n);
        if (!at)
            return missing(s->err, op, path);
        *at = *val_copy(s->a, value);
        return 0;
    }
    if (streq(op, "test")) {
        const struct val *at = find(s->root, &p, p.n);
        struct val null = {.type = VAL_NULL};
        if (val_equal(at ? at : &null, value ? value : &null))
            return 0;
        return err_set(s->err, INVALID, "testing value %.200s failed: test failed", path);
    }
    if (!moves)
        return err_set(s->err, INVALID, "JSON patch: unexpected kind: %.40s", op);
    const struct val *at = find(s->root, &f, f.n);
    if (!at)
        return missing(s->err, op, from);
    if (deep_check(at, &p, s->err) < 0)
        return -1;
    if (streq(op, "copy")) {
        s->copied += size_of(at);
        if (s->copied > COPIED_MAX)
            return err_set(s->err, TOO_LARGE, "JSON patch: copies too much");
        return op_add(s->a, s->root, &p, val_copy(s->a, at), op, path, s->err);
    }
    if (strncmp(path, from, strlen(from)) == 0 && path[strlen(from)] == '/')
        return err_set(s->err, INVALID, "move operation does not apply: into itself");
    struct val moved = *at;
    if (op_remove(s->root, &f, op, from, s->err) < 0)
        return -1;
    return op_add(s->a, s->root, &p, &moved, op, path, s->err);
}

struct val *patch_json(struct arena *a, const struct val *doc, const struct val *patch,
                       struct err *err)
{
    if (patch->type != VAL_LIST) {
        err_set(err, INVALID_ARGUMENT, "json: cannot unmarshal object into Go value of type "
                                       "jsonpatch.Patch");
        return NULL;
    }
    if (patch->n > OPS_MAX) {
        err_set(err, TOO_LARGE, "The allowed maximum operations in a JSON patch is %d, got %u",
                OPS_MAX, patch->n);
        return NULL;
    }
    struct patching s = {.a = a, .root = val_copy(a, doc), .err = err};
    VAL_EACH(patch, o)
        if (op_apply(&s, o) < 0)
            return NULL;
    return s.root;
}
