/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernel can do of what the plugin needs, found out by trying: by system calls of this
 * process, without any tool, in a few milliseconds.
 *
 * Owns how each feature is tried. Leaves nothing behind: programs, maps and sockets are closed at
 * once, nothing is attached. Never decides what to do about what is missing: kpr_mode.h does.
 */
#ifndef KPR_PROBE_H
#define KPR_PROBE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum kpr_feature {
	KPR_FEATURE_CONNECT = 0,
	KPR_FEATURE_RECVMSG = 1,
	KPR_FEATURE_GETPEERNAME = 2,
	KPR_FEATURE_BIND = 3,
	KPR_FEATURE_SOCK_RELEASE = 4,
	KPR_FEATURE_SET_RETVAL = 5,
	KPR_FEATURE_NETNS_COOKIE = 6,
	KPR_FEATURE_LRU = 7,
	KPR_FEATURE_LPM = 8,
	KPR_FEATURE_MAP_MEMORY = 9,
	KPR_FEATURE_BATCH = 10,
	KPR_FEATURE_FIB_LOOKUP = 11,
	KPR_FEATURE_REDIRECT_NEIGH = 12,
	KPR_FEATURE_DIAG_DESTROY = 13,
	KPR_FEATURE_IPV6 = 14,
	KPR_FEATURE_COUNT = 15,
};

/* What was found out. */
struct kpr_probe {
	uint32_t missing; /* a bit per enum kpr_feature */
	uint32_t
		unknown; /* not allowed to ask: taken for present, loading the programs will tell */
	char kernel[65]; /* as uname -r says */
};

void kpr_probe_run(struct kpr_probe *ret_probe);

#endif
