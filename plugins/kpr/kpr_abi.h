/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The maps of kpr, as its programs and its user side both see them.
 *
 * Owns layouts that outlive a generation and the agent: maps stay pinned. A layout never changes
 * without a new schema number in kpr.c.
 *
 * A frontend names a pool: `count` consecutive slots from `base` on, each the number of a backend.
 * Several frontends of a Service may name one pool. A slot is one aligned store of 8 bytes, so a
 * program sees the old backend or the new one. A backend's record never changes while a slot
 * names it, and its number is used again only after no program can still hold it. Record and slot
 * carry the id of their pool: whoever followed something stale notices and looks again.
 */
#ifndef KPR_ABI_H
#define KPR_ABI_H

#include <patchbay/abi.h>

struct kpr_key {
	union pb_addr addr;
	__be16 port;
	__u8 protocol; /* UDPLITE counts as UDP */
	__u8 family;   /* 4 or 6; an IPv4 address in IPv6 dress is looked up as 4 */
};

/* struct kpr_service.flags */
#define KPR_SERVICE_FAIL_OPEN (1U << 0) /* no backend: let the call go on untranslated */

/* Map kpr_services, by struct kpr_key. */
struct kpr_service {
	__u32 id;    /* of this frontend; a new one when it goes to another Service */
	__u32 tie;   /* kpr_tie() of the key and the pool's id; 0 without a pool */
	__u32 base;  /* the pool's first slot */
	__u32 count; /* how many of its slots hold backends */
	__u32 flags;
	__u32 room;  /* slots in the pool's range, a power of two */
	__u64 owner; /* hash of the Service's namespace and name */
};

/* Map kpr_slots, an array. Read and written as one number of 8 bytes. */
struct kpr_slot {
	__u32 backend; /* index in kpr_backends */
	__u32 pool;
} __attribute__((aligned(8)));

/* Map kpr_backends, an array. */
struct kpr_backend {
	union pb_addr addr;
	__be16 port;
	__u8 family;
	__u8 reserved;
	__u32 pool; /* the one that uses this record, or used it last */
};

/* Which frontend a socket meant when it was sent to a backend. */
struct kpr_reverse_key {
	__u64 cookie;
	union pb_addr addr;
	__be16 port;
	__u8 protocol;
	__u8 family;
	__u32 reserved;
};

struct kpr_reverse {
	struct kpr_key frontend;
	__u32 id;
};

/*
 * Ties an entry of kpr_services to its key. The kernel may reuse the memory of a hash element
 * while a program still reads it; the pool that the program derives from another key's entry
 * is none of the slots it then looks at. Its own inverse: kpr_tie(key, tie) is the pool.
 */
static inline __u32 kpr_tie(const struct kpr_key *key, __u32 pool)
{
	__u64 h = ((__u64)key->addr.v6[1] << 32 | key->addr.v6[0]) * 0x9e3779b97f4a7c15ULL;

	h = (h ^ ((__u64)key->addr.v6[3] << 32 | key->addr.v6[2])) * 0xbf58476d1ce4e5b9ULL;
	h ^= h >> 29;
	h = (h ^ ((__u32)key->port << 16 | (__u32)key->protocol << 8 | key->family)) *
	    0x94d049bb133111ebULL;
	return (__u32)(h >> 32) ^ pool;
}

#ifndef __bpf__
_Static_assert(sizeof(struct kpr_service) == 32, "pinned");
_Static_assert(sizeof(struct kpr_slot) == 8, "pinned");
_Static_assert(sizeof(struct kpr_backend) == 24, "pinned");
#endif

#endif
