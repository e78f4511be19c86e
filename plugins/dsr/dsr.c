/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plugin's life: what it declares, its constants, its metrics.
 *
 * Owns no state of flows: that is in pb_ct, where kpr's programs go on with it after this plugin
 * was reloaded or unloaded.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "dsr.h"

#include <patchbay/maps/services.h>
#include <plugins/dsr/dsr.skel.h>

#define METRICS_MS 1000

static const struct pb_slot slots[] = {
	{.size = sizeof(struct pb_slot),
	 .hook = PB_HOOK_DEV_INGRESS,
	 .band = PB_BAND_DECAP,
	 .name = "dsr-in",
	 .object = "dsr",
	 .program = "dsr_in"},
	{.size = sizeof(struct pb_slot),
	 .hook = PB_HOOK_DEV_INGRESS,
	 .band = PB_BAND_SERVICE,
	 .name = "dsr",
	 .object = "dsr",
	 .program = "dsr_out",
	 .before = "kpr-nat",
	 .after = "kpr"},
	{.size = sizeof(struct pb_slot),
	 .hook = PB_HOOK_POD_EGRESS,
	 .band = PB_BAND_SERVICE,
	 .name = "dsr",
	 .object = "dsr",
	 .program = "dsr_answer",
	 .before = "kpr-nat",
	 .after = "kpr"},
};

static int set_constants(struct pb_ctx *ctx, const struct dsr_config *config)
{
	const struct {
		const char *name;
		uint32_t value;
	} constants[] = {
		{"dsr_mode", config->mode},
		{"dsr_dispatch", config->dispatch},
		{"dsr_strip", config->strip},
		{"dsr_any_address", config->any_address},
	};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < sizeof(constants) / sizeof(constants[0]); i++)
		rc = ctx->host->bpf_const(ctx, "dsr", constants[i].name, &constants[i].value,
					  sizeof(constants[i].value));
	return rc;
}

#define BORROWED(name_)                                                                            \
	{                                                                                          \
		.size = sizeof(struct pb_map_opts), .flags = PB_MAP_BORROWED,                      \
		.schema = PB_SVC_SCHEMA, .name = "kpr__" name_                                     \
	}

/* What nobody misses afterwards. */
#define OF_A_LOAD(name_)                                                                           \
	{                                                                                          \
		.size = sizeof(struct pb_map_opts), .flags = PB_MAP_EPHEMERAL, .schema = 1,        \
		.name = name_                                                                      \
	}

static int declare_datapath(struct pb_ctx *ctx)
{
	const struct pb_map_opts maps[] = {
		BORROWED("kpr_services"), BORROWED("kpr_slots"), BORROWED("kpr_backends"),
		BORROWED("kpr_settings"), BORROWED("kpr_flow"),	 OF_A_LOAD("dsr_scratch"),
		OF_A_LOAD("dsr_replies"),
	};
	struct dsr *dsr = ctx->self;
	struct pb_bpf_object object = {.size = sizeof(object),
				       .name = "dsr",
				       .maps = maps,
				       .n_maps = sizeof(maps) / sizeof(maps[0])};
	int rc;

	object.elf = dsr_bpf__elf_bytes(&object.elf_len);
	rc = ctx->host->bpf_object(ctx, &object);
	for (size_t i = 0; rc == 0 && i < sizeof(slots) / sizeof(slots[0]); i++)
		rc = ctx->host->slot(ctx, &slots[i]);
	if (rc == 0)
		rc = set_constants(ctx, &dsr->config);
	return rc < 0 ? rc : ctx->host->map(ctx, "dsr_stats", &dsr->stats);
}

static int declare_metrics(struct pb_ctx *ctx)
{
	struct dsr *dsr = ctx->self;
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < DSR_COUNTERS; i++)
		rc = ctx->host->metric(ctx, PB_METRIC_COUNTER, dsr_counter_name(i),
				       dsr_counter_help(i), &dsr->metrics[i]);
	return rc;
}

static void on_metrics(struct pb_ctx *ctx, void *arg)
{
	struct dsr *dsr = ctx->self;
	uint64_t values[DSR_COUNTERS];

	(void)arg;
	if (dsr_counters(ctx, values) < 0)
		return;
	for (size_t i = 0; i < DSR_COUNTERS; i++)
		ctx->host->metric_set(ctx, dsr->metrics[i], values[i]);
}

static int declare(struct pb_ctx *ctx)
{
	const struct pb_command status = {.size = sizeof(status),
					  .name = "dsr status",
					  .usage = "",
					  .help = "mode, dispatch and counters",
					  .fn = dsr_report_status};
	int rc = declare_datapath(ctx);

	if (rc == 0)
		rc = declare_metrics(ctx);
	return rc < 0 ? rc : ctx->host->command(ctx, &status);
}

static void dsr_stop(struct pb_ctx *ctx)
{
	struct dsr *dsr = ctx->self;

	if (dsr->timer_runs)
		ctx->host->timer_stop(ctx, dsr->timer);
	free(dsr);
	ctx->self = NULL;
}

static int dsr_prepare(struct pb_ctx *ctx)
{
	struct dsr *dsr = calloc(1, sizeof(*dsr));
	int rc;

	if (!dsr)
		return -ENOMEM;
	ctx->self = dsr;
	rc = dsr_config_parse(ctx, ctx->host->config(ctx), &dsr->config);
	if (rc == 0)
		rc = declare(ctx);
	if (rc < 0)
		dsr_stop(ctx);
	return rc;
}

static int dsr_start(struct pb_ctx *ctx)
{
	struct dsr *dsr = ctx->self;
	int rc;

	on_metrics(ctx, NULL);
	rc = ctx->host->timer_start(ctx, METRICS_MS, METRICS_MS, on_metrics, NULL, &dsr->timer);
	dsr->timer_runs = rc == 0;
	return rc;
}

/* All of it is constants of the programs, which the host loads anew. */
static int dsr_reconfigure(struct pb_ctx *ctx, const char *config)
{
	struct dsr *dsr = ctx->self;
	struct dsr_config parsed;
	int rc = dsr_config_parse(ctx, config, &parsed);

	if (rc == 0)
		rc = set_constants(ctx, &parsed);
	if (rc == 0)
		dsr->config = parsed;
	return rc;
}

PB_PLUGIN_FULL("dsr", PACKAGE_VERSION, 0, 0, "kpr", .prepare = dsr_prepare, .start = dsr_start,
	       .stop = dsr_stop, .reconfigure = dsr_reconfigure);
