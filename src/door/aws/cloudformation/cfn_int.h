/* door/aws/cloudformation/cfn_int.h - between the files of CloudFormation's door.
 *   cloudformation.c  the service: operations that read;  write.c  those that change
 *   stack.c           stacks in memory, and their Stack objects
 *   run.c             what makes a stack what its template says
 *   plan.c            a template made ready: what is in it, in which order; what would change
 *   work.c            one resource's work: calls of the door's own operations; custom resources
 *   type*.c           the resource types (type_stack.c: stacks in stacks)
 *   rules.c           Rules: what parameters have to be together
 *   sam.c             AWS::Serverless;  sam_policy.c  its policy templates
 *   template.c  eval.c  loops.c   templates as pure functions */
#pragma once

#include "base/list.h"
#include "codec/obj.h"
#include "door/aws/aws_int.h"
#include "door/aws/cloudformation/cfn_template.h"
#include "door/aws/xml.h"
#include "http/client.h"

#define CFN_STACKS "tandem.dev/v1/stacks"
#define CFN_NS "default"
#define CFN_FINALIZER "tandem.dev/stack"

enum {
    CFN_EVENTS_MAX = 400,        /* kept of a stack, the newest */
    CFN_DELETED_MAX = 100,       /* deleted stacks that are remembered */
    CFN_STACKS_MAX = 2000,       /* as an account has there; a template may nest itself, many times */
    CFN_CHANGE_SETS_MAX = 20,    /* of a stack */
    CFN_OBJECT_MAX = 1200 << 10, /* bytes of a Stack object */
    CFN_AT_ONCE = 8,             /* resources of a stack in work */
    CFN_WAIT_MS = 120000,        /* for a function to become Active */
    CFN_CUSTOM_MS = 3600000,     /* for a custom resource to answer */
    CFN_NESTED_MAX = 8,          /* stacks in stacks in stacks */
    CFN_SAVE_MS = 60,            /* news of a running stack are written this late */
};

struct cfn {
    struct aws_door *d;
    struct http_server *inner; /* STATE/run/aws.sock: the door's operations for the door itself */
    struct http_client *http;
    struct http_origin *self;
    struct mirror *mirror;
    struct list stacks;
    bool stopping;
};

/* A resource as it is. Texts and trees lie in the stack's arena. */
struct cfn_res {
    const char *logical, *type, *phys, *status, *reason;
    int64_t at_ms;
    struct val *props, *attrs, *needs;    /* NULL: none */
    const char *keep, *replace_keep;      /* DeletionPolicy, UpdateReplacePolicy; NULL: Delete */
    const char *token;                    /* of a custom resource that is being waited for */
    int64_t done;                         /* the operation that found it as it should be */
    int64_t generation;                   /* how often it was replaced: part of generated names */
    int64_t old;                          /* replaced in this operation, to be deleted; 0: it is the one */
    bool dirty;                           /* a change failed half way */
    bool failed;                          /* in the operation at hand */
    bool made;                            /* (a part of) it is there */
    struct cfn_work *work;
};

struct cfn_event {
    const char *id, *logical, *phys, *type, *status, *reason, *props;
    int64_t at_ms;
};

struct cfn_wait {
    struct cfn_wait *next;
    int64_t number; /* of the save that it waits for */
    void (*fn)(void *arg);
    void *arg;
};

struct cfn_plan;
struct cfn_stack {
    struct cfn *c;
    struct list link;
    struct arena *a;
    const char *object, *name, *id, *uuid, *status, *reason, *description;
    int64_t created_ms, updated_ms, deleted_ms;
    struct val *spec;        /* as in the object: stackName, template, parameters, tags, ... */
    struct val *previous;    /* the spec before this update; NULL: none */
    struct val *outputs, *change_sets; /* lists */
    struct cfn_res **res;
    uint32_t res_n, res_cap;
    struct cfn_event *events; /* oldest first */
    uint32_t events_n, events_cap;
    int64_t op;              /* number of the operation at hand */
    const char *token;       /* ClientRequestToken of it, or NULL */
    const char *retain;      /* logical names to keep, with commas around: DeleteStack's */
    struct cfn_plan *plan;   /* of spec; NULL: to be made */
    struct arena *plan_arena;/* of fetched: values of the parameter store, while the operation lasts; false: there is none */
    struct val *fetched;
    uint32_t fetching;
    uint32_t works;
    bool stepping, again;
    /* the object */
    bool exists, spec_dirty, status_dirty, writing, finalizer_gone, load_failed;
    int64_t saves, in_flight, written; /* cfn_save() so far; the last one in the write at hand; ... that is durable */
    uv_timer_t *timer;
    struct cfn_wait *waits;
    bool reloaded;           /* it was running when the gateway started: what is made may be there already */
    bool removed;            /* its object is gone: freed when nothing is under way */
};

/* ---- stack.c ---- */
struct cfn_stack *cfn_stack_new(struct cfn *c, const char *name);
void cfn_stack_free(struct cfn_stack *s);
/* By name (the living one) or id (deleted ones, too); NULL: there is none. */
struct cfn_stack *cfn_find(struct cfn *c, const char *name_or_id);
/* A change set by its id, or by its name in a stack (name or id; NULL: ids only); NULL: there is none. It lies in *ret's arena. */
struct val *cfn_change_set(struct cfn *c, const char *name_or_id, const char *stack, struct cfn_stack **ret);
struct cfn_res *cfn_res_find(const struct cfn_stack *s, const char *logical);
struct cfn_res *cfn_res_new(struct cfn_stack *s, const char *logical, const char *type);
void cfn_res_remove(struct cfn_stack *s, struct cfn_res *r);
void cfn_event(struct cfn_stack *s, const struct cfn_res *r /* NULL: the stack's own */, const char *status, const char *reason);
void cfn_res_status(struct cfn_stack *s, struct cfn_res *r, const char *status, const char *reason);
void cfn_stack_status(struct cfn_stack *s, const char *status, const char *reason);
/* Writes the object soon, or now; fn (may be NULL) when all that is known now is durable. */
void cfn_save(struct cfn_stack *s, bool now, void (*fn)(void *arg), void *arg);
void cfn_save_spec(struct cfn_stack *s);
size_t cfn_stack_bytes(struct cfn_stack *s);
char *cfn_uuid(struct arena *a);
bool cfn_running(const struct cfn_stack *s); /* ..._IN_PROGRESS, REVIEW_ apart */
void cfn_load(struct cfn *c);                 /* the mirror of Stack objects */

/* ---- plan.c ---- */
struct cfn_item {
    const char *logical, *type;
    const struct val *def;
    struct val *needs;
};
struct cfn_plan {
    struct arena *a;
    struct cfn_scope scope;
    struct val *doc; /* with all transforms done */
    struct cfn_item *items; /* in an order in which they can be made; those whose condition is false are not in it */
    uint32_t n;
};
/* spec: template, parameters, ...; ssm_unknown: parameters of SSM types may lack (they are CFN_UNKNOWN). */
struct cfn_plan *cfn_plan_new(struct cfn_stack *s, const struct val *spec, bool ssm_unknown, struct err *err) _must_check_;
void *cfn_plan_free(struct cfn_plan *p);
DEFINE_AUTO(struct cfn_plan *, cfn_plan_free, cfn_plan_free)
struct cfn_item *cfn_plan_item(const struct cfn_plan *p, const char *logical);
/* The document of a template text, with its loops and AWS::Serverless written out. params: given ones, name -> text. */
struct val *cfn_document(struct cfn_scope *scope, const char *text, size_t n, const struct val *given, bool ssm_unknown,
                         struct err *err) _must_check_;
/* Evaluates the properties of an item now. */
struct val *cfn_item_props(struct cfn_plan *p, const struct cfn_item *it, struct err *err) _must_check_;
/* Changes [{Action, LogicalResourceId, ...}] that the spec would bring; NULL with err. */
struct val *cfn_changes(struct cfn_stack *s, struct arena *a, const struct val *spec, struct err *err) _must_check_;
/* "CAPABILITY_IAM", ... that the document needs, or NULL. */
const char *cfn_needs_capability(const struct val *doc);
/* Does the stack import that export? */
bool cfn_imports(struct cfn_stack *s, const char *export);
struct val *cfn_given(struct arena *a, const struct val *spec); /* parameters as a map name -> text */

/* ---- run.c ---- */
void cfn_step(struct cfn_stack *s);       /* goes on with what is in progress */
void cfn_begin(struct cfn_stack *s, const char *status, const char *token); /* a new operation */
void cfn_begin_delete(struct cfn_stack *s, const char *token);

/* ---- work.c ---- */
enum cfn_action { CFN_CREATE, CFN_UPDATE, CFN_DELETE };
struct cfn_answer {
    int status;
    const char *code, *message; /* of an error */
    const struct val *v;        /* JSON, or XML by xml_parse(); NULL: none */
    const struct http_answer *http;
};
struct cfn_call {
    struct cfn_call *next;
    const char *service, *method, *path, *target /* X-Amz-Target */;
    const char *body, *type;
    size_t body_n;
    const char *fine;     /* codes of errors that do not matter, blanks between */
    const char *async;    /* X-Amz-Invocation-Type: Event */
    int delay_ms;
    bool wait;            /* no call: a custom resource answers */
    void (*got)(struct cfn_work *w, const struct cfn_answer *ans); /* NULL: nothing to learn */
};
struct cfn_type;
struct cfn_work {
    struct cfn_stack *s;
    struct cfn_res *r;
    const struct cfn_type *t;
    struct arena *a;
    enum cfn_action action;
    const struct val *props, *was;   /* was: before an update */
    const char *phys;                /* as known now */
    struct val *attrs;
    struct cfn_call *calls, **end;
    struct cfn_call *at;
    struct http_call *call;
    uv_timer_t *timer;
    int64_t deadline_ms;
    int tries;
    bool resumed;                    /* it may have been done before a restart */
    bool failed, closing;
    bool plain;                      /* why is said as it is */
    bool nothing_new;                /* a stack that was to change is so already */
    int polls;
    char why[1024];
    const char *code;
};
void cfn_work_start(struct cfn_stack *s, struct cfn_res *r, enum cfn_action action, const struct val *props,
                    const struct val *was, bool resumed);
struct cfn_call *cfn_push(struct cfn_work *w, const struct cfn_call *c);       /* at the end */
struct cfn_call *cfn_push_next(struct cfn_work *w, const struct cfn_call *c);  /* before what waits */
void cfn_fail(struct cfn_work *w, const char *code, const char *fmt, ...) _printf_(3, 4);
void cfn_attr(struct cfn_work *w, const char *name, const char *value);
void cfn_phys(struct cfn_work *w, const char *phys); /* it is there now, by this name */
/* Calls in the forms of the services. body NULL: none. */
struct cfn_call cfn_rest(struct cfn_work *w, const char *method, const struct val *body, const char *fmt, ...) _printf_(4, 5);
struct cfn_call cfn_s3(struct cfn_work *w, const char *method, const char *body, const char *fmt, ...) _printf_(4, 5);
struct cfn_call cfn_json(struct cfn_work *w, const char *service, const char *target, const struct val *body);
/* pairs of name, value; a NULL value leaves its name out; ends with NULL. */
struct cfn_call cfn_query(struct cfn_work *w, const char *service, const char *version, const char *action, ...);
/* The answer of a custom resource; false: nobody waits for it. */
bool cfn_custom_answer(struct cfn_stack *s, const char *logical, const char *token, const struct val *v);
/* A physical name: what the properties say, or STACK-LOGICAL-XXXXXXXXXXXX, in low letters and cut when wanted. */
const char *cfn_name(struct cfn_work *w, const char *property, size_t max, bool low);
void cfn_works_cancel(struct cfn_stack *s);

/* ---- types ---- */
struct cfn_type {
    const char *name;
    const char *replace;  /* properties whose change replaces it, with blanks around; "*": all */
    const char *named;    /* the property that names it; NULL: none */
    void (*create)(struct cfn_work *w);
    void (*update)(struct cfn_work *w); /* NULL: a change replaces it */
    void (*drop)(struct cfn_work *w);   /* NULL: nothing to delete */
};
/* The row; custom resources have one, too. NULL: tandem has no such type. */
const struct cfn_type *cfn_type_of(const char *type);
bool cfn_type_replaces(const struct cfn_type *t, const char *property);
bool cfn_changed(const struct cfn_work *w, const char *property);
extern const struct cfn_type cfn_types_lambda[], cfn_types_iam[], cfn_types_more[], cfn_types_stack[], cfn_type_custom;
void cfn_zip_of_text(struct arena *a, const char *name, const char *text, size_t n, char **ret, size_t *ret_n);

/* ---- rules.c ---- */
int cfn_rules(struct cfn_scope *s, struct err *err) _must_check_; /* INVALID_ARGUMENT: an assertion does not hold */

/* ---- sam.c ---- */
struct val *cfn_sam(struct cfn_scope *scope, struct err *err) _must_check_;
/* Statements of a policy template; NULL with err. */
struct val *cfn_sam_policy(struct arena *a, const char *name, const struct val *args, struct err *err);

/* ---- cloudformation.c, write.c ---- */
void cfn_request(struct aws_req *q);
struct cfn *cfn_new(struct aws_door *d);
void cfn_stop(struct cfn *c); /* before the door's own end; what runs goes on after the next start */
void cfn_free(struct cfn *c);
/* The answer of a custom resource, PUT to its ResponseURL; true: the request was one and is taken. */
bool cfn_response_url(struct aws_door *d, struct http_req *req);
void cfn_write_op(struct aws_req *q, const char *action); /* the operations that change something */
bool cfn_is_write_op(const char *action);
/* XML of answers. */
void cfn_tags_xml(struct buf *b, const struct val *tags);
void cfn_list_xml(struct buf *b, const char *name, const struct val *texts);
