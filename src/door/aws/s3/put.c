/* door/aws/s3/put.c - bodies into files: PutObject and UploadPart.
 *
 * The body comes on the loop in pieces. They are taken out of aws-chunked framing there (cheap) and
 * gathered; each MiB goes to a pool thread that writes and sums it up while the connection is held
 * back, so that a body of any size needs two MiB. At the end the sums are compared with what the client
 * said, and only then the file gets its name. */
#include "door/aws/s3/s3_int.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PIECE = 1 << 20, LINE_MAX_BYTES = 8192 };

enum framing { PLAIN, CHUNKED };
enum frame_state { FRAME_SIZE, FRAME_DATA, FRAME_DATA_END, FRAME_TRAILERS, FRAME_OVER };

struct upload {
    struct s3_op *op;
    int root, fd;
    char temp[VOLUME_TEMP_BYTES];
    struct sums sums;
    bool sums_open;
    struct buf gathered, writing;
    bool busy, ended; /* a piece is being written; the body is over */
    int64_t written;
    /* framing */
    enum framing framing;
    enum frame_state state;
    struct buf line;
    uint64_t chunk_left;
    bool signed_chunks, trailing;
    char before[SIGV4_HEX_BYTES];      /* signature of the chunk before */
    char chunk_signature[128];
    EVP_MD_CTX *chunk_sum;
    struct buf trailers;               /* "name:value\n", as signed */
    /* what the client said */
    enum sum algorithm;
    const char *want_sum, *want_sha256, *want_md5;
    int64_t want_bytes; /* decoded; -1: not told */
    char md5[33];
    struct val *meta;
    struct volume_info info;
    int part; /* of a multipart upload, or 0 */
    char *part_path;
};

static void drop(struct upload *u)
{
    if (u->sums_open)
        sums_end(&u->sums, NULL, NULL, NULL);
    u->sums_open = false;
    if (u->chunk_sum)
        EVP_MD_CTX_free(u->chunk_sum);
    u->chunk_sum = NULL;
    if (u->fd >= 0) {
        unlinkat(u->root, u->temp, 0);
        close(u->fd);
    }
    if (u->root >= 0)
        close(u->root);
    u->fd = u->root = -1;
    buf_done(&u->gathered);
    buf_done(&u->writing);
    buf_done(&u->line);
    buf_done(&u->trailers);
}

struct val *s3_meta_of_request(struct s3_op *op)
{
    static const char *const KEPT[] = {"content-type", "cache-control", "content-disposition", "content-encoding",
                                       "content-language", "expires"};
    struct arena *a = s3_arena(op);
    struct val *meta = val_map(a);

    for (size_t i = 0; i < ARRAY_LEN(KEPT); i++) {
        const char *v = http_get(op->q->req, KEPT[i]);

        if (!v)
            continue;
        if (streq(KEPT[i], "content-encoding")) { /* aws-chunked is how it came, not what it is */
            v = str_starts(v, "aws-chunked") ? v + 11 : v;
            v += strspn(v, ", ");
        }
        if (*v)
            val_put_str(a, meta, KEPT[i], v);
    }
    for (size_t i = 0; i < op->q->req->headers_n; i++)
        if (str_starts(op->q->req->headers[i].name, "x-amz-meta-"))
            val_put_str(a, val_need_map(a, meta, "user"), op->q->req->headers[i].name + strlen("x-amz-meta-"),
                        op->q->req->headers[i].value);
    return meta;
}

/* ---- on pool threads ---- */

static void open_work(void *arg)
{
    struct upload *u = arg;
    struct s3_op *op = u->op;

    u->root = volume_root(op->q->d->state, op->bucket, true, &op->err);
    if (u->root >= 0)
        u->fd = volume_temp(u->root, u->temp, &op->err);
    if (u->root < 0 || u->fd < 0)
        s3_fail_err(op);
}

static void write_work(void *arg)
{
    struct upload *u = arg;
    const char *p = u->writing.p;
    size_t left = u->writing.n;

    sums_add(&u->sums, p, left);
    while (left) {
        ssize_t n = write(u->fd, p, left);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0) {
            err_sys(&u->op->err, "write %s", u->op->key);
            s3_fail_err(u->op);
            return;
        }
        p += n;
        left -= (size_t)n;
        u->written += n;
    }
}

static int compare(struct upload *u)
{
    struct s3_op *op = u->op;
    char sha256[65] = "", base64[64] = "";
    unsigned char raw[16];

    sums_end(&u->sums, u->md5, sha256, base64);
    u->sums_open = false;
    if (u->want_bytes >= 0 && u->written != u->want_bytes)
        return s3_fail(op, 400, "IncompleteBody", "You did not provide the number of bytes specified by the Content-Length HTTP header");
    if (u->want_sha256 && !streq(u->want_sha256, sha256))
        return s3_fail(op, 400, "XAmzContentSHA256Mismatch",
                       "The provided 'x-amz-content-sha256' header does not match what was computed.");
    if (u->want_md5) {
        for (int i = 0; i < 16; i++) {
            unsigned v = 0;

            sscanf(u->md5 + 2 * i, "%2x", &v);
            raw[i] = (unsigned char)v;
        }
        if (!streq(b64_encode(s3_arena(op), raw, 16), u->want_md5))
            return s3_fail(op, 400, "BadDigest", "The Content-MD5 you specified did not match what we received.");
    }
    if (u->want_sum && !streq(u->want_sum, base64))
        return s3_fail(op, 400, "BadDigest", "The %s you specified did not match the calculated checksum.",
                       sum_name(u->algorithm));
    if (u->algorithm && u->meta) {
        struct val *sum = val_need_map(s3_arena(op), u->meta, "checksum");

        val_put_str(s3_arena(op), sum, "header", sum_header(u->algorithm));
        val_put_str(s3_arena(op), sum, "value", base64);
    }
    return 0;
}

/* A part keeps its name number in the upload's folder: its ETag is found again by multi.c. */
static int commit_part(struct upload *u)
{
    struct s3_op *op = u->op;
    struct stat st;

    if (fstat(u->fd, &st) == 0)
        volume_keep_etag(u->fd, &st, u->md5);
    if (fsync(u->fd) < 0 || renameat(u->root, u->temp, u->root, u->part_path) < 0) {
        if (errno == ENOENT)
            return s3_fail(op, 404, "NoSuchUpload", "The specified upload does not exist. The upload ID may be invalid, "
                           "or the upload may have been aborted or completed.");
        err_sys(&op->err, "keep the part");
        s3_fail_err(op);
        return -1;
    }
    snprintf(u->info.etag, sizeof u->info.etag, "%s", u->md5);
    return 0;
}

static void commit_work(void *arg)
{
    struct upload *u = arg;
    struct s3_op *op = u->op;

    if (compare(u) < 0)
        return;
    if (u->part) {
        if (commit_part(u) < 0)
            return;
    } else if (str_ends(op->key, "/")) {
        unlinkat(u->root, u->temp, 0);
        if (u->written)
            s3_fail(op, 400, "InvalidArgument", "this key cannot be kept: it ends in '/', and folders hold no bytes here");
        else if (volume_make_folder(u->root, op->key, &op->err) < 0)
            s3_fail_err(op);
        snprintf(u->info.etag, sizeof u->info.etag, "%s", u->md5);
    } else if (volume_commit(u->root, u->fd, u->temp, op->key, u->md5, u->meta, s3_must_be_new(op), &u->info, &op->err) < 0) {
        s3_fail_err(op);
    }
    close(u->fd);
    u->fd = -1; /* the file has its name, or is gone */
}

/* ---- framing: "SIZE[;chunk-signature=HEX]\r\n" bytes "\r\n" ... "0...\r\n" trailers "\r\n" ---- */

static int bad_frame(struct upload *u, const char *why)
{
    return s3_fail(u->op, 400, "IncompleteBody", "the aws-chunked body is malformed: %s", why);
}

static int bad_signature(struct upload *u)
{
    return s3_fail(u->op, 403, "SignatureDoesNotMatch", "The signature of a chunk does not match.");
}

static int chunk_begins(struct upload *u, char *line)
{
    char *end, *sig = strstr(line, "chunk-signature=");

    errno = 0;
    u->chunk_left = strtoull(line, &end, 16);
    if (errno || end == line || (*end && *end != ';') || u->chunk_left > (uint64_t)5 << 30)
        return bad_frame(u, "a chunk's size");
    if (u->signed_chunks) {
        if (!sig || strlen(sig + 16) != 64)
            return bad_signature(u);
        snprintf(u->chunk_signature, sizeof u->chunk_signature, "%.64s", sig + 16);
        u->chunk_sum = EVP_MD_CTX_new();
        EVP_DigestInit_ex(u->chunk_sum, EVP_sha256(), NULL);
    }
    u->state = u->chunk_left ? FRAME_DATA : FRAME_DATA_END;
    return 0;
}

static int chunk_ends(struct upload *u)
{
    char hex[SIGV4_HEX_BYTES], want[SIGV4_HEX_BYTES];
    unsigned char sum[32];

    if (!u->signed_chunks)
        return 0;
    EVP_DigestFinal_ex(u->chunk_sum, sum, NULL);
    EVP_MD_CTX_free(u->chunk_sum);
    u->chunk_sum = NULL;
    sigv4_hex(sum, sizeof sum, hex);
    sigv4_chunk(&u->op->q->sig, u->before, hex, want);
    if (!streq(want, u->chunk_signature))
        return bad_signature(u);
    memcpy(u->before, want, sizeof want);
    return 0;
}

static int trailer(struct upload *u, char *line)
{
    char *colon = strchr(line, ':'), hex[SIGV4_HEX_BYTES], want[SIGV4_HEX_BYTES];
    const char *header = sum_header(u->algorithm);

    if (!*line) { /* the end */
        u->state = FRAME_OVER;
        return 0;
    }
    if (!colon)
        return bad_frame(u, "a trailer");
    *colon++ = 0;
    colon += strspn(colon, " ");
    for (char *p = line; *p; p++)
        *p = (char)tolower((unsigned char)*p);
    if (streq(line, "x-amz-trailer-signature")) {
        if (!u->signed_chunks)
            return 0;
        sigv4_sha256_hex(u->trailers.p ? u->trailers.p : "", u->trailers.n, hex);
        sigv4_trailer(&u->op->q->sig, u->before, hex, want);
        return streq(want, colon) ? 0 : bad_signature(u);
    }
    buf_printf(&u->trailers, "%s:%s\n", line, colon);
    if (header && streq(line, header))
        u->want_sum = arena_strdup(s3_arena(u->op), colon);
    return 0;
}

static int take_line(struct upload *u)
{
    char *line = u->line.p;

    switch (u->state) {
    case FRAME_SIZE:
        return chunk_begins(u, line);
    case FRAME_TRAILERS:
        return trailer(u, line);
    case FRAME_DATA:
    case FRAME_DATA_END:
    case FRAME_OVER:
        break;
    }
    return bad_frame(u, "bytes behind its end");
}

static int take_framed(struct upload *u, const char *p, size_t n)
{
    while (n) {
        if (u->state == FRAME_DATA) {
            size_t part = MIN((size_t)u->chunk_left, n);

            buf_add(&u->gathered, p, part);
            if (u->signed_chunks)
                EVP_DigestUpdate(u->chunk_sum, p, part);
            u->chunk_left -= part;
            p += part;
            n -= part;
            if (!u->chunk_left) {
                if (chunk_ends(u) < 0)
                    return -1;
                u->state = FRAME_DATA_END;
                u->chunk_left = 1; /* not the last one */
                buf_reset(&u->line);
            }
            continue;
        }
        if (*p != '\n') {
            if (u->line.n >= LINE_MAX_BYTES)
                return bad_frame(u, "a line is too long");
            if (*p != '\r')
                buf_addc(&u->line, *p);
            p++;
            n--;
            continue;
        }
        p++;
        n--;
        buf_addc(&u->line, 0);
        enum frame_state was = u->state;
        uint64_t left = u->chunk_left;

        if (was == FRAME_SIZE) {
            if (take_line(u) < 0)
                return -1;
            if (u->state == FRAME_DATA_END) { /* size 0: the last chunk */
                if (chunk_ends(u) < 0)
                    return -1;
                u->state = FRAME_TRAILERS;
            }
        } else if (was == FRAME_DATA_END) {
            u->state = left ? FRAME_SIZE : FRAME_TRAILERS;
        } else if (take_line(u) < 0) {
            return -1;
        }
        buf_reset(&u->line);
        if (u->line.p)
            u->line.p[0] = 0;
    }
    return 0;
}

/* ---- on the loop ---- */

static void finish_up(struct aws_req *q, void *arg)
{
    struct upload *u = arg;
    struct s3_op *op = u->op;

    if (!op->failed) {
        http_headerf(q->req, "ETag", "\"%s\"", u->info.etag);
        if (u->algorithm && u->meta)
            http_header(q->req, sum_header(u->algorithm), val_str_at(u->meta, "checksum.value", ""));
        if (!u->part && !str_ends(op->key, "/"))
            s3_tell(op, op->key, "ObjectCreated:Put", &u->info);
    }
    drop(u);
    if (op->failed)
        s3_answer_error(op);
    else
        s3_answer_xml(op, 200);
}

static void go_on(struct upload *u);

static void piece_written(struct aws_req *q, void *arg)
{
    struct upload *u = arg;

    (void)q;
    u->busy = false;
    buf_reset(&u->writing);
    go_on(u);
}

static void go_on(struct upload *u)
{
    struct s3_op *op = u->op;
    struct buf swap;

    if (u->busy)
        return;
    if (op->failed) {
        if (u->ended || http_gone(op->q->req)) {
            drop(u);
            s3_answer_error(op);
        } else {
            buf_reset(&u->gathered);
            http_body_resume(op->q->req); /* read to the end, so that the client hears the answer */
        }
        return;
    }
    if (u->gathered.n >= PIECE || (u->ended && u->gathered.n)) {
        swap = u->writing;
        u->writing = u->gathered;
        u->gathered = swap;
        u->busy = true;
        aws_work(op->q, write_work, piece_written, u);
        return;
    }
    if (!u->ended) {
        http_body_resume(op->q->req);
        return;
    }
    if (u->framing == CHUNKED && u->state != FRAME_OVER && !(u->state == FRAME_TRAILERS && !u->line.n)) {
        bad_frame(u, "it ends early");
        go_on(u);
        return;
    }
    u->busy = true;
    aws_work(op->q, commit_work, finish_up, u);
}

static void on_data(struct http_req *req, const char *data, size_t n, void *arg)
{
    struct upload *u = arg;

    if (u->op->failed)
        return;
    if (u->framing == CHUNKED)
        (void)!take_framed(u, data, n);
    else
        buf_add(&u->gathered, data, n);
    if (u->gathered.n >= PIECE && !u->op->failed) {
        http_body_pause(req);
        go_on(u);
    }
}

static void on_end(struct http_req *req, const struct err *err, void *arg)
{
    struct upload *u = arg;

    if (err && !u->op->failed)
        s3_fail(u->op, 400, err->code == ERR_TIMEOUT ? "RequestTimeout" : "IncompleteBody", "%s", err->msg);
    u->ended = true;
    go_on(u);
}

static void opened(struct aws_req *q, void *arg)
{
    struct upload *u = arg;

    http_body_stream(q->req, on_data, on_end, u);
}

/* What the headers say of the body. */
static int read_headers(struct upload *u)
{
    struct s3_op *op = u->op;
    struct http_req *req = op->q->req;
    const char *hash = http_get(req, "x-amz-content-sha256"), *name = http_get(req, "x-amz-sdk-checksum-algorithm");
    const char *told = http_get(req, "x-amz-trailer"), *decoded = http_get(req, "x-amz-decoded-content-length");

    u->want_md5 = http_get(req, "content-md5");
    u->want_bytes = req->body_bytes;
    for (enum sum s = SUM_CRC32; s <= SUM_CRC64NVME; s++)
        if (http_get(req, sum_header(s))) {
            u->algorithm = s;
            u->want_sum = http_get(req, sum_header(s));
        }
    if (told && str_starts(told, "x-amz-checksum-"))
        u->algorithm = sum_of_name(told + strlen("x-amz-checksum-"));
    if (!u->algorithm)
        u->algorithm = sum_of_name(name);
    if (hash && str_starts(hash, "STREAMING-")) {
        u->framing = CHUNKED;
        u->signed_chunks = str_starts(hash, "STREAMING-AWS4-HMAC-SHA256-PAYLOAD");
        u->trailing = str_ends(hash, "-TRAILER");
        if (!u->signed_chunks && !streq(hash, "STREAMING-UNSIGNED-PAYLOAD-TRAILER"))
            return s3_fail(op, 501, "NotImplemented", "tandem does not know the payload form %s", hash);
        snprintf(u->before, sizeof u->before, "%s", op->q->sig.signature);
        u->want_bytes = decoded ? strtoll(decoded, NULL, 10) : -1;
    } else if (hash && strlen(hash) == 64) {
        u->want_sha256 = hash;
    }
    return 0;
}

static void begin(struct s3_op *op, int part, char *part_path)
{
    struct upload *u = arena_new_of(s3_arena(op), struct upload);

    *u = (struct upload){.op = op, .root = -1, .fd = -1, .part = part, .part_path = part_path};
    if (read_headers(u) < 0) {
        s3_answer_error(op);
        return;
    }
    u->meta = s3_meta_of_request(op);
    sums_begin(&u->sums, u->want_sha256 != NULL, u->algorithm);
    u->sums_open = true;
    aws_work(op->q, open_work, opened, u);
}

void s3_put_object(struct s3_op *op)
{
    begin(op, 0, NULL);
}

void s3_upload_part(struct s3_op *op)
{
    const char *number = s3_param(op, "partNumber");
    int part = number ? atoi(number) : 0;
    char *folder = s3_upload_path(op, s3_param(op, "uploadId"));

    if (part < 1 || part > 10000)
        s3_error(op->q, 400, "InvalidArgument", "Part number must be an integer between 1 and 10000, inclusive");
    else if (!folder)
        s3_error(op->q, 404, "NoSuchUpload", "The specified upload does not exist.");
    else
        begin(op, part, arena_printf(s3_arena(op), "%s/%05d", folder, part));
}
