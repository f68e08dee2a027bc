/* door/aws/lambda_int.h - between lambda.c (paths, operations) and lambda_conf.c (shapes). */
#pragma once

#include "codec/obj.h"
#include "door/aws/aws_int.h"

#define LAMBDA_NS "default"
#define FUNCTIONS "tandem.dev/v1/functions"
#define A_NAME "tandem.dev/function-name"       /* as the caller wrote it, when no object can be named so */
#define A_MODIFIED "tandem.dev/last-modified"
#define A_URL_MADE "tandem.dev/url-created"
#define A_URL_MODIFIED "tandem.dev/url-modified"
#define A_POLICY "tandem.dev/policy"

/* A function as a request named it. */
struct lambda_name {
    const char *name;      /* the function's */
    const char *object;    /* the Function object's */
    const char *qualifier; /* NULL: none */
};
/* Name, partial ARN or ARN, each with a qualifier. INVALID_ARGUMENT with the text Lambda gives. */
int lambda_name_parse(struct aws_req *q, const char *s, struct lambda_name *ret, struct err *err);
const char *lambda_arn(struct aws_req *q, const char *name);
const char *lambda_name_of(const struct obj *o);

/* Takes what a request's JSON says into a merge patch of the object's spec (and the whole spec of a new
 * one). *ret_type is the error's type when it returns -1. */
int lambda_conf_read(struct aws_req *q, const struct val *in, bool create, struct val *spec,
                     const char **ret_type, struct err *err);
/* FunctionConfiguration. */
struct val *lambda_conf(struct aws_req *q, const struct obj *o);
struct val *lambda_url_conf(struct aws_req *q, const struct obj *o);
const char *lambda_revision(struct aws_req *q, const struct obj *o);
/* 2026-01-01T00:00:00.000+0000 */
char *lambda_now(struct arena *a);
void lambda_reply(struct aws_req *q, int status, const struct val *v); /* v NULL: no body */
