/* Goal: requests signed by an access key are known by the examples that AWS publishes, and by nothing that
 * differs from them in one place. */
#include "tt.h"

#include "auth/sigv4.h"
#include "http/http_int.h" /* a request is part of more */

#define SECRET "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
#define EMPTY "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
enum { NOON = 1369353600 }; /* 2013-05-24T00:00:00Z */

static struct http_req *request(struct arena *a, const char *method, const char *path, const char *query,
                                const struct http_header *headers, size_t n)
{
    struct req *r = arena_new_of(a, struct req);

    r->pub = (struct http_req){.method = method, .target = path, .raw_path = path, .path = path, .query = query,
                               .host = "examplebucket.s3.amazonaws.com", .headers = headers, .headers_n = n,
                               .arena = a};
    return &r->pub;
}

static const struct http_header GET_OBJECT[] = {
    {"host", "examplebucket.s3.amazonaws.com"},
    {"range", "bytes=0-9"},
    {"x-amz-content-sha256", EMPTY},
    {"x-amz-date", "20130524T000000Z"},
    {"authorization", "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
                      "SignedHeaders=host;range;x-amz-content-sha256;x-amz-date,"
                      "Signature=f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"},
};

static int ask(struct http_req *req, const char *secret, int64_t now, struct err *err)
{
    struct sigv4 s;

    if (sigv4_find(req, &s, err) < 0)
        return -1;
    assert_int_not_equal(s.kind, SIGV4_NONE);
    return sigv4_check(req, &s, secret, s.kind == SIGV4_HEADER ? EMPTY : "UNSIGNED-PAYLOAD", "examplebucket", now, err);
}

static void test_published_header(void **state)
{
    struct arena *a = arena_new();
    struct http_req *req = request(a, "GET", "/test.txt", "", GET_OBJECT, ARRAY_LEN(GET_OBJECT));
    struct http_header spoiled[ARRAY_LEN(GET_OBJECT)];
    struct err err = {0};

    (void)state;
    assert_int_equal(ask(req, SECRET, NOON, &err), 0);
    assert_int_equal(ask(req, SECRET "x", NOON, &err), -1);
    assert_int_equal(err.code, ERR_FORBIDDEN);
    assert_int_equal(ask(req, SECRET, NOON + 3600, &err), -1);
    assert_int_equal(err.code, ERR_EXPIRED);
    req->raw_path = "/test.tx";
    assert_int_equal(ask(req, SECRET, NOON, &err), -1);
    req = request(a, "PUT", "/test.txt", "", GET_OBJECT, ARRAY_LEN(GET_OBJECT));
    assert_int_equal(ask(req, SECRET, NOON, &err), -1);
    req = request(a, "GET", "/test.txt", "acl=", GET_OBJECT, ARRAY_LEN(GET_OBJECT));
    assert_int_equal(ask(req, SECRET, NOON, &err), -1);
    memcpy(spoiled, GET_OBJECT, sizeof(spoiled));
    spoiled[1].value = "bytes=0-8";
    req = request(a, "GET", "/test.txt", "", spoiled, ARRAY_LEN(spoiled));
    assert_int_equal(ask(req, SECRET, NOON, &err), -1);
    arena_free(a);
}

#define PRESIGNED                                                                                    \
    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%" \
    "2Fs3%2Faws4_request&X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&"  \
    "X-Amz-Signature="

static void test_published_query(void **state)
{
    struct arena *a = arena_new();
    const char *good = PRESIGNED "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
    struct http_req *req = request(a, "GET", "/test.txt", good, NULL, 0);
    struct err err = {0};

    (void)state;
    assert_int_equal(ask(req, SECRET, NOON, &err), 0);
    assert_int_equal(ask(req, SECRET, NOON + 86400, &err), 0);
    assert_int_equal(ask(req, SECRET, NOON + 86401, &err), -1);
    assert_int_equal(err.code, ERR_EXPIRED);
    req = request(a, "GET", "/test.txt", PRESIGNED "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d405", NULL, 0);
    assert_int_equal(ask(req, SECRET, NOON, &err), -1);
    req = request(a, "GET", "/test.txt", PRESIGNED, NULL, 0);
    assert_int_equal(ask(req, SECRET, NOON, &err), -1);
    arena_free(a);
}

static void test_malformed(void **state)
{
    static const char *const headers[] = {
        "AWS4-HMAC-SHA256", "AWS4-HMAC-SHA256 ", "AWS4-HMAC-SHA256 Credential=a/b/c/d/e,SignedHeaders=host,Signature=x",
        "AWS4-HMAC-SHA256 Credential=////,SignedHeaders=,Signature=", "Basic YTpi",
        "AWS4-HMAC-SHA256 Credential=a/b/c/d/aws4_request/more,SignedHeaders=host,Signature=x"};
    static const char *const queries[] = {
        "X-Amz-Algorithm=AWS4-HMAC-SHA1", "X-Amz-Algorithm=AWS4-HMAC-SHA256",
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a/b/c/d/aws4_request&X-Amz-Date=x&X-Amz-Expires=-1&"
        "X-Amz-SignedHeaders=host&X-Amz-Signature=x",
        "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=a/b/c/d/aws4_request&X-Amz-Date=x&X-Amz-Expires=999999&"
        "X-Amz-SignedHeaders=host&X-Amz-Signature=x"};
    struct arena *a = arena_new();
    struct err err = {0};
    struct sigv4 s;

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(headers); i++) {
        struct http_header h[] = {{"authorization", headers[i]}, {"x-amz-date", "20130524T000000Z"}};
        struct http_req *req = request(a, "GET", "/", "", h, 2);

        if (sigv4_find(req, &s, &err) == 0)
            fail_msg("header %zu is taken", i);
        assert_int_equal(err.code, ERR_INVALID_ARGUMENT);
    }
    for (size_t i = 0; i < ARRAY_LEN(queries); i++) {
        struct http_req *req = request(a, "GET", "/", queries[i], NULL, 0);

        if (sigv4_find(req, &s, &err) == 0)
            fail_msg("query %zu is taken", i);
    }
    arena_free(a);
}

/* As AWS describes it: a signature of a body in chunks, each over the one before. */
static void test_chunks(void **state)
{
    static const struct http_header h[] = {
        {"content-encoding", "aws-chunked"}, {"content-length", "66824"}, {"host", "s3.amazonaws.com"},
        {"x-amz-content-sha256", "STREAMING-AWS4-HMAC-SHA256-PAYLOAD"}, {"x-amz-date", "20130524T000000Z"},
        {"x-amz-decoded-content-length", "66560"}, {"x-amz-storage-class", "REDUCED_REDUNDANCY"},
        {"authorization", "AWS4-HMAC-SHA256 Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"
                          "SignedHeaders=content-encoding;content-length;host;x-amz-content-sha256;x-amz-date;"
                          "x-amz-decoded-content-length;x-amz-storage-class,"
                          "Signature=4f232c4386841ef735655705268965c44a0e4690baa4adea153f7db9fa80a0a9"}};
    struct arena *a = arena_new();
    struct http_req *req = request(a, "PUT", "/examplebucket/chunkObject.txt", "", h, ARRAY_LEN(h));
    char hash[SIGV4_HEX_BYTES], sum[SIGV4_HEX_BYTES], *body = arena_alloc(a, 65536);
    struct err err = {0};
    struct sigv4 s;

    (void)state;
    req->host = "s3.amazonaws.com";
    assert_int_equal(sigv4_find(req, &s, &err), 0);
    assert_int_equal(sigv4_check(req, &s, SECRET, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD", NULL, NOON, &err), 0);
    memset(body, 'a', 65536);
    sigv4_sha256_hex(body, 65536, hash);
    sigv4_chunk(&s, s.signature, hash, sum);
    assert_string_equal(sum, "ad80c730a21e5b8d04586a2213dd63b9a0e99e0e2307b0ade35a65485a288648");
    sigv4_sha256_hex(body, 1024, hash);
    sigv4_chunk(&s, sum, hash, sum);
    assert_string_equal(sum, "0055627c9e194cb4542bae2aa5492e3c1575bbb81b612b7d234b86a503ef5497");
    sigv4_sha256_hex(body, 0, hash);
    sigv4_chunk(&s, sum, hash, sum);
    assert_string_equal(sum, "b6c6ea8a5354eaf15b3cb7646744f4275b71ea724fed81ceb9323e279d449df9");
    arena_free(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_published_header),
        cmocka_unit_test(test_published_query),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(test_chunks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
