/* Any text as a CloudFormation template: it is refused with a text, or evaluated within its bounds. First line: what
 * parameters are given, NAME=VALUE separated by spaces; the rest: the template, YAML or JSON. */
#include "codec/json.h"
#include "door/aws/cloudformation/cfn_template.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Of every other resource an attribute is known only later. */
static const struct val *attribute(void *arg, struct arena *a, const char *logical, const char *name, struct err *err)
{
    if (*logical && logical[strlen(logical) - 1] & 1)
        return NULL;
    return val_printf(a, "%s.%s", logical, name ? name : "Ref");
}

static const char *import(void *arg, const char *name)
{
    return *name == 'x' ? "imported" : NULL;
}

static struct val *given(struct arena *a, char *text)
{
    struct val *v = val_map(a);

    for (char *save = NULL, *word = strtok_r(text, " ", &save); word; word = strtok_r(NULL, " ", &save)) {
        char *eq = strchr(word, '=');

        if (eq && eq > word)
            val_put_str(a, v, arena_strndup(a, word, (size_t)(eq - word)), eq + 1);
    }
    return v;
}

static void evaluate(struct arena *a, const struct val *doc, char *parameters)
{
    struct err err = {0};
    struct cfn_scope s = {.a = a, .doc = doc, .account = "000000000000", .region = "us-east-1", .stack_name = "s", .stack_id = "id",
                          .attribute = attribute, .import = import};
    struct val *more;

    s.params = cfn_parameters(a, doc, given(a, parameters), &err);
    if (!s.params)
        return;
    more = cfn_expand_loops(&s, &err);
    if (!more)
        return;
    s.doc = more;
    VAL_EACH_MEMBER(val_get(more, "Conditions"), m)
        (void)!cfn_condition(&s, m->key, &err);
    VAL_EACH_MEMBER(val_get(more, "Resources"), m)
    {
        struct val *names = val_list(a), *v;

        (void)!cfn_needs(&s, &m->v, names, &err);
        s.nodes = 0;
        s.bytes = 0;
        v = cfn_eval(&s, val_get(&m->v, "Properties") ? val_get(&m->v, "Properties") : &m->v, &err);
        ASSERT(!v || s.nodes <= CFN_NODES_MAX + 1);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *a;
    struct err err = {0};
    char *text, *body;
    struct val *doc;

    if (size > CFN_BODY_MAX)
        return 0;
    a = arena_new();
    text = arena_strndup(a, (const char *)data, size);
    body = strchr(text, '\n');
    if (body) {
        *body++ = 0;
        doc = cfn_parse(a, body, strlen(body), &err);
        if (!doc || cfn_check(doc, &err) < 0)
            ASSERT(*err.msg);
        else
            evaluate(a, doc, text);
    }
    arena_free(a);
    return 0;
}
