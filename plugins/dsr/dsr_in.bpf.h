/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend's node: believes or ignores a frontend that came in a packet, and makes the flow's
 * entries in pb_ct.
 *
 * Owns the shape of those entries: that of a connection which the client opened to the frontend
 * right here, with a backend on this node. So kpr translates the answers and ages the entries
 * without knowing of this plugin. The packet itself goes to the backend as it came, but for a
 * client's port that two flows would share.
 *
 * Must never happen: an entry made from a frontend that isn't in kpr's map, or for an address that
 * isn't one of its backends; and an answer in the backend's own name on a flow that had entries.
 */
#ifndef DSR_IN_BPF_H
#define DSR_IN_BPF_H

#include "dsr_encode.bpf.h"
#include "dsr_maps.bpf.h"
#include "dsr_tunnel.bpf.h"

#define DSR_UNTRUSTED -1

/* Of the packet at hand. The way to a new flow's entries needs all of the stack. */
struct dsr_scratch {
	struct dsr_info info;
	union pb_addr outer;
	struct pb_ct to;
};

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dsr_scratch);
} dsr_scratch SEC(".maps");

struct dsr_search {
	const struct pb_ct *to;
	__u8 family;
	__u32 base;
	__u32 pool;
	int found;
	__u32 backend;
	__be16 port;
};

static __attribute__((unused)) long dsr_search_slot(__u32 i, struct dsr_search *s)
{
	__u32 at = s->base + i;
	const struct pb_svc_slot *slot = bpf_map_lookup_elem(&kpr__kpr_slots, &at);
	const struct pb_svc_backend *b;

	if (!slot || slot->pool != s->pool)
		return 0;
	s->backend = slot->backend;
	b = bpf_map_lookup_elem(&kpr__kpr_backends, &s->backend);
	s->found = b && b->pool == s->pool && (b->port == s->to->dport || !s->to->dport) &&
		   b->family == s->family && pb_ct_same_addr(&b->addr, &s->to->daddr);
	if (s->found)
		s->port = b->port;
	return s->found;
}

PB_INLINE const struct pb_svc *dsr_frontend_of(const struct pb_packet *pkt,
					       const struct dsr_info *info, struct pb_svc_key *key)
{
	const struct pb_svc *svc;

	__builtin_memset(key, 0, sizeof(*key));
	pb_ct_copy_addr(&key->addr, &info->addr);
	key->port = info->port;
	key->protocol = pkt->protocol;
	key->family = pkt->family;
	svc = bpf_map_lookup_elem(&kpr__kpr_services, key);
	if (!svc && (dsr_any_address || dsr_node_known(pkt, &info->addr))) {
		__builtin_memset(&key->addr, 0, sizeof(key->addr));
		svc = bpf_map_lookup_elem(&kpr__kpr_services, key);
		if (svc && PB_SVC_KIND(svc->flags) != PB_SVC_NODE_PORT)
			return NULL;
	}
	if (svc && svc->flags & PB_SVC_SPLIT) {
		key->scope = PB_SVC_SCOPE_EXT;
		svc = bpf_map_lookup_elem(&kpr__kpr_services, key);
	}
	return svc;
}

/*
 * A known frontend, and `to` is one of its backends (D36, D37, D38). Without a port in it, the
 * address of one: then the port is filled in.
 */
PB_FUNCTION int dsr_believes(const struct pb_packet *pkt, const struct dsr_info *info,
			     struct pb_ct *to)
{
	struct dsr_search s = {.to = to};
	const struct pb_svc *svc;
	struct pb_svc_key key;
	__u32 count;

	if (!pkt || !info || !to)
		return 0;
	s.family = pkt->family;
	svc = dsr_frontend_of(pkt, info, &key);
	if (!svc || !svc->tie)
		return 0;
	s.base = svc->base;
	s.pool = pb_svc_tie(&key, svc->tie);
	count = svc->count < DSR_POOL_MAX ? svc->count : DSR_POOL_MAX;
	to->frontend = svc->id;
	bpf_loop(count, dsr_search_slot, &s, 0);
	to->backend = s.backend;
	to->pool = s.pool;
	to->dport = s.port;
	return s.found;
}

PB_INLINE bool dsr_goes_to(const struct pb_ct *ct, const struct pb_ct *to)
{
	return !(ct->flags & (PB_CT_REPLY | PB_CT_SINGLE | PB_CT_SNAT)) &&
	       (ct->dport == to->dport || !to->dport) && pb_ct_same_addr(&ct->daddr, &to->daddr);
}

/*
 * The tuple of the answers belongs to another frontend. A flow that has ended makes room, and a
 * datagram's client port may move, because each of them brings its frontend. TCP's later packets
 * don't: they couldn't be told from the other flow's, so that one is left in peace (D19).
 */
PB_INLINE int dsr_make_room(const struct pb_ct_key *key, struct pb_ct *to, __u8 tcp_flags)
{
	struct pb_ct_key back;
	const struct pb_ct *ct;

	pb_ct_key_back(key, to, &back);
	ct = pb_ct_lookup(&back);
	if (!ct || ct->state != PB_CT_CLOSING)
		return -PB_EEXIST;
	pb_ct_delete(&back, ct);
	return pb_ct_create(key, to, tcp_flags);
}

PB_INLINE int dsr_claim(struct __sk_buff *ctx, const struct pb_ct_key *key, struct pb_ct *to,
			__u8 tcp_flags)
{
	__u32 zero = 0;
	const struct pb_svc_settings *set = bpf_map_lookup_elem(&kpr__kpr_settings, &zero);
	__be16 sport = to->sport;
	int rc;

	if (key->protocol == IPPROTO_TCP) {
		rc = pb_ct_create(key, to, tcp_flags);
		return rc == -PB_EEXIST ? dsr_make_room(key, to, tcp_flags) : rc;
	}
	if (!set)
		return -PB_EEXIST;
	rc = pb_nat_claim(ctx, key, to, 0, set->snat_min, set->snat_max);
	if (rc == 0 && to->sport != sport)
		DSR_COUNT(moved);
	return rc;
}

/* A flow that is known goes on; `to` gets its ports. */
PB_INLINE bool dsr_continue(const struct pb_packet *pkt, const struct pb_ct_key *key,
			    __u8 tcp_flags, struct pb_ct *to)
{
	struct pb_ct *ct = pb_ct_lookup(key);

	if (!ct)
		return false;
	if (!dsr_goes_to(ct, to) || pb_ct_is_over(pkt, key, ct))
		return false;
	pb_ct_touch(key, ct, tcp_flags);
	to->sport = ct->sport;
	to->dport = ct->dport;
	return true;
}

/* What stands where the new flow's first half goes has ended, or goes elsewhere. */
PB_INLINE void dsr_clear(const struct pb_ct_key *key)
{
	const struct pb_ct *ct = pb_ct_lookup(key);

	if (ct)
		pb_ct_delete(key, ct);
}

/* 0: there are entries. DSR_UNTRUSTED, or the reason why it is dropped. */
PB_FUNCTION int dsr_learn(struct __sk_buff *ctx, const struct pb_packet *pkt,
			  const struct dsr_info *info, struct pb_ct *to)
{
	struct pb_ct_key key, back;
	__u8 tcp_flags;
	int rc;

	if (!pkt || !info || !to)
		return DSR_UNTRUSTED;
	tcp_flags = pkt->protocol == IPPROTO_TCP ? pkt->tcp_flags : 0;
	pb_ct_key_of(pkt, PB_CT_ZONE_SERVICE, &key);
	pb_ct_copy_addr(&key.daddr, &info->addr);
	key.dport = info->port;
	if (dsr_continue(pkt, &key, tcp_flags, to))
		return 0;
	if (!dsr_believes(pkt, info, to))
		return DSR_UNTRUSTED;
	dsr_clear(&key);
	rc = dsr_claim(ctx, &key, to, tcp_flags);
	if (rc == -PB_ENOSPC)
		return PB_REASON_CT_FULL;
	if (rc < 0 && rc != -PB_EALREADY) {
		DSR_COUNT(conflicts);
		return PB_REASON_NAT_NO_PORT;
	}
	pb_ct_key_back(&key, to, &back);
	dsr_remember(&back, to->frontend);
	return 0;
}

/* The record after `len` bytes of headers went. */
PB_INLINE void dsr_stripped(struct pb_packet *pkt, __u32 len, bool options)
{
	pkt->len -= len;
	if (pkt->l4_off)
		pkt->l4_off -= len;
	if (!options)
		pkt->flags &= ~PB_PKT_OPTIONS;
}

PB_INLINE void dsr_strip_packet(struct __sk_buff *ctx, struct pb_packet *pkt,
				const struct dsr_info *info)
{
	__u32 rest = pkt->l4_off - pkt->l3_off;
	int rc;

	if (!dsr_strip)
		return;
	if (pkt->family == 4) {
		rc = dsr_strip4(ctx, pkt->l3_off);
		if (rc == 0)
			dsr_stripped(pkt, 8, rest > sizeof(struct dsr_head4));
	} else {
		rc = dsr_strip6(ctx, pkt->l3_off, info);
		if (rc == 0)
			dsr_stripped(pkt, 24, rest > 40 + sizeof(struct dsr_opt6));
	}
	if (rc < 0)
		DSR_COUNT(kept);
}

/* `outer`: the backend's address, if it isn't the packet's destination. */
PB_INLINE void dsr_to_begin(const struct pb_packet *pkt, const union pb_addr *outer,
			    struct pb_ct *to)
{
	__builtin_memset(to, 0, sizeof(*to));
	pb_ct_copy_addr(&to->saddr, &pkt->saddr);
	pb_ct_copy_addr(&to->daddr, outer ? outer : &pkt->daddr);
	to->sport = pkt->sport;
	to->dport = outer ? 0 : pkt->dport;
	to->flags = PB_CT_LOCAL | PB_CT_DSR_BACKEND;
	to->ifindex = pkt->ifindex;
}

/* A packet with a frontend in it or around it: 0, DSR_UNTRUSTED, or the reason of its drop. */
PB_FUNCTION int dsr_arrive(struct __sk_buff *ctx, struct pb_packet *pkt, struct dsr_scratch *s,
			   bool at_outer)
{
	const struct dsr_info *info;
	int rc;

	if (!pkt || !s)
		return 0;
	info = &s->info;
	dsr_to_begin(pkt, at_outer ? &s->outer : NULL, &s->to);
	rc = dsr_learn(ctx, pkt, info, &s->to);
	if (rc == DSR_UNTRUSTED) {
		DSR_COUNT(untrusted);
		return rc;
	}
	if (rc)
		return rc;
	DSR_COUNT(arrived);
	if (info->in_header)
		dsr_strip_packet(ctx, pkt, info);
	if ((at_outer || s->to.sport != pkt->sport) && pb_nat_translate(ctx, pkt, &s->to, 0) < 0)
		return PB_REASON_WRITE_ERROR;
	return 0;
}

/* Nothing translates the answers of `back` any more: whether something did. */
PB_INLINE int dsr_forgotten(const struct pb_ct_key *back)
{
	if (!bpf_map_lookup_elem(&dsr_recent, back))
		return 0;
	DSR_COUNT(nat_missing);
	return PB_REASON_UNKNOWN_FLOW;
}

/*
 * A client's TCP packet without a frontend, to what once was a backend; `back` is the tuple of the
 * answers. By a SYN the client now talks to the backend itself (D18), everything else belongs to
 * the flow that is known. 0, or the reason of its drop (D20).
 */
PB_INLINE int dsr_follow(const struct pb_ct_key *back, __u8 tcp_flags, bool opens)
{
	struct pb_ct *ct = pb_ct_lookup(back), *forth;
	struct pb_ct_key key;

	if (ct && !(ct->flags & PB_CT_DSR_BACKEND))
		return 0;
	if (opens) {
		if (ct)
			pb_ct_delete(back, ct);
		bpf_map_delete_elem(&dsr_recent, back);
		return 0;
	}
	if (!ct)
		return dsr_forgotten(back);
	pb_ct_key_back(back, ct, &key);
	forth = pb_ct_lookup(&key);
	if (forth)
		pb_ct_touch(&key, forth, tcp_flags);
	return 0;
}

#endif
