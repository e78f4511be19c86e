/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is who: identities of pods, nodes and ranges, and the ipcache that programs look them up in.
 *
 * Owns the watches of pods (all of the cluster), namespaces and nodes, the numbers of identities
 * and the two LPM maps. An identity is a set of labels; equal sets have equal numbers, also
 * after a restart, for the maps of plugins that stay pinned speak in numbers. Knows no interface
 * and no endpoint: node.c asks, and is told of changes. Publishes the topics "identities",
 * "endpoints" and "node-addresses" by the hooks given to it.
 */
#ifndef PB_PEERS_H
#define PB_PEERS_H

#include <uv.h>

#include <base/json.h>
#include <config/config.h>
#include <datapath/datapath.h>
#include <kube/kube.h>
#include <patchbay/topics/endpoints.h>
#include <patchbay/topics/node_addresses.h>

struct pb_peers;

/*
 * Adopts the pinned maps and watches pods, namespaces and nodes. Blocks while it reads the maps;
 * called once at start. Configurations are copied, here and in pb_peers_reconfigure().
 */
int pb_peers_new(uv_loop_t *loop, const struct pb_config *config, struct pb_dp *dp,
		 struct pb_kube *kube, struct pb_peers **ret_peers, struct pb_err *err);
/*
 * Another label filter, cluster name or rule for nodes: identities are computed anew, in slices of
 * bounded time. On error the old ones stay in force.
 */
int pb_peers_reconfigure(struct pb_peers *peers, const struct pb_config *config,
			 struct pb_err *err);
/*
 * The agent ends: from now on no map is written, nobody is told anything, and all functions below
 * do nothing. Before the plugin manager and node.c are closed, whose releases would else empty
 * what the datapath goes on with.
 */
void pb_peers_quiesce(struct pb_peers *peers);
void pb_peers_close(struct pb_peers *peers, void (*closed)(void *arg), void *arg);

/* Where topics go: pb_manager_publish() and pb_manager_synced(). */
struct pb_peers_topics {
	/* value NULL: withdraw. Reports its failures itself. */
	int (*publish)(void *arg, const char *topic, uint32_t version, const char *key,
		       const void *value, size_t len);
	void (*synced)(void *arg, const char *topic);
	void *arg;
};
/* Publishes what there is, and every change from now on. Once. */
void pb_peers_publish_to(struct pb_peers *peers, const struct pb_peers_topics *topics);
/*
 * The record of an endpoint for the topic "endpoints"; NULL withdraws it. While it is published
 * its identity is. -ENOENT: there is none to withdraw, or no such identity.
 */
int pb_peers_publish_endpoint(struct pb_peers *peers, const char *ns, const char *name,
			      const struct pb_endpoint_record *record);
/* Every pod of the first full list has been looked at. */
void pb_peers_endpoints_synced(struct pb_peers *peers);

/*
 * The identity of a pod by its labels, PB_IDENTITY_HOST for one of the host's network.
 * PB_IDENTITY_UNKNOWN: its labels (or those of its namespace) aren't known yet; what an earlier
 * agent knew of it may stay. PB_IDENTITY_INIT: they are, and there is no number for them; what was
 * known of it before is wrong. The listener is told of every later change of a pod of this node
 * but to unknown, on the loop, never from inside a call into this header. While it is being told
 * the old identity is still published.
 */
uint32_t pb_peers_pod(struct pb_peers *peers, const char *ns, const char *name);
typedef void (*pb_peers_fn)(void *arg, const char *ns, const char *name, uint32_t identity);
void pb_peers_listen(struct pb_peers *peers, pb_peers_fn fn, void *arg);

/*
 * The addresses of a pod of this node, as its endpoint has them; they win over what Kubernetes
 * says. n_ips 0: the endpoint is gone. -ENOMEM.
 */
int pb_peers_local_pod(struct pb_peers *peers, const char *ns, const char *name,
		       const struct pb_kube_addr *ips, uint32_t n_ips);
/* All addresses of this node's own interfaces, as netlink tells. -ENOMEM. */
int pb_peers_host_addrs(struct pb_peers *peers, const struct pb_kube_addr *ips, uint32_t n_ips);
/*
 * The same with their interfaces, for the topic "node-addresses"; an address may be there more than
 * once. What the Node object says of them is added. -ENOMEM.
 */
int pb_peers_node_addresses(struct pb_peers *peers, const struct pb_node_address *addrs,
			    uint32_t n);

/*
 * host->cidr_hold() and cidr_release(): counted by the caller's `owner`. -EINVAL: bits outside of
 * the prefix, or no such family; -ENOSPC: no number, or no room in the ipcache; -ENOENT: this owner
 * doesn't hold it.
 */
int pb_peers_cidr_hold(struct pb_peers *peers, const void *owner, const struct pb_cidr *cidr,
		       uint32_t *ret_identity);
int pb_peers_cidr_release(struct pb_peers *peers, const void *owner, const struct pb_cidr *cidr);
void pb_peers_cidr_release_all(struct pb_peers *peers, const void *owner);

/*
 * A page of a table for `identity list` and `ip list`: rows that the filter lets through, behind
 * the place `after` ("" or NULL: from the start). The member "next" is the place where the page
 * ended; without it there is no more. A page takes about a millisecond, whatever there is, and may
 * be empty. NULL and err: the filter or the place makes no sense.
 */
cJSON *pb_peers_identities_json(struct pb_peers *peers, const char *filter, const char *after,
				struct pb_err *err);
cJSON *pb_peers_ips_json(struct pb_peers *peers, const char *filter, const char *after,
			 struct pb_err *err);
/* Counts and what is missing, for `status`. */
cJSON *pb_peers_status_json(struct pb_peers *peers);

/* The same counts for metrics. */
struct pb_peers_counts {
	uint32_t pods;
	uint32_t pods_without_identity;
	uint32_t nodes;
	uint32_t identities; /* of pods, held */
	uint32_t identities_kept;
	uint32_t identities_max;
	uint32_t ranges; /* identities of ranges, held */
	uint32_t ranges_max;
	uint32_t ipcache4; /* entries */
	uint32_t ipcache6;
	uint32_t ipcache_max; /* of each */
	uint32_t ipcache_waiting;
	bool synced;
};
void pb_peers_count(struct pb_peers *peers, struct pb_peers_counts *ret_counts);

#endif
