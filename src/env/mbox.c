#include "env/mbox.h"

#include <pthread.h>
#include <uv.h>

struct mbox {
    uv_async_t wake;
    mbox_fn *fn;
    void *arg;
    pthread_mutex_t lock; /* guards queue */
    struct list queue;
};

void mbox_drain(struct mbox *m)
{
    struct list mine;

    list_init(&mine);
    pthread_mutex_lock(&m->lock);
    if (!list_empty(&m->queue)) { /* the whole ring moves over to our head */
        mine = m->queue;
        mine.next->prev = mine.prev->next = &mine;
        list_init(&m->queue);
    }
    pthread_mutex_unlock(&m->lock);
    for (struct list *l; (l = list_first(&mine));) {
        list_remove(l);
        m->fn(m->arg, list_entry(l, struct mbox_msg, link));
    }
}

static void on_wake(uv_async_t *h)
{
    mbox_drain(container_of(h, struct mbox, wake));
}

struct mbox *mbox_new(uv_loop_t *loop, mbox_fn *fn, void *arg)
{
    struct mbox *m = xcalloc(1, sizeof *m);

    m->fn = fn;
    m->arg = arg;
    pthread_mutex_init(&m->lock, NULL);
    list_init(&m->queue);
    ASSERT(uv_async_init(loop, &m->wake, on_wake) == 0);
    return m;
}

static void closed(uv_handle_t *h)
{
    struct mbox *m = container_of((uv_async_t *)h, struct mbox, wake);

    pthread_mutex_destroy(&m->lock);
    free(m);
}

void *mbox_free(struct mbox *m)
{
    if (!m)
        return NULL;
    mbox_drain(m);
    uv_close((uv_handle_t *)&m->wake, closed);
    return NULL;
}

void mbox_send(struct mbox *m, struct mbox_msg *msg)
{
    bool first;

    pthread_mutex_lock(&m->lock);
    first = list_empty(&m->queue);
    list_push(&m->queue, &msg->link);
    pthread_mutex_unlock(&m->lock);
    if (first)
        uv_async_send(&m->wake);
}
