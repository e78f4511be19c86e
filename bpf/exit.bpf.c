/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The exit programs: the last program of every chain, one per program type and attach type.
 *
 * Owns the execution of verdicts. What a chain decided is carried out, counted and, when the
 * agent has thrown the switch, reported here and nowhere else. One exit is loaded per chain, so
 * pb_hook_id and pb_generation are constants of it.
 */
#include <stdbool.h>
#include <pb_core.h>

/* The packet first: drops are rare, the common packet must not pay for them. */
PB_INLINE int exit_drop(struct pb_packet *pkt, struct pb_counters *c)
{
	__u32 zero = 0;
	__u32 key = pb_hook_id * PB_REASON_COUNT + (pkt->reason & (PB_REASON_COUNT - 1));
	__u64 *n = bpf_map_lookup_elem(&pb_drops, &key);
	struct pb_switches *sw = bpf_map_lookup_elem(&pb_switches, &zero);

	pkt->verdict = PB_VERDICT_DROP;
	c->verdicts[PB_VERDICT_DROP]++;
	if (n)
		(*n)++;
	if (sw && sw->observe_drops) {
		struct pb_event_drop *e = pb_event_reserve(PB_EVENT_DROP, sizeof(*e));

		if (e) {
			__builtin_memcpy(&e->packet, pkt, sizeof(e->packet));
			bpf_ringbuf_submit(e, 0);
		}
	}
	return TC_ACT_SHOT;
}

PB_INLINE int exit_redirect(struct pb_packet *pkt, struct pb_counters *c)
{
	__u32 ifindex = pkt->redirect_ifindex;
	const bool ingress = pb_hook_id == PB_HOOK_POD_EGRESS || pb_hook_id == PB_HOOK_DEV_INGRESS;
	int rc = -1;

	switch (pkt->redirect_kind) {
	case PB_REDIRECT_EGRESS:
		rc = bpf_redirect(ifindex, 0);
		break;
	case PB_REDIRECT_INGRESS:
		rc = bpf_redirect(ifindex, BPF_F_INGRESS);
		break;
	case PB_REDIRECT_PEER:
		/* The kernel drops it without a word anywhere but on the ingress side. */
		if (ingress)
			rc = bpf_redirect_peer(ifindex, 0);
		break;
	case PB_REDIRECT_NEIGH:
		rc = bpf_redirect_neigh(ifindex, NULL, 0, 0);
		break;
	}
	if (rc != TC_ACT_REDIRECT) {
		pkt->reason = PB_REASON_INVALID_REDIRECT;
		return exit_drop(pkt, c);
	}
	c->verdicts[PB_VERDICT_REDIRECT]++;
	return rc;
}

PB_TC(pb_exit_tc)
{
	__u32 key = pb_hook_id;
	struct pb_packet *pkt = pb_packet();
	struct pb_counters *c = bpf_map_lookup_elem(&pb_counters, &key);

	(void)ctx;
	if (!pkt || !c)
		return TC_ACT_SHOT;
	pkt->generation = pb_generation;
	if (pkt->verdict == PB_VERDICT_DROP)
		return exit_drop(pkt, c);
	if (pkt->verdict == PB_VERDICT_REDIRECT)
		return exit_redirect(pkt, c);
	c->verdicts[PB_VERDICT_PASS]++;
	return TC_ACT_UNSPEC;
}

PB_INLINE void exit_count(__u32 verdict)
{
	__u32 key = pb_hook_id;
	struct pb_counters *c = bpf_map_lookup_elem(&pb_counters, &key);

	if (c)
		__sync_fetch_and_add(&c->verdicts[verdict], 1);
}

/* The record is of one call: what the next one finds must not pass for its own. */
PB_INLINE void exit_close_record(void)
{
	__u32 key = pb_hook_id;
	struct pb_sock *s;

	if (!pb_observed)
		return;
	s = bpf_map_lookup_elem(&pb_socks, &key);
	if (s)
		s->task = 0;
}

/*
 * Where a call may be refused the verdict is the kernel's own return value, which belongs to the
 * task; a per-CPU record could be another task's by now.
 */
#define EXIT_MAY_DENY(attach_, name_)                                                              \
	PB_SOCK_ADDR(attach_, name_)                                                               \
	{                                                                                          \
		bool denied = bpf_get_retval() < 0;                                                \
                                                                                                   \
		(void)ctx;                                                                         \
		exit_close_record();                                                               \
		exit_count(denied ? PB_VERDICT_DROP : PB_VERDICT_PASS);                            \
		return !denied;                                                                    \
	}

#define EXIT_ALWAYS_ALLOWS(attach_, name_)                                                         \
	PB_SOCK_ADDR(attach_, name_)                                                               \
	{                                                                                          \
		(void)ctx;                                                                         \
		exit_close_record();                                                               \
		exit_count(PB_VERDICT_PASS);                                                       \
		return 1;                                                                          \
	}

EXIT_MAY_DENY(connect4, pb_exit_connect4)
EXIT_MAY_DENY(connect6, pb_exit_connect6)
EXIT_MAY_DENY(sendmsg4, pb_exit_sendmsg4)
EXIT_MAY_DENY(sendmsg6, pb_exit_sendmsg6)
EXIT_MAY_DENY(bind4, pb_exit_bind4)
EXIT_MAY_DENY(bind6, pb_exit_bind6)
EXIT_ALWAYS_ALLOWS(recvmsg4, pb_exit_recvmsg4)
EXIT_ALWAYS_ALLOWS(recvmsg6, pb_exit_recvmsg6)
EXIT_ALWAYS_ALLOWS(getpeername4, pb_exit_getpeername4)
EXIT_ALWAYS_ALLOWS(getpeername6, pb_exit_getpeername6)

SEC("cgroup/sock_release") int pb_exit_sock_release(struct bpf_sock *ctx)
{
	(void)ctx;
	exit_count(PB_VERDICT_PASS);
	return 1;
}
