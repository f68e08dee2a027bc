/* gateway/groups.h - LogGroup objects stand for the log groups that logs/ keeps.
 *
 * An object is made for a group that began by a function's line; a group whose object goes, goes with its files; the
 * object's retention is the group's. */
#pragma once

struct client;
struct groups;
struct logs;

struct groups *groups_new(struct client *client, struct logs *logs);
void *groups_free(struct groups *g); /* NULL is fine */
