/* door/aws/events/events_int.h - what the doors of EventBridge share (events.c: rules; scheduler.c: schedules). */
#pragma once

#include "codec/obj.h"
#include "door/aws/aws_int.h"

/* An AWS target (Arn, RoleArn, Input, InputPath, InputTransformer, RetryPolicy) as a tandem.v1.EventTarget; NULL and
 * err: what it is cannot be called. */
struct val *event_target_read(struct aws_req *q, const struct val *in, struct err *err);
struct val *event_target_shown(struct aws_req *q, const struct val *target);
/* Seconds since 1970 of an object's annotation or its creation. */
double event_time(const struct val *object, const char *annotation);
/* What an object of that AWS name is called: lower case and dashes, with a hash when something was lost. */
const char *event_object_name(struct arena *a, const char *name);
/* 1 to 64 letters, digits, '-', '_', '.'. */
bool event_name_ok(const char *name);
