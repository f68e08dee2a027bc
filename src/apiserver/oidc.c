#include "apiserver/authn_int.h"
struct oidc *oidc_new(struct api *api, const char *path, struct err *err){(void)api;(void)path;err_set(err,NOT_IMPLEMENTED,"x");return NULL;}
void *oidc_free(struct oidc *o){(void)o;return NULL;}
enum authn_result oidc_token(struct oidc *o, const struct jwt *t, const struct authn_ask *q,struct authn_answer *ret, struct err *err){(void)o;(void)t;(void)q;(void)ret;(void)err;return AUTHN_NO;}
void oidc_forget(struct oidc *o, void *w){(void)o;(void)w;}
const struct val *oidc_anonymous(const struct oidc *o){(void)o;return NULL;}
