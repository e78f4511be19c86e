/* SPDX-License-Identifier: Apache-2.0 */
/* Counts packets: `patchbay map dump hello/packets` shows how many. */
#include <patchbay/plugin.h>
#include "hello.skel.h"

static int hello_prepare(struct pb_ctx *ctx)
{
	static const uint32_t hooks[] = {PB_HOOK_DEV_INGRESS, PB_HOOK_POD_EGRESS};
	struct pb_bpf_object object = {.size = sizeof(object), .name = "hello"};
	struct pb_slot slot = {.size = sizeof(slot),
			       .band = PB_BAND_OBSERVE,
			       .name = "hello",
			       .object = "hello",
			       .program = "hello_count"};
	int rc;

	object.elf = hello_bpf__elf_bytes(&object.elf_len);
	rc = ctx->host->bpf_object(ctx, &object);
	for (int i = 0; i < 2 && rc == 0; i++) {
		slot.hook = hooks[i];
		rc = ctx->host->slot(ctx, &slot);
	}
	return rc;
}

PB_PLUGIN("hello", "1.0.0", .prepare = hello_prepare);
