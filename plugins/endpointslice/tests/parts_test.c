/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Parts: what a change of one slice costs, who has a backend that several slices show, in which
 * order changes are told, and that none of it depends on the order of the events.
 */
#include "harness.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

TestSuite(parts, .init = harness_setup, .fini = harness_teardown);

/* ---- the cost of a change ---- */

/* n ready endpoints from 10.0.0.0 plus `first` on. */
static struct slice *large_slice(const struct slice *old, uint32_t first, uint32_t n)
{
	struct slice *s = old ? next_of(old, NULL) : slice_of("ns", "web", "", 80, NULL);

	s->endpoints = harness_make(n * sizeof(*s->endpoints));
	s->s.endpoints = s->endpoints;
	s->s.n_endpoints = n;
	for (uint32_t i = 0; i < n; i++) {
		uint32_t a = first + i;

		s->endpoints[i] = endpoint("10.0.0.0", READY, "");
		s->endpoints[i].addr.bytes[1] = (uint8_t)(a >> 16);
		s->endpoints[i].addr.bytes[2] = (uint8_t)(a >> 8);
		s->endpoints[i].addr.bytes[3] = (uint8_t)a;
	}
	return s;
}

Test(parts, E37_a_change_of_one_slice_costs_what_the_slice_costs)
{
	struct slice *slices[200];
	struct es_counts before, after;

	check_heads = false;
	for (uint32_t i = 0; i < 200; i++) {
		slices[i] = large_slice(NULL, i * 100, 100);
		put(slices[i]);
	}
	open_store();
	cr_assert_eq(head("ns/web")->n_backends, 20000);
	cr_assert_eq(head("ns/web")->n_parts, 200);
	pass(1000);
	before = es_store_counts(store);
	/* Given a Service of 20,000 backends, when one address of one slice changes. */
	replace(slices[77], large_slice(slices[77], 20000, 100));
	after = es_store_counts(store);
	/* Then its part and the head are published, after looking at old, new and merged. */
	cr_assert_eq(after.publications - before.publications, 2);
	cr_assert_leq(after.work - before.work, 500, "%lu", after.work - before.work);
	cr_assert_eq(head("ns/web")->n_backends, 20000);
}

static void count_change(void *arg, void *part)
{
	(void)part;
	++*(uint32_t *)arg;
}

/* Whoever writes a slice chooses ports and addresses, also such as differ in the same bits. */
Test(parts, E37_ports_and_addresses_that_were_chosen_for_it_do_not_crowd_the_index)
{
	enum { N_PORTS = 64, N_ENDPOINTS = 1024 };
	uint32_t run = 0, longest = 0, number, changes = 0;
	uint64_t work = 0;
	struct es_index ix = {.seed = 0x123456789abcdef,
			      .work = &work,
			      .changed = count_change,
			      .arg = &changes};
	struct slice *s = slice_of("ns", "web", "", 80, NULL);
	struct pb_slice_port *ports = harness_make(N_PORTS * sizeof(*ports));

	s->endpoints = harness_make(N_ENDPOINTS * sizeof(*s->endpoints));
	s->s.endpoints = s->endpoints;
	s->s.n_endpoints = N_ENDPOINTS;
	s->s.ports = ports;
	s->s.n_ports = N_PORTS;
	for (uint32_t i = 0; i < N_PORTS; i++)
		ports[i] = (struct pb_slice_port){.name = "",
						  .port = (uint16_t)(i + 1),
						  .protocol = 6};
	for (uint32_t i = 0; i < N_ENDPOINTS; i++) {
		s->endpoints[i] = endpoint("10.0.0.0", READY, "");
		s->endpoints[i].addr.v4 = i << 16;
	}
	cr_assert_eq(es_index_join(&ix, s, &number), 0);
	cr_assert_eq(es_index_put(&ix, number, &s->s), 0);
	cr_assert_eq(ix.used, N_PORTS * N_ENDPOINTS);
	for (uint32_t i = 0; i < ix.n_slots; i++) {
		run = ix.slots[i].slice ? run + 1 : 0;
		longest = run > longest ? run : longest;
	}
	/* Half full and evenly spread: some dozens. */
	cr_assert_lt(longest, 500, "%u neighbours", longest);
	cr_assert_eq(changes, 0);
	es_index_free(&ix);
}

/* Given the best slice last, so that each one takes all backends over. */
Test(parts, E37_backends_that_very_many_slices_show_cost_each_slice_no_more_than_a_few)
{
	enum { N_SLICES = 200, N_EACH = 100 };
	char name[16];

	check_heads = false;
	for (uint32_t i = 0; i < N_SLICES; i++) {
		struct slice *s = large_slice(NULL, 0, N_EACH);

		snprintf(name, sizeof(name), "s%03u", N_SLICES - i);
		s->s.meta.name = harness_make(sizeof(name));
		memcpy((char *)s->s.meta.name, name, sizeof(name));
		put(s);
	}
	open_store();
	cr_assert_eq(head("ns/web")->n_backends, N_EACH);
	cr_assert_eq(head("ns/web")->n_parts, 1);
	cr_assert_eq(es_store_counts(store).duplicates, (N_SLICES - 1) * N_EACH);
	cr_assert_leq(es_store_counts(store).work, 10 * N_SLICES * N_EACH, "%lu",
		      es_store_counts(store).work);
}

Test(parts, E37_a_double_costs_the_two_slices_that_show_it)
{
	struct es_counts before, after;
	struct slice *s = NULL;

	check_heads = false;
	for (uint32_t i = 0; i < 50; i++) {
		s = large_slice(NULL, i * 100, 100);
		put(s);
	}
	open_store();
	pass(1000);
	before = es_store_counts(store);
	/* Fifty of the last slice's backends are now the first one's. */
	replace(s, large_slice(s, 50, 100));
	pass(1000);
	after = es_store_counts(store);
	cr_assert_leq(after.work - before.work, 1000, "%lu", after.work - before.work);
	cr_assert_eq(after.duplicates, 100);
	cr_assert_eq(head("ns/web")->n_backends, 4900);
}

Test(parts, a_service_with_one_slice_has_no_index)
{
	struct slice *one = SLICE("10.0.0.1"), *two = SLICE("10.0.0.1");

	open_store();
	put(one);
	cr_assert_eq(es_store_counts(store).duplicates, 0);
	put(two);
	cr_assert_eq(es_store_counts(store).duplicates, 1);
	gone(one);
	cr_assert_eq(es_store_counts(store).duplicates, 0);
	pass(200);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/");
}

/* ---- who has a double ---- */

static struct slice *in_state(struct slice *s, uint32_t conditions)
{
	for (uint32_t i = 0; i < s->s.n_endpoints; i++)
		s->endpoints[i].conditions = conditions;
	return s;
}

Test(parts, E3_a_double_is_in_the_slice_whose_name_comes_first)
{
	open_store();
	put(named("b", SLICE("10.0.0.1", "10.0.0.2")));
	put(named("a", SLICE("10.0.0.1")));
	pass(1000);
	cr_assert_eq(part("ns/web/a")->n, 1);
	cr_assert_eq(part("ns/web/b")->n, 1);
	cr_assert_eq(head("ns/web")->n_backends, 2);
}

Test(parts, E3_a_double_is_in_the_slice_that_shows_the_better_state)
{
	struct slice *a = in_state(named("a", SLICE("10.0.0.1")), STOPPING);
	struct slice *draining = in_state(next_of(a, ADDRS("10.0.0.1")), PB_ENDPOINT_TERMINATING);

	open_store();
	put(a);
	put(in_state(named("b", SLICE("10.0.0.1")), STOPPING));
	pass(1000);
	cr_assert_not_null(part("ns/web/a"));
	cr_assert_null(part("ns/web/b"), "it has nothing of its own");
	order();
	replace(a, draining);
	pass(1000);
	/* The one that gains comes before the one that loses. */
	cr_assert_str_eq(order(), "ns/web/b -ns/web/a ns/web");
	cr_assert_str_eq(shown("ns/web"), "~10.0.0.1:80/");
}

Test(parts, E3_when_the_owner_goes_the_other_slice_gains)
{
	struct slice *a = named("a", SLICE("10.0.0.1", "10.0.0.2"));

	open_store();
	put(a);
	put(named("b", SLICE("10.0.0.1", "10.0.0.3")));
	pass(1000);
	order();
	gone(a);
	pass(1000);
	cr_assert_str_eq(order(), "ns/web/b -ns/web/a ns/web");
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/ *10.0.0.3:80/");
}

Test(parts, a_backend_that_moves_is_never_in_none_of_the_slices)
{
	struct slice *a = named("a", SLICE("10.0.0.1", "10.0.0.2"));
	struct slice *b = named("b", SLICE("10.0.0.3"));

	open_store();
	put(a);
	put(b);
	pass(1000);
	put(named("c", SLICE("10.0.0.9")));
	order();
	/* Both within the 100 ms after a publication: the loss comes first, the gain is told first.
	 */
	replace(a, next_of(a, ADDRS("10.0.0.1")));
	replace(b, next_of(b, ADDRS("10.0.0.2", "10.0.0.3")));
	pass(1000);
	cr_assert_str_eq(order(), "ns/web/b ns/web/a ns/web");
}

Test(parts, E32_the_gaining_service_is_told_first_even_when_it_has_to_wait)
{
	struct slice *blue = named("m", slice_of("ns", "blue", "", 80, ADDRS("10.0.0.1")));
	struct slice *green = next_of(blue, ADDRS("10.0.0.1"));

	green->s.service = "green";
	open_store();
	put(blue);
	put(named("b", slice_of("ns", "blue", "", 80, ADDRS("10.0.0.2"))));
	pass(1000);
	/* Given that green was published just now, blue long ago, */
	put(named("g", slice_of("ns", "green", "", 80, ADDRS("10.0.0.3"))));
	order();
	replace(blue, green);
	pass(1000);
	cr_assert_str_eq(order(), "ns/green/m ns/green -ns/blue/m ns/blue");
}

Test(parts, a_double_inside_a_slice_is_one_backend)
{
	struct slice *s = SLICE("10.0.0.1", "10.0.0.1");

	s->endpoints[0].conditions = STOPPING;
	open_store();
	put(s);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/");
	put(in_state(named("a", SLICE("10.0.0.1")), STOPPING));
	pass(1000);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/");
}

/* ---- names and limits ---- */

Test(parts, E38_names_that_could_be_taken_for_another_key_are_refused)
{
	static const struct {
		const char *ns, *service, *slice;
	} cases[] = {
		{"ns", "web/x", "y"}, {"ns", "web", "x/y"}, {"n/s", "web", "x"},
		{"", "web", "x"},     {"ns", "web", ""},    {"ns", "we b", "x"},
	};

	open_store();
	for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		struct slice *s = named(cases[i].slice, slice_of(cases[i].ns, cases[i].service, "",
								 80, ADDRS("10.0.0.1")));

		cr_expect_eq(es_store_slice(store, NULL, &s->s, now_ms), -22, "case %zu", i);
		cr_expect_eq(es_store_slice(store, &s->s, NULL, now_ms), 0);
	}
	pass(1000);
	cr_assert_str_eq(order(), "");
}

Test(parts, E38_a_slice_named_endpoints_is_not_the_endpoints)
{
	struct pb_endpoints_subset subsets[] = {subset("10.0.0.1", 80)};
	struct slice *s = named("endpoints", SLICE("10.0.0.2"));

	open_store();
	es_store_endpoints(store, NULL, endpoints_of("web", subsets, 1), now_ms);
	put(s);
	pass(1000);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.2:80/");
	gone(s);
	pass(1000);
	cr_assert_str_eq(shown("ns/web"), "*10.0.0.1:80/");
	cr_assert(head("ns/web")->flags & PB_BACKENDS_FROM_ENDPOINTS);
}

Test(parts, E39_an_object_is_read_up_to_what_the_api_allows)
{
	struct slice *s = large_slice(NULL, 0, 60000);

	s->ports[1] = (struct pb_slice_port){.name = "b", .port = 81, .protocol = IPPROTO_TCP};
	s->s.n_ports = 2;
	check_heads = false;
	open_store();
	put(s);
	cr_assert_eq(head("ns/web")->n_backends, ES_PLACES_MAX);
	put(SLICE("10.0.0.1"));
	pass(1000);
	cr_assert_eq(head("ns/web")->n_backends, ES_PLACES_MAX);
}

/* ---- failures ---- */

Test(parts, a_publication_that_fails_is_told_again_before_the_head)
{
	struct slice *a = named("a", SLICE("10.0.0.1"));

	open_store();
	put(a);
	put(named("b", SLICE("10.0.0.2")));
	pass(1000);
	order();
	fail_at = 1;
	replace(a, next_of(a, ADDRS("10.0.0.3")));
	cr_assert_str_eq(order(), "", "neither the part nor the head");
	pass(ES_RETRY_MS);
	cr_assert_str_eq(order(), "ns/web/a ns/web");
}

Test(parts, the_first_view_is_not_complete_while_a_publication_fails)
{
	put(SLICE("10.0.0.1"));
	fail_at = 2;
	open_store();
	cr_assert_not(es_store_drained(store));
	pass(ES_RETRY_MS);
	cr_assert(es_store_drained(store));
	cr_assert_eq(head("ns/web")->n_backends, 1);
}

/* ---- any order of events ---- */

static uint64_t random_state;

static uint32_t random_below(uint32_t n)
{
	random_state ^= random_state << 13;
	random_state ^= random_state >> 7;
	random_state ^= random_state << 17;
	return (uint32_t)(random_state >> 33) % n;
}

#define N_SLICES 12
#define N_SERVICES 3

static const char *const services[N_SERVICES] = {"web", "db", "dns"};
static const uint32_t conditions[] = {READY, READY, STOPPING, PB_ENDPOINT_TERMINATING, 0};

/* Few addresses and ports, so that doubles are frequent. */
static struct slice *random_slice(unsigned number)
{
	static const char *const names[N_SLICES] = {"a", "b", "c", "d", "e", "f",
						    "g", "h", "i", "j", "k", "endpoints"};
	struct slice *s = slice_of("ns", services[random_below(N_SERVICES)],
				   random_below(2) ? "http" : "", 80, NULL);

	s->s.meta.name = names[number];
	s->s.n_endpoints = random_below(8);
	s->endpoints = harness_make(8 * sizeof(*s->endpoints));
	s->s.endpoints = s->endpoints;
	s->s.n_ports = 1 + random_below(2);
	s->ports[1] = (struct pb_slice_port){.name = "metrics",
					     .port = (uint16_t)(90 + random_below(2)),
					     .protocol = 6};
	for (uint32_t i = 0; i < s->s.n_endpoints; i++) {
		s->endpoints[i] = endpoint("10.0.0.0", conditions[random_below(5)],
					   random_below(2) ? "node-a" : "");
		s->endpoints[i].addr.bytes[3] = (uint8_t)random_below(10);
	}
	return s;
}

static struct pb_kube_endpoints *random_endpoints(unsigned service)
{
	struct pb_endpoints_subset *subsets = harness_make(sizeof(*subsets));
	char addr[16];

	snprintf(addr, sizeof(addr), "10.0.1.%u", random_below(4));
	subsets[0] = subset(addr, 80);
	return endpoints_of(services[service], subsets, random_below(2));
}

/* The objects as they are at the end. */
struct world {
	struct slice *slices[N_SLICES];
	struct pb_kube_endpoints *endpoints[N_SERVICES];
	bool exists[N_SERVICES];
	enum es_policy policy;
};

/* The core frees what was replaced: whoever looks at it again shall notice. */
static void wipe(struct slice *s)
{
	if (!s)
		return;
	memset(s->endpoints, 0xff, s->s.n_endpoints * sizeof(*s->endpoints));
	memset(s, 0xff, sizeof(*s));
}

static void random_event(struct world *w)
{
	unsigned i = random_below(N_SLICES), v = random_below(N_SERVICES);
	struct slice *slice = random_below(4) ? random_slice(i) : NULL;
	struct pb_kube_endpoints *endpoints = random_below(3) ? random_endpoints(v) : NULL;

	switch (random_below(8)) {
	case 0:
		w->exists[v] = !w->exists[v];
		es_store_service(store, "ns", services[v], w->exists[v], now_ms);
		break;
	case 1:
		if (w->endpoints[v] || endpoints)
			es_store_endpoints(store, w->endpoints[v], endpoints, now_ms);
		w->endpoints[v] = endpoints;
		break;
	case 2:
		if (random_below(10) == 0)
			es_store_hold(store);
		break;
	case 3:
		w->policy = 1 + random_below(3);
		es_store_open(store, w->policy, now_ms);
		break;
	default:
		if (w->slices[i] || slice)
			es_store_slice(store, w->slices[i] ? &w->slices[i]->s : NULL,
				       slice ? &slice->s : NULL, now_ms);
		wipe(w->slices[i]);
		w->slices[i] = slice;
	}
	pass(random_below(3) ? 0 : random_below(150));
}

/* The same objects in another order, published once. */
static struct es_store *fresh(const struct world *w, struct record **ret_records)
{
	struct es_store *s = harness_store(ret_records);
	unsigned start = random_below(N_SLICES);

	for (unsigned i = 0; i < N_SERVICES; i++) {
		if (w->exists[i])
			es_store_service(s, "ns", services[i], true, 0);
		if (w->endpoints[i])
			es_store_endpoints(s, NULL, w->endpoints[i], 0);
	}
	for (unsigned i = 0; i < N_SLICES; i++) {
		const struct slice *slice = w->slices[(start + 5 * i) % N_SLICES];

		if (slice)
			es_store_slice(s, NULL, &slice->s, 0);
	}
	es_store_open(s, w->policy, 0);
	es_store_run(s, harness_clock, NULL, UINT64_MAX);
	return s;
}

static void expect_same(struct record *a, struct record *b, uint64_t seed)
{
	for (struct record *r = a; r; r = r->hh.next) {
		const struct record *other = harness_record(&b, r->key);

		if (!r->value && !other->value)
			continue;
		cr_assert(r->value && other->value && r->len == other->len &&
				  memcmp(r->value, other->value, r->len) == 0,
			  "seed %#lx: %s is not what the objects say", seed, r->key);
	}
}

/* Straight from the rules: every backend in exactly the part that must have it. */
static bool better(const struct slice *a, const struct slice *b, uint8_t state_a, uint8_t state_b)
{
	return state_a != state_b ? state_a < state_b : strcmp(a->s.meta.name, b->s.meta.name) < 0;
}

static uint8_t state_in(const struct slice *s, const struct slice *like, uint32_t port,
			uint8_t last)
{
	uint8_t best = 0;

	for (uint32_t p = 0; p < s->s.n_ports; p++)
		for (uint32_t i = 0; i < s->s.n_endpoints; i++) {
			uint8_t state = es_state(s->endpoints[i].conditions);

			if (s->ports[p].port == like->ports[port].port &&
			    strcmp(s->ports[p].name, like->ports[port].name) == 0 &&
			    s->endpoints[i].addr.bytes[3] == last && state &&
			    (!best || state < best))
				best = state;
		}
	return best;
}

static bool part_has(const struct slice *s, uint32_t port, uint8_t last, uint8_t state)
{
	char key[64];
	const struct pb_backends *v;

	snprintf(key, sizeof(key), "ns/%s/%s", s->s.service, s->s.meta.name);
	v = part(key);
	for (uint32_t i = 0; v && i < v->n; i++)
		if (v->backend[i].addr.bytes[3] == last && v->backend[i].state == state &&
		    v->backend[i].port == s->ports[port].port &&
		    strcmp(pb_backends_string(v, v->backend[i].port_name), s->ports[port].name) ==
			    0)
			return true;
	return false;
}

static void expect_rules(const struct world *w, uint64_t seed)
{
	for (unsigned i = 0; i < N_SLICES; i++) {
		const struct slice *s = w->slices[i];

		for (uint32_t place = 0; s && place < s->s.n_ports * s->s.n_endpoints; place++) {
			uint32_t port = place / s->s.n_endpoints;
			uint8_t last = s->endpoints[place % s->s.n_endpoints].addr.bytes[3];
			uint8_t state = state_in(s, s, port, last);
			bool mine = state != 0;

			for (unsigned k = 0; k < N_SLICES; k++) {
				const struct slice *o = w->slices[k];
				uint8_t theirs = 0;

				if (o && k != i && o->s.service == s->s.service)
					theirs = state_in(o, s, port, last);
				if (theirs && better(o, s, theirs, state))
					mine = false;
			}
			if (state)
				cr_assert_eq(part_has(s, port, last, state), mine,
					     "seed %#lx: 10.0.0.%u of %s", seed, last,
					     s->s.meta.name);
		}
	}
}

static void one_run(uint64_t seed)
{
	struct world w = {.policy = ES_FROM_BOTH};
	struct record *fresh_records;
	struct es_store *other;

	random_state = seed;
	harness_setup();
	for (unsigned i = 0; i < 150; i++)
		random_event(&w);
	es_store_open(store, w.policy, now_ms);
	pass(5000);
	cr_assert(es_store_drained(store), "seed %#lx", seed);
	other = fresh(&w, &fresh_records);
	expect_same(records, fresh_records, seed);
	expect_same(fresh_records, records, seed);
	if (w.policy == ES_FROM_SLICES || w.policy == ES_FROM_BOTH)
		expect_rules(&w, seed);
	es_store_free(other);
	harness_forget(&fresh_records);
	harness_teardown();
}

Test(any_order, E40_any_sequence_of_events_ends_in_what_the_objects_say)
{
	/* Other sequences with every run; a failure names the seed, which can be put here. */
	uint64_t first = (uint64_t)time(NULL) * 1000003;

	for (uint64_t i = 0; i < 300; i++)
		one_run((first + i) * 0x9e3779b97f4a7c15ULL | 1);
}
