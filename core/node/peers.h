/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is who: identities of pods, nodes and ranges, and the ipcache that programs look them up in.
 *
 * Owns the watches of pods (all of the cluster), namespaces and nodes, the numbers of identities
 * and the two LPM maps. An identity is a set of labels; equal sets have equal numbers, also
 * after a restart, for the maps of plugins that stay pinned speak in numbers. Knows no interface
 * and no endpoint: node.c asks, and is told of changes. Publishes the topics "identities" and
 * "endpoints" by the hooks given to it.
 */
#ifndef PB_PEERS_H
#define PB_PEERS_H

#include <uv.h>

#include <base/json.h>
#include <config/config.h>
#include <datapath/datapath.h>
#include <kube/kube.h>

struct pb_peers;

int pb_peers_new(uv_loop_t *loop, const struct pb_config *config, struct pb_dp *dp,
		 struct pb_kube *kube, struct pb_peers **ret_peers, struct pb_err *err);
/* Another label filter: identities are computed anew, in slices of bounded time. */
int pb_peers_reconfigure(struct pb_peers *peers, const struct pb_config *config,
			 struct pb_err *err);
void pb_peers_close(struct pb_peers *peers, void (*closed)(void *arg), void *arg);

/*
 * The identity of a pod by its labels, PB_IDENTITY_INIT while its labels (or those of its
 * namespace) aren't known. The listener is told of every later change, on the loop, never from
 * inside a call into this header.
 */
uint32_t pb_peers_pod(struct pb_peers *peers, const char *ns, const char *name);
typedef void (*pb_peers_fn)(void *arg, const char *ns, const char *name, uint32_t identity);
void pb_peers_listen(struct pb_peers *peers, pb_peers_fn fn, void *arg);

/*
 * The addresses of a pod of this node, as its endpoint has them; they win over what Kubernetes
 * says. n_ips 0: the endpoint is gone.
 */
int pb_peers_local_pod(struct pb_peers *peers, const char *ns, const char *name,
		       const struct pb_kube_addr *ips, uint32_t n_ips);
/* Addresses of this node's own interfaces, as netlink tells. */
int pb_peers_host_addrs(struct pb_peers *peers, const struct pb_kube_addr *ips, uint32_t n_ips);

/* host->cidr_hold() and cidr_release(): counted by the caller's `owner`. */
int pb_peers_cidr_hold(struct pb_peers *peers, const void *owner, const struct pb_cidr *cidr,
		       uint32_t *ret_identity);
int pb_peers_cidr_release(struct pb_peers *peers, const void *owner, const struct pb_cidr *cidr);
void pb_peers_cidr_release_all(struct pb_peers *peers, const void *owner);

/* Tables for `identity list` and `ip list`; counts and what is missing for `status`. */
cJSON *pb_peers_identities_json(struct pb_peers *peers);
cJSON *pb_peers_ips_json(struct pb_peers *peers);
cJSON *pb_peers_status_json(struct pb_peers *peers);

#endif
