/* http/req.c - a request as handlers see it: names and values, the body on its way in, the answer on its
 * way out. What differs between HTTP/1.1 and HTTP/2 is behind struct req_ops. */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>
#include <sys/uio.h>
#include <unistd.h>

#include "http/http_int.h"

#define REQ(r) container_of((r), struct req, pub)
#define CREQ(r) ((const struct req *)(const void *)(r)) /* pub is the first member */

/* ---- headers ---- */

void hdrs_add(struct hdrs *h, struct arena *a, const char *name, const char *value)
{
    if (h->n == h->cap) {
        size_t cap = h->cap ? h->cap * 2 : 16;
        struct http_header *more = arena_raw(a, cap * sizeof *more);

        if (h->n)
            memcpy(more, h->h, h->n * sizeof *more);
        h->h = more;
        h->cap = cap;
    }
    h->h[h->n++] = (struct http_header){name, value};
}

const char *http_get_next(const struct http_req *req, const char *name, size_t *i)
{
    while (*i < req->headers_n) {
        const struct http_header *h = &req->headers[(*i)++];

        if (strcasecmp(h->name, name) == 0)
            return h->value;
    }
    return NULL;
}

const char *http_get(const struct http_req *req, const char *name)
{
    size_t i = 0;

    return http_get_next(req, name, &i);
}

bool http_has_token(const struct http_req *req, const char *name, const char *token)
{
    size_t i = 0, n = strlen(token);
    const char *v;

    while ((v = http_get_next(req, name, &i)))
        while (*v) {
            size_t len;

            v += strspn(v, ", \t");
            len = strcspn(v, ",; \t");
            if (len == n && strncasecmp(v, token, n) == 0)
                return true;
            v += len;
            v += strcspn(v, ",");
        }
    return false;
}

/* ---- escapes and parameters ---- */

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : (c | 32) >= 'a' && (c | 32) <= 'f' ? (c | 32) - 'a' + 10 : -1;
}

char *http_unescape(struct arena *a, const char *s, size_t n, bool plus)
{
    char *out = arena_raw(a, n + 1), *o = out;

    for (size_t i = 0; i < n; i++) {
        char c = s[i];

        if (c == '%') {
            if (i + 2 >= n || hex(s[i + 1]) < 0 || hex(s[i + 2]) < 0)
                return NULL;
            c = (char)(hex(s[i + 1]) << 4 | hex(s[i + 2]));
            i += 2;
        } else if (c == '+' && plus) {
            c = ' ';
        }
        if (!c)
            return NULL;
        *o++ = c;
    }
    *o = 0;
    return out;
}

char *http_escape(struct arena *a, const char *s, const char *keep)
{
    static const char digits[] = "0123456789ABCDEF";
    char *out = arena_raw(a, strlen(s) * 3 + 1), *o = out;

    for (; *s; s++) {
        unsigned char c = (unsigned char)*s;

        if ((c >= '0' && c <= '9') || ((c | 32) >= 'a' && (c | 32) <= 'z') ||
            strchr("-._~", c) || (keep && strchr(keep, c))) {
            *o++ = (char)c;
        } else {
            *o++ = '%';
            *o++ = digits[c >> 4];
            *o++ = digits[c & 15];
        }
    }
    *o = 0;
    return out;
}

bool http_form_next(struct arena *a, const char *s, size_t n, size_t *i, const char **ret_name,
                    const char **ret_value)
{
    while (*i < n) {
        const char *p = s + *i, *end = memchr(p, '&', n - *i), *eq;
        char *name, *value;

        if (!end)
            end = s + n;
        *i = (size_t)(end - s) + 1;
        if (end == p)
            continue;
        eq = memchr(p, '=', (size_t)(end - p));
        name = http_unescape(a, p, (size_t)((eq ? eq : end) - p), true);
        value = eq ? http_unescape(a, eq + 1, (size_t)(end - eq - 1), true) : arena_strdup(a, "");
        if (!name || !value)
            continue;
        *ret_name = name;
        *ret_value = value;
        return true;
    }
    return false;
}

static void params_make(struct req *r)
{
    const char *name, *value;
    size_t n = strlen(r->pub.query);

    r->params_made = true;
    for (size_t i = 0; http_form_next(r->pub.arena, r->pub.query, n, &i, &name, &value);)
        hdrs_add(&r->params, r->pub.arena, name, value);
}

const char *http_param(struct http_req *req, const char *name)
{
    struct req *r = REQ(req);

    if (!r->params_made)
        params_make(r);
    for (size_t i = 0; i < r->params.n; i++)
        if (streq(r->params.h[i].name, name))
            return r->params.h[i].value;
    return NULL;
}

bool http_param_next(struct http_req *req, size_t *i, const char **ret_name, const char **ret_value)
{
    struct req *r = REQ(req);

    if (!r->params_made)
        params_make(r);
    if (*i >= r->params.n)
        return false;
    *ret_name = r->params.h[*i].name;
    *ret_value = r->params.h[*i].value;
    ++*i;
    return true;
}

/* ---- life ---- */

struct req *req_new(struct conn *c, const struct req_ops *ops)
{
    struct http_server *s = c->s;
    struct arena *a = s->spare_n ? s->spare[--s->spare_n] : arena_new();
    struct req *r = arena_new_of(a, struct req);

    r->ops = ops;
    r->conn = c;
    r->pub.arena = a;
    r->pub.peer = &c->peer;
    r->pub.server = s;
    r->pub.query = r->pub.host = "";
    c->refs++;
    list_push(&c->reqs, &r->link);
    return r;
}

void req_free(struct req *r)
{
    struct conn *c = r->conn;
    struct arena *a = r->pub.arena;

    list_remove(&r->link);
    list_remove(&r->kick);
    chunks_drop(c->io.turn, &r->q);
    buf_done(&r->held);
    buf_done(&r->all);
    if (c->s)
        c->s->bodies -= r->body_held;
    if (c->s && c->s->spare_n < ARRAY_LEN(c->s->spare) && arena_bytes(a) < 65536) {
        struct http_server *s = c->s;

        arena_reset(a);
        s->spare[s->spare_n++] = a;
    } else {
        arena_free(a);
    }
    conn_unref(c);
}

static bool split_target(struct req *r)
{
    struct http_req *q = &r->pub;
    const char *t = q->target, *path = t, *mark;

    if (streq(q->method, "CONNECT")) {
        q->raw_path = q->path = t;
        return true;
    }
    if (*t != '/' && !streq(t, "*")) { /* absolute form: the authority in it wins */
        const char *host = strstr(t, "://"), *slash;

        if (!host)
            return false;
        host += 3;
        slash = host + strcspn(host, "/?");
        q->host = arena_strndup(q->arena, host, (size_t)(slash - host));
        path = *slash == '/' ? slash : arena_printf(q->arena, "/%s", slash);
        q->target = path;
    }
    mark = strchr(path, '?');
    q->raw_path = mark ? arena_strndup(q->arena, path, (size_t)(mark - path)) : path;
    q->query = mark ? mark + 1 : "";
    q->path = strchr(q->raw_path, '%')
                  ? http_unescape(q->arena, q->raw_path, strlen(q->raw_path), false)
                  : q->raw_path;
    return q->path != NULL;
}

bool req_ready(struct req *r)
{
    struct http_req *q = &r->pub;
    const char *v;

    q->headers = r->in.h;
    q->headers_n = r->in.n;
    if (!*q->host && (v = http_get(q, "host")))
        q->host = v;
    if (!split_target(r))
        return false;
    r->head_only = streq(q->method, "HEAD");
    v = http_get(q, "expect");
    r->expect = v && strcasecmp(v, "100-continue") == 0 && q->version >= 11;
    q->start_ns = uv_hrtime();
    return true;
}

void req_dispatch(struct req *r)
{
    struct http_server *s = r->conn->s;

    r->given = true;
    s->o.on_request(&r->pub, s->o.arg);
}

/* ---- body in ----
 * Bytes come in by req_body_in(). They are handed on at once when somebody wants them, else they are
 * held and the protocol is told to stop (flow); what is held is handed over from the loop (kick).
 * A handler may finish the request inside any callback: nothing here touches it after one. */

static void body_tell(struct req *r)
{
    struct http_req *q = &r->pub;

    if (r->body_told || r->finished || r->mode == BODY_NONE || (!r->body_done && !r->body_err))
        return;
    if (r->held.n && !r->body_err)
        return;
    if (r->paused && !r->body_err)
        return;
    r->body_told = true;
    if (r->mode == BODY_STREAM) {
        r->on_end(q, r->body_err, r->body_arg);
    } else if (r->body_err) {
        r->on_body(q, NULL, 0, r->body_err, r->body_arg);
    } else {
        size_t n = r->all.n;
        char *p = n ? buf_take(&r->all) : arena_strdup(q->arena, "");

        if (n)
            arena_pin(q->arena, free, p);
        r->on_body(q, p, n, NULL, r->body_arg);
    }
}

static void too_large(struct req *r)
{
    struct err err = {0};

    err_set(&err, TOO_LARGE, "the request body is over the limit of %zu bytes", r->body_max);
    buf_done(&r->all);
    req_body_fail(r, &err);
}

/* Many clients that send the largest body that is allowed must not fill the memory together. */
static bool body_fits(struct req *r, size_t n)
{
    struct http_server *s = r->conn->s;
    struct err err = {0};

    if (!s)
        return true;
    if (s->bodies + n <= s->o.bodies_bytes_max) {
        s->bodies += n;
        r->body_held += n;
        return true;
    }
    err_set(&err, UNAVAILABLE, "too many request bodies at once");
    buf_done(&r->all);
    req_body_fail(r, &err);
    return false;
}

/* r may be freed when it returns: the handler may finish the request inside. */
static void body_hand(struct req *r, const char *p, size_t n)
{
    r->ops->credit(r, n);
    if (r->body_told || r->finished)
        return;
    if (r->mode == BODY_STREAM) {
        r->on_data(&r->pub, p, n, r->body_arg);
        return;
    }
    if (r->all.n + n > r->body_max)
        too_large(r);
    else if (body_fits(r, n))
        buf_add(&r->all, p, n);
}

void req_body_in(struct req *r, const char *p, size_t n)
{
    if (r->finished || r->body_told) {
        r->ops->credit(r, n);
        return;
    }
    if (r->mode == BODY_NONE || r->paused || r->held.n) {
        buf_add(&r->held, p, n);
        r->ops->flow(r, false);
        return;
    }
    body_hand(r, p, n);
}

void req_body_end(struct req *r)
{
    r->body_done = true;
    body_tell(r);
}

void req_body_fail(struct req *r, const struct err *err)
{
    if (r->body_err || r->body_told || r->body_done)
        return;
    r->body_err = arena_memdup(r->pub.arena, err, sizeof *err);
    buf_reset(&r->held);
    body_tell(r);
}

static void kick(struct req *r)
{
    if (r->gone || r->finished)
        return;
    if (!list_linked(&r->kick))
        list_push(&r->conn->kicked, &r->kick);
    io_dirty(&r->conn->io);
}

void req_kicked(struct req *r)
{
    if (r->drain_due) {
        r->drain_due = false;
        req_drained(r);
    }
    if (r->finished || r->paused || r->mode == BODY_NONE)
        return;
    if (r->held.n && !r->body_err) {
        struct buf b = r->held;
        struct list alive; /* r stays linked here while it lives */

        r->held = (struct buf){0};
        list_init(&alive);
        list_push(&alive, &r->kick);
        body_hand(r, b.p, b.n);
        buf_done(&b);
        if (list_empty(&alive))
            return;
        list_remove(&r->kick);
        if (r->finished)
            return;
    }
    if (!r->paused && !r->body_done && !r->body_err)
        r->ops->flow(r, true);
    body_tell(r);
}

/* The handler said what it wants with the body. */
static void body_begin(struct req *r)
{
    if (r->gone && !r->body_done && !r->body_err) {
        struct err err = {0};

        err_set(&err, CANCELLED, "the client went away");
        r->body_err = arena_memdup(r->pub.arena, &err, sizeof err);
    }
    if (r->pub.body_bytes == 0)
        r->body_done = true;
    if (!r->body_done && !r->body_err && r->mode == BODY_COLLECT &&
        r->pub.body_bytes > (int64_t)r->body_max) {
        too_large(r);
        return;
    }
    if (r->body_err || (r->body_done && !r->held.n)) {
        body_tell(r);
        return;
    }
    if (r->expect && !r->started && !r->held.n && !r->body_done) {
        r->expect = false;
        r->ops->go_on(r);
    }
    if (r->held.n)
        kick(r);
    else
        r->ops->flow(r, true);
}

void http_body(struct http_req *req, size_t max_bytes,
               void (*cb)(struct http_req *req, char *data, size_t n, const struct err *err,
                          void *arg),
               void *arg)
{
    struct req *r = REQ(req);

    ASSERT(r->mode == BODY_NONE && !r->finished);
    r->mode = BODY_COLLECT;
    r->body_max = max_bytes ? max_bytes : r->conn->s ? r->conn->s->o.body_bytes_max : 0;
    r->on_body = cb;
    r->body_arg = arg;
    body_begin(r);
}

void http_body_stream(struct http_req *req,
                      void (*on_data)(struct http_req *req, const char *data, size_t n, void *arg),
                      void (*on_end)(struct http_req *req, const struct err *err, void *arg),
                      void *arg)
{
    struct req *r = REQ(req);

    ASSERT(r->mode == BODY_NONE && !r->finished);
    r->mode = BODY_STREAM;
    r->on_data = on_data;
    r->on_end = on_end;
    r->body_arg = arg;
    body_begin(r);
}

void http_body_pause(struct http_req *req)
{
    struct req *r = REQ(req);

    if (r->paused || r->body_told || r->finished)
        return;
    r->paused = true;
    if (!r->body_done && !r->gone)
        r->ops->flow(r, false);
}

void http_body_resume(struct http_req *req)
{
    struct req *r = REQ(req);

    if (!r->paused)
        return;
    r->paused = false;
    kick(r);
}

static void file_cut(struct req *r);

void req_gone(struct req *r)
{
    struct err err = {0};
    struct conn *c = r->conn;
    struct list alive; /* r stays linked here while it lives */

    if (r->gone)
        return;
    r->gone = true;
    list_remove(&r->link);
    list_remove(&r->kick);
    chunks_drop(c->io.turn, &r->q);
    if (r->finished || (c->s && !r->given)) { /* not given: its head was never whole */
        req_free(r);
        return;
    }
    list_init(&alive);
    list_push(&alive, &r->link);
    c->refs++;
    err_set(&err, CANCELLED, "the client went away");
    req_body_fail(r, &err);
    if (!list_empty(&alive) && r->file) {
        file_cut(r);
    } else if (!list_empty(&alive) && !r->close_told && r->on_close) {
        r->close_told = true;
        r->on_close(&r->pub, r->close_arg);
    }
    if (!list_empty(&alive))
        list_remove(&r->link);
    conn_unref(c);
}

void req_drained(struct req *r)
{
    if (r->on_drain && !r->finished && r->started)
        r->on_drain(&r->pub, r->drain_arg);
}

/* ---- answer ---- */

static const char *clean(struct arena *a, const char *s)
{
    char *c = arena_strdup(a, s);

    for (char *p = c; *p; p++)
        if ((unsigned char)*p < 32 && *p != '\t')
            *p = '?';
    return c;
}

static bool is_ours(const char *name)
{
    static const char *const ours[] = {"content-length", "transfer-encoding", "connection",
                                       "keep-alive", "upgrade"};

    for (size_t i = 0; i < ARRAY_LEN(ours); i++)
        if (strcasecmp(ours[i], name) == 0)
            return true;
    return false;
}

void http_header(struct http_req *req, const char *name, const char *value)
{
    struct req *r = REQ(req);

    ASSERT(!r->started && !r->finished);
    if (is_ours(name) || !*name)
        return;
    if (strcasecmp(name, "date") == 0)
        r->has_date = true;
    hdrs_add(&r->out, req->arena, clean(req->arena, name), clean(req->arena, value));
}

void http_headerf(struct http_req *req, const char *name, const char *fmt, ...)
{
    char text[4096];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    http_header(req, name, text);
}

void http_trailer(struct http_req *req, const char *name, const char *value)
{
    struct req *r = REQ(req);

    hdrs_add(&r->trailers, req->arena, clean(req->arena, name), clean(req->arena, value));
}

void http_start(struct http_req *req, int status, int64_t length)
{
    struct req *r = REQ(req);

    ASSERT(!r->started && !r->finished && status >= 200 && status < 600);
    r->started = true;
    r->status = status;
    r->no_body = r->head_only || status == 204 || status == 304;
    r->out_length = status == 204 ? -1 : length;
    if (!r->gone)
        r->ops->start(r);
}

/* How many of n bytes may go out; a body longer than its length is cut. */
static size_t may_write(struct req *r, size_t n)
{
    ASSERT(r->started && !r->finished);
    if (r->gone || r->no_body)
        return 0;
    if (r->out_length >= 0)
        n = MIN(n, (size_t)(r->out_length - r->out_bytes));
    r->out_bytes += (int64_t)n;
    return n;
}

void http_write(struct http_req *req, const void *p, size_t n)
{
    struct req *r = REQ(req);

    n = may_write(r, n);
    if (n)
        r->ops->write(r, p, n);
}

void http_write_obj(struct http_req *req, const void *p, size_t n, void (*release)(void *),
                    void *arg)
{
    struct req *r = REQ(req);

    n = may_write(r, n);
    if (n >= 4096) {
        r->ops->borrow(r, p, n, release, arg);
        return;
    }
    if (n)
        r->ops->write(r, p, n);
    if (release)
        release(arg);
}

void http_end(struct http_req *req)
{
    struct req *r = REQ(req);

    ASSERT(r->started && !r->finished && !r->file);
    if (!r->gone && !r->no_body && r->out_length >= 0 && r->out_bytes < r->out_length) {
        http_abort(req); /* a body cut short must not look whole */
        return;
    }
    r->finished = true;
    if (r->gone)
        req_free(r);
    else
        r->ops->end(r);
}

void http_abort(struct http_req *req)
{
    struct req *r = REQ(req);

    ASSERT(!r->finished);
    r->finished = true;
    if (r->gone)
        req_free(r);
    else
        r->ops->abort(r);
}

void http_reply_obj(struct http_req *req, int status, const char *content_type, const void *body,
                    size_t n, void (*release)(void *), void *arg)
{
    if (content_type)
        http_header(req, "Content-Type", content_type);
    http_start(req, status, (int64_t)n);
    http_write_obj(req, body, n, release, arg);
    http_end(req);
}

void http_reply(struct http_req *req, int status, const char *content_type, const void *body,
                size_t n)
{
    if (content_type)
        http_header(req, "Content-Type", content_type);
    http_start(req, status, (int64_t)n);
    http_write(req, body, n);
    http_end(req);
}

void http_reply_str(struct http_req *req, int status, const char *content_type, const char *body)
{
    http_reply(req, status, content_type, body, strlen(body));
}

bool http_started(const struct http_req *req)
{
    return CREQ(req)->started;
}

bool http_gone(const struct http_req *req)
{
    const struct req *r = CREQ(req);

    return r->gone || r->conn->io.closing || r->conn->io.failed;
}

size_t http_queued_bytes(const struct http_req *req)
{
    const struct req *r = CREQ(req);

    return r->gone ? 0 : r->ops->queued(r);
}

void http_on_drain(struct http_req *req, void (*cb)(struct http_req *req, void *arg), void *arg)
{
    REQ(req)->on_drain = cb;
    REQ(req)->drain_arg = arg;
}

void http_on_close(struct http_req *req, void (*cb)(struct http_req *req, void *arg), void *arg)
{
    REQ(req)->on_close = cb;
    REQ(req)->close_arg = arg;
}

/* ---- a file as the body ---- */

enum { FILE_PIECE = 262144 };

struct file_job {
    struct req *r;
    int fd;
    uint64_t off, left;
    char *piece;
    size_t piece_n;
    uv_fs_t fs;
    uv_buf_t buf;
    void (*done)(struct http_req *, bool, void *);
    void *arg;
    void (*drain)(struct http_req *, void *); /* the handler's, put back at the end */
    void *drain_arg;
    bool reading;
};

static void file_go(struct file_job *j);

static void file_done(struct file_job *j, bool ok)
{
    struct req *r = j->r;
    void (*done)(struct http_req *, bool, void *) = j->done;
    void *arg = j->arg;

    r->file = NULL;
    r->on_drain = j->drain;
    r->drain_arg = j->drain_arg;
    close(j->fd);
    free(j->piece);
    free(j);
    if (done)
        done(&r->pub, ok, arg);
    else if (ok)
        http_end(&r->pub);
    else
        http_abort(&r->pub);
}

static void file_got(struct file_job *j, ssize_t n)
{
    char *piece = STEAL(j->piece);

    if (n <= 0) { /* an error, or the file became shorter */
        free(piece);
        file_done(j, false);
        return;
    }
    j->off += (uint64_t)n;
    j->left -= (uint64_t)n;
    http_write_obj(&j->r->pub, piece, (size_t)n, free, piece);
}

static void file_read(uv_fs_t *fs)
{
    struct file_job *j = fs->data;
    ssize_t n = fs->result;

    uv_fs_req_cleanup(fs);
    j->reading = false;
    file_got(j, n);
    if (n > 0)
        file_go(j);
}

static void file_drain(struct http_req *req, void *arg)
{
    (void)req;
    file_go(arg);
}

/* What lies in the page cache is read here and now; only a read that would wait for the disk
 * costs a trip to another thread. */
static void file_go(struct file_job *j)
{
    struct req *r = j->r;

    while (!j->reading) {
        struct iovec v;
        ssize_t n;

        if (r->gone) {
            file_done(j, false);
            return;
        }
        if (!j->left || r->no_body) {
            file_done(j, true);
            return;
        }
        if (http_queued_bytes(&r->pub) > FILE_PIECE)
            return; /* goes on when it drained */
        j->piece_n = (size_t)MIN(j->left, (uint64_t)FILE_PIECE);
        j->piece = xmalloc(j->piece_n);
        v = (struct iovec){j->piece, j->piece_n};
        n = preadv2(j->fd, &v, 1, (off_t)j->off, RWF_NOWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EOPNOTSUPP || errno == EINTR)) {
            j->reading = true;
            j->fs.data = j;
            j->buf = uv_buf_init(j->piece, (unsigned)j->piece_n);
            uv_fs_read(r->conn->io.turn->loop, &j->fs, j->fd, &j->buf, 1, (int64_t)j->off,
                       file_read);
            return;
        }
        file_got(j, n);
        if (n <= 0)
            return;
    }
}

/* The client went away: a read under way finds out by itself. */
static void file_cut(struct req *r)
{
    if (!r->file->reading)
        file_done(r->file, false);
}

void http_write_file(struct http_req *req, int fd, uint64_t off, uint64_t n,
                     void (*done)(struct http_req *req, bool ok, void *arg), void *arg)
{
    struct req *r = REQ(req);
    struct file_job *j = xcalloc(1, sizeof *j);

    ASSERT(r->started && !r->file);
    *j = (struct file_job){.r = r, .fd = fd, .off = off, .left = n, .done = done, .arg = arg,
                           .drain = r->on_drain, .drain_arg = r->drain_arg};
    r->file = j;
    r->on_drain = file_drain;
    r->drain_arg = j;
    file_go(j);
}

const char *http_status_text(int status)
{
    static const struct {
        int status;
        const char *text;
    } TABLE[] = {
        {100, "Continue"}, {101, "Switching Protocols"}, {200, "OK"}, {201, "Created"},
        {202, "Accepted"}, {204, "No Content"}, {206, "Partial Content"}, {207, "Multi-Status"},
        {301, "Moved Permanently"}, {302, "Found"}, {303, "See Other"}, {304, "Not Modified"},
        {307, "Temporary Redirect"}, {308, "Permanent Redirect"}, {400, "Bad Request"},
        {401, "Unauthorized"}, {403, "Forbidden"}, {404, "Not Found"},
        {405, "Method Not Allowed"}, {406, "Not Acceptable"}, {408, "Request Timeout"},
        {409, "Conflict"}, {410, "Gone"}, {411, "Length Required"}, {412, "Precondition Failed"},
        {413, "Content Too Large"}, {414, "URI Too Long"}, {415, "Unsupported Media Type"},
        {416, "Range Not Satisfiable"}, {417, "Expectation Failed"},
        {422, "Unprocessable Content"}, {426, "Upgrade Required"}, {429, "Too Many Requests"},
        {431, "Request Header Fields Too Large"}, {500, "Internal Server Error"},
        {501, "Not Implemented"}, {502, "Bad Gateway"}, {503, "Service Unavailable"},
        {504, "Gateway Timeout"}, {505, "HTTP Version Not Supported"},
        {507, "Insufficient Storage"},
    };

    for (size_t i = 0; i < ARRAY_LEN(TABLE); i++)
        if (TABLE[i].status == status)
            return TABLE[i].text;
    return status < 400 ? "OK" : status < 500 ? "Client Error" : "Server Error";
}
