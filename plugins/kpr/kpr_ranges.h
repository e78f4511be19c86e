/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which slots of the backend array are free: a buddy allocator over slot numbers.
 *
 * Owns numbers only, no map. Sizes are rounded up to powers of two.
 */
#ifndef KPR_RANGES_H
#define KPR_RANGES_H

#include <stdint.h>

#define KPR_RANGES_ORDERS 32

struct kpr_ranges {
	uint64_t *free[KPR_RANGES_ORDERS]; /* a bit per block of the order */
	uint32_t n_free[KPR_RANGES_ORDERS];
	uint32_t hint[KPR_RANGES_ORDERS]; /* word at which the search starts */
	uint32_t max;
	uint32_t used; /* slots */
};

/* -ENOMEM. Free with kpr_ranges_free() in any case. */
int kpr_ranges_init(struct kpr_ranges *r, uint32_t max);
void kpr_ranges_free(struct kpr_ranges *r);
/* A range of at least n > 0 slots. -ENOSPC. */
int kpr_ranges_take(struct kpr_ranges *r, uint32_t n, uint32_t *ret_base);
/* Takes the range that an earlier allocator gave for n slots. -EEXIST: not free, or no range. */
int kpr_ranges_claim(struct kpr_ranges *r, uint32_t base, uint32_t n);
/* Gives back what was taken or claimed with the same n. */
void kpr_ranges_give(struct kpr_ranges *r, uint32_t base, uint32_t n);

#endif
