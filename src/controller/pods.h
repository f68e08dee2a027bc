/* controller/pods.h - questions about pods that several controllers ask. Pure. */
#pragma once

#include "controller/ctl.h"

const char *pod_phase(const struct obj *pod);      /* "Pending" when it says nothing */
bool pod_finished(const struct obj *pod);          /* Succeeded or Failed */
bool pod_active(const struct obj *pod);            /* neither finished nor being deleted */
bool pod_ready(const struct obj *pod);
/* Ready for at least min_ready_s; *ret_wait_ms (may be NULL): when it will be, or -1. */
bool pod_available(const struct obj *pod, int64_t min_ready_s, int64_t now_ms, int64_t *ret_wait_ms);
const char *pod_node(const struct obj *pod); /* "" while not bound */
const struct val *condition_of(const struct obj *o, const char *type); /* of status.conditions */
bool condition_true(const struct obj *o, const char *type);
int64_t obj_created_ms(const struct obj *o);
int64_t obj_generation(const struct obj *o);
bool obj_has_finalizer(const struct obj *o, const char *name);

/* Those that cost least to lose come first: not bound, pending, not ready, doubled on a node, young. */
void pods_sort_cheapest_first(struct objs *pods);
/* A pod as its template says, owned by its maker; generateName PREFIX-. */
struct val *pod_of_template(struct arena *a, const struct val *template, enum kind kind,
                            const struct obj *owner, const char *generate_prefix);
/* minReadySeconds etc.: an int at a path of the object. */
int64_t obj_int(const struct obj *o, const char *path, int64_t otherwise);
const char *obj_str(const struct obj *o, const char *path, const char *otherwise);
