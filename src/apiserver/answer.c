/* apiserver/answer.c - which form and encoding a client accepts, and giving answers that form.
 * Objects that are wanted as they are stored go out as their stored text. */
#include "apiserver/api_int.h"

#include "codec/json.h"
#include "codec/yaml.h"
#include "schema/protobuf.h"
#include "schema/table.h"

#include <ctype.h>
#include <strings.h>

enum { CLAUSES_MAX = 32, PARAMS_MAX = 16 };

struct clause {
    const char *type;
    const char *name[PARAMS_MAX], *value[PARAMS_MAX];
    int params, order;
    double q;
};

static char *trimmed(struct arena *a, const char *s, size_t n)
{
    while (n && isspace((unsigned char)*s))
        s++, n--;
    while (n && isspace((unsigned char)s[n - 1]))
        n--;
    return arena_strndup(a, s, n);
}

static void clause_read(struct arena *a, const char *s, size_t n, struct clause *ret)
{
    size_t at = strcspn(s, ";");

    *ret = (struct clause){.q = 1};
    if (at > n)
        at = n;
    ret->type = trimmed(a, s, at);
    while (at < n && ret->params < PARAMS_MAX) {
        const char *p = s + at + 1;
        size_t left = n - at - 1, len = strcspn(p, ";"), eq;

        if (len > left)
            len = left;
        eq = strcspn(p, "=");
        if (eq < len) {
            char *name = trimmed(a, p, eq), *value = trimmed(a, p + eq + 1, len - eq - 1);

            if (streq(name, "q")) {
                ret->q = atof(value);
            } else {
                ret->name[ret->params] = name;
                ret->value[ret->params++] = value;
            }
        }
        at += 1 + len;
    }
}

static const char *clause_get(const struct clause *cl, const char *name)
{
    for (int i = 0; i < cl->params; i++)
        if (streq(cl->name[i], name))
            return cl->value[i];
    return "";
}

/* The wanted form, or false when this endpoint has no such one. */
static bool clause_form(struct call *c, const struct clause *cl, bool list, bool forms)
{
    const char *as = clause_get(cl, "as"), *g = clause_get(cl, "g"), *v = clause_get(cl, "v");

    c->form = FORM_OBJECT;
    c->form_version = "v1";
    if (!*as)
        return true;
    if (!forms || !streq(g, "meta.k8s.io") || (!streq(v, "v1") && !streq(v, "v1beta1")))
        return false;
    c->form_version = streq(v, "v1") ? "v1" : "v1beta1";
    if (streq(as, "Table"))
        c->form = FORM_TABLE;
    else if (streq(as, "PartialObjectMetadata") && (!list || c->o.watch))
        c->form = FORM_PARTIAL;
    else if (streq(as, "PartialObjectMetadataList") && list)
        c->form = FORM_PARTIAL_LIST;
    else
        return false;
    return true;
}

static int fail_accept(struct call *c)
{
    return fail(c, 406, "NotAcceptable",
                "only the following media types are accepted: application/json, application/yaml, "
                "application/vnd.kubernetes.protobuf");
}

int answer_negotiate(struct call *c, bool list, bool forms)
{
    const char *s = c->req->accept;
    struct clause *cl;
    int n = 0;

    c->form = FORM_OBJECT;
    c->encoding = ENC_JSON;
    if (str_empty(s))
        return 0;
    cl = arena_array(c->a, struct clause, CLAUSES_MAX);
    while (*s && n < CLAUSES_MAX) {
        size_t len = strcspn(s, ",");

        clause_read(c->a, s, len, &cl[n]);
        if (*cl[n].type) {
            /* by q, in the order in which they came */
            for (int i = n; i > 0 && cl[i].q > cl[i - 1].q; i--) {
                struct clause t = cl[i];
                cl[i] = cl[i - 1];
                cl[i - 1] = t;
            }
            n++;
        }
        s += len + (s[len] == ',');
    }
    for (int i = 0; i < n; i++) {
        bool json = streq(cl[i].type, "application/json") || streq(cl[i].type, "*/*");
        bool yaml = streq(cl[i].type, "application/yaml");
        /* custom resources have no numbers, but the metadata of all kinds have */
        bool proto = streq(cl[i].type, PROTOBUF_TYPE) && c->r &&
                     (!c->r->custom || str_starts(clause_get(&cl[i], "as"), "PartialObjectMetadata"));

        if ((!json && !yaml && !proto) || !clause_form(c, &cl[i], list, forms))
            continue;
        if (proto && c->form == FORM_TABLE)
            continue; /* a table's cells have no numbers */
        c->encoding = yaml ? ENC_YAML : proto ? ENC_PROTOBUF : ENC_JSON;
        if (*clause_get(&cl[i], "pretty") && !streq(clause_get(&cl[i], "pretty"), "0"))
            c->o.pretty = true;
        if (c->form == FORM_TABLE) {
            c->include_object = param(c, "includeObject");
            if (table_include(c->include_object ? c->include_object : "") < 0)
                return fail(c, 400, "BadRequest", "unable to process the includeObject option \"%s\"",
                            c->include_object);
        }
        return 0;
    }
    return n ? fail_accept(c) : 0;
}

static const char *content_type(const struct call *c)
{
    return c->encoding == ENC_YAML       ? "application/yaml"
           : c->encoding == ENC_PROTOBUF ? PROTOBUF_TYPE
                                         : "application/json";
}

void answer_val(struct call *c, int status, const struct val *v)
{
    c->resp.status = status;
    c->resp.val = v;
    c->resp.content_type = content_type(c);
}

void answer_text(struct call *c, int status, const char *type, const char *text, size_t n)
{
    c->resp.status = status;
    c->resp.body = text;
    c->resp.body_n = n;
    c->resp.content_type = type;
}

void answer_protobuf(struct call *c)
{
    struct api_response *r = &c->resp;
    struct err ignored = {0};
    struct buf b = {0};

    if (c->encoding != ENC_PROTOBUF || r->watch || r->stream || r->body ||
        (!r->val && !r->obj && !r->objs && !r->list_kind))
        return;
    if (protobuf_write(c->api->schema, &b, api_response_val(c->a, r), &ignored) < 0) {
        buf_done(&b);
        r->content_type = "application/json";
        return;
    }
    r->body = arena_memdup(c->a, b.p, b.n);
    r->body_n = b.n;
    buf_done(&b);
    r->val = NULL;
    r->obj = NULL;
    r->objs = NULL;
    r->list_kind = NULL;
    r->content_type = PROTOBUF_TYPE;
}

static struct val *list_meta(struct call *c, const char *revision)
{
    struct val *m = val_map(c->a);

    if (!str_empty(revision))
        val_put_str(c->a, m, "resourceVersion", revision);
    return m;
}

static struct val *table_of(struct call *c, const struct val *meta, bool columns)
{
    return table_new(c->r, c->a, c->form_version, meta, columns);
}

static struct val *row_of(struct call *c, const struct val *v)
{
    return table_row(c->r, c->a, v,
                     (enum include_object)table_include(c->include_object ? c->include_object : ""),
                     c->form_version, c->now_ms * 1000);
}

const struct val *answer_item(struct call *c, const struct val *v, bool first)
{
    struct val *t;

    if (c->form == FORM_PARTIAL || c->form == FORM_PARTIAL_LIST)
        return partial_of(c->a, v, c->form_version);
    if (c->form != FORM_TABLE)
        return v;
    t = table_of(c, list_meta(c, val_str_at(v, "metadata.resourceVersion", "")), first);
    val_push(c->a, val_need_list(c->a, t, "rows"), row_of(c, v));
    return t;
}

void answer_tree(struct call *c, int status, struct val *v)
{
    answer_val(c, status, answer_item(c, v, true));
}

bool answer_as_stored(const struct call *c, const struct obj *o)
{
    return c->form == FORM_OBJECT && c->encoding == ENC_JSON && version_as_stored(c, o);
}

static bool all_as_stored(const struct call *c, const struct obj **v, uint32_t n)
{
    for (uint32_t i = 0; c->r->custom && i < n; i++)
        if (!version_as_stored(c, v[i]))
            return false;
    return c->r == c->stored;
}

void answer_obj(struct call *c, int status, const struct obj *o)
{
    pin_obj(c->a, obj_ref(o));
    if (answer_as_stored(c, o)) {
        c->resp.status = status;
        c->resp.obj = o;
        c->resp.content_type = "application/json";
        return;
    }
    answer_val(c, status, answer_item(c, answer_version(c, o), true));
}

/* The document of a list, without its items. */
static const struct val *list_head(struct call *c, int64_t revision, const char *continue_, int64_t remaining)
{
    struct arena *a = c->a;
    struct val *doc, *meta = list_meta(c, arena_printf(a, "%lld", (long long)revision));
    bool partial = c->form == FORM_PARTIAL_LIST;

    if (!str_empty(continue_))
        val_put_str(a, meta, "continue", continue_);
    else if (c->r->custom && c->form == FORM_OBJECT)
        val_put_str(a, meta, "continue", ""); /* as upstream writes lists of custom resources */
    if (remaining >= 0 && !str_empty(continue_))
        val_put_int(a, meta, "remainingItemCount", remaining);
    if (c->form == FORM_TABLE)
        return table_of(c, meta, true);
    doc = val_map(a);
    val_put_str(a, doc, "kind", partial ? "PartialObjectMetadataList" : c->r->list_kind);
    val_put(a, doc, "apiVersion",
            partial ? val_printf(a, "meta.k8s.io/%s", c->form_version) : val_str(a, c->r->api_version));
    val_put(a, doc, "metadata", meta);
    val_need_list(a, doc, "items");
    return doc;
}

static int by_precedence(const void *x, const void *y)
{
    const struct obj *a = *(const struct obj *const *)x, *b = *(const struct obj *const *)y;
    int64_t i = val_int_at(obj_val(a), "spec.matchingPrecedence", 0);
    int64_t k = val_int_at(obj_val(b), "spec.matchingPrecedence", 0);

    return i != k ? (i < k ? -1 : 1) : strcmp(a->name, b->name);
}

void answer_list(struct call *c, const struct obj **v, uint32_t n, int64_t revision,
                 const char *continue_, int64_t remaining)
{
    struct arena *a = c->a;
    struct val *doc, *meta, *items;

    if (c->form == FORM_TABLE && streq(c->r->plural, "flowschemas") && !c->r->custom)
        qsort(v, n, sizeof *v, by_precedence); /* their rows come as they are looked at */
    if (c->req->may_stream && c->encoding != ENC_YAML && (!c->r->custom || all_as_stored(c, v, n))) {
        c->resp.status = 200;
        c->resp.content_type = content_type(c);
        c->resp.stream = stream_new(c, list_head(c, revision, continue_, remaining), v, n);
        return;
    }
    if (c->form == FORM_OBJECT && c->encoding == ENC_JSON && all_as_stored(c, v, n)) {
        c->resp = (struct api_response){
            .status = 200, .content_type = "application/json", .objs = v, .objs_n = n,
            .list_revision = revision, .continue_ = continue_, .remaining = remaining,
            .list_api_version = c->r->api_version, .list_kind = c->r->list_kind,
            .revision = c->resp.revision, .warnings = c->resp.warnings};
        return;
    }
    if (versions_ready(c, v, n) < 0)
        return;
    meta = list_meta(c, arena_printf(a, "%lld", (long long)revision));
    if (!str_empty(continue_))
        val_put_str(a, meta, "continue", continue_);
    if (remaining >= 0)
        val_put_int(a, meta, "remainingItemCount", remaining);
    if (c->form == FORM_TABLE) {
        doc = table_of(c, meta, true);
        items = val_need_list(a, doc, "rows");
        for (uint32_t i = 0; i < n; i++)
            val_push(a, items, row_of(c, answer_version(c, v[i])));
    } else {
        bool partial = c->form == FORM_PARTIAL_LIST;

        doc = val_map(a);
        val_put_str(a, doc, "kind", partial ? "PartialObjectMetadataList" : c->r->list_kind);
        val_put(a, doc, "apiVersion",
                partial ? val_printf(a, "meta.k8s.io/%s", c->form_version)
                        : val_str(a, c->r->api_version));
        val_put(a, doc, "metadata", meta);
        items = val_need_list(a, doc, "items");
        for (uint32_t i = 0; i < n; i++) {
            const struct val *o = answer_version(c, v[i]);
            struct val *item = val_map(a);

            if (partial) {
                val_push(a, items, partial_of(a, o, c->form_version));
                continue;
            }
            VAL_EACH_MEMBER(o, m)
                if (!streq(m->key, "apiVersion") && !streq(m->key, "kind"))
                    val_putn(a, item, m->key, m->n, &m->v);
            val_push(a, items, c->r->custom ? o : item);
        }
    }
    answer_val(c, 200, doc);
}

/* ---------------------------------------------------------------- texts */

/* Length of `"KEY":"simple text",` at p, or 0. */
static size_t member_skip(const char *p, const char *key)
{
    size_t n = strlen(key), at;

    if (*p != '"' || strncmp(p + 1, key, n) != 0 || strncmp(p + 1 + n, "\":\"", 3) != 0)
        return 0;
    for (at = n + 4; p[at] && p[at] != '"'; at++)
        if (p[at] == '\\')
            return 0;
    return p[at] == '"' && p[at + 1] == ',' ? at + 2 : 0;
}

void write_item(struct buf *b, const struct obj *o)
{
    size_t at = b->n, n;
    const char *p;

    obj_text_add(b, o);
    p = b->p + at + 1;

    /* items of typed lists do not say their kind; custom ones do, and are written whole */
    while ((n = member_skip(p, "apiVersion")) || (n = member_skip(p, "kind")))
        p += n;
    n = (size_t)(p - (b->p + at)) - 1; /* bytes between the brace and what stays */
    memmove(b->p + at + 1, p, b->n - at - 1 - n);
    b->n -= n;
    b->p[b->n] = 0;
}

static void list_text(struct buf *b, const struct api_response *r)
{
    bool typed = !strchr(r->list_api_version, '.') || str_ends(r->list_api_version, ".k8s.io/v1") ||
                 str_ends(r->list_api_version, ".k8s.io/v2");

    buf_adds(b, "{\"kind\":");
    json_write_str(b, r->list_kind, strlen(r->list_kind));
    buf_adds(b, ",\"apiVersion\":");
    json_write_str(b, r->list_api_version, strlen(r->list_api_version));
    buf_printf(b, ",\"metadata\":{\"resourceVersion\":\"%lld\"", (long long)r->list_revision);
    if (!str_empty(r->continue_)) {
        buf_adds(b, ",\"continue\":");
        json_write_str(b, r->continue_, strlen(r->continue_));
    } else if (!typed) {
        buf_adds(b, ",\"continue\":\"\""); /* as upstream writes lists of custom resources */
    }
    if (r->remaining >= 0 && !str_empty(r->continue_))
        buf_printf(b, ",\"remainingItemCount\":%lld", (long long)r->remaining);
    buf_adds(b, "},\"items\":[");
    for (uint32_t i = 0; i < r->objs_n; i++) {
        if (i)
            buf_addc(b, ',');
        if (typed)
            write_item(b, r->objs[i]);
        else
            obj_text_add(b, r->objs[i]);
    }
    buf_adds(b, "]}");
}

void api_response_text(struct buf *b, const struct api_response *r)
{
    if (r->obj)
        obj_text_add(b, r->obj);
    else if (r->objs || r->list_kind)
        list_text(b, r);
    else if (r->val && streq0(r->content_type, "application/yaml"))
        yaml_write(b, r->val);
    else if (r->val)
        json_write(b, r->val);
    else
        buf_add(b, r->body, r->body_n);
}

const struct val *api_response_val(struct arena *a, const struct api_response *r)
{
    struct err ignored = {0};
    struct val *doc, *meta, *items;

    if (r->val)
        return r->val;
    if (r->obj)
        return obj_val(r->obj);
    if (!r->list_kind)
        return r->body_n ? json_parse(a, r->body, r->body_n, &ignored) : val_null(a);
    doc = val_map(a);
    meta = val_map(a);
    val_put_str(a, doc, "kind", r->list_kind);
    val_put_str(a, doc, "apiVersion", r->list_api_version);
    val_put(a, meta, "resourceVersion", val_printf(a, "%lld", (long long)r->list_revision));
    if (!str_empty(r->continue_))
        val_put_str(a, meta, "continue", r->continue_);
    val_put(a, doc, "metadata", meta);
    items = val_need_list(a, doc, "items");
    for (uint32_t i = 0; i < r->objs_n; i++)
        val_push(a, items, obj_val(r->objs[i]));
    return doc;
}

static const struct {
    const char *reason;
    enum err_code code;
} REASONS[] = {
    {"AlreadyExists", ERR_ALREADY_EXISTS}, {"Conflict", ERR_CONFLICT}, {"Expired", ERR_EXPIRED},
    {"Gone", ERR_GONE}, {"Invalid", ERR_INVALID}, {"NotFound", ERR_NOT_FOUND},
    {"Forbidden", ERR_FORBIDDEN}, {"TooManyRequests", ERR_TOO_MANY}, {"BadRequest", ERR_INVALID_ARGUMENT},
};

int api_response_err(const struct api_response *r, struct err *err)
{
    const char *reason = val_str_at(r->val, "reason", ""), *msg = val_str_at(r->val, "message", "");
    enum err_code code = r->status >= 500 ? ERR_INTERNAL : ERR_INVALID_ARGUMENT;

    if (r->status < 300)
        return 0;
    for (enum err_code i = 1; i < ERR_COUNT; i++)
        if (err_http(i) == r->status) {
            code = i;
            break;
        }
    for (size_t i = 0; i < ARRAY_LEN(REASONS); i++)
        if (streq(REASONS[i].reason, reason))
            code = REASONS[i].code;
    return err_set_(err, code, 0, "%s", *msg ? msg : reason);
}
