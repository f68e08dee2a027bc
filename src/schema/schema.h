/* schema/schema.h - every API kind as data, and the registry of what is served.
 *
 * The kinds are text (schema/kinds/ *.kinds, compiled in and read by schema_new; the language is
 * told in schema/README.md). Custom resource definitions come to the same registry at run time.
 * One engine works by that description: decode (prune, type errors, normal form), defaults,
 * validation, conversion (here); patches (schema/patch.h), selectors (schema/select.h), tables
 * (schema/table.h), discovery and OpenAPI (schema/publish.h).
 *
 * Everything works on `struct val` trees and changes them in place; what it adds lies in the arena
 * that is handed in and may borrow text from the registry, which outlives the request.
 * Thread: the one that made the registry; the read-only calls may run on any thread as long as
 * nobody adds or removes kinds meanwhile. */
#pragma once

#include "base/arena.h"
#include "base/err.h"
#include "codec/val.h"

struct schema;
struct obj;  /* codec/obj.h */
struct type; /* schema/type.h */

enum verb {
    VERB_GET = 1 << 0,
    VERB_LIST = 1 << 1,
    VERB_WATCH = 1 << 2,
    VERB_CREATE = 1 << 3,
    VERB_UPDATE = 1 << 4,
    VERB_PATCH = 1 << 5,
    VERB_DELETE = 1 << 6,
    VERB_DELETECOLLECTION = 1 << 7,
};

/* What may be asked below one object: pods/status, deployments/scale, pods/eviction, ... */
struct subresource {
    const char *name;                  /* "status", "scale", "exec" */
    const char *group, *version, *kind; /* of the body: "", "v1", "Pod"; autoscaling v1 Scale; policy v1 Eviction */
    uint32_t verbs;
    const struct type *type; /* of that body, NULL when it has none that we describe (exec options) and for
                              * the status of a custom resource: resource_sub_type() */
    /* scale of a custom resource: where the numbers lie, as ".spec.replicas"; else NULL */
    const char *scale_spec, *scale_status, *scale_selector;
};

/* One served resource in one version. Everything is borrowed from the registry. */
struct resource {
    const char *group;       /* "" for the core group */
    const char *version;     /* "v1" */
    const char *api_version; /* "apps/v1", "v1": what objects carry */
    const char *plural, *singular, *kind, *list_kind;
    const char *const *short_names; /* end in NULL; never NULL itself */
    const char *const *categories;
    bool namespaced;
    bool custom;      /* from a CustomResourceDefinition */
    bool stored;      /* this version is the one the store keeps */
    bool virtual_;    /* never stored: reviews, bindings, component statuses */
    bool generation;  /* metadata.generation counts changes of the spec */
    bool has_status;  /* spec and status are written apart */
    bool preserve_unknown; /* custom resource that keeps what it does not describe */
    uint32_t verbs;
    const struct subresource *subs;
    uint32_t subs_n;
    const char *deprecated; /* the Warning that every request to it is answered with; NULL: none */
    const char *table; /* the store's table, the same for all versions of one kind: "pods", "apps/deployments" */
    const struct type *described; /* built-in kinds; for all: resource_type() */
    struct schema *schema;
    struct resource_priv *priv;
};

/* ---- the registry ---- */

/* All built-in kinds. Dies when the compiled-in text is wrong (a unit test reads it first). */
struct schema *schema_new(void);
void *schema_free(struct schema *s);
DEFINE_AUTO(struct schema *, schema_free, schema_free)

/* No longer serves the built-in kinds of a group (those of tandem.dev where nothing works on them).
 * Before anybody asks for a kind. */
void schema_hide_group(struct schema *s, const char *group);

/* NULL: not served. */
const struct resource *schema_resource(const struct schema *s, const char *group,
                                       const char *version, const char *plural);
const struct resource *schema_kind(const struct schema *s, const char *group, const char *version,
                                   const char *kind);
/* api_version as objects carry it ("v1", "apps/v1"). */
const struct resource *schema_kind_of(const struct schema *s, const char *api_version,
                                      const char *kind);
/* Any version, the preferred one first: for RBAC, garbage collection, kubectl-like names. */
const struct resource *schema_preferred(const struct schema *s, const char *group,
                                        const char *plural);
/* The version of the same kind that the store keeps (r itself when it is that one). */
const struct resource *schema_stored(const struct resource *r);
/* spec.conversion of the CustomResourceDefinition that r is from; NULL: no webhook converts it. */
const struct val *schema_conversion(const struct resource *r);
/* What objects of it look like: borrowed as long as r is. That of a custom resource is made of its
 * definition's text when it is asked for, and goes again when nobody asks: see schema_trim. */
const struct type *resource_type(const struct resource *r);
/* ... and the body of a sub-resource; NULL when it has none that we describe. */
const struct type *resource_sub_type(const struct resource *r, const struct subresource *sub);
const struct subresource *schema_sub(const struct resource *r, const char *name); /* NULL: none */
/* for (uint32_t i = 0; (r = schema_next(s, &i));) in the order of discovery. */
const struct resource *schema_next(const struct schema *s, uint32_t *i);
bool schema_has_group(const struct schema *s, const char *group);
bool schema_has_version(const struct schema *s, const char *group, const char *version);
/* Grows with every schema_add/remove: for caches of discovery documents. */
uint64_t schema_generation(const struct schema *s);

/* A resource that is held over other people's schema_remove (watches): it stays as it was. */
const struct resource *resource_ref(const struct resource *r);
void *resource_unref(const struct resource *r);
/* Serves (again, when the name is there already) what a CustomResourceDefinition object says: all
 * its served versions. v is its tree, of which only names are kept; the object is held, and the rest
 * made of its text when somebody asks. INVALID when the definition cannot be served. */
int schema_add_crd(struct schema *s, const struct obj *crd, const struct val *v, struct err *err) _must_check_;
void schema_remove_crd(struct schema *s, const char *group, const char *plural);
/* To be called now and then, from the loop: what was made of definitions, and documents, goes when it
 * was not used since the call before. Resources that are held (resource_ref) stay as they are. */
void schema_trim(struct schema *s);

/* A described type by its short name ("core.v1.PodSpec", "meta.v1.DeleteOptions",
 * "autoscaling.v1.Scale", "policy.v1.Eviction"): for bodies that are no resources. NULL: none. */
const struct type *schema_type(const struct schema *s, const char *name);

/* ---- what is found on the way ---- */

/* Lists of texts, in the arena of who made them ({.a = arena}). */
struct texts {
    struct arena *a;
    const char **v;
    uint32_t n;
};
void texts_add(struct texts *t, const char *fmt, ...) _printf_(2, 3);

/* For json_parse_strict: arg is a struct texts; adds `duplicate field "spec.x"`. */
void schema_note_duplicate(void *texts, const char *path);
/* For yaml_parse: the same; all lines become one text, as Go's parser tells them. texts is empty at first. */
void schema_note_line(void *texts, const char *line);

enum cause_type {
    CAUSE_REQUIRED,     /* FieldValueRequired */
    CAUSE_INVALID,      /* FieldValueInvalid */
    CAUSE_NOT_SUPPORTED, /* FieldValueNotSupported */
    CAUSE_DUPLICATE,    /* FieldValueDuplicate */
    CAUSE_FORBIDDEN,    /* FieldValueForbidden */
    CAUSE_TOO_LONG,     /* FieldValueTooLong */
    CAUSE_TOO_MANY,     /* FieldValueTooMany */
    CAUSE_TYPE_INVALID, /* FieldValueTypeInvalid */
    CAUSE_NOT_FOUND,    /* FieldValueNotFound */
    CAUSE_INTERNAL,     /* InternalError */
};
struct cause {
    enum cause_type type;
    const char *field;   /* "spec.containers[0].image" */
    const char *message; /* without the field: "Required value", `Invalid value: "X": must ...` */
};
struct causes {
    struct arena *a;
    struct cause *v;
    uint32_t n;
};
const char *cause_reason(enum cause_type t); /* "FieldValueRequired" */
/* message is what follows the kind of error: "" or "must be ..." ; bad (may be NULL) is the value
 * that is shown: `Invalid value: "X": must be ...`. */
void causes_add(struct causes *c, enum cause_type t, const char *field, const struct val *bad,
                const char *fmt, ...) _printf_(5, 6);
/* The 422 Status object: `Pod "web" is invalid: spec.x: Required value`, details with causes. */
struct val *causes_status(const struct causes *c, struct arena *a, const struct resource *r,
                          const char *name);
/* The same for a kind that is no resource (Scale, Eviction). */
struct val *causes_status_of(const struct causes *c, struct arena *a, const char *group,
                             const char *kind, const char *name);

/* ---- objects: in the order a write goes through them ---- */

/* What arrived (JSON or YAML tree) into the normal form that a Go server would write: unknown
 * fields dropped (and named in `strict` as `unknown field "spec.foo"`, when that is not NULL),
 * nulls and empty omitempty values dropped, quantities, times and int-or-strings canonical, keys
 * in the order of the type. BAD_REQUEST-like INVALID_ARGUMENT when a value has the wrong type;
 * the text is Kubernetes' (`Deployment in version "v1" cannot be handled as a Deployment: json:
 * cannot unmarshal ...`). apiVersion and kind must already be what r says. */
int schema_decode(const struct resource *r, struct arena *a, struct val *v, struct texts *strict,
                  struct err *err) _must_check_;
/* The same for what a client writes: a list that was given empty is still told from one that was not,
 * by fields that are always written or say `given`; *ret_empty: there is one. schema_settle() ends that:
 * for the fields that are always written when `stored` is false, for all when it is true. */
int schema_decode_given(const struct resource *r, struct arena *a, struct val *v, struct texts *strict,
                        bool *ret_empty, struct err *err) _must_check_;
void schema_settle(const struct resource *r, struct val *v, bool stored);
int schema_decode_type(const struct schema *s, const struct type *t, const char *kind,
                       const char *version, struct arena *a, struct val *v, struct texts *strict,
                       struct err *err) _must_check_;

/* Fills in what the client left out. After decode; idempotent. */
void schema_default(const struct resource *r, struct arena *a, struct val *v);

/* What a create or update may not say, by kind: the status is emptied (create) or kept as it was
 * (update of the main resource), the spec is kept as it was (update of /status); fields that are
 * kept from the old object (allocated addresses, ...) and metadata.generation are set. sub is ""
 * or the sub-resource that is written ("status", "ephemeralcontainers", "resize", ...). On create
 * metadata has its uid and name already (a Job's selector is made of them). */
void schema_prepare_create(const struct resource *r, struct arena *a, struct val *v);
void schema_prepare_update(const struct resource *r, const char *sub, struct arena *a,
                           struct val *v, const struct val *old);

/* Adds to causes what is wrong with v; old is NULL on create. Metadata included (name,
 * generateName, labels, annotations, owner references, finalizers); on update also immutability.
 * After decode, default and prepare. */
void schema_validate(const struct resource *r, const char *sub, const struct val *v,
                     const struct val *old, struct causes *causes);
/* Of a service: whether its addresses and families fit each other (part of schema_validate; asked
 * before addresses are given). */
void schema_validate_service_ips(const struct resource *r, const struct val *v,
                                 struct causes *causes);
/* Deprecations and the like (`Warning:` headers) of an object that is about to be written. */
void schema_warn(const struct resource *r, const struct val *v, const struct val *old,
                 struct texts *warnings);

/* Custom resources: the revision in which their definition was written last: what is older may lack
 * its defaults and hold what it no longer knows. 0 for built-in kinds. */
int64_t schema_since(const struct resource *r);

/* v (of version `from`) becomes one of version `to` of the same kind: apiVersion, and for the few
 * that differ (autoscaling v1/v2, events) the fields. Custom resources: apiVersion only. */
int schema_convert(const struct resource *from, const struct resource *to, struct arena *a,
                   struct val *v, struct err *err) _must_check_;

/* autoscaling/v1 Scale of an object, and an object with the replicas of a Scale put in. NULL/-1
 * with NOT_FOUND when r has no scale. */
struct val *schema_scale_get(const struct resource *r, struct arena *a, const struct val *obj,
                             struct err *err);
int schema_scale_put(const struct resource *r, struct arena *a, struct val *obj,
                     const struct val *scale, struct err *err) _must_check_;

/* ---- names and small values, as Kubernetes checks them; NULL: fine, else why not (static) ---- */
const char *name_dns_label(const char *s);      /* RFC 1123 label, 63 */
const char *name_dns_subdomain(const char *s);  /* RFC 1123 subdomain, 253 */
const char *name_dns1035_label(const char *s);  /* RFC 1035 label: services */
const char *name_qualified(const char *s);      /* label and annotation keys */
const char *name_label_value(const char *s);
const char *name_path_segment(const char *s);   /* RBAC names: no "/", no "%", not "." or ".." */

/* Quantities ("500m", "1Gi"). parse: value in 1e-9 units would overflow, so the value comes as a
 * double and, when whole, as an integer. */
bool schema_quantity_parse(const char *s, double *ret_value);
double quantity_num(const struct val *v, double otherwise); /* string or number */
int64_t schema_quantity_milli(const struct val *v, int64_t otherwise); /* rounded up */
char *quantity_canonical(struct arena *a, const char *s); /* "1000m" -> "1"; NULL: no quantity */
/* Sum in canonical form, format of the first: for quotas and usage. */
char *quantity_add(struct arena *a, const char *x, const char *y);
#define CRD_APPROVED "api-approved.kubernetes.io"
/* A definition in a group of Kubernetes itself: is it approved of, and what the condition says of it. *ret_reason
 * NULL: the group is somebody else's. */
bool crd_approval(struct arena *a, const struct val *crd, const char **ret_reason, const char **ret_message);

/* Go durations ("1h30m", "10s") in nanoseconds; false: none. */
bool duration_parse(const char *s, int64_t *ret_ns);
/* RFC 3339 time in microseconds since 1970; false: none. */
bool time_parse(const char *s, int64_t *ret_us);
/* "2026-01-02T03:04:05Z"; micro adds ".000000". */
char *time_text(struct arena *a, int64_t us, bool micro);
