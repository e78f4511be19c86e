// SPDX-License-Identifier: Apache-2.0
/*
 * Puts a packet back behind the chain, so that BPF_PROG_TEST_RUN can repeat it: for ns_cost.c.
 *
 * An observer. With `moving` each repetition gets another source port and low byte of the address,
 * so that each begins a flow.
 */
#include <patchbay/bpf.h>

struct ns_restore {
	__u8 head[64];
	__u32 len;
	__u32 moving;
	__u32 count;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct ns_restore);
} ns_restore_state SEC(".maps");

PB_TC(ns_restore)
{
	__u32 zero = 0;
	struct ns_restore *r = bpf_map_lookup_elem(&ns_restore_state, &zero);

	if (!r)
		return pb_missed();
	if (r->moving) {
		r->count++;
		r->head[29] = r->count >> 15;
		r->head[34] = 0x80 | (r->count >> 8 & 0x7f);
		r->head[35] = r->count;
	}
	bpf_skb_store_bytes(ctx, 0, r->head, 54, 0);
	ctx->mark = 0;
	return pb_next(ctx);
}
