/* auth/rbac.h - who may do what: Role, ClusterRole and their bindings. The rules of an aggregated
 * ClusterRole are those that are written in it; a controller gathers them.
 *
 * Nothing is cached: a decision walks the bindings as they are now (the objects keep their parsed
 * trees, so that is some microseconds), so a change of a role counts from the next request on.
 * How to find the objects is handed in; the API server gives its store. */
#pragma once

#include "auth/user.h"
#include "base/err.h"
#include "codec/obj.h"

struct rbac_source {
    /* "roles", "clusterroles"; namespace "" for the latter. Borrowed for the decision. */
    const struct obj *(*get)(void *arg, const char *resource, const char *ns, const char *name);
    /* Calls fn for each of "rolebindings" (of one namespace), "clusterrolebindings" or
     * "clusterroles" until it says false. */
    void (*each)(void *arg, const char *resource, const char *ns,
                 bool (*fn)(void *fn_arg, const struct obj *o), void *fn_arg);
    void *arg;
};

/* What is asked. For paths that are no resources: path is set, the others not. */
struct rbac_ask {
    const char *verb; /* get list watch create update patch delete deletecollection, ... */
    const char *group, *resource, *subresource, *ns, *name; /* "" when there is none */
    const char *path;
    const char *field_selector; /* of a list, watch or deletecollection as text; NULL or "": none */
    const char *label_selector;
    const char *version; /* of the group; NULL: not said. RBAC does not look at it */
};

bool rbac_allows(const struct rbac_source *s, const struct auth_user *u, const struct rbac_ask *ask);
/* The same, and why, in the words of Kubernetes ("RBAC: allowed by ..."; "" for masters). */
bool rbac_decides(const struct rbac_source *s, const struct auth_user *u,
                  const struct rbac_ask *ask, struct arena *a, const char **ret_reason);

/* Is it allowed by one of these rules? */
bool rbac_rules_allow(const struct val *rules, const struct rbac_ask *ask);

/* Does the user hold all of these rules (a list of PolicyRules) in the namespace ("" = everywhere)?
 * FORBIDDEN otherwise. For the rule that nobody gives away what he has not got. */
int rbac_holds(const struct rbac_source *s, const struct auth_user *u, const char *ns,
               const struct val *rules, struct err *err) _must_check_;

/* All rules that apply to the user in the namespace, as lists of PolicyRules in the arena:
 * resourceRules and nonResourceRules of a SubjectRulesReviewStatus. */
void rbac_rules(const struct rbac_source *s, const struct auth_user *u, const char *ns,
                struct arena *a, struct val *resource_rules, struct val *url_rules);

/* The stock roles and bindings (auth/bootstrap.roles) as trees, in the order of the text. Calls fn
 * for each: resource is clusterroles, clusterrolebindings, roles or rolebindings. */
void rbac_bootstrap(struct arena *a,
                    void (*fn)(void *arg, const char *resource, struct val *object), void *arg);
