/* door/aws/ssm/ssm.c - SSM's Parameter Store: parameters are Parameter objects, each with its last versions.
 *
 * A change reads the object, makes the new one and writes it only over what was read; when somebody else wrote in
 * between, it begins again. SecureStrings are sealed (seal.c). */
#include "door/aws/ssm/ssm.h"

#include "base/map.h"
#include "door/aws/aws_int.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <ctype.h>
#include <pcre2.h>
#include <stdio.h>
#include <strings.h>
#include <time.h>

#define PARAMETERS "tandem.dev/v1/parameters"
#define SSM_NS "default"
enum { VERSIONS_MAX = 100, STANDARD_MAX = 4096, ADVANCED_MAX = 8192, LABELS_MAX = 10, TRIES = 8, LEVELS_MAX = 15 };

struct op {
    struct aws_req *q;
    const struct val *in;
    const char *name; /* of the parameter at hand */
    int tries;
    /* changes the object, or answers and gives back NULL; was: NULL, there is none */
    struct val *(*change)(struct op *op, const struct val *was);
    void (*reply)(struct op *op, const struct val *now);
    /* of several */
    const struct val *names;
    struct val *found, *missing;
    uint32_t at;
    void (*each)(struct op *op, const struct val *object, const char *asked);
    void (*end)(struct op *op);
    int64_t number;
};

static struct arena *arena_of(const struct op *op)
{
    return op->q->req->arena;
}

static const char *object_name(struct arena *a, const char *name)
{
    char *out = arena_raw(a, 80);
    size_t n = 0;

    for (const char *p = name; *p && n < 60; p++)
        if (isalnum((unsigned char)*p))
            out[n++] = (char)tolower((unsigned char)*p);
        else if (n && out[n - 1] != '-')
            out[n++] = '-';
    snprintf(out + n, 80 - n, "%s%s", n && out[n - 1] != '-' ? "-" : "", aws_name_hash(a, name));
    return out;
}

static void fail(struct op *op, const struct err *err)
{
    if (err->code == ERR_INVALID || err->code == ERR_INVALID_ARGUMENT)
        aws_error(op->q, 400, "ValidationException", "%s", err->msg);
    else
        aws_error(op->q, 500, "InternalServerError", "%s", err->msg);
}

static void not_found(struct op *op)
{
    aws_error(op->q, 400, "ParameterNotFound", "Parameter %s not found.", op->name);
}

/* ---- names ---- */

const char *ssm_name_of(struct arena *a, const char *s, const char **ret_selector)
{
    const char *arn = str_starts(s, "arn:") ? strstr(s, ":parameter/") : NULL, *colon;

    if (arn) {
        s = arn + strlen(":parameter");
        if (!strchr(s + 1, '/')) /* a name without levels has no slash of its own */
            s++;
    }
    colon = strchr(s, ':');
    *ret_selector = colon ? colon + 1 : "";
    return colon ? arena_strndup(a, s, (size_t)(colon - s)) : s;
}

static bool name_ok(struct op *op)
{
    const char *s = op->name, *bare = s + strspn(s, "/");
    int levels = 0;

    for (const char *p = s; *p; p++)
        levels += *p == '/';
    if (!*s || s[strspn(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-/")] || strlen(s) > 1011 || str_ends(s, "/"))
        aws_error(op->q, 400, "ValidationException",
                  "Parameter name: can't be prefixed with \"ssm\" (case-insensitive). If formed as a path, it can consist of sub-paths divided "
                  "by slash symbol; each sub-path can be formed as a mix of letters, numbers and the following 3 symbols .-_");
    else if (levels && *s != '/')
        aws_error(op->q, 400, "ValidationException", "Parameter name must be a fully qualified name.");
    else if (levels > LEVELS_MAX)
        aws_error(op->q, 400, "HierarchyLevelLimitExceededException",
                  "A parameter hierarchy can have a maximum of %d levels. For more information, see Requirements and constraints for parameter names", LEVELS_MAX);
    else if (strncasecmp(bare, "ssm", 3) == 0)
        aws_error(op->q, 400, "ValidationException", "Parameter name: can't be prefixed with \"ssm\" (case-insensitive).");
    else if (strncasecmp(bare, "aws", 3) == 0)
        aws_error(op->q, 400, "AccessDeniedException", "No access to reserved parameter name: %s.", s);
    else
        return true;
    return false;
}

/* ---- versions ---- */

static const struct val *last_version(const struct val *object)
{
    const struct val *list = val_at(object, "spec.versions");

    return val_len(list) ? &list->items[list->n - 1] : NULL;
}

static bool has_label(const struct val *v, const char *label)
{
    VAL_EACH(val_get(v, "labels"), it)
    if (streq(val_text(it, ""), label))
        return true;
    return false;
}

static const struct val *version_by(const struct val *object, const char *selector)
{
    if (!*selector)
        return last_version(object);
    VAL_EACH(val_at(object, "spec.versions"), it)
    {
        char number[24];

        snprintf(number, sizeof number, "%lld", (long long)val_int_at(it, "version", 0));
        if (streq(number, selector) || has_label(it, selector))
            return it;
    }
    return NULL;
}

static void put_date(struct arena *a, struct val *o, const struct val *version)
{
    struct tm tm = {0};

    if (strptime(val_str_at(version, "modified", ""), "%Y-%m-%dT%H:%M:%S", &tm))
        val_put(a, o, "LastModifiedDate", val_double(a, (double)timegm(&tm)));
}

static const char *about(struct arena *a, const char *name, const struct val *v)
{
    return arena_printf(a, "%s:%lld", name, (long long)val_int_at(v, "version", 0));
}

/* The value as the caller may see it; NULL: it was answered. */
static const char *value_of(struct op *op, const struct val *object, const struct val *v)
{
    const char *name = val_str_at(object, "spec.name", ""), *value = val_str_at(v, "value", "");

    if (!val_bool_at(v, "sealed", false) || !val_bool_at(op->in, "WithDecryption", false))
        return value;
    value = ssm_unseal(arena_of(op), op->q->d->ssm_key, about(arena_of(op), name, v), value);
    return value ? value : "";
}

static const char *arn_of(struct op *op, const char *name)
{
    return arena_printf(arena_of(op), "arn:aws:ssm:%s:%s:parameter%s%s", op->q->d->region, op->q->d->account, *name == '/' ? "" : "/", name);
}

static struct val *parameter(struct op *op, const struct val *object, const struct val *v, const char *selector)
{
    struct arena *a = arena_of(op);
    const char *name = val_str_at(object, "spec.name", "");
    struct val *o = val_map(a);

    val_put_str(a, o, "Name", name);
    val_put_str(a, o, "Type", val_str_at(v, "type", val_str_at(object, "spec.type", "String")));
    val_put_str(a, o, "Value", value_of(op, object, v));
    val_put_int(a, o, "Version", val_int_at(v, "version", 1));
    if (*selector)
        val_put_str(a, o, "Selector", arena_printf(a, ":%s", selector));
    put_date(a, o, v);
    val_put_str(a, o, "ARN", arn_of(op, name));
    val_put_str(a, o, "DataType", val_str_at(v, "dataType", "text"));
    return o;
}

/* What is told of a version without its value. */
static struct val *metadata(struct op *op, const struct val *object, const struct val *v)
{
    struct arena *a = arena_of(op);
    const char *name = val_str_at(object, "spec.name", "");
    struct val *o = val_map(a);

    val_put_str(a, o, "Name", name);
    val_put_str(a, o, "Type", val_str_at(v, "type", val_str_at(object, "spec.type", "String")));
    if (val_get(val_get(object, "spec"), "keyId"))
        val_put(a, o, "KeyId", val_at(object, "spec.keyId"));
    put_date(a, o, v);
    val_put_str(a, o, "LastModifiedUser", val_str_at(v, "modifiedBy", ""));
    if (*val_str_at(v, "description", ""))
        val_put_str(a, o, "Description", val_str_at(v, "description", ""));
    if (*val_str_at(v, "allowedPattern", ""))
        val_put_str(a, o, "AllowedPattern", val_str_at(v, "allowedPattern", ""));
    val_put_int(a, o, "Version", val_int_at(v, "version", 1));
    val_put_str(a, o, "Tier", val_str_at(object, "spec.tier", "Standard"));
    val_put(a, o, "Policies", val_list(a));
    val_put_str(a, o, "DataType", val_str_at(v, "dataType", "text"));
    return o;
}

/* ---- read, change, write ---- */

static void read_again(struct op *op);

static void on_written(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;

    (void)q;
    if (r->err && (r->err->code == ERR_CONFLICT || r->err->code == ERR_ALREADY_EXISTS || r->err->code == ERR_NOT_FOUND) && ++op->tries < TRIES)
        read_again(op);
    else if (r->err && (r->err->code == ERR_CONFLICT || r->err->code == ERR_ALREADY_EXISTS))
        aws_error(op->q, 400, "TooManyUpdates", "There are concurrent updates for a resource that supports one update at a time.");
    else if (r->err)
        fail(op, r->err);
    else
        op->reply(op, r->val);
}

static void on_read(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;
    const struct val *was = r->err ? NULL : r->val;
    struct val *now;

    (void)q;
    if (r->err && r->err->code != ERR_NOT_FOUND) {
        fail(op, r->err);
        return;
    }
    if (was && !streq(val_str_at(was, "spec.name", ""), op->name)) {
        aws_error(op->q, 500, "InternalServerError", "another parameter has this one's place: %s", val_str_at(was, "spec.name", ""));
        return;
    }
    now = op->change(op, was);
    if (now)
        aws_call(op->q, &(struct client_call){.verb = was ? CLIENT_UPDATE : CLIENT_CREATE, .resource = PARAMETERS, .ns = SSM_NS,
            .name = was ? object_name(arena_of(op), op->name) : NULL, .body = now}, on_written, op);
}

static void read_again(struct op *op)
{
    aws_call(op->q, &(struct client_call){.verb = CLIENT_GET, .resource = PARAMETERS, .ns = SSM_NS,
        .name = object_name(arena_of(op), op->name)}, on_read, op);
}

static void begin(struct op *op, const char *member, struct val *(*change)(struct op *, const struct val *),
                  void (*reply)(struct op *, const struct val *))
{
    const char *selector;

    op->name = ssm_name_of(arena_of(op), val_str_at(op->in, member, ""), &selector);
    op->change = change;
    op->reply = reply;
    read_again(op);
}

static void reply_empty(struct op *op, const struct val *now)
{
    (void)now;
    json_reply(op->q, val_map(arena_of(op)));
}

/* ---- put ---- */

static void reply_put(struct op *op, const struct val *now)
{
    struct arena *a = arena_of(op);
    struct val *out = val_map(a);

    val_put_int(a, out, "Version", op->number);
    val_put_str(a, out, "Tier", val_str_at(now, "spec.tier", "Standard"));
    json_reply(op->q, out);
}

static bool pattern_fits(struct op *op, const char *pattern, const char *value)
{
    int code, hit;
    PCRE2_SIZE where;
    pcre2_code *re = *pattern ? pcre2_compile((PCRE2_SPTR)pattern, PCRE2_ZERO_TERMINATED, 0, &code, &where, NULL) : NULL;
    pcre2_match_data *match;
    pcre2_match_context *limits;

    if (!*pattern)
        return true;
    if (!re || strlen(pattern) > 1024) {
        pcre2_code_free(re);
        aws_error(op->q, 400, "InvalidAllowedPatternException", "The request does not meet the regular expression requirement.");
        return false;
    }
    match = pcre2_match_data_create(1, NULL);
    limits = pcre2_match_context_create(NULL);
    pcre2_set_match_limit(limits, 100000);
    hit = pcre2_match(re, (PCRE2_SPTR)value, strlen(value), 0, 0, match, limits);
    pcre2_match_context_free(limits);
    pcre2_match_data_free(match);
    pcre2_code_free(re);
    if (hit < 0)
        aws_error(op->q, 400, "ParameterPatternMismatchException", "Parameter value, cannot be validated against allowedPattern: %s", pattern);
    return hit >= 0;
}

/* The oldest goes when there are too many; one that somebody gave a label to may not. */
static bool make_room(struct op *op, struct val *versions)
{
    if (versions->n < VERSIONS_MAX)
        return true;
    if (val_len(val_get(&versions->items[0], "labels"))) {
        aws_error(op->q, 400, "ParameterMaxVersionLimitExceeded",
                  "You attempted to create a new version of %s by calling the PutParameter API with the overwrite flag. Version %lld, the oldest "
                  "version, can't be deleted because it has a label associated with it. Move the label to another version of the parameter, and "
                  "try again.", op->name, (long long)val_int_at(&versions->items[0], "version", 0));
        return false;
    }
    val_remove(versions, 0);
    return true;
}

static bool put_allowed(struct op *op, const struct val *was, const char *type)
{
    const char *value = val_str_at(op->in, "Value", ""), *tier = val_str_at(op->in, "Tier", val_str_at(was, "spec.tier", "Standard"));
    bool overwrite = val_bool_at(op->in, "Overwrite", false), many;
    const char *wrong;

    if (was && !overwrite)
        aws_error(op->q, 400, "ParameterAlreadyExists",
                  "The parameter already exists. To overwrite this value, set the overwrite option in the request to true.");
    else if (overwrite && val_len(val_get(op->in, "Tags")))
        aws_error(op->q, 400, "ValidationException", "Invalid request: tags and overwrite can't be used together. To create a parameter with tags, "
                                                     "please remove overwrite flag. To update tags for an existing parameter, please use AddTagsToResource or RemoveTagsFromResource.");
    else if ((wrong = aws_tags_wrong(op->q, NULL, val_get(op->in, "Tags"), &many)))
        aws_error(op->q, 400, many ? "TooManyTagsError" : "ValidationException", "%s", wrong);
    else if (!type)
        aws_error(op->q, 400, "ValidationException", "A parameter type is required when you create a parameter.");
    else if (!streq(type, "String") && !streq(type, "StringList") && !streq(type, "SecureString"))
        aws_error(op->q, 400, "UnsupportedParameterType", "The parameter type %s is not supported.", type);
    else if (!*value)
        aws_error(op->q, 400, "ValidationException", "1 validation error detected: Value '' at 'value' failed to satisfy constraint: Member must "
                                                     "have length greater than or equal to 1.");
    else if (strlen(value) > (streq(tier, "Standard") ? STANDARD_MAX : ADVANCED_MAX))
        aws_error(op->q, 400, "ValidationException", "%s tier parameters support a maximum parameter value of %d characters. %s", tier,
                  streq(tier, "Standard") ? STANDARD_MAX : ADVANCED_MAX,
                  streq(tier, "Standard") ? "To create a larger parameter value, upgrade the parameter to use the advanced-parameter tier." : "");
    else
        return true;
    return false;
}

static struct val *change_put(struct op *op, const struct val *was)
{
    struct arena *a = arena_of(op);
    const struct val *in = op->in, *last = last_version(was);
    const char *type = val_str_at(in, "Type", val_str_at(was, "spec.type", NULL)), *value = val_str_at(in, "Value", "");
    const char *pattern = val_str_at(in, "AllowedPattern", ""), *tier = val_str_at(in, "Tier", val_str_at(was, "spec.tier", "Standard"));
    bool secure;
    struct val *now, *spec, *v = val_map(a), *tags;

    if (!put_allowed(op, was, type) || !pattern_fits(op, pattern, value))
        return NULL;
    secure = streq(type, "SecureString");
    now = was ? val_copy(a, was) : val_map(a);
    if (!was) {
        val_put_str(a, now, "apiVersion", "tandem.dev/v1");
        val_put_str(a, now, "kind", "Parameter");
        val_put_str(a, val_need_map(a, now, "metadata"), "name", object_name(a, op->name));
    }
    spec = val_need_map(a, now, "spec");
    val_put_str(a, spec, "name", op->name);
    val_put_str(a, spec, "type", type);
    val_put_str(a, spec, "tier", streq(tier, "Intelligent-Tiering") ? strlen(value) > STANDARD_MAX ? "Advanced" : "Standard" : tier);
    if (secure)
        val_put_str(a, spec, "keyId", val_str_at(in, "KeyId", "alias/aws/ssm"));
    op->number = val_int_at(last, "version", 0) + 1;
    val_put_int(a, v, "version", op->number);
    val_put_str(a, v, "type", type);
    if (secure) {
        value = ssm_seal(a, op->q->d->ssm_key, about(a, op->name, v), value);
        val_put_bool(a, v, "sealed", true);
    }
    val_put_str(a, v, "value", value);
    val_put_str(a, v, "description", val_str_at(in, "Description", val_str_at(last, "description", "")));
    val_put_str(a, v, "allowedPattern", pattern);
    val_put_str(a, v, "dataType", val_str_at(in, "DataType", "text"));
    val_put_str(a, v, "modified", iso_time(a, (int64_t)time(NULL) * 1000));
    val_put_str(a, v, "modifiedBy", arena_printf(a, "arn:aws:iam::%s:root", op->q->d->account));
    VAL_EACH(val_get(in, "Tags"), it)
    {
        tags = val_need_map(a, spec, "tags");
        val_put_str(a, tags, val_str_at(it, "Key", ""), val_str_at(it, "Value", ""));
    }
    if (!make_room(op, val_need_list(a, spec, "versions")))
        return NULL;
    val_push(a, val_need_list(a, spec, "versions"), v);
    return now;
}

static void put_parameter(struct op *op)
{
    op->name = val_str_at(op->in, "Name", "");
    if (name_ok(op))
        begin(op, "Name", change_put, reply_put);
}

/* ---- labels, tags ---- */

static void reply_labels(struct op *op, const struct val *now)
{
    struct arena *a = arena_of(op);
    struct val *out = val_map(a);

    (void)now;
    val_put(a, out, op->missing ? "RemovedLabels" : "InvalidLabels", op->missing ? op->missing : val_list(a));
    if (op->missing)
        val_put(a, out, "InvalidLabels", val_list(a));
    val_put_int(a, out, "ParameterVersion", op->number);
    json_reply(op->q, out);
}

static void drop_label(struct val *version, const char *label)
{
    struct val *labels = val_get(version, "labels");

    for (uint32_t i = 0; i < val_len(labels); i++)
        if (streq(val_text(&labels->items[i], ""), label))
            val_remove(labels, i--);
}

static struct val *change_label(struct op *op, const struct val *was)
{
    struct arena *a = arena_of(op);
    int64_t number = val_int_at(op->in, "ParameterVersion", val_int_at(last_version(was), "version", 0));
    struct val *now, *found = NULL;

    if (!was) {
        not_found(op);
        return NULL;
    }
    now = val_copy(a, was);
    VAL_EACH(val_at(now, "spec.versions"), it)
    if (val_int_at(it, "version", 0) == number)
        found = it;
    if (!found) {
        aws_error(op->q, 400, "ParameterVersionNotFound", "Systems Manager could not find version %lld of %s. Verify the version and try again.",
                  (long long)number, op->name);
        return NULL;
    }
    op->number = number;
    VAL_EACH(val_get(op->in, "Labels"), label)
    {
        VAL_EACH(val_at(now, "spec.versions"), it)
        if (!op->missing || it == found) /* a label is of one version only */
            drop_label(it, val_text(label, ""));
        if (!op->missing)
            val_push(a, val_need_list(a, found, "labels"), label);
    }
    if (val_len(val_get(found, "labels")) > LABELS_MAX) {
        aws_error(op->q, 400, "ParameterVersionLabelLimitExceeded", "A parameter version can have a maximum of ten labels.");
        return NULL;
    }
    return now;
}

static void label(struct op *op)
{
    begin(op, "Name", change_label, reply_labels);
}

static void unlabel(struct op *op)
{
    op->missing = val_copy(arena_of(op), val_get(op->in, "Labels"));
    if (!op->missing)
        op->missing = val_list(arena_of(op));
    begin(op, "Name", change_label, reply_labels);
}

static bool is_parameter(struct op *op)
{
    if (streq(val_str_at(op->in, "ResourceType", ""), "Parameter"))
        return true;
    aws_error(op->q, 400, "InvalidResourceType", "tandem knows resources of type Parameter only");
    return false;
}

static struct val *change_tags(struct op *op, const struct val *was)
{
    struct arena *a = arena_of(op);
    struct val *now, *spec, *tags;
    const char *wrong;
    bool many;

    if (!was) {
        aws_error(op->q, 400, "InvalidResourceId", "The resource ID isn't valid. Verify that you entered the correct ID and try again.");
        return NULL;
    }
    wrong = aws_tags_wrong(op->q, val_at(was, "spec.tags"), val_get(op->in, "Tags"), &many);
    if (wrong) {
        aws_error(op->q, 400, many ? "TooManyTagsError" : "ValidationException", "%s", wrong);
        return NULL;
    }
    now = val_copy(a, was);
    spec = val_need_map(a, now, "spec");
    tags = val_need_map(a, spec, "tags");
    VAL_EACH(val_get(op->in, "Tags"), it)
    val_put_str(a, tags, val_str_at(it, "Key", ""), val_str_at(it, "Value", ""));
    VAL_EACH(val_get(op->in, "TagKeys"), it)
    val_del(tags, val_text(it, ""));
    return now;
}

static void tags(struct op *op)
{
    if (is_parameter(op))
        begin(op, "ResourceId", change_tags, reply_empty);
}

/* ---- several, one after the other ---- */

static void next(struct op *op);

static void on_one(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;
    const struct val *object = r->err ? NULL : r->val;

    (void)q;
    if (r->err && r->err->code != ERR_NOT_FOUND) {
        fail(op, r->err);
        return;
    }
    if (object && !streq(val_str_at(object, "spec.name", val_str_at(object, "kind", "")), op->name) && streq(val_str_at(object, "kind", ""), "Parameter"))
        object = NULL;
    /* what a call answers is gone after it */
    op->each(op, object ? val_copy(arena_of(op), object) : NULL, val_text(&op->names->items[op->at], ""));
    op->at++;
    next(op);
}

static void next(struct op *op)
{
    const char *selector;

    if (op->at >= val_len(op->names)) {
        op->end(op);
        return;
    }
    op->name = ssm_name_of(arena_of(op), val_text(&op->names->items[op->at], ""), &selector);
    aws_call(op->q, &(struct client_call){.verb = op->number < 0 ? CLIENT_DELETE : CLIENT_GET, .resource = PARAMETERS, .ns = SSM_NS,
        .name = object_name(arena_of(op), op->name)}, on_one, op);
}

static void several(struct op *op, const struct val *names, void (*each)(struct op *, const struct val *, const char *), void (*end)(struct op *))
{
    struct arena *a = arena_of(op);

    op->names = names;
    op->found = val_list(a);
    op->missing = val_list(a);
    op->each = each;
    op->end = end;
    if (!val_len(names) || val_len(names) > 10)
        aws_error(op->q, 400, "ValidationException", "1 validation error detected: Value at 'names' failed to satisfy constraint: Member must have "
                                                     "length less than or equal to 10, greater than or equal to 1");
    else
        next(op);
}

static void each_get(struct op *op, const struct val *object, const char *asked)
{
    struct arena *a = arena_of(op);
    const char *selector;
    const struct val *v;

    ssm_name_of(a, asked, &selector);
    v = object ? version_by(object, selector) : NULL;
    if (v)
        val_push(a, op->found, parameter(op, object, v, selector));
    else
        val_push_str(a, op->missing, asked);
}

static void end_get(struct op *op)
{
    struct arena *a = arena_of(op);
    struct val *out = val_map(a);

    val_put(a, out, "Parameters", op->found);
    val_put(a, out, "InvalidParameters", op->missing);
    json_reply(op->q, out);
}

static void get_parameters(struct op *op)
{
    several(op, val_get(op->in, "Names"), each_get, end_get);
}

static void each_one(struct op *op, const struct val *object, const char *asked)
{
    const char *selector;

    ssm_name_of(arena_of(op), asked, &selector);
    op->number = object != NULL;
    each_get(op, object, asked);
}

static void end_one(struct op *op)
{
    struct arena *a = arena_of(op);
    struct val *out = val_map(a);
    const char *selector;

    ssm_name_of(a, val_str_at(op->in, "Name", ""), &selector);
    if (val_len(op->found)) {
        val_put(a, out, "Parameter", &op->found->items[0]);
        json_reply(op->q, out);
    } else if (op->number && *selector) {
        aws_error(op->q, 400, "ParameterVersionNotFound", "Systems Manager could not find version %s of %s. Verify the version and try again.", selector, op->name);
    } else {
        not_found(op);
    }
}

static void get_parameter(struct op *op)
{
    struct val *names = val_list(arena_of(op));

    val_push_str(arena_of(op), names, val_str_at(op->in, "Name", ""));
    several(op, names, each_one, end_one);
}

static void each_history(struct op *op, const struct val *object, const char *asked)
{
    struct arena *a = arena_of(op);

    (void)asked;
    op->number = object != NULL;
    VAL_EACH(val_at(object, "spec.versions"), it)
    {
        struct val *v = metadata(op, object, it);

        val_put_str(a, v, "Value", value_of(op, object, it));
        val_put(a, v, "Labels", val_get(it, "labels") ? val_get(it, "labels") : val_list(a));
        val_push(a, op->found, v);
    }
}

/* A page of op->found, by number. */
static void reply_page(struct op *op, const char *member, int64_t most)
{
    struct arena *a = arena_of(op);
    struct val *out = val_map(a), *list = val_list(a);
    uint32_t from = (uint32_t)strtoul(val_str_at(op->in, "NextToken", "0"), NULL, 10), n = (uint32_t)MIN(MAX(val_int_at(op->in, "MaxResults", most), (int64_t)1), (int64_t)50);

    for (uint32_t i = from; i < val_len(op->found) && i - from < n; i++)
        val_push(a, list, &op->found->items[i]);
    val_put(a, out, member, list);
    if (val_len(op->found) > from && val_len(op->found) - from > n)
        val_put_str(a, out, "NextToken", arena_printf(a, "%u", from + n));
    json_reply(op->q, out);
}

static void end_history(struct op *op)
{
    if (op->number)
        reply_page(op, "Parameters", 50);
    else
        not_found(op);
}

static void history(struct op *op)
{
    struct val *names = val_list(arena_of(op));

    val_push_str(arena_of(op), names, val_str_at(op->in, "Name", ""));
    several(op, names, each_history, end_history);
}

static void each_tags(struct op *op, const struct val *object, const char *asked)
{
    struct arena *a = arena_of(op);

    (void)asked;
    op->number = object != NULL;
    VAL_EACH_MEMBER(val_at(object, "spec.tags"), m)
    {
        struct val *t = val_map(a);

        val_put_str(a, t, "Key", m->key);
        val_put_str(a, t, "Value", val_text(&m->v, ""));
        val_push(a, op->found, t);
    }
}

static void end_tags(struct op *op)
{
    struct val *out = val_map(arena_of(op));

    if (!op->number) {
        aws_error(op->q, 400, "InvalidResourceId", "The resource ID isn't valid. Verify that you entered the correct ID and try again.");
        return;
    }
    val_put(arena_of(op), out, "TagList", op->found);
    json_reply(op->q, out);
}

static void list_tags(struct op *op)
{
    struct val *names = val_list(arena_of(op));

    val_push_str(arena_of(op), names, val_str_at(op->in, "ResourceId", ""));
    if (is_parameter(op))
        several(op, names, each_tags, end_tags);
}

static void each_delete(struct op *op, const struct val *object, const char *asked)
{
    val_push_str(arena_of(op), object ? op->found : op->missing, asked);
}

static void end_delete(struct op *op)
{
    struct arena *a = arena_of(op);
    struct val *out = val_map(a);

    val_put(a, out, "DeletedParameters", op->found);
    val_put(a, out, "InvalidParameters", op->missing);
    json_reply(op->q, out);
}

static void end_delete_one(struct op *op)
{
    if (val_len(op->found))
        reply_empty(op, NULL);
    else
        not_found(op);
}

static void delete_parameters(struct op *op)
{
    op->number = -1;
    several(op, val_get(op->in, "Names"), each_delete, end_delete);
}

static void delete_parameter(struct op *op)
{
    struct val *names = val_list(arena_of(op));

    op->number = -1;
    val_push_str(arena_of(op), names, val_str_at(op->in, "Name", ""));
    several(op, names, each_delete, end_delete_one);
}

/* ---- lists ---- */

static bool below(const char *name, const char *path, bool recursive)
{
    size_t n = strlen(path);

    while (n && path[n - 1] == '/')
        n--;
    return strncmp(name, path, n) == 0 && name[n] == '/' && (recursive || !strchr(name + n + 1, '/'));
}

static bool text_fits(const char *text, const char *option, const struct val *values)
{
    VAL_EACH(values, it)
    {
        const char *want = val_text(it, "");

        if (streq(option, "BeginsWith") ? str_starts(text, want) : streq(option, "Contains") ? strstr(text, want) != NULL : streq(text, want))
            return true;
    }
    return !val_len(values);
}

static bool filter_fits(const struct val *object, const struct val *f)
{
    const char *key = val_str_at(f, "Key", ""), *option = val_str_at(f, "Option", "Equals");
    const struct val *values = val_get(f, "Values"), *spec = val_get(object, "spec");
    const char *name = val_str_at(spec, "name", "");

    if (streq(key, "Name"))
        return text_fits(name, option, values) || text_fits(name + (*name == '/'), option, values);
    if (streq(key, "Type"))
        return text_fits(val_str_at(spec, "type", "String"), option, values);
    if (streq(key, "KeyId"))
        return text_fits(val_str_at(spec, "keyId", ""), option, values);
    if (streq(key, "Tier"))
        return text_fits(val_str_at(spec, "tier", "Standard"), option, values);
    if (streq(key, "DataType"))
        return text_fits(val_str_at(last_version(object), "dataType", "text"), option, values);
    if (streq(key, "Label")) {
        VAL_EACH(values, it)
        if (*val_text(it, "") && version_by(object, val_text(it, "")))
            return true;
        return false;
    }
    if (streq(key, "Path")) {
        VAL_EACH(values, it)
        if (below(name, val_text(it, ""), streq(option, "Recursive")))
            return true;
        return false;
    }
    if (str_starts(key, "tag:")) {
        const struct val *tag = val_get(val_get(spec, "tags"), key + 4);

        return tag && text_fits(val_text(tag, ""), option, values);
    }
    return false;
}

static bool wanted(struct op *op, const struct val *object)
{
    const char *path = val_str_at(op->in, "Path", NULL);

    if (path && !below(val_str_at(object, "spec.name", ""), path, val_bool_at(op->in, "Recursive", false)))
        return false;
    VAL_EACH(val_get(op->in, "ParameterFilters"), f)
    if (!filter_fits(object, f))
        return false;
    VAL_EACH(val_get(op->in, "Filters"), f)
    if (!filter_fits(object, f))
        return false;
    return true;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(val_str_at(a, "Name", ""), val_str_at(b, "Name", ""));
}

static void on_list(struct aws_req *q, const struct client_result *r, void *arg)
{
    struct op *op = arg;
    struct arena *a = arena_of(op);
    const char *path = val_str_at(op->in, "Path", NULL);

    (void)q;
    if (r->err) {
        fail(op, r->err);
        return;
    }
    op->found = val_list(a);
    VAL_EACH(val_get(r->val, "items"), o)
    if (last_version(o) && wanted(op, o)) {
        struct val *v = path ? parameter(op, o, last_version(o), "") : metadata(op, o, last_version(o));

        if (!path)
            val_put_str(a, v, "ARN", arn_of(op, val_str_at(o, "spec.name", "")));
        val_push(a, op->found, v);
    }
    if (val_len(op->found))
        qsort(op->found->items, op->found->n, sizeof *op->found->items, by_name);
    reply_page(op, "Parameters", path ? 10 : 50);
}

static void list(struct op *op)
{
    aws_call(op->q, &(struct client_call){.verb = CLIENT_LIST, .resource = PARAMETERS, .ns = SSM_NS}, on_list, op);
}

static void get_by_path(struct op *op)
{
    if (*val_str_at(op->in, "Path", "") != '/')
        aws_error(op->q, 400, "ValidationException", "The parameter doesn't meet the parameter name requirements. The parameter name must begin with "
                                                     "a forward slash \"/\". It can't be prefixed with \\\"aws\\\" or \\\"ssm\\\" (case-insensitive).");
    else
        list(op);
}

/* ---- operations ---- */

static const struct {
    const char *name;
    void (*run)(struct op *op);
} OPERATIONS[] = {
    {"AddTagsToResource", tags},
    {"DeleteParameter", delete_parameter},
    {"DeleteParameters", delete_parameters},
    {"DescribeParameters", list},
    {"GetParameter", get_parameter},
    {"GetParameterHistory", history},
    {"GetParameters", get_parameters},
    {"GetParametersByPath", get_by_path},
    {"LabelParameterVersion", label},
    {"ListTagsForResource", list_tags},
    {"PutParameter", put_parameter},
    {"RemoveTagsFromResource", tags},
    {"UnlabelParameterVersion", unlabel},
};

void ssm_request(struct aws_req *q)
{
    const char *name = json_operation(q);
    struct op *op = arena_new_of(q->req->arena, struct op);
    struct err err;

    op->q = q;
    for (size_t i = 0; name && i < ARRAY_LEN(OPERATIONS); i++) {
        if (!streq(OPERATIONS[i].name, name))
            continue;
        op->in = json_parse(q->req->arena, q->body_n ? q->body : "{}", q->body_n ? q->body_n : 2, &err);
        if (!val_is(op->in, VAL_MAP))
            aws_error(q, 400, "SerializationException", "the request's body is no JSON object");
        else if (!q->d->has_ssm_key)
            aws_error(q, 500, "InternalServerError", "the key that seals parameters cannot be read; the log says why");
        else
            OPERATIONS[i].run(op);
        return;
    }
    if (name)
        aws_error(q, 501, "NotImplementedException", "tandem does not serve the SSM operation %s", name);
    else
        aws_error(q, 400, "UnknownOperationException", "the request has no X-Amz-Target");
}
