/* base/list.h - a doubly linked ring through the structs themselves. An empty list is a head that
 * points at itself; a link that is in no list is {NULL, NULL} or points at itself. */
#pragma once

#include "base/base.h"

struct list {
    struct list *prev, *next;
};

static inline void list_init(struct list *h)
{
    h->prev = h->next = h;
}
static inline bool list_empty(const struct list *h)
{
    return h->next == h;
}
static inline bool list_linked(const struct list *l)
{
    return l->next && l->next != l;
}
static inline void list_insert(struct list *before, struct list *l)
{
    l->prev = before->prev;
    l->next = before;
    before->prev->next = l;
    before->prev = l;
}
static inline void list_push(struct list *h, struct list *l) /* at the end */
{
    list_insert(h, l);
}
static inline void list_push_front(struct list *h, struct list *l)
{
    list_insert(h->next, l);
}
static inline void list_remove(struct list *l) /* twice is fine */
{
    if (!l->next)
        return;
    l->prev->next = l->next;
    l->next->prev = l->prev;
    l->prev = l->next = l;
}
static inline struct list *list_first(struct list *h) /* NULL when empty */
{
    return list_empty(h) ? NULL : h->next;
}
#define list_entry(l, type, member) container_of(l, type, member)
/* Safe against removal of the entry at hand. */
#define LIST_EACH(h, it)                                                                           \
    for (struct list *it = (h)->next, *it##_next = it->next; it != (h);                            \
         it = it##_next, it##_next = it->next)
