#include "client/kubeconfig.h"

#include "codec/yaml.h"
#include "env/fs.h"

enum { CONFIG_BYTES_MAX = 4 << 20 };

/* NULL: not base64. */
static char *unbase64(struct arena *a, const char *s)
{
    char *out = arena_alloc(a, strlen(s) * 3 / 4 + 4);
    size_t n = 0;
    uint32_t bits = 0, have = 0;

    for (; *s; s++) {
        int v = *s >= 'A' && *s <= 'Z'   ? *s - 'A'
                : *s >= 'a' && *s <= 'z' ? *s - 'a' + 26
                : *s >= '0' && *s <= '9' ? *s - '0' + 52
                : *s == '+'              ? 62
                : *s == '/'              ? 63
                                         : -1;

        if (*s == '=' || *s == '\n' || *s == '\r' || *s == ' ')
            continue;
        if (v < 0)
            return NULL;
        bits = bits << 6 | (uint32_t)v;
        have += 6;
        if (have >= 8)
            out[n++] = (char)(bits >> (have -= 8));
    }
    out[n] = 0;
    return out;
}

/* KEY-data in base64, or KEY as a file. ret stays NULL when there is neither. */
static int pem(struct arena *a, const char *dir, const struct val *of, const char *key, const char **ret,
               struct err *err)
{
    const char *data = val_text(val_get(of, arena_printf(a, "%s-data", key)), NULL);
    const char *file = val_text(val_get(of, key), NULL);
    _auto_(freep) char *text = NULL;

    if (data) {
        *ret = unbase64(a, data);
        return *ret ? 0 : err_set(err, INVALID_ARGUMENT, "%s-data is not base64", key);
    }
    if (str_empty(file))
        return 0;
    text = fs_read(*file == '/' ? file : arena_printf(a, "%s%s", dir, file), CONFIG_BYTES_MAX, NULL, err);
    if (!text)
        return -1;
    *ret = arena_strdup(a, text);
    return 0;
}

static const struct val *named(const struct val *list, const char *name, const char *what)
{
    VAL_EACH(list, it)
        if (streq(val_str_at(it, "name", ""), name))
            return val_get(it, what);
    return NULL;
}

int kubeconfig_read(struct arena *a, const char *path, struct kubeconfig *ret, struct err *err)
{
    size_t n;
    _auto_(freep) char *text = fs_read(path, CONFIG_BYTES_MAX, &n, err);
    struct val *v = text ? yaml_parse(a, text, n, NULL, NULL, err) : NULL;
    const char *slash = strrchr(path, '/'), *now = val_str_at(v, "current-context", "");
    const char *dir = slash ? arena_strndup(a, path, (size_t)(slash - path) + 1) : "";
    const struct val *context, *cluster, *user;
    struct kubeconfig k = {0};

    if (!v)
        return err_wrap(err, "kubeconfig %s", path);
    context = named(val_get(v, "contexts"), now, "context");
    cluster = named(val_get(v, "clusters"), val_str_at(context, "cluster", ""), "cluster");
    user = named(val_get(v, "users"), val_str_at(context, "user", ""), "user");
    k.server = val_str_at(cluster, "server", NULL);
    if (!k.server)
        return err_set(err, INVALID_ARGUMENT, "kubeconfig %s: the current context \"%s\" names no cluster with a server",
                       path, now);
    if (pem(a, dir, cluster, "certificate-authority", &k.ca_pem, err) < 0 ||
        pem(a, dir, user, "client-certificate", &k.cert_pem, err) < 0 ||
        pem(a, dir, user, "client-key", &k.key_pem, err) < 0)
        return err_wrap(err, "kubeconfig %s", path);
    k.token = val_str_at(user, "token", NULL);
    k.token_file = val_str_at(user, "tokenFile", NULL);
    k.server_name = val_text(val_get(cluster, "tls-server-name"), NULL);
    k.insecure = val_bool_at(cluster, "insecure-skip-tls-verify", false);
    k.namespace_ = val_str_at(context, "namespace", "default");
    *ret = k;
    return 0;
}
