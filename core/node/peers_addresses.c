/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The topic "node-addresses": what netlink shows of this node's interfaces, and what its Node
 * object says of the addresses.
 *
 * Owns the records as they were published last, in order, so that only what changed is told.
 */
#include <node/peers_private.h>

#include <arpa/inet.h>

static int by_address(const void *a, const void *b)
{
	const struct pb_node_address *x = a, *y = b;

	if (x->family != y->family)
		return x->family < y->family ? -1 : 1;
	return memcmp(&x->addr, &y->addr, sizeof(x->addr));
}

/* Devices first, loopback last. */
static int place(const struct pb_node_address *a)
{
	return a->flags & PB_NODE_ADDR_DEVICE ? 0 : a->flags & PB_NODE_ADDR_LOOPBACK ? 2 : 1;
}

static int by_address_and_place(const void *a, const void *b)
{
	const struct pb_node_address *x = a, *y = b;
	int order = by_address(a, b);

	if (order == 0)
		order = place(x) - place(y);
	return order ? order : x->ifindex < y->ifindex ? -1 : x->ifindex > y->ifindex;
}

/* Sorted, each address once, as the interface that comes first has it. */
static uint32_t sort_unique(struct pb_node_address *addrs, uint32_t n)
{
	uint32_t kept = 0;

	qsort(addrs, n, sizeof(*addrs), by_address_and_place);
	for (uint32_t i = 0; i < n; i++)
		if (kept == 0 || by_address(&addrs[kept - 1], &addrs[i]) != 0)
			addrs[kept++] = addrs[i];
	return kept;
}

static void add_kube_flags(const struct pb_kube_node *obj, struct pb_node_address *addrs,
			   uint32_t n)
{
	for (uint32_t i = 0; obj && i < obj->n_addrs; i++) {
		const struct pb_node_addr *from = &obj->addrs[i];
		struct pb_node_address key = {.family = (uint8_t)from->ip.family,
					      .addr = from->ip.addr};
		struct pb_node_address *a = bsearch(&key, addrs, n, sizeof(*addrs), by_address);

		if (!a)
			continue;
		if (from->type == PB_NODE_INTERNAL_IP)
			a->flags |= PB_NODE_ADDR_INTERNAL;
		else if (from->type == PB_NODE_EXTERNAL_IP)
			a->flags |= PB_NODE_ADDR_EXTERNAL;
	}
}

static void publish(struct pb_peers *peers, const struct pb_node_address *a, bool there)
{
	char key[INET6_ADDRSTRLEN];

	if (peers->topics.publish &&
	    inet_ntop(a->family == 6 ? AF_INET6 : AF_INET, &a->addr, key, sizeof(key)))
		peers->topics.publish(peers->topics.arg, PB_TOPIC_NODE_ADDRESSES,
				      PB_TOPIC_NODE_ADDRESSES_VERSION, key, there ? a : NULL,
				      there ? sizeof(*a) : 0);
}

/* New ones before old ones go: whoever moves from one to the other finds it there. */
static void publish_changes(struct pb_peers *peers, const struct pb_node_address *now, uint32_t n)
{
	const struct pb_node_address *was = peers->node_addrs;
	const uint32_t n_was = peers->n_node_addrs;

	for (uint32_t i = 0; i < n; i++) {
		const struct pb_node_address *old =
			n_was ? bsearch(&now[i], was, n_was, sizeof(*was), by_address) : NULL;

		if (!old || memcmp(old, &now[i], sizeof(*old)) != 0)
			publish(peers, &now[i], true);
	}
	for (uint32_t i = 0; i < n_was; i++)
		if (!n || !bsearch(&was[i], now, n, sizeof(*now), by_address))
			publish(peers, &was[i], false);
}

static int update(struct pb_peers *peers)
{
	struct pb_node_address *now = calloc(peers->n_netlink_addrs + 1UL, sizeof(*now));
	uint32_t n = peers->n_netlink_addrs;

	if (!now)
		return -ENOMEM;
	if (n)
		memcpy(now, peers->netlink_addrs, n * sizeof(*now));
	n = sort_unique(now, n);
	add_kube_flags(peers->own_node, now, n);
	publish_changes(peers, now, n);
	free(peers->node_addrs);
	peers->node_addrs = now;
	peers->n_node_addrs = n;
	return 0;
}

static void tell_synced(struct pb_peers *peers)
{
	if (peers->addrs_known && peers->topics.synced)
		peers->topics.synced(peers->topics.arg, PB_TOPIC_NODE_ADDRESSES);
}

int pb_peers_node_addresses(struct pb_peers *peers, const struct pb_node_address *addrs, uint32_t n)
{
	struct pb_node_address *copy;
	int rc;

	if (peers->quiet)
		return 0;
	copy = calloc(n + 1UL, sizeof(*copy));
	if (!copy)
		return -ENOMEM;
	if (n)
		memcpy(copy, addrs, n * sizeof(*copy));
	free(peers->netlink_addrs);
	peers->netlink_addrs = copy;
	peers->n_netlink_addrs = n;
	rc = update(peers);
	if (rc < 0 || peers->addrs_known)
		return rc;
	peers->addrs_known = true;
	tell_synced(peers);
	return 0;
}

void peers_own_node(struct pb_peers *peers, const struct pb_kube_node *obj)
{
	peers->own_node = obj;
	if (update(peers) < 0)
		pb_error("node", "addresses of this node: out of memory: plugins don't learn of "
				 "what its Node object says");
}

void peers_publish_addresses(struct pb_peers *peers)
{
	for (uint32_t i = 0; i < peers->n_node_addrs; i++)
		publish(peers, &peers->node_addrs[i], true);
	tell_synced(peers);
}

void peers_addresses_free(struct pb_peers *peers)
{
	free(peers->netlink_addrs);
	free(peers->node_addrs);
}
