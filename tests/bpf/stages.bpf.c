/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Programs that tests put into chains: each does one thing that a test can observe.
 *
 * Written as a plugin would be: the core sets the places, maps hold the state.
 */
#include <patchbay/bpf.h>

struct stages_scratch {
	__u32 generation; /* of the first program that the packet met */
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stages_scratch);
} scratch SEC(".maps");

struct stages_counts {
	__u64 whole; /* packets whose two programs were of one generation */
	__u64 torn;
	__u64 observed; /* packets an observer saw */
	__u64 dropped;	/* of those, with the verdict drop */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct stages_counts);
} counts SEC(".maps");

const volatile __u32 stages_kind;    /* enum pb_redirect_kind */
const volatile __u32 stages_ifindex; /* of the redirect */

PB_INLINE struct stages_counts *stages_counts(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&counts, &zero);
}

PB_TC(stages_next)
{
	return pb_next(ctx);
}

PB_TC(stages_pass)
{
	return pb_pass(ctx);
}

PB_TC(stages_drop)
{
	return pb_drop(ctx, PB_REASON_POLICY_DENIED);
}

PB_TC(stages_redirect)
{
	return pb_redirect(ctx, stages_kind, stages_ifindex);
}

PB_TC(stages_first)
{
	__u32 zero = 0;
	struct stages_scratch *s = bpf_map_lookup_elem(&scratch, &zero);

	if (s)
		s->generation = pb_generation;
	return pb_next(ctx);
}

PB_TC(stages_second)
{
	__u32 zero = 0;
	struct stages_scratch *s = bpf_map_lookup_elem(&scratch, &zero);
	struct stages_counts *c = stages_counts();

	if (!s || !c)
		return pb_next(ctx);
	if (s->generation == pb_generation)
		__sync_fetch_and_add(&c->whole, 1);
	else
		__sync_fetch_and_add(&c->torn, 1);
	s->generation = 0;
	return pb_next(ctx);
}

PB_TC(stages_observe)
{
	struct pb_packet *pkt = pb_packet();
	struct stages_counts *c = stages_counts();

	if (pkt && c) {
		__sync_fetch_and_add(&c->observed, 1);
		if (pkt->verdict == PB_VERDICT_DROP)
			__sync_fetch_and_add(&c->dropped, 1);
	}
	return pb_next(ctx);
}

/* Several ways out, as a real program has: none may be merged into a variable index. */
PB_TC(stages_branches)
{
	struct pb_packet *pkt = pb_packet();

	if (!pkt)
		return pb_pass(ctx);
	if (pkt->protocol == 6)
		return pb_next(ctx);
	if (pkt->dport == bpf_htons(53))
		return pb_drop(ctx, PB_REASON_PLUGIN);
	if (pkt->family == 6)
		return pb_redirect(ctx, PB_REDIRECT_EGRESS, pkt->ifindex);
	return pb_next(ctx);
}

/* What a plugin must not do: the index is only known at run time. */
PB_TC(stages_indirect)
{
	bpf_tail_call(ctx, &pb_chain, ctx->mark);
	return pb_missed();
}

PB_SOCK_ADDR(connect4, stages_connect4)
{
	if (ctx->user_port == bpf_htons(81))
		return pb_deny(ctx, 111 /* ECONNREFUSED */, PB_REASON_NO_SERVICE);
	return pb_next(ctx);
}

/* Port 83 is another way to say port 82. */
PB_SOCK_ADDR(connect4, stages_translate4)
{
	if (ctx->user_port == bpf_htons(83)) {
		pb_sock_keep_orig(ctx);
		ctx->user_port = bpf_htons(82);
	}
	return pb_next(ctx);
}

/* The last call as an observer saw it. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pb_sock);
} seen SEC(".maps");

PB_INLINE int stages_see(struct bpf_sock_addr *ctx)
{
	__u32 zero = 0;
	struct pb_sock *now = pb_sock(ctx), *seen_sock = bpf_map_lookup_elem(&seen, &zero);

	if (now && seen_sock)
		*seen_sock = *now;
	return pb_next(ctx);
}

#define STAGES_SEE(attach_)                                                                        \
	PB_SOCK_ADDR(attach_, stages_see_##attach_)                                                \
	{                                                                                          \
		return stages_see(ctx);                                                            \
	}

STAGES_SEE(connect4)
STAGES_SEE(connect6)
STAGES_SEE(sendmsg4)
STAGES_SEE(sendmsg6)
STAGES_SEE(recvmsg4)
STAGES_SEE(recvmsg6)
STAGES_SEE(getpeername4)
STAGES_SEE(getpeername6)
STAGES_SEE(bind4)
STAGES_SEE(bind6)

/* What the kernel's own part of a test run costs; never put into a chain. */
PB_TC(stages_empty)
{
	(void)ctx;
	return TC_ACT_UNSPEC;
}
