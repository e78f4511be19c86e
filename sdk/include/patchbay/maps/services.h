/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The shared maps of the service plugin: frontends, their pools of backends, and what its programs
 * found out about a packet. Other plugins' programs open them by name (PB_MAP_BORROWED).
 *
 * Owns layouts that outlive a generation and the agent: maps stay pinned. A layout never changes
 * without a new schema number. Only the service plugin writes these maps; everybody may read them.
 *
 * A frontend names a pool: `count` consecutive slots from `base` on, each the number of a backend.
 * Several frontends of a Service may name one pool. A slot is one aligned store of 8 bytes, so a
 * program sees the old backend or the new one. A backend's record never changes while a slot
 * names it, and its number is used again only after no program can still hold it. Record and slot
 * carry the id of their pool: whoever followed something stale notices and looks again.
 */
#ifndef PATCHBAY_MAPS_SERVICES_H
#define PATCHBAY_MAPS_SERVICES_H

#include <patchbay/abi.h>

/* The schema of all maps in this header, struct pb_map_opts.schema. */
#define PB_SVC_SCHEMA 3

/*
 * Who asks: a process or pod of this node (INT), or a packet from outside (EXT). A frontend has an
 * entry of scope EXT only when its backends differ by scope (PB_SVC_SPLIT is set in the other).
 */
enum pb_svc_scope {
	PB_SVC_SCOPE_INT = 0,
	PB_SVC_SCOPE_EXT = 1,
};

struct pb_svc_key {
	union pb_addr addr; /* all zero: a NodePort or HostPort at any address of this node */
	__be16 port;
	__u8 protocol; /* IPPROTO_TCP, _UDP (UDPLITE counts as UDP) or _SCTP */
	__u8 family;   /* 4 or 6; an IPv4 address in IPv6 dress is looked up as 4 */
	__u8 scope;    /* enum pb_svc_scope */
	__u8 reserved[3];
};

enum pb_svc_kind {
	PB_SVC_CLUSTER_IP = 1,
	PB_SVC_NODE_PORT = 2,
	PB_SVC_EXTERNAL_IP = 3,
	PB_SVC_LOAD_BALANCER = 4,
	PB_SVC_HOST_PORT = 5,
};

/* struct pb_svc.flags */
#define PB_SVC_FAIL_OPEN (1U << 0) /* no backend: let the call go on untranslated */
#define PB_SVC_SPLIT (1U << 1)	   /* scope EXT has an entry of its own */
#define PB_SVC_LOCAL (1U << 2)	   /* traffic policy Local: only backends of this node */
#define PB_SVC_ELSEWHERE (1U << 3) /* with LOCAL and no backend: other nodes have some */
#define PB_SVC_MAGLEV (1U << 4)	   /* `maglev` names a table */
#define PB_SVC_RANGES (1U << 5)	   /* sources outside of the node must be in range `ranges` */
#define PB_SVC_USE_DSR (1U << 6)   /* annotation service.cilium.io/forwarding-mode: dsr */
#define PB_SVC_USE_SNAT (1U << 7)  /* the same: snat */
#define PB_SVC_KIND_SHIFT 8	   /* enum pb_svc_kind in 8 bits from here on */
#define PB_SVC_KIND(flags_) ((flags_) >> PB_SVC_KIND_SHIFT & 0xff)

/* Map services ("kpr_services" of plugin kpr), a hash by struct pb_svc_key. */
struct pb_svc {
	__u32 id;	   /* of this frontend; a new one when it goes to another Service */
	__u32 tie;	   /* pb_svc_tie() of the key and the pool's id; 0 without a pool */
	__u32 base;	   /* the pool's first slot */
	__u32 count;	   /* how many of its slots hold backends */
	__u32 flags;	   /* PB_SVC_* */
	__u32 room;	   /* slots in the pool's range, a power of two */
	__u64 owner;	   /* hash of the Service's namespace and name */
	__u32 affinity_s;  /* session affinity by client address: seconds; 0: none */
	__u32 maglev;	   /* first element of its table in "kpr_maglev" */
	__u32 ranges;	   /* number of its source ranges in "kpr_ranges4" and "kpr_ranges6" */
	__u32 affinity_id; /* of what is remembered about clients; a new one when switched on */
};

/* Maps "kpr_slots" and "kpr_maglev", arrays. Read and written as one number of 8 bytes. */
struct pb_svc_slot {
	__u32 backend; /* index in kpr_backends */
	__u32 pool;
} __attribute__((aligned(8)));

/* struct pb_svc_backend.flags */
#define PB_SVC_BACKEND_LOCAL (1U << 0) /* on this node */

/* Map "kpr_backends", an array. */
struct pb_svc_backend {
	union pb_addr addr;
	__be16 port;
	__u8 family;
	__u8 flags; /* PB_SVC_BACKEND_* */
	__u32 pool; /* the one that uses this record; 0 once it left its pool */
};

/* Maps "kpr_ranges4" and "kpr_ranges6", LPM tries: a match says that the source is allowed. */
struct pb_svc_range4 {
	__u32 bits; /* 32 and those of the prefix */
	__u32 ranges;
	__be32 addr;
};

struct pb_svc_range6 {
	__u32 bits;
	__u32 ranges;
	__be32 addr[4];
};

/* struct pb_svc_settings.flags */
#define PB_SVC_SET_EXTERNAL_CLUSTER_IP (1U << 0) /* ClusterIPs are served from outside, too */
#define PB_SVC_SET_BIND_PROTECTION (1U << 1)
/* Sockets of pods aren't translated; their packets are. */
#define PB_SVC_SET_HOST_SOCKETS_ONLY (1U << 2)
#define PB_SVC_SET_NODE_PORT (1U << 3) /* north-south is on */

/* Map "kpr_settings", an array of one, mapped into the agent. */
struct pb_svc_settings {
	__u64 host_netns; /* netns cookie of the agent's own namespace; 0: the kernel has none */
	__u32 flags;	  /* PB_SVC_SET_* */
	__be32 node4;	  /* address that translated packets leave with; 0: no IPv4 */
	__be32 node6[4];
	__be32 loopback4;    /* source of a pod that reaches itself through a Service */
	__u32 maglev_size;   /* elements of a Maglev table, a prime */
	__u16 node_port_min; /* host byte order, both ends belong to it */
	__u16 node_port_max;
	__u16 snat_min; /* source ports of translated packets */
	__u16 snat_max;
};

/* struct pb_svc_flow.state */
enum pb_svc_flow_state {
	PB_SVC_FLOW_NONE = 0, /* no Service's packet, or it is done with: look no further */
	PB_SVC_FLOW_NEW = 1,  /* no conntrack entry yet; a backend is chosen */
	/* A conntrack entry with PB_CT_DSR says how it goes on; pb_ct_touch() has been called. */
	PB_SVC_FLOW_KNOWN = 2,
	PB_SVC_FLOW_TELL = 3, /* it goes no further; slot "kpr-nat" tells its sender */
};

/*
 * Map "kpr_flow", per CPU, by tc hook (enum pb_hook): what slot "kpr" found about this packet, for
 * the slots between it and "kpr-nat", which creates the entries that nobody created before it.
 * Nothing has been changed in the packet yet. A slot that took the packet over ends the chain.
 */
struct pb_svc_flow {
	__u32 state;   /* enum pb_svc_flow_state */
	__u32 flags;   /* of the frontend: struct pb_svc.flags */
	__u32 id;      /* of the frontend */
	__u32 backend; /* number of the record in kpr_backends; ~0: none is left */
	struct pb_svc_key frontend;
	struct pb_svc_backend to; /* a copy */
};

/*
 * Ties an entry to its key. The kernel may reuse the memory of a hash element while a program
 * still reads it; the pool that the program derives from another key's entry is none of the slots
 * it then looks at. Its own inverse: pb_svc_tie(key, tie) is the pool.
 */
static inline __u32 pb_svc_tie(const struct pb_svc_key *key, __u32 pool)
{
	__u64 h = ((__u64)key->addr.v6[1] << 32 | key->addr.v6[0]) * 0x9e3779b97f4a7c15ULL;

	h = (h ^ ((__u64)key->addr.v6[3] << 32 | key->addr.v6[2])) * 0xbf58476d1ce4e5b9ULL;
	h ^= h >> 29;
	h = (h ^ ((__u64)key->scope << 32 | (__u32)key->port << 16 | (__u32)key->protocol << 8 |
		  key->family)) *
	    0x94d049bb133111ebULL;
	return (__u32)(h >> 32) ^ pool;
}

#ifndef __bpf__
_Static_assert(sizeof(struct pb_svc_key) == 24, "pinned");
_Static_assert(sizeof(struct pb_svc) == 48, "pinned");
_Static_assert(sizeof(struct pb_svc_slot) == 8, "pinned");
_Static_assert(sizeof(struct pb_svc_backend) == 24, "pinned");
_Static_assert(sizeof(struct pb_svc_range4) == 12, "pinned");
_Static_assert(sizeof(struct pb_svc_range6) == 24, "pinned");
_Static_assert(sizeof(struct pb_svc_settings) == 48, "pinned");
_Static_assert(sizeof(struct pb_svc_flow) == 64, "pinned");
#endif

#endif
