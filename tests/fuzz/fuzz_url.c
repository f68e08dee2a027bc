/* Whatever is asked for, the API answers: path, query, selectors, continue tokens, Accept. The input is a
 * byte for the method and lines: target, Accept, body. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "apiserver/apiserver.h"
#include "auth/pki.h"
#include "env/env.h"
#include "schema/schema.h"
#include "store/engine.h"

static struct api *api;
static struct env *env;

static void start(void)
{
    char dir[] = "/tmp/tandem-fuzz-XXXXXX";
    struct store_args args = {0};
    struct api_config config = {0};
    struct err err;

    if (!mkdtemp(dir))
        abort();
    env = env_sim_new(1);
    args = (struct store_args){.env = env, .engine = &store_memory, .disk = store_disk_new(env, 1, 1)};
    config = (struct api_config){.env = env, .store = store_open(&args, &err), .schema = schema_new(),
                                 .pki = pki_open(dir, NULL, &err), .state_dir = dir, .host = "192.0.2.1", .port = 6443};
    if (!config.store || !config.pki || !(api = api_new(&config, &err)))
        abort();
}

static void on_answer(void *arg, const struct api_response *r)
{
    struct buf b = {0};

    if (r->status < 200 || r->status > 599)
        abort();
    if (r->watch) {
        api_watch_free(r->watch);
    } else if (r->stream) {
        while (api_stream_next(r->stream, &b))
            ;
    } else {
        api_response_text(&b, r);
    }
    buf_done(&b);
    (void)arg;
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n);
int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
    static const char *const methods[] = {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "GET"};
    static const char *const types[] = {NULL, "application/json", "application/yaml", "application/merge-patch+json",
                                        "application/json-patch+json", "application/apply-patch+yaml",
                                        "application/strategic-merge-patch+json", "application/vnd.kubernetes.protobuf"};
    struct arena *a;
    char *text, *accept, *body, *query;
    struct api_request req = {0};

    if (!api)
        start();
    if (n < 2 || n > 65536)
        return 0;
    a = arena_new();
    text = arena_strndup(a, (const char *)p + 1, n - 1);
    if ((accept = strchr(text, '\n')))
        *accept++ = 0;
    if (accept && (body = strchr(accept, '\n'))) {
        *body++ = 0;
        req.body = body;
        req.body_n = strlen(body);
    }
    if ((query = strchr(text, '?')))
        *query++ = 0;
    req.arena = a;
    req.method = methods[p[0] & 7];
    req.content_type = types[p[0] >> 3 & 7];
    req.path = text;
    req.query = query;
    req.accept = accept;
    req.may_stream = p[0] & 64;
    req.at_once = true;
    api_do(api, &req, on_answer, NULL);
    arena_free(a);
    env_sim_run_until(env, env_now_ms(env) + 2);
    return 0;
}
