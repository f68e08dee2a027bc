/* network/dns_int.h - between dns.c (what is known) and dns_server.c (sockets). */
#pragma once

#include "network/dns.h"

#include "base/map.h"

enum { DNS_NAME_MAX = 255, DNS_UDP_MAX = 1232, DNS_TCP_MAX = 65535 };

struct dns_server;
struct dns {
    char *domain; /* lower case, without dots at the ends */
    uint32_t ttl_s, turn;
    struct map services; /* "namespace/name" -> struct known */
    struct map spaces;   /* namespace -> number of its services, as a pointer */
    struct map reverse;  /* address in hex -> its name, for PTR */
    struct dns_server *server;
};

struct dns_question {
    char name[DNS_NAME_MAX + 1]; /* lower case, dots between, none at the end */
    uint16_t id, type, class, flags;
    size_t end;      /* behind the question */
    size_t udp_size; /* what the asker takes: 512, or as EDNS says */
    bool edns;
};
/* 0, or -1 when it is no single question. *ret->id is set when n >= 2. */
int dns_question_parse(const uint8_t *p, size_t n, struct dns_question *ret);
/* A name at p+at, compressed or not: text as above; the bytes it takes there, or -1. */
int dns_name_read(const uint8_t *p, size_t n, size_t at, char ret[DNS_NAME_MAX + 1]);
/* A reply without answers: rcode 2 = the upstream fails. */
void dns_refuse(const uint8_t *query, size_t n, int rcode, struct buf *reply);
/* The name to ask upstream for when reply ends in a CNAME that leads out of here, for A and AAAA;
 * false: the reply is complete. */
bool dns_chases(struct dns *d, const uint8_t *query, size_t n, char ret[DNS_NAME_MAX + 1], uint16_t *ret_type);
/* A query for name, and what comes back: its addresses are appended to reply. */
void dns_query_write(const char *name, uint16_t type, uint16_t id, struct buf *b);
void dns_merge(const uint8_t *answer, size_t n, struct buf *reply);

/* dns_server.c */
struct dns_server *dns_server_start(struct dns *d, const struct dns_options *o, struct err *err);
void dns_server_stop(struct dns_server *s); /* frees d with the last handle */
void dns_free_now(struct dns *d);
