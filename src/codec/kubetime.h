/* codec/kubetime.h - metav1.Time and MicroTime: RFC 3339 in UTC. Times are ms since 1970. */
#pragma once

#include "base/base.h"

enum { KUBETIME_MAX = 32 };
/* -1: absent or not RFC 3339 (offsets and fractions are understood). */
int64_t kubetime_parse(const char *s);
const char *kubetime_text(char buf[static KUBETIME_MAX], int64_t ms); /* 2026-01-02T03:04:05Z */
const char *kubetime_micro(char buf[static KUBETIME_MAX], int64_t us); /* 2026-01-02T03:04:05.000006Z */
