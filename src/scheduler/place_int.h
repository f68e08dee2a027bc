/* scheduler/place_int.h - inside of placing: what filters and scores of one pod share. */
#pragma once

#include "scheduler/place.h"

struct spread; /* one topology spread constraint and the counts of its domains */
struct near;   /* one (anti-)affinity term and its domains */

struct work {
    struct placing *p;
    const struct val *spec, *labels;
    struct amounts asks;
    int64_t cpu_least, memory_least;
    const char *unknown; /* a resource that no node has */
    struct host_port *ports;
    uint32_t ports_n;
    struct spread *spreads;
    uint32_t spreads_n;
    struct near *nears;
    uint32_t nears_n;
};

bool tolerates(const struct val *toleration, const struct val *taint);
bool node_wanted(const struct work *w, const struct node_info *n); /* nodeSelector, node affinity */

void spread_prepare(struct work *w);
const char *spread_forbids(struct work *w, struct node_info *n);
void affinity_prepare(struct work *w);
const char *affinity_forbids(struct work *w, struct node_info *n);
/* Fills placing.scores of the nodes without a reason. */
void score(struct work *w);
/* For score(): more is better for affinity; pods in the domain for soft spreading (less is better). */
double affinity_wishes(struct work *w, struct node_info *n);
double spread_soft(struct work *w, struct node_info *n);
