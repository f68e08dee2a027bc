/* door/aws/sts.c - STS: GetCallerIdentity, which tools ask first of all. */
#include "door/aws/aws_int.h"

void sts_request(struct aws_req *q)
{
    const char *action = query_param(q, "Action");
    _auto_(buf_done) struct buf b = {0};

    if (!action) {
        query_error(q, 400, "MissingAction", "the request has no Action");
        return;
    }
    if (!streq(action, "GetCallerIdentity")) {
        aws_error(q, 501, "NotImplemented", "tandem does not serve the STS action %s", action);
        return;
    }
    query_begin(q, &b, action);
    xml_element(&b, "Arn", arena_printf(q->req->arena, "arn:aws:iam::%s:user/%s", q->d->account, q->sig.key_id));
    xml_element(&b, "UserId", q->sig.key_id);
    xml_element(&b, "Account", q->d->account);
    query_end(q, &b, action);
}
