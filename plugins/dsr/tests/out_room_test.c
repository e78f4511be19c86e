/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node that has the frontend, packet by packet: room in headers and below the MTU, what the
 * client is told, fragments, tags, and the dispatches that put a header in front.
 */
#include "leave.h"

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

static void D17_a_first_fragment_without_room_is_left_to_SNAT(void)
{
	struct packet_spec in = udp(2000);
	static struct packet whole, parts[2];

	packet_build(&whole, &in);
	CHECK_NUMBER(packet_fragment(&whole, 1480, 1480, 77, parts, 2), 2);
	new_flow(&dns);
	CHECK_NUMBER(node_run(&node, DEV, &parts[0], &out), PASS);
	CHECK(packet_diff(&out, &parts[0]) == NULL);
	CHECK_NUMBER(node_entries(&node), 0);
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

	if (!may_run())
		return 0;
	CASE(D10_36_bytes_of_options_leave_no_room);
	CASE(D11_other_options_stay_behind_it);
	CASE(D15_1496_bytes_are_answered_with_an_MTU_of_1492);
	CASE(D15_without_DF_it_is_answered_too);
	CASE(D15_IPv6_is_answered_with_an_MTU_of_1476);
	CASE(D16_1492_bytes_pass);
	CASE(D35_a_SYN_with_data_near_the_MSS_is_answered);
	CASE(D17_the_first_fragment_carries_it_the_others_dont);
	CASE(D17_a_first_fragment_without_room_is_left_to_SNAT);
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
