/* Any two JSON documents, with a 0 between: the second is a patch of the first, of all three sorts.
 * None may crash or change the document; what a strategic patch makes can be decoded or is refused. */
#include "codec/json.h"
#include "schema/patch.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct schema *s;
    const uint8_t *zero = size ? memchr(data, 0, size) : NULL;
    struct err err = {0};

    if (!zero)
        return 0;
    if (!s)
        s = schema_new();
    struct arena *a = arena_new();
    size_t n = (size_t)(zero - data);
    struct val *doc = json_parse(a, (const char *)data, n, &err);
    struct val *patch = json_parse(a, (const char *)zero + 1, size - n - 1, &err);
    if (doc && patch && doc->type == VAL_MAP) {
        struct val *before = val_copy(a, doc);
        const struct resource *r = schema_resource(s, "apps", "v1", "deployments");
        struct val *x = patch_merge(a, doc, patch, &err), *y = patch_json(a, doc, patch, &err);
        struct val *z = patch_strategic(resource_type(r), a, doc, patch, &err);
        ASSERT(val_equal(before, doc));
        if (z)
            (void)!schema_decode(r, a, z, NULL, &err);
        (void)x, (void)y;
    }
    arena_free(a);
    return 0;
}
