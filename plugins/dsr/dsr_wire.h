/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What carries the frontend from node to node. Everything in network byte order.
 *
 * Owns the wire formats; nodes of one cluster may run different versions, so a layout never
 * changes: a new one gets a new type number.
 */
#ifndef DSR_WIRE_H
#define DSR_WIRE_H

#include <linux/types.h>

/* IPv4 option, the first one of the header: copied into fragments, class 0, number 26. */
#define DSR_OPT4_TYPE 0x9a

struct dsr_opt4 {
	__u8 type;
	__u8 len; /* 8 */
	__be16 port;
	__be32 addr;
};

/* IPv6 destination options header of its own, behind a hop-by-hop header if there is one. */
#define DSR_OPT6_TYPE 0x1b

struct dsr_opt6 {
	__u8 next;
	__u8 words; /* of 8 bytes after the first: 2 */
	__u8 type;
	__u8 len; /* 20 */
	__be32 addr[4];
	__be16 port;
	__be16 zero;
};

/* Geneve: UDP port 6081, then this header, then options, then an Ethernet frame. */
#define DSR_GENEVE_PORT 6081
#define DSR_GENEVE_CLASS 0x014b
#define DSR_GENEVE_TYPE 0x81 /* bit 7: whoever doesn't know it must drop the packet */
#define DSR_GENEVE_CRITICAL 0x80
#define DSR_GENEVE_VNI 2 /* identity world */

struct dsr_geneve {
	__u8 words;   /* of 4 bytes of options; the two high bits are the version, 0 */
	__u8 flags;   /* bit 6: an option is critical */
	__be16 proto; /* 0x6558: Ethernet */
	__be32 vni;   /* in the high 24 bits */
};

struct dsr_geneve_option {
	__be16 class;
	__u8 type;
	__u8 words; /* of 4 bytes behind this header: 2 or 5 */
};

struct dsr_geneve4 {
	struct dsr_geneve_option head;
	__be32 addr;
	__be16 port;
	__be16 zero;
};

struct dsr_geneve6 {
	struct dsr_geneve_option head;
	__be32 addr[4];
	__be16 port;
	__be16 zero;
};

_Static_assert(sizeof(struct dsr_opt4) == 8, "wire");
_Static_assert(sizeof(struct dsr_opt6) == 24, "wire");
_Static_assert(sizeof(struct dsr_geneve) == 8, "wire");
_Static_assert(sizeof(struct dsr_geneve4) == 12, "wire");
_Static_assert(sizeof(struct dsr_geneve6) == 24, "wire");

#endif
