/* function/function_int.h - what the files of this room share.
 *
 *   function.c  the registry: functions by name, aliases, families; start and stop of it all
 *   version.c   how an object's code is run: interpreter, environment, mounts, limits
 *   role.c      in whose name: credentials
 *   zygote.c    one version's zygote process
 *   instance.c  one sandboxed process: its socket, its log pipe, its time limit, its end
 *   snapshot.c  an initialised function as an image (SnapStart)
 *   berth.c     where it lives: cgroup and network, used again
 *   net.c       networks from a pool
 *   scaling/forecast.c  how many are forked ahead
 *   scaling/evict.c     who goes when memory is short
 *   scaling/capacity.c  what pods leave to functions
 *   scaling/rate.c      how fast a function grows
 *   scaling/gate.c      how many short calls run at once
 *   scaling/kpa.c       how many instances there should be, by Knative's algorithm; scale.c does it
 *   pool.c      who answers a call: scaling, waiting, keep-alive
 *   flog.c      what goes into the log, and tails
 *   trace.c     where a call stands in a trace
 *   debug.c     the instance under a debugger
 *   meter.c     what was used
 *   spend.c     what that costs in a month, and the stop at a limit
 *   queue.c     events that are owed
 *   destination.c  where their records go
 *   code.c      zips
 *   unpack.c    a version's code as folders
 *   image.c     container images
 *   wasm.c      Wasm modules
 *
 * Owners: functions -> function -> version -> instance. A version lives until its zygote and its
 * instances are gone; a function until its versions are. A call belongs to the list it stands in
 * (waiting) or to its instance. */
#pragma once

#include "base/list.h"
#include "base/map.h"
#include "codec/obj.h"
#include "function/function.h"
#include "function/scaling/gate.h"
#include "function/runtime/zygote.h"
#include "sandbox/cgroup.h"

#include <uv.h>

enum {
    STARTING_MAX = 8,       /* forks asked of one zygote and not yet told done */
    LINE_MAX_BYTES = 16384, /* of one log line; longer ones are cut in pieces */
    GAP_BINS = 40,          /* idle gaps: bin i holds gaps below 2^(i/2) ms */
    ZYGOTE_START_MS = 30000,
    NODE_FAILURES_MAX = 3, /* then each instance starts a Node of its own */
    COMPILE_MS = 120000,
    LEVELS_MAX = 64, /* of calls at once, for the forecast */
    WASM_GRACE_MS = 250, /* a Wasm module's time limit is kept by its host, which goes on then; else it is killed */
    CONCURRENCY_MAX = 800, /* calls at once in an instance: each is a connection in there, of the 1,024 descriptors */
    INIT_MS = 10000, /* to load the module; Lambda's own figure */
    DEBUG_MS = 24 * 3600 * 1000, /* of a call that is debugged, and of its init */
    DEBUG_MB = 512,              /* for a debugger, beside what the function may have */
};

struct call {
    struct list link; /* function.waiting, or none */
    struct function *f;
    uint64_t ticket;
    char id[FUNCTION_ID_MAX];
    const char *arn; /* the caller's, in arn_own, or the function's */
    char *arn_own, *client_context, *trace_id, *alias_series;
    struct function_trace trace;
    struct function_span *span; /* NULL: not sampled, or nobody takes spans */
    char *payload; /* a copy, only while it waits */
    size_t n;
    function_done_fn *done; /* NULL: forgotten */
    void *arg;
    int64_t since_us, place_us, sent_us, deadline_us; /* place_us: somebody was found or is being made */
    enum function_rung rung;
    bool want_tail, cold;
    bool for_zygote; /* it came while there was no zygote */
    const struct function_stream *stream; /* NULL: pieces are collected */
    bool streams, paused;
    uint64_t streamed;       /* bytes so far */
    struct buf pieces;       /* collected, up to FUNCTION_PAYLOAD_MAX */
    char *content_type;      /* streams: of the answer */
    struct instance *i;      /* who has it; NULL: it waits */
    struct gate_pass pass;   /* of the gate of i's version */
    function_place_fn *on_place; /* of an HTTP function: a place in an instance is asked for */
    struct list lease;       /* of versions with places: instance.leases */
    uint64_t frame;          /* with more than one at once: the number of its frame */
    bool timed_out, counted; /* counted: it counts as an instance at work */
    bool placed;             /* on_place was called */
    struct buf tail; /* want_tail: the end of the log, up to twice FUNCTION_LOG_TAIL_MAX */
};

struct meter {
    char *key;
    uint64_t requests, errors, throttles, cold_starts;
    uint64_t busy_us, billed_ms, gb_us, cpu_us, init_us, queue_us;
    uint64_t memory_peak_kb, concurrency_peak;
    uint64_t gaps[GAP_BINS]; /* between the end of the last call and the next, nobody busy */
    uint64_t async_events, async_retries, async_dropped;
    uint64_t evicted; /* processes that went because memory was short */
    uint64_t answered_warm, answered_stem, answered_zygote, answered_runtime, answered_fresh;
    int64_t first_ms, last_ms; /* since 1970 */
    uint64_t duration_bins[GAP_BINS];
    uint32_t memory_mb;
};

/* What a function ("NS/NAME") or a namespace ("NS") used in a month. */
struct spending {
    char *key;
    int month; /* 202601 */
    uint64_t requests, gb_us;
    double limit; /* -1: none */
    bool stopped;
};

/* How much is worth a line, of the JSON form. */
enum tracing_mode { TRACING_UNSAID, TRACING_PASS_THROUGH, TRACING_ACTIVE };
enum log_level_of_function { LEVEL_TRACE, LEVEL_DEBUG, LEVEL_INFO, LEVEL_WARN, LEVEL_ERROR, LEVEL_FATAL };

enum zygote_state { ZYGOTE_NONE, ZYGOTE_STARTING, ZYGOTE_READY, ZYGOTE_GONE };

struct volume_mount {
    char *volume, *target;
    bool read_only;
};

enum snap_state { SNAP_NONE, SNAP_WANTED, SNAP_MAKING, SNAP_READY, SNAP_UNABLE, SNAP_FAILED };

/* See snapshot.c. */
struct snap {
    enum snap_state state; /* NONE: the version asks for none */
    int image;             /* memfd; -1: none */
    pid_t base_pid;        /* of the base that it belongs to */
    bool good;             /* it was initialised once without an error */
    char token[36];        /* that instances show their keeper of credentials */
    /* what was told of it last (on_snapshot) */
    bool said, said_active, said_on;
    const char *said_code;
    char *said_reason;
};

struct version {
    struct list link; /* function.versions */
    struct function *f;
    /* what it is */
    int64_t cpu_seen_us, sampled_us; /* of its cgroup, in the meter already; when it was looked at */
    uint64_t number;
    char *runtime, *handler, *sha256, *shown; /* shown: "$LATEST" */
    char *interpreter, *folder;
    char *program; /* the runtime, where it is a program of its own; NULL: Python */
    int memory_mb, timeout_ms, tmp_mb;
    bool no_network; /* its owner says so: its instances reach nothing */
    bool wasm;     /* a module; program is NULL */
    int http_port; /* 0: no HTTP function */
    int places;    /* calls that an instance takes at once */
    const struct val *http_command;  /* of spec_of */
    char **env; /* NAME, value, NAME, value, ..., NULL */
    struct volume_mount *mounts;
    uint32_t mounts_n;
    char *layers[FUNCTION_LAYERS_MAX], *layer_folders[FUNCTION_LAYERS_MAX]; /* sha256 of their zips; unpacked */
    uint32_t layers_n;
    struct err broken; /* not OK: this version cannot run, and why */
    char *log_group;   /* NULL: not asked for yet */
    bool log_json;
    enum tracing_mode tracing;
    enum log_level_of_function log_app, log_system; /* JSON: lines below are left out */
    /* packageType Image; else image is NULL */
    char *image, *image_digest;
    const struct val *image_config; /* of f->obj, borrowed from spec */
    const struct obj *spec_of;      /* keeps it */
    const struct image *img;        /* NULL: not found yet */
    struct image_job *image_job;    /* it is being pulled */
    struct err image_err;
    int64_t image_tried_us;
    /* its processes */
    enum zygote_state zygote;
    pid_t zygote_pid; /* 0: not told yet */
    struct base *base;
    uv_poll_t ctl; /* data: the version; closed in ZYGOTE_NONE and ZYGOTE_GONE */
    int ctl_fd;
    bool unpacking; /* its code, by a thread: zygote_start() comes then */
    bool ctl_closing, compile_wanted, compiling, removed;
    bool keyless;     /* its role's keys were not known yet */
    int64_t renew_us; /* its keys are half over then; 0: never */
    bool lazy; /* loading the module ahead did not work out: do it with the call */
    int64_t zygote_since_us, zygote_started_us, used_us;
    int64_t start_us; /* what a start costs a call that waits for it, of late */
    bool forks; /* its instances are forks of their runtime; else they start a program */
    enum function_rung zygote_rung; /* of a call that waits for its zygote */
    bool from_node, no_node_base;   /* its zygote is a fork of a Node; it cannot be one */
    struct list instances;
    struct list idle;  /* LIFO: the front was used last */
    struct list stems; /* sandboxed, nothing loaded yet */
    struct list berths; /* free ones */
    uint32_t instances_n, starting_n, stems_n, berths_n;
    struct gate gate;
    bool snap_start; /* it is published and asked for it */
    struct snap snap;
    struct cgroup_limits limits;
    char cgroup[192]; /* functions/NAMESPACE.NAME-<number> */
};

/* Tokens for new instances: rate.c. */
struct rate {
    double left;
    int64_t at_us; /* when so many were left; 0: never used, it is full */
};

/* What $LATEST and the published versions of one name have in common. */
struct family {
    char *key; /* NAMESPACE/NAME */
    uint32_t refs, busy;
    int64_t reserved; /* of the whole family; -1: none */
    uint64_t routed;  /* calls through aliases with weights */
    struct rate rate;
    struct function *debug; /* NULL: nobody debugs it */
    char debug_token[FUNCTION_TOKEN_MAX];
};

/* One that can be called: $LATEST, or a published version. */
struct function {
    struct list link; /* functions.all */
    struct functions *fs;
    struct family *family;
    char *key, *namespace_, *name; /* key: NAMESPACE/NAME, or NAMESPACE/NAME:VERSION */
    char *shown;                   /* "$LATEST", "3" */
    const struct obj *obj;         /* the Function, or the FunctionVersion */
    bool removed;
    bool durable; /* a call begins an execution */
    bool debug; /* it is family.debug */
    bool slowed; /* somebody waits for a token: the tick looks */
    bool crowded; /* somebody waits for memory: capacity.c looks */
    int provisioned; /* instances that are kept loaded */
    struct kpa *kpa; /* annotated: how many there should be; else NULL */
    int async_retries, async_age_s;
    uint32_t id; /* counts functions: uid of its processes, cgroup names */
    struct version *now;
    struct list versions;
    struct list net_link; /* functions.net_waiters */
    struct list waiting;
    struct list gated; /* functions.gated: the first who waits does so before the gate */
    uint32_t waiting_n, busy; /* busy: calls that run or wait */
    int64_t level_us[LEVELS_MAX]; /* when so many calls were under way last; 0: never */
    int64_t quiet_since_us;   /* the last call ended; 0: busy or never called */
    struct meter *m;
    char *series; /* key of its metrics; NULL: not asked for yet */
    char *arn;    /* without a qualifier; NULL: not asked for yet */
};

/* The cgroup and the network of an instance; of a version. See berth.c. */
struct berth {
    struct list link; /* version.berths, when free */
    char cgroup[208], net_name[24];
    bool has_cgroup, compiler;
    bool killed;         /* somebody in it was, for want of memory, before the last look */
    int fds[CGROUP_FDS]; /* to attach with; -1: none, or closed */
    int net_fd;          /* borrowed from the pool; -1: none */
    int64_t oom_kills; /* seen, of all that lived here */
    int64_t free_since_us;
};

enum instance_state { INSTANCE_STEM, INSTANCE_BUSY, INSTANCE_IDLE, INSTANCE_DYING };

struct instance {
    struct list link; /* version.instances */
    struct list free; /* version.idle or version.stems */
    struct list slot_link;
    struct version *v;
    enum instance_state state;
    uint32_t slot;
    pid_t pid;
    bool forked, exited, killed, warm, compiler, ahead; /* ahead: forked before there was a call for it */
    bool inited; /* its module is loaded */
    bool init_told; /* INIT_START is in its log */
    bool overdue;   /* of several calls one was not answered in time: it takes no more */
    bool maker, told; /* it makes a snapshot; it has said what came of it */
    bool restored;   /* it goes on from one */
    bool start_owed; /* START is not in its log yet: it is being restored */
    int64_t restore_us, hooks_us, init_us; /* restored: how long that took, and of it the function's hooks; maker: its init */
    int keys;        /* of versions with snapshots: our end of the socket to its keeper of credentials; -1: none */
    bool init_ahead; /* it loads the module without a call */
    struct list limit_link; /* functions.to_limit: its cpu limit is still to be set */
    int sock, log; /* -1: closed */
    int theirs[2]; /* our ends for it, until the zygote is asked; -1: gone */
    int handles;   /* uv handles not yet closed */
    uv_poll_t sock_poll, log_poll;
    uv_timer_t timer; /* the deadline of the call */
    struct call *call;
    struct buf in, out, line;
    size_t out_at;
    uint64_t frames, memory_kb;
    int64_t idle_since_us, asked_us, sampled_us;
    bool deadline_hit;
    bool stopping; /* told to end by itself; the timer runs */
    int grace_ms;  /* that it has for it */
    int fd_in; /* of one that is debugged: came, and its frame comes next; -1: none */
    /* of HTTP functions, and others that take several calls at once */
    struct list leases, dials;
    uint32_t leases_n, dials_n;
    int64_t active_us; /* since when there are leases */
    struct http_origin *origin;
    char stream[36];
    struct berth *berth; /* NULL: given back */
    char log_stream[80]; /* "" until its first line */
    struct list flood_link; /* functions.flooding: it printed more than it may */
    uint64_t log_left;   /* bytes that it may still print before the next tick */
    uint64_t log_thrown; /* bytes that nobody read */
};

/* The process that zygotes of one interpreter are forked from. */
struct base {
    struct list link; /* functions.bases */
    struct functions *fs;
    char *interpreter; /* of a Node's: program and memory */
    pid_t pid;         /* 0: a Node's, which was forked by the base of a Python */
    int fd;
    uv_poll_t poll;
    bool gone, up; /* up: it has forked, or told that it is there */
    bool node;
    struct base *maker; /* a Node's: the Python that forked it; NULL: that has gone */
    uint32_t slot;      /* a Node's, with its maker */
    int64_t used_us, since_us;
};

struct queue;
struct net;
struct durable;

struct functions {
    uv_loop_t *loop;
    char *state, *instance, *region, *account, *node_ip;
    char *access_key, *secret_key, *dns;
    void (*on_snapshot)(void *arg, const char *ns, const char *object, bool active, bool on, const char *code, const char *reason);
    void *snapshot_arg;
    function_keys_fn *keys_of; /* NULL: all have the above */
    void *keys_arg;
    int64_t renew_look_us; /* when keys were looked at last */
    int aws_port;
    char *driver, *library, *node_runtime, *root;
    int concurrency_max, waiting_max, scale_burst, scale_per_10s, keep_ms, zygote_keep_ms, stems;
    int retry_ms[2];
    struct cgroup_host cgroups;
    bool has_cgroups;
    struct net *net, *bare;   /* namespaces with a way out, and without; NULL: none */
    struct list net_waiters;  /* functions that wait for one of either */
    struct map by_key, families;
    struct list all, bases, wishes;
    struct http_client *http;   /* NULL: no HTTP function was called */
    struct image_store *images; /* NULL: nobody asked for one */
    struct map meters, spendings;
    int month; /* that the spendings are of */
    double price_gb_s, price_request;
    char currency[8];
    void (*on_state)(void *arg, const char *ns, const char *name);
    void *state_arg;
    void (*on_spending)(void *arg, const char *ns, const char *name, bool stopped, const char *text);
    void *spending_arg;
    bool meters_dirty;
    struct list slots[256]; /* instances by slot number */
    uint32_t slot_next, berth_next, id_next, busy, waiting;
    uint64_t version_next;
    char gone[64][40]; /* uids of those that were removed last: what is heard of them later is old */
    uint32_t gone_next;
    struct list to_limit;
    int64_t stems_mb, stems_mb_max; /* forecast.c: memory of all stems */
    /* evict.c */
    int evict_mb, evict_stall;
    void (*memory_of)(void *arg, struct functions_memory *ret);
    void *memory_arg;
    struct functions_memory memory; /* at the last look */
    int64_t looked_us, short_us;    /* short_us: when it was too little last; 0: not of late */
    uint32_t evicted_n[5];          /* not told yet: idle instances, stems, zygotes, provisioned, at work */
    bool evicted_for_pods;
    /* capacity.c */
    int64_t budget_kb, held_kb, grown_kb; /* budget 0: not known; held: at the last look, grown: since */
    int64_t shares;                       /* 0: not set yet */
    int64_t gave_us;                      /* when somebody went in favour of pods last; 0: never */
    uv_timer_t give;
    int64_t evicted_kb, evict_told_us;
    struct logs *logs; /* NULL: nobody wants to know */
    struct series *metrics; /* the same */
    struct functions_tracing tracing;
    int64_t sampled_s; /* the second in which the last call was sampled by X-Ray's rule */
    struct collector *collector; /* collect.c */
    struct list flooding;
    uv_timer_t flood;
    int null_fd;
    struct call *judged; /* set while its zygote starts; NULL after: it has been ended */
    uv_timer_t tick, refill;
    struct list gated; /* functions whose calls stand before their gates: the timer looks */
    uv_timer_t gate;
    struct gates gates;
    int64_t meter_written_us;
    pid_t *corpses; /* bases that were killed and are not reaped yet */
    uint32_t corpses_n, corpses_cap;
    struct queue *queue;
    struct durable *durable;
    bool stopping, cpu_strict, lazy_init;
    bool settled; /* who is not here is nowhere */
    uint32_t node_bases_n, node_base_next;
    int64_t node_rest_us; /* a base did not come up: until then Node's zygotes start on their own */
    int node_failures; /* zygotes of Node that did not come up, in a row: a machine's Node may not survive a fork */
    int64_t node_failed_us; /* the last of them */
    int handles;
    void (*stopped)(void *arg);
    void *stopped_arg;
};

static inline int64_t now_us(void)
{
    return (int64_t)(uv_hrtime() / 1000);
}
int64_t wall_ms(void);
/* "2026-01-02T15:04:05.123Z" */
const char *wall_text(int64_t ms, char out[32]);
char *function_put_number(char *at, int64_t v); /* decimal, at most 15 digits and a final 0; where that is */

/* function.c */
struct function *function_find(struct functions *fs, const char *namespace_, const char *name);
/* Who answers a call of name and qualifier (NULL, "$LATEST", a version, an alias: by its weights);
 * NULL: nobody. */
struct function *function_route(struct functions *fs, const char *namespace_, const char *name,
                                const char *qualifier);
/* Says so; while not all functions are known, that it is too early to say (UNAVAILABLE). */
void function_not_found(const struct functions *fs, const char *name, const char *qualifier, struct err *err);
void function_let_go(struct function *f); /* frees it when nothing holds it any more */
void functions_renew_keys(struct functions *fs); /* of those that run, when half of their time is over */
void functions_let_go(struct functions *fs); /* while stopping: frees when all is gone */
void version_let_go(struct version *v);   /* the same; then its function */
void version_retire(struct version *v);   /* no call goes to it any more: idle instances end now, busy ones when they are done */
void version_replace(struct function *f); /* what is to run from now on, by f->obj; what ran before retires */
bool version_same(const struct obj *a, const struct obj *b);     /* a change from a to b changes nothing of what instances are */
const struct val *version_spec(const struct obj *o);             /* what is to run, of a Function or a FunctionVersion; o's */
struct function *function_put_debug(struct function *head); /* makes head->family->debug, or gives it the object as it is now */
void function_drop(struct function *f); /* as if its object had been removed */
char *version_config(struct version *v, struct arena *a); /* JSON for the zygote */
/* The same for a Node of this version's program and memory that belongs to no function. code: a folder with nothing in it. */
char *node_base_config(const struct version *v, const char *code, struct arena *a);
void role_keys(struct version *v, struct arena *a, struct function_keys *ret); /* its credentials now; no access_key: none */
void role_put_keys(struct version *v, struct arena *a, struct val *env);         /* the same, into an environment */

/* net.c */
void functions_net_open(struct functions *fs, const char *pod_cidr, const char *service_cidr, bool has_node_ip); /* fs->net; NULL cidr: none */
bool functions_net_open_bare(struct functions *fs); /* fs->bare, if it is not there; false: it cannot be */
void functions_net_close(struct functions *fs);
void functions_net_trim(struct functions *fs); /* memory is short */
bool version_has_net(const struct version *v); /* its instances have one from a pool */
/* 1: a new berth of v will get its network; 0: its function is fed, or the refill comes, when there is one; -1: there will be none. */
int functions_net_ready(struct version *v, struct err *err);
int functions_net_take(struct version *v, const char *owner); /* a borrowed descriptor; -1: none is ready */
void functions_net_give(struct version *v, const char *owner, bool empty); /* empty: nobody is in it any more */

/* zygote.c */
void zygote_start(struct version *v);
void zygote_stop(struct version *v);
void node_bases_tick(struct functions *fs, int64_t now_us); /* those that nobody needed for long end, and those that do not come up */
bool zygote_base_needed(const struct base *b); /* a version's zygote is, or is being, forked from it */
void zygote_base_end(struct base *b);
/* Asks for a fork; the descriptors stay the caller's. */
int zygote_ask(struct version *v, const struct zygote_ask *ask, const int *fds, int fds_n,
               struct err *err);
void zygotes_reap(struct functions *fs);
void bases_stop(struct functions *fs); /* fs->handles counts them until they are closed */

/* instance.c */
/* In two steps, so that the first call lies in the socket before anything wakes up: made (it may
 * be sent to), then launched. -1: it ends by itself, a call sent to it is the caller's again. */
struct instance *instance_make(struct version *v, bool compiler, struct err *err);
int instance_launch(struct instance *i, struct err *err);
struct instance *instance_fork(struct version *v, bool compiler, struct err *err);
/* Sends the call. -1: the instance is dead, the call still the caller's. */
int instance_send(struct instance *i, struct call *c, const void *payload, size_t n);
void instance_kill(struct instance *i);
void instances_kill(struct version *v); /* all of them, by one message; where that cannot be sent, their zygote goes */
void instance_watch(struct instance *i); /* call.paused changed: reads its socket, or not */
void instance_read_log(struct instance *i); /* again, after it was stopped */
void instance_read_all(struct instance *i); /* what it has printed so far is in the log */
void instance_sample(struct instance *i);
void instance_leave_lists(struct instance *i);
void instance_unwatch(struct instance *i);
/* Sends a frame without bytes. */
void instance_frame(struct instance *i, const struct instance_frame *f);
/* Asks its program to end, and makes it after so long; 0: at once. */
void instance_stop(struct instance *i, int grace_ms);
void instance_exited(struct instance *i, int status, uint64_t cpu_us);
struct instance *instance_by_slot(struct functions *fs, uint32_t slot);

/* berth.c */
/* A free one, or a new one; the caller's until berth_give(). */
struct berth *berth_take(struct version *v, bool compiler, struct err *err);
/* empty: whoever lived in it has been reaped. */
void berth_give(struct version *v, struct berth *b, bool empty);
/* What was used in it since it was looked at last goes to the meter; b->killed tells of want of memory. */
void version_sample(struct version *v);
void berth_sample(struct version *v, struct berth *b);
/* The limit on CPU that counts when the module is loaded; wants: there is one. */
void berth_limit(struct version *v, struct berth *b);
bool berth_wants_limit(const struct version *v, const struct berth *b);
bool berths_refill(struct version *v); /* makes one ahead; true: there is more to make */
void berths_trim(struct version *v, bool all);

/* snapshot.c */
bool snapshot_usable(const struct version *v);  /* instances go on from it */
bool snapshot_awaited(const struct version *v); /* it is to be made first: nobody is forked before */
int snapshot_limit_ms(const struct version *v); /* for the initialisation */
void snapshot_make(struct version *v);          /* when it is wanted and there is a zygote */
void snapshot_rest(struct version *v);          /* its zygote goes: the image stays, when there is room for that */
void snapshot_drop(struct version *v);          /* the image goes; it is made again when it is needed */
bool snapshot_frame(struct instance *i, const struct instance_frame *f, const char *body); /* false: that is none of it */
void snapshot_exited(struct instance *i, int status, bool oom);
bool snapshot_broke(struct instance *i, int status); /* true: it ended while it was restored, by no fault of the call */
void snapshot_late(uv_timer_t *t);
int snapshot_keys_open(struct instance *i, struct err *err);
void snapshot_keys_renew(struct version *v);
void snapshot_env(struct version *v, struct arena *a, struct val *env);

/* forecast.c */
void forecast_seen(struct function *f);                /* one more call is under way */
void forecast_start(struct version *v, int64_t us);    /* what a start was seen to cost */
void forecast_look(struct functions *fs);              /* fs->memory was read anew */
int forecast_stems(const struct version *v);           /* how many should be there now */

/* evict.c */
void evict_look(struct functions *fs); /* at the machine's memory, now and then, while there is anything to let go */
/* Lets so much go in favour of pods; all: also what is provisioned, and calls at work when memory is short. False: nobody
 * went, nor is going. */
bool evict_for_pods(struct functions *fs, int64_t kb, bool all);
bool evict_anyone(const struct functions *fs); /* is anybody going, or idle that may go? */
/* Megabytes that should be let go; 0: none. The marks are those of functions_options. */
int64_t evict_want_mb(const struct functions_memory *m, int mark_mb, int stall_percent);
/* How long until the next call of a function that has been quiet for so long, by its gaps. */
int64_t evict_wait_us(const struct meter *m, int64_t quiet_us);

/* capacity.c */
void capacity_look(struct functions *fs);
void capacity_again(struct functions *fs); /* looks again soon */
bool capacity_room(const struct version *v); /* for one more instance */
bool capacity_ahead(const struct version *v); /* and for one that nobody has called for */
void capacity_grew(struct version *v);       /* there is one */
void capacity_wait(struct version *v);       /* a call waits for room */
void capacity_tell(const struct functions *fs, struct arena *a, struct val *top); /* for the meter */
bool capacity_refuses(const struct version *v); /* a call would wait for nobody */

/* rate.c: a bucket that holds burst and gains per_10s in ten seconds; now in us, never 0 */
bool rate_has(const struct rate *r, int burst, int per_10s, int64_t now);
void rate_take(struct rate *r, int burst, int per_10s, int64_t now); /* one; it was there, or is owed */
uint32_t rate_in(const struct rate *r, int burst, int per_10s, int64_t now, int s); /* that can be had in s seconds */
bool function_may_grow(const struct version *v); /* one more instance may begin to answer calls */
void function_grew(struct version *v);           /* it does */
bool function_grows_too_fast(const struct version *v); /* one more call is not to wait for that */

/* scale.c: functions that are annotated for Knative's autoscaler; the others: nothing, 0, false */
void scale_read(struct function *f); /* f->obj or f->now is new */
void scale_done(struct function *f);
void scale_seen(struct function *f, int calls); /* so many came (1), or ended (-1) */
void scale_tick(struct function *f, int64_t now);
bool scale_full(const struct version *v); /* there may not be more instances */
int scale_wanted(const struct function *f); /* instances that there should be */
int scale_owed(const struct function *f);   /* that may not be fewer */
void scale_tell(const struct function *f, struct arena *a, struct val *o); /* for the meter */

/* pool.c */
int pool_wanted(const struct version *v); /* instances that are kept: provisioned, or what scale.c says */
int pool_owed(const struct version *v);   /* those of them that are kept whatever comes */
bool pool_gated(const struct version *v); /* its calls are short: few of them run at once */
void pool_feed(struct function *f); /* something became free: serve who waits */
void pool_fail_waiting(struct function *f, const struct err *err);
/* The call was sent, but nothing of it was run: back to the front of the waiting room. */
void pool_again(struct call *c);
void pool_finish(struct instance *i, struct call *c, struct function_result *r);
void pool_end(struct call *c, struct function_result *r); /* done is called, the call is freed */
void pool_refuse(struct call *c, const struct err *err);
void pool_tick(struct functions *fs);
/* There is something to look after by the clock: the tick runs until there is nothing any more. */
void pool_wake(struct functions *fs);
void pool_refill_soon(struct functions *fs);
void pool_refill(struct functions *fs);

/* durable/call.c */
int functions_durable_open(struct functions *fs, struct err *err);
void functions_durable_close(struct functions *fs);
/* A call of a durable function: an execution begins, done hears of its end (of its start when it is an event). */
uint64_t durable_call(struct function *f, const struct function_call *c, function_done_fn *done, void *arg);
void durable_event(struct function *f, const struct function_call *c, function_queued_fn *done, void *arg);
bool durable_has_ticket(uint64_t ticket);
void durable_call_forget(struct functions *fs, uint64_t ticket);

/* image.c */
/* 1: the image is there; 0: it is being pulled, zygote_start() is called when it is there; -1: it is not to be had. */
int version_image(struct version *v, struct err *err);
void version_image_config(struct version *v, struct arena *a, struct val *config, struct val *env);
void version_image_cancel(struct version *v);
void version_image_done(struct version *v);
void function_image_release(struct function *f); /* it goes: nothing is held for it any more */
void functions_images_cancel(struct functions *fs);
void functions_images_close(struct functions *fs);

/* unpack.c */
/* 1: v->folder and those of its layers are there; 0: they are being unpacked, zygote_start() is called then, or who waits is told
 * that it went wrong; -1. */
int version_code(struct version *v, struct err *err);

/* wasm.c */
int wasm_check(struct err *err); /* is there a library on this machine? */
/* 1: there is machine code of its module; 0: not yet; -1: the module is refused. */
int version_wasm(struct version *v, struct err *err);
void version_wasm_config(struct version *v, struct arena *a, struct val *config);
void version_wasm_settled(struct version *v); /* its zygote is up, or has ended before it was */

/* serve.c: places, and HTTP functions */
/* More calls than one at a time, in frames: they are i->leases, and i->call is NULL. */
static inline bool instance_shared(const struct instance *i)
{
    return i->v->places > 1 && !i->v->http_port;
}
void place_take(struct instance *i, struct call *c);
void place_give(struct call *c); /* it has one; the instance may end here, when it was retired */
void serve_take(struct instance *i, struct call *c);
bool serve_forget(struct call *c); /* true: the call stood in an instance, it is the caller's to end */
void serve_drop(struct instance *i);
bool serve_read(struct instance *i);
void serve_exited(struct instance *i, int status);
void serve_dial(struct instance *i, function_dialed_fn *fn, void *arg); /* of one that is debugged */
bool serve_dialed(struct instance *i, uint64_t id, bool made, int fd); /* takes fd. False: it is not what it may be, or not asked for */
void serve_dials_end(struct instance *i);
int serve_grace_ms(const struct instance *i);

/* flog.c */
const char *flog_group(struct version *v);
const char *function_own_name(const struct function *f); /* the one its owner knows: not every name can be an object's */
const char *flog_stream(struct instance *i);
void flog_text(struct instance *i, const char *text, size_t n); /* a line that the function printed */
void flog_start(struct instance *i, struct call *c);
void flog_init_start(struct instance *i);
void flog_init_report(struct instance *i, const char *status); /* of i->init_us; status NULL: it went well */
void flog_restore_start(struct instance *i);
void flog_restore_report(struct instance *i); /* of i->restore_us */
void flog_note(struct instance *i, struct call *c, const char *text, const char *tail); /* the platform's, on a call that went wrong */
void flog_report(struct instance *i, struct call *c, const struct function_result *r, int64_t handler_us, uint64_t billed_ms);
void tail_add(struct call *c, const char *text, size_t n);
/* Printing without end: what is over its share is thrown away unread. True: it may not be read now. */
bool flog_flooded(struct instance *i, size_t n);
void collector_start(struct functions *fs);
void collector_stop(struct functions *fs);
void flog_unflood(struct instance *i); /* before the end of a call is read: what is too much goes, the rest is read */
void flog_tick(struct functions *fs);
enum { LOG_BURST = 4 << 20, LOG_PER_TICK = 1 << 20 };

/* debug.c */
bool debug_is_node(const struct version *v);
int debug_port(const struct version *v); /* on the sandbox's loopback */
void debug_config(struct version *v, struct arena *a, struct val *config, struct val *env);
struct function *debug_of(struct functions *fs, const char *ns, const char *name); /* NULL: nobody debugs it */
bool debug_wanted(const struct function *head, const struct function_call *q); /* somebody debugs it, this call is for him */
void debug_end(struct function *f);

/* trace.c */
/* Where a call of v stands; text is what its function is given. to_queue: it is an event that is kept for later. */
void trace_begin(struct function_trace *t, const struct version *v, const struct function_call *q, bool to_queue, char text[TRACE_TEXT_MAX]);
/* What will be told of it; NULL when nothing will. Then: its result (NULL: none), and its end, which frees it. */
struct function_span *trace_span(const struct function_trace *t, const struct version *v, const struct function_call *q);
void trace_span_result(struct function_span *s, const struct function_result *r);
void trace_span_end(struct functions *fs, struct function_span *s);
struct function_span *trace_span_free(struct function_span *s);

/* spend.c */
struct spending *spending_of(struct functions *fs, const char *key);
double spending_cost(const struct functions *fs, const struct spending *s);
void spending_limit(struct functions *fs, const char *key, double limit); /* -1: none any more */
void spending_count(struct function *f, uint64_t gb_us); /* a call has ended */
void spending_use(struct function *f, uint64_t gb_us);   /* billed beside calls */
bool spending_stops(struct function *f, struct err *err);
void spending_tick(struct functions *fs);
bool spending_waits(const struct functions *fs); /* somebody is stopped until the month ends */
struct val *spendings_val(struct functions *fs, struct arena *a);
void spendings_read(struct functions *fs, const struct val *list);
void spendings_free(struct functions *fs);

/* meter.c */
struct meter *meter_of(struct functions *fs, const char *key);
void meters_read(struct functions *fs);
void meters_write(struct functions *fs, bool durable);
void meters_free(struct functions *fs);
void meter_call(struct function *f, const struct function_result *r, int64_t handler_us,
                uint64_t billed_ms, uint64_t memory_kb, const char *alias_series);
void meter_throttle(struct function *f, const char *qualifier);
/* The key of the metrics of its calls that came by an alias; NULL: that is none. The caller's. */
char *meter_alias(struct function *f, const char *qualifier);
/* An instance of an HTTP function had somebody in it for so long. */
void meter_active(struct function *f, int64_t us, uint64_t billed_ms);
int gap_bin(uint64_t ms);
