/* door/aws/s3/multi.c - multipart uploads.
 *
 * An upload is a folder .tandem/upload-ID of the volume: "key" holds what it will become (JSON: key,
 * meta, started), 00001 ... its parts. Completing joins them (in the kernel where the file system can) into a
 * temporary file that gets the key's name in one step; so a reader sees the old object or the new one. */
#include "door/aws/s3/s3_int.h"

#include "env/fs.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <openssl/rand.h>
#include <stdio.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { PART_LEAST = 5 << 20, PARTS_MAX = 10000, ID_CHARS = 32 };

struct multi {
    char *id, *folder;
    struct val *about;       /* what the "key" file holds */
    const struct val *parts; /* asked for: Part elements */
    struct volume_info info;
    int dir;
};

char *s3_upload_path(struct s3_op *op, const char *id)
{
    if (!id || strlen(id) != ID_CHARS || strspn(id, "0123456789abcdef") != ID_CHARS)
        return NULL;
    return arena_printf(s3_arena(op), VOLUME_PRIVATE "/upload-%s", id);
}

static int no_upload(struct s3_op *op)
{
    return s3_fail(op, 404, "NoSuchUpload", "The specified upload does not exist. The upload ID may be invalid, or the "
                   "upload may have been aborted or completed.");
}

/* NULL after an error answer. */
static struct multi *multi_of(struct s3_op *op)
{
    struct multi *m = arena_new_of(s3_arena(op), struct multi);

    m->id = (char *)(uintptr_t)s3_param(op, "uploadId");
    m->folder = s3_upload_path(op, m->id);
    m->dir = -1;
    op->more = m;
    if (m->folder)
        return m;
    no_upload(op);
    s3_answer_error(op);
    return NULL;
}

static struct val *read_about(struct arena *a, int dir)
{
    char text[16384];
    struct err ignored;
    _auto_(closep) int fd = openat(dir, "key", O_RDONLY | O_CLOEXEC);
    ssize_t n = fd >= 0 ? read(fd, text, sizeof text) : -1;

    return n > 0 ? json_parse(a, text, (size_t)n, &ignored) : NULL;
}

/* Opens the upload's folder; it must be for this key. */
static int open_upload(struct s3_op *op, struct multi *m, int root)
{
    m->dir = openat(root, m->folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (m->dir >= 0)
        m->about = read_about(s3_arena(op), m->dir);
    if (!m->about || !streq(val_str_at(m->about, "key", ""), op->key)) {
        closep(&m->dir);
        return no_upload(op);
    }
    return 0;
}

/* ---- create ---- */

static void run_create(struct s3_op *op, int root)
{
    struct multi *m = op->more;
    struct buf b = {0};
    char *temp = arena_printf(s3_arena(op), "%s/key", m->folder);
    _auto_(closep) int fd = -1;

    if ((mkdirat(root, VOLUME_PRIVATE, 0700) < 0 && errno != EEXIST) || mkdirat(root, m->folder, 0700) < 0) {
        err_sys(&op->err, "begin the upload");
        s3_fail_err(op);
        return;
    }
    json_write(&b, m->about);
    fd = openat(root, temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || fs_write_all(fd, b.p, b.n, &op->err) < 0 || fsync(fd) < 0) {
        err_sys(&op->err, "begin the upload");
        s3_fail_err(op);
    }
    buf_done(&b);
}

static void reply_create(struct s3_op *op)
{
    struct multi *m = op->more;

    buf_adds(&op->out, S3_XML "<InitiateMultipartUploadResult" S3_NS ">");
    xml_element(&op->out, "Bucket", op->bucket);
    xml_element(&op->out, "Key", op->key);
    xml_element(&op->out, "UploadId", m->id);
    buf_adds(&op->out, "</InitiateMultipartUploadResult>");
    s3_answer_xml(op, 200);
}

void s3_multi_create(struct s3_op *op)
{
    struct arena *a = s3_arena(op);
    struct multi *m = arena_new_of(a, struct multi);
    unsigned char random[ID_CHARS / 2];

    RAND_bytes(random, sizeof random);
    m->id = arena_alloc(a, ID_CHARS + 1);
    sigv4_hex(random, sizeof random, m->id);
    m->folder = s3_upload_path(op, m->id);
    m->about = val_map(a);
    val_put_str(a, m->about, "key", op->key);
    val_put(a, m->about, "meta", s3_meta_of_request(op));
    val_put_int(a, m->about, "started", (int64_t)time(NULL));
    op->more = m;
    op->run = run_create;
    op->reply = reply_create;
    s3_work(op);
}

/* ---- complete ---- */

static int append(struct s3_op *op, int out, int in, int64_t n)
{
    while (n > 0) {
        ssize_t got = copy_file_range(in, NULL, out, NULL, (size_t)n, 0);

        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            err_sys(&op->err, "join the parts");
            s3_fail_err(op);
            return -1;
        }
        n -= got;
    }
    return 0;
}

/* One part behind what is there; its MD5 goes into the sum of sums. */
static int join_part(struct s3_op *op, struct multi *m, int out, const struct val *part, bool last, EVP_MD_CTX *sum)
{
    int number = atoi(xml_get(part, "PartNumber", "0"));
    const char *want = xml_get(part, "ETag", "");
    char name[16], etag[VOLUME_ETAG_BYTES];
    size_t quote = *want == '"';
    struct stat st;
    _auto_(closep) int in = -1;

    snprintf(name, sizeof name, "%05d", number);
    in = openat(m->dir, name, O_RDONLY | O_CLOEXEC);
    if (number < 1 || number > PARTS_MAX || in < 0 || fstat(in, &st) < 0)
        return s3_fail(op, 400, "InvalidPart", "One or more of the specified parts could not be found. (part %d)", number);
    volume_etag(in, &st, etag);
    if (strncmp(want + quote, etag, strlen(etag)) != 0 || strlen(etag) != 32)
        return s3_fail(op, 400, "InvalidPart", "The ETag of part %d is not the one that the upload answered with.", number);
    if (!last && st.st_size < PART_LEAST)
        return s3_fail(op, 400, "EntityTooSmall", "Your proposed upload is smaller than the minimum allowed size (part %d)", number);
    for (int i = 0; i < 16; i++) {
        unsigned byte = 0;
        unsigned char raw;

        sscanf(etag + 2 * i, "%2x", &byte);
        raw = (unsigned char)byte;
        EVP_DigestUpdate(sum, &raw, 1);
    }
    return append(op, out, in, st.st_size);
}

static void remove_upload(int root, const char *folder)
{
    int fd = openat(root, folder, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct dirent *d;

    while (dir && (d = readdir(dir)))
        if (d->d_name[0] != '.')
            unlinkat(dirfd(dir), d->d_name, 0);
    if (dir)
        closedir(dir);
    unlinkat(root, folder, AT_REMOVEDIR);
}

static void run_complete(struct s3_op *op, int root)
{
    struct multi *m = op->more;
    EVP_MD_CTX *sum = EVP_MD_CTX_new();
    char temp[VOLUME_TEMP_BYTES], etag[VOLUME_ETAG_BYTES], hex[33];
    unsigned char raw[EVP_MAX_MD_SIZE];
    uint32_t n = val_len(m->parts);
    int number = 0, rc = open_upload(op, m, root);
    _auto_(closep) int out = -1;

    EVP_DigestInit_ex(sum, EVP_md5(), NULL);
    if (rc == 0 && (out = volume_temp(root, temp, &op->err)) < 0) {
        s3_fail_err(op);
        rc = -1;
    }
    for (uint32_t i = 0; i < n && rc == 0; i++) {
        int next = atoi(xml_get(&m->parts->items[i], "PartNumber", "0"));

        if (next <= number)
            rc = s3_fail(op, 400, "InvalidPartOrder", "The list of parts was not in ascending order.");
        number = next;
        if (rc == 0)
            rc = join_part(op, m, out, &m->parts->items[i], i + 1 == n, sum);
    }
    EVP_DigestFinal_ex(sum, raw, NULL);
    EVP_MD_CTX_free(sum);
    closep(&m->dir);
    if (rc < 0) {
        if (out >= 0)
            unlinkat(root, temp, 0);
        return;
    }
    sigv4_hex(raw, 16, hex);
    snprintf(etag, sizeof etag, "%s-%u", hex, n);
    if (volume_commit(root, out, temp, op->key, etag, val_get(m->about, "meta"), s3_must_be_new(op), &m->info, &op->err) < 0)
        s3_fail_err(op);
    else
        remove_upload(root, m->folder);
}

static void reply_complete(struct s3_op *op)
{
    struct multi *m = op->more;

    buf_adds(&op->out, S3_XML "<CompleteMultipartUploadResult" S3_NS ">");
    xml_element(&op->out, "Location", arena_printf(s3_arena(op), "http://%s/%s/%s", op->q->req->host, op->bucket, op->key));
    xml_element(&op->out, "Bucket", op->bucket);
    xml_element(&op->out, "Key", op->key);
    buf_printf(&op->out, "<ETag>&quot;%s&quot;</ETag></CompleteMultipartUploadResult>", m->info.etag);
    s3_tell(op, op->key, "ObjectCreated:CompleteMultipartUpload", &m->info);
    s3_answer_xml(op, 200);
}

static void on_complete_body(struct http_req *req, char *data, size_t n, const struct err *err, void *arg)
{
    struct s3_op *op = arg;
    struct multi *m = op->more;
    const struct val *in = err ? NULL : xml_parse(req->arena, data, n, &op->err);

    m->parts = val_get(in, "Part");
    if (!val_len(m->parts)) {
        s3_error(op->q, 400, "MalformedXML", "The XML you provided was not well-formed or did not validate against our published schema");
        return;
    }
    op->run = run_complete;
    op->reply = reply_complete;
    s3_work(op);
}

void s3_multi_complete(struct s3_op *op)
{
    if (multi_of(op))
        http_body(op->q->req, 4 << 20, on_complete_body, op);
}

/* ---- abort, list parts, list uploads ---- */

static void run_abort(struct s3_op *op, int root)
{
    struct multi *m = op->more;

    if (open_upload(op, m, root) < 0)
        return;
    closep(&m->dir);
    remove_upload(root, m->folder);
}

static void reply_abort(struct s3_op *op)
{
    s3_answer_xml(op, 204);
}

void s3_multi_abort(struct s3_op *op)
{
    if (!multi_of(op))
        return;
    op->run = run_abort;
    op->reply = reply_abort;
    s3_work(op);
}

static int64_t number_of(struct s3_op *op, const char *name, int64_t otherwise, int64_t least, int64_t most)
{
    const char *text = s3_param(op, name);
    char *end = NULL;
    long long n = text ? strtoll(text, &end, 10) : otherwise;

    return !text || end == text || *end ? otherwise : MIN(MAX((int64_t)n, least), most);
}

static void run_parts(struct s3_op *op, int root)
{
    struct multi *m = op->more;
    int64_t max, after, left;
    bool more = false;
    int last = 0;

    if (open_upload(op, m, root) < 0)
        return;
    max = number_of(op, "max-parts", 1000, 0, 1000);
    after = number_of(op, "part-number-marker", 0, 0, PARTS_MAX);
    left = max;
    buf_adds(&op->out, S3_XML "<ListPartsResult" S3_NS ">");
    xml_element(&op->out, "Bucket", op->bucket);
    xml_element(&op->out, "Key", op->key);
    xml_element(&op->out, "UploadId", m->id);
    for (int i = (int)MIN(after, (int64_t)PARTS_MAX) + 1; i <= PARTS_MAX; i++) {
        char name[16], etag[VOLUME_ETAG_BYTES];
        struct stat st;
        _auto_(closep) int fd = -1;

        snprintf(name, sizeof name, "%05d", i);
        fd = openat(m->dir, name, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || fstat(fd, &st) < 0)
            continue;
        if (left-- <= 0) {
            more = true;
            break;
        }
        last = i;
        volume_etag(fd, &st, etag);
        buf_printf(&op->out, "<Part><PartNumber>%d</PartNumber><LastModified>%s</LastModified><ETag>&quot;%s&quot;</ETag>"
                   "<Size>%lld</Size></Part>", i, iso_time(s3_arena(op), (int64_t)st.st_mtime * 1000), etag, (long long)st.st_size);
    }
    buf_printf(&op->out, "<PartNumberMarker>%lld</PartNumberMarker><NextPartNumberMarker>%d</NextPartNumberMarker><MaxParts>%lld</MaxParts>"
               "<IsTruncated>%s</IsTruncated></ListPartsResult>", (long long)after, last, (long long)max, more ? "true" : "false");
    closep(&m->dir);
}

static void reply_parts(struct s3_op *op)
{
    s3_answer_xml(op, 200);
}

void s3_multi_parts(struct s3_op *op)
{
    if (!multi_of(op))
        return;
    op->run = run_parts;
    op->reply = reply_parts;
    s3_work(op);
}

struct upload {
    const char *key, *id;
    int64_t started_s;
};

static int by_key(const void *x, const void *y)
{
    const struct upload *a = x, *b = y;
    int r = strcmp(a->key, b->key);

    return r ? r : strcmp(a->id, b->id);
}

static void run_uploads(struct s3_op *op, int root)
{
    const char *prefix = s3_param(op, "prefix") ? s3_param(op, "prefix") : "", *key = s3_param(op, "key-marker"),
               *id = s3_param(op, "upload-id-marker");
    int64_t max = number_of(op, "max-uploads", 1000, 1, 1000);
    int fd = openat(root, VOLUME_PRIVATE, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;
    struct upload *all = NULL;
    size_t n = 0, shown = 0;
    bool more = false;
    struct dirent *d;

    while (dir && (d = readdir(dir))) {
        int upload = str_starts(d->d_name, "upload-") ? openat(fd, d->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
        struct val *about = upload >= 0 ? read_about(s3_arena(op), upload) : NULL;

        closep(&upload);
        if (!about || !str_starts(val_str_at(about, "key", ""), prefix))
            continue;
        all = xrealloc(all, (n + 1) * sizeof *all);
        all[n++] = (struct upload){val_str_at(about, "key", ""), arena_strdup(s3_arena(op), d->d_name + strlen("upload-")), val_int_at(about, "started", 0)};
    }
    if (dir)
        closedir(dir);
    if (n)
        qsort(all, n, sizeof *all, by_key);
    buf_adds(&op->out, S3_XML "<ListMultipartUploadsResult" S3_NS ">");
    xml_element(&op->out, "Bucket", op->bucket);
    for (size_t i = 0; i < n; i++) {
        if (key && by_key(&all[i], &(struct upload){key, id ? id : "\x7f", 0}) <= 0)
            continue;
        if ((int64_t)shown++ >= max)
            break;
        buf_adds(&op->out, "<Upload>");
        xml_element(&op->out, "Key", all[i].key);
        xml_element(&op->out, "UploadId", all[i].id);
        xml_element(&op->out, "Initiated", iso_time(s3_arena(op), all[i].started_s * 1000));
        buf_adds(&op->out, "</Upload>");
        if ((int64_t)shown == max && i + 1 < n) {
            xml_element(&op->out, "NextKeyMarker", all[i].key);
            xml_element(&op->out, "NextUploadIdMarker", all[i].id);
            more = true;
        }
    }
    free(all);
    buf_printf(&op->out, "<MaxUploads>%lld</MaxUploads><IsTruncated>%s</IsTruncated></ListMultipartUploadsResult>", (long long)max,
               more ? "true" : "false");
}

void s3_multi_uploads(struct s3_op *op)
{
    op->run = run_uploads;
    op->reply = reply_parts;
    s3_work(op);
}
