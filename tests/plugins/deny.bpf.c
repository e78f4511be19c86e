/* SPDX-License-Identifier: Apache-2.0 */
#include <patchbay/bpf.h>

PB_TC(deny_all)
{
	return pb_drop(ctx, PB_REASON_POLICY_DENIED);
}
