/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which frontends each kind of Service has, and what becomes of them when the Service changes, or
 * another one wants them.
 */
#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../kpr_maps.h"
#include "fixture.h"

TestSuite(frontends, .init = setup, .fini = teardown);

static uint32_t kind(const char *ip, uint16_t port)
{
	return PB_SVC_KIND(entry(ip, port).flags);
}

/* ---- kinds ---- */

Test(frontends, a_node_port_is_at_any_address_and_at_each_of_the_nodes)
{
	load();
	put_address("192.0.2.1", PB_NODE_ADDR_DEVICE | PB_NODE_ADDR_INTERNAL);
	put_address("192.0.2.2", PB_NODE_ADDR_DEVICE);
	addresses_synced();
	put(node_port("web", "10.96.0.1", 80, 30080));
	PUBLISH("web", {"10.0.0.1", 8080});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:8080");
	cr_assert_str_eq(behind("0.0.0.0", 30080), "10.0.0.1:8080");
	cr_assert_str_eq(behind("192.0.2.1", 30080), "10.0.0.1:8080");
	cr_assert_str_eq(behind("192.0.2.2", 30080), "10.0.0.1:8080");
	cr_assert_str_eq(behind("192.0.2.1", 80), "absent", "K22");
	cr_assert_str_eq(behind_ext("192.0.2.1", 30080), "absent", "no entry of its own");
	cr_assert_eq(kind("10.96.0.1", 80), PB_SVC_CLUSTER_IP);
	cr_assert_eq(kind("0.0.0.0", 30080), PB_SVC_NODE_PORT);
	cr_assert_eq(kind("192.0.2.1", 30080), PB_SVC_NODE_PORT);
	cr_assert_eq(pb_fake_map_count(fake, "kpr_services"), 4);
}

Test(frontends, all_frontends_of_a_service_share_one_pool)
{
	load();
	put_address("192.0.2.1", PB_NODE_ADDR_DEVICE);
	addresses_synced();
	put(node_port("web", "10.96.0.1", 80, 30080));
	PUBLISH("web", {"10.0.0.1", 8080});
	cr_assert_eq(pb_fake_metric(fake, "backends"), 1);
	cr_assert_eq(entry("192.0.2.1", 30080).base, entry("10.96.0.1", 80).base);
}

Test(frontends, K2_one_node_port_for_tcp_and_udp_is_two)
{
	struct service *s = node_port("tcp", "10.96.0.1", 80, 30080);
	struct service *u = node_port("udp", "10.96.0.2", 80, 30080);

	u->ports[0].protocol = IPPROTO_UDP;
	load();
	put(s);
	put(u);
	PUBLISH("tcp", {"10.0.0.1", 1});
	PUBLISH("udp", {"10.0.0.2", 2, "", IPPROTO_UDP});
	cr_assert_str_eq(behind("0.0.0.0", 30080), "10.0.0.1:1");
	cr_assert_str_eq(behind_protocol("0.0.0.0", 30080, IPPROTO_UDP), "10.0.0.2:2");
}

Test(frontends, K48_a_node_port_is_in_the_families_of_its_service)
{
	struct service *both = node_port("both", "10.96.0.1", 80, 30080);

	set_ip(both, "fd00::1");
	load();
	put_address("192.0.2.1", PB_NODE_ADDR_DEVICE);
	put_address("2001:db8::1", PB_NODE_ADDR_DEVICE);
	addresses_synced();
	put(both);
	put(node_port("four", "10.96.0.2", 80, 30081));
	PUBLISH("both", {"10.0.0.1", 8080}, {"fd01::1", 8080});
	PUBLISH("four", {"10.0.0.1", 8080});
	cr_assert_str_eq(behind("::", 30080), "fd01::1:8080");
	cr_assert_str_eq(behind("2001:db8::1", 30080), "fd01::1:8080");
	cr_assert_str_eq(behind("192.0.2.1", 30080), "10.0.0.1:8080");
	cr_assert_str_eq(behind("::", 30081), "absent");
}

Test(frontends, external_and_load_balancer_addresses_are_served)
{
	struct service *s = service("web", "10.96.0.1", 80);

	set_external(s, "198.51.100.1");
	set_ingress(s, "203.0.113.1", false);
	set_ingress(s, "203.0.113.2", true);
	load();
	put(s);
	PUBLISH("web", {"10.0.0.1", 8080});
	cr_assert_str_eq(behind("198.51.100.1", 80), "10.0.0.1:8080");
	cr_assert_str_eq(behind("203.0.113.1", 80), "10.0.0.1:8080");
	cr_assert_str_eq(behind("203.0.113.2", 80), "absent", "the balancer is a proxy");
	cr_assert_eq(kind("198.51.100.1", 80), PB_SVC_EXTERNAL_IP);
	cr_assert_eq(kind("203.0.113.1", 80), PB_SVC_LOAD_BALANCER);
}

Test(frontends, K30_an_ingress_address_that_leaves_the_status_goes)
{
	struct service *with = service("web", "10.96.0.1", 80);
	struct service *without;
	struct pb_svc before;

	set_ingress(with, "203.0.113.1", false);
	without = copy_of(with);
	without->s.n_ingress = 0;
	load();
	put(with);
	PUBLISH("web", {"10.0.0.1", 8080});
	before = entry("10.96.0.1", 80);
	put(without);
	cr_assert_str_eq(behind("203.0.113.1", 80), "absent");
	cr_assert_eq(entry("10.96.0.1", 80).id, before.id);
}

Test(frontends, K8_a_node_port_service_that_becomes_cluster_ip_keeps_only_that)
{
	struct service *s = node_port("web", "10.96.0.1", 80, 30080);
	struct service *after = service("web", "10.96.0.1", 80);
	struct pb_svc before;

	load();
	put_address("192.0.2.1", PB_NODE_ADDR_DEVICE);
	addresses_synced();
	put(s);
	PUBLISH("web", {"10.0.0.1", 8080});
	before = entry("10.96.0.1", 80);
	put(after);
	cr_assert_str_eq(behind("0.0.0.0", 30080), "absent");
	cr_assert_str_eq(behind("192.0.2.1", 30080), "absent");
	cr_assert_eq(entry("10.96.0.1", 80).id, before.id, "its connections live on");
	cr_assert_eq(entry("10.96.0.1", 80).base, before.base);
}

Test(frontends, K51_another_node_port_frees_the_old_one)
{
	struct pb_svc before;

	load();
	put(node_port("web", "10.96.0.1", 80, 30080));
	PUBLISH("web", {"10.0.0.1", 8080});
	before = entry("10.96.0.1", 80);
	put(node_port("web", "10.96.0.1", 80, 30081));
	cr_assert_str_eq(behind("0.0.0.0", 30080), "absent");
	cr_assert_str_eq(behind("0.0.0.0", 30081), "10.0.0.1:8080");
	cr_assert_eq(entry("10.96.0.1", 80).id, before.id);
}

Test(frontends, sctp_uses_only_backends_that_have_the_frontends_port)
{
	struct service *s = bare("sctp");

	set_ip(s, "10.96.0.1");
	set_port(s, "", IPPROTO_SCTP, 5000);
	s->s.type = PB_SERVICE_NODE_PORT;
	s->ports[0].node_port = 30080;
	load();
	put(s);
	PUBLISH("sctp", {"10.0.0.1", 5000, "", IPPROTO_SCTP}, {"10.0.0.2", 6000, "", IPPROTO_SCTP});
	cr_assert_str_eq(behind_protocol("10.96.0.1", 5000, IPPROTO_SCTP), "10.0.0.1:5000");
	cr_assert(listed("partly: with SCTP 1 backend has another port than the frontend"));
	cr_assert_str_eq(behind_protocol("0.0.0.0", 30080, IPPROTO_SCTP), "refused");
	cr_assert(listed("no backends: with SCTP a backend's port must be the frontend's"));
}

Test(frontends, kinds_that_are_switched_off_have_none)
{
	struct service *s = node_port("web", "10.96.0.1", 80, 30080);

	pb_fake_config(fake, "{\"services_max\":16,\"backends_max\":256,\"external_ips\":false,"
			     "\"load_balancer\":false,\"host_ports\":false,"
			     "\"node_port\":{\"enabled\":false}}");
	set_external(s, "198.51.100.1");
	set_ingress(s, "203.0.113.1", false);
	load();
	put(s);
	PUBLISH("web", {"10.0.0.1", 8080});
	cr_assert_eq(pb_fake_map_count(fake, "kpr_services"), 1);
	cr_assert_not(pb_fake_kube_watched(fake, PB_KUBE_POD));
	cr_assert_eq(settings().flags & PB_SVC_SET_NODE_PORT, 0);
}

/* ---- host ports ---- */

Test(frontends, a_host_port_leads_to_its_pod)
{
	struct pod *p = pod("db", "10.0.0.9", 5432, 9000);

	load();
	put_address("192.0.2.1", PB_NODE_ADDR_DEVICE);
	addresses_synced();
	put_pod(p);
	cr_assert_str_eq(behind("0.0.0.0", 9000), "10.0.0.9:5432");
	cr_assert_str_eq(behind("192.0.2.1", 9000), "10.0.0.9:5432");
	cr_assert_eq(kind("0.0.0.0", 9000), PB_SVC_HOST_PORT);
	cr_assert(listed("\"type\":\"HostPort\""));
	pod_gone(p);
	cr_assert_str_eq(behind("0.0.0.0", 9000), "absent");
	cr_assert_str_eq(behind("192.0.2.1", 9000), "absent");
	cr_assert_eq(pb_fake_metric(fake, "services"), 0);
}

Test(frontends, host_ports_of_other_nodes_of_finished_pods_and_of_the_host_network_are_none)
{
	struct pod *other = pod("other", "10.0.0.1", 80, 9001);
	struct pod *done = pod("done", "10.0.0.2", 80, 9002);
	struct pod *host = pod("host", "10.0.0.3", 80, 9003);

	other->p.node = "node-b";
	done->p.phase = PB_POD_SUCCEEDED;
	host->p.flags = PB_POD_HOST_NETWORK;
	load();
	put_pod(other);
	put_pod(done);
	put_pod(host);
	cr_assert_eq(pb_fake_map_count(fake, "kpr_services"), 0);
}

Test(frontends, a_pod_that_finishes_loses_its_host_port)
{
	struct pod *runs = pod("db", "10.0.0.9", 5432, 9000);
	struct pod *done = pod("db", "10.0.0.9", 5432, 9000);

	done->p.phase = PB_POD_FAILED;
	load();
	put_pod(runs);
	cr_assert_str_eq(behind("0.0.0.0", 9000), "10.0.0.9:5432");
	put_pod(done);
	cr_assert_str_eq(behind("0.0.0.0", 9000), "absent");
}

Test(frontends, a_host_port_follows_its_pods_address)
{
	load();
	put_pod(pod("db", "10.0.0.9", 5432, 9000));
	put_pod(pod("db", "10.0.0.10", 5432, 9000));
	cr_assert_str_eq(behind("0.0.0.0", 9000), "10.0.0.10:5432");
}

Test(frontends, a_host_ip_is_the_only_address_and_must_be_the_nodes)
{
	struct pod *p = pod("db", "10.0.0.9", 5432, 9000);
	struct pod *foreign = pod("web", "10.0.0.8", 80, 9001);

	p->ports[0].host_ip = addr_of("192.0.2.2");
	foreign->ports[0].host_ip = addr_of("198.51.100.9");
	load();
	put_address("192.0.2.1", PB_NODE_ADDR_DEVICE);
	put_address("192.0.2.2", PB_NODE_ADDR_DEVICE);
	addresses_synced();
	put_pod(p);
	put_pod(foreign);
	cr_assert_str_eq(behind("192.0.2.2", 9000), "10.0.0.9:5432");
	cr_assert_str_eq(behind("192.0.2.1", 9000), "absent");
	cr_assert_str_eq(behind("0.0.0.0", 9000), "absent");
	cr_assert_eq(pb_fake_map_count(fake, "kpr_services"), 1);
}

Test(frontends, K46_a_host_port_in_the_node_port_range_is_ignored_and_said_once)
{
	load();
	put_pod(pod("db", "10.0.0.9", 5432, 30000));
	put_pod(pod("db", "10.0.0.9", 5432, 30000));
	cr_assert_eq(pb_fake_map_count(fake, "kpr_services"), 0);
	cr_assert_eq(times_logged("Pod ns/db: hostPort 30000 is in the NodePort range"), 1);
	cr_assert(listed("ignored: in the NodePort range"));
}

Test(frontends, a_pod_and_a_service_of_one_name_do_not_meet)
{
	load();
	put(service("db", "10.96.0.1", 80));
	PUBLISH("db", {"10.0.0.1", 80});
	put_pod(pod("db", "10.0.0.9", 5432, 9000));
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80");
	cr_assert_str_eq(behind("0.0.0.0", 9000), "10.0.0.9:5432");
}

/* ---- conflicts ---- */

Test(frontends, K50_a_node_port_of_two_services_is_the_firsts_and_said_once)
{
	struct service *first = node_port("first", "10.96.0.1", 80, 30080);
	struct service *second = node_port("second", "10.96.0.2", 80, 30080);

	load();
	put_address("192.0.2.1", PB_NODE_ADDR_DEVICE);
	addresses_synced();
	put(first);
	put(second);
	PUBLISH("first", {"10.0.0.1", 1});
	PUBLISH("second", {"10.0.0.2", 2});
	put(copy_of(second));
	cr_assert_str_eq(behind("192.0.2.1", 30080), "10.0.0.1:1");
	cr_assert_str_eq(behind("10.96.0.2", 80), "10.0.0.2:2");
	cr_assert_eq(times_logged("is taken by ns/first"), 1);
	cr_assert(listed("conflict: taken by ns/first"));
	gone(first);
	cr_assert_str_eq(behind("192.0.2.1", 30080), "10.0.0.2:2");
	cr_assert_str_eq(behind("0.0.0.0", 30080), "10.0.0.2:2");
	cr_assert_not(listed("conflict"));
}

Test(frontends, K50_the_outer_entry_of_a_loser_is_not_written_beside_the_winners)
{
	struct service *first = node_port("first", "10.96.0.1", 80, 30080);
	struct service *second = node_port("second", "10.96.0.2", 80, 30080);

	second->s.flags = PB_SERVICE_EXTERNAL_LOCAL;
	load();
	put(first);
	put(second);
	PUBLISH("first", {"10.0.0.1", 1});
	PUBLISH("second", {"10.0.0.2", 2, "", 0, 0, PB_BACKEND_LOCAL});
	cr_assert_str_eq(behind_ext("0.0.0.0", 30080), "absent");
	gone(first);
	cr_assert_str_eq(behind_ext("0.0.0.0", 30080), "10.0.0.2:2");
	cr_assert_str_eq(behind("0.0.0.0", 30080), "10.0.0.2:2");
}

/* Packets from outside would miss both entries, and go on to somebody else. */
Test(frontends, an_entry_never_speaks_of_an_outer_one_whose_write_was_refused)
{
	struct service *s = node_port("web", "10.96.0.1", 80, 30080);

	load();
	put(s);
	PUBLISH("web", {"10.0.0.1", 1, "", 0, 0, PB_BACKEND_LOCAL});
	cr_assert_str_eq(behind("0.0.0.0", 30080), "10.0.0.1:1");
	s = copy_of(s);
	s->s.flags = PB_SERVICE_EXTERNAL_LOCAL;
	cr_assert_eq(pb_fake_fail(fake, "map_update_batch", 0, -ENOMEM), 0);
	put(s);
	cr_assert_str_eq(behind_ext("0.0.0.0", 30080), "absent");
	cr_assert_eq(entry("0.0.0.0", 30080).flags & PB_SVC_SPLIT, 0);
	cr_assert_str_eq(behind("0.0.0.0", 30080), "10.0.0.1:1");
	pb_fake_advance_ms(fake, KPR_RETRY_MS + 1);
	cr_assert_str_eq(behind_ext("0.0.0.0", 30080), "10.0.0.1:1");
	cr_assert_neq(entry("0.0.0.0", 30080).flags & PB_SVC_SPLIT, 0);
}

Test(frontends, the_unspecified_address_takes_no_node_port_away)
{
	struct service *thief = service("thief", "10.96.0.9", 30080);

	set_external(thief, "0.0.0.0");
	set_external(thief, "::");
	load();
	put(thief);
	PUBLISH("thief", {"10.0.0.9", 9});
	cr_assert_str_eq(behind("0.0.0.0", 30080), "absent");
	cr_assert_str_eq(behind("::", 30080), "absent");
	put(node_port("web", "10.96.0.1", 80, 30080));
	PUBLISH("web", {"10.0.0.1", 1});
	cr_assert_str_eq(behind("0.0.0.0", 30080), "10.0.0.1:1");
	cr_assert_not(listed("conflict"));
}

Test(frontends, a_service_with_many_frontends_is_written_whole_or_not_at_all)
{
	char ip[16];

	load();
	for (int i = 0; i < SERVICES_MAX; i++) {
		snprintf(ip, sizeof(ip), "192.0.2.%d", i + 1);
		put_address(ip, PB_NODE_ADDR_DEVICE);
	}
	addresses_synced();
	put(node_port("web", "10.96.0.1", 80, 30080));
	PUBLISH("web", {"10.0.0.1", 8080});
	cr_assert_eq(pb_fake_map_count(fake, "kpr_services"), 0);
	cr_assert(listed("map full, as before"));
	address_gone("192.0.2.1");
	address_gone("192.0.2.2");
	cr_assert_eq(pb_fake_map_count(fake, "kpr_services"), 16);
	cr_assert_str_eq(behind("192.0.2.16", 30080), "10.0.0.1:8080");
}

Test(frontends, K55_a_reload_writes_no_frontend_of_any_kind)
{
	struct service *s = node_port("web", "10.96.0.1", 80, 30080);

	s->s.flags = PB_SERVICE_EXTERNAL_LOCAL;
	set_external(s, "198.51.100.1");
	set_ingress(s, "203.0.113.1", false);
	set_range(s, "192.0.2.0", 24);
	load();
	put_address("192.0.2.1", PB_NODE_ADDR_DEVICE);
	put(s);
	put_pod(pod("db", "10.0.0.9", 5432, 9000));
	PUBLISH("web", {"10.0.0.1", 8080, "", 0, 0, PB_BACKEND_LOCAL}, {"10.0.0.2", 8080});
	synced();
	cr_assert_eq(pb_fake_map_count(fake, "kpr_services"), 11);
	cr_assert_eq(pb_fake_reload(fake), 0, "%s", pb_fake_failure(fake));
	pb_fake_advance_ms(fake, 1000);
	cr_assert_eq(writes(), 0);
	cr_assert_eq(pb_fake_map_count(fake, "kpr_services"), 11);
	cr_assert_eq(pb_fake_map_count(fake, "kpr_ranges4"), 1);
}

/* ---- annotations and warnings ---- */

Test(frontends, forwarding_mode_goes_into_the_flags_but_for_the_cluster_ip)
{
	struct service *s = node_port("web", "10.96.0.1", 80, 30080);

	set_annotation(s, "service.cilium.io/forwarding-mode", "dsr");
	load();
	put(s);
	cr_assert_eq(pb_fake_map_count(fake, "kpr_services"), 0);
	PUBLISH("web", {"10.0.0.1", 8080});
	cr_assert(entry("0.0.0.0", 30080).flags & PB_SVC_USE_DSR);
	cr_assert_eq(entry("10.96.0.1", 80).flags & PB_SVC_USE_DSR, 0);
	s = copy_of(s);
	s->annotations[0].value = "snat";
	put(s);
	cr_assert(entry("0.0.0.0", 30080).flags & PB_SVC_USE_SNAT);
	cr_assert_eq(entry("0.0.0.0", 30080).flags & PB_SVC_USE_DSR, 0);
}

Test(frontends, the_type_annotation_chooses_among_the_kinds)
{
	struct service *s = node_port("web", "10.96.0.1", 80, 30080);

	set_annotation(s, "service.cilium.io/type", "NodePort, LoadBalancer");
	load();
	put(s);
	PUBLISH("web", {"10.0.0.1", 8080});
	cr_assert_str_eq(behind("10.96.0.1", 80), "absent");
	cr_assert_str_eq(behind("0.0.0.0", 30080), "10.0.0.1:8080");
}

Test(frontends, wrong_annotations_are_ignored_and_said_once_until_they_change)
{
	struct service *s = node_port("web", "10.96.0.1", 80, 30080);

	set_annotation(s, "service.cilium.io/type", "Router");
	set_annotation(s, "service.cilium.io/forwarding-mode", "fast");
	load();
	put(s);
	put(copy_of(s));
	PUBLISH("web", {"10.0.0.1", 8080});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:8080");
	cr_assert_eq(times_logged("Service ns/web: annotation service.cilium.io/type is ignored"),
		     1);
	cr_assert_eq(times_logged("annotation service.cilium.io/forwarding-mode is ignored"), 1);
	s = copy_of(s);
	s->s.meta.n_annotations = 1;
	put(s);
	cr_assert_eq(times_logged("annotation service.cilium.io/type is ignored"), 2);
}

Test(frontends, a_node_port_outside_of_the_range_is_served_and_said)
{
	load();
	put(node_port("web", "10.96.0.1", 80, 20080));
	PUBLISH("web", {"10.0.0.1", 8080});
	cr_assert_str_eq(behind("0.0.0.0", 20080), "10.0.0.1:8080");
	cr_assert(logged("nodePort 20080 is outside of the NodePort range 30000-32767"));
	cr_assert(listed("ok; outside of the NodePort range"));
}

Test(frontends, a_reserved_address_is_ignored_and_said)
{
	static const char *const reserved[] = {"0.0.0.0",	  "127.0.0.1", "224.0.0.1",
					       "255.255.255.255", "::",	       "::1",
					       "ff02::1"};
	char name[16];

	load();
	for (unsigned i = 0; i < sizeof(reserved) / sizeof(reserved[0]); i++) {
		struct service *s;

		snprintf(name, sizeof(name), "web%u", i);
		s = service(name, "10.96.0.1", (uint16_t)(80 + i));
		set_external(s, reserved[i]);
		set_ingress(s, reserved[i], false);
		put(s);
		PUBLISH(name, {"10.0.0.1", 8080});
		cr_assert_str_eq(behind("10.96.0.1", (uint16_t)(80 + i)), "10.0.0.1:8080");
		cr_expect_str_eq(behind(reserved[i], (uint16_t)(80 + i)), "absent", "%s",
				 reserved[i]);
	}
	cr_assert(logged("Service ns/web1: address 127.0.0.1 is reserved and is ignored"));
	cr_assert(listed("not translated: reserved address"));
}

/* A Service with so many ports at each of so many addresses that kpr doesn't hold all of them. */
static struct service *boundless(uint32_t n)
{
	struct service *s = service("web", "10.96.0.1", 80);
	struct pb_kube_addr *ips = make(n * sizeof(*ips));
	struct pb_service_port *ports = make(n * sizeof(*ports));

	for (uint32_t i = 0; i < n; i++) {
		ips[i] = addr_of("198.51.100.1");
		ips[i].addr.v4 = htonl(0xc6336401 + i);
		ports[i] = s->ports[0];
		ports[i].port = (uint16_t)(80 + i);
	}
	s->s.external_ips = ips;
	s->s.n_external_ips = n;
	s->s.ports = ports;
	s->s.n_ports = n;
	return s;
}

static uint64_t rows_listed(void)
{
	char *json = NULL;
	uint64_t n = 0;

	cr_assert_eq(pb_fake_command(fake, "service list", NULL, 0, &json), 0);
	for (const char *at = json; (at = strstr(at, "\"state\":")); at++)
		n++;
	free(json);
	return n;
}

Test(frontends, a_service_has_65536_frontends_at_most_and_it_is_said)
{
	load();
	put(boundless(2000));
	cr_assert_eq(rows_listed(), 65536);
	cr_assert_eq(times_logged("Service ns/web: it has more than 65536 frontends"), 1);
	put(service("web", "10.96.0.1", 80));
	PUBLISH("web", {"10.0.0.1", 8080});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:8080");
	cr_assert_eq(rows_listed(), 1);
}

/* ---- the list ---- */

Test(frontends, service_list_gives_pages_that_hold_each_service_once)
{
	char names[5][8], ip[16], after[24] = "--after=0";
	const char *args[] = {"--limit", "2", after};
	unsigned pages = 0, rows = 0;

	load();
	for (int i = 0; i < 5; i++) {
		snprintf(names[i], sizeof(names[i]), "s%d", i);
		snprintf(ip, sizeof(ip), "10.96.0.%d", i + 1);
		put(service(names[i], ip, 80));
	}
	for (char *next = after; next; pages++) {
		char *json = list_json(args, 3);
		for (const char *at = json; (at = strstr(at, "\"name\":\"s")); at++)
			rows++;
		next = strstr(json, "\"next\":\"");
		if (next)
			snprintf(after, sizeof(after), "--after=%d", atoi(next + 8));
		free(json);
		cr_assert_lt(pages, 5);
	}
	cr_assert_eq(pages, 3);
	cr_assert_eq(rows, 5);
}

Test(frontends, service_list_by_type_and_namespace)
{
	const char *const type[] = {"--type", "NodePort"};
	const char *const both[] = {"ns", "--type", "ClusterIP"};
	const char *const none[] = {"elsewhere"};
	const char *const wrong[] = {"--type", "Router"};
	char *json;

	load();
	put(node_port("web", "10.96.0.1", 80, 30080));
	json = list_json(type, 2);
	cr_assert_not_null(strstr(json, "0.0.0.0:30080"));
	cr_assert_null(strstr(json, "10.96.0.1"));
	free(json);
	json = list_json(both, 3);
	cr_assert_not_null(strstr(json, "10.96.0.1:80"));
	cr_assert_null(strstr(json, ":30080"));
	free(json);
	json = list_json(none, 1);
	cr_assert_not_null(strstr(json, "\"items\":[]}"));
	free(json);
	cr_assert_eq(pb_fake_command(fake, "service list", wrong, 2, &json), -EINVAL);
	cr_assert_not_null(strstr(pb_fake_failure(fake), "none of ClusterIP, NodePort"));
}

Test(frontends, service_list_has_the_number_that_conntrack_entries_name)
{
	char want[96];

	load();
	put(node_port("web", "10.96.0.1", 80, 30080));
	PUBLISH("web", {"10.0.0.1", 8080});
	snprintf(want, sizeof(want), "\"frontend\":\"10.96.0.1:80\",\"id\":%u,",
		 entry("10.96.0.1", 80).id);
	cr_assert_neq(entry("10.96.0.1", 80).id, 0);
	cr_assert(listed(want), "%s", want);
}
