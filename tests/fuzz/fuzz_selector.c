/* Selectors: of labels as text and as objects, of fields. What was parsed is written so that it parses
 * to the same; a selector never matches differently when asked twice. */
#include "codec/json.h"
#include "codec/selector.h"
#include "schema/schema.h"
#include "schema/select.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct schema *s;
    struct err err = {0};
    struct arena *a = arena_new();
    char *text = arena_strndup(a, (const char *)data, size), *first = strsep(&text, "\n");

    if (!s)
        s = schema_new();
    struct val *labels = text ? json_parse(a, text, strlen(text), &err) : NULL;
    struct selector *sel = selector_parse(a, first, &err);
    if (sel) {
        struct selector *again = selector_parse(a, selector_text(a, sel), &err);
        ASSERT(again && selector_match(sel, labels) == selector_match(again, labels));
    }
    struct val *object = json_parse(a, first, strlen(first), &err);
    struct selector *of = object && object->type == VAL_MAP ? selector_of(a, object, &err) : NULL;
    if (of)
        (void)selector_match(of, labels);
    const struct resource *pods = schema_resource(s, "", "v1", "pods");
    struct field_selector *fields = field_selector_parse(pods, a, first, &err);
    if (fields && labels)
        (void)field_selector_match(fields, labels);
    arena_free(a);
    return 0;
}
