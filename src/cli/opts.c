#include "cli/cli.h"

#include "base/buf.h"
#include "base/map.h"
#include "codec/json.h"
#include "env/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

int complain(int code, const char *fmt, ...)
{
    va_list ap;

    fputs("tandem: ", stderr);
    va_start(ap, fmt);
    vfprintf(stderr, fmt, ap);
    va_end(ap);
    fputc('\n', stderr);
    return code;
}

int complain_err(const struct err *err)
{
    return complain(EXIT_FAILURE, "%s", err->msg);
}

bool function_name_ok(const char *name)
{
    size_t n = strlen(name);

    return n && n <= 63 && strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-") == n && name[0] != '-' && name[n - 1] != '-';
}

bool on_terminal(void)
{
    return isatty(STDOUT_FILENO) && !getenv("NO_COLOR");
}

enum kind { FLAG, NUMBER, TEXT, ENV };
static const struct option {
    const char *name;
    char letter;
    enum kind kind;
    size_t at; /* offset in struct cli_opts */
    int min, max;
} OPTIONS[] = {
#define OPT(name, letter, kind, field, min, max)                                                   \
    {name, letter, kind, offsetof(struct cli_opts, field), min, max}
    OPT("state", 0, TEXT, state, 0, 0),
    OPT("api-port", 0, NUMBER, api_port, 0, 65535),
    OPT("gateway-port", 0, NUMBER, gateway_port, 0, 65535),
    OPT("aws-port", 0, NUMBER, aws_port, 0, 65535),
    OPT("pod-cidr", 0, TEXT, pod_cidr, 0, 0),
    OPT("service-cidr", 0, TEXT, service_cidr, 0, 0),
    OPT("controllers", 0, TEXT, controllers, 0, 0),
    OPT("no-scheduler", 0, FLAG, no_scheduler, 0, 0),
    OPT("kubeconfig", 0, TEXT, kubeconfig, 0, 0),
    OPT("node-name", 0, TEXT, node_name, 0, 0),
    OPT("region", 0, TEXT, region, 0, 0),
    OPT("otlp-endpoint", 0, TEXT, otlp_endpoint, 0, 0),
    OPT("keep-alive-ms", 0, NUMBER, keep_alive_ms, 0, 86400000),
    OPT("zygote-keep-ms", 0, NUMBER, zygote_keep_ms, 1000, 86400000),
    OPT("scale-burst", 0, NUMBER, scale_burst, 1, 100000),
    OPT("scale-per-10s", 0, NUMBER, scale_per_10s, 0, 1000000),
    OPT("evict-mb", 0, NUMBER, evict_mb, 0, INT_MAX),
    OPT("event-retry-s", 0, NUMBER, event_retry_s, 1, 3600),
    OPT("authentication-config", 0, TEXT, authentication_config, 0, 0),
    OPT("authentication-token-webhook-config-file", 0, TEXT, token_webhook, 0, 0),
    OPT("authentication-token-webhook-cache-ttl", 0, TEXT, token_webhook_ttl, 0, 0),
    OPT("authentication-token-webhook-version", 0, TEXT, token_webhook_version, 0, 0),
    OPT("authorization-config", 0, TEXT, authorization_config, 0, 0),
    OPT("requestheader-client-ca-file", 0, TEXT, requestheader_ca, 0, 0),
    OPT("gateway-tls-port", 0, NUMBER, gateway_tls_port, 0, 65535),
    OPT("gateway-tls-cert-file", 0, TEXT, gateway_tls_cert, 0, 0),
    OPT("gateway-tls-private-key-file", 0, TEXT, gateway_tls_key, 0, 0),
    OPT("tls-cert-file", 0, TEXT, tls_cert, 0, 0),
    OPT("tls-private-key-file", 0, TEXT, tls_key, 0, 0),
    OPT("client-ca-file", 0, TEXT, client_ca, 0, 0),
    OPT("requestheader-allowed-names", 0, TEXT, requestheader_names, 0, 0),
    OPT("audit-policy-file", 0, TEXT, audit_policy, 0, 0),
    OPT("audit-log-path", 0, TEXT, audit_log, 0, 0),
    OPT("audit-log-maxsize", 0, NUMBER, audit_mb, 0, 1000000),
    OPT("audit-log-maxbackup", 0, NUMBER, audit_files, 0, 1000000),
    OPT("audit-log-maxage", 0, NUMBER, audit_days, 0, 1000000),
    OPT("audit-webhook-config-file", 0, TEXT, audit_webhook, 0, 0),
    OPT("api-only", 0, FLAG, api_only, 0, 0),
    OPT("detach", 'd', FLAG, detach, 0, 0),
    OPT("json", 0, FLAG, json, 0, 0),
    OPT("follow", 'f', FLAG, follow, 0, 0),
    OPT("tail", 0, NUMBER, tail, 0, INT_MAX),
    OPT("namespace", 'n', TEXT, namespace_, 0, 0),
    OPT("output", 'o', TEXT, output, 0, 0),
    OPT("handler", 0, TEXT, handler, 0, 0),
    OPT("runtime", 0, TEXT, runtime, 0, 0),
    OPT("http", 0, TEXT, http, 0, 0),
    OPT("image", 0, TEXT, image, 0, 0),
    OPT("memory", 0, NUMBER, memory_mb, 64, 10240),
    OPT("timeout", 0, NUMBER, timeout_s, 1, 900),
    OPT("env", 'e', ENV, env, 0, 0),
    OPT("url", 0, TEXT, url, 0, 0),
    OPT("once", 0, FLAG, once, 0, 0),
    OPT("since", 0, TEXT, since, 0, 0),
    OPT("watch", 'w', FLAG, watch, 0, 0),
    OPT("debug", 0, FLAG, debug, 0, 0),
    OPT("port", 0, NUMBER, port, 0, 65535),
    OPT("help", 'h', FLAG, help, 0, 0),
#undef OPT
};

static const struct option *option_find(const char *word, size_t n)
{
    for (size_t i = 0; i < ARRAY_LEN(OPTIONS); i++) {
        const struct option *op = &OPTIONS[i];

        if (word[0] == '-' && word[1] == '-' && strlen(op->name) == n - 2 &&
            strncmp(word + 2, op->name, n - 2) == 0)
            return op;
        if (n == 2 && op->letter && word[1] == op->letter)
            return op;
    }
    return NULL;
}

static int option_set(struct cli_opts *o, const struct option *op, const char *value)
{
    char *field = (char *)o + op->at, *end;
    long n;

    if (op->kind == FLAG) {
        *(bool *)field = true;
        return 0;
    }
    if (!value)
        return complain(EXIT_USAGE, "--%s wants a value", op->name);
    if (op->kind == TEXT) {
        *(const char **)field = value;
        return 0;
    }
    if (op->kind == ENV) {
        if (o->env_n == (int)ARRAY_LEN(o->env))
            return complain(EXIT_USAGE, "--%s is said more than %d times", op->name, o->env_n);
        o->env[o->env_n++] = value;
        return 0;
    }
    errno = 0;
    n = strtol(value, &end, 10);
    if (errno || *end || end == value || n < op->min || n > op->max)
        return complain(EXIT_USAGE, "--%s wants a number from %d to %d, not '%s'", op->name,
                        op->min, op->max, value);
    *(int *)field = (int)n;
    return 0;
}

static int read_words(struct cli_opts *o, int argc, char **argv)
{
    bool words_only = false;

    for (int i = 1; i < argc; i++) {
        const char *w = argv[i], *eq;
        const struct option *op;
        int rc;

        if (words_only || w[0] != '-' || !w[1]) {
            if (o->args_n == (int)ARRAY_LEN(o->args))
                return complain(EXIT_USAGE, "too many words");
            o->args[o->args_n++] = w;
            continue;
        }
        if (streq(w, "--")) {
            words_only = true;
            continue;
        }
        eq = strchr(w, '=');
        op = option_find(w, eq ? (size_t)(eq - w) : strlen(w));
        if (!op)
            return complain(EXIT_USAGE, "unknown option '%s' (tandem %s --help lists them)", w,
                            argv[0]);
        rc = option_set(o, op, op->kind == FLAG ? NULL : eq ? eq + 1 : i + 1 < argc ? argv[++i] : NULL);
        if (rc)
            return rc;
    }
    return 0;
}

/* The state folder as one absolute path, whether it exists or not. */
static const char *absolute(struct arena *a, const char *path)
{
    char resolved[PATH_MAX], *cwd;

    if (realpath(path, resolved))
        return arena_strdup(a, resolved);
    if (path[0] == '/')
        return path;
    cwd = getcwd(resolved, sizeof resolved);
    return cwd ? arena_printf(a, "%s/%s", cwd, path) : path;
}

/* What is kept only when somebody said it. */
static const struct {
    const char *key;
    size_t at;
} SCALING[] = {{"zygoteKeepMs", offsetof(struct cli_opts, zygote_keep_ms)},
               {"scaleBurst", offsetof(struct cli_opts, scale_burst)},
               {"scalePer10s", offsetof(struct cli_opts, scale_per_10s)},
               {"evictMb", offsetof(struct cli_opts, evict_mb)},
               {"eventRetryS", offsetof(struct cli_opts, event_retry_s)}};

static int *scaling_of(struct cli_opts *o, size_t i)
{
    return (int *)(void *)((char *)o + SCALING[i].at);
}

static void take_saved(struct cli_opts *o, const struct val *saved)
{
    if (o->api_port < 0)
        o->api_port = (int)val_int_at(saved, "apiPort", 6443);
    if (o->gateway_port < 0)
        o->gateway_port = (int)val_int_at(saved, "gatewayPort", 8080);
    if (o->aws_port < 0)
        o->aws_port = (int)val_int_at(saved, "awsPort", 4566);
    if (o->keep_alive_ms < 0)
        o->keep_alive_ms = (int)val_int_at(saved, "keepAliveMs", 10000);
    for (size_t i = 0; i < ARRAY_LEN(SCALING); i++)
        if (*scaling_of(o, i) < 0)
            *scaling_of(o, i) = (int)val_int_at(saved, SCALING[i].key, -1);
    if (!o->pod_cidr)
        o->pod_cidr = arena_strdup(o->arena, val_str_at(saved, "podCidr", "10.42.0.0/16"));
    if (!o->service_cidr)
        o->service_cidr = arena_strdup(o->arena, val_str_at(saved, "serviceCidr", "10.96.0.0/16"));
    if (!o->node_name)
        o->node_name = arena_strdup(o->arena, val_str_at(saved, "nodeName", ""));
    if (!o->otlp_endpoint && val_at(saved, "otlpEndpoint"))
        o->otlp_endpoint = arena_strdup(o->arena, val_str_at(saved, "otlpEndpoint", "none"));
    if (!o->region)
        o->region = arena_strdup(o->arena, val_str_at(saved, "region", "us-east-1"));
}

/* The files that options name, as who is started later and elsewhere finds them. */
static void absolute_files(struct cli_opts *o)
{
    const char **files[] = {&o->authorization_config, &o->authentication_config, &o->token_webhook, &o->requestheader_ca, &o->audit_policy,
                            &o->audit_log, &o->audit_webhook, &o->tls_cert, &o->tls_key, &o->client_ca,
                            &o->gateway_tls_cert, &o->gateway_tls_key};

    for (size_t i = 0; i < ARRAY_LEN(files); i++)
        if (*files[i] && !streq(*files[i], "-"))
            *files[i] = absolute(o->arena, *files[i]);
}

static void opts_begin(struct cli_opts *o)
{
    *o = (struct cli_opts){.arena = arena_new(), .api_port = -1, .gateway_port = -1, .aws_port = -1, .keep_alive_ms = -1,
                           .zygote_keep_ms = -1, .scale_burst = -1, .scale_per_10s = -1, .evict_mb = -1, .event_retry_s = -1, .tail = -1,
                           .memory_mb = -1, .timeout_s = -1};
}

/* Fills what the command line left open from the instance's own file, then from defaults. */
static int opts_complete(struct cli_opts *o)
{
    struct val *saved = NULL;
    char host[65] = "localhost", path[PATH_MAX];
    struct err err;
    char *text;
    size_t n;

    absolute_files(o);
    if (o->gateway_tls_port ? !o->gateway_tls_cert || !o->gateway_tls_key : o->gateway_tls_cert || o->gateway_tls_key)
        return complain(EXIT_USAGE, "--gateway-tls-port, --gateway-tls-cert-file and --gateway-tls-private-key-file go together");
    if (!o->state)
        o->state = getenv("TANDEM_STATE");
    o->state = absolute(o->arena, str_empty(o->state) ? "/var/lib/tandem" : o->state);
    if (strlen(o->state) > 80) /* a unix socket's path below it must fit into 107 bytes */
        return complain(EXIT_USAGE, "--state: the path is longer than 80 bytes: %s", o->state);
    snprintf(o->id, sizeof o->id, "%08x", str_hash(o->state, strlen(o->state)));
    snprintf(path, sizeof path, "%s/instance.json", o->state);
    text = fs_read(path, 1 << 20, &n, &err);
    if (text)
        saved = json_parse(o->arena, text, n, &err);
    free(text);
    take_saved(o, saved);
    if (str_empty(o->node_name)) {
        gethostname(host, sizeof host - 1);
        for (char *p = host; *p; p++)
            *p = *p >= 'A' && *p <= 'Z' ? (char)(*p - 'A' + 'a') : *p;
        o->node_name = arena_strdup(o->arena, host);
    }
    return 0;
}

int opts_parse(struct cli_opts *o, int argc, char **argv)
{
    int rc;

    opts_begin(o);
    rc = read_words(o, argc, argv);
    return rc ? rc : opts_complete(o);
}

int opts_parse_state(struct cli_opts *o, int *argc, char **argv)
{
    int kept = 1;

    opts_begin(o);
    for (int i = 1; i < *argc; i++) {
        if (str_starts(argv[i], "--state="))
            o->state = argv[i] + strlen("--state=");
        else if (streq(argv[i], "--state") && i + 1 < *argc)
            o->state = argv[++i];
        else
            argv[kept++] = argv[i];
    }
    argv[kept] = NULL;
    *argc = kept;
    return opts_complete(o);
}

char *opts_text(const struct cli_opts *o)
{
    /* those of other commands */
    static const char *const others[] = {"kubeconfig", "detach", "json", "follow", "tail", "namespace", "output", "help",
                                         "handler", "runtime", "http", "image", "memory", "timeout", "env", "url", "watch", "once", "since", "debug", "port"};
    const struct option *sorted[ARRAY_LEN(OPTIONS)];
    struct buf b = {0};
    size_t n = 0;

    for (size_t i = 0; i < ARRAY_LEN(OPTIONS); i++) {
        size_t at = n;
        bool other = false;

        for (size_t k = 0; k < ARRAY_LEN(others); k++)
            other |= streq(OPTIONS[i].name, others[k]);
        if (other)
            continue;
        for (; at > 0 && strcmp(sorted[at - 1]->name, OPTIONS[i].name) > 0; at--)
            sorted[at] = sorted[at - 1];
        sorted[at] = &OPTIONS[i];
        n++;
    }
    for (size_t i = 0; i < n; i++) {
        const void *field = (const char *)o + sorted[i]->at;
        const char *text = sorted[i]->kind == TEXT ? *(const char *const *)field : NULL;

        if (sorted[i]->kind == NUMBER)
            buf_printf(&b, "%s=%d\n", sorted[i]->name, *(const int *)field);
        else if (sorted[i]->kind == FLAG)
            buf_printf(&b, "%s=%s\n", sorted[i]->name, *(const bool *)field ? "true" : "false");
        else
            buf_printf(&b, "%s=%s\n", sorted[i]->name, text ? text : "");
    }
    buf_addc(&b, 0);
    return buf_take(&b);
}

int opts_save(const struct cli_opts *o, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *v = val_map(a);
    struct buf b = {0};
    char path[PATH_MAX];
    int rc;

    val_put_int(a, v, "apiPort", o->api_port);
    val_put_int(a, v, "gatewayPort", o->gateway_port);
    val_put_int(a, v, "awsPort", o->aws_port);
    val_put_int(a, v, "keepAliveMs", o->keep_alive_ms);
    for (size_t i = 0; i < ARRAY_LEN(SCALING); i++) {
        int n = *(const int *)(const void *)((const char *)o + SCALING[i].at);

        if (n >= 0)
            val_put_int(a, v, SCALING[i].key, n);
    }
    val_put_str(a, v, "podCidr", o->pod_cidr);
    val_put_bool(a, v, "apiOnly", o->api_only);
    val_put_str(a, v, "serviceCidr", o->service_cidr);
    val_put_str(a, v, "nodeName", o->node_name);
    val_put_str(a, v, "region", o->region);
    if (o->otlp_endpoint)
        val_put_str(a, v, "otlpEndpoint", o->otlp_endpoint);
    json_write_pretty(&b, v);
    snprintf(path, sizeof path, "%s/instance.json", o->state);
    rc = fs_write(path, b.p, b.n, 0644, err);
    buf_done(&b);
    return rc;
}
