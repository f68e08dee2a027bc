/* The thread that makes, re-addresses and deletes members of a pool. See net_int.h.
 *
 * The kernel does such things one after the other (one lock for all links, one for all namespaces), so more threads
 * would only wait for each other, and whoever else asks it for something waits with them: that must not be a loop.
 * While there is a batch the thread goes from one fresh namespace to the next; it is at home again before it sleeps,
 * as a namespace ends only when nobody stands in it.
 *
 * What is asked for first is done first, but members are made before old ones are deleted: somebody waits for those. */
#include "network/net_int.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

enum { DELETE_AT_ONCE = 64 }; /* the lock of all links is held meanwhile */

struct builder {
    struct wire wire;
    struct nl rt; /* at home */
    int home;     /* the namespace */
    struct mbox *done;
    pthread_t thread;
    pthread_mutex_t lock; /* guards the rest */
    pthread_cond_t more;
    struct list make, drop; /* slots by msg.link */
    bool stop;
};

static struct slot *next(struct list *l)
{
    struct list *first = list_first(l);

    if (first)
        list_remove(first);
    return first ? list_entry(first, struct slot, msg.link) : NULL;
}

static void hand_back(struct builder *b, struct slot *s, bool failed)
{
    s->failed = failed;
    mbox_send(b->done, &s->msg);
}

/* Those that were asked to be deleted, up to so many. The lock is held by the caller, before and after. */
static void delete_some(struct builder *b)
{
    struct slot *some[DELETE_AT_ONCE];
    uint32_t n = 0;

    while (n < DELETE_AT_ONCE && (some[n] = next(&b->drop)))
        n++;
    pthread_mutex_unlock(&b->lock);
    slots_delete(&b->wire, some, n, &b->rt);
    for (uint32_t i = 0; i < n; i++) {
        nl_close(&some[i]->ns);
        closep(&some[i]->pub.fd);
        some[i]->pub.fd = -1;
        hand_back(b, some[i], false);
    }
    pthread_mutex_lock(&b->lock);
}

static void *work(void *arg)
{
    struct builder *b = arg;
    bool away = false;

    pthread_mutex_lock(&b->lock);
    while (!b->stop) {
        struct slot *s = next(&b->make);

        if (s) {
            int rc;

            pthread_mutex_unlock(&b->lock);
            away |= s->job == SLOT_BUILD;
            rc = s->job == SLOT_BUILD ? slot_build(&b->wire, s, &b->rt, &s->err)
                                      : slot_readdress(&b->wire, s, s->next_ip, &b->rt, &s->err);
            hand_back(b, s, rc < 0);
            pthread_mutex_lock(&b->lock);
        } else if (away) {
            pthread_mutex_unlock(&b->lock);
            ASSERT(setns(b->home, CLONE_NEWNET) == 0);
            away = false;
            pthread_mutex_lock(&b->lock);
        } else if (!list_empty(&b->drop)) {
            delete_some(b);
        } else {
            pthread_cond_wait(&b->more, &b->lock);
        }
    }
    pthread_mutex_unlock(&b->lock);
    return NULL;
}

static void builder_done(struct builder *b)
{
    mbox_free(b->done);
    nl_close(&b->rt);
    closep(&b->home);
    pthread_mutex_destroy(&b->lock);
    pthread_cond_destroy(&b->more);
    free(b);
}

struct builder *builder_new(const struct wire *w, uv_loop_t *loop, mbox_fn *done, void *arg, struct err *err)
{
    struct builder *b = xcalloc(1, sizeof(*b));
    sigset_t all, before;
    int e;

    b->wire = *w;
    b->wire.stay = true;
    b->home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
    if (b->home < 0 || nl_open(&b->rt, NETLINK_ROUTE, err) < 0) {
        if (b->home < 0)
            err_sys(err, "open the network namespace of this thread");
        closep(&b->home);
        free(b);
        return NULL;
    }
    list_init(&b->make);
    list_init(&b->drop);
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->more, NULL);
    b->done = mbox_new(loop, done, arg);
    sigfillset(&all); /* signals are the loop's */
    pthread_sigmask(SIG_SETMASK, &all, &before);
    e = pthread_create(&b->thread, NULL, work, b);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (e == 0)
        return b;
    builder_done(b);
    errno = e;
    err_sys(err, "start a thread for networks");
    return NULL;
}

void builder_ask(struct builder *b, struct slot *s, enum slot_job job)
{
    s->job = job;
    pthread_mutex_lock(&b->lock);
    list_push(job == SLOT_DROP ? &b->drop : &b->make, &s->msg.link);
    pthread_cond_signal(&b->more);
    pthread_mutex_unlock(&b->lock);
}

void *builder_free(struct builder *b)
{
    struct slot *s;

    if (!b)
        return NULL;
    pthread_mutex_lock(&b->lock);
    b->stop = true;
    pthread_cond_signal(&b->more);
    pthread_mutex_unlock(&b->lock);
    pthread_join(b->thread, NULL);
    while ((s = next(&b->make)) || (s = next(&b->drop)))
        hand_back(b, s, true);
    builder_done(b);
    return NULL;
}
