/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plugin endpointslice: tells in topic "backends" who stands behind each Service.
 *
 * Owns the watches, the timer and the configuration; where backends are read from is decided in
 * source.c, the rest in store.c, publish.c, index.c and merge.c. Nothing is published before
 * every object of the first lists is in, so that a restart never shows a Service with too few
 * backends.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "es.h"

/* How long one turn of publishing may keep the loop. */
#define TURN_MS 1
/* When a watch that could not be opened is tried again. */
#define WATCH_RETRY_MS 1000

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

static void truncated(void *arg, const char *key)
{
	struct pb_ctx *ctx = arg;

	ctx->host->log(
		ctx, PB_LOG_WARN,
		"Endpoints %s: the control plane left addresses out; use EndpointSlices for a "
		"Service of this size",
		key);
}

/* ---- the timer ---- */

static void on_timer(struct pb_ctx *ctx, void *arg);

static uint64_t due_ms(const struct es *es)
{
	uint64_t due = es_store_due(es->store);

	if (es->retry_ms && es->retry_ms < due)
		due = es->retry_ms;
	return es->endpoints_dropped ? 0 : due;
}

static void arm(struct pb_ctx *ctx)
{
	struct es *es = ctx->self;
	uint64_t due = due_ms(es);
	uint64_t now = clock_ms(ctx);

	if (due == UINT64_MAX || (es->timer_runs && es->timer_due_ms <= due))
		return;
	if (es->timer_runs)
		ctx->host->timer_stop(ctx, es->timer);
	es->timer_due_ms = due;
	es->timer_runs = ctx->host->timer_start(ctx, due > now ? due - now : 0, 0, on_timer, NULL,
						&es->timer) == 0;
}

/* ---- the source ---- */

static void on_endpoints(struct pb_ctx *ctx, void *arg, const struct pb_kube_event *event);

static void watch_endpoints(struct pb_ctx *ctx, bool want)
{
	struct es *es = ctx->self;
	int rc;

	if (es->facts.mode != ES_AUTO || want == es->endpoints_watched)
		return;
	if (!want) {
		es->endpoints_dropped = true;
		es->facts.endpoints = ES_UNKNOWN;
		es->facts.endpoints_seen = false;
		return;
	}
	/* Before start() nothing can be opened; then this is asked again. */
	if (!es->started || es->retry_ms > clock_ms(ctx))
		return;
	rc = ctx->host->kube_watch_open(ctx, PB_KUBE_ENDPOINTS, on_endpoints, NULL,
					&es->endpoints_watch);
	es->endpoints_watched = rc == 0;
	es->retry_ms = rc < 0 ? clock_ms(ctx) + WATCH_RETRY_MS : 0;
	if (rc < 0)
		ctx->host->log(ctx, PB_LOG_ERROR,
			       "Endpoints can't be watched (%s); trying again in a second",
			       strerror(-rc));
}

/* True when the policy in force is another one now. */
static bool decide(struct pb_ctx *ctx)
{
	struct es *es = ctx->self;
	enum es_reason reason = es->reason;
	enum es_policy policy = es->facts.policy;
	struct es_decision d;

	es->facts.from_endpoints = es_store_counts(es->store).from_endpoints;
	d = es_decide(&es->facts);
	es->facts.looked = d.looked;
	es->reason = d.reason;
	watch_endpoints(ctx, d.want_endpoints);
	if (d.policy == 0) {
		es_store_hold(es->store);
		es->open = false;
	} else if (d.policy != policy || !es->open) {
		es->facts.policy = d.policy;
		es->open = true;
		es_store_open(es->store, d.policy, clock_ms(ctx));
	}
	if (es->reason != reason || es->facts.policy != policy)
		es_report_source(ctx);
	return es->facts.policy != policy;
}

/* After everything that may have changed what is known, or what is due. */
static void follow(struct pb_ctx *ctx)
{
	struct es *es = ctx->self;

	while (decide(ctx))
		continue;
	if (!es->synced && es_store_drained(es->store)) {
		es->synced = true;
		ctx->host->synced(ctx, PB_TOPIC_BACKENDS);
	}
	es_report_metrics(ctx);
	arm(ctx);
}

/* The watch ends when the store has none of its objects any more. */
static void drop_endpoints(struct pb_ctx *ctx, uint64_t deadline_ms)
{
	struct es *es = ctx->self;

	if (!es->endpoints_dropped ||
	    !es_store_drop_endpoints(es->store, clock_ms, ctx, deadline_ms))
		return;
	ctx->host->kube_watch_close(ctx, es->endpoints_watch);
	es->endpoints_dropped = false;
	es->endpoints_watched = false;
}

static void on_timer(struct pb_ctx *ctx, void *arg)
{
	struct es *es = ctx->self;
	uint64_t deadline_ms = clock_ms(ctx) + TURN_MS;

	(void)arg;
	es->timer_runs = false;
	es_store_run(es->store, clock_ms, ctx, deadline_ms);
	drop_endpoints(ctx, deadline_ms);
	follow(ctx);
}

/* ---- events ---- */

static bool is_kubernetes(const char *ns, const char *service)
{
	return strcmp(ns, "default") == 0 && strcmp(service, "kubernetes") == 0;
}

static enum es_known known_after(const struct pb_kube_event *event)
{
	return event->kind == PB_KUBE_ABSENT ? ES_ABSENT : ES_SYNCED;
}

static void not_taken(struct pb_ctx *ctx, const char *kind, int rc,
		      const struct pb_kube_event *event)
{
	const struct pb_kube_meta *meta = event->object;

	/* Once an object, not with each of its changes. */
	if (rc == -EINVAL && event->kind == PB_KUBE_PUT && !event->old)
		ctx->host->log(ctx, PB_LOG_WARN,
			       "%s %s/%s: ignored: a name is too long or has other characters "
			       "than letters, digits, \"-\", \".\" and \"_\"; rename it",
			       kind, meta->ns, meta->name);
	if (rc == -ENOMEM)
		ctx->host->log(ctx, PB_LOG_ERROR,
			       "%s %s/%s: not taken in: out of memory; its backends are missing "
			       "until it changes",
			       kind, meta->ns, meta->name);
}

static bool too_large(const struct es *es, const struct pb_kube_endpointslice *slice)
{
	return slice && (uint64_t)slice->n_ports * es_slice_width(slice, es->config.all_addresses) >
				ES_PLACES_MAX;
}

static void slice_changed(struct pb_ctx *ctx, const struct pb_kube_event *event)
{
	struct es *es = ctx->self;
	const struct pb_kube_endpointslice *now = event->kind == PB_KUBE_PUT ? event->object : NULL;
	const struct pb_kube_endpointslice *old = now ? event->old : event->object;

	not_taken(ctx, "EndpointSlice", es_store_slice(es->store, old, now, clock_ms(ctx)), event);
	if (too_large(es, now) && !too_large(es, old))
		ctx->host->log(ctx, PB_LOG_WARN,
			       "EndpointSlice %s/%s: only the first %u pairs of port and endpoint "
			       "are used: split it",
			       now->meta.ns, now->meta.name, ES_PLACES_MAX);
	if (now && is_kubernetes(now->meta.ns, now->service))
		es->facts.slice_seen |= es_store_has_slices(es->store, "default", "kubernetes");
}

static void on_slice(struct pb_ctx *ctx, void *arg, const struct pb_kube_event *event)
{
	struct es *es = ctx->self;

	(void)arg;
	if (event->kind == PB_KUBE_PUT || event->kind == PB_KUBE_DELETE) {
		slice_changed(ctx, event);
	} else {
		es->facts.slices = known_after(event);
		es->facts.api = es_api_of(event->api_version);
		snprintf(es->api_version, sizeof(es->api_version), "%s",
			 event->api_version ? event->api_version : "");
	}
	if (event->kind == PB_KUBE_ABSENT) {
		es->facts.slice_seen = false;
		es->facts.looked = false;
	}
	follow(ctx);
}

static void endpoints_changed(struct pb_ctx *ctx, const struct pb_kube_event *event)
{
	struct es *es = ctx->self;
	const struct pb_kube_endpoints *now = event->kind == PB_KUBE_PUT ? event->object : NULL;
	const struct pb_kube_endpoints *old = now ? event->old : event->object;
	const struct pb_kube_meta *meta = event->object;

	not_taken(ctx, "Endpoints", es_store_endpoints(es->store, old, now, clock_ms(ctx)), event);
	if (is_kubernetes(meta->ns, meta->name))
		es->facts.endpoints_seen =
			es_store_has_endpoints(es->store, "default", "kubernetes");
}

static void on_endpoints(struct pb_ctx *ctx, void *arg, const struct pb_kube_event *event)
{
	struct es *es = ctx->self;

	(void)arg;
	if (es->endpoints_dropped) {
		/* About to be forgotten as a whole: takes nothing new in. */
		if (event->object)
			es_store_endpoints(es->store, event->object, NULL, clock_ms(ctx));
	} else if (event->object) {
		endpoints_changed(ctx, event);
	} else {
		es->facts.endpoints = known_after(event);
	}
	follow(ctx);
}

static void on_service(struct pb_ctx *ctx, void *arg, const struct pb_kube_event *event)
{
	struct es *es = ctx->self;
	const struct pb_kube_meta *meta = event->object;

	(void)arg;
	if (!meta)
		es->facts.services = known_after(event);
	else
		not_taken(ctx, "Service",
			  es_store_service(es->store, meta->ns, meta->name,
					   event->kind == PB_KUBE_PUT, clock_ms(ctx)),
			  event);
	follow(ctx);
}

/* ---- life ---- */

static int declare(struct pb_ctx *ctx)
{
	const struct pb_host *h = ctx->host;
	struct es *es = ctx->self;
	int rc = h->kube_watch(ctx, PB_KUBE_SERVICE, on_service, NULL);

	if (rc == 0 && es->facts.mode != ES_ENDPOINTS)
		rc = h->kube_watch(ctx, PB_KUBE_ENDPOINTSLICE, on_slice, NULL);
	if (rc == 0 && es->facts.mode == ES_ENDPOINTS) {
		rc = h->kube_watch(ctx, PB_KUBE_ENDPOINTS, on_endpoints, NULL);
		es->endpoints_watched = true;
	}
	return rc < 0 ? rc : es_report_declare(ctx);
}

static void es_stop(struct pb_ctx *ctx)
{
	struct es *es = ctx->self;

	if (es->timer_runs)
		ctx->host->timer_stop(ctx, es->timer);
	es_store_free(es->store);
	free(es);
	ctx->self = NULL;
}

static int es_prepare(struct pb_ctx *ctx)
{
	struct es_store_ops ops = {.publish = publish, .truncated = truncated, .arg = ctx};
	struct es *es = calloc(1, sizeof(*es));
	int rc;

	if (!es)
		return -ENOMEM;
	ctx->self = es;
	rc = es_config_parse(ctx, &es->config);
	if (rc == 0) {
		es->facts.mode = es->config.mode;
		ops.all_addresses = es->config.all_addresses;
		ops.node = ctx->host->node_name(ctx);
		/* Without entropy, early at boot, the clock has to do. */
		if (getrandom(&ops.seed, sizeof(ops.seed), GRND_NONBLOCK) < 0)
			ops.seed = ctx->host->now_ns();
		es->store = es_store_new(&ops);
		rc = es->store ? declare(ctx) : -ENOMEM;
	}
	if (rc < 0)
		es_stop(ctx);
	return rc;
}

static int es_start(struct pb_ctx *ctx)
{
	struct es *es = ctx->self;

	es->started = true;
	follow(ctx);
	return 0;
}

PB_PLUGIN("endpointslice", PACKAGE_VERSION, .prepare = es_prepare, .start = es_start,
	  .stop = es_stop);
