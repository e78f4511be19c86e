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
/* What one visit to the pool looks up at most: closing waits for it. */
#define PODS_A_LOOKUP 64

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
	bool hooked;	       /* both hooks are on iface */
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
	struct mnl_socket *nl; /* of the look-up */
	struct lookup *lookup; /* in flight on the pool */
	struct pb_nl_monitor *monitor;
	struct pb_kube_watch *watch;
	bool closing;
	bool handles_closed;
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
	/* The datapath follows devices too, and may have been faster. */
	if (rc < 0 && rc != -ENOENT)
		pb_warn("node", "pod %s: taking the hooks off %s: %s", pod->key, pod->iface.name,
			strerror(-rc));
	pod->iface = (struct pb_iface){0};
	pod->hooked = false;
}

static void hooks_ended(struct pb_node *node, struct pod *pod, int result, const char *text)
{
	if (result < 0 && result != pod->last_code)
		pb_warn("node", "pod %s: no hooks on %s: %s", pod->key, pod->iface.name, text);
	else if (result >= 0 && !pod->hooked)
		pb_info("node", "pod %s: endpoint %u on %s", pod->key, pod->ep.id, pod->iface.name);
	pod->last_code = result < 0 ? result : 0;
	pod->hooked = result >= 0;
	if (!pod->hooked)
		schedule(node, RETRY_MS);
}

/* How what hook() began ended. */
static void on_hooks(void *arg, uint32_t ifindex, int result, const char *text)
{
	struct pb_node *node = arg;
	struct pod *pod = by_ifindex(node, ifindex);

	if (!pod)
		return;
	pod->dirty |= result < 0;
	hooks_ended(node, pod, result, text);
}

static void hook(struct pb_node *node, struct pod *pod, const struct pb_iface *iface)
{
	const struct pod *owner = by_ifindex(node, iface->ifindex);
	struct pb_err err = {0};
	int rc;

	if (owner && owner != pod) {
		rc = -EBUSY;
		if (rc != pod->last_code)
			pb_warn("node",
				"pod %s: no hooks on %s: interface %s still belongs to pod %s",
				pod->key, iface->name, iface->name, owner->key);
		pod->last_code = rc;
		return;
	}
	pod->iface = *iface;
	rc = pb_dp_pod_add(node->dp, iface->ifindex, &pod->ep, &err);
	if (rc != 0)
		hooks_ended(node, pod, rc, err.text);
}

/* ---- looking for interfaces: questions to the kernel, which may keep us waiting ---- */

struct question {
	char *key; /* of the pod, which may be gone by the time of the answer */
	struct pb_kube_addr *ips;
	uint32_t n_ips;
	uint32_t ifindex;	 /* where it was found last, 0: nowhere */
	struct pb_nl_link link;	 /* that device, ifindex 0: gone */
	struct pb_iface *ifaces; /* by address */
};

struct lookup {
	uv_work_t work;
	struct pb_node *node;
	size_t n;
	struct question questions[PODS_A_LOOKUP];
};

static void lookup_free(struct lookup *lookup)
{
	for (size_t i = 0; i < lookup->n; i++) {
		free(lookup->questions[i].key);
		free(lookup->questions[i].ips);
		free(lookup->questions[i].ifaces);
	}
	free(lookup);
}

static int ask(struct question *q, const struct pod *pod)
{
	q->key = strdup(pod->key);
	q->ips = calloc(pod->n_ips, sizeof(*q->ips));
	q->ifaces = calloc(pod->n_ips, sizeof(*q->ifaces));
	if (!q->key || !q->ips || !q->ifaces)
		return -ENOMEM;
	memcpy(q->ips, pod->ips, pod->n_ips * sizeof(*q->ips));
	q->n_ips = pod->n_ips;
	q->ifindex = pod->iface.ifindex;
	return 0;
}

static void lookup_on_pool(uv_work_t *work)
{
	struct lookup *lookup = work->data;
	struct mnl_socket *nl = lookup->node->nl;

	for (size_t i = 0; i < lookup->n; i++) {
		struct question *q = &lookup->questions[i];

		if (q->ifindex && pb_nl_link_get(nl, q->ifindex, &q->link) < 0)
			q->link = (struct pb_nl_link){0};
		for (uint32_t ip = 0; ip < q->n_ips; ip++)
			pb_node_resolve(nl, &q->ips[ip], &q->ifaces[ip]);
	}
}

static bool is_device(const struct pb_node *node, const char *name)
{
	return pb_links_match(node->devices, node->n_devices, name);
}

static const struct pb_iface *first_iface(const struct pb_node *node, const struct question *q)
{
	for (uint32_t i = 0; i < q->n_ips; i++)
		if (q->ifaces[i].ifindex && !is_device(node, q->ifaces[i].name))
			return &q->ifaces[i];
	return NULL;
}

static void answer(struct pb_node *node, struct pod *pod, const struct question *q)
{
	const struct pb_iface *iface = first_iface(node, q);

	if (pod->iface.ifindex && (!q->link.ifindex || is_device(node, q->link.name)))
		unhook(node, pod);
	if (!iface)
		return;
	if (iface->ifindex != pod->iface.ifindex) {
		unhook(node, pod);
		hook(node, pod, iface);
		return;
	}
	pod->iface = *iface;
	/* Again, when that failed before; what is under way comes to its end. */
	if (!pod->hooked && pod->last_code < 0)
		hook(node, pod, iface);
}

static void node_finish(struct pb_node *node);

static void lookup_answered(uv_work_t *work, int status)
{
	struct lookup *lookup = work->data;
	struct pb_node *node = lookup->node;

	(void)status;
	node->lookup = NULL;
	for (size_t i = 0; i < lookup->n && !node->closing; i++) {
		const struct question *q = &lookup->questions[i];
		struct pod *pod;

		HASH_FIND_STR(node->pods, q->key, pod);
		/* What moved or got other addresses meanwhile is dirty, so it is asked again. */
		if (pod && pod->iface.ifindex == q->ifindex && pod->n_ips == q->n_ips &&
		    memcmp(pod->ips, q->ips, q->n_ips * sizeof(*q->ips)) == 0)
			answer(node, pod, q);
	}
	lookup_free(lookup);
	if (node->closing)
		node_finish(node);
	else
		schedule(node, 0);
}

/* Returns false when no pod has to be looked at. */
static bool look_up(struct pb_node *node)
{
	struct lookup *lookup = calloc(1, sizeof(*lookup));
	struct pod *pod, *next;

	if (!lookup)
		return false;
	HASH_ITER (hh, node->pods, pod, next) {
		if (!pod->dirty || lookup->n == PODS_A_LOOKUP)
			continue;
		if (ask(&lookup->questions[lookup->n++], pod) < 0)
			break;
		pod->dirty = false;
	}
	if (lookup->n == 0) {
		lookup_free(lookup);
		return false;
	}
	lookup->node = node;
	lookup->work.data = lookup;
	node->lookup = lookup;
	uv_queue_work(node->loop, &lookup->work, lookup_on_pool, lookup_answered);
	return true;
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
	struct pod *pod, *next;
	bool waiting = false;

	/* Its answer comes back here. */
	if (node->lookup || look_up(node))
		return;
	HASH_ITER (hh, node->pods, pod, next) {
		pod->dirty = !pod->hooked;
		waiting |= !pod->hooked;
	}
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
	int rc;

	if (same_ips(pod, from))
		return 0;
	if (pod_ips(pod, from) < 0)
		return pb_err_set(err, -ENOMEM, "out of memory");
	pod->dirty = true;
	if (!pod->iface.ifindex)
		return 0;
	rc = pb_dp_pod_add(node->dp, pod->iface.ifindex, &pod->ep, err);
	return rc < 0 ? rc : 0;
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

static void node_finish(struct pb_node *node)
{
	void (*closed)(void *) = node->closed;
	void *closed_arg = node->closed_arg;

	if (node->lookup || !node->handles_closed)
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
	pb_dp_pod_listen(dp, on_hooks, node);
	*ret_node = node;
	return 0;
}

void pb_node_close(struct pb_node *node, void (*closed)(void *arg), void *arg)
{
	node->closed = closed;
	node->closed_arg = arg;
	node->closing = true;
	pb_dp_pod_listen(node->dp, NULL, NULL);
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
		cJSON_AddStringToObject(item, "interface", pod->hooked ? pod->iface.name : "");
		cJSON_AddNumberToObject(item, "ifindex", pod->hooked ? pod->iface.ifindex : 0);
		cJSON_AddStringToObject(item, "addresses", addresses ? addresses : "");
		cJSON_AddItemToArray(items, item);
	}
	return table;
}
