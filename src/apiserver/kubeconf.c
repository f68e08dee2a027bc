/* apiserver/kubeconf.c - see kubeconf.h. */
#include "apiserver/kubeconf.h"

#include "auth/b64.h"
#include "codec/yaml.h"
#include "env/fs.h"

enum { FILE_BYTES_MAX = 1 << 20 };

static const struct val *named(const struct val *list, const char *name)
{
    VAL_EACH(list, it)
        if (streq(val_str_at(it, "name", ""), name))
            return it;
    return NULL;
}

/* A path in the file is meant beside the file. */
static char *beside(struct arena *a, const char *file, const char *path)
{
    const char *slash = strrchr(file, '/');

    return *path == '/' || !slash ? arena_strdup(a, path)
                                  : arena_printf(a, "%.*s/%s", (int)(slash - file), file, path);
}

/* KEY-data (base64) or the file KEY; absent is fine. */
static int text_of(const struct val *v, const char *key, const char *file, struct arena *a,
                   const char **ret, struct err *err)
{
    const char *data = val_text(val_get(v, arena_printf(a, "%s-data", key)), "");
    const char *path = val_text(val_get(v, key), "");
    size_t n;

    if (*data) {
        if (!(*ret = (char *)base64_decode(a, data, strlen(data), &n)))
            return err_set(err, INVALID_ARGUMENT, "%s-data is not base64", key);
    } else if (*path) {
        _auto_(freep) char *text = fs_read(beside(a, file, path), FILE_BYTES_MAX, &n, err);

        if (!text)
            return -1;
        *ret = arena_strdup(a, text);
    }
    return 0;
}

static int read_server(const char *url, struct arena *a, struct kubeconf *ret, struct err *err)
{
    const char *host = strstr(url, "://"), *slash = host ? strchr(host + 3, '/') : NULL;

    if (!host || (!str_starts(url, "https://") && !str_starts(url, "http://")))
        return err_set(err, INVALID_ARGUMENT, "server: \"%s\" is not an http(s) URL", url);
    ret->server = slash ? arena_strndup(a, url, (size_t)(slash - url)) : arena_strdup(a, url);
    ret->path = slash ? arena_strdup(a, slash) : "/";
    return 0;
}

int kubeconf_read(const char *file, struct arena *a, struct kubeconf *ret, struct err *err)
{
    size_t n;
    _auto_(freep) char *text = fs_read(file, FILE_BYTES_MAX, &n, err);
    struct val *v = text ? yaml_parse(a, text, n, NULL, NULL, err) : NULL;
    const struct val *context, *cluster, *user, *list;
    struct kubeconf k = {0};
    const char *token_file = NULL;

    if (!v)
        return -1;
    list = val_get(v, "contexts");
    context = named(list, val_str_at(v, "current-context", ""));
    if (!context && val_len(list) == 1)
        context = &list->items[0];
    list = val_get(v, "clusters");
    cluster = val_get(named(list, val_str_at(context, "context.cluster", "")), "cluster");
    if (!cluster && val_len(list) == 1)
        cluster = val_get(&list->items[0], "cluster");
    user = val_get(named(val_get(v, "users"), val_str_at(context, "context.user", "")), "user");
    if (!cluster)
        return err_set(err, INVALID_ARGUMENT, "%s names no cluster in its current context", file);
    if (read_server(val_str_at(cluster, "server", ""), a, &k, err) < 0 ||
        text_of(cluster, "certificate-authority", file, a, &k.ca_pem, err) < 0 ||
        text_of(user, "client-certificate", file, a, &k.cert_pem, err) < 0 ||
        text_of(user, "client-key", file, a, &k.key_pem, err) < 0 ||
        text_of(user, "tokenFile", file, a, &token_file, err) < 0)
        return err_wrap(err, "%s", file);
    k.insecure = val_bool_at(cluster, "insecure-skip-tls-verify", false);
    k.server_name = val_text(val_get(cluster, "tls-server-name"), NULL);
    k.token = val_text(val_get(user, "token"), token_file);
    if (k.token)
        k.token = arena_strndup(a, k.token, strcspn(k.token, "\r\n"));
    *ret = k;
    return 0;
}

struct http_origin *kubeconf_origin(struct http_client *c, const struct kubeconf *k, struct err *err)
{
    struct http_origin_opts o = {.ca_pem = k->ca_pem, .cert_pem = k->cert_pem, .key_pem = k->key_pem,
                                 .server_name = k->server_name, .insecure = k->insecure};

    return http_origin_new(c, k->server, &o, err);
}
