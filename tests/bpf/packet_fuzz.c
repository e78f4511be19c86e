/* SPDX-License-Identifier: Apache-2.0 */
/* Makes random packets, and judges what became of them. */
#include "packet_fuzz.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000 + (uint64_t)ts.tv_nsec;
}

static uint64_t number_of(const char *variable, uint64_t otherwise)
{
	const char *text = getenv(variable);

	return text && *text ? strtoull(text, NULL, 0) : otherwise;
}

void fuzz_start(struct fuzz *f, const struct fuzz_pool *pool)
{
	memset(f, 0, sizeof(*f));
	f->pool = pool;
	f->seed = number_of("PB_FUZZ_SEED", now_ns());
	f->state = f->seed;
	f->max = number_of("PB_FUZZ_PACKETS", 200000);
	f->deadline_ns = now_ns() + number_of("PB_FUZZ_SECONDS", 10) * 1000000000;
	printf("# PB_FUZZ_SEED=%llu\n", (unsigned long long)f->seed);
	fflush(stdout);
}

bool fuzz_goes_on(struct fuzz *f)
{
	return f->done < f->max && now_ns() < f->deadline_ns;
}

/* splitmix64 */
uint64_t fuzz_random(struct fuzz *f, uint64_t below)
{
	uint64_t z = f->state += 0x9e3779b97f4a7c15ULL;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ULL;
	z = (z ^ z >> 27) * 0x94d049bb133111ebULL;
	return (z ^ z >> 31) % below;
}

static bool one_in(struct fuzz *f, uint64_t n)
{
	return fuzz_random(f, n) == 0;
}

/* ---- packets ---- */

static const char *pick_address(struct fuzz *f, bool v6)
{
	const char *const *list = v6 ? f->pool->v6 : f->pool->v4;
	size_t n = 0;

	while (list[n])
		n++;
	return list[fuzz_random(f, n)];
}

static uint16_t pick_port(struct fuzz *f)
{
	size_t n = 0;

	while (f->pool->ports[n])
		n++;
	return one_in(f, 8) ? (uint16_t)fuzz_random(f, 65536) : f->pool->ports[fuzz_random(f, n)];
}

static uint8_t pick_flags(struct fuzz *f)
{
	static const uint8_t flags[] = {PACKET_SYN,
					PACKET_SYN,
					PACKET_SYN | PACKET_ACK,
					PACKET_ACK,
					PACKET_ACK | PACKET_PSH,
					PACKET_FIN | PACKET_ACK,
					PACKET_RST,
					0};

	return flags[fuzz_random(f, sizeof(flags))];
}

static uint8_t pick_protocol(struct fuzz *f, bool v6)
{
	static const uint8_t protocols[] = {IPPROTO_TCP,  IPPROTO_TCP,	IPPROTO_TCP,
					    IPPROTO_UDP,  IPPROTO_UDP,	IPPROTO_UDP,
					    IPPROTO_SCTP, IPPROTO_ICMP, IPPROTO_GRE};
	uint8_t protocol = protocols[fuzz_random(f, sizeof(protocols))];

	return protocol == IPPROTO_ICMP && v6 ? IPPROTO_ICMPV6 : protocol;
}

/* What every packet may have or not. */
static void dress(struct fuzz *f, struct packet_spec *spec, bool v6)
{
	static const uint8_t ttls[] = {64, 64, 64, 255, 2, 1};
	static const uint8_t ext[] = {IPPROTO_HOPOPTS, IPPROTO_ROUTING, IPPROTO_DSTOPTS};

	spec->ttl = ttls[fuzz_random(f, sizeof(ttls))];
	spec->df = one_in(f, 2);
	spec->id = (uint16_t)fuzz_random(f, 65536);
	spec->tos = one_in(f, 4) ? (uint8_t)fuzz_random(f, 256) : 0;
	spec->payload_len = one_in(f, 10) ? fuzz_random(f, 1600) : fuzz_random(f, 64);
	spec->seq = (uint32_t)fuzz_random(f, UINT32_MAX);
	spec->ack = (uint32_t)fuzz_random(f, UINT32_MAX);
	spec->no_checksum = !v6 && one_in(f, 8);
	if (one_in(f, 8))
		spec->vlan[0] = 10;
	if (spec->vlan[0] && one_in(f, 2))
		spec->vlan[1] = 11;
	if (!v6 && one_in(f, 8))
		spec->options = one_in(f, 2) ? "94040000" : "9404000001010101010101";
	if (v6 && one_in(f, 8))
		for (spec->n_ext = 0; spec->n_ext < 1 + fuzz_random(f, 3); spec->n_ext++)
			spec->ext[spec->n_ext] = ext[spec->n_ext];
}

static void aim(struct fuzz *f, struct packet_spec *spec)
{
	const struct fuzz_target *t = f->pool->targets;
	size_t n = 0;

	while (t[n].addr)
		n++;
	t = &t[fuzz_random(f, n)];
	spec->src = pick_address(f, strchr(t->addr, ':'));
	spec->dst = t->addr;
	spec->dport = t->port;
	spec->protocol = t->protocol;
	if (one_in(f, 2))
		spec->tcp_flags = PACKET_SYN;
}

static void build_fresh(struct fuzz *f, struct packet *ret, size_t payload)
{
	bool v6 = one_in(f, 3);
	struct packet_spec spec = {.src = pick_address(f, v6),
				   .dst = pick_address(f, v6),
				   .protocol = pick_protocol(f, v6),
				   .sport = pick_port(f),
				   .dport = pick_port(f),
				   .tcp_flags = pick_flags(f)};

	if (!one_in(f, 4))
		aim(f, &spec);
	v6 = strchr(spec.src, ':');
	dress(f, &spec, v6);
	if (payload)
		spec.payload_len = payload;
	if (spec.protocol == IPPROTO_ICMP)
		spec.icmp_type = one_in(f, 4) ? (uint8_t)fuzz_random(f, 20) : 8;
	if (spec.protocol == IPPROTO_ICMPV6)
		spec.icmp_type = (uint8_t)(one_in(f, 4) ? fuzz_random(f, 256) : 128);
	packet_build(ret, &spec);
}

static void build_fragments(struct fuzz *f)
{
	static struct packet whole;
	size_t room = 8 * (1 + fuzz_random(f, 80));

	do
		build_fresh(f, &whole, room + fuzz_random(f, 6 * room));
	while (whole.len > 7 * room);
	f->n_parts = packet_fragment(&whole, room, room, (uint32_t)fuzz_random(f, 65536), f->parts,
				     FUZZ_PARTS);
}

/* One that came out, taken apart; false: there is none to be read. */
static bool recall(struct fuzz *f, struct packet **ret, struct packet_view *ret_view)
{
	size_t n = f->n_out < FUZZ_KEPT ? f->n_out : FUZZ_KEPT;

	if (n == 0)
		return false;
	*ret = &f->out[fuzz_random(f, n)];
	return !packet_read(*ret, ret_view) && ret_view->ip.family;
}

/* What the receiver of a packet that came out might say. */
static bool build_answer(struct fuzz *f, struct packet *ret)
{
	struct packet *of;
	struct packet_view v;
	struct packet_spec spec;

	if (!recall(f, &of, &v))
		return false;
	spec = (struct packet_spec){.src = v.ip.dst,
				    .dst = v.ip.src,
				    .protocol = v.ip.protocol,
				    .sport = v.ip.dport,
				    .dport = v.ip.sport,
				    .tcp_flags = pick_flags(f)};
	dress(f, &spec, v.ip.family == 6);
	packet_build(ret, &spec);
	return true;
}

/* What a router, or the receiver, might complain of. */
static bool build_error(struct fuzz *f, struct packet *ret)
{
	static const uint8_t types4[] = {3, 11, 12, 5, 4}, types6[] = {1, 2, 3, 4, 100};
	struct packet *of;
	struct packet_view v;
	struct packet_spec spec;
	bool v6;

	if (!recall(f, &of, &v))
		return false;
	v6 = v.ip.family == 6;
	spec = (struct packet_spec){.src = one_in(f, 2) ? v.ip.dst : pick_address(f, v6),
				    .dst = v.ip.src,
				    .protocol = v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP,
				    .icmp_type = v6 ? types6[fuzz_random(f, sizeof(types6))]
						    : types4[fuzz_random(f, sizeof(types4))],
				    .icmp_code = (uint8_t)fuzz_random(f, 6),
				    .icmp_rest = 1400};
	dress(f, &spec, v6);
	spec.quote = of;
	spec.quote_len = v.ip.header_len + 8 + fuzz_random(f, 200);
	packet_build(ret, &spec);
	return true;
}

/* ---- damage ---- */

static void damage(struct fuzz *f, struct packet *p)
{
	/* Places whose bytes decide: lengths, versions, offsets, types. */
	static const size_t places[] = {14, 16, 17, 18, 20, 21, 22, 23, 34, 42, 46, 54};
	size_t at = one_in(f, 2) ? places[fuzz_random(f, sizeof(places) / sizeof(places[0]))]
				 : 12 + fuzz_random(f, 110);

	switch (fuzz_random(f, 4)) {
	case 0:
		packet_truncate(p, 15 + fuzz_random(f, p->len));
		break;
	case 1:
		if (p->len + 40 < PACKET_MAX) {
			memset(p->data + p->len, 0xa5, 40);
			p->len += fuzz_random(f, 40);
		}
		break;
	default:
		if (at < p->len)
			p->data[at] = one_in(f, 2)
					      ? (uint8_t)(p->data[at] ^ 1U << fuzz_random(f, 8))
					      : (uint8_t)fuzz_random(f, 256);
	}
	/* Half of them with a right IPv4 header sum: others might be sorted out by it. */
	if (p->len > 34 && p->data[12] == 8 && p->data[13] == 0 && one_in(f, 2))
		packet_fix_ip(p);
}

void fuzz_packet(struct fuzz *f, struct packet *ret)
{
	size_t n = f->n_in < FUZZ_KEPT ? f->n_in : FUZZ_KEPT;
	bool made = false;

	f->done++;
	if (f->n_parts) {
		size_t i = one_in(f, 4) ? fuzz_random(f, f->n_parts) : 0;

		*ret = f->parts[i];
		memmove(&f->parts[i], &f->parts[i + 1], (--f->n_parts - i) * sizeof(*f->parts));
	} else {
		switch (fuzz_random(f, 10)) {
		case 0:
		case 1:
		case 2:
			made = build_answer(f, ret);
			break;
		case 3:
		case 4:
			made = build_error(f, ret);
			break;
		case 5:
		case 6:
			made = n > 0;
			if (made)
				*ret = f->in[fuzz_random(f, n)];
			break;
		case 7:
			if (one_in(f, 4))
				build_fragments(f);
		}
		if (!made)
			build_fresh(f, ret, 0);
	}
	if (one_in(f, 3))
		for (uint64_t i = 1 + fuzz_random(f, 3); i > 0; i--)
			damage(f, ret);
}

/* ---- judging ---- */

static unsigned residue(unsigned sum)
{
	return sum % 0xffff;
}

static unsigned header_residue(const struct packet *p, const struct packet_ip *ip)
{
	return residue(packet_sum(p->data + ip->l3_off, (size_t)(p->data[ip->l3_off] & 15) * 4));
}

/* Whatever was wrong with sums stays as wrong as it was. */
static const char *judge_ip(const struct packet *in, const struct packet_ip *a,
			    const struct packet *out, const struct packet_ip *b)
{
	if (a->family != b->family || a->protocol != b->protocol)
		return "it is another protocol";
	if (a->end - a->l3_off != b->end - b->l3_off || a->header_len != b->header_len)
		return "a length has changed";
	if (a->fragment != b->fragment || a->frag_off != b->frag_off || a->id != b->id)
		return "it is another fragment";
	if (a->family == 4 && header_residue(in, a) != header_residue(out, b))
		return "the IPv4 header sum isn't as right as it was";
	if (a->l4_off && a->has_sum != b->has_sum)
		return "a checksum has come or gone";
	if (a->l4_off && a->has_sum && residue(a->sum) != residue(b->sum))
		return "the L4 sum isn't as right as it was";
	if (b->ttl != a->ttl && b->ttl + 1 != a->ttl)
		return "the TTL has changed by more than one";
	return NULL;
}

/* Sent back: nobody else exchanges the addresses of the link. */
static bool is_answer(const struct packet_view *a, const struct packet_view *b)
{
	return memcmp(a->smac, b->dmac, 6) == 0 && memcmp(a->dmac, b->smac, 6) == 0;
}

static const char *judge_answer(const struct packet *out, const struct packet_view *b)
{
	if (b->ip.protocol == IPPROTO_TCP && !(b->ip.tcp_flags & PACKET_RST))
		return "an answer is TCP, but no reset";
	if (b->ip.family == 4 && header_residue(out, &b->ip) != 0)
		return "an answer has a wrong IPv4 header sum";
	if (!b->ip.l4_off || !b->ip.whole || b->ip.sum != 0xffff)
		return "an answer has a wrong L4 sum";
	return NULL;
}

static const char *judge_changed(struct fuzz *f, const struct packet *in, const struct packet *out)
{
	static char text[4096 + 64];
	struct packet_view a, b;
	const char *unreadable = packet_read(in, &a), *wrong = packet_read(out, &b);

	if (is_answer(&a, &b)) {
		f->answered++;
		return judge_answer(out, &b);
	}
	f->translated++;
	/* Beyond reading before, and so it may be now. */
	if (unreadable && !a.ip.l4_off)
		return NULL;
	if (wrong && !unreadable) {
		snprintf(text, sizeof(text), "it could be read and can't any more: %s", wrong);
		return text;
	}
	wrong = judge_ip(in, &a.ip, out, &b.ip);
	if (wrong)
		return wrong;
	if (a.padding != b.padding)
		return "what is behind the packet has changed its length";
	if (!a.has_quote)
		return NULL;
	wrong = judge_ip(in, &a.quote, out, &b.quote);
	if (!wrong)
		return NULL;
	snprintf(text, sizeof(text), "quoted packet: %s", wrong);
	return text;
}

static void keep(struct packet *ring, size_t *n, const struct packet *p)
{
	struct packet *to = &ring[(*n)++ % FUZZ_KEPT];

	to->len = p->len;
	memcpy(to->data, p->data, p->len);
}

const char *fuzz_judge(struct fuzz *f, const struct packet *in, const struct packet *out,
		       const struct packet_ctx *ctx, uint32_t mark)
{
	static char text[4096 + 64];
	struct packet_view v;
	const char *wrong;
	const bool changed = ctx->verdict != 2 && ctx->mark & mark;

	if (changed || one_in(f, 16))
		keep(f->in, &f->n_in, in);
	if (ctx->verdict == 2) {
		f->dropped++;
		return NULL;
	}
	if (ctx->verdict != -1 && ctx->verdict != 7)
		return "the verdict is none of ours";
	if (changed || one_in(f, 16))
		keep(f->out, &f->n_out, out);
	if (!changed) {
		f->passed++;
		if (ctx->verdict == 7)
			return "it is sent on without the mark";
		return in->len == out->len && memcmp(in->data, out->data, in->len) == 0
			       ? NULL
			       : "it was changed without a mark";
	}
	wrong = judge_changed(f, in, out);
	if (wrong || packet_check(in) || !packet_check(out))
		return wrong;
	/* An answer may quote less than all headers of the packet. */
	if (packet_read(out, &v) && v.ip.l4_off)
		return NULL;
	snprintf(text, sizeof(text), "it was right and isn't any more: %s", packet_check(out));
	return text;
}

static void show(const char *what, const struct packet *p)
{
	printf("# %s %zu: ", what, p->len);
	for (size_t i = 0; i < p->len; i++)
		printf("%02x", p->data[i]);
	printf("\n");
}

void fuzz_show(const struct fuzz *f, const struct packet *in, const struct packet *out)
{
	printf("# PB_FUZZ_SEED=%llu, packet %llu\n", (unsigned long long)f->seed,
	       (unsigned long long)f->done);
	show("in", in);
	show("out", out);
	fflush(stdout);
}
