/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the map flows of plugin p-a as a later schema has it. */
#define LAYOUT_MEMBERS                                                                             \
	__u32 address;                                                                             \
	__u32 packets;                                                                             \
	struct layout_inner inner;                                                                 \
	__u16 ports[2];                                                                            \
	__u32 bytes;
#define LAYOUT_MAP p_a__flows
#include "layout.h"

/* Drops when the owner's map has entry 7. */
PB_TC(borrow_program)
{
	__u32 key = 7;

	return bpf_map_lookup_elem(&LAYOUT_MAP, &key) ? pb_drop(ctx, PB_REASON_PLUGIN)
						      : pb_next(ctx);
}
