/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The addresses of this node's own interfaces. Asked as a whole whenever one comes or goes, or an
 * interface becomes something else.
 */
#include <node/internal.h>

#include <linux/if_addr.h>

#include <base/log.h>

/* Two for each of the pods that fit on a node, with room. */
#define HOST_ADDRS_MAX 4096

struct list {
	struct pb_node_address *addrs;
	size_t n;
};

static bool is_link_local(const struct pb_node_address *a)
{
	if (a->family == 4)
		return a->addr.bytes[0] == 169 && a->addr.bytes[1] == 254;
	return a->addr.bytes[0] == 0xfe && (a->addr.bytes[1] & 0xc0) == 0x80;
}

static bool is_loopback(const struct pb_node_address *a)
{
	static const union pb_addr one = {.bytes = {[15] = 1}};

	return a->family == 4 ? a->addr.bytes[0] == 127 : memcmp(&a->addr, &one, sizeof(one)) == 0;
}

static void list_add(struct list *list, const struct ifaddrmsg *ifa, const struct nlattr *attr,
		     uint32_t ifa_flags)
{
	const size_t len = ifa->ifa_family == AF_INET6 ? 16 : 4;
	struct pb_node_address *grown, *a;

	if (!attr || mnl_attr_get_payload_len(attr) != len || list->n == HOST_ADDRS_MAX)
		return;
	grown = reallocarray(list->addrs, list->n + 1, sizeof(*grown));
	if (!grown)
		return;
	list->addrs = grown;
	a = &grown[list->n++];
	*a = (struct pb_node_address){.size = sizeof(*a),
				      .family = ifa->ifa_family == AF_INET6 ? 6 : 4,
				      .bits = ifa->ifa_prefixlen,
				      .ifindex = ifa->ifa_index};
	memcpy(a->addr.bytes, mnl_attr_get_payload(attr), len);
	if (ifa_flags & IFA_F_SECONDARY)
		a->flags |= PB_NODE_ADDR_SECONDARY;
	if (is_link_local(a))
		a->flags |= PB_NODE_ADDR_LINK;
	if (is_loopback(a))
		a->flags |= PB_NODE_ADDR_LOOPBACK;
}

static int addr_cb(const struct nlmsghdr *msg, void *arg)
{
	const struct ifaddrmsg *ifa = mnl_nlmsg_get_payload(msg);
	const struct nlattr *attr, *own = NULL;
	uint32_t flags = ifa->ifa_flags;

	if (msg->nlmsg_type != RTM_NEWADDR ||
	    (ifa->ifa_family != AF_INET && ifa->ifa_family != AF_INET6))
		return MNL_CB_OK;
	mnl_attr_for_each (attr, msg, sizeof(*ifa)) {
		uint16_t type = mnl_attr_get_type(attr);

		/* With a peer's address, that is IFA_ADDRESS. */
		if (type == IFA_LOCAL || (type == IFA_ADDRESS && !own))
			own = attr;
		else if (type == IFA_FLAGS)
			flags = mnl_attr_get_u32(attr);
	}
	list_add(arg, ifa, own, flags);
	return MNL_CB_OK;
}

/* Interfaces and addresses are two dumps: one without a name went in between. */
static void name_cb(void *arg, const struct pb_nl_link *link)
{
	struct list *list = arg;

	for (size_t i = 0; i < list->n; i++) {
		struct pb_node_address *a = &list->addrs[i];

		if (a->ifindex != link->ifindex)
			continue;
		memcpy(a->ifname, link->name, sizeof(a->ifname));
		if (link->loopback)
			a->flags |= PB_NODE_ADDR_LOOPBACK;
	}
}

int node_host_addrs(struct mnl_socket *nl, struct pb_node_address **ret_addrs, size_t *ret_n)
{
	struct list list = {0};
	int rc = -EINTR;

	for (int i = 0; i < 5 && rc == -EINTR; i++) {
		char buf[256];
		struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);

		list.n = 0;
		msg->nlmsg_type = RTM_GETADDR;
		msg->nlmsg_flags = NLM_F_DUMP;
		mnl_nlmsg_put_extra_header(msg, sizeof(struct ifaddrmsg));
		rc = pb_nl_talk(nl, msg, addr_cb, &list);
	}
	if (rc == 0)
		rc = pb_nl_link_dump(nl, name_cb, &list, NULL);
	if (rc < 0) {
		free(list.addrs);
		return rc;
	}
	*ret_addrs = list.addrs;
	*ret_n = list.n;
	return 0;
}

/* ---- telling ---- */

static int tell_ipcache(struct pb_peers *peers, const struct pb_node_address *addrs, size_t n)
{
	PB_FREE struct pb_kube_addr *ips = calloc(n + 1, sizeof(*ips));

	if (!ips)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++)
		ips[i] = (struct pb_kube_addr){.addr = addrs[i].addr, .family = addrs[i].family};
	return pb_peers_host_addrs(peers, ips, (uint32_t)n);
}

static int tell(struct pb_peers *peers, const struct pb_node_address *addrs, size_t n)
{
	int rc = tell_ipcache(peers, addrs, n);

	return rc < 0 ? rc : pb_peers_node_addresses(peers, addrs, (uint32_t)n);
}

static bool was_a_pods(struct pb_dp *dp, uint32_t ifindex)
{
	struct pb_endpoint ep;

	return pb_dp_pod_get(dp, ifindex, &ep) == 0;
}

int node_host_addrs_tell(struct pb_node *node, struct pb_node_address *addrs, size_t n)
{
	free(node->addrs);
	node->addrs = addrs;
	node->n_addrs = n;
	for (size_t i = 0; i < n; i++) {
		if (node_is_device(node, addrs[i].ifname))
			addrs[i].flags |= PB_NODE_ADDR_DEVICE;
		/* Until all pods are found, what an agent before knew of them counts. */
		if (node_ep_by_ifindex(node, addrs[i].ifindex) ||
		    (!node->swept && was_a_pods(node->dp, addrs[i].ifindex)))
			addrs[i].flags |= PB_NODE_ADDR_POD;
	}
	return tell(node->peers, addrs, n);
}

int pb_node_first_addresses(const struct pb_config *config, struct pb_dp *dp,
			    struct pb_peers *peers, struct pb_err *err)
{
	PB_NL_CLOSE struct mnl_socket *nl = NULL;
	PB_FREE struct pb_node_address *addrs = NULL;
	size_t n = 0;
	int rc = pb_nl_open(&nl, err);

	if (rc < 0)
		return rc;
	rc = node_host_addrs(nl, &addrs, &n);
	for (size_t i = 0; i < n; i++) {
		if (pb_links_match(config->datapath.devices, config->datapath.n_devices,
				   addrs[i].ifname))
			addrs[i].flags |= PB_NODE_ADDR_DEVICE;
		if (was_a_pods(dp, addrs[i].ifindex))
			addrs[i].flags |= PB_NODE_ADDR_POD;
	}
	if (rc == 0)
		rc = tell(peers, addrs, n);
	return rc < 0 ? pb_err_set(err, rc, "addresses of this node: %s", strerror(-rc)) : 0;
}

void node_host_addrs_look(struct pb_node *node, uint32_t ifindex, const char *name)
{
	for (size_t i = 0; i < node->n_addrs && !node->host_addrs; i++)
		if (node->addrs[i].ifindex == ifindex &&
		    (!name || strcmp(node->addrs[i].ifname, name) != 0))
			node->host_addrs = true;
	if (node->host_addrs)
		node_schedule(node, NODE_SETTLE_MS);
}
