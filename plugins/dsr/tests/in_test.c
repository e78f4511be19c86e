/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend's node, packet by packet: which frontends are believed, what the entries are that
 * kpr's programs then translate answers by, what the backend gets to see.
 */
#include "arrive.h"

/* ---- what is believed ---- */

static void D4_the_frontend_of_a_SYN_becomes_the_answers_source(void)
{
	struct packet_spec in = arriving(tcp(PACKET_SYN), OPTION), plain = in;

	plain.options = NULL;
	node_service(&node, &web);
	delivered(&in, &plain);
	CHECK_NUMBER(out.data[14], 0x45);
	CHECK_NUMBER(node_entries(&node), 2);
	CHECK_NUMBER(node_stats(&node).arrived, 1);
	answered_as(&plain, VIP, 443, 5000);
}

static void D5_a_SYN_again_refreshes_the_same_entries(void)
{
	struct packet_spec in = arriving(tcp(PACKET_SYN), OPTION), plain = in;
	struct packet_spec answer;
	struct pb_ct_key key;
	struct pb_ct ct = {0};

	plain.options = NULL;
	answer = answer_to(&plain, 0);
	node_service(&node, &web);
	delivered(&in, &plain);
	/* As if it were long ago. */
	in.dst = VIP;
	in.dport = 443;
	key = ct_key(&in);
	in = arriving(tcp(PACKET_SYN), OPTION);
	CHECK(bpf_map_lookup_elem(node_map(&node, "pb_ct"), &key, &ct) == 0);
	ct.expires -= 30;
	CHECK(bpf_map_update_elem(node_map(&node, "pb_ct"), &key, &ct, BPF_EXIST) == 0);
	delivered(&in, &plain);
	CHECK_NUMBER(node_entries(&node), 2);
	CHECK(ct_get(&answer, &ct));
	CHECK(bpf_map_lookup_elem(node_map(&node, "pb_ct"), &key, &ct) == 0);
	CHECK_NUMBER(ct.flags, PB_CT_LOCAL | PB_CT_DSR_BACKEND);
	CHECK(ct_get(&answer, &ct) && ct.expires > 30);
}

static void D6_later_packets_age_the_entries(void)
{
	struct packet_spec in = arriving(tcp(PACKET_SYN), OPTION), plain = in;
	struct packet_spec answer, ack = arriving(tcp(PACKET_ACK), NULL);
	struct pb_ct ct = {0};

	plain.options = NULL;
	answer = answer_to(&plain, 0);
	node_service(&node, &web);
	delivered(&in, &plain);
	delivered(&ack, &ack);
	CHECK(ct_get(&answer, &ct) && ct.state == PB_CT_OPENING);
	ack.tcp_flags |= PACKET_RST;
	delivered(&ack, &ack);
	CHECK(ct_get(&answer, &ct));
	CHECK_NUMBER(ct.state, PB_CT_CLOSING);
	CHECK_NUMBER(node_entries(&node), 2);
}

static void D8_each_datagram_finds_the_entries_of_the_first(void)
{
	struct packet_spec in = arriving(udp(64), OPTION), plain = in;

	plain.options = NULL;
	node_service(&node, &dns);
	for (int i = 0; i < 3; i++)
		delivered(&in, &plain);
	CHECK_NUMBER(node_entries(&node), 2);
	CHECK_NUMBER(node_stats(&node).arrived, 3);
	answered_as(&plain, VIP, 443, 5000);
}

static void D22_D43_a_packet_in_the_middle_of_a_connection_makes_entries_too(void)
{
	struct packet_spec in = arriving(tcp(PACKET_ACK), OPTION), plain = in;
	struct packet_spec answer;
	struct pb_ct ct = {0};

	plain.options = NULL;
	node_service(&node, &web);
	delivered(&in, &plain);
	/* Should the pod answer by RST, its source is the frontend. */
	answered_as(&plain, VIP, 443, 5000);
	answer = answer_to(&plain, 0);
	CHECK(ct_get(&answer, &ct) && ct.state == PB_CT_ESTABLISHED);
	/* Another node sends on the same flow: the same entries. */
	delivered(&in, &plain);
	CHECK_NUMBER(node_entries(&node), 2);
}

static void D11_other_options_are_kept(void)
{
	struct packet_spec in = arriving(tcp(PACKET_SYN), OPTION "94040000"), plain = in;

	plain.options = "94040000";
	node_service(&node, &web);
	delivered(&in, &plain);
	CHECK_NUMBER(node_entries(&node), 2);
}

static void the_option_stays_where_it_is_wanted(void)
{
	struct packet_spec in = arriving(tcp(PACKET_SYN), OPTION);

	node_service(&node, &web);
	delivered(&in, &in);
	CHECK_NUMBER(node_entries(&node), 2);
}

/* Puts the header for VIP6:443 at `at` into a frame; `next_field` then says 60. */
static void insert6(struct packet *p, size_t at, size_t next_field)
{
	size_t len = (size_t)(p->data[18] << 8 | p->data[19]) + 24;

	memmove(p->data + at + 24, p->data + at, p->len - at);
	memset(p->data + at, 0, 24);
	p->data[at] = p->data[next_field];
	p->data[at + 1] = 2;
	p->data[at + 2] = 0x1b;
	p->data[at + 3] = 20;
	inet_pton(AF_INET6, VIP6, p->data + at + 4);
	p->data[at + 20] = 443 >> 8;
	p->data[at + 21] = 443 & 0xff;
	p->data[next_field] = IPPROTO_DSTOPTS;
	p->data[18] = (uint8_t)(len >> 8);
	p->data[19] = (uint8_t)len;
	p->len += 24;
}

static void D4_IPv6_the_header_is_read_and_taken_out(void)
{
	struct packet_spec in = arriving(tcp6(PACKET_SYN), NULL);
	static struct packet p;

	node_service(&node, &web6);
	packet_build(&p, &in);
	insert6(&p, 54, 20);
	CHECK(packet_check(&p) == NULL);
	CHECK_NUMBER(node_run(&node, DEV, &p, &out), PASS);
	CHECK_PACKET(&out, &in);
	answered_as(&in, VIP6, 443, 5000);
}

static void D14_IPv6_behind_a_hop_by_hop_header(void)
{
	struct packet_spec in = arriving(tcp6(PACKET_SYN), NULL);
	static struct packet p;

	in.ext[0] = IPPROTO_HOPOPTS;
	in.ext[1] = IPPROTO_ROUTING;
	in.n_ext = 2;
	node_service(&node, &web6);
	packet_build(&p, &in);
	insert6(&p, 62, 54);
	CHECK_NUMBER(node_run(&node, DEV, &p, &out), PASS);
	CHECK_PACKET(&out, &in);
	answered_as(&in, VIP6, 443, 5000);
}

static void D39_the_answers_source_is_a_VIP_that_no_node_has(void)
{
	struct node_service s = web;
	struct packet_spec in = arriving(tcp(PACKET_SYN), "9a0801bbcb007163"), plain = in;

	s.addr = "203.0.113.99";
	s.flags = PB_SVC_EXTERNAL_IP << PB_SVC_KIND_SHIFT;
	plain.options = NULL;
	node_service(&node, &s);
	delivered(&in, &plain);
	answered_as(&plain, "203.0.113.99", 443, 5000);
}

/* Port 30080 at 172.18.0.9, another address of node L. */
#define NODE_PORT_OPTION "9a087580ac120009"

static struct node_service node_port(void)
{
	struct node_service s = web;

	s.addr = NULL;
	s.family = 4;
	s.port = 30080;
	s.flags = NODE_PORT;
	return s;
}

static void D40_a_NodePort_is_answered_from_the_very_address_that_was_asked(void)
{
	struct node_service s = node_port();
	struct packet_spec in = arriving(tcp(PACKET_SYN), NODE_PORT_OPTION), plain = in;

	plain.options = NULL;
	node_service(&node, &s);
	node_identity(&node, "172.18.0.9", PB_IDENTITY_REMOTE_NODE, NULL);
	delivered(&in, &plain);
	answered_as(&plain, "172.18.0.9", 30080, 5000);
}

static void D36_D40_a_NodePort_at_an_address_that_is_no_nodes_is_ignored(void)
{
	struct node_service s = node_port();
	struct packet_spec in = arriving(tcp(PACKET_SYN), NODE_PORT_OPTION);

	node_service(&node, &s);
	ignored(&in, 1);
}

static void D40_unless_the_configuration_says_any_address(void)
{
	struct node_service s = node_port();
	struct packet_spec in = arriving(tcp(PACKET_SYN), NODE_PORT_OPTION), plain = in;

	plain.options = NULL;
	node_service(&node, &s);
	delivered(&in, &plain);
	answered_as(&plain, "172.18.0.9", 30080, 5000);
}

static void the_backends_of_another_scope_count(void)
{
	struct node_service in_scope = web;
	struct packet_spec in = arriving(tcp(PACKET_SYN), OPTION);

	/* For clients outside there are none. */
	in_scope.flags |= PB_SVC_SPLIT;
	node_service(&node, &in_scope);
	ignored(&in, 1);
}

/* ---- what isn't ---- */

static void D12_an_option_of_another_length_is_ignored(void)
{
	struct packet_spec in = arriving(tcp(PACKET_SYN), "9a0601bbc6330101");

	node_service(&node, &web);
	ignored(&in, 0);
}

static void D13_a_header_of_24_bytes_is_ignored(void)
{
	struct packet_spec in = arriving(tcp(PACKET_SYN), "9a0801bb");

	node_service(&node, &web);
	ignored(&in, 0);
}

static void an_option_that_isnt_the_first_is_ignored(void)
{
	struct packet_spec in = arriving(tcp(PACKET_SYN), "94040000" OPTION);

	node_service(&node, &web);
	ignored(&in, 0);
}

static void D36_a_forged_frontend_is_ignored_and_counted(void)
{
	struct packet_spec in = arriving(tcp(PACKET_SYN), "9a0801bbc6336402");

	node_service(&node, &web);
	ignored(&in, 1);
	/* The protocol is part of it. */
	in = arriving(udp(10), OPTION);
	ignored(&in, 2);
}

static void D37_a_frontend_whose_backend_is_another_is_ignored(void)
{
	struct node_service other = web;
	struct packet_spec in = arriving(tcp(PACKET_SYN), "9a0801bbc6336403");

	node_service(&node, &web);
	other.addr = "198.51.100.3";
	other.base = 64;
	other.backends[0] = "10.244.3.6";
	node_service(&node, &other);
	ignored(&in, 1);
	/* The address, but another port. */
	in = arriving(tcp(PACKET_SYN), OPTION);
	in.dport = 8444;
	ignored(&in, 2);
}

static void D37_the_last_of_a_large_pool_is_found(void)
{
	struct node_service s = web;
	struct packet_spec in = arriving(tcp(PACKET_SYN), OPTION), plain = in;

	plain.options = NULL;
	s.fill = DSR_POOL_MAX - 1;
	node_service(&node, &s);
	delivered(&in, &plain);
	CHECK_NUMBER(node_entries(&node), 2);
}

static void D38_a_Service_that_is_gone_ends_no_flow_and_begins_none(void)
{
	struct packet_spec in = arriving(udp(10), OPTION), plain = in;

	plain.options = NULL;
	node_service(&node, &dns);
	delivered(&in, &plain);
	node_service_gone(&node, &dns);
	delivered(&in, &plain);
	answered_as(&plain, VIP, 443, 5000);
	in.sport++;
	ignored(&in, 1);
}

static void truncated_headers_are_read_by_nobody(void)
{
	struct packet_spec in = arriving(tcp(PACKET_SYN), OPTION);
	static struct packet p, cut;

	node_service(&node, &web);
	packet_build(&p, &in);
	for (size_t len = 34; len < p.len; len++) {
		cut = p;
		packet_truncate(&cut, len);
		CHECK_NUMBER(node_run(&node, DEV, &cut, &out), PASS);
		CHECK(out.len == cut.len && memcmp(out.data, cut.data, len) == 0);
	}
	CHECK_NUMBER(node_entries(&node), 0);
}

/* As a device in promiscuous mode shows it, or a port of a bridge. */
static void a_frame_to_another_host_is_left_alone(void)
{
	struct packet_spec in = arriving(tcp(PACKET_SYN), OPTION);
	static struct packet p;

	node_service(&node, &web);
	packet_build(&p, &in);
	p.data[5] ^= 0x40;
	CHECK_NUMBER(node_run(&node, DEV, &p, &out), PASS);
	CHECK(out.len == p.len && memcmp(out.data, p.data, p.len) == 0);
	CHECK_NUMBER(node_entries(&node), 0);
}

int main(void)
{
	static const struct node_config keep = {.mode = DSR_MODE_DSR, .keep_option = true};
	static const struct node_config any = {.mode = DSR_MODE_DSR, .any_address = true};

	if (!may_run())
		return 0;
	CASE(D4_the_frontend_of_a_SYN_becomes_the_answers_source);
	CASE(D5_a_SYN_again_refreshes_the_same_entries);
	CASE(D6_later_packets_age_the_entries);
	CASE(D8_each_datagram_finds_the_entries_of_the_first);
	CASE(D22_D43_a_packet_in_the_middle_of_a_connection_makes_entries_too);
	CASE(D11_other_options_are_kept);
	CASE_WITH(&keep, the_option_stays_where_it_is_wanted);
	CASE(D4_IPv6_the_header_is_read_and_taken_out);
	CASE(D14_IPv6_behind_a_hop_by_hop_header);
	CASE(D39_the_answers_source_is_a_VIP_that_no_node_has);
	CASE(D40_a_NodePort_is_answered_from_the_very_address_that_was_asked);
	CASE(D36_D40_a_NodePort_at_an_address_that_is_no_nodes_is_ignored);
	CASE_WITH(&any, D40_unless_the_configuration_says_any_address);
	CASE(the_backends_of_another_scope_count);
	CASE(D12_an_option_of_another_length_is_ignored);
	CASE(D13_a_header_of_24_bytes_is_ignored);
	CASE(an_option_that_isnt_the_first_is_ignored);
	CASE(D36_a_forged_frontend_is_ignored_and_counted);
	CASE(D37_a_frontend_whose_backend_is_another_is_ignored);
	CASE(D37_the_last_of_a_large_pool_is_found);
	CASE(D38_a_Service_that_is_gone_ends_no_flow_and_begins_none);
	CASE(truncated_headers_are_read_by_nobody);
	CASE(a_frame_to_another_host_is_left_alone);
	return finish();
}
