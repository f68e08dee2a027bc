/* A function that somebody debugs: beside those that answer as always there is one instance of it under a debugger.
 *
 * It is a function of its own in the registry, NAMESPACE/NAME:!debug, made of the same object, so it has a pool, a waiting room
 * and a zygote of its own, and nothing changes for calls that go the usual way. What is different in there: one instance and no
 * more, kept loaded; it starts a program (Python as a client of the Runtime API, Node with its inspector) also where others are
 * forked, since its first process then goes on beside a program that stands still; no time limit; memory for the debugger.
 * The debugger listens on the sandbox's own loopback: connections are made in there and handed out as those of HTTP functions. */
#include "function/function_int.h"

#include "env/random.h"
#include "http/server.h"

#include <stdio.h>
#include <unistd.h>

enum { PYTHON_PORT = 5678, NODE_PORT = 9229 };

bool debug_is_node(const struct version *v)
{
    return str_starts(v->runtime, "nodejs");
}

int debug_port(const struct version *v)
{
    return debug_is_node(v) ? NODE_PORT : PYTHON_PORT;
}

void debug_config(struct version *v, struct arena *a, struct val *config, struct val *env)
{
    struct val *exec = val_list(a); /* goes into config last: what is put after it may move it */
    _auto_(freep) char *folder = xasprintf("%s/debug/%s", v->f->fs->state, v->runtime);

    if (debug_is_node(v)) {
        val_push_str(a, exec, v->program);
        val_push(a, exec, val_printf(a, "--inspect=127.0.0.1:%d", NODE_PORT));
        val_push_str(a, exec, "/var/runtime/index.mjs");
    } else {
        val_push_str(a, exec, v->interpreter);
        val_push_str(a, exec, "-S");
        val_push_str(a, exec, "-Xfrozen_modules=off");
        val_push_str(a, exec, "/var/runtime/bootstrap.py");
        val_put_str(a, config, "debug_dir", folder);
        val_put(a, env, "TANDEM_DEBUG_PORT", val_printf(a, "%d", PYTHON_PORT));
        val_put_str(a, env, "PYDEVD_DISABLE_FILE_VALIDATION", "1");
    }
    val_put_int(a, config, "debug_port", debug_port(v));
    val_put_bool(a, config, "own_net", !version_has_net(v));
    val_put_bool(a, config, "fork", false);
    val_put(a, config, "exec", exec);
}

struct function *debug_of(struct functions *fs, const char *ns, const char *name)
{
    struct function *head = function_find(fs, ns, name);

    return head ? head->family->debug : NULL;
}

bool debug_wanted(const struct function *head, const struct function_call *q)
{
    const char *token = q->req ? http_get(q->req, "x-tandem-debug") : NULL;

    return q->debug || (token && streq(token, head->family->debug_token));
}

int functions_debug_begin(struct functions *fs, const char *ns, const char *name, char ret_token[FUNCTION_TOKEN_MAX], struct err *err)
{
    struct function *head = function_find(fs, ns, name), *f;
    _auto_(freep) char *folder = NULL;
    unsigned char b[16];

    if (!head || !head->now || head->removed)
        return err_set(err, NOT_FOUND, "there is no function %s", name);
    if (head->family->debug)
        return err_set(err, ALREADY_EXISTS, "somebody debugs %s already", name);
    if (head->now->broken.code != ERR_OK) {
        *err = head->now->broken;
        return -1;
    }
    if (head->now->image || head->now->http_port || (!str_starts(head->now->runtime, "python") && !debug_is_node(head->now)))
        return err_set(err, NOT_IMPLEMENTED, "%s can not be debugged: only functions of Python's and Node's own runtimes are (no images, no HTTP "
                       "functions, no runtimes of one's own)", name);
    folder = xasprintf("%s/debug/%s/debugpy", fs->state, head->now->runtime);
    if (!debug_is_node(head->now) && access(folder, R_OK) < 0)
        return err_set(err, NOT_FOUND, "debugpy is not there: %s", folder);
    random_bytes(b, sizeof b);
    for (size_t i = 0; i < sizeof b; i++)
        snprintf(ret_token + 2 * i, 3, "%02x", b[i]);
    snprintf(head->family->debug_token, sizeof head->family->debug_token, "%s", ret_token);
    f = function_put_debug(head);
    f->provisioned = 1;
    pool_wake(fs);
    zygote_start(f->now);
    pool_refill_soon(fs);
    return 0;
}

void functions_debug_end(struct functions *fs, const char *ns, const char *name)
{
    struct function *f = debug_of(fs, ns, name);

    if (f)
        debug_end(f);
}

/* Whoever stands at a breakpoint does not come back from it: his instance ends, his call with it. */
void debug_end(struct function *f)
{
    struct family *y = f->family;

    y->debug = NULL;
    y->debug_token[0] = 0;
    f->busy++; /* it stays while its instances are told */
    LIST_EACH(&f->versions, k)
    LIST_EACH(&list_entry(k, struct version, link)->instances, l)
    instance_kill(list_entry(l, struct instance, link));
    f->busy--;
    function_drop(f);
}

void functions_debug_dial(struct functions *fs, const char *ns, const char *name, function_dialed_fn *done, void *arg)
{
    struct function *f = debug_of(fs, ns, name);

    if (f && f->now)
        LIST_EACH(&f->now->instances, l)
        {
            struct instance *i = list_entry(l, struct instance, link);

            if (!i->exited && i->state != INSTANCE_DYING) {
                serve_dial(i, done, arg);
                return;
            }
        }
    done(arg, -1);
}
