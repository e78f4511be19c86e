/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random packets at every hook of a node with Services of all kinds: nothing may ever be missed,
 * and what is sent on is as right as it came.
 */
#include "ns_bed.h"

#include "../../../tests/bpf/packet_fuzz.h"

TestSuite(kpr_ns_fuzz, .init = bed_enter, .fini = bed_leave, .timeout = 120);

static const char *const v4[] = {CLIENT4, "203.0.113.6", NODE4,	    POD4,	   FAR4,
				 VIP4,	  "192.0.2.11",	 LOOPBACK4, "203.0.113.5", NULL};
static const char *const v6[] = {CLIENT6, "2001:db8::6", NODE6, POD6, FAR6, VIP6, NULL};
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
static const struct fuzz_pool pool = {.targets = targets, .v4 = v4, .v6 = v6, .ports = ports};

static uint32_t device_of(uint32_t hook)
{
	return hook == PB_HOOK_DEV_INGRESS || hook == PB_HOOK_DEV_EGRESS ? bed.up : bed.pod;
}

/* False: the packet was no packet to the test run, or all is well. */
static bool goes_wrong(struct fuzz *f)
{
	static struct packet in, out;
	uint32_t hook = (uint32_t)fuzz_random(f, PB_HOOK_TC_COUNT);
	struct packet_ctx ctx = {.ifindex = device_of(hook)};
	const char *wrong;

	fuzz_packet(f, &in);
	if (packet_run(sandbox.dp->entry_fd[hook], &in, &ctx, &out) < 0)
		return false;
	wrong = fuzz_judge(f, &in, &out, &ctx, PB_MARK_TRANSLATED);
	if (wrong) {
		fuzz_show(f, &in, &out);
		cr_expect_fail("%s: packet %llu with PB_FUZZ_SEED=%llu: %s", pb_hook_name(hook),
			       (unsigned long long)f->done, (unsigned long long)f->seed, wrong);
	}
	return wrong != NULL;
}

Test(kpr_ns_fuzz, nothing_is_missed_and_every_sum_is_as_right_as_it_came)
{
	static struct fuzz f;
	unsigned wrong = 0;

	for (size_t i = 0; i < PB_ARRAY_LEN(services); i++) {
		bed_service(&services[i]);
		targets[i] = (struct fuzz_target){services[i].addr, services[i].port,
						  services[i].protocol};
	}
	fuzz_start(&f, &pool);
	while (fuzz_goes_on(&f) && wrong < 5)
		wrong += goes_wrong(&f);
	for (uint32_t hook = 0; hook < PB_HOOK_TC_COUNT; hook++)
		cr_expect_eq(sandbox_counters(hook).missed, 0, "%s", pb_hook_name(hook));
	printf("# %llu packets: %llu translated, %llu answered, %llu dropped, %llu passed\n",
	       (unsigned long long)f.done, (unsigned long long)f.translated,
	       (unsigned long long)f.answered, (unsigned long long)f.dropped,
	       (unsigned long long)f.passed);
	/* Else it has tested nothing. */
	cr_expect_gt(f.translated, f.done / 50);
	cr_expect_gt(f.dropped, 0);
	cr_expect_gt(f.passed, 0);
}
