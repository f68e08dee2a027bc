/* gateway/keys.h - the access keys (Secrets of type tandem.dev/access-key in kube-system), and the one
 * that functions are given.
 *
 * Functions find credentials in their environment as they do on Lambda, so that an SDK in an
 * unmodified handler reaches the AWS door. There are no roles yet: all functions share one key,
 * the Secret access-key-functions, which is made when it is missing. */
#pragma once

struct client;
struct functions;
struct http_req;
struct err;
struct keys;

struct keys *keys_new(struct client *client, struct functions *functions);
void *keys_free(struct keys *k);
/* Is this request signed with one of the keys (SigV4, body of n bytes)? FORBIDDEN when not. */
int keys_check(const struct keys *k, struct http_req *req, const void *body, unsigned long n, struct err *err);
