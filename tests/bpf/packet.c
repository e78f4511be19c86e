/* SPDX-License-Identifier: Apache-2.0 */
/* Builds packets, cuts them into fragments, runs them. Its sums are packet_sum()'s. */
#include "packet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>

#define ETH_LEN 14

static void put16(uint8_t *at, unsigned value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

static void put32(uint8_t *at, uint32_t value)
{
	put16(at, value >> 16);
	put16(at + 2, value & 0xffff);
}

static uint8_t *append(struct packet *p, const void *data, size_t len)
{
	uint8_t *at = p->data + p->len;

	if (len > PACKET_MAX - p->len)
		abort();
	if (data)
		memcpy(at, data, len);
	else
		memset(at, 0, len);
	p->len += len;
	return at;
}

static bool is_v6(const struct packet_spec *spec)
{
	return strchr(spec->src, ':') != NULL;
}

static void build_ethernet(struct packet *p, const struct packet_spec *spec)
{
	static const uint8_t macs[12] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2};
	bool two = spec->vlan[0] && spec->vlan[1];

	append(p, macs, sizeof(macs));
	for (int i = 0; i < 2; i++)
		if (spec->vlan[i]) {
			uint8_t *tag = append(p, NULL, 4);

			put16(tag, two && i == 0 ? 0x88a8 : 0x8100);
			put16(tag + 2, spec->vlan[i]);
		}
	put16(append(p, NULL, 2), is_v6(spec) ? 0x86dd : 0x0800);
}

static size_t append_hex(struct packet *p, const char *digits)
{
	size_t n = 0;

	for (; digits && digits[0]; digits += 2, n++) {
		unsigned byte;

		if (sscanf(digits, "%2x", &byte) != 1)
			abort();
		*append(p, NULL, 1) = (uint8_t)byte;
	}
	return n;
}

/* The header's place; its lengths and sum come when the rest is known. */
static size_t build_ipv4(struct packet *p, const struct packet_spec *spec)
{
	size_t at = p->len;
	uint8_t *ip = append(p, NULL, 20);
	size_t options = append_hex(p, spec->options);

	append(p, NULL, (4 - options % 4) % 4);
	ip[0] = (uint8_t)(0x40 | (p->len - at) / 4);
	ip[1] = spec->tos;
	put16(ip + 4, spec->id);
	put16(ip + 6, spec->df ? 0x4000 : 0);
	ip[8] = spec->ttl ? spec->ttl : 64;
	ip[9] = spec->protocol;
	if (inet_pton(AF_INET, spec->src, ip + 12) != 1 ||
	    inet_pton(AF_INET, spec->dst, ip + 16) != 1)
		abort();
	return at;
}

static size_t build_ipv6(struct packet *p, const struct packet_spec *spec)
{
	size_t at = p->len;
	uint8_t *ip = append(p, NULL, 40);
	uint8_t *next = ip + 6;

	put32(ip, 0x60000000U | (uint32_t)spec->tos << 20);
	ip[7] = spec->ttl ? spec->ttl : 64;
	if (inet_pton(AF_INET6, spec->src, ip + 8) != 1 ||
	    inet_pton(AF_INET6, spec->dst, ip + 24) != 1)
		abort();
	for (size_t i = 0; i < spec->n_ext; i++) {
		uint8_t *ext = append(p, NULL, 8);

		*next = spec->ext[i];
		next = ext;
		ext[2] = 1; /* PadN over the rest */
		ext[3] = 4;
		/* An empty routing header: nothing is left to be visited. */
		if (spec->ext[i] == IPPROTO_ROUTING)
			ext[2] = ext[3] = 0;
	}
	*next = spec->protocol;
	return at;
}

static bool is_echo(const struct packet_spec *spec)
{
	return spec->protocol == IPPROTO_ICMP ? spec->icmp_type == 8 || spec->icmp_type == 0
					      : spec->icmp_type == 128 || spec->icmp_type == 129;
}

static void build_l4(struct packet *p, const struct packet_spec *spec)
{
	uint8_t *l4;

	switch (spec->protocol) {
	case IPPROTO_TCP:
		l4 = append(p, NULL, 20);
		put32(l4 + 4, spec->seq);
		put32(l4 + 8, spec->ack);
		l4[12] = 0x50;
		l4[13] = spec->tcp_flags;
		put16(l4 + 14, spec->tcp_flags & PACKET_RST ? 0 : 0xffff); /* window */
		break;
	case IPPROTO_UDP:
		l4 = append(p, NULL, 8);
		break;
	case IPPROTO_SCTP:
		l4 = append(p, NULL, 12);
		put32(l4 + 4, 0x11223344);
		break;
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		l4 = append(p, NULL, 8);
		l4[0] = spec->icmp_type;
		l4[1] = spec->icmp_code;
		if (is_echo(spec))
			put32(l4 + 4, (uint32_t)spec->sport << 16 | spec->dport);
		else
			put32(l4 + 4, spec->icmp_rest);
		return;
	default:
		return;
	}
	put16(l4, spec->sport);
	put16(l4 + 2, spec->dport);
}

static size_t l3_of(const struct packet *p)
{
	size_t at = 12;

	while (p->data[at] == 0x81 || (p->data[at] == 0x88 && p->data[at + 1] == 0xa8))
		at += 4;
	return at + 2;
}

static void build_payload(struct packet *p, const struct packet_spec *spec)
{
	if (spec->quote) {
		size_t from = l3_of(spec->quote), len = spec->quote->len - from;

		if (spec->quote_len && spec->quote_len < len)
			len = spec->quote_len;
		append(p, spec->quote->data + from, len);
	} else if (spec->payload) {
		append(p, spec->payload, spec->payload_len);
	} else {
		for (size_t i = 0; i < spec->payload_len; i++)
			*append(p, NULL, 1) = (uint8_t)(i * 7 + i / 251);
	}
}

/* CRC32c, bit by bit: tests have the time. */
static uint32_t crc32c(const uint8_t *data, size_t len)
{
	uint32_t crc = ~0U;

	for (size_t i = 0; i < len; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return ~crc;
}

static uint16_t l4_sum(const struct packet *p, size_t l3, size_t l4, uint8_t protocol)
{
	size_t len = p->len - l4;
	uint8_t all[40 + PACKET_MAX] = {0};

	memcpy(all + 40, p->data + l4, len);
	if (protocol == IPPROTO_ICMP)
		return packet_sum(all, 40 + len);
	if (p->data[l3] >> 4 == 6)
		memcpy(all, p->data + l3 + 8, 32);
	else
		memcpy(all, p->data + l3 + 12, 8);
	put16(all + 34, (unsigned)len);
	all[39] = protocol;
	return packet_sum(all, 40 + len);
}

static void finish_l4(struct packet *p, size_t l3, size_t l4, const struct packet_spec *spec)
{
	uint8_t *at = p->data + l4;
	uint16_t sum;

	if (spec->protocol == IPPROTO_SCTP) {
		uint32_t crc = crc32c(at, p->len - l4);

		memcpy(at + 8,
		       (uint8_t[]){(uint8_t)crc, (uint8_t)(crc >> 8), (uint8_t)(crc >> 16),
				   (uint8_t)(crc >> 24)},
		       4);
		return;
	}
	if (spec->protocol == IPPROTO_UDP)
		put16(at + 4, (unsigned)(p->len - l4));
	sum = (uint16_t)~l4_sum(p, l3, l4, spec->protocol);
	if (spec->protocol == IPPROTO_TCP)
		put16(at + 16, sum);
	else if (spec->protocol == IPPROTO_UDP && !spec->no_checksum)
		put16(at + 6, sum ? sum : 0xffff);
	else if (spec->protocol == IPPROTO_ICMP || spec->protocol == IPPROTO_ICMPV6)
		put16(at + 2, sum);
}

static void finish_l3(struct packet *p, size_t l3)
{
	uint8_t *ip = p->data + l3;

	if (ip[0] >> 4 == 6) {
		put16(ip + 4, (unsigned)(p->len - l3 - 40));
		return;
	}
	put16(ip + 2, (unsigned)(p->len - l3));
	packet_fix_ip(p);
}

void packet_fix_ip(struct packet *p)
{
	uint8_t *ip = p->data + l3_of(p);

	put16(ip + 10, 0);
	put16(ip + 10, (uint16_t)~packet_sum(ip, (size_t)(ip[0] & 15) * 4));
}

void packet_build(struct packet *ret, const struct packet_spec *spec)
{
	size_t l3, l4;

	ret->len = 0;
	build_ethernet(ret, spec);
	l3 = is_v6(spec) ? build_ipv6(ret, spec) : build_ipv4(ret, spec);
	l4 = ret->len;
	build_l4(ret, spec);
	build_payload(ret, spec);
	finish_l4(ret, l3, l4, spec);
	finish_l3(ret, l3);
}

/* One fragment: `from` the headers of the whole, then `len` bytes at `off` of what follows them. */
static void cut(const struct packet *whole, struct packet *ret, size_t l3, size_t header,
		size_t off, size_t len, uint32_t id)
{
	bool more = l3 + header + off + len < whole->len;
	unsigned word = (unsigned)off | (more ? 1 : 0);
	uint8_t *ip;

	ret->len = 0;
	append(ret, whole->data, l3 + header);
	ip = ret->data + l3;
	if (ip[0] >> 4 == 6) {
		uint8_t *frag = append(ret, NULL, 8);

		frag[0] = ip[6];
		ip[6] = IPPROTO_FRAGMENT;
		put16(frag + 2, word);
		put32(frag + 4, id);
	} else {
		put16(ip + 4, id & 0xffff);
		put16(ip + 6, (unsigned)(off / 8) | (more ? 0x2000 : 0));
	}
	append(ret, whole->data + l3 + header + off, len);
	finish_l3(ret, l3);
}

size_t packet_fragment(const struct packet *whole, size_t first, size_t room, uint32_t id,
		       struct packet *ret, size_t max)
{
	size_t l3 = l3_of(whole), n = 0, off = 0;
	size_t header = whole->data[l3] >> 4 == 6 ? 40 : (size_t)(whole->data[l3] & 15) * 4;
	size_t total = whole->len - l3 - header;

	while (off < total) {
		size_t len = n == 0 ? first : room;

		if (n == max)
			abort();
		if (len > total - off)
			len = total - off;
		cut(whole, &ret[n++], l3, header, off, len, id);
		off += len;
	}
	return n;
}

void packet_truncate(struct packet *p, size_t len)
{
	if (len < p->len)
		p->len = len;
}

int packet_run(int prog_fd, const struct packet *in, struct packet_ctx *ctx, struct packet *ret_out)
{
	struct __sk_buff skb = {.ifindex = ctx->ifindex,
				.mark = ctx->mark,
				.gso_size = ctx->gso_size,
				.gso_segs = ctx->gso_segs};
	static uint8_t out[PACKET_MAX + 512];
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = in->data, .data_size_in = (__u32)in->len,
		    .data_out = out, .data_size_out = sizeof(out), .ctx_in = &skb,
		    .ctx_size_in = sizeof(skb), .ctx_out = &skb, .ctx_size_out = sizeof(skb));
	int rc = bpf_prog_test_run_opts(prog_fd, &opts);

	if (rc < 0)
		return rc;
	if (opts.data_size_out > PACKET_MAX)
		return -E2BIG;
	memcpy(ret_out->data, out, opts.data_size_out);
	ret_out->len = opts.data_size_out;
	ctx->mark = skb.mark;
	ctx->gso_segs = skb.gso_segs;
	ctx->verdict = (int)opts.retval;
	return 0;
}
