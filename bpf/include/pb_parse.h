/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads the headers of a frame into struct pb_packet, once per packet.
 *
 * Owns what the fields of the record mean for odd packets. Reads in place where the header lies
 * in the linear part of the skb and copies it otherwise; it must never call
 * bpf_skb_pull_data(), which would copy the data of every cloned packet that passes.
 */
#ifndef PB_PARSE_H
#define PB_PARSE_H

#include <stdbool.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <patchbay/bpf.h>

#define PB_VLAN_TAGS 2	    /* at most; hardware usually takes the outer tag away */
#define PB_IPV6_HEADERS 8   /* extension headers followed, at most */
#define PB_HEADERS_MAX 4096 /* bytes before L4, at most */
#define PB_IP_MF 0x2000	    /* more fragments */
#define PB_IP_OFFSET 0x1fff

#define pb_likely(x_) __builtin_expect(!!(x_), 1)
#define pb_unlikely(x_) __builtin_expect(!!(x_), 0)

struct pb_vlan_tag {
	__be16 tci;
	__be16 proto;
};

/* The common start of IPv6 extension headers; `value` is the offset field of a fragment. */
struct pb_ipv6_ext {
	__u8 next;
	__u8 len;
	__be16 value;
};

struct pb_icmp_echo {
	__u8 type;
	__u8 code;
	__sum16 sum;
	__be16 id;
	__be16 seq;
};

struct pb_sctp {
	__be16 source;
	__be16 dest;
	__be32 tag;
	__be32 sum;
};

/* `len` bytes at `off`: in place or, past the linear part, in `buf`. NULL past the frame's end. */
PB_INLINE void *pb_header_at(struct __sk_buff *ctx, __u32 off, void *buf, const __u32 len)
{
	void *p = (void *)(long)ctx->data + off;

	if (pb_likely(p + len <= (void *)(long)ctx->data_end))
		return p;
	return bpf_skb_load_bytes(ctx, off, buf, len) < 0 ? NULL : buf;
}

/* The fields that every packet starts with; the record still holds the packet before. */
PB_INLINE void pb_packet_reset(struct __sk_buff *ctx, struct pb_packet *pkt, __u32 hook)
{
	pkt->size = sizeof(*pkt);
	pkt->hook = hook;
	pkt->family = 0;
	pkt->protocol = 0;
	pkt->tcp_flags = 0;
	pkt->l3_off = 0;
	pkt->l4_off = 0;
	pkt->sport = 0;
	pkt->dport = 0;
	__builtin_memset(&pkt->saddr, 0, sizeof(pkt->saddr));
	__builtin_memset(&pkt->daddr, 0, sizeof(pkt->daddr));
	pkt->ifindex = ctx->ifindex;
	pkt->len = ctx->len;
	pkt->generation = 0;
	pkt->verdict = PB_VERDICT_PASS;
	pkt->redirect_kind = PB_REDIRECT_NONE;
	pkt->reason = PB_REASON_NONE;
	pkt->redirect_ifindex = 0;
	pkt->src_identity = 0;
	pkt->dst_identity = 0;
	pkt->policy = 0;
	pkt->endpoint = 0;
}

/* Returns the flags that L4 adds. */
PB_INLINE __u32 pb_parse_l4(struct __sk_buff *ctx, struct pb_packet *pkt, __u32 off, __u8 proto)
{
	union {
		struct tcphdr tcp;
		struct udphdr udp;
		struct pb_sctp sctp;
		struct pb_icmp_echo icmp;
	} buf;
	const __u32 cut = PB_PKT_NO_L4 | PB_PKT_MALFORMED;

	if (proto == IPPROTO_TCP) {
		struct tcphdr *tcp = pb_header_at(ctx, off, &buf, sizeof(*tcp));

		if (!tcp)
			return cut;
		pkt->sport = tcp->source;
		pkt->dport = tcp->dest;
		pkt->tcp_flags = ((__u8 *)tcp)[13];
	} else if (proto == IPPROTO_UDP) {
		struct udphdr *udp = pb_header_at(ctx, off, &buf, sizeof(*udp));

		if (!udp)
			return cut;
		pkt->sport = udp->source;
		pkt->dport = udp->dest;
	} else if (proto == IPPROTO_SCTP) {
		struct pb_sctp *sctp = pb_header_at(ctx, off, &buf, sizeof(*sctp));

		if (!sctp)
			return cut;
		pkt->sport = sctp->source;
		pkt->dport = sctp->dest;
	} else if (proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6) {
		struct pb_icmp_echo *icmp = pb_header_at(ctx, off, &buf, sizeof(*icmp));
		__u8 type;

		if (!icmp)
			return cut;
		type = icmp->type;
		/* Echo: 8 and 0 in ICMP, 128 and 129 in ICMPv6; the rest has no id. */
		if (proto == IPPROTO_ICMP ? type == 8 || type == 0 : type == 128 || type == 129) {
			pkt->sport = icmp->id;
			pkt->dport = icmp->id;
		}
	} else {
		return PB_PKT_NO_L4;
	}
	pkt->l4_off = off;
	return 0;
}

PB_INLINE __u32 pb_parse_ipv4(struct __sk_buff *ctx, struct pb_packet *pkt, __u32 off)
{
	struct iphdr buf;
	struct iphdr *ip = pb_header_at(ctx, off, &buf, sizeof(*ip));
	__u32 flags = 0, len;
	__u16 frag;

	if (!ip || ip->version != 4)
		return PB_PKT_NO_L4 | PB_PKT_MALFORMED;
	len = ip->ihl * 4;
	if (len < sizeof(*ip) || bpf_ntohs(ip->tot_len) < len || off + len > ctx->len)
		return PB_PKT_NO_L4 | PB_PKT_MALFORMED;
	pkt->family = 4;
	pkt->protocol = ip->protocol;
	pkt->saddr.v4 = ip->saddr;
	pkt->daddr.v4 = ip->daddr;
	frag = bpf_ntohs(ip->frag_off);
	if (len > sizeof(*ip))
		flags |= PB_PKT_OPTIONS;
	if (pb_unlikely(frag & (PB_IP_MF | PB_IP_OFFSET)))
		flags |= PB_PKT_FRAGMENT;
	if (pb_unlikely(frag & PB_IP_OFFSET))
		return flags | PB_PKT_NO_L4;
	return flags | pb_parse_l4(ctx, pkt, off + len, ip->protocol);
}

/* The extension headers that can be stepped over, a bit per protocol number. */
#define PB_IPV6_EXT_BITS                                                                           \
	(1ULL << IPPROTO_HOPOPTS | 1ULL << IPPROTO_ROUTING | 1ULL << IPPROTO_FRAGMENT |            \
	 1ULL << IPPROTO_AH | 1ULL << IPPROTO_DSTOPTS)

PB_INLINE __u32 pb_ipv6_is(__u64 bits, __u8 proto)
{
	return proto < 64 ? (bits >> proto) & 1 : 0;
}

/*
 * Steps over the extension headers. Sizes are computed without branches: with them the verifier
 * would follow every combination of headers, which is more than it is ready to do.
 */
PB_INLINE __u32 pb_parse_ipv6_ext(struct __sk_buff *ctx, __u32 *off, __u8 *proto)
{
	__u32 flags = PB_PKT_OPTIONS;

	for (int i = 0; i < PB_IPV6_HEADERS && pb_ipv6_is(PB_IPV6_EXT_BITS, *proto); i++) {
		struct pb_ipv6_ext ext;
		__u32 frag = pb_ipv6_is(1ULL << IPPROTO_FRAGMENT, *proto);
		__u32 ah = pb_ipv6_is(1ULL << IPPROTO_AH, *proto);

		if (bpf_skb_load_bytes(ctx, *off, &ext, sizeof(ext)) < 0)
			return flags | PB_PKT_MALFORMED | PB_PKT_NO_L4;
		*proto = ext.next;
		*off += ((ext.len & (frag - 1)) + 1 + ah) << (3 - ah);
		flags |= frag * PB_PKT_FRAGMENT;
		if (frag && bpf_ntohs(ext.value) & ~7)
			return flags | PB_PKT_NO_L4;
	}
	return flags;
}

PB_INLINE __u32 pb_parse_ipv6(struct __sk_buff *ctx, struct pb_packet *pkt, __u32 off)
{
	struct ipv6hdr buf;
	struct ipv6hdr *ip = pb_header_at(ctx, off, &buf, sizeof(*ip));
	__u32 flags = 0;
	__u8 proto;

	if (!ip || ip->version != 6)
		return PB_PKT_NO_L4 | PB_PKT_MALFORMED;
	proto = ip->nexthdr;
	pkt->family = 6;
	__builtin_memcpy(&pkt->saddr, &ip->saddr, sizeof(pkt->saddr));
	__builtin_memcpy(&pkt->daddr, &ip->daddr, sizeof(pkt->daddr));
	off += sizeof(*ip);
	if (pb_unlikely(pb_ipv6_is(PB_IPV6_EXT_BITS, proto)))
		flags = pb_parse_ipv6_ext(ctx, &off, &proto);
	pkt->protocol = proto;
	if (flags & PB_PKT_NO_L4)
		return flags;
	if (off > PB_HEADERS_MAX)
		return flags | PB_PKT_NO_L4 | PB_PKT_MALFORMED;
	return flags | pb_parse_l4(ctx, pkt, off, proto);
}

/* Fills the record of a frame that starts with its Ethernet header. */
PB_INLINE void pb_parse(struct __sk_buff *ctx, struct pb_packet *pkt, __u32 hook)
{
	struct ethhdr buf;
	struct ethhdr *eth = pb_header_at(ctx, 0, &buf, sizeof(*eth));
	__u32 off = sizeof(*eth);
	__be16 proto;

	pb_packet_reset(ctx, pkt, hook);
	pkt->flags = PB_PKT_NO_L4 | PB_PKT_MALFORMED;
	if (!eth)
		return;
	proto = eth->h_proto;
	for (int i = 0; i < PB_VLAN_TAGS; i++) {
		struct pb_vlan_tag tag_buf, *tag;

		if (pb_likely(proto != bpf_htons(ETH_P_8021Q) && proto != bpf_htons(ETH_P_8021AD)))
			break;
		tag = pb_header_at(ctx, off, &tag_buf, sizeof(*tag));
		if (!tag)
			return;
		proto = tag->proto;
		off += sizeof(*tag);
	}
	pkt->l3_off = off;
	if (proto == bpf_htons(ETH_P_IP))
		pkt->flags = pb_parse_ipv4(ctx, pkt, off);
	else if (proto == bpf_htons(ETH_P_IPV6))
		pkt->flags = pb_parse_ipv6(ctx, pkt, off);
	else
		pkt->flags = PB_PKT_NO_L4;
}

#endif
