/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Takes packets apart and judges them. It trusts no length that it hasn't compared with the frame,
 * and computes every sum from the start; nothing here may ever be updated incrementally.
 */
#include "packet.h"

#include <arpa/inet.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static unsigned get16(const uint8_t *at)
{
	return (unsigned)at[0] << 8 | at[1];
}

static uint32_t get32(const uint8_t *at)
{
	return (uint32_t)get16(at) << 16 | get16(at + 2);
}

static uint32_t sum_on(uint32_t sum, const uint8_t *at, size_t len)
{
	for (size_t i = 0; i + 1 < len; i += 2)
		sum += get16(at + i);
	if (len % 2)
		sum += (uint32_t)at[len - 1] << 8;
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

uint16_t packet_sum(const void *data, size_t len)
{
	return (uint16_t)sum_on(0, data, len);
}

/* ---- taking apart ---- */

/* What is there of L4 when it ends at `end`: never past the frame. */
static size_t there(const struct packet *p, size_t off, size_t end)
{
	size_t stop = end < p->len ? end : p->len;

	return stop > off ? stop - off : 0;
}

static void read_l4_sum(const struct packet *p, struct packet_ip *ip, size_t l4)
{
	size_t n = there(p, l4, ip->end), len = ip->end - l4;
	const uint8_t *at = p->data + l4, *l3 = p->data + ip->l3_off;
	size_t check = ip->protocol == IPPROTO_TCP ? 16 : ip->protocol == IPPROTO_UDP ? 6 : 2;
	uint32_t sum = 0;

	ip->whole = n == len && !ip->fragment;
	if (ip->protocol == IPPROTO_SCTP || n < check + 2)
		return;
	ip->check = (uint16_t)get16(at + check);
	ip->has_sum = ip->check != 0 || ip->protocol != IPPROTO_UDP;
	if (ip->protocol != IPPROTO_ICMP) {
		sum = sum_on(0, ip->family == 4 ? l3 + 12 : l3 + 8, ip->family == 4 ? 8 : 32);
		sum += ip->protocol + (uint32_t)len;
	}
	ip->sum = (uint16_t)sum_on(sum, at, n);
}

/* The first 8 bytes are enough for ports, and all that a quote must have. */
static const char *read_l4(const struct packet *p, struct packet_ip *ip, size_t l4, bool quoted)
{
	const uint8_t *at = p->data + l4;
	size_t n = there(p, l4, ip->end);
	size_t header = 8;

	if (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP &&
	    ip->protocol != IPPROTO_SCTP && ip->protocol != IPPROTO_ICMP &&
	    ip->protocol != IPPROTO_ICMPV6)
		return NULL;
	if (ip->protocol == IPPROTO_TCP && !quoted)
		header = n > 12 ? (size_t)(at[12] >> 4) * 4 : 20;
	if (ip->protocol == IPPROTO_TCP && header < 20 && !quoted)
		return "the TCP header says that it is shorter than 20 bytes";
	if (n < header)
		return "the L4 header is cut short";
	ip->l4_off = l4;
	ip->payload_off = l4 + header;
	if (ip->protocol == IPPROTO_ICMP || ip->protocol == IPPROTO_ICMPV6) {
		ip->icmp_type = at[0];
		ip->icmp_code = at[1];
		ip->icmp_rest = get32(at + 4);
	}
	if (ip->protocol != IPPROTO_ICMP && ip->protocol != IPPROTO_ICMPV6) {
		ip->sport = (uint16_t)get16(at);
		ip->dport = (uint16_t)get16(at + 2);
	} else if (ip->protocol == IPPROTO_ICMP ? at[0] == 0 || at[0] == 8
						: at[0] == 128 || at[0] == 129) {
		ip->sport = (uint16_t)get16(at + 4);
		ip->dport = (uint16_t)get16(at + 6);
	}
	if (ip->protocol == IPPROTO_TCP)
		ip->seq = get32(at + 4);
	if (ip->protocol == IPPROTO_TCP && n >= 20) {
		ip->ack = get32(at + 8);
		ip->tcp_flags = at[13];
	}
	read_l4_sum(p, ip, l4);
	return NULL;
}

static const char *read_ipv4(const struct packet *p, struct packet_ip *ip, bool quoted)
{
	const uint8_t *at = p->data + ip->l3_off;
	unsigned frag;

	if (p->len - ip->l3_off < 20)
		return "the IPv4 header is cut short";
	ip->header_len = (size_t)(at[0] & 15) * 4;
	ip->end = ip->l3_off + get16(at + 2);
	if (ip->header_len < 20)
		return "the IPv4 header says that it is shorter than 20 bytes";
	if (ip->end < ip->l3_off + ip->header_len)
		return "the IPv4 length is less than the header's";
	if (ip->header_len > p->len - ip->l3_off || (!quoted && ip->end > p->len))
		return "the IPv4 packet is longer than the frame";
	ip->family = 4;
	ip->tos = at[1];
	ip->ttl = at[8];
	ip->protocol = at[9];
	ip->id = get16(at + 4);
	frag = get16(at + 6);
	ip->df = frag & 0x4000;
	ip->more = frag & 0x2000;
	ip->frag_off = (uint16_t)((frag & 0x1fff) * 8);
	ip->fragment = ip->more || ip->frag_off;
	inet_ntop(AF_INET, at + 12, ip->src, sizeof(ip->src));
	inet_ntop(AF_INET, at + 16, ip->dst, sizeof(ip->dst));
	return ip->frag_off ? NULL : read_l4(p, ip, ip->l3_off + ip->header_len, quoted);
}

static bool is_ext(uint8_t type)
{
	return type == IPPROTO_HOPOPTS || type == IPPROTO_ROUTING || type == IPPROTO_FRAGMENT ||
	       type == IPPROTO_DSTOPTS || type == IPPROTO_AH;
}

static const char *read_ext(const struct packet *p, struct packet_ip *ip)
{
	size_t off = ip->l3_off + 40;

	while (is_ext(ip->protocol) && !ip->frag_off) {
		const uint8_t *at = p->data + off;
		size_t n = there(p, off, ip->end), len;

		if (n < 8)
			return "an IPv6 extension header is cut short";
		len = ip->protocol == IPPROTO_AH ? (at[1] + 2U) * 4 : (at[1] + 1U) * 8;
		if (ip->protocol == IPPROTO_FRAGMENT) {
			len = 8;
			ip->frag_off = (uint16_t)(get16(at + 2) & 0xfff8);
			ip->more = at[3] & 1;
			ip->id = get32(at + 4);
			ip->fragment = ip->more || ip->frag_off;
		}
		if (n < len)
			return "an IPv6 extension header is cut short";
		ip->protocol = at[0];
		off += len;
	}
	ip->header_len = off - ip->l3_off;
	return NULL;
}

static const char *read_ipv6(const struct packet *p, struct packet_ip *ip, bool quoted)
{
	const uint8_t *at = p->data + ip->l3_off;
	const char *why;

	if (p->len - ip->l3_off < 40)
		return "the IPv6 header is cut short";
	ip->end = ip->l3_off + 40 + get16(at + 4);
	if (!quoted && ip->end > p->len)
		return "the IPv6 packet is longer than the frame";
	ip->family = 6;
	ip->tos = (uint8_t)(get16(at) >> 4);
	ip->protocol = at[6];
	ip->ttl = at[7];
	inet_ntop(AF_INET6, at + 8, ip->src, sizeof(ip->src));
	inet_ntop(AF_INET6, at + 24, ip->dst, sizeof(ip->dst));
	why = read_ext(p, ip);
	if (why || ip->frag_off)
		return why;
	return read_l4(p, ip, ip->l3_off + ip->header_len, quoted);
}

static const char *read_ip(const struct packet *p, struct packet_ip *ip, size_t off, bool quoted)
{
	memset(ip, 0, sizeof(*ip));
	ip->l3_off = off;
	if (off >= p->len)
		return "there is no IP header";
	switch (p->data[off] >> 4) {
	case 4:
		return read_ipv4(p, ip, quoted);
	case 6:
		return read_ipv6(p, ip, quoted);
	default:
		return "the IP version is neither 4 nor 6";
	}
}

static bool is_error(const struct packet_ip *ip)
{
	if (!ip->l4_off)
		return false;
	if (ip->protocol == IPPROTO_ICMP)
		return ip->icmp_type == 3 || ip->icmp_type == 4 || ip->icmp_type == 5 ||
		       ip->icmp_type == 11 || ip->icmp_type == 12;
	return ip->protocol == IPPROTO_ICMPV6 && ip->icmp_type >= 1 && ip->icmp_type <= 127;
}

/* It ends where the error ends, whatever the frame has behind it. */
static const char *read_quote(const struct packet *p, struct packet_view *ret)
{
	static struct packet error;

	error.len = ret->ip.end;
	memcpy(error.data, p->data, error.len);
	return read_ip(&error, &ret->quote, ret->ip.payload_off, true);
}

const char *packet_read(const struct packet *p, struct packet_view *ret)
{
	size_t off = 12, tags = 0;
	const char *why;

	memset(ret, 0, sizeof(*ret));
	if (p->len < 14)
		return "the Ethernet header is cut short";
	memcpy(ret->dmac, p->data, 6);
	memcpy(ret->smac, p->data + 6, 6);
	for (; get16(p->data + off) == 0x8100 || get16(p->data + off) == 0x88a8; off += 4) {
		if (p->len < off + 6)
			return "a VLAN tag is cut short";
		if (tags < 2)
			ret->vlan[tags++] = (uint16_t)get16(p->data + off + 2);
	}
	ret->type = (uint16_t)get16(p->data + off);
	if (ret->type != 0x0800 && ret->type != 0x86dd)
		return NULL;
	if (off + 2 < p->len && p->data[off + 2] >> 4 != (ret->type == 0x0800 ? 4 : 6))
		return "the IP version isn't that of the Ethernet type";
	why = read_ip(p, &ret->ip, off + 2, false);
	if (why)
		return why;
	ret->padding = p->len - ret->ip.end;
	if (!is_error(&ret->ip))
		return NULL;
	why = read_quote(p, ret);
	ret->has_quote = ret->quote.family != 0;
	return why;
}

/* ---- judging ---- */

struct text {
	size_t len;
	char buf[4096];
};

__attribute__((format(printf, 2, 3))) static void say(struct text *t, const char *format, ...)
{
	va_list args;
	int n;

	va_start(args, format);
	n = vsnprintf(t->buf + t->len, sizeof(t->buf) - t->len, format, args);
	va_end(args);
	if (n > 0)
		t->len += (size_t)n < sizeof(t->buf) - t->len ? (size_t)n
							      : sizeof(t->buf) - t->len - 1;
}

/* CRC32c by a table of its own, not the builder's loop. */
static uint32_t crc32c(const uint8_t *data, size_t len)
{
	uint32_t table[256], crc = ~0U;

	for (uint32_t i = 0; i < 256; i++) {
		table[i] = i;
		for (int bit = 0; bit < 8; bit++)
			table[i] = table[i] >> 1 ^ (table[i] & 1 ? 0x82f63b78 : 0);
	}
	for (size_t i = 0; i < len; i++) {
		uint8_t byte = i >= 8 && i < 12 ? 0 : data[i];

		crc = table[(crc ^ byte) & 255] ^ crc >> 8;
	}
	return ~crc;
}

static void check_sctp(const struct packet *p, const struct packet_ip *ip, const char *what,
		       struct text *t)
{
	const uint8_t *at = p->data + ip->l4_off;
	uint32_t is, should;

	if (ip->end - ip->l4_off < 12) {
		say(t, "%sSCTP header is cut short; ", what);
		return;
	}
	is = (uint32_t)at[8] | (uint32_t)at[9] << 8 | (uint32_t)at[10] << 16 |
	     (uint32_t)at[11] << 24;
	should = crc32c(at, ip->end - ip->l4_off);
	if (is != should)
		say(t, "%sSCTP checksum is 0x%08x, should be 0x%08x; ", what, is, should);
}

static void check_l4(const struct packet *p, const struct packet_ip *ip, const char *what,
		     struct text *t)
{
	if (!ip->l4_off)
		return;
	if (ip->protocol == IPPROTO_UDP && !ip->fragment &&
	    get16(p->data + ip->l4_off + 4) != ip->end - ip->l4_off)
		say(t, "%sUDP length is %u, should be %zu; ", what, get16(p->data + ip->l4_off + 4),
		    ip->end - ip->l4_off);
	if (ip->protocol == IPPROTO_UDP && ip->family == 6 && !ip->has_sum)
		say(t, "%sUDP checksum is 0, which IPv6 forbids; ", what);
	if (!ip->whole)
		return;
	if (ip->protocol == IPPROTO_SCTP)
		check_sctp(p, ip, what, t);
	else if (ip->has_sum && ip->sum != 0xffff)
		say(t, "%sL4 checksum (protocol %u) is 0x%04x, should be 0x%04x; ", what,
		    ip->protocol, ip->check,
		    (uint16_t)~sum_on(0,
				      (uint8_t[]){(uint8_t)(ip->sum >> 8), (uint8_t)ip->sum,
						  (uint8_t)((uint16_t)~ip->check >> 8),
						  (uint8_t)~ip->check},
				      4));
}

static void check_ip(const struct packet *p, const struct packet_ip *ip, const char *what,
		     struct text *t)
{
	const uint8_t *at = p->data + ip->l3_off;

	if (ip->family == 4 && packet_sum(at, ip->header_len) != 0xffff) {
		uint8_t copy[60];

		memcpy(copy, at, ip->header_len);
		copy[10] = copy[11] = 0;
		say(t, "%sIPv4 header checksum is 0x%04x, should be 0x%04x; ", what, get16(at + 10),
		    (uint16_t)~packet_sum(copy, ip->header_len));
	}
	check_l4(p, ip, what, t);
}

const char *packet_check(const struct packet *p)
{
	static struct text t;
	struct packet_view v;
	const char *why = packet_read(p, &v);

	if (why)
		return why;
	t.len = 0;
	if (v.ip.family)
		check_ip(p, &v.ip, "", &t);
	if (v.has_quote)
		check_ip(p, &v.quote, "quoted ", &t);
	return t.len ? t.buf : NULL;
}

/* ---- differences ---- */

static void diff_number(struct text *t, const char *what, const char *field, uint64_t is,
			uint64_t should)
{
	if (is != should)
		say(t, "%s%s is %llu, should be %llu; ", what, field, (unsigned long long)is,
		    (unsigned long long)should);
}

static void diff_text(struct text *t, const char *what, const char *field, const char *is,
		      const char *should)
{
	if (strcmp(is, should) != 0)
		say(t, "%s%s is %s, should be %s; ", what, field, is, should);
}

static void diff_ip(struct text *t, const char *what, const struct packet_ip *is,
		    const struct packet_ip *should)
{
	diff_number(t, what, "family", is->family, should->family);
	diff_text(t, what, "source", is->src, should->src);
	diff_text(t, what, "destination", is->dst, should->dst);
	diff_number(t, what, "protocol", is->protocol, should->protocol);
	diff_number(t, what, "source port", is->sport, should->sport);
	diff_number(t, what, "destination port", is->dport, should->dport);
	diff_number(t, what, "TTL", is->ttl, should->ttl);
	diff_number(t, what, "TOS", is->tos, should->tos);
	diff_number(t, what, "DF", is->df, should->df);
	diff_number(t, what, "id", is->id, should->id);
	diff_number(t, what, "fragment offset", is->frag_off, should->frag_off);
	diff_number(t, what, "more fragments", is->more, should->more);
	diff_number(t, what, "header length", is->header_len, should->header_len);
	diff_number(t, what, "length", is->end - is->l3_off, should->end - should->l3_off);
	diff_number(t, what, "TCP flags", is->tcp_flags, should->tcp_flags);
	diff_number(t, what, "sequence number", is->seq, should->seq);
	diff_number(t, what, "acknowledgement", is->ack, should->ack);
	diff_number(t, what, "ICMP type", is->icmp_type, should->icmp_type);
	diff_number(t, what, "ICMP code", is->icmp_code, should->icmp_code);
	diff_number(t, what, "ICMP rest", is->icmp_rest, should->icmp_rest);
	diff_number(t, what, "checksum", is->check, should->check);
}

static void diff_bytes(struct text *t, const struct packet *is, const struct packet *should)
{
	size_t n = is->len < should->len ? is->len : should->len, shown = 0;

	for (size_t i = 0; i < n && shown < 8; i++)
		if (is->data[i] != should->data[i]) {
			say(t, "byte %zu is %02x, should be %02x; ", i, is->data[i],
			    should->data[i]);
			shown++;
		}
}

const char *packet_diff(const struct packet *is, const struct packet *should)
{
	static struct text t;
	struct packet_view a, b;
	const char *why;

	if (is->len == should->len && memcmp(is->data, should->data, is->len) == 0)
		return NULL;
	t.len = 0;
	diff_number(&t, "", "frame length", is->len, should->len);
	why = packet_read(is, &a);
	if (why)
		say(&t, "it can't be read: %s; ", why);
	if (!packet_read(should, &b) && !why) {
		diff_number(&t, "", "outer VLAN tag", a.vlan[0], b.vlan[0]);
		diff_number(&t, "", "inner VLAN tag", a.vlan[1], b.vlan[1]);
		diff_ip(&t, "", &a.ip, &b.ip);
		diff_number(&t, "", "a quote", a.has_quote, b.has_quote);
		diff_ip(&t, "quoted ", &a.quote, &b.quote);
	}
	diff_bytes(&t, is, should);
	return t.buf;
}
