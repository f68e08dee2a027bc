/* apiserver/policies_run.c - the plugins ValidatingAdmissionPolicy and MutatingAdmissionPolicy.
 *
 * Each policy that matches is evaluated for each of its bindings that match, for each parameter object.
 * Validating: what is false is denied, warned about or noted for the audit, as the binding says; the first
 * denial is the answer. Mutating: each mutation sees what the one before left; a change makes the chain
 * run once more, and then those policies again that want it (reinvocationPolicy IfNeeded). */
#include "apiserver/policies.h"

#include "apiserver/fieldset.h"
#include "codec/json.h"
#include "schema/patch.h"

enum { ANNOTATION_MAX = 10 * 1024 };

/* ---------------------------------------------------------------- both */

static char *trimmed(struct arena *a, const char *s, size_t n)
{
    while (n && strchr(" \t\r\n\v\f", *s))
        s++, n--;
    while (n && strchr(" \t\r\n\v\f", s[n - 1]))
        n--;
    return arena_strndup(a, s, n);
}

/* The object in the version that the policy sees; -1: the Status, or the wait, is in the call. */
static int seen_as(struct call *c, struct admission *ad, const struct admission_as *as,
                   const struct val **object, const struct val **old)
{
    *object = admission_convert(c, ad, as, ad->v);
    *old = admission_convert(c, ad, as, ad->old);
    return (ad->v && !*object) || (ad->old && !*old) ? -1 : 0;
}

/* ---------------------------------------------------------------- validating */

struct denial {
    const struct policy *p;
    const struct policy_binding *b; /* NULL: the policy itself is wrong */
    const char *message, *reason;
};
struct judging {
    struct call *c;
    struct admission *ad;
    struct denial first; /* p NULL: nothing is denied */
};

static void deny(struct judging *j, const struct policy *p, const struct policy_binding *b, const char *message,
                 const char *reason)
{
    if (!j->first.p)
        j->first = (struct denial){p, b, message, reason};
}

static void wrong(struct judging *j, const struct policy *p, const struct policy_binding *b, const char *why)
{
    if (!p->ignore)
        deny(j, p, b, arena_printf(j->c->a, "failed to configure %s: %s", b ? "binding" : "policy", why), "");
}

static int code_of(const char *reason)
{
    return streq(reason, "Unauthorized")            ? 401
           : streq(reason, "Forbidden")             ? 403
           : streq(reason, "RequestEntityTooLarge") ? 413
                                                    : 422;
}

static int refuse(struct judging *j)
{
    struct call *c = j->c;
    const struct denial *d = &j->first;
    const char *reason = *d->reason ? d->reason : "Invalid", *text;
    struct val *s, *cause = val_map(c->a);

    text = d->b ? arena_printf(c->a, "ValidatingAdmissionPolicy '%s' with binding '%s' denied request: %s",
                               d->p->o->name, d->b->o->name, d->message)
                : arena_printf(c->a, "ValidatingAdmissionPolicy '%s' denied request: %s", d->p->o->name, d->message);
    fail_forbidden(c, j->ad->name, "%s", text);
    s = val_copy(c->a, c->resp.val);
    val_put_str(c->a, s, "reason", reason);
    val_put_int(c->a, s, "code", code_of(reason));
    val_put_str(c->a, cause, "message", text);
    val_push(c->a, val_need_list(c->a, val_need_map(c->a, s, "details"), "causes"), cause);
    return fail_status(c, s);
}

/* What a binding does with a validation that is not true. */
static void act(struct judging *j, const struct policy *p, const struct policy_binding *b, uint32_t index,
                const char *message, const char *reason)
{
    struct call *c = j->c;
    const struct val *actions = val_get(b->spec, "validationActions");

    VAL_EACH(actions, it) {
        const char *action = val_text(it, "");

        if (streq(action, "Deny")) {
            deny(j, p, b, message, reason);
        } else if (streq(action, "Warn")) {
            texts_add(&c->warnings, "Validation failed for ValidatingAdmissionPolicy '%s' with binding '%s': %s",
                      p->o->name, b->o->name, message);
        } else if (streq(action, "Audit")) {
            struct val *list = val_list(c->a), *v = val_map(c->a);
            struct buf text = {.max = 1 << 20};

            val_put_str(c->a, v, "message", message);
            val_put_str(c->a, v, "policy", p->o->name);
            val_put_str(c->a, v, "binding", b->o->name);
            val_put_int(c->a, v, "expressionIndex", index);
            val_put(c->a, v, "validationActions", actions);
            val_push(c->a, list, v);
            json_write(&text, list);
            call_annotate(c, "validation.policy.admission.k8s.io/validation_failure", text.n ? text.p : "");
            buf_done(&text);
        }
    }
}

/* The text of a validation that is false: what its messageExpression says, its message, or the expression. */
static const char *message_of(struct judging *j, const struct policy *p, uint32_t i, const char *computed)
{
    const struct val *v = &val_get(p->spec, "validations")->items[i];
    const char *plain = val_str_at(v, "message", ""), *text = val_str_at(v, "expression", "");

    if (computed && *computed && strlen(computed) <= EXPR_MESSAGE_MAX && !strchr(computed, '\n'))
        return computed;
    if (*plain)
        return trimmed(j->c->a, plain, strlen(plain));
    return arena_printf(j->c->a, "failed expression: %s", trimmed(j->c->a, text, strlen(text)));
}

struct verdicts {
    bool *holds;
    const char **why;      /* NULL: it could be evaluated */
    const char **computed; /* of the message expressions; NULL: none */
};

/* -1: no budget was left, nothing counts but *ret_why. */
static int evaluate(struct judging *j, const struct policy *p, struct expr_run *r, struct verdicts *v,
                    const char **ret_why)
{
    struct arena *a = j->c->a;
    uint64_t left;
    bool over = false;

    v->holds = arena_array(a, bool, p->validations_n + 1);
    v->why = arena_array(a, const char *, p->validations_n + 1);
    v->computed = arena_array(a, const char *, p->validations_n + 1);
    expr_run_budget(r, EXPR_BUDGET);
    for (uint32_t i = 0; i < p->validations_n; i++) {
        struct cel_value x;
        int done = expr_eval(r, p->validations[i].e, &x, &v->why[i]);

        if (done == -2) {
            *ret_why = v->why[i];
            return -1;
        }
        v->holds[i] = done == 0 && x.b;
        if (done == 0)
            v->why[i] = NULL;
    }
    left = expr_run_left(r);
    expr_run_budget(r, left);
    for (uint32_t i = 0; i < p->validations_n; i++) {
        struct cel_value x;
        const char *why;
        int done;

        if (v->holds[i] || v->why[i] || !p->validations[i].message)
            continue; /* nobody will read it */
        done = over ? -2 : expr_eval(r, p->validations[i].message, &x, &why);
        if (done == -2) {
            over = true;
            v->why[i] = arena_printf(a, "failed messageExpression: %s", why);
        } else if (done == 0 && x.kind == CEL_STRING) {
            v->computed[i] = trimmed(a, x.s, x.n);
        }
    }
    return 0;
}

struct notes { /* audit annotations of one policy, over all its bindings */
    struct val *map; /* key -> list of texts */
};

static void annotate(struct judging *j, const struct policy *p, const struct policy_binding *b,
                     struct expr_run *r, struct notes *notes)
{
    struct arena *a = j->c->a;

    expr_run_budget(r, EXPR_BUDGET);
    for (uint32_t i = 0; i < p->annotations_n; i++) {
        const struct expr *e = p->annotations[i];
        struct cel_value x;
        const char *why, *text;
        int done = expr_eval(r, e, &x, &why);
        struct val *list;
        bool there = false;

        if (done < 0) {
            if (!p->ignore)
                deny(j, p, b, why, "");
            if (done == -2)
                return;
            continue;
        }
        if (x.kind != CEL_STRING)
            continue;
        text = trimmed(a, x.s, MIN(x.n, (uint32_t)ANNOTATION_MAX));
        list = val_need_list(a, notes->map, e->name);
        VAL_EACH(list, it)
            there |= streq(val_text(it, ""), text);
        if (*text && !there)
            val_push_str(a, list, text);
    }
}

static void publish(struct judging *j, const struct policy *p, const struct notes *notes)
{
    VAL_EACH_MEMBER(notes->map, m) {
        struct buf b = {.max = 1 << 20};

        VAL_EACH(&m->v, it)
            buf_printf(&b, "%s%s", b.n ? ", " : "", val_text(it, ""));
        if (b.n)
            call_annotate(j->c, arena_printf(j->c->a, "%s/%s", p->o->name, m->key), b.p);
        buf_done(&b);
    }
}

static void judge_one(struct judging *j, struct policy *p, const struct policy_binding *b,
                      struct expr_run *r, struct notes *notes)
{
    struct verdicts v;
    const char *why;
    int match = exprs_match(r, p->conditions, p->conditions_n, p->ignore, &why);

    if (match == 0)
        return;
    if (match < 0 || evaluate(j, p, r, &v, &why) < 0) {
        if (!p->ignore)
            act(j, p, b, 0, why, "");
        return;
    }
    for (uint32_t i = 0; i < p->validations_n; i++) {
        if (v.why[i]) {
            if (!p->ignore)
                act(j, p, b, i, v.why[i], "");
        } else if (!v.holds[i]) {
            act(j, p, b, i, message_of(j, p, i, v.computed[i]),
                val_str_at(&val_get(p->spec, "validations")->items[i], "reason", "Invalid"));
        }
    }
    annotate(j, p, b, r, notes);
}

/* One policy over all its bindings. -1: the call ends or waits. */
static int judge_policy(struct judging *j, struct policy *p, const struct admission_as *as)
{
    struct call *c = j->c;
    struct notes notes = {.map = val_map(c->a)};
    const struct val *object = NULL, *old = NULL;
    bool seen = false;

    for (uint32_t i = 0; i < p->bindings_n; i++) {
        const struct policy_binding *b = &p->bindings[i];
        const struct val **params;
        struct admission_as ignored;
        const char *why;
        uint32_t n;
        int in = policy_match(c, j->ad, val_get(b->spec, "matchResources"), &ignored, &why);

        if (in == 0)
            continue;
        if (in < 0 || (in = policy_params(c, p, b, &params, &n, &why)) < 0) {
            wrong(j, p, in == -2 ? NULL : b, why);
            continue;
        }
        if (!seen && seen_as(c, j->ad, as, &object, &old) < 0)
            return -1;
        seen = true;
        policy_compile(c, POLICY_VALIDATING, p);
        for (uint32_t k = 0; k < n; k++)
            judge_one(j, p, b, expr_run_new(p->x, c, j->ad, as, object, old, params[k]), &notes);
    }
    publish(j, p, &notes);
    return 0;
}

int policies_validate(struct call *c, struct admission *ad)
{
    struct judging j = {.c = c, .ad = ad};
    struct policy *v;
    uint32_t n = policies_of(c, POLICY_VALIDATING, &v);

    for (uint32_t i = 0; i < n; i++) {
        struct admission_as as;
        const char *why;
        int match = policy_match(c, ad, val_get(v[i].spec, "matchConstraints"), &as, &why);

        if (match < 0)
            wrong(&j, &v[i], NULL, why);
        else if (match && judge_policy(&j, &v[i], &as) < 0)
            return -1;
    }
    return j.first.p ? refuse(&j) : 0;
}

/* ---------------------------------------------------------------- mutating */

/* One policy with one binding and one parameter object, that was or is to be evaluated. */
struct turn {
    struct turn *next;
    const char *key;
    bool done, again; /* may be asked again; is to be */
};
struct turns { /* ad->policies: between the two rounds */
    struct turn *all;
    const struct val *last; /* what the first round ended with */
};
struct mutating {
    struct call *c;
    struct admission *ad;
    struct turns *turns;
    struct texts bad; /* what was wrong, where the failure policy says that it counts */
};

static void all_again(struct turns *t)
{
    for (struct turn *x = t->all; x; x = x->next) {
        x->again |= x->done;
        x->done = false;
    }
}

static struct turn *turn_of(struct mutating *m, const struct policy *p, const struct policy_binding *b,
                            const struct val *param)
{
    const char *key = arena_printf(m->c->a, "%s\n%s\n%s\n%s", p->o->name, b->o->name,
                                   val_str_at(param, "metadata.namespace", ""), val_str_at(param, "metadata.name", ""));
    struct turn *t = m->turns->all;

    while (t && !streq(t->key, key))
        t = t->next;
    if (t)
        return t;
    t = arena_new_of(m->c->a, struct turn);
    t->key = key;
    t->next = m->turns->all;
    m->turns->all = t;
    return t;
}

static void gone_wrong(struct mutating *m, const struct policy *p, const struct policy_binding *b, const char *why)
{
    if (p->ignore)
        return;
    if (b)
        texts_add(&m->bad, "policy '%s' with binding '%s' denied request: %s", p->o->name, b->o->name, why);
    else
        texts_add(&m->bad, "policy \"%s\" denied request: %s", p->o->name, why);
}

static const struct type *type_of(const struct admission *ad, const struct admission_as *as)
{
    const struct subresource *sub = *ad->sub ? schema_sub(as->r, ad->sub) : NULL;

    return ad->in || !sub ? resource_type(as->r) : resource_sub_type(as->r, sub);
}

/* Atomic lists, maps and structs may not be set: whoever sets one would unset all that he does not name. */
static void find_atomics(struct arena *a, const struct type *t, const struct val *v, const char *path,
                         struct texts *ret)
{
    uint32_t i = 0;

    if (!t || !(val_is(v, VAL_MAP) || val_is(v, VAL_LIST)) || t->kind < TYPE_LIST)
        return;
    if (t->topology == TOPO_ATOMIC)
        texts_add(ret, "%s", path);
    VAL_EACH_MEMBER(v, m) {
        const struct field *f = t->kind == TYPE_STRUCT ? type_field(t, m->key, m->n) : NULL;

        if (f)
            find_atomics(a, f->type, &m->v, arena_printf(a, "%s.%s", path, m->key), ret);
    }
    VAL_EACH(v, it)
        find_atomics(a, t->elem, it, arena_printf(a, "%s[%u]", path, i++), ret);
}

static const char *joined(struct arena *a, const struct texts *t)
{
    struct buf b = {.max = 1 << 14};
    char *text;

    for (uint32_t i = 0; i < t->n; i++)
        buf_printf(&b, "%s%s", i ? ", " : "", t->v[i]);
    text = arena_strdup(a, b.n ? b.p : "");
    buf_done(&b);
    return text;
}

/* The list of operations that a JSONPatch expression gave, as a patch. */
static struct val *patch_of(struct call *c, const struct cel_value *x, struct err *err)
{
    struct val *list;

    if (cel_to_val(c->a, *x, &list, err) < 0)
        return NULL;
    VAL_EACH(list, op)
        if (!*val_str_at(op, "from", ""))
            val_del(op, "from");
    return list;
}

/* What a mutation makes of the object, or NULL and *ret_why. The object itself: nothing. */
static const struct val *mutated(struct mutating *m, const struct expr *e, const struct admission_as *as,
                                 const struct cel_value *x, const struct val *object, const char **ret_why)
{
    struct call *c = m->c;
    const struct type *t = type_of(m->ad, as);
    struct texts atomics = {.a = c->a};
    struct err err = {0};
    const char *wrong;
    struct val *v;

    if ((wrong = cel_misnamed(c->a, *x))) {
        *ret_why = arena_printf(c->a, "type mismatch: %s", wrong);
        return NULL;
    }
    if (e->use == EXPR_JSONPATCH) {
        const struct val *out;

        if (!(v = patch_of(c, x, &err)) || val_len(v) > PATCH_OPS_MAX) {
            *ret_why = v ? "JSON Patch: too many operations" : arena_strdup(c->a, err.msg);
            return NULL;
        }
        if ((out = patch_json(c->a, object, v, &err)) && val_is(out, VAL_MAP))
            return out;
        if (err.code == ERR_INVALID && strstr(err.msg, "test"))
            return object; /* a test that fails: the patch is not meant */
        *ret_why = arena_printf(c->a, "JSON Patch: %s", err.code ? err.msg : "the result is no object");
        return NULL;
    }
    if (cel_to_val(c->a, *x, &v, &err) < 0 || !val_is(v, VAL_MAP) || !t) {
        *ret_why = arena_printf(c->a, "invalid return type: %s", err.code ? err.msg : "no object");
        return NULL;
    }
    find_atomics(c->a, t, v, "", &atomics);
    if (atomics.n) {
        *ret_why = arena_printf(c->a, "error applying patch: invalid ApplyConfiguration: may not mutate atomic "
                                "arrays, maps or structs: %s", joined(c->a, &atomics));
        return NULL;
    }
    val_put(c->a, v, "apiVersion", val_get(object, "apiVersion"));
    val_put(c->a, v, "kind", val_get(object, "kind"));
    return typed_merge(c->a, t, object, v);
}

/* The result in the version that is written, decoded and with its defaults, in place of ad->v. */
static int adopt(struct mutating *m, const struct admission_as *as, const struct val *now, const char **ret_why)
{
    struct call *c = m->c;
    struct admission *ad = m->ad;
    const struct subresource *sub = *ad->sub ? schema_sub(as->r, ad->sub) : NULL;
    struct texts unknown = {.a = c->a};
    struct val *v = val_copy(c->a, now);
    struct err err = {0};
    int done = 0;

    if (ad->in) {
        done = schema_decode(as->r, c->a, v, &unknown, &err);
        if (done == 0) {
            schema_default(as->r, c->a, v);
            if (as->r != ad->in)
                done = schema_convert(as->r, ad->in, c->a, v, &err);
            schema_default(ad->in, c->a, v);
        }
    } else if (sub && sub->type) {
        done = schema_decode_type(c->api->schema, sub->type, as->kind, as->version, c->a, v, &unknown, &err);
    }
    if (done < 0 || unknown.n) {
        *ret_why = arena_printf(c->a, "error applying patch: %s", done < 0 ? err.msg : unknown.v[0]);
        return -1;
    }
    *ad->v = *v;
    return 0;
}

/* All mutations of one turn. -1: the call ends or waits. */
static int take_turn(struct mutating *m, struct policy *p, const struct policy_binding *b,
                     const struct admission_as *as, const struct val *param)
{
    struct call *c = m->c;
    struct admission *ad = m->ad;
    const struct val *object, *old, *before;
    struct turn *turn;
    const char *why;
    int match;

    if (seen_as(c, ad, as, &object, &old) < 0)
        return -1;
    policy_compile(c, POLICY_MUTATING, p);
    match = exprs_match(expr_run_new(p->x, c, ad, as, object, old, param), p->conditions, p->conditions_n, p->ignore,
                        &why);
    if (match < 0)
        gone_wrong(m, p, b, why);
    turn = turn_of(m, p, b, param);
    if (match <= 0 || (ad->again && !turn->again))
        return 0;
    before = ad->v ? val_copy(c->a, ad->v) : NULL;
    for (uint32_t i = 0; ad->v && i < p->mutations_n; i++) {
        const struct expr *e = p->mutations[i];
        const struct val *now = NULL;
        struct expr_run *r;
        struct cel_value x;

        if (seen_as(c, ad, as, &object, &old) < 0)
            return -1;
        r = expr_run_new(p->x, c, ad, as, object, old, param);
        expr_run_budget(r, EXPR_BUDGET);
        if (!e->prog)
            why = e->why;
        else if (expr_eval(r, e, &x, &why) == 0)
            now = mutated(m, e, as, &x, object, &why);
        if (!now || (now != object && adopt(m, as, now, &why) < 0))
            gone_wrong(m, p, b, why);
    }
    if (before && !val_equal(before, ad->v)) {
        all_again(m->turns);
        ad->changed = true;
    }
    turn->done |= p->if_needed;
    return 0;
}

static int mutate_by(struct mutating *m, struct policy *p, const struct admission_as *as)
{
    for (uint32_t i = 0; i < p->bindings_n; i++) {
        const struct policy_binding *b = &p->bindings[i];
        const struct val **params;
        struct admission_as ignored;
        const char *why;
        uint32_t n;
        int in = policy_match(m->c, m->ad, val_get(b->spec, "matchResources"), &ignored, &why);

        if (in == 0)
            continue;
        if (in < 0 || (in = policy_params(m->c, p, b, &params, &n, &why)) < 0) {
            gone_wrong(m, p, in == -2 ? NULL : b,
                       arena_printf(m->c->a, "failed to configure %s: %s", in == -2 ? "policy" : "binding", why));
            continue;
        }
        for (uint32_t k = 0; k < n; k++)
            if (take_turn(m, p, b, as, params[k]) < 0)
                return -1;
    }
    return 0;
}

static int refuse_mutation(struct mutating *m)
{
    struct call *c = m->c;
    struct val *s, *causes;

    fail_forbidden(c, m->ad->name, "admission request denied by policy");
    s = val_copy(c->a, c->resp.val);
    val_put_str(c->a, s, "message", m->bad.v[0]);
    val_put_str(c->a, s, "reason", "Invalid");
    causes = val_need_list(c->a, val_need_map(c->a, s, "details"), "causes");
    for (uint32_t i = 0; i < m->bad.n; i++) {
        struct val *cause = val_map(c->a);

        val_put_str(c->a, cause, "message", m->bad.v[i]);
        val_push(c->a, causes, cause);
    }
    return fail_status(c, s);
}

int policies_mutate(struct call *c, struct admission *ad)
{
    struct mutating m = {.c = c, .ad = ad, .turns = ad->policies, .bad = {.a = c->a}};
    struct policy *v;
    uint32_t n = policies_of(c, POLICY_MUTATING, &v);

    if (!n || !(ad->op & (ADMIT_CREATE | ADMIT_UPDATE)))
        return 0;
    if (!m.turns)
        ad->policies = m.turns = arena_new_of(c->a, struct turns);
    if (ad->again && m.turns->last && !val_equal(m.turns->last, ad->v))
        all_again(m.turns); /* the plugins of this process changed it meanwhile */
    for (uint32_t i = 0; i < n; i++) {
        struct admission_as as;
        const char *why;
        int match = policy_match(c, ad, val_get(v[i].spec, "matchConstraints"), &as, &why);

        if (match < 0)
            gone_wrong(&m, &v[i], NULL, arena_printf(c->a, "failed to configure policy: %s", why));
        else if (match && mutate_by(&m, &v[i], &as) < 0)
            return -1;
    }
    m.turns->last = ad->v ? val_copy(c->a, ad->v) : NULL;
    return m.bad.n ? refuse_mutation(&m) : 0;
}
