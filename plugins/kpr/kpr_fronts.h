/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which frontends a Service has.
 *
 * Owns the rules on Service objects alone: their types, addresses, ports, traffic policies and
 * annotations. Pure: no map, no clock, no host; never looks at backends or at other Services.
 */
#ifndef KPR_FRONTS_H
#define KPR_FRONTS_H

#include <stdbool.h>
#include <stdint.h>

#include <patchbay/kube.h>

#include "kpr_abi.h"
#include "kpr_model.h"

/* struct pb_kube_service.type of what is made up for the host ports of a pod. */
#define KPR_TYPE_HOST_PORT 100

/*
 * Of one Service. Ports times addresses is what a user wrote down: without a limit one small object
 * keeps the agent from its work until it is taken for a crash.
 */
#define KPR_FRONTS_MAX 65536U

/* A frontend that a Service is to have. */
struct kpr_wish {
	struct pb_svc_key key;
	struct pb_kube_addr ip;
	const struct pb_service_port *port;
	uint16_t number; /* the port in host byte order */
	uint32_t flags;	 /* struct pb_svc.flags that follow from the object */
	bool local;	 /* backends of this node only */
	bool outside;	 /* packets from outside of the node are served by this entry */
	bool at_node;	 /* at an address of this node */
	const char *why; /* not NULL: it can't be had */
};

/* An error of it ends the walk. */
typedef int (*kpr_wish_fn)(void *arg, const struct kpr_wish *wish);

/*
 * Every frontend of the Service up to KPR_FRONTS_MAX, the same each time. One with scope EXT
 * follows right behind that with scope INT that has PB_SVC_SPLIT.
 */
int kpr_fronts_each(const struct kpr_model *m, const struct pb_kube_service *obj, kpr_wish_fn fn,
		    void *arg);
/* Whether the Service has frontends at all. */
bool kpr_fronts_any(const struct pb_kube_service *obj, const char *proxy_name);
/* Seconds of session affinity; 0: none. */
uint32_t kpr_fronts_affinity(const struct pb_kube_service *obj);
/* What is wrong with the object, line by line; "" when nothing is. */
void kpr_fronts_warnings(const struct kpr_model *m, const struct pb_kube_service *obj, char *text,
			 size_t len);

/* "NodePort" and so on. */
const char *kpr_kind_name(uint32_t kind);

#endif
