/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Topic "node-addresses", version 1: the addresses of this node's own interfaces, as the kernel
 * has them. Published by the core; an address that comes or goes later is told too.
 *
 * Key: the address as text. Value: struct pb_node_address. An address that stands on several
 * interfaces is published once, with the interface that comes first in: on one of
 * datapath.devices, any other, loopback. SYNCED follows once all interfaces have been asked.
 */
#ifndef PATCHBAY_TOPICS_NODE_ADDRESSES_H
#define PATCHBAY_TOPICS_NODE_ADDRESSES_H

#include <stdint.h>

#include <patchbay/abi.h>

#define PB_TOPIC_NODE_ADDRESSES "node-addresses"
#define PB_TOPIC_NODE_ADDRESSES_VERSION 1

/* struct pb_node_address.flags */
#define PB_NODE_ADDR_DEVICE (1U << 0)	 /* on an interface that datapath.devices names */
#define PB_NODE_ADDR_LOOPBACK (1U << 1)	 /* on the loopback interface, or 127.0.0.0/8 or ::1 */
#define PB_NODE_ADDR_LINK (1U << 2)	 /* link-local */
#define PB_NODE_ADDR_SECONDARY (1U << 3) /* IFA_F_SECONDARY: another address of the same subnet */
#define PB_NODE_ADDR_INTERNAL (1U << 4)	 /* InternalIP of this node's Node object */
#define PB_NODE_ADDR_EXTERNAL (1U << 5)	 /* ExternalIP of the same */
#define PB_NODE_ADDR_POD (1U << 6)	 /* on the host side of a pod's interface */

struct pb_node_address {
	uint32_t size; /* of this structure */
	uint32_t flags;
	union pb_addr addr;
	uint8_t family; /* 4 or 6 */
	uint8_t bits;	/* of its subnet */
	uint8_t reserved[2];
	uint32_t ifindex;
	char ifname[16];
};

#endif
