/* SPDX-License-Identifier: Apache-2.0 */
/* A member more at the end. */
#define LAYOUT_MEMBERS                                                                             \
	__u32 address;                                                                             \
	__u32 packets;                                                                             \
	struct layout_inner inner;                                                                 \
	__u16 ports[2];                                                                            \
	__u32 bytes;
#include "layout.h"
