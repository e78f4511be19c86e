/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The entry programs, one per hook: what the kernel runs first.
 *
 * Owns the gates: an entry counts, reads the packet's headers once and tail-calls its gate at a
 * constant place. It decides nothing. A gate that is empty (never, in a healthy agent) counts as
 * a missed call and fails closed wherever the kernel lets a hook refuse.
 */
#include <pb_core.h>
#include <pb_parse.h>
#include <patchbay/ct.h>

PB_GATE(pb_gate_tc, PB_HOOK_TC_COUNT *PB_GATE_PLACES);
PB_GATE(pb_gate_connect4, PB_GATE_PLACES);
PB_GATE(pb_gate_connect6, PB_GATE_PLACES);
PB_GATE(pb_gate_sendmsg4, PB_GATE_PLACES);
PB_GATE(pb_gate_sendmsg6, PB_GATE_PLACES);
PB_GATE(pb_gate_recvmsg4, PB_GATE_PLACES);
PB_GATE(pb_gate_recvmsg6, PB_GATE_PLACES);
PB_GATE(pb_gate_getpeername4, PB_GATE_PLACES);
PB_GATE(pb_gate_getpeername6, PB_GATE_PLACES);
PB_GATE(pb_gate_bind4, PB_GATE_PLACES);
PB_GATE(pb_gate_bind6, PB_GATE_PLACES);
PB_GATE(pb_gate_sock_release, PB_GATE_PLACES);

PB_INLINE void entry_missed(__u32 hook)
{
	__u32 drop = hook * PB_REASON_COUNT + PB_REASON_MISSED_TAIL_CALL;
	struct pb_counters *c = bpf_map_lookup_elem(&pb_counters, &hook);
	__u64 *n = bpf_map_lookup_elem(&pb_drops, &drop);

	if (c)
		__sync_fetch_and_add(&c->missed, 1);
	if (n)
		__sync_fetch_and_add(n, 1);
}

PB_INLINE void entry_packet(struct __sk_buff *ctx, __u32 hook)
{
	struct pb_packet *pkt = bpf_map_lookup_elem(&pb_packets, &hook);
	struct pb_counters *c = bpf_map_lookup_elem(&pb_counters, &hook);

	if (!pkt || !c)
		return;
	c->packets++;
	c->bytes += ctx->len;
	pb_parse(ctx, pkt, hook);
}

#define ENTRY_TC(name_, hook_)                                                                     \
	SEC("tc") int name_(struct __sk_buff *ctx)                                                 \
	{                                                                                          \
		entry_packet(ctx, hook_);                                                          \
		bpf_tail_call_static(ctx, &pb_gate_tc, (hook_)*PB_GATE_PLACES + PB_GATE_CURRENT);  \
		entry_missed(hook_);                                                               \
		return TC_ACT_SHOT;                                                                \
	}

ENTRY_TC(pb_pod_egress, PB_HOOK_POD_EGRESS)
ENTRY_TC(pb_pod_ingress, PB_HOOK_POD_INGRESS)
ENTRY_TC(pb_dev_ingress, PB_HOOK_DEV_INGRESS)
ENTRY_TC(pb_dev_egress, PB_HOOK_DEV_EGRESS)

/* A task may be preempted inside a socket hook, so unlike a packet's its counts are atomic. */
PB_INLINE void entry_call(__u32 hook)
{
	struct pb_counters *c = bpf_map_lookup_elem(&pb_counters, &hook);

	if (c)
		__sync_fetch_and_add(&c->packets, 1);
}

#define ENTRY_SOCK(attach_, name_, gate_, ctx_type_, hook_, missed_)                               \
	SEC("cgroup/" attach_) int name_(ctx_type_ *ctx)                                           \
	{                                                                                          \
		entry_call(hook_);                                                                 \
		bpf_tail_call_static(ctx, &gate_, PB_GATE_CURRENT);                                \
		entry_missed(hook_);                                                               \
		return missed_;                                                                    \
	}

ENTRY_SOCK("connect4", pb_connect4, pb_gate_connect4, struct bpf_sock_addr, PB_HOOK_CONNECT4, 0)
ENTRY_SOCK("connect6", pb_connect6, pb_gate_connect6, struct bpf_sock_addr, PB_HOOK_CONNECT6, 0)
ENTRY_SOCK("sendmsg4", pb_sendmsg4, pb_gate_sendmsg4, struct bpf_sock_addr, PB_HOOK_SENDMSG4, 0)
ENTRY_SOCK("sendmsg6", pb_sendmsg6, pb_gate_sendmsg6, struct bpf_sock_addr, PB_HOOK_SENDMSG6, 0)
ENTRY_SOCK("recvmsg4", pb_recvmsg4, pb_gate_recvmsg4, struct bpf_sock_addr, PB_HOOK_RECVMSG4, 1)
ENTRY_SOCK("recvmsg6", pb_recvmsg6, pb_gate_recvmsg6, struct bpf_sock_addr, PB_HOOK_RECVMSG6, 1)
ENTRY_SOCK("getpeername4", pb_getpeername4, pb_gate_getpeername4, struct bpf_sock_addr,
	   PB_HOOK_GETPEERNAME4, 1)
ENTRY_SOCK("getpeername6", pb_getpeername6, pb_gate_getpeername6, struct bpf_sock_addr,
	   PB_HOOK_GETPEERNAME6, 1)
ENTRY_SOCK("bind4", pb_bind4, pb_gate_bind4, struct bpf_sock_addr, PB_HOOK_BIND4, 0)
ENTRY_SOCK("bind6", pb_bind6, pb_gate_bind6, struct bpf_sock_addr, PB_HOOK_BIND6, 0)
ENTRY_SOCK("sock_release", pb_sock_release, pb_gate_sock_release, struct bpf_sock,
	   PB_HOOK_SOCK_RELEASE, 1)
