/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The plugin's own maps and constants, as its programs and its user side both see them.
 *
 * Owns layouts that outlive a generation and the agent: maps stay pinned. A layout never changes
 * without a new schema number in dsr.c. Translations are not here: they are entries of pb_ct,
 * which kpr's programs serve whether this plugin is loaded or not.
 */
#ifndef DSR_ABI_H
#define DSR_ABI_H

#include <patchbay/conntrack.h>

/* Constant dsr_mode: which flows answer directly, where the Service doesn't say. */
enum dsr_mode {
	DSR_MODE_SNAT = 0,   /* none */
	DSR_MODE_HYBRID = 1, /* TCP */
	DSR_MODE_DSR = 2,    /* TCP and UDP */
};

/* Constant dsr_dispatch: how the frontend travels to the backend's node. */
enum dsr_dispatch {
	DSR_OPT = 0,	/* IPv4 option, IPv6 destination options header */
	DSR_GENEVE = 1, /* inside Geneve to the backend's node, the frontend in an option of it */
	DSR_IPIP = 2,	/* inside IP to the backend, the packet to the frontend inside */
};

/* A larger pool isn't asked whether it has a backend, so its flows are left to SNAT. */
#define DSR_POOL_MAX 1024

/* Map dsr_stats, a per-CPU array of one. */
struct dsr_stats {
	__u64 sent;	   /* packets sent on with the frontend in them */
	__u64 arrived;	   /* packets that came with a frontend that is believed */
	__u64 no_space;	   /* dropped: the header has no room for it */
	__u64 mtu;	   /* dropped and answered: too large with it */
	__u64 untrusted;   /* came with a frontend that isn't believed: plain packets */
	__u64 nat_missing; /* dropped: the translation of their flow is gone */
	__u64 conflicts;   /* dropped: two frontends, one tuple */
	__u64 moved;	   /* flows whose client port had to move for the same reason */
	__u64 kept;	   /* packets whose option couldn't be taken out */
};

/*
 * Map dsr_recent, LRU: flows (client to backend, zone PB_CT_ZONE_SERVICE) that had a translation
 * here. Where one has none any more, nothing is sent in the backend's own name.
 */
#define DSR_RECENT_MAX 65536

struct dsr_recent {
	__u32 frontend; /* struct pb_svc.id */
};

/*
 * Map dsr_filter, an array of one: a bit per hash of a backend's address and port that ever was
 * in dsr_recent. Most packets stop here, without a look-up. Bits are never cleared.
 */
#define DSR_FILTER_BITS 16384

struct dsr_filter {
	__u64 words[DSR_FILTER_BITS / 64];
};

#ifndef __bpf__
_Static_assert(sizeof(struct dsr_stats) == 72, "pinned");
#endif

#endif
