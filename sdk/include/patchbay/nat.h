/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Address translation for programs: rewriting headers, and source ports that nobody else has.
 * Include it after patchbay/bpf.h; it brings patchbay/ct.h with it.
 *
 *	pb_nat_can()		whether this packet can go on with these ports at all
 *	pb_nat_translate()	rewrites addresses, ports, checksums and, if asked, the hop limit;
 *				keeps the tuple before it in the record (orig_*)
 *	pb_nat_claim()		finds a source port and makes the flow's conntrack entries with it
 *	pb_nat_socket_of()	whether a socket of this network namespace has a tuple
 *
 * Owns how checksums follow a change: always by difference, never anew, so that a packet whose
 * checksum the sender left to the device (CHECKSUM_PARTIAL), one that is still in one piece (GSO)
 * and one that was damaged on its way stay what they are. A UDP checksum of 0 stays 0. Frames are
 * written through helpers only: direct writes would make the kernel copy cloned packets that
 * aren't even translated.
 */
#ifndef PATCHBAY_NAT_H
#define PATCHBAY_NAT_H

#include <patchbay/ct.h>

/* Ports tried for a flow, that of the client among them. */
#define PB_NAT_TRIES 32

/* Returned by the functions below, negative. */
#define PB_EINVAL 22	 /* the headers aren't there, or the kernel refused to write */
#define PB_EADDRINUSE 98 /* no port was free; counted in pb_ct_stats.no_port */

/* The kernel has it since 6.16; its header may be older. */
#define PB_CSUM_IPV6 (1ULL << 7)

/* pb_nat_socket_of() */
enum pb_nat_socket {
	PB_NAT_SOCKET_NONE = 0,
	PB_NAT_SOCKET_BOUND = 1,     /* a listener, or UDP without a peer */
	PB_NAT_SOCKET_CONNECTED = 2, /* with exactly this peer */
};

/* Ones' complement sums, in memory order. */
PB_INLINE __u32 pb_nat_fold32(__u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	return (__u32)((sum & 0xffffffff) + (sum >> 32));
}

PB_INLINE __u16 pb_nat_fold16(__u64 sum)
{
	__u32 s = pb_nat_fold32(sum);

	s = (s & 0xffff) + (s >> 16);
	return (__u16)((s & 0xffff) + (s >> 16));
}

/* What the addresses of `to` add to a sum that was made with those of the packet. */
PB_INLINE __u32 pb_nat_addr_diff(const struct pb_packet *pkt, const struct pb_ct *to)
{
	__u64 sum = 0;

	sum += (__u64)(__u32)~pkt->saddr.v6[0] + to->saddr.v6[0];
	sum += (__u64)(__u32)~pkt->daddr.v6[0] + to->daddr.v6[0];
	if (pkt->family == 6) {
#pragma unroll
		for (int i = 1; i < 4; i++) {
			sum += (__u64)(__u32)~pkt->saddr.v6[i] + to->saddr.v6[i];
			sum += (__u64)(__u32)~pkt->daddr.v6[i] + to->daddr.v6[i];
		}
	}
	return pb_nat_fold32(sum);
}

PB_INLINE bool pb_nat_moves_ports(const struct pb_packet *pkt, const struct pb_ct *to)
{
	return pkt->sport != to->sport || pkt->dport != to->dport;
}

/*
 * SCTP has a checksum that no difference can be added to, so its ports must stay; what has no
 * ports of its own (but for later fragments) isn't translated. PB_REASON_NAT_PROTOCOL otherwise.
 */
PB_INLINE bool pb_nat_can(const struct pb_packet *pkt, const struct pb_ct *to)
{
	switch (pkt->protocol) {
	case IPPROTO_TCP:
	case IPPROTO_UDP:
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return true;
	case IPPROTO_SCTP:
		return !pb_nat_moves_ports(pkt, to);
	}
	return false;
}

/* The ports follow the IP header at once: both are written in one go. */
PB_INLINE bool pb_nat_joined(const struct pb_packet *pkt)
{
	return (pkt->protocol == IPPROTO_TCP || pkt->protocol == IPPROTO_UDP) &&
	       pkt->l4_off == pkt->l3_off + (pkt->family == 4 ? 20 : 40);
}

/* Bytes 8 to 19 of an IPv4 header. */
struct pb_nat_ipv4 {
	__u8 ttl;
	__u8 protocol;
	__u16 check;
	__be32 saddr;
	__be32 daddr;
};

PB_INLINE long pb_nat_ipv4(struct __sk_buff *ctx, const struct pb_packet *pkt,
			   const struct pb_ct *to, __u32 diff, __u32 hop)
{
	struct {
		union {
			struct pb_nat_ipv4 ip;
			__u16 first; /* ttl and protocol */
		};
		__be16 ports[2];
	} h;
	__u64 sum;

	if (pb_frame_load(ctx, pkt->l3_off + 8, &h.ip, sizeof(h.ip)) < 0)
		return -PB_EINVAL;
	sum = (__u64)(__u16)~h.ip.check + diff + (__u16)~h.first;
	h.ip.ttl -= hop;
	sum += h.first;
	h.ip.check = ~pb_nat_fold16(sum);
	h.ip.saddr = to->saddr.v4;
	h.ip.daddr = to->daddr.v4;
	h.ports[0] = to->sport;
	h.ports[1] = to->dport;
	if (pb_nat_joined(pkt))
		return bpf_skb_store_bytes(ctx, pkt->l3_off + 8, &h, sizeof(h), 0);
	return bpf_skb_store_bytes(ctx, pkt->l3_off + 8, &h, sizeof(h.ip), 0);
}

PB_INLINE long pb_nat_ipv6(struct __sk_buff *ctx, const struct pb_packet *pkt,
			   const struct pb_ct *to, __u32 hop)
{
	struct {
		__u8 before[3];
		__u8 hops; /* byte 7 of the header */
		union pb_addr saddr;
		union pb_addr daddr;
		__be16 ports[2];
	} h;

	if (pb_frame_load(ctx, pkt->l3_off + 4, &h, 4) < 0)
		return -PB_EINVAL;
	h.hops -= hop;
	pb_ct_copy_addr(&h.saddr, &to->saddr);
	pb_ct_copy_addr(&h.daddr, &to->daddr);
	h.ports[0] = to->sport;
	h.ports[1] = to->dport;
	if (pb_nat_joined(pkt))
		return bpf_skb_store_bytes(ctx, pkt->l3_off + 4, &h, sizeof(h), 0);
	return bpf_skb_store_bytes(ctx, pkt->l3_off + 4, &h, sizeof(h) - sizeof(h.ports), 0);
}

/* By difference; kernels without the flag for IPv6 refuse it, and do as they always did. */
PB_INLINE long pb_nat_sum(struct __sk_buff *ctx, __u32 off, __u32 diff, __u64 flags, bool ipv6)
{
	long rc = -PB_EINVAL;

	flags |= BPF_F_PSEUDO_HDR;
	if (ipv6)
		rc = bpf_l4_csum_replace(ctx, off, 0, diff, flags | PB_CSUM_IPV6);
	return rc == -PB_EINVAL ? bpf_l4_csum_replace(ctx, off, 0, diff, flags) : rc;
}

/* TCP and UDP: `sum` is where the checksum lies in the header. */
PB_INLINE int pb_nat_l4(struct __sk_buff *ctx, const struct pb_packet *pkt, const struct pb_ct *to,
			__u32 diff, __u32 sum, __u64 flags)
{
	union {
		__be16 ports[2];
		__u32 word;
	} was, is;
	long rc = pb_nat_sum(ctx, pkt->l4_off + sum, diff, flags, pkt->family == 6);

	if (!pb_nat_moves_ports(pkt, to))
		return rc < 0 ? -PB_EINVAL : 0;
	was.ports[0] = pkt->sport;
	was.ports[1] = pkt->dport;
	is.ports[0] = to->sport;
	is.ports[1] = to->dport;
	/* Apart from the addresses: ports aren't in the pseudo header. */
	if (rc == 0)
		rc = bpf_l4_csum_replace(ctx, pkt->l4_off + sum, was.word, is.word, flags | 4);
	if (rc == 0 && !pb_nat_joined(pkt))
		rc = bpf_skb_store_bytes(ctx, pkt->l4_off, &is, sizeof(is), 0);
	return rc < 0 ? -PB_EINVAL : 0;
}

/* The id of an echo stands for both ports. Only ICMPv6 has a pseudo header. */
PB_INLINE int pb_nat_icmp(struct __sk_buff *ctx, const struct pb_packet *pkt,
			  const struct pb_ct *to, __u32 diff)
{
	__be16 id = to->sport;
	long rc = 0;

	if (pkt->family == 6)
		rc = pb_nat_sum(ctx, pkt->l4_off + 2, diff, 0, true);
	if (rc < 0 || id == pkt->sport)
		return rc < 0 ? -PB_EINVAL : 0;
	rc = bpf_l4_csum_replace(ctx, pkt->l4_off + 2, pkt->sport, id, 2);
	if (rc == 0)
		rc = bpf_skb_store_bytes(ctx, pkt->l4_off + 4, &id, sizeof(id), 0);
	return rc < 0 ? -PB_EINVAL : 0;
}

PB_INLINE int pb_nat_ports(struct __sk_buff *ctx, const struct pb_packet *pkt,
			   const struct pb_ct *to, __u32 diff)
{
	if (pkt->flags & PB_PKT_NO_L4)
		return 0;
	if (pkt->protocol == IPPROTO_TCP)
		return pb_nat_l4(ctx, pkt, to, diff, 16, 0);
	if (pkt->protocol == IPPROTO_UDP)
		return pb_nat_l4(ctx, pkt, to, diff, 6, BPF_F_MARK_MANGLED_0);
	if (pkt->protocol == IPPROTO_ICMP || pkt->protocol == IPPROTO_ICMPV6)
		return pb_nat_icmp(ctx, pkt, to, diff);
	return 0;
}

/*
 * The packet goes on with addresses and ports of `to`; of a later fragment only the addresses
 * change. `hop`: 1 also takes one from the TTL or hop limit (which the caller has looked at), 0
 * leaves it. 0, or -PB_EINVAL: drop it, PB_REASON_WRITE_ERROR.
 */
PB_FUNCTION int pb_nat_translate(struct __sk_buff *ctx, struct pb_packet *pkt,
				 const struct pb_ct *to, __u32 hop)
{
	__u32 diff;
	long rc;

	if (!pkt || !to)
		return -PB_EINVAL;
	diff = pb_nat_addr_diff(pkt, to);
	if (pkt->family == 4)
		rc = pb_nat_ipv4(ctx, pkt, to, diff, hop);
	else
		rc = pb_nat_ipv6(ctx, pkt, to, hop);
	if (rc == 0)
		rc = pb_nat_ports(ctx, pkt, to, diff);
	pb_packet_keep_orig(pkt);
	pb_ct_copy_addr(&pkt->saddr, &to->saddr);
	pb_ct_copy_addr(&pkt->daddr, &to->daddr);
	pkt->sport = to->sport;
	pkt->dport = to->dport;
	return rc < 0 ? -PB_EINVAL : 0;
}

/* ---- sockets and ports ---- */

PB_INLINE __u32 pb_nat_tuple(const struct pb_ct_key *key, struct bpf_sock_tuple *ret_tuple)
{
	if (key->family == 4) {
		ret_tuple->ipv4.saddr = key->saddr.v4;
		ret_tuple->ipv4.daddr = key->daddr.v4;
		ret_tuple->ipv4.sport = key->sport;
		ret_tuple->ipv4.dport = key->dport;
		return sizeof(ret_tuple->ipv4);
	}
	pb_ct_copy_addr((union pb_addr *)ret_tuple->ipv6.saddr, &key->saddr);
	pb_ct_copy_addr((union pb_addr *)ret_tuple->ipv6.daddr, &key->daddr);
	ret_tuple->ipv6.sport = key->sport;
	ret_tuple->ipv6.dport = key->dport;
	return sizeof(ret_tuple->ipv6);
}

/* struct bpf_sock.state; a UDP socket with a peer is established. */
#define PB_NAT_TCP_ESTABLISHED 1
#define PB_NAT_TCP_LISTEN 10

/*
 * One function for each protocol, or the compiler would read both kinds of sockets by the same
 * instruction, which the verifier refuses.
 */
PB_FUNCTION int pb_nat_socket_tcp(struct __sk_buff *ctx, const struct pb_ct_key *key)
{
	struct bpf_sock_tuple tuple;
	struct bpf_sock *sk;
	int listens;

	if (!key)
		return PB_NAT_SOCKET_NONE;
	sk = bpf_skc_lookup_tcp(ctx, &tuple, pb_nat_tuple(key, &tuple), BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return PB_NAT_SOCKET_NONE;
	listens = sk->state == PB_NAT_TCP_LISTEN;
	bpf_sk_release(sk);
	return listens ? PB_NAT_SOCKET_BOUND : PB_NAT_SOCKET_CONNECTED;
}

PB_FUNCTION int pb_nat_socket_udp(struct __sk_buff *ctx, const struct pb_ct_key *key)
{
	struct bpf_sock_tuple tuple;
	struct bpf_sock *sk;
	int connected;

	if (!key)
		return PB_NAT_SOCKET_NONE;
	sk = bpf_sk_lookup_udp(ctx, &tuple, pb_nat_tuple(key, &tuple), BPF_F_CURRENT_NETNS, 0);
	if (!sk)
		return PB_NAT_SOCKET_NONE;
	connected = sk->state == PB_NAT_TCP_ESTABLISHED;
	bpf_sk_release(sk);
	return connected ? PB_NAT_SOCKET_CONNECTED : PB_NAT_SOCKET_BOUND;
}

/* The socket that would get a packet of `key`. enum pb_nat_socket. */
PB_INLINE int pb_nat_socket_of(struct __sk_buff *ctx, const struct pb_ct_key *key)
{
	if (key->protocol == IPPROTO_TCP)
		return pb_nat_socket_tcp(ctx, key);
	if (key->protocol == IPPROTO_UDP)
		return pb_nat_socket_udp(ctx, key);
	return PB_NAT_SOCKET_NONE;
}

struct pb_nat_claim {
	struct __sk_buff *ctx;
	const struct pb_ct_key *key;
	struct pb_ct *to;
	__u32 tcp_flags;
	__u32 min;
	__u32 count;
	__u32 at;   /* the next port to try, from `min` on */
	__u32 keep; /* the first try is the port that is in `to` */
	int rc;
};

/*
 * A listener at the port is no obstacle: the answers to look for come from the peer's port, and
 * nobody calls from there. A UDP socket without a peer may well be waiting for just them.
 */
PB_INLINE bool pb_nat_host_has(const struct pb_nat_claim *c)
{
	struct pb_ct_key back;
	int socket;

	if (!(c->to->flags & (PB_CT_SNAT | PB_CT_HOST)))
		return false;
	pb_ct_key_back(c->key, c->to, &back);
	socket = pb_nat_socket_of(c->ctx, &back);
	return socket == PB_NAT_SOCKET_CONNECTED ||
	       (socket == PB_NAT_SOCKET_BOUND && back.protocol == IPPROTO_UDP);
}

/*
 * A random port and the next ones, then another random one: clients use ports one after the other,
 * and whoever begins inside of such a row shouldn't have to walk to its end.
 */
#define PB_NAT_ROW 8

static __attribute__((unused)) long pb_nat_try(__u32 i, struct pb_nat_claim *c)
{
	struct pb_ct_stats *stats;

	if (i % PB_NAT_ROW == 0)
		c->at = (__u32)(((__u64)bpf_get_prandom_u32() * c->count) >> 32);
	if (i > 0 || !c->keep) {
		c->to->sport = bpf_htons((__u16)(c->min + c->at));
		c->at = c->at + 1 < c->count ? c->at + 1 : 0;
		if (c->key->protocol == IPPROTO_ICMP || c->key->protocol == IPPROTO_ICMPV6)
			c->to->dport = c->to->sport;
	}
	if (!pb_nat_host_has(c)) {
		c->rc = pb_ct_create(c->key, c->to, c->tcp_flags);
		if (c->rc != -PB_EEXIST)
			return 1;
	}
	c->rc = -PB_EADDRINUSE;
	stats = pb_ct_stats_mine();
	if (stats)
		stats->collisions++;
	/* SCTP can't have another port. */
	return c->key->protocol == IPPROTO_SCTP;
}

/*
 * Makes the entries of the flow that begins with the packet of `key`, see pb_ct_create(), with a
 * source port that no other flow has towards this peer and, with PB_CT_SNAT or PB_CT_HOST in
 * to->flags, no socket of this node either. to->sport is the port to begin with, which is kept
 * when it is free and, with PB_CT_SNAT, in [min, max]; with PB_CT_HOST it never is. Else ports
 * of [min, max] are tried, PB_NAT_TRIES in all. to->sport then is the port.
 *
 * 0; nothing was made: -PB_EADDRINUSE (PB_REASON_NAT_NO_PORT), -PB_EALREADY (look it up),
 * -PB_ENOSPC (PB_REASON_CT_FULL).
 */
PB_INLINE int pb_nat_claim(struct __sk_buff *ctx, const struct pb_ct_key *key, struct pb_ct *to,
			   __u32 tcp_flags, __u16 min, __u16 max)
{
	__u16 port = bpf_ntohs(to->sport);
	struct pb_nat_claim c = {.ctx = ctx,
				 .key = key,
				 .to = to,
				 .tcp_flags = tcp_flags,
				 .min = min,
				 .rc = -PB_EADDRINUSE};
	struct pb_ct_stats *stats;

	c.count = max >= min ? (__u32)(max - min) + 1 : 1;
	c.keep = key->protocol == IPPROTO_SCTP || !(to->flags & (PB_CT_SNAT | PB_CT_HOST)) ||
		 (!(to->flags & PB_CT_HOST) && port >= min && port <= max);
	bpf_loop(PB_NAT_TRIES, pb_nat_try, &c, 0);
	if (c.rc == -PB_EADDRINUSE) {
		stats = pb_ct_stats_mine();
		if (stats)
			stats->no_port++;
	}
	return c.rc;
}

#endif
