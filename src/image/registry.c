#include "image/registry.h"
#include "env/clock.h"

#include <curl/curl.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <strings.h>
#include <unistd.h>

enum { TRIES = 4, CONNECT_MS = 10000, STALL_S = 30 };

struct registry {
    struct registry_options o;
    char *base, *repo, *username, *password, *ca;
    pthread_mutex_t mu;
    char *authorization; /* header line, NULL until somebody asked for it */
};

/* One transfer. */
struct transfer {
    struct registry *r;
    struct buf *body; /* or: */
    int fd;
    struct sha *sha;
    int64_t at, size; /* bytes in fd; expected, -1 unknown */
    bool (*received)(void *arg, int64_t n);
    void *arg;
    long status;
    char www_authenticate[2048], type[128];
    long retry_after_s;
    char error_body[512];
    size_t error_n;
    bool cancelled, too_large;
    int sys; /* errno of a write */
};

static char *dup0(const char *s)
{
    return s ? xstrdup(s) : NULL;
}

static void curl_once(void)
{
    curl_global_init(CURL_GLOBAL_DEFAULT);
}

struct registry *registry_new(const struct registry_options *o)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct registry *r = xcalloc(1, sizeof(*r));

    pthread_once(&once, curl_once);
    r->o = *o;
    r->o.base = r->base = xstrdup(o->base);
    r->o.repo = r->repo = xstrdup(o->repo);
    r->o.username = r->username = dup0(o->username);
    r->o.password = r->password = dup0(o->password);
    r->o.ca = r->ca = dup0(o->ca);
    pthread_mutex_init(&r->mu, NULL);
    return r;
}

void *registry_free(struct registry *r)
{
    if (!r)
        return NULL;
    pthread_mutex_destroy(&r->mu);
    free(r->base);
    free(r->repo);
    free(r->username);
    free(r->password);
    free(r->ca);
    free(r->authorization);
    free(r);
    return NULL;
}

/* --- curl's callbacks --- */

static size_t on_header(char *p, size_t one, size_t n, void *arg)
{
    struct transfer *t = arg;
    struct {
        const char *name;
        char *to;
        size_t max;
    } want[] = {{"www-authenticate:", t->www_authenticate, sizeof(t->www_authenticate)},
                {"content-type:", t->type, sizeof(t->type)}};

    n *= one;
    if (n > 5 && !strncasecmp(p, "HTTP/", 5)) { /* a new answer (after a redirect) */
        t->www_authenticate[0] = t->type[0] = 0;
        t->retry_after_s = 0;
    }
    for (size_t i = 0; i < ARRAY_LEN(want); i++) {
        size_t k = strlen(want[i].name);

        if (n <= k || strncasecmp(p, want[i].name, k))
            continue;
        if (i == 0 && t->www_authenticate[0] && !strncasecmp(t->www_authenticate, "bearer", 6))
            continue; /* of several the first Bearer */
        while (k < n && p[k] == ' ')
            k++;
        snprintf(want[i].to, want[i].max, "%.*s", (int)(n - k), p + k);
        want[i].to[strcspn(want[i].to, "\r\n")] = 0;
    }
    if (n > 12 && n < 40 && !strncasecmp(p, "retry-after:", 12)) {
        char text[40] = {0};

        memcpy(text, p + 12, n - 12);
        t->retry_after_s = strtol(text, NULL, 10);
    }
    return n;
}

static size_t on_body(char *p, size_t one, size_t n, void *arg)
{
    struct transfer *t = arg;

    n *= one;
    if (t->status < 200 || t->status >= 300) { /* an error's text, for the message */
        size_t k = MIN(n, sizeof(t->error_body) - 1 - t->error_n);

        memcpy(t->error_body + t->error_n, p, k);
        t->error_n += k;
        return n;
    }
    if (t->body) {
        buf_add(t->body, p, n);
        t->too_large |= t->body->over;
        return t->body->over ? 0 : n;
    }
    if (t->size >= 0 && t->at + (int64_t)n > t->size) {
        t->too_large = true;
        return 0;
    }
    for (size_t done = 0; done < n;) {
        ssize_t w = pwrite(t->fd, p + done, n - done, t->at + (off_t)done);

        if (w < 0 && errno == EINTR)
            continue;
        if (w < 0) {
            t->sys = errno;
            return 0;
        }
        done += (size_t)w;
    }
    sha_add(t->sha, p, n);
    t->at += (int64_t)n;
    if (t->received && !t->received(t->arg, (int64_t)n)) {
        t->cancelled = true;
        return 0;
    }
    return n;
}

/* The status is known with the first byte of the body only by asking. */
struct body_arg {
    CURL *c;
    struct transfer *t;
    bool begun;
};

static size_t on_body_first(char *p, size_t one, size_t n, void *arg)
{
    struct body_arg *b = arg;

    if (!b->begun) {
        b->begun = true;
        curl_easy_getinfo(b->c, CURLINFO_RESPONSE_CODE, &b->t->status);
        if (b->t->status == 200 && b->t->at > 0) { /* the server does not resume: from the start */
            if (b->t->received)
                b->t->received(b->t->arg, -b->t->at);
            b->t->at = 0;
            sha_done(b->t->sha);
            sha_init(b->t->sha);
        }
    }
    return on_body(p, one, n, b->t);
}

static int on_progress(void *arg, curl_off_t total, curl_off_t now, curl_off_t ut, curl_off_t un)
{
    struct transfer *t = arg;

    (void)total;
    (void)now;
    (void)ut;
    (void)un;
    if (t->r->o.progress && !t->r->o.progress(t->r->o.arg, NULL, -1, -1))
        t->cancelled = true;
    return t->cancelled;
}

/* One GET. 0 when an answer came, whatever its status; -1 when none came. */
static int get_once(struct transfer *t, const char *url, const char *const *headers,
                    const char *authorization, struct err *err)
{
    struct registry *r = t->r;
    struct curl_slist *list = NULL;
    CURL *c = curl_easy_init();
    struct body_arg b = {c, t, false};
    char text[CURL_ERROR_SIZE] = "";
    CURLcode code;
    int64_t left = r->o.deadline_ms - clock_mono_ms();

    ASSERT(c);
    if (left <= 0) {
        curl_easy_cleanup(c);
        return err_set(err, TIMEOUT, "%s took too long", r->base);
    }
    t->status = 0;
    t->error_n = 0;
    memset(t->error_body, 0, sizeof(t->error_body));
    for (; headers && *headers; headers++)
        list = curl_slist_append(list, *headers);
    if (authorization)
        list = curl_slist_append(list, authorization);
    curl_easy_setopt(c, CURLOPT_URL, url);
    curl_easy_setopt(c, CURLOPT_HTTPHEADER, list);
    curl_easy_setopt(c, CURLOPT_USERAGENT, "tandem/0.1");
    curl_easy_setopt(c, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(c, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(c, CURLOPT_MAXREDIRS, 5L);
    curl_easy_setopt(c, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(c, CURLOPT_REDIR_PROTOCOLS_STR, str_starts(url, "https:") ? "https" : "http,https");
    curl_easy_setopt(c, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
    curl_easy_setopt(c, CURLOPT_TIMEOUT_MS, (long)left);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_LIMIT, 100L);
    curl_easy_setopt(c, CURLOPT_LOW_SPEED_TIME, (long)STALL_S);
    curl_easy_setopt(c, CURLOPT_ERRORBUFFER, text);
    curl_easy_setopt(c, CURLOPT_HEADERFUNCTION, on_header);
    curl_easy_setopt(c, CURLOPT_HEADERDATA, t);
    curl_easy_setopt(c, CURLOPT_WRITEFUNCTION, on_body_first);
    curl_easy_setopt(c, CURLOPT_WRITEDATA, &b);
    curl_easy_setopt(c, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(c, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(c, CURLOPT_XFERINFODATA, t);
    if (r->o.insecure) {
        curl_easy_setopt(c, CURLOPT_SSL_VERIFYPEER, 0L);
        curl_easy_setopt(c, CURLOPT_SSL_VERIFYHOST, 0L);
    }
    if (r->ca)
        curl_easy_setopt(c, CURLOPT_CAINFO, r->ca);
    if (t->at > 0)
        curl_easy_setopt(c, CURLOPT_RESUME_FROM_LARGE, (curl_off_t)t->at);
    code = curl_easy_perform(c);
    curl_easy_getinfo(c, CURLINFO_RESPONSE_CODE, &t->status);
    curl_slist_free_all(list);
    curl_easy_cleanup(c);
    if (t->cancelled)
        return err_set(err, CANCELLED, "cancelled");
    if (t->too_large)
        return err_set(err, INVALID, "%s sent more than it should", url);
    if (t->sys) {
        errno = t->sys;
        return err_sys(err, "write what %s sent", r->base);
    }
    if (code == CURLE_OPERATION_TIMEDOUT)
        return err_set(err, TIMEOUT, "%s: %s", url, *text ? text : curl_easy_strerror(code));
    if (code != CURLE_OK && code != CURLE_HTTP_RETURNED_ERROR)
        return err_set(err, BAD_GATEWAY, "%s: %s", url, *text ? text : curl_easy_strerror(code));
    return 0;
}

/* --- authentication --- */

/* key="value" of a challenge. */
static char *challenge(const char *line, const char *key)
{
    size_t n = strlen(key);

    for (const char *p = line; (p = strcasestr(p, key)); p += n) {
        const char *v = p + n, *end;

        if (v[0] != '=' || (p != line && !strchr(" ,", p[-1])))
            continue;
        v++;
        if (*v == '"') {
            end = strchr(++v, '"');
            return end ? xstrndup(v, (size_t)(end - v)) : NULL;
        }
        return xstrndup(v, strcspn(v, ", "));
    }
    return NULL;
}

static char *basic(const struct registry *r)
{
    _auto_(freep) char *pair = xasprintf("%s:%s", r->username, r->password ? r->password : "");
    size_t n = strlen(pair);
    _auto_(freep) char *text = xmalloc(n * 2 + 8);

    EVP_EncodeBlock((unsigned char *)text, (const unsigned char *)pair, (int)n);
    return xasprintf("Authorization: Basic %s", text);
}

static char *url_escaped(const char *s)
{
    struct buf b = {0};

    for (; *s; s++)
        if (isalnum((unsigned char)*s) || strchr("-._~", *s))
            buf_addc(&b, *s);
        else
            buf_printf(&b, "%%%02X", (unsigned char)*s);
    return buf_take(&b);
}

/* mu is held. Does what the challenge asks; sets r->authorization. */
static int authenticate(struct registry *r, const char *line, struct err *err)
{
    _auto_(freep) char *realm = NULL, *service = NULL, *scope = NULL, *url = NULL, *own = NULL;
    _auto_(freep) char *service_e = NULL, *scope_e = NULL;
    _auto_(arena_freep) struct arena *a = arena_new();
    struct transfer t = {.r = r, .fd = -1, .size = -1};
    struct buf body = {.max = JSON_BLOB_MAX};
    const struct val *v;
    const char *token = NULL;
    int rc;

    if (!strncasecmp(line, "basic", 5)) {
        if (!r->username)
            return err_set(err, UNAUTHENTICATED, "%s wants a user name and a password", r->base);
        free(r->authorization);
        r->authorization = basic(r);
        return 0;
    }
    realm = strncasecmp(line, "bearer", 6) ? NULL : challenge(line, "realm");
    if (!realm || !(str_starts(realm, "https://") || str_starts(realm, "http://")))
        return err_set(err, UNAUTHENTICATED, "%s wants an authentication of an unknown kind", r->base);
    if (str_starts(realm, "http://") && str_starts(r->base, "https://") && r->username)
        return err_set(err, UNAUTHENTICATED, "%s wants the password over plain http", r->base);
    service = challenge(line, "service");
    scope = challenge(line, "scope");
    if (!scope)
        scope = xasprintf("repository:%s:pull", r->repo);
    service_e = url_escaped(service ? service : "");
    scope_e = url_escaped(scope);
    url = xasprintf("%s%cservice=%s&scope=%s", realm, strchr(realm, '?') ? '&' : '?', service_e, scope_e);
    own = r->username ? basic(r) : NULL;
    t.body = &body;
    rc = get_once(&t, url, NULL, own, err);
    if (rc == 0 && t.status != 200)
        rc = err_set_(err, t.status == 401 || t.status == 403 ? ERR_UNAUTHENTICATED : ERR_BAD_GATEWAY, 0,
                      "%s gives no token: HTTP %ld %.100s", realm, t.status, t.error_body);
    if (rc == 0 && (v = json_parse(a, body.p ? body.p : "", body.n, err)))
        token = val_str_at(v, "token", NULL) ?: val_str_at(v, "access_token", NULL);
    buf_done(&body);
    if (rc < 0)
        return -1;
    if (str_empty(token) || strpbrk(token, "\r\n"))
        return err_set(err, BAD_GATEWAY, "%s gives no token", realm);
    free(r->authorization);
    r->authorization = xasprintf("Authorization: Bearer %s", token);
    return 0;
}

/* --- GET with all of that --- */

static char *first_message(const char *body)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err ignored = {0};
    const struct val *v = json_parse(a, body, strlen(body), &ignored);
    const char *m = v ? val_str_at(v, "errors[0].message", NULL) : NULL;

    return xstrdup(m ? m : "");
}

static int status_error(struct transfer *t, const char *url, struct err *err)
{
    _auto_(freep) char *why = first_message(t->error_body);
    enum err_code code = t->status == 404   ? ERR_NOT_FOUND
                         : t->status == 401 ? ERR_UNAUTHENTICATED
                         : t->status == 403 ? ERR_FORBIDDEN
                         : t->status == 429 ? ERR_TOO_MANY
                                            : ERR_BAD_GATEWAY;

    return err_set_(err, code, 0, "%s: HTTP %ld%s%.150s", url, t->status, *why ? " " : "", why);
}

static int pause_ms(struct transfer *t, int64_t ms, struct err *err)
{
    int64_t until = MIN(clock_mono_ms() + ms, t->r->o.deadline_ms);

    while (clock_mono_ms() < until) {
        if (on_progress(t, 0, 0, 0, 0))
            return err_set(err, CANCELLED, "cancelled");
        usleep(50000);
    }
    return 0;
}

static int get(struct transfer *t, const char *url, const char *const *headers, struct err *err)
{
    struct registry *r = t->r;
    bool asked = false;

    for (int tries = 1;; tries++) {
        _auto_(freep) char *auth = NULL;
        struct err e = {0};
        int rc;

        pthread_mutex_lock(&r->mu);
        auth = dup0(r->authorization);
        pthread_mutex_unlock(&r->mu);
        if (t->body)
            buf_reset(t->body);
        rc = get_once(t, url, headers, auth, &e);
        if (rc == 0 && t->status >= 200 && t->status < 300)
            return 0;
        if (rc == 0 && t->status == 401 && !asked && t->www_authenticate[0]) {
            asked = true;
            pthread_mutex_lock(&r->mu);
            if (streq0(auth, r->authorization)) /* else another thread has renewed it */
                rc = authenticate(r, t->www_authenticate, &e);
            pthread_mutex_unlock(&r->mu);
            if (rc == 0) {
                tries--;
                continue;
            }
        } else if (rc == 0) {
            status_error(t, url, &e);
        }
        if (tries >= TRIES || !err_retry(e.code) || e.code == ERR_NO_SPACE || e.sys ||
            clock_mono_ms() >= r->o.deadline_ms) {
            *err = e;
            return -1;
        }
        if (pause_ms(t, t->retry_after_s > 0 ? MIN(t->retry_after_s, 30) * 1000 : 100 << tries, err) < 0)
            return -1;
    }
}

int registry_get(struct registry *r, const char *kind, const char *ref, struct buf *ret,
                 char ret_type[128], struct err *err)
{
    static const char *const accept[] = {
        "Accept: application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
        "application/vnd.docker.distribution.manifest.list.v2+json, "
        "application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1",
        NULL};
    _auto_(freep) char *url = xasprintf("%s/v2/%s/%s/%s", r->base, r->repo, kind, ref);
    struct transfer t = {.r = r, .body = ret, .fd = -1, .size = -1};
    char digest[DIGEST_N + 1];

    ret->max = JSON_BLOB_MAX;
    if (get(&t, url, streq(kind, "manifests") ? accept : NULL, err) < 0)
        return -1;
    if (image_digest_ok(ref)) {
        sha_of(ret->p ? ret->p : "", ret->n, digest);
        if (!streq(digest, ref))
            return err_set(err, INVALID, "%s sent %s when asked for %s", r->base, digest, ref);
    }
    snprintf(ret_type, 128, "%s", t.type);
    return 0;
}

int registry_blob(struct registry *r, const char *digest, int64_t size, int fd,
                  bool (*received)(void *arg, int64_t n), void *arg, struct err *err)
{
    _auto_(freep) char *url = xasprintf("%s/v2/%s/blobs/%s", r->base, r->repo, digest);
    struct sha sha;
    struct transfer t = {.r = r, .fd = fd, .sha = &sha, .size = size, .received = received, .arg = arg};
    char got[DIGEST_N + 1];

    sha_init(&sha);
    if (get(&t, url, NULL, err) < 0) {
        sha_done(&sha);
        return -1;
    }
    sha_end(&sha, got);
    if (t.at != size)
        return err_set(err, INVALID, "%s: %lld bytes came, the manifest says %lld", url, (long long)t.at,
                       (long long)size);
    if (!streq(got, digest))
        return err_set(err, INVALID, "%s sent a blob with digest %s when asked for %s", r->base, got, digest);
    if (ftruncate(fd, size) < 0)
        return err_sys(err, "truncate a blob");
    return 0;
}
