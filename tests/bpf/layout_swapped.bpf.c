/* SPDX-License-Identifier: Apache-2.0 */
/* Two members changed places: every size stays. */
#define LAYOUT_MEMBERS                                                                             \
	__u32 packets;                                                                             \
	__u32 address;                                                                             \
	struct layout_inner inner;                                                                 \
	__u16 ports[2];
#include "layout.h"
