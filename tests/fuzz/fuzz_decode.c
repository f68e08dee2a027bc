/* Any JSON as an object of any kind: decoded, defaulted, prepared, validated, shown and selected.
 * What was decoded decodes to itself; defaults change nothing the second time. The first byte picks
 * the kind. */
#include "codec/json.h"
#include "schema/schema.h"
#include "schema/select.h"
#include "schema/table.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct resource *nth(const struct schema *s, uint32_t n)
{
    uint32_t i = 0;
    const struct resource *r = NULL;

    for (n %= 71; (r = schema_next(s, &i)) && n; n--)
        ;
    return r;
}

static void whole_way(const struct resource *r, struct arena *a, struct val *v)
{
    struct texts strict = {.a = a}, warnings = {.a = a};
    struct causes causes = {.a = a};
    struct err err = {0};

    if (schema_decode(r, a, v, &strict, &err) < 0)
        return;
    struct val again = *val_copy(a, v);
    ASSERT(schema_decode(r, a, &again, NULL, &err) == 0 && val_equal(&again, v));
    schema_default(r, a, v);
    again = *val_copy(a, v);
    schema_default(r, a, &again);
    ASSERT(val_equal(&again, v));
    schema_prepare_create(r, a, v);
    schema_validate(r, "", v, NULL, &causes);
    (void)causes_status(&causes, a, r, "x");
    schema_validate(r, r->has_status ? "status" : "", v, v, &causes);
    schema_warn(r, v, NULL, &warnings);
    (void)table_row(r, a, v, INCLUDE_METADATA, "v1", 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct schema *s;
    struct err err = {0};

    if (size < 2)
        return 0;
    if (!s)
        s = schema_new();
    struct arena *a = arena_new();
    const struct resource *r = nth(s, data[0]);
    struct val *v = json_parse(a, (const char *)data + 1, size - 1, &err);
    if (v && r)
        whole_way(r, a, v);
    char *text = arena_strndup(a, (const char *)data + 1, size - 1);
    struct selector *sel = selector_parse(a, text, &err);
    if (sel)
        ASSERT(selector_parse(a, selector_text(a, sel), &err) != NULL);
    (void)!field_selector_parse(r, a, text, &err);
    arena_free(a);
    return 0;
}
