/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sending a packet on as a router would, from where it is, without the stack. Include it after
 * patchbay/bpf.h.
 *
 *	pb_forward_route()	where a packet goes that will have these addresses; asked before
 *				the packet is changed, so that an error can quote what came
 *	pb_forward_send()	ends the chain: sends it there
 *
 * In between the caller translates and takes one from the hop limit (pb_nat_translate()) where
 * pb_forward_hop() says so. What goes to a pod leaves by the egress of its interface, never by
 * redirect_peer, so that the pod's ingress chain sees it. Every packet that is sent on carries
 * PB_MARK_TRANSLATED.
 *
 * A source that is this node's own address must be sent by these functions: the stack takes such
 * a packet for a forgery and drops it.
 */
#ifndef PATCHBAY_FORWARD_H
#define PATCHBAY_FORWARD_H

#include <patchbay/ct.h>

/* pb_forward_route() */
enum pb_forward {
	PB_FORWARD_STACK = 0,  /* an address of this node, or a route that only the stack can use */
	PB_FORWARD_DEVICE = 1, /* both MAC addresses are known */
	PB_FORWARD_NEIGH = 2,  /* the kernel has to ask for the neighbour's */
	PB_FORWARD_NO_ROUTE = 3, /* PB_REASON_NO_FIB */
	PB_FORWARD_TTL = 4,	 /* the hop limit is used up: PB_REASON_TTL_EXCEEDED */
	PB_FORWARD_TOO_BIG = 5,	 /* ret_route->mtu_result says what fits: PB_REASON_FRAG_NEEDED */
};

#define PB_FORWARD_INET 2
#define PB_FORWARD_INET6 10
#define PB_FORWARD_ETH_LEN 14

/* What pb_nat_translate() takes from the hop limit. */
PB_INLINE __u32 pb_forward_hop(int where)
{
	return where == PB_FORWARD_DEVICE || where == PB_FORWARD_NEIGH;
}

/* The bytes of a TCP segment's headers from L3 on; GSO packets of other protocols have 8. */
PB_INLINE __u32 pb_forward_headers(struct __sk_buff *ctx, const struct pb_packet *pkt)
{
	__u32 len = pkt->l4_off - pkt->l3_off;
	__u8 off = 0;

	if (pkt->protocol != IPPROTO_TCP || bpf_skb_load_bytes(ctx, pkt->l4_off + 12, &off, 1) < 0)
		return len + 8;
	return len + (off >> 4) * 4;
}

/* The kernel's own check lets four bytes too many pass and doesn't look at segments. */
PB_INLINE bool pb_forward_too_big(struct __sk_buff *ctx, const struct pb_packet *pkt, __u32 mtu)
{
	if (pkt->len - pkt->l3_off <= mtu)
		return false;
	return ctx->gso_size == 0 || ctx->gso_size + pb_forward_headers(ctx, pkt) > mtu;
}

/* The MTU where the look-up ended before it came to that. */
PB_INLINE __u32 pb_forward_mtu(struct __sk_buff *ctx, __u32 ifindex)
{
	__u32 mtu = 0;

	return bpf_check_mtu(ctx, ifindex, &mtu, 0, 0) < 0 ? 65535 : mtu;
}

PB_INLINE int pb_forward_code(long rc)
{
	switch (rc) {
	case BPF_FIB_LKUP_RET_SUCCESS:
		return PB_FORWARD_DEVICE;
	case BPF_FIB_LKUP_RET_NO_NEIGH:
		return PB_FORWARD_NEIGH;
	case BPF_FIB_LKUP_RET_FRAG_NEEDED:
		return PB_FORWARD_TOO_BIG;
	case BPF_FIB_LKUP_RET_NOT_FWDED:
	case BPF_FIB_LKUP_RET_FWD_DISABLED:
	case BPF_FIB_LKUP_RET_UNSUPP_LWT:
		return PB_FORWARD_STACK;
	}
	return PB_FORWARD_NO_ROUTE;
}

/*
 * Where the packet goes with the addresses and ports of `to`. enum pb_forward; *ret_route is for
 * pb_forward_send().
 */
PB_FUNCTION int pb_forward_route(struct __sk_buff *ctx, const struct pb_packet *pkt,
				 const struct pb_ct *to, struct bpf_fib_lookup *ret_route)
{
	__be32 head[3]; /* of the IP header: type of service or flow, TTL or hop limit */
	__u32 hops, mtu;
	int where;

	if (!pkt || !to || !ret_route || pb_frame_load(ctx, pkt->l3_off, head, sizeof(head)) < 0)
		return PB_FORWARD_NO_ROUTE;
	__builtin_memset(ret_route, 0, sizeof(*ret_route));
	ret_route->ifindex = pkt->ifindex;
	ret_route->l4_protocol = pkt->protocol;
	ret_route->sport = to->sport;
	ret_route->dport = to->dport;
	if (pkt->family == 4) {
		ret_route->family = PB_FORWARD_INET;
		ret_route->tos = ((__u8 *)head)[1];
		hops = ((__u8 *)head)[8];
		ret_route->ipv4_src = to->saddr.v4;
		ret_route->ipv4_dst = to->daddr.v4;
	} else {
		ret_route->family = PB_FORWARD_INET6;
		ret_route->flowinfo = head[0] & bpf_htonl(0x0fffffff);
		hops = ((__u8 *)head)[7];
		pb_ct_copy_addr((union pb_addr *)ret_route->ipv6_src, &to->saddr);
		pb_ct_copy_addr((union pb_addr *)ret_route->ipv6_dst, &to->daddr);
	}
	/* No length: of a packet in one piece (GSO) the kernel would say that it doesn't fit. */
	where = pb_forward_code(bpf_fib_lookup(ctx, ret_route, sizeof(*ret_route), 0));
	if (where == PB_FORWARD_STACK || where == PB_FORWARD_NO_ROUTE)
		return where;
	if (hops <= 1)
		return PB_FORWARD_TTL;
	mtu = where == PB_FORWARD_NEIGH ? pb_forward_mtu(ctx, ret_route->ifindex)
					: ret_route->mtu_result;
	ret_route->mtu_result = mtu;
	return pb_forward_too_big(ctx, pkt, mtu) ? PB_FORWARD_TOO_BIG : where;
}

/* A tag is the link's that the packet came by. */
PB_INLINE void pb_forward_untag(struct __sk_buff *ctx, struct pb_packet *pkt)
{
	__u32 inside = (__u32)(pkt->l3_off - PB_FORWARD_ETH_LEN) & 0xf;

	if (ctx->vlan_present)
		bpf_skb_vlan_pop(ctx);
	if (inside >= 4)
		bpf_skb_vlan_pop(ctx);
	if (inside >= 8)
		bpf_skb_vlan_pop(ctx);
	pkt->l3_off -= inside;
	if (pkt->l4_off)
		pkt->l4_off -= inside;
}

PB_INLINE long pb_forward_macs(struct __sk_buff *ctx, const struct bpf_fib_lookup *route)
{
	const __u16 *dmac = (const __u16 *)route->dmac, *smac = (const __u16 *)route->smac;
	__u16 macs[6] = {dmac[0], dmac[1], dmac[2], smac[0], smac[1], smac[2]};

	return bpf_skb_store_bytes(ctx, 0, macs, sizeof(macs), 0);
}

/*
 * Ends the chain: the packet, which is translated by now, goes where pb_forward_route() said (one
 * of the first three). What the stack takes over goes on through the chain.
 */
PB_INLINE int pb_forward_send(struct __sk_buff *ctx, struct pb_packet *pkt, int where,
			      const struct bpf_fib_lookup *route)
{
	ctx->mark |= PB_MARK_TRANSLATED;
	if (where == PB_FORWARD_STACK)
		return pb_next(ctx);
	if (ctx->vlan_present || pkt->l3_off > PB_FORWARD_ETH_LEN)
		pb_forward_untag(ctx, pkt);
	if (where == PB_FORWARD_NEIGH)
		return pb_redirect(ctx, PB_REDIRECT_NEIGH, route->ifindex);
	if (pb_forward_macs(ctx, route) < 0)
		return pb_drop(ctx, PB_REASON_WRITE_ERROR);
	return pb_redirect(ctx, PB_REDIRECT_EGRESS, route->ifindex);
}

#endif
