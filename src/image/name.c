/* Names of images. The grammar is that of the distribution project:
 *   [host[:port]/]path[:tag][@sha256:hex]
 * The first part is a host when it holds a '.' or ':' or is "localhost"; otherwise the host is
 * docker.io, and a path of one part lies in library/. */
#include "image/image_int.h"

#include <ctype.h>
#include <stdio.h>

static bool path_ok(const char *p, size_t n)
{
    bool after_sep = true; /* at the start of a part */

    if (n == 0 || n > 255)
        return false;
    for (size_t i = 0; i < n; i++) {
        char c = p[i];

        if (islower((unsigned char)c) || isdigit((unsigned char)c)) {
            after_sep = false;
        } else if (c == '/') {
            if (after_sep)
                return false;
            after_sep = true;
        } else if (c == '.' || c == '_' || c == '-') {
            if (after_sep || i + 1 == n || p[i + 1] == '/')
                return false;
        } else {
            return false;
        }
    }
    return !after_sep;
}

static bool host_ok(const char *p, size_t n)
{
    const char *end = p + n, *at = p;

    if (n == 0 || n > 255)
        return false;
    if (*p == '[') {
        at = memchr(p, ']', n);
        if (!at)
            return false;
        for (const char *q = p + 1; q < at; q++)
            if (!isxdigit((unsigned char)*q) && *q != ':' && *q != '.')
                return false;
        at++;
    } else {
        while (at < end && (isalnum((unsigned char)*at) || strchr(".-", *at)))
            at++;
        if (at == p || !isalnum((unsigned char)p[0]) || !isalnum((unsigned char)at[-1]))
            return false;
    }
    if (at == end)
        return true;
    if (*at++ != ':' || at == end || end - at > 5)
        return false;
    while (at < end)
        if (!isdigit((unsigned char)*at++))
            return false;
    return true;
}

static bool tag_ok(const char *p)
{
    size_t n = strlen(p);

    if (n == 0 || n > 128 || *p == '.' || *p == '-')
        return false;
    for (size_t i = 0; i < n; i++)
        if (!isalnum((unsigned char)p[i]) && !strchr("._-", p[i]))
            return false;
    return true;
}

bool image_digest_ok(const char *digest)
{
    if (!digest || !str_starts(digest, "sha256:") || strlen(digest) != DIGEST_N)
        return false;
    for (const char *p = digest + 7; *p; p++)
        if (!isdigit((unsigned char)*p) && !(*p >= 'a' && *p <= 'f'))
            return false;
    return true;
}

void image_name_done(struct image_name *n)
{
    free(n->host);
    free(n->repo);
    free(n->ref);
    *n = (struct image_name){0};
}

int image_name_parse(const char *text, struct image_name *ret, struct err *err)
{
    const char *at, *slash, *colon, *rest = text, *end;
    const char *digest = NULL, *tag = NULL;
    char host[256] = "docker.io";
    size_t n;

    if (str_empty(text) || strlen(text) > 1024)
        return err_set(err, INVALID_ARGUMENT, "an image name of %zu bytes", text ? strlen(text) : 0);
    at = strchr(text, '@');
    end = at ? at : text + strlen(text);
    if (at && !image_digest_ok(digest = at + 1))
        return err_set(err, INVALID_ARGUMENT, "\"%.200s\" is no image name: bad digest", text);
    slash = memchr(text, '/', (size_t)(end - text));
    if (slash) {
        n = (size_t)(slash - text);
        if (memchr(text, '.', n) || memchr(text, ':', n) || (n == 9 && !memcmp(text, "localhost", 9))) {
            if (!host_ok(text, n))
                return err_set(err, INVALID_ARGUMENT, "\"%.200s\" is no image name: bad host", text);
            snprintf(host, sizeof(host), "%.*s", (int)n, text);
            rest = slash + 1;
        }
    }
    if (streq(host, "index.docker.io") || streq(host, "registry-1.docker.io"))
        snprintf(host, sizeof(host), "docker.io");
    colon = memchr(rest, ':', (size_t)(end - rest));
    n = (size_t)((colon ? colon : end) - rest);
    if (!path_ok(rest, n))
        return err_set(err, INVALID_ARGUMENT, "\"%.200s\" is no image name", text);
    _auto_(freep) char *tag_text =
        colon ? xstrndup(colon + 1, (size_t)(end - colon - 1)) : xstrdup("latest");
    tag = tag_text;
    if (!tag_ok(tag))
        return err_set(err, INVALID_ARGUMENT, "\"%.200s\" is no image name: bad tag", text);
    ret->by_digest = digest != NULL;
    ret->ref = xstrdup(digest ? digest : tag);
    ret->host = xstrdup(host);
    if (streq(host, "docker.io") && !memchr(rest, '/', n))
        ret->repo = xasprintf("library/%.*s", (int)n, rest);
    else
        ret->repo = xstrndup(rest, n);
    return 0;
}

char *image_name_normal(const char *ref, struct err *err)
{
    struct image_name n = {0};
    char *text;

    if (image_name_parse(ref, &n, err) < 0)
        return NULL;
    text = xasprintf("%s/%s%c%s", n.host, n.repo, n.by_digest ? '@' : ':', n.ref);
    image_name_done(&n);
    return text;
}
