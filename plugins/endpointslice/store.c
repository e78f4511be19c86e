/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Objects in and out: a hash of Services and one of their parts.
 */
#include "store_priv.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NAME_LEN_MAX 253 /* of a DNS subdomain, which no name of Kubernetes exceeds */
#define KEY_MAX 768	 /* three of them and the slashes */

struct es_store *es_store_new(const struct es_store_ops *ops)
{
	struct es_store *s = calloc(1, sizeof(*s));

	if (!s)
		return NULL;
	s->ops = *ops;
	s->merge.node = ops->node;
	s->merge.all = ops->all_addresses;
	return s;
}

static void index_free(struct es_store *s, struct es_service *svc)
{
	if (!svc->index)
		return;
	s->counts.duplicates -= svc->index->doubles;
	es_index_free(svc->index);
	free(svc->index);
	svc->index = NULL;
}

void es_store_free(struct es_store *s)
{
	struct es_service *svc, *svc_tmp;
	struct es_part *part, *part_tmp;

	if (!s)
		return;
	HASH_ITER (hh, s->parts, part, part_tmp) {
		HASH_DEL(s->parts, part);
		free(part);
	}
	HASH_ITER (hh, s->services, svc, svc_tmp) {
		HASH_DEL(s->services, svc);
		index_free(s, svc);
		free(svc);
	}
	es_merge_free(&s->merge);
	es_queue_free(&s->queue);
	free(s->changes);
	free(s);
}

/* ---- keys ---- */

/*
 * Letters, digits, "-", "." and "_". So a key has exactly the slashes that part_key() puts into
 * it, and no Service and slice can be named so that their keys are another's.
 */
static bool name_ok(const char *name)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
				      "0123456789-._";
	size_t len = strspn(name, allowed);

	return len > 0 && len <= NAME_LEN_MAX && name[len] == '\0';
}

/* The length; 0: no key can be made of these names. `part` NULL: a Service's key. */
static size_t make_key(char *key, const char *ns, const char *name, const char *part)
{
	int len;

	if (!name_ok(ns) || !name_ok(name) || (part && !name_ok(part)))
		return 0;
	len = snprintf(key, KEY_MAX, "%s/%s%s%s", ns, name, part ? "/" : "", part ? part : "");
	return len > 0 && len < KEY_MAX ? (size_t)len : 0;
}

static struct es_service *find(struct es_store *s, const char *ns, const char *name)
{
	struct es_service *svc = NULL;
	char key[KEY_MAX];
	size_t len = make_key(key, ns, name, NULL);

	if (len > 0)
		HASH_FIND(hh, s->services, key, len, svc);
	return svc;
}

static int get(struct es_store *s, const char *ns, const char *name, struct es_service **ret_svc)
{
	struct es_service *svc = find(s, ns, name);
	char key[KEY_MAX];
	size_t len = make_key(key, ns, name, NULL);

	if (len == 0)
		return -EINVAL;
	if (!svc) {
		if (es_queue_reserve(&s->queue, HASH_COUNT(s->services) + 1) < 0)
			return -ENOMEM;
		svc = calloc(1, sizeof(*svc) + len + 1);
		if (!svc)
			return -ENOMEM;
		memcpy(svc->key, key, len);
		HASH_ADD_KEYPTR(hh, s->services, svc->key, len, svc);
	}
	*ret_svc = svc;
	return 0;
}

static struct es_part *find_part(struct es_store *s, const char *ns, const char *name,
				 const char *part_name)
{
	struct es_part *part = NULL;
	char key[KEY_MAX];
	size_t len = make_key(key, ns, name, part_name);

	if (len > 0)
		HASH_FIND(hh, s->parts, key, len, part);
	return part;
}

static int get_part(struct es_store *s, const char *ns, const char *name, const char *part_name,
		    struct es_part **ret_part)
{
	struct es_part *part = find_part(s, ns, name, part_name);
	struct es_service *svc;
	char key[KEY_MAX];
	size_t len = make_key(key, ns, name, part_name);
	int rc = len > 0 ? get(s, ns, name, &svc) : -EINVAL;

	if (rc < 0)
		return rc;
	if (!part) {
		part = calloc(1, sizeof(*part) + len + 1);
		if (!part) {
			es_service_settle(s, svc);
			return -ENOMEM;
		}
		part->service = svc;
		memcpy(part->key, key, len);
		HASH_ADD_KEYPTR(hh, s->parts, part->key, len, part);
		DL_APPEND(svc->parts, part);
	}
	*ret_part = part;
	return 0;
}

void es_part_settle(struct es_store *s, struct es_part *part)
{
	struct es_service *svc = part->service;

	if (part->slice || part->endpoints || part->published)
		return;
	if (part->dirty)
		DL_DELETE2(svc->dirty, part, dirty_prev, dirty_next);
	DL_DELETE(svc->parts, part);
	HASH_DEL(s->parts, part);
	free(part);
}

void es_service_settle(struct es_store *s, struct es_service *svc)
{
	if (svc->parts || svc->exists || svc->told.size)
		return;
	es_queue_remove(&s->queue, &svc->waiter);
	s->first_left -= svc->first;
	HASH_DEL(s->services, svc);
	index_free(s, svc);
	free(svc);
}

/* ---- slices or Endpoints ---- */

static bool wants_endpoints(const struct es_store *s, const struct es_service *svc)
{
	if (!svc->endpoints || s->policy == ES_FROM_SLICES)
		return false;
	if (s->policy == ES_MOVING)
		return svc->from_endpoints && svc->slices_usable < svc->endpoints_usable;
	return s->policy == ES_FROM_ENDPOINTS || svc->n_slices == 0;
}

static bool reads_slices(enum es_policy policy, const struct es_service *svc)
{
	return policy != ES_FROM_ENDPOINTS && !svc->from_endpoints;
}

bool es_service_reads_slices(const struct es_store *s, const struct es_service *svc)
{
	return reads_slices(s->policy, svc);
}

/* `read_slices`: whether it did before what has just changed. */
static void choose(struct es_store *s, struct es_service *svc, bool read_slices)
{
	bool from_endpoints = wants_endpoints(s, svc);
	struct es_part *part;

	s->counts.from_endpoints += from_endpoints - svc->from_endpoints;
	svc->from_endpoints = from_endpoints;
	if (es_service_reads_slices(s, svc) != read_slices)
		DL_FOREACH (svc->parts, part)
			es_part_dirty(part);
}

/* ---- slices ---- */

/* A slice that no Service claims, or that carries names instead of addresses, is none. */
static bool slice_counts(const struct pb_kube_endpointslice *slice)
{
	return slice && slice->service[0] && (slice->family == 4 || slice->family == 6);
}

static uint32_t count_usable(const struct pb_kube_endpointslice *slice, bool all)
{
	uint32_t ports = 0, endpoints = 0;

	for (uint32_t i = 0; slice && i < slice->n_ports; i++)
		ports += es_port_usable(&slice->ports[i]);
	for (uint32_t i = 0; slice && i < es_slice_width(slice, all); i++) {
		const union pb_addr *addr;
		uint8_t state = es_state(es_slice_entry(slice, i, &addr)->conditions);

		endpoints += state == PB_BACKEND_ACTIVE || state == PB_BACKEND_TERMINATING;
	}
	return ports * endpoints;
}

static void on_index_change(void *arg, void *part)
{
	(void)arg;
	es_part_dirty(part);
}

/* The part's place in the index follows its slice; the index is there while it is needed. */
static int index_put(struct es_store *s, struct es_part *part,
		     const struct pb_kube_endpointslice *slice)
{
	struct es_index *ix = part->service->index;
	uint32_t doubles = ix->doubles;
	int rc = 0;

	if (!part->slice)
		rc = slice ? es_index_join(ix, part, &part->number) : 0;
	if (rc == 0 && (slice || part->slice))
		rc = es_index_put(ix, part->number, slice);
	s->counts.duplicates += ix->doubles - doubles;
	return rc;
}

/* Before the second slice comes: all there is has to be in the index. */
static int index_make(struct es_store *s, struct es_service *svc)
{
	struct es_part *part;
	int rc = 0;

	svc->index = calloc(1, sizeof(*svc->index));
	if (!svc->index)
		return -ENOMEM;
	*svc->index = (struct es_index){.seed = s->ops.seed,
					.all = s->ops.all_addresses,
					.work = &s->counts.work,
					.changed = on_index_change};
	DL_FOREACH (svc->parts, part) {
		const struct pb_kube_endpointslice *slice = part->slice;

		part->slice = NULL;
		if (slice && rc == 0)
			rc = index_put(s, part, slice);
		part->slice = slice;
	}
	if (rc < 0)
		index_free(s, svc);
	return rc;
}

static int set_slice(struct es_store *s, struct es_part *part,
		     const struct pb_kube_endpointslice *slice)
{
	struct es_service *svc = part->service;
	int rc = 0;

	if (slice && !part->slice && svc->n_slices == 1)
		rc = index_make(s, svc);
	if (rc == 0 && svc->index)
		rc = index_put(s, part, slice);
	if (rc < 0)
		slice = NULL;
	svc->n_slices += (slice != NULL) - (part->slice != NULL);
	svc->slices_usable -= part->slice_usable;
	part->slice = slice;
	part->slice_usable = count_usable(slice, s->ops.all_addresses);
	svc->slices_usable += part->slice_usable;
	es_part_dirty(part);
	if (svc->n_slices <= 1)
		index_free(s, svc);
	return rc;
}

/* A part that has lost its slice, or got it: what follows for its Service. */
static int change_slice(struct es_store *s, struct es_part *part,
			const struct pb_kube_endpointslice *slice)
{
	bool read_slices = es_service_reads_slices(s, part->service);
	int rc = set_slice(s, part, slice);

	choose(s, part->service, read_slices);
	return rc;
}

int es_store_slice(struct es_store *s, const struct pb_kube_endpointslice *old,
		   const struct pb_kube_endpointslice *now, uint64_t now_ms)
{
	struct es_service *from_svc, *to_svc;
	struct es_part *from = NULL, *to = NULL;
	int rc = 0;

	if (slice_counts(old))
		from = find_part(s, old->meta.ns, old->service, old->meta.name);
	if (slice_counts(now))
		rc = get_part(s, now->meta.ns, now->service, now->meta.name, &to);
	from_svc = from && from != to ? from->service : NULL;
	to_svc = to ? to->service : NULL;
	if (from_svc) {
		change_slice(s, from, NULL);
		es_part_settle(s, from);
	}
	if (to) {
		rc = change_slice(s, to, now);
		es_part_settle(s, to);
	}
	if (to_svc)
		es_service_touch(s, to_svc, now_ms);
	if (from_svc && from_svc != to_svc)
		es_service_touch_after(s, from_svc, to_svc, now_ms);
	return rc;
}

/* ---- Endpoints and Services ---- */

static void set_endpoints(struct es_store *s, struct es_part *part,
			  const struct pb_kube_endpoints *endpoints)
{
	struct es_service *svc = part->service;
	bool read_slices = es_service_reads_slices(s, svc);

	if (endpoints && !part->endpoints)
		DL_APPEND2(s->with_endpoints, part, ep_prev, ep_next);
	if (!endpoints && part->endpoints)
		DL_DELETE2(s->with_endpoints, part, ep_prev, ep_next);
	part->endpoints = endpoints;
	svc->endpoints = endpoints ? part : NULL;
	svc->endpoints_usable = endpoints ? es_endpoints_places(endpoints) : 0;
	es_part_dirty(part);
	choose(s, svc, read_slices);
}

int es_store_endpoints(struct es_store *s, const struct pb_kube_endpoints *old,
		       const struct pb_kube_endpoints *now, uint64_t now_ms)
{
	const struct pb_kube_meta *meta = now ? &now->meta : &old->meta;
	struct es_part *part = find_part(s, meta->ns, meta->name, "endpoints");
	struct es_service *svc;
	int rc = 0;

	if (now)
		rc = get_part(s, meta->ns, meta->name, "endpoints", &part);
	if (rc < 0 || !part)
		return rc;
	svc = part->service;
	set_endpoints(s, part, now);
	es_part_settle(s, part);
	es_service_touch(s, svc, now_ms);
	return 0;
}

bool es_store_drop_endpoints(struct es_store *s, uint64_t (*clock_ms)(void *arg), void *arg,
			     uint64_t deadline_ms)
{
	while (s->with_endpoints && clock_ms(arg) <= deadline_ms) {
		struct es_part *part = s->with_endpoints;
		struct es_service *svc = part->service;

		set_endpoints(s, part, NULL);
		es_part_settle(s, part);
		es_service_touch(s, svc, clock_ms(arg));
	}
	return !s->with_endpoints;
}

int es_store_service(struct es_store *s, const char *ns, const char *name, bool exists,
		     uint64_t now_ms)
{
	struct es_service *svc = find(s, ns, name);
	int rc = exists ? get(s, ns, name, &svc) : 0;

	if (rc < 0 || !svc || svc->exists == exists)
		return rc;
	svc->exists = exists;
	es_service_touch(s, svc, now_ms);
	return 0;
}

void es_store_hold(struct es_store *s)
{
	s->open = false;
}

void es_store_open(struct es_store *s, enum es_policy policy, uint64_t now_ms)
{
	enum es_policy before = s->policy;
	struct es_service *svc, *tmp;

	s->open = true;
	s->policy = policy;
	s->first_left = 0;
	HASH_ITER (hh, s->services, svc, tmp) {
		choose(s, svc, reads_slices(before, svc));
		es_queue_put(&s->queue, &svc->waiter, now_ms);
		svc->first = true;
		s->first_left++;
	}
}

/* ---- questions ---- */

struct es_counts es_store_counts(const struct es_store *s)
{
	struct es_counts counts = s->counts;

	counts.work += s->merge.work;
	return counts;
}

bool es_store_has_slices(struct es_store *s, const char *ns, const char *name)
{
	const struct es_service *svc = find(s, ns, name);

	return svc && svc->n_slices > 0;
}

bool es_store_has_endpoints(struct es_store *s, const char *ns, const char *name)
{
	const struct es_service *svc = find(s, ns, name);

	return svc && svc->endpoints;
}
