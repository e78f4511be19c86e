/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Frames and what the entry program reads from them: one row a frame, as hexadecimal digits.
 *
 * E4 and E6 are Ethernet headers, A and B the addresses of source and destination.
 */
#include "sandbox.h"

TestSuite(parse, .init = sandbox_enter, .fini = sandbox_leave);

#define MACS "020000000001020000000002"
#define E4 MACS "0800"
#define E6 MACS "86dd"
#define A4 "0a000001"
#define B4 "0a000002"
#define A6 "fd000000000000000000000000000001"
#define B6 "fd000000000000000000000000000002"

struct parse_case {
	const char *given;
	const char *frame[10]; /* joined, up to NULL */
	uint8_t family, protocol;
	uint32_t flags;
	uint16_t l3_off, l4_off, sport, dport; /* ports as numbers */
	uint8_t tcp_flags;
};

#define PORTS "30390050" /* 12345 to 80 */
#define TCP PORTS "00000001000000005012ffff00000000"
#define UDP PORTS "00080000"

/* clang-format off */
static const struct parse_case cases[] = {
	{"TCP over IPv4",
	 {E4, "45000028000100004006", "0000", A4, B4, TCP},
	 4, 6, 0, 14, 34, 12345, 80, 0x12},
	{"UDP over IPv4",
	 {E4, "4500001c000100004011", "0000", A4, B4, UDP},
	 4, 17, 0, 14, 34, 12345, 80, 0},
	{"SCTP over IPv4",
	 {E4, "45000020000100004084", "0000", A4, B4, PORTS "0000000000000000"},
	 4, 132, 0, 14, 34, 12345, 80, 0},
	{"ICMP echo request: the id in both ports",
	 {E4, "4500001c000100004001", "0000", A4, B4, "0800000030390001"},
	 4, 1, 0, 14, 34, 12345, 12345, 0},
	{"ICMP error: no ports",
	 {E4, "4500001c000100004001", "0000", A4, B4, "0301000030390001"},
	 4, 1, 0, 14, 34, 0, 0, 0},
	{"IPv4 options: L4 lies behind them",
	 {E4, "4700003000010000400600000a0000010a000002", "0101010101010100", TCP},
	 4, 6, PB_PKT_OPTIONS, 14, 42, 12345, 80, 0x12},
	{"first fragment: has its ports",
	 {E4, "4500001c000120004011", "0000", A4, B4, UDP},
	 4, 17, PB_PKT_FRAGMENT, 14, 34, 12345, 80, 0},
	{"later fragment: what follows is not a header",
	 {E4, "4500001c000120104011", "0000", A4, B4, UDP},
	 4, 17, PB_PKT_FRAGMENT | PB_PKT_NO_L4, 14, 0, 0, 0, 0},
	{"don't-fragment is no fragment",
	 {E4, "4500001c000140004011", "0000", A4, B4, UDP},
	 4, 17, 0, 14, 34, 12345, 80, 0},
	{"protocol without ports (GRE)",
	 {E4, "450000180001000040", "2f0000", A4, B4, "00000800"},
	 4, 47, PB_PKT_NO_L4, 14, 0, 0, 0, 0},
	{"one VLAN tag",
	 {MACS "8100000a0800", "4500001c000100004011", "0000", A4, B4, UDP},
	 4, 17, 0, 18, 38, 12345, 80, 0},
	{"two VLAN tags",
	 {MACS "88a8000a8100000b86dd", "6000000000081140", A6, B6, UDP},
	 6, 17, 0, 22, 62, 12345, 80, 0},
	{"VLAN tag cut short",
	 {MACS "810000"},
	 0, 0, PB_PKT_NO_L4 | PB_PKT_MALFORMED, 0, 0, 0, 0, 0},
	{"TCP over IPv6", {E6, "6000000000140640", A6, B6, TCP}, 6, 6, 0, 14, 54, 12345, 80, 0x12},
	{"ICMPv6 echo reply",
	 {E6, "6000000000083a40", A6, B6, "8100000030390001"},
	 6, 58, 0, 14, 54, 12345, 12345, 0},
	{"neighbour solicitation: no ports",
	 {E6, "6000000000083a40", A6, B6, "8700000030390001"},
	 6, 58, 0, 14, 54, 0, 0, 0},
	{"IPv6 hop-by-hop options",
	 {E6, "6000000000100040", A6, B6, "1100000000000000", UDP},
	 6, 17, PB_PKT_OPTIONS, 14, 62, 12345, 80, 0},
	{"IPv6 routing header of 24 bytes, then destination options",
	 {E6, "6000000000282b40", A6, B6, "3c02000000000000", "00000000000000000000000000000000",
	  "1100000000000000", UDP},
	 6, 17, PB_PKT_OPTIONS, 14, 86, 12345, 80, 0},
	{"IPv6 authentication header: its length counts in fours",
	 {E6, "6000000000203340", A6, B6, "1104000000000000", "00000000000000000000000000000000",
	  UDP},
	 6, 17, PB_PKT_OPTIONS, 14, 78, 12345, 80, 0},
	{"IPv6 first fragment",
	 {E6, "6000000000102c40", A6, B6, "1100000100000001", UDP},
	 6, 17, PB_PKT_OPTIONS | PB_PKT_FRAGMENT, 14, 62, 12345, 80, 0},
	{"IPv6 later fragment",
	 {E6, "6000000000102c40", A6, B6, "1100001100000001", UDP},
	 6, 17, PB_PKT_OPTIONS | PB_PKT_FRAGMENT | PB_PKT_NO_L4, 14, 0, 0, 0, 0},
	{"IPv6 extension header cut short",
	 {E6, "6000000000020040", A6, B6, "1100"},
	 6, 0, PB_PKT_OPTIONS | PB_PKT_NO_L4 | PB_PKT_MALFORMED, 14, 0, 0, 0, 0},
	{"IPv6 extension header longer than the frame",
	 {E6, "6000000000100040", A6, B6, "11ff000000000000", UDP},
	 6, 17, PB_PKT_OPTIONS | PB_PKT_NO_L4 | PB_PKT_MALFORMED, 14, 0, 0, 0, 0},
	{"more IPv6 extension headers than are followed",
	 {E6, "6000000000503c40", A6, B6,
	  "3c000000000000003c000000000000003c000000000000003c00000000000000"
	  "3c000000000000003c000000000000003c000000000000003c00000000000000"
	  "1100000000000000",
	  UDP},
	 6, 60, PB_PKT_OPTIONS | PB_PKT_NO_L4, 14, 0, 0, 0, 0},
	{"IPv6 no next header",
	 {E6, "6000000000003b40", A6, B6},
	 6, 59, PB_PKT_NO_L4, 14, 0, 0, 0, 0},
	{"TCP header cut short",
	 {E4, "45000018000100004006", "0000", A4, B4, PORTS},
	 4, 6, PB_PKT_NO_L4 | PB_PKT_MALFORMED, 14, 0, 0, 0, 0},
	{"IPv4 header cut short (behind a tag: else the test run refuses it)",
	 {MACS "8100000a0800", "4500001400010000"},
	 0, 0, PB_PKT_NO_L4 | PB_PKT_MALFORMED, 18, 0, 0, 0, 0},
	{"IPv4 options longer than the frame",
	 {E4, "4f00003c000100004006", "0000", A4, B4},
	 0, 0, PB_PKT_NO_L4 | PB_PKT_MALFORMED, 14, 0, 0, 0, 0},
	{"IPv4 header length below its minimum",
	 {E4, "41000028000100004006", "0000", A4, B4, TCP},
	 0, 0, PB_PKT_NO_L4 | PB_PKT_MALFORMED, 14, 0, 0, 0, 0},
	{"IPv4 total length below the header's",
	 {E4, "45000013000100004006", "0000", A4, B4, TCP},
	 0, 0, PB_PKT_NO_L4 | PB_PKT_MALFORMED, 14, 0, 0, 0, 0},
	{"IPv6 version under the IPv4 Ethernet type",
	 {E4, "65000028000100004006", "0000", A4, B4, TCP},
	 0, 0, PB_PKT_NO_L4 | PB_PKT_MALFORMED, 14, 0, 0, 0, 0},
	{"IPv6 header cut short (behind a tag)",
	 {MACS "8100000a86dd", "6000000000140640", A6},
	 0, 0, PB_PKT_NO_L4 | PB_PKT_MALFORMED, 18, 0, 0, 0, 0},
	{"ARP is not IP",
	 {MACS "0806", "0001080006040001", "020000000002", A4, "000000000000", B4},
	 0, 0, PB_PKT_NO_L4, 14, 0, 0, 0, 0},
};
/* clang-format on */

static size_t read_hex(const char *const *parts, unsigned char *out)
{
	size_t n = 0;

	for (; *parts; parts++)
		for (const char *p = *parts; *p; p += 2) {
			unsigned byte;

			cr_assert_eq(sscanf(p, "%2x", &byte), 1);
			out[n++] = (unsigned char)byte;
		}
	return n;
}

static void check_addresses(const struct parse_case *c, const struct pb_packet *pkt)
{
	union pb_addr a = {0}, b = {0};

	if (c->family == 4) {
		a.v4 = htonl(0x0a000001);
		b.v4 = htonl(0x0a000002);
	} else if (c->family == 6) {
		a.bytes[0] = b.bytes[0] = 0xfd;
		a.bytes[15] = 1;
		b.bytes[15] = 2;
	}
	cr_expect_eq(memcmp(&pkt->saddr, &a, sizeof(a)), 0, "%s: source", c->given);
	cr_expect_eq(memcmp(&pkt->daddr, &b, sizeof(b)), 0, "%s: destination", c->given);
}

static void check(const struct parse_case *c, uint32_t hook)
{
	unsigned char frame[512];
	size_t len = read_hex(c->frame, frame);
	struct pb_packet pkt;

	cr_expect_eq(sandbox_run(hook, frame, len), -1, "%s: passes", c->given);
	pkt = sandbox_record(hook);
	cr_expect_eq(pkt.size, sizeof(pkt));
	cr_expect_eq(pkt.hook, hook);
	cr_expect_eq(pkt.family, c->family, "%s: family %u", c->given, pkt.family);
	cr_expect_eq(pkt.protocol, c->protocol, "%s: protocol %u", c->given, pkt.protocol);
	cr_expect_eq(pkt.flags, c->flags, "%s: flags 0x%x", c->given, pkt.flags);
	cr_expect_eq(pkt.l3_off, c->l3_off, "%s: L3 at %u", c->given, pkt.l3_off);
	cr_expect_eq(pkt.l4_off, c->l4_off, "%s: L4 at %u", c->given, pkt.l4_off);
	cr_expect_eq(ntohs(pkt.sport), c->sport, "%s: source port", c->given);
	cr_expect_eq(ntohs(pkt.dport), c->dport, "%s: destination port", c->given);
	cr_expect_eq(pkt.tcp_flags, c->tcp_flags, "%s: TCP flags 0x%x", c->given, pkt.tcp_flags);
	cr_expect_eq(pkt.len, len, "%s: length", c->given);
	cr_expect_eq(pkt.verdict, PB_VERDICT_PASS);
	check_addresses(c, &pkt);
}

Test(parse, every_frame_of_the_table_gives_its_record)
{
	sandbox_open();
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++)
		check(&cases[i], PB_HOOK_POD_EGRESS);
}

Test(parse, nothing_of_the_packet_before_stays_in_the_record)
{
	/* given: a record full of a TCP packet; when: the odd ones follow, in both directions */
	sandbox_open();
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		check(&cases[0], PB_HOOK_DEV_INGRESS);
		check(&cases[i], PB_HOOK_DEV_INGRESS);
	}
}

Test(parse, a_frame_cut_off_anywhere_never_reads_past_its_end)
{
	sandbox_open();
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		unsigned char frame[512];
		size_t len = read_hex(cases[i].frame, frame);

		/* The kernel's test run refuses a short IP frame, but not behind a VLAN tag. */
		memmove(frame + 16, frame + 12, len - 12);
		memcpy(frame + 12, "\x81\x00\x00\x0a", 4);
		len += 4;
		for (size_t cut = 15; cut < len; cut++) {
			struct pb_packet pkt;

			sandbox_run(PB_HOOK_POD_INGRESS, frame, cut);
			pkt = sandbox_record(PB_HOOK_POD_INGRESS);
			cr_expect_eq(pkt.len, cut);
			cr_expect_leq(pkt.l4_off, cut);
			cr_expect((pkt.flags & PB_PKT_NO_L4) == 0 || pkt.l4_off == 0,
				  "%s cut to %zu", cases[i].given, cut);
			cr_expect((pkt.flags & PB_PKT_NO_L4) || pkt.l4_off > 0, "%s cut to %zu",
				  cases[i].given, cut);
		}
	}
	cr_expect_eq(sandbox_counters(PB_HOOK_POD_INGRESS).missed, 0);
}
