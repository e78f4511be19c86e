/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of the store: what store.c (objects) and publish.c (values, time) share.
 *
 * Owns one rule: a part that may have to be published differently is in its Service's list of
 * dirty ones, and only publish.c takes it out.
 */
#ifndef ENDPOINTSLICE_STORE_PRIV_H
#define ENDPOINTSLICE_STORE_PRIV_H

#include <uthash.h>
#include <utlist.h>

#include "queue.h"
#include "store.h"

/* A slice of a Service, its Endpoints, or both if the slice is named "endpoints". */
struct es_part {
	UT_hash_handle hh;
	struct es_service *service;
	struct es_part *prev; /* in service->parts */
	struct es_part *next;
	struct es_part *dirty_prev;
	struct es_part *dirty_next;
	struct es_part *ep_prev; /* in es_store.with_endpoints */
	struct es_part *ep_next;
	const struct pb_kube_endpointslice *slice;
	const struct pb_kube_endpoints *endpoints;
	uint64_t digest; /* of key and value, as published */
	uint32_t number; /* in service->index */
	uint32_t slice_usable;
	uint32_t n_published; /* backends */
	uint32_t n_usable;    /* of them */
	bool published;
	bool dirty;
	char key[]; /* NAMESPACE/NAME/PART */
};

struct es_service {
	UT_hash_handle hh;
	struct es_waiter waiter;
	struct es_part *parts;
	struct es_part *dirty;
	struct es_part *endpoints;    /* the part with the Endpoints object */
	struct es_index *index;	      /* while there is more than one slice */
	struct pb_backends_head head; /* as it has to be; sums over the published parts */
	struct pb_backends_head told; /* as published; size 0: it isn't */
	uint64_t published_ms;
	uint64_t grace_ms; /* end of the wait for a successor; 0: no wait */
	uint32_t n_slices;
	uint32_t slices_usable; /* in the objects, doubles counted twice */
	uint32_t endpoints_usable;
	bool exists;
	bool from_endpoints;
	bool first; /* es_store_open() made it due */
	char key[]; /* NAMESPACE/NAME */
};

/* What a dirty part has to become. */
struct es_change {
	struct es_part *part;
	void *value; /* NULL: to be withdrawn */
	size_t len;
	uint64_t digest;
	uint32_t n;
	uint32_t n_usable;
};

struct es_store {
	struct es_store_ops ops;
	struct es_service *services;
	struct es_part *parts;
	struct es_part *with_endpoints;
	struct es_queue queue;
	struct es_merge merge;
	struct es_change *changes; /* scratch */
	uint32_t cap_changes;
	uint32_t first_left; /* of those that es_store_open() made due */
	struct es_counts counts;
	enum es_policy policy;
	bool open;
};

/* ---- store.c ---- */

bool es_service_reads_slices(const struct es_store *s, const struct es_service *svc);
/* Frees a part that stands for nothing, and then a Service that nobody speaks of. */
void es_part_settle(struct es_store *s, struct es_part *part);
void es_service_settle(struct es_store *s, struct es_service *svc);

/* ---- publish.c ---- */

void es_part_dirty(struct es_part *part);
/* Something about the Service changed: publishes it, now or in time. */
void es_service_touch(struct es_store *s, struct es_service *svc, uint64_t now_ms);
/* A slice of the Service is another's now, which is published first. `gaining` may be NULL. */
void es_service_touch_after(struct es_store *s, struct es_service *svc,
			    const struct es_service *gaining, uint64_t now_ms);

#endif
