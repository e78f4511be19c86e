/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the pools of one Service have to gain and lose.
 *
 * A pool whose content is known gets the changes that were noted; any other is compared with all
 * parts. All updates are planned before the first is applied.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

#include "kpr_claims.h"
#include "kpr_maps.h"

/* What a turn's largest Service needed is kept up to this; elements. */
#define SCRATCH_KEEP 4096

void kpr_scratch_free(struct kpr_scratch *s)
{
	free(s->updates);
	free(s->adds);
	free(s->removes);
	free(s->seen);
	memset(s, 0, sizeof(*s));
}

static int add_later(struct kpr_scratch *s, const struct pb_svc_backend *b)
{
	struct pb_svc_backend *adds = kpr_room(s->adds, &s->cap_adds, s->n_adds + 1, sizeof(*adds));

	if (!adds)
		return -ENOMEM;
	s->adds = adds;
	adds[s->n_adds++] = *b;
	return 0;
}

static int remove_later(struct kpr_scratch *s, uint32_t position)
{
	uint32_t *removes =
		kpr_room(s->removes, &s->cap_removes, s->n_removes + 1, sizeof(*removes));

	if (!removes)
		return -ENOMEM;
	s->removes = removes;
	removes[s->n_removes++] = position;
	return 0;
}

/* ---- compared with all parts ---- */

static void count_port(const struct kpr_svc *svc, struct kpr_port *port)
{
	struct pb_svc_backend b;
	struct kpr_part *part;
	struct kpr_run run;
	enum kpr_use use;

	memset(port->n, 0, sizeof(port->n));
	DL_FOREACH (svc->parts, part) {
		kpr_run_begin(&run, part->value, port);
		while (kpr_run_next(&run, &b, &use))
			port->n[use]++;
	}
}

static int seen_none(struct kpr_scratch *s, uint32_t count)
{
	uint32_t words = count / 64 + 1;
	uint64_t *seen = kpr_room(s->seen, &s->cap_seen, words, sizeof(*seen));

	if (!seen)
		return -ENOMEM;
	s->seen = seen;
	memset(seen, 0, words * sizeof(*seen));
	return 0;
}

static int compare_all(struct kpr_maps *w, const struct kpr_svc *svc, struct kpr_port *port)
{
	struct kpr_scratch *s = &w->scratch;
	struct kpr_pool *pool = port->pool;
	int rc = seen_none(s, pool->count);
	uint32_t mask = kpr_port_mask(port);
	struct pb_svc_backend b;
	struct kpr_part *part;
	struct kpr_run run;
	enum kpr_use use;

	DL_FOREACH (svc->parts, part) {
		kpr_run_begin(&run, part->value, port);
		while (rc == 0 && kpr_run_next(&run, &b, &use)) {
			int64_t at;

			if (!(mask >> use & 1))
				continue;
			at = kpr_pool_find(&w->store, pool, &b);
			if (at >= 0)
				s->seen[at / 64] |= 1ULL << (at % 64);
			else
				rc = add_later(s, &b);
		}
	}
	for (uint32_t i = 0; i < pool->count && rc == 0; i++)
		if (!(s->seen[i / 64] >> (i % 64) & 1))
			rc = remove_later(s, i);
	return rc;
}

/* ---- changes that were noted ---- */

static int compare_changes(const void *a, const void *b)
{
	const struct kpr_change *x = a, *y = b;
	int rc = x->port < y->port ? -1 : x->port > y->port;

	if (rc == 0)
		rc = memcmp(&x->backend.addr, &y->backend.addr, sizeof(x->backend.addr));
	if (rc == 0)
		rc = (int)x->backend.port - (int)y->backend.port;
	return rc ? rc : (int)x->backend.flags - (int)y->backend.flags;
}

/* What came from one part and went from another hasn't changed. One change per backend stays. */
static void merge_changes(struct kpr_svc *svc)
{
	uint32_t n = 0;

	if (svc->n_changes == 0)
		return;
	qsort(svc->changes, svc->n_changes, sizeof(*svc->changes), compare_changes);
	for (uint32_t i = 0; i < svc->n_changes;) {
		struct kpr_change c = svc->changes[i];
		int more[KPR_USE_COUNT] = {0};

		for (; i < svc->n_changes && compare_changes(&c, &svc->changes[i]) == 0; i++) {
			const struct kpr_change *d = &svc->changes[i];

			more[d->is]++;
			more[d->was]--;
		}
		c.is = c.was = KPR_USE_NONE;
		for (unsigned use = KPR_USE_NONE + 1; use < KPR_USE_COUNT; use++) {
			c.is = more[use] > 0 ? (uint8_t)use : c.is;
			c.was = more[use] < 0 ? (uint8_t)use : c.was;
		}
		if (c.was != c.is)
			svc->changes[n++] = c;
	}
	svc->n_changes = n;
}

static int compare_numbers(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;

	return x < y ? -1 : x > y;
}

static int take_changes(struct kpr_maps *w, const struct kpr_change *changes, uint32_t n,
			uint32_t mask)
{
	struct kpr_scratch *s = &w->scratch;
	const struct kpr_pool *pool = changes[0].port->pool;
	uint32_t first = s->n_removes;
	int rc = 0;

	for (uint32_t i = 0; i < n && rc == 0; i++) {
		int64_t at = kpr_pool_find(&w->store, pool, &changes[i].backend);

		bool is = mask >> changes[i].is & 1;

		if (is && at < 0)
			rc = add_later(s, &changes[i].backend);
		else if (!is && at >= 0)
			rc = remove_later(s, (uint32_t)at);
	}
	if (s->n_removes > first)
		qsort(s->removes + first, s->n_removes - first, sizeof(*s->removes),
		      compare_numbers);
	return rc;
}

static void count_changes(struct kpr_port *port, const struct kpr_change *changes, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++) {
		port->n[changes[i].is]++;
		port->n[changes[i].was]--;
	}
}

/* ---- a port ---- */

/* The changes of a port among those of its Service, which are sorted by port. */
static uint32_t changes_of(const struct kpr_svc *svc, const struct kpr_port *port,
			   const struct kpr_change **ret_first)
{
	uint32_t from = 0, to = svc->n_changes, n = 0;

	while (from < to) {
		uint32_t mid = from + (to - from) / 2;

		if (svc->changes[mid].port < port)
			from = mid + 1;
		else
			to = mid;
	}
	*ret_first = svc->changes + from;
	while (from + n < svc->n_changes && svc->changes[from + n].port == port)
		n++;
	return n;
}

static int port_pool(struct kpr_maps *w, struct kpr_port *port)
{
	if (!port->pool) {
		port->pool = kpr_pool_new(&w->store);
		if (!port->pool)
			return -ENOMEM;
		port->pool->port = port;
	}
	kpr_pool_index(&w->store, port->pool);
	return 0;
}

static int plan_update(struct kpr_maps *w, struct kpr_pool *pool, uint32_t first_add,
		       uint32_t first_remove)
{
	struct kpr_scratch *s = &w->scratch;
	struct kpr_update *updates;
	struct kpr_update u = {.pool = pool,
			       .n_add = s->n_adds - first_add,
			       .n_remove = s->n_removes - first_remove};
	int rc;

	if (u.n_add + u.n_remove == 0)
		return 0;
	updates = kpr_room(s->updates, &s->cap_updates, s->n_updates + 1, sizeof(*updates));
	if (!updates)
		return -ENOMEM;
	s->updates = updates;
	rc = kpr_update_plan(&w->store, &u);
	if (rc == 0)
		updates[s->n_updates++] = u;
	return rc;
}

static int plan_port(struct kpr_maps *w, const struct kpr_svc *svc, struct kpr_port *port)
{
	struct kpr_scratch *s = &w->scratch;
	uint32_t first_add = s->n_adds;
	uint32_t first_remove = s->n_removes;
	const struct kpr_change *changes = NULL;
	uint32_t mask = kpr_port_mask(port);
	uint32_t n = 0;
	int rc;

	if (port->synced) {
		n = changes_of(svc, port, &changes);
		if (n == 0)
			return 0;
		count_changes(port, changes, n);
		port->synced = mask != 0 && mask == kpr_port_mask(port);
	} else {
		count_port(svc, port);
	}
	if (kpr_port_mask(port) == 0)
		return 0;
	rc = port_pool(w, port);
	if (rc == 0)
		rc = port->synced ? take_changes(w, changes, n, mask) : compare_all(w, svc, port);
	return rc < 0 ? rc : plan_update(w, port->pool, first_add, first_remove);
}

/* ---- a Service ---- */

/* A pool that was found in the map goes to the port whose frontend names it. */
static void adopt_pool(const struct kpr_claim *claim)
{
	struct kpr_pool *pool = claim->front->pool;

	if (claim->port->pool || !pool || pool->port || !claim->front->adopted ||
	    claim->front->value.owner != claim->svc->hash)
		return;
	claim->port->pool = pool;
	pool->port = claim->port;
}

int kpr_plan_pools(struct kpr_maps *w, struct kpr_svc *svc)
{
	struct kpr_scratch *s = &w->scratch;
	int rc = 0;

	s->n_updates = s->n_adds = s->n_removes = 0;
	merge_changes(svc);
	w->model->round++;
	for (uint32_t i = 0; i < svc->n_claims && rc == 0; i++) {
		struct kpr_claim *claim = &svc->claims[i];

		if (!kpr_claim_may_write(w->model, claim))
			continue;
		adopt_pool(claim);
		if (claim->port->round != w->model->round)
			rc = plan_port(w, svc, claim->port);
		claim->port->round = w->model->round;
	}
	return rc;
}

/* A port that no frontend may be written for keeps no pool that nobody can see. */
void kpr_pools_done(struct kpr_maps *w, struct kpr_svc *svc)
{
	struct kpr_port *port;

	LL_FOREACH (svc->ports, port) {
		struct kpr_pool *pool = port->pool;

		port->synced = port->round == w->model->round;
		if (pool && (!port->synced || kpr_port_mask(port) == 0)) {
			port->pool = NULL;
			pool->port = NULL;
			kpr_pool_free(&w->store, pool);
		}
	}
	free(svc->changes);
	svc->changes = NULL;
	svc->n_changes = 0;
	svc->cap_changes = 0;
}

void kpr_pools_apply(struct kpr_maps *w)
{
	struct kpr_scratch *s = &w->scratch;
	uint32_t add = 0, remove = 0;

	for (uint32_t i = 0; i < s->n_updates; i++) {
		struct kpr_update *u = &s->updates[i];

		u->add = s->adds + add;
		u->remove = s->removes + remove;
		add += u->n_add;
		remove += u->n_remove;
		kpr_update_apply(&w->store, u);
		kpr_tables_touch(&w->tables, u->pool);
	}
	s->n_updates = 0;
	if (s->cap_adds > SCRATCH_KEEP || s->cap_removes > SCRATCH_KEEP)
		kpr_scratch_free(s);
}
