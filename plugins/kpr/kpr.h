/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the plugin's user side share: its state, its configuration, its report.
 */
#ifndef KPR_H
#define KPR_H

#include "kpr_health.h"
#include "kpr_maps.h"
#include "kpr_mode.h"
#include "kpr_model.h"
#include "kpr_nodes.h"
#include "kpr_udp.h"

struct kpr_config {
	uint32_t services_max;
	uint32_t backends_max;
	char *proxy_name;
	char **fail_open; /* ends with NULL */
	struct kpr_node_rule node_rule;
	uint16_t node_port_min; /* both ends belong to the range */
	uint16_t node_port_max;
	__be32 loopback4;
	bool node_ports;
	bool bind_protection;
	bool external_ips;
	bool host_ports;
	bool load_balancer;
	bool cluster_ip_external;
	bool host_sockets_only;
	bool maglev;
	struct kpr_health_config health;
	bool reserve_ports;
	enum kpr_mode mode;
	uint32_t maglev_size;
	uint32_t maglev_tables;
	uint8_t maglev_seed[KPR_MAGLEV_SEED_LEN];
};

struct kpr {
	struct kpr_config config;
	struct kpr_model model;
	struct kpr_maps maps;
	struct kpr_udp udp;
	struct kpr_nodes nodes;
	struct kpr_health health;
	struct kpr_handles handles;
	struct pb_map *map_settings;
	struct kpr_findings found;
	struct kpr_abilities can;
	uint32_t timer;
	uint64_t timer_ms; /* its delay */
	bool timer_runs;
	bool live; /* this generation writes the maps */
	bool maps_ready;
	bool started;
	bool asked; /* `early` is known */
	bool early; /* it may write before start(): nobody else uses the maps */
	uint32_t metric_services;
	uint32_t metric_frontends;
	uint32_t metric_backends;
	uint32_t metric_slots;
	uint32_t metric_touched;
	uint32_t metric_writes;
	uint32_t metric_errors;
	uint32_t metric_failing;
	uint32_t metric_tables;
	uint32_t metric_builds;
	uint64_t host_netns;
};

/* Reads the plugin's section. On error host->fail() has said why. Free it in any case. */
int kpr_config_parse(struct pb_ctx *ctx, struct kpr_config *ret_config);
void kpr_config_free(struct kpr_config *config);

/* One BPF object of the plugin. */
struct kpr_object {
	const char *name;
	const void *elf;
	size_t elf_len;
	const struct pb_map_opts *maps; /* of those that only this object has */
	uint32_t n_maps;
};

/* In prepare(). The object includes kpr_bpf_maps.h. */
int kpr_declare_object(struct pb_ctx *ctx, const struct kpr_object *object);
/* All objects, slots and map handles. */
int kpr_datapath_declare(struct pb_ctx *ctx);

/* All watches and subscriptions. */
int kpr_inputs_declare(struct pb_ctx *ctx);
/* struct kpr_model_opts.warn; `arg` is the plugin's struct pb_ctx. */
void kpr_warn(void *arg, const char *object, const char *text);
/* The model changed: sees to it that the maps are written. rc < 0: `name` wasn't taken in. */
void kpr_changed(struct pb_ctx *ctx, const char *name, int rc);

/* In prepare(): asks the machine and decides what is on. On error host->fail() has said why. */
int kpr_find_out(struct pb_ctx *ctx);
/* `service status`. */
int kpr_report_status(struct pb_ctx *ctx, void *arg, const char *const *args, uint32_t n_args,
		      struct pb_buf *out);
/* `lb maglev [NAMESPACE/NAME]`. */
int kpr_report_maglev(struct pb_ctx *ctx, void *arg, const char *const *args, uint32_t n_args,
		      struct pb_buf *out);
/* `service list [NAMESPACE]`. */
int kpr_report_services(struct pb_ctx *ctx, void *arg, const char *const *args, uint32_t n_args,
			struct pb_buf *out);
int kpr_report_service(struct pb_ctx *ctx, void *arg, const char *const *args, uint32_t n_args,
		       struct pb_buf *out);

#endif
