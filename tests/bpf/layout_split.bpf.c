/* SPDX-License-Identifier: Apache-2.0 */
/* An array of two halves became one of four quarters. */
#define LAYOUT_MEMBERS                                                                             \
	__u32 address;                                                                             \
	__u32 packets;                                                                             \
	struct layout_inner inner;                                                                 \
	__u8 ports[4];
#include "layout.h"
