/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Plays the datapath, the store and who knows labels for the tests of core/node.
 */
#include "node_bed.h"

#include <arpa/inet.h>

/* ---- the datapath and the store ---- */

struct hooked hooked[512];
int refuse_add;
bool add_later; /* the test says how it ended */
static pb_dp_pod_fn pod_fn;
static void *pod_arg;
static pb_kube_watch_fn watch_fn;
static void *watch_arg;
static pb_kube_watch_fn node_watch_fn;
unsigned unhooks;

struct hooked *on(uint32_t ifindex)
{
	for (size_t i = 0; i < PB_ARRAY_LEN(hooked); i++)
		if (hooked[i].ifindex == ifindex)
			return &hooked[i];
	return NULL;
}

int pb_dp_pod_add(struct pb_dp *dp, uint32_t ifindex, const struct pb_endpoint *ep,
		  struct pb_err *err)
{
	struct hooked *h = on(ifindex);

	(void)dp;
	if (refuse_add)
		return pb_err_set(err, refuse_add, "refused by the test");
	h = h ? h : on(0);
	h->ifindex = ifindex;
	h->ep = *ep;
	return add_later ? 0 : 1;
}

void pb_dp_pod_listen(struct pb_dp *dp, pb_dp_pod_fn fn, void *arg)
{
	(void)dp;
	pod_fn = fn;
	pod_arg = arg;
}

int pb_dp_pod_remove(struct pb_dp *dp, uint32_t ifindex)
{
	struct hooked *h = on(ifindex);

	(void)dp;
	if (!h)
		return -ENOENT;
	unhooks++;
	*h = (struct hooked){0};
	return 0;
}

int pb_dp_pod_get(struct pb_dp *dp, uint32_t ifindex, struct pb_endpoint *ret_ep)
{
	const struct hooked *h = on(ifindex);

	(void)dp;
	if (!h)
		return -ENOENT;
	*ret_ep = h->ep;
	return 0;
}

size_t pb_dp_pods(struct pb_dp *dp, uint32_t *ret_ifindexes, size_t max)
{
	size_t n = 0;

	(void)dp;
	for (size_t i = 0; i < PB_ARRAY_LEN(hooked); i++) {
		if (!hooked[i].ifindex)
			continue;
		if (n < max)
			ret_ifindexes[n] = hooked[i].ifindex;
		n++;
	}
	return n;
}

int pb_kube_watch(struct pb_kube *kube, uint32_t kind, pb_kube_watch_fn fn, void *arg,
		  struct pb_kube_watch **ret_watch)
{
	(void)kube;
	(void)ret_watch;
	cr_assert(kind == PB_KUBE_POD || kind == PB_KUBE_NODE);
	*(kind == PB_KUBE_POD ? &watch_fn : &node_watch_fn) = fn;
	watch_arg = arg;
	return 0;
}

void pb_kube_unwatch(struct pb_kube_watch *watch)
{
	(void)watch;
}

/* ---- pods ---- */

struct pb_kube_addr address(const char *text)
{
	struct pb_kube_addr addr = {.family = strchr(text, ':') ? 6 : 4};

	cr_assert_eq(inet_pton(addr.family == 6 ? AF_INET6 : AF_INET, text, addr.addr.bytes), 1);
	return addr;
}

void pod_init(struct pod *p, const char *name, const char *uid, const char *ip4, const char *ip6)
{
	memset(p, 0, sizeof(*p));
	p->pod.meta = (struct pb_kube_meta){.size = sizeof(p->pod),
					    .kind = PB_KUBE_POD,
					    .ns = "shop",
					    .name = name,
					    .uid = uid,
					    .version = ""};
	p->pod.node = "node-a";
	p->pod.phase = PB_POD_RUNNING;
	p->pod.ips = p->ips;
	if (ip4)
		p->ips[p->pod.n_ips++] = address(ip4);
	if (ip6)
		p->ips[p->pod.n_ips++] = address(ip6);
}

/* The Node object with the pod CIDRs, or only the end of the list. */
void tell_node(const char *cidr4, uint32_t bits4, const char *cidr6, uint32_t bits6)
{
	struct pb_cidr cidrs[2] = {
		{.addr = address(cidr4).addr, .family = 4, .bits = (uint8_t)bits4}};
	struct pb_kube_node node = {.meta = {.size = sizeof(node),
					     .kind = PB_KUBE_NODE,
					     .ns = "",
					     .name = "node-a",
					     .uid = "",
					     .version = ""},
				    .zone = "",
				    .n_pod_cidrs = cidr6 ? 2 : 1,
				    .pod_cidrs = cidrs};
	struct pb_kube_event event = {.size = sizeof(event),
				      .kind = PB_KUBE_PUT,
				      .object_kind = PB_KUBE_NODE,
				      .object = &node};

	if (cidr6)
		cidrs[1] = (struct pb_cidr){.addr = address(cidr6).addr,
					    .family = 6,
					    .bits = (uint8_t)bits6};
	node_watch_fn(watch_arg, &event);
}

void synced(void)
{
	struct pb_kube_event event = {.size = sizeof(event), .kind = PB_KUBE_SYNCED};

	event.object_kind = PB_KUBE_NODE;
	node_watch_fn(watch_arg, &event);
	event.object_kind = PB_KUBE_POD;
	watch_fn(watch_arg, &event);
}

void tell(uint32_t kind, const struct pod *p)
{
	struct pb_kube_event event = {.size = sizeof(event),
				      .kind = kind,
				      .object_kind = PB_KUBE_POD,
				      .object = &p->pod};

	watch_fn(watch_arg, &event);
}

/* ---- the node ---- */

static char *uplink[] = {"up+"};

/* Labels that Kubernetes told of: a pod's identity, PB_IDENTITY_UNKNOWN until it is known. */
uint32_t identity_of_pods;

uint32_t pb_peers_pod(struct pb_peers *peers, const char *ns, const char *name)
{
	(void)peers;
	(void)ns;
	(void)name;
	return identity_of_pods;
}

static pb_peers_fn identity_fn;
static void *identity_arg;

void pb_peers_listen(struct pb_peers *peers, pb_peers_fn fn, void *arg)
{
	(void)peers;
	identity_fn = fn;
	identity_arg = arg;
}

void labels_came(const char *name, uint32_t identity)
{
	identity_of_pods = identity;
	identity_fn(identity_arg, "shop", name, identity);
}

static struct told {
	char name[32];
	uint32_t n;
} told[PB_ARRAY_LEN(hooked)];

static struct told *told_slot(const char *name)
{
	for (size_t i = 0; i < PB_ARRAY_LEN(told); i++)
		if (!told[i].name[0] || strcmp(told[i].name, name) == 0)
			return &told[i];
	return NULL;
}

uint32_t n_told(const char *name)
{
	const struct told *slot = told_slot(name);

	return slot && slot->name[0] ? slot->n : 0;
}

int pb_peers_local_pod(struct pb_peers *peers, const char *ns, const char *name,
		       const struct pb_kube_addr *ips, uint32_t n_ips)
{
	struct told *slot = told_slot(name);

	(void)peers;
	(void)ns;
	(void)ips;
	cr_assert_not_null(slot, "more pods than the bed remembers");
	snprintf(slot->name, sizeof(slot->name), "%s", name);
	slot->n = n_ips;
	return 0;
}

struct pb_endpoint_record published;

int pb_peers_publish_endpoint(struct pb_peers *peers, const char *ns, const char *name,
			      const struct pb_endpoint_record *record)
{
	(void)peers;
	(void)ns;
	(void)name;
	if (record && record->identity >= PB_IDENTITY_FIRST && record->identity != identity_of_pods)
		return -ENOENT;
	published = record ? *record : (struct pb_endpoint_record){0};
	return 0;
}

unsigned endpoints_synced;

void pb_peers_endpoints_synced(struct pb_peers *peers)
{
	(void)peers;
	endpoints_synced++;
}

uint32_t n_host_addrs;

int pb_peers_host_addrs(struct pb_peers *peers, const struct pb_kube_addr *ips, uint32_t n_ips)
{
	(void)peers;
	(void)ips;
	n_host_addrs = n_ips;
	return 0;
}

static struct pb_node_address host_addrs[1024];
static uint32_t n_listed;

int pb_peers_node_addresses(struct pb_peers *peers, const struct pb_node_address *addrs, uint32_t n)
{
	(void)peers;
	cr_assert_leq(n, PB_ARRAY_LEN(host_addrs));
	memcpy(host_addrs, addrs, n * sizeof(*addrs));
	n_listed = n;
	return 0;
}

const struct pb_node_address *host_addr(const char *text, const char *ifname)
{
	struct pb_kube_addr addr = address(text);

	for (uint32_t i = 0; i < n_listed; i++)
		if (memcmp(&host_addrs[i].addr, &addr.addr, sizeof(addr.addr)) == 0 &&
		    strcmp(host_addrs[i].ifname, ifname) == 0)
			return &host_addrs[i];
	return NULL;
}

static bool is_watching(void *arg)
{
	(void)arg;
	return node_watch_fn != NULL;
}

/* An agent begins, with whatever is hooked already. */
void bed_start(struct bed *bed)
{
	struct pb_err err = {0};

	node_watch_fn = NULL;
	cr_assert_eq(pb_node_new(&bed->loop, &bed->config, NULL, NULL, NULL, &bed->node, &err), 0,
		     "%s", err.text);
	run_until(&bed->loop, is_watching, NULL);
}

void bed_setup(struct bed *bed)
{
	memset(bed, 0, sizeof(*bed));
	memset(hooked, 0, sizeof(hooked));
	sandbox_enter();
	cr_assert_eq(mount("tmpfs", "/mnt", "tmpfs", 0, "mode=0755"), 0);
	uv_loop_init(&bed->loop);
	bed->config.node.name = "node-a";
	bed->config.agent.run_dir = "/mnt";
	bed->config.datapath.devices = uplink;
	bed->config.datapath.n_devices = 1;
	bed_start(bed);
}

/* The agent ends; hooks, records and the network stay. */
void bed_stop(struct bed *bed)
{
	pb_node_close(bed->node, NULL, NULL);
	uv_run(&bed->loop, UV_RUN_DEFAULT);
}

void bed_end(struct bed *bed)
{
	bed_stop(bed);
	cr_expect_eq(uv_loop_close(&bed->loop), 0, "a handle was left open");
}

/* A veth whose other end stays here too: routes and device events are all that matters. */
uint32_t veth(const char *name)
{
	sh("ip link add %s type veth peer name p-%s && ip link set %s up && ip link set p-%s up",
	   name, name, name, name);
	return if_nametoindex(name);
}

uint32_t veth_with_route(const char *name, const char *ip)
{
	uint32_t ifindex = veth(name);

	sh("ip route add %s dev %s", ip, name);
	return ifindex;
}

struct hook_state {
	uint32_t ifindex;
	bool hooked;
};

static bool is_hooked(void *arg)
{
	const struct hook_state *h = arg;

	return (on(h->ifindex) != NULL) == h->hooked;
}

void expect_hooked(struct bed *bed, uint32_t ifindex, bool wanted)
{
	struct hook_state state = {ifindex, wanted};

	run_until(&bed->loop, is_hooked, &state);
}

static void count_turn(uv_timer_t *timer)
{
	uv_stop(timer->loop);
}

void settle(struct bed *bed)
{
	uv_timer_t timer;

	uv_timer_init(&bed->loop, &timer);
	uv_timer_start(&timer, count_turn, 200, 0);
	uv_run(&bed->loop, UV_RUN_DEFAULT);
	uv_close((uv_handle_t *)&timer, NULL);
	uv_run(&bed->loop, UV_RUN_NOWAIT);
}

void expect_nothing_hooked(struct bed *bed)
{
	settle(bed);
	for (size_t i = 0; i < PB_ARRAY_LEN(hooked); i++)
		cr_expect_eq(hooked[i].ifindex, 0);
}

void hooks_ended(uint32_t ifindex, int result, const char *text)
{
	pod_fn(pod_arg, ifindex, result, text);
}

void bridge(void)
{
	sh("ip link add cni0 type bridge && ip addr add 10.1.0.1/24 dev cni0 && "
	   "ip link set cni0 up");
}

uint32_t bridge_pod(int n)
{
	char port[IF_NAMESIZE];

	sh("ip netns add pod%d && ip link add port%d master cni0 type veth peer name eth0 netns "
	   "pod%d && ip link set port%d up && ip -n pod%d addr add 10.1.0.%d/24 dev eth0 && "
	   "ip -n pod%d link set eth0 up",
	   n, n, n, n, n, n, n);
	snprintf(port, sizeof(port), "port%d", n);
	return if_nametoindex(port);
}

const char *listed(struct bed *bed, const char *pod, const char *field)
{
	static char text[256];
	PB_JSON_FREE cJSON *table = pb_node_json(bed->node);
	const cJSON *row;

	cJSON_ArrayForEach (row, cJSON_GetObjectItem(table, "items")) {
		if (strcmp(pb_json_str(row, "pod", ""), pod) != 0)
			continue;
		snprintf(text, sizeof(text), "%s", pb_json_str(row, field, ""));
		return text;
	}
	return "";
}
