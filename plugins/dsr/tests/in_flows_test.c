/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The backend's node, packet by packet: flows that share a tuple, flows that are forgotten,
 * fragments, tags, and tunnels that aren't as they should be.
 */
#include "arrive.h"

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

static const struct {
	uint8_t tunnel[28];
	size_t len;
	const char *src;
	int verdict;
	bool out; /* it comes out */
} shapes[] = {
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
	{{6, 0x40, 0x65, 0x58, 0, 0, 2, 0, 1, 0x4b, 0x81, 5}, 28, "172.18.0.9", DROP, false},
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

static void Geneve_in_other_shapes(void)
{
	struct packet_spec plain = arriving(tcp(PACKET_SYN), NULL);
	static struct packet p;

	node_service(&node, &web);
	node_identity(&node, "172.18.0.9", PB_IDENTITY_REMOTE_NODE, NULL);
	for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
		bool ok = case_ok;

		case_ok = true;
		forget_all();
		tunnelled(&p, shapes[i].src, shapes[i].tunnel, shapes[i].len);
		CHECK_NUMBER(node_run(&node, DEV, &p, &out), shapes[i].verdict);
		if (shapes[i].out)
			CHECK_PACKET(&out, &plain);
		else if (shapes[i].verdict == PASS)
			CHECK(packet_diff(&out, &p) == NULL);
		CHECK_NUMBER(node_entries(&node), shapes[i].out ? 2 : 0);
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
	if (!may_run())
		return 0;
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
