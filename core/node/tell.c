/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What others learn of endpoints: peers their addresses, plugins the topic "endpoints".
 *
 * Owns when they are told. An endpoint without a pod is nobody's, and nobody is told of it.
 */
#include <node/internal.h>

#include <base/log.h>

static void record_fill(const struct node_ep *ep, struct pb_endpoint_record *record)
{
	static const union pb_addr none;

	*record = (struct pb_endpoint_record){
		.size = sizeof(*record),
		.id = ep->rec.id,
		.identity = ep->rec.identity,
		.ifindex = ep->iface.ifindex,
		.addr4 = ep->rec.addr4,
		.addr6 = ep->rec.addr6,
	};
	if (ep->hooked)
		record->flags |= PB_ENDPOINT_HOOKED;
	if (memcmp(&none, &ep->rec.addr4, sizeof(none)) != 0)
		record->flags |= PB_ENDPOINT_IPV4;
	if (memcmp(&none, &ep->rec.addr6, sizeof(none)) != 0)
		record->flags |= PB_ENDPOINT_IPV6;
	memcpy(record->ifname, ep->iface.name, sizeof(record->ifname));
}

static int publish(struct pb_node *node, struct node_ep *ep)
{
	struct pb_endpoint_record record;
	int rc;

	record_fill(ep, &record);
	if (memcmp(&record, &ep->told, sizeof(record)) == 0)
		return 0;
	rc = pb_peers_publish_endpoint(node->peers, ep->ns, ep->name, &record);
	if (rc == -ENOENT) {
		/* The number is of an agent before; what it means isn't known again yet. */
		record.identity = PB_IDENTITY_INIT;
		rc = memcmp(&record, &ep->told, sizeof(record)) == 0
			     ? 0
			     : pb_peers_publish_endpoint(node->peers, ep->ns, ep->name, &record);
	}
	ep->told = record;
	return rc;
}

/* Those that the endpoint is certain of. */
static uint32_t own_addrs(const struct node_ep *ep, struct pb_kube_addr addrs[64])
{
	uint32_t n = 0;

	for (uint32_t i = 0; i < ep->n_ips && i < 64; i++)
		if (ep->claim || ep->routed & 1ULL << i)
			addrs[n++] = ep->ips[i];
	return n;
}

void node_tell(struct pb_node *node, struct node_ep *ep)
{
	struct pb_kube_addr addrs[64];
	uint32_t n = ep->hooked && !ep->disputed ? own_addrs(ep, addrs) : 0;
	int rc;

	if (!ep->key)
		return;
	rc = publish(node, ep);
	if (rc == 0 && n) {
		rc = pb_peers_local_pod(node->peers, ep->ns, ep->name, addrs, n);
		ep->told_addrs = true;
	} else if (ep->told_addrs) {
		pb_peers_local_pod(node->peers, ep->ns, ep->name, NULL, 0);
		ep->told_addrs = false;
	}
	if (rc < 0)
		pb_error("node", "pod %s: plugins don't learn of its endpoint: %s", ep->key,
			 strerror(-rc));
}

void node_untell(struct pb_node *node, struct node_ep *ep)
{
	if (!ep->key)
		return;
	if (ep->told_addrs)
		pb_peers_local_pod(node->peers, ep->ns, ep->name, NULL, 0);
	if (ep->told.size)
		pb_peers_publish_endpoint(node->peers, ep->ns, ep->name, NULL);
	ep->told_addrs = false;
	ep->told = (struct pb_endpoint_record){0};
}
