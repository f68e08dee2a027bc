/* door/aws/s3/get.c - objects out (GET, HEAD), copied and removed. */
#include "door/aws/s3/s3_int.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <strings.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

struct get {
    struct volume_info info;
    int fd;
};

/* ---- conditions ---- */

static bool etag_listed(const char *header, const char *etag)
{
    size_t n = strlen(etag);

    for (const char *p = header; *p;) {
        p += strspn(p, " ,");
        if (*p == '*')
            return true;
        if (str_starts(p, "W/"))
            p += 2;
        bool quoted = *p == '"';
        p += quoted;
        if (strncmp(p, etag, n) == 0 && (quoted ? p[n] == '"' : !p[n] || p[n] == ',' || p[n] == ' '))
            return true;
        p += strcspn(p, ",");
    }
    return false;
}

static bool parse_time(const char *s, time_t *ret)
{
    struct tm tm = {0};

    if (!s || !strptime(s, "%a, %d %b %Y %H:%M:%S GMT", &tm))
        return false;
    *ret = timegm(&tm);
    return true;
}

/* 0: go on; else 304 or 412. prefix "" or "x-amz-copy-source-". */
static int conditions(struct s3_op *op, const char *prefix, const struct volume_info *info)
{
    struct arena *a = s3_arena(op);
    struct http_req *req = op->q->req;
    const char *match = http_get(req, arena_printf(a, "%sif-match", prefix));
    const char *none = http_get(req, arena_printf(a, "%sif-none-match", prefix));
    time_t t, changed = (time_t)(info->mtime_ns / 1000000000);

    if (match && !etag_listed(match, info->etag))
        return 412;
    if (!match && parse_time(http_get(req, arena_printf(a, "%sif-unmodified-since", prefix)), &t) && changed > t)
        return 412;
    if (none && etag_listed(none, info->etag))
        return 304;
    if (!none && parse_time(http_get(req, arena_printf(a, "%sif-modified-since", prefix)), &t) && changed <= t)
        return 304;
    return 0;
}

/* ---- GET, HEAD ---- */

static void run_get(struct s3_op *op, int root)
{
    struct get *g = op->more;

    g->fd = volume_read(root, s3_arena(op), op->key, &g->info, &op->err);
    if (g->fd < 0)
        s3_fail_err(op);
}

static void object_headers(struct s3_op *op, const struct volume_info *info, bool whole)
{
    static const char *const OVERRIDES[] = {"content-type", "cache-control", "content-disposition", "content-encoding",
                                            "content-language", "expires"};
    struct http_req *req = op->q->req;
    const char *mode = http_get(req, "x-amz-checksum-mode"), *sum = val_str_at(info->meta, "checksum.header", NULL);

    http_header(req, "x-amz-request-id", op->q->id);
    http_headerf(req, "ETag", "\"%s\"", info->etag);
    http_header(req, "Last-Modified", s3_http_time(s3_arena(op), info->mtime_ns));
    http_header(req, "Accept-Ranges", "bytes");
    for (size_t i = 0; i < ARRAY_LEN(OVERRIDES); i++) {
        const char *v = s3_param(op, arena_printf(s3_arena(op), "response-%s", OVERRIDES[i]));

        if (!v)
            v = val_text(val_get(info->meta, OVERRIDES[i]), NULL);
        if (v)
            http_header(req, OVERRIDES[i], v);
        else if (streq(OVERRIDES[i], "content-type"))
            http_header(req, "content-type", "binary/octet-stream");
    }
    VAL_EACH_MEMBER(val_get(info->meta, "user"), m)
        http_header(req, arena_printf(s3_arena(op), "x-amz-meta-%s", m->key), val_text(&m->v, ""));
    if (mode && strcasecmp(mode, "enabled") == 0 && sum && whole)
        http_header(req, sum, val_str_at(info->meta, "checksum.value", ""));
}

/* 1: a range was asked for and holds; 0: the whole; -1: it lies outside. */
static int range_of(struct s3_op *op, int64_t size, int64_t *ret_from, int64_t *ret_n)
{
    const char *range = http_get(op->q->req, "range");
    long long first = -1, last = -1;
    char *end;

    *ret_from = 0;
    *ret_n = size;
    if (!range || !str_starts(range, "bytes=") || strchr(range, ','))
        return 0;
    range += 6;
    if (*range == '-') {
        last = strtoll(range + 1, &end, 10);
        if (end == range + 1 || *end)
            return 0;
        if (last == 0 || size == 0)
            return -1;
        *ret_n = MIN((int64_t)last, size);
        *ret_from = size - *ret_n;
        return 1;
    }
    first = strtoll(range, &end, 10);
    if (end == range || *end != '-' || first < 0)
        return 0;
    range = end + 1;
    last = *range ? strtoll(range, &end, 10) : size - 1;
    if (*range && (*end || last < first))
        return 0;
    if (first >= size)
        return -1;
    *ret_from = first;
    *ret_n = MIN((int64_t)last, size - 1) - first + 1;
    return 1;
}

static void reply_get(struct s3_op *op)
{
    struct get *g = op->more;
    struct http_req *req = op->q->req;
    int status = conditions(op, "", &g->info), ranged;
    bool head = streq(req->method, "HEAD");
    int64_t from, n;

    if (status) {
        close(g->fd);
        if (status == 412) {
            s3_error(op->q, 412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold");
            return;
        }
        http_headerf(req, "ETag", "\"%s\"", g->info.etag);
        http_header(req, "Last-Modified", s3_http_time(s3_arena(op), g->info.mtime_ns));
        http_reply(req, 304, NULL, "", 0);
        return;
    }
    ranged = range_of(op, g->info.size, &from, &n);
    if (ranged < 0) {
        close(g->fd);
        http_headerf(req, "Content-Range", "bytes */%lld", (long long)g->info.size);
        s3_error(op->q, 416, "InvalidRange", "The requested range is not satisfiable");
        return;
    }
    object_headers(op, &g->info, !ranged);
    if (ranged)
        http_headerf(req, "Content-Range", "bytes %lld-%lld/%lld", (long long)from, (long long)(from + n - 1),
                     (long long)g->info.size);
    http_start(req, ranged ? 206 : 200, n);
    if (head || !n) {
        close(g->fd);
        http_end(req);
        return;
    }
    http_write_file(req, g->fd, (uint64_t)from, (uint64_t)n, NULL, NULL);
}

void s3_get_object(struct s3_op *op)
{
    op->more = arena_new_of(s3_arena(op), struct get);
    op->run = run_get;
    op->reply = reply_get;
    s3_work(op);
}

/* ---- copy: whole objects, and parts of uploads ---- */

struct copy {
    const char *bucket, *key; /* the source */
    char *part_path;          /* UploadPartCopy */
    int64_t from, n;          /* n < 0: all */
    struct volume_info info;  /* of what was made */
    struct val *meta;         /* to replace with; NULL: the source's */
};

static int copy_bytes(struct s3_op *op, int in, int out, int64_t from, int64_t n, char md5[33])
{
    enum { BLOCK = 256 * 1024 };
    _auto_(freep) char *block = xmalloc(BLOCK);
    struct sums sums;

    sums_begin(&sums, false, SUM_NONE);
    while (n > 0) {
        ssize_t got = pread(in, block, (size_t)MIN(n, (int64_t)BLOCK), from);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0 || write(out, block, (size_t)got) != got) {
            sums_end(&sums, NULL, NULL, NULL);
            err_sys(&op->err, "copy");
            s3_fail_err(op);
            return -1;
        }
        sums_add(&sums, block, (size_t)got);
        from += got;
        n -= got;
    }
    sums_end(&sums, md5, NULL, NULL);
    return 0;
}

static void finish_copy(struct s3_op *op, struct copy *c, int root, int out, const char *temp, const char *md5)
{
    struct stat st;

    if (!c->part_path) {
        if (volume_commit(root, out, temp, op->key, md5, c->meta, false, &c->info, &op->err) < 0)
            s3_fail_err(op);
        return;
    }
    if (fstat(out, &st) == 0)
        volume_keep_etag(out, &st, md5);
    if (fsync(out) < 0 || renameat(root, temp, root, c->part_path) < 0) {
        unlinkat(root, temp, 0);
        s3_fail(op, 404, "NoSuchUpload", "The specified upload does not exist.");
        return;
    }
    snprintf(c->info.etag, sizeof c->info.etag, "%s", md5);
    c->info.mtime_ns = (int64_t)st.st_mtim.tv_sec * 1000000000;
}

static void run_copy(struct s3_op *op, int root)
{
    struct copy *c = op->more;
    char temp[VOLUME_TEMP_BYTES], md5[33];
    _auto_(closep) int from_root = volume_root(op->q->d->state, c->bucket, false, &op->err);
    _auto_(closep) int in = -1;
    _auto_(closep) int out = -1;
    struct volume_info source;

    if (from_root < 0) {
        s3_fail(op, 404, "NoSuchBucket", "The specified bucket does not exist");
        return;
    }
    in = volume_read(from_root, s3_arena(op), c->key, &source, &op->err);
    if (in < 0) {
        s3_fail_err(op);
        return;
    }
    if (conditions(op, "x-amz-copy-source-", &source)) {
        s3_fail(op, 412, "PreconditionFailed", "At least one of the pre-conditions you specified did not hold");
        return;
    }
    if (c->n < 0)
        c->n = source.size;
    if (c->from + c->n > source.size) {
        s3_fail(op, 416, "InvalidRange", "The requested range is not satisfiable");
        return;
    }
    if (!c->meta)
        c->meta = source.meta ? val_copy(s3_arena(op), source.meta) : NULL;
    out = volume_temp(root, temp, &op->err);
    if (out < 0) {
        s3_fail_err(op);
        return;
    }
    if (copy_bytes(op, in, out, c->from, c->n, md5) < 0)
        unlinkat(root, temp, 0);
    else
        finish_copy(op, c, root, out, temp, md5);
}

static void reply_copy(struct s3_op *op)
{
    struct copy *c = op->more;
    const char *name = c->part_path ? "CopyPartResult" : "CopyObjectResult";

    buf_printf(&op->out, S3_XML "<%s" S3_NS "><LastModified>%s</LastModified><ETag>&quot;%s&quot;</ETag></%s>", name,
               iso_time(s3_arena(op), c->info.mtime_ns / 1000000), c->info.etag, name);
    if (!c->part_path)
        s3_tell(op, op->key, "ObjectCreated:Copy", &c->info);
    s3_answer_xml(op, 200);
}

void s3_copy(struct s3_op *op)
{
    struct arena *a = s3_arena(op);
    struct copy *c = arena_new_of(a, struct copy);
    const char *source = http_get(op->q->req, "x-amz-copy-source"), *directive = http_get(op->q->req, "x-amz-metadata-directive");
    const char *range = http_get(op->q->req, "x-amz-copy-source-range"), *upload = s3_param(op, "uploadId");
    const char *question = strchr(source, '?');
    char *path = http_unescape(a, source, question ? (size_t)(question - source) : strlen(source), false), *slash;
    long long first, last;
    char *denied;

    path = path && *path == '/' ? path + 1 : path;
    slash = path ? strchr(path, '/') : NULL;
    if (!slash || !slash[1]) {
        s3_error(op->q, 400, "InvalidArgument", "Copy Source must mention the source bucket and key: sourcebucket/sourcekey");
        return;
    }
    *slash = 0;
    denied = s3_source_denied(op, path, slash + 1);
    if (denied) {
        aws_refuse(op->q, denied);
        return;
    }
    *c = (struct copy){.bucket = path, .key = slash + 1, .n = -1};
    if (upload) {
        const char *number = s3_param(op, "partNumber"), *folder = s3_upload_path(op, upload);

        if (!folder || !number || atoi(number) < 1 || atoi(number) > 10000) {
            s3_error(op->q, 404, "NoSuchUpload", "The specified upload does not exist.");
            return;
        }
        c->part_path = arena_printf(a, "%s/%05d", folder, atoi(number));
        if (range && sscanf(range, "bytes=%lld-%lld", &first, &last) == 2 && last >= first && first >= 0) {
            c->from = first;
            c->n = last - first + 1;
        }
    } else if (directive && strcasecmp(directive, "REPLACE") == 0) {
        c->meta = s3_meta_of_request(op);
    } else if (streq(c->bucket, op->bucket) && streq(c->key, op->key)) {
        s3_error(op->q, 400, "InvalidRequest", "This copy request is illegal because it is trying to copy an object to itself "
                 "without changing the object's metadata, storage class, website redirect location or encryption attributes.");
        return;
    }
    op->more = c;
    op->run = run_copy;
    op->reply = reply_copy;
    s3_work(op);
}

/* ---- delete ---- */

struct removal {
    const char **keys;
    bool *was;
    struct err *errs;
    uint32_t n;
    bool quiet;
};

static void run_delete(struct s3_op *op, int root)
{
    struct removal *r = op->more;

    for (uint32_t i = 0; i < r->n; i++)
        if (r->errs[i].code == ERR_OK && volume_remove(root, r->keys[i], &r->was[i], &r->errs[i]) == 0)
            r->errs[i].code = ERR_OK;
}

static struct removal *removal_of(struct s3_op *op, uint32_t n)
{
    struct arena *a = s3_arena(op);
    struct removal *r = arena_new_of(a, struct removal);

    *r = (struct removal){.keys = arena_array(a, const char *, n + 1), .was = arena_array(a, bool, n + 1),
                          .errs = arena_array(a, struct err, n + 1)};
    op->more = r;
    op->run = run_delete;
    return r;
}

static void reply_delete(struct s3_op *op)
{
    struct removal *r = op->more;

    if (r->errs[0].code != ERR_OK) {
        op->err = r->errs[0];
        s3_fail_err(op);
        s3_answer_error(op);
        return;
    }
    if (r->was[0])
        s3_tell(op, op->key, "ObjectRemoved:Delete", NULL);
    s3_answer_xml(op, 204);
}

void s3_delete_object(struct s3_op *op)
{
    struct removal *r = removal_of(op, 1);

    r->keys[r->n++] = op->key;
    op->reply = reply_delete;
    s3_work(op);
}

static void reply_deletes(struct s3_op *op)
{
    struct removal *r = op->more;

    buf_adds(&op->out, S3_XML "<DeleteResult" S3_NS ">");
    for (uint32_t i = 0; i < r->n; i++) {
        bool failed = r->errs[i].code != ERR_OK;

        if (r->was[i])
            s3_tell(op, r->keys[i], "ObjectRemoved:Delete", NULL);
        if (!failed && r->quiet)
            continue;
        buf_adds(&op->out, failed ? "<Error>" : "<Deleted>");
        xml_element(&op->out, "Key", r->keys[i]);
        if (failed) {
            xml_element(&op->out, "Code", r->errs[i].code == ERR_FORBIDDEN && !r->errs[i].sys ? "AccessDenied" : "InternalError");
            xml_element(&op->out, "Message", r->errs[i].msg);
        }
        buf_adds(&op->out, failed ? "</Error>" : "</Deleted>");
    }
    buf_adds(&op->out, "</DeleteResult>");
    s3_answer_xml(op, 200);
}

static void on_delete_body(struct http_req *req, char *data, size_t n, const struct err *err, void *arg)
{
    struct s3_op *op = arg;
    const struct val *in = err ? NULL : xml_parse(req->arena, data, n, &op->err), *list = val_get(in, "Object");
    struct removal *r;

    if (!in || !val_len(list) || val_len(list) > 1000) {
        s3_error(op->q, 400, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema");
        return;
    }
    op->volume = op->q->d->volumes ? mirror_get(op->q->d->volumes, "", op->bucket) : NULL; /* as it is now */
    r = removal_of(op, val_len(list));
    r->quiet = streq(xml_get(in, "Quiet", "false"), "true");
    VAL_EACH(list, it)
    {
        char *denied = s3_denied(op, "s3:DeleteObject", xml_get(it, "Key", ""));

        if (denied)
            err_set(&r->errs[r->n], FORBIDDEN, "%s", denied);
        r->keys[r->n++] = xml_get(it, "Key", "");
    }
    op->reply = reply_deletes;
    s3_work(op);
}

void s3_delete_objects(struct s3_op *op)
{
    http_body(op->q->req, 2 << 20, on_delete_body, op);
}
