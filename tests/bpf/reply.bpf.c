/* SPDX-License-Identifier: Apache-2.0 */
/* Answers packets as a test asks for it: the record in reply_plan says how. */
#include <patchbay/bpf.h>
#include <patchbay/reply.h>
#include "reply.h"

PB_REPLY_STATE(reply_state);

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct reply_plan);
} reply_plan SEC(".maps");

/* A DNAT as a service does it, so that there is something to put back. */
PB_INLINE void reply_translate4(struct __sk_buff *ctx, struct pb_packet *pkt,
				const struct reply_plan *plan)
{
	const __u64 zero = pkt->protocol == IPPROTO_TCP ? 0 : BPF_F_MARK_MANGLED_0;
	const __u32 check = pkt->l4_off + (pkt->protocol == IPPROTO_TCP ? 16 : 6);

	pb_packet_keep_orig(pkt);
	bpf_l4_csum_replace(ctx, check, pkt->daddr.v4, plan->to.v4, 4 | BPF_F_PSEUDO_HDR | zero);
	bpf_l4_csum_replace(ctx, check, pkt->dport, plan->port, 2 | zero);
	bpf_l3_csum_replace(ctx, pkt->l3_off + 10, pkt->daddr.v4, plan->to.v4, 4);
	bpf_skb_store_bytes(ctx, pkt->l3_off + 16, &plan->to.v4, 4, 0);
	bpf_skb_store_bytes(ctx, pkt->l4_off + 2, &plan->port, 2, 0);
	pkt->daddr.v4 = plan->to.v4;
	pkt->dport = plan->port;
}

PB_INLINE void reply_translate6(struct __sk_buff *ctx, struct pb_packet *pkt,
				const struct reply_plan *plan)
{
	const __u64 zero = pkt->protocol == IPPROTO_TCP ? 0 : BPF_F_MARK_MANGLED_0;
	const __u32 check = pkt->l4_off + (pkt->protocol == IPPROTO_TCP ? 16 : 6);
	__u64 diff = bpf_csum_diff((__be32 *)&pkt->daddr, 16, (__be32 *)&plan->to, 16, 0);

	pb_packet_keep_orig(pkt);
	bpf_l4_csum_replace(ctx, check, 0, diff, BPF_F_PSEUDO_HDR | zero);
	bpf_l4_csum_replace(ctx, check, pkt->dport, plan->port, 2 | zero);
	bpf_skb_store_bytes(ctx, pkt->l3_off + 24, &plan->to, 16, 0);
	bpf_skb_store_bytes(ctx, pkt->l4_off + 2, &plan->port, 2, 0);
	pkt->daddr = plan->to;
	pkt->dport = plan->port;
}

PB_INLINE int reply_make(struct __sk_buff *ctx, struct pb_packet *pkt, struct reply_plan *plan)
{
	switch (plan->what) {
	case REPLY_REJECT:
		return pb_reply_reject(ctx, pkt, &reply_state);
	case REPLY_TOO_BIG:
		return pb_reply_too_big(ctx, pkt, &reply_state, plan->mtu);
	default:
		return pb_reply_ttl(ctx, pkt, &reply_state, &plan->src);
	}
}

PB_TC(reply_answer)
{
	struct pb_packet *pkt = pb_packet();
	__u32 zero = 0;
	struct reply_plan *plan = bpf_map_lookup_elem(&reply_plan, &zero);

	if (!pkt || !plan)
		return pb_pass(ctx);
	if (plan->port && pkt->l4_off &&
	    (pkt->protocol == IPPROTO_TCP || pkt->protocol == IPPROTO_UDP)) {
		if (pkt->family == 4)
			reply_translate4(ctx, pkt, plan);
		else
			reply_translate6(ctx, pkt, plan);
	}
	plan->result = reply_make(ctx, pkt, plan);
	if (plan->result == 0)
		return pb_reply_send(ctx, pkt, PB_REASON_NO_SERVICE);
	return pb_drop(ctx, PB_REASON_NO_SERVICE);
}
