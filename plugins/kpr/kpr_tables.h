/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maglev tables of pools in the memory of map kpr_maglev.
 *
 * Owns every element of that map: which pool has which table, when one is built anew, and the
 * stores into it. A table is changed in place, element by element, and only where it differs: an
 * element is one store, and a program that finds one whose backend left, or that is another pool's,
 * chooses at random. Knows no Service and writes no frontend.
 */
#ifndef KPR_TABLES_H
#define KPR_TABLES_H

#include <stdbool.h>
#include <stdint.h>

#include "kpr_maglev.h"
#include "kpr_pools.h"

/* Under churn a table is built at most once in this time; the first change at once. */
#define KPR_TABLE_REBUILD_MS 100

struct kpr_table {
	struct kpr_table *prev; /* in kpr_tables.due */
	struct kpr_table *next;
	struct kpr_pool *pool; /* NULL: free */
	uint64_t free_ns;      /* may be used again from then on */
	uint64_t due_ns;       /* queued: not built before */
	uint64_t built_ns;     /* 0: never by us */
	uint64_t checksum;     /* of what it holds */
	uint32_t backends;     /* that it was built from */
	uint32_t min;	       /* elements of the backend that has fewest, and most */
	uint32_t max;
	bool queued;
	bool uneven; /* too many backends for its size, and said so */
};

/* A backend by its number, and how many elements name it. */
struct kpr_share {
	uint32_t number;
	uint32_t share;
};

struct kpr_tables_opts {
	uint32_t size; /* elements of a table */
	uint8_t seed[KPR_MAGLEV_SEED_LEN];
	uint64_t (*now_ns)(void);
	/* A table has got more than a hundredth of its elements as backends. */
	void (*uneven)(void *arg, const struct kpr_pool *pool, uint32_t backends);
	void *arg;
};

struct kpr_tables {
	struct kpr_tables_opts opts;
	struct kpr_store *store;
	uint64_t *memory; /* of kpr_maglev */
	struct kpr_table *tables;
	uint32_t n_max;
	uint32_t n_used;
	struct kpr_table *due; /* to be built, in the order of the changes */
	struct kpr_table *building;
	struct kpr_maglev job;
	uint64_t stores; /* elements written */
	uint64_t builds;
	bool refused; /* somebody wanted a table and got none */
};

/* -ENOMEM. Free with kpr_tables_free() in any case, before the store. */
int kpr_tables_init(struct kpr_tables *t, const struct kpr_tables_opts *opts,
		    struct kpr_store *store, void *memory, uint32_t n_elements);
void kpr_tables_free(struct kpr_tables *t);

/* The pool had the table from element `first` on before a restart. False: it can't have it. */
bool kpr_tables_adopt(struct kpr_tables *t, struct kpr_pool *pool, uint32_t first);
/* The table of a pool that is to have one. False: there is no room. */
bool kpr_tables_want(struct kpr_tables *t, struct kpr_pool *pool, uint32_t *ret_first);
/* The pool needs its table no more, if it has one. */
void kpr_tables_drop(struct kpr_tables *t, struct kpr_pool *pool);
/* The pool's backends have changed. */
void kpr_tables_touch(struct kpr_tables *t, struct kpr_pool *pool);
/* True once when there is room for those that found none. */
bool kpr_tables_room_again(struct kpr_tables *t);

/*
 * Builds what is due until `end_ns`, and a little in any case. Returns the nanoseconds after which
 * it wants to run again, 0: there is more to do, UINT64_MAX: there is nothing.
 */
uint64_t kpr_tables_run(struct kpr_tables *t, uint64_t end_ns);

/* First element of a table. */
uint32_t kpr_table_first(const struct kpr_tables *t, const struct kpr_table *table);
/* Sorts by number and counts how many elements of the table name each. */
void kpr_table_shares(const struct kpr_tables *t, const struct kpr_table *table,
		      struct kpr_share *shares, uint32_t n);

#endif
