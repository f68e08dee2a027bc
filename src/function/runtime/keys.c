/* keys.c of zygote.so - credentials of an instance that goes on from a snapshot: what was read into memory before is
 * that of another time, so its SDK asks for them (AWS_CONTAINER_CREDENTIALS_FULL_URI) and asks again before they expire.
 *
 * A process of its own beside the runtime, inside the same sandbox, with nothing but a socket from the gateway, which
 * brings messages TOKEN TAB JSON LF; the last one counts. */
#include "function/runtime/zygote.h"
#include "function/runtime/zygote_so.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { PORT = 9001, LINE_BYTES = 40960 /* auth/session.h: SESSION_TOKEN_MAX, and the rest */, REQUEST_BYTES = 8192 };

static char line[LINE_BYTES]; /* TOKEN TAB JSON */

/* Takes one message; a line that is too long or not whole is none. False: the gateway has gone, and with it who could ask. */
static bool take_line(int from)
{
    static char part[LINE_BYTES];
    ssize_t n = read(from, part, sizeof part);

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return true;
    if (n <= 0)
        return false;
    if (part[n - 1] != '\n')
        return true;
    memcpy(line, part, (size_t)n);
    line[n - 1] = 0;
    return true;
}

static void answer(int fd, int status, const char *word, const char *body)
{
    char head[256];
    int n = snprintf(head, sizeof head, "HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\nConnection: close\r\n\r\n",
                     status, word, strlen(body));

    if (send(fd, head, (size_t)n, MSG_NOSIGNAL) == n)
        (void)!send(fd, body, strlen(body), MSG_NOSIGNAL);
}

/* The value of a header is what: any case of the name, blanks around. */
static bool header_is(const char *request, const char *name, const char *what, size_t what_n)
{
    for (const char *p = strstr(request, "\r\n"); p; p = strstr(p, "\r\n")) {
        p += 2;
        if (strncasecmp(p, name, strlen(name)) != 0 || p[strlen(name)] != ':')
            continue;
        p += strlen(name) + 1;
        p += strspn(p, " \t");
        return strncmp(p, what, what_n) == 0 && p[what_n + strspn(p + what_n, " \t")] == '\r';
    }
    return false;
}

static void serve_one(int fd)
{
    static const char PATH[] = "GET /2021-04-23/credentials";
    static char request[REQUEST_BYTES];
    struct timeval limit = {.tv_sec = 2};
    size_t have = 0;
    char *tab = strchr(line, '\t');
    ssize_t n = 0;

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    request[0] = 0;
    while (!strstr(request, "\r\n\r\n") && have < sizeof request - 1 && (n = recv(fd, request + have, sizeof request - 1 - have, 0)) > 0)
        request[have += (size_t)n] = 0;
    if (strncmp(request, PATH, sizeof PATH - 1) != 0 || !strchr(" ?", request[sizeof PATH - 1]))
        answer(fd, 404, "Not Found", "{\"errorMessage\":\"404 page not found\",\"errorType\":\"NotFound\"}");
    else if (!tab || !header_is(request, "Authorization", line, (size_t)(tab - line)))
        answer(fd, 404, "Not Found", "{\"errorMessage\":\"no credentials for this token\",\"errorType\":\"InvalidToken\"}");
    else
        answer(fd, 200, "OK", tab + 1);
}

int keys_listen(void)
{
    struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons(PORT)};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (listener >= 0 && bind(listener, (struct sockaddr *)&at, sizeof at) == 0 && listen(listener, 16) == 0)
        return listener;
    dprintf(2, "tandem: credentials cannot be served on 127.0.0.1:%d: %s\n", PORT, strerror(errno));
    if (listener >= 0)
        close(listener);
    return -1;
}

void keys_serve(int from, int listener)
{
    fcntl(from, F_SETFL, O_NONBLOCK);
    take_line(from); /* the first ones lie there before we do */
    for (;;) {
        struct pollfd p[2] = {{from, POLLIN, 0}, {listener, POLLIN, 0}};

        if (poll(p, 2, -1) < 0 && errno != EINTR)
            _exit(1);
        if (p[0].revents && !take_line(from))
            _exit(0);
        if (p[1].revents) {
            int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);

            if (fd >= 0) {
                serve_one(fd);
                close(fd);
            }
        }
    }
}
