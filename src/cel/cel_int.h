/* cel/cel_int.h - what the files of this room share: nodes, signatures, the state of a run. */
#pragma once

#include "cel/cel.h"

#include <setjmp.h>

/* ---- nodes: what a text is parsed to; the checker fills in types and the run's short cuts ---- */

enum node_kind { N_CONST, N_IDENT, N_SELECT, N_CALL, N_LIST, N_MAP, N_STRUCT, N_FOLD };

struct overload;
struct node;
struct fold { /* a comprehension; slots number the variables of a run */
    const char *iter, *iter2, *accu; /* iter2 NULL: one variable */
    struct node *range, *init, *cond, *step, *result;
    uint32_t iter_slot, iter2_slot, accu_slot;
    bool bind; /* cel.bind: no loop, accu is bound to init for result */
};
/* size_max estimates: known says whether there is one */
struct size_est {
    bool known;
    uint64_t min, max;
};
struct node {
    uint8_t kind;
    bool test;     /* N_SELECT of has(): is the field there? */
    bool member;   /* N_CALL: args[0] is the receiver */
    bool chained;  /* checked: N_SELECT or index whose operand is an attribute, see eval.c */
    bool folded;   /* N_LIST, N_MAP, N_CALL: a constant, value holds it */
    uint8_t op;    /* enum op of calls that eval.c does itself */
    uint16_t depth; /* of the tree below */
    uint32_t pos;  /* bytes into the text */
    uint32_t name_n;
    const char *name; /* ident, field, function, type; ends in 0 */
    const char *raw;  /* N_SELECT: the field unescaped, NULL when it is no escape of anything */
    uint32_t raw_n;
    uint32_t n;           /* of args */
    struct node **args;   /* call arguments, list items, map keys and values in turn, struct values;
                             N_SELECT: the operand */
    const char **names;   /* N_STRUCT: names of fields */
    uint32_t *poss;       /* N_STRUCT, N_MAP: places of the entries */
    bool *optional;       /* list items, entries with a ? before; NULL: none */
    struct cel_value value;
    struct fold *fold;
    /* checked */
    const struct cel_type *type;
    const struct cel_type *decl;   /* N_STRUCT: the type made; cost.c: the declared type reached by path */
    const struct overload **over;  /* N_CALL: the candidates left */
    uint32_t over_n;
    int32_t var;           /* N_IDENT: number of the variable, or -1 */
    int32_t slot;          /* N_IDENT: slot of a comprehension's variable, or -1 */
    const struct func *fn; /* N_CALL */
    void *cache;           /* N_CALL matches: the compiled pattern */
    /* cost.c */
    struct size_est size;
    struct entry_est *entry;
    uint32_t steps; /* of the path to decl */
};

/* ---- signatures ---- */

enum op { /* calls that the evaluator does itself */
    OP_NONE,
    OP_AND,
    OP_OR,
    OP_COND,
    OP_EQ,
    OP_NE,
    OP_INDEX,
    OP_OPT_INDEX,
    OP_OPT_SELECT,
    OP_NOT_STRICTLY_FALSE,
    OP_OPT_OR,
    OP_OPT_OR_VALUE,
};
struct eval;
typedef struct cel_value (*cel_fn)(struct eval *e, const struct node *call, struct cel_value *args,
                                   uint32_t n);
struct overload {
    const char *id;
    const struct func *func;
    bool member;
    uint8_t n, params; /* arguments; type variables */
    uint8_t cost;      /* how it is counted, cost.c */
    const struct cel_type *args[7];
    const struct cel_type *result;
};
struct func {
    const char *name;
    uint8_t op;
    uint8_t lib;  /* enum lib */
    uint8_t cost; /* how it is counted, cost.c */
    bool regex;   /* the second argument is a pattern */
    bool guarded; /* the kinds of its arguments are looked at before it runs */
    cel_fn fn;
    const struct overload *over;
    uint32_t over_n;
};
enum lib { LIB_STD, LIB_K8S, LIB_JSONPATCH };

void cost_class(struct func *f, struct overload *over);
const struct func *func_find(const struct cel_env *env, const char *name, size_t n);

/* ---- environment and program ---- */

struct env_var {
    const char *name;
    const struct cel_type *type;
};
struct cel_env {
    struct arena *arena;
    struct env_var *vars;
    uint32_t vars_n, vars_cap;
    cel_type_find find;
    void *find_data;
    unsigned flags;
    bool jsonpatch;
};
struct cel_prog {
    struct arena *arena;
    const struct cel_env *env;
    struct node *root;
    const char *text;
    size_t text_n;
    uint32_t slots;
    const struct cel_type *type;
    struct cel_cost cost;
    uint8_t *uses; /* a byte a variable */
};

/* ---- compile ---- */

struct issues { /* errors of one text, in upstream's words */
    struct arena *arena;
    const char *text;
    size_t text_n;
    struct issue {
        uint32_t pos;
        const char *msg;
    } *v;
    uint32_t n, cap;
};
void issue(struct issues *is, uint32_t pos, const char *fmt, ...) _printf_(3, 4);
const char *issues_text(struct issues *is);

enum { DEPTH_NODE_MAX = 600, ISSUES_MAX = 100 };

struct node *cel_parse(const struct cel_env *env, struct arena *a, struct issues *is); /* NULL: errors */
struct node *node_new(struct arena *a, enum node_kind kind, uint32_t pos);
struct parser;
/* The expansion of a macro, or NULL: no macro. args are without the receiver. *bad: an error was told. */
struct node *macro_expand(struct arena *a, struct issues *is, unsigned flags, uint32_t pos, const char *name,
                          struct node *target, struct node **args, uint32_t n, bool *bad);
/* What a constant "...".format([...]) would stumble over, by the types of its arguments. */
void format_check(struct issues *is, const struct node *call);
bool cel_check(const struct cel_env *env, struct cel_prog *p, struct issues *is);
void cel_cost_estimate(struct cel_prog *p);
bool reserved_word(const char *s, size_t n);

struct cel_value string_reverse(struct eval *e, struct cel_value s);
bool type_is_dyn(const struct cel_type *t);
const struct cel_type *type_by_name(const struct cel_env *env, const char *name, size_t n);
extern const struct cel_type cel_error_type, cel_type_type, cel_jsonpatch_type;

/* ---- run ---- */

struct eval {
    struct cel_run *run;
    const struct cel_prog *prog;
    struct arena *arena;
    struct cel_value *slots;
    uint64_t cost, cost_limit;
    size_t bytes, bytes_max;
    jmp_buf stop;
    const char *stopped;
    uint32_t depth;
};
enum { SUB_MADE, SUB_TREE, SUB_LAZY };
struct cel_list { /* grows at its end as long as nobody else did: a value sees its first n */
    struct cel_value *items;
    uint32_t used, cap;
};
struct cel_entry {
    struct cel_value key, value;
};
struct cel_map { /* the same for maps; index is open addressing over used entries, NULL while small */
    struct cel_entry *entries;
    uint32_t used, cap;
    uint32_t *index, index_cap;
};
struct cel_lazy {
    cel_lazy_fn get;
    void *data;
    struct lazy_field {
        const char *name;
        struct cel_value value;
        struct lazy_field *next;
    } *known;
};

/* Memory of the run; the run stops when it takes too much. */
void *mem(struct eval *e, size_t n);
void spend(struct eval *e, uint64_t cost);
void eval_stop(struct eval *e, const char *why) __attribute__((noreturn));
#define fail cel_fail /* the name is short inside of this room; another one has a fail() of its own */
struct cel_value fail(struct eval *e, const char *fmt, ...) _printf_(2, 3);
struct cel_value fail_lit(const char *msg); /* the text outlives the run */
struct cel_value no_overload(struct eval *e, const struct node *call, struct cel_value *args, uint32_t n);
static inline bool is_error(struct cel_value v)
{
    return v.kind == CEL_ERROR;
}
struct cel_value make_str(struct eval *e, const char *s, size_t n); /* a copy */
struct cel_value make_printf(struct eval *e, const char *fmt, ...) _printf_(2, 3);
struct cel_value list_new(struct eval *e, uint32_t cap);
struct cel_value list_push(struct eval *e, struct cel_value list, struct cel_value item);
struct cel_value map_new(struct eval *e, uint32_t cap);
/* Appends; the key is known not to be there. */
struct cel_value map_push(struct eval *e, struct cel_value map, struct cel_value key, struct cel_value v);
struct cel_value opt_some(struct eval *e, struct cel_value v);
struct cel_value opt_none(void);

struct cel_value tree_value(struct eval *e, const struct val *v, const struct cel_type *type);
uint32_t list_len(struct cel_value list);
struct cel_value list_at(struct eval *e, struct cel_value list, uint32_t i);
uint32_t map_len(struct cel_value map);                                    /* maps and objects */
struct cel_value map_key_at(struct eval *e, struct cel_value map, uint32_t i);
struct cel_value map_value_at(struct eval *e, struct cel_value map, uint32_t i);
/* false: no such key */
bool map_find(struct eval *e, struct cel_value map, struct cel_value key, struct cel_value *ret);
/* A field by the name that an expression uses; raw is its unescaped form or NULL. */
bool field_find(struct eval *e, struct cel_value obj, const char *name, size_t n, const char *raw,
                size_t raw_n, struct cel_value *ret);
/* true, false or an error value */
struct cel_value values_equal(struct eval *e, struct cel_value a, struct cel_value b);
bool values_same(struct eval *e, struct cel_value a, struct cel_value b); /* equal, errors are false */
/* <0, 0, >0; 2: cannot be compared; 3: a NaN is among them */
int values_compare(struct cel_value a, struct cel_value b);
const char *value_type_name(struct arena *a, struct cel_value v);
uint64_t value_size(struct eval *e, struct cel_value v); /* as the cost of calls counts: 1 for scalars */
size_t utf8_len(const char *s, size_t n);                /* code points */
struct cel_value double_text(struct eval *e, double d);
static inline bool is_map(struct cel_value v)
{
    return v.kind == CEL_MAP || v.kind == CEL_OBJECT;
}

/* opaque values */
enum opaque { OPAQUE_IP = 1, OPAQUE_CIDR, OPAQUE_URL, OPAQUE_QUANTITY, OPAQUE_SEMVER, OPAQUE_FORMAT, OPAQUE_AUTHORIZER,
    OPAQUE_PATH, OPAQUE_GROUP, OPAQUE_RESOURCE, OPAQUE_DECISION };
struct cel_opaque {
    uint8_t what; /* enum opaque */
};
struct cel_value opaque_equal(struct eval *e, struct cel_value a, struct cel_value b);
const char *opaque_text(struct arena *a, struct cel_value v); /* of string() and JSON; NULL: none */
uint64_t opaque_size(struct cel_value v);                     /* of ip and cidr: bytes; else 1 */
uint64_t call_cost(struct eval *e, const struct node *call, struct cel_value *args, uint32_t n,
                   struct cel_value result);

/* A function of the libraries: declared, then defined or declared again (type.c has the list). */
#define FN(name)                                                                                   \
    struct cel_value name(struct eval *e, const struct node *call, struct cel_value *args, uint32_t n); \
    struct cel_value name(struct eval *e, const struct node *call, struct cel_value *args, uint32_t n)
