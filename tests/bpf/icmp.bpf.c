/* SPDX-License-Identifier: Apache-2.0 */
/* Translates by conntrack alone: packets, fragments, and errors about both. Nothing is routed. */
#include <patchbay/bpf.h>
#include <patchbay/frag.h>
#include <patchbay/icmp.h>

PB_INLINE int icmp_error(struct __sk_buff *ctx, struct pb_packet *pkt)
{
	struct pb_icmp err;
	struct pb_ct *ct, to;

	if (pb_icmp_read(ctx, pkt, &err) < 0)
		return pb_next(ctx);
	ct = pb_ct_lookup(&err.key);
	if (!ct)
		return pb_next(ctx);
	pb_icmp_outer(pkt, &err, ct, &to);
	if (pb_icmp_translate(ctx, pkt, &err, ct, &to, 1) < 0)
		return pb_drop(ctx, PB_REASON_WRITE_ERROR);
	ctx->mark |= PB_MARK_TRANSLATED;
	return pb_next(ctx);
}

PB_INLINE bool icmp_ttl_is_used_up(struct __sk_buff *ctx, const struct pb_packet *pkt)
{
	__u8 ttl = 0;

	return bpf_skb_load_bytes(ctx, pkt->l3_off + (pkt->family == 4 ? 8 : 7), &ttl, 1) < 0 ||
	       ttl <= 1;
}

PB_TC(icmp_translate)
{
	struct pb_packet *pkt = pb_packet();
	struct pb_ct_key key;
	struct pb_ct *ct;

	if (!pkt || !pkt->family)
		return pb_next(ctx);
	if (icmp_ttl_is_used_up(ctx, pkt))
		return pb_drop(ctx, PB_REASON_TTL_EXCEEDED);
	if (pkt->protocol == IPPROTO_ICMP || pkt->protocol == IPPROTO_ICMPV6)
		return icmp_error(ctx, pkt);
	if (pb_frag_ports(ctx, pkt) < 0)
		return pb_drop(ctx, PB_REASON_FRAG_UNKNOWN);
	if (!pb_frag_has_ports(pkt))
		return pb_next(ctx);
	pb_ct_key_of(pkt, PB_CT_ZONE_SERVICE, &key);
	ct = pb_ct_lookup(&key);
	if (!ct)
		return pb_next(ctx);
	if (pb_nat_translate(ctx, pkt, ct, 1) < 0)
		return pb_drop(ctx, PB_REASON_WRITE_ERROR);
	ctx->mark |= PB_MARK_TRANSLATED;
	return pb_next(ctx);
}
