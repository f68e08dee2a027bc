/* Lambda's Extensions API, 2020-01-01: programs in /opt/extensions that live beside the runtime, and
 * threads of the runtime that registered as internal ones.
 *
 *   started (external) --register--> registered --event/next--> ready --INVOKE--> busy --event/next--> ready ...
 *   any --SHUTDOWN--> it has until the end to leave
 *
 * The runtime is started when all external ones are registered; the instance is initialised when they and
 * the runtime are ready; an invocation is given when they are. Its answer goes out at once: who is busy
 * longer holds up the next invocation only. */
#include "function/runtime/api_int.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum { EXTS_MAX = 10, NAME_MAX_BYTES = 128 };

static struct ext {
    char name[NAME_MAX_BYTES + 1], id[40];
    pid_t pid; /* 0: internal, or gone */
    bool external, registered, gone, wants_invoke, wants_shutdown;
    bool told;  /* subscribers know that it was ready once */
    bool ready; /* it asked for the next event and has none */
    struct conn *c; /* where it waits */
} exts[EXTS_MAX];
static int exts_n;
static const char *ending; /* the reason, when everything ends */
static uint64_t ending_ms;

static void new_id(char out[40])
{
    unsigned char b[16] = {0};

    (void)!getrandom(b, sizeof b, 0);
    snprintf(out, 40, "%02x%02x%02x%02x-%02x%02x-4%x%02x-%x%x%02x-%02x%02x%02x%02x%02x%02x", b[0], b[1], b[2], b[3], b[4], b[5],
             b[6] & 15, b[7], 8 | (b[8] & 3), b[8] >> 4, b[9], b[10], b[11], b[12], b[13], b[14], b[15]);
}

/* ---- processes ---- */

static void start_one(const char *name)
{
    struct ext *e = &exts[exts_n];
    char path[NAME_MAX_BYTES + 32];
    struct stat st;
    int out;

    snprintf(path, sizeof path, "/opt/extensions/%s", name);
    if (strlen(name) > NAME_MAX_BYTES || stat(path, &st) < 0 || !S_ISREG(st.st_mode) || access(path, X_OK) < 0)
        return;
    out = telemetry_pipe(true);
    *e = (struct ext){.external = true, .pid = fork()};
    if (e->pid && out >= 0)
        close(out);
    if (e->pid < 0)
        return;
    if (e->pid == 0) {
        sigset_t none;

        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        close(3);
        if (out >= 0 && (dup2(out, 1) < 0 || dup2(out, 2) < 0))
            _exit(126);
        unsetenv("_HANDLER");
        execl(path, path, (char *)NULL);
        dprintf(2, "EXTENSION\tName: %s\tState: LaunchError\tError: %s\n", name, strerror(errno));
        _exit(127);
    }
    snprintf(e->name, sizeof e->name, "%s", name);
    exts_n++;
}

void ext_start(void)
{
    struct dirent **names;
    int n = scandir("/opt/extensions", &names, NULL, alphasort);

    for (int i = 0; i < n; i++) {
        if (exts_n < EXTS_MAX && names[i]->d_name[0] != '.')
            start_one(names[i]->d_name);
        free(names[i]);
    }
    if (n >= 0)
        free(names);
}

bool ext_all_registered(void)
{
    for (int i = 0; i < exts_n; i++)
        if (exts[i].external && !exts[i].registered)
            return false;
    return true;
}

bool ext_all_ready(void)
{
    for (int i = 0; i < exts_n; i++)
        if (!exts[i].ready)
            return false;
    return true;
}

int ext_kind(void)
{
    int kind = 0;

    for (int i = 0; i < exts_n; i++)
        kind = exts[i].external ? 1 : kind ? kind : 2;
    return kind;
}

/* ---- events ---- */

static void send_event(struct ext *e, const struct buf *text)
{
    struct conn *c = e->c;

    e->ready = false;
    e->c = NULL;
    c->ext = NULL;
    buf_printf(&c->out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLambda-Extension-Event-Identifier: %s\r\nContent-Length: %zu\r\n\r\n",
               e->id, text->n);
    buf_add(&c->out, text->p, text->n);
}

/* JSON text of n bytes that came from the gateway (ids, ARNs): what could end a string is left out. */
static void add_text(struct buf *b, const char *p, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((uint8_t)p[i] >= ' ' && p[i] != '"' && p[i] != '\\')
            buf_addc(b, p[i]);
}

void ext_invoke(const struct instance_frame *f, const char *texts)
{
    struct buf b = {0};

    buf_printf(&b, "{\"eventType\":\"INVOKE\",\"deadlineMs\":%llu,\"requestId\":\"", (unsigned long long)f->a);
    add_text(&b, texts, f->request_id_n);
    buf_adds(&b, "\",\"invokedFunctionArn\":\"");
    add_text(&b, texts + f->request_id_n + f->trace_n, f->arn_n);
    buf_adds(&b, "\",\"tracing\":{\"type\":\"X-Amzn-Trace-Id\",\"value\":\"");
    add_text(&b, texts + f->request_id_n, f->trace_n);
    buf_adds(&b, "\"}}");
    for (int i = 0; i < exts_n; i++)
        if (exts[i].wants_invoke && exts[i].ready)
            send_event(&exts[i], &b);
    buf_done(&b);
}

static void send_shutdown(struct ext *e)
{
    struct buf b = {0};

    buf_printf(&b, "{\"eventType\":\"SHUTDOWN\",\"shutdownReason\":\"%s\",\"deadlineMs\":%llu}", ending, (unsigned long long)ending_ms);
    send_event(e, &b);
    buf_done(&b);
}

bool ext_shutdown(const char *reason, uint64_t deadline_ms)
{
    bool waits = false;

    ending = reason;
    ending_ms = deadline_ms;
    for (int i = 0; i < exts_n; i++) {
        struct ext *e = &exts[i];

        if (e->wants_shutdown && e->ready)
            send_shutdown(e);
        else if (e->pid > 0 && !e->wants_shutdown)
            kill(e->pid, SIGKILL);
        waits |= e->pid > 0;
    }
    return waits;
}

bool ext_exited(pid_t pid, const char **ret_name)
{
    for (int i = 0; i < exts_n; i++)
        if (exts[i].pid == pid) {
            exts[i].pid = 0;
            exts[i].gone = true;
            *ret_name = exts[i].name;
            return true;
        }
    return false;
}

bool ext_any_alive(void)
{
    for (int i = 0; i < exts_n; i++)
        if (exts[i].pid > 0)
            return true;
    return false;
}

void ext_conn_gone(struct conn *c)
{
    c->ext->c = NULL;
    c->ext->ready = false;
    c->ext = NULL;
}

/* ---- requests ---- */

static void bad(struct conn *c, int status, const char *type, const char *message)
{
    conn_error(c, status, status == 403 ? "Forbidden" : "Bad Request", type, message);
}

static struct ext *by_id(struct conn *c)
{
    const char *id = conn_field(c, "Lambda-Extension-Identifier");

    if (!id) {
        bad(c, 403, "Extension.MissingExtensionIdentifier", "Missing Lambda-Extension-Identifier header");
        return NULL;
    }
    for (int i = 0; i < exts_n; i++)
        if (exts[i].registered && streq(exts[i].id, id))
            return &exts[i];
    bad(c, 403, strlen(id) == 36 ? "Extension.UnknownExtensionIdentifier" : "Extension.InvalidExtensionIdentifier", "Unknown extension");
    return NULL;
}

/* The external one of that name, or a fresh internal one; NULL: an error was answered. */
static struct ext *to_register(struct conn *c, const char *name, bool inited)
{
    for (int i = 0; i < exts_n; i++)
        if (streq(exts[i].name, name)) {
            if (!exts[i].registered)
                return &exts[i];
            bad(c, 403, "Extension.AlreadyRegistered", "Extension with this name already registered");
            return NULL;
        }
    if (inited || exts_n == EXTS_MAX) {
        bad(c, 403, inited ? "Extension.RegistrationClosed" : "Extension.TooManyExtensions", "Extension registration closed already");
        return NULL;
    }
    exts[exts_n] = (struct ext){0};
    snprintf(exts[exts_n].name, sizeof exts[exts_n].name, "%s", name);
    return &exts[exts_n++];
}

static const char *env(const char *name)
{
    const char *s = getenv(name);

    return s ? s : "";
}

static void on_register(struct conn *c, bool inited)
{
    const char *name = conn_field(c, "Lambda-Extension-Name"), *body = c->body.n ? c->body.p : "", *events = strstr(body, "\"events\"");
    bool invoke = events && strstr(events, "\"INVOKE\""), shutdown = events && strstr(events, "\"SHUTDOWN\"");
    struct buf b = {0};
    struct ext *e;

    if (str_empty(name) || strlen(name) > NAME_MAX_BYTES || strpbrk(name, "\"\\")) {
        bad(c, 403, "Extension.InvalidExtensionName", "Empty or too long extension name");
        return;
    }
    if (*body != '{') {
        bad(c, 400, "InvalidRequestFormat", "the body is no JSON object");
        return;
    }
    e = to_register(c, name, inited);
    if (!e)
        return;
    if (!e->external && shutdown) {
        exts_n--;
        bad(c, 403, "Extension.InvalidEventType", "ShutdownEventNotSupportedForInternalExtension");
        return;
    }
    e->registered = true;
    e->wants_invoke = invoke;
    e->wants_shutdown = shutdown;
    new_id(e->id);
    buf_printf(&b, "{\"functionName\":\"%s\",\"functionVersion\":\"%s\",\"handler\":\"", env("AWS_LAMBDA_FUNCTION_NAME"), env("AWS_LAMBDA_FUNCTION_VERSION"));
    add_text(&b, env("_HANDLER"), strlen(env("_HANDLER")));
    buf_adds(&b, "\"}");
    buf_printf(&c->out, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLambda-Extension-Identifier: %s\r\nContent-Length: %zu\r\n\r\n", e->id, b.n);
    buf_add(&c->out, b.p, b.n);
    buf_done(&b);
}

static void on_next(struct conn *c)
{
    struct ext *e = by_id(c);

    if (!e)
        return;
    if (e->c) { /* it asked twice: the older one gets nothing more */
        e->c->ext = NULL;
        e->c->close = true;
    }
    if (!e->told) {
        e->told = true;
        telemetry_event("platform.extension", "{\"name\":\"%s\",\"state\":\"Ready\",\"events\":[%s%s%s]}", e->name,
                        e->wants_invoke ? "\"INVOKE\"" : "", e->wants_invoke && e->wants_shutdown ? "," : "",
                        e->wants_shutdown ? "\"SHUTDOWN\"" : "");
    }
    e->ready = true;
    e->c = c;
    c->ext = e;
    if (ending && e->wants_shutdown)
        send_shutdown(e);
}

const char *ext_name(struct conn *c)
{
    struct ext *e = by_id(c);

    return e ? e->name : NULL;
}

const char *ext_request(struct conn *c, const char *what, bool get, bool inited)
{
    static char type[160];
    const char *said = conn_field(c, "Lambda-Extension-Function-Error-Type");

    if (!get && streq(what, "register")) {
        on_register(c, inited);
    } else if (get && streq(what, "event/next")) {
        on_next(c);
    } else if (!get && (streq(what, "init/error") || streq(what, "exit/error"))) {
        if (!by_id(c))
            return NULL;
        if (str_empty(said)) {
            bad(c, 403, "Extension.MissingHeader", "Lambda-Extension-Function-Error-Type not found");
            return NULL;
        }
        conn_accepted(c);
        snprintf(type, sizeof type, "%s", said);
        return type;
    } else {
        conn_error(c, 404, "Not Found", "NotFound", "404 page not found");
    }
    return NULL;
}
