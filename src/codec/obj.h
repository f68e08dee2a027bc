/* codec/obj.h - a sealed API object: the JSON text as the store keeps it, and what is asked of it
 * all the time (name, revision) beside.
 *
 * It never changes after obj_seal(); an edit is a copy of the tree (obj_edit) and a new object.
 * The text is the truth: a GET answers with it as it is. What lasts is the text alone, packed
 * (codec/pack.h) when the store has packed it. The unpacked text and the tree are made when
 * somebody asks, and stay as long as the cache has room (obj_cache_limit): so a text or tree is
 * BORROWED UNTIL CONTROL GOES BACK TO THE LOOP, however long the object itself is held.
 * Owner: atomic reference counts, from any thread. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "codec/pack.h"
#include "codec/val.h"

struct obj {
    _Atomic uint32_t refs;
    uint32_t text_n;        /* bytes of the text, unpacked */
    int64_t revision;       /* metadata.resourceVersion */
    const char *namespace_; /* "" for cluster-wide kinds */
    const char *name;
    const char *uid; /* "" when it has none */
    /* obj.c's own: */
    const char *text; /* NULL: only packed right now; see obj_text() */
    const void *packed; /* NULL: is not */
    struct pack *pack;
    uint32_t packed_n;
    _Atomic uint32_t message_n; /* a note of who writes lists in protobuf: bytes of the item; 0: not known */
    struct obj_more *_Atomic more; /* tree, place in the cache */
};

/* Seals a tree: writes its text (with metadata.resourceVersion = revision) and takes namespace,
 * name and uid from its metadata. The tree itself is not kept. */
struct obj *obj_seal(const struct val *v, int64_t revision);
/* From text that a store kept. NULL and err when it is not JSON with a metadata. */
struct obj *obj_load(const char *text, size_t n, int64_t revision, struct err *err);
/* The same without looking into the text, for a store that kept the names beside it. */
struct obj *obj_restore(const char *text, size_t n, int64_t revision, const char *ns,
                        const char *name, const char *uid);
/* ... and kept it packed; text_n: its bytes unpacked. Takes its own reference to the pack. */
struct obj *obj_restore_packed(struct pack *pack, const void *packed, size_t n, size_t text_n,
                               int64_t revision, const char *ns, const char *name, const char *uid);
struct obj *obj_ref(const struct obj *o);
void *obj_unref(const struct obj *o); /* NULL is fine; gives back NULL */
DEFINE_AUTO(const struct obj *, obj_unref, obj_unref)

/* The text, text_n bytes and a final 0; borrowed until control goes back to the loop. */
const char *obj_text(const struct obj *o);
/* Appends the text, and leaves nothing in the cache: for lists. */
void obj_text_add(struct buf *b, const struct obj *o);
/* The tree; borrowed until control goes back to the loop. */
const struct val *obj_val(const struct obj *o);
/* A copy to change, or to keep. */
struct val *obj_edit(const struct obj *o, struct arena *a);
/* The same to be written out only: what json_parse_lean() leaves is text. */
struct val *obj_show(const struct obj *o, struct arena *a);
/* A copy of its text, text_n bytes with JSON_ROOM behind them, to be read by pieces (json_part.h). */
char *obj_text_own(const struct obj *o, struct arena *a);

/* Packs the text, when that pays. On the thread that owns the pack; before anybody else has o. */
void obj_pack(const struct obj *o, struct pack *p);

/* Walks over many objects leave the cache as it was:
 *     unsigned had = obj_look(o);
 *     bool keep = ... obj_val(o) ...
 *     if (!keep) obj_look_away(o, had);    -- text and tree are gone, unless they were there before */
unsigned obj_look(const struct obj *o);
void obj_look_away(const struct obj *o, unsigned had);

/* The cache of unpacked texts and trees, one for the process. Until somebody sets a limit it has
 * none. Above it wake() is called, once; it has the loop call obj_cache_trim() when nobody is in
 * the midst of anything. 0 bytes: nothing stays. */
void obj_cache_limit(size_t bytes, void (*wake)(void *arg), void *arg);
void obj_cache_trim(void);
size_t obj_cache_bytes(void);

/* Short forms for what controllers ask of every object. */
const struct val *obj_meta(const struct obj *o);
const char *obj_label(const struct obj *o, const char *key);      /* NULL: none */
const char *obj_annotation(const struct obj *o, const char *key); /* NULL: none */
bool obj_deleting(const struct obj *o);                           /* metadata.deletionTimestamp is set */
const struct val *obj_controller(const struct obj *o); /* the owner reference with controller: true */
size_t obj_bytes(const struct obj *o); /* what it takes for as long as it lives */
