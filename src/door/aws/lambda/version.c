/* door/aws/lambda/version.c - published versions (FunctionVersion objects), aliases (in the
 * Function's spec.aliases), provisioned concurrency (spec.provisioned). */
#include <ctype.h>
#include <stdio.h>

#include "door/aws/lambda/lambda_int.h"

enum { PAGE_DEFAULT = 50, PAGE_MAX = 10000, PUBLISH_TRIES = 100, ALIASES_MAX = 1000 };

/* ---- what a qualifier names ---- */

static bool is_number(const char *s)
{
    return *s && strspn(s, "0123456789") == strlen(s);
}

static const struct obj *version_object(struct op *op, const char *number)
{
    return functions_get(op->q->d->o.functions, LAMBDA_NS,
                         arena_printf(op->q->req->arena, "%s:%s", op->n.object, number));
}

const struct val *lambda_alias(const struct obj *head, const char *name)
{
    VAL_EACH(val_at(obj_val(head), "spec.aliases"), it)
        if (streq(val_str_at(it, "name", ""), name))
            return it;
    return NULL;
}

int lambda_qualified(struct op *op, struct lambda_qualified *ret)
{
    const char *q = op->n.qualifier, *version = q;

    *ret = (struct lambda_qualified){.head = lambda_head(op)};
    if (!ret->head)
        return -1;
    if (!q || streq(q, "$LATEST"))
        return 0;
    if (!is_number(q)) {
        ret->alias = lambda_alias(ret->head, q);
        version = val_str_at(ret->alias, "version", "");
    }
    if (!streq(version, "$LATEST") && (!*version || !(ret->version = version_object(op, version)))) {
        lambda_not_found(op);
        return -1;
    }
    return 0;
}

struct val *lambda_conf_of(struct op *op, const struct lambda_qualified *w)
{
    struct arena *a = op->q->req->arena;
    struct val *c = lambda_conf(op->q, w->version ? w->version : w->head);

    if (op->n.qualifier)
        val_put(a, c, "FunctionArn", val_printf(a, "%s:%s", lambda_arn(op->q, op->n.name), op->n.qualifier));
    return c;
}

/* ---- pages ---- */

int lambda_page_read(struct op *op, struct lambda_page *ret)
{
    const char *marker = http_param(op->q->req, "Marker"), *max = http_param(op->q->req, "MaxItems");

    *ret = (struct lambda_page){.left = max ? strtoll(max, NULL, 10) : PAGE_DEFAULT};
    if (max && (ret->left < 1 || ret->left > PAGE_MAX || !is_number(max))) {
        lambda_error(op->q, 400, "ValidationException", "1 validation error detected: Value '%.40s' at 'maxItems' failed to "
                     "satisfy constraint: Member must have value between 1 and %d", max, PAGE_MAX);
        return -1;
    }
    if (marker && !is_number(marker)) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "The Marker is not one of an earlier answer: %.100s", marker);
        return -1;
    }
    ret->from = marker ? strtoll(marker, NULL, 10) : 0;
    return 0;
}

bool lambda_page_takes(struct op *op, struct lambda_page *p, struct val *answer)
{
    struct arena *a = op->q->req->arena;

    if (p->at++ < p->from || p->left < 0)
        return false;
    if (p->left-- > 0)
        return true;
    val_put(a, answer, "NextMarker", val_printf(a, "%lld", (long long)(p->at - 1)));
    return false;
}

/* ---- versions ---- */

void op_list_versions(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *head = lambda_need(op), **all;
    struct val *v, *list, *latest;
    struct lambda_page page;
    size_t n;

    if (!head || lambda_page_read(op, &page) < 0)
        return;
    v = val_map(a);
    list = val_list(a);
    if (lambda_page_takes(op, &page, v)) {
        latest = lambda_conf(op->q, head);
        val_put(a, latest, "FunctionArn", val_printf(a, "%s:$LATEST", lambda_arn(op->q, op->n.name)));
        val_push(a, list, latest);
    }
    all = functions_versions(op->q->d->o.functions, a, LAMBDA_NS, op->n.object, &n);
    for (size_t i = 0; i < n; i++)
        if (lambda_page_takes(op, &page, v))
            val_push(a, list, lambda_conf(op->q, all[i]));
    val_put(a, v, "Versions", list);
    lambda_reply(op->q, 200, v);
}

/* What a version keeps of its function; the rest is of the function as a whole. */
static struct val *template_of(struct op *op, const struct obj *head)
{
    static const char *const whole[] = {"url", "aliases", "provisioned", "reservedConcurrency", "tags", "events",
                                        "recursiveLoop", "codeSigningConfig", "runtimeUpdates"};
    struct arena *a = op->q->req->arena;
    struct val *t = val_copy(a, val_get(obj_val(head), "spec"));

    for (size_t i = 0; i < ARRAY_LEN(whole); i++)
        val_del(t, whole[i]);
    return t;
}

static bool same_template(struct arena *a, const struct val *x, const struct val *y)
{
    struct val *one = val_copy(a, x), *two = val_copy(a, y);

    val_del(one, "description");
    val_del(two, "description");
    return val_equal(one, two);
}

static void on_published(struct aws_req *q, const struct client_result *r, void *arg);

static void publish_next(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *head = lambda_head(op);
    struct val *v, *meta, *owner, *spec;

    if (!head)
        return;
    v = val_map(a);
    meta = val_need_map(a, v, "metadata");
    val_put(a, meta, "name", val_printf(a, "%s.%lld", op->n.object, (long long)op->number));
    val_put_str(a, meta, "namespace", LAMBDA_NS);
    val_put_str(a, val_need_map(a, meta, "annotations"), A_MODIFIED, lambda_now(a));
    if (obj_annotation(head, A_NAME))
        val_put_str(a, val_get(meta, "annotations"), A_NAME, obj_annotation(head, A_NAME));
    owner = val_map(a);
    val_put_str(a, owner, "apiVersion", "tandem.dev/v1");
    val_put_str(a, owner, "kind", "Function");
    val_put_str(a, owner, "name", head->name);
    val_put_str(a, owner, "uid", head->uid);
    val_push(a, val_need_list(a, meta, "ownerReferences"), owner);
    spec = val_map(a);
    val_put_str(a, spec, "function", op->n.object);
    val_put_int(a, spec, "version", op->number);
    val_put(a, spec, "template", op->template_);
    val_put(a, v, "spec", spec);
    aws_call(op->q, &(struct client_call){.verb = CLIENT_CREATE, .resource = VERSIONS, .ns = LAMBDA_NS, .body = v},
             on_published, op);
}

static void reply_version(struct op *op, const struct obj *version)
{
    struct val *c = lambda_conf(op->q, version);

    if (op->publish) /* of CreateFunction or UpdateFunctionCode: their own form */
        val_put(op->q->req->arena, c, "FunctionArn", val_printf(op->q->req->arena, "%s:%lld", lambda_arn(op->q, op->n.name),
                (long long)val_int_at(obj_val(version), "spec.version", 0)));
    lambda_reply(op->q, op->publish && !op->create ? 200 : 201, c);
}

/* The number is kept with the function: a version that is deleted never lends its number again. */
static void on_counted(struct op *op, const struct obj *head)
{
    const struct obj *version = version_object(op, arena_printf(op->q->req->arena, "%lld", (long long)op->number));

    (void)head;
    if (version)
        reply_version(op, version);
    else
        lambda_not_found(op);
}

static void on_published(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;
    struct arena *a = q->req->arena;

    if (r->err && r->err->code == ERR_ALREADY_EXISTS && op->tries++ < PUBLISH_TRIES) {
        op->number++;
        publish_next(op);
        return;
    }
    if (r->err || !r->obj) {
        if (r->err)
            lambda_api_error(op, r->err, r->status);
        else
            lambda_error(q, 500, "ServiceException", "the API server answered no object");
        return;
    }
    functions_put_version(q->d->o.functions, r->obj);
    op->patch = val_map(a);
    val_put(a, val_need_map(a, val_need_map(a, op->patch, "metadata"), "annotations"), A_LAST_VERSION,
            val_printf(a, "%lld", (long long)op->number));
    lambda_patch(op, NULL, on_counted);
}

void lambda_publish(struct op *op, const struct obj *head)
{
    struct arena *a = op->q->req->arena;
    const char *last = obj_annotation(head, A_LAST_VERSION);
    const struct obj **all;
    size_t n;

    op->template_ = template_of(op, head);
    if (val_str_at(op->in, "Description", NULL))
        val_put_str(a, op->template_, "description", val_str_at(op->in, "Description", ""));
    all = functions_versions(op->q->d->o.functions, a, LAMBDA_NS, op->n.object, &n);
    if (n && same_template(a, val_at(obj_val(all[n - 1]), "spec.template"), op->template_)) {
        reply_version(op, all[n - 1]); /* nothing has changed since */
        return;
    }
    op->number = last ? strtoll(last, NULL, 10) + 1 : 1;
    if (n)
        op->number = MAX(op->number, val_int_at(obj_val(all[n - 1]), "spec.version", 0) + 1);
    publish_next(op);
}

void op_publish_version(struct op *op)
{
    const struct obj *head = lambda_need(op);
    const char *sha = val_str_at(op->in, "CodeSha256", NULL), *now;

    if (!head || !lambda_revision_fits(op, head))
        return;
    now = val_str_at(lambda_conf(op->q, head), "CodeSha256", "");
    if (!str_empty(sha) && !streq(sha, now)) {
        lambda_error(op->q, 400, "InvalidParameterValueException",
                     "CodeSHA256 (%.100s) is different from current CodeSHA256 in $LATEST (%s). Please try again with the "
                     "CodeSHA256 in $LATEST.", sha, now);
        return;
    }
    lambda_publish(op, head);
}

static void on_version_deleted(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;
    const struct obj *version = version_object(op, op->n.qualifier);

    if (r->err && r->err->code != ERR_NOT_FOUND) {
        lambda_api_error(op, r->err, r->status);
        return;
    }
    if (version)
        functions_remove_version(q->d->o.functions, version);
    lambda_reply(q, 204, NULL);
}

void lambda_delete_version(struct op *op)
{
    const struct obj *head = lambda_head(op);
    const char *q = op->n.qualifier;

    if (!head)
        return;
    if (!is_number(q)) {
        lambda_error(op->q, 400, "InvalidParameterValueException",
                     streq(q, "$LATEST") ? "$LATEST version cannot be deleted without deleting the function."
                                         : "Deletion of aliases is not currently supported.");
        return;
    }
    VAL_EACH(val_at(obj_val(head), "spec.aliases"), it) {
        bool used = streq(val_str_at(it, "version", ""), q);

        VAL_EACH(val_get(it, "additionalVersions"), w)
            used |= streq(val_str_at(w, "version", ""), q);
        if (used) {
            lambda_error(op->q, 409, "ResourceConflictException",
                         "Version is referenced by alias(es) %s. Please remove the alias(es) first: version %s of %s",
                         val_str_at(it, "name", ""), q, op->n.name);
            return;
        }
    }
    if (!version_object(op, q)) { /* as Lambda answers: gone is gone */
        lambda_reply(op->q, 204, NULL);
        return;
    }
    aws_call(op->q, &(struct client_call){.verb = CLIENT_DELETE, .resource = VERSIONS, .ns = LAMBDA_NS,
        .name = arena_printf(op->q->req->arena, "%s.%s", op->n.object, q)}, on_version_deleted, op);
}

/* ---- aliases ---- */

static struct val *alias_shown(struct op *op, const struct obj *head, const struct val *alias)
{
    struct arena *a = op->q->req->arena;
    const char *name = val_str_at(alias, "name", "");
    struct val *v = val_map(a), *weights;

    val_put(a, v, "AliasArn", val_printf(a, "%s:%s", lambda_arn(op->q, op->n.name), name));
    val_put_str(a, v, "Name", name);
    val_put_str(a, v, "FunctionVersion", val_str_at(alias, "version", ""));
    val_put_str(a, v, "Description", val_str_at(alias, "description", ""));
    if (val_len(val_get(alias, "additionalVersions"))) {
        weights = val_map(a);
        VAL_EACH(val_get(alias, "additionalVersions"), w)
            val_put(a, weights, val_str_at(w, "version", ""), val_get(w, "weight"));
        val_put(a, val_need_map(a, v, "RoutingConfig"), "AdditionalVersionWeights", weights);
    }
    val_put_str(a, v, "RevisionId", lambda_revision_of(a, arena_printf(a, "%s/%s", head->uid, json_text(a, alias, NULL))));
    return v;
}

/* Whether the version can be pointed at; answers itself. */
static bool version_is_there(struct op *op, const char *version)
{
    if (streq(version, "$LATEST") || (is_number(version) && version_object(op, version)))
        return true;
    lambda_error(op->q, 404, "ResourceNotFoundException", "Function not found: %s:%.100s", lambda_arn(op->q, op->n.name), version);
    return false;
}

/* Name, FunctionVersion, Description and RoutingConfig of the request into the alias; answers errors. */
static int alias_read(struct op *op, struct val *alias)
{
    struct arena *a = op->q->req->arena;
    const char *version = val_str_at(op->in, "FunctionVersion", NULL), *text = val_str_at(op->in, "Description", NULL);
    const struct val *routing = val_get(op->in, "RoutingConfig"), *weights = val_get(routing, "AdditionalVersionWeights");

    if (version && !version_is_there(op, version))
        return -1;
    if (version)
        val_put_str(a, alias, "version", version);
    if (text)
        val_put_str(a, alias, "description", text);
    if (val_is_null(routing))
        return 0;
    val_del(alias, "additionalVersions");
    if (val_len(weights) > 1) {
        lambda_error(op->q, 400, "InvalidParameterValueException",
                     "Number of items in AdditionalVersionWeights cannot be greater than 1");
        return -1;
    }
    VAL_EACH_MEMBER(weights, m) {
        struct val *w = val_map(a);
        double weight = val_is_number(&m->v) ? val_num(&m->v) : -1;

        if (weight < 0 || weight > 1) {
            lambda_error(op->q, 400, "ValidationException", "1 validation error detected: Value at "
                         "'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map values must satisfy "
                         "constraint: [Member must have value between 0.0 and 1.0]");
            return -1;
        }
        if (streq(val_str_at(alias, "version", ""), "$LATEST") || streq(m->key, "$LATEST")) {
            lambda_error(op->q, 400, "InvalidParameterValueException", "$LATEST is not supported for an alias pointing to more "
                         "than 1 version");
            return -1;
        }
        if (streq(val_str_at(alias, "version", ""), m->key)) {
            lambda_error(op->q, 400, "InvalidParameterValueException", "Invalid function version %s. Function version %s is "
                         "already included in routing configuration.", m->key, m->key);
            return -1;
        }
        if (!version_is_there(op, m->key))
            return -1;
        val_put_str(a, w, "version", m->key);
        val_put(a, w, "weight", &m->v);
        val_push(a, val_need_list(a, alias, "additionalVersions"), w);
    }
    return 0;
}

static void reply_alias(struct op *op, const struct obj *head)
{
    const struct val *alias = lambda_alias(head, op->alias);

    if (alias)
        lambda_reply(op->q, op->create ? 201 : 200, alias_shown(op, head, alias));
    else
        lambda_reply(op->q, 204, NULL);
}

static void on_read_again(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;

    if (r->err || !r->obj) {
        if (r->err)
            lambda_api_error(op, r->err, r->status);
        else
            lambda_not_found(op);
        return;
    }
    functions_put(q->d->o.functions, r->obj);
    op->run(op);
}

/* Somebody else (a status, another caller) wrote in between: the operation begins again with what
 * is there now. */
static void on_list_written(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;

    if (r->err && r->err->code == ERR_CONFLICT && op->tries++ < PUBLISH_TRIES)
        aws_call(q, &(struct client_call){.verb = CLIENT_GET, .resource = FUNCTIONS, .ns = LAMBDA_NS, .name = op->n.object},
                 on_read_again, op);
    else
        lambda_written(q, r, arg);
}

void lambda_put_list(struct op *op, const struct obj *head, const char *key, const struct val *list,
                     void (*then)(struct op *, const struct obj *))
{
    struct arena *a = op->q->req->arena;

    op->patch = val_map(a);
    val_put(a, val_need_map(a, op->patch, "metadata"), "resourceVersion", val_printf(a, "%lld", (long long)head->revision));
    val_put(a, val_need_map(a, op->patch, "spec"), key, list);
    lambda_patch_again(op, then);
}

void lambda_patch_again(struct op *op, void (*then)(struct op *, const struct obj *))
{
    op->then = then;
    aws_call(op->q, &(struct client_call){.verb = CLIENT_PATCH, .resource = FUNCTIONS, .ns = LAMBDA_NS, .name = op->n.object,
        .body = op->patch, .patch_type = CLIENT_PATCH_MERGE}, on_list_written, op);
}

static void no_alias(struct op *op, const char *name)
{
    lambda_error(op->q, 404, "ResourceNotFoundException", "Cannot find alias arn: %s:%.140s", lambda_arn(op->q, op->n.name), name);
}

void op_create_alias(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *head = lambda_need(op);
    const char *name = val_str_at(op->in, "Name", "");
    struct val *list, *alias;
    bool good = *name && strlen(name) <= 128 && !is_number(name);

    if (!head)
        return;
    for (const char *p = name; *p && good; p++)
        good = isalnum((unsigned char)*p) || *p == '-' || *p == '_';
    if (!good || !val_str_at(op->in, "FunctionVersion", NULL)) {
        lambda_error(op->q, 400, "ValidationException", "1 validation error detected: Value '%.140s' at '%s' failed to satisfy "
                     "constraint: Member must %s", good ? "null" : name, good ? "functionVersion" : "name",
                     good ? "not be null" : "satisfy regular expression pattern: (?!^[0-9]+$)([a-zA-Z0-9-_]+)");
        return;
    }
    if (lambda_alias(head, name)) {
        lambda_error(op->q, 409, "ResourceConflictException", "Alias already exists: %s:%s", lambda_arn(op->q, op->n.name), name);
        return;
    }
    list = val_at(obj_val(head), "spec.aliases") ? val_copy(a, val_at(obj_val(head), "spec.aliases")) : val_list(a);
    if (val_len(list) >= ALIASES_MAX) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "a function has at most %d aliases", ALIASES_MAX);
        return;
    }
    alias = val_map(a);
    val_put_str(a, alias, "name", name);
    if (alias_read(op, alias) < 0)
        return;
    val_push(a, list, alias);
    op->create = true;
    op->alias = name;
    lambda_put_list(op, head, "aliases", list, reply_alias);
}

/* functions/NAME/aliases/ALIAS with GET, PUT, DELETE; without ALIAS the list. */
static const struct val *need_alias(struct op *op, const struct obj **ret_head)
{
    const struct val *alias;

    *ret_head = lambda_need(op);
    if (!*ret_head)
        return NULL;
    op->alias = op->path_n > 1 ? op->path[1] : "";
    alias = lambda_alias(*ret_head, op->alias);
    if (!alias)
        no_alias(op, op->alias);
    return alias;
}

static void list_aliases(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *head = lambda_need(op);
    const char *only = http_param(op->q->req, "FunctionVersion");
    struct val *v, *list;
    struct lambda_page page;

    if (!head || lambda_page_read(op, &page) < 0)
        return;
    v = val_map(a);
    list = val_list(a);
    VAL_EACH(val_at(obj_val(head), "spec.aliases"), it)
        if ((!only || streq(val_str_at(it, "version", ""), only)) && lambda_page_takes(op, &page, v))
            val_push(a, list, alias_shown(op, head, it));
    val_put(a, v, "Aliases", list);
    lambda_reply(op->q, 200, v);
}

void op_get_alias(struct op *op)
{
    const struct obj *head;
    const struct val *alias;

    if (op->path_n < 2) {
        list_aliases(op);
        return;
    }
    alias = need_alias(op, &head);
    if (alias)
        lambda_reply(op->q, 200, alias_shown(op, head, alias));
}

void op_update_alias(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *head;
    const struct val *alias = need_alias(op, &head);
    const char *want = val_str_at(op->in, "RevisionId", NULL);
    struct val *list;

    if (!alias)
        return;
    if (want && !streq(want, val_str_at(alias_shown(op, head, alias), "RevisionId", ""))) {
        lambda_error(op->q, 412, "PreconditionFailedException", "The Revision Id provided does not match the latest Revision "
                     "Id. Call the GetFunction/GetAlias API to retrieve the latest Revision Id");
        return;
    }
    list = val_copy(a, val_at(obj_val(head), "spec.aliases"));
    VAL_EACH(list, it)
        if (streq(val_str_at(it, "name", ""), op->alias) && alias_read(op, it) < 0)
            return;
    lambda_put_list(op, head, "aliases", list, reply_alias);
}

void op_delete_alias(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *head = lambda_need(op);
    struct val *list;

    if (!head)
        return;
    op->alias = op->path_n > 1 ? op->path[1] : "";
    if (!lambda_alias(head, op->alias)) { /* as Lambda answers: gone is gone */
        lambda_reply(op->q, 204, NULL);
        return;
    }
    list = val_copy(a, val_at(obj_val(head), "spec.aliases"));
    for (uint32_t i = 0; i < val_len(list); i++)
        if (streq(val_str_at(&list->items[i], "name", ""), op->alias))
            val_remove(list, i--);
    lambda_put_list(op, head, "aliases", list, reply_alias);
}

/* ---- provisioned concurrency ---- */

static const struct val *find_provisioned(const struct obj *head, const char *qualifier)
{
    VAL_EACH(val_at(obj_val(head), "spec.provisioned"), it)
        if (streq(val_str_at(it, "qualifier", ""), qualifier))
            return it;
    return NULL;
}

static struct val *provisioned_shown(struct op *op, const struct val *p)
{
    struct arena *a = op->q->req->arena;
    const char *qualifier = val_str_at(p, "qualifier", "");
    int64_t want = val_int_at(p, "instances", 0);
    int64_t have = MIN((int64_t)functions_provisioned(op->q->d->o.functions, LAMBDA_NS, op->n.object, qualifier), want);
    struct val *v = val_map(a);

    val_put_int(a, v, "RequestedProvisionedConcurrentExecutions", want);
    val_put_int(a, v, "AvailableProvisionedConcurrentExecutions", have);
    val_put_int(a, v, "AllocatedProvisionedConcurrentExecutions", have);
    val_put_str(a, v, "Status", have == want ? "READY" : "IN_PROGRESS");
    val_put_str(a, v, "LastModified", lambda_now(a));
    return v;
}

/* The qualifier that is provisioned for; NULL: answered. */
static const char *need_qualifier(struct op *op, const struct obj **ret_head, bool put)
{
    struct lambda_qualified w;

    if (!op->n.qualifier || streq(op->n.qualifier, "$LATEST")) {
        lambda_error(op->q, 400, "InvalidParameterValueException",
                     put ? "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
                         : "The function resource provided must be an alias or a published version.");
        return NULL;
    }
    w.head = lambda_head(op);
    if (!w.head)
        return NULL;
    if (!is_number(op->n.qualifier) && !lambda_alias(w.head, op->n.qualifier)) {
        no_alias(op, op->n.qualifier);
        return NULL;
    }
    if (lambda_qualified(op, &w) < 0)
        return NULL;
    *ret_head = w.head;
    return op->n.qualifier;
}

/* A version has instances of its own or by an alias, not both. true: answered. */
static bool is_provisioned_twice(struct op *op, const struct obj *head)
{
    const struct val *alias = lambda_alias(head, op->n.qualifier);
    bool twice = alias && find_provisioned(head, val_str_at(alias, "version", ""));

    VAL_EACH(alias ? NULL : val_at(obj_val(head), "spec.aliases"), it)
        twice |= streq(val_str_at(it, "version", ""), op->n.qualifier) && find_provisioned(head, val_str_at(it, "name", ""));
    if (twice)
        lambda_error(op->q, 409, "ResourceConflictException", alias ? "Alias can't be used for Provisioned Concurrency configuration on an already "
                     "Provisioned version" : "Version is pointed by a Provisioned Concurrency alias");
    return twice;
}

static void reply_provisioned(struct op *op, const struct obj *head)
{
    const struct val *p = find_provisioned(head, op->n.qualifier);

    if (p)
        lambda_reply(op->q, 202, provisioned_shown(op, p));
    else
        lambda_reply(op->q, 204, NULL);
}

static struct val *provisioned_without(struct op *op, const struct obj *head)
{
    struct arena *a = op->q->req->arena;
    struct val *list = val_list(a);

    VAL_EACH(val_at(obj_val(head), "spec.provisioned"), it)
        if (!streq(val_str_at(it, "qualifier", ""), op->n.qualifier))
            val_push(a, list, it);
    return list;
}

void op_put_provisioned(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *head;
    const struct val *n = val_get(op->in, "ProvisionedConcurrentExecutions");
    struct lambda_qualified w;
    struct val *list, *p;

    if (!need_qualifier(op, &head, true) || is_provisioned_twice(op, head))
        return;
    if (!val_is(n, VAL_INT) || n->i < 1) {
        lambda_error(op->q, 400, "ValidationException", "1 validation error detected: Value at "
                     "'provisionedConcurrentExecutions' failed to satisfy constraint: Member must have value greater than or "
                     "equal to 1");
        return;
    }
    if (n->i > 900 || n->i > val_int_at(obj_val(head), "spec.reservedConcurrency", INT64_MAX)) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "Requested Provisioned Concurrency should not be greater than "
                     "the reservedConcurrentExecution for function or the account's unreserved concurrency");
        return;
    }
    if (lambda_qualified(op, &w) == 0 && w.version && streq(val_str_at(obj_val(w.version), "spec.template.snapStart", "None"), "PublishedVersions")) {
        lambda_error(op->q, 400, "InvalidParameterValueException", "Provisioned Concurrency is not supported for SnapStart enabled functions.");
        return;
    }
    list = provisioned_without(op, head);
    p = val_map(a);
    val_put_str(a, p, "qualifier", op->n.qualifier);
    val_put_int(a, p, "instances", n->i);
    val_push(a, list, p);
    lambda_put_list(op, head, "provisioned", list, reply_provisioned);
}

void op_get_provisioned(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const struct obj *head;
    const struct val *p;
    struct lambda_page page;
    struct val *v, *list;

    if (http_param(op->q->req, "List")) {
        head = lambda_need(op);
        if (!head || lambda_page_read(op, &page) < 0)
            return;
        v = val_map(a);
        list = val_list(a);
        VAL_EACH(val_at(obj_val(head), "spec.provisioned"), it) {
            struct val *one;

            if (!lambda_page_takes(op, &page, v))
                continue;
            one = provisioned_shown(op, it);
            val_put(a, one, "FunctionArn", val_printf(a, "%s:%s", lambda_arn(op->q, op->n.name), val_str_at(it, "qualifier", "")));
            val_push(a, list, one);
        }
        val_put(a, v, "ProvisionedConcurrencyConfigs", list);
        lambda_reply(op->q, 200, v);
        return;
    }
    if (!need_qualifier(op, &head, false))
        return;
    p = find_provisioned(head, op->n.qualifier);
    if (p)
        lambda_reply(op->q, 200, provisioned_shown(op, p));
    else
        lambda_error(op->q, 404, "ProvisionedConcurrencyConfigNotFoundException",
                     "No Provisioned Concurrency Config found for this function");
}

void op_delete_provisioned(struct op *op)
{
    const struct obj *head;

    if (!need_qualifier(op, &head, false))
        return;
    if (!find_provisioned(head, op->n.qualifier))
        lambda_reply(op->q, 204, NULL);
    else
        lambda_put_list(op, head, "provisioned", provisioned_without(op, head), reply_provisioned);
}
