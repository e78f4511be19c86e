/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Kubernetes objects as the core decodes them: once, into compact read-only structures that all
 * plugins share. host->kube_watch() delivers them.
 *
 * Owns the shape of those structures. They are immutable; strings are never NULL ("" when the
 * field is missing) and live as long as the object. A field that the decoder found invalid is
 * left out of its list, and the core has warned once. New fields are added at the end of a
 * structure; elements of arrays are ABI too, so they carry room.
 */
#ifndef PATCHBAY_KUBE_H
#define PATCHBAY_KUBE_H

#include <stdint.h>
#include <patchbay/abi.h>

struct pb_kube_pair {
	const char *key;
	const char *value;
};

/* Opens every object. */
struct pb_kube_meta {
	uint32_t size; /* of the whole structure, for example sizeof(struct pb_kube_pod) */
	uint32_t kind; /* enum pb_kube_kind */
	const char *ns;
	const char *name;
	const char *uid;
	const char *version;		   /* resourceVersion: opaque, compare for equality only */
	const struct pb_kube_pair *labels; /* sorted by key */
	const struct pb_kube_pair *annotations;
	uint32_t n_labels;
	uint32_t n_annotations;
};

/* An address with its family: 4 or 6. */
struct pb_kube_addr {
	union pb_addr addr;
	uint32_t family;
};

enum pb_service_type {
	PB_SERVICE_CLUSTER_IP = 1,
	PB_SERVICE_NODE_PORT = 2,
	PB_SERVICE_LOAD_BALANCER = 3,
	PB_SERVICE_EXTERNAL_NAME = 4,
};

struct pb_service_port {
	const char *name;
	uint16_t port;	    /* host byte order, like every port of this header */
	uint16_t node_port; /* 0: none */
	uint8_t protocol;   /* IPPROTO_TCP, _UDP, _SCTP */
	uint8_t reserved[3];
	const char *app_protocol;
};

/* A load balancer address; proxied: status says ipMode Proxy, don't program it. */
struct pb_service_ingress {
	struct pb_kube_addr ip;
	uint32_t proxied;
};

struct pb_cidr {
	union pb_addr addr;
	uint8_t family;
	uint8_t bits;
	uint8_t reserved[2];
};

/* struct pb_kube_service.flags */
#define PB_SERVICE_HEADLESS (1U << 0)	    /* clusterIP None or empty */
#define PB_SERVICE_EXTERNAL_LOCAL (1U << 1) /* externalTrafficPolicy Local */
#define PB_SERVICE_INTERNAL_LOCAL (1U << 2) /* internalTrafficPolicy Local */
#define PB_SERVICE_AFFINITY_CLIENT_IP (1U << 3)
#define PB_SERVICE_SOURCE_RANGES_GIVEN (1U << 4) /* even if no entry was valid */
#define PB_SERVICE_PUBLISH_NOT_READY (1U << 5)
#define PB_SERVICE_NO_SELECTOR (1U << 6)

struct pb_kube_service {
	struct pb_kube_meta meta;
	uint32_t type; /* enum pb_service_type */
	uint32_t flags;
	uint32_t affinity_seconds;
	uint16_t health_check_node_port;
	uint16_t reserved;
	uint32_t n_ports;
	uint32_t n_cluster_ips;
	uint32_t n_external_ips;
	uint32_t n_ingress;
	uint32_t n_source_ranges;
	uint32_t reserved2;
	const struct pb_service_port *ports;
	const struct pb_kube_addr *cluster_ips;
	const struct pb_kube_addr *external_ips;
	const struct pb_service_ingress *ingress;
	const struct pb_cidr *source_ranges;
};

/* struct pb_endpoint_entry.conditions, after the rules for missing ones were applied */
#define PB_ENDPOINT_READY (1U << 0)
#define PB_ENDPOINT_SERVING (1U << 1)
#define PB_ENDPOINT_TERMINATING (1U << 2)

struct pb_slice_port {
	const char *name;
	const char *app_protocol;
	uint16_t port;	  /* 0: all ports; such an entry can't be translated */
	uint8_t protocol; /* IPPROTO_*; 0: unknown to this agent */
	uint8_t reserved[5];
};

/*
 * One endpoint with its first address, the one that kube-proxy uses. Strings are interned: equal
 * strings of all objects have equal pointers. `hints` is a comma separated list of zones.
 */
struct pb_endpoint_entry {
	union pb_addr addr;
	const char *node;
	const char *zone;
	const char *hints;
	uint32_t conditions;
	uint32_t reserved;
};

/* Another address of endpoints[endpoint], after its first. */
struct pb_further_addr {
	union pb_addr addr;
	uint32_t endpoint;
	uint32_t reserved;
};

/*
 * An EndpointSlice of v1 or v1beta1. `service` is the label kubernetes.io/service-name. Since
 * ABI 1.1: `further`, in the order of the endpoints; nearly always there is none.
 */
struct pb_kube_endpointslice {
	struct pb_kube_meta meta;
	const char *service;
	uint32_t family; /* 4, 6, or 0 for an address type that carries no IP */
	uint32_t n_ports;
	uint32_t n_endpoints;
	uint32_t reserved;
	const struct pb_slice_port *ports;
	const struct pb_endpoint_entry *endpoints;
	const struct pb_further_addr *further;
	uint32_t n_further;
	uint32_t reserved2;
};

/* A subset of a v1 Endpoints: every address with every port. */
struct pb_endpoints_subset {
	uint32_t n_ports;
	uint32_t n_endpoints;
	const struct pb_slice_port *ports;
	const struct pb_endpoint_entry *endpoints; /* ready ones; hints and zone are "" */
	const uint8_t *families;		   /* 4 or 6 by endpoint */
};

/* A v1 Endpoints; `truncated`: the control plane left addresses out. */
struct pb_kube_endpoints {
	struct pb_kube_meta meta;
	uint32_t n_subsets;
	uint32_t truncated;
	const struct pb_endpoints_subset *subsets;
};

enum pb_pod_phase {
	PB_POD_PENDING = 0,
	PB_POD_RUNNING = 1,
	PB_POD_SUCCEEDED = 2,
	PB_POD_FAILED = 3,
	PB_POD_UNKNOWN = 4,
};

/* struct pb_kube_pod.flags */
#define PB_POD_HOST_NETWORK (1U << 0)

struct pb_pod_port {
	const char *name;
	struct pb_kube_addr host_ip; /* family 0: any */
	uint16_t container_port;
	uint16_t host_port;
	uint8_t protocol;
	uint8_t reserved[3];
};

struct pb_kube_pod {
	struct pb_kube_meta meta;
	const char *node;
	const char *service_account;
	uint32_t phase; /* enum pb_pod_phase */
	uint32_t flags;
	uint32_t n_ips;
	uint32_t n_ports;
	const struct pb_kube_addr *ips;
	const struct pb_pod_port *ports;
};

enum pb_node_addr_type {
	PB_NODE_INTERNAL_IP = 1,
	PB_NODE_EXTERNAL_IP = 2,
};

struct pb_node_addr {
	struct pb_kube_addr ip;
	uint32_t type; /* enum pb_node_addr_type */
};

struct pb_kube_node {
	struct pb_kube_meta meta;
	const char *zone; /* label topology.kubernetes.io/zone */
	uint32_t n_addrs;
	uint32_t n_pod_cidrs;
	const struct pb_node_addr *addrs;
	const struct pb_cidr *pod_cidrs;
};

/* Labels are in the meta. */
struct pb_kube_namespace {
	struct pb_kube_meta meta;
};

#endif
