/* Commands about functions and their keys: invoke, key. They are clients like any
 * other: Function objects through the API, invocations through the gateway's admin socket. */
#include "cli/cli.h"

#include "base/buf.h"
#include "codec/json.h"
#include "door/aws/identity.h"
#include "env/fs.h"

#include <ctype.h>
#include <errno.h>
#include <unistd.h>

static const char *ns_of(const struct cli_opts *o)
{
    return o->namespace_ ? o->namespace_ : "default";
}

static int key_create(struct cli_opts *o)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    const char *id, *secret;
    struct val *v = identity_new_key(a, NULL, &id, &secret);
    struct err err;

    if (!api_request(o, a, "POST", "/api/v1/namespaces/kube-system/secrets", v, &err))
        return complain_err(&err);
    printf("{\"AccessKeyId\":\"%s\",\"SecretAccessKey\":\"%s\"}\n", id, secret);
    return EXIT_SUCCESS;
}

static int key_ls(struct cli_opts *o)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err;
    struct val *v = api_request(o, a, "GET", "/api/v1/namespaces/kube-system/secrets?fieldSelector="
                                "type%3Dtandem.dev%2Faccess-key", NULL, &err);

    if (!v)
        return complain_err(&err);
    VAL_EACH(val_get(v, "items"), it)
    {
        const char *name = val_str_at(it, "metadata.name", "");

        name = str_starts(name, "access-key-") ? name + 11 : name;
        for (const char *p = name; *p; p++)
            putchar(toupper((unsigned char)*p));
        printf("  %s\n", val_str_at(it, "metadata.creationTimestamp", ""));
    }
    return EXIT_SUCCESS;
}

static int key_rm(struct cli_opts *o, const char *id)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    char lower[64];
    struct err err;
    size_t i;

    for (i = 0; id[i] && i < sizeof lower - 1; i++)
        lower[i] = (char)tolower((unsigned char)id[i]);
    lower[i] = 0;
    if (!api_request(o, a, "DELETE", arena_printf(a, "/api/v1/namespaces/kube-system/secrets/access-key-%s",
                                                  lower), NULL, &err))
        return complain_err(&err);
    return EXIT_SUCCESS;
}

int cmd_key(struct cli_opts *o, int argc, char **argv)
{
    if (o->args_n == 1 && streq(o->args[0], "create"))
        return key_create(o);
    if (o->args_n == 1 && streq(o->args[0], "ls"))
        return key_ls(o);
    if (o->args_n == 2 && streq(o->args[0], "rm"))
        return key_rm(o, o->args[1]);
    return complain(EXIT_USAGE, "usage: tandem key create | ls | rm ID");
}

static char *payload_of(const char *word, size_t *ret_n, struct err *err)
{
    if (streq(word, "-"))
        return fs_read("/dev/stdin", 6 << 20, ret_n, err);
    if (word[0] == '@')
        return fs_read(word + 1, 6 << 20, ret_n, err);
    *ret_n = strlen(word);
    return xstrdup(word);
}

int cmd_invoke(struct cli_opts *o, int argc, char **argv)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    char *answer;
    struct err err;
    size_t n, got;
    struct val *v;
    _auto_(freep) char *payload = NULL;

    if (o->args_n < 1 || o->args_n > 2)
        return complain(EXIT_USAGE, "usage: tandem invoke NAME [PAYLOAD | @FILE | -] [--debug]");
    payload = payload_of(o->args_n == 2 ? o->args[1] : "{}", &n, &err);
    if (!payload)
        return complain_err(&err);
    if (!json_parse(a, payload, n, &err))
        return complain(EXIT_USAGE, "the payload is not JSON: %s", err.msg);
    if (socket_request(o, a, "gateway", "POST", arena_printf(a, "/invoke/%s/%s%s", ns_of(o), o->args[0], o->debug ? "?debug=1" : ""),
                       payload, n, &answer, &got, &err) < 0)
        return complain_err(&err);
    v = json_parse(a, answer, got, &err);
    if (v && val_get(v, "functionError")) {
        char *text = json_text(a, val_get(v, "payload"), NULL);

        printf("%s\n", text);
        return complain(EXIT_FAILURE, "the function failed (%s)", val_str_at(v, "functionError", ""));
    }
    if (v && val_get(v, "payload"))
        printf("%s\n", json_text(a, val_get(v, "payload"), NULL));
    else
        printf("%s\n", answer);
    return EXIT_SUCCESS;
}
