/* door/aws/cloudformation/write.c - CloudFormation's operations that change something, and those that need a template's text (which may
 * lie in a bucket). What is answered is in the Stack object before. */
#include "door/aws/cloudformation/cfn_int.h"
#include "env/clock.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

/* One operation under way; in the request's arena. */
struct wop {
    struct aws_req *q;
    struct arena *a;
    const char *action;
    struct cfn_stack *stack; /* borrowed for this turn only */
    char *id;                /* of the stack that the answer is about */
    const char *text;        /* the template; NULL: none was given */
    const char *set_id;
    void (*run)(struct wop *op);
};

static const char *param(struct wop *op, const char *name)
{
    return query_param(op->q, name);
}
static bool is_true(struct wop *op, const char *name)
{
    const char *v = param(op, name);

    return v && strcasecmp(v, "true") == 0;
}
static void invalid(struct wop *op, const struct err *err)
{
    aws_error(op->q, 400, "ValidationError", "%s", err->msg);
}
static void answer(struct wop *op, struct buf *b)
{
    query_end(op->q, b, op->action);
    buf_done(b);
}

/* ---- the template ---- */

static void on_template(const struct http_answer *a, char *body, size_t n, const struct err *err, void *arg)
{
    struct wop *op = arg;

    if (!op->q->d->cfn || op->q->d->cfn->stopping) {
        aws_error(op->q, 503, "ServiceUnavailable", "tandem is stopping");
        return;
    }
    if (err && err->code == ERR_TOO_LARGE) {
        aws_error(op->q, 400, "ValidationError", "1 validation error detected: the template has more than %d bytes", CFN_URL_BODY_MAX);
    } else if (err || a->status != 200) {
        aws_error(op->q, 400, "ValidationError", "S3 error: %s", a && a->status == 403 ? "Access Denied" : a && a->status == 404
                  ? "The specified key does not exist." : "the template cannot be read");
    } else {
        op->text = arena_strndup(op->a, body, n);
        op->run(op);
    }
}

/* http://host/bucket/key, or http://bucket.s3.region.amazonaws.com/key: the host does not matter, all buckets are ours. */
static const char *path_of_url(struct wop *op, const char *url)
{
    const char *host = strstr(url, "://"), *slash, *dot;
    const char *end = url + strcspn(url, "?#");

    if (str_starts(url, "s3://"))
        return arena_printf(op->a, "/%.*s", (int)(end - url - 5), url + 5);
    if (!host)
        return NULL;
    host += 3;
    slash = strchr(host, '/');
    if (!slash || slash >= end || !slash[1])
        return NULL;
    dot = strstr(host, ".s3");
    if (dot && dot < slash && (dot[3] == '.' || dot[3] == '-'))
        return arena_printf(op->a, "/%.*s%.*s", (int)(dot - host), host, (int)(end - slash), slash);
    return arena_strndup(op->a, slash, (size_t)(end - slash));
}

static void with_template(struct wop *op, void (*run)(struct wop *op))
{
    const char *body = param(op, "TemplateBody"), *url = param(op, "TemplateURL"), *path;

    op->run = run;
    if (body && strlen(body) > CFN_BODY_MAX) {
        aws_error(op->q, 400, "ValidationError", "1 validation error detected: Value '%.40s...' at 'templateBody' failed to satisfy constraint: "
                  "Member must have length less than or equal to %d", body, CFN_BODY_MAX);
    } else if (body && url) {
        aws_error(op->q, 400, "ValidationError", "Cannot specify more than one of TemplateBody, TemplateURL, or UsePreviousTemplate");
    } else if (body || !url) {
        op->text = body && *body ? body : NULL;
        run(op);
    } else if (!(path = path_of_url(op, url))) {
        aws_error(op->q, 400, "ValidationError", "TemplateURL must be a supported URL.");
    } else {
        struct http_header h[] = {{"x-tandem-service", "s3"}, {"x-tandem-caller", aws_caller(op->q)}};

        http_fetch(op->q->d->cfn->self, &(struct http_call_opts){.path = path, .headers = h, .headers_n = ARRAY_LEN(h), .timeout_ms = 30000},
                   CFN_URL_BODY_MAX, on_template, op);
    }
}

/* ---- what a request says of a stack ---- */

static struct val *texts(struct wop *op, const char *name)
{
    struct val *list = val_list(op->a);
    const char *v;

    for (int i = 1; i <= 200 && (v = param(op, arena_printf(op->a, "%s.member.%d", name, i))); i++)
        val_push_str(op->a, list, v);
    return list;
}

static bool name_ok(const char *name)
{
    size_t n = strlen(name);

    if (!n || n > 128 || !isalpha((unsigned char)name[0]))
        return false;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)name[i]) && name[i] != '-')
            return false;
    return true;
}

static int read_parameters(struct wop *op, struct val *spec, const struct val *before, struct err *err)
{
    struct val *list = val_list(op->a), *had = val_map(op->a);
    const char *key;

    VAL_EACH(val_get(before, "parameters"), p)
        val_put(op->a, had, val_str_at(p, "ParameterKey", ""), p);
    for (int i = 1; i <= CFN_PARAMETERS_MAX && (key = param(op, arena_printf(op->a, "Parameters.member.%d.ParameterKey", i))); i++) {
        const char *value = param(op, arena_printf(op->a, "Parameters.member.%d.ParameterValue", i));
        struct val *p = val_map(op->a);

        val_put_str(op->a, p, "ParameterKey", key);
        if (is_true(op, arena_printf(op->a, "Parameters.member.%d.UsePreviousValue", i))) {
            if (!before)
                return err_set(err, INVALID_ARGUMENT, "Invalid input for parameter key %.100s. Cannot specify usePreviousValue as true for a "
                               "parameter key not in the previous template", key);
            if (!val_get(had, key))
                continue; /* its default then, too */
            value = cfn_scalar(op->a, val_get(val_get(had, key), "ParameterValue"));
        }
        val_put_str(op->a, p, "ParameterValue", value ? value : "");
        val_push(op->a, list, p);
    }
    val_put(op->a, spec, "parameters", list);
    return 0;
}

/* Defaults of parameters show as if they had been given; NoEcho is marked. */
static void show_parameters(struct arena *a, struct val *spec, const struct val *doc)
{
    struct val *list = val_need_list(a, spec, "parameters");

    VAL_EACH_MEMBER(val_get(doc, "Parameters"), m)
    {
        struct val *p = NULL, *fresh;

        VAL_EACH(list, it)
            if (streq(val_str_at(it, "ParameterKey", ""), m->key))
                p = it;
        if (!p && cfn_scalar(a, val_get(&m->v, "Default"))) {
            fresh = val_map(a);
            val_put_str(a, fresh, "ParameterKey", m->key);
            val_put_str(a, fresh, "ParameterValue", cfn_scalar(a, val_get(&m->v, "Default")));
            p = val_push(a, list, fresh);
        }
        if (p && (val_bool_at(&m->v, "NoEcho", false) || streq(val_str_at(&m->v, "NoEcho", ""), "true")))
            val_put_bool(a, p, "NoEcho", true);
    }
}

static struct val *read_spec(struct wop *op, const char *name, const struct val *before, struct err *err)
{
    struct val *spec = before ? val_copy(op->a, before) : val_map(op->a), *tags = val_list(op->a);
    const char *key, *text = op->text;

    if (is_true(op, "UsePreviousTemplate") && !text)
        text = val_str_at(before, "template", NULL);
    if (param(op, "StackPolicyBody") || param(op, "StackPolicyURL") || param(op, "StackPolicyDuringUpdateBody")) {
        err_set(err, INVALID_ARGUMENT, "tandem keeps no stack policies: every resource may be updated by who may update the stack");
        return NULL;
    }
    if (!text) {
        err_set(err, INVALID_ARGUMENT, "Either Template URL or Template Body must be specified.");
        return NULL;
    }
    val_put_str(op->a, spec, "stackName", name);
    val_put_str(op->a, spec, "template", text);
    val_put_str(op->a, spec, "caller", aws_caller(op->q));
    if (read_parameters(op, spec, before, err) < 0)
        return NULL;
    val_put(op->a, spec, "capabilities", texts(op, "Capabilities"));
    if (param(op, "Tags.member.51.Key")) {
        err_set(err, INVALID_ARGUMENT, "1 validation error detected: Value at 'tags' failed to satisfy constraint: Member must have length less "
                "than or equal to 50");
        return NULL;
    }
    for (int i = 1; i <= 50 && (key = param(op, arena_printf(op->a, "Tags.member.%d.Key", i))); i++) {
        const char *value = param(op, arena_printf(op->a, "Tags.member.%d.Value", i));
        struct val *t = val_map(op->a);

        val_put_str(op->a, t, "Key", key);
        val_put_str(op->a, t, "Value", value ? value : "");
        val_push(op->a, tags, t);
    }
    if (val_len(tags) || !before)
        val_put(op->a, spec, "tags", tags);
    if (param(op, "NotificationARNs.member.1") || !before)
        val_put(op->a, spec, "notificationARNs", texts(op, "NotificationARNs"));
    if (param(op, "RoleARN"))
        val_put_str(op->a, spec, "roleARN", param(op, "RoleARN"));
    if (val_str_at(spec, "roleARN", NULL)) {
        const char *caller = aws_caller_of_role(op->q->d, op->a, val_str_at(spec, "roleARN", ""), err);

        if (!caller)
            return NULL;
        val_put_str(op->a, spec, "caller", caller);
    }
    val_put_bool(op->a, spec, "disableRollback", is_true(op, "DisableRollback"));
    key = param(op, "OnStackFailure") ? param(op, "OnStackFailure") : param(op, "OnFailure");
    val_put_str(op->a, spec, "onFailure", key ? key : "ROLLBACK");
    if (param(op, "EnableTerminationProtection"))
        val_put_bool(op->a, spec, "terminationProtection", is_true(op, "EnableTerminationProtection"));
    return spec;
}

/* The template can be used, and the caller has said what it may do; false: answered. */
static bool check_spec(struct wop *op, struct cfn_stack *s, struct val *spec, bool direct)
{
    struct err err = {0};
    _auto_(cfn_plan_freep) struct cfn_plan *plan = cfn_plan_new(s, spec, true, &err);
    const char *needs = plan ? cfn_needs_capability(plan->doc) : NULL;
    bool named = false, iam = false, expand = false, macros;

    if (!plan) {
        invalid(op, &err);
        return false;
    }
    VAL_EACH(val_get(spec, "capabilities"), c)
    {
        named |= streq(c->s, "CAPABILITY_NAMED_IAM");
        iam |= streq(c->s, "CAPABILITY_IAM");
        expand |= streq(c->s, "CAPABILITY_AUTO_EXPAND");
    }
    if (needs && !named && !(iam && streq(needs, "CAPABILITY_IAM"))) {
        aws_error(op->q, 400, "InsufficientCapabilitiesException", "Requires capabilities : [%s]", needs);
        return false;
    }
    macros = strstr(val_str_at(spec, "template", ""), "AWS::Serverless-2016-10-31") != NULL;
    if (direct && macros && !expand) {
        aws_error(op->q, 400, "InsufficientCapabilitiesException", "Requires capabilities : [CAPABILITY_AUTO_EXPAND]");
        return false;
    }
    show_parameters(op->a, spec, plan->doc);
    return true;
}

static bool fits(struct wop *op, struct cfn_stack *s, const struct val *spec)
{
    size_t n;

    (void)json_text(op->a, spec, &n);
    if (cfn_stack_bytes(s) + n <= CFN_OBJECT_MAX)
        return true;
    aws_error(op->q, 400, "LimitExceededException", "the templates of stack %s and of its change sets have more than %d bytes", s->name,
              CFN_OBJECT_MAX);
    return false;
}

/* ---- answers when the object is written ---- */

static void reply_id(void *arg)
{
    struct wop *op = arg;
    struct buf b = {0};

    query_begin(op->q, &b, op->action);
    if (op->set_id)
        xml_element(&b, "Id", op->set_id);
    if (op->id)
        xml_element(&b, "StackId", op->id);
    answer(op, &b);
}

static void replied(struct wop *op, struct cfn_stack *s)
{
    op->id = arena_strdup(op->a, s->id);
    cfn_save(s, true, reply_id, op);
}

static void reply_nothing(void *arg)
{
    struct wop *op = arg;
    struct buf b = {0};

    query_begin(op->q, &b, op->action);
    answer(op, &b);
}

/* ---- stacks ---- */

static bool need_name(struct wop *op)
{
    const char *name = param(op, "StackName");

    if (name && (str_starts(name, "arn:") || name_ok(name)))
        return true;
    aws_error(op->q, 400, "ValidationError", "1 validation error detected: Value '%s' at 'stackName' failed to satisfy constraint: Member must "
              "satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*", name ? name : "");
    return false;
}

static void start_with(struct cfn_stack *s, const struct val *spec, const char *status, const char *token)
{
    struct val *fresh = val_copy(s->a, spec);

    val_put_str(s->a, fresh, "stackId", s->id);
    s->spec = fresh;
    cfn_save_spec(s);
    cfn_begin(s, status, token);
}

/* A stack that is a resource of another: whose, and that it does not lie too deep. false: answered. */
static bool take_parent(struct wop *op, struct val *spec)
{
    const char *id = op->q->inner ? param(op, "TandemParentId") : NULL;
    struct cfn_stack *at = id ? cfn_find(op->q->d->cfn, id) : NULL;
    int depth = 1;

    if (!at)
        return true;
    val_put_str(op->a, spec, "parentId", id);
    val_put_str(op->a, spec, "rootId", val_str_at(at->spec, "rootId", id));
    while (at && depth <= CFN_NESTED_MAX) {
        id = val_str_at(at->spec, "parentId", NULL);
        at = id ? cfn_find(op->q->d->cfn, id) : NULL;
        depth++;
    }
    if (depth <= CFN_NESTED_MAX)
        return true;
    aws_error(op->q, 400, "LimitExceededException", "stacks lie in one another no more than %d deep", CFN_NESTED_MAX);
    return false;
}

/* false: there are as many stacks as there may be, answered. */
static bool has_room(struct wop *op)
{
    int n = 0;

    LIST_EACH(&op->q->d->cfn->stacks, l)
        n += !streq(list_entry(l, struct cfn_stack, link)->status, "DELETE_COMPLETE");
    if (n < CFN_STACKS_MAX)
        return true;
    aws_error(op->q, 400, "LimitExceededException", "Limit for stack has been exceeded: there are %d", n);
    return false;
}

static void create_stack(struct wop *op)
{
    const char *name = param(op, "StackName");
    struct cfn_stack *s = cfn_find(op->q->d->cfn, name);
    struct err err = {0};
    struct val *spec;

    if (s) {
        aws_error(op->q, 400, "AlreadyExistsException", "Stack [%s] already exists", name);
        return;
    }
    spec = read_spec(op, name, NULL, &err);
    if (!spec) {
        invalid(op, &err);
        return;
    }
    if (!take_parent(op, spec) || !has_room(op))
        return;
    s = cfn_stack_new(op->q->d->cfn, name);
    if (!check_spec(op, s, spec, true) || !fits(op, s, spec)) {
        cfn_stack_free(s);
        return;
    }
    start_with(s, spec, "CREATE_IN_PROGRESS", param(op, "ClientRequestToken"));
    replied(op, s);
    cfn_step(s);
}

/* What is done from here on is done as who asks now, or as the stack's role. */
static bool take_caller(struct wop *op, struct cfn_stack *s, struct val *spec)
{
    const char *role = param(op, "RoleARN") ? param(op, "RoleARN") : val_str_at(spec, "roleARN", NULL), *caller = aws_caller(op->q);
    struct err err = {0};

    if (role && !(caller = aws_caller_of_role(op->q->d, op->a, role, &err))) {
        invalid(op, &err);
        return false;
    }
    val_put_str(s->a, spec, "caller", caller);
    cfn_save_spec(s);
    return true;
}

static struct cfn_stack *need_stack(struct wop *op)
{
    const char *name = param(op, "StackName");
    struct cfn_stack *s = cfn_find(op->q->d->cfn, name ? name : "");

    if (!s || streq(s->status, "DELETE_COMPLETE")) {
        aws_error(op->q, 400, "ValidationError", "Stack [%s] does not exist", name ? name : "");
        return NULL;
    }
    return s;
}

static bool may_update(const struct cfn_stack *s)
{
    static const char *const FROM[] = {"CREATE_COMPLETE", "UPDATE_COMPLETE", "UPDATE_ROLLBACK_COMPLETE", "UPDATE_FAILED", "CREATE_FAILED"};

    for (size_t i = 0; i < ARRAY_LEN(FROM); i++)
        if (streq(FROM[i], s->status))
            return true;
    return false;
}

static bool same_besides(struct arena *a, const struct val *x, const struct val *y)
{
    struct err err = {0};
    const char *tx = val_str_at(x, "template", ""), *ty = val_str_at(y, "template", "");
    const struct val *dx = cfn_parse(a, tx, strlen(tx), &err), *dy = cfn_parse(a, ty, strlen(ty), &err);
    const struct val *ox = val_get(dx, "Outputs"), *oy = val_get(dy, "Outputs");

    return (val_len(ox) == 0 && val_len(oy) == 0 ? true : ox && oy && val_equal(ox, oy)) &&
           (!val_get(x, "tags") || !val_get(y, "tags") || val_equal(val_get(x, "tags"), val_get(y, "tags")));
}

static void start_update(struct cfn_stack *s, const struct val *spec, const char *token)
{
    s->previous = val_copy(s->a, s->spec);
    start_with(s, spec, "UPDATE_IN_PROGRESS", token);
}

static void update_stack(struct wop *op)
{
    struct cfn_stack *s = need_stack(op);
    struct val *spec, *changes;
    struct err err = {0};

    if (!s)
        return;
    if (!may_update(s)) {
        aws_error(op->q, 400, "ValidationError", "Stack:%s is in %s state and can not be updated.", s->id, s->status);
        return;
    }
    spec = read_spec(op, s->name, s->spec, &err);
    if (!spec) {
        invalid(op, &err);
        return;
    }
    if (!check_spec(op, s, spec, true) || !fits(op, s, spec))
        return;
    changes = cfn_changes(s, op->a, spec, &err);
    if (!changes) {
        invalid(op, &err);
        return;
    }
    if (!val_len(changes) && same_besides(op->a, spec, s->spec)) {
        aws_error(op->q, 400, "ValidationError", "No updates are to be performed.");
        return;
    }
    start_update(s, spec, param(op, "ClientRequestToken"));
    replied(op, s);
    cfn_step(s);
}

static void delete_stack(struct wop *op)
{
    const char *name = param(op, "StackName");
    struct cfn_stack *s = cfn_find(op->q->d->cfn, name ? name : "");
    struct val *keep = texts(op, "RetainResources");
    struct buf b = {0};

    if (!s || streq(s->status, "DELETE_COMPLETE")) { /* as there: it is gone */
        reply_nothing(op);
        return;
    }
    if (val_bool_at(s->spec, "terminationProtection", false)) {
        aws_error(op->q, 400, "ValidationError", "Stack [%s] cannot be deleted while TerminationProtection is enabled", s->name);
        return;
    }
    if (val_len(keep) && !streq(s->status, "DELETE_FAILED")) {
        aws_error(op->q, 400, "ValidationError", "Invalid operation on stack [%s]. To retain resources, stack must be in a DELETE_FAILED state.",
                  s->name);
        return;
    }
    if (streq(s->status, "DELETE_IN_PROGRESS")) {
        cfn_save(s, true, reply_nothing, op);
        return;
    }
    buf_addc(&b, ',');
    VAL_EACH(keep, k)
        buf_printf(&b, "%s,", val_text(k, ""));
    s->retain = val_len(keep) ? arena_strdup(s->a, b.p) : NULL;
    buf_done(&b);
    VAL_EACH(s->outputs, o)
        LIST_EACH(&s->c->stacks, l)
        {
            struct cfn_stack *other = list_entry(l, struct cfn_stack, link);

            if (other != s && val_get(o, "ExportName") && cfn_imports(other, val_str_at(o, "ExportName", ""))) {
                aws_error(op->q, 400, "ValidationError", "Export %s cannot be deleted as it is in use by %s", val_str_at(o, "ExportName", ""),
                          other->name);
                return;
            }
        }
    if (!take_caller(op, s, s->spec))
        return;
    cfn_begin_delete(s, param(op, "ClientRequestToken"));
    cfn_save(s, true, reply_nothing, op);
}

static void protect_stack(struct wop *op)
{
    struct cfn_stack *s = need_stack(op);

    if (!s)
        return;
    val_put_bool(s->a, s->spec, "terminationProtection", is_true(op, "EnableTerminationProtection"));
    cfn_save_spec(s);
    replied(op, s);
}

static void continue_rollback(struct wop *op)
{
    struct cfn_stack *s = need_stack(op);

    if (!s)
        return;
    if (!streq(s->status, "UPDATE_ROLLBACK_FAILED")) {
        aws_error(op->q, 400, "ValidationError", "Stack:%s is in %s state and can not continue rollback.", s->id, s->status);
        return;
    }
    if (!take_caller(op, s, s->spec))
        return;
    cfn_begin(s, "UPDATE_ROLLBACK_IN_PROGRESS", param(op, "ClientRequestToken"));
    cfn_save(s, true, reply_nothing, op);
    cfn_step(s);
}

/* ---- change sets ---- */

static void create_change_set(struct wop *op)
{
    const char *name = param(op, "StackName"), *set = param(op, "ChangeSetName"), *type = param(op, "ChangeSetType");
    struct cfn_stack *s = cfn_find(op->q->d->cfn, name);
    bool create = type && streq(type, "CREATE"), fresh = false;
    struct err err = {0};
    struct val *spec, *changes, *c;
    struct arena *a = op->a;

    if (type && !create && !streq(type, "UPDATE")) {
        aws_error(op->q, 501, "NotImplemented", "tandem makes change sets of the types CREATE and UPDATE, not %s", type);
        return;
    }
    if (!set || !name_ok(set)) {
        aws_error(op->q, 400, "ValidationError", "1 validation error detected: Value '%s' at 'changeSetName' failed to satisfy constraint: Member "
                  "must satisfy regular expression pattern: [a-zA-Z][-a-zA-Z0-9]*", set ? set : "");
        return;
    }
    if (!s && !create) {
        aws_error(op->q, 400, "ValidationError", "Stack [%s] does not exist", name);
        return;
    }
    if (s && create && !streq(s->status, "REVIEW_IN_PROGRESS")) {
        aws_error(op->q, 400, "ValidationError", "Stack [%s] already exists and cannot be created again with the changeSet [%s].", name, set);
        return;
    }
    if (s && !create && !may_update(s)) {
        aws_error(op->q, 400, "ValidationError", "Stack:%s is in %s state and can not be updated.", s->id, s->status);
        return;
    }
    VAL_EACH(s ? s->change_sets : NULL, it)
        if (streq(val_str_at(it, "ChangeSetName", ""), set)) {
            aws_error(op->q, 400, "AlreadyExistsException", "ChangeSet %s already exists", set);
            return;
        }
    if (s && val_len(s->change_sets) >= CFN_CHANGE_SETS_MAX) {
        aws_error(op->q, 400, "LimitExceededException", "ChangeSet limit exceeded for stack %s", s->name);
        return;
    }
    spec = read_spec(op, s ? s->name : name, create ? NULL : s->spec, &err);
    if (!spec) {
        invalid(op, &err);
        return;
    }
    if (!s) {
        if (!has_room(op))
            return;
        s = cfn_stack_new(op->q->d->cfn, name);
        fresh = true;
    }
    if (!check_spec(op, s, spec, false) || !fits(op, s, spec)) {
        if (fresh)
            cfn_stack_free(s);
        return;
    }
    changes = cfn_changes(s, a, spec, &err);
    c = val_map(a);
    val_put_str(a, c, "ChangeSetName", set);
    op->set_id = arena_printf(a, "arn:aws:cloudformation:%s:%s:changeSet/%s/%s", op->q->d->region, op->q->d->account, set, cfn_uuid(a));
    val_put_str(a, c, "ChangeSetId", op->set_id);
    if (param(op, "Description"))
        val_put_str(a, c, "Description", param(op, "Description"));
    val_put_str(a, c, "CreationTime", iso_time(a, clock_real_ms()));
    val_put_str(a, c, "Type", create ? "CREATE" : "UPDATE");
    val_put_bool(a, c, "IncludeNestedStacks", is_true(op, "IncludeNestedStacks"));
    if (!changes) {
        val_put_str(a, c, "Status", "FAILED");
        val_put_str(a, c, "StatusReason", err.msg);
    } else if (!val_len(changes) && !create && same_besides(a, spec, s->spec)) {
        val_put_str(a, c, "Status", "FAILED");
        val_put_str(a, c, "StatusReason", "The submitted information didn't contain changes. Submit different information to create a change set.");
    } else {
        val_put_str(a, c, "Status", "CREATE_COMPLETE");
    }
    val_put_str(a, c, "ExecutionStatus", streq(val_str_at(c, "Status", ""), "FAILED") ? "UNAVAILABLE" : "AVAILABLE");
    val_put(a, c, "Changes", changes ? changes : val_list(a));
    val_put(a, c, "spec", spec);
    val_push(s->a, s->change_sets, val_copy(s->a, c));
    if (fresh) {
        val_put_str(s->a, s->spec, "caller", aws_caller(op->q));
        cfn_stack_status(s, "REVIEW_IN_PROGRESS", "User Initiated");
    }
    replied(op, s);
}

static void execute_change_set(struct wop *op)
{
    struct cfn_stack *s;
    struct val *c = cfn_change_set(op->q->d->cfn, param(op, "ChangeSetName"), param(op, "StackName"), &s), *spec;

    if (!c) {
        aws_error(op->q, 404, "ChangeSetNotFound", "ChangeSet [%s] does not exist", param(op, "ChangeSetName") ? param(op, "ChangeSetName") : "");
        return;
    }
    if (!streq(val_str_at(c, "ExecutionStatus", ""), "AVAILABLE")) {
        aws_error(op->q, 400, "InvalidChangeSetStatus", "ChangeSet [%s] cannot be executed in its current status of [%s]",
                  val_str_at(c, "ChangeSetId", ""), val_str_at(c, "Status", ""));
        return;
    }
    spec = val_copy(s->a, val_get(c, "spec"));
    if (!take_caller(op, s, spec))
        return;
    if (param(op, "DisableRollback"))
        val_put_bool(s->a, spec, "disableRollback", is_true(op, "DisableRollback"));
    val_put_bool(s->a, spec, "terminationProtection", val_bool_at(s->spec, "terminationProtection", false));
    s->change_sets = val_list(s->a); /* all of them were made for what the stack is no more */
    if (streq(s->status, "REVIEW_IN_PROGRESS"))
        start_with(s, spec, "CREATE_IN_PROGRESS", param(op, "ClientRequestToken"));
    else
        start_update(s, spec, param(op, "ClientRequestToken"));
    cfn_save(s, true, reply_nothing, op);
    cfn_step(s);
}

static void delete_change_set(struct wop *op)
{
    struct cfn_stack *s;
    struct val *c = cfn_change_set(op->q->d->cfn, param(op, "ChangeSetName"), param(op, "StackName"), &s);

    if (!c) { /* as there, unless the stack is not there */
        if (param(op, "StackName") && !cfn_find(op->q->d->cfn, param(op, "StackName")))
            aws_error(op->q, 400, "ValidationError", "Stack [%s] does not exist", param(op, "StackName"));
        else
            reply_nothing(op);
        return;
    }
    for (uint32_t i = 0; i < val_len(s->change_sets); i++)
        if (&s->change_sets->items[i] == c) {
            val_remove(s->change_sets, i);
            break;
        }
    cfn_save(s, true, reply_nothing, op);
}

/* ---- templates ---- */

static void template_xml(struct wop *op, struct buf *b, const struct val *doc, const struct val *own)
{
    const char *capability = cfn_needs_capability(doc);
    const struct val *transform = val_get(own, "Transform");
    bool summary = streq(op->action, "GetTemplateSummary");
    struct val *types = val_list(op->a);

    buf_adds(b, "<Parameters>");
    VAL_EACH_MEMBER(val_get(own, "Parameters"), m)
    {
        bool no_echo = val_bool_at(&m->v, "NoEcho", false) || streq(val_str_at(&m->v, "NoEcho", ""), "true");
        const char *text = cfn_scalar(op->a, val_get(&m->v, "Default"));

        buf_adds(b, "<member>");
        xml_element(b, "ParameterKey", m->key);
        if (text)
            xml_element(b, "DefaultValue", text);
        xml_element(b, "NoEcho", no_echo ? "true" : "false");
        if (summary)
            xml_element(b, "ParameterType", val_str_at(&m->v, "Type", ""));
        xml_element(b, "Description", val_str_at(&m->v, "Description", ""));
        if (summary) {
            buf_adds(b, "<ParameterConstraints><AllowedValues>");
            VAL_EACH(val_get(&m->v, "AllowedValues"), v)
                xml_element(b, "member", cfn_scalar(op->a, v) ? cfn_scalar(op->a, v) : "");
            buf_adds(b, "</AllowedValues></ParameterConstraints>");
        }
        buf_adds(b, "</member>");
    }
    buf_adds(b, "</Parameters>");
    if (val_str_at(own, "Description", NULL))
        xml_element(b, "Description", val_str_at(own, "Description", ""));
    if (capability) {
        buf_adds(b, "<Capabilities>");
        xml_element(b, "member", capability);
        buf_printf(b, "</Capabilities><CapabilitiesReason>The following resource(s) require capabilities: [%s]</CapabilitiesReason>",
                   "AWS::IAM::Role");
    }
    if (transform) {
        buf_adds(b, "<DeclaredTransforms>");
        if (val_is(transform, VAL_STR))
            xml_element(b, "member", transform->s);
        VAL_EACH(transform, t)
            xml_element(b, "member", val_text(t, ""));
        buf_adds(b, "</DeclaredTransforms>");
    }
    if (!summary)
        return;
    VAL_EACH_MEMBER(val_get(own, "Resources"), m)
    {
        const char *type = val_str_at(&m->v, "Type", "");
        bool known = false;

        VAL_EACH(types, t)
            known |= streq(t->s, type);
        if (!known)
            val_push_str(op->a, types, type);
    }
    cfn_list_xml(b, "ResourceTypes", types);
    xml_element(b, "Version", "2010-09-09");
    if (val_get(own, "Metadata"))
        xml_element(b, "Metadata", json_text(op->a, val_get(own, "Metadata"), NULL));
}

static void look_at_template(struct wop *op)
{
    struct cfn_scope scope = {.a = op->a, .account = op->q->d->account, .region = op->q->d->region, .stack_name = "stack",
                              .stack_id = "arn:aws:cloudformation"};
    const char *name = param(op, "StackName");
    struct cfn_stack *s = name ? cfn_find(op->q->d->cfn, name) : NULL;
    struct val *own, *doc, *given = val_map(op->a);
    struct err err = {0};
    struct buf b = {0};

    if (name && !op->text) {
        if (!s) {
            aws_error(op->q, 400, "ValidationError", "Stack with id %s does not exist", name);
            return;
        }
        op->text = arena_strdup(op->a, val_str_at(s->spec, "template", ""));
    }
    if (!op->text) {
        aws_error(op->q, 400, "ValidationError", "Either Template URL or Template Body must be specified.");
        return;
    }
    own = cfn_parse(op->a, op->text, strlen(op->text), &err);
    if (!own || cfn_check(own, &err) < 0) {
        invalid(op, &err);
        return;
    }
    VAL_EACH_MEMBER(val_get(own, "Parameters"), m) /* any value does: only the form is looked at */
        if (!val_get(&m->v, "Default"))
            val_put_str(op->a, given, m->key, val_len(val_get(&m->v, "AllowedValues"))
                        ? cfn_scalar(op->a, &val_get(&m->v, "AllowedValues")->items[0]) : "1");
    doc = cfn_document(&scope, op->text, strlen(op->text), given, true, &err);
    query_begin(op->q, &b, op->action);
    template_xml(op, &b, doc ? doc : own, own);
    answer(op, &b);
}

static void set_stack_policy(struct wop *op)
{
    aws_error(op->q, 501, "NotImplemented", "tandem keeps no stack policies: every resource may be updated by who may update the stack");
}

/* ---- which operation ---- */

static const struct {
    const char *action;
    bool stack, template;
    void (*run)(struct wop *op);
} WRITES[] = {
    {"CreateStack", true, true, create_stack},
    {"UpdateStack", true, true, update_stack},
    {"DeleteStack", true, false, delete_stack},
    {"UpdateTerminationProtection", true, false, protect_stack},
    {"ContinueUpdateRollback", true, false, continue_rollback},
    {"CreateChangeSet", true, true, create_change_set},
    {"ExecuteChangeSet", false, false, execute_change_set},
    {"DeleteChangeSet", false, false, delete_change_set},
    {"ValidateTemplate", false, true, look_at_template},
    {"GetTemplateSummary", false, true, look_at_template},
    {"SetStackPolicy", true, false, set_stack_policy},
};

bool cfn_is_write_op(const char *action)
{
    for (size_t i = 0; i < ARRAY_LEN(WRITES); i++)
        if (streq(action, WRITES[i].action))
            return true;
    return false;
}

void cfn_write_op(struct aws_req *q, const char *action)
{
    struct wop *op = arena_new_of(q->req->arena, struct wop);

    *op = (struct wop){.q = q, .a = q->req->arena, .action = action};
    for (size_t i = 0; i < ARRAY_LEN(WRITES); i++) {
        if (!streq(action, WRITES[i].action))
            continue;
        if (WRITES[i].stack && !need_name(op))
            return;
        if (WRITES[i].template)
            with_template(op, WRITES[i].run);
        else
            WRITES[i].run(op);
        return;
    }
}
