/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plugin kpr: Services without kube-proxy.
 *
 * Owns the plugin's life: what it declares to the agent (the datapath: kpr_datapath.c), and that
 * one generation at a time writes the maps: the live one; and before start() one whose maps are
 * new, so that they are full when its programs begin to use them. The rules are in kpr_model.c, the
 * writing in kpr_maps.c, the translation in kpr.bpf.c. No state is saved: maps stay pinned, the
 * rest is replayed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kpr.h"
#include "kpr_settings.h"

/* How long one turn of writing may keep the loop. */
#define TURN_NS 1000000ULL
static int write_settings(struct pb_ctx *ctx)
{
	const struct kpr *kpr = ctx->self;
	const struct kpr_config *c = &kpr->config;
	struct pb_svc_settings s = {.host_netns = kpr->host_netns,
				    .loopback4 = c->loopback4,
				    .node_port_min = c->node_port_min,
				    .node_port_max = c->node_port_max,
				    .snat_min = (uint16_t)(c->node_port_max + 1),
				    .snat_max = 65535,
				    .maglev_size = c->maglev_size};
	union pb_addr addr;

	s.flags = (c->cluster_ip_external ? PB_SVC_SET_EXTERNAL_CLUSTER_IP : 0) |
		  (kpr->can.bind_protection ? PB_SVC_SET_BIND_PROTECTION : 0) |
		  (c->host_sockets_only ? PB_SVC_SET_HOST_SOCKETS_ONLY : 0) |
		  (kpr->can.north_south ? PB_SVC_SET_NODE_PORT : 0);
	if (kpr_nodes_primary(&kpr->nodes, 4, &addr))
		s.node4 = addr.v4;
	if (kpr_nodes_primary(&kpr->nodes, 6, &addr))
		memcpy(s.node6, addr.v6, sizeof(s.node6));
	return kpr_settings_write(ctx, kpr->map_settings, &s);
}

static void report(struct pb_ctx *ctx)
{
	const struct pb_host *h = ctx->host;
	const struct kpr *kpr = ctx->self;

	h->metric_set(ctx, kpr->metric_services, kpr->model.n_services);
	h->metric_set(ctx, kpr->metric_frontends, kpr->maps.stats.frontends);
	h->metric_set(ctx, kpr->metric_backends, kpr->maps.store.ids.used);
	h->metric_set(ctx, kpr->metric_slots, kpr->maps.store.ranges.used);
	h->metric_set(ctx, kpr->metric_writes,
		      kpr->maps.stats.writes + kpr->maps.store.stores + kpr->maps.tables.stores);
	h->metric_set(ctx, kpr->metric_touched, kpr->maps.store.touched);
	h->metric_set(ctx, kpr->metric_errors, kpr->maps.stats.errors);
	h->metric_set(ctx, kpr->metric_failing, kpr->maps.stats.failing);
	h->metric_set(ctx, kpr->metric_tables, kpr->maps.tables.n_used);
	h->metric_set(ctx, kpr->metric_builds, kpr->maps.tables.builds);
}

static void on_timer(struct pb_ctx *ctx, void *arg);

static void run_after(struct pb_ctx *ctx, uint64_t ms)
{
	struct kpr *kpr = ctx->self;

	/* Thousands of events may come before the loop gets to the timer. */
	if (kpr->timer_runs && kpr->timer_ms == 0)
		return;
	if (kpr->timer_runs)
		ctx->host->timer_stop(ctx, kpr->timer);
	kpr->timer_ms = ms;
	kpr->timer_runs = ctx->host->timer_start(ctx, ms, 0, on_timer, NULL, &kpr->timer) == 0;
}

/*
 * What load balancers are told of this node. All nodes have the same Services: one for which there
 * is no room must not make all of them unhealthy.
 */
static bool keeps_up(const struct kpr *kpr)
{
	uint32_t failing = kpr->maps.stats.failing;

	return !kpr->model.dirty && (failing == 0 || failing < kpr->model.n_services);
}

static void on_timer(struct pb_ctx *ctx, void *arg)
{
	struct kpr *kpr = ctx->self;
	uint64_t after_ns;

	(void)arg;
	kpr->timer_runs = false;
	if (!kpr->live)
		return;
	write_settings(ctx);
	after_ns = kpr_maps_run(&kpr->maps, TURN_NS);
	kpr_health_written(&kpr->health, keeps_up(kpr));
	report(ctx);
	if (after_ns != UINT64_MAX)
		run_after(ctx, (after_ns + 999999) / 1000000);
}

static int use_maps(struct pb_ctx *ctx)
{
	struct kpr *kpr = ctx->self;
	int rc;

	if (kpr->maps_ready)
		return 0;
	rc = kpr_maps_init(&kpr->maps, ctx, &kpr->model, &kpr->handles, kpr->config.maglev_size,
			   kpr->config.maglev_seed);
	if (rc < 0)
		kpr_maps_free(&kpr->maps);
	kpr->maps_ready = rc == 0;
	return rc;
}

/* Maps that nobody has written to. Asked first: the host takes mapped memory for written to. */
static bool maps_are_new(struct pb_ctx *ctx)
{
	struct kpr *kpr = ctx->self;
	struct pb_svc_key key;

	if (!kpr->asked)
		kpr->early = ctx->host->map_next(kpr->handles.services, NULL, &key) == -ENOENT;
	kpr->asked = true;
	return kpr->early;
}

/*
 * What is replayed before start() comes before the programs. Maps that hold something are those of
 * the generation before: it goes on with them should this load be called off, so they wait.
 */
static void write_early(struct pb_ctx *ctx)
{
	struct kpr *kpr = ctx->self;
	bool all = kpr_model_owners_known(&kpr->model) && kpr->model.backends_synced &&
		   kpr->model.addresses_synced;

	/* start() says why when they can't be used. */
	if (!maps_are_new(ctx) || use_maps(ctx) < 0)
		return;
	if (write_settings(ctx) < 0)
		return;
	kpr_maps_run(&kpr->maps, all ? UINT64_MAX : TURN_NS);
	report(ctx);
}

/* In the loop's next turn, with whatever else comes in this one. */
void kpr_changed(struct pb_ctx *ctx, const char *name, int rc)
{
	struct kpr *kpr = ctx->self;

	if (rc < 0)
		ctx->host->log(ctx, PB_LOG_ERROR, "%s: not taken in (%s)", name, strerror(-rc));
	if (kpr->live)
		run_after(ctx, 0);
	else if (!kpr->started)
		write_early(ctx);
}

/* ---- life ---- */

static int declare_metrics(struct pb_ctx *ctx)
{
	struct kpr *kpr = ctx->self;
	const struct {
		const char *name;
		const char *help;
		uint32_t *id;
	} metrics[] = {
		{"services", "Services known", &kpr->metric_services},
		{"frontends", "Frontends in the map", &kpr->metric_frontends},
		{"backends", "Entries of the map of backends in use", &kpr->metric_backends},
		{"backend_slots", "Slots of pools in use", &kpr->metric_slots},
		{"backends_changed", "Backends that came or went by this generation's writes",
		 &kpr->metric_touched},
		{"map_writes", "Map entries written or deleted by this generation",
		 &kpr->metric_writes},
		{"map_errors", "Failed writes of this generation", &kpr->metric_errors},
		{"failing", "Services that can't be written and wait for a retry",
		 &kpr->metric_failing},
		{"maglev_tables", "Maglev tables in use", &kpr->metric_tables},
		{"maglev_builds", "Maglev tables built by this generation", &kpr->metric_builds},
	};
	int rc = 0;

	for (size_t i = 0; rc == 0 && i < sizeof(metrics) / sizeof(metrics[0]); i++)
		rc = ctx->host->metric(ctx, PB_METRIC_GAUGE, metrics[i].name, metrics[i].help,
				       metrics[i].id);
	return rc;
}

static int declare(struct pb_ctx *ctx)
{
	const struct pb_host *h = ctx->host;
	struct kpr *kpr = ctx->self;
	static const struct pb_command commands[] = {
		{.name = "service list",
		 .usage = "[NAMESPACE] [--type TYPE]",
		 .help = "Services and their frontends",
		 .fn = kpr_report_services},
		{.name = "service show",
		 .usage = "NAMESPACE/NAME",
		 .help = "backends of one Service",
		 .fn = kpr_report_service},
		{.name = "service status",
		 .usage = "",
		 .help = "what of kube-proxy's work is done here, and what the kernel has for it",
		 .fn = kpr_report_status},
		{.name = "lb maglev",
		 .usage = "[NAMESPACE/NAME]",
		 .help = "Maglev tables, or the share of each backend of a Service",
		 .fn = kpr_report_maglev},
	};
	int rc = kpr_datapath_declare(ctx);

	if (rc == 0)
		rc = declare_metrics(ctx);
	if (rc == 0)
		rc = kpr_udp_declare(ctx, &kpr->udp, &kpr->model);
	if (rc == 0)
		rc = kpr_inputs_declare(ctx);
	for (size_t i = 0; rc == 0 && i < sizeof(commands) / sizeof(commands[0]); i++) {
		struct pb_command command = commands[i];

		command.size = sizeof(command);
		rc = h->command(ctx, &command);
	}
	return rc;
}

static void kpr_stop(struct pb_ctx *ctx)
{
	struct kpr *kpr = ctx->self;

	if (kpr->timer_runs)
		ctx->host->timer_stop(ctx, kpr->timer);
	/* Called off before it began: who goes on with the maps knows nothing of these entries. */
	if (!kpr->started && kpr->early && kpr->maps_ready)
		kpr_maps_take_back(&kpr->maps);
	kpr_health_free(&kpr->health);
	kpr_udp_free(ctx, &kpr->udp);
	/* The model's ports name pools. */
	kpr_model_free(&kpr->model);
	kpr_maps_free(&kpr->maps);
	kpr_nodes_free(&kpr->nodes);
	kpr_config_free(&kpr->config);
	free(kpr);
	ctx->self = NULL;
}

static void part_goes(void *arg, const struct pb_backends *old, const struct pb_backends *value)
{
	struct pb_ctx *ctx = arg;
	struct kpr *kpr = ctx->self;

	if (kpr->can.udp_destroy)
		kpr_udp_note(ctx, &kpr->udp, old, value);
}

static void init_model(struct pb_ctx *ctx)
{
	struct kpr *kpr = ctx->self;
	const struct kpr_config *c = &kpr->config;
	const struct kpr_model_opts opts = {.proxy_name = c->proxy_name,
					    .fail_open = (const char *const *)c->fail_open,
					    .node = ctx->host->node_name(ctx),
					    .node_ports = kpr->can.node_ports,
					    .external_ips = kpr->can.others && c->external_ips,
					    .load_balancer = kpr->can.others && c->load_balancer,
					    .host_ports = kpr->can.others && c->host_ports,
					    .maglev = c->maglev,
					    .cluster_ip_external = c->cluster_ip_external,
					    .node_port_min = c->node_port_min,
					    .node_port_max = c->node_port_max,
					    .warn = kpr_warn,
					    .warn_arg = ctx,
					    .part_goes = part_goes,
					    .part_goes_arg = ctx};

	kpr_model_init(&kpr->model, &opts);
	kpr_nodes_init(&kpr->nodes, &c->node_rule);
	kpr_health_init(&kpr->health, ctx, &c->health);
	kpr->host_netns = kpr_settings_netns_cookie();
}

static int kpr_prepare(struct pb_ctx *ctx)
{
	struct kpr *kpr = calloc(1, sizeof(*kpr));
	int rc;

	if (!kpr)
		return -ENOMEM;
	ctx->self = kpr;
	rc = kpr_config_parse(ctx, &kpr->config);
	if (rc == 0)
		rc = kpr_find_out(ctx);
	if (rc == 0) {
		init_model(ctx);
		rc = declare(ctx);
	}
	if (rc < 0)
		kpr_stop(ctx);
	return rc;
}

static int kpr_start(struct pb_ctx *ctx)
{
	struct kpr *kpr = ctx->self;
	int rc = use_maps(ctx);

	if (rc == 0)
		rc = write_settings(ctx);
	if (rc < 0)
		return ctx->host->fail(ctx, rc, "the maps can't be used");
	kpr->started = true;
	kpr->live = true;
	kpr_health_start(&kpr->health);
	run_after(ctx, 0);
	if (kpr->can.udp_destroy)
		kpr_udp_start(ctx, &kpr->udp);
	return 0;
}

/* From here on the successor may write the maps, so this generation must not. */
static int kpr_quiesce(struct pb_ctx *ctx)
{
	struct kpr *kpr = ctx->self;

	kpr->live = false;
	kpr_health_quiesce(&kpr->health);
	return 0;
}

static void kpr_resume(struct pb_ctx *ctx)
{
	struct kpr *kpr = ctx->self;

	kpr->live = kpr->maps_ready;
	if (kpr->live)
		run_after(ctx, 0);
}

PB_PLUGIN("kpr", PACKAGE_VERSION, .prepare = kpr_prepare, .start = kpr_start,
	  .quiesce = kpr_quiesce, .resume = kpr_resume, .stop = kpr_stop);
