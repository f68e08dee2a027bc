/* apiserver/webhooks.c - MutatingWebhookConfiguration and ValidatingWebhookConfiguration: who is asked about
 * a write, what is asked, and what the answer does.
 *
 * The configurations are kept as two flat lists (by name of the configuration, then in its order), made
 * anew when one of them changes. Mutating webhooks are asked one after the other, each about what the one
 * before left; validating ones all at once. Questions go out through outside.h, so everything here is
 * written as if the answers were there. */
#include "apiserver/admission.h"
#include "apiserver/outside.h"
#include "apiserver/policyexpr.h"

#include "base/log.h"
#include "codec/json.h"
#include "schema/patch.h"

enum { MUTATING, VALIDATING };
static const char *const TABLES[] = {"mutatingwebhookconfigurations", "validatingwebhookconfigurations"};

struct hook {
    const struct val *v;     /* in its configuration */
    const char *config, *name, *id;
    bool ignore, equivalent, if_needed;
    struct exprs *x; /* its matchConditions; lives in the lists' arena */
    const struct expr **conditions;
    uint32_t conditions_n;
};

struct webhooks {
    struct api *api;
    struct store_watch *watch[2];
    struct arena *arena; /* of the lists and the configurations */
    struct hook *hooks[2];
    uint32_t n[2];
    bool stale;
};

/* ---------------------------------------------------------------- the lists */

static void on_change(void *arg, const struct store_event *ev)
{
    (void)ev;
    ((struct webhooks *)arg)->stale = true;
}

static uint32_t count(struct webhooks *w, struct store_table *t)
{
    struct store_iter it;
    struct err ignored = {0};
    const struct obj *o;
    uint32_t n = 0;

    if (store_iter_init(&it, w->api->store, t, NULL, 0, NULL, NULL, &ignored) < 0)
        return 0;
    while ((o = store_iter_next(&it)))
        n += val_len(val_get(obj_val(o), "webhooks"));
    store_iter_done(&it);
    return n;
}

static void free_exprs(void *x)
{
    exprs_free(x);
}

static void read_conditions(struct webhooks *w, struct hook *h)
{
    const struct val *list = val_get(h->v, "matchConditions");

    if (!val_len(list))
        return;
    h->x = exprs_new(false, false);
    arena_pin(w->arena, free_exprs, h->x);
    exprs_add_all(h->x, EXPR_MATCH, list, &h->conditions, &h->conditions_n);
}

static void read_table(struct webhooks *w, int kind)
{
    struct store_table *t = table_named(w->api->store, "admissionregistration.k8s.io", TABLES[kind]);
    uint32_t max = count(w, t), n = 0;
    struct store_iter it;
    struct err ignored = {0};
    const struct obj *o;

    w->n[kind] = 0;
    w->hooks[kind] = arena_array(w->arena, struct hook, max ? max : 1);
    if (store_iter_init(&it, w->api->store, t, NULL, 0, NULL, NULL, &ignored) < 0)
        return;
    while ((o = store_iter_next(&it))) {
        const struct val *config = obj_edit(o, w->arena);
        uint32_t i = 0;

        VAL_EACH(val_get(config, "webhooks"), v) {
            const char *name = val_str_at(v, "name", "");

            w->hooks[kind][n++] = (struct hook){
                .v = v, .config = val_str_at(config, "metadata.name", ""), .name = name,
                .id = arena_printf(w->arena, "%d/%s/%s/%u", kind, o->name, name, i++),
                .ignore = streq(val_str_at(v, "failurePolicy", "Fail"), "Ignore"),
                .equivalent = !streq(val_str_at(v, "matchPolicy", "Equivalent"), "Exact"),
                .if_needed = streq(val_str_at(v, "reinvocationPolicy", "Never"), "IfNeeded")};
            read_conditions(w, &w->hooks[kind][n - 1]);
        }
    }
    store_iter_done(&it);
    w->n[kind] = n;
}

/* The number of webhooks; 0 also for what is never subject to them: their own configurations, and what
 * this process writes for itself. */
static uint32_t hooks_of_call(struct call *c, int kind, const struct hook **ret)
{
    struct webhooks *w = c->api->webhooks;

    if (!w || !c->user)
        return 0;
    if (w->stale) {
        w->stale = false;
        arena_free(w->arena);
        w->arena = arena_new();
        read_table(w, MUTATING);
        read_table(w, VALIDATING);
    }
    *ret = w->hooks[kind];
    return w->n[kind] && !admission_exempt(c) ? w->n[kind] : 0;
}

bool webhooks_any(struct call *c)
{
    const struct hook *ignored;

    return hooks_of_call(c, MUTATING, &ignored) || hooks_of_call(c, VALIDATING, &ignored);
}

/* ---------------------------------------------------------------- one question */

enum verdict { WAITS, ALLOWED, REJECTED, FAILED, BROKEN };
/* FAILED: the webhook could not be asked, why says how; the failure policy decides. REJECTED and BROKEN:
 * the Status is in status. */
struct opinion {
    enum verdict verdict;
    const char *why;
    const struct val *status;
    const struct val *patch; /* a list, or NULL */
};

static enum verdict failed(struct opinion *o, const char *why)
{
    o->why = why;
    return o->verdict = FAILED;
}

static enum verdict invalid(struct call *c, struct opinion *o, const char *why)
{
    return failed(o, arena_printf(c->a, "received invalid webhook response: %s", why));
}

/* The first version of AdmissionReview that both sides know. */
static const char *review_version(const struct hook *h)
{
    VAL_EACH(val_get(h->v, "admissionReviewVersions"), it)
        if (streq(val_text(it, ""), "v1") || streq(val_text(it, ""), "v1beta1"))
            return val_text(it, "");
    return NULL;
}

static const struct val *denial(struct call *c, const struct hook *h, const struct val *result)
{
    struct val *s = result ? val_copy(c->a, result) : val_map(c->a), *out;
    const char *message = val_str_at(s, "message", ""), *reason = val_str_at(s, "reason", "");
    int64_t code = val_int_at(s, "code", 0);
    const char *text = *message ? message : reason;

    out = status_doc(c->a, code < 400 ? 400 : (int)code, reason,
                     *text ? arena_printf(c->a, "admission webhook \"%s\" denied the request: %s", h->name, text)
                           : arena_printf(c->a, "admission webhook \"%s\" denied the request without "
                                          "explanation", h->name));
    if (val_is(val_get(s, "details"), VAL_MAP))
        val_put(c->a, out, "details", val_get(s, "details"));
    return out;
}

/* What the response says about its patch. */
static enum verdict read_patch(struct call *c, const struct val *response, bool v1, bool mutating,
                               struct opinion *o)
{
    const char *patch = val_str_at(response, "patch", ""), *type = val_str_at(response, "patchType", NULL);
    struct err err = {0};
    char *text;
    size_t n;

    if (!mutating) {
        if (v1 && *patch)
            return invalid(c, o, "validating webhook may not return response.patch");
        if (v1 && type)
            return invalid(c, o, "validating webhook may not return response.patchType");
        return ALLOWED;
    }
    if (v1 && *patch && !type)
        return invalid(c, o, "webhook returned response.patch but not response.patchType");
    if (v1 && !*patch && type)
        return invalid(c, o, "webhook returned response.patchType but not response.patch");
    if (v1 && type && !*type)
        return invalid(c, o, "webhook returned invalid response.patchType of \"\"");
    if (!*patch || !val_bool_at(response, "allowed", false))
        return ALLOWED;
    if (!(text = base64_bytes(c->a, patch, &n)) || !(o->patch = json_parse(c->a, text, n, &err)) ||
        !(val_is(o->patch, VAL_LIST) || val_is(o->patch, VAL_NULL)))
        return failed(o, arena_printf(c->a, "received undecodable patch in webhook response: %s",
                                      err.code ? err.msg : "it is no list"));
    if (v1 && !streq(type, "JSONPatch"))
        return failed(o, arena_printf(c->a, "unsupported patch type \"%s\"", type));
    return ALLOWED;
}

static enum verdict read_answer(struct call *c, const struct hook *h, const char *id, const char *version,
                                const char *url, const struct outside_answer *answer, bool mutating,
                                struct opinion *o)
{
    bool v1 = streq(version, "v1");
    const char *trouble = outside_trouble(c->a, answer), *api_version, *kind;
    const struct val *review, *response;
    struct err err = {0};
    enum verdict v;

    if (trouble && answer->err.code)
        return failed(o, arena_printf(c->a, "failed to call webhook: Post \"%s\": %s", url, trouble));
    if (trouble)
        return failed(o, arena_printf(c->a, "failed to call webhook: %s", trouble));
    if (!(review = json_parse(c->a, answer->body, answer->n, &err)) || !val_is(review, VAL_MAP))
        return failed(o, arena_printf(c->a, "failed to call webhook: couldn't get version/kind; json parse "
                                      "error: %s", err.code ? err.msg : "it is no object"));
    response = val_get(review, "response");
    if (!val_is(response, VAL_MAP))
        return invalid(c, o, "webhook response was absent");
    api_version = val_str_at(review, "apiVersion", "");
    kind = val_str_at(review, "kind", "");
    if (v1 && !streq(val_str_at(response, "uid", ""), id))
        return invalid(c, o, arena_printf(c->a, "expected response.uid=\"%s\", got \"%s\"", id,
                                          val_str_at(response, "uid", "")));
    if (v1 && (!streq(api_version, "admission.k8s.io/v1") || !streq(kind, "AdmissionReview")))
        return invalid(c, o, arena_printf(c->a, "expected webhook response of admission.k8s.io/v1, "
                                          "Kind=AdmissionReview, got %s, Kind=%s", api_version, kind));
    if ((v = read_patch(c, response, v1, mutating, o)) != ALLOWED)
        return v;
    VAL_EACH_MEMBER(val_get(response, "auditAnnotations"), m)
        call_annotate(c, arena_printf(c->a, "%s/%s", h->name, m->key), val_text(&m->v, ""));
    VAL_EACH(val_get(response, "warnings"), w)
        texts_add(&c->warnings, "%s", val_text(w, ""));
    if (val_bool_at(response, "allowed", false))
        return o->verdict = ALLOWED;
    o->status = denial(c, h, val_get(response, "status"));
    return o->verdict = REJECTED;
}

static const char *with_timeout(struct call *c, const char *path, int64_t seconds)
{
    return arena_printf(c->a, "%s%s%ctimeout=%llds", *path == '/' ? "" : "/", path,
                        strchr(path, '?') ? '&' : '?', (long long)seconds);
}

/* Asks one webhook about the request, or says what it said. */
static enum verdict ask(struct call *c, struct admission *ad, const struct hook *h,
                        const struct admission_as *as, const struct val *object, const struct val *old,
                        bool mutating, struct opinion *o)
{
    const char *effects = val_str_at(h->v, "sideEffects", ""), *version = review_version(h), *id, *path, *url;
    int64_t seconds = val_int_at(h->v, "timeoutSeconds", 10);
    const struct outside_answer *answer;
    struct buf b = {0}, review = {0};
    struct err err = {0};
    struct place place;
    int found;

    *o = (struct opinion){0};
    if (c->o.dry_run && !streq(effects, "None") && !streq(effects, "NoneOnDryRun")) {
        o->status = status_doc(c->a, 400, "BadRequest", arena_printf(
            c->a, "admission webhook \"%s\" does not support dry run", h->name));
        return o->verdict = BROKEN;
    }
    if (!version)
        return failed(o, "could not create admission objects: webhook does not accept known AdmissionReview "
                         "versions (v1, v1beta1)");
    found = outside_client_config(c->api, c->a, val_get(h->v, "clientConfig"), &place, &path, &url, &err);
    path = with_timeout(c, path, seconds);
    url = with_timeout(c, url, seconds) + (*url == '/' ? 0 : 1); /* it has its own first slash */
    json_write(&b, admission_request(c, ad, as, object, old));
    id = outside_id(c, h->id, b.p, b.n);
    if ((answer = outside_known(c, id))) {
        buf_done(&b);
        return read_answer(c, h, id, version, url, answer, mutating, o);
    }
    if (found < 0) {
        buf_done(&b);
        return failed(o, arena_printf(c->a, "failed to call webhook: Post \"%s\": %s", url, err.msg));
    }
    buf_printf(&review, "{\"kind\":\"AdmissionReview\",\"apiVersion\":\"admission.k8s.io/%s\",\"request\":"
               "{\"uid\":\"%s\",", version, id);
    buf_add(&review, b.p + 1, b.n - 1);
    buf_addc(&review, '}');
    outside_post(c, id, &place, path, review.p, review.n, (uint32_t)(seconds * 1000));
    buf_done(&b);
    buf_done(&review);
    return o->verdict = WAITS;
}

/* ---------------------------------------------------------------- who is asked */

/* 1: this one, as *ret; 0: not; -1: failed. */
static int wanted(struct call *c, struct admission *ad, const struct hook *h, struct admission_as *ret)
{
    if (!admission_match_rules(c, ad, val_get(h->v, "rules"), h->equivalent, ret) ||
        !admission_match_object(c, ad, val_get(h->v, "objectSelector")))
        return 0;
    return admission_match_namespace(c, ad, val_get(h->v, "namespaceSelector"));
}

/* Do its match conditions hold? 1, 0; -1: that cannot be said, and so the request is refused. */
static int conditions_hold(struct call *c, struct admission *ad, const struct hook *h, const struct admission_as *as,
                           const struct val *object, const struct val *old)
{
    const char *why;
    int hold;

    if (!h->conditions_n)
        return 1;
    hold = exprs_match(expr_run_new(h->x, c, ad, as, object, old, NULL), h->conditions, h->conditions_n, h->ignore,
                       &why);
    return hold < 0 ? fail_forbidden(c, ad->name, "%s", why) : hold;
}

/* What an opinion means: 0 go on, -1 the request ends. */
static int judge(struct call *c, const struct hook *h, const struct opinion *o, const char *annotation)
{
    const char *text;

    if (o->verdict == ALLOWED)
        return 0;
    if (o->verdict == REJECTED || o->verdict == BROKEN)
        return fail_status(c, o->status);
    text = arena_printf(c->a, "failed calling webhook \"%s\": %s", h->name, o->why);
    LOG(WARN, "api", "webhook=%s config=%s did=%s err=\"%s\"", h->name, h->config,
        h->ignore ? "ignore" : "refuse", o->why);
    if (!h->ignore)
        return fail_internal(c, text);
    call_annotate(c, annotation, h->name);
    return 0;
}

/* ---------------------------------------------------------------- mutating */

/* Who was asked, between the two rounds (ad->hooks). */
struct rounds {
    const struct val *last; /* what the first round ended with */
    bool *asked, *again;    /* by place in the list: may be asked again; is to be */
    uint32_t n;
};

static struct rounds *rounds_of(struct call *c, struct admission *ad, uint32_t n)
{
    struct rounds *r = ad->hooks;

    if (r)
        return r;
    r = arena_new_of(c->a, struct rounds);
    *r = (struct rounds){.asked = arena_array(c->a, bool, n), .again = arena_array(c->a, bool, n), .n = n};
    memset(r->asked, 0, n * sizeof(bool));
    memset(r->again, 0, n * sizeof(bool));
    return ad->hooks = r;
}

static void ask_again(struct rounds *r)
{
    for (uint32_t i = 0; i < r->n; i++) {
        r->again[i] |= r->asked[i];
        r->asked[i] = false;
    }
}

/* The object as a webhook sees it: with who manages its fields. */
static const struct val *shown(struct call *c, struct admission *ad, const struct admission_as *as)
{
    struct val *v = ad->v;

    if (v && ad->in && val_len(c->managed)) {
        v = val_copy(c->a, v);
        val_put(c->a, meta_of(c->a, v), "managedFields", c->managed);
    }
    return admission_convert(c, ad, as, v);
}

/* What the patch made of it, decoded and with its defaults, in place of ad->v. */
static int take_patch(struct call *c, struct admission *ad, const struct hook *h,
                      const struct admission_as *as, const struct val *object, const struct val *patch,
                      bool *ret_changed)
{
    const struct subresource *sub = *ad->sub ? schema_sub(as->r, ad->sub) : NULL;
    struct err err = {0};
    struct val *v;

    if (!val_len(patch))
        return 0;
    if (!object)
        return fail_internal(c, arena_printf(c->a, "admission webhook \"%s\" attempted to modify the object, "
                                             "which is not supported for this operation", h->name));
    if (val_len(patch) > PATCH_OPS_MAX)
        return fail_internal(c, "the patch has too many operations");
    if (!(v = patch_json(c->a, object, patch, &err)) || !val_is(v, VAL_MAP))
        return fail_internal(c, err.code ? err.msg : "the patched object is no object");
    v = val_copy(c->a, v);
    if (ad->in) {
        if (schema_decode(as->r, c->a, v, NULL, &err) < 0)
            return fail_internal(c, err.msg);
        schema_default(as->r, c->a, v);
        if (as->r != ad->in && schema_convert(as->r, ad->in, c->a, v, &err) < 0)
            return fail_internal(c, err.msg);
        schema_default(ad->in, c->a, v);
        val_del(meta_of(c->a, v), "managedFields");
    } else if (sub && sub->type &&
               schema_decode_type(c->api->schema, sub->type, as->kind, as->version, c->a, v, NULL, &err) < 0) {
        return fail_internal(c, err.msg);
    }
    *ret_changed = !val_equal(v, ad->v);
    *ad->v = *v;
    return 0;
}

static void note_mutation(struct call *c, const struct hook *h, bool again, uint32_t i, bool changed,
                          const struct val *patch)
{
    struct val *v = val_map(c->a);
    struct buf b = {0};

    val_put_str(c->a, v, "configuration", h->config);
    val_put_str(c->a, v, "webhook", h->name);
    val_put_bool(c->a, v, "mutated", changed);
    json_write(&b, v);
    call_annotate(c, arena_printf(c->a, "mutation.webhook.admission.k8s.io/round_%d_index_%u", again, i), b.p);
    buf_done(&b);
    if (!val_len(patch))
        return;
    val_del(v, "mutated");
    val_put(c->a, v, "patch", patch);
    val_put_str(c->a, v, "patchType", "JSONPatch");
    json_write(&b, v);
    call_annotate(c, arena_printf(c->a, "patch.webhook.admission.k8s.io/round_%d_index_%u", again, i), b.p);
    buf_done(&b);
}

int webhooks_mutate(struct call *c, struct admission *ad)
{
    const struct hook *hooks = NULL;
    uint32_t n = hooks_of_call(c, MUTATING, &hooks);
    struct rounds *r;

    if (!n)
        return 0;
    r = rounds_of(c, ad, n);
    if (ad->again && r->last && !val_equal(r->last, ad->v))
        ask_again(r); /* the plugins of this process changed it after the webhooks had seen it */
    for (uint32_t i = 0; i < n; i++) {
        const struct hook *h = &hooks[i];
        const struct val *object, *old;
        struct admission_as as;
        struct opinion o;
        bool changed = false;
        int want = wanted(c, ad, h, &as);

        if (want < 0)
            return -1;
        if (!want || (ad->again && !r->again[i]))
            continue;
        object = shown(c, ad, &as);
        old = admission_convert(c, ad, &as, ad->old);
        if ((ad->v && !object) || (ad->old && !old))
            return -1;
        if ((want = conditions_hold(c, ad, h, &as, object, old)) < 0)
            return -1;
        if (!want)
            continue;
        if (ask(c, ad, h, &as, object, old, true, &o) == WAITS)
            return -1;
        if (o.verdict == ALLOWED && take_patch(c, ad, h, &as, object, o.patch, &changed) < 0)
            return -1;
        note_mutation(c, h, ad->again, i, changed, o.patch);
        if (changed) {
            ask_again(r);
            ad->changed = true;
        }
        if (h->if_needed)
            r->asked[i] = true;
        if (judge(c, h, &o, arena_printf(c->a, "failed-open.mutation.webhook.admission.k8s.io/round_%d_index_%u",
                                         ad->again, i)) < 0)
            return -1;
    }
    r->last = ad->v ? val_copy(c->a, ad->v) : NULL;
    return 0;
}

/* ---------------------------------------------------------------- validating */

int webhooks_validate(struct call *c, struct admission *ad)
{
    const struct hook *hooks = NULL;
    uint32_t n = hooks_of_call(c, VALIDATING, &hooks), asked = 0;
    struct opinion *o;
    const struct hook **who;

    if (!n)
        return 0;
    o = arena_array(c->a, struct opinion, n);
    who = arena_array(c->a, const struct hook *, n);
    for (uint32_t i = 0; i < n; i++) {
        const struct val *object, *old;
        struct admission_as as;
        int want = wanted(c, ad, &hooks[i], &as);

        if (want < 0)
            return -1;
        if (!want)
            continue;
        object = admission_convert(c, ad, &as, ad->v);
        old = admission_convert(c, ad, &as, ad->old);
        if ((ad->v && !object) || (ad->old && !old))
            return -1;
        if ((want = conditions_hold(c, ad, &hooks[i], &as, object, old)) < 0)
            return -1;
        if (!want)
            continue;
        who[asked] = &hooks[i];
        ask(c, ad, &hooks[i], &as, object, old, false, &o[asked++]);
    }
    if (c->waits)
        return -1;
    for (uint32_t i = 0; i < asked; i++)
        if (judge(c, who[i], &o[i], arena_printf(
                c->a, "failed-open.validating.webhook.admission.k8s.io/round_0_index_%u", i)) < 0)
            return -1;
    return 0;
}

/* ---------------------------------------------------------------- life */

int webhooks_start(struct api *api, struct err *err)
{
    struct webhooks *w = xcalloc(1, sizeof(*w));

    api->webhooks = w;
    w->api = api;
    w->arena = arena_new();
    w->stale = true;
    for (int i = 0; i < 2; i++) {
        w->watch[i] = store_watch(api->store, table_named(api->store, "admissionregistration.k8s.io", TABLES[i]),
                                  0, STORE_WATCH_HEAD, on_change, w, err);
        if (!w->watch[i])
            return -1;
    }
    return 0;
}

void webhooks_stop(struct api *api)
{
    struct webhooks *w = api->webhooks;

    if (!w)
        return;
    store_watch_free(w->watch[0]);
    store_watch_free(w->watch[1]);
    arena_free(w->arena);
    free(w);
    api->webhooks = NULL;
}
