/* function/scaling/kpa.h - how many instances a function should have, by the algorithm of Knative's autoscaler (KPA).
 *
 * Pure: it sees numbers and times and keeps a few windows; scale.c asks it and does what it says.
 *
 *   samples   the mean of the metric over each second (calls under way, or calls that came) goes into buckets of two
 *             windows, the stable one and the panic one (a tenth of it). An average is over the seconds that there are:
 *             since the first, when that is less than a window ago; up to the last that was written.
 *   decide    every 2 s: ceil(average / target) for each window, within [ready / 2, ready x 1000]. When the panic window
 *             wants twice what is ready, it panics: the most that was wanted counts until a whole stable window has
 *             passed without. A delay for fewer takes the most of its time.
 *   bounds    min and max; none at all only after it was wanted for a window at least, and the retention period.
 *
 * Beside what is published: a revision that nobody can reach does not exist here, so fewer always go by halves. */
#pragma once

#include "schema/autoscaling.h"

#include <stddef.h>
#include <stdint.h>

struct kpa;

/* each: what an instance takes at once. Wants `initial` instances (within the bounds) from now on. */
struct kpa *kpa_new(const struct autoscaling *s, int each, int64_t now_us);
void *kpa_free(struct kpa *k);
/* Other numbers; the windows are kept when they are as long as before and of the same metric. */
void kpa_change(struct kpa *k, const struct autoscaling *s, int each);
const struct autoscaling *kpa_says(const struct kpa *k);

/* So many calls came (1), or ended (-1). True: instances are wanted now, and none was before. */
bool kpa_seen(struct kpa *k, int calls, int64_t now_us);
/* Looks when 2 s have passed since it did; ready: instances there are. True: it did, kpa_wanted() is new. */
bool kpa_look(struct kpa *k, int ready, int64_t now_us);
int kpa_wanted(const struct kpa *k);

/* What it saw and thought at the last look. */
struct kpa_view {
    double stable, panic, target;
    int wanted;
    int excess; /* capacity beyond what is under way and what is kept for bursts; -1 as well when that is without end */
    bool panics;
};
struct kpa_view kpa_view(const struct kpa *k);

/* ---- for its tests ---- */
void kpa_rates(struct kpa *k, double target, double total, double up, double down);
/* Before the bounds. */
int kpa_decide(struct kpa *k, double stable, double panic, int ready, int64_t now_us);
/* The means of both windows at that time; false: nothing was seen for a window. */
bool kpa_averages(struct kpa *k, int64_t now_us, double *ret_stable, double *ret_panic);
