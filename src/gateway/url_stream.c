/* Answers of function URLs that come in pieces. What the function says of status and headers stands in
 * front of the body when its content type is PRELUDE_TYPE: a JSON object, eight bytes of 0, the body.
 * A client that is slower than the function holds the function back. */
#include "gateway/gateway_int.h"

#include "codec/json.h"

#include <strings.h>

#define PRELUDE_TYPE "application/vnd.awslambda.http-integration-response"

enum { PRELUDE_MAX = 256 * 1024, PRELUDE_GAP = 8, QUEUE_MAX = 256 * 1024 };

static bool has_prelude(const char *type)
{
    return strncasecmp(type, PRELUDE_TYPE, sizeof PRELUDE_TYPE - 1) == 0;
}

/* Where the body starts; 0: the prelude is not whole. */
static size_t prelude_end(const char *p, size_t n)
{
    static const char gap[PRELUDE_GAP] = {0};
    const char *at = n ? memmem(p, n, gap, sizeof gap) : NULL;

    return at ? (size_t)(at - p) + sizeof gap : 0;
}

static void on_drain(struct http_req *req, void *arg)
{
    struct url *u = arg;

    if (!u->answered)
        function_pause(u->g->functions, u->ticket, false);
}

static void start(struct url *u, int status, const char *type)
{
    u->started = true;
    u->status = status;
    http_header(u->req, "content-type", type);
    http_header(u->req, "x-amzn-requestid", u->id);
    http_on_drain(u->req, on_drain, u);
    http_start(u->req, status, -1);
}

/* -1: the prelude is none. */
static int start_by_prelude(struct url *u, const char *p, size_t n)
{
    const char *type;
    struct err err;
    struct val *v = json_parse(u->req->arena, p, n, &err);
    int status;

    if (!val_is(v, VAL_MAP) || url_head(u->req, v, &status, &type) < 0)
        return -1;
    start(u, status, type ? type : "application/octet-stream");
    return 0;
}

static void on_begin(void *arg, const char *content_type, const char *version)
{
    struct url *u = arg;

    u->wants_prelude = has_prelude(content_type);
    buf_init(&u->prelude, PRELUDE_MAX);
    if (!u->wants_prelude)
        start(u, 200, *content_type ? content_type : "application/octet-stream");
}

static void write_piece(struct url *u, const char *p, size_t n)
{
    http_write(u->req, p, n);
    if (http_queued_bytes(u->req) > QUEUE_MAX)
        function_pause(u->g->functions, u->ticket, true);
}

static void on_data(void *arg, const char *p, size_t n)
{
    struct url *u = arg;
    size_t end;

    if (u->started) {
        write_piece(u, p, n);
        return;
    }
    if (u->broken)
        return; /* nothing was sent: what is wrong is said at the end */
    buf_add(&u->prelude, p, n);
    end = prelude_end(u->prelude.p, u->prelude.n);
    if (!end)
        return;
    u->broken = start_by_prelude(u, u->prelude.p, end - PRELUDE_GAP) < 0;
    if (u->broken)
        return;
    if (u->prelude.n > end)
        write_piece(u, u->prelude.p + end, u->prelude.n - end);
}

const struct function_stream url_stream = {on_begin, on_data};

int url_stream_done(struct url *u, const struct function_result *r)
{
    int status = u->started ? u->status : r->streamed ? 502 : 200; /* u goes with the request */

    buf_done(&u->prelude);
    if (!r->streamed && !u->started)
        http_reply(u->req, 200, "application/json", r->payload, r->n);
    else if (!u->started)
        url_say(u->req, 502, "Internal Server Error");
    else if (r->function_error || r->err.code != ERR_OK)
        http_abort(u->req); /* the client sees that it is cut */
    else
        http_end(u->req);
    return status;
}

int url_collected(struct url *u, const struct function_result *r)
{
    struct http_req *req = u->req;
    size_t end = has_prelude(r->content_type) ? prelude_end(r->payload, r->n) : 0;
    const char *type;
    struct val *v;
    struct err err;
    int status;

    if (!has_prelude(r->content_type)) {
        http_reply(req, 200, *r->content_type ? r->content_type : "application/octet-stream", r->payload, r->n);
        return 200;
    }
    v = end ? json_parse(req->arena, r->payload, end - PRELUDE_GAP, &err) : NULL;
    if (!val_is(v, VAL_MAP) || url_head(req, v, &status, &type) < 0) {
        url_say(req, 502, "Internal Server Error");
        return 502;
    }
    http_reply(req, status, type ? type : "application/octet-stream", r->payload + end, r->n - end);
    return status;
}
