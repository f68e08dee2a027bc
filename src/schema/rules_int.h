/* schema/rules_int.h - for the files of validation hooks. */
#pragma once

#include "schema/schema_int.h"

/* A hook sees one struct (v), its place (c->path), and the struct that was there before (old, NULL
 * on create or when there was none). */
#define HOOK(name)                                                                                 \
    validate_hook_fn name;                                                                         \
    void name(struct check *c, const struct val *v, const struct val *old)

/* rules_core.c: why an address cannot be an endpoint (loopback, link-local, unspecified); NULL: it can. */
const char *special_address(const char *ip);
