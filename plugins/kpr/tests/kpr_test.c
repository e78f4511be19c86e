/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cases of docs/behaviour/kpr.md that need no kernel: Services and backends in, contents of
 * the maps out. The plugin runs on the fake host, its maps are in memory.
 */
#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <errno.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <patchbay/testing.h>

#include "../kpr.h"
#include "fixture.h"

TestSuite(kpr, .init = setup, .fini = teardown);

Test(kpr, service_show_names_the_backends_of_one_service)
{
	struct service *s = bare("web");
	char *json = NULL;

	set_ip(s, "10.96.0.1");
	set_port(s, "a", IPPROTO_TCP, 80);
	load();
	put(s);
	PUBLISH("web", {"10.0.0.1", 8080, "a"}, {"10.0.0.2", 9090, "b"});
	cr_assert_eq(shown("ns/web", &json), 0);
	cr_assert_not_null(strstr(json, "\"backend\":\"10.0.0.1:8080\",\"state\":\"active\""));
	cr_assert_null(strstr(json, "10.0.0.2"));
	free(json);
	cr_assert_eq(shown("ns/nobody", &json), -ENOENT);
}

/* ---- which frontends a Service has ---- */

Test(kpr, K1_tcp_and_udp_on_one_port_are_two_frontends)
{
	struct service *dns = bare("dns");

	set_ip(dns, "10.96.0.10");
	set_port(dns, "tcp", IPPROTO_TCP, 53);
	set_port(dns, "udp", IPPROTO_UDP, 53);
	load();
	put(dns);
	PUBLISH("dns", {"10.0.0.1", 5353, "tcp", IPPROTO_TCP},
		{"10.0.0.2", 5353, "udp", IPPROTO_UDP});
	cr_assert_str_eq(behind_protocol("10.96.0.10", 53, IPPROTO_TCP), "10.0.0.1:5353");
	cr_assert_str_eq(behind_protocol("10.96.0.10", 53, IPPROTO_UDP), "10.0.0.2:5353");
}

Test(kpr, K3_a_named_target_port_may_differ_from_pod_to_pod)
{
	load();
	put(service("web", "10.96.0.1", 80));
	PUBLISH("web", {"10.0.0.1", 8080}, {"10.0.0.2", 9090});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:8080 10.0.0.2:9090");
}

Test(kpr, K4_E7_only_the_port_of_the_same_name_is_used)
{
	struct service *s = bare("web");

	set_ip(s, "10.96.0.1");
	set_port(s, "a", IPPROTO_TCP, 80);
	load();
	put(s);
	PUBLISH("web", {"10.0.0.1", 8080, "a"}, {"10.0.0.1", 9090, "b"});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:8080");
	PUBLISH("web", {"10.0.0.1", 9090, "b"});
	cr_assert_str_eq(behind("10.96.0.1", 80), "refused");
	cr_assert(listed("no backends: no endpoint has a port of this name and protocol"));
}

Test(kpr, K5_E8_a_port_without_name_matches_one_without_name)
{
	load();
	put(service("web", "10.96.0.1", 80));
	PUBLISH("web", {"10.0.0.1", 8080, ""});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:8080");
}

Test(kpr, K6_a_headless_service_has_no_frontend)
{
	struct service *s = service("web", "10.96.0.1", 80);

	s->s.flags = PB_SERVICE_HEADLESS;
	s->s.n_cluster_ips = 0;
	load();
	put(s);
	PUBLISH("web", {"10.0.0.1", 8080});
	cr_assert_eq(pb_fake_map_count(fake, "kpr_services"), 0);
	cr_assert_not(listed("\"web\""));
}

Test(kpr, K7_external_name_has_none_until_its_type_changes_and_none_when_it_changes_back)
{
	struct service *name = service("web", "10.96.0.1", 80);
	struct service *ip = service("web", "10.96.0.1", 80);

	name->s.type = PB_SERVICE_EXTERNAL_NAME;
	load();
	put(name);
	PUBLISH("web", {"10.0.0.1", 8080});
	cr_assert_str_eq(behind("10.96.0.1", 80), "absent");
	put(ip);
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:8080");
	put(name);
	cr_assert_str_eq(behind("10.96.0.1", 80), "absent");
}

Test(kpr, K9_removing_a_port_removes_only_its_frontend)
{
	struct service *three = bare("web");
	struct service *two = bare("web");
	struct pb_svc before;

	set_ip(three, "10.96.0.1");
	set_port(three, "a", IPPROTO_TCP, 81);
	set_port(three, "b", IPPROTO_TCP, 82);
	set_port(three, "c", IPPROTO_TCP, 83);
	set_ip(two, "10.96.0.1");
	set_port(two, "a", IPPROTO_TCP, 81);
	set_port(two, "c", IPPROTO_TCP, 83);
	load();
	put(three);
	PUBLISH("web", {"10.0.0.1", 1, "a"}, {"10.0.0.1", 2, "b"}, {"10.0.0.1", 3, "c"});
	before = entry("10.96.0.1", 83);
	put(two);
	cr_assert_str_eq(behind("10.96.0.1", 82), "absent");
	cr_assert_str_eq(behind("10.96.0.1", 81), "10.0.0.1:1");
	cr_assert_eq(entry("10.96.0.1", 83).id, before.id);
	cr_assert_eq(entry("10.96.0.1", 83).base, before.base);
}

Test(kpr, K23_the_cluster_ip_does_not_answer_on_the_node_port)
{
	struct service *s = service("web", "10.96.0.1", 80);

	s->s.type = PB_SERVICE_NODE_PORT;
	s->ports[0].node_port = 30080;
	load();
	put(s);
	PUBLISH("web", {"10.0.0.1", 8080});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:8080");
	cr_assert_str_eq(behind("10.96.0.1", 30080), "absent");
}

Test(kpr, K47_another_proxys_service_is_left_alone_also_when_the_label_comes_later)
{
	struct service *ours = service("web", "10.96.0.1", 80);
	struct service *theirs = service("web", "10.96.0.1", 80);

	theirs->labels[0] =
		(struct pb_kube_pair){"service.kubernetes.io/service-proxy-name", "other"};
	theirs->s.meta.n_labels = 1;
	load();
	put(ours);
	PUBLISH("web", {"10.0.0.1", 8080});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:8080");
	put(theirs);
	cr_assert_str_eq(behind("10.96.0.1", 80), "absent");
}

Test(kpr, K48_E13_a_dual_stack_service_has_a_frontend_in_each_family)
{
	struct service *s = service("web", "10.96.0.1", 80);

	set_ip(s, "fd00::1");
	load();
	put(s);
	PUBLISH("web", {"10.0.0.1", 8080}, {"fd01::1", 8080});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:8080");
	cr_assert_str_eq(behind("fd00::1", 80), "fd01::1:8080");
	/* Without IPv6 backends its IPv4 half works on. */
	PUBLISH("web", {"10.0.0.1", 8080});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:8080");
	cr_assert_str_eq(behind("fd00::1", 80), "refused");
}

Test(kpr, K56_a_port_0_has_no_frontend)
{
	struct service *s = bare("web");

	set_ip(s, "10.96.0.1");
	set_port(s, "a", IPPROTO_TCP, 0);
	set_port(s, "b", IPPROTO_IGMP, 80);
	load();
	put(s);
	PUBLISH("web", {"10.0.0.1", 8080, "a"});
	cr_assert_eq(pb_fake_map_count(fake, "kpr_services"), 0);
	cr_assert(listed("\"state\":\"not translated: protocol or port\""));
}

/* ---- which backends stand behind a frontend ---- */

Test(kpr, K12_K13_without_backends_it_refuses_and_the_next_backend_is_used_at_once)
{
	load();
	put(service("web", "10.96.0.1", 80));
	PUBLISH("web", {"10.0.0.1", 8080});
	publish_n("web", NULL, 0);
	cr_assert_str_eq(behind("10.96.0.1", 80), "refused");
	cr_assert(listed("\"state\":\"no backends\""));
	PUBLISH("web", {"10.0.0.2", 8080});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.2:8080");
}

Test(kpr, K32_a_terminating_and_serving_backend_is_used_when_no_other_is_left)
{
	load();
	put(service("web", "10.96.0.1", 80));
	PUBLISH("web", {"10.0.0.1", 80, "", 0, PB_BACKEND_TERMINATING}, {"10.0.0.2", 80});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.2:80");
	PUBLISH("web", {"10.0.0.1", 80, "", 0, PB_BACKEND_TERMINATING});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80");
}

Test(kpr, K33_a_draining_backend_is_never_used)
{
	load();
	put(service("web", "10.96.0.1", 80));
	PUBLISH("web", {"10.0.0.1", 80, "", 0, PB_BACKEND_DRAINING});
	cr_assert_str_eq(behind("10.96.0.1", 80), "refused");
}

Test(kpr, K37_a_backend_given_twice_counts_once)
{
	load();
	put(service("web", "10.96.0.1", 80));
	PUBLISH("web", {"10.0.0.1", 80}, {"10.0.0.1", 80}, {"10.0.0.2", 80});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80 10.0.0.2:80");
}

Test(kpr, K59_internal_traffic_policy_local_never_leaves_the_node)
{
	struct service *s = service("web", "10.96.0.1", 80);

	s->s.flags = PB_SERVICE_INTERNAL_LOCAL;
	load();
	put(s);
	PUBLISH("web", {"10.0.0.1", 80}, {"10.0.0.2", 80, "", 0, 0, PB_BACKEND_LOCAL});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.2:80");
	PUBLISH("web", {"10.0.0.1", 80},
		{"10.0.0.2", 80, "", 0, PB_BACKEND_TERMINATING, PB_BACKEND_LOCAL});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.2:80", "local before remote");
	PUBLISH("web", {"10.0.0.1", 80});
	cr_assert_str_eq(behind("10.96.0.1", 80), "refused");
	cr_assert(listed("\"state\":\"no backends on this node\""));
}

Test(kpr, K62_the_api_servers_own_service_fails_open)
{
	struct service *s = service("kubernetes", "10.96.0.1", 443);

	s->s.meta.ns = "default";
	load();
	put(s);
	synced();
	cr_assert_str_eq(behind("10.96.0.1", 443), "open");
}

/* ---- who has a frontend ---- */

Test(kpr, K50_the_first_service_has_the_frontend_and_the_next_takes_over)
{
	struct service *first = service("first", "10.96.0.1", 80);
	uint32_t id;

	load();
	put(first);
	PUBLISH("first", {"10.0.0.1", 80});
	put(service("second", "10.96.0.1", 80));
	PUBLISH("second", {"10.0.0.2", 80});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80");
	cr_assert(listed("\"state\":\"conflict: taken by ns/first\""));
	id = entry("10.96.0.1", 80).id;
	gone(first);
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.2:80");
	cr_assert_neq(entry("10.96.0.1", 80).id, id, "sockets of the first would be misled");
	cr_assert_not(listed("conflict"));
}

Test(kpr, K50_a_loser_that_goes_changes_nothing)
{
	struct service *second = service("second", "10.96.0.1", 80);
	uint64_t before;

	load();
	put(service("first", "10.96.0.1", 80));
	PUBLISH("first", {"10.0.0.1", 80});
	put(second);
	before = writes();
	gone(second);
	cr_assert_eq(writes(), before);
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80");
}

/* ---- change and quiet ---- */

Test(kpr, K61_repeated_service_events_write_nothing)
{
	uint64_t before;

	load();
	put(service("web", "10.96.0.1", 80));
	PUBLISH("web", {"10.0.0.1", 80}, {"10.0.0.2", 80});
	before = writes();
	for (int i = 0; i < 10; i++)
		put(service("web", "10.96.0.1", 80));
	cr_assert_eq(writes(), before);
}

Test(kpr, E18_backends_before_their_service_wait_for_it)
{
	load();
	PUBLISH("web", {"10.0.0.1", 80});
	cr_assert_eq(pb_fake_map_count(fake, "kpr_services"), 0);
	put(service("web", "10.96.0.1", 80));
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80");
}

Test(kpr, a_service_is_not_refused_before_all_backends_are_known)
{
	load();
	put(service("web", "10.96.0.1", 80));
	cr_assert_str_eq(behind("10.96.0.1", 80), "absent");
	cr_assert(listed("\"state\":\"waiting for backends\""));
	synced();
	cr_assert_str_eq(behind("10.96.0.1", 80), "refused");
}

Test(kpr, backends_that_become_unknown_stay_as_they_were)
{
	load();
	put(service("web", "10.96.0.1", 80));
	PUBLISH("web", {"10.0.0.1", 80});
	synced();
	/* In whatever order. */
	cr_assert_eq(pb_fake_withdraw(fake, PB_TOPIC_BACKENDS, "ns/web/slice"), 0);
	pb_fake_advance_ms(fake, 1);
	cr_assert_eq(pb_fake_withdraw(fake, PB_TOPIC_BACKENDS, "ns/web"), 0);
	pb_fake_advance_ms(fake, 1);
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80");
	cr_assert(listed("\"state\":\"backends unknown, as before\""));
	PUBLISH("web", {"10.0.0.2", 80});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.2:80");
}

Test(kpr, one_changed_backend_touches_one_service)
{
	uint64_t before;

	load();
	put(service("a", "10.96.0.1", 80));
	put(service("b", "10.96.0.2", 80));
	PUBLISH("a", {"10.0.0.1", 80}, {"10.0.0.2", 80});
	PUBLISH("b", {"10.0.0.1", 80}, {"10.0.0.2", 80});
	before = writes();
	PUBLISH("a", {"10.0.0.1", 80}, {"10.0.0.3", 80});
	cr_assert_eq(writes() - before, 3, "a backend, its slot, and the one that left");
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80 10.0.0.3:80");
	before = writes();
	PUBLISH("a", {"10.0.0.1", 80}, {"10.0.0.3", 80}, {"10.0.0.4", 80});
	/* The range of two slots is full: a new one of four, three of them written. */
	cr_assert_eq(writes() - before, 5);
}

Test(kpr, a_changed_frontend_keeps_its_id_and_a_gone_backend_stays_whole_for_a_while)
{
	struct pb_svc old, now;
	struct pb_svc_backend b;
	struct pb_svc_slot slot;

	load();
	put(service("web", "10.96.0.1", 80));
	PUBLISH("web", {"10.0.0.1", 80}, {"10.0.0.2", 80});
	old = entry("10.96.0.1", 80);
	cr_assert_eq(pb_fake_map_get(fake, "kpr_slots", &old.base, &slot), 0);
	PUBLISH("web", {"10.0.0.3", 80}, {"10.0.0.4", 80});
	now = entry("10.96.0.1", 80);
	cr_assert_eq(memcmp(&now, &old, sizeof(now)), 0);
	/* A program that read the old slot finds a whole backend, and sees that it left. */
	cr_assert_eq(pb_fake_map_get(fake, "kpr_backends", &slot.backend, &b), 0);
	cr_assert_eq(b.addr.v4, inet_addr("10.0.0.1"));
	cr_assert_eq(b.pool, 0);
}

Test(kpr, a_pool_that_grows_leaves_its_old_range_alone)
{
	struct pb_svc old, now;

	load();
	put(service("web", "10.96.0.1", 80));
	PUBLISH("web", {"10.0.0.1", 80});
	old = entry("10.96.0.1", 80);
	PUBLISH("web", {"10.0.0.1", 80}, {"10.0.0.2", 80});
	now = entry("10.96.0.1", 80);
	cr_assert_neq(now.base, old.base);
	cr_assert_eq(backend_in(&(struct pb_svc_key[]){key_of("10.96.0.1", 80, IPPROTO_TCP)}[0],
				&old, 0)
			     .addr.v4,
		     inet_addr("10.0.0.1"));
}

Test(kpr, ranges_are_used_again_after_their_grace_period)
{
	load();
	put(service("web", "10.96.0.1", 80));
	/* 64 slots at a time out of 256: only reuse makes more than four changes possible. */
	for (uint32_t round = 0; round < 20; round++) {
		struct backend list[64];
		char addrs[64][16];

		for (uint32_t i = 0; i < 64; i++) {
			snprintf(addrs[i], sizeof(addrs[i]), "10.%u.0.%u", round, i);
			list[i] = (struct backend){.addr = addrs[i], .port = 80};
		}
		publish_n("web", list, 64);
		pb_fake_advance_ms(fake, KPR_GRACE_MS + 1);
	}
	cr_assert_eq(pb_fake_metric(fake, "map_errors"), 0);
	cr_assert_eq(entry("10.96.0.1", 80).count, 64);
	cr_assert_leq(pb_fake_metric(fake, "backend_slots"), 128);
	cr_assert_leq(pb_fake_metric(fake, "backends"), 128);
}

Test(kpr, service_list_stays_json_whatever_a_name_holds)
{
	struct service *s = bare("we\"b\\\n");

	set_ip(s, "10.96.0.1");
	set_port(s, "\x01", IPPROTO_TCP, 80);
	load();
	put(s);
	cr_assert(listed("\"name\":\"we\\u0022b\\u005c\\u000a\""));
	cr_assert(listed("\"port\":\"\\u0001\""));
}

/* ---- full maps ---- */

Test(kpr, a_full_map_of_frontends_refuses_the_whole_service_and_retries)
{
	struct service *small[SERVICES_MAX];
	struct service *two = bare("two");
	char names[SERVICES_MAX][16], ip[16];

	load();
	for (int i = 0; i < SERVICES_MAX - 1; i++) {
		snprintf(names[i], sizeof(names[i]), "s%d", i);
		snprintf(ip, sizeof(ip), "10.96.1.%d", i);
		small[i] = service(names[i], ip, 80);
		put(small[i]);
	}
	set_ip(two, "10.96.0.1");
	set_port(two, "a", IPPROTO_TCP, 81);
	set_port(two, "b", IPPROTO_TCP, 82);
	put(two);
	synced();
	PUBLISH("two", {"10.0.0.1", 1, "a"}, {"10.0.0.1", 2, "b"});
	/* One place is left, the Service needs two: it gets none. */
	cr_assert_str_eq(behind("10.96.0.1", 81), "absent");
	cr_assert_str_eq(behind("10.96.0.1", 82), "absent");
	cr_assert(listed("\"state\":\"map full, as before\""));
	cr_assert_eq(pb_fake_metric(fake, "failing"), 1);
	cr_assert_not_null(strstr(pb_fake_log(fake), "map of frontends full (raise services_max)"));
	gone(small[0]);
	pb_fake_advance_ms(fake, KPR_RETRY_MS);
	cr_assert_str_eq(behind("10.96.0.1", 81), "10.0.0.1:1");
	cr_assert_str_eq(behind("10.96.0.1", 82), "10.0.0.1:2");
	cr_assert_eq(pb_fake_metric(fake, "failing"), 0);
}

/* Load balancers ask every node, and the same Services are too many for each of them. */
Test(kpr, one_service_without_room_leaves_the_node_healthy_and_all_of_them_do_not)
{
	struct service *two = bare("two");
	struct kpr *kpr;

	load();
	synced();
	kpr = pb_fake_self(fake);
	set_ip(two, "10.96.0.1");
	set_port(two, "a", IPPROTO_TCP, 81);
	cr_assert_eq(pb_fake_fail(fake, "map_update_batch", 0, -ENOMEM), 0);
	put(two);
	cr_assert_eq(pb_fake_metric(fake, "failing"), 1);
	cr_assert_neq(kpr->health.behind_since_ns, 0);
	pb_fake_advance_ms(fake, KPR_RETRY_MS + 1);
	cr_assert_eq(kpr->health.behind_since_ns, 0);
	cr_assert_eq(pb_fake_fail(fake, "map_update_batch", 0, -ENOMEM), 0);
	put(service("web", "10.96.0.2", 80));
	cr_assert_eq(pb_fake_metric(fake, "failing"), 1);
	cr_assert_eq(kpr->health.behind_since_ns, 0);
}

Test(kpr, a_full_map_is_one_line_in_the_log_and_not_one_a_service)
{
	struct service *s[SERVICES_MAX + 4];
	char names[SERVICES_MAX + 4][16], ip[16];
	const char *line;

	load();
	synced();
	for (int i = 0; i < SERVICES_MAX + 4; i++) {
		snprintf(names[i], sizeof(names[i]), "s%02d", i);
		snprintf(ip, sizeof(ip), "10.96.1.%d", i);
		s[i] = service(names[i], ip, 80);
		cr_assert_eq(pb_fake_kube(fake, PB_KUBE_PUT, &s[i]->s.meta), 0);
	}
	pb_fake_advance_ms(fake, 1);
	line = strstr(pb_fake_log(fake), "map of frontends full (raise services_max): no room for "
					 "4 Services, the first is ns/s16;");
	cr_assert_not_null(line, "%s", pb_fake_log(fake));
	cr_assert_null(strstr(strchr(line, '\n'), "full"));
	cr_assert_eq(pb_fake_metric(fake, "failing"), 4);
	/* Tried again and again: no further line. */
	pb_fake_advance_ms(fake, 10 * KPR_RETRY_MAX_MS);
	cr_assert_null(strstr(strchr(line, '\n'), "full"));
	/* Nor one for each that comes later, as long as it is the same trouble. */
	put(service("t", "10.96.2.1", 80));
	cr_assert_eq(pb_fake_metric(fake, "failing"), 5);
	line = strstr(pb_fake_log(fake), "full");
	cr_assert_null(strstr(strchr(line, '\n'), "full"), "%s", pb_fake_log(fake));

	/* When there was room for all, the next time is a new one. */
	for (int i = 0; i < 5; i++)
		cr_assert_eq(pb_fake_kube(fake, PB_KUBE_DELETE, &s[i]->s.meta), 0);
	pb_fake_advance_ms(fake, 10 * KPR_RETRY_MAX_MS);
	cr_assert_eq(pb_fake_metric(fake, "failing"), 0);
	cr_assert_not_null(strstr(pb_fake_log(fake), "all Services have room again"));
	pb_fake_log_clear(fake);
	put(service("u", "10.96.2.2", 80));
	cr_assert_not_null(strstr(pb_fake_log(fake), "map of frontends full"));
}

Test(kpr, a_full_map_of_backends_keeps_the_old_ones)
{
	struct backend list[300];
	char addrs[300][16];

	for (uint32_t i = 0; i < 300; i++) {
		snprintf(addrs[i], sizeof(addrs[i]), "10.0.%u.%u", i / 256, i % 256);
		list[i] = (struct backend){.addr = addrs[i], .port = 80};
	}
	load();
	put(service("web", "10.96.0.1", 80));
	PUBLISH("web", {"10.1.0.1", 80});
	publish_n("web", list, 300);
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.1.0.1:80");
	cr_assert_not_null(strstr(pb_fake_log(fake), "map of backends full (raise backends_max)"));
	publish_n("web", list, 100);
	cr_assert_eq(entry("10.96.0.1", 80).count, 100);
}

Test(kpr, a_refused_write_is_retried_and_leaves_no_half_service)
{
	struct service *two = bare("two");

	load();
	set_ip(two, "10.96.0.1");
	set_port(two, "a", IPPROTO_TCP, 81);
	set_port(two, "b", IPPROTO_TCP, 82);
	PUBLISH("two", {"10.0.0.1", 1, "a"}, {"10.0.0.1", 2, "b"});
	cr_assert_eq(pb_fake_fail(fake, "map_update_batch", 0, -ENOMEM), 0);
	put(two);
	cr_assert_eq(behind("10.96.0.1", 81)[0] == 'a', behind("10.96.0.1", 82)[0] == 'a');
	cr_assert_eq(pb_fake_metric(fake, "map_errors"), 1);
	pb_fake_advance_ms(fake, KPR_RETRY_MS + 1);
	cr_assert_str_eq(behind("10.96.0.1", 81), "10.0.0.1:1");
	cr_assert_str_eq(behind("10.96.0.1", 82), "10.0.0.1:2");
}

/* ---- reload and restart ---- */

Test(kpr, K55_a_reload_writes_nothing)
{
	struct pb_svc before;
	uint64_t n;

	load();
	put(service("a", "10.96.0.1", 80));
	put(service("b", "10.96.0.2", 80));
	PUBLISH("a", {"10.0.0.1", 80}, {"10.0.0.2", 80});
	PUBLISH("b", {"10.0.0.3", 80});
	synced();
	before = entry("10.96.0.1", 80);
	n = pb_fake_map_writes(fake, "kpr_services");
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(pb_fake_reload(fake), 0, "%s", pb_fake_failure(fake));
		pb_fake_advance_ms(fake, 1000);
		cr_assert_eq(writes(), 0, "by the new generation");
	}
	cr_assert_eq(pb_fake_map_writes(fake, "kpr_services"), n);
	cr_assert_eq(memcmp(&before, &(struct pb_svc[]){entry("10.96.0.1", 80)}, sizeof(before)),
		     0);
	PUBLISH("a", {"10.0.0.9", 80});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.9:80");
	cr_assert_str_eq(behind("10.96.0.2", 80), "10.0.0.3:80");
}

Test(kpr, a_reload_while_something_waits_leaves_no_timer_behind)
{
	char names[SERVICES_MAX + 1][16], ip[16];

	load();
	synced();
	for (int i = 0; i <= SERVICES_MAX; i++) {
		snprintf(names[i], sizeof(names[i]), "s%02d", i);
		snprintf(ip, sizeof(ip), "10.96.1.%d", i);
		put(service(names[i], ip, 80));
	}
	cr_assert_gt(pb_fake_timers(fake), 0, "one has no room and is tried again");
	cr_assert_eq(pb_fake_reload(fake), 0, "%s", pb_fake_failure(fake));
	cr_assert_null(strstr(pb_fake_log(fake), "behind after stop()"), "%s", pb_fake_log(fake));
}

Test(kpr, K55_after_a_restart_leftovers_go_only_when_everything_is_known)
{
	struct pb_svc_key key = key_of("10.96.9.9", 80, IPPROTO_TCP);
	struct pb_svc stale = {.id = 7, .base = 8, .count = 1, .owner = 1};

	load();
	put(service("web", "10.96.0.1", 80));
	PUBLISH("web", {"10.0.0.1", 80});
	cr_assert_eq(pb_fake_map_put(fake, "kpr_services", &key, &stale), 0);
	cr_assert_eq(pb_fake_reload(fake), 0);
	pb_fake_advance_ms(fake, 1000);
	cr_assert_str_neq(behind("10.96.0.1", 80), "absent");
	cr_assert_eq(pb_fake_map_get(fake, "kpr_services", &key, &stale), 0);
	pb_fake_kube_synced(fake, PB_KUBE_SERVICE);
	pb_fake_advance_ms(fake, 10);
	cr_assert_eq(pb_fake_map_get(fake, "kpr_services", &key, &stale), 0);
	pb_fake_synced(fake, PB_TOPIC_BACKENDS);
	pb_fake_advance_ms(fake, 10);
	cr_assert_eq(pb_fake_map_get(fake, "kpr_services", &key, &stale), 0);
	pb_fake_kube_synced(fake, PB_KUBE_POD);
	pb_fake_advance_ms(fake, 10);
	cr_assert_eq(pb_fake_map_get(fake, "kpr_services", &key, &stale), 0);
	pb_fake_synced(fake, PB_TOPIC_NODE_ADDRESSES);
	pb_fake_advance_ms(fake, 10);
	cr_assert_eq(pb_fake_map_get(fake, "kpr_services", &key, &stale), -ENOENT);
}

Test(kpr, K55_a_leftover_goes_also_when_everything_was_known_before_the_maps_were_read)
{
	struct pb_svc_key key = key_of("10.96.9.9", 80, IPPROTO_TCP);
	struct pb_svc stale = {.id = 7, .base = 8, .count = 1, .owner = 1};

	load();
	put(service("web", "10.96.0.1", 80));
	PUBLISH("web", {"10.0.0.1", 80});
	synced();
	cr_assert_eq(pb_fake_map_put(fake, "kpr_services", &key, &stale), 0);
	cr_assert_eq(pb_fake_reload(fake), 0);
	pb_fake_advance_ms(fake, 10);
	cr_assert_eq(pb_fake_map_get(fake, "kpr_services", &key, &stale), -ENOENT);
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80");
}

Test(kpr, K55_frontends_that_share_a_range_are_written_anew)
{
	struct pb_svc_key key = key_of("10.96.0.2", 80, IPPROTO_TCP);
	struct pb_svc broken;

	load();
	put(service("a", "10.96.0.1", 80));
	put(service("b", "10.96.0.2", 80));
	PUBLISH("a", {"10.0.0.1", 80});
	PUBLISH("b", {"10.0.0.2", 80});
	synced();
	broken = entry("10.96.0.2", 80);
	broken.base = entry("10.96.0.1", 80).base;
	broken.room = entry("10.96.0.1", 80).room;
	cr_assert_eq(pb_fake_map_put(fake, "kpr_services", &key, &broken), 0);
	cr_assert_eq(pb_fake_reload(fake), 0);
	pb_fake_advance_ms(fake, 10);
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80");
	cr_assert_str_eq(behind("10.96.0.2", 80), "10.0.0.2:80");
}

Test(kpr, a_batch_that_was_cut_short_leaves_no_backend_that_is_counted_free)
{
	struct pb_svc_key key = key_of("10.96.0.1", 80, IPPROTO_TCP);
	struct service *two = bare("two");
	const struct kpr *kpr;
	struct pb_svc cut;

	load();
	set_ip(two, "10.96.0.1");
	set_port(two, "a", IPPROTO_TCP, 80);
	set_port(two, "a", IPPROTO_TCP, 81);
	put(two);
	PUBLISH("two", {"10.0.0.1", 1, "a"}, {"10.0.0.2", 1, "a"}, {"10.0.0.3", 1, "a"});
	/* Killed when one of two frontends had the third backend; then nothing is known of them. */
	cut = entry("10.96.0.1", 80);
	cut.count = 2;
	cr_assert_eq(pb_fake_map_put(fake, "kpr_services", &key, &cut), 0);
	cr_assert_eq(pb_fake_withdraw(fake, PB_TOPIC_BACKENDS, "ns/two/slice"), 0);
	cr_assert_eq(pb_fake_withdraw(fake, PB_TOPIC_BACKENDS, "ns/two"), 0);
	cr_assert_eq(pb_fake_reload(fake), 0);
	pb_fake_advance_ms(fake, 10);
	kpr = pb_fake_self(fake);
	cr_assert_eq(entry("10.96.0.1", 81).count, 3);
	cr_assert_eq(kpr->maps.store.ids.used, 3, "of which the other frontend counts two");
	PUBLISH("two", {"10.0.0.1", 1, "a"}, {"10.0.0.2", 1, "a"}, {"10.0.0.3", 1, "a"});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:1 10.0.0.2:1 10.0.0.3:1");
	cr_assert_eq(kpr->maps.store.ids.used, 3);
}

Test(kpr, K50_a_reload_does_not_change_who_has_a_frontend)
{
	struct service *first = service("first", "10.96.0.1", 80);

	load();
	put(first);
	put(service("second", "10.96.0.1", 80));
	PUBLISH("first", {"10.0.0.1", 80});
	PUBLISH("second", {"10.0.0.2", 80});
	synced();
	/* Deleted and added again, it comes behind the other in the store's order. */
	gone(first);
	put(first);
	PUBLISH("first", {"10.0.0.1", 80});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.2:80");
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(pb_fake_reload(fake), 0);
		pb_fake_advance_ms(fake, 10);
		cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.2:80");
	}
}

Test(kpr, a_reload_that_is_called_off_leaves_the_old_generation_writing)
{
	load();
	put(service("web", "10.96.0.1", 80));
	PUBLISH("web", {"10.0.0.1", 80});
	cr_assert_eq(pb_fake_prepare(fake), 0);
	cr_assert_eq(pb_fake_quiesce(fake), 0);
	PUBLISH("web", {"10.0.0.2", 80});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80");
	cr_assert_eq(pb_fake_resume(fake), 0);
	pb_fake_advance_ms(fake, 1);
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.2:80");
}

Test(kpr, new_maps_are_full_before_the_programs_that_use_them_go_live)
{
	put(service("a", "10.96.0.1", 80));
	put(service("b", "10.96.0.2", 80));
	PUBLISH("a", {"10.0.0.1", 80}, {"10.0.0.2", 80});
	PUBLISH("b", {"10.0.0.3", 80});
	pb_fake_kube_synced(fake, PB_KUBE_SERVICE);
	pb_fake_synced(fake, PB_TOPIC_BACKENDS);
	cr_assert_eq(pb_fake_prepare(fake), 0);
	/* Nothing is written by a timer: what is there came with the replay. */
	cr_assert_eq(pb_fake_fail(fake, "timer_start", 0, -ENOMEM), 0);
	cr_assert_eq(pb_fake_start(fake), 0);
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80 10.0.0.2:80");
	cr_assert_str_eq(behind("10.96.0.2", 80), "10.0.0.3:80");
}

Test(kpr, maps_of_the_generation_before_are_left_alone_until_start)
{
	struct pb_svc_key key = key_of("10.96.9.9", 80, IPPROTO_TCP);
	struct pb_svc stale = {.id = 7, .owner = 1};

	load();
	synced();
	cr_assert_eq(pb_fake_map_put(fake, "kpr_services", &key, &stale), 0);
	cr_assert_eq(pb_fake_prepare(fake), 0);
	cr_assert_eq(pb_fake_quiesce(fake), 0);
	put(service("web", "10.96.0.1", 80));
	cr_assert_eq(pb_fake_fail(fake, "timer_start", 0, -ENOMEM), 0);
	cr_assert_eq(pb_fake_start(fake), 0);
	cr_assert_str_eq(behind("10.96.0.1", 80), "absent");
	cr_assert_eq(pb_fake_map_get(fake, "kpr_services", &key, &stale), 0);
}

Test(kpr, what_a_load_that_is_called_off_wrote_is_taken_back)
{
	struct kpr *kpr;

	load();
	put(service("a", "10.96.0.1", 80));
	put(service("b", "10.96.0.2", 80));
	PUBLISH("a", {"10.0.0.1", 80});
	synced();
	cr_assert_eq(pb_fake_map_count(fake, "kpr_services"), 2);
	kpr = pb_fake_self(fake);
	kpr_maps_take_back(&kpr->maps);
	cr_assert_eq(pb_fake_map_count(fake, "kpr_services"), 0);
}

/* ---- parts and heads ---- */

Test(kpr, backends_of_all_parts_stand_behind_a_frontend)
{
	load();
	put(service("web", "10.96.0.1", 80));
	PART("web", "x", {"10.0.0.1", 80}, {"10.0.0.2", 80});
	PART("web", "y", {"10.0.0.3", 80});
	publish_head("web", 2);
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80 10.0.0.2:80 10.0.0.3:80");
}

Test(kpr, half_a_change_is_never_written)
{
	load();
	put(service("web", "10.96.0.1", 80));
	PART("web", "x", {"10.0.0.1", 80});
	pb_fake_advance_ms(fake, 1);
	cr_assert_str_eq(behind("10.96.0.1", 80), "absent", "its head comes last");
	PART("web", "y", {"10.0.0.2", 80});
	publish_head("web", 2);
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80 10.0.0.2:80");
	/* A backend moves from part to part: it is in both for a moment, and never in none. */
	PART("web", "y", {"10.0.0.1", 80}, {"10.0.0.2", 80});
	put(service("web", "10.96.0.1", 80));
	publish_part("web", "x", NULL, 0);
	pb_fake_advance_ms(fake, 1);
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80 10.0.0.2:80");
	publish_head("web", 1);
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80 10.0.0.2:80");
}

Test(kpr, a_part_that_its_publisher_left_behind_goes_without_a_head)
{
	load();
	put(service("web", "10.96.0.1", 80));
	PART("web", "old", {"10.0.0.1", 80}, {"10.0.0.9", 80});
	PART("web", "new", {"10.0.0.1", 80});
	publish_head("web", 1);
	publish_part("web", "old", NULL, 0);
	pb_fake_advance_ms(fake, 1);
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80");
}

/* ---- what is declared ---- */

#define MANY_PORTS 4000
#define EACH 20

/* A value of MANY_PORTS ports with EACH backends, sorted as the topic promises. */
static struct pb_backends *many_ports(void)
{
	uint32_t n = MANY_PORTS * EACH;
	struct pb_backends *v = make(sizeof(*v) + n * sizeof(v->backend[0]) + 1 + MANY_PORTS * 6);
	char *strings = (char *)&v->backend[n];

	*v = (struct pb_backends){.size = sizeof(*v), .n = n, .strings_len = 1 + MANY_PORTS * 6};
	for (uint32_t i = 0; i < n; i++) {
		struct pb_backend *b = &v->backend[i];

		b->addr.v4 = htonl(0x0a000000 + i % EACH);
		b->port = (uint16_t)(1 + i / EACH);
		b->family = 4;
		b->protocol = IPPROTO_TCP;
		b->state = PB_BACKEND_ACTIVE;
		b->port_name = 1 + i / EACH * 6;
		snprintf(strings + b->port_name, 6, "p%04u", i / EACH);
	}
	return v;
}

Test(kpr, a_part_left_behind_that_goes_in_the_middle_of_a_change_takes_no_backend_along)
{
	load();
	put(service("web", "10.96.0.1", 80));
	PART("web", "endpoints", {"10.0.0.1", 80});
	publish_head("web", 1);
	synced();
	/* Read from slices now; the part from Endpoints is withdrawn later. */
	PART("web", "a", {"10.0.0.1", 80});
	publish_head("web", 1);
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80");
	PART("web", "b", {"10.0.0.2", 80});
	cr_assert_eq(pb_fake_withdraw(fake, PB_TOPIC_BACKENDS, "ns/web/endpoints"), 0);
	publish_head("web", 2);
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80 10.0.0.2:80");
}

Test(kpr, a_service_of_thousands_of_ports_is_read_without_holding_the_loop)
{
	const struct pb_backends *v = many_ports();
	struct kpr_model_opts opts = {.proxy_name = ""};
	struct timespec begin, end;
	struct kpr_model model;
	struct kpr_svc svc = {0};
	char name[8];

	kpr_model_init(&model, &opts);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	for (unsigned i = 0; i < MANY_PORTS; i++) {
		struct pb_svc_key key = key_of("10.96.0.1", (uint16_t)(i + 1), IPPROTO_TCP);
		struct kpr_port *port;
		struct pb_svc_backend b;
		struct kpr_run run;
		enum kpr_use use;
		unsigned n = 0;

		snprintf(name, sizeof(name), "p%04u", i);
		port = kpr_port_add(&model, &svc, &key, false, name);
		cr_assert_not_null(port);
		kpr_run_begin(&run, v, port);
		for (; kpr_run_next(&run, &b, &use); n++)
			cr_assert_eq(ntohs(b.port), i + 1);
		cr_assert_eq(n, EACH);
		kpr_port_free(&model, port);
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	/* Looking at every backend for every port takes more than a second. */
	cr_expect_lt((end.tv_sec - begin.tv_sec) * 1000 + (end.tv_nsec - begin.tv_nsec) / 1000000,
		     300);
}

Test(kpr, service_show_of_thousands_of_ports_answers_long_before_the_agent_gives_it_up)
{
	const size_t len = sizeof(struct pb_backends) +
			   MANY_PORTS * EACH * sizeof(struct pb_backend) + 1 + MANY_PORTS * 6;
	const struct pb_backends *v = many_ports();
	struct pb_service_port *ports = make(MANY_PORTS * sizeof(*ports));
	const char *strings = (const char *)&v->backend[v->n];
	struct service *s = bare("web");
	struct timespec begin, end;
	const char *row;
	char *json = NULL;
	unsigned rows = 0;

	set_ip(s, "10.96.0.1");
	for (unsigned i = 0; i < MANY_PORTS; i++)
		ports[i] = (struct pb_service_port){.name = strings + 1 + i * 6,
						    .port = (uint16_t)(i + 1),
						    .protocol = IPPROTO_TCP,
						    .app_protocol = ""};
	s->s.ports = ports;
	s->s.n_ports = MANY_PORTS;
	load();
	put(s);
	cr_assert_eq(pb_fake_publish(fake, PB_TOPIC_BACKENDS, PB_TOPIC_BACKENDS_VERSION,
				     "ns/web/slice", v, len),
		     0);
	publish_head("web", 1);
	clock_gettime(CLOCK_MONOTONIC, &begin);
	cr_assert_eq(shown("ns/web", &json), 0);
	clock_gettime(CLOCK_MONOTONIC, &end);
	for (row = json; (row = strstr(row, "\"backend\":\"")); row++)
		rows++;
	cr_expect_eq(rows, MANY_PORTS * EACH);
	free(json);
	/* Looking at every backend for every port takes seconds. */
	cr_expect_lt((end.tv_sec - begin.tv_sec) * 1000 + (end.tv_nsec - begin.tv_nsec) / 1000000,
		     1000);
}

Test(kpr, it_stands_in_the_service_band_of_all_eight_hooks)
{
	load();
	for (uint32_t hook = PB_HOOK_CONNECT4; hook <= PB_HOOK_GETPEERNAME6; hook++) {
		const struct pb_slot *slot = pb_fake_slot(fake, hook, "kpr");

		cr_assert_not_null(slot, "hook %u", hook);
		cr_assert_eq(slot->band, PB_BAND_SERVICE);
	}
}

static const struct {
	const char *config;
	const char *failure;
} bad_configs[] = {
	{"{\"service_max\":1}", "service_max: no such key; known are services_max, backends_max, "},
	{"{\"services_max\":0}", "services_max: must be a whole number from 1 to 1048576"},
	{"{\"backends_max\":\"many\"}", "backends_max: must be a whole number from 1 to 16777216"},
	{"{\"fail_open\":\"a/b\"}", "fail_open: must be a list of NAMESPACE/NAME"},
	{"{\"fail_open\":[\"kubernetes\"]}",
	 "fail_open: entry 1: must be NAMESPACE/NAME of a Service"},
	{"{\"node_port\":true}", "node_port: must be a mapping"},
	{"{\"node_port\":{\"ranges\":1}}",
	 "node_port.ranges: no such key; known are enabled, range, addresses, "
	 "reserve and bind_protection"},
	{"{\"node_port\":{\"enabled\":1}}", "node_port.enabled: must be true or false"},
	{"{\"node_port\":{\"range\":[32767,30000]}}",
	 "node_port.range: must be two ports, the lower one first, for example [30000, 32767]; the "
	 "upper one is 64511 at most, because the ports above it are for translated packets"},
	{"{\"node_port\":{\"range\":[30000,65535]}}",
	 "node_port.range: must be two ports, the lower one first, for example [30000, 32767]; the "
	 "upper one is 64511 at most, because the ports above it are for translated packets"},
	{"{\"node_port\":{\"addresses\":\"all\"}}",
	 "node_port.addresses: must be a list of ranges such as 192.0.2.0/24, or primary"},
	{"{\"node_port\":{\"addresses\":[\"192.0.2.0/24\",\"192.0.2.0/33\"]}}",
	 "node_port.addresses: entry 2: must be a range such as 192.0.2.0/24 or 2001:db8::/64"},
	{"{\"external_ips\":\"yes\"}", "external_ips: must be true or false"},
	{"{\"socket_lb\":\"none\"}", "socket_lb: must be all or host"},
	{"{\"algorithm\":\"fast\"}", "algorithm: must be random or maglev"},
	{"{\"maglev\":true}", "maglev: must be a mapping"},
	{"{\"maglev\":{\"size\":251}}",
	 "maglev.size: no such key; known are table_size, seed and tables_max"},
	{"{\"maglev\":{\"table_size\":1000}}", "maglev.table_size: must be one of 251, 509, 1021, "
					       "2039, 4093, 8191, 16381, 32749, 65521 or "
					       "131071"},
	{"{\"maglev\":{\"seed\":\"secret\"}}",
	 "maglev.seed: must be 12 random bytes in base64, the same on all nodes (head -c12 "
	 "/dev/urandom | base64 -w0)"},
	{"{\"maglev\":{\"tables_max\":0}}",
	 "maglev.tables_max: must be a whole number from 1 to 4096"},
	{"{\"mode\":\"partial\"}", "mode: must be strict, probe or disabled"},
	{"{\"node_port\":{\"reserve\":1}}", "node_port.reserve: must be true or false"},
	{"{\"loopback_address\":\"0.0.0.0\"}",
	 "loopback_address: must be an IPv4 address that nobody has, for example 169.254.42.1"},
	{"{\"loopback_address\":\"224.0.0.1\"}",
	 "loopback_address: must be an IPv4 address that nobody has, for example 169.254.42.1"},
	{"{\"loopback_address\":\"fe80::1\"}",
	 "loopback_address: must be an IPv4 address that nobody has, for example 169.254.42.1"},
};

Test(kpr, a_wrong_configuration_is_refused_with_its_key)
{
	for (size_t i = 0; i < sizeof(bad_configs) / sizeof(bad_configs[0]); i++) {
		pb_fake_config(fake, bad_configs[i].config);
		cr_expect_eq(pb_fake_load(fake), -EINVAL);
		cr_expect_eq(strncmp(pb_fake_failure(fake), bad_configs[i].failure,
				     strlen(bad_configs[i].failure)),
			     0, "%s", pb_fake_failure(fake));
	}
}

/* ---- ranges ---- */

Test(ranges, everything_can_be_taken_and_given_back)
{
	struct kpr_ranges r;
	uint32_t base[1000];
	uint32_t n = 0;

	cr_assert_eq(kpr_ranges_init(&r, 1000), 0); /* no power of two */
	while (kpr_ranges_take(&r, 1, &base[n]) == 0)
		n++;
	cr_assert_eq(n, 1000);
	for (uint32_t i = 0; i < n; i++)
		kpr_ranges_give(&r, base[i], 1);
	cr_assert_eq(r.used, 0);
	cr_assert_eq(kpr_ranges_take(&r, 512, &base[0]), 0);
	cr_assert_eq(kpr_ranges_take(&r, 256, &base[1]), 0);
	cr_assert_eq(kpr_ranges_take(&r, 257, &base[2]), -ENOSPC);
	kpr_ranges_free(&r);
}

Test(ranges, no_two_ranges_overlap)
{
	struct kpr_ranges r;
	struct {
		uint32_t base, n;
	} held[64] = {0};
	char owner[1024] = {0};
	unsigned seed = 1;

	cr_assert_eq(kpr_ranges_init(&r, sizeof(owner)), 0);
	for (int round = 0; round < 100000; round++) {
		uint32_t i = (uint32_t)rand_r(&seed) % 64;

		if (held[i].n > 0) {
			kpr_ranges_give(&r, held[i].base, held[i].n);
			memset(owner + held[i].base, 0, held[i].n);
			held[i].n = 0;
			continue;
		}
		held[i].n = 1 + (uint32_t)rand_r(&seed) % 40;
		if (kpr_ranges_take(&r, held[i].n, &held[i].base) < 0) {
			held[i].n = 0;
			continue;
		}
		for (uint32_t s = 0; s < held[i].n; s++) {
			cr_assert_eq(owner[held[i].base + s], 0);
			owner[held[i].base + s] = 1;
		}
	}
	kpr_ranges_free(&r);
}

Test(ranges, a_claimed_range_is_not_given_out_again)
{
	struct kpr_ranges r;
	uint32_t base;

	cr_assert_eq(kpr_ranges_init(&r, 64), 0);
	cr_assert_eq(kpr_ranges_claim(&r, 8, 5), 0);
	cr_assert_eq(kpr_ranges_claim(&r, 8, 5), -EEXIST);
	cr_assert_eq(kpr_ranges_claim(&r, 12, 1), -EEXIST, "inside of the first, rounded up to 8");
	cr_assert_eq(kpr_ranges_claim(&r, 3, 2), -EEXIST, "no range starts there");
	cr_assert_eq(kpr_ranges_claim(&r, 64, 1), -EEXIST);
	for (int i = 0; i < 7; i++) {
		cr_assert_eq(kpr_ranges_take(&r, 8, &base), 0);
		cr_assert_neq(base, 8);
	}
	cr_assert_eq(kpr_ranges_take(&r, 8, &base), -ENOSPC);
	kpr_ranges_give(&r, 8, 5);
	cr_assert_eq(kpr_ranges_take(&r, 8, &base), 0);
	cr_assert_eq(base, 8);
	kpr_ranges_free(&r);
}

/* ---- pools ---- */

#define POOL_BACKENDS 16384U

static struct kpr_store store;
static struct kpr_pool *pool;

static void store_setup(void)
{
	cr_assert_eq(kpr_store_init(&store, make(4 * POOL_BACKENDS * sizeof(struct pb_svc_slot)),
				    4 * POOL_BACKENDS,
				    make(POOL_BACKENDS * sizeof(struct pb_svc_backend)),
				    POOL_BACKENDS),
		     0);
	pool = kpr_pool_new(&store);
	cr_assert_not_null(pool);
	/* Anything but NULL: somebody wants it. */
	pool->port = make(1);
}

static void store_teardown(void)
{
	kpr_store_free(&store);
	teardown();
}

static void update(struct pb_svc_backend *adds, uint32_t n_adds, uint32_t *removes,
		   uint32_t n_removes)
{
	struct kpr_update u = {.pool = pool,
			       .add = adds,
			       .n_add = n_adds,
			       .remove = removes,
			       .n_remove = n_removes};

	kpr_pool_index(&store, pool);
	cr_assert_eq(kpr_update_plan(&store, &u), 0);
	kpr_update_apply(&store, &u);
}

TestSuite(pools, .init = store_setup, .fini = store_teardown);

/* Pods of a node have such addresses, and a Service's maker can choose them. */
Test(pools, addresses_that_differ_in_a_few_bits_do_not_crowd_the_index)
{
	struct pb_svc_backend *adds = make(POOL_BACKENDS * sizeof(*adds));

	for (unsigned shift = 0; shift <= 48; shift += 8) {
		uint32_t run = 0, longest = 0;
		uint32_t *all = make(POOL_BACKENDS * sizeof(*all));

		for (uint32_t i = 0; i < POOL_BACKENDS; i++) {
			uint64_t low = (uint64_t)i << shift;

			adds[i] = (struct pb_svc_backend){.port = htons(80), .family = 6};
			memcpy((char *)&adds[i].addr + 8, &low, sizeof(low));
			all[i] = i;
		}
		update(adds, POOL_BACKENDS, NULL, 0);
		cr_assert_not_null(pool->index);
		for (uint32_t i = 0; i <= pool->index_mask; i++) {
			run = pool->index[i] ? run + 1 : 0;
			longest = run > longest ? run : longest;
		}
		/* Half full and evenly spread: some dozens. */
		cr_assert_lt(longest, 500, "shift %u: %u neighbours", shift, longest);
		update(NULL, 0, all, POOL_BACKENDS);
		kpr_store_unnamed(&store, 0);
		kpr_store_release(&store, UINT64_MAX);
	}
}

Test(pools, the_grace_period_begins_when_the_frontends_are_written_and_not_before)
{
	struct pb_svc_backend adds[2] = {{.addr.v4 = 1, .family = 4}, {.addr.v4 = 2, .family = 4}};
	const uint64_t grace_ns = KPR_GRACE_MS * 1000000ULL;
	uint32_t second = 1;

	update(adds, 2, NULL, 0);
	kpr_store_unnamed(&store, 0);
	update(NULL, 0, &second, 1);
	/* The agent was held up before it wrote the frontend, which still counts two. */
	kpr_store_release(&store, 10 * grace_ns);
	cr_assert_eq(store.ids.used, 2);
	kpr_store_unnamed(&store, 10 * grace_ns);
	kpr_store_release(&store, 11 * grace_ns - 1);
	cr_assert_eq(store.ids.used, 2);
	kpr_store_release(&store, 11 * grace_ns);
	cr_assert_eq(store.ids.used, 1);
}
