/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A turn: plan some Services, which changes their pools and collects their frontends, write the
 * frontends, then note in the model what is in the map. What fails is taken back and its Service
 * tried again later.
 */
#include "kpr_maps.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include <utlist.h>

#define MS 1000000ULL
#define BATCH_ITEMS 512

static uint64_t now_ns(const struct kpr_maps *w)
{
	return w->ctx->host->now_ns();
}

void *kpr_room(void *mem, uint32_t *cap, uint32_t n, size_t size)
{
	uint32_t want = *cap ? *cap : 64;

	if (n <= *cap)
		return mem;
	while (want < n)
		want *= 2;
	mem = realloc(mem, want * size);
	if (mem)
		*cap = want;
	return mem;
}

static int map_array(struct pb_ctx *ctx, struct pb_map *map, uint32_t value_size, void **ret_memory,
		     uint32_t *ret_max)
{
	struct pb_map_info info = {.size = sizeof(info)};
	size_t len = 0;
	int rc = ctx->host->map_info(map, &info);

	if (rc == 0 && !PB_HOST_HAS(ctx->host, map_memory))
		rc = -EOPNOTSUPP;
	if (rc == 0)
		rc = ctx->host->map_memory(map, ret_memory, &len);
	if (rc == 0 && (info.value_size != value_size || len / value_size < info.max_entries))
		rc = -EINVAL;
	*ret_max = info.max_entries;
	return rc;
}

static void say_uneven(void *arg, const struct kpr_pool *pool, uint32_t backends)
{
	const struct kpr_maps *w = arg;

	w->ctx->host->log(
		w->ctx, PB_LOG_WARN,
		"Service %s: %u backends are many for a Maglev table of %u elements: their "
		"shares are uneven and more flows move with a change (raise "
		"maglev.table_size)",
		pool->port ? kpr_port_svc(pool->port)->key : "?", backends, w->tables.opts.size);
}

static int init_tables(struct kpr_maps *w, struct pb_map *map, uint32_t size, const uint8_t *seed)
{
	struct kpr_tables_opts opts = {.size = size,
				       .now_ns = w->ctx->host->now_ns,
				       .uneven = say_uneven,
				       .arg = w};
	void *memory = NULL;
	uint32_t n = 0;
	int rc = map_array(w->ctx, map, sizeof(struct pb_svc_slot), &memory, &n);

	memcpy(opts.seed, seed, sizeof(opts.seed));
	return rc < 0 ? rc : kpr_tables_init(&w->tables, &opts, &w->store, memory, n);
}

int kpr_maps_init(struct kpr_maps *w, struct pb_ctx *ctx, struct kpr_model *model,
		  const struct kpr_handles *handles, uint32_t maglev_size,
		  const uint8_t maglev_seed[KPR_MAGLEV_SEED_LEN])
{
	struct pb_map_info info = {.size = sizeof(info)};
	void *slot_memory = NULL, *backend_memory = NULL;
	uint32_t n_slots = 0, n_backends = 0;
	int rc;

	memset(w, 0, sizeof(*w));
	w->ctx = ctx;
	w->model = model;
	w->services = handles->services;
	kpr_sources_init(&w->sources, ctx, handles->ranges4, handles->ranges6);
	w->next_id = 1;
	w->retry_ns = UINT64_MAX;
	rc = ctx->host->map_info(handles->services, &info);
	w->services_max = info.max_entries;
	if (rc == 0)
		rc = map_array(ctx, handles->slots, sizeof(struct pb_svc_slot), &slot_memory,
			       &n_slots);
	if (rc == 0)
		rc = map_array(ctx, handles->backends, sizeof(struct pb_svc_backend),
			       &backend_memory, &n_backends);
	if (rc == 0)
		rc = kpr_store_init(&w->store, slot_memory, n_slots, backend_memory, n_backends);
	if (rc == 0)
		rc = init_tables(w, handles->maglev, maglev_size, maglev_seed);
	/* Without entropy, early at boot, the clock has to do. */
	if (rc == 0 && getrandom(&w->store.seed, sizeof(w->store.seed), GRND_NONBLOCK) < 0)
		w->store.seed = now_ns(w);
	return rc;
}

void kpr_maps_free(struct kpr_maps *w)
{
	kpr_adopt_free(w);
	kpr_tables_free(&w->tables);
	kpr_store_free(&w->store);
	kpr_sources_free(&w->sources);
	kpr_scratch_free(&w->scratch);
	free(w->items);
	free(w->keys);
	free(w->values);
	memset(w, 0, sizeof(*w));
}

/* ---- what fails ---- */

static void retry_later(struct kpr_maps *w)
{
	w->retry_ms = w->retry_ms ? w->retry_ms : KPR_RETRY_MS;
	if (w->retry_ns == UINT64_MAX)
		w->retry_ns = now_ns(w) + w->retry_ms * MS;
}

void kpr_failed(struct kpr_maps *w, struct kpr_svc *svc, int rc)
{
	bool full = rc == -E2BIG || rc == -ENOSPC || rc == -EDQUOT;
	bool failed = svc->state == KPR_SVC_FULL || svc->state == KPR_SVC_FAILED;

	w->stats.errors++;
	w->stats.failing += !failed;
	if (!failed && full) {
		struct kpr_full *map = rc == -E2BIG    ? &w->full_frontends
				       : rc == -EDQUOT ? &w->full_sources
						       : &w->full_backends;

		if (map->n++ == 0)
			snprintf(map->first, sizeof(map->first), "%s", svc->key);
	} else if (!failed) {
		w->ctx->host->log(w->ctx, PB_LOG_ERROR,
				  "Service %s: %s; it stays as it was and is tried again", svc->key,
				  strerror(-rc));
	}
	svc->state = full ? KPR_SVC_FULL : KPR_SVC_FAILED;
	retry_later(w);
}

/* One line for all Services of a turn, or of the whole backlog: there may be thousands. */
static void report_full(struct kpr_maps *w, struct kpr_full *map, const char *what)
{
	if (map->n > 0 && !map->said) {
		w->ctx->host->log(
			w->ctx, PB_LOG_ERROR,
			"%s: no room for %u Service%s, the first is %s; they and those that "
			"follow stay as they were and are tried again (service list)",
			what, map->n, map->n == 1 ? "" : "s", map->first);
		map->said = true;
	}
	map->n = 0;
}

static void report_room(struct kpr_maps *w)
{
	report_full(w, &w->full_frontends, "map of frontends full (raise services_max)");
	report_full(w, &w->full_backends, "map of backends full (raise backends_max)");
	report_full(w, &w->full_sources, "map of source ranges full");
	if (w->stats.failing > 0 ||
	    (!w->full_frontends.said && !w->full_backends.said && !w->full_sources.said))
		return;
	w->ctx->host->log(w->ctx, PB_LOG_INFO, "all Services have room again");
	w->full_frontends.said = w->full_backends.said = w->full_sources.said = false;
}

/* ---- writing ---- */

/* What the map names from now on, and no more. `item`: NULL when the frontend is out of it. */
static void front_now(struct kpr_maps *w, struct kpr_front *front, const struct kpr_item *item)
{
	struct kpr_pool *old = front->pool;
	struct kpr_sources *old_sources = front->sources;
	uint32_t old_base = front->value.base;

	front->pool = item ? item->pool : NULL;
	front->sources = item ? item->sources : NULL;
	if (front->pool)
		kpr_pool_ref(front->pool);
	if (front->sources)
		kpr_sources_ref(front->sources);
	if (item)
		front->value = item->value;
	if (old)
		kpr_pool_unref(&w->store, old, old_base);
	if (old_sources)
		kpr_sources_unref(&w->sources, old_sources, now_ns(w));
}

static void item_written(struct kpr_maps *w, struct kpr_item *item)
{
	struct kpr_front *front = item->front;

	w->stats.frontends += !front->programmed;
	front_now(w, front, item);
	front->programmed = true;
	front->adopted = false;
	item->written = true;
}

static void item_failed(struct kpr_maps *w, struct kpr_item *item, int rc)
{
	kpr_changes_drop(item->svc);
	kpr_failed(w, item->svc, rc);
}

/*
 * The Service's other frontends that follow stay as they were: one that speaks of an entry with
 * scope EXT must not be written without it. Returns where the next Service's begin.
 */
static uint32_t service_failed(struct kpr_maps *w, uint32_t at, int rc)
{
	const struct kpr_svc *svc = w->items[at].svc;

	item_failed(w, &w->items[at], rc);
	while (at < w->n_items && w->items[at].svc == svc)
		at++;
	return at;
}

/* A Service of which one frontend failed loses those of this batch that it never had before. */
static void take_back_halves(struct kpr_maps *w)
{
	for (uint32_t i = 0; i < w->n_items; i++) {
		struct kpr_item *item = &w->items[i];

		if (!item->written || !item->is_new || item->svc->state == KPR_SVC_OK ||
		    w->ctx->host->map_delete(w->services, &item->front->key) < 0)
			continue;
		item->front->programmed = false;
		w->stats.frontends--;
		front_now(w, item->front, NULL);
	}
}

static int batch_room(struct kpr_maps *w)
{
	uint32_t cap = w->cap_keys;
	struct pb_svc_key *keys = kpr_room(w->keys, &cap, w->n_items + 1, sizeof(*keys));
	struct pb_svc *values;

	w->keys = keys ? keys : w->keys;
	cap = w->cap_keys;
	values = kpr_room(w->values, &cap, w->n_items + 1, sizeof(*values));
	w->values = values ? values : w->values;
	if (!keys || !values)
		return -ENOMEM;
	w->cap_keys = cap;
	return 0;
}

static int write_services(struct kpr_maps *w)
{
	uint32_t at = 0;
	int rc = batch_room(w);

	if (rc < 0)
		return rc;
	for (uint32_t i = 0; i < w->n_items; i++) {
		w->keys[i] = w->items[i].front->key;
		w->values[i] = w->items[i].value;
	}
	while (at < w->n_items) {
		uint32_t done = 0;

		rc = w->ctx->host->map_update_batch(w->services, w->keys + at, w->values + at,
						    w->n_items - at, PB_MAP_ANY, &done);
		w->stats.writes += done;
		for (uint32_t end = at + done; at < end; at++)
			item_written(w, &w->items[at]);
		if (rc < 0 && at < w->n_items)
			at = service_failed(w, at, rc);
	}
	take_back_halves(w);
	return 0;
}

/* The order of things: whatever the frontends name was stored while they were planned. */
static void commit(struct kpr_maps *w)
{
	int rc = w->n_items > 0 ? write_services(w) : 0;

	for (uint32_t i = 0; rc < 0 && i < w->n_items; i++)
		item_failed(w, &w->items[i], rc);
	w->n_items = 0;
	w->n_new = 0;
	kpr_store_unnamed(&w->store, now_ns(w));
}

static int delete_front(struct kpr_maps *w, struct kpr_front *front)
{
	int rc = w->ctx->host->map_delete(w->services, &front->key);

	if (rc < 0 && rc != -ENOENT)
		return rc;
	w->stats.writes++;
	w->stats.frontends--;
	front_now(w, front, NULL);
	return 0;
}

static void delete_failed(struct kpr_maps *w, int rc)
{
	w->stats.errors++;
	if (!w->delete_said)
		w->ctx->host->log(w->ctx, PB_LOG_ERROR,
				  "a frontend can't be deleted (%s); trying again", strerror(-rc));
	w->delete_said = true;
	w->retry_ns = UINT64_MAX;
	retry_later(w);
	w->delete_failed = true;
}

/*
 * Those with scope EXT wait, at the end of the list, until the entries that speak of them have been
 * written: packets from outside must not miss both.
 */
static void delete_gone(struct kpr_maps *w, uint64_t end_ns, uint32_t last_scope)
{
	struct kpr_front *front;

	while ((front = w->model->gone) && front->key.scope <= last_scope && !w->delete_failed &&
	       now_ns(w) < end_ns) {
		int rc = delete_front(w, front);

		if (rc < 0) {
			delete_failed(w, rc);
			return;
		}
		kpr_model_deleted(w->model, front);
		w->delete_said = false;
		/* There is room now for who found none. */
		if (w->stats.failing > 0)
			w->retry_ns = now_ns(w);
	}
}

void kpr_maps_take_back(struct kpr_maps *w)
{
	struct kpr_front *front;

	for (front = w->model->fronts; front; front = front->hh.next)
		if (front->programmed && delete_front(w, front) == 0)
			front->programmed = false;
}

/* ---- a turn ---- */

static void retry_failed(struct kpr_maps *w)
{
	struct kpr_svc *svc;

	if (now_ns(w) < w->retry_ns)
		return;
	w->retry_ns = UINT64_MAX;
	w->stats.failing = 0;
	for (svc = w->model->svcs; svc; svc = svc->hh.next) {
		if (!svc->obj || (svc->state != KPR_SVC_FULL && svc->state != KPR_SVC_FAILED))
			continue;
		w->stats.failing++;
		kpr_model_dirty(w->model, svc);
	}
	w->retry_ms = w->stats.failing > 0 ? 2 * w->retry_ms : 0;
	if (w->retry_ms > KPR_RETRY_MAX_MS)
		w->retry_ms = KPR_RETRY_MAX_MS;
}

static void free_unwanted(struct kpr_maps *w)
{
	struct kpr_sources *sources;
	struct kpr_pool *pool;

	while ((pool = w->model->unwanted)) {
		LL_DELETE(w->model->unwanted, pool);
		kpr_pool_free(&w->store, pool);
	}
	while ((sources = w->model->unwanted_sources)) {
		LL_DELETE(w->model->unwanted_sources, sources);
		kpr_sources_unwanted(&w->sources, sources, now_ns(w));
	}
}

/* A table is free again: those that found none are planned anew. */
static void retry_tables(struct kpr_maps *w)
{
	struct kpr_svc *svc;
	struct kpr_port *port;

	if (!kpr_tables_room_again(&w->tables))
		return;
	for (svc = w->model->svcs; svc; svc = svc->hh.next)
		LL_FOREACH (svc->ports, port)
			if (svc->obj && port->maglev && port->pool && !port->pool->table)
				kpr_model_dirty(w->model, svc);
}

static void report_tables(struct kpr_maps *w)
{
	if (!w->tables_said || w->tables.refused)
		return;
	w->ctx->host->log(w->ctx, PB_LOG_INFO, "all Services have their Maglev tables again");
	w->tables_said = false;
}

static uint64_t until_retry(const struct kpr_maps *w)
{
	uint64_t now = now_ns(w);

	if (w->retry_ns == UINT64_MAX)
		return UINT64_MAX;
	return w->retry_ns > now ? w->retry_ns - now : 0;
}

uint64_t kpr_maps_run(struct kpr_maps *w, uint64_t turn_ns)
{
	uint64_t now = now_ns(w);
	uint64_t end_ns = turn_ns > UINT64_MAX - now ? UINT64_MAX : now + turn_ns;
	uint64_t tables_ns, retry_ns;
	struct kpr_svc *svc;

	free_unwanted(w);
	if (!w->model->adopted)
		kpr_adopt(w, end_ns);
	if (!w->model->adopted)
		return 0;
	kpr_store_release(&w->store, now);
	kpr_sources_release(&w->sources, now, KPR_GRACE_MS * MS);
	w->delete_failed = false;
	delete_gone(w, end_ns, PB_SVC_SCOPE_INT);
	retry_failed(w);
	retry_tables(w);
	while (now_ns(w) < end_ns && (svc = kpr_model_next_dirty(w->model))) {
		kpr_plan(w, svc);
		if (w->n_items >= BATCH_ITEMS)
			commit(w);
	}
	/* A new frontend finds its table in place if time allows. */
	tables_ns = kpr_tables_run(&w->tables, end_ns);
	commit(w);
	if (!w->model->dirty) {
		kpr_model_sweep(w->model);
		delete_gone(w, end_ns, PB_SVC_SCOPE_EXT);
		kpr_store_unnamed(&w->store, now_ns(w));
	}
	if (w->model->dirty || (w->model->gone && !w->delete_failed))
		return 0;
	report_room(w);
	report_tables(w);
	retry_ns = until_retry(w);
	return tables_ns < retry_ns ? tables_ns : retry_ns;
}
