/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend's node, packet by packet: which frontends are believed, what the entries are that
 * kpr's programs then translate answers by, what the backend gets to see.
 */
#include "cases.h"

#define DEV PB_HOOK_DEV_INGRESS
#define POD_OUT PB_HOOK_POD_EGRESS

static struct packet out;

/* As it arrives from the frontend's node, `options` in front. */
static struct packet_spec arriving(struct packet_spec spec, const char *options)
{
	spec = to_backend(spec);
	spec.options = options;
	return spec;
}

/* The backend sees `should`. */
static void delivered(const struct packet_spec *in, const struct packet_spec *should)
{
	CHECK_NUMBER(run_spec(DEV, in, &out), PASS);
	CHECK_PACKET(&out, should);
}

/* What the backend answers to the packet of `in`, as the pod sends it. */
static struct packet_spec answer_to(const struct packet_spec *in, uint8_t tcp_flags)
{
	struct packet_spec spec = *in;

	spec.src = in->dst;
	spec.dst = in->src;
	spec.sport = in->dport;
	spec.dport = in->sport;
	spec.options = NULL;
	spec.tcp_flags = tcp_flags;
	return spec;
}

/* kpr translates the answer's source into `addr`:`port`, its destination into `client_port`. */
static void answered_as(const struct packet_spec *in, const char *addr, uint16_t port,
			uint16_t client_port)
{
	struct packet_spec answer = answer_to(in, 0);
	struct pb_ct ct = {0};
	uint8_t family;
	union pb_addr source = node_addr(addr, &family);
	union pb_addr client = node_addr(in->src, &family);

	CHECK(ct_get(&answer, &ct));
	CHECK_NUMBER(ct.flags, PB_CT_REPLY | PB_CT_LOCAL | PB_CT_DSR_BACKEND);
	CHECK(memcmp(&ct.saddr, &source, sizeof(source)) == 0);
	CHECK(memcmp(&ct.daddr, &client, sizeof(client)) == 0);
	CHECK_NUMBER(ntohs(ct.sport), port);
	CHECK_NUMBER(ntohs(ct.dport), client_port);
}

/* It goes to the pod as it came and nothing is remembered. */
static void ignored(const struct packet_spec *in, unsigned untrusted)
{
	unsigned before = node_entries(&node);

	delivered(in, in);
	CHECK_NUMBER(node_entries(&node), before);
	CHECK_NUMBER(node_stats(&node).untrusted, untrusted);
}

static void forget_all(void)
{
	struct pb_ct_key key;

	while (bpf_map_get_next_key(node_map(&node, "pb_ct"), NULL, &key) == 0)
		bpf_map_delete_elem(node_map(&node, "pb_ct"), &key);
}

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

/* ---- two flows, one tuple; flows that are forgotten ---- */

static void D18_a_SYN_without_it_ends_the_flow(void)
{
	struct packet_spec in = arriving(tcp(PACKET_SYN), OPTION), plain = in;
	struct packet_spec answer;

	plain.options = NULL;
	node_service(&node, &web);
	delivered(&in, &plain);
	CHECK_NUMBER(node_entries(&node), 2);
	delivered(&plain, &plain);
	CHECK_NUMBER(node_entries(&node), 0);
	/* The pod's own address may answer now. */
	answer = answer_to(&plain, PACKET_SYN | PACKET_ACK);
	CHECK_NUMBER(run_spec(POD_OUT, &answer, &out), PASS);
	plain.tcp_flags = PACKET_ACK;
	delivered(&plain, &plain);
	CHECK_NUMBER(node_stats(&node).nat_missing, 0);
}

static struct node_service second(const struct node_service *first)
{
	struct node_service s = *first;

	s.addr = "198.51.100.2";
	s.base += 128;
	return s;
}

#define SECOND_OPTION "9a0801bbc6336402"

static void D19_the_clients_port_of_a_datagram_moves(void)
{
	struct node_service s = second(&dns);
	struct packet_spec first = arriving(udp(10), OPTION),
			   other = arriving(udp(10), SECOND_OPTION);
	struct packet_spec plain = first, moved;
	struct packet_view view;

	plain.options = NULL;
	node_service(&node, &dns);
	node_service(&node, &s);
	delivered(&first, &plain);
	CHECK_NUMBER(run_spec(DEV, &other, &out), PASS);
	CHECK(packet_check(&out) == NULL && packet_read(&out, &view) == NULL);
	CHECK(view.ip.sport >= 32768 && view.ip.dport == 8443);
	moved = plain;
	moved.sport = view.ip.sport;
	CHECK_PACKET(&out, &moved);
	answered_as(&moved, "198.51.100.2", 443, 5000);
	/* Both go on. */
	delivered(&first, &plain);
	delivered(&other, &moved);
	answered_as(&plain, VIP, 443, 5000);
	CHECK_NUMBER(node_entries(&node), 4);
	CHECK_NUMBER(node_stats(&node).moved, 1);
}

static void D19_TCPs_second_flow_waits_for_the_end_of_the_first(void)
{
	struct node_service s = second(&web);
	struct packet_spec first = arriving(tcp(PACKET_SYN), OPTION);
	struct packet_spec other = arriving(tcp(PACKET_SYN), SECOND_OPTION), plain = first;
	struct packet_spec reset = arriving(tcp(PACKET_RST), NULL);

	plain.options = NULL;
	node_service(&node, &web);
	node_service(&node, &s);
	delivered(&first, &plain);
	CHECK_NUMBER(run_spec(DEV, &other, &out), DROP);
	CHECK_NUMBER(node_drops(&node, DEV, PB_REASON_NAT_NO_PORT), 1);
	CHECK_NUMBER(node_stats(&node).conflicts, 1);
	answered_as(&plain, VIP, 443, 5000);
	delivered(&reset, &reset);
	delivered(&other, &plain);
	answered_as(&plain, "198.51.100.2", 443, 5000);
	CHECK_NUMBER(node_entries(&node), 2);
}

static void D20_a_forgotten_flow_is_dropped_both_ways(void)
{
	struct packet_spec in = arriving(tcp(PACKET_SYN), OPTION), plain = in;
	struct packet_spec answer, ack = arriving(tcp(PACKET_ACK), NULL);

	plain.options = NULL;
	node_service(&node, &web);
	delivered(&in, &plain);
	forget_all();
	CHECK_NUMBER(run_spec(DEV, &ack, &out), DROP);
	CHECK_NUMBER(node_drops(&node, DEV, PB_REASON_UNKNOWN_FLOW), 1);
	answer = answer_to(&plain, PACKET_ACK);
	CHECK_NUMBER(run_spec(POD_OUT, &answer, &out), DROP);
	CHECK_NUMBER(node_drops(&node, POD_OUT, PB_REASON_UNKNOWN_FLOW), 1);
	CHECK_NUMBER(node_stats(&node).nat_missing, 2);
	/* Other clients of the pod, and what the pod itself opens, are nobody's business. */
	ack.sport++;
	delivered(&ack, &ack);
	answer.dport++;
	CHECK_NUMBER(run_spec(POD_OUT, &answer, &out), PASS);
	answer.dport--;
	answer.tcp_flags = PACKET_SYN;
	CHECK_NUMBER(run_spec(POD_OUT, &answer, &out), PASS);
}

static void D17_fragments_the_first_is_read(void)
{
	struct packet_spec in = udp(2000), plain;
	static struct packet whole, parts[2];

	in.dst = POD;
	in.dport = 8443;
	plain = in;
	in.options = OPTION;
	node_service(&node, &dns);
	packet_build(&whole, &in);
	CHECK_NUMBER(packet_fragment(&whole, 1024, 1024, 77, parts, 2), 2);
	CHECK_NUMBER(node_run(&node, DEV, &parts[0], &out), PASS);
	CHECK(packet_check(&out) == NULL);
	CHECK_NUMBER(out.len, parts[0].len - 8);
	CHECK_NUMBER(node_run(&node, DEV, &parts[1], &out), PASS);
	CHECK(packet_diff(&out, &parts[1]) == NULL);
	answered_as(&plain, VIP, 443, 5000);
}

static void D42_a_tag_inside_the_frame_is_counted_right(void)
{
	struct packet_spec in = arriving(tcp(PACKET_SYN), OPTION), plain = in;

	in.vlan[0] = 42;
	plain.options = NULL;
	node_service(&node, &web);
	/* The kernel can't take bytes out behind a tag that is still in the frame. */
	delivered(&in, &in);
	CHECK_NUMBER(node_stats(&node).kept, 1);
	answered_as(&plain, VIP, 443, 5000);
}

/* ---- Geneve that isn't as it should be ---- */

#define HEADERS (14 + 20 + 8)

/* From another node, or from whoever has `src`. `tunnel`: what is behind UDP; a SYN follows. */
static void tunnelled(struct packet *p, const char *src, const uint8_t *tunnel, size_t len)
{
	struct packet_spec in = arriving(tcp(PACKET_SYN), NULL);
	static uint8_t payload[256];
	static struct packet inner;
	struct packet_spec outer = {.src = src,
				    .dst = "172.18.0.2",
				    .protocol = IPPROTO_UDP,
				    .sport = 50000,
				    .dport = 6081,
				    .payload = payload};

	packet_build(&inner, &in);
	memcpy(payload, tunnel, len);
	memcpy(payload + len, inner.data, inner.len);
	outer.payload_len = len + inner.len;
	packet_build(p, &outer);
}

static void Geneve_in_other_shapes(void)
{
	static const struct {
		uint8_t tunnel[28];
		size_t len;
		const char *src;
		int verdict;
		bool out; /* it comes out */
	} rows[] = {
		/* As it should be; with an option that may be ignored before it. */
		{{3, 0x40, 0x65, 0x58, 0, 0, 2, 0, 1, 0x4b, 0x81, 2, 198, 51, 100, 1, 1, 0xbb},
		 20,
		 "172.18.0.9",
		 PASS,
		 true},
		{{4, 0x40, 0x65, 0x58, 0, 0,   2,  0,	9, 9, 0x01,
		  0, 1,	   0x4b, 0x81, 2, 198, 51, 100, 1, 1, 0xbb},
		 24,
		 "172.18.0.9",
		 PASS,
		 true},
		/* A critical one that nobody knows; ours with a wrong length; past the end. */
		{{4, 0x40, 0x65, 0x58, 0, 0,   2,  0,	9, 9, 0x81,
		  0, 1,	   0x4b, 0x81, 2, 198, 51, 100, 1, 1, 0xbb},
		 24,
		 "172.18.0.9",
		 DROP,
		 false},
		{{3, 0x40, 0x65, 0x58, 0, 0, 2, 0, 1, 0x4b, 0x81, 3, 198, 51, 100, 1, 1, 0xbb},
		 20,
		 "172.18.0.9",
		 DROP,
		 false},
		{{2, 0x40, 0x65, 0x58, 0, 0, 2, 0, 1, 0x4b, 0x81, 2, 198, 51, 100, 1, 1, 0xbb},
		 20,
		 "172.18.0.9",
		 DROP,
		 false},
		/* The inner packet is of another family than the frontend. */
		{{6, 0x40, 0x65, 0x58, 0, 0, 2, 0, 1, 0x4b, 0x81, 5},
		 28,
		 "172.18.0.9",
		 DROP,
		 false},
		/* No option; another network; another version; no Ethernet; no node. */
		{{0, 0, 0x65, 0x58, 0, 0, 2, 0}, 8, "172.18.0.9", PASS, false},
		{{3, 0x40, 0x65, 0x58, 0, 0, 9, 0, 1, 0x4b, 0x81, 2, 198, 51, 100, 1, 1, 0xbb},
		 20,
		 "172.18.0.9",
		 PASS,
		 false},
		{{0x43, 0x40, 0x65, 0x58, 0, 0, 2, 0, 1, 0x4b, 0x81, 2, 198, 51, 100, 1, 1, 0xbb},
		 20,
		 "172.18.0.9",
		 PASS,
		 false},
		{{3, 0x40, 0x08, 0x00, 0, 0, 2, 0, 1, 0x4b, 0x81, 2, 198, 51, 100, 1, 1, 0xbb},
		 20,
		 "172.18.0.9",
		 PASS,
		 false},
		{{3, 0x40, 0x65, 0x58, 0, 0, 2, 0, 1, 0x4b, 0x81, 2, 198, 51, 100, 1, 1, 0xbb},
		 20,
		 "192.0.2.66",
		 PASS,
		 false},
	};
	struct packet_spec plain = arriving(tcp(PACKET_SYN), NULL);
	static struct packet p;

	node_service(&node, &web);
	node_identity(&node, "172.18.0.9", PB_IDENTITY_REMOTE_NODE, NULL);
	for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
		bool ok = case_ok;

		case_ok = true;
		forget_all();
		tunnelled(&p, rows[i].src, rows[i].tunnel, rows[i].len);
		CHECK_NUMBER(node_run(&node, DEV, &p, &out), rows[i].verdict);
		if (rows[i].out)
			CHECK_PACKET(&out, &plain);
		else if (rows[i].verdict == PASS)
			CHECK(packet_diff(&out, &p) == NULL);
		CHECK_NUMBER(node_entries(&node), rows[i].out ? 2 : 0);
		if (!case_ok)
			printf("# row %zu\n", i);
		case_ok = case_ok && ok;
	}
}

static void Geneve_cut_short_at_every_byte(void)
{
	static const uint8_t tunnel[] = {3,    0x40, 0x65, 0x58, 0,   0, 2, 0,	  1, 0x4b,
					 0x81, 2,    198,  51,	 100, 1, 1, 0xbb, 0, 0};
	static struct packet p, cut;

	node_service(&node, &web);
	node_identity(&node, "172.18.0.9", PB_IDENTITY_REMOTE_NODE, NULL);
	tunnelled(&p, "172.18.0.9", tunnel, sizeof(tunnel));
	for (size_t len = HEADERS; len < p.len; len++) {
		int verdict;

		cut = p;
		packet_truncate(&cut, len);
		verdict = node_run(&node, DEV, &cut, &out);
		CHECK(verdict == PASS || verdict == DROP);
		forget_all();
	}
	CHECK_NUMBER(node_drops(&node, DEV, PB_REASON_MISSED_TAIL_CALL), 0);
	CHECK(node_drops(&node, DEV, PB_REASON_INVALID_PACKET) > 0);
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
	CASE(D18_a_SYN_without_it_ends_the_flow);
	CASE(D19_the_clients_port_of_a_datagram_moves);
	CASE(D19_TCPs_second_flow_waits_for_the_end_of_the_first);
	CASE(D20_a_forgotten_flow_is_dropped_both_ways);
	CASE(D17_fragments_the_first_is_read);
	CASE(D42_a_tag_inside_the_frame_is_counted_right);
	CASE(Geneve_in_other_shapes);
	CASE(Geneve_cut_short_at_every_byte);
	return finish();
}
