/* apiserver/convert.c - objects in the version that is wanted. Built-in kinds are converted by schema/;
 * custom resources by changing their apiVersion, or by their definition's webhook, which is asked for many
 * at once.
 *
 * An object lies in the store in the version that was the storage version when it was written: so what
 * counts is the apiVersion it says. A webhook changes all but metadata, of which it may change labels and
 * annotations only. The question is known by the object without what changes with each write (its
 * resourceVersion and the like), so what was asked before a write also answers after it. */
#include "apiserver/outside.h"

#include "codec/json.h"

enum { CHUNK_OBJECTS = 500, CHUNK_BYTES = 2 << 20, CONVERT_TIMEOUT_MS = 30000 };

static const struct val *webhook_of(const struct resource *r)
{
    return val_get(schema_conversion(r), "webhook");
}

static const struct val *broken(struct call *c, const struct val *in, const char *fmt, ...) _printf_(3, 4);
static const struct val *broken(struct call *c, const struct val *in, const char *fmt, ...)
{
    struct buf b = {.max = 1 << 16};
    va_list ap;

    va_start(ap, fmt);
    buf_vprintf(&b, fmt, ap);
    va_end(ap);
    if (!c->broken)
        c->broken = status_doc(c->a, 500, "", arena_printf(
            c->a, "conversion webhook for %s, Kind=%s %s", val_str_at(in, "apiVersion", ""),
            val_str_at(in, "kind", ""), b.p ? b.p : ""));
    buf_done(&b);
    return NULL;
}

/* What tells one question from another. */
static void write_identity(struct buf *b, const struct val *v)
{
    static const char *const kept[] = {"name", "namespace", "uid", "labels", "annotations"};
    const struct val *meta = val_get(v, "metadata");

    VAL_EACH_MEMBER(v, m) {
        if (streq(m->key, "metadata"))
            continue;
        buf_printf(b, "%s:", m->key);
        json_write(b, &m->v);
    }
    for (size_t i = 0; i < ARRAY_LEN(kept); i++)
        if (val_get(meta, kept[i])) {
            buf_printf(b, "%s:", kept[i]);
            json_write(b, val_get(meta, kept[i]));
        }
}

/* Metadata as it was, but for labels and annotations. */
static bool restore_meta(struct call *c, const struct val *in, struct val *out)
{
    static const char *const taken[] = {"labels", "annotations"};
    static const char *const same[] = {"name", "namespace", "uid"};
    const struct val *was = val_get(in, "metadata"), *got = val_get(out, "metadata");
    struct val *meta;

    if (!val_is(got, VAL_MAP)) {
        broken(c, in, "returned invalid metadata: missing metadata in converted object");
        return false;
    }
    for (size_t i = 0; i < ARRAY_LEN(same); i++)
        if (!streq(val_str_at(was, same[i], ""), val_str_at(got, same[i], ""))) {
            broken(c, in, "returned invalid object: must have the same %s: %s != %s", i == 2 ? "UID" : same[i],
                   val_str_at(was, same[i], ""), val_str_at(got, same[i], ""));
            return false;
        }
    meta = val_copy(c->a, was);
    for (size_t i = 0; i < ARRAY_LEN(taken); i++) {
        val_del(meta, taken[i]);
        VAL_EACH_MEMBER(val_get(got, taken[i]), m) {
            const char *bad = streq(taken[i], "labels") ? name_label_value(val_text(&m->v, "")) : NULL;

            if (m->v.type != VAL_STR || bad || name_qualified(m->key)) {
                broken(c, in, "returned invalid metadata: metadata.%s[%s]: Invalid value", taken[i], m->key);
                return false;
            }
        }
        if (val_len(val_get(got, taken[i])))
            val_put(c->a, meta, taken[i], val_get(got, taken[i]));
    }
    val_put(c->a, out, "metadata", meta);
    return true;
}

/* One object of an answer, in the form of its version. */
static const struct val *take_object(struct call *c, const struct val *in, struct val *out,
                                     const struct resource *to)
{
    struct err err = {0};

    if (!val_is(out, VAL_MAP) || !streq(val_str_at(out, "apiVersion", ""), to->api_version))
        return broken(c, in, "returned invalid object at index 0: invalid groupVersion (expected %s, received %s)",
                      to->api_version, val_str_at(out, "apiVersion", ""));
    if (!streq(val_str_at(out, "kind", ""), val_str_at(in, "kind", "")))
        return broken(c, in, "returned invalid object at index 0: invalid kind (expected %s, received %s)",
                      val_str_at(in, "kind", ""), val_str_at(out, "kind", ""));
    if (!restore_meta(c, in, out))
        return NULL;
    if (schema_decode(to, c->a, out, NULL, &err) < 0)
        return broken(c, in, "failed: %s", err.msg);
    schema_default(to, c->a, out);
    return out;
}

static void take_answer(struct call *c, const struct val **v, uint32_t n, const struct resource *to,
                        const char *id, const char *url, const struct outside_answer *answer)
{
    const char *trouble = outside_trouble(c->a, answer), *status;
    struct val *review, *response, *objects;
    struct err err = {0};

    if (trouble && answer->err.code) {
        broken(c, v[0], "failed: Post \"%s\": %s", url, trouble);
        return;
    }
    if (trouble || !(review = json_parse(c->a, answer->body, answer->n, &err))) {
        broken(c, v[0], "failed: %s", trouble ? trouble : err.msg);
        return;
    }
    response = val_get(review, "response");
    status = val_str_at(response, "result.status", "");
    objects = val_get(response, "convertedObjects");
    if (!streq(val_str_at(review, "kind", ""), "ConversionReview") ||
        !str_starts(val_str_at(review, "apiVersion", ""), "apiextensions.k8s.io/"))
        broken(c, v[0], "failed: expected webhook response of apiextensions.k8s.io/v1, Kind=ConversionReview, "
               "got %s, Kind=%s", val_str_at(review, "apiVersion", ""), val_str_at(review, "kind", ""));
    else if (!val_is(response, VAL_MAP))
        broken(c, v[0], "failed: no response provided");
    else if (!streq(val_str_at(response, "uid", ""), id))
        broken(c, v[0], "failed: expected response.uid=\"%s\", got \"%s\"", id, val_str_at(response, "uid", ""));
    else if (!streq(status, "Success") && *val_str_at(response, "result.message", ""))
        broken(c, v[0], "failed: %s", val_str_at(response, "result.message", ""));
    else if (!streq(status, "Success"))
        broken(c, v[0], "failed: response.result.status was '%s', not 'Success'", status);
    else if (val_len(objects) != n)
        broken(c, v[0], "returned %u objects, expected %u", val_len(objects), n);
    if (c->broken)
        return;
    for (uint32_t i = 0; i < n && !c->broken; i++)
        v[i] = take_object(c, v[i], &objects->items[i], to);
}

/* Asks about a part of them (all of one version need not be); v[i] become the answers. */
static void chunk(struct call *c, const struct val **v, uint32_t n, const struct resource *to)
{
    const struct val *hook = webhook_of(to);
    const char *version = NULL, *id, *path, *url;
    const struct outside_answer *answer;
    struct buf what = {0}, text = {0};
    struct err err = {0};
    struct place place;

    VAL_EACH(val_get(hook, "conversionReviewVersions"), it)
        if (!version && (streq(val_text(it, ""), "v1") || streq(val_text(it, ""), "v1beta1")))
            version = val_text(it, "");
    if (!version || !c->done) {
        broken(c, v[0], "failed: no supported conversion review versions");
        return;
    }
    for (uint32_t i = 0; i < n; i++)
        write_identity(&what, v[i]);
    id = outside_id(c, arena_printf(c->a, "convert/%s/%s", to->plural, to->api_version), what.p, what.n);
    buf_done(&what);
    if (outside_client_config(c->api, c->a, val_get(hook, "clientConfig"), &place, &path, &url, &err) < 0) {
        broken(c, v[0], "failed: Post \"%s\": %s", url, err.msg);
        return;
    }
    path = arena_printf(c->a, "%s%s%ctimeout=30s", *path == '/' ? "" : "/", path, strchr(path, '?') ? '&' : '?');
    url = arena_printf(c->a, "%s%ctimeout=30s", url, strchr(url, '?') ? '&' : '?');
    if ((answer = outside_known(c, id))) {
        take_answer(c, v, n, to, id, url, answer);
        return;
    }
    buf_printf(&text, "{\"kind\":\"ConversionReview\",\"apiVersion\":\"apiextensions.k8s.io/%s\",\"request\":"
               "{\"uid\":\"%s\",\"desiredAPIVersion\":\"%s\",\"objects\":[", version, id, to->api_version);
    for (uint32_t i = 0; i < n; i++) {
        if (i)
            buf_addc(&text, ',');
        json_write(&text, v[i]);
    }
    buf_adds(&text, "]}}");
    outside_post(c, id, &place, path, text.p, text.n, CONVERT_TIMEOUT_MS);
    buf_done(&text);
}

static bool is_version(const struct val *v, const struct resource *to)
{
    return streq(val_str_at(v, "apiVersion", ""), to->api_version);
}

/* Without a webhook: the same under another name. */
static const struct val *renamed(struct call *c, const struct val *v, const struct resource *to)
{
    struct val *out = val_copy(c->a, v);
    struct err ignored = {0};

    val_put_str(c->a, out, "apiVersion", to->api_version);
    if (schema_decode(to, c->a, out, NULL, &ignored) < 0)
        return v;
    schema_default(to, c->a, out);
    return out;
}

const struct val *version_of(struct call *c, const struct val *v, const struct resource *to)
{
    const struct val *one[1] = {v};

    if (is_version(v, to))
        return v;
    if (!webhook_of(to))
        return renamed(c, v, to);
    chunk(c, one, 1, to);
    return c->waits || c->broken ? v : one[0];
}

bool versions_by_webhook(const struct resource *r)
{
    return r->custom && webhook_of(r);
}

/* A custom resource from before its definition became what it is: it may be of another version, and what
 * is new in the schema holds for it too (defaults, fields that are gone). */
static bool from_before(const struct call *c, const struct obj *o)
{
    return c->r->custom && o->revision < schema_since(c->r);
}

bool version_as_stored(const struct call *c, const struct obj *o)
{
    return c->r == c->stored && !from_before(c, o);
}

/* The text of an object that we wrote begins with its version. */
static bool text_is(const struct call *c, const struct obj *o)
{
    static const char head[] = "{\"apiVersion\":\"";
    const struct resource *r = c->r;
    size_t n = strlen(r->api_version);
    const char *text;

    if (version_as_stored(c, o))
        return true;
    text = obj_text(o);
    if (strncmp(text, head, sizeof(head) - 1) != 0)
        return is_version(obj_val(o), r);
    text += sizeof(head) - 1;
    return strncmp(text, r->api_version, n) == 0 && text[n] == '"';
}

bool version_needs_webhook(const struct call *shape, const struct obj *o)
{
    return o && versions_by_webhook(shape->r) && !text_is(shape, o);
}

int versions_ready(struct call *c, const struct obj *const *o, uint32_t n)
{
    const struct val **v;
    struct version *all;
    uint32_t m = 0;

    if (!versions_by_webhook(c->r))
        return 0;
    v = arena_array(c->a, const struct val *, n + 1);
    all = arena_array(c->a, struct version, n + 1);
    for (uint32_t i = 0; i < n; i++)
        if (!text_is(c, o[i])) {
            all[m].o = o[i];
            v[m++] = obj_val(o[i]);
        }
    for (uint32_t at = 0, end; at < m; at = end) {
        size_t bytes = 0;

        for (end = at; end < m && end - at < CHUNK_OBJECTS && (end == at || bytes < CHUNK_BYTES); end++)
            bytes += all[end].o->text_n;
        chunk(c, v + at, end - at, c->r);
    }
    for (uint32_t i = 0; i < m; i++)
        all[i].v = v[i];
    c->versions = all;
    c->versions_n = c->waits || c->broken ? 0 : m;
    c->versions_at = 0;
    return c->waits || c->broken ? -1 : 0;
}

/* Of those that versions_ready() made; they are asked for in their order. */
static const struct val *known(struct call *c, const struct obj *o)
{
    for (uint32_t i = 0; i < c->versions_n; i++) {
        uint32_t at = (c->versions_at + i) % c->versions_n;

        if (c->versions[at].o == o) {
            c->versions_at = at + 1;
            return c->versions[at].v;
        }
    }
    return NULL;
}

const struct val *answer_version(struct call *c, const struct obj *o)
{
    struct err ignored = {0};
    const struct val *there;
    struct val *v;

    if (version_as_stored(c, o))
        return obj_val(o);
    if (c->r->custom) {
        if ((there = known(c, o)))
            return there;
        if (!text_is(c, o))
            return version_of(c, obj_val(o), c->r);
        return from_before(c, o) ? renamed(c, obj_val(o), c->r) : obj_val(o);
    }
    v = obj_edit(o, c->a);
    if (schema_convert(c->stored, c->r, c->a, v, &ignored) < 0)
        return obj_val(o);
    return v;
}

/* ---------------------------------------------------------------- for watches */


struct convert_job {
    struct api_request req;
    const struct resource *r, *stored;
    const struct obj **o;
    uint32_t n;
    struct version *versions;
    uint32_t versions_n;
    convert_done_fn *done;
    void *arg;
    bool over, freed;
};

static int job_serve(struct call *c)
{
    struct convert_job *job = c->arg;

    c->verb = "watch";
    c->r = job->r;
    c->stored = job->stored;
    if (versions_ready(c, job->o, job->n) < 0)
        return -1;
    job->versions = c->versions;
    job->versions_n = c->versions_n;
    answer_val(c, 200, val_map(c->a));
    return 0;
}

static void job_free(struct convert_job *job)
{
    for (uint32_t i = 0; i < job->n; i++)
        obj_unref(job->o[i]);
    resource_unref(job->r);
    if (job->stored != job->r)
        resource_unref(job->stored);
    arena_free(job->req.arena);
}

static void job_done(void *arg, const struct api_response *resp)
{
    struct convert_job *job = arg;

    job->over = true;
    if (job->freed)
        job_free(job);
    else
        job->done(job->arg, resp->status >= 300 ? resp->val : NULL, job->versions, job->versions_n);
}

struct convert_job *convert_start(const struct call *shape, const struct obj *const *o, uint32_t n,
                                  convert_done_fn *done, void *arg)
{
    struct arena *a = arena_new();
    struct convert_job *job = arena_new_of(a, struct convert_job);

    *job = (struct convert_job){.req = {.arena = a, .method = "GET", .path = "/"}, .done = done, .arg = arg,
                                .r = resource_ref(shape->r), .n = n};
    job->stored = shape->stored == shape->r ? job->r : resource_ref(shape->stored);
    job->o = arena_array(a, const struct obj *, n + 1);
    for (uint32_t i = 0; i < n; i++)
        job->o[i] = obj_ref(o[i]);
    return job;
}

void convert_go(struct api *api, struct convert_job *job)
{
    call_run(api, &job->req, job_serve, job_done, job, NULL);
}

void *convert_free(struct api *api, struct convert_job *job)
{
    if (!job)
        return NULL;
    job->freed = true;
    if (job->over)
        job_free(job);
    else
        api_cancel(api, &job->req);
    return NULL;
}
