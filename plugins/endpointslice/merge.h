/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One EndpointSlice, or one Endpoints, made into a part of topic "backends".
 *
 * Owns the rules of docs/behaviour/endpointslice.md about which endpoint counts and how doubles
 * inside of an object are resolved; those between slices are index.h's. Pure: no host, no clock.
 * The same objects always give the same bytes.
 */
#ifndef ENDPOINTSLICE_MERGE_H
#define ENDPOINTSLICE_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <patchbay/kube.h>
#include <patchbay/topics/backends.h>

#include "index.h"

/* Scratch memory, kept over many merges. Zero it before the first. */
struct es_merge {
	const char *node; /* this node, for PB_BACKEND_LOCAL; interned or not */
	bool all;	  /* every address of an endpoint counts */
	char *value;	  /* struct pb_backends, its array and, once finished, the strings */
	size_t value_cap;
	uint32_t n;
	char *strings;
	size_t strings_len;
	size_t strings_cap;
	struct es_string *table; /* where a string went, by its address */
	uint32_t table_len;
	uint32_t table_used;
	uint32_t round; /* entries of earlier rounds don't count */
	uint64_t work;	/* backends looked at so far */
	int error;	/* the first one since es_merge_begin() */
};

/* What es_merge_finish() made; valid until the next es_merge_begin(). */
struct es_merged {
	const struct pb_backends *value;
	size_t len;
	uint32_t n_usable; /* backends that new connections may be sent to */
	uint64_t digest;
};

void es_merge_begin(struct es_merge *m);
/* With `ix`, which knows the slice as `number`, only the backends that belong to this slice. */
void es_merge_slice(struct es_merge *m, const struct pb_kube_endpointslice *slice,
		    struct es_index *ix, uint32_t number);
void es_merge_endpoints(struct es_merge *m, const struct pb_kube_endpoints *ep);
/* -ENOMEM when any step lacked memory; then nothing was made. */
int es_merge_finish(struct es_merge *m, struct es_merged *ret_merged);
void es_merge_free(struct es_merge *m);

/* How many backends the Endpoints object has, up to ES_PLACES_MAX. */
uint32_t es_endpoints_places(const struct pb_kube_endpoints *ep);

#endif
