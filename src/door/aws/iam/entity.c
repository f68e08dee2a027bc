/* door/aws/iam/entity.c - roles and users: made, told, removed; inline policies, attachments, boundaries, tags. */
#include "door/aws/iam/iam_int.h"

#include <stdio.h>
#include <strings.h>
#include <time.h>

#include "codec/kubetime.h"

enum { ATTACHED_MAX = 10, TRUST_BYTES_MAX = 4096 };

const struct iam_kind IAM_ROLE = {IAM_ROLES, "IAMRole", "role", "Role", "RoleName", "AROA", 10240};
const struct iam_kind IAM_USER = {IAM_USERS, "IAMUser", "user", "User", "UserName", "AIDA", 2048};

struct mirror *iam_mirror(struct iam_op *op, const struct iam_kind *kind)
{
    return kind == &IAM_ROLE ? op->id->roles : op->id->users;
}

const char *iam_document_text(struct arena *a, const struct val *document)
{
    return !document ? "" : document->type == VAL_STR ? document->s : json_text(a, document, NULL);
}

const struct obj *iam_entity(struct iam_op *op)
{
    const struct iam_kind *k = op->action->kind;
    const char *name = iam_param(op, k->param);
    const struct obj *o;

    if (!name && k == &IAM_USER && op->q->caller.kind == CALLER_USER)
        name = op->q->caller.name; /* who asks for a user without a name asks for himself */
    else if (!(name = iam_need_name(op, k->param, 64)))
        return NULL;
    o = iam_find(iam_mirror(op, k), op->a, name);
    if (!o)
        iam_fail(op, 404, "NoSuchEntity", "The %s with name %s cannot be found.", k->noun, name);
    return o;
}

/* ---- as XML ---- */

static void document_element(struct iam_op *op, const char *name, const struct val *document)
{
    xml_element(&op->out, name, http_escape(op->a, iam_document_text(op->a, document), NULL));
}

void iam_entity_xml(struct iam_op *op, const struct obj *o, const struct iam_kind *kind, bool whole)
{
    const struct val *spec = val_get(obj_val(o), "spec");
    const char *description = val_str_at(spec, "description", ""), *boundary = val_str_at(spec, "boundary", "");
    bool role = kind == &IAM_ROLE;
    struct buf *b = &op->out;

    xml_element(b, "Path", val_str_at(spec, "path", "/"));
    xml_element(b, kind->param, iam_name_of(o));
    xml_element(b, role ? "RoleId" : "UserId", iam_id_of(op->a, o, kind->prefix));
    xml_element(b, "Arn", iam_arn_of(op->id, op->a, o, kind->noun));
    xml_element(b, "CreateDate", iam_created_of(o));
    if (role)
        document_element(op, "AssumeRolePolicyDocument", val_get(spec, "trust"));
    if (role && *description)
        xml_element(b, "Description", description);
    if (role)
        buf_printf(b, "<MaxSessionDuration>%lld</MaxSessionDuration>", (long long)val_int_at(spec, "maxSessionSeconds", 3600));
    if (!whole)
        return;
    if (*boundary) {
        buf_adds(b, "<PermissionsBoundary><PermissionsBoundaryType>Policy</PermissionsBoundaryType>");
        xml_element(b, "PermissionsBoundaryArn", boundary);
        buf_adds(b, "</PermissionsBoundary>");
    }
    if (val_len(val_get(spec, "tags"))) {
        buf_adds(b, "<Tags>");
        iam_write_tags(op, val_get(spec, "tags"));
        buf_adds(b, "</Tags>");
    }
    if (role && streq(op->action->name, "GetRole"))
        buf_adds(b, "<RoleLastUsed/>"); /* no request leaves a trace in the store */
}

static void reply_entity(struct iam_op *op, const struct obj *o)
{
    const struct iam_kind *k = op->action->kind;

    buf_printf(&op->out, "<%s>", k->Noun);
    iam_entity_xml(op, o, k, true);
    buf_printf(&op->out, "</%s>", k->Noun);
    iam_done(op);
}

/* ---- create, read, delete ---- */

static int check_policy_arn(struct iam_op *op, const char *arn)
{
    if (!str_starts(arn, "arn:aws:iam::") || !strstr(arn, ":policy/"))
        return iam_fail(op, 400, "ValidationError", "ARN %.200s is not valid.", arn);
    if (!iam_managed(op->id, arn) && !iam_policy(op->id, op->a, arn))
        return iam_fail(op, 404, "NoSuchEntity", "Policy %s does not exist or is not attachable.", arn);
    return 0;
}

static int read_duration(struct iam_op *op, struct val *spec)
{
    const char *s = iam_param(op, "MaxSessionDuration");
    char *end;
    long long n = s ? strtoll(s, &end, 10) : 3600;

    if (s && (*end || n < 3600 || n > 43200))
        return iam_fail(op, 400, "ValidationError", "1 validation error detected: Value '%.20s' at 'maxSessionDuration' failed to "
                        "satisfy constraint: Member must have value between 3600 and 43200", s);
    if (s)
        val_put_int(op->a, spec, "maxSessionSeconds", n);
    return 0;
}

static int read_description(struct iam_op *op, struct val *spec)
{
    const char *s = iam_param(op, "Description");

    if (s && strlen(s) > 1000)
        return iam_fail(op, 400, "ValidationError", "1 validation error detected: Value at 'description' failed to satisfy "
                        "constraint: Member must have length less than or equal to 1000");
    if (s)
        val_put_str(op->a, spec, "description", s);
    return 0;
}

static int read_trust(struct iam_op *op, const char *param, struct val *spec)
{
    const char *text = iam_need_document(op, param, POLICY_TRUST);

    if (!text)
        return -1;
    if (policy_bytes(text) > TRUST_BYTES_MAX)
        return iam_fail(op, 409, "LimitExceeded", "Cannot exceed quota for ACLSizePerRole: %d", TRUST_BYTES_MAX);
    val_put_str(op->a, spec, "trust", text);
    return 0;
}

static int read_entity(struct iam_op *op, struct val *spec)
{
    const struct iam_kind *k = op->action->kind;
    const char *boundary = iam_param(op, "PermissionsBoundary"), *path, *name = iam_need_name(op, k->param, 64);
    char text[KUBETIME_MAX];

    if (!name || iam_check_path(op, &path) < 0)
        return -1;
    val_put_str(op->a, spec, "name", name);
    val_put_str(op->a, spec, "path", path);
    val_put_str(op->a, spec, "id", iam_new_id(op->a, k->prefix));
    val_put_str(op->a, spec, "created", kubetime_text(text, (int64_t)time(NULL) * 1000));
    if (k == &IAM_ROLE && (read_trust(op, "AssumeRolePolicyDocument", spec) < 0 || read_description(op, spec) < 0 ||
                           read_duration(op, spec) < 0))
        return -1;
    if (boundary && check_policy_arn(op, boundary) < 0)
        return -1;
    if (boundary)
        val_put_str(op->a, spec, "boundary", boundary);
    return iam_read_tags(op, val_need_map(op->a, spec, "tags"));
}

void iam_create_entity(struct iam_op *op)
{
    const struct iam_kind *k = op->action->kind;
    struct val *v = val_map(op->a), *spec = val_map(op->a);
    const char *name;

    if (read_entity(op, spec) < 0)
        return;
    name = val_str_at(spec, "name", "");
    if (mirror_get(iam_mirror(op, k), "", iam_object_name(op->a, name))) {
        iam_fail(op, 409, "EntityAlreadyExists", "%s with name %s already exists.", k->Noun, name);
        return;
    }
    val_put_str(op->a, v, "apiVersion", "tandem.dev/v1");
    val_put_str(op->a, v, "kind", k->object);
    val_put_str(op->a, val_need_map(op->a, v, "metadata"), "name", iam_object_name(op->a, name));
    val_put(op->a, v, "spec", spec);
    iam_create(op, k->resource, iam_mirror(op, k), v, reply_entity);
}

void iam_get_entity(struct iam_op *op)
{
    const struct obj *o;

    if (op->action->kind == &IAM_USER && !iam_param(op, "UserName") && op->q->caller.kind == CALLER_ROOT) {
        buf_adds(&op->out, "<User><Path>/</Path>");
        xml_element(&op->out, "UserName", "root");
        xml_element(&op->out, "UserId", op->id->account);
        xml_element(&op->out, "Arn", op->q->caller.arn);
        xml_element(&op->out, "CreateDate", "2026-01-01T00:00:00Z");
        buf_adds(&op->out, "</User>");
        iam_done(op);
        return;
    }
    o = iam_entity(op);
    if (o)
        reply_entity(op, o);
}

void iam_list_entities(struct iam_op *op)
{
    const struct iam_kind *k = op->action->kind;
    const char *prefix = iam_param(op, "PathPrefix");
    struct objs all = mirror_list(iam_mirror(op, k), op->a, NULL);
    struct iam_page page;

    if (iam_page_begin(op, &page) < 0)
        return;
    buf_printf(&op->out, "<%ss>", k->Noun);
    for (uint32_t i = 0; i < all.n; i++) {
        if (prefix && !str_starts(val_str_at(obj_val(all.v[i]), "spec.path", "/"), prefix))
            continue;
        if (!iam_page_each(&page, all.v[i]->name))
            continue;
        buf_adds(&op->out, "<member>");
        iam_entity_xml(op, all.v[i], k, false);
        buf_adds(&op->out, "</member>");
    }
    buf_printf(&op->out, "</%ss>", k->Noun);
    iam_page_end(op, &page);
    iam_done(op);
}

static bool has_keys(struct iam_op *op, const char *user)
{
    struct objs all = mirror_list(op->id->keys, op->a, "kube-system");

    for (uint32_t i = 0; i < all.n; i++)
        if (streq0(obj_annotation(all.v[i], A_KEY_USER), user))
            return true;
    return false;
}

void iam_delete_entity(struct iam_op *op)
{
    const struct iam_kind *k = op->action->kind;
    const struct obj *o = iam_entity(op);
    const struct val *spec = o ? val_get(obj_val(o), "spec") : NULL;

    if (!o)
        return;
    if (val_len(val_get(spec, "attached")))
        iam_fail(op, 409, "DeleteConflict", "Cannot delete entity, must detach all policies first.");
    else if (val_len(val_get(spec, "policies")))
        iam_fail(op, 409, "DeleteConflict", "Cannot delete entity, must delete policies first.");
    else if (k == &IAM_USER && has_keys(op, iam_name_of(o)))
        iam_fail(op, 409, "DeleteConflict", "Cannot delete entity, must delete access keys first.");
    else
        iam_delete(op, k->resource, iam_mirror(op, k), o);
}

static void change_entity(struct iam_op *op, iam_change_fn *fn, iam_reply_fn *reply)
{
    const struct iam_kind *k = op->action->kind;
    const struct obj *o = iam_entity(op);

    if (o)
        iam_change(op, k->resource, iam_mirror(op, k), o, fn, reply);
}

static int put_role(struct iam_op *op, struct val *spec)
{
    return read_description(op, spec) < 0 ? -1 : read_duration(op, spec);
}
void iam_update_role(struct iam_op *op)
{
    change_entity(op, put_role, streq(op->action->name, "UpdateRole") ? iam_done_with : reply_entity);
}

static int put_user(struct iam_op *op, struct val *spec)
{
    const char *path = iam_param(op, "NewPath");

    if (iam_param(op, "NewUserName") && !streq(iam_param(op, "NewUserName"), val_str_at(spec, "name", "")))
        return iam_fail(op, 501, "NotImplemented", "tandem does not rename users");
    if (path)
        val_put_str(op->a, spec, "path", path);
    return 0;
}
void iam_update_user(struct iam_op *op)
{
    change_entity(op, put_user, iam_done_with);
}

static int put_trust(struct iam_op *op, struct val *spec)
{
    return read_trust(op, "PolicyDocument", spec);
}
void iam_update_trust(struct iam_op *op)
{
    change_entity(op, put_trust, iam_done_with);
}

/* ---- inline policies ---- */

static struct val *inline_policy(struct iam_op *op, const struct val *spec, const char *name, uint32_t *ret_i)
{
    uint32_t i = 0;

    VAL_EACH(val_get(spec, "policies"), it)
    {
        if (streq(val_str_at(it, "name", ""), name)) {
            *ret_i = i;
            return it;
        }
        i++;
    }
    iam_fail(op, 404, "NoSuchEntity", "The %s policy with name %s cannot be found.", op->action->kind->noun, name);
    return NULL;
}

static int put_inline(struct iam_op *op, struct val *spec)
{
    const char *name = iam_need_name(op, "PolicyName", 128), *text;
    struct val *list = val_need_list(op->a, spec, "policies"), *mine = NULL;
    size_t bytes = 0;

    if (!name || !(text = iam_need_document(op, "PolicyDocument", POLICY_IDENTITY)))
        return -1;
    VAL_EACH(list, it)
        if (streq(val_str_at(it, "name", ""), name))
            mine = it;
        else
            bytes += policy_bytes(iam_document_text(op->a, val_get(it, "document")));
    if (bytes + policy_bytes(text) > op->action->kind->inline_bytes_max)
        return iam_fail(op, 409, "LimitExceeded", "Maximum policy size of %zu bytes exceeded for %s %s",
                        op->action->kind->inline_bytes_max, op->action->kind->noun, iam_param(op, op->action->kind->param));
    if (!mine)
        mine = val_push(op->a, list, val_map(op->a));
    val_put_str(op->a, mine, "name", name);
    val_put_str(op->a, mine, "document", text);
    return 0;
}
void iam_put_inline(struct iam_op *op)
{
    change_entity(op, put_inline, iam_done_with);
}

void iam_get_inline(struct iam_op *op)
{
    const struct iam_kind *k = op->action->kind;
    const struct obj *o = iam_entity(op);
    const char *name = o ? iam_need_name(op, "PolicyName", 128) : NULL;
    const struct val *p;
    uint32_t i;

    if (!name || !(p = inline_policy(op, val_get(obj_val(o), "spec"), name, &i)))
        return;
    xml_element(&op->out, k->param, iam_name_of(o));
    xml_element(&op->out, "PolicyName", name);
    document_element(op, "PolicyDocument", val_get(p, "document"));
    iam_done(op);
}

static int by_text(const void *x, const void *y)
{
    return strcmp(*(const char *const *)x, *(const char *const *)y);
}

void iam_list_inline(struct iam_op *op)
{
    const struct obj *o = iam_entity(op);
    const struct val *list = o ? val_at(obj_val(o), "spec.policies") : NULL;
    const char **names;
    uint32_t n = 0;
    struct iam_page page;

    if (!o || iam_page_begin(op, &page) < 0)
        return;
    names = arena_array(op->a, const char *, val_len(list) + 1);
    VAL_EACH(list, it)
        names[n++] = val_str_at(it, "name", "");
    qsort(names, n, sizeof *names, by_text);
    buf_adds(&op->out, "<PolicyNames>");
    for (uint32_t i = 0; i < n; i++)
        if (iam_page_each(&page, names[i]))
            xml_element(&op->out, "member", names[i]);
    buf_adds(&op->out, "</PolicyNames>");
    iam_page_end(op, &page);
    iam_done(op);
}

static int drop_inline(struct iam_op *op, struct val *spec)
{
    const char *name = iam_need_name(op, "PolicyName", 128);
    uint32_t i;

    if (!name || !inline_policy(op, spec, name, &i))
        return -1;
    val_remove(val_get(spec, "policies"), i);
    return 0;
}
void iam_delete_inline(struct iam_op *op)
{
    change_entity(op, drop_inline, iam_done_with);
}

/* ---- attachments ---- */

bool iam_has_attached(const struct obj *o, const char *arn)
{
    VAL_EACH(val_at(obj_val(o), "spec.attached"), it)
        if (streq(val_text(it, ""), arn))
            return true;
    return false;
}

static int attach(struct iam_op *op, struct val *spec)
{
    const char *arn = iam_need(op, "PolicyArn", 2048);
    struct val *list = val_need_list(op->a, spec, "attached");

    if (!arn || check_policy_arn(op, arn) < 0)
        return -1;
    VAL_EACH(list, it)
        if (streq(val_text(it, ""), arn))
            return 0; /* again is fine */
    if (val_len(list) >= ATTACHED_MAX)
        return iam_fail(op, 409, "LimitExceeded", "Cannot exceed quota for PoliciesPer%s: %d", op->action->kind->Noun, ATTACHED_MAX);
    val_push_str(op->a, list, arn);
    return 0;
}
void iam_attach(struct iam_op *op)
{
    change_entity(op, attach, iam_done_with);
}

static int detach(struct iam_op *op, struct val *spec)
{
    const char *arn = iam_need(op, "PolicyArn", 2048);
    struct val *list = val_need_list(op->a, spec, "attached");

    for (uint32_t i = 0; arn && i < val_len(list); i++)
        if (streq(val_text(&list->items[i], ""), arn)) {
            val_remove(list, i);
            return 0;
        }
    return arn ? iam_fail(op, 404, "NoSuchEntity", "Policy %s was not found.", arn) : -1;
}
void iam_detach(struct iam_op *op)
{
    change_entity(op, detach, iam_done_with);
}

void iam_list_attached(struct iam_op *op)
{
    const struct obj *o = iam_entity(op);
    const char *prefix = iam_param(op, "PathPrefix"), **arns;
    const struct val *list = o ? val_at(obj_val(o), "spec.attached") : NULL;
    struct iam_page page;
    uint32_t n = 0;

    if (!o || iam_page_begin(op, &page) < 0)
        return;
    arns = arena_array(op->a, const char *, val_len(list) + 1);
    VAL_EACH(list, it)
        arns[n++] = val_text(it, "");
    qsort(arns, n, sizeof *arns, by_text);
    buf_adds(&op->out, "<AttachedPolicies>");
    for (uint32_t i = 0; i < n; i++) {
        const char *path = strstr(arns[i], ":policy/"), *name = strrchr(arns[i], '/');

        if ((prefix && path && !str_starts(path + 7, prefix)) || !name || !iam_page_each(&page, arns[i]))
            continue;
        buf_adds(&op->out, "<member>");
        xml_element(&op->out, "PolicyName", name + 1);
        xml_element(&op->out, "PolicyArn", arns[i]);
        buf_adds(&op->out, "</member>");
    }
    buf_adds(&op->out, "</AttachedPolicies>");
    iam_page_end(op, &page);
    iam_done(op);
}

static int put_boundary(struct iam_op *op, struct val *spec)
{
    const char *arn = iam_need(op, "PermissionsBoundary", 2048);

    if (!arn || check_policy_arn(op, arn) < 0)
        return -1;
    val_put_str(op->a, spec, "boundary", arn);
    return 0;
}
void iam_put_boundary(struct iam_op *op)
{
    change_entity(op, put_boundary, iam_done_with);
}

static int drop_boundary(struct iam_op *op, struct val *spec)
{
    (void)op;
    val_del(spec, "boundary");
    return 0;
}
void iam_delete_boundary(struct iam_op *op)
{
    change_entity(op, drop_boundary, iam_done_with);
}

/* ---- tags ---- */

static int put_tags(struct iam_op *op, struct val *spec)
{
    return iam_read_tags(op, val_need_map(op->a, spec, "tags"));
}
void iam_tag(struct iam_op *op)
{
    change_entity(op, put_tags, iam_done_with);
}

static int drop_tags(struct iam_op *op, struct val *spec)
{
    const char *key;

    for (int i = 1; (key = iam_member(op, "TagKeys", i, NULL)); i++)
        val_del(val_need_map(op->a, spec, "tags"), key);
    return 0;
}
void iam_untag(struct iam_op *op)
{
    change_entity(op, drop_tags, iam_done_with);
}

void iam_list_tags(struct iam_op *op)
{
    const struct obj *o = iam_entity(op);

    if (!o)
        return;
    if (iam_page_tags(op, val_at(obj_val(o), "spec.tags")) == 0)
        iam_done(op);
}

/* ---- who uses a policy ---- */

void iam_uses(struct iam_op *op, const char *arn, int64_t *ret_attached, int64_t *ret_boundary)
{
    *ret_attached = *ret_boundary = 0;
    for (int i = 0; i < 2; i++) {
        struct objs all = mirror_list(i ? op->id->users : op->id->roles, op->a, NULL);

        for (uint32_t k = 0; k < all.n; k++) {
            *ret_attached += iam_has_attached(all.v[k], arn);
            *ret_boundary += streq(val_str_at(obj_val(all.v[k]), "spec.boundary", ""), arn);
        }
    }
}
