/* network/network.h - addresses for pods, and the way out: pooled network namespaces, NAT.
 *
 * Every pod has a network namespace of its own with lo and eth0. eth0 is one end of a veth pair
 * with a /32 of the instance's pod CIDR; the other end lies in the host namespace under a name
 * that carries the instance ("td" + 8 hex of the instance + pool letter + 4 hex) and has a host
 * route to that address. No bridge: packets are routed. The gateway is 169.254.1.1 with a static
 * neighbour, so there is no ARP either.
 *
 * Namespaces are held by descriptors (no bind mounts: each mount makes every later clone dearer).
 * An idle one goes with the process; one in use is kept alive by the pod's own processes, and the
 * owner's name lies in the kernel as the alias of the host-side veth: after a restart net_open()
 * finds it and net_adopt() joins it to the descriptor that the pod's shim still has
 * (/proc/PID/ns/net). net_sweep() removes those that nobody adopted.
 *
 * Given back, a namespace is re-addressed for the next pod instead of deleted (17 ms a veth). What nobody
 * needed for a while goes by and by, many links in one step. Addresses rotate: one that was given back is used again last.
 *
 * The host side of an instance: address HOST_IP (the first of the pod CIDR) on lo, a route for the
 * service CIDR, ip_forward, one nftables table `ip tandem-INSTANCE` (services.c): masquerade for
 * the pod CIDR. net_teardown() removes all of it.
 *
 * Everything is raw netlink; nothing is executed. Thread: one (the loop that made it); what the kernel takes long for
 * (builds, new addresses, deletions) is done on a thread of the pool's own. */
#pragma once

#include "base/err.h"
#include "network/service.h"

#include <stdbool.h>
#include <stdint.h>

struct net;
struct uv_loop_s;

struct net_options {
    const char *instance;     /* 8 hex */
    const char *pod_cidr;     /* "10.42.0.0/16"; at least a /24 */
    const char *service_cidr; /* "10.96.0.0/16" */
    char pool;                /* letter of this pool: 'p' pods (first half of the CIDR), 'f' functions (second half);
                               * 'e' empty ones: a loopback and nothing else, unnamed, needs none of the texts */
    uint32_t idle_min;        /* members kept ready (0: built when asked for) */
    uint32_t idle_max;        /* given back beyond this many idle are let go (0 = 64) */
    struct uv_loop_s *loop;   /* a thread refills the pool and takes back; NULL: never, and on the spot */
    bool unnamed;             /* no owner outlives this process: none is written down, taking is free */
    void (*on_ready)(void *arg); /* after net_want(): a member is idle, or there will be none. May take and want */
    void *arg;
    const char *state_path;   /* STATE/run/net.json: what the host looked like before (may be NULL) */
};

/* A namespace in use. Owner: struct net; valid until net_give_back(). */
struct net_ns {
    int fd;       /* the namespace, for setns; O_CLOEXEC; -1 = found after a restart, not adopted */
    char ip[16];  /* "10.42.0.17" */
    char ifname[16]; /* host side */
    const char *owner;
};

/* Prepares the host side (idempotent: another process or an earlier life may have done it) and
 * finds what an earlier life left. INVALID_ARGUMENT for bad CIDRs, FORBIDDEN without the rights. */
struct net *net_open(const struct net_options *o, struct err *err) _must_check_;
void *net_close(struct net *n); /* leaves the host side and namespaces in use as they are */
/* Claims a pod range for as long as the descriptor (close-on-exec) is open: a socket with a name of no
 * file, which there is once in a network namespace. -1: somebody else has it. */
int net_claim(const char *pod_cidr);
/* Removes everything of this instance from the host: links and table, and what the range has once
 * (routes, address) unless another running instance has claimed the range. For all pools; needs no open
 * net. What is not there is fine. */
int net_teardown(const char *instance, const char *pod_cidr, const char *service_cidr,
                 const char *state_path, struct err *err);

/* A namespace for owner (a pod's uid or an instance's id, up to 200 bytes). Taken from the pool in
 * ~0.1 ms, built on the spot (~1 ms) when that is empty. TOO_MANY: all addresses are in use.
 * ALREADY_EXISTS: owner has one; see net_find. */
const struct net_ns *net_take(struct net *n, const char *owner, struct err *err) _must_check_;
/* The same of an unnamed pool, without a word to the kernel. NULL: none is idle; see net_want(). owner has none yet. */
const struct net_ns *net_take_ready(struct net *n, const char *owner);
/* So many could be used now (0: none): they are made in the background, on_ready is called for each until as many were
 * there or another number is said. 0: one is idle, or some are on their way; -1: none can be made, err says why. */
int net_want(struct net *n, uint32_t count, struct err *err) _must_check_;
void net_trim(struct net *n); /* memory is short: those that are idle beyond idle_min go */
const struct net_ns *net_find(const struct net *n, const char *owner); /* NULL: none */
/* After a restart: fd is the owner's namespace (it is duplicated). NOT_FOUND when the kernel
 * knows nothing of owner any more. */
const struct net_ns *net_adopt(struct net *n, const char *owner, int fd, struct err *err) _must_check_;
/* All processes of owner have ended. reusable=false: the owner could change the namespace
 * (CAP_NET_ADMIN, privileged, own sysctls), it is let go. Unknown owners are fine. */
void net_give_back(struct net *n, const char *owner, bool reusable);
/* Removes namespaces found at net_open() that were not adopted since. Gives how many. */
uint32_t net_sweep(struct net *n);

const char *net_host_ip(const struct net *n); /* "10.42.0.1": this machine as pods see it; the DNS server's address */
struct net_counts {
    uint32_t idle, used, made, recycled;
};
struct net_counts net_counts(const struct net *n);

/* The service rules of this instance; see service.h. Borrowed; only the pool 'p' has them. */
struct services *net_services(struct net *n);
