/* door/aws/cloudformation/run.c - what makes a stack what its template says.
 *
 * Level, not edge: cfn_step() looks at the stack's status and its resources, starts what can be started now, and says what
 * it has come to. It is called after each end of a work, after each answer that was waited for, and once after a start of the
 * gateway for each stack that was in the midst of something: a pass may be cut anywhere and run again.
 *
 *   CREATE_ UPDATE_ UPDATE_ROLLBACK_IN_PROGRESS   apply: each resource of the plan is found or made as it should be
 *   ..._COMPLETE_CLEANUP_IN_PROGRESS              what was replaced or is in the template no more goes
 *   ROLLBACK_ DELETE_IN_PROGRESS                  everything goes
 * An operation has a number (stack.op); a resource that it found or made as it should be has it as `done`. */
#include "door/aws/cloudformation/cfn_int.h"

#include <stdio.h>

#include "base/log.h"
#include "env/clock.h"

/* ---- values that lie in the parameter store ---- */

struct fetch {
    struct cfn_stack *s;
    struct cfn *c;
    char *name, *id;
};

static void on_fetched(const struct http_answer *a, char *body, size_t n, const struct err *err, void *arg)
{
    struct fetch *f = arg;
    struct cfn_stack *s = f->c->stopping ? NULL : cfn_find(f->c, f->id);
    struct err bad;

    if (s && s->plan_arena) {
        struct val *v = !err && a && a->status == 200 ? json_parse(s->plan_arena, body, n, &bad) : NULL;
        const char *value = val_str_at(v, "Parameter.Value", NULL);

        val_put(s->plan_arena, s->fetched, f->name, value ? val_str(s->plan_arena, value) : val_bool(s->plan_arena, false));
        s->fetching--;
        cfn_step(s);
    }
    free(f->name);
    free(f->id);
    free(f);
}

/* The value; NULL with *ret_wait: it is being asked for; NULL without: there is none. */
static const char *fetched(struct cfn_stack *s, const char *name, bool *ret_wait)
{
    const struct val *known;
    struct fetch *f;
    struct buf b = {0};

    if (!s->plan_arena) {
        s->plan_arena = arena_new();
        s->fetched = val_map(s->plan_arena);
    }
    known = val_get(s->fetched, name);
    *ret_wait = !known || known->type == VAL_NULL;
    if (known)
        return known->type == VAL_STR ? known->s : NULL;
    val_put(s->plan_arena, s->fetched, name, val_null(s->plan_arena));
    s->fetching++;
    f = xcalloc(1, sizeof *f);
    *f = (struct fetch){.s = s, .c = s->c, .name = xstrdup(name), .id = xstrdup(s->id)};
    buf_adds(&b, "{\"WithDecryption\":true,\"Name\":");
    json_write_str(&b, name, strlen(name));
    buf_addc(&b, '}');
    struct http_header h[] = {{"x-tandem-service", "ssm"}, {"x-tandem-caller", val_str_at(s->spec, "caller", "")},
                              {"x-amz-target", "AmazonSSM.GetParameter"}, {"content-type", "application/x-amz-json-1.1"}};
    http_fetch(s->c->self, &(struct http_call_opts){.method = "POST", .path = "/", .headers = h, .headers_n = ARRAY_LEN(h),
                                                    .body = b.p, .body_n = b.n, .timeout_ms = 30000}, 1 << 20, on_fetched, f);
    buf_done(&b);
    return NULL;
}

/* Parameters of SSM types get their values into the spec. 1: all are there; 0: being asked; -1: err. */
static int ssm_parameters(struct cfn_stack *s, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const char *text = val_str_at(s->spec, "template", "");
    struct val *doc = strstr(text, "AWS::SSM::Parameter::Value") ? cfn_parse(a, text, strlen(text), err) : val_map(a), *given;
    int rc = 1;

    if (!doc)
        return -1;
    given = val_need_list(s->a, s->spec, "parameters");
    VAL_EACH_MEMBER(val_get(doc, "Parameters"), m)
    {
        struct val *entry = NULL;
        const char *name, *value;
        bool wait;

        if (!str_starts(val_str_at(&m->v, "Type", ""), "AWS::SSM::Parameter::Value<"))
            continue;
        VAL_EACH(given, p)
            if (streq(val_str_at(p, "ParameterKey", ""), m->key))
                entry = p;
        if (val_get(entry, "ResolvedValue"))
            continue;
        name = val_str_at(entry, "ParameterValue", val_str_at(&m->v, "Default", NULL));
        if (!name)
            continue; /* said by cfn_parameters() */
        value = fetched(s, name, &wait);
        if (wait) {
            rc = 0;
        } else if (!value) {
            return err_set(err, INVALID_ARGUMENT, "Unable to fetch parameters [%.200s] from parameter store for this account.", name);
        } else {
            if (!entry) {
                struct val *fresh = val_map(s->a);

                val_put_str(s->a, fresh, "ParameterKey", m->key);
                val_put_str(s->a, fresh, "ParameterValue", name);
                entry = val_push(s->a, given, fresh);
            }
            val_put_str(s->a, entry, "ResolvedValue", value);
            cfn_save_spec(s);
        }
    }
    return rc;
}

/* {{resolve:ssm:NAME[:VERSION]}} in texts, in place. As above. */
static int dynamic_references(struct cfn_stack *s, struct arena *a, struct val *v, struct err *err)
{
    int rc = 1;

    if (v->type == VAL_STR && strstr(v->s, "{{resolve:")) {
        struct buf b = {0};
        const char *p = v->s, *at;

        while ((at = strstr(p, "{{resolve:"))) {
            const char *end = strstr(at, "}}"), *value;
            char *name;
            bool wait;

            if (!end)
                break;
            name = arena_strndup(a, at + 10, (size_t)(end - at - 10));
            if (!str_starts(name, "ssm:") && !str_starts(name, "ssm-secure:")) {
                buf_done(&b);
                return err_set(err, INVALID_ARGUMENT, "tandem resolves ssm and ssm-secure, not {{resolve:%.100s}}", name);
            }
            name = strchr(name, ':') + 1;
            value = fetched(s, name, &wait);
            if (!value && !wait) {
                buf_done(&b);
                return err_set(err, INVALID_ARGUMENT, "Parameters: [ssm:%.150s] cannot be found.", name);
            }
            if (wait)
                rc = 0;
            buf_add(&b, p, (size_t)(at - p));
            buf_adds(&b, value ? value : "");
            p = end + 2;
        }
        buf_adds(&b, p);
        *v = *val_strn(a, b.p ? b.p : "", b.n);
        buf_done(&b);
        return rc;
    }
    VAL_EACH(v, it)
    {
        int one = dynamic_references(s, a, it, err);

        if (one < 0)
            return -1;
        rc = MIN(rc, one);
    }
    VAL_EACH_MEMBER(v, m)
    {
        int one = dynamic_references(s, a, &m->v, err);

        if (one < 0)
            return -1;
        rc = MIN(rc, one);
    }
    return rc;
}

/* ---- one resource ---- */

static bool is_done(const struct cfn_stack *s, const struct cfn_res *r)
{
    return r && r->done == s->op && !r->work;
}

static void could_not(struct cfn_stack *s, struct cfn_res *r, const char *why)
{
    r->failed = true;
    cfn_res_status(s, r, r->made ? "UPDATE_FAILED" : "CREATE_FAILED", why);
}

static void remember(struct cfn_stack *s, struct cfn_res *r, const struct cfn_item *it)
{
    const char *keep = val_str_at(it->def, "DeletionPolicy", NULL), *replace = val_str_at(it->def, "UpdateReplacePolicy", NULL);

    r->needs = val_len(it->needs) ? val_copy(s->a, it->needs) : NULL;
    r->keep = keep ? arena_strdup(s->a, keep) : NULL;
    r->replace_keep = replace ? arena_strdup(s->a, replace) : NULL;
}

static bool must_replace(const struct cfn_res *r, const struct cfn_item *it, const struct val *props)
{
    const struct cfn_type *t = cfn_type_of(it->type);

    if (!streq(r->type, it->type))
        return true;
    for (int pass = 0; pass < 2; pass++)
        VAL_EACH_MEMBER(pass ? r->props : props, m)
        {
            const struct val *other = val_getn(pass ? props : r->props, m->key, m->n);

            if (!(other && (pass || val_equal(&m->v, other))) && (!t->update || cfn_type_replaces(t, m->key)))
                return true;
        }
    return false;
}

/* false: nothing can be done for it right now. */
static bool start_item(struct cfn_stack *s, struct cfn_item *it)
{
    struct cfn_res *r = cfn_res_find(s, it->logical);
    struct err err = {0};
    struct val *props = cfn_item_props(s->plan, it, &err);
    int ready = props ? dynamic_references(s, s->plan->a, props, &err) : -1;
    bool resumed = s->reloaded || (r && !r->made && streq(r->status, "CREATE_IN_PROGRESS"));
    const struct cfn_res *before = NULL;

    if (ready == 0)
        return false;
    if (ready < 0) {
        if (!r)
            r = cfn_res_new(s, it->logical, it->type);
        could_not(s, r, err.msg);
        return true;
    }
    if (r && r->made && !r->dirty && streq(r->type, it->type) && val_equal(props, r->props ? r->props : val_map(s->plan->a)) &&
        !streq(r->status, "CREATE_IN_PROGRESS")) {
        r->done = s->op;
        remember(s, r, it);
        return true;
    }
    if (r && r->made && r->props && !streq(r->status, "CREATE_IN_PROGRESS")) {
        if (!must_replace(r, it, props)) {
            remember(s, r, it);
            cfn_res_status(s, r, "UPDATE_IN_PROGRESS", NULL);
            cfn_work_start(s, r, CFN_UPDATE, props, r->props, false);
            return true;
        }
        cfn_res_status(s, r, "UPDATE_IN_PROGRESS",
                       "Requested update requires the creation of a new physical resource; hence creating one.");
        r->old = s->op;
        before = r;
        r = NULL;
    }
    resumed |= r && r->made;
    if (!r)
        r = cfn_res_new(s, it->logical, it->type);
    if (before)
        r->generation = before->generation + 1;
    else if (!streq(r->type, it->type))
        r->type = arena_strdup(s->a, it->type);
    remember(s, r, it);
    cfn_res_status(s, r, "CREATE_IN_PROGRESS", NULL);
    cfn_work_start(s, r, CFN_CREATE, props, NULL, resumed);
    return true;
}

/* ---- all resources of the plan ---- */

static void failed_names(const struct cfn_stack *s, struct buf *b)
{
    buf_init(b, 600);
    for (uint32_t i = 0; i < s->res_n; i++)
        if (s->res[i]->failed)
            buf_printf(b, "%s%s", b->n ? ", " : "", s->res[i]->logical);
}

static void next_operation(struct cfn_stack *s)
{
    s->op++;
    for (uint32_t i = 0; i < s->res_n; i++)
        s->res[i]->failed = false;
    s->plan = cfn_plan_free(s->plan);
    s->plan_arena = arena_free(s->plan_arena);
    s->fetched = NULL;
    s->fetching = 0;
}

static void end_operation(struct cfn_stack *s, const char *status, const char *reason)
{
    next_operation(s);
    s->op--; /* the number is of what was done */
    s->reloaded = false;
    cfn_stack_status(s, status, reason);
    cfn_save(s, true, NULL, NULL);
}

/* An update that failed: what it replaced is the one again, and the template is the one before. */
static void go_back(struct cfn_stack *s)
{
    int64_t op = s->op;

    for (uint32_t i = 0; i < s->res_n; i++) {
        struct cfn_res *was = s->res[i], *now;

        if (was->old != op)
            continue;
        now = cfn_res_find(s, was->logical);
        was->old = 0;
        if (now && now->made) {
            now->old = op + 1; /* not taken for one of those that come back */
        } else if (now) {
            cfn_res_remove(s, now);
            i = (uint32_t)-1; /* from the start: the array has moved */
        }
    }
    next_operation(s);
    if (s->previous)
        s->spec = s->previous;
    s->previous = NULL;
    cfn_save_spec(s);
}

static void apply_failed(struct cfn_stack *s, const char *why)
{
    const char *on = val_str_at(s->spec, "onFailure", "ROLLBACK");
    bool create = streq(s->status, "CREATE_IN_PROGRESS"), keep = val_bool_at(s->spec, "disableRollback", false);
    _auto_(freep) char *reason = NULL;
    struct buf names;

    failed_names(s, &names);
    reason = why ? xstrdup(why) : xasprintf("The following resource(s) failed to %s: [%s]. ", create ? "create" : "update",
                                            names.p ? names.p : "");
    buf_done(&names);
    if (create && (keep || streq(on, "DO_NOTHING"))) {
        end_operation(s, "CREATE_FAILED", reason);
    } else if (create && streq(on, "DELETE")) {
        cfn_begin_delete(s, s->token);
    } else if (create) {
        _auto_(freep) char *more = xasprintf("%sRollback requested by user.", reason);

        next_operation(s);
        cfn_stack_status(s, "ROLLBACK_IN_PROGRESS", more);
        s->again = true;
    } else if (streq(s->status, "UPDATE_ROLLBACK_IN_PROGRESS")) {
        end_operation(s, "UPDATE_ROLLBACK_FAILED", reason);
    } else if (keep) {
        end_operation(s, "UPDATE_FAILED", reason);
    } else {
        cfn_stack_status(s, "UPDATE_ROLLBACK_IN_PROGRESS", reason);
        go_back(s);
        s->again = true;
    }
    cfn_save(s, false, NULL, NULL);
}

static int make_outputs(struct cfn_stack *s, struct err *err)
{
    struct cfn_plan *p = s->plan;
    struct val *all = val_list(s->a);

    VAL_EACH_MEMBER(val_get(p->doc, "Outputs"), m)
    {
        int wanted = cfn_condition(&p->scope, val_str_at(&m->v, "Condition", NULL), err);
        const struct val *export = val_at(&m->v, "Export.Name");
        struct val *v, *name, *out;

        if (wanted < 0)
            return -1;
        if (!wanted)
            continue;
        v = cfn_eval(&p->scope, val_get(&m->v, "Value"), err);
        if (!v)
            return -1;
        if (!cfn_scalar(p->a, v))
            return err_set(err, INVALID_ARGUMENT, "Template format error: Output %s is malformed. The Value field of every Outputs member "
                           "must evaluate to a String.", m->key);
        out = val_map(s->a);
        val_put_str(s->a, out, "OutputKey", m->key);
        val_put_str(s->a, out, "OutputValue", cfn_scalar(p->a, v));
        if (val_str_at(&m->v, "Description", NULL))
            val_put_str(s->a, out, "Description", val_str_at(&m->v, "Description", NULL));
        if (export) {
            name = cfn_eval(&p->scope, export, err);
            if (!name)
                return -1;
            LIST_EACH(&s->c->stacks, l)
            {
                struct cfn_stack *other = list_entry(l, struct cfn_stack, link);

                VAL_EACH(other == s || streq(other->status, "DELETE_COMPLETE") ? NULL : other->outputs, o)
                    if (streq(val_str_at(o, "ExportName", ""), val_text(name, "")))
                        return err_set(err, ALREADY_EXISTS, "Export with name %.120s is already exported by stack %.100s. Rollback "
                                       "requested by user.", val_text(name, ""), other->name);
            }
            val_put_str(s->a, out, "ExportName", val_text(name, ""));
        }
        val_push(s->a, all, out);
    }
    s->outputs = all;
    return 0;
}

static void apply(struct cfn_stack *s)
{
    struct err err = {0};
    bool failed = false, all = true;
    int ready;

    if (!s->plan) {
        ready = ssm_parameters(s, &err);
        if (ready == 0)
            return;
        if (ready > 0)
            s->plan = cfn_plan_new(s, s->spec, false, &err);
        if (!s->plan) {
            apply_failed(s, err.msg);
            return;
        }
        s->description = val_str_at(s->plan->doc, "Description", NULL);
        s->description = s->description ? arena_strdup(s->a, s->description) : NULL;
    }
    for (uint32_t i = 0; i < s->res_n; i++)
        failed |= s->res[i]->failed;
    for (uint32_t i = 0; i < s->plan->n; i++) {
        struct cfn_item *it = &s->plan->items[i];
        struct cfn_res *r = cfn_res_find(s, it->logical);
        bool can = !failed && s->works < CFN_AT_ONCE && !(r && r->work);

        if (is_done(s, r))
            continue;
        all = false;
        VAL_EACH(it->needs, name)
            if (can && cfn_plan_item(s->plan, name->s) && !is_done(s, cfn_res_find(s, name->s)))
                can = false;
        if (can && start_item(s, it)) {
            s->again = true;
            r = cfn_res_find(s, it->logical);
            failed |= r && r->failed;
        }
    }
    if (s->again || s->works || s->fetching || (!failed && !all))
        return;
    if (failed) {
        apply_failed(s, NULL);
        return;
    }
    if (make_outputs(s, &err) < 0) {
        apply_failed(s, err.msg);
        return;
    }
    if (streq(s->status, "CREATE_IN_PROGRESS")) {
        end_operation(s, "CREATE_COMPLETE", NULL);
        return;
    }
    cfn_stack_status(s, streq(s->status, "UPDATE_IN_PROGRESS") ? "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS"
                                                                : "UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS", NULL);
    s->previous = NULL;
    s->again = true;
}

/* ---- what goes ---- */

static bool keeps(const struct cfn_stack *s, const struct cfn_res *r)
{
    const char *policy = r->old ? r->replace_keep : r->keep;
    _auto_(freep) char *word = xasprintf(",%s,", r->logical);

    if (s->retain && strstr(s->retain, word))
        return true;
    if (!policy)
        return false;
    return streq(policy, "Retain") || (streq(policy, "RetainExceptOnCreate") && !streq(s->status, "ROLLBACK_IN_PROGRESS"));
}

static bool needed(const struct cfn_stack *s, const struct cfn_res *r, bool (*goes)(const struct cfn_stack *, const struct cfn_res *))
{
    for (uint32_t i = 0; i < s->res_n; i++) {
        const struct cfn_res *o = s->res[i];

        if (o == r || !goes(s, o) || streq(o->logical, r->logical))
            continue;
        VAL_EACH(o->needs, n)
            if (streq(val_text(n, ""), r->logical))
                return true;
    }
    return false;
}

static bool goes_all(const struct cfn_stack *s, const struct cfn_res *r)
{
    (void)s, (void)r;
    return true;
}
static bool goes_cleanup(const struct cfn_stack *s, const struct cfn_res *r)
{
    return r->old || !cfn_plan_item(s->plan, r->logical);
}

/* true: everything is gone that can go. */
static bool drop(struct cfn_stack *s, bool (*goes)(const struct cfn_stack *, const struct cfn_res *))
{
    for (bool forced = false;; forced = true) {
        bool waiting = false;

        for (uint32_t i = 0; i < s->res_n; i++) {
            struct cfn_res *r = s->res[i];

            if (!goes(s, r) || r->work || r->failed)
                continue;
            if (!r->made || keeps(s, r)) {
                if (r->made)
                    cfn_event(s, r, "DELETE_SKIPPED", NULL);
                cfn_res_remove(s, r);
                i = (uint32_t)-1;
                continue;
            }
            if (s->works >= CFN_AT_ONCE || (!forced && needed(s, r, goes))) {
                waiting = true;
                continue;
            }
            cfn_res_status(s, r, "DELETE_IN_PROGRESS", NULL);
            cfn_work_start(s, r, CFN_DELETE, r->props, NULL, false);
            if (forced)
                return false;
        }
        if (s->works)
            return false;
        if (!waiting || forced)
            return true;
        for (uint32_t i = 0; i < s->res_n; i++)
            if (s->res[i]->failed)
                return true; /* what failed needs the rest */
    }
}

static void delete_done(struct cfn_stack *s)
{
    struct buf names;
    bool rollback = streq(s->status, "ROLLBACK_IN_PROGRESS");
    _auto_(freep) char *reason = NULL;

    failed_names(s, &names);
    if (names.n)
        reason = xasprintf("The following resource(s) failed to delete: [%s]. ", names.p);
    buf_done(&names);
    if (reason) {
        end_operation(s, rollback ? "ROLLBACK_FAILED" : "DELETE_FAILED", reason);
        return;
    }
    s->outputs = val_list(s->a);
    if (rollback) {
        end_operation(s, "ROLLBACK_COMPLETE", NULL);
        return;
    }
    s->deleted_ms = clock_real_ms();
    s->change_sets = val_list(s->a);
    s->finalizer_gone = true;
    cfn_save_spec(s);
    end_operation(s, "DELETE_COMPLETE", NULL);
}

static void cleanup(struct cfn_stack *s)
{
    struct err err = {0};

    if (!s->plan) { /* after a restart */
        int ready = ssm_parameters(s, &err);

        if (ready == 0)
            return;
        s->plan = ready > 0 ? cfn_plan_new(s, s->spec, false, &err) : NULL;
    }
    if (s->plan && !drop(s, goes_cleanup))
        return;
    for (uint32_t i = 0; s->plan && i < s->res_n; i++)
        if (goes_cleanup(s, s->res[i]) && s->res[i]->failed) { /* as there: said in the events, and let go */
            cfn_res_remove(s, s->res[i]);
            i = (uint32_t)-1;
        }
    end_operation(s, streq(s->status, "UPDATE_COMPLETE_CLEANUP_IN_PROGRESS") ? "UPDATE_COMPLETE" : "UPDATE_ROLLBACK_COMPLETE", NULL);
}

/* ---- the pass ---- */

void cfn_step(struct cfn_stack *s)
{
    if (s->stepping) {
        s->again = true;
        return;
    }
    s->stepping = true;
    do {
        s->again = false;
        if (s->c->stopping || s->removed)
            break;
        if (streq(s->status, "CREATE_IN_PROGRESS") || streq(s->status, "UPDATE_IN_PROGRESS") ||
            streq(s->status, "UPDATE_ROLLBACK_IN_PROGRESS"))
            apply(s);
        else if (str_ends(s->status, "_COMPLETE_CLEANUP_IN_PROGRESS"))
            cleanup(s);
        else if ((streq(s->status, "ROLLBACK_IN_PROGRESS") || streq(s->status, "DELETE_IN_PROGRESS")) && !s->works &&
                 drop(s, goes_all))
            delete_done(s);
        else if (streq(s->status, "ROLLBACK_IN_PROGRESS") || streq(s->status, "DELETE_IN_PROGRESS"))
            (void)drop(s, goes_all);
    } while (s->again);
    s->stepping = false;
    cfn_save(s, false, NULL, NULL);
}

void cfn_begin(struct cfn_stack *s, const char *status, const char *token)
{
    next_operation(s);
    s->token = token ? arena_strdup(s->a, token) : NULL;
    s->retain = NULL;
    if (str_starts(status, "UPDATE"))
        s->updated_ms = clock_real_ms();
    cfn_stack_status(s, status, "User Initiated");
}

void cfn_begin_delete(struct cfn_stack *s, const char *token)
{
    const char *retain = s->retain;

    cfn_begin(s, "DELETE_IN_PROGRESS", token);
    s->retain = retain;
    cfn_save(s, false, NULL, NULL);
    cfn_step(s);
}
