/* sandbox/shim/crilog.h - a container's output as the files that `kubectl logs` reads.
 *
 * One line: "2026-01-02T03:04:05.000000006Z stdout F text\n". P instead of F: the line goes on in
 * the next record of the same stream (it was longer than 16 KiB, or the stream ended within it).
 * Rotation: past log_max_bytes PATH becomes PATH.1, PATH.1 becomes PATH.2, ..; log_files in all. */
#pragma once

#include "base/buf.h"

enum { CRILOG_LINE_MAX = 16384 };

struct crilog {
    char *path;
    int fd; /* -1: nowhere (output is dropped) */
    int64_t bytes, bytes_max;
    int files;
    struct buf out; /* reused */
};
struct crilog_stream {
    const char *name; /* "stdout", "stderr" */
    struct buf line;  /* what came since the last newline */
};

/* Opens for appending; makes the directory. Failing is no error for the container. */
void crilog_open(struct crilog *l, const char *path, int64_t bytes_max, int files);
void crilog_close(struct crilog *l);
void crilog_write(struct crilog *l, struct crilog_stream *s, const char *p, size_t n);
void crilog_end(struct crilog *l,
                struct crilog_stream *s); /* the stream ended: what is left goes out as P */
