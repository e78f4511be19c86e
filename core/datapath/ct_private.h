/* SPDX-License-Identifier: Apache-2.0 */
/* What the files ct*.c share: walking the map, one run of the clean-up, filters and rows. */
#ifndef PB_CT_PRIVATE_H
#define PB_CT_PRIVATE_H

#include <stdatomic.h>

#include <datapath/ct.h>

/* ---- ct_walk.c ---- */

#define PB_CT_CHUNK 4096 /* entries read with one system call */

/* Where a walk stands. Zeroed: at the start. */
struct pb_ct_place {
	bool by_key; /* without batches: an older kernel, or a test asks for it */
	bool begun;
	bool ended;
	uint32_t bucket;
	struct pb_ct_key key;
};

/*
 * Reads up to `max` entries behind the place and moves it. -ENOSPC: `max` is less than what the
 * kernel keeps in one place; -E2BIG: so much changes that a walk by keys doesn't end.
 */
int pb_ct_read(int fd, struct pb_ct_place *place, struct pb_ct_key *keys, struct pb_ct *values,
	       uint32_t max, uint32_t *ret_n);
/* Text of a place, and back. -EINVAL. */
void pb_ct_place_text(const struct pb_ct_place *place, char *buf, size_t len);
#define PB_CT_PLACE_TEXT 96
int pb_ct_place_parse(const char *text, struct pb_ct_place *ret_place);

struct pb_ct_walk {
	int fd;
	uint32_t max_entries;
	bool by_key;
	const atomic_bool *cancel; /* NULL: it can't be called off */
	uint64_t looks;		   /* entries read */
	/* By keys only: a deleted key sends the kernel back to the start; then it is given up. */
	bool incomplete;
};
/* A chunk of entries; negative ends the walk and is returned. */
typedef int (*pb_ct_chunk_fn)(void *arg, const struct pb_ct_key *keys, const struct pb_ct *values,
			      uint32_t n);
int pb_ct_walk(struct pb_ct_walk *walk, pb_ct_chunk_fn fn, void *arg);

/* The key of the other half: the reverse of what this one's packets are translated to. */
struct pb_ct_key pb_ct_pair(const struct pb_ct_key *key, const struct pb_ct *ct);

/* ---- ct_gc.c ---- */

/* Keys to be deleted, both halves of flows. */
struct pb_ct_doomed {
	int fd;
	uint32_t n_first, n_second;
	/* Few: a flow that is begun anew meanwhile goes too. */
	struct pb_ct_key first[64], second[64];
	uint64_t deleted;
};
/* `pair` NULL: there is none. Deletes when it is full; pb_ct_doomed_end() deletes the rest. */
int pb_ct_doom(struct pb_ct_doomed *doomed, const struct pb_ct_key *key, const struct pb_ct *ct,
	       const struct pb_ct_key *pair);
int pb_ct_doomed_end(struct pb_ct_doomed *doomed);
/*
 * Deletes those of the client's halves that are there without their pair: begun anew on the claim
 * of the old flow, between the deletions of its two halves.
 */
int pb_ct_repair(int fd, const struct pb_ct_key *keys, uint32_t n);

struct pb_ct_gc {
	uint64_t seen; /* a pair that went with its other half isn't */
	uint64_t kept, deleted;
	uint64_t orphans; /* halves whose pair was missing */
	bool incomplete;
};
/*
 * [pool] Deletes what has expired at `now_s`. An entry whose pair lives stays, and so does its
 * pair; that a walk didn't show an entry means nothing, the map is asked.
 */
int pb_ct_gc_run(struct pb_ct_walk *walk, uint32_t now_s, struct pb_ct_gc *ret_gc);
/* How long until the next run, from 10 s to 12 h: the fuller the map the sooner. */
uint32_t pb_ct_gc_interval(uint32_t last_s, const struct pb_ct_gc *gc, uint32_t max_entries);

/* ---- ct_filter.c ---- */

struct pb_ct_filter {
	bool has_address, has_port, has_protocol, has_family, has_zone, has_state;
	bool has_frontend, has_backend;
	union pb_addr address;
	__be16 port;
	uint8_t protocol, family, zone, state;
	uint8_t address_family;
	uint16_t flags; /* all of them must be set */
	uint32_t frontend, backend;
};
/* "address=10.0.0.1 port=80": what is given must all be so. "": everything. */
int pb_ct_filter_parse(const char *text, struct pb_ct_filter *ret_filter, struct pb_err *err);
bool pb_ct_filter_passes(const struct pb_ct_filter *filter, const struct pb_ct_key *key,
			 const struct pb_ct *ct);
/* Names for rows and filters. `buf` for what has none. */
const char *pb_ct_protocol_name(uint8_t protocol, char *buf, size_t len);
const char *pb_ct_zone_name(uint8_t zone);
const char *pb_ct_state_name(uint8_t state);
void pb_ct_flags_text(uint16_t set, char *buf, size_t len);

/* ---- ct_rows.c ---- */

/* An empty table of `ct list` or `nat list`. */
cJSON *pb_ct_rows_new(bool nat, cJSON **ret_items);
void pb_ct_row(cJSON *items, const struct pb_ct_key *key, const struct pb_ct *ct, uint32_t now_s);
/* Is this half a row of `nat list`? */
bool pb_ct_is_nat(const struct pb_ct_key *key, const struct pb_ct *ct);
void pb_ct_nat_row(cJSON *items, const struct pb_ct_key *key, const struct pb_ct *ct,
		   uint32_t now_s);

/* ---- ct_ask.c ---- */

/* [pool] */
cJSON *pb_ct_page(int fd, const char *filter, const char *after, bool nat, uint32_t now_s,
		  struct pb_err *err);
/* [pool] Returns how many entries went, or a negative errno. */
int64_t pb_ct_flush_run(struct pb_ct_walk *walk, const struct pb_ct_filter *filter);

/* Seconds of the clock that entries expire by. */
uint32_t pb_ct_now(void);

#endif
