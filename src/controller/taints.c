#include "controller/taints.h"

#include "codec/kubetime.h"

bool toleration_covers(const struct val *toleration, const struct val *taint)
{
    const char *effect = val_str_at(toleration, "effect", "");
    const char *key = val_str_at(toleration, "key", "");
    const char *op = val_str_at(toleration, "operator", "Equal");

    if (*effect && !streq(effect, val_str_at(taint, "effect", "")))
        return false;
    if (*key && !streq(key, val_str_at(taint, "key", "")))
        return false;
    if (streq(op, "Exists"))
        return true;
    return *key && streq(val_str_at(toleration, "value", ""), val_str_at(taint, "value", ""));
}

int64_t taints_bearable_until(const struct val *taints, const struct val *tolerations, int64_t now_ms)
{
    int64_t until = INT64_MAX;

    VAL_EACH(taints, taint) {
        int64_t bears = -1, added = kubetime_parse(val_str_at(taint, "timeAdded", "")), end;

        if (!streq(val_str_at(taint, "effect", ""), "NoExecute"))
            continue;
        VAL_EACH(tolerations, t) { /* the shortest of those that cover it counts */
            int64_t s = val_get(t, "tolerationSeconds") ? val_int_at(t, "tolerationSeconds", 0)
                                                        : INT64_MAX;

            if (!toleration_covers(t, taint))
                continue;
            s = MAX(s, (int64_t)0);
            bears = bears < 0 ? s : MIN(bears, s);
        }
        if (bears < 0)
            return 0;
        if (bears == INT64_MAX)
            continue;
        end = (added < 0 ? now_ms : added) + bears * 1000;
        until = MIN(until, end);
    }
    return until;
}
