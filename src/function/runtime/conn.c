/* HTTP connections of the runtime and its extensions: bytes to requests and back. What a request
 * means is api.c's. Heads, fields and bodies have limits; a connection beyond them is cut. */
#include "function/runtime/api_int.h"

#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

struct conn conns[CONNS_MAX];
int conns_n = CONNS_FEW;
static int listener = -1;
static llhttp_settings_t settings;

/* ---- answers ---- */

void conn_answer(struct conn *c, int status, const char *word, const char *type, const char *body, size_t n)
{
    buf_printf(&c->out, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%s\r\n", status, word, type, n,
               c->close ? "Connection: close\r\n" : "");
    buf_add(&c->out, body, n);
}

void conn_error(struct conn *c, int status, const char *word, const char *type, const char *message)
{
    char text[400];
    int n = snprintf(text, sizeof text, "{\"errorMessage\":\"%s\",\"errorType\":\"%s\"}", message, type);

    conn_answer(c, status, word, "application/json", text, (size_t)n);
}

void conn_accepted(struct conn *c)
{
    static const char OK[] = "{\"status\":\"OK\"}\n";

    conn_answer(c, 202, "Accepted", "application/json", OK, sizeof OK - 1);
}

void conn_header(struct buf *b, const char *name, const char *value, size_t n)
{
    if (!n)
        return;
    buf_printf(b, "%s: ", name);
    for (size_t i = 0; i < n; i++)
        buf_addc(b, (uint8_t)value[i] < ' ' || value[i] == 0x7f ? ' ' : value[i]);
    buf_adds(b, "\r\n");
}

const char *conn_field(const struct conn *c, const char *name)
{
    const char *found = NULL;

    for (size_t at = 0; at < c->fields.n;) {
        const char *key = c->fields.p + at, *value = key + strlen(key) + 1;

        if (value > c->fields.p + c->fields.n)
            break;
        if (strcasecmp(key, name) == 0)
            found = value;
        at = (size_t)(value - c->fields.p) + strlen(value) + 1;
    }
    return found;
}

/* ---- requests ---- */

static int on_url(llhttp_t *p, const char *at, size_t n)
{
    struct conn *c = p->data;

    if (c->url.n + n > HEAD_MAX)
        return HPE_USER;
    buf_add(&c->url, at, n);
    return 0;
}

static int on_field(llhttp_t *p, const char *at, size_t n)
{
    struct conn *c = p->data;

    if (c->fields.n + n > FIELDS_MAX)
        return HPE_USER;
    buf_add(&c->fields, at, n);
    return 0;
}

static int on_field_end(llhttp_t *p)
{
    buf_addc(&((struct conn *)p->data)->fields, 0);
    return 0;
}

static int on_head(llhttp_t *p)
{
    struct conn *c = p->data;

    buf_addc(&c->url, 0);
    api_head(c);
    return 0;
}

static int on_body(llhttp_t *p, const char *at, size_t n)
{
    struct conn *c = p->data;

    if (c->stream) {
        api_stream(c, at, n);
        return 0;
    }
    c->too_large |= c->body.n + n > BODY_MAX;
    if (!c->too_large)
        buf_add(&c->body, at, n);
    return 0;
}

static int on_complete(llhttp_t *p)
{
    ((struct conn *)p->data)->whole = true;
    return HPE_PAUSED;
}

static void conn_close(struct conn *c)
{
    if (c->stream)
        api_stream_broken(c);
    if (c->ext)
        ext_conn_gone(c);
    close(c->fd);
    buf_done(&c->url);
    buf_done(&c->fields);
    buf_done(&c->body);
    buf_done(&c->out);
    *c = (struct conn){.fd = -1};
}

static void conn_new(void)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd < 0)
        return;
    for (int i = 0; i < conns_n; i++)
        if (conns[i].fd < 0) {
            struct conn *c = &conns[i];

            *c = (struct conn){.fd = fd};
            llhttp_init(&c->parser, HTTP_REQUEST, &settings);
            c->parser.data = c;
            return;
        }
    close(fd);
}

void conn_write(struct conn *c)
{
    while (c->out_at < c->out.n) {
        ssize_t n = send(c->fd, c->out.p + c->out_at, c->out.n - c->out_at, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN)
            return;
        if (n <= 0) {
            conn_close(c);
            return;
        }
        c->out_at += (size_t)n;
    }
    c->out_at = 0;
    buf_reset(&c->out);
    if (c->close && !c->waiting && !c->ext)
        conn_close(c);
}

/* One request after the other; a second one behind it in the same bytes is parsed when its turn comes. */
static bool conn_feed(struct conn *c, const char *p, size_t n)
{
    while (n) {
        llhttp_errno_t e = llhttp_execute(&c->parser, p, n);
        const char *end = p + n;

        if (e != HPE_OK && e != HPE_PAUSED && e != HPE_PAUSED_UPGRADE)
            return false;
        if (!c->whole)
            return e == HPE_OK;
        end = llhttp_get_error_pos(&c->parser);
        llhttp_resume(&c->parser);
        c->close = !llhttp_should_keep_alive(&c->parser);
        api_request(c);
        c->whole = c->too_large = false;
        c->stream = NULL;
        buf_reset(&c->url);
        buf_reset(&c->fields);
        buf_reset(&c->body);
        n -= (size_t)(end - p);
        p = end;
    }
    return true;
}

static void conn_read(struct conn *c)
{
    char piece[65536];
    ssize_t n = read(c->fd, piece, sizeof piece);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0 || !conn_feed(c, piece, (size_t)n)) {
        conn_close(c);
        return;
    }
    conn_write(c);
}

void conns_flush(void)
{
    for (int i = 0; i < conns_n; i++)
        if (conns[i].fd >= 0 && conns[i].out.n)
            conn_write(&conns[i]);
}

int conns_poll(struct pollfd *p)
{
    bool held = api_held_back();

    for (int i = 0; i < conns_n; i++) {
        short want = (short)((conns[i].stream && held ? 0 : POLLIN) | (conns[i].out.n ? POLLOUT : 0));

        p[i] = (struct pollfd){conns[i].fd, want, 0};
    }
    p[conns_n] = (struct pollfd){listener, POLLIN, 0};
    return conns_n + 1;
}

void conns_ready(const struct pollfd *p)
{
    for (int i = 0; i < conns_n; i++) {
        struct conn *c = &conns[i];

        if (c->fd >= 0 && c->fd == p[i].fd && (p[i].revents & POLLOUT))
            conn_write(c);
        if (c->fd >= 0 && c->fd == p[i].fd && (p[i].revents & (POLLIN | POLLHUP | POLLERR)))
            conn_read(c);
    }
    if (p[conns_n].revents & POLLIN)
        conn_new();
}

int conns_open(int places)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(9001)};
    socklen_t n = sizeof at;

    conns_n = MIN(places + CONNS_FEW, (int)CONNS_MAX);
    llhttp_settings_init(&settings);
    settings.on_url = on_url;
    settings.on_header_field = settings.on_header_value = on_field;
    settings.on_header_field_complete = settings.on_header_value_complete = on_field_end;
    settings.on_headers_complete = on_head;
    settings.on_body = on_body;
    settings.on_message_complete = on_complete;
    for (int i = 0; i < conns_n; i++)
        conns[i].fd = -1;
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (listener < 0)
        return -1;
    if (bind(listener, (struct sockaddr *)&at, sizeof at) < 0) { /* shared with others: any port */
        at.sin_port = 0;
        if (bind(listener, (struct sockaddr *)&at, sizeof at) < 0)
            return -1;
    }
    if (listen(listener, conns_n) < 0 || getsockname(listener, (struct sockaddr *)&at, &n) < 0)
        return -1;
    return ntohs(at.sin_port);
}
