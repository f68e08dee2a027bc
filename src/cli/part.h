/* cli/part.h - see part.c. */
#pragma once

/* First call of a part's process: names it in the log, ties it to its supervisor (if one started
 * it), lifts the limit on open files. */
void part_begin(const char *name);
