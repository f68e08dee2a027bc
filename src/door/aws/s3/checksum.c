#include "door/aws/s3/s3_int.h"

#include <strings.h>
#include <zlib.h>

static const struct {
    enum sum sum;
    const char *name, *header;
} NAMES[] = {
    {SUM_CRC32, "CRC32", "x-amz-checksum-crc32"},
    {SUM_CRC32C, "CRC32C", "x-amz-checksum-crc32c"},
    {SUM_SHA1, "SHA1", "x-amz-checksum-sha1"},
    {SUM_SHA256, "SHA256", "x-amz-checksum-sha256"},
    {SUM_CRC64NVME, "CRC64NVME", "x-amz-checksum-crc64nvme"},
};

enum sum sum_of_name(const char *name)
{
    for (size_t i = 0; name && i < ARRAY_LEN(NAMES); i++)
        if (strcasecmp(name, NAMES[i].name) == 0)
            return NAMES[i].sum;
    return SUM_NONE;
}

const char *sum_header(enum sum s)
{
    return s ? NAMES[s - 1].header : NULL;
}

const char *sum_name(enum sum s)
{
    return s ? NAMES[s - 1].name : NULL;
}

/* Reflected CRCs by a table of 256: polynomials of CRC-32C (Castagnoli) and CRC-64/NVME. */
static uint64_t crc_add(uint64_t crc, const uint8_t *p, size_t n, bool wide)
{
    static uint64_t tables[2][256];
    static const uint64_t POLY[2] = {0x82f63b78u, 0x9a6c9329ac4bc9b5u};
    uint64_t *table = tables[wide];

    if (!table[255]) { /* racing threads write the same values; the last one is written last */
        for (int i = 0; i < 256; i++) {
            uint64_t c = (uint64_t)i;

            for (int bit = 0; bit < 8; bit++)
                c = c & 1 ? c >> 1 ^ POLY[wide] : c >> 1;
            __atomic_store_n(&table[i], c, __ATOMIC_RELEASE);
        }
    }
    for (; n; n--, p++)
        crc = table[(crc ^ *p) & 255] ^ crc >> 8;
    return crc;
}

static EVP_MD_CTX *digest(const EVP_MD *md)
{
    EVP_MD_CTX *c = EVP_MD_CTX_new();

    ASSERT(c && EVP_DigestInit_ex(c, md, NULL) == 1);
    return c;
}

void sums_begin(struct sums *s, bool sha256, enum sum algorithm)
{
    *s = (struct sums){.algorithm = algorithm, .md5 = digest(EVP_md5())};
    if (sha256)
        s->sha256 = digest(EVP_sha256());
    if (algorithm == SUM_SHA1 || algorithm == SUM_SHA256)
        s->other = digest(algorithm == SUM_SHA1 ? EVP_sha1() : EVP_sha256());
    s->crc = algorithm == SUM_CRC64NVME ? UINT64_MAX : algorithm == SUM_CRC32C ? UINT32_MAX : 0;
}

void sums_add(struct sums *s, const void *p, size_t n)
{
    EVP_DigestUpdate(s->md5, p, n);
    if (s->sha256)
        EVP_DigestUpdate(s->sha256, p, n);
    if (s->other)
        EVP_DigestUpdate(s->other, p, n);
    if (s->algorithm == SUM_CRC32)
        s->crc = crc32_z(s->crc, p, n);
    else if (s->algorithm == SUM_CRC32C || s->algorithm == SUM_CRC64NVME)
        s->crc = crc_add(s->crc, p, n, s->algorithm == SUM_CRC64NVME);
}

static unsigned finish(EVP_MD_CTX *c, unsigned char out[EVP_MAX_MD_SIZE])
{
    unsigned n = 0;

    EVP_DigestFinal_ex(c, out, &n);
    EVP_MD_CTX_free(c);
    return n;
}

void sums_end(struct sums *s, char md5[33], char sha256[65], char base64[64])
{
    unsigned char raw[EVP_MAX_MD_SIZE];
    uint64_t crc = s->algorithm == SUM_CRC64NVME ? ~s->crc : s->algorithm == SUM_CRC32C ? s->crc ^ UINT32_MAX : s->crc;
    unsigned n = finish(s->md5, raw), bytes = s->algorithm == SUM_CRC64NVME ? 8 : 4;

    if (md5)
        sigv4_hex(raw, n, md5);
    if (s->sha256) {
        n = finish(s->sha256, raw);
        if (sha256)
            sigv4_hex(raw, n, sha256);
    }
    if (base64)
        base64[0] = 0;
    if (s->algorithm == SUM_NONE)
        return;
    if (s->other) {
        n = finish(s->other, raw);
    } else {
        n = bytes;
        for (unsigned i = 0; i < bytes; i++)
            raw[i] = (unsigned char)(crc >> (8 * (bytes - 1 - i)));
    }
    if (base64)
        EVP_EncodeBlock((unsigned char *)base64, raw, (int)n);
}
