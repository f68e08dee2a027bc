/* A runtime of one's own (provided.*) that answers each invocation with {"n": 1}: Lambda's Runtime API over one
 * kept connection, in as little C as it takes. For function_bench. */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

static char in[1 << 16];

/* One answer with its body; its length. */
static size_t read_answer(int fd)
{
    size_t n = 0, want = 0;

    while (!want || n < want) {
        ssize_t got = read(fd, in + n, sizeof in - 1 - n);
        char *end, *length;

        if (got <= 0)
            exit(1);
        n += (size_t)got;
        in[n] = 0;
        end = strstr(in, "\r\n\r\n");
        if (!want && end && (length = strcasestr(in, "\r\ncontent-length:")))
            want = (size_t)(end + 4 - in) + strtoul(length + 17, NULL, 10);
    }
    return n;
}

int main(void)
{
    struct sockaddr_in to = {.sin_family = AF_INET};
    char host[64], text[512], id[64];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    char *port, *at;

    snprintf(host, sizeof host, "%s", getenv("AWS_LAMBDA_RUNTIME_API"));
    port = strchr(host, ':');
    *port = 0;
    to.sin_port = htons((unsigned short)atoi(port + 1));
    inet_pton(AF_INET, host, &to.sin_addr);
    if (connect(fd, (struct sockaddr *)&to, sizeof to) < 0)
        return 1;
    for (;;) {
        int n = snprintf(text, sizeof text, "GET /2018-06-01/runtime/invocation/next HTTP/1.1\r\nHost: %s\r\n\r\n", host);

        if (write(fd, text, (size_t)n) != n)
            return 1;
        read_answer(fd);
        at = strcasestr(in, "\r\nlambda-runtime-aws-request-id: ");
        snprintf(id, sizeof id, "%.36s", at + 33);
        n = snprintf(text, sizeof text,
                     "POST /2018-06-01/runtime/invocation/%s/response HTTP/1.1\r\nHost: %s\r\nContent-Length: 8\r\n\r\n{\"n\": 1}",
                     id, host);
        if (write(fd, text, (size_t)n) != n)
            return 1;
        read_answer(fd);
    }
}
