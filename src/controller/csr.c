/* Certificate requests: those of kubelets for their own client certificate are approved, what is
 * approved for one of our own signers is signed, and what is over goes.
 *
 *   kubernetes.io/kube-apiserver-client          a client of the API; approved by people
 *   kubernetes.io/kube-apiserver-client-kubelet  a node as a client; approved when its user may
 *   kubernetes.io/kubelet-serving                a node as a server; approved by people
 *   kubernetes.io/legacy-unknown                 anything; approved by people */
#include "codec/kubetime.h"
#include "controller/ctl_int.h"

#define SIGNER "kubernetes.io/"

enum {
    SECONDS_MAX = 365 * 24 * 3600,
    SECONDS_MIN = 600,
    KEEP_DONE_MS = 3600 * 1000,         /* issued, denied or failed */
    KEEP_PENDING_MS = 24 * 3600 * 1000, /* nobody said anything */
};

static const struct val *condition(const struct obj *csr, const char *type)
{
    VAL_EACH(val_at(obj_val(csr), "status.conditions"), c)
        if (streq(val_str_at(c, "type", ""), type) && !streq(val_str_at(c, "status", "True"), "False"))
            return c;
    return NULL;
}

static bool listed(const struct val *list, const char *s)
{
    VAL_EACH(list, it)
        if (streq(val_text(it, ""), s))
            return true;
    return false;
}

static void add_condition(struct ctl *ctl, struct val *v, const char *type, const char *reason, const char *message)
{
    struct arena *a = ctl->arena;
    struct val *c = val_map(a);

    val_put_str(a, c, "type", type);
    val_put_str(a, c, "status", "True");
    val_put_str(a, c, "reason", reason);
    val_put_str(a, c, "message", message);
    val_put_str(a, c, "lastUpdateTime", ctl_time(ctl));
    val_put_str(a, c, "lastTransitionTime", ctl_time(ctl));
    val_push(a, val_need_list(a, val_need_map(a, v, "status"), "conditions"), c);
}

/* ---------------------------------------------------------------- what signers want */

/* usages are these, and no other; key encipherment may be missing. */
static bool usages_are(const struct val *usages, const char *purpose)
{
    VAL_EACH(usages, u)
        if (!streq(val_text(u, ""), purpose) && !streq(val_text(u, ""), "digital signature") &&
            !streq(val_text(u, ""), "key encipherment"))
            return false;
    return listed(usages, purpose) && listed(usages, "digital signature");
}

static bool is_node(const struct val *facts)
{
    const struct val *orgs = val_get(facts, "orgs");

    return val_len(orgs) == 1 && listed(orgs, "system:nodes") &&
           str_starts(val_str_at(facts, "cn", ""), "system:node:");
}

static int64_t names(const struct val *facts, const char *kind)
{
    return val_int_at(facts, kind, 0);
}

/* Why the request is none of a kubelet as a client; NULL: it is one. */
static const char *not_kubelet_client(const struct val *facts, const struct val *usages)
{
    if (!is_node(facts))
        return "subject organization is not system:nodes or subject common name does not begin with system:node:";
    if (names(facts, "dns") || names(facts, "ips") || names(facts, "emails") || names(facts, "uris"))
        return "subject alternative names are not allowed";
    return usages_are(usages, "client auth") ? NULL : "usages did not match [key encipherment digital signature client auth]";
}

static const char *not_kubelet_server(const struct val *facts, const struct val *usages)
{
    if (!is_node(facts))
        return "subject organization is not system:nodes or subject common name does not begin with system:node:";
    if (!names(facts, "dns") && !names(facts, "ips"))
        return "DNS or IP subjectAltName is required";
    if (names(facts, "emails") || names(facts, "uris"))
        return "email and URI subjectAltNames are not allowed";
    return usages_are(usages, "server auth") ? NULL : "usages did not match [key encipherment digital signature server auth]";
}

static const char *not_client(const struct val *facts, const struct val *usages)
{
    (void)facts;
    VAL_EACH(usages, u)
        if (!streq(val_text(u, ""), "client auth") && !streq(val_text(u, ""), "digital signature") &&
            !streq(val_text(u, ""), "key encipherment"))
            return "usages did not match [client auth]";
    return listed(usages, "client auth") ? NULL : "usages did not match [client auth]";
}

static const char *anything(const struct val *facts, const struct val *usages)
{
    (void)facts;
    (void)usages;
    return NULL;
}

static const struct signer {
    const char *name;
    const char *(*why_not)(const struct val *facts, const struct val *usages);
} SIGNERS[] = {
    {SIGNER "kube-apiserver-client", not_client},
    {SIGNER "kube-apiserver-client-kubelet", not_kubelet_client},
    {SIGNER "kubelet-serving", not_kubelet_server},
    {SIGNER "legacy-unknown", anything},
};

/* ---------------------------------------------------------------- approve */

/* May the user who made the request create certificatesigningrequests/SUB? */
static bool may(struct ctl *ctl, const struct obj *csr, const char *sub)
{
    static const char *const copied[][2] = {{"username", "user"}, {"uid", "uid"}, {"groups", "groups"}, {"extra", "extra"}};
    struct arena *a = ctl->arena;
    const struct val *spec = val_get(obj_val(csr), "spec"), *answer = NULL;
    struct val *v = val_map(a), *s = val_map(a), *ra = val_map(a);
    struct err err = {0};

    for (size_t i = 0; i < ARRAY_LEN(copied); i++)
        if (val_get(spec, copied[i][0]))
            val_put(a, s, copied[i][1], val_get(spec, copied[i][0]));
    val_put_str(a, ra, "group", "certificates.k8s.io");
    val_put_str(a, ra, "resource", "certificatesigningrequests");
    val_put_str(a, ra, "verb", "create");
    val_put_str(a, ra, "subresource", sub);
    val_put(a, s, "resourceAttributes", ra);
    val_put_str(a, v, "apiVersion", "authorization.k8s.io/v1");
    val_put_str(a, v, "kind", "SubjectAccessReview");
    val_put(a, v, "spec", s);
    return client_post_sub(ctl->client, a, "authorization.k8s.io/v1/subjectaccessreviews", "", "", "", v,
                           &answer, &err) == 0 && val_bool_at(answer, "status.allowed", false);
}

static int approve(struct ctl *ctl, const struct obj *csr, const struct val *facts, struct err *err)
{
    const struct val *spec = val_get(obj_val(csr), "spec");
    bool self = streq(val_str_at(spec, "username", ""), val_str_at(facts, "cn", "-"));
    struct val *v, *status;

    if (!streq(val_str_at(spec, "signerName", ""), SIGNER "kube-apiserver-client-kubelet") ||
        not_kubelet_client(facts, val_get(spec, "usages")) ||
        (!(self && may(ctl, csr, "selfnodeclient")) && !may(ctl, csr, "nodeclient")))
        return 0;
    self = self && may(ctl, csr, "selfnodeclient");
    v = obj_edit(csr, ctl->arena);
    add_condition(ctl, v, "Approved", "AutoApproved",
                  self ? "Auto approving self kubelet client certificate after SubjectAccessReview."
                       : "Auto approving kubelet client certificate after SubjectAccessReview.");
    status = val_map(ctl->arena);
    val_put(ctl->arena, status, "status", val_get(v, "status"));
    return client_patch(ctl->client, kind_rows[K_CSR].resource, "", csr->name, "approval", CLIENT_PATCH_MERGE,
                        status, NULL, err);
}

/* ---------------------------------------------------------------- sign */

static int fail_request(struct ctl *ctl, const struct obj *csr, const char *why, struct err *err)
{
    struct val *v = obj_edit(csr, ctl->arena);

    add_condition(ctl, v, "Failed", "SignerValidationFailure", why);
    return ctl_update_status(ctl, K_CSR, csr, v, err);
}

static int sign(struct ctl *ctl, const struct obj *csr, const struct signer *signer,
                const struct val *facts, struct err *err)
{
    const struct controllers_keys *keys = ctl->all->opts.keys;
    const struct val *spec = val_get(obj_val(csr), "spec");
    const char *why = signer->why_not(facts, val_get(spec, "usages"));
    int64_t seconds = val_int_at(spec, "expirationSeconds", SECONDS_MAX);
    char *cert = NULL;
    struct val *v;

    if (why)
        return fail_request(ctl, csr, why, err);
    seconds = MIN(MAX(seconds, (int64_t)SECONDS_MIN), (int64_t)SECONDS_MAX);
    if (keys->sign(keys->arg, val_str_at(spec, "request", ""), val_get(spec, "usages"), seconds, ctl->arena,
                   &cert, err) < 0)
        return fail_request(ctl, csr, arena_printf(ctl->arena, "%s", err->msg), err);
    v = obj_edit(csr, ctl->arena);
    val_put_str(ctl->arena, val_need_map(ctl->arena, v, "status"), "certificate", cert);
    return ctl_update_status(ctl, K_CSR, csr, v, err);
}

/* ---------------------------------------------------------------- clean */

/* When it may go: ms since 1970. */
static int64_t over_at(const struct obj *csr)
{
    static const char *const ends[] = {"Denied", "Failed", "Approved"};
    int64_t made = kubetime_parse(val_str_at(obj_val(csr), "metadata.creationTimestamp", ""));

    for (size_t i = 0; i < ARRAY_LEN(ends); i++) {
        const struct val *c = condition(csr, ends[i]);
        int64_t at = kubetime_parse(val_str_at(c, "lastUpdateTime", ""));

        if (c && (i < 2 || *val_str_at(obj_val(csr), "status.certificate", "")))
            return (at < 0 ? made : at) + KEEP_DONE_MS;
    }
    return made + KEEP_PENDING_MS;
}

static enum again csr_reconcile(struct ctl *ctl, const char *key, struct err *err)
{
    const struct obj *csr = ctl_get(ctl, K_CSR, "", key);
    const struct controllers_keys *keys = ctl->all->opts.keys;
    const char *name = csr ? val_str_at(obj_val(csr), "spec.signerName", "") : "";
    const struct val *facts;
    int64_t over;

    if (!csr || obj_deleting(csr))
        return DONE;
    if ((over = over_at(csr)) <= ctl->now_ms)
        return ctl_delete(ctl, K_CSR, csr, NULL, -1, err) < 0 ? RETRY : DONE;
    ctl_want_in(ctl, key, over - ctl->now_ms + 1000);
    if (!keys || !str_starts(name, SIGNER) || condition(csr, "Denied") || condition(csr, "Failed") ||
        *val_str_at(obj_val(csr), "status.certificate", ""))
        return DONE;
    if (!(facts = keys->read(keys->arg, val_str_at(obj_val(csr), "spec.request", ""), ctl->arena, err)))
        return fail_request(ctl, csr, arena_strdup(ctl->arena, err->msg), err) < 0 ? RETRY : DONE;
    if (!condition(csr, "Approved"))
        return approve(ctl, csr, facts, err) < 0 ? RETRY : DONE;
    for (size_t i = 0; i < ARRAY_LEN(SIGNERS); i++)
        if (streq(SIGNERS[i].name, name))
            return sign(ctl, csr, &SIGNERS[i], facts, err) < 0 ? RETRY : DONE;
    return DONE;
}

static void csr_changed(struct ctl *ctl, enum kind kind, const struct obj *was, const struct obj *now)
{
    (void)kind;
    (void)was;
    ctl_want_obj(ctl, now);
}

extern const struct controller csr_controller;
const struct controller csr_controller = {
    .name = "csr",
    .component = "csrsigning",
    .reconcile = csr_reconcile,
    .changed = csr_changed,
    .kinds = KIND_BIT(K_CSR),
};
