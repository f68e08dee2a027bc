/* auth/policy.c - statements and verdicts; see policy.h. */
#include "auth/policy_int.h"

#include <ctype.h>
#include <strings.h>

#include "codec/json.h"

enum { STATEMENTS_MAX = 1000 };

/* ---- is it well-formed? ---- */

static int syntax(struct err *err)
{
    return err_set(err, INVALID, "Syntax errors in policy.");
}

size_t policy_bytes(const char *text)
{
    size_t n = 0;

    for (; *text; text++)
        n += !strchr(" \t\r\n", *text);
    return n;
}

/* A text or a list of texts that is not empty. */
static bool is_texts(const struct val *v)
{
    if (!v || (v->type != VAL_STR && (v->type != VAL_LIST || !v->n)))
        return false;
    VAL_EACH(v, it)
        if (it->type != VAL_STR)
            return false;
    return true;
}

/* The i-th text of a text or list; NULL: none. */
static const char *text_at(const struct val *v, uint32_t i)
{
    if (val_is(v, VAL_LIST))
        return i < v->n ? val_text(&v->items[i], "") : NULL;
    return i == 0 ? val_text(v, NULL) : NULL;
}

static int check_actions(const struct val *v, enum policy_kind kind, struct err *err)
{
    const char *s;

    if (!is_texts(v))
        return syntax(err);
    for (uint32_t i = 0; (s = text_at(v, i)); i++) {
        const char *colon = strchr(s, ':');

        if (kind == POLICY_TRUST && (!colon || strncasecmp(s, "sts:", 4) != 0))
            return err_set(err, INVALID, "AssumeRole policy may only specify STS AssumeRole actions.");
        if (streq(s, "*"))
            continue;
        if (!colon || colon == s || !colon[1])
            return err_set(err, INVALID, "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.");
        if (strchr(colon + 1, ':'))
            return err_set(err, INVALID, "Actions/Condition can contain only one colon.");
        for (const char *p = s; p < colon; p++)
            if (!isalnum((unsigned char)*p) && *p != '-')
                return err_set(err, INVALID, "Vendor %.*s is not valid", (int)MIN(colon - s, (ptrdiff_t)64), s);
    }
    return 0;
}

static int check_resources(const struct val *v, struct err *err)
{
    const char *s;

    if (!is_texts(v))
        return syntax(err);
    for (uint32_t i = 0; (s = text_at(v, i)); i++)
        if (!streq(s, "*") && !str_starts(s, "arn:"))
            return err_set(err, INVALID, "Resource %.200s must be in ARN format or \"*\".", s);
    return 0;
}

static bool is_account(const char *s)
{
    return strlen(s) == 12 && strspn(s, "0123456789") == 12;
}

static int check_principals(const struct val *v, struct err *err)
{
    const char *s;

    if (v->type == VAL_STR)
        return streq(v->s, "*") ? 0 : err_set(err, INVALID, "Invalid principal in policy: \"%.100s\"", v->s);
    if (v->type != VAL_MAP || !v->n)
        return syntax(err);
    VAL_EACH_MEMBER(v, m)
    {
        if (!streq(m->key, "AWS") && !streq(m->key, "Service") && !streq(m->key, "Federated") &&
            !streq(m->key, "CanonicalUser"))
            return syntax(err);
        if (!is_texts(&m->v))
            return syntax(err);
        for (uint32_t i = 0; streq(m->key, "AWS") && (s = text_at(&m->v, i)); i++)
            if (!streq(s, "*") && !is_account(s) && (!str_starts(s, "arn:") || strpbrk(s, "*?")))
                return err_set(err, INVALID, "Invalid principal in policy: \"AWS\":\"%.100s\"", s);
    }
    return 0;
}

/* Exactly one of the two. *ret: that one, NULL when there is none. */
static bool one_of(const struct val *s, const char *a, const char *b, const struct val **ret)
{
    const struct val *x = val_get(s, a), *y = val_get(s, b);

    *ret = x ? x : y;
    return !x || !y;
}

static int check_statement(const struct val *s, enum policy_kind kind, struct err *err)
{
    static const char *const KNOWN[] = {"Sid", "Effect", "Action", "NotAction", "Resource", "NotResource", "Principal",
                                        "NotPrincipal", "Condition"};
    const char *effect = val_str_at(s, "Effect", "");
    const struct val *sid = val_get(s, "Sid"), *v;

    if (!val_is(s, VAL_MAP))
        return syntax(err);
    VAL_EACH_MEMBER(s, m)
    {
        bool known = false;

        for (size_t i = 0; i < ARRAY_LEN(KNOWN); i++)
            known |= streq(KNOWN[i], m->key);
        if (!known)
            return syntax(err);
    }
    if (sid && sid->type != VAL_STR)
        return syntax(err);
    for (const char *p = sid && kind == POLICY_IDENTITY ? sid->s : ""; *p; p++)
        if (!isalnum((unsigned char)*p))
            return err_set(err, INVALID, "Statement IDs (SID) must be alpha-numeric. Check that your input satisfies the "
                           "regular expression [0-9A-Za-z]*");
    if (!streq(effect, "Allow") && !streq(effect, "Deny"))
        return syntax(err);
    if (!one_of(s, "Action", "NotAction", &v))
        return syntax(err);
    if (!v)
        return err_set(err, INVALID, "Policy statement must contain actions.");
    if (check_actions(v, kind, err) < 0 || (!one_of(s, "Resource", "NotResource", &v) && syntax(err) < 0))
        return -1;
    if (kind == POLICY_TRUST && v)
        return err_set(err, INVALID, "Has prohibited field Resource");
    if (kind != POLICY_TRUST && !v)
        return err_set(err, INVALID, "Policy statement must contain resources.");
    if (v && check_resources(v, err) < 0)
        return -1;
    if (!one_of(s, "Principal", "NotPrincipal", &v))
        return syntax(err);
    if (kind == POLICY_IDENTITY && v)
        return err_set(err, INVALID, "Policy document should not specify a principal.");
    if (kind != POLICY_IDENTITY && !v)
        return err_set(err, INVALID, "Missing required field Principal");
    if (v && check_principals(v, err) < 0)
        return -1;
    v = val_get(s, "Condition");
    return v ? cond_check(v, err) : 0;
}

static int check_ids(const struct val *list, struct err *err)
{
    for (uint32_t i = 0; i < val_len(list); i++) {
        const char *sid = val_str_at(&list->items[i], "Sid", "");

        for (uint32_t k = 0; *sid && k < i; k++)
            if (streq(val_str_at(&list->items[k], "Sid", ""), sid))
                return err_set(err, INVALID, "Statement IDs (SID) in a single policy must be unique.");
    }
    return 0;
}

int policy_check(const struct val *doc, enum policy_kind kind, struct err *err)
{
    const struct val *version = val_get(doc, "Version"), *list = val_get(doc, "Statement");

    if (!val_is(doc, VAL_MAP))
        return syntax(err);
    VAL_EACH_MEMBER(doc, m)
        if (!streq(m->key, "Version") && !streq(m->key, "Id") && !streq(m->key, "Statement"))
            return syntax(err);
    if (version && !streq(val_text(version, ""), "2012-10-17") && !streq(val_text(version, ""), "2008-10-17"))
        return syntax(err);
    if (val_is(list, VAL_MAP))
        return check_statement(list, kind, err);
    if (!val_is(list, VAL_LIST) || !list->n || list->n > STATEMENTS_MAX)
        return syntax(err);
    VAL_EACH(list, it)
        if (check_statement(it, kind, err) < 0)
            return -1;
    return check_ids(list, err);
}

const struct val *policy_read(struct arena *a, const struct val *doc, enum policy_kind kind, struct err *err)
{
    struct err why;

    if (val_is(doc, VAL_STR)) {
        if (doc->n > POLICY_BYTES_MAX) {
            err_set(err, INVALID, "the document has more than %d bytes", POLICY_BYTES_MAX);
            return NULL;
        }
        doc = json_parse(a, doc->s, doc->n, &why);
        if (!doc) {
            err_set(err, INVALID, "This policy contains invalid Json");
            return NULL;
        }
    }
    return policy_check(doc, kind, err) < 0 ? NULL : doc;
}

/* ---- principals ---- */

enum named { NOT_NAMED, BY_ACCOUNT, BY_ROLE, BY_HIMSELF };

static enum named named_aws(const char *s, const struct policy_who *who)
{
    const char *tail;

    if (streq(s, "*"))
        return BY_HIMSELF;
    if (who->service || who->federated || !who->account)
        return NOT_NAMED;
    if (who->arn && streq(s, who->arn))
        return BY_HIMSELF;
    if (who->role && streq(s, who->role))
        return BY_ROLE;
    tail = is_account(s) ? s : str_starts(s, "arn:aws:iam::") && str_ends(s, ":root") ? s + 13 : NULL;
    if (tail && strncmp(tail, who->account, 12) == 0 && (is_account(s) || streq(tail + 12, ":root")))
        return who->root ? BY_HIMSELF : BY_ACCOUNT;
    return NOT_NAMED;
}

static enum named named(const struct val *v, const struct policy_who *who)
{
    enum named best = NOT_NAMED, one;
    const char *s;

    if (!who)
        return NOT_NAMED;
    if (val_is(v, VAL_STR))
        return streq(v->s, "*") ? BY_HIMSELF : NOT_NAMED;
    VAL_EACH_MEMBER(v, m)
    for (uint32_t i = 0; (s = text_at(&m->v, i)); i++) {
        if (streq(m->key, "AWS"))
            one = named_aws(s, who);
        else if (streq(m->key, "Service"))
            one = who->service && strcasecmp(s, who->service) == 0 ? BY_HIMSELF : NOT_NAMED;
        else if (streq(m->key, "Federated"))
            one = who->federated && streq(s, who->federated) ? BY_HIMSELF : NOT_NAMED;
        else
            one = NOT_NAMED;
        best = MAX(best, one);
    }
    return best;
}

/* ---- one statement ---- */

static bool action_in(const struct val *list, const char *low, const struct policy_ask *ask)
{
    struct match m;
    const char *s;

    for (uint32_t i = 0; (s = text_at(list, i)); i++)
        if (match_make(ask, s, MATCH_WILD | MATCH_FOLD, &m) && match_text(&m, low, strlen(low)))
            return true;
    return false;
}

static bool resource_in(const struct val *list, bool vars, const struct policy_ask *ask)
{
    struct match m;
    const char *s;

    for (uint32_t i = 0; (s = text_at(list, i)); i++)
        if (match_make(ask, s, MATCH_WILD | (vars ? MATCH_VARS : 0), &m) && match_arn(&m, ask->resource))
            return true;
    return false;
}

static enum policy_says statement_says(const struct val *s, enum policy_kind kind, bool vars, const char *action,
                                       const struct policy_ask *ask)
{
    const struct val *v = val_get(s, "Action"), *not = val_get(s, "NotAction");
    bool deny = streq(val_str_at(s, "Effect", ""), "Deny");
    enum named by = BY_HIMSELF;

    if (v ? !action_in(v, action, ask) : action_in(not, action, ask))
        return POLICY_SAYS_NOTHING;
    v = val_get(s, "Resource");
    not = val_get(s, "NotResource");
    if (v ? !resource_in(v, vars, ask) : not && resource_in(not, vars, ask))
        return POLICY_SAYS_NOTHING;
    if (kind != POLICY_IDENTITY) {
        v = val_get(s, "Principal");
        by = v ? named(v, ask->who) : named(val_get(s, "NotPrincipal"), ask->who) ? NOT_NAMED : BY_HIMSELF;
    }
    if (by == NOT_NAMED || !cond_holds(val_get(s, "Condition"), vars, ask))
        return POLICY_SAYS_NOTHING;
    if (deny)
        return POLICY_SAYS_DENY;
    return by == BY_ACCOUNT ? POLICY_SAYS_ACCOUNT : by == BY_ROLE ? POLICY_SAYS_ROLE : POLICY_SAYS_ALLOW;
}

enum policy_says policy_says(const struct val *doc, enum policy_kind kind, const struct policy_ask *ask)
{
    const struct val *list = val_get(doc, "Statement");
    bool vars = streq(val_str_at(doc, "Version", ""), "2012-10-17");
    const char *action = match_lower(ask->arena, ask->action);
    enum policy_says best = POLICY_SAYS_NOTHING, one;

    if (val_is(list, VAL_MAP))
        return statement_says(list, kind, vars, action, ask);
    VAL_EACH(list, it)
    {
        one = statement_says(it, kind, vars, action, ask);
        best = MAX(best, one); /* they stand in the order of their weight, Deny last */
    }
    return best;
}

/* ---- all of them ---- */

static enum policy_says docs_say(const struct policy_docs *docs, const struct policy_ask *ask)
{
    enum policy_says best = POLICY_SAYS_NOTHING, one;

    for (uint32_t i = 0; i < docs->n; i++) {
        one = policy_says(docs->v[i], POLICY_IDENTITY, ask);
        best = MAX(best, one);
    }
    return best;
}

enum policy_verdict policy_decide(const struct policy_set *set, const struct policy_ask *ask)
{
    enum policy_says resource = set->resource ? policy_says(set->resource, set->resource_kind, ask) : POLICY_SAYS_NOTHING;
    enum policy_says identity = set->root ? POLICY_SAYS_ALLOW : docs_say(&set->identity, ask);
    enum policy_says boundary = set->has_boundary ? docs_say(&set->boundary, ask) : POLICY_SAYS_ALLOW;
    enum policy_says session = set->has_session ? docs_say(&set->session, ask) : POLICY_SAYS_ALLOW;

    if (resource == POLICY_SAYS_DENY)
        return POLICY_DENY_RESOURCE;
    if (identity == POLICY_SAYS_DENY)
        return POLICY_DENY_IDENTITY;
    if (boundary == POLICY_SAYS_DENY)
        return POLICY_DENY_BOUNDARY;
    if (session == POLICY_SAYS_DENY)
        return POLICY_DENY_SESSION;
    if (set->resource_must && resource == POLICY_SAYS_NOTHING)
        return POLICY_NO_RESOURCE;
    if (resource == POLICY_SAYS_ALLOW)
        return POLICY_ALLOWED;
    if (identity == POLICY_SAYS_NOTHING && resource != POLICY_SAYS_ROLE)
        return POLICY_NO_IDENTITY;
    if (boundary == POLICY_SAYS_NOTHING)
        return POLICY_NO_BOUNDARY;
    return session == POLICY_SAYS_NOTHING ? POLICY_NO_SESSION : POLICY_ALLOWED;
}

char *policy_why(struct arena *a, enum policy_verdict verdict, enum policy_kind resource_kind, const char *action)
{
    bool trust = resource_kind == POLICY_TRUST;

    switch (verdict) {
    case POLICY_DENY_IDENTITY: return arena_strdup(a, "with an explicit deny in an identity-based policy");
    case POLICY_DENY_BOUNDARY: return arena_strdup(a, "with an explicit deny in a permissions boundary");
    case POLICY_DENY_SESSION: return arena_strdup(a, "with an explicit deny in a session policy");
    case POLICY_DENY_RESOURCE:
        return arena_strdup(a, trust ? "with an explicit deny in the role trust policy"
                                     : "with an explicit deny in a resource-based policy");
    case POLICY_NO_IDENTITY: return arena_printf(a, "because no identity-based policy allows the %s action", action);
    case POLICY_NO_BOUNDARY: return arena_printf(a, "because no permissions boundary allows the %s action", action);
    case POLICY_NO_SESSION: return arena_printf(a, "because no session policy allows the %s action", action);
    case POLICY_NO_RESOURCE:
        return arena_printf(a, "because no %s policy allows the %s action", trust ? "role trust" : "resource-based", action);
    case POLICY_ALLOWED: break;
    }
    return arena_strdup(a, "");
}
