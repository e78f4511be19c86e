/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One bitmap of free blocks per order: two bits of memory per slot in all.
 */
#include "kpr_ranges.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

static uint32_t order_of(uint32_t n)
{
	return n <= 1 ? 0 : 32 - (uint32_t)__builtin_clz(n - 1);
}

static bool is_free(const struct kpr_ranges *r, uint32_t order, uint32_t block)
{
	return r->free[order][block / 64] >> (block % 64) & 1;
}

static void set_free(struct kpr_ranges *r, uint32_t order, uint32_t block)
{
	r->free[order][block / 64] |= 1ULL << (block % 64);
	r->n_free[order]++;
	if (block / 64 < r->hint[order])
		r->hint[order] = block / 64;
}

static void set_used(struct kpr_ranges *r, uint32_t order, uint32_t block)
{
	r->free[order][block / 64] &= ~(1ULL << (block % 64));
	r->n_free[order]--;
}

int kpr_ranges_init(struct kpr_ranges *r, uint32_t max)
{
	uint32_t base = 0;

	memset(r, 0, sizeof(*r));
	r->max = max;
	for (uint32_t o = 0; o < KPR_RANGES_ORDERS && (max >> o) > 0; o++) {
		r->free[o] = calloc((max >> o) / 64 + 1, sizeof(uint64_t));
		if (!r->free[o])
			return -ENOMEM;
	}
	/* The largest aligned blocks that fit, from the left. */
	while (base < max) {
		uint32_t o = 31 - (uint32_t)__builtin_clz(max - base);

		if (base > 0 && (uint32_t)__builtin_ctz(base) < o)
			o = (uint32_t)__builtin_ctz(base);
		set_free(r, o, base >> o);
		base += 1U << o;
	}
	return 0;
}

void kpr_ranges_free(struct kpr_ranges *r)
{
	for (uint32_t o = 0; o < KPR_RANGES_ORDERS; o++)
		free(r->free[o]);
	memset(r, 0, sizeof(*r));
}

static uint32_t first_free(struct kpr_ranges *r, uint32_t order)
{
	uint32_t word = r->hint[order];

	while (r->free[order][word] == 0)
		word++;
	r->hint[order] = word;
	return word * 64 + (uint32_t)__builtin_ctzll(r->free[order][word]);
}

int kpr_ranges_take(struct kpr_ranges *r, uint32_t n, uint32_t *ret_base)
{
	uint32_t want = order_of(n);
	uint32_t o = want;
	uint32_t block;

	while (o < KPR_RANGES_ORDERS && r->n_free[o] == 0)
		o++;
	if (o >= KPR_RANGES_ORDERS)
		return -ENOSPC;
	block = first_free(r, o);
	set_used(r, o, block);
	for (; o > want; o--) {
		block *= 2;
		set_free(r, o - 1, block + 1);
	}
	r->used += 1U << want;
	*ret_base = block << want;
	return 0;
}

int kpr_ranges_claim(struct kpr_ranges *r, uint32_t base, uint32_t n)
{
	uint32_t want = order_of(n);
	uint32_t o = want;

	if (n == 0 || n > r->max || base > r->max - n || base & ((1U << want) - 1))
		return -EEXIST;
	while (o < KPR_RANGES_ORDERS && r->free[o] && !is_free(r, o, base >> o))
		o++;
	if (o >= KPR_RANGES_ORDERS || !r->free[o])
		return -EEXIST;
	set_used(r, o, base >> o);
	for (; o > want; o--)
		set_free(r, o - 1, (base >> (o - 1)) ^ 1);
	r->used += 1U << want;
	return 0;
}

void kpr_ranges_give(struct kpr_ranges *r, uint32_t base, uint32_t n)
{
	uint32_t o = order_of(n);
	uint32_t block = base >> o;

	r->used -= 1U << o;
	while (o + 1 < KPR_RANGES_ORDERS && r->free[o + 1] && (block ^ 1) < (r->max >> o) &&
	       is_free(r, o, block ^ 1)) {
		set_used(r, o, block ^ 1);
		block /= 2;
		o++;
	}
	set_free(r, o, block);
}
