/* door/aws/lambda/layer.c - layers: each version is a FunctionLayer object, its zip lies with the code.
 *
 * A function keeps the zip's name of each of its layers, so a layer that is deleted stays with the
 * functions that have it, as on Lambda. The object of the highest number is only marked when it is
 * deleted: a number is never given twice. */
#include <ctype.h>
#include <stdio.h>

#include "door/aws/lambda/lambda_int.h"

#define LAYERS "tandem.dev/v1/functionlayers"

enum { LAYER_TRIES = 100, PAGE_DEFAULT = 50, PAGE_MAX = 50 };

/* ---- names ---- */

/* arn:aws:lambda:REGION:ACCOUNT:layer:NAME[:VERSION], or just a name. */
static bool layer_name(struct arena *a, const char *s, const char **ret_name, int64_t *ret_version)
{
    const char *mark = str_starts(s, "arn:") ? strstr(s, ":layer:") : NULL, *name = mark ? mark + 7 : s, *colon;
    size_t n;

    if (str_starts(s, "arn:") && !mark)
        return false;
    colon = strchr(name, ':');
    n = colon ? (size_t)(colon - name) : strlen(name);
    *ret_name = arena_strndup(a, name, n);
    *ret_version = colon ? strtoll(colon + 1, NULL, 10) : 0;
    if (!n || n > 140 || (colon && (!colon[1] || strspn(colon + 1, "0123456789") != strlen(colon + 1))))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)name[i]) && name[i] != '-' && name[i] != '_')
            return false;
    return true;
}

static char *layer_arn(struct op *op, const char *name, int64_t version)
{
    struct arena *a = op->q->req->arena;
    char *arn = arena_printf(a, "arn:aws:lambda:%s:%s:layer:%s", op->q->d->region, op->q->d->account, name);

    return version ? arena_printf(a, "%s:%lld", arn, (long long)version) : arn;
}

static const char *layer_object(struct op *op, const char *name, int64_t version)
{
    return arena_printf(op->q->req->arena, "%s.%lld", lambda_object_name(op->q->req->arena, name), (long long)version);
}

static struct val *shown(struct op *op, const struct val *o)
{
    struct arena *a = op->q->req->arena;
    const struct val *spec = val_get(o, "spec");
    const char *name = val_str_at(spec, "layer", "");
    int64_t version = val_int_at(spec, "version", 0);
    struct val *v = val_map(a);

    val_put_str(a, v, "LayerVersionArn", layer_arn(op, name, version));
    val_put_int(a, v, "Version", version);
    val_put_str(a, v, "Description", val_str_at(spec, "description", ""));
    val_put(a, v, "CreatedDate", val_printf(a, "%.19s.000+0000", val_str_at(o, "metadata.creationTimestamp", "1970-01-01T00:00:00")));
    if (val_len(val_get(spec, "compatibleRuntimes")))
        val_put(a, v, "CompatibleRuntimes", val_get(spec, "compatibleRuntimes"));
    if (val_len(val_get(spec, "compatibleArchitectures")))
        val_put(a, v, "CompatibleArchitectures", val_get(spec, "compatibleArchitectures"));
    if (!str_empty(val_str_at(spec, "licenseInfo", NULL)))
        val_put_str(a, v, "LicenseInfo", val_str_at(spec, "licenseInfo", ""));
    return v;
}

static struct val *shown_whole(struct op *op, const struct val *o)
{
    struct arena *a = op->q->req->arena;
    const char *sha = val_str_at(o, "spec.codeSha256", "");
    struct val *v = shown(op, o), *content = val_need_map(a, v, "Content");

    val_put_str(a, content, "CodeSha256", lambda_sha_base64(a, sha));
    val_put(a, content, "CodeSize", val_at(o, "spec.codeSize"));
    val_put(a, content, "Location", val_printf(a, "http://%s/.tandem/code/%s", op->q->req->host, sha));
    val_put_str(a, v, "LayerArn", layer_arn(op, val_str_at(o, "spec.layer", ""), 0));
    return v;
}

/* ---- publish ---- */

struct listing {
    struct op *op;
    void (*then)(struct op *op, const struct val *items);
};

static void on_layers(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct listing *l = arg;

    if (r->err)
        lambda_api_error(l->op, r->err, r->status);
    else
        l->then(l->op, val_copy(q->req->arena, val_get(r->val, "items"))); /* parts of it are kept in what is written */
}

static void all_layers(struct op *op, void (*then)(struct op *op, const struct val *items))
{
    struct listing *l = arena_new_of(op->q->req->arena, struct listing);

    *l = (struct listing){op, then};
    aws_call(op->q, &(struct client_call){.verb = CLIENT_LIST, .resource = LAYERS, .ns = LAMBDA_NS}, on_layers, l);
}

static void on_made(struct aws_req *q, const struct client_result *r, void *arg);

static void make_next(struct op *op)
{
    val_put_str(op->q->req->arena, val_get(op->patch, "metadata"), "name", layer_object(op, op->alias, op->number));
    val_put_int(op->q->req->arena, val_get(op->patch, "spec"), "version", op->number);
    aws_call(op->q, &(struct client_call){.verb = CLIENT_CREATE, .resource = LAYERS, .ns = LAMBDA_NS, .body = op->patch},
             on_made, op);
}

static void on_made(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;

    if (r->err && r->err->code == ERR_ALREADY_EXISTS && op->tries++ < LAYER_TRIES) {
        op->number++;
        make_next(op);
    } else if (r->err) {
        lambda_api_error(op, r->err, r->status);
    } else {
        lambda_reply(q, 201, shown_whole(op, r->val));
    }
}

static void number_it(struct op *op, const struct val *items)
{
    op->number = 1;
    VAL_EACH(items, it)
        if (streq(val_str_at(it, "spec.layer", ""), op->alias))
            op->number = MAX(op->number, val_int_at(it, "spec.version", 0) + 1);
    make_next(op);
}

static void on_code(struct op *op)
{
    struct val *spec = val_need_map(op->q->req->arena, op->patch, "spec");

    val_put_str(op->q->req->arena, spec, "codeSha256", op->sha256);
    val_put_int(op->q->req->arena, spec, "codeSize", (int64_t)op->zip_n);
    all_layers(op, number_it);
}

void op_publish_layer(struct op *op)
{
    static const char *const same[][2] = {{"Description", "description"}, {"LicenseInfo", "licenseInfo"},
        {"CompatibleRuntimes", "compatibleRuntimes"}, {"CompatibleArchitectures", "compatibleArchitectures"}};
    struct arena *a = op->q->req->arena;
    int64_t version;
    struct val *spec;

    if (!layer_name(a, op->raw_name, &op->alias, &version) || version) {
        lambda_error(op->q, 400, "ValidationException", "1 validation error detected: Value '%.160s' at 'layerName' failed to "
                     "satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9-_]+", op->raw_name);
        return;
    }
    op->patch = val_map(a);
    val_put_str(a, val_need_map(a, op->patch, "metadata"), "namespace", LAMBDA_NS);
    spec = val_need_map(a, op->patch, "spec");
    val_put_str(a, spec, "layer", op->alias);
    for (size_t i = 0; i < ARRAY_LEN(same); i++)
        if (!val_is_null(val_get(op->in, same[i][0])))
            val_put(a, spec, same[i][1], val_get(op->in, same[i][0]));
    if (val_len(val_get(spec, "compatibleRuntimes")) > 15) {
        lambda_error(op->q, 400, "ValidationException", "1 validation error detected: Value at 'compatibleRuntimes' failed to "
                     "satisfy constraint: Member must have length less than or equal to 15");
        return;
    }
    op->coded = on_code;
    lambda_take_code(op, val_get(op->in, "Content"));
}

/* ---- read and delete ---- */

static void no_layer(struct op *op, const char *name, int64_t version)
{
    lambda_error(op->q, 404, "ResourceNotFoundException", "The resource you requested does not exist. (%s)",
                 layer_arn(op, name, version));
}

static void on_got(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;

    if ((r->err && r->err->code == ERR_NOT_FOUND) || (!r->err && val_bool_at(r->val, "spec.deleted", false)))
        no_layer(op, op->alias, op->number);
    else if (r->err)
        lambda_api_error(op, r->err, r->status);
    else
        lambda_reply(q, 200, shown_whole(op, r->val));
}

static void get_version(struct op *op)
{
    aws_call(op->q, &(struct client_call){.verb = CLIENT_GET, .resource = LAYERS, .ns = LAMBDA_NS,
        .name = layer_object(op, op->alias, op->number)}, on_got, op);
}

/* Name and number out of the path; answers itself. */
static int layer_of_path(struct op *op, bool numbered)
{
    int64_t in_arn;

    if (!layer_name(op->q->req->arena, op->raw_name, &op->alias, &in_arn)) {
        lambda_error(op->q, 400, "ValidationException", "1 validation error detected: Value '%.160s' at 'layerName' failed to "
                     "satisfy constraint: Member must satisfy regular expression pattern: [a-zA-Z0-9-_]+", op->raw_name);
        return -1;
    }
    op->number = op->path_n > 1 ? strtoll(op->path[1], NULL, 10) : 0;
    if (numbered && op->number < 1) {
        lambda_error(op->q, 400, "ValidationException", "1 validation error detected: Value at 'versionNumber' failed to satisfy "
                     "constraint: Member must have value greater than or equal to 1");
        return -1;
    }
    return 0;
}

static bool fits_filter(struct op *op, const struct val *o)
{
    const char *runtime = http_param(op->q->req, "CompatibleRuntime"), *arch = http_param(op->q->req, "CompatibleArchitecture");
    bool r = !runtime || !val_len(val_at(o, "spec.compatibleRuntimes"));
    bool m = !arch || !val_len(val_at(o, "spec.compatibleArchitectures"));

    VAL_EACH(val_at(o, "spec.compatibleRuntimes"), it)
        r |= runtime && streq(val_text(it, ""), runtime);
    VAL_EACH(val_at(o, "spec.compatibleArchitectures"), it)
        m |= arch && streq(val_text(it, ""), arch);
    return r && m && !val_bool_at(o, "spec.deleted", false);
}

/* Newest first, behind the number that Marker says. */
static void versions_listed(struct op *op, const struct val *items)
{
    struct arena *a = op->q->req->arena;
    const char *marker = http_param(op->q->req, "Marker"), *max = http_param(op->q->req, "MaxItems");
    int64_t below = marker ? strtoll(marker, NULL, 10) : INT64_MAX, left = max ? strtoll(max, NULL, 10) : PAGE_DEFAULT;
    struct val *v = val_map(a), *list = val_list(a);

    left = MIN(MAX(left, (int64_t)1), (int64_t)PAGE_MAX);
    for (;;) {
        const struct val *best = NULL;

        VAL_EACH(items, it)
            if (streq(val_str_at(it, "spec.layer", ""), op->alias) && val_int_at(it, "spec.version", 0) < below &&
                fits_filter(op, it) && (!best || val_int_at(it, "spec.version", 0) > val_int_at(best, "spec.version", 0)))
                best = it;
        if (!best)
            break;
        if (left-- == 0) {
            val_put(a, v, "NextMarker", val_printf(a, "%lld", (long long)below));
            break;
        }
        below = val_int_at(best, "spec.version", 0);
        val_push(a, list, shown(op, best));
    }
    val_put(a, v, "LayerVersions", list);
    lambda_reply(op->q, 200, v);
}

/* layers/NAME/versions[/N] */
void op_get_layer(struct op *op)
{
    if (layer_of_path(op, op->path_n > 1) < 0)
        return;
    if (op->path_n > 1)
        get_version(op);
    else
        all_layers(op, versions_listed);
}

static void layers_listed(struct op *op, const struct val *items)
{
    struct arena *a = op->q->req->arena;
    const char *marker = http_param(op->q->req, "Marker"), *max = http_param(op->q->req, "MaxItems"), *at = marker ? marker : "";
    int64_t left = max ? MIN(MAX(strtoll(max, NULL, 10), 1LL), (long long)PAGE_MAX) : PAGE_DEFAULT;
    struct val *v = val_map(a), *list = val_list(a);

    for (;;) { /* by name; of each its newest */
        const struct val *best = NULL;
        struct val *one;

        VAL_EACH(items, it) {
            const char *name = val_str_at(it, "spec.layer", "");
            int order = best ? strcmp(name, val_str_at(best, "spec.layer", "")) : -1;

            if (strcmp(name, at) > 0 && fits_filter(op, it) &&
                (order < 0 || (order == 0 && val_int_at(it, "spec.version", 0) > val_int_at(best, "spec.version", 0))))
                best = it;
        }
        if (!best)
            break;
        if (left-- == 0) {
            val_put_str(a, v, "NextMarker", at);
            break;
        }
        at = val_str_at(best, "spec.layer", "");
        one = val_map(a);
        val_put_str(a, one, "LayerName", at);
        val_put_str(a, one, "LayerArn", layer_arn(op, at, 0));
        val_put(a, one, "LatestMatchingVersion", shown(op, best));
        val_push(a, list, one);
    }
    val_put(a, v, "Layers", list);
    lambda_reply(op->q, 200, v);
}

void op_list_layers(struct op *op)
{
    all_layers(op, layers_listed);
}

/* layers?find=LayerVersion&Arn=... */
void op_layer_by_arn(struct op *op)
{
    const char *arn = http_param(op->q->req, "Arn");

    if (!arn || !layer_name(op->q->req->arena, arn, &op->alias, &op->number) || !op->number)
        lambda_error(op->q, 400, "ValidationException", "1 validation error detected: Value '%.160s' at 'arn' failed to satisfy "
                     "constraint: it must be the ARN of a layer version", arn ? arn : "null");
    else
        get_version(op);
}

static void on_gone(struct aws_req *q, const struct client_result *r, void *arg)
{
    if (r->err && r->err->code != ERR_NOT_FOUND)
        lambda_api_error(arg, r->err, r->status);
    else
        lambda_reply(q, 204, NULL);
}

static void delete_it(struct op *op, const struct val *items)
{
    struct arena *a = op->q->req->arena;
    bool highest = true;

    VAL_EACH(items, it)
        if (streq(val_str_at(it, "spec.layer", ""), op->alias) && val_int_at(it, "spec.version", 0) > op->number)
            highest = false;
    if (highest) {
        op->patch = val_map(a);
        val_put_bool(a, val_need_map(a, op->patch, "spec"), "deleted", true);
        aws_call(op->q, &(struct client_call){.verb = CLIENT_PATCH, .resource = LAYERS, .ns = LAMBDA_NS, .body = op->patch,
            .name = layer_object(op, op->alias, op->number), .patch_type = CLIENT_PATCH_MERGE}, on_gone, op);
    } else {
        aws_call(op->q, &(struct client_call){.verb = CLIENT_DELETE, .resource = LAYERS, .ns = LAMBDA_NS,
            .name = layer_object(op, op->alias, op->number)}, on_gone, op);
    }
}

void op_delete_layer(struct op *op)
{
    if (layer_of_path(op, true) == 0)
        all_layers(op, delete_it);
}

/* ---- policies: kept and shown; they tell other accounts what they may, and there is one account here ---- */

static const char *policy_revision(struct op *op, const struct val *o)
{
    struct arena *a = op->q->req->arena;

    return lambda_revision_of(a, arena_printf(a, "%s/%s", val_str_at(o, "metadata.uid", ""),
                                              val_text(val_get(val_at(o, "metadata.annotations"), A_POLICY), "")));
}

/* Writes the layer's document, in the object that it was made from. */
static void put_layer_policy(struct op *op, const struct val *o, const struct val *policy, aws_fn *then)
{
    struct arena *a = op->q->req->arena;
    bool any = val_len(val_get(policy, "Statement"));
    struct val *meta;
    const char *text = lambda_policy_text(op, policy);

    if (!text)
        return;
    op->patch = val_map(a);
    meta = val_need_map(a, op->patch, "metadata");
    val_put(a, meta, "resourceVersion", val_at(o, "metadata.resourceVersion"));
    val_put(a, val_need_map(a, meta, "annotations"), A_POLICY, any ? val_str(a, text) : val_null(a));
    aws_call(op->q, &(struct client_call){.verb = CLIENT_PATCH, .resource = LAYERS, .ns = LAMBDA_NS, .body = op->patch,
        .name = layer_object(op, op->alias, op->number), .patch_type = CLIENT_PATCH_MERGE}, then, op);
}

/* The layer as it was read, with its document; false: answered. */
static bool policy_at_hand(struct op *op, const struct client_result *r, struct val **ret_policy)
{
    const char *want = http_param(op->q->req, "RevisionId");

    if ((r->err && r->err->code == ERR_NOT_FOUND) || (!r->err && val_bool_at(r->val, "spec.deleted", false))) {
        lambda_error(op->q, 404, "ResourceNotFoundException", "Layer version %s does not exist.", layer_arn(op, op->alias, op->number));
        return false;
    }
    if (r->err) {
        lambda_api_error(op, r->err, r->status);
        return false;
    }
    if (want && !streq(want, policy_revision(op, r->val))) {
        lambda_error(op->q, 412, "PreconditionFailedException", "The Revision Id provided does not match the latest Revision Id. Call the "
                     "GetLayerPolicy API to retrieve the latest Revision Id");
        return false;
    }
    *ret_policy = lambda_policy_read(op->q->req->arena, val_text(val_get(val_at(r->val, "metadata.annotations"), A_POLICY), NULL));
    return true;
}

static void on_policy_written(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;
    struct val *v;

    if (r->err && r->err->code == ERR_CONFLICT && op->tries++ < LAYER_TRIES) {
        op->run(op); /* somebody else wrote in between */
    } else if (r->err) {
        lambda_api_error(op, r->err, r->status);
    } else if (op->run == op_remove_layer_permission) {
        lambda_reply(q, 204, NULL);
    } else {
        v = val_map(q->req->arena);
        val_put_str(q->req->arena, v, "Statement",
                    json_text(q->req->arena, lambda_statement(op, layer_arn(op, op->alias, op->number)), NULL));
        val_put_str(q->req->arena, v, "RevisionId", policy_revision(op, r->val));
        lambda_reply(q, 201, v);
    }
}

static void on_add(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;
    const char *sid = val_str_at(op->in, "StatementId", "");
    struct val *policy;
    struct err err;

    if (!policy_at_hand(op, r, &policy))
        return;
    VAL_EACH(val_get(policy, "Statement"), it)
        if (streq(val_str_at(it, "Sid", ""), sid)) {
            lambda_error(q, 409, "ResourceConflictException", "The statement id (%s) provided already exists. Please provide a new statement "
                         "id, or remove the existing statement.", sid);
            return;
        }
    val_push(q->req->arena, val_need_list(q->req->arena, policy, "Statement"), lambda_statement(op, layer_arn(op, op->alias, op->number)));
    if (policy_check(policy, POLICY_RESOURCE, &err) < 0)
        lambda_error(q, 400, "InvalidParameterValueException", "%s", err.msg);
    else
        put_layer_policy(op, r->val, policy, on_policy_written);
}

static void on_remove(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;
    const char *sid = op->path_n > 3 ? op->path[3] : "";
    struct val *policy, *list;

    if (!policy_at_hand(op, r, &policy))
        return;
    list = val_get(policy, "Statement");
    for (uint32_t i = 0; i < val_len(list); i++)
        if (streq(val_str_at(&list->items[i], "Sid", ""), sid)) {
            val_remove(list, i);
            put_layer_policy(op, r->val, policy, on_policy_written);
            return;
        }
    lambda_error(q, 404, "ResourceNotFoundException", "Statement %s is not found in resource policy.", sid);
}

static void on_show(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;
    struct val *policy, *v;

    if (!policy_at_hand(op, r, &policy))
        return;
    if (!val_len(val_get(policy, "Statement"))) {
        lambda_error(q, 404, "ResourceNotFoundException", "No policy is associated with the given resource.");
        return;
    }
    v = val_map(q->req->arena);
    val_put_str(q->req->arena, v, "Policy", json_text(q->req->arena, policy, NULL));
    val_put_str(q->req->arena, v, "RevisionId", policy_revision(op, r->val));
    lambda_reply(q, 200, v);
}

static void read_layer(struct op *op, aws_fn *then)
{
    if (layer_of_path(op, true) == 0)
        aws_call(op->q, &(struct client_call){.verb = CLIENT_GET, .resource = LAYERS, .ns = LAMBDA_NS,
            .name = layer_object(op, op->alias, op->number)}, then, op);
}

void op_add_layer_permission(struct op *op)
{
    read_layer(op, on_add);
}

void op_get_layer_policy(struct op *op)
{
    read_layer(op, on_show);
}

void op_remove_layer_permission(struct op *op)
{
    read_layer(op, on_remove);
}

/* ---- the layers of a function ---- */

/* A version of that layer is in the list already. true: answered. */
static bool is_there_twice(struct op *op, const struct val *list, const char *arn)
{
    size_t n = (size_t)(strrchr(arn, ':') - arn) + 1;

    VAL_EACH(list, it)
        if (strncmp(val_str_at(it, "arn", ""), arn, n) == 0) {
            lambda_error(op->q, 400, "InvalidParameterValueException", "Two different versions of the same layer are not allowed to be referenced "
                         "in the same function. %s and %s are versions of the same layer.", val_str_at(it, "arn", ""), arn);
            return true;
        }
    return false;
}

static void resolved(struct op *op, const struct val *items)
{
    struct arena *a = op->q->req->arena;
    struct val *list = val_list(a);

    VAL_EACH(val_get(op->in, "Layers"), arn) {
        const struct val *found = NULL;
        const char *name = "";
        int64_t version = 0;
        struct val *one;

        if (!layer_name(a, val_text(arn, ""), &name, &version) || !version) {
            lambda_error(op->q, 400, "ValidationException", "1 validation error detected: Value '%.160s' at 'layers' failed to "
                         "satisfy constraint: it must be the ARN of a layer version", val_text(arn, ""));
            return;
        }
        VAL_EACH(items, it)
            if (streq(val_str_at(it, "spec.layer", ""), name) && val_int_at(it, "spec.version", 0) == version &&
                !val_bool_at(it, "spec.deleted", false))
                found = it;
        if (!found) {
            lambda_error(op->q, 400, "InvalidParameterValueException", "Layer version %s does not exist.", val_text(arn, ""));
            return;
        }
        if (!lambda_may_use_layer(op, found, layer_arn(op, name, version)) || is_there_twice(op, list, layer_arn(op, name, version)))
            return;
        one = val_map(a);
        val_put_str(a, one, "arn", layer_arn(op, name, version));
        val_put(a, one, "codeSha256", val_at(found, "spec.codeSha256"));
        val_put(a, one, "codeSize", val_at(found, "spec.codeSize"));
        val_push(a, list, one);
    }
    val_put(a, val_need_map(a, op->patch, "spec"), "layers", list);
    op->layered(op);
}

void lambda_take_layers(struct op *op, void (*then)(struct op *op))
{
    const struct val *layers = val_get(op->in, "Layers");

    op->layered = then;
    if (val_is_null(layers))
        then(op);
    else if (val_len(layers) > FUNCTION_LAYERS_MAX)
        lambda_error(op->q, 400, "InvalidParameterValueException", "Cannot reference more than %d layers.", FUNCTION_LAYERS_MAX);
    else
        all_layers(op, resolved);
}
