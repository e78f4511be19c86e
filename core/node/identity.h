/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Numbers for sets of labels: equal sets have equal numbers, also after a restart.
 *
 * Owns the numbers of pods (PB_IDENTITY_FIRST and following) and of ranges (PB_IDENTITY_CIDR and
 * following). A number is written to the pinned map before anybody gets it, published before it is
 * used, withdrawn when its last holder lets go, and given to other labels only after a time of
 * grace, so that whoever has it in a map can take it out. Knows neither pods nor BPF: the map, the
 * topic and the clock are the environment's.
 */
#ifndef PB_NODE_IDENTITY_H
#define PB_NODE_IDENTITY_H

#include <base/base.h>

#define PB_IDENT_DIGEST 32
#define PB_IDENT_GRACE_NS 30000000000ULL

struct pb_idents;

enum pb_ident_range {
	PB_IDENT_POD = 0,
	PB_IDENT_CIDR = 1,
	PB_IDENT_RANGES = 2,
};

/* One identity somebody holds. Labels in the canonical form of labels.h. */
struct pb_ident {
	uint32_t number;
	enum pb_ident_range range;
	uint32_t refs;
	uint32_t n_labels;
	const char *labels;
	size_t labels_len;
};

struct pb_ident_env {
	/* The pinned map. put() fails with a negative errno when there is no room. */
	int (*put)(void *arg, uint32_t number, const uint8_t *digest);
	void (*del)(void *arg, uint32_t number);
	void (*publish)(void *arg, const struct pb_ident *ident);
	void (*withdraw)(void *arg, const struct pb_ident *ident);
	uint64_t (*now_ns)(void); /* monotonic */
	void *arg;
};

int pb_idents_new(const struct pb_ident_env *env, struct pb_idents **ret_idents);
/* Tells nobody anything: the pinned map stays as it is. NULL is fine. Returns NULL. */
struct pb_idents *pb_idents_free(struct pb_idents *idents);

/* An entry of the map of an earlier process. -EINVAL: no number of ours, or taken already. */
int pb_idents_adopt(struct pb_idents *idents, uint32_t number, const uint8_t *digest);
/*
 * The identity of these labels; takes a reference. -ENOSPC: no number is free, or the map has no
 * room; -ENOMEM.
 */
int pb_idents_get(struct pb_idents *idents, enum pb_ident_range range, const void *labels,
		  size_t len, uint32_t n_labels, struct pb_ident **ret_ident);
struct pb_ident *pb_idents_ref(struct pb_ident *ident);
/* Lets go; the last one withdraws it. NULL is fine. Returns NULL. */
struct pb_ident *pb_idents_put(struct pb_idents *idents, struct pb_ident *pub);
/* One that somebody holds, by its number; NULL. Takes no reference. */
struct pb_ident *pb_idents_find(struct pb_idents *idents, uint32_t number);

/*
 * Up to `max` adopted numbers that nobody has claimed begin their time of grace. True: there are
 * more.
 */
bool pb_idents_sweep(struct pb_idents *idents, enum pb_ident_range range, unsigned max);
/*
 * Frees up to `max` numbers whose time is over. Returns the nanoseconds until the next one is due
 * (0: now), UINT64_MAX when none waits.
 */
uint64_t pb_idents_expire(struct pb_idents *idents, unsigned max, unsigned *ret_freed);

/* Publishes all that are held, to somebody who comes later. */
void pb_idents_publish_all(struct pb_idents *idents);
/* The one with the lowest number above `after` that somebody holds; NULL at the end. */
struct pb_ident *pb_idents_next(struct pb_idents *idents, uint32_t after);

struct pb_ident_counts {
	uint32_t held;
	uint32_t kept; /* in their time of grace, or adopted and not yet claimed */
	uint32_t room; /* numbers of the range */
};
struct pb_ident_counts pb_idents_count(const struct pb_idents *idents, enum pb_ident_range which);

#endif
