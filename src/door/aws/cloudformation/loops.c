/* door/aws/cloudformation/loops.c - Fn::ForEach (AWS::LanguageExtensions): loops written out before anything else looks. */
#include "door/aws/cloudformation/cfn_template.h"

#include <ctype.h>

#include "base/buf.h"

struct loop {
    const char *name, *value;
    const struct loop *outer;
};

static const char *value_of(const struct loop *l, const char *name)
{
    for (; l; l = l->outer)
        if (streq(l->name, name))
            return l->value;
    return NULL;
}

/* ${X} and &{X} (the value without what is not alphanumeric) of loop names; all else stays for Fn::Sub. */
static const char *replace(struct cfn_scope *s, const char *text, const struct loop *l)
{
    struct buf b = {0};
    const char *out;

    if (!strstr(text, "{"))
        return text;
    for (const char *p = text; *p;) {
        const char *end = (p[0] == '$' || p[0] == '&') && p[1] == '{' ? strchr(p, '}') : NULL;
        const char *value = end ? value_of(l, arena_strndup(s->a, p + 2, (size_t)(end - p - 2))) : NULL;

        if (!value) {
            buf_addc(&b, *p++);
            continue;
        }
        for (const char *c = value; *c; c++)
            if (p[0] == '$' || isalnum((unsigned char)*c))
                buf_addc(&b, *c);
        p = end + 1;
    }
    s->bytes += b.n;
    out = arena_strndup(s->a, b.p ? b.p : "", b.n);
    buf_done(&b);
    return out;
}

static int into_map(struct cfn_scope *s, const struct val *map, const struct loop *l, struct val *out, struct err *err);

static struct val *written_out(struct cfn_scope *s, const struct val *v, const struct loop *l, struct err *err)
{
    struct val *out;

    if (++s->nodes > CFN_NODES_MAX || s->bytes > CFN_BYTES_MAX || s->depth > 2 * CFN_DEPTH_MAX) {
        err_set(err, INVALID_ARGUMENT, "Template error: Fn::ForEach expands to more than is allowed");
        return NULL;
    }
    if (v->type == VAL_STR)
        return val_str(s->a, replace(s, v->s, l));
    if (v->type == VAL_MAP && v->n == 1 && streq(v->members[0].key, "Ref") && value_of(l, val_text(&v->members[0].v, "")))
        return val_str(s->a, value_of(l, v->members[0].v.s));
    s->depth++;
    if (v->type == VAL_LIST) {
        out = val_list(s->a);
        VAL_EACH(v, it)
        {
            struct val *part = written_out(s, it, l, err);

            if (!part)
                return NULL;
            val_push(s->a, out, part);
        }
    } else if (v->type == VAL_MAP) {
        out = val_map(s->a);
        if (into_map(s, v, l, out, err) < 0)
            return NULL;
    } else {
        out = val_copy(s->a, v);
    }
    s->depth--;
    return out;
}

static int one_loop(struct cfn_scope *s, const struct val *v, const struct loop *l, struct val *out, struct err *err)
{
    const struct val *items;

    if (!val_is(v, VAL_LIST) || v->n != 3 || v->items[0].type != VAL_STR || v->items[2].type != VAL_MAP)
        return err_set(err, INVALID_ARGUMENT, "Template error: Fn::ForEach needs a list of three: a name, a collection and a fragment");
    items = written_out(s, &v->items[1], l, err);
    if (items && !val_is(items, VAL_LIST)) {
        uint32_t nodes = s->nodes, depth = s->depth;
        size_t bytes = s->bytes;

        items = cfn_eval(s, items, err);
        s->nodes += nodes;
        s->depth = depth;
        s->bytes += bytes;
    }
    if (!items)
        return -1;
    if (!val_is(items, VAL_LIST))
        return err_set(err, INVALID_ARGUMENT, "Template error: Fn::ForEach could not resolve its collection to a list");
    VAL_EACH(items, it)
    {
        const char *text;
        struct loop inner;

        text = cfn_scalar(s->a, it);
        inner = (struct loop){v->items[0].s, text, l};
        if (!text)
            return err_set(err, INVALID_ARGUMENT, "Template error: the collection of Fn::ForEach must hold strings");
        if (into_map(s, &v->items[2], &inner, out, err) < 0)
            return -1;
    }
    return 0;
}

static int into_map(struct cfn_scope *s, const struct val *map, const struct loop *l, struct val *out, struct err *err)
{
    VAL_EACH_MEMBER(map, m)
    {
        struct val *part;

        if (str_starts(m->key, "Fn::ForEach::")) {
            if (one_loop(s, &m->v, l, out, err) < 0)
                return -1;
            continue;
        }
        part = written_out(s, &m->v, l, err);
        if (!part)
            return -1;
        val_put(s->a, out, replace(s, m->key, l), part);
        if (val_len(out) > CFN_NODES_MAX / 10)
            return err_set(err, INVALID_ARGUMENT, "Template error: Fn::ForEach expands to more than is allowed");
    }
    return 0;
}

struct val *cfn_expand_loops(struct cfn_scope *s, struct err *err)
{
    struct val *out = val_map(s->a);

    s->nodes = s->depth = 0;
    s->bytes = 0;
    return into_map(s, s->doc, NULL, out, err) < 0 ? NULL : out;
}
