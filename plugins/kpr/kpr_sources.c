/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sets by number in a hash. An entry's key opens with its set's number, so one trie holds all.
 */
#include "kpr_sources.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <utlist.h>

void kpr_sources_init(struct kpr_source_maps *s, struct pb_ctx *ctx, struct pb_map *map4,
		      struct pb_map *map6)
{
	*s = (struct kpr_source_maps){
		.ctx = ctx, .map4 = map4, .map6 = map6, .next_number = 1, .adopt_family = 4};
}

static void set_free(struct kpr_sources *set)
{
	free(set->list);
	free(set);
}

void kpr_sources_free(struct kpr_source_maps *s)
{
	struct kpr_sources *set, *next;

	HASH_ITER (hh, s->sets, set, next) {
		HASH_DEL(s->sets, set);
		set_free(set);
	}
	memset(s, 0, sizeof(*s));
}

struct kpr_sources *kpr_sources_get(struct kpr_source_maps *s, uint32_t number)
{
	struct kpr_sources *set;

	HASH_FIND(hh, s->sets, &number, sizeof(number), set);
	if (set)
		return set;
	set = calloc(1, sizeof(*set));
	if (!set)
		return NULL;
	set->number = number;
	HASH_ADD(hh, s->sets, number, sizeof(number), set);
	if (number >= s->next_number)
		s->next_number = number + 1;
	return set;
}

static int set_add(struct kpr_sources *set, const struct pb_cidr *cidr)
{
	uint32_t cap = set->cap ? 2 * set->cap : 4;
	struct pb_cidr *list = set->list;

	if (set->n == set->cap) {
		list = realloc(list, cap * sizeof(*list));
		if (!list)
			return -ENOMEM;
		set->list = list;
		set->cap = cap;
	}
	list[set->n++] = *cidr;
	return 0;
}

static int compare_cidrs(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct pb_cidr));
}

/* Sorted, and each once. */
static void set_sort(struct kpr_sources *set)
{
	uint32_t n = 0;

	if (set->n == 0)
		return;
	qsort(set->list, set->n, sizeof(*set->list), compare_cidrs);
	for (uint32_t i = 0; i < set->n; i++)
		if (n == 0 || compare_cidrs(&set->list[n - 1], &set->list[i]) != 0)
			set->list[n++] = set->list[i];
	set->n = n;
}

/* Bits behind the prefix are no part of it. */
static struct pb_cidr masked(const struct pb_cidr *cidr)
{
	struct pb_cidr m = {.family = cidr->family, .bits = cidr->bits};
	uint32_t bytes = cidr->bits / 8;

	memcpy(m.addr.bytes, cidr->addr.bytes, bytes);
	if (cidr->bits % 8)
		m.addr.bytes[bytes] =
			(uint8_t)(cidr->addr.bytes[bytes] & 0xff00U >> cidr->bits % 8);
	return m;
}

static int set_fill(struct kpr_sources *set, const struct pb_kube_service *obj)
{
	int rc = 0;

	for (uint32_t i = 0; i < obj->n_source_ranges && rc == 0; i++) {
		const struct pb_cidr *cidr = &obj->source_ranges[i];
		struct pb_cidr m;

		if ((cidr->family != 4 || cidr->bits > 32) &&
		    (cidr->family != 6 || cidr->bits > 128))
			continue;
		m = masked(cidr);
		rc = set_add(set, &m);
	}
	set_sort(set);
	return rc;
}

/* ---- entries ---- */

static void key4(const struct kpr_sources *set, const struct pb_cidr *cidr,
		 struct pb_svc_range4 *ret_key)
{
	*ret_key = (struct pb_svc_range4){.bits = 32U + cidr->bits,
					  .ranges = set->number,
					  .addr = cidr->addr.v4};
}

static void key6(const struct kpr_sources *set, const struct pb_cidr *cidr,
		 struct pb_svc_range6 *ret_key)
{
	*ret_key = (struct pb_svc_range6){.bits = 32U + cidr->bits, .ranges = set->number};
	memcpy(ret_key->addr, cidr->addr.v6, sizeof(ret_key->addr));
}

static int entry_write(struct kpr_source_maps *s, const struct kpr_sources *set,
		       const struct pb_cidr *cidr)
{
	const struct pb_host *h = s->ctx->host;
	struct pb_svc_range4 k4;
	struct pb_svc_range6 k6;
	uint8_t one = 1;

	if (cidr->family == 4) {
		key4(set, cidr, &k4);
		return h->map_update(s->map4, &k4, &one, PB_MAP_ANY);
	}
	key6(set, cidr, &k6);
	return h->map_update(s->map6, &k6, &one, PB_MAP_ANY);
}

/* One that can't be deleted is taken over and deleted by the next start. */
static void entry_delete(struct kpr_source_maps *s, const struct kpr_sources *set,
			 const struct pb_cidr *cidr)
{
	const struct pb_host *h = s->ctx->host;
	struct pb_svc_range4 k4;
	struct pb_svc_range6 k6;

	if (cidr->family == 4) {
		key4(set, cidr, &k4);
		h->map_delete(s->map4, &k4);
		return;
	}
	key6(set, cidr, &k6);
	h->map_delete(s->map6, &k6);
}

static void set_drop(struct kpr_source_maps *s, struct kpr_sources *set, uint32_t n_written)
{
	for (uint32_t i = 0; i < n_written; i++)
		entry_delete(s, set, &set->list[i]);
	HASH_DEL(s->sets, set);
	set_free(set);
}

/* ---- taking over ---- */

static int adopt_entry(struct kpr_source_maps *s, uint32_t number, uint32_t bits, const void *addr)
{
	struct kpr_sources *set = kpr_sources_get(s, number);
	struct pb_cidr cidr = {.family = s->adopt_family, .bits = (uint8_t)(bits - 32)};

	if (!set)
		return -ENOMEM;
	memcpy(&cidr.addr, addr, s->adopt_family == 4 ? 4 : 16);
	return set_add(set, &cidr);
}

/* -ENOENT behind the last entry of the family's map. */
static int adopt_next(struct kpr_source_maps *s)
{
	struct pb_svc_range6 *k6 = &s->adopt_at.v6;
	struct pb_svc_range4 *k4 = &s->adopt_at.v4;
	bool is4 = s->adopt_family == 4;
	int rc = s->ctx->host->map_next(is4 ? s->map4 : s->map6,
					s->adopt_begun ? &s->adopt_at : NULL, &s->adopt_at);

	s->adopt_begun = true;
	if (rc < 0)
		return rc;
	return is4 ? adopt_entry(s, k4->ranges, k4->bits, &k4->addr)
		   : adopt_entry(s, k6->ranges, k6->bits, k6->addr);
}

static void adopt_end(struct kpr_source_maps *s)
{
	s->adopt_family = 0;
	for (struct kpr_sources *set = s->sets; set; set = set->hh.next)
		set_sort(set);
}

int kpr_sources_adopt(struct kpr_source_maps *s, uint64_t end_ns)
{
	uint32_t done = 0;
	int rc = 0;

	while (s->adopt_family && rc == 0) {
		rc = adopt_next(s);
		if (rc == -ENOENT) {
			s->adopt_family = s->adopt_family == 4 ? 6 : 0;
			s->adopt_begun = false;
			rc = 0;
		}
		if (rc == 0 && s->adopt_family && ++done % 16 == 0 &&
		    s->ctx->host->now_ns() >= end_ns)
			return -EAGAIN;
	}
	adopt_end(s);
	return rc;
}

void kpr_sources_adopted(struct kpr_source_maps *s)
{
	struct kpr_sources *set, *next;

	HASH_ITER (hh, s->sets, set, next)
		if (set->refs == 0 && !set->wanted)
			set_drop(s, set, set->n);
}

/* ---- life of a set ---- */

bool kpr_sources_equal(const struct kpr_sources *set, const struct pb_kube_service *obj)
{
	struct kpr_sources other = {0};
	bool equal =
		set_fill(&other, obj) == 0 && other.n == set->n &&
		(set->n == 0 || memcmp(other.list, set->list, set->n * sizeof(*set->list)) == 0);

	free(other.list);
	return equal;
}

int kpr_sources_write(struct kpr_source_maps *s, const struct pb_kube_service *obj,
		      struct kpr_sources **ret_set)
{
	struct kpr_sources *set = kpr_sources_get(s, s->next_number);
	uint32_t n = 0;
	int rc = set ? set_fill(set, obj) : -ENOMEM;

	while (rc == 0 && n < set->n) {
		rc = entry_write(s, set, &set->list[n]);
		n += rc == 0;
	}
	if (rc < 0) {
		if (set)
			set_drop(s, set, n);
		return rc == -ENOSPC || rc == -E2BIG ? -EDQUOT : rc;
	}
	set->wanted = true;
	*ret_set = set;
	return 0;
}

static void retire(struct kpr_source_maps *s, struct kpr_sources *set, uint64_t now_ns)
{
	if (set->wanted || set->refs > 0 || set->since_ns)
		return;
	set->since_ns = now_ns;
	LL_APPEND(s->retired, set);
}

void kpr_sources_ref(struct kpr_sources *set)
{
	set->refs++;
}

void kpr_sources_unref(struct kpr_source_maps *s, struct kpr_sources *set, uint64_t now_ns)
{
	set->refs--;
	retire(s, set, now_ns);
}

void kpr_sources_unwanted(struct kpr_source_maps *s, struct kpr_sources *set, uint64_t now_ns)
{
	if (!set)
		return;
	set->wanted = false;
	retire(s, set, now_ns);
}

void kpr_sources_release(struct kpr_source_maps *s, uint64_t now_ns, uint64_t grace_ns)
{
	struct kpr_sources *set;

	while ((set = s->retired) && now_ns - set->since_ns >= grace_ns) {
		LL_DELETE(s->retired, set);
		set_drop(s, set, set->n);
	}
}
