/* SPDX-License-Identifier: Apache-2.0 */
/* Reads the packet without a bounds check, which the verifier refuses. */
#include <patchbay/bpf.h>

PB_TC(refused_read)
{
	__u8 *data = (void *)(long)ctx->data;

	if (data[0] == 2)
		return pb_pass(ctx);
	return pb_next(ctx);
}
