#include "auth/user.h"

bool auth_user_in(const struct auth_user *u, const char *group)
{
    for (const char *const *g = u->groups; g && *g; g++)
        if (streq(*g, group))
            return true;
    return false;
}
