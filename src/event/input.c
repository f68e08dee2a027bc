#include "event/input.h"

#include <ctype.h>
#include <stdio.h>

#include "codec/json.h"
#include "codec/kubetime.h"

enum { TEMPLATE_RESULT_MAX = 256 * 1024 };

static struct val *event(struct arena *a, const struct input_event *e)
{
    struct val *v = val_map(a);
    char time[KUBETIME_MAX];

    val_put_str(a, v, "version", "0");
    val_put_str(a, v, "id", e->id);
    val_put_str(a, v, "detail-type", "Scheduled Event");
    val_put_str(a, v, "source", e->source);
    val_put_str(a, v, "account", e->account);
    val_put_str(a, v, "time", kubetime_text(time, e->time_s * 1000));
    val_put_str(a, v, "region", e->region);
    val_push_str(a, val_need_list(a, v, "resources"), e->arn);
    if (streq(e->source, "aws.scheduler"))
        val_put_str(a, v, "detail", "{}"); /* a text there, unlike a rule's */
    else
        val_put(a, v, "detail", val_map(a));
    return v;
}

/* $.a.b[0]: what lies there, NULL: nothing. */
static const struct val *at_path(struct arena *a, const struct val *v, const char *path)
{
    if (*path++ != '$')
        return NULL;
    while (*path && v) {
        if (*path == '.') {
            size_t n = strcspn(++path, ".[");

            v = val_get(v, arena_strndup(a, path, n));
            path += n;
        } else if (*path == '[') {
            char *end;
            long at = strtol(path + 1, &end, 10), i = 0;
            const struct val *found = NULL;

            if (end == path + 1 || *end != ']')
                return NULL;
            VAL_EACH(v, it)
                if (i++ == at)
                    found = it;
            v = found;
            path = end + 1;
        } else {
            return NULL;
        }
    }
    return v;
}

static void put_value(struct buf *b, const struct val *v, bool in_string)
{
    if (!v)
        return;
    if (!in_string) {
        json_write(b, v);
    } else if (v->type == VAL_STR) {
        size_t from = b->n;

        json_write_str(b, v->s, v->n);
        memmove(b->p + from, b->p + from + 1, b->n - from - 2); /* without its quotes */
        b->n -= 2;
    } else {
        _auto_(buf_done) struct buf text = {0};

        json_write(&text, v);
        for (size_t i = 0; i < text.n; i++) {
            if (text.p[i] == '"' || text.p[i] == '\\')
                buf_addc(b, '\\');
            buf_addc(b, text.p[i]);
        }
    }
}

/* <name> in a template: a path of the target's, or one of the reserved ones. false: no such name. */
static bool placeholder(struct arena *a, const struct val *target, const struct input_event *e, const struct val *whole,
                        const char *name, const struct val **ret)
{
    const char *path = val_str_at(val_get(target, "inputPaths"), name, NULL);
    char time[KUBETIME_MAX];

    if (path)
        *ret = at_path(a, whole, path);
    else if (streq(name, "aws.events.rule-arn"))
        *ret = val_str(a, e->arn);
    else if (streq(name, "aws.events.rule-name"))
        *ret = val_str(a, e->name);
    else if (streq(name, "aws.events.event.ingestion-time"))
        *ret = val_str(a, kubetime_text(time, e->time_s * 1000));
    else if (streq(name, "aws.events.event") || streq(name, "aws.events.event.json"))
        *ret = whole;
    else
        return false;
    return true;
}

static const char *fill(struct arena *a, const struct val *target, const struct input_event *e, const struct val *whole,
                        const char *template_, size_t *ret_n, struct err *err)
{
    _auto_(buf_done) struct buf b = {0};
    bool in_string = false;

    for (const char *p = template_; *p; p++) {
        const struct val *v = NULL;
        const char *end = *p == '<' ? strchr(p, '>') : NULL;

        if (b.n > TEMPLATE_RESULT_MAX) {
            err_set(err, TOO_LARGE, "the input that the template makes is larger than 256 KiB");
            return NULL;
        }
        if (end && placeholder(a, target, e, whole, arena_strndup(a, p + 1, (size_t)(end - p - 1)), &v)) {
            put_value(&b, v, in_string);
            p = end;
            continue;
        }
        if (*p == '\\' && p[1])
            buf_addc(&b, *p++);
        else if (*p == '"')
            in_string = !in_string;
        buf_addc(&b, *p);
    }
    *ret_n = b.n;
    return arena_strndup(a, b.p ? b.p : "", b.n);
}

/* A schedule's input may name what only its run knows. */
static const char *fill_schedule(struct arena *a, const struct input_event *e, const char *input, size_t *ret_n)
{
    _auto_(buf_done) struct buf b = {0};
    char time[KUBETIME_MAX], attempt[12];
    const struct {
        const char *name, *value;
    } words[] = {{"<aws.scheduler.schedule-arn>", e->arn}, {"<aws.scheduler.scheduled-time>", kubetime_text(time, e->time_s * 1000)},
                 {"<aws.scheduler.execution-id>", e->id}, {"<aws.scheduler.attempt-number>", attempt}};

    snprintf(attempt, sizeof attempt, "%d", e->attempt);
    while (*input) {
        size_t i = 0;

        while (i < ARRAY_LEN(words) && !str_starts(input, words[i].name))
            i++;
        if (i < ARRAY_LEN(words)) {
            buf_adds(&b, words[i].value);
            input += strlen(words[i].name);
        } else {
            buf_addc(&b, *input++);
        }
    }
    *ret_n = b.n;
    return arena_strndup(a, b.p ? b.p : "", b.n);
}

const char *input_text(struct arena *a, const struct val *target, const struct input_event *e, size_t *ret_n, struct err *err)
{
    const char *input = val_str_at(target, "input", NULL), *path = val_str_at(target, "inputPath", NULL);
    const char *template_ = val_str_at(target, "inputTemplate", NULL);
    const struct val *whole = event(a, e), *part;

    if (!str_empty(template_))
        return fill(a, target, e, whole, template_, ret_n, err);
    if (!str_empty(input)) {
        if (streq(e->source, "aws.scheduler"))
            return fill_schedule(a, e, input, ret_n);
        *ret_n = strlen(input);
        return input;
    }
    part = str_empty(path) ? whole : at_path(a, whole, path);
    return part ? json_text(a, part, ret_n) : json_text(a, val_map(a), ret_n);
}
