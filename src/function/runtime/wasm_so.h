/* function/runtime/wasm_so.h - what the Wasm files of zygote.so share: wasm.c has the library and the compiler, wasm_call.c
 * the instance. */
#pragma once

#include "base/buf.h"
#include "function/runtime/wasmtime_abi.h"

extern struct wasm_abi wasm_abi; /* filled by z_wasm_load() */

/* The same for the compiler and for instances: a module that does not fit is refused when it is compiled. */
void *wasm_engine(void);
/* The causes of an error, in one line, behind what is in ret. Frees the error. */
void wasm_error_text(void *error, struct buf *ret);
bool wasm_name_is(const struct wasm_bytes *name, const char *want);
bool wasm_write_all(int fd, const void *p, size_t n);

enum { WASM_TABLE_ELEMENTS = 1 << 20 };
