/* codec/json_part.h - a text of our own (json_parse_own) read by pieces, by who makes something else of it than a tree.
 *
 * p is the next byte to be read; at the end it is a 0. The text is changed as its strings are read. Each call takes
 * what stands at p and says false when it is not that. */
#pragma once

#include "codec/val.h"

struct json_part {
    struct arena *a;
    char *p, *begin, *end;
    struct val_member *stack; /* of maps and lists that are not whole yet */
    uint32_t n, cap;
    int depth;
    bool lean, in_meta; /* json_parse_lean(); below the object's metadata */
    struct json_skim *skim; /* json_parse_skim() */
};

/* text has JSON_ROOM bytes behind its n. */
void json_part_init(struct json_part *r, struct arena *a, char *text, size_t n);
void json_part_done(struct json_part *r);
bool json_part_value(struct json_part *r, struct val *ret); /* ret is zero */
bool json_part_string(struct json_part *r, const char **ret, uint32_t *ret_n);
bool json_part_as_text(struct json_part *r, struct val *ret); /* a map or list (VAL_FLAG_JSON), not ended by 0 */
