/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Brings the maps in line with the model, in turns of bounded time.
 *
 * Owns the order of writes: slots first, then the frontend that points to them, and a range is
 * used again only after a grace period. A Service is written whole or not at all; one that does
 * not fit stays as it was and is tried again. Never deletes a frontend to make room.
 */
#ifndef KPR_MAPS_H
#define KPR_MAPS_H

#include <patchbay/plugin.h>

#include "kpr_model.h"
#include "kpr_ranges.h"

/* No program reads a range this long after its frontend stopped pointing to it. */
#define KPR_GRACE_MS 200
#define KPR_RETRY_MS 1000
#define KPR_RETRY_MAX_MS 30000

struct kpr_item;
struct kpr_retired;

struct kpr_stats {
	uint64_t writes; /* entries written or deleted, both maps */
	uint64_t errors;
	uint32_t frontends; /* in the map */
	uint32_t failing;   /* Services that could not be written */
};

struct kpr_maps {
	struct pb_ctx *ctx;
	struct kpr_model *model;
	struct pb_map *services;
	struct pb_map *backends;
	struct kpr_ranges ranges;
	uint32_t services_max;
	uint32_t next_id;
	struct kpr_stats stats;
	struct kpr_key adopt_at; /* the last one adopted */
	bool adopt_begun;
	/* One turn's writes. */
	struct kpr_item *items;
	uint32_t n_items;
	uint32_t cap_items;
	uint32_t n_new; /* items that are not in the map yet */
	struct kpr_backend *slots;
	uint32_t *slot_keys;
	uint32_t n_slots;
	uint32_t cap_slots;
	struct kpr_key *keys;
	struct kpr_service *values;
	uint32_t cap_keys;
	/* Ranges that wait for their grace period, oldest first. */
	struct kpr_retired *retired;
	uint32_t n_retired;
	uint32_t cap_retired;
	uint64_t retry_ns; /* when what failed is tried again; UINT64_MAX: nothing failed */
	uint64_t retry_ms; /* how long to wait then */
	bool delete_failed;
};

/* Not before restore(): reads the size of the maps. Free with kpr_maps_free() in any case. */
int kpr_maps_init(struct kpr_maps *w, struct pb_ctx *ctx, struct kpr_model *model,
		  struct pb_map *services, struct pb_map *backends);
void kpr_maps_free(struct kpr_maps *w);

/*
 * Works until `turn_ns` have passed: first takes over what the maps hold, then writes what the
 * model wants. Returns the nanoseconds after which it wants to run again: 0 when there is more
 * to do, UINT64_MAX when there is nothing.
 */
uint64_t kpr_maps_run(struct kpr_maps *w, uint64_t turn_ns);

#endif
