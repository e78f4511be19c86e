/* SPDX-License-Identifier: Apache-2.0 */
/* Answers to senders (patchbay/reply.h): what is answered, how, and what never is. */
#include "sandbox.h"

#include <arpa/inet.h>

#include <tests/bpf/reply.skel.h>

#include "reply.h"

TestSuite(reply, .init = sandbox_enter, .fini = sandbox_leave);

static struct pb_dp_object *object;

static void open_on(uint32_t hook)
{
	struct pb_dp_slot slot;
	size_t len;
	const void *elf = reply_bpf__elf_bytes(&len);

	if (!sandbox.dp)
		sandbox_open();
	object = sandbox_object("reply", "reply", elf, len);
	slot = sandbox_slot(hook, PB_BAND_SERVICE, object, "answer", "reply_answer");
	sandbox_chain(&slot, 1, hook);
}

static void set_plan(const struct reply_plan *plan)
{
	uint32_t zero = 0;

	cr_assert_eq(bpf_map_update_elem(pb_object_map(object, "reply_plan")->fd, &zero, plan, 0),
		     0);
}

static int result(void)
{
	struct reply_plan plan;
	uint32_t zero = 0;

	cr_assert_eq(bpf_map_lookup_elem(pb_object_map(object, "reply_plan")->fd, &zero, &plan), 0);
	return plan.result;
}

static union pb_addr address(const char *text)
{
	union pb_addr a = {0};

	if (text && inet_pton(strchr(text, ':') ? AF_INET6 : AF_INET, text, &a) != 1)
		cr_assert_fail("no address: %s", text);
	return a;
}

/* The frame goes back to where it came from. */
static void turn(struct packet *p)
{
	uint8_t mac[6];

	memcpy(mac, p->data, 6);
	memcpy(p->data, p->data + 6, 6);
	memcpy(p->data + 6, mac, 6);
}

static bool is_v6(const char *address_text)
{
	return strchr(address_text, ':') != NULL;
}

struct reply_case {
	const char *given;
	struct packet_spec in;
	struct packet_spec out; /* without addresses, DF, and quote, which follow from the rest */
	uint32_t what, mtu;
	const char *src; /* of the answer, when it isn't whom the packet was sent to */
};

#define V4 .src = "10.0.0.1", .dst = "192.0.2.7"
#define V6 .src = "fd00::1", .dst = "2001:db8::7"
#define TCP_TO_80 .protocol = IPPROTO_TCP, .sport = 12345, .dport = 80
#define UDP_TO_53 .protocol = IPPROTO_UDP, .sport = 12345, .dport = 53
#define RST_BACK .protocol = IPPROTO_TCP, .sport = 80, .dport = 12345
#define ICMP(type_, code_) .protocol = IPPROTO_ICMP, .icmp_type = (type_), .icmp_code = (code_)
#define ICMP6(type_, code_) .protocol = IPPROTO_ICMPV6, .icmp_type = (type_), .icmp_code = (code_)
#define RST_ACK (PACKET_RST | PACKET_ACK)

/* clang-format off */
static const struct reply_case cases[] = {
	{"a SYN: reset, acknowledged with its own sequence number and one",
	 {V4, TCP_TO_80, .tcp_flags = PACKET_SYN, .seq = 0xffffffff},
	 {RST_BACK, .tcp_flags = RST_ACK, .ack = 0}},
	{"a SYN with data (fast open)",
	 {V4, TCP_TO_80, .tcp_flags = PACKET_SYN, .seq = 100, .payload_len = 11},
	 {RST_BACK, .tcp_flags = RST_ACK, .ack = 112}},
	{"a FIN without ACK counts as one, too",
	 {V4, TCP_TO_80, .tcp_flags = PACKET_FIN, .seq = 100},
	 {RST_BACK, .tcp_flags = RST_ACK, .ack = 101}},
	{"data of a connection: reset where the sender waits",
	 {V4, TCP_TO_80, .tcp_flags = PACKET_ACK, .seq = 5, .ack = 777, .payload_len = 1400},
	 {RST_BACK, .tcp_flags = PACKET_RST, .seq = 777}},
	{"TCP behind IP options and a tag: the answer has the tag only",
	 {V4, TCP_TO_80, .tcp_flags = PACKET_SYN, .seq = 9, .options = "9404000001010101",
	  .vlan = {10}},
	 {RST_BACK, .tcp_flags = RST_ACK, .ack = 10, .vlan = {10}}},
	{"a SYN over IPv6 behind two tags",
	 {V6, TCP_TO_80, .tcp_flags = PACKET_SYN, .seq = 9, .vlan = {10, 11}},
	 {RST_BACK, .tcp_flags = RST_ACK, .ack = 10, .vlan = {10, 11}}},
	{"data over IPv6 behind extension headers",
	 {V6, TCP_TO_80, .tcp_flags = PACKET_ACK, .seq = 9, .ack = 3, .payload_len = 77,
	  .ext = {IPPROTO_HOPOPTS, IPPROTO_DSTOPTS}, .n_ext = 2},
	 {RST_BACK, .tcp_flags = PACKET_RST, .seq = 3}},
	{"UDP: port unreachable",
	 {V4, UDP_TO_53, .payload_len = 12}, {ICMP(3, 3)}},
	{"UDP with more than an answer may quote, odd length",
	 {V4, UDP_TO_53, .payload_len = 1333}, {ICMP(3, 3)}},
	{"UDP without a checksum, options, tags",
	 {V4, UDP_TO_53, .payload_len = 1, .no_checksum = true, .options = "94040000",
	  .vlan = {10, 11}},
	 {ICMP(3, 3), .vlan = {10, 11}}},
	{"UDP over IPv6",
	 {V6, UDP_TO_53, .payload_len = 13}, {ICMP6(1, 4)}},
	{"UDP over IPv6, more than an answer may quote",
	 {V6, UDP_TO_53, .payload_len = 1400, .ext = {IPPROTO_DSTOPTS}, .n_ext = 1},
	 {ICMP6(1, 4)}},
	{"SCTP: port unreachable",
	 {V4, .protocol = IPPROTO_SCTP, .sport = 1, .dport = 2, .payload_len = 20},
	 {ICMP(3, 3)}},
	{"ping: TTL exceeded, from the router's address",
	 {V4, ICMP(8, 0), .sport = 3, .dport = 4, .ttl = 1, .payload_len = 56},
	 {ICMP(11, 0)}, REPLY_TTL, 0, "172.18.0.3"},
	{"TCP: TTL exceeded, D31",
	 {V4, TCP_TO_80, .tcp_flags = PACKET_SYN, .ttl = 1}, {ICMP(11, 0)}, REPLY_TTL, 0,
	 "172.18.0.3"},
	{"ping over IPv6: hop limit exceeded",
	 {V6, ICMP6(128, 0), .sport = 3, .dport = 4, .ttl = 1, .payload_len = 56},
	 {ICMP6(3, 0)}, REPLY_TTL, 0, "fd00::3"},
	{"too large, D15: frag needed with the MTU, from the frontend",
	 {V4, UDP_TO_53, .payload_len = 1468, .df = true},
	 {ICMP(3, 4), .icmp_rest = 1492}, REPLY_TOO_BIG, 1492, NULL},
	{"too large over IPv6: packet too big",
	 {V6, UDP_TO_53, .payload_len = 1450},
	 {ICMP6(2, 0), .icmp_rest = 1476}, REPLY_TOO_BIG, 1476, NULL},
};
/* clang-format on */

static void expect(const struct reply_case *c, const struct packet *in, struct packet *ret)
{
	struct packet_spec out = c->out;
	bool v6 = is_v6(c->in.src);

	out.src = c->src ? c->src : c->in.dst;
	out.dst = c->in.src;
	out.df = !v6;
	if (out.protocol != IPPROTO_TCP) {
		out.quote = in;
		out.quote_len = v6 ? 1232 : 548;
		out.tos = v6 ? 0 : 0xc0;
	}
	packet_build(ret, &out);
	turn(ret);
}

static void check_case(const struct reply_case *c, uint32_t hook, struct reply_plan *plan)
{
	static struct packet in, out, should;
	struct packet_ctx ctx = {.mark = 0x10000};
	struct packet_view v;

	packet_build(&in, &c->in);
	plan->what = c->what;
	plan->mtu = c->mtu;
	plan->src = address(c->src);
	set_plan(plan);
	cr_expect_eq(sandbox_packet(hook, &in, &ctx, &out), 7, "%s: %d", c->given, result());
	expect(c, &in, &should);
	cr_assert_null(packet_read(&out, &v), "%s", c->given);
	/* A reset may be followed by what the frame had before. */
	if (v.ip.protocol == IPPROTO_TCP && v.padding)
		packet_truncate(&out, v.ip.end);
	cr_expect_null(packet_check(&out), "%s: %s", c->given, packet_check(&out));
	cr_expect_null(packet_diff(&out, &should), "%s: %s", c->given, packet_diff(&out, &should));
	cr_expect_eq(ctx.mark, 0x10000 | PB_MARK_TRANSLATED, "%s: mark 0x%x", c->given, ctx.mark);
}

Test(reply, D15_D31_every_packet_of_the_table_is_answered_as_its_sender_expects)
{
	struct reply_plan plan = {0};

	open_on(PB_HOOK_DEV_INGRESS);
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++)
		check_case(&cases[i], PB_HOOK_DEV_INGRESS, &plan);
	cr_expect_eq(sandbox_drops(PB_HOOK_DEV_INGRESS, PB_REASON_NO_SERVICE), PB_ARRAY_LEN(cases));
	cr_expect_eq(sandbox_counters(PB_HOOK_DEV_INGRESS).missed, 0);
	pb_dp_object_free(object);
}

Test(reply, D15_a_packet_that_was_translated_before_is_quoted_as_the_client_sent_it)
{
	struct reply_plan plan = {.port = htons(8080)};

	open_on(PB_HOOK_DEV_INGRESS);
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		const struct packet_spec *in = &cases[i].in;

		if ((in->protocol != IPPROTO_TCP && in->protocol != IPPROTO_UDP) || in->no_checksum)
			continue;
		plan.to = address(is_v6(in->src) ? "fd00:10::99" : "10.244.3.9");
		check_case(&cases[i], PB_HOOK_DEV_INGRESS, &plan);
	}
	pb_dp_object_free(object);
}

Test(reply, a_packet_that_the_kernel_merged_of_segments_is_answered_as_one)
{
	struct reply_plan plan = {0};
	static const struct reply_case merged[] = {
		{"TCP",
		 {V4, TCP_TO_80, .tcp_flags = PACKET_ACK, .ack = 777, .payload_len = 2800},
		 {RST_BACK, .tcp_flags = PACKET_RST, .seq = 777}},
		{"UDP over IPv6", {V6, UDP_TO_53, .payload_len = 2800}, {ICMP6(1, 4)}},
	};

	open_on(PB_HOOK_DEV_INGRESS);
	set_plan(&plan);
	for (size_t i = 0; i < PB_ARRAY_LEN(merged); i++) {
		static struct packet in, out, should;
		struct packet_ctx ctx = {.gso_size = 1400, .gso_segs = 2};

		packet_build(&in, &merged[i].in);
		cr_expect_eq(sandbox_packet(PB_HOOK_DEV_INGRESS, &in, &ctx, &out), 7);
		expect(&merged[i], &in, &should);
		cr_expect_null(packet_diff(&out, &should), "%s", packet_diff(&out, &should));
		cr_expect_eq(ctx.gso_segs, 0, "the answer is no segments any more");
	}
	pb_dp_object_free(object);
}

/* ---- what is never answered ---- */

struct refused_case {
	const char *given;
	struct packet_spec in;
	uint32_t what;
};

/* clang-format off */
static const struct refused_case refused[] = {
	{"an ICMP error", {V4, ICMP(3, 3)}, REPLY_TTL},
	{"ICMP time exceeded", {V4, ICMP(11, 0)}, REPLY_TTL},
	{"a redirect", {V4, ICMP(5, 0)}, REPLY_TTL},
	{"ICMP of an unknown type", {V4, ICMP(42, 0)}, REPLY_TTL},
	{"an ICMPv6 error", {V6, ICMP6(1, 4)}, REPLY_TTL},
	{"packet too big", {V6, ICMP6(2, 0)}, REPLY_TTL},
	{"an ICMPv6 error of an unknown type", {V6, ICMP6(127, 0)}, REPLY_TTL},
	{"a redirect over IPv6", {V6, ICMP6(137, 0)}, REPLY_TTL},
	{"a reset", {V4, TCP_TO_80, .tcp_flags = PACKET_RST}, REPLY_REJECT},
	{"a reset with ACK over IPv6", {V6, TCP_TO_80, .tcp_flags = RST_ACK}, REPLY_REJECT},
	{"to multicast", {.src = "10.0.0.1", .dst = "224.0.0.251", UDP_TO_53}, REPLY_REJECT},
	{"to broadcast", {.src = "10.0.0.1", .dst = "255.255.255.255", UDP_TO_53}, REPLY_REJECT},
	{"from nobody", {.src = "0.0.0.0", .dst = "10.0.0.2", UDP_TO_53}, REPLY_REJECT},
	{"from loopback", {.src = "127.0.0.1", .dst = "10.0.0.2", UDP_TO_53}, REPLY_REJECT},
	{"from multicast", {.src = "239.1.1.1", .dst = "10.0.0.2", UDP_TO_53}, REPLY_REJECT},
	{"from broadcast", {.src = "255.255.255.255", .dst = "10.0.0.2", TCP_TO_80}, REPLY_REJECT},
	{"to multicast over IPv6", {.src = "fd00::1", .dst = "ff02::fb", UDP_TO_53}, REPLY_REJECT},
	{"to multicast over IPv6, too big, but nobody to say so",
	 {.src = "fd00::1", .dst = "ff02::fb", UDP_TO_53}, REPLY_TOO_BIG},
	{"from nobody over IPv6", {.src = "::", .dst = "fd00::2", UDP_TO_53}, REPLY_REJECT},
	{"from multicast over IPv6", {.src = "ff02::1", .dst = "fd00::2", TCP_TO_80}, REPLY_REJECT},
};
/* clang-format on */

static void expect_refused(const struct packet *in, int error, const char *given)
{
	static struct packet out;
	struct packet_ctx ctx = {0};

	cr_expect_eq(sandbox_packet(PB_HOOK_DEV_INGRESS, in, &ctx, &out), 2, "%s", given);
	cr_expect_eq(result(), error, "%s: %d", given, result());
	cr_expect_null(packet_diff(&out, in), "%s: %s", given, packet_diff(&out, in));
	cr_expect_eq(ctx.mark, 0);
}

Test(reply, what_RFC_1122_and_RFC_4443_forbid_to_answer_is_left_as_it_was)
{
	struct reply_plan plan = {0};
	static struct packet in;

	open_on(PB_HOOK_DEV_INGRESS);
	for (size_t i = 0; i < PB_ARRAY_LEN(refused); i++) {
		plan.what = refused[i].what;
		set_plan(&plan);
		packet_build(&in, &refused[i].in);
		expect_refused(&in, -EPERM, refused[i].given);
	}
	/* A frame to everybody, whatever address the packet has. */
	packet_build(&in, &cases[7].in);
	memset(in.data, 0xff, 6);
	expect_refused(&in, -EPERM, "link-layer broadcast");
	pb_dp_object_free(object);
}

Test(reply, a_later_fragment_is_not_answered_a_first_one_by_ICMP_only)
{
	struct reply_plan plan = {0};
	static struct packet whole, parts[4], out;

	open_on(PB_HOOK_DEV_INGRESS);
	set_plan(&plan);
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct packet_spec spec = cases[i].in;
		struct packet_ctx ctx = {0};
		struct packet_view v;
		size_t n;

		if (cases[i].what != REPLY_REJECT || spec.n_ext)
			continue;
		spec.payload_len = 200;
		packet_build(&whole, &spec);
		n = packet_fragment(&whole, 96, 96, 7, parts, 4);
		expect_refused(&parts[1], -EPERM, spec.src);
		expect_refused(&parts[n - 1], -EPERM, spec.src);
		if (spec.protocol == IPPROTO_TCP) {
			expect_refused(&parts[0], -EPERM, spec.src);
			continue;
		}
		cr_expect_eq(sandbox_packet(PB_HOOK_DEV_INGRESS, &parts[0], &ctx, &out), 7);
		cr_expect_null(packet_check(&out), "%s", packet_check(&out));
		packet_read(&out, &v);
		cr_expect_eq(v.quote.dport, spec.dport);
	}
	pb_dp_object_free(object);
}

Test(reply, hostile_lengths_and_cut_packets_give_a_right_answer_or_none)
{
	struct reply_plan plan = {0};
	static struct packet in, out;

	open_on(PB_HOOK_DEV_INGRESS);
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++)
		for (size_t at = 14; at < 80; at++) {
			struct packet_ctx ctx = {0};
			struct packet_view v;

			packet_build(&in, &cases[i].in);
			if (at >= in.len)
				break;
			/* Any byte of the headers may be anything; then the frame ends anywhere. */
			in.data[at] ^= 0xff;
			if (at % 3 == 0)
				packet_truncate(&in, at + 1 > 34 ? at + 1 : 34);
			plan.what = cases[i].what;
			plan.mtu = 1280;
			plan.src = address(cases[i].src);
			set_plan(&plan);
			if (packet_run(sandbox.dp->entry_fd[PB_HOOK_DEV_INGRESS], &in, &ctx, &out) <
			    0)
				continue; /* the test run wants an IP header that is whole */
			if (ctx.verdict == 2)
				continue;
			cr_expect_eq(ctx.verdict, 7);
			/* What it quotes may be beyond reading; the answer itself never is. */
			packet_read(&out, &v);
			cr_assert_neq(v.ip.l4_off, 0, "%s, byte %zu", cases[i].given, at);
			cr_expect(!v.ip.whole || v.ip.sum == 0xffff, "%s, byte %zu: 0x%04x",
				  cases[i].given, at, v.ip.sum);
			cr_expect_eq(v.ip.ttl, 64);
		}
	cr_expect_eq(sandbox_counters(PB_HOOK_DEV_INGRESS).missed, 0);
	pb_dp_object_free(object);
}

/* ---- rate, and the way back ---- */

/* struct pb_reply_state. */
struct bucket {
	uint64_t filled;
	uint32_t tokens, sent, refused, reserved;
	uint8_t buf[48 + 3 * 512];
};

static struct bucket *buckets(int fd)
{
	uint32_t zero = 0;
	struct bucket *b = calloc((size_t)libbpf_num_possible_cpus(), sizeof(*b));

	struct bpf_map_info info = {0};
	uint32_t len = sizeof(info);

	cr_assert_eq(bpf_obj_get_info_by_fd(fd, &info, &len), 0);
	cr_assert_eq(info.value_size, sizeof(*b));
	cr_assert_eq(bpf_map_lookup_elem(fd, &zero, b), 0);
	return b;
}

Test(reply, answers_stop_when_the_bucket_is_empty_and_go_on_when_time_has_filled_it)
{
	uint64_t start = uv_hrtime(), answered = 0, refused_n = 0;
	struct reply_plan plan = {0};
	static struct packet in, out;
	struct packet_ctx ctx;
	struct bucket *b;
	uint32_t zero = 0;
	int fd;

	open_on(PB_HOOK_DEV_INGRESS);
	fd = pb_object_map(object, "reply_state")->fd;
	set_plan(&plan);
	packet_build(&in, &cases[0].in);
	for (int i = 0; i < 100000 && refused_n < 10; i++) {
		ctx = (struct packet_ctx){0};
		if (sandbox_packet(PB_HOOK_DEV_INGRESS, &in, &ctx, &out) == 7) {
			answered++;
			continue;
		}
		cr_expect_eq(result(), -EAGAIN);
		cr_expect_null(packet_diff(&out, &in), "%s", packet_diff(&out, &in));
		refused_n++;
	}
	cr_expect_eq(refused_n, 10);
	cr_expect_geq(answered, 100);
	cr_expect_leq(answered, 101 + (uv_hrtime() - start) / 1000000);
	b = buckets(fd);
	cr_expect_eq(b[sched_getcpu()].refused, 10);
	cr_expect_eq(b[sched_getcpu()].sent, answered);
	/* when: 20 ms pass */
	b[sched_getcpu()].tokens = 0;
	b[sched_getcpu()].filled = uv_hrtime() - 20000000;
	cr_assert_eq(bpf_map_update_elem(fd, &zero, b, 0), 0);
	for (int i = 0; i < 20; i++) {
		ctx = (struct packet_ctx){0};
		cr_expect_eq(sandbox_packet(PB_HOOK_DEV_INGRESS, &in, &ctx, &out), 7, "%d", i);
	}
	free(b);
	pb_dp_object_free(object);
}

Test(reply, the_answer_goes_back_by_the_device_of_the_hook)
{
	static const struct {
		uint32_t hook, kind;
	} ways[] = {
		{PB_HOOK_POD_EGRESS, PB_REDIRECT_EGRESS},
		{PB_HOOK_DEV_INGRESS, PB_REDIRECT_EGRESS},
		{PB_HOOK_POD_INGRESS, PB_REDIRECT_INGRESS},
		{PB_HOOK_DEV_EGRESS, PB_REDIRECT_INGRESS},
	};
	struct reply_plan plan = {0};

	for (size_t i = 0; i < PB_ARRAY_LEN(ways); i++) {
		struct pb_packet pkt;

		open_on(ways[i].hook);
		check_case(&cases[0], ways[i].hook, &plan);
		pkt = sandbox_record(ways[i].hook);
		cr_expect_eq(pkt.verdict, PB_VERDICT_REDIRECT);
		cr_expect_eq(pkt.redirect_kind, ways[i].kind);
		cr_expect_eq(pkt.redirect_ifindex, pkt.ifindex);
		cr_expect_eq(pkt.reason, PB_REASON_NO_SERVICE);
		pb_dp_object_free(object);
	}
}
