/* door/aws/iam/iam.c - IAM (2010-05-08): forms in, XML out. Roles, users and policies are objects (kinds IAMRole, IAMUser,
 * IAMPolicy); reads come from mirrors, a write is answered when the mirror shows it, so that the next request does too. */
#include "door/aws/iam/iam_int.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <strings.h>

#include "base/log.h"

enum { TRIES_MAX = 5, TAGS_MAX = 50 };

/* ---- answers ---- */

int iam_fail(struct iam_op *op, int status, const char *code, const char *fmt, ...)
{
    char text[1024];
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof text, fmt, ap);
    va_end(ap);
    buf_done(&op->out);
    query_error(op->q, status, code, text);
    return -1;
}

void iam_done(struct iam_op *op)
{
    _auto_(buf_done) struct buf b = {0};

    query_begin(op->q, &b, op->action->name);
    if (op->out.n)
        buf_add(&b, op->out.p, op->out.n);
    buf_done(&op->out);
    query_end(op->q, &b, op->action->name);
}

void iam_done_with(struct iam_op *op, const struct obj *o)
{
    (void)o;
    iam_done(op);
}

/* ---- parameters ---- */

const char *iam_param(struct iam_op *op, const char *name)
{
    return query_param(op->q, name);
}

const char *iam_need(struct iam_op *op, const char *name, size_t max)
{
    const char *v = iam_param(op, name);
    char low[64];

    snprintf(low, sizeof low, "%c%s", tolower((unsigned char)name[0]), name + 1);
    if (!v)
        iam_fail(op, 400, "ValidationError", "1 validation error detected: Value null at '%s' failed to satisfy constraint: "
                 "Member must not be null", low);
    else if (!*v)
        iam_fail(op, 400, "ValidationError", "1 validation error detected: Value '' at '%s' failed to satisfy constraint: "
                 "Member must have length greater than or equal to 1", low);
    else if (strlen(v) > max)
        iam_fail(op, 400, "ValidationError", "1 validation error detected: Value at '%s' failed to satisfy constraint: Member "
                 "must have length less than or equal to %zu", low, max);
    else
        return v;
    return NULL;
}

const char *iam_need_name(struct iam_op *op, const char *param, size_t max)
{
    const char *v = iam_need(op, param, max);

    for (const char *p = v; p && *p; p++)
        if (!isalnum((unsigned char)*p) && !strchr("_+=,.@-", *p)) {
            iam_fail(op, 400, "ValidationError", "The specified value for %c%s is invalid. It must contain only alphanumeric "
                     "characters and/or the following: +=,.@_-", tolower((unsigned char)param[0]), param + 1);
            return NULL;
        }
    return v;
}

const char *iam_member(struct iam_op *op, const char *list, int i, const char *sub)
{
    char name[128];

    snprintf(name, sizeof name, sub ? "%s.member.%d.%s" : "%s.member.%d", list, i, sub);
    return iam_param(op, name);
}

const char *iam_need_document(struct iam_op *op, const char *param, enum policy_kind kind)
{
    const char *text = iam_need(op, param, 131072);
    struct err err = {0};

    if (!text)
        return NULL;
    if (!policy_read(op->a, val_lit(op->a, text), kind, &err)) {
        iam_fail(op, 400, "MalformedPolicyDocument", "%s", err.msg);
        return NULL;
    }
    return text;
}

int iam_check_path(struct iam_op *op, const char **ret)
{
    const char *path = iam_param(op, "Path");
    size_t n = path ? strlen(path) : 0;
    bool good = !path || (n && n <= 512 && path[0] == '/' && path[n - 1] == '/' && !strstr(path, "//"));

    for (const char *p = path; p && *p; p++)
        good &= *p > 32 && *p < 127;
    if (!good)
        return iam_fail(op, 400, "ValidationError", "The specified value for path is invalid. It must begin and end with / and "
                        "contain only alphanumeric characters and/or / characters.");
    *ret = path ? path : "/";
    return 0;
}

int iam_read_tags(struct iam_op *op, struct val *into)
{
    const char *key, *value;

    for (int i = 1; (key = iam_member(op, "Tags", i, "Key")); i++) {
        value = iam_member(op, "Tags", i, "Value");
        if (!*key || strlen(key) > 128 || !value || strlen(value) > 256)
            return iam_fail(op, 400, "ValidationError", "1 validation error detected: Value at 'tags.%d.member' failed to satisfy "
                            "constraint: a key has 1 to 128 characters, a value at most 256", i);
        if (strncasecmp(key, "aws:", 4) == 0)
            return iam_fail(op, 400, "InvalidInput", "Tag keys beginning with aws: are reserved for internal use.");
        val_put_str(op->a, into, key, value);
    }
    if (val_len(into) > TAGS_MAX)
        return iam_fail(op, 409, "LimitExceeded", "The number of tags has reached the maximum limit.");
    return 0;
}

void iam_write_tags(struct iam_op *op, const struct val *tags)
{
    VAL_EACH_MEMBER(tags, m)
    {
        buf_adds(&op->out, "<member>");
        xml_element(&op->out, "Key", m->key);
        xml_element(&op->out, "Value", val_text(&m->v, ""));
        buf_adds(&op->out, "</member>");
    }
}

/* ---- pages ---- */

int iam_page_begin(struct iam_op *op, struct iam_page *p)
{
    const char *marker = iam_param(op, "Marker"), *max = iam_param(op, "MaxItems");
    char *end = NULL;

    *p = (struct iam_page){.left = max ? strtoll(max, &end, 10) : 100};
    if (max && (*end || p->left < 1 || p->left > 1000))
        return iam_fail(op, 400, "ValidationError", "1 validation error detected: Value '%.20s' at 'maxItems' failed to satisfy "
                        "constraint: Member must have value between 1 and 1000", max);
    if (marker) {
        p->after = b64_decode(op->a, marker, NULL);
        if (!p->after)
            return iam_fail(op, 400, "ValidationError", "The specified marker is not valid.");
    }
    return 0;
}

bool iam_page_each(struct iam_page *p, const char *key)
{
    if (p->after && strcmp(key, p->after) <= 0)
        return false;
    if (p->left <= 0) {
        p->more = true;
        return false;
    }
    p->left--;
    p->last = key;
    return true;
}

void iam_page_end(struct iam_op *op, const struct iam_page *p)
{
    xml_element(&op->out, "IsTruncated", p->more ? "true" : "false");
    if (p->more)
        xml_element(&op->out, "Marker", b64_encode(op->a, p->last, strlen(p->last)));
}

static int by_text(const void *x, const void *y)
{
    return strcmp(*(const char *const *)x, *(const char *const *)y);
}

int iam_page_tags(struct iam_op *op, const struct val *tags)
{
    const char **keys = arena_array(op->a, const char *, val_len(tags) + 1);
    struct iam_page page;
    uint32_t n = 0;

    if (iam_page_begin(op, &page) < 0)
        return -1;
    VAL_EACH_MEMBER(tags, m)
    keys[n++] = m->key;
    qsort(keys, n, sizeof *keys, by_text);
    buf_adds(&op->out, "<Tags>");
    for (uint32_t i = 0; i < n; i++) {
        if (!iam_page_each(&page, keys[i]))
            continue;
        buf_adds(&op->out, "<member>");
        xml_element(&op->out, "Key", keys[i]);
        xml_element(&op->out, "Value", val_text(val_get(tags, keys[i]), ""));
        buf_adds(&op->out, "</member>");
    }
    buf_adds(&op->out, "</Tags>");
    iam_page_end(op, &page);
    return 0;
}

/* ---- writes ---- */

static void api_failed(struct iam_op *op, const struct client_result *r)
{
    if (r->err->code == ERR_NOT_FOUND)
        iam_fail(op, 404, "NoSuchEntity", "The %s with name %s cannot be found.",
                 op->action->kind ? op->action->kind->noun : "entity", op->object);
    else if (r->err->code == ERR_ALREADY_EXISTS)
        iam_fail(op, 409, "EntityAlreadyExists", "%s already exists.", op->object);
    else if (r->err->code == ERR_CONFLICT)
        iam_fail(op, 409, "ConcurrentModification", "The entity was changed by another request at the same time. Try again.");
    else if (r->err->code == ERR_INVALID || r->err->code == ERR_INVALID_ARGUMENT)
        iam_fail(op, 400, "ValidationError", "%s", r->err->msg);
    else
        iam_fail(op, 503, "ServiceUnavailable", "%s", r->err->msg);
}

static void on_seen(void *arg)
{
    struct iam_op *op = arg;

    op->reply(op, op->wrote);
}

static void on_written(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct iam_op *op = arg;

    (void)q;
    if (r->err) {
        api_failed(op, r);
        return;
    }
    if (r->obj) {
        op->wrote = obj_ref(r->obj);
        arena_pin(op->a, (void (*)(void *))(void (*)(void))obj_unref, (void *)(uintptr_t)op->wrote);
    }
    iam_wait(op->id, op->mirror, op->ns, op->object, op->wrote ? op->wrote->revision : 1, on_seen, op);
}

void iam_create(struct iam_op *op, const char *resource, struct mirror *m, const struct val *body, iam_reply_fn *reply)
{
    op->resource = resource;
    op->mirror = m;
    op->ns = val_str_at(body, "metadata.namespace", "");
    op->object = arena_strdup(op->a, val_str_at(body, "metadata.name", ""));
    op->reply = reply;
    aws_call(op->q, &(struct client_call){.verb = CLIENT_CREATE, .resource = resource, .ns = op->ns, .body = body}, on_written, op);
}

static void change(struct iam_op *op, const struct obj *o);

static void on_newer(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct iam_op *op = arg;

    (void)q;
    if (r->err)
        api_failed(op, r);
    else
        change(op, r->obj);
}

static void on_changed(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct iam_op *op = arg;

    if (r->err && r->err->code == ERR_CONFLICT && op->tries++ < TRIES_MAX) /* somebody else wrote: with what is there now */
        aws_call(q, &(struct client_call){.verb = CLIENT_GET, .resource = op->resource, .ns = op->ns, .name = op->object},
                 on_newer, op);
    else
        on_written(q, r, arg);
}

static void change(struct iam_op *op, const struct obj *o)
{
    struct val *v = obj_edit(o, op->a);

    if (op->change(op, val_need_map(op->a, v, "spec")) < 0)
        return;
    aws_call(op->q, &(struct client_call){.verb = CLIENT_UPDATE, .resource = op->resource, .ns = op->ns, .name = op->object, .body = v},
             on_changed, op);
}

void iam_change(struct iam_op *op, const char *resource, struct mirror *m, const struct obj *o, iam_change_fn *fn,
                iam_reply_fn *reply)
{
    op->resource = resource;
    op->mirror = m;
    op->ns = arena_strdup(op->a, o->namespace_);
    op->object = arena_strdup(op->a, o->name);
    op->change = fn;
    op->reply = reply;
    change(op, o);
}

static void on_deleted(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct iam_op *op = arg;

    (void)q;
    if (r->err)
        api_failed(op, r);
    else
        iam_wait(op->id, op->mirror, op->ns, op->object, 0, on_seen, op);
}

void iam_delete(struct iam_op *op, const char *resource, struct mirror *m, const struct obj *o)
{
    op->resource = resource;
    op->mirror = m;
    op->ns = arena_strdup(op->a, o->namespace_);
    op->object = arena_strdup(op->a, o->name);
    op->reply = iam_done_with;
    aws_call(op->q, &(struct client_call){.verb = CLIENT_DELETE, .resource = resource, .ns = op->ns, .name = op->object}, on_deleted, op);
}

/* ---- the operations ---- */

static void list_nothing(struct iam_op *op, const char *list)
{
    buf_printf(&op->out, "<%s/><IsTruncated>false</IsTruncated>", list);
    iam_done(op);
}
static void no_profiles(struct iam_op *op)
{
    if (!op->action->kind || iam_entity(op))
        list_nothing(op, "InstanceProfiles");
}
static void no_groups(struct iam_op *op)
{
    if (iam_entity(op))
        list_nothing(op, "Groups");
}
static void no_devices(struct iam_op *op)
{
    list_nothing(op, "MFADevices");
}
static void no_certificates(struct iam_op *op)
{
    list_nothing(op, "Certificates");
}
static void no_ssh_keys(struct iam_op *op)
{
    list_nothing(op, "SSHPublicKeys");
}
static void no_aliases(struct iam_op *op)
{
    list_nothing(op, "AccountAliases");
}

static const struct iam_action ACTIONS[] = {
    {"CreateRole", iam_create_entity, &IAM_ROLE, 'e'},
    {"GetRole", iam_get_entity, &IAM_ROLE, 'e'},
    {"ListRoles", iam_list_entities, &IAM_ROLE, '*'},
    {"DeleteRole", iam_delete_entity, &IAM_ROLE, 'e'},
    {"UpdateRole", iam_update_role, &IAM_ROLE, 'e'},
    {"UpdateRoleDescription", iam_update_role, &IAM_ROLE, 'e'},
    {"UpdateAssumeRolePolicy", iam_update_trust, &IAM_ROLE, 'e'},
    {"PutRolePolicy", iam_put_inline, &IAM_ROLE, 'e'},
    {"GetRolePolicy", iam_get_inline, &IAM_ROLE, 'e'},
    {"ListRolePolicies", iam_list_inline, &IAM_ROLE, 'e'},
    {"DeleteRolePolicy", iam_delete_inline, &IAM_ROLE, 'e'},
    {"AttachRolePolicy", iam_attach, &IAM_ROLE, 'e'},
    {"DetachRolePolicy", iam_detach, &IAM_ROLE, 'e'},
    {"ListAttachedRolePolicies", iam_list_attached, &IAM_ROLE, 'e'},
    {"TagRole", iam_tag, &IAM_ROLE, 'e'},
    {"UntagRole", iam_untag, &IAM_ROLE, 'e'},
    {"ListRoleTags", iam_list_tags, &IAM_ROLE, 'e'},
    {"PutRolePermissionsBoundary", iam_put_boundary, &IAM_ROLE, 'e'},
    {"DeleteRolePermissionsBoundary", iam_delete_boundary, &IAM_ROLE, 'e'},
    {"ListInstanceProfilesForRole", no_profiles, &IAM_ROLE, 'e'},
    {"ListInstanceProfiles", no_profiles, NULL, '*'},
    {"CreateUser", iam_create_entity, &IAM_USER, 'e'},
    {"GetUser", iam_get_entity, &IAM_USER, 'e'},
    {"ListUsers", iam_list_entities, &IAM_USER, '*'},
    {"DeleteUser", iam_delete_entity, &IAM_USER, 'e'},
    {"UpdateUser", iam_update_user, &IAM_USER, 'e'},
    {"PutUserPolicy", iam_put_inline, &IAM_USER, 'e'},
    {"GetUserPolicy", iam_get_inline, &IAM_USER, 'e'},
    {"ListUserPolicies", iam_list_inline, &IAM_USER, 'e'},
    {"DeleteUserPolicy", iam_delete_inline, &IAM_USER, 'e'},
    {"AttachUserPolicy", iam_attach, &IAM_USER, 'e'},
    {"DetachUserPolicy", iam_detach, &IAM_USER, 'e'},
    {"ListAttachedUserPolicies", iam_list_attached, &IAM_USER, 'e'},
    {"TagUser", iam_tag, &IAM_USER, 'e'},
    {"UntagUser", iam_untag, &IAM_USER, 'e'},
    {"ListUserTags", iam_list_tags, &IAM_USER, 'e'},
    {"PutUserPermissionsBoundary", iam_put_boundary, &IAM_USER, 'e'},
    {"DeleteUserPermissionsBoundary", iam_delete_boundary, &IAM_USER, 'e'},
    {"ListGroupsForUser", no_groups, &IAM_USER, 'e'},
    {"ListMFADevices", no_devices, &IAM_USER, 'e'},
    {"ListSigningCertificates", no_certificates, &IAM_USER, 'e'},
    {"ListSSHPublicKeys", no_ssh_keys, &IAM_USER, 'e'},
    {"CreateAccessKey", iam_create_key, &IAM_USER, 'e'},
    {"ListAccessKeys", iam_list_keys, &IAM_USER, 'e'},
    {"UpdateAccessKey", iam_update_key, &IAM_USER, 'e'},
    {"DeleteAccessKey", iam_delete_key, &IAM_USER, 'e'},
    {"GetAccessKeyLastUsed", iam_key_last_used, NULL, '*'},
    {"CreatePolicy", iam_create_policy, NULL, 'p'},
    {"GetPolicy", iam_get_policy, NULL, 'p'},
    {"ListPolicies", iam_list_policies, NULL, '*'},
    {"DeletePolicy", iam_delete_policy, NULL, 'p'},
    {"CreatePolicyVersion", iam_create_version, NULL, 'p'},
    {"GetPolicyVersion", iam_get_version, NULL, 'p'},
    {"ListPolicyVersions", iam_list_versions, NULL, 'p'},
    {"DeletePolicyVersion", iam_delete_version, NULL, 'p'},
    {"SetDefaultPolicyVersion", iam_set_default_version, NULL, 'p'},
    {"TagPolicy", iam_tag_policy, NULL, 'p'},
    {"UntagPolicy", iam_untag_policy, NULL, 'p'},
    {"ListPolicyTags", iam_list_policy_tags, NULL, 'p'},
    {"ListEntitiesForPolicy", iam_list_users_of_policy, NULL, 'p'},
    {"SimulateCustomPolicy", iam_simulate, NULL, '*'},
    {"SimulatePrincipalPolicy", iam_simulate, NULL, '*'},
    {"GetAccountSummary", iam_summary, NULL, '*'},
    {"ListAccountAliases", no_aliases, NULL, '*'},
};

/* What an operation is about, as an ARN. */
static const char *resource_of(struct iam_op *op)
{
    const struct iam_kind *k = op->action->kind;
    const char *name = k ? iam_param(op, k->param) : NULL, *path = iam_param(op, "Path"), *noun = k ? k->noun : "policy";
    const struct obj *o;

    if (op->action->about == '*')
        return "*";
    if (op->action->about == 'p') {
        if (iam_param(op, "PolicyArn") && !streq(op->action->name, "CreatePolicy"))
            return iam_param(op, "PolicyArn");
        name = iam_param(op, "PolicyName");
    } else {
        if (!name && op->q->caller.kind == CALLER_USER)
            return op->q->caller.arn;
        o = name ? iam_find(iam_mirror(op, k), op->a, name) : NULL;
        if (o)
            return iam_arn_of(op->id, op->a, o, noun);
    }
    return arena_printf(op->a, "arn:aws:iam::%s:%s%s%s", op->id->account, noun, path && str_starts(op->action->name, "Create") ? path : "/",
                        name ? name : "");
}

static bool may(struct iam_op *op)
{
    static const struct { const char *param, *key; } KEYS[] = {{"PolicyArn", "iam:policyarn"}, {"PermissionsBoundary", "iam:permissionsboundary"}};
    const struct iam_kind *k = op->action->kind;
    const char *name = k ? iam_param(op, k->param) : NULL, *key, *value;
    const struct obj *o = name ? iam_find(iam_mirror(op, k), op->a, name) : NULL;
    struct val *context, *tags = val_map(op->a);

    if (op->q->caller.kind == CALLER_ROOT && !op->q->caller.set.has_session)
        return true;
    context = aws_context(op->q);
    for (size_t i = 0; i < ARRAY_LEN(KEYS); i++)
        if (iam_param(op, KEYS[i].param))
            val_put_str(op->a, context, KEYS[i].key, iam_param(op, KEYS[i].param));
    for (int i = 1; (key = iam_member(op, "Tags", i, "Key")); i++)
        val_put_str(op->a, tags, key, (value = iam_member(op, "Tags", i, "Value")) ? value : "");
    aws_context_tags(op->q, context, "aws:requesttag", tags);
    if (o) {
        if (*val_str_at(obj_val(o), "spec.boundary", "") && !iam_param(op, "PermissionsBoundary"))
            val_put_str(op->a, context, "iam:permissionsboundary", val_str_at(obj_val(o), "spec.boundary", ""));
        aws_context_tags(op->q, context, "iam:resourcetag", val_at(obj_val(o), "spec.tags"));
        aws_context_tags(op->q, context, "aws:resourcetag", val_at(obj_val(o), "spec.tags"));
    }
    return aws_may(op->q, arena_printf(op->a, "iam:%s", op->action->name), resource_of(op), context);
}

void iam_request(struct aws_req *q)
{
    const char *action = query_param(q, "Action");
    struct iam_op *op = arena_new_of(q->req->arena, struct iam_op);

    if (!action) {
        query_error(q, 400, "MissingAction", "The request must contain the parameter Action");
        return;
    }
    op->q = q;
    op->id = q->d->o.identity;
    op->a = q->req->arena;
    for (size_t i = 0; i < ARRAY_LEN(ACTIONS); i++)
        if (streq(ACTIONS[i].name, action)) {
            op->action = &ACTIONS[i];
            if (may(op))
                op->action->run(op);
            return;
        }
    aws_error(q, 501, "NotImplemented", "tandem does not serve the IAM action %.64s", action);
}
