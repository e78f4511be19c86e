/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The maps of kpr, as its programs and its user side both see them.
 *
 * Owns layouts that outlive a generation and the agent: maps stay pinned. A layout never changes
 * without a new schema number in kpr.c.
 *
 * A frontend's backends are `count` consecutive slots of the backend array from `base` on. A
 * range is written before the frontend points to it and left alone until no program can still
 * be reading it, so a program sees the old range or the new one and never a mixture.
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

struct kpr_service {
	__u32 id; /* of this frontend; a new one when it goes to another Service */
	__u32 base;
	__u32 count;
	__u32 flags;
	__u64 digest; /* of the addresses in the range: unchanged ones are not written again */
	__u64 owner;  /* hash of the Service's namespace and name */
};

struct kpr_backend {
	union pb_addr addr;
	__be16 port;
	__u8 family;
	__u8 reserved;
	__u32 id;    /* of the frontend */
	__u32 check; /* kpr_check() of the frontend */
	__u32 reserved2;
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
 * Ties a slot to its frontend. The kernel may reuse the memory of a hash element while a program
 * still reads it; with this the program notices that it read another frontend's range.
 */
static inline __u32 kpr_check(const struct kpr_key *key)
{
	__u32 a = key->addr.v6[0] ^ (key->addr.v6[1] * 3U);
	__u32 b = key->addr.v6[2] ^ (key->addr.v6[3] * 5U);
	__u32 c = ((__u32)key->port << 16) | ((__u32)key->protocol << 8) | key->family;

	return a + b * 7U + c * 11U;
}

#endif
