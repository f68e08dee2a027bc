#include "cli/cli.h"

#include <signal.h>

#define INSTANCE_OPTIONS                                                                           \
    "  --state DIR          the instance's folder (default /var/lib/tandem, or $TANDEM_STATE)\n"

/* The table of sub-commands: a new one is a line here and a file beside this one. */
const struct command COMMANDS[] = {
    {"up", cmd_up, "[--detach] [options]", "start an instance", "  --detach, -d         leave it running in the background once it is ready\n"
     "  --api-port N         Kubernetes API, HTTPS (default 6443; 0 picks one)\n"
     "  --gateway-port N     functions and pages, HTTP (default 8080)\n"
     "  --gateway-tls-port N, --gateway-tls-cert-file FILE, --gateway-tls-private-key-file FILE   the same by HTTPS (and HTTP/2)\n"
     "  --aws-port N         Lambda, S3, STS (default 4566)\n"
     "  --pod-cidr CIDR      addresses of pods (default 10.42.0.0/16)\n"
     "  --service-cidr CIDR  addresses of services (default 10.96.0.0/16)\n"
     "  --node-name NAME     (default: the host's name)\n"
     "  --region NAME        of the AWS door (default us-east-1)\n"
     "  --otlp-endpoint URL  traces of functions to this OpenTelemetry collector (default: OTEL_EXPORTER_OTLP_ENDPOINT; none)\n"
     "  --keep-alive-ms N    how long an idle function instance stays (default 10000)\n"
     "  --zygote-keep-ms N   how long what its instances are forked from stays after the last one (default 60000)\n"
     "  --scale-burst N      new instances that a function may take up at once (default 1000)\n"
     "  --scale-per-10s N    and in ten seconds from then on (default 1000; 0: without limit)\n"
     "  --evict-mb N         with less memory available idle instances go (default a twentieth of the machine's, at most\n"
     "                       1024; 0: never)\n"
     "  --event-retry-s N    before an event whose function failed is run again (default 60, then twice that)\n"
     "  --controllers LIST   which controllers run, as kube-controller-manager reads it: *,-job or -*\n"
     "  --no-scheduler       pods are placed by somebody else's scheduler\n"
     "  --api-only           the API server alone, with Kubernetes' kinds: no controllers, no node, no functions\n"
     "  --authentication-config FILE          issuers of tokens, and where nobody may ask\n"
     "  --authentication-token-webhook-config-file FILE   a kubeconfig that names who knows other tokens\n"
     "  --authentication-token-webhook-cache-ttl TIME     how long its answers are kept (default 2m)\n"
     "  --authentication-token-webhook-version V          of TokenReview: v1beta1 (default) or v1\n"
     "  --authorization-config FILE           who decides what is allowed, in which order\n"
     "  --requestheader-client-ca-file FILE   the CA of front proxies (X-Remote-User ...)\n"
     "  --tls-cert-file FILE, --tls-private-key-file FILE   what the API shows (default: its own)\n"
     "  --client-ca-file FILE                 whose client certificates count, beside the instance's own\n"
     "  --requestheader-allowed-names A,B     their names (default: any)\n"
     "  --audit-policy-file FILE              which requests are noted\n"
     "  --audit-log-path FILE                 where to; - is standard output\n"
     "  --audit-log-maxsize MB, --audit-log-maxbackup N, --audit-log-maxage DAYS\n"
     "  --audit-webhook-config-file FILE      a kubeconfig that names who is told\n", false, false},
    {"down", cmd_down, "", "stop an instance, its containers too, and leave nothing on the host", NULL, false, false},
    {"status", cmd_status, "[--json]", "say what runs and what it takes", NULL, false, false},
    {"kubeconfig", cmd_kubeconfig, "", "print a kubeconfig of the administrator", NULL, false, false},
    {"image", cmd_image, "import --name NAME FILE | ls | rm NAME | pull NAME ...", "container images", NULL, false, true},
    {"deploy", cmd_deploy, "FOLDER|FILE.zip|FILE.wasm [NAME] | --image IMAGE NAME [options]", "make a function of code, print its URL",
     "  --watch, -w          stay, and deploy again whenever a file is saved\n"
     "  --handler F.FUNC     what to call (default: by the names of the files)\n"
     "  --runtime NAME       python3.11, nodejs20.x, provided.al2023, wasm ... (default: by the files)\n"
     "  --http COMMAND       the code is a program that serves HTTP on $PORT, started by this (of an image: '' for its own)\n"
     "  --image IMAGE        a container image instead of a folder or zip\n"
     "  --memory MB          64 to 10240 (default 128)\n"
     "  --timeout SECONDS    1 to 900 (default 3)\n"
     "  --env, -e NAME=VALUE one variable, as often as wanted; NAME- takes one away\n"
     "  --url WHO            none: open to all (default), iam: signed requests, off: no URL\n"
     "  --namespace, -n NS   (default: default)\n"
     "What is not said stays as it is when the function is there already.\n", false, false},
    {"invoke", cmd_invoke, "NAME [PAYLOAD] [--debug]", "call a function (payload: JSON, @FILE or - for standard input)",
     "  --debug              by the instance that `tandem debug NAME` runs, as long as it does\n", false, false},
    {"debug", cmd_debug, "NAME [--port N] [--json]", "stop at breakpoints in a function while other calls go on (Python, Node)",
     "  --port N             of the loopback, for the debugger (default: any)\n"
     "  --json               say where in one line of JSON\n"
     "  --namespace, -n NS   (default: default)\n"
     "Runs one more instance under debugpy (fetched once by pip into STATE/debug) or Node's inspector until it is ended by Ctrl-C.\n"
     "Calls by `tandem invoke --debug` or with the header that it prints go there, all others where they always went.\n", false, false},
    {"logs", cmd_logs, "NAME [-f] [--tail N | --since TIME]", "what a function printed",
     "  --follow, -f         go on with what it prints\n"
     "  --tail N             the last N lines only\n"
     "  --since TIME         30s, 10m, 2h, 1d ago, or 2026-01-31T12:00:00Z\n", false, false},
    {"tail", cmd_tail, "[--since TIME] [--once]", "what all functions print, as they print it",
     "  --since TIME         begin then: 30s, 10m, 2h, 1d ago, or 2026-01-31T12:00:00Z (default: now)\n"
     "  --once               end with what is there\n", false, false},
    {"top", cmd_top, "[--once] [--json]", "functions and workloads of pods at work: rates, times, memory, cost",
     "  --once               print once (as it does when standard output is no terminal)\n", false, false},
    {"trace", cmd_trace, "REQUEST_ID | NAME [--tail N] [--since TIME] [--json]", "where the time of calls went",
     "  --tail N             of a function: its last N calls (default 10)\n"
     "  --since TIME         look back so far (default 1h; of a function: as far as its log goes)\n", false, false},
    {"key", cmd_key, "create | ls | rm ID", "access keys of the AWS door", NULL, false, false},
    {"advise", cmd_advise, "[--json]", "say where each workload belongs, and what it costs there", NULL, false, false},
    {"version", cmd_version, "[--json]", "print the version", NULL, false, false},
    {"controllers", cmd_controllers, "--kubeconfig FILE [--controllers LIST] [--no-scheduler]",
     "our controllers and scheduler for any Kubernetes API server", "  --kubeconfig FILE    the server, and who we are there\n"
     "  --controllers LIST   as for up\n"
     "  --no-scheduler       controllers only\n", true, false},
    {"server", cmd_server, "", "the API server with controllers and scheduler", NULL, true, false},
    {"node", cmd_node, "", "this machine's pods", NULL, true, false},
    {"gateway", cmd_gateway, "", "the data plane: functions and the AWS door", NULL, true, false},
    {NULL, NULL, NULL, NULL, NULL, false, false},
};

static int overview(FILE *to)
{
    fputs("tandem: a Kubernetes and a serverless platform in one program.\n\n"
          "usage: tandem COMMAND [options]      (tandem COMMAND --help says more)\n\n", to);
    for (const struct command *c = COMMANDS; c->name; c++)
        if (!c->hidden)
            fprintf(to, "  %-11s %s\n", c->name, c->promise);
    fputs("\nEvery command takes --state DIR (default /var/lib/tandem, or $TANDEM_STATE).\n", to);
    return to == stdout ? EXIT_SUCCESS : EXIT_USAGE;
}

static int help(const struct command *c)
{
    printf("usage: tandem %s %s\n\n%c%s.\n\n%s%s", c->name, c->synopsis,
           c->promise[0] - 'a' + 'A', c->promise + 1, INSTANCE_OPTIONS, c->help ? c->help : "");
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    struct cli_opts o;
    const char *word = argc > 1 ? argv[1] : NULL;
    int rc;

    signal(SIGPIPE, SIG_IGN);
    if (!word)
        return overview(stderr);
    if (streq(word, "help") || streq(word, "--help") || streq(word, "-h"))
        return overview(stdout);
    if (streq(word, "--version"))
        word = "version";
    for (const struct command *c = COMMANDS; c->name; c++) {
        if (!streq(word, c->name))
            continue;
        argc--;
        argv++;
        rc = c->own_words ? opts_parse_state(&o, &argc, argv) : opts_parse(&o, argc, argv);
        if (!rc)
            rc = o.help ? help(c) : c->run(&o, argc, argv);
        arena_free(o.arena);
        return rc;
    }
    complain(EXIT_USAGE, "there is no command '%s'; 'tandem help' lists them", word);
    return EXIT_USAGE;
}
