/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pods of this node and the host sides of their interfaces.
 *
 * Owns the mapping pod -> ifindex -> endpoint and keeps the datapath's pod hooks in step with
 * it. Finds interfaces by netlink, whatever the CNI, or is told by a CNI plugin. Never attaches to
 * a device that datapath.devices names.
 */
#ifndef PB_NODE_H
#define PB_NODE_H

#include <uv.h>

#include <base/json.h>
#include <config/config.h>
#include <datapath/datapath.h>
#include <kube/kube.h>
#include <node/peers.h>

struct pb_node;

/*
 * Watches pods of config->node.name, that Node, and link, route and neighbour changes. Listens to
 * peers, and tells them of endpoints and of this node's addresses.
 */
int pb_node_new(uv_loop_t *loop, const struct pb_config *config, struct pb_dp *dp,
		struct pb_kube *kube, struct pb_peers *peers, struct pb_node **ret_node,
		struct pb_err *err);
/*
 * Tells peers of this node's addresses before there is a node: plugins that are loaded first find
 * them all. Blocks for some milliseconds; called once at start.
 */
int pb_node_first_addresses(const struct pb_config *config, struct pb_dp *dp,
			    struct pb_peers *peers, struct pb_err *err);
/*
 * Another datapath.devices, before pb_dp_reconfigure(): pods' interfaces that it names are let go
 * of at once. Configurations are copied, here and in pb_node_new().
 */
int pb_node_reconfigure(struct pb_node *node, const struct pb_config *config, struct pb_err *err);
/* Whoever waits for an endpoint is answered first. */
void pb_node_close(struct pb_node *node, void (*closed)(void *arg), void *arg);
/*
 * Table: pod, endpoint (id), identity, interface ("" while its hooks aren't on), ifindex, state
 * ("hooked", "init", "waiting"), reason, source ("cni", "netlink"), addresses.
 */
cJSON *pb_node_json(struct pb_node *node);
/* Counts by state, and whether early attach works; for `status`. */
cJSON *pb_node_status_json(struct pb_node *node);

/* Called exactly once. result 0: json may be an answer (to be freed); else a negative errno. */
typedef void (*pb_node_reply_fn)(void *arg, int result, const char *text, cJSON *json);
/*
 * What a CNI plugin says, as JSON (docs/design/node.md). Add answers when both hooks are on and the
 * identity is known, or with -ETIMEDOUT after "timeout_ms", and then nothing is left of it.
 * Delete of what isn't there succeeds. Check answers at once.
 */
void pb_node_endpoint_add(struct pb_node *node, const char *json, pb_node_reply_fn reply,
			  void *arg);
void pb_node_endpoint_delete(struct pb_node *node, const char *json, pb_node_reply_fn reply,
			     void *arg);
void pb_node_endpoint_check(struct pb_node *node, const char *json, pb_node_reply_fn reply,
			    void *arg);

#endif
