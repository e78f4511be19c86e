/* SPDX-License-Identifier: Apache-2.0 */
/* Keeps state in a global variable, which the core refuses. */
#include <patchbay/bpf.h>

__u64 globals_packets;

PB_TC(globals_count)
{
	globals_packets++;
	return pb_next(ctx);
}
