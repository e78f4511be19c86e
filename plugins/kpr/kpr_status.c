/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of the plugin is on: found out once, before anything is declared, and shown by
 * `service status` and `patchbay status --verbose`.
 *
 * The machine is asked in prepare(), which takes a millisecond or two; a later change of it (a
 * kube-proxy that starts) is found by the next reload.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cjson/cJSON.h>

#include "kpr.h"
#include "kpr_coexist.h"

static void warn(void *arg, const char *text)
{
	struct pb_ctx *ctx = arg;

	ctx->host->log(ctx, PB_LOG_WARN, "%s", text);
}

/* Whether packets from outside can have anything to do with us. */
static bool serves_outside(const struct kpr *kpr)
{
	const struct kpr_config *c = &kpr->config;

	return kpr->can.node_ports || c->external_ips || c->load_balancer || c->host_ports ||
	       c->cluster_ip_external;
}

int kpr_find_out(struct pb_ctx *ctx)
{
	struct kpr *kpr = ctx->self;
	const struct kpr_config *c = &kpr->config;
	const struct kpr_mode_wish wish = {.mode = c->mode,
					   .node_ports = c->node_ports,
					   .bind_protection = c->bind_protection,
					   .range = {c->node_port_min, c->node_port_max}};
	struct kpr_findings *f = &kpr->found;
	char why[2048];

	kpr_probe_run(&f->probe);
	if (c->mode != KPR_MODE_DISABLED) {
		f->kube_proxy = kpr_coexist_find(f->trace, sizeof(f->trace));
		if (c->node_ports)
			f->reserve =
				kpr_reserve_ports(KPR_RESERVE_DIR, &wish.range, c->reserve_ports,
						  f->reserve_why, sizeof(f->reserve_why));
	}
	if (kpr_mode_decide(&wish, f, &kpr->can, warn, ctx, why, sizeof(why)) < 0)
		return ctx->host->fail(ctx, -EOPNOTSUPP, "%s", why);
	kpr->can.north_south = kpr->can.north_south && serves_outside(kpr);
	return 0;
}

/* ---- the report ---- */

static void add(cJSON *o, const char *name, const char *text)
{
	cJSON_AddStringToObject(o, name, text);
}

static void add_switch(cJSON *o, const char *name, bool on, const char *why_not)
{
	add(o, name, on ? "enabled" : why_not);
}

/* Interfaces of datapath.devices that have addresses, each once. */
static void add_devices(cJSON *o, const struct kpr *kpr)
{
	cJSON *list = cJSON_AddArrayToObject(o, "devices");
	const struct kpr_node_entry *e;
	const cJSON *known;

	for (e = kpr->nodes.entries; e; e = e->hh.next) {
		bool there = false;

		if (!(e->value->flags & PB_NODE_ADDR_DEVICE))
			continue;
		cJSON_ArrayForEach (known, list)
			there = there || strcmp(known->valuestring, e->value->ifname) == 0;
		if (!there)
			cJSON_AddItemToArray(list, cJSON_CreateString(e->value->ifname));
	}
}

static void add_types(cJSON *o, const struct kpr *kpr)
{
	const struct kpr_config *c = &kpr->config;
	const char *off = kpr->can.others ? "disabled" : "disabled (mode)";
	cJSON *types = cJSON_AddObjectToObject(o, "services");
	char text[64];

	snprintf(text, sizeof(text), "enabled (range %u-%u)", c->node_port_min, c->node_port_max);
	add(types, "ClusterIP", c->cluster_ip_external ? "enabled (from outside, too)" : "enabled");
	add(types, "NodePort",
	    kpr->can.node_ports		       ? text
	    : kpr->can.others && c->node_ports ? "disabled (ports not reserved)"
					       : off);
	add_switch(types, "ExternalIP", kpr->can.others && c->external_ips, off);
	add_switch(types, "LoadBalancer", kpr->can.others && c->load_balancer, off);
	add_switch(types, "HostPort", kpr->can.others && c->host_ports, off);
}

static void add_selection(cJSON *o, const struct kpr *kpr)
{
	const struct kpr_config *c = &kpr->config;
	char text[96];

	snprintf(text, sizeof(text), "%s (Maglev tables of %u, %u of %u in use)",
		 c->maglev ? "maglev" : "random", c->maglev_size, kpr->maps.tables.n_used,
		 kpr->maps.tables.n_max);
	add(o, "backend_selection", text);
	add(o, "session_affinity",
	    kpr->can.loopback ? "enabled" : "enabled (all clients of this node are one)");
}

static void add_ports(cJSON *o, const struct kpr *kpr)
{
	static const char *const states[] = {
		[KPR_RESERVE_NOT_NEEDED] = "not needed", [KPR_RESERVE_THERE] = "yes",
		[KPR_RESERVE_DONE] = "yes (added)",	 [KPR_RESERVE_OFF] = "no (switched off)",
		[KPR_RESERVE_FAILED] = "no (failed)",
	};

	add(o, "ports_reserved",
	    kpr->can.others && kpr->config.node_ports ? states[kpr->found.reserve] : "not needed");
}

static void add_features(cJSON *o, const struct kpr *kpr)
{
	cJSON *features = cJSON_AddObjectToObject(o, "features");
	const struct kpr_probe *probe = &kpr->found.probe;

	add(o, "kernel", probe->kernel);
	for (int i = 0; i < KPR_FEATURE_COUNT; i++)
		add(features, kpr_feature_info((enum kpr_feature)i)->name,
		    probe->missing >> i & 1   ? "missing"
		    : probe->unknown >> i & 1 ? "unknown"
					      : "yes");
}

static cJSON *status_json(const struct kpr *kpr)
{
	const struct kpr_abilities *can = &kpr->can;
	cJSON *root = cJSON_CreateObject();
	cJSON *o = cJSON_AddObjectToObject(root, "KubeProxyReplacement");

	add(o, "mode", kpr_mode_name(kpr->config.mode));
	add_devices(o, kpr);
	add(o, "protocols", "TCP, UDP, SCTP");
	add(o, "families", can->ipv6 ? "IPv4, IPv6" : "IPv4");
	add(o, "sockets", kpr->config.host_sockets_only ? "of the host" : "of host and pods");
	add_switch(o, "north_south", can->north_south,
		   !can->others		 ? "disabled (mode)"
		   : serves_outside(kpr) ? "disabled (kernel)"
					 : "disabled (nothing to serve)");
	add_selection(o, kpr);
	add_switch(o, "bind_protection", can->bind_protection,
		   kpr->found.kube_proxy ? "disabled (kube-proxy is here)" : "disabled");
	add_switch(o, "udp_sockets_destroyed", can->udp_destroy, "disabled (kernel)");
	add_ports(o, kpr);
	add(o, "kube_proxy",
	    !can->others	    ? "not looked for"
	    : kpr->found.kube_proxy ? kpr->found.trace
				    : "not found");
	add_types(o, kpr);
	add_features(o, kpr);
	return root;
}

int kpr_report_status(struct pb_ctx *ctx, void *arg, const char *const *args, uint32_t n_args,
		      struct pb_buf *out)
{
	cJSON *root;
	char *text;
	int rc;

	(void)arg;
	if (n_args > 0)
		return ctx->host->fail(ctx, -EINVAL, "\"%s\" makes no sense: no argument is needed",
				       args[0]);
	root = status_json(ctx->self);
	text = cJSON_PrintUnformatted(root);
	cJSON_Delete(root);
	rc = text ? ctx->host->buf_append(out, text, strlen(text)) : -ENOMEM;
	free(text);
	return rc;
}
