/* web.c of zygote.so - see web.h. */
#include "function/runtime/wasm/web.h"

#include "function/runtime/wasm/wasm_so.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

enum { DRAIN_MAX = 1 << 20 /* of a request that nobody read; beyond it the connection goes */ };

static llhttp_settings_t settings;

/* ---- in ---- */

static int on_url(llhttp_t *p, const char *at, size_t n)
{
    struct web *w = p->data;

    buf_add(&w->url, at, n);
    return w->url.over ? HPE_USER : 0;
}

static int on_field(llhttp_t *p, const char *at, size_t n)
{
    struct web *w = p->data;

    buf_add(&w->fields, at, n);
    return w->fields.over ? HPE_USER : 0;
}

static int on_field_end(llhttp_t *p)
{
    struct web *w = p->data;

    if (!w->begun) /* trailers are not kept */
        buf_addc(&w->fields, 0);
    return 0;
}

static int on_name(llhttp_t *p, const char *at, size_t n)
{
    return ((struct web *)p->data)->begun ? 0 : on_field(p, at, n);
}

static int on_head(llhttp_t *p)
{
    ((struct web *)p->data)->begun = true;
    return 0;
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
    buf_add(&((struct web *)p->data)->body, at, n);
    return 0;
}

static int on_complete(llhttp_t *p)
{
    ((struct web *)p->data)->whole = true;
    return HPE_PAUSED;
}

void web_open(struct web *w, int fd)
{
    *w = (struct web){.fd = fd};
    llhttp_settings_init(&settings);
    settings.on_url = on_url;
    settings.on_header_field = settings.on_header_value = on_name;
    settings.on_header_field_complete = settings.on_header_value_complete = on_field_end;
    settings.on_headers_complete = on_head;
    settings.on_body = on_body;
    settings.on_message_complete = on_complete;
    llhttp_init(&w->parser, HTTP_REQUEST, &settings);
    w->parser.data = w;
    w->url.max = w->fields.max = WEB_FIELDS_MAX;
}

void web_close(struct web *w)
{
    if (w->fd >= 0)
        close(w->fd);
    w->fd = -1;
    buf_done(&w->raw);
    buf_done(&w->url);
    buf_done(&w->fields);
    buf_done(&w->body);
}

static void parse(struct web *w, const char *p, size_t n)
{
    llhttp_errno_t e = llhttp_execute(&w->parser, p, n);
    const char *end;

    if (e == HPE_OK)
        return;
    if (e != HPE_PAUSED) { /* an upgrade, too: there is nobody who could take it */
        w->bad = true;
        return;
    }
    end = llhttp_get_error_pos(&w->parser);
    llhttp_resume(&w->parser);
    w->close = !llhttp_should_keep_alive(&w->parser);
    buf_add(&w->raw, end, n - (size_t)(end - p)); /* of the next request */
}

/* True: it can be read or written, or is over; false: the time limit has come. */
static bool wait_for(int fd, short events)
{
    struct pollfd p = {fd, events, 0};

    while (poll(&p, 1, -1) < 0)
        if (errno != EINTR || wasm_late())
            return false;
    return !wasm_late();
}

/* Reads and parses once: 1 something came, 0 nothing at the moment, -1 it is over. */
static int pull(struct web *w, bool wait)
{
    char piece[WEB_PIECE];
    ssize_t n;

    if (w->bad || (wait && !wait_for(w->fd, POLLIN)))
        return -1;
    n = recv(w->fd, piece, sizeof piece, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return 0;
    if (n <= 0) {
        w->bad = true;
        return -1;
    }
    parse(w, piece, (size_t)n);
    return 1;
}

int web_head(struct web *w)
{
    int rc = 0;

    if (w->raw.n) {
        struct buf left = w->raw;

        w->raw = (struct buf){0};
        parse(w, left.p, left.n);
        buf_done(&left);
    }
    while (!w->begun && !w->bad && (rc = pull(w, false)) > 0)
        ;
    if (w->bad && rc >= 0)
        web_refuse(w, 400, "the request is no HTTP that is understood, or its head is too big");
    if (w->bad)
        return -1;
    if (!w->begun)
        return 0;
    buf_addc(&w->url, 0);
    w->url.n--;
    return w->url.over ? -1 : 1;
}

const char *web_field(const struct web *w, const char *name)
{
    for (size_t at = 0; at < w->fields.n;) {
        const char *key = w->fields.p + at, *value = key + strlen(key) + 1;

        if (strcasecmp(key, name) == 0)
            return value;
        at = (size_t)(value - w->fields.p) + strlen(value) + 1;
    }
    return NULL;
}

int web_read(struct web *w, void *p, size_t n, bool wait)
{
    while (!w->body.n && !w->whole) {
        int rc = pull(w, wait);

        if (w->bad || rc < 0)
            return w->body.n ? 0 : -2;
        if (rc == 0 && !wait)
            return 0;
    }
    if (!w->body.n)
        return -1;
    n = MIN(n, w->body.n);
    memcpy(p, w->body.p, n);
    buf_eat(&w->body, n);
    return (int)n;
}

bool web_readable(struct web *w)
{
    while (!w->body.n && !w->whole && !w->bad)
        if (pull(w, false) == 0)
            return false;
    return true;
}

/* ---- out ---- */

static bool send_all(struct web *w, struct iovec *v, size_t n)
{
    struct msghdr m = {.msg_iov = v, .msg_iovlen = n};

    while (m.msg_iovlen) {
        ssize_t sent = sendmsg(w->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);

        if (sent < 0 && (errno == EAGAIN || errno == EINTR)) {
            if (!wait_for(w->fd, POLLOUT))
                return false;
            continue;
        }
        if (sent < 0)
            return false;
        while (m.msg_iovlen && (size_t)sent >= m.msg_iov->iov_len) {
            sent -= (ssize_t)m.msg_iov->iov_len;
            m.msg_iov++;
            m.msg_iovlen--;
        }
        if (m.msg_iovlen) {
            m.msg_iov->iov_base = (char *)m.msg_iov->iov_base + sent;
            m.msg_iov->iov_len -= (size_t)sent;
        }
    }
    return true;
}

bool web_answer(struct web *w, int status, const char *fields, size_t n, int64_t length)
{
    char line[64], more[64] = "\r\n";
    struct iovec v[3];

    w->answered = true;
    w->bodiless = w->parser.method == HTTP_HEAD || status == 204 || status == 304 || status < 200;
    w->counted = length >= 0;
    w->left = length >= 0 ? (uint64_t)length : 0;
    w->chunked = length < 0 && !w->bodiless;
    snprintf(line, sizeof line, "HTTP/1.1 %d %s\r\n", status, status == 200 ? "OK" : "-");
    if (w->chunked)
        snprintf(more, sizeof more, "transfer-encoding: chunked\r\n\r\n");
    else if (length >= 0 && status != 204 && status != 304 && status >= 200)
        snprintf(more, sizeof more, "content-length: %llu\r\n\r\n", (unsigned long long)length);
    v[0] = (struct iovec){line, strlen(line)};
    v[1] = (struct iovec){(void *)fields, n};
    v[2] = (struct iovec){more, strlen(more)};
    return send_all(w, v, ARRAY_LEN(v));
}

bool web_say(struct web *w, const char *p, size_t n)
{
    char head[24];
    struct iovec v[3] = {{head, 0}, {(void *)p, n}, {"\r\n", 2}};

    if (!n)
        return true;
    if (w->counted && n > w->left)
        return false;
    w->left -= w->counted ? n : 0;
    if (w->bodiless)
        return true;
    if (!w->chunked)
        return send_all(w, v + 1, 1);
    v[0].iov_len = (size_t)snprintf(head, sizeof head, "%zx\r\n", n);
    return send_all(w, v, 3);
}

bool web_end(struct web *w, const char *trailers, size_t n)
{
    struct iovec v[3] = {{"0\r\n", 3}, {(void *)trailers, n}, {"\r\n", 2}};
    size_t dropped = 0;
    char piece[4096];
    int rc;

    if (w->counted && w->left && !w->bodiless)
        return false;
    if (w->chunked && !send_all(w, v, 3))
        return false;
    while (dropped < DRAIN_MAX && (rc = web_read(w, piece, sizeof piece, false)) > 0)
        dropped += (size_t)rc;
    if (!w->whole || w->close || w->bad)
        return false;
    buf_reset(&w->url);
    buf_reset(&w->fields);
    buf_reset(&w->body);
    w->begun = w->whole = w->answered = w->chunked = false;
    return true;
}

bool web_refuse(struct web *w, int status, const char *text)
{
    static const char TYPE[] = "content-type: text/plain\r\n";

    return web_answer(w, status, TYPE, sizeof TYPE - 1, (int64_t)strlen(text)) && web_say(w, text, strlen(text)) && web_end(w, "", 0);
}
