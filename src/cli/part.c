/* What the parts that `up` starts have in common: they go when their supervisor goes. */
#include "cli/part.h"

#include "base/log.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <unistd.h>

void part_begin(const char *name)
{
    const char *supervisor = getenv("TANDEM_SUPERVISOR");
    struct rlimit files;

    log_set_part(name);
    if (supervisor) {
        prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != atoi(supervisor))
            exit(EXIT_FAILURE); /* it went while we started */
        unsetenv("TANDEM_SUPERVISOR");
    }
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        setrlimit(RLIMIT_NOFILE, &files);
    }
}
