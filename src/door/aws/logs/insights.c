/* door/aws/logs/insights.c - Logs Insights: StartQuery, GetQueryResults, StopQuery, DescribeQueries.
 *
 * A query runs while StartQuery waits for its answer: a page of events after another from pool threads, put through the query on the
 * loop for TURN_MS at a time (what is left of the page is read again). So what is answered later is complete. It is looked at no more than SCAN_MAX bytes and TIME_MAX_MS; what was found
 * until then is the result of a query whose status is Timeout (so is that of a query with too many rows or groups). Results are in memory alone, those of the last KEPT_MAX queries. */
#include "door/aws/logs/insights.h"
#include "door/aws/logs/logs_int.h"
#include "env/clock.h"
#include "env/random.h"

enum { KEPT_MAX = 20, GROUPS_MAX = 50, PAGE_EVENTS = 1000, TIME_MAX_MS = 20000, TURN_MS = 10 };
#define SCAN_MAX ((uint64_t)512 << 20)

struct insights_query {
    struct list link;
    struct arena *a;
    struct iq *iq;
    char id[UUID_BYTES];
    const char *text, *status, *group;
    int64_t made_ms;
    uint64_t scanned, bytes;
    uint32_t limit;
};

/* One that runs: the request's, until its answer. */
struct run {
    struct aws_req *q;
    struct insights_query *query; /* owned until it is kept */
    struct log_query page;
    const char *groups[GROUPS_MAX];
    size_t groups_n, at;
};

static void query_free(struct insights_query *i)
{
    arena_free(i->a);
    free(i);
}

void insights_free(struct list *kept)
{
    if (!kept->next)
        return;
    while (!list_empty(kept)) {
        struct insights_query *i = list_entry(kept->next, struct insights_query, link);

        list_remove(&i->link);
        query_free(i);
    }
}

static struct list *kept_of(struct aws_req *q)
{
    if (!q->d->insights.next)
        list_init(&q->d->insights);
    return &q->d->insights;
}

static void keep(struct run *r, const char *status)
{
    struct list *kept = kept_of(r->q);
    struct insights_query *i = r->query;
    struct val *v = val_map(r->q->req->arena);
    size_t n = 0;

    i->status = insights_query_full(i->iq) ? "Timeout" : status;
    list_push(kept, &i->link);
    LIST_EACH(kept, l)
        n++;
    if (n > KEPT_MAX) {
        struct insights_query *first = list_entry(kept->next, struct insights_query, link);

        list_remove(&first->link);
        query_free(first);
    }
    val_put_str(r->q->req->arena, v, "queryId", i->id);
    json_reply(r->q, v);
}

static void ask(struct run *r);

static void on_page(void *arg, const struct log_page *p, const struct err *err)
{
    struct run *r = arg;
    struct insights_query *i = r->query;
    _auto_(arena_freep) struct arena *scratch = NULL;
    int64_t began = clock_mono_ms();
    bool more = true, cut = false;

    if (err && err->code != ERR_NOT_FOUND) {
        query_free(i);
        logs_fail(r->q, err);
        return;
    }
    scratch = arena_new();
    for (uint32_t n = 0; !err && n < p->n && more && !cut; n++) {
        const struct log_event *e = &p->events[r->page.backward ? p->n - 1 - n : n];

        more = insights_query_event(i->iq, scratch, r->page.group, e);
        i->scanned++;
        i->bytes += e->n;
        arena_reset(scratch);
        cut = n + 1 < p->n && clock_mono_ms() - began >= TURN_MS;
        if (cut)
            r->page.at = e->pos;
    }
    if (!err && !cut)
        r->page.at = p->next;
    if (!more && r->groups_n == 1) {
        keep(r, "Complete");
    } else if (i->bytes > SCAN_MAX || clock_real_ms() - i->made_ms > TIME_MAX_MS) {
        keep(r, "Timeout");
    } else if (!err && more && (cut || !p->end)) {
        ask(r);
    } else if (++r->at < r->groups_n) {
        r->page.at = r->page.backward ? LOG_POS_LAST : LOG_POS_FIRST;
        insights_query_next_group(i->iq);
        ask(r);
    } else {
        keep(r, "Complete");
    }
}

static void ask(struct run *r)
{
    r->page.group = r->groups[r->at];
    logs_query(r->q->d->o.logs, &r->page, on_page, r);
}

/* Names of groups into the run; false: answered. */
static bool take_groups(struct run *r, const struct val *in)
{
    static const char *const LISTS[] = {"logGroupNames", "logGroupIdentifiers"};
    struct log_group_info info;

    if (val_get(in, "logGroupName") || val_get(in, "logGroupIdentifier")) {
        const char *name = logs_group_name(r->q, in);

        if (!name)
            return false;
        r->groups[r->groups_n++] = name;
    }
    for (size_t k = 0; k < ARRAY_LEN(LISTS); k++)
        VAL_EACH(val_get(in, LISTS[k]), it)
        {
            if (r->groups_n == GROUPS_MAX) {
                aws_error(r->q, 400, "InvalidParameterException", "a query is of no more than %d log groups", GROUPS_MAX);
                return false;
            }
            r->groups[r->groups_n] = logs_group_of_arn(r->q, val_text(it, ""));
            if (!r->groups[r->groups_n++])
                return false;
        }
    if (!r->groups_n) {
        aws_error(r->q, 400, "InvalidParameterException", "Log Group is mandatory: give logGroupName, logGroupNames or logGroupIdentifiers");
        return false;
    }
    for (size_t k = 0; k < r->groups_n; k++)
        if (!logs_group_get(r->q->d->o.logs, LOGS_NS, r->groups[k], &info)) {
            aws_error(r->q, 400, "ResourceNotFoundException", "Log group '%.300s' does not exist for account ID '%s'", r->groups[k], r->q->d->account);
            return false;
        }
    return true;
}

void logs_start_query(struct aws_req *q, const struct val *in)
{
    struct run *r = arena_new_of(q->req->arena, struct run);
    const char *text = val_str_at(in, "queryString", ""), *language = val_str_at(in, "queryLanguage", "CWLI");
    int64_t start = val_int_at(in, "startTime", -1), end = val_int_at(in, "endTime", -1), limit = val_int_at(in, "limit", 0);
    struct insights_query *i;
    struct err err = {0};

    *r = (struct run){.q = q};
    if (!streq(language, "CWLI")) {
        aws_error(q, 501, "NotImplementedException", "tandem takes queries in the language CWLI, not %.40s", language);
        return;
    }
    if (start < 0 || end < start) {
        aws_error(q, 400, "MalformedQueryException", "End time should not be before start time");
        return;
    }
    if (limit < 0 || limit > IQ_ROWS_MAX) {
        aws_error(q, 400, "InvalidParameterException", "1 validation error detected: Value '%lld' at 'limit' failed to satisfy constraint: Member must "
                  "have value less than or equal to %d", (long long)limit, IQ_ROWS_MAX);
        return;
    }
    if (!take_groups(r, in))
        return;
    i = r->query = xcalloc(1, sizeof *i);
    i->a = arena_new();
    i->iq = insights_query_parse(i->a, text, strlen(text), &err);
    if (!i->iq) {
        query_free(i);
        aws_error(q, 400, "MalformedQueryException", "%s", err.code ? err.msg : "the query is malformed");
        return;
    }
    uuid_new(i->id);
    i->text = arena_strdup(i->a, text);
    i->group = arena_strdup(i->a, r->groups[0]);
    i->made_ms = clock_real_ms();
    i->limit = (uint32_t)limit;
    start *= start < 100000000000 ? 1000 : 1; /* seconds; milliseconds are taken, too */
    end = end < 100000000000 ? end * 1000 + 999 : end;
    r->page = (struct log_query){.ns = LOGS_NS, .from_ms = start, .to_ms = end == INT64_MAX ? end : end + 1, .backward = insights_query_latest_first(i->iq), .limit = PAGE_EVENTS};
    r->page.at = r->page.backward ? LOG_POS_LAST : LOG_POS_FIRST;
    ask(r);
}

static struct insights_query *find(struct aws_req *q, const struct val *in)
{
    const char *id = val_str_at(in, "queryId", "");

    LIST_EACH(kept_of(q), l)
        if (streq(list_entry(l, struct insights_query, link)->id, id))
            return list_entry(l, struct insights_query, link);
    aws_error(q, 400, "ResourceNotFoundException", "Query with ID %.60s does not exist.", id);
    return NULL;
}

void logs_query_results(struct aws_req *q, const struct val *in)
{
    struct arena *a = q->req->arena;
    struct insights_query *i = find(q, in);
    struct val *v, *numbers;

    if (!i)
        return;
    v = val_map(a);
    val_put_str(a, v, "queryLanguage", "CWLI");
    val_put_str(a, v, "status", i->status);
    numbers = val_map(a);
    val_put(a, numbers, "recordsMatched", val_double(a, (double)insights_query_matched(i->iq)));
    val_put(a, numbers, "recordsScanned", val_double(a, (double)i->scanned));
    val_put(a, numbers, "bytesScanned", val_double(a, (double)i->bytes));
    val_put(a, v, "statistics", numbers);
    val_put(a, v, "results", insights_query_results(i->iq, a, i->limit));
    json_reply(q, v);
}

/* It has ended by then. */
void logs_stop_query(struct aws_req *q, const struct val *in)
{
    struct val *v;

    if (!find(q, in))
        return;
    v = val_map(q->req->arena);
    val_put_bool(q->req->arena, v, "success", false);
    json_reply(q, v);
}

void logs_describe_queries(struct aws_req *q, const struct val *in)
{
    struct arena *a = q->req->arena;
    const char *group = val_str_at(in, "logGroupName", NULL), *status = val_str_at(in, "status", NULL);
    struct val *v = val_map(a), *list = val_list(a);

    LIST_EACH(kept_of(q), l)
    {
        const struct insights_query *i = list_entry(l, struct insights_query, link);
        struct val *one;

        if ((group && !streq(group, i->group)) || (status && !streq(status, i->status)))
            continue;
        one = val_map(a);
        val_put_str(a, one, "queryId", i->id);
        val_put_str(a, one, "queryString", i->text);
        val_put_str(a, one, "status", i->status);
        val_put_str(a, one, "logGroupName", i->group);
        val_put_int(a, one, "createTime", i->made_ms);
        val_push(a, list, one);
    }
    val_put(a, v, "queries", list);
    json_reply(q, v);
}
