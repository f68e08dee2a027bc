/* controller/endpoints.h - which pods stand behind a service, on which ports. Used by the makers of
 * EndpointSlices and of Endpoints. */
#pragma once

#include "controller/ctl.h"

struct endpoint {
    const struct obj *pod;
    const char *ip, *node, *hostname; /* hostname "" when it gives no name of its own */
    bool ready, serving, terminating;
};
struct endpoint_group { /* pods for which all ports of the service have the same numbers */
    struct val *ports;  /* as EndpointSlice writes them: name, port, protocol, appProtocol */
    struct endpoint *v;
    uint32_t n, cap;
};
struct endpoint_groups {
    struct endpoint_group *v;
    uint32_t n;
};
/* Only addresses of that family ("IPv4", "IPv6"); pods in the order of their names. */
struct endpoint_groups endpoints_of(struct ctl *ctl, const struct obj *service, const char *family);
/* The same hosts in the same states on the same ports? For changed(): what no endpoint shows of a
 * pod needs no look. */
bool endpoint_pod_differs(const struct obj *was, const struct obj *now);
/* Wants all services whose selector takes the pod (before or after). */
void endpoints_want_services(struct ctl *ctl, const struct obj *was, const struct obj *now);
bool service_selects(const struct obj *service); /* has a selector and is no ExternalName */
