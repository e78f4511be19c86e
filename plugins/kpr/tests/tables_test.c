/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Maglev tables of pools: when they are built, what is written, what a restart takes over. Maps are
 * plain memory, the clock is the test's.
 */
#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "../kpr_tables.h"

#define SIZE 251
#define N_TABLES 3
#define N_SLOTS 4096
#define N_BACKENDS 1024
#define MS 1000000ULL

static struct kpr_store store;
static struct kpr_tables tables;
static uint64_t slots[N_SLOTS];
static uint64_t memory[N_TABLES * SIZE + 7];
static struct pb_svc_backend records[N_BACKENDS];
static struct kpr_port *wanted = (struct kpr_port *)records; /* anything but NULL */
static uint64_t clock_ns;
static uint64_t tick_ns; /* how far the clock moves when it is looked at */
static uint32_t n_uneven;
static uint32_t last_uneven;

static uint64_t now(void)
{
	return clock_ns += tick_ns;
}

static void uneven(void *arg, const struct kpr_pool *pool, uint32_t backends)
{
	cr_assert_eq(arg, &n_uneven);
	cr_assert_not_null(pool);
	n_uneven++;
	last_uneven = backends;
}

static struct kpr_tables_opts opts = {.size = SIZE,
				      .now_ns = now,
				      .uneven = uneven,
				      .arg = &n_uneven};

static void setup(void)
{
	clock_ns = 3600000 * MS;
	tick_ns = 0;
	n_uneven = 0;
	memset(slots, 0, sizeof(slots));
	memset(memory, 0, sizeof(memory));
	memset(records, 0, sizeof(records));
	cr_assert_eq(kpr_maglev_seed(KPR_MAGLEV_SEED_DEFAULT, opts.seed), 0);
	cr_assert_eq(kpr_store_init(&store, slots, N_SLOTS, records, N_BACKENDS), 0);
	cr_assert_eq(kpr_tables_init(&tables, &opts, &store, memory,
				     sizeof(memory) / sizeof(memory[0])),
		     0);
	cr_assert_eq(tables.n_max, N_TABLES);
}

static void teardown(void)
{
	kpr_tables_free(&tables);
	kpr_store_free(&store);
}

TestSuite(tables, .init = setup, .fini = teardown);

static struct pb_svc_backend backend(uint32_t host)
{
	return (struct pb_svc_backend){.addr.v4 = htonl(0x0af40000 + host),
				       .port = htons(80),
				       .family = 4};
}

/* The pool gets the backends from..to-1 and loses those that it had from `gone` on. */
static void change(struct kpr_pool *pool, uint32_t from, uint32_t to, uint32_t gone,
		   uint32_t n_gone)
{
	struct pb_svc_backend add[512];
	uint32_t remove[512];
	struct kpr_update u = {.pool = pool, .add = add, .remove = remove};

	kpr_pool_index(&store, pool);
	for (uint32_t i = from; i < to; i++)
		add[u.n_add++] = backend(i);
	for (uint32_t i = 0; i < n_gone; i++)
		remove[u.n_remove++] = gone + i;
	cr_assert_eq(kpr_update_plan(&store, &u), 0);
	kpr_update_apply(&store, &u);
	kpr_store_unnamed(&store, clock_ns);
	kpr_tables_touch(&tables, pool);
}

static struct kpr_pool *pool_with(uint32_t from, uint32_t to)
{
	struct kpr_pool *pool = kpr_pool_new(&store);

	cr_assert_not_null(pool);
	pool->port = wanted;
	change(pool, from, to, 0, 0);
	return pool;
}

static void lose(struct kpr_pool *pool)
{
	pool->port = NULL;
	kpr_pool_free(&store, pool);
}

static struct pb_svc_slot element(uint32_t at)
{
	struct pb_svc_slot slot;

	memcpy(&slot, &memory[at], sizeof(slot));
	return slot;
}

/* Compared with a table computed of its own, by address. */
static void expect_right(const struct kpr_pool *pool)
{
	struct pb_svc_backend list[512];
	uint32_t table[SIZE];
	uint32_t first = kpr_table_first(&tables, pool->table);

	for (uint32_t i = 0; i < pool->count; i++)
		list[i] = *kpr_pool_at(&store, pool, i);
	cr_assert_eq(kpr_maglev_build(table, SIZE, list, pool->count, opts.seed), 0);
	for (uint32_t i = 0; i < SIZE; i++) {
		struct pb_svc_slot slot = element(first + i);

		cr_assert_eq(slot.pool, pool->id);
		cr_assert_eq(records[slot.backend].pool, pool->id);
		cr_assert_eq(records[slot.backend].addr.v4, list[table[i]].addr.v4, "element %u",
			     i);
	}
}

Test(tables, the_first_is_built_at_once)
{
	struct kpr_pool *pool = pool_with(1, 8);
	uint32_t first = 99;

	cr_assert_eq(kpr_tables_run(&tables, 0), UINT64_MAX);
	cr_assert(kpr_tables_want(&tables, pool, &first));
	cr_assert_eq(first, 0);
	cr_assert_eq(element(0).pool, 0);
	cr_assert_eq(kpr_tables_run(&tables, 0), UINT64_MAX);
	expect_right(pool);
	cr_assert_eq(pool->table->backends, 7);
	cr_assert_eq(pool->table->min, 35);
	cr_assert_eq(pool->table->max, 36);
	cr_assert_eq(tables.stores, SIZE);
	cr_assert(kpr_tables_want(&tables, pool, &first));
	cr_assert_eq(kpr_tables_run(&tables, UINT64_MAX), UINT64_MAX);
	cr_assert_eq(tables.builds, 1);
}

Test(tables, a_change_is_written_in_place_and_only_what_differs)
{
	struct kpr_pool *pool = pool_with(1, 11);
	uint32_t first;
	uint64_t checksum;

	cr_assert(kpr_tables_want(&tables, pool, &first));
	kpr_tables_run(&tables, 0);
	checksum = pool->table->checksum;
	clock_ns += 1000 * MS;
	change(pool, 0, 0, 4, 1);
	cr_assert_eq(kpr_tables_run(&tables, 0), UINT64_MAX);
	expect_right(pool);
	cr_assert_lt(tables.stores, SIZE + SIZE / 4, "%lu stores", (unsigned long)tables.stores);
	cr_assert_geq(tables.stores, SIZE + SIZE / 10);
	cr_assert_neq(pool->table->checksum, checksum);
	clock_ns += 1000 * MS;
	change(pool, 5, 6, 0, 0);
	kpr_tables_run(&tables, 0);
	expect_right(pool);
	cr_assert_eq(pool->table->checksum, checksum, "the same backends, another checksum");
}

Test(tables, under_churn_one_is_built_every_100_ms)
{
	struct kpr_pool *pool = pool_with(1, 5);
	uint32_t first;

	cr_assert(kpr_tables_want(&tables, pool, &first));
	kpr_tables_run(&tables, 0);
	for (uint32_t i = 0; i < 100; i++) {
		clock_ns += 10 * MS;
		change(pool, 10 + i, 11 + i, 0, 1);
		kpr_tables_run(&tables, 0);
	}
	cr_assert_geq(tables.builds, 10);
	cr_assert_leq(tables.builds, 12);
	clock_ns += 100 * MS;
	kpr_tables_run(&tables, 0);
	expect_right(pool);
}

Test(tables, says_when_it_wants_to_run_again)
{
	struct kpr_pool *pool = pool_with(1, 5);
	uint32_t first;

	cr_assert(kpr_tables_want(&tables, pool, &first));
	kpr_tables_run(&tables, 0);
	clock_ns += 30 * MS;
	change(pool, 7, 8, 0, 0);
	cr_assert_eq(kpr_tables_run(&tables, 0), 70 * MS);
	clock_ns += 70 * MS;
	cr_assert_eq(kpr_tables_run(&tables, 0), UINT64_MAX);
	expect_right(pool);
}

Test(tables, a_pool_that_changes_all_the_time_does_not_hold_up_others)
{
	struct kpr_pool *busy = pool_with(1, 5), *calm = pool_with(20, 24);
	uint32_t first;

	cr_assert(kpr_tables_want(&tables, busy, &first));
	kpr_tables_run(&tables, 0);
	change(busy, 6, 7, 0, 0);
	cr_assert(kpr_tables_want(&tables, calm, &first));
	kpr_tables_run(&tables, 0);
	expect_right(calm);
}

Test(tables, K52_too_many_backends_are_warned_of_once_and_work)
{
	struct kpr_pool *pool = pool_with(1, 3);
	uint32_t first;

	cr_assert(kpr_tables_want(&tables, pool, &first));
	kpr_tables_run(&tables, 0);
	cr_assert_eq(n_uneven, 0);
	for (uint32_t i = 0; i < 3; i++) {
		clock_ns += 1000 * MS;
		change(pool, 10 + 100 * i, 110 + 100 * i, 0, 0);
		kpr_tables_run(&tables, 0);
		expect_right(pool);
		cr_assert_eq(n_uneven, 1);
	}
	cr_assert_eq(last_uneven, 102);
	cr_assert_eq(pool->table->min, 0);
	cr_assert_eq(pool->table->max, 1);
}

Test(tables, a_restart_takes_over_what_is_right_without_a_store)
{
	struct kpr_pool *pool = pool_with(1, 9);
	uint32_t first;

	cr_assert(kpr_tables_want(&tables, pool, &first));
	kpr_tables_run(&tables, 0);
	kpr_tables_free(&tables);
	pool->table = NULL;
	cr_assert_eq(kpr_tables_init(&tables, &opts, &store, memory, N_TABLES * SIZE), 0);
	cr_assert(kpr_tables_adopt(&tables, pool, first));
	cr_assert(kpr_tables_adopt(&tables, pool, first), "another frontend of the pool");
	kpr_tables_run(&tables, 0);
	cr_assert_eq(tables.builds, 1);
	cr_assert_eq(tables.stores, 0);
	expect_right(pool);
}

Test(tables, a_restart_takes_over_no_table_that_cannot_be)
{
	struct kpr_pool *a = pool_with(1, 5), *b = pool_with(6, 9);

	cr_assert(!kpr_tables_adopt(&tables, a, 1), "no table begins there");
	cr_assert(!kpr_tables_adopt(&tables, a, N_TABLES * SIZE), "behind the last");
	cr_assert(kpr_tables_adopt(&tables, a, SIZE));
	cr_assert(!kpr_tables_adopt(&tables, b, SIZE), "another pool's");
	cr_assert(!kpr_tables_adopt(&tables, a, 0), "it has one");
	cr_assert_eq(tables.n_used, 1);
}

Test(tables, a_pool_without_room_gets_a_table_when_one_is_free)
{
	struct kpr_pool *pools[N_TABLES + 1];
	uint32_t first;

	for (uint32_t i = 0; i <= N_TABLES; i++)
		pools[i] = pool_with(10 * i, 10 * i + 5);
	for (uint32_t i = 0; i < N_TABLES; i++)
		cr_assert(kpr_tables_want(&tables, pools[i], &first));
	cr_assert(!kpr_tables_room_again(&tables));
	cr_assert(!kpr_tables_want(&tables, pools[N_TABLES], &first));
	cr_assert(!kpr_tables_room_again(&tables));
	kpr_tables_run(&tables, 0);
	lose(pools[1]);
	cr_assert_eq(tables.n_used, N_TABLES - 1);
	cr_assert(!kpr_tables_room_again(&tables), "programs may still look into it");
	cr_assert_eq(kpr_tables_run(&tables, 0), KPR_GRACE_MS * MS);
	clock_ns += KPR_GRACE_MS * MS;
	cr_assert_eq(kpr_tables_run(&tables, 0), 0);
	cr_assert(kpr_tables_room_again(&tables));
	cr_assert(!kpr_tables_room_again(&tables), "said twice");
	cr_assert(kpr_tables_want(&tables, pools[N_TABLES], &first));
	cr_assert_eq(first, SIZE);
	kpr_tables_run(&tables, 0);
	expect_right(pools[N_TABLES]);
}

Test(tables, a_table_that_is_dropped_while_it_is_built_is_forgotten)
{
	struct kpr_pool *a = pool_with(1, 200), *b = pool_with(300, 303);
	uint32_t first;

	cr_assert(kpr_tables_want(&tables, a, &first));
	cr_assert(kpr_tables_want(&tables, b, &first));
	cr_assert_eq(kpr_maglev_begin(&tables.job, SIZE, 1, opts.seed), 0);
	tables.building = a->table;
	kpr_tables_drop(&tables, a);
	cr_assert_null(a->table);
	kpr_tables_run(&tables, UINT64_MAX);
	expect_right(b);
	cr_assert_eq(element(0).pool, 0, "written for nobody");
}

Test(tables, a_turn_is_bounded_and_the_table_is_finished_in_later_ones)
{
	static uint64_t large[KPR_MAGLEV_SIZE_MAX];
	struct kpr_pool *pool = pool_with(1, 400);
	struct kpr_tables_opts wide = opts;
	uint32_t first, turns = 0;

	kpr_tables_free(&tables);
	wide.size = KPR_MAGLEV_SIZE_MAX;
	cr_assert_eq(kpr_tables_init(&tables, &wide, &store, large, KPR_MAGLEV_SIZE_MAX), 0);
	cr_assert(kpr_tables_want(&tables, pool, &first));
	tick_ns = MS;
	while (tables.builds == 0 && turns < 1000) {
		turns++;
		/* Another change meanwhile: what is being built goes on. */
		kpr_tables_touch(&tables, pool);
		kpr_tables_run(&tables, clock_ns);
	}
	cr_assert_gt(turns, 10);
	cr_assert_eq(tables.builds, 1);
	cr_assert_eq(tables.stores, KPR_MAGLEV_SIZE_MAX);
	cr_assert(pool->table->queued, "the change that came meanwhile");
}

Test(tables, shares_are_counted_by_backend)
{
	struct kpr_pool *pool = pool_with(1, 8);
	struct kpr_share shares[7];
	uint32_t first, sum = 0;

	cr_assert(kpr_tables_want(&tables, pool, &first));
	kpr_tables_run(&tables, 0);
	for (uint32_t i = 0; i < 7; i++)
		shares[i].number = kpr_pool_number(&store, pool, 6 - i);
	kpr_table_shares(&tables, pool->table, shares, 7);
	for (uint32_t i = 0; i < 7; i++) {
		cr_assert(shares[i].share == 35 || shares[i].share == 36);
		cr_assert(i == 0 || shares[i].number > shares[i - 1].number);
		sum += shares[i].share;
	}
	cr_assert_eq(sum, SIZE);
}
