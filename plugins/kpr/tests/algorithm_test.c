/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which Services have Maglev tables, what is in them, what happens without room, and what the
 * modes make of a machine: the whole plugin on the fake host.
 */
#include <criterion/criterion.h>

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../kpr_maglev.h"
#include "../kpr_pools.h"
#include "../kpr_tables.h"
#include "fixture.h"
#include "system.h"

#define BASE                                                                                       \
	"\"services_max\":16,\"backends_max\":256,\"maglev\":{\"table_size\":251,\"tables_max\":"  \
	"3}"
#define ALGORITHM "service.cilium.io/lb-algorithm"

static const char *const by_default = "{" BASE ",\"algorithm\":\"maglev\"}";
static const char *const by_annotation = "{" BASE "}";

static void setup_maglev(void)
{
	setup_with(by_default);
}

TestSuite(algorithm, .init = setup_maglev, .fini = teardown);

static struct pb_svc_slot element(uint32_t at)
{
	struct pb_svc_slot slot;

	cr_assert_eq(pb_fake_map_get(fake, "kpr_maglev", &at, &slot), 0);
	return slot;
}

/* Elements of a frontend's table that name this backend, as a program would see it. */
static uint32_t elements_of(const char *ip, uint16_t port, const char *backend)
{
	struct pb_svc_key key = key_of(ip, port, IPPROTO_TCP);
	struct pb_svc svc = entry(ip, port);
	struct pb_kube_addr want = addr_of(backend);
	uint32_t n = 0;

	cr_assert(svc.flags & PB_SVC_MAGLEV);
	for (uint32_t i = 0; i < settings().maglev_size; i++) {
		struct pb_svc_slot slot = element(svc.maglev + i);
		struct pb_svc_backend b;

		cr_assert_eq(pb_fake_map_get(fake, "kpr_backends", &slot.backend, &b), 0);
		n += slot.pool == pb_svc_tie(&key, svc.tie) && b.pool == slot.pool &&
		     memcmp(&b.addr, &want.addr, sizeof(b.addr)) == 0;
	}
	return n;
}

static void put_web(const char *name, const char *ip, uint16_t node_port_number)
{
	put(node_port(name, ip, 80, node_port_number));
	PUBLISH(name, {"10.0.0.1", 8080}, {"10.0.0.2", 8080});
}

static bool has_table(const char *ip, uint16_t port)
{
	return entry(ip, port).flags & PB_SVC_MAGLEV;
}

Test(algorithm, a_node_port_has_a_table_and_a_cluster_ip_has_none)
{
	load();
	put_web("web", "10.96.0.1", 30080);
	synced();
	cr_assert_eq(settings().maglev_size, 251);
	cr_assert(has_table("0.0.0.0", 30080));
	cr_assert(!has_table("10.96.0.1", 80));
	cr_assert_eq(elements_of("0.0.0.0", 30080, "10.0.0.1") +
			     elements_of("0.0.0.0", 30080, "10.0.0.2"),
		     251);
	cr_assert_eq(pb_fake_metric(fake, "maglev_tables"), 1);
}

Test(algorithm, every_element_follows_when_a_backend_comes_or_goes)
{
	load();
	put_web("web", "10.96.0.1", 30080);
	synced();
	PUBLISH("web", {"10.0.0.1", 8080}, {"10.0.0.3", 8080});
	cr_assert_eq(elements_of("0.0.0.0", 30080, "10.0.0.2"), 0, "it left");
	pb_fake_advance_ms(fake, KPR_TABLE_REBUILD_MS);
	cr_assert_eq(elements_of("0.0.0.0", 30080, "10.0.0.1") +
			     elements_of("0.0.0.0", 30080, "10.0.0.3"),
		     251);
}

Test(algorithm, K53_the_elements_of_others_hardly_move)
{
	struct backend list[100];
	char addrs[100][16];
	uint32_t before[251], moved = 0;
	struct pb_svc svc;
	struct pb_svc_backend b;

	load();
	put(node_port("web", "10.96.0.1", 80, 30080));
	memset(list, 0, sizeof(list));
	for (int i = 0; i < 100; i++) {
		snprintf(addrs[i], sizeof(addrs[i]), "10.0.1.%d", i + 1);
		list[i].addr = addrs[i];
		list[i].port = 8080;
	}
	publish_n("web", list, 100);
	synced();
	svc = entry("0.0.0.0", 30080);
	for (uint32_t i = 0; i < 251; i++)
		before[i] = element(svc.maglev + i).backend;
	publish_n("web", list, 99);
	pb_fake_advance_ms(fake, KPR_TABLE_REBUILD_MS);
	for (uint32_t i = 0; i < 251; i++) {
		cr_assert_eq(pb_fake_map_get(fake, "kpr_backends", &before[i], &b), 0);
		moved += b.pool != 0 && element(svc.maglev + i).backend != before[i];
	}
	/* A table as small as this; maglev_test has the figure for one of the default size. */
	cr_assert_leq(moved, 25, "%u", moved);
	cr_assert(logged("100 backends are many for a Maglev table of 251 elements"));
}

Test(algorithm, an_annotation_says_otherwise)
{
	struct service *s = node_port("web", "10.96.0.1", 80, 30080);

	load();
	set_annotation(s, ALGORITHM, "random");
	put(s);
	PUBLISH("web", {"10.0.0.1", 8080});
	synced();
	cr_assert(!has_table("0.0.0.0", 30080));
	cr_assert_eq(pb_fake_metric(fake, "maglev_tables"), 0);
	/* Changed in a running Service, there and back. */
	put(node_port("web", "10.96.0.1", 80, 30080));
	cr_assert(has_table("0.0.0.0", 30080));
	cr_assert_eq(elements_of("0.0.0.0", 30080, "10.0.0.1"), 251);
	put(copy_of(s));
	cr_assert(!has_table("0.0.0.0", 30080));
	cr_assert_eq(pb_fake_metric(fake, "maglev_tables"), 0);
}

Test(algorithm, an_annotation_that_makes_no_sense_is_ignored_with_a_warning)
{
	struct service *s = node_port("web", "10.96.0.1", 80, 30080);

	load();
	set_annotation(s, ALGORITHM, "fastest");
	put(s);
	PUBLISH("web", {"10.0.0.1", 8080});
	synced();
	cr_assert(has_table("0.0.0.0", 30080));
	cr_assert_eq(times_logged("annotation " ALGORITHM
				  " is ignored: it must be random or maglev"),
		     1);
}

Test(algorithm, by_default_it_is_random_and_an_annotation_asks_for_a_table)
{
	struct service *s = node_port("one", "10.96.0.1", 80, 30080);

	pb_fake_config(fake, by_annotation);
	load();
	set_annotation(s, ALGORITHM, "maglev");
	put(s);
	PUBLISH("one", {"10.0.0.1", 8080});
	put_web("two", "10.96.0.2", 30081);
	synced();
	cr_assert(has_table("0.0.0.0", 30080));
	cr_assert(!has_table("0.0.0.0", 30081));
}

Test(algorithm, of_a_split_frontend_the_entry_for_packets_from_outside_has_the_table)
{
	struct service *s = node_port("web", "10.96.0.1", 80, 30080);

	load();
	s->s.flags |= PB_SERVICE_EXTERNAL_LOCAL;
	put(s);
	PUBLISH("web", {.addr = "10.0.0.1", .port = 8080, .flags = PB_BACKEND_LOCAL},
		{"10.0.0.2", 8080});
	synced();
	cr_assert(!has_table("0.0.0.0", 30080));
	cr_assert(entry_ext("0.0.0.0", 30080).flags & PB_SVC_MAGLEV);
}

Test(algorithm, without_room_the_choice_is_random_until_there_is_some)
{
	load();
	put_web("a", "10.96.0.1", 30080);
	put_web("b", "10.96.0.2", 30081);
	put_web("c", "10.96.0.3", 30082);
	put_web("d", "10.96.0.4", 30083);
	put_web("e", "10.96.0.5", 30084);
	synced();
	cr_assert_eq(pb_fake_metric(fake, "maglev_tables"), MAGLEV_TABLES);
	cr_assert(has_table("0.0.0.0", 30082));
	cr_assert(!has_table("0.0.0.0", 30083) && !has_table("0.0.0.0", 30084));
	cr_assert_str_eq(behind("0.0.0.0", 30083), "10.0.0.1:8080 10.0.0.2:8080");
	cr_assert_eq(times_logged("no room for a Maglev table"), 1);
	cr_assert(listed("ok, chosen at random: no room for a Maglev table"));
	/* Two go: the others get theirs once no program can look into the old ones. */
	gone(node_port("a", "10.96.0.1", 80, 30080));
	gone(node_port("b", "10.96.0.2", 80, 30081));
	pb_fake_advance_ms(fake, 2 * KPR_GRACE_MS);
	cr_assert(has_table("0.0.0.0", 30083) && has_table("0.0.0.0", 30084));
	cr_assert_eq(elements_of("0.0.0.0", 30084, "10.0.0.1") +
			     elements_of("0.0.0.0", 30084, "10.0.0.2"),
		     251);
	cr_assert(logged("all Services have their Maglev tables again"));
	cr_assert(!listed("no room for a Maglev table"));
}

Test(algorithm, K55_a_reload_takes_tables_over_and_writes_nothing)
{
	struct pb_svc before, after;

	load();
	put_web("web", "10.96.0.1", 30080);
	put_web("api", "10.96.0.2", 30081);
	put_address("192.0.2.1", PB_NODE_ADDR_DEVICE | PB_NODE_ADDR_INTERNAL);
	synced();
	cr_assert_eq(pb_fake_map_count(fake, "kpr_services"), 6);
	before = entry("0.0.0.0", 30081);
	cr_assert_eq(pb_fake_reload(fake), 0);
	pb_fake_advance_ms(fake, 1000);
	after = entry("0.0.0.0", 30081);
	cr_assert_eq(memcmp(&before, &after, sizeof(before)), 0);
	cr_assert_eq(pb_fake_metric(fake, "maglev_builds"), 2, "compared");
	cr_assert_eq(writes(), 0);
	cr_assert_eq(pb_fake_metric(fake, "maglev_tables"), 2);
}

Test(algorithm, another_size_of_tables_is_taken_over_without_a_wrong_backend)
{
	load();
	put_web("web", "10.96.0.1", 30080);
	put_web("api", "10.96.0.2", 30081);
	synced();
	pb_fake_config(fake, "{\"services_max\":16,\"backends_max\":256,\"algorithm\":\"maglev\","
			     "\"maglev\":{\"table_size\":509,\"tables_max\":1}}");
	cr_assert_eq(pb_fake_reload(fake), 0);
	pb_fake_advance_ms(fake, 2 * KPR_GRACE_MS);
	/* The map has room for one of those. */
	cr_assert_eq(settings().maglev_size, 509);
	cr_assert_eq(pb_fake_metric(fake, "maglev_tables"), 1);
	cr_assert(has_table("0.0.0.0", 30080) != has_table("0.0.0.0", 30081));
}

/* ---- lb maglev ---- */

static char *lb_json(const char *arg)
{
	char *json = NULL;

	cr_assert_eq(pb_fake_command(fake, "lb maglev", &arg, arg != NULL, &json), 0, "%s",
		     pb_fake_failure(fake));
	return json;
}

static void expect_in(char *json, const char *part)
{
	cr_assert_not_null(strstr(json, part), "%s: %s", part, json);
}

Test(algorithm, lb_maglev_shows_tables_with_shares_and_checksum)
{
	uint8_t seed[KPR_MAGLEV_SEED_LEN];
	struct kpr_maglev t = {0};
	char row[256];
	char *json;

	load();
	put_web("web", "10.96.0.1", 30080);
	synced();
	cr_assert_eq(kpr_maglev_seed(KPR_MAGLEV_SEED_DEFAULT, seed), 0);
	cr_assert_eq(kpr_maglev_begin(&t, 251, 2, seed), 0);
	for (uint32_t i = 2; i > 0; i--) {
		struct pb_svc_backend b = {.addr.v4 = htonl(0x0a000000 + i),
					   .port = htons(8080),
					   .family = 4};

		kpr_maglev_add(&t, &b, i);
	}
	cr_assert(kpr_maglev_fill(&t, UINT32_MAX));
	snprintf(
		row, sizeof(row),
		"{\"service\":\"ns/web\",\"frontend\":\"0.0.0.0:30080\",\"protocol\":\"TCP\","
		"\"backends\":2,\"min\":125,\"max\":126,\"checksum\":\"%016llx\",\"state\":\"ok\"}",
		(unsigned long long)kpr_maglev_checksum(&t));
	kpr_maglev_free(&t);
	json = lb_json(NULL);
	expect_in(json, row);
	free(json);
	json = lb_json("ns/web");
	expect_in(json, "{\"service\":\"ns/web\",\"frontend\":\"0.0.0.0:30080\"");
	expect_in(json, "\"elements\":125,\"share\":\"49.80%\"");
	expect_in(json, "\"elements\":126,\"share\":\"50.20%\"");
	free(json);
}

Test(algorithm, lb_maglev_goes_on_behind_a_service_and_says_what_is_wrong)
{
	static const char *const two[] = {"ns/web", "ns/api"};
	const char *arg = "ns/none";
	char *json;

	load();
	put_web("web", "10.96.0.1", 30080);
	put_web("api", "10.96.0.2", 30081);
	synced();
	json = lb_json("--after=ns/api");
	cr_assert_null(strstr(json, "ns/web"));
	expect_in(json, "ns/api");
	cr_assert_null(strstr(json, "\"next\""));
	free(json);
	cr_assert_eq(pb_fake_command(fake, "lb maglev", &arg, 1, &json), -ENOENT);
	arg = "--after=ns/none";
	cr_assert_eq(pb_fake_command(fake, "lb maglev", &arg, 1, &json), -EAGAIN);
	cr_assert_eq(pb_fake_command(fake, "lb maglev", two, 2, &json), -EINVAL);
}

/* ---- modes ---- */

static char *status_json(void)
{
	char *json = NULL;

	cr_assert_eq(pb_fake_command(fake, "service status", NULL, 0, &json), 0);
	return json;
}

static void expect_status(const char *part)
{
	char *json = status_json();

	expect_in(json, part);
	free(json);
}

Test(algorithm, status_says_what_is_on)
{
	load();
	put_web("web", "10.96.0.1", 30080);
	put_address("192.0.2.1", PB_NODE_ADDR_DEVICE | PB_NODE_ADDR_INTERNAL);
	synced();
	cr_assert_eq(system_asked, 1);
	expect_status("{\"KubeProxyReplacement\":{\"mode\":\"probe\"");
	expect_status("\"backend_selection\":\"maglev (Maglev tables of 251, 1 of 3 in use)\"");
	expect_status("\"NodePort\":\"enabled (range 30000-32767)\"");
	expect_status(
		"\"north_south\":\"enabled\",\"forwarding\":\"SNAT, or what plugin dsr says\"");
	expect_status("\"bind_protection\":\"enabled\"");
	expect_status("\"kube_proxy\":\"not found\"");
	expect_status("\"kernel\":\"5.10.0-9\"");
	expect_status("\"redirect-neigh\":\"yes\"");
	cr_assert(settings().flags & PB_SVC_SET_BIND_PROTECTION);
	cr_assert(settings().flags & PB_SVC_SET_NODE_PORT);
}

Test(algorithm, probe_goes_without_what_is_missing)
{
	system_probe.missing = 1U << KPR_FEATURE_REDIRECT_NEIGH | 1U << KPR_FEATURE_GETPEERNAME;
	load();
	put_web("web", "10.96.0.1", 30080);
	synced();
	cr_assert_eq(times_logged("warn: Linux 5.10.0-9 has no redirect-neigh"), 1);
	cr_assert_eq(settings().flags & PB_SVC_SET_NODE_PORT, 0);
	cr_assert_null(pb_fake_slot(fake, PB_HOOK_GETPEERNAME4, "kpr"));
	cr_assert_null(pb_fake_slot(fake, PB_HOOK_DEV_INGRESS, "kpr"));
	cr_assert_not_null(pb_fake_slot(fake, PB_HOOK_CONNECT4, "kpr"));
	cr_assert_not_null(pb_fake_slot(fake, PB_HOOK_BIND4, "kpr"));
	cr_assert_str_eq(behind("0.0.0.0", 30080), "10.0.0.1:8080 10.0.0.2:8080");
	expect_status("\"north_south\":\"disabled (kernel)\"");
	expect_status("\"redirect-neigh\":\"missing\"");
}

Test(algorithm, strict_is_not_loaded_without_a_feature)
{
	pb_fake_config(fake, "{\"mode\":\"strict\"}");
	system_probe.missing = 1U << KPR_FEATURE_REDIRECT_NEIGH;
	cr_assert_eq(pb_fake_load(fake), -EOPNOTSUPP);
	cr_assert_not_null(strstr(pb_fake_failure(fake),
				  "Linux 5.10.0-9 has no redirect-neigh, needs helper "
				  "bpf_redirect_neigh (Linux 5.10)"));
	system_probe.missing = 0;
	system_kube_proxy = "nftables table ip kube-proxy";
	cr_assert_eq(pb_fake_load(fake), -EOPNOTSUPP);
	cr_assert_not_null(strstr(pb_fake_failure(fake), system_kube_proxy));
	system_kube_proxy = NULL;
	cr_assert_eq(pb_fake_load(fake), 0, "%s", pb_fake_failure(fake));
}

Test(algorithm, beside_kube_proxy_node_ports_can_be_bound)
{
	system_kube_proxy = "a process listens on its healthz port 10256";
	load();
	put_web("web", "10.96.0.1", 30080);
	synced();
	cr_assert_eq(settings().flags & PB_SVC_SET_BIND_PROTECTION, 0);
	cr_assert_null(pb_fake_slot(fake, PB_HOOK_BIND4, "kpr"));
	cr_assert_not_null(pb_fake_slot(fake, PB_HOOK_DEV_INGRESS, "kpr"));
	cr_assert_eq(times_logged(system_kube_proxy), 1);
	expect_status("\"kube_proxy\":\"a process listens on its healthz port 10256\"");
	expect_status("\"bind_protection\":\"disabled (kube-proxy is here)\"");
}

Test(algorithm, node_ports_that_cannot_be_reserved_are_not_served)
{
	system_reserve = KPR_RESERVE_FAILED;
	load();
	put_web("web", "10.96.0.1", 30080);
	synced();
	cr_assert_str_eq(behind("0.0.0.0", 30080), "absent");
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:8080 10.0.0.2:8080");
	cr_assert_eq(times_logged("NodePorts are off until it is in "
				  "net.ipv4.ip_local_reserved_ports"),
		     1);
	expect_status("\"NodePort\":\"disabled (ports not reserved)\"");
	expect_status("\"ports_reserved\":\"no (failed)\"");
}

Test(algorithm, disabled_serves_cluster_ips_only_and_asks_for_nothing)
{
	struct service *s = node_port("web", "10.96.0.1", 80, 30080);

	pb_fake_config(fake, "{" BASE ",\"mode\":\"disabled\"}");
	system_kube_proxy = "nftables table ip kube-proxy";
	system_reserve = KPR_RESERVE_FAILED;
	load();
	set_external(s, "198.51.100.1");
	set_ingress(s, "203.0.113.1", false);
	put(s);
	PUBLISH("web", {"10.0.0.1", 8080});
	synced();
	cr_assert_eq(pb_fake_map_count(fake, "kpr_services"), 1);
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:8080");
	cr_assert_eq(settings().flags & (PB_SVC_SET_NODE_PORT | PB_SVC_SET_BIND_PROTECTION), 0);
	cr_assert(!logged("warn: "), "%s", pb_fake_log(fake));
	expect_status("\"NodePort\":\"disabled (mode)\"");
	expect_status("\"kube_proxy\":\"not looked for\"");
}
