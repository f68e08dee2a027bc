/* base/err.h - errors by value.
 *
 * A function that can fail returns 0 or -1 and takes `struct err *err`, the caller's own struct
 * with the text inside: it cannot leak and is untouched on success. Context is added on the way
 * up: `return err_wrap(err, "pull %s", ref);`. An error is handled or returned, never both; the
 * room that ends its way logs it once. err.def is the one table of codes; doors answer from it.
 * err may be NULL nowhere. */
#pragma once

#include "base/base.h"

enum err_code {
#define ERR(code, http, reason, retry) ERR_##code,
#include "base/err.def"
#undef ERR
    ERR_COUNT
};

struct err {
    enum err_code code;
    int sys; /* errno of the system call that failed, or 0 */
    char msg[496];
};

/* Both return -1, so that `return err_set(...)` reads as one statement. code without ERR_. */
#define err_set(err, code, ...) err_set_(err, ERR_##code, 0, __VA_ARGS__)
/* As err_set with errno's text appended; the code follows errno (ENOENT NOT_FOUND, ENOSPC and
 * EDQUOT NO_SPACE, EACCES and EPERM FORBIDDEN, EEXIST ALREADY_EXISTS, else IO). */
#define err_sys(err, ...) err_sys_(err, __VA_ARGS__)
int err_set_(struct err *err, enum err_code code, int sys, const char *fmt, ...) _printf_(4, 5);
int err_sys_(struct err *err, const char *fmt, ...) _printf_(2, 3);
/* Puts "context: " before the text; keeps the code. */
int err_wrap(struct err *err, const char *fmt, ...) _printf_(2, 3);

int err_http(enum err_code code);
const char *err_reason(enum err_code code);
bool err_retry(enum err_code code);
const char *err_name(enum err_code code); /* "NOT_FOUND" */
