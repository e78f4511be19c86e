/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Errors about translated flows (patchbay/icmp.h), and fragments (patchbay/frag.h). What comes out
 * is compared, bit by bit, with a packet that was built as if there had been no translation.
 */
#include "sandbox.h"

#include <arpa/inet.h>

#include <patchbay/conntrack.h>
#include <tests/bpf/icmp.skel.h>

TestSuite(icmp, .init = sandbox_enter, .fini = sandbox_leave);
TestSuite(frag, .init = sandbox_enter, .fini = sandbox_leave);

#define HOOK PB_HOOK_DEV_INGRESS

static struct pb_dp_object *object;

/* A client asks a frontend; the node asks a backend in its place. */
struct flow {
	const char *client, *vip, *node, *backend, *router;
	uint16_t client_port, vip_port, node_port, backend_port;
};

static const struct flow flow4 = {
	"198.51.100.9", "192.0.2.7", "172.18.0.2", "10.244.2.5", "203.0.113.1",
	5000,		80,	     40000,	   8080};
static const struct flow flow6 = {
	"2001:db8:9::9", "2001:db8::7", "fd00:18::2", "fd00:244:2::5", "2001:db8:1::1", 5000, 80,
	40000,		 8080};

static union pb_addr address(const char *text)
{
	union pb_addr a = {0};

	cr_assert_eq(inet_pton(strchr(text, ':') ? AF_INET6 : AF_INET, text, &a), 1);
	return a;
}

static void put_half(const char *from, uint16_t sport, const char *at, uint16_t dport,
		     uint8_t protocol, const char *as, uint16_t as_port, const char *to,
		     uint16_t to_port, uint16_t flags)
{
	struct pb_ct_key key = {.saddr = address(from),
				.daddr = address(at),
				.sport = htons(sport),
				.dport = htons(dport),
				.protocol = protocol,
				.family = strchr(from, ':') ? 6 : 4};
	struct pb_ct ct = {.saddr = address(as),
			   .daddr = address(to),
			   .sport = htons(as_port),
			   .dport = htons(to_port),
			   .flags = flags,
			   .expires = UINT32_MAX};

	cr_assert_eq(bpf_map_update_elem(pb_dp_core_fd(sandbox.dp, "pb_ct"), &key, &ct, 0), 0);
}

static void put_flow(const struct flow *f, uint8_t protocol)
{
	put_half(f->client, f->client_port, f->vip, f->vip_port, protocol, f->node, f->node_port,
		 f->backend, f->backend_port, PB_CT_SNAT);
	put_half(f->backend, f->backend_port, f->node, f->node_port, protocol, f->vip, f->vip_port,
		 f->client, f->client_port, PB_CT_SNAT | PB_CT_REPLY);
}

static void open_translator(void)
{
	struct pb_dp_slot slot;
	size_t len;
	const void *elf = icmp_bpf__elf_bytes(&len);

	sandbox_open();
	object = sandbox_object("icmp", "icmp", elf, len);
	slot = sandbox_slot(HOOK, PB_BAND_SERVICE, object, "translate", "icmp_translate");
	sandbox_chain(&slot, 1, HOOK);
}

/* ---- errors ---- */

/* What the packets of a row look like; addresses and ports are the flow's. */
struct inner_case {
	const char *given;
	struct packet_spec spec;
	size_t quote_len;
	bool v4, v6;
	bool same_ports; /* the translation moves none */
};

/* clang-format off */
static const struct inner_case inner_cases[] = {
	{"TCP, all of it", {.protocol = IPPROTO_TCP, .tcp_flags = PACKET_ACK, .payload_len = 301},
	 0, true, true, false},
	{"TCP, cut off in its data", {.protocol = IPPROTO_TCP, .payload_len = 900}, 548, true, true,
	 false},
	{"TCP, IPv4 header and 8 bytes", {.protocol = IPPROTO_TCP, .seq = 77, .payload_len = 900},
	 28, true, false, false},
	{"TCP, IPv6 header and 8 bytes", {.protocol = IPPROTO_TCP, .seq = 77, .payload_len = 900},
	 48, false, true, false},
	{"TCP, up to its checksum", {.protocol = IPPROTO_TCP, .payload_len = 900},
	 36, true, false, false},
	{"TCP, its checksum and no more", {.protocol = IPPROTO_TCP, .payload_len = 900},
	 38, true, false, false},
	{"UDP", {.protocol = IPPROTO_UDP, .payload_len = 33}, 0, true, true, false},
	{"UDP, cut off", {.protocol = IPPROTO_UDP, .payload_len = 1400}, 77, true, true, false},
	{"UDP without checksum", {.protocol = IPPROTO_UDP, .payload_len = 33, .no_checksum = true},
	 0, true, false, false},
	{"UDP behind IP options, 8 bytes of it",
	 {.protocol = IPPROTO_UDP, .payload_len = 33, .options = "9404000001010101"}, 36, true,
	 false, false},
	{"UDP behind extension headers",
	 {.protocol = IPPROTO_UDP, .payload_len = 33,
	  .ext = {IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS}, .n_ext = 3}, 0, false, true,
	 false},
	{"UDP behind tags", {.protocol = IPPROTO_UDP, .payload_len = 33, .vlan = {5, 6}}, 0, true,
	 true, false},
	{"SCTP", {.protocol = IPPROTO_SCTP, .payload_len = 40}, 0, true, true, true},
	{"an echo", {.protocol = IPPROTO_ICMP, .icmp_type = 8, .payload_len = 40}, 0, true, false,
	 false},
	{"an echo over IPv6", {.protocol = IPPROTO_ICMPV6, .icmp_type = 128, .payload_len = 41}, 0,
	 false, true, false},
};

static const struct {
	uint8_t type4, code4, type6, code6;
	uint32_t rest;
} kinds[] = {
	{3, 3, 1, 4, 0},    /* port unreachable */
	{3, 4, 2, 0, 1400}, /* too big, with the MTU */
	{11, 0, 3, 0, 0},   /* time exceeded */
	{12, 0, 4, 1, 20},  /* parameter problem; in IPv4 the pointer is elsewhere */
};
/* clang-format on */

/* An error by `by` to the sender of `inner`. */
static void build_error(struct packet *ret, const struct packet_spec *inner, size_t quote_len,
			const char *by, size_t kind, uint8_t ttl)
{
	static struct packet in;
	bool v6 = strchr(inner->src, ':');
	struct packet_spec out = {.src = by,
				  .dst = inner->src,
				  .protocol = v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP,
				  .icmp_type = v6 ? kinds[kind].type6 : kinds[kind].type4,
				  .icmp_code = v6 ? kinds[kind].code6 : kinds[kind].code4,
				  .icmp_rest = kinds[kind].rest,
				  .ttl = ttl,
				  .quote = &in,
				  .quote_len = quote_len,
				  .vlan = {inner->vlan[0], inner->vlan[1]}};

	packet_build(&in, inner);
	packet_build(ret, &out);
}

static struct packet_spec between(const struct packet_spec *spec, const char *src, uint16_t sport,
				  const char *dst, uint16_t dport)
{
	struct packet_spec s = *spec;

	s.src = src;
	s.dst = dst;
	s.sport = sport;
	/* An echo has an id for both and then its number. */
	s.dport = spec->protocol == IPPROTO_ICMP || spec->protocol == IPPROTO_ICMPV6 ? 1 : dport;
	return s;
}

static void expect_same(const struct packet *in, const struct packet *should, const char *given,
			uint32_t mark)
{
	static struct packet out;
	struct packet_ctx ctx = {0};

	cr_expect_eq(sandbox_packet(HOOK, in, &ctx, &out), -1, "%s", given);
	cr_expect_eq(ctx.mark, mark, "%s: mark 0x%x", given, ctx.mark);
	cr_expect_null(packet_check(&out), "%s: %s", given, packet_check(&out));
	cr_expect_null(packet_diff(&out, should), "%s: %s", given, packet_diff(&out, should));
}

/* Both directions, told by a router and by the other end itself. */
static void check_inner(const struct flow *f, const struct inner_case *c, size_t kind)
{
	static struct packet in, should;
	struct packet_spec asked =
		between(&c->spec, f->client, f->client_port, f->vip, f->vip_port);
	struct packet_spec sent =
		between(&c->spec, f->node, f->node_port, f->backend, f->backend_port);
	struct packet_spec answered =
		between(&c->spec, f->backend, f->backend_port, f->node, f->node_port);
	struct packet_spec told = between(&c->spec, f->vip, f->vip_port, f->client, f->client_port);

	build_error(&in, &sent, c->quote_len, f->router, kind, 64);
	build_error(&should, &asked, c->quote_len, f->router, kind, 63);
	expect_same(&in, &should, c->given, PB_MARK_TRANSLATED);

	build_error(&in, &sent, c->quote_len, f->backend, kind, 64);
	build_error(&should, &asked, c->quote_len, f->vip, kind, 63);
	expect_same(&in, &should, c->given, PB_MARK_TRANSLATED);

	build_error(&in, &told, c->quote_len, f->router, kind, 64);
	build_error(&should, &answered, c->quote_len, f->router, kind, 63);
	expect_same(&in, &should, c->given, PB_MARK_TRANSLATED);

	build_error(&in, &told, c->quote_len, f->client, kind, 64);
	build_error(&should, &answered, c->quote_len, f->node, kind, 63);
	expect_same(&in, &should, c->given, PB_MARK_TRANSLATED);
}

static struct flow flow_for(const struct inner_case *c, bool v6)
{
	struct flow f = v6 ? flow6 : flow4;

	if (c->same_ports) {
		f.node_port = f.client_port;
		f.backend_port = f.vip_port;
	}
	if (c->spec.protocol == IPPROTO_ICMP || c->spec.protocol == IPPROTO_ICMPV6) {
		f.vip_port = f.client_port;
		f.backend_port = f.node_port;
	}
	return f;
}

Test(icmp, K43_D32_an_error_gets_to_the_sender_about_the_packet_that_he_sent)
{
	open_translator();
	for (size_t i = 0; i < PB_ARRAY_LEN(inner_cases); i++)
		for (int v6 = 0; v6 < 2; v6++) {
			const struct inner_case *c = &inner_cases[i];
			struct flow f = flow_for(c, v6);

			if (!(v6 ? c->v6 : c->v4))
				continue;
			put_flow(&f, c->spec.protocol);
			for (size_t kind = 0; kind < PB_ARRAY_LEN(kinds); kind++)
				check_inner(&f, c, kind);
		}
	cr_expect_eq(sandbox_counters(HOOK).missed, 0);
	pb_dp_object_free(object);
}

/* ---- errors that are left alone ---- */

static void expect_untouched(const struct packet *in, const char *given)
{
	static struct packet out;
	struct packet_ctx ctx = {0};

	cr_expect_eq(sandbox_packet(HOOK, in, &ctx, &out), -1, "%s", given);
	cr_expect_eq(ctx.mark, 0, "%s", given);
	cr_expect_null(packet_diff(&out, in), "%s: %s", given, packet_diff(&out, in));
}

Test(icmp, an_error_about_no_flow_or_nothing_to_be_believed_is_left_alone)
{
	static struct packet in, parts[4];
	struct packet_spec sent;
	size_t n;

	open_translator();
	for (int v6 = 0; v6 < 2; v6++) {
		const struct flow *f = v6 ? &flow6 : &flow4;
		struct packet_view v;

		put_flow(f, IPPROTO_UDP);
		sent = between(&inner_cases[6].spec, f->node, f->node_port, f->backend,
			       f->backend_port);
		/* given: one thing that is not as it should be */
		sent.dport++;
		build_error(&in, &sent, 0, f->router, 0, 64);
		expect_untouched(&in, "another port");
		sent.dport--;
		sent.protocol = IPPROTO_TCP;
		build_error(&in, &sent, 0, f->router, 0, 64);
		expect_untouched(&in, "another protocol");
		sent.protocol = IPPROTO_UDP;
		build_error(&in, &sent, 0, f->router, 0, 64);
		packet_read(&in, &v);
		in.data[v.ip.l4_off] = v6 ? 137 : 5;
		expect_untouched(&in, "a redirect");
		build_error(&in, &sent, 0, f->router, 0, 64);
		in.data[v.ip.l3_off + (v6 ? 39 : 19)] ^= 1;
		expect_untouched(&in, "sent to who hadn't sent the packet");
		build_error(&in, &sent, v6 ? 47 : 27, f->router, 0, 64);
		expect_untouched(&in, "7 bytes of L4");
		build_error(&in, &sent, v6 ? 39 : 19, f->router, 0, 64);
		expect_untouched(&in, "less than an IP header");
		build_error(&in, &sent, 0, f->router, 0, 64);
		in.data[v.quote.l3_off] ^= 0x20;
		expect_untouched(&in, "another IP version inside");
		build_error(&in, &sent, 0, f->router, 0, 64);
		n = packet_fragment(&in, 32, 32, 9, parts, 4);
		expect_untouched(&parts[0], "an error in fragments");
		expect_untouched(&parts[n - 1], "its last fragment");
	}
	/* A later fragment inside: what looks like ports is data. */
	put_flow(&flow4, IPPROTO_UDP);
	sent = between(&inner_cases[6].spec, flow4.node, flow4.node_port, flow4.backend,
		       flow4.backend_port);
	build_error(&in, &sent, 0, flow4.router, 0, 64);
	in.data[14 + 20 + 8 + 7] = 3;
	expect_untouched(&in, "about a later fragment");
	pb_dp_object_free(object);
}

Test(icmp, bytes_behind_the_error_are_never_taken_for_the_packet_in_it)
{
	static struct packet in, should;
	struct packet_spec sent, asked;

	/* given: 8 bytes of TCP, and a frame filled up by a switch */
	open_translator();
	put_flow(&flow4, IPPROTO_TCP);
	sent = between(&inner_cases[2].spec, flow4.node, flow4.node_port, flow4.backend,
		       flow4.backend_port);
	asked = between(&inner_cases[2].spec, flow4.client, flow4.client_port, flow4.vip,
			flow4.vip_port);
	build_error(&in, &sent, 28, flow4.router, 0, 64);
	build_error(&should, &asked, 28, flow4.router, 0, 63);
	memset(in.data + in.len, 0x5a, 30);
	memset(should.data + should.len, 0x5a, 30);
	in.len += 30;
	should.len += 30;
	expect_same(&in, &should, "padding", PB_MARK_TRANSLATED);
	pb_dp_object_free(object);
}

Test(icmp, hostile_bytes_in_an_error_never_make_a_wrong_sum_of_a_right_one)
{
	static struct packet in, out;

	open_translator();
	for (size_t i = 0; i < PB_ARRAY_LEN(inner_cases); i++) {
		const struct inner_case *c = &inner_cases[i];
		struct flow f = flow_for(c, !c->v4);
		struct packet_spec sent =
			between(&c->spec, f.node, f.node_port, f.backend, f.backend_port);

		put_flow(&f, c->spec.protocol);
		for (size_t at = 34; at < 120; at++) {
			struct packet_ctx ctx = {0};
			struct packet_view v;

			build_error(&in, &sent, c->quote_len, f.router, 0, 64);
			packet_read(&in, &v);
			if (at <= v.ip.l4_off + 3 || at >= in.len)
				continue;
			/* Any byte but the sum's is wrong, and the sum is right for it. */
			in.data[at] ^= 0xff;
			in.data[v.ip.l4_off + 2] = in.data[v.ip.l4_off + 3] = 0;
			packet_read(&in, &v);
			in.data[v.ip.l4_off + 2] = (uint8_t)((uint16_t)~v.ip.sum >> 8);
			in.data[v.ip.l4_off + 3] = (uint8_t)~v.ip.sum;
			cr_expect_eq(sandbox_packet(HOOK, &in, &ctx, &out), -1);
			cr_expect_eq(out.len, in.len);
			packet_read(&out, &v);
			cr_expect_eq(v.ip.sum, 0xffff, "%s, byte %zu: 0x%04x", c->given, at,
				     v.ip.sum);
		}
	}
	cr_expect_eq(sandbox_counters(HOOK).missed, 0);
	pb_dp_object_free(object);
}

/* ---- fragments ---- */

/* Section 9: 5120 bytes of UDP in fragments of 1416, 1424, ... */
static size_t cut_5120(const char *src, uint16_t sport, const char *dst, uint16_t dport,
		       uint32_t id, uint8_t ttl, struct packet *ret)
{
	static struct packet whole;
	struct packet_spec spec = {.src = src,
				   .dst = dst,
				   .sport = sport,
				   .dport = dport,
				   .protocol = IPPROTO_UDP,
				   .payload_len = 5120,
				   .ttl = ttl};

	packet_build(&whole, &spec);
	return packet_fragment(&whole, 1416, 1424, id, ret, 8);
}

Test(frag, all_fragments_of_a_datagram_of_5120_bytes_go_the_way_of_the_first)
{
	static struct packet in[8], should[8];

	open_translator();
	for (int v6 = 0; v6 < 2; v6++) {
		const struct flow *f = v6 ? &flow6 : &flow4;
		size_t n;

		put_flow(f, IPPROTO_UDP);
		n = cut_5120(f->client, f->client_port, f->vip, f->vip_port, 77, 64, in);
		cut_5120(f->node, f->node_port, f->backend, f->backend_port, 77, 63, should);
		cr_assert_eq(n, 4);
		/* The first, then the others in any order. */
		expect_same(&in[0], &should[0], "first", PB_MARK_TRANSLATED);
		expect_same(&in[3], &should[3], "last", PB_MARK_TRANSLATED);
		expect_same(&in[1], &should[1], "second", PB_MARK_TRANSLATED);
		expect_same(&in[2], &should[2], "third", PB_MARK_TRANSLATED);
	}
	pb_dp_object_free(object);
}

Test(frag, a_later_fragment_before_its_first_one_is_dropped_and_the_datagram_after_it_goes_on)
{
	static struct packet in[8], should[8], out;
	const struct flow *f = &flow4;
	struct packet_ctx ctx = {0};
	struct pb_packet pkt;

	open_translator();
	put_flow(f, IPPROTO_UDP);
	cut_5120(f->client, f->client_port, f->vip, f->vip_port, 77, 64, in);
	cr_expect_eq(sandbox_packet(HOOK, &in[1], &ctx, &out), 2);
	cr_expect_eq(sandbox_drops(HOOK, PB_REASON_FRAG_UNKNOWN), 1);
	/* The next datagram has another id and isn't mixed up with it. */
	cut_5120(f->client, f->client_port, f->vip, f->vip_port, 78, 64, in);
	cut_5120(f->node, f->node_port, f->backend, f->backend_port, 78, 63, should);
	expect_same(&in[0], &should[0], "first", PB_MARK_TRANSLATED);
	expect_same(&in[1], &should[1], "second", PB_MARK_TRANSLATED);
	pkt = sandbox_record(HOOK);
	cr_expect(pkt.flags & PB_PKT_NO_L4);
	cr_expect_eq(pkt.l4_off, 0);
	cr_expect_eq(pkt.orig_dport, htons(f->vip_port));
	cut_5120(f->client, f->client_port, f->vip, f->vip_port, 77, 64, in);
	cr_expect_eq(sandbox_packet(HOOK, &in[1], &ctx, &out), 2);
	pb_dp_object_free(object);
}

Test(frag, fragments_of_protocols_without_ports_are_left_alone)
{
	static struct packet whole, parts[8];
	struct packet_spec spec = {.src = "10.0.0.1",
				   .dst = "10.0.0.2",
				   .protocol = IPPROTO_ICMP,
				   .icmp_type = 8,
				   .payload_len = 3000};
	size_t n;

	open_translator();
	packet_build(&whole, &spec);
	n = packet_fragment(&whole, 1416, 1424, 7, parts, 8);
	for (size_t i = n; i-- > 0;)
		expect_untouched(&parts[i], "a ping");
	pb_dp_object_free(object);
}
