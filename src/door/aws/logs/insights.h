/* door/aws/logs/insights.h - a small part of the query language of CloudWatch Logs Insights, as pure functions.
 *
 *   fields F [as NAME], ...    display F, ...    filter EXPRESSION    sort F [asc|desc]    limit N
 *   stats count(*) | count(F) | sum(F) | avg(F) | min(F) | max(F) [as NAME], ... [by F | bin(5m), ...]
 * EXPRESSION: F = != < <= > >= VALUE, F [not] like "text" | /regex/, F [not] in [...], ispresent(F), not, and, or, ( ).
 * Fields: @timestamp @ingestionTime @message @logStream @log @ptr, those of Lambda's own lines (@type @requestId @duration @billedDuration
 * @memorySize @maxMemoryUsed @initDuration), and a.b.0.c of a message that is a JSON object.
 *
 * A query is read (_parse), takes events one by one (_event), and is read out (_results). All of it lies in its arena. Bounds: IQ_*. */
#pragma once

#include "base/err.h"
#include "codec/val.h"
#include "logs/logs.h"

enum { IQ_TEXT_MAX = 10000, IQ_DEPTH_MAX = 50, IQ_TERMS_MAX = 100 /* comparisons */, IQ_FIELDS_MAX = 50, IQ_ROWS_MAX = 10000, IQ_GROUPS_MAX = 1000,
       IQ_CELLS_MAX = 200000 /* of all rows */, IQ_BYTES_MAX = 8 << 20 };

struct iq;
/* NULL and INVALID_ARGUMENT with what is wrong where. a: for all that the query ever holds. */
struct iq *insights_query_parse(struct arena *a, const char *text, size_t n, struct err *err) _must_check_;
/* Events of a log group come in the order of time, the latest first (false: the earliest first). */
bool insights_query_latest_first(const struct iq *q);
/* Takes an event of a log group; scratch is for the time of the call. false: no more of this log group are needed. */
bool insights_query_event(struct iq *q, struct arena *scratch, const char *group, const struct log_event *e);
/* Those that come from now on are of another log group. */
void insights_query_next_group(struct iq *q);
/* [[{field, value}, ...], ...] in the arena (texts: in the query's); limit 0: the query's own. No more events after that. */
struct val *insights_query_results(struct iq *q, struct arena *a, uint32_t limit);
uint64_t insights_query_matched(const struct iq *q);
bool insights_query_full(const struct iq *q); /* it had to leave some out: IQ_ROWS_MAX, IQ_GROUPS_MAX, IQ_CELLS_MAX, IQ_BYTES_MAX */
