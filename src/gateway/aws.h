/* gateway/aws.h - where the AWS door hangs on: it lives in this process, on this loop. */
#pragma once

struct aws_door;
struct client;
struct gateway;
struct mirror;

/* Opens the door on the gateway's aws_port; NULL when there is none to open, or it could not be
 * (logged). functions: the mirror of Function objects. */
struct aws_door *aws_start(struct gateway *g, struct client *client, struct mirror *functions);
/* done is called when it is gone; NULL door: not called. */
void aws_stop(struct aws_door *door, void (*done)(void *arg), void *arg);
