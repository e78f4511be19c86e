/* SPDX-License-Identifier: Apache-2.0 */
/* One map and one program; LAYOUT_MEMBERS, LAYOUT_ENTRIES and LAYOUT_MAP are what the variants
 * differ in. */
#include <patchbay/bpf.h>

#ifndef LAYOUT_ENTRIES
#define LAYOUT_ENTRIES 16
#endif

#ifndef LAYOUT_MAP
#define LAYOUT_MAP flows
#endif

struct layout_inner {
	__u16 a;
	__u16 b;
};

struct layout_value {
	LAYOUT_MEMBERS
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, LAYOUT_ENTRIES);
	__type(key, __u32);
	__type(value, struct layout_value);
} LAYOUT_MAP SEC(".maps");

PB_TC(layout_program)
{
	__u32 key = ctx->mark;

	bpf_map_lookup_elem(&LAYOUT_MAP, &key);
	return pb_next(ctx);
}
