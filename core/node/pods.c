/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the list of pods and this node's own object say of endpoints.
 *
 * Owns the rule which pods belong here. A pod of the same name with another uid is another pod;
 * a pod list that lags behind a CNI plugin takes nothing away.
 */
#include <node/internal.h>

#include <arpa/inet.h>

#include <base/log.h>

/* No cluster gives one node more. */
#define CIDR4_BITS_MIN 8
#define CIDR6_BITS_MIN 16

static bool is_here(const struct pb_node *node, const struct pb_kube_pod *pod)
{
	return strcmp(pod->node, node->name) == 0 && !(pod->flags & PB_POD_HOST_NETWORK) &&
	       (pod->phase == PB_POD_PENDING || pod->phase == PB_POD_RUNNING);
}

/*
 * Another pod of the same name follows the endpoint's, unless a CNI plugin announced that one and
 * the list still has its predecessor, or one that ended.
 */
static bool follows(const struct node_ep *ep, const struct pb_kube_pod *pod, bool here)
{
	if (!ep->claim)
		return true;
	return here && !(ep->older_uid && strcmp(ep->older_uid, pod->meta.uid) == 0);
}

static bool is_other(const struct node_ep *ep, const struct pb_kube_pod *pod)
{
	return ep && ep->uid[0] && strcmp(ep->uid, pod->meta.uid) != 0;
}

/* The interface stays hooked; its endpoint record gets the new addresses. */
static int readdress(struct node_ep *ep, const struct pb_kube_pod *pod)
{
	if (ep->claim || pod->n_ips == 0 || node_ep_same_ips(ep, pod->ips, pod->n_ips))
		return 0;
	if (node_ep_set_ips(ep, pod->ips, pod->n_ips) < 0)
		return -ENOMEM;
	ep->dirty = true;
	return 1;
}

static struct node_ep *endpoint_for(struct pb_node *node, const struct pb_kube_pod *pod)
{
	struct node_ep *ep = node_ep_early(node, pod->ips, pod->n_ips);

	if (!ep)
		ep = node_ep_new(node, pod->meta.uid[0] ? pod->meta.uid : pod->meta.name);
	if (ep && node_ep_set_pod(node, ep, pod->meta.ns, pod->meta.name, pod->meta.uid) == 0)
		return ep;
	if (ep) {
		node_unhook(node, ep);
		node_ep_free(node, ep);
	}
	return NULL;
}

static int put(struct pb_node *node, struct node_ep *ep, const struct pb_kube_pod *pod)
{
	int changed;

	if (!ep)
		ep = endpoint_for(node, pod);
	if (!ep || (!ep->uid[0] && node_ep_set_uid(ep, pod->meta.uid) < 0))
		return -ENOMEM;
	ep->in_kube = pod->n_ips > 0;
	ep->restored = false;
	changed = readdress(ep, pod);
	if (changed < 0)
		return changed;
	if (node_ep_identify(node, ep) || changed || !ep->told.size)
		node_rewrite(node, ep);
	node_tell(node, ep);
	if (ep->dirty)
		node_schedule(node, 0);
	return 0;
}

static void pod_put(struct pb_node *node, struct node_ep *ep, const struct pb_kube_pod *pod)
{
	bool here = is_here(node, pod);

	if (is_other(ep, pod)) {
		if (!follows(ep, pod, here))
			return;
		node_leave_pod(node, ep);
		ep = NULL;
	}
	if (!here) {
		if (!ep)
			return;
		ep->in_kube = false;
		if (!ep->claim)
			node_leave_pod(node, ep);
		return;
	}
	/* Without addresses there is nothing to look for, unless a CNI plugin named it. */
	if (!ep && pod->n_ips == 0)
		return;
	if (put(node, ep, pod) < 0)
		pb_error("node", "pod %s/%s: out of memory", pod->meta.ns, pod->meta.name);
}

void node_on_pod(void *arg, const struct pb_kube_event *event)
{
	struct pb_node *node = arg;
	const struct pb_kube_pod *pod = event->object;
	PB_FREE char *key = NULL;
	struct node_ep *ep;

	if (event->kind == PB_KUBE_SYNCED && !node->synced) {
		node->synced = true;
		node_claims_reconcile(node);
		node_schedule(node, NODE_SETTLE_MS);
	}
	if (event->kind != PB_KUBE_PUT && event->kind != PB_KUBE_DELETE)
		return;
	key = pb_sprintf("%s/%s", pod->meta.ns, pod->meta.name);
	if (!key) {
		pb_error("node", "pod %s: out of memory", pod->meta.name);
		return;
	}
	ep = node_ep_by_key(node, key);
	if (event->kind == PB_KUBE_PUT)
		pod_put(node, ep, pod);
	else if (ep && !is_other(ep, pod))
		node_leave_pod(node, ep);
}

/* ---- this node's pod CIDRs ---- */

/* Such a prefix would take veths that are nobody's pod for pods. */
static bool is_too_short(const struct pb_cidr *cidr)
{
	return cidr->bits < (cidr->family == 6 ? CIDR6_BITS_MIN : CIDR4_BITS_MIN);
}

/* A Node object comes again every few minutes: once is enough. */
static void refuse_cidr(struct pb_node *node, const struct pb_cidr *cidr)
{
	const struct pb_kube_addr addr = {.addr = cidr->addr, .family = cidr->family};
	char text[INET6_ADDRSTRLEN];

	if (memcmp(&node->refused_cidr, cidr, sizeof(*cidr)) == 0)
		return;
	node->refused_cidr = *cidr;
	pb_warn("node",
		"Node %s: spec.podCIDRs: %s/%u is no range of one node and is not used: interfaces "
		"in it are hooked when their pods are known, not before; give the node /%d or "
		"longer",
		node->name, node_addr_str(&addr, text, sizeof(text)), cidr->bits,
		cidr->family == 6 ? CIDR6_BITS_MIN : CIDR4_BITS_MIN);
}

static uint32_t copy_cidrs(struct pb_node *node, const struct pb_kube_node *from,
			   struct pb_cidr *cidrs)
{
	const struct pb_cidr *refused = NULL;
	uint32_t n = 0;

	for (uint32_t i = 0; i < from->n_pod_cidrs; i++) {
		if (!is_too_short(&from->pod_cidrs[i]))
			cidrs[n++] = from->pod_cidrs[i];
		else if (!refused)
			refused = &from->pod_cidrs[i];
	}
	if (refused)
		refuse_cidr(node, refused);
	else
		node->refused_cidr = (struct pb_cidr){0};
	return n;
}

void node_on_node(void *arg, const struct pb_kube_event *event)
{
	struct pb_node *node = arg;
	const struct pb_kube_node *from = event->object;
	PB_FREE struct pb_cidr *cidrs = NULL;
	uint32_t n;

	if (event->kind == PB_KUBE_SYNCED) {
		node->nodes_synced = true;
		node_schedule(node, NODE_SETTLE_MS);
	}
	/* A node that is deleted while its agent runs keeps its ranges: its pods still run. */
	if (event->kind != PB_KUBE_PUT || strcmp(from->meta.name, node->name) != 0)
		return;
	cidrs = calloc(from->n_pod_cidrs + 1, sizeof(*cidrs));
	if (!cidrs) {
		pb_error("node", "pod CIDRs of node %s: out of memory", node->name);
		return;
	}
	n = copy_cidrs(node, from, cidrs);
	if (n == node->n_cidrs && (!n || memcmp(cidrs, node->cidrs, n * sizeof(*cidrs)) == 0))
		return;
	free(node->cidrs);
	node->cidrs = PB_TAKE_PTR(cidrs);
	node->n_cidrs = n;
	node->scan = true;
	node_schedule(node, 0);
}
