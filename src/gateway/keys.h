/* gateway/keys.h - the keys that functions are given, and whose key signed a function URL's request.
 *
 * Functions find credentials in their environment as they do on Lambda, so that an SDK in an
 * unmodified handler reaches the AWS door: those of a session of their role (docs/iam.md). A function whose role IAM does
 * not know has the account's access: all such functions share one key, the Secret access-key-functions in kube-system
 * (type tandem.dev/access-key), which is made when it is missing. */
#pragma once

struct caller;
struct client;
struct functions;
struct http_req;
struct identity;
struct err;
struct keys;

/* identity may be NULL: then nobody's signature is good. */
struct keys *keys_new(struct client *client, struct functions *functions, struct identity *identity);
void *keys_free(struct keys *k);
/* Who signed this request (SigV4, body of n bytes)? FORBIDDEN when nobody did. k may be NULL. */
int keys_check(const struct keys *k, struct http_req *req, const void *body, unsigned long n, struct caller *ret, struct err *err);
