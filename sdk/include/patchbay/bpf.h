/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernel side of the SDK: include it once, first, in a plugin's BPF source.
 *
 * Owns the ways in which a program may leave a chain. A program ends in exactly one of
 * pb_next(), pb_pass(), pb_drop(), pb_redirect() (tc) or pb_next(), pb_allow(), pb_deny()
 * (sockets), and returns what that call returns. It never returns a TC_ACT_* or a 0/1 of its
 * own, never keeps state in global variables (maps outlive a generation, globals do not), and
 * never includes vmlinux.h, which would make every load parse the kernel's BTF.
 *
 * Every program is loaded once per generation with its own place written into .rodata; the
 * verifier then sees constants and the JIT emits direct jumps.
 */
#ifndef PATCHBAY_BPF_H
#define PATCHBAY_BPF_H

#include <stdbool.h>
#include <linux/bpf.h>
#include <linux/if_packet.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>
#include <patchbay/abi.h>

/* Written by the core before each load. Plugins never touch them. */
const volatile __u32 pb_slot_next;  /* the slot after this program's */
const volatile __u32 pb_slot_exit;  /* the first observer, else the core's exit */
const volatile __u32 pb_hook_id;    /* enum pb_hook this load is for */
const volatile __u32 pb_observed;   /* 1 when the chain has an observer */
const volatile __u32 pb_generation; /* number of the chain generation */

/* The chain's private program array; the core hands in the one of the generation. */
struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 32);
	__type(key, __u32);
	__type(value, __u32);
} pb_chain SEC(".maps");

/* struct pb_packet by tc hook. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PB_HOOK_TC_COUNT);
	__type(key, __u32);
	__type(value, struct pb_packet);
} pb_packets SEC(".maps");

/* struct pb_sock by hook. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PB_HOOK_COUNT);
	__type(key, __u32);
	__type(value, struct pb_sock);
} pb_socks SEC(".maps");

/* struct pb_counters by hook. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PB_HOOK_COUNT);
	__type(key, __u32);
	__type(value, struct pb_counters);
} pb_counters SEC(".maps");

/* Drops and refusals: hook * PB_REASON_COUNT + reason. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PB_HOOK_COUNT *PB_REASON_COUNT);
	__type(key, __u32);
	__type(value, __u64);
} pb_drops SEC(".maps");

/* Local endpoints by the ifindex of their veth's host side. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u32);
	__type(value, struct pb_endpoint);
} pb_endpoints SEC(".maps");

/*
 * The ipcache: who has an address, the longest prefix first. Written by the agent only; look in it
 * by pb_identity4() and pb_identity6().
 */
#define PB_IPCACHE_MAX 524288

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, PB_IPCACHE_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct pb_ipcache_key4);
	__type(value, struct pb_ipcache_value);
} pb_ipcache4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(max_entries, PB_IPCACHE_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct pb_ipcache_key6);
	__type(value, struct pb_ipcache_value);
} pb_ipcache6 SEC(".maps");

/* The event ring that the agent reads. */
struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
} pb_events SEC(".maps");

#define PB_INLINE static __attribute__((always_inline)) inline

/*
 * A function of its own, which the verifier looks at once, whoever calls it from wherever: what is
 * rare or large. It can't know that its pointers are none of NULL.
 */
#define PB_FUNCTION __attribute__((noinline, weak))

/* Opens a tc program: PB_TC(name) { ... } has `struct __sk_buff *ctx`. */
#define PB_TC(name) SEC("tc") int name(struct __sk_buff *ctx)

/* Opens a socket program: PB_SOCK_ADDR(connect4, name) { ... } has `struct bpf_sock_addr *ctx`. */
#define PB_SOCK_ADDR(attach, name) SEC("cgroup/" #attach) int name(struct bpf_sock_addr *ctx)

/*
 * Tail-calls the slot that a .rodata constant names. The load of the constant is part of the
 * statement so that the compiler can't merge two exits into one with a variable index, which
 * would turn the direct jump into an indirect one.
 */
#define PB_TAIL_CALL(ctx_, slot_)                                                                  \
	asm volatile("r3 = %[slot] ll\n\t"                                                         \
		     "r3 = *(u32 *)(r3 + 0)\n\t"                                                   \
		     "r1 = %[ctx]\n\t"                                                             \
		     "r2 = %[chain] ll\n\t"                                                        \
		     "call 12"                                                                     \
		     :                                                                             \
		     : [ctx] "r"(ctx_), [chain] "i"(&pb_chain), [slot] "i"(&slot_)                 \
		     : "r0", "r1", "r2", "r3", "r4", "r5", "memory")

/* The packet's record. NULL never happens at run time, but the verifier wants the check. */
PB_INLINE struct pb_packet *pb_packet(void)
{
	__u32 key = pb_hook_id;

	return bpf_map_lookup_elem(&pb_packets, &key);
}

/*
 * The frame is addressed to somebody else: the device shows it only because it is promiscuous or a
 * port of a bridge. The stack will drop it; a program that sends packets on must leave it alone.
 */
PB_INLINE bool pb_is_otherhost(const struct __sk_buff *ctx)
{
	return ctx->pkt_type == PACKET_OTHERHOST;
}

/*
 * An object whose programs call functions anyway may define PB_MISSED as PB_FUNCTION before it
 * includes this: every way out of a program then has a call in place of the code, and the program
 * loads faster. A program without functions would pay for it with each tail call.
 */
#ifndef PB_MISSED
#define PB_MISSED PB_INLINE
#endif

/*
 * Reached only through a hole in the chain. Counts it and fails closed; the two kinds of hook
 * that the kernel forbids to refuse (recvmsg, getpeername) and sock-release go on.
 */
PB_MISSED int pb_missed(void)
{
	__u32 key = pb_hook_id;
	__u32 drop = pb_hook_id * PB_REASON_COUNT + PB_REASON_MISSED_TAIL_CALL;
	struct pb_counters *c = bpf_map_lookup_elem(&pb_counters, &key);
	__u64 *n = bpf_map_lookup_elem(&pb_drops, &drop);

	if (c)
		c->missed++;
	if (n)
		(*n)++;
	if (pb_hook_id < PB_HOOK_TC_COUNT)
		return TC_ACT_SHOT;
	return (pb_hook_id >= PB_HOOK_RECVMSG4 && pb_hook_id <= PB_HOOK_GETPEERNAME6) ||
	       pb_hook_id == PB_HOOK_SOCK_RELEASE;
}

/* Goes on to the next program of the chain. Every observer ends with it. */
PB_INLINE int pb_next(void *ctx)
{
	PB_TAIL_CALL(ctx, pb_slot_next);
	return pb_missed();
}

/* Ends the chain: the packet goes on its way. Programs behind this one don't see it. */
PB_INLINE int pb_pass(struct __sk_buff *ctx)
{
	PB_TAIL_CALL(ctx, pb_slot_exit);
	return pb_missed();
}

/* Ends the chain: the packet is dropped and counted under `reason` (enum pb_reason). */
PB_INLINE int pb_drop(struct __sk_buff *ctx, __u32 reason)
{
	struct pb_packet *pkt = pb_packet();

	if (pkt) {
		pkt->verdict = PB_VERDICT_DROP;
		pkt->reason = reason;
	}
	PB_TAIL_CALL(ctx, pb_slot_exit);
	return pb_missed();
}

/* Ends the chain: exit redirects the packet to `ifindex` in the manner of `kind`. */
PB_INLINE int pb_redirect(struct __sk_buff *ctx, __u32 kind, __u32 ifindex)
{
	struct pb_packet *pkt = pb_packet();

	if (pkt) {
		pkt->verdict = PB_VERDICT_REDIRECT;
		pkt->redirect_kind = kind;
		pkt->redirect_ifindex = ifindex;
	}
	PB_TAIL_CALL(ctx, pb_slot_exit);
	return pb_missed();
}

/*
 * Keeps the tuple before its first translation. Call it before the first change of a header. The
 * identities are forgotten: those of the new addresses may be others.
 */
PB_INLINE void pb_packet_keep_orig(struct pb_packet *pkt)
{
	pkt->src_identity = PB_IDENTITY_UNKNOWN;
	pkt->dst_identity = PB_IDENTITY_UNKNOWN;
	if (pkt->flags & PB_PKT_TRANSLATED)
		return;
	pkt->orig_saddr = pkt->saddr;
	pkt->orig_daddr = pkt->daddr;
	pkt->orig_sport = pkt->sport;
	pkt->orig_dport = pkt->dport;
	pkt->flags |= PB_PKT_TRANSLATED;
}

/* The local endpoint behind this hook's device, NULL on node devices. Costs a hash lookup. */
PB_INLINE struct pb_endpoint *pb_endpoint(struct pb_packet *pkt)
{
	__u32 key = pkt->ifindex;
	struct pb_endpoint *ep = bpf_map_lookup_elem(&pb_endpoints, &key);

	if (ep)
		pkt->endpoint = ep->id;
	return ep;
}

/*
 * The identity of an IPv4 address (network byte order): that of the longest prefix in the ipcache,
 * PB_IDENTITY_WORLD when none covers it. Costs an LPM lookup. Any hook.
 */
PB_INLINE __u32 pb_identity4(__be32 addr)
{
	const struct pb_ipcache_key4 key = {.bits = 32, .addr = addr};
	const struct pb_ipcache_value *value = bpf_map_lookup_elem(&pb_ipcache4, &key);

	return value ? value->identity : PB_IDENTITY_WORLD;
}

/* The same for an IPv6 address: addr->v6. */
PB_INLINE __u32 pb_identity6(const union pb_addr *addr)
{
	struct pb_ipcache_key6 key = {.bits = 128};
	const struct pb_ipcache_value *value;

	key.addr[0] = addr->v6[0];
	key.addr[1] = addr->v6[1];
	key.addr[2] = addr->v6[2];
	key.addr[3] = addr->v6[3];
	value = bpf_map_lookup_elem(&pb_ipcache6, &key);
	return value ? value->identity : PB_IDENTITY_WORLD;
}

/* By address alone; PB_IDENTITY_UNKNOWN when the packet is not IP. */
PB_INLINE __u32 pb_addr_identity(const struct pb_packet *pkt, const union pb_addr *addr)
{
	if (pkt->family == 4)
		return pb_identity4(addr->v4);
	return pkt->family == 6 ? pb_identity6(addr) : PB_IDENTITY_UNKNOWN;
}

/* The endpoint's own; one whose identity isn't known yet must not pass for anybody. */
PB_INLINE __u32 pb_own_identity(struct pb_packet *pkt)
{
	const struct pb_endpoint *ep = pb_endpoint(pkt);

	return ep && ep->identity ? ep->identity : PB_IDENTITY_INIT;
}

/*
 * Who sends the packet. Looked up once, then kept in the record: pkt->src_identity. On pod-egress
 * it is the pod behind the device, whatever source address it writes into its packets; elsewhere
 * what the ipcache says of the source address, as the headers are now. A program that changes an
 * address without pb_packet_keep_orig() must set both identities of the record to 0. tc hooks.
 */
PB_INLINE __u32 pb_src_identity(struct pb_packet *pkt)
{
	if (!pkt->src_identity)
		pkt->src_identity = pb_hook_id == PB_HOOK_POD_EGRESS
					    ? pb_own_identity(pkt)
					    : pb_addr_identity(pkt, &pkt->saddr);
	return pkt->src_identity;
}

/* Whom the packet is for, in the same way; on pod-ingress the pod behind the device. */
PB_INLINE __u32 pb_dst_identity(struct pb_packet *pkt)
{
	if (!pkt->dst_identity)
		pkt->dst_identity = pb_hook_id == PB_HOOK_POD_INGRESS
					    ? pb_own_identity(pkt)
					    : pb_addr_identity(pkt, &pkt->daddr);
	return pkt->dst_identity;
}

/* Hooks where the kernel lets a program refuse, and knows bpf_get_retval(). */
PB_INLINE int pb_sock_may_deny(void)
{
	return pb_hook_id <= PB_HOOK_SENDMSG6 || pb_hook_id == PB_HOOK_BIND4 ||
	       pb_hook_id == PB_HOOK_BIND6;
}

/* The address in the context; ports and addresses in network byte order. */
PB_INLINE void pb_sock_address(struct bpf_sock_addr *ctx, union pb_addr *ret_addr, __be16 *ret_port)
{
	/* IPv4 and IPv6 hooks alternate, and each may read its own family's fields only. */
	if (pb_hook_id & 1) {
		ret_addr->v6[0] = ctx->user_ip6[0];
		ret_addr->v6[1] = ctx->user_ip6[1];
		ret_addr->v6[2] = ctx->user_ip6[2];
		ret_addr->v6[3] = ctx->user_ip6[3];
		/* Or the compiler joins the loads of both branches into one of a variable offset.
		 */
		asm volatile("" ::: "memory");
	} else {
		ret_addr->v4 = ctx->user_ip4;
		ret_addr->v6[1] = 0;
		ret_addr->v6[2] = 0;
		ret_addr->v6[3] = 0;
	}
	*ret_port = ctx->user_port;
}

/* This call's record, started from the context if no program did that before. */
PB_INLINE struct pb_sock *pb_sock_open(struct bpf_sock_addr *ctx)
{
	__u64 task = bpf_get_current_pid_tgid();
	__u32 key = pb_hook_id;
	struct pb_sock *s = bpf_map_lookup_elem(&pb_socks, &key);

	if (!s || s->task == task)
		return s;
	/* First, so that a task that comes between leaves a record that is nobody's. */
	*(volatile __u64 *)&s->task = task;
	s->size = sizeof(*s);
	s->hook = pb_hook_id;
	s->family = pb_hook_id & 1 ? 6 : 4;
	s->protocol = ctx->protocol;
	s->verdict = PB_VERDICT_PASS;
	s->reason = PB_REASON_NONE;
	s->reserved = 0;
	s->cookie = bpf_get_socket_cookie(ctx);
	pb_sock_address(ctx, &s->addr, &s->port);
	s->translated = s->addr;
	s->translated_port = s->port;
	return s;
}

/*
 * Keeps the address before its first translation, for observers; free in a chain without one.
 * Call it before the first change of the address in the context.
 */
PB_INLINE void pb_sock_keep_orig(struct bpf_sock_addr *ctx)
{
	if (pb_observed)
		pb_sock_open(ctx);
}

/*
 * The record of the call for an observer: both addresses, verdict and reason. Copy what you
 * need and then look whether `task` is still bpf_get_current_pid_tgid(); if not, another task
 * took the record and the copy is worthless. Only on sock_addr hooks. NULL never happens at run
 * time, but the verifier wants the check.
 */
PB_INLINE struct pb_sock *pb_sock(struct bpf_sock_addr *ctx)
{
	struct pb_sock *s = pb_sock_open(ctx);

	if (!s)
		return s;
	pb_sock_address(ctx, &s->translated, &s->translated_port);
	if (pb_sock_may_deny() && bpf_get_retval() < 0)
		s->verdict = PB_VERDICT_DROP;
	return s;
}

/* Ends a socket chain: the call goes on with whatever address is in the context now. */
PB_INLINE int pb_allow(void *ctx)
{
	PB_TAIL_CALL(ctx, pb_slot_exit);
	return pb_missed();
}

/*
 * Ends a socket chain: the call fails with `err` (a positive errno). Only on connect, sendmsg
 * and bind: the kernel lets no other socket hook refuse. Needs bpf_set_retval(), Linux 5.18.
 */
PB_INLINE int pb_deny(void *ctx, int err, __u32 reason)
{
	__u32 drop = pb_hook_id * PB_REASON_COUNT + (reason & (PB_REASON_COUNT - 1));
	__u64 *n = bpf_map_lookup_elem(&pb_drops, &drop);

	if (n)
		(*n)++;
	if (pb_observed) {
		struct pb_sock *s = pb_sock_open(ctx);

		if (s)
			s->reason = reason;
	}
	bpf_set_retval(-err);
	PB_TAIL_CALL(ctx, pb_slot_exit);
	return pb_missed();
}

/*
 * A place in the event ring for one event of `len` bytes that starts with struct pb_event; fill
 * the rest and hand it to bpf_ringbuf_submit(event, 0). NULL when the ring is full. `len` must
 * be a constant. BPF_RB_FORCE_WAKEUP must not be used: it costs microseconds an event.
 */
PB_INLINE void *pb_event_reserve(__u16 type, __u64 len)
{
	struct pb_event *e = bpf_ringbuf_reserve(&pb_events, len, 0);

	if (e) {
		e->type = type;
		e->hook = pb_hook_id;
		e->len = len;
		e->time_ns = bpf_ktime_get_ns();
	}
	return e;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";

#endif
