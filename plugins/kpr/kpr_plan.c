/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One Service: which of its frontends change, and what besides its pools (kpr_plan_pools.c) they
 * need. All of it is planned before anything is applied: a Service that has no room stays as it
 * was.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "kpr_maps.h"

/*
 * What the frontend is to be. Sockets know it by its id, which outlives any change of its Service;
 * nothing that was remembered about clients outlives affinity that was switched off.
 */
static struct pb_svc value_of(const struct kpr_maps *w, const struct kpr_claim *claim)
{
	const struct kpr_svc *svc = claim->svc;
	const struct kpr_front *front = claim->front;
	const struct kpr_pool *pool = claim->port->pool;
	bool same = front->programmed && front->value.owner == svc->hash;
	struct pb_svc value = {.id = same ? front->value.id : w->next_id,
			       .flags = claim->flags | (svc->fail_open ? PB_SVC_FAIL_OPEN : 0),
			       .owner = svc->hash,
			       .affinity_s = svc->affinity_s};

	if (svc->affinity_s > 0)
		value.affinity_id =
			same && front->value.affinity_s > 0 ? front->value.affinity_id : w->next_id;
	if (claim->flags & PB_SVC_RANGES)
		value.ranges = svc->sources->number;
	if (claim->flags & PB_SVC_LOCAL && !pool && claim->port->n[KPR_USE_REMOTE] > 0)
		value.flags |= PB_SVC_ELSEWHERE;
	if (pool) {
		value.tie = pb_svc_tie(&front->key, pool->id);
		value.base = pool->base;
		value.count = pool->count;
		value.room = pool->room;
	}
	if (pool && pool->table)
		value.maglev =
			claim->flags & PB_SVC_MAGLEV ? kpr_table_first(&w->tables, pool->table) : 0;
	else
		value.flags &= ~PB_SVC_MAGLEV;
	return value;
}

/* False when the frontend is in the map as it should be. */
static bool plan_item(struct kpr_maps *w, const struct kpr_claim *claim, struct kpr_item *ret_item)
{
	struct kpr_front *front = claim->front;
	struct pb_svc value = value_of(w, claim);

	if (front->programmed && memcmp(&value, &front->value, sizeof(value)) == 0)
		return false;
	w->next_id += value.id == w->next_id || value.affinity_id == w->next_id;
	*ret_item = (struct kpr_item){.front = front,
				      .svc = claim->svc,
				      .pool = claim->port->pool,
				      .sources = claim->flags & PB_SVC_RANGES ? claim->svc->sources
									      : NULL,
				      .value = value,
				      .is_new = !front->programmed};
	return true;
}

/* The entries with scope EXT first: those that speak of them come behind them. */
static void plan_items(struct kpr_maps *w, struct kpr_svc *svc, uint32_t scope)
{
	for (uint32_t i = 0; i < svc->n_claims; i++) {
		const struct kpr_claim *claim = &svc->claims[i];

		if (claim->front->key.scope != scope || !kpr_claim_may_write(w->model, claim) ||
		    !plan_item(w, claim, &w->items[w->n_items]))
			continue;
		w->n_new += w->items[w->n_items].is_new;
		w->n_items++;
	}
}

/* ---- source ranges ---- */

/* The set that the Service's frontends had at the restart, if it is still what it wants. */
static struct kpr_sources *adopted_sources(const struct kpr_svc *svc)
{
	for (uint32_t i = 0; i < svc->n_claims; i++) {
		const struct kpr_front *front = svc->claims[i].front;

		if (svc->claims[i].flags & PB_SVC_RANGES && front->sources &&
		    !front->sources->wanted && front->value.owner == svc->hash &&
		    kpr_sources_equal(front->sources, svc->obj))
			return front->sources;
	}
	return NULL;
}

static bool wants_sources(const struct kpr_maps *w, const struct kpr_svc *svc)
{
	for (uint32_t i = 0; i < svc->n_claims; i++)
		if (svc->claims[i].flags & PB_SVC_RANGES &&
		    kpr_claim_may_write(w->model, &svc->claims[i]))
			return true;
	return false;
}

static int plan_sources(struct kpr_maps *w, struct kpr_svc *svc)
{
	struct kpr_sources *set = NULL;
	int rc = 0;

	if (wants_sources(w, svc)) {
		if (svc->sources && kpr_sources_equal(svc->sources, svc->obj))
			return 0;
		set = adopted_sources(svc);
		if (set)
			set->wanted = true;
		else
			rc = kpr_sources_write(&w->sources, svc->obj, &set);
	}
	if (rc < 0)
		return rc;
	kpr_sources_unwanted(&w->sources, svc->sources, w->ctx->host->now_ns());
	svc->sources = set;
	return 0;
}

/* ---- Maglev ---- */

static void no_table(struct kpr_maps *w, const struct kpr_svc *svc)
{
	if (!w->tables_said)
		w->ctx->host->log(w->ctx, PB_LOG_WARN,
				  "Service %s: no room for a Maglev table: its backends and those "
				  "of Services that follow are chosen at random (raise "
				  "maglev.tables_max; service list)",
				  svc->key);
	w->tables_said = true;
}

/* A table for each pool of which a frontend wants one, as long as there is room. */
static void plan_tables(struct kpr_maps *w, struct kpr_svc *svc)
{
	struct kpr_port *port;
	uint32_t first;

	LL_FOREACH (svc->ports, port)
		port->maglev = false;
	for (uint32_t i = 0; i < svc->n_claims; i++)
		if (svc->claims[i].flags & PB_SVC_MAGLEV &&
		    kpr_claim_may_write(w->model, &svc->claims[i]))
			svc->claims[i].port->maglev = true;
	LL_FOREACH (svc->ports, port) {
		if (!port->pool)
			continue;
		if (!port->maglev)
			kpr_tables_drop(&w->tables, port->pool);
		else if (!kpr_tables_want(&w->tables, port->pool, &first))
			no_table(w, svc);
	}
}

/* ---- all of it ---- */

static uint32_t count_new(const struct kpr_maps *w, const struct kpr_svc *svc)
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < svc->n_claims; i++)
		n += !svc->claims[i].front->programmed &&
		     kpr_claim_may_write(w->model, &svc->claims[i]);
	return n;
}

/* Room for all frontends of the Service, in the map and among the items. */
static int frontends_room(struct kpr_maps *w, const struct kpr_svc *svc)
{
	uint32_t n_new = count_new(w, svc);
	struct kpr_item *items;

	if (n_new > 0 && w->stats.frontends + w->n_new + n_new > w->services_max)
		return -E2BIG;
	items = kpr_room(w->items, &w->cap_items, w->n_items + svc->n_claims + 1, sizeof(*items));
	if (!items)
		return -ENOMEM;
	w->items = items;
	return 0;
}

static void set_state(struct kpr_maps *w, struct kpr_svc *svc, enum kpr_svc_state state)
{
	if (svc->state == KPR_SVC_FULL || svc->state == KPR_SVC_FAILED)
		w->stats.failing--;
	svc->state = (uint8_t)state;
}

/* What was planned of it is undone; whatever is in the maps stays. */
static void give_up(struct kpr_maps *w, struct kpr_svc *svc, int rc)
{
	struct kpr_scratch *s = &w->scratch;
	struct kpr_port *port;

	while (s->n_updates > 0)
		kpr_update_cancel(&w->store, &s->updates[--s->n_updates]);
	LL_FOREACH (svc->ports, port) {
		struct kpr_pool *pool = port->pool;

		if (!pool || pool->refs > 0 || pool->count > 0)
			continue;
		port->pool = NULL;
		pool->port = NULL;
		kpr_pool_free(&w->store, pool);
	}
	kpr_changes_drop(svc);
	kpr_failed(w, svc, rc);
}

void kpr_plan(struct kpr_maps *w, struct kpr_svc *svc)
{
	int rc = kpr_model_refresh(w->model, svc);

	if (rc < 0) {
		kpr_failed(w, svc, rc);
		return;
	}
	if (!svc->head && (svc->withdrawn || !w->model->backends_synced)) {
		set_state(w, svc, svc->withdrawn ? KPR_SVC_FROZEN : KPR_SVC_WAITING);
		return;
	}
	/* The head that is on its way makes it dirty again. */
	if (!kpr_model_whole(svc))
		return;
	rc = frontends_room(w, svc);
	if (rc == 0)
		rc = plan_sources(w, svc);
	if (rc == 0)
		rc = kpr_plan_pools(w, svc);
	if (rc < 0) {
		give_up(w, svc, rc);
		return;
	}
	kpr_pools_apply(w);
	kpr_pools_done(w, svc);
	plan_tables(w, svc);
	plan_items(w, svc, PB_SVC_SCOPE_EXT);
	plan_items(w, svc, PB_SVC_SCOPE_INT);
	set_state(w, svc, KPR_SVC_OK);
}
