/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What patchbay/reply.h is made of, which includes it: who may be answered, how often, and how a
 * frame becomes an answer.
 *
 * Owns the rules for when to keep quiet and the token bucket. Nothing here changes the packet but
 * pb_reply_resize(), after which it is an answer or has to be dropped.
 */
#ifndef PATCHBAY_REPLY_FRAME_H
#define PATCHBAY_REPLY_FRAME_H

#include <stdbool.h>
#include <linux/errno.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <patchbay/bpf.h>

#define PB_REPLY_EVERY_NS 1000000 /* a token; 1,000 answers a second and CPU */
#define PB_REPLY_BURST 100
#define PB_REPLY_MAX4 576   /* bytes of an ICMP error from its IP header on, RFC 1812 4.3.2.3 */
#define PB_REPLY_MAX6 1280  /* RFC 4443 3.1 */
#define PB_REPLY_HEADERS 48 /* IPv6 and ICMPv6 */
#define PB_REPLY_CHUNK 512  /* as much as older kernels sum up in one call */

/* The bucket, and the room that an answer is built in. */
struct pb_reply_state {
	__u64 filled; /* CLOCK_MONOTONIC, of the last token put in */
	__u32 tokens;
	__u32 sent;
	__u32 refused; /* for lack of a token */
	__u32 reserved;
	__u8 buf[PB_REPLY_HEADERS + 3 * PB_REPLY_CHUNK];
};

/* Declares the map of the answers, once in an object. */
#define PB_REPLY_STATE(name_)                                                                      \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);                                           \
		__uint(max_entries, 1);                                                            \
		__type(key, __u32);                                                                \
		__type(value, struct pb_reply_state);                                              \
	} name_ SEC(".maps")

struct pb_reply_icmp {
	__u8 type;
	__u8 code;
	__sum16 sum;
	__be32 rest;
};

struct pb_reply_pseudo4 {
	__be32 saddr;
	__be32 daddr;
	__u8 zero;
	__u8 protocol;
	__be16 len;
};

struct pb_reply_pseudo6 {
	__be32 saddr[4];
	__be32 daddr[4];
	__be32 len;
	__be32 protocol;
};

PB_INLINE __u16 pb_reply_fold(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* ---- who may be answered ---- */

PB_INLINE bool pb_reply_token(struct pb_reply_state *st)
{
	__u64 now = bpf_ktime_get_ns();
	__u64 n = (now - st->filled) / PB_REPLY_EVERY_NS;

	if (n + st->tokens >= PB_REPLY_BURST) {
		st->tokens = PB_REPLY_BURST;
		st->filled = now;
	} else if (n) {
		st->tokens += n;
		st->filled += n * PB_REPLY_EVERY_NS;
	}
	if (!st->tokens) {
		st->refused++;
		return false;
	}
	st->tokens--;
	st->sent++;
	return true;
}

PB_INLINE bool pb_reply_one_host4(__be32 addr)
{
	__u32 a = bpf_ntohl(addr);

	/* Not "this network", not loopback, not multicast, reserved or broadcast. */
	return a >> 24 != 0 && a >> 24 != 127 && a < 0xe0000000;
}

PB_INLINE bool pb_reply_one_host6(const union pb_addr *addr)
{
	bool low = !addr->v6[0] && !addr->v6[1] && !addr->v6[2];

	/* Not multicast, not unspecified, not loopback. */
	return addr->bytes[0] != 0xff && !(low && bpf_ntohl(addr->v6[3]) <= 1);
}

/* ICMP that asks or answers; whatever else may be an error. */
PB_INLINE bool pb_reply_is_query(const struct pb_packet *pkt, __u8 type)
{
	if (pkt->protocol == IPPROTO_ICMP)
		return type == 0 || type == 8 || (type >= 13 && type <= 18);
	return type >= 128 && !(type >= 133 && type <= 137);
}

/* What all answers have in common; `many`: what was sent to many may be answered, too. */
PB_FUNCTION int pb_reply_allowed(struct __sk_buff *ctx, const struct pb_packet *pkt, int many)
{
	const union pb_addr *saddr, *daddr;
	__u8 byte;

	if (!pkt || pkt->flags & PB_PKT_MALFORMED)
		return false;
	if ((pkt->flags & PB_PKT_FRAGMENT) && (pkt->flags & PB_PKT_NO_L4))
		return false;
	if (bpf_skb_load_bytes(ctx, 0, &byte, 1) < 0 || ((byte & 1) && !many))
		return false;
	saddr = pkt->flags & PB_PKT_TRANSLATED ? &pkt->orig_saddr : &pkt->saddr;
	daddr = pkt->flags & PB_PKT_TRANSLATED ? &pkt->orig_daddr : &pkt->daddr;
	if (pkt->family == 4 && (!pb_reply_one_host4(saddr->v4) || !pb_reply_one_host4(daddr->v4)))
		return false;
	if (pkt->family == 6 && !pb_reply_one_host6(saddr))
		return false;
	if (pkt->family == 6 && daddr->bytes[0] == 0xff && !many)
		return false;
	if (pkt->protocol != IPPROTO_ICMP && pkt->protocol != IPPROTO_ICMPV6)
		return true;
	/* Such a message of the other family is just an unknown protocol. */
	if ((pkt->protocol == IPPROTO_ICMP) != (pkt->family == 4))
		return true;
	return pkt->l4_off && bpf_skb_load_bytes(ctx, pkt->l4_off, &byte, 1) == 0 &&
	       pb_reply_is_query(pkt, byte);
}

PB_INLINE struct pb_reply_state *pb_reply_state(void *state_map)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(state_map, &zero);
}

/* ---- the frame ---- */

/*
 * Makes the frame `len` bytes long and sends it back where it came from. Both calls together drop
 * every offload that the packet carried: GSO, and a checksum over bytes that are gone.
 */
PB_FUNCTION int pb_reply_resize(struct __sk_buff *ctx, __u32 len)
{
	__u8 macs[12], swapped[12];

	if (bpf_skb_change_tail(ctx, len + 1, 0) < 0 || bpf_skb_change_tail(ctx, len, 0) < 0 ||
	    bpf_skb_load_bytes(ctx, 0, macs, sizeof(macs)) < 0)
		return -EIO;
	__builtin_memcpy(swapped, macs + 6, 6);
	__builtin_memcpy(swapped + 6, macs, 6);
	if (bpf_skb_store_bytes(ctx, 0, swapped, sizeof(swapped), 0) < 0)
		return -EIO;
	ctx->mark |= PB_MARK_TRANSLATED;
	return 0;
}

/* The sum over `len` bytes, up to the next multiple of 4: what follows them must be zero. */
PB_INLINE __u64 pb_reply_sum(__u8 *buf, __u32 len, __u64 sum)
{
	for (__u32 off = 0; off < 3 * PB_REPLY_CHUNK; off += PB_REPLY_CHUNK) {
		__u32 n;

		if (len <= off)
			break;
		n = (len - off + 3) & ~3U;
		if (n > PB_REPLY_CHUNK)
			n = PB_REPLY_CHUNK;
		sum = bpf_csum_diff(NULL, 0, (__be32 *)(buf + off), n, sum);
	}
	return sum;
}

/* ---- the quote ---- */

/* Bytes of the IP packet, without what the frame has behind it. */
PB_INLINE __u32 pb_reply_packet_len(struct __sk_buff *ctx, const struct pb_packet *pkt)
{
	__u32 room = ctx->len - pkt->l3_off, len = 0;
	__be16 field;

	if (pkt->family == 4) {
		if (bpf_skb_load_bytes(ctx, pkt->l3_off + 2, &field, 2) == 0)
			len = bpf_ntohs(field);
	} else if (bpf_skb_load_bytes(ctx, pkt->l3_off + 4, &field, 2) == 0 && field) {
		len = sizeof(struct ipv6hdr) + bpf_ntohs(field);
	} else {
		len = room; /* a jumbogram, or what the kernel merged */
	}
	return len < room ? len : room;
}

/* Copies the packet to `to`, `max` bytes of it at most; zeros follow. 0: it can't be read. */
PB_INLINE __u32 pb_reply_quote(struct __sk_buff *ctx, const struct pb_packet *pkt, __u8 *to,
			       const __u32 max)
{
	__u32 n = pb_reply_packet_len(ctx, pkt);

	if (n > max)
		n = max;
	/* The compiler must not forget what was found out about n. */
	asm volatile("" : "+r"(n));
	if (n < sizeof(struct iphdr) || n > max)
		return 0;
	if (bpf_skb_load_bytes(ctx, pkt->l3_off, to, n) < 0)
		return 0;
	to[n] = 0;
	to[n + 1] = 0;
	to[n + 2] = 0;
	return n;
}

/* A checksum after `sum` has been added to what it covers. */
PB_INLINE __sum16 pb_reply_amend(__sum16 check, __u64 sum)
{
	return ~pb_reply_fold((__u16)~check + sum);
}

/* Exchanges a field for what it was before the translation; returns the difference of sums. */
PB_INLINE __u64 pb_reply_put_back(__be16 *field, __be16 orig)
{
	__u64 sum = (__u64)(__u16) ~*field + orig;

	*field = orig;
	return sum;
}

/* `sum`: the difference that the addresses make. */
PB_INLINE void pb_reply_restore_l4(__u8 *quote, const struct pb_packet *pkt, __u32 n, __u64 sum)
{
	__u32 off = pkt->l4_off - pkt->l3_off;
	__u8 *l4;

	asm volatile("" : "+r"(off));
	if (!pkt->l4_off || off > PB_REPLY_CHUNK || off + 8 > n)
		return;
	l4 = quote + off;
	if (pkt->protocol == IPPROTO_ICMP || pkt->protocol == IPPROTO_ICMPV6) {
		struct pb_reply_icmp *icmp = (void *)l4;

		sum = pkt->protocol == IPPROTO_ICMP ? 0 : sum;
		sum += pb_reply_put_back((__be16 *)(l4 + 4), pkt->orig_sport);
		icmp->sum = pb_reply_amend(icmp->sum, sum);
		return;
	}
	sum += pb_reply_put_back((__be16 *)l4, pkt->orig_sport);
	sum += pb_reply_put_back((__be16 *)(l4 + 2), pkt->orig_dport);
	if (pkt->protocol == IPPROTO_UDP) {
		struct udphdr *udp = (void *)l4;

		if (udp->check)
			udp->check = pb_reply_amend(udp->check, sum) ?: 0xffff;
	} else if (pkt->protocol == IPPROTO_TCP && off + 18 <= n) {
		struct tcphdr *tcp = (void *)l4;

		tcp->check = pb_reply_amend(tcp->check, sum);
	}
}

/* The quote as the sender wrote it. */
PB_INLINE void pb_reply_restore4(__u8 *quote, const struct pb_packet *pkt, __u32 n)
{
	struct iphdr *ip = (void *)quote;
	__be32 now[2] = {ip->saddr, ip->daddr};
	__be32 orig[2] = {pkt->orig_saddr.v4, pkt->orig_daddr.v4};
	__u64 sum = bpf_csum_diff(now, sizeof(now), orig, sizeof(orig), 0);

	ip->saddr = orig[0];
	ip->daddr = orig[1];
	ip->check = pb_reply_amend(ip->check, sum);
	pb_reply_restore_l4(quote, pkt, n, sum);
}

PB_INLINE void pb_reply_restore6(__u8 *quote, const struct pb_packet *pkt, __u32 n)
{
	struct ipv6hdr *ip = (void *)quote;
	__be32 orig[8];
	__u64 sum;

	__builtin_memcpy(orig, &pkt->orig_saddr, 16);
	__builtin_memcpy(orig + 4, &pkt->orig_daddr, 16);
	sum = bpf_csum_diff((__be32 *)&ip->saddr, 32, orig, 32, 0);
	__builtin_memcpy(&ip->saddr, orig, 32);
	pb_reply_restore_l4(quote, pkt, n, sum);
}

/* What a packet is quoted by stands behind the headers of the error. */
#define PB_REPLY_HEAD4 (sizeof(struct iphdr) + sizeof(struct pb_reply_icmp))
#define PB_REPLY_HEAD6 (sizeof(struct ipv6hdr) + sizeof(struct pb_reply_icmp))

/* Quotes the packet in `st`, as its sender wrote it. The bytes of the quote; 0: it can't be. */
PB_FUNCTION int pb_reply_quote_of(struct __sk_buff *ctx, const struct pb_packet *pkt,
				  struct pb_reply_state *st)
{
	__u32 n;

	if (!pkt || !st)
		return 0;
	if (pkt->family == 4) {
		n = pb_reply_quote(ctx, pkt, st->buf + PB_REPLY_HEAD4,
				   PB_REPLY_MAX4 - PB_REPLY_HEAD4);
		if (n && pkt->flags & PB_PKT_TRANSLATED)
			pb_reply_restore4(st->buf + PB_REPLY_HEAD4, pkt, n);
		return n;
	}
	n = pb_reply_quote(ctx, pkt, st->buf + PB_REPLY_HEAD6, PB_REPLY_MAX6 - PB_REPLY_HEAD6);
	if (n && pkt->flags & PB_PKT_TRANSLATED)
		pb_reply_restore6(st->buf + PB_REPLY_HEAD6, pkt, n);
	return n;
}

#endif
