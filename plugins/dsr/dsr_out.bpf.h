/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node that has the frontend: decides which new flows are answered directly, tells the
 * backend's node the frontend, and sends the packet there with the client's address.
 *
 * Owns the choice between this and SNAT: what isn't taken over here goes on to slot "kpr-nat". A
 * flow that is taken over has one half in pb_ct, with PB_CT_DSR; its later packets of TCP carry
 * nothing and are kpr-nat's, so that they go on when this plugin is unloaded. Everything that may
 * fail is asked before the packet is changed: an answer to the client quotes what the client sent.
 */
#ifndef DSR_OUT_BPF_H
#define DSR_OUT_BPF_H

#include <patchbay/forward.h>
#include <patchbay/reply.h>

#include "dsr_encode.bpf.h"
#include "dsr_maps.bpf.h"
#include "dsr_tunnel.bpf.h"

PB_INLINE __u32 dsr_extra(const struct pb_packet *pkt)
{
	if (dsr_dispatch == DSR_GENEVE)
		return pkt->family == 4 ? DSR_GENEVE_EXTRA4 : DSR_GENEVE_EXTRA6;
	if (dsr_dispatch == DSR_IPIP)
		return pkt->family == 4 ? sizeof(struct iphdr) : sizeof(struct ipv6hdr);
	return pkt->family == 4 ? sizeof(struct dsr_opt4) : sizeof(struct dsr_opt6);
}

/* By protocol and what the Service asks for. */
PB_INLINE bool dsr_wanted(const struct pb_packet *pkt, const struct pb_svc_flow *flow)
{
	if (pkt->protocol != IPPROTO_TCP && pkt->protocol != IPPROTO_UDP)
		return false;
	if (flow->flags & (PB_SVC_USE_DSR | PB_SVC_USE_SNAT))
		return !(flow->flags & PB_SVC_USE_SNAT);
	if (dsr_mode == DSR_MODE_HYBRID)
		return pkt->protocol == IPPROTO_TCP;
	return dsr_mode == DSR_MODE_DSR;
}

/*
 * TCP in the middle of a connection that this node doesn't know, after another node failed (D22)
 * or because the entry went (D21): it carries the frontend, too, so that even the backend's RST
 * has the right source (D43). What opens nothing and continues nothing is left to SNAT (D7).
 */
PB_INLINE bool dsr_may_begin(const struct pb_packet *pkt)
{
	if (pkt->flags & PB_PKT_NO_L4)
		return false;
	/* Who unpacks it wants to find the ports, and later fragments find no way around. */
	if (dsr_dispatch != DSR_OPT &&
	    (pkt->flags & PB_PKT_FRAGMENT || (pkt->family == 6 && pkt->flags & PB_PKT_OPTIONS)))
		return false;
	if (pkt->protocol != IPPROTO_TCP)
		return true;
	return !(pkt->tcp_flags & PB_TCP_RST) &&
	       (pkt->tcp_flags & (PB_TCP_SYN | PB_TCP_ACK)) != (PB_TCP_SYN | PB_TCP_ACK);
}

/* The backend's node can't search a larger pool for each flow. */
PB_INLINE bool dsr_pool_fits(const struct pb_svc_flow *flow)
{
	const struct pb_svc *svc = bpf_map_lookup_elem(&kpr__kpr_services, &flow->frontend);

	return svc && svc->count <= DSR_POOL_MAX;
}

/* A node's own packets must not come to it from outside (D44). */
PB_INLINE bool dsr_from_node(const struct pb_packet *pkt)
{
	return dsr_node_known(pkt, &pkt->saddr);
}

/* D1, D3, D9, D27, D44 and the rest of the rules. */
PB_INLINE bool dsr_eligible(const struct pb_packet *pkt, const struct pb_svc_flow *flow)
{
	return flow->backend != ~0U && !(flow->to.flags & PB_SVC_BACKEND_LOCAL) &&
	       !(flow->flags & PB_SVC_LOCAL) && flow->to.family == pkt->family &&
	       dsr_wanted(pkt, flow) && dsr_may_begin(pkt) && dsr_pool_fits(flow) &&
	       !dsr_from_node(pkt);
}

/* Whether the info goes with a packet of a known flow: SYN again (D5), each datagram (D8). */
PB_INLINE bool dsr_again(const struct pb_packet *pkt)
{
	if (pkt->flags & PB_PKT_NO_L4)
		return false;
	return pkt->protocol == IPPROTO_UDP || pb_ct_is_syn(pkt);
}

PB_INLINE bool dsr_has_room(struct __sk_buff *ctx, const struct pb_packet *pkt)
{
	__u8 first;

	if (pkt->len - pkt->l3_off > 0xffff - dsr_extra(pkt))
		return false;
	if (dsr_dispatch != DSR_OPT || pkt->family == 6 ||
	    bpf_skb_load_bytes(ctx, pkt->l3_off, &first, 1) < 0)
		return true;
	return (first & 0xf) <= 13;
}

PB_INLINE int dsr_insert(struct __sk_buff *ctx, struct pb_packet *pkt, const struct dsr_info *info)
{
	int rc = pkt->family == 4 ? dsr_encode4(ctx, pkt->l3_off, info)
				  : dsr_encode6(ctx, pkt->l3_off, info);

	if (rc == 0) {
		pkt->l4_off += dsr_extra(pkt);
		pkt->len += dsr_extra(pkt);
		pkt->flags |= PB_PKT_OPTIONS;
	}
	return rc;
}

/* The way of the outer packet to the backend's node. enum pb_forward. */
PB_FUNCTION int dsr_route_node(struct __sk_buff *ctx, const struct pb_packet *pkt, __be32 node,
			       struct bpf_fib_lookup *ret_route)
{
	__u32 zero = 0;
	const struct pb_svc_settings *set = bpf_map_lookup_elem(&kpr__kpr_settings, &zero);
	__u8 hops;
	int where;

	if (!pkt || !ret_route || !set ||
	    bpf_skb_load_bytes(ctx, pkt->l3_off + (pkt->family == 4 ? 8 : 7), &hops, 1) < 0)
		return PB_FORWARD_NO_ROUTE;
	__builtin_memset(ret_route, 0, sizeof(*ret_route));
	ret_route->family = PB_FORWARD_INET;
	ret_route->l4_protocol = IPPROTO_UDP;
	ret_route->ifindex = pkt->ifindex;
	ret_route->ipv4_src = set->node4;
	ret_route->ipv4_dst = node;
	where = pb_forward_code(bpf_fib_lookup(ctx, ret_route, sizeof(*ret_route), 0));
	if (where == PB_FORWARD_STACK || where == PB_FORWARD_NO_ROUTE)
		return PB_FORWARD_NO_ROUTE;
	if (where == PB_FORWARD_NEIGH)
		ret_route->mtu_result = pb_forward_mtu(ctx, ret_route->ifindex);
	return hops <= 1 ? PB_FORWARD_TTL : where;
}

/* Where it goes, and that it may: 0, or the reason of its drop. */
PB_FUNCTION int dsr_route(struct __sk_buff *ctx, const struct pb_packet *pkt,
			  const struct pb_ct *to, struct bpf_fib_lookup *route, int *ret_where)
{
	__be32 node = 0;

	if (!pkt || !to || !route || !ret_where)
		return PB_REASON_WRITE_ERROR;
	if (dsr_dispatch == DSR_GENEVE) {
		node = dsr_node_of(pkt->family, &to->daddr);
		if (!node)
			return PB_REASON_NO_TUNNEL;
		*ret_where = dsr_route_node(ctx, pkt, node, route);
	} else {
		*ret_where = pb_forward_route(ctx, pkt, to, route);
	}
	switch (*ret_where) {
	case PB_FORWARD_NO_ROUTE:
		return PB_REASON_NO_FIB;
	case PB_FORWARD_TTL:
		return PB_REASON_TTL_EXCEEDED;
	case PB_FORWARD_STACK:
		break;
	default:
		if (pb_forward_too_big(ctx, pkt, route->mtu_result - dsr_extra(pkt)))
			return PB_REASON_FRAG_NEEDED;
	}
	if (!dsr_has_room(ctx, pkt)) {
		DSR_COUNT(no_space);
		return PB_REASON_INVALID_HEADER;
	}
	return 0;
}

PB_REPLY_STATE(dsr_replies);

/* This node's address of the packet's family, in whose name it says that the hop limit is over. */
PB_INLINE void dsr_node_address(const struct pb_packet *pkt, union pb_addr *ret_addr)
{
	__u32 zero = 0;
	const struct pb_svc_settings *set = bpf_map_lookup_elem(&kpr__kpr_settings, &zero);

	__builtin_memset(ret_addr, 0, sizeof(*ret_addr));
	if (set && pkt->family == 4)
		ret_addr->v4 = set->node4;
	else if (set)
		pb_ct_copy_addr(ret_addr, (const union pb_addr *)set->node6);
}

/* The packet is unchanged. Ends the chain. */
PB_INLINE int dsr_refuse(struct __sk_buff *ctx, struct pb_packet *pkt, int reason, __u32 mtu)
{
	union pb_addr node;

	if (reason == PB_REASON_FRAG_NEEDED) {
		DSR_COUNT(mtu);
		if (pb_reply_too_big(ctx, pkt, &dsr_replies, mtu) == 0)
			return pb_reply_send(ctx, pkt, reason);
	} else if (reason == PB_REASON_TTL_EXCEEDED) {
		dsr_node_address(pkt, &node);
		if (pb_reply_ttl(ctx, pkt, &dsr_replies, &node) == 0)
			return pb_reply_send(ctx, pkt, reason);
	}
	return pb_drop(ctx, reason);
}

/* The client's half; answers don't come by. A new flow, or one that another CPU just made. */
PB_FUNCTION int dsr_begin(struct pb_packet *pkt, const struct pb_svc_flow *flow, struct pb_ct *to)
{
	struct pb_ct_key key;
	int rc;

	if (!pkt || !flow || !to)
		return -PB_ENOSPC;
	pb_ct_key_of(pkt, PB_CT_ZONE_SERVICE, &key);
	rc = pb_ct_create_single(&key, to, pkt->protocol == IPPROTO_TCP ? pkt->tcp_flags : 0);
	return rc == -PB_EALREADY ? 0 : rc;
}

PB_INLINE void dsr_to_backend(struct pb_packet *pkt, const struct pb_svc_flow *flow,
			      struct pb_ct *to)
{
	__builtin_memset(to, 0, sizeof(*to));
	pb_ct_copy_addr(&to->saddr, &pkt->saddr);
	pb_ct_copy_addr(&to->daddr, &flow->to.addr);
	to->sport = pkt->sport;
	to->dport = flow->to.port;
	to->flags = PB_CT_DSR;
	to->frontend = flow->id;
	to->backend = flow->backend;
	to->pool = flow->to.pool;
	to->identity = pkt->src_identity;
	to->ifindex = pkt->ifindex;
}

/*
 * The untagged packet gets what carries the frontend. Inside IP it stays the client's to the
 * frontend, only its hop limit goes down: `to` then is where the outer packet goes.
 */
PB_FUNCTION int dsr_dress(struct __sk_buff *ctx, struct pb_packet *pkt, const struct pb_ct *to,
			  __u32 hop)
{
	struct dsr_info info = {0};
	struct pb_ct same;

	if (!pkt || !to)
		return DSR_FAILED;
	pb_ct_copy_addr(&info.addr, &pkt->daddr);
	info.port = pkt->dport;
	if (dsr_dispatch == DSR_IPIP) {
		same = *to;
		pb_ct_copy_addr(&same.daddr, &pkt->daddr);
		same.dport = pkt->dport;
		if (pb_nat_translate(ctx, pkt, &same, hop) < 0)
			return DSR_FAILED;
		return dsr_ipip(ctx, pkt, to);
	}
	if (pb_nat_translate(ctx, pkt, to, hop) < 0)
		return DSR_FAILED;
	if (dsr_dispatch == DSR_GENEVE)
		return dsr_geneve(ctx, pkt, &info, dsr_node_of(pkt->family, &to->daddr));
	return dsr_insert(ctx, pkt, &info);
}

/* Sends the packet to the backend with the frontend in it. Ends the chain. */
PB_INLINE int dsr_send(struct __sk_buff *ctx, struct pb_packet *pkt, struct pb_svc_flow *flow,
		       struct pb_ct *to)
{
	struct bpf_fib_lookup route;
	int where, rc;

	rc = dsr_route(ctx, pkt, to, &route, &where);
	if (rc)
		return dsr_refuse(ctx, pkt, rc, route.mtu_result - dsr_extra(pkt));
	if (flow->state == PB_SVC_FLOW_NEW && dsr_begin(pkt, flow, to) < 0)
		return pb_drop(ctx, PB_REASON_CT_FULL);
	if (ctx->vlan_present || pkt->l3_off > PB_FORWARD_ETH_LEN)
		pb_forward_untag(ctx, pkt);
	pkt->len = ctx->len;
	if (dsr_dress(ctx, pkt, to, pb_forward_hop(where)) < 0)
		return pb_drop(ctx, PB_REASON_WRITE_ERROR);
	DSR_COUNT(sent);
	/* The chain goes on, but kpr-nat has nothing to do with it. */
	if (where == PB_FORWARD_STACK)
		flow->state = PB_SVC_FLOW_NONE;
	return pb_forward_send(ctx, pkt, where, &route);
}

#endif
