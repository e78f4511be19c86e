/* SPDX-License-Identifier: Apache-2.0 */
/* What tests/bpf/reply.bpf.c is told and tells. */
#ifndef PB_TESTS_REPLY_H
#define PB_TESTS_REPLY_H

#include <patchbay/abi.h>

enum reply_what {
	REPLY_REJECT = 0,
	REPLY_TOO_BIG = 1,
	REPLY_TTL = 2,
};

struct reply_plan {
	__u32 what; /* enum reply_what */
	__u32 mtu;
	union pb_addr src; /* of REPLY_TTL */
	union pb_addr to;  /* with a port: the packet is translated before it is answered */
	__be16 port;
	__u16 reserved;
	__s32 result; /* of the call */
};

#endif
