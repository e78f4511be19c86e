/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which backend: what socket programs and packet programs have in common.
 *
 * Owns how slots and records are read while the agent writes them, and map kpr_affinity. A backend
 * is never returned that was not the frontend's own when it was looked at: entry, slot and record
 * have to belong together, and what doesn't is looked at again.
 *
 *	kpr_frontend_find()	the entry of an address, in the scope of who asks
 *	kpr_backend_get()	a record by its number, if it is still its pool's
 *	kpr_choose()		a backend for a new connection
 */
#ifndef KPR_SELECT_H
#define KPR_SELECT_H

#include <stdbool.h>

#include "kpr_bpf_maps.h"

/* kpr_choose() */
enum kpr_outcome {
	KPR_NOT_OURS = 0, /* no such frontend, or one that lets everything pass without backends */
	KPR_CHOSEN = 1,
	KPR_NO_BACKEND = 2,
};

/* Who asks. */
struct kpr_asker {
	union pb_addr client; /* session affinity: see struct kpr_affinity_key */
	__u32 number;	      /* random, or the same for what shall go to the same backend */
	__u32 hash;	      /* place in a Maglev table; used when `maglev` */
	__u32 maglev;
};

/* What was chosen. */
struct kpr_choice {
	struct pb_svc_backend backend; /* a copy */
	__u32 number;		       /* of the record */
	__u32 id;		       /* of the frontend */
	__u32 flags;		       /* of the frontend */
};

/* One load, whatever the compiler would rather do: the memory changes under us. */
#define KPR_ONCE(x_) (*(const volatile __typeof__(x_) *)&(x_))

/* Spreads a number evenly over 0..n-1. */
PB_INLINE __u32 kpr_spread(__u32 number, __u32 n)
{
	return (__u32)(((__u64)number * n) >> 32);
}

/* `key` of scope INT; it gets scope EXT when that one is asked for and has an entry of its own. */
PB_INLINE struct pb_svc *kpr_frontend_find(struct pb_svc_key *key, __u8 scope)
{
	struct pb_svc *svc = bpf_map_lookup_elem(&kpr_services, key);

	if (!svc || scope == PB_SVC_SCOPE_INT || !(KPR_ONCE(svc->flags) & PB_SVC_SPLIT))
		return svc;
	key->scope = scope;
	return bpf_map_lookup_elem(&kpr_services, key);
}

/*
 * A copy, the pool looked at last: whatever happens to the record from then on, and however long
 * this program is held up, the copy was the pool's.
 */
PB_INLINE bool kpr_backend_get(__u32 number, __u32 pool, struct pb_svc_backend *ret_backend)
{
	struct pb_svc_backend *b = bpf_map_lookup_elem(&kpr_backends, &number);

	if (!b)
		return false;
	ret_backend->addr.v6[0] = KPR_ONCE(b->addr.v6[0]);
	ret_backend->addr.v6[1] = KPR_ONCE(b->addr.v6[1]);
	ret_backend->addr.v6[2] = KPR_ONCE(b->addr.v6[2]);
	ret_backend->addr.v6[3] = KPR_ONCE(b->addr.v6[3]);
	ret_backend->port = KPR_ONCE(b->port);
	ret_backend->family = KPR_ONCE(b->family);
	ret_backend->flags = KPR_ONCE(b->flags);
	ret_backend->pool = pool;
	return KPR_ONCE(b->pool) == pool;
}

PB_INLINE bool kpr_slot_get(const struct pb_svc_slot *slot, __u32 pool, struct kpr_choice *ret)
{
	union {
		__u64 word;
		struct pb_svc_slot slot;
	} seen;

	if (!slot)
		return false;
	seen.word = *(const volatile __u64 *)slot;
	if (seen.slot.pool != pool)
		return false;
	ret->number = seen.slot.backend;
	return kpr_backend_get(ret->number, pool, &ret->backend);
}

/* ---- session affinity ---- */

PB_INLINE __u32 kpr_now(void)
{
	return (__u32)(bpf_ktime_get_coarse_ns() / 1000000000ULL);
}

PB_INLINE void kpr_affinity_key_of(const struct pb_svc_key *key, const struct kpr_asker *who,
				   __u32 id, struct kpr_affinity_key *ret_key)
{
	ret_key->client = who->client;
	ret_key->affinity_id = id;
	ret_key->scope = key->scope;
	ret_key->reserved[0] = 0;
	ret_key->reserved[1] = 0;
	ret_key->reserved[2] = 0;
}

/* Where the client's last connection went, and from now on again. Another CPU may be ahead. */
PB_INLINE bool kpr_affinity_recall(const struct kpr_affinity_key *key, __u32 timeout, __u32 pool,
				   struct kpr_choice *ret)
{
	struct kpr_affinity *a = bpf_map_lookup_elem(&kpr_affinity, key);
	__u32 now = kpr_now();

	if (!a || a->pool != pool || (__s32)(now - a->used) > (__s32)timeout)
		return false;
	ret->number = a->backend;
	if (!kpr_backend_get(ret->number, pool, &ret->backend))
		return false;
	if (a->used != now)
		a->used = now;
	return true;
}

PB_INLINE void kpr_affinity_keep(const struct kpr_affinity_key *key, __u32 pool,
				 const struct kpr_choice *choice)
{
	struct kpr_affinity a = {.backend = choice->number, .pool = pool, .used = kpr_now()};

	bpf_map_update_elem(&kpr_affinity, key, &a, BPF_ANY);
}

/* ---- the choice ---- */

/* By table, else by number: a place whose backend just went is nobody's for a moment. */
PB_INLINE bool kpr_pick(const struct pb_svc *svc, const struct kpr_asker *who, __u32 pool,
			__u32 count, struct kpr_choice *ret)
{
	__u32 zero = 0, at;

	if (who->maglev && ret->flags & PB_SVC_MAGLEV) {
		const struct pb_svc_settings *s = bpf_map_lookup_elem(&kpr_settings, &zero);

		at = KPR_ONCE(svc->maglev) + kpr_spread(who->hash, s ? s->maglev_size : 0);
		if (kpr_slot_get(bpf_map_lookup_elem(&kpr_maglev, &at), pool, ret))
			return true;
	}
	at = KPR_ONCE(svc->base) + kpr_spread(who->number, count);
	return kpr_slot_get(bpf_map_lookup_elem(&kpr_slots, &at), pool, ret);
}

/*
 * One try of kpr_choose(); `ret` knows the frontend. A function of its own, which the verifier
 * looks at once instead of once for each try.
 */
__attribute__((noinline, weak)) int kpr_try(const struct pb_svc_key *key, const struct pb_svc *svc,
					    const struct kpr_asker *who, __u32 pool,
					    struct kpr_choice *ret)
{
	struct kpr_affinity_key akey;
	__u32 timeout, count;

	if (!key || !svc || !who || !ret)
		return false;
	timeout = KPR_ONCE(svc->affinity_s);
	count = KPR_ONCE(svc->count);
	if (!timeout)
		return kpr_pick(svc, who, pool, count, ret);
	kpr_affinity_key_of(key, who, KPR_ONCE(svc->affinity_id), &akey);
	if (kpr_affinity_recall(&akey, timeout, pool, ret))
		return true;
	if (!kpr_pick(svc, who, pool, count, ret))
		return false;
	kpr_affinity_keep(&akey, pool, ret);
	return true;
}

/*
 * A backend for a new connection to the frontend of `key`. `svc`: what kpr_frontend_find() gave, or
 * NULL. Looks again, three times at most, when entry, slot and record don't belong together.
 */
PB_INLINE enum kpr_outcome kpr_choose(const struct pb_svc_key *key, const struct pb_svc *svc,
				      const struct kpr_asker *who, struct kpr_choice *ret_choice)
{
	__u32 mask = pb_svc_tie(key, 0);

	for (int i = 0; i < 3; i++) {
		__u32 tie;

		if (i > 0 || !svc)
			svc = bpf_map_lookup_elem(&kpr_services, key);
		if (!svc)
			return KPR_NOT_OURS;
		ret_choice->flags = KPR_ONCE(svc->flags);
		if (KPR_ONCE(svc->count) == 0) {
			if (i < 2)
				continue;
			return ret_choice->flags & PB_SVC_FAIL_OPEN ? KPR_NOT_OURS : KPR_NO_BACKEND;
		}
		tie = KPR_ONCE(svc->tie);
		ret_choice->id = KPR_ONCE(svc->id);
		if (!kpr_try(key, svc, who, tie ^ mask, ret_choice))
			continue;
		if (KPR_ONCE(svc->tie) == tie)
			return KPR_CHOSEN;
	}
	return KPR_NO_BACKEND;
}

#endif
