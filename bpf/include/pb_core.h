/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the core's own programs share and plugins never see: the gates and the switches.
 *
 * Owns the layout of the gates. Every map here is pinned below <bpffs>/core and outlives the
 * agent, so nothing is ever resized or renumbered in place: a change is a new map name.
 */
#ifndef PB_CORE_H
#define PB_CORE_H

#include <patchbay/bpf.h>

/* A gate has two places a hook: the live chain and the candidate of a canary. */
#define PB_GATE_PLACES 2
#define PB_GATE_CURRENT 0

#define PB_GATE(name_, entries_)                                                                   \
	struct {                                                                                   \
		__uint(type, BPF_MAP_TYPE_PROG_ARRAY);                                             \
		__uint(max_entries, entries_);                                                     \
		__type(key, __u32);                                                                \
		__type(value, __u32);                                                              \
	} name_ SEC(".maps")

/* Switches that the agent throws. One record, key 0. */
struct pb_switches {
	__u32 observe_drops; /* 1: exit sends PB_EVENT_DROP */
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct pb_switches);
} pb_switches SEC(".maps");

/*
 * SHA-256 of what an identity stands for, by its number. Programs don't read it: it is pinned so
 * that a restarted agent gives the same numbers again.
 */
struct pb_identity_digest {
	__u8 sha256[32];
};

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 131072);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, __u32);
	__type(value, struct pb_identity_digest);
} pb_identities SEC(".maps");

#endif
