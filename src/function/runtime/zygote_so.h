/* function/runtime/zygote_so.h - what the files of zygote.so share: zygote.c does the work, node.c offers it to Node. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

extern struct z_info {
    uint64_t entered_us; /* when the sandbox stood */
    char stream[80];
    uint32_t what; /* z_next() gave it back */
} z_info;

/* Not NULL: instances are served by it and z_next() does not come back in them. ahead: the module may be loaded without a call. */
extern void (*z_serve)(bool ahead);

/* After the zygote has become another program (z_exec): the socket and /proc are where they were left. forked: called
 * in each child before it enters its sandbox; such children keep the descriptors of their runtime. 0 or -errno. */
int z_resume(void (*forked)(void));
int z_config(unsigned uid, unsigned tmp_mb, const char *host, const char *code);
/* forks: 1 when instances are forks of their runtime, 0 when they start it. */
int z_ready(int forks);
void z_failed(const char *text, int e);
int z_next(void);
/* A base: it tells that it is there. Forks of it for ASK_ZYGOTE (z_next()) go into the root that they were sent. */
int z_base_ready(void);
/* 0, -ENOENT: none was given; else -errno. */
int z_take_root(void);
/* 1 in a child that is to do what a request does and then to call z_rehearsed(); in the zygote 0 when it did, else -errno. */
int z_rehearse(void);
void z_rehearsed(void);
uint64_t z_max_rss_kb(void);
/* keys.c: answers GET /2021-04-23/credentials with what comes by the socket, for good. The listener is on 127.0.0.1:9001. */
int keys_listen(void); /* -1: it is said why */
_Noreturn void keys_serve(int from, int listener);
int z_snapshot(int image, const char *last_words, unsigned n);
int z_restore(int image);
/* This process's own memory map, or NULL. */
FILE *z_open_maps(void);
