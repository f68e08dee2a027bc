/* schema/openapi.c - OpenAPI v2 and v3 documents of the kinds. */
#include "schema/publish.h"
#include "schema/schema_int.h"
