/* schema/admitexpr.h - the CEL expressions of admission: of a policy (with its variables), or the match
 * conditions of a webhook. What they may name is upstream's:
 *   object oldObject request namespaceObject      always
 *   params                                        when the policy has a paramKind
 *   authorizer authorizer.requestResource         but not in message expressions
 *   variables                                     of a policy
 *   Object{}, JSONPatch{}, jsonpatch.escapeKey()  in mutations
 *
 * A set of expressions is compiled once and then only read (apiserver/policyexpr.h runs them). With types
 * given for object and params it is a type check: what an expression gives is then not looked at. */
#pragma once

#include "cel/cel.h"
#include "schema/schema.h"

enum expr_use { EXPR_VARIABLE, EXPR_MATCH, EXPR_VALIDATION, EXPR_MESSAGE, EXPR_AUDIT, EXPR_APPLY, EXPR_JSONPATCH };

struct expr {
    enum expr_use use;
    const char *name; /* of a variable, a match condition, an audit annotation; else "" */
    const char *text;
    struct cel_prog *prog; /* NULL: it does not compile */
    const char *why;       /* then: "compilation failed: ERROR: ...", "must evaluate to bool but got int" */
};

/* What is named, and the environments: they differ in what they know. */
enum expr_slot { SLOT_OBJECT, SLOT_OLD, SLOT_NAMESPACE, SLOT_REQUEST, SLOT_VARIABLES, SLOT_PARAMS, SLOT_AUTHORIZER, SLOT_RESOURCE, EXPR_SLOTS };
enum expr_flavour { FLAVOUR_PLAIN, FLAVOUR_AUTHORIZER, FLAVOUR_MUTATION, EXPR_FLAVOURS };

struct expr_variable {
    struct cel_field field; /* what it is to the others */
    const struct expr *e;
};
struct exprs {
    struct arena *arena;
    bool params, variables;
    const struct cel_type *object_type, *params_type; /* NULL: not known; with either it is a type check */
    bool checking;
    struct cel_env *env[EXPR_FLAVOURS]; /* made when first wanted */
    int8_t at[EXPR_FLAVOURS][EXPR_SLOTS];    /* number of a variable in it, or -1 */
    struct cel_type type;          /* of `variables` */
    struct expr_variable *vars;
    uint32_t vars_n, vars_cap;
    struct expr_list {
        struct expr_list *next;
        struct expr e;
    } *all;
    struct object_type {
        struct object_type *next;
        struct cel_type type;
    } *objects;
    size_t bytes;
};

enum expr_flavour expr_flavour_of(enum expr_use use);

extern const struct cel_type admit_request_type, admit_namespace_type;

/* variables: expressions may name them (an empty set is one, too). */
struct exprs *exprs_new(bool params, bool variables);
/* The same for a type check: the types, which outlive it, may be NULL. */
struct exprs *exprs_checking(bool params, const struct cel_type *object, const struct cel_type *params_type);
void *exprs_free(struct exprs *x); /* with its programs; NULL is fine */
DEFINE_AUTO(struct exprs *, exprs_free, exprs_free)
/* Compiles. Texts are copied. What does not compile is an expression with its reason. A variable is seen by
 * all that are added after it. */
const struct expr *exprs_add(struct exprs *x, enum expr_use use, const char *name, const char *text);
/* The same of each item of a list of {name, expression}. */
void exprs_add_all(struct exprs *x, enum expr_use use, const struct val *list, const struct expr ***ret,
                   uint32_t *ret_n);
struct arena *exprs_arena(struct exprs *x); /* lives as long as x */
size_t exprs_bytes(const struct exprs *x);
