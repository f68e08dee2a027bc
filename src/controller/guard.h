/* controller/guard.h - a controller that goes round in circles with the API is slowed down and said so.
 *
 * Three things are circles: an object written with the same content again and again (somebody writes another one in
 * between, or the API makes something else of it), one of the same name made again and again, and one that is deleted
 * young and made again. RETURNS_MAX of these within WINDOW_MS: its writes are held back for DELAY_MS, twice as long
 * each time up to DELAY_MAX_MS, and forgotten when it was quiet for CALM_MS. Content is what a change is about:
 * revisions, generations and times do not count.
 * Bound: OBJECTS_MAX objects are looked at; more are let through. No clock in here: now comes with each call. */
#pragma once

#include "codec/obj.h"

enum {
    GUARD_RETURNS_MAX = 10,
    GUARD_WINDOW_MS = 10000,
    GUARD_DELAY_MS = 1000,
    GUARD_DELAY_MAX_MS = 64000,
    GUARD_CALM_MS = 120000,
    GUARD_OBJECTS_MAX = 4096,
};

struct guard;
struct guard *guard_new(void);
void *guard_free(struct guard *g);
enum guard_act { GUARD_MADE, GUARD_WRITTEN, GUARD_DELETED };
/* How long the object's writes are still held back; 0: they are not. key: which object, or what it is generated from. */
int64_t guard_held_ms(const struct guard *g, const char *key, int64_t now_ms);
/* A write that was done. v: what was written (GUARD_DELETED: what was there). named: its name was given, not generated.
 * > 0: this makes it a circle, and for so long nothing more of it goes through. */
int64_t guard_note(struct guard *g, const char *key, enum guard_act act, const struct val *v, bool named, int64_t now_ms);
