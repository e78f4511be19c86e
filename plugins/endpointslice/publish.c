/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From dirty parts to records: what changed, in which order it is told, and when.
 *
 * Owns the order: parts that grow, parts that shrink, parts that go, the head; all of them or,
 * when a backend has to wait for its successor, none.
 */
#include "store_priv.h"

#include <errno.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#define FNV_BASIS 0xcbf29ce484222325ULL
#define FNV_PRIME 0x100000001b3ULL

void es_part_dirty(struct es_part *part)
{
	if (!part->dirty)
		DL_APPEND2(part->service->dirty, part, dirty_prev, dirty_next);
	part->dirty = true;
}

/* ---- what has to change ---- */

/* The Service's revision is the sum over its parts, so the key has to be in it. */
static uint64_t part_digest(const struct es_part *part, uint64_t value_digest)
{
	uint64_t h = FNV_BASIS ^ value_digest;

	for (const char *c = part->key; *c; c++)
		h = (h ^ (unsigned char)*c) * FNV_PRIME;
	return h ^ h >> 29;
}

static int merge(struct es_store *s, const struct es_part *part, struct es_merged *ret_merged)
{
	const struct es_service *svc = part->service;
	bool slices = es_service_reads_slices(s, svc);

	es_merge_begin(&s->merge);
	if (slices && part->slice)
		es_merge_slice(&s->merge, part->slice, svc->index, part->number);
	else if (!slices && part->endpoints && svc->from_endpoints)
		es_merge_endpoints(&s->merge, part->endpoints);
	return es_merge_finish(&s->merge, ret_merged);
}

/* *ret_change without a part: the part is published as it has to be. */
static int make_change(struct es_store *s, struct es_part *part, struct es_change *ret_change)
{
	struct es_merged merged;
	int rc = merge(s, part, &merged);

	*ret_change = (struct es_change){0};
	if (rc < 0)
		return rc;
	if (merged.value->n == 0) {
		ret_change->part = part->published ? part : NULL;
		return 0;
	}
	merged.digest = part_digest(part, merged.digest);
	if (part->published && part->digest == merged.digest)
		return 0;
	ret_change->value = malloc(merged.len);
	if (!ret_change->value)
		return -ENOMEM;
	memcpy(ret_change->value, merged.value, merged.len);
	ret_change->part = part;
	ret_change->len = merged.len;
	ret_change->digest = merged.digest;
	ret_change->n = merged.value->n;
	ret_change->n_usable = merged.n_usable;
	return 0;
}

static int reserve_changes(struct es_store *s, uint32_t n)
{
	uint32_t cap = s->cap_changes ? s->cap_changes : 16;
	void *p;

	if (n <= s->cap_changes)
		return 0;
	while (cap < n)
		cap *= 2;
	p = realloc(s->changes, cap * sizeof(*s->changes));
	if (!p)
		return -ENOMEM;
	s->changes = p;
	s->cap_changes = cap;
	return 0;
}

static int collect(struct es_store *s, const struct es_service *svc, uint32_t *ret_n)
{
	struct es_part *part;
	uint32_t n = 0;
	int rc = 0;

	for (part = svc->dirty; part && rc == 0; part = part->dirty_next) {
		rc = reserve_changes(s, n + 1);
		if (rc == 0)
			rc = make_change(s, part, &s->changes[n]);
		if (rc == 0)
			n += s->changes[n].part != NULL;
	}
	*ret_n = n;
	return rc;
}

static void free_changes(struct es_store *s, uint32_t n)
{
	for (uint32_t i = 0; i < n; i++)
		free(s->changes[i].value);
}

/* ---- telling it ---- */

static int64_t growth(const struct es_change *c)
{
	return (int64_t)c->n - c->part->n_published;
}

static int compare_changes(const void *pa, const void *pb)
{
	const struct es_change *a = pa;
	const struct es_change *b = pb;

	if (!a->value != !b->value)
		return a->value ? -1 : 1;
	if (growth(a) != growth(b))
		return growth(a) > growth(b) ? -1 : 1;
	return strcmp(a->part->key, b->part->key);
}

static int tell(struct es_store *s, const char *key, const void *value, size_t len)
{
	s->counts.publications++;
	return s->ops.publish(s->ops.arg, key, value, len);
}

/* The part is published like this: its share in the head and in the counts. */
static void account(struct es_store *s, const struct es_change *c)
{
	struct es_part *part = c->part;
	struct pb_backends_head *head = &part->service->head;
	bool published = c->value != NULL;

	head->n_parts += published - part->published;
	head->n_backends += c->n - part->n_published;
	head->n_usable += c->n_usable - part->n_usable;
	head->revision += c->digest - part->digest;
	s->counts.parts += published - part->published;
	s->counts.backends += c->n - part->n_published;
	part->published = published;
	part->digest = c->digest;
	part->n_published = c->n;
	part->n_usable = c->n_usable;
}

static int tell_changes(struct es_store *s, uint32_t n)
{
	int rc = 0;

	if (n > 1)
		qsort(s->changes, n, sizeof(*s->changes), compare_changes);
	for (uint32_t i = 0; i < n && rc == 0; i++) {
		const struct es_change *c = &s->changes[i];

		rc = tell(s, c->part->key, c->value, c->len);
		if (rc == 0)
			account(s, c);
	}
	return rc;
}

/* Whether anything is known of the Service that the policy listens to. */
static bool wants_head(const struct es_store *s, const struct es_service *svc)
{
	return svc->exists || (svc->n_slices > 0 && s->policy != ES_FROM_ENDPOINTS) ||
	       (svc->endpoints && s->policy != ES_FROM_SLICES);
}

static int tell_head(struct es_store *s, struct es_service *svc)
{
	struct pb_backends_head head = {0};
	int rc;

	if (wants_head(s, svc)) {
		head = svc->head;
		head.size = sizeof(head);
		if (svc->from_endpoints)
			head.flags |= PB_BACKENDS_FROM_ENDPOINTS;
		if (svc->from_endpoints && svc->endpoints->endpoints->truncated)
			head.flags |= PB_BACKENDS_TRUNCATED;
	}
	if (memcmp(&head, &svc->told, sizeof(head)) == 0)
		return 0;
	rc = tell(s, svc->key, head.size ? &head : NULL, head.size);
	if (rc < 0)
		return rc;
	if (head.flags & ~svc->told.flags & PB_BACKENDS_TRUNCATED)
		s->ops.truncated(s->ops.arg, svc->key);
	s->counts.services += (head.size > 0) - (svc->told.size > 0);
	svc->told = head;
	return 0;
}

/* ---- when ---- */

/*
 * A slice that is replaced often goes before its successor comes, and a new Service comes before
 * its slices: 100 ms are worth less than refused connections.
 */
static bool has_to_wait(const struct es_store *s, struct es_service *svc, uint32_t n,
			uint64_t now_ms)
{
	bool is_new = !svc->told.size && !svc->first && !svc->parts;
	uint32_t usable = svc->head.n_usable;

	for (uint32_t i = 0; i < n; i++)
		usable += s->changes[i].n_usable - s->changes[i].part->n_usable;
	if (!is_new && (usable > 0 || svc->head.n_usable == 0)) {
		svc->grace_ms = 0;
		return false;
	}
	if (svc->grace_ms == 0)
		svc->grace_ms = now_ms + ES_GRACE_MS;
	return now_ms < svc->grace_ms;
}

static void clean(struct es_store *s, struct es_service *svc)
{
	struct es_part *part, *tmp;

	DL_FOREACH_SAFE2(svc->dirty, part, tmp, dirty_next)
	{
		DL_DELETE2(svc->dirty, part, dirty_prev, dirty_next);
		part->dirty = false;
		es_part_settle(s, part);
	}
}

static void publish(struct es_store *s, struct es_service *svc, uint64_t now_ms)
{
	uint64_t before = s->counts.publications;
	uint32_t n;
	int rc = collect(s, svc, &n);

	if (rc == 0 && has_to_wait(s, svc, n, now_ms)) {
		free_changes(s, n);
		es_queue_put(&s->queue, &svc->waiter, svc->grace_ms);
		return;
	}
	if (rc == 0)
		rc = tell_changes(s, n);
	free_changes(s, n);
	if (rc == 0)
		rc = tell_head(s, svc);
	if (s->counts.publications != before)
		svc->published_ms = now_ms;
	if (rc < 0) {
		es_queue_put(&s->queue, &svc->waiter, now_ms + ES_RETRY_MS);
		return;
	}
	es_queue_remove(&s->queue, &svc->waiter);
	svc->grace_ms = 0;
	s->first_left -= svc->first;
	svc->first = false;
	clean(s, svc);
	es_service_settle(s, svc);
}

void es_service_touch(struct es_store *s, struct es_service *svc, uint64_t now_ms)
{
	bool waits = svc->waiter.place && svc->grace_ms == 0;

	if (!s->open) {
		es_service_settle(s, svc);
		return;
	}
	if (waits)
		return;
	if (svc->told.size && now_ms < svc->published_ms + ES_INTERVAL_MS)
		es_queue_put(&s->queue, &svc->waiter, svc->published_ms + ES_INTERVAL_MS);
	else
		publish(s, svc, now_ms);
}

void es_service_touch_after(struct es_store *s, struct es_service *svc,
			    const struct es_service *gaining, uint64_t now_ms)
{
	if (!s->open || !gaining || !gaining->waiter.place)
		es_service_touch(s, svc, now_ms);
	else if (!svc->waiter.place || svc->waiter.due_ms <= gaining->waiter.due_ms)
		es_queue_put(&s->queue, &svc->waiter, gaining->waiter.due_ms);
}

void es_store_run(struct es_store *s, uint64_t (*clock_ms)(void *arg), void *arg,
		  uint64_t deadline_ms)
{
	uint64_t now_ms = clock_ms(arg);

	while (es_store_due(s) <= now_ms && now_ms <= deadline_ms) {
		struct es_waiter *first = es_queue_first(&s->queue);

		publish(s,
			(struct es_service *)(void *)((char *)first -
						      offsetof(struct es_service, waiter)),
			now_ms);
		now_ms = clock_ms(arg);
	}
}

uint64_t es_store_due(const struct es_store *s)
{
	const struct es_waiter *first = s->open ? es_queue_first(&s->queue) : NULL;

	return first ? first->due_ms : UINT64_MAX;
}

bool es_store_drained(const struct es_store *s)
{
	return s->open && s->first_left == 0;
}
