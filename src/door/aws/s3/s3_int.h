/* door/aws/s3/s3_int.h - what the files of the S3 door share.
 *   s3.c    paths, buckets, notifications;  put.c   bodies into files: objects and parts
 *   get.c   get, head, copy, delete;        list.c  listings;  multi.c  multipart uploads
 *   checksum.c  MD5 and the x-amz-checksum family */
#pragma once

#include "codec/obj.h"
#include "door/aws/aws_int.h"
#include "door/aws/xml.h"
#include "event/event.h"
#include "volume/volume.h"

#include <openssl/evp.h>

/* A request to a bucket. In the request's arena. */
struct s3_op {
    struct aws_req *q;
    const char *bucket, *key; /* key "": the bucket itself */
    const struct obj *volume; /* borrowed from the mirror for this turn of the loop only */

    /* for work on a pool thread, and what it found */
    void (*run)(struct s3_op *op, int root);
    void (*reply)(struct s3_op *op);
    struct err err;
    bool failed;
    const char *code; /* S3's name of the error; NULL: from err */
    int status;
    struct buf out;
    void *more; /* the operation's own */
    bool hide;  /* a key that is not there is told as one that is forbidden */
};

/* May he (may.c)? false: refused, answered. */
bool s3_may(struct s3_op *op);
/* NULL: he may; else what he is told. Of a key of this bucket, and of a key to be copied. */
char *s3_denied(struct s3_op *op, const char *action, const char *key);
char *s3_source_denied(struct s3_op *op, const char *bucket, const char *key);
bool s3_policy_request(struct s3_op *op); /* ?policy: true, and answered */

struct arena *s3_arena(const struct s3_op *op);
/* Runs op->run on a pool thread with the bucket's root open, then op->reply, or answers the error. */
void s3_work(struct s3_op *op);
int s3_fail(struct s3_op *op, int status, const char *code, const char *fmt, ...) _printf_(4, 5); /* -1 */
void s3_fail_err(struct s3_op *op); /* op->err, as S3 says it */
void s3_answer_error(struct s3_op *op);
bool s3_must_be_new(struct s3_op *op); /* If-None-Match: * */
void s3_answer_xml(struct s3_op *op, int status); /* op->out */
/* The document that http_body() has read, in the request's arena. NULL: it is answered that there is none. */
const struct val *s3_xml_body(struct s3_op *op, char *data, size_t n, const struct err *err);
const char *s3_param(const struct s3_op *op, const char *name);
void s3_tell(struct s3_op *op, const char *key, const char *event, const struct volume_info *info);
char *s3_http_time(struct arena *a, int64_t ns);
#define S3_XML "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
#define S3_NS " xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\""

/* Content type, cache control, ... and x-amz-meta-* of a request, to be kept with the object. */
struct val *s3_meta_of_request(struct s3_op *op);

void s3_put_object(struct s3_op *op);
void s3_upload_part(struct s3_op *op);
void s3_get_object(struct s3_op *op); /* HEAD too */
void s3_copy(struct s3_op *op);       /* objects, and parts */
void s3_delete_object(struct s3_op *op);
void s3_delete_objects(struct s3_op *op);
void s3_list(struct s3_op *op, int version); /* 1, 2, or LIST_VERSIONS */
enum { LIST_VERSIONS = 3 };
bool s3_bucket_tags(struct s3_op *op); /* ?tagging: true, and answered */
void s3_multi_create(struct s3_op *op);
void s3_multi_complete(struct s3_op *op);
void s3_multi_abort(struct s3_op *op);
void s3_multi_parts(struct s3_op *op);
void s3_multi_uploads(struct s3_op *op);
/* The private folder of an upload, as a path below the root; NULL when the id is none. */
char *s3_upload_path(struct s3_op *op, const char *id);

/* ---- checksum.c ---- */
enum sum { SUM_NONE, SUM_CRC32, SUM_CRC32C, SUM_SHA1, SUM_SHA256, SUM_CRC64NVME };
struct sums { /* MD5 always, SHA-256 when wanted, and one of the family */
    EVP_MD_CTX *md5, *sha256, *other;
    enum sum algorithm;
    uint64_t crc;
};
void sums_begin(struct sums *s, bool sha256, enum sum algorithm);
void sums_add(struct sums *s, const void *p, size_t n);
/* hex32/hex64 may be NULL; base64 (48 bytes) is "" without an algorithm. */
void sums_end(struct sums *s, char md5[33], char sha256[65], char base64[64]);
enum sum sum_of_name(const char *name); /* "crc32", "CRC32", ... */
const char *sum_header(enum sum s);     /* "x-amz-checksum-crc32" */
const char *sum_name(enum sum s);       /* "CRC32" */
