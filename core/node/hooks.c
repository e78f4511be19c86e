/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps the datapath's pod hooks in step with the table.
 *
 * An interface is let go of only when the device is gone, datapath.devices names it, or a route
 * moved the address to another device that is no other pod's: a route that flaps unhooks nothing,
 * and an interface passes from one endpoint to the next without a moment unhooked. One interface
 * belongs to one pod; a second claimant waits.
 */
#include <node/internal.h>

#include <base/log.h>

static void note(struct node_ep *ep, int code, const char *text)
{
	if (code != ep->last_code)
		pb_warn("node", "pod %s: no hooks on %s: %s", node_ep_str(ep), ep->iface.name,
			text);
	ep->last_code = code;
	snprintf(ep->why, sizeof(ep->why), "%.159s", text);
}

static void hooks_ended(struct pb_node *node, struct node_ep *ep, int result, const char *text)
{
	if (result < 0) {
		ep->hooked = false;
		note(ep, result, text);
		node_tell(node, ep);
		node_schedule(node, NODE_RETRY_MS);
		return;
	}
	if (!ep->hooked)
		pb_info("node", "pod %s: endpoint %u on %s", node_ep_str(ep), ep->rec.id,
			ep->iface.name);
	ep->last_code = 0;
	ep->why[0] = '\0';
	ep->hooked = true;
	node_tell(node, ep);
	node_claim_settle(node, ep);
}

void node_on_hooks(void *arg, uint32_t ifindex, int result, const char *text)
{
	struct pb_node *node = arg;
	struct node_ep *ep = node_ep_by_ifindex(node, ifindex);

	if (!ep)
		return;
	ep->dirty |= result < 0;
	hooks_ended(node, ep, result, text);
}

/*
 * What the map says of an interface nobody has is of an agent before, and still right unless it is
 * known that the pod's labels have no number.
 */
static void adopt_record(struct pb_node *node, struct node_ep *ep, uint32_t ifindex)
{
	struct pb_endpoint old;

	if (pb_dp_pod_get(node->dp, ifindex, &old) < 0 ||
	    (memcmp(&old.addr4, &ep->rec.addr4, sizeof(old.addr4)) != 0 &&
	     memcmp(&old.addr6, &ep->rec.addr6, sizeof(old.addr6)) != 0))
		return;
	node_ep_set_id(node, ep, old.id);
	if (!node_ep_identified(ep) && old.identity) {
		ep->rec.identity = old.identity;
		node_ep_identify(node, ep);
	}
}

/* False: the interface has an owner. */
static bool take_over(struct pb_node *node, struct node_ep *ep, const struct pb_iface *iface)
{
	struct node_ep *owner = node_ep_by_ifindex(node, iface->ifindex);
	uint32_t id;

	if (!owner) {
		adopt_record(node, ep, iface->ifindex);
		return true;
	}
	if (owner == ep)
		return true;
	if (owner->key)
		return false;
	id = owner->had_pod ? 0 : owner->rec.id;
	node_ep_free(node, owner);
	if (id)
		node_ep_set_id(node, ep, id);
	return true;
}

void node_hook(struct pb_node *node, struct node_ep *ep, const struct pb_iface *iface)
{
	struct pb_err err = {0};
	int rc;

	if (!take_over(node, ep, iface)) {
		pb_err_set(&err, -EBUSY, "interface %s still belongs to pod %s", iface->name,
			   node_ep_str(node_ep_by_ifindex(node, iface->ifindex)));
		note(ep, err.code, err.text);
		return;
	}
	node_ep_set_iface(node, ep, iface);
	rc = pb_dp_pod_add(node->dp, iface->ifindex, &ep->rec, &err);
	if (rc != 0)
		hooks_ended(node, ep, rc, err.text);
}

void node_rewrite(struct pb_node *node, struct node_ep *ep)
{
	struct pb_err err = {0};
	int rc;

	if (!ep->iface.ifindex)
		return;
	rc = pb_dp_pod_add(node->dp, ep->iface.ifindex, &ep->rec, &err);
	if (rc < 0)
		hooks_ended(node, ep, rc, err.text);
	else
		node_tell(node, ep);
	if (rc >= 0)
		node_claim_settle(node, ep);
}

void node_unhook(struct pb_node *node, struct node_ep *ep)
{
	int rc;

	if (!ep->iface.ifindex)
		return;
	rc = pb_dp_pod_remove(node->dp, ep->iface.ifindex);
	/* The datapath follows devices too, and may have been faster. */
	if (rc < 0 && rc != -ENOENT)
		pb_warn("node", "pod %s: taking the hooks off %s: %s", node_ep_str(ep),
			ep->iface.name, strerror(-rc));
	node_ep_set_iface(node, ep, &(struct pb_iface){0});
	node_tell(node, ep);
}

static bool lingers(const struct pb_node *node, const struct node_ep *ep)
{
	for (uint32_t i = 0; ep->iface.ifindex && i < ep->n_ips; i++)
		if (node_in_cidrs(node, &ep->ips[i]))
			return true;
	return false;
}

void node_leave_pod(struct pb_node *node, struct node_ep *ep)
{
	node_claim_fail(node, ep, -ECANCELED, "the pod was deleted");
	node_claim_drop(node, ep);
	node_untell(node, ep);
	if (lingers(node, ep)) {
		pb_info("node", "pod %s is gone, %s is not: it keeps its hooks", ep->key,
			ep->iface.name);
		node_ep_unset_pod(node, ep);
		node_rewrite(node, ep);
		ep->dirty = true;
		node_schedule(node, NODE_SETTLE_MS);
	} else {
		node_unhook(node, ep);
		node_ep_free(node, ep);
	}
	/* Another pod may have waited for the interface. */
	node_look_waiting(node);
}

void node_device_gone(struct pb_node *node, uint32_t ifindex)
{
	struct node_ep *ep = node_ep_by_ifindex(node, ifindex);

	if (!ep)
		return;
	node_unhook(node, ep);
	node_claim_fail(node, ep, -ENODEV, "its interface went away");
	node_claim_drop(node, ep);
	if (!ep->key || !ep->in_kube) {
		node_ep_free(node, ep);
		return;
	}
	snprintf(ep->why, sizeof(ep->why), "its interface went away");
	ep->dirty = true;
	node_schedule(node, NODE_SETTLE_MS);
}

/*
 * Takes off the hooks of pods that went while no agent ran. Only once every pod has its
 * interface: one that is still being looked for may be the owner.
 */
void node_sweep(struct pb_node *node)
{
	size_t n = pb_dp_pods(node->dp, NULL, 0);
	PB_FREE uint32_t *ifindexes = calloc(n + 1, sizeof(*ifindexes));

	if (!ifindexes)
		return;
	node->swept = node->host_addrs = true;
	node_schedule(node, NODE_SETTLE_MS);
	n = pb_dp_pods(node->dp, ifindexes, n);
	for (size_t i = 0; i < n; i++) {
		if (node_ep_by_ifindex(node, ifindexes[i]))
			continue;
		pb_info("node", "device number %u carried hooks of a pod that is gone",
			ifindexes[i]);
		pb_dp_pod_remove(node->dp, ifindexes[i]);
	}
}
