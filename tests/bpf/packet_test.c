/* SPDX-License-Identifier: Apache-2.0 */
/* The judge judged: sums that are known from elsewhere, and packets in which one thing is wrong. */
#include "packet.h"

#include <criterion/criterion.h>
#include <stdio.h>
#include <string.h>

/* ---- sums known from elsewhere ---- */

Test(packet, the_sum_of_RFC_1071_section_3)
{
	static const uint8_t bytes[] = {0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7};

	cr_expect_eq(packet_sum(bytes, sizeof(bytes)), 0xddf2);
	cr_expect_eq(packet_sum(bytes, 3), 0xf201, "the last odd byte counts as the upper one");
}

static size_t from_hex(struct packet *p, const char *digits)
{
	p->len = 0;
	for (; *digits; digits += 2) {
		unsigned byte = 0;

		cr_assert_eq(sscanf(digits, "%2x", &byte), 1);
		p->data[p->len++] = (uint8_t)byte;
	}
	return p->len;
}

/*
 * From a Linux kernel's own stack, captured on a veth; the sums of TCP and UDP, which it leaves to
 * devices, were filled in by a third implementation.
 */
static const struct {
	const char *what, *frame;
} captured[] = {
	{"UDP", "0200000000025a665ae71f6c08004500002166b540004011c0140a0000010a00"
		"0002a8f60035000dfed368656c6c6f"},
	{"UDP over IPv6", "0200000000025a665ae71f6c86dd6003cdce000d1140fd000000000000000000"
			  "000000000001fd000000000000000000000000000002cf090035000df2be6865"
			  "6c6c6f"},
	{"TCP with options", "0200000000025a665ae71f6c08004500003c48e240004006ddd70a0000010a00"
			     "000280380050e5617be900000000a002faf029940000020405b40402080a63e1"
			     "c9c0000000000103030a"},
	{"ICMPv6 echo", "0200000000025a665ae71f6c86dd600bc27b000a3a40fd000000000000000000"
			"000000000001fd00000000000000000000000000000280000b18123400016869"},
	{"multicast listener report behind a hop-by-hop header",
	 "3333000000165a665ae71f6c86dd6000000000380001fe800000000000005866"
	 "5afffee71f6cff0200000000000000000000000000163a000502000001008f00"
	 "7ce10000000204000000ff0200000000000000000001ffe71f6c04000000ff02"
	 "00000000000000000001ff000001"},
	{"router solicitation", "3333000000025a665ae71f6c86dd6000000000103afffe800000000000005866"
				"5afffee71f6cff0200000000000000000000000000028500d5ba000000000101"
				"5a665ae71f6c"},
};

Test(packet, frames_of_the_kernel_are_right_and_with_any_bit_of_L4_turned_they_are_not)
{
	for (size_t i = 0; i < sizeof(captured) / sizeof(captured[0]); i++) {
		struct packet_view v;
		struct packet p;

		from_hex(&p, captured[i].frame);
		cr_expect_null(packet_check(&p), "%s: %s", captured[i].what, packet_check(&p));
		cr_assert_null(packet_read(&p, &v));
		for (size_t bit = v.ip.l4_off * 8; bit < p.len * 8; bit++) {
			p.data[bit / 8] ^= (uint8_t)(1U << bit % 8);
			cr_expect_not_null(packet_check(&p), "%s: bit %zu", captured[i].what, bit);
			p.data[bit / 8] ^= (uint8_t)(1U << bit % 8);
		}
	}
}

/* ---- what is built is right, whatever it is ---- */

static const struct packet_spec specs[] = {
	{.src = "10.0.0.1",
	 .dst = "10.0.0.2",
	 .protocol = IPPROTO_TCP,
	 .sport = 1,
	 .dport = 2,
	 .tcp_flags = PACKET_SYN,
	 .seq = 7,
	 .payload_len = 3},
	{.src = "10.0.0.1",
	 .dst = "10.0.0.2",
	 .protocol = IPPROTO_UDP,
	 .sport = 1,
	 .dport = 2,
	 .payload_len = 101,
	 .options = "9404000001",
	 .vlan = {5}},
	{.src = "10.0.0.1", .dst = "10.0.0.2", .protocol = IPPROTO_UDP, .no_checksum = true},
	{.src = "10.0.0.1",
	 .dst = "10.0.0.2",
	 .protocol = IPPROTO_SCTP,
	 .sport = 1,
	 .dport = 2,
	 .payload_len = 20},
	{.src = "10.0.0.1",
	 .dst = "10.0.0.2",
	 .protocol = IPPROTO_ICMP,
	 .icmp_type = 8,
	 .sport = 77,
	 .dport = 1,
	 .payload_len = 9},
	{.src = "fd00::1",
	 .dst = "fd00::2",
	 .protocol = IPPROTO_TCP,
	 .sport = 1,
	 .dport = 2,
	 .tcp_flags = PACKET_ACK,
	 .vlan = {5, 6},
	 .payload_len = 1},
	{.src = "fd00::1",
	 .dst = "fd00::2",
	 .protocol = IPPROTO_UDP,
	 .sport = 1,
	 .dport = 2,
	 .ext = {IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS},
	 .n_ext = 3,
	 .payload_len = 5},
	{.src = "fd00::1",
	 .dst = "fd00::2",
	 .protocol = IPPROTO_ICMPV6,
	 .icmp_type = 128,
	 .sport = 77,
	 .dport = 1},
};
#define N_SPECS (sizeof(specs) / sizeof(specs[0]))

Test(packet, what_is_built_is_right_and_reads_back_as_it_was_asked_for)
{
	for (size_t i = 0; i < N_SPECS; i++) {
		struct packet_view v;
		struct packet p;

		packet_build(&p, &specs[i]);
		cr_expect_null(packet_check(&p), "%zu: %s", i, packet_check(&p));
		cr_assert_null(packet_read(&p, &v));
		cr_expect_str_eq(v.ip.src, specs[i].src);
		cr_expect_str_eq(v.ip.dst, specs[i].dst);
		cr_expect_eq(v.ip.protocol, specs[i].protocol);
		cr_expect_eq(v.ip.sport, specs[i].sport);
		cr_expect_eq(v.ip.dport, specs[i].dport);
		cr_expect_eq(v.ip.tcp_flags, specs[i].tcp_flags);
		cr_expect_eq(v.vlan[0], specs[i].vlan[0]);
		cr_expect_eq(v.vlan[1], specs[i].vlan[1]);
		cr_expect_eq(v.ip.ttl, 64);
	}
}

Test(packet, fragments_carry_the_whole_between_them)
{
	static struct packet whole, parts[8];
	struct packet_spec spec = specs[1];
	const size_t l4 = 18 + 28; /* tag, options */
	size_t n, seen = 0;

	for (int v6 = 0; v6 < 2; v6++) {
		spec = v6 ? specs[6] : specs[1];
		spec.n_ext = 0;
		spec.payload_len = 5120;
		packet_build(&whole, &spec);
		n = packet_fragment(&whole, 1416, 1424, 99, parts, 8);
		cr_expect_eq(n, 4);
		seen = 0;
		for (size_t i = 0; i < n; i++) {
			struct packet_view v;

			cr_expect_null(packet_check(&parts[i]), "%s", packet_check(&parts[i]));
			cr_assert_null(packet_read(&parts[i], &v));
			cr_expect(v.ip.fragment);
			cr_expect_eq(v.ip.more, i + 1 < n);
			cr_expect_eq(v.ip.frag_off, seen);
			cr_expect_eq(v.ip.id, 99);
			cr_expect_eq(v.ip.dport, i == 0 ? 2 : 0);
			seen += v.ip.end - v.ip.l3_off - v.ip.header_len;
			if (!v6)
				cr_expect_eq(memcmp(parts[i].data + l4,
						    whole.data + l4 + v.ip.frag_off, v.ip.end - l4),
					     0);
		}
		cr_expect_eq(seen, 5128);
	}
}

static struct packet error_about(const struct packet_spec *inner, size_t quote_len)
{
	struct packet in, out;
	bool v6 = strchr(inner->src, ':');

	packet_build(&in, inner);
	packet_build(&out, &(struct packet_spec){.src = v6 ? "fd00::9" : "10.0.0.9",
						 .dst = inner->src,
						 .protocol = v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP,
						 .icmp_type = v6 ? 1 : 3,
						 .icmp_code = v6 ? 4 : 3,
						 .quote = &in,
						 .quote_len = quote_len});
	return out;
}

Test(packet, errors_in_what_an_ICMP_error_quotes_are_found_even_behind_a_right_outer_sum)
{
	for (size_t i = 0; i < N_SPECS; i++) {
		struct packet p = error_about(&specs[i], 0);
		struct packet_view v;

		cr_expect_null(packet_check(&p), "%zu: %s", i, packet_check(&p));
		cr_assert_null(packet_read(&p, &v));
		cr_assert(v.has_quote);
		cr_expect_str_eq(v.quote.dst, specs[i].dst);
		cr_expect_eq(v.quote.dport, specs[i].dport);
		if (specs[i].no_checksum || specs[i].protocol == IPPROTO_SCTP)
			continue;
		/* One bit in the quote's ports, made good in the outer sum. */
		p.data[v.quote.l4_off + 1] ^= 1;
		p.data[v.ip.l4_off + 2] = p.data[v.ip.l4_off + 3] = 0;
		packet_read(&p, &v);
		p.data[v.ip.l4_off + 2] = (uint8_t)((uint16_t)~v.ip.sum >> 8);
		p.data[v.ip.l4_off + 3] = (uint8_t)~v.ip.sum;
		cr_assert_not_null(packet_check(&p));
		cr_expect_not_null(strstr(packet_check(&p), "quoted L4 checksum"), "%s",
				   packet_check(&p));
	}
}

Test(packet, a_quote_of_8_bytes_of_L4_still_names_the_ports)
{
	struct packet p = error_about(&specs[0], 28);
	struct packet_view v;

	cr_expect_null(packet_check(&p), "%s", packet_check(&p));
	cr_assert_null(packet_read(&p, &v));
	cr_expect_eq(v.quote.sport, 1);
	cr_expect_eq(v.quote.seq, 7);
	cr_expect_not(v.quote.whole);
}

Test(packet, a_wrong_length_is_named)
{
	struct packet p;

	packet_build(&p, &specs[1]);
	p.data[18 + 28 + 5]++; /* UDP's */
	cr_expect_not_null(strstr(packet_check(&p), "UDP length is 110, should be 109"), "%s",
			   packet_check(&p));
	packet_build(&p, &specs[0]);
	packet_truncate(&p, p.len - 1);
	cr_expect_str_eq(packet_check(&p), "the IPv4 packet is longer than the frame");
}

Test(packet, a_frame_cut_off_anywhere_is_wrong_and_never_read_past_its_end)
{
	for (size_t i = 0; i < N_SPECS; i++)
		for (size_t len = 0; len < 80; len++) {
			struct packet p;

			packet_build(&p, &specs[i]);
			if (len >= p.len)
				break;
			memset(p.data + len, 0xee, p.len - len);
			packet_truncate(&p, len);
			cr_expect_not_null(packet_check(&p), "%zu cut to %zu", i, len);
		}
}

Test(packet, a_difference_is_told_by_the_fields_name)
{
	struct packet a, b;
	struct packet_spec spec = specs[0];

	packet_build(&a, &specs[0]);
	cr_expect_null(packet_diff(&a, &a));
	spec.dst = "10.0.0.3";
	spec.dport = 8080;
	packet_build(&b, &spec);
	cr_expect_not_null(strstr(packet_diff(&a, &b),
				  "destination is 10.0.0.2, should be 10.0.0.3; "
				  "destination port is 2, should be 8080;"),
			   "%s", packet_diff(&a, &b));
}
