/* fields.c of zygote.so - wasi:http/types of an HTTP component: fields, which are headers and trailers; see host.h. */
#include "function/runtime/wasm/host.h"

#include <stdlib.h>
#include <strings.h>

enum { FIELDS_ALL = 8 << 20 /* bytes of all that were made for a request */ };

void wasm_each_field(const struct fields *f, void (*fn)(void *arg, const char *name, const char *value, size_t n), void *arg_)
{
    for (size_t at = 0; at < f->text.n;) {
        const char *name = f->text.p + at;
        size_t n;

        at += strlen(name) + 1;
        memcpy(&n, f->text.p + at, sizeof n);
        at += sizeof n;
        fn(arg_, name, f->text.p + at, n);
        at += n;
    }
}

static bool is_token(const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (!strchr("!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ", p[i]) || !p[i])
            return false;
    return n > 0 && n < 8192;
}

static bool is_forbidden(const char *name)
{
    static const char *const hops[] = {"connection", "keep-alive", "proxy-connection", "proxy-authenticate", "proxy-authorization",
                                       "transfer-encoding", "upgrade", "host", "http2-settings", "te"};

    for (size_t i = 0; i < ARRAY_LEN(hops); i++)
        if (strcasecmp(name, hops[i]) == 0)
            return true;
    return false;
}

static bool field_add(struct fields *f, const char *name, const char *value, size_t n)
{
    size_t all = strlen(name) + 1 + sizeof n + n;

    if (wasm_req.fields_bytes + all > FIELDS_ALL || !buf_reserve(&f->text, all + 1))
        return false;
    wasm_req.fields_bytes += all;
    buf_add(&f->text, name, strlen(name) + 1);
    buf_add(&f->text, &n, sizeof n);
    if (n)
        buf_add(&f->text, value, n);
    return true;
}

bool wasm_is_ascii(const char *s)
{
    for (; *s; s++)
        if (*s < ' ' || *s == 0x7f)
            return false;
    return true;
}

struct fields *wasm_fields_of(const struct web *w)
{
    struct fields *f = wasm_fields_new();

    for (size_t at = 0; at < w->fields.n;) {
        const char *name = w->fields.p + at, *value = name + strlen(name) + 1;

        if (!is_forbidden(name) && wasm_is_ascii(name))
            field_add(f, name, value, strlen(value));
        at = (size_t)(value - w->fields.p) + strlen(value) + 1;
    }
    f->fixed = true;
    return f;
}

struct pick { /* what wasm_each_field() looks for */
    const char *name;
    size_t n;            /* found */
    struct wasm_val *to; /* NULL: only counted */
    struct fields *rest; /* or: those that are not of that name */
    bool pairs;
};

static void pick_one(void *arg_, const char *name, const char *value, size_t n)
{
    struct pick *p = arg_;
    bool same = !p->name || strcasecmp(name, p->name) == 0;

    if (p->rest && !same)
        field_add(p->rest, name, value, n);
    if (p->rest || !same)
        return;
    if (p->to && p->pairs) {
        p->to[p->n] = v_list(WASM_TUPLE, 2);
        p->to[p->n].of.list.p[0] = v_str(name, strlen(name));
        p->to[p->n].of.list.p[1] = v_bytes(value, n);
    } else if (p->to) {
        p->to[p->n] = v_bytes(value, n);
    }
    p->n++;
}

static struct wasm_val field_list(const struct fields *f, const char *name, bool pairs)
{
    struct pick p = {.name = name, .pairs = pairs};
    struct wasm_val v;

    wasm_each_field(f, pick_one, &p);
    v = v_list(WASM_LIST, p.n);
    p.n = 0;
    p.to = v.of.list.p;
    if (v.of.list.n)
        wasm_each_field(f, pick_one, &p);
    return v;
}

/* The name in the argument, as a text that is freed by the caller; NULL: a trap. */
static char *arg_name(struct in *in, size_t i)
{
    const struct wasm_val *v = arg(in, i, WASM_STRING);

    return v ? strndup(v->of.string.n ? v->of.string.p : "", v->of.string.n) : NULL;
}

static void fields_new_empty(struct in *in)
{
    uint32_t rep = wasm_obj_new(K_FIELDS);

    if (rep)
        wasm_req.objs[rep].fields = wasm_fields_new();
    give(in, wasm_resource(in, rep));
}

static void fields_read(struct in *in, bool only_has)
{
    struct obj *o = wasm_arg_res(in, 0, K_FIELDS);
    char *name = o ? arg_name(in, 1) : NULL;
    struct pick p = {.name = name};

    if (!name)
        return;
    if (only_has) {
        wasm_each_field(o->fields, pick_one, &p);
        give(in, v_bool(p.n > 0));
    } else {
        give(in, field_list(o->fields, name, false));
    }
    free(name);
}

static void fields_get(struct in *in)
{
    fields_read(in, false);
}

static void fields_has(struct in *in)
{
    fields_read(in, true);
}

static void fields_entries(struct in *in)
{
    struct obj *o = wasm_arg_res(in, 0, K_FIELDS);

    if (o)
        give(in, field_list(o->fields, NULL, true));
}

static void fields_clone(struct in *in)
{
    struct obj *o = wasm_arg_res(in, 0, K_FIELDS);
    struct fields *from = o ? o->fields : NULL;
    uint32_t rep = o ? wasm_obj_new(K_FIELDS) : 0;

    if (!o)
        return;
    if (rep) {
        wasm_req.objs[rep].fields = wasm_fields_new();
        wasm_req.fields_bytes += from->text.n;
        if (wasm_req.fields_bytes > FIELDS_ALL)
            in->trap = "its fields are too big";
        else if (from->text.n)
            buf_add(&wasm_req.objs[rep].fields->text, from->text.p, from->text.n);
    }
    give(in, wasm_resource(in, rep));
}

/* Takes a value out of a list of bytes and appends it; NULL, or header-error's case. */
static const char *field_put(struct fields *f, const char *name, const struct wasm_val *value)
{
    struct buf b = {.max = FIELDS_BYTES};
    const char *why = NULL;

    if (!wasm_add_bytes(value, &b))
        why = "invalid-syntax";
    for (size_t i = 0; i < b.n && !why; i++)
        if (b.p[i] == '\r' || b.p[i] == '\n' || !b.p[i])
            why = "invalid-syntax";
    if (!why && !field_add(f, name, b.p, b.n))
        why = "invalid-syntax";
    buf_done(&b);
    return why;
}

/* "" fields: header-error's case for a change of them; NULL: they may be. */
static const char *may_change(const struct obj *o, const char *name, size_t n)
{
    if (!is_token(name, n) || strlen(name) != n)
        return "invalid-syntax";
    if (is_forbidden(name))
        return "forbidden";
    return o->fields->fixed ? "immutable" : NULL;
}

static void say_changed(struct in *in, const char *why)
{
    give(in, why ? v_err(v_case(why)) : v_done(true));
}

enum change { SET, APPEND, DELETE };
static void change(struct in *in, enum change how)
{
    struct obj *o = wasm_arg_res(in, 0, K_FIELDS);
    char *name = o ? arg_name(in, 1) : NULL;
    const struct wasm_val *v = name && how != DELETE ? arg(in, 2, WASM_LIST) : NULL;
    const char *why;

    if (!name || (how != DELETE && !v)) {
        free(name);
        return;
    }
    why = may_change(o, name, in->args[1].of.string.n);
    if (!why && how != APPEND) {
        struct fields *rest = wasm_fields_new();
        struct pick p = {.name = name, .rest = rest};

        wasm_each_field(o->fields, pick_one, &p);
        buf_done(&o->fields->text);
        o->fields->text = rest->text;
        rest->text = (struct buf){.max = FIELDS_BYTES};
    }
    if (!why && how == APPEND)
        why = field_put(o->fields, name, v);
    for (size_t i = 0; !why && how == SET && i < v->of.list.n; i++)
        why = field_put(o->fields, name, &v->of.list.p[i]);
    say_changed(in, why);
    free(name);
}

static void fields_set(struct in *in)
{
    change(in, SET);
}

static void fields_append(struct in *in)
{
    change(in, APPEND);
}

static void fields_delete(struct in *in)
{
    change(in, DELETE);
}

static void fields_from_list(struct in *in)
{
    const struct wasm_val *v = arg(in, 0, WASM_LIST);
    uint32_t rep = v ? wasm_obj_new(K_FIELDS) : 0;
    const char *why = NULL;

    if (!v)
        return;
    if (rep)
        wasm_req.objs[rep].fields = wasm_fields_new();
    for (size_t i = 0; rep && !why && i < v->of.list.n; i++) {
        const struct wasm_val *pair = &v->of.list.p[i];
        char *name;

        if (pair->kind != WASM_TUPLE || pair->of.list.n != 2 || pair->of.list.p[0].kind != WASM_STRING) {
            in->trap = "an argument is not of WASI's type";
            return;
        }
        name = strndup(pair->of.list.p[0].of.string.n ? pair->of.list.p[0].of.string.p : "", pair->of.list.p[0].of.string.n);
        why = may_change(&wasm_req.objs[rep], name, pair->of.list.p[0].of.string.n);
        if (!why)
            why = field_put(wasm_req.objs[rep].fields, name, &pair->of.list.p[1]);
        free(name);
    }
    if (why && rep)
        obj_free(rep);
    give(in, why ? v_err(v_case(why)) : v_ok(wasm_resource(in, rep)));
}

/* ---- the rows ---- */

const struct wasm_function wasm_fields_functions[] = {
    {"wasi:http/types", "[constructor]fields", fields_new_empty},
    {"wasi:http/types", "[static]fields.from-list", fields_from_list},
    {"wasi:http/types", "[method]fields.get", fields_get},
    {"wasi:http/types", "[method]fields.has", fields_has},
    {"wasi:http/types", "[method]fields.set", fields_set},
    {"wasi:http/types", "[method]fields.delete", fields_delete},
    {"wasi:http/types", "[method]fields.append", fields_append},
    {"wasi:http/types", "[method]fields.entries", fields_entries},
    {"wasi:http/types", "[method]fields.clone", fields_clone},
    {0},
};
