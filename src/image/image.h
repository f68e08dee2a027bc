/* image/image.h - container images on this machine: names, blobs, unpacked layers.
 *
 * One directory (STATE/images) holds everything:
 *   blobs/sha256/HEX      manifests, configs, compressed layers as they came (only while needed)
 *   layers/HEX/           one unpacked layer per diff-id, ready to be a lower of an overlay
 *                         (whiteouts are 0:0 character devices, opaque dirs carry
 *                         trusted.overlay.opaque=y); complete once the name exists
 *   index.json            name -> manifest, config, layers; replaced atomically, fsynced
 *   holds/OWNER           images that somebody (a pod's uid) uses: their layers stay
 *   import/               archives dropped here are imported by image_import_dir()
 *   lock                  flock: taken by every change, so the cli and the node may both write
 * A name is normalised as container runtimes do: "nginx" is docker.io/library/nginx:latest.
 * Every change is durable and atomic: kill -9 leaves the old or the new state, and left-overs of
 * the half-way kind are swept at the next open.
 *
 * Thread: a store is thread-safe (one mutex, never held across I/O of layers); struct image is
 * immutable and atomically counted. */
#pragma once

#include "base/buf.h"
#include "base/err.h"

#include <sys/types.h>

struct image_store;
struct uv_loop_s;

/* What a container of this image runs when nobody says otherwise. Lists end in NULL, never NULL
 * themselves; strings are never NULL ("" = not set). */
struct image_config {
    const char *const *entrypoint, *const *cmd, *const *env; /* env: "NAME=value" */
    const char *const *exposed; /* "80/tcp" */
    const char *const *volumes; /* paths */
    const char *workdir;
    const char *user;        /* as written: "", "1000", "www:www" */
    const char *stop_signal; /* "SIGTERM" or "15" */
};

struct image {
    _Atomic uint32_t refs;
    const char *name;   /* normalised name that was asked for */
    const char *digest; /* of the manifest: "sha256:..." */
    const char *id;     /* of the config: "sha256:..." */
    const char *repo_digest; /* "docker.io/library/nginx@sha256:...": a container's imageID */
    const char *created; /* RFC 3339, "" when unknown */
    const char *const *lowers; /* absolute paths, topmost layer FIRST as overlay's lowerdir wants */
    uint32_t n_lowers;
    int64_t size; /* bytes of the layers as transferred or imported */
    struct image_config config;
};
struct image *image_ref(const struct image *img);
void *image_unref(const struct image *img); /* NULL is fine; gives back NULL */
DEFINE_AUTO(const struct image *, image_unref, image_unref)

/* Opens (and makes) the store at dir. Mirrors and credentials come from registries_path (may be
 * NULL or absent), JSON:
 *   {"registries": {"docker.io": {"mirrors": ["http://127.0.0.1:5000"], "username": "...",
 *     "password": "...", "insecure": false, "ca": "/path.pem"}}}
 * Mirrors are tried in order, then the registry itself; plain http is allowed for loopback
 * addresses and for registries marked insecure. "*" stands for every registry. */
struct image_store *image_store_open(const char *dir, const char *registries_path,
                                     struct err *err) _must_check_;
void *image_store_close(struct image_store *s); /* NULL is fine */
DEFINE_AUTO(struct image_store *, image_store_close, image_store_close)
const char *image_store_dir(const struct image_store *s);

/* names */
/* The normal form, "docker.io/library/nginx:latest" or "...@sha256:HEX" (a tag beside a digest is
 * dropped); free() it. NULL and INVALID_ARGUMENT when it is no image name. */
char *image_name_normal(const char *ref, struct err *err) _must_check_;

/* looking */
/* The image of that name ("name", "name:tag", "name@sha256:..", or an id prefix of >= 12 hex), or
 * NULL and NOT_FOUND. Cheap (memory, one stat): fine on a loop thread. Caller unrefs. */
struct image *image_resolve(struct image_store *s, const char *ref, struct err *err) _must_check_;
/* All names, sorted; *ret is an array of *ret_n references, free with image_list_free. */
int image_ls(struct image_store *s, struct image ***ret, size_t *ret_n, struct err *err);
void image_list_free(struct image **list, size_t n);

/* "user[:group]" of config or pod -> ids, by /etc/passwd and /etc/group of the image ("" = 0:0;
 * a number without an entry is gid 0). groups_max supplementary groups at most are put into
 * groups; *ret_n_groups may be NULL. home (256 bytes, may be NULL) gets the home directory or "/".
 * INVALID_ARGUMENT when there is no such user. */
int image_user(const struct image *img, const char *user, uid_t *ret_uid, gid_t *ret_gid,
               gid_t *groups, size_t groups_max, size_t *ret_n_groups, char *ret_home,
               struct err *err);

/* changing; the sync forms block for as long as it takes: cli and worker threads only */

/* Progress of a pull or an import: done and total in bytes (total 0 = not known yet). Called on
 * the thread that works. Returns false to give up (the call ends with CANCELLED). */
typedef bool image_progress_fn(void *arg, const char *what, int64_t done, int64_t total);

struct image_import_options {
    const char *name;     /* for a plain rootfs (required there), else overrides the archive's name */
    const char *const *entrypoint, *const *cmd, *const *env; /* NULL-ended; NULL = not given */
    const char *workdir, *user, *stop_signal;                /* NULL = not given */
    image_progress_fn *progress;
    void *arg;
};
/* path: an OCI layout (directory or tar, compressed or not), a docker-save archive, or a plain
 * tar of a root file system. Gives the (first) image, caller unrefs. */
struct image *image_import(struct image_store *s, const char *path,
                           const struct image_import_options *o, struct err *err) _must_check_;
/* Imports what lies in STATE/images/import (or dir): NAME.tar[.gz|.zst|.xz] with, for a plain
 * rootfs, an optional NAME.json beside it ({"name","entrypoint","cmd","env","workdir","user"}; the
 * name is NAME otherwise). What was imported unchanged before is skipped. Gives how many were
 * imported; a bad archive is logged and left out. */
int image_import_dir(struct image_store *s, const char *dir, struct err *err);

struct image_pull_options {
    const char *username, *password; /* from an image pull secret; NULL = as registries.json says */
    image_progress_fn *progress;
    void *arg;
    int64_t timeout_ms; /* for the whole pull, 0 = 30 minutes */
};
/* linux/amd64 of the reference. NOT_FOUND: no such repository or tag; UNAUTHENTICATED, FORBIDDEN;
 * BAD_GATEWAY and TIMEOUT after the retries; INVALID: what came does not match its digest. */
struct image *image_pull(struct image_store *s, const char *ref, const struct image_pull_options *o,
                         struct err *err) _must_check_;
int image_tag(struct image_store *s, const char *ref, const char *name, struct err *err);
/* Drops the name; with the last name of an image nobody holds, its layers and blobs go too. */
int image_rm(struct image_store *s, const char *ref, struct err *err);
/* Sweeps what nothing refers to; *ret_bytes (may be NULL) = bytes freed. */
int image_gc(struct image_store *s, int64_t *ret_bytes, struct err *err);
/* A durable "in use" by owner (a pod's uid: letters, digits, '-', '.', '_'): layers of a held
 * image stay when its name goes. Several images per owner add up. Release drops all of owner's;
 * releasing what is not held is fine. image_holders: NULL-ended list, free() it in one go. */
int image_hold(struct image_store *s, const char *owner, const struct image *img, struct err *err);
int image_release(struct image_store *s, const char *owner, struct err *err);
char **image_holders(struct image_store *s, struct err *err);

/* The same on the loop's thread pool. done is called once on the loop's thread, with a reference
 * the callee owns, or NULL and the error; also after a cancel (then CANCELLED). Strings of the
 * options are copied; progress is called on the loop's thread, at most ten times a second. Equal
 * pulls at the same time share one transfer. image_import_dir_async gives no image: it worked when
 * the error's code is ERR_OK. */
struct image_job;
typedef void image_done_fn(void *arg, struct image *img, const struct err *err);
struct image_job *image_pull_async(struct image_store *s, struct uv_loop_s *loop, const char *ref,
                                   const struct image_pull_options *o, image_done_fn *done,
                                   void *arg);
struct image_job *image_import_async(struct image_store *s, struct uv_loop_s *loop,
                                     const char *path, const struct image_import_options *o,
                                     image_done_fn *done, void *arg);
struct image_job *image_import_dir_async(struct image_store *s, struct uv_loop_s *loop,
                                         const char *dir, image_done_fn *done, void *arg);
void image_job_cancel(struct image_job *job); /* done still comes, later */

/* `tandem image ...`: argv[0] is "image". import [--name N] [--cmd JSON|WORDS] [--entrypoint ..]
 * [--env K=V].. [--workdir D] [--user U] FILE.., ls [-q] [--json], rm NAME.., pull NAME.., tag, gc,
 * inspect. Prints to stdout/stderr, gives the exit code (0, 1 failed, 2 usage). */
int image_cli(int argc, char **argv, const char *state_dir);
