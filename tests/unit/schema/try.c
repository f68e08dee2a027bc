/* schema-try: reads lines of JSON {"op", "gv", "resource", "body", "old", "patch", "sub"} from standard
 * input and answers a line each with what the engine makes of it; for trying things by hand and for
 * playing recorded exchanges against the engine without a server.
 *   op: create | update | merge | strategic | json | table | openapi */
#include "codec/json.h"
#include "schema/patch.h"
#include "schema/publish.h"
#include "schema/schema.h"
#include "schema/table.h"

#include <stdio.h>
#include <time.h>

static void put_causes(struct arena *a, struct val *out, const struct causes *c)
{
    struct val *list = val_list(a);

    for (uint32_t i = 0; i < c->n; i++) {
        struct val *one = val_map(a);
        val_put_str(a, one, "reason", cause_reason(c->v[i].type));
        val_put_str(a, one, "field", c->v[i].field);
        val_put_str(a, one, "message", c->v[i].message);
        val_push(a, list, one);
    }
    val_put(a, out, "causes", list);
}

static int write_object(const struct resource *r, const char *sub, struct arena *a, struct val *v,
                        const struct val *old, struct val *out, struct err *err)
{
    struct texts strict = {.a = a};
    struct causes causes = {.a = a};

    if (schema_decode(r, a, v, &strict, err) < 0)
        return -1;
    schema_default(r, a, v);
    if (old)
        schema_prepare_update(r, sub, a, v, old);
    else
        schema_prepare_create(r, a, v);
    schema_validate(r, sub, v, old, &causes);
    val_put(a, out, "object", v);
    put_causes(a, out, &causes);
    struct val *list = val_list(a);
    for (uint32_t i = 0; i < strict.n; i++)
        val_push_str(a, list, strict.v[i]);
    val_put(a, out, "strict", list);
    return 0;
}

static int one(const struct schema *s, struct arena *a, const struct val *in, struct val *out,
               struct err *err)
{
    const char *op = val_str_at(in, "op", ""), *gv = val_str_at(in, "gv", "v1");
    const char *slash = strchr(gv, '/'), *sub = val_str_at(in, "sub", "");
    const char *group = slash ? arena_strndup(a, gv, (size_t)(slash - gv)) : "";
    const struct resource *r = schema_resource(s, group, slash ? slash + 1 : gv,
                                               val_str_at(in, "resource", ""));
    const struct val *old = val_get(in, "old"), *patch = val_get(in, "patch");
    struct val *v = NULL;

    if (streq(op, "openapi")) {
        struct doc d = publish_openapi_v3((struct schema *)(uintptr_t)s, val_str_at(in, "path", ""));
        if (streq(val_str_at(in, "path", ""), "v2"))
            d = publish_openapi_v2((struct schema *)(uintptr_t)s);
        if (!d.text)
            return err_set(err, NOT_FOUND, "no such document");
        struct val *doc = json_parse(a, d.text, d.n, err);
        val_put(a, out, "doc", doc ? doc : val_null(a));
        return 0;
    }
    if (!r)
        return err_set(err, NOT_FOUND, "no such resource");
    if (streq(op, "create") || streq(op, "update")) {
        v = val_copy(a, val_get(in, "body"));
    } else if (streq(op, "table")) {
        val_put(a, out, "row", table_row(r, a, val_get(in, "body"), INCLUDE_NONE, "v1",
                                         (int64_t)time(NULL) * 1000000));
        return 0;
    } else {
        v = streq(op, "merge") ? patch_merge(a, old, patch, err)
            : streq(op, "json") ? patch_json(a, old, patch, err)
                                : patch_strategic(resource_type(r), a, old, patch, err);
        if (!v)
            return -1;
    }
    return write_object(r, sub, a, v, streq(op, "create") ? NULL : old, out, err);
}

int main(void)
{
    struct schema *s = schema_new();
    char *line = NULL;
    size_t cap = 0;
    ssize_t n;

    while ((n = getline(&line, &cap, stdin)) > 0) {
        struct arena *a = arena_new();
        struct err err = {0};
        struct val *in = json_parse(a, line, (size_t)n, &err), *out = val_map(a);
        if (!in || one(s, a, in, out, &err) < 0) {
            val_put_str(a, out, "error", err.msg);
            val_put_int(a, out, "code", err_http(err.code));
        }
        puts(json_text(a, out, NULL));
        fflush(stdout);
        arena_free(a);
    }
    free(line);
    schema_free(s);
    return 0;
}
