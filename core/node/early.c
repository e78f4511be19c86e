/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Interfaces of pods that nobody told us of yet.
 *
 * Owns the addresses that routes and neighbours show inside this node's pod CIDRs. A veth that one
 * of them leads to gets the pod hooks and an endpoint of identity PB_IDENTITY_INIT; its pod comes
 * later. Never an address outside the ranges, and never another kind of device.
 */
#include <node/internal.h>

#include <linux/neighbour.h>

#include <base/log.h>

bool node_cidr_has(const struct pb_cidr *cidr, const struct pb_kube_addr *addr)
{
	unsigned whole = cidr->bits / 8, rest = cidr->bits % 8;
	unsigned mask = 0xff00U >> rest;

	if (cidr->family != addr->family || memcmp(&cidr->addr, &addr->addr, whole) != 0)
		return false;
	return !rest || ((cidr->addr.bytes[whole] ^ addr->addr.bytes[whole]) & mask) == 0;
}

bool node_in_cidrs(const struct pb_node *node, const struct pb_kube_addr *addr)
{
	for (uint32_t i = 0; i < node->n_cidrs; i++)
		if (node_cidr_has(&node->cidrs[i], addr))
			return true;
	return false;
}

/* ---- what netlink says ---- */

static bool read_addr(int family, const struct nlattr *attr, struct pb_kube_addr *ret_addr)
{
	size_t len = family == AF_INET6 ? 16 : 4;

	if (mnl_attr_get_payload_len(attr) != len)
		return false;
	*ret_addr = (struct pb_kube_addr){.family = family == AF_INET6 ? 6 : 4};
	memcpy(ret_addr->addr.bytes, mnl_attr_get_payload(attr), len);
	return true;
}

bool node_parse_route(const struct nlmsghdr *msg, struct pb_kube_addr *ret_addr, uint32_t *ret_bits)
{
	const struct rtmsg *rt = mnl_nlmsg_get_payload(msg);
	const struct nlattr *attr;

	if (rt->rtm_family != AF_INET && rt->rtm_family != AF_INET6)
		return false;
	*ret_addr = (struct pb_kube_addr){.family = rt->rtm_family == AF_INET6 ? 6 : 4};
	*ret_bits = rt->rtm_dst_len;
	mnl_attr_for_each (attr, msg, sizeof(*rt)) {
		if (mnl_attr_get_type(attr) == RTA_DST)
			return read_addr(rt->rtm_family, attr, ret_addr);
	}
	return rt->rtm_dst_len == 0;
}

bool node_parse_neighbour(const struct nlmsghdr *msg, struct pb_kube_addr *ret_addr,
			  bool *ret_valid)
{
	const struct ndmsg *nd = mnl_nlmsg_get_payload(msg);
	const struct nlattr *attr;

	if (nd->ndm_family != AF_INET && nd->ndm_family != AF_INET6)
		return false;
	*ret_valid = !(nd->ndm_state & (NUD_FAILED | NUD_INCOMPLETE | NUD_NOARP)) && nd->ndm_state;
	mnl_attr_for_each (attr, msg, sizeof(*nd)) {
		if (mnl_attr_get_type(attr) == NDA_DST)
			return read_addr(nd->ndm_family, attr, ret_addr);
	}
	return false;
}

/* ---- all of them, on the pool ---- */

struct scan {
	const struct pb_cidr *cidrs;
	uint32_t n_cidrs;
	struct pb_kube_addr *addrs;
	size_t n;
};

static void scan_add(struct scan *scan, const struct pb_kube_addr *addr)
{
	struct pb_kube_addr *grown;
	bool in = false;

	for (uint32_t i = 0; i < scan->n_cidrs; i++)
		in |= node_cidr_has(&scan->cidrs[i], addr);
	if (!in || scan->n == NODE_CANDIDATES_MAX)
		return;
	grown = reallocarray(scan->addrs, scan->n + 1, sizeof(*grown));
	if (!grown)
		return;
	scan->addrs = grown;
	scan->addrs[scan->n++] = *addr;
}

static int scan_cb(const struct nlmsghdr *msg, void *arg)
{
	struct pb_kube_addr addr;
	uint32_t bits;
	bool valid;

	if (msg->nlmsg_type == RTM_NEWROUTE && node_parse_route(msg, &addr, &bits) &&
	    bits == (addr.family == 6 ? 128 : 32))
		scan_add(arg, &addr);
	else if (msg->nlmsg_type == RTM_NEWNEIGH && node_parse_neighbour(msg, &addr, &valid) &&
		 valid)
		scan_add(arg, &addr);
	return MNL_CB_OK;
}

void node_scan(struct mnl_socket *nl, const struct pb_cidr *cidrs, uint32_t n_cidrs,
	       struct pb_kube_addr **ret_addrs, size_t *ret_n)
{
	static const uint16_t types[] = {RTM_GETROUTE, RTM_GETNEIGH};
	struct scan scan = {.cidrs = cidrs, .n_cidrs = n_cidrs};

	for (size_t i = 0; i < PB_ARRAY_LEN(types); i++) {
		int rc = -EINTR;

		for (int try = 0; try < 5 && rc == -EINTR; try++) {
			char buf[256];
			struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);

			msg->nlmsg_type = types[i];
			msg->nlmsg_flags = NLM_F_DUMP;
			mnl_nlmsg_put_extra_header(msg, types[i] == RTM_GETROUTE
								? sizeof(struct rtmsg)
								: sizeof(struct ndmsg));
			rc = pb_nl_talk(nl, msg, scan_cb, &scan);
		}
		if (rc < 0)
			pb_warn("node",
				"list of %s: %s; pods that it alone would show are hooked "
				"when their pod object comes",
				types[i] == RTM_GETROUTE ? "routes" : "neighbours", strerror(-rc));
	}
	*ret_addrs = scan.addrs;
	*ret_n = scan.n;
}

/* ---- candidates ---- */

void node_candidate_add(struct pb_node *node, const struct pb_kube_addr *addr)
{
	const struct node_ep *ep;
	struct node_candidate *c;

	if (!node_in_cidrs(node, addr))
		return;
	ep = node_ep_by_addr(node, addr);
	if (ep && (ep->key || ep->iface.ifindex))
		return;
	HASH_FIND(hh, node->candidates, addr, sizeof(*addr), c);
	if (c)
		return;
	if (HASH_COUNT(node->candidates) >= NODE_CANDIDATES_MAX) {
		node->scan = true;
		return;
	}
	c = calloc(1, sizeof(*c));
	if (!c)
		return;
	c->addr = *addr;
	HASH_ADD(hh, node->candidates, addr, sizeof(c->addr), c);
	node_schedule(node, NODE_SETTLE_MS);
}

void node_candidates_free(struct pb_node *node)
{
	struct node_candidate *c, *next;

	HASH_ITER (hh, node->candidates, c, next) {
		HASH_DEL(node->candidates, c);
		free(c);
	}
}

/* Another address of an endpoint that is here already: the second family. */
static void add_address(struct pb_node *node, struct node_ep *ep, const struct pb_kube_addr *addr)
{
	PB_FREE struct pb_kube_addr *ips = calloc(ep->n_ips + 1, sizeof(*ips));
	uint64_t routed = ep->routed;

	if (!ips || ep->key || node_ep_has_ip(ep, addr) || ep->n_ips >= NODE_ANNOUNCE_ADDRS)
		return;
	if (ep->n_ips)
		memcpy(ips, ep->ips, ep->n_ips * sizeof(*ips));
	ips[ep->n_ips] = *addr;
	if (node_ep_set_ips(ep, ips, ep->n_ips + 1) == 0) {
		ep->routed = routed | 1ULL << (ep->n_ips - 1);
		node_rewrite(node, ep);
	}
}

void node_candidate_found(struct pb_node *node, const struct pb_kube_addr *addr,
			  const struct pb_iface *iface)
{
	struct node_ep *ep = node_ep_by_ifindex(node, iface->ifindex);
	char text[INET6_ADDRSTRLEN];

	if (strcmp(iface->kind, "veth") != 0 || node_is_device(node, iface->name) ||
	    !node_in_cidrs(node, addr))
		return;
	if (ep) {
		add_address(node, ep, addr);
		return;
	}
	if (node_ep_by_addr(node, addr))
		return;
	ep = node_ep_new(node, node_addr_str(addr, text, sizeof(text)));
	if (!ep || node_ep_set_ips(ep, addr, 1) < 0) {
		pb_error("node", "%s: out of memory", iface->name);
		if (ep)
			node_ep_free(node, ep);
		return;
	}
	ep->dirty = false;
	ep->routed = 1;
	node_hook(node, ep, iface);
}
