/* Any text compiles or is refused with a reason; what compiles runs in bounded time and memory. The
 * first byte says whether Kubernetes' checks are on; the variables are a tree, typed and not. */
#include "cel/cel.h"
#include "codec/json.h"

static const char object[] =
    "{\"spec\":{\"replicas\":3,\"name\":\"abc\",\"items\":[\"a\",\"b\",\"c\"],\"labels\":{\"a\":\"1\"},\"ratio\":1.5,"
    "\"time\":\"2024-01-02T03:04:05Z\",\"port\":80,\"null\":null,\"deep\":[[[[1]]],{\"x\":[{}]}]}}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t n)
{
    static const struct cel_type list = {.kind = CEL_LIST, .elem = &cel_string_type, .max_elements = 10, .list_type = CEL_LIST_SET};
    static const struct cel_type map = {.kind = CEL_MAP, .key = &cel_string_type, .elem = &cel_string_type, .max_elements = 10};
    static const struct cel_field fields[] = {{"replicas", &cel_int_type}, {"name", &cel_string_type}, {"items", &list},
        {"labels", &map}, {"ratio", &cel_double_type}, {"time", &cel_timestamp_type}, {"port", &cel_dyn_type}};
    static const struct cel_type spec = {.kind = CEL_OBJECT, .name = "self.spec", .fields = fields, .fields_n = ARRAY_LEN(fields)};
    static const struct cel_field self_fields[] = {{"spec", &spec}};
    static const struct cel_type self = {.kind = CEL_OBJECT, .name = "self", .fields = self_fields, .fields_n = 1};
    _auto_(arena_freep) struct arena *a = arena_new();
    _auto_(cel_env_freep) struct cel_env *env = cel_env_new();
    _auto_(cel_prog_freep) struct cel_prog *p = NULL;
    const char *issues = NULL;
    struct err err;
    struct val *tree = json_parse(a, object, sizeof object - 1, &err), *out;

    ASSERT(tree);
    if (!n || n > 4096)
        return 0;
    cel_env_set(env, *data % 3 == 1 ? CEL_PLAIN : *data % 3 == 2 ? CEL_UNCHECKED : 0);
    cel_env_jsonpatch(env);
    cel_env_var(env, "self", &self);
    cel_env_var(env, "object", &cel_dyn_type);
    p = cel_compile(env, (const char *)data + 1, n - 1, a, &issues);
    if (!p) {
        ASSERT(issues && *issues);
        return 0;
    }
    {
        struct cel_value vars[] = {cel_tree(a, tree, &self), cel_tree(a, tree, NULL)}, v;
        struct cel_run run = {.arena = a, .vars = vars, .vars_n = 2, .cost_limit = 100000, .bytes_max = 4 << 20};
        if (cel_eval(p, &run, &v, &err) < 0) {
            ASSERT(*err.msg);
        } else {
            cel_text(a, v);
            (void)!cel_to_val(a, v, &out, &err);
        }
    }
    return 0;
}
