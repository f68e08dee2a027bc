/* fanout HOST PORT TOKEN WATCHERS ROUNDS NAMESPACE PID...: how long until one write has reached every watcher.
 *
 * WATCHERS TLS connections watch the ConfigMaps of the namespace; in each round one more connection
 * creates one, and the clock stops when all watchers have the event. Prints the median and the
 * longest round in milliseconds, and the CPU that the processes PID (the server's) took for a round in
 * microseconds. One thread, epoll: a plain client, so that the server's work counts. */
#include <arpa/inet.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

struct watcher {
    SSL *ssl;
    int fd;
    int events; /* ends of lines seen */
    char last;
};
static const char *token;
static struct sockaddr_in addr;
static SSL_CTX *ctx;

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static struct watcher dial(void)
{
    struct watcher w = {.fd = socket(AF_INET, SOCK_STREAM, 0)};

    if (connect(w.fd, (struct sockaddr *)&addr, sizeof addr) < 0)
        fail("connect");
    w.ssl = SSL_new(ctx);
    SSL_set_fd(w.ssl, w.fd);
    if (SSL_connect(w.ssl) != 1)
        fail("TLS");
    return w;
}

static void say(struct watcher *w, const char *method, const char *path, const char *body)
{
    char text[8192];
    int n = snprintf(text, sizeof text,
                     "%s %s HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Type: application/json\r\n"
                     "Content-Length: %zu\r\n\r\n%s", method, path, token, strlen(body), body);

    if (SSL_write(w->ssl, text, n) != n)
        fail("write");
}

static double cpu_us(int n, char **pids)
{
    double sum = 0;

    for (int i = 0; i < n; i++) {
        clockid_t clock;
        struct timespec t = {0};

        if (clock_getcpuclockid(atoi(pids[i]), &clock) == 0)
            clock_gettime(clock, &t);
        sum += (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
    }
    return sum;
}

/* An event's line ends in }\n; chunks end in \r\n. */
static void count(struct watcher *w, const char *p, int n)
{
    for (int i = 0; i < n; i++) {
        w->events += p[i] == '\n' && w->last == '}';
        w->last = p[i];
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static char buf[1 << 16];
    struct epoll_event got[256];
    struct watcher *v, writer;
    double *took, cpu = 0;
    char path[256], body[512];
    int n, rounds, epfd;

    if (argc < 7)
        return 2;
    token = argv[3];
    n = atoi(argv[4]);
    rounds = atoi(argv[5]);
    addr = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[2]))};
    inet_pton(AF_INET, argv[1], &addr.sin_addr);
    ctx = SSL_CTX_new(TLS_client_method());
    SSL_CTX_set_mode(ctx, SSL_MODE_RELEASE_BUFFERS);
    v = calloc((size_t)n, sizeof *v);
    took = calloc((size_t)rounds, sizeof *took);
    epfd = epoll_create1(0);
    writer = dial();
    snprintf(path, sizeof path, "/api/v1/namespaces/%s/configmaps?watch=1&labelSelector=fan", argv[6]);
    for (int i = 0; i < n; i++) {
        v[i] = dial();
        say(&v[i], "GET", path, "");
        epoll_ctl(epfd, EPOLL_CTL_ADD, v[i].fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = &v[i]});
    }
    for (int i = 0; i < n; i++) { /* the heads: all watch now */
        int r = SSL_read(v[i].ssl, buf, sizeof buf);

        if (r < 12 || memcmp(buf + 9, "200", 3) != 0) {
            fprintf(stderr, "fanout: %.*s\n", r, buf);
            return 1;
        }
        count(&v[i], buf, r);
    }
    snprintf(path, sizeof path, "/api/v1/namespaces/%s/configmaps", argv[6]);
    for (int round = -1; round < rounds; round++) { /* one to warm up */
        int target = round + 2, left = 0;
        double began = now_ms();

        if (round == 0)
            cpu = cpu_us(argc - 7, argv + 7);

        snprintf(body, sizeof body, "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"generateName\":\"fan-\","
                 "\"labels\":{\"fan\":\"%d\"}},\"data\":{\"text\":\"%0500d\"}}", round + 1, 0);
        body[sizeof body - 1] = 0;
        if (strlen(body) == sizeof body - 1)
            snprintf(body, sizeof body, "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{\"generateName\":\"fan-\","
                     "\"labels\":{\"fan\":\"%d\"}},\"data\":{\"text\":\"%0200d\"}}", round + 1, 0);
        say(&writer, "POST", path, body);
        for (int i = 0; i < n; i++)
            left += v[i].events < target;
        while (left) {
            int k = epoll_wait(epfd, got, 256, 20000);

            if (k <= 0) {
                fprintf(stderr, "fanout: %d of %d watchers did not get event %d\n", left, n, target);
                return 1;
            }
            for (int i = 0; i < k; i++) {
                struct watcher *w = got[i].data.ptr;
                int was = w->events;

                do {
                    int r = SSL_read(w->ssl, buf, sizeof buf);

                    if (r <= 0)
                        fail("watch");
                    count(w, buf, r);
                } while (SSL_pending(w->ssl));
                left -= was < target && w->events >= target;
            }
        }
        if (round >= 0)
            took[round] = now_ms() - began;
        if (SSL_read(writer.ssl, buf, sizeof buf) <= 0)
            fail("answer");
    }
    cpu = cpu_us(argc - 7, argv + 7) - cpu;
    qsort(took, (size_t)rounds, sizeof *took, by_value);
    printf("%.3f %.3f %.1f\n", took[rounds / 2], took[rounds - 1], cpu / rounds);
    return 0;
}
