/* schema/warn.h - inside of the warnings: what warn.c (by kind) and warn_pod.c share. */
#pragma once

#include "schema/schema_int.h"

/* A pod (root "") or a template at root ("spec.template"). */
void warn_pod(struct texts *w, const char *root, const struct val *meta, const struct val *spec);
void warn_claim_spec(struct texts *w, const char *at, const struct val *spec);
void warn_fractional(struct texts *w, const char *at, const struct val *list, const char *name);
void warn_node_term(struct texts *w, const char *at, const struct val *term, bool values);
/* Why a node label is old; NULL: it is not. */
const char *warn_old_label(const char *key);
/* An address, a range that is not written as it should be. */
void warn_ip(struct texts *w, const char *at, const char *ip);
void warn_cidr(struct texts *w, const char *at, const char *cidr);
