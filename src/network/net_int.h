/* network/net_int.h - what the files of this room share. */
#pragma once

#include "base/list.h"
#include "env/mbox.h"
#include "network/network.h"
#include "network/nl.h"

#include <netinet/in.h>

struct net_plan { /* everything that follows from the options; addresses in host order */
    char instance[9];
    uint32_t group;       /* link group of the instance */
    uint32_t pod_net, pod_mask;
    uint32_t service_net, service_mask;
    uint32_t host_ip;
    uint32_t metric;      /* of our routes: lets instances side by side have the same service CIDR */
    char prefix[11];      /* "td" + instance */
    char table[32];       /* "tandem-" + instance */
};
int net_plan(struct net_plan *p, const char *instance, const char *pod_cidr,
             const char *service_cidr, struct err *err);
int net_prefix_len(uint32_t mask);

/* A member of a pool. */
enum slot_state { SLOT_IDLE, SLOT_USED, SLOT_FOUND };
enum slot_job { SLOT_BUILD, SLOT_READDRESS, SLOT_DROP };

struct slot {
    struct net_ns pub;
    struct list link; /* in net.idle */
    enum slot_state state;
    uint32_t id, ip; /* ip in host order */
    int host_index, ns_index;
    struct nl ns; /* in the namespace */
    unsigned char mac[6];
    char *owner;
    /* while the builder has it nobody else touches it */
    struct mbox_msg msg;
    enum slot_job job;
    uint32_t next_ip, last_ip; /* READDRESS: to, from */
    bool failed;               /* how the job went; then err says why */
    struct err err;
};

/* wire.c */
extern const unsigned char net_host_mac[6];
void ip_text(uint32_t ip, char ret[16]);

struct wire { /* what all members have in common */
    const struct net_plan *plan;
    uint32_t mtu;
    bool ipv6;    /* the kernel has it. Not looked up in /proc for each: that takes longer with every namespace there is */
    bool unnamed; /* owners are not written down in the kernel */
    bool bare;    /* namespaces with a loopback and nothing else: no plan, no address, no name */
    bool stay;    /* the thread need not be back at home after a build: it goes home itself */
};
/* A netlink socket in the namespace *fd; in a fresh one when it is -1. The thread is back in its own
 * namespace when this returns: a thread that could not go back must not live. */
int ns_enter(int *fd, struct nl *ret, struct err *err);
/* rt is a socket in the host's namespace. Built: id, ip, name and mac were chosen by the caller. Failed: it is the
 * caller's to free, which takes away what there is of it. */
int slot_build(const struct wire *w, struct slot *s, struct nl *rt, struct err *err);
int slot_readdress(const struct wire *w, struct slot *s, uint32_t ip, struct nl *rt, struct err *err);
int slot_name(const struct slot *s, const char *owner, struct nl *rt, struct err *err);
void slot_unroute(const struct slot *s, struct nl *rt);
/* Their links go in one step; the slots stay the caller's. */
void slots_delete(const struct wire *w, struct slot *const *slots, uint32_t count, struct nl *rt);
void slot_free(struct slot *s); /* NULL is fine */

/* builder.c: a thread for jobs on slots, which are the builder's until done() has them, on the loop. */
struct builder;
struct builder *builder_new(const struct wire *w, uv_loop_t *loop, mbox_fn *done, void *arg, struct err *err);
void builder_ask(struct builder *b, struct slot *s, enum slot_job job);
/* Waits for the job under way (milliseconds); the others come back failed before this returns. */
void *builder_free(struct builder *b);

/* host.c */
int net_host_up(struct nl *rt, const struct net_plan *p, const char *state_path, struct err *err);
/* The MTU of the way out, 1500 when there is none. */
uint32_t net_mtu(struct nl *rt);
/* The link of that name: its index, or 0. */
int net_link_index(struct nl *rt, const char *name);

/* service.c */
struct services *services_new(const struct net_plan *p, struct err *err); /* makes the table when there is none */
void *services_free(struct services *s);
/* Addresses of pods: their way back to themselves is masqueraded. Twice is fine. */
int services_hairpin(struct services *s, struct in_addr pod, struct err *err);
int services_drop_table(const char *table, struct err *err);

/* conntrack.c: UDP flows to ip:port (ip 0: any address) that lead to this endpoint are forgotten. */
void conntrack_forget_udp(struct in_addr ip, uint16_t port, struct in_addr ep_ip, uint16_t ep_port);
