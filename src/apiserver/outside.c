/* apiserver/outside.c - see outside.h. */
#include "apiserver/outside.h"

#include "base/log.h"
#include "http/client.h"

#include <openssl/evp.h>
#include <openssl/sha.h>
#include <stdio.h>

/* One thing asked. */
struct question {
    struct question *next;
    struct memory *m;
    const char *id;
    struct http_call *http; /* NULL: answered */
    struct env_timer *timer;
    struct outside_answer answer;
    bool open;
};

/* One random draw of a call, in their order. */
struct draw {
    struct draw *next;
    uint64_t number;
    char text[ENV_UUID_BYTES];
};

/* What one call knows between its runs; in the request's arena. */
struct memory {
    struct api *api;
    const struct api_request *req;
    serve_fn *serve;
    api_done_fn *done;
    void *arg;
    int64_t now_ms;
    struct draw *draws;
    struct question *questions;
    struct map by_id; /* to them */
    uint32_t asked, open;
    struct env_timer *deadline, *soon; /* soon: the next run */
    struct list link; /* outside.parked */
    bool parked;
    char salt[16];
};

struct outside {
    struct api *api;
    struct http_client *client; /* made when it is first needed */
    struct map origins;         /* what identifies a place -> struct http_origin */
    struct list parked;
    uint32_t parked_n;
};

/* ---------------------------------------------------------------- random, the same in each run */

static struct draw *draw_next(struct call *c, bool *ret_new)
{
    struct draw **at = c->drawn ? &c->drawn->next : &c->draws;

    *ret_new = !*at;
    if (!*at)
        *at = arena_new_of(c->a, struct draw);
    return c->drawn = *at;
}

const char *call_uuid(struct call *c)
{
    bool fresh;
    struct draw *d = draw_next(c, &fresh);

    return fresh ? env_uuid(c->api->env, d->text) : d->text;
}

const char *call_suffix(struct call *c)
{
    bool fresh;
    struct draw *d = draw_next(c, &fresh);

    return fresh ? env_suffix(c->api->env, d->text) : d->text;
}

uint32_t call_below(struct call *c, uint32_t n)
{
    bool fresh;
    struct draw *d = draw_next(c, &fresh);

    if (fresh)
        d->number = env_random(c->api->env) >> 1;
    return (uint32_t)(d->number % n);
}

/* ---------------------------------------------------------------- places */

static const char *or_none(const char *s)
{
    return s ? s : "";
}

static char *sha_text(const char *const *parts, size_t n)
{
    unsigned char sum[SHA256_DIGEST_LENGTH];
    struct buf b = {0};
    char *hex = xmalloc(2 * sizeof(sum) + 1);

    for (size_t i = 0; i < n; i++)
        buf_add(&b, or_none(parts[i]), strlen(or_none(parts[i])) + 1);
    SHA256((unsigned char *)b.p, b.n, sum);
    for (size_t i = 0; i < sizeof(sum); i++)
        snprintf(hex + 2 * i, 3, "%02x", sum[i]);
    buf_done(&b);
    return hex;
}

struct http_origin *outside_origin(struct api *api, const struct place *p, struct err *err)
{
    const char *parts[] = {p->url, p->server_name, p->ca_pem, p->cert_pem, p->insecure ? "1" : ""};
    _auto_(freep) char *key = NULL;
    struct outside *out = api->outside;
    struct http_origin_opts opts = {.ca_pem = p->ca_pem, .cert_pem = p->cert_pem, .key_pem = p->key_pem,
                                    .server_name = p->server_name, .insecure = p->insecure,
                                    .conns_max = OUTSIDE_CONNS_MAX};
    struct http_origin *o;

    if (!env_loop(api->env)) { /* the simulation */
        err_set(err, UNAVAILABLE, "there is no network here");
        return NULL;
    }
    if (!out->client)
        out->client = http_client_new(env_loop(api->env), NULL);
    key = sha_text(parts, ARRAY_LEN(parts));
    if ((o = map_get(&out->origins, key)))
        return o;
    if (out->origins.n >= OUTSIDE_ORIGINS_MAX) { /* any: its connections are made again when needed */
        const char *some;
        void *old;
        uint32_t i = 0;

        if (map_next(&out->origins, &i, &some, &old)) {
            http_origin_free(old);
            map_del(&out->origins, some);
        }
    }
    if ((o = http_origin_new(out->client, p->url, &opts, err)))
        map_put(&out->origins, key, o);
    return o;
}

/* An address in a slice of the service, for its port of that name. */
static bool slice_target(struct arena *a, const struct val *v, const char *port_name, char **ret_ip,
                         int64_t *ret_port)
{
    int64_t port = 0;

    VAL_EACH(val_get(v, "ports"), p)
        if (streq(val_str_at(p, "name", ""), port_name))
            port = val_int_at(p, "port", 0);
    VAL_EACH(val_get(v, "endpoints"), e) {
        if (!port || !val_bool_at(e, "conditions.ready", true) || !val_len(val_get(e, "addresses")))
            continue;
        *ret_ip = arena_strdup(a, val_text(&val_get(e, "addresses")->items[0], ""));
        *ret_port = port;
        return true;
    }
    return false;
}

int outside_service(struct api *api, struct arena *a, const char *ns, const char *name, int64_t port,
                    const char *port_name, const char *scheme, char **ret_url, struct err *err)
{
    struct store_table *t = table_named(api->store, "discovery.k8s.io", "endpointslices");
    const struct obj *svc = store_get(api->store, table_named(api->store, "", "services"), ns, name), *o;
    const char *found = NULL;
    struct store_iter it;
    bool any = false;
    char *ip = NULL;
    int64_t number = 0;

    if (!svc)
        return err_set(err, NOT_FOUND, "service \"%s\" not found", name);
    VAL_EACH(val_at(obj_val(svc), "spec.ports"), p)
        if (!found && (port_name ? !*port_name || streq(port_name, val_str_at(p, "name", ""))
                                 : port == val_int_at(p, "port", -1)))
            found = arena_strdup(a, val_str_at(p, "name", ""));
    if (streq(val_str_at(obj_val(svc), "spec.type", ""), "ExternalName")) {
        *ret_url = arena_printf(a, "%s://%s:%lld", scheme, val_str_at(obj_val(svc), "spec.externalName", ""),
                                (long long)(port ? port : 443));
        return 0;
    }
    if (!found && port_name)
        return err_set(err, NOT_FOUND, "no service port \"%s\" found for service \"%s\"", port_name, name);
    if (!found)
        return err_set(err, NOT_FOUND, "no service port %lld found for service \"%s\"", (long long)port, name);
    if (store_iter_init(&it, api->store, t, ns, 0, NULL, NULL, err) < 0)
        return -1;
    while (!any && (o = store_iter_next(&it)))
        if (streq0(obj_label(o, "kubernetes.io/service-name"), name))
            any = slice_target(a, obj_val(o), found, &ip, &number);
    store_iter_done(&it);
    if (!any)
        return err_set(err, UNAVAILABLE, "no endpoints available for service \"%s\"", name);
    *ret_url = arena_printf(a, strchr(ip, ':') ? "%s://[%s]:%lld" : "%s://%s:%lld", scheme, ip,
                            (long long)number);
    return 0;
}

char *base64_bytes(struct arena *a, const char *s, size_t *ret_n)
{
    size_t n = strlen(s);
    char *out;
    int got;

    if (n % 4 || n > INT32_MAX)
        return NULL;
    out = arena_alloc(a, n / 4 * 3 + 1);
    if ((got = EVP_DecodeBlock((unsigned char *)out, (const unsigned char *)s, (int)n)) < 0)
        return NULL;
    for (size_t i = n; i && s[i - 1] == '=' && got; i--)
        got--;
    out[got] = 0;
    *ret_n = (size_t)got;
    return out;
}

const char *outside_trouble(struct arena *a, const struct outside_answer *answer)
{
    static const struct {
        int status;
        const char *text;
    } words[] = {
        {400, "the server rejected our request for an unknown reason"},
        {401, "the server has asked for the client to provide credentials"},
        {403, "unknown"},
        {404, "the server could not find the requested resource"},
        {405, "the server does not allow this method on the requested resource"},
        {409, "the server reported a conflict"},
        {429, "the server has received too many requests and has asked us to try again later"},
        {503, "the server is currently unable to handle the request"},
        {504, "the server was unable to return a response in the time allotted, but may still be processing "
              "the request"},
    };

    if (answer->err.code)
        return answer->err.msg;
    if (answer->status >= 200 && answer->status < 300)
        return NULL;
    for (size_t i = 0; i < ARRAY_LEN(words); i++)
        if (words[i].status == answer->status)
            return words[i].text;
    if (answer->status >= 500)
        return arena_printf(a, "an error on the server (\"%.*s\") has prevented the request from succeeding",
                            (int)MIN(answer->n, (size_t)1024), answer->body);
    return arena_printf(a, "the server responded with the status code %d but did not return more information",
                        answer->status);
}

int outside_client_config(struct api *api, struct arena *a, const struct val *config, struct place *ret,
                          const char **ret_path, const char **ret_url, struct err *err)
{
    const struct val *service = val_get(config, "service");
    const char *ns = val_str_at(service, "namespace", ""), *name = val_str_at(service, "name", "");
    const char *bundle = val_str_at(config, "caBundle", ""), *url = val_str_at(config, "url", ""), *at;
    int64_t port = val_int_at(service, "port", 443);
    char *found;
    size_t n;

    *ret = (struct place){0};
    if (*bundle && !(ret->ca_pem = base64_bytes(a, bundle, &n)))
        return err_set(err, INVALID_ARGUMENT, "caBundle is no base64");
    if (service) {
        *ret_path = val_str_at(service, "path", "/");
        ret->server_name = arena_printf(a, "%s.%s.svc", name, ns);
        ret->host = arena_printf(a, "%s:%lld", ret->server_name, (long long)port);
        *ret_url = arena_printf(a, "https://%s%s%s", ret->host, **ret_path == '/' ? "" : "/", *ret_path);
        if (outside_service(api, a, ns, name, port, NULL, "https", &found, err) < 0)
            return -1;
        ret->url = found;
        return 0;
    }
    at = strstr(url, "://");
    at = at ? strchr(at + 3, '/') : NULL;
    *ret_path = at ? at : "/";
    *ret_url = url;
    ret->url = at ? arena_strndup(a, url, (size_t)(at - url)) : url;
    return 0;
}

/* ---------------------------------------------------------------- questions */

static struct memory *memory_of(struct call *c)
{
    struct memory *m = c->memory;

    if (m)
        return m;
    c->memory = m = arena_new_of(c->a, struct memory);
    *m = (struct memory){.api = c->api, .req = c->req, .serve = c->serve, .done = c->done,
                         .arg = c->arg, .now_ms = c->now_ms};
    env_bytes(c->api->env, m->salt, sizeof(m->salt));
    return m;
}

const char *outside_id(struct call *c, const char *who, const void *what, size_t n)
{
    struct memory *m = memory_of(c);
    unsigned char sum[SHA256_DIGEST_LENGTH];
    struct buf b = {0};

    buf_add(&b, m->salt, sizeof(m->salt));
    buf_add(&b, who, strlen(who) + 1);
    buf_add(&b, what, n);
    SHA256((unsigned char *)b.p, b.n, sum);
    buf_done(&b);
    return arena_printf(c->a, "%02x%02x%02x%02x-%02x%02x-4%x%02x-a%x%02x-%02x%02x%02x%02x%02x%02x", sum[0],
                        sum[1], sum[2], sum[3], sum[4], sum[5], sum[6] & 15, sum[7], sum[8] & 15, sum[9],
                        sum[10], sum[11], sum[12], sum[13], sum[14], sum[15]);
}

static struct question *question(struct memory *m, const char *id)
{
    return m ? map_get(&m->by_id, id) : NULL;
}

const struct outside_answer *outside_known(struct call *c, const char *id)
{
    struct question *q = question(c->memory, id);

    return q && !q->open ? &q->answer : NULL;
}

static void run_again(void *arg);

static void maybe_again(struct memory *m)
{
    if (m->open || !m->parked)
        return;
    if (!m->soon)
        m->soon = env_timer_new(m->api->env, run_again, m);
    env_timer_start(m->soon, 0, 0);
}

static void answered(struct question *q)
{
    q->open = false;
    q->http = NULL;
    q->timer = env_timer_free(q->timer);
    q->m->open--;
    maybe_again(q->m);
}

static void on_answer(const struct http_answer *a, char *body, size_t n, const struct err *err, void *arg)
{
    struct question *q = arg;
    struct arena *arena = q->m->req->arena;

    if (err) {
        q->answer.err = *err;
    } else {
        q->answer.status = a->status;
        q->answer.body = arena_strndup(arena, body, n);
        q->answer.n = n;
    }
    answered(q);
}

static void on_late(void *arg)
{
    struct question *q = arg;

    http_call_cancel(q->http);
    err_set(&q->answer.err, TIMEOUT, "context deadline exceeded");
    answered(q);
}

void outside_post(struct call *c, const char *id, const struct place *p, const char *path,
                  const char *text, size_t n, uint32_t timeout_ms)
{
    const struct http_header headers[] = {{"content-type", "application/json"}, {"accept", "application/json, */*"},
                                          {"user-agent", "kube-apiserver-admission"},
                                          {"authorization", p->token ? arena_printf(c->a, "Bearer %s", p->token) : ""}};
    struct memory *m = memory_of(c);
    struct question *q = question(m, id);
    struct http_call_opts opts = {.method = "POST", .path = path, .host = p->host, .headers = headers,
                                  .headers_n = ARRAY_LEN(headers) - !p->token, .body = text, .body_n = n,
                                  .idempotent = true};
    struct http_origin *o;

    c->waits = true;
    if (q) /* under way, by an earlier run or by somebody else in this one */
        return;
    q = arena_new_of(c->a, struct question);
    *q = (struct question){.next = m->questions, .m = m, .id = id};
    m->questions = q;
    map_put(&m->by_id, id, q);
    if (m->asked++ >= OUTSIDE_QUESTIONS_MAX)
        err_set(&q->answer.err, TOO_MANY, "one request may ask at most %d questions", OUTSIDE_QUESTIONS_MAX);
    else if ((o = outside_origin(c->api, p, &q->answer.err))) {
        q->open = true;
        m->open++;
        q->timer = env_timer_new(c->api->env, on_late, q);
        env_timer_start(q->timer, timeout_ms, 0);
        q->http = http_fetch(o, &opts, OUTSIDE_ANSWER_MAX, on_answer, q);
    }
}

/* ---------------------------------------------------------------- the runs of a call */

void outside_recall(struct call *c, struct memory *m)
{
    c->memory = m;
    if (m) {
        c->draws = m->draws;
        c->now_ms = m->now_ms;
    }
}

static void unpark(struct memory *m)
{
    if (!m->parked)
        return;
    m->parked = false;
    list_remove(&m->link);
    m->api->outside->parked_n--;
}

static void drop_questions(struct memory *m)
{
    for (struct question *q = m->questions; q; q = q->next) {
        if (!q->open)
            continue;
        http_call_cancel(q->http);
        q->http = NULL;
        q->open = false;
        q->timer = env_timer_free(q->timer);
    }
    m->open = 0;
}

void outside_forget(struct call *c)
{
    struct memory *m = c->memory;

    if (!m)
        return;
    unpark(m);
    drop_questions(m);
    m->deadline = env_timer_free(m->deadline);
    m->soon = env_timer_free(m->soon);
    map_done(&m->by_id);
    c->memory = NULL;
}

/* Ends a call that waits, in place of its next run. */
static void end_with(struct memory *m, int code, const char *reason, const char *text)
{
    struct call c = {.api = m->api, .req = m->req, .a = m->req->arena, .done = m->done, .arg = m->arg};

    outside_recall(&c, m);
    c.resp.remaining = -1;
    c.warnings.a = c.a;
    fail(&c, code, reason, "%s", text);
    call_finish(&c);
}

static void on_deadline(void *arg)
{
    end_with(arg, 504, "Timeout", "Timeout: request did not complete within requested timeout - "
                                  "context deadline exceeded");
}

static void run_again(void *arg)
{
    struct memory *m = arg;

    unpark(m);
    call_run(m->api, m->req, m->serve, m->done, m->arg, m);
}

bool outside_park(struct call *c)
{
    struct memory *m = c->memory;
    struct outside *out = c->api->outside;

    if (!c->waits)
        return false;
    if (c->req->at_once) {
        fail(c, 500, "InternalError", "Internal error occurred: this needs an answer from outside");
        return false;
    }
    if (out->parked_n >= OUTSIDE_CALLS_MAX) {
        fail(c, 429, "TooManyRequests", "too many requests wait for webhooks, please try again later");
        c->resp.retry_after = "1";
        return false;
    }
    m->draws = c->draws;
    m->parked = true;
    list_push(&out->parked, &m->link);
    out->parked_n++;
    if (!m->deadline) {
        m->deadline = env_timer_new(c->api->env, on_deadline, m);
        env_timer_start(m->deadline, c->verb && streq(c->verb, "deletecollection") ? OUTSIDE_WAIT_MANY_MS
                                                                        : OUTSIDE_WAIT_MAX_MS, 0);
    }
    maybe_again(m);
    return true;
}

void api_cancel(struct api *api, const struct api_request *req)
{
    LIST_EACH(&api->outside->parked, l) {
        struct memory *m = list_entry(l, struct memory, link);

        if (m->req != req)
            continue;
        end_with(m, 503, "ServiceUnavailable", "the request was cancelled");
        return;
    }
}

/* ---------------------------------------------------------------- life */

void outside_start(struct api *api)
{
    struct outside *out = xcalloc(1, sizeof(*out));

    out->api = api;
    list_init(&out->parked);
    api->outside = out;
}

void outside_stop(struct api *api)
{
    struct outside *out = api->outside;
    struct list *l;

    if (!out)
        return;
    while ((l = list_first(&out->parked)))
        end_with(list_entry(l, struct memory, link), 503, "ServiceUnavailable", "the server is shutting down");
    map_done(&out->origins); /* they are the client's */
    if (out->client)
        http_client_free(out->client);
    free(out);
    api->outside = NULL;
}
