/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets to Services: the rules by which kpr_ns.bpf.c goes on.
 *
 * Owns what a packet that no flow is known of may begin (kpr_ns_open) and how such a flow begins
 * (kpr_ns_begin). Nothing of a packet is changed before it is known where it goes, so that whatever
 * is answered to its sender quotes what he sent.
 */
#ifndef KPR_NS_H
#define KPR_NS_H

#include <patchbay/forward.h>
#include <patchbay/frag.h>
#include <patchbay/icmp.h>
#include <patchbay/nat.h>
#include <patchbay/reply.h>

#include "kpr_select.h"

/* What kpr_ns_open() found. */
enum kpr_ns_verdict {
	KPR_NS_NEXT = 0,   /* none of ours */
	KPR_NS_NEW = 1,	   /* the flow record says where it goes */
	KPR_NS_DROP = 2,   /* *ret_reason */
	KPR_NS_REJECT = 3, /* nobody is there: the sender is told */
};

PB_INLINE struct pb_svc_flow *kpr_ns_flow(void)
{
	__u32 key = pb_hook_id;

	return bpf_map_lookup_elem(&kpr_flow, &key);
}

PB_INLINE const struct pb_svc_settings *kpr_ns_settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&kpr_settings, &zero);
}

/* The address that translated packets leave with; false: the node has none of this family. */
PB_INLINE bool kpr_ns_node_source(const struct pb_packet *pkt,
				  const struct pb_svc_settings *settings, union pb_addr *ret_addr)
{
	if (pkt->family == 4) {
		ret_addr->v4 = settings->node4;
		ret_addr->v6[1] = 0;
		ret_addr->v6[2] = 0;
		ret_addr->v6[3] = 0;
		return settings->node4 != 0;
	}
	pb_ct_copy_addr(ret_addr, (const union pb_addr *)settings->node6);
	return ret_addr->v6[0] | ret_addr->v6[1] | ret_addr->v6[2] | ret_addr->v6[3];
}

/* kpr_ns_look() */
enum kpr_ns_look {
	KPR_NS_OTHER = 0, /* nothing that a flow could have */
	KPR_NS_PORTS = 1, /* it has ports, be it by its first fragment */
	KPR_NS_ICMP = 2,  /* perhaps an error about one that has */
	KPR_NS_LOST = 3,  /* a later fragment of something that was never seen */
};

PB_INLINE int kpr_ns_look(struct __sk_buff *ctx, struct pb_packet *pkt)
{
	if (ctx->mark & PB_MARK_TRANSLATED || !pkt->family)
		return KPR_NS_OTHER;
	if (pkt->protocol == IPPROTO_ICMP || pkt->protocol == IPPROTO_ICMPV6)
		return KPR_NS_ICMP;
	if (pkt->flags & PB_PKT_FRAGMENT && pb_frag_ports(ctx, pkt) < 0)
		return KPR_NS_LOST;
	return pb_frag_has_ports(pkt) ? KPR_NS_PORTS : KPR_NS_OTHER;
}

/* ---- answers to the sender ---- */

PB_REPLY_STATE(kpr_replies);

/* Type and code by family: nobody listens there, the hop limit is used up, too large. */
PB_INLINE bool kpr_ns_says(const struct pb_packet *pkt, int where, struct pb_reply *how)
{
	const bool v6 = pkt->family == 6;

	switch (where) {
	case PB_FORWARD_STACK:
		how->type = v6 ? 1 : 3;
		how->code = v6 ? 4 : 3;
		return true;
	case PB_FORWARD_TOO_BIG:
		how->type = v6 ? 2 : 3;
		how->code = v6 ? 0 : 4;
		return true;
	case PB_FORWARD_TTL:
		how->type = v6 ? 3 : 11;
		how->has_src = 1;
		return true;
	}
	return false;
}

/*
 * Tells the sender why there is no way for the packet (enum pb_forward), or that nobody is there
 * (PB_FORWARD_STACK). 0: the packet is the answer now.
 */
PB_FUNCTION int kpr_ns_tell(struct __sk_buff *ctx, const struct pb_packet *pkt, int where,
			    __u32 mtu)
{
	const struct pb_svc_settings *settings = kpr_ns_settings();
	struct pb_reply how;

	if (!pkt || !settings)
		return -1;
	if (where == PB_FORWARD_STACK && pkt->protocol == IPPROTO_TCP)
		return pb_reply_rst(ctx, pkt, &kpr_replies);
	__builtin_memset(&how, 0, sizeof(how));
	if (!kpr_ns_says(pkt, where, &how) ||
	    (!kpr_ns_node_source(pkt, settings, &how.src) && how.has_src))
		return -1;
	if (where == PB_FORWARD_TOO_BIG)
		how.mtu = mtu;
	return pb_reply_icmp(ctx, pkt, &kpr_replies, &how);
}

PB_INLINE __u32 kpr_ns_reason(int where)
{
	if (where == PB_FORWARD_TTL)
		return PB_REASON_TTL_EXCEEDED;
	if (where == PB_FORWARD_TOO_BIG)
		return PB_REASON_FRAG_NEEDED;
	return where == PB_FORWARD_STACK ? PB_REASON_NO_SERVICE : PB_REASON_NO_FIB;
}

/* ---- flows that are known ---- */

/*
 * The backend left its pool, where its number may be another's by now. Datagrams have no connection
 * to lose, nor has a SYN that nobody has answered; everything else stays with its backend (K10).
 */
PB_INLINE bool kpr_ns_backend_gone(const struct pb_packet *pkt, const struct pb_ct *ct)
{
	const struct pb_svc_backend *b;
	__u32 number = ct->backend;

	if (!ct->pool || ct->flags & PB_CT_REPLY)
		return false;
	if (pkt->protocol == IPPROTO_TCP && !(ct->state == PB_CT_OPENING && pb_ct_is_syn(pkt)))
		return false;
	b = bpf_map_lookup_elem(&kpr_backends, &number);
	return b && (KPR_ONCE(b->pool) != ct->pool || KPR_ONCE(b->port) != ct->dport ||
		     !pb_ct_same_addr(&b->addr, &ct->daddr));
}

/*
 * The entry that the packet goes on by. One that is over (K54) or leads nowhere is deleted, and
 * the packet begins a new flow.
 */
PB_INLINE struct pb_ct *kpr_ns_lookup(const struct pb_packet *pkt, const struct pb_ct_key *key)
{
	struct pb_ct *ct = pb_ct_lookup(key);

	if (!ct)
		return NULL;
	if (pb_ct_is_over(pkt, key, ct) || kpr_ns_backend_gone(pkt, ct)) {
		pb_ct_delete(key, ct);
		return NULL;
	}
	return ct;
}

/* ---- flows that begin ---- */

PB_INLINE void kpr_ns_service_key(const struct pb_packet *pkt, struct pb_svc_key *ret_key)
{
	pb_ct_copy_addr(&ret_key->addr, &pkt->daddr);
	ret_key->port = pkt->dport;
	ret_key->protocol = pkt->protocol;
	ret_key->family = pkt->family;
	ret_key->scope = PB_SVC_SCOPE_INT;
	ret_key->reserved[0] = 0;
	ret_key->reserved[1] = 0;
	ret_key->reserved[2] = 0;
}

/*
 * The same on every node, so no seed: two nodes that get packets of one flow choose one backend.
 * The address that was asked for doesn't count, it may be a node's own. With session affinity a
 * client's ports don't count either.
 */
PB_INLINE __u32 kpr_ns_hash(const struct pb_packet *pkt, bool affinity)
{
	__u64 h = ((__u64)pkt->saddr.v6[1] << 32 | pkt->saddr.v6[0]) * 0x9e3779b97f4a7c15ULL;

	h = (h ^ h >> 32 ^ ((__u64)pkt->saddr.v6[3] << 32 | pkt->saddr.v6[2])) *
	    0xbf58476d1ce4e5b9ULL;
	h ^= h >> 29;
	h ^= (__u64)pkt->protocol << 32 | (__u32)pkt->dport << 16 | (affinity ? 0 : pkt->sport);
	h *= 0x94d049bb133111ebULL;
	return (__u32)(h >> 32);
}

PB_INLINE bool kpr_ns_in_ranges(const struct pb_packet *pkt, __u32 ranges)
{
	if (pkt->family == 4) {
		struct pb_svc_range4 key = {.bits = 64, .ranges = ranges, .addr = pkt->saddr.v4};

		return bpf_map_lookup_elem(&kpr_ranges4, &key) != NULL;
	}
	struct pb_svc_range6 key = {.bits = 160, .ranges = ranges};

	pb_ct_copy_addr((union pb_addr *)key.addr, &pkt->saddr);
	return bpf_map_lookup_elem(&kpr_ranges6, &key) != NULL;
}

/* Nodes and pods of this cluster. */
PB_INLINE bool kpr_ns_of_cluster(__u32 identity)
{
	return identity == PB_IDENTITY_HOST ||
	       (identity >= PB_IDENTITY_UNMANAGED && identity <= PB_IDENTITY_REMOTE_NODE) ||
	       (identity >= PB_IDENTITY_FIRST && identity <= PB_IDENTITY_LAST);
}

/*
 * What a frontend lets in from a device, as a drop reason; 0: it does. Source ranges are meant for
 * clients outside of the cluster (K28).
 */
PB_INLINE __u32 kpr_ns_refuses(struct pb_packet *pkt, const struct pb_svc *svc, __u32 settings)
{
	__u32 flags = KPR_ONCE(svc->flags);

	if (PB_SVC_KIND(flags) == PB_SVC_CLUSTER_IP && !(settings & PB_SVC_SET_EXTERNAL_CLUSTER_IP))
		return PB_REASON_CLUSTER_IP;
	if (flags & PB_SVC_RANGES && !kpr_ns_in_ranges(pkt, KPR_ONCE(svc->ranges)) &&
	    !kpr_ns_of_cluster(pb_src_identity(pkt)))
		return PB_REASON_SOURCE_RANGE;
	return 0;
}

/*
 * A segment in the middle of a connection that nobody knows: an answer to a connection of this
 * node that happens to leave from a frontend's port (K63), or a connection whose entry is lost.
 * Where all nodes have the same table, the backend that has it is found again.
 */
PB_INLINE int kpr_ns_stray(struct __sk_buff *ctx, struct pb_packet *pkt,
			   const struct pb_ct_key *key, const struct pb_svc *svc)
{
	if (pb_dst_identity(pkt) == PB_IDENTITY_HOST)
		return KPR_NS_NEXT;
	if (pb_nat_socket_of(ctx, key) == PB_NAT_SOCKET_CONNECTED)
		return KPR_NS_NEXT;
	if (!(KPR_ONCE(svc->flags) & PB_SVC_MAGLEV) || pkt->tcp_flags & PB_TCP_RST)
		return KPR_NS_DROP;
	return KPR_NS_NEW;
}

PB_INLINE void kpr_ns_asker(const struct pb_packet *pkt, const struct pb_svc *svc,
			    struct kpr_asker *ret_who)
{
	pb_ct_copy_addr(&ret_who->client, &pkt->saddr);
	ret_who->number = bpf_get_prandom_u32();
	ret_who->hash = 0;
	ret_who->maglev = (KPR_ONCE(svc->flags) & PB_SVC_MAGLEV) != 0;
	if (ret_who->maglev)
		ret_who->hash = kpr_ns_hash(pkt, KPR_ONCE(svc->affinity_s) != 0);
}

/* Fills the record for the slots that follow. */
PB_INLINE int kpr_ns_select(const struct pb_packet *pkt, const struct pb_svc_key *frontend,
			    const struct pb_svc *svc, struct pb_svc_flow *flow)
{
	struct kpr_choice choice = {0};
	struct kpr_asker who;
	enum kpr_outcome outcome;

	kpr_ns_asker(pkt, svc, &who);
	outcome = kpr_choose(frontend, svc, &who, &choice);
	if (outcome == KPR_NOT_OURS)
		return KPR_NS_NEXT;
	if (outcome == KPR_NO_BACKEND)
		/* Who asked this node on purpose asks another: no answer tells him so (K26). */
		return (choice.flags & (PB_SVC_LOCAL | PB_SVC_ELSEWHERE)) ==
				       (PB_SVC_LOCAL | PB_SVC_ELSEWHERE)
			       ? KPR_NS_DROP
			       : KPR_NS_REJECT;
	flow->flags = choice.flags;
	flow->id = choice.id;
	flow->backend = choice.number;
	flow->frontend = *frontend;
	flow->to = choice.backend;
	flow->state = PB_SVC_FLOW_NEW;
	return KPR_NS_NEW;
}

/* A verdict and, for KPR_NS_DROP, why. */
#define KPR_NS_VERDICT(verdict_, reason_) ((verdict_) | (reason_) << 8)
#define KPR_NS_VERDICT_OF(value_) ((value_)&0xff)
#define KPR_NS_REASON_OF(value_) ((value_) >> 8)

/* From a device: what begins with a packet that has no entry. KPR_NS_VERDICT(). */
PB_FUNCTION int kpr_ns_open_dev(struct __sk_buff *ctx, struct pb_packet *pkt,
				const struct pb_ct_key *key, struct pb_svc_flow *flow)
{
	const struct pb_svc_settings *settings = kpr_ns_settings();
	struct pb_svc_key frontend;
	struct pb_svc *svc;
	__u32 reason;
	int verdict;

	if (!pkt || !key || !flow || !settings || !(settings->flags & PB_SVC_SET_NODE_PORT))
		return KPR_NS_NEXT;
	kpr_ns_service_key(pkt, &frontend);
	svc = kpr_frontend_find(&frontend, PB_SVC_SCOPE_EXT);
	if (!svc)
		return KPR_NS_NEXT;
	if (pkt->protocol == IPPROTO_TCP && !pb_ct_is_syn(pkt)) {
		verdict = kpr_ns_stray(ctx, pkt, key, svc);
		if (verdict != KPR_NS_NEW)
			return KPR_NS_VERDICT(verdict, PB_REASON_UNKNOWN_FLOW);
	}
	if (pkt->protocol == IPPROTO_UDP && pb_nat_socket_of(ctx, key) == PB_NAT_SOCKET_CONNECTED)
		return KPR_NS_NEXT;
	reason = kpr_ns_refuses(pkt, svc, settings->flags);
	if (reason)
		return KPR_NS_VERDICT(KPR_NS_DROP, reason);
	return KPR_NS_VERDICT(kpr_ns_select(pkt, &frontend, svc, flow), PB_REASON_NO_SERVICE);
}

/*
 * From a pod whose socket wasn't translated. An external address that isn't this node's is left
 * to whoever has it (K24). KPR_NS_VERDICT().
 */
PB_FUNCTION int kpr_ns_open_pod(struct pb_packet *pkt, struct pb_svc_flow *flow)
{
	const struct pb_svc_settings *settings = kpr_ns_settings();
	struct pb_svc_key frontend;
	struct pb_svc *svc;
	__u32 kind;
	bool stray;

	if (!pkt || !flow || !settings)
		return KPR_NS_NEXT;
	stray = pkt->protocol == IPPROTO_TCP && !pb_ct_is_syn(pkt);
	/* Where sockets are translated nearly all segments are of connections without an entry. */
	if (stray && !(settings->flags & PB_SVC_SET_HOST_SOCKETS_ONLY))
		return KPR_NS_NEXT;
	kpr_ns_service_key(pkt, &frontend);
	svc = kpr_frontend_find(&frontend, PB_SVC_SCOPE_INT);
	if (!svc)
		return KPR_NS_NEXT;
	kind = PB_SVC_KIND(KPR_ONCE(svc->flags));
	if (kind == PB_SVC_EXTERNAL_IP && pb_dst_identity(pkt) != PB_IDENTITY_HOST)
		return KPR_NS_NEXT;
	/* An address that no host has: the stack would send the segment to where it came from. */
	if (stray)
		return KPR_NS_VERDICT(kind == PB_SVC_CLUSTER_IP || kind == PB_SVC_LOAD_BALANCER
					      ? KPR_NS_DROP
					      : KPR_NS_NEXT,
				      PB_REASON_UNKNOWN_FLOW);
	return KPR_NS_VERDICT(kpr_ns_select(pkt, &frontend, svc, flow), PB_REASON_NO_SERVICE);
}

/*
 * An error about a packet of a flow goes to who sent that. `stays`: it is on its way already.
 * enum pb_forward; -1: about no flow, left as it is; -2: half written, drop it.
 */
PB_FUNCTION int kpr_ns_error(struct __sk_buff *ctx, struct pb_packet *pkt, int stays,
			     struct bpf_fib_lookup *ret_route)
{
	const struct pb_ct *ct;
	struct pb_icmp err;
	struct pb_ct to;
	int where = PB_FORWARD_STACK;

	if (!pkt || !ret_route || pb_icmp_read(ctx, pkt, &err) < 0)
		return -1;
	ct = pb_ct_lookup(&err.key);
	if (!ct)
		return -1;
	pb_icmp_outer(pkt, &err, ct, &to);
	if (!stays)
		where = pb_forward_route(ctx, pkt, &to, ret_route);
	if (where > PB_FORWARD_NEIGH)
		return where;
	if (pb_icmp_translate(ctx, pkt, &err, ct, &to, pb_forward_hop(where)) < 0)
		return -2;
	return where;
}

/* What a new flow is translated to, without its source. */
PB_INLINE void kpr_ns_target(const struct pb_packet *pkt, const struct pb_svc_flow *flow,
			     struct pb_ct *ret_to)
{
	__builtin_memset(ret_to, 0, sizeof(*ret_to));
	pb_ct_copy_addr(&ret_to->saddr, &pkt->saddr);
	pb_ct_copy_addr(&ret_to->daddr, &flow->to.addr);
	ret_to->sport = pkt->sport;
	ret_to->dport = flow->to.port;
	ret_to->frontend = flow->id;
	ret_to->backend = flow->backend;
	ret_to->pool = flow->to.pool;
	ret_to->identity = pkt->src_identity;
	ret_to->ifindex = pkt->ifindex;
	if (flow->to.flags & PB_SVC_BACKEND_LOCAL)
		ret_to->flags = PB_CT_LOCAL;
}

/* From a device. A backend elsewhere answers to this node; one that is here to the client. */
PB_INLINE bool kpr_ns_source_dev(const struct pb_packet *pkt,
				 const struct pb_svc_settings *settings, struct pb_ct *to)
{
	if (to->flags & PB_CT_LOCAL)
		return true;
	to->flags |= PB_CT_SNAT;
	return kpr_ns_node_source(pkt, settings, &to->saddr);
}

/*
 * From a pod, which has an address that every backend can answer to, but for itself: a packet
 * that comes from its own address it would drop. IPv6 has no addresses to spare for that, so the
 * node asks in the pod's place (#14138).
 */
PB_INLINE bool kpr_ns_source_pod(const struct pb_packet *pkt,
				 const struct pb_svc_settings *settings, struct pb_ct *to)
{
	to->flags |= PB_CT_POD;
	if (!pb_ct_same_addr(&to->saddr, &to->daddr))
		return true;
	to->flags |= PB_CT_HAIRPIN;
	if (pkt->family == 4) {
		to->saddr.v4 = settings->loopback4;
		return settings->loopback4 != 0;
	}
	to->flags |= PB_CT_SNAT;
	return kpr_ns_node_source(pkt, settings, &to->saddr);
}

/* Why pb_nat_claim() made nothing. */
PB_INLINE __u32 kpr_ns_claim_reason(int rc)
{
	return rc == -PB_ENOSPC ? PB_REASON_CT_FULL : PB_REASON_NAT_NO_PORT;
}

#endif
