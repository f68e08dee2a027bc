/* door/aws/logs/logs_int.h - between the files of the door of CloudWatch Logs.
 *   logs.c    operations; groups, streams, tags
 *   events.c   events: put, get, filter
 *   insights.c  queries of Logs Insights;  insights_query.c  their language */
#pragma once

#include "door/aws/aws_int.h"
#include "logs/logs.h"

#define LOGS_NS "default"
#define LOG_GROUPS "tandem.dev/v1/loggroups"
#define LOGS_SEQUENCE "49039859588563402653231321234567890123456789012345678901" /* nobody looks at it any more */

void logs_fail(struct aws_req *q, const struct err *err);
/* Of the request's logGroupName or logGroupIdentifier, logStreamName, limit; NULL (false): it was answered. */
const char *logs_group_name(struct aws_req *q, const struct val *in);
const char *logs_stream_name(struct aws_req *q, const struct val *in);
const char *logs_group_of_arn(struct aws_req *q, const char *arn); /* a name stays as it is */
bool logs_limit(struct aws_req *q, const struct val *in, int64_t otherwise, int64_t max, uint32_t *ret);

void logs_put_events(struct aws_req *q, const struct val *in);
void logs_get(struct aws_req *q, const struct val *in);
void logs_filter(struct aws_req *q, const struct val *in);
void logs_test_filter(struct aws_req *q, const struct val *in);
void logs_start_query(struct aws_req *q, const struct val *in);
void logs_query_results(struct aws_req *q, const struct val *in);
void logs_stop_query(struct aws_req *q, const struct val *in);
void logs_describe_queries(struct aws_req *q, const struct val *in);
