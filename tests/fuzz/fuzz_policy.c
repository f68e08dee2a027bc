/* Any text as a policy document: it is refused with a text, or judged in bounded time, and the verdict obeys the one rule
 * that no document can change: what says Deny is not allowed. First line: the resource; the rest: the document. */
#include "auth/policy.h"
#include "codec/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *a = arena_new();
    char *text = arena_strndup(a, (const char *)data, size), *doc_text = strchr(text, '\n');
    struct val *context = val_map(a), *ips = val_list(a);
    struct policy_who who = {.account = "000000000000", .arn = "arn:aws:iam::000000000000:user/anna"};

    if (doc_text) {
        *doc_text++ = 0;
        val_put_str(a, context, "aws:username", text);
        val_push_str(a, ips, "10.0.0.7");
        val_push_str(a, ips, text);
        val_put(a, context, "aws:sourceip", ips);
        for (int kind = POLICY_IDENTITY; kind <= POLICY_RESOURCE; kind++) {
            struct policy_ask ask = {"s3:GetObject", text, context, &who, a};
            struct policy_set set = {.identity = {.n = 0}, .resource_kind = (enum policy_kind)kind};
            struct err err = {0};
            const struct val *doc = policy_read(a, val_str(a, doc_text), (enum policy_kind)kind, &err);

            if (!doc) {
                ASSERT(err.code == ERR_INVALID && *err.msg);
                continue;
            }
            if (kind == POLICY_IDENTITY)
                set.identity = (struct policy_docs){&doc, 1};
            else
                set.resource = doc;
            if (policy_says(doc, (enum policy_kind)kind, &ask) == POLICY_SAYS_DENY)
                ASSERT(policy_decide(&set, &ask) != POLICY_ALLOWED);
        }
    }
    arena_free(a);
    return 0;
}
