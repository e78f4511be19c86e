/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pools of backends in the memory of the two array maps.
 *
 * Owns every slot and every backend record: which are free, which wait for their grace period,
 * and the order of stores into them. At no moment does a slot that a frontend in the map counts
 * name anything but a backend that its Service has, or had until this turn. A record that no slot
 * names any more is no pool's: whoever remembers its number sees that the backend left. Knows no
 * Service and writes no frontend: who does tells pool_ref() and pool_unref() of it.
 */
#ifndef KPR_POOLS_H
#define KPR_POOLS_H

#include <stdbool.h>
#include <stdint.h>

#include "kpr_abi.h"
#include "kpr_ranges.h"

/* No program holds a slot or a backend this long after the last way to it is gone. */
#define KPR_GRACE_MS 200

struct kpr_port;
struct kpr_retired;
struct kpr_table; /* kpr_tables.h */

struct kpr_pool {
	struct kpr_pool *prev; /* in kpr_store.pools */
	struct kpr_pool *next_all;
	struct kpr_pool *next;	 /* in kpr_model.unwanted */
	struct kpr_port *port;	 /* NULL: nobody wants it */
	struct kpr_table *table; /* Maglev; NULL: none */
	uint32_t *index;	 /* open addressing: position + 1 of a backend, 0: empty */
	uint32_t index_mask;
	uint32_t id;
	uint32_t base;
	uint32_t room; /* slots in the range, a power of two */
	uint32_t count;
	uint32_t refs; /* frontends in the map that name it */
	/* The range it left, as long as frontends in the map name that. */
	uint32_t old_base;
	uint32_t old_room;
	uint32_t old_refs;
};

struct kpr_store {
	uint64_t *slots; /* the memory of kpr_slots */
	struct pb_svc_backend *backends;
	uint64_t seed;		  /* so that nobody can choose addresses that collide */
	struct kpr_ranges ranges; /* of slots */
	struct kpr_ranges ids;	  /* of backends */
	struct kpr_pool *pools;
	struct kpr_retired *retired; /* wait for their grace period, oldest first */
	uint32_t n_retired;
	uint32_t n_dated; /* of them: no frontend names them any more */
	uint32_t cap_retired;
	uint32_t next_pool;
	uint32_t ids_planned; /* by updates that wait to be applied */
	uint64_t stores;      /* slots and records written */
	uint64_t touched;     /* backends that came or went */
	/* A pool is about to be freed. NULL: nobody wants to know. */
	void (*pool_gone)(void *arg, struct kpr_pool *pool);
	void *pool_gone_arg;
};

/* What becomes of one pool: planned, so that all of a Service can be, and then done. */
struct kpr_update {
	struct kpr_pool *pool;
	struct pb_svc_backend *add;
	uint32_t *remove; /* positions, ascending */
	uint32_t n_add;
	uint32_t n_remove;
	uint32_t base; /* with `room`: of the range that the pool moves to */
	uint32_t room; /* 0: it stays */
};

/* -ENOMEM. Free with kpr_store_free() in any case. */
int kpr_store_init(struct kpr_store *st, void *slots, uint32_t n_slots, void *backends,
		   uint32_t n_backends);
void kpr_store_free(struct kpr_store *st);
/* The frontends are written: nothing given up until now is named any more, and its wait begins. */
void kpr_store_unnamed(struct kpr_store *st, uint64_t now_ns);
/* What has waited for its grace period may be used again. */
void kpr_store_release(struct kpr_store *st, uint64_t now_ns);

/* An empty pool. NULL without memory. */
struct kpr_pool *kpr_pool_new(struct kpr_store *st);
/*
 * The pool `id` as the maps hold it, up to the first slot that isn't its own. -EEXIST: its range
 * is no range, or another one's. -ENOMEM.
 */
int kpr_pool_adopt(struct kpr_store *st, uint32_t id, const struct pb_svc *value,
		   struct kpr_pool **ret_pool);
/*
 * Another frontend counts n of its slots: a batch that an end of the agent cut short. What it
 * counts is the pool's too, up to the first slot that isn't.
 */
void kpr_pool_claim(struct kpr_store *st, struct kpr_pool *pool, uint32_t n);
/* A frontend in the map names it with this base, or does no more. */
void kpr_pool_ref(struct kpr_pool *pool);
void kpr_pool_unref(struct kpr_store *st, struct kpr_pool *pool, uint32_t base);
/* Frees a pool that nobody wants and no frontend names; else does nothing. */
void kpr_pool_free(struct kpr_store *st, struct kpr_pool *pool);

/* Before its backends are looked for or changed. */
void kpr_pool_index(const struct kpr_store *st, struct kpr_pool *pool);
/* Position of a backend (address, port, flags), -1: not in it. */
int64_t kpr_pool_find(const struct kpr_store *st, const struct kpr_pool *pool,
		      const struct pb_svc_backend *b);
const struct pb_svc_backend *kpr_pool_at(const struct kpr_store *st, const struct kpr_pool *pool,
					 uint32_t position);
/* The number of the backend at a position. */
uint32_t kpr_pool_number(const struct kpr_store *st, const struct kpr_pool *pool,
			 uint32_t position);
/* Takes what the update needs. -ENOSPC, -ENOMEM; -EAGAIN: it still moves. */
int kpr_update_plan(struct kpr_store *st, struct kpr_update *u);
void kpr_update_cancel(struct kpr_store *st, struct kpr_update *u);
/* Does what was planned. A backend that is there already isn't added again. */
void kpr_update_apply(struct kpr_store *st, struct kpr_update *u);

#endif
