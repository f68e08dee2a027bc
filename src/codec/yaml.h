/* codec/yaml.h - YAML text to values and back (by libyaml's parser; YAML 1.1 scalars as
 * sigs.k8s.io/yaml reads them: true/false, ints, floats, null, timestamps stay strings). */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "codec/json.h"
#include "codec/val.h"

/* One document (the first; empty text gives null). Aliases are expanded, up to YAML_NODES_MAX
 * values in all, so that a bomb of aliases is an error and not a machine full of memory. */
enum { YAML_NODES_MAX = 1000000 };
/* dup is told of each repeated key in the words of Go's parser: `line 9: key "foo" already set in map`. */
struct val *yaml_parse(struct arena *a, const char *text, size_t n, json_duplicate_fn *dup,
                       void *arg, struct err *err) _must_check_;
/* The same, and tag is told of each value with a tag of its own kind ("!Ref"), when it has been read: it may change
 * the value (in place, in the arena). Scalars with such a tag are strings. -1 with err ends the parse. */
typedef int yaml_tag_fn(void *arg, struct arena *a, const char *tag, struct val *v, struct err *err);
struct val *yaml_parse_tagged(struct arena *a, const char *text, size_t n, yaml_tag_fn *tag, void *arg,
                              struct err *err) _must_check_;
/* All documents of a stream, as a list. */
struct val *yaml_parse_all(struct arena *a, const char *text, size_t n, struct err *err) _must_check_;
void yaml_write(struct buf *b, const struct val *v);
