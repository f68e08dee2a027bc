/* cli/cli.h - what the sub-commands share: options, where an instance lives, how it is reached.
 *
 * Exit codes: 0 done, 1 it failed (the line on standard error says why and what to do), 2 the
 * words of the call are wrong. */
#pragma once

#include "base/err.h"
#include "codec/val.h"

#include <stdio.h>

enum { EXIT_USAGE = 2 };

/* One instance = one state folder. Options given on the command line win over what the running
 * (or last) instance of that folder wrote into STATE/instance.json, which wins over defaults. */
struct cli_opts {
    struct arena *arena; /* holds every text that is no literal and not of argv */
    const char *state;   /* absolute */
    char id[9];          /* 8 hex digits derived from state: in names of cgroups, links, tables */
    int api_port, gateway_port, aws_port;
    int gateway_tls_port; /* 0: none */
    const char *gateway_tls_cert, *gateway_tls_key;
    const char *pod_cidr;     /* "10.42.0.0/16" */
    const char *service_cidr; /* "10.96.0.0/16" */
    const char *node_name;
    const char *region;  /* of the AWS door */
    const char *otlp_endpoint; /* where traces go, "none"; NULL: as the environment says */
    int keep_alive_ms;   /* how long an idle function instance stays */
    int zygote_keep_ms, scale_burst, scale_per_10s, evict_mb, event_retry_s; /* as main.c tells; -1: not said */
    const char *controllers;  /* NULL: all; else as kube-controller-manager reads it: "*,-job" */
    bool no_scheduler;
    const char *kubeconfig;   /* of the server that `tandem controllers` and `scheduler` work for */
    /* how the API knows people and what it notes; NULL or 0: not said. Absolute paths */
    const char *authorization_config, *authentication_config, *token_webhook, *token_webhook_ttl, *token_webhook_version, *requestheader_ca, *requestheader_names;
    const char *tls_cert, *tls_key, *client_ca;
    const char *audit_policy, *audit_log, *audit_webhook;
    int audit_mb, audit_files, audit_days;
    bool api_only, detach, json, help, follow;
    int tail;
    /* of deploy; NULL or -1: not said */
    const char *handler, *runtime, *image, *url, *http;
    int memory_mb, timeout_s;
    bool debug;          /* of invoke */
    int port;            /* of debug; 0: any */
    bool watch, once;    /* once: of tail and top */
    const char *since; /* of logs, tail and trace */
    const char *env[64]; /* "NAME=VALUE" or "NAME-" */
    int env_n;
    const char *namespace_;
    const char *output;
    /* what is no option, in order */
    const char *args[32];
    int args_n;
};

struct command {
    const char *name;
    int (*run)(struct cli_opts *, int argc, char **argv);
    const char *synopsis; /* behind "tandem NAME" */
    const char *promise;  /* one line for the overview */
    const char *help;     /* the rest, or NULL */
    bool hidden;          /* a part that `up` starts by itself */
    bool own_words;       /* reads its own options: only --state is taken out of them */
};
extern const struct command COMMANDS[]; /* ends with name == NULL */

/* Reads options from argv[1..]. 0, or EXIT_USAGE after a line on standard error. */
int opts_parse(struct cli_opts *o, int argc, char **argv);
/* Takes only --state DIR out of argv (which gets shorter, *argc too). */
int opts_parse_state(struct cli_opts *o, int *argc, char **argv);
/* "name=value\n" of all options that a server has, by name; to free(). */
char *opts_text(const struct cli_opts *o);
int opts_save(const struct cli_opts *o, struct err *err); /* STATE/instance.json */

/* Says "tandem: TEXT" on standard error and returns code. */
int complain(int code, const char *fmt, ...) _printf_(2, 3);
int complain_err(const struct err *err);
bool function_name_ok(const char *name);
bool on_terminal(void); /* standard output is one: colours and progress are welcome */

/* A blocking HTTPS request to this instance's API server with the administrator's certificate.
 * body may be NULL. Answers with a status >= 400 are errors that carry the Status' message. */
struct val *api_request(const struct cli_opts *o, struct arena *a, const char *method,
                        const char *path, const struct val *body, struct err *err);
/* The same over a unix socket of this instance (STATE/run/NAME.sock), cleartext HTTP/1.1. */
int socket_request(const struct cli_opts *o, struct arena *a, const char *socket,
                   const char *method, const char *path, const char *body, size_t body_n,
                   char **ret_body, size_t *ret_n, struct err *err);
/* GET over a unix socket; what comes is handed on as it comes, false from fn ends it. An answer that began and was cut is
 * no error: whoever follows asks again. */
int socket_stream(const struct cli_opts *o, const char *socket, const char *path, bool (*fn)(void *arg, const char *p, size_t n),
                  void *arg, struct err *err);
/* The pid of the supervisor that holds this state folder, or 0. */
int instance_pid(const struct cli_opts *o);

int cmd_up(struct cli_opts *o, int argc, char **argv);
int cmd_down(struct cli_opts *o, int argc, char **argv);
int cmd_status(struct cli_opts *o, int argc, char **argv);
int cmd_controllers(struct cli_opts *o, int argc, char **argv);
int cmd_kubeconfig(struct cli_opts *o, int argc, char **argv);
int cmd_image(struct cli_opts *o, int argc, char **argv);
int cmd_deploy(struct cli_opts *o, int argc, char **argv);
int cmd_invoke(struct cli_opts *o, int argc, char **argv);
int cmd_logs(struct cli_opts *o, int argc, char **argv);
int cmd_tail(struct cli_opts *o, int argc, char **argv);
int cmd_trace(struct cli_opts *o, int argc, char **argv);
int cmd_debug(struct cli_opts *o, int argc, char **argv);
int cmd_top(struct cli_opts *o, int argc, char **argv);
int cmd_key(struct cli_opts *o, int argc, char **argv);
int cmd_advise(struct cli_opts *o, int argc, char **argv);
int cmd_version(struct cli_opts *o, int argc, char **argv);
int cmd_server(struct cli_opts *o, int argc, char **argv);
int cmd_node(struct cli_opts *o, int argc, char **argv);
int cmd_gateway(struct cli_opts *o, int argc, char **argv);
