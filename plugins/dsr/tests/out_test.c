/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The node that has the frontend, packet by packet: what is taken over, what it looks like on the
 * wire, and what is left to SNAT unchanged. Slot kpr's findings are given, not computed.
 */
#include "leave.h"

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

static void D3_K27_traffic_policy_Local_never_carries_it(void)
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

int main(void)
{
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
	CASE(D3_K27_traffic_policy_Local_never_carries_it);
	CASE_WITH(&hybrid, D9_hybrid_sends_TCP_this_way_and_UDP_by_SNAT);
	CASE_WITH(&snat, snat_mode_takes_over_what_a_Service_asks_for);
	CASE(a_Service_may_ask_for_SNAT);
	CASE(D27_mixed_families_are_left_alone);
	CASE(D30_SCTP_is_left_to_SNAT);
	CASE(D44_a_node_as_client_is_left_to_SNAT);
	CASE(a_pool_that_nobody_could_search_is_left_to_SNAT);
	CASE(no_Service_no_change);
	return finish();
}
