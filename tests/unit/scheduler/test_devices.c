/* Goal: claims get the devices that their requests, classes and constraints mean, and no device twice. Method: small
 * worlds of slices, classes and claims as JSON; what comes out is compared as "request=pool/device ..." */
#include "tt.h"

#include "codec/json.h"
#include "scheduler/devices.h"
#include "schema/deviceexpr.h"

struct world {
    struct arena *a;
    struct device_exprs *exprs;
    const struct obj *slices[8], *claims[8], *classes[4], *objs[32];
    uint32_t slices_n, claims_n, classes_n, n;
};

static const struct obj *make(struct world *w, const char *text)
{
    char *json = arena_strdup(w->a, text);
    struct err err;
    struct val *v;

    for (char *s = json; *s; s++) /* so that the cases can be read */
        if (*s == '\'')
            *s = '"';
        else if (*s == '`')
            *s = '\'';
    v = json_parse(w->a, json, strlen(json), &err);
    if (!v)
        fail_msg("%s: %s", err.msg, json);
    return w->objs[w->n++] = obj_seal(v, 1);
}

static void begin(struct world *w)
{
    *w = (struct world){.a = arena_new(), .exprs = device_exprs_new()};
    w->classes[w->classes_n++] = make(w, "{'metadata':{'name':'any'}}");
    w->classes[w->classes_n++] = make(w, "{'metadata':{'name':'big'},'spec':{'selectors':[{'cel':{'expression':"
                                          "'device.capacity[`x.io`].memory.compareTo(quantity(`8Gi`)) >= 0'}}],"
                                          "'config':[{'opaque':{'driver':'x.io','parameters':{'a':1}}}]}}");
    w->slices[w->slices_n++] = make(w,
        "{'metadata':{'name':'s1'},'spec':{'driver':'x.io','nodeName':'n1','pool':{'name':'p','generation':2,'resourceSliceCount':1},"
        "'sharedCounters':[{'name':'c','counters':{'slots':{'value':'3'}}}],'devices':["
        "{'name':'d0','attributes':{'kind':{'string':'a'},'group':{'int':1},'ver':{'version':'1.2.3'}},'capacity':{'memory':{'value':'4Gi'}}},"
        "{'name':'d1','attributes':{'kind':{'string':'b'},'group':{'int':2}},'capacity':{'memory':{'value':'16Gi'}}},"
        "{'name':'d2','attributes':{'kind':{'string':'a'},'group':{'int':2}},'capacity':{'memory':{'value':'8Gi'}}},"
        "{'name':'t','attributes':{'kind':{'string':'t'}},'taints':[{'key':'bad','effect':'NoSchedule'}]},"
        "{'name':'c1','attributes':{'kind':{'string':'c'}},'consumesCounters':[{'counterSet':'c','counters':{'slots':{'value':'2'}}}]},"
        "{'name':'c2','attributes':{'kind':{'string':'c'}},'consumesCounters':[{'counterSet':'c','counters':{'slots':{'value':'2'}}}]}]}}");
    w->slices[w->slices_n++] = make(w, "{'metadata':{'name':'old'},'spec':{'driver':'x.io','nodeName':'n1','pool':{'name':'p',"
                                        "'generation':1,'resourceSliceCount':1},'devices':[{'name':'gone','attributes':{'kind':{'string':'gone'}}}]}}");
    w->slices[w->slices_n++] = make(w, "{'metadata':{'name':'half'},'spec':{'driver':'x.io','allNodes':true,'pool':{'name':'half',"
                                        "'generation':1,'resourceSliceCount':2},'devices':[{'name':'h','attributes':{'kind':{'string':'half'}}}]}}");
}

static void end(struct world *w)
{
    for (uint32_t i = 0; i < w->n; i++)
        obj_unref(w->objs[i]);
    device_exprs_free(w->exprs);
    arena_free(w->a);
}

static const struct obj *class_of(void *arg, const char *name)
{
    struct world *w = arg;

    for (uint32_t i = 0; i < w->classes_n; i++)
        if (streq(w->classes[i]->name, name))
            return w->classes[i];
    return NULL;
}

/* What a claim with these members of spec.devices gets on node n1. */
static const char *get(struct world *w, const char *devices)
{
    const struct obj *claim = make(w, arena_printf(w->a, "{'metadata':{'namespace':'d','name':'c'},'spec':{'devices':{%s}}}", devices));
    struct devices d = {.arena = w->a, .exprs = w->exprs, .classes = {class_of, w}, .slices = w->slices, .slices_n = w->slices_n,
                        .all_claims = w->claims, .all_claims_n = w->claims_n, .claims = &claim, .claims_n = 1};
    const char *why = devices_forbid(&d, "n1", NULL), *text = "";
    const struct val *v;

    if (why)
        return why;
    v = devices_allocation(&d, 0, "n1", NULL);
    assert_non_null(v);
    VAL_EACH(val_at(v, "devices.results"), r)
        text = arena_printf(w->a, "%s%s%s=%s/%s", text, *text ? " " : "", val_str_at(r, "request", ""), val_str_at(r, "pool", ""), val_str_at(r, "device", ""));
    VAL_EACH(val_at(v, "devices.config"), c)
        text = arena_printf(w->a, "%s +%s", text, val_str_at(c, "source", ""));
    return text;
}

#define REQ(name, more) "{'name':'" name "','exactly':{'deviceClassName':'any'" more "}}"
#define SEL(text) ",'selectors':[{'cel':{'expression':'" text "'}}]"
static const char none[] = "cannot allocate all claims";

static void requests(void **state)
{
    static const struct {
        const char *devices, *want;
    } cases[] = {
        {"'requests':[" REQ("r", "") "]", "r=p/d0"},
        {"'requests':[" REQ("r", ",'count':3") "]", "r=p/d0 r=p/d1 r=p/d2"},
        {"'requests':[" REQ("r", ",'count':6") "]", none},
        {"'requests':[{'name':'r','exactly':{'deviceClassName':'big'}}]", "r=p/d1 +FromClass"},
        {"'requests':[{'name':'r','exactly':{'deviceClassName':'nope'}}]", "request r: device class nope does not exist"},
        {"'requests':[" REQ("r", SEL("device.attributes[`x.io`].kind == `b`")) "]", "r=p/d1"},
        {"'requests':[" REQ("r", SEL("device.attributes[`x.io`].ver.isGreaterThan(semver(`1.0.0`))")) "]", "r=p/d0"},
        {"'requests':[" REQ("r", SEL("`more` in device.attributes[`other.io`]")) "]", none},
        {"'requests':[" REQ("r", SEL("device.driver == `y.io`")) "]", none},
        {"'requests':[" REQ("r", ",'allocationMode':'All'" SEL("device.attributes[`x.io`].kind == `a`")) "]", "r=p/d0 r=p/d2"},
        {"'requests':[" REQ("r", ",'allocationMode':'All'" SEL("device.attributes[`x.io`].kind == `z`")) "]", none},
        /* pools that are old, or not whole */
        {"'requests':[" REQ("r", SEL("device.attributes[`x.io`].kind in [`gone`, `half`]")) "]", none},
        /* taints */
        {"'requests':[" REQ("r", SEL("device.attributes[`x.io`].kind == `t`")) "]", none},
        {"'requests':[" REQ("r", SEL("device.attributes[`x.io`].kind == `t`") ",'tolerations':[{'key':'bad','operator':'Exists'}]") "]", "r=p/t"},
        /* two devices share a counter that is enough for one */
        {"'requests':[" REQ("r", ",'count':2" SEL("device.attributes[`x.io`].kind == `c`")) "]", none},
        {"'requests':[" REQ("r", SEL("device.attributes[`x.io`].kind == `c`")) "]", "r=p/c1"},
        /* constraints over requests: the search goes back */
        {"'requests':[" REQ("r", "") "," REQ("q", "") "],'constraints':[{'matchAttribute':'x.io/group'}]", "r=p/d1 q=p/d2"},
        {"'requests':[" REQ("r", "") "," REQ("q", "") "],'constraints':[{'matchAttribute':'x.io/kind','requests':['r','q']}]", "r=p/d0 q=p/d2"},
        {"'requests':[" REQ("r", "") "," REQ("q", "") "],'constraints':[{'distinctAttribute':'x.io/group'}]", "r=p/d0 q=p/d1"},
        {"'requests':[" REQ("r", "") "],'constraints':[{'matchAttribute':'x.io/none'}]", none},
        /* alternatives, in their order */
        {"'requests':[{'name':'r','firstAvailable':[{'name':'x','deviceClassName':'any','count':9},{'name':'y','deviceClassName':'big'}]}],"
         "'config':[{'requests':['r'],'opaque':{'driver':'x.io','parameters':{}}}]", "r/y=p/d1 +FromClass +FromClaim"},
    };
    struct world w;

    (void)state;
    begin(&w);
    for (size_t i = 0; i < ARRAY_LEN(cases); i++) {
        const char *got = get(&w, cases[i].devices);

        if (!streq(got, cases[i].want))
            fail_msg("%s:\n%s instead of %s", cases[i].devices, got, cases[i].want);
    }
    assert_non_null(strstr(get(&w, "'requests':[" REQ("r", SEL("device.attributes[`x.io`].missing == 1")) "]"), "no such key: missing"));
    end(&w);
}

static void taken(void **state)
{
    struct world w;

    (void)state;
    begin(&w);
    w.claims[w.claims_n++] = make(&w, "{'metadata':{'namespace':'d','name':'one'},'status':{'allocation':{'devices':{'results':["
                                      "{'request':'r','driver':'x.io','pool':'p','device':'d0'},"
                                      "{'request':'r','driver':'x.io','pool':'p','device':'c1'},"
                                      "{'request':'w','driver':'x.io','pool':'p','device':'d1','adminAccess':true}]}}}}");
    assert_string_equal(get(&w, "'requests':[" REQ("r", "") "]"), "r=p/d1"); /* who only watches takes nothing */
    assert_string_equal(get(&w, "'requests':[" REQ("r", ",'adminAccess':true") "]"), "r=p/d0");
    assert_string_equal(get(&w, "'requests':[" REQ("r", SEL("device.attributes[`x.io`].kind == `c`")) "]"), none); /* no counter is left */
    assert_string_equal(get(&w, "'requests':[" REQ("r", ",'allocationMode':'All'" SEL("device.attributes[`x.io`].kind == `a`")) "]"), none);
    assert_string_equal(get(&w, "'requests':[" REQ("r", ",'adminAccess':true,'allocationMode':'All'" SEL("device.attributes[`x.io`].kind == `a`")) "]"), "r=p/d0 r=p/d2");
    end(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(requests), cmocka_unit_test(taken)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
