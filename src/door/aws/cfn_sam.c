#include "door/aws/cfn_int.h"
struct val *cfn_sam(struct cfn_scope *scope, struct err *err)
{
    (void)scope;
    err_set(err, INVALID_ARGUMENT, "No transform named AWS::Serverless-2016-10-31 found.");
    return NULL;
}
