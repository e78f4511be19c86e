/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the files behind node.h share: endpoints, what a CNI plugin announced, the look-up.
 *
 * Owns the state of one struct pb_node. Everything belongs to the loop but what a job on the pool
 * carries itself. An interface belongs to at most one endpoint. Private to core/node.
 */
#ifndef PB_NODE_INTERNAL_H
#define PB_NODE_INTERNAL_H

#include <node/node.h>

#include <uthash.h>
#include <utlist.h>

#include <datapath/links.h>
#include <datapath/netlink.h>
#include <node/announce.h>
#include <node/peers.h>
#include <node/resolve.h>

/* Netlink events come in bursts: a new pod makes a dozen. */
#define NODE_SETTLE_MS 10
/* For what no event announces, such as a pod that answers ARP late. */
#define NODE_RETRY_MS 2000
/* What one visit to the pool looks up at most: closing waits for it. */
#define NODE_LOOKUPS 64
/* Addresses without a pod that wait for a look-up; more are found by looking at all routes. */
#define NODE_CANDIDATES_MAX 1024
/* CNI plugins that wait for their answer; who comes later is told to try again. */
#define NODE_WAITERS_MAX 128

/*
 * An endpoint: an interface that carries pod hooks, or shall. It has a pod (key), unless netlink
 * showed the interface first or the pod went and left it behind.
 */
struct node_ep {
	uint64_t serial; /* never used again: what a job on the pool remembers it by */
	char *key;	 /* NAMESPACE/NAME; NULL: no pod */
	char *ns;
	const char *name; /* inside key */
	char *uid;	  /* "": not known */
	char *older_uid;  /* the pod list's, when a CNI plugin already announced its successor */
	struct pb_kube_addr *ips;
	uint32_t n_ips;
	uint64_t routed;	/* bit N: the kernel leads ips[N] to iface */
	struct pb_endpoint rec; /* as the map pb_endpoints has it */
	struct pb_iface iface;	/* ifindex 0: none */
	bool hooked;		/* both hooks are on iface */
	bool dirty;		/* to be looked up */
	bool had_pod;
	bool in_kube;			/* the pod list has it on this node, with addresses */
	bool restored;			/* from a record, and not seen in the pod list since */
	bool told_addrs;		/* to peers */
	bool disputed;			/* an older endpoint has one of its addresses */
	struct pb_endpoint_record told; /* published last, size 0: nothing */
	int last_code;			/* of the last failure, so that it is logged once */
	char why[160];			/* why it isn't hooked; "" */
	struct node_announce *claim;	/* a CNI plugin announced it */
	pb_node_reply_fn reply;		/* who waits for the hooks and the identity; NULL: nobody */
	void *reply_arg;
	uint64_t deadline_ms; /* of the reply, uv_now() */
	bool recording;	      /* the last step before the reply */
	UT_hash_handle hh;    /* by key */
	UT_hash_handle hh_id;
	UT_hash_handle hh_if;
};

/* An address of a pod CIDR that netlink showed and no endpoint has. */
struct node_candidate {
	struct pb_kube_addr addr;
	UT_hash_handle hh;
};

struct node_record_op {
	struct node_record_op *prev, *next;
	uint32_t id;
	char *text; /* NULL: remove */
	void (*done)(struct pb_node *node, uint64_t serial, int result, const char *text);
	uint64_t serial;
	int result;
	struct pb_err err;
};

struct pb_node {
	uv_loop_t *loop;
	struct pb_dp *dp;
	struct pb_peers *peers;
	struct pb_kube *kube;
	char *name;
	char **devices;
	size_t n_devices;
	struct pb_cidr *cidrs; /* of this node's pods; none: no early attach */
	uint32_t n_cidrs;
	struct pb_cidr refused_cidr; /* warned of */
	struct node_ep *by_key;
	struct node_ep *by_id; /* all of them */
	struct node_ep *by_if;
	uint64_t serials;
	struct node_candidate *candidates;
	struct pb_node_address *addrs; /* of this node's interfaces, as last asked */
	size_t n_addrs;
	bool host_addrs;       /* wanted: this node's own addresses */
	bool scan;	       /* wanted: addresses of pod CIDRs in all routes and neighbours */
	struct mnl_socket *nl; /* of the look-up */
	struct node_lookup *lookup; /* in flight on the pool */
	struct pb_nl_monitor *monitor;
	struct pb_kube_watch *pods;
	struct pb_kube_watch *nodes;
	char *record_dir;
	struct node_record_op *records; /* the first one is on the pool */
	uv_work_t record_work;
	bool loading;
	bool loaded; /* the records of an agent before are in */
	bool closing;
	bool handles_closed;
	bool synced; /* the first list of pods is in */
	bool nodes_synced;
	bool swept;
	uv_timer_t timer;
	uv_timer_t deadlines;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* ---- node.c ---- */

/* Looks at what is dirty in so many milliseconds, or sooner if that was said before. */
void node_schedule(struct pb_node *node, uint64_t ms);
/* What the records say comes before what the lists say. */
void node_watch(struct pb_node *node);
/* Frees the node once it is closing and no job is left. */
void node_finish(struct pb_node *node);
/* True when datapath.devices names it. */
bool node_is_device(const struct pb_node *node, const char *name);

/* ---- endpoints.c: the table ---- */

struct node_ep *node_ep_new(struct pb_node *node, const char *seed);
/* Out of the table and freed; its hooks must be off or somebody else's. */
void node_ep_free(struct pb_node *node, struct node_ep *ep);
struct node_ep *node_ep_by_key(struct pb_node *node, const char *key);
struct node_ep *node_ep_by_ifindex(struct pb_node *node, uint32_t ifindex);
struct node_ep *node_ep_by_serial(struct pb_node *node, uint64_t serial);
struct node_ep *node_ep_by_addr(struct pb_node *node, const struct pb_kube_addr *addr);
/* An endpoint that never had a pod and has one of the addresses. */
struct node_ep *node_ep_early(struct pb_node *node, const struct pb_kube_addr *ips, uint32_t n);
/* -EEXIST: another endpoint has that id. */
int node_ep_set_id(struct pb_node *node, struct node_ep *ep, uint32_t id);
int node_ep_set_pod(struct pb_node *node, struct node_ep *ep, const char *ns, const char *name,
		    const char *uid);
int node_ep_set_uid(struct node_ep *ep, const char *uid);
/* Takes the pod off; the identity is PB_IDENTITY_INIT from then on. */
void node_ep_unset_pod(struct pb_node *node, struct node_ep *ep);
bool node_ep_has_ip(const struct node_ep *ep, const struct pb_kube_addr *addr);
bool node_ep_same_ips(const struct node_ep *ep, const struct pb_kube_addr *ips, uint32_t n);
int node_ep_set_ips(struct node_ep *ep, const struct pb_kube_addr *ips, uint32_t n);
/* A zeroed iface: none. */
void node_ep_set_iface(struct pb_node *node, struct node_ep *ep, const struct pb_iface *iface);
/* Asks for the pod's identity. True: it is another than before. */
bool node_ep_identify(struct pb_node *node, struct node_ep *ep);
/* True when the identity says something about the pod. */
bool node_ep_identified(const struct node_ep *ep);
/* What the log calls it. */
const char *node_ep_str(const struct node_ep *ep);
/* One of its addresses is in this node's pod CIDRs. */
bool node_in_cidrs(const struct pb_node *node, const struct pb_kube_addr *addr);

/* ---- hooks.c: the endpoint and the datapath ---- */

/* Begins to hook. Takes the interface over from an endpoint that has no pod. */
void node_hook(struct pb_node *node, struct node_ep *ep, const struct pb_iface *iface);
void node_unhook(struct pb_node *node, struct node_ep *ep);
/* Writes the record of a hooked endpoint again. */
void node_rewrite(struct pb_node *node, struct node_ep *ep);
void node_on_hooks(void *arg, uint32_t ifindex, int result, const char *text);
/*
 * Takes the pod off its endpoint: what lingers with an address of this node's pods stays hooked,
 * without a pod; else the endpoint ends.
 */
void node_leave_pod(struct pb_node *node, struct node_ep *ep);
/* The device went: so do its hooks, and an endpoint that nothing else keeps. */
void node_device_gone(struct pb_node *node, uint32_t ifindex);
void node_sweep(struct pb_node *node);

/* ---- tell.c ---- */

/* What others know of the endpoint is as it is now. */
void node_tell(struct pb_node *node, struct node_ep *ep);
void node_untell(struct pb_node *node, struct node_ep *ep);

/* ---- host_addrs.c ---- */

/* [pool] All of them, without what only the node knows of their interfaces. */
int node_host_addrs(struct mnl_socket *nl, struct pb_node_address **ret_addrs, size_t *ret_n);
/* Takes the array over and tells who wants to know. */
int node_host_addrs_tell(struct pb_node *node, struct pb_node_address *addrs, size_t n);
/* An interface became something else: asked again when it has an address. `name`: only if new. */
void node_host_addrs_look(struct pb_node *node, uint32_t ifindex, const char *name);

/* ---- lookup.c ---- */

/* Returns false when there is nothing to look at. */
bool node_look_up(struct pb_node *node);
/* Which endpoints an event is about. */
void node_look_all(struct pb_node *node);
void node_look_waiting(struct pb_node *node);
void node_look_device(struct pb_node *node, uint32_t ifindex);
void node_look_prefix(struct pb_node *node, const struct pb_kube_addr *addr, uint32_t bits);

/* ---- early.c ---- */

/* An address that a route or a neighbour shows; nothing to do for most. */
void node_candidate_add(struct pb_node *node, const struct pb_kube_addr *addr);
void node_candidates_free(struct pb_node *node);
/* The look-up of a candidate ended at an interface. */
void node_candidate_found(struct pb_node *node, const struct pb_kube_addr *addr,
			  const struct pb_iface *iface);
/* [pool] All addresses that routes and neighbours show inside the ranges. */
void node_scan(struct mnl_socket *nl, const struct pb_cidr *cidrs, uint32_t n_cidrs,
	       struct pb_kube_addr **ret_addrs, size_t *ret_n);
/* What a message of the monitor says: an address or prefix of a route or neighbour. */
bool node_parse_route(const struct nlmsghdr *msg, struct pb_kube_addr *ret_addr,
		      uint32_t *ret_bits);
bool node_parse_neighbour(const struct nlmsghdr *msg, struct pb_kube_addr *ret_addr,
			  bool *ret_valid);
bool node_cidr_has(const struct pb_cidr *cidr, const struct pb_kube_addr *addr);

/* ---- pods.c ---- */

void node_on_pod(void *arg, const struct pb_kube_event *event);
void node_on_node(void *arg, const struct pb_kube_event *event);

/* ---- claims.c: endpoints that a CNI plugin announced ---- */

/* The hooks or the identity are new: answers who waits when both are there. */
void node_claim_settle(struct pb_node *node, struct node_ep *ep);
/* Answers who waits, if somebody does. */
void node_claim_fail(struct pb_node *node, struct node_ep *ep, int code, const char *text);
/* The announced interface can't be hooked, ever: answers and takes the announcement back. */
void node_claim_refuse(struct pb_node *node, struct node_ep *ep, int code, const char *text);
/* Forgets the announcement and its record. */
void node_claim_drop(struct pb_node *node, struct node_ep *ep);
void node_claim_restore(struct pb_node *node, const struct node_announce *a);
/* The pod list is complete: what only a record knows is gone. */
void node_claims_reconcile(struct pb_node *node);
void node_claims_close(struct pb_node *node);
void node_on_deadline(uv_timer_t *timer);

/* ---- records.c: what the next agent has to know of announced endpoints ---- */

/* Reads them on the pool and hands each to node_claim_restore(); then node->loaded. */
int node_records_load(struct pb_node *node, const char *run_dir, struct pb_err *err);
int node_record_write(struct pb_node *node, const struct node_ep *ep,
		      void (*done)(struct pb_node *node, uint64_t serial, int result,
				   const char *text));
void node_record_remove(struct pb_node *node, uint32_t id);

#endif
