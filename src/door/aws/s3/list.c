/* door/aws/s3/list.c - ListObjectsV2, and V1 for old clients; ListObjectVersions, in which each object has its one version, null. */
#include "door/aws/s3/s3_int.h"

#include <stdio.h>

enum { KEYS_MAX = 1000 };

struct listing {
    int version;
    const char *prefix, *delimiter, *after, *start_after, *token;
    uint32_t max;
    bool encode;
    struct volume_list found;
};

static void run_list(struct s3_op *op, int root)
{
    struct listing *l = op->more;

    if (volume_list(root, s3_arena(op), l->prefix, l->delimiter, l->after, l->max, &l->found, &op->err) < 0)
        s3_fail_err(op);
}

/* Keys may hold what XML cannot: clients ask for them percent-encoded. */
static void key_element(struct s3_op *op, const char *name, const char *key)
{
    struct listing *l = op->more;

    xml_element(&op->out, name, l->encode ? http_escape(s3_arena(op), key, "/") : key);
}

static const char *root_name(const struct listing *l)
{
    return l->version == LIST_VERSIONS ? "ListVersionsResult" : "ListBucketResult";
}

static void heading(struct s3_op *op)
{
    struct listing *l = op->more;
    const char *last = l->found.n ? l->found.v[l->found.n - 1].key : "";

    buf_printf(&op->out, S3_XML "<%s" S3_NS ">", root_name(l));
    xml_element(&op->out, "Name", op->bucket);
    key_element(op, "Prefix", l->prefix);
    if (l->delimiter)
        key_element(op, "Delimiter", l->delimiter);
    buf_printf(&op->out, "<MaxKeys>%u</MaxKeys><IsTruncated>%s</IsTruncated>", l->max, l->found.more ? "true" : "false");
    if (l->encode)
        xml_element(&op->out, "EncodingType", "url");
    if (l->version == 2) {
        buf_printf(&op->out, "<KeyCount>%u</KeyCount>", l->found.n);
        if (l->token)
            xml_element(&op->out, "ContinuationToken", l->token);
        if (l->start_after)
            key_element(op, "StartAfter", l->start_after);
        if (l->found.more)
            xml_element(&op->out, "NextContinuationToken", b64_encode(s3_arena(op), last, strlen(last)));
    } else if (l->version == LIST_VERSIONS) {
        key_element(op, "KeyMarker", l->start_after ? l->start_after : "");
        xml_element(&op->out, "VersionIdMarker", "");
        if (l->found.more) {
            key_element(op, "NextKeyMarker", last);
            xml_element(&op->out, "NextVersionIdMarker", "null");
        }
    } else {
        key_element(op, "Marker", l->start_after ? l->start_after : "");
        if (l->found.more)
            key_element(op, "NextMarker", last);
    }
}

static void reply_list(struct s3_op *op)
{
    struct listing *l = op->more;
    const char *item = l->version == LIST_VERSIONS ? "Version" : "Contents";

    heading(op);
    for (uint32_t i = 0; i < l->found.n; i++) {
        const struct volume_entry *e = &l->found.v[i];

        if (e->prefix)
            continue;
        buf_printf(&op->out, "<%s>", item);
        key_element(op, "Key", e->key);
        if (l->version == LIST_VERSIONS)
            buf_adds(&op->out, "<VersionId>null</VersionId><IsLatest>true</IsLatest>");
        buf_printf(&op->out, "<LastModified>%s</LastModified><ETag>&quot;%s&quot;</ETag><Size>%lld</Size>"
                   "<StorageClass>STANDARD</StorageClass></%s>", iso_time(s3_arena(op), e->mtime_ns / 1000000),
                   e->etag, (long long)e->size, item);
    }
    for (uint32_t i = 0; i < l->found.n; i++) {
        if (!l->found.v[i].prefix)
            continue;
        buf_adds(&op->out, "<CommonPrefixes>");
        key_element(op, "Prefix", l->found.v[i].key);
        buf_adds(&op->out, "</CommonPrefixes>");
    }
    buf_printf(&op->out, "</%s>", root_name(l));
    s3_answer_xml(op, 200);
}

void s3_list(struct s3_op *op, int version)
{
    struct listing *l = arena_new_of(s3_arena(op), struct listing);
    const char *max = s3_param(op, "max-keys"), *encoding = s3_param(op, "encoding-type");
    char *end;
    long n = max ? strtol(max, &end, 10) : KEYS_MAX;

    if (max && (*end || n < 0)) {
        s3_error(op->q, 400, "InvalidArgument", "Provided max-keys not an integer or within integer range");
        return;
    }
    *l = (struct listing){.version = version, .max = (uint32_t)MIN(n, (long)KEYS_MAX), .delimiter = s3_param(op, "delimiter"),
                          .prefix = s3_param(op, "prefix"), .encode = encoding && streq(encoding, "url")};
    l->prefix = l->prefix ? l->prefix : "";
    l->delimiter = str_empty(l->delimiter) ? NULL : l->delimiter;
    l->start_after = s3_param(op, version == 2 ? "start-after" : version == LIST_VERSIONS ? "key-marker" : "marker");
    l->after = str_empty(l->start_after) ? NULL : l->start_after;
    l->token = version == 2 ? s3_param(op, "continuation-token") : NULL;
    if (l->token) {
        l->after = b64_decode(s3_arena(op), l->token, NULL);
        if (!l->after) {
            s3_error(op->q, 400, "InvalidArgument", "The continuation token provided is incorrect");
            return;
        }
    }
    op->more = l;
    op->run = run_list;
    op->reply = reply_list;
    s3_work(op);
}
