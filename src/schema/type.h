/* schema/type.h - a described type: what the engines of this room (and server-side apply) walk by.
 *
 * A struct has fields; a list and a map have an element type and say how they merge. Scalars are
 * shared singletons. Everything is const after it was loaded and lives as long as the registry (or
 * the custom resource it came with). */
#pragma once

#include "schema/schema.h"

enum type_kind {
    TYPE_STRING,
    TYPE_BOOL,
    TYPE_INT32,
    TYPE_INT64,
    TYPE_DOUBLE,
    TYPE_BYTES, /* base64 text */
    TYPE_QUANTITY,
    TYPE_INT_OR_STRING,
    TYPE_TIME,
    TYPE_MICRO_TIME,
    TYPE_DURATION,
    TYPE_RAW, /* any object, kept as it is (RawExtension) */
    TYPE_ANY, /* any value, kept as it is */
    TYPE_LIST,
    TYPE_MAP, /* string -> elem */
    TYPE_STRUCT,
};

/* How a list or map merges in server-side apply. */
enum topology {
    TOPO_ATOMIC,   /* replaced as a whole: lists unless told otherwise */
    TOPO_SET,      /* list of scalars, each once */
    TOPO_MAP,      /* list of structs with keys[] */
    TOPO_GRANULAR, /* maps and structs unless told otherwise */
};

enum field_flag {
    FIELD_PTR = 1 << 0,      /* zero values are kept when they were given */
    FIELD_KEEP = 1 << 1,     /* written even when empty: "", 0, null list, {} struct, null time */
    FIELD_ZERO = 1 << 2,     /* a struct that is left out when nothing is in it */
    FIELD_REQUIRED = 1 << 3, /* as published in OpenAPI */
    FIELD_MERGE = 1 << 4,    /* strategic merge: lists merge (by merge_key, or as sets) */
    FIELD_RETAIN = 1 << 5,   /* strategic merge: retainKeys */
    FIELD_REPLACE = 1 << 6,
    FIELD_GIVEN = 1 << 7,    /* an empty list that was given is not the same as none, until it is stored */
    FIELD_OFF = 1 << 8,      /* known, but of a feature that is off: what is given is dropped */
    FIELD_GRANULAR = 1 << 9, /* the struct merges by fields here, though its type is atomic elsewhere */
    FIELD_BOXED = 1 << 10,   /* protobuf: the list lies in a message of its own, {items 1} */
};

struct rule; /* schema_int.h */

struct field {
    const char *name;
    const struct type *type;
    uint16_t name_n;
    uint16_t flags;
    uint16_t proto;       /* protobuf number, 0: none */
    uint16_t proto_outer; /* the inlined messages it lies in: outermost number in the low byte, the
                           * next one in the high byte; 0: none */
    const char *merge_key; /* strategic merge, NULL: none */
    const struct rule *rules;
    const struct val *def; /* default, NULL: none */
};

struct type {
    uint8_t kind;     /* enum type_kind */
    uint8_t topology; /* enum topology */
    bool preserve;    /* keeps unknown fields (custom resources) */
    bool embedded;    /* holds a whole object: apiVersion, kind, metadata (custom resources) */
    bool has_inlined; /* protobuf: some of its fields lie in inlined messages */
    bool has_off;     /* a FIELD_OFF is somewhere below */
    uint16_t fields_n;
    const char *name; /* "core.v1.PodSpec"; NULL for lists, maps and unnamed structs */
    const struct field *fields; /* in the order they are written */
    const uint16_t *by_name;    /* indexes of fields, sorted by name */
    const struct type *elem;    /* lists and maps */
    const char *const *keys;    /* TOPO_MAP: the keys, ends in NULL */
    const struct rule *rules;   /* of the whole struct */
    const struct val *json;     /* custom resources: the openAPIV3Schema at this place */
};

/* NULL: no such field. */
const struct field *type_field(const struct type *t, const char *name, size_t n);
/* The type at a dotted path from t ("spec.template"), lists and maps are entered by "[]" and "{}";
 * NULL: nothing there. */
const struct type *type_at(const struct type *t, const char *path);
