/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random packets at every hook of a node with Services of all kinds: nothing may ever be missed,
 * and what is sent on is as right as it came.
 */
#include "ns_bed.h"

#include "../../../tests/bpf/packet_fuzz.h"

TestSuite(kpr_ns_fuzz, .init = bed_enter, .fini = bed_leave, .timeout = 120);

static const char *const addresses4[] = {CLIENT4, "203.0.113.6", NODE4,	    POD4,	   FAR4,
					 VIP4,	  "192.0.2.11",	 LOOPBACK4, "203.0.113.5", NULL};
static const char *const addresses6[] = {CLIENT6, "2001:db8::6", NODE6, POD6, FAR6, VIP6, NULL};
static const uint16_t ports[] = {30080, 30081, 30082, 30053, 53,    80,	  443,
				 8080,	5000,  40000, 40001, 32768, 1025, 0};

/* clang-format off */
static const struct bed_service services[] = {
	{NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT, .backends = {{FAR4, 8080, false}, {POD4, 8080, true}}},
	{NODE4, 30081, IPPROTO_TCP, .flags = NODE_PORT, .backends = {{POD4, 8080, true}}},
	{NODE4, 30082, IPPROTO_TCP, .flags = NODE_PORT, .backends = {{NODE4, 8080, true}}},
	{NODE4, 30053, IPPROTO_UDP, .flags = NODE_PORT, .backends = {{FAR4, 53, false}, {POD4, 53, true}}},
	{NODE4, 5000, IPPROTO_SCTP, .flags = NODE_PORT, .backends = {{FAR4, 5000, false}}},
	{VIP4, 80, IPPROTO_TCP, .flags = LOAD_BALANCER | PB_SVC_MAGLEV,
	 .backends = {{FAR4, 8080, false}, {POD4, 8080, true}}},
	{VIP4, 53, IPPROTO_UDP, .flags = LOAD_BALANCER, .affinity_s = 100,
	 .backends = {{FAR4, 53, false}, {POD4, 53, true}}},
	{VIP4, 443, IPPROTO_TCP, .flags = LOAD_BALANCER}, /* no backend */
	{VIP4, 443, IPPROTO_UDP, .flags = LOAD_BALANCER},
	{"192.0.2.11", 80, IPPROTO_TCP, .flags = CLUSTER_IP, .backends = {{POD4, 8080, true}, {FAR4, 8080, false}}},
	{"192.0.2.11", 53, IPPROTO_UDP, .flags = CLUSTER_IP, .backends = {{POD4, 53, true}}},
	{NODE6, 30080, IPPROTO_TCP, .flags = NODE_PORT, .backends = {{FAR6, 8080, false}, {POD6, 8080, true}}},
	{NODE6, 30053, IPPROTO_UDP, .flags = NODE_PORT, .backends = {{FAR6, 53, false}, {POD6, 53, true}}},
	{VIP6, 80, IPPROTO_TCP, .flags = LOAD_BALANCER | PB_SVC_MAGLEV, .backends = {{FAR6, 8080, false}}},
	{VIP6, 53, IPPROTO_UDP, .flags = CLUSTER_IP, .backends = {{POD6, 53, true}}},
	{VIP6, 443, IPPROTO_TCP, .flags = LOAD_BALANCER},
};
/* clang-format on */

/* Every frontend. */
static struct fuzz_target targets[PB_ARRAY_LEN(services) + 1];
static const struct fuzz_pool pool = {.targets = targets,
				      .v4 = addresses4,
				      .v6 = addresses6,
				      .ports = ports};

static uint32_t device_of(uint32_t hook)
{
	return hook == PB_HOOK_DEV_INGRESS || hook == PB_HOOK_DEV_EGRESS ? bed.up : bed.pod;
}

/* ---- what comes back ---- */

static bool same_tuple(const struct packet_ip *is, const struct packet_ip *should)
{
	return strcmp(is->src, should->src) == 0 && strcmp(is->dst, should->dst) == 0 &&
	       is->sport == should->sport && is->dport == should->dport;
}

/* The same way back: source and destination exchanged. */
static struct packet_ip turned(const struct packet_ip *ip)
{
	struct packet_ip back = *ip;

	memcpy(back.src, ip->dst, sizeof(back.src));
	memcpy(back.dst, ip->src, sizeof(back.dst));
	back.sport = ip->dport;
	back.dport = ip->sport;
	return back;
}

static struct packet_spec answer_to(const struct packet_ip *ip)
{
	return (struct packet_spec){.src = ip->dst,
				    .dst = ip->src,
				    .protocol = ip->protocol,
				    .sport = ip->dport,
				    .dport = ip->sport,
				    .tcp_flags = PACKET_ACK,
				    .payload_len = 10};
}

static struct packet_spec error_about(const struct packet_ip *ip, const struct packet *quote)
{
	bool v6 = ip->family == 6;

	return (struct packet_spec){.src = v6 ? "2001:db8:ffff::1" : "198.18.0.1",
				    .dst = ip->src,
				    .protocol = v6 ? IPPROTO_ICMPV6 : IPPROTO_ICMP,
				    .icmp_type = v6 ? 2 : 3,
				    .icmp_code = v6 ? 0 : 4,
				    .icmp_rest = 1300,
				    .quote = quote,
				    .quote_len = ip->header_len + 8};
}

/*
 * What was sent on as `out` gets an answer, and an error: both must reach the sender of `in` as if
 * there had been no translation.
 */
static unsigned long n_back;

static const char *comes_back(uint32_t hook, const struct packet *in, const struct packet *out)
{
	static struct packet ask, got;
	struct packet_view a, b, v;
	struct packet_ctx ctx = {.ifindex = device_of(hook)};
	struct packet_spec spec;
	struct packet_ip should;

	if (packet_read(in, &a) || packet_read(out, &b))
		return NULL;
	spec = answer_to(&b.ip);
	packet_build(&ask, &spec);
	if (packet_run(sandbox.dp->entry_fd[hook], &ask, &ctx, &got) < 0 || packet_read(&got, &v) ||
	    ctx.verdict == 2)
		return "its answer isn't sent on";
	should = turned(&a.ip);
	if (!same_tuple(&v.ip, &should))
		return "its answer doesn't come from whom the sender asked, or not to him";
	spec = error_about(&b.ip, out);
	packet_build(&ask, &spec);
	ctx = (struct packet_ctx){.ifindex = device_of(hook)};
	if (packet_run(sandbox.dp->entry_fd[hook], &ask, &ctx, &got) < 0 || packet_read(&got, &v) ||
	    ctx.verdict == 2)
		return "an error about it isn't sent on";
	if (!v.has_quote || !same_tuple(&v.quote, &a.ip) || strcmp(v.ip.dst, a.ip.src) != 0)
		return "an error about it isn't about what the sender sent, or not to him";
	n_back++;
	return NULL;
}

/* The hook where an answer to it would come in; PB_HOOK_COUNT: at none of this node's. */
static uint32_t way_back(uint32_t hook, const struct packet_ctx *ctx, const struct packet_ip *ip)
{
	if (ctx->verdict == 7)
		return sandbox_record(hook).redirect_ifindex == bed.pod ? PB_HOOK_POD_EGRESS
									: PB_HOOK_DEV_INGRESS;
	/* On its way already, out of the node. */
	if (hook == PB_HOOK_DEV_EGRESS ||
	    (hook == PB_HOOK_POD_EGRESS &&
	     (strcmp(ip->dst, FAR4) == 0 || strcmp(ip->dst, FAR6) == 0)))
		return PB_HOOK_DEV_INGRESS;
	return PB_HOOK_COUNT;
}

/* Whole and right packets of flows that were sent on. */
static const char *judge_way_back(const struct packet *in, const struct packet *out,
				  const struct packet_ctx *ctx, uint32_t hook)
{
	struct packet_view a, b;
	uint32_t back;

	if (ctx->verdict == 2 || !(ctx->mark & PB_MARK_TRANSLATED) || packet_check(in) ||
	    packet_read(in, &a) || packet_read(out, &b))
		return NULL;
	if (a.ip.fragment || !a.ip.l4_off || a.ip.protocol == IPPROTO_ICMP ||
	    a.ip.protocol == IPPROTO_ICMPV6)
		return NULL;
	/* An answer to the sender is no packet of the flow. */
	if (memcmp(a.smac, b.dmac, 6) == 0 && memcmp(a.dmac, b.smac, 6) == 0)
		return NULL;
	back = way_back(hook, ctx, &b.ip);
	return back == PB_HOOK_COUNT ? NULL : comes_back(back, in, out);
}

/* False: the packet was no packet to the test run, or all is well. */
static bool goes_wrong(struct fuzz *f, bool back)
{
	static struct packet in, out;
	uint32_t hook = (uint32_t)fuzz_random(f, PB_HOOK_TC_COUNT);
	struct packet_ctx ctx = {.ifindex = device_of(hook)};
	const char *wrong;

	fuzz_packet(f, &in);
	if (packet_run(sandbox.dp->entry_fd[hook], &in, &ctx, &out) < 0)
		return false;
	wrong = fuzz_judge(f, &in, &out, &ctx, PB_MARK_TRANSLATED);
	if (!wrong && back && fuzz_random(f, 4) == 0)
		wrong = judge_way_back(&in, &out, &ctx, hook);
	if (wrong) {
		fuzz_show(f, &in, &out);
		cr_expect_fail("%s: packet %llu with PB_FUZZ_SEED=%llu: %s", pb_hook_name(hook),
			       (unsigned long long)f->done, (unsigned long long)f->seed, wrong);
	}
	return wrong != NULL;
}

/* ---- what is left behind ---- */

static struct pb_ct_key key_back(const struct pb_ct_key *key, const struct pb_ct *ct)
{
	struct pb_ct_key back = *key;

	back.saddr = ct->daddr;
	back.daddr = ct->saddr;
	back.sport = ct->dport;
	back.dport = ct->sport;
	return back;
}

/* Never half of a flow: each has its partner, which leads back to it, and one is of the answers. */
static uint32_t expect_pairs(void)
{
	struct pb_ct_key key, *at = NULL, back;
	struct pb_ct ct, other;
	int fd = bed_map("pb_ct");
	uint32_t n = 0, alone = 0;

	for (; bpf_map_get_next_key(fd, at, &key) == 0; at = &key, n++) {
		cr_assert_eq(bpf_map_lookup_elem(fd, &key, &ct), 0);
		if (ct.flags & PB_CT_SINGLE)
			continue;
		back = key_back(&key, &ct);
		if (bpf_map_lookup_elem(fd, &back, &other) < 0) {
			alone++;
			continue;
		}
		back = key_back(&back, &other);
		alone += memcmp(&back, &key, sizeof(key)) != 0 ||
			 ((ct.flags ^ other.flags) & PB_CT_REPLY) == 0 || ct.state != other.state;
	}
	cr_expect_eq(alone, 0, "%u of %u entries are no half of a flow", alone, n);
	return n;
}

/* Services and times change between packets, as they do on a node. */
static void change_something(struct fuzz *f)
{
	static const uint16_t ranges[][2] = {{32768, 65535}, {32768, 32771}, {40000, 40000}};
	const uint16_t *range = ranges[fuzz_random(f, PB_ARRAY_LEN(ranges))];
	const struct bed_service *s = &services[fuzz_random(f, PB_ARRAY_LEN(services))];
	const struct pb_ct_settings times = {
		.tcp_opening = (uint32_t)fuzz_random(f, 2) * 60,
		.tcp_established = (uint32_t)fuzz_random(f, 2) * 21600,
		.tcp_closing = (uint32_t)fuzz_random(f, 2) * 10,
		.other = (uint32_t)fuzz_random(f, 2) * 60,
	};
	uint32_t zero = 0, number = (uint32_t)fuzz_random(f, bed.next_backend);
	struct pb_svc_backend backend;

	bed_settings(PB_SVC_SET_NODE_PORT, range[0], range[1]);
	cr_assert_eq(bpf_map_update_elem(bed_map("pb_ct_settings"), &zero, &times, 0), 0);
	cr_assert_eq(bpf_map_lookup_elem(bed_map("kpr_backends"), &number, &backend), 0);
	backend.pool = 0; /* it left */
	cr_assert_eq(bpf_map_update_elem(bed_map("kpr_backends"), &number, &backend, 0), 0);
	/* The tables of Maglev have no room for more. */
	if (!(s->flags & PB_SVC_MAGLEV))
		bed_service(s);
}

static void put_services(void)
{
	for (size_t i = 0; i < PB_ARRAY_LEN(services); i++) {
		bed_service(&services[i]);
		targets[i] = (struct fuzz_target){services[i].addr, services[i].port,
						  services[i].protocol};
	}
}

static void expect_no_hole(void)
{
	for (uint32_t hook = 0; hook < PB_HOOK_TC_COUNT; hook++)
		cr_expect_eq(sandbox_counters(hook).missed, 0, "%s", pb_hook_name(hook));
}

Test(kpr_ns_fuzz, K43_nothing_is_missed_every_sum_is_as_right_as_it_came_and_answers_find_back)
{
	static struct fuzz f;
	unsigned wrong = 0;
	uint32_t n_ct;

	put_services();
	fuzz_start(&f, &pool);
	while (fuzz_goes_on(&f) && wrong < 5)
		wrong += goes_wrong(&f, true);
	expect_no_hole();
	n_ct = expect_pairs();
	printf("# %llu packets: %llu translated, %llu answered, %llu dropped, %llu passed; %lu of "
	       "them got an answer and an error; %u entries\n",
	       (unsigned long long)f.done, (unsigned long long)f.translated,
	       (unsigned long long)f.answered, (unsigned long long)f.dropped,
	       (unsigned long long)f.passed, n_back, n_ct);
	/* Else it has tested nothing. */
	cr_expect_gt(f.translated, f.done / 50);
	cr_expect_gt(n_back, f.done / 100);
	cr_expect_gt(f.dropped, 0);
	cr_expect_gt(f.passed, 0);
}

Test(kpr_ns_fuzz, K42_K54_flows_stay_whole_while_services_times_and_ports_change)
{
	static struct fuzz f;
	unsigned wrong = 0;

	put_services();
	fuzz_start(&f, &pool);
	f.max /= 4;
	while (fuzz_goes_on(&f) && wrong < 5) {
		if (f.done % 500 == 0)
			change_something(&f);
		wrong += goes_wrong(&f, false);
	}
	expect_no_hole();
	cr_expect_gt(expect_pairs(), 0);
}
