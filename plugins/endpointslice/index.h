/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which backends of one Service are in several of its EndpointSlices, and which slice has them.
 *
 * Owns the rule for doubles: a backend belongs to the slice that shows it in the better state;
 * among equals to the one whose name comes first. Made for Services with more than one slice:
 * about 20 bytes a backend, since a slot only names a slice and a place in it. Replacing a slice
 * looks at the backends of the old and the new one and at nothing else; never depends on the
 * order in which slices came.
 */
#ifndef ENDPOINTSLICE_INDEX_H
#define ENDPOINTSLICE_INDEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <patchbay/kube.h>

/* What the API allows: 100 ports times 1000 endpoints. What is beyond in an object is left out. */
#define ES_PLACES_MAX 100000U

struct es_index_slot {
	uint32_t hash;
	uint32_t slice; /* its number plus one; 0: the slot is free */
	uint32_t place; /* port * width + number in it; top bit as in es_indexed.turn */
};

struct es_indexed {
	const struct pb_kube_endpointslice *now;
	const struct pb_kube_endpointslice *old; /* while `now` is being taken in */
	void *part;
	uint32_t turn;	    /* top bit of the places in `now`; those in `old` have the other */
	uint32_t next_free; /* while the number is free: the next free one plus one */
};

struct es_index {
	struct es_index_slot *slots;
	struct es_indexed *slices;
	uint64_t seed;	/* so that nobody can choose addresses that collide */
	uint64_t *work; /* counts the backends that are looked at */
	uint32_t n_slots;
	uint32_t used;
	uint32_t n_slices;
	uint32_t cap_slices;
	uint32_t free_slice; /* a free number plus one; 0: none */
	bool all;	     /* every address of an endpoint counts, not only the first */
	uint32_t doubles;    /* slots beyond the first of the same backend */
	void (*changed)(void *arg, void *part); /* the part gains or loses a backend */
	void *arg;
};

/* A number for a slice of the Service; it has no backends yet. -ENOMEM. */
int es_index_join(struct es_index *ix, void *part, uint32_t *ret_number);
/*
 * The slice is `now` from here on; NULL: gone, and its number free. The one before must still be
 * valid. changed() is called for every other part that gains or loses a backend by it. -ENOMEM:
 * as with NULL.
 */
int es_index_put(struct es_index *ix, uint32_t number, const struct pb_kube_endpointslice *now);
/* Whether the backend at this place belongs to this slice; `i` as in es_slice_entry(). */
bool es_index_owns(struct es_index *ix, uint32_t number, uint32_t port, uint32_t i);
void es_index_free(struct es_index *ix);

/* enum pb_backend_state of an endpoint with these conditions; 0: not to be published. */
uint8_t es_state(uint32_t conditions);
/* A port without number stands for all ports, one without protocol for a foreign one. */
bool es_port_usable(const struct pb_slice_port *port);
/* How many addresses of the slice count: the first of each endpoint, or all. */
uint32_t es_slice_width(const struct pb_kube_endpointslice *slice, bool all);
/* Address i of them, and whose it is. */
const struct pb_endpoint_entry *es_slice_entry(const struct pb_kube_endpointslice *slice,
					       uint32_t i, const union pb_addr **ret_addr);
/* How many pairs of port and address of the slice count. */
uint32_t es_slice_places(const struct pb_kube_endpointslice *slice, bool all);

#endif
