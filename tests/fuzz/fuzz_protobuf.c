/* Any bytes behind the magic: read, and what was read can be written. */
#include "schema/protobuf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct schema *s;
    struct arena *a = arena_new();
    char *body = arena_raw(a, size + 4);
    struct buf b = {0};
    struct err err;
    struct val *v;

    if (!s)
        s = schema_new();
    memcpy(body, "k8s\0", 4);
    memcpy(body + 4, data, size);
    v = protobuf_read(s, a, body, size + 4, &err);
    if (v)
        ASSERT(protobuf_write(s, &b, v, &err) == 0);
    buf_done(&b);
    arena_free(a);
    return 0;
}
