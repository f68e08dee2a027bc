/* door/aws/xml.h - small XML documents of requests as trees (by expat). */
#pragma once

#include "base/err.h"
#include "codec/val.h"

/* An element is its text, or a map: child's name -> list of elements. The root's own name is put at "#".
 * Namespaces are dropped. INVALID_ARGUMENT for what is not well-formed, nested deeper than 20 or has a DTD. */
struct val *xml_parse(struct arena *a, const char *text, size_t n, struct err *err) _must_check_;
/* The first child's text, or otherwise. */
const char *xml_get(const struct val *element, const char *child, const char *otherwise);
