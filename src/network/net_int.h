/* network/net_int.h - what pool.c, host.c and service.c share. */
#pragma once

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
