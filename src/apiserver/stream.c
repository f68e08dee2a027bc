/* apiserver/stream.c - lists that go out piece by piece.
 *
 * What a long list holds while a client reads it is one reference for each object: texts are
 * unpacked, and rows, versions and messages made, when their turn comes, and forgotten when they
 * are written. So ten slow readers of a hundred thousand pods are no danger, and other calls have
 * their turn between two pieces.
 * Only protobuf is different: the message's length stands at its front. Its items are encoded
 * piece by piece as well, but held until the last one is. */
#include "apiserver/api_int.h"

#include "codec/json.h"
#include "schema/protobuf.h"
#include "schema/table.h"

enum { PIECE_BYTES = 64 << 10, ITEM_BYTES = 32 << 10 /* what most need: no more is asked for then */ };

struct api_stream {
    struct call shape; /* form, version, encoding */
    const struct obj *const *v;
    uint32_t n, at;
    bool begun, over, whole_items;
    char *head, *tail; /* JSON around the items */
    const struct val *meta;
    const char *api_version, *kind; /* of the list */
    struct buf message; /* protobuf: all but the envelope */
    size_t sent;
    struct arena *item;
};

static void stream_done(void *arg)
{
    struct api_stream *s = arg;

    buf_done(&s->message);
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
    struct val *v = obj_show(o, s->item);

    if (s->shape.r != s->shape.stored)
        (void)!schema_convert(s->shape.stored, s->shape.r, s->item, v, &ignored);
    return v;
}

static const struct val *item_val(struct api_stream *s, const struct obj *o)
{
    struct val *v = tree(s, o);

    if (s->shape.form == FORM_TABLE)
        return table_row(s->shape.r, s->item, v,
                         (enum include_object)table_include(s->shape.include_object ? s->shape.include_object : ""),
                         s->shape.form_version, s->shape.now_ms * 1000);
    if (s->shape.form == FORM_PARTIAL_LIST)
        return partial_of(s->item, v, s->shape.form_version);
    if (!s->whole_items) {
        val_del(v, "apiVersion");
        val_del(v, "kind");
    }
    return v;
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
        write_json(s, b);
        s->shape.a = s->item;
        arena_reset(s->item);
    }
    if (s->at < s->n)
        return true;
    buf_adds(b, s->tail);
    return false;
}

/* What is wanted as it is stored is written from its text. */
static int item_protobuf(struct api_stream *s, const struct obj *o, struct err *err)
{
    const struct schema *schema = s->shape.api->schema;

    if (s->shape.form == FORM_OBJECT && s->shape.r == s->shape.stored)
        return protobuf_list_text(schema, s->item, &s->message, s->api_version, s->shape.r->kind,
                                  obj_text_own(o, s->item), o->text_n, err);
    return protobuf_list_item(schema, s->item, &s->message, s->api_version,
                              s->shape.form == FORM_PARTIAL_LIST ? "PartialObjectMetadata" : s->shape.r->kind,
                              item_val(s, o), err);
}

static bool next_protobuf(struct api_stream *s, struct buf *b)
{
    struct err err = {0};
    size_t began = s->message.n, piece;

    if (!s->begun && protobuf_list_begin(s->shape.api->schema, &s->message, s->meta, &err) < 0)
        s->at = s->n;
    s->begun = true;
    for (; s->at < s->n && s->message.n - began < PIECE_BYTES; s->at++) {
        if (item_protobuf(s, s->v[s->at], &err) < 0)
            s->at = s->n - 1;
        arena_reset(s->item);
    }
    if (s->at < s->n)
        return true;
    if (!s->sent)
        protobuf_list_head(b, s->api_version, s->kind, s->message.n);
    piece = MIN(s->message.n - s->sent, (size_t)PIECE_BYTES);
    buf_add(b, s->message.p + s->sent, piece);
    s->sent += piece;
    if (s->sent < s->message.n)
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
