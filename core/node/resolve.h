/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From a pod's address to the host side of its interface, whatever the CNI.
 *
 * Owns no state but a netlink socket: every question is answered by the kernel's own routes,
 * neighbours and forwarding tables, in the network namespace of the process.
 */
#ifndef PB_NODE_RESOLVE_H
#define PB_NODE_RESOLVE_H

#include <datapath/netlink.h>
#include <patchbay/kube.h>

struct pb_iface {
	uint32_t ifindex;
	char name[IF_NAMESIZE];
};

/*
 * Follows the route to an address. A veth that the route leads to directly, or another device
 * with a host route, is the interface; on a bridge it is the port behind which the neighbour
 * lives. -ENOENT: no such interface now. -EAGAIN: the bridge doesn't know the neighbour yet and
 * has been made to ask for it; a neighbour event follows when it answers.
 */
int pb_node_resolve(struct mnl_socket *nl, const struct pb_kube_addr *addr,
		    struct pb_iface *ret_iface);

#endif
