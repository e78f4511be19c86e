/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The maps that the plugin's programs use, and what they count and remember.
 *
 * Owns dsr_stats, dsr_recent and dsr_filter. Those of kpr are borrowed and only read.
 */
#ifndef DSR_MAPS_BPF_H
#define DSR_MAPS_BPF_H

#include <patchbay/maps/services.h>

#include "dsr_abi.h"

/* Set by the user side. */
const volatile __u32 dsr_mode = DSR_MODE_DSR;
const volatile __u32 dsr_dispatch = DSR_OPT;
const volatile __u32 dsr_strip = 1;
const volatile __u32 dsr_any_address = 0; /* a NodePort may be at addresses that nobody knows */

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct pb_svc_key);
	__type(value, struct pb_svc);
} kpr__kpr_services SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 524288);
	__type(key, __u32);
	__type(value, struct pb_svc_slot);
} kpr__kpr_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 262144);
	__type(key, __u32);
	__type(value, struct pb_svc_backend);
} kpr__kpr_backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pb_svc_settings);
} kpr__kpr_settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PB_HOOK_TC_COUNT);
	__type(key, __u32);
	__type(value, struct pb_svc_flow);
} kpr__kpr_flow SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dsr_stats);
} dsr_stats SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, DSR_RECENT_MAX);
	__type(key, struct pb_ct_key);
	__type(value, struct dsr_recent);
} dsr_recent SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct dsr_filter);
} dsr_filter SEC(".maps");

#define DSR_COUNT(what_)                                                                           \
	do {                                                                                       \
		__u32 zero_ = 0;                                                                   \
		struct dsr_stats *stats_ = bpf_map_lookup_elem(&dsr_stats, &zero_);                \
                                                                                                   \
		if (stats_)                                                                        \
			stats_->what_++;                                                           \
	} while (0)

PB_INLINE __u32 dsr_filter_bit(const union pb_addr *pod, __be16 port)
{
	__u32 h = (pod->v6[0] ^ pod->v6[3]) * 0x9e3779b1U ^ (__u32)port * 0x85ebca6bU;

	return (h ^ h >> 15) & (DSR_FILTER_BITS - 1);
}

/* `back`: the answers' tuple, backend to client. */
PB_INLINE bool dsr_was_backend(const struct pb_ct_key *back)
{
	__u32 bit = dsr_filter_bit(&back->saddr, back->sport), zero = 0;
	const struct dsr_filter *f = bpf_map_lookup_elem(&dsr_filter, &zero);

	return f && f->words[bit / 64] >> bit % 64 & 1;
}

PB_INLINE void dsr_remember(const struct pb_ct_key *back, __u32 frontend)
{
	const struct dsr_recent recent = {.frontend = frontend};
	__u32 bit = dsr_filter_bit(&back->saddr, back->sport), zero = 0;
	struct dsr_filter *f = bpf_map_lookup_elem(&dsr_filter, &zero);

	bpf_map_update_elem(&dsr_recent, back, &recent, BPF_ANY);
	if (f && !(f->words[bit / 64] >> bit % 64 & 1))
		__sync_fetch_and_or(&f->words[bit / 64], 1ULL << bit % 64);
}

/* The tuple of the answers to this packet. */
PB_INLINE void dsr_back_of(const struct pb_packet *pkt, struct pb_ct_key *ret_back)
{
	pb_ct_copy_addr(&ret_back->saddr, &pkt->daddr);
	pb_ct_copy_addr(&ret_back->daddr, &pkt->saddr);
	ret_back->sport = pkt->dport;
	ret_back->dport = pkt->sport;
	ret_back->protocol = pkt->protocol;
	ret_back->family = pkt->family;
	ret_back->zone = PB_CT_ZONE_SERVICE;
	ret_back->reserved = 0;
}

#endif
