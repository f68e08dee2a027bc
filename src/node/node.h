/* node/node.h - the node process: runs the pods that are bound to this machine.
 *
 * One loop. It sees the API through a remote client (kubeconfig) only, so it also works against
 * any other Kubernetes API server. Containers are held by their pods' shims (sandbox/shim.h):
 * ending or killing this process stops nothing, the next one finds everything again.
 * STATE/run/node.sock answers what a kubelet answers (HTTP/1.1): /healthz, /pods, /stats/summary,
 * /containerLogs/NS/POD/CONTAINER, /exec/..., /attach/..., /portForward/NS/POD.
 * STATE/meter/pods.json: what every pod used so far, every ten seconds. */
#pragma once

#include "base/err.h"

struct node_options {
    const char *state;        /* absolute */
    const char *instance;     /* 8 hex */
    const char *name;         /* of the Node object */
    const char *kubeconfig;   /* NULL: STATE/pki/node.kubeconfig, else STATE/kubeconfig */
    const char *pod_cidr;     /* NULL: 10.42.0.0/16 */
    const char *service_cidr; /* NULL: 10.96.0.0/16 */
    const char *cluster_dns;  /* NULL: this machine's address as pods see it */
    const char *version;      /* of the API served: nodeInfo.kubeletVersion; NULL: v1.36.3 */
    bool no_network;          /* all pods use the host's network (tests without the rights) */
};

/* Runs until SIGTERM or SIGINT (containers go on); the process's exit status. */
int node_main(const struct node_options *o);

/* After the node process has ended: stops every container of the state folder and takes what the
 * node left on the host (groups, mounts, links, rules). What is not there is fine. */
int node_teardown(const char *state, const char *instance, struct err *err);
