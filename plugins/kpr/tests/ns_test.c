/* SPDX-License-Identifier: Apache-2.0 */
/* Flows from outside: the way to a backend and back, ports, state. One node, its programs alone. */
#include "ns_bed.h"

#include <stdio.h>
#include <unistd.h>

TestSuite(kpr_ns, .init = bed_enter, .fini = bed_leave);

#define SYN PACKET_SYN
#define ACK PACKET_ACK
#define FIN PACKET_FIN
#define RST PACKET_RST
#define IN PB_HOOK_DEV_INGRESS

static const struct bed_service far4 = {NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT,
					.backends = {{FAR4, 8080, false}}};
static const struct bed_service far4_udp = {NODE4, 30053, IPPROTO_UDP, .flags = NODE_PORT,
					    .backends = {{FAR4, 53, false}}};
static const struct bed_service near4 = {NODE4, 30081, IPPROTO_TCP, .flags = NODE_PORT,
					 .backends = {{POD4, 8080, true}}};

/* One packet in each direction: what comes in, and as what it goes out. */
struct way {
	const char *given;
	struct bed_service service;
	const char *client;
	uint32_t back_hook;
	const char *there;
	const char *back_src, *back_dst; /* the answer, from the backend's port */
	uint16_t back_sport;
	const char *back;
};

/* clang-format off */
static const struct way ways[] = {
	{"TCP over IPv4 to a backend elsewhere",
	 {NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT, .backends = {{FAR4, 8080, false}}},
	 CLIENT4, IN, "192.168.1.1 40000 > 10.0.2.7 8080 to the node",
	 FAR4, NODE4, 8080, "192.168.1.1 30080 > 203.0.113.5 40000 to the world"},
	{"UDP over IPv4 to a backend elsewhere",
	 {NODE4, 30053, IPPROTO_UDP, .flags = NODE_PORT, .backends = {{FAR4, 53, false}}},
	 CLIENT4, IN, "192.168.1.1 40000 > 10.0.2.7 53 to the node",
	 FAR4, NODE4, 53, "192.168.1.1 30053 > 203.0.113.5 40000 to the world"},
	{"TCP over IPv6 to a backend elsewhere",
	 {NODE6, 30080, IPPROTO_TCP, .flags = NODE_PORT, .backends = {{FAR6, 8080, false}}},
	 CLIENT6, IN, "fd00:1::1 40000 > fd10:2::7 8080 to the node",
	 FAR6, NODE6, 8080, "fd00:1::1 30080 > 2001:db8::5 40000 to the world"},
	{"UDP over IPv6 to a backend elsewhere",
	 {NODE6, 30053, IPPROTO_UDP, .flags = NODE_PORT, .backends = {{FAR6, 53, false}}},
	 CLIENT6, IN, "fd00:1::1 40000 > fd10:2::7 53 to the node",
	 FAR6, NODE6, 53, "fd00:1::1 30053 > 2001:db8::5 40000 to the world"},
	{"SCTP to a backend elsewhere, ports as they are",
	 {VIP4, 5000, IPPROTO_SCTP, .flags = LOAD_BALANCER, .backends = {{FAR4, 5000, false}}},
	 CLIENT4, IN, "192.168.1.1 40000 > 10.0.2.7 5000 to the node",
	 FAR4, NODE4, 5000, "192.0.2.10 5000 > 203.0.113.5 40000 to the world"},
	{"TCP over IPv4 to a pod of this node: the client stays",
	 {NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT, .backends = {{POD4, 8080, true}}},
	 CLIENT4, PB_HOOK_POD_EGRESS, "203.0.113.5 40000 > 10.0.1.2 8080 to the pod",
	 POD4, CLIENT4, 8080, "192.168.1.1 30080 > 203.0.113.5 40000 to the world"},
	{"TCP over IPv6 to a pod of this node",
	 {NODE6, 30080, IPPROTO_TCP, .flags = NODE_PORT, .backends = {{POD6, 8080, true}}},
	 CLIENT6, PB_HOOK_POD_EGRESS, "2001:db8::5 40000 > fd10:1::2 8080 to the pod",
	 POD6, CLIENT6, 8080, "fd00:1::1 30080 > 2001:db8::5 40000 to the world"},
	{"a load balancer's address, UDP to a pod of this node",
	 {VIP4, 53, IPPROTO_UDP, .flags = LOAD_BALANCER, .backends = {{POD4, 5353, true}}},
	 CLIENT4, PB_HOOK_POD_EGRESS, "203.0.113.5 40000 > 10.0.1.2 5353 to the pod",
	 POD4, CLIENT4, 5353, "192.0.2.10 53 > 203.0.113.5 40000 to the world"},
	{"TCP to a backend in the network of this node",
	 {NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT, .backends = {{NODE4, 8080, true}}},
	 CLIENT4, PB_HOOK_DEV_EGRESS, "203.0.113.5 40000 > 192.168.1.1 8080 pass translated",
	 NODE4, CLIENT4, 8080, "192.168.1.1 30080 > 203.0.113.5 40000 pass translated"},
};
/* clang-format on */

Test(kpr_ns, a_flow_goes_to_its_backend_and_the_answers_come_from_the_frontend)
{
	for (size_t i = 0; i < PB_ARRAY_LEN(ways); i++) {
		const struct way *w = &ways[i];
		struct packet_spec there = {.src = w->client,
					    .dst = w->service.addr,
					    .protocol = w->service.protocol,
					    .sport = 40000,
					    .dport = w->service.port,
					    .tcp_flags = SYN,
					    .payload_len = 7};
		struct packet_spec back = {.src = w->back_src,
					   .dst = w->back_dst,
					   .protocol = w->service.protocol,
					   .sport = w->back_sport,
					   .dport = 40000,
					   .tcp_flags = SYN | ACK,
					   .payload_len = 8};
		struct bed_out out;

		bed_service(&w->service);
		for (int packet = 0; packet < 2; packet++) {
			out = bed_run(IN, &there);
			cr_expect_str_eq(bed_show(&out), w->there, "%s: is %s", w->given,
					 bed_show(&out));
			cr_expect_eq(out.view.ip.ttl, out.verdict == 7 ? 63 : 64, "%s", w->given);
			out = bed_run(w->back_hook, &back);
			cr_expect_str_eq(bed_show(&out), w->back, "%s: is %s", w->given,
					 bed_show(&out));
			there.tcp_flags = back.tcp_flags = ACK;
		}
		cr_expect_eq(bed_ct_count(), 2, "%s: both halves, no more", w->given);
		cr_assert(w->back_hook != IN || bed_ct_stats().collisions == 0);
		for (uint32_t n = bed_ct_count(); n > 0; n--) {
			struct pb_ct_key key;

			cr_assert_eq(bpf_map_get_next_key(bed_map("pb_ct"), NULL, &key), 0);
			cr_assert_eq(bpf_map_delete_elem(bed_map("pb_ct"), &key), 0);
		}
	}
}

/* ---- ports ---- */

Test(kpr_ns, K40_a_free_source_port_of_the_range_is_kept)
{
	bed_service(&far4);
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN)),
		   "192.168.1.1 40000 > 10.0.2.7 8080 to the node");
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 32768, NODE4, 30080, SYN)),
		   "192.168.1.1 32768 > 10.0.2.7 8080 to the node");
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 65535, NODE4, 30080, SYN)),
		   "192.168.1.1 65535 > 10.0.2.7 8080 to the node");
}

Test(kpr_ns, K41_a_source_port_below_the_range_is_replaced_by_one_of_it)
{
	struct bed_out out;
	uint16_t port;

	bed_service(&far4);
	out = bed_run(IN, BED_TCP(CLIENT4, 1025, NODE4, 30080, SYN));
	port = out.view.ip.sport;
	cr_expect_geq(port, 32768);
	cr_expect_str_eq(out.view.ip.src, NODE4);
	cr_expect_eq(ntohs(out.record.orig_sport), 1025);
	EXPECT_OUT(bed_run(IN, BED_TCP(FAR4, 8080, NODE4, port, SYN | ACK)),
		   "192.168.1.1 30080 > 203.0.113.5 1025 to the world");
}

Test(kpr_ns, K42_without_a_free_port_the_flow_is_dropped_and_counted)
{
	struct pb_ct_stats stats;

	bed_settings(PB_SVC_SET_NODE_PORT, 40000, 40000);
	bed_service(&far4);
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 1025, NODE4, 30080, SYN)),
		   "192.168.1.1 40000 > 10.0.2.7 8080 to the node");
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 1026, NODE4, 30080, SYN)), "dropped 167");
	stats = bed_ct_stats();
	cr_expect_eq(stats.no_port, 1);
	cr_expect_eq(stats.collisions, 32);
	cr_expect_eq(bed_ct_count(), 2, "nothing is left of what couldn't begin");
}

Test(kpr_ns, K42_a_port_whose_flow_has_expired_is_free)
{
	struct pb_ct ct;

	bed_settings(PB_SVC_SET_NODE_PORT, 40000, 40000);
	bed_service(&far4);
	bed_run(IN, BED_TCP(CLIENT4, 1025, NODE4, 30080, SYN));
	cr_assert(bed_ct(CLIENT4, 1025, NODE4, 30080, IPPROTO_TCP, &ct));
	ct.expires = bed_now() - 1;
	bed_ct_set(CLIENT4, 1025, NODE4, 30080, IPPROTO_TCP, &ct);
	cr_assert(bed_ct(FAR4, 8080, NODE4, 40000, IPPROTO_TCP, &ct));
	ct.expires = bed_now() - 1;
	bed_ct_set(FAR4, 8080, NODE4, 40000, IPPROTO_TCP, &ct);
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 1026, NODE4, 30080, SYN)),
		   "192.168.1.1 40000 > 10.0.2.7 8080 to the node");
	cr_expect_eq(bed_ct_count(), 2);
	EXPECT_OUT(bed_run(IN, BED_TCP(FAR4, 8080, NODE4, 40000, SYN | ACK)),
		   "192.168.1.1 30080 > 203.0.113.5 1026 to the world");
}

Test(kpr_ns, K64_two_flows_that_collide_behind_the_translation_get_two_ports)
{
	struct bed_service other = far4;
	struct bed_out out;
	uint16_t port;

	other.port = 30090;
	bed_service(&far4);
	bed_service(&other);
	bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN));
	out = bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30090, SYN));
	port = out.view.ip.sport;
	cr_expect_neq(port, 40000);
	EXPECT_OUT(bed_run(IN, BED_TCP(FAR4, 8080, NODE4, 40000, ACK)),
		   "192.168.1.1 30080 > 203.0.113.5 40000 to the world");
	EXPECT_OUT(bed_run(IN, BED_TCP(FAR4, 8080, NODE4, port, ACK)),
		   "192.168.1.1 30090 > 203.0.113.5 40000 to the world");
}

Test(kpr_ns, K64_towards_a_pod_of_this_node_the_client_keeps_its_address_but_its_port_moves)
{
	struct bed_service other = near4;
	struct bed_out out;
	uint16_t port;

	other.port = 30090;
	bed_service(&near4);
	bed_service(&other);
	bed_run(IN, BED_TCP(CLIENT4, 1025, NODE4, 30081, SYN));
	out = bed_run(IN, BED_TCP(CLIENT4, 1025, NODE4, 30090, SYN));
	port = out.view.ip.sport;
	cr_expect_str_eq(out.view.ip.src, CLIENT4);
	cr_expect_neq(port, 1025);
	EXPECT_OUT(bed_run(PB_HOOK_POD_EGRESS, BED_TCP(POD4, 8080, CLIENT4, 1025, ACK)),
		   "192.168.1.1 30081 > 203.0.113.5 1025 to the world");
	EXPECT_OUT(bed_run(PB_HOOK_POD_EGRESS, BED_TCP(POD4, 8080, CLIENT4, port, ACK)),
		   "192.168.1.1 30090 > 203.0.113.5 1025 to the world");
}

/* ---- ends and new beginnings ---- */

static uint8_t state_of(const char *saddr, uint16_t sport, const char *daddr, uint16_t dport)
{
	struct pb_ct ct;

	cr_assert(bed_ct(saddr, sport, daddr, dport, IPPROTO_TCP, &ct));
	return ct.state;
}

static uint32_t left(const char *saddr, uint16_t sport, const char *daddr, uint16_t dport)
{
	struct pb_ct ct;

	cr_assert(bed_ct(saddr, sport, daddr, dport, IPPROTO_TCP, &ct));
	return ct.expires - bed_now();
}

#define STATES(there_, back_)                                                                      \
	do {                                                                                       \
		cr_expect_eq(state_of(CLIENT4, 40000, NODE4, 30080), there_);                      \
		cr_expect_eq(state_of(FAR4, 8080, NODE4, 40000), back_);                           \
	} while (0)

static void expect_left(uint32_t there, uint32_t back)
{
	uint32_t t = left(CLIENT4, 40000, NODE4, 30080), b = left(FAR4, 8080, NODE4, 40000);

	cr_expect(t <= there && t + 2 >= there, "%u s are left, should be %u", t, there);
	cr_expect(b <= back && b + 2 >= back, "of the answers %u s are left, should be %u", b,
		  back);
}

Test(kpr_ns, the_first_answer_establishes_and_a_fin_of_both_sides_closes_both_halves)
{
	bed_service(&far4);
	bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN));
	STATES(PB_CT_OPENING, PB_CT_OPENING);
	expect_left(60, 60);
	bed_run(IN, BED_TCP(FAR4, 8080, NODE4, 40000, SYN | ACK));
	STATES(PB_CT_ESTABLISHED, PB_CT_ESTABLISHED);
	expect_left(21600, 21600);
	bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, FIN | ACK));
	STATES(PB_CT_ESTABLISHED, PB_CT_ESTABLISHED);
	bed_run(IN, BED_TCP(FAR4, 8080, NODE4, 40000, FIN | ACK));
	STATES(PB_CT_CLOSING, PB_CT_CLOSING);
	expect_left(10, 10);
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, ACK)),
		   "192.168.1.1 40000 > 10.0.2.7 8080 to the node");
	expect_left(10, 10);
}

Test(kpr_ns, a_reset_closes_both_halves_from_either_side)
{
	bed_service(&far4);
	bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN));
	bed_run(IN, BED_TCP(FAR4, 8080, NODE4, 40000, RST | ACK));
	STATES(PB_CT_CLOSING, PB_CT_CLOSING);
	expect_left(10, 10);
	bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN));
	STATES(PB_CT_OPENING, PB_CT_OPENING);
	bed_run(IN, BED_TCP(FAR4, 8080, NODE4, 40000, SYN | ACK));
	bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, RST));
	STATES(PB_CT_CLOSING, PB_CT_CLOSING);
}

/* The frontend's only backend is exchanged: the pool stays, its slot has another record. */
static void exchange_backend(const struct bed_service *service, uint32_t pool)
{
	struct bed_service other = *service;

	bed_backend_leaves(service, pool);
	other.backends[0].addr = "10.0.2.8";
	bed_service(&other);
}

Test(kpr_ns, K54_a_syn_on_a_closing_flow_begins_a_new_one_with_a_new_backend)
{
	uint32_t pool = bed_service(&far4);

	bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN));
	bed_run(IN, BED_TCP(FAR4, 8080, NODE4, 40000, RST | ACK));
	exchange_backend(&far4, pool);
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN)),
		   "192.168.1.1 40000 > 10.0.2.8 8080 to the node");
	cr_expect_not(bed_ct(FAR4, 8080, NODE4, 40000, IPPROTO_TCP, NULL), "the old half is gone");
	cr_expect_eq(bed_ct_count(), 2);
}

Test(kpr_ns, K54_a_syn_on_an_expired_flow_begins_a_new_one)
{
	struct pb_ct there, back;
	uint32_t pool = bed_service(&far4);

	bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN));
	bed_run(IN, BED_TCP(FAR4, 8080, NODE4, 40000, SYN | ACK));
	exchange_backend(&far4, pool);
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN)),
		   "192.168.1.1 40000 > 10.0.2.7 8080 to the node");
	cr_assert(bed_ct(CLIENT4, 40000, NODE4, 30080, IPPROTO_TCP, &there));
	cr_assert(bed_ct(FAR4, 8080, NODE4, 40000, IPPROTO_TCP, &back));
	there.expires = back.expires = bed_now() - 1;
	bed_ct_set(CLIENT4, 40000, NODE4, 30080, IPPROTO_TCP, &there);
	bed_ct_set(FAR4, 8080, NODE4, 40000, IPPROTO_TCP, &back);
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN)),
		   "192.168.1.1 40000 > 10.0.2.8 8080 to the node");
	cr_expect_eq(bed_ct_count(), 2);
}

Test(kpr_ns, K10_a_connection_stays_with_a_backend_that_left)
{
	uint32_t pool = bed_service(&far4);

	bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN));
	bed_run(IN, BED_TCP(FAR4, 8080, NODE4, 40000, SYN | ACK));
	bed_backend_leaves(&far4, pool);
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, ACK)),
		   "192.168.1.1 40000 > 10.0.2.7 8080 to the node");
	EXPECT_OUT(bed_run(IN, BED_TCP(FAR4, 8080, NODE4, 40000, ACK)),
		   "192.168.1.1 30080 > 203.0.113.5 40000 to the world");
}

Test(kpr_ns, K13_datagrams_go_to_another_backend_once_theirs_has_left)
{
	uint32_t pool = bed_service(&far4_udp);

	EXPECT_OUT(bed_run(IN, BED_UDP(CLIENT4, 40000, NODE4, 30053)),
		   "192.168.1.1 40000 > 10.0.2.7 53 to the node");
	bed_backend_leaves(&far4_udp, pool);
	EXPECT_OUT(bed_run(IN, BED_UDP(CLIENT4, 40000, NODE4, 30053)),
		   "192.168.1.1 > 203.0.113.5 error 3/3 about 203.0.113.5 40000 > "
		   "192.168.1.1 30053 to the node");
	cr_expect_eq(bed_ct_count(), 0);
	exchange_backend(&far4_udp, bed_service(&far4_udp));
	EXPECT_OUT(bed_run(IN, BED_UDP(CLIENT4, 40000, NODE4, 30053)),
		   "192.168.1.1 40000 > 10.0.2.8 53 to the node");
	cr_expect_eq(bed_ct_count(), 2);
}

Test(kpr_ns, K13_datagrams_leave_a_backend_whose_number_its_pool_gave_to_another)
{
	uint32_t number = bed.next_backend, pool;
	struct pb_svc_backend record;

	pool = bed_service(&far4_udp);
	EXPECT_OUT(bed_run(IN, BED_UDP(CLIENT4, 40000, NODE4, 30053)),
		   "192.168.1.1 40000 > 10.0.2.7 53 to the node");
	cr_assert_eq(bpf_map_lookup_elem(bed_map("kpr_backends"), &number, &record), 0);
	cr_assert_eq(record.pool, pool);
	record.addr = bed_addr("10.0.2.8");
	cr_assert_eq(bpf_map_update_elem(bed_map("kpr_backends"), &number, &record, 0), 0);
	EXPECT_OUT(bed_run(IN, BED_UDP(CLIENT4, 40000, NODE4, 30053)),
		   "192.168.1.1 40000 > 10.0.2.8 53 to the node");
	cr_expect_eq(bed_ct_count(), 2);
}

Test(kpr_ns, an_expired_udp_flow_chooses_anew_unless_its_answers_still_come)
{
	struct pb_ct there, back;

	bed_service(&far4_udp);
	bed_run(IN, BED_UDP(CLIENT4, 40000, NODE4, 30053));
	exchange_backend(&far4_udp, bed_service(&far4_udp));
	cr_assert(bed_ct(CLIENT4, 40000, NODE4, 30053, IPPROTO_UDP, &there));
	there.expires = bed_now() - 1;
	bed_ct_set(CLIENT4, 40000, NODE4, 30053, IPPROTO_UDP, &there);
	EXPECT_OUT(bed_run(IN, BED_UDP(CLIENT4, 40000, NODE4, 30053)),
		   "192.168.1.1 40000 > 10.0.2.7 53 to the node");
	cr_assert(bed_ct(FAR4, 53, NODE4, 40000, IPPROTO_UDP, &back));
	back.expires = there.expires;
	bed_ct_set(CLIENT4, 40000, NODE4, 30053, IPPROTO_UDP, &there);
	bed_ct_set(FAR4, 53, NODE4, 40000, IPPROTO_UDP, &back);
	EXPECT_OUT(bed_run(IN, BED_UDP(CLIENT4, 40000, NODE4, 30053)),
		   "192.168.1.1 40000 > 10.0.2.8 53 to the node");
	cr_expect_eq(bed_ct_count(), 2);
}

Test(kpr_ns, a_full_map_drops_new_flows_and_none_is_left_by_half)
{
	struct bed_service other = far4;
	enum { BATCH = 8192 };
	static struct pb_ct_key keys[BATCH];
	static struct pb_ct values[BATCH];

	other.port = 30090;
	bed_service(&far4);
	bed_service(&other);
	bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN));
	for (uint32_t at = 0; at < PB_CT_MAX; at += BATCH) {
		uint32_t n = at + BATCH < PB_CT_MAX ? BATCH : BATCH - 2 - 1;

		for (uint32_t i = 0; i < n; i++)
			keys[i] = (struct pb_ct_key){.saddr.v4 = at + i + 1, .family = 4};
		cr_assert_eq(bpf_map_update_batch(bed_map("pb_ct"), keys, values, &n, NULL), 0,
			     "%u: %s", at, strerror(errno));
	}
	/* One place is left: not enough for both halves. */
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 40001, NODE4, 30090, SYN)), "dropped 155");
	cr_expect_not(bed_ct(FAR4, 8080, NODE4, 40001, IPPROTO_TCP, NULL));
	cr_expect_eq(bed_ct_stats().full, 1);
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, ACK)),
		   "192.168.1.1 40000 > 10.0.2.7 8080 to the node");
}
