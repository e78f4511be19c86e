/* SPDX-License-Identifier: Apache-2.0 */
/* Maps for host->map_memory(): one that can be mapped, and two that can't. */
#include <patchbay/bpf.h>

struct memory_value {
	__u32 a, b, c; /* 12 bytes: an element takes 16 */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 100);
	__type(key, __u32);
	__type(value, struct memory_value);
} words SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 100);
	__type(key, __u32);
	__type(value, struct memory_value);
} plain SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 100);
	__type(key, __u32);
	__type(value, struct memory_value);
} hash SEC(".maps");

PB_TC(memory_program)
{
	__u32 key = ctx->mark;

	bpf_map_lookup_elem(&words, &key);
	bpf_map_lookup_elem(&plain, &key);
	bpf_map_lookup_elem(&hash, &key);
	return pb_next(ctx);
}
