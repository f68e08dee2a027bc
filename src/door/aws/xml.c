#include "door/aws/xml.h"

#include "base/buf.h"

#include <expat.h>

enum { DEPTH_MAX = 20 };

struct parse {
    struct arena *a;
    XML_Parser parser;
    struct val *at[DEPTH_MAX + 1]; /* maps of the open elements */
    const char *name[DEPTH_MAX + 1];
    struct buf text;
    int depth;
    bool bad;
};

static void on_start(void *arg, const char *name, const char **attributes)
{
    struct parse *p = arg;
    const char *colon = strrchr(name, ':');

    (void)attributes;
    if (p->depth == DEPTH_MAX) {
        p->bad = true;
        XML_StopParser(p->parser, XML_FALSE);
        return;
    }
    p->depth++;
    p->at[p->depth] = val_map(p->a);
    p->name[p->depth] = arena_strdup(p->a, colon ? colon + 1 : name);
    buf_reset(&p->text);
}

static void on_text(void *arg, const char *s, int n)
{
    buf_add(&((struct parse *)arg)->text, s, (size_t)n);
}

static void on_end(void *arg, const char *name)
{
    struct parse *p = arg;
    struct val *own = p->at[p->depth];

    (void)name;
    if (!own->n)
        own = val_strn(p->a, p->text.p ? p->text.p : "", p->text.n);
    buf_reset(&p->text);
    if (--p->depth)
        val_push(p->a, val_need_list(p->a, p->at[p->depth], p->name[p->depth + 1]), own);
    else
        p->at[0] = own;
}

static void on_doctype(void *arg, const char *name, const char *sysid, const char *pubid, int internal)
{
    struct parse *p = arg;

    p->bad = true; /* entities are how XML bombs are built; no S3 document has a DTD */
    XML_StopParser(p->parser, XML_FALSE);
}

struct val *xml_parse(struct arena *a, const char *text, size_t n, struct err *err)
{
    struct parse p = {.a = a, .parser = XML_ParserCreate(NULL)};
    bool ok;

    XML_SetUserData(p.parser, &p);
    XML_SetElementHandler(p.parser, on_start, on_end);
    XML_SetCharacterDataHandler(p.parser, on_text);
    XML_SetStartDoctypeDeclHandler(p.parser, on_doctype);
    ok = XML_Parse(p.parser, text, (int)n, 1) == XML_STATUS_OK && !p.bad && p.at[0];
    XML_ParserFree(p.parser);
    buf_done(&p.text);
    if (!ok) {
        err_set(err, INVALID_ARGUMENT, "the XML is not well-formed");
        return NULL;
    }
    if (p.at[0]->type == VAL_MAP)
        val_put_str(a, p.at[0], "#", p.name[1]);
    return p.at[0];
}

const char *xml_get(const struct val *element, const char *child, const char *otherwise)
{
    const struct val *list = val_get(element, child);

    return val_len(list) ? val_text(&list->items[0], otherwise) : otherwise;
}
