/* door/aws/ecr.c - ECR: there is no registry to push to, and so no repository. Tools that look for one to clean up hear so. */
#include "door/aws/aws_int.h"

void ecr_request(struct aws_req *q)
{
    const char *action = json_operation(q);
    struct arena *a = q->req->arena;
    struct err err;
    const struct val *in = q->body_n ? json_parse(a, q->body, q->body_n, &err) : NULL, *names = val_get(in, "repositoryNames");
    const char *name = val_str_at(in, "repositoryName", val_is(names, VAL_LIST) && names->n ? val_text(&names->items[0], "") : NULL);

    if (action && streq(action, "DescribeRepositories") && !name) {
        struct val *v = val_map(a);

        val_need_list(a, v, "repositories");
        json_reply(q, v);
    } else if (action && name && (streq(action, "DescribeRepositories") || streq(action, "DeleteRepository") ||
                                  streq(action, "ListImages") || streq(action, "DescribeImages"))) {
        aws_error(q, 400, "RepositoryNotFoundException", "The repository with name '%s' does not exist in the registry with id '%s'", name,
                  q->d->account);
    } else {
        aws_error(q, 501, "NotImplementedException", "tandem has no image registry: ECR's %s is not served", action ? action : "request");
    }
}
