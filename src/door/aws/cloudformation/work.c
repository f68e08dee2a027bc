/* door/aws/cloudformation/work.c - one resource's work: a queue of calls of the door's own operations.
 *
 * A type's function says all calls at once (or more of them when an answer came); they are made one after another, by HTTP on
 * a socket of the door's own, in the name of who asked for the stack. So what a stack makes is what boto3 would have made:
 * the same checks, the same objects. Nothing here blocks: an answer or a timer takes the work on. */
#include "door/aws/cloudformation/cfn_int.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include "base/log.h"
#include "env/clock.h"

enum { TRIES_MAX = 8, RETRY_MS = 250, ANSWER_MAX = 8 << 20 };

static void next(struct cfn_work *w);

/* ---- what types say ---- */

struct cfn_call *cfn_push(struct cfn_work *w, const struct cfn_call *c)
{
    struct cfn_call *n = arena_memdup(w->a, c, sizeof *c);

    n->next = NULL;
    *w->end = n;
    w->end = &n->next;
    return n;
}

struct cfn_call *cfn_push_next(struct cfn_work *w, const struct cfn_call *c)
{
    struct cfn_call *n = arena_memdup(w->a, c, sizeof *c);

    n->next = w->calls;
    if (!w->calls)
        w->end = &n->next;
    w->calls = n;
    return n;
}

void cfn_fail(struct cfn_work *w, const char *code, const char *fmt, ...)
{
    va_list ap;

    if (w->failed)
        return;
    w->failed = true;
    w->code = code;
    va_start(ap, fmt);
    vsnprintf(w->why, sizeof w->why, fmt, ap);
    va_end(ap);
}

void cfn_attr(struct cfn_work *w, const char *name, const char *value)
{
    if (value)
        val_put_str(w->a, w->attrs, name, value);
}

void cfn_phys(struct cfn_work *w, const char *phys)
{
    struct cfn_res *r = w->r;

    w->phys = arena_strdup(w->a, phys);
    if (!r->phys || !streq(r->phys, phys) || !r->made) {
        r->phys = arena_strdup(w->s->a, phys);
        r->made = true;
        cfn_save(w->s, false, NULL, NULL);
    }
}

struct cfn_call cfn_rest(struct cfn_work *w, const char *method, const struct val *body, const char *fmt, ...)
{
    struct cfn_call c = {.service = "lambda", .method = method};
    va_list ap;

    va_start(ap, fmt);
    c.path = arena_vprintf(w->a, fmt, ap);
    va_end(ap);
    if (body) {
        c.body = json_text(w->a, body, &c.body_n);
        c.type = "application/json";
    }
    return c;
}

struct cfn_call cfn_s3(struct cfn_work *w, const char *method, const char *body, const char *fmt, ...)
{
    struct cfn_call c = {.service = "s3", .method = method, .body = body, .body_n = body ? strlen(body) : 0,
                         .type = body ? "application/xml" : NULL};
    va_list ap;

    va_start(ap, fmt);
    c.path = arena_vprintf(w->a, fmt, ap);
    va_end(ap);
    return c;
}

struct cfn_call cfn_json(struct cfn_work *w, const char *service, const char *target, const struct val *body)
{
    struct cfn_call c = {.service = service, .method = "POST", .path = "/", .target = target, .type = "application/x-amz-json-1.1"};

    c.body = json_text(w->a, body ? body : val_map(w->a), &c.body_n);
    return c;
}

struct cfn_call cfn_query(struct cfn_work *w, const char *service, const char *version, const char *action, ...)
{
    struct cfn_call c = {.service = service, .method = "POST", .path = "/", .type = "application/x-www-form-urlencoded"};
    struct buf b = {0};
    const char *name;
    va_list ap;

    buf_printf(&b, "Action=%s&Version=%s", action, version);
    va_start(ap, action);
    while ((name = va_arg(ap, const char *))) {
        const char *value = va_arg(ap, const char *);

        if (value)
            buf_printf(&b, "&%s=%s", name, http_escape(w->a, value, NULL));
    }
    va_end(ap);
    c.body_n = b.n;
    c.body = arena_strndup(w->a, b.p, b.n);
    buf_done(&b);
    return c;
}

/* Deterministic, so that a start after a crash finds what the first one made. */
const char *cfn_name(struct cfn_work *w, const char *property, size_t max, bool low)
{
    static const char LETTERS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    const char *given = property ? val_str_at(w->props, property, NULL) : NULL;
    _auto_(freep) char *seed = xasprintf("%s/%s/%lld", w->s->id, w->r->logical, (long long)w->r->generation);
    char hash[SIGV4_HEX_BYTES], tail[13], *name;
    size_t room;

    if (given)
        return given;
    if (w->r->phys && w->action != CFN_CREATE)
        return w->r->phys;
    sigv4_sha256_hex(seed, strlen(seed), hash);
    for (int i = 0; i < 12; i++) {
        unsigned byte;

        sscanf(hash + 2 * i, "%2x", &byte);
        tail[i] = LETTERS[byte % 36];
    }
    tail[12] = 0;
    room = max - 14;
    name = arena_printf(w->a, "%.*s-%.*s-%s", (int)MIN(strlen(w->s->name), room / 2), w->s->name,
                        (int)(room - MIN(strlen(w->s->name), room / 2)), w->r->logical, tail);
    for (char *p = name; low && *p; p++)
        *p = (char)tolower((unsigned char)*p);
    return name;
}

/* ---- the end of a work ---- */

static void timer_gone(uv_handle_t *h)
{
    struct cfn_work *w = h->data;

    free(h);
    arena_free(w->a);
    free(w);
}

static void work_free(struct cfn_work *w)
{
    w->closing = true;
    uv_close((uv_handle_t *)w->timer, timer_gone);
}

static const char *words(enum cfn_action a, bool failed)
{
    static const char *const DONE[] = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "DELETE_COMPLETE"};
    static const char *const FAILED[] = {"CREATE_FAILED", "UPDATE_FAILED", "DELETE_FAILED"};

    return failed ? FAILED[a] : DONE[a];
}

static void finish(struct cfn_work *w)
{
    struct cfn_stack *s = w->s;
    struct cfn_res *r = w->r;
    enum cfn_action action = w->action;
    char reason[1400];

    r->work = NULL;
    r->token = NULL;
    s->works--;
    if (w->failed) {
        r->failed = true;
        r->dirty = action != CFN_DELETE;
        snprintf(reason, sizeof reason, "Resource handler returned message: \"%s\" (RequestToken: %s, HandlerErrorCode: %s)",
                 w->why, cfn_uuid(w->a), w->code ? w->code : "GeneralServiceException");
        cfn_res_status(s, r, words(action, true), w->plain ? w->why : reason);
    } else if (action == CFN_DELETE) {
        r->made = false;
        cfn_res_status(s, r, words(action, false), NULL);
    } else {
        if (w->phys)
            r->phys = arena_strdup(s->a, w->phys);
        r->made = true;
        r->dirty = false;
        r->done = s->op;
        r->props = val_copy(s->a, w->props);
        r->attrs = val_copy(s->a, w->attrs);
        cfn_res_status(s, r, words(action, false), NULL);
    }
    work_free(w);
    cfn_save(s, false, NULL, NULL);
    cfn_step(s);
}

/* ---- one call ---- */

static bool is_word(const char *list, const char *word)
{
    size_t n = strlen(word);

    for (const char *p = list; p && (p = strstr(p, word)); p += n)
        if ((p == list || p[-1] == ' ') && (!p[n] || p[n] == ' '))
            return true;
    return false;
}

static void read_error(struct cfn_work *w, struct cfn_answer *ans)
{
    const char *type = http_answer_get(ans->http, "x-amzn-errortype");
    const struct val *e = val_is(ans->v, VAL_MAP) ? ans->v : NULL, *inner = val_at(e, "Error[0]");

    ans->code = type ? arena_strndup(w->a, type, strcspn(type, ":")) : val_str_at(e, "__type", NULL);
    ans->message = val_str_at(e, "message", val_str_at(e, "Message", NULL));
    if (inner) {
        ans->code = xml_get(inner, "Code", ans->code);
        ans->message = xml_get(inner, "Message", ans->message);
    } else if (!ans->code && e) {
        ans->code = xml_get(e, "Code", NULL);
        ans->message = xml_get(e, "Message", ans->message);
    }
    if (ans->code && strrchr(ans->code, '#'))
        ans->code = strrchr(ans->code, '#') + 1;
    if (!ans->code)
        ans->code = arena_printf(w->a, "Http%d", ans->status);
    if (!ans->message)
        ans->message = ans->code;
}

static const char *handler_code(const struct cfn_answer *ans)
{
    if (strstr(ans->code, "AlreadyExists") || strstr(ans->code, "ResourceConflict") || strstr(ans->code, "AlreadyOwned"))
        return "AlreadyExists";
    if (strstr(ans->code, "NotFound") || strstr(ans->code, "NoSuch"))
        return "NotFound";
    if (strstr(ans->code, "AccessDenied") || ans->status == 403)
        return "AccessDenied";
    return ans->status < 500 ? "InvalidRequest" : "GeneralServiceException";
}

static bool comes_later(const struct cfn_answer *ans)
{
    return ans->status == 429 || ans->status == 503 ||
           (ans->status == 409 && ans->message && strstr(ans->message, "cannot be performed at this time"));
}

static void on_timer(uv_timer_t *t)
{
    struct cfn_work *w = t->data;

    if (w->at && w->at->wait) {
        cfn_fail(w, "NotStabilized", "CloudFormation did not receive a response from your Custom Resource. Please check your logs "
                 "for requestId [%s]. If you are using the Python cfn-response module, you may need to update your Lambda function "
                 "code so that CloudFormation can attach the updated version.", w->r->token ? w->r->token : "");
        w->at = NULL;
    }
    next(w);
}

static void on_answer(const struct http_answer *a, char *body, size_t n, const struct err *err, void *arg)
{
    struct cfn_work *w = arg;
    struct cfn_call *c = w->at;
    struct cfn_answer ans = {.status = a ? a->status : 0, .http = a};
    struct err bad;
    size_t at = 0;

    w->call = NULL;
    if (w->s->c->stopping)
        return;
    if (err || !a) {
        if (++w->tries < TRIES_MAX) {
            uv_timer_start(w->timer, on_timer, RETRY_MS << w->tries, 0);
            return;
        }
        cfn_fail(w, "GeneralServiceException", "%s", err ? err->msg : "no answer");
        w->at = NULL;
        next(w);
        return;
    }
    while (at < n && isspace((unsigned char)body[at]))
        at++;
    if (n > at && body[at] == '<')
        ans.v = xml_parse(w->a, body, n, &bad);
    else if (n > at)
        ans.v = json_parse(w->a, body, n, &bad);
    if (ans.status >= 300) {
        read_error(w, &ans);
        if (comes_later(&ans) && ++w->tries < TRIES_MAX) {
            uv_timer_start(w->timer, on_timer, RETRY_MS << w->tries, 0);
            return;
        }
        if (!is_word(c->fine, ans.code)) {
            static const char *const NAMES[][2] = {{"lambda", "Lambda"}, {"s3", "S3"}, {"iam", "Iam"}, {"logs", "CloudWatchLogs"},
                                                   {"ssm", "Ssm"}, {"events", "EventBridge"}, {"scheduler", "Scheduler"},
                                                   {"cloudformation", "CloudFormation"}};
            const char *service = c->service;

            for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
                if (streq(NAMES[i][0], c->service))
                    service = NAMES[i][1];
            cfn_fail(w, handler_code(&ans), "%s (Service: %s, Status Code: %d)", ans.message, service, ans.status);
        }
    }
    w->at = NULL;
    if (!w->failed && c->got)
        c->got(w, &ans);
    next(w);
}

static void send_call(struct cfn_work *w)
{
    struct cfn_call *c = w->at;
    struct http_header h[6];
    size_t n = 0;
    struct http_call_opts o = {.method = c->method, .path = c->path, .body = c->body, .body_n = c->body_n, .headers = h,
                               .timeout_ms = 120000};

    h[n++] = (struct http_header){"x-tandem-service", c->service};
    h[n++] = (struct http_header){"x-tandem-caller", val_str_at(w->s->spec, "caller", "")};
    if (c->type)
        h[n++] = (struct http_header){"content-type", c->type};
    if (c->target)
        h[n++] = (struct http_header){"x-amz-target", c->target};
    if (c->async)
        h[n++] = (struct http_header){"x-amz-invocation-type", c->async};
    o.headers_n = n;
    w->call = http_fetch(w->s->c->self, &o, ANSWER_MAX, on_answer, w);
}

/* Always from the loop, never from inside a type's function. */
static void next(struct cfn_work *w)
{
    if (w->closing || w->s->c->stopping)
        return;
    if (!w->at) { /* else: tried again */
        w->tries = 0;
        if (w->failed || !w->calls) {
            finish(w);
            return;
        }
        w->at = w->calls;
        w->calls = w->at->next;
        if (!w->calls)
            w->end = &w->calls;
        if (w->at->wait) {
            uv_timer_start(w->timer, on_timer, (uint64_t)MAX(w->deadline_ms - clock_real_ms(), 1), 0);
            return;
        }
        if (w->at->delay_ms) {
            uv_timer_start(w->timer, on_timer, (uint64_t)w->at->delay_ms, 0);
            w->at->delay_ms = 0;
            return;
        }
    }
    send_call(w);
}

void cfn_work_start(struct cfn_stack *s, struct cfn_res *r, enum cfn_action action, const struct val *props,
                    const struct val *was, bool resumed)
{
    struct cfn_work *w = xcalloc(1, sizeof *w);

    w->s = s;
    w->r = r;
    w->t = cfn_type_of(r->type);
    w->a = arena_new();
    w->action = action;
    w->props = props ? val_copy(w->a, props) : val_map(w->a);
    w->was = was ? val_copy(w->a, was) : NULL;
    w->phys = r->phys ? arena_strdup(w->a, r->phys) : NULL;
    w->attrs = r->attrs ? val_copy(w->a, r->attrs) : val_map(w->a);
    w->end = &w->calls;
    w->resumed = resumed;
    w->timer = xcalloc(1, sizeof *w->timer);
    uv_timer_init(s->c->d->o.loop, w->timer);
    w->timer->data = w;
    r->work = w;
    r->failed = false;
    if (action == CFN_CREATE)
        r->props = val_copy(s->a, w->props); /* what a half made one has to be deleted by */
    s->works++;
    if (!w->t)
        cfn_fail(w, "InvalidRequest", "tandem does not support resources of the type %s", r->type);
    else if (action == CFN_CREATE)
        w->t->create(w);
    else if (action == CFN_UPDATE)
        w->t->update(w);
    else if (w->t->drop && r->made && w->phys)
        w->t->drop(w);
    uv_timer_start(w->timer, on_timer, 0, 0);
}

/* A custom resource that answers an update with another id has made a new thing: the one before is deleted later. */
static void replaced(struct cfn_work *w, const char *phys)
{
    struct cfn_stack *s = w->s;
    struct cfn_res *was = cfn_res_new(s, w->r->logical, w->r->type);

    was->phys = w->r->phys;
    was->props = w->r->props;
    was->attrs = w->r->attrs;
    was->needs = w->r->needs;
    was->status = w->r->status;
    was->at_ms = w->r->at_ms;
    was->replace_keep = w->r->replace_keep;
    was->made = true;
    was->old = s->op;
    cfn_phys(w, phys);
}

bool cfn_custom_answer(struct cfn_stack *s, const char *logical, const char *token, const struct val *v)
{
    for (uint32_t i = 0; i < s->res_n; i++) {
        struct cfn_res *r = s->res[i];
        struct cfn_work *w = r->work;
        const char *status = val_str_at(v, "Status", ""), *phys = val_str_at(v, "PhysicalResourceId", NULL);

        if (!w || !streq(r->logical, logical) || !r->token || !streq(r->token, token))
            continue;
        if (!w->at || !w->at->wait) { /* it answered before the call that started it was seen to be */
            if (!w->calls || !w->calls->wait)
                return false;
            w->calls = w->calls->next;
        }
        uv_timer_stop(w->timer);
        if (w->call)
            http_call_cancel(w->call);
        w->call = NULL;
        if (!w->calls)
            w->end = &w->calls;
        w->at = NULL;
        if (streq(status, "FAILED"))
            cfn_fail(w, "GeneralServiceException", "Received response status [FAILED] from custom resource. Message returned: %s",
                     val_str_at(v, "Reason", "(no reason)"));
        else if (!streq(status, "SUCCESS"))
            cfn_fail(w, "InvalidRequest", "Invalid response object: Status must be SUCCESS or FAILED");
        else if (w->action != CFN_DELETE && (!phys || !*phys))
            cfn_fail(w, "InvalidRequest", "Invalid PhysicalResourceId");
        else if (w->action == CFN_UPDATE && !streq(r->phys, phys))
            replaced(w, phys);
        else if (w->action != CFN_DELETE)
            cfn_phys(w, phys);
        if (!w->failed)
            VAL_EACH_MEMBER(val_get(v, "Data"), m)
                val_put(w->a, w->attrs, m->key, val_copy(w->a, &m->v));
        uv_timer_start(w->timer, on_timer, 0, 0);
        return true;
    }
    return false;
}

void cfn_works_cancel(struct cfn_stack *s)
{
    for (uint32_t i = 0; i < s->res_n; i++) {
        struct cfn_work *w = s->res[i]->work;

        if (!w)
            continue;
        if (w->call)
            http_call_cancel(w->call);
        s->res[i]->work = NULL;
        work_free(w);
    }
    s->works = 0;
}
