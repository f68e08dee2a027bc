/* Goal: a policy document says what IAM's documentation says it does. Method: tables of documents and requests; each
 * row that is allowed has one beside it that differs in one place and is not. */
#include "tt.h"

#include "auth/policy.h"
#include "codec/json.h"

#define ACCOUNT "123456789012"
#define USER "arn:aws:iam::" ACCOUNT ":user/anna"
#define ROLE "arn:aws:iam::" ACCOUNT ":role/reader"
#define SESSION "arn:aws:sts::" ACCOUNT ":assumed-role/reader/once"

/* ' stands for ". */
static struct val *quoted(struct arena *a, const char *text)
{
    char *copy = arena_strdup(a, text);
    struct err err = {0};
    struct val *v;

    for (char *p = copy; *p; p++)
        if (*p == '\'')
            *p = '"';
    v = json_parse(a, copy, strlen(copy), &err);
    if (!v)
        fail_msg("%s: %s", copy, err.msg);
    return v;
}

static const struct val *document(struct arena *a, const char *statement, enum policy_kind kind)
{
    struct val *doc = quoted(a, arena_printf(a, "{'Version':'2012-10-17','Statement':[%s]}", statement));
    struct err err = {0};

    if (policy_check(doc, kind, &err) < 0)
        fail_msg("%s: %s", statement, err.msg);
    return doc;
}

struct row {
    const char *statement, *action, *resource, *context;
    enum policy_says says;
};

static void run(const struct row *rows, size_t n, enum policy_kind kind, const struct policy_who *who)
{
    for (size_t i = 0; i < n; i++) {
        _auto_(arena_freep) struct arena *a = arena_new();
        const struct val *doc = document(a, rows[i].statement, kind);
        struct policy_ask ask = {rows[i].action, rows[i].resource, rows[i].context ? quoted(a, rows[i].context) : NULL,
                                 who, a};
        enum policy_says says = policy_says(doc, kind, &ask);

        if (says != rows[i].says)
            fail_msg("row %zu: %s %s %s %s: says %d", i, rows[i].statement, rows[i].action, rows[i].resource,
                     rows[i].context ? rows[i].context : "", says);
    }
}

#define NOTHING POLICY_SAYS_NOTHING
#define ALLOW POLICY_SAYS_ALLOW
#define DENY POLICY_SAYS_DENY
#define OBJ "arn:aws:s3:::b/dir/k"
#define IN(actions, resources) "{'Effect':'Allow','Action':" actions ",'Resource':" resources "}"

static void test_actions_and_resources(void **state)
{
    static const struct row ROWS[] = {
        {IN("'*'", "'*'"), "s3:GetObject", OBJ, NULL, ALLOW},
        {IN("'s3:GetObject'", "'*'"), "s3:GetObject", OBJ, NULL, ALLOW},
        {IN("'S3:getobject'", "'*'"), "s3:GetObject", OBJ, NULL, ALLOW},
        {IN("'s3:GetObject'", "'*'"), "s3:GetObjectAcl", OBJ, NULL, NOTHING},
        {IN("'s3:Get*'", "'*'"), "s3:GetObjectAcl", OBJ, NULL, ALLOW},
        {IN("'s3:*Object'", "'*'"), "s3:GetObjectAcl", OBJ, NULL, NOTHING},
        {IN("'s3:?etObject'", "'*'"), "s3:GetObject", OBJ, NULL, ALLOW},
        {IN("['sqs:*','s3:P*']", "'*'"), "s3:PutObject", OBJ, NULL, ALLOW},
        {IN("'s3:*'", "'arn:aws:s3:::b/*'"), "s3:GetObject", OBJ, NULL, ALLOW},
        {IN("'s3:*'", "'arn:aws:s3:::b'"), "s3:GetObject", OBJ, NULL, NOTHING},
        {IN("'s3:*'", "'arn:aws:s3:::b/*/k'"), "s3:GetObject", OBJ, NULL, ALLOW},
        {IN("'s3:*'", "'arn:aws:s3:::B/*'"), "s3:GetObject", OBJ, NULL, NOTHING},
        {IN("'s3:*'", "'arn:aws:s3:::b/dir/?'"), "s3:GetObject", OBJ, NULL, ALLOW},
        {IN("'s3:*'", "'arn:aws:*'"), "s3:GetObject", OBJ, NULL, ALLOW},
        {IN("'lambda:*'", "'arn:aws:lambda:*:*:function:f'"), "lambda:Invoke", "arn:aws:lambda:r:1:function:f", NULL, ALLOW},
        /* a star stays within its segment */
        {IN("'lambda:*'", "'arn:aws:lambda:*:function:f'"), "lambda:Invoke", "arn:aws:lambda:r:1:function:f", NULL, NOTHING},
        {IN("'lambda:*'", "'arn:aws:lambda:r:1:function:f'"), "lambda:Invoke", "arn:aws:lambda:r:1:function:f:3", NULL, NOTHING},
        {"{'Effect':'Allow','NotAction':'iam:*','Resource':'*'}", "s3:GetObject", OBJ, NULL, ALLOW},
        {"{'Effect':'Allow','NotAction':'iam:*','Resource':'*'}", "iam:GetRole", "*", NULL, NOTHING},
        {"{'Effect':'Deny','Action':'*','NotResource':'arn:aws:s3:::b/*'}", "s3:GetObject", OBJ, NULL, NOTHING},
        {"{'Effect':'Deny','Action':'*','NotResource':'arn:aws:s3:::b/*'}", "s3:GetObject", "arn:aws:s3:::c/k", NULL, DENY},
        /* Deny counts, wherever it stands */
        {IN("'*'", "'*'") ",{'Effect':'Deny','Action':'s3:Get*','Resource':'*'}", "s3:GetObject", OBJ, NULL, DENY},
        {"{'Effect':'Deny','Action':'s3:Get*','Resource':'*'}," IN("'*'", "'*'"), "s3:GetObject", OBJ, NULL, DENY},
        {"{'Effect':'Deny','Action':'s3:Put*','Resource':'*'}," IN("'*'", "'*'"), "s3:GetObject", OBJ, NULL, ALLOW},
        /* variables */
        {IN("'*'", "'arn:aws:s3:::b/${aws:username}/*'"), "s3:GetObject", OBJ, "{'aws:username':'dir'}", ALLOW},
        {IN("'*'", "'arn:aws:s3:::b/${aws:username}/*'"), "s3:GetObject", OBJ, "{'aws:username':'other'}", NOTHING},
        {IN("'*'", "'arn:aws:s3:::b/${aws:username}/*'"), "s3:GetObject", OBJ, NULL, NOTHING},
        {IN("'*'", "'arn:aws:s3:::b/${aws:username}/*'"), "s3:GetObject", OBJ, "{'aws:username':'*'}", NOTHING},
        {IN("'*'", "'arn:aws:s3:::b/dir/${*}'"), "s3:GetObject", OBJ, NULL, NOTHING},
        {IN("'*'", "'arn:aws:s3:::b/dir/${*}'"), "s3:GetObject", "arn:aws:s3:::b/dir/*", NULL, ALLOW},
        {IN("'*'", "'arn:aws:s3:::b/dir/${$}'"), "s3:GetObject", "arn:aws:s3:::b/dir/$", NULL, ALLOW},
    };
    struct policy_ask ask = {.action = "s3:GetObject", .resource = OBJ, .arena = arena_new()};
    const char *other = "{\"Version\":\"2012-10-17\",\"Statement\":{\"Effect\":\"Allow\",\"Action\":\"*\",\"Resource\":"
                        "\"arn:aws:s3:::b/${aws:PrincipalTag/team, 'dir'}/*\"}}";
    struct err err = {0};
    const struct val *doc = policy_read(ask.arena, val_str(ask.arena, other), POLICY_IDENTITY, &err);

    (void)state;
    run(ROWS, ARRAY_LEN(ROWS), POLICY_IDENTITY, NULL);
    assert_non_null(doc);
    assert_int_equal(policy_says(doc, POLICY_IDENTITY, &ask), ALLOW); /* a default of a variable */
    ask.context = quoted(ask.arena, "{'aws:principaltag/team':'blue'}");
    assert_int_equal(policy_says(doc, POLICY_IDENTITY, &ask), NOTHING);
    arena_free(ask.arena);
}

/* In the old version "${" is no variable. */
static void test_old_version(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    struct val *doc = quoted(a, "{'Version':'2008-10-17','Statement':{'Effect':'Allow','Action':'*','Resource':"
                                "'arn:aws:s3:::${aws:username}'}}");
    struct policy_ask ask = {"s3:ListBucket", "arn:aws:s3:::anna", quoted(a, "{'aws:username':'anna'}"), NULL, a};
    struct err err = {0};

    (void)state;
    assert_int_equal(policy_check(doc, POLICY_IDENTITY, &err), 0);
    assert_int_equal(policy_says(doc, POLICY_IDENTITY, &ask), NOTHING);
    ask.resource = "arn:aws:s3:::${aws:username}";
    assert_int_equal(policy_says(doc, POLICY_IDENTITY, &ask), ALLOW);
    val_put_str(a, doc, "Version", "2012-10-17");
    assert_int_equal(policy_says(doc, POLICY_IDENTITY, &ask), NOTHING);
}

static void test_conditions(void **state)
{
    static const struct { const char *condition, *context; bool holds; } ROWS[] = {
        {"{'StringEquals':{'aws:username':'anna'}}", "{'aws:username':'anna'}", true},
        {"{'StringEquals':{'AWS:UserName':['otto','anna']}}", "{'aws:username':'anna'}", true},
        {"{'StringEquals':{'aws:username':'Anna'}}", "{'aws:username':'anna'}", false},
        {"{'StringEquals':{'aws:username':'a*'}}", "{'aws:username':'anna'}", false},
        {"{'StringEquals':{'aws:username':'anna'}}", NULL, false},
        {"{'StringEqualsIfExists':{'aws:username':'anna'}}", NULL, true},
        {"{'StringEqualsIfExists':{'aws:username':'anna'}}", "{'aws:username':'otto'}", false},
        {"{'StringEqualsIgnoreCase':{'aws:username':'ANNA'}}", "{'aws:username':'anna'}", true},
        {"{'StringNotEquals':{'aws:username':'anna'}}", "{'aws:username':'otto'}", true},
        {"{'StringNotEquals':{'aws:username':['anna','otto']}}", "{'aws:username':'otto'}", false},
        {"{'StringNotEquals':{'aws:username':'anna'}}", NULL, true},
        {"{'StringNotEqualsIgnoreCase':{'aws:username':'ANNA'}}", "{'aws:username':'anna'}", false},
        {"{'StringLike':{'s3:prefix':['','home/*']}}", "{'s3:prefix':'home/x'}", true},
        {"{'StringLike':{'s3:prefix':['','home/*']}}", "{'s3:prefix':''}", true},
        {"{'StringLike':{'s3:prefix':['','home/*']}}", "{'s3:prefix':'hom'}", false},
        {"{'StringLike':{'s3:prefix':'home/${aws:username}/*'}}", "{'s3:prefix':'home/a/x','aws:username':'a'}", true},
        {"{'StringNotLike':{'s3:prefix':'home/*'}}", "{'s3:prefix':'home/x'}", false},
        {"{'NumericLessThanEquals':{'s3:max-keys':'10'}}", "{'s3:max-keys':'10'}", true},
        {"{'NumericLessThan':{'s3:max-keys':10}}", "{'s3:max-keys':'10'}", false},
        {"{'NumericGreaterThan':{'s3:max-keys':'9'}}", "{'s3:max-keys':'10'}", true},
        {"{'NumericEquals':{'s3:max-keys':'10.0'}}", "{'s3:max-keys':'10'}", true},
        {"{'NumericEquals':{'s3:max-keys':'ten'}}", "{'s3:max-keys':'10'}", false},
        {"{'NumericNotEquals':{'s3:max-keys':'10'}}", "{'s3:max-keys':'11'}", true},
        {"{'DateLessThan':{'aws:CurrentTime':'2026-06-01T00:00:00Z'}}", "{'aws:currenttime':'2026-05-31T23:59:59Z'}", true},
        {"{'DateLessThan':{'aws:CurrentTime':'2026-06-01'}}", "{'aws:currenttime':'2026-06-01T00:00:00Z'}", false},
        {"{'DateGreaterThan':{'aws:CurrentTime':'2026-06-01T00:00:00+02:00'}}", "{'aws:currenttime':'2026-05-31T22:00:01Z'}", true},
        {"{'DateGreaterThanEquals':{'aws:EpochTime':'2026-06-01'}}", "{'aws:epochtime':'1780272000'}", true},
        {"{'DateEquals':{'aws:CurrentTime':'tomorrow'}}", "{'aws:currenttime':'2026-05-31T22:00:01Z'}", false},
        {"{'Bool':{'aws:SecureTransport':'true'}}", "{'aws:securetransport':'true'}", true},
        {"{'Bool':{'aws:SecureTransport':true}}", "{'aws:securetransport':'false'}", false},
        {"{'IpAddress':{'aws:SourceIp':'10.0.0.0/8'}}", "{'aws:sourceip':'10.9.8.7'}", true},
        {"{'IpAddress':{'aws:SourceIp':['192.168.0.0/23','10.0.0.1']}}", "{'aws:sourceip':'192.168.1.255'}", true},
        {"{'IpAddress':{'aws:SourceIp':'192.168.0.0/23'}}", "{'aws:sourceip':'192.168.2.0'}", false},
        {"{'IpAddress':{'aws:SourceIp':'2001:db8::/33'}}", "{'aws:sourceip':'2001:db8:7fff::1'}", true},
        {"{'IpAddress':{'aws:SourceIp':'2001:db8::/33'}}", "{'aws:sourceip':'2001:db8:8000::1'}", false},
        {"{'IpAddress':{'aws:SourceIp':'0.0.0.0/0'}}", "{'aws:sourceip':'2001:db8::1'}", false},
        {"{'IpAddress':{'aws:SourceIp':'10.0.0.0/8'}}", "{'aws:sourceip':'::ffff:10.1.1.1'}", true},
        {"{'IpAddress':{'aws:SourceIp':'10.0.0.0/99'}}", "{'aws:sourceip':'10.1.1.1'}", false},
        {"{'NotIpAddress':{'aws:SourceIp':'10.0.0.0/8'}}", "{'aws:sourceip':'11.0.0.1'}", true},
        {"{'ArnLike':{'aws:SourceArn':'arn:aws:s3:::b*'}}", "{'aws:sourcearn':'arn:aws:s3:::bucket'}", true},
        {"{'ArnEquals':{'aws:SourceArn':'arn:aws:*:*:*:x'}}", "{'aws:sourcearn':'arn:aws:sns:r:1:x'}", true},
        {"{'ArnLike':{'aws:SourceArn':'arn:aws:*:x'}}", "{'aws:sourcearn':'arn:aws:sns:r:1:x'}", false},
        {"{'ArnNotLike':{'aws:SourceArn':'arn:aws:s3:::b*'}}", "{'aws:sourcearn':'arn:aws:s3:::c'}", true},
        {"{'ArnNotEquals':{'aws:SourceArn':'arn:aws:s3:::b'}}", NULL, true},
        {"{'Null':{'aws:TokenIssueTime':'true'}}", NULL, true},
        {"{'Null':{'aws:TokenIssueTime':'true'}}", "{'aws:tokenissuetime':'x'}", false},
        {"{'Null':{'aws:TokenIssueTime':false}}", "{'aws:tokenissuetime':'x'}", true},
        {"{'BinaryEquals':{'x:k':'QQ=='}}", "{'x:k':'QQ=='}", true},
        /* sets */
        {"{'ForAllValues:StringEquals':{'aws:TagKeys':['a','b']}}", "{'aws:tagkeys':['a','b']}", true},
        {"{'ForAllValues:StringEquals':{'aws:TagKeys':['a','b']}}", "{'aws:tagkeys':['a','c']}", false},
        {"{'ForAllValues:StringEquals':{'aws:TagKeys':['a','b']}}", NULL, true},
        {"{'ForAnyValue:StringEquals':{'aws:TagKeys':['a','b']}}", "{'aws:tagkeys':['c','b']}", true},
        {"{'ForAnyValue:StringEquals':{'aws:TagKeys':['a','b']}}", "{'aws:tagkeys':['c','d']}", false},
        {"{'ForAnyValue:StringEquals':{'aws:TagKeys':'a'}}", NULL, false},
        {"{'ForAnyValue:StringNotEquals':{'aws:TagKeys':'a'}}", "{'aws:tagkeys':['a','b']}", true},
        {"{'ForAnyValue:StringNotEquals':{'aws:TagKeys':'a'}}", "{'aws:tagkeys':['a']}", false},
        {"{'ForAllValues:StringNotEquals':{'aws:TagKeys':'a'}}", "{'aws:tagkeys':['a','b']}", false},
        {"{'ForAllValues:StringLike':{'aws:TagKeys':'t-*'}}", "{'aws:tagkeys':['t-1','t-2']}", true},
        {"{'ForAnyValue:StringEqualsIfExists':{'aws:TagKeys':'a'}}", NULL, true},
        /* all operators and all keys */
        {"{'StringEquals':{'aws:username':'anna','x:y':'1'}}", "{'aws:username':'anna'}", false},
        {"{'StringEquals':{'aws:username':'anna'},'Bool':{'x:y':'true'}}", "{'aws:username':'anna','x:y':'false'}", false},
        {"{'StringEquals':{'aws:username':'anna'},'Bool':{'x:y':'true'}}", "{'aws:username':'anna','x:y':'true'}", true},
        {"{}", NULL, true},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ROWS); i++) {
        _auto_(arena_freep) struct arena *a = arena_new();
        struct row row = {arena_printf(a, "{'Effect':'Allow','Action':'*','Resource':'*','Condition':%s}", ROWS[i].condition),
                          "s3:GetObject", OBJ, ROWS[i].context, ROWS[i].holds ? POLICY_SAYS_ALLOW : POLICY_SAYS_NOTHING};

        run(&row, 1, POLICY_IDENTITY, NULL);
    }
}

static void test_principals(void **state)
{
    static const struct policy_who ANNA = {.account = ACCOUNT, .arn = USER};
    static const struct policy_who ONCE = {.account = ACCOUNT, .arn = SESSION, .role = ROLE};
    static const struct policy_who ROOT = {.account = ACCOUNT, .arn = "arn:aws:iam::" ACCOUNT ":root", .root = true};
    static const struct policy_who LAMBDA = {.service = "lambda.amazonaws.com"};
    static const struct policy_who POD = {.federated = "arn:aws:iam::" ACCOUNT ":oidc-provider/k"};
    static const struct { const char *principal; const struct policy_who *who; enum policy_says says; } ROWS[] = {
        {"'Principal':'*'", &ANNA, POLICY_SAYS_ALLOW},
        {"'Principal':{'AWS':'*'}", &ANNA, POLICY_SAYS_ALLOW},
        {"'Principal':{'AWS':'" USER "'}", &ANNA, POLICY_SAYS_ALLOW},
        {"'Principal':{'AWS':'" USER "x'}", &ANNA, POLICY_SAYS_NOTHING},
        {"'Principal':{'AWS':'" ACCOUNT "'}", &ANNA, POLICY_SAYS_ACCOUNT},
        {"'Principal':{'AWS':'arn:aws:iam::" ACCOUNT ":root'}", &ANNA, POLICY_SAYS_ACCOUNT},
        {"'Principal':{'AWS':'arn:aws:iam::210987654321:root'}", &ANNA, POLICY_SAYS_NOTHING},
        {"'Principal':{'AWS':'arn:aws:iam::" ACCOUNT ":root'}", &ROOT, POLICY_SAYS_ALLOW},
        {"'Principal':{'AWS':['" USER "','" ROLE "']}", &ONCE, POLICY_SAYS_ROLE},
        {"'Principal':{'AWS':'" SESSION "'}", &ONCE, POLICY_SAYS_ALLOW},
        {"'Principal':{'Service':'lambda.amazonaws.com'}", &LAMBDA, POLICY_SAYS_ALLOW},
        {"'Principal':{'Service':'ec2.amazonaws.com'}", &LAMBDA, POLICY_SAYS_NOTHING},
        {"'Principal':{'Service':'lambda.amazonaws.com'}", &ANNA, POLICY_SAYS_NOTHING},
        {"'Principal':{'AWS':'" ACCOUNT "'}", &LAMBDA, POLICY_SAYS_NOTHING},
        {"'Principal':{'Federated':'arn:aws:iam::" ACCOUNT ":oidc-provider/k'}", &POD, POLICY_SAYS_ALLOW},
        {"'Principal':{'Federated':'arn:aws:iam::" ACCOUNT ":oidc-provider/l'}", &POD, POLICY_SAYS_NOTHING},
        {"'NotPrincipal':{'AWS':'" USER "'}", &ANNA, POLICY_SAYS_NOTHING},
        {"'NotPrincipal':{'AWS':'" USER "'}", &ONCE, POLICY_SAYS_ALLOW},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ROWS); i++) {
        _auto_(arena_freep) struct arena *a = arena_new();
        struct row row = {arena_printf(a, "{'Effect':'Allow','Action':'s3:*','Resource':'*',%s}", ROWS[i].principal),
                          "s3:GetObject", OBJ, NULL, ROWS[i].says};

        run(&row, 1, POLICY_RESOURCE, ROWS[i].who);
        row.statement = arena_printf(a, "{'Effect':'Deny','Action':'s3:*','Resource':'*',%s}", ROWS[i].principal);
        row.says = row.says ? POLICY_SAYS_DENY : POLICY_SAYS_NOTHING;
        run(&row, 1, POLICY_RESOURCE, ROWS[i].who);
    }
}

/* What the documents of all places come to. */
static void test_verdicts(void **state)
{
#define YES "{'Effect':'Allow','Action':'s3:Get*','Resource':'*'}"
#define NO "{'Effect':'Deny','Action':'s3:Get*','Resource':'*'}"
#define ELSE "{'Effect':'Allow','Action':'sqs:*','Resource':'*'}"
#define FOR(x) "{'Effect':'Allow','Action':'s3:*','Resource':'*','Principal':{'AWS':'" x "'}}"
    static const struct {
        const char *identity, *boundary, *session, *resource;
        bool root, must;
        enum policy_verdict verdict;
    } ROWS[] = {
        {YES, NULL, NULL, NULL, 0, 0, POLICY_ALLOWED},
        {ELSE, NULL, NULL, NULL, 0, 0, POLICY_NO_IDENTITY},
        {NULL, NULL, NULL, NULL, 0, 0, POLICY_NO_IDENTITY},
        {YES "," NO, NULL, NULL, NULL, 0, 0, POLICY_DENY_IDENTITY},
        {YES, YES, NULL, NULL, 0, 0, POLICY_ALLOWED},
        {YES, ELSE, NULL, NULL, 0, 0, POLICY_NO_BOUNDARY},
        {YES, NO, NULL, NULL, 0, 0, POLICY_DENY_BOUNDARY},
        {NULL, YES, NULL, NULL, 0, 0, POLICY_NO_IDENTITY},
        {YES, NULL, ELSE, NULL, 0, 0, POLICY_NO_SESSION},
        {YES, NULL, YES "," NO, NULL, 0, 0, POLICY_DENY_SESSION},
        {YES, YES, YES, NULL, 0, 0, POLICY_ALLOWED},
        {NULL, NULL, NULL, FOR(SESSION), 0, 0, POLICY_ALLOWED},
        {NULL, ELSE, ELSE, FOR(SESSION), 0, 0, POLICY_ALLOWED},
        {NULL, NULL, NULL, FOR(ROLE), 0, 0, POLICY_ALLOWED},
        {NULL, ELSE, NULL, FOR(ROLE), 0, 0, POLICY_NO_BOUNDARY},
        {NULL, NULL, ELSE, FOR(ROLE), 0, 0, POLICY_NO_SESSION},
        {NULL, NULL, NULL, FOR(ACCOUNT), 0, 0, POLICY_NO_IDENTITY},
        {NO, NULL, NULL, FOR(SESSION), 0, 0, POLICY_DENY_IDENTITY},
        {YES, NULL, NULL, "{'Effect':'Deny','Principal':'*','Action':'*','Resource':'*'}", 0, 0, POLICY_DENY_RESOURCE},
        {NULL, NULL, NULL, NULL, 1, 0, POLICY_ALLOWED},
        {NULL, NULL, NULL, "{'Effect':'Deny','Principal':'*','Action':'*','Resource':'*'}", 1, 0, POLICY_DENY_RESOURCE},
        {YES, NULL, NULL, FOR("210987654321"), 0, 1, POLICY_NO_RESOURCE},
        {YES, NULL, NULL, FOR(ACCOUNT), 0, 1, POLICY_ALLOWED},
    };
    static const struct policy_who WHO = {.account = ACCOUNT, .arn = SESSION, .role = ROLE};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ROWS); i++) {
        _auto_(arena_freep) struct arena *a = arena_new();
        struct policy_ask ask = {"s3:GetObject", OBJ, NULL, &WHO, a};
        const struct val *identity = ROWS[i].identity ? document(a, ROWS[i].identity, POLICY_IDENTITY) : NULL;
        const struct val *boundary = ROWS[i].boundary ? document(a, ROWS[i].boundary, POLICY_IDENTITY) : NULL;
        const struct val *session = ROWS[i].session ? document(a, ROWS[i].session, POLICY_IDENTITY) : NULL;
        struct policy_set set = {.root = ROWS[i].root, .identity = {&identity, identity != NULL},
                                 .boundary = {&boundary, 1}, .has_boundary = boundary, .session = {&session, 1},
                                 .has_session = session, .resource_must = ROWS[i].must, .resource_kind = POLICY_RESOURCE};
        enum policy_verdict got;

        if (ROWS[i].resource)
            set.resource = document(a, ROWS[i].resource, POLICY_RESOURCE);
        got = policy_decide(&set, &ask);
        if (got != ROWS[i].verdict)
            fail_msg("row %zu: verdict %d", i, got);
        assert_int_equal(got == POLICY_ALLOWED, !*policy_why(a, got, POLICY_RESOURCE, ask.action));
    }
}

static void test_malformed(void **state)
{
    static const struct { const char *doc; enum policy_kind kind; const char *text; } ROWS[] = {
        {"[]", POLICY_IDENTITY, "Syntax errors in policy."},
        {"{'Version':'2012-10-17'}", POLICY_IDENTITY, "Syntax errors in policy."},
        {"{'Version':'2011','Statement':[" YES "]}", POLICY_IDENTITY, "Syntax errors in policy."},
        {"{'Statement':[]}", POLICY_IDENTITY, "Syntax errors in policy."},
        {"{'Statement':[" YES "],'More':1}", POLICY_IDENTITY, "Syntax errors in policy."},
        {"{'Statement':[{'Effect':'allow','Action':'*','Resource':'*'}]}", POLICY_IDENTITY, "Syntax errors in policy."},
        {"{'Statement':[{'Effect':'Allow','Resource':'*'}]}", POLICY_IDENTITY, "Policy statement must contain actions."},
        {"{'Statement':[{'Effect':'Allow','Action':'*'}]}", POLICY_IDENTITY, "Policy statement must contain resources."},
        {"{'Statement':[{'Effect':'Allow','Action':'*','NotAction':'s3:*','Resource':'*'}]}", POLICY_IDENTITY, "Syntax errors in policy."},
        {"{'Statement':[{'Effect':'Allow','Action':'GetObject','Resource':'*'}]}", POLICY_IDENTITY,
         "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."},
        {"{'Statement':[{'Effect':'Allow','Action':'s3:Get:x','Resource':'*'}]}", POLICY_IDENTITY,
         "Actions/Condition can contain only one colon."},
        {"{'Statement':[{'Effect':'Allow','Action':'*','Resource':'bucket'}]}", POLICY_IDENTITY,
         "Resource bucket must be in ARN format or \"*\"."},
        {"{'Statement':[{'Effect':'Allow','Action':'*','Resource':'*','Principal':'*'}]}", POLICY_IDENTITY,
         "Policy document should not specify a principal."},
        {"{'Statement':[{'Effect':'Allow','Action':'sts:AssumeRole','Principal':'*','Resource':'*'}]}", POLICY_TRUST,
         "Has prohibited field Resource"},
        {"{'Statement':[{'Effect':'Allow','Action':'s3:*','Principal':'*'}]}", POLICY_TRUST,
         "AssumeRole policy may only specify STS AssumeRole actions."},
        {"{'Statement':[{'Effect':'Allow','Action':'sts:AssumeRole'}]}", POLICY_TRUST, "Missing required field Principal"},
        {"{'Statement':[{'Effect':'Allow','Action':'sts:AssumeRole','Principal':{'AWS':'anna'}}]}", POLICY_TRUST,
         "Invalid principal in policy: \"AWS\":\"anna\""},
        {"{'Statement':[{'Sid':'a','Effect':'Allow','Action':'*','Resource':'*'},{'Sid':'a','Effect':'Allow','Action':'*',"
         "'Resource':'*'}]}", POLICY_IDENTITY, "Statement IDs (SID) in a single policy must be unique."},
        {"{'Statement':[{'Effect':'Allow','Action':'*','Resource':'*','Condition':{'Equals':{'a:b':'c'}}}]}", POLICY_IDENTITY,
         "Invalid Condition type : Equals"},
        {"{'Statement':[{'Effect':'Allow','Action':'*','Resource':'*','Condition':{'StringEquals':{'a:b':{'c':1}}}}]}",
         POLICY_IDENTITY, "Syntax errors in policy."},
        {"{'Statement':[{'Effect':'Allow','Action':[],'Resource':'*'}]}", POLICY_IDENTITY, "Syntax errors in policy."},
        {"{'Statement':[{'Effect':'Allow','Action':[1],'Resource':'*'}]}", POLICY_IDENTITY, "Syntax errors in policy."},
    };
    _auto_(arena_freep) struct arena *a = arena_new();
    struct err err = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_LEN(ROWS); i++) {
        assert_int_equal(policy_check(quoted(a, ROWS[i].doc), ROWS[i].kind, &err), -1);
        assert_string_equal(err.msg, ROWS[i].text);
    }
    assert_null(policy_read(a, val_str(a, "{"), POLICY_IDENTITY, &err));
    assert_string_equal(err.msg, "This policy contains invalid Json");
    assert_int_equal(policy_bytes(" {\n\t} x"), 3);
}

/* Wildcards agree with the plain way to match them. */
static bool slowly(const char *p, const char *t)
{
    if (!*p)
        return !*t;
    if (*p == '*')
        return slowly(p + 1, t) || (*t && slowly(p, t + 1));
    return *t && (*p == '?' || *p == *t) && slowly(p + 1, t + 1);
}

TT_PROP(policy, globs_agree_with_the_plain_way, 20000)
{
    char pattern[10] = "", text[14] = "";

    for (uint32_t i = tt_below(rng, 9); i--;)
        pattern[i] = "ab*?"[tt_below(rng, 4)];
    for (uint32_t i = tt_below(rng, 13); i--;)
        text[i] = "ab"[tt_below(rng, 2)];
    TT_OK(policy_glob(pattern, text) == slowly(pattern, text));
}

/* A pattern of many stars against a long text that nearly matches ends soon. */
static void test_no_blow_up(void **state)
{
    _auto_(arena_freep) struct arena *a = arena_new();
    char *pattern = arena_alloc(a, 8001), *text = arena_alloc(a, 100001);

    (void)state;
    for (int i = 0; i < 4000; i++)
        memcpy(pattern + 2 * i, "a*", 2);
    pattern[7999] = 'b';
    memset(text, 'a', 100000);
    assert_false(policy_glob(pattern, text));
    memset(pattern, '*', 8000);
    assert_true(policy_glob(pattern, text));
    memset(pattern + 1, '?', 7998);
    pattern[7999] = 'b';
    assert_false(policy_glob(pattern, text));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_actions_and_resources),
        cmocka_unit_test(test_old_version),
        cmocka_unit_test(test_conditions),
        cmocka_unit_test(test_principals),
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_malformed),
        cmocka_unit_test(tt_policy_globs_agree_with_the_plain_way),
        cmocka_unit_test(test_no_blow_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
