/* door/aws/logs/events.c - events of CloudWatch Logs: put, get, filter.
 *
 * A token is a position (logs/logs.h: time, segment, offset) in 56 digits, as the service's own look; GetLogEvents puts
 * f/ or b/ before it and /s behind. A page that is empty at the end gives back the token that it was asked with. */
#include "door/aws/logs/logs_int.h"

#include "env/clock.h"
#include "logs/pattern.h"

#include <ctype.h>
#include <stdio.h>

enum { EVENTS_MAX = 10000, BATCH_BYTES_MAX = 1048576, EVENT_EXTRA = 26, DAY_MS = 86400000 };

static char *digits(struct arena *a, struct log_pos p)
{
    return arena_printf(a, "%020lld%018u%018u", (long long)MAX(p.time_ms, (int64_t)0), p.segment, p.offset);
}

static bool from_digits(const char *s, struct log_pos *ret)
{
    char part[3][21];

    if (strspn(s, "0123456789") != 56)
        return false;
    snprintf(part[0], sizeof part[0], "%.20s", s);
    snprintf(part[1], sizeof part[1], "%.18s", s + 20);
    snprintf(part[2], sizeof part[2], "%.18s", s + 38);
    *ret = (struct log_pos){strtoll(part[0], NULL, 10), (uint32_t)strtoull(part[1], NULL, 10), (uint32_t)strtoull(part[2], NULL, 10)};
    return true;
}

/* ---- put ---- */

static void on_put(void *arg, const struct err *err)
{
    struct aws_req *q = arg;
    struct arena *a = q->req->arena;
    struct val *out = val_map(a), *rejected = q->more;

    if (err) {
        logs_fail(q, err);
        return;
    }
    val_put_str(a, out, "nextSequenceToken", LOGS_SEQUENCE);
    if (rejected)
        val_put(a, out, "rejectedLogEventsInfo", rejected);
    json_reply(q, out);
}

/* Checks the batch as the service does; the number of events, -1: answered. */
static int read_batch(struct aws_req *q, const struct val *list, struct log_put *v)
{
    int64_t last = INT64_MIN, first = 0;
    size_t bytes = 0;
    int n = 0;

    VAL_EACH(list, it)
    {
        const struct val *text = val_get(it, "message");
        int64_t time = val_int_at(it, "timestamp", -1);

        if (!val_is(text, VAL_STR) || !text->n || time < 0) {
            aws_error(q, 400, "InvalidParameterException",
                      "1 validation error detected: Value at 'logEvents.%d.member.%s' failed to satisfy constraint: Member must have %s", n + 1,
                      time < 0 ? "timestamp" : "message", time < 0 ? "value greater than or equal to 0" : "length greater than or equal to 1");
            return -1;
        }
        if (time < last) {
            aws_error(q, 400, "InvalidParameterException", "Log events in a single PutLogEvents request must be in chronological order.");
            return -1;
        }
        first = n ? first : time;
        last = time;
        bytes += text->n + EVENT_EXTRA;
        v[n++] = (struct log_put){time, text->s, text->n};
    }
    if (!n)
        aws_error(q, 400, "InvalidParameterException", "1 validation error detected: Value '[]' at 'logEvents' failed to satisfy constraint: "
                                                       "Member must have length greater than or equal to 1");
    else if (last - first > DAY_MS)
        aws_error(q, 400, "InvalidParameterException", "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.");
    else if (bytes > BATCH_BYTES_MAX)
        aws_error(q, 400, "InvalidParameterException", "Upload too large: %zu bytes exceeds limit of %d", bytes, BATCH_BYTES_MAX);
    else
        return n;
    return -1;
}

void logs_put_events(struct aws_req *q, const struct val *in)
{
    struct arena *a = q->req->arena;
    const char *group = logs_group_name(q, in), *stream = group ? logs_stream_name(q, in) : NULL;
    const struct val *list = val_get(in, "logEvents");
    struct log_group_info info;
    struct log_stream_info known;
    struct val *rejected = val_map(a);
    struct log_put *v;
    int64_t now = clock_real_ms(), expired;
    int n, from = 0, to;
    struct err err;

    if (!stream)
        return;
    if (val_len(list) > EVENTS_MAX) {
        aws_error(q, 400, "InvalidParameterException", "1 validation error detected: Value at 'logEvents' failed to satisfy constraint: "
                                                       "Member must have length less than or equal to 10000");
        return;
    }
    v = arena_array(a, struct log_put, val_len(list) + 1);
    n = read_batch(q, list, v);
    if (n < 0)
        return;
    if (!logs_group_get(q->d->o.logs, LOGS_NS, group, &info) || !logs_stream_get(q->d->o.logs, LOGS_NS, group, stream, &known)) {
        aws_error(q, 400, "ResourceNotFoundException", "The specified log %s does not exist.", logs_group_get(q->d->o.logs, LOGS_NS, group, &info) ? "stream" : "group");
        return;
    }
    expired = info.retention_days ? now - (int64_t)info.retention_days * DAY_MS : 0;
    while (from < n && v[from].time_ms < now - 14 * (int64_t)DAY_MS)
        from++;
    if (from)
        val_put_int(a, rejected, "tooOldLogEventEndIndex", from);
    if (from < n && v[from].time_ms < expired) {
        while (from < n && v[from].time_ms < expired)
            from++;
        val_put_int(a, rejected, "expiredLogEventEndIndex", from);
    }
    for (to = n; to > from && v[to - 1].time_ms > now + 2 * 3600000;)
        to--;
    if (to < n)
        val_put_int(a, rejected, "tooNewLogEventStartIndex", to);
    q->more = val_len(rejected) ? rejected : NULL;
    if (from == to)
        on_put(q, NULL);
    else if (logs_put(q->d->o.logs, LOGS_NS, group, stream, v + from, (size_t)(to - from), on_put, q, &err) < 0)
        logs_fail(q, &err);
}

/* ---- get ---- */

struct getting {
    struct aws_req *q;
    struct log_query query;
};

static void on_got(void *arg, const struct log_page *p, const struct err *err)
{
    struct getting *g = arg;
    struct arena *a = g->q->req->arena;
    struct val *out = val_map(a), *list = val_list(a);
    struct log_pos first, last;

    if (err) {
        logs_fail(g->q, err);
        return;
    }
    for (uint32_t i = 0; i < p->n; i++) {
        struct val *v = val_map(a);

        val_put_int(a, v, "timestamp", p->events[i].time_ms);
        val_put(a, v, "message", val_strn(a, p->events[i].text, p->events[i].n));
        val_put_int(a, v, "ingestionTime", p->events[i].ingested_ms);
        val_push(a, list, v);
    }
    /* Nothing there: both stay where it was asked for, but a reader from the end of an empty range begins at its start. */
    first = last = p->n || g->query.backward ? p->next : g->query.at;
    if (!p->n && g->query.backward && log_pos_compare(g->query.at, LOG_POS_LAST) == 0)
        first = last = (struct log_pos){MAX(g->query.from_ms - 1, (int64_t)0), UINT32_MAX, UINT32_MAX};
    if (p->n) {
        first = p->events[0].pos;
        last = p->events[p->n - 1].pos;
    }
    if (!p->n && !p->end)
        first = last = p->next; /* so much was looked at */
    val_put(a, out, "events", list);
    val_put_str(a, out, "nextForwardToken", arena_printf(a, "f/%s/s", digits(a, last)));
    val_put_str(a, out, "nextBackwardToken", arena_printf(a, "b/%s/s", digits(a, first)));
    json_reply(g->q, out);
}

static bool read_range(struct aws_req *q, const struct val *in, struct log_query *query)
{
    int64_t start = val_int_at(in, "startTime", 0), end = val_int_at(in, "endTime", INT64_MAX);

    if (start < 0 || end < 0) {
        aws_error(q, 400, "InvalidParameterException", "1 validation error detected: Value '%lld' at '%s' failed to satisfy constraint: Member must "
                                                       "have value greater than or equal to 0", (long long)(start < 0 ? start : end), start < 0 ? "startTime" : "endTime");
        return false;
    }
    if (start > end) {
        aws_error(q, 400, "InvalidParameterException", "End time must be greater than or equal to start time");
        return false;
    }
    query->from_ms = start;
    query->to_ms = end;
    return true;
}

void logs_get(struct aws_req *q, const struct val *in)
{
    struct getting *g = arena_new_of(q->req->arena, struct getting);
    const char *group = logs_group_name(q, in), *stream = group ? logs_stream_name(q, in) : NULL;
    const char *token = val_str_at(in, "nextToken", NULL), **name = arena_new_of(q->req->arena, const char *);
    struct log_query *query = &g->query;

    g->q = q;
    if (!stream || !logs_limit(q, in, EVENTS_MAX, EVENTS_MAX, &query->limit) || !read_range(q, in, query))
        return;
    *name = stream;
    query->ns = LOGS_NS;
    query->group = group;
    query->streams = name;
    query->streams_n = 1;
    if (token) {
        if ((token[0] != 'f' && token[0] != 'b') || token[1] != '/' || !from_digits(token + 2, &query->at)) {
            aws_error(q, 400, "InvalidParameterException", "The specified nextToken is invalid.");
            return;
        }
        query->backward = token[0] == 'b';
    } else {
        query->backward = !val_bool_at(in, "startFromHead", false);
        query->at = query->backward ? LOG_POS_LAST : (struct log_pos){MAX(query->from_ms - 1, (int64_t)0), UINT32_MAX, UINT32_MAX};
        if (!query->backward && !query->from_ms)
            query->at = (struct log_pos){0, 0, 0};
    }
    logs_query(q->d->o.logs, query, on_got, g);
}

/* ---- filter ---- */

static void on_filtered(void *arg, const struct log_page *p, const struct err *err)
{
    struct getting *g = arg;
    struct arena *a = g->q->req->arena;
    struct val *out = val_map(a), *list = val_list(a);

    if (err) {
        logs_fail(g->q, err);
        return;
    }
    for (uint32_t i = 0; i < p->n; i++) {
        const struct log_event *e = &p->events[g->query.backward ? p->n - 1 - i : i];
        struct val *v = val_map(a);

        val_put_str(a, v, "logStreamName", e->stream);
        val_put_int(a, v, "timestamp", e->time_ms);
        val_put(a, v, "message", val_strn(a, e->text, e->n));
        val_put_int(a, v, "ingestionTime", e->ingested_ms);
        val_put_str(a, v, "eventId", digits(a, e->pos));
        val_push(a, list, v);
    }
    val_put(a, out, "events", list);
    val_put(a, out, "searchedLogStreams", val_list(a));
    if (!p->end)
        val_put_str(a, out, "nextToken", digits(a, p->next));
    json_reply(g->q, out);
}

void logs_filter(struct aws_req *q, const struct val *in)
{
    struct arena *a = q->req->arena;
    struct getting *g = arena_new_of(a, struct getting);
    const char *group = logs_group_name(q, in), *token = val_str_at(in, "nextToken", NULL);
    const char *pattern = val_str_at(in, "filterPattern", NULL);
    const struct val *names = val_get(in, "logStreamNames");
    struct log_query *query = &g->query;
    const char **streams = arena_array(a, const char *, val_len(names) + 1);
    struct err err;

    g->q = q;
    if (!group || !logs_limit(q, in, EVENTS_MAX, EVENTS_MAX, &query->limit) || !read_range(q, in, query))
        return;
    query->to_ms = query->to_ms == INT64_MAX ? INT64_MAX : query->to_ms + 1; /* its end counts here */
    query->ns = LOGS_NS;
    query->group = group;
    query->prefix = val_str_at(in, "logStreamNamePrefix", NULL);
    query->streams = streams;
    VAL_EACH(names, it)
    streams[query->streams_n++] = val_text(it, "");
    query->backward = val_get(in, "startFromHead") && !val_bool_at(in, "startFromHead", true);
    query->at = query->backward ? LOG_POS_LAST : LOG_POS_FIRST;
    if (query->streams_n && query->prefix)
        aws_error(q, 400, "InvalidParameterException", "Cannot use both logStreamNames and logStreamNamePrefix parameters");
    else if (query->streams_n > 100)
        aws_error(q, 400, "InvalidParameterException", "1 validation error detected: Value at 'logStreamNames' failed to satisfy constraint: "
                                                       "Member must have length less than or equal to 100");
    else if (token && !from_digits(token, &query->at))
        aws_error(q, 400, "InvalidParameterException", "The specified nextToken is invalid.");
    else if (!str_empty(pattern) && !(query->pattern = log_pattern_parse(pattern, &err)))
        logs_fail(q, &err);
    else
        logs_query(q->d->o.logs, query, on_filtered, g);
}

/* TestMetricFilter: which of some lines a pattern matches. */
void logs_test_filter(struct aws_req *q, const struct val *in)
{
    struct arena *a = q->req->arena;
    struct val *out = val_map(a), *list = val_list(a);
    struct err err;
    struct log_pattern *p = log_pattern_parse(val_str_at(in, "filterPattern", ""), &err);
    int n = 0;

    if (!p) {
        logs_fail(q, &err);
        return;
    }
    VAL_EACH(val_get(in, "logEventMessages"), it)
    {
        n++;
        if (it->type == VAL_STR && log_pattern_match(p, it->s, it->n)) {
            struct val *v = val_map(a);

            val_put_int(a, v, "eventNumber", n);
            val_put(a, v, "eventMessage", it);
            val_put(a, v, "extractedValues", val_map(a));
            val_push(a, list, v);
        }
    }
    log_pattern_free(p);
    val_put(a, out, "matches", list);
    json_reply(q, out);
}
