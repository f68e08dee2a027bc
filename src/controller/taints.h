/* controller/taints.h - tolerations against taints of effect NoExecute. Pure. */
#pragma once

#include "codec/val.h"

bool toleration_covers(const struct val *toleration, const struct val *taint);
/* Until when (ms since 1970) a pod with these tolerations may stay on a node with these taints;
 * INT64_MAX: for ever, 0: it must go now. */
int64_t taints_bearable_until(const struct val *taints, const struct val *tolerations, int64_t now_ms);
