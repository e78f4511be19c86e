/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Topic "backends", version 2: who stands behind each Service, whatever API it was read from.
 *
 * Two kinds of records, told apart by their keys:
 * - a head, key "NAMESPACE/NAME" of the Service: struct pb_backends_head;
 * - parts, key "NAMESPACE/NAME/PART": struct pb_backends. PART is the name of an EndpointSlice, or
 *   "endpoints" when the Service is read from an Endpoints object.
 * The backends of a Service are those of all its parts; no (family, protocol, port name, address,
 * port) is in two of them, and a part without backends isn't published. A change costs in
 * proportion to the parts that changed, not to the Service. Parts that change together are
 * published (and withdrawn) together, the ones that gain before the ones that lose, and the head
 * last: a subscriber that takes parts in as they come and acts on the head never sees half of a
 * change, because records reach it in the order of their last publication.
 *
 * A Service whose last endpoint is gone keeps a head with n_backends = 0; a withdrawn head means
 * that nothing is known of it. SYNCED follows once every object of the first list has been merged.
 */
#ifndef PATCHBAY_TOPICS_BACKENDS_H
#define PATCHBAY_TOPICS_BACKENDS_H

#include <stdint.h>
#include <patchbay/abi.h>

#define PB_TOPIC_BACKENDS "backends"
#define PB_TOPIC_BACKENDS_VERSION 2

/* struct pb_backends_head.flags */
#define PB_BACKENDS_FROM_ENDPOINTS (1U << 0) /* read from v1 Endpoints, not from slices */
#define PB_BACKENDS_TRUNCATED (1U << 1)	     /* the control plane left addresses out */

struct pb_backends_head {
	uint32_t size; /* of this structure */
	uint32_t flags;
	uint64_t revision; /* follows from the parts: another one when any of them changes */
	uint32_t n_parts;
	uint32_t n_backends;
	uint32_t n_usable; /* of them: active, or terminating and still serving */
	uint32_t reserved;
};

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

/* A part. Backends are sorted by family, protocol, port name, address, port. */
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
