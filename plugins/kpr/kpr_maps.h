/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Brings the maps in line with the model, in turns of bounded time.
 *
 * Owns the order of writes: backends, slots and source ranges first, then the frontends that name
 * them, and what nobody names any more is used again only after a grace period. A Service is
 * written whole or not at all; one that does not fit stays as it was and is tried again. Never
 * deletes a frontend to make room.
 */
#ifndef KPR_MAPS_H
#define KPR_MAPS_H

#include <patchbay/plugin.h>

#include "kpr_model.h"
#include "kpr_pools.h"
#include "kpr_sources.h"
#include "kpr_tables.h"

#define KPR_RETRY_MS 1000
#define KPR_RETRY_MAX_MS 30000

/* A frontend as it is going to be. */
struct kpr_item {
	struct kpr_front *front;
	struct kpr_svc *svc;
	struct kpr_pool *pool;
	struct kpr_sources *sources;
	struct pb_svc value;
	bool is_new; /* not in the map before */
	bool written;
};

/* A pool found in the maps at start, by its id. */
struct kpr_found {
	UT_hash_handle hh;
	struct kpr_pool *pool;
	uint32_t id;
};

/* What planning works with; as large as the largest Service of a turn. */
struct kpr_scratch {
	struct kpr_update *updates;
	uint32_t n_updates;
	uint32_t cap_updates;
	struct pb_svc_backend *adds;
	uint32_t n_adds;
	uint32_t cap_adds;
	uint32_t *removes;
	uint32_t n_removes;
	uint32_t cap_removes;
	uint64_t *seen; /* a bit per position of a pool */
	uint32_t cap_seen;
};

struct kpr_stats {
	uint64_t writes; /* frontends written or deleted */
	uint64_t errors;
	uint32_t frontends; /* in the map */
	uint32_t failing;   /* Services that could not be written */
};

/* A map that was found full. */
struct kpr_full {
	uint32_t n; /* Services without room since the last turn */
	bool said;  /* in the log, once until all Services have room */
	char first[128];
};

struct kpr_maps {
	struct pb_ctx *ctx;
	struct kpr_model *model;
	struct pb_map *services;
	struct kpr_store store;
	struct kpr_source_maps sources;
	struct kpr_tables tables;
	bool tables_said; /* that there is no room, once until there is */
	uint32_t services_max;
	uint32_t next_id;
	struct kpr_stats stats;
	struct kpr_full full_frontends;
	struct kpr_full full_backends;
	struct kpr_full full_sources;
	struct pb_svc_key adopt_at; /* the last one adopted */
	struct kpr_found *found;    /* as long as frontends are being adopted */
	bool adopt_begun;
	struct kpr_scratch scratch;
	/* One turn's frontends. */
	struct kpr_item *items;
	uint32_t n_items;
	uint32_t cap_items;
	uint32_t n_new; /* items that are not in the map yet */
	struct pb_svc_key *keys;
	struct pb_svc *values;
	uint32_t cap_keys;
	uint64_t retry_ns; /* when what failed is tried again; UINT64_MAX: nothing failed */
	uint64_t retry_ms; /* how long to wait then */
	bool delete_failed;
	bool delete_said;
};

struct kpr_handles {
	struct pb_map *services;
	struct pb_map *slots;
	struct pb_map *backends;
	struct pb_map *ranges4;
	struct pb_map *ranges6;
	struct pb_map *maglev;
};

/*
 * Not before restore(): maps the arrays and reads their sizes. -EOPNOTSUPP: the host can't map
 * them. Free with kpr_maps_free() in any case, behind the model.
 */
int kpr_maps_init(struct kpr_maps *w, struct pb_ctx *ctx, struct kpr_model *model,
		  const struct kpr_handles *handles, uint32_t maglev_size,
		  const uint8_t maglev_seed[KPR_MAGLEV_SEED_LEN]);
void kpr_maps_free(struct kpr_maps *w);

/*
 * Works until `turn_ns` have passed: first takes over what the maps hold, then writes what the
 * model wants. Returns the nanoseconds after which it wants to run again: 0 when there is more
 * to do, UINT64_MAX when there is nothing.
 */
uint64_t kpr_maps_run(struct kpr_maps *w, uint64_t turn_ns);
/* Deletes every frontend that this generation wrote: it was called off before it began. */
void kpr_maps_take_back(struct kpr_maps *w);

/* ---- between kpr_maps.c, kpr_adopt.c, kpr_plan.c and kpr_plan_pools.c ---- */

/* `mem` with room for n > 0 elements; NULL without memory, `mem` is then as it was. */
void *kpr_room(void *mem, uint32_t *cap, uint32_t n, size_t size);
/* Notes that the Service can't be written now, and when it is tried again. */
void kpr_failed(struct kpr_maps *w, struct kpr_svc *svc, int rc);
/*
 * Changes the Service's pools and appends its frontends that have to be written to the items; or,
 * when something has no room, does neither and notes that it failed.
 */
void kpr_plan(struct kpr_maps *w, struct kpr_svc *svc);
void kpr_scratch_free(struct kpr_scratch *s);
/* Goes on taking over what the maps hold, until `end_ns` or the model says that it is done. */
void kpr_adopt(struct kpr_maps *w, uint64_t end_ns);
void kpr_adopt_free(struct kpr_maps *w);
/* Plans the updates of the Service's pools; nothing is stored yet. */
int kpr_plan_pools(struct kpr_maps *w, struct kpr_svc *svc);
void kpr_pools_apply(struct kpr_maps *w);
/* Behind kpr_pools_apply(): notes what the pools hold now. */
void kpr_pools_done(struct kpr_maps *w, struct kpr_svc *svc);

#endif
