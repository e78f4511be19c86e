/* SPDX-License-Identifier: Apache-2.0 */
/* ICMP errors about translated packets, and fragments. */
#include "ns_bed.h"

TestSuite(kpr_ns_errors, .init = bed_enter, .fini = bed_leave);

#define SYN PACKET_SYN
#define ACK PACKET_ACK
#define IN PB_HOOK_DEV_INGRESS
#define FROM_POD PB_HOOK_POD_EGRESS

static const struct bed_service far4 = {NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT,
					.backends = {{FAR4, 8080, false}}};
static const struct bed_service far6 = {NODE6, 30080, IPPROTO_TCP, .flags = NODE_PORT,
					.backends = {{FAR6, 8080, false}}};
static const struct bed_service near_udp = {NODE4, 30053, IPPROTO_UDP, .flags = NODE_PORT,
					    .backends = {{POD4, 53, true}}};
static const struct bed_service far_udp = {NODE4, 30053, IPPROTO_UDP, .flags = NODE_PORT,
					   .backends = {{FAR4, 53, false}}};

/* An error by `router` about `about`, to who sent that. */
static struct bed_out complain(uint32_t hook, const char *router, uint8_t type, uint8_t code,
			       const struct packet_spec *about)
{
	struct packet quote;
	struct packet_spec spec = {.src = router,
				   .dst = about->src,
				   .protocol = strchr(router, ':') ? IPPROTO_ICMPV6 : IPPROTO_ICMP,
				   .icmp_type = type,
				   .icmp_code = code,
				   .icmp_rest = 1400,
				   .quote = &quote};

	packet_build(&quote, about);
	return bed_run(hook, &spec);
}

Test(kpr_ns_errors, K43_frag_needed_from_a_router_reaches_the_client_about_its_own_packet)
{
	struct bed_out out;

	bed_service(&far4);
	bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN));
	out = complain(IN, "192.168.1.2", 3, 4, BED_TCP(NODE4, 40000, FAR4, 8080, ACK));
	cr_expect_str_eq(bed_show(&out),
			 "192.168.1.2 > 203.0.113.5 error 3/4 about 203.0.113.5 40000 > "
			 "192.168.1.1 30080 to the world");
	cr_expect_eq(out.view.ip.icmp_rest, 1400);
	cr_expect_eq(out.view.ip.ttl, 63);
}

Test(kpr_ns_errors, K43_packet_too_big_over_ipv6)
{
	bed_service(&far6);
	bed_run(IN, BED_TCP(CLIENT6, 40000, NODE6, 30080, SYN));
	EXPECT_OUT(complain(IN, "fd00:1::2", 2, 0, BED_TCP(NODE6, 40000, FAR6, 8080, ACK)),
		   "fd00:1::2 > 2001:db8::5 error 2/0 about 2001:db8::5 40000 > fd00:1::1 30080 "
		   "to the world");
}

Test(kpr_ns_errors, K43_an_error_about_an_answer_reaches_the_backend)
{
	bed_service(&far4);
	bed_run(IN, BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN));
	EXPECT_OUT(complain(IN, "203.0.113.1", 3, 4, BED_TCP(NODE4, 30080, CLIENT4, 40000, ACK)),
		   "203.0.113.1 > 10.0.2.7 error 3/4 about 10.0.2.7 8080 > 192.168.1.1 40000 "
		   "to the node");
}

Test(kpr_ns_errors, D32_port_unreachable_of_a_pod_comes_from_the_frontend)
{
	bed_service(&near_udp);
	bed_run(IN, BED_UDP(CLIENT4, 40000, NODE4, 30053));
	EXPECT_OUT(complain(FROM_POD, POD4, 3, 3, BED_UDP(CLIENT4, 40000, POD4, 53)),
		   "192.168.1.1 > 203.0.113.5 error 3/3 about 203.0.113.5 40000 > "
		   "192.168.1.1 30053 to the world");
}

Test(kpr_ns_errors, port_unreachable_of_the_node_comes_from_the_frontend)
{
	struct bed_service host = near_udp;

	host.backends[0].addr = NODE4;
	bed_service(&host);
	bed_run(IN, BED_UDP(CLIENT4, 40000, NODE4, 30053));
	EXPECT_OUT(complain(PB_HOOK_DEV_EGRESS, NODE4, 3, 3, BED_UDP(CLIENT4, 40000, NODE4, 53)),
		   "192.168.1.1 > 203.0.113.5 error 3/3 about 203.0.113.5 40000 > "
		   "192.168.1.1 30053 pass translated");
}

Test(kpr_ns_errors, D33_an_error_to_the_frontend_of_a_flow_without_answers_goes_to_its_backend)
{
	struct pb_ct ct = {.saddr = bed_addr(CLIENT4),
			   .daddr = bed_addr(FAR4),
			   .sport = htons(40000),
			   .dport = htons(8080),
			   .flags = PB_CT_DSR | PB_CT_SINGLE,
			   .expires = bed_now() + 60};

	bed_ct_set(CLIENT4, 40000, NODE4, 30080, IPPROTO_TCP, &ct);
	EXPECT_OUT(complain(IN, "203.0.113.1", 3, 4, BED_TCP(NODE4, 30080, CLIENT4, 40000, ACK)),
		   "203.0.113.1 > 10.0.2.7 error 3/4 about 10.0.2.7 8080 > 203.0.113.5 40000 "
		   "to the node");
}

Test(kpr_ns_errors, errors_about_nothing_that_is_known_pass)
{
	bed_service(&far4);
	EXPECT_OUT(complain(IN, "192.168.1.2", 3, 4, BED_TCP(NODE4, 40000, FAR4, 8080, ACK)),
		   "192.168.1.2 > 192.168.1.1 error 3/4 about 192.168.1.1 40000 > 10.0.2.7 8080 "
		   "pass");
}

/* ---- fragments ---- */

Test(kpr_ns_errors, all_fragments_of_a_datagram_take_the_way_of_the_first)
{
	struct packet whole, parts[6];
	struct packet_spec spec = *BED_UDP(CLIENT4, 40000, NODE4, 30053);
	size_t n;

	bed_service(&far_udp);
	spec.payload_len = 5120;
	packet_build(&whole, &spec);
	n = packet_fragment(&whole, 1416, 1424, 77, parts, PB_ARRAY_LEN(parts));
	cr_assert_eq(n, 4);
	for (size_t i = 0; i < n; i++) {
		struct bed_out out = bed_run_packet(IN, &parts[i]);

		cr_expect_eq(out.verdict, 7, "fragment %zu", i);
		cr_expect_str_eq(out.view.ip.src, NODE4, "fragment %zu", i);
		cr_expect_str_eq(out.view.ip.dst, FAR4, "fragment %zu", i);
		cr_expect_eq(out.view.ip.frag_off, i == 0 ? 0 : 1416 + (i - 1) * 1424);
		/* Behind the IP header: the ports of the first one, the bytes of the others. */
		cr_expect_arr_eq(out.packet.data + 34 + (i == 0 ? 8 : 0),
				 parts[i].data + 34 + (i == 0 ? 8 : 0), 100);
	}
}

Test(kpr_ns_errors, later_fragments_without_a_first_one)
{
	struct packet whole, parts[4];
	struct packet_spec spec = *BED_UDP(CLIENT4, 40000, VIP4, 53);

	spec.payload_len = 2000;
	packet_build(&whole, &spec);
	packet_fragment(&whole, 1416, 1424, 78, parts, PB_ARRAY_LEN(parts));
	EXPECT_OUT(bed_run_packet(IN, &parts[1]), "dropped 175");
	spec.dst = NODE4;
	packet_build(&whole, &spec);
	packet_fragment(&whole, 1416, 1424, 79, parts, PB_ARRAY_LEN(parts));
	cr_expect_eq(bed_run_packet(IN, &parts[1]).verdict, -1, "perhaps a socket's");
}
