/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Connection tracking for programs: the core's maps and the only ways to read and write them.
 * Include it after patchbay/bpf.h. The rules for entries are in patchbay/conntrack.h.
 */
#ifndef PATCHBAY_CT_H
#define PATCHBAY_CT_H

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

#endif
