/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connection tracking: the map of flows that all plugins share, and what an entry means.
 *
 * Owns the layout of the core's maps pb_ct, pb_ct_settings, pb_ct_stats and pb_frags, and the rules
 * for entries. A flow that is translated has two halves: one found by the tuple of its packets, one
 * by the tuple of the answers; each says all that is needed to translate a packet, so an
 * established flow costs one look-up. An entry is never half of a flow: the half of the answers is
 * written first and only where nothing stands (it claims the port), then the other; if that fails
 * the first is taken back. Programs never delete a half without the other.
 *
 * The agent deletes what has expired: a half goes when both have. pb_ct is a hash without
 * preallocation, not an LRU: an entry in use is never evicted. When the map is full a new flow is
 * dropped with PB_REASON_CT_FULL, counted, and the agent cleans up at once; flows that are known
 * go on. The kernel side of this header is in patchbay/ct.h.
 */
#ifndef PATCHBAY_CONNTRACK_H
#define PATCHBAY_CONNTRACK_H

#include <patchbay/abi.h>

#define PB_CT_MAX 524288 /* entries; two for a translated flow */

/* Whose entries: the same tuple may mean other things to other features. */
enum pb_ct_zone {
	PB_CT_ZONE_SERVICE = 0, /* translated flows */
	PB_CT_ZONE_EGRESS = 1,	/* what a pod may send, by policy */
	PB_CT_ZONE_INGRESS = 2, /* what a pod may receive, by policy */
};

/* The tuple as the packet has it when it is looked up. ICMP echo: the id in both ports. */
struct pb_ct_key {
	union pb_addr saddr;
	union pb_addr daddr;
	__be16 sport;
	__be16 dport;
	__u8 protocol;
	__u8 family; /* 4 or 6 */
	__u8 zone;   /* enum pb_ct_zone */
	__u8 reserved;
};

/* struct pb_ct.flags */
#define PB_CT_REPLY (1U << 0)  /* this half is found by answers */
#define PB_CT_SINGLE (1U << 1) /* there is no other half */
#define PB_CT_SNAT (1U << 2)   /* the source that the client had is replaced on its way there */
#define PB_CT_LOCAL (1U << 3)  /* the backend is on this node */
#define PB_CT_DSR (1U << 4)    /* on the node that has the frontend: answers don't come by */
#define PB_CT_DSR_BACKEND (1U << 5) /* on the backend's node: the frontend came in the packet */
#define PB_CT_HAIRPIN (1U << 6)	    /* a pod that reaches itself */
#define PB_CT_HOST (1U << 7)	    /* a connection of this node whose port had to move */
#define PB_CT_POD (1U << 8)	    /* begun by a pod of this node, at its own interface */

/* struct pb_ct.state */
enum pb_ct_state {
	PB_CT_OPENING = 0,     /* no answer yet */
	PB_CT_ESTABLISHED = 1, /* answered; SINGLE: a packet without SYN came */
	PB_CT_CLOSING = 2,     /* RST, or FIN from both sides */
};

/* The packet goes on with these addresses and ports. */
struct pb_ct {
	union pb_addr saddr;
	union pb_addr daddr;
	__be16 sport;
	__be16 dport;
	__u16 flags;	/* PB_CT_* */
	__u8 state;	/* enum pb_ct_state, the same in both halves */
	__u8 seen;	/* TCP flags seen in this half's direction */
	__u32 expires;	/* seconds of CLOCK_MONOTONIC */
	__u32 frontend; /* struct pb_svc.id; 0: no Service */
	__u32 backend;	/* number of the backend's record, see struct pb_svc_flow */
	__u32 pool;	/* that the backend was of */
	__u32 identity; /* of the source when the flow began; 0: not looked up */
	__u32 policy;	/* that allowed it; 0: none was asked */
	__u32 ifindex;	/* of the device that the first packet came in by */
	__u32 touched;	/* pb_ct_tick() when `expires` was written for a packet; 0: never */
};

/* Map pb_ct_settings, an array of one. Seconds, for what was last seen in that state. */
struct pb_ct_settings {
	__u32 tcp_opening;     /* 60 */
	__u32 tcp_established; /* 21600 */
	__u32 tcp_closing;     /* 10 */
	__u32 other;	       /* 60 */
};

/* Map pb_ct_stats, a per-CPU array of one. */
struct pb_ct_stats {
	__u64 created;
	__u64 full;	  /* flows dropped because pb_ct was */
	__u64 no_port;	  /* flows dropped because no source port was free */
	__u64 collisions; /* ports tried and found taken */
};

/* Map pb_frags, LRU: the ports of a datagram whose first fragment came by. */
#define PB_FRAGS_MAX 8192

struct pb_frag_key {
	union pb_addr saddr;
	union pb_addr daddr;
	__be32 id; /* IPv4: 16 bits, the others zero */
	__u8 protocol;
	__u8 family;
	__u8 reserved[2];
};

struct pb_frag {
	__be16 sport;
	__be16 dport;
};

#ifndef __bpf__
_Static_assert(sizeof(struct pb_ct_key) == 40, "pinned");
_Static_assert(sizeof(struct pb_ct) == 72, "pinned");
_Static_assert(sizeof(struct pb_ct_settings) == 16, "pinned");
_Static_assert(sizeof(struct pb_ct_stats) == 32, "pinned");
_Static_assert(sizeof(struct pb_frag_key) == 40, "pinned");
_Static_assert(sizeof(struct pb_frag) == 4, "pinned");
#endif

#endif
