#include "codec/pack.h"

#include <stdatomic.h>
#include <zstd.h>

enum { LEVEL = -1 };

struct pack {
    _Atomic uint32_t refs;
    int64_t id;
    void *content;
    size_t n;
    ZSTD_CDict *write; /* made at the first pack_write() */
    ZSTD_DDict *read;
};

struct pack *pack_new(int64_t id, const void *content, size_t n)
{
    struct pack *p = xcalloc(1, sizeof *p);

    atomic_init(&p->refs, 1);
    p->id = id;
    p->n = MIN(n, (size_t)PACK_DICT_BYTES_MAX);
    p->content = xmalloc(p->n + 1);
    memcpy(p->content, content, p->n);
    p->read = ZSTD_createDDict(p->content, p->n);
    ASSERT(p->read);
    return p;
}

struct pack *pack_ref(struct pack *p)
{
    if (p)
        atomic_fetch_add_explicit(&p->refs, 1, memory_order_relaxed);
    return p;
}

void *pack_unref(struct pack *p)
{
    if (!p || atomic_fetch_sub_explicit(&p->refs, 1, memory_order_acq_rel) != 1)
        return NULL;
    ZSTD_freeCDict(p->write);
    ZSTD_freeDDict(p->read);
    free(p->content);
    free(p);
    return NULL;
}

int64_t pack_id(const struct pack *p)
{
    return p ? p->id : 0;
}

const void *pack_content(const struct pack *p, size_t *ret_n)
{
    *ret_n = p->n;
    return p->content;
}

void pack_rest(struct pack *p)
{
    if (!p)
        return;
    ZSTD_freeCDict(p->write);
    p->write = NULL;
}

/* One of each for a thread; both are made when first needed. */
static _Thread_local struct {
    ZSTD_CCtx *write;
    ZSTD_DCtx *read;
} own;

void *pack_write(struct pack *p, const char *text, size_t n, uint32_t *ret_n)
{
    size_t cap = n - n / 4, got;
    char *out;

    if (n < (size_t)(p ? PACK_TEXT_MIN : PACK_ALONE_MIN))
        return NULL;
    if (!own.write) {
        own.write = ZSTD_createCCtx();
        ASSERT(own.write);
    }
    if (p && !p->write)
        p->write = ZSTD_createCDict(p->content, p->n, LEVEL);
    out = xmalloc(cap);
    got = p && p->write ? ZSTD_compress_usingCDict(own.write, out, cap, text, n, p->write)
                        : ZSTD_compressCCtx(own.write, out, cap, text, n, LEVEL);
    if (ZSTD_isError(got)) { /* it does not fit: not worth it */
        free(out);
        return NULL;
    }
    *ret_n = (uint32_t)got;
    return xrealloc(out, got);
}

bool pack_read(const struct pack *p, const void *packed, size_t n, char *out, size_t out_n)
{
    size_t got;

    if (!own.read) {
        own.read = ZSTD_createDCtx();
        ASSERT(own.read);
    }
    got = p ? ZSTD_decompress_usingDDict(own.read, out, out_n, packed, n, p->read)
            : ZSTD_decompressDCtx(own.read, out, out_n, packed, n);
    if (ZSTD_isError(got) || got != out_n)
        return false;
    out[out_n] = 0;
    return true;
}
