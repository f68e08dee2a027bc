/* auth/sigv4.h - AWS Signature Version 4 (and the version 2 query form that S3 clients still use for
 * presigned URLs): who signed this request, and did he?
 *
 * sigv4_find() reads what the request claims; the caller looks up the secret of key_id and asks
 * sigv4_check(). Nothing is trusted before that. Strings live in the request's arena. */
#pragma once

#include "http/server.h"

enum { SIGV4_KEY_BYTES = 32, SIGV4_HEX_BYTES = 65 };

enum sigv4_kind { SIGV4_NONE, SIGV4_HEADER, SIGV4_QUERY, SIGV2_QUERY };

struct sigv4 {
    enum sigv4_kind kind;
    const char *key_id;
    const char *date, *region, *service; /* credential scope; "" for version 2 */
    const char *signed_headers, *signature;
    const char *amz_date; /* 20260101T000000Z */
    int64_t expires_s;    /* presigned: how long (v4) or until when (v2) */
    /* after sigv4_check(), for the chunks of a streaming body */
    unsigned char key[SIGV4_KEY_BYTES];
};

/* 0 with kind SIGV4_NONE when the request is not signed. INVALID_ARGUMENT: it is malformed. */
int sigv4_find(struct http_req *req, struct sigv4 *ret, struct err *err) _must_check_;
/* payload_hash: hex SHA-256 of the body, or the word that stands for it (UNSIGNED-PAYLOAD, ...).
 * bucket: what a virtual-host style request names, else NULL (only version 2 looks at it).
 * FORBIDDEN: the signature is wrong. EXPIRED: a presigned request is over, or the request is more
 * than 15 minutes off now_s. */
int sigv4_check(struct http_req *req, struct sigv4 *s, const char *secret, const char *payload_hash,
                const char *bucket, int64_t now_s, struct err *err) _must_check_;
/* The signature of one chunk of a STREAMING-AWS4-HMAC-SHA256-PAYLOAD body, given the one before
 * (the first time s->signature) and the hex SHA-256 of the chunk. */
void sigv4_chunk(const struct sigv4 *s, const char *before, const char *chunk_hash,
                 char ret[SIGV4_HEX_BYTES]);
/* The signature over the trailers of a ...-PAYLOAD-TRAILER body; text "name:value\n" each. */
void sigv4_trailer(const struct sigv4 *s, const char *before, const char *trailers_hash,
                   char ret[SIGV4_HEX_BYTES]);
void sigv4_hex(const unsigned char *p, size_t n, char *ret); /* 2n digits and a 0 */
void sigv4_sha256_hex(const void *p, size_t n, char ret[SIGV4_HEX_BYTES]);
