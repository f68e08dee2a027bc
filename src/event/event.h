/* event/event.h - what happens to objects becomes calls of functions.
 *
 * A Volume's spec.notifications[] name events ("s3:ObjectCreated:*"), a function and filters. Both
 * ways of writing are heard: puts and deletes through the S3 door (objects_tell) and POSIX writes in
 * pods, functions and on the host (a watch over the volume's tree: closing a written file, moving, removing). Each
 * matching event is handed to function_invoke_async() as S3's own Records document. A put through
 * the door is told once, not a second time by the watch.
 * Thread: the loop's. */
#pragma once

#include <stdint.h>
#include <uv.h>

#include "base/err.h"

struct objects;
struct functions;
struct obj;
struct http_req;

struct objects_opts {
    uv_loop_t *loop;
    const char *state;
    const char *region;
    struct functions *functions;
};
struct objects *objects_new(const struct objects_opts *o);
struct objects *objects_free(struct objects *os);

/* The Volume as it is now: its notifications count from here on. */
void objects_volume(struct objects *os, const struct obj *volume);
void objects_volume_gone(struct objects *os, const char *name);

struct object_event {
    const char *volume;
    const char *key;
    const char *name;  /* "ObjectCreated:Put", "ObjectRemoved:Delete", ... */
    int64_t size;
    const char *etag;  /* without quotes; "" for removals */
    uint64_t inode;    /* of the file put; 0: none. The watch leaves its echo out */
    const struct http_req *req; /* that asked for it: its trace goes on; NULL: none. Borrowed for the call */
};
void objects_tell(struct objects *os, const struct object_event *e);
