/* apiserver/told.h - the text of an event, made once for all watches that want the same form.
 *
 * A change is told to its watches one after the other, within a turn of the loop: whoever comes first
 * makes the text, the others find it. A few of the last texts are kept and go when the turn ends; one
 * that is on its way to a slow client lives as long as that takes.
 * Thread: the loop of the API. */
#pragma once

#include "base/buf.h"
#include "codec/obj.h"

struct env;
struct resource;
struct told_cache;

struct told_cache *told_cache_new(struct env *env);
void *told_cache_free(struct told_cache *c);

/* What makes two events look alike. Texts are borrowed for the call. */
struct told_key {
    const struct obj *obj;
    const struct resource *r;
    int type, form, encoding;
    const char *form_version, *include_object; /* may be NULL */
};
struct told {
    const char *text; /* NULL: not made yet */
    size_t n;
    uint32_t refs;
    struct told_key key; /* with references and texts of its own */
};
/* Its place, to look into or to fill; borrowed for the turn. */
struct told *told_find(struct told_cache *c, const struct told_key *key);
/* Leaves the text there; takes the buffer over. */
void told_put(struct told *t, struct buf *b);
struct told *told_ref(struct told *t);
void told_unref(void *told);
