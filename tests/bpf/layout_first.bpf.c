/* SPDX-License-Identifier: Apache-2.0 */
/* The layout that the others are compared with. */
#define LAYOUT_MEMBERS                                                                             \
	__u32 address;                                                                             \
	__u32 packets;                                                                             \
	struct layout_inner inner;                                                                 \
	__u16 ports[2];
#include "layout.h"
