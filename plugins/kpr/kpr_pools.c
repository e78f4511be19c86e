/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Small pools are searched slot by slot, larger ones have an index. Slots behind the last that
 * were in use are filled with backends that stay: a program may still go by the old count.
 */
#include "kpr_pools.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#define MS 1000000ULL
#define LINEAR_MAX 16 /* slots; above it an index is kept */

struct kpr_retired {
	uint64_t since_ns;
	uint32_t base;
	uint32_t room; /* 0: `base` is a backend */
};

/* ---- memory ---- */

int kpr_store_init(struct kpr_store *st, void *slots, uint32_t n_slots, void *backends,
		   uint32_t n_backends)
{
	int rc;

	memset(st, 0, sizeof(*st));
	st->slots = slots;
	st->backends = backends;
	st->next_pool = 1;
	rc = kpr_ranges_init(&st->ranges, n_slots);
	return rc < 0 ? rc : kpr_ranges_init(&st->ids, n_backends);
}

void kpr_store_free(struct kpr_store *st)
{
	struct kpr_pool *pool, *next;

	DL_FOREACH_SAFE2(st->pools, pool, next, next_all)
	{
		if (next)
			__builtin_prefetch(next->next_all);
		free(pool->index);
		free(pool);
	}
	kpr_ranges_free(&st->ranges);
	kpr_ranges_free(&st->ids);
	free(st->retired);
	memset(st, 0, sizeof(*st));
}

static void retire(struct kpr_store *st, uint32_t base, uint32_t room)
{
	uint32_t cap = st->cap_retired ? 2 * st->cap_retired : 64;
	struct kpr_retired *retired = st->retired;

	if (st->n_retired == st->cap_retired) {
		retired = realloc(retired, cap * sizeof(*retired));
		/* Without memory it is lost until the next start: that harms nobody. */
		if (!retired)
			return;
		st->retired = retired;
		st->cap_retired = cap;
	}
	retired[st->n_retired++] = (struct kpr_retired){.base = base, .room = room};
}

void kpr_store_unnamed(struct kpr_store *st, uint64_t now_ns)
{
	while (st->n_dated < st->n_retired)
		st->retired[st->n_dated++].since_ns = now_ns;
}

void kpr_store_release(struct kpr_store *st, uint64_t now_ns)
{
	uint32_t i = 0;

	for (; i < st->n_dated && now_ns - st->retired[i].since_ns >= KPR_GRACE_MS * MS; i++) {
		if (st->retired[i].room)
			kpr_ranges_give(&st->ranges, st->retired[i].base, st->retired[i].room);
		else
			kpr_ranges_give(&st->ids, st->retired[i].base, 1);
	}
	st->n_retired -= i;
	st->n_dated -= i;
	if (i > 0 && st->n_retired > 0)
		memmove(st->retired, st->retired + i, st->n_retired * sizeof(*st->retired));
	if (st->n_retired == 0) {
		free(st->retired);
		st->retired = NULL;
		st->cap_retired = 0;
	}
}

static struct pb_svc_slot slot_get(const struct kpr_store *st, uint32_t at)
{
	uint64_t word = __atomic_load_n(&st->slots[at], __ATOMIC_RELAXED);
	struct pb_svc_slot slot;

	memcpy(&slot, &word, sizeof(slot));
	return slot;
}

/* One store, behind those of the record that the slot names. */
static void slot_set(struct kpr_store *st, uint32_t at, struct pb_svc_slot slot)
{
	uint64_t word;

	memcpy(&word, &slot, sizeof(word));
	__atomic_store_n(&st->slots[at], word, __ATOMIC_RELEASE);
	st->stores++;
}

const struct pb_svc_backend *kpr_pool_at(const struct kpr_store *st, const struct kpr_pool *pool,
					 uint32_t position)
{
	return &st->backends[slot_get(st, pool->base + position).backend];
}

uint32_t kpr_pool_number(const struct kpr_store *st, const struct kpr_pool *pool, uint32_t position)
{
	return slot_get(st, pool->base + position).backend;
}

/* ---- where a backend is ---- */

static bool same(const struct pb_svc_backend *a, const struct pb_svc_backend *b)
{
	return a->port == b->port && a->flags == b->flags &&
	       memcmp(&a->addr, &b->addr, sizeof(a->addr)) == 0;
}

static uint64_t mix(uint64_t h)
{
	h = (h ^ h >> 32) * 0xd6e8feb86659fd93ULL;
	h = (h ^ h >> 32) * 0xd6e8feb86659fd93ULL;
	return h ^ h >> 32;
}

static uint32_t hash_of(const struct kpr_store *st, const struct pb_svc_backend *b)
{
	uint64_t words[2];

	memcpy(words, &b->addr, sizeof(words));
	return (uint32_t)mix(mix(mix(st->seed ^ b->port) ^ words[0]) ^ words[1]);
}

/* The index's cell of a backend, or the empty one where it would be. */
static uint32_t index_cell(const struct kpr_store *st, const struct kpr_pool *pool,
			   const struct pb_svc_backend *b)
{
	uint32_t cell = hash_of(st, b) & pool->index_mask;

	while (pool->index[cell] && !same(kpr_pool_at(st, pool, pool->index[cell] - 1), b))
		cell = (cell + 1) & pool->index_mask;
	return cell;
}

/* Closes the gap: what stood behind it because of it moves up. */
static void index_remove(const struct kpr_store *st, struct kpr_pool *pool, uint32_t cell)
{
	uint32_t at = cell;

	for (;;) {
		uint32_t home;

		at = (at + 1) & pool->index_mask;
		if (!pool->index[at])
			break;
		home = hash_of(st, kpr_pool_at(st, pool, pool->index[at] - 1)) & pool->index_mask;
		if (((at - home) & pool->index_mask) < ((at - cell) & pool->index_mask))
			continue;
		pool->index[cell] = pool->index[at];
		cell = at;
	}
	pool->index[cell] = 0;
}

/* Without memory for it there is none, and the pool is searched. */
static void index_build(const struct kpr_store *st, struct kpr_pool *pool)
{
	free(pool->index);
	pool->index = NULL;
	if (pool->room <= LINEAR_MAX)
		return;
	pool->index_mask = 2 * pool->room - 1;
	pool->index = calloc(2UL * pool->room, sizeof(*pool->index));
	for (uint32_t i = 0; pool->index && i < pool->count; i++)
		pool->index[index_cell(st, pool, kpr_pool_at(st, pool, i))] = i + 1;
}

void kpr_pool_index(const struct kpr_store *st, struct kpr_pool *pool)
{
	if (!pool->index)
		index_build(st, pool);
}

int64_t kpr_pool_find(const struct kpr_store *st, const struct kpr_pool *pool,
		      const struct pb_svc_backend *b)
{
	if (pool->index)
		return (int64_t)pool->index[index_cell(st, pool, b)] - 1;
	for (uint32_t i = 0; i < pool->count; i++)
		if (same(kpr_pool_at(st, pool, i), b))
			return i;
	return -1;
}

/* ---- life of a pool ---- */

struct kpr_pool *kpr_pool_new(struct kpr_store *st)
{
	struct kpr_pool *pool = calloc(1, sizeof(*pool));

	if (!pool)
		return NULL;
	/* 0 is no pool: memory that was never written doesn't belong to any. */
	st->next_pool += st->next_pool == 0;
	pool->id = st->next_pool++;
	DL_PREPEND2(st->pools, pool, prev, next_all);
	return pool;
}

void kpr_pool_claim(struct kpr_store *st, struct kpr_pool *pool, uint32_t n)
{
	for (; pool->count < n && pool->count < pool->room; pool->count++) {
		struct pb_svc_slot slot = slot_get(st, pool->base + pool->count);

		/* One that is claimed already fills a slot behind the pool's last. */
		if (slot.pool != pool->id || slot.backend >= st->ids.max ||
		    st->backends[slot.backend].pool != pool->id ||
		    kpr_ranges_claim(&st->ids, slot.backend, 1) < 0)
			return;
	}
}

int kpr_pool_adopt(struct kpr_store *st, uint32_t id, const struct pb_svc *value,
		   struct kpr_pool **ret_pool)
{
	struct kpr_pool *pool;
	int rc;

	if (value->count > value->room || value->room & (value->room - 1))
		return -EEXIST;
	rc = kpr_ranges_claim(&st->ranges, value->base, value->room);
	if (rc < 0)
		return rc;
	pool = kpr_pool_new(st);
	if (!pool) {
		kpr_ranges_give(&st->ranges, value->base, value->room);
		return -ENOMEM;
	}
	pool->id = id;
	pool->base = value->base;
	pool->room = value->room;
	if (st->next_pool <= id)
		st->next_pool = id + 1;
	kpr_pool_claim(st, pool, value->count);
	*ret_pool = pool;
	return 0;
}

void kpr_pool_ref(struct kpr_pool *pool)
{
	pool->refs++;
}

static void leave_old_range(struct kpr_store *st, struct kpr_pool *pool)
{
	retire(st, pool->old_base, pool->old_room);
	pool->old_room = 0;
}

void kpr_pool_unref(struct kpr_store *st, struct kpr_pool *pool, uint32_t base)
{
	pool->refs--;
	if (pool->old_room > 0 && base == pool->old_base && --pool->old_refs == 0)
		leave_old_range(st, pool);
	kpr_pool_free(st, pool);
}

/* No slot of the pool names it any more: who remembers its number sees that it left. */
static void record_left(struct kpr_store *st, uint32_t number)
{
	__atomic_store_n(&st->backends[number].pool, 0, __ATOMIC_RELEASE);
	st->stores++;
}

void kpr_pool_free(struct kpr_store *st, struct kpr_pool *pool)
{
	if (pool->port || pool->refs > 0)
		return;
	if (st->pool_gone)
		st->pool_gone(st->pool_gone_arg, pool);
	for (uint32_t i = 0; i < pool->count; i++) {
		uint32_t number = slot_get(st, pool->base + i).backend;

		record_left(st, number);
		retire(st, number, 0);
	}
	if (pool->room > 0)
		retire(st, pool->base, pool->room);
	if (pool->old_room > 0)
		leave_old_range(st, pool);
	DL_DELETE2(st->pools, pool, prev, next_all);
	free(pool->index);
	free(pool);
}

/* ---- changes ---- */

static uint32_t room_for(uint32_t n)
{
	return n <= 1 ? 1 : 1U << (32 - (uint32_t)__builtin_clz(n - 1));
}

int kpr_update_plan(struct kpr_store *st, struct kpr_update *u)
{
	const struct kpr_pool *pool = u->pool;
	uint32_t count = pool->count + u->n_add - u->n_remove;
	uint32_t room;
	int rc;

	u->room = 0;
	if (u->n_add > st->ids.max - st->ids.used - st->ids_planned)
		return -ENOSPC;
	/* Half full at most when it shrinks, so that a few more don't make it grow again. */
	if (count > pool->room || (pool->room > LINEAR_MAX && count <= pool->room / 4)) {
		if (pool->old_room > 0)
			return -EAGAIN;
		room = room_for(count < pool->room ? 2 * count : count);
		rc = kpr_ranges_take(&st->ranges, room, &u->base);
		if (rc < 0)
			return rc;
		u->room = room;
	}
	st->ids_planned += u->n_add;
	return 0;
}

void kpr_update_cancel(struct kpr_store *st, struct kpr_update *u)
{
	if (u->room > 0)
		kpr_ranges_give(&st->ranges, u->base, u->room);
	u->room = 0;
	st->ids_planned -= u->n_add;
}

static void move(struct kpr_store *st, struct kpr_pool *pool, const struct kpr_update *u)
{
	for (uint32_t i = 0; i < pool->count; i++)
		slot_set(st, u->base + i, slot_get(st, pool->base + i));
	if (pool->refs > 0) {
		pool->old_base = pool->base;
		pool->old_room = pool->room;
		pool->old_refs = pool->refs;
	} else if (pool->room > 0) {
		retire(st, pool->base, pool->room);
	}
	pool->base = u->base;
	pool->room = u->room;
	index_build(st, pool);
}

/* Nobody's while it changes: a program that was held up while it read the old one notices. */
static void record_set(struct pb_svc_backend *r, const struct pb_svc_backend *b, uint32_t pool)
{
	__atomic_store_n(&r->pool, 0, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_RELEASE);
	r->addr = b->addr;
	r->port = b->port;
	r->family = b->family;
	r->flags = b->flags;
	__atomic_store_n(&r->pool, pool, __ATOMIC_RELEASE);
}

/* Puts a backend at a position. That there is a record for it was planned. */
static void place(struct kpr_store *st, struct kpr_pool *pool, uint32_t position,
		  const struct pb_svc_backend *b)
{
	struct pb_svc_slot slot = {.pool = pool->id};

	if (kpr_ranges_take(&st->ids, 1, &slot.backend) < 0)
		return;
	record_set(&st->backends[slot.backend], b, pool->id);
	st->stores++;
	st->touched++;
	slot_set(st, pool->base + position, slot);
	if (pool->index)
		pool->index[index_cell(st, pool, b)] = position + 1;
}

/* Takes the backend at a position out of index and use; its slot still names it. */
static void unplace(struct kpr_store *st, struct kpr_pool *pool, uint32_t position)
{
	if (pool->index)
		index_remove(st, pool, index_cell(st, pool, kpr_pool_at(st, pool, position)));
	retire(st, slot_get(st, pool->base + position).backend, 0);
	st->touched++;
}

/* The last backend takes the place of one that is gone. */
static void close_gap(struct kpr_store *st, struct kpr_pool *pool, uint32_t position)
{
	uint32_t last = pool->count - 1;

	if (position != last) {
		if (pool->index)
			pool->index[index_cell(st, pool, kpr_pool_at(st, pool, last))] =
				position + 1;
		slot_set(st, pool->base + position, slot_get(st, pool->base + last));
	}
	pool->count = last;
}

/* The records given up since: behind the stores into the slots that named them. */
static void records_left(struct kpr_store *st, uint32_t since)
{
	for (uint32_t i = since; i < st->n_retired; i++)
		if (st->retired[i].room == 0)
			record_left(st, st->retired[i].base);
}

/* In the place of one that goes as long as there is one, then behind the last. */
static uint32_t add_all(struct kpr_store *st, const struct kpr_update *u)
{
	struct kpr_pool *pool = u->pool;
	uint32_t n_removed = 0;

	for (uint32_t i = 0; i < u->n_add; i++) {
		bool replaces = n_removed < u->n_remove;
		uint32_t position = replaces ? u->remove[n_removed] : pool->count;

		if (kpr_pool_find(st, pool, &u->add[i]) >= 0)
			continue;
		if (replaces)
			unplace(st, pool, position);
		place(st, pool, position, &u->add[i]);
		n_removed += replaces;
		pool->count += !replaces;
	}
	return n_removed;
}

void kpr_update_apply(struct kpr_store *st, struct kpr_update *u)
{
	struct kpr_pool *pool = u->pool;
	bool grows = u->room > pool->room;
	uint32_t was = grows ? 0 : pool->count;
	uint32_t n_retired, n_removed;

	st->ids_planned -= u->n_add;
	if (grows)
		move(st, pool, u);
	n_retired = st->n_retired;
	n_removed = add_all(st, u);
	/* From behind: the last one always stays. */
	for (uint32_t i = u->n_remove; i > n_removed; i--) {
		unplace(st, pool, u->remove[i - 1]);
		close_gap(st, pool, u->remove[i - 1]);
	}
	for (uint32_t i = pool->count; pool->count > 0 && i < was; i++)
		slot_set(st, pool->base + i, slot_get(st, pool->base + i % pool->count));
	records_left(st, n_retired);
	if (u->room > 0 && !grows)
		move(st, pool, u);
}
