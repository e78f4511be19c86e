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
	char kind[16]; /* "veth" */
	bool bridged;  /* a bridge's port, by what its neighbours say of themselves */
};

/*
 * Follows the route to an address. A veth that the route leads to directly, or another device
 * with a host route, is the interface; on a bridge it is the port behind which the neighbour
 * lives. -ENOENT: no such interface now. -EAGAIN: the bridge doesn't know the neighbour yet and
 * has been made to ask for it; a neighbour event follows when it answers. `why` (at least 160
 * bytes, or NULL) then says what is there instead.
 */
int pb_node_resolve(struct mnl_socket *nl, const struct pb_kube_addr *addr,
		    struct pb_iface *ret_iface, char *why);
/*
 * An interface by its name: -ENODEV: there is none; -EOPNOTSUPP: its kind (a bridge, a macvlan) is
 * no pod's own.
 */
int pb_node_resolve_name(struct mnl_socket *nl, const char *name, struct pb_iface *ret_iface,
			 char *why);

#endif
