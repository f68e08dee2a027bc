/* door/aws/lambda/signing.c - code signing configurations: CodeSigningConfig objects, named by their id.
 *
 * They are kept and handed out, and functions may name one. Signatures are not looked at, so a configuration can only
 * warn; one that enforces is refused. */
#include <stdio.h>
#include <sys/random.h>

#include "door/aws/lambda/lambda_int.h"

#define SIGNING "tandem.dev/v1/codesigningconfigs"

enum { ID_BYTES = 17 };

static char *signing_arn(struct aws_req *q, const char *id)
{
    return arena_printf(q->req->arena, "arn:aws:lambda:%s:%s:code-signing-config:%s", q->d->region, q->d->account, id);
}

static const char *id_of(const char *arn)
{
    const char *colon = strrchr(arn, ':');

    return colon ? colon + 1 : arn;
}

static struct val *shown(struct aws_req *q, const struct val *o)
{
    struct arena *a = q->req->arena;
    const char *id = val_str_at(o, "metadata.name", "");
    const char *modified = val_text(val_get(val_at(o, "metadata.annotations"), A_MODIFIED), NULL);
    struct val *v = val_map(a);

    val_put_str(a, v, "CodeSigningConfigId", id);
    val_put_str(a, v, "CodeSigningConfigArn", signing_arn(q, id));
    val_put_str(a, v, "Description", val_str_at(o, "spec.description", ""));
    val_put(a, val_need_map(a, v, "AllowedPublishers"), "SigningProfileVersionArns",
            val_at(o, "spec.publishers") ? val_at(o, "spec.publishers") : val_list(a));
    val_put_str(a, val_need_map(a, v, "CodeSigningPolicies"), "UntrustedArtifactOnDeployment", val_str_at(o, "spec.policy", "Warn"));
    val_put_str(a, v, "LastModified",
                modified ? modified : arena_printf(a, "%.19s.000+0000", val_str_at(o, "metadata.creationTimestamp", "1970-01-01T00:00:00")));
    return v;
}

static void reply_shown(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;
    struct val *v;

    if (r->err && r->err->code == ERR_NOT_FOUND) {
        lambda_error(q, 404, "ResourceNotFoundException", "The Lambda code signing configuration %s can not be found.", op->raw_name);
    } else if (r->err) {
        lambda_api_error(op, r->err, r->status);
    } else {
        v = val_map(q->req->arena);
        val_put(q->req->arena, v, "CodeSigningConfig", shown(q, r->val));
        lambda_reply(q, op->create ? 201 : 200, v);
    }
}

/* What the request says, into the object's spec; false: answered. */
static bool read_it(struct op *op, struct val *spec)
{
    struct arena *a = op->q->req->arena;
    const char *policy = val_str_at(op->in, "CodeSigningPolicies.UntrustedArtifactOnDeployment", NULL);
    const struct val *who = val_at(op->in, "AllowedPublishers.SigningProfileVersionArns");

    if (policy && streq(policy, "Enforce")) {
        lambda_error(op->q, 501, "NotImplementedException", "tandem does not verify signatures of code: a code signing configuration can warn "
                     "(UntrustedArtifactOnDeployment: Warn), not enforce");
        return false;
    }
    if (policy)
        val_put_str(a, spec, "policy", policy);
    if (val_str_at(op->in, "Description", NULL))
        val_put_str(a, spec, "description", val_str_at(op->in, "Description", ""));
    if (!val_is_null(who))
        val_put(a, spec, "publishers", who);
    return true;
}

void op_create_signing(struct op *op)
{
    static const char LETTERS[] = "0123456789abcdefghijklmnopqrstuv";
    struct arena *a = op->q->req->arena;
    unsigned char raw[ID_BYTES];
    char id[4 + ID_BYTES + 1] = "csc-";
    struct val *meta, *spec;

    op->create = true;
    op->patch = val_map(a);
    meta = val_need_map(a, op->patch, "metadata");
    if (getrandom(raw, sizeof raw, 0) != sizeof raw) {
        lambda_error(op->q, 500, "ServiceException", "no randomness for a name");
        return;
    }
    for (int i = 0; i < ID_BYTES; i++)
        id[4 + i] = LETTERS[raw[i] % 32];
    val_put_str(a, meta, "name", id);
    val_put_str(a, meta, "namespace", LAMBDA_NS);
    val_put_str(a, val_need_map(a, meta, "annotations"), A_MODIFIED, lambda_now(a));
    spec = val_need_map(a, op->patch, "spec");
    val_put_str(a, spec, "policy", "Warn");
    if (!val_is_null(val_get(op->in, "Tags")))
        val_put(a, spec, "tags", val_get(op->in, "Tags"));
    if (read_it(op, spec))
        aws_call(op->q, &(struct client_call){.verb = CLIENT_CREATE, .resource = SIGNING, .ns = LAMBDA_NS, .body = op->patch}, reply_shown, op);
}

void op_get_signing(struct op *op)
{
    aws_call(op->q, &(struct client_call){.verb = CLIENT_GET, .resource = SIGNING, .ns = LAMBDA_NS, .name = id_of(op->raw_name)}, reply_shown, op);
}

static void patch_it(struct op *op, aws_fn *then)
{
    aws_call(op->q, &(struct client_call){.verb = CLIENT_PATCH, .resource = SIGNING, .ns = LAMBDA_NS, .name = id_of(op->raw_name),
        .body = op->patch, .patch_type = CLIENT_PATCH_MERGE}, then, op);
}

void op_update_signing(struct op *op)
{
    struct arena *a = op->q->req->arena;

    op->patch = val_map(a);
    val_put_str(a, val_need_map(a, val_need_map(a, op->patch, "metadata"), "annotations"), A_MODIFIED, lambda_now(a));
    if (read_it(op, val_need_map(a, op->patch, "spec")))
        patch_it(op, reply_shown);
}

/* ---- which functions name it ---- */

static bool names_it(const struct obj *function, const char *id)
{
    return streq(id_of(val_str_at(obj_val(function), "spec.codeSigningConfig", "")), id);
}

static void reply_gone(struct aws_req *q, const struct client_result *r, void *arg)
{
    if (r->err)
        reply_shown(q, r, arg);
    else
        lambda_reply(q, 204, NULL);
}

void op_delete_signing(struct op *op)
{
    struct objs all = mirror_list(op->q->d->o.mirror, op->q->req->arena, LAMBDA_NS);

    for (uint32_t i = 0; i < all.n; i++)
        if (names_it(all.v[i], id_of(op->raw_name))) {
            lambda_error(op->q, 409, "ResourceConflictException", "The code signing configuration %s is used by the function %s.", op->raw_name,
                         lambda_name_of(all.v[i]));
            return;
        }
    aws_call(op->q, &(struct client_call){.verb = CLIENT_DELETE, .resource = SIGNING, .ns = LAMBDA_NS, .name = id_of(op->raw_name)}, reply_gone, op);
}

static void on_list(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;
    struct val *v = val_map(q->req->arena), *list = val_list(q->req->arena);
    struct lambda_page page;

    if (r->err) {
        lambda_api_error(op, r->err, r->status);
        return;
    }
    if (lambda_page_read(op, &page) < 0)
        return;
    VAL_EACH(val_get(r->val, "items"), it)
        if (lambda_page_takes(op, &page, v))
            val_push(q->req->arena, list, shown(q, it));
    val_put(q->req->arena, v, "CodeSigningConfigs", list);
    lambda_reply(q, 200, v);
}

void op_list_signing(struct op *op)
{
    aws_call(op->q, &(struct client_call){.verb = CLIENT_LIST, .resource = SIGNING, .ns = LAMBDA_NS}, on_list, op);
}

static void on_signed(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;
    struct arena *a = q->req->arena;
    struct objs all = mirror_list(q->d->o.mirror, a, LAMBDA_NS);
    struct val *v = val_map(a), *list = val_list(a);
    struct lambda_page page;

    if (r->err) {
        reply_shown(q, r, arg);
        return;
    }
    if (lambda_page_read(op, &page) < 0)
        return;
    for (uint32_t i = 0; i < all.n; i++)
        if (names_it(all.v[i], id_of(op->raw_name)) && lambda_page_takes(op, &page, v))
            val_push_str(a, list, lambda_arn(q, lambda_name_of(all.v[i])));
    val_put(a, v, "FunctionArns", list);
    lambda_reply(q, 200, v);
}

void op_list_signed(struct op *op)
{
    aws_call(op->q, &(struct client_call){.verb = CLIENT_GET, .resource = SIGNING, .ns = LAMBDA_NS, .name = id_of(op->raw_name)}, on_signed, op);
}

/* ---- at a function ---- */

static void reply_function(struct op *op, const struct obj *o)
{
    struct arena *a = op->q->req->arena;
    struct val *v = val_map(a);

    val_put_str(a, v, "CodeSigningConfigArn", val_str_at(obj_val(o), "spec.codeSigningConfig", ""));
    val_put_str(a, v, "FunctionName", op->n.name);
    lambda_reply(op->q, 200, v);
}

void op_get_function_signing(struct op *op)
{
    const struct obj *o = lambda_need(op);

    if (o)
        reply_function(op, o);
}

static void on_taken(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;
    const char *arn = val_str_at(op->in, "CodeSigningConfigArn", "");

    if (r->err && r->err->code == ERR_NOT_FOUND) {
        lambda_error(q, 404, "CodeSigningConfigNotFoundException", "The code signing configuration cannot be found. Check that the provided "
                     "configuration is not deleted: %s.", arn);
    } else if (r->err) {
        lambda_api_error(op, r->err, r->status);
    } else {
        val_put_str(q->req->arena, val_need_map(q->req->arena, op->patch, "spec"), "codeSigningConfig", arn);
        op->signed_(op);
    }
}

void lambda_take_signing(struct op *op, void (*then)(struct op *op))
{
    const char *arn = val_str_at(op->in, "CodeSigningConfigArn", "");

    op->signed_ = then;
    if (*arn)
        aws_call(op->q, &(struct client_call){.verb = CLIENT_GET, .resource = SIGNING, .ns = LAMBDA_NS, .name = id_of(arn)}, on_taken, op);
    else
        then(op);
}

static void write_function(struct op *op)
{
    lambda_patch(op, NULL, reply_function);
}

void op_put_function_signing(struct op *op)
{
    if (!lambda_need(op))
        return;
    op->patch = val_map(op->q->req->arena);
    val_need_map(op->q->req->arena, op->patch, "spec");
    lambda_take_signing(op, write_function);
}

void op_delete_function_signing(struct op *op)
{
    if (lambda_need(op))
        lambda_clear(op, "codeSigningConfig");
}

/* ---- tags ---- */

static void reply_tags(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;
    struct val *v = val_map(q->req->arena);

    if (r->err || op->run != op_list_tags) {
        reply_gone(q, r, arg);
        return;
    }
    val_put(q->req->arena, v, "Tags", val_at(r->val, "spec.tags") ? val_at(r->val, "spec.tags") : val_map(q->req->arena));
    lambda_reply(q, 200, v);
}

bool lambda_signing_tags(struct op *op)
{
    struct arena *a = op->q->req->arena;
    const char *name, *value;
    struct val *tags;

    if (!strstr(op->raw_name, ":code-signing-config:"))
        return false;
    if (op->run == op_list_tags) {
        aws_call(op->q, &(struct client_call){.verb = CLIENT_GET, .resource = SIGNING, .ns = LAMBDA_NS, .name = id_of(op->raw_name)}, reply_tags, op);
        return true;
    }
    op->patch = val_map(a);
    tags = val_need_map(a, val_need_map(a, op->patch, "spec"), "tags");
    if (op->run == op_tag) {
        VAL_EACH_MEMBER(val_get(op->in, "Tags"), m)
            val_put(a, tags, m->key, &m->v);
    } else {
        for (size_t i = 0; http_param_next(op->q->req, &i, &name, &value);)
            if (streq(name, "tagKeys"))
                val_put(a, tags, value, val_null(a));
    }
    patch_it(op, reply_tags);
    return true;
}
