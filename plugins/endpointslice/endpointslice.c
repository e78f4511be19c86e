/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plugin endpointslice: tells in topic "backends" who stands behind each Service.
 *
 * Owns the watches, the timer and the configuration; the rules are in store.c and merge.c.
 * Nothing is published before every object of the first lists is in, so that a restart never
 * shows a Service with too few backends.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include <patchbay/plugin.h>

#include "store.h"

enum es_mode {
	ES_AUTO = 0,	  /* slices; Endpoints where a Service has none */
	ES_SLICES = 1,	  /* slices only */
	ES_ENDPOINTS = 2, /* Endpoints only */
};

struct es {
	struct es_store *store;
	enum es_mode mode;
	uint32_t timer;
	uint64_t timer_due_ms;
	bool timer_runs;
	bool slices_ready;
	bool endpoints_ready;
	bool slices_absent;
	bool synced;
	uint32_t metric_services;
	uint32_t metric_from_endpoints;
	uint32_t metric_publications;
};

/* How long one turn of publishing may keep the loop. */
#define TURN_MS 1

static uint64_t clock_ms(void *arg)
{
	struct pb_ctx *ctx = arg;

	return ctx->host->now_ns() / 1000000;
}

static int publish(void *arg, const char *key, const void *value, size_t len)
{
	struct pb_ctx *ctx = arg;
	int rc;

	if (!value)
		rc = ctx->host->withdraw(ctx, PB_TOPIC_BACKENDS, key);
	else
		rc = ctx->host->publish(ctx, PB_TOPIC_BACKENDS, PB_TOPIC_BACKENDS_VERSION, key,
					value, len);
	if (!value && rc == -ENOENT)
		rc = 0;
	if (rc < 0)
		ctx->host->log(ctx, PB_LOG_ERROR,
			       "backends of %s: can't be published (%s); trying again", key,
			       strerror(-rc));
	return rc;
}

static void on_timer(struct pb_ctx *ctx, void *arg);

static void arm(struct pb_ctx *ctx)
{
	struct es *es = ctx->self;
	uint64_t due = es_store_due(es->store);
	uint64_t now = clock_ms(ctx);

	if (due == UINT64_MAX || (es->timer_runs && es->timer_due_ms <= due))
		return;
	if (es->timer_runs)
		ctx->host->timer_stop(ctx, es->timer);
	es->timer_due_ms = due;
	es->timer_runs = ctx->host->timer_start(ctx, due > now ? due - now : 0, 0, on_timer, NULL,
						&es->timer) == 0;
}

static void report(struct pb_ctx *ctx)
{
	struct es *es = ctx->self;
	struct es_counts counts = es_store_counts(es->store);

	ctx->host->metric_set(ctx, es->metric_services, counts.services);
	ctx->host->metric_set(ctx, es->metric_from_endpoints, counts.from_endpoints);
	ctx->host->metric_set(ctx, es->metric_publications, counts.publications);
}

static void first_sync(struct pb_ctx *ctx)
{
	struct es *es = ctx->self;

	es->synced = true;
	report(ctx);
	ctx->host->synced(ctx, PB_TOPIC_BACKENDS);
	if (es->mode == ES_AUTO && es_store_from_endpoints(es->store, "default", "kubernetes"))
		ctx->host->log(ctx, PB_LOG_WARN,
			       "no EndpointSlice of default/kubernetes, though it has Endpoints: "
			       "backends are read from Endpoints; enable the cluster's "
			       "EndpointSlice controller or set enabled: false");
}

static void on_timer(struct pb_ctx *ctx, void *arg)
{
	struct es *es = ctx->self;

	(void)arg;
	es->timer_runs = false;
	es_store_run(es->store, clock_ms, ctx, clock_ms(ctx) + TURN_MS);
	if (!es->synced && es_store_drained(es->store))
		first_sync(ctx);
	arm(ctx);
}

static void source_ready(struct pb_ctx *ctx, bool *flag)
{
	struct es *es = ctx->self;

	if (*flag)
		return;
	*flag = true;
	if (!es->slices_ready || !es->endpoints_ready)
		return;
	es_store_open(es->store, clock_ms(ctx));
	if (es_store_drained(es->store))
		first_sync(ctx);
}

static void settle_event(struct pb_ctx *ctx, int rc, const struct pb_kube_meta *meta)
{
	struct es *es = ctx->self;

	if (rc < 0)
		ctx->host->log(ctx, PB_LOG_ERROR, "%s/%s: not taken in (%s)", meta->ns, meta->name,
			       strerror(-rc));
	if (es->synced)
		report(ctx);
	arm(ctx);
}

static void on_slice(struct pb_ctx *ctx, void *arg, const struct pb_kube_event *event)
{
	struct es *es = ctx->self;
	const void *object = event->object;
	bool put = event->kind == PB_KUBE_PUT;
	int rc;

	(void)arg;
	if (put || event->kind == PB_KUBE_DELETE) {
		rc = es_store_slice(es->store, put ? event->old : object, put ? object : NULL,
				    clock_ms(ctx));
		settle_event(ctx, rc, object);
		return;
	}
	es->slices_absent = event->kind == PB_KUBE_ABSENT;
	if (es->slices_absent && es->mode == ES_SLICES)
		ctx->host->log(ctx, PB_LOG_ERROR,
			       "the source has no EndpointSlices and enabled: true forbids to read "
			       "Endpoints: no Service will have backends; set enabled: auto");
	else if (es->slices_absent)
		ctx->host->log(ctx, PB_LOG_INFO,
			       "the source has no EndpointSlices: reading "
			       "Endpoints");
	source_ready(ctx, &es->slices_ready);
	arm(ctx);
}

static void on_endpoints(struct pb_ctx *ctx, void *arg, const struct pb_kube_event *event)
{
	struct es *es = ctx->self;
	const struct pb_kube_endpoints *now = event->kind == PB_KUBE_PUT ? event->object : NULL;
	const struct pb_kube_endpoints *old = now ? event->old : event->object;
	int rc;

	(void)arg;
	if (event->kind != PB_KUBE_PUT && event->kind != PB_KUBE_DELETE) {
		source_ready(ctx, &es->endpoints_ready);
		arm(ctx);
		return;
	}
	rc = es_store_endpoints(es->store, old, now, clock_ms(ctx));
	if (now && now->truncated && !(old && old->truncated) &&
	    (es->mode == ES_ENDPOINTS ||
	     es_store_from_endpoints(es->store, now->meta.ns, now->meta.name)))
		ctx->host->log(ctx, PB_LOG_WARN,
			       "Endpoints %s/%s: the control plane left addresses out; use "
			       "EndpointSlices for a Service of this size",
			       now->meta.ns, now->meta.name);
	settle_event(ctx, rc, event->object);
}

static void on_service(struct pb_ctx *ctx, void *arg, const struct pb_kube_event *event)
{
	struct es *es = ctx->self;
	const struct pb_kube_meta *meta = event->object;
	int rc;

	(void)arg;
	if (event->kind != PB_KUBE_PUT && event->kind != PB_KUBE_DELETE)
		return;
	rc = es_store_service(es->store, meta->ns, meta->name, event->kind == PB_KUBE_PUT,
			      clock_ms(ctx));
	settle_event(ctx, rc, meta);
}

static int parse_mode(struct pb_ctx *ctx, const cJSON *value, enum es_mode *ret_mode)
{
	const char *s = cJSON_GetStringValue(value);

	if (cJSON_IsTrue(value) || (s && strcmp(s, "true") == 0))
		*ret_mode = ES_SLICES;
	else if (cJSON_IsFalse(value) || (s && strcmp(s, "false") == 0))
		*ret_mode = ES_ENDPOINTS;
	else if (s && strcmp(s, "auto") == 0)
		*ret_mode = ES_AUTO;
	else
		return ctx->host->fail(ctx, -EINVAL, "enabled: must be auto, true or false");
	return 0;
}

static int parse_config(struct pb_ctx *ctx, enum es_mode *ret_mode)
{
	cJSON *config = cJSON_Parse(ctx->host->config(ctx));
	const cJSON *item;
	int rc = 0;

	*ret_mode = ES_AUTO;
	if (!cJSON_IsObject(config))
		rc = ctx->host->fail(ctx, -EINVAL, "the configuration must be a mapping");
	for (item = rc == 0 ? config->child : NULL; item && rc == 0; item = item->next) {
		if (strcmp(item->string, "enabled") == 0)
			rc = parse_mode(ctx, item, ret_mode);
		else
			rc = ctx->host->fail(ctx, -EINVAL,
					     "%s: no such key; the only one is enabled",
					     item->string);
	}
	cJSON_Delete(config);
	return rc;
}

static int declare(struct pb_ctx *ctx)
{
	const struct pb_host *h = ctx->host;
	struct es *es = ctx->self;
	int rc = h->kube_watch(ctx, PB_KUBE_SERVICE, on_service, NULL);

	if (rc == 0 && es->mode != ES_ENDPOINTS)
		rc = h->kube_watch(ctx, PB_KUBE_ENDPOINTSLICE, on_slice, NULL);
	if (rc == 0 && es->mode != ES_SLICES)
		rc = h->kube_watch(ctx, PB_KUBE_ENDPOINTS, on_endpoints, NULL);
	if (rc == 0)
		rc = h->metric(ctx, PB_METRIC_GAUGE, "services",
			       "Services whose backends are published", &es->metric_services);
	if (rc == 0)
		rc = h->metric(ctx, PB_METRIC_GAUGE, "from_endpoints",
			       "Services whose backends come from Endpoints",
			       &es->metric_from_endpoints);
	if (rc == 0)
		rc = h->metric(ctx, PB_METRIC_GAUGE, "publications",
			       "Values published since this generation started",
			       &es->metric_publications);
	return rc;
}

static int es_prepare(struct pb_ctx *ctx)
{
	struct es_store_ops ops = {.publish = publish, .arg = ctx};
	struct es *es = calloc(1, sizeof(*es));
	int rc = es ? 0 : -ENOMEM;

	if (rc == 0)
		rc = parse_config(ctx, &es->mode);
	if (rc == 0) {
		ops.node = ctx->host->node_name(ctx);
		es->slices_ready = es->mode == ES_ENDPOINTS;
		es->endpoints_ready = es->mode == ES_SLICES;
		es->store = es_store_new(&ops);
		rc = es->store ? 0 : -ENOMEM;
	}
	ctx->self = es;
	if (rc == 0)
		rc = declare(ctx);
	if (rc < 0 && es) {
		es_store_free(es->store);
		free(es);
		ctx->self = NULL;
	}
	return rc;
}

static void es_stop(struct pb_ctx *ctx)
{
	struct es *es = ctx->self;

	es_store_free(es->store);
	free(es);
	ctx->self = NULL;
}

PB_PLUGIN("endpointslice", PACKAGE_VERSION, .prepare = es_prepare, .stop = es_stop);
