/* door/aws/sts.c - STS: GetCallerIdentity, which tools ask first of all. */
#include "door/aws/aws_int.h"

void sts_request(struct aws_req *q)
{
    struct arena *a = q->req->arena;
    const char *name, *value, *action = http_param(q->req, "Action");
    struct buf b = {0};

    for (size_t i = 0; !action && http_form_next(a, q->body, q->body_n, &i, &name, &value);)
        if (streq(name, "Action"))
            action = value;
    if (!action || !streq(action, "GetCallerIdentity")) {
        query_error(q, action ? 501 : 400, action ? "NotImplemented" : "MissingAction",
                    action ? arena_printf(a, "tandem does not serve the STS action %s", action)
                           : "the request has no Action");
        return;
    }
    buf_adds(&b, "<GetCallerIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">"
                 "<GetCallerIdentityResult>");
    xml_element(&b, "Arn", arena_printf(a, "arn:aws:iam::%s:user/%s", q->d->account, q->sig.key_id));
    xml_element(&b, "UserId", q->sig.key_id);
    xml_element(&b, "Account", q->d->account);
    buf_printf(&b, "</GetCallerIdentityResult><ResponseMetadata><RequestId>%s</RequestId>"
                   "</ResponseMetadata></GetCallerIdentityResponse>", q->id);
    http_header(q->req, "x-amzn-RequestId", q->id);
    http_reply(q->req, 200, "text/xml", b.p, b.n);
    buf_done(&b);
}
