/* Queries of Logs Insights: the text up to a line "--" (or a NUL, then there are no more) is the query, the lines behind it are events, of the next
 * log group behind a further "--". */
#include "door/aws/logs/insights.h"

#include <string.h>

#include "codec/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = xstrndup((const char *)data, size), *rest = strstr(text, "\n--\n");
    _auto_(arena_freep) struct arena *a = arena_new(), *scratch = arena_new();
    struct err err = {0};
    struct iq *q;
    uint32_t i = 0;
    bool more = true;

    if (rest) {
        *rest = 0;
        rest += 4;
    }
    q = insights_query_parse(a, text, strlen(text), &err);
    ASSERT(q || (err.code && err.msg[0]));
    for (char *line; q && (line = strsep(&rest, "\n")); i++) {
        if (streq(line, "--")) {
            insights_query_next_group(q);
            more = true;
        } else if (more) {
            more = insights_query_event(q, scratch, "/g", &(struct log_event){.pos = {1700000000000 + i * 700, 1, i}, .time_ms = 1700000000000 + i * 700,
                                                              .stream = "s", .text = line, .n = strlen(line)});
            arena_reset(scratch);
        }
    }
    if (q) {
        ASSERT(insights_query_matched(q) <= i);
        (void)!json_text(a, insights_query_results(q, a, 0), NULL);
    }
    free(text);
    return 0;
}
