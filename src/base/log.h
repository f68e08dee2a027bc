/* base/log.h - one event, one line, key=value, to standard error.
 *
 * LOG(INFO, "node", "pod=%s did=started us=%d", ...). error = somebody must act; warn = we went
 * on, and the line says how; info = life cycle; debug = by room (TANDEM_DEBUG=room,room or all).
 * Values that may hold blanks are written with log_quote(). The same line from the same place
 * comes at most once a second; the next one says how many were left out. */
#pragma once

#include "base/base.h"

enum log_level { LOG_ERROR, LOG_WARN, LOG_INFO, LOG_DEBUG };

struct log_site {
    uint32_t hash, left_out;
    int64_t last_ms;
};

void log_line(struct log_site *site, enum log_level level, const char *room, const char *fmt, ...)
    _printf_(4, 5);
bool log_wants(enum log_level level, const char *room);
/* Which part writes (server, node, gateway, ...), put into every line; not copied. */
void log_set_part(const char *part);

#define LOG(level, room, ...)                                                                      \
    do {                                                                                           \
        static struct log_site _site;                                                              \
        if (LOG_##level != LOG_DEBUG || log_wants(LOG_DEBUG, room))                                \
            log_line(&_site, LOG_##level, room, __VA_ARGS__);                                      \
    } while (0)
