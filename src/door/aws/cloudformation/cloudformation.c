/* door/aws/cloudformation/cloudformation.c - CloudFormation: the service, and its operations that read.
 *
 * Stacks are in memory (stack.c): what is read is answered at once. */
#include "door/aws/cloudformation/cfn_int.h"

#include <stdio.h>
#include <sys/stat.h>

#include "base/log.h"

/* ---- XML ---- */

void cfn_tags_xml(struct buf *b, const struct val *tags)
{
    buf_adds(b, "<Tags>");
    VAL_EACH(tags, t)
    {
        buf_adds(b, "<member>");
        xml_element(b, "Key", val_str_at(t, "Key", ""));
        xml_element(b, "Value", val_str_at(t, "Value", ""));
        buf_adds(b, "</member>");
    }
    buf_adds(b, "</Tags>");
}

void cfn_list_xml(struct buf *b, const char *name, const struct val *texts)
{
    buf_printf(b, "<%s>", name);
    VAL_EACH(texts, t)
        xml_element(b, "member", val_text(t, ""));
    buf_printf(b, "</%s>", name);
}

static void element(struct buf *b, const char *name, const char *text)
{
    if (text)
        xml_element(b, name, text);
}

static void time_element(struct aws_req *q, struct buf *b, const char *name, int64_t ms)
{
    if (ms)
        xml_element(b, name, iso_time(q->req->arena, ms));
}

static void answer(struct aws_req *q, struct buf *b, const char *action)
{
    query_end(q, b, action);
    buf_done(b);
}

static void parameters_xml(struct aws_req *q, struct buf *b, const struct val *list)
{
    buf_adds(b, "<Parameters>");
    VAL_EACH(list, p)
    {
        const char *value = cfn_scalar(q->req->arena, val_get(p, "ParameterValue"));

        buf_adds(b, "<member>");
        element(b, "ParameterKey", val_str_at(p, "ParameterKey", ""));
        element(b, "ParameterValue", val_bool_at(p, "NoEcho", false) ? "****" : value ? value : "");
        element(b, "ResolvedValue", val_str_at(p, "ResolvedValue", NULL));
        buf_adds(b, "</member>");
    }
    buf_adds(b, "</Parameters>");
}

/* ---- stacks ---- */

static struct cfn_stack *need_stack(struct aws_req *q, const char *form)
{
    const char *name = query_param(q, "StackName");
    struct cfn_stack *s = name && *name ? cfn_find(q->d->cfn, name) : NULL;

    if (!name || !*name)
        aws_error(q, 400, "ValidationError", "1 validation error detected: Value null at 'stackName' failed to satisfy constraint: "
                  "Member must not be null");
    else if (!s)
        aws_error(q, 400, "ValidationError", form ? "Stack '%s' does not exist" : "Stack with id %s does not exist", name);
    return s; /* NULL: answered, and the request's memory is gone */
}

static void stack_xml(struct aws_req *q, struct buf *b, struct cfn_stack *s)
{
    buf_adds(b, "<member>");
    xml_element(b, "StackId", s->id);
    xml_element(b, "StackName", s->name);
    element(b, "Description", s->description && *s->description ? s->description : NULL);
    parameters_xml(q, b, val_get(s->spec, "parameters"));
    time_element(q, b, "CreationTime", s->created_ms);
    time_element(q, b, "LastUpdatedTime", s->updated_ms);
    time_element(q, b, "DeletionTime", s->deleted_ms);
    xml_element(b, "StackStatus", s->status);
    element(b, "StackStatusReason", s->reason);
    xml_element(b, "DisableRollback", val_bool_at(s->spec, "disableRollback", false) ? "true" : "false");
    xml_element(b, "EnableTerminationProtection", val_bool_at(s->spec, "terminationProtection", false) ? "true" : "false");
    element(b, "RoleARN", val_str_at(s->spec, "roleARN", NULL));
    element(b, "ParentId", val_str_at(s->spec, "parentId", NULL));
    element(b, "RootId", val_str_at(s->spec, "rootId", NULL));
    cfn_list_xml(b, "NotificationARNs", val_get(s->spec, "notificationARNs"));
    cfn_list_xml(b, "Capabilities", val_get(s->spec, "capabilities"));
    buf_adds(b, "<Outputs>");
    VAL_EACH(s->outputs, o)
    {
        buf_adds(b, "<member>");
        element(b, "OutputKey", val_str_at(o, "OutputKey", ""));
        element(b, "OutputValue", val_str_at(o, "OutputValue", ""));
        element(b, "Description", val_str_at(o, "Description", NULL));
        element(b, "ExportName", val_str_at(o, "ExportName", NULL));
        buf_adds(b, "</member>");
    }
    buf_adds(b, "</Outputs>");
    cfn_tags_xml(b, val_get(s->spec, "tags"));
    buf_adds(b, "<DriftInformation><StackDriftStatus>NOT_CHECKED</StackDriftStatus></DriftInformation></member>");
}

static void describe_stacks(struct aws_req *q, const char *action)
{
    struct cfn_stack *one = NULL;
    struct buf b = {0};

    if (query_param(q, "StackName") && !(one = need_stack(q, NULL)))
        return;
    query_begin(q, &b, action);
    buf_adds(&b, "<Stacks>");
    LIST_EACH(&q->d->cfn->stacks, l)
    {
        struct cfn_stack *s = list_entry(l, struct cfn_stack, link);

        if (one ? s == one : !streq(s->status, "DELETE_COMPLETE"))
            stack_xml(q, &b, s);
    }
    buf_adds(&b, "</Stacks>");
    answer(q, &b, action);
}

static void list_stacks(struct aws_req *q, const char *action)
{
    struct arena *a = q->req->arena;
    struct buf b = {0};

    query_begin(q, &b, action);
    buf_adds(&b, "<StackSummaries>");
    LIST_EACH(&q->d->cfn->stacks, l)
    {
        struct cfn_stack *s = list_entry(l, struct cfn_stack, link);
        const char *want;
        bool shown = !query_param(q, "StackStatusFilter.member.1");

        for (int i = 1; (want = query_param(q, arena_printf(a, "StackStatusFilter.member.%d", i))); i++)
            shown |= streq(want, s->status);
        if (!shown)
            continue;
        buf_adds(&b, "<member>");
        xml_element(&b, "StackId", s->id);
        xml_element(&b, "StackName", s->name);
        element(&b, "TemplateDescription", s->description && *s->description ? s->description : NULL);
        time_element(q, &b, "CreationTime", s->created_ms);
        time_element(q, &b, "LastUpdatedTime", s->updated_ms);
        time_element(q, &b, "DeletionTime", s->deleted_ms);
        xml_element(&b, "StackStatus", s->status);
        element(&b, "StackStatusReason", s->reason);
        element(&b, "ParentId", val_str_at(s->spec, "parentId", NULL));
        element(&b, "RootId", val_str_at(s->spec, "rootId", NULL));
        buf_adds(&b, "<DriftInformation><StackDriftStatus>NOT_CHECKED</StackDriftStatus></DriftInformation></member>");
    }
    buf_adds(&b, "</StackSummaries>");
    answer(q, &b, action);
}

static void describe_events(struct aws_req *q, const char *action)
{
    struct cfn_stack *s = need_stack(q, NULL);
    struct buf b = {0};

    if (!s)
        return;
    query_begin(q, &b, action);
    buf_adds(&b, "<StackEvents>");
    for (uint32_t i = s->events_n; i-- > 0;) {
        const struct cfn_event *e = &s->events[i];

        buf_adds(&b, "<member>");
        xml_element(&b, "StackId", s->id);
        element(&b, "EventId", e->id);
        xml_element(&b, "StackName", s->name);
        element(&b, "LogicalResourceId", e->logical);
        xml_element(&b, "PhysicalResourceId", e->phys ? e->phys : "");
        element(&b, "ResourceType", e->type);
        time_element(q, &b, "Timestamp", e->at_ms);
        element(&b, "ResourceStatus", e->status);
        element(&b, "ResourceStatusReason", e->reason);
        element(&b, "ClientRequestToken", s->token);
        buf_adds(&b, "</member>");
    }
    buf_adds(&b, "</StackEvents>");
    answer(q, &b, action);
}

static void resource_xml(struct aws_req *q, struct buf *b, struct cfn_stack *s, const struct cfn_res *r, bool detail, bool stack)
{
    if (stack) {
        xml_element(b, "StackName", s->name);
        xml_element(b, "StackId", s->id);
    }
    xml_element(b, "LogicalResourceId", r->logical);
    element(b, "PhysicalResourceId", r->phys);
    xml_element(b, "ResourceType", r->type);
    time_element(q, b, detail ? "LastUpdatedTimestamp" : "Timestamp", r->at_ms);
    xml_element(b, "ResourceStatus", r->status);
    element(b, "ResourceStatusReason", r->reason);
    buf_adds(b, "<DriftInformation><StackResourceDriftStatus>NOT_CHECKED</StackResourceDriftStatus></DriftInformation>");
}

static void describe_resources(struct aws_req *q, const char *action)
{
    const char *logical = query_param(q, "LogicalResourceId");
    struct cfn_stack *s = need_stack(q, NULL);
    bool summaries = streq(action, "ListStackResources");
    struct buf b = {0};

    if (!s)
        return;
    if (logical && !cfn_res_find(s, logical)) {
        aws_error(q, 400, "ValidationError", "Resource %s does not exist for stack %s", logical, s->name);
        return;
    }
    query_begin(q, &b, action);
    buf_adds(&b, summaries ? "<StackResourceSummaries>" : "<StackResources>");
    for (uint32_t i = 0; i < s->res_n; i++)
        if (!logical || streq(logical, s->res[i]->logical)) {
            buf_adds(&b, "<member>");
            resource_xml(q, &b, s, s->res[i], summaries, !summaries);
            buf_adds(&b, "</member>");
        }
    buf_adds(&b, summaries ? "</StackResourceSummaries>" : "</StackResources>");
    answer(q, &b, action);
}

static void describe_resource(struct aws_req *q, const char *action)
{
    const char *logical = query_param(q, "LogicalResourceId");
    struct cfn_stack *s = need_stack(q, "");
    struct cfn_res *r = s ? cfn_res_find(s, logical ? logical : "") : NULL;
    struct buf b = {0};

    if (!s)
        return;
    if (!r) {
        aws_error(q, 400, "ValidationError", "Resource %s does not exist for stack %s", logical ? logical : "", s->name);
        return;
    }
    query_begin(q, &b, action);
    buf_adds(&b, "<StackResourceDetail>");
    resource_xml(q, &b, s, r, true, true);
    buf_adds(&b, "</StackResourceDetail>");
    answer(q, &b, action);
}

/* ---- templates ---- */

static const struct val *change_set_of(struct aws_req *q, struct cfn_stack **ret_stack)
{
    const char *want = query_param(q, "ChangeSetName");
    const struct val *set = cfn_change_set(q->d->cfn, want, query_param(q, "StackName"), ret_stack);

    if (!set)
        aws_error(q, 404, "ChangeSetNotFound", "ChangeSet [%s] does not exist", want ? want : "");
    return set;
}

static void get_template(struct aws_req *q, const char *action)
{
    const char *stage = query_param(q, "TemplateStage"), *text;
    struct cfn_stack *s = NULL;
    const struct val *spec;
    struct buf b = {0};

    if (query_param(q, "ChangeSetName")) {
        const struct val *set = change_set_of(q, &s);

        if (!set)
            return;
        spec = val_get(set, "spec");
    } else {
        s = need_stack(q, NULL);
        if (!s)
            return;
        spec = s->spec;
    }
    text = val_str_at(spec, "template", "");
    if (stage && streq(stage, "Processed")) {
        struct err err = {0};
        _auto_(cfn_plan_freep) struct cfn_plan *p = cfn_plan_new(s, spec, true, &err);

        if (p)
            text = json_text(q->req->arena, p->doc, NULL);
    }
    query_begin(q, &b, action);
    xml_element(&b, "TemplateBody", text);
    buf_adds(&b, "<StagesAvailable><member>Original</member><member>Processed</member></StagesAvailable>");
    answer(q, &b, action);
}

/* ---- change sets ---- */

static void change_xml(struct buf *b, const struct val *c)
{
    buf_adds(b, "<member><Type>Resource</Type><ResourceChange>");
    VAL_EACH_MEMBER(c, m)
        if (m->v.type == VAL_STR)
            xml_element(b, m->key, m->v.s);
    cfn_list_xml(b, "Scope", val_get(c, "Scope"));
    buf_adds(b, "<Details>");
    VAL_EACH(val_get(c, "Details"), d)
    {
        buf_adds(b, "<member><Target>");
        VAL_EACH_MEMBER(val_get(d, "Target"), m)
            xml_element(b, m->key, val_text(&m->v, ""));
        buf_adds(b, "</Target>");
        xml_element(b, "Evaluation", val_str_at(d, "Evaluation", ""));
        xml_element(b, "ChangeSource", val_str_at(d, "ChangeSource", ""));
        buf_adds(b, "</member>");
    }
    buf_adds(b, "</Details></ResourceChange></member>");
}

static void set_xml(struct buf *b, const struct cfn_stack *s, const struct val *c)
{
    static const char *const NAMES[] = {"ChangeSetName", "ChangeSetId", "Description", "CreationTime", "ExecutionStatus", "Status",
                                        "StatusReason"};

    xml_element(b, "StackId", s->id);
    xml_element(b, "StackName", s->name);
    for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
        element(b, NAMES[i], val_str_at(c, NAMES[i], NULL));
    xml_element(b, "IncludeNestedStacks", val_bool_at(c, "IncludeNestedStacks", false) ? "true" : "false");
}

static void describe_change_set(struct aws_req *q, const char *action)
{
    struct cfn_stack *s;
    const struct val *c = change_set_of(q, &s);
    struct buf b = {0};

    if (!c)
        return;
    query_begin(q, &b, action);
    set_xml(&b, s, c);
    parameters_xml(q, &b, val_at(c, "spec.parameters"));
    cfn_list_xml(&b, "NotificationARNs", val_at(c, "spec.notificationARNs"));
    cfn_list_xml(&b, "Capabilities", val_at(c, "spec.capabilities"));
    cfn_tags_xml(&b, val_at(c, "spec.tags"));
    buf_adds(&b, "<Changes>");
    VAL_EACH(val_get(c, "Changes"), change)
        change_xml(&b, change);
    buf_adds(&b, "</Changes>");
    answer(q, &b, action);
}

static void list_change_sets(struct aws_req *q, const char *action)
{
    struct cfn_stack *s = need_stack(q, "");
    struct buf b = {0};

    if (!s)
        return;
    query_begin(q, &b, action);
    buf_adds(&b, "<Summaries>");
    VAL_EACH(s->change_sets, c)
    {
        buf_adds(&b, "<member>");
        set_xml(&b, s, c);
        buf_adds(&b, "</member>");
    }
    buf_adds(&b, "</Summaries>");
    answer(q, &b, action);
}

/* ---- exports ---- */

static void list_exports(struct aws_req *q, const char *action)
{
    struct buf b = {0};

    query_begin(q, &b, action);
    buf_adds(&b, "<Exports>");
    LIST_EACH(&q->d->cfn->stacks, l)
    {
        struct cfn_stack *s = list_entry(l, struct cfn_stack, link);

        VAL_EACH(s->outputs, o)
        {
            if (!val_get(o, "ExportName"))
                continue;
            buf_adds(&b, "<member>");
            xml_element(&b, "ExportingStackId", s->id);
            xml_element(&b, "Name", val_str_at(o, "ExportName", ""));
            xml_element(&b, "Value", val_str_at(o, "OutputValue", ""));
            buf_adds(&b, "</member>");
        }
    }
    buf_adds(&b, "</Exports>");
    answer(q, &b, action);
}

static void list_imports(struct aws_req *q, const char *action)
{
    const char *name = query_param(q, "ExportName");
    struct buf b = {0};
    int n = 0;

    query_begin(q, &b, action);
    buf_adds(&b, "<Imports>");
    LIST_EACH(&q->d->cfn->stacks, l)
    {
        struct cfn_stack *s = list_entry(l, struct cfn_stack, link);

        if (name && cfn_imports(s, name)) {
            xml_element(&b, "member", s->name);
            n++;
        }
    }
    buf_adds(&b, "</Imports>");
    if (n) {
        answer(q, &b, action);
        return;
    }
    buf_done(&b);
    aws_error(q, 400, "ValidationError", "Export '%s' is not imported by any stack.", name ? name : "");
}

static void get_stack_policy(struct aws_req *q, const char *action)
{
    struct buf b = {0};

    if (!need_stack(q, ""))
        return;
    query_begin(q, &b, action);
    answer(q, &b, action);
}

/* ---- which operation ---- */

static const struct {
    const char *action;
    void (*run)(struct aws_req *q, const char *action);
} READS[] = {
    {"DescribeStacks", describe_stacks}, {"ListStacks", list_stacks}, {"DescribeStackEvents", describe_events},
    {"DescribeStackResources", describe_resources}, {"ListStackResources", describe_resources},
    {"DescribeStackResource", describe_resource}, {"GetTemplate", get_template}, {"DescribeChangeSet", describe_change_set},
    {"ListChangeSets", list_change_sets}, {"ListExports", list_exports}, {"ListImports", list_imports},
    {"GetStackPolicy", get_stack_policy},
};

void cfn_request(struct aws_req *q)
{
    const char *action = query_param(q, "Action");

    if (!q->d->cfn || q->d->cfn->stopping || !mirror_synced(q->d->cfn->mirror)) {
        aws_error(q, 503, "ServiceUnavailable", "stacks are not known yet");
        return;
    }
    for (size_t i = 0; action && i < ARRAY_LEN(READS); i++)
        if (streq(action, READS[i].action)) {
            READS[i].run(q, action);
            return;
        }
    if (action && cfn_is_write_op(action)) {
        cfn_write_op(q, action);
        return;
    }
    aws_error(q, action ? 501 : 400, action ? "NotImplemented" : "MissingAction", action ? "tandem does not serve the CloudFormation action %s"
              : "The request must contain the parameter Action%s", action ? action : "");
}

/* ---- life ---- */

static void on_inner(struct http_req *req, void *arg)
{
    struct cfn *c = arg;

    aws_inner(c->d, req);
}

struct cfn *cfn_new(struct aws_door *d)
{
    struct cfn *c = xcalloc(1, sizeof *c);
    _auto_(freep) char *dir = xasprintf("%s/run", d->state), *path = xasprintf("%s/aws.sock", dir), *url = xasprintf("unix:%s", path);
    struct err err = {0};

    c->d = d;
    list_init(&c->stacks);
    (void)mkdir(dir, 0700);
    c->inner = http_server_new(d->o.loop, &(struct http_server_opts){.unix_path = path, .unix_mode = 0600, .body_bytes_max = 72 << 20,
                                                                     .on_request = on_inner, .arg = c}, &err);
    if (!c->inner) {
        LOG(ERROR, "cfn", "did=start error=\"%s\"", err.msg);
        free(c);
        return NULL;
    }
    c->http = http_client_new(d->o.loop, &(struct http_client_opts){0});
    c->self = http_origin_new(c->http, url, NULL, &err);
    cfn_load(c);
    return c;
}

void cfn_stop(struct cfn *c)
{
    c->stopping = true;
    mirror_free(c->mirror);
    c->mirror = NULL;
    LIST_EACH(&c->stacks, l)
        cfn_works_cancel(list_entry(l, struct cfn_stack, link));
    c->http = http_client_free(c->http);
    c->self = NULL;
}

void cfn_free(struct cfn *c)
{
    if (!c)
        return;
    LIST_EACH(&c->stacks, l)
        cfn_stack_free(list_entry(l, struct cfn_stack, link));
    free(c);
}
