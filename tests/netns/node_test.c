/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Pods of this node and their interfaces, in networks built the way CNI plugins build them. The
 * datapath and the store are played by node_bed.c; routes, bridges and events are the kernel's.
 */
#include "node_bed.h"

#include <node/resolve.h>

/* ---- where an address leads ---- */

Test(node, an_address_leads_to_the_pods_interface_or_to_none)
{
	static const struct {
		const char *shape, *ip, *iface;
	} cases[] = {
		{"a route per pod", "10.1.0.2", "cali1"},
		{"a route per pod, IPv6", "fd00:1::2", "cali1"},
		{"a subnet on a veth of its own", "10.2.0.9", "sub1"},
		{"behind a gateway", "10.3.0.2", NULL},
		{"two paths", "10.4.0.2", NULL},
		{"the host's own address", "10.2.0.1", NULL},
		{"no route", "192.0.2.1", NULL},
		{"loopback", "127.0.0.5", NULL},
		{"a subnet on something that isn't a veth", "10.5.0.9", NULL},
		{"a host route on something that isn't a veth", "10.5.1.9", "tap1"},
	};
	struct mnl_socket *nl;

	sandbox_enter();
	veth("cali1");
	veth("sub1");
	sh("ip route add 10.1.0.2 dev cali1 && ip -6 route add fd00:1::2 dev cali1");
	sh("ip addr add 10.2.0.1/24 dev sub1 && ip route add 10.3.0.0/24 via 10.2.0.9");
	sh("ip route add 10.4.0.2 nexthop dev cali1 nexthop dev sub1");
	sh("ip tuntap add tap1 mode tap && ip link set tap1 up");
	sh("ip addr add 10.5.0.1/24 dev tap1 && ip route add 10.5.1.9 dev tap1");
	cr_assert_eq(pb_nl_open(&nl, NULL), 0);
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct pb_kube_addr addr = address(cases[i].ip);
		struct pb_iface iface = {0};
		int rc = pb_node_resolve(nl, &addr, &iface, NULL);

		cr_expect_eq(rc, cases[i].iface ? 0 : -ENOENT, "%s: %d", cases[i].shape, rc);
		cr_expect_str_eq(iface.name, cases[i].iface ? cases[i].iface : "", "%s",
				 cases[i].shape);
	}
	mnl_socket_close(nl);
}

/* ---- following pods ---- */

Test(node, a_pod_with_a_route_of_its_own_is_hooked_until_it_is_deleted)
{
	struct bed bed;
	struct pod pod;

	bed_setup(&bed);
	pod_init(&pod, "web", "uid-1", "10.1.0.2", "fd00:1::2");
	uint32_t ifindex = veth_with_route("cali1", "10.1.0.2");

	tell(PB_KUBE_PUT, &pod);
	expect_hooked(&bed, ifindex, true);
	cr_expect_eq(on(ifindex)->ep.addr4.v4, pod.ips[0].addr.v4);
	cr_expect_arr_eq(on(ifindex)->ep.addr6.bytes, pod.ips[1].addr.bytes, 16);
	cr_expect_gt(on(ifindex)->ep.id, 0);

	cr_expect_str_eq(listed(&bed, "shop/web", "interface"), "cali1");
	cr_expect_str_eq(listed(&bed, "shop/web", "addresses"), "10.1.0.2, fd00:1::2");
	cr_expect_str_eq(listed(&bed, "shop/web", "source"), "netlink");

	tell(PB_KUBE_DELETE, &pod);
	expect_hooked(&bed, ifindex, false);
	bed_end(&bed);
}

Test(node, a_pod_behind_a_bridge_is_hooked_at_its_port)
{
	struct bed bed;
	struct pod pod;

	/* Given a bridge with two pods in namespaces of their own, and no traffic yet */
	bed_setup(&bed);
	bridge();
	bridge_pod(2);
	bridge_pod(3);

	/* When the second pod is announced, then the kernel is made to find its port */
	pod_init(&pod, "web", "uid-1", "10.1.0.3", NULL);
	tell(PB_KUBE_PUT, &pod);
	expect_hooked(&bed, if_nametoindex("port3"), true);
	cr_expect_null(on(if_nametoindex("port2")));
	cr_expect_null(on(if_nametoindex("cni0")));
	bed_end(&bed);
}

Test(node, a_pod_that_is_announced_before_its_interface_is_hooked_when_that_appears)
{
	struct bed bed;
	struct pod pod;

	bed_setup(&bed);
	pod_init(&pod, "web", "uid-1", "10.1.0.2", NULL);
	tell(PB_KUBE_PUT, &pod);
	expect_nothing_hooked(&bed);

	uint64_t before = pb_now_ns();
	uint32_t ifindex = veth_with_route("cali1", "10.1.0.2");

	expect_hooked(&bed, ifindex, true);
	cr_expect_lt(pb_now_ns() - before, 1500000000ULL, "by the event, not by the retry timer");
	bed_end(&bed);
}

Test(node, pods_that_have_no_interface_here_are_left_alone)
{
	struct bed bed;
	struct pod elsewhere, host, done;

	bed_setup(&bed);
	veth_with_route("cali1", "10.1.0.2");
	pod_init(&elsewhere, "a", "uid-a", "10.1.0.2", NULL);
	elsewhere.pod.node = "node-b";
	pod_init(&host, "b", "uid-b", "10.1.0.2", NULL);
	host.pod.flags = PB_POD_HOST_NETWORK;
	pod_init(&done, "c", "uid-c", "10.1.0.2", NULL);
	done.pod.phase = PB_POD_SUCCEEDED;
	tell(PB_KUBE_PUT, &elsewhere);
	tell(PB_KUBE_PUT, &host);
	tell(PB_KUBE_PUT, &done);
	expect_nothing_hooked(&bed);
	bed_end(&bed);
}

Test(node, a_device_that_datapath_devices_names_is_no_pods_interface)
{
	struct bed bed;
	struct pod pod;
	struct pb_err err = {0};

	bed_setup(&bed);
	pod_init(&pod, "web", "uid-1", "10.1.0.2", NULL);
	uint32_t ifindex = veth_with_route("up0", "10.1.0.2");

	tell(PB_KUBE_PUT, &pod);
	expect_nothing_hooked(&bed);

	/* Until the configuration names it no longer, and again when it does */
	bed.config.datapath.n_devices = 0;
	cr_assert_eq(pb_node_reconfigure(bed.node, &bed.config, &err), 0, "%s", err.text);
	expect_hooked(&bed, ifindex, true);
	bed.config.datapath.n_devices = 1;
	cr_assert_eq(pb_node_reconfigure(bed.node, &bed.config, &err), 0, "%s", err.text);
	expect_hooked(&bed, ifindex, false);
	bed_end(&bed);
}

Test(node, a_pod_that_ended_or_lost_its_device_is_unhooked_but_not_one_whose_route_flaps)
{
	struct bed bed;
	struct pod pod, other;

	bed_setup(&bed);
	pod_init(&pod, "web", "uid-1", "10.1.0.2", NULL);
	pod_init(&other, "db", "uid-2", "10.1.0.3", NULL);
	uint32_t ifindex = veth_with_route("cali1", "10.1.0.2");
	uint32_t second = veth_with_route("cali2", "10.1.0.3");

	tell(PB_KUBE_PUT, &pod);
	tell(PB_KUBE_PUT, &other);
	expect_hooked(&bed, ifindex, true);
	expect_hooked(&bed, second, true);

	sh("ip route del 10.1.0.2 dev cali1 && ip link del cali2");
	expect_hooked(&bed, second, false);
	cr_expect_not_null(on(ifindex));

	pod.pod.phase = PB_POD_FAILED;
	tell(PB_KUBE_PUT, &pod);
	expect_hooked(&bed, ifindex, false);
	bed_end(&bed);
}

Test(node, an_endpoint_id_lives_as_long_as_its_pod)
{
	struct bed bed;
	struct pod pod, again;

	bed_setup(&bed);
	pod_init(&pod, "web-0", "uid-1", "10.1.0.2", NULL);
	uint32_t ifindex = veth_with_route("cali1", "10.1.0.2");

	tell(PB_KUBE_PUT, &pod);
	expect_hooked(&bed, ifindex, true);
	uint32_t id = on(ifindex)->ep.id;

	/* A second address doesn't change it */
	pod_init(&again, "web-0", "uid-1", "10.1.0.2", "fd00:1::2");
	tell(PB_KUBE_PUT, &again);
	cr_expect_eq(on(ifindex)->ep.id, id);
	cr_expect_arr_eq(on(ifindex)->ep.addr6.bytes, again.ips[1].addr.bytes, 16);

	/* Nor does a restart of the agent */
	tell(PB_KUBE_DELETE, &pod);
	expect_hooked(&bed, ifindex, false);
	tell(PB_KUBE_PUT, &pod);
	expect_hooked(&bed, ifindex, true);
	cr_expect_eq(on(ifindex)->ep.id, id);

	/* A new pod of the same name is another one */
	pod_init(&again, "web-0", "uid-2", "10.1.0.2", NULL);
	tell(PB_KUBE_PUT, &again);
	expect_hooked(&bed, ifindex, true);
	cr_expect_neq(on(ifindex)->ep.id, id);
	bed_end(&bed);
}

Test(node, a_second_pod_waits_for_an_interface_that_still_belongs_to_the_first)
{
	struct bed bed;
	struct pod old, young;

	bed_setup(&bed);
	pod_init(&old, "old", "uid-1", "10.1.0.2", NULL);
	pod_init(&young, "young", "uid-2", "10.1.0.2", NULL);
	uint32_t ifindex = veth_with_route("cali1", "10.1.0.2");

	tell(PB_KUBE_PUT, &old);
	expect_hooked(&bed, ifindex, true);
	uint32_t id = on(ifindex)->ep.id;

	tell(PB_KUBE_PUT, &young);
	uv_run(&bed.loop, UV_RUN_NOWAIT);
	cr_expect_eq(on(ifindex)->ep.id, id);

	tell(PB_KUBE_DELETE, &old);
	expect_hooked(&bed, ifindex, true);
	cr_expect_neq(on(ifindex)->ep.id, id);
	bed_end(&bed);
}

/* On a bridge whoever answers ARP says where an address is. */
Test(node, a_pod_that_speaks_for_anothers_address_takes_nobodys_hooks_off)
{
	struct bed bed;
	struct pod victim, liar;

	/* Given two pods behind a bridge, each hooked at its port */
	bed_setup(&bed);
	bridge();
	uint32_t port2 = bridge_pod(2), port3 = bridge_pod(3);
	pod_init(&victim, "victim", "uid-1", "10.1.0.2", NULL);
	pod_init(&liar, "liar", "uid-2", "10.1.0.3", NULL);
	tell(PB_KUBE_PUT, &victim);
	tell(PB_KUBE_PUT, &liar);
	expect_hooked(&bed, port2, true);
	expect_hooked(&bed, port3, true);
	uint32_t id = on(port2)->ep.id;

	/* When the other one announces the victim's address as its own */
	sh("ip neigh replace 10.1.0.2 dev cni0 nud reachable lladdr "
	   "$(ip -n pod3 -o link show eth0 | grep -o 'ether [0-9a-f:]*' | cut -d' ' -f2)");
	settle(&bed);

	/* Then both stay where they are */
	cr_expect_eq(unhooks, 0);
	cr_assert_not_null(on(port2));
	cr_expect_eq(on(port2)->ep.id, id);
	cr_expect_str_eq(listed(&bed, "shop/victim", "interface"), "port2");
	bed_end(&bed);
}

struct telling {
	const char *name;
	uint32_t wanted;
};

static bool is_told(void *arg)
{
	const struct telling *t = arg;

	return n_told(t->name) == t->wanted;
}

static void expect_told(struct bed *bed, const char *name, uint32_t wanted)
{
	struct telling t = {name, wanted};

	run_until(&bed->loop, is_told, &t);
}

/* As whoever may patch the status of pods can make it. */
Test(node, a_pod_that_gets_anothers_address_keeps_its_own_hooks)
{
	struct bed bed;
	struct pod victim, liar;

	bed_setup(&bed);
	pod_init(&victim, "victim", "uid-1", "10.1.0.2", NULL);
	pod_init(&liar, "liar", "uid-2", "10.1.0.3", NULL);
	uint32_t first = veth_with_route("cali1", "10.1.0.2");
	uint32_t second = veth_with_route("cali2", "10.1.0.3");
	tell(PB_KUBE_PUT, &victim);
	tell(PB_KUBE_PUT, &liar);
	expect_hooked(&bed, first, true);
	expect_hooked(&bed, second, true);
	expect_told(&bed, "victim", 1);
	expect_told(&bed, "liar", 1);

	pod_init(&liar, "liar", "uid-2", "10.1.0.2", NULL);
	tell(PB_KUBE_PUT, &liar);
	settle(&bed);
	cr_expect_eq(unhooks, 0);
	cr_expect_eq(n_told("liar"), 0, "peers don't take its word for the address");
	cr_expect_eq(n_told("victim"), 1, "the address stays its owner's");
	cr_expect_str_eq(listed(&bed, "shop/victim", "interface"), "cali1");
	cr_expect_str_eq(listed(&bed, "shop/liar", "interface"), "cali2");

	/* And when it lets go of the address, it is a pod like any other */
	pod_init(&liar, "liar", "uid-2", "10.1.0.3", NULL);
	tell(PB_KUBE_PUT, &liar);
	expect_told(&bed, "liar", 1);
	bed_end(&bed);
}

Test(node, I17_peers_learn_the_addresses_that_lead_to_the_interface_and_no_others)
{
	struct bed bed;
	struct pod pod;

	/* Given a pod whose status names an address that leads elsewhere */
	bed_setup(&bed);
	uint32_t ifindex = veth_with_route("cali1", "10.1.0.2");

	veth_with_route("cali2", "10.1.0.3");
	pod_init(&pod, "web", "uid-1", "10.1.0.2", NULL);
	pod.ips[pod.pod.n_ips++] = address("10.1.0.3");
	tell(PB_KUBE_PUT, &pod);
	expect_hooked(&bed, ifindex, true);
	settle(&bed);
	cr_expect_eq(n_told("web"), 1);

	/* When that leads to the pod, and no longer */
	sh("ip route replace 10.1.0.3 dev cali1");
	expect_told(&bed, "web", 2);
	sh("ip route replace 10.1.0.3 dev cali2");
	expect_told(&bed, "web", 1);
	cr_expect_eq(unhooks, 0);
	bed_end(&bed);
}

Test(node, hooks_of_a_pod_that_went_while_no_agent_ran_come_off_once_all_pods_are_found)
{
	struct bed bed;
	struct pod pod;

	/* Given adopted hooks on two devices */
	bed_setup(&bed);
	uint32_t kept = veth("cali1");
	uint32_t orphan = veth("cali2");

	hooked[0].ifindex = kept;
	hooked[1].ifindex = orphan;

	/* When the list is in but the one pod isn't found yet, then both stay */
	pod_init(&pod, "web", "uid-1", "10.1.0.2", NULL);
	tell(PB_KUBE_PUT, &pod);
	synced();
	uv_run(&bed.loop, UV_RUN_NOWAIT);
	uv_run(&bed.loop, UV_RUN_ONCE);
	cr_expect_not_null(on(orphan));

	/* Until it is */
	sh("ip route add 10.1.0.2 dev cali1");
	expect_hooked(&bed, orphan, false);
	cr_expect_not_null(on(kept));
	bed_end(&bed);
}

Test(node, hooks_that_were_refused_are_tried_again)
{
	struct bed bed;
	struct pod pod;

	bed_setup(&bed);
	pod_init(&pod, "web", "uid-1", "10.1.0.2", NULL);
	uint32_t ifindex = veth_with_route("cali1", "10.1.0.2");

	refuse_add = -ENOMEM;
	tell(PB_KUBE_PUT, &pod);
	expect_nothing_hooked(&bed);
	refuse_add = 0;
	expect_hooked(&bed, ifindex, true);
	bed_end(&bed);
}

static bool listed_on(struct bed *bed)
{
	return strcmp(listed(bed, "shop/web", "interface"), "cali1") == 0;
}

Test(node, hooks_that_failed_while_they_were_attached_are_tried_again_until_they_are_on)
{
	struct bed bed;
	struct pod pod;

	/* Given hooks that are being attached */
	bed_setup(&bed);
	pod_init(&pod, "web", "uid-1", "10.1.0.2", NULL);
	uint32_t ifindex = veth_with_route("cali1", "10.1.0.2");

	add_later = true;
	tell(PB_KUBE_PUT, &pod);
	expect_hooked(&bed, ifindex, true);
	cr_expect_not(listed_on(&bed), "the hooks aren't on yet");

	/* When that fails, then it is asked for again, and listed once it succeeded */
	on(ifindex)->ifindex = 0;
	hooks_ended(ifindex, -ENOMEM, "refused by the test");
	expect_hooked(&bed, ifindex, true);
	cr_expect_not(listed_on(&bed));
	hooks_ended(ifindex, 0, "");
	cr_expect(listed_on(&bed));
	bed_end(&bed);
}

Test(node, a_node_that_is_closed_while_it_looks_for_an_interface_lets_go_of_everything)
{
	struct bed bed;
	struct pod pod;

	bed_setup(&bed);
	pod_init(&pod, "web", "uid-1", "10.1.0.2", NULL);
	veth_with_route("cali1", "10.1.0.2");
	tell(PB_KUBE_PUT, &pod);
	uv_run(&bed.loop, UV_RUN_NOWAIT);
	bed_end(&bed);
}
