/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets for tests of programs: builds them, takes them apart, says what is wrong with them.
 *
 * Owns a second opinion: its parser and its sums share no line with bpf/ and sdk/, and never may.
 * Knows neither the agent nor a test framework, so every test program can use it. What it is asked
 * to build it builds with right lengths and sums; what is to be wrong, the test breaks afterwards.
 */
#ifndef PB_TESTS_PACKET_H
#define PB_TESTS_PACKET_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PACKET_MAX 9216

struct packet {
	size_t len;
	uint8_t data[PACKET_MAX];
};

/* What shall be built. Zero: absent, or the usual. Numbers in host byte order. */
struct packet_spec {
	const char *src, *dst; /* as text; with a colon it is IPv6 */
	uint8_t protocol;      /* IPPROTO_* */
	uint16_t sport, dport; /* ICMP echo: id and sequence number */
	uint16_t vlan[2];      /* tags, the outer one first */
	uint8_t ttl;	       /* 64 */
	uint8_t tos;
	uint16_t id; /* of the IPv4 header */
	bool df;
	const char *options; /* of IPv4, hexadecimal digits; filled up to 4 bytes by zeros */
	uint8_t ext[8];	     /* types of IPv6 extension headers, 8 bytes each */
	size_t n_ext;
	uint8_t tcp_flags;
	uint32_t seq, ack;
	uint8_t icmp_type, icmp_code;
	uint32_t icmp_rest;  /* bytes 4 to 7 of an ICMP message that is no echo */
	const void *payload; /* NULL: `payload_len` bytes of a pattern */
	size_t payload_len;
	const struct packet *quote; /* the payload is this packet from its IP header on, */
	size_t quote_len;	    /* at most so many bytes of it; 0: all */
	bool no_checksum;	    /* UDP without one */
};

enum {
	PACKET_FIN = 0x01,
	PACKET_SYN = 0x02,
	PACKET_RST = 0x04,
	PACKET_PSH = 0x08,
	PACKET_ACK = 0x10,
};

void packet_build(struct packet *ret, const struct packet_spec *spec);
/*
 * Cuts a packet into fragments with at most `room` bytes behind the IP header each (`first` in the
 * first one), both multiples of 8. Returns how many; aborts when `max` are too few.
 */
size_t packet_fragment(const struct packet *whole, size_t first, size_t room, uint32_t id,
		       struct packet *ret, size_t max);
/* The frame's last bytes are cut off; headers stay as they are. */
void packet_truncate(struct packet *p, size_t len);
/* Corrects the IPv4 header checksum of a frame that a test has changed. */
void packet_fix_ip(struct packet *p);

/* An IP packet as the parser sees it. Numbers in host byte order, offsets from the frame's start.
 */
struct packet_ip {
	uint8_t family; /* 4, 6; 0: no IP */
	uint8_t protocol;
	uint8_t tos, ttl;
	bool df, fragment, more;
	uint16_t frag_off; /* bytes */
	uint32_t id;
	char src[INET6_ADDRSTRLEN], dst[INET6_ADDRSTRLEN];
	size_t l3_off, header_len; /* options and extension headers included */
	size_t l4_off;		   /* 0: no L4 header to be seen */
	size_t payload_off, end;   /* `end` by the header, in a quote perhaps past the frame */
	uint16_t sport, dport;	   /* ICMP echo: id and sequence number */
	uint8_t tcp_flags;
	uint32_t seq, ack;
	uint8_t icmp_type, icmp_code;
	uint32_t icmp_rest;
	bool has_sum; /* the L4 checksum is there and in use */
	bool whole;   /* all of L4 is there: no fragment, nothing cut off */
	uint16_t sum; /* over pseudo header and what is there of L4: 0xffff when whole and right */
	uint16_t check; /* as it stands */
};

struct packet_view {
	uint8_t dmac[6], smac[6];
	uint16_t vlan[2];
	uint16_t type;	/* Ethernet type behind the tags */
	size_t padding; /* bytes behind the IP packet */
	struct packet_ip ip;
	bool has_quote; /* an ICMP error with at least an IP header in it */
	struct packet_ip quote;
};

/* Takes a frame apart; never reads past its end. NULL, or why it can't be: a static text. */
const char *packet_read(const struct packet *p, struct packet_view *ret);
/*
 * NULL when lengths and sums are right, those of a packet in an ICMP error included as far as it is
 * there; else what isn't, in a static text.
 */
const char *packet_check(const struct packet *p);
/* NULL when both are the same; else every difference by its name, in a static text. */
const char *packet_diff(const struct packet *is, const struct packet *should);
/* The Internet checksum's sum (RFC 1071) over bytes, folded, not inverted. */
uint16_t packet_sum(const void *data, size_t len);

/* What a program sees besides the frame, and what it leaves behind. */
struct packet_ctx {
	uint32_t ifindex; /* of a device in this network namespace; 0: lo */
	uint32_t mark;
	uint32_t gso_size, gso_segs; /* not 0: segments of a stream, merged; segs of the result */
	int verdict;		     /* TC_ACT_*: -1 pass, 2 drop, 7 redirect */
};

/* Runs a tc program on `in`; `ret_out` may be the same packet. 0, or -errno of the test run. */
int packet_run(int prog_fd, const struct packet *in, struct packet_ctx *ctx,
	       struct packet *ret_out);

#endif
