/* apiserver/expression.c - see expression.h. The environments are made when they are first needed and
 * stay: programs point into them. */
#include "apiserver/expression.h"

#include "cel/cel.h"

struct expression {
    struct arena *arena; /* of what the compiler said */
    struct cel_prog *prog;
    enum expression_about about;
};

/* ---------------------------------------------------------------- environments */

static const struct cel_type texts_type = {.kind = CEL_LIST, .elem = &cel_string_type, .max_elements = -1};
static const struct cel_type extra_type = {.kind = CEL_MAP, .key = &cel_string_type, .elem = &texts_type,
                                           .max_elements = -1};
static const struct cel_field user_fields[] = {{"username", &cel_string_type},
                                               {"uid", &cel_string_type},
                                               {"groups", &texts_type},
                                               {"extra", &extra_type}};
static const struct cel_type user_type = {.kind = CEL_OBJECT, .name = "kubernetes.UserInfo",
                                          .fields = user_fields, .fields_n = ARRAY_LEN(user_fields),
                                          .max_elements = -1};

static const struct {
    const char *name;
    const struct cel_type *type;
} ABOUT[] = {[EXPRESSION_CLAIMS] = {"claims", &cel_map_dyn_type}, [EXPRESSION_USER] = {"user", &user_type},
             [EXPRESSION_REVIEW] = {"request", &cel_map_dyn_type}};

static const struct cel_env *env_of(enum expression_about about)
{
    static struct cel_env *envs[ARRAY_LEN(ABOUT)];

    if (!envs[about]) {
        envs[about] = cel_env_new();
        cel_env_var(envs[about], ABOUT[about].name, ABOUT[about].type);
    }
    return envs[about];
}

/* ---------------------------------------------------------------- programs */

struct expression *expression_new(enum expression_about about, const char *text, struct err *err)
{
    struct expression *x;
    const char *issues = "";

    if (!*text) {
        err_set(err, INVALID_ARGUMENT, "an expression is required");
        return NULL;
    }
    x = xcalloc(1, sizeof(*x));
    x->arena = arena_new();
    if (!(x->prog = cel_compile(env_of(about), text, strlen(text), x->arena, &issues))) {
        err_set(err, INVALID_ARGUMENT, "compilation failed: %s", issues);
        return expression_free(x);
    }
    if (about == EXPRESSION_USER && cel_prog_type(x->prog)->kind != CEL_BOOL) {
        err_set(err, INVALID_ARGUMENT, "the expression must evaluate to bool");
        return expression_free(x);
    }
    x->about = about;
    return x;
}

void *expression_free(struct expression *x)
{
    if (!x)
        return NULL;
    cel_prog_free(x->prog);
    arena_free(x->arena);
    free(x);
    return NULL;
}

int expression_run(const struct expression *x, const struct val *about, struct arena *a,
                   const struct val **ret, struct err *err)
{
    struct cel_value var = cel_tree(a, about, ABOUT[x->about].type), out;
    struct cel_run run = {.arena = a, .vars = &var, .vars_n = 1};
    struct val *v;

    if (cel_eval(x->prog, &run, &out, err) < 0)
        return -1;
    if (cel_to_val(a, out, &v, err) < 0)
        return -1;
    *ret = v;
    return 0;
}
