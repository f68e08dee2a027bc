/* apiserver/stream.c - lists that go out piece by piece.
 *
 * What a long list holds while a client reads it is one reference for each object: texts are
 * unpacked, and rows, versions and messages made, when their turn comes, and forgotten when they
 * are written. So ten slow readers of a hundred thousand pods are no danger, and other calls have
 * their turn between two pieces.
 * In protobuf the length of all items stands before the first one: they are written twice then, once to be
 * counted. An object keeps its own length, so the next list counts only what is new. */
#include "apiserver/api_int.h"

#include "base/log.h"
#include "codec/json.h"
#include "schema/protobuf.h"
#include "schema/table.h"

#include <stdatomic.h>

enum { PIECE_BYTES = 64 << 10, ITEM_BYTES = 32 << 10 /* what most need: no more is asked for then */ };

struct api_stream {
    struct call shape; /* form, version, encoding */
    const struct obj *const *v;
    uint32_t n, at;
    bool begun, over, whole_items;
    enum include_object include; /* of a Table */
    char *head, *tail; /* JSON around the items */
    const struct val *meta;
    const char *api_version, *kind; /* of the list */
    struct protobuf_items *items; /* protobuf, of what is written from texts; NULL: from trees */
    bool counted;
    size_t bytes; /* of the message */
    struct arena *item;
};

static void stream_done(void *arg)
{
    struct api_stream *s = arg;

    protobuf_items_free(s->items);
    arena_free(s->item);
    resource_unref(s->shape.r);
    if (s->shape.stored != s->shape.r)
        resource_unref(s->shape.stored);
}

struct api_stream *stream_new(struct call *c, const struct val *head, const struct obj *const *v, uint32_t n)
{
    struct api_stream *s = arena_new_of(c->a, struct api_stream);
    size_t len;

    s->shape = (struct call){.api = c->api, .form = c->form, .form_version = c->form_version,
                             .encoding = c->encoding, .include_object = c->include_object,
                             .now_ms = c->now_ms, .r = resource_ref(c->r)};
    s->shape.stored = c->stored == c->r ? s->shape.r : resource_ref(c->stored);
    s->v = v;
    s->n = n;
    s->item = arena_new_sized(ITEM_BYTES);
    s->whole_items = c->r->custom;
    s->include = (enum include_object)table_include(c->include_object ? c->include_object : "");
    s->meta = val_get(head, "metadata");
    s->api_version = val_str_at(head, "apiVersion", "");
    s->kind = val_str_at(head, "kind", "");
    s->head = json_text(c->a, head, &len);
    ASSERT(len > 3 && streq(s->head + len - 3, "[]}")); /* the items come last */
    s->head[len - 2] = 0;
    s->tail = "]}";
    arena_pin(c->a, stream_done, s);
    return s;
}

/* The object in the wanted version, in the item's arena. */
static struct val *tree(struct api_stream *s, const struct obj *o)
{
    struct err ignored = {0};
    /* a conversion looks into everything: nothing stays text for it */
    struct val *v = s->shape.r == s->shape.stored ? obj_show(o, s->item) : obj_edit(o, s->item);

    if (s->shape.r != s->shape.stored)
        (void)!schema_convert(s->shape.stored, s->shape.r, s->item, v, &ignored);
    return v;
}

/* From the text, which saves most of the tree; NULL: not in this case. */
static const struct val *item_of_text(struct api_stream *s, const struct obj *o)
{
    const struct resource *r = s->shape.r;
    bool table = s->shape.form == FORM_TABLE, whole = table && s->include != INCLUDE_METADATA;
    struct err ignored;
    char *text;

    if (r != s->shape.stored || (table && r->custom) || (!whole && !partial_is_metadata(r)))
        return NULL;
    text = obj_text_own(o, s->item);
    if (table)
        return table_row_text(r, s->item, text, o->text_n, s->include, s->shape.form_version, s->shape.now_ms * 1000, &ignored);
    return partial_of_text(s->item, text, o->text_n, s->shape.form_version);
}

static const struct val *item_val(struct api_stream *s, const struct obj *o)
{
    const struct val *shown = s->shape.form == FORM_OBJECT || s->shape.encoding != ENC_JSON ? NULL : item_of_text(s, o);
    struct val *v = shown ? NULL : tree(s, o);

    if (shown)
        return shown;
    if (s->shape.form == FORM_TABLE)
        return table_row(s->shape.r, s->item, v, s->include, s->shape.form_version, s->shape.now_ms * 1000);
    if (s->shape.form == FORM_PARTIAL_LIST)
        return partial_of(s->item, v, s->shape.form_version);
    if (!s->whole_items) {
        val_del(v, "apiVersion");
        val_del(v, "kind");
    }
    return v;
}

/* Objects lie all over the memory: those that are next are fetched while the one at hand is written. */
static void look_ahead(const struct api_stream *s)
{
    if (s->n - s->at <= 8)
        return;
    __builtin_prefetch(s->v[s->at + 8]);
    __builtin_prefetch(s->v[s->at + 4] + 1); /* the packed text lies behind it */
}

static void write_json(struct api_stream *s, struct buf *b)
{
    const struct obj *o = s->v[s->at];

    if (s->at)
        buf_addc(b, ',');
    if (s->shape.form != FORM_OBJECT || s->shape.r != s->shape.stored)
        json_write(b, item_val(s, o));
    else if (s->whole_items)
        obj_text_add(b, o);
    else
        write_item(b, o);
}

static bool next_json(struct api_stream *s, struct buf *b)
{
    size_t began = b->n;

    if (!s->begun)
        buf_adds(b, s->head);
    s->begun = true;
    for (; s->at < s->n && b->n - began < PIECE_BYTES; s->at++) {
        look_ahead(s);
        write_json(s, b);
        s->shape.a = s->item;
        arena_reset(s->item);
    }
    if (s->at < s->n)
        return true;
    buf_adds(b, s->tail);
    return false;
}

/* ---- protobuf ---- */

/* What is wanted as it is stored, and mere metadata, is written from the text. */
static void items_begin(struct api_stream *s)
{
    const struct resource *r = s->shape.r;
    bool partial = s->shape.form == FORM_PARTIAL_LIST;
    struct err ignored;

    if (partial ? partial_is_metadata(r) : s->shape.form == FORM_OBJECT && r == s->shape.stored)
        s->items = protobuf_items_new(s->shape.api->schema, s->api_version, r->kind, partial, &ignored);
}

static void item_protobuf(struct api_stream *s, struct buf *b, const struct obj *o)
{
    struct err err = {0};
    int rc;

    if (s->items)
        rc = protobuf_items_add(s->items, s->item, b, obj_text_own(o, s->item), o->text_n, &err);
    else
        rc = protobuf_list_item(s->shape.api->schema, s->item, b, s->api_version,
                                s->shape.form == FORM_PARTIAL_LIST ? "PartialObjectMetadata" : s->shape.r->kind,
                                item_val(s, o), &err);
    if (rc < 0)
        LOG(ERROR, "api", "did=list kind=%s name=%s err=\"%s\"", s->shape.r->kind, o->name, err.msg);
    arena_reset(s->item);
}

static size_t item_bytes(struct api_stream *s, struct buf *scratch, const struct obj *o, size_t *work)
{
    _Atomic uint32_t *known = s->items && s->shape.form == FORM_OBJECT ? &((struct obj *)(uintptr_t)o)->message_n : NULL;
    size_t n = known ? atomic_load_explicit(known, memory_order_relaxed) : 0;

    if (n)
        return n;
    buf_reset(scratch);
    item_protobuf(s, scratch, o);
    *work += scratch->n;
    if (known && scratch->n <= UINT32_MAX)
        atomic_store_explicit(known, (uint32_t)scratch->n, memory_order_relaxed);
    return scratch->n;
}

/* false: there is more to count. */
static bool count(struct api_stream *s)
{
    _auto_(buf_done) struct buf scratch = {0};
    size_t work = 0;

    while (s->at < s->n && work < PIECE_BYTES)
        s->bytes += item_bytes(s, &scratch, s->v[s->at++], &work);
    return s->at == s->n;
}

static bool next_protobuf(struct api_stream *s, struct buf *b)
{
    _auto_(buf_done) struct buf meta = {0};
    struct err ignored = {0};
    size_t began = b->n;

    if (!s->begun)
        items_begin(s);
    s->begun = true;
    if (!s->counted) {
        if (!count(s))
            return true;
        s->counted = true;
        s->at = 0;
        (void)!protobuf_list_begin(s->shape.api->schema, &meta, s->meta, &ignored);
        protobuf_list_head(b, s->api_version, s->kind, meta.n + s->bytes);
        buf_add(b, meta.p, meta.n);
    }
    for (; s->at < s->n && b->n - began < PIECE_BYTES; s->at++) {
        look_ahead(s);
        item_protobuf(s, b, s->v[s->at]);
    }
    if (s->at < s->n)
        return true;
    protobuf_list_tail(b);
    return false;
}

bool api_stream_next(struct api_stream *s, struct buf *b)
{
    if (!s->over)
        s->over = !(s->shape.encoding == ENC_PROTOBUF ? next_protobuf(s, b) : next_json(s, b));
    return !s->over;
}
