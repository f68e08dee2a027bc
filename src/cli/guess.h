/* cli/guess.h - what a folder of code is: its handler and runtime by what lies in it, and whether its files can be read
 * by their language at all. Reads text; runs nothing of the folder. */
#pragma once

#include "base/arena.h"
#include "base/err.h"

struct guess {
    const char *handler, *runtime; /* "index.handler", "nodejs20.x"; in the arena or literals */
};
/* By convention: an executable `bootstrap`; lambda_function.py, handler.py, app.py, main.py, index.py; package.json's
 * main, index, app, handler (.mjs .js .cjs); main.wasm, main.wat or the only .wasm. handler and runtime (either may be NULL) are what the caller knows already;
 * a handler's file must be there. INVALID_ARGUMENT says what is missing and what to write. */
int guess_folder(struct arena *a, const char *folder, const char *handler, const char *runtime, struct guess *ret,
                 struct err *err) _must_check_;
/* The handler's file below the folder ("index.mjs"), or NULL: there is none (a bootstrap needs none). */
const char *guess_file(struct arena *a, const char *folder, const struct guess *g);
/* Is the handler's file a WebAssembly component that serves HTTP (it exports wasi:http/incoming-handler@0.2)? */
bool guess_wasm_http(struct arena *a, const char *folder, const char *file);
/* INVALID_ARGUMENT with "FILE:LINE: what" when the language of the runtime cannot read one of these files (paths below
 * the folder; others than its source files are passed over). Without its interpreter here: nothing is said. */
int guess_check(const char *folder, const char *runtime, const char *const *files, size_t n, struct err *err) _must_check_;
