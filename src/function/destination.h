/* function/destination.h - where the record of an event goes when it is through: to a function (as an
 * event of its own) or into a bucket (a file of a volume).
 *
 * A destination is {function, qualifier} or {bucket}. Thread: the loop; files are written on a pool
 * thread. */
#pragma once

#include "function/function.h"

struct delivery {
    struct functions *fs;
    const struct val *to[2]; /* the record's destination, the dead letter's; either may be NULL */
    const char *request_id, *condition;
    uint32_t tries;
    const struct function_result *result;
    const struct val *meta; /* of the event: name, arn */
    const char *payload;
    size_t n;
};

bool destination_is(const struct val *to);
/* What spec.events of the Function says of events sent to the qualifier; NULL: nothing. Borrowed. */
const struct val *events_rules(const struct obj *function, const char *qualifier);
/* Copies what it needs. done once, perhaps before it returns; whole: it is durable where it was to go, or
 * will never be (the place is not there: the log says so). */
void deliver(const struct delivery *d, void (*done)(void *arg, bool whole), void *arg);
