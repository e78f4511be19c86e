/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The maps of kpr that are nobody else's, as its programs and its user side both see them. Those
 * that others may read are in patchbay/maps/services.h.
 *
 * Owns layouts that outlive a generation and the agent: maps stay pinned. A layout never changes
 * without a new schema number in kpr.c.
 */
#ifndef KPR_ABI_H
#define KPR_ABI_H

#include <patchbay/maps/services.h>

/* Map kpr_reverse, LRU: which frontend a socket meant when it was sent to a backend. */
struct kpr_reverse_key {
	__u64 cookie;
	union pb_addr addr;
	__be16 port;
	__u8 protocol;
	__u8 family;
	__u32 reserved;
};

/* struct kpr_reverse.flags */
#define KPR_REVERSE_ANYWHERE (1U << 0) /* the frontend's entry is that of address zero */

struct kpr_reverse {
	struct pb_svc_key frontend; /* as the application named it */
	__u32 id;
	__u32 flags; /* KPR_REVERSE_* */
};

/*
 * Map kpr_affinity, LRU: where a client's last connection to a frontend went. Sockets of this node
 * are told apart by network namespace, packets from outside by address.
 */
struct kpr_affinity_key {
	union pb_addr client; /* INT: the netns cookie in the first 8 bytes */
	__u32 affinity_id;    /* of the frontend: struct pb_svc.affinity_id */
	__u8 scope;	      /* enum pb_svc_scope */
	__u8 reserved[3];
};

struct kpr_affinity {
	__u32 backend; /* number of its record */
	__u32 pool;
	__u32 used; /* seconds of CLOCK_MONOTONIC */
	__u32 reserved;
};

#ifndef __bpf__
_Static_assert(sizeof(struct kpr_reverse_key) == 32, "pinned");
_Static_assert(sizeof(struct kpr_reverse) == 32, "pinned");
_Static_assert(sizeof(struct kpr_affinity_key) == 24, "pinned");
#endif

#endif
