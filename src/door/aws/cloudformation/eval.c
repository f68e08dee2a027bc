/* door/aws/cloudformation/eval.c - the intrinsic functions.
 *
 * A value is rebuilt in the scope's arena with every function run. Each step is counted (values made, bytes of text
 * made, depth), so that a small template cannot become a big machine's worth of memory. */
#include "door/aws/cloudformation/cfn_template.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/buf.h"
#include "codec/json.h"
#include "door/aws/aws_int.h"

static const struct val NO_VALUE = {.type = VAL_NULL, .flag = 77};

static bool is_no_value(const struct val *v)
{
    return v->type == VAL_NULL && v->flag == NO_VALUE.flag;
}

static const struct val *failed(struct err *err, const char *text)
{
    err_set(err, INVALID_ARGUMENT, "Template error: %s", text);
    return NULL;
}

static const struct val *text_made(struct cfn_scope *s, const char *text, struct err *err)
{
    size_t n = strlen(text);

    s->bytes += n;
    if (s->bytes > CFN_BYTES_MAX)
        return failed(err, "the template expands to more text than is allowed");
    return val_strn(s->a, text, n);
}

static const struct val *eval(struct cfn_scope *s, const struct val *v, struct err *err);

const char *cfn_function_of(const struct val *v, const struct val **ret_argument)
{
    if (!val_is(v, VAL_MAP) || v->n != 1)
        return NULL;
    if (!streq(v->members[0].key, "Ref") && !str_starts(v->members[0].key, "Fn::"))
        return NULL;
    *ret_argument = &v->members[0].v;
    return v->members[0].key;
}

/* ---- names ---- */

static const struct val *pseudo(struct cfn_scope *s, const char *name)
{
    if (streq(name, "AWS::AccountId"))
        return val_str(s->a, s->account);
    if (streq(name, "AWS::Region"))
        return val_str(s->a, s->region);
    if (streq(name, "AWS::StackName"))
        return val_str(s->a, s->stack_name);
    if (streq(name, "AWS::StackId"))
        return val_str(s->a, s->stack_id);
    if (streq(name, "AWS::Partition"))
        return val_lit(s->a, "aws");
    if (streq(name, "AWS::URLSuffix"))
        return val_lit(s->a, "amazonaws.com");
    if (streq(name, "AWS::NotificationARNs"))
        return s->notification_arns ? s->notification_arns : val_list(s->a);
    if (streq(name, "AWS::NoValue"))
        return &NO_VALUE;
    return NULL;
}

static const struct val *known_later(struct cfn_scope *s)
{
    return val_lit(s->a, CFN_UNKNOWN);
}

static const struct val *of_resource(struct cfn_scope *s, const char *logical, const char *attribute, struct err *err)
{
    struct err why = {0};
    const struct val *v = s->attribute ? s->attribute(s->arg, s->a, logical, attribute, &why) : NULL;

    if (v)
        return v;
    if (*why.msg) {
        *err = why;
        return NULL;
    }
    return known_later(s);
}

static const struct val *ref(struct cfn_scope *s, const char *name, struct err *err)
{
    const struct val *v = pseudo(s, name);

    if (v)
        return v;
    if (val_get(val_get(s->doc, "Parameters"), name)) {
        v = val_get(s->params, name);
        return v ? v : known_later(s);
    }
    if (val_get(val_get(s->doc, "Resources"), name))
        return of_resource(s, name, NULL, err);
    err_set(err, INVALID_ARGUMENT, "Template format error: Unresolved resource dependencies [%.100s] in the Resources block of the "
            "template", name);
    return NULL;
}

static const struct val *get_att(struct cfn_scope *s, const struct val *arg, struct err *err)
{
    const struct val *name = NULL;
    const char *logical, *attribute;

    if (val_is(arg, VAL_STR) && strchr(arg->s, '.')) {
        const char *dot = strchr(arg->s, '.');

        logical = arena_strndup(s->a, arg->s, (size_t)(dot - arg->s));
        attribute = dot + 1;
    } else {
        if (!val_is(arg, VAL_LIST) || arg->n != 2 || arg->items[0].type != VAL_STR)
            return failed(err, "every Fn::GetAtt object requires two non-empty parameters, the resource name and the resource "
                          "attribute");
        name = eval(s, &arg->items[1], err);
        if (!name)
            return NULL;
        logical = arg->items[0].s;
        attribute = val_text(name, "");
    }
    if (!val_get(val_get(s->doc, "Resources"), logical)) {
        err_set(err, INVALID_ARGUMENT, "Template error: instance of Fn::GetAtt references undefined resource %.100s", logical);
        return NULL;
    }
    return of_resource(s, logical, attribute, err);
}

/* ---- Sub ---- */

bool cfn_sub_next(struct arena *a, const char **p, const char **ret_from, const char **ret_name)
{
    for (const char *at = *p; (at = strstr(at, "${"));) {
        const char *end = strchr(at, '}'), *from = at + 2, *to = end;

        if (!end)
            return false;
        if (at[2] == '!') {
            at = end + 1;
            continue;
        }
        while (from < to && isspace((unsigned char)*from))
            from++;
        while (to > from && isspace((unsigned char)to[-1]))
            to--;
        *ret_from = at;
        *ret_name = arena_strndup(a, from, (size_t)(to - from));
        *p = end + 1;
        return true;
    }
    return false;
}

static void add_literal(struct buf *b, const char *from, const char *to) /* ${!x} becomes ${x} */
{
    for (; from < to; from++) {
        buf_addc(b, *from);
        if (from + 2 < to && from[0] == '$' && from[1] == '{' && from[2] == '!') {
            buf_addc(b, '{');
            from += 2;
        }
    }
}

static const struct val *sub(struct cfn_scope *s, const struct val *arg, struct err *err)
{
    const struct val *own = NULL, *v;
    const char *text, *at, *from, *name, *done;
    struct buf b;

    if (val_is(arg, VAL_LIST) && arg->n == 2 && arg->items[0].type == VAL_STR && arg->items[1].type == VAL_MAP) {
        text = arg->items[0].s;
        own = &arg->items[1];
    } else if (val_is(arg, VAL_STR)) {
        text = arg->s;
    } else {
        return failed(err, "One or more Fn::Sub intrinsic functions don't specify expected arguments. Specify a string as first "
                      "argument, and an optional second argument to specify a mapping of values to replace in the string");
    }
    buf_init(&b, CFN_BYTES_MAX);
    for (at = done = text; cfn_sub_next(s->a, &at, &from, &name); done = at) {
        const char *piece;

        add_literal(&b, done, from);
        v = val_get(own, name) ? eval(s, val_get(own, name), err)
            : strchr(name, '.') ? get_att(s, val_str(s->a, name), err) : ref(s, name, err);
        piece = v ? cfn_scalar(s->a, v) : NULL;
        if (v && val_is(v, VAL_LIST)) { /* as Fn::Join with commas */
            struct buf list = {0};

            VAL_EACH(v, it)
                buf_printf(&list, "%s%s", list.n ? "," : "", cfn_scalar(s->a, it) ? cfn_scalar(s->a, it) : "");
            piece = arena_strdup(s->a, list.p ? list.p : "");
            buf_done(&list);
        }
        if (!piece) {
            buf_done(&b);
            return v ? failed(err, "Fn::Sub expression does not resolve to a string") : NULL;
        }
        buf_adds(&b, piece);
    }
    add_literal(&b, done, text + strlen(text));
    v = b.over ? failed(err, "the template expands to more text than is allowed") : text_made(s, b.p ? b.p : "", err);
    buf_done(&b);
    return v;
}

/* ---- lists and texts ---- */

static const struct val *join(struct cfn_scope *s, const struct val *arg, struct err *err)
{
    const struct val *list, *v;
    struct buf b;

    if (!val_is(arg, VAL_LIST) || arg->n != 2 || arg->items[0].type != VAL_STR)
        return failed(err, "every Fn::Join object requires two parameters, (1) a string delimiter and (2) a list of strings to be "
                      "joined or a function that returns a list of strings (such as Fn::GetAZs) to be joined.");
    list = eval(s, &arg->items[1], err);
    if (!list)
        return NULL;
    if (list->type == VAL_STR && strstr(list->s, CFN_UNKNOWN))
        return list;
    if (list->type != VAL_LIST)
        return failed(err, "every Fn::Join object requires two parameters, (1) a string delimiter and (2) a list of strings to be "
                      "joined or a function that returns a list of strings (such as Fn::GetAZs) to be joined.");
    buf_init(&b, CFN_BYTES_MAX);
    for (uint32_t i = 0; i < list->n; i++) {
        const char *text = cfn_scalar(s->a, &list->items[i]);

        if (!text) {
            buf_done(&b);
            return failed(err, "Fn::Join: every item of the list must be a string");
        }
        if (i)
            buf_adds(&b, arg->items[0].s);
        buf_adds(&b, text);
    }
    v = b.over ? failed(err, "the template expands to more text than is allowed") : text_made(s, b.p ? b.p : "", err);
    buf_done(&b);
    return v;
}

static const struct val *split(struct cfn_scope *s, const struct val *arg, struct err *err)
{
    const struct val *text = val_is(arg, VAL_LIST) && arg->n == 2 ? eval(s, &arg->items[1], err) : NULL;
    const char *by = val_is(arg, VAL_LIST) && arg->n == 2 ? val_text(&arg->items[0], "") : "", *p, *next;
    struct val *list;

    if (!val_is(arg, VAL_LIST) || arg->n != 2 || !*by)
        return failed(err, "every Fn::Split object requires two parameters, (1) a string delimiter and (2) a string to be split or a "
                      "function that returns a string to be split.");
    if (!text)
        return NULL;
    if (!val_is(text, VAL_STR))
        return failed(err, "Fn::Split: the second parameter must be a string");
    list = val_list(s->a);
    for (p = text->s; (next = strstr(p, by)); p = next + strlen(by)) {
        if (++s->nodes > CFN_NODES_MAX)
            return failed(err, "the template expands to too many values");
        val_push(s->a, list, val_strn(s->a, p, (size_t)(next - p)));
    }
    val_push_str(s->a, list, p);
    return list;
}

static const struct val *select_(struct cfn_scope *s, const struct val *arg, struct err *err)
{
    const struct val *index, *list;
    const char *text;
    char *end;
    unsigned long i;

    if (!val_is(arg, VAL_LIST) || arg->n != 2)
        return failed(err, "Fn::Select requires a list argument with two elements: an integer index and a list");
    index = eval(s, &arg->items[0], err);
    list = index ? eval(s, &arg->items[1], err) : NULL;
    if (!list)
        return NULL;
    text = cfn_scalar(s->a, index);
    if (!text || !*text)
        return failed(err, "Fn::Select requires a list argument with two elements: an integer index and a list");
    if (list->type == VAL_STR && strstr(list->s, CFN_UNKNOWN))
        return list;
    i = strtoul(text, &end, 10);
    if (*end || list->type != VAL_LIST)
        return failed(err, "Fn::Select requires a list argument with two elements: an integer index and a list");
    if (i >= list->n) {
        if (list->n == 1 && strstr(val_text(&list->items[0], ""), CFN_UNKNOWN))
            return known_later(s);
        return failed(err, "Fn::Select cannot select nonexistent value at index");
    }
    return &list->items[i];
}

static const struct val *find_in_map(struct cfn_scope *s, const struct val *arg, struct err *err)
{
    const char *key[3] = {0};
    const struct val *v, *otherwise = val_is(arg, VAL_LIST) && arg->n == 4 ? val_get(&arg->items[3], "DefaultValue") : NULL;

    if (!val_is(arg, VAL_LIST) || (arg->n != 3 && !otherwise))
        return failed(err, "every Fn::FindInMap object requires three parameters, the map name, map key and the attribute for "
                      "return value");
    for (int i = 0; i < 3; i++) {
        v = eval(s, &arg->items[i], err);
        if (!v)
            return NULL;
        key[i] = cfn_scalar(s->a, v);
        if (!key[i])
            return failed(err, "Fn::FindInMap: names must be strings");
    }
    v = val_get(val_get(val_get(val_get(s->doc, "Mappings"), key[0]), key[1]), key[2]);
    if (!v && otherwise)
        return eval(s, otherwise, err);
    if (!v) {
        err_set(err, INVALID_ARGUMENT, "Template error: Unable to get mapping for %.80s::%.80s::%.80s", key[0], key[1], key[2]);
        return NULL;
    }
    return v;
}

static const struct val *cidr(struct cfn_scope *s, const struct val *arg, struct err *err)
{
    const struct val *block = val_is(arg, VAL_LIST) && arg->n >= 2 ? eval(s, &arg->items[0], err) : NULL;
    const struct val *count = block ? eval(s, &arg->items[1], err) : NULL, *bits = NULL;
    const char *text = block ? val_text(block, "") : "", *slash = strchr(text, '/');
    struct val *list = val_list(s->a);
    struct in_addr addr;
    unsigned long n, host_bits = 8, prefix;

    if (!val_is(arg, VAL_LIST) || arg->n < 2 || arg->n > 3)
        return failed(err, "every Fn::Cidr object requires two or three parameters: ipBlock, count, cidrBits");
    if (!count || (arg->n == 3 && !(bits = eval(s, &arg->items[2], err))))
        return NULL;
    n = strtoul(cfn_scalar(s->a, count) ? cfn_scalar(s->a, count) : "", NULL, 10);
    if (bits)
        host_bits = strtoul(cfn_scalar(s->a, bits) ? cfn_scalar(s->a, bits) : "", NULL, 10);
    if (!slash || inet_pton(AF_INET, arena_strndup(s->a, text, (size_t)(slash - text)), &addr) != 1)
        return failed(err, "Fn::Cidr: the block must be one of IPv4 (a.b.c.d/n)");
    prefix = strtoul(slash + 1, NULL, 10);
    if (n < 1 || n > 256 || host_bits < 1 || host_bits > 31 || prefix > 32 ||
        (uint64_t)n << host_bits > (uint64_t)1 << (32 - prefix))
        return failed(err, "Fn::Cidr: the block is too small for so many ranges");
    for (unsigned long i = 0; i < n; i++) {
        struct in_addr at = {htonl((ntohl(addr.s_addr) & (uint32_t)(0xffffffffull << (32 - prefix))) + ((uint32_t)i << host_bits))};
        char name[INET_ADDRSTRLEN];

        val_push(s->a, list, val_printf(s->a, "%s/%lu", inet_ntop(AF_INET, &at, name, sizeof name), 32 - host_bits));
    }
    return list;
}

static const struct val *base64(struct cfn_scope *s, const struct val *arg, struct err *err)
{
    const struct val *v = eval(s, arg, err);

    if (!v)
        return NULL;
    if (v->type != VAL_STR)
        return failed(err, "every Fn::Base64 object must have a String-typed value.");
    return text_made(s, b64_encode(s->a, v->s, v->n), err);
}

static const struct val *azs(struct cfn_scope *s, const struct val *arg, struct err *err)
{
    const struct val *region = eval(s, arg, err);
    struct val *list = val_list(s->a);
    const char *name;

    if (!region)
        return NULL;
    name = *val_text(region, "") ? val_text(region, "") : s->region;
    for (const char *c = "abc"; *c; c++)
        val_push(s->a, list, val_printf(s->a, "%s%c", name, *c));
    return list;
}

static const struct val *import(struct cfn_scope *s, const struct val *arg, struct err *err)
{
    const struct val *name = eval(s, arg, err);
    const char *value;

    if (!name)
        return NULL;
    if (strstr(val_text(name, ""), CFN_UNKNOWN))
        return known_later(s);
    value = s->import ? s->import(s->arg, val_text(name, "")) : NULL;
    if (!value) {
        err_set(err, INVALID_ARGUMENT, "No export named %.120s found", val_text(name, ""));
        return NULL;
    }
    return text_made(s, value, err);
}

static const struct val *length(struct cfn_scope *s, const struct val *arg, struct err *err)
{
    const struct val *v = eval(s, arg, err);

    if (!v)
        return NULL;
    return v->type == VAL_LIST ? val_int(s->a, v->n) : failed(err, "Fn::Length only supports lists");
}

static const struct val *to_json(struct cfn_scope *s, const struct val *arg, struct err *err)
{
    const struct val *v = eval(s, arg, err);

    return v ? text_made(s, json_text(s->a, v, NULL), err) : NULL;
}

/* ---- conditions ---- */

static int truth(struct cfn_scope *s, const struct val *v, struct err *err);

static int truth_of(struct cfn_scope *s, const char *fn, const struct val *arg, struct err *err)
{
    if (streq(fn, "Fn::Equals")) {
        const struct val *x, *y;

        if (!val_is(arg, VAL_LIST) || arg->n != 2)
            return err_set(err, INVALID_ARGUMENT, "Template error: every Fn::Equals object requires a list of 2 string parameters.");
        x = eval(s, &arg->items[0], err);
        y = x ? eval(s, &arg->items[1], err) : NULL;
        if (!y)
            return -1;
        if (cfn_scalar(s->a, x) && cfn_scalar(s->a, y))
            return streq(cfn_scalar(s->a, x), cfn_scalar(s->a, y));
        return val_equal(x, y);
    }
    if (streq(fn, "Fn::Not")) {
        int t;

        if (!val_is(arg, VAL_LIST) || arg->n != 1)
            return err_set(err, INVALID_ARGUMENT, "Template error: every Fn::Not object requires one boolean parameter.");
        t = truth(s, &arg->items[0], err);
        return t < 0 ? -1 : !t;
    }
    if (streq(fn, "Fn::And") || streq(fn, "Fn::Or")) {
        bool any = fn[4] == 'O';

        if (!val_is(arg, VAL_LIST) || arg->n < 2 || arg->n > 10)
            return err_set(err, INVALID_ARGUMENT, "Template error: every %s object requires a list of at least 2 and at most 10 "
                           "boolean parameters.", fn);
        VAL_EACH(arg, it)
        {
            int t = truth(s, it, err);

            if (t < 0)
                return -1;
            if (t == any)
                return any;
        }
        return !any;
    }
    return err_set(err, INVALID_ARGUMENT, "Template format error: Conditions can only be boolean operations on parameters and other "
                   "conditions");
}

static int truth(struct cfn_scope *s, const struct val *v, struct err *err)
{
    const struct val *arg, *name = val_is(v, VAL_MAP) && v->n == 1 ? val_get(v, "Condition") : NULL;
    const char *fn;
    int t;

    if (name)
        return cfn_condition(s, val_text(name, ""), err);
    if (val_is(v, VAL_BOOL))
        return v->b;
    if (val_is(v, VAL_STR) && (streq(v->s, "true") || streq(v->s, "false")))
        return v->s[0] == 't';
    fn = cfn_function_of(v, &arg);
    if (!fn || ++s->condition_depth > CFN_DEPTH_MAX)
        return err_set(err, INVALID_ARGUMENT, "Template format error: Conditions can only be boolean operations on parameters and "
                       "other conditions");
    t = truth_of(s, fn, arg, err);
    s->condition_depth--;
    return t;
}

int cfn_condition(struct cfn_scope *s, const char *name, struct err *err)
{
    const struct val *def, *known;
    int t;

    if (!name)
        return 1;
    if (!s->conditions)
        s->conditions = val_map(s->a);
    known = val_get(s->conditions, name);
    if (known && known->type == VAL_NULL)
        return err_set(err, INVALID_ARGUMENT, "Template error: Circular dependency in condition %.100s", name);
    if (known)
        return known->b;
    def = val_get(val_get(s->doc, "Conditions"), name);
    if (!def)
        return err_set(err, INVALID_ARGUMENT, "Template format error: Unresolved condition dependency %.100s in the Resources block "
                       "of the template", name);
    val_put(s->a, s->conditions, name, val_null(s->a)); /* being looked at */
    t = truth(s, def, err);
    if (t >= 0)
        val_put(s->a, s->conditions, name, val_bool(s->a, t));
    return t;
}

static const struct val *if_branch(struct cfn_scope *s, const struct val *arg, struct err *err)
{
    int t;

    if (!val_is(arg, VAL_LIST) || arg->n != 3 || arg->items[0].type != VAL_STR)
        return failed(err, "Fn::If requires a list argument with three elements: a condition name and two values");
    t = cfn_condition(s, arg->items[0].s, err);
    return t < 0 ? NULL : &arg->items[t ? 1 : 2];
}

/* ---- all of it ---- */

static const struct {
    const char *name;
    const struct val *(*run)(struct cfn_scope *, const struct val *, struct err *);
} FUNCTIONS[] = {
    {"Fn::GetAtt", get_att}, {"Fn::Sub", sub}, {"Fn::Join", join}, {"Fn::Split", split}, {"Fn::Select", select_},
    {"Fn::FindInMap", find_in_map}, {"Fn::Cidr", cidr}, {"Fn::Base64", base64}, {"Fn::GetAZs", azs},
    {"Fn::ImportValue", import}, {"Fn::Length", length}, {"Fn::ToJsonString", to_json},
};

static const struct val *call(struct cfn_scope *s, const char *fn, const struct val *arg, struct err *err)
{
    if (streq(fn, "Ref"))
        return val_is(arg, VAL_STR) ? ref(s, arg->s, err)
                                    : failed(err, "Every Ref object must have a single String value.");
    if (streq(fn, "Fn::If")) {
        const struct val *branch = if_branch(s, arg, err);

        return branch ? eval(s, branch, err) : NULL;
    }
    for (size_t i = 0; i < ARRAY_LEN(FUNCTIONS); i++)
        if (streq(fn, FUNCTIONS[i].name))
            return FUNCTIONS[i].run(s, arg, err);
    if (streq(fn, "Fn::Equals") || streq(fn, "Fn::And") || streq(fn, "Fn::Or") || streq(fn, "Fn::Not")) {
        int t = truth_of(s, fn, arg, err);

        return t < 0 ? NULL : val_bool(s->a, t);
    }
    if (streq(fn, "Fn::Transform"))
        return failed(err, "Fn::Transform (AWS::Include and macros) is not supported by tandem");
    err_set(err, INVALID_ARGUMENT, "Template format error: Encountered unsupported function: %.60s", fn);
    return NULL;
}

static const struct val *eval_inner(struct cfn_scope *s, const struct val *v, struct err *err)
{
    const struct val *arg, *part;
    const char *fn = cfn_function_of(v, &arg);
    struct val *out;

    if (fn)
        return call(s, fn, arg, err);
    if (v->type == VAL_LIST) {
        out = val_list(s->a);
        VAL_EACH(v, it)
        {
            part = eval(s, it, err);
            if (!part)
                return NULL;
            if (!is_no_value(part))
                val_push(s->a, out, part);
        }
        return out;
    }
    if (v->type == VAL_MAP) {
        out = val_map(s->a);
        VAL_EACH_MEMBER(v, m)
        {
            part = eval(s, &m->v, err);
            if (!part)
                return NULL;
            if (!is_no_value(part))
                val_putn(s->a, out, m->key, m->n, part);
        }
        return out;
    }
    return v;
}

static const struct val *eval(struct cfn_scope *s, const struct val *v, struct err *err)
{
    const struct val *out;

    if (++s->nodes > CFN_NODES_MAX)
        return failed(err, "the template expands to too many values");
    if (s->depth > 2 * CFN_DEPTH_MAX)
        return failed(err, "the template is nested too deep");
    s->depth++;
    out = eval_inner(s, v, err);
    s->depth--;
    return out;
}

struct val *cfn_eval(struct cfn_scope *s, const struct val *v, struct err *err)
{
    const struct val *out;

    s->nodes = s->depth = s->condition_depth = 0;
    s->bytes = 0;
    out = eval(s, v, err);
    if (!out)
        return NULL;
    return is_no_value(out) ? val_null(s->a) : val_copy(s->a, out);
}

/* ---- what needs what ---- */

static int need(struct cfn_scope *s, const char *name, bool ref, struct val *names, struct err *err)
{
    if (ref && (val_get(val_get(s->doc, "Parameters"), name) || pseudo(s, name)))
        return 0;
    if (!val_get(val_get(s->doc, "Resources"), name))
        return ref ? err_set(err, INVALID_ARGUMENT, "Template format error: Unresolved resource dependencies [%.100s] in the Resources block "
                             "of the template", name)
                   : err_set(err, INVALID_ARGUMENT, "Template error: instance of Fn::GetAtt references undefined resource %.100s", name);
    VAL_EACH(names, it)
        if (streq(it->s, name))
            return 0;
    val_push_str(s->a, names, name);
    return 0;
}

static int needs(struct cfn_scope *s, const struct val *v, struct val *names, struct err *err)
{
    const struct val *arg, *branch;
    const char *fn = cfn_function_of(v, &arg), *at, *from, *name;
    int rc = 0;

    if (++s->nodes > CFN_NODES_MAX || s->depth > 2 * CFN_DEPTH_MAX)
        return err_set(err, INVALID_ARGUMENT, "Template error: the template is too big");
    s->depth++;
    if (fn && streq(fn, "Fn::If")) {
        branch = if_branch(s, arg, err);
        rc = branch ? needs(s, branch, names, err) : -1;
        s->depth--;
        return rc;
    }
    if (fn && streq(fn, "Ref")) {
        rc = need(s, val_text(arg, ""), true, names, err);
    } else if (fn && streq(fn, "Fn::GetAtt")) {
        at = val_is(arg, VAL_LIST) && arg->n ? val_text(&arg->items[0], "") : val_text(arg, "");
        rc = need(s, val_is(arg, VAL_STR) ? arena_strndup(s->a, at, strcspn(at, ".")) : at, false, names, err);
    } else if (fn && streq(fn, "Fn::Sub")) {
        const struct val *own = val_is(arg, VAL_LIST) && arg->n == 2 ? &arg->items[1] : NULL;

        at = val_is(arg, VAL_LIST) && arg->n ? val_text(&arg->items[0], "") : val_text(arg, "");
        while (cfn_sub_next(s->a, &at, &from, &name))
            if (rc == 0 && !val_get(own, name))
                rc = need(s, arena_strndup(s->a, name, strcspn(name, ".")), !strchr(name, '.'), names, err);
        arg = own;
    }
    if (rc == 0 && fn && arg && !streq(fn, "Ref"))
        rc = needs(s, arg, names, err);
    else if (!fn) {
        VAL_EACH(v, it)
            if (rc == 0)
                rc = needs(s, it, names, err);
        VAL_EACH_MEMBER(v, m)
            if (rc == 0)
                rc = needs(s, &m->v, names, err);
    }
    s->depth--;
    return rc;
}

int cfn_needs(struct cfn_scope *s, const struct val *v, struct val *names, struct err *err)
{
    s->nodes = s->depth = s->condition_depth = 0;
    return needs(s, v, names, err);
}
