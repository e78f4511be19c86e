/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maglev tables: which backend each of m elements names (Eisenbud et al., NSDI 2016).
 *
 * Owns the rule by which all nodes come to the same table: it follows from the backends' addresses
 * and ports, the size and the seed, from nothing else. Any change of that rule makes nodes of two
 * versions disagree while a cluster is upgraded; the test has a vector that must stay as it is.
 * Pure: no map, no clock, no host.
 */
#ifndef KPR_MAGLEV_H
#define KPR_MAGLEV_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kpr_abi.h"

#define KPR_MAGLEV_SIZE_MAX 131071
#define KPR_MAGLEV_SIZE_DEFAULT 16381
#define KPR_MAGLEV_SEED_LEN 12
/* "patchbay-lb1": the same on all nodes without a word in the configuration. */
#define KPR_MAGLEV_SEED_DEFAULT "cGF0Y2hiYXktbGIx"
/* Elements per backend that the shares are even with and few flows move: fewer are warned of. */
#define KPR_MAGLEV_PER_BACKEND 100

/* A backend and where its permutation of the elements has got to. */
struct kpr_maglev_backend {
	struct pb_svc_backend who;
	uint32_t number; /* the caller's: what the table holds */
	uint32_t at;
	uint32_t skip;
	uint32_t share; /* elements it got */
	uint64_t identity;
};

/* A table in the making. Zeroed, it is none. */
struct kpr_maglev {
	uint32_t *table; /* by element: index in `backends`; UINT32_MAX: nobody's yet */
	struct kpr_maglev_backend *backends; /* ordered by address and port */
	uint32_t m;
	uint32_t n;
	uint32_t cap;
	uint32_t filled;
	uint32_t turn; /* whose it is */
	uint8_t seed[KPR_MAGLEV_SEED_LEN];
};

/* Whether `m` is one of the ten primes that a table may have as size. */
bool kpr_maglev_size_ok(uint32_t m);
/* The sizes that are allowed, for an error message. */
const char *kpr_maglev_sizes(void);
/* Decodes the base64 form of a seed. -EINVAL: not 12 bytes. */
int kpr_maglev_seed(const char *text, uint8_t ret_seed[KPR_MAGLEV_SEED_LEN]);

/*
 * Begins a table of m elements: then kpr_maglev_add() for each backend in whatever order, then
 * kpr_maglev_fill() until it says that the table is full. -ENOMEM; the next begin may be right
 * after any of these. Free with kpr_maglev_free() in any case.
 */
int kpr_maglev_begin(struct kpr_maglev *t, uint32_t m, uint32_t n,
		     const uint8_t seed[KPR_MAGLEV_SEED_LEN]);
/* At most as many as kpr_maglev_begin() was told. */
void kpr_maglev_add(struct kpr_maglev *t, const struct pb_svc_backend *who, uint32_t number);
/* Works until about `steps` elements were looked at. True: done. Without backends at once. */
bool kpr_maglev_fill(struct kpr_maglev *t, uint32_t steps);
void kpr_maglev_free(struct kpr_maglev *t);

/* Of a full table: equal on two nodes when all their elements name the same backends. */
uint64_t kpr_maglev_checksum(const struct kpr_maglev *t);

/*
 * All at once: table[i] is an index in `backends`. Every one is UINT32_MAX without backends.
 * -EINVAL: no such size. -ENOMEM.
 */
int kpr_maglev_build(uint32_t *table, uint32_t m, const struct pb_svc_backend *backends, uint32_t n,
		     const uint8_t seed[KPR_MAGLEV_SEED_LEN]);

#endif
