/* cel/cel.h - the Common Expression Language with Kubernetes' libraries.
 *
 * An environment declares variables with their types; cel_compile() parses and type checks a text
 * against it and gives a sealed program with its type and a cost estimate; cel_eval() runs it over
 * variables that are bound to trees (`struct val`) without copying them. Everything is bounded: the
 * text (CEL_TEXT_MAX), its depth, the cost of a run (upstream's units) and the memory a run takes.
 *
 * cel knows no schema: types come as `struct cel_type`, made by who knows the schema; the fields of
 * an object type are a table or a callback, asked for when an expression names one.
 *
 * Owner: types, and the environment, outlive the programs compiled against them. Programs never
 * change after cel_compile(), so any thread may run one; a run belongs to one thread. Values that a
 * run makes live in its arena, or point into the trees that were bound or at the program's
 * constants: a value is good as long as all three are. */
#pragma once

#include "base/arena.h"
#include "base/err.h"
#include "codec/val.h"

enum {
    CEL_TEXT_MAX = 400 * 1000,    /* bytes of an expression; 100,000 characters as upstream */
    CEL_DEPTH_MAX = 250,          /* of nesting in an expression (what upstream's parser allows) */
    CEL_COST_PER_CALL = 1000000,  /* upstream's limit on one evaluation */
    CEL_BYTES_MAX = 64 * 1024 * 1024, /* memory that one run may make, unless it says otherwise */
};
#define CEL_COST_UNBOUNDED UINT64_MAX

/* ---- types ---- */

enum cel_kind {
    CEL_ERROR, /* of values: an evaluation that failed; s is the text. of types: not known */
    CEL_NULL,
    CEL_BOOL,
    CEL_INT,
    CEL_UINT,
    CEL_DOUBLE,
    CEL_STRING,
    CEL_BYTES,
    CEL_TIMESTAMP,
    CEL_DURATION,
    CEL_LIST,
    CEL_MAP,
    CEL_OBJECT,   /* has named fields of known types */
    CEL_TYPE,     /* a type as a value */
    CEL_OPTIONAL, /* optional_type(elem) */
    CEL_OPAQUE,   /* ip, cidr, url, quantity, semver, format, authorizer: by name */
    CEL_DYN,      /* types only: known at run time */
    CEL_PARAM,    /* types only: a type variable of a function's signature */
};
enum cel_list_type { CEL_LIST_ATOMIC, CEL_LIST_SET, CEL_LIST_MAP }; /* x-kubernetes-list-type */

struct cel_type;
struct cel_field {
    const char *name; /* as in the document: not escaped */
    const struct cel_type *type;
};
struct cel_type {
    uint8_t kind;      /* enum cel_kind */
    uint8_t list_type; /* enum cel_list_type: how lists compare and add */
    bool nullable;     /* a tree's null is a value here; otherwise it is an error to read it */
    bool int_or_string; /* CEL_DYN: only ints and strings are valid data */
    bool date;          /* CEL_TIMESTAMP: the tree holds a date without time */
    const char *name;   /* objects, opaque, params; NULL otherwise */
    const struct cel_type *key, *elem; /* map: both; list, optional, type: elem */
    /* For the cost estimate: the largest size of a string, list, map as Kubernetes reckons it from
     * maxLength, maxItems, maxProperties or the largest request; -1: not known. */
    int64_t max_elements;
    /* CEL_OBJECT: the fields, as a table or (when fields is NULL) by asking. name is not escaped
     * and does not end in 0. The answer lives as long as the type. NULL: no such field. */
    const struct cel_field *fields;
    uint32_t fields_n;
    const struct cel_type *(*field)(const struct cel_type *t, const char *name, size_t n);
    const void *data; /* for field() */
    /* CEL_LIST_MAP: the key fields */
    const char *const *list_keys;
    uint32_t list_keys_n;
};

extern const struct cel_type cel_null_type, cel_bool_type, cel_int_type, cel_uint_type,
    cel_double_type, cel_string_type, cel_bytes_type, cel_timestamp_type, cel_duration_type,
    cel_dyn_type, cel_list_dyn_type, cel_map_dyn_type /* map(string, dyn) */;
/* The opaque types, by upstream's names: kubernetes.URL, kubernetes.Quantity, net.IP, net.CIDR,
 * kubernetes.Semver, kubernetes.NamedFormat, kubernetes.authorization.Authorizer ... */
extern const struct cel_type cel_ip_type, cel_cidr_type, cel_url_type, cel_quantity_type,
    cel_semver_type, cel_format_type, cel_authorizer_type, cel_path_check_type,
    cel_group_check_type, cel_resource_check_type, cel_decision_type;

struct cel_type *cel_type_new(struct arena *a, enum cel_kind kind); /* max_elements -1 */
struct cel_type *cel_type_list(struct arena *a, const struct cel_type *elem);
struct cel_type *cel_type_map(struct arena *a, const struct cel_type *key, const struct cel_type *elem);
const struct cel_type *cel_type_field(const struct cel_type *t, const char *name, size_t n);
/* "map(string, list(int))", "Object.spec", "optional_type(dyn)": as upstream prints it */
const char *cel_type_text(struct arena *a, const struct cel_type *t);
/* Whether a value of type `from` may stand where `to` is wanted; dyn fits everything. */
bool cel_type_fits(const struct cel_type *from, const struct cel_type *to);

/* Kubernetes' escaping of property names to identifiers: __dash__, __dot__, __slash__,
 * __underscores__, __namespace__. NULL: there is none (the field cannot be reached). */
const char *cel_escape(struct arena *a, const char *name);
const char *cel_unescape(struct arena *a, const char *ident, size_t n);

/* ---- values ---- */

struct cel_list;
struct cel_map;
struct cel_opaque;
struct cel_lazy;
struct cel_run;
struct cel_value {
    uint8_t kind; /* enum cel_kind, never CEL_DYN or CEL_PARAM */
    uint8_t sub;  /* inside: how lists, maps and objects are kept; a timestamp's zone (15 min) */
    uint32_t n;   /* bytes of strings and bytes; nanoseconds of timestamps and durations (0..1e9-1
                     added to i seconds) */
    union {
        bool b;
        int64_t i; /* ints; seconds of timestamps and durations */
        uint64_t u;
        double d;
        const char *s; /* strings (UTF-8), bytes, error text; need not end in 0 */
        const struct cel_list *list;
        const struct cel_map *map; /* made by an expression: maps and objects */
        const struct val *val;     /* lists, maps, objects that are trees */
        const struct cel_value *some; /* optional: NULL is none */
        const struct cel_type *t;     /* CEL_TYPE: the type it is */
        const struct cel_opaque *opaque;
        const struct cel_lazy *lazy;
    };
    const struct cel_type *type; /* trees, objects, opaque: the declared type, or NULL */
};

static inline struct cel_value cel_null(void)
{
    return (struct cel_value){.kind = CEL_NULL};
}
static inline struct cel_value cel_bool(bool b)
{
    return (struct cel_value){.kind = CEL_BOOL, .b = b};
}
static inline struct cel_value cel_int(int64_t i)
{
    return (struct cel_value){.kind = CEL_INT, .i = i};
}
static inline struct cel_value cel_uint(uint64_t u)
{
    return (struct cel_value){.kind = CEL_UINT, .u = u};
}
static inline struct cel_value cel_double(double d)
{
    return (struct cel_value){.kind = CEL_DOUBLE, .d = d};
}
static inline struct cel_value cel_strn(const char *s, size_t n) /* borrowed */
{
    return (struct cel_value){.kind = CEL_STRING, .n = (uint32_t)n, .s = s};
}
static inline struct cel_value cel_str(const char *s) /* borrowed */
{
    return cel_strn(s, strlen(s));
}
struct cel_value cel_timestamp_ms(int64_t ms);

/* A tree as a value, lazily and without a copy. type says how its parts are read (an object's
 * fields, "format: date-time" as timestamps, numbers as doubles ...); NULL or cel_dyn_type: as JSON.
 * The arena takes what must be decoded (bytes, error texts); the tree must outlive the value.
 * NULL tree: null. Data that does not fit its type becomes an error value when it is read. */
struct cel_value cel_tree(struct arena *a, const struct val *v, const struct cel_type *type);
/* An object whose fields are made when they are first asked for (`variables.x` of admission
 * policies). get is called at most once a field and run; it may run another program in a run of its own
 * (same arena) and spends what that cost from run->cost_limit. It returns an error value when it fails. */
typedef struct cel_value (*cel_lazy_fn)(void *data, struct cel_run *run, const char *name, size_t n);
struct cel_value cel_lazy(struct arena *a, const struct cel_type *type, cel_lazy_fn get, void *data);

/* A result as a tree in the arena: timestamps and durations as their text, bytes as base64, objects
 * as maps. -1: it has no form in JSON (types, authorizers, maps with keys that are no strings are
 * written by their text). */
int cel_to_val(struct arena *a, struct cel_value v, struct val **ret, struct err *err);
/* Are objects that a mutation constructed (`Object.spec{...}`) of the type that their place names? What is below
 * other values is looked at, too, and an object alone begins a path of its own. NULL, or what is wrong, one thing a line. */
const char *cel_misnamed(struct arena *a, struct cel_value v);
/* For messages: as string() would say it, or a short form; never NULL. */
const char *cel_text(struct arena *a, struct cel_value v);

/* Values that a caller puts together: maps and lists of values, quantities and versions by their text (error
 * values when they are none). What they are made of is not copied. */
struct cel_value cel_map_of(struct arena *a, const struct cel_value (*pairs)[2], uint32_t n);
struct cel_value cel_object_of(struct arena *a, const struct cel_type *type, const struct cel_value (*pairs)[2], uint32_t n);
struct cel_value cel_list_of(struct arena *a, const struct cel_value *items, uint32_t n);
struct cel_value cel_quantity(struct arena *a, const char *text);
struct cel_value cel_semver(struct arena *a, const char *text);

/* ---- environments and programs ---- */

struct cel_env;
struct cel_prog;

struct cel_env *cel_env_new(void); /* all libraries of Kubernetes 1.36 */
void *cel_env_free(struct cel_env *env);
DEFINE_AUTO(struct cel_env *, cel_env_free, cel_env_free)
/* Declares a variable; its number counts from 0 in the order of declaration (cel_bind). The name is
 * copied, the type borrowed. */
int cel_env_var(struct cel_env *env, const char *name, const struct cel_type *type);
/* Who knows the object types that an expression may construct (`Object.spec{...}`) by name; NULL:
 * no such type. Types of an object's fields must be found by their names too. */
typedef const struct cel_type *(*cel_type_find)(void *data, const char *name, size_t n);
void cel_env_types(struct cel_env *env, cel_type_find find, void *data);
/* Adds the library of MutatingAdmissionPolicy: the type JSONPatch and jsonpatch.escapeKey. */
void cel_env_jsonpatch(struct cel_env *env);
enum cel_env_flag {
    CEL_PLAIN = 1,       /* the language alone, without the checks and libraries of Kubernetes' */
    CEL_UNCHECKED = 4, /* types are not enforced: all that is not known is left to the run */
};
void cel_env_set(struct cel_env *env, unsigned flags);

struct cel_cost {
    uint64_t min, max; /* CEL_COST_UNBOUNDED: no bound */
};
/* NULL: it does not compile; *ret_issues (in the arena) is upstream's text of all errors:
 * "ERROR: <input>:1:6: undeclared reference to 'x' (in container '')\n | self.x\n | .....^" and so on,
 * one after the other with a newline between. ret_issues may not be NULL. */
struct cel_prog *cel_compile(const struct cel_env *env, const char *text, size_t n, struct arena *a,
                             const char **ret_issues);
void *cel_prog_free(struct cel_prog *p);
DEFINE_AUTO(struct cel_prog *, cel_prog_free, cel_prog_free)
const struct cel_type *cel_prog_type(const struct cel_prog *p); /* of the result; lives with p */
struct cel_cost cel_prog_cost(const struct cel_prog *p);
size_t cel_prog_bytes(const struct cel_prog *p);
/* Whether the expression names the variable (oldSelf, authorizer, variables...). */
bool cel_prog_uses(const struct cel_prog *p, int var);

/* ---- running ---- */

/* Answers of an authorizer, see cel_authorizer. */
struct cel_decision {
    bool allowed;
    const char *reason; /* "" for none */
    const char *error;  /* NULL: none */
};
struct cel_check { /* what authorizer....check(verb) asks; empty strings where nothing was said */
    const char *path; /* not NULL: authorizer.path(path); the rest is empty */
    const char *group, *version, *resource, *subresource, *namespace_, *name, *verb;
    const char *field_selector, *label_selector; /* NULL: none was given */
    const char *service_account_namespace, *service_account_name; /* NULL: who makes the request */
};
struct cel_authorizer {
    void (*check)(void *data, const struct cel_check *check, struct arena *a, struct cel_decision *ret);
    void *data;
};
/* The variable `authorizer`, and `authorizer.requestResource` (its attributes in res, no verb). */
struct cel_value cel_authorizer(struct arena *a, const struct cel_authorizer *auth);
struct cel_value cel_resource_check(struct arena *a, const struct cel_authorizer *auth,
                                    const struct cel_check *res);

struct cel_run {
    struct arena *arena;    /* where values are made; set by the caller */
    uint64_t cost_limit;    /* 0: CEL_COST_PER_CALL */
    size_t bytes_max;       /* 0: CEL_BYTES_MAX */
    const struct cel_value *vars; /* by number of declaration; all the environment's variables */
    uint32_t vars_n;        /* an absent one (kind CEL_ERROR without text) is "no such attribute" */
    uint64_t cost;          /* out: what was spent, also when it failed */
};
/* 0 and the value (never an error value); -1 and err: INVALID with the text of the failed evaluation
 * ("no such key: x", "division by zero"), or TOO_LARGE: the cost limit or the memory bound was hit
 * ("operation cancelled: actual cost limit exceeded"). */
int cel_eval(const struct cel_prog *p, struct cel_run *run, struct cel_value *ret, struct err *err);
