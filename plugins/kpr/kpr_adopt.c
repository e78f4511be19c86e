/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the maps hold at start is taken over into the model: frontends, their pools and tables, and
 * their source ranges. Writes nothing: what can't be taken over is written anew by kpr_maps.c.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "kpr_claims.h"
#include "kpr_maps.h"

void kpr_adopt_free(struct kpr_maps *w)
{
	struct kpr_found *found, *next;

	HASH_ITER (hh, w->found, found, next) {
		HASH_DEL(w->found, found);
		free(found);
	}
}

/* The pool that an entry names; NULL when the maps hold no such pool. */
static int adopt_pool(struct kpr_maps *w, const struct pb_svc *value, uint32_t id,
		      struct kpr_pool **ret_pool)
{
	struct kpr_found *found;
	int rc;

	*ret_pool = NULL;
	HASH_FIND(hh, w->found, &id, sizeof(id), found);
	if (found) {
		if (found->pool->base != value->base || found->pool->room != value->room)
			return 0;
		kpr_pool_claim(&w->store, found->pool, value->count);
		*ret_pool = found->pool;
		return 0;
	}
	found = calloc(1, sizeof(*found));
	if (!found)
		return -ENOMEM;
	rc = kpr_pool_adopt(&w->store, id, value, &found->pool);
	if (rc < 0) {
		free(found);
		return rc == -EEXIST ? 0 : rc;
	}
	found->id = id;
	HASH_ADD(hh, w->found, id, sizeof(id), found);
	*ret_pool = found->pool;
	return 0;
}

static int adopt_one(struct kpr_maps *w)
{
	struct kpr_sources *sources = NULL;
	struct kpr_pool *pool = NULL;
	struct pb_svc value;
	int rc = w->ctx->host->map_lookup(w->services, &w->adopt_at, &value);

	if (rc == 0 && value.count > 0)
		rc = adopt_pool(w, &value, pb_svc_tie(&w->adopt_at, value.tie), &pool);
	if (rc == 0 && value.flags & PB_SVC_RANGES) {
		sources = kpr_sources_get(&w->sources, value.ranges);
		rc = sources ? 0 : -ENOMEM;
	}
	if (rc < 0)
		return rc;
	/* What can't be is written anew by whoever owns the frontend now. */
	if (value.count > 0 && !pool)
		value.owner = 0;
	rc = kpr_model_adopt(w->model, &w->adopt_at, &value, pool);
	if (rc == 0 && pool)
		kpr_pool_ref(pool);
	/* A frontend whose table is another one now is written anew. */
	if (rc == 0 && pool && value.flags & PB_SVC_MAGLEV)
		kpr_tables_adopt(&w->tables, pool, value.maglev);
	if (rc == 0 && sources) {
		kpr_sources_ref(sources);
		kpr_model_front(w->model, &w->adopt_at)->sources = sources;
	}
	if (rc == 0 && value.id >= w->next_id)
		w->next_id = value.id + 1;
	if (rc == 0 && value.affinity_id >= w->next_id)
		w->next_id = value.affinity_id + 1;
	w->stats.frontends += rc == 0;
	return rc;
}

/* False: there are more. */
static bool adopt_sources(struct kpr_maps *w, uint64_t end_ns)
{
	int rc = kpr_sources_adopt(&w->sources, end_ns);

	if (rc < 0 && rc != -EAGAIN)
		w->ctx->host->log(w->ctx, PB_LOG_ERROR,
				  "source ranges in the maps can't be read (%s): those unread are "
				  "written anew",
				  strerror(-rc));
	return rc != -EAGAIN;
}

void kpr_adopt(struct kpr_maps *w, uint64_t end_ns)
{
	uint32_t done = 0;
	int rc;

	if (!w->adopt_begun && !adopt_sources(w, end_ns))
		return;
	do {
		rc = w->ctx->host->map_next(w->services, w->adopt_begun ? &w->adopt_at : NULL,
					    &w->adopt_at);
		w->adopt_begun = true;
		if (rc == 0)
			rc = adopt_one(w);
	} while (rc == 0 && (++done % 16 || w->ctx->host->now_ns() < end_ns));
	if (rc == 0)
		return;
	kpr_adopt_free(w);
	kpr_sources_adopted(&w->sources);
	kpr_model_adopted(w->model);
	if (rc != -ENOENT)
		w->ctx->host->log(w->ctx, PB_LOG_ERROR,
				  "frontends in the map can't be read (%s): those unread are "
				  "written anew",
				  strerror(-rc));
}
