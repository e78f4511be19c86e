/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel side of the test plugins: counts frames and goes on. Variants by macro:
 * SAMPLE_UNBOUNDED is refused by the verifier, SAMPLE_LAYOUT changes the map's value without
 * saying so.
 */
#include <patchbay/bpf.h>

struct sample_value {
#ifdef SAMPLE_LAYOUT
	__u32 packets;
	__u32 bytes;
#else
	__u64 packets;
#endif
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sample_value);
} sample_counts SEC(".maps");

/* Says which load this is: set by host->bpf_const(). */
const volatile __u32 sample_step = 1;

PB_TC(sample_count)
{
	__u32 key = 0;
	struct sample_value *v = bpf_map_lookup_elem(&sample_counts, &key);

#ifdef SAMPLE_UNBOUNDED
	/* No check against data_end. */
	key = *(volatile __u32 *)(long)ctx->data;
#endif
	if (v)
		__sync_fetch_and_add(&v->packets, sample_step);
	return pb_next(ctx);
}

PB_TC(sample_second)
{
	return pb_next(ctx);
}
