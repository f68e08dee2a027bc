/* CBOR that clients send: what is right is read as it was meant, what is wrong is refused, nothing is believed. */
#include "tt.h"

#include "codec/json.h"
#include "door/aws/cbor.h"

/* Bytes in hex; NULL: refused. */
static const struct {
    const char *hex, *json;
} CASES[] = {
    {"a0", "{}"},
    {"a1616101", "{\"a\":1}"},
    {"a2616101616220", "{\"a\":1,\"b\":-1}"},
    {"82f5f4", "[true,false]"},
    {"f6", "null"},
    {"9f0102ff", "[1,2]"},                        /* indefinite */
    {"bf616101ff", "{\"a\":1}"},
    {"7f61616162ff", "\"ab\""},                   /* a text in pieces */
    {"c11a514b67b0", "1363896240"},               /* a time */
    {"fb3ff8000000000000", "1.5"}, {"fa3fc00000", "1.5"}, {"f93e00", "1.5"},
    {"1bffffffffffffffff", ""},                   /* whatever it is read as, it is read */
    {"", NULL}, {"a1", NULL}, {"a161", NULL}, {"a16161", NULL},
    {"a10101", NULL},                             /* a key that is no text */
    {"7bffffffffffffffff61", NULL},               /* a text of 2^64 bytes */
    {"9bffffffffffffffff01", NULL}, {"bbffffffffffffffff616101", NULL},
    {"9f01", NULL}, {"bf6161ff", NULL}, {"7f61", NULL}, {"7f01ff", NULL}, {"7f7f6161ffff", NULL},
    {"1c", NULL}, {"1f", NULL}, {"ff", NULL}, {"fc", NULL},
    {"0000", NULL},                               /* something behind it */
};

static size_t bytes_of(const char *hex, unsigned char *out)
{
    size_t n = strlen(hex) / 2;

    for (size_t i = 0; i < n; i++) {
        unsigned byte = 0;

        assert_int_equal(sscanf(hex + 2 * i, "%2x", &byte), 1);
        out[i] = (unsigned char)byte;
    }
    return n;
}

static void cases(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(CASES); i++) {
        _auto_(arena_freep) struct arena *a = arena_new();
        unsigned char bytes[64];
        size_t n = bytes_of(CASES[i].hex, bytes);
        struct err err = {0};
        struct val *v = cbor_read(a, bytes, n, &err);

        if (!CASES[i].json != !v || (v && *CASES[i].json && !streq(json_text(a, v, NULL), CASES[i].json)))
            fail_msg("%s gives %s, not %s", CASES[i].hex, v ? json_text(a, v, NULL) : "nothing", CASES[i].json ? CASES[i].json : "nothing");
        if (!v)
            assert_int_equal(err.code, ERR_INVALID_ARGUMENT);
    }
}

static void depth_and_width_have_an_end(void **state)
{
    enum { KEYS = 200000 };
    _auto_(arena_freep) struct arena *a = arena_new();
    unsigned char *big = xmalloc(5 * KEYS + 5), deep[5000];
    struct err err = {0};
    size_t n = 0;

    (void)state;
    memset(deep, 0x81, sizeof deep);
    assert_null(cbor_read(a, deep, sizeof deep, &err));
    memset(deep, 0x9f, sizeof deep);
    assert_null(cbor_read(a, deep, sizeof deep, &err));
    memset(deep, 0xc1, sizeof deep); /* tags upon tags */
    assert_null(cbor_read(a, deep, sizeof deep, &err));
    /* a map of very many keys costs their square: refused, and at once */
    big[n++] = 0xbf;
    for (unsigned i = 0; i < KEYS; i++) {
        big[n++] = 0x63;
        big[n++] = (unsigned char)(i & 63) + 32;
        big[n++] = (unsigned char)(i >> 6 & 63) + 32;
        big[n++] = (unsigned char)(i >> 12 & 63) + 32;
        big[n++] = 0xf6;
    }
    big[n++] = 0xff;
    assert_null(cbor_read(a, big, n, &err));
    free(big);
}

static struct val *any(struct tt_rng *rng, struct arena *a, int depth)
{
    uint32_t n = tt_below(rng, 5);
    struct val *v;
    char key[8];

    switch (tt_below(rng, depth > 4 ? 5 : 7)) {
    case 0: return val_null(a);
    case 1: return val_bool(a, n & 1);
    case 2: return val_int(a, (int64_t)tt_next(rng) >> tt_below(rng, 64));
    case 3: return val_double(a, (double)tt_below(rng, 1000000) + 0.25);
    case 4: return val_str(a, "some text");
    case 5:
        v = val_list(a);
        for (uint32_t i = 0; i < n; i++)
            val_push(a, v, any(rng, a, depth + 1));
        return v;
    default:
        v = val_map(a);
        for (uint32_t i = 0; i < n; i++) {
            snprintf(key, sizeof key, "k%u", i);
            val_put(a, v, key, any(rng, a, depth + 1));
        }
        return v;
    }
}

TT_PROP(cbor, what_is_written_is_read, 300)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    _auto_(buf_done) struct buf b = {0};
    struct val *v = any(rng, a, 0), *back;

    cbor_write(&b, v, NULL);
    back = cbor_read(a, b.p, b.n, &err);
    TT_OK(back && val_equal(v, back));
    /* cut anywhere, it is refused; changed anywhere, it is read or refused */
    TT_OK(b.n == 0 || !cbor_read(a, b.p, tt_below(rng, (uint32_t)b.n), &err));
    for (int i = 0; i < 20; i++) {
        b.p[tt_below(rng, (uint32_t)b.n)] = (char)tt_next(rng);
        (void)!cbor_read(a, b.p, b.n, &err);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(cases), cmocka_unit_test(depth_and_width_have_an_end),
                                       cmocka_unit_test(tt_cbor_what_is_written_is_read)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
