/* SPDX-License-Identifier: Apache-2.0 */
/*
 * At which addresses of the node NodePorts are, which one translated packets leave with, and what
 * map kpr_settings says.
 */
#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>

#include "fixture.h"

TestSuite(nodeaddr, .init = setup, .fini = teardown);

static void with_config(const char *node_port)
{
	char text[256];

	snprintf(text, sizeof(text), "{\"services_max\":16,\"backends_max\":256,\"node_port\":%s}",
		 node_port);
	cr_assert_eq(pb_fake_config(fake, text), 0);
	load();
}

static void web(void)
{
	put(node_port("web", "10.96.0.1", 80, 30080));
	PUBLISH("web", {"10.0.0.1", 8080});
}

static bool at(const char *ip)
{
	return strcmp(behind(ip, 30080), "10.0.0.1:8080") == 0;
}

static bool is_node4(const char *ip)
{
	return settings().node4 == inet_addr(ip);
}

/* ---- which addresses ---- */

Test(nodeaddr, addresses_of_the_devices_and_those_that_kubernetes_knows)
{
	load();
	put_address("192.0.2.1", PB_NODE_ADDR_DEVICE);
	put_address("192.0.2.2", PB_NODE_ADDR_DEVICE | PB_NODE_ADDR_SECONDARY);
	put_address("192.0.2.3", PB_NODE_ADDR_INTERNAL);
	put_address("192.0.2.4", PB_NODE_ADDR_EXTERNAL | PB_NODE_ADDR_SECONDARY);
	put_address("192.0.2.5", 0);
	put_address("169.254.1.1", PB_NODE_ADDR_DEVICE | PB_NODE_ADDR_LINK);
	put_address("10.0.0.254", PB_NODE_ADDR_POD);
	put_address("127.0.0.1", PB_NODE_ADDR_LOOPBACK);
	addresses_synced();
	web();
	cr_assert(at("192.0.2.1") && at("192.0.2.3") && at("192.0.2.4"));
	cr_assert(at("0.0.0.0"), "for clients of this node");
	cr_assert_not(at("192.0.2.2") || at("192.0.2.5"));
	cr_assert_not(at("169.254.1.1") || at("10.0.0.254") || at("127.0.0.1"));
}

Test(nodeaddr, an_address_that_comes_later_is_served_and_one_that_goes_is_not)
{
	struct pb_svc before;

	load();
	put_address("192.0.2.1", PB_NODE_ADDR_DEVICE);
	addresses_synced();
	web();
	before = entry("192.0.2.1", 30080);
	put_address("192.0.2.9", PB_NODE_ADDR_DEVICE);
	cr_assert(at("192.0.2.9"));
	cr_assert_eq(entry("192.0.2.1", 30080).id, before.id, "the others stay");
	address_gone("192.0.2.9");
	cr_assert_not(at("192.0.2.9"));
	cr_assert(at("192.0.2.1"));
	/* It moved to another kind of interface. */
	put_address("192.0.2.1", PB_NODE_ADDR_POD);
	cr_assert_not(at("192.0.2.1"));
	cr_assert(at("0.0.0.0"));
}

Test(nodeaddr, an_address_that_comes_later_changes_node_ports_only)
{
	uint64_t before;

	load();
	addresses_synced();
	put(service("ip", "10.96.0.2", 80));
	PUBLISH("ip", {"10.0.0.1", 8080});
	before = writes();
	put_address("192.0.2.9", PB_NODE_ADDR_DEVICE);
	cr_assert_eq(writes(), before);
}

Test(nodeaddr, host_ports_are_at_all_addresses_of_the_node)
{
	with_config("{\"addresses\":[\"192.0.2.0/28\"]}");
	put_address("192.0.2.1", PB_NODE_ADDR_DEVICE);
	put_address("192.0.2.77", PB_NODE_ADDR_DEVICE);
	put_address("127.0.0.1", PB_NODE_ADDR_LOOPBACK);
	addresses_synced();
	put_pod(pod("db", "10.0.0.1", 8080, 9000));
	cr_assert_str_eq(behind("192.0.2.1", 9000), "10.0.0.1:8080");
	cr_assert_str_eq(behind("192.0.2.77", 9000), "10.0.0.1:8080");
	cr_assert_str_eq(behind("127.0.0.1", 9000), "absent");
	put_address("192.0.2.78", PB_NODE_ADDR_DEVICE);
	cr_assert_str_eq(behind("192.0.2.78", 9000), "10.0.0.1:8080");
}

Test(nodeaddr, ranges_in_the_configuration_choose)
{
	with_config("{\"addresses\":[\"192.0.2.0/28\",\"2001:db8:1::/48\",\"203.0.113.0/24\"]}");
	put_address("192.0.2.1", PB_NODE_ADDR_DEVICE);
	put_address("192.0.2.2", 0);
	put_address("192.0.2.77", PB_NODE_ADDR_DEVICE | PB_NODE_ADDR_INTERNAL);
	addresses_synced();
	web();
	cr_assert(at("192.0.2.1") && at("192.0.2.2"));
	cr_assert_not(at("192.0.2.77"));
	cr_assert(logged("node_port.addresses: entry 2: this node has no address in that range"));
	cr_assert(logged("node_port.addresses: entry 3: this node has no address in that range"));
	cr_assert_not(logged("entry 1"));
}

Test(nodeaddr, everything_is_0_0_0_0_0)
{
	with_config("{\"addresses\":[\"0.0.0.0/0\"]}");
	put_address("192.0.2.2", 0);
	put_address("127.0.0.1", PB_NODE_ADDR_LOOPBACK);
	addresses_synced();
	web();
	cr_assert(at("192.0.2.2"));
	cr_assert_not(at("127.0.0.1"));
}

Test(nodeaddr, primary_is_one_of_each_family)
{
	with_config("{\"addresses\":\"primary\"}");
	put_address("192.0.2.1", PB_NODE_ADDR_DEVICE);
	put_address("192.0.2.2", PB_NODE_ADDR_DEVICE | PB_NODE_ADDR_INTERNAL);
	addresses_synced();
	web();
	cr_assert(at("192.0.2.2"));
	cr_assert_not(at("192.0.2.1"));
}

Test(nodeaddr, K55_after_a_restart_no_frontend_goes_before_the_addresses_are_known)
{
	load();
	put_address("192.0.2.1", PB_NODE_ADDR_DEVICE);
	web();
	synced();
	cr_assert(at("192.0.2.1"));
	cr_assert_eq(pb_fake_reload(fake), 0);
	pb_fake_advance_ms(fake, 1000);
	cr_assert(at("192.0.2.1"));
	cr_assert_eq(writes(), 0);
}

/* ---- the settings ---- */

Test(nodeaddr, the_internal_ip_is_what_translated_packets_leave_with)
{
	const struct pb_kube_addr first = addr_of("2001:db8::1");

	load();
	cr_assert_eq(settings().node4, 0);
	put_address("192.0.2.1", PB_NODE_ADDR_DEVICE);
	put_address("192.0.2.7", PB_NODE_ADDR_INTERNAL);
	put_address("2001:db8::2", PB_NODE_ADDR_DEVICE);
	put_address("2001:db8::1", PB_NODE_ADDR_DEVICE);
	put_address("fe80::1", PB_NODE_ADDR_DEVICE | PB_NODE_ADDR_LINK);
	addresses_synced();
	cr_assert(is_node4("192.0.2.7"));
	cr_assert_eq(memcmp(settings().node6, &first.addr, 16), 0);
	address_gone("192.0.2.7");
	cr_assert(is_node4("192.0.2.1"));
	address_gone("192.0.2.1");
	cr_assert_eq(settings().node4, 0);
}

Test(nodeaddr, settings_say_what_the_configuration_says)
{
	struct pb_svc_settings s;

	pb_fake_config(fake,
		       "{\"services_max\":16,\"backends_max\":256,\"cluster_ip_external\":true,"
		       "\"socket_lb\":\"host\",\"loopback_address\":\"169.254.42.9\","
		       "\"node_port\":{\"range\":[20000,20100],\"bind_protection\":false}}");
	load();
	s = settings();
	cr_assert_eq(s.flags, PB_SVC_SET_EXTERNAL_CLUSTER_IP | PB_SVC_SET_HOST_SOCKETS_ONLY |
				      PB_SVC_SET_NODE_PORT);
	cr_assert_eq(s.node_port_min, 20000);
	cr_assert_eq(s.node_port_max, 20100);
	cr_assert_eq(s.snat_min, 20101);
	cr_assert_eq(s.snat_max, 65535);
	cr_assert_eq(s.loopback4, inet_addr("169.254.42.9"));
	/* A reload with another configuration. */
	pb_fake_config(fake, config);
	cr_assert_eq(pb_fake_reload(fake), 0);
	s = settings();
	cr_assert_eq(s.flags, PB_SVC_SET_BIND_PROTECTION | PB_SVC_SET_NODE_PORT);
	cr_assert_eq(s.node_port_min, 30000);
	cr_assert_eq(s.node_port_max, 32767);
	cr_assert_eq(s.snat_min, 32768);
	cr_assert_eq(s.loopback4, inet_addr("169.254.42.1"));
}
