#include "door/aws/logs_int.h"

static void not_yet(struct aws_req *q)
{
    aws_error(q, 501, "NotImplementedException", "tandem does not serve the CloudWatch Logs operation %s", json_operation(q));
}
void logs_start_query(struct aws_req *q, const struct val *in) { not_yet(q); }
void logs_query_results(struct aws_req *q, const struct val *in) { not_yet(q); }
void logs_stop_query(struct aws_req *q, const struct val *in) { not_yet(q); }
void logs_describe_queries(struct aws_req *q, const struct val *in) { not_yet(q); }
