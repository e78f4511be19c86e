/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node that has the frontend, packet by packet: what is taken over, what it looks like on the
 * wire, and what is left to SNAT unchanged. Slot kpr's findings are given, not computed.
 */
#include "cases.h"

#define DEV PB_HOOK_DEV_INGRESS

static struct packet out;

/* The packet goes on to kpr-nat as it came, and nothing is remembered. */
static void left_alone(const struct packet_spec *spec)
{
	unsigned before = node_entries(&node);

	CHECK_NUMBER(run_spec(DEV, spec, &out), PASS);
	CHECK_PACKET(&out, spec);
	CHECK_NUMBER(node_entries(&node), before);
}

/* It leaves for the backend with `options` in front of whatever it had. */
static void sent(const struct packet_spec *in, const char *options)
{
	struct packet_spec should = to_backend(*in);
	static const uint8_t neighbour[6] = {2, 0, 0, 0, 0, 3};

	should.ttl = 63;
	should.options = options;
	should.vlan[0] = 0;
	CHECK_NUMBER(run_spec(DEV, in, &out), SENT);
	CHECK_PACKET(&out, &should);
	CHECK(memcmp(out.data, neighbour, 6) == 0);
}

static void new_flow(const struct node_service *s)
{
	node_service(&node, s);
	node_flow(&node, s, PB_SVC_FLOW_NEW, 0);
}

/* ---- what is taken over ---- */

static void D4_D26_a_SYN_carries_the_frontend(void)
{
	struct packet_spec in = tcp(PACKET_SYN);
	struct pb_ct ct = {0};

	new_flow(&web);
	sent(&in, OPTION);
	CHECK_NUMBER(out.data[14], 0x47);
	CHECK_NUMBER(out.len, 14 + 28 + 20);
	CHECK(ct_get(&in, &ct));
	CHECK_NUMBER(ct.flags, PB_CT_SINGLE | PB_CT_DSR);
	CHECK_NUMBER(ct.dport, htons(8443));
	CHECK_NUMBER(ct.sport, htons(5000));
	CHECK_NUMBER(node_entries(&node), 1);
	CHECK_NUMBER(node_stats(&node).sent, 1);
}

static void D5_a_SYN_again_carries_it_again(void)
{
	struct packet_spec in = tcp(PACKET_SYN);

	new_flow(&web);
	sent(&in, OPTION);
	node_flow(&node, &web, PB_SVC_FLOW_KNOWN, 0);
	sent(&in, OPTION);
	CHECK_NUMBER(node_entries(&node), 1);
}

static void D6_D41_later_packets_carry_nothing_and_are_kpr_nats(void)
{
	struct packet_spec syn = tcp(PACKET_SYN), ack = tcp(PACKET_ACK);

	new_flow(&web);
	sent(&syn, OPTION);
	node_flow(&node, &web, PB_SVC_FLOW_KNOWN, 0);
	left_alone(&ack);
	/* What GRO made of many. */
	ack.payload_len = 3000;
	left_alone(&ack);
}

static void D7_a_SYN_ACK_that_opens_nothing_is_left_alone(void)
{
	struct packet_spec in = tcp(PACKET_SYN | PACKET_ACK);

	new_flow(&web);
	left_alone(&in);
	in.tcp_flags = PACKET_RST;
	left_alone(&in);
}

static void D8_every_datagram_carries_it(void)
{
	struct packet_spec in = udp(100);

	new_flow(&dns);
	sent(&in, OPTION);
	node_flow(&node, &dns, PB_SVC_FLOW_KNOWN, 0);
	sent(&in, OPTION);
	in.no_checksum = true;
	sent(&in, OPTION);
	CHECK_NUMBER(node_entries(&node), 1);
	CHECK_NUMBER(node_stats(&node).sent, 3);
}

static void D22_D21_D43_a_connection_that_another_node_began_carries_it_too(void)
{
	struct packet_spec in = tcp(PACKET_ACK);

	in.payload_len = 10;
	new_flow(&web);
	sent(&in, OPTION);
	in.sport = 5001;
	in.payload_len = 1460;
	CHECK_NUMBER(run_spec(DEV, &in, &out), SENT);
	CHECK_NUMBER(node_drops(&node, DEV, PB_REASON_FRAG_NEEDED), 1);
}

/* IPv6: the header is 24 bytes behind the base header. */
static void check6(size_t at, uint8_t next)
{
	static const uint8_t header[] = {2, 0x1b, 20};
	struct in6_addr vip;

	inet_pton(AF_INET6, VIP6, &vip);
	CHECK_NUMBER(out.data[at], next);
	CHECK(memcmp(out.data + at + 1, header, 3) == 0);
	CHECK(memcmp(out.data + at + 4, &vip, 16) == 0);
	CHECK_NUMBER(out.data[at + 20] << 8 | out.data[at + 21], 443);
	CHECK_NUMBER(out.data[at + 22] | out.data[at + 23], 0);
}

/* Takes it out, and what is left must be the packet without it. */
static void without6(size_t at, size_t next_field, const struct packet_spec *in)
{
	struct packet_spec should = to_backend(*in);
	size_t len = (size_t)(out.data[18] << 8 | out.data[19]) - 24;

	CHECK(packet_check(&out) == NULL);
	out.data[next_field] = out.data[at];
	memmove(out.data + at, out.data + at + 24, out.len - at - 24);
	out.len -= 24;
	out.data[18] = (uint8_t)(len >> 8);
	out.data[19] = (uint8_t)len;
	should.ttl = 63;
	CHECK_PACKET(&out, &should);
}

static void D4_IPv6_a_SYN_carries_a_destination_options_header(void)
{
	struct packet_spec in = tcp6(PACKET_SYN);

	new_flow(&web6);
	CHECK_NUMBER(run_spec(DEV, &in, &out), SENT);
	CHECK_NUMBER(out.data[20], IPPROTO_DSTOPTS);
	check6(54, IPPROTO_TCP);
	without6(54, 20, &in);
}

static void D14_a_hop_by_hop_header_stays_first(void)
{
	struct packet_spec in = tcp6(PACKET_SYN);

	in.ext[0] = IPPROTO_HOPOPTS;
	in.ext[1] = IPPROTO_ROUTING;
	in.n_ext = 2;
	new_flow(&web6);
	CHECK_NUMBER(run_spec(DEV, &in, &out), SENT);
	CHECK_NUMBER(out.data[20], IPPROTO_HOPOPTS);
	CHECK_NUMBER(out.data[54], IPPROTO_DSTOPTS);
	check6(62, IPPROTO_ROUTING);
	without6(62, 54, &in);
}

/* ---- what isn't ---- */

static void D1_D45_a_backend_on_this_node_is_kprs(void)
{
	struct packet_spec in = tcp(PACKET_SYN);

	node_service(&node, &web);
	node_flow(&node, &web, PB_SVC_FLOW_NEW, PB_SVC_BACKEND_LOCAL);
	left_alone(&in);
}

static void D2_local_and_remote_backends_alternate(void)
{
	struct packet_spec in = tcp(PACKET_SYN);

	for (in.sport = 5000; in.sport < 5004; in.sport += 2) {
		node_service(&node, &web);
		node_flow(&node, &web, PB_SVC_FLOW_NEW, PB_SVC_BACKEND_LOCAL);
		left_alone(&in);
		in.sport++;
		node_flow(&node, &web, PB_SVC_FLOW_NEW, 0);
		sent(&in, OPTION);
		in.sport--;
	}
	CHECK_NUMBER(node_entries(&node), 2);
}

static void D3_traffic_policy_Local_never_carries_it(void)
{
	struct node_service s = web;
	struct packet_spec in = tcp(PACKET_SYN);

	s.flags |= PB_SVC_LOCAL;
	new_flow(&s);
	left_alone(&in);
}

static void D9_hybrid_sends_TCP_this_way_and_UDP_by_SNAT(void)
{
	struct packet_spec in = tcp(PACKET_SYN), datagram = udp(20);

	new_flow(&web);
	sent(&in, OPTION);
	new_flow(&dns);
	left_alone(&datagram);
}

static void snat_mode_takes_over_what_a_Service_asks_for(void)
{
	struct node_service s = web;
	struct packet_spec in = tcp(PACKET_SYN);

	new_flow(&s);
	left_alone(&in);
	s.flags |= PB_SVC_USE_DSR;
	new_flow(&s);
	sent(&in, OPTION);
}

static void a_Service_may_ask_for_SNAT(void)
{
	struct node_service s = web;
	struct packet_spec in = tcp(PACKET_SYN);

	s.flags |= PB_SVC_USE_SNAT;
	new_flow(&s);
	left_alone(&in);
}

static void D27_mixed_families_are_left_alone(void)
{
	struct node_service s = web6;
	struct packet_spec in = tcp6(PACKET_SYN);

	s.backends[0] = POD;
	new_flow(&s);
	left_alone(&in);
}

static void D30_SCTP_is_left_to_SNAT(void)
{
	struct node_service s = web;
	struct packet_spec in = tcp(0);

	s.protocol = in.protocol = IPPROTO_SCTP;
	in.seq = 0;
	new_flow(&s);
	left_alone(&in);
}

static void D44_a_node_as_client_is_left_to_SNAT(void)
{
	struct packet_spec in = tcp(PACKET_SYN);

	node_identity(&node, CLIENT, PB_IDENTITY_REMOTE_NODE, NULL);
	new_flow(&web);
	left_alone(&in);
	node_identity(&node, CLIENT, PB_IDENTITY_HOST, NULL);
	left_alone(&in);
	node_identity(&node, CLIENT, 4711, NULL);
	sent(&in, OPTION);
}

static void a_pool_that_nobody_could_search_is_left_to_SNAT(void)
{
	struct node_service s = web;
	struct packet_spec in = tcp(PACKET_SYN);

	s.fill = DSR_POOL_MAX - 1;
	new_flow(&s);
	sent(&in, OPTION);
	s.fill++;
	in.sport++;
	new_flow(&s);
	left_alone(&in);
}

static void no_Service_no_change(void)
{
	struct packet_spec in = tcp(PACKET_ACK);

	left_alone(&in);
	in.tcp_flags = PACKET_SYN;
	left_alone(&in);
}

/* ---- room and sizes ---- */

static void D10_36_bytes_of_options_leave_no_room(void)
{
	struct packet_spec in = tcp(PACKET_SYN);

	in.options = "010101010101010101010101010101010101010101010101010101010101010101010101";
	new_flow(&web);
	CHECK_NUMBER(run_spec(DEV, &in, &out), DROP);
	CHECK_NUMBER(node_drops(&node, DEV, PB_REASON_INVALID_HEADER), 1);
	CHECK_NUMBER(node_stats(&node).no_space, 1);
	CHECK_NUMBER(node_entries(&node), 0);
	/* 32 fit. */
	in.options = "0101010101010101010101010101010101010101010101010101010101010101";
	sent(&in, OPTION "0101010101010101010101010101010101010101010101010101010101010101");
}

static void D11_other_options_stay_behind_it(void)
{
	struct packet_spec in = tcp(PACKET_SYN);

	in.options = "94040000";
	new_flow(&web);
	sent(&in, OPTION "94040000");
}

/* The answer comes from the frontend and quotes what the client sent. */
static void too_big(const struct packet_spec *in, uint32_t mtu)
{
	static struct packet sent_by_client;
	struct packet_view view;
	const char *why;

	CHECK_NUMBER(run_spec(DEV, in, &out), SENT);
	why = packet_check(&out);
	CHECK(!why);
	why = packet_read(&out, &view);
	CHECK(!why && view.has_quote);
	packet_build(&sent_by_client, in);
	CHECK(strcmp(view.ip.src, in->dst) == 0);
	CHECK(strcmp(view.ip.dst, in->src) == 0);
	CHECK_NUMBER(view.ip.icmp_type, view.ip.family == 4 ? 3 : 2);
	CHECK_NUMBER(view.ip.icmp_code, view.ip.family == 4 ? 4 : 0);
	CHECK_NUMBER(view.ip.icmp_rest, mtu);
	CHECK_NUMBER(view.quote.dport, 443);
	CHECK(strcmp(view.quote.dst, in->dst) == 0);
	CHECK(memcmp(out.data + view.quote.l3_off, sent_by_client.data + 14,
		     out.len - view.quote.l3_off) == 0);
	CHECK_NUMBER(node_drops(&node, DEV, PB_REASON_FRAG_NEEDED), 1);
	CHECK_NUMBER(node_stats(&node).mtu, 1);
	CHECK_NUMBER(node_entries(&node), 0);
}

static void D15_1496_bytes_are_answered_with_an_MTU_of_1492(void)
{
	struct packet_spec in = udp(1496 - 28);

	in.df = true;
	new_flow(&dns);
	too_big(&in, 1492);
}

static void D15_without_DF_it_is_answered_too(void)
{
	struct packet_spec in = udp(1493 - 28);

	new_flow(&dns);
	too_big(&in, 1492);
}

static void D15_IPv6_is_answered_with_an_MTU_of_1476(void)
{
	struct packet_spec in = tcp6(PACKET_SYN);

	in.payload_len = 1477 - 60;
	new_flow(&web6);
	too_big(&in, 1476);
}

static void D16_1492_bytes_pass(void)
{
	struct packet_spec in = udp(1492 - 28);

	new_flow(&dns);
	sent(&in, OPTION);
	CHECK_NUMBER(out.len, 14 + 1500);
}

static void D35_a_SYN_with_data_near_the_MSS_is_answered(void)
{
	struct packet_spec in = tcp(PACKET_SYN);

	in.payload_len = 1460;
	new_flow(&web);
	too_big(&in, 1492);
}

static void D17_the_first_fragment_carries_it_the_others_dont(void)
{
	struct packet_spec in = udp(2000), should = to_backend(in);
	static struct packet whole, parts[2];
	struct packet_view view;

	packet_build(&whole, &in);
	CHECK_NUMBER(packet_fragment(&whole, 1024, 1024, 77, parts, 2), 2);
	new_flow(&dns);
	CHECK_NUMBER(node_run(&node, DEV, &parts[0], &out), SENT);
	CHECK(packet_check(&out) == NULL && packet_read(&out, &view) == NULL);
	CHECK(strcmp(view.ip.dst, should.dst) == 0 && view.ip.dport == should.dport);
	CHECK(view.ip.fragment && view.ip.more && view.ip.id == 77);
	CHECK_NUMBER(view.ip.header_len, 28);
	node_flow(&node, &dns, PB_SVC_FLOW_KNOWN, 0);
	CHECK_NUMBER(node_run(&node, DEV, &parts[1], &out), PASS);
	CHECK(packet_diff(&out, &parts[1]) == NULL);
	node_flow(&node, &dns, PB_SVC_FLOW_NEW, 0);
	CHECK_NUMBER(node_run(&node, DEV, &parts[1], &out), PASS);
	CHECK(packet_diff(&out, &parts[1]) == NULL);
}

static void D31_the_last_hop_is_answered_by_this_node(void)
{
	struct packet_spec in = tcp(PACKET_SYN);
	struct packet_view view;

	in.ttl = 1;
	new_flow(&web);
	CHECK_NUMBER(run_spec(DEV, &in, &out), SENT);
	CHECK(packet_check(&out) == NULL && packet_read(&out, &view) == NULL);
	CHECK_NUMBER(view.ip.icmp_type, 11);
	CHECK(strcmp(view.ip.src, "172.18.0.2") == 0 && strcmp(view.ip.dst, CLIENT) == 0);
	CHECK(view.has_quote && strcmp(view.quote.dst, VIP) == 0 && view.quote.dport == 443);
	CHECK_NUMBER(node_drops(&node, DEV, PB_REASON_TTL_EXCEEDED), 1);
	CHECK_NUMBER(node_entries(&node), 0);
	in.ttl = 2;
	CHECK_NUMBER(run_spec(DEV, &in, &out), SENT);
	CHECK(packet_read(&out, &view) == NULL && view.ip.ttl == 1);
}

static void D42_a_VLAN_tag_counts_for_nothing_and_stays_behind(void)
{
	struct packet_spec in = tcp(PACKET_SYN);

	in.vlan[0] = 42;
	new_flow(&web);
	sent(&in, OPTION);
	in = udp(1492 - 28);
	in.vlan[0] = 42;
	new_flow(&dns);
	sent(&in, OPTION);
	in = udp(1493 - 28);
	in.sport++;
	in.vlan[0] = 42;
	CHECK_NUMBER(run_spec(DEV, &in, &out), SENT);
	CHECK_NUMBER(node_stats(&node).mtu, 1);
}

static void a_backend_without_a_route_drops_and_remembers_nothing(void)
{
	struct node_service s = web;
	struct packet_spec in = tcp(PACKET_SYN);

	s.backends[0] = "203.0.113.9";
	new_flow(&s);
	CHECK_NUMBER(run_spec(DEV, &in, &out), DROP);
	CHECK_NUMBER(node_drops(&node, DEV, PB_REASON_NO_FIB), 1);
	CHECK_NUMBER(node_entries(&node), 0);
}

/* ---- in front of the packet ---- */

/* What is behind `len` bytes of outer headers, which end with an inner Ethernet header or not. */
static void inside(size_t len, bool has_eth, const struct packet_spec *should)
{
	static struct packet inner;
	size_t from = has_eth ? 14 + len - 14 : 14 + len;
	size_t eth = has_eth ? 0 : 14;

	CHECK(out.len > from + 20);
	memcpy(inner.data, out.data, 14);
	inner.data[12] = should->src[4] == ':' ? 0x86 : 0x08;
	inner.data[13] = should->src[4] == ':' ? 0xdd : 0x00;
	memcpy(inner.data + eth, out.data + from, out.len - from);
	inner.len = out.len - from + eth;
	CHECK_PACKET(&inner, should);
}

static void outer_is(const char *src, const char *dst, uint8_t protocol)
{
	struct packet_view view;
	const char *why = packet_check(&out);

	if (why)
		printf("# %s\n", why);
	CHECK(!why && packet_read(&out, &view) == NULL);
	CHECK(strcmp(view.ip.src, src) == 0 && strcmp(view.ip.dst, dst) == 0);
	CHECK_NUMBER(view.ip.protocol, protocol);
	CHECK_NUMBER(view.ip.ttl, 64);
}

static void IPIP_takes_the_clients_packet_to_the_backend(void)
{
	struct packet_spec in = tcp(PACKET_SYN), should = in;
	struct pb_ct ct = {0};

	should.ttl = 63;
	in.vlan[0] = 42;
	new_flow(&web);
	CHECK_NUMBER(run_spec(DEV, &in, &out), SENT);
	outer_is("172.18.0.2", POD, IPPROTO_IPIP);
	inside(20, false, &should);
	/* Later packets are kpr-nat's, which changes the destination. */
	CHECK(ct_get(&in, &ct) && ct.flags == (PB_CT_SINGLE | PB_CT_DSR) &&
	      ct.dport == htons(8443));
	in = tcp6(PACKET_SYN);
	should = in;
	should.ttl = 63;
	new_flow(&web6);
	CHECK_NUMBER(run_spec(DEV, &in, &out), SENT);
	outer_is("fd00:18::2", POD6, 41);
	inside(40, false, &should);
}

static void D15_D16_IPIP_needs_20_bytes(void)
{
	struct packet_spec in = udp(1480 - 28);

	new_flow(&dns);
	CHECK_NUMBER(run_spec(DEV, &in, &out), SENT);
	CHECK_NUMBER(out.len, 14 + 1500);
	in = udp(1481 - 28);
	in.sport++;
	CHECK_NUMBER(run_spec(DEV, &in, &out), SENT);
	CHECK_NUMBER(out.data[14 + 9], IPPROTO_ICMP);
	CHECK_NUMBER(out.data[14 + 26] << 8 | out.data[14 + 27], 1480);
	CHECK_NUMBER(node_stats(&node).mtu, 1);
}

static void D10_options_need_no_room_in_a_tunnel(void)
{
	struct packet_spec in = tcp(PACKET_SYN), should = in;

	in.options = "010101010101010101010101010101010101010101010101010101010101010101010101";
	should = in;
	should.ttl = 63;
	new_flow(&web);
	CHECK_NUMBER(run_spec(DEV, &in, &out), SENT);
	inside(20, false, &should);
}

static const uint8_t geneve4[] = {0x03, 0x40, 0x65, 0x58, 0,   0, 2, 0,	   0x01, 0x4b,
				  0x81, 2,    198,  51,	  100, 1, 1, 0xbb, 0,	 0};

static void Geneve_takes_the_packet_to_the_backends_node(void)
{
	struct packet_spec in = tcp(PACKET_SYN), should = to_backend(in);

	should.ttl = 63;
	node_identity(&node, POD, 300, "172.18.0.3");
	new_flow(&web);
	CHECK_NUMBER(run_spec(DEV, &in, &out), SENT);
	outer_is("172.18.0.2", "172.18.0.3", IPPROTO_UDP);
	CHECK_NUMBER(out.data[36] << 8 | out.data[37], 6081);
	CHECK(memcmp(out.data + 42, geneve4, sizeof(geneve4)) == 0);
	inside(62, true, &should);
	in = tcp6(PACKET_SYN);
	should = to_backend(in);
	should.ttl = 63;
	node_identity(&node, POD6, 300, "172.18.0.3");
	new_flow(&web6);
	CHECK_NUMBER(run_spec(DEV, &in, &out), SENT);
	outer_is("172.18.0.2", "172.18.0.3", IPPROTO_UDP);
	CHECK_NUMBER(out.data[42], 6);
	CHECK_NUMBER(out.data[42 + 11], 5);
	CHECK_NUMBER(out.data[42 + 28] << 8 | out.data[42 + 29], 443);
	inside(74, true, &should);
}

static void Geneve_to_an_unknown_node_is_dropped(void)
{
	struct packet_spec in = tcp(PACKET_SYN);

	new_flow(&web);
	CHECK_NUMBER(run_spec(DEV, &in, &out), DROP);
	CHECK_NUMBER(node_drops(&node, DEV, PB_REASON_NO_TUNNEL), 1);
	CHECK_NUMBER(node_entries(&node), 0);
}

static void D15_D16_Geneve_needs_62_bytes(void)
{
	struct packet_spec in = udp(1438 - 28);

	node_identity(&node, POD, 300, "172.18.0.3");
	new_flow(&dns);
	CHECK_NUMBER(run_spec(DEV, &in, &out), SENT);
	CHECK_NUMBER(out.len, 14 + 1500);
	in = udp(1439 - 28);
	in.sport++;
	CHECK_NUMBER(run_spec(DEV, &in, &out), SENT);
	CHECK_NUMBER(out.data[14 + 9], IPPROTO_ICMP);
	CHECK_NUMBER(out.data[14 + 26] << 8 | out.data[14 + 27], 1438);
}

static void D17_fragments_never_go_into_a_tunnel(void)
{
	struct packet_spec in = udp(2000);
	static struct packet whole, parts[2];

	packet_build(&whole, &in);
	CHECK_NUMBER(packet_fragment(&whole, 1024, 1024, 77, parts, 2), 2);
	new_flow(&dns);
	CHECK_NUMBER(node_run(&node, DEV, &parts[0], &out), PASS);
	CHECK(packet_diff(&out, &parts[0]) == NULL);
}

static void D25_what_a_pod_sends_never_carries_it(void)
{
	struct packet_spec in = tcp(PACKET_SYN);

	new_flow(&web);
	CHECK_NUMBER(run_spec(PB_HOOK_POD_EGRESS, &in, &out), PASS);
	CHECK_PACKET(&out, &in);
	CHECK_NUMBER(node_entries(&node), 0);
}

int main(void)
{
	static const struct node_config ipip = {.mode = DSR_MODE_DSR, .dispatch = DSR_IPIP};
	static const struct node_config geneve = {.mode = DSR_MODE_DSR, .dispatch = DSR_GENEVE};
	static const struct node_config hybrid = {.mode = DSR_MODE_HYBRID};
	static const struct node_config snat = {.mode = DSR_MODE_SNAT};

	if (!may_run())
		return 0;
	CASE(D4_D26_a_SYN_carries_the_frontend);
	CASE(D5_a_SYN_again_carries_it_again);
	CASE(D6_D41_later_packets_carry_nothing_and_are_kpr_nats);
	CASE(D7_a_SYN_ACK_that_opens_nothing_is_left_alone);
	CASE(D8_every_datagram_carries_it);
	CASE(D22_D21_D43_a_connection_that_another_node_began_carries_it_too);
	CASE(D4_IPv6_a_SYN_carries_a_destination_options_header);
	CASE(D14_a_hop_by_hop_header_stays_first);
	CASE(D1_D45_a_backend_on_this_node_is_kprs);
	CASE(D2_local_and_remote_backends_alternate);
	CASE(D3_traffic_policy_Local_never_carries_it);
	CASE_WITH(&hybrid, D9_hybrid_sends_TCP_this_way_and_UDP_by_SNAT);
	CASE_WITH(&snat, snat_mode_takes_over_what_a_Service_asks_for);
	CASE(a_Service_may_ask_for_SNAT);
	CASE(D27_mixed_families_are_left_alone);
	CASE(D30_SCTP_is_left_to_SNAT);
	CASE(D44_a_node_as_client_is_left_to_SNAT);
	CASE(a_pool_that_nobody_could_search_is_left_to_SNAT);
	CASE(no_Service_no_change);
	CASE(D10_36_bytes_of_options_leave_no_room);
	CASE(D11_other_options_stay_behind_it);
	CASE(D15_1496_bytes_are_answered_with_an_MTU_of_1492);
	CASE(D15_without_DF_it_is_answered_too);
	CASE(D15_IPv6_is_answered_with_an_MTU_of_1476);
	CASE(D16_1492_bytes_pass);
	CASE(D35_a_SYN_with_data_near_the_MSS_is_answered);
	CASE(D17_the_first_fragment_carries_it_the_others_dont);
	CASE(D31_the_last_hop_is_answered_by_this_node);
	CASE(D42_a_VLAN_tag_counts_for_nothing_and_stays_behind);
	CASE(a_backend_without_a_route_drops_and_remembers_nothing);
	CASE_WITH(&ipip, IPIP_takes_the_clients_packet_to_the_backend);
	CASE_WITH(&ipip, D15_D16_IPIP_needs_20_bytes);
	CASE_WITH(&ipip, D17_fragments_never_go_into_a_tunnel);
	CASE_WITH(&ipip, D10_options_need_no_room_in_a_tunnel);
	CASE_WITH(&geneve, Geneve_takes_the_packet_to_the_backends_node);
	CASE_WITH(&geneve, Geneve_to_an_unknown_node_is_dropped);
	CASE_WITH(&geneve, D15_D16_Geneve_needs_62_bytes);
	CASE_WITH(&geneve, D17_fragments_never_go_into_a_tunnel);
	CASE(D25_what_a_pod_sends_never_carries_it);
	return finish();
}
