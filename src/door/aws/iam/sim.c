/* door/aws/iam/sim.c - SimulateCustomPolicy, SimulatePrincipalPolicy: the engine asked without a request; and the summary. */
#include "door/aws/iam/iam_int.h"

#include <ctype.h>
#include <stdio.h>

enum { ASKED_MAX = 1000 };

struct sim {
    struct policy_set set;
    struct caller caller;
    struct val *context;
    struct policy_docs extra, boundary;
};

static int read_documents(struct iam_op *op, const char *list, struct policy_docs *to)
{
    const char *text;
    struct err err = {0};
    int n = 0;

    while (iam_member(op, list, n + 1, NULL))
        n++;
    to->v = arena_array(op->a, const struct val *, n + 1);
    for (int i = 1; i <= n; i++) {
        text = iam_member(op, list, i, NULL);
        to->v[to->n] = policy_read(op->a, val_lit(op->a, text), POLICY_IDENTITY, &err);
        if (!to->v[to->n++])
            return iam_fail(op, 400, "InvalidInput", "Invalid Policy in %s.%d: %s", list, i, err.msg);
    }
    return 0;
}

static void read_context(struct iam_op *op, struct val *to)
{
    const char *key, *value;
    char list[64];

    for (int i = 1; (key = iam_member(op, "ContextEntries", i, "ContextKeyName")); i++) {
        struct val *values = val_list(op->a);
        char *low = arena_strdup(op->a, key);

        for (char *p = low; *p; p++)
            *p = (char)tolower((unsigned char)*p);
        snprintf(list, sizeof list, "ContextEntries.member.%d.ContextKeyValues", i);
        for (int k = 1; (value = iam_member(op, list, k, NULL)); k++)
            val_push_str(op->a, values, value);
        val_put(op->a, to, low, values);
    }
}

/* The documents of a user or role, as when he asks himself. */
static int read_source(struct iam_op *op, struct sim *s)
{
    const char *arn = iam_need(op, "PolicySourceArn", 2048), *slash = arn ? strrchr(arn, '/') : NULL;
    bool role = arn && strstr(arn, ":role/"), user = arn && strstr(arn, ":user/");
    const struct obj *o = slash && (role || user) ? iam_find(role ? op->id->roles : op->id->users, op->a, slash + 1) : NULL;

    if (!arn)
        return -1;
    if (!role && !user)
        return iam_fail(op, 400, "InvalidInput", "Invalid Entity Arn: %.200s does not clearly define entity type and name.", arn);
    if (!o || !streq(iam_arn_of(op->id, op->a, o, role ? "role" : "user"), arn))
        return iam_fail(op, 404, "NoSuchEntity", "The %s with name %s cannot be found.", role ? "role" : "user", slash ? slash + 1 : arn);
    s->caller.arn = arn;
    s->caller.who = (struct policy_who){.account = op->id->account, .arn = arn, .role = role ? arn : NULL};
    val_put_str(op->a, s->context, "aws:principalarn", arn);
    val_put_str(op->a, s->context, "aws:principalaccount", op->id->account);
    if (user)
        val_put_str(op->a, s->context, "aws:username", iam_name_of(o));
    VAL_EACH_MEMBER(val_at(obj_val(o), "spec.tags"), m)
    {
        char *key = arena_printf(op->a, "aws:principaltag/%s", m->key);

        for (char *p = key; *p; p++)
            *p = (char)tolower((unsigned char)*p);
        val_put_str(op->a, s->context, key, val_text(&m->v, ""));
    }
    iam_load(op->id, op->a, o, &s->set);
    return 0;
}

static void join(struct arena *a, struct policy_docs *to, const struct policy_docs *more)
{
    const struct val **v = arena_array(a, const struct val *, to->n + more->n + 1);

    for (uint32_t i = 0; i < to->n; i++)
        v[i] = to->v[i];
    for (uint32_t i = 0; i < more->n; i++)
        v[to->n + i] = more->v[i];
    to->v = v;
    to->n += more->n;
}

static const char *decision(struct iam_op *op, struct sim *s, const char *action, const char *resource)
{
    struct policy_ask ask = {action, resource, s->context, &s->caller.who, op->a};
    enum policy_verdict v = policy_decide(&s->set, &ask);

    return v == POLICY_ALLOWED ? "allowed" : v <= POLICY_DENY_RESOURCE ? "explicitDeny" : "implicitDeny";
}

void iam_simulate(struct iam_op *op)
{
    struct sim s = {.context = val_map(op->a)};
    const char *action, *resource, *document = iam_param(op, "ResourcePolicy");
    struct err err = {0};
    int asked = 0;

    if (streq(op->action->name, "SimulatePrincipalPolicy") && read_source(op, &s) < 0)
        return;
    if (read_documents(op, "PolicyInputList", &s.extra) < 0 ||
        read_documents(op, "PermissionsBoundaryPolicyInputList", &s.boundary) < 0)
        return;
    if (!iam_member(op, "ActionNames", 1, NULL)) {
        iam_need(op, "ActionNames", 1);
        return;
    }
    join(op->a, &s.set.identity, &s.extra);
    if (s.boundary.n) {
        s.set.boundary = s.boundary;
        s.set.has_boundary = true;
    }
    if (document) {
        s.set.resource = policy_read(op->a, val_lit(op->a, document), POLICY_RESOURCE, &err);
        s.set.resource_kind = POLICY_RESOURCE;
        if (!s.set.resource) {
            iam_fail(op, 400, "InvalidInput", "Invalid ResourcePolicy: %s", err.msg);
            return;
        }
    }
    read_context(op, s.context);
    buf_adds(&op->out, "<EvaluationResults>");
    for (int i = 1; (action = iam_member(op, "ActionNames", i, NULL)); i++)
        for (int k = 1; k == 1 || iam_member(op, "ResourceArns", k, NULL); k++) {
            resource = iam_member(op, "ResourceArns", k, NULL);
            resource = resource ? resource : "*";
            if (++asked > ASKED_MAX) {
                iam_fail(op, 400, "InvalidInput", "more than %d pairs of action and resource are asked for", ASKED_MAX);
                return;
            }
            buf_adds(&op->out, "<member>");
            xml_element(&op->out, "EvalActionName", action);
            xml_element(&op->out, "EvalResourceName", resource);
            xml_element(&op->out, "EvalDecision", decision(op, &s, action, resource));
            buf_adds(&op->out, "<MatchedStatements/><MissingContextValues/></member>");
        }
    buf_adds(&op->out, "</EvaluationResults><IsTruncated>false</IsTruncated>");
    iam_done(op);
}

void iam_summary(struct iam_op *op)
{
    const struct { const char *key; int64_t value; } rows[] = {
        {"Users", mirror_count(op->id->users)}, {"UsersQuota", 5000}, {"Roles", mirror_count(op->id->roles)}, {"RolesQuota", 1000},
        {"Policies", mirror_count(op->id->policies)}, {"PoliciesQuota", 1500}, {"Groups", 0}, {"GroupsQuota", 300},
        {"AccessKeysPerUserQuota", 2}, {"AttachedPoliciesPerRoleQuota", 10}, {"AttachedPoliciesPerUserQuota", 10},
        {"VersionsPerPolicyQuota", 5}, {"PolicySizeQuota", 6144}, {"RolePolicySizeQuota", 10240}, {"UserPolicySizeQuota", 2048},
        {"AssumeRolePolicySizeQuota", 4096}, {"InstanceProfiles", 0}, {"MFADevices", 0}, {"AccountMFAEnabled", 0},
        {"AccountAccessKeysPresent", 1}};

    buf_adds(&op->out, "<SummaryMap>");
    for (size_t i = 0; i < ARRAY_LEN(rows); i++)
        buf_printf(&op->out, "<entry><key>%s</key><value>%lld</value></entry>", rows[i].key, (long long)rows[i].value);
    buf_adds(&op->out, "</SummaryMap>");
    iam_done(op);
}
