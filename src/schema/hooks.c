/* schema/hooks.c - the table of the validator's C hooks (@check NAME in the kinds files). */
#include "schema/rules_int.h"

#define HOOKS(H)                                                                                   \
    H(configmap) H(secret) H(namespace) H(node) H(limitrange) H(quota) H(quota_status) H(event) H(event_new) H(endpoints)       \
    H(service) H(volume_object) H(volume_spec) H(claim_object) H(claim_spec)                       \
    H(label_selector) H(replicationcontroller) H(template) H(pod) H(podspec)        \
    H(toleration) H(node_term) H(affinity_term) H(pod_security) H(apparmor) H(downward_file) H(projected) H(fc) H(flocker) \
    H(iscsi) H(azure_disk) H(envvar) H(handler) H(security_context) H(sysctl)           \
    H(seccomp) H(resources) H(deployment) H(replicaset) H(daemonset) H(statefulset) H(revision)    \
    H(replica_status) H(deployment_status) H(statefulset_status) H(job) H(cronjob) H(hpa)          \
    H(networkpolicy) H(netpol_port) H(netpol_peer) H(ingress) H(ingress_path) H(ingress_backend)   \
    H(ingressclass_parameters) H(servicecidr) H(endpointslice) H(budget) H(role) H(rolebinding)    \
    H(subject) H(storageclass) H(csidriver) H(csinode) H(csicapacity) H(attachment) H(vac) H(runtime_scheduling)   \
    H(runtime_class) H(priorityclass) H(csr) H(csr_object) H(flow_rule) H(flow_schema) H(flow_subject) H(flow_resource_rule)    \
    H(flow_url_rule) H(priority_level) H(limit_response) H(webhooks) H(webhook_client)             \
    H(admission_rule) H(match_resources) H(policy_spec) H(mutation) H(param_ref)                   \
    H(binding_actions) H(apiservice) H(crd_definition) H(device_request) H(opaque_config) H(device_attribute) H(cel_selector) H(device_claim) H(resourceclaim)            \
    H(resourceclaimtemplate) H(resourceslice) H(autoscaling)

#define DECLARE(name) validate_hook_fn v_##name;
HOOKS(DECLARE)

static const struct {
    const char *name;
    validate_hook_fn *fn;
} hooks[] = {
#define ROW(name) {#name, v_##name},
    HOOKS(ROW)
#undef ROW
};

validate_hook_fn *validate_hook_find(const char *name)
{
    for (uint32_t i = 0; i < ARRAY_LEN(hooks); i++)
        if (streq(hooks[i].name, name))
            return hooks[i].fn;
    return NULL;
}
