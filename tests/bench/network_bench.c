/* What the pod network costs: medians in microseconds. Runs in a network namespace that it makes itself;
 * needs root. Beside: the same change of one service as
 * text through the nft program (which reads the whole rule set). */
#include "network/network.h"

#include <arpa/inet.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { SERVICES = 1000, ENDPOINTS = 10, ROUNDS = 200, NFT_ROUNDS = 5 };

static double now_us(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int by_value(const void *x, const void *y)
{
    double a = *(const double *)x, b = *(const double *)y;

    return a < b ? -1 : a > b;
}

static double median(double *v, size_t n)
{
    qsort(v, n, sizeof(*v), by_value);
    return v[n / 2];
}

static void must(bool ok, const struct err *err)
{
    if (ok)
        return;
    fprintf(stderr, "network_bench: %s\n", err->msg);
    exit(1);
}

static void row(const char *what, double us, const char *beside)
{
    printf("%-50s %12.2f %-8s %s\n", what, us, "us", beside);
}

static void set(struct services *s, uint32_t i, uint32_t endpoints)
{
    struct service_endpoint ep[ENDPOINTS];
    struct service_port port = {.name = "", .protocol = IPPROTO_TCP, .port = 80, .endpoints = ep, .n_endpoints = endpoints};
    struct service_spec spec = {.namespace_ = "bench", .ports = &port, .n_ports = 1};
    struct err err = {0};
    char name[32];

    snprintf(name, sizeof(name), "s%u", i);
    spec.name = name;
    spec.cluster_ip.s_addr = htonl(0x0a600100 + i);
    for (uint32_t k = 0; k < endpoints; k++)
        ep[k] = (struct service_endpoint){.ip.s_addr = htonl(0x0a2a0100 + k), .port = 80};
    must(service_set(s, &spec, NULL, &err) == 0, &err);
}

int main(void)
{
    struct net_options o = {.instance = "be4cbe4c", .pod_cidr = "10.42.0.0/16", .service_cidr = "10.96.0.0/16", .pool = 'p', .idle_max = 1000};
    double make[ROUNDS], recycle[ROUNDS], give[ROUNDS], change[ROUNDS], text[NFT_ROUNDS], t, added;
    struct err err = {0};
    struct net *n;
    char owner[32], beside[64];

    if (unshare(CLONE_NEWNET) < 0) {
        perror("network_bench: unshare");
        return 1;
    }
    n = net_open(&o, &err);
    must(n != NULL, &err);
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(owner, sizeof(owner), "o%d", i);
        t = now_us();
        must(net_take(n, owner, &err) != NULL, &err);
        make[i] = now_us() - t;
    }
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(owner, sizeof(owner), "o%d", i);
        t = now_us();
        net_give_back(n, owner, true);
        give[i] = now_us() - t;
    }
    for (int i = 0; i < ROUNDS; i++) {
        snprintf(owner, sizeof(owner), "r%d", i);
        t = now_us();
        must(net_take(n, owner, &err) != NULL, &err);
        recycle[i] = now_us() - t;
    }
    t = now_us();
    for (uint32_t i = 0; i < SERVICES; i++)
        set(net_services(n), i, ENDPOINTS);
    added = (now_us() - t) / SERVICES;
    for (uint32_t i = 0; i < ROUNDS; i++) {
        t = now_us();
        set(net_services(n), i, ENDPOINTS - 1);
        change[i] = now_us() - t;
    }
    for (int i = 0; i < NFT_ROUNDS; i++) {
        char cmd[200];

        snprintf(cmd, sizeof(cmd), "nft add element ip tandem-be4cbe4c hair '{ 10.42.200.%d . 10.42.200.%d }' 2>/dev/null", i, i);
        t = now_us();
        if (system(cmd) != 0)
            t = now_us();
        text[i] = now_us() - t;
    }
    snprintf(beside, sizeof(beside), "%.0f us by nft, one element", median(text, NFT_ROUNDS));
    row("network: a pod's network made from nothing", median(make, ROUNDS), "");
    row("network: the same, taken from the pool", median(recycle, ROUNDS), "");
    row("network: given back and re-addressed", median(give, ROUNDS), "");
    row("network: a service of 10 endpoints added, to 1,000", added, "");
    row("network: an endpoint changed, 1,000 services", median(change, ROUNDS), beside);
    net_close(n);
    return 0;
}
