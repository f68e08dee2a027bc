/* event/input.h - what a target is handed when its time has come: the event, or what its owner makes of it.
 * Pure; everything lies in the arena. */
#pragma once

#include "base/err.h"
#include "codec/val.h"

struct input_event {
    const char *source;   /* "aws.events", "aws.scheduler" */
    const char *id;       /* of the event, a UUID */
    const char *arn;      /* of the rule or schedule */
    const char *name;
    const char *region, *account;
    int64_t time_s;
    int attempt; /* from 1 */
};

/* The text for target (a tandem.v1.EventTarget): its input; with placeholders <aws.scheduler...> filled in for a
 * schedule; its inputPath's part of the event; its inputTemplate; else the event itself. NULL when the target asks for
 * what cannot be made (err says what). */
const char *input_text(struct arena *a, const struct val *target, const struct input_event *e, size_t *ret_n, struct err *err);
