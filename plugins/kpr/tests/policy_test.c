/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which backends stand behind a frontend: traffic policies, terminating ones, hints about zones;
 * and session affinity as the entries tell it.
 */
#include <criterion/criterion.h>

#include <stdlib.h>
#include <string.h>

#include "fixture.h"

TestSuite(policy, .init = setup, .fini = teardown);

#define HERE 0, 0, PB_BACKEND_LOCAL
#define TERMINATING_HERE 0, PB_BACKEND_TERMINATING, PB_BACKEND_LOCAL
#define ZONE(zone_) "", 0, 0, 0, zone_

/* ---- traffic policies ---- */

Test(policy, cluster_and_cluster_is_one_entry_with_all)
{
	load();
	put(node_port("web", "10.96.0.1", 80, 30080));
	PUBLISH("web", {"10.0.0.1", 80, "", HERE}, {"10.0.0.2", 80});
	cr_assert_str_eq(behind("0.0.0.0", 30080), "10.0.0.1:80 10.0.0.2:80");
	cr_assert_eq(entry("0.0.0.0", 30080).flags & (PB_SVC_SPLIT | PB_SVC_LOCAL), 0);
	cr_assert_str_eq(behind_ext("0.0.0.0", 30080), "absent");
}

Test(policy, K25_external_local_keeps_all_backends_for_clients_of_this_node)
{
	struct service *s = node_port("web", "10.96.0.1", 80, 30080);

	s->s.flags = PB_SERVICE_EXTERNAL_LOCAL;
	set_external(s, "198.51.100.1");
	set_ingress(s, "203.0.113.1", false);
	load();
	put_address("192.0.2.1", PB_NODE_ADDR_DEVICE);
	addresses_synced();
	put(s);
	PUBLISH("web", {"10.0.0.1", 80, "", HERE}, {"10.0.0.2", 80});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80 10.0.0.2:80");
	cr_assert_str_eq(behind_ext("10.96.0.1", 80), "absent");
	cr_assert_str_eq(behind("0.0.0.0", 30080), "10.0.0.1:80 10.0.0.2:80");
	cr_assert_str_eq(behind_ext("0.0.0.0", 30080), "10.0.0.1:80");
	cr_assert_str_eq(behind_ext("192.0.2.1", 30080), "10.0.0.1:80");
	cr_assert_str_eq(behind_ext("198.51.100.1", 80), "10.0.0.1:80");
	cr_assert_str_eq(behind_ext("203.0.113.1", 80), "10.0.0.1:80");
	cr_assert(entry("192.0.2.1", 30080).flags & PB_SVC_SPLIT);
	cr_assert_eq(entry("192.0.2.1", 30080).flags & PB_SVC_LOCAL, 0);
	cr_assert(entry_ext("192.0.2.1", 30080).flags & PB_SVC_LOCAL);
	cr_assert_eq(entry_ext("192.0.2.1", 30080).flags & PB_SVC_SPLIT, 0);
}

Test(policy, K26_external_local_without_local_backend_says_that_there_are_others)
{
	struct service *s = node_port("web", "10.96.0.1", 80, 30080);

	s->s.flags = PB_SERVICE_EXTERNAL_LOCAL;
	load();
	put(s);
	PUBLISH("web", {"10.0.0.2", 80});
	cr_assert_str_eq(behind_ext("0.0.0.0", 30080), "refused");
	cr_assert(entry_ext("0.0.0.0", 30080).flags & PB_SVC_ELSEWHERE);
	cr_assert(listed("no backends on this node"));
	/* None anywhere is another answer. */
	publish_n("web", NULL, 0);
	cr_assert_eq(entry_ext("0.0.0.0", 30080).flags & PB_SVC_ELSEWHERE, 0);
	PUBLISH("web", {"10.0.0.2", 80});
	cr_assert(entry_ext("0.0.0.0", 30080).flags & PB_SVC_ELSEWHERE);
	PUBLISH("web", {"10.0.0.1", 80, "", HERE}, {"10.0.0.2", 80});
	cr_assert_str_eq(behind_ext("0.0.0.0", 30080), "10.0.0.1:80");
	cr_assert_eq(entry_ext("0.0.0.0", 30080).flags & PB_SVC_ELSEWHERE, 0);
}

Test(policy, K59_internal_local_is_about_the_cluster_ip_only)
{
	struct service *s = node_port("web", "10.96.0.1", 80, 30080);

	s->s.flags = PB_SERVICE_INTERNAL_LOCAL;
	load();
	put(s);
	PUBLISH("web", {"10.0.0.2", 80});
	cr_assert_str_eq(behind("10.96.0.1", 80), "refused");
	cr_assert(entry("10.96.0.1", 80).flags & PB_SVC_LOCAL);
	cr_assert_str_eq(behind("0.0.0.0", 30080), "10.0.0.2:80");
	PUBLISH("web", {"10.0.0.1", 80, "", HERE}, {"10.0.0.2", 80});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80");
}

Test(policy, both_local_leaves_clients_of_this_node_all_behind_the_node_port)
{
	struct service *s = node_port("web", "10.96.0.1", 80, 30080);

	s->s.flags = PB_SERVICE_INTERNAL_LOCAL | PB_SERVICE_EXTERNAL_LOCAL;
	load();
	put(s);
	PUBLISH("web", {"10.0.0.1", 80, "", HERE}, {"10.0.0.2", 80});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80");
	cr_assert_str_eq(behind("0.0.0.0", 30080), "10.0.0.1:80 10.0.0.2:80");
	cr_assert_str_eq(behind_ext("0.0.0.0", 30080), "10.0.0.1:80");
}

Test(policy, a_policy_that_changes_adds_and_removes_the_outer_entry)
{
	struct service *cluster = node_port("web", "10.96.0.1", 80, 30080);
	struct service *local = copy_of(cluster);
	struct pb_svc before;

	local->s.flags = PB_SERVICE_EXTERNAL_LOCAL;
	load();
	put(cluster);
	PUBLISH("web", {"10.0.0.1", 80, "", HERE}, {"10.0.0.2", 80});
	before = entry("0.0.0.0", 30080);
	put(local);
	cr_assert_str_eq(behind_ext("0.0.0.0", 30080), "10.0.0.1:80");
	cr_assert_eq(entry("0.0.0.0", 30080).id, before.id);
	put(copy_of(cluster));
	cr_assert_str_eq(behind_ext("0.0.0.0", 30080), "absent");
	cr_assert_eq(entry("0.0.0.0", 30080).flags & PB_SVC_SPLIT, 0);
	/* What the local pool had is free once no program can hold it. */
	pb_fake_advance_ms(fake, 1000);
	put(copy_of(cluster));
	cr_assert_eq(pb_fake_metric(fake, "backends"), 2);
}

Test(policy, backends_know_whether_they_are_on_this_node)
{
	struct pb_svc_key key = key_of("10.96.0.1", 80, IPPROTO_TCP);
	struct pb_svc svc;

	load();
	put(service("web", "10.96.0.1", 80));
	PUBLISH("web", {"10.0.0.1", 80, "", HERE}, {"10.0.0.2", 80});
	svc = entry("10.96.0.1", 80);
	cr_assert_eq(backend_in(&key, &svc, 0).flags, PB_SVC_BACKEND_LOCAL);
	cr_assert_eq(backend_in(&key, &svc, 1).flags, 0);
	/* A record doesn't change: the backend gets another one. */
	PUBLISH("web", {"10.0.0.1", 80}, {"10.0.0.2", 80});
	svc = entry("10.96.0.1", 80);
	cr_assert_eq(svc.count, 2);
	cr_assert_eq(backend_in(&key, &svc, 0).flags, 0);
	cr_assert_eq(backend_in(&key, &svc, 1).flags, 0);
}

/* ---- terminating backends ---- */

Test(policy, K32_a_local_terminating_backend_is_preferred_to_remote_ready_ones)
{
	struct service *s = node_port("web", "10.96.0.1", 80, 30080);

	s->s.flags = PB_SERVICE_EXTERNAL_LOCAL;
	load();
	put(s);
	PUBLISH("web", {"10.0.0.1", 80, "", TERMINATING_HERE}, {"10.0.0.2", 80});
	cr_assert_str_eq(behind_ext("0.0.0.0", 30080), "10.0.0.1:80");
	cr_assert_str_eq(behind("0.0.0.0", 30080), "10.0.0.2:80");
	/* It comes back. */
	PUBLISH("web", {"10.0.0.1", 80, "", HERE}, {"10.0.0.2", 80});
	cr_assert_str_eq(behind("0.0.0.0", 30080), "10.0.0.2:80 10.0.0.1:80");
}

Test(policy, K33_a_local_draining_backend_is_not_used_and_not_counted_elsewhere)
{
	struct service *s = node_port("web", "10.96.0.1", 80, 30080);

	s->s.flags = PB_SERVICE_EXTERNAL_LOCAL;
	load();
	put(s);
	PUBLISH("web", {"10.0.0.1", 80, "", 0, PB_BACKEND_DRAINING, PB_BACKEND_LOCAL},
		{"10.0.0.2", 80, "", 0, PB_BACKEND_DRAINING});
	cr_assert_str_eq(behind_ext("0.0.0.0", 30080), "refused");
	cr_assert_eq(entry_ext("0.0.0.0", 30080).flags & PB_SVC_ELSEWHERE, 0);
}

/* ---- zones ---- */

Test(policy, hints_keep_connections_in_the_zone)
{
	load();
	put_node("node-b", "b");
	put_node("node-a", "a");
	put(service("web", "10.96.0.1", 80));
	PUBLISH("web", {"10.0.0.1", 80, ZONE("a")}, {"10.0.0.2", 80, ZONE("b")},
		{"10.0.0.3", 80, ZONE("b,a")});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80 10.0.0.3:80");
	/* One more, by its change alone. */
	PUBLISH("web", {"10.0.0.1", 80, ZONE("a")}, {"10.0.0.2", 80, ZONE("a")},
		{"10.0.0.3", 80, ZONE("b,a")});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80 10.0.0.3:80 10.0.0.2:80");
}

Test(policy, K58_hints_for_other_zones_only_are_not_followed)
{
	load();
	put_node("node-a", "b");
	put(service("web", "10.96.0.1", 80));
	PUBLISH("web", {"10.0.0.1", 80, ZONE("a")}, {"10.0.0.2", 80, ZONE("ab")});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80 10.0.0.2:80");
}

Test(policy, K58_a_backend_without_hints_makes_all_of_them_count_again)
{
	load();
	put_node("node-a", "a");
	put(service("web", "10.96.0.1", 80));
	PUBLISH("web", {"10.0.0.1", 80, ZONE("a")}, {"10.0.0.2", 80, ZONE("b")});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80");
	PUBLISH("web", {"10.0.0.1", 80, ZONE("a")}, {"10.0.0.2", 80, ZONE("b")}, {"10.0.0.3", 80});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80 10.0.0.2:80 10.0.0.3:80");
	PUBLISH("web", {"10.0.0.1", 80, ZONE("a")}, {"10.0.0.2", 80, ZONE("b")});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80");
}

Test(policy, hints_mean_nothing_without_a_zone_and_with_local)
{
	struct service *s = service("web", "10.96.0.1", 80);

	load();
	put(s);
	PUBLISH("web", {"10.0.0.1", 80, "", 0, 0, PB_BACKEND_LOCAL, "b"},
		{"10.0.0.2", 80, ZONE("a")});
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80 10.0.0.2:80");
	/* The node learns its zone, and loses it. */
	put_node("node-a", "a");
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.2:80");
	s = copy_of(s);
	s->s.flags = PB_SERVICE_INTERNAL_LOCAL;
	put(s);
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.1:80");
	s = copy_of(s);
	s->s.flags = 0;
	put(s);
	put_node("node-a", "");
	cr_assert_str_eq(behind("10.96.0.1", 80), "10.0.0.2:80 10.0.0.1:80");
}

/* ---- session affinity ---- */

static struct service *sticky(uint32_t seconds)
{
	struct service *s = node_port("web", "10.96.0.1", 80, 30080);

	s->s.flags = PB_SERVICE_AFFINITY_CLIENT_IP;
	s->s.affinity_seconds = seconds;
	return s;
}

Test(policy, K34_affinity_is_in_every_entry_of_its_service)
{
	load();
	put(sticky(10));
	PUBLISH("web", {"10.0.0.1", 80});
	cr_assert_eq(entry("10.96.0.1", 80).affinity_s, 10);
	cr_assert_eq(entry("0.0.0.0", 30080).affinity_s, 10);
	cr_assert_neq(entry("0.0.0.0", 30080).affinity_id, entry("10.96.0.1", 80).affinity_id,
		      "K36d");
}

/* Sockets know a frontend by its id: those that are connected must not lose its name. */
Test(policy, K36b_K36c_affinity_that_is_switched_finds_nothing_old_and_keeps_the_id)
{
	struct pb_svc sticks, free_again, other;

	load();
	put(sticky(10));
	PUBLISH("web", {"10.0.0.1", 80});
	sticks = entry("10.96.0.1", 80);
	cr_assert_neq(sticks.affinity_id, 0);
	put(sticky(20));
	cr_assert_eq(entry("10.96.0.1", 80).affinity_id, sticks.affinity_id,
		     "another time isn't another mind");
	cr_assert_eq(entry("10.96.0.1", 80).affinity_s, 20);
	put(node_port("web", "10.96.0.1", 80, 30080));
	free_again = entry("10.96.0.1", 80);
	cr_assert_eq(free_again.affinity_s, 0);
	cr_assert_eq(free_again.affinity_id, 0);
	put(sticky(10));
	other = entry("10.96.0.1", 80);
	cr_assert_neq(other.affinity_id, 0);
	cr_assert_neq(other.affinity_id, sticks.affinity_id);
	cr_assert_eq(free_again.id, sticks.id);
	cr_assert_eq(other.id, sticks.id);
}

Test(policy, affinity_out_of_bounds_is_the_default_and_said)
{
	load();
	put(sticky(86401));
	PUBLISH("web", {"10.0.0.1", 80});
	cr_assert_eq(entry("10.96.0.1", 80).affinity_s, 10800);
	cr_assert(logged("timeoutSeconds must be 1 to 86400"));
}

Test(policy, K36_a_backend_that_left_is_no_pools)
{
	struct pb_svc_key key = key_of("10.96.0.1", 80, IPPROTO_TCP);
	struct pb_svc_slot slot;
	struct pb_svc_backend b;
	struct pb_svc svc;

	load();
	put(sticky(10));
	PUBLISH("web", {"10.0.0.1", 80}, {"10.0.0.2", 80});
	svc = entry("10.96.0.1", 80);
	cr_assert_eq(pb_fake_map_get(fake, "kpr_slots", &svc.base, &slot), 0);
	PUBLISH("web", {"10.0.0.2", 80});
	cr_assert_eq(pb_fake_map_get(fake, "kpr_backends", &slot.backend, &b), 0);
	cr_assert_eq(b.pool, 0);
	svc = entry("10.96.0.1", 80);
	cr_assert_eq(backend_in(&key, &svc, 0).pool, slot.pool);
	/* Also the last one, and when the Service goes. */
	cr_assert_eq(pb_fake_map_get(fake, "kpr_slots", &svc.base, &slot), 0);
	publish_n("web", NULL, 0);
	cr_assert_eq(pb_fake_map_get(fake, "kpr_backends", &slot.backend, &b), 0);
	cr_assert_eq(b.pool, 0);
}
