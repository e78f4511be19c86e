/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cases of docs/behaviour/endpointslice.md that the store and the merge decide, without a
 * host: objects in, published values out, time by hand.
 */
#include "harness.h"

#include <stdio.h>
#include <string.h>

TestSuite(endpointslice, .init = harness_setup, .fini = harness_teardown);

/* ---- merging ---- */

Test(endpointslice, E1_two_slices_give_two_backends)
{
	open_store();
	put(SLICE("10.0.0.2"));
	put(SLICE("10.0.0.1"));
	pass(100);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/ *10.0.0.2:80/");
}

Test(endpointslice, E2_same_address_with_two_ports_keeps_both)
{
	open_store();
	put(slice_of("ns", "web", "a", 8080, ADDRS("10.0.0.1")));
	put(slice_of("ns", "web", "b", 9090, ADDRS("10.0.0.1")));
	pass(100);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:8080/a *10.0.0.1:9090/b");
}

Test(endpointslice, E2_same_address_and_port_name_with_two_numbers_keeps_both)
{
	open_store();
	put(slice_of("ns", "web", "a", 8080, ADDRS("10.0.0.1")));
	put(slice_of("ns", "web", "a", 9090, ADDRS("10.0.0.1")));
	pass(100);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:8080/a *10.0.0.1:9090/a");
}

Test(endpointslice, E3_same_address_same_port_in_two_slices_delete_one)
{
	struct slice *first = SLICE("10.0.0.1");

	open_store();
	put(first);
	put(SLICE("10.0.0.1"));
	pass(100);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/");
	gone(first);
	pass(1000);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/");
}

Test(endpointslice, E4_a_slice_replaced_by_delete_then_add_never_shows_an_empty_service)
{
	struct slice *first = SLICE("10.0.0.1");
	unsigned times;

	open_store();
	put(first);
	pass(1000);
	times = at("ns/web")->times;
	gone(first);
	pass(99);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/", "waits for the successor");
	put(SLICE("10.0.0.2"));
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.2:80/", "and not a moment longer");
	cr_assert_eq(at("ns/web")->times, times + 1);
}

Test(endpointslice, E4_a_slice_replaced_by_add_then_delete_never_shows_an_empty_service)
{
	struct slice *first = SLICE("10.0.0.1");

	open_store();
	put(first);
	pass(1000);
	put(SLICE("10.0.0.2"));
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/ *10.0.0.2:80/");
	gone(first);
	pass(100);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.2:80/");
}

Test(endpointslice, E4_without_a_successor_the_service_is_empty_after_100_ms)
{
	struct slice *first = SLICE("10.0.0.1");

	es_store_service(store, "ns", "web", true, now_ms);
	open_store();
	pass(1000);
	put(first);
	pass(50);
	/* Also when the change had to wait for its turn anyway: the 100 ms begin then. */
	gone(first);
	pass(149);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/");
	pass(1);
	cr_assert_str_eq(shown("ns/web"), "");
	cr_assert_eq(head("ns/web")->n_backends, 0);
}

Test(endpointslice, E4_a_new_service_does_not_refuse_connections_before_its_slices_are_in)
{
	open_store();
	es_store_service(store, "ns", "web", true, now_ms);
	pass(99);
	cr_assert_str_eq(shown("ns/web"), "never published");
	put(SLICE("10.0.0.1"));
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/");
	es_store_service(store, "ns", "empty", true, now_ms);
	pass(100);
	cr_assert_str_eq(shown("ns/empty"), "");
}

static const struct {
	const char *name;
	uint32_t conditions;
	const char *shown;
} condition_cases[] = {
	{"E5 ready (or missing)", READY, "*10.0.0.1:80/"},
	{"E6 not ready", 0, ""},
	{"E6 not ready, serving", PB_ENDPOINT_SERVING, ""},
	{"K60 ready, serving, terminating: publishNotReadyAddresses",
	 READY | PB_ENDPOINT_TERMINATING, "*10.0.0.1:80/"},
	{"serving, terminating", STOPPING, "~10.0.0.1:80/"},
	{"E31 terminating, not serving", PB_ENDPOINT_TERMINATING, "-10.0.0.1:80/"},
};

Test(endpointslice, E5_E6_E31_K60_conditions_decide_the_state)
{
	open_store();
	for (size_t i = 0; i < sizeof(condition_cases) / sizeof(condition_cases[0]); i++) {
		struct slice *s = SLICE("10.0.0.1");

		s->endpoints[0].conditions = condition_cases[i].conditions;
		put(s);
		pass(200);
		cr_expect_str_eq(shown("ns/web"), condition_cases[i].shown, "%s: %s",
				 condition_cases[i].name, shown("ns/web"));
		gone(s);
		pass(200);
	}
}

Test(endpointslice, E9_E11_a_port_without_number_or_protocol_is_left_out)
{
	struct slice *s = SLICE("10.0.0.1");

	s->ports[1] = (struct pb_slice_port){.name = "any", .protocol = IPPROTO_TCP};
	s->ports[2] = (struct pb_slice_port){.name = "foo", .port = 81, .protocol = 0};
	s->s.n_ports = 3;
	open_store();
	put(s);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/");
}

Test(endpointslice, E12_E13_a_dual_stack_service_keeps_families_apart)
{
	open_store();
	put(named("six", SLICE("fd00::1")));
	put(named("four", SLICE("10.0.0.1")));
	pass(100);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/ *fd00::1:80/");
	cr_assert_eq(part("ns/web/four")->backend[0].family, 4);
	cr_assert_eq(part("ns/web/six")->backend[0].family, 6);
}

Test(endpointslice, E16_a_slice_without_a_service_name_is_ignored)
{
	struct slice *s = slice_of("ns", "", "", 80, ADDRS("10.0.0.1"));

	open_store();
	put(s);
	pass(1000);
	cr_assert_str_eq(shown("ns/"), "never published");
	gone(s);
}

Test(endpointslice, E17_E22_K49_a_slice_of_names_is_ignored)
{
	struct slice *s = SLICE("10.0.0.1");

	s->s.family = 0;
	open_store();
	put(s);
	pass(1000);
	cr_assert_str_eq(shown("ns/web"), "never published");
}

Test(endpointslice, E18_a_slice_before_its_service_is_published)
{
	open_store();
	put(SLICE("10.0.0.1"));
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/");
	es_store_service(store, "ns", "web", true, now_ms);
	pass(1000);
	cr_assert_eq(at("ns/web")->times, 1);
}

Test(endpointslice, E28_an_endpoint_without_a_node_is_not_local)
{
	struct slice *s = SLICE("10.0.0.1", "10.0.0.2", "10.0.0.3");

	s->endpoints[1].node = "node-a";
	s->endpoints[2].node = "node-b";
	open_store();
	put(s);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/ *L10.0.0.2:80/ *10.0.0.3:80/");
}

Test(endpointslice, E29_a_slice_without_endpoints_is_a_service_without_backends)
{
	open_store();
	put(slice_of("ns", "web", "", 80, NULL));
	cr_assert_str_eq(shown("ns/web"), "");
}

Test(endpointslice, E32_a_renamed_service_label_moves_the_slice)
{
	struct slice *old = slice_of("ns", "blue", "", 80, ADDRS("10.0.0.1"));
	struct slice *green = next_of(old, ADDRS("10.0.0.1"));

	open_store();
	put(old);
	pass(1000);
	green->s.service = "green";
	replace(old, green);
	cr_assert_str_eq(shown("ns/green"), "*10.0.0.1:80/");
	pass(100);
	cr_assert_str_eq(shown("ns/blue"), "withdrawn");
}

Test(endpointslice, E33_the_same_name_in_two_namespaces_is_two_services)
{
	struct slice *a = slice_of("a", "web", "", 80, ADDRS("10.0.0.1"));

	open_store();
	put(a);
	put(slice_of("b", "web", "", 80, ADDRS("10.0.0.2")));
	es_store_service(store, "a", "web", true, now_ms);
	pass(1000);
	gone(a);
	pass(1000);
	cr_assert_str_eq(shown("a/web"), "");
	cr_assert_str_eq(shown("b/web"), "*10.0.0.2:80/");
}

Test(endpointslice, a_double_takes_the_better_state)
{
	struct slice *stopping = SLICE("10.0.0.1");

	stopping->endpoints[0].conditions = STOPPING;
	open_store();
	put(stopping);
	put(SLICE("10.0.0.1"));
	pass(100);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/");
}

Test(endpointslice, the_order_of_the_slices_does_not_change_the_value)
{
	struct slice *a = slice_of("ns", "web", "b", 80, ADDRS("10.0.0.2"));
	struct slice *b = slice_of("ns", "web", "a", 81, ADDRS("10.0.0.1"));

	a->endpoints[0].node = "node-x";
	b->endpoints[0].zone = "zone-y";
	open_store();
	put(a);
	put(b);
	pass(1000);
	replace(a, a); /* moves it behind the other */
	pass(1000);
	/* Equal bytes are not published again: the third change was none. */
	cr_assert_eq(at("ns/web")->times, 2);
}

/* ---- rhythm ---- */

Test(endpointslice, E34_a_thousand_changes_a_second_are_ten_publications)
{
	static const char *const addrs[] = {"10.0.0.1", "10.0.0.2"};
	struct slice *old = SLICE("10.0.0.1");
	unsigned before, last;
	uint64_t last_ms;

	open_store();
	put(old);
	pass(1000);
	before = last = at("ns/web")->times;
	last_ms = now_ms;
	for (int i = 0; i < 1000; i++) {
		struct slice *s =
			next_of(old, ADDRS(addrs[i % 2], i % 3 ? "10.0.0.3" : "10.0.0.4"));

		replace(old, s);
		old = s;
		pass(i < 999);
		if (at("ns/web")->times != last)
			last_ms = now_ms;
		last = at("ns/web")->times;
		/* Events don't put a publication off: nothing waits as long as they go on. */
		cr_assert_leq(now_ms - last_ms, 2 * ES_INTERVAL_MS);
	}
	cr_assert_leq(at("ns/web")->times - before, 10);
	cr_assert_geq(at("ns/web")->times - before, 5);
	pass(100);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.2:80/ *10.0.0.4:80/");
}

Test(endpointslice, a_change_of_a_quiet_service_is_published_at_once)
{
	struct slice *old = SLICE("10.0.0.1");

	open_store();
	put(old);
	pass(1000);
	replace(old, next_of(old, ADDRS("10.0.0.2")));
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.2:80/");
}

Test(endpointslice, nothing_is_published_before_all_lists_are_in)
{
	put(SLICE("10.0.0.1"));
	pass(1000);
	cr_assert_str_eq(shown("ns/web"), "never published");
	put(SLICE("10.0.0.2"));
	open_store();
	cr_assert(es_store_drained(store));
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/ *10.0.0.2:80/");
	cr_assert_eq(at("ns/web")->times, 1);
}

Test(endpointslice, the_first_publication_is_cut_into_turns)
{
	char names[100][8];
	unsigned turns = 0;

	for (int i = 0; i < 100; i++) {
		snprintf(names[i], sizeof(names[i]), "s%d", i);
		put(slice_of("ns", names[i], "", 80, NULL));
	}
	es_store_open(store, ES_FROM_BOTH, now_ms);
	clock_step = 1;
	while (!es_store_drained(store) && turns++ < 1000)
		es_store_run(store, harness_clock, NULL, now_ms + 2);
	cr_assert_geq(turns, 2);
	for (int i = 0; i < 100; i++) {
		char key[16];

		snprintf(key, sizeof(key), "ns/s%d", i);
		cr_assert_eq(at(key)->times, 1);
	}
}

/* ---- Endpoints ---- */

Test(endpointslice, E24_endpoints_cross_addresses_and_ports_only_inside_a_subset)
{
	struct pb_endpoints_subset subsets[] = {subset("10.0.0.1", 80), subset("10.0.0.2", 81)};

	open_store();
	es_store_endpoints(store, NULL, endpoints_of("web", subsets, 2), now_ms);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/ *10.0.0.2:81/");
	cr_assert_eq(es_store_counts(store).from_endpoints, 1);
}

Test(endpointslice, slices_win_over_endpoints_and_are_never_mixed_with_them)
{
	struct pb_endpoints_subset subsets[] = {subset("10.0.0.1", 80)};
	struct slice *s = SLICE("10.0.0.2");

	open_store();
	es_store_endpoints(store, NULL, endpoints_of("web", subsets, 1), now_ms);
	put(s);
	pass(1000);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.2:80/");
	cr_assert_not(head("ns/web")->flags & PB_BACKENDS_FROM_ENDPOINTS);
	gone(s);
	pass(1000);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/");
}

/* ---- the end of a service ---- */

Test(endpointslice, the_last_slice_leaves_an_empty_value_and_the_service_takes_it_along)
{
	struct slice *s = SLICE("10.0.0.1");

	es_store_service(store, "ns", "web", true, now_ms);
	open_store();
	put(s);
	pass(1000);
	gone(s);
	pass(1000);
	cr_assert_str_eq(shown("ns/web"), "");
	es_store_service(store, "ns", "web", false, now_ms);
	pass(1000);
	cr_assert_str_eq(shown("ns/web"), "withdrawn");
	cr_assert_eq(es_store_counts(store).services, 0);
}

Test(endpointslice, slices_that_outlive_their_service_are_kept_until_they_go)
{
	struct slice *s = SLICE("10.0.0.1");

	es_store_service(store, "ns", "web", true, now_ms);
	open_store();
	put(s);
	es_store_service(store, "ns", "web", false, now_ms);
	pass(1000);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/");
	gone(s);
	pass(1000);
	cr_assert_str_eq(shown("ns/web"), "withdrawn");
}
