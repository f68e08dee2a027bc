/* door/aws/logs/insights_query.c - the query language: text to steps, events through the steps, rows out. */
#include "door/aws/logs/insights.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>
#include <time.h>

#include "base/buf.h"
#include "codec/json.h"
#include "codec/regex.h"

enum kind { K_AND, K_OR, K_NOT, K_COMPARE, K_LIKE, K_IN, K_PRESENT };
struct expr {
    enum kind kind;
    struct expr *x, *y;
    const char *field, *op, *text;
    struct regex *re;
    struct val *list;
};

enum func { F_COUNT, F_SUM, F_AVG, F_MIN, F_MAX };
struct column { /* what a row has: a field, or (stats) a function of one */
    const char *field, *name;
    enum func func;
    int64_t bin_ms; /* of `by bin(..)` */
};
struct columns {
    struct column v[IQ_FIELDS_MAX];
    uint32_t n;
};
struct sum {
    double sum, min, max;
    uint64_t n;
};
struct row {
    const char **v;    /* a text for each column; NULL: it has none */
    const char *key;   /* what it is sorted by */
    struct sum *sums;  /* of a group of stats; then v are the `by` columns */
    int64_t ms;        /* of the event, and the how many-th row it is */
    uint32_t number;
};
struct filter {
    struct filter *next;
    struct expr *e;
};

struct iq {
    struct arena *a;
    struct columns fields, by;  /* fields: shown, or the functions of stats */
    bool stats, displayed, sorted, down;
    const char *sort;
    uint32_t limit;
    struct filter *filters, **filters_end;
    struct row *rows;
    uint32_t n, cap;
    uint32_t first;     /* by time: the first row of the log group at hand; each may have `limit` of them */
    bool mixed, ordered; /* rows of several log groups, which are not in the order of time yet; all are in order */
    struct val *groups; /* key -> index of its row */
    uint64_t matched;
    bool full;
};

/* ---- words ---- */

enum token { T_END, T_NAME, T_NUMBER, T_TEXT, T_REGEX, T_SIGN };
struct reader {
    struct arena *a;
    const char *p, *end;
    enum token t;
    const char *word; /* of the token at hand */
    int depth, terms;
    struct err *err;
};

static int wrong(struct reader *r, const char *what)
{
    return err_set(r->err, INVALID_ARGUMENT, "unexpected symbol found %.60s: %s", r->t == T_END ? "<EOF>" : r->word, what);
}

static int quoted(struct reader *r, char close, enum token t)
{
    struct buf b = {0};

    for (r->p++; r->p < r->end && *r->p != close; r->p++) {
        if (*r->p == '\\' && r->p + 1 < r->end && (r->p[1] == close || (t == T_TEXT && r->p[1] == '\\')))
            r->p++;
        buf_addc(&b, *r->p);
    }
    r->word = arena_strndup(r->a, b.p ? b.p : "", b.n);
    buf_done(&b);
    if (r->p == r->end)
        return err_set(r->err, INVALID_ARGUMENT, "a %c is not closed", close);
    r->p++;
    r->t = t;
    return 0;
}

static bool name_char(char c)
{
    return isalnum((unsigned char)c) || c == '_' || c == '.' || c == '@';
}

static int next(struct reader *r)
{
    const char *from;

    while (r->p < r->end && (isspace((unsigned char)*r->p) || *r->p == '#')) {
        if (*r->p == '#') /* up to the end of the line */
            while (r->p < r->end && *r->p != '\n')
                r->p++;
        else
            r->p++;
    }
    from = r->p;
    if (r->p == r->end) {
        r->t = T_END;
        r->word = "";
        return 0;
    }
    if (*r->p == '"' || *r->p == '\'')
        return quoted(r, *r->p, T_TEXT);
    if (*r->p == '`')
        return quoted(r, '`', T_NAME);
    if (*r->p == '/')
        return quoted(r, '/', T_REGEX);
    if (isdigit((unsigned char)*r->p) || (*r->p == '-' && r->p + 1 < r->end && isdigit((unsigned char)r->p[1]))) {
        for (r->p++; r->p < r->end && name_char(*r->p);)
            r->p++;
        r->t = T_NUMBER;
    } else if (name_char(*r->p)) {
        while (r->p < r->end && name_char(*r->p))
            r->p++;
        r->t = T_NAME;
    } else {
        r->p += r->end - r->p > 1 && strchr("!<>=", r->p[0]) && (r->p[1] == '=' || r->p[1] == '~') ? 2 : 1;
        r->t = T_SIGN;
    }
    r->word = arena_strndup(r->a, from, (size_t)(r->p - from));
    return 0;
}

static bool is(const struct reader *r, const char *word)
{
    return (r->t == T_NAME || r->t == T_SIGN) && strcasecmp(r->word, word) == 0;
}

/* Takes that word if it comes now; -1: err. */
static int take(struct reader *r, const char *word)
{
    if (!is(r, word))
        return 0;
    return next(r) < 0 ? -1 : 1;
}

static int need(struct reader *r, const char *word)
{
    int t = take(r, word);

    return t == 1 ? 0 : t < 0 ? -1 : wrong(r, arena_printf(r->a, "expected %s", word));
}

static const char *need_name(struct reader *r)
{
    const char *name = r->word;

    if (r->t != T_NAME || !*name) {
        wrong(r, "expected the name of a field");
        return NULL;
    }
    return next(r) < 0 ? NULL : name;
}

/* ---- expressions ---- */

static struct expr *either(struct reader *r);

static struct expr *expr_new(struct reader *r, enum kind kind, struct expr *x, struct expr *y)
{
    struct expr *e = arena_new_of(r->a, struct expr);

    *e = (struct expr){.kind = kind, .x = x, .y = y};
    return e;
}

static int read_like(struct reader *r, struct expr *e)
{
    e->kind = K_LIKE;
    e->text = r->word;
    if (r->t == T_REGEX) {
        e->re = regex_new(r->word, strlen(r->word), r->err);
        if (!e->re)
            return -1;
        arena_pin(r->a, regex_unpin, e->re);
    } else if (r->t != T_TEXT) {
        return wrong(r, "expected a text or a regular expression");
    }
    return next(r);
}

static int read_in(struct reader *r, struct expr *e)
{
    e->kind = K_IN;
    e->list = val_list(r->a);
    if (need(r, "[") < 0)
        return -1;
    for (;;) {
        if (r->t != T_TEXT && r->t != T_NUMBER)
            return wrong(r, "expected a text or a number");
        val_push_str(r->a, e->list, r->word);
        if (next(r) < 0)
            return -1;
        if (!is(r, ","))
            return need(r, "]");
        if (next(r) < 0)
            return -1;
    }
}

static struct expr *compared(struct reader *r)
{
    static const char *const OPS[] = {"=", "!=", "<", "<=", ">", ">="};
    struct expr *e = expr_new(r, K_COMPARE, NULL, NULL);
    int no;

    if (++r->terms > IQ_TERMS_MAX) { /* each is looked for in the whole of each event */
        err_set(r->err, INVALID_ARGUMENT, "more than %d comparisons", IQ_TERMS_MAX);
        return NULL;
    }
    if (is(r, "ispresent")) {
        e->kind = K_PRESENT;
        if (next(r) < 0 || need(r, "(") < 0 || !(e->field = need_name(r)) || need(r, ")") < 0)
            return NULL;
        return e;
    }
    e->field = need_name(r);
    if (!e->field || (no = take(r, "not")) < 0)
        return NULL;
    if (is(r, "like") || is(r, "=~")) {
        if (next(r) < 0 || read_like(r, e) < 0)
            return NULL;
    } else if (is(r, "in")) {
        if (next(r) < 0 || read_in(r, e) < 0)
            return NULL;
    } else {
        for (size_t i = 0; i < ARRAY_LEN(OPS); i++)
            if (is(r, OPS[i]))
                e->op = OPS[i];
        if (!e->op || no) {
            wrong(r, "expected a comparison");
            return NULL;
        }
        if (next(r) < 0)
            return NULL;
        if (r->t != T_TEXT && r->t != T_NUMBER) {
            wrong(r, "expected a text or a number");
            return NULL;
        }
        e->text = r->word;
        if (next(r) < 0)
            return NULL;
    }
    return no ? expr_new(r, K_NOT, e, NULL) : e;
}

static struct expr *one(struct reader *r)
{
    struct expr *e = NULL;

    if (++r->depth > IQ_DEPTH_MAX) {
        err_set(r->err, INVALID_ARGUMENT, "the expression is nested too deep");
        return NULL;
    }
    if (is(r, "not")) {
        e = next(r) < 0 ? NULL : one(r);
        e = e ? expr_new(r, K_NOT, e, NULL) : NULL;
    } else if (is(r, "(")) {
        e = next(r) < 0 ? NULL : either(r);
        if (e && need(r, ")") < 0)
            e = NULL;
    } else {
        e = compared(r);
    }
    r->depth--;
    return e;
}

static struct expr *both(struct reader *r)
{
    struct expr *x = one(r), *y;

    while (x && is(r, "and")) {
        if (next(r) < 0 || !(y = one(r)))
            return NULL;
        x = expr_new(r, K_AND, x, y);
    }
    return x;
}

static struct expr *either(struct reader *r)
{
    struct expr *x = both(r), *y;

    while (x && is(r, "or")) {
        if (next(r) < 0 || !(y = both(r)))
            return NULL;
        x = expr_new(r, K_OR, x, y);
    }
    return x;
}

/* ---- commands ---- */

static struct column *column_new(struct reader *r, struct columns *c)
{
    if (c->n == IQ_FIELDS_MAX) {
        err_set(r->err, INVALID_ARGUMENT, "more than %d fields", IQ_FIELDS_MAX);
        return NULL;
    }
    c->v[c->n] = (struct column){0};
    return &c->v[c->n++];
}

static int as_name(struct reader *r, struct column *c)
{
    int t = take(r, "as");

    if (t < 1)
        return t;
    c->name = need_name(r);
    return c->name ? 0 : -1;
}

static int read_fields(struct reader *r, struct iq *q, bool display)
{
    if (display && !q->displayed)
        q->fields.n = 0;
    q->displayed |= display;
    for (;;) {
        struct column *c = column_new(r, &q->fields);

        if (!c || !(c->field = c->name = need_name(r)) || as_name(r, c) < 0)
            return -1;
        if (!is(r, ","))
            return 0;
        if (next(r) < 0)
            return -1;
    }
}

/* 5m, 30s, 1h, 1d, 500ms; 0: it is none. */
static int64_t span_ms(const char *s)
{
    static const struct { const char *unit; int64_t ms; } UNITS[] = {{"ms", 1}, {"s", 1000}, {"m", 60000}, {"h", 3600000}, {"d", 86400000}, {"w", 604800000}};
    char *unit;
    long long n = strtoll(s, &unit, 10);

    for (size_t i = 0; i < ARRAY_LEN(UNITS); i++)
        if (streq(UNITS[i].unit, unit) && n > 0 && n <= 100000)
            return n * UNITS[i].ms;
    return 0;
}

static int read_by(struct reader *r, struct iq *q)
{
    for (;;) {
        struct column *c = column_new(r, &q->by);

        if (!c)
            return -1;
        if (is(r, "bin")) {
            if (next(r) < 0 || need(r, "(") < 0)
                return -1;
            c->bin_ms = span_ms(r->word);
            c->name = arena_printf(r->a, "bin(%s)", r->word);
            if (!c->bin_ms)
                return wrong(r, "expected a span of time as 5m");
            if (next(r) < 0 || need(r, ")") < 0)
                return -1;
        } else if (!(c->field = c->name = need_name(r))) {
            return -1;
        }
        if (as_name(r, c) < 0)
            return -1;
        if (!is(r, ","))
            return 0;
        if (next(r) < 0)
            return -1;
    }
}

static int read_stats(struct reader *r, struct iq *q)
{
    static const char *const NAMES[] = {"count", "sum", "avg", "min", "max"};

    if (q->stats)
        return err_set(r->err, INVALID_ARGUMENT, "tandem takes one stats command in a query");
    q->stats = true;
    q->fields.n = 0;
    for (;;) {
        struct column *c = column_new(r, &q->fields);
        bool known = false;

        if (!c)
            return -1;
        for (size_t i = 0; i < ARRAY_LEN(NAMES); i++)
            if (is(r, NAMES[i])) {
                c->func = (enum func)i;
                known = true;
            }
        if (!known)
            return wrong(r, "expected count, sum, avg, min or max");
        if (next(r) < 0 || need(r, "(") < 0)
            return -1;
        if (c->func == F_COUNT && is(r, "*")) {
            c->field = NULL;
            if (next(r) < 0)
                return -1;
        } else if (c->func != F_COUNT || !is(r, ")")) {
            c->field = need_name(r);
            if (!c->field)
                return -1;
        }
        c->name = arena_printf(r->a, "%s(%s)", NAMES[c->func], c->field ? c->field : "*");
        if (need(r, ")") < 0 || as_name(r, c) < 0)
            return -1;
        if (!is(r, ","))
            break;
        if (next(r) < 0)
            return -1;
    }
    return is(r, "by") ? next(r) < 0 ? -1 : read_by(r, q) : 0;
}

static int read_sort(struct reader *r, struct iq *q)
{
    struct buf b = {0};

    q->sort = need_name(r);
    if (!q->sort)
        return -1;
    if (is(r, "(")) { /* count(*), as a column of stats is called when it was given no name */
        buf_printf(&b, "%s(", q->sort);
        while (!is(r, ")") && r->t != T_END && next(r) == 0 && !is(r, ")"))
            buf_adds(&b, r->word);
        buf_addc(&b, ')');
        q->sort = arena_strndup(r->a, b.p, b.n);
        buf_done(&b);
        if (need(r, ")") < 0)
            return -1;
    }
    q->sorted = true;
    q->down = is(r, "desc");
    return is(r, "desc") || is(r, "asc") ? next(r) : 0;
}

static int read_command(struct reader *r, struct iq *q)
{
    if (is(r, "fields") || is(r, "display")) {
        bool display = is(r, "display");

        return next(r) < 0 ? -1 : read_fields(r, q, display);
    }
    if (is(r, "filter")) {
        struct filter *f = arena_new_of(r->a, struct filter);

        if (q->stats)
            return err_set(r->err, INVALID_ARGUMENT, "tandem filters before stats, not behind it");
        if (next(r) < 0 || !(f->e = either(r)))
            return -1;
        f->next = NULL;
        *q->filters_end = f;
        q->filters_end = &f->next;
        return 0;
    }
    if (is(r, "stats"))
        return next(r) < 0 ? -1 : read_stats(r, q);
    if (is(r, "sort"))
        return next(r) < 0 ? -1 : read_sort(r, q);
    if (is(r, "limit") || is(r, "head")) {
        if (next(r) < 0)
            return -1;
        q->limit = r->t == T_NUMBER ? (uint32_t)strtoul(r->word, NULL, 10) : 0;
        if (!q->limit || q->limit > IQ_ROWS_MAX)
            return wrong(r, "expected a number from 1 to 10000");
        return next(r);
    }
    return wrong(r, "expected one of fields, display, filter, stats, sort, limit");
}

struct iq *insights_query_parse(struct arena *a, const char *text, size_t n, struct err *err)
{
    struct iq *q = arena_new_of(a, struct iq);
    struct reader r = {.a = a, .p = text, .end = text + n, .err = err};

    *q = (struct iq){.a = a, .limit = IQ_ROWS_MAX, .groups = val_map(a), .down = true};
    q->filters_end = &q->filters;
    if (n > IQ_TEXT_MAX) {
        err_set(err, INVALID_ARGUMENT, "the query has more than %d characters", IQ_TEXT_MAX);
        return NULL;
    }
    if (memchr(text, 0, n) || next(&r) < 0)
        return NULL;
    while (r.t != T_END) {
        if (read_command(&r, q) < 0)
            return NULL;
        if (r.t == T_END)
            break;
        if (need(&r, "|") < 0)
            return NULL;
    }
    if (!q->fields.n) { /* as there */
        q->fields.v[q->fields.n++] = (struct column){.field = "@timestamp", .name = "@timestamp"};
        q->fields.v[q->fields.n++] = (struct column){.field = "@message", .name = "@message"};
    }
    return q;
}

/* ---- fields of an event ---- */

struct seen {
    struct arena *a;
    const char *group;
    const struct log_event *e;
    const struct val *json;
    bool parsed;
};

static const char *moment(struct arena *a, int64_t ms)
{
    time_t s = ms / 1000;
    char text[32];
    struct tm tm;

    gmtime_r(&s, &tm);
    strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S", &tm);
    return arena_printf(a, "%s.%03d", text, (int)(ms % 1000));
}

/* A number of Lambda's REPORT line behind that label, times `by`. */
static const char *reported(struct seen *s, const char *label, double by)
{
    const char *at = strstr(s->e->text, label);

    return at ? arena_printf(s->a, "%.15g", strtod(at + strlen(label), NULL) * by) : NULL;
}

static const char *of_lambda(struct seen *s, const char *name)
{
    static const char *const TYPES[] = {"REPORT", "START", "END"};
    static const struct { const char *field, *label; double by; } NUMBERS[] = {{"@duration", "\tDuration: ", 1},
        {"@billedDuration", "\tBilled Duration: ", 1}, {"@memorySize", "\tMemory Size: ", 1e6}, {"@maxMemoryUsed", "\tMax Memory Used: ", 1e6},
        {"@initDuration", "\tInit Duration: ", 1}};
    const char *type = NULL, *id = strstr(s->e->text, "RequestId: ");

    for (size_t i = 0; i < ARRAY_LEN(TYPES); i++)
        if (str_starts(s->e->text, TYPES[i]) && str_starts(s->e->text + strlen(TYPES[i]), " RequestId: "))
            type = TYPES[i];
    if (streq(name, "@type"))
        return type;
    if (streq(name, "@requestId"))
        return id ? arena_strndup(s->a, id + 11, strcspn(id + 11, " \t\r\n")) : NULL;
    for (size_t i = 0; type && *type == 'R' && i < ARRAY_LEN(NUMBERS); i++)
        if (streq(name, NUMBERS[i].field))
            return reported(s, NUMBERS[i].label, NUMBERS[i].by);
    return NULL;
}

/* a.b.0.c: names of members, and which item of a list. What a query says is no path of ours (val_at() trusts those). */
static const struct val *at_path(struct arena *a, const struct val *v, const char *path)
{
    while (v && *path) {
        size_t n = strcspn(path, ".");
        const char *part = arena_strndup(a, path, n);

        if (v->type == VAL_LIST)
            v = n && n < 9 && strspn(part, "0123456789") == n && strtoul(part, NULL, 10) < v->n ? &v->items[strtoul(part, NULL, 10)] : NULL;
        else
            v = val_get(v, part);
        path += n + (path[n] == '.');
    }
    return v;
}

/* NULL: it has no such field. */
static const char *field(struct seen *s, const char *name)
{
    const struct val *v;
    struct err err;

    if (name[0] == '@') {
        if (streq(name, "@message"))
            return s->e->text;
        if (streq(name, "@timestamp"))
            return moment(s->a, s->e->time_ms);
        if (streq(name, "@ingestionTime"))
            return moment(s->a, s->e->ingested_ms);
        if (streq(name, "@logStream"))
            return s->e->stream;
        if (streq(name, "@log"))
            return s->group;
        if (streq(name, "@ptr"))
            return arena_printf(s->a, "%lld/%u/%u", (long long)s->e->pos.time_ms, s->e->pos.segment, s->e->pos.offset);
        return of_lambda(s, name);
    }
    if (!s->parsed) {
        s->json = s->e->n && s->e->text[0] == '{' ? json_parse(s->a, s->e->text, s->e->n, &err) : NULL;
        s->parsed = true;
    }
    v = val_get(s->json, name);
    v = v ? v : s->json ? at_path(s->a, s->json, name) : NULL;
    if (!v || v->type == VAL_NULL)
        return NULL;
    return v->type == VAL_STR ? v->s : json_text(s->a, v, NULL);
}

enum { NUMBER_MAX = 64 }; /* bytes; what is longer is a text */

static bool number(const char *s, double *ret)
{
    char *end;

    if (!isdigit((unsigned char)s[s[0] == '-']) || strnlen(s, NUMBER_MAX + 1) > NUMBER_MAX) /* nor nan, inf, blanks */
        return false;
    *ret = strtod(s, &end);
    return !*end;
}

static int order(const char *x, const char *y)
{
    double nx = 0, ny = 0;
    bool x_is = number(x, &nx), y_is = number(y, &ny);

    if (x_is && y_is)
        return nx < ny ? -1 : nx > ny;
    return x_is == y_is ? strcmp(x, y) : x_is ? -1 : 1; /* numbers come before texts */
}

static bool compare(const char *have, const char *op, const char *want)
{
    int o = order(have, want);

    if (op[0] == '=')
        return o == 0;
    if (op[0] == '!')
        return o != 0;
    return o == 0 ? op[1] == '=' : (op[0] == '<') == (o < 0);
}

static bool holds(struct seen *s, const struct expr *e)
{
    const char *v;

    if (e->kind == K_AND)
        return holds(s, e->x) && holds(s, e->y);
    if (e->kind == K_OR)
        return holds(s, e->x) || holds(s, e->y);
    if (e->kind == K_NOT)
        return !holds(s, e->x);
    v = field(s, e->field);
    if (e->kind == K_PRESENT || !v)
        return v && e->kind == K_PRESENT;
    if (e->kind == K_LIKE)
        return e->re ? regex_match(e->re, v, strlen(v)) == 1 : strstr(v, e->text) != NULL;
    if (e->kind == K_COMPARE)
        return compare(v, e->op, e->text);
    VAL_EACH(e->list, it)
        if (order(v, it->s) == 0)
            return true;
    return false;
}

/* ---- rows ---- */

static bool by_time(const struct iq *q)
{
    return !q->sorted || streq(q->sort, "@timestamp");
}

static struct row *row_new(struct iq *q, uint32_t max)
{
    if (q->n - q->first >= max || arena_bytes(q->a) > IQ_BYTES_MAX || (q->n + 1) * (q->fields.n + q->by.n) > IQ_CELLS_MAX) {
        q->full |= q->n - q->first < max || q->stats || !by_time(q); /* else it has what it wants */
        return NULL;
    }
    if (q->n == q->cap) { /* the old ones stay in the arena: all of them together are no more than this */
        struct row *more;

        q->cap = q->cap ? 2 * q->cap : 64;
        more = arena_array(q->a, struct row, q->cap);
        if (q->n)
            memcpy(more, q->rows, q->n * sizeof *more);
        q->rows = more;
    }
    q->rows[q->n] = (struct row){.number = q->n};
    return &q->rows[q->n++];
}

static const char *kept(struct iq *q, const char *text)
{
    return text ? arena_strdup(q->a, text) : NULL;
}

bool insights_query_latest_first(const struct iq *q)
{
    return q->stats || !by_time(q) || q->down;
}

void insights_query_next_group(struct iq *q)
{
    if (q->stats || !by_time(q) || q->first == q->n)
        return;
    q->mixed = true;
    q->first = q->n;
}

static const char *by_value(struct seen *s, const struct column *c)
{
    int64_t ms = s->e->time_ms;

    return c->bin_ms ? moment(s->a, ms - ((ms % c->bin_ms) + c->bin_ms) % c->bin_ms) : field(s, c->field);
}

static struct row *group_of(struct iq *q, struct seen *s)
{
    struct buf key = {0};
    const struct val *known;
    const char *text;
    struct row *row;

    for (uint32_t i = 0; i < q->by.n; i++) {
        text = by_value(s, &q->by.v[i]);
        buf_printf(&key, "%zu:%s,", text ? strlen(text) : 0, text ? text : "-");
    }
    text = arena_strndup(s->a, key.p ? key.p : "", key.n);
    buf_done(&key);
    known = val_get(q->groups, text);
    if (known)
        return &q->rows[known->i];
    row = row_new(q, IQ_GROUPS_MAX);
    if (!row)
        return NULL;
    row->v = arena_array(q->a, const char *, q->by.n + 1);
    for (uint32_t i = 0; i < q->by.n; i++)
        row->v[i] = kept(q, by_value(s, &q->by.v[i]));
    row->sums = arena_array(q->a, struct sum, q->fields.n);
    memset(row->sums, 0, q->fields.n * sizeof *row->sums);
    val_put_int(q->a, q->groups, arena_strdup(q->a, text), q->n - 1);
    return row;
}

static void count(struct iq *q, struct seen *s)
{
    struct row *row = group_of(q, s);

    for (uint32_t i = 0; row && i < q->fields.n; i++) {
        const struct column *c = &q->fields.v[i];
        const char *text = c->field ? field(s, c->field) : "";
        struct sum *sum = &row->sums[i];
        double n = 0;

        if (!text || (c->func != F_COUNT && !number(text, &n)))
            continue;
        sum->min = sum->n ? MIN(sum->min, n) : n;
        sum->max = sum->n ? MAX(sum->max, n) : n;
        sum->sum += n;
        sum->n++;
    }
}

bool insights_query_event(struct iq *q, struct arena *scratch, const char *group, const struct log_event *e)
{
    struct seen s = {.a = scratch, .group = group, .e = e};
    struct row *row;

    for (const struct filter *f = q->filters; f; f = f->next)
        if (!holds(&s, f->e))
            return true;
    q->matched++;
    if (q->stats) {
        count(q, &s);
        return true;
    }
    row = row_new(q, by_time(q) ? q->limit : IQ_ROWS_MAX);
    if (!row)
        return false;
    row->v = arena_array(q->a, const char *, q->fields.n + 1);
    for (uint32_t i = 0; i < q->fields.n; i++)
        row->v[i] = kept(q, field(&s, q->fields.v[i].field));
    row->v[q->fields.n] = kept(q, field(&s, "@ptr"));
    row->key = by_time(q) ? NULL : kept(q, field(&s, q->sort));
    row->ms = e->time_ms;
    return !by_time(q) || q->n - q->first < q->limit;
}

uint64_t insights_query_matched(const struct iq *q)
{
    return q->matched;
}

bool insights_query_full(const struct iq *q)
{
    return q->full;
}

/* ---- out ---- */

static const char *sum_text(struct arena *a, const struct column *c, const struct sum *s)
{
    if (c->func == F_COUNT)
        return arena_printf(a, "%llu", (unsigned long long)s->n);
    if (!s->n)
        return NULL;
    return arena_printf(a, "%.15g", c->func == F_SUM ? s->sum : c->func == F_AVG ? s->sum / (double)s->n : c->func == F_MIN ? s->min : s->max);
}

static int by_key(const void *x, const void *y)
{
    const struct row *a = x, *b = y;

    if (!a->key || !b->key)
        return !a->key - !b->key; /* without one: behind the others */
    return order(a->key, b->key);
}
static int by_key_down(const void *x, const void *y)
{
    const struct row *a = x, *b = y;

    return !a->key || !b->key ? by_key(x, y) : order(b->key, a->key);
}

static int by_ms(const void *x, const void *y)
{
    const struct row *a = x, *b = y;

    return a->ms != b->ms ? (a->ms < b->ms ? -1 : 1) : (a->number > b->number) - (a->number < b->number);
}
static int by_ms_down(const void *x, const void *y)
{
    const struct row *a = x, *b = y;

    return a->ms != b->ms ? (a->ms > b->ms ? -1 : 1) : (a->number > b->number) - (a->number < b->number);
}

static void cell(struct arena *a, struct val *row, const char *name, const char *value)
{
    struct val *c;

    if (!value)
        return;
    c = val_map(a);
    val_put(a, c, "field", val_lit(a, name));
    val_put(a, c, "value", val_lit(a, value));
    val_push(a, row, c);
}

/* The key of a group: the column of that name. */
static void group_key(struct iq *q, struct row *row)
{
    for (uint32_t i = 0; i < q->by.n; i++)
        if (streq(q->by.v[i].name, q->sort))
            row->key = row->v[i];
    for (uint32_t i = 0; i < q->fields.n; i++)
        if (streq(q->fields.v[i].name, q->sort))
            row->key = sum_text(q->a, &q->fields.v[i], &row->sums[i]);
}

static void put_in_order(struct iq *q)
{
    for (uint32_t i = 0; q->stats && q->sorted && i < q->n; i++)
        group_key(q, &q->rows[i]);
    if (q->sorted && q->n && (q->stats || !by_time(q)))
        qsort(q->rows, q->n, sizeof *q->rows, q->down ? by_key_down : by_key);
    else if (q->mixed)
        qsort(q->rows, q->n, sizeof *q->rows, q->down ? by_ms_down : by_ms);
    q->ordered = true;
}

struct val *insights_query_results(struct iq *q, struct arena *a, uint32_t limit)
{
    struct val *all = val_list(a), *shown;

    if (!q->ordered)
        put_in_order(q);
    limit = MIN(limit ? limit : q->limit, q->limit);
    for (uint32_t i = 0; i < q->n && i < limit; i++) {
        const struct row *row = &q->rows[i];

        shown = val_list(a);
        for (uint32_t k = 0; k < q->by.n; k++)
            cell(a, shown, q->by.v[k].name, row->v[k]);
        for (uint32_t k = 0; k < q->fields.n; k++)
            cell(a, shown, q->fields.v[k].name, q->stats ? sum_text(a, &q->fields.v[k], &row->sums[k]) : row->v[k]);
        if (!q->stats)
            cell(a, shown, "@ptr", row->v[q->fields.n]);
        val_push(a, all, shown);
    }
    return all;
}
