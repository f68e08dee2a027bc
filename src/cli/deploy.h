/* cli/deploy.h - what the files of `tandem deploy` share: deploy.c (once), watch.c (again and again), guess.c. */
#pragma once

#include "cli/cli.h"
#include "cli/guess.h"

struct target {
    enum { TARGET_FOLDER, TARGET_ZIP, TARGET_IMAGE } kind;
    const char *path; /* of the folder or zip (or one .wasm, .wat), without a final "/" */
    const char *name; /* of the function */
};
/* Makes the function or changes it, and waits until calls meet the new code. *ret_url: to free(), or NULL when it has
 * none. *ret_runtime: "" unless it is Python's or Node's. INVALID_ARGUMENT: it is the code or the words that are wrong. */
int deploy(const struct cli_opts *o, const struct target *t, char **ret_url, const char **ret_runtime, struct err *err)
    _must_check_;
/* Deploys whenever something below the target changes, until a signal comes or the folder goes. An exit code. */
int deploy_watch(struct cli_opts *o, const struct target *t, const char *runtime);
