/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the plugin says of itself: metrics, the log lines about its source, `backends source`.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "es.h"

static const struct {
	uint32_t kind;
	const char *name;
	const char *help;
} metrics[ES_METRICS] = {
	[ES_METRIC_SERVICES] = {PB_METRIC_GAUGE, "services",
				"Services whose backends are published"},
	[ES_METRIC_PARTS] = {PB_METRIC_GAUGE, "parts", "Slices and Endpoints published"},
	[ES_METRIC_BACKENDS] = {PB_METRIC_GAUGE, "backends", "Backends published"},
	[ES_METRIC_DUPLICATES] = {PB_METRIC_GAUGE, "duplicates",
				  "Backends that another slice of their Service shows too"},
	[ES_METRIC_FROM_ENDPOINTS] = {PB_METRIC_GAUGE, "from_endpoints",
				      "Services whose backends come from Endpoints"},
	[ES_METRIC_NO_SOURCE] = {PB_METRIC_GAUGE, "no_source",
				 "1 while nothing that may be read can be listed"},
	[ES_METRIC_PUBLICATIONS] = {PB_METRIC_COUNTER, "publications",
				    "Records published and withdrawn"},
};

void es_report_metrics(struct pb_ctx *ctx)
{
	struct es *es = ctx->self;
	struct es_counts counts = es_store_counts(es->store);
	const uint64_t values[ES_METRICS] = {
		[ES_METRIC_SERVICES] = counts.services,
		[ES_METRIC_PARTS] = counts.parts,
		[ES_METRIC_BACKENDS] = counts.backends,
		[ES_METRIC_DUPLICATES] = counts.duplicates,
		[ES_METRIC_FROM_ENDPOINTS] = counts.from_endpoints,
		[ES_METRIC_NO_SOURCE] = es->reason == ES_WHY_NOTHING,
	};

	for (uint32_t i = 0; i < ES_METRICS; i++)
		if (metrics[i].kind == PB_METRIC_GAUGE)
			ctx->host->metric_set(ctx, es->metrics[i], values[i]);
	ctx->host->metric_add(ctx, es->metrics[ES_METRIC_PUBLICATIONS],
			      counts.publications - es->publications);
	es->publications = counts.publications;
}

/* ---- the log ---- */

static const char *remedy(const struct es *es)
{
	if (es->facts.mode == ES_SLICES)
		return "no Service will have backends that it hasn't already: allow the agent to "
		       "list and watch endpointslices of discovery.k8s.io, or set enabled: auto";
	if (es->facts.mode == ES_ENDPOINTS)
		return "no Service will have backends that it hasn't already: allow the agent to "
		       "list and watch endpoints";
	return "no Service will have backends that it hasn't already: allow the agent to list and "
	       "watch endpointslices of discovery.k8s.io, or else endpoints";
}

void es_report_source(struct pb_ctx *ctx)
{
	const struct es *es = ctx->self;

	switch (es->reason) {
	case ES_WHY_NOTHING:
		ctx->host->log(ctx, PB_LOG_ERROR, "%s; %s", es_reason_text(es->reason), remedy(es));
		break;
	case ES_WHY_NO_MAKER:
		ctx->host->log(ctx, PB_LOG_WARN,
			       "no EndpointSlice of default/kubernetes, though it has Endpoints: "
			       "backends are read from Endpoints; enable the cluster's "
			       "EndpointSlice controller or set enabled: false");
		break;
	case ES_WHY_NO_ENDPOINTS:
		ctx->host->log(ctx, PB_LOG_WARN,
			       "%s: Services without EndpointSlices have no backends; allow the "
			       "agent to list and watch endpoints",
			       es_reason_text(es->reason));
		break;
	case ES_WHY_WAITING:
		break;
	default:
		ctx->host->log(ctx, PB_LOG_INFO, "backends are read from %s: %s",
			       es_policy_text(es->facts.policy), es_reason_text(es->reason));
	}
}

/* ---- patchbay backends source ---- */

static const char *known_text(enum es_known known, bool watched)
{
	if (!watched)
		return "not asked for";
	if (known == ES_UNKNOWN)
		return "waiting for the first list";
	return known == ES_SYNCED ? "synced" : "not served, or may not be listed";
}

static cJSON *source_json(const struct es *es)
{
	static const char *const modes[] = {"auto", "true", "false"};
	struct es_counts counts = es_store_counts(es->store);
	const struct es_facts *f = &es->facts;
	cJSON *json = cJSON_CreateObject();

	cJSON_AddStringToObject(json, "source", es_policy_text(f->policy));
	cJSON_AddStringToObject(json, "why", es_reason_text(es->reason));
	cJSON_AddStringToObject(json, "enabled", modes[f->mode]);
	cJSON_AddStringToObject(json, "endpointslices",
				known_text(f->slices, f->mode != ES_ENDPOINTS));
	cJSON_AddStringToObject(json, "api_version", es->api_version);
	cJSON_AddStringToObject(json, "endpoints", known_text(f->endpoints, es->endpoints_watched));
	cJSON_AddNumberToObject(json, "services", counts.services);
	cJSON_AddNumberToObject(json, "services_from_endpoints", counts.from_endpoints);
	cJSON_AddNumberToObject(json, "parts", counts.parts);
	cJSON_AddNumberToObject(json, "backends", counts.backends);
	cJSON_AddNumberToObject(json, "duplicates", counts.duplicates);
	return json;
}

static int show_source(struct pb_ctx *ctx, void *arg, const char *const *args, uint32_t n_args,
		       struct pb_buf *out)
{
	char *text;
	cJSON *json;
	int rc;

	(void)arg;
	(void)args;
	if (n_args > 0)
		return ctx->host->fail(ctx, -EINVAL, "backends source takes no arguments");
	json = source_json(ctx->self);
	text = json ? cJSON_PrintUnformatted(json) : NULL;
	rc = text ? ctx->host->buf_append(out, text, strlen(text)) : -ENOMEM;
	free(text);
	cJSON_Delete(json);
	return rc;
}

int es_report_declare(struct pb_ctx *ctx)
{
	struct es *es = ctx->self;
	struct pb_command source = {.size = sizeof(source),
				    .name = "backends source",
				    .usage = "",
				    .help = "which API backends are read from, and why",
				    .fn = show_source};
	int rc = ctx->host->command(ctx, &source);

	for (uint32_t i = 0; i < ES_METRICS && rc == 0; i++)
		rc = ctx->host->metric(ctx, metrics[i].kind, metrics[i].name, metrics[i].help,
				       &es->metrics[i]);
	return rc;
}
