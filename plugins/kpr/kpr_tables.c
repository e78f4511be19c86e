/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One table at a time is in the making, in memory of its own and in steps; then it is compared with
 * what the map holds. So a table that was adopted and is right costs no store.
 */
#include "kpr_tables.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#define MS 1000000ULL
/* Elements looked at between two looks at the clock: some 100 us. */
#define STEPS 16384

static uint64_t now_ns(const struct kpr_tables *t)
{
	return t->opts.now_ns();
}

static void dequeue(struct kpr_tables *t, struct kpr_table *table)
{
	if (table->queued)
		DL_DELETE(t->due, table);
	table->queued = false;
}

static void pool_gone(void *arg, struct kpr_pool *pool)
{
	kpr_tables_drop(arg, pool);
}

int kpr_tables_init(struct kpr_tables *t, const struct kpr_tables_opts *opts,
		    struct kpr_store *store, void *memory, uint32_t n_elements)
{
	memset(t, 0, sizeof(*t));
	t->opts = *opts;
	t->store = store;
	t->memory = memory;
	t->n_max = n_elements / opts->size;
	store->pool_gone = pool_gone;
	store->pool_gone_arg = t;
	t->tables = calloc((size_t)t->n_max + 1, sizeof(*t->tables));
	return t->tables ? 0 : -ENOMEM;
}

void kpr_tables_free(struct kpr_tables *t)
{
	if (t->store)
		t->store->pool_gone = NULL;
	kpr_maglev_free(&t->job);
	free(t->tables);
	memset(t, 0, sizeof(*t));
}

/* ---- who has which ---- */

uint32_t kpr_table_first(const struct kpr_tables *t, const struct kpr_table *table)
{
	return (uint32_t)(table - t->tables) * t->opts.size;
}

static void give(struct kpr_tables *t, struct kpr_table *table, struct kpr_pool *pool)
{
	memset(table, 0, sizeof(*table));
	table->pool = pool;
	pool->table = table;
	t->n_used++;
	kpr_tables_touch(t, pool);
}

bool kpr_tables_adopt(struct kpr_tables *t, struct kpr_pool *pool, uint32_t first)
{
	uint32_t n = first / t->opts.size;

	if (pool->table)
		return kpr_table_first(t, pool->table) == first;
	if (first % t->opts.size || n >= t->n_max || t->tables[n].pool)
		return false;
	give(t, &t->tables[n], pool);
	return true;
}

static struct kpr_table *find_free(const struct kpr_tables *t)
{
	uint64_t now = now_ns(t);

	for (uint32_t i = 0; t->n_used < t->n_max && i < t->n_max; i++)
		if (!t->tables[i].pool && t->tables[i].free_ns <= now)
			return &t->tables[i];
	return NULL;
}

bool kpr_tables_want(struct kpr_tables *t, struct kpr_pool *pool, uint32_t *ret_first)
{
	if (!pool->table) {
		struct kpr_table *table = find_free(t);

		if (!table) {
			t->refused = true;
			return false;
		}
		give(t, table, pool);
	}
	*ret_first = kpr_table_first(t, pool->table);
	return true;
}

void kpr_tables_drop(struct kpr_tables *t, struct kpr_pool *pool)
{
	struct kpr_table *table = pool->table;

	if (!table)
		return;
	dequeue(t, table);
	if (t->building == table)
		t->building = NULL;
	table->pool = NULL;
	table->free_ns = now_ns(t) + KPR_GRACE_MS * MS;
	pool->table = NULL;
	t->n_used--;
}

void kpr_tables_touch(struct kpr_tables *t, struct kpr_pool *pool)
{
	struct kpr_table *table = pool->table;
	uint64_t now = now_ns(t);

	if (!table || table->queued)
		return;
	table->due_ns = now;
	if (table->built_ns && now - table->built_ns < KPR_TABLE_REBUILD_MS * MS)
		table->due_ns = table->built_ns + KPR_TABLE_REBUILD_MS * MS;
	table->queued = true;
	DL_APPEND(t->due, table);
}

bool kpr_tables_room_again(struct kpr_tables *t)
{
	if (!t->refused || !find_free(t))
		return false;
	t->refused = false;
	return true;
}

/* ---- building ---- */

static int begin(struct kpr_tables *t, struct kpr_table *table)
{
	const struct kpr_pool *pool = table->pool;
	int rc = kpr_maglev_begin(&t->job, t->opts.size, pool->count, t->opts.seed);

	for (uint32_t i = 0; rc == 0 && i < pool->count; i++)
		kpr_maglev_add(&t->job, kpr_pool_at(t->store, pool, i),
			       kpr_pool_number(t->store, pool, i));
	return rc;
}

static void store_table(struct kpr_tables *t, const struct kpr_table *table)
{
	uint64_t *at = t->memory + kpr_table_first(t, table);
	struct pb_svc_slot slot = {.pool = table->pool->id};
	uint64_t word;

	for (uint32_t i = 0; i < t->opts.size; i++) {
		slot.backend = t->job.backends[t->job.table[i]].number;
		memcpy(&word, &slot, sizeof(word));
		if (__atomic_load_n(&at[i], __ATOMIC_RELAXED) == word)
			continue;
		__atomic_store_n(&at[i], word, __ATOMIC_RELEASE);
		t->stores++;
	}
}

static void tell_uneven(struct kpr_tables *t, struct kpr_table *table)
{
	bool uneven = t->job.n > t->opts.size / KPR_MAGLEV_PER_BACKEND;

	if (uneven && !table->uneven && t->opts.uneven)
		t->opts.uneven(t->opts.arg, table->pool, t->job.n);
	table->uneven = uneven;
}

static void finish(struct kpr_tables *t)
{
	struct kpr_table *table = t->building;

	t->building = NULL;
	t->builds++;
	if (t->job.n == 0)
		return;
	store_table(t, table);
	table->checksum = kpr_maglev_checksum(&t->job);
	table->backends = t->job.n;
	table->min = UINT32_MAX;
	table->max = 0;
	for (uint32_t i = 0; i < t->job.n; i++) {
		uint32_t share = t->job.backends[i].share;

		table->min = share < table->min ? share : table->min;
		table->max = share > table->max ? share : table->max;
	}
	table->built_ns = now_ns(t);
	if (table->queued)
		table->due_ns = table->built_ns + KPR_TABLE_REBUILD_MS * MS;
	tell_uneven(t, table);
}

/* The next one that is due; else how long until there is one. */
static struct kpr_table *next_due(const struct kpr_tables *t, uint64_t *ret_after_ns)
{
	uint64_t now = now_ns(t);
	struct kpr_table *table;

	*ret_after_ns = UINT64_MAX;
	DL_FOREACH (t->due, table) {
		if (table->due_ns <= now)
			return table;
		if (table->due_ns - now < *ret_after_ns)
			*ret_after_ns = table->due_ns - now;
	}
	return NULL;
}

/* When a table whose grace period runs can be had by those that found none. */
static uint64_t until_free(const struct kpr_tables *t)
{
	uint64_t now = now_ns(t), after = UINT64_MAX;

	for (uint32_t i = 0; t->refused && i < t->n_max; i++) {
		const struct kpr_table *table = &t->tables[i];

		if (table->pool)
			continue;
		if (table->free_ns <= now)
			return 0;
		if (table->free_ns - now < after)
			after = table->free_ns - now;
	}
	return after;
}

uint64_t kpr_tables_run(struct kpr_tables *t, uint64_t end_ns)
{
	uint64_t after_ns = 0, free_ns;

	do {
		struct kpr_table *table = t->building ? t->building : next_due(t, &after_ns);

		if (!table)
			break;
		if (!t->building) {
			dequeue(t, table);
			/* Without memory it stays as it is until the next change. */
			if (begin(t, table) < 0)
				continue;
			t->building = table;
		}
		if (kpr_maglev_fill(&t->job, STEPS))
			finish(t);
	} while (now_ns(t) < end_ns);
	if (t->building)
		return 0;
	next_due(t, &after_ns);
	if (t->due && after_ns == UINT64_MAX)
		return 0;
	free_ns = until_free(t);
	return free_ns < after_ns ? free_ns : after_ns;
}

/* ---- for reports ---- */

static int compare_shares(const void *a, const void *b)
{
	const struct kpr_share *x = a, *y = b;

	return x->number < y->number ? -1 : x->number > y->number;
}

void kpr_table_shares(const struct kpr_tables *t, const struct kpr_table *table,
		      struct kpr_share *shares, uint32_t n)
{
	const uint64_t *at = t->memory + kpr_table_first(t, table);

	qsort(shares, n, sizeof(*shares), compare_shares);
	for (uint32_t i = 0; i < n; i++)
		shares[i].share = 0;
	for (uint32_t i = 0; i < t->opts.size; i++) {
		struct kpr_share key = {0}, *found;
		struct pb_svc_slot slot;

		memcpy(&slot, &at[i], sizeof(slot));
		key.number = slot.backend;
		found = slot.pool == table->pool->id
				? bsearch(&key, shares, n, sizeof(key), compare_shares)
				: NULL;
		if (found)
			found->share++;
	}
}
