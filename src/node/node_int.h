/* node/node_int.h - inside the node room.
 *
 * A pod here is a level-triggered thing: pod_poke() says "look again", pod_sync() looks at the
 * API's object, at what runs, and does the next steps; whatever finishes later pokes again. Nothing
 * below blocks the loop for long: pulls, tokens, probes and everything the shim does come back as
 * callbacks. */
#pragma once

#include <uv.h>

#include "base/arena.h"
#include "base/buf.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "client/client.h"
#include "codec/obj.h"
#include "image/image.h"
#include "network/network.h"
#include "node/access.h"
#include "node/node.h"
#include "sandbox/cgroup.h"
#include "sandbox/spec.h"

enum { NAME_BYTES = 256 };
enum { BACKOFF_FIRST_MS = 10000, BACKOFF_MAX_MS = 300000, BACKOFF_CALM_MS = 600000 };

struct slink;
struct pod;

/* ---- the process ------------------------------------------------------------------------------
 */

struct node {
    struct node_options o;
    uv_loop_t loop;
    struct env *env;
    struct http_client *http;
    struct http_server *server;
    struct client *client;
    struct cgroup_host cgroups;
    struct image_store *images;
    struct net *net; /* NULL: no network of our own */
    struct mirror *pods, *configmaps, *secrets, *services, *nodes;
    struct lease *lease;
    struct env_timer *beat, *meter, *sweep;
    uv_signal_t sig[2];

    struct map by_uid; /* struct pod */
    struct list all;   /* struct pod.link */
    struct list dirty; /* struct pod.dirty: wait for pod_sync() */
    bool dirty_posted, leaving, synced, registered;
    char *shim; /* path of tandem-shim */
    char host_ip[64];
    int64_t memory_bytes, cpu_n, boot_ms;
    char machine_id[64], boot_id[64];
    bool node_write_busy, node_dirty;
    uint32_t pods_started;
    struct proxy *proxy;
};

int64_t mono_ms(struct node *n);

/* register.c: the Node object, its status and lease */
int node_register_start(struct node *n, struct err *err);
void node_status_poke(struct node *n); /* images or conditions changed */
/* This machine's own address that others reach it by. */
void node_host_ip(char out[64]);

/* stats.c */
void stats_start(struct node *n);
struct val *stats_summary(struct node *n, struct arena *a);

/* proxy.c: services and DNS from the API's objects into src/network */
int proxy_start(struct node *n, struct err *err);
struct net *network_open(struct node *n, struct err *err);
int network_teardown(const char *state, const char *instance, const char *pod_cidr,
                     const char *service_cidr, struct err *err);
void proxy_pod_ports(struct node *n, struct pod *p, bool there); /* hostPort */

/* ---- talking to a shim (link.c) -----------------------------------------------------------------
 */

/* answer NULL: the connection was lost. fd: what came with the answer, the callee owns it (-1). */
typedef void slink_fn(void *arg, const struct val *answer, int fd);
struct slink_events {
    void (*event)(void *arg, const struct val *v);
    void (*closed)(void *arg); /* the link is dead; free it */
    void *arg;
};
struct slink *slink_new(uv_loop_t *loop, int fd, const struct slink_events *ev); /* takes fd */
void *slink_free(struct slink *l); /* calls under way end with NULL first */
/* v gets its id; fds stay the caller's. fn comes exactly once, never inside this call. */
void slink_call(struct slink *l, struct arena *a, struct val *v, const int *fds, int fds_n,
                slink_fn *fn, void *arg);
struct val *slink_verb(struct arena *a, const char *name, const char *container);
/* The error text and errno of an answer with ok false. */
void slink_error(const struct val *answer, struct err *err);

/* ---- containers
 * ---------------------------------------------------------------------------------- */

enum ctr_kind { CTR_INIT, CTR_SIDECAR, CTR_MAIN, CTR_EPHEMERAL };
/* WAITING (why) -> PULLING -> WAITING -> STARTING -> RUNNING -> EXITED -> WAITING (back-off) ... */
enum ctr_state { CTR_WAITING, CTR_PULLING, CTR_STARTING, CTR_RUNNING, CTR_EXITED };

struct ctr_run { /* one life of a container */
    bool there;
    int attempt;
    int64_t pid, started_ms, finished_ms;
    int code, signal;
    bool oom;
    char reason[32];
    char *message; /* owned */
};

enum probe_kind { PROBE_STARTUP, PROBE_LIVENESS, PROBE_READINESS, PROBES };
struct probe {
    struct ctr *c;
    enum probe_kind kind;
    struct env_timer *timer, *limit;
    bool there, busy, ok;
    int passed, failed;
    struct probe_try *try_;
};

struct ctr {
    struct pod *pod;
    enum ctr_kind kind;
    uint32_t index; /* in its list of the pod's spec */
    char *name;
    enum ctr_state state;
    char wait_reason[48];
    char *wait_message; /* owned or NULL */
    const struct image *image;
    char *image_ref; /* the ref `image` was resolved for */
    struct image_job *job;
    int64_t image_backoff_ms, image_retry_ms; /* mono; 0 = now */
    struct ctr_run now, last;
    int attempt; /* of the next start */
    int restarts;
    int64_t backoff_ms, restart_at_ms; /* mono */
    bool ready, started;
    bool want_kill;            /* a probe or a changed pod wants it gone */
    bool stopping;             /* TERM was sent */
    bool hook_busy, hook_done; /* preStop */
    int64_t kill_at_ms;        /* mono: KILL then */
    struct probe probe[PROBES];
    char *tty_;
};

const struct val *ctr_spec(const struct ctr *c); /* its part of the pod's spec */
void ctr_sync(struct ctr *c);                    /* bring its image; start it when it is due */
bool ctr_over(const struct ctr *c);              /* exited, and will not be started again */
void ctr_exited(struct ctr *c, const struct val *state);
void ctr_stop(struct ctr *c, int64_t grace_ms,
              const char *why); /* TERM now, KILL after; repeated calls only shorten */
void ctr_free_parts(struct ctr *c);
void ctr_wait(struct ctr *c, const char *reason, const char *fmt, ...) _printf_(3, 4);
char *ctr_log_path(struct arena *a, const struct ctr *c, int attempt);
void ctr_id(const struct ctr *c, int attempt, char out[NAME_BYTES]);
void ctr_run_done(struct ctr_run *r);
void ctr_run_set(struct ctr_run *r, const struct val *state); /* from a shim's STATE */

/* spec.c: NULL and err: code INVALID_ARGUMENT = CreateContainerConfigError, else
 * CreateContainerError */
struct val *ctr_spec_build(struct ctr *c, struct arena *a, struct err *err);
struct val *ctr_env(struct ctr *c, struct arena *a,
                    struct err *err); /* podenv.c: list of "NAME=value" */
/* A field of the pod as downward API names it; NULL: no such field. */
const char *pod_field(struct pod *p, struct arena *a, const char *path);
int resource_field(struct pod *p, struct arena *a, const char *container, const char *resource,
                   const char *divisor, const char **ret, struct err *err);

/* probe.c */
void probes_start(struct ctr *c); /* at container start */
void probes_stop(struct ctr *c);
void ctr_hook(struct ctr *c, const char *which,
              void (*done)(struct ctr *c, bool ok)); /* "postStart", "preStop" */

/* ---- pods
 * ---------------------------------------------------------------------------------------- */

enum pod_stage {
    POD_NEW,   /* nothing is made yet */
    POD_SETUP, /* directories, network, shim, volumes come */
    POD_RUN,   /* containers may start */
    POD_STOP,  /* all containers are told to end */
    POD_CLEAN, /* none runs; shim, mounts, network go */
    POD_KEPT,  /* ended and cleaned, the API object stays (phase Succeeded or Failed) */
    POD_GONE,
};
enum cond {
    COND_READY_TO_START,
    COND_INITIALIZED,
    COND_READY,
    COND_CONTAINERS_READY,
    COND_SCHEDULED,
    CONDS
};

struct volume;

struct pod {
    struct list link, dirty;
    struct node *n;
    const struct obj *o; /* newest from the API, or the last one it had */
    bool absent;         /* the API has it no more */
    bool orphan;         /* never seen from the API in this life: only its directory is known */
    char *uid, *ns, *name, *cgroup;
    char *dir;  /* STATE/run/mem/UID: small files and secrets, in memory */
    char *disk; /* STATE/pods/UID: its shim's socket and state, what its containers write, emptyDir */
    enum pod_stage stage;
    struct slink *shim;
    pid_t shim_pid;
    bool shim_said_hello, shim_lost;
    bool host_net, has_net;
    char ip[16];
    struct ctr *ctrs;
    uint32_t ctrs_n;
    struct volume *vols;
    uint32_t vols_n;
    bool vols_ready;
    struct env_timer *wake;
    int64_t wake_ms;  /* mono; INT64_MAX = none */
    int64_t start_ms; /* status.startTime */
    int64_t stop_deadline_ms;
    const char *end_reason; /* "DeadlineExceeded", "Evicted", ... literal */
    char *end_message;
    struct {
        bool is, known;
        int64_t since_ms;
        const char *reason; /* literal */
    } cond[CONDS];
    char *status_sent; /* text last acknowledged or in flight */
    bool status_busy, delete_busy, deleted;
    int64_t status_retry_ms;
    char *setup_error; /* told once */
    int64_t seen_us;   /* when it came, for the log */
    bool told_running;
};

struct pod *pod_new(struct node *n, const struct obj *o);
void pod_seen(struct pod *p, const struct obj *o); /* a newer object */
void pod_missing(struct pod *p);                   /* the API has it no more */
void pod_poke(struct pod *p);
void pod_poke_at(struct pod *p, int64_t mono); /* at the latest then */
void pod_free(struct pod *p);
struct pod *pod_orphan(struct node *n, const char *uid);
int pods_found(struct node *n); /* at start: shims of STATE/pods are met again */
struct ctr *pod_ctr(struct pod *p, const char *name);
struct pod *pod_by_name(struct node *n, const char *ns, const char *name);
const struct val *pod_spec(const struct pod *p);
bool pod_stopping(const struct pod *p);
const char *pod_qos(const struct pod *p);
void pod_event(struct pod *p, const char *type, const char *reason, const char *fmt, ...)
    _printf_(4, 5);

/* access.c */
void exec_ended(struct pod *p, int64_t nr, int code);
void execs_dropped(struct pod *p); /* its shim is gone: all of them have ended */

/* status.c */
void pod_status_write(struct pod *p);
const char *node_pod_phase(const struct pod *p);

/* volume.c */
int volumes_init(struct pod *p);
/* 1 ready, 0 something is on its way (pokes), -1 err */
int volumes_sync(struct pod *p, struct err *err);
void volumes_done(struct pod *p); /* unmounts what was mounted; frees */
/* Host path of a volume, and whether it is to be read-only whatever the mount says. NULL: no such
 * volume. */
const char *volume_path(struct pod *p, const char *name, bool *ret_read_only);
void volumes_changed(struct node *n, const char *kind, const char *ns,
                     const char *name); /* live updates */
/* Writes {path -> bytes} into dir so that readers see the old or the new set (..data link). */
struct volume_file {
    const char *path;
    const char *data;
    size_t n;
    int mode;
};
int volume_write_files(const char *dir, const struct volume_file *files, size_t n, int64_t gid,
                       struct err *err);
int mem_mount(struct node *n,
              struct err *err); /* STATE/run/mem: one tmpfs for secrets of all pods */
const struct obj *node_configmap(struct node *n, const char *ns, const char *name);
const struct obj *node_secret(struct node *n, const char *ns, const char *name);
/* The bytes of a key; secrets are decoded. false: not there. */
bool map_data(const struct obj *o, bool secret, const char *key, struct arena *a, const char **ret,
              size_t *ret_n);
