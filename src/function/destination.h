/* function/destination.h - where the record of an event goes when it is through: to a function (as an
 * event of its own) or into a bucket (a file of a volume).
 *
 * A destination is {function, qualifier} or {bucket}. Thread: the loop; files are written on a pool
 * thread. */
#pragma once

#include "function/function.h"

struct delivery {
    struct functions *fs;
    uint64_t event;          /* number of the queue's event that is over when all of it is delivered */
    const struct val *to[2]; /* the record's destination, the dead letter's; either may be NULL */
    const char *text[2];     /* what goes there */
    size_t n[2];
    const char *request_id;
    const char *trace;      /* for who comes after, or NULL */
    const struct val *meta; /* of the event: ns, name, at */
};

/* What is told of an event that is through. */
struct destination_record {
    const char *region, *account;
    const char *request_id, *condition;
    uint32_t tries;
    const struct function_result *result;
    const struct val *meta; /* of the event: name, qualifier */
    const char *payload;
    size_t n;
};

bool destination_is(const struct val *to);
/* In the arena. */
char *destination_record(const struct destination_record *d, struct arena *a, size_t *ret_n);
/* What spec.events of the Function says of events sent to the qualifier; NULL: nothing. Borrowed. */
const struct val *events_rules(const struct obj *function, const char *qualifier);
/* Copies what it needs. done once, perhaps before it returns; whole: it is durable where it was to go, or
 * will never be (the place is not there: the log says so). Made twice, because of a kill or an error, it is one file
 * in a bucket, one event of a function and one execution of a durable function (of two functions the first may be sent
 * another event). */
void deliver(const struct delivery *d, void (*done)(void *arg, bool whole), void *arg);
