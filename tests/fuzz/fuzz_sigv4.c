/* Any request as one that is signed by an access key: it is read, and refused. Lines: method, target, then
 * headers "name: value". */
#include "auth/sigv4.h"
#include "http/http_int.h" /* a request is part of more */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char *next(char **at)
{
    char *line = *at, *end = strchr(line, '\n');

    if (end)
        *end++ = 0;
    *at = end ? end : line + strlen(line);
    return line;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *a = arena_new();
    char *at = arena_strndup(a, (const char *)data, size), *target, *query, chunk[SIGV4_HEX_BYTES];
    struct http_header headers[32];
    struct req *r = arena_new_of(a, struct req);
    struct http_req *req = &r->pub;
    struct err err = {0};
    struct sigv4 s;

    *req = (struct http_req){.arena = a, .headers = headers, .host = "bucket.s3.amazonaws.com", .query = ""};
    req->method = next(&at);
    req->target = req->raw_path = target = next(&at);
    if ((query = strchr(target, '?'))) {
        *query = 0;
        req->query = query + 1;
    }
    req->path = target;
    while (*at && req->headers_n < ARRAY_LEN(headers)) {
        char *name = next(&at), *colon = strchr(name, ':');

        if (!colon)
            continue;
        *colon = 0;
        headers[req->headers_n++] = (struct http_header){name, colon + 1 + strspn(colon + 1, " ")};
    }
    if (sigv4_find(req, &s, &err) == 0 && s.kind != SIGV4_NONE) {
        ASSERT(sigv4_check(req, &s, "a secret that nobody knows", "UNSIGNED-PAYLOAD", "bucket", 1369353600, &err) < 0);
        if (s.kind != SIGV2_QUERY)
            sigv4_chunk(&s, s.signature, "00", chunk);
    }
    arena_free(a);
    return 0;
}
