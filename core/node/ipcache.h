/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Prefix -> identity: what is claimed of an address, and what the two LPM maps hold of it.
 *
 * Owns the claims of all sources and keeps the maps equal to the strongest claim of each prefix.
 * Every claim is remembered, so that when a stronger one goes the weaker shows through. Entries
 * of an earlier process stay as they are until they are claimed or swept. A map that is full keeps
 * what it has; what had no room is written when there is some. Knows no BPF: the maps are the
 * environment's.
 */
#ifndef PB_NODE_IPCACHE_H
#define PB_NODE_IPCACHE_H

#include <base/base.h>
#include <patchbay/kube.h>

struct pb_ipcache;
struct pb_ip_entry;

/* What a claim says. Of equal sources the higher rank counts, then the claim made later. */
struct pb_ip_says {
	uint32_t identity;
	uint8_t source; /* enum pb_ip_source */
	uint8_t rank;
	__be32 node4;
	const char *who; /* for lists; lives as long as the claim */
};

/* A claim to a prefix, a member of whoever makes it. All zero: none. */
struct pb_ip_claim {
	struct pb_ip_claim *prev, *next;
	struct pb_ip_entry *entry;
	uint64_t seq;
	struct pb_ip_says says;
};

struct pb_ipcache_env {
	/* Write and delete in the map of the prefix' family; negative errno. */
	int (*put)(void *arg, const struct pb_cidr *prefix, const struct pb_ipcache_value *value);
	int (*del)(void *arg, const struct pb_cidr *prefix);
	void *arg;
	uint32_t max[2]; /* entries that the maps of IPv4 and IPv6 have room for */
};

int pb_ipcache_new(const struct pb_ipcache_env *env, struct pb_ipcache **ret_cache);
/* The maps stay as they are; claims that are left belong to their owners. Returns NULL. */
struct pb_ipcache *pb_ipcache_free(struct pb_ipcache *cache);
/* From now on no map is written: the process ends, its entries stay. */
void pb_ipcache_freeze(struct pb_ipcache *cache);

/* The prefix of a single address. */
struct pb_cidr pb_ip_prefix(const struct pb_kube_addr *addr);
/* True for a family of ours and no bits outside of the prefix. */
bool pb_cidr_valid(const struct pb_cidr *cidr);

/* An entry that the map has from an earlier process. */
int pb_ipcache_adopt(struct pb_ipcache *cache, const struct pb_cidr *prefix,
		     const struct pb_ipcache_value *value);
/*
 * Makes a claim, or changes what it says when it is for this prefix already. -ENOMEM. That the map
 * had no room is no error here: see pb_ipcache_waiting().
 */
int pb_ipcache_claim(struct pb_ipcache *cache, struct pb_ip_claim *claim,
		     const struct pb_cidr *prefix, const struct pb_ip_says *says);
/* Takes a claim back. One that is not made: fine. */
void pb_ipcache_unclaim(struct pb_ipcache *cache, struct pb_ip_claim *claim);
/* Is what the claim's entry should say in the map? */
bool pb_ipcache_written(const struct pb_ip_claim *claim);

/*
 * Deletes entries of an earlier process that nobody claims: those of ranges, or all others. Looks
 * at up to `max` entries; true: there are more to look at. Once it has returned false it need not
 * be called again.
 */
bool pb_ipcache_sweep(struct pb_ipcache *cache, bool ranges, unsigned max);
/*
 * Tries again to write up to `max` of what failed. True: it ended with success and more is left.
 * False: nothing is left, or there is still no room.
 */
bool pb_ipcache_retry(struct pb_ipcache *cache, unsigned max);

struct pb_ipcache_counts {
	uint32_t entries[2]; /* in the maps, by family */
	uint32_t max[2];
	uint32_t waiting; /* that had no room */
	int error;	  /* why, of the last one; 0 */
};
struct pb_ipcache_counts pb_ipcache_count(const struct pb_ipcache *cache);

/* One entry as it is in the map, for lists. */
struct pb_ip_row {
	struct pb_cidr prefix;
	struct pb_ipcache_value value;
	uint64_t seq;	 /* rows come in this order */
	const char *who; /* of the strongest claim, "" without one */
	uint32_t n_claims;
	bool adopted; /* of an earlier process, not yet claimed */
};
/*
 * The row behind the one that had `prefix` and `seq` (NULL: the first), also when that has gone.
 * False at the end.
 */
bool pb_ipcache_next(struct pb_ipcache *cache, const struct pb_cidr *prefix, uint64_t seq,
		     struct pb_ip_row *ret_row);

#endif
