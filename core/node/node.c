/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Life of the node room: what it watches, when it looks, how it ends.
 *
 * Owns the timer that everything waits for and the order in which jobs and handles end. Netlink
 * events only say where to look; what is there is asked on the pool.
 */
#include <node/internal.h>

#include <base/log.h>

#define GROUPS                                                                                     \
	(RTMGRP_LINK | RTMGRP_NEIGH | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE | RTMGRP_IPV4_IFADDR | \
	 RTMGRP_IPV6_IFADDR)

static void on_timer(uv_timer_t *timer)
{
	struct pb_node *node = timer->data;
	struct node_ep *ep, *next;
	bool waiting = false;

	/* Its answer comes back here. */
	if (node->lookup || node_look_up(node))
		return;
	if (node->synced && node->loaded)
		pb_peers_endpoints_synced(node->peers);
	HASH_ITER (hh_id, node->by_id, ep, next) {
		ep->dirty = !ep->hooked;
		waiting |= !ep->hooked;
	}
	if (waiting)
		node_schedule(node, NODE_RETRY_MS);
	else if (node->synced && node->nodes_synced && node->loaded && !node->scan &&
		 !node->candidates && !node->swept)
		node_sweep(node);
}

void node_schedule(struct pb_node *node, uint64_t ms)
{
	if (node->closing)
		return;
	if (!uv_is_active((uv_handle_t *)&node->timer) || uv_timer_get_due_in(&node->timer) > ms)
		uv_timer_start(&node->timer, on_timer, ms, 0);
}

bool node_is_device(const struct pb_node *node, const char *name)
{
	return pb_links_match(node->devices, node->n_devices, name);
}

/* ---- netlink ---- */

static void on_route(struct pb_node *node, const struct nlmsghdr *msg)
{
	struct pb_kube_addr addr;
	uint32_t bits;

	if (!node_parse_route(msg, &addr, &bits))
		return;
	node_look_prefix(node, &addr, bits);
	if (msg->nlmsg_type == RTM_NEWROUTE && bits == (addr.family == 6 ? 128 : 32))
		node_candidate_add(node, &addr);
}

/* Neighbours come and go all the time: only those that are there matter. */
static void on_neighbour(struct pb_node *node, const struct nlmsghdr *msg)
{
	struct pb_kube_addr addr;
	bool valid;

	if (!node_parse_neighbour(msg, &addr, &valid)) {
		/* A bridge learned where somebody lives. */
		node_look_waiting(node);
		return;
	}
	if (!valid || msg->nlmsg_type != RTM_NEWNEIGH)
		return;
	node_look_prefix(node, &addr, addr.family == 6 ? 128 : 32);
	node_candidate_add(node, &addr);
}

static void on_netlink(void *arg, const struct nlmsghdr *msg)
{
	struct pb_node *node = arg;
	struct pb_nl_link link;

	if (!msg) {
		node->scan = node->host_addrs = true;
		node_look_all(node);
		node_schedule(node, NODE_SETTLE_MS);
		return;
	}
	switch (msg->nlmsg_type) {
	case RTM_NEWNEIGH:
	case RTM_DELNEIGH:
		on_neighbour(node, msg);
		break;
	case RTM_NEWROUTE:
	case RTM_DELROUTE:
		on_route(node, msg);
		break;
	case RTM_NEWLINK:
	case RTM_DELLINK:
		if (!pb_nl_link_parse(msg, &link)) {
			node_look_waiting(node);
		} else if (msg->nlmsg_type == RTM_DELLINK) {
			node_device_gone(node, link.ifindex);
		} else {
			node_look_device(node, link.ifindex);
			node_host_addrs_look(node, link.ifindex, link.name);
		}
		break;
	default:
		node->host_addrs = true;
		node_schedule(node, NODE_SETTLE_MS);
		node_look_waiting(node);
	}
}

/* ---- configuration ---- */

static void devices_free(struct pb_node *node)
{
	for (size_t i = 0; i < node->n_devices; i++)
		free(node->devices[i]);
	free(node->devices);
	node->devices = NULL;
	node->n_devices = 0;
}

int pb_node_reconfigure(struct pb_node *node, const struct pb_config *config, struct pb_err *err)
{
	struct node_ep *ep, *next;

	devices_free(node);
	node->devices = calloc(config->datapath.n_devices + 1, sizeof(*node->devices));
	if (!node->devices)
		return pb_err_set(err, -ENOMEM, "out of memory");
	for (; node->n_devices < config->datapath.n_devices; node->n_devices++) {
		char *name = strdup(config->datapath.devices[node->n_devices]);

		if (!name)
			return pb_err_set(err, -ENOMEM, "out of memory");
		node->devices[node->n_devices] = name;
	}
	/* At once: the device can only get the device hooks when the pod's are off it. */
	HASH_ITER (hh_id, node->by_id, ep, next) {
		if (!ep->iface.ifindex || !node_is_device(node, ep->iface.name))
			continue;
		node_unhook(node, ep);
		if (!ep->key)
			node_ep_free(node, ep);
	}
	/* One that is named no longer may be a pod's. */
	node->scan = node->host_addrs = true;
	node_look_all(node);
	node_schedule(node, NODE_SETTLE_MS);
	return 0;
}

static void on_identity(void *arg, const char *ns, const char *name, uint32_t identity)
{
	struct pb_node *node = arg;
	PB_FREE char *key = pb_sprintf("%s/%s", ns, name);
	struct node_ep *ep = key ? node_ep_by_key(node, key) : NULL;

	if (!ep)
		return;
	if (identity != ep->rec.identity) {
		ep->rec.identity = identity;
		node_rewrite(node, ep);
	}
	/* Also of a number that an agent before gave: only now it can be published. */
	node_tell(node, ep);
}

/* ---- life ---- */

static void node_free(struct pb_node *node)
{
	struct node_ep *ep, *next;

	HASH_ITER (hh_id, node->by_id, ep, next)
		node_ep_free(node, ep);
	node_candidates_free(node);
	devices_free(node);
	pb_cleanup_nl(&node->nl);
	free(node->addrs);
	free(node->cidrs);
	free(node->record_dir);
	free(node->name);
	free(node);
}

void node_finish(struct pb_node *node)
{
	void (*closed)(void *) = node->closed;
	void *closed_arg = node->closed_arg;

	if (node->lookup || node->records || node->loading || !node->handles_closed)
		return;
	node_free(node);
	if (closed)
		closed(closed_arg);
}

static void monitor_closed(void *arg)
{
	struct pb_node *node = arg;

	node->handles_closed = true;
	node_finish(node);
}

static void deadlines_closed(uv_handle_t *handle)
{
	struct pb_node *node = handle->data;

	pb_nl_monitor_close(node->monitor, monitor_closed, node);
}

static void timer_closed(uv_handle_t *handle)
{
	struct pb_node *node = handle->data;

	uv_close((uv_handle_t *)&node->deadlines, deadlines_closed);
}

void node_watch(struct pb_node *node)
{
	int rc = pb_kube_watch(node->kube, PB_KUBE_POD, node_on_pod, node, &node->pods);

	if (rc == 0)
		rc = pb_kube_watch(node->kube, PB_KUBE_NODE, node_on_node, node, &node->nodes);
	if (rc < 0)
		pb_error("node", "watching pods and nodes: %s; restart patchbayd", strerror(-rc));
}

static int node_open(struct pb_node *node, const struct pb_config *config, struct pb_err *err)
{
	int rc;

	node->name = strdup(config->node.name);
	if (!node->name)
		return pb_err_set(err, -ENOMEM, "out of memory");
	rc = pb_node_reconfigure(node, config, err);
	if (rc == 0)
		rc = pb_nl_open(&node->nl, err);
	if (rc == 0)
		rc = pb_nl_monitor_new(node->loop, GROUPS, on_netlink, node, &node->monitor, err);
	if (rc == 0)
		rc = node_records_load(node, config->agent.run_dir, err);
	return rc;
}

int pb_node_new(uv_loop_t *loop, const struct pb_config *config, struct pb_dp *dp,
		struct pb_kube *kube, struct pb_peers *peers, struct pb_node **ret_node,
		struct pb_err *err)
{
	struct pb_node *node = calloc(1, sizeof(*node));
	int rc;

	if (!node)
		return pb_err_set(err, -ENOMEM, "out of memory");
	node->loop = loop;
	node->dp = dp;
	node->peers = peers;
	node->host_addrs = true;
	uv_timer_init(loop, &node->timer);
	uv_timer_init(loop, &node->deadlines);
	node->timer.data = node->deadlines.data = node;
	node->kube = kube;
	rc = node_open(node, config, err);
	if (rc < 0) {
		pb_node_close(node, NULL, NULL);
		return rc;
	}
	pb_dp_pod_listen(dp, node_on_hooks, node);
	pb_peers_listen(peers, on_identity, node);
	*ret_node = node;
	return 0;
}

void pb_node_close(struct pb_node *node, void (*closed)(void *arg), void *arg)
{
	node->closed = closed;
	node->closed_arg = arg;
	node_claims_close(node);
	node->closing = true;
	pb_dp_pod_listen(node->dp, NULL, NULL);
	pb_peers_listen(node->peers, NULL, NULL);
	if (node->pods)
		pb_kube_unwatch(node->pods);
	if (node->nodes)
		pb_kube_unwatch(node->nodes);
	uv_close((uv_handle_t *)&node->timer, timer_closed);
}
