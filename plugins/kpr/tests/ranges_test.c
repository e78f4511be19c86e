/* SPDX-License-Identifier: Apache-2.0 */
/*
 * loadBalancerSourceRanges: what is in the tries, under which number, and when it goes.
 */
#include <criterion/criterion.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fixture.h"

#define LB "203.0.113.1"

TestSuite(source_ranges, .init = setup, .fini = teardown);

static struct service *limited(const char *name, const char *cluster_ip, const char *lb)
{
	struct service *s = node_port(name, cluster_ip, 80, 30080);

	set_ingress(s, lb, false);
	s->s.flags |= PB_SERVICE_SOURCE_RANGES_GIVEN;
	return s;
}

/* A gone set's entries wait for programs that still look. */
static void settle(void)
{
	pb_fake_advance_ms(fake, 300);
	put(service("other", "10.96.0.99", 99));
	put(service("other", "10.96.0.99", 98));
}

Test(source_ranges, K28_sources_outside_are_kept_from_the_load_balancer_address_only)
{
	struct service *s = limited("web", "10.96.0.1", LB);

	set_external(s, "198.51.100.1");
	set_range(s, "192.0.2.0", 24);
	load();
	put(s);
	PUBLISH("web", {"10.0.0.1", 80});
	cr_assert(let_in(LB, 80, "192.0.2.7"));
	cr_assert_not(let_in(LB, 80, "198.51.100.1"));
	cr_assert_eq(entry("0.0.0.0", 30080).flags & PB_SVC_RANGES, 0);
	cr_assert_eq(entry("198.51.100.1", 80).flags & PB_SVC_RANGES, 0);
	cr_assert_eq(entry("10.96.0.1", 80).flags & PB_SVC_RANGES, 0);
}

Test(source_ranges, K29_without_a_valid_range_nobody_is_let_in)
{
	load();
	put(limited("web", "10.96.0.1", LB));
	PUBLISH("web", {"10.0.0.1", 80});
	cr_assert_not(let_in(LB, 80, "192.0.2.7"));
	cr_assert_not(let_in(LB, 80, "0.0.0.0"));
	cr_assert(logged("loadBalancerSourceRanges has no valid entry"));
}

Test(source_ranges, K28_ranges_of_the_other_family_let_nobody_of_this_one_in)
{
	struct service *s = limited("web", "10.96.0.1", LB);

	set_range(s, "2001:db8::", 32);
	load();
	put(s);
	PUBLISH("web", {"10.0.0.1", 80});
	cr_assert_not(let_in(LB, 80, "192.0.2.7"));
	cr_assert_eq(pb_fake_map_count(fake, "kpr_ranges6"), 1);
	cr_assert(let_in(LB, 80, "2001:db8::1"));
}

Test(source_ranges, bits_behind_the_prefix_and_doubles_do_not_count)
{
	struct service *s = limited("web", "10.96.0.1", LB);

	set_range(s, "192.0.2.99", 25);
	set_range(s, "192.0.2.1", 25);
	set_range(s, "0.0.0.0", 0);
	load();
	put(s);
	PUBLISH("web", {"10.0.0.1", 80});
	cr_assert_eq(pb_fake_map_count(fake, "kpr_ranges4"), 2);
	cr_assert(let_in(LB, 80, "8.8.8.8"));
}

Test(source_ranges, other_ranges_are_another_number_and_the_old_ones_go_after_a_while)
{
	struct service *a = limited("web", "10.96.0.1", LB);
	struct service *b = copy_of(a);
	uint32_t number;

	set_range(a, "192.0.2.0", 24);
	set_range(b, "198.51.100.0", 24);
	load();
	put(a);
	PUBLISH("web", {"10.0.0.1", 80});
	number = entry(LB, 80).ranges;
	put(b);
	cr_assert_neq(entry(LB, 80).ranges, number);
	cr_assert(let_in(LB, 80, "198.51.100.9"));
	cr_assert_not(let_in(LB, 80, "192.0.2.9"));
	cr_assert_eq(pb_fake_map_count(fake, "kpr_ranges4"), 2, "a program may still look");
	settle();
	cr_assert_eq(pb_fake_map_count(fake, "kpr_ranges4"), 1);
	cr_assert(let_in(LB, 80, "198.51.100.9"));
}

Test(source_ranges, they_go_with_the_field_and_with_the_service)
{
	struct service *with = limited("web", "10.96.0.1", LB);
	struct service *without = copy_of(with);

	set_range(with, "192.0.2.0", 24);
	without->s.flags = 0;
	load();
	put(with);
	PUBLISH("web", {"10.0.0.1", 80});
	put(without);
	cr_assert_eq(entry(LB, 80).flags & PB_SVC_RANGES, 0);
	settle();
	cr_assert_eq(pb_fake_map_count(fake, "kpr_ranges4"), 0);
	put(copy_of(with));
	cr_assert(let_in(LB, 80, "192.0.2.7"));
	gone(with);
	settle();
	cr_assert_eq(pb_fake_map_count(fake, "kpr_ranges4"), 0);
}

Test(source_ranges, a_full_map_leaves_the_service_as_it_was)
{
	static const char *const more[] = {"10.1.0.0", "10.2.0.0", "10.3.0.0", "10.4.0.0"};
	struct service *a = limited("a", "10.96.0.1", "203.0.113.1");
	struct service *b = limited("b", "10.96.0.2", "203.0.113.2");
	struct service *c = limited("c", "10.96.0.3", "203.0.113.3");

	for (int i = 0; i < 4; i++) {
		set_range(a, more[i], 16);
		set_range(b, more[i], 16);
	}
	set_range(c, "192.0.2.0", 24);
	b->ports[0].node_port = 30081;
	c->ports[0].node_port = 30082;
	load();
	put(a);
	put(b);
	put(c);
	PUBLISH("a", {"10.0.0.1", 80});
	PUBLISH("b", {"10.0.0.1", 80});
	PUBLISH("c", {"10.0.0.1", 80});
	cr_assert_str_eq(behind("203.0.113.3", 80), "absent");
	cr_assert_str_eq(behind("0.0.0.0", 30082), "absent", "whole or not at all");
	cr_assert(listed("map full, as before"));
	cr_assert(logged("map of source ranges full"));
	cr_assert_eq(pb_fake_map_count(fake, "kpr_ranges4"), 8);
	gone(a);
	pb_fake_advance_ms(fake, 4000);
	cr_assert(let_in("203.0.113.3", 80, "192.0.2.7"));
	cr_assert(let_in("203.0.113.2", 80, "10.4.1.1"));
}

Test(source_ranges, a_restart_takes_them_over_and_drops_what_nobody_names)
{
	struct service *s = limited("web", "10.96.0.1", LB);
	struct pb_svc_range4 lost = {.bits = 56, .ranges = 77};
	uint32_t number;
	uint8_t one = 1;

	set_range(s, "198.51.100.0", 24);
	set_range(s, "192.0.2.0", 24);
	load();
	put(s);
	PUBLISH("web", {"10.0.0.1", 80});
	synced();
	number = entry(LB, 80).ranges;
	cr_assert_eq(pb_fake_map_put(fake, "kpr_ranges4", &lost, &one), 0);
	cr_assert_eq(pb_fake_reload(fake), 0);
	pb_fake_advance_ms(fake, 1000);
	cr_assert_eq(entry(LB, 80).ranges, number);
	cr_assert_eq(writes(), 0);
	cr_assert_eq(pb_fake_map_get(fake, "kpr_ranges4", &lost, &one), -ENOENT);
	cr_assert_eq(pb_fake_map_count(fake, "kpr_ranges4"), 2);
}
