/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random packets at two nodes with kpr and dsr. Whatever comes in, what goes on is right when it
 * came right, and is itself when it wasn't changed; what the first node sends to the second reaches
 * the pod as the client sent it, and the pod's answer the client from whom he asked.
 */
#include <tests/bpf/packet_fuzz.h>

#include "cases.h"

#define DEV PB_HOOK_DEV_INGRESS
#define POD_OUT PB_HOOK_POD_EGRESS
#define GENEVE_PORT 6081
#define VIP_2 "198.51.100.2"

static struct node there;
static struct fuzz fuzz;
static uint64_t n_through;
static bool hostile; /* somebody also sends to the second node and to the pod directly */

static const struct node_service web_2 = {.addr = VIP_2,
					  .port = 443,
					  .protocol = IPPROTO_TCP,
					  .flags = LB,
					  .base = 64,
					  .backends = {POD},
					  .backend_port = 8444};
static const struct node_service dns6 = {.addr = VIP6,
					 .port = 443,
					 .protocol = IPPROTO_UDP,
					 .flags = LB,
					 .base = 80,
					 .backends = {POD6},
					 .backend_port = 8443};
static const struct node_service *const services[] = {&web, &dns, &web6, &web_2, &dns6};

static const char *const addresses4[] = {CLIENT, "192.0.2.8", "192.0.2.9", VIP, VIP_2, POD, NULL};
static const char *const addresses6[] = {CLIENT6, "2001:db8::8", VIP6, POD6, NULL};
static const uint16_t ports[] = {443, 8443, 5000, 5001, 40000, 0};
static const struct fuzz_target targets[] = {
	{VIP, 443, IPPROTO_TCP},  {VIP, 443, IPPROTO_UDP},  {VIP_2, 443, IPPROTO_TCP},
	{VIP6, 443, IPPROTO_TCP}, {VIP6, 443, IPPROTO_UDP}, {NULL, 0, 0},
};
static const struct fuzz_pool pool = {.targets = targets,
				      .v4 = addresses4,
				      .v6 = addresses6,
				      .ports = ports};

static void open_both(void)
{
	if (node_open(&there, &node.config) < 0) {
		printf("Bail out! the programs don't load\n");
		exit(1);
	}
	for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++) {
		node_service(&node, services[i]);
		node_service(&there, services[i]);
	}
	node_identity(&there, "172.18.0.2", PB_IDENTITY_REMOTE_NODE, NULL);
	node_identity(&there, "fd00:18::2", PB_IDENTITY_REMOTE_NODE, NULL);
	node_identity(&node, POD, 300, "172.18.0.3");
	node_identity(&node, POD6, 300, "172.18.0.3");
}

/* ---- one packet at one hook ---- */

/* NULL, or what is wrong. `right`: the packet that began it was. */
static const char *judge(bool right, const struct packet *got, const struct packet_ctx *ctx)
{
	static char text[4096 + 64];

	if (ctx->verdict == DROP)
		return NULL;
	if (ctx->verdict != PASS && ctx->verdict != SENT)
		return "the verdict is none of ours";
	if (!right || !packet_check(got))
		return NULL;
	snprintf(text, sizeof(text), "it was right and isn't any more: %s", packet_check(got));
	return text;
}

/* False: the test run takes it for no packet, or it is dropped. */
static bool pass(const struct node *n, uint32_t hook, bool right, const struct packet *in,
		 struct packet *got, struct packet_ctx *ctx)
{
	const char *wrong;

	*ctx = (struct packet_ctx){.ifindex = node_uplink()};
	if (packet_run(n->entry[hook], in, ctx, got) < 0)
		return false;
	wrong = judge(right, got, ctx);
	if (wrong) {
		printf("# %s, hook %u: %s\n", n == &node ? "first node" : "second node", hook,
		       wrong);
		fuzz_show(&fuzz, in, got);
		case_ok = false;
	}
	return ctx->verdict != DROP;
}

/* All reasons for drops that the second node had so far. */
static void show_drops(void)
{
	for (uint32_t reason = 0; reason < PB_REASON_COUNT; reason++) {
		uint64_t n = node_drops(&there, DEV, reason);

		if (n)
			printf("# second node: reason %u %llu times\n", reason,
			       (unsigned long long)n);
	}
}

/* ---- from the client to the pod and back ---- */

static void check_tuple(const struct packet_ip *is, const char *src, uint16_t sport,
			const char *dst, uint16_t dport, const char *what)
{
	if (strcmp(is->src, src) == 0 && strcmp(is->dst, dst) == 0 && is->sport == sport &&
	    is->dport == dport)
		return;
	printf("# %s: %s %u > %s %u, should be %s %u > %s %u\n", what, is->src, is->sport, is->dst,
	       is->dport, src, sport, dst, dport);
	case_ok = false;
}

/* A client's packet, whole and right, that was sent on with the client as its source. */
static bool is_on_its_way(const struct packet *in, const struct packet *between,
			  const struct packet_ctx *ctx, struct packet_view *ret_asked)
{
	const struct packet_ip *ip = &ret_asked->ip;

	if (ctx->verdict != SENT || packet_check(in) || packet_read(in, ret_asked))
		return false;
	/* With one hop less than it takes it may end at either node. */
	if (ip->fragment || !ip->l4_off || ip->ttl < 3 ||
	    (ip->protocol != IPPROTO_TCP && ip->protocol != IPPROTO_UDP))
		return false;
	if (strncmp(ip->src, "192.0.2.", 8) != 0 && strncmp(ip->src, "2001:db8::", 10) != 0)
		return false;
	/* An answer to the client goes back by the link. */
	return memcmp(in->data, between->data + 6, 6) != 0 ||
	       memcmp(in->data + 6, between->data, 6) != 0;
}

static void pod_answers(const struct packet_ip *asked, const struct packet_ip *got)
{
	static struct packet answer, out;
	struct packet_spec spec = {.src = got->dst,
				   .dst = got->src,
				   .protocol = got->protocol,
				   .sport = got->dport,
				   .dport = got->sport,
				   .tcp_flags = PACKET_ACK,
				   .payload_len = 10};
	struct packet_view v;
	struct packet_ctx ctx;

	packet_build(&answer, &spec);
	if (!pass(&there, POD_OUT, true, &answer, &out, &ctx) || packet_read(&out, &v)) {
		printf("# the pod's answer isn't sent\n");
		case_ok = false;
		return;
	}
	check_tuple(&v.ip, asked->dst, asked->dport, asked->src, asked->sport, "answer");
	n_through++;
}

static void go_on(const struct packet *in, const struct packet *between,
		  const struct packet_ctx *sent)
{
	static struct packet got;
	struct packet_view asked, v;
	struct packet_ctx ctx;
	bool client = is_on_its_way(in, between, sent, &asked) && !hostile;

	if (!pass(&there, DEV, !packet_check(in), between, &got, &ctx)) {
		/* The second node knows every flow that the first one does. */
		if (client) {
			printf("# the second node dropped it\n");
			show_drops();
			case_ok = false;
		}
		return;
	}
	if (!client || packet_read(&got, &v))
		return;
	/* What dsr can't carry, kpr has translated; then the answer is its own to translate. */
	if (strcmp(v.ip.src, "172.18.0.2") == 0 || strcmp(v.ip.src, "fd00:18::2") == 0)
		return;
	if (strcmp(v.ip.dst, v.ip.family == 4 ? POD : POD6) != 0 ||
	    strcmp(v.ip.src, asked.ip.src) != 0) {
		printf("# the pod gets %s %u > %s %u\n", v.ip.src, v.ip.sport, v.ip.dst,
		       v.ip.dport);
		case_ok = false;
		return;
	}
	pod_answers(&asked.ip, &v.ip);
}

static bool is_tunnel(const struct packet *p)
{
	struct packet_view v;

	if (packet_read(p, &v))
		return false;
	return v.ip.protocol == IPPROTO_IPIP || v.ip.protocol == IPPROTO_IPV6 ||
	       (v.ip.protocol == IPPROTO_UDP && v.ip.dport == GENEVE_PORT);
}

static void one_packet(void)
{
	static struct packet in, out;
	struct packet_ctx ctx;
	bool ok = case_ok, right;

	fuzz_packet(&fuzz, &in);
	right = !packet_check(&in);
	if (hostile && fuzz_random(&fuzz, 2) == 0) {
		uint32_t hook = fuzz_random(&fuzz, 2) ? DEV : POD_OUT;

		/* A tunnel may be right with anything inside. */
		pass(&there, hook, right && !is_tunnel(&in), &in, &out, &ctx);
	} else if (pass(&node, DEV, right, &in, &out, &ctx)) {
		fuzz_judge(&fuzz, &in, &out, &ctx, PB_MARK_TRANSLATED);
		if (ctx.verdict == SENT)
			go_on(&in, &out, &ctx);
	}
	if (ok && !case_ok)
		fuzz_show(&fuzz, &in, &out);
}

static void run_fuzz(void)
{
	open_both();
	n_through = 0;
	fuzz_start(&fuzz, &pool);
	fuzz.max /= 8;
	while (fuzz_goes_on(&fuzz) && case_ok)
		one_packet();
	for (uint32_t hook = 0; hook < PB_HOOK_TC_COUNT; hook++) {
		CHECK_NUMBER(node_drops(&node, hook, PB_REASON_MISSED_TAIL_CALL), 0);
		CHECK_NUMBER(node_drops(&there, hook, PB_REASON_MISSED_TAIL_CALL), 0);
	}
	printf("# %llu packets, %llu got to the pod and its answer back\n",
	       (unsigned long long)fuzz.done, (unsigned long long)n_through);
	if (!hostile)
		CHECK(n_through > fuzz.done / 100);
	node_close(&there);
}

static void random_packets_reach_the_pod_and_its_answers_the_client(void)
{
	hostile = false;
	run_fuzz();
}

static void D36_random_packets_of_strangers_at_the_second_node(void)
{
	hostile = true;
	run_fuzz();
}

/* Found by the above: a flow begins without them, then they come. */
static void datagrams_with_extension_headers_of_a_flow_that_is_known_arrive(void)
{
	static struct packet in, between;
	struct packet_spec spec = tcp6(0);
	struct packet_ctx ctx;

	hostile = false;
	open_both();
	n_through = 0;
	spec.protocol = IPPROTO_UDP;
	for (size_t i = 0; i < 2; i++) {
		packet_build(&in, &spec);
		CHECK(pass(&node, DEV, true, &in, &between, &ctx));
		go_on(&in, &between, &ctx);
		CHECK_NUMBER(n_through, i + 1);
		spec.ext[0] = IPPROTO_HOPOPTS;
		spec.ext[1] = IPPROTO_DSTOPTS;
		spec.n_ext = 2;
	}
	node_close(&there);
}

int main(void)
{
	static const struct node_config option = {.mode = DSR_MODE_DSR, .with_kpr = true};
	static const struct node_config ipip = {.mode = DSR_MODE_DSR,
						.with_kpr = true,
						.dispatch = DSR_IPIP};
	static const struct node_config geneve = {.mode = DSR_MODE_DSR,
						  .with_kpr = true,
						  .dispatch = DSR_GENEVE};

	if (!may_run())
		return 0;
	CASE_WITH(&option, random_packets_reach_the_pod_and_its_answers_the_client);
	CASE_WITH(&option, D36_random_packets_of_strangers_at_the_second_node);
	CASE_WITH(&ipip, random_packets_reach_the_pod_and_its_answers_the_client);
	CASE_WITH(&ipip, D36_random_packets_of_strangers_at_the_second_node);
	CASE_WITH(&ipip, datagrams_with_extension_headers_of_a_flow_that_is_known_arrive);
	CASE_WITH(&geneve, datagrams_with_extension_headers_of_a_flow_that_is_known_arrive);
	CASE_WITH(&geneve, random_packets_reach_the_pod_and_its_answers_the_client);
	CASE_WITH(&geneve, D36_random_packets_of_strangers_at_the_second_node);
	return finish();
}
