/* function/runtime/wasm/web.h - one connection of the gateway's to a Wasm HTTP function, and the request that is on it.
 *
 * HTTP/1.1 over a stream socket, one request after the other. Bodies stream: what came is parsed when somebody wants it,
 * what is said goes out as it comes. Whoever waits in here ends when the time limit has gone by (wasm_late()). */
#pragma once

#include "base/buf.h"

#include <llhttp.h>

enum {
    WEB_FIELDS_MAX = 128 << 10, /* of a request: its line and fields, bytes */
    WEB_PIECE = 16 << 10,       /* read, and given to a component, at once */
};

struct web {
    int fd; /* -1: none */
    llhttp_t parser;
    struct buf raw;    /* has come, is not parsed yet */
    struct buf url;    /* ends with a 0 that does not count */
    struct buf fields; /* NAME 0 VALUE 0 ... */
    struct buf body;   /* parsed, not read yet */
    bool begun;        /* a head is complete */
    bool whole;        /* the request has come in whole */
    bool bad;          /* what came is no HTTP, or too big, or it was cut */
    bool answered;     /* the answer's head is on its way */
    bool chunked, bodiless, counted, close;
    uint64_t left;     /* counted: what is still to be said */
};

void web_open(struct web *w, int fd);
void web_close(struct web *w);
/* Reads until a request's head is there: 1; 0: not yet; -1: the connection is over, or was answered 400. */
int web_head(struct web *w);
const char *web_field(const struct web *w, const char *name); /* the first one, or NULL */
/* Bytes of the body, at most n: how many, 0: none at the moment (only with wait false), -1: there are no more, -2: it was cut. */
int web_read(struct web *w, void *p, size_t n, bool wait);
bool web_readable(struct web *w); /* web_read() would not wait */
/* fields: "name: value\r\n" lines. length: of the body, -1: not known. False: the connection is gone. */
bool web_answer(struct web *w, int status, const char *fields, size_t n, int64_t length);
bool web_say(struct web *w, const char *p, size_t n); /* false: gone, or more than was announced */
/* The answer is whole; trailers as fields. What is left of the request is read and dropped. False: the connection is of no use any more. */
bool web_end(struct web *w, const char *trailers, size_t n);
/* An answer of ours, without a component: text. */
bool web_refuse(struct web *w, int status, const char *text);
