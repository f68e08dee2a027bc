#include "controller/jobs.h"

#include "base/buf.h"

int64_t job_wanted(int64_t parallelism, int64_t completions, int64_t succeeded, int64_t active)
{
    int64_t left;

    if (completions < 0) /* one success says that the queue is empty: nobody new */
        return succeeded > 0 ? MIN(active, parallelism) : parallelism;
    left = completions - succeeded;
    left = MAX(left, (int64_t)0);
    return MIN(left, parallelism);
}

int64_t job_backoff_ms(int64_t failures_in_a_row)
{
    if (failures_in_a_row <= 0)
        return 0;
    return failures_in_a_row > 6 ? 600000 : MIN((int64_t)10000 << (failures_in_a_row - 1), (int64_t)600000);
}

void indexes_init(struct indexes *x, struct arena *a, int64_t n)
{
    x->n = MAX(n, (int64_t)0);
    x->bits = arena_alloc(a, (size_t)x->n / 8 + 1);
}

bool indexes_has(const struct indexes *x, int64_t i)
{
    return i >= 0 && i < x->n && x->bits[i / 8] >> (i % 8) & 1;
}

void indexes_add(struct indexes *x, int64_t i)
{
    if (i >= 0 && i < x->n)
        x->bits[i / 8] |= (uint8_t)(1 << (i % 8));
}

void indexes_read(struct indexes *x, const char *text)
{
    while (text && *text) {
        char *end;
        long long first = strtoll(text, &end, 10), last = first;

        if (end == text)
            return;
        if (*end == '-')
            last = strtoll(end + 1, &end, 10);
        for (long long i = MAX(first, 0LL); i <= last && i < x->n; i++)
            indexes_add(x, i);
        text = *end == ',' ? end + 1 : NULL;
    }
}

int64_t indexes_count(const struct indexes *x)
{
    int64_t n = 0;

    for (int64_t i = 0; i < x->n; i++)
        n += indexes_has(x, i);
    return n;
}

const char *indexes_text(const struct indexes *x, struct arena *a)
{
    struct buf b = {0};
    const char *text;

    for (int64_t i = 0; i < x->n; i++) {
        int64_t last = i;

        if (!indexes_has(x, i))
            continue;
        while (indexes_has(x, last + 1))
            last++;
        buf_printf(&b, b.n ? ",%lld" : "%lld", (long long)i);
        if (last > i) /* two in a row are a list, three a range, as Kubernetes writes them */
            buf_printf(&b, last == i + 1 ? ",%lld" : "-%lld", (long long)last);
        i = last;
    }
    text = arena_strndup(a, b.p ? b.p : "", b.n);
    buf_done(&b);
    return text;
}
