/* auth/sigv4.c - see sigv4.h. The canonical request is put together anew from what came in and
 * compared by its MAC, in constant time. */
#include "auth/sigv4.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>

#include "base/buf.h"

enum { SKEW_S = 15 * 60, EXPIRES_MAX_S = 7 * 24 * 3600 };
#define ALGORITHM "AWS4-HMAC-SHA256"

void sigv4_hex(const unsigned char *p, size_t n, char *ret)
{
    static const char digits[] = "0123456789abcdef";

    for (size_t i = 0; i < n; i++) {
        ret[2 * i] = digits[p[i] >> 4];
        ret[2 * i + 1] = digits[p[i] & 15];
    }
    ret[2 * n] = 0;
}

void sigv4_sha256_hex(const void *p, size_t n, char ret[SIGV4_HEX_BYTES])
{
    unsigned char sum[32];

    EVP_Digest(p, n, sum, NULL, EVP_sha256(), NULL);
    sigv4_hex(sum, 32, ret);
}

static void mac(const void *key, size_t key_n, const void *p, size_t n, unsigned char ret[32])
{
    unsigned len = 32;

    HMAC(EVP_sha256(), key, (int)key_n, p, n, ret, &len);
}

/* ---- what the request claims ---- */

static int find_scope(struct arena *a, const char *credential, struct sigv4 *s, struct err *err)
{
    char *save = NULL, *part[6];
    int n = 0;

    /* KEY/20260101/us-east-1/s3/aws4_request; a key id holds no '/' */
    for (char *p = strtok_r(arena_strdup(a, credential), "/", &save); p && n < 6;
         p = strtok_r(NULL, "/", &save))
        part[n++] = p;
    if (n != 5 || !streq(part[4], "aws4_request"))
        return err_set(err, INVALID_ARGUMENT, "the credential scope is malformed");
    s->key_id = part[0];
    s->date = part[1];
    s->region = part[2];
    s->service = part[3];
    return 0;
}

/* The value of NAME=value in an Authorization header. */
static const char *find_part(struct arena *a, const char *header, const char *name)
{
    size_t n = strlen(name);

    for (const char *p = header; p; p = strchr(p, ',') ? strchr(p, ',') + 1 : NULL) {
        p += strspn(p, " \t");
        if (strncmp(p, name, n) == 0 && p[n] == '=') {
            const char *v = p + n + 1;

            return arena_strndup(a, v, strcspn(v, ", \t"));
        }
    }
    return NULL;
}

static int find_query(struct http_req *req, struct sigv4 *s, struct err *err)
{
    const char *credential = http_param(req, "X-Amz-Credential");
    const char *expires = http_param(req, "X-Amz-Expires");

    s->kind = SIGV4_QUERY;
    s->amz_date = http_param(req, "X-Amz-Date");
    s->signed_headers = http_param(req, "X-Amz-SignedHeaders");
    s->signature = http_param(req, "X-Amz-Signature");
    if (!credential || !s->amz_date || !s->signed_headers || !s->signature)
        return err_set(err, INVALID_ARGUMENT,
                       "Query-string authentication version 4 requires the X-Amz-Algorithm, X-Amz-Credential,"
                       " X-Amz-Signature, X-Amz-Date, X-Amz-SignedHeaders, and X-Amz-Expires parameters.");
    s->expires_s = expires ? strtoll(expires, NULL, 10) : 300;
    if (s->expires_s < 0 || s->expires_s > EXPIRES_MAX_S)
        return err_set(err, INVALID_ARGUMENT, "X-Amz-Expires must be between 0 and 604800 seconds");
    return find_scope(req->arena, credential, s, err);
}

int sigv4_find(struct http_req *req, struct sigv4 *ret, struct err *err)
{
    const char *header = http_get(req, "authorization"), *algorithm, *credential;
    struct arena *a = req->arena;

    *ret = (struct sigv4){.date = "", .region = "", .service = ""};
    algorithm = http_param(req, "X-Amz-Algorithm");
    if (!header && algorithm) {
        if (!streq(algorithm, ALGORITHM))
            return err_set(err, INVALID_ARGUMENT, "only " ALGORITHM " is spoken here");
        return find_query(req, ret, err);
    }
    if (!header && http_param(req, "AWSAccessKeyId") && http_param(req, "Signature")) {
        const char *expires = http_param(req, "Expires");

        ret->kind = SIGV2_QUERY;
        ret->key_id = http_param(req, "AWSAccessKeyId");
        ret->signature = http_param(req, "Signature");
        ret->expires_s = expires ? strtoll(expires, NULL, 10) : 0;
        return 0;
    }
    if (!header)
        return 0;
    if (strncmp(header, ALGORITHM " ", sizeof ALGORITHM) != 0)
        return err_set(err, INVALID_ARGUMENT, "the Authorization header is not of " ALGORITHM);
    header += sizeof ALGORITHM;
    ret->kind = SIGV4_HEADER;
    credential = find_part(a, header, "Credential");
    ret->signed_headers = find_part(a, header, "SignedHeaders");
    ret->signature = find_part(a, header, "Signature");
    ret->amz_date = http_get(req, "x-amz-date");
    if (!credential || !ret->signed_headers || !ret->signature || !ret->amz_date)
        return err_set(err, INVALID_ARGUMENT,
                       "the Authorization header needs Credential, SignedHeaders and Signature, and the "
                       "request a X-Amz-Date header");
    return find_scope(a, credential, ret, err);
}

/* ---- the canonical request ---- */

static int by_text(const void *x, const void *y)
{
    return strcmp(*(char *const *)x, *(char *const *)y);
}

static void add_query(struct buf *b, struct arena *a, const char *query)
{
    char *pairs[512];
    size_t n = 0;

    for (const char *p = query; *p && n < ARRAY_LEN(pairs);) {
        size_t len = strcspn(p, "&"), eq = strcspn(p, "=&");
        char *name = http_unescape(a, p, MIN(eq, len), false);
        char *value = eq < len ? http_unescape(a, p + eq + 1, len - eq - 1, false) : arena_strdup(a, "");

        if (len && name && value && !streq(name, "X-Amz-Signature"))
            pairs[n++] = arena_printf(a, "%s=%s", http_escape(a, name, NULL), http_escape(a, value, NULL));
        p += len;
        p += *p == '&';
    }
    /* by name, then by value: '=' sorts below every character a name is escaped to but '-', '.'
     * and digits, so names are compared apart */
    for (size_t i = 0; i < n; i++)
        *strchr(pairs[i], '=') = 1;
    qsort(pairs, n, sizeof *pairs, by_text);
    for (size_t i = 0; i < n; i++) {
        *strchr(pairs[i], 1) = '=';
        if (i)
            buf_addc(b, '&');
        buf_adds(b, pairs[i]);
    }
}

static void add_value(struct buf *b, const char *v)
{
    size_t from = b->n;

    for (; *v; v++)
        if ((*v == ' ' || *v == '\t') ? b->n > from && b->p[b->n - 1] != ' ' : true)
            buf_addc(b, *v == '\t' ? ' ' : *v);
    while (b->n > from && b->p[b->n - 1] == ' ')
        b->n--;
}

static int add_headers(struct buf *b, struct http_req *req, const char *signed_headers,
                       struct err *err)
{
    char *list = arena_strdup(req->arena, signed_headers), *save = NULL;
    bool host = false;

    for (char *name = strtok_r(list, ";", &save); name; name = strtok_r(NULL, ";", &save)) {
        const char *v;
        size_t i = 0, found = 0;

        buf_adds(b, name);
        buf_addc(b, ':');
        if (strcasecmp(name, "host") == 0) {
            host = true;
            buf_adds(b, req->host);
        } else {
            while ((v = http_get_next(req, name, &i))) {
                if (found++)
                    buf_addc(b, ',');
                add_value(b, v);
            }
        }
        buf_addc(b, '\n');
    }
    return host ? 0 : err_set(err, FORBIDDEN, "the host header must be signed");
}

static void derive(struct sigv4 *s, const char *secret)
{
    unsigned char k[32];
    struct buf b = {0};

    buf_printf(&b, "AWS4%s", secret);
    mac(b.p, b.n, s->date, strlen(s->date), k);
    OPENSSL_cleanse(b.p, b.n);
    buf_done(&b);
    mac(k, 32, s->region, strlen(s->region), k);
    mac(k, 32, s->service, strlen(s->service), k);
    mac(k, 32, "aws4_request", 12, s->key);
}

static bool check_path(struct http_req *req, struct sigv4 *s, const char *path,
                       const char *payload_hash, struct err *err)
{
    struct buf b = {0};
    char hash[SIGV4_HEX_BYTES], want[SIGV4_HEX_BYTES];
    unsigned char sum[32];
    bool ok = false;

    buf_printf(&b, "%s\n%s\n", req->method, path);
    add_query(&b, req->arena, req->query);
    buf_addc(&b, '\n');
    if (add_headers(&b, req, s->signed_headers, err) == 0) {
        buf_printf(&b, "\n%s\n%s", s->signed_headers, payload_hash);
        sigv4_sha256_hex(b.p, b.n, hash);
        buf_reset(&b);
        buf_printf(&b, ALGORITHM "\n%s\n%s/%s/%s/aws4_request\n%s", s->amz_date, s->date, s->region,
                   s->service, hash);
        mac(s->key, 32, b.p, b.n, sum);
        sigv4_hex(sum, 32, want);
        ok = strlen(s->signature) == 64 && CRYPTO_memcmp(want, s->signature, 64) == 0;
    }
    buf_done(&b);
    return ok;
}

/* ---- version 2, query form ---- */

static int check_v2(struct http_req *req, struct sigv4 *s, const char *secret, const char *bucket,
                    int64_t now_s, struct err *err)
{
    static const char *const subs[] = {
        "acl", "cors", "delete", "lifecycle", "location", "logging", "notification", "partNumber",
        "policy", "requestPayment", "response-cache-control", "response-content-disposition",
        "response-content-encoding", "response-content-language", "response-content-type",
        "response-expires", "tagging", "torrent", "uploadId", "uploads", "versionId", "versioning",
        "versions", "website"};
    const char *md5 = http_get(req, "content-md5"), *type = http_get(req, "content-type");
    struct buf b = {0};
    unsigned char sum[20];
    char want[32];
    unsigned n = sizeof sum;
    bool first = true;
    const char *name, *value;

    if (s->expires_s < now_s)
        return err_set(err, EXPIRED, "Request has expired");
    buf_printf(&b, "%s\n%s\n%s\n%lld\n", req->method, md5 ? md5 : "", type ? type : "",
               (long long)s->expires_s);
    char *lines[64];
    size_t lines_n = 0;
    for (size_t i = 0; i < req->headers_n && lines_n < ARRAY_LEN(lines); i++)
        if (str_starts(req->headers[i].name, "x-amz-"))
            lines[lines_n++] = arena_printf(req->arena, "%s:%s\n", req->headers[i].name, req->headers[i].value);
    for (size_t i = 0; lines_n < ARRAY_LEN(lines) && http_param_next(req, &i, &name, &value);)
        if (str_starts(name, "x-amz-")) /* a session's token is signed as the header it stands for */
            lines[lines_n++] = arena_printf(req->arena, "%s:%s\n", name, value);
    qsort(lines, lines_n, sizeof *lines, by_text);
    for (size_t i = 0; i < lines_n; i++)
        buf_adds(&b, lines[i]);
    if (bucket)
        buf_printf(&b, "/%s", bucket);
    buf_adds(&b, req->raw_path);
    for (size_t i = 0; i < ARRAY_LEN(subs); i++) {
        const char *v = http_param(req, subs[i]);

        if (!v)
            continue;
        buf_printf(&b, "%c%s", first ? '?' : '&', subs[i]);
        if (*v)
            buf_printf(&b, "=%s", v);
        first = false;
    }
    HMAC(EVP_sha1(), secret, (int)strlen(secret), (unsigned char *)b.p, b.n, sum, &n);
    buf_done(&b);
    EVP_EncodeBlock((unsigned char *)want, sum, 20);
    if (strlen(s->signature) != 28 || CRYPTO_memcmp(want, s->signature, 28) != 0)
        return err_set(err, FORBIDDEN, "The request signature we calculated does not match the signature you"
                       " provided. Check your key and signing method.");
    return 0;
}

/* ---- verdict ---- */

static int64_t parse_date(const char *s)
{
    struct tm tm = {0};
    const char *end = strptime(s, "%Y%m%dT%H%M%SZ", &tm);

    return end && !*end ? (int64_t)timegm(&tm) : -1;
}

int sigv4_check(struct http_req *req, struct sigv4 *s, const char *secret, const char *payload_hash,
                const char *bucket, int64_t now_s, struct err *err)
{
    struct err why = {0};
    int64_t at;

    if (s->kind == SIGV2_QUERY)
        return check_v2(req, s, secret, bucket, now_s, err);
    at = parse_date(s->amz_date);
    if (at < 0 || strncmp(s->amz_date, s->date, 8) != 0 || strlen(s->date) != 8)
        return err_set(err, FORBIDDEN, "the date of the request is not that of its credential scope");
    if (at > now_s + SKEW_S || (s->kind == SIGV4_HEADER && at < now_s - SKEW_S))
        return err_set(err, EXPIRED, "The difference between the request time and the current time is too large.");
    if (s->kind == SIGV4_QUERY && at + s->expires_s < now_s)
        return err_set(err, EXPIRED, "Request has expired");
    derive(s, secret);
    if (streq(s->service, "s3")) { /* the path escaped once; some clients sign it as they sent it */
        char *path = http_unescape(req->arena, req->raw_path, strlen(req->raw_path), false);

        if ((path && check_path(req, s, http_escape(req->arena, path, "/"), payload_hash, &why)) ||
            check_path(req, s, req->raw_path, payload_hash, &why))
            return 0;
    } else if (check_path(req, s, http_escape(req->arena, req->raw_path, "/"), payload_hash, &why)) {
        return 0;
    }
    if (why.code)
        return err_set(err, FORBIDDEN, "%s", why.msg);
    return err_set(err, FORBIDDEN, "The request signature we calculated does not match the signature you"
                   " provided. Check your AWS Secret Access Key and signing method.");
}

static void chain(const struct sigv4 *s, const char *name, const char *before, const char *middle,
                  const char *hash, char ret[SIGV4_HEX_BYTES])
{
    unsigned char sum[32];
    struct buf b = {0};

    buf_printf(&b, "%s\n%s\n%s/%s/%s/aws4_request\n%s\n%s%s", name, s->amz_date, s->date, s->region,
               s->service, before, middle, hash);
    mac(s->key, 32, b.p, b.n, sum);
    buf_done(&b);
    sigv4_hex(sum, 32, ret);
}

void sigv4_chunk(const struct sigv4 *s, const char *before, const char *chunk_hash,
                 char ret[SIGV4_HEX_BYTES])
{
    chain(s, ALGORITHM "-PAYLOAD", before,
          "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n", chunk_hash, ret);
}

void sigv4_trailer(const struct sigv4 *s, const char *before, const char *trailers_hash,
                   char ret[SIGV4_HEX_BYTES])
{
    chain(s, ALGORITHM "-TRAILER", before, "", trailers_hash, ret);
}
