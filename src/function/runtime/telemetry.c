/* Lambda's Telemetry API (2022-07-01) and the Logs API before it (2020-08-15): what runtime and extensions
 * print and what the platform does, as batches of JSON to extensions that subscribed.
 *
 * Only where there are extensions: then their output and the runtime's comes through pipes of ours, on to
 * the log pipe as it is and, line by line, to subscribers. A subscriber that does not take its batch in time
 * loses it; what waits for one has a limit. */
#include "function/runtime/api_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { SUBS_MAX = 10, SOURCES_MAX = TELEMETRY_SOURCES, LINE_BYTES = 16384, EARLY_BYTES = 65536, SEND_MS = 200 };
enum { PLATFORM = 1, FUNCTION = 2, EXTENSION_LINES = 4 };

static struct sub {
    int types, port, fd; /* fd: of the last batch, until the next one; -1: none */
    bool tcp;
    char path[256];
    struct buf items; /* JSON objects, joined by commas (HTTP) or line ends (TCP) */
    uint32_t items_n, items_max, bytes_max, timeout_ms;
    uint64_t since_us; /* the oldest item */
} subs[SUBS_MAX];
static struct source {
    int fd; /* -1: closed */
    int type;
    struct buf line;
} sources[SOURCES_MAX];
static int subs_n, sources_n;
static struct buf early; /* events of the platform before anybody subscribed, each ended by 0 */

/* ---- batches ---- */

static void deliver(struct sub *s)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)s->port)};
    struct timeval limit = {.tv_usec = SEND_MS * 1000};
    struct buf b = {0};

    if (!s->items_n)
        return;
    if (s->fd >= 0 && !s->tcp)
        close(s->fd), s->fd = -1;
    if (s->tcp) {
        buf_add(&b, s->items.p, s->items.n);
        buf_addc(&b, '\n');
    } else {
        buf_printf(&b, "POST %s HTTP/1.1\r\nHost: sandbox.localdomain:%d\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                       "Connection: close\r\n\r\n[", s->path, s->port, s->items.n + 2);
        buf_add(&b, s->items.p, s->items.n);
        buf_addc(&b, ']');
    }
    if (s->fd < 0) {
        s->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (s->fd >= 0 && (setsockopt(s->fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit) < 0 ||
                           connect(s->fd, (struct sockaddr *)&at, sizeof at) < 0))
            close(s->fd), s->fd = -1;
    }
    for (size_t done = 0; s->fd >= 0 && done < b.n;) {
        ssize_t n = send(s->fd, b.p + done, b.n - done, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            close(s->fd), s->fd = -1;
        else
            done += (size_t)n;
    }
    buf_done(&b);
    buf_reset(&s->items);
    s->items_n = 0;
}

static void add_item(struct sub *s, const char *text, size_t n)
{
    if (s->items_n && s->items.n + n > s->bytes_max)
        deliver(s);
    if (!s->items_n++)
        s->since_us = mono_us();
    else
        buf_addc(&s->items, s->tcp ? '\n' : ',');
    buf_add(&s->items, text, n);
    if (s->items_n >= s->items_max || s->items.n >= s->bytes_max)
        deliver(s);
}

void telemetry_flush(bool all)
{
    for (int i = 0; i < subs_n; i++)
        if (subs[i].items_n && (all || mono_us() - subs[i].since_us >= subs[i].timeout_ms * 1000ull))
            deliver(&subs[i]);
}

int telemetry_next_ms(void)
{
    int next = -1;

    for (int i = 0; i < subs_n; i++)
        if (subs[i].items_n) {
            uint64_t due = subs[i].since_us + subs[i].timeout_ms * 1000ull, now = mono_us();
            int ms = due > now ? (int)((due - now) / 1000) + 1 : 0;

            next = next < 0 ? ms : MIN(next, ms);
        }
    return next;
}

/* ---- events ---- */

static void head(struct buf *b, const char *type)
{
    struct timespec t;
    struct tm tm;
    char text[32];

    clock_gettime(CLOCK_REALTIME, &t);
    gmtime_r(&t.tv_sec, &tm);
    strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &tm);
    buf_printf(b, "{\"time\":\"%s.%03ldZ\",\"type\":\"%s\",\"record\":", text, t.tv_nsec / 1000000, type);
}

void telemetry_event(const char *type, const char *fmt, ...)
{
    struct buf b = {0};
    va_list ap;

    head(&b, type);
    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    buf_addc(&b, '}');
    for (int i = 0; i < subs_n; i++)
        if (subs[i].types & PLATFORM)
            add_item(&subs[i], b.p, b.n);
    if (early.n + b.n < EARLY_BYTES)
        buf_add(&early, b.p, b.n + 1);
    buf_done(&b);
}

void telemetry_closed(void)
{
    buf_done(&early);
    early = (struct buf){.max = 1}; /* nobody subscribes any more */
}

static void add_string(struct buf *b, const char *p, size_t n)
{
    buf_addc(b, '"');
    for (size_t i = 0; i < n; i++)
        if (p[i] == '"' || p[i] == '\\')
            buf_printf(b, "\\%c", p[i]);
        else if ((uint8_t)p[i] < ' ')
            buf_printf(b, "\\u%04x", (uint8_t)p[i]);
        else
            buf_addc(b, p[i]);
    buf_addc(b, '"');
}

static void line(int type, const char *p, size_t n)
{
    struct buf b = {0};
    bool wanted = false;

    for (int i = 0; i < subs_n; i++)
        wanted |= (subs[i].types & type) != 0;
    if (!wanted || !n)
        return;
    head(&b, type == FUNCTION ? "function" : "extension");
    add_string(&b, p, n);
    buf_addc(&b, '}');
    for (int i = 0; i < subs_n; i++)
        if (subs[i].types & type)
            add_item(&subs[i], b.p, b.n);
    buf_done(&b);
}

/* ---- what is printed ---- */

int telemetry_pipe(bool extension)
{
    struct source *s = &sources[sources_n];
    int ends[2];

    if (sources_n == SOURCES_MAX || pipe2(ends, O_CLOEXEC) < 0)
        return -1;
    fcntl(ends[0], F_SETFL, O_NONBLOCK);
    *s = (struct source){.fd = ends[0], .type = extension ? EXTENSION_LINES : FUNCTION};
    sources_n++;
    return ends[1];
}

/* False: nothing (more) there. */
static bool read_source(struct source *s)
{
    char piece[16384], *p = piece;
    ssize_t n = s->fd < 0 ? 0 : read(s->fd, piece, sizeof piece);

    if (n < 0)
        return false;
    if (n == 0) {
        if (s->fd >= 0)
            close(s->fd);
        s->fd = -1;
        return false;
    }
    for (ssize_t done = 0, w; done < n; done += w) { /* to the log as it is */
        w = write(1, piece + done, (size_t)(n - done));
        if (w < 0 && errno == EINTR)
            w = 0;
        else if (w <= 0)
            break;
    }
    while (n > 0) {
        char *end = memchr(p, '\n', (size_t)n);
        size_t part = end ? (size_t)(end - p) : (size_t)n;

        buf_add(&s->line, p, part);
        if (end || s->line.n > LINE_BYTES) {
            line(s->type, s->line.p ? s->line.p : "", s->line.n);
            buf_reset(&s->line);
        }
        p += part + (end != NULL);
        n -= (ssize_t)(part + (end != NULL));
    }
    return true;
}

void telemetry_drain(void)
{
    for (int i = 0; i < sources_n; i++)
        for (int n = 0; n < 64 && read_source(&sources[i]); n++)
            ;
}

int telemetry_poll(struct pollfd *p)
{
    for (int i = 0; i < SOURCES_MAX; i++)
        p[i] = (struct pollfd){i < sources_n ? sources[i].fd : -1, POLLIN, 0};
    return SOURCES_MAX;
}

void telemetry_ready(const struct pollfd *p)
{
    for (int i = 0; i < sources_n; i++)
        if (p[i].revents && p[i].fd == sources[i].fd)
            read_source(&sources[i]);
}

/* ---- subscriptions ---- */

/* Behind `"key":` in the text, or NULL. Names are found wherever they stand: none comes twice in what may be sent. */
static const char *value_of(const char *text, const char *key)
{
    char name[40];
    const char *at;

    snprintf(name, sizeof name, "\"%s\"", key);
    at = strstr(text, name);
    if (!at)
        return NULL;
    at += strlen(name);
    at += strspn(at, " \t\r\n");
    return *at == ':' ? at + 1 + strspn(at + 1, " \t\r\n") : NULL;
}

static bool number_of(const char *text, const char *key, uint32_t min, uint32_t max, uint32_t *ret)
{
    const char *at = value_of(text, key);

    if (!at)
        return true;
    *ret = (uint32_t)MIN(strtoull(at, NULL, 10), (unsigned long long)UINT32_MAX);
    return *ret >= min && *ret <= max;
}

/* NULL, or what is wrong with it. */
static const char *parse(struct sub *s, const char *text)
{
    static const struct {
        const char *name;
        int type;
    } types[] = {{"\"platform\"", PLATFORM}, {"\"function\"", FUNCTION}, {"\"extension\"", EXTENSION_LINES}};
    const char *list = value_of(text, "types"), *end = list ? strchr(list, ']') : NULL, *uri = value_of(text, "URI"), *at;
    const char *protocol = value_of(text, "protocol"), *port = value_of(text, "port");

    if (!list || *list != '[' || !end)
        return "types must be a list";
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if ((at = strstr(list, types[i].name)) && at < end)
            s->types |= types[i].type;
    if (!s->types)
        return "types must name platform, function or extension";
    s->tcp = protocol && str_starts(protocol, "\"TCP\"");
    if (s->tcp) {
        s->port = port ? atoi(port + (*port == '"')) : 0;
    } else {
        if (!uri || (!str_starts(uri, "\"http://sandbox.localdomain:") && !str_starts(uri, "\"http://sandbox:")))
            return "destination.URI must be http://sandbox.localdomain:PORT";
        at = strchr(uri + sizeof "\"http:", ':');
        s->port = at ? atoi(at + 1) : 0;
        at = at ? at + 1 + strspn(at + 1, "0123456789") : "\"";
        snprintf(s->path, sizeof s->path, "%.*s", (int)MIN(strcspn(at, "\"\r\n \\"), sizeof s->path - 1), *at == '/' ? at : "/");
    }
    if (s->port <= 0 || s->port > 65535 || s->port == 9001)
        return "destination has no port that can be used";
    s->items_max = 10000;
    s->bytes_max = 262144;
    s->timeout_ms = 1000;
    if (!number_of(text, "maxItems", 1000, 10000, &s->items_max) || !number_of(text, "maxBytes", 262144, 1048576, &s->bytes_max) ||
        !number_of(text, "timeoutMs", 25, 30000, &s->timeout_ms))
        return "buffering is out of range";
    return NULL;
}

void telemetry_subscribe(struct conn *c, const char *name, bool legacy, bool inited)
{
    struct sub s = {.fd = -1};
    const char *wrong = parse(&s, c->body.n ? c->body.p : "");

    if (inited || subs_n == SUBS_MAX) {
        conn_error(c, 403, "Forbidden", legacy ? "Logs.SubscriptionClosed" : "Telemetry.SubscriptionClosed", "Subscription closed already");
        return;
    }
    if (wrong) {
        conn_error(c, 400, "Bad Request", "ValidationError", wrong);
        return;
    }
    buf_init(&s.items, 2 << 20);
    subs[subs_n] = s;
    if (s.types & PLATFORM)
        for (size_t at = 0; at < early.n; at += strlen(early.p + at) + 1)
            add_item(&subs[subs_n], early.p + at, strlen(early.p + at));
    subs_n++;
    telemetry_event(legacy ? "platform.logsSubscription" : "platform.telemetrySubscription",
                    "{\"name\":\"%s\",\"state\":\"Subscribed\",\"types\":[%s%s%s]}", name, s.types & PLATFORM ? "\"platform\"" : "",
                    s.types & FUNCTION ? (s.types & PLATFORM ? ",\"function\"" : "\"function\"") : "",
                    s.types & EXTENSION_LINES ? (s.types & 3 ? ",\"extension\"" : "\"extension\"") : "");
    conn_answer(c, 200, "OK", "text/plain", "\"OK\"", 4);
}
