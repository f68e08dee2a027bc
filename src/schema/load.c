/* schema/load.c - the text of the kinds files into types, rules, resources and columns.
 *
 * The language, a line at a time; blocks begin at column 0, their lines are indented:
 *   type NAME [atomic]                 a struct; lines: FIELD TYPE ATTRIBUTE...
 *   on NAME                            more attributes of its fields; lines: FIELD ATTRIBUTE...
 *                                      or, for the whole struct: @check HOOK, @default HOOK,
 *                                      @one FIELD..., @most-one FIELD...
 *   resource GV PLURAL KIND SCOPE ATTRIBUTE...   lines: sub NAME GV KIND VERBS
 *   extend GV PLURAL ATTRIBUTE...      more attributes of a resource
 *   say NAME                           what fields are for, for people; lines: FIELD TEXT (NAME *: any type)
 *   table GV PLURAL                    columns; lines: NAME | TYPE | FORMAT | PRIORITY | CELL
 * TYPE: string bool int32 int64 double bytes quantity int-or-string time micro-time duration raw
 * any, the name of a struct, []TYPE or {}TYPE (map). README.md lists the attributes. */
#include "schema/schema_int.h"

#include "codec/json.h"

#include <stdio.h>

struct span {
    const char *p;
    size_t n;
};

struct loader {
    struct schema *s;
    struct err *err;
    int line;
    struct type *type;      /* block `type` or `on` */
    bool extending;         /* block `on` */
    struct resource *res;   /* block `resource` */
    struct column **column; /* block `table`: where the next one hangs */
    struct span saying;     /* block `say`: the type's name */
    struct field *fields;   /* of a `type` block, until it ends */
    uint32_t fields_n, fields_cap;
};

static bool span_is(struct span w, const char *s)
{
    return w.n == strlen(s) && memcmp(w.p, s, w.n) == 0;
}

/* "key=" before the value: the value in *ret. */
static bool span_key(struct span w, const char *key, struct span *ret)
{
    size_t n = strlen(key);

    if (w.n <= n || memcmp(w.p, key, n) != 0 || w.p[n] != '=')
        return false;
    *ret = (struct span){w.p + n + 1, w.n - n - 1};
    return true;
}

static const char *intern(struct schema *s, struct span w)
{
    char *have = map_getn(&s->strings, w.p, w.n);

    if (have)
        return have;
    have = arena_strndup(s->arena, w.p, w.n);
    map_put(&s->strings, have, have);
    return have;
}

/* The next word of a line; a JSON string or object after '=' may hold blanks when quoted. */
static bool next_word(struct span *line, struct span *ret)
{
    while (line->n && *line->p == ' ')
        line->p++, line->n--;
    if (!line->n)
        return false;
    bool quoted = false;
    size_t n = 0;
    while (n < line->n && (quoted || line->p[n] != ' ')) {
        if (line->p[n] == '"')
            quoted = !quoted;
        n++;
    }
    *ret = (struct span){line->p, n};
    line->p += n;
    line->n -= n;
    return true;
}

static const char *const *words_of(struct schema *s, struct span text, char by, uint32_t *ret_n)
{
    uint32_t n = 1, i = 0;

    for (size_t k = 0; k < text.n; k++)
        n += text.p[k] == by;
    const char **words = arena_array(s->arena, const char *, n + 1);
    while (text.n) {
        const char *end = memchr(text.p, by, text.n);
        size_t len = end ? (size_t)(end - text.p) : text.n;
        words[i++] = intern(s, (struct span){text.p, len});
        text.p += len + (end != NULL);
        text.n -= len + (end != NULL);
    }
    if (ret_n)
        *ret_n = i;
    return words;
}

static int fail(struct loader *l, const char *what, struct span w)
{
    return err_set(l->err, INVALID, "kinds line %d: %s: %.*s", l->line, what, (int)w.n, w.p);
}

/* ---- types ---- */

static const char *const scalar_name[] = {
    [TYPE_STRING] = "string",   [TYPE_BOOL] = "bool",         [TYPE_INT32] = "int32",
    [TYPE_INT64] = "int64",     [TYPE_DOUBLE] = "double",     [TYPE_BYTES] = "bytes",
    [TYPE_QUANTITY] = "quantity", [TYPE_INT_OR_STRING] = "int-or-string", [TYPE_TIME] = "time",
    [TYPE_MICRO_TIME] = "micro-time", [TYPE_DURATION] = "duration", [TYPE_RAW] = "raw",
    [TYPE_ANY] = "any",
};
static const struct type scalars[] = {
    [TYPE_STRING] = {.kind = TYPE_STRING},
    [TYPE_BOOL] = {.kind = TYPE_BOOL},
    [TYPE_INT32] = {.kind = TYPE_INT32},
    [TYPE_INT64] = {.kind = TYPE_INT64},
    [TYPE_DOUBLE] = {.kind = TYPE_DOUBLE},
    [TYPE_BYTES] = {.kind = TYPE_BYTES},
    [TYPE_QUANTITY] = {.kind = TYPE_QUANTITY},
    [TYPE_INT_OR_STRING] = {.kind = TYPE_INT_OR_STRING},
    [TYPE_TIME] = {.kind = TYPE_TIME},
    [TYPE_MICRO_TIME] = {.kind = TYPE_MICRO_TIME},
    [TYPE_DURATION] = {.kind = TYPE_DURATION},
    [TYPE_RAW] = {.kind = TYPE_RAW},
    [TYPE_ANY] = {.kind = TYPE_ANY},
};

const struct type *schema_scalar(enum type_kind k)
{
    ASSERT(k < TYPE_LIST);
    return &scalars[k];
}

/* The struct of that name, made empty when it is named before it is described. */
static struct type *struct_type(struct schema *s, struct span name)
{
    struct type *t = map_getn(&s->types, name.p, name.n);

    if (t)
        return t;
    t = arena_new_of(s->arena, struct type);
    *t = (struct type){.kind = TYPE_STRUCT, .topology = TOPO_GRANULAR, .name = intern(s, name)};
    map_put(&s->types, t->name, t);
    return t;
}

/* topo: "", "atomic", "set", "map(k,k)" */
static const struct type *parse_type(struct loader *l, struct span w, struct span topo,
                                     bool map_atomic)
{
    struct schema *s = l->s;

    if (w.n > 2 && (w.p[0] == '[' || w.p[0] == '{')) {
        struct span elem = {w.p + 2, w.n - 2};
        char key[512];
        int n = snprintf(key, sizeof(key), "%.*s %.*s%s", (int)w.n, w.p, (int)topo.n, topo.p,
                         map_atomic ? "atomic" : "");
        struct type *have = map_getn(&s->lists, key, (size_t)n);
        if (have)
            return have;
        have = arena_new_of(s->arena, struct type);
        have->kind = w.p[0] == '[' ? TYPE_LIST : TYPE_MAP;
        have->elem = parse_type(l, elem, (struct span){0}, false);
        have->topology = TOPO_ATOMIC;
        if (have->kind == TYPE_MAP)
            have->topology = map_atomic ? TOPO_ATOMIC : TOPO_GRANULAR;
        else if (span_is(topo, "set"))
            have->topology = TOPO_SET;
        else if (topo.n > 4 && memcmp(topo.p, "map(", 4) == 0) {
            have->topology = TOPO_MAP;
            have->keys = words_of(s, (struct span){topo.p + 4, topo.n - 5}, ',', NULL);
        }
        map_put(&s->lists, key, have);
        return have;
    }
    for (uint32_t k = 0; k < ARRAY_LEN(scalar_name); k++)
        if (span_is(w, scalar_name[k]))
            return &scalars[k];
    return struct_type(s, w);
}

const struct field *type_field(const struct type *t, const char *name, size_t n)
{
    uint32_t lo = 0, hi = t->fields_n;

    while (lo < hi) {
        uint32_t mid = (lo + hi) / 2;
        const struct field *f = &t->fields[t->by_name[mid]];
        size_t common = f->name_n < n ? f->name_n : n;
        int c = memcmp(f->name, name, common);
        if (c == 0)
            c = f->name_n < n ? -1 : f->name_n > n;
        if (c == 0)
            return f;
        if (c < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return NULL;
}

static int by_name_cmp(const void *x, const void *y, void *fields)
{
    const struct field *f = fields;
    const struct field *a = &f[*(const uint16_t *)x], *b = &f[*(const uint16_t *)y];
    size_t n = a->name_n < b->name_n ? a->name_n : b->name_n;
    int c = memcmp(a->name, b->name, n);

    return c ? c : (int)a->name_n - (int)b->name_n;
}

void type_fields_set(struct arena *a, struct type *t, const struct field *fields, uint32_t n);
void type_fields_set(struct arena *a, struct type *t, const struct field *fields, uint32_t n)
{
    struct field *f = arena_memdup(a, fields, n * sizeof(*fields));
    uint16_t *by = arena_array(a, uint16_t, n ? n : 1);

    for (uint32_t i = 0; i < n; i++)
        by[i] = (uint16_t)i;
    qsort_r(by, n, sizeof(*by), by_name_cmp, f);
    t->fields = f;
    t->by_name = by;
    t->fields_n = (uint16_t)n;
}

const struct type *type_at(const struct type *t, const char *path)
{
    while (t && *path) {
        size_t n = strcspn(path, ".");
        if ((n == 2 && memcmp(path, "[]", 2) == 0) || (n == 2 && memcmp(path, "{}", 2) == 0)) {
            t = t->elem;
        } else {
            const struct field *f = t->kind == TYPE_STRUCT ? type_field(t, path, n) : NULL;
            t = f ? f->type : NULL;
        }
        path += n;
        path += *path == '.';
    }
    return t;
}

/* ---- rules ---- */

static struct rule *rule_add(struct loader *l, const struct rule **list, enum rule_op op)
{
    struct rule *r = arena_new_of(l->s->arena, struct rule);

    r->op = op;
    while (*list) /* at the end: rules run in the order they are written */
        list = (const struct rule **)(uintptr_t)&(*list)->next;
    *list = r;
    return r;
}

static int field_default(struct loader *l, struct field *f, struct span v)
{
    f->def = json_parse(l->s->arena, v.p, v.n, l->err);
    return f->def ? 0 : err_wrap(l->err, "kinds line %d", l->line);
}

static void field_patch(struct loader *l, struct field *f, struct span v)
{
    const char *open = memchr(v.p, '(', v.n);
    struct span how = {v.p, open ? (size_t)(open - v.p) : v.n};

    if (open)
        f->merge_key = intern(l->s, (struct span){open + 1, v.n - how.n - 2});
    uint32_t n;
    const char *const *w = words_of(l->s, how, ',', &n);
    for (uint32_t i = 0; i < n; i++)
        f->flags |= streq(w[i], "merge")        ? FIELD_MERGE
                    : streq(w[i], "retainKeys") ? FIELD_RETAIN
                                                : FIELD_REPLACE;
}

static int rule_check(struct loader *l, struct field *f, enum rule_op op, struct span v)
{
    const struct named_check *c = named_check_find(v.p, v.n);

    if (!c)
        return fail(l, "no such check", v);
    rule_add(l, &f->rules, op)->fn = c;
    return 0;
}

static void rule_words(struct loader *l, struct field *f, enum rule_op op, struct span v)
{
    struct rule *r = rule_add(l, &f->rules, op);

    r->words = words_of(l->s, v, ',', &r->words_n);
}

static struct rule *rule_last(struct field *f)
{
    struct rule *last = (struct rule *)(uintptr_t)f->rules;

    while (last->next)
        last = (struct rule *)(uintptr_t)last->next;
    return last;
}

static int field_attr(struct loader *l, struct field *f, struct span w)
{
    static const struct {
        const char *word;
        uint16_t flag;
    } flags[] = {{"ptr", FIELD_PTR}, {"keep", FIELD_KEEP}, {"zero", FIELD_ZERO},
                 {"required", FIELD_REQUIRED}, {"given", FIELD_GIVEN}, {"off", FIELD_OFF},
                 {"map=granular", FIELD_GRANULAR}, {"boxed", FIELD_BOXED}};
    static const struct {
        const char *word;
        enum rule_op op;
    } bare[] = {{"need", RULE_NEED}, {"need-key", RULE_NEED_KEY}, {"immutable", RULE_IMMUTABLE},
                {"forbid", RULE_FORBID}, {"unique", RULE_UNIQUE}, {"skip", RULE_SKIP}, {"skip-update", RULE_SKIP_UPDATE},
                {"need0", RULE_NEED_NUM}},
      numbers[] = {{"min", RULE_MIN}, {"max", RULE_MAX}, {"maxlen", RULE_MAX_LEN}},
      lists[] = {{"oneof", RULE_ONE_OF}, {"each-oneof", RULE_EACH_ONE_OF}, {"told", RULE_TOLD},
                 {"unique", RULE_UNIQUE}, {"default-if", RULE_DEFAULT_IF}};
    struct span v;

    for (uint32_t i = 0; i < ARRAY_LEN(flags); i++)
        if (span_is(w, flags[i].word)) {
            f->flags |= flags[i].flag;
            return 0;
        }
    for (uint32_t i = 0; i < ARRAY_LEN(bare); i++)
        if (span_is(w, bare[i].word)) {
            rule_add(l, &f->rules, bare[i].op);
            return 0;
        }
    for (uint32_t i = 0; i < ARRAY_LEN(numbers); i++)
        if (span_key(w, numbers[i].word, &v)) {
            rule_add(l, &f->rules, numbers[i].op)->num = strtoll(v.p, NULL, 10);
            return 0;
        }
    for (uint32_t i = 0; i < ARRAY_LEN(lists); i++)
        if (span_key(w, lists[i].word, &v)) {
            rule_words(l, f, lists[i].op, v);
            return 0;
        }
    if (span_key(w, "oneof0", &v)) {
        rule_words(l, f, RULE_ONE_OF, v);
        rule_last(f)->num = 1;
        return 0;
    }
    if (w.p[0] == '#') {
        char *end;
        f->proto = (uint16_t)strtoul(w.p + 1, &end, 10);
        for (int shift = 0; *end == '.'; shift += 8) {
            f->proto_outer |= (uint16_t)(f->proto << shift);
            f->proto = (uint16_t)strtoul(end + 1, &end, 10);
        }
        return 0;
    }
    if (span_key(w, "default", &v))
        return field_default(l, f, v);
    if (span_key(w, "patch", &v)) {
        field_patch(l, f, v);
        return 0;
    }
    if (span_key(w, "check", &v))
        return rule_check(l, f, RULE_CHECK, v);
    if (span_key(w, "check0", &v)) {
        if (rule_check(l, f, RULE_CHECK, v) < 0)
            return -1;
        rule_last(f)->num = 1;
        return 0;
    }
    if (span_key(w, "check-given", &v)) {
        if (rule_check(l, f, RULE_CHECK, v) < 0)
            return -1;
        rule_last(f)->num = 2;
        return 0;
    }
    if (span_key(w, "each", &v))
        return rule_check(l, f, RULE_EACH, v);
    if (span_key(w, "list", &v) || span_key(w, "map", &v) || span_is(w, "union"))
        return 0; /* read with the type */
    return fail(l, "unknown attribute", w);
}

static int type_line(struct loader *l, struct span line)
{
    struct span name, type, w, topo = {0}, v, rest;
    bool map_atomic = false;

    if (!next_word(&line, &name) || !next_word(&line, &type))
        return fail(l, "a field wants a name and a type", line);
    rest = line;
    while (next_word(&rest, &w)) {
        if (span_key(w, "list", &v))
            topo = v;
        else if (span_key(w, "map", &v))
            map_atomic = true;
    }
    if (l->fields_n == l->fields_cap) {
        l->fields_cap = l->fields_cap ? l->fields_cap * 2 : 64;
        l->fields = xrealloc(l->fields, l->fields_cap * sizeof(*l->fields));
    }
    struct field *f = &l->fields[l->fields_n++];
    *f = (struct field){.name = intern(l->s, name), .name_n = (uint16_t)name.n,
                        .type = parse_type(l, type, topo, map_atomic)};
    while (next_word(&line, &w))
        if (field_attr(l, f, w) < 0)
            return -1;
    return 0;
}

static int struct_rule(struct loader *l, struct span word, struct span line)
{
    struct span w;
    char name[64];

    if (span_is(word, "@one") || span_is(word, "@most-one")) {
        struct rule *r = rule_add(l, &l->type->rules, span_is(word, "@one") ? RULE_ONE_FIELD
                                                                            : RULE_MOST_ONE_FIELD);
        while (line.n && *line.p == ' ')
            line.p++, line.n--;
        r->words = words_of(l->s, line, ' ', &r->words_n);
        return 0;
    }
    if (!next_word(&line, &w) || w.n >= sizeof(name))
        return fail(l, "a hook wants a name", word);
    memcpy(name, w.p, w.n);
    name[w.n] = 0;
    bool check = span_is(word, "@check");
    if (!check && !span_is(word, "@default"))
        return fail(l, "unknown rule", word);
    const void *fn = check ? (const void *)(uintptr_t)validate_hook_find(name)
                           : (const void *)(uintptr_t)default_hook_find(name);
    if (!fn)
        return fail(l, "no such hook", w);
    rule_add(l, &l->type->rules, check ? RULE_HOOK : RULE_DEFAULT_HOOK)->fn = fn;
    return 0;
}

static int on_line(struct loader *l, struct span line)
{
    struct span name, w;

    if (!next_word(&line, &name))
        return 0;
    if (name.p[0] == '@')
        return struct_rule(l, name, line);
    const struct field *f = type_field(l->type, name.p, name.n);
    if (!f)
        return fail(l, "no such field", name);
    while (next_word(&line, &w))
        if (field_attr(l, (struct field *)(uintptr_t)f, w) < 0)
            return -1;
    return 0;
}

/* ---- resources ---- */

static uint32_t verbs_of(struct span v)
{
    static const char *const name[] = {"get", "list", "watch", "create", "update", "patch",
                                       "delete", "deletecollection"};
    uint32_t verbs = 0;

    while (v.n) {
        const char *end = memchr(v.p, ',', v.n);
        size_t n = end ? (size_t)(end - v.p) : v.n;
        for (uint32_t i = 0; i < ARRAY_LEN(name); i++)
            if (span_is((struct span){v.p, n}, name[i]))
                verbs |= 1u << i;
        v.p += n + (end != NULL);
        v.n -= n + (end != NULL);
    }
    return verbs;
}

static int resource_attr(struct loader *l, struct resource *r, struct span w)
{
    static const char *const name_rules[] = {
        [NAME_SUBDOMAIN] = "subdomain", [NAME_LABEL] = "label", [NAME_LABEL1035] = "label1035",
        [NAME_PATH] = "path", [NAME_ANY] = "any", [NAME_IP] = "ip"};
    struct schema *s = l->s;
    struct span v;

    if (span_key(w, "type", &v))
        r->described = struct_type(s, v);
    else if (span_key(w, "verbs", &v))
        r->verbs = verbs_of(v);
    else if (span_key(w, "short", &v))
        r->short_names = words_of(s, v, ',', NULL);
    else if (span_key(w, "categories", &v))
        r->categories = words_of(s, v, ',', NULL);
    else if (span_key(w, "singular", &v))
        r->singular = intern(s, v);
    else if (span_key(w, "select", &v))
        r->priv->selects = words_of(s, v, ',', NULL);
    else if (span_key(w, "table", &v))
        r->table = intern(s, v);
    else if (span_key(w, "store", &v))
        r->priv->store_version = intern(s, v);
    else if (span_is(w, "generation"))
        r->generation = true;
    else if (span_key(w, "deprecated", &v) && v.n > 2)
        r->deprecated = intern(s, (struct span){v.p + 1, v.n - 2});
    else if (span_is(w, "status-meta"))
        r->priv->status_meta = true;
    else if (span_is(w, "generation-fixed"))
        r->priv->generation_fixed = true;
    else if (span_is(w, "generation-later"))
        r->priv->generation_later = true;
    else if (span_is(w, "meta-once"))
        r->priv->meta_once = true;
    else if (span_is(w, "meta-again"))
        r->priv->meta_again++;
    else if (span_is(w, "meta-lenient"))
        r->priv->meta_lenient = true;
    else if (span_is(w, "twice"))
        r->priv->twice = true;
    else if (span_is(w, "not-stored"))
        r->stored = false;
    else if (span_is(w, "virtual"))
        r->virtual_ = true;
    else if (span_is(w, "preserve"))
        r->preserve_unknown = true;
    else if (span_key(w, "name", &v)) {
        for (uint32_t i = 0; i < ARRAY_LEN(name_rules); i++)
            if (span_is(v, name_rules[i])) {
                r->priv->name_rule = (enum name_rule)i;
                return 0;
            }
        return fail(l, "no such name rule", v);
    } else
        return fail(l, "unknown attribute", w);
    return 0;
}

static void group_version(struct schema *s, struct span gv, const char **group,
                          const char **version)
{
    const char *slash = memchr(gv.p, '/', gv.n);
    size_t n = slash ? (size_t)(slash - gv.p) : 0;

    *group = intern(s, (struct span){gv.p, n});
    *version = slash ? intern(s, (struct span){slash + 1, gv.n - n - 1}) : intern(s, gv);
}

static int resource_start(struct loader *l, struct span line)
{
    static const char *const none[] = {NULL};
    struct schema *s = l->s;
    struct span gv, plural, kind, scope, w;

    if (!next_word(&line, &gv) || !next_word(&line, &plural) || !next_word(&line, &kind) ||
        !next_word(&line, &scope))
        return fail(l, "resource wants version, plural, kind, scope", line);
    struct resource *r = arena_new_of(s->arena, struct resource);
    r->priv = arena_new_of(s->arena, struct resource_priv);
    r->priv->refs = 1;
    r->schema = s;
    r->api_version = intern(s, gv);
    group_version(s, gv, &r->group, &r->version);
    r->plural = intern(s, plural);
    r->kind = intern(s, kind);
    r->list_kind = arena_printf(s->arena, "%sList", r->kind);
    char *singular = arena_strdup(s->arena, r->kind);
    for (char *p = singular; *p; p++)
        *p |= (*p >= 'A' && *p <= 'Z') ? 0x20 : 0;
    r->singular = singular;
    r->short_names = r->categories = r->priv->selects = none;
    r->namespaced = span_is(scope, "namespaced");
    r->stored = true;
    r->verbs = 0xff;
    r->table = *r->group ? arena_printf(s->arena, "%s/%s", r->group, r->plural) : r->plural;
    while (next_word(&line, &w))
        if (resource_attr(l, r, w) < 0)
            return -1;
    resource_register(s, r);
    l->res = r;
    return 0;
}

static int sub_line(struct loader *l, struct span line)
{
    struct span word, name, gv, kind, verbs;
    struct schema *s = l->s;
    struct resource *r = l->res;

    if (!next_word(&line, &word) || !span_is(word, "sub") || !next_word(&line, &name) ||
        !next_word(&line, &gv) || !next_word(&line, &kind) || !next_word(&line, &verbs))
        return fail(l, "sub wants name, version, kind, verbs", line);
    struct subresource *subs = arena_array(s->arena, struct subresource, r->subs_n + 1);
    if (r->subs_n)
        memcpy(subs, r->subs, r->subs_n * sizeof(*subs));
    struct subresource *sub = &subs[r->subs_n++];
    sub->name = intern(s, name);
    group_version(s, gv, &sub->group, &sub->version);
    sub->kind = intern(s, kind);
    sub->verbs = verbs_of(verbs);
    r->subs = subs;
    if (streq(sub->name, "status"))
        r->has_status = true;
    return 0;
}

static struct resource *resource_named(struct loader *l, struct span *line)
{
    struct span gv, plural;
    const char *group, *version;

    if (!next_word(line, &gv) || !next_word(line, &plural))
        return NULL;
    group_version(l->s, gv, &group, &version);
    return (struct resource *)(uintptr_t)schema_resource(l->s, group, version,
                                                         intern(l->s, plural));
}

/* NAME | TYPE | FORMAT | PRIORITY | CELL */
static int column_line(struct loader *l, struct span line)
{
    struct span part[5];
    uint32_t n = 0;

    for (const char *p = line.p, *end = line.p + line.n; n < 5; n++) {
        const char *bar = n < 4 ? memchr(p, '|', (size_t)(end - p)) : NULL;
        const char *stop = bar ? bar : end;
        const char *from = p;
        while (from < stop && *from == ' ')
            from++;
        const char *to = stop;
        while (to > from && to[-1] == ' ')
            to--;
        part[n] = (struct span){from, (size_t)(to - from)};
        if (!bar) {
            n++;
            break;
        }
        p = bar + 1;
    }
    if (n != 5)
        return fail(l, "a column wants NAME | TYPE | FORMAT | PRIORITY | CELL", line);
    struct column *c = arena_new_of(l->s->arena, struct column);
    c->name = intern(l->s, part[0]);
    c->type = intern(l->s, part[1]);
    c->format = span_is(part[2], "-") ? "" : intern(l->s, part[2]);
    c->priority = part[3].n && part[3].p[0] == '1';
    c->expr = intern(l->s, part[4]);
    if (str_starts(c->expr, "fn:") && !(c->fn = (const void *)(uintptr_t)cell_find(c->expr + 3)))
        return fail(l, "no such cell function", part[4]);
    table_column_read(l->s->arena, c);
    *l->column = c;
    l->column = (struct column **)(uintptr_t)&c->next;
    return 0;
}

/* FIELD TEXT */
static int say_line(struct loader *l, struct span line)
{
    struct arena *a = l->s->arena;
    struct span field;

    if (!next_word(&line, &field))
        return 0;
    while (line.n && *line.p == ' ')
        line = (struct span){line.p + 1, line.n - 1};
    map_put(&l->s->says, arena_printf(a, "%.*s %.*s", (int)l->saying.n, l->saying.p, (int)field.n, field.p),
            arena_strndup(a, line.p, line.n));
    return 0;
}

/* ---- blocks ---- */

static void block_end(struct loader *l)
{
    if (l->type && !l->extending)
        type_fields_set(l->s->arena, l->type, l->fields, l->fields_n);
    l->type = NULL;
    l->res = NULL;
    l->column = NULL;
    l->saying = (struct span){0};
    l->fields_n = 0;
    l->extending = false;
}

static int block_start(struct loader *l, struct span line)
{
    struct span word, name, w;
    struct resource *r;

    block_end(l);
    if (!next_word(&line, &word))
        return 0;
    if (span_is(word, "resource"))
        return resource_start(l, line);
    if (span_is(word, "table")) {
        r = resource_named(l, &line);
        if (!r)
            return fail(l, "no such resource", line);
        l->column = (struct column **)(uintptr_t)&r->priv->columns;
        return 0;
    }
    if (span_is(word, "extend")) {
        struct span at = line;
        r = resource_named(l, &line);
        if (!r)
            return fail(l, "no such resource", at);
        while (next_word(&line, &w))
            if (resource_attr(l, r, w) < 0)
                return -1;
        l->res = r;
        return 0;
    }
    if (!next_word(&line, &name))
        return fail(l, "what?", word);
    if (span_is(word, "type")) {
        l->type = struct_type(l->s, name);
        if (l->type->fields)
            return fail(l, "described twice", name);
        if (next_word(&line, &w) && span_is(w, "atomic"))
            l->type->topology = TOPO_ATOMIC;
        return 0;
    }
    if (span_is(word, "say")) {
        l->saying = name;
        return 0;
    }
    if (span_is(word, "on")) {
        l->type = map_getn(&l->s->types, name.p, name.n);
        if (!l->type)
            return fail(l, "no such type", name);
        l->extending = true;
        return 0;
    }
    return fail(l, "unknown block", word);
}

int schema_load_text(struct schema *s, const char *text, size_t n, struct err *err)
{
    struct loader l = {.s = s, .err = err};
    int rc = 0;

    for (const char *p = text, *end = text + n; p < end && rc == 0;) {
        const char *nl = memchr(p, '\n', (size_t)(end - p));
        struct span line = {p, nl ? (size_t)(nl - p) : (size_t)(end - p)};
        p += line.n + 1;
        l.line++;
        while (line.n && (line.p[line.n - 1] == ' ' || line.p[line.n - 1] == '\r'))
            line.n--;
        if (!line.n || line.p[0] == '#' || (line.p[0] == ' ' && line.n > 2 && line.p[2] == '#'
                                            && line.p[1] == ' '))
            continue;
        if (line.p[0] != ' ')
            rc = block_start(&l, line);
        else if (l.saying.n)
            rc = say_line(&l, line);
        else if (l.column)
            rc = column_line(&l, line);
        else if (l.res)
            rc = sub_line(&l, line);
        else if (l.type && l.extending)
            rc = on_line(&l, line);
        else if (l.type)
            rc = type_line(&l, line);
        else
            rc = fail(&l, "a line outside of any block", line);
    }
    if (rc == 0)
        block_end(&l);
    free(l.fields);
    return rc;
}
