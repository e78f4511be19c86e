/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Answers to the sender of a packet: ICMP and ICMPv6 errors, TCP resets. Include it after
 * patchbay/bpf.h. tc hooks.
 *
 * Owns when a packet is answered at all and how the answer is made out of the packet. It never
 * answers an error with an error, a fragment other than the first, or what was sent to or came
 * from more than one host (RFC 1122 3.2.2, RFC 4443 2.4), and never more often than the token
 * bucket allows. The packet is changed only after everything that can refuse has agreed.
 *
 *	PB_REPLY_STATE(my_replies);
 *	...
 *	if (pb_reply_reject(ctx, pkt, &my_replies) == 0)
 *		return pb_reply_send(ctx, pkt, PB_REASON_NO_SERVICE);
 *	return pb_drop(ctx, PB_REASON_NO_SERVICE);
 *
 * A packet that was translated already (PB_PKT_TRANSLATED) is answered as its sender knows it: to
 * orig_saddr, from orig_daddr, and the quote has the original tuple. The record stays the packet's.
 *
 * A packet whose checksum its sender left to a device (a pod's own) remains such a packet. A reset
 * is right by either way. An ICMP error has a whole sum, which the kernel of whoever gets it over a
 * veth or tap takes as it is; a device that completes sums would spoil it.
 */
#ifndef PATCHBAY_REPLY_H
#define PATCHBAY_REPLY_H

#include <patchbay/reply_frame.h>

/* An ICMP error. Types and codes are those of the packet's family. */
struct pb_reply {
	__u8 type;
	__u8 code;
	__u8 has_src;
	__u8 reserved;
	__u32 mtu;	   /* host byte order; 0: the message has none */
	union pb_addr src; /* with has_src; else the address that the packet was sent to */
};

/* ---- ICMP errors ---- */

/* The address that the sender meant. */
PB_INLINE const union pb_addr *pb_reply_meant(const struct pb_packet *pkt)
{
	return pkt->flags & PB_PKT_TRANSLATED ? &pkt->orig_daddr : &pkt->daddr;
}

PB_INLINE const union pb_addr *pb_reply_sender(const struct pb_packet *pkt)
{
	return pkt->flags & PB_PKT_TRANSLATED ? &pkt->orig_saddr : &pkt->saddr;
}

PB_INLINE void pb_reply_header4(struct iphdr *ip, __u8 tos, __u8 protocol, __be32 saddr,
				__be32 daddr, __u32 len)
{
	__builtin_memset(ip, 0, sizeof(*ip));
	ip->version = 4;
	ip->ihl = 5;
	ip->tos = tos;
	ip->tot_len = bpf_htons(len);
	ip->frag_off = bpf_htons(0x4000); /* so that the id means nothing, RFC 6864 */
	ip->ttl = 64;
	ip->protocol = protocol;
	ip->saddr = saddr;
	ip->daddr = daddr;
	ip->check = ~pb_reply_fold(bpf_csum_diff(NULL, 0, (__be32 *)ip, sizeof(*ip), 0));
}

PB_INLINE void pb_reply_header6(struct ipv6hdr *ip, __u8 protocol, const union pb_addr *saddr,
				const union pb_addr *daddr, __u32 len)
{
	__builtin_memset(ip, 0, 8);
	ip->version = 6;
	ip->payload_len = bpf_htons(len);
	ip->nexthdr = protocol;
	ip->hop_limit = 64;
	__builtin_memcpy(&ip->saddr, saddr, 16);
	__builtin_memcpy(&ip->daddr, daddr, 16);
}

/*
 * Makes the packet into an ICMP error to its sender; it quotes what fits into 576 bytes. 0: send
 * it by pb_reply_send(). -EPERM: such a packet must not be answered. -EAGAIN: not now. -EINVAL,
 * -EIO: it can't be; after -EIO nothing but a drop is left.
 */
PB_FUNCTION int pb_reply_make_icmp4(struct __sk_buff *ctx, const struct pb_packet *pkt,
				    struct pb_reply_state *st, const struct pb_reply *how)
{
	const __u32 head = PB_REPLY_HEAD4;
	struct pb_reply_icmp *icmp;
	__u32 n;

	if (!pkt || !st || !how || pkt->family != 4 || !pb_reply_allowed(ctx, pkt, false))
		return -EPERM;
	n = pb_reply_quote_of(ctx, pkt, st);
	if (n == 0 || n > PB_REPLY_MAX4 - head)
		return -EINVAL;
	if (!pb_reply_token(st))
		return -EAGAIN;
	pb_reply_header4((void *)st->buf, 0xc0, IPPROTO_ICMP,
			 how->has_src ? how->src.v4 : pb_reply_meant(pkt)->v4,
			 pb_reply_sender(pkt)->v4, head + n);
	icmp = (void *)(st->buf + sizeof(struct iphdr));
	icmp->type = how->type;
	icmp->code = how->code;
	icmp->sum = 0;
	icmp->rest = bpf_htonl(how->mtu);
	icmp->sum = ~pb_reply_fold(pb_reply_sum((void *)icmp, sizeof(*icmp) + n, 0));
	if (pb_reply_resize(ctx, pkt->l3_off + head + n) < 0)
		return -EIO;
	return bpf_skb_store_bytes(ctx, pkt->l3_off, st->buf, head + n, BPF_F_INVALIDATE_HASH) < 0
		       ? -EIO
		       : 0;
}

PB_INLINE __u64 pb_reply_pseudo6(const struct ipv6hdr *ip, __u8 protocol, __u32 len)
{
	struct pb_reply_pseudo6 pseudo = {
		.len = bpf_htonl(len),
		.protocol = bpf_htonl(protocol),
	};

	__builtin_memcpy(pseudo.saddr, &ip->saddr, 32);
	return bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0);
}

/* Packet too big and an unknown option may be told to who sends to many, RFC 4443 2.4 (e.3). */
PB_INLINE bool pb_reply_to_many(const struct pb_reply *how)
{
	return how->type == 2 || (how->type == 4 && how->code == 2);
}

/* The same over IPv6, up to 1280 bytes. */
PB_FUNCTION int pb_reply_make_icmp6(struct __sk_buff *ctx, const struct pb_packet *pkt,
				    struct pb_reply_state *st, const struct pb_reply *how)
{
	const __u32 head = PB_REPLY_HEAD6;
	struct pb_reply_icmp *icmp;
	struct ipv6hdr *ip;
	__u64 sum;
	__u32 n;

	if (!pkt || !st || !how || pkt->family != 6 ||
	    !pb_reply_allowed(ctx, pkt, pb_reply_to_many(how)))
		return -EPERM;
	/* An address of many is no source; who answers must say from where. */
	if (!how->has_src && pb_reply_meant(pkt)->bytes[0] == 0xff)
		return -EPERM;
	n = pb_reply_quote_of(ctx, pkt, st);
	if (n == 0 || n > PB_REPLY_MAX6 - head)
		return -EINVAL;
	if (!pb_reply_token(st))
		return -EAGAIN;
	ip = (void *)st->buf;
	pb_reply_header6(ip, IPPROTO_ICMPV6, how->has_src ? &how->src : pb_reply_meant(pkt),
			 pb_reply_sender(pkt), sizeof(*icmp) + n);
	icmp = (void *)(st->buf + sizeof(*ip));
	icmp->type = how->type;
	icmp->code = how->code;
	icmp->sum = 0;
	icmp->rest = bpf_htonl(how->mtu);
	sum = pb_reply_pseudo6(ip, IPPROTO_ICMPV6, sizeof(*icmp) + n);
	icmp->sum = ~pb_reply_fold(pb_reply_sum((void *)icmp, sizeof(*icmp) + n, sum));
	if (pb_reply_resize(ctx, pkt->l3_off + head + n) < 0)
		return -EIO;
	return bpf_skb_store_bytes(ctx, pkt->l3_off, st->buf, head + n, BPF_F_INVALIDATE_HASH) < 0
		       ? -EIO
		       : 0;
}

/* ---- TCP resets ---- */

/* RFC 793 3.4: a segment with ACK is reset at what it acknowledges, another one acknowledged. */
PB_INLINE int pb_reply_rst_header(struct __sk_buff *ctx, const struct pb_packet *pkt,
				  struct tcphdr *rst)
{
	__u32 before = pkt->l4_off - pkt->l3_off, len = pb_reply_packet_len(ctx, pkt);
	const bool translated = pkt->flags & PB_PKT_TRANSLATED;
	struct tcphdr tcp;

	if (bpf_skb_load_bytes(ctx, pkt->l4_off, &tcp, sizeof(tcp)) < 0 || tcp.doff < 5 ||
	    before + tcp.doff * 4 > len)
		return -EINVAL;
	__builtin_memset(rst, 0, sizeof(*rst));
	rst->source = translated ? pkt->orig_dport : pkt->dport;
	rst->dest = translated ? pkt->orig_sport : pkt->sport;
	rst->doff = 5;
	rst->rst = 1;
	if (tcp.ack) {
		rst->seq = tcp.ack_seq;
	} else {
		rst->ack = 1;
		rst->ack_seq = bpf_htonl(bpf_ntohl(tcp.seq) + len - before - tcp.doff * 4 +
					 tcp.syn + tcp.fin);
	}
	return 0;
}

PB_INLINE bool pb_reply_may_reset(struct __sk_buff *ctx, const struct pb_packet *pkt)
{
	return pkt->protocol == IPPROTO_TCP && pkt->l4_off && !(pkt->tcp_flags & 4) &&
	       !(pkt->flags & PB_PKT_FRAGMENT) && pb_reply_allowed(ctx, pkt, false);
}

/*
 * Whether the kernel, or the device, still has to complete the checksum from where the packet's L4
 * header was: then, and only then, the helper leaves a sum alone that covers no pseudo header.
 */
PB_INLINE bool pb_reply_is_partial(struct __sk_buff *ctx, __u32 off)
{
	__be16 before = 0, after = 0;

	bpf_skb_load_bytes(ctx, off, &before, 2);
	bpf_l4_csum_replace(ctx, off, 0, 1, 2);
	bpf_skb_load_bytes(ctx, off, &after, 2);
	return before == after;
}

/* Writes the reset behind an IP header of `head` bytes at `ip`. `sum`: the pseudo header's. */
PB_INLINE int pb_reply_write_rst(struct __sk_buff *ctx, const struct pb_packet *pkt, const void *ip,
				 const __u32 head, struct tcphdr *rst, __u64 sum)
{
	__u32 l4 = pkt->l3_off + head, len = l4 + sizeof(*rst);
	__u32 check = l4 + __builtin_offsetof(struct tcphdr, check);

	/* The kernel wants to keep the place of a checksum that is to be completed. */
	if (len < pkt->l4_off + 18U)
		len = pkt->l4_off + 18U;
	if (pb_reply_resize(ctx, len) < 0)
		return -EIO;
	if (l4 == pkt->l4_off && pb_reply_is_partial(ctx, check))
		rst->check = pb_reply_fold(sum);
	else
		rst->check =
			~pb_reply_fold(bpf_csum_diff(NULL, 0, (__be32 *)rst, sizeof(*rst), sum));
	if (bpf_skb_store_bytes(ctx, pkt->l3_off, ip, head, BPF_F_INVALIDATE_HASH) < 0 ||
	    bpf_skb_store_bytes(ctx, l4, rst, sizeof(*rst), 0) < 0)
		return -EIO;
	return 0;
}

/* Makes a TCP packet into a reset of its connection. As pb_reply_make_icmp4(). */
PB_FUNCTION int pb_reply_make_rst4(struct __sk_buff *ctx, const struct pb_packet *pkt,
				   struct pb_reply_state *st)
{
	struct pb_reply_pseudo4 pseudo = {.protocol = IPPROTO_TCP,
					  .len = bpf_htons(sizeof(struct tcphdr))};
	struct tcphdr rst;
	struct iphdr ip;

	if (!pkt || !st || pkt->family != 4 || !pb_reply_may_reset(ctx, pkt))
		return -EPERM;
	if (pb_reply_rst_header(ctx, pkt, &rst) < 0)
		return -EINVAL;
	if (!pb_reply_token(st))
		return -EAGAIN;
	pb_reply_header4(&ip, 0, IPPROTO_TCP, pb_reply_meant(pkt)->v4, pb_reply_sender(pkt)->v4,
			 sizeof(ip) + sizeof(rst));
	pseudo.saddr = ip.saddr;
	pseudo.daddr = ip.daddr;
	return pb_reply_write_rst(ctx, pkt, &ip, sizeof(ip), &rst,
				  bpf_csum_diff(NULL, 0, (__be32 *)&pseudo, sizeof(pseudo), 0));
}

PB_FUNCTION int pb_reply_make_rst6(struct __sk_buff *ctx, const struct pb_packet *pkt,
				   struct pb_reply_state *st)
{
	struct tcphdr rst;
	struct ipv6hdr ip;

	if (!pkt || !st || pkt->family != 6 || !pb_reply_may_reset(ctx, pkt))
		return -EPERM;
	if (pb_reply_rst_header(ctx, pkt, &rst) < 0)
		return -EINVAL;
	if (!pb_reply_token(st))
		return -EAGAIN;
	pb_reply_header6(&ip, IPPROTO_TCP, pb_reply_meant(pkt), pb_reply_sender(pkt), sizeof(rst));
	return pb_reply_write_rst(ctx, pkt, &ip, sizeof(ip), &rst,
				  pb_reply_pseudo6(&ip, IPPROTO_TCP, sizeof(rst)));
}

/* ---- what is asked for most ---- */

PB_INLINE int pb_reply_icmp(struct __sk_buff *ctx, const struct pb_packet *pkt, void *state_map,
			    const struct pb_reply *how)
{
	struct pb_reply_state *st = pb_reply_state(state_map);

	return pkt->family == 6 ? pb_reply_make_icmp6(ctx, pkt, st, how)
				: pb_reply_make_icmp4(ctx, pkt, st, how);
}

/* A reset of the packet's connection. */
PB_INLINE int pb_reply_rst(struct __sk_buff *ctx, const struct pb_packet *pkt, void *state_map)
{
	struct pb_reply_state *st = pb_reply_state(state_map);

	return pkt->family == 6 ? pb_reply_make_rst6(ctx, pkt, st)
				: pb_reply_make_rst4(ctx, pkt, st);
}

/* "Nobody listens there": a reset, or port unreachable. */
PB_INLINE int pb_reply_reject(struct __sk_buff *ctx, const struct pb_packet *pkt, void *state_map)
{
	const bool v6 = pkt->family == 6;
	const struct pb_reply how = {.type = v6 ? 1 : 3, .code = v6 ? 4 : 3};

	if (pkt->protocol == IPPROTO_TCP)
		return pb_reply_rst(ctx, pkt, state_map);
	return pb_reply_icmp(ctx, pkt, state_map, &how);
}

/* "Too large": frag needed, or packet too big. Answered without DF, too: nobody here fragments. */
PB_INLINE int pb_reply_too_big(struct __sk_buff *ctx, const struct pb_packet *pkt, void *state_map,
			       __u32 mtu)
{
	const bool v6 = pkt->family == 6;
	const struct pb_reply how = {.type = v6 ? 2 : 3, .code = v6 ? 0 : 4, .mtu = mtu};

	return pb_reply_icmp(ctx, pkt, state_map, &how);
}

/* "TTL exceeded in transit", by `src`. */
PB_INLINE int pb_reply_ttl(struct __sk_buff *ctx, const struct pb_packet *pkt, void *state_map,
			   const union pb_addr *src)
{
	struct pb_reply how = {.type = pkt->family == 6 ? 3 : 11, .has_src = 1};

	how.src = *src;
	return pb_reply_icmp(ctx, pkt, state_map, &how);
}

/*
 * Ends the chain: the answer goes out of the device that the packet came in by (from a pod: back
 * into it), or in by the device that it was about to leave by. The packet is counted as dropped
 * for `reason`, the verdict is redirect.
 */
PB_INLINE int pb_reply_send(struct __sk_buff *ctx, struct pb_packet *pkt, __u32 reason)
{
	__u32 drop = pb_hook_id * PB_REASON_COUNT + (reason & (PB_REASON_COUNT - 1));
	__u64 *n = bpf_map_lookup_elem(&pb_drops, &drop);

	if (n)
		(*n)++;
	pkt->reason = reason;
	if (pb_hook_id == PB_HOOK_POD_EGRESS || pb_hook_id == PB_HOOK_DEV_INGRESS)
		return pb_redirect(ctx, PB_REDIRECT_EGRESS, pkt->ifindex);
	return pb_redirect(ctx, PB_REDIRECT_INGRESS, pkt->ifindex);
}

#endif
