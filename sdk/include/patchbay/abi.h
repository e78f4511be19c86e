/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel side and the user side of a plugin both have to know: hook and band numbers,
 * verdicts, drop reasons, the per-packet record and the header of a ring event.
 *
 * Owns the layout of everything that outlives one generation of a plugin. Nothing here may ever
 * be renumbered, reordered or resized in place: structures grow at their end only, numbers are
 * only added. A program must accept a record written by the neighbouring version, which is why
 * every record starts with its own size.
 */
#ifndef PATCHBAY_ABI_H
#define PATCHBAY_ABI_H

#include <linux/types.h>

/* ABI of the SDK. A plugin loads when major is equal and its minor is not above the host's. */
#define PB_ABI_MAJOR 1
#define PB_ABI_MINOR 2

/*
 * The places in the kernel where a chain runs. The four tc hooks are seen from the node: pod
 * egress is what a pod sends (ingress of the host side of its veth).
 */
enum pb_hook {
	PB_HOOK_POD_EGRESS = 0,
	PB_HOOK_POD_INGRESS = 1,
	PB_HOOK_DEV_INGRESS = 2,
	PB_HOOK_DEV_EGRESS = 3,
	PB_HOOK_CONNECT4 = 4,
	PB_HOOK_CONNECT6 = 5,
	PB_HOOK_SENDMSG4 = 6,
	PB_HOOK_SENDMSG6 = 7,
	PB_HOOK_RECVMSG4 = 8,
	PB_HOOK_RECVMSG6 = 9,
	PB_HOOK_GETPEERNAME4 = 10,
	PB_HOOK_GETPEERNAME6 = 11,
	PB_HOOK_BIND4 = 12,
	PB_HOOK_BIND6 = 13,
	PB_HOOK_SOCK_RELEASE = 14,
	PB_HOOK_COUNT = 15,
};

/* How many of the hooks, counted from 0, are tc hooks. */
#define PB_HOOK_TC_COUNT 4

/*
 * Order on a hook, first to last. Inside a band, `before` and `after` of struct pb_slot and then
 * the slot's name decide. Observers see the final verdict and must end with pb_next().
 */
enum pb_band {
	PB_BAND_DECAP = 0,
	PB_BAND_SERVICE = 1,
	PB_BAND_POLICY = 2,
	PB_BAND_L7 = 3,
	PB_BAND_FORWARD = 4,
	PB_BAND_OBSERVE = 5,
	PB_BAND_COUNT = 6,
};

enum pb_verdict {
	PB_VERDICT_PASS = 0,
	PB_VERDICT_DROP = 1,
	PB_VERDICT_REDIRECT = 2,
	PB_VERDICT_COUNT = 3,
};

/*
 * Why a packet was dropped or a socket call refused. Numbers from 130 on are those that Hubble's
 * clients already know (flow.proto, enum DropReason); below that are Patchbay's own.
 */
enum pb_reason {
	PB_REASON_NONE = 0,
	PB_REASON_PLUGIN = 1, /* a plugin that gave no better reason */
	PB_REASON_INVALID_REDIRECT = 2,
	PB_REASON_POLICY_DENIED = 133,
	PB_REASON_INVALID_PACKET = 134,
	PB_REASON_INVALID_HEADER = 135,	  /* no room for what has to go into a header */
	PB_REASON_FRAG_NEEDED = 136,	  /* larger than the MTU with what was added; answered */
	PB_REASON_MISSED_TAIL_CALL = 140, /* a chain with a hole: always a bug of the core */
	PB_REASON_WRITE_ERROR = 141,	  /* the kernel refused to change the packet */
	PB_REASON_CT_FULL = 155,	  /* no conntrack entry could be made */
	PB_REASON_EXT_HEADER = 156,	  /* an IPv6 header chain that can't be followed */
	PB_REASON_FRAGMENT = 157,	  /* fragments where they can't be handled */
	PB_REASON_NO_SERVICE = 158,	  /* a frontend without a usable backend */
	PB_REASON_NO_TUNNEL = 160,	  /* the node to tunnel to isn't known */
	PB_REASON_UNKNOWN_FLOW = 163,	  /* an answer to a flow that is no longer known */
	PB_REASON_NAT_NO_PORT = 167,	  /* no source port is free */
	PB_REASON_NAT_PROTOCOL = 168,	  /* a protocol or ICMP message that isn't translated */
	PB_REASON_NO_FIB = 169,		  /* no route or no neighbour */
	PB_REASON_CLUSTER_IP = 174,	  /* a ClusterIP asked for from outside */
	PB_REASON_FRAG_UNKNOWN = 175,	  /* a later fragment whose first one wasn't seen */
	PB_REASON_SOURCE_RANGE = 177,	  /* not in loadBalancerSourceRanges */
	PB_REASON_DSR_PROTOCOL = 193,	  /* not TCP or UDP */
	PB_REASON_TTL_EXCEEDED = 196,
	PB_REASON_COUNT = 256,
};

/*
 * Bits of skb->mark that Patchbay's programs set on packets that they send on; other bits are left
 * as they are. The kernel clears the mark when a packet enters another network namespace.
 */
#define PB_MARK_MASK 0x0f00
#define PB_MARK_TRANSLATED 0x0400 /* addresses are final: chains further on don't translate */

/* An address of either family. IPv4 fills v4 and leaves the rest zero. */
union pb_addr {
	__be32 v4;
	__be32 v6[4];
	__u8 bytes[16];
};

/* struct pb_packet.flags */
#define PB_PKT_FRAGMENT (1U << 0)   /* any fragment */
#define PB_PKT_NO_L4 (1U << 1)	    /* a later fragment, or an unknown or truncated L4 header */
#define PB_PKT_OPTIONS (1U << 2)    /* IPv4 options or IPv6 extension headers are present */
#define PB_PKT_TRANSLATED (1U << 3) /* orig_* hold the tuple before translation */
#define PB_PKT_MALFORMED (1U << 4)  /* headers contradict each other or are cut short */

/* struct pb_packet.redirect_kind */
enum pb_redirect_kind {
	PB_REDIRECT_NONE = 0,
	PB_REDIRECT_EGRESS = 1,	 /* bpf_redirect() to the egress of the device */
	PB_REDIRECT_INGRESS = 2, /* bpf_redirect() with BPF_F_INGRESS */
	PB_REDIRECT_PEER = 3,	 /* bpf_redirect_peer(): straight into the pod */
	PB_REDIRECT_NEIGH = 4,	 /* bpf_redirect_neigh(): the kernel finds the MAC */
};

/*
 * The record of the packet on its way, one per CPU and tc hook, written by the entry program
 * and read and amended by every program of the chain. It belongs to the core, is pinned and is
 * never replaced with a generation.
 */
struct pb_packet {
	__u32 size;    /* bytes of this record that its writer knew */
	__u8 hook;     /* enum pb_hook */
	__u8 family;   /* 4, 6, or 0 when the packet is not IP */
	__u8 protocol; /* IPPROTO_*, after extension headers */
	__u8 tcp_flags;
	__u32 flags;  /* PB_PKT_* */
	__u16 l3_off; /* from the start of the frame */
	__u16 l4_off; /* 0 with PB_PKT_NO_L4 */
	__be16 sport; /* ICMP: the echo id, in both ports */
	__be16 dport;
	union pb_addr saddr;
	union pb_addr daddr;
	__u32 ifindex; /* of the device whose hook this is */
	__u32 len;     /* bytes of the frame */
	__u32 generation;
	__u8 verdict;	    /* enum pb_verdict */
	__u8 redirect_kind; /* enum pb_redirect_kind */
	__u16 reason;	    /* enum pb_reason */
	__u32 redirect_ifindex;
	__u32 src_identity; /* 0 when no program looked it up; see pb_src_identity() */
	__u32 dst_identity;
	__u32 policy; /* the policy that decided, 0 when none did */
	union pb_addr orig_saddr;
	union pb_addr orig_daddr;
	__be16 orig_sport;
	__be16 orig_dport;
	__u32 endpoint; /* id of the local endpoint, 0 when no program looked it up */
};

/*
 * A call on a sock_addr hook (connect, sendmsg, recvmsg, getpeername, bind) as an observer sees
 * it, one per CPU and hook. Written by pb_sock_keep_orig(), pb_deny() and pb_sock(), only in
 * chains that have an observer; exit clears `task`. Another task may preempt this one and take
 * the record, so whoever has copied it looks at `task` once more before believing the copy.
 */
struct pb_sock {
	__u32 size;
	__u8 hook;
	__u8 family;
	__u8 protocol;
	__u8 verdict;
	__u64 task;		  /* bpf_get_current_pid_tgid() of the writer; 0: nobody's */
	__u64 cookie;		  /* of the socket */
	union pb_addr addr;	  /* before the chain: connect's as the application gave it */
	union pb_addr translated; /* as the call goes on with it */
	__be16 port;
	__be16 translated_port;
	__u16 reason;
	__u16 reserved;
};

/* What the core's entry and exit programs count, one record per CPU and hook. */
struct pb_counters {
	__u64 packets; /* tc: frames; socket hooks: calls */
	__u64 bytes;
	__u64 verdicts[4]; /* by enum pb_verdict */
	__u64 missed;	   /* empty slots met; must stay 0 */
};

/* A local endpoint, found by the ifindex of the host side of its veth. */
struct pb_endpoint {
	__u32 id;
	__u32 identity;
	union pb_addr addr4;
	union pb_addr addr6;
};

/*
 * Identities: what a policy says of an address. Numbers below 256 are those that Cilium's tools
 * know (pkg/identity/numericidentity.go); the others mean something on this node only.
 */
enum pb_identity {
	PB_IDENTITY_UNKNOWN = 0,
	PB_IDENTITY_HOST = 1,	   /* this node */
	PB_IDENTITY_WORLD = 2,	   /* whatever the ipcache doesn't know */
	PB_IDENTITY_UNMANAGED = 3, /* a pod without an endpoint */
	PB_IDENTITY_HEALTH = 4,
	PB_IDENTITY_INIT = 5,	     /* an endpoint whose labels aren't known yet */
	PB_IDENTITY_REMOTE_NODE = 6, /* another node */
	PB_IDENTITY_KUBE_APISERVER = 7,
	PB_IDENTITY_FIRST = 256, /* pods, by their labels, up to 65535 */
	PB_IDENTITY_LAST = 65535,
	PB_IDENTITY_CIDR = 1 << 24, /* ranges of addresses, from here on */
};

/* What an entry of the ipcache was learned from; the highest of those known for a prefix counts. */
enum pb_ip_source {
	PB_IP_CIDR = 1,	       /* a range named by a plugin, host->cidr_hold() */
	PB_IP_POD = 2,	       /* a pod, by what Kubernetes says of it */
	PB_IP_REMOTE_NODE = 3, /* an address of another node, by what its kubelet says */
	PB_IP_LOCAL_POD = 4,   /* a pod of this node, by the interface it leads to */
	PB_IP_HOST = 5,	       /* an address of this node */
};

/* Keys and value of the ipcache, the maps pb_ipcache4 and pb_ipcache6 (LPM tries). */
struct pb_ipcache_key4 {
	__u32 bits;
	__be32 addr;
};

struct pb_ipcache_key6 {
	__u32 bits;
	__be32 addr[4];
};

struct pb_ipcache_value {
	__u32 identity; /* enum pb_identity and following */
	__u8 source;	/* enum pb_ip_source */
	__u8 reserved[3];
	__be32 node4; /* pods: an IPv4 address of their node, 0 when unknown */
	__u32 reserved2;
};

/* Opens every record in the event ring. `len` counts the header too. */
struct pb_event {
	__u16 type; /* below 256: the core's; from 256: given to plugins by host->event_type() */
	__u16 hook;
	__u32 len;
	__u64 time_ns; /* CLOCK_MONOTONIC */
};

/* Type of the event that the exit program sends for a dropped packet while somebody listens. */
#define PB_EVENT_DROP 1

/* struct pb_packet follows; a reader goes by its `size`. */
struct pb_event_drop {
	struct pb_event head;
	struct pb_packet packet;
};

/* The most programs a chain may have, exit included: the kernel allows 33 tail calls a packet. */
#define PB_CHAIN_MAX 30

#endif
