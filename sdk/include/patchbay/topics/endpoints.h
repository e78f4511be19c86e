/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Topic "endpoints", version 1: the pods of this node that have an endpoint, with their interfaces.
 * Published by the core.
 *
 * Key: "NAMESPACE/NAME" of the pod. Value: struct pb_endpoint_record. A pod is published as soon as
 * its endpoint has an id, with PB_ENDPOINT_HOOKED once its hooks run; pods of the host's network
 * have no endpoint. The identity of a record is in the topic "identities" before and as long as the
 * record has it. A change of labels publishes the record again with another identity. SYNCED
 * follows once the pods of the first full list have been looked at.
 */
#ifndef PATCHBAY_TOPICS_ENDPOINTS_H
#define PATCHBAY_TOPICS_ENDPOINTS_H

#include <stdint.h>

#include <patchbay/abi.h>

#define PB_TOPIC_ENDPOINTS "endpoints"
#define PB_TOPIC_ENDPOINTS_VERSION 1

/* struct pb_endpoint_record.flags */
/* The chains of pod-egress and pod-ingress see its packets. */
#define PB_ENDPOINT_HOOKED (1U << 0)
#define PB_ENDPOINT_IPV4 (1U << 1) /* addr4 is given */
#define PB_ENDPOINT_IPV6 (1U << 2) /* addr6 is given */

struct pb_endpoint_record {
	uint32_t size;	   /* of this structure */
	uint32_t id;	   /* 1 to 65535; struct pb_packet.endpoint */
	uint32_t identity; /* PB_IDENTITY_INIT while its labels aren't known */
	uint32_t ifindex;  /* of the host side of its interface, 0: not known */
	uint32_t flags;	   /* PB_ENDPOINT_* */
	uint32_t reserved;
	union pb_addr addr4;
	union pb_addr addr6;
	char ifname[16]; /* "" when ifindex is 0 */
};

#endif
