/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A turn: plan some Services into a batch, write its slots, write its frontends, then note in
 * the model what is in the map. What fails is taken back and its Service tried again later.
 */
#include "kpr_maps.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A frontend as it is going to be. */
struct kpr_item {
	struct kpr_front *front;
	struct kpr_svc *svc;
	struct kpr_service value;
	bool new_range;
	bool is_new; /* not in the map before */
	bool written;
};

struct kpr_retired {
	uint64_t since_ns;
	uint32_t base;
	uint32_t n;
};

#define MS 1000000ULL
#define BATCH_SLOTS 2048
#define BATCH_ITEMS 512

static uint64_t now_ns(const struct kpr_maps *w)
{
	return w->ctx->host->now_ns();
}

/* `mem` with room for n > 0 elements; NULL without memory, `mem` is then as it was. */
static void *room(void *mem, uint32_t *cap, uint32_t n, size_t size)
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

int kpr_maps_init(struct kpr_maps *w, struct pb_ctx *ctx, struct kpr_model *model,
		  struct pb_map *services, struct pb_map *backends)
{
	struct pb_map_info info = {.size = sizeof(info)};
	int rc;

	memset(w, 0, sizeof(*w));
	w->ctx = ctx;
	w->model = model;
	w->services = services;
	w->backends = backends;
	w->next_id = 1;
	w->retry_ns = UINT64_MAX;
	rc = ctx->host->map_info(services, &info);
	w->services_max = info.max_entries;
	if (rc == 0)
		rc = ctx->host->map_info(backends, &info);
	return rc < 0 ? rc : kpr_ranges_init(&w->ranges, info.max_entries);
}

void kpr_maps_free(struct kpr_maps *w)
{
	kpr_ranges_free(&w->ranges);
	free(w->items);
	free(w->slots);
	free(w->slot_keys);
	free(w->keys);
	free(w->values);
	free(w->retired);
	memset(w, 0, sizeof(*w));
}

/* ---- taking over ---- */

static int adopt_one(struct kpr_maps *w)
{
	struct kpr_service value;
	int rc = w->ctx->host->map_lookup(w->services, &w->adopt_at, &value);

	if (rc < 0)
		return rc;
	/* A range that can't be is written anew by whoever owns the frontend now. */
	if (value.count > 0 && kpr_ranges_claim(&w->ranges, value.base, value.count) < 0) {
		value.count = 0;
		value.owner = 0;
	}
	rc = kpr_model_adopt(w->model, &w->adopt_at, &value);
	if (rc == 0 && value.id >= w->next_id)
		w->next_id = value.id + 1;
	w->stats.frontends += rc == 0;
	return rc;
}

static void adopt(struct kpr_maps *w, uint64_t end_ns)
{
	uint32_t done = 0;
	int rc;

	do {
		rc = w->ctx->host->map_next(w->services, w->adopt_begun ? &w->adopt_at : NULL,
					    &w->adopt_at);
		w->adopt_begun = true;
		if (rc == 0)
			rc = adopt_one(w);
	} while (rc == 0 && (++done % 32 || now_ns(w) < end_ns));
	if (rc == 0)
		return;
	kpr_model_adopted(w->model);
	if (rc != -ENOENT)
		w->ctx->host->log(w->ctx, PB_LOG_ERROR,
				  "frontends in the map can't be read (%s): those unread are "
				  "written anew",
				  strerror(-rc));
}

/* ---- ranges ---- */

static void retire(struct kpr_maps *w, uint32_t base, uint32_t n)
{
	struct kpr_retired *retired;

	if (n == 0)
		return;
	retired = room(w->retired, &w->cap_retired, w->n_retired + 1, sizeof(*retired));
	/* Without memory the range is lost until the next start: that harms nobody. */
	if (!retired)
		return;
	w->retired = retired;
	w->retired[w->n_retired++] = (struct kpr_retired){now_ns(w), base, n};
}

static void release_retired(struct kpr_maps *w)
{
	uint64_t now = now_ns(w);
	uint32_t i = 0;

	while (i < w->n_retired && now - w->retired[i].since_ns >= KPR_GRACE_MS * MS) {
		kpr_ranges_give(&w->ranges, w->retired[i].base, w->retired[i].n);
		i++;
	}
	w->n_retired -= i;
	if (i > 0 && w->n_retired > 0)
		memmove(w->retired, w->retired + i, w->n_retired * sizeof(*w->retired));
}

/* ---- planning ---- */

static void failed(struct kpr_maps *w, struct kpr_svc *svc, enum kpr_svc_state state,
		   const char *what)
{
	w->stats.errors++;
	if (svc->state != KPR_SVC_FULL && svc->state != KPR_SVC_FAILED) {
		w->stats.failing++;
		w->ctx->host->log(w->ctx, PB_LOG_ERROR,
				  "Service %s: %s; it stays as it was and is tried again", svc->key,
				  what);
	}
	svc->state = (uint8_t)state;
	if (w->retry_ms == 0)
		w->retry_ms = KPR_RETRY_MS;
	if (w->retry_ns == UINT64_MAX)
		w->retry_ns = now_ns(w) + w->retry_ms * MS;
}

static void set_state(struct kpr_maps *w, struct kpr_svc *svc, enum kpr_svc_state state)
{
	if (svc->state == KPR_SVC_FULL || svc->state == KPR_SVC_FAILED)
		w->stats.failing--;
	svc->state = (uint8_t)state;
}

/* The range for the slots that planning appended behind `first`. */
static int plan_range(struct kpr_maps *w, struct kpr_item *item, uint32_t first)
{
	uint32_t check = kpr_check(&item->front->key);
	uint32_t n = item->value.count;
	int rc;

	item->value.base = 0;
	if (n == 0)
		return 0;
	rc = kpr_ranges_take(&w->ranges, n, &item->value.base);
	if (rc < 0)
		return rc;
	item->new_range = true;
	for (uint32_t i = 0; i < n; i++) {
		w->slot_keys[first + i] = item->value.base + i;
		w->slots[first + i].id = item->value.id;
		w->slots[first + i].check = check;
	}
	w->n_slots = first + n;
	return 0;
}

static int plan_room(struct kpr_maps *w, uint32_t n_slots)
{
	uint32_t cap = w->cap_slots;
	struct kpr_backend *slots = room(w->slots, &cap, w->n_slots + n_slots + 1, sizeof(*slots));
	struct kpr_item *items;
	uint32_t *slot_keys;

	w->slots = slots ? slots : w->slots;
	cap = w->cap_slots;
	slot_keys = room(w->slot_keys, &cap, w->n_slots + n_slots + 1, sizeof(*slot_keys));
	w->slot_keys = slot_keys ? slot_keys : w->slot_keys;
	if (!slots || !slot_keys)
		return -ENOMEM;
	w->cap_slots = cap;
	items = room(w->items, &w->cap_items, w->n_items + 1, sizeof(*items));
	w->items = items ? items : w->items;
	return items ? 0 : -ENOMEM;
}

static int plan_claim(struct kpr_maps *w, const struct kpr_claim *claim)
{
	const struct kpr_svc *svc = claim->svc;
	const struct kpr_front *front = claim->front;
	const struct pb_service_port *port = &svc->obj->ports[claim->port];
	bool local = svc->obj->flags & PB_SERVICE_INTERNAL_LOCAL;
	bool ours = front->programmed && front->value.owner == svc->hash;
	struct kpr_item item = {.front = claim->front,
				.svc = claim->svc,
				.is_new = !front->programmed};
	int rc = plan_room(w, svc->value ? svc->value->n : 0);

	if (rc < 0)
		return rc;
	item.value.owner = svc->hash;
	item.value.flags = svc->fail_open ? KPR_SERVICE_FAIL_OPEN : 0;
	item.value.count =
		kpr_select(svc->value, &front->key, port->name, local, w->slots + w->n_slots);
	item.value.digest = kpr_digest(w->slots + w->n_slots, item.value.count);
	item.value.id = ours ? front->value.id : w->next_id++;
	if (ours && front->value.count == item.value.count &&
	    front->value.digest == item.value.digest) {
		if (front->value.flags == item.value.flags)
			return 0;
		item.value.base = front->value.base;
	} else {
		rc = plan_range(w, &item, w->n_slots);
	}
	if (rc == 0 && item.is_new && w->stats.frontends + w->n_new >= w->services_max)
		rc = -E2BIG;
	if (rc == 0)
		w->n_new += item.is_new;
	else if (item.new_range)
		kpr_ranges_give(&w->ranges, item.value.base, item.value.count);
	if (rc == 0)
		w->items[w->n_items++] = item;
	return rc;
}

/* Takes the items from `first` on back: none of their slots can be seen yet. */
static void unplan(struct kpr_maps *w, uint32_t first, uint32_t first_slot)
{
	while (w->n_items > first) {
		struct kpr_item *item = &w->items[--w->n_items];

		if (item->new_range)
			kpr_ranges_give(&w->ranges, item->value.base, item->value.count);
		w->n_new -= item->is_new;
	}
	w->n_slots = first_slot;
}

static void plan(struct kpr_maps *w, struct kpr_svc *svc)
{
	uint32_t first = w->n_items;
	uint32_t first_slot = w->n_slots;
	int rc = 0;

	if (!svc->value && (svc->withdrawn || !w->model->backends_synced)) {
		set_state(w, svc, svc->withdrawn ? KPR_SVC_FROZEN : KPR_SVC_WAITING);
		return;
	}
	for (uint32_t i = 0; i < svc->n_claims && rc == 0; i++)
		if (kpr_claim_may_write(w->model, &svc->claims[i]))
			rc = plan_claim(w, &svc->claims[i]);
	if (rc == 0) {
		set_state(w, svc, KPR_SVC_OK);
		return;
	}
	unplan(w, first, first_slot);
	if (rc == -E2BIG)
		failed(w, svc, KPR_SVC_FULL, "map of frontends full (raise services_max)");
	else if (rc == -ENOSPC)
		failed(w, svc, KPR_SVC_FULL, "map of backends full (raise backends_max)");
	else
		failed(w, svc, KPR_SVC_FAILED, strerror(-rc));
}

/* ---- writing ---- */

static void item_written(struct kpr_maps *w, struct kpr_item *item)
{
	struct kpr_front *front = item->front;

	if (front->programmed && front->value.base != item->value.base)
		retire(w, front->value.base, front->value.count);
	else if (front->programmed && item->value.count == 0)
		retire(w, front->value.base, front->value.count);
	w->stats.frontends += !front->programmed;
	front->programmed = true;
	front->adopted = false;
	front->value = item->value;
	item->written = true;
}

static void item_failed(struct kpr_maps *w, struct kpr_item *item, int rc)
{
	if (item->new_range)
		kpr_ranges_give(&w->ranges, item->value.base, item->value.count);
	failed(w, item->svc, rc == -E2BIG ? KPR_SVC_FULL : KPR_SVC_FAILED, strerror(-rc));
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
		retire(w, item->value.base, item->value.count);
	}
}

static int write_slots(struct kpr_maps *w)
{
	uint32_t done = 0;
	int rc = 0;

	if (w->n_slots > 0)
		rc = w->ctx->host->map_update_batch(w->backends, w->slot_keys, w->slots, w->n_slots,
						    PB_MAP_ANY, &done);
	w->stats.writes += done;
	return rc;
}

static int batch_room(struct kpr_maps *w)
{
	uint32_t cap = w->cap_keys;
	struct kpr_key *keys = room(w->keys, &cap, w->n_items + 1, sizeof(*keys));
	struct kpr_service *values;

	w->keys = keys ? keys : w->keys;
	cap = w->cap_keys;
	values = room(w->values, &cap, w->n_items + 1, sizeof(*values));
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
			item_failed(w, &w->items[at++], rc);
	}
	take_back_halves(w);
	return 0;
}

static void commit(struct kpr_maps *w)
{
	int rc = write_slots(w);

	if (rc == 0)
		rc = write_services(w);
	for (uint32_t i = 0; rc < 0 && i < w->n_items; i++)
		item_failed(w, &w->items[i], rc);
	w->n_items = 0;
	w->n_slots = 0;
	w->n_new = 0;
}

static void delete_gone(struct kpr_maps *w, uint64_t end_ns)
{
	struct kpr_front *front;

	w->delete_failed = false;
	while ((front = w->model->gone) && now_ns(w) < end_ns) {
		int rc = w->ctx->host->map_delete(w->services, &front->key);

		if (rc < 0 && rc != -ENOENT) {
			w->stats.errors++;
			w->ctx->host->log(w->ctx, PB_LOG_ERROR,
					  "a frontend can't be deleted (%s); trying again",
					  strerror(-rc));
			w->retry_ms = w->retry_ms ? w->retry_ms : KPR_RETRY_MS;
			w->retry_ns = now_ns(w) + w->retry_ms * MS;
			w->delete_failed = true;
			return;
		}
		w->stats.writes++;
		w->stats.frontends--;
		retire(w, front->value.base, front->value.count);
		kpr_model_deleted(w->model, front);
		/* There is room now for who found none. */
		if (w->stats.failing > 0)
			w->retry_ns = now_ns(w);
	}
}

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

uint64_t kpr_maps_run(struct kpr_maps *w, uint64_t turn_ns)
{
	uint64_t end_ns = now_ns(w) + turn_ns;
	struct kpr_svc *svc;
	uint64_t now;

	if (!w->model->adopted)
		adopt(w, end_ns);
	if (!w->model->adopted)
		return 0;
	release_retired(w);
	delete_gone(w, end_ns);
	retry_failed(w);
	while (now_ns(w) < end_ns && (svc = kpr_model_next_dirty(w->model))) {
		plan(w, svc);
		if (w->n_slots >= BATCH_SLOTS || w->n_items >= BATCH_ITEMS)
			commit(w);
	}
	commit(w);
	now = now_ns(w);
	if (w->model->dirty || (w->model->gone && !w->delete_failed))
		return 0;
	return w->retry_ns == UINT64_MAX ? UINT64_MAX : w->retry_ns > now ? w->retry_ns - now : 0;
}
