/* function/code.h - the code of a function: a zip, kept by its content.
 *
 * The zip lies in STATE/blobs/sha256/HEX, its files in STATE/functions/HEX/ (made once, under
 * another name and then renamed, so that a half-unpacked one is never seen). Zips come from
 * outside and are refused when they hold absolute paths, "..", links that leave the folder,
 * devices, too many files or more than CODE_UNPACKED_MAX bytes.
 * Blocking file work (milliseconds to a second): call it from a pool thread where that matters. */
#pragma once

#include "base/err.h"

enum {
    CODE_HEX = 65, /* a sha256 in hex and its final 0 */
    CODE_ZIP_MAX = 70 * 1024 * 1024,
    CODE_UNPACKED_MAX = 250 * 1024 * 1024,
    CODE_FILES_MAX = 50000,
};

/* Checks, keeps and unpacks a zip; it is durable when this returns 0. Again with the same bytes:
 * cheap. INVALID_ARGUMENT with a text for the user when the zip is bad, TOO_LARGE when it is too
 * big. ret_sha256 is the name to write into spec.codeSha256. */
int code_put(const char *state, const void *zip, size_t n, char ret_sha256[CODE_HEX],
             struct err *err) _must_check_;
/* The same from a directory (for `tandem deploy`): makes the zip. *ret_zip is the caller's. */
int code_zip_folder(const char *folder, char **ret_zip, size_t *ret_n, struct err *err)
    _must_check_;
/* The same of one file, by its own name. */
int code_zip_file(const char *path, char **ret_zip, size_t *ret_n, struct err *err) _must_check_;
/* The folder of unpacked code (caller frees), unpacking the blob when the folder is missing.
 * NOT_FOUND when the blob is missing too. */
char *code_folder(const char *state, const char *sha256, struct err *err) _must_check_;
/* Removes zips, unpacked code and what is named after it (HEX.compiled ...) whose name is not in `used`, when that has been
 * so for keep_s seconds: `idle` is what the caller keeps from one look to the next (name -> since when). What was put a
 * moment ago, and is perhaps not in an object yet, stays. How many names went. */
struct map;
uint32_t code_collect(const char *state, const struct map *used, struct map *idle, int64_t now_s, int64_t keep_s);
/* Removes all unpacked folders (not the zips). Nothing may run from them. */
void code_forget_folders(const char *state);
