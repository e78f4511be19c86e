/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the plugin's user side share: its state and its configuration.
 */
#ifndef DSR_H
#define DSR_H

#include <stdbool.h>
#include <stddef.h>

#include <patchbay/plugin.h>

#include "dsr_abi.h"

struct dsr_config {
	uint32_t mode;	   /* enum dsr_mode */
	uint32_t dispatch; /* enum dsr_dispatch */
	bool strip;
	bool any_address;
	const char *tunnel; /* a string constant */
};

#define DSR_COUNTERS (sizeof(struct dsr_stats) / sizeof(uint64_t))

struct dsr {
	struct dsr_config config;
	struct pb_map *stats;
	uint32_t timer;
	bool timer_runs;
	uint32_t metrics[DSR_COUNTERS];
};

/* Reads the plugin's section `text` (JSON). On error host->fail() has said why. */
int dsr_config_parse(struct pb_ctx *ctx, const char *text, struct dsr_config *ret_config);
const char *dsr_mode_name(uint32_t mode);
const char *dsr_dispatch_name(uint32_t dispatch);

/* A counter of struct dsr_stats, in its order. NULL behind the last. */
const char *dsr_counter_name(size_t i);
const char *dsr_counter_help(size_t i);
/* All counters, summed over CPUs. */
int dsr_counters(struct pb_ctx *ctx, uint64_t ret_counters[DSR_COUNTERS]);

/* `dsr status`. */
int dsr_report_status(struct pb_ctx *ctx, void *arg, const char *const *args, uint32_t n_args,
		      struct pb_buf *out);

#endif
