/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One Service's EndpointSlices (or its Endpoints) merged into one value of topic "backends".
 *
 * Owns the rules of docs/behaviour/endpointslice.md about which endpoint counts and how doubles
 * are resolved. Pure: no host, no clock. Nothing here depends on the order in which the objects
 * came, so the same objects always give the same bytes.
 */
#ifndef ENDPOINTSLICE_MERGE_H
#define ENDPOINTSLICE_MERGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <patchbay/kube.h>
#include <patchbay/topics/backends.h>

/* Scratch memory, kept over many merges. Zero it before the first. */
struct es_merge {
	const char *node; /* this node, for PB_BACKEND_LOCAL; interned or not */
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
void es_merge_slice(struct es_merge *m, const struct pb_kube_endpointslice *slice);
void es_merge_endpoints(struct es_merge *m, const struct pb_kube_endpoints *ep);
/* -ENOMEM when any step lacked memory; then nothing was made. */
int es_merge_finish(struct es_merge *m, struct es_merged *ret_merged);
void es_merge_free(struct es_merge *m);

/* enum pb_backend_state of an endpoint with these conditions; 0: not to be published. */
uint8_t es_state(uint32_t conditions);

#endif
