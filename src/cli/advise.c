/* tandem advise: a row per workload, from what the meters of this instance wrote. */
#include "advisor/advisor.h"
#include "cli/cli.h"

/* What was removed has no row; when the API is not there to ask, everything that was measured has. */
static bool exists(void *arg, const char *kind, const char *ns, const char *name)
{
    const struct val *functions = arg;

    if (!streq(kind, "Function"))
        return true;
    VAL_EACH(val_get(functions, "items"), f)
        if (streq(val_str_at(f, "metadata.namespace", ""), ns) && streq(val_str_at(f, "metadata.name", ""), name))
            return true;
    return false;
}

int cmd_advise(struct cli_opts *o, int argc, char **argv)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *functions;
    struct err err;

    (void)argc, (void)argv;
    if (o->args_n)
        return complain(EXIT_USAGE, "advise takes no arguments; it shows every workload");
    functions = api_request(o, a, "GET", "/apis/tandem.dev/v1/functions", NULL, &err);
    if (advise_print(o->state, o->json, functions ? exists : NULL, functions, &err) < 0)
        return complain_err(&err);
    return EXIT_SUCCESS;
}
