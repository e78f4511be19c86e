/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Nodes and their addresses: this one is the host, the others are remote nodes, or the host too
 * where the configuration says so.
 */
#include <node/peers_private.h>

static struct peer_node *node_find(struct pb_peers *peers, const char *name)
{
	struct peer_node *node;

	HASH_FIND(hh, peers->nodes, name, strlen(name), node);
	return node;
}

struct peer_node *peers_node_get(struct pb_peers *peers, const char *name)
{
	struct peer_node *node = node_find(peers, name);
	size_t len = strlen(name);

	if (node)
		return node;
	node = calloc(1, sizeof(*node) + len + 1);
	if (!node)
		return NULL;
	memcpy(node->name, name, len + 1);
	node->group.by_node = true;
	node->local = strcmp(name, peers->node_name) == 0;
	HASH_ADD_KEYPTR(hh, peers->nodes, node->name, len, node);
	if (!node->hh.tbl) {
		free(node);
		return NULL;
	}
	return node;
}

void peers_node_settle(struct pb_peers *peers, struct peer_node *node)
{
	if (node->obj || node->group.pods)
		return;
	if (node->group.queued)
		DL_DELETE(peers->queue, &node->group);
	HASH_DEL(peers->nodes, node);
	free(node->claims);
	free(node);
}

void peers_nodes_free(struct pb_peers *peers)
{
	struct peer_node *node, *next;

	HASH_ITER (hh, peers->nodes, node, next) {
		node->obj = NULL;
		peers_node_settle(peers, node);
	}
}

/* An address that other nodes reach it by: internal before external. */
static __be32 first_ipv4(const struct pb_kube_node *obj)
{
	__be32 external = 0;

	for (uint32_t i = 0; obj && i < obj->n_addrs; i++) {
		const struct pb_node_addr *addr = &obj->addrs[i];

		if (addr->ip.family != 4)
			continue;
		if (addr->type == PB_NODE_INTERNAL_IP)
			return addr->ip.addr.v4;
		if (!external)
			external = addr->ip.addr.v4;
	}
	return external;
}

static struct pb_ip_says says_of(const struct pb_peers *peers, const struct peer_node *node)
{
	return (struct pb_ip_says){
		.identity = node->local || !peers->remote_node ? PB_IDENTITY_HOST
							       : PB_IDENTITY_REMOTE_NODE,
		.source = node->local ? PB_IP_HOST : PB_IP_REMOTE_NODE,
		.who = node->name,
	};
}

void peers_node_update(struct pb_peers *peers, struct peer_node *node)
{
	const struct pb_ip_says says = says_of(peers, node);
	const uint32_t n = node->obj ? node->obj->n_addrs : 0;
	PB_FREE struct pb_kube_addr *ips = calloc(n + 1UL, sizeof(*ips));
	int rc = ips ? 0 : -ENOMEM;

	for (uint32_t i = 0; rc == 0 && i < n; i++)
		ips[i] = node->obj->addrs[i].ip;
	if (rc == 0)
		rc = peers_claim(peers, &node->claims, &node->n_claims, ips, n, &says);
	if (rc < 0)
		pb_error("node", "node %s: out of memory: its addresses may count as the world",
			 node->name);
}

static void node_put(struct pb_peers *peers, const struct pb_kube_node *obj)
{
	struct peer_node *node = peers_node_get(peers, obj->meta.name);
	__be32 node4 = first_ipv4(obj);
	bool same;

	if (!node) {
		pb_error("node", "node %s: out of memory: its addresses count as the world",
			 obj->meta.name);
		return;
	}
	peers->n_nodes += !node->obj;
	same = node->obj && node->node4 == node4;
	node->obj = obj;
	node->node4 = node4;
	/* Its addresses first, then the pods on it become usable. */
	peers_node_update(peers, node);
	if (node->local)
		peers_own_node(peers, obj);
	if (!same)
		peers_queue(peers, &node->group);
}

static void node_delete(struct pb_peers *peers, const struct pb_kube_node *obj)
{
	struct peer_node *node = node_find(peers, obj->meta.name);

	if (!node || !node->obj)
		return;
	peers->n_nodes--;
	node->obj = NULL;
	node->node4 = 0;
	if (node->local)
		peers_own_node(peers, NULL);
	peers_node_update(peers, node);
	peers_queue(peers, &node->group);
	peers_node_settle(peers, node);
}

static void nodes_synced(struct pb_peers *peers)
{
	struct peer_node *node, *next;

	peers->nodes_synced = true;
	/* Pods on a node that isn't there no longer wait for it. */
	HASH_ITER (hh, peers->nodes, node, next) {
		if (!node->obj)
			peers_queue(peers, &node->group);
	}
	peers_wake(peers);
}

void peers_on_node(void *arg, const struct pb_kube_event *event)
{
	struct pb_peers *peers = arg;

	if (event->kind == PB_KUBE_PUT)
		node_put(peers, event->object);
	else if (event->kind == PB_KUBE_DELETE)
		node_delete(peers, event->object);
	else if (!peers->nodes_synced)
		nodes_synced(peers);
	peers_check_room(peers);
}

int pb_peers_host_addrs(struct pb_peers *peers, const struct pb_kube_addr *ips, uint32_t n_ips)
{
	const struct pb_ip_says says = {.identity = PB_IDENTITY_HOST,
					.source = PB_IP_HOST,
					.who = peers->node_name};
	int rc;

	if (peers->quiet)
		return 0;
	rc = peers_claim(peers, &peers->host_claims, &peers->n_host_claims, ips, n_ips, &says);
	peers_check_room(peers);
	return rc;
}
