/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Inside of struct pb_peers: what the files peers*.c share.
 *
 * Owns one rule: whatever uses an identity holds a reference to it, takes the new one before it
 * lets go of the old, and the ipcache and the listener change in between. So an identity is always
 * published while somebody can meet its number.
 */
#ifndef PB_PEERS_PRIVATE_H
#define PB_PEERS_PRIVATE_H

#define HASH_NONFATAL_OOM 1
#include <uthash.h>
#include <utlist.h>

#include <base/log.h>
#include <node/identity.h>
#include <node/ipcache.h>
#include <node/labels.h>
#include <node/peers.h>

/* What one turn of the loop spends here at most, apart from single events. */
#define PEERS_SLICE_NS (1000 * 1000ULL)
/*
 * How long adopted ranges wait for a plugin that holds them again. Long: without the range a rule
 * that denies it would not.
 */
#define PEERS_RANGES_NS (300 * 1000000000ULL)

/*
 * How long pods wait for a namespace that exists by their word only: the watches of pods and of
 * namespaces are two streams, and either may be ahead.
 */
#define PEERS_NS_WAIT_NS (10 * 1000000000ULL)

struct peer_pod;

/* Pods that one change touches: of a namespace or on a node. */
struct peer_group {
	struct peer_pod *pods;
	struct peer_pod *cursor; /* the next to look at, while queued */
	bool by_node;
	bool queued;
	bool again; /* it changed while queued: one more pass, behind the others */
	struct peer_group *prev, *next; /* in the queue */
};

struct peer_ns {
	UT_hash_handle hh;
	struct peer_group group;
	const struct pb_kube_namespace *obj; /* NULL: not known, pods only name it */
	uint64_t missing_until;		     /* 0: not in the list `missing` */
	struct peer_ns *miss_prev, *miss_next;
	char name[];
};

struct peer_node {
	UT_hash_handle hh;
	struct peer_group group;
	const struct pb_kube_node *obj;
	struct pb_ip_claim *claims;
	uint32_t n_claims;
	__be32 node4;
	bool local;
	char name[];
};

struct peer_pod {
	UT_hash_handle hh;
	struct peer_ns *ns;
	struct peer_node *node; /* NULL: not on a node yet */
	struct peer_pod *ns_prev, *ns_next;
	struct peer_pod *node_prev, *node_next;
	const struct pb_kube_pod *obj; /* NULL: only its endpoint is known */
	struct pb_ident *ident;
	struct pb_ident *published; /* in the topic "endpoints" */
	bool is_published;
	bool starved;	 /* there was no number for it */
	uint32_t number; /* what the listener and the ipcache were told */
	struct pb_ip_claim *claims;
	uint32_t n_claims;
	struct pb_kube_addr *local_ips; /* of its endpoint */
	uint32_t n_local;
	char key[]; /* NAMESPACE/NAME */
};

struct peer_hold {
	struct peer_hold *next;
	const void *owner;
	uint32_t count;
};

struct peer_cidr {
	UT_hash_handle hh;
	struct pb_cidr prefix;
	struct pb_ident *ident;
	struct pb_ip_claim claim;
	struct peer_hold *holds;
	bool unheld; /* in the list of those to let go of */
	struct peer_cidr *prev, *next;
};

enum peer_map {
	PEER_IPCACHE4 = 0,
	PEER_IPCACHE6 = 1,
	PEER_IDENTITIES = 2,
	PEER_MAPS = 3,
};

struct pb_peers {
	uv_loop_t *loop;
	uv_idle_t idle;	  /* runs while there is work in slices */
	uv_timer_t timer; /* runs while something waits for its time */
	struct pb_map *maps[PEER_MAPS];
	struct pb_idents *idents;
	struct pb_ipcache *ipcache;

	char *cluster;
	char *node_name;
	bool remote_node; /* other nodes are remote-node, not host */
	struct pb_label_filter *filter;
	struct pb_buf labels; /* room for one label set */

	struct pb_kube_watch *watches[3];
	bool ns_synced, nodes_synced, pods_synced;
	struct peer_pod *pods;
	struct peer_ns *namespaces;
	struct peer_ns *missing; /* those that pods still wait for, the oldest first */
	struct peer_node *nodes;
	struct peer_group *queue;
	struct pb_ip_claim *host_claims;
	uint32_t n_host_claims;
	struct peer_cidr *cidrs;
	struct peer_cidr *unheld;

	bool announced;	    /* the first full view is in */
	bool swept;	    /* pods and nodes of an earlier process are gone */
	uint64_t ranges_at; /* when its ranges go; 0: they have, or not yet known */
	bool ranges_due;
	uint32_t n_pods, n_nodes, n_namespaces, n_starved;
	unsigned starved_ticks;
	bool full; /* the ipcache had no room, and that was said */

	pb_peers_fn listener;
	void *listener_arg;
	struct pb_peers_topics topics;
	struct pb_buf record; /* room for one record */
	bool endpoints_synced;
	struct pb_node_address *netlink_addrs; /* of this node's interfaces */
	struct pb_node_address *node_addrs;    /* as published, by address */
	uint32_t n_netlink_addrs, n_node_addrs;
	bool addrs_known;
	const struct pb_kube_node *own_node; /* NULL: not known */
	bool quiet;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* ---- peers.c ---- */

/* There is work for the idle callback. */
void peers_wake(struct pb_peers *peers);
/* Something waits for its time. */
void peers_arm(struct pb_peers *peers);
void peers_queue(struct pb_peers *peers, struct peer_group *group);
void peers_queue_all(struct pb_peers *peers);
/* Reports once that the ipcache has no room, and once that it has some again. */
void peers_check_room(struct pb_peers *peers);

/* ---- peers_maps.c ---- */

int peers_maps_open(struct pb_peers *peers, struct pb_dp *dp, struct pb_err *err);
void peers_maps_close(struct pb_peers *peers);

/* ---- peers_pods.c ---- */

void peers_on_pod(void *arg, const struct pb_kube_event *event);
void peers_on_namespace(void *arg, const struct pb_kube_event *event);
/* Brings a pod in line with what is known of it, its namespace and its node. */
void peers_pod_update(struct pb_peers *peers, struct peer_pod *pod);
/* The record of a pod, made when there is none; NULL without memory. */
struct peer_pod *peers_pod_get(struct pb_peers *peers, const char *ns, const char *name);
/* Frees a pod that nobody knows any more. */
void peers_pod_settle(struct pb_peers *peers, struct peer_pod *pod);
void peers_pods_free(struct pb_peers *peers);
/* Namespaces that were waited for long enough count as ones without labels. */
void peers_ns_expire(struct pb_peers *peers);

/* ---- peers_nodes.c ---- */

void peers_on_node(void *arg, const struct pb_kube_event *event);
struct peer_node *peers_node_get(struct pb_peers *peers, const char *name);
void peers_node_settle(struct pb_peers *peers, struct peer_node *node);
void peers_node_update(struct pb_peers *peers, struct peer_node *node);
void peers_nodes_free(struct pb_peers *peers);

/* ---- peers_group.c ---- */

void peers_group_add(struct peer_group *group, struct peer_pod *pod);
void peers_group_remove(struct peer_group *group, struct peer_pod *pod);
/*
 * Makes the claims of an owner those for `ips`: new ones first. The old array is freed when it has
 * another size.
 */
int peers_claim(struct pb_peers *peers, struct pb_ip_claim **claims, uint32_t *n_claims,
		const struct pb_kube_addr *ips, uint32_t n_ips, const struct pb_ip_says *says);

/* ---- peers_cidr.c ---- */

/* Lets go of up to `max` ranges that nobody holds. True: there are more. */
bool peers_cidr_drop(struct pb_peers *peers, unsigned max);
void peers_cidr_free(struct pb_peers *peers);

/* ---- peers_topics.c ---- */

/* pb_ident_env.publish and .withdraw. */
void peers_publish_identity(void *arg, const struct pb_ident *ident);
void peers_withdraw_identity(void *arg, const struct pb_ident *ident);
/* The first full view is in. */
void peers_announce(struct pb_peers *peers);

/* ---- peers_addresses.c ---- */

/* Another object of this node, or none. */
void peers_own_node(struct pb_peers *peers, const struct pb_kube_node *obj);
void peers_publish_addresses(struct pb_peers *peers);
void peers_addresses_free(struct pb_peers *peers);

/* The prefix of a range's identity, by its labels; family 0 for a pod's. */
struct pb_cidr peers_cidr_of(const struct pb_ident *ident);

#endif
