/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The frontend in front of the packet instead of in it: IPIP and Geneve.
 *
 * IPIP: the client's packet as it was, to the frontend; the outer header goes to the backend, so
 * that it takes the backend's ordinary route. Geneve: the packet to the backend, the frontend in
 * an option; the outer header goes to the backend's node.
 *
 * Owns the outer headers. What is unpacked here came from a node: nobody else may send packets
 * past the filters that look at outer headers. A tunnel of somebody else's is left alone.
 */
#ifndef DSR_TUNNEL_BPF_H
#define DSR_TUNNEL_BPF_H

#include <linux/udp.h>

#include "dsr_encode.bpf.h"
#include "dsr_maps.bpf.h"

#define DSR_ETH 14
#define DSR_IPIP6 41 /* IPv6 behind it */
#define DSR_GENEVE_OPTIONS 4
#define DSR_HOPS 64
#define DSR_DF 0x4000
#define DSR_ETHERNET 0x6558

/* Newer than some headers. */
#define DSR_DECAP_IPV4 (1ULL << 7)
#define DSR_DECAP_IPV6 (1ULL << 8)

/* What stands between the outer Ethernet header and the inner one. */
struct dsr_outer {
	struct iphdr ip;
	struct udphdr udp;
	struct dsr_geneve geneve;
};

#define DSR_GENEVE_EXTRA4 (sizeof(struct dsr_outer) + sizeof(struct dsr_geneve4) + DSR_ETH)
#define DSR_GENEVE_EXTRA6 (sizeof(struct dsr_outer) + sizeof(struct dsr_geneve6) + DSR_ETH)

/* An address of any node, as far as the ipcache knows. */
PB_INLINE bool dsr_node_known(const struct pb_packet *pkt, const union pb_addr *addr)
{
	__u32 identity = pb_addr_identity(pkt, addr);

	return identity == PB_IDENTITY_HOST || identity == PB_IDENTITY_REMOTE_NODE ||
	       identity == PB_IDENTITY_KUBE_APISERVER;
}

/* The node that has a pod; 0: unknown. */
PB_INLINE __be32 dsr_node_of(__u8 family, const union pb_addr *pod)
{
	const struct pb_ipcache_value *value;
	struct pb_ipcache_key6 key6 = {.bits = 128};
	struct pb_ipcache_key4 key4 = {.bits = 32};

	if (family == 4) {
		key4.addr = pod->v4;
		value = bpf_map_lookup_elem(&pb_ipcache4, &key4);
	} else {
		pb_ct_copy_addr((union pb_addr *)key6.addr, pod);
		value = bpf_map_lookup_elem(&pb_ipcache6, &key6);
	}
	return value ? value->node4 : 0;
}

PB_INLINE void dsr_outer_ip(struct iphdr *ip, __u8 protocol, __u32 len, __be32 saddr, __be32 daddr)
{
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = 5;
	ip->tot_len = bpf_htons((__u16)len);
	ip->frag_off = bpf_htons(DSR_DF);
	ip->ttl = DSR_HOPS;
	ip->protocol = protocol;
	ip->saddr = saddr;
	ip->daddr = daddr;
	ip->check = dsr_fold((__u64)bpf_csum_diff(NULL, 0, (__be32 *)ip, sizeof(*ip), 0));
}

/* ---- IPIP ---- */

PB_INLINE int dsr_ipip4(struct __sk_buff *ctx, const struct pb_packet *pkt, const struct pb_ct *to,
			__be32 source)
{
	struct iphdr ip;

	dsr_outer_ip(&ip, IPPROTO_IPIP, pkt->len - pkt->l3_off + sizeof(ip), source, to->daddr.v4);
	if (bpf_skb_adjust_room(ctx, sizeof(ip), BPF_ADJ_ROOM_MAC,
				DSR_ROOM_FLAGS | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4) < 0)
		return DSR_FAILED;
	return bpf_skb_store_bytes(ctx, DSR_ETH, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM) < 0
		       ? DSR_FAILED
		       : 0;
}

PB_INLINE int dsr_ipip6(struct __sk_buff *ctx, const struct pb_packet *pkt, const struct pb_ct *to,
			const union pb_addr *source)
{
	struct ipv6hdr ip = {.version = 6, .nexthdr = DSR_IPIP6, .hop_limit = DSR_HOPS};

	ip.payload_len = bpf_htons((__u16)(pkt->len - pkt->l3_off));
	pb_ct_copy_addr((union pb_addr *)&ip.saddr, source);
	pb_ct_copy_addr((union pb_addr *)&ip.daddr, &to->daddr);
	if (bpf_skb_adjust_room(ctx, sizeof(ip), BPF_ADJ_ROOM_MAC,
				DSR_ROOM_FLAGS | BPF_F_ADJ_ROOM_ENCAP_L3_IPV6) < 0)
		return DSR_FAILED;
	return bpf_skb_store_bytes(ctx, DSR_ETH, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM) < 0
		       ? DSR_FAILED
		       : 0;
}

/* The untagged packet, unchanged but for its hop limit, goes inside. 0 or DSR_FAILED. */
PB_FUNCTION int dsr_ipip(struct __sk_buff *ctx, const struct pb_packet *pkt, const struct pb_ct *to)
{
	__u32 zero = 0;
	const struct pb_svc_settings *set = bpf_map_lookup_elem(&kpr__kpr_settings, &zero);

	if (!pkt || !to || !set)
		return DSR_FAILED;
	return pkt->family == 4 ? dsr_ipip4(ctx, pkt, to, set->node4)
				: dsr_ipip6(ctx, pkt, to, (const union pb_addr *)set->node6);
}

/* ---- Geneve ---- */

/* Spreads flows over queues and links; any port will do. */
PB_INLINE __be16 dsr_geneve_sport(const struct pb_packet *pkt)
{
	__u32 h = (pkt->saddr.v6[0] ^ pkt->saddr.v6[3] ^ pkt->sport) * 0x9e3779b1U;

	return bpf_htons((__u16)(0xc000 | h >> 18));
}

PB_INLINE int dsr_store_info(struct __sk_buff *ctx, __u8 family, const struct dsr_info *info)
{
	struct dsr_geneve6 opt = {.head = {.class = bpf_htons(DSR_GENEVE_CLASS),
					   .type = DSR_GENEVE_TYPE,
					   .words = 5}};
	struct dsr_geneve4 opt4 = {.head = {.class = bpf_htons(DSR_GENEVE_CLASS),
					    .type = DSR_GENEVE_TYPE,
					    .words = 2}};
	const __u32 at = DSR_ETH + sizeof(struct dsr_outer);

	if (family == 4) {
		opt4.addr = info->addr.v4;
		opt4.port = info->port;
		return (int)bpf_skb_store_bytes(ctx, at, &opt4, sizeof(opt4), BPF_F_RECOMPUTE_CSUM);
	}
	__builtin_memcpy(opt.addr, info->addr.v6, sizeof(opt.addr));
	opt.port = info->port;
	return (int)bpf_skb_store_bytes(ctx, at, &opt, sizeof(opt), BPF_F_RECOMPUTE_CSUM);
}

/* The outer Ethernet header is repeated inside; the receiver takes it away unread. */
PB_INLINE int dsr_store_eth(struct __sk_buff *ctx, __u8 family, __u32 extra)
{
	struct ethhdr eth;
	const __be16 outer = bpf_htons(ETH_P_IP);

	if (bpf_skb_load_bytes(ctx, 0, &eth, sizeof(eth)) < 0)
		return DSR_FAILED;
	eth.h_proto = family == 4 ? outer : bpf_htons(ETH_P_IPV6);
	if (bpf_skb_store_bytes(ctx, extra, &eth, sizeof(eth), BPF_F_RECOMPUTE_CSUM) < 0)
		return DSR_FAILED;
	return (int)bpf_skb_store_bytes(ctx, 12, &outer, sizeof(outer), 0);
}

/* The untagged packet, on its way to the backend, goes inside. 0 or DSR_FAILED. */
PB_FUNCTION int dsr_geneve(struct __sk_buff *ctx, const struct pb_packet *pkt,
			   const struct dsr_info *info, __be32 node)
{
	const __u64 flags = DSR_ROOM_FLAGS | BPF_F_ADJ_ROOM_ENCAP_L3_IPV4 |
			    BPF_F_ADJ_ROOM_ENCAP_L4_UDP | BPF_F_ADJ_ROOM_ENCAP_L2_ETH |
			    BPF_F_ADJ_ROOM_ENCAP_L2(DSR_ETH);
	__u32 extra, len, zero = 0;
	const struct pb_svc_settings *set = bpf_map_lookup_elem(&kpr__kpr_settings, &zero);
	struct dsr_outer outer = {0};
	long rc;

	if (!pkt || !info || !set)
		return DSR_FAILED;
	extra = pkt->family == 4 ? DSR_GENEVE_EXTRA4 : DSR_GENEVE_EXTRA6;
	len = pkt->len - pkt->l3_off + extra;
	dsr_outer_ip(&outer.ip, IPPROTO_UDP, len, set->node4, node);
	outer.udp.source = dsr_geneve_sport(pkt);
	outer.udp.dest = bpf_htons(DSR_GENEVE_PORT);
	outer.udp.len = bpf_htons((__u16)(len - sizeof(outer.ip)));
	outer.geneve.words = pkt->family == 4 ? 3 : 6;
	outer.geneve.flags = 0x40;
	outer.geneve.proto = bpf_htons(DSR_ETHERNET);
	outer.geneve.vni = bpf_htonl(DSR_GENEVE_VNI << 8);
	rc = pkt->family == 4
		     ? bpf_skb_adjust_room(ctx, DSR_GENEVE_EXTRA4, BPF_ADJ_ROOM_MAC, flags)
		     : bpf_skb_adjust_room(ctx, DSR_GENEVE_EXTRA6, BPF_ADJ_ROOM_MAC, flags);
	if (rc < 0 ||
	    bpf_skb_store_bytes(ctx, DSR_ETH, &outer, sizeof(outer), BPF_F_RECOMPUTE_CSUM) < 0)
		return DSR_FAILED;
	if (dsr_store_info(ctx, pkt->family, info) < 0)
		return DSR_FAILED;
	return dsr_store_eth(ctx, pkt->family, extra);
}

/* ---- unpacking ---- */

/* What dsr_unpack() found. */
enum dsr_packed {
	DSR_PACKED_NOT = 0,    /* nobody's, or somebody else's */
	DSR_PACKED_IPIP = 1,   /* *ret_outer is the backend, the packet goes to the frontend */
	DSR_PACKED_GENEVE = 2, /* *ret_info is the frontend, the packet goes to the backend */
	DSR_PACKED_BAD = 3,    /* drop it */
};

/* The record of the packet that came to light. */
PB_INLINE int dsr_reread4(struct __sk_buff *ctx, struct pb_packet *pkt)
{
	struct iphdr ip;

	if (bpf_skb_load_bytes(ctx, DSR_ETH, &ip, sizeof(ip)) < 0 || ip.version != 4 ||
	    ip.ihl < 5 || ip.frag_off & bpf_htons(0x1fff))
		return DSR_FAILED;
	pkt->family = 4;
	pkt->protocol = ip.protocol;
	pkt->flags = ip.ihl > 5 ? PB_PKT_OPTIONS : 0;
	if (ip.frag_off & bpf_htons(0x2000))
		pkt->flags |= PB_PKT_FRAGMENT;
	__builtin_memset(&pkt->saddr, 0, sizeof(pkt->saddr));
	__builtin_memset(&pkt->daddr, 0, sizeof(pkt->daddr));
	pkt->saddr.v4 = ip.saddr;
	pkt->daddr.v4 = ip.daddr;
	pkt->l4_off = DSR_ETH + ip.ihl * 4;
	return 0;
}

/* Packets with extension headers are never packed. */
PB_INLINE int dsr_reread6(struct __sk_buff *ctx, struct pb_packet *pkt)
{
	struct ipv6hdr ip;

	if (bpf_skb_load_bytes(ctx, DSR_ETH, &ip, sizeof(ip)) < 0 || ip.version != 6)
		return DSR_FAILED;
	pkt->family = 6;
	pkt->protocol = ip.nexthdr;
	pkt->flags = 0;
	pb_ct_copy_addr(&pkt->saddr, (const union pb_addr *)&ip.saddr);
	pb_ct_copy_addr(&pkt->daddr, (const union pb_addr *)&ip.daddr);
	pkt->l4_off = DSR_ETH + sizeof(ip);
	return 0;
}

PB_FUNCTION int dsr_reread(struct __sk_buff *ctx, struct pb_packet *pkt, __u32 family)
{
	__be16 ports[2];
	__u8 flags = 0;

	if (!pkt)
		return DSR_FAILED;
	pkt->len = ctx->len;
	pkt->l3_off = DSR_ETH;
	pkt->src_identity = PB_IDENTITY_UNKNOWN;
	pkt->dst_identity = PB_IDENTITY_UNKNOWN;
	if ((family == 4 ? dsr_reread4(ctx, pkt) : dsr_reread6(ctx, pkt)) < 0)
		return DSR_FAILED;
	if ((pkt->protocol != IPPROTO_TCP && pkt->protocol != IPPROTO_UDP) ||
	    bpf_skb_load_bytes(ctx, pkt->l4_off, ports, sizeof(ports)) < 0)
		return DSR_FAILED;
	pkt->sport = ports[0];
	pkt->dport = ports[1];
	if (pkt->protocol == IPPROTO_TCP &&
	    bpf_skb_load_bytes(ctx, pkt->l4_off + 13, &flags, 1) < 0)
		return DSR_FAILED;
	pkt->tcp_flags = flags;
	return 0;
}

/* The outer headers go. Only of frames without a tag: the kernel can't do it behind one. */
PB_INLINE int dsr_take_out(struct __sk_buff *ctx, struct pb_packet *pkt, __u32 len, __u32 family)
{
	const __be16 proto = family == 4 ? bpf_htons(ETH_P_IP) : bpf_htons(ETH_P_IPV6);
	const __u64 decap = family == 4 ? DSR_DECAP_IPV4 : DSR_DECAP_IPV6;

	if (bpf_skb_adjust_room(ctx, -(__s32)len, BPF_ADJ_ROOM_MAC, DSR_ROOM_FLAGS | decap) < 0 ||
	    bpf_skb_store_bytes(ctx, 12, &proto, sizeof(proto), 0) < 0)
		return DSR_FAILED;
	return dsr_reread(ctx, pkt, family);
}

PB_FUNCTION int dsr_unpack_ipip(struct __sk_buff *ctx, struct pb_packet *pkt,
				union pb_addr *ret_outer)
{
	int rc;

	if (!pkt || !ret_outer || pkt->l3_off != DSR_ETH || pkt->flags != PB_PKT_NO_L4 ||
	    !dsr_node_known(pkt, &pkt->saddr))
		return DSR_PACKED_NOT;
	pb_ct_copy_addr(ret_outer, &pkt->daddr);
	rc = pkt->family == 4 ? dsr_take_out(ctx, pkt, sizeof(struct iphdr), 4)
			      : dsr_take_out(ctx, pkt, sizeof(struct ipv6hdr), 6);
	return rc < 0 ? DSR_PACKED_BAD : DSR_PACKED_IPIP;
}

/* Ours among the options; one that is critical and unknown spoils the packet. */
PB_FUNCTION int dsr_read_options(struct __sk_buff *ctx, __u32 off, __u32 end,
				 struct dsr_info *ret_info)
{
	int found = DSR_PACKED_NOT;
	union {
		struct dsr_geneve_option head;
		struct dsr_geneve4 v4;
		struct dsr_geneve6 v6;
	} opt;

	if (!ret_info)
		return DSR_PACKED_NOT;
	for (int i = 0; i < DSR_GENEVE_OPTIONS && off < end; i++) {
		/* Whatever the length: behind the options there is a packet. */
		if (bpf_skb_load_bytes(ctx, off, &opt, sizeof(opt)) < 0)
			return DSR_PACKED_BAD;
		off += 4 + (opt.head.words & 0x1f) * 4;
		if (opt.head.class == bpf_htons(DSR_GENEVE_CLASS) &&
		    opt.head.type == DSR_GENEVE_TYPE) {
			__builtin_memset(ret_info, 0, sizeof(*ret_info));
			if (opt.head.words == 2) {
				ret_info->addr.v4 = opt.v4.addr;
				ret_info->port = opt.v4.port;
			} else if (opt.head.words == 5) {
				__builtin_memcpy(ret_info->addr.v6, opt.v6.addr,
						 sizeof(opt.v6.addr));
				ret_info->port = opt.v6.port;
			} else {
				return DSR_PACKED_BAD;
			}
			found = DSR_PACKED_GENEVE;
		} else if (opt.head.type & DSR_GENEVE_CRITICAL) {
			return DSR_PACKED_BAD;
		}
	}
	return off == end ? found : DSR_PACKED_BAD;
}

PB_FUNCTION int dsr_unpack_geneve(struct __sk_buff *ctx, struct pb_packet *pkt,
				  struct dsr_info *ret_info)
{
	struct dsr_geneve head;
	__u32 off, end;
	__be16 proto;
	int rc;

	if (!pkt || !ret_info || pkt->family != 4 || pkt->l3_off != DSR_ETH || pkt->flags ||
	    bpf_skb_load_bytes(ctx, pkt->l4_off + 8, &head, sizeof(head)) < 0 || head.words >> 6 ||
	    head.proto != bpf_htons(DSR_ETHERNET) || head.vni != bpf_htonl(DSR_GENEVE_VNI << 8) ||
	    !dsr_node_known(pkt, &pkt->saddr))
		return DSR_PACKED_NOT;
	off = pkt->l4_off + 8 + sizeof(head);
	end = off + (head.words & 0x3f) * 4;
	rc = dsr_read_options(ctx, off, end, ret_info);
	if (rc != DSR_PACKED_GENEVE)
		return rc;
	if (bpf_skb_load_bytes(ctx, end + 12, &proto, sizeof(proto)) < 0)
		return DSR_PACKED_BAD;
	/* From behind the outer Ethernet header to behind the inner one. */
	if (proto == bpf_htons(ETH_P_IP))
		rc = dsr_take_out(ctx, pkt, end, 4);
	else
		rc = dsr_take_out(ctx, pkt, end, 6);
	return rc < 0 ? DSR_PACKED_BAD : DSR_PACKED_GENEVE;
}

#endif
