/* schema/crd_int.h - between the files of custom resource definitions. */
#pragma once

#include "schema/schema_int.h"

struct node; /* crd_rules.c */
/* What a version's definition says of its objects: made when first asked for. */
struct crd_made {
    struct arena *arena; /* of all this */
    const struct type *type;
    const struct column *columns;
    struct node *rules; /* compiled when first asked for */
    bool rules_made;
    bool used; /* since the last schema_trim() */
};
/* Borrowed until control goes back to the loop, or as long as r is held. Custom resources only. */
struct crd_made *crd_made(const struct resource *r);
/* The schema of a version as its definition tells it, to change ({}: it has none). Nothing of it is kept. */
struct val *crd_schema_text(const struct resource *r, struct arena *a);

/* crd.c: v against a schema, causes at the place where c stands. */
void crd_check_value(struct check *c, const struct val *js, const struct val *v);
/* rules_meta.c: an object within another one (x-kubernetes-embedded-resource). */
void validate_embedded(struct check *c, const struct val *v);
/* crd_path.c: the schema at a path of property names (".spec.color", ".map['key']"); maps: whether
 * the path may step into maps and lists. NULL: nothing there. */
const struct val *crd_path_schema(const struct val *js, const char *path, bool maps);
/* crd_rules.c: x-kubernetes-validations of a whole schema: do they compile, and within bounds? */
void crd_rules_check(struct check *c, const struct val *js);
/* An object by the rules of its version (compiled when the first one comes). */
void crd_rules_judge(struct check *c, const struct resource *r, const struct val *v,
                     const struct val *old);
bool crd_rules_any(const struct resource *r);
void crd_rules_free(struct crd_made *made);
/* The item of the old list that has the same keys; NULL: none, or no list with keys. */
const struct val *crd_same_item(const struct val *js, const struct val *item, const struct val *old);
