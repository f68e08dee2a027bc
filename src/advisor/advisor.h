/* advisor/advisor.h - measures every workload in the background, and keeps an Advice object beside
 * each: `kubectl get advice`.
 *
 * Every half minute it sums up what the node metered (STATE/meter/workloads.json outlives pods and
 * restarts), and writes those objects that are new, whose verdict changed, or that are minutes old. */
#pragma once

#include "base/err.h"

struct advisor;
struct client;
struct env;

/* A local client; client, env and state outlive it. */
struct advisor *advisor_start(struct client *client, struct env *env, const char *state,
                              struct err *err) _must_check_;
void *advisor_stop(struct advisor *a); /* NULL is fine */

/* `tandem advise`: the rows of this state folder on out, as a table or as JSON. exists (may be
 * NULL) leaves out what was removed. */
typedef bool advise_exists_fn(void *arg, const char *kind, const char *ns, const char *name);
int advise_print(const char *state, bool json, advise_exists_fn *exists, void *arg, struct err *err)
    _must_check_;
