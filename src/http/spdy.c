/* http/spdy.c - SPDY/3.1 frames over a raw connection or inside WebSocket messages.
 *
 * Windows: no client of this protocol that is alive keeps flow control (the reference server
 * neither sends nor honours WINDOW_UPDATE), so waiting for windows would stall them after 64 KiB.
 * We take WINDOW_UPDATE and SETTINGS in and rely on the transport's backpressure. */
#include <strings.h>
#include <zlib.h>

#include "base/buf.h"
#include "http/http_int.h"
#include "http/spdy.h"
#include "http/ws.h"

enum {
    F_SYN_STREAM = 1, F_SYN_REPLY, F_RST_STREAM, F_SETTINGS, F_NOOP, F_PING, F_GOAWAY, F_HEADERS,
    F_WINDOW_UPDATE,
    FLAG_FIN = 1,
    RST_PROTOCOL = 1, RST_INVALID_STREAM = 2, RST_REFUSED = 3, RST_CANCEL = 5,
    CONTROL_MAX = 65536, HEADERS_MAX = 65536, STREAMS_MAX = 4096, HELD_MAX = 262144,
    DATA_FRAME_MAX = 65536,
};

struct spdy_stream {
    struct spdy *s;
    struct list link;
    uint32_t id;
    struct arena *arena;
    struct hdrs headers;
    struct spdy_stream_opts o;
    struct buf held;
    bool replied, fin_in, fin_out, fin_told, dead, paused, kicked;
};

struct spdy {
    struct http_req *req;
    struct http_raw *raw; /* one of the two */
    struct ws *ws;
    struct spdy_opts o;
    struct list streams;
    uint32_t streams_n, last_id, paused_n;
    struct buf in; /* a frame head or a control frame that is not whole */
    uint32_t data_left, data_stream;
    bool data_fin, closing, z_ready;
    z_stream zin, zout;
    struct buf zbuf;
    uv_timer_t *reap;
};

static uv_loop_t *loop_of(struct spdy *s)
{
    return ((struct req *)(void *)s->req)->conn->io.turn->loop;
}

/* ---- the dictionary of the header compression, as the protocol defines it ---- */

static const struct buf *dictionary(void)
{
    static const char words[] =
        "options\0head\0post\0put\0delete\0trace\0accept\0accept-charset\0accept-encoding\0"
        "accept-language\0accept-ranges\0age\0allow\0authorization\0cache-control\0connection\0"
        "content-base\0content-encoding\0content-language\0content-length\0content-location\0"
        "content-md5\0content-range\0content-type\0date\0etag\0expect\0expires\0from\0host\0"
        "if-match\0if-modified-since\0if-none-match\0if-range\0if-unmodified-since\0"
        "last-modified\0location\0max-forwards\0pragma\0proxy-authenticate\0"
        "proxy-authorization\0range\0referer\0retry-after\0server\0te\0trailer\0"
        "transfer-encoding\0upgrade\0user-agent\0vary\0via\0warning\0www-authenticate\0method\0"
        "get\0status\0" "200 OK\0version\0HTTP/1.1\0url\0public\0set-cookie\0keep-alive\0origin\0";
    static const char tail[] =
        "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
        "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request"
        "401 Unauthorized403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented"
        "503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue,"
        " Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,"
        "application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age="
        "gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0.";
    static _Thread_local struct buf d;

    if (!d.n) {
        for (const char *w = words; *w; w += strlen(w) + 1) {
            uint8_t len[4] = {0, 0, 0, (uint8_t)strlen(w)};

            buf_add(&d, len, 4);
            buf_adds(&d, w);
        }
        buf_adds(&d, tail);
    }
    return &d;
}

/* ---- output ---- */

static void out(struct spdy *s, const void *p, size_t n)
{
    if (s->closing || !n)
        return;
    if (s->ws)
        ws_send(s->ws, WS_BINARY, p, n);
    else
        http_raw_write(s->raw, p, n);
}

static void put32(uint8_t *p, uint32_t v)
{
    p[0] = (uint8_t)(v >> 24);
    p[1] = (uint8_t)(v >> 16);
    p[2] = (uint8_t)(v >> 8);
    p[3] = (uint8_t)v;
}
static uint32_t get32(const char *s)
{
    const uint8_t *p = (const uint8_t *)s;

    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void out_control(struct spdy *s, uint16_t type, uint8_t flags, const uint8_t *p, size_t n)
{
    uint8_t frame[8 + 64] = {0x80, 3, (uint8_t)(type >> 8), (uint8_t)type};

    ASSERT(n <= 64);
    put32(frame + 4, (uint32_t)flags << 24 | (uint32_t)n);
    memcpy(frame + 8, p, n);
    out(s, frame, 8 + n);
}

static void out_rst(struct spdy *s, uint32_t id, uint32_t status)
{
    uint8_t p[8];

    put32(p, id);
    put32(p + 4, status);
    out_control(s, F_RST_STREAM, 0, p, 8);
}

/* ---- streams ---- */

static struct spdy_stream *find(struct spdy *s, uint32_t id)
{
    LIST_EACH(&s->streams, it) {
        struct spdy_stream *st = list_entry(it, struct spdy_stream, link);

        if (st->id == id)
            return st->dead ? NULL : st;
    }
    return NULL;
}

static void unpause(struct spdy_stream *st)
{
    struct spdy *s = st->s;

    buf_done(&st->held);
    if (!st->kicked)
        return;
    st->kicked = false;
    if (--s->paused_n == 0) {
        if (s->ws)
            ws_resume(s->ws);
        else
            http_raw_resume(s->raw);
    }
}

static void stream_free(struct spdy_stream *st)
{
    struct spdy *s = st->s;

    list_remove(&st->link);
    s->streams_n--;
    if (st->o.on_close)
        st->o.on_close(st, st->o.arg);
    unpause(st);
    arena_free(st->arena);
}

static void stream_ended(struct spdy_stream *st)
{
    if (st->fin_told || st->held.n || st->paused)
        return;
    st->fin_told = true;
    if (st->o.on_end)
        st->o.on_end(st, st->o.arg);
}

/* From the loop: hands over what paused streams held, and frees those that are over. */
static void on_reap(uv_timer_t *t)
{
    struct spdy *s = t->data;

    for (struct list *it = s->streams.next; it != &s->streams;) {
        struct spdy_stream *st = list_entry(it, struct spdy_stream, link);

        it = it->next;
        if (!st->dead && st->held.n && !st->paused) {
            struct buf b = st->held;

            st->held = (struct buf){0};
            if (st->o.on_data)
                st->o.on_data(st, b.p, b.n, st->o.arg);
            buf_done(&b);
        }
        if (!st->held.n && st->kicked)
            unpause(st);
        if (!st->dead && st->fin_in)
            stream_ended(st);
        if (st->dead || (st->fin_told && st->fin_out)) {
            st->dead = true;
            stream_free(st);
            it = s->streams.next; /* its callback may have closed others */
        }
    }
}

static void reap_soon(struct spdy *s)
{
    if (s->reap)
        uv_timer_start(s->reap, on_reap, 0, 0);
}

struct spdy *spdy_stream_session(struct spdy_stream *st)
{
    return st->s;
}
uint32_t spdy_stream_id(const struct spdy_stream *st)
{
    return st->id;
}
const char *spdy_stream_get(const struct spdy_stream *st, const char *name)
{
    for (size_t i = 0; i < st->headers.n; i++)
        if (strcasecmp(st->headers.h[i].name, name) == 0)
            return st->headers.h[i].value;
    return NULL;
}
void spdy_stream_on(struct spdy_stream *st, const struct spdy_stream_opts *opts)
{
    st->o = *opts;
}

void spdy_reply(struct spdy_stream *st)
{
    struct spdy *s = st->s;
    uint8_t none[4] = {0}, block[128], frame[12 + sizeof block] = {0x80, 3, 0, F_SYN_REPLY};
    size_t n;

    if (st->replied || st->dead)
        return;
    st->replied = true;
    s->zout.next_in = none;
    s->zout.avail_in = 4;
    s->zout.next_out = block;
    s->zout.avail_out = sizeof block;
    deflate(&s->zout, Z_SYNC_FLUSH);
    n = sizeof block - s->zout.avail_out;
    put32(frame + 4, (uint32_t)(4 + n));
    put32(frame + 8, st->id);
    memcpy(frame + 12, block, n);
    out(s, frame, 12 + n);
}

static void out_data(struct spdy_stream *st, const char *p, size_t n, bool fin)
{
    struct spdy *s = st->s;
    uint8_t h[8];

    put32(h, st->id);
    put32(h + 4, (fin ? FLAG_FIN << 24 : 0) | (uint32_t)n);
    if (s->raw || !n) {
        out(s, h, 8);
        out(s, p, n);
    } else { /* one message, not two */
        buf_reset(&s->zbuf);
        buf_add(&s->zbuf, h, 8);
        buf_add(&s->zbuf, p, n);
        out(s, s->zbuf.p, s->zbuf.n);
    }
}

void spdy_write(struct spdy_stream *st, const void *p, size_t n)
{
    const char *c = p;

    if (st->dead || st->fin_out)
        return;
    spdy_reply(st);
    while (n) {
        size_t take = MIN(n, (size_t)DATA_FRAME_MAX);

        out_data(st, c, take, false);
        c += take;
        n -= take;
    }
}

void spdy_end(struct spdy_stream *st)
{
    if (st->dead || st->fin_out)
        return;
    spdy_reply(st);
    out_data(st, "", 0, true);
    st->fin_out = true;
    if (st->fin_in)
        reap_soon(st->s);
}

void spdy_reset(struct spdy_stream *st, uint32_t status)
{
    if (st->dead)
        return;
    out_rst(st->s, st->id, status);
    st->dead = true;
    reap_soon(st->s);
}

size_t spdy_queued_bytes(const struct spdy *s)
{
    return s->ws ? ws_queued_bytes(s->ws) : http_raw_queued_bytes(s->raw);
}
size_t spdy_stream_queued_bytes(const struct spdy_stream *st)
{
    return spdy_queued_bytes(st->s);
}
void spdy_stream_pause(struct spdy_stream *st)
{
    st->paused = true;
}
void spdy_stream_resume(struct spdy_stream *st)
{
    st->paused = false;
    if (st->held.n || st->fin_in || st->kicked)
        reap_soon(st->s);
}
struct http_req *spdy_req(struct spdy *s)
{
    return s->req;
}

static void close_transport(struct spdy *s)
{
    s->closing = true;
    if (s->ws)
        ws_close(s->ws, 1000, NULL);
    else
        http_raw_close(s->raw);
}

static void goaway(struct spdy *s, uint32_t status)
{
    uint8_t p[8];

    if (s->closing)
        return;
    put32(p, s->last_id);
    put32(p + 4, status);
    out_control(s, F_GOAWAY, 0, p, 8);
    close_transport(s);
}

void spdy_close(struct spdy *s)
{
    goaway(s, 0);
}

/* ---- input ---- */

/* Inflates a header block into s->zbuf; the compression state runs through the whole session, so
 * a block that does not inflate ends the session. */
static int inflate_block(struct spdy *s, const char *p, size_t n)
{
    uint8_t piece[4096];
    int rc;

    buf_reset(&s->zbuf);
    s->zin.next_in = (Bytef *)p;
    s->zin.avail_in = (uInt)n;
    for (;;) {
        s->zin.next_out = piece;
        s->zin.avail_out = sizeof piece;
        rc = inflate(&s->zin, Z_SYNC_FLUSH);
        if (rc == Z_NEED_DICT) {
            const struct buf *d = dictionary();

            if (inflateSetDictionary(&s->zin, (const Bytef *)d->p, (uInt)d->n) != Z_OK)
                return -1;
            continue;
        }
        if (rc != Z_OK && rc != Z_BUF_ERROR && rc != Z_STREAM_END)
            return -1;
        buf_add(&s->zbuf, piece, sizeof piece - s->zin.avail_out);
        if (s->zbuf.n > HEADERS_MAX)
            return -1;
        if (s->zin.avail_out || rc != Z_OK)
            return 0;
    }
}

static int parse_block(struct spdy *s, struct arena *a, struct hdrs *h)
{
    const char *p = s->zbuf.p, *end = p ? p + s->zbuf.n : p;
    uint32_t count;

    if (end - p < 4)
        return -1;
    count = get32(p);
    p += 4;
    for (uint32_t i = 0; i < count; i++) {
        const char *part[2];

        for (int k = 0; k < 2; k++) {
            uint32_t n;

            if (end - p < 4)
                return -1;
            n = get32(p);
            p += 4;
            if (n > (size_t)(end - p))
                return -1;
            part[k] = arena_strndup(a, p, n); /* of several values (0 between) the first is seen */
            p += n;
        }
        hdrs_add(h, a, part[0], part[1]);
    }
    return 0;
}

static int got_syn(struct spdy *s, uint8_t flags, const char *p, size_t n)
{
    struct spdy_stream *st;
    struct arena *a;
    uint32_t id;

    if (n < 10)
        return -1;
    id = get32(p) & 0x7fffffff;
    if (inflate_block(s, p + 10, n - 10) < 0)
        return -1;
    if (!(id & 1) || id <= s->last_id)
        return -1;
    s->last_id = id;
    if (s->streams_n >= STREAMS_MAX) {
        out_rst(s, id, RST_REFUSED);
        return 0;
    }
    a = arena_new();
    st = arena_new_of(a, struct spdy_stream);
    st->arena = a;
    st->s = s;
    st->id = id;
    if (parse_block(s, a, &st->headers) < 0) {
        arena_free(a);
        out_rst(s, id, RST_PROTOCOL);
        return 0;
    }
    st->fin_in = flags & FLAG_FIN;
    list_push(&s->streams, &st->link);
    s->streams_n++;
    s->o.on_stream(st, s->o.arg);
    if (st->fin_in)
        reap_soon(s);
    return 0;
}

static int got_control(struct spdy *s, uint16_t type, uint8_t flags, const char *p, size_t n)
{
    struct spdy_stream *st;
    struct arena *a;
    struct hdrs h = {0};

    switch (type) {
    case F_SYN_STREAM:
        return got_syn(s, flags, p, n);
    case F_HEADERS: /* nothing of ours uses them, but the compression state must follow */
    case F_SYN_REPLY:
        if (n < 4 || inflate_block(s, p + 4, n - 4) < 0)
            return -1;
        a = arena_new();
        int rc = parse_block(s, a, &h);
        arena_free(a);
        return rc;
    case F_RST_STREAM:
        if (n < 8)
            return -1;
        st = find(s, get32(p) & 0x7fffffff);
        if (st) {
            st->dead = true;
            reap_soon(s);
        }
        return 0;
    case F_PING:
        if (n < 4)
            return -1;
        if (get32(p) & 1) /* the client's: it comes back as it is */
            out_control(s, F_PING, 0, (const uint8_t *)p, 4);
        return 0;
    case F_GOAWAY:
    case F_SETTINGS:
    case F_WINDOW_UPDATE:
    case F_NOOP:
    default:
        return 0;
    }
}

static void got_data(struct spdy *s, const char *p, size_t n)
{
    struct spdy_stream *st = find(s, s->data_stream);

    if (!st || st->fin_in)
        return;
    if (!st->paused && !st->held.n) {
        if (st->o.on_data)
            st->o.on_data(st, p, n, st->o.arg);
        return;
    }
    buf_add(&st->held, p, n);
    if (st->held.n > HELD_MAX && !st->kicked) {
        st->kicked = true;
        if (s->paused_n++ == 0) {
            if (s->ws)
                ws_pause(s->ws);
            else
                http_raw_pause(s->raw);
        }
    }
}

static void data_over(struct spdy *s)
{
    struct spdy_stream *st = find(s, s->data_stream);

    if (!s->data_fin || !st || st->fin_in)
        return;
    st->fin_in = true;
    stream_ended(st);
    if (st->fin_out)
        reap_soon(s);
}

/* Takes one frame, or a piece of a data frame; 0: more bytes are needed. */
static size_t take(struct spdy *s, const char *p, size_t n, bool *ret_bad)
{
    uint32_t word, len;
    uint8_t flags;

    if (s->data_left) {
        size_t part = MIN(n, (size_t)s->data_left);

        s->data_left -= (uint32_t)part;
        got_data(s, p, part);
        if (!s->data_left)
            data_over(s);
        return part;
    }
    if (n < 8)
        return 0;
    word = get32(p);
    len = get32(p + 4) & 0xffffff;
    flags = (uint8_t)p[4];
    if (!(word & 0x80000000)) {
        s->data_stream = word;
        s->data_left = len;
        s->data_fin = flags & FLAG_FIN;
        if (!find(s, word) && len)
            out_rst(s, word, RST_INVALID_STREAM);
        if (!len)
            data_over(s);
        return 8;
    }
    if ((word >> 16 & 0x7fff) != 3 || len > CONTROL_MAX) {
        *ret_bad = true;
        return 0;
    }
    if (n < 8 + (size_t)len)
        return 0;
    if (got_control(s, (uint16_t)word, flags, p + 8, len) < 0)
        *ret_bad = true;
    return 8 + (size_t)len;
}

static void feed(struct spdy *s, const char *p, size_t n)
{
    struct buf b = {0};
    bool bad = false;

    if (s->in.n) {
        buf_add(&s->in, p, n);
        b = s->in;
        s->in = (struct buf){0};
        p = b.p;
        n = b.n;
    }
    while (n && !bad && !s->closing) {
        size_t took = take(s, p, n, &bad);

        if (!took)
            break;
        p += took;
        n -= took;
    }
    if (bad)
        goaway(s, RST_PROTOCOL);
    else if (n && !s->closing)
        buf_add(&s->in, p, n);
    buf_done(&b);
}

/* ---- transports ---- */

static void drained(struct spdy *s)
{
    LIST_EACH(&s->streams, it) {
        struct spdy_stream *st = list_entry(it, struct spdy_stream, link);

        if (!st->dead && st->o.on_drain)
            st->o.on_drain(st, st->o.arg);
    }
}

static void free_timer(uv_handle_t *h)
{
    free(h);
}

static void closed(struct spdy *s)
{
    s->closing = true;
    while (!list_empty(&s->streams)) {
        struct spdy_stream *st = list_entry(s->streams.next, struct spdy_stream, link);

        st->dead = true;
        st->kicked = false;
        stream_free(st);
    }
    uv_close((uv_handle_t *)STEAL(s->reap), free_timer);
    if (s->o.on_close)
        s->o.on_close(s, s->o.arg);
    deflateEnd(&s->zout);
    inflateEnd(&s->zin);
    buf_done(&s->in);
    buf_done(&s->zbuf);
    free(s);
}

static void raw_data(struct http_raw *raw, const char *p, size_t n, void *arg)
{
    (void)raw;
    feed(arg, p, n);
}
static void raw_drain(struct http_raw *raw, void *arg)
{
    (void)raw;
    drained(arg);
}
static void raw_close(struct http_raw *raw, void *arg)
{
    (void)raw;
    closed(arg);
}
static void ws_message(struct ws *ws, enum ws_type type, const char *p, size_t n, void *arg)
{
    (void)ws;
    if (type == WS_BINARY)
        feed(arg, p, n);
}
static void ws_drain(struct ws *ws, void *arg)
{
    (void)ws;
    drained(arg);
}
static void ws_closed(struct ws *ws, int code, void *arg)
{
    (void)ws;
    (void)code;
    closed(arg);
}

static struct spdy *session_new(struct http_req *req, const struct spdy_opts *opts)
{
    struct spdy *s = xcalloc(1, sizeof *s);
    const struct buf *d = dictionary();

    s->req = req;
    s->o = *opts;
    list_init(&s->streams);
    inflateInit(&s->zin);
    deflateInit(&s->zout, Z_BEST_SPEED);
    deflateSetDictionary(&s->zout, (const Bytef *)d->p, (uInt)d->n);
    s->reap = xcalloc(1, sizeof *s->reap);
    return s;
}

static struct spdy *session_drop(struct spdy *s)
{
    deflateEnd(&s->zout);
    inflateEnd(&s->zin);
    free(s->reap);
    free(s);
    return NULL;
}

static struct spdy *session_start(struct spdy *s)
{
    uv_timer_init(loop_of(s), s->reap);
    s->reap->data = s;
    return s;
}

bool spdy_wanted(const struct http_req *req)
{
    const char *u = http_upgrade_wanted(req);

    return u && strcasecmp(u, "SPDY/3.1") == 0;
}

const char *spdy_pick(const struct http_req *req, const char *const *ours)
{
    for (; *ours; ours++)
        if (http_has_token(req, "x-stream-protocol-version", *ours))
            return *ours;
    return NULL;
}

struct spdy *spdy_accept(struct http_req *req, const char *protocol, const struct spdy_opts *opts,
                         struct err *err)
{
    struct spdy *s;

    if (!spdy_wanted(req)) {
        err_set(err, INVALID_ARGUMENT, "not an upgrade to SPDY/3.1");
        return NULL;
    }
    s = session_new(req, opts);
    if (protocol)
        http_header(req, "X-Stream-Protocol-Version", protocol);
    s->raw = http_upgrade(req, "SPDY/3.1", &(struct http_raw_opts){
        .on_data = raw_data, .on_drain = raw_drain, .on_close = raw_close, .arg = s}, err);
    return s->raw ? session_start(s) : session_drop(s);
}

struct spdy *spdy_accept_ws(struct http_req *req, const char *ws_protocol,
                            const struct spdy_opts *opts, struct err *err)
{
    struct spdy *s = session_new(req, opts);

    s->ws = ws_accept(req, ws_protocol, &(struct ws_opts){
        .on_message = ws_message, .on_drain = ws_drain, .on_close = ws_closed, .arg = s}, err);
    return s->ws ? session_start(s) : session_drop(s);
}
