/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Direct Server Return: the backend's node answers the client itself, in the frontend's name.
 *
 *	dsr_in		dev-ingress, band decap: a frontend that came in a packet (dsr_in.bpf.h)
 *	dsr_out		dev-ingress, band service, between kpr and kpr-nat (dsr_out.bpf.h)
 *	dsr_answer	pod-egress, there too: answers that nobody can translate any more
 *
 * Owns no translation: what is begun here goes on in kpr's programs alone.
 */
#include <patchbay/bpf.h>
#include <patchbay/nat.h>

#include "dsr_in.bpf.h"
#include "dsr_out.bpf.h"

PB_INLINE struct pb_svc_flow *dsr_flow(void)
{
	__u32 hook = pb_hook_id;

	return bpf_map_lookup_elem(&kpr__kpr_flow, &hook);
}

/* A frontend that came in the packet's own headers. */
PB_INLINE bool dsr_decode(struct __sk_buff *ctx, const struct pb_packet *pkt, struct dsr_info *info)
{
	if (!(pkt->flags & PB_PKT_OPTIONS))
		return false;
	__builtin_memset(info, 0, sizeof(*info));
	return pkt->family == 4 ? dsr_decode4(ctx, pkt->l3_off, info)
				: dsr_decode6(ctx, pkt->l3_off, info);
}

/* TCP without a frontend: of a flow that began with one, or of one that is forgotten. */
PB_FUNCTION int dsr_plain(const struct pb_packet *pkt)
{
	struct pb_ct_key back;

	if (!pkt || pkt->protocol != IPPROTO_TCP)
		return 0;
	dsr_back_of(pkt, &back);
	return dsr_was_backend(&back) ? dsr_follow(&back, pkt->tcp_flags, pb_ct_is_syn(pkt)) : 0;
}

/* A frontend that came in another packet around this one. enum dsr_packed. */
PB_INLINE int dsr_unpack(struct __sk_buff *ctx, struct pb_packet *pkt, struct dsr_scratch *s)
{
	int rc = DSR_PACKED_NOT;

	if (pkt->protocol == (pkt->family == 4 ? IPPROTO_IPIP : DSR_IPIP6))
		rc = dsr_unpack_ipip(ctx, pkt, &s->outer);
	else if (pkt->protocol == IPPROTO_UDP && pkt->dport == bpf_htons(DSR_GENEVE_PORT))
		rc = dsr_unpack_geneve(ctx, pkt, &s->info);
	if (rc != DSR_PACKED_NOT)
		s->info.in_header = 0;
	if (rc == DSR_PACKED_IPIP) {
		pb_ct_copy_addr(&s->info.addr, &pkt->daddr);
		s->info.port = pkt->dport;
	}
	return rc;
}

/* What was unpacked and isn't believed goes nowhere. */
PB_INLINE int dsr_unpacked(struct __sk_buff *ctx, struct pb_packet *pkt, struct dsr_scratch *s,
			   int packed)
{
	int rc;

	if (packed == DSR_PACKED_BAD)
		return PB_REASON_INVALID_PACKET;
	rc = dsr_arrive(ctx, pkt, s, packed == DSR_PACKED_IPIP);
	return rc == DSR_UNTRUSTED ? PB_REASON_INVALID_PACKET : rc;
}

/* The packet's own headers. As dsr_arrive(); 0: it has nothing to do with us. */
PB_INLINE int dsr_read(struct __sk_buff *ctx, struct pb_packet *pkt, struct dsr_scratch *s)
{
	int rc = DSR_UNTRUSTED;

	if (pkt->flags & PB_PKT_NO_L4 ||
	    (pkt->protocol != IPPROTO_TCP && pkt->protocol != IPPROTO_UDP))
		return 0;
	if (dsr_decode(ctx, pkt, &s->info))
		rc = dsr_arrive(ctx, pkt, s, false);
	return rc == DSR_UNTRUSTED ? dsr_plain(pkt) : rc;
}

PB_TC(dsr_in)
{
	__u32 zero = 0;
	struct pb_packet *pkt = pb_packet();
	struct dsr_scratch *s = bpf_map_lookup_elem(&dsr_scratch, &zero);
	int packed, rc;

	if (!pkt || !s || !pkt->family || pb_is_otherhost(ctx))
		return pb_next(ctx);
	packed = dsr_unpack(ctx, pkt, s);
	rc = packed == DSR_PACKED_NOT ? dsr_read(ctx, pkt, s) : dsr_unpacked(ctx, pkt, s, packed);
	if (rc > 0)
		return pb_drop(ctx, rc);
	/* The addresses are final; but kpr has to see a first fragment to know the others. */
	if (rc == DSR_OURS && !(pkt->flags & PB_PKT_FRAGMENT))
		ctx->mark |= PB_MARK_TRANSLATED;
	return pb_next(ctx);
}

PB_TC(dsr_out)
{
	struct pb_packet *pkt = pb_packet();
	struct pb_svc_flow *flow = dsr_flow();
	struct pb_ct_key key;
	struct pb_ct *ct;
	struct pb_ct to;

	if (!pkt || !flow)
		return pb_next(ctx);
	if (flow->state == PB_SVC_FLOW_NEW) {
		if (!dsr_eligible(pkt, flow))
			return pb_next(ctx);
		dsr_to_backend(pkt, flow, &to);
		return dsr_send(ctx, pkt, flow, &to);
	}
	if (flow->state != PB_SVC_FLOW_KNOWN || !dsr_again(pkt))
		return pb_next(ctx);
	pb_ct_key_of(pkt, PB_CT_ZONE_SERVICE, &key);
	ct = pb_ct_lookup(&key);
	if (!ct || !(ct->flags & PB_CT_DSR))
		return pb_next(ctx);
	to = *ct;
	return dsr_send(ctx, pkt, flow, &to);
}

/* The pod must not answer in its own name on a flow that had a translation (D20, D43). */
PB_TC(dsr_answer)
{
	struct pb_packet *pkt = pb_packet();
	struct pb_svc_flow *flow = dsr_flow();
	struct pb_ct_key back;
	int rc;

	if (!pkt || !flow || flow->state != PB_SVC_FLOW_NONE || pkt->protocol != IPPROTO_TCP ||
	    pkt->flags & PB_PKT_NO_L4 || pb_ct_is_syn(pkt))
		return pb_next(ctx);
	pb_ct_key_of(pkt, PB_CT_ZONE_SERVICE, &back);
	rc = dsr_was_backend(&back) ? dsr_forgotten(&back) : 0;
	return rc ? pb_drop(ctx, rc) : pb_next(ctx);
}
