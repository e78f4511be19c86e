/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Puts the frontend into a packet's IP header, finds it there and takes it out again.
 *
 * Owns the bytes between the base header and what follows it. Other options and extension headers
 * are never lost or reordered. Nothing here looks at L4: its sums don't cover these bytes. What
 * can't be done leaves the packet as it was.
 */
#ifndef DSR_ENCODE_BPF_H
#define DSR_ENCODE_BPF_H

#include <linux/if_ether.h>
#include <linux/ip.h>
#include <linux/ipv6.h>

#include "dsr_wire.h"

#define DSR_HBH_WORDS 8	 /* a longer hop-by-hop header is not stepped over */
#define DSR_EXT_WALKED 4 /* extension headers */
#define DSR_FAILED -1
#define DSR_NO_SPACE -2

/* GSO: sizes were checked by who calls; segments stay as long as they are. */
#define DSR_ROOM_FLAGS (BPF_F_ADJ_ROOM_FIXED_GSO | BPF_F_ADJ_ROOM_NO_CSUM_RESET)

struct dsr_info {
	union pb_addr addr;
	__be16 port;
	__u16 off;	 /* of the IPv6 header that carries it, from the start of the frame */
	__u32 in_header; /* of the packet itself */
};

struct dsr_head4 {
	struct iphdr ip;
	struct dsr_opt4 opt;
};

/* One's complement sum to the 16 bits of a header. */
PB_INLINE __sum16 dsr_fold(__u64 sum)
{
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__sum16)~sum;
}

/* IHL and total length become larger by `words` (or smaller); the option comes in or goes out. */
PB_INLINE void dsr_resize4(struct dsr_head4 *h, __s32 words)
{
	__be32 before[3], after[3];
	__s64 sum;

	__builtin_memcpy(before, h, 4);
	h->ip.ihl += words;
	h->ip.tot_len = bpf_htons(bpf_ntohs(h->ip.tot_len) + words * 4);
	__builtin_memcpy(after, h, 4);
	__builtin_memcpy(words > 0 ? after + 1 : before + 1, &h->opt, sizeof(h->opt));
	__builtin_memset(words > 0 ? before + 1 : after + 1, 0, sizeof(h->opt));
	sum = bpf_csum_diff(before, sizeof(before), after, sizeof(after), (__u16)~h->ip.check);
	if (sum >= 0)
		h->ip.check = dsr_fold((__u64)sum);
}

/* 0, DSR_NO_SPACE or DSR_FAILED. */
PB_FUNCTION int dsr_encode4(struct __sk_buff *ctx, __u32 l3, const struct dsr_info *info)
{
	struct dsr_head4 h;

	if (!info || bpf_skb_load_bytes(ctx, l3, &h.ip, sizeof(h.ip)) < 0)
		return DSR_FAILED;
	if (h.ip.ihl + 2 > 15 || bpf_ntohs(h.ip.tot_len) > 0xffff - sizeof(h.opt))
		return DSR_NO_SPACE;
	h.opt.type = DSR_OPT4_TYPE;
	h.opt.len = sizeof(h.opt);
	h.opt.port = info->port;
	h.opt.addr = info->addr.v4;
	dsr_resize4(&h, 2);
	if (bpf_skb_adjust_room(ctx, sizeof(h.opt), BPF_ADJ_ROOM_NET, DSR_ROOM_FLAGS) < 0)
		return DSR_FAILED;
	return bpf_skb_store_bytes(ctx, l3, &h, sizeof(h), BPF_F_RECOMPUTE_CSUM) < 0 ? DSR_FAILED
										     : 0;
}

/* The first option, in a header of at least 28 bytes (D12, D13). */
PB_INLINE bool dsr_decode4(struct __sk_buff *ctx, __u32 l3, struct dsr_info *ret_info)
{
	struct dsr_head4 h;

	if (bpf_skb_load_bytes(ctx, l3, &h, sizeof(h)) < 0 || h.ip.ihl < 7 ||
	    h.opt.type != DSR_OPT4_TYPE || h.opt.len != sizeof(h.opt))
		return false;
	__builtin_memset(ret_info, 0, sizeof(*ret_info));
	ret_info->addr.v4 = h.opt.addr;
	ret_info->port = h.opt.port;
	ret_info->in_header = 1;
	return true;
}

PB_FUNCTION int dsr_strip4(struct __sk_buff *ctx, __u32 l3)
{
	struct dsr_head4 h, old;

	if (bpf_skb_load_bytes(ctx, l3, &h, sizeof(h)) < 0)
		return DSR_FAILED;
	old = h;
	dsr_resize4(&h, -2);
	/* The sum of the whole frame must be right when the kernel takes the bytes out. */
	if (bpf_skb_store_bytes(ctx, l3, &h.ip, sizeof(h.ip), BPF_F_RECOMPUTE_CSUM) < 0)
		return DSR_FAILED;
	if (bpf_skb_adjust_room(ctx, -(__s32)sizeof(h.opt), BPF_ADJ_ROOM_NET, DSR_ROOM_FLAGS) == 0)
		return 0;
	bpf_skb_store_bytes(ctx, l3, &old.ip, sizeof(old.ip), BPF_F_RECOMPUTE_CSUM);
	return DSR_FAILED;
}

/* Bytes of the hop-by-hop header, which must stay first; 0: there is none, negative: too long. */
PB_INLINE int dsr_hop_by_hop(struct __sk_buff *ctx, __u32 l3, const struct ipv6hdr *ip)
{
	__u8 head[2];

	if (ip->nexthdr != IPPROTO_HOPOPTS)
		return 0;
	if (bpf_skb_load_bytes(ctx, l3 + sizeof(*ip), head, sizeof(head)) < 0 ||
	    head[1] >= DSR_HBH_WORDS)
		return DSR_NO_SPACE;
	return (head[1] + 1) * 8;
}

/* Moves a hop-by-hop header of `len` bytes towards the start of the frame. */
PB_INLINE int dsr_move_down(struct __sk_buff *ctx, __u32 to, __u32 from, __u32 len)
{
	for (__u32 i = 0; i < DSR_HBH_WORDS && i * 8 < len; i++) {
		__u64 word;

		if (bpf_skb_load_bytes(ctx, from + i * 8, &word, sizeof(word)) < 0 ||
		    bpf_skb_store_bytes(ctx, to + i * 8, &word, sizeof(word),
					BPF_F_RECOMPUTE_CSUM) < 0)
			return DSR_FAILED;
	}
	return 0;
}

PB_INLINE int dsr_move_up(struct __sk_buff *ctx, __u32 to, __u32 from, __u32 len)
{
	for (__u32 i = 0; i < DSR_HBH_WORDS && i * 8 < len; i++) {
		__u32 at = len - 8 - i * 8;
		__u64 word;

		if (bpf_skb_load_bytes(ctx, from + at, &word, sizeof(word)) < 0 ||
		    bpf_skb_store_bytes(ctx, to + at, &word, sizeof(word), BPF_F_RECOMPUTE_CSUM) <
			    0)
			return DSR_FAILED;
	}
	return 0;
}

/* As dsr_encode4(). Behind a hop-by-hop header (D14). */
PB_FUNCTION int dsr_encode6(struct __sk_buff *ctx, __u32 l3, const struct dsr_info *info)
{
	const __u32 base = l3 + sizeof(struct ipv6hdr);
	struct dsr_opt6 opt = {.words = 2, .type = DSR_OPT6_TYPE, .len = 20};
	const __u8 dest = IPPROTO_DSTOPTS;
	struct ipv6hdr ip;
	int hbh;

	if (!info || bpf_skb_load_bytes(ctx, l3, &ip, sizeof(ip)) < 0)
		return DSR_FAILED;
	hbh = dsr_hop_by_hop(ctx, l3, &ip);
	if (hbh < 0 || bpf_ntohs(ip.payload_len) > 0xffff - sizeof(opt))
		return DSR_NO_SPACE;
	if (bpf_skb_load_bytes(ctx, hbh ? base : l3 + 6, &opt.next, 1) < 0)
		return DSR_FAILED;
	opt.addr[0] = info->addr.v6[0];
	opt.addr[1] = info->addr.v6[1];
	opt.addr[2] = info->addr.v6[2];
	opt.addr[3] = info->addr.v6[3];
	opt.port = info->port;
	ip.payload_len = bpf_htons(bpf_ntohs(ip.payload_len) + sizeof(opt));
	if (bpf_skb_adjust_room(ctx, sizeof(opt), BPF_ADJ_ROOM_NET, DSR_ROOM_FLAGS) < 0)
		return DSR_FAILED;
	if (dsr_move_down(ctx, base, base + sizeof(opt), hbh) < 0 ||
	    bpf_skb_store_bytes(ctx, l3, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM) < 0 ||
	    bpf_skb_store_bytes(ctx, base + hbh, &opt, sizeof(opt), BPF_F_RECOMPUTE_CSUM) < 0)
		return DSR_FAILED;
	return bpf_skb_store_bytes(ctx, hbh ? base : l3 + 6, &dest, 1, BPF_F_RECOMPUTE_CSUM) < 0
		       ? DSR_FAILED
		       : 0;
}

/* Walks the headers up to a fragment header, to L4 or to none. */
PB_FUNCTION int dsr_decode6(struct __sk_buff *ctx, __u32 l3, struct dsr_info *ret_info)
{
	__u32 off = l3 + sizeof(struct ipv6hdr);
	struct dsr_opt6 opt;
	__u8 next;

	if (!ret_info || bpf_skb_load_bytes(ctx, l3 + 6, &next, 1) < 0)
		return 0;
	for (int i = 0; i < DSR_EXT_WALKED; i++) {
		__u32 ah = next == IPPROTO_AH;

		if (next != IPPROTO_HOPOPTS && next != IPPROTO_ROUTING && next != IPPROTO_DSTOPTS &&
		    !ah)
			return 0;
		/* No header that could carry it is followed by less. */
		if (bpf_skb_load_bytes(ctx, off, &opt, sizeof(opt)) < 0)
			return 0;
		if (next == IPPROTO_DSTOPTS && opt.words == 2 && opt.type == DSR_OPT6_TYPE &&
		    opt.len == 20)
			break;
		next = opt.next;
		off += (opt.words + 1 + ah) << (3 - ah);
		if (i == DSR_EXT_WALKED - 1)
			return 0;
	}
	__builtin_memcpy(ret_info->addr.v6, opt.addr, sizeof(opt.addr));
	ret_info->port = opt.port;
	ret_info->off = off;
	ret_info->in_header = 1;
	return 1;
}

/* Where dsr_encode6() puts it; elsewhere it stays. */
PB_FUNCTION int dsr_strip6(struct __sk_buff *ctx, __u32 l3, const struct dsr_info *info)
{
	const __u32 base = l3 + sizeof(struct ipv6hdr);
	struct ipv6hdr ip;
	__u8 next;
	int hbh;

	if (!info || bpf_skb_load_bytes(ctx, l3, &ip, sizeof(ip)) < 0)
		return DSR_FAILED;
	hbh = dsr_hop_by_hop(ctx, l3, &ip);
	if (hbh < 0 || info->off != base + hbh || ctx->protocol != bpf_htons(ETH_P_IPV6) ||
	    bpf_skb_load_bytes(ctx, info->off, &next, 1) < 0)
		return DSR_FAILED;
	ip.payload_len = bpf_htons(bpf_ntohs(ip.payload_len) - sizeof(struct dsr_opt6));
	if (bpf_skb_store_bytes(ctx, l3, &ip, sizeof(ip), BPF_F_RECOMPUTE_CSUM) < 0 ||
	    bpf_skb_store_bytes(ctx, hbh ? base : l3 + 6, &next, 1, BPF_F_RECOMPUTE_CSUM) < 0 ||
	    dsr_move_up(ctx, base + sizeof(struct dsr_opt6), base, hbh) < 0)
		return DSR_FAILED;
	return bpf_skb_adjust_room(ctx, -(__s32)sizeof(struct dsr_opt6), BPF_ADJ_ROOM_NET,
				   DSR_ROOM_FLAGS) < 0
		       ? DSR_FAILED
		       : 0;
}

#endif
