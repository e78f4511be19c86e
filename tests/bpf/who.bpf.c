/* SPDX-License-Identifier: Apache-2.0 */
/* Asks who a packet is from and for, and writes down each answer. */
#include <patchbay/bpf.h>

struct who_answers {
	__u32 src;
	__u32 dst;
	__u32 src_cached; /* asked again, after the record's address was changed */
	__u32 src_anew;	  /* and again, after pb_packet_keep_orig() */
	__u32 by_addr;	  /* of the source address, by itself */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct who_answers);
} answers SEC(".maps");

PB_TC(who)
{
	struct pb_packet *pkt = pb_packet();
	__u32 zero = 0;
	struct who_answers *a = bpf_map_lookup_elem(&answers, &zero);

	if (!pkt || !a)
		return pb_next(ctx);
	a->by_addr = pkt->family == 4 ? pb_identity4(pkt->saddr.v4) : pb_identity6(&pkt->saddr);
	a->src = pb_src_identity(pkt);
	a->dst = pb_dst_identity(pkt);
	pkt->saddr = pkt->daddr;
	a->src_cached = pb_src_identity(pkt);
	pb_packet_keep_orig(pkt);
	a->src_anew = pb_src_identity(pkt);
	return pb_next(ctx);
}
