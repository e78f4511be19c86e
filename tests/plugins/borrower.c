/* SPDX-License-Identifier: Apache-2.0 */
/* A plugin whose program works on the map of plugin sample. BORROWER_REQUIRES: the manifest. */
#include <patchbay/plugin.h>

#include <tests/plugins/borrower.skel.h>

#ifndef BORROWER_REQUIRES
#define BORROWER_REQUIRES "sample"
#endif

static int borrower_prepare(struct pb_ctx *ctx)
{
	const struct pb_map_opts map = {.size = sizeof(map),
					.name = "sample__sample_counts",
					.flags = PB_MAP_BORROWED};
	struct pb_bpf_object object = {.size = sizeof(object),
				       .name = "borrower",
				       .maps = &map,
				       .n_maps = 1};
	const struct pb_slot slot = {.size = sizeof(slot),
				     .hook = PB_HOOK_DEV_EGRESS,
				     .band = PB_BAND_SERVICE,
				     .name = "borrower",
				     .object = "borrower",
				     .program = "borrower_count"};
	int rc;

	object.elf = borrower_bpf__elf_bytes(&object.elf_len);
	rc = ctx->host->bpf_object(ctx, &object);
	return rc ? rc : ctx->host->slot(ctx, &slot);
}

PB_PLUGIN_FULL("borrower", "1.0.0", 0, 0, BORROWER_REQUIRES, .prepare = borrower_prepare);
