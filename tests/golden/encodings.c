/* tests/golden/encodings.c - plays the golden encodings of the Go module k8s.io/api against our codec.
 *
 *   encodings DIR...   each DIR holds GROUP.VERSION.KIND.pb and .json of one version of Kubernetes
 *
 * Two rules: (1) the .pb, read, says what the .json says, apart from zero values; (2) the .json,
 * written as protobuf and read again, is itself. Of older versions (names that are not HEAD) only
 * reading counts, and what the kind has lost since (.after_roundtrip.json) is not asked for. A kind
 * that is not described here is counted apart. The last line is "N passed, N failed". */
#include "codec/json.h"
#include "schema/protobuf.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char *slurp(struct arena *a, const char *path, size_t *ret_n)
{
    FILE *f = fopen(path, "rb");
    struct buf b = {0};
    char part[65536];
    size_t n;

    if (!f)
        return NULL;
    while ((n = fread(part, 1, sizeof(part), f)) > 0)
        buf_add(&b, part, n);
    fclose(f);
    char *s = arena_strndup(a, b.p ? b.p : "", b.n);
    *ret_n = b.n;
    if (b.n)
        memcpy(s, b.p, b.n); /* zeros included */
    buf_done(&b);
    return s;
}

static bool zero(const struct val *v)
{
    if (!v || v->type == VAL_NULL)
        return true;
    if (v->type == VAL_MAP) {
        VAL_EACH_MEMBER(v, m)
            if (!zero(&m->v))
                return false;
        return true;
    }
    return (v->type == VAL_STR && !v->n) || (v->type == VAL_LIST && !v->n) || (v->type == VAL_BOOL && !v->b) ||
           (v->type == VAL_INT && !v->i) || (v->type == VAL_DOUBLE && val_num(v) == 0);
}

/* The first difference apart from zero values, in where; NULL: none. */
static const char *differs(struct arena *a, const char *where, const struct val *x, const struct val *y)
{
    const char *found = NULL;

    if (zero(x) && zero(y))
        return NULL;
    if (!x || !y)
        return where;
    if (x->type == VAL_MAP && y->type == VAL_MAP) {
        VAL_EACH_MEMBER(x, m)
            if (!found)
                found = differs(a, arena_printf(a, "%s.%s", where, m->key), &m->v, val_getn(y, m->key, m->n));
        VAL_EACH_MEMBER(y, m)
            if (!found && !val_getn(x, m->key, m->n) && !zero(&m->v))
                found = arena_printf(a, "%s.%s", where, m->key);
        return found;
    }
    if (x->type == VAL_LIST && y->type == VAL_LIST && x->n == y->n) {
        for (uint32_t i = 0; i < x->n && !found; i++)
            found = differs(a, arena_printf(a, "%s[%u]", where, i), &x->items[i], &y->items[i]);
        return found;
    }
    return val_equal(x, y) ? NULL : where;
}

struct counts {
    unsigned passed, failed, unknown;
};

static void told(struct counts *n, const char *dir, const char *name, const char *rule, const char *why)
{
    if (why) {
        printf("FAILED %s/%s %s: %s\n", dir, name, rule, why);
        n->failed++;
    } else {
        n->passed++;
    }
}

/* An item of a list is written from its text, or from its tree when that was asked for: the same bytes. The second one in
 * a row is written from what is remembered of the first. */
static void by_text(const struct schema *s, struct arena *a, struct counts *n, const char *dir, const char *name, const struct val *v)
{
    const char *api_version = val_str_at(v, "apiVersion", ""), *kind = val_str_at(v, "kind", "");
    struct buf tree = {0}, text = {0};
    struct err err = {0};
    size_t len;
    char *json = json_text(a, v, &len), *own = arena_alloc(a, len + JSON_ROOM);
    struct protobuf_items *w = protobuf_items_new(s, api_version, kind, false, &err);

    for (int i = 0; w && i < 2 && protobuf_list_item(s, a, &tree, api_version, kind, v, &err) == 0; i++) {
        memcpy(own, json, len);
        told(n, dir, name, i ? "written from text again" : "written from text",
             protobuf_items_add(w, a, &text, own, len, &err) < 0       ? err.msg
             : text.n != tree.n || memcmp(text.p, tree.p, text.n) != 0 ? "differs from what the tree gives"
                                                                       : NULL);
    }
    protobuf_items_free(w);
    buf_done(&tree);
    buf_done(&text);
}

static void play(const struct schema *s, const char *path, const char *dir, const char *name, bool head, struct counts *n)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err = {0};
    size_t pb_n, js_n;
    char *pb = slurp(a, arena_printf(a, "%s/%s.pb", path, name), &pb_n), *js;
    struct buf again = {0};

    js = slurp(a, arena_printf(a, "%s/%s.after_roundtrip.json", path, name), &js_n);
    if (!js)
        js = slurp(a, arena_printf(a, "%s/%s.json", path, name), &js_n);
    struct val *want = js ? json_parse(a, js, js_n, &err) : NULL;
    if (!pb || !want) {
        told(n, dir, name, "files", "cannot be read");
        return;
    }
    struct val *have = protobuf_read(s, a, pb, pb_n, &err);
    if (!have && !schema_kind_of(s, val_str_at(want, "apiVersion", ""), val_str_at(want, "kind", ""))) {
        n->unknown++;
        return;
    }
    told(n, dir, name, "read", have ? differs(a, "", want, have) : err.msg);
    if (!head)
        return;
    if (protobuf_write(s, &again, want, &err) < 0) {
        told(n, dir, name, "written", err.msg);
    } else {
        struct val *back = protobuf_read(s, a, again.p, again.n, &err);
        told(n, dir, name, "written and read", back ? differs(a, "", want, back) : err.msg);
    }
    buf_done(&again);
    by_text(s, a, n, dir, name, want);
}

static int by_name(const void *x, const void *y)
{
    return strcmp(*(char *const *)x, *(char *const *)y);
}

int main(int argc, char **argv)
{
    _auto_(schema_freep) struct schema *s = schema_new();
    struct counts all = {0};

    for (int i = 1; i < argc; i++) {
        const char *dir = strrchr(argv[i], '/') ? strrchr(argv[i], '/') + 1 : argv[i];
        struct counts n = {0};
        char **names = NULL;
        uint32_t count = 0;
        DIR *d = opendir(argv[i]);
        for (struct dirent *e; d && (e = readdir(d));) {
            size_t len = strlen(e->d_name);
            if (len < 4 || strcmp(e->d_name + len - 3, ".pb") != 0 || strstr(e->d_name, ".after_roundtrip."))
                continue;
            names = realloc(names, (count + 1) * sizeof(*names));
            names[count] = strdup(e->d_name);
            names[count++][len - 3] = 0;
        }
        if (d)
            closedir(d);
        if (count)
            qsort(names, count, sizeof(*names), by_name);
        for (uint32_t k = 0; k < count; k++) {
            play(s, argv[i], dir, names[k], strcmp(dir, "HEAD") == 0, &n);
            free(names[k]);
        }
        free(names);
        printf("%s: %u right, %u wrong, %u of kinds that are not served\n", dir, n.passed, n.failed, n.unknown);
        all.passed += n.passed;
        all.failed += n.failed;
    }
    printf("%u passed, %u failed\n", all.passed, all.failed);
    return all.failed != 0 || !all.passed;
}
