/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What should be programmed: Services, their frontends, and who may have a frontend.
 *
 * Owns the rules of docs/behaviour/kpr.md that need no packet: which frontends a Service has,
 * when its backends may be acted on, and who wins when two Services claim the same address and
 * port. Pure: no map, no clock, no host. Keeps the core's pointers, copies no object.
 */
#ifndef KPR_MODEL_H
#define KPR_MODEL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <uthash.h>

#include <patchbay/kube.h>
#include <patchbay/plugin.h>
#include <patchbay/topics/backends.h>

#include "kpr_abi.h"
#include "kpr_parts.h"

struct kpr_front;
struct kpr_pool;	  /* kpr_pools.h */
struct kpr_sources;	  /* kpr_sources.h */
struct kpr_service_extra; /* kpr_hostports.c */

/* A Service wants a frontend. The first claim on a frontend has it, the others wait. */
struct kpr_claim {
	struct kpr_svc *svc;
	struct kpr_front *front;
	struct kpr_claim *next; /* on the same frontend */
	struct kpr_port *port;	/* whose backends stand behind it */
	/* EXT: the frontend that says that there is this one. It is written only with that. */
	struct kpr_front *base;
	uint32_t flags; /* struct pb_svc.flags, but for what follows from the backends */
	bool lost;	/* to another Service, and said so */
};

struct kpr_front {
	UT_hash_handle hh;
	struct pb_svc_key key;
	struct kpr_claim *claims;
	struct kpr_front *prev; /* in kpr_model.gone */
	struct kpr_front *next;
	struct pb_svc value;   /* as it is in the map */
	struct kpr_pool *pool; /* the one that value names, NULL: none */
	struct kpr_sources *sources;
	bool programmed; /* it is in the map */
	bool adopted;	 /* as another process or generation left it */
	bool gone;	 /* nobody claims it any more, waits for deletion */
	uint32_t round;	 /* marks those of the Service that is being taken in */
};

enum kpr_svc_state {
	KPR_SVC_OK = 0,
	KPR_SVC_WAITING = 1, /* nothing is known of its backends yet */
	KPR_SVC_FROZEN = 2,  /* nothing is known any more: stays as it was */
	KPR_SVC_FULL = 3,    /* a map has no room for it: stays as it was */
	KPR_SVC_FAILED = 4,  /* the kernel refused a write; tried again */
};

struct kpr_svc {
	UT_hash_handle hh;
	const struct pb_kube_service *obj; /* NULL: only its backends are known */
	const struct pb_backends_head *head;
	struct kpr_part *parts;
	struct kpr_port *ports;
	struct kpr_change *changes; /* of synced ports, since they were last written */
	struct kpr_claim *claims;
	struct kpr_sources *sources;	 /* its source ranges as they are in the maps; NULL: none */
	struct kpr_service_extra *extra; /* of a pod with host ports: what is made up for it */
	struct kpr_svc *prev;		 /* in kpr_model.dirty */
	struct kpr_svc *next;
	uint64_t hash;
	uint64_t warned; /* hash of the warnings that were said of it */
	uint64_t serial; /* order of appearance */
	uint32_t affinity_s;
	uint32_t n_claims;
	uint32_t n_parts;
	uint32_t n_changes;
	uint32_t cap_changes;
	uint8_t state; /* enum kpr_svc_state */
	bool dirty;
	bool open;	/* a part came and its head not yet */
	bool surplus;	/* more parts than the head spoke of: a backend may be in two */
	bool withdrawn; /* its backends were known once */
	bool fail_open;
	bool stale;   /* its frontends follow from node addresses that are others now */
	bool at_node; /* some of its frontends are at node addresses */
	char key[];
};

/* An address of this node that packets from outside may come to: HostPorts are at all of them. */
struct kpr_address {
	struct pb_kube_addr ip;
	bool node_port; /* NodePorts are at this one */
};

struct kpr_model_opts {
	const char *proxy_name;	      /* label service-proxy-name that means us; "" */
	const char *const *fail_open; /* "NAMESPACE/NAME", ends with NULL; borrowed */
	const char *node;	      /* name of this node */
	bool node_ports;
	bool external_ips;
	bool load_balancer;
	bool host_ports;
	bool maglev; /* for Services that don't say */
	bool cluster_ip_external;
	uint16_t node_port_min;
	uint16_t node_port_max;
	/* Something about an object is wrong: said once as long as it is the same. NULL: nobody. */
	void (*warn)(void *arg, const char *object, const char *text);
	void *warn_arg;
	/* A part goes, or is replaced by `value`. Before it is taken in. NULL: nobody asks. */
	void (*part_goes)(void *arg, const struct pb_backends *old,
			  const struct pb_backends *value);
	void *part_goes_arg;
};

struct kpr_model {
	struct kpr_model_opts opts;
	struct kpr_svc *svcs;
	struct kpr_front *fronts;
	struct kpr_part *parts;
	struct kpr_port *ports;
	struct kpr_svc *dirty;	   /* to be compared with the map */
	struct kpr_front *gone;	   /* to be deleted from the map */
	struct kpr_pool *unwanted; /* whose Service has no such port any more */
	struct kpr_sources *unwanted_sources;
	struct kpr_address *addresses;
	uint32_t n_addresses;
	uint32_t n_services;
	uint32_t n_stale;
	uint32_t round;
	uint64_t next_serial;
	bool sweep_due; /* all is known, and leftovers of another generation go */
	bool adopted;	/* what the map held at start is known */
	bool services_synced;
	bool backends_synced;
	bool pods_synced;
	bool addresses_synced;
	char zone[64]; /* this node's; "" */
};

void kpr_model_init(struct kpr_model *m, const struct kpr_model_opts *opts);
void kpr_model_free(struct kpr_model *m);

/* A frontend found in the map at start. -ENOMEM. kpr_model_adopted(): that was the last one. */
int kpr_model_adopt(struct kpr_model *m, const struct pb_svc_key *key, const struct pb_svc *v,
		    struct kpr_pool *pool);
void kpr_model_adopted(struct kpr_model *m);

/* -ENOMEM: the Service was not taken in. */
int kpr_model_service(struct kpr_model *m, const struct pb_kube_service *obj);
void kpr_model_service_gone(struct kpr_model *m, const struct pb_kube_service *obj);
/* The same under another key than the object's name, for what only looks like a Service. */
int kpr_model_put(struct kpr_model *m, struct kpr_svc *svc, const struct pb_kube_service *obj);
void kpr_model_gone(struct kpr_model *m, struct kpr_svc *svc);
struct kpr_svc *kpr_model_find(const struct kpr_model *m, const char *key);
/* NULL without memory. */
struct kpr_svc *kpr_model_add(struct kpr_model *m, const char *key);
/* Frees what nothing is known of. */
void kpr_model_forget(struct kpr_model *m, struct kpr_svc *svc);
/* A record of topic "backends": a head or a part, as its key says. -ENOMEM, -EINVAL. */
int kpr_model_record(struct kpr_model *m, const struct pb_record *record);
/* The node's addresses are these now. -ENOMEM: the model has those from before. */
int kpr_model_addresses(struct kpr_model *m, const struct kpr_address *list, uint32_t n);
void kpr_model_zone(struct kpr_model *m, const char *zone);
/* Everything of the first full view has come. Once all have, adopted leftovers go. */
void kpr_model_services_synced(struct kpr_model *m);
void kpr_model_backends_synced(struct kpr_model *m);
void kpr_model_pods_synced(struct kpr_model *m);
void kpr_model_addresses_synced(struct kpr_model *m);
/* Leftovers go when it is time: when nothing is dirty, but not in the middle of anything. */
void kpr_model_sweep(struct kpr_model *m);
/* Whether everybody is known who may have a frontend. */
bool kpr_model_owners_known(const struct kpr_model *m);

/* Takes the next one out of `dirty`; NULL at the end. */
struct kpr_svc *kpr_model_next_dirty(struct kpr_model *m);
/* Its frontends anew when it is stale. -ENOMEM: it stays stale. */
int kpr_model_refresh(struct kpr_model *m, struct kpr_svc *svc);
void kpr_model_dirty(struct kpr_model *m, struct kpr_svc *svc);
/* The frontend is out of the map. Frees it unless somebody claimed it meanwhile. */
void kpr_model_deleted(struct kpr_model *m, struct kpr_front *front);

/* Whether all parts are there that the Service's head speaks of, and none newer. */
bool kpr_model_whole(const struct kpr_svc *svc);
/* Nobody wants the pool any more: it goes once no frontend in the map names it. */
void kpr_model_unwanted(struct kpr_model *m, struct kpr_pool *pool);

/* The frontend with this key, NULL when there is none. */
struct kpr_front *kpr_model_front(const struct kpr_model *m, const struct pb_svc_key *key);

/*
 * Whether the claim's frontend may be written now. Not by a Service that waits in the queue for
 * it, nor, before all Services are known, in place of the Service it belonged to at the restart.
 */
bool kpr_claim_may_write(const struct kpr_model *m, const struct kpr_claim *claim);

/* ---- rules on single objects ---- */

uint64_t kpr_hash_name(const char *key);

#endif
