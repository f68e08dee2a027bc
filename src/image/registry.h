/* image/registry.h - one repository of one registry over HTTP(S): GET with token or basic
 * authentication, retries, resumed downloads. By libcurl; blocking; any threads may share one. */
#pragma once

#include "env/clock.h"
#include "image/image_int.h"

struct registry;
struct registry_options {
    const char *base;  /* "https://host[:port]" */
    const char *repo;  /* "library/nginx" */
    const char *username, *password; /* NULL: none */
    const char *ca;    /* file of certificates, NULL: the system's */
    bool insecure;     /* certificates are not checked */
    int64_t deadline_ms; /* monotonic */
    image_progress_fn *progress; /* asked often, with done of the current transfer; may be NULL */
    void *arg;
};
struct registry *registry_new(const struct registry_options *o);
void *registry_free(struct registry *r);
DEFINE_AUTO(struct registry *, registry_free, registry_free)

/* GET base/v2/repo/kind/ref into ret (at most JSON_BLOB_MAX); its digest is checked when ref is
 * one. Gives the content type (64 bytes). */
int registry_get(struct registry *r, const char *kind, const char *ref, struct buf *ret,
                 char ret_type[128], struct err *err);
/* GET base/v2/repo/blobs/digest into fd (empty, seekable); size and digest are checked. received
 * is called with the growth. */
int registry_blob(struct registry *r, const char *digest, int64_t size, int fd,
                  bool (*received)(void *arg, int64_t n), void *arg, struct err *err);
