/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files of the plugin's user side share: its state, its configuration, its report.
 */
#ifndef KPR_H
#define KPR_H

#include "kpr_maps.h"
#include "kpr_model.h"
#include "kpr_udp.h"

struct kpr_config {
	uint32_t services_max;
	uint32_t backends_max;
	char *proxy_name;
	char **fail_open; /* ends with NULL */
};

struct kpr {
	struct kpr_config config;
	struct kpr_model model;
	struct kpr_maps maps;
	struct kpr_udp udp;
	struct pb_map *map_services;
	struct pb_map *map_slots;
	struct pb_map *map_backends;
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

/* `service list [NAMESPACE]`. */
int kpr_report_services(struct pb_ctx *ctx, void *arg, const char *const *args, uint32_t n_args,
			struct pb_buf *out);
int kpr_report_service(struct pb_ctx *ctx, void *arg, const char *const *args, uint32_t n_args,
		       struct pb_buf *out);

#endif
