// SPDX-License-Identifier: Apache-2.0
/*
 * Socket load balancing: the address that an application names is exchanged for a backend's at
 * connect() and sendmsg(), and the other way round at recvmsg() and getpeername(). No packet is
 * touched.
 *
 * Owns no state but map kpr_reverse. A call that names no frontend passes unchanged.
 */
#include <patchbay/bpf.h>

#include "kpr_bpf_maps.h"

#define AF_INET_PROTO_TCP 6
#define AF_INET_PROTO_UDP 17
#define AF_INET_PROTO_UDPLITE 136
#define AF_INET_PROTO_MPTCP 262

#define ECONNREFUSED 111
#define ENOMEM 12

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 262144);
	__type(key, struct kpr_reverse_key);
	__type(value, struct kpr_reverse);
} kpr_reverse SEC(".maps");

/* What became of a call. */
enum outcome {
	NOT_OURS = 0,
	TRANSLATED = 1,
	NO_BACKEND = 2,
	NO_MEMORY = 3,
};

/* 0 for a protocol that has no Services. */
PB_INLINE __u8 service_protocol(const struct bpf_sock_addr *ctx)
{
	switch (ctx->protocol) {
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
	key->protocol = service_protocol(ctx);
	key->family = 4;
}

/* An IPv4 address in IPv6 dress is a frontend of family 4. */
PB_INLINE int key_from_ctx6(const struct bpf_sock_addr *ctx, struct pb_svc_key *key)
{
	int mapped;

	__builtin_memset(key, 0, sizeof(*key));
	key->addr.v6[0] = ctx->user_ip6[0];
	key->addr.v6[1] = ctx->user_ip6[1];
	key->addr.v6[2] = ctx->user_ip6[2];
	key->addr.v6[3] = ctx->user_ip6[3];
	key->port = (__be16)ctx->user_port;
	key->protocol = service_protocol(ctx);
	key->family = 6;
	mapped = key->addr.v6[0] == 0 && key->addr.v6[1] == 0 &&
		 key->addr.v6[2] == bpf_htonl(0xffff);
	if (mapped) {
		key->addr.v4 = key->addr.v6[3];
		key->addr.v6[2] = 0;
		key->addr.v6[3] = 0;
		key->family = 4;
	}
	return mapped;
}

/* Spreads a number evenly over 0..n-1. */
PB_INLINE __u32 spread(__u32 number, __u32 n)
{
	return (__u32)(((__u64)number * n) >> 32);
}

/* One load, whatever the compiler would rather do: the memory changes under us. */
#define ONCE(x_) (*(const volatile __typeof__(x_) *)&(x_))

/*
 * The backend behind a slot if both belong to the pool. A copy, looked at last: whatever happens
 * to the record from then on, and however long this program is held up, the copy was the pool's.
 */
PB_INLINE int backend_of(__u32 at, __u32 pool, struct pb_svc_backend *ret_backend)
{
	struct pb_svc_slot *slot = bpf_map_lookup_elem(&kpr_slots, &at);
	struct pb_svc_backend *b;
	union {
		__u64 word;
		struct pb_svc_slot slot;
	} seen;
	__u32 id;

	if (!slot)
		return 0;
	seen.word = *(const volatile __u64 *)slot;
	if (seen.slot.pool != pool)
		return 0;
	id = seen.slot.backend;
	b = bpf_map_lookup_elem(&kpr_backends, &id);
	if (!b)
		return 0;
	ret_backend->addr.v6[0] = ONCE(b->addr.v6[0]);
	ret_backend->addr.v6[1] = ONCE(b->addr.v6[1]);
	ret_backend->addr.v6[2] = ONCE(b->addr.v6[2]);
	ret_backend->addr.v6[3] = ONCE(b->addr.v6[3]);
	ret_backend->port = ONCE(b->port);
	ret_backend->family = ONCE(b->family);
	return ONCE(b->pool) == pool;
}

/* What choose() found: where the call goes, and the frontend's id. */
struct choice {
	struct pb_svc_backend backend;
	__u32 id;
};

/*
 * The backend for a new connection (TCP) or for this socket's datagrams (UDP: consecutive ones
 * go to the same). Looks again when entry, slot and record don't belong together.
 */
PB_INLINE enum outcome choose(const struct pb_svc_key *key, __u64 cookie, struct choice *ret_choice)
{
	__u32 number = key->protocol == AF_INET_PROTO_TCP
			       ? bpf_get_prandom_u32()
			       : (__u32)((cookie * 0x9e3779b97f4a7c15ULL) >> 32);
	__u32 mask = pb_svc_tie(key, 0);

#pragma unroll
	for (int i = 0; i < 3; i++) {
		struct pb_svc *svc = bpf_map_lookup_elem(&kpr_services, key);
		__u32 count, tie;

		if (!svc)
			return NOT_OURS;
		count = ONCE(svc->count);
		if (count == 0) {
			if (i < 2)
				continue;
			return svc->flags & PB_SVC_FAIL_OPEN ? NOT_OURS : NO_BACKEND;
		}
		tie = ONCE(svc->tie);
		if (!backend_of(ONCE(svc->base) + spread(number, count), tie ^ mask,
				&ret_choice->backend))
			continue;
		ret_choice->id = ONCE(svc->id);
		if (ONCE(svc->tie) == tie)
			return TRANSLATED;
	}
	return NO_BACKEND;
}

/* Written only when it says something new: the map is shared by all sockets of the node. */
PB_INLINE long remember(const struct pb_svc_key *frontend, __u64 cookie,
			const struct choice *choice, int may_exist)
{
	const struct pb_svc_backend *b = &choice->backend;
	struct kpr_reverse_key key = {.cookie = cookie,
				      .addr = b->addr,
				      .port = b->port,
				      .protocol = frontend->protocol,
				      .family = b->family};
	struct kpr_reverse value = {.frontend = *frontend, .id = choice->id};

	if (may_exist) {
		struct kpr_reverse *old = bpf_map_lookup_elem(&kpr_reverse, &key);

		if (old && old->id == value.id)
			return 0;
	}
	return bpf_map_update_elem(&kpr_reverse, &key, &value, BPF_ANY);
}

/*
 * Common part of connect and sendmsg: on TRANSLATED *ret_choice is where the call goes. A
 * datagram whose answer could not be translated back is refused rather than answered by a
 * stranger; a connection only loses its getpeername().
 */
PB_INLINE enum outcome translate(struct bpf_sock_addr *ctx, const struct pb_svc_key *key,
				 struct choice *ret_choice)
{
	enum outcome outcome;
	__u64 cookie;

	if (key->protocol == 0 || key->port == 0)
		return NOT_OURS;
	cookie = bpf_get_socket_cookie(ctx);
	outcome = choose(key, cookie, ret_choice);
	if (outcome == TRANSLATED &&
	    remember(key, cookie, ret_choice, key->protocol != AF_INET_PROTO_TCP) < 0 &&
	    key->protocol != AF_INET_PROTO_TCP)
		outcome = NO_MEMORY;
	return outcome;
}

PB_INLINE int leave(struct bpf_sock_addr *ctx, enum outcome outcome)
{
	if (outcome == NO_BACKEND)
		return pb_deny(ctx, ECONNREFUSED, PB_REASON_NO_SERVICE);
	if (outcome == NO_MEMORY)
		return pb_deny(ctx, ENOMEM, PB_REASON_PLUGIN);
	return pb_next(ctx);
}

PB_INLINE int forward4(struct bpf_sock_addr *ctx)
{
	struct choice choice = {0};
	const struct pb_svc_backend *b = &choice.backend;
	enum outcome outcome;
	struct pb_svc_key key;

	key_from_ctx4(ctx, &key);
	outcome = translate(ctx, &key, &choice);
	if (outcome == TRANSLATED) {
		pb_sock_keep_orig(ctx);
		ctx->user_ip4 = b->addr.v4;
		ctx->user_port = b->port;
	}
	return leave(ctx, outcome);
}

PB_INLINE int forward6(struct bpf_sock_addr *ctx)
{
	struct choice choice = {0};
	const struct pb_svc_backend *b = &choice.backend;
	enum outcome outcome;
	struct pb_svc_key key;
	int mapped = key_from_ctx6(ctx, &key);

	outcome = translate(ctx, &key, &choice);
	if (outcome == TRANSLATED) {
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
	struct pb_svc *svc;
	struct kpr_reverse *r;

	if (peer->protocol == 0)
		return 0;
	key.cookie = bpf_get_socket_cookie(ctx);
	r = bpf_map_lookup_elem(&kpr_reverse, &key);
	if (!r)
		return 0;
	*ret_frontend = r->frontend;
	svc = bpf_map_lookup_elem(&kpr_services, ret_frontend);
	if (svc && svc->id == r->id)
		return 1;
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
