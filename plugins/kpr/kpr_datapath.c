/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the plugin declares of its datapath: BPF objects, their maps and slots.
 *
 * Owns the options of the maps that several objects have in common: all objects must name the same
 * schema, flags and size, or they would get maps of their own.
 */
#include <errno.h>
#include <string.h>

#include "kpr.h"
#include <plugins/kpr/kpr.skel.h>
#include <plugins/kpr/kpr_ns.skel.h>

/* 2: struct pb_svc_key has a scope. 3: flags. */
#define REVERSE_SCHEMA 3
/* Slots per backend: a pool's range is a power of two, and twice there while it moves. */
#define SLOTS_PER_BACKEND 2
#define MAPS_MAX 16

static const struct {
	uint32_t hook;
	const char *program;
} hooks[] = {
	{PB_HOOK_CONNECT4, "kpr_connect4"},
	{PB_HOOK_CONNECT6, "kpr_connect6"},
	{PB_HOOK_SENDMSG4, "kpr_sendmsg4"},
	{PB_HOOK_SENDMSG6, "kpr_sendmsg6"},
	{PB_HOOK_RECVMSG4, "kpr_recvmsg4"},
	{PB_HOOK_RECVMSG6, "kpr_recvmsg6"},
	{PB_HOOK_GETPEERNAME4, "kpr_getpeername4"},
	{PB_HOOK_GETPEERNAME6, "kpr_getpeername6"},
	{PB_HOOK_BIND4, "kpr_bind4"},
	{PB_HOOK_BIND6, "kpr_bind6"},
	{PB_HOOK_SOCK_RELEASE, "kpr_sock_release"},
};

int kpr_declare_object(struct pb_ctx *ctx, const struct kpr_object *object)
{
	const struct kpr *kpr = ctx->self;
	const struct pb_map_opts shared[] = {
		{.name = "kpr_services", .max_entries = kpr->config.services_max},
		{.name = "kpr_slots", .max_entries = SLOTS_PER_BACKEND * kpr->config.backends_max},
		{.name = "kpr_backends", .max_entries = kpr->config.backends_max},
		{.name = "kpr_maglev",
		 .max_entries = kpr->config.maglev_tables * kpr->config.maglev_size},
		{.name = "kpr_settings"},
		{.name = "kpr_ranges4"},
		{.name = "kpr_ranges6"},
		{.name = "kpr_flow"},
	};
	struct pb_map_opts maps[MAPS_MAX];
	uint32_t n = 0;
	struct pb_bpf_object opts = {.size = sizeof(opts),
				     .name = object->name,
				     .elf = object->elf,
				     .elf_len = object->elf_len,
				     .maps = maps};

	for (size_t i = 0; i < sizeof(shared) / sizeof(shared[0]); i++) {
		maps[n] = shared[i];
		maps[n].size = sizeof(maps[n]);
		maps[n].schema = PB_SVC_SCHEMA;
		maps[n++].flags = PB_MAP_SHARED;
	}
	for (uint32_t i = 0; i < object->n_maps && n < MAPS_MAX; i++)
		maps[n++] = object->maps[i];
	opts.n_maps = n;
	return ctx->host->bpf_object(ctx, &opts);
}

/* Hooks that the plugin goes without where the kernel has none or nothing is to be done there. */
static bool has_hook(const struct kpr_abilities *can, uint32_t hook)
{
	switch (hook) {
	case PB_HOOK_GETPEERNAME4:
	case PB_HOOK_GETPEERNAME6:
		return can->getpeername;
	case PB_HOOK_BIND4:
	case PB_HOOK_BIND6:
		return can->bind_protection;
	case PB_HOOK_SOCK_RELEASE:
		return can->sock_release;
	default:
		return true;
	}
}

static int declare_sockets(struct pb_ctx *ctx)
{
	const struct kpr *kpr = ctx->self;
	const struct pb_map_opts reverse = {.size = sizeof(reverse),
					    .schema = REVERSE_SCHEMA,
					    .name = "kpr_reverse"};
	struct kpr_object object = {.name = "kpr", .maps = &reverse, .n_maps = 1};
	int rc;

	object.elf = kpr_bpf__elf_bytes(&object.elf_len);
	rc = kpr_declare_object(ctx, &object);
	for (size_t i = 0; rc == 0 && i < sizeof(hooks) / sizeof(hooks[0]); i++) {
		struct pb_slot slot = {.size = sizeof(slot),
				       .hook = hooks[i].hook,
				       .band = PB_BAND_SERVICE,
				       .name = "kpr",
				       .object = "kpr",
				       .program = hooks[i].program};

		if (has_hook(&kpr->can, hooks[i].hook))
			rc = ctx->host->slot(ctx, &slot);
	}
	return rc;
}

/* Slots of other plugins that take flows over stand between the two of a hook. */
static const struct {
	uint32_t hook;
	const char *name;
	const char *program;
	const char *after;
} packet_slots[] = {
	{PB_HOOK_DEV_INGRESS, "kpr", "kpr_dev_ingress", NULL},
	{PB_HOOK_DEV_INGRESS, "kpr-nat", "kpr_nat_dev_ingress", "kpr"},
	{PB_HOOK_POD_EGRESS, "kpr", "kpr_pod_egress", NULL},
	{PB_HOOK_POD_EGRESS, "kpr-nat", "kpr_nat_pod_egress", "kpr"},
	{PB_HOOK_POD_INGRESS, "kpr", "kpr_pod_ingress", NULL},
	{PB_HOOK_DEV_EGRESS, "kpr", "kpr_dev_egress", NULL},
};

static int declare_packets(struct pb_ctx *ctx)
{
	/* Room to build an answer in. */
	const struct pb_map_opts replies = {.size = sizeof(replies),
					    .flags = PB_MAP_EPHEMERAL,
					    .name = "kpr_replies"};
	struct kpr_object object = {.name = "kpr-ns", .maps = &replies, .n_maps = 1};
	int rc;

	object.elf = kpr_ns_bpf__elf_bytes(&object.elf_len);
	rc = kpr_declare_object(ctx, &object);
	for (size_t i = 0; rc == 0 && i < sizeof(packet_slots) / sizeof(packet_slots[0]); i++) {
		struct pb_slot slot = {.size = sizeof(slot),
				       .hook = packet_slots[i].hook,
				       .band = PB_BAND_SERVICE,
				       .name = packet_slots[i].name,
				       .object = "kpr-ns",
				       .program = packet_slots[i].program,
				       .after = packet_slots[i].after};

		rc = ctx->host->slot(ctx, &slot);
	}
	return rc;
}

int kpr_datapath_declare(struct pb_ctx *ctx)
{
	struct kpr *kpr = ctx->self;
	const struct {
		const char *name;
		struct pb_map **map;
	} maps[] = {
		{"kpr_services", &kpr->handles.services}, {"kpr_slots", &kpr->handles.slots},
		{"kpr_backends", &kpr->handles.backends}, {"kpr_ranges4", &kpr->handles.ranges4},
		{"kpr_ranges6", &kpr->handles.ranges6},	  {"kpr_settings", &kpr->map_settings},
		{"kpr_maglev", &kpr->handles.maglev},
	};
	int rc = declare_sockets(ctx);

	if (rc == 0 && kpr->can.north_south)
		rc = declare_packets(ctx);
	for (size_t i = 0; rc == 0 && i < sizeof(maps) / sizeof(maps[0]); i++)
		rc = ctx->host->map(ctx, maps[i].name, maps[i].map);
	return rc;
}
