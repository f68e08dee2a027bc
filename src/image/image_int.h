/* image/image_int.h - what the files of this room share. */
#pragma once

#include "base/arena.h"
#include "base/list.h"
#include "base/log.h"
#include "base/map.h"
#include "codec/json.h"
#include "image/image.h"

#include <openssl/evp.h>
#include <pthread.h>
#include <sys/stat.h>

enum {
    JSON_BLOB_MAX = 8 << 20,   /* manifests, configs, index.json */
    LAYERS_MAX = 128,          /* overlayfs takes 500 */
    HEX_N = 64,                /* hex digits of a sha256 */
    DIGEST_N = 7 + HEX_N,      /* "sha256:" + hex */
    UNPACK_ENTRIES_MAX = 4000000,
};
#define UNPACK_BYTES_MAX ((int64_t)64 << 30) /* one layer; a bomb is an error, not a full disk */

struct image_store {
    char *dir, *registries_path;
    int dirfd;
    pthread_mutex_t mu;   /* all below */
    pthread_cond_t pulled; /* a pull has ended */
    struct arena *a;      /* of index */
    struct val *index;    /* {"images": {NAME: ENTRY}, "sources": {FILE: STAMP}} */
    struct stat seen;     /* index.json when it was read */
    struct map images;    /* name -> struct image *, made when first asked for */
    struct map pulling;   /* name -> the store itself: somebody is at it */
};

/* name.c */
struct image_name {
    char *host; /* "docker.io" */
    char *repo; /* "library/nginx" */
    char *ref;  /* "latest" or "sha256:..." */
    bool by_digest;
};
int image_name_parse(const char *text, struct image_name *ret, struct err *err);
void image_name_done(struct image_name *n);
bool image_digest_ok(const char *digest); /* "sha256:" + 64 lower-case hex digits */

/* fs.c */
int fsat_mkdirs(const char *path, mode_t mode, struct err *err);
/* Replaces dir/name by these bytes: fsynced, atomic. */
int fsat_write(int dirfd, const char *name, const void *p, size_t n, struct err *err);
int fsat_read(int dirfd, const char *name, size_t max, struct buf *ret, struct err *err);
/* Removes name and all below it; what is not there is fine. */
int fsat_remove_tree(int dirfd, const char *name, struct err *err);
int64_t fs_tree_bytes(int dirfd, const char *name);
struct sha {
    EVP_MD_CTX *ctx;
};
void sha_init(struct sha *s);
void sha_add(struct sha *s, const void *p, size_t n);
void sha_end(struct sha *s, char ret[DIGEST_N + 1]); /* "sha256:..." */
void sha_done(struct sha *s);                       /* without the digest */
void sha_of(const void *p, size_t n, char ret[DIGEST_N + 1]);

/* store.c */
/* Locks of the store, over all processes. work (shared) is held by whoever adds blobs and layers
 * that the index does not know yet; the sweep wants it alone. Give the descriptor to close(). */
int store_lock_work(struct image_store *s, bool alone, bool wait, struct err *err);
/* Blobs. put checks the digest when want is not NULL. */
int blob_put(struct image_store *s, const void *p, size_t n, const char *want,
             char ret_digest[DIGEST_N + 1], struct err *err);
int blob_read(struct image_store *s, const char *digest, struct buf *ret, struct err *err);
bool layer_have(struct image_store *s, const char *diff_id);
/* A fresh name below layers/ for work under way, and its end: makes it the layer diff_id. */
void layer_tmp_name(char ret[64]);
int layer_commit(struct image_store *s, const char *tmp, const char *diff_id, struct err *err);
/* Enters an image whose config and manifest blobs and layers are there, under name. */
struct image *store_enter(struct image_store *s, const char *name, const char *manifest_digest,
                          int64_t size, struct err *err);
/* Remembers / asks for a line about a source file (image_import_dir). */
int store_source_set(struct image_store *s, const char *file, const char *stamp, struct err *err);
bool store_source_is(struct image_store *s, const char *file, const char *stamp);
/* A stored config's diff-ids; what is malformed is INVALID. Strings live in a. */
int config_diff_ids(struct arena *a, const struct val *config, const char ***ret, uint32_t *ret_n,
                    struct err *err);

/* unpack.c */
struct unpack_options {
    bool bottom;    /* no layer below: whiteouts say nothing */
    bool files_only; /* an archive of an image: regular files and symlinks, our own owner */
    image_progress_fn *progress;
    void *arg;
    const char *what; /* for progress */
    int64_t total;
};
/* Unpacks the (compressed or plain) tar read from fd into the directory dirfd. ret_diff_id = sha256
 * of the plain tar; *ret_bytes (may be NULL) = its length. */
int image_unpack(int fd, int dirfd, const struct unpack_options *o, char ret_diff_id[DIGEST_N + 1],
                 int64_t *ret_bytes, struct err *err);
/* Unpacks fd as a layer of the store, which then has it under its diff-id. want (may be NULL):
 * the diff-id that it must have. */
int image_unpack_layer(struct image_store *s, int fd, const struct unpack_options *o,
                       const char *want, char ret_diff_id[DIGEST_N + 1], int64_t *ret_bytes,
                       struct err *err);
/* Decides by the first entries what a tar is: 1 an archive of images, 0 something else, -1. */
int image_tar_is_layout(int fd, struct err *err);

/* pick.c */
/* The manifest of an index that runs here: linux/amd64. NULL and NOT_FOUND. */
const struct val *index_pick(const struct val *index, struct err *err);
bool media_is_index(const struct val *doc);
/* Checks the parts of a manifest that we use; INVALID says which is wrong. */
int manifest_check(const struct val *manifest, struct err *err);
