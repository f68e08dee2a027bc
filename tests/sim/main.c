/* sim [--seed N] [--count N] [--steps N] [--twice] [--trace]
 *
 * For each seed: a cluster is made, a random user and a random world work on it (crashes of the
 * server, a full disk, nodes that go and come), then everything is healed (but for a node that was removed)
 * and the cluster must come
 * to rest in the state that its objects ask for, within half an hour of its own time. */
#include "sim.h"

#include "auth/pki.h"
#include "env/clock.h"
#include "env/fs.h"

#include <unistd.h>

enum { REST_MS = 30 * 60 * 1000, LOOK_MS = 5000 };

struct totals {
    uint64_t events, ops, refused, crashes, fulls, gone, removed, died, written, beats;
    int64_t slept_ms;
};

static bool run(struct sim *s, uint32_t steps, struct totals *t)
{
    char why[600] = "";
    int64_t healed_ms;
    bool ok = false;

    world_start(s);
    for (uint32_t i = 0; i < steps && !*s->wrong; i++)
        chaos_step(s);
    chaos_heal(s);
    healed_ms = env_now_ms(s->env);
    while (!*s->wrong && !ok && env_now_ms(s->env) - healed_ms < REST_MS) {
        env_sim_run_until(s->env, env_now_ms(s->env) + LOOK_MS);
        ok = check_rest(s, why, sizeof why);
    }
    if (!ok)
        sim_wrong(s, "not at rest after %d s: %s", REST_MS / 1000, why);
    t->events += s->events;
    t->ops += s->ops;
    t->refused += s->refused;
    t->crashes += s->crashes;
    t->fulls += s->fulls;
    t->gone += s->gone;
    t->removed += s->removed;
    t->died += s->died;
    t->slept_ms += env_mono_us(s->env) / 1000;
    world_stop(s);
    t->written += s->written;
    t->beats += s->beats;
    return !*s->wrong;
}

int main(int argc, char **argv)
{
    uint64_t first = 1, count = 1;
    uint32_t steps = 60, failed = 0;
    bool trace = false, twice = false;
    char dir[] = "/tmp/tandem-sim-XXXXXX";
    struct err err = {0};
    struct totals t = {0};
    struct schema *schema = schema_new();
    struct pki *pki;
    int64_t began = clock_mono_us();

    for (int i = 1; i < argc; i++) {
        if (streq(argv[i], "--trace"))
            trace = true;
        else if (streq(argv[i], "--twice"))
            twice = true;
        else if (i + 1 < argc && streq(argv[i], "--seed"))
            first = strtoull(argv[++i], NULL, 10);
        else if (i + 1 < argc && streq(argv[i], "--count"))
            count = strtoull(argv[++i], NULL, 10);
        else if (i + 1 < argc && streq(argv[i], "--steps"))
            steps = (uint32_t)strtoul(argv[++i], NULL, 10);
        else
            return fprintf(stderr, "usage: sim [--seed N] [--count N] [--steps N] [--twice] [--trace]\n"), 2;
    }
    if (!mkdtemp(dir) || !(pki = pki_open(dir, NULL, &err)))
        return fprintf(stderr, "%s: %s\n", dir, err.msg), 1;
    for (uint64_t seed = first; seed < first + count; seed++) {
        struct sim s = {.seed = seed, .trace = trace, .schema = schema, .pki = pki, .state_dir = dir};
        bool ok = run(&s, steps, &t);

        if (ok && twice) {
            struct sim again = {.seed = seed, .schema = schema, .pki = pki, .state_dir = dir};

            run(&again, steps, &t);
            if (again.hash != s.hash) {
                ok = false;
                snprintf(s.wrong, sizeof s.wrong, "a replay of the seed went another way");
            }
        }
        if (!ok) {
            failed++;
            printf("seed %llu: %s\n", (unsigned long long)seed, s.wrong);
            fflush(stdout);
        }
    }
    printf("sim: %llu seeds, %u failed; %llu hours of cluster time in %.1f s: %llu changes (%llu written, %llu heartbeats), %llu user operations (%llu refused), "
           "%llu crashes, %llu full disks, %llu nodes lost (%llu removed), %llu pods ended\n",
           (unsigned long long)count, failed, (unsigned long long)(t.slept_ms / 3600000), (double)(clock_mono_us() - began) / 1e6,
           (unsigned long long)t.events, (unsigned long long)t.written, (unsigned long long)t.beats,
           (unsigned long long)t.ops, (unsigned long long)t.refused,
           (unsigned long long)t.crashes, (unsigned long long)t.fulls, (unsigned long long)t.gone,
           (unsigned long long)t.removed, (unsigned long long)t.died);
    pki_free(pki);
    schema_free(schema);
    fs_remove_tree(dir, &err);
    return failed ? 1 : 0;
}
