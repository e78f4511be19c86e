/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ICMP and ICMPv6 errors about packets of translated flows. Include it after patchbay/bpf.h; tc
 * hooks.
 *
 *	pb_icmp_read()		whether a packet is such an error, and about what
 *	pb_icmp_outer()		the addresses that it goes on with
 *	pb_icmp_translate()	makes it an error about the packet before the translation
 *
 *	struct pb_icmp err;
 *	if (pb_icmp_read(ctx, pkt, &err) == 0 && (ct = pb_ct_lookup(&err.key))) {
 *		pb_icmp_outer(pkt, &err, ct, &to);
 *		where = pb_forward_route(ctx, pkt, &to, &route);
 *		...
 *		if (pb_icmp_translate(ctx, pkt, &err, ct, &to, pb_forward_hop(where)) < 0)
 *			return pb_drop(ctx, PB_REASON_WRITE_ERROR);
 *
 * An error travels as an answer to the packet in it would, so that answer's half of the flow says
 * how to go on: who sent the packet in it before the translation gets the error, and finds its own
 * packet inside. Who complains stays who he is, unless it is the flow's other end itself.
 *
 * Owns the packet in the error. It is never believed: nothing is found unless it was sent by whom
 * the error is sent to, and an error never changes a flow's state or time. All sums follow by
 * difference, so what was damaged stays so.
 */
#ifndef PATCHBAY_ICMP_H
#define PATCHBAY_ICMP_H

#include <patchbay/nat.h>

#define PB_ICMP_HEADER 8
#define PB_ICMP_EXT_MAX 4   /* IPv6 extension headers in the packet in the error */
#define PB_ICMP_L4_MAX 1024 /* where its L4 header may begin */

/* What an error is about. */
struct pb_icmp {
	struct pb_ct_key key; /* of an answer to that packet */
	__u32 l3_off;	      /* of that packet, from the start of the frame */
	__u32 l4_off;
	__u32 end; /* of the error */
};

/* All that there must be of L4. */
union pb_icmp_l4 {
	struct {
		__be16 sport;
		__be16 dport;
		__be16 len;
		__u16 check;
	} udp;
	struct {
		__u8 type;
		__u8 code;
		__u16 check;
		__be16 id;
		__be16 seq;
	} echo;
};

/* ---- reading ---- */

/* Unreachable and too big, time exceeded, parameter problem. A redirect isn't about the flow. */
PB_INLINE bool pb_icmp_is_error(__u8 family, __u8 type)
{
	if (family == 4)
		return type == 3 || type == 11 || type == 12;
	return type >= 1 && type <= 4;
}

/* Where the error ends by its IP header; 0: past the frame. */
PB_INLINE __u32 pb_icmp_end(struct __sk_buff *ctx, const struct pb_packet *pkt)
{
	__u32 end = pkt->l3_off;
	__be16 len;

	if (bpf_skb_load_bytes(ctx, pkt->l3_off + (pkt->family == 4 ? 2 : 4), &len, 2) < 0)
		return 0;
	end += bpf_ntohs(len) + (pkt->family == 4 ? 0 : 40);
	return end <= ctx->len ? end : 0;
}

PB_INLINE int pb_icmp_read4(struct __sk_buff *ctx, struct pb_icmp *err)
{
	struct {
		__u8 version_ihl;
		__u8 tos;
		__be16 len;
		__be16 id;
		__be16 frag;
		struct pb_nat_ipv4 rest;
	} ip;

	if (bpf_skb_load_bytes(ctx, err->l3_off, &ip, sizeof(ip)) < 0 || ip.version_ihl >> 4 != 4 ||
	    (ip.version_ihl & 15) < 5 || ip.frag & bpf_htons(0x1fff))
		return -PB_EINVAL;
	err->l4_off = err->l3_off + (ip.version_ihl & 15) * 4;
	err->key.protocol = ip.rest.protocol;
	err->key.saddr.v4 = ip.rest.daddr;
	err->key.daddr.v4 = ip.rest.saddr;
	return 0;
}

/* Steps over the extension headers; sizes without branches, for the verifier's sake. */
PB_INLINE int pb_icmp_skip6(struct __sk_buff *ctx, struct pb_icmp *err)
{
	for (int i = 0; i <= PB_ICMP_EXT_MAX; i++) {
		__u8 type = err->key.protocol;
		__u32 frag = type == IPPROTO_FRAGMENT;
		struct {
			__u8 next;
			__u8 len;
			__be16 off;
		} ext;

		if (!frag && type != IPPROTO_HOPOPTS && type != IPPROTO_ROUTING &&
		    type != IPPROTO_DSTOPTS)
			return 0;
		if (bpf_skb_load_bytes(ctx, err->l4_off, &ext, sizeof(ext)) < 0 ||
		    (frag && ext.off & bpf_htons(0xfff8)))
			return -PB_EINVAL;
		err->key.protocol = ext.next;
		err->l4_off += ((ext.len & (frag - 1)) + 1) * 8;
	}
	return -PB_EINVAL;
}

PB_INLINE int pb_icmp_read6(struct __sk_buff *ctx, struct pb_icmp *err)
{
	struct {
		__u8 version;
		__u8 before[5];
		__u8 next;
		__u8 hops;
		union pb_addr saddr;
		union pb_addr daddr;
	} ip;

	if (bpf_skb_load_bytes(ctx, err->l3_off, &ip, sizeof(ip)) < 0 || ip.version >> 4 != 6)
		return -PB_EINVAL;
	err->l4_off = err->l3_off + sizeof(ip);
	err->key.protocol = ip.next;
	pb_ct_copy_addr(&err->key.saddr, &ip.daddr);
	pb_ct_copy_addr(&err->key.daddr, &ip.saddr);
	return pb_icmp_skip6(ctx, err);
}

/* Errors aren't answered by errors, so ICMP in one is an echo. */
PB_INLINE int pb_icmp_read_ports(struct __sk_buff *ctx, const struct pb_packet *pkt,
				 struct pb_icmp *err)
{
	struct pb_ct_key *key = &err->key;
	union pb_icmp_l4 l4;

	if (err->l4_off + sizeof(l4) > err->end || err->l4_off > err->l3_off + PB_ICMP_L4_MAX ||
	    bpf_skb_load_bytes(ctx, err->l4_off, &l4, sizeof(l4)) < 0)
		return -PB_EINVAL;
	if (key->protocol == IPPROTO_TCP || key->protocol == IPPROTO_UDP ||
	    key->protocol == IPPROTO_SCTP) {
		key->sport = l4.udp.dport;
		key->dport = l4.udp.sport;
		return 0;
	}
	if (key->protocol != pkt->protocol)
		return -PB_EINVAL;
	if (pkt->family == 4 ? l4.echo.type != 8 && l4.echo.type != 0
			     : l4.echo.type != 128 && l4.echo.type != 129)
		return -PB_EINVAL;
	key->sport = l4.echo.id;
	key->dport = l4.echo.id;
	return 0;
}

PB_FUNCTION int pb_icmp_read_error(struct __sk_buff *ctx, const struct pb_packet *pkt,
				   struct pb_icmp *ret)
{
	__u8 type;
	int rc;

	if (!pkt || !ret || bpf_skb_load_bytes(ctx, pkt->l4_off, &type, 1) < 0 ||
	    !pb_icmp_is_error(pkt->family, type))
		return -PB_EINVAL;
	__builtin_memset(ret, 0, sizeof(*ret));
	ret->l3_off = pkt->l4_off + PB_ICMP_HEADER;
	ret->end = pb_icmp_end(ctx, pkt);
	ret->key.family = pkt->family;
	rc = pkt->family == 4 ? pb_icmp_read4(ctx, ret) : pb_icmp_read6(ctx, ret);
	if (rc == 0)
		rc = pb_icmp_read_ports(ctx, pkt, ret);
	/* A packet that somebody else had sent is a lie. */
	if (rc == 0 && !pb_ct_same_addr(&ret->key.daddr, &pkt->daddr))
		return -PB_EINVAL;
	return rc;
}

/*
 * 0: an error about the packet that *ret names (ret->key.zone is PB_CT_ZONE_SERVICE). -PB_EINVAL:
 * anything else; leave it alone.
 */
PB_INLINE int pb_icmp_read(struct __sk_buff *ctx, const struct pb_packet *pkt, struct pb_icmp *ret)
{
	if (pkt->flags & (PB_PKT_NO_L4 | PB_PKT_MALFORMED | PB_PKT_FRAGMENT) ||
	    pkt->protocol != (pkt->family == 4 ? IPPROTO_ICMP : IPPROTO_ICMPV6))
		return -PB_EINVAL;
	return pb_icmp_read_error(ctx, pkt, ret);
}

/* ---- translating ---- */

/* What the error itself goes on with, for pb_forward_route(). `ct` is the half of err->key. */
PB_INLINE void pb_icmp_outer(const struct pb_packet *pkt, const struct pb_icmp *err,
			     const struct pb_ct *ct, struct pb_ct *ret_to)
{
	__builtin_memset(ret_to, 0, sizeof(*ret_to));
	pb_ct_copy_addr(&ret_to->daddr, &ct->daddr);
	if (pb_ct_same_addr(&pkt->saddr, &err->key.saddr))
		pb_ct_copy_addr(&ret_to->saddr, &ct->saddr);
	else
		pb_ct_copy_addr(&ret_to->saddr, &pkt->saddr);
}

/* What the addresses add to sums over the packet in the error. */
PB_INLINE __u32 pb_icmp_addr_diff(const struct pb_ct_key *key, const struct pb_ct *ct)
{
	__u64 sum = 0;

#pragma unroll
	for (int i = 0; i < 4; i++) {
		sum += (__u64)(__u32)~key->daddr.v6[i] + ct->daddr.v6[i];
		sum += (__u64)(__u32)~key->saddr.v6[i] + ct->saddr.v6[i];
	}
	return pb_nat_fold32(sum);
}

/* `*sum`: what all this adds to the sum of the error. */
PB_INLINE int pb_icmp_inner4(struct __sk_buff *ctx, const struct pb_icmp *err,
			     const struct pb_ct *ct, __u32 diff, __u64 *sum)
{
	struct pb_nat_ipv4 ip;
	__u16 check;

	if (bpf_skb_load_bytes(ctx, err->l3_off + 8, &ip, sizeof(ip)) < 0)
		return -PB_EINVAL;
	check = ~pb_nat_fold16((__u64)(__u16)~ip.check + diff);
	*sum += (__u64)(__u16)~ip.check + check;
	ip.check = check;
	ip.saddr = ct->daddr.v4;
	ip.daddr = ct->saddr.v4;
	return bpf_skb_store_bytes(ctx, err->l3_off + 8, &ip, sizeof(ip), 0) < 0 ? -PB_EINVAL : 0;
}

PB_INLINE int pb_icmp_inner6(struct __sk_buff *ctx, const struct pb_icmp *err,
			     const struct pb_ct *ct)
{
	union pb_addr addrs[2];

	pb_ct_copy_addr(&addrs[0], &ct->daddr);
	pb_ct_copy_addr(&addrs[1], &ct->saddr);
	return bpf_skb_store_bytes(ctx, err->l3_off + 8, addrs, sizeof(addrs), 0) < 0 ? -PB_EINVAL
										      : 0;
}

/* A checksum that covers what changes by `diff`; returns what its own change adds. */
PB_INLINE __u32 pb_icmp_amend(__u16 *check, __u64 diff)
{
	__u16 was = *check;

	*check = ~pb_nat_fold16((__u64)(__u16)~was + diff);
	return (__u32)(__u16)~was + *check;
}

/* TCP's checksum, if the error has as much of the packet. */
PB_INLINE int pb_icmp_inner_tcp(struct __sk_buff *ctx, const struct pb_icmp *err, __u64 diff,
				__u64 *sum)
{
	__u16 check;

	if (err->l4_off + 18 > err->end)
		return 0;
	if (bpf_skb_load_bytes(ctx, err->l4_off + 16, &check, sizeof(check)) < 0)
		return -PB_EINVAL;
	*sum += pb_icmp_amend(&check, diff);
	return bpf_skb_store_bytes(ctx, err->l4_off + 16, &check, sizeof(check), 0) < 0 ? -PB_EINVAL
											: 0;
}

/* `diff`: what the addresses add to the checksum. */
PB_INLINE int pb_icmp_inner_l4(struct __sk_buff *ctx, const struct pb_icmp *err,
			       const struct pb_ct *ct, __u32 diff, __u64 *sum)
{
	const __u8 protocol = err->key.protocol;
	union pb_icmp_l4 l4;
	__u64 ports;

	if (bpf_skb_load_bytes(ctx, err->l4_off, &l4, sizeof(l4)) < 0)
		return -PB_EINVAL;
	if (protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6) {
		ports = (__u64)(__u16)~l4.echo.id + ct->dport;
		l4.echo.id = ct->dport;
		*sum += ports + pb_icmp_amend(&l4.echo.check,
					      ports + (protocol == IPPROTO_ICMP ? 0 : diff));
	} else {
		ports = (__u64)(__u16)~l4.udp.sport + ct->dport;
		ports += (__u64)(__u16)~l4.udp.dport + ct->sport;
		l4.udp.sport = ct->dport;
		l4.udp.dport = ct->sport;
		*sum += ports;
	}
	if (protocol == IPPROTO_UDP && l4.udp.check) {
		*sum += pb_icmp_amend(&l4.udp.check, ports + diff);
		/* 0xffff is the same sum, so nothing else changes by it. */
		if (!l4.udp.check)
			l4.udp.check = 0xffff;
	}
	if (protocol == IPPROTO_TCP && pb_icmp_inner_tcp(ctx, err, ports + diff, sum) < 0)
		return -PB_EINVAL;
	return bpf_skb_store_bytes(ctx, err->l4_off, &l4, sizeof(l4), 0) < 0 ? -PB_EINVAL : 0;
}

/*
 * `ct` is the half of err->key, `to` from pb_icmp_outer(), `hop` as for pb_nat_translate(). 0, or
 * -PB_EINVAL: drop it, PB_REASON_WRITE_ERROR.
 */
PB_FUNCTION int pb_icmp_translate_inner(struct __sk_buff *ctx, const struct pb_packet *pkt,
					const struct pb_icmp *err, const struct pb_ct *ct)
{
	__u32 diff;
	__u64 sum = 0;
	int rc;

	if (!pkt || !err || !ct)
		return -PB_EINVAL;
	diff = pb_icmp_addr_diff(&err->key, ct);
	sum += diff;
	rc = pkt->family == 4 ? pb_icmp_inner4(ctx, err, ct, diff, &sum)
			      : pb_icmp_inner6(ctx, err, ct);
	if (rc == 0)
		rc = pb_icmp_inner_l4(ctx, err, ct, diff, &sum);
	if (rc == 0)
		rc = bpf_l4_csum_replace(ctx, pkt->l4_off + 2, 0, pb_nat_fold32(sum), 0) < 0
			     ? -PB_EINVAL
			     : 0;
	return rc;
}

PB_INLINE int pb_icmp_translate(struct __sk_buff *ctx, struct pb_packet *pkt,
				const struct pb_icmp *err, const struct pb_ct *ct,
				const struct pb_ct *to, __u32 hop)
{
	if (pb_icmp_translate_inner(ctx, pkt, err, ct) < 0)
		return -PB_EINVAL;
	return pb_nat_translate(ctx, pkt, to, hop);
}

#endif
