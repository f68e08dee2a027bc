/* door/aws/iam/iam_int.h - between the files of IAM's door.
 *   iam.c     the table of operations, parameters, answers, writes
 *   entity.c  what roles and users have in common: themselves, inline policies, attachments, tags
 *   user.c    users' access keys
 *   policy.c  managed policies and their versions
 *   sim.c     the simulations */
#pragma once

#include "codec/obj.h"
#include "door/aws/aws_int.h"
#include "door/aws/identity_int.h"

struct iam_op;
struct iam_action {
    const char *name;
    void (*run)(struct iam_op *op);
    const struct iam_kind *kind; /* of what it is about; NULL: neither role nor user */
    char about; /* what its resource is: 'e' that role or user, 'p' the policy of PolicyArn, '*' anything */
};
/* Roles and users. */
struct iam_kind {
    const char *resource, *object; /* "tandem.dev/v1/iamroles", "IAMRole" */
    const char *noun, *Noun;       /* "role", "Role" */
    const char *param;             /* "RoleName" */
    const char *prefix;            /* of ids: "AROA" */
    size_t inline_bytes_max;
};
extern const struct iam_kind IAM_ROLE, IAM_USER;

typedef int iam_change_fn(struct iam_op *op, struct val *spec); /* -1: answered */
typedef void iam_reply_fn(struct iam_op *op, const struct obj *o);

/* One operation under way; in the request's arena. */
struct iam_op {
    struct aws_req *q;
    struct identity *id;
    struct arena *a;
    const struct iam_action *action;
    struct buf out; /* the inside of <ActionResult> */
    /* a write */
    const char *resource, *ns, *object;
    struct mirror *mirror;
    iam_change_fn *change;
    iam_reply_fn *reply;
    const struct obj *wrote;
    int tries;
};

/* Errors answer and give back -1. */
int iam_fail(struct iam_op *op, int status, const char *code, const char *fmt, ...) _printf_(4, 5);
const char *iam_param(struct iam_op *op, const char *name);
/* A parameter that must be there, of at most max bytes; NULL: answered. */
const char *iam_need(struct iam_op *op, const char *name, size_t max);
/* A name of IAM's characters; NULL: answered. */
const char *iam_need_name(struct iam_op *op, const char *param, size_t max);
/* "Tags.member.1" ... : the i-th, from 1. sub NULL: the member itself. */
const char *iam_member(struct iam_op *op, const char *list, int i, const char *sub);
/* A document parameter of that kind, checked, as text; NULL: answered. */
const char *iam_need_document(struct iam_op *op, const char *param, enum policy_kind kind);
/* Tags of the request into a map; -1: answered. */
int iam_read_tags(struct iam_op *op, struct val *into);
void iam_write_tags(struct iam_op *op, const struct val *tags);
int iam_check_path(struct iam_op *op, const char **ret);

void iam_done(struct iam_op *op); /* answers op->out */
void iam_done_with(struct iam_op *op, const struct obj *o);
struct mirror *iam_mirror(struct iam_op *op, const struct iam_kind *kind);

/* Writes; op->reply comes when the mirror shows them. */
void iam_create(struct iam_op *op, const char *resource, struct mirror *m, const struct val *body, iam_reply_fn *reply);
void iam_change(struct iam_op *op, const char *resource, struct mirror *m, const struct obj *o, iam_change_fn *change,
                iam_reply_fn *reply);
void iam_delete(struct iam_op *op, const char *resource, struct mirror *m, const struct obj *o);

/* Pages of a listing that is in order of its keys: begin reads Marker and MaxItems, each() says whether this key's
 * item is to be shown, end() writes IsTruncated and Marker. */
struct iam_page {
    const char *after, *last;
    int64_t left;
    bool more;
};
int iam_page_begin(struct iam_op *op, struct iam_page *p);
bool iam_page_each(struct iam_page *p, const char *key);
void iam_page_end(struct iam_op *op, const struct iam_page *p);
int iam_page_tags(struct iam_op *op, const struct val *tags); /* <Tags> in the order of their keys; -1: answered */

/* The role or user that the request names; NULL: answered. */
const struct obj *iam_entity(struct iam_op *op);
void iam_entity_xml(struct iam_op *op, const struct obj *o, const struct iam_kind *kind, bool whole);
/* How many roles and users have a policy attached, or as their boundary. */
void iam_uses(struct iam_op *op, const char *arn, int64_t *ret_attached, int64_t *ret_boundary);
bool iam_has_attached(const struct obj *o, const char *arn);
const char *iam_document_text(struct arena *a, const struct val *document);

#define IAM_OP(name) void iam_##name(struct iam_op *op)
IAM_OP(create_entity); IAM_OP(get_entity); IAM_OP(list_entities); IAM_OP(delete_entity); IAM_OP(update_role); IAM_OP(update_user);
IAM_OP(update_trust); IAM_OP(put_inline); IAM_OP(get_inline); IAM_OP(list_inline); IAM_OP(delete_inline);
IAM_OP(attach); IAM_OP(detach); IAM_OP(list_attached); IAM_OP(tag); IAM_OP(untag); IAM_OP(list_tags);
IAM_OP(put_boundary); IAM_OP(delete_boundary);
IAM_OP(create_key); IAM_OP(list_keys); IAM_OP(update_key); IAM_OP(delete_key); IAM_OP(key_last_used);
IAM_OP(create_policy); IAM_OP(get_policy); IAM_OP(list_policies); IAM_OP(delete_policy); IAM_OP(create_version);
IAM_OP(get_version); IAM_OP(list_versions); IAM_OP(delete_version); IAM_OP(set_default_version); IAM_OP(tag_policy);
IAM_OP(untag_policy); IAM_OP(list_policy_tags); IAM_OP(list_users_of_policy); IAM_OP(simulate); IAM_OP(summary);
