/* function/function.h - functions that start per request and are gone when nobody calls.
 *
 * One `struct functions` lives in the gateway process. It knows every Function (fed by the mirror
 * of tandem.dev/v1 functions, or directly), keeps for each one a pool of sandboxed instances that
 * are forked from the function's zygote, and decides in memory, next to the request, whether an
 * idle instance answers, a new one starts, or the request waits. Nothing of that passes through
 * the store.
 *
 * Thread: the loop that made it, for every call and every callback.
 *
 * What is read of a Function object (kind tandem.dev/v1 Function, namespaced):
 *   spec.runtime              "python3.11" (python3.10 .. python3.13 where the host has it), "nodejs20.x" (18 and
 *                             later, by the host's node), "provided.al2023" (the zip's or a layer's `bootstrap`), "wasm" (spec.handler: the file of a module or component; with spec.http one that exports wasi:http/incoming-handler)
 *   spec.handler              "module.function"
 *   spec.codeSha256           hex; the zip lies in STATE/blobs/sha256/HEX (code.h puts it there)
 *   spec.memoryMB             default 128; 1,769 = one CPU
 *   spec.timeoutSeconds       1 .. 900, default 3
 *   spec.environment          map of strings
 *   spec.ephemeralStorageMB   size of /tmp, default 512
 *   spec.fileSystems[]        {volume: NAME, localMountPath: /mnt/..., readOnly: bool}
 *   spec.packageType          "Image": the code is spec.image (a name; spec.imageDigest, "sha256:...", pins what it was),
 *                             spec.imageConfig {entryPoint[], command[], workingDirectory} replaces what the image
 *                             says; runtime, handler and layers do not count then
 *   spec.http                 {port (8080), concurrency (80), command[]}: a program that listens on $PORT; a zip's is
 *                             command (or its bootstrap), an image's what the image says
 *   spec.concurrency          calls at once in an instance (default 1, at most 800; the runtime finds AWS_LAMBDA_MAX_CONCURRENCY)
 *   spec.snapStart            "PublishedVersions": of a FunctionVersion, Python: instances go on from a snapshot (snapshot.c)
 *   spec.layers[]             {codeSha256}: zips that lie over each other in /opt, at most 5
 *   spec.loggingConfig        {logFormat: Text|JSON, logGroup, applicationLogLevel, systemLogLevel}
 *   spec.reservedConcurrency  absent: shares the account's; 0: every call is throttled
 *   spec.tracingMode          "Active", "PassThrough": function/trace.h
 *   spec.spendingLimit        of a month (UTC), in the currency of the prices: calls are refused from there on
 *   spec.retries              of events: 0..2, default 2
 *   spec.maximumEventAgeSeconds  default 21,600
 *   spec.events[]             {qualifier, retries, maximumEventAgeSeconds, onSuccess, onFailure}: of events sent
 *                             to that qualifier ("$LATEST" too); a destination is {function, qualifier} or {bucket}
 *   spec.deadLetterTo         the same for the bare event that failed for good
 *   spec.durable              {executionTimeoutSeconds, retentionDays, kmsKey}: a call begins a durable execution (durable.h)
 *   spec.aliases[]            {name, version, additionalVersions[] {version, weight 0..1}}
 *   spec.provisioned[]        {qualifier, instances}: kept loaded for that version or alias */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "codec/val.h"
#include "function/trace.h"

struct uv_loop_s;
struct logs;
struct series;
struct obj;
struct functions;

enum {
    FUNCTION_PAYLOAD_MAX = 6 * 1024 * 1024,       /* request and response of a waiting call */
    FUNCTION_PAYLOAD_ASYNC_MAX = 1024 * 1024,     /* of an event */
    FUNCTION_STREAM_MAX = 200 * 1024 * 1024,      /* of an answer that streams */
    FUNCTION_LOG_TAIL_MAX = 4096,
    FUNCTION_LAYERS_MAX = 5,
    FUNCTION_ID_MAX = 40, /* a request id: a UUID and its final 0 */
};

/* What the machine has: available without swapping, and the share of the last seconds in which somebody waited for
 * memory (PSI, "some avg10"; -1: this kernel does not tell). */
struct functions_memory {
    int64_t total_mb, available_mb;
    double stall_percent;
};

/* What the pods that are bound to this machine leave of it: what can be given out, less what they ask for. */
struct functions_capacity {
    int64_t memory_mb, cpu_milli;
};

struct functions_options {
    struct uv_loop_s *loop;
    const char *state;       /* the state directory */
    const char *instance;    /* short id in names of cgroups; NULL: from the state path */
    const char *runtime_dir; /* holds driver.py and zygote.so; NULL: beside the program */
    const char *region;      /* NULL: us-east-1 */
    const char *account;     /* NULL: 000000000000 */
    const char *node_ip;     /* where instances reach this machine's doors; NULL: 127.0.0.1 */
    int concurrency_max;     /* instances at work in all; 0: 1,000 */
    int scale_burst;         /* new instances that a function may take up at once; 0: 1,000 */
    int scale_per_10s;       /* and in ten seconds from then on; 0: 1,000 (no limit with keep_ms -1); -1: no limit */
    int waiting_max;         /* requests that wait in all; 0: 10,000 */
    int keep_ms;             /* an idle instance goes after this; 0: 10,000; -1: each answers one call only */
    int zygote_keep_ms;      /* a zygote without instances goes after this; 0: 60,000 */
    int stems;               /* sandboxes forked ahead per active function; -1: none, 0: 1 */
    int cores;               /* that functions run on; 0: as many as there are; -1: short calls have no gate (gate.h) */
    bool lazy_init;          /* those do not load the module before a call comes */
    int retry_ms[2];         /* waits before the 2nd and 3rd try of an event; 0: 60,000, 120,000 */
    bool cpu_strict;         /* never more CPU than memoryMB / 1,769, even when the machine is idle */
    const char *pod_cidr;    /* NULL: instances have no network, not even a loopback */
    const char *service_cidr;
    /* Spending limits (spec.spendingLimit, functions_limit_namespace()): prices, and who is told when a function (name
     * NULL: a namespace) is stopped at its limit or served again. May come from inside any call: it must not call back. */
    double price_gb_s, price_request;
    const char *currency;    /* NULL: USD */
    /* What functions_wasm_state() says of a function has changed. NULL: nobody wants to know. */
    void (*on_state)(void *arg, const char *namespace_, const char *name);
    void *state_arg;
    void (*on_spending)(void *arg, const char *namespace_, const char *name, bool stopped, const char *text);
    void *spending_arg;
    /* What came of a published version's snapshot (object: the FunctionVersion's name): it can be called or not, starts
     * from the snapshot (on) or not, and why not. May come from inside any call: it must not call back. */
    void (*on_snapshot)(void *arg, const char *namespace_, const char *object, bool active, bool on, const char *code, const char *reason);
    void *snapshot_arg;
    struct series *metrics; /* where calls are counted by the minute; outlives them. NULL: nowhere */
    struct logs *logs;       /* where what functions print goes; outlives them. NULL: nowhere */
    int evict_mb;            /* with less memory available idle processes go; 0: a twentieth, at most 1,024; -1: never */
    int evict_stall;         /* percent of stalls at which twice that counts; 0: 10; -1: never */
    void (*memory)(void *arg, struct functions_memory *ret); /* NULL: functions_memory() */
    void *memory_arg;
    int aws_port;            /* of the AWS door, for AWS_ENDPOINT_URL; 0: none */
    struct functions_tracing tracing;
    bool events_wait;        /* functions_settled() will be said. Events of the queue run after it, and who is not found before it is
                              * UNAVAILABLE; else those of an earlier life wait a second */
};

/* Where instances reach this machine's doors; good as long as fs. */
const char *functions_node_ip(const struct functions *fs);
/* Makes STATE's sub-directories, reads the meter and the queue of events that are still owed.
 * NULL and err when the state directory cannot be used. Options are copied. */
struct functions *functions_new(const struct functions_options *o, struct err *err) _must_check_;
/* Fails what waits (UNAVAILABLE), kills instances and zygotes, writes the meter, removes the
 * cgroups, frees; `stopped` (may be NULL) is called when all of it is done. */
void functions_stop(struct functions *fs, void (*stopped)(void *arg), void *arg);

/* The object as it is now. Older than what is known (by revision): ignored, so a door may hand in
 * what its own write answered before the mirror hears of it. A changed code or configuration
 * takes effect with the next request; requests at work end on the old instance. */
void functions_put(struct functions *fs, const struct obj *o);
void functions_remove(struct functions *fs, const char *namespace_, const char *name);
/* Every function and version that there is was put: from now on an event for one that is not known is nobody's. */
void functions_settled(struct functions *fs);
/* Was it said? Before, a function that is not known may be one that exists. */
bool functions_all_known(const struct functions *fs);
/* From now on code that nothing refers to is removed (code.h). others: adds what objects refer to that are not put here
 * (layers), by its sha256; false: that is not known yet. Say so when all functions are known. */
typedef bool functions_code_fn(void *arg, void (*use)(void *use_arg, const char *sha256), void *use_arg);
void functions_collect_code(struct functions *fs, functions_code_fn *others, void *arg);
/* A published version (kind tandem.dev/v1 FunctionVersion: spec.function, spec.version, spec.template
 * as a Function's spec). What of a Function is read beside that: spec.aliases[] {name, version,
 * additionalVersions[] {version, weight}}, spec.provisioned[] {qualifier, instances}. */
void functions_put_version(struct functions *fs, const struct obj *o);
void functions_remove_version(struct functions *fs, const struct obj *o);
/* What functions may hold from now on; NULL: it is not known, only the machine's memory counts. More than that is let go
 * at once (capacity.c). */
void functions_set_capacity(struct functions *fs, const struct functions_capacity *c);
/* The spending limit of all functions of a namespace together; -1: none. */
void functions_limit_namespace(struct functions *fs, const char *namespace_, double limit);
/* Provisioned instances of a version or an alias that are loaded and free or at work. */
int functions_provisioned(const struct functions *fs, const char *namespace_, const char *name, const char *qualifier);
/* AWS credentials that instances find in their environment; for zygotes that start from now on.
 * NULL: none. Copied. */
void functions_set_key(struct functions *fs, const char *access_key, const char *secret_key);
/* Keys of their own for functions with a role, asked for when a zygote starts; replaced when half of their time
 * is over, and by functions_role_changed(). Parts of ret lie in the arena or outlive it; without an access_key the
 * function has none. false: nothing is known of that role, the function has what functions_set_key() said. */
struct function_keys {
    const char *access_key, *secret_key, *session_token;
    int64_t seconds; /* how long they are good; 0: for ever */
};
typedef bool function_keys_fn(void *arg, struct arena *a, const char *role, const char *function, struct function_keys *ret);
void functions_set_keys_of(struct functions *fs, function_keys_fn *keys_of, void *arg);
/* Functions with this role (NULL: those that have no keys) start anew with the keys that are theirs now. */
void functions_role_changed(struct functions *fs, const char *role);
/* NOT_IMPLEMENTED with a text for the user when this machine cannot run it. */
int function_runtime_check(const char *runtime, struct err *err) _must_check_;
/* An image by its name: found on this machine or pulled. done is called once, perhaps before this returns; digest
 * ("sha256:...") is NULL when it is not to be had, err says why then. */
typedef void function_image_fn(void *arg, const char *digest, int64_t bytes, const struct err *err);
void function_image_find(struct functions *fs, const char *ref, function_image_fn *done, void *arg);
/* Says again (on_snapshot) what came of each version's snapshot, for who could not note it when it was said. */
void functions_retell_snapshots(struct functions *fs);
/* Of a function of packageType Image: 1 its image is here, 0 it is on its way, -1 with err: it is not to be had
 * (asked for again after some seconds). 1 for others. */
int functions_image_state(struct functions *fs, const char *namespace_, const char *name, struct err *err);
/* Of a function of runtime wasm: 1 its module is compiled, 0 not yet (it is seen to; ask again, or wait for
 * options.on_state), -1 with err: it is refused. 1 for others. */
int functions_wasm_state(struct functions *fs, const char *namespace_, const char *name, struct err *err);
/* Names that are known, e.g. for a listing; false: unknown. */
bool functions_known(const struct functions *fs, const char *namespace_, const char *name);
/* The object that functions_put() brought last, borrowed until the next call; NULL: unknown. */
const struct obj *functions_get(const struct functions *fs, const char *namespace_,
                                const char *name);
/* The FunctionVersion objects of a function, lowest number first; the array lies in the arena, the
 * objects are borrowed until the next call. */
const struct obj **functions_versions(const struct functions *fs, struct arena *a, const char *namespace_,
                                      const char *name, size_t *ret_n);

/* A caller that takes an answer in pieces, as the function makes it. Called before done with the call's
 * arg: begin once, then data any number of times; p is borrowed. A function that answers at once
 * calls neither. Who cannot keep up says so with function_pause(). */
struct function_stream {
    void (*begin)(void *arg, const char *content_type, const char *version); /* "" when the function named none */
    void (*data)(void *arg, const char *p, size_t n);
};

struct http_origin;
/* A place in an instance of an HTTP function: requests go to o (http/client.h) until function_leave(). May come from
 * inside function_invoke(). When there is none to be had done is called instead. t: has a span of its own only when the
 * request's headers are to name it; borrowed for the call. */
typedef void function_place_fn(void *arg, struct http_origin *o, const struct function_trace *t);

/* One call. All of it is copied (or sent) before function_invoke() returns. */
struct function_call {
    const char *namespace_; /* NULL: default */
    const char *name;
    const char *qualifier; /* a version ("3"), an alias; NULL or "$LATEST": the unpublished one */
    const void *payload; /* JSON; n = 0 stands for {} */
    size_t n;
    const char *client_context; /* JSON text, or NULL */
    const char *arn;            /* as the caller named it; NULL: made from the name */
    const struct http_req *req; /* that it came by, or NULL: its trace headers count; with FUNCTION_BY_HTTP its span tells of it */
    const char *trace_id;       /* X-Amzn-Trace-Id, where it is not req's; or NULL */
    const char *tracestate;     /* the same */
    enum function_trigger trigger;
    bool event;                 /* it comes from the queue */
    bool debug;                 /* for the instance that is debugged, while there is one */
    const char *request_id;     /* a UUID; NULL: a fresh one */
    bool log_tail;              /* the result wants the last 4 KiB of log */
    const struct function_stream *stream; /* NULL: the answer in one piece. Borrowed, for good */
    function_place_fn *place;   /* not NULL: a place in an HTTP function, payload does not count */
    const char *execution;      /* of a durable function: the execution's name; NULL: it gets one */
    const char *delivery;       /* of an event that is made again when its making was cut off: the same for each making. A durable
                                 * function begins one execution of them; or NULL */
    bool of_execution;          /* one invocation of an execution that runs (durable.h), not a new one */
};

/* What came of it; everything is borrowed for the time of the callback.
 * err.code == ERR_OK: the function ran (or tried to); function_error then tells whether it failed.
 * Otherwise it never ran:
 *   NOT_FOUND        no such function                       ResourceNotFoundException
 *   TOO_MANY         concurrency limit or waiting room full TooManyRequestsException
 *                    (throttle_reason is set)
 *   TOO_LARGE        payload                                RequestEntityTooLargeException
 *   INVALID_ARGUMENT payload is not JSON                    InvalidRequestContentException
 *   NOT_IMPLEMENTED  a runtime this machine lacks           InvalidRuntimeException
 *   UNAVAILABLE      stopping, code missing, out of room    ServiceException */
/* Who answered: the higher, the more had to be made for this call. */
enum function_rung {
    FUNCTION_WARM,    /* an instance that had answered before */
    FUNCTION_STEM,    /* one that was forked ahead */
    FUNCTION_ZYGOTE,  /* forked from the version's zygote for this call */
    FUNCTION_RUNTIME, /* the zygote too was made, from the runtime's own */
    FUNCTION_FRESH,   /* a program had to be started: the runtime's own zygote, or a runtime that cannot be forked */
    FUNCTION_RUNGS
};
extern const char *const function_rung_names[FUNCTION_RUNGS];

struct function_result {
    struct err err;
    const char *error_type;      /* err: Lambda's name of it where the code does not tell (SnapStartException, ...); or NULL */
    const char *throttle_reason; /* ReservedFunctionConcurrentInvocationLimitExceeded, ... */
    const char *function_error;  /* NULL, or "Unhandled" */
    bool streamed;               /* the answer went to stream.data; payload is only that of an error */
    const char *content_type;    /* of an answer that was streamed and collected; else NULL */
    const char *payload;         /* the answer's JSON, or the error's; ends in 0 */
    size_t n;
    const char *log_tail; /* plain text; NULL when not asked for */
    size_t log_tail_n;
    const char *request_id;
    const char *version; /* "$LATEST" */
    const char *durable_arn; /* of the durable execution that it was; NULL: none */
    bool cold;           /* a new instance answered */
    enum function_rung rung;
    /* Where its time went, one after the other: queue, place, then duration = start + init + handler + the
     * rest (the way to the instance and back). What the instance itself tells is cut to the time it had. */
    int64_t queue_us;    /* waited, with nobody yet to answer */
    int64_t place_us;    /* who answers was found or made ready, up to the request being sent; a zygote's start too */
    int64_t start_us;    /* sent to sandbox ready, 0 when warm or forked ahead */
    int64_t init_us;     /* import of the handler, 0 when warm */
    int64_t handler_us;  /* the handler, as the runtime in the instance saw it */
    int64_t duration_us; /* request sent to answer read */
    const struct function_trace *trace; /* NULL: it came to no function */
    const char *trace_text; /* in X-Ray's form, for who comes after */
    struct function_span *span; /* NULL: not sampled. The caller may set what it answered: span->status */
};
/* "rung=stem;queue=0;place=3;fork=0;init=0;handler=12;answer=40;total=55;cold=1", times in us: answer is
 * what is left of the whole, so the six add up to the total. */
enum { FUNCTION_TIMING_MAX = 200 };
void function_timing_text(const struct function_result *r, char out[FUNCTION_TIMING_MAX]);
typedef void function_done_fn(void *arg, const struct function_result *r);

/* Calls done exactly once, perhaps before it returns (what is known to fail at once). The ticket
 * is for function_forget(), good until done is called; 0: it was called already. */
uint64_t function_invoke(struct functions *fs, const struct function_call *call,
                         function_done_fn *done, void *arg);
/* The caller has gone: done will not be called. The function runs to its end, as on Lambda; a
 * request that still waits is dropped. */
void function_forget(struct functions *fs, uint64_t ticket);
/* Gives a place back (after on_place, which function_forget() does not undo). ok: it answered; status: with what, 0: not known. */
void function_leave(struct functions *fs, uint64_t ticket, bool ok, int status);
/* A call with a stream, that has begun: its pieces stop (soon) or come again. */
void function_pause(struct functions *fs, uint64_t ticket, bool pause);

/* An event: the callback comes when it is on disk (ERR_OK: it will be run at least once, whatever
 * is killed in between) or was refused. Two more tries when the function fails. */
typedef void function_queued_fn(void *arg, const struct err *err, const char *request_id);
void function_invoke_async(struct functions *fs, const struct function_call *call,
                           function_queued_fn *done, void *arg);

/* Durable executions (function/durable/durable.h); NULL before functions_new() is through. */
struct durable;
struct durable *functions_durable(struct functions *fs);
/* Of what name and qualifier mean: the seconds that an execution of it may last; 0: it is no durable function. */
int function_durable_s(struct functions *fs, const char *namespace_, const char *name, const char *qualifier);

/* ---- debugging: function/debug.c ---- */

enum { FUNCTION_TOKEN_MAX = 33 };
/* From now on one more instance runs under a debugger: debugpy (from STATE/debug/RUNTIME/, where the caller put it) or Node's
 * inspector. Calls with function_call.debug, and those of requests with the header x-tandem-debug: TOKEN, go there and have
 * no time limit; all others go on as always. NOT_FOUND, ALREADY_EXISTS, NOT_IMPLEMENTED. Good for the function's $LATEST. */
int functions_debug_begin(struct functions *fs, const char *namespace_, const char *name, char ret_token[FUNCTION_TOKEN_MAX],
                          struct err *err) _must_check_;
/* The instance goes, with what stands at a breakpoint. */
void functions_debug_end(struct functions *fs, const char *namespace_, const char *name);
/* A connection to the debugger: done is called once, perhaps from inside; fd: the callee's from there on, -1: it does not
 * listen (yet). */
typedef void function_dialed_fn(void *arg, int fd);
void functions_debug_dial(struct functions *fs, const char *namespace_, const char *name, function_dialed_fn *done, void *arg);

/* As the kernel tells it; arg does not count. */
void functions_memory(void *arg, struct functions_memory *ret);

/* JSON for the admin socket: {"functions":[{...}]}; see README.md for the fields. */
void functions_meter_json(struct functions *fs, struct buf *out);
/* The same counters for Prometheus (text format 0.0.4). */
void functions_meter_prometheus(struct functions *fs, struct buf *out);
void functions_instances_json(struct functions *fs, struct buf *out);
/* The log group of a function (of its $LATEST), for logs_query(); in the arena. NULL: no such function. */
const char *functions_log_group(struct functions *fs, struct arena *a, const char *namespace_, const char *name);
