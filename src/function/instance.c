/* One sandboxed process: its socket, its log pipe, its time limit, its end.
 *
 *   STEM --send--> BUSY --answer--> IDLE --send--> BUSY ...
 *   any --kill, end of socket, time limit--> DYING --zygote says EXIT, handles closed--> freed
 *
 * What comes over the socket was written by a process that runs the user's code: it is checked, and
 * whoever does not keep the protocol is killed. */
#include "function/function_int.h"

#include "base/log.h"
#include "env/random.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { READ_BYTES = 65536 };

struct instance *instance_by_slot(struct functions *fs, uint32_t slot)
{
    LIST_EACH(&fs->slots[slot % ARRAY_LEN(fs->slots)], l)
    {
        struct instance *i = list_entry(l, struct instance, slot_link);

        if (i->slot == slot)
            return i;
    }
    return NULL;
}

/* ---- the end ---- */

static void instance_free(struct instance *i)
{
    struct version *v = i->v;

    buf_done(&i->in);
    buf_done(&i->out);
    buf_done(&i->line);
    list_remove(&i->link);
    list_remove(&i->slot_link);
    list_remove(&i->limit_link);
    list_remove(&i->flood_link);
    closep(&i->keys);
    free(i);
    v->instances_n--;
    if (v->removed && !v->instances_n)
        zygote_stop(v);
    version_let_go(v);
}

static void on_closed(uv_handle_t *h)
{
    struct instance *i = h->data;

    if (h == (uv_handle_t *)&i->sock_poll) {
        close(i->sock);
        i->sock = -1;
    } else if (h == (uv_handle_t *)&i->log_poll) {
        close(i->log);
        i->log = -1;
    }
    if (--i->handles == 0)
        instance_free(i);
}

void instance_leave_lists(struct instance *i)
{
    if (list_linked(&i->free)) {
        list_remove(&i->free);
        if (i->state == INSTANCE_STEM)
            i->v->stems_n--;
    }
}

void instance_kill(struct instance *i)
{
    struct zygote_ask ask = {.what = ASK_KILL, .slot = i->slot};
    struct err err;

    instance_leave_lists(i);
    i->state = INSTANCE_DYING;
    if (i->exited || i->killed)
        return;
    i->killed = zygote_ask(i->v, &ask, NULL, 0, &err) == 0; /* else pool_tick asks again */
}

void instances_kill(struct version *v)
{
    struct zygote_ask ask = {.what = ASK_KILL, .slot = ZYGOTE_ALL};
    struct err err;
    bool told;

    if (!v->instances_n)
        return;
    told = zygote_ask(v, &ask, NULL, 0, &err) == 0;
    LIST_EACH(&v->instances, l)
    {
        struct instance *i = list_entry(l, struct instance, link);

        instance_leave_lists(i);
        i->state = INSTANCE_DYING;
        i->killed |= told;
    }
    if (!told)
        zygote_stop(v);
}

void instance_frame(struct instance *i, const struct instance_frame *f)
{
    if (i->out.n) {
        buf_add(&i->out, f, sizeof *f);
    } else if (send(i->sock, f, sizeof *f, MSG_NOSIGNAL | MSG_DONTWAIT) < 0) { /* small: whole or not at all */
        if (errno != EAGAIN) {
            instance_kill(i);
            return;
        }
        buf_add(&i->out, f, sizeof *f);
        i->out_at = 0;
        instance_watch(i);
    }
}

static void on_grace_over(uv_timer_t *t)
{
    struct instance *i = t->data;

    i->stopping = false;
    instance_kill(i);
}

void instance_stop(struct instance *i, int grace_ms)
{
    if (!grace_ms || !i->inited || i->exited || i->killed) {
        instance_kill(i);
        return;
    }
    if (i->stopping)
        return;
    instance_frame(i, &(struct instance_frame){.type = FRAME_SHUTDOWN, .a = (uint64_t)grace_ms, .b = i->deadline_hit});
    instance_leave_lists(i);
    i->state = INSTANCE_DYING;
    i->stopping = true;
    instance_unwatch(i); /* its end is told by the zygote */
    uv_timer_start(&i->timer, on_grace_over, (uint64_t)grace_ms, 0);
}

void instance_unwatch(struct instance *i)
{
    if (!uv_is_closing((uv_handle_t *)&i->sock_poll))
        uv_poll_stop(&i->sock_poll);
}

/* ---- its output ---- */

/* With several calls at once nobody knows whose it is: all of them get it. */
static void tails_add(struct instance *i, const char *p, size_t n)
{
    if (i->call)
        tail_add(i->call, p, n);
    if (instance_shared(i))
        LIST_EACH(&i->leases, l)
        tail_add(list_entry(l, struct call, lease), p, n);
}

static void take_log(struct instance *i, const char *p, size_t n)
{
    tails_add(i, p, n);
    while (n) {
        const char *end = memchr(p, '\n', n);
        size_t part = end ? (size_t)(end - p) : n;

        if (end && !i->line.n && part <= LINE_MAX_BYTES) {
            flog_text(i, p, part);
        } else {
            size_t room = LINE_MAX_BYTES - i->line.n;

            if (part > room) { /* a line without an end: cut */
                part = room;
                end = NULL;
            }
            buf_add(&i->line, p, part);
            if (end || i->line.n == LINE_MAX_BYTES) {
                flog_text(i, i->line.p ? i->line.p : "", i->line.n);
                buf_reset(&i->line);
            }
        }
        p += part + (end != NULL);
        n -= part + (end != NULL);
    }
}

/* False: nothing there now. */
static bool read_log(struct instance *i)
{
    char piece[READ_BYTES];
    ssize_t n;

    if (i->log < 0)
        return false;
    n = read(i->log, piece, sizeof piece);
    if (n > 0)
        take_log(i, piece, (size_t)n);
    else if (n == 0 && !uv_is_closing((uv_handle_t *)&i->log_poll))
        uv_poll_stop(&i->log_poll); /* all writers have closed it */
    if (n > 0 && flog_flooded(i, (size_t)n) && !uv_is_closing((uv_handle_t *)&i->log_poll))
        uv_poll_stop(&i->log_poll); /* flog_tick() starts it again */
    return n > 0;
}

/* What the request wrote lies in the pipe before its answer lies in the socket. A thread that goes
 * on writing does not hold us here: a pipeful is 64 KiB. */
static void drain_log(struct instance *i)
{
    flog_unflood(i);
    for (int n = 0; n < 8 && read_log(i); n++)
        ;
    if (i->line.n) {
        flog_text(i, i->line.p, i->line.n);
        buf_reset(&i->line);
        tails_add(i, "\n", 1);
    }
}

static void on_log(uv_poll_t *h, int status, int events)
{
    read_log(h->data);
}

void instance_read_log(struct instance *i)
{
    if (!i->exited && !uv_is_closing((uv_handle_t *)&i->log_poll))
        uv_poll_start(&i->log_poll, UV_READABLE, on_log);
}

void instance_read_all(struct instance *i)
{
    drain_log(i);
}

/* ---- errors in the form of the platform ---- */

static void arm(struct instance *i);

/* The call is no longer this instance's. */
static void take_call(struct instance *i, struct call *c)
{
    bool paused = c->paused;

    c->paused = false;
    gate_out(&i->v->gate, &c->pass);
    if (instance_shared(i)) {
        place_give(c);
        if (!i->stopping)
            arm(i);
        return;
    }
    i->call = NULL;
    c->i = NULL;
    uv_timer_stop(&i->timer);
    if (paused)
        instance_watch(i);
}

static void fail_call(struct instance *i, struct call *c, const char *type, const char *message)
{
    struct function_result r = {.function_error = "Unhandled"};
    struct buf body = {0};

    drain_log(i);
    buf_printf(&body, "{\"errorType\":\"%s\",\"errorMessage\":\"%s\"}", type, message);
    r.payload = body.p;
    r.n = body.n;
    r.duration_us = now_us() - c->sent_us;
    r.streamed = c->streams;
    take_call(i, c);
    pool_finish(i, c, &r);
    buf_done(&body);
}

/* What the function does after a restore has its own limit; the call never ran. */
static void restore_late(struct instance *i)
{
    struct function_result r = {.error_type = "SnapStartTimeoutException"};
    struct call *c = i->call;

    err_set(&r.err, TIMEOUT, "Lambda couldn't restore the snapshot within the timeout limit.");
    drain_log(i);
    flog_note(i, c, "RESTORE_REPORT Restore Duration: 10000.00 ms\tStatus: timeout", "\n");
    instance_kill(i);
    r.duration_us = now_us() - c->sent_us;
    take_call(i, c);
    pool_finish(i, c, &r);
}

/* kill: its process has to end for that. */
static void time_out(struct instance *i, struct call *c, bool kill)
{
    char when[32], text[160];

    snprintf(text, sizeof text, "%s %s %s timed out after %.2f seconds", wall_text(wall_ms(), when), c->id,
             i->inited ? "Task" : "Init", (i->inited ? i->v->timeout_ms : INIT_MS) / 1000.0);
    c->timed_out = true;
    drain_log(i);
    flog_note(i, c, text, "\n\n");
    if (kill)
        instance_stop(i, i->grace_ms); /* extensions are told */
    fail_call(i, c, "Sandbox.Timedout", text);
}

/* Of several calls at once, those whose time is over. Who answers one of them too late may be stuck in it: it takes no
 * more calls, and ends when the others have their answers, or their time is over, too. */
static void look_at_deadlines(struct instance *i)
{
    int64_t now = now_us();
    struct list *l, *next;

    for (l = i->leases.next; l != &i->leases; l = next) {
        struct call *c = list_entry(l, struct call, lease);

        next = l->next;
        if (c->deadline_us > now)
            continue;
        instance_leave_lists(i);
        i->state = INSTANCE_BUSY;
        i->overdue = true;
        i->v->lazy |= !i->inited;
        time_out(i, c, false); /* the last one ends it */
    }
    arm(i);
}

static void on_deadline(uv_timer_t *t);

static void arm(struct instance *i)
{
    int64_t first = INT64_MAX;

    if (i->exited || i->stopping || uv_is_closing((uv_handle_t *)&i->timer))
        return;
    LIST_EACH(&i->leases, l)
    first = MIN(first, list_entry(l, struct call, lease)->deadline_us);
    if (first == INT64_MAX)
        uv_timer_stop(&i->timer);
    else
        uv_timer_start(&i->timer, on_deadline, (uint64_t)(MAX(first - now_us(), (int64_t)0) / 1000 + 1), 0);
}

static void on_deadline(uv_timer_t *t)
{
    struct instance *i = t->data;

    if (instance_shared(i)) {
        look_at_deadlines(i);
        return;
    }
    if (!i->call)
        return;
    i->deadline_hit = true;
    i->v->lazy |= !i->inited;
    if (i->restored && !i->inited)
        restore_late(i);
    else
        time_out(i, i->call, true);
}

/* How long a call may run before this side ends it. */
static uint64_t limit_ms(const struct instance *i)
{
    if (i->v->f->debug)
        return DEBUG_MS;
    return i->inited ? (uint64_t)i->v->timeout_ms + (i->v->wasm ? WASM_GRACE_MS : 0) : INIT_MS;
}

/* The process ended while it had a call. */
static void fail_by_status(struct instance *i, struct call *c, int status, bool oom)
{
    struct functions *fs = i->v->f->fs;
    char text[200], why[80];
    const char *type = "Runtime.ExitError";

    if ((snapshot_broke(i, status) || (i->init_ahead && !i->inited)) && !fs->stopping && c->payload) {
        take_call(i, c);
        pool_again(c);
        return;
    }
    if (fs->stopping || (WIFEXITED(status) && WEXITSTATUS(status) == 125)) {
        struct function_result r = {0};

        if (fs->stopping)
            err_set(&r.err, UNAVAILABLE, "tandem is stopping");
        else
            err_set(&r.err, UNAVAILABLE, "a sandbox for the function could not be made; its log says why");
        drain_log(i);
        r.streamed = c->streams;
        take_call(i, c);
        pool_finish(i, c, &r);
        return;
    }
    if (oom)
        type = "Runtime.OutOfMemory";
    if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
        snprintf(why, sizeof why, "signal: killed");
    else if (WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV)
        snprintf(why, sizeof why, "signal: segmentation fault");
    else if (WIFSIGNALED(status))
        snprintf(why, sizeof why, "signal: %s", sigdescr_np(WTERMSIG(status)) ? sigdescr_np(WTERMSIG(status)) : "?");
    else if (WEXITSTATUS(status))
        snprintf(why, sizeof why, "exit status %d", WEXITSTATUS(status));
    else
        why[0] = 0;
    if (why[0])
        snprintf(text, sizeof text, "RequestId: %s Error: Runtime exited with error: %s", c->id, why);
    else
        snprintf(text, sizeof text, "RequestId: %s Error: Runtime exited without providing a reason", c->id);
    drain_log(i);
    flog_note(i, c, text, "\n");
    fail_call(i, c, type, text);
}

static bool read_sock(struct instance *i);

/* What it used since it was looked at last, for the meter: an instance may live for days. */
void instance_sample(struct instance *i)
{
    if (i->berth)
        berth_sample(i->v, i->berth);
}

/* True: it was killed for want of memory. empty: it has been reaped. */
static bool settle(struct instance *i, uint64_t cpu_us, bool empty)
{
    struct berth *b = STEAL(i->berth);
    bool killed;

    if (!b)
        return false;
    if (b->has_cgroup)
        berth_sample(i->v, b);
    else
        i->v->f->m->cpu_us += cpu_us;
    killed = b->killed;
    berth_give(i->v, b, empty);
    return killed;
}

void instance_exited(struct instance *i, int status, uint64_t cpu_us)
{
    struct list *l;
    bool oom;

    if (i->exited)
        return;
    while ((i->call || i->maker || (instance_shared(i) && i->leases_n)) && i->state != INSTANCE_DYING && read_sock(i))
        ; /* it may have answered and left: the zygote's word was only faster */
    i->exited = true;
    i->v->lazy |= i->init_ahead && !i->inited && !i->killed && !snapshot_broke(i, status);
    instance_leave_lists(i);
    list_remove(&i->limit_link);
    i->state = INSTANCE_DYING;
    drain_log(i);
    list_remove(&i->flood_link);
    /* a runtime that is a program of its own is killed below us: we say it as a shell does */
    oom = settle(i, cpu_us, i->forked) && !i->deadline_hit &&
          ((WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) || (i->v->program && WIFEXITED(status) && WEXITSTATUS(status) == 128 + SIGKILL));
    if (i->v->http_port)
        serve_exited(i, status);
    serve_dials_end(i);
    closep(&i->fd_in);
    i->fd_in = -1;
    if (i->maker)
        snapshot_exited(i, status, oom);
    if (i->call)
        fail_by_status(i, i->call, status, oom);
    while (instance_shared(i) && (l = list_first(&i->leases)))
        fail_by_status(i, list_entry(l, struct call, lease), status, oom);
    uv_close((uv_handle_t *)&i->sock_poll, on_closed);
    uv_close((uv_handle_t *)&i->log_poll, on_closed);
    uv_close((uv_handle_t *)&i->timer, on_closed);
}

/* ---- its socket ---- */

static void misbehaved(struct instance *i, const char *what)
{
    LOG(WARN, "function", "function=%s did=kill slot=%u why=\"%s\"", i->v->f->key, i->slot, what);
    instance_kill(i);
    instance_unwatch(i); /* the call, if any, fails when the exit is told */
}

/* ---- answers that stream ---- */

static void begin_stream(struct call *c, const char *type, size_t n)
{
    c->streams = true;
    c->content_type = xmalloc(n + 1);
    memcpy(c->content_type, type, n);
    c->content_type[n] = 0;
    if (c->stream)
        c->stream->begin(c->arg, c->content_type, c->i->v->shown);
}

/* False: it is more than an answer may be. */
static bool add_piece(struct call *c, const char *p, size_t n)
{
    c->streamed += n;
    if (c->streamed > FUNCTION_STREAM_MAX)
        return false;
    if (c->stream)
        c->stream->data(c->arg, p, n);
    else if (c->done)
        buf_add(&c->pieces, p, n);
    return true;
}

/* The pieces as one answer, for who wanted it in one. */
static void end_stream(struct call *c, struct function_result *r)
{
    static const char TOO_BIG[] = "{\"errorMessage\":\"Response payload size exceeded maximum allowed payload size (6291556 bytes).\","
                                  "\"errorType\":\"Function.ResponseSizeTooLarge\"}";

    r->streamed = c->stream != NULL;
    if (r->streamed || r->function_error || r->err.code != ERR_OK)
        return;
    if (c->pieces.over) {
        r->function_error = "Unhandled";
        r->payload = TOO_BIG;
        r->n = sizeof TOO_BIG - 1;
        return;
    }
    r->content_type = c->content_type;
    r->payload = c->pieces.p ? c->pieces.p : "";
    r->n = c->pieces.n;
}

static void on_result(struct instance *i, struct call *c, const struct instance_frame *f, const char *body)
{
    struct function_result r = {.payload = body, .n = f->n, .cold = !i->warm};
    int64_t now = now_us();

    drain_log(i);
    r.duration_us = now - c->sent_us;
    if (!i->warm && (int64_t)f->c > c->sent_us)
        r.start_us = MIN((int64_t)f->c - c->sent_us, r.duration_us);
    r.init_us = (int64_t)MIN(f->b, (uint64_t)(r.duration_us - r.start_us));
    r.handler_us = (int64_t)MIN(f->d, (uint64_t)(r.duration_us - r.start_us - r.init_us));
    c->cold = !i->warm;
    i->warm = true;
    if (f->result == RESULT_TIMEOUT && i->v->wasm) {
        i->memory_kb = MIN(f->a, (uint64_t)i->v->memory_mb * 1024);
        time_out(i, c, false);
        return;
    }
    take_call(i, c);
    if (f->result == RESULT_RESTORE_ERROR) {
        err_set(&r.err, UNAVAILABLE, "The afterRestore() runtime hook encountered an error. For more information, check the Amazon CloudWatch logs.");
        r.error_type = "SnapStartException";
        r.payload = NULL;
        r.n = 0;
    } else if (f->result == RESULT_BAD_EVENT) {
        err_set(&r.err, INVALID_ARGUMENT, "%.400s", body);
        r.payload = NULL;
        r.n = 0;
    } else if (f->result != RESULT_OK) {
        r.function_error = "Unhandled";
    }
    if (c->streams)
        end_stream(c, &r);
    i->memory_kb = MIN(f->a, (uint64_t)i->v->memory_mb * 1024);
    if (f->result == RESULT_INIT_ERROR || f->result == RESULT_RESTORE_ERROR)
        instance_kill(i);
    pool_finish(i, c, &r);
}

/* The module is loaded: from here on the time limit of the handler counts, and the cpu limit. */
static void on_inited(struct instance *i, uint8_t extensions, uint64_t restore_us, uint64_t hooks_us)
{
    struct functions *fs = i->v->f->fs;

    i->inited = true;
    if (i->restored) {
        i->restore_us = (int64_t)MIN(restore_us, (uint64_t)INIT_MS * 1000);
        i->hooks_us = (int64_t)MIN(hooks_us, (uint64_t)i->restore_us);
        drain_log(i);
        flog_restore_report(i);
        if (i->start_owed && i->call)
            flog_start(i, i->call);
        i->start_owed = false;
    }
    i->grace_ms = extensions == 1 ? 2000 : extensions == 2 ? 500 : 0; /* external, internal: Lambda's figures */
    if (instance_shared(i)) {
        LIST_EACH(&i->leases, l)
        list_entry(l, struct call, lease)->deadline_us = now_us() + (int64_t)limit_ms(i) * 1000;
        arm(i);
    }
    if (i->call)
        uv_timer_start(&i->timer, on_deadline, limit_ms(i), 0);
    if (i->berth && berth_wants_limit(i->v, i->berth)) {
        list_push(&fs->to_limit, &i->limit_link);
        pool_refill_soon(fs);
    }
}

/* Whose frame this is; NULL: nobody's. */
static struct call *call_of(struct instance *i, uint64_t id)
{
    if (!instance_shared(i))
        return id == i->frames ? i->call : NULL;
    LIST_EACH(&i->leases, l)
    if (list_entry(l, struct call, lease)->frame == id)
        return list_entry(l, struct call, lease);
    return NULL;
}

/* An answer to a call that is not waited for any more: the instance does not know that. */
static bool lost(struct instance *i, const struct instance_frame *f)
{
    return i->overdue && f->id && f->id <= i->frames && !call_of(i, f->id) &&
           (f->type == FRAME_RESULT || f->type == FRAME_STREAM || f->type == FRAME_DATA || f->type == FRAME_INITED);
}

/* Takes whole frames from the front; gives back the bytes taken, -1 when the instance is done for. */
static ssize_t take_frames(struct instance *i, const char *p, size_t n)
{
    struct instance_frame f;
    struct call *c;
    size_t at = 0;

    while (n - at >= sizeof f) {
        memcpy(&f, p + at, sizeof f);
        if (f.type == FRAME_INITED && i->init_ahead && !i->inited && !f.id && !f.n) {
            at += sizeof f;
            on_inited(i, f.result, f.b, f.c);
            continue;
        }
        if (i->maker && !i->told && f.n <= INSTANCE_FRAME_MAX) {
            if (n - at < sizeof f + f.n)
                break;
            at += sizeof f + f.n;
            if (snapshot_frame(i, &f, p + at - f.n))
                continue;
            misbehaved(i, "it does not keep the protocol");
            return -1;
        }
        if (f.type == FRAME_DIALED && i->v->f->debug && !f.n) {
            at += sizeof f;
            if (!serve_dialed(i, f.id, f.result == 0, STEAL_FD(i->fd_in))) {
                misbehaved(i, "it does not keep the protocol");
                return -1;
            }
            continue;
        }
        if (instance_shared(i) && lost(i, &f) && f.n <= INSTANCE_FRAME_MAX) {
            if (n - at < sizeof f + f.n)
                break;
            at += sizeof f + f.n; /* its time was over */
            continue;
        }
        c = call_of(i, f.id);
        if (!c || f.n > INSTANCE_FRAME_MAX) {
            misbehaved(i, "it does not keep the protocol");
            return -1;
        }
        if (n - at < sizeof f + f.n)
            break;
        at += sizeof f + f.n;
        if (f.type == FRAME_INITED && !i->inited && !f.n) {
            on_inited(i, f.result, f.b, f.c);
        } else if (f.type == FRAME_STREAM && i->inited && !c->streams && f.n < LINE_MAX_BYTES) {
            begin_stream(c, p + at - f.n, f.n);
        } else if (f.type == FRAME_DATA && c->streams) {
            if (!add_piece(c, p + at - f.n, f.n)) {
                instance_kill(i);
                fail_call(i, c, "Function.ResponseSizeTooLarge", "Response payload size exceeded maximum allowed payload size (209715200 bytes).");
                return -1;
            }
        } else if (f.type == FRAME_RESULT && i->v->f->debug && at < n) { /* the end of a connection's making came behind it */
            _auto_(freep) char *body = xstrndup(p + at - f.n, f.n);

            on_result(i, c, &f, body);
        } else if (f.type == FRAME_RESULT && (at == n || instance_shared(i))) {
            on_result(i, c, &f, p + at - f.n);
        } else {
            misbehaved(i, "it does not keep the protocol");
            return -1;
        }
    }
    return (ssize_t)at;
}

/* Of one that is debugged: a descriptor may come with its frame, which is the last one then. */
static ssize_t read_with_fd(struct instance *i, char *piece)
{
    union {
        struct cmsghdr align;
        char space[CMSG_SPACE(sizeof(int) * 4)];
    } control;
    struct iovec iov = {piece, READ_BYTES};
    struct msghdr m = {.msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof control};
    ssize_t n = recvmsg(i->sock, &m, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);

    for (struct cmsghdr *h = n > 0 ? CMSG_FIRSTHDR(&m) : NULL; h; h = CMSG_NXTHDR(&m, h))
        if (h->cmsg_level == SOL_SOCKET && h->cmsg_type == SCM_RIGHTS)
            for (size_t k = 0; k < (h->cmsg_len - CMSG_LEN(0)) / sizeof(int); k++) {
                int one;

                memcpy(&one, CMSG_DATA(h) + k * sizeof one, sizeof one);
                closep(&i->fd_in);
                i->fd_in = one;
            }
    return n;
}

/* False: nothing (more) to read. */
static bool read_sock(struct instance *i)
{
    char piece[READ_BYTES + 1];
    ssize_t n, taken;

    if (i->v->http_port && !i->compiler)
        return serve_read(i);
    n = i->v->f->debug ? read_with_fd(i, piece) : read(i->sock, piece, READ_BYTES);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return false;
    if (n <= 0) {
        /* closed: it left, or closed all it had. Either way it is of no use any more. */
        uv_poll_stop(&i->sock_poll);
        instance_kill(i);
        return false;
    }
    if (!i->in.n) { /* the usual case: one read, whole frames, no copy */
        piece[n] = 0;
        taken = take_frames(i, piece, (size_t)n);
        if (taken >= 0 && taken < n)
            buf_add(&i->in, piece + taken, (size_t)(n - taken));
        return taken >= 0;
    }
    buf_add(&i->in, piece, (size_t)n);
    if (i->in.over) {
        misbehaved(i, "its answer is too long");
        return false;
    }
    taken = take_frames(i, i->in.p, i->in.n);
    if (taken <= 0)
        return taken == 0;
    buf_eat(&i->in, (size_t)taken);
    if (!i->in.n) {
        buf_done(&i->in);
        buf_init(&i->in, INSTANCE_FRAME_MAX + sizeof(struct instance_frame));
    }
    return true;
}

static void on_sock(uv_poll_t *h, int status, int events);

void instance_watch(struct instance *i)
{
    int events = (i->call && i->call->paused ? 0 : UV_READABLE) | (i->out.n ? UV_WRITABLE : 0);

    if (i->exited || i->state == INSTANCE_DYING || uv_is_closing((uv_handle_t *)&i->sock_poll))
        return;
    if (events)
        uv_poll_start(&i->sock_poll, events, on_sock);
    else
        uv_poll_stop(&i->sock_poll);
}

static int write_out(struct instance *i)
{
    while (i->out_at < i->out.n) {
        ssize_t n = send(i->sock, i->out.p + i->out_at, i->out.n - i->out_at, MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && errno == EAGAIN) {
            instance_watch(i);
            return 0;
        }
        if (n < 0)
            return -1;
        i->out_at += (size_t)n;
    }
    buf_done(&i->out);
    i->out_at = 0;
    instance_watch(i);
    return 0;
}

static void on_sock(uv_poll_t *h, int status, int events)
{
    struct instance *i = h->data;

    if (i->exited || i->state == INSTANCE_DYING) {
        uv_poll_stop(h); /* its end is on the way; what it still says would wake us over and over */
        return;
    }
    if ((events & UV_WRITABLE) && write_out(i) < 0) {
        uv_poll_stop(&i->sock_poll);
        instance_kill(i);
        return;
    }
    if ((events & (UV_READABLE | UV_DISCONNECT)) || status < 0)
        read_sock(i);
}

int instance_send(struct instance *i, struct call *c, const void *payload, size_t n)
{
    struct instance_frame f = {.type = FRAME_INVOKE, .id = ++i->frames};
    const char *texts[] = {c->id, c->trace_id, c->arn, c->client_context};
    struct iovec iov[6];
    struct msghdr m = {.msg_iov = iov};
    size_t total = 0;
    ssize_t sent;

    instance_leave_lists(i);
    f.request_id_n = (uint16_t)strlen(c->id);
    f.trace_n = (uint16_t)(c->trace_id ? strlen(c->trace_id) : 0);
    f.arn_n = (uint16_t)strlen(c->arn);
    f.client_context_n = (uint32_t)(c->client_context ? strlen(c->client_context) : 0);
    f.n = f.request_id_n + f.trace_n + f.arn_n + f.client_context_n + (uint32_t)n;
    f.a = (uint64_t)(wall_ms() + i->v->timeout_ms);
    f.b = (uint64_t)c->since_us;
    iov[m.msg_iovlen++] = (struct iovec){&f, sizeof f};
    for (size_t k = 0; k < ARRAY_LEN(texts); k++)
        if (!str_empty(texts[k]))
            iov[m.msg_iovlen++] = (struct iovec){(void *)texts[k], strlen(texts[k])};
    if (n)
        iov[m.msg_iovlen++] = (struct iovec){(void *)payload, n};
    for (size_t k = 0; k < m.msg_iovlen; k++)
        total += iov[k].iov_len;
    c->sent_us = now_us(); /* before: the one who is woken may take our core at once */
    errno = EAGAIN;
    sent = i->out.n ? -1 : sendmsg(i->sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT); /* behind what waits, if anything does */
    if (sent < 0 && errno != EAGAIN) {
        instance_kill(i);
        return -1;
    }
    c->frame = f.id;
    if (instance_shared(i)) {
        place_take(i, c);
    } else {
        i->state = INSTANCE_BUSY;
        i->call = c;
        c->i = i;
    }
    if ((size_t)MAX(sent, (ssize_t)0) < total) { /* the rest follows as the instance reads */
        size_t skip = (size_t)MAX(sent, (ssize_t)0);

        for (size_t k = 0; k < m.msg_iovlen; k++) {
            size_t part = MIN(skip, iov[k].iov_len);

            buf_add(&i->out, (char *)iov[k].iov_base + part, iov[k].iov_len - part);
            skip -= part;
        }
        instance_watch(i);
    }
    if (instance_shared(i)) {
        c->deadline_us = c->sent_us + (int64_t)limit_ms(i) * 1000;
        arm(i);
        return 0;
    }
    uv_timer_start(&i->timer, on_deadline, limit_ms(i), 0);
    return 0;
}

/* ---- the beginning ---- */

static void random_hex(char out[36])
{
    unsigned char b[16];

    random_bytes(b, sizeof b);
    for (int k = 0; k < 16; k++)
        snprintf(out + 2 * k, 3, "%02x", b[k]);
}

static int open_ends(struct instance *i, int theirs[2], struct err *err)
{
    int pair[2], pipe_ends[2];

    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
        return err_sys(err, "make an instance's socket");
    if (pipe2(pipe_ends, O_CLOEXEC) < 0) {
        err_sys(err, "make an instance's log pipe");
        close(pair[0]);
        close(pair[1]);
        return -1;
    }
    i->sock = pair[0];
    theirs[0] = pair[1];
    i->log = pipe_ends[0];
    theirs[1] = pipe_ends[1];
    fcntl(i->log, F_SETFL, O_NONBLOCK);
    return 0;
}

static void instance_add(struct instance *i)
{
    struct version *v = i->v;
    struct functions *fs = v->f->fs;

    list_push(&v->instances, &i->link);
    list_push(&fs->slots[i->slot % ARRAY_LEN(fs->slots)], &i->slot_link);
    v->instances_n++;
    v->starting_n++;
    uv_poll_init(fs->loop, &i->sock_poll, i->sock);
    uv_poll_init(fs->loop, &i->log_poll, i->log);
    uv_timer_init(fs->loop, &i->timer);
    i->sock_poll.data = i->log_poll.data = i->timer.data = i;
    i->handles = 3;
    uv_poll_start(&i->sock_poll, UV_READABLE, on_sock);
    uv_poll_start(&i->log_poll, UV_READABLE, on_log);
    buf_init(&i->in, INSTANCE_FRAME_MAX + sizeof(struct instance_frame));
}

struct instance *instance_make(struct version *v, bool compiler, struct err *err)
{
    struct functions *fs = v->f->fs;
    struct instance *i = xcalloc(1, sizeof *i);

    i->v = v;
    i->sock = i->log = i->theirs[0] = i->theirs[1] = i->keys = -1;
    i->fd_in = -1;
    list_init(&i->leases);
    list_init(&i->dials);
    i->compiler = compiler;
    i->restored = !compiler && snapshot_usable(v);
    i->slot = ++fs->slot_next;
    i->asked_us = now_us();
    i->log_left = LOG_BURST;
    random_hex(i->stream);
    if (open_ends(i, i->theirs, err) < 0 || !(i->berth = berth_take(v, compiler, err))) {
        closep(&i->theirs[0]);
        closep(&i->theirs[1]);
        closep(&i->sock);
        closep(&i->log);
        free(i);
        return NULL;
    }
    instance_add(i);
    return i;
}

int instance_launch(struct instance *i, struct err *err)
{
    struct zygote_ask ask = {.what = i->compiler ? ASK_COMPILE : i->maker ? ASK_SNAPSHOT : ASK_FORK, .slot = i->slot, .cpu = -1,
                             .net = i->berth->net_fd >= 0, .init = i->init_ahead};
    int fds[ZYGOTE_FDS_MAX] = {i->theirs[0], i->theirs[1]}, n = 2, keys = -1, ret;

    for (int k = 0; k < CGROUP_FDS; k++)
        if (i->berth->fds[k] >= 0) {
            fds[n++] = i->berth->fds[k];
            ask.cgroup_n++;
        }
    if (ask.net)
        fds[n++] = i->berth->net_fd;
    if (i->maker || i->restored) {
        ask.image = 1;
        fds[n++] = i->v->snap.image;
    }
    if (i->v->snap.state != SNAP_NONE && !i->compiler && (keys = snapshot_keys_open(i, err)) >= 0) {
        ask.keys = 1;
        fds[n++] = keys;
    }
    if (i->restored)
        flog_restore_start(i);
    memcpy(ask.stream, flog_stream(i), sizeof ask.stream);
    ret = zygote_ask(i->v, &ask, fds, n, err);
    closep(&keys);
    closep(&i->theirs[0]);
    closep(&i->theirs[1]);
    i->theirs[0] = i->theirs[1] = -1;
    if (ret < 0) {
        i->v->starting_n -= i->v->starting_n > 0;
        if (i->call)
            take_call(i, i->call); /* still the caller's */
        serve_drop(i);
        instance_exited(i, SIGKILL, 0);
    }
    return ret;
}

struct instance *instance_fork(struct version *v, bool compiler, struct err *err)
{
    struct instance *i = instance_make(v, compiler, err);

    if (i)
        i->ahead = true;
    if (i && !compiler)
        i->init_ahead = !v->f->fs->lazy_init && !v->lazy;
    return i && instance_launch(i, err) == 0 ? i : NULL;
}
