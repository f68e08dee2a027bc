/* codec/selector.h - label and node selectors as they lie in objects (trees, not query strings). */
#pragma once

#include "codec/val.h"

/* metav1.LabelSelector against metadata.labels (NULL: no labels). A NULL selector selects nothing,
 * an empty one everything. */
bool selector_matches(const struct val *selector, const struct val *labels);
/* A plain map of labels (Service.spec.selector, nodeSelector): all must be there with that value. */
bool labels_contain(const struct val *labels, const struct val *wanted);
/* One requirement {key, operator, values} with the operators of node selectors too (Gt, Lt);
 * have: the label's value or NULL. */
bool requirement_matches(const struct val *requirement, const char *have);
/* core/v1 NodeSelector {nodeSelectorTerms} against a node: one term must match whole; an empty term
 * matches nothing. NULL: no selector, matches. */
bool node_selector_matches(const struct val *node_selector, const struct val *labels, const char *name);
/* One NodeSelectorTerm {matchExpressions, matchFields}. */
bool node_term_matches(const struct val *term, const struct val *labels, const char *name);
