/* apiserver/expression.c - see expression.h. */
#include "apiserver/expression.h"

struct expression *expression_new(enum expression_about about, const char *text, struct err *err)
{
    (void)about;
    (void)text;
    err_set(err, NOT_IMPLEMENTED, "CEL expressions are not evaluated by this build");
    return NULL;
}

void *expression_free(struct expression *x)
{
    (void)x;
    return NULL;
}

int expression_run(const struct expression *x, const struct val *about, struct arena *a,
                   const struct val **ret, struct err *err)
{
    (void)x;
    (void)about;
    (void)a;
    (void)ret;
    return err_set(err, NOT_IMPLEMENTED, "CEL expressions are not evaluated by this build");
}
