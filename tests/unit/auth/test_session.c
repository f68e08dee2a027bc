/* Goal: a session token opens with its key only, and no byte of it can be changed. Method: seal, spoil each byte, open. */
#include "tt.h"

#include <sys/stat.h>
#include <unistd.h>

#include "auth/session.h"
#include "codec/json.h"

static void test_round(void **state)
{
    static const char DIGITS[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    _auto_(arena_freep) struct arena *a = arena_new();
    unsigned char key[SESSION_KEY_BYTES] = "a key", other[SESSION_KEY_BYTES] = "another";
    struct val *v = val_map(a);
    struct err err = {0};
    char *token, *again;

    (void)state;
    val_put_str(a, v, "role", "reader");
    val_put_int(a, v, "until", 1780272000);
    token = session_seal(key, v, a);
    again = session_seal(key, v, a);
    assert_string_not_equal(token, again); /* never the same nonce */
    assert_true(val_equal(session_open(key, token, a, &err), v));
    assert_null(session_open(other, token, a, &err));
    assert_int_equal(err.code, ERR_INVALID_ARGUMENT);
    for (size_t i = 0; token[i]; i++) {
        char was = token[i];
        bool last = !token[i + 1]; /* some of its bits are padding: the highest is not */

        token[i] = DIGITS[((size_t)(strchr(DIGITS, was) - DIGITS) + (last ? 32 : 1)) % 64];
        assert_null(session_open(key, token, a, &err));
        token[i] = was;
    }
    for (size_t n = strlen(token); n-- > 0;)
        assert_null(session_open(key, arena_strndup(a, token, n), a, &err));
    assert_null(session_open(key, "no token!", a, &err));
}

static void test_sign(void **state)
{
    static const char *const SAME[] = {"{\"a\":{\"x\":1,\"y\":[{\"z\":\"\"}]},\"b\":\"t\"}",
                                       "{\"b\":\"t\",\"a\":{\"y\":[{\"n\":null,\"z\":\"\"}],\"x\":1},\"c\":\"\",\"d\":[],\"e\":false}"};
    static const char *const OTHER[] = {"{\"a\":{\"x\":1,\"y\":[{}]},\"b\":\"t\"}", "{\"a\":{\"x\":1,\"y\":[{\"z\":\"\"}]},\"b\":\"u\"}",
                                        "{\"a\":{\"x\":1,\"y\":[{\"z\":\"\"}]},\"b\":\"t\",\"e\":true}"};
    _auto_(arena_freep) struct arena *a = arena_new();
    unsigned char key[SESSION_KEY_BYTES] = {7}, other[SESSION_KEY_BYTES] = {8};
    struct err err = {0};
    struct val *one = json_parse(a, SAME[0], strlen(SAME[0]), &err), *two = json_parse(a, SAME[1], strlen(SAME[1]), &err);
    const char *seal = session_sign(key, "stack/x", one, a);

    (void)state;
    assert_string_equal(session_sign(key, "stack/x", two, a), seal);
    assert_string_not_equal(session_sign(key, "stack/y", one, a), seal);
    assert_string_not_equal(session_sign(other, "stack/x", one, a), seal);
    for (size_t i = 0; i < ARRAY_LEN(OTHER); i++)
        assert_string_not_equal(session_sign(key, "stack/x", json_parse(a, OTHER[i], strlen(OTHER[i]), &err), a), seal);

    static const char *const NUMBERS[][2] = {{"1.10", "1.1"}, {"1e3", "1000"}, {"1.0", "1"}, {"-0.0", "0"}, {"0.0000001", "1e-07"},
                                             {"12345678901234567890", "12345678901234567000"}, {"123456789.123456789123", "123456789.12345679"}};
    for (size_t i = 0; i < ARRAY_LEN(NUMBERS); i++) { /* as they come, and as they are stored */
        const char *said[2];

        for (int k = 0; k < 2; k++) {
            char *text = arena_printf(a, "{\"a\":[%s]}", NUMBERS[i][k]);

            said[k] = session_sign(key, "stack/x", json_parse(a, text, strlen(text), &err), a);
        }
        assert_string_equal(said[0], said[1]);
        assert_string_not_equal(said[0], seal);
    }
    one = val_map(a);
    two = val_map(a);
    val_put_str(a, one, "reason", "cut within caf\xc3");
    val_put_str(a, two, "reason", "cut within caf\xef\xbf\xbd");
    assert_string_equal(session_sign(key, "stack/x", one, a), session_sign(key, "stack/x", two, a));
}

static void test_key_file(void **state)
{
    char path[] = "/tmp/tt-session-XXXXXX";
    unsigned char one[SESSION_KEY_BYTES], two[SESSION_KEY_BYTES];
    struct err err = {0};
    struct stat st;
    int fd = mkstemp(path);

    (void)state;
    assert_true(fd >= 0);
    close(fd);
    unlink(path);
    assert_int_equal(session_key(path, one, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(session_key(path, two, &err), 0);
    assert_memory_equal(one, two, sizeof one);
    assert_int_equal(truncate(path, 5), 0); /* half a key is none: a new one */
    assert_int_equal(session_key(path, two, &err), 0);
    assert_memory_not_equal(one, two, sizeof one);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_round), cmocka_unit_test(test_sign), cmocka_unit_test(test_key_file)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
