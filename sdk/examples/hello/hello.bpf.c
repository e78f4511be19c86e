/* SPDX-License-Identifier: Apache-2.0 */
#include <patchbay/bpf.h>

/* Packets by hook (enum pb_hook), a counter per CPU. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PB_HOOK_TC_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} packets SEC(".maps");

PB_TC(hello_count)
{
	__u32 hook = pb_hook_id;
	__u64 *n = bpf_map_lookup_elem(&packets, &hook);

	if (n)
		(*n)++;
	return pb_next(ctx);
}
