/* door/aws/cloudformation/cfn_template.h - CloudFormation templates as pure functions: text to tree, tree to values.
 *
 * Nothing here waits or knows a stack: what a resource's Ref or attribute is, is asked by a callback. All trees
 * lie in the arena of the scope. Bounds: CFN_* below; a template that expands over them is an error. */
#pragma once

#include "base/err.h"
#include "codec/val.h"

enum {
    CFN_BODY_MAX = 51200,         /* of TemplateBody */
    CFN_URL_BODY_MAX = 460800,    /* of what TemplateURL names */
    CFN_RESOURCES_MAX = 500,
    CFN_PARAMETERS_MAX = 200,
    CFN_OUTPUTS_MAX = 200,
    CFN_MAPPINGS_MAX = 200,
    CFN_DEPTH_MAX = 100,          /* of nesting */
    CFN_NODES_MAX = 200000,       /* values that one evaluation may make */
    CFN_BYTES_MAX = 4 << 20,      /* of text that one evaluation may make */
};

/* YAML (short forms of functions become long ones) or JSON. INVALID_ARGUMENT in CloudFormation's words. */
struct val *cfn_parse(struct arena *a, const char *text, size_t n, struct err *err) _must_check_;
/* What a template must look like before anything is made of it: sections, types of them, limits. */
int cfn_check(const struct val *doc, struct err *err) _must_check_;

/* Where a template is evaluated. */
struct cfn_scope {
    struct arena *a;
    const struct val *doc;
    struct val *params;     /* name -> text or list of texts; NULL while there are none */
    struct val *conditions; /* made when asked for */
    const char *account, *region, *stack_name, *stack_id;
    const struct val *notification_arns; /* a list, or NULL */
    /* Ref (attribute NULL) or attribute of a resource of the template. NULL with err: not known; NULL without:
     * will be known later (only a change set asks like that): the value is CFN_UNKNOWN then. */
    const struct val *(*attribute)(void *arg, struct arena *a, const char *logical, const char *attribute,
                                   struct err *err);
    const char *(*import)(void *arg, const char *export); /* NULL: no such export */
    void *arg;
    /* counted by cfn_eval */
    uint32_t depth, nodes, condition_depth;
    size_t bytes;
};
#define CFN_UNKNOWN "{{changeSet:KNOWN_AFTER_APPLY}}"

/* The value with all functions run; what is AWS::NoValue is left out of maps and lists. NULL with err. */
struct val *cfn_eval(struct cfn_scope *s, const struct val *v, struct err *err) _must_check_;
/* 1, 0, or -1 with err. name NULL: true. */
int cfn_condition(struct cfn_scope *s, const char *name, struct err *err);
/* Names of resources that the value needs (Ref, GetAtt, Sub), each once, appended to the list. Branches of Fn::If that are
 * not taken are left out. */
int cfn_needs(struct cfn_scope *s, const struct val *v, struct val *names, struct err *err) _must_check_;
/* Fn::ForEach of Resources, Outputs, Conditions (AWS::LanguageExtensions): a new document. */
struct val *cfn_expand_loops(struct cfn_scope *s, struct err *err) _must_check_;
/* The parameters of a template from what was given (a map name -> text) and the defaults: types, allowed values, patterns.
 * SSM parameters' values must be in `given` already. */
struct val *cfn_parameters(struct arena *a, const struct val *doc, const struct val *given, struct err *err) _must_check_;
/* A function's long form: {"Ref": x}, {"Fn::Sub": x}. NULL: the value is none. */
const char *cfn_function_of(const struct val *v, const struct val **ret_argument);
/* Does the template name this transform (at its top)? */
bool cfn_has_transform(const struct val *doc, const char *name);
/* A scalar as a parameter or a Sub shows it; NULL: it is a list or a map. */
const char *cfn_scalar(struct arena *a, const struct val *v);
/* ${...} of a Sub's text, from *p on: true with the name (without blanks) and where it began and ends. ${!x} is skipped. */
bool cfn_sub_next(struct arena *a, const char **p, const char **ret_from, const char **ret_name);
