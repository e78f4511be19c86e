/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Keeps the datapath's pod hooks in step with the pods of this node and their interfaces.
 *
 * Owns one record a local pod: its endpoint id and the interface its hooks are on. An interface
 * is let go of only when the pod or the device is gone or the address moved to another device:
 * a route that flaps unhooks nothing. One interface belongs to one pod; a second claimant waits.
 */
#include <node/node.h>

#include <arpa/inet.h>
#include <uthash.h>

#include <base/log.h>
#include <datapath/links.h>
#include <datapath/netlink.h>
#include <node/resolve.h>

/* Netlink events come in bursts: a new pod makes a dozen. */
#define SETTLE_MS 10
/* For what no event announces, such as a pod that answers ARP late. */
#define RETRY_MS 2000
/* What one turn of the loop may spend on lookups. */
#define TURN_NS 4000000ULL

#define GROUPS                                                                                     \
	(RTMGRP_LINK | RTMGRP_NEIGH | RTMGRP_IPV4_ROUTE | RTMGRP_IPV6_ROUTE | RTMGRP_IPV4_IFADDR | \
	 RTMGRP_IPV6_IFADDR)

struct pod {
	char *key; /* NAMESPACE/NAME */
	char *uid;
	struct pb_kube_addr *ips;
	uint32_t n_ips;
	struct pb_endpoint ep;
	struct pb_iface iface; /* ifindex 0: none */
	bool dirty;
	int last_code; /* of the last failure, so that it is logged once */
	UT_hash_handle hh;
	UT_hash_handle hh_id;
};

struct pb_node {
	uv_loop_t *loop;
	struct pb_dp *dp;
	char *name;
	char **devices;
	size_t n_devices;
	struct pod *pods;
	struct pod *by_id;
	struct mnl_socket *nl;
	struct pb_nl_monitor *monitor;
	struct pb_kube_watch *watch;
	bool synced; /* the first list of pods is in */
	bool swept;
	uv_timer_t timer;
	void (*closed)(void *arg);
	void *closed_arg;
};

/* ---- endpoints ---- */

static void on_timer(uv_timer_t *timer);

static void schedule(struct pb_node *node, uint64_t ms)
{
	if (!uv_is_active((uv_handle_t *)&node->timer) || uv_timer_get_due_in(&node->timer) > ms)
		uv_timer_start(&node->timer, on_timer, ms, 0);
}

#define ANY_IFINDEX UINT32_MAX

/* Looks again at the pods on a device (or on any) and at those that wait for one. */
static void look_again(struct pb_node *node, uint32_t ifindex)
{
	struct pod *pod, *next;
	bool any = false;

	HASH_ITER (hh, node->pods, pod, next) {
		uint32_t on = pod->iface.ifindex;

		pod->dirty |= !on || on == ifindex || ifindex == ANY_IFINDEX;
		any |= pod->dirty;
	}
	if (any)
		schedule(node, SETTLE_MS);
}

static struct pod *by_ifindex(struct pb_node *node, uint32_t ifindex)
{
	struct pod *pod, *next;

	HASH_ITER (hh, node->pods, pod, next) {
		if (pod->iface.ifindex == ifindex)
			return pod;
	}
	return NULL;
}

/*
 * The id comes from the pod's uid, so that a restarted agent finds the same one again unless
 * two collide: 16 bits, as Hubble's clients expect.
 */
static uint32_t new_id(struct pb_node *node, const char *uid)
{
	uint32_t id = (uint32_t)(pb_hash64(uid, strlen(uid), 0) % 65535);

	for (;;) {
		struct pod *taken;

		id = id % 65535 + 1;
		HASH_FIND(hh_id, node->by_id, &id, sizeof(id), taken);
		if (!taken)
			return id;
	}
}

static void unhook(struct pb_node *node, struct pod *pod)
{
	int rc;

	if (!pod->iface.ifindex)
		return;
	rc = pb_dp_pod_remove(node->dp, pod->iface.ifindex);
	if (rc < 0)
		pb_warn("node", "pod %s: taking the hooks off %s: %s", pod->key, pod->iface.name,
			strerror(-rc));
	pod->iface = (struct pb_iface){0};
}

static void hook(struct pb_node *node, struct pod *pod, const struct pb_iface *iface)
{
	const struct pod *owner = by_ifindex(node, iface->ifindex);
	struct pb_err err = {0};
	int rc;

	if (owner && owner != pod)
		rc = pb_err_set(&err, -EBUSY, "interface %s still belongs to pod %s", iface->name,
				owner->key);
	else
		rc = pb_dp_pod_add(node->dp, iface->ifindex, &pod->ep, &err);
	if (rc == 0) {
		pod->iface = *iface;
		pb_info("node", "pod %s: endpoint %u on %s", pod->key, pod->ep.id, iface->name);
	} else if (rc != pod->last_code) {
		pb_warn("node", "pod %s: no hooks on %s: %s", pod->key, iface->name, err.text);
	}
	pod->last_code = rc;
}

static int find_iface(struct pb_node *node, const struct pod *pod, struct pb_iface *ret_iface)
{
	for (uint32_t i = 0; i < pod->n_ips; i++) {
		if (pb_node_resolve(node->nl, &pod->ips[i], ret_iface) == 0 &&
		    !pb_links_match(node->devices, node->n_devices, ret_iface->name))
			return 0;
	}
	return -ENOENT;
}

static void evaluate(struct pb_node *node, struct pod *pod)
{
	struct pb_nl_link link = {0};
	struct pb_iface iface = {0};

	pod->dirty = false;
	if (pod->iface.ifindex && (pb_nl_link_get(node->nl, pod->iface.ifindex, &link) < 0 ||
				   pb_links_match(node->devices, node->n_devices, link.name)))
		unhook(node, pod);
	if (find_iface(node, pod, &iface) < 0)
		return;
	if (iface.ifindex != pod->iface.ifindex) {
		unhook(node, pod);
		hook(node, pod, &iface);
	} else {
		pod->iface = iface;
	}
}

/*
 * Takes off the hooks of pods that went while no agent ran. Only once every pod has its
 * interface: one that is still being looked for may be the owner.
 */
static void sweep(struct pb_node *node)
{
	size_t n = pb_dp_pods(node->dp, NULL, 0);
	PB_FREE uint32_t *ifindexes = calloc(n + 1, sizeof(*ifindexes));

	if (!ifindexes)
		return;
	node->swept = true;
	n = pb_dp_pods(node->dp, ifindexes, n);
	for (size_t i = 0; i < n; i++) {
		if (by_ifindex(node, ifindexes[i]))
			continue;
		pb_info("node", "device number %u carried hooks of a pod that is gone",
			ifindexes[i]);
		pb_dp_pod_remove(node->dp, ifindexes[i]);
	}
}

static void on_timer(uv_timer_t *timer)
{
	struct pb_node *node = timer->data;
	uint64_t deadline = pb_now_ns() + TURN_NS;
	struct pod *pod, *next;
	bool waiting = false;

	HASH_ITER (hh, node->pods, pod, next) {
		if (pod->dirty && pb_now_ns() > deadline) {
			/* libuv before 1.45 runs a timer of 0 ms in this very turn. */
			schedule(node, 1);
			return;
		}
		if (pod->dirty)
			evaluate(node, pod);
		waiting |= !pod->iface.ifindex;
	}
	HASH_ITER (hh, node->pods, pod, next)
		pod->dirty = !pod->iface.ifindex;
	if (waiting)
		schedule(node, RETRY_MS);
	else if (node->synced && !node->swept)
		sweep(node);
}

/* ---- pods ---- */

static void pod_free(struct pod *pod)
{
	free(pod->key);
	free(pod->uid);
	free(pod->ips);
	free(pod);
}

static void pod_drop(struct pb_node *node, struct pod *pod)
{
	unhook(node, pod);
	HASH_DEL(node->pods, pod);
	HASH_DELETE(hh_id, node->by_id, pod);
	pod_free(pod);
	/* Another pod may have waited for the interface. */
	look_again(node, 0);
}

static bool is_local(const struct pb_node *node, const struct pb_kube_pod *pod)
{
	return strcmp(pod->node, node->name) == 0 && !(pod->flags & PB_POD_HOST_NETWORK) &&
	       (pod->phase == PB_POD_PENDING || pod->phase == PB_POD_RUNNING) && pod->n_ips > 0;
}

static int pod_ips(struct pod *pod, const struct pb_kube_pod *from)
{
	struct pb_kube_addr *ips = calloc(from->n_ips, sizeof(*ips));

	if (!ips)
		return -ENOMEM;
	memcpy(ips, from->ips, from->n_ips * sizeof(*ips));
	free(pod->ips);
	pod->ips = ips;
	pod->n_ips = from->n_ips;
	memset(&pod->ep.addr4, 0, sizeof(pod->ep.addr4));
	memset(&pod->ep.addr6, 0, sizeof(pod->ep.addr6));
	for (uint32_t i = from->n_ips; i-- > 0;) {
		if (ips[i].family == 6)
			pod->ep.addr6 = ips[i].addr;
		else
			pod->ep.addr4.v4 = ips[i].addr.v4;
	}
	return 0;
}

static struct pod *pod_new(struct pb_node *node, const char *key, const struct pb_kube_pod *from)
{
	const char *uid = from->meta.uid[0] ? from->meta.uid : key;
	struct pod *pod = calloc(1, sizeof(*pod));

	if (!pod)
		return NULL;
	pod->key = strdup(key);
	pod->uid = strdup(from->meta.uid);
	if (!pod->key || !pod->uid || pod_ips(pod, from) < 0) {
		pod_free(pod);
		return NULL;
	}
	pod->ep.id = new_id(node, uid);
	HASH_ADD_KEYPTR(hh, node->pods, pod->key, strlen(pod->key), pod);
	HASH_ADD_KEYPTR(hh_id, node->by_id, &pod->ep.id, sizeof(pod->ep.id), pod);
	return pod;
}

static bool same_ips(const struct pod *pod, const struct pb_kube_pod *from)
{
	return pod->n_ips == from->n_ips &&
	       memcmp(pod->ips, from->ips, from->n_ips * sizeof(*pod->ips)) == 0;
}

/* The interface stays hooked; its endpoint record gets the new addresses. */
static int pod_readdress(struct pb_node *node, struct pod *pod, const struct pb_kube_pod *from,
			 struct pb_err *err)
{
	if (same_ips(pod, from))
		return 0;
	if (pod_ips(pod, from) < 0)
		return pb_err_set(err, -ENOMEM, "out of memory");
	pod->dirty = true;
	if (!pod->iface.ifindex)
		return 0;
	return pb_dp_pod_add(node->dp, pod->iface.ifindex, &pod->ep, err);
}

static void pod_put(struct pb_node *node, const char *key, const struct pb_kube_pod *from)
{
	struct pb_err err = {0};
	struct pod *pod;

	HASH_FIND_STR(node->pods, key, pod);
	/* A pod of the same name with another uid is another pod. */
	if (pod && (!is_local(node, from) || strcmp(pod->uid, from->meta.uid) != 0)) {
		pod_drop(node, pod);
		pod = NULL;
	}
	if (!is_local(node, from))
		return;
	if (pod) {
		if (pod_readdress(node, pod, from, &err) < 0)
			pb_warn("node", "pod %s: %s", key, err.text);
	} else {
		pod = pod_new(node, key, from);
		if (!pod) {
			pb_error("node", "pod %s: out of memory", key);
			return;
		}
		pod->dirty = true;
	}
	if (pod->dirty)
		schedule(node, 0);
}

static void on_pod(void *arg, const struct pb_kube_event *event)
{
	struct pb_node *node = arg;
	const struct pb_kube_pod *from = event->object;
	PB_FREE char *key = NULL;
	struct pod *pod;

	if (event->kind == PB_KUBE_SYNCED && !node->synced) {
		node->synced = true;
		schedule(node, SETTLE_MS);
	}
	if (event->kind != PB_KUBE_PUT && event->kind != PB_KUBE_DELETE)
		return;
	key = pb_sprintf("%s/%s", from->meta.ns, from->meta.name);
	if (!key) {
		pb_error("node", "pod %s: out of memory", from->meta.name);
		return;
	}
	if (event->kind == PB_KUBE_PUT) {
		pod_put(node, key, from);
		return;
	}
	HASH_FIND_STR(node->pods, key, pod);
	if (pod)
		pod_drop(node, pod);
}

/* Neighbours come and go all the time; they only matter to a pod that waits for one. */
static void on_netlink(void *arg, const struct nlmsghdr *msg)
{
	struct pb_nl_link link;

	if (!msg)
		look_again(arg, ANY_IFINDEX);
	else if (msg->nlmsg_type == RTM_NEWNEIGH || msg->nlmsg_type == RTM_DELNEIGH)
		look_again(arg, 0);
	else if (pb_nl_link_parse(msg, &link))
		look_again(arg, link.ifindex);
	else
		look_again(arg, ANY_IFINDEX);
}

/* ---- life ---- */

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
	struct pod *pod, *next;

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
	HASH_ITER (hh, node->pods, pod, next) {
		if (pod->iface.ifindex &&
		    pb_links_match(node->devices, node->n_devices, pod->iface.name))
			unhook(node, pod);
	}
	look_again(node, ANY_IFINDEX);
	return 0;
}

static void node_free(struct pb_node *node)
{
	struct pod *pod, *next;

	HASH_CLEAR(hh_id, node->by_id);
	HASH_ITER (hh, node->pods, pod, next) {
		HASH_DEL(node->pods, pod);
		pod_free(pod);
	}
	devices_free(node);
	pb_cleanup_nl(&node->nl);
	free(node->name);
	free(node);
}

static void monitor_closed(void *arg)
{
	struct pb_node *node = arg;
	void (*closed)(void *) = node->closed;
	void *closed_arg = node->closed_arg;

	node_free(node);
	if (closed)
		closed(closed_arg);
}

static void timer_closed(uv_handle_t *handle)
{
	struct pb_node *node = handle->data;

	pb_nl_monitor_close(node->monitor, monitor_closed, node);
}

int pb_node_new(uv_loop_t *loop, const struct pb_config *config, struct pb_dp *dp,
		struct pb_kube *kube, struct pb_node **ret_node, struct pb_err *err)
{
	struct pb_node *node = calloc(1, sizeof(*node));
	int rc = 0;

	if (!node)
		return pb_err_set(err, -ENOMEM, "out of memory");
	node->loop = loop;
	node->dp = dp;
	uv_timer_init(loop, &node->timer);
	node->timer.data = node;
	node->name = strdup(config->node.name);
	if (!node->name)
		rc = pb_err_set(err, -ENOMEM, "out of memory");
	if (rc == 0)
		rc = pb_node_reconfigure(node, config, err);
	if (rc == 0)
		rc = pb_nl_open(&node->nl, err);
	if (rc == 0)
		rc = pb_nl_monitor_new(loop, GROUPS, on_netlink, node, &node->monitor, err);
	if (rc == 0) {
		rc = pb_kube_watch(kube, PB_KUBE_POD, on_pod, node, &node->watch);
		if (rc < 0)
			pb_err_set(err, rc, "watching pods: %s", strerror(-rc));
	}
	if (rc < 0) {
		pb_node_close(node, NULL, NULL);
		return rc;
	}
	*ret_node = node;
	return 0;
}

void pb_node_close(struct pb_node *node, void (*closed)(void *arg), void *arg)
{
	node->closed = closed;
	node->closed_arg = arg;
	if (node->watch)
		pb_kube_unwatch(node->watch);
	uv_close((uv_handle_t *)&node->timer, timer_closed);
}

static char *addresses_str(const struct pod *pod)
{
	PB_BUF_FREE struct pb_buf buf = {0};

	for (uint32_t i = 0; i < pod->n_ips; i++) {
		char text[INET6_ADDRSTRLEN];

		inet_ntop(pod->ips[i].family == 6 ? AF_INET6 : AF_INET, pod->ips[i].addr.bytes,
			  text, sizeof(text));
		if (pb_buf_printf(&buf, "%s%s", i ? ", " : "", text) < 0)
			return NULL;
	}
	return PB_TAKE_PTR(buf.data);
}

cJSON *pb_node_json(struct pb_node *node)
{
	static const struct pb_json_column columns[] = {
		{"POD", "pod"},
		{"ENDPOINT", "endpoint"},
		{"INTERFACE", "interface"},
		{"ADDRESSES", "addresses"},
		{NULL, NULL},
	};
	cJSON *items;
	cJSON *table = pb_json_table(columns, &items);
	struct pod *pod, *next;

	if (!table)
		return NULL;
	HASH_ITER (hh, node->pods, pod, next) {
		cJSON *item = cJSON_CreateObject();
		PB_FREE char *addresses = addresses_str(pod);

		cJSON_AddStringToObject(item, "pod", pod->key);
		cJSON_AddNumberToObject(item, "endpoint", pod->ep.id);
		cJSON_AddStringToObject(item, "interface", pod->iface.name);
		cJSON_AddNumberToObject(item, "ifindex", pod->iface.ifindex);
		cJSON_AddStringToObject(item, "addresses", addresses ? addresses : "");
		cJSON_AddItemToArray(items, item);
	}
	return table;
}
