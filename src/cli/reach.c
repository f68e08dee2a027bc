/* How a sub-command reaches its running instance: HTTPS to the API as the administrator, or HTTP
 * over one of the instance's unix sockets. Blocking, by libcurl: a command has nothing else to do. */
#include "cli/cli.h"

#include "base/buf.h"
#include "codec/json.h"
#include "codec/yaml.h"
#include "env/fs.h"

#include <curl/curl.h>
#include <openssl/evp.h>

enum { ANSWER_MAX = 256 << 20 };

static size_t collect(char *p, size_t size, size_t n, void *arg)
{
    struct buf *b = arg;

    buf_add(b, p, size * n);
    return b->over ? 0 : size * n;
}

/* Base64 into the arena; 0 bytes when it is none. */
static struct curl_blob blob_of(struct arena *a, const char *base64)
{
    size_t n = strlen(base64);
    unsigned char *out = arena_raw(a, n + 1);
    int got = EVP_DecodeBlock(out, (const unsigned char *)base64, (int)n);

    while (got > 0 && n && base64[n - 1] == '=') {
        got--;
        n--;
    }
    return (struct curl_blob){.data = out, .len = got > 0 ? (size_t)got : 0, .flags = CURL_BLOB_COPY};
}

static int use_kubeconfig(CURL *curl, const struct cli_opts *o, struct arena *a, const char **ret_server,
                          struct err *err)
{
    _auto_(freep) char *path = xasprintf("%s/kubeconfig", o->state);
    struct curl_blob ca, cert, key;
    struct val *v;
    char *text;
    size_t n;

    text = fs_read(path, 1 << 20, &n, err);
    if (!text)
        return err_set(err, UNAVAILABLE, "no instance has run with the state folder %s; start one "
                       "with: tandem up --detach --state %s", o->state, o->state);
    v = yaml_parse(a, text, n, NULL, NULL, err);
    free(text);
    if (!v)
        return err_wrap(err, "%s", path);
    ca = blob_of(a, val_str_at(v, "clusters[0].cluster.certificate-authority-data", ""));
    cert = blob_of(a, val_str_at(v, "users[0].user.client-certificate-data", ""));
    key = blob_of(a, val_str_at(v, "users[0].user.client-key-data", ""));
    *ret_server = val_str_at(v, "clusters[0].cluster.server", "");
    curl_easy_setopt(curl, CURLOPT_CAINFO_BLOB, &ca);
    curl_easy_setopt(curl, CURLOPT_SSLCERT_BLOB, &cert);
    curl_easy_setopt(curl, CURLOPT_SSLKEY_BLOB, &key);
    return 0;
}

static int perform(CURL *curl, const struct cli_opts *o, const char *method, const char *body,
                   size_t body_n, struct buf *answer, long *ret_status, struct err *err)
{
    CURLcode rc;

    buf_init(answer, ANSWER_MAX);
    curl_easy_setopt(curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, collect);
    curl_easy_setopt(curl, CURLOPT_WRITEDATA, answer);
    curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT, 5L);
    curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
    if (body) {
        curl_easy_setopt(curl, CURLOPT_POSTFIELDS, body);
        curl_easy_setopt(curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body_n);
    }
    rc = curl_easy_perform(curl);
    if (rc == CURLE_COULDNT_CONNECT)
        return err_set(err, UNAVAILABLE, "the instance of %s does not answer; start it with: "
                       "tandem up --detach --state %s", o->state, o->state);
    if (rc != CURLE_OK)
        return err_set(err, UNAVAILABLE, "%s", curl_easy_strerror(rc));
    curl_easy_getinfo(curl, CURLINFO_RESPONSE_CODE, ret_status);
    return 0;
}

/* An answer of 4xx or 5xx as an error, with the text that the door gave. */
static int refused(struct arena *a, long status, const struct buf *answer, struct err *err)
{
    struct err ignored;
    struct val *v = json_parse(a, answer->p ? answer->p : "", answer->n, &ignored);
    const char *text = val_str_at(v, "message", val_str_at(v, "Message", NULL));

    if (!text)
        text = answer->n ? arena_strndup(a, answer->p, MIN(answer->n, (size_t)300)) : "no text";
    if (status == 404)
        return err_set(err, NOT_FOUND, "%s", text);
    if (status == 409)
        return err_set(err, ALREADY_EXISTS, "%s", text);
    return err_set(err, INTERNAL, "%s (HTTP %ld)", text, status);
}

struct val *api_request(const struct cli_opts *o, struct arena *a, const char *method,
                        const char *path, const struct val *body, struct err *err)
{
    struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    CURL *curl = curl_easy_init();
    struct buf answer = {0};
    const char *server, *text = NULL;
    struct val *v = NULL;
    size_t n = 0;
    long status = 0;

    if (use_kubeconfig(curl, o, a, &server, err) == 0) {
        curl_easy_setopt(curl, CURLOPT_URL, arena_printf(a, "%s%s", server, path));
        if (streq(method, "PATCH")) {
            curl_slist_free_all(headers);
            headers = curl_slist_append(NULL, "Content-Type: application/merge-patch+json");
        }
        curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
        if (body)
            text = json_text(a, body, &n);
        if (perform(curl, o, method, text, n, &answer, &status, err) == 0) {
            if (status >= 400)
                refused(a, status, &answer, err);
            else
                v = json_parse(a, answer.p ? answer.p : "", answer.n, err);
        }
    }
    buf_done(&answer);
    curl_slist_free_all(headers);
    curl_easy_cleanup(curl);
    return v;
}

struct piece {
    CURL *curl;
    struct buf refusal;
    bool (*fn)(void *arg, const char *p, size_t n);
    void *arg;
    bool stopped;
};

static size_t hand_on(char *p, size_t size, size_t n, void *arg)
{
    struct piece *s = arg;
    long status = 0;

    curl_easy_getinfo(s->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status >= 400)
        return collect(p, size, n, &s->refusal);
    s->stopped = !s->fn(s->arg, p, size * n);
    return s->stopped ? 0 : size * n;
}

int socket_stream(const struct cli_opts *o, const char *socket, const char *path, bool (*fn)(void *arg, const char *p, size_t n),
                  void *arg, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct piece s = {.curl = curl_easy_init(), .refusal = {.max = 1 << 20}, .fn = fn, .arg = arg};
    long status = 0;
    CURLcode code;
    int rc = 0;

    curl_easy_setopt(s.curl, CURLOPT_UNIX_SOCKET_PATH, arena_printf(a, "%s/run/%s.sock", o->state, socket));
    curl_easy_setopt(s.curl, CURLOPT_URL, arena_printf(a, "http://localhost%s", path));
    curl_easy_setopt(s.curl, CURLOPT_WRITEFUNCTION, hand_on);
    curl_easy_setopt(s.curl, CURLOPT_WRITEDATA, &s);
    curl_easy_setopt(s.curl, CURLOPT_CONNECTTIMEOUT, 5L);
    curl_easy_setopt(s.curl, CURLOPT_NOPROXY, "*");
    code = curl_easy_perform(s.curl);
    curl_easy_getinfo(s.curl, CURLINFO_RESPONSE_CODE, &status);
    if (code == CURLE_COULDNT_CONNECT)
        rc = err_set(err, UNAVAILABLE, "the instance of %s does not answer; start it with: tandem up --detach --state %s", o->state,
                     o->state);
    else if (status >= 400)
        rc = refused(a, status, &s.refusal, err);
    else if (code != CURLE_OK && !s.stopped && !status)
        rc = err_set(err, UNAVAILABLE, "%s", curl_easy_strerror(code));
    buf_done(&s.refusal);
    curl_easy_cleanup(s.curl);
    return rc;
}

int socket_request(const struct cli_opts *o, struct arena *a, const char *socket,
                   const char *method, const char *path, const char *body, size_t body_n,
                   char **ret_body, size_t *ret_n, struct err *err)
{
    CURL *curl = curl_easy_init();
    struct buf answer = {0};
    long status = 0;
    int rc;

    curl_easy_setopt(curl, CURLOPT_UNIX_SOCKET_PATH,
                     arena_printf(a, "%s/run/%s.sock", o->state, socket));
    curl_easy_setopt(curl, CURLOPT_URL, arena_printf(a, "http://localhost%s", path));
    rc = perform(curl, o, method, body, body_n, &answer, &status, err);
    if (rc == 0 && status >= 400)
        rc = refused(a, status, &answer, err);
    if (rc == 0) {
        *ret_body = arena_strndup(a, answer.p ? answer.p : "", answer.n);
        *ret_n = answer.n;
    }
    buf_done(&answer);
    curl_easy_cleanup(curl);
    return rc;
}
