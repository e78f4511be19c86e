// SPDX-License-Identifier: Apache-2.0
/*
 * Socket load balancing: the address that an application names is exchanged for a backend's at
 * connect() and sendmsg(), and the other way round at recvmsg() and getpeername(). bind() to a
 * port of this node that a Service has is refused. No packet is touched.
 *
 * Owns no state but map kpr_reverse. A call that names no frontend passes unchanged.
 */
#include <patchbay/bpf.h>

#include "kpr_resolve.h"

#define AF_INET_PROTO_TCP 6
#define AF_INET_PROTO_UDP 17
#define AF_INET_PROTO_UDPLITE 136
#define AF_INET_PROTO_MPTCP 262

#define ECONNREFUSED 111
#define EADDRINUSE 98
#define ENOMEM 12

#define AF_INET 2
#define AF_INET6 10

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 262144);
	__type(key, struct kpr_reverse_key);
	__type(value, struct kpr_reverse);
} kpr_reverse SEC(".maps");

/* What became of a call, besides enum kpr_outcome. */
#define NO_MEMORY 3
/* How often an entry is looked up that seems to be another frontend's. */
#define RECALLS 3

/* 0 for a protocol that has no Services. SCTP: its sockets choose addresses where no hook is. */
PB_INLINE __u8 service_protocol(__u32 protocol)
{
	switch (protocol) {
	case AF_INET_PROTO_TCP:
	case AF_INET_PROTO_MPTCP:
		return AF_INET_PROTO_TCP;
	case AF_INET_PROTO_UDP:
	case AF_INET_PROTO_UDPLITE:
		return AF_INET_PROTO_UDP;
	}
	return 0;
}

PB_INLINE void key_from_ctx4(const struct bpf_sock_addr *ctx, struct pb_svc_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->addr.v4 = ctx->user_ip4;
	key->port = (__be16)ctx->user_port;
	key->protocol = service_protocol(ctx->protocol);
	key->family = 4;
}

/* An IPv4 address in IPv6 dress is a frontend of family 4. */
PB_INLINE int unmap(struct pb_svc_key *key)
{
	int mapped = key->addr.v6[0] == 0 && key->addr.v6[1] == 0 &&
		     key->addr.v6[2] == bpf_htonl(0xffff);

	if (mapped) {
		key->addr.v4 = key->addr.v6[3];
		key->addr.v6[2] = 0;
		key->addr.v6[3] = 0;
		key->family = 4;
	}
	return mapped;
}

PB_INLINE int key_from_ctx6(const struct bpf_sock_addr *ctx, struct pb_svc_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->addr.v6[0] = ctx->user_ip6[0];
	key->addr.v6[1] = ctx->user_ip6[1];
	key->addr.v6[2] = ctx->user_ip6[2];
	key->addr.v6[3] = ctx->user_ip6[3];
	key->port = (__be16)ctx->user_port;
	key->protocol = service_protocol(ctx->protocol);
	key->family = 6;
	return unmap(key);
}

PB_INLINE bool same_frontend(const struct pb_svc_key *a, const struct pb_svc_key *b)
{
	return a->addr.v6[0] == b->addr.v6[0] && a->addr.v6[1] == b->addr.v6[1] &&
	       a->addr.v6[2] == b->addr.v6[2] && a->addr.v6[3] == b->addr.v6[3] &&
	       a->port == b->port;
}

/* Written only when it says something new: the map is shared by all sockets of the node. */
PB_INLINE long remember(const struct pb_svc_key *asked, bool anywhere, __u64 cookie,
			const struct kpr_choice *choice)
{
	const struct pb_svc_backend *b = &choice->backend;
	struct kpr_reverse_key key = {.cookie = cookie,
				      .addr = b->addr,
				      .port = b->port,
				      .protocol = asked->protocol,
				      .family = b->family};
	struct kpr_reverse value = {.frontend = *asked,
				    .id = choice->id,
				    .flags = anywhere ? KPR_REVERSE_ANYWHERE : 0};

	/* A connection has a socket of its own, so nothing can stand there. */
	if (asked->protocol != AF_INET_PROTO_TCP) {
		struct kpr_reverse *old = bpf_map_lookup_elem(&kpr_reverse, &key);

		if (old && old->id == value.id && same_frontend(&old->frontend, asked))
			return 0;
	}
	return bpf_map_update_elem(&kpr_reverse, &key, &value, BPF_ANY);
}

/*
 * Common part of connect and sendmsg: on KPR_CHOSEN *ret_choice is where the call goes. The
 * datagrams of a socket go to one backend as long as the pool stays the same. A datagram whose
 * answer could not be translated back is refused rather than answered by a stranger; a connection
 * only loses its getpeername().
 */
PB_INLINE int translate(struct bpf_sock_addr *ctx, const struct pb_svc_key *asked,
			struct kpr_choice *ret_choice)
{
	struct kpr_resolved front;
	struct kpr_asker asker = {0};
	struct kpr_caller who;
	__u64 cookie;
	int outcome;

	if (asked->protocol == 0 || asked->port == 0 || !kpr_caller_of(ctx, &who) ||
	    !kpr_resolve(&who, asked, &front))
		return KPR_NOT_OURS;
	cookie = bpf_get_socket_cookie(ctx);
	asker.client.v6[0] = (__u32)who.netns;
	asker.client.v6[1] = (__u32)(who.netns >> 32);
	asker.number = asked->protocol == AF_INET_PROTO_TCP
			       ? bpf_get_prandom_u32()
			       : (__u32)((cookie * 0x9e3779b97f4a7c15ULL) >> 32);
	outcome = kpr_choose(&front.key, front.svc, &asker, ret_choice);
	if (outcome == KPR_CHOSEN && remember(asked, front.anywhere, cookie, ret_choice) < 0 &&
	    asked->protocol != AF_INET_PROTO_TCP)
		outcome = NO_MEMORY;
	return outcome;
}

PB_INLINE int leave(struct bpf_sock_addr *ctx, int outcome)
{
	if (outcome == KPR_NO_BACKEND)
		return pb_deny(ctx, ECONNREFUSED, PB_REASON_NO_SERVICE);
	if (outcome == NO_MEMORY)
		return pb_deny(ctx, ENOMEM, PB_REASON_PLUGIN);
	return pb_next(ctx);
}

PB_INLINE int forward4(struct bpf_sock_addr *ctx)
{
	struct kpr_choice choice = {0};
	const struct pb_svc_backend *b = &choice.backend;
	int outcome;
	struct pb_svc_key key;

	key_from_ctx4(ctx, &key);
	outcome = translate(ctx, &key, &choice);
	if (outcome == KPR_CHOSEN) {
		pb_sock_keep_orig(ctx);
		ctx->user_ip4 = b->addr.v4;
		ctx->user_port = b->port;
	}
	return leave(ctx, outcome);
}

PB_INLINE int forward6(struct bpf_sock_addr *ctx)
{
	struct kpr_choice choice = {0};
	const struct pb_svc_backend *b = &choice.backend;
	int outcome;
	struct pb_svc_key key;
	int mapped = key_from_ctx6(ctx, &key);

	outcome = translate(ctx, &key, &choice);
	if (outcome == KPR_CHOSEN) {
		pb_sock_keep_orig(ctx);
		if (mapped) {
			ctx->user_ip6[3] = b->addr.v4;
		} else {
			ctx->user_ip6[0] = b->addr.v6[0];
			ctx->user_ip6[1] = b->addr.v6[1];
			ctx->user_ip6[2] = b->addr.v6[2];
			ctx->user_ip6[3] = b->addr.v6[3];
		}
		ctx->user_port = b->port;
	}
	return leave(ctx, outcome);
}

/*
 * The frontend that this socket meant when it was sent to the peer in `peer`. An entry whose
 * frontend is gone, or belongs to another Service by now, is deleted.
 */
PB_INLINE int recall(struct bpf_sock_addr *ctx, const struct pb_svc_key *peer,
		     struct pb_svc_key *ret_frontend)
{
	struct kpr_reverse_key key = {.addr = peer->addr,
				      .port = peer->port,
				      .protocol = peer->protocol,
				      .family = peer->family};
	struct pb_svc_key entry;
	struct pb_svc *svc;
	struct kpr_reverse *r;
	__u32 id;

	if (peer->protocol == 0)
		return 0;
	key.cookie = bpf_get_socket_cookie(ctx);
	r = bpf_map_lookup_elem(&kpr_reverse, &key);
	if (!r)
		return 0;
	*ret_frontend = r->frontend;
	entry = r->frontend;
	id = r->id;
	if (r->flags & KPR_REVERSE_ANYWHERE)
		__builtin_memset(&entry.addr, 0, sizeof(entry.addr));
	/* Memory of an entry that is replaced right now may be another's already: look again. */
	for (int i = 0; i < RECALLS; i++) {
		svc = bpf_map_lookup_elem(&kpr_services, &entry);
		if (svc && KPR_ONCE(svc->id) == id)
			return 1;
	}
	bpf_map_delete_elem(&kpr_reverse, &key);
	return 0;
}

PB_INLINE int back4(struct bpf_sock_addr *ctx)
{
	struct pb_svc_key peer, frontend;

	key_from_ctx4(ctx, &peer);
	if (recall(ctx, &peer, &frontend)) {
		pb_sock_keep_orig(ctx);
		ctx->user_ip4 = frontend.addr.v4;
		ctx->user_port = frontend.port;
	}
	return pb_next(ctx);
}

PB_INLINE int back6(struct bpf_sock_addr *ctx)
{
	struct pb_svc_key peer, frontend;
	int mapped = key_from_ctx6(ctx, &peer);

	if (recall(ctx, &peer, &frontend)) {
		pb_sock_keep_orig(ctx);
		if (mapped) {
			ctx->user_ip6[3] = frontend.addr.v4;
		} else {
			ctx->user_ip6[0] = frontend.addr.v6[0];
			ctx->user_ip6[1] = frontend.addr.v6[1];
			ctx->user_ip6[2] = frontend.addr.v6[2];
			ctx->user_ip6[3] = frontend.addr.v6[3];
		}
		ctx->user_port = frontend.port;
	}
	return pb_next(ctx);
}

PB_SOCK_ADDR(connect4, kpr_connect4)
{
	return forward4(ctx);
}

PB_SOCK_ADDR(connect6, kpr_connect6)
{
	return forward6(ctx);
}

PB_SOCK_ADDR(sendmsg4, kpr_sendmsg4)
{
	return forward4(ctx);
}

PB_SOCK_ADDR(sendmsg6, kpr_sendmsg6)
{
	return forward6(ctx);
}

PB_SOCK_ADDR(recvmsg4, kpr_recvmsg4)
{
	return back4(ctx);
}

PB_SOCK_ADDR(recvmsg6, kpr_recvmsg6)
{
	return back6(ctx);
}

PB_SOCK_ADDR(getpeername4, kpr_getpeername4)
{
	return back4(ctx);
}

PB_SOCK_ADDR(getpeername6, kpr_getpeername6)
{
	return back6(ctx);
}

/* ---- bind ---- */

PB_INLINE int bind(struct bpf_sock_addr *ctx, const struct pb_svc_key *at)
{
	struct kpr_caller who;

	if (at->protocol == 0 || at->port == 0 || !kpr_caller_of(ctx, &who) || !who.host ||
	    !(who.settings->flags & PB_SVC_SET_BIND_PROTECTION) || !kpr_bind_taken(&who, at))
		return pb_next(ctx);
	return pb_deny(ctx, EADDRINUSE, PB_REASON_PLUGIN);
}

PB_SOCK_ADDR(bind4, kpr_bind4)
{
	struct pb_svc_key at;

	key_from_ctx4(ctx, &at);
	return bind(ctx, &at);
}

PB_SOCK_ADDR(bind6, kpr_bind6)
{
	struct pb_svc_key at;

	key_from_ctx6(ctx, &at);
	return bind(ctx, &at);
}

/* ---- a socket ends ---- */

/* Of the peer it is connected to. What it sent datagrams to unconnected isn't known here. */
PB_INLINE void forget(struct bpf_sock *ctx)
{
	struct pb_svc_key peer = {.port = ctx->dst_port,
				  .protocol = service_protocol(ctx->protocol)};
	struct kpr_reverse_key key = {0};

	if (peer.protocol == 0 || peer.port == 0)
		return;
	if (ctx->family == AF_INET) {
		peer.family = 4;
		peer.addr.v4 = ctx->dst_ip4;
	} else if (ctx->family == AF_INET6) {
		peer.family = 6;
		peer.addr.v6[0] = ctx->dst_ip6[0];
		peer.addr.v6[1] = ctx->dst_ip6[1];
		peer.addr.v6[2] = ctx->dst_ip6[2];
		peer.addr.v6[3] = ctx->dst_ip6[3];
		unmap(&peer);
	} else {
		return;
	}
	key.cookie = bpf_get_socket_cookie(ctx);
	key.addr = peer.addr;
	key.port = peer.port;
	key.protocol = peer.protocol;
	key.family = peer.family;
	/* A deletion takes a lock even when there is nothing, which is the common case. */
	if (bpf_map_lookup_elem(&kpr_reverse, &key))
		bpf_map_delete_elem(&kpr_reverse, &key);
}

SEC("cgroup/sock_release") int kpr_sock_release(struct bpf_sock *ctx)
{
	forget(ctx);
	return pb_next(ctx);
}
