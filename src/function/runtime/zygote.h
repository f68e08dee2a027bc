/* function/runtime/zygote.h - what the gateway and a zygote say to each other.
 *
 * The base is a small Python process of ours (driver.py with zygote.so), one per interpreter. It
 * has loaded what all functions need and forks zygotes, so that one costs some milliseconds and not
 * the start of an interpreter. A zygote, one per function version, builds the function's root once,
 * in a mount namespace of its own, then waits on a SOCK_SEQPACKET socket and forks instances.
 * Neither ever runs a line of the user's code: a snapshot (SnapStart) is made by an instance in its own sandbox.
 *
 * gateway -> base: struct zygote_ask, ASK_ZYGOTE with one descriptor, the new zygote's socket, and
 * ASK_KILL; base -> gateway: FORKED, FAILED, EXIT.
 * gateway -> zygote
 *   the first message: the configuration as JSON (see zygote.c of the room)
 *   then struct zygote_ask; ASK_FORK comes with descriptors: instance socket, log pipe, then
 *   ASK.cgroup_n descriptors to attach to cgroups with, then (ASK.net) a network namespace.
 * zygote -> gateway: struct zygote_tell.
 *
 * An instance and the gateway speak over a SOCK_STREAM socket in frames: struct instance_frame and
 * its bytes behind. One invocation at a time. Both sides are of one machine and one build: plain
 * structs in native order. What an instance says is not trusted: user code shares its process. */
#pragma once

#include <poll.h>
#include <stdint.h>
#include <time.h>

enum { ZYGOTE_FDS_MAX = 12 };

#define ZYGOTE_ALL UINT32_MAX /* KILL: every instance */
enum zygote_ask_what { ASK_FORK = 1, ASK_KILL, ASK_COMPILE, ASK_ZYGOTE, ASK_SNAPSHOT };
struct zygote_ask {
    uint32_t what;
    uint32_t slot;     /* the instance's number, chosen by the gateway, never used twice */
    int32_t cpu;       /* -1: any; else the core to stay on */
    uint16_t cgroup_n; /* descriptors */
    uint16_t net;      /* 1: a network namespace follows */
    uint32_t init;     /* 1: load the module without waiting for a call */
    uint16_t image;    /* 1: an image's descriptor follows: SNAPSHOT makes it, FORK goes on from it (snap.c) */
    uint16_t keys;     /* 1: then a socket that brings credentials (keys.c) */
    char stream[80];   /* the instance's log stream: 2026/01/02/[$LATEST]32hex */
};

enum zygote_tell_what { TELL_READY = 1, TELL_FORKED, TELL_EXIT, TELL_FAILED };
struct zygote_tell {
    uint32_t what;
    uint32_t slot;
    int32_t pid;
    int32_t status; /* EXIT: as wait() gives it; FAILED: errno; READY: 1: forks of it need no start of their own */
    uint64_t cpu_us;
    uint64_t max_rss_kb;
    char text[64]; /* FAILED: which step */
};

enum { INSTANCE_FRAME_MAX = 6 * 1024 * 1024 + 65536 };
enum instance_frame_type {
    FRAME_INVOKE = 1,
    FRAME_RESULT,
    FRAME_INITED, /* no bytes: the module is loaded; id 0: ahead of any call */
    FRAME_STREAM, /* the answer comes in pieces; bytes: its content type. Then DATA, and a RESULT without
                   * bytes, or with the error that cut it short */
    FRAME_DATA,
    FRAME_SHUTDOWN, /* gateway: end the program (SIGTERM), be gone in a milliseconds */
    FRAME_DIAL,     /* gateway, HTTP functions: a connection to the program, please */
    FRAME_DIALED,   /* of that id, with a descriptor; result 1: without, it does not listen */
    FRAME_SNAPSHOT, /* of who makes one, at its end: OK: the image is whole; INIT_ERROR with its JSON; UNABLE with a text */
};
enum instance_result {
    RESULT_OK = 0,
    RESULT_ERROR = 1,      /* the handler raised; body = error JSON */
    RESULT_INIT_ERROR = 2, /* the module could not be loaded; the instance leaves */
    RESULT_BAD_EVENT = 3,  /* the payload was no JSON; body = why */
    RESULT_TIMEOUT = 4,    /* Wasm: the time limit ended it; the instance goes on */
    RESULT_RESTORE_ERROR = 5, /* what was to run after it was restored raised; the instance leaves */
    RESULT_UNABLE = 6,        /* no snapshot can be made of what was initialised */
};
struct instance_frame {
    uint32_t n; /* bytes that follow this struct */
    uint8_t type, result;
    uint16_t request_id_n, trace_n; /* INVOKE: lengths of the texts in front of the body */
    uint16_t arn_n;
    uint32_t client_context_n;
    uint64_t id;           /* counts up; RESULT carries the INVOKE's */
    uint64_t a;            /* INVOKE: deadline in ms since 1970. RESULT: peak memory in KiB */
    uint64_t b;            /* INVOKE: CLOCK_MONOTONIC us when the request came. RESULT: us that init took, 0 when it was done before.
                            * SNAPSHOT: the same. INITED of who was restored: us that it took */
    uint64_t c;            /* INVOKE: 0. RESULT: CLOCK_MONOTONIC us when the sandbox stood. INITED: us of the hooks after a restore */
    uint64_t d;            /* INVOKE: 0. RESULT: us that the handler took */
};

/* Until a frame comes. Not asleep in read(): a reader of a Unix socket is woken again when the gateway takes its answer out. */
static inline void frame_wait(void)
{
    struct pollfd p = {3, POLLIN, 0};

    (void)poll(&p, 1, -1);
}

/* The clock of b and c, the same on both sides of the socket. */
static inline uint64_t mono_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000 + (uint64_t)t.tv_nsec / 1000;
}
