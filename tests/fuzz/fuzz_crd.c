/* A custom resource definition, an object of it, and a path: three lines of input. The schema is any
 * JSON: judged, served, and used to decode, default, judge, show and select any object; what was
 * decoded decodes to itself, what was taken once passes again unchanged. */
#include "codec/json.h"
#include "codec/obj.h"
#include "schema/schema.h"
#include "schema/select.h"
#include "schema/table.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char HEAD[] =
    "{\"apiVersion\":\"apiextensions.k8s.io/v1\",\"kind\":\"CustomResourceDefinition\",\"metadata\":{\"name\":"
    "\"things.example.com\"},\"spec\":{\"group\":\"example.com\",\"scope\":\"Namespaced\",\"names\":{\"plural\":\"things\","
    "\"kind\":\"Thing\"},\"versions\":[{\"name\":\"v1\",\"served\":true,\"storage\":true,\"subresources\":{\"status\":{},"
    "\"scale\":{\"specReplicasPath\":\".spec.replicas\",\"statusReplicasPath\":\".status.replicas\"}},\"schema\":{}}]}}";

static struct val *definition(struct arena *a, struct val *js, const char *path)
{
    struct err err = {0};
    struct val *crd = json_parse(a, HEAD, sizeof(HEAD) - 1, &err), *ver, *col = val_map(a), *field = val_map(a);

    ver = &val_at(crd, "spec.versions")->items[0];
    val_put(a, val_need_map(a, ver, "schema"), "openAPIV3Schema", js);
    val_put_str(a, col, "name", "A");
    val_put_str(a, col, "type", "string");
    val_put_str(a, col, "jsonPath", path);
    val_push(a, val_need_list(a, ver, "additionalPrinterColumns"), col);
    val_put_str(a, field, "jsonPath", path);
    val_push(a, val_need_list(a, ver, "selectableFields"), field);
    return crd;
}

static void use(const struct schema *s, struct arena *a, struct val *v)
{
    const struct resource *r = schema_resource(s, "example.com", "v1", "things");
    struct texts strict = {.a = a};
    struct causes causes = {.a = a}, again_causes = {.a = a};
    struct err err = {0};

    if (!r || schema_decode(r, a, v, &strict, &err) < 0)
        return;
    struct val again = *val_copy(a, v);
    ASSERT(schema_decode(r, a, &again, NULL, &err) == 0 && val_equal(&again, v));
    schema_default(r, a, v);
    schema_prepare_create(r, a, v);
    schema_validate(r, "", v, NULL, &causes);
    if (!causes.n) /* nothing changed: nothing is wrong now */
        schema_validate(r, "", v, v, &again_causes);
    ASSERT(!again_causes.n);
    (void)table_row(r, a, v, INCLUDE_NONE, "v1", 0);
    (void)schema_scale_get(r, a, v, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct schema *s;
    struct err err = {0};
    struct arena *a = arena_new();
    char *lines[3] = {NULL}, *text = arena_strndup(a, (const char *)data, size);

    if (!s)
        s = schema_new();
    for (int i = 0; i < 3; i++)
        lines[i] = strsep(&text, "\n");
    struct val *js = json_parse(a, lines[0], strlen(lines[0]), &err);
    struct val *v = lines[1] ? json_parse(a, lines[1], strlen(lines[1]), &err) : NULL;
    const struct resource *crds = schema_resource(s, "apiextensions.k8s.io", "v1", "customresourcedefinitions");
    struct val *crd = js ? definition(a, js, lines[2] ? lines[2] : ".spec.a") : NULL;
    struct causes causes = {.a = a};
    if (crd && schema_decode(crds, a, crd, NULL, &err) == 0) {
        schema_default(crds, a, crd);
        schema_validate(crds, "", crd, NULL, &causes);
        const struct obj *o = causes.n ? NULL : obj_seal(crd, 1);
        bool served = o && schema_add_crd(s, o, crd, &err) == 0;

        obj_unref(o);
        if (served) {
            if (v)
                use(s, a, v);
            schema_remove_crd(s, "example.com", "things");
        }
    }
    arena_free(a);
    return 0;
}
