/* apiserver/fieldset.h - sets of field paths, as managedFields writes them (FieldsV1), and what
 * server-side apply asks of typed values: which fields are set, what differs, merge, remove.
 *
 * A set is a tree of path elements: "f:NAME" a field or key, "k:{...}" an item of a list by its
 * keys, "v:..." an item of a set by its value. All lie in the arena they were made in. */
#pragma once

#include "schema/type.h"

struct fset {
    struct fset *next; /* beside it */
    struct fset *kids;
    const char *key;
    bool member;
    uint8_t mark; /* for compare */
};

struct fset *fset_new(struct arena *a);
struct fset *fset_kid(const struct fset *s, const char *key); /* or NULL */
struct fset *fset_need(struct arena *a, struct fset *s, const char *key);
void fset_add(struct arena *a, struct fset *s, const char *path); /* "f:metadata f:name" */
bool fset_empty(const struct fset *s);
bool fset_equal(const struct fset *x, const struct fset *y);
struct fset *fset_union(struct arena *a, const struct fset *x, const struct fset *y);
struct fset *fset_both(struct arena *a, const struct fset *x, const struct fset *y);
/* x without the members of y; deep: also without all that lies below them. */
struct fset *fset_without(struct arena *a, const struct fset *x, const struct fset *y, bool deep);
struct fset *fset_read(struct arena *a, const struct val *fields_v1);
struct val *fset_write(struct arena *a, const struct fset *s);
/* Calls fn with each member as people read paths: .spec.containers[name="c"].image */
void fset_each(struct arena *a, const struct fset *s, void (*fn)(void *arg, const char *path), void *arg);

/* The fields that v sets. *ret_twice (may be NULL) becomes true when a list holds a key twice, or an item
 * without any of its keys. */
struct fset *typed_fields(struct arena *a, const struct type *t, const struct val *v, bool *ret_twice);
struct typed_diff {
    struct fset *added, *removed, *modified;
};
struct typed_diff typed_compare(struct arena *a, const struct type *t, const struct val *was,
                                const struct val *now);
/* What `config` says put over `live`. */
const struct val *typed_merge(struct arena *a, const struct type *t, const struct val *live,
                              const struct val *config);
const struct val *typed_remove(struct arena *a, const struct type *t, const struct val *v,
                               const struct fset *what);
/* Fields of structs on the way become members, so that they can be removed with all below. */
struct fset *typed_named(struct arena *a, const struct type *t, const struct fset *s);
