/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which frontend a process or pod of this node means by an address.
 *
 * Owns the rules of docs/behaviour/kpr.md for addresses that are the node's and not a Service's
 * own: NodePorts and HostPorts at any address of a node, external addresses only where they are
 * this node's. An address of somebody else is never taken away from its owner.
 *
 *	kpr_caller_of()		who calls, and whether sockets like this one are translated
 *	kpr_resolve()		the entry behind an address
 *	kpr_bind_taken()	whether a frontend answers where a socket wants to listen
 */
#ifndef KPR_RESOLVE_H
#define KPR_RESOLVE_H

#include <stdbool.h>

#include "kpr_select.h"

struct kpr_caller {
	const struct pb_svc_settings *settings;
	void *ctx;
};

/* An entry and the key under which it stands. */
struct kpr_resolved {
	struct pb_svc_key key;
	const struct pb_svc *svc;
	bool anywhere; /* the key's address is zero: a port at any address of a node */
};

/* It is in the agent's own network namespace. Asked only where it matters. */
PB_INLINE bool kpr_is_host(const struct kpr_caller *who)
{
	__u64 host = who->settings->host_netns;

	return host && host == bpf_get_netns_cookie(who->ctx);
}

/* False: sockets of this namespace aren't translated, or nothing is set up yet. */
PB_INLINE bool kpr_caller_of(void *ctx, struct kpr_caller *ret_caller)
{
	__u32 zero = 0;
	const struct pb_svc_settings *s = bpf_map_lookup_elem(&kpr_settings, &zero);

	if (!s)
		return false;
	ret_caller->settings = s;
	ret_caller->ctx = ctx;
	return !(s->flags & PB_SVC_SET_HOST_SOCKETS_ONLY) || kpr_is_host(ret_caller);
}

/*
 * 127.0.0.0/8, also in IPv6 dress, and 0.0.0.0, which the kernel takes for it. ::1 is none: no
 * kube-proxy serves NodePorts there.
 */
PB_INLINE bool kpr_is_loopback(const struct pb_svc_key *key)
{
	return key->family == 4 &&
	       ((key->addr.v4 & bpf_htonl(0xff000000)) == bpf_htonl(0x7f000000) || !key->addr.v4);
}

PB_INLINE bool kpr_is_loopback6(const struct pb_svc_key *key)
{
	return key->family == 6 && !(key->addr.v6[0] | key->addr.v6[1] | key->addr.v6[2]) &&
	       key->addr.v6[3] == bpf_htonl(1);
}

PB_INLINE bool kpr_is_unspecified(const struct pb_svc_key *key)
{
	return !(key->addr.v6[0] | key->addr.v6[1] | key->addr.v6[2] | key->addr.v6[3]);
}

PB_INLINE __u32 kpr_identity(const struct pb_svc_key *key)
{
	return key->family == 4 ? pb_identity4(key->addr.v4) : pb_identity6(&key->addr);
}

/* An address of this node, as the caller sees it: a pod's loopback is its own. */
PB_INLINE bool kpr_is_own(const struct kpr_caller *who, const struct pb_svc_key *key)
{
	if (kpr_is_loopback(key))
		return kpr_is_host(who);
	return !kpr_is_loopback6(key) && kpr_identity(key) == PB_IDENTITY_HOST;
}

PB_INLINE bool kpr_is_node(const struct kpr_caller *who, const struct pb_svc_key *key)
{
	__u32 identity;

	if (kpr_is_loopback(key))
		return kpr_is_host(who);
	if (kpr_is_loopback6(key))
		return false;
	identity = kpr_identity(key);
	return identity == PB_IDENTITY_HOST || identity == PB_IDENTITY_REMOTE_NODE;
}

PB_INLINE bool kpr_in_node_ports(const struct pb_svc_settings *s, __be16 port)
{
	__u16 number = bpf_ntohs(port);

	return number >= s->node_port_min && number <= s->node_port_max;
}

/*
 * An external address that a user wrote down may be anybody's, so it is honoured only where it is
 * this node's; what the control plane assigned (ClusterIP, LoadBalancer) is honoured anywhere. The
 * key of a port at any address is what a caller means by it only where loopback has that port.
 */
PB_INLINE bool kpr_honoured(const struct kpr_caller *who, const struct pb_svc_key *key, __u32 flags)
{
	__u32 kind = PB_SVC_KIND(flags);

	if (kpr_is_unspecified(key))
		return key->family == 4 && kpr_is_host(who);
	return (kind != PB_SVC_EXTERNAL_IP && kind != PB_SVC_HOST_PORT) || kpr_is_own(who, key);
}

/*
 * The entry for an address and port, NULL: none. The ipcache is asked only when there is an entry
 * that depends on it: most calls name no Service and must not pay for it.
 */
PB_INLINE const struct pb_svc *kpr_resolve(const struct kpr_caller *who,
					   const struct pb_svc_key *asked, struct kpr_resolved *ret)
{
	__u32 kind;

	ret->key = *asked;
	ret->anywhere = false;
	ret->svc = bpf_map_lookup_elem(&kpr_services, &ret->key);
	if (ret->svc && kpr_honoured(who, asked, KPR_ONCE(ret->svc->flags)))
		return ret->svc;
	if (kpr_is_unspecified(asked))
		return NULL;
	__builtin_memset(&ret->key.addr, 0, sizeof(ret->key.addr));
	ret->anywhere = true;
	ret->svc = bpf_map_lookup_elem(&kpr_services, &ret->key);
	if (!ret->svc)
		return NULL;
	kind = PB_SVC_KIND(KPR_ONCE(ret->svc->flags));
	if (kpr_in_node_ports(who->settings, asked->port))
		return kind == PB_SVC_NODE_PORT && kpr_is_node(who, asked) ? ret->svc : NULL;
	return kind == PB_SVC_HOST_PORT && kpr_is_own(who, asked) ? ret->svc : NULL;
}

/* ---- bind ---- */

/* Of the kinds for which kube-proxy would hold a socket of its own. */
PB_INLINE bool kpr_taken(const struct pb_svc_key *key)
{
	const struct pb_svc *svc = bpf_map_lookup_elem(&kpr_services, key);
	__u32 kind = svc ? PB_SVC_KIND(KPR_ONCE(svc->flags)) : 0;

	return kind == PB_SVC_NODE_PORT || kind == PB_SVC_EXTERNAL_IP ||
	       kind == PB_SVC_LOAD_BALANCER;
}

/* At every address of this node of one family, or at the one by which it is known. */
PB_INLINE bool kpr_taken_anywhere(const struct pb_svc_settings *s, __be16 port, __u8 protocol,
				  __u8 family)
{
	struct pb_svc_key key = {.port = port, .protocol = protocol, .family = family};

	if (kpr_taken(&key))
		return true;
	if (family == 4) {
		key.addr.v4 = s->node4;
	} else {
		key.addr.v6[0] = s->node6[0];
		key.addr.v6[1] = s->node6[1];
		key.addr.v6[2] = s->node6[2];
		key.addr.v6[3] = s->node6[3];
	}
	return !kpr_is_unspecified(&key) && kpr_taken(&key);
}

/*
 * Only for callers in the host's namespace: a pod's ports are its own. [::] takes IPv4, too;
 * whether a socket keeps to IPv6 can't be seen here, so it is refused with either.
 */
PB_INLINE bool kpr_bind_taken(const struct kpr_caller *who, const struct pb_svc_key *at)
{
	const struct pb_svc_settings *s = who->settings;
	struct pb_svc_key anywhere = {.port = at->port,
				      .protocol = at->protocol,
				      .family = at->family};

	if (!kpr_is_unspecified(at))
		return kpr_taken(at) || kpr_taken(&anywhere);
	return kpr_taken_anywhere(s, at->port, at->protocol, at->family) ||
	       (at->family == 6 && kpr_taken_anywhere(s, at->port, at->protocol, 4));
}

#endif
