/* env/random.h - the kernel's random numbers, for rooms that are not simulated (function, door, gateway). */
#pragma once

#include <stddef.h>

enum { UUID_BYTES = 37 };

/* n bytes that nobody can guess. Does not fail: at most it waits, early in the machine's boot. */
void random_bytes(void *p, size_t n);
/* n letters of an alphabet of 32 (five bits each) and a final 0. */
void random_text(char *to, size_t n, const char *alphabet32);
/* 16 random bytes as a UUID of version 4 (RFC 9562, 5.4). Gives back out. */
const char *uuid_text(const unsigned char random[16], char out[UUID_BYTES]);
/* A fresh one. */
const char *uuid_new(char out[UUID_BYTES]);
