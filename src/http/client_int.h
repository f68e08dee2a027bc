/* http/client_int.h - what proxy.c needs of a call beyond client.h. */
#pragma once

#include "http/client.h"
#include "http/http_int.h"

/* As http_call(); on_connected comes when a connection took the call (again after a retry). */
struct http_call *call_new(struct http_origin *o, const struct http_call_opts *opts,
                           void (*on_connected)(struct http_call *, void *));
/* The call fails with TIMEOUT in ms from now, whatever it is doing. */
void call_expire(struct http_call *call, uint32_t ms);
