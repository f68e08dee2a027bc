/* network/dns.h - the DNS server of an instance: cluster.local, everything else upstream.
 *
 * Answers as Kubernetes' DNS specification 1.1.0 wants for A, AAAA (empty: IPv4 only), SRV and
 * PTR: services, headless services, their pods (hostname.service.ns.svc), pods by address
 * (1-2-3-4.ns.pod), ExternalName (CNAME). Other names go to the upstream servers, UDP with a retry
 * over TCP when truncated, the client's question passed on as it is.
 * UDP and TCP on the address and port given. Thread: the loop's. */
#pragma once

#include "base/buf.h"
#include "base/err.h"
#include "network/service.h"

struct dns;
struct uv_loop_s;

struct dns_options {
    struct uv_loop_s *loop; /* NULL: answers only through dns_answer() */
    const char *ip;         /* "10.42.0.1" */
    uint16_t port;          /* 53 */
    const char *domain;     /* "cluster.local" */
    const char *const *upstreams; /* "192.0.2.1" or "192.0.2.1:5353", NULL-ended; NULL: /etc/resolv.conf */
    uint32_t ttl_s;         /* 0 = 5 */
};

struct dns_host { /* an endpoint as DNS sees it */
    struct in_addr ip;
    const char *hostname; /* "" : a name is made of the address */
    bool ready;
};
struct dns_port {
    const char *name; /* "" : none */
    uint8_t protocol;
    uint16_t port;
};
struct dns_service {
    const char *namespace_, *name;
    struct in_addr cluster_ip;  /* 0: headless */
    const char *external_name;  /* "" or the CNAME */
    bool publish_not_ready;
    const struct dns_port *ports;
    uint32_t n_ports;
    const struct dns_host *hosts; /* for headless ones */
    uint32_t n_hosts;
};

struct dns *dns_new(const struct dns_options *o, struct err *err) _must_check_;
void *dns_free(struct dns *d); /* with a loop: handles close on its next turn */
void dns_set(struct dns *d, const struct dns_service *svc); /* copies */
void dns_del(struct dns *d, const char *namespace_, const char *name);
/* Answers a query from what is known. 1: reply holds the answer; 0: a name of somebody else's,
 * ask upstream; -1: not a question, say nothing. udp_max 0 = TCP. Pure. */
int dns_answer(struct dns *d, const uint8_t *query, size_t n, size_t udp_max, struct buf *reply);
