/* SPDX-License-Identifier: Apache-2.0 */
/*
 * An open hash of places, with linear probing. Equal backends of several slices are neighbours
 * with the same hash; each slice has at most one slot for a backend.
 */
#include "index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <patchbay/topics/backends.h>

#define SLOTS_MIN 64U
#define TURN_BIT 0x80000000U
#define NONE UINT32_MAX

/* A backend while it is looked for. */
struct es_key {
	const struct pb_slice_port *port;
	const union pb_addr *addr;
	uint32_t family;
	uint32_t hash;
};

/* Who has a backend: slots, or NONE. */
struct es_holders {
	uint32_t mine;
	uint32_t other; /* the best of the others */
};

uint8_t es_state(uint32_t conditions)
{
	if (conditions & PB_ENDPOINT_READY)
		return PB_BACKEND_ACTIVE;
	if (!(conditions & PB_ENDPOINT_TERMINATING))
		return 0;
	return conditions & PB_ENDPOINT_SERVING ? PB_BACKEND_TERMINATING : PB_BACKEND_DRAINING;
}

bool es_port_usable(const struct pb_slice_port *port)
{
	return port->port != 0 && port->protocol != 0;
}

uint32_t es_slice_width(const struct pb_kube_endpointslice *slice, bool all)
{
	return slice->n_endpoints + (all ? slice->n_further : 0);
}

const struct pb_endpoint_entry *es_slice_entry(const struct pb_kube_endpointslice *slice,
					       uint32_t i, const union pb_addr **ret_addr)
{
	const struct pb_further_addr *further;

	if (i < slice->n_endpoints) {
		*ret_addr = &slice->endpoints[i].addr;
		return &slice->endpoints[i];
	}
	further = &slice->further[i - slice->n_endpoints];
	*ret_addr = &further->addr;
	return &slice->endpoints[further->endpoint];
}

uint32_t es_slice_places(const struct pb_kube_endpointslice *slice, bool all)
{
	uint64_t n = slice ? (uint64_t)slice->n_ports * es_slice_width(slice, all) : 0;

	return n < ES_PLACES_MAX ? (uint32_t)n : ES_PLACES_MAX;
}

/* ---- places ---- */

static uint64_t mix(uint64_t h)
{
	h = (h ^ h >> 32) * 0xd6e8feb86659fd93ULL;
	h = (h ^ h >> 32) * 0xd6e8feb86659fd93ULL;
	return h ^ h >> 32;
}

static uint32_t key_hash(const struct es_index *ix, const struct es_key *key)
{
	uint64_t h = ix->seed ^ ((uint64_t)key->port->port << 16 |
				 (uint64_t)key->port->protocol << 8 | key->family);
	uint64_t words[2];

	for (const char *c = key->port->name; *c; c++)
		h = (h ^ (unsigned char)*c) * 0x100000001b3ULL;
	memcpy(words, key->addr, sizeof(words));
	return (uint32_t)mix(mix(mix(h) ^ words[0]) ^ words[1]);
}

/* What is at the place, without its hash; returns its state. */
static uint8_t read_place(const struct es_index *ix, const struct pb_kube_endpointslice *slice,
			  uint32_t place, struct es_key *ret_key)
{
	uint32_t width = es_slice_width(slice, ix->all);
	const struct pb_endpoint_entry *e = es_slice_entry(slice, place % width, &ret_key->addr);

	ret_key->port = &slice->ports[place / width];
	ret_key->family = slice->family;
	return es_state(e->conditions);
}

/* The key of the place and its state; 0 when nothing is published of it. */
static uint8_t key_at(const struct es_index *ix, const struct pb_kube_endpointslice *slice,
		      uint32_t place, struct es_key *ret_key)
{
	uint8_t state = read_place(ix, slice, place, ret_key);

	if (state == 0 || !es_port_usable(ret_key->port))
		return 0;
	ret_key->hash = key_hash(ix, ret_key);
	return state;
}

static bool is_old(const struct es_index *ix, const struct es_index_slot *slot)
{
	return (slot->place & TURN_BIT) != ix->slices[slot->slice - 1].turn;
}

static const struct pb_kube_endpointslice *slice_of(const struct es_index *ix,
						    const struct es_index_slot *slot)
{
	const struct es_indexed *s = &ix->slices[slot->slice - 1];

	return is_old(ix, slot) ? s->old : s->now;
}

static bool holds(const struct es_index *ix, const struct es_index_slot *slot,
		  const struct es_key *key)
{
	struct es_key has;

	++*ix->work;
	read_place(ix, slice_of(ix, slot), slot->place & ~TURN_BIT, &has);
	return has.family == key->family && has.port->port == key->port->port &&
	       has.port->protocol == key->port->protocol &&
	       memcmp(has.addr, key->addr, sizeof(*key->addr)) == 0 &&
	       strcmp(has.port->name, key->port->name) == 0;
}

static uint8_t slot_state(const struct es_index *ix, uint32_t i)
{
	struct es_key key;

	return read_place(ix, slice_of(ix, &ix->slots[i]), ix->slots[i].place & ~TURN_BIT, &key);
}

/* Whether the backend belongs to slot a's slice rather than to slot b's. */
static bool beats(const struct es_index *ix, uint32_t a, uint32_t b)
{
	uint8_t state_a = slot_state(ix, a), state_b = slot_state(ix, b);

	if (state_a != state_b)
		return state_a < state_b;
	return strcmp(slice_of(ix, &ix->slots[a])->meta.name,
		      slice_of(ix, &ix->slots[b])->meta.name) < 0;
}

static bool owns(const struct es_index *ix, const struct es_holders *h)
{
	return h->mine != NONE && (h->other == NONE || beats(ix, h->mine, h->other));
}

/* ---- slots ---- */

/*
 * The best of all who have a backend stands before the others, so most of them need no look: a
 * thousand slices may show the same thousand backends.
 */
static struct es_holders look(struct es_index *ix, const struct es_key *key, uint32_t number)
{
	struct es_holders h = {.mine = NONE, .other = NONE};
	uint32_t mask = ix->n_slots - 1;
	bool best_found = false;

	for (uint32_t i = key->hash & mask; ix->slots[i].slice; i = (i + 1) & mask) {
		bool mine = ix->slots[i].slice == number + 1;

		if (ix->slots[i].hash != key->hash || (!mine && best_found) ||
		    !holds(ix, &ix->slots[i], key))
			continue;
		if (mine)
			h.mine = i;
		else if (h.other == NONE || beats(ix, i, h.other))
			h.other = i;
		best_found = h.mine == NONE;
	}
	return h;
}

/* The best of those who have the backend, or a free slot. */
static uint32_t first(const struct es_index *ix, const struct es_key *key)
{
	uint32_t mask = ix->n_slots - 1;
	uint32_t i = key->hash & mask;

	while (ix->slots[i].slice &&
	       (ix->slots[i].hash != key->hash || !holds(ix, &ix->slots[i], key)))
		i = (i + 1) & mask;
	return i;
}

/* Puts the best of those who have a backend before the others; returns where it is now. */
static uint32_t to_front(struct es_index *ix, const struct es_key *key, uint32_t best)
{
	struct es_index_slot slot = ix->slots[best];
	uint32_t i = first(ix, key);

	ix->slots[best] = ix->slots[i];
	ix->slots[i] = slot;
	return i;
}

static uint32_t insert(struct es_index *ix, struct es_index_slot slot)
{
	uint32_t mask = ix->n_slots - 1;
	uint32_t i = slot.hash & mask;

	while (ix->slots[i].slice)
		i = (i + 1) & mask;
	ix->slots[i] = slot;
	ix->used++;
	return i;
}

/* Closes the gap, so that nothing behind it is cut off from its place in the table. */
static void erase(struct es_index *ix, uint32_t hole)
{
	uint32_t mask = ix->n_slots - 1;

	for (uint32_t i = (hole + 1) & mask; ix->slots[i].slice; i = (i + 1) & mask) {
		uint32_t home = ix->slots[i].hash & mask;

		if (((i - home) & mask) < ((i - hole) & mask))
			continue;
		ix->slots[hole] = ix->slots[i];
		hole = i;
	}
	ix->slots[hole] = (struct es_index_slot){0};
	ix->used--;
}

static int resize(struct es_index *ix, uint32_t n_slots)
{
	struct es_index_slot *old = ix->slots;
	uint32_t n_old = ix->n_slots;
	uint32_t from = 0;
	struct es_index_slot *slots = calloc(n_slots, sizeof(*slots));

	if (!slots)
		return -ENOMEM;
	ix->slots = slots;
	ix->n_slots = n_slots;
	ix->used = 0;
	/* From behind a free slot: the order of those who have the same backend has to stay. */
	while (n_old > 0 && old[from].slice)
		from++;
	for (uint32_t i = 0; i < n_old; i++)
		if (old[(from + i) % n_old].slice)
			insert(ix, old[(from + i) % n_old]);
	free(old);
	return 0;
}

/* Room for `more`, at most three quarters full. */
static int reserve(struct es_index *ix, uint32_t more)
{
	uint64_t need = (uint64_t)ix->used + more;
	uint64_t n = ix->n_slots ? ix->n_slots : SLOTS_MIN;

	while (4 * need > 3 * n)
		n *= 2;
	if (n > UINT32_MAX / 2)
		return -ENOMEM;
	return n == ix->n_slots ? 0 : resize(ix, (uint32_t)n);
}

/* A smaller table that can't be had is no error. */
static void shrink(struct es_index *ix)
{
	uint32_t n = ix->n_slots;

	while (n > SLOTS_MIN && ix->used < n / 8)
		n /= 2;
	if (n < ix->n_slots)
		(void)resize(ix, n);
}

/* ---- slices ---- */

int es_index_join(struct es_index *ix, void *part, uint32_t *ret_number)
{
	uint32_t cap = ix->cap_slices ? 2 * ix->cap_slices : 4;
	uint32_t number = ix->n_slices;
	void *p;

	if (ix->free_slice) {
		number = ix->free_slice - 1;
		ix->free_slice = ix->slices[number].next_free;
	} else if (ix->n_slices == ix->cap_slices) {
		p = realloc(ix->slices, cap * sizeof(*ix->slices));
		if (!p)
			return -ENOMEM;
		ix->slices = p;
		ix->cap_slices = cap;
	}
	if (number == ix->n_slices)
		ix->n_slices++;
	ix->slices[number] = (struct es_indexed){.part = part};
	*ret_number = number;
	return 0;
}

static void tell(struct es_index *ix, uint32_t slot)
{
	ix->changed(ix->arg, ix->slices[ix->slots[slot].slice - 1].part);
}

static void enter(struct es_index *ix, uint32_t number, uint32_t place)
{
	struct es_indexed *s = &ix->slices[number];
	struct es_index_slot slot = {.slice = number + 1, .place = place | s->turn};
	struct es_holders h;
	struct es_key key;
	uint8_t state = key_at(ix, s->now, place, &key);
	bool owned, owns_now;

	if (state == 0)
		return;
	h = look(ix, &key, number);
	owned = owns(ix, &h);
	slot.hash = key.hash;
	if (h.mine == NONE) {
		h.mine = insert(ix, slot);
		ix->doubles += h.other != NONE;
	} else if (is_old(ix, &ix->slots[h.mine]) || state < slot_state(ix, h.mine)) {
		ix->slots[h.mine] = slot;
	}
	if (h.other == NONE)
		return;
	owns_now = owns(ix, &h);
	if (owned != owns_now)
		tell(ix, h.other);
	to_front(ix, &key, owns_now ? h.mine : h.other);
}

static void leave(struct es_index *ix, uint32_t number, uint32_t place)
{
	struct es_holders h;
	struct es_key key;

	if (key_at(ix, ix->slices[number].old, place, &key) == 0)
		return;
	h = look(ix, &key, number);
	if (h.mine == NONE || !is_old(ix, &ix->slots[h.mine]))
		return;
	if (h.other != NONE) {
		ix->doubles--;
		if (owns(ix, &h))
			tell(ix, h.other);
		if (to_front(ix, &key, h.other) == h.mine)
			h.mine = h.other;
	}
	erase(ix, h.mine);
}

int es_index_put(struct es_index *ix, uint32_t number, const struct pb_kube_endpointslice *now)
{
	struct es_indexed *s = &ix->slices[number];
	int rc = reserve(ix, es_slice_places(now, ix->all));

	s->old = s->now;
	s->now = rc < 0 ? NULL : now;
	s->turn ^= TURN_BIT;
	for (uint32_t i = 0, n = es_slice_places(s->now, ix->all); i < n; i++)
		enter(ix, number, i);
	for (uint32_t i = 0, n = es_slice_places(s->old, ix->all); i < n; i++)
		leave(ix, number, i);
	s->old = NULL;
	if (!s->now) {
		s->next_free = ix->free_slice;
		ix->free_slice = number + 1;
	}
	shrink(ix);
	return rc;
}

bool es_index_owns(struct es_index *ix, uint32_t number, uint32_t port, uint32_t i)
{
	const struct pb_kube_endpointslice *now = ix->slices[number].now;
	struct es_key key;

	if (!now || key_at(ix, now, port * es_slice_width(now, ix->all) + i, &key) == 0)
		return false;
	return ix->slots[first(ix, &key)].slice == number + 1;
}

void es_index_free(struct es_index *ix)
{
	free(ix->slots);
	free(ix->slices);
	memset(ix, 0, sizeof(*ix));
}
