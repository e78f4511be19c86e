/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Topic "backends", version 1: who stands behind each Service, whatever API it was read from.
 *
 * Key: "NAMESPACE/NAME" of the Service. Value: one struct pb_backends. A service whose last
 * endpoint is gone is published with n = 0, not withdrawn; withdrawn means nothing is known of
 * it. SYNCED follows once every object of the first list has been merged.
 */
#ifndef PATCHBAY_TOPICS_BACKENDS_H
#define PATCHBAY_TOPICS_BACKENDS_H

#include <stdint.h>
#include <patchbay/abi.h>

#define PB_TOPIC_BACKENDS "backends"
#define PB_TOPIC_BACKENDS_VERSION 1

/* struct pb_backend.state */
enum pb_backend_state {
	PB_BACKEND_ACTIVE = 1,	    /* use it */
	PB_BACKEND_TERMINATING = 2, /* serving and going away: use it when no active one is left */
	PB_BACKEND_DRAINING = 3,    /* not for new connections; keep what exists */
};

/* struct pb_backend.flags */
#define PB_BACKEND_LOCAL (1U << 0) /* on this node */
#define PB_BACKEND_READY (1U << 1) /* condition ready, for health checks */

/* One (address, port name, protocol). Offsets are into the strings behind the array. */
struct pb_backend {
	union pb_addr addr;
	uint16_t port;	/* host byte order */
	uint8_t family; /* 4 or 6 */
	uint8_t protocol;
	uint8_t state;
	uint8_t flags;
	uint16_t reserved;
	uint32_t port_name;
	uint32_t node;
	uint32_t zone;
	uint32_t hints;
};

/* Backends are sorted by family, protocol, port name, address, port. */
struct pb_backends {
	uint32_t size; /* bytes before backend[0] */
	uint32_t n;
	uint32_t strings_len;
	uint32_t reserved;
	struct pb_backend backend[];
	/* char strings[strings_len] follows; offset 0 is "" */
};

/* The string at `offset` of the value's string block. */
static inline const char *pb_backends_string(const struct pb_backends *v, uint32_t offset)
{
	return (const char *)&v->backend[v->n] + offset;
}

#endif
