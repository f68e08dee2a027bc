/* schema/publish.h - what the server tells about its kinds: discovery and OpenAPI.
 *
 * Texts are JSON, made when first asked for and kept in the registry until kinds are added or
 * removed, or nobody asks for them any more (schema_trim): borrowed until control goes back to the loop. */
#pragma once

#include "schema/schema.h"

struct doc {
    const char *text; /* JSON; NULL: no such document */
    size_t n;
    const char *hash; /* upper-case hex of SHA-512 (etag); "" where nobody asks */
};

/* /api; addr is "host:port" for serverAddressByClientCIDRs (arena, as addr differs by listener). */
struct doc publish_api(struct schema *s, struct arena *a, const char *addr);
struct doc publish_apis(struct schema *s);                     /* /apis: APIGroupList */
struct doc publish_group(struct schema *s, const char *group); /* /apis/G: APIGroup */
/* /api/v1 (group "") and /apis/G/V: APIResourceList */
struct doc publish_resources(struct schema *s, const char *group, const char *version);
/* /api and /apis as apidiscovery.k8s.io/v2 (or v2beta1) APIGroupDiscoveryList; core = /api */
struct doc publish_aggregated(struct schema *s, bool core, const char *version);
struct doc publish_openapi_v2(struct schema *s);       /* /openapi/v2 */
struct doc publish_openapi_v3_index(struct schema *s); /* /openapi/v3 */
/* path as in the index: "api/v1", "apis/apps/v1", "api", "apis", "version" */
struct doc publish_openapi_v3(struct schema *s, const char *path);
/* The hash by which the index names the document of a path (in the arena): its etag. */
const char *publish_openapi_v3_hash(struct schema *s, struct arena *a, const char *path);
/* The same documents as gnostic's protobuf messages (text is bytes then). */
struct doc publish_openapi_v2_protobuf(struct schema *s);
struct doc publish_openapi_v3_protobuf(struct schema *s, const char *path);
