/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pods of this node and the host sides of their interfaces.
 *
 * Owns the mapping pod -> ifindex -> endpoint and keeps the datapath's pod hooks in step with
 * it. Finds interfaces by netlink, whatever the CNI. Never attaches to a device that
 * datapath.devices names.
 */
#ifndef PB_NODE_H
#define PB_NODE_H

#include <uv.h>

#include <base/json.h>
#include <config/config.h>
#include <datapath/datapath.h>
#include <kube/kube.h>

struct pb_node;

/* Watches pods of config->node.name and link and route changes. */
int pb_node_new(uv_loop_t *loop, const struct pb_config *config, struct pb_dp *dp,
		struct pb_kube *kube, struct pb_node **ret_node, struct pb_err *err);
/*
 * Another datapath.devices, before pb_dp_reconfigure(): pods' interfaces that it names are let go
 * of at once. Configurations are copied, here and in pb_node_new().
 */
int pb_node_reconfigure(struct pb_node *node, const struct pb_config *config, struct pb_err *err);
void pb_node_close(struct pb_node *node, void (*closed)(void *arg), void *arg);
/* Table: pod, endpoint (id), interface ("" while its hooks aren't on), ifindex, addresses. */
cJSON *pb_node_json(struct pb_node *node);

#endif
