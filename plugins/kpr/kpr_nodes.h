/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The addresses of this node: at which of them NodePorts and HostPorts are served, and which one
 * translated packets leave with.
 *
 * Owns the rules by which they are chosen. Pure: no map, no clock, no host. Keeps the publisher's
 * pointers. Never chooses an address of the loopback interface, a link-local one, or one of a pod.
 */
#ifndef KPR_NODES_H
#define KPR_NODES_H

#include <stdbool.h>
#include <stdint.h>

#include <uthash.h>

#include <patchbay/kube.h>
#include <patchbay/topics/node_addresses.h>

#include "kpr_model.h"

/* Which addresses have NodePorts, section node_port.addresses of the configuration. */
struct kpr_node_rule {
	struct pb_cidr *cidrs; /* none: those of the devices, and the node's by its Node object */
	uint32_t n_cidrs;
	bool primary; /* only one of each family */
};

struct kpr_node_entry {
	UT_hash_handle hh;
	const struct pb_node_address *value;
	char key[];
};

struct kpr_nodes {
	struct kpr_node_rule rule; /* borrowed */
	struct kpr_node_entry *entries;
};

void kpr_nodes_init(struct kpr_nodes *n, const struct kpr_node_rule *rule);
void kpr_nodes_free(struct kpr_nodes *n);
/* `value` NULL: it is gone. -ENOMEM. */
int kpr_nodes_put(struct kpr_nodes *n, const char *key, const struct pb_node_address *value);
/* Tells the model the addresses as they are now. -ENOMEM. */
int kpr_nodes_tell(const struct kpr_nodes *n, struct kpr_model *m);
/* The address that packets of a family leave with. False: there is none. */
bool kpr_nodes_primary(const struct kpr_nodes *n, uint32_t family, union pb_addr *ret_addr);
/* Whether a range of the rule has an address of the node in it. */
bool kpr_nodes_match(const struct kpr_nodes *n, const struct pb_cidr *cidr);

#endif
