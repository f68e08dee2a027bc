/* network/service.h - Services as elements of nftables maps.
 *
 * One table per instance, made once. A service is nothing but elements: one in a verdict map
 * (address . protocol . port -> which chain) and one per endpoint in a data map (address .
 * protocol . port . slot -> endpoint). The chain for k endpoints draws a number below k; it is
 * shared by all services that have k. A change writes just the elements that differ, in one
 * message, and never reads rules: ~15-100 us with thousands of services.
 *
 * Works for traffic of pods, of the host itself (127.0.0.1:nodePort too) and hairpin (a pod that
 * reaches itself). A port without endpoints is refused (ICMP port unreachable).
 * Thread: one. The struct given to service_set is only read during the call. */
#pragma once

#include "base/err.h"

#include <netinet/in.h>
#include <stdint.h>

struct services;

struct service_endpoint {
    struct in_addr ip;
    uint16_t port; /* host order */
};
struct service_port {
    const char *name;   /* "" for the only one */
    uint8_t protocol;   /* IPPROTO_TCP, IPPROTO_UDP, IPPROTO_SCTP */
    uint16_t port;      /* of the cluster IP; 0: only the node port */
    uint16_t node_port; /* 0: none. A container's hostPort is a service with only this */
    const struct service_endpoint *endpoints; /* ready ones */
    uint32_t n_endpoints;
};
struct service_spec {
    const char *namespace_, *name;
    struct in_addr cluster_ip; /* 0: headless, or only node ports */
    uint32_t affinity_s;       /* sessionAffinity ClientIP: timeout; 0: none */
    const struct service_port *ports;
    uint32_t n_ports;
};

/* Sets "namespace/name" to what spec says (makes or changes it). *ret_writes (may be NULL): how
 * many elements were written; 0: nothing had changed. */
int service_set(struct services *s, const struct service_spec *spec, uint32_t *ret_writes,
                struct err *err);
int service_del(struct services *s, const char *namespace_, const char *name, struct err *err);
/* Between begin and commit, sets and dels only count up; commit replaces the whole table at once
 * (packets see the old or the new one). Used at start, when the kernel may hold the services of
 * an earlier life. net_open leaves the kernel's table as it is if there is one. */
void services_begin(struct services *s);
int services_commit(struct services *s, struct err *err);
uint32_t services_count(const struct services *s);
