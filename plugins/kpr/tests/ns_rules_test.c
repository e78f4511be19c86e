/* SPDX-License-Identifier: Apache-2.0 */
/* What a packet from outside may begin: frontends, sources, choices, and what is none of ours. */
#include "ns_bed.h"

#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

TestSuite(kpr_ns_rules, .init = bed_enter, .fini = bed_leave);

#define SYN PACKET_SYN
#define ACK PACKET_ACK
#define IN PB_HOOK_DEV_INGRESS

/* One frontend and one packet. */
struct rule {
	const char *given;
	struct bed_service service;
	uint32_t settings;
	struct packet_spec packet;
	const char *should;
};

#define FAR_BACKEND .backends = {{FAR4, 8080, false}}
#define TO(dst_, dport_, protocol_, flags_)                                                        \
	{                                                                                          \
		.src = CLIENT4, .dst = (dst_), .protocol = (protocol_), .sport = 40000,            \
		.dport = (dport_), .tcp_flags = (flags_)                                           \
	}
#define SENT "192.168.1.1 40000 > 10.0.2.7 8080 to the node"

/* clang-format off */
static const struct rule rules[] = {
	{"no frontend at the port",
	 {NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT, FAR_BACKEND}, PB_SVC_SET_NODE_PORT,
	 TO(NODE4, 30081, IPPROTO_TCP, SYN), "203.0.113.5 40000 > 192.168.1.1 30081 pass"},
	{"the protocol is another",
	 {NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT, FAR_BACKEND}, PB_SVC_SET_NODE_PORT,
	 TO(NODE4, 30080, IPPROTO_UDP, 0), "203.0.113.5 40000 > 192.168.1.1 30080 pass"},
	{"north-south is off",
	 {NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT, FAR_BACKEND}, 0,
	 TO(NODE4, 30080, IPPROTO_TCP, SYN), "203.0.113.5 40000 > 192.168.1.1 30080 pass"},
	{"a ClusterIP from outside",
	 {VIP4, 80, IPPROTO_TCP, .flags = CLUSTER_IP, FAR_BACKEND}, PB_SVC_SET_NODE_PORT,
	 TO(VIP4, 80, IPPROTO_TCP, SYN), "dropped 174"},
	{"a ClusterIP from outside where that is wanted",
	 {VIP4, 80, IPPROTO_TCP, .flags = CLUSTER_IP, FAR_BACKEND},
	 PB_SVC_SET_NODE_PORT | PB_SVC_SET_EXTERNAL_CLUSTER_IP,
	 TO(VIP4, 80, IPPROTO_TCP, SYN), SENT},
	{"an external address",
	 {VIP4, 80, IPPROTO_TCP, .flags = KIND(PB_SVC_EXTERNAL_IP), FAR_BACKEND},
	 PB_SVC_SET_NODE_PORT, TO(VIP4, 80, IPPROTO_TCP, SYN), SENT},
	{"a hostPort",
	 {NODE4, 443, IPPROTO_TCP, .flags = KIND(PB_SVC_HOST_PORT), FAR_BACKEND},
	 PB_SVC_SET_NODE_PORT, TO(NODE4, 443, IPPROTO_TCP, SYN), SENT},
	{"no backend anywhere",
	 {VIP4, 80, IPPROTO_TCP, .flags = LOAD_BALANCER}, PB_SVC_SET_NODE_PORT,
	 TO(VIP4, 80, IPPROTO_TCP, SYN),
	 "192.0.2.10 80 > 203.0.113.5 40000 reset to the node"},
	{"no backend anywhere, UDP",
	 {VIP4, 80, IPPROTO_UDP, .flags = LOAD_BALANCER}, PB_SVC_SET_NODE_PORT,
	 TO(VIP4, 80, IPPROTO_UDP, 0),
	 "192.0.2.10 > 203.0.113.5 error 3/3 about 203.0.113.5 40000 > 192.0.2.10 80 to the node"},
	{"no backend, and the frontend lets everything pass (K62)",
	 {VIP4, 80, IPPROTO_TCP, .flags = LOAD_BALANCER | PB_SVC_FAIL_OPEN}, PB_SVC_SET_NODE_PORT,
	 TO(VIP4, 80, IPPROTO_TCP, SYN), "203.0.113.5 40000 > 192.0.2.10 80 pass"},
	{"K26: policy Local, backends on other nodes only",
	 {NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT | PB_SVC_LOCAL | PB_SVC_ELSEWHERE},
	 PB_SVC_SET_NODE_PORT, TO(NODE4, 30080, IPPROTO_TCP, SYN), "dropped 158"},
	{"K44: a ping to a ClusterIP is none of a Service",
	 {VIP4, 0, IPPROTO_ICMP, .flags = CLUSTER_IP, FAR_BACKEND}, PB_SVC_SET_NODE_PORT,
	 {.src = CLIENT4, .dst = VIP4, .protocol = IPPROTO_ICMP, .icmp_type = 8, .sport = 7},
	 NULL},
	{"K45: a ping to the node",
	 {NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT, FAR_BACKEND}, PB_SVC_SET_NODE_PORT,
	 {.src = CLIENT4, .dst = NODE4, .protocol = IPPROTO_ICMP, .icmp_type = 8, .sport = 7},
	 NULL},
	{"SCTP whose port would have to change",
	 {VIP4, 5000, IPPROTO_SCTP, .flags = LOAD_BALANCER, .backends = {{FAR4, 5001, false}}},
	 PB_SVC_SET_NODE_PORT, TO(VIP4, 5000, IPPROTO_SCTP, 0), "dropped 168"},
	{"the last hop",
	 {NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT, FAR_BACKEND}, PB_SVC_SET_NODE_PORT,
	 {.src = CLIENT4, .dst = NODE4, .protocol = IPPROTO_TCP, .sport = 40000, .dport = 30080,
	  .tcp_flags = SYN, .ttl = 1},
	 "192.168.1.1 > 203.0.113.5 error 11/0 about 203.0.113.5 40000 > 192.168.1.1 30080 to the node"},
	{"IPv4 options stay where they are",
	 {NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT, FAR_BACKEND}, PB_SVC_SET_NODE_PORT,
	 {.src = CLIENT4, .dst = NODE4, .protocol = IPPROTO_TCP, .sport = 40000, .dport = 30080,
	  .tcp_flags = SYN, .options = "94040000"}, SENT},
	{"one VLAN tag is taken off",
	 {NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT, FAR_BACKEND}, PB_SVC_SET_NODE_PORT,
	 {.src = CLIENT4, .dst = NODE4, .protocol = IPPROTO_TCP, .sport = 40000, .dport = 30080,
	  .tcp_flags = SYN, .vlan = {100}}, SENT},
	{"two VLAN tags are taken off",
	 {NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT, FAR_BACKEND}, PB_SVC_SET_NODE_PORT,
	 {.src = CLIENT4, .dst = NODE4, .protocol = IPPROTO_TCP, .sport = 40000, .dport = 30080,
	  .tcp_flags = SYN, .vlan = {100, 200}}, SENT},
	{"UDP without a checksum stays without",
	 {NODE4, 30080, IPPROTO_UDP, .flags = NODE_PORT, FAR_BACKEND}, PB_SVC_SET_NODE_PORT,
	 {.src = CLIENT4, .dst = NODE4, .protocol = IPPROTO_UDP, .sport = 40000, .dport = 30080,
	  .no_checksum = true}, SENT},
	{"a packet that the device can't take in one piece",
	 {NODE4, 30080, IPPROTO_UDP, .flags = NODE_PORT, FAR_BACKEND}, PB_SVC_SET_NODE_PORT,
	 {.src = CLIENT4, .dst = NODE4, .protocol = IPPROTO_UDP, .sport = 40000, .dport = 30080,
	  .payload_len = 1473},
	 "192.168.1.1 > 203.0.113.5 error 3/4 about 203.0.113.5 40000 > 192.168.1.1 30080 to the node"},
	{"one that it just can",
	 {NODE4, 30080, IPPROTO_UDP, .flags = NODE_PORT, FAR_BACKEND}, PB_SVC_SET_NODE_PORT,
	 {.src = CLIENT4, .dst = NODE4, .protocol = IPPROTO_UDP, .sport = 40000, .dport = 30080,
	  .payload_len = 1472}, SENT},
};
/* clang-format on */

Test(kpr_ns_rules, K12_K26_K44_K45_K62_what_a_packet_may_begin)
{
	for (size_t i = 0; i < PB_ARRAY_LEN(rules); i++) {
		const struct rule *r = &rules[i];
		struct pb_svc_key key = {.addr = bed_addr(r->service.addr),
					 .port = htons(r->service.port),
					 .protocol = r->service.protocol,
					 .family = 4};
		uint32_t flows = bed_ct_count();
		struct bed_out out;
		struct pb_ct_key left;

		bed_settings(r->settings, 32768, 65535);
		bed_service(&r->service);
		out = bed_run(IN, &r->packet);
		if (r->should) {
			cr_expect_str_eq(bed_show(&out), r->should, "%s: is %s", r->given,
					 bed_show(&out));
		} else {
			cr_expect_eq(out.verdict, -1, "%s", r->given);
			cr_expect_eq(out.mark, 0, "%s", r->given);
		}
		if (out.verdict == 7 && out.record.reason == 0) {
			cr_expect_eq(out.view.vlan[0], 0, "%s", r->given);
			cr_expect_eq(out.view.ip.has_sum, !r->packet.no_checksum, "%s", r->given);
		} else {
			cr_expect_eq(bed_ct_count(), flows, "%s: no entry", r->given);
		}
		while (bpf_map_get_next_key(bed_map("pb_ct"), NULL, &left) == 0)
			cr_assert_eq(bpf_map_delete_elem(bed_map("pb_ct"), &left), 0);
		cr_assert_eq(bpf_map_delete_elem(bed_map("kpr_services"), &key), 0);
	}
}

/* As a device in promiscuous mode shows it, or a port of a bridge. */
Test(kpr_ns_rules, a_frame_to_another_host_is_left_alone)
{
	struct bed_out out;
	struct packet p;

	bed_service(&(struct bed_service){NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT,
					  .backends = {{FAR4, 8080, false}}});
	packet_build(&p, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN));
	p.data[5] ^= 0x40;
	out = bed_run_packet(IN, &p);
	cr_expect_eq(out.verdict, -1);
	cr_expect_eq(out.mark, 0);
	cr_expect_eq(bed_ct_count(), 0);
	p.data[5] ^= 0x40;
	out = bed_run_packet(IN, &p);
	cr_expect_eq(out.verdict, 7);
	cr_expect_eq(bed_ct_count(), 2);
}

Test(kpr_ns_rules, K1_the_protocol_is_part_of_the_frontend)
{
	bed_service(&(struct bed_service){VIP4, 53, IPPROTO_TCP, .flags = LOAD_BALANCER,
					  .backends = {{FAR4, 1053, false}}});
	bed_service(&(struct bed_service){VIP4, 53, IPPROTO_UDP, .flags = LOAD_BALANCER,
					  .backends = {{FAR4, 2053, false}}});
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 40000, VIP4, 53, SYN)),
		   "192.168.1.1 40000 > 10.0.2.7 1053 to the node");
	EXPECT_OUT(bed_run(IN, BED_UDP(CLIENT4, 40000, VIP4, 53)),
		   "192.168.1.1 40000 > 10.0.2.7 2053 to the node");
}

Test(kpr_ns_rules, K25_packets_from_outside_see_the_backends_of_their_scope)
{
	bed_service(&(struct bed_service){NODE4, 30080, IPPROTO_TCP,
					  .flags = NODE_PORT | PB_SVC_SPLIT,
					  .backends = {{FAR4, 8080, false}}});
	bed_service(&(struct bed_service){NODE4, 30080, IPPROTO_TCP, .scope = PB_SVC_SCOPE_EXT,
					  .flags = NODE_PORT | PB_SVC_LOCAL | PB_SVC_SPLIT,
					  .backends = {{POD4, 8080, true}}});
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN)),
		   "203.0.113.5 40000 > 10.0.1.2 8080 to the pod");
	EXPECT_OUT(bed_run(PB_HOOK_POD_EGRESS, BED_TCP(POD4, 40000, NODE4, 30080, SYN)),
		   "10.0.1.2 40000 > 10.0.2.7 8080 pass translated");
}

/* ---- source ranges ---- */

Test(kpr_ns_rules, K28_only_sources_in_a_range_and_the_cluster_itself_get_in)
{
	const struct bed_service lb4 = {VIP4,	     80,
					IPPROTO_TCP, .flags = LOAD_BALANCER | PB_SVC_RANGES,
					.ranges = 3, .backends = {{FAR4, 8080, false}}};
	const struct bed_service lb6 = {VIP6,	     80,
					IPPROTO_TCP, .flags = LOAD_BALANCER | PB_SVC_RANGES,
					.ranges = 3, .backends = {{FAR6, 8080, false}}};
	const struct bed_service port = {NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT,
					 .backends = {{FAR4, 8080, false}}};

	bed_service(&lb4);
	bed_service(&lb6);
	bed_service(&port);
	bed_range(3, "192.0.2.0", 24);
	bed_range(4, "198.51.100.0", 24); /* another Service's */
	bed_range(3, "2001:db8:7::", 48);
	EXPECT_OUT(bed_run(IN, BED_TCP("192.0.2.77", 40000, VIP4, 80, SYN)), SENT);
	EXPECT_OUT(bed_run(IN, BED_TCP("198.51.100.1", 40000, VIP4, 80, SYN)), "dropped 177");
	EXPECT_OUT(bed_run(IN, BED_TCP("198.51.100.1", 40001, NODE4, 30080, SYN)),
		   "192.168.1.1 40001 > 10.0.2.7 8080 to the node");
	EXPECT_OUT(bed_run(IN, BED_TCP("2001:db8:7::1", 40000, VIP6, 80, SYN)),
		   "fd00:1::1 40000 > fd10:2::7 8080 to the node");
	EXPECT_OUT(bed_run(IN, BED_TCP("2001:db8:8::1", 40000, VIP6, 80, SYN)), "dropped 177");
	bed_identity("10.0.2.9", 300);
	EXPECT_OUT(bed_run(IN, BED_TCP("10.0.2.9", 40002, VIP4, 80, SYN)),
		   "192.168.1.1 40002 > 10.0.2.7 8080 to the node");
	bed_identity("192.168.1.2", PB_IDENTITY_REMOTE_NODE);
	EXPECT_OUT(bed_run(IN, BED_TCP("192.168.1.2", 40003, VIP4, 80, SYN)),
		   "192.168.1.1 40003 > 10.0.2.7 8080 to the node");
	bed_identity("203.0.113.9", PB_IDENTITY_CIDR + 5);
	EXPECT_OUT(bed_run(IN, BED_TCP("203.0.113.9", 40004, VIP4, 80, SYN)), "dropped 177");
}

Test(kpr_ns_rules, K29_ranges_without_a_valid_one_let_nobody_in)
{
	bed_service(&(struct bed_service){VIP4, 80, IPPROTO_TCP,
					  .flags = LOAD_BALANCER | PB_SVC_RANGES, .ranges = 9,
					  .backends = {{FAR4, 8080, false}}});
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 40000, VIP4, 80, SYN)), "dropped 177");
}

/* ---- K63: whose packet is it ---- */

static const struct bed_service taken_tcp = {NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT,
					     .backends = {{FAR4, 8080, false}}};
static const struct bed_service taken_udp = {NODE4, 30053, IPPROTO_UDP, .flags = NODE_PORT,
					     .backends = {{FAR4, 53, false}}};

Test(kpr_ns_rules, K63_an_answer_to_a_connection_of_the_node_from_a_node_port_goes_to_its_socket)
{
	bed_service(&taken_tcp);
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 443, NODE4, 30080, SYN | ACK)),
		   "203.0.113.5 443 > 192.168.1.1 30080 pass");
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 443, NODE4, 30080, ACK)),
		   "203.0.113.5 443 > 192.168.1.1 30080 pass");
	cr_expect_eq(bed_ct_count(), 0);
}

Test(kpr_ns_rules, K63_a_connected_udp_socket_gets_its_answers_although_its_port_is_a_frontend)
{
	struct sockaddr_in self = {.sin_family = AF_INET, .sin_port = htons(30053)};
	struct sockaddr_in peer = {.sin_family = AF_INET, .sin_port = htons(53)};
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	bed_service(&taken_udp);
	inet_pton(AF_INET, NODE4, &self.sin_addr);
	inet_pton(AF_INET, CLIENT4, &peer.sin_addr);
	cr_assert_eq(bind(fd, (struct sockaddr *)&self, sizeof(self)), 0);
	cr_assert_eq(connect(fd, (struct sockaddr *)&peer, sizeof(peer)), 0);
	EXPECT_OUT(bed_run(IN, BED_UDP(CLIENT4, 53, NODE4, 30053)),
		   "203.0.113.5 53 > 192.168.1.1 30053 pass");
	EXPECT_OUT(bed_run(IN, BED_UDP(CLIENT4, 40000, NODE4, 30053)),
		   "192.168.1.1 40000 > 10.0.2.7 53 to the node");
	close(fd);
}

Test(kpr_ns_rules, K63_a_segment_of_no_known_connection_to_an_address_of_nobody_is_dropped)
{
	bed_service(&(struct bed_service){VIP4, 80, IPPROTO_TCP, .flags = LOAD_BALANCER,
					  .backends = {{FAR4, 8080, false}}});
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 40000, VIP4, 80, ACK)), "dropped 163");
	cr_expect_eq(bed_ct_count(), 0);
}

Test(kpr_ns_rules, K63_with_a_table_that_all_nodes_have_such_a_segment_finds_its_backend)
{
	struct pb_ct ct;

	bed_service(&(struct bed_service){VIP4, 80, IPPROTO_TCP,
					  .flags = LOAD_BALANCER | PB_SVC_MAGLEV,
					  .backends = {{FAR4, 8080, false}}});
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 40000, VIP4, 80, PACKET_RST)), "dropped 163");
	EXPECT_OUT(bed_run(IN, BED_TCP(CLIENT4, 40000, VIP4, 80, ACK)), SENT);
	cr_assert(bed_ct(CLIENT4, 40000, VIP4, 80, IPPROTO_TCP, &ct));
	cr_expect_eq(ct.state, PB_CT_ESTABLISHED);
}

/* ---- the choice ---- */

#define FOUR_BACKENDS                                                                              \
	.backends = {{"10.0.2.11", 80, false},                                                     \
		     {"10.0.2.12", 80, false},                                                     \
		     {"10.0.2.13", 80, false},                                                     \
		     {"10.0.2.14", 80, false}}

/* The number of backends that 64 connections from 64 ports found, and the last one's address. */
static unsigned spread(const char *client, const char *dst, uint16_t dport, uint16_t from)
{
	unsigned seen = 0;

	for (uint16_t i = 0; i < 64; i++) {
		struct bed_out out = bed_run(IN, BED_TCP(client, from + i, dst, dport, SYN));

		cr_assert_eq(out.verdict, 7, "%s", bed_show(&out));
		seen |= 1U << (unsigned)atoi(strrchr(out.view.ip.dst, '.') + 1);
	}
	return (unsigned)__builtin_popcount(seen);
}

Test(kpr_ns_rules, connections_are_spread_over_all_backends)
{
	bed_service(&(struct bed_service){VIP4, 80, IPPROTO_TCP, .flags = LOAD_BALANCER,
					  FOUR_BACKENDS});
	cr_expect_eq(spread(CLIENT4, VIP4, 80, 40000), 4);
}

Test(kpr_ns_rules, K34_K36_a_client_sticks_to_its_backend_until_that_leaves)
{
	const struct bed_service sticky = {
		VIP4, 80, IPPROTO_TCP, .flags = LOAD_BALANCER, .affinity_s = 10, FOUR_BACKENDS};
	uint32_t pool = bed_service(&sticky);

	/* Three chances in four that a client isn't at the first backend, which will leave. */
	cr_expect_eq(spread(CLIENT4, VIP4, 80, 40000), 1);
	for (int client = 1; client <= 30; client++) {
		char text[20];

		snprintf(text, sizeof(text), "203.0.113.%d", 20 + client);
		cr_expect_eq(spread(text, VIP4, 80, 41000), 1, "%s", text);
	}
	bed_backend_leaves(&sticky, pool);
	for (int client = 1; client <= 30; client++) {
		char text[20];

		snprintf(text, sizeof(text), "203.0.113.%d", 20 + client);
		cr_expect_eq(spread(text, VIP4, 80, 42000), 1, "%s", text);
	}
}

static struct kpr_affinity affinity_of(const char *client, uint32_t frontend)
{
	struct kpr_affinity_key key = {.client = bed_addr(client),
				       .affinity_id = BED_AFFINITY_ID(frontend)};
	struct kpr_affinity a;

	cr_assert_eq(bpf_map_lookup_elem(bed_map("kpr_affinity"), &key, &a), 0);
	return a;
}

/* Moves the entry into the past and to a certain backend. */
static void set_affinity(const char *client, uint32_t frontend, uint32_t backend, uint32_t ago)
{
	struct kpr_affinity_key key = {.client = bed_addr(client),
				       .affinity_id = BED_AFFINITY_ID(frontend)};
	struct kpr_affinity a = affinity_of(client, frontend);

	a.backend = backend;
	a.used = bed_now() - ago;
	cr_assert_eq(bpf_map_update_elem(bed_map("kpr_affinity"), &key, &a, 0), 0);
}

Test(kpr_ns_rules, K34_each_connection_refreshes_the_affinity)
{
	const struct bed_service sticky = {
		VIP4, 80, IPPROTO_TCP, .flags = LOAD_BALANCER, .affinity_s = 10, FOUR_BACKENDS};
	uint32_t id = bed.next_id, first = bed.next_backend;

	bed_service(&sticky);
	bed_run(IN, BED_TCP(CLIENT4, 40000, VIP4, 80, SYN));
	for (uint16_t i = 1; i < 20; i++) {
		struct bed_out out;

		set_affinity(CLIENT4, id, first + 2, 5);
		out = bed_run(IN, BED_TCP(CLIENT4, 40000 + i, VIP4, 80, SYN));
		cr_expect_str_eq(out.view.ip.dst, "10.0.2.13");
		cr_expect_leq(bed_now() - affinity_of(CLIENT4, id).used, 1);
	}
}

Test(kpr_ns_rules, K35_after_the_timeout_the_choice_is_free)
{
	const struct bed_service sticky = {
		VIP4, 80, IPPROTO_TCP, .flags = LOAD_BALANCER, .affinity_s = 10, FOUR_BACKENDS};
	uint32_t id = bed.next_id, first = bed.next_backend;
	unsigned moved = 0;

	bed_service(&sticky);
	bed_run(IN, BED_TCP(CLIENT4, 40000, VIP4, 80, SYN));
	for (uint16_t i = 1; i < 64; i++) {
		set_affinity(CLIENT4, id, first, 12);
		bed_run(IN, BED_TCP(CLIENT4, 40000 + i, VIP4, 80, SYN));
		moved += affinity_of(CLIENT4, id).backend != first;
	}
	cr_expect_gt(moved, 0);
}

Test(kpr_ns_rules, K36b_without_affinity_nothing_is_remembered)
{
	struct kpr_affinity_key key;

	bed_service(&(struct bed_service){VIP4, 80, IPPROTO_TCP, .flags = LOAD_BALANCER,
					  FOUR_BACKENDS});
	bed_run(IN, BED_TCP(CLIENT4, 40000, VIP4, 80, SYN));
	cr_expect_eq(bpf_map_get_next_key(bed_map("kpr_affinity"), NULL, &key), -ENOENT);
}

/* ---- Maglev ---- */

Test(kpr_ns_rules, the_same_client_and_port_find_the_same_backend_whatever_nodes_address_it_asks)
{
	const char *const nodes[] = {VIP4, "192.0.2.20"};

	for (size_t i = 0; i < 2; i++)
		bed_service(&(struct bed_service){nodes[i], 80, IPPROTO_TCP,
						  .flags = NODE_PORT | PB_SVC_MAGLEV,
						  FOUR_BACKENDS});
	for (uint16_t i = 0; i < 64; i++) {
		struct bed_out a = bed_run(IN, BED_TCP(CLIENT4, 40000 + i, nodes[0], 80, SYN));
		struct bed_out b = bed_run(IN, BED_TCP(CLIENT4, 40000 + i, nodes[1], 80, SYN));

		cr_expect_str_eq(a.view.ip.dst, b.view.ip.dst);
	}
	cr_expect_eq(spread(CLIENT4, VIP4, 80, 50000), 4);
}

Test(kpr_ns_rules, with_affinity_the_source_port_has_no_part_in_the_table)
{
	bed_service(&(struct bed_service){VIP4, 80, IPPROTO_TCP,
					  .flags = LOAD_BALANCER | PB_SVC_MAGLEV, .affinity_s = 1,
					  FOUR_BACKENDS});
	for (uint16_t i = 0; i < 32; i++) {
		struct kpr_affinity_key key;

		cr_expect_eq(spread(CLIENT4, VIP4, 80, 40000 + i * 64), 1);
		cr_assert_eq(bpf_map_get_next_key(bed_map("kpr_affinity"), NULL, &key), 0);
		cr_assert_eq(bpf_map_delete_elem(bed_map("kpr_affinity"), &key), 0);
	}
	cr_expect_eq(bed_ct_count(), 2 * 32 * 64);
}
