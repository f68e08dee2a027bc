/* schema/crd_path.c - where a path of property names leads within an openAPIV3Schema. */
#include "schema/crd_int.h"

#include <string.h>

/* One step: ".name" or "['name']", the name in name[]. 0: the path is none. */
static size_t step(const char *p, char *name, size_t size, bool *ret_key)
{
    size_t n = 0, used;

    *ret_key = *p == '[';
    if (*p == '.') {
        for (used = 1; p[used] && p[used] != '.' && p[used] != '['; used++)
            if (n + 1 < size && (p[used] == '_' || (p[used] >= '0' && p[used] <= '9' && n) ||
                                 ((p[used] | 0x20) >= 'a' && (p[used] | 0x20) <= 'z')))
                name[n++] = p[used];
            else
                return 0;
        name[n] = 0;
        return n ? used : 0;
    }
    if (*p != '[' || p[1] != '\'')
        return 0;
    for (used = 2; p[used] && !(p[used] == '\'' && p[used + 1] == ']'); used++) {
        if (p[used] == '\\' && p[used + 1])
            used++;
        if (n + 1 >= size)
            return 0;
        name[n++] = p[used];
    }
    name[n] = 0;
    return p[used] ? used + 2 : 0;
}

const struct val *crd_path_schema(const struct val *js, const char *path, bool maps)
{
    char name[256];

    if (!*path)
        return NULL;
    while (*path) {
        bool key;
        size_t used = step(path, name, sizeof(name), &key);
        const struct val *props = val_get(js, "properties"), *more = val_get(js, "additionalProperties");
        if (!used)
            return NULL;
        path += used;
        if (val_get(props, name))
            js = val_get(props, name);
        else if (maps && val_is(more, VAL_MAP))
            js = more;
        else
            return NULL;
    }
    return js;
}
