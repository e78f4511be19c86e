/* SPDX-License-Identifier: Apache-2.0 */
/* Drops every frame that a pod sends; `status` counts them as policy denied. */
#include <patchbay/plugin.h>
#include "tests/plugins/deny.skel.h"

static int deny_prepare(struct pb_ctx *ctx)
{
	struct pb_bpf_object object = {.size = sizeof(object), .name = "deny"};
	const struct pb_slot slot = {.size = sizeof(slot),
				     .hook = PB_HOOK_POD_EGRESS,
				     .band = PB_BAND_POLICY,
				     .name = "deny",
				     .object = "deny",
				     .program = "deny_all"};
	int rc;

	object.elf = deny_bpf__elf_bytes(&object.elf_len);
	rc = ctx->host->bpf_object(ctx, &object);
	return rc < 0 ? rc : ctx->host->slot(ctx, &slot);
}

PB_PLUGIN("deny", "1.0.0", .prepare = deny_prepare);
