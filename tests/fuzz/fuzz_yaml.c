/* Any bytes as YAML: decoded, written and decoded again they are the same value. */
#include "codec/yaml.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *a = arena_new();
    struct buf b = {0};
    struct err err;
    struct val *v = yaml_parse(a, (const char *)data, size, NULL, NULL, &err), *again;

    if (v) {
        yaml_write(&b, v);
        again = yaml_parse(a, b.p ? b.p : "", b.n, NULL, NULL, &err);
        ASSERT(again && val_equal(v, again));
    }
    buf_done(&b);
    arena_free(a);
    return 0;
}
