/* Manifests and indexes of the two families, OCI and Docker v2: which one runs here, and whether
 * the parts that we use are well formed. */
#include "image/image_int.h"

bool media_is_index(const struct val *doc)
{
    const char *type = val_text(val_get(doc, "mediaType"), "");

    return strstr(type, "manifest.list") || strstr(type, "image.index") ||
           (!*type && val_is(val_get(doc, "manifests"), VAL_LIST));
}

const struct val *index_pick(const struct val *index, struct err *err)
{
    const struct val *unknown = NULL, *list = val_get(index, "manifests");
    uint32_t without = 0;

    VAL_EACH(list, it) {
        const char *os = val_str_at(it, "platform.os", ""), *arch = val_str_at(it, "platform.architecture", "");

        if (!image_digest_ok(val_str_at(it, "digest", NULL)))
            return err_set(err, INVALID, "the index holds a bad digest"), NULL;
        if (streq(os, "linux") && streq(arch, "amd64"))
            return it;
        if (!*os && !*arch) { /* a layout of one image often says nothing */
            unknown = it;
            without++;
        }
    }
    if (without >= 1)
        return unknown;
    err_set(err, NOT_FOUND, "the image has no variant for linux/amd64");
    return NULL;
}

int manifest_check(const struct val *manifest, struct err *err)
{
    const struct val *layers = val_get(manifest, "layers");

    if (!val_is(manifest, VAL_MAP) || val_int_at(manifest, "schemaVersion", 0) != 2)
        return err_set(err, INVALID, "the manifest is not of schema version 2");
    if (!image_digest_ok(val_str_at(manifest, "config.digest", NULL)))
        return err_set(err, INVALID, "the manifest has no config digest (sha256)");
    if (!val_is(layers, VAL_LIST) || layers->n > LAYERS_MAX)
        return err_set(err, INVALID, "the manifest has no list of at most %d layers", LAYERS_MAX);
    VAL_EACH(layers, it) {
        const char *type = val_str_at(it, "mediaType", "");

        if (!image_digest_ok(val_str_at(it, "digest", NULL)) || val_int_at(it, "size", -1) < 0)
            return err_set(err, INVALID, "the manifest has a layer without digest or size");
        if (strstr(type, "encrypted"))
            return err_set(err, INVALID, "encrypted layers are not supported");
        if (*type && !strstr(type, "tar"))
            return err_set(err, INVALID, "not a container image: a layer is of type %.100s", type);
    }
    return 0;
}

int config_diff_ids(struct arena *a, const struct val *config, const char ***ret, uint32_t *ret_n,
                    struct err *err)
{
    const struct val *list = val_at(config, "rootfs.diff_ids");
    const char **ids;
    uint32_t n = 0;

    if (!val_is(list, VAL_LIST) || list->n > LAYERS_MAX)
        return err_set(err, INVALID, "the image config has no list of at most %d diff-ids", LAYERS_MAX);
    ids = arena_array(a, const char *, list->n + 1);
    VAL_EACH(list, it) {
        if (!image_digest_ok(val_text(it, NULL)))
            return err_set(err, INVALID, "the image config has a bad diff-id");
        ids[n++] = arena_strdup(a, it->s);
    }
    *ret = ids;
    *ret_n = n;
    return 0;
}
