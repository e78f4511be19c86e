/* SPDX-License-Identifier: Apache-2.0 */
/* What is told of this node's own addresses, of interfaces made, changed and removed. */
#include "node_bed.h"

struct wanted {
	const char *addr, *ifname;
	int flags; /* -1: not there */
};

static bool holds(void *arg)
{
	const struct wanted *w = arg;
	const struct pb_node_address *a = host_addr(w->addr, w->ifname);

	return w->flags < 0 ? !a : a && a->flags == (uint32_t)w->flags;
}

static void expect(struct bed *bed, const char *addr, const char *ifname, int flags)
{
	struct wanted w = {addr, ifname, flags};

	run_until(&bed->loop, holds, &w);
}

Test(node_addresses, addresses_are_told_with_interface_prefix_and_flags)
{
	const struct pb_node_address *a;
	struct bed bed;

	/* given: addresses that are there before the agent */
	bed_setup(&bed);
	expect(&bed, "127.0.0.1", "lo", PB_NODE_ADDR_LOOPBACK);
	expect(&bed, "::1", "lo", PB_NODE_ADDR_LOOPBACK);

	/* when: a device that datapath.devices names ("up+") appears later */
	sh("ip tuntap add up1 mode tap && ip link set up1 up");
	sh("ip addr add 10.9.0.1/24 dev up1 && ip addr add 10.9.0.2/24 dev up1");
	sh("ip addr add fd00:9::1/64 dev up1 nodad");
	expect(&bed, "10.9.0.1", "up1", PB_NODE_ADDR_DEVICE);
	expect(&bed, "10.9.0.2", "up1", PB_NODE_ADDR_DEVICE | PB_NODE_ADDR_SECONDARY);
	expect(&bed, "fd00:9::1", "up1", PB_NODE_ADDR_DEVICE);
	a = host_addr("fd00:9::1", "up1");
	cr_expect_eq(a->family, 6);
	cr_expect_eq(a->bits, 64);
	cr_expect_eq(a->ifindex, if_nametoindex("up1"));
	cr_expect_eq(a->size, sizeof(*a));

	/* when: another interface has the same one, and a link-local one */
	sh("ip tuntap add other mode tap && ip link set other up");
	sh("ip addr add 10.9.0.1/32 dev other && ip addr add 169.254.3.4/16 dev other");
	expect(&bed, "10.9.0.1", "other", 0);
	expect(&bed, "169.254.3.4", "other", PB_NODE_ADDR_LINK);
	cr_expect_not_null(host_addr("10.9.0.1", "up1"));

	/* when: one goes */
	sh("ip addr del 169.254.3.4/16 dev other");
	expect(&bed, "169.254.3.4", "other", -1);
	sh("ip link del up1");
	expect(&bed, "10.9.0.2", "up1", -1);
	bed_end(&bed);
}

Test(node_addresses, an_interface_that_is_renamed_becomes_a_device)
{
	struct bed bed;

	bed_setup(&bed);
	sh("ip tuntap add eth7 mode tap && ip addr add 10.9.0.1/24 dev eth7");
	expect(&bed, "10.9.0.1", "eth7", 0);
	sh("ip link set eth7 name up7");
	expect(&bed, "10.9.0.1", "up7", PB_NODE_ADDR_DEVICE);
	bed_end(&bed);
}

Test(node_addresses, another_list_of_devices_is_followed)
{
	char *devices[] = {(char *)"eth+"};
	struct pb_err err = {0};
	struct bed bed;

	bed_setup(&bed);
	sh("ip tuntap add eth7 mode tap && ip addr add 10.9.0.1/24 dev eth7");
	expect(&bed, "10.9.0.1", "eth7", 0);
	bed.config.datapath.devices = devices;
	bed.config.datapath.n_devices = 1;
	cr_assert_eq(pb_node_reconfigure(bed.node, &bed.config, &err), 0, "%s", err.text);
	expect(&bed, "10.9.0.1", "eth7", PB_NODE_ADDR_DEVICE);
	bed_end(&bed);
}

Test(node_addresses, an_address_on_the_host_side_of_a_pod_says_so_while_the_pod_is_there)
{
	struct bed bed;
	struct pod pod;

	bed_setup(&bed);
	pod_init(&pod, "web", "uid-1", "10.1.0.2", NULL);
	uint32_t ifindex = veth_with_route("cali1", "10.1.0.2");

	sh("ip addr add 10.9.0.1/32 dev cali1");
	expect(&bed, "10.9.0.1", "cali1", 0);
	tell(PB_KUBE_PUT, &pod);
	expect_hooked(&bed, ifindex, true);
	expect(&bed, "10.9.0.1", "cali1", PB_NODE_ADDR_POD);
	tell(PB_KUBE_DELETE, &pod);
	expect(&bed, "10.9.0.1", "cali1", 0);
	bed_end(&bed);
}

Test(node_addresses, plugins_that_are_loaded_first_find_them_with_what_an_agent_before_knew)
{
	struct pb_err err = {0};
	struct bed bed;

	/* given: a pod that an agent before hooked, and a device */
	bed_setup(&bed);
	bed_stop(&bed);
	uint32_t ifindex = veth("cali1");

	sh("ip addr add 10.9.0.1/32 dev cali1");
	sh("ip tuntap add up1 mode tap && ip addr add 10.9.0.2/24 dev up1");
	hooked[0].ifindex = ifindex;
	/* when: the agent starts, then: all is there before the loop turns */
	cr_assert_eq(pb_node_first_addresses(&bed.config, NULL, NULL, &err), 0, "%s", err.text);
	cr_assert_not_null(host_addr("10.9.0.1", "cali1"));
	cr_expect_eq(host_addr("10.9.0.1", "cali1")->flags, PB_NODE_ADDR_POD);
	cr_assert_not_null(host_addr("10.9.0.2", "up1"));
	cr_expect_eq(host_addr("10.9.0.2", "up1")->flags, PB_NODE_ADDR_DEVICE);
	/* when: no such pod is listed, then: the interface is nobody's */
	bed_start(&bed);
	synced();
	expect(&bed, "10.9.0.1", "cali1", 0);
	bed_end(&bed);
}
