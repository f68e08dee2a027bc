/* From Services and EndpointSlices to the kernel's maps (network/service.h) and to names.
 *
 * A service is looked at again when it or one of its slices changes; only the elements that differ
 * are written. A pod's hostPort is a service with a node port alone, under the name of the pod. */
#include "client/workq.h"
#include "node/node_int.h"

#include <arpa/inet.h>
#include <stdio.h>
#ifdef HAVE_DNS
#include "network/dns.h"
#endif

enum { KEYS_MAX = 100000 };

struct proxy {
    struct node *n;
    struct services *services;
    struct mirror *svc, *slices;
    int by_service; /* index of slices */
    struct workq *q;
    bool begun;
    struct dns *dns;
};

struct net *network_open(struct node *n, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();

    return net_open(
        &(struct net_options){.instance = n->o.instance,
                              .pod_cidr = n->o.pod_cidr,
                              .service_cidr = n->o.service_cidr,
                              .pool = 'p',
                              .idle_min = 8,
                              .loop = &n->loop,
                              .state_path = arena_printf(a, "%s/run/net.json", n->o.state)},
        err);
}

int network_teardown(const char *state, const char *instance, const char *pod_cidr,
                     const char *service_cidr, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();

    return net_teardown(instance, pod_cidr, service_cidr, arena_printf(a, "%s/run/net.json", state),
                        err);
}

static uint8_t protocol(const char *name)
{
    return streq(name, "UDP") ? IPPROTO_UDP : streq(name, "SCTP") ? IPPROTO_SCTP : IPPROTO_TCP;
}

/* Slices carry their service's name as a label. */
static const char *slice_key(const struct obj *o, char *out, size_t cap)
{
    const char *name = obj_label(o, "kubernetes.io/service-name");

    if (!name)
        return NULL;
    snprintf(out, cap, "%s/%s", o->namespace_, name);
    return out;
}

/* The port of a slice that a service's port means: by name. */
static int slice_port(const struct val *slice, const char *name)
{
    VAL_EACH (val_get(slice, "ports"), p)
        if (streq(val_str_at(p, "name", ""), name))
            return (int)val_int_at(p, "port", 0);
    return 0;
}

struct found {
    struct service_endpoint *v;
    uint32_t n;
};

static struct found endpoints(struct arena *a, struct objs slices, const char *port_name)
{
    struct found f = {0};
    uint32_t max = 0;

    for (uint32_t i = 0; i < slices.n; i++)
        max += val_len(val_get(obj_val(slices.v[i]), "endpoints"));
    f.v = arena_array(a, struct service_endpoint, max + 1);
    /* Ready ones; when there is none, those that are still serving while they end. */
    for (int last = 0; last < 2 && !f.n; last++)
        for (uint32_t i = 0; i < slices.n; i++) {
            const struct val *s = obj_val(slices.v[i]);
            int port = slice_port(s, port_name);
            if (!port || !streq(val_str_at(s, "addressType", "IPv4"), "IPv4"))
                continue;
            VAL_EACH (val_get(s, "endpoints"), e) {
                struct in_addr ip;
                bool ready = val_bool_at(e, "conditions.ready", true),
                     serving = val_bool_at(e, "conditions.serving", ready) &&
                               val_bool_at(e, "conditions.terminating", false);
                if (!(last ? serving : ready) ||
                    inet_pton(AF_INET, val_str_at(e, "addresses[0]", ""), &ip) != 1)
                    continue;
                f.v[f.n++] = (struct service_endpoint){ip, (uint16_t)port};
            }
        }
    return f;
}

#ifdef HAVE_DNS
static void tell_dns(struct proxy *x, struct arena *a, const struct obj *svc, struct objs slices)
{
    const struct val *v = obj_val(svc), *ports = val_at(v, "spec.ports");
    struct dns_service d = {.namespace_ = svc->namespace_, .name = svc->name};
    struct dns_port *p = arena_array(a, struct dns_port, val_len(ports) + 1);
    struct dns_host *h;
    uint32_t max = 0;
    const char *ip = val_str_at(v, "spec.clusterIP", "");

    if (streq(val_str_at(v, "spec.type", ""), "ExternalName"))
        d.external_name = val_str_at(v, "spec.externalName", "");
    else
        d.external_name = "";
    inet_pton(AF_INET, ip, &d.cluster_ip);
    d.publish_not_ready = val_bool_at(v, "spec.publishNotReadyAddresses", false);
    VAL_EACH (ports, it)
        p[d.n_ports++] = (struct dns_port){val_str_at(it, "name", ""),
                                           protocol(val_str_at(it, "protocol", "TCP")),
                                           (uint16_t)val_int_at(it, "port", 0)};
    d.ports = p;
    for (uint32_t i = 0; i < slices.n; i++)
        max += val_len(val_get(obj_val(slices.v[i]), "endpoints"));
    h = arena_array(a, struct dns_host, max + 1);
    for (uint32_t i = 0; i < slices.n; i++)
        VAL_EACH (val_get(obj_val(slices.v[i]), "endpoints"), e) {
            struct dns_host *one = &h[d.n_hosts];
            if (inet_pton(AF_INET, val_str_at(e, "addresses[0]", ""), &one->ip) != 1)
                continue;
            one->hostname = val_str_at(e, "hostname", "");
            one->ready = val_bool_at(e, "conditions.ready", true);
            d.n_hosts++;
        }
    d.hosts = h;
    dns_set(x->dns, &d);
}
#endif

static int look(struct proxy *x, const char *key, struct err *err)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    char buf[CLIENT_KEY_BYTES];
    const char *ns, *name;
    const struct obj *svc;

    client_key_split(key, buf, &ns, &name);
    svc = mirror_get(x->svc, ns, name);
    if (!svc) {
#ifdef HAVE_DNS
        if (x->dns)
            dns_del(x->dns, ns, name);
#endif
        return service_del(x->services, ns, name, err);
    }
    const struct val *v = obj_val(svc), *ports = val_at(v, "spec.ports");
    struct objs slices = mirror_find(x->slices, a, x->by_service, key);
#ifdef HAVE_DNS
    if (x->dns)
        tell_dns(x, a, svc, slices);
#endif
    struct service_spec s = {.namespace_ = ns, .name = name};
    struct service_port *p = arena_array(a, struct service_port, val_len(ports) + 1);
    if (inet_pton(AF_INET, val_str_at(v, "spec.clusterIP", ""), &s.cluster_ip) != 1)
        return service_del(x->services, ns, name, err); /* headless or ExternalName: only names */
    if (streq(val_str_at(v, "spec.sessionAffinity", ""), "ClientIP"))
        s.affinity_s =
            (uint32_t)val_int_at(v, "spec.sessionAffinityConfig.clientIP.timeoutSeconds", 10800);
    VAL_EACH (ports, it) {
        struct found f = endpoints(a, slices, val_str_at(it, "name", ""));
        /* An API server on this machine's loopback cannot be an endpoint by the API's rules; pods
         * reach it all the same. */
        if (!f.n && streq(key, "default/kubernetes") && val_int_at(it, "targetPort", 0)) {
            f.v[0] = (struct service_endpoint){{htonl(INADDR_LOOPBACK)},
                                               (uint16_t)val_int_at(it, "targetPort", 0)};
            f.n = 1;
        }
        p[s.n_ports++] =
            (struct service_port){.name = val_str_at(it, "name", ""),
                                  .protocol = protocol(val_str_at(it, "protocol", "TCP")),
                                  .port = (uint16_t)val_int_at(it, "port", 0),
                                  .node_port = (uint16_t)val_int_at(it, "nodePort", 0),
                                  .endpoints = f.v,
                                  .n_endpoints = f.n};
    }
    s.ports = p;
    return service_set(x->services, &s, NULL, err);
}

static void drain(void *arg)
{
    struct proxy *x = arg;
    const char *key;
    struct err err;

    if (!mirror_synced(x->svc) || !mirror_synced(x->slices))
        return; /* all at once then, against what an earlier life left in the kernel */
    while ((key = workq_take(x->q))) {
        char copy[CLIENT_KEY_BYTES];
        snprintf(copy, sizeof copy, "%s", key);
        workq_done(x->q, key);
        int bad = look(x, copy, &err);
        LOG(DEBUG, "node", "service=%s did=write bad=%d", copy, bad);
        if (bad == 0) {
            workq_forget(x->q, copy);
        } else {
            LOG(WARN, "node", "service=%s did=write err=\"%s\" then=\"tried again\"", copy,
                err.msg);
            if (workq_retry(x->q, copy, &err) < 0)
                LOG(ERROR, "node", "service=%s err=\"%s\"", copy, err.msg);
        }
    }
    if (x->begun) {
        x->begun = false;
        if (services_commit(x->services, &err) < 0)
            LOG(ERROR, "node", "did=write_services err=\"%s\"", err.msg);
    }
}

static void touch(struct proxy *x, const char *key)
{
    struct err err;

    if (workq_add(x->q, key, &err) < 0)
        LOG(ERROR, "node", "service=%s err=\"%s\"", key, err.msg);
}

static void svc_added(void *arg, const struct obj *o)
{
    char key[CLIENT_KEY_BYTES];

    touch(arg, client_key(o, key));
}
static void svc_changed(void *arg, const struct obj *was, const struct obj *o)
{
    (void)was;
    svc_added(arg, o);
}
static void slice_added(void *arg, const struct obj *o)
{
    char out[CLIENT_KEY_BYTES];
    const char *key = slice_key(o, out, sizeof out);

    if (key)
        touch(arg, key);
}
static void slice_changed(void *arg, const struct obj *was, const struct obj *o)
{
    slice_added(arg, was);
    slice_added(arg, o);
}

/* Both views are complete: what is in the kernel and not in them goes with the commit. */
static void synced(void *arg)
{
    drain(arg);
}

int proxy_start(struct node *n, struct err *err)
{
    struct proxy *x;

    if (!n->net || !net_services(n->net))
        return 0;
    x = n->proxy = xcalloc(1, sizeof *x);
    x->n = n;
    x->services = net_services(n->net);
    x->q = workq_new(n->env, KEYS_MAX);
    workq_on_ready(x->q, drain, x);
    services_begin(x->services);
    x->begun = true;
#ifdef HAVE_DNS
    x->dns = dns_new(
        &(struct dns_options){
            .loop = &n->loop, .ip = n->o.cluster_dns, .port = 53, .domain = "cluster.local"},
        err);
    if (!x->dns) {
        LOG(ERROR, "node", "did=start_dns err=\"%s\" then=\"pods resolve no names\"", err->msg);
        *err = (struct err){0};
    }
#endif
    x->slices = client_mirror(
        n->client, &(struct mirror_args){.resource = "discovery.k8s.io/v1/endpointslices",
                                         .added = slice_added,
                                         .changed = slice_changed,
                                         .removed = slice_added,
                                         .synced = synced,
                                         .arg = x});
    x->by_service = mirror_index(x->slices, slice_key);
    x->svc = client_mirror(n->client, &(struct mirror_args){.resource = "v1/services",
                                                            .added = svc_added,
                                                            .changed = svc_changed,
                                                            .removed = svc_added,
                                                            .synced = synced,
                                                            .arg = x});
    n->services = x->svc;
    (void)err;
    return 0;
}

void proxy_pod_ports(struct node *n, struct pod *p, bool there)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct service_port ports[64];
    struct service_endpoint ends[64];
    struct service_spec s = {.namespace_ = p->ns, .ports = ports};
    struct err err;

    if (!n->proxy || p->host_net)
        return;
    s.name = arena_printf(a, "hostport.%s", p->uid);
    for (uint32_t i = 0; there && i < p->ctrs_n; i++)
        VAL_EACH (val_get(ctr_spec(&p->ctrs[i]), "ports"), it) {
            int host = (int)val_int_at(it, "hostPort", 0);
            struct service_endpoint *e = &ends[s.n_ports];
            if (!host || s.n_ports == ARRAY_LEN(ports) || inet_pton(AF_INET, p->ip, &e->ip) != 1)
                continue;
            e->port = (uint16_t)val_int_at(it, "containerPort", 0);
            ports[s.n_ports++] =
                (struct service_port){.name = val_str_at(it, "name", ""),
                                      .protocol = protocol(val_str_at(it, "protocol", "TCP")),
                                      .node_port = (uint16_t)host,
                                      .endpoints = e,
                                      .n_endpoints = 1};
        }
    if (s.n_ports ? service_set(n->proxy->services, &s, NULL, &err) < 0
                  : service_del(n->proxy->services, s.namespace_, s.name, &err) < 0)
        LOG(WARN, "node", "pod=%s/%s did=host_ports err=\"%s\"", p->ns, p->name, err.msg);
}
