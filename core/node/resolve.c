/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Route, then neighbour and forwarding entry where the route ends at a bridge.
 *
 * Owns the rules for what counts as a pod's interface. Never guesses: an address that is only
 * reachable through a gateway, by several paths or on this host itself has none.
 */
#include <node/resolve.h>

#include <arpa/inet.h>
#include <linux/neighbour.h>

#define ETH_LEN 6
#define WHY_LEN 160

struct route {
	uint32_t oif;
	bool host;
	bool local;  /* an address of this host */
	bool direct; /* unicast, one path, no gateway */
};

struct neighbour {
	uint32_t ifindex;
	bool known;
	unsigned char mac[ETH_LEN];
};

static int family_of(const struct pb_kube_addr *addr)
{
	return addr->family == 6 ? AF_INET6 : AF_INET;
}

static size_t bytes_of(const struct pb_kube_addr *addr)
{
	return addr->family == 6 ? 16 : 4;
}

static int route_cb(const struct nlmsghdr *msg, void *arg)
{
	const struct rtmsg *rt = mnl_nlmsg_get_payload(msg);
	struct route *route = arg;
	const struct nlattr *attr;

	if (msg->nlmsg_type != RTM_NEWROUTE)
		return MNL_CB_OK;
	route->direct = rt->rtm_type == RTN_UNICAST;
	route->local = rt->rtm_type == RTN_LOCAL;
	route->host = rt->rtm_dst_len == (rt->rtm_family == AF_INET6 ? 128 : 32);
	mnl_attr_for_each (attr, msg, sizeof(*rt)) {
		switch (mnl_attr_get_type(attr)) {
		case RTA_OIF:
			route->oif = mnl_attr_get_u32(attr);
			break;
		case RTA_GATEWAY:
		case RTA_VIA:
		case RTA_MULTIPATH:
		case RTA_ENCAP:
			route->direct = false;
			break;
		}
	}
	return MNL_CB_OK;
}

static int route_get(struct mnl_socket *nl, const struct pb_kube_addr *addr,
		     struct route *ret_route)
{
	char buf[256];
	struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);
	struct rtmsg *rt;

	msg->nlmsg_type = RTM_GETROUTE;
	rt = mnl_nlmsg_put_extra_header(msg, sizeof(*rt));
	rt->rtm_family = (unsigned char)family_of(addr);
	rt->rtm_dst_len = (unsigned char)(bytes_of(addr) * 8);
	/* Without it the answer is a host route of its own making. */
	rt->rtm_flags = RTM_F_FIB_MATCH;
	mnl_attr_put(msg, RTA_DST, bytes_of(addr), addr->addr.bytes);
	return pb_nl_talk(nl, msg, route_cb, ret_route);
}

static int neighbour_cb(const struct nlmsghdr *msg, void *arg)
{
	const struct ndmsg *nd = mnl_nlmsg_get_payload(msg);
	struct neighbour *n = arg;
	const struct nlattr *attr;

	if (msg->nlmsg_type != RTM_NEWNEIGH || (nd->ndm_state & (NUD_FAILED | NUD_INCOMPLETE)))
		return MNL_CB_OK;
	n->ifindex = (uint32_t)nd->ndm_ifindex;
	mnl_attr_for_each (attr, msg, sizeof(*nd)) {
		if (mnl_attr_get_type(attr) == NDA_LLADDR &&
		    mnl_attr_get_payload_len(attr) == ETH_LEN) {
			memcpy(n->mac, mnl_attr_get_payload(attr), ETH_LEN);
			n->known = true;
		}
	}
	return MNL_CB_OK;
}

static struct ndmsg *neighbour_msg(struct nlmsghdr *msg, uint16_t type, int family)
{
	struct ndmsg *nd;

	msg->nlmsg_type = type;
	nd = mnl_nlmsg_put_extra_header(msg, sizeof(*nd));
	nd->ndm_family = (unsigned char)family;
	return nd;
}

static int neighbour_get(struct mnl_socket *nl, const struct pb_kube_addr *addr, uint32_t bridge,
			 struct neighbour *ret_neighbour)
{
	char buf[256];
	struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);
	struct ndmsg *nd = neighbour_msg(msg, RTM_GETNEIGH, family_of(addr));

	nd->ndm_ifindex = (int)bridge;
	mnl_attr_put(msg, NDA_DST, bytes_of(addr), addr->addr.bytes);
	return pb_nl_talk(nl, msg, neighbour_cb, ret_neighbour);
}

/* Makes the kernel send its own ARP or neighbour solicitation. */
static int neighbour_ask(struct mnl_socket *nl, const struct pb_kube_addr *addr, uint32_t bridge)
{
	char buf[256];
	struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);
	struct ndmsg *nd = neighbour_msg(msg, RTM_NEWNEIGH, family_of(addr));

	msg->nlmsg_flags = NLM_F_CREATE | NLM_F_REPLACE;
	nd->ndm_ifindex = (int)bridge;
	nd->ndm_flags = NTF_USE;
	mnl_attr_put(msg, NDA_DST, bytes_of(addr), addr->addr.bytes);
	return pb_nl_talk(nl, msg, NULL, NULL);
}

static int port_get(struct mnl_socket *nl, uint32_t bridge, const unsigned char *mac,
		    struct neighbour *ret_port)
{
	char buf[256];
	struct nlmsghdr *msg = mnl_nlmsg_put_header(buf);

	neighbour_msg(msg, RTM_GETNEIGH, AF_BRIDGE);
	mnl_attr_put(msg, NDA_LLADDR, ETH_LEN, mac);
	mnl_attr_put_u32(msg, NDA_MASTER, bridge);
	return pb_nl_talk(nl, msg, neighbour_cb, ret_port);
}

static int resolve_on_bridge(struct mnl_socket *nl, const struct pb_kube_addr *addr,
			     uint32_t bridge, struct pb_nl_link *ret_link)
{
	struct neighbour peer = {0}, port = {0};

	if (neighbour_get(nl, addr, bridge, &peer) < 0 || !peer.known ||
	    port_get(nl, bridge, peer.mac, &port) < 0 || !port.known)
		return neighbour_ask(nl, addr, bridge) < 0 ? -ENOENT : -EAGAIN;
	if (port.ifindex == bridge || pb_nl_link_get(nl, port.ifindex, ret_link) < 0)
		return -ENOENT;
	return ret_link->master == bridge ? 0 : -ENOENT;
}

/* Keeps the code and says in words what was found instead of an interface. */
PB_PRINTF(3, 4) static int found(char *why, int code, const char *fmt, ...)
{
	va_list ap;

	if (!why)
		return code;
	va_start(ap, fmt);
	vsnprintf(why, WHY_LEN, fmt, ap);
	va_end(ap);
	return code;
}

static int no_interface(const struct route *route, const struct pb_nl_link *link,
			const char *address, char *why)
{
	if (route->local || link->loopback)
		return found(why, -ENOENT, "not hookable: %s is an address of this node", address);
	if (!route->direct)
		return found(why, -ENOENT,
			     "not hookable: the route to %s has a gateway or several paths",
			     address);
	return found(why, -ENOENT,
		     "not hookable: the route to %s leads to %s, which is no pod's own (the pod "
		     "may have a macvlan or ipvlan)",
		     address, link->name);
}

static void iface_set(struct pb_iface *iface, const struct pb_nl_link *link)
{
	iface->ifindex = link->ifindex;
	memcpy(iface->name, link->name, sizeof(iface->name));
	memcpy(iface->kind, link->kind, sizeof(iface->kind));
}

int pb_node_resolve(struct mnl_socket *nl, const struct pb_kube_addr *addr,
		    struct pb_iface *ret_iface, char *why)
{
	struct route route = {0};
	struct pb_nl_link link = {0};
	char address[INET6_ADDRSTRLEN] = "", bridge[IF_NAMESIZE];
	bool bridged = false;
	int rc = 0;

	inet_ntop(family_of(addr), addr->addr.bytes, address, sizeof(address));
	if (route_get(nl, addr, &route) < 0)
		return found(why, -ENOENT, "no route to %s", address);
	if (!route.direct || !route.oif || pb_nl_link_get(nl, route.oif, &link) < 0)
		return no_interface(&route, &link, address, why);
	if (strcmp(link.kind, "bridge") == 0) {
		bridged = true;
		memcpy(bridge, link.name, sizeof(bridge));
		rc = resolve_on_bridge(nl, addr, route.oif, &link);
		if (rc < 0)
			return found(why, rc, "bridge %s knows no port for %s", bridge, address);
	} else if (link.loopback || (!route.host && strcmp(link.kind, "veth") != 0)) {
		return no_interface(&route, &link, address, why);
	}
	iface_set(ret_iface, &link);
	ret_iface->bridged = bridged;
	return 0;
}

int pb_node_resolve_name(struct mnl_socket *nl, const char *name, struct pb_iface *ret_iface,
			 char *why)
{
	static const char *const own[] = {"veth", "netkit", "tun"};
	struct pb_nl_link link = {0};
	uint32_t ifindex = if_nametoindex(name);

	if (!ifindex || pb_nl_link_get(nl, ifindex, &link) < 0)
		return found(why, -ENODEV, "this node has no interface %s", name);
	for (size_t i = 0; i < PB_ARRAY_LEN(own); i++) {
		if (strcmp(link.kind, own[i]) == 0) {
			iface_set(ret_iface, &link);
			return 0;
		}
	}
	return found(why, -EOPNOTSUPP,
		     "not hookable: %s is a %s, not the host side of a pod's interface", name,
		     link.kind[0] ? link.kind : "physical device or loopback");
}
