/* SPDX-License-Identifier: Apache-2.0 */
/* Counts frames in the map of plugin sample, on another hook than that one's. */
#include <patchbay/bpf.h>

struct sample_value {
	__u64 packets;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct sample_value);
} sample__sample_counts SEC(".maps");

PB_TC(borrower_count)
{
	__u32 key = 0;
	struct sample_value *v = bpf_map_lookup_elem(&sample__sample_counts, &key);

	if (v)
		__sync_fetch_and_add(&v->packets, 100);
	return pb_next(ctx);
}
