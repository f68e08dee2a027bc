/* codec/json.h - JSON text to and from values.
 *
 * Decoding: RFC 8259, one document (by yyjson); what is no UTF-8 and half surrogates become U+FFFD. Whole numbers that fit become
 * VAL_INT, others VAL_DOUBLE. A key that comes twice: the last one counts, and each repetition is
 * told to the caller (Kubernetes' strict field validation wants them). Depth is limited to
 * JSON_DEPTH_MAX. Encoding: compact, keys in their order; not pretty. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "codec/val.h"

enum { JSON_DEPTH_MAX = 1000 };

/* Called for each key that repeats an earlier one of its map; path as "spec.replicas". */
typedef void json_duplicate_fn(void *arg, const char *path);

/* The tree, in the arena (text is copied), or NULL with INVALID_ARGUMENT. */
struct val *json_parse(struct arena *a, const char *text, size_t n, struct err *err) _must_check_;
/* How to read, where it is not the plain way. */
struct json_reading {
    json_duplicate_fn *duplicate; /* NULL: nobody asks */
    void *arg;
    bool as_written; /* numbers that are no integers keep their text (val.h) */
    bool merge;      /* a map that comes twice is merged, as where a Go server decodes into a struct */
};
struct val *json_parse_with(struct arena *a, const char *text, size_t n, const struct json_reading *how,
                            struct err *err) _must_check_;
struct val *json_parse_strict(struct arena *a, const char *text, size_t n, json_duplicate_fn *dup,
                              void *arg, struct err *err) _must_check_;
/* Text that we wrote ourselves (sealed objects): no key comes twice, and the tree's strings lie in the
 * text, which is changed for it and has JSON_ROOM bytes behind its n. Text and tree live equally long. */
enum { JSON_ROOM = 8 };
struct val *json_parse_own(struct arena *a, char *text, size_t n, struct err *err) _must_check_;
/* The same, for who only shows an object: metadata.managedFields[].fieldsV1 stay text (VAL_FLAG_JSON). They are as
 * big as all the rest, and nobody looks into them. */
struct val *json_parse_lean(struct arena *a, char *text, size_t n, struct err *err) _must_check_;
/* The same, for who looks at little of an object. */
struct json_key {
    const char *s;
    size_t n;
};
struct json_skim {
    const struct json_key *unseen; /* maps and lists that are called so, but at the top, stay text; ends with n == 0 */
    size_t meta, meta_n; /* answers where the object's metadata stand, in the text as it was; meta_n 0: nowhere */
};
struct val *json_parse_skim(struct arena *a, char *text, size_t n, struct json_skim *skim, struct err *err) _must_check_;
void json_write(struct buf *b, const struct val *v);
void json_write_pretty(struct buf *b, const struct val *v); /* two blanks a level, final newline */
void json_write_str(struct buf *b, const char *s, size_t n); /* with quotes */
/* Text in the arena; *ret_n may be NULL. */
char *json_text(struct arena *a, const struct val *v, size_t *ret_n);
