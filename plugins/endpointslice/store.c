/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A hash of Services, each with the pointers to its objects, and the list of those that wait.
 */
#include "store.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uthash.h>
#include <utlist.h>

struct es_service {
	UT_hash_handle hh;
	const struct pb_kube_endpointslice **slices;
	const struct pb_kube_endpoints *endpoints;
	struct es_service *prev; /* in es_store.waiting */
	struct es_service *next;
	uint64_t digest; /* of what was published */
	uint64_t published_ms;
	uint64_t due_ms;
	uint32_t n_slices;
	uint32_t cap_slices;
	uint32_t n_published; /* backends */
	uint32_t n_usable;    /* of them */
	bool exists;
	bool published;
	bool waiting;
	bool from_endpoints; /* as counted */
	bool first;	     /* es_store_open() made it due */
	char key[];
};

struct es_store {
	struct es_store_ops ops;
	struct es_service *services;
	struct es_service *waiting;
	struct es_merge merge;
	uint64_t due_ms; /* the earliest of the waiting ones */
	struct es_counts counts;
	uint32_t first_left; /* of those that es_store_open() made due */
	bool open;
};

#define KEY_MAX 512

struct es_store *es_store_new(const struct es_store_ops *ops)
{
	struct es_store *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->ops = *ops;
	s->merge.node = ops->node;
	s->due_ms = UINT64_MAX;
	return s;
}

void es_store_free(struct es_store *s)
{
	struct es_service *svc, *tmp;

	if (!s)
		return;
	HASH_ITER (hh, s->services, svc, tmp) {
		HASH_DEL(s->services, svc);
		free(svc->slices);
		free(svc);
	}
	es_merge_free(&s->merge);
	free(s);
}

static size_t make_key(char *key, const char *ns, const char *name)
{
	int len = snprintf(key, KEY_MAX, "%s/%s", ns, name);

	return len > 0 && len < KEY_MAX ? (size_t)len : 0;
}

static struct es_service *find(struct es_store *s, const char *ns, const char *name)
{
	struct es_service *svc = NULL;
	char key[KEY_MAX];
	size_t len = make_key(key, ns, name);

	HASH_FIND(hh, s->services, key, len, svc);
	return svc;
}

static struct es_service *find_or_add(struct es_store *s, const char *ns, const char *name)
{
	struct es_service *svc = find(s, ns, name);
	char key[KEY_MAX];
	size_t len = make_key(key, ns, name);

	if (svc || len == 0)
		return svc;
	svc = calloc(1, sizeof(*svc) + len + 1);
	if (!svc)
		return NULL;
	memcpy(svc->key, key, len);
	HASH_ADD_KEYPTR(hh, s->services, svc->key, len, svc);
	return svc;
}

static void wait_until(struct es_store *s, struct es_service *svc, uint64_t due_ms)
{
	if (!svc->waiting)
		DL_APPEND(s->waiting, svc);
	svc->waiting = true;
	svc->due_ms = due_ms;
	if (due_ms < s->due_ms)
		s->due_ms = due_ms;
}

static bool wanted(const struct es_service *svc)
{
	return svc->n_slices > 0 || svc->endpoints || svc->exists;
}

static uint64_t interval(const struct es_service *svc)
{
	uint64_t ms = ES_INTERVAL_MS + svc->n_published / ES_BACKENDS_PER_MS;

	return ms < ES_INTERVAL_MAX_MS ? ms : ES_INTERVAL_MAX_MS;
}

static int merge(struct es_store *s, const struct es_service *svc, struct es_merged *ret_merged)
{
	es_merge_begin(&s->merge);
	for (uint32_t i = 0; i < svc->n_slices; i++)
		es_merge_slice(&s->merge, svc->slices[i]);
	if (svc->n_slices == 0 && svc->endpoints)
		es_merge_endpoints(&s->merge, svc->endpoints);
	return es_merge_finish(&s->merge, ret_merged);
}

static int publish(struct es_store *s, struct es_service *svc, const struct es_merged *merged,
		   uint64_t now_ms)
{
	int rc = 0;

	if (!svc->published || svc->digest != merged->digest) {
		rc = s->ops.publish(s->ops.arg, svc->key, merged->value, merged->len);
		s->counts.publications++;
		svc->published_ms = now_ms;
	}
	if (rc < 0)
		return rc;
	s->counts.services += !svc->published;
	svc->published = true;
	svc->digest = merged->digest;
	svc->n_published = merged->value->n;
	svc->n_usable = merged->n_usable;
	return 0;
}

static void forget(struct es_store *s, struct es_service *svc)
{
	s->counts.services -= svc->published;
	if (svc->waiting)
		DL_DELETE(s->waiting, svc);
	HASH_DEL(s->services, svc);
	free(svc->slices);
	free(svc);
}

/*
 * Publishes the Service as it is now. With `may_wait` a Service that would lose its last usable
 * backend is left for later: a slice that is replaced often goes before its successor comes.
 */
static void settle(struct es_store *s, struct es_service *svc, uint64_t now_ms, bool may_wait)
{
	struct es_merged merged;
	int rc;

	if (!wanted(svc)) {
		if (svc->published && may_wait) {
			wait_until(s, svc, now_ms + ES_INTERVAL_MS);
			return;
		}
		rc = svc->published ? s->ops.publish(s->ops.arg, svc->key, NULL, 0) : 0;
		if (rc == 0)
			forget(s, svc);
		else
			wait_until(s, svc, now_ms + ES_INTERVAL_MAX_MS);
		return;
	}
	/* Only the Service object speaks of it: nothing is known about its backends yet. */
	if (svc->n_slices == 0 && !svc->endpoints && !svc->published)
		return;
	rc = merge(s, svc, &merged);
	if (rc == 0 && may_wait && svc->n_usable > 0 && merged.n_usable == 0) {
		wait_until(s, svc, now_ms + ES_INTERVAL_MS);
		return;
	}
	if (rc == 0)
		rc = publish(s, svc, &merged, now_ms);
	if (rc < 0)
		wait_until(s, svc, now_ms + ES_INTERVAL_MAX_MS);
}

static void touch(struct es_store *s, struct es_service *svc, uint64_t now_ms)
{
	bool from_endpoints = svc->n_slices == 0 && svc->endpoints;

	s->counts.from_endpoints += from_endpoints - svc->from_endpoints;
	svc->from_endpoints = from_endpoints;
	if (!s->open || svc->waiting)
		return;
	if (svc->published && now_ms < svc->published_ms + interval(svc))
		wait_until(s, svc, svc->published_ms + interval(svc));
	else
		settle(s, svc, now_ms, true);
}

/* A slice that no Service claims, or that carries names instead of addresses, is none. */
static bool slice_counts(const struct pb_kube_endpointslice *slice)
{
	return slice && slice->service[0] && (slice->family == 4 || slice->family == 6);
}

static int add_slice(struct es_service *svc, const struct pb_kube_endpointslice *slice)
{
	if (svc->n_slices == svc->cap_slices) {
		uint32_t cap = svc->cap_slices ? 2 * svc->cap_slices : 1;
		void *p = realloc(svc->slices, cap * sizeof(svc->slices[0]));

		if (!p)
			return -ENOMEM;
		svc->slices = p;
		svc->cap_slices = cap;
	}
	svc->slices[svc->n_slices++] = slice;
	return 0;
}

static void remove_slice(struct es_service *svc, const struct pb_kube_endpointslice *slice)
{
	for (uint32_t i = 0; i < svc->n_slices; i++)
		if (svc->slices[i] == slice) {
			svc->slices[i] = svc->slices[--svc->n_slices];
			return;
		}
}

int es_store_slice(struct es_store *s, const struct pb_kube_endpointslice *old,
		   const struct pb_kube_endpointslice *now, uint64_t now_ms)
{
	struct es_service *from = NULL;
	struct es_service *to = NULL;
	int rc = 0;

	if (slice_counts(old))
		from = find(s, old->meta.ns, old->service);
	if (slice_counts(now))
		to = find_or_add(s, now->meta.ns, now->service);
	if (from)
		remove_slice(from, old);
	if (slice_counts(now))
		rc = to ? add_slice(to, now) : -ENOMEM;
	/* The gaining Service first, so that a renamed slice is never missing from both. */
	if (to)
		touch(s, to, now_ms);
	if (from && from != to)
		touch(s, from, now_ms);
	return rc;
}

int es_store_endpoints(struct es_store *s, const struct pb_kube_endpoints *old,
		       const struct pb_kube_endpoints *now, uint64_t now_ms)
{
	const struct pb_kube_meta *meta = now ? &now->meta : &old->meta;
	struct es_service *svc =
		now ? find_or_add(s, meta->ns, meta->name) : find(s, meta->ns, meta->name);

	if (!svc)
		return now ? -ENOMEM : 0;
	svc->endpoints = now;
	if (svc->n_slices == 0)
		touch(s, svc, now_ms);
	return 0;
}

int es_store_service(struct es_store *s, const char *ns, const char *name, bool exists,
		     uint64_t now_ms)
{
	struct es_service *svc = exists ? find_or_add(s, ns, name) : find(s, ns, name);

	if (!svc)
		return exists ? -ENOMEM : 0;
	svc->exists = exists;
	if (!wanted(svc))
		touch(s, svc, now_ms);
	return 0;
}

void es_store_open(struct es_store *s, uint64_t now_ms)
{
	struct es_service *svc, *tmp;

	s->open = true;
	HASH_ITER (hh, s->services, svc, tmp) {
		wait_until(s, svc, now_ms);
		svc->first = true;
		s->first_left++;
	}
}

uint64_t es_store_run(struct es_store *s, uint64_t (*clock_ms)(void *arg), void *arg,
		      uint64_t deadline_ms)
{
	struct es_service *last = s->waiting ? s->waiting->prev : NULL;
	struct es_service *next = s->waiting;
	uint64_t now_ms = clock_ms(arg);
	uint32_t done = 0;

	s->due_ms = UINT64_MAX;
	/* What settle() appends stands behind `last` and is left for the next run. */
	while (next) {
		struct es_service *svc = next;

		next = svc == last ? NULL : svc->next;
		if (svc->due_ms > now_ms || now_ms > deadline_ms) {
			s->due_ms = svc->due_ms < s->due_ms ? svc->due_ms : s->due_ms;
			continue;
		}
		DL_DELETE(s->waiting, svc);
		svc->waiting = false;
		s->first_left -= svc->first;
		svc->first = false;
		settle(s, svc, now_ms, false);
		if (++done % 16 == 0)
			now_ms = clock_ms(arg);
	}
	return s->due_ms;
}

uint64_t es_store_due(const struct es_store *s)
{
	return s->due_ms;
}

bool es_store_drained(const struct es_store *s)
{
	return s->open && s->first_left == 0;
}

struct es_counts es_store_counts(const struct es_store *s)
{
	return s->counts;
}

bool es_store_from_endpoints(struct es_store *s, const char *ns, const char *name)
{
	struct es_service *svc = find(s, ns, name);

	return svc && svc->from_endpoints;
}
