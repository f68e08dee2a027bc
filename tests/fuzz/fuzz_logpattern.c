/* Filter patterns: the first line is the pattern, the rest are texts. What parses matches without harm, twice the same. */
#include "logs/pattern.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = xstrndup((const char *)data, size), *rest = text, *first = strsep(&rest, "\n");
    struct err err = {0};
    struct log_pattern *p = log_pattern_parse(first, &err);

    ASSERT(p || (err.code == ERR_INVALID_ARGUMENT && err.msg[0]));
    for (char *line; p && (line = strsep(&rest, "\n"));)
        ASSERT(log_pattern_match(p, line, strlen(line)) == log_pattern_match(p, line, strlen(line)));
    log_pattern_free(p);
    free(text);
    return 0;
}
