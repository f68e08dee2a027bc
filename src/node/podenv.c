/* A container's environment: image, services, envFrom, env, with $(NAME) put in.
 *
 * A name that comes twice: the last one counts, as Kubernetes wants (image < services < envFrom <
 * env). A missing configMap or secret that is not optional is a CreateContainerConfigError. */
#include "codec/quantity.h"
#include "node/node_int.h"

#include <ctype.h>
#include <stdio.h>

struct vars {
    struct arena *a;
    struct val *map; /* name -> text: keeps the order of first appearance */
};

static void set(struct vars *v, const char *name, const char *value)
{
    val_put_str(v->a, v->map, name, value);
}

/* "name" of a service as environment names it. */
static char *upper(struct arena *a, const char *name)
{
    char *s = arena_strdup(a, name);

    for (char *p = s; *p; p++)
        *p = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
    return s;
}

static void service_vars(struct vars *v, const struct obj *svc)
{
    const struct val *tree = obj_val(svc), *ports = val_at(tree, "spec.ports");
    const char *ip = val_str_at(tree, "spec.clusterIP", ""), *base = upper(v->a, svc->name);
    bool first = true;

    if (!*ip || streq(ip, "None") || !val_len(ports))
        return;
    set(v, arena_printf(v->a, "%s_SERVICE_HOST", base), ip);
    VAL_EACH (ports, p) {
        int port = (int)val_int_at(p, "port", 0);
        const char *proto = val_str_at(p, "protocol", "TCP"), *name = val_str_at(p, "name", "");
        char *low = arena_strdup(v->a, proto), *text = arena_printf(v->a, "%d", port);
        for (char *c = low; *c; c++)
            *c = (char)tolower((unsigned char)*c);
        char *url = arena_printf(v->a, "%s://%s:%d", low, ip, port);
        if (first) {
            set(v, arena_printf(v->a, "%s_SERVICE_PORT", base), text);
            set(v, arena_printf(v->a, "%s_PORT", base), url);
        }
        first = false;
        if (*name)
            set(v, arena_printf(v->a, "%s_SERVICE_PORT_%s", base, upper(v->a, name)), text);
        char *link = arena_printf(v->a, "%s_PORT_%d_%s", base, port, proto);
        set(v, link, url);
        set(v, arena_printf(v->a, "%s_PROTO", link), low);
        set(v, arena_printf(v->a, "%s_PORT", link), text);
        set(v, arena_printf(v->a, "%s_ADDR", link), ip);
    }
}

static void all_services(struct vars *v, struct pod *p)
{
    bool links = val_bool_at(pod_spec(p), "enableServiceLinks", true);
    const struct obj *api = mirror_get(p->n->services, "default", "kubernetes");

    if (api)
        service_vars(v, api);
    if (!links)
        return;
    struct objs all = mirror_list(p->n->services, v->a, p->ns);
    for (uint32_t i = 0; i < all.n; i++)
        service_vars(v, all.v[i]);
}

static const struct val *member(const struct val *map, const char *name)
{
    return val_get(map, name);
}

/* $(NAME) becomes NAME's value if it is set before; $$ is a $. */
static const char *expand(struct vars *v, const char *text)
{
    struct buf b = {0};
    char *out;

    if (!strchr(text, '$'))
        return text;
    for (const char *p = text; *p; p++) {
        if (*p != '$' || (p[1] != '$' && p[1] != '(')) {
            buf_addc(&b, *p);
            continue;
        }
        if (p[1] == '$') {
            buf_addc(&b, '$');
            p++;
            continue;
        }
        const char *end = strchr(p, ')');
        if (!end) {
            buf_addc(&b, '$');
            continue;
        }
        const struct val *is = val_getn(v->map, p + 2, (size_t)(end - p - 2));
        if (is)
            buf_adds(&b, is->s);
        else
            buf_add(&b, p, (size_t)(end - p + 1));
        p = end;
    }
    out = arena_strdup(v->a, b.p ? b.p : "");
    buf_done(&b);
    return out;
}

static int env_from(struct vars *v, struct pod *p, const struct val *list, struct err *err)
{
    VAL_EACH (list, f) {
        bool secret = val_get(f, "secretRef") != NULL;
        const struct val *ref = val_get(f, secret ? "secretRef" : "configMapRef");
        const char *name = val_str_at(ref, "name", ""), *prefix = val_str_at(f, "prefix", ""),
                   *data;
        const struct obj *o =
            secret ? node_secret(p->n, p->ns, name) : node_configmap(p->n, p->ns, name);
        size_t n;

        if (!o) {
            if (val_bool_at(ref, "optional", false))
                continue;
            return err_set(err, INVALID_ARGUMENT, "%s \"%s\" not found",
                           secret ? "secret" : "configmap", name);
        }
        VAL_EACH_MEMBER (val_get(obj_val(o), "data"), m) {
            if (!strchr(m->key, '=') && map_data(o, secret, m->key, v->a, &data, &n))
                set(v, arena_printf(v->a, "%s%s", prefix, m->key), data);
        }
    }
    return 0;
}

static int value_from(struct vars *v, struct ctr *c, const struct val *e, const struct val *from,
                      struct err *err)
{
    struct pod *p = c->pod;
    const char *name = val_str_at(e, "name", ""), *text = NULL, *field;
    const struct val *ref;
    size_t n;

    if ((field = val_str_at(from, "fieldRef.fieldPath", NULL))) {
        if (!(text = pod_field(p, v->a, field)))
            return err_set(err, INVALID_ARGUMENT, "fieldPath %s is not supported", field);
        set(v, name, text);
        return 0;
    }
    if ((ref = val_get(from, "resourceFieldRef"))) {
        const char *of = val_str_at(ref, "containerName", "");
        if (resource_field(p, v->a, *of ? of : c->name, val_str_at(ref, "resource", ""),
                           val_str_at(ref, "divisor", "1"), &text, err) < 0)
            return -1;
        set(v, name, text);
        return 0;
    }
    bool secret = val_get(from, "secretKeyRef") != NULL;
    if (!(ref = val_get(from, secret ? "secretKeyRef" : "configMapKeyRef")))
        return err_set(err, INVALID_ARGUMENT, "env %s: this valueFrom is not supported", name);
    const char *of = val_str_at(ref, "name", ""), *key = val_str_at(ref, "key", "");
    const struct obj *o = secret ? node_secret(p->n, p->ns, of) : node_configmap(p->n, p->ns, of);
    if (o && map_data(o, secret, key, v->a, &text, &n)) {
        set(v, name, text);
        return 0;
    }
    if (val_bool_at(ref, "optional", false))
        return 0;
    if (!o)
        return err_set(err, INVALID_ARGUMENT, "%s \"%s\" not found",
                       secret ? "secret" : "configmap", of);
    return err_set(err, INVALID_ARGUMENT, "couldn't find key %s in %s %s/%s", key,
                   secret ? "Secret" : "ConfigMap", p->ns, of);
}

struct val *ctr_env(struct ctr *c, struct arena *a, struct err *err)
{
    struct vars v = {.a = a, .map = val_map(a)};
    const struct val *spec = ctr_spec(c);
    struct val *list = val_list(a);

    for (const char *const *e = c->image->config.env; *e; e++) {
        const char *eq = strchr(*e, '=');
        if (eq)
            set(&v, arena_strndup(a, *e, (size_t)(eq - *e)), eq + 1);
    }
    set(&v, "HOSTNAME", val_str_at(pod_spec(c->pod), "hostname", c->pod->name));
    all_services(&v, c->pod);
    if (env_from(&v, c->pod, val_get(spec, "envFrom"), err) < 0)
        return NULL;
    VAL_EACH (val_get(spec, "env"), e) {
        const struct val *from = val_get(e, "valueFrom");
        if (from && !val_is_null(from)) {
            if (value_from(&v, c, e, from, err) < 0)
                return NULL;
        } else {
            set(&v, val_str_at(e, "name", ""), expand(&v, val_str_at(e, "value", "")));
        }
    }
    /* The map itself goes first: spec.c needs it for $(NAME) in command and args. */
    val_push(a, list, v.map);
    VAL_EACH_MEMBER (v.map, m)
        val_push_str(a, list, arena_printf(a, "%s=%s", m->key, m->v.s));
    return list;
    (void)member;
}

/* ---- fields -------------------------------------------------------------------------------------
 */

static const char *map_text(struct arena *a, const struct val *map)
{
    struct buf b = {0};

    VAL_EACH_MEMBER (map, m) {
        buf_printf(&b, "%s%s=\"", b.n ? "\n" : "", m->key);
        for (const char *s = val_text(&m->v, ""); *s; s++) {
            if (*s == '"' || *s == '\\')
                buf_addc(&b, '\\');
            if (*s == '\n')
                buf_adds(&b, "\\n");
            else
                buf_addc(&b, *s);
        }
        buf_addc(&b, '"');
    }
    const char *out = arena_strdup(a, b.p ? b.p : "");
    buf_done(&b);
    return out;
}

const char *pod_field(struct pod *p, struct arena *a, const char *path)
{
    const struct val *o = obj_val(p->o);
    const char *key;
    size_t n;

    if (streq(path, "metadata.name") || streq(path, "metadata.namespace") ||
        streq(path, "metadata.uid") || streq(path, "spec.nodeName") ||
        streq(path, "spec.serviceAccountName"))
        return arena_strdup(a, val_str_at(o, path, ""));
    if (streq(path, "status.podIP") || streq(path, "status.podIPs"))
        return arena_strdup(a, p->host_net ? p->n->host_ip : p->ip);
    if (streq(path, "status.hostIP") || streq(path, "status.hostIPs"))
        return arena_strdup(a, p->n->host_ip);
    if (streq(path, "metadata.labels") || streq(path, "metadata.annotations"))
        return map_text(a, val_at(o, path));
    for (int i = 0; i < 2; i++) {
        const char *prefix = i ? "metadata.annotations['" : "metadata.labels['";
        if (!str_starts(path, prefix) || !str_ends(path, "']"))
            continue;
        key = path + strlen(prefix);
        n = strlen(key) - 2;
        const struct val *map = val_at(o, i ? "metadata.annotations" : "metadata.labels");
        return arena_strdup(a, val_text(val_getn(map, key, n), ""));
    }
    return NULL;
}

int resource_field(struct pod *p, struct arena *a, const char *container, const char *resource,
                   const char *divisor, const char **ret, struct err *err)
{
    struct ctr *c = pod_ctr(p, container);
    quantity q, div = QUANTITY_ONE;
    const char *dot = strchr(resource, '.');
    bool cpu;

    if (!c)
        return err_set(err, INVALID_ARGUMENT, "resourceFieldRef: no container %s", container);
    if (!dot)
        return err_set(err, INVALID_ARGUMENT, "resourceFieldRef: resource %s", resource);
    const struct val *map = val_at(
        ctr_spec(c), str_starts(resource, "limits.") ? "resources.limits" : "resources.requests");
    const struct val *is = val_get(map, dot + 1);
    cpu = streq(dot + 1, "cpu");
    if (is)
        q = quantity_of(is);
    else if (str_starts(resource, "limits.")) /* no limit: what the node has */
        q = quantity_from_value(cpu                        ? p->n->cpu_n
                                : streq(dot + 1, "memory") ? p->n->memory_bytes
                                                           : 0);
    else
        q = 0;
    if (!quantity_parse(divisor, &div) || div <= 0)
        div = QUANTITY_ONE;
    /* Rounded up, as Kubernetes does. */
    quantity n = (q + div - 1) / div;
    *ret = arena_printf(a, "%lld", (long long)n);
    return 0;
}
