/* Function URLs: an HTTP request becomes an event of payload format 2.0, the function's answer
 * becomes the HTTP answer, as Lambda's function URLs do it.
 *
 * Which function: the first label of the Host (NAME.anything), else the path
 * (/function/NAME/rest, /lambda-url/NAME/rest; the event's rawPath is then /rest). NAME:ALIAS in a path is the alias's own URL. */
#include "gateway/gateway_int.h"

#include "codec/json.h"
#include "codec/obj.h"
#include "env/random.h"
#include "gateway/keys.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>

char *base64_text(struct arena *a, const void *p, size_t n, size_t *ret_n)
{
    char *out = arena_raw(a, 4 * ((n + 2) / 3) + 1);
    int len = EVP_EncodeBlock((unsigned char *)out, p, (int)n);

    if (ret_n)
        *ret_n = (size_t)len;
    return out;
}

void url_say(struct http_req *req, int status, const char *message)
{
    struct buf b = {0};

    buf_adds(&b, "{\"Message\":");
    json_write_str(&b, message, strlen(message));
    buf_addc(&b, '}');
    http_reply(req, status, "application/json", b.p, b.n);
    buf_done(&b);
}

/* ---- which function ---- */

/* A name that may be a function's, up to `end`. */
static char *name_until(struct arena *a, const char *from, size_t n)
{
    if (!n || n > 140)
        return NULL;
    return arena_strndup(a, from, n);
}

static struct url *find(struct gateway *g, struct http_req *req)
{
    static const char *const prefixes[] = {"/function/", "/lambda-url/"};
    struct url *u = arena_new_of(req->arena, struct url);
    const char *dot = strchr(req->host, '.');

    u->g = g;
    u->req = req;
    if (dot) {
        u->name = name_until(req->arena, req->host, (size_t)(dot - req->host));
        u->path = req->raw_path;
        if (u->name && functions_known(g->functions, NULL, u->name))
            return u;
    }
    for (size_t i = 0; i < ARRAY_LEN(prefixes); i++)
        if (str_starts(req->raw_path, prefixes[i])) {
            const char *from = req->raw_path + strlen(prefixes[i]);
            size_t n = strcspn(from, "/");

            u->name = name_until(req->arena, from, strcspn(from, "/:"));
            if (u->name && from[strlen(u->name)] == ':')
                u->alias = name_until(req->arena, from + strlen(u->name) + 1, n - strlen(u->name) - 1);
            u->path = from[n] ? from + n : "/";
            return u->name && (n == strlen(u->name) || u->alias) ? u : NULL;
        }
    return NULL;
}

/* ---- CORS ---- */

static void add_list(struct http_req *req, const char *header, const struct val *list)
{
    struct buf b = {0};

    VAL_EACH(list, it)
    if (it->type == VAL_STR) {
        if (b.n)
            buf_addc(&b, ',');
        buf_add(&b, it->s, it->n);
    }
    if (b.n)
        http_header(req, header, b.p);
    buf_done(&b);
}

static bool origin_allowed(const struct val *cors, const char *origin, bool *ret_any)
{
    VAL_EACH(val_get(cors, "allowOrigins"), it)
    {
        const char *s = val_text(it, "");

        if (streq(s, "*"))
            return *ret_any = true;
        if (strcasecmp(s, origin) == 0)
            return true;
    }
    return false;
}

/* Headers for a request that carries an Origin; true: it was a preflight and is answered. */
static bool cors(struct http_req *req, const struct val *config)
{
    const struct val *c = val_get(config, "cors");
    const char *origin = http_get(req, "origin");
    bool preflight = streq(req->method, "OPTIONS") && http_get(req, "access-control-request-method");
    bool any = false, ok = c && origin && origin_allowed(c, origin, &any);

    if (ok) {
        bool credentials = val_bool_at(c, "allowCredentials", false);

        http_header(req, "access-control-allow-origin", any && !credentials ? "*" : origin);
        if (!any || credentials)
            http_header(req, "vary", "Origin");
        if (credentials)
            http_header(req, "access-control-allow-credentials", "true");
        add_list(req, "access-control-expose-headers", val_get(c, "exposeHeaders"));
        if (preflight) {
            add_list(req, "access-control-allow-methods", val_get(c, "allowMethods"));
            add_list(req, "access-control-allow-headers", val_get(c, "allowHeaders"));
            if (val_int_at(c, "maxAge", 0))
                http_headerf(req, "access-control-max-age", "%d", (int)val_int_at(c, "maxAge", 0));
        }
    }
    if (!preflight || !c)
        return false;
    http_reply(req, 200, NULL, "", 0);
    return true;
}

/* ---- the event ---- */

static void add_str(struct buf *b, const char *s)
{
    json_write_str(b, s, strlen(s));
}

static void add_field(struct buf *b, const char *name, const char *s)
{
    buf_addc(b, '"');
    buf_adds(b, name);
    buf_add(b, "\":", 2);
    add_str(b, s);
    buf_addc(b, ',');
}

/* As Lambda says them: what a client claims of itself counts for the addresses alone, as those before ours. */
static void add_forwarded(struct buf *b, const struct http_req *req, bool first)
{
    const char *before = http_get(req, "x-forwarded-for"), *addr = req->peer->addr;
    char port[16];

    snprintf(port, sizeof port, "%d", http_server_port(req->server));
    buf_adds(b, first ? "" : ",");
    add_field(b, "x-forwarded-for", before ? arena_printf(req->arena, "%s, %s", before, addr) : addr);
    add_field(b, "x-forwarded-port", port);
    buf_printf(b, "\"x-forwarded-proto\":\"%s\"", req->peer->tls ? "https" : "http");
}

/* Names that come more than once are joined by commas, as the platform does; cookies go apart. */
static void add_headers(struct buf *b, const struct http_req *req)
{
    bool first = true, cookies = false;

    for (size_t i = 0; i < req->headers_n; i++)
        if (streq(req->headers[i].name, "cookie")) {
            const char *p = req->headers[i].value;

            while (*p) {
                size_t n;

                p += strspn(p, "; ");
                n = strcspn(p, ";");
                if (n) {
                    buf_adds(b, cookies ? "," : "\"cookies\":[");
                    json_write_str(b, p, n);
                    cookies = true;
                }
                p += n;
            }
        }
    if (cookies)
        buf_adds(b, "],");
    buf_adds(b, "\"headers\":{");
    for (size_t i = 0; i < req->headers_n; i++) {
        const char *name = req->headers[i].name;
        bool seen = streq(name, "cookie") || streq(name, "x-forwarded-for") || streq(name, "x-forwarded-port") || streq(name, "x-forwarded-proto");

        for (size_t k = 0; k < i; k++)
            seen |= streq(req->headers[k].name, name);
        if (seen)
            continue;
        if (!first)
            buf_addc(b, ',');
        first = false;
        add_str(b, name);
        buf_addc(b, ':');
        struct buf value = {0};
        for (size_t k = i; k < req->headers_n; k++)
            if (streq(req->headers[k].name, name)) {
                if (k > i)
                    buf_addc(&value, ',');
                buf_adds(&value, req->headers[k].value);
            }
        json_write_str(b, value.p ? value.p : "", value.n);
        buf_done(&value);
    }
    add_forwarded(b, req, first);
    buf_adds(b, "},");
}

static void add_query(struct buf *b, struct http_req *req)
{
    struct val *map = val_map(req->arena);
    const char *name, *value;

    for (size_t i = 0; http_param_next(req, &i, &name, &value);) {
        const char *before = val_text(val_get(map, name), NULL);

        val_put_str(req->arena, map, name, before ? arena_printf(req->arena, "%s,%s", before, value) : value);
    }
    if (!val_len(map))
        return;
    buf_adds(b, "\"queryStringParameters\":");
    json_write(b, map);
    buf_addc(b, ',');
}

static void add_caller(struct buf *b, const struct url *u)
{
    buf_adds(b, "\"authentication\":null,\"authorizer\":{\"iam\":{");
    add_field(b, "accessKey", u->caller.key_id);
    add_field(b, "accountId", u->caller.who.account);
    add_field(b, "callerId", u->caller.id);
    add_field(b, "userArn", u->caller.arn);
    add_field(b, "userId", u->caller.id);
    buf_adds(b, "\"cognitoIdentity\":null,\"principalOrgId\":null}},");
}

static void add_context(struct buf *b, struct url *u)
{
    struct http_req *req = u->req;
    const char *agent = http_get(req, "user-agent");
    static time_t last = -1; /* one text a second, not one a request */
    static char when[64];
    time_t now = time(NULL);
    struct tm tm;

    if (now != last) {
        gmtime_r(&now, &tm);
        strftime(when, sizeof when, "%d/%b/%Y:%H:%M:%S +0000", &tm);
        last = now;
    }
    buf_adds(b, "\"requestContext\":{");
    add_field(b, "accountId", u->is_signed ? identity_account(u->g->identity) : "anonymous");
    if (u->is_signed)
        add_caller(b, u);
    add_field(b, "apiId", u->name);
    add_field(b, "domainName", req->host);
    add_field(b, "domainPrefix", u->name);
    buf_adds(b, "\"http\":{");
    add_field(b, "method", req->method);
    add_field(b, "path", u->path);
    add_field(b, "protocol", req->version == 20 ? "HTTP/2.0" : req->version == 10 ? "HTTP/1.0" : "HTTP/1.1");
    add_field(b, "sourceIp", req->peer->addr);
    buf_adds(b, "\"userAgent\":");
    add_str(b, agent ? agent : "");
    buf_adds(b, "},");
    add_field(b, "requestId", u->id);
    add_field(b, "time", when);
    buf_adds(b, "\"routeKey\":\"$default\",\"stage\":\"$default\",\"timeEpoch\":");
    buf_addi(b, (long long)now * 1000);
    buf_adds(b, "},");
}

static bool is_utf8(const char *s, size_t n)
{
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)s[i];
        size_t more = c < 0x80 ? 0 : c >= 0xc2 && c < 0xe0 ? 1 : (c & 0xf0) == 0xe0 ? 2 : c >= 0xf0 && c < 0xf5 ? 3 : 9;

        if (more == 9 || i + more >= n)
            return false;
        for (size_t k = 1; k <= more; k++)
            if (((unsigned char)s[i + k] & 0xc0) != 0x80)
                return false;
        if ((c == 0xe0 && (unsigned char)s[i + 1] < 0xa0) || (c == 0xed && (unsigned char)s[i + 1] > 0x9f) ||
            (c == 0xf0 && (unsigned char)s[i + 1] < 0x90) || (c == 0xf4 && (unsigned char)s[i + 1] > 0x8f))
            return false;
        i += more + 1;
    }
    return true;
}

static bool is_text_type(const char *type)
{
    static const char *const names[] = {"text/", "application/json", "application/xml", "application/javascript"};

    for (size_t i = 0; type && i < ARRAY_LEN(names); i++)
        if (strncasecmp(type, names[i], strlen(names[i])) == 0)
            return true;
    return false;
}

static void make_event(struct buf *b, struct url *u, const char *body, size_t n)
{
    struct http_req *req = u->req;

    buf_adds(b, "{\"version\":\"2.0\",\"routeKey\":\"$default\",");
    add_field(b, "rawPath", u->path);
    add_field(b, "rawQueryString", req->query);
    add_headers(b, req);
    add_query(b, req);
    add_context(b, u);
    if (n && is_text_type(http_get(req, "content-type")) && is_utf8(body, n)) {
        buf_adds(b, "\"body\":");
        json_write_str(b, body, n);
        buf_adds(b, ",\"isBase64Encoded\":false}");
    } else if (n) {
        size_t len;
        const char *text = base64_text(req->arena, body, n, &len);

        buf_adds(b, "\"body\":\"");
        buf_add(b, text, len);
        buf_adds(b, "\",\"isBase64Encoded\":true}");
    } else {
        buf_adds(b, "\"isBase64Encoded\":false}");
    }
}

/* ---- the answer ---- */

static const char *scalar_text(struct arena *a, const struct val *v)
{
    return v->type == VAL_STR ? v->s : json_text(a, v, NULL);
}

int url_head(struct http_req *req, const struct val *v, int *ret_status, const char **ret_type)
{
    int64_t status = val_int_at(v, "statusCode", 200);

    *ret_type = NULL;
    if (status < 200 || status > 599)
        return -1;
    *ret_status = (int)status;
    VAL_EACH_MEMBER(val_get(v, "headers"), m)
    {
        if (strcasecmp(m->key, "content-type") == 0)
            *ret_type = scalar_text(req->arena, &m->v);
        else if (strcasecmp(m->key, "content-length") != 0 && strcasecmp(m->key, "transfer-encoding") != 0 &&
                 strcasecmp(m->key, "connection") != 0)
            http_header(req, m->key, scalar_text(req->arena, &m->v));
    }
    VAL_EACH(val_get(v, "cookies"), it)
    http_header(req, "set-cookie", val_text(it, ""));
    return 0;
}

/* These answer with the status they sent. */
static int refuse(struct http_req *req, int status, const char *message)
{
    url_say(req, status, message);
    return status;
}

static int answer_mapped(struct http_req *req, const struct val *v)
{
    const struct val *body = val_get(v, "body");
    const char *type, *text = "";
    size_t n = 0;
    int status;

    if (url_head(req, v, &status, &type) < 0)
        return refuse(req, 502, "Internal Server Error");
    if (!val_is_null(body)) {
        text = scalar_text(req->arena, body);
        n = body->type == VAL_STR ? body->n : strlen(text);
    }
    if (n && val_bool_at(v, "isBase64Encoded", false)) {
        unsigned char *raw = arena_raw(req->arena, n / 4 * 3 + 4);
        int len = n % 4 ? -1 : EVP_DecodeBlock(raw, (const unsigned char *)text, (int)n);

        if (len < 0)
            return refuse(req, 502, "Internal Server Error");
        for (size_t k = n; k > 0 && text[k - 1] == '='; k--)
            len--;
        text = (const char *)raw;
        n = (size_t)len;
    }
    http_reply(req, status, type ? type : "application/json", text, n);
    return status;
}

static int answer(struct http_req *req, const struct function_result *r)
{
    struct err err;
    struct val *v = json_parse(req->arena, r->payload, r->n, &err);

    if (!v)
        return refuse(req, 502, "Internal Server Error");
    if (val_is(v, VAL_MAP) && val_get(v, "statusCode"))
        return answer_mapped(req, v);
    if (v->type == VAL_STR)
        http_reply(req, 200, "application/json", v->s, v->n);
    else
        http_reply(req, 200, "application/json", r->payload, r->n);
    return 200;
}

static int answer_any(struct url *u, const struct function_result *r)
{
    struct http_req *req = u->req;

    if (r->err.code == ERR_TOO_MANY)
        return refuse(req, 429, r->err.msg);
    if (r->err.code == ERR_TOO_LARGE)
        return refuse(req, 413, r->err.msg);
    if (r->err.code != ERR_OK)
        return refuse(req, err_http(r->err.code) == 404 ? 404 : r->err.code == ERR_UNAVAILABLE ? 503 : 502, r->err.msg);
    if (r->function_error)
        return refuse(req, 502, "Internal Server Error");
    if (u->streams)
        return url_stream_done(u, r);
    if (r->content_type)
        return url_collected(u, r);
    return answer(req, r);
}

static void on_done(void *arg, const struct function_result *r)
{
    struct url *u = arg;
    struct http_req *req = u->req;
    char timing[FUNCTION_TIMING_MAX];

    int status;

    u->answered = true;
    if (u->started) {
        status = url_stream_done(u, r);
        if (r->span)
            r->span->status = status;
        return;
    }
    function_timing_text(r, timing);
    http_header(req, "x-tandem-timing", timing);
    http_header(req, "x-amzn-requestid", r->request_id);
    status = answer_any(u, r);
    if (r->span) /* outlives the request, which is gone */
        r->span->status = status;
}

static void on_gone(struct http_req *req, void *arg)
{
    struct url *u = arg;

    if (u->answered || !u->invoked)
        return; /* before the body came: on_body finishes it */
    u->answered = true;
    function_forget(u->g->functions, u->ticket);
    buf_done(&u->prelude);
    http_abort(req);
}

int url_may(struct url *u, const void *body, size_t n, struct err *err)
{
    struct identity *id = u->g->identity;
    struct arena *a = u->req->arena;
    const struct obj *o = functions_get(u->g->functions, NULL, u->name);
    struct val *context;
    enum policy_verdict v;
    const char *shown, *arn;

    if (keys_check(u->g->keys, u->req, body, n, &u->caller, err) < 0)
        return -1;
    shown = o ? obj_annotation(o, "tandem.dev/function-name") : NULL;
    arn = arena_printf(a, "arn:aws:lambda:%s:%s:function:%s%s%s", identity_region(id), identity_account(id), shown ? shown : u->name,
                       u->alias ? ":" : "", u->alias ? u->alias : "");
    context = identity_context(id, u->req, NULL);
    val_put_str(a, context, "lambda:functionurlauthtype", "AWS_IAM");
    v = identity_decide(id, a, &u->caller, "lambda:InvokeFunctionUrl", arn, context, identity_policy_at(a, o, "tandem.dev/policy"),
                        POLICY_RESOURCE);
    if (v == POLICY_ALLOWED)
        return 0;
    return err_set(err, FORBIDDEN, "%s", identity_refusal(a, &u->caller, v, POLICY_RESOURCE, "lambda:InvokeFunctionUrl", arn));
}

static void on_body(struct http_req *req, char *data, size_t n, const struct err *err, void *arg)
{
    struct url *u = arg;
    struct function_call c = {.name = u->name, .qualifier = u->alias, .request_id = u->id, .req = req, .trigger = FUNCTION_BY_HTTP};
    struct buf event = {0};
    struct err refused;
    uint64_t ticket;

    if (err) {
        if (err->code == ERR_CANCELLED)
            http_abort(req);
        else
            url_say(req, err_http(err->code), err->msg);
        return;
    }
    if (u->is_signed && url_may(u, data, n, &refused) < 0) {
        url_say(req, 403, refused.msg);
        return;
    }
    make_event(&event, u, data, n);
    c.payload = event.p;
    c.n = event.n;
    c.stream = u->streams ? &url_stream : NULL;
    u->invoked = true;
    http_on_close(req, on_gone, u);
    ticket = function_invoke(u->g->functions, &c, on_done, u);
    if (ticket) /* else the request, and u with it, are gone */
        u->ticket = ticket;
    buf_done(&event);
}

/* spec.url, or that of the alias; NULL: there is none. */
static const struct val *config_of(const struct url *u, const struct obj *o)
{
    if (!u->alias)
        return val_at(obj_val(o), "spec.url");
    VAL_EACH(val_at(obj_val(o), "spec.aliases"), it)
        if (streq(val_str_at(it, "name", ""), u->alias))
            return val_get(it, "url");
    return NULL;
}

void url_request(struct gateway *g, struct http_req *req)
{
    struct url *u = find(g, req);
    const struct obj *o = u ? functions_get(g->functions, NULL, u->name) : NULL;
    const struct val *config = o ? config_of(u, o) : NULL;

    if (streq(req->path, "/healthz") && !o) {
        http_reply_str(req, 200, "text/plain", "ok\n");
        return;
    }
    if (u && !o && !functions_all_known(g->functions)) {
        http_header(req, "retry-after", "1");
        url_say(req, 503, "tandem is starting: its functions are not known yet");
        return;
    }
    if (!u || !o) {
        url_say(req, 404, u ? "there is no function of that name" : "want NAME.anything as host, or /function/NAME/ as path");
        return;
    }
    if (!config || !val_bool_at(config, "enabled", true)) {
        url_say(req, 404, "the function has no URL: set spec.url (kubectl, tandem deploy) or CreateFunctionUrlConfig");
        return;
    }
    if (cors(req, config))
        return;
    u->is_signed = !streq(val_str_at(config, "authType", "AWS_IAM"), "NONE");
    if (!val_is_null(val_at(obj_val(o), "spec.http"))) {
        uuid_new(u->id);
        url_http(u, val_get(obj_val(o), "spec"));
        return;
    }
    u->streams = streq(val_str_at(config, "invokeMode", "BUFFERED"), "RESPONSE_STREAM");
    uuid_new(u->id);
    http_body(req, FUNCTION_PAYLOAD_MAX, on_body, u);
}
