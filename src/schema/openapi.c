/* schema/openapi.c - OpenAPI v2 and v3 documents of the kinds. */
#include "schema/publish.h"
#include "schema/schema_int.h"

struct doc publish_openapi_v2(struct schema *s)
{
    (void)s;
    return (struct doc){0};
}
struct doc publish_openapi_v3_index(struct schema *s)
{
    (void)s;
    return (struct doc){0};
}
struct doc publish_openapi_v3(struct schema *s, const char *path)
{
    (void)s, (void)path;
    return (struct doc){0};
}
