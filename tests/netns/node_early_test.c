/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Early attach: interfaces of pods that netlink shows before the pod list does, and what stays
 * behind when the pod list is faster than the network.
 */
#include "node_bed.h"

static const char pods4[] = "10.1.0.0", pods6[] = "fd00:1::";

static void given_pod_cidrs(struct bed *bed)
{
	bed_setup(bed);
	tell_node(pods4, 24, pods6, 64);
	synced();
}

Test(node_early, a_veth_with_a_route_inside_the_pod_cidrs_is_hooked_before_its_pod_is_known)
{
	struct bed bed;
	struct pod pod;

	given_pod_cidrs(&bed);
	uint32_t ifindex = veth_with_route("cali1", "10.1.0.2");

	/* Then it has an endpoint whose identity says that nothing is known */
	expect_hooked(&bed, ifindex, true);
	cr_expect_eq(on(ifindex)->ep.identity, PB_IDENTITY_INIT);
	cr_expect_eq(on(ifindex)->ep.addr4.v4, address("10.1.0.2").addr.v4);
	cr_expect_str_eq(listed(&bed, "", "state"), "init");
	uint32_t id = on(ifindex)->ep.id;

	/* When its pod object comes, then the same endpoint gets pod and identity, still hooked */
	identity_of_pods = 300;
	pod_init(&pod, "web", "uid-1", "10.1.0.2", NULL);
	tell(PB_KUBE_PUT, &pod);
	cr_expect_eq(on(ifindex)->ep.identity, 300);
	cr_expect_eq(on(ifindex)->ep.id, id);
	cr_expect_str_eq(listed(&bed, "shop/web", "state"), "hooked");
	cr_expect_eq(n_told("web"), 1);
	cr_expect_eq(unhooks, 0);
	bed_end(&bed);
}

Test(node_early, a_bridge_port_is_hooked_when_its_neighbour_shows)
{
	struct bed bed;

	given_pod_cidrs(&bed);
	bridge();
	uint32_t port2 = bridge_pod(2);
	uint32_t port3 = bridge_pod(3);

	expect_nothing_hooked(&bed);
	sh("nsenter --net=/run/netns/pod3 bash -c 'echo >/dev/udp/10.1.0.1/9'");
	expect_hooked(&bed, port3, true);
	cr_expect_eq(on(port3)->ep.identity, PB_IDENTITY_INIT);
	cr_expect_null(on(port2));
	bed_end(&bed);
}

static bool has_both(void *arg)
{
	const struct hooked *h = on(*(uint32_t *)arg);

	return h && h->ep.addr4.v4 == address("10.1.0.2").addr.v4 &&
	       memcmp(h->ep.addr6.bytes, address("fd00:1::2").addr.bytes, 16) == 0;
}

Test(node_early, a_second_family_is_added_to_the_same_endpoint)
{
	struct bed bed;

	given_pod_cidrs(&bed);
	uint32_t ifindex = veth_with_route("cali1", "10.1.0.2");

	expect_hooked(&bed, ifindex, true);
	uint32_t id = on(ifindex)->ep.id;

	sh("ip -6 route add fd00:1::2 dev cali1");
	run_until(&bed.loop, has_both, &ifindex);
	cr_expect_eq(on(ifindex)->ep.id, id);
	bed_end(&bed);
}

Test(node_early, an_ipv6_only_pod_is_hooked_too)
{
	struct bed bed;

	given_pod_cidrs(&bed);
	uint32_t ifindex = veth("cali1");

	sh("ip -6 route add fd00:1::2 dev cali1");
	expect_hooked(&bed, ifindex, true);
	bed_end(&bed);
}

Test(node_early, what_is_no_pods_interface_is_left_alone)
{
	struct bed bed;

	given_pod_cidrs(&bed);
	veth_with_route("cali1", "10.2.0.2"); /* outside the ranges */
	veth_with_route("up0", "10.1.0.3");   /* datapath.devices names it */
	veth("cali2");			      /* a subnet, no host route */
	sh("ip addr add 10.1.0.129/25 dev cali2");
	sh("ip tuntap add tap1 mode tap && ip link set tap1 up && ip route add 10.1.0.4 dev tap1");
	expect_nothing_hooked(&bed);
	bed_end(&bed);
}

Test(node_early, without_pod_cidrs_nothing_is_hooked_early_and_status_says_so)
{
	struct bed bed;

	bed_setup(&bed);
	synced();
	veth_with_route("cali1", "10.1.0.2");
	expect_nothing_hooked(&bed);

	PB_JSON_FREE cJSON *status = pb_node_status_json(bed.node);

	cr_expect_str_eq(pb_json_str(status, "early_attach", ""),
			 "off: this Node object names no pod CIDRs");

	/* Until the Node object names some: then what was there before counts too */
	tell_node(pods4, 24, NULL, 0);
	expect_hooked(&bed, if_nametoindex("cali1"), true);
	bed_end(&bed);
}

Test(node_early, an_endpoint_that_never_got_a_pod_goes_with_its_device)
{
	struct bed bed;

	given_pod_cidrs(&bed);
	uint32_t ifindex = veth_with_route("cali1", "10.1.0.2");

	expect_hooked(&bed, ifindex, true);
	sh("ip link del cali1");
	expect_hooked(&bed, ifindex, false);

	PB_JSON_FREE cJSON *table = pb_node_json(bed.node);

	cr_expect_eq(cJSON_GetArraySize(cJSON_GetObjectItem(table, "items")), 0);
	bed_end(&bed);
}

static bool has_identity(void *arg)
{
	return on(*(uint32_t *)arg)->ep.identity == 300;
}

Test(node_early, a_pod_that_is_deleted_while_its_veth_lingers_leaves_it_hooked)
{
	struct bed bed;
	struct pod pod;

	given_pod_cidrs(&bed);
	identity_of_pods = 300;
	pod_init(&pod, "web", "uid-1", "10.1.0.2", NULL);
	uint32_t ifindex = veth_with_route("cali1", "10.1.0.2");

	tell(PB_KUBE_PUT, &pod);
	expect_hooked(&bed, ifindex, true);
	tell(PB_KUBE_DELETE, &pod);
	settle(&bed);
	cr_assert_not_null(on(ifindex));
	cr_expect_eq(on(ifindex)->ep.identity, PB_IDENTITY_INIT);
	cr_expect_eq(n_told("web"), 0, "peers know the address no longer");

	/* The next pod may get the interface, without a moment unhooked */
	pod_init(&pod, "web", "uid-2", "10.1.0.2", NULL);
	tell(PB_KUBE_PUT, &pod);
	run_until(&bed.loop, has_identity, &ifindex);
	cr_expect_eq(unhooks, 0);
	bed_end(&bed);
}

Test(node_early, a_device_that_comes_again_with_the_same_number_is_another_one)
{
	struct bed bed;
	struct pod pod;

	given_pod_cidrs(&bed);
	identity_of_pods = 300;
	pod_init(&pod, "web", "uid-1", "10.1.0.2", NULL);
	uint32_t ifindex = veth_with_route("cali1", "10.1.0.2");

	tell(PB_KUBE_PUT, &pod);
	expect_hooked(&bed, ifindex, true);

	sh("ip link del cali1 && ip link add cali9 index %u type veth peer name p-cali9 && "
	   "ip link set cali9 up && ip link set p-cali9 up && ip route add 10.1.0.9 dev cali9",
	   ifindex);
	expect_hooked(&bed, ifindex, false);
	expect_hooked(&bed, ifindex, true);
	cr_expect_eq(on(ifindex)->ep.addr4.v4, address("10.1.0.9").addr.v4);
	cr_expect_eq(on(ifindex)->ep.identity, PB_IDENTITY_INIT);
	cr_expect_str_eq(listed(&bed, "shop/web", "state"), "waiting");
	bed_end(&bed);
}

Test(node_early, a_renamed_device_stays_hooked_and_a_moved_address_is_followed)
{
	struct bed bed;
	struct pod pod;

	bed_setup(&bed);
	pod_init(&pod, "web", "uid-1", "10.1.0.2", NULL);
	uint32_t first = veth_with_route("cali1", "10.1.0.2");
	uint32_t second = veth("cali2");

	tell(PB_KUBE_PUT, &pod);
	expect_hooked(&bed, first, true);
	sh("ip link set cali1 down && ip link set cali1 name calix && ip link set calix up && "
	   "ip route replace 10.1.0.2 dev calix");
	settle(&bed);
	cr_expect_eq(unhooks, 0);
	cr_expect_str_eq(listed(&bed, "shop/web", "interface"), "calix");

	sh("ip route replace 10.1.0.2 dev cali2");
	expect_hooked(&bed, second, true);
	cr_expect_null(on(first));
	bed_end(&bed);
}

Test(node_early, a_restart_keeps_the_identity_that_the_map_has_until_labels_are_known)
{
	struct bed bed;
	struct pod pod;

	given_pod_cidrs(&bed);
	identity_of_pods = 300;
	pod_init(&pod, "web", "uid-1", "10.1.0.2", NULL);
	uint32_t ifindex = veth_with_route("cali1", "10.1.0.2");

	tell(PB_KUBE_PUT, &pod);
	expect_hooked(&bed, ifindex, true);
	uint32_t id = on(ifindex)->ep.id;

	/* When the next agent sees routes before pods, and pods before labels */
	bed_stop(&bed);
	identity_of_pods = 0;
	bed_start(&bed);
	tell_node(pods4, 24, pods6, 64);
	settle(&bed);
	cr_expect_eq(on(ifindex)->ep.identity, 300);
	tell(PB_KUBE_PUT, &pod);
	settle(&bed);
	cr_expect_eq(on(ifindex)->ep.identity, 300);
	cr_expect_eq(on(ifindex)->ep.id, id);

	/* Then a list without the pod ends it */
	tell(PB_KUBE_DELETE, &pod);
	synced();
	settle(&bed);
	cr_expect_eq(on(ifindex)->ep.identity, PB_IDENTITY_INIT);
	cr_expect_eq(unhooks, 0);
	bed_end(&bed);
}

/* The number of another label set in an endpoint would be that set's rights. */
Test(node_early, labels_without_a_number_take_the_old_one_away)
{
	struct bed bed;
	struct pod pod;

	given_pod_cidrs(&bed);
	identity_of_pods = 300;
	pod_init(&pod, "web", "uid-1", "10.1.0.2", NULL);
	uint32_t ifindex = veth_with_route("cali1", "10.1.0.2");

	tell(PB_KUBE_PUT, &pod);
	expect_hooked(&bed, ifindex, true);

	/* When labels change and all numbers are in use */
	labels_came("web", PB_IDENTITY_INIT);
	settle(&bed);
	cr_expect_eq(on(ifindex)->ep.identity, PB_IDENTITY_INIT);
	cr_expect_eq(published.identity, PB_IDENTITY_INIT);
	cr_expect_str_eq(listed(&bed, "shop/web", "state"), "init");

	/* And when they changed while no agent ran */
	labels_came("web", 300);
	settle(&bed);
	cr_expect_eq(on(ifindex)->ep.identity, 300);
	bed_stop(&bed);
	identity_of_pods = PB_IDENTITY_INIT;
	bed_start(&bed);
	tell(PB_KUBE_PUT, &pod);
	settle(&bed);
	cr_expect_eq(on(ifindex)->ep.identity, PB_IDENTITY_INIT);
	cr_expect_eq(unhooks, 0);
	bed_end(&bed);
}

Test(node_early, a_number_of_an_agent_before_is_published_once_its_labels_are_known)
{
	struct bed bed;
	struct pod pod;

	given_pod_cidrs(&bed);
	identity_of_pods = 300;
	pod_init(&pod, "web", "uid-1", "10.1.0.2", NULL);
	uint32_t ifindex = veth_with_route("cali1", "10.1.0.2");

	tell(PB_KUBE_PUT, &pod);
	expect_hooked(&bed, ifindex, true);
	bed_stop(&bed);
	identity_of_pods = 0;
	bed_start(&bed);
	tell(PB_KUBE_PUT, &pod);
	expect_hooked(&bed, ifindex, true);
	cr_expect_eq(on(ifindex)->ep.identity, 300);
	cr_expect_eq(published.identity, PB_IDENTITY_INIT);

	labels_came("web", 300);
	settle(&bed);
	cr_expect_eq(published.identity, 300);
	bed_end(&bed);
}

static bool labels_arrived(void *arg)
{
	return on(*(uint32_t *)arg)->ep.identity == 301;
}

Test(node_early, labels_that_come_late_change_the_record_alone)
{
	struct bed bed;
	struct pod pod;

	bed_setup(&bed);
	pod_init(&pod, "web", "uid-1", "10.1.0.2", NULL);
	uint32_t ifindex = veth_with_route("cali1", "10.1.0.2");

	tell(PB_KUBE_PUT, &pod);
	expect_hooked(&bed, ifindex, true);
	cr_expect_str_eq(listed(&bed, "shop/web", "state"), "init");
	cr_expect_str_eq(listed(&bed, "shop/web", "reason"),
			 "the labels of the pod are not known yet, or there is no number for them");
	labels_came("web", 301);
	run_until(&bed.loop, labels_arrived, &ifindex);
	cr_expect_eq(unhooks, 0);
	bed_end(&bed);
}

Test(node_early, what_cant_be_hooked_says_why)
{
	static const struct {
		const char *shape, *make, *ip, *reason;
	} cases[] = {
		{"macvlan", "ip addr add 10.5.0.1/24 dev parent", "10.5.0.9",
		 "not hookable: the route to 10.5.0.9 leads to parent, which is no pod's own (the "
		 "pod may have a macvlan or ipvlan)"},
		{"gateway", "ip route add 10.6.0.0/24 via 10.5.0.9", "10.6.0.2",
		 "not hookable: the route to 10.6.0.2 has a gateway or several paths"},
		{"no route", "true", "192.0.2.1", "no route to 192.0.2.1"},
		{"a device of the node",
		 "ip link add up1 type veth peer name p-up1 && "
		 "ip link set up1 up && ip route add 10.7.0.2 dev up1",
		 "10.7.0.2", "not hookable: datapath.devices names up1"},
	};
	struct bed bed;
	struct pod pod;

	bed_setup(&bed);
	sh("ip tuntap add parent mode tap && ip link set parent up");
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		sh("%s", cases[i].make);
		pod_init(&pod, "web", "uid-1", cases[i].ip, NULL);
		tell(PB_KUBE_PUT, &pod);
		settle(&bed);
		cr_expect_str_eq(listed(&bed, "shop/web", "state"), "waiting", "%s",
				 cases[i].shape);
		cr_expect_str_eq(listed(&bed, "shop/web", "reason"), cases[i].reason, "%s",
				 cases[i].shape);
	}
	bed_end(&bed);
}

#define MANY 250

static bool all_hooked(void *arg)
{
	size_t n = 0;

	(void)arg;
	for (size_t i = 0; i < PB_ARRAY_LEN(hooked); i++)
		n += hooked[i].ifindex && hooked[i].ep.identity == 300;
	return n == MANY;
}

static bool none_hooked(void *arg)
{
	(void)arg;
	for (size_t i = 0; i < PB_ARRAY_LEN(hooked); i++)
		if (hooked[i].ifindex)
			return false;
	return true;
}

Test(node_early, two_hundred_and_fifty_pods_at_once, .timeout = 60)
{
	struct bed bed;
	struct pod pods[MANY];
	FILE *batch;

	given_pod_cidrs(&bed);
	identity_of_pods = 300;
	batch = popen("ip -batch -", "w");
	cr_assert_not_null(batch);
	for (int i = 0; i < MANY; i++)
		fprintf(batch,
			"link add cali%d type veth peer name p-%d\nlink set cali%d up\n"
			"link set p-%d up\nroute add 10.1.0.%d dev cali%d\n",
			i, i, i, i, i + 2, i);
	cr_assert_eq(pclose(batch), 0);
	for (int i = 0; i < MANY; i++) {
		char name[16], ip[16];

		snprintf(name, sizeof(name), "web-%d", i);
		snprintf(ip, sizeof(ip), "10.1.0.%d", i + 2);
		pod_init(&pods[i], strdup(name), strdup(name), ip, NULL);
		tell(PB_KUBE_PUT, &pods[i]);
	}
	run_until(&bed.loop, all_hooked, NULL);

	/* And all go */
	for (int i = 0; i < MANY; i++)
		tell(PB_KUBE_DELETE, &pods[i]);
	batch = popen("ip -batch -", "w");
	for (int i = 0; i < MANY; i++)
		fprintf(batch, "link del cali%d\n", i);
	cr_assert_eq(pclose(batch), 0);
	run_until(&bed.loop, none_hooked, NULL);
	bed_end(&bed);
	for (int i = 0; i < MANY; i++) {
		free((char *)pods[i].pod.meta.name);
		free((char *)pods[i].pod.meta.uid);
	}
}

Test(node_early, a_pod_cidr_of_half_the_world_hooks_nothing)
{
	static const struct {
		const char *cidr4;
		uint32_t bits4;
		const char *cidr6;
		uint32_t bits6;
	} cases[] = {
		{"0.0.0.0", 0, NULL, 0},
		{"0.0.0.0", 1, "::", 0},
		{"10.0.0.0", 7, "fc00::", 7},
	};
	struct bed bed;

	bed_setup(&bed);
	uint32_t ifindex = veth_with_route("cali1", "10.1.0.2");

	sh("ip -6 route add fd00::2 dev cali1");
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		tell_node(cases[i].cidr4, cases[i].bits4, cases[i].cidr6, cases[i].bits6);
		expect_nothing_hooked(&bed);
	}
	/* A range of one node beside it counts */
	tell_node("10.1.0.0", 24, "::", 0);
	expect_hooked(&bed, ifindex, true);
	bed_end(&bed);
}
