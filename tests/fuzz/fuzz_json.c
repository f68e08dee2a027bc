/* Any bytes as JSON: decoded, written and decoded again they are the same value. */
#include "codec/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct arena *a = arena_new();
    struct buf b = {0};
    struct err err;
    struct val *v = json_parse(a, (const char *)data, size, &err), *again;

    if (v) {
        json_write(&b, v);
        again = json_parse(a, b.p ? b.p : "", b.n, &err);
        ASSERT(again && val_equal(v, again));
    }
    buf_done(&b);
    arena_free(a);
    return 0;
}
