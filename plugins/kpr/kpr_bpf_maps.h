/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The maps that all BPF objects of the plugin have in common: maps of one name are one map.
 *
 * Owns their kinds and the sizes that hold without a configuration; layouts are in
 * patchbay/maps/services.h and kpr_abi.h. Programs only read them, but for kpr_affinity and
 * kpr_flow.
 */
#ifndef KPR_BPF_MAPS_H
#define KPR_BPF_MAPS_H

#include <patchbay/bpf.h>

#include "kpr_abi.h"

/* Sizes follow from the agent's configuration; the numbers here are the defaults. */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 65536);
	__type(key, struct pb_svc_key);
	__type(value, struct pb_svc);
} kpr_services SEC(".maps");

/* Mapped into the agent, which writes these arrays by stores. */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 524288);
	__type(key, __u32);
	__type(value, struct pb_svc_slot);
} kpr_slots SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 262144);
	__type(key, __u32);
	__type(value, struct pb_svc_backend);
} kpr_backends SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pb_svc_slot);
} kpr_maglev SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pb_svc_settings);
} kpr_settings SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct pb_svc_range4);
	__type(value, __u8);
} kpr_ranges4 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, struct pb_svc_range6);
	__type(value, __u8);
} kpr_ranges6 SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 65536);
	__type(key, struct kpr_affinity_key);
	__type(value, struct kpr_affinity);
} kpr_affinity SEC(".maps");

/* By tc hook: what the slots of one packet's chain tell each other. */
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, PB_HOOK_TC_COUNT);
	__type(key, __u32);
	__type(value, struct pb_svc_flow);
} kpr_flow SEC(".maps");

#endif
