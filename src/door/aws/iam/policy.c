/* door/aws/iam/policy.c - managed policies: those that AWS ships (data), and the account's, with up to five versions. */
#include "door/aws/iam/iam_int.h"

#include <stdio.h>
#include <time.h>

#include "codec/kubetime.h"

enum { VERSIONS_MAX = 5, POLICY_MAX = 6144 };

static const char *now(struct iam_op *op)
{
    char text[KUBETIME_MAX];

    return arena_strdup(op->a, kubetime_text(text, (int64_t)time(NULL) * 1000));
}

/* One of the two is set; -1: answered. */
static int find(struct iam_op *op, const struct iam_managed **ret_m, const struct obj **ret_o)
{
    const char *arn = iam_need(op, "PolicyArn", 2048);

    if (!arn)
        return -1;
    if (!str_starts(arn, "arn:aws:iam::") || !strstr(arn, ":policy/"))
        return iam_fail(op, 400, "ValidationError", "Invalid ARN:  Could not be parsed!");
    *ret_m = iam_managed(op->id, arn);
    *ret_o = *ret_m ? NULL : iam_policy(op->id, op->a, arn);
    return *ret_m || *ret_o ? 0 : iam_fail(op, 404, "NoSuchEntity", "Policy %s was not found.", arn);
}

/* The account's own one; NULL: answered. */
static const struct obj *own(struct iam_op *op)
{
    const struct iam_managed *m = NULL;
    const struct obj *o = NULL;

    if (find(op, &m, &o) < 0)
        return NULL;
    if (m)
        iam_fail(op, 403, "AccessDenied", "User: %s is not authorized to perform: iam:%s on resource: policy %s: it is AWS's",
                 op->q->caller.arn, op->action->name, m->arn);
    return o;
}

static void managed_xml(struct iam_op *op, const struct iam_managed *m, bool whole)
{
    int64_t attached, boundary;

    iam_uses(op, m->arn, &attached, &boundary);
    xml_element(&op->out, "PolicyName", m->name);
    xml_element(&op->out, "PolicyId", m->id);
    xml_element(&op->out, "Arn", m->arn);
    xml_element(&op->out, "Path", m->path);
    xml_element(&op->out, "DefaultVersionId", m->version);
    buf_printf(&op->out, "<AttachmentCount>%lld</AttachmentCount><PermissionsBoundaryUsageCount>%lld</PermissionsBoundaryUsageCount>"
               "<IsAttachable>true</IsAttachable>", (long long)attached, (long long)boundary);
    if (whole)
        xml_element(&op->out, "Description", m->description);
    xml_element(&op->out, "CreateDate", m->created);
    xml_element(&op->out, "UpdateDate", m->created);
}

static void policy_xml(struct iam_op *op, const struct obj *o, bool whole)
{
    const struct val *spec = val_get(obj_val(o), "spec");
    const char *arn = iam_arn_of(op->id, op->a, o, "policy"), *description = val_str_at(spec, "description", "");
    const char *updated = val_str_at(spec, "updated", "");
    int64_t attached, boundary;

    iam_uses(op, arn, &attached, &boundary);
    xml_element(&op->out, "PolicyName", iam_name_of(o));
    xml_element(&op->out, "PolicyId", iam_id_of(op->a, o, "ANPA"));
    xml_element(&op->out, "Arn", arn);
    xml_element(&op->out, "Path", val_str_at(spec, "path", "/"));
    xml_element(&op->out, "DefaultVersionId", val_str_at(spec, "defaultVersion", "v1"));
    buf_printf(&op->out, "<AttachmentCount>%lld</AttachmentCount><PermissionsBoundaryUsageCount>%lld</PermissionsBoundaryUsageCount>"
               "<IsAttachable>true</IsAttachable>", (long long)attached, (long long)boundary);
    if (whole && *description)
        xml_element(&op->out, "Description", description);
    xml_element(&op->out, "CreateDate", iam_created_of(o));
    xml_element(&op->out, "UpdateDate", *updated ? updated : iam_created_of(o));
    if (whole && val_len(val_get(spec, "tags"))) {
        buf_adds(&op->out, "<Tags>");
        iam_write_tags(op, val_get(spec, "tags"));
        buf_adds(&op->out, "</Tags>");
    }
}

static void reply_policy(struct iam_op *op, const struct obj *o)
{
    buf_adds(&op->out, "<Policy>");
    policy_xml(op, o, true);
    buf_adds(&op->out, "</Policy>");
    iam_done(op);
}

static const char *need_document(struct iam_op *op)
{
    const char *text = iam_need_document(op, "PolicyDocument", POLICY_IDENTITY);

    if (text && policy_bytes(text) > POLICY_MAX) {
        iam_fail(op, 409, "LimitExceeded", "Cannot exceed quota for PolicySize: %d", POLICY_MAX);
        return NULL;
    }
    return text;
}

void iam_create_policy(struct iam_op *op)
{
    struct arena *a = op->a;
    const char *name = iam_need_name(op, "PolicyName", 128), *path, *text, *description = iam_param(op, "Description");
    struct val *v = val_map(a), *spec = val_map(a), *version = val_map(a);

    if (!name || iam_check_path(op, &path) < 0 || !(text = need_document(op)))
        return;
    if (mirror_get(op->id->policies, "", iam_object_name(a, name))) {
        iam_fail(op, 409, "EntityAlreadyExists", "A policy called %s already exists. Duplicate names are not allowed.", name);
        return;
    }
    val_put_str(a, spec, "name", name);
    val_put_str(a, spec, "path", path);
    val_put_str(a, spec, "id", iam_new_id(a, "ANPA"));
    val_put_str(a, spec, "created", now(op));
    if (description)
        val_put_str(a, spec, "description", description);
    val_put_str(a, version, "id", "v1");
    val_put_str(a, version, "document", text);
    val_put_str(a, version, "created", now(op));
    val_push(a, val_need_list(a, spec, "versions"), version);
    val_put_str(a, spec, "defaultVersion", "v1");
    val_put_int(a, spec, "lastVersion", 1);
    if (iam_read_tags(op, val_need_map(a, spec, "tags")) < 0)
        return;
    val_put_str(a, v, "apiVersion", "tandem.dev/v1");
    val_put_str(a, v, "kind", "IAMPolicy");
    val_put_str(a, val_need_map(a, v, "metadata"), "name", iam_object_name(a, name));
    val_put(a, v, "spec", spec);
    iam_create(op, IAM_POLICIES, op->id->policies, v, reply_policy);
}

void iam_get_policy(struct iam_op *op)
{
    const struct iam_managed *m;
    const struct obj *o;

    if (find(op, &m, &o) < 0)
        return;
    if (o) {
        reply_policy(op, o);
        return;
    }
    buf_adds(&op->out, "<Policy>");
    managed_xml(op, m, true);
    buf_adds(&op->out, "</Policy>");
    iam_done(op);
}

void iam_list_policies(struct iam_op *op)
{
    const char *scope = iam_param(op, "Scope"), *prefix = iam_param(op, "PathPrefix"), *only = iam_param(op, "OnlyAttached");
    bool aws = !scope || !streq(scope, "Local"), local = !scope || !streq(scope, "AWS"), attached_only = only && streq(only, "true");
    struct objs all = mirror_list(op->id->policies, op->a, NULL);
    struct iam_page page;
    int64_t attached, boundary;

    if (iam_page_begin(op, &page) < 0)
        return;
    buf_adds(&op->out, "<Policies>");
    for (uint32_t i = 0; local && i < all.n; i++) {
        iam_uses(op, iam_arn_of(op->id, op->a, all.v[i], "policy"), &attached, &boundary);
        if ((attached_only && !attached) || (prefix && !str_starts(val_str_at(obj_val(all.v[i]), "spec.path", "/"), prefix)))
            continue;
        if (!iam_page_each(&page, all.v[i]->name))
            continue;
        buf_adds(&op->out, "<member>");
        policy_xml(op, all.v[i], false);
        buf_adds(&op->out, "</member>");
    }
    for (uint32_t i = 0; aws && i < op->id->managed_n; i++) {
        const struct iam_managed *m = &op->id->managed[i];

        iam_uses(op, m->arn, &attached, &boundary);
        if ((attached_only && !attached) || (prefix && !str_starts(m->path, prefix)))
            continue;
        if (!iam_page_each(&page, arena_printf(op->a, "~%03u", i))) /* behind the account's own */
            continue;
        buf_adds(&op->out, "<member>");
        managed_xml(op, m, false);
        buf_adds(&op->out, "</member>");
    }
    buf_adds(&op->out, "</Policies>");
    iam_page_end(op, &page);
    iam_done(op);
}

void iam_delete_policy(struct iam_op *op)
{
    const struct obj *o = own(op);
    int64_t attached, boundary;

    if (!o)
        return;
    iam_uses(op, iam_arn_of(op->id, op->a, o, "policy"), &attached, &boundary);
    if (attached || boundary)
        iam_fail(op, 409, "DeleteConflict", "Cannot delete a policy attached to entities.");
    else if (val_len(val_at(obj_val(o), "spec.versions")) > 1)
        iam_fail(op, 409, "DeleteConflict", "This policy has more than one version. Before you delete a policy, you must delete the "
                 "policy's versions. The default version is deleted with the policy.");
    else
        iam_delete(op, IAM_POLICIES, op->id->policies, o);
}

/* ---- versions ---- */

static void version_xml(struct iam_op *op, const char *id, bool is_default, const char *created, const struct val *document)
{
    if (document)
        xml_element(&op->out, "Document", http_escape(op->a, iam_document_text(op->a, document), NULL));
    xml_element(&op->out, "VersionId", id);
    xml_element(&op->out, "IsDefaultVersion", is_default ? "true" : "false");
    xml_element(&op->out, "CreateDate", created);
}

static void reply_version(struct iam_op *op, const struct obj *o)
{
    const struct val *spec = val_get(obj_val(o), "spec"), *list = val_get(spec, "versions"), *v = &list->items[list->n - 1];
    const char *id = val_str_at(v, "id", "");

    buf_adds(&op->out, "<PolicyVersion>");
    version_xml(op, id, streq(id, val_str_at(spec, "defaultVersion", "v1")), val_str_at(v, "created", ""), NULL);
    buf_adds(&op->out, "</PolicyVersion>");
    iam_done(op);
}

static int put_version(struct iam_op *op, struct val *spec)
{
    const char *text = need_document(op), *as_default = iam_param(op, "SetAsDefault");
    struct val *list = val_need_list(op->a, spec, "versions"), *v = val_map(op->a);
    int64_t n = val_int_at(spec, "lastVersion", 0);

    if (!text)
        return -1;
    if (val_len(list) >= VERSIONS_MAX)
        return iam_fail(op, 409, "LimitExceeded", "A managed policy can have up to %d versions. Before you create a new version, you "
                        "must delete an existing version.", VERSIONS_MAX);
    VAL_EACH(list, it) /* made by hand: its numbers count */
        n = MAX(n, (int64_t)strtoll(val_str_at(it, "id", "v0") + 1, NULL, 10));
    val_put(op->a, v, "id", val_printf(op->a, "v%lld", (long long)n + 1));
    val_put_str(op->a, v, "document", text);
    val_put_str(op->a, v, "created", now(op));
    val_push(op->a, list, v);
    if (as_default && streq(as_default, "true"))
        val_put(op->a, spec, "defaultVersion", val_get(v, "id"));
    val_put_int(op->a, spec, "lastVersion", n + 1);
    val_put_str(op->a, spec, "updated", now(op));
    return 0;
}
void iam_create_version(struct iam_op *op)
{
    const struct obj *o = own(op);

    if (o)
        iam_change(op, IAM_POLICIES, op->id->policies, o, put_version, reply_version);
}

static int no_version(struct iam_op *op, const char *id)
{
    return iam_fail(op, 404, "NoSuchEntity", "Policy %s version %s does not exist or is not attachable.", iam_param(op, "PolicyArn"), id);
}

void iam_get_version(struct iam_op *op)
{
    const struct iam_managed *m;
    const struct obj *o;
    const char *id;
    const struct val *spec;

    if (find(op, &m, &o) < 0 || !(id = iam_need(op, "VersionId", 32)))
        return;
    spec = o ? val_get(obj_val(o), "spec") : NULL;
    buf_adds(&op->out, "<PolicyVersion>");
    if (m && streq(m->version, id)) {
        version_xml(op, id, true, m->created, m->document);
        goto done;
    }
    VAL_EACH(val_get(spec, "versions"), it)
        if (streq(val_str_at(it, "id", ""), id)) {
            version_xml(op, id, streq(id, val_str_at(spec, "defaultVersion", "v1")), val_str_at(it, "created", iam_created_of(o)),
                        val_get(it, "document"));
            goto done;
        }
    no_version(op, id);
    return;
done:
    buf_adds(&op->out, "</PolicyVersion>");
    iam_done(op);
}

void iam_list_versions(struct iam_op *op)
{
    struct iam_page page;
    const struct iam_managed *m;
    const struct obj *o;
    const struct val *spec, *list;

    if (find(op, &m, &o) < 0)
        return;
    if (iam_page_begin(op, &page) < 0)
        return;
    spec = o ? val_get(obj_val(o), "spec") : NULL;
    list = val_get(spec, "versions");
    buf_adds(&op->out, "<Versions>");
    if (m) {
        buf_adds(&op->out, "<member>");
        version_xml(op, m->version, true, m->created, NULL);
        buf_adds(&op->out, "</member>");
    }
    for (uint32_t i = val_len(list); i-- > 0;) { /* the newest first */
        const char *id = val_str_at(&list->items[i], "id", "");

        if (!iam_page_each(&page, arena_printf(op->a, "%010lld", 9999999999 - strtoll(id + (*id == 'v'), NULL, 10))))
            continue;
        buf_adds(&op->out, "<member>");
        version_xml(op, id, streq(id, val_str_at(spec, "defaultVersion", "v1")),
                    val_str_at(&list->items[i], "created", iam_created_of(o)), NULL);
        buf_adds(&op->out, "</member>");
    }
    buf_adds(&op->out, "</Versions>");
    iam_page_end(op, &page);
    iam_done(op);
}

static int drop_version(struct iam_op *op, struct val *spec)
{
    const char *id = iam_need(op, "VersionId", 32);
    struct val *list = val_need_list(op->a, spec, "versions");

    if (!id)
        return -1;
    if (streq(id, val_str_at(spec, "defaultVersion", "v1")))
        return iam_fail(op, 409, "DeleteConflict", "Cannot delete the default version of a policy.");
    for (uint32_t i = 0; i < val_len(list); i++)
        if (streq(val_str_at(&list->items[i], "id", ""), id)) {
            val_remove(list, i);
            return 0;
        }
    return no_version(op, id);
}
void iam_delete_version(struct iam_op *op)
{
    const struct obj *o = own(op);

    if (o)
        iam_change(op, IAM_POLICIES, op->id->policies, o, drop_version, iam_done_with);
}

static int put_default(struct iam_op *op, struct val *spec)
{
    const char *id = iam_need(op, "VersionId", 32);

    if (!id)
        return -1;
    VAL_EACH(val_get(spec, "versions"), it)
        if (streq(val_str_at(it, "id", ""), id)) {
            val_put_str(op->a, spec, "defaultVersion", id);
            val_put_str(op->a, spec, "updated", now(op));
            return 0;
        }
    return no_version(op, id);
}
void iam_set_default_version(struct iam_op *op)
{
    const struct obj *o = own(op);

    if (o)
        iam_change(op, IAM_POLICIES, op->id->policies, o, put_default, iam_done_with);
}

/* ---- tags, and who has it ---- */

static int put_tags(struct iam_op *op, struct val *spec)
{
    return iam_read_tags(op, val_need_map(op->a, spec, "tags"));
}
void iam_tag_policy(struct iam_op *op)
{
    const struct obj *o = own(op);

    if (o)
        iam_change(op, IAM_POLICIES, op->id->policies, o, put_tags, iam_done_with);
}

static int drop_tags(struct iam_op *op, struct val *spec)
{
    const char *key;

    for (int i = 1; (key = iam_member(op, "TagKeys", i, NULL)); i++)
        val_del(val_need_map(op->a, spec, "tags"), key);
    return 0;
}
void iam_untag_policy(struct iam_op *op)
{
    const struct obj *o = own(op);

    if (o)
        iam_change(op, IAM_POLICIES, op->id->policies, o, drop_tags, iam_done_with);
}

void iam_list_policy_tags(struct iam_op *op)
{
    const struct iam_managed *m;
    const struct obj *o;

    if (find(op, &m, &o) < 0)
        return;
    if (iam_page_tags(op, o ? val_at(obj_val(o), "spec.tags") : NULL) == 0)
        iam_done(op);
}

static void list_users(struct iam_op *op, const struct iam_kind *k, const char *arn, struct iam_page *page)
{
    const char *filter = iam_param(op, "EntityFilter"), *usage = iam_param(op, "PolicyUsageFilter");
    struct objs all = mirror_list(iam_mirror(op, k), op->a, NULL);

    buf_printf(&op->out, "<Policy%ss>", k->Noun);
    for (uint32_t i = 0; (!filter || streq(filter, k->Noun)) && i < all.n; i++) {
        bool boundary = streq(val_str_at(obj_val(all.v[i]), "spec.boundary", ""), arn), has = iam_has_attached(all.v[i], arn);

        if (usage ? !(streq(usage, "PermissionsBoundary") ? boundary : has) : !has && !boundary)
            continue;
        if (!iam_page_each(page, arena_printf(op->a, "%s/%s", k->Noun, all.v[i]->name)))
            continue;
        buf_adds(&op->out, "<member>");
        xml_element(&op->out, k->param, iam_name_of(all.v[i]));
        xml_element(&op->out, k == &IAM_ROLE ? "RoleId" : "UserId", iam_id_of(op->a, all.v[i], k->prefix));
        buf_adds(&op->out, "</member>");
    }
    buf_printf(&op->out, "</Policy%ss>", k->Noun);
}

void iam_list_users_of_policy(struct iam_op *op)
{
    const struct iam_managed *m;
    const struct obj *o;
    struct iam_page page;
    const char *arn;

    if (find(op, &m, &o) < 0 || iam_page_begin(op, &page) < 0)
        return;
    arn = iam_param(op, "PolicyArn");
    buf_adds(&op->out, "<PolicyGroups/>");
    list_users(op, &IAM_ROLE, arn, &page);
    list_users(op, &IAM_USER, arn, &page);
    iam_page_end(op, &page);
    iam_done(op);
}
