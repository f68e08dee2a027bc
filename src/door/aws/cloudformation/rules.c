/* door/aws/cloudformation/rules.c - Rules of a template: assertions about its parameters, asked before anything is made.
 *
 * A parameter of an SSM type is not known when a change set is made: an assertion that needs it is asked when the stack is. */
#include "door/aws/cloudformation/cfn_int.h"

enum { NO, YES, LATER, WRONG = -1 };
enum { PAIRS_MAX = 100000 }; /* members of one list that a function looks for in another */

static int truth(struct cfn_scope *s, const struct val *v, int depth, struct err *err);

static bool unknown(const struct val *v)
{
    if (val_is(v, VAL_STR))
        return strstr(v->s, CFN_UNKNOWN) != NULL;
    VAL_EACH(v, it)
        if (unknown(it))
            return true;
    return false;
}

static bool same(struct cfn_scope *s, const struct val *x, const struct val *y)
{
    const char *tx, *ty;

    if (x->type == y->type)
        return val_equal(x, y);
    tx = cfn_scalar(s->a, x);
    ty = tx ? cfn_scalar(s->a, y) : NULL;
    return tx && ty && streq(tx, ty);
}

static bool is_in(struct cfn_scope *s, const struct val *list, const struct val *v)
{
    VAL_EACH(list, it)
        if (same(s, it, v))
            return true;
    return false;
}

/* Functions of two values, the first of them a list (Fn::Equals apart). */
static int compare(struct cfn_scope *s, const char *fn, const struct val *arg, struct err *err)
{
    const struct val *x = val_is(arg, VAL_LIST) && arg->n == 2 ? cfn_eval(s, &arg->items[0], err) : NULL, *y;

    if (!val_is(arg, VAL_LIST) || arg->n != 2)
        return err_set(err, INVALID_ARGUMENT, "Template error: every %.40s object requires a list of 2 parameters.", fn);
    y = x ? cfn_eval(s, &arg->items[1], err) : NULL;
    if (!y)
        return WRONG;
    if (unknown(x) || unknown(y))
        return LATER;
    if (streq(fn, "Fn::Equals"))
        return same(s, x, y);
    if (!val_is(x, VAL_LIST) || (streq(fn, "Fn::EachMemberIn") && !val_is(y, VAL_LIST)))
        return err_set(err, INVALID_ARGUMENT, "Template error: %.40s requires a list of strings", fn);
    if (streq(fn, "Fn::EachMemberIn") && (size_t)x->n * y->n > PAIRS_MAX)
        return err_set(err, INVALID_ARGUMENT, "Template error: the lists of %.40s are too long", fn);
    if (streq(fn, "Fn::Contains"))
        return is_in(s, x, y);
    VAL_EACH(x, it)
        if (streq(fn, "Fn::EachMemberEquals") ? !same(s, it, y) : !is_in(s, y, it))
            return NO;
    return YES;
}

static int combine(struct cfn_scope *s, const char *fn, const struct val *arg, int depth, struct err *err)
{
    bool any = streq(fn, "Fn::Or"), later = false;

    if (!val_len(arg))
        return err_set(err, INVALID_ARGUMENT, "Template error: every %.40s object requires a list of conditions.", fn);
    VAL_EACH(arg, it)
    {
        int t = truth(s, it, depth + 1, err);

        if (t == WRONG || t == (any ? YES : NO))
            return t;
        later |= t == LATER;
    }
    return later ? LATER : any ? NO : YES;
}

static int truth(struct cfn_scope *s, const struct val *v, int depth, struct err *err)
{
    static const char *const TWO[] = {"Fn::Equals", "Fn::Contains", "Fn::EachMemberEquals", "Fn::EachMemberIn"};
    const struct val *arg;
    const char *fn = cfn_function_of(v, &arg);
    int t;

    if (!fn || depth > CFN_DEPTH_MAX)
        return err_set(err, INVALID_ARGUMENT, "Template format error: conditions and assertions of Rules are rule-specific functions");
    for (size_t i = 0; i < ARRAY_LEN(TWO); i++)
        if (streq(fn, TWO[i]))
            return compare(s, fn, arg, err);
    if (streq(fn, "Fn::And") || streq(fn, "Fn::Or"))
        return combine(s, fn, arg, depth, err);
    if (streq(fn, "Fn::Not")) {
        t = val_is(arg, VAL_LIST) && arg->n == 1 ? truth(s, &arg->items[0], depth + 1, err)
                                                 : err_set(err, INVALID_ARGUMENT, "Template error: every Fn::Not object requires one parameter.");
        return t == YES ? NO : t == NO ? YES : t;
    }
    return err_set(err, INVALID_ARGUMENT, "Template error: tandem has no %.40s in Rules: there are no parameters of AWS-specific types", fn);
}

int cfn_rules(struct cfn_scope *s, struct err *err)
{
    VAL_EACH_MEMBER(val_get(s->doc, "Rules"), rule)
    {
        const struct val *when = val_get(&rule->v, "RuleCondition");
        int t = when ? truth(s, when, 0, err) : YES;

        if (t == WRONG)
            return -1;
        if (t != YES)
            continue;
        VAL_EACH(val_get(&rule->v, "Assertions"), it)
        {
            t = truth(s, val_get(it, "Assert"), 0, err);
            if (t == WRONG)
                return -1;
            if (t == NO)
                return err_set(err, INVALID_ARGUMENT, "Template validation error: Rule %.80s: %.140s", rule->key,
                               val_str_at(it, "AssertDescription", "its assertion does not hold"));
        }
    }
    return 0;
}
