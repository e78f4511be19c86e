// SPDX-License-Identifier: Apache-2.0
/*
 * Services for packets: from outside of the node to NodePorts, external and load balancer
 * addresses, from pods whose sockets aren't translated, and all their answers.
 *
 * Owns the order (K63): a packet that belongs to a flow goes the flow's way, whatever Services
 * there are; only then is its destination a frontend. Slot `kpr` finds out, slots of other plugins
 * may take a flow over, slot `kpr-nat` begins those that nobody took. The rules are in kpr_ns.h,
 * what a flow is in patchbay/conntrack.h.
 *
 * Must never happen here: a packet that is sent on half translated, an entry without its other
 * half, a translated packet of a pod that its policy doesn't see.
 */
#define PB_MISSED PB_FUNCTION
#include <patchbay/bpf.h>

#include "kpr_ns.h"

/* ---- ways out ---- */

/* The sender is told if he may be; the packet goes no further. */
PB_INLINE int tell(struct __sk_buff *ctx, struct pb_packet *pkt, int where, __u32 mtu)
{
	__u32 reason = kpr_ns_reason(where);

	if (kpr_ns_tell(ctx, pkt, where, mtu) == 0)
		return pb_reply_send(ctx, pkt, reason);
	return pb_drop(ctx, reason);
}

/* In slot `kpr`: the slots `kpr-nat` have all that is needed for it, once for each hook. */
PB_INLINE int tell_later(struct __sk_buff *ctx, struct pb_svc_flow *flow, int where, __u32 mtu)
{
	flow->id = where;
	flow->backend = mtu;
	flow->state = PB_SVC_FLOW_TELL;
	return pb_next(ctx);
}

/* Translated by `to`, on the way that pb_forward_route() found. */
PB_INLINE int send_to(struct __sk_buff *ctx, struct pb_packet *pkt, const struct pb_ct *to,
		      int where, const struct bpf_fib_lookup *route)
{
	if (pb_nat_translate(ctx, pkt, to, pb_forward_hop(where)) < 0)
		return pb_drop(ctx, PB_REASON_WRITE_ERROR);
	return pb_forward_send(ctx, pkt, where, route);
}

/* In slot `kpr`. */
PB_INLINE int send(struct __sk_buff *ctx, struct pb_packet *pkt, const struct pb_ct *to,
		   struct pb_svc_flow *flow)
{
	struct bpf_fib_lookup route;
	int where = pb_forward_route(ctx, pkt, to, &route);

	if (where > PB_FORWARD_NEIGH)
		return tell_later(ctx, flow, where, route.mtu_result);
	return send_to(ctx, pkt, to, where, &route);
}

/* Translated by `to`, on the way it is on already. */
PB_INLINE int let_go(struct __sk_buff *ctx, struct pb_packet *pkt, const struct pb_ct *to)
{
	if (pb_nat_translate(ctx, pkt, to, 0) < 0)
		return pb_drop(ctx, PB_REASON_WRITE_ERROR);
	ctx->mark |= PB_MARK_TRANSLATED;
	return pb_next(ctx);
}

/*
 * What a pod began goes on through the chain, whose policy shall see where it really goes, and
 * then the stack forwards it. It knows no way for a packet from the pod to itself.
 */
PB_INLINE int send_pods(struct __sk_buff *ctx, struct pb_packet *pkt, const struct pb_ct *to,
			struct pb_svc_flow *flow)
{
	if ((to->flags & (PB_CT_POD | PB_CT_REPLY | PB_CT_HAIRPIN)) == PB_CT_POD)
		return let_go(ctx, pkt, to);
	return send(ctx, pkt, to, flow);
}

/* `value`: KPR_NS_VERDICT(). */
PB_INLINE int leave(struct __sk_buff *ctx, struct pb_svc_flow *flow, int value)
{
	switch (KPR_NS_VERDICT_OF(value)) {
	case KPR_NS_DROP:
		return pb_drop(ctx, KPR_NS_REASON_OF(value));
	case KPR_NS_REJECT:
		return tell_later(ctx, flow, PB_FORWARD_STACK, 0);
	}
	return pb_next(ctx);
}

PB_INLINE int pass_error(struct __sk_buff *ctx, struct pb_packet *pkt, int stays)
{
	struct bpf_fib_lookup route = {0};
	int where = kpr_ns_error(ctx, pkt, stays, &route);

	if (where == -1)
		return pb_next(ctx);
	if (where < 0)
		return pb_drop(ctx, PB_REASON_WRITE_ERROR);
	if (where > PB_FORWARD_NEIGH)
		return pb_drop(ctx, kpr_ns_reason(where));
	return pb_forward_send(ctx, pkt, where, &route);
}

/* ---- dev-ingress ---- */

/* Nothing is done here with packets of flows whose answers don't come by: they go to slot `dsr`. */
PB_INLINE int hand_on(struct __sk_buff *ctx, const struct pb_ct_key *key, const struct pb_ct *ct,
		      struct pb_svc_flow *flow)
{
	flow->flags = 0;
	flow->id = ct->frontend;
	flow->backend = ct->backend;
	__builtin_memset(&flow->frontend, 0, sizeof(flow->frontend));
	pb_ct_copy_addr(&flow->frontend.addr, &key->daddr);
	flow->frontend.port = key->dport;
	flow->frontend.protocol = key->protocol;
	flow->frontend.family = key->family;
	pb_ct_copy_addr(&flow->to.addr, &ct->daddr);
	flow->to.port = ct->dport;
	flow->to.family = key->family;
	flow->to.flags = 0;
	flow->to.pool = ct->pool;
	flow->state = PB_SVC_FLOW_KNOWN;
	return pb_next(ctx);
}

PB_TC(kpr_dev_ingress)
{
	struct pb_packet *pkt = pb_packet();
	struct pb_svc_flow *flow = kpr_ns_flow();
	struct pb_ct_key key;
	struct pb_ct *ct;
	int look;

	if (!pkt || !flow)
		return pb_missed();
	flow->state = PB_SVC_FLOW_NONE;
	if (pb_is_otherhost(ctx))
		return pb_next(ctx);
	look = kpr_ns_look(ctx, pkt);
	if (look == KPR_NS_ICMP)
		return pass_error(ctx, pkt, false);
	/* To an address that only Services have; others' may be for a socket, or a pod's. */
	if (look == KPR_NS_LOST && pb_dst_identity(pkt) == PB_IDENTITY_WORLD)
		return pb_drop(ctx, PB_REASON_FRAG_UNKNOWN);
	if (look != KPR_NS_PORTS)
		return pb_next(ctx);
	pb_ct_key_of(pkt, PB_CT_ZONE_SERVICE, &key);
	ct = kpr_ns_lookup(pkt, &key);
	if (ct) {
		pb_ct_touch(&key, ct, pkt->tcp_flags);
		if (ct->flags & PB_CT_DSR)
			return hand_on(ctx, &key, ct, flow);
		return send(ctx, pkt, ct, flow);
	}
	return leave(ctx, flow, kpr_ns_open_dev(ctx, pkt, &key, flow));
}

PB_TC(kpr_nat_dev_ingress)
{
	struct pb_packet *pkt = pb_packet();
	struct pb_svc_flow *flow = kpr_ns_flow();
	const struct pb_svc_settings *settings = kpr_ns_settings();
	struct pb_ct_key key;
	struct pb_ct to;
	struct bpf_fib_lookup route;
	const struct pb_ct *ct;
	int where, rc;

	if (!pkt || !flow || !settings)
		return pb_missed();
	if (flow->state == PB_SVC_FLOW_NONE)
		return pb_next(ctx);
	where = flow->id;
	route.mtu_result = flow->backend;
	if (flow->state == PB_SVC_FLOW_TELL)
		goto refused;
	pb_ct_key_of(pkt, PB_CT_ZONE_SERVICE, &key);
	if (flow->state == PB_SVC_FLOW_KNOWN)
		goto known;
	kpr_ns_target(pkt, flow, &to);
	if (!kpr_ns_source_dev(pkt, settings, &to))
		return pb_drop(ctx, PB_REASON_NAT_NO_PORT);
	if (!pb_nat_can(pkt, &to))
		return pb_drop(ctx, PB_REASON_NAT_PROTOCOL);
	where = pb_forward_route(ctx, pkt, &to, &route);
	if (where > PB_FORWARD_NEIGH)
		goto refused;
	rc = pb_nat_claim(ctx, &key, &to, pkt->tcp_flags, settings->snat_min, settings->snat_max);
	if (rc == -PB_EALREADY)
		goto known;
	if (rc < 0)
		return pb_drop(ctx, kpr_ns_claim_reason(rc));
	return send_to(ctx, pkt, &to, where, &route);
known:
	ct = pb_ct_lookup(&key);
	if (!ct)
		return pb_drop(ctx, PB_REASON_UNKNOWN_FLOW);
	where = pb_forward_route(ctx, pkt, ct, &route);
	if (where <= PB_FORWARD_NEIGH)
		return send_to(ctx, pkt, ct, where, &route);
refused:
	return tell(ctx, pkt, where, route.mtu_result);
}

/* ---- pod-egress ---- */

PB_TC(kpr_pod_egress)
{
	struct pb_packet *pkt = pb_packet();
	struct pb_svc_flow *flow = kpr_ns_flow();
	struct pb_ct_key key;
	struct pb_ct *ct;
	int look;

	if (!pkt || !flow)
		return pb_missed();
	flow->state = PB_SVC_FLOW_NONE;
	look = kpr_ns_look(ctx, pkt);
	if (look == KPR_NS_ICMP)
		return pass_error(ctx, pkt, false);
	if (look != KPR_NS_PORTS)
		return pb_next(ctx);
	pb_ct_key_of(pkt, PB_CT_ZONE_SERVICE, &key);
	ct = kpr_ns_lookup(pkt, &key);
	if (ct) {
		pb_ct_touch(&key, ct, pkt->tcp_flags);
		return send_pods(ctx, pkt, ct, flow);
	}
	return leave(ctx, flow, kpr_ns_open_pod(pkt, flow));
}

PB_TC(kpr_nat_pod_egress)
{
	struct pb_packet *pkt = pb_packet();
	struct pb_svc_flow *flow = kpr_ns_flow();
	const struct pb_svc_settings *settings = kpr_ns_settings();
	struct bpf_fib_lookup route;
	struct pb_ct_key key;
	struct pb_ct *ct;
	struct pb_ct to;
	int where, rc;

	if (!pkt || !flow || !settings)
		return pb_missed();
	if (flow->state == PB_SVC_FLOW_NONE)
		return pb_next(ctx);
	if (flow->state == PB_SVC_FLOW_TELL)
		return tell(ctx, pkt, flow->id, flow->backend);
	pb_ct_key_of(pkt, PB_CT_ZONE_SERVICE, &key);
	kpr_ns_target(pkt, flow, &to);
	if (!kpr_ns_source_pod(pkt, settings, &to))
		return pb_drop(ctx, PB_REASON_NAT_NO_PORT);
	if (!pb_nat_can(pkt, &to))
		return pb_drop(ctx, PB_REASON_NAT_PROTOCOL);
	rc = pb_nat_claim(ctx, &key, &to, pkt->tcp_flags, settings->snat_min, settings->snat_max);
	if (rc < 0 && rc != -PB_EALREADY)
		return pb_drop(ctx, kpr_ns_claim_reason(rc));
	ct = pb_ct_lookup(&key);
	if (!ct)
		return pb_drop(ctx, PB_REASON_UNKNOWN_FLOW);
	if (!(ct->flags & PB_CT_HAIRPIN))
		return let_go(ctx, pkt, ct);
	where = pb_forward_route(ctx, pkt, ct, &route);
	if (where > PB_FORWARD_NEIGH)
		return pb_drop(ctx, kpr_ns_reason(where));
	return send_to(ctx, pkt, ct, where, &route);
}

/* ---- pod-ingress ---- */

/* An answer that came by no other hook: its backend has the network of this node. */
PB_TC(kpr_pod_ingress)
{
	struct pb_packet *pkt = pb_packet();
	struct pb_ct_key key;
	struct pb_ct *ct;
	int look;

	if (!pkt)
		return pb_missed();
	look = kpr_ns_look(ctx, pkt);
	if (look == KPR_NS_ICMP)
		return pass_error(ctx, pkt, true);
	if (look != KPR_NS_PORTS)
		return pb_next(ctx);
	pb_ct_key_of(pkt, PB_CT_ZONE_SERVICE, &key);
	ct = pb_ct_lookup(&key);
	if (!ct || (ct->flags & (PB_CT_REPLY | PB_CT_POD)) != (PB_CT_REPLY | PB_CT_POD))
		return pb_next(ctx);
	pb_ct_touch(&key, ct, pkt->tcp_flags);
	return let_go(ctx, pkt, ct);
}

/* ---- dev-egress ---- */

/* A tuple that answers to a translated flow would come back with: the flow had it first. */
PB_INLINE bool collides(const struct pb_ct_key *key)
{
	struct pb_ct_key back;
	const struct pb_ct *ct;

	pb_ct_copy_addr(&back.saddr, &key->daddr);
	pb_ct_copy_addr(&back.daddr, &key->saddr);
	back.sport = key->dport;
	back.dport = key->sport;
	back.protocol = key->protocol;
	back.family = key->family;
	back.zone = key->zone;
	back.reserved = 0;
	ct = pb_ct_lookup(&back);
	return ct && ct->flags & PB_CT_SNAT && !pb_ct_expired(&back, ct);
}

/* Only such packets can meet a translated flow's port. */
PB_INLINE bool may_collide(const struct pb_packet *pkt, const struct pb_svc_settings *settings)
{
	__u16 port = bpf_ntohs(pkt->sport);
	union pb_addr node;

	if (port < settings->snat_min || port > settings->snat_max ||
	    (pkt->protocol == IPPROTO_TCP && !pb_ct_is_syn(pkt)))
		return false;
	return kpr_ns_node_source(pkt, settings, &node) && pb_ct_same_addr(&node, &pkt->saddr);
}

/* A connection of this node gets another port for the way. */
PB_INLINE int move_port(struct __sk_buff *ctx, struct pb_packet *pkt, const struct pb_ct_key *key,
			const struct pb_svc_settings *settings)
{
	struct pb_ct to = {.flags = PB_CT_HOST, .sport = key->sport, .dport = key->dport};
	const struct pb_ct *ct;
	int rc;

	pb_ct_copy_addr(&to.saddr, &key->saddr);
	pb_ct_copy_addr(&to.daddr, &key->daddr);
	if (!pb_nat_can(pkt, &to) || pkt->protocol == IPPROTO_SCTP)
		return pb_drop(ctx, PB_REASON_NAT_PROTOCOL);
	rc = pb_nat_claim(ctx, key, &to, pkt->tcp_flags, settings->snat_min, settings->snat_max);
	if (rc == 0)
		return let_go(ctx, pkt, &to);
	if (rc != -PB_EALREADY)
		return pb_drop(ctx, kpr_ns_claim_reason(rc));
	ct = pb_ct_lookup(key);
	return ct ? let_go(ctx, pkt, ct) : pb_drop(ctx, PB_REASON_UNKNOWN_FLOW);
}

/* What sockets of this node send: forwarded packets were looked at where they came in. */
PB_TC(kpr_dev_egress)
{
	struct pb_packet *pkt = pb_packet();
	const struct pb_svc_settings *settings = kpr_ns_settings();
	struct pb_ct_key key;
	struct pb_ct *ct;
	int look;

	if (!pkt || !settings)
		return pb_missed();
	if (ctx->ingress_ifindex)
		return pb_next(ctx);
	look = kpr_ns_look(ctx, pkt);
	if (look == KPR_NS_ICMP)
		return pass_error(ctx, pkt, true);
	if (look != KPR_NS_PORTS)
		return pb_next(ctx);
	pb_ct_key_of(pkt, PB_CT_ZONE_SERVICE, &key);
	ct = kpr_ns_lookup(pkt, &key);
	if (ct && ct->flags & (PB_CT_REPLY | PB_CT_HOST)) {
		pb_ct_touch(&key, ct, pkt->tcp_flags);
		return let_go(ctx, pkt, ct);
	}
	if (!ct && may_collide(pkt, settings) && collides(&key))
		return move_port(ctx, pkt, &key, settings);
	return pb_next(ctx);
}
