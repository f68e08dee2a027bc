/* door/aws/cloudformation/type_iam.c - AWS::IAM::*: roles, users, policies and keys, by IAM's own operations. */
#include "door/aws/cloudformation/cfn_int.h"

#define GONE "NoSuchEntity NoSuchEntityException"
#define THERE "EntityAlreadyExists EntityAlreadyExistsException"

static struct cfn_call iam(struct cfn_work *w, const char *action, const char *name1, const char *value1, const char *name2,
                           const char *value2, const char *name3, const char *value3)
{
    return cfn_query(w, "iam", "2010-05-08", action, name1 ? name1 : "x", name1 ? value1 : NULL, name2 ? name2 : "x",
                     name2 ? value2 : NULL, name3 ? name3 : "x", name3 ? value3 : NULL, NULL);
}

static void push(struct cfn_work *w, struct cfn_call c, const char *fine)
{
    c.fine = fine;
    cfn_push(w, &c);
}

static const char *document(struct cfn_work *w, const struct val *v)
{
    return val_is(v, VAL_STR) ? v->s : v ? json_text(w->a, v, NULL) : NULL;
}

static const char *prop(const struct cfn_work *w, const char *name)
{
    return val_str_at(w->props, name, NULL);
}

static bool holds(const struct val *list, const char *text)
{
    VAL_EACH(list, it)
        if (streq(val_text(it, ""), text))
            return true;
    return false;
}

static bool holds_policy(const struct val *list, const char *name)
{
    VAL_EACH(list, it)
        if (streq(val_str_at(it, "PolicyName", ""), name))
            return true;
    return false;
}

/* What a role or a user ("Role", "User") has of policies: what the template says is put, what it says no more is taken. */
static void policies_of(struct cfn_work *w, const char *what, const char *name, bool all_go)
{
    const struct val *inline_ = all_go ? NULL : val_get(w->props, "Policies"), *arns = all_go ? NULL : val_get(w->props, "ManagedPolicyArns");
    const struct val *had = all_go ? val_get(w->props, "Policies") : val_get(w->was, "Policies");
    const struct val *had_arns = all_go ? val_get(w->props, "ManagedPolicyArns") : val_get(w->was, "ManagedPolicyArns");
    const char *key = arena_printf(w->a, "%sName", what);

    VAL_EACH(inline_, p)
        push(w, iam(w, arena_printf(w->a, "Put%sPolicy", what), key, name, "PolicyName", val_str_at(p, "PolicyName", ""), "PolicyDocument",
                    document(w, val_get(p, "PolicyDocument"))), NULL);
    VAL_EACH(arns, arn)
        push(w, iam(w, arena_printf(w->a, "Attach%sPolicy", what), key, name, "PolicyArn", val_text(arn, ""), NULL, NULL), NULL);
    VAL_EACH(had, p)
        if (!holds_policy(inline_, val_str_at(p, "PolicyName", "")))
            push(w, iam(w, arena_printf(w->a, "Delete%sPolicy", what), key, name, "PolicyName", val_str_at(p, "PolicyName", ""), NULL, NULL),
                 GONE);
    VAL_EACH(had_arns, arn)
        if (!holds(arns, val_text(arn, "")))
            push(w, iam(w, arena_printf(w->a, "Detach%sPolicy", what), key, name, "PolicyArn", val_text(arn, ""), NULL, NULL), GONE);
}

static struct cfn_call with_tags(struct cfn_work *w, struct cfn_call c)
{
    struct buf b = {0};
    int n = 0;

    buf_add(&b, c.body, c.body_n);
    for (int own = 1; own >= 0; own--)
        VAL_EACH(own ? val_get(w->props, "Tags") : val_get(w->s->spec, "tags"), t)
            if (n < 40)
                n++, buf_printf(&b, "&Tags.member.%d.Key=%s&Tags.member.%d.Value=%s", n, http_escape(w->a, val_str_at(t, "Key", ""), NULL), n,
                                http_escape(w->a, val_str_at(t, "Value", ""), NULL));
    c.body_n = b.n;
    c.body = arena_strndup(w->a, b.p, b.n);
    buf_done(&b);
    return c;
}

/* ---- Role ---- */

static void got_role(struct cfn_work *w, const struct cfn_answer *ans)
{
    const struct val *role = ans->status < 300 ? val_at(ans->v, "GetRoleResult[0].Role[0]") : NULL;

    if (!role)
        role = val_at(ans->v, "CreateRoleResult[0].Role[0]");
    cfn_phys(w, role ? xml_get(role, "RoleName", w->phys) : w->phys);
    cfn_attr(w, "Arn", role ? xml_get(role, "Arn", NULL) : NULL);
    cfn_attr(w, "RoleId", role ? xml_get(role, "RoleId", NULL) : NULL);
}

static void role_create(struct cfn_work *w)
{
    const char *name = cfn_name(w, "RoleName", 64, false);
    struct cfn_call c = cfn_query(w, "iam", "2010-05-08", "CreateRole", "RoleName", name, "AssumeRolePolicyDocument",
                                  document(w, val_get(w->props, "AssumeRolePolicyDocument")), "Path", prop(w, "Path"), "Description",
                                  prop(w, "Description"), "MaxSessionDuration", cfn_scalar(w->a, val_get(w->props, "MaxSessionDuration")),
                                  "PermissionsBoundary", prop(w, "PermissionsBoundary"), NULL);

    c = with_tags(w, c);
    w->phys = name;
    c.got = got_role;
    c.fine = !prop(w, "RoleName") || (w->resumed && w->r->made) ? THERE : NULL;
    cfn_push(w, &c);
    policies_of(w, "Role", name, false);
    c = iam(w, "GetRole", "RoleName", name, NULL, NULL, NULL, NULL);
    c.got = got_role;
    cfn_push(w, &c);
}

static void role_update(struct cfn_work *w)
{
    if (cfn_changed(w, "AssumeRolePolicyDocument") || w->r->dirty)
        push(w, iam(w, "UpdateAssumeRolePolicy", "RoleName", w->phys, "PolicyDocument",
                    document(w, val_get(w->props, "AssumeRolePolicyDocument")), NULL, NULL), NULL);
    if (cfn_changed(w, "Description") || cfn_changed(w, "MaxSessionDuration"))
        push(w, cfn_query(w, "iam", "2010-05-08", "UpdateRole", "RoleName", w->phys, "Description",
                          prop(w, "Description") ? prop(w, "Description") : "", "MaxSessionDuration",
                          cfn_scalar(w->a, val_get(w->props, "MaxSessionDuration")), NULL), NULL);
    policies_of(w, "Role", w->phys, false);
}

static void role_drop(struct cfn_work *w)
{
    policies_of(w, "Role", w->phys, true);
    push(w, iam(w, "DeleteRole", "RoleName", w->phys, NULL, NULL, NULL, NULL), GONE);
}

/* ---- User, AccessKey ---- */

static void got_user(struct cfn_work *w, const struct cfn_answer *ans)
{
    const struct val *user = val_at(ans->v, "GetUserResult[0].User[0]");

    if (!user)
        user = val_at(ans->v, "CreateUserResult[0].User[0]");
    cfn_phys(w, user ? xml_get(user, "UserName", w->phys) : w->phys);
    cfn_attr(w, "Arn", user ? xml_get(user, "Arn", NULL) : NULL);
}

static void user_create(struct cfn_work *w)
{
    const char *name = cfn_name(w, "UserName", 64, false);
    struct cfn_call c = with_tags(w, iam(w, "CreateUser", "UserName", name, "Path", prop(w, "Path"), NULL, NULL));

    w->phys = name;
    c.got = got_user;
    c.fine = !prop(w, "UserName") || (w->resumed && w->r->made) ? THERE : NULL;
    cfn_push(w, &c);
    policies_of(w, "User", name, false);
    c = iam(w, "GetUser", "UserName", name, NULL, NULL, NULL, NULL);
    c.got = got_user;
    cfn_push(w, &c);
}
static void user_update(struct cfn_work *w)
{
    policies_of(w, "User", w->phys, false);
}
static void user_drop(struct cfn_work *w)
{
    policies_of(w, "User", w->phys, true);
    push(w, iam(w, "DeleteUser", "UserName", w->phys, NULL, NULL, NULL, NULL), GONE);
}

static void got_key(struct cfn_work *w, const struct cfn_answer *ans)
{
    const struct val *key = val_at(ans->v, "CreateAccessKeyResult[0].AccessKey[0]");

    cfn_phys(w, xml_get(key, "AccessKeyId", ""));
    cfn_attr(w, "SecretAccessKey", xml_get(key, "SecretAccessKey", NULL));
}
static void key_create(struct cfn_work *w)
{
    struct cfn_call c = iam(w, "CreateAccessKey", "UserName", prop(w, "UserName"), NULL, NULL, NULL, NULL);

    c.got = got_key;
    cfn_push(w, &c);
}
static void key_update(struct cfn_work *w)
{
    push(w, iam(w, "UpdateAccessKey", "UserName", prop(w, "UserName"), "AccessKeyId", w->phys, "Status",
                prop(w, "Status") ? prop(w, "Status") : "Active"), NULL);
}
static void key_drop(struct cfn_work *w)
{
    push(w, iam(w, "DeleteAccessKey", "UserName", prop(w, "UserName"), "AccessKeyId", w->phys, NULL, NULL), GONE);
}

/* ---- Policy (inline, of several), ManagedPolicy ---- */

static void each_holder(struct cfn_work *w, const struct val *props, const char *verb, const char *name, const char *body_key,
                        const char *body, const char *fine, const struct val *but)
{
    static const char *const KINDS[][2] = {{"Roles", "Role"}, {"Users", "User"}, {"Groups", "Group"}};

    for (size_t i = 0; i < ARRAY_LEN(KINDS); i++)
        VAL_EACH(val_get(props, KINDS[i][0]), who)
            if (!holds(val_get(but, KINDS[i][0]), val_text(who, "")))
                push(w, iam(w, arena_printf(w->a, "%s%sPolicy", verb, KINDS[i][1]), arena_printf(w->a, "%sName", KINDS[i][1]),
                            val_text(who, ""), str_starts(name, "arn:") ? "PolicyArn" : "PolicyName", name, body_key, body), fine);
}

static void policy_create(struct cfn_work *w)
{
    const char *name = prop(w, "PolicyName") ? prop(w, "PolicyName") : "";

    w->phys = w->phys ? w->phys : cfn_name(w, NULL, 64, false);
    each_holder(w, w->props, "Put", name, "PolicyDocument", document(w, val_get(w->props, "PolicyDocument")), NULL, NULL);
    if (w->was)
        each_holder(w, w->was, "Delete", name, NULL, NULL, GONE, w->props);
}
static void policy_drop(struct cfn_work *w)
{
    each_holder(w, w->props, "Delete", prop(w, "PolicyName") ? prop(w, "PolicyName") : "", NULL, NULL, GONE, NULL);
}

static void got_managed(struct cfn_work *w, const struct cfn_answer *ans)
{
    const char *arn = xml_get(val_at(ans->v, "CreatePolicyResult[0].Policy[0]"), "Arn", NULL);

    if (!arn)
        arn = arena_printf(w->a, "arn:aws:iam::%s:policy%s%s", w->s->c->d->account, prop(w, "Path") ? prop(w, "Path") : "/", w->phys);
    cfn_phys(w, arn);
    cfn_attr(w, "PolicyArn", arn);
    each_holder(w, w->props, "Attach", arn, NULL, NULL, NULL, NULL);
}
static void managed_create(struct cfn_work *w)
{
    const char *name = cfn_name(w, "ManagedPolicyName", 128, false);
    struct cfn_call c = cfn_query(w, "iam", "2010-05-08", "CreatePolicy", "PolicyName", name, "PolicyDocument",
                                  document(w, val_get(w->props, "PolicyDocument")), "Path", prop(w, "Path"), "Description",
                                  prop(w, "Description"), NULL);

    w->phys = name;
    c.got = got_managed;
    c.fine = !prop(w, "ManagedPolicyName") || (w->resumed && w->r->made) ? THERE : NULL;
    cfn_push(w, &c);
}
static void managed_update(struct cfn_work *w)
{
    if (cfn_changed(w, "PolicyDocument") || w->r->dirty)
        push(w, cfn_query(w, "iam", "2010-05-08", "CreatePolicyVersion", "PolicyArn", w->phys, "PolicyDocument",
                          document(w, val_get(w->props, "PolicyDocument")), "SetAsDefault", "true", NULL), NULL);
    each_holder(w, w->props, "Attach", w->phys, NULL, NULL, NULL, NULL);
    each_holder(w, w->was, "Detach", w->phys, NULL, NULL, GONE, w->props);
}

static void got_versions(struct cfn_work *w, const struct cfn_answer *ans)
{
    VAL_EACH(val_at(ans->v, "ListPolicyVersionsResult[0].Versions[0].member"), m)
    {
        struct cfn_call c = iam(w, "DeletePolicyVersion", "PolicyArn", w->phys, "VersionId", xml_get(m, "VersionId", ""), NULL, NULL);

        c.fine = GONE;
        if (!streq(xml_get(m, "IsDefaultVersion", "false"), "true"))
            cfn_push_next(w, &c);
    }
}
static void managed_drop(struct cfn_work *w)
{
    struct cfn_call c = iam(w, "ListPolicyVersions", "PolicyArn", w->phys, NULL, NULL, NULL, NULL);

    each_holder(w, w->props, "Detach", w->phys, NULL, NULL, GONE, NULL);
    c.got = got_versions;
    c.fine = GONE;
    cfn_push(w, &c);
    push(w, iam(w, "DeletePolicy", "PolicyArn", w->phys, NULL, NULL, NULL, NULL), GONE);
}

const struct cfn_type cfn_types_iam[] = {
    {"AWS::IAM::Role", " RoleName Path ", "RoleName", role_create, role_update, role_drop},
    {"AWS::IAM::User", " UserName Path ", "UserName", user_create, user_update, user_drop},
    {"AWS::IAM::AccessKey", " UserName Serial ", NULL, key_create, key_update, key_drop},
    {"AWS::IAM::Policy", " PolicyName ", NULL, policy_create, policy_create, policy_drop},
    {"AWS::IAM::ManagedPolicy", " ManagedPolicyName Path Description ", "ManagedPolicyName", managed_create, managed_update,
     managed_drop},
    {0},
};
