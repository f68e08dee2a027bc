/* door/aws/aws.h - the AWS door: Lambda, S3, IAM, STS ... as unmodified SDKs speak them, on one port.
 *
 * Owns nothing: functions are Function objects, buckets are Volume objects (both written through
 * client/), objects in buckets are files in STATE/volumes/BUCKET. Lives on the gateway's loop; file
 * work goes to uv's thread pool. Requests are signed with access keys, which are Secrets of type
 * tandem.dev/access-key in namespace kube-system. */
#pragma once

#include <uv.h>

#include "base/err.h"

struct aws_door;
struct client;
struct functions;
struct logs;
struct series;
struct identity;
struct mirror;

struct aws_door_opts {
    uv_loop_t *loop;
    const char *state;
    const char *address;        /* NULL: 127.0.0.1 */
    int port;                   /* 0: the kernel picks */
    struct client *client;      /* outlives the door */
    struct functions *functions;
    struct logs *logs;          /* outlives the door */
    struct series *metrics;    /* the same */
    struct mirror *mirror;      /* of tandem.dev/v1 functions, all namespaces */
    struct identity *identity;  /* who may do what; outlives the door; its region and account are the door's */
    const char *inside_url;     /* this port as functions reach it; NULL: http://127.0.0.1:PORT */
    const char *function_url;   /* what a function's URL begins with: URL + NAME + "/"; NULL: no URLs */
};
struct aws_door *aws_door_new(const struct aws_door_opts *o, struct err *err) _must_check_;
int aws_door_port(const struct aws_door *d);
/* Lets requests finish for up to deadline_ms; done (may be NULL) when all is gone. */
void aws_door_stop(struct aws_door *d, uint32_t deadline_ms, void (*done)(void *), void *arg);
