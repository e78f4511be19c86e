/* SPDX-License-Identifier: Apache-2.0 */
/* Pods by namespace and by node, and the claims of one owner. */
#include <node/peers_private.h>

void peers_group_add(struct peer_group *group, struct peer_pod *pod)
{
	/* In front of a cursor: whoever adds a pod brings it up to date by himself. */
	if (group->by_node)
		DL_PREPEND2(group->pods, pod, node_prev, node_next);
	else
		DL_PREPEND2(group->pods, pod, ns_prev, ns_next);
}

void peers_group_remove(struct peer_group *group, struct peer_pod *pod)
{
	if (group->cursor == pod)
		group->cursor = group->by_node ? pod->node_next : pod->ns_next;
	if (group->by_node)
		DL_DELETE2(group->pods, pod, node_prev, node_next);
	else
		DL_DELETE2(group->pods, pod, ns_prev, ns_next);
}

static int claim_each(struct pb_peers *peers, struct pb_ip_claim *claims,
		      const struct pb_kube_addr *ips, uint32_t n_ips, const struct pb_ip_says *says)
{
	int rc = 0;

	for (uint32_t i = 0; i < n_ips && rc == 0; i++) {
		struct pb_cidr prefix = pb_ip_prefix(&ips[i]);

		rc = pb_ipcache_claim(peers->ipcache, &claims[i], &prefix, says);
	}
	return rc;
}

int peers_claim(struct pb_peers *peers, struct pb_ip_claim **claims, uint32_t *n_claims,
		const struct pb_kube_addr *ips, uint32_t n_ips, const struct pb_ip_says *says)
{
	struct pb_ip_claim *old = *claims, *new = NULL;
	int rc;

	if (n_ips == *n_claims)
		return claim_each(peers, old, ips, n_ips, says);
	if (n_ips > 0) {
		new = calloc(n_ips, sizeof(*new));
		if (!new)
			return -ENOMEM;
	}
	rc = claim_each(peers, new, ips, n_ips, says);
	for (uint32_t i = 0; i < *n_claims; i++)
		pb_ipcache_unclaim(peers->ipcache, &old[i]);
	free(old);
	*claims = new;
	*n_claims = n_ips;
	return rc;
}
