/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fragments: later ones get the ports of their first one. Include it after patchbay/bpf.h; tc
 * hooks.
 *
 *	pb_frag_ports()		puts the ports into a fragment's record
 *	pb_frag_has_ports()	whether a packet's record has ports, by whatever way
 *
 * Owns what is in the core's map pb_frags: ports by the tuple that all fragments of a datagram
 * carry, as they come in, before any translation. A datagram whose first fragment has been
 * translated is found by what it was before. PB_PKT_NO_L4 stays set in a later fragment: there is
 * no L4 header, so pb_nat_translate() changes addresses alone, and no checksum needs it.
 */
#ifndef PATCHBAY_FRAG_H
#define PATCHBAY_FRAG_H

#include <stdbool.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <patchbay/ct.h>

#define PB_ENOENT 2

#define PB_FRAG_EXT_MAX 8 /* extension headers looked at for that of the fragment */

/* The IPv6 fragment header. */
struct pb_frag_header {
	__u8 next;
	__u8 reserved;
	__be16 off;
	__be32 id;
};

PB_INLINE bool pb_frag_is_ext(__u8 type)
{
	return type == IPPROTO_HOPOPTS || type == IPPROTO_ROUTING || type == IPPROTO_DSTOPTS;
}

/* Only headers that routers look at stand before that of a fragment. */
PB_INLINE int pb_frag_id6(struct __sk_buff *ctx, const struct pb_packet *pkt, __be32 *ret_id)
{
	struct pb_frag_header h;
	__u32 off = pkt->l3_off + 40;
	__u8 type;

	if (bpf_skb_load_bytes(ctx, pkt->l3_off + 6, &type, 1) < 0)
		return -PB_ENOENT;
	for (int i = 0; i < PB_FRAG_EXT_MAX; i++) {
		if (bpf_skb_load_bytes(ctx, off, &h, sizeof(h)) < 0)
			return -PB_ENOENT;
		if (type == IPPROTO_FRAGMENT) {
			*ret_id = h.id;
			return 0;
		}
		if (!pb_frag_is_ext(type))
			return -PB_ENOENT;
		type = h.next;
		off += (h.reserved + 1) * 8;
	}
	return -PB_ENOENT;
}

PB_INLINE int pb_frag_key_of(struct __sk_buff *ctx, const struct pb_packet *pkt,
			     struct pb_frag_key *ret_key)
{
	ret_key->saddr = pkt->saddr;
	ret_key->daddr = pkt->daddr;
	ret_key->id = 0;
	ret_key->protocol = pkt->protocol;
	ret_key->family = pkt->family;
	ret_key->reserved[0] = 0;
	ret_key->reserved[1] = 0;
	if (pkt->family == 6)
		return pb_frag_id6(ctx, pkt, &ret_key->id);
	return bpf_skb_load_bytes(ctx, pkt->l3_off + 4, &ret_key->id, 2) < 0 ? -PB_ENOENT : 0;
}

PB_FUNCTION int pb_frag_learn(struct __sk_buff *ctx, struct pb_packet *pkt)
{
	const struct pb_frag *known;
	struct pb_frag_key key;
	struct pb_frag ports;

	if (!pkt || pb_frag_key_of(ctx, pkt, &key) < 0)
		return -PB_ENOENT;
	if (!(pkt->flags & PB_PKT_NO_L4)) {
		ports.sport = pkt->sport;
		ports.dport = pkt->dport;
		return bpf_map_update_elem(&pb_frags, &key, &ports, BPF_ANY) < 0 ? -PB_ENOENT : 0;
	}
	known = bpf_map_lookup_elem(&pb_frags, &key);
	if (!known)
		return -PB_ENOENT;
	pkt->sport = known->sport;
	pkt->dport = known->dport;
	return 0;
}

PB_INLINE bool pb_frag_of_ports(const struct pb_packet *pkt)
{
	return pkt->protocol == IPPROTO_TCP || pkt->protocol == IPPROTO_UDP ||
	       pkt->protocol == IPPROTO_SCTP;
}

/*
 * Call it before the ports are looked at. 0: the record has them, or the packet is no fragment of
 * a protocol with ports. -PB_ENOENT: a later fragment whose first one didn't come by, or came after
 * it. Whether it may go on is the caller's decision: to an address that only Services have,
 * nobody else waits for it (PB_REASON_FRAG_UNKNOWN); one of this node's may be for a socket.
 */
PB_INLINE int pb_frag_ports(struct __sk_buff *ctx, struct pb_packet *pkt)
{
	if (!(pkt->flags & PB_PKT_FRAGMENT) || pkt->flags & PB_PKT_MALFORMED ||
	    !pb_frag_of_ports(pkt))
		return 0;
	return pb_frag_learn(ctx, pkt);
}

/* Of a later fragment, too, once pb_frag_ports() has found them. */
PB_INLINE bool pb_frag_has_ports(const struct pb_packet *pkt)
{
	if (pkt->flags & PB_PKT_MALFORMED || !pb_frag_of_ports(pkt))
		return false;
	return !(pkt->flags & PB_PKT_NO_L4) ||
	       (pkt->flags & PB_PKT_FRAGMENT && pkt->sport | pkt->dport);
}

#endif
