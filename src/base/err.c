#include "base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

static const struct {
    const char *name;
    int http;
    const char *reason;
    bool retry;
} TABLE[] = {
#define ERR(code, http, reason, retry) {#code, http, reason, retry},
#include "base/err.def"
#undef ERR
};

int err_set_(struct err *err, enum err_code code, int sys, const char *fmt, ...)
{
    char text[sizeof err->msg];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap); /* first aside: an argument may be err->msg itself */
    va_end(ap);
    err->code = code;
    err->sys = sys;
    memcpy(err->msg, text, sizeof text);
    return -1;
}

static enum err_code code_of_errno(int sys)
{
    switch (sys) {
    case ENOENT:
        return ERR_NOT_FOUND;
    case EEXIST:
        return ERR_ALREADY_EXISTS;
    case EACCES:
    case EPERM:
        return ERR_FORBIDDEN;
    case ENOSPC:
    case EDQUOT:
        return ERR_NO_SPACE;
    case ECONNREFUSED:
    case ECONNRESET:
        return ERR_UNAVAILABLE;
    case ETIMEDOUT:
        return ERR_TIMEOUT;
    default:
        return ERR_IO;
    }
}

int err_sys_(struct err *err, const char *fmt, ...)
{
    int sys = errno;
    char text[sizeof err->msg];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set_(err, code_of_errno(sys), sys, "%s: %s", text, strerror(sys));
}

int err_wrap(struct err *err, const char *fmt, ...)
{
    char text[sizeof err->msg];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    return err_set_(err, err->code, err->sys, "%s: %s", text, err->msg);
}

int err_http(enum err_code code)
{
    ASSERT(code < ERR_COUNT);
    return TABLE[code].http;
}

const char *err_reason(enum err_code code)
{
    ASSERT(code < ERR_COUNT);
    return TABLE[code].reason;
}

bool err_retry(enum err_code code)
{
    ASSERT(code < ERR_COUNT);
    return TABLE[code].retry;
}

const char *err_name(enum err_code code)
{
    ASSERT(code < ERR_COUNT);
    return TABLE[code].name;
}
