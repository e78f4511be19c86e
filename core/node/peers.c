/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The life of the room: opens it, closes it, and does in slices what one event may not do at once.
 * Order of the slices: pods that a change touched, then what is no longer held, then, when all is
 * in, what an earlier process left.
 */
#include <node/peers_private.h>

#define STEP_PODS 16
#define STEP_ENTRIES 64
#define TICK_MS 1000
/* Between two looks at the pods without a number, when none became free: looking costs a turn. */
#define STARVED_TICKS 30

/* ---- work in slices ---- */

static struct peer_pod *next_in(const struct peer_group *group, const struct peer_pod *pod)
{
	return group->by_node ? pod->node_next : pod->ns_next;
}

static void group_step(struct pb_peers *peers, struct peer_group *group)
{
	for (unsigned i = 0; group->cursor && i < STEP_PODS; i++) {
		struct peer_pod *pod = group->cursor;

		group->cursor = next_in(group, pod);
		peers_pod_update(peers, pod);
	}
	if (group->cursor)
		return;
	DL_DELETE(peers->queue, group);
	group->queued = false;
	if (group->again)
		peers_queue(peers, group);
}

void peers_queue(struct pb_peers *peers, struct peer_group *group)
{
	/* Never back to the start: who changes often would keep the rest waiting for ever. */
	group->again = group->queued;
	if (!group->queued && group->pods) {
		group->cursor = group->pods;
		DL_APPEND(peers->queue, group);
		group->queued = true;
	}
	peers_wake(peers);
}

void peers_queue_all(struct pb_peers *peers)
{
	struct peer_ns *ns, *next;

	HASH_ITER (hh, peers->namespaces, ns, next)
		peers_queue(peers, &ns->group);
}

/* False when there is nothing to sweep, or nothing more. */
static bool sweep_step(struct pb_peers *peers)
{
	const bool ranges = peers->swept;

	if (pb_ipcache_sweep(peers->ipcache, ranges, STEP_ENTRIES) ||
	    pb_idents_sweep(peers->idents, ranges ? PB_IDENT_CIDR : PB_IDENT_POD, STEP_ENTRIES))
		return true;
	if (ranges)
		peers->ranges_due = false;
	else
		peers->ranges_at = pb_now_ns() + PEERS_RANGES_NS;
	peers->swept = true;
	peers_arm(peers);
	return false;
}

static bool all_synced(const struct pb_peers *peers)
{
	return peers->pods_synced && peers->ns_synced && peers->nodes_synced;
}

/* True when there may be more to do. */
static bool step(struct pb_peers *peers)
{
	if (peers->queue) {
		group_step(peers, peers->queue);
		return true;
	}
	if (peers_cidr_drop(peers, STEP_ENTRIES))
		return true;
	if (all_synced(peers) && !peers->announced)
		peers_announce(peers);
	return peers->announced && (!peers->swept || peers->ranges_due) && sweep_step(peers);
}

static void on_idle(uv_idle_t *idle)
{
	struct pb_peers *peers = idle->data;
	const uint64_t until = uv_hrtime() + PEERS_SLICE_NS;
	bool more = true;

	while (more && uv_hrtime() < until)
		more = step(peers);
	if (!more)
		uv_idle_stop(idle);
	peers_check_room(peers);
}

void peers_wake(struct pb_peers *peers)
{
	if (!peers->quiet)
		uv_idle_start(&peers->idle, on_idle);
}

/* ---- work that waits for its time ---- */

void peers_check_room(struct pb_peers *peers)
{
	struct pb_ipcache_counts counts = pb_ipcache_count(peers->ipcache);

	if (counts.waiting)
		peers_arm(peers);
	if (counts.waiting && !peers->full)
		pb_error("node",
			 "the ipcache takes no more entries: %s (%u of %u IPv4, %u of %u IPv6); "
			 "addresses without one count as the world; name fewer ranges in "
			 "policies, or run fewer pods in this cluster",
			 strerror(-counts.error), counts.entries[0], counts.max[0],
			 counts.entries[1], counts.max[1]);
	else if (!counts.waiting && peers->full)
		pb_info("node", "the ipcache has all entries again");
	peers->full = counts.waiting > 0;
}

static void on_timer(uv_timer_t *timer)
{
	struct pb_peers *peers = timer->data;
	unsigned freed = 0;
	uint64_t next = pb_idents_expire(peers->idents, STEP_ENTRIES, &freed);
	bool retry = pb_ipcache_retry(peers->ipcache, STEP_ENTRIES);

	if (peers->n_starved && (freed || ++peers->starved_ticks >= STARVED_TICKS)) {
		peers->starved_ticks = 0;
		peers_queue_all(peers);
	}
	if (peers->ranges_at && pb_now_ns() >= peers->ranges_at) {
		peers->ranges_at = 0;
		peers->ranges_due = true;
		peers_wake(peers);
	}
	peers_ns_expire(peers);
	peers_check_room(peers);
	if (next == 0 || retry)
		uv_timer_start(&peers->timer, on_timer, 1, 0);
	else if (next != UINT64_MAX || peers->full || peers->ranges_at || peers->n_starved ||
		 peers->missing)
		peers_arm(peers);
}

void peers_arm(struct pb_peers *peers)
{
	if (!peers->quiet && !uv_is_active((uv_handle_t *)&peers->timer))
		uv_timer_start(&peers->timer, on_timer, TICK_MS, 0);
}

/* ---- configuration ---- */

int pb_peers_reconfigure(struct pb_peers *peers, const struct pb_config *config, struct pb_err *err)
{
	struct pb_label_filter *filter = NULL;
	PB_FREE char *cluster = strdup(config->cluster.name);
	bool remote_node = config->identity.remote_node;
	struct peer_node *node, *next;
	int rc;

	if (!cluster)
		return pb_err_set(err, -ENOMEM, "out of memory");
	rc = pb_label_filter_new(config->identity.labels, config->identity.n_labels, &filter);
	if (rc < 0)
		return pb_err_set(err, rc, "out of memory");
	pb_label_filter_free(peers->filter);
	free(peers->cluster);
	peers->filter = filter;
	peers->cluster = PB_TAKE_PTR(cluster);
	peers_queue_all(peers);
	if (peers->remote_node == remote_node)
		return 0;
	peers->remote_node = remote_node;
	HASH_ITER (hh, peers->nodes, node, next)
		peers_node_update(peers, node);
	return 0;
}

/* ---- life ---- */

static int watch(struct pb_peers *peers, struct pb_kube *kube, struct pb_err *err)
{
	/* Namespaces and nodes first: pods need them. */
	static const struct {
		uint32_t kind;
		pb_kube_watch_fn fn;
	} kinds[] = {
		{PB_KUBE_NAMESPACE, peers_on_namespace},
		{PB_KUBE_NODE, peers_on_node},
		{PB_KUBE_POD, peers_on_pod},
	};

	for (size_t i = 0; i < PB_ARRAY_LEN(kinds); i++) {
		int rc = pb_kube_watch(kube, kinds[i].kind, kinds[i].fn, peers, &peers->watches[i]);

		if (rc < 0)
			return pb_err_set(err, rc, "watching kind %u: %s", kinds[i].kind,
					  strerror(-rc));
	}
	return 0;
}

static void unwatch(struct pb_peers *peers)
{
	for (size_t i = 0; i < PB_ARRAY_LEN(peers->watches); i++)
		pb_kube_unwatch(PB_TAKE_PTR(peers->watches[i]));
}

static void peers_free(struct pb_peers *peers)
{
	peers_cidr_free(peers);
	peers_pods_free(peers);
	peers_nodes_free(peers);
	peers_addresses_free(peers);
	free(peers->host_claims);
	pb_ipcache_free(peers->ipcache);
	pb_idents_free(peers->idents);
	peers_maps_close(peers);
	pb_label_filter_free(peers->filter);
	pb_buf_free(&peers->labels);
	pb_buf_free(&peers->record);
	free(peers->cluster);
	free(peers->node_name);
	free(peers);
}

int pb_peers_new(uv_loop_t *loop, const struct pb_config *config, struct pb_dp *dp,
		 struct pb_kube *kube, struct pb_peers **ret_peers, struct pb_err *err)
{
	struct pb_peers *peers = calloc(1, sizeof(*peers));
	int rc;

	if (!peers)
		return pb_err_set(err, -ENOMEM, "out of memory");
	peers->loop = loop;
	uv_idle_init(loop, &peers->idle);
	uv_timer_init(loop, &peers->timer);
	peers->idle.data = peers->timer.data = peers;
	peers->remote_node = config->identity.remote_node;
	peers->node_name = strdup(config->node.name);
	rc = peers->node_name ? peers_maps_open(peers, dp, err)
			      : pb_err_set(err, -ENOMEM, "out of memory");
	if (rc == 0)
		rc = pb_peers_reconfigure(peers, config, err);
	if (rc == 0)
		rc = watch(peers, kube, err);
	if (rc < 0) {
		pb_peers_quiesce(peers);
		pb_peers_close(peers, NULL, NULL);
		return rc;
	}
	*ret_peers = peers;
	return 0;
}

void pb_peers_quiesce(struct pb_peers *peers)
{
	peers->quiet = true;
	peers->topics = (struct pb_peers_topics){0};
	peers->listener = NULL;
	if (peers->ipcache)
		pb_ipcache_freeze(peers->ipcache);
	unwatch(peers);
	uv_idle_stop(&peers->idle);
	uv_timer_stop(&peers->timer);
}

static void timer_closed(uv_handle_t *handle)
{
	struct pb_peers *peers = handle->data;
	void (*closed)(void *) = peers->closed;
	void *closed_arg = peers->closed_arg;

	peers_free(peers);
	if (closed)
		closed(closed_arg);
}

static void idle_closed(uv_handle_t *handle)
{
	struct pb_peers *peers = handle->data;

	uv_close((uv_handle_t *)&peers->timer, timer_closed);
}

void pb_peers_close(struct pb_peers *peers, void (*closed)(void *arg), void *arg)
{
	if (!peers->quiet)
		pb_peers_quiesce(peers);
	peers->closed = closed;
	peers->closed_arg = arg;
	uv_close((uv_handle_t *)&peers->idle, idle_closed);
}
