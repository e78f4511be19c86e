/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plugin's state, shared by endpointslice.c (events, life), config.c and
 * report.c (what it says).
 */
#ifndef ENDPOINTSLICE_ES_H
#define ENDPOINTSLICE_ES_H

#include <patchbay/plugin.h>

#include "source.h"

enum es_metric {
	ES_METRIC_SERVICES,
	ES_METRIC_PARTS,
	ES_METRIC_BACKENDS,
	ES_METRIC_DUPLICATES,
	ES_METRIC_FROM_ENDPOINTS,
	ES_METRIC_NO_SOURCE,
	ES_METRIC_PUBLICATIONS,
	ES_METRICS,
};

struct es_config {
	enum es_mode mode;
	bool all_addresses;
};

struct es {
	struct es_store *store;
	struct es_config config;
	struct es_facts facts;
	enum es_reason reason;
	bool started;
	bool open;   /* the store publishes */
	bool synced; /* the topic */
	bool endpoints_watched;
	bool endpoints_dropped; /* the watch ends once the store has forgotten its objects */
	uint32_t endpoints_watch;
	uint64_t retry_ms; /* when the watch is tried again; 0: no need */
	uint32_t timer;
	uint64_t timer_due_ms;
	bool timer_runs;
	uint64_t publications; /* as counted in the metric */
	uint32_t metrics[ES_METRICS];
	char api_version[32]; /* of the slices */
};

/* -EINVAL: the host has been told which key is wrong. */
int es_config_parse(struct pb_ctx *ctx, struct es_config *ret_config);

/* Declares metrics and the command. prepare() only. */
int es_report_declare(struct pb_ctx *ctx);
/* Brings the metrics up to date. */
void es_report_metrics(struct pb_ctx *ctx);
/* Logs where backends are read from, and why, and what there is to do about it. */
void es_report_source(struct pb_ctx *ctx);

#endif
