#include "base/log.h"

#include "base/map.h"

#include <stdarg.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

static const char *part = "tandem";
static const char *const LEVEL[] = {"error", "warn", "info", "debug"};

void log_set_part(const char *name)
{
    part = name;
}

bool log_wants(enum log_level level, const char *room)
{
    static const char *wanted;
    const char *at;
    size_t n = strlen(room);

    if (level != LOG_DEBUG)
        return true;
    if (!wanted) {
        wanted = getenv("TANDEM_DEBUG");
        if (!wanted)
            wanted = "";
    }
    if (streq(wanted, "all"))
        return true;
    for (at = strstr(wanted, room); at; at = strstr(at + 1, room))
        if ((at == wanted || at[-1] == ',') && (!at[n] || at[n] == ','))
            return true;
    return false;
}

void log_line(struct log_site *site, enum log_level level, const char *room, const char *fmt, ...)
{
    char line[2048], stamp[32];
    struct timespec now;
    struct tm tm;
    va_list ap;
    int n, m;
    uint32_t hash, left_out;
    int64_t now_ms;

    clock_gettime(CLOCK_REALTIME, &now);
    now_ms = (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
    gmtime_r(&now.tv_sec, &tm);
    strftime(stamp, sizeof stamp, "%Y-%m-%dT%H:%M:%S", &tm);
    n = snprintf(line, sizeof line, "%s.%03dZ level=%s part=%s room=%s ", stamp,
                 (int)(now.tv_nsec / 1000000), LEVEL[level], part, room);
    va_start(ap, fmt);
    m = vsnprintf(line + n, sizeof line - (size_t)n - 40, fmt, ap);
    va_end(ap);
    hash = str_hash(line + n, strlen(line + n));
    if (hash == site->hash && now_ms - site->last_ms < 1000) {
        site->left_out++;
        return;
    }
    left_out = site->left_out;
    site->hash = hash;
    site->last_ms = now_ms;
    site->left_out = 0;
    n += MIN(m, (int)(sizeof line - (size_t)n - 41));
    for (char *p = line; p < line + n; p++)
        if (*p == '\n')
            *p = ' ';
    if (left_out)
        n += snprintf(line + n, sizeof line - (size_t)n, " left_out=%u", left_out);
    line[n++] = '\n';
    if (write(STDERR_FILENO, line, (size_t)n) < 0)
        return; /* nowhere left to say so */
}
