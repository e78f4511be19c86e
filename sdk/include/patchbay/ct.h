/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connection tracking for programs: the core's maps and the only ways to read and write them.
 * Include it after patchbay/bpf.h. The rules for entries are in patchbay/conntrack.h.
 *
 *	pb_ct_now()		seconds of CLOCK_MONOTONIC, the unit of pb_ct.expires
 *	pb_ct_key_of()		the key of a packet, by its record
 *	pb_ct_key_back()	the key of the other half
 *	pb_ct_lookup()		the half that a packet belongs to, or NULL: one hash look-up
 *	pb_ct_expired()		its time is over, and its partner's; the agent hasn't been here yet
 *	pb_ct_is_over()		this packet begins a new flow, although the old one is still there
 *	pb_ct_touch()		a packet of the flow came: state and time. Every packet that goes on
 *				by an entry calls it once
 *	pb_ct_create()		both halves of a flow
 *	pb_ct_create_single()	the one half of a flow whose answers don't come by
 *	pb_ct_delete()		a flow, both halves
 *
 * An established packet costs pb_ct_lookup() alone: the partner is looked up when the state
 * changes, the clock is read and the memory written once in pb_ct_tick(). Pointers from
 *pb_ct_lookup() stay valid until the program ends, but after pb_ct_delete() they say nothing any
 *more.
 */
#ifndef PATCHBAY_CT_H
#define PATCHBAY_CT_H

#include <stdbool.h>
#include <linux/in.h>
#include <linux/in6.h>
#include <patchbay/bpf.h>
#include <patchbay/conntrack.h>

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, PB_CT_MAX);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct pb_ct_key);
	__type(value, struct pb_ct);
} pb_ct SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pb_ct_settings);
} pb_ct_settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pb_ct_stats);
} pb_ct_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, PB_FRAGS_MAX);
	__type(key, struct pb_frag_key);
	__type(value, struct pb_frag);
} pb_frags SEC(".maps");

/* struct pb_packet.tcp_flags and struct pb_ct.seen */
#define PB_TCP_FIN 0x01
#define PB_TCP_SYN 0x02
#define PB_TCP_RST 0x04
#define PB_TCP_ACK 0x10

/* Returned by the functions below, negative. */
#define PB_EEXIST 17	/* the tuple of the answers is another flow's */
#define PB_ENOSPC 28	/* the map is full */
#define PB_EALREADY 114 /* another CPU made this very flow just now: look it up */

/*
 * Without the division, which costs as much as a look-up: two steps by a little less than
 * 2^20/10^9, the second for what the first left over; less than three seconds then remain.
 */
PB_INLINE __u32 pb_ct_seconds(__u64 ns)
{
	__u64 s = ((ns >> 20) * 17592) >> 24;
	__u64 more;

	ns -= s * 1000000000ULL;
	more = ((ns >> 20) * 17592) >> 24;
	ns -= more * 1000000000ULL;
	return (__u32)(s + more + (ns >= 1000000000ULL) + (ns >= 2000000000ULL));
}

PB_INLINE __u32 pb_ct_now(void)
{
	return pb_ct_seconds(bpf_ktime_get_coarse_ns());
}

/*
 * Goes on a few times a second, how often depends on the kernel. Unlike the clock it costs no call:
 * within one nothing of a flow's time is looked at twice.
 */
PB_INLINE __u32 pb_ct_tick(void)
{
	return (__u32)(bpf_jiffies64() >> 6) | 1;
}

/*
 * `len` (a constant) bytes of the frame: in place where they are in its linear part. `off` is one
 * of pb_packet's, with a little added.
 */
#define PB_FRAME_OFF 0x1fff

PB_INLINE long pb_frame_load(struct __sk_buff *ctx, __u32 off, void *ret, const __u32 len)
{
	void *p = (void *)(long)ctx->data + (off & PB_FRAME_OFF);

	if (p + len > (void *)(long)ctx->data_end)
		return bpf_skb_load_bytes(ctx, off, ret, len);
	__builtin_memcpy(ret, p, len);
	return 0;
}

/* Opens a connection: SYN alone. Packets of other protocols never do. */
PB_INLINE bool pb_ct_is_syn(const struct pb_packet *pkt)
{
	return pkt->protocol == IPPROTO_TCP &&
	       (pkt->tcp_flags & (PB_TCP_SYN | PB_TCP_ACK | PB_TCP_RST)) == PB_TCP_SYN;
}

PB_INLINE void pb_ct_copy_addr(union pb_addr *to, const union pb_addr *from)
{
	to->v6[0] = from->v6[0];
	to->v6[1] = from->v6[1];
	to->v6[2] = from->v6[2];
	to->v6[3] = from->v6[3];
}

PB_INLINE bool pb_ct_same_addr(const union pb_addr *a, const union pb_addr *b)
{
	return a->v6[0] == b->v6[0] && a->v6[1] == b->v6[1] && a->v6[2] == b->v6[2] &&
	       a->v6[3] == b->v6[3];
}

/* The packet as its headers are now. `zone`: enum pb_ct_zone. */
PB_INLINE void pb_ct_key_of(const struct pb_packet *pkt, __u8 zone, struct pb_ct_key *ret_key)
{
	pb_ct_copy_addr(&ret_key->saddr, &pkt->saddr);
	pb_ct_copy_addr(&ret_key->daddr, &pkt->daddr);
	ret_key->sport = pkt->sport;
	ret_key->dport = pkt->dport;
	ret_key->protocol = pkt->protocol;
	ret_key->family = pkt->family;
	ret_key->zone = zone;
	ret_key->reserved = 0;
}

/* The answer to what `ct` makes of the packet of `key`. */
PB_INLINE void pb_ct_key_back(const struct pb_ct_key *key, const struct pb_ct *ct,
			      struct pb_ct_key *ret_key)
{
	pb_ct_copy_addr(&ret_key->saddr, &ct->daddr);
	pb_ct_copy_addr(&ret_key->daddr, &ct->saddr);
	ret_key->sport = ct->dport;
	ret_key->dport = ct->sport;
	ret_key->protocol = key->protocol;
	ret_key->family = key->family;
	ret_key->zone = key->zone;
	ret_key->reserved = 0;
}

PB_INLINE struct pb_ct *pb_ct_lookup(const struct pb_ct_key *key)
{
	return bpf_map_lookup_elem(&pb_ct, key);
}

PB_INLINE struct pb_ct_stats *pb_ct_stats_mine(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&pb_ct_stats, &zero);
}

/*
 * When an entry expires that was seen now. Of a flow whose answers don't come by, a FIN is all
 * that is ever seen of its end: the other side may still have much to say, but not for hours.
 */
PB_FUNCTION __u32 pb_ct_expiry(const struct pb_ct *ct, __u32 protocol)
{
	__u32 zero = 0;
	const struct pb_ct_settings *s = bpf_map_lookup_elem(&pb_ct_settings, &zero);
	__u32 now = pb_ct_now();

	if (!ct || !s)
		return now;
	if (protocol != IPPROTO_TCP)
		return now + s->other;
	if (ct->state == PB_CT_CLOSING)
		return now + s->tcp_closing;
	if (ct->state == PB_CT_OPENING || (ct->flags & PB_CT_SINGLE && ct->seen & PB_TCP_FIN))
		return now + s->tcp_opening;
	return now + s->tcp_established;
}

/* Both halves: a flow may have packets in one direction only. */
PB_FUNCTION int pb_ct_expired(const struct pb_ct_key *key, const struct pb_ct *ct)
{
	struct pb_ct_key back;
	const struct pb_ct *other;
	__u32 now = pb_ct_now();

	if (!key || !ct || ct->expires >= now)
		return 0;
	if (ct->flags & PB_CT_SINGLE)
		return 1;
	pb_ct_key_back(key, ct, &back);
	other = pb_ct_lookup(&back);
	return !other || other->expires < now;
}

/*
 * A SYN in the direction of the first packet on a flow that has ended, or a datagram on one that
 * has expired. The caller deletes the flow and goes on as if there had been none.
 */
PB_INLINE bool pb_ct_is_over(const struct pb_packet *pkt, const struct pb_ct_key *key,
			     const struct pb_ct *ct)
{
	if (ct->flags & PB_CT_REPLY)
		return false;
	if (pkt->protocol != IPPROTO_TCP)
		return ct->touched != pb_ct_tick() && pb_ct_expired(key, ct);
	if (!pb_ct_is_syn(pkt))
		return false;
	if (ct->state == PB_CT_CLOSING || (ct->flags & PB_CT_SINGLE && ct->seen & PB_TCP_FIN))
		return true;
	return pb_ct_expired(key, ct);
}

/* The state changed: the partner's changes with it, and its time. */
PB_FUNCTION int pb_ct_advance(const struct pb_ct_key *key, struct pb_ct *ct, __u32 tcp_flags)
{
	struct pb_ct_key back;
	struct pb_ct *other = NULL;
	__u8 state;

	if (!key || !ct)
		return 0;
	state = ct->state;
	if (!(ct->flags & PB_CT_SINGLE)) {
		pb_ct_key_back(key, ct, &back);
		other = pb_ct_lookup(&back);
	}
	ct->seen |= tcp_flags;
	if (tcp_flags & PB_TCP_RST || (ct->seen & PB_TCP_FIN && other && other->seen & PB_TCP_FIN))
		state = PB_CT_CLOSING;
	else if (state == PB_CT_OPENING)
		state = PB_CT_ESTABLISHED;
	if (other && other->state != state) {
		other->state = state;
		other->expires = pb_ct_expiry(other, key->protocol);
	}
	ct->state = state;
	return 0;
}

/* `tcp_flags`: those of the packet, 0 for other protocols. */
PB_INLINE void pb_ct_touch(const struct pb_ct_key *key, struct pb_ct *ct, __u8 tcp_flags)
{
	__u8 answers =
		ct->flags & PB_CT_SINGLE ? !(tcp_flags & PB_TCP_SYN) : ct->flags & PB_CT_REPLY;
	__u8 ends = tcp_flags & (PB_TCP_FIN | PB_TCP_RST) & ~ct->seen;
	__u32 tick = pb_ct_tick();

	if ((ct->state == PB_CT_OPENING && answers) || ends)
		pb_ct_advance(key, ct, tcp_flags);
	else if (ct->touched == tick)
		return;
	ct->touched = tick;
	ct->expires = pb_ct_expiry(ct, key->protocol);
}

PB_FUNCTION int pb_ct_delete(const struct pb_ct_key *key, const struct pb_ct *ct)
{
	struct pb_ct_key back;
	bool single;

	if (!key || !ct)
		return 0;
	single = ct->flags & PB_CT_SINGLE;
	pb_ct_key_back(key, ct, &back);
	bpf_map_delete_elem(&pb_ct, key);
	if (!single)
		bpf_map_delete_elem(&pb_ct, &back);
	return 0;
}

/* Takes a tuple back from a flow that has expired. */
PB_INLINE bool pb_ct_reclaim(const struct pb_ct_key *key)
{
	const struct pb_ct *ct = pb_ct_lookup(key);

	if (!ct || !pb_ct_expired(key, ct))
		return false;
	pb_ct_delete(key, ct);
	return true;
}

/* One half, where nothing stands. */
PB_INLINE int pb_ct_insert(const struct pb_ct_key *key, const struct pb_ct *ct)
{
	long rc = bpf_map_update_elem(&pb_ct, key, ct, BPF_NOEXIST);
	struct pb_ct_stats *stats;

	if (rc == 0 || rc == -PB_EEXIST)
		return (int)rc;
	stats = pb_ct_stats_mine();
	if (stats)
		stats->full++;
	return -PB_ENOSPC;
}

PB_INLINE void pb_ct_begin(struct pb_ct *ct, __u8 protocol, __u32 tcp_flags)
{
	ct->seen = tcp_flags;
	/* One that is taken up in its middle. */
	ct->state = protocol == IPPROTO_TCP && !(tcp_flags & PB_TCP_SYN) ? PB_CT_ESTABLISHED
									 : PB_CT_OPENING;
	ct->expires = pb_ct_expiry(ct, protocol);
}

PB_INLINE void pb_ct_count_created(void)
{
	struct pb_ct_stats *stats = pb_ct_stats_mine();

	if (stats)
		stats->created++;
}

/*
 * Both halves of the flow that begins with the packet of `key` (as it came). `to` says what the
 * packet goes on with, has the flags without PB_CT_REPLY and whatever of frontend, backend, pool,
 * identity, policy and ifindex is known; state, seen and expires are set here.
 *
 * 0, or nothing was made: -PB_EEXIST (take another port), -PB_EALREADY, -PB_ENOSPC (counted in
 * pb_ct_stats.full).
 */
PB_FUNCTION int pb_ct_create(const struct pb_ct_key *key, struct pb_ct *to, __u32 tcp_flags)
{
	struct pb_ct_key back;
	struct pb_ct half;
	int rc;

	if (!key || !to)
		return -PB_ENOSPC;
	pb_ct_begin(to, key->protocol, tcp_flags);
	half = *to;
	pb_ct_copy_addr(&half.saddr, &key->daddr);
	pb_ct_copy_addr(&half.daddr, &key->saddr);
	half.sport = key->dport;
	half.dport = key->sport;
	half.flags |= PB_CT_REPLY;
	half.seen = 0;
	pb_ct_key_back(key, to, &back);
	rc = pb_ct_insert(&back, &half);
	if (rc == -PB_EEXIST && pb_ct_reclaim(&back))
		rc = pb_ct_insert(&back, &half);
	if (rc < 0)
		return rc;
	rc = pb_ct_insert(key, to);
	if (rc < 0) {
		bpf_map_delete_elem(&pb_ct, &back);
		return rc == -PB_EEXIST ? -PB_EALREADY : rc;
	}
	pb_ct_count_created();
	return 0;
}

/* The same without a half for the answers; PB_CT_SINGLE is set here. */
PB_FUNCTION int pb_ct_create_single(const struct pb_ct_key *key, struct pb_ct *to, __u32 tcp_flags)
{
	int rc;

	if (!key || !to)
		return -PB_ENOSPC;
	to->flags |= PB_CT_SINGLE;
	pb_ct_begin(to, key->protocol, tcp_flags);
	rc = pb_ct_insert(key, to);
	if (rc == 0)
		pb_ct_count_created();
	return rc == -PB_EEXIST ? -PB_EALREADY : rc;
}

#endif
