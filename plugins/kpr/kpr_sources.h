/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Source ranges of Services in the two LPM maps: sets of prefixes, each with a number that
 * frontends name.
 *
 * Owns the entries of both maps. A set never changes: other ranges are another set with another
 * number. It is written before the first frontend that names it and goes after the last.
 */
#ifndef KPR_SOURCES_H
#define KPR_SOURCES_H

#include <stdbool.h>
#include <stdint.h>

#include <uthash.h>

#include <patchbay/kube.h>
#include <patchbay/plugin.h>

#include "kpr_abi.h"

struct kpr_sources {
	UT_hash_handle hh;	  /* by number */
	struct kpr_sources *next; /* in kpr_model.unwanted_sources, or among those that wait */
	uint64_t since_ns;	  /* nobody names it since then */
	struct pb_cidr *list;	  /* sorted */
	uint32_t n;
	uint32_t cap;
	uint32_t number;
	uint32_t refs; /* frontends in the map that name it */
	bool wanted;   /* by a Service */
};

struct kpr_source_maps {
	struct pb_ctx *ctx;
	struct pb_map *map4;
	struct pb_map *map6;
	struct kpr_sources *sets;
	struct kpr_sources *retired;
	uint32_t next_number;
	/* Where taking over has got to. */
	union {
		struct pb_svc_range4 v4;
		struct pb_svc_range6 v6;
	} adopt_at;
	uint8_t adopt_family; /* 4, then 6, then 0: done */
	bool adopt_begun;     /* with this family */
};

void kpr_sources_init(struct kpr_source_maps *s, struct pb_ctx *ctx, struct pb_map *map4,
		      struct pb_map *map6);
void kpr_sources_free(struct kpr_source_maps *s);

/*
 * Takes over what the maps hold: a set for each number in them. -EAGAIN: `end_ns` has come and
 * there is more; -ENOMEM or what a map said: it is over, too.
 */
int kpr_sources_adopt(struct kpr_source_maps *s, uint64_t end_ns);
/* All adopted frontends are known: sets that none of them names go. */
void kpr_sources_adopted(struct kpr_source_maps *s);
/* The set with this number; an empty one is made. NULL without memory. */
struct kpr_sources *kpr_sources_get(struct kpr_source_maps *s, uint32_t number);

bool kpr_sources_equal(const struct kpr_sources *set, const struct pb_kube_service *obj);
/*
 * A set in the maps with the ranges of a Service. -EDQUOT: a map is full; else -ENOMEM or what it
 * said. Nothing is left behind then.
 */
int kpr_sources_write(struct kpr_source_maps *s, const struct pb_kube_service *obj,
		      struct kpr_sources **ret_set);
void kpr_sources_ref(struct kpr_sources *set);
void kpr_sources_unref(struct kpr_source_maps *s, struct kpr_sources *set, uint64_t now_ns);
/* No Service wants it any more. NULL is fine. */
void kpr_sources_unwanted(struct kpr_source_maps *s, struct kpr_sources *set, uint64_t now_ns);
/* Deletes what no frontend names since `grace_ns`. */
void kpr_sources_release(struct kpr_source_maps *s, uint64_t now_ns, uint64_t grace_ns);

#endif
