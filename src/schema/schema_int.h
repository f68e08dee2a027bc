/* schema/schema_int.h - inside of the registry. */
#pragma once

#include "base/buf.h"
#include "base/map.h"
#include "codec/obj.h"
#include "schema/publish.h"
#include "schema/schema.h"
#include "schema/table.h"
#include "schema/type.h"

/* One thing that a kinds file says about a field or a struct beyond its type. */
enum rule_op {
    RULE_NEED,       /* Required when absent or empty */
    RULE_ONE_OF,     /* NotSupported unless one of words[] (empty is fine without need) */
    RULE_CHECK,      /* check->fn(text) says why not */
    RULE_EACH,       /* the same for each item of a list */
    RULE_EACH_ONE_OF,
    RULE_MIN,
    RULE_MAX,
    RULE_MAX_LEN,
    RULE_UNIQUE,     /* items of a list; words[0], when given, names the key of the item */
    RULE_IMMUTABLE,
    RULE_FORBID,
    RULE_DEFAULT_IF, /* words[0] = field beside, words[1..] = values: guards the default */
    RULE_HOOK,       /* whole struct: a C function of the validator */
    RULE_DEFAULT_HOOK,
    RULE_ONE_FIELD,  /* whole struct: exactly one of the fields words[] */
    RULE_MOST_ONE_FIELD,
    RULE_NEED_KEY, /* Required only when the key is absent (an empty value is fine) */
    RULE_SKIP_UPDATE, /* as RULE_SKIP, on update only */
    RULE_SKIP,     /* the validator does not look into the field (a hook does) */
    RULE_NEED_NUM, /* Required when absent or 0 */
    RULE_TOLD,     /* causes name the field words[0], without an index; ".": its struct's place */
};

struct rule {
    const struct rule *next;
    enum rule_op op;
    int64_t num;
    const char *const *words; /* ends in NULL */
    uint32_t words_n;
    const void *fn; /* struct named_check, validate_hook_fn, default_hook_fn */
};

struct column {
    const struct column *next;
    const char *name, *type, *format;
    int priority;
    const char *expr; /* ".spec.x", "age:.path", "fn:name", ... see table.c */
    const char *description;
    const void *fn; /* cell_fn for fn: */
    uint8_t how;             /* the kind of cell and where it looks, as table_column_read() takes them from expr */
    const char *path, *otherwise;
};
void table_column_read(struct arena *a, struct column *c); /* table.c */

enum name_rule { NAME_SUBDOMAIN, NAME_LABEL, NAME_LABEL1035, NAME_PATH, NAME_ANY, NAME_IP };

struct node;
struct resource_priv {
    _Atomic uint32_t refs;
    struct arena *arena;        /* custom resources: owns everything; NULL: the registry's */
    const struct column *columns;
    const char *const *selects; /* selectable fields besides metadata.name and .namespace */
    enum name_rule name_rule;
    const char *store_version;  /* group/version/kind that storageVersionHash is made of */
    struct resource *next_of_group;
    int64_t since;              /* custom resources: revision of the definition */
    const struct obj *crd;      /* custom resources: the definition; all below is made of it */
    struct crd_made *made;      /* its types and columns, while somebody uses them: crd_made() */
    const struct val *conversion; /* how its versions become each other, when that is a webhook's; else NULL */
    unsigned char schema_sum[32]; /* SHA-256 of the schema */
    bool no_schema;             /* custom resource without a schema */
    bool status_meta;      /* a write of the status leaves metadata as it was */
    bool generation_fixed; /* set by create, never counted up */
    bool generation_later; /* counts changes, but begins without a generation */
    bool twice;            /* an update is judged as a create, too */
    bool meta_once;        /* the kind itself does not look whether metadata changed as it may */
    bool meta_lenient;     /* finalizers need no domain */
    uint8_t meta_again;    /* how often the kind itself judges metadata as new on update */
};

struct schema {
    struct arena *arena;
    struct map strings; /* interned text */
    struct map types;   /* short name -> struct type */
    struct map says;    /* "type field" -> what it is for (says.kinds) */
    struct map lists;   /* interned list and map types */
    struct map by_plural, by_kind; /* "group/version/plural" -> struct resource */
    struct resource **resources; /* in discovery order */
    uint32_t resources_n, resources_cap;
    uint64_t generation;
    /* documents: made when asked for, dropped when kinds change; publish.c */
    struct map docs;
    uint64_t docs_generation;
};

/* load.c */
int schema_load_text(struct schema *s, const char *text, size_t n, struct err *err);
const struct type *schema_scalar(enum type_kind k);
void resource_register(struct schema *s, struct resource *r);

/* value.c: named checks of the kinds files */
struct named_check {
    const char *name;
    const char *(*fn)(const char *s); /* why not, or NULL */
};
/* Everything that is wrong: upstream names each thing in a cause of its own. */
uint32_t name_whys(const char *(*fn)(const char *), const char *s, const char *out[4]);
const struct named_check *named_check_find(const char *name, size_t n);

/* default.c */
typedef void default_hook_fn(struct arena *a, struct val *v, const struct val *root);
default_hook_fn *default_hook_find(const char *name);
void default_type(const struct type *t, struct arena *a, struct val *v, const struct val *root);

/* validate.c: what a hook gets. path is the struct's own place. */
struct check {
    struct causes *causes;
    struct arena *a;
    const struct resource *r;
    const char *sub;
    const struct val *root, *old_root; /* old_root NULL: create */
    char path[1024];
    uint32_t path_n;
};
typedef void validate_hook_fn(struct check *c, const struct val *v, const struct val *old);
validate_hook_fn *validate_hook_find(const char *name);
/* Path below the struct at hand, in the arena: check_path(c, "env[%u].name", i). */
const char *check_path(struct check *c, const char *fmt, ...) _printf_(2, 3);
/* causes_add at a place below the struct at hand; rel may be "". */
void check_fail(struct check *c, enum cause_type t, const char *rel, const struct val *bad,
                const char *fmt, ...) _printf_(5, 6);
void validate_struct(struct check *c, const struct type *t, const struct val *v,
                     const struct val *old);
/* Steps into rel (".x", "[3]") and back. */
uint32_t check_push(struct check *c, const char *fmt, ...) _printf_(2, 3);
void check_pop(struct check *c, uint32_t mark);
void validate_labels(struct check *c, const char *rel, const struct val *labels);
void validate_label_selector(struct check *c, const char *rel, const struct val *sel);

/* table.c / cells.c */
typedef const struct val *cell_fn(struct arena *a, const struct val *obj, int64_t now_us);
cell_fn *cell_find(const char *name);
char *age_text(struct arena *a, int64_t us); /* as kubectl shows durations */

/* crd.c */
void crd_validate(const struct resource *r, const char *sub, const struct val *v,
                  const struct val *old, struct causes *causes);
void crd_default(const struct type *t, struct arena *a, struct val *v);

/* For resource_unref: what is made of a definition goes. */
void crd_drop(struct resource_priv *priv);

/* A number for the text of the built-in kinds: registry.c */
uint32_t schema_text_hash(void);
