/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The ipcache of a real kernel: what programs find in it, and what a restarted agent does with it.
 */
#include "sandbox.h"

#include <tests/bpf/who.skel.h>
#include <tests/unit/peers_harness.h>

struct who_answers {
	uint32_t src, dst, src_cached, src_anew, by_addr;
};

TestSuite(ipcache_bpf, .init = sandbox_enter, .fini = sandbox_leave);

/* The harness asks at each withdrawal; here the unit tests have seen to it. */
bool map_has_identity(uint32_t number)
{
	(void)number;
	return false;
}

/* ---- entries ---- */

static void enter(const char *text, uint32_t identity)
{
	const struct pb_cidr cidr = prefix(text);
	const struct pb_ipcache_key4 key4 = {.bits = cidr.bits, .addr = cidr.addr.v4};
	struct pb_ipcache_key6 key6 = {.bits = cidr.bits};
	const struct pb_ipcache_value value = {.identity = identity};
	int fd = pb_dp_core_fd(sandbox.dp, cidr.family == 4 ? "pb_ipcache4" : "pb_ipcache6");

	memcpy(key6.addr, cidr.addr.v6, sizeof(key6.addr));
	cr_assert_eq(bpf_map_update_elem(fd, cidr.family == 4 ? (void *)&key4 : (void *)&key6,
					 &value, BPF_ANY),
		     0, "%s", text);
}

/* What a program would find: the kernel's own longest match. */
uint32_t lookup(const char *text)
{
	struct pb_kube_addr addr = address(text);
	const struct pb_ipcache_key4 key4 = {.bits = 32, .addr = addr.addr.v4};
	struct pb_ipcache_key6 key6 = {.bits = 128};
	struct pb_ipcache_value value;
	int fd = pb_dp_core_fd(sandbox.dp, addr.family == 4 ? "pb_ipcache4" : "pb_ipcache6");

	memcpy(key6.addr, addr.addr.v6, sizeof(key6.addr));
	return bpf_map_lookup_elem(fd, addr.family == 4 ? (void *)&key4 : (void *)&key6, &value) ==
			       0
		       ? value.identity
		       : PB_IDENTITY_WORLD;
}

static void endpoint(uint32_t identity)
{
	/* The device that test runs give to packets. */
	const uint32_t ifindex = 1;
	const struct pb_endpoint ep = {.id = 7, .identity = identity};

	cr_assert_eq(bpf_map_update_elem(pb_dp_core_fd(sandbox.dp, "pb_endpoints"), &ifindex, &ep,
					 BPF_ANY),
		     0);
}

/* ---- packets ---- */

static struct pb_dp_object *object;

static void given_programs(uint32_t hook)
{
	struct pb_bpf_object opts = {.size = sizeof(opts), .name = "who"};
	struct pb_dp_slot slot;

	opts.elf = who_bpf__elf_bytes(&opts.elf_len);
	cr_assert_eq(pb_dp_object_new(sandbox.dp, "test", &opts, &object, &sandbox.err), 0);
	cr_assert_eq(pb_dp_object_prepare(object, &sandbox.err), 0, "%s", sandbox.err.text);
	slot = sandbox_slot(hook, PB_BAND_POLICY, object, "who", "who");
	sandbox_chain(&slot, 1, hook);
}

static struct who_answers ask(uint32_t hook, const char *from, const char *to)
{
	unsigned char frame[14 + 40 + 8] = {[12] = 0x08, [13] = 0x00};
	struct pb_kube_addr a = address(from), b = address(to);
	struct who_answers answers = {0};
	const uint32_t zero = 0;

	if (a.family == 4) {
		memcpy(frame + 14, "\x45\0\0\x1c\0\0\0\0\x40\x11\0\0", 12);
		memcpy(frame + 26, &a.addr.v4, 4);
		memcpy(frame + 30, &b.addr.v4, 4);
	} else {
		memcpy(frame + 12, "\x86\xdd\x60\0\0\0\0\x08\x11\x40", 10);
		memcpy(frame + 22, a.addr.bytes, 16);
		memcpy(frame + 38, b.addr.bytes, 16);
	}
	cr_assert_eq(sandbox_run(hook, frame, sizeof(frame)), -1);
	cr_assert_eq(bpf_map_lookup_elem(pb_object_map(object, "answers")->fd, &zero, &answers), 0);
	return answers;
}

struct lpm_case {
	const char *addr;
	uint32_t identity;
};

static const struct lpm_case lpm_cases[] = {
	{"10.0.0.1", 300},	{"10.0.0.2", 401},
	{"10.0.1.1", 400},	{"11.0.0.1", PB_IDENTITY_WORLD},
	{"fd00::1", 310},	{"fd00::2", 411},
	{"fd00:0:0:1::1", 410}, {"fe00::1", PB_IDENTITY_WORLD},
};

Test(ipcache_bpf, I33_the_longest_prefix)
{
	sandbox_open();
	enter("10.0.0.0/8", 400);
	enter("10.0.0.0/24", 401);
	enter("10.0.0.1/32", 300);
	enter("fd00::/16", 410);
	enter("fd00::/64", 411);
	enter("fd00::1/128", 310);
	given_programs(PB_HOOK_DEV_INGRESS);
	for (size_t i = 0; i < PB_ARRAY_LEN(lpm_cases); i++) {
		const struct lpm_case *c = &lpm_cases[i];
		const char *to = strchr(c->addr, ':') ? "fd00::1" : "10.0.0.1";
		struct who_answers answers = ask(PB_HOOK_DEV_INGRESS, c->addr, to);

		cr_expect_eq(answers.src, c->identity, "%s: %u", c->addr, answers.src);
		cr_expect_eq(answers.by_addr, c->identity, "%s: %u", c->addr, answers.by_addr);
		cr_expect_eq(answers.dst, strchr(c->addr, ':') ? 310 : 300);
	}
	pb_dp_object_free(object);
}

Test(ipcache_bpf, I34_a_pod_is_itself_whatever_it_writes)
{
	struct who_answers answers;

	sandbox_open();
	enter("10.0.0.1/32", 300);
	enter("10.0.0.2/32", 301);
	endpoint(300);
	given_programs(PB_HOOK_POD_EGRESS);
	answers = ask(PB_HOOK_POD_EGRESS, "10.0.0.2", "10.0.0.2");
	cr_expect_eq(answers.src, 300, "the pod that sends, not the one whose address it wrote");
	cr_expect_eq(answers.dst, 301);
	cr_expect_eq(answers.by_addr, 301);
	endpoint(0);
	cr_expect_eq(ask(PB_HOOK_POD_EGRESS, "10.0.0.1", "10.0.0.2").src, PB_IDENTITY_INIT);
	pb_dp_object_free(object);
}

Test(ipcache_bpf, I35_a_packet_to_a_pod_is_for_that_pod)
{
	struct who_answers answers;

	sandbox_open();
	enter("fd00::1/128", 300);
	endpoint(302);
	given_programs(PB_HOOK_POD_INGRESS);
	answers = ask(PB_HOOK_POD_INGRESS, "fd00::1", "fd00::9");
	cr_expect_eq(answers.src, 300);
	cr_expect_eq(answers.dst, 302);
	pb_dp_object_free(object);
}

Test(ipcache_bpf, I36_looked_up_once)
{
	struct who_answers answers;

	sandbox_open();
	enter("10.0.0.1/32", 300);
	enter("10.0.0.2/32", 301);
	given_programs(PB_HOOK_DEV_INGRESS);
	answers = ask(PB_HOOK_DEV_INGRESS, "10.0.0.1", "10.0.0.2");
	cr_expect_eq(answers.src, 300);
	cr_expect_eq(answers.src_cached, 300, "the record has it");
	cr_expect_eq(answers.src_anew, 301, "a translation makes it another one's");
	/* The next packet starts anew. */
	cr_expect_eq(ask(PB_HOOK_DEV_INGRESS, "10.0.0.2", "10.0.0.1").src, 301);
	pb_dp_object_free(object);
}

/* ---- the agent ---- */

static void agent_start(void)
{
	sandbox_open();
	h.dp = sandbox.dp;
	harness_start();
}

static void agent_stop(void)
{
	harness_stop();
	sandbox_close();
}

static const struct pod web = {.ns = "shop",
			       .name = "web",
			       .labels = "app=web",
			       .ips = "10.0.0.1,fd00::1",
			       .node = "node-b"};
static const struct pod db = {
	.ns = "shop", .name = "db", .labels = "app=db", .ips = "10.0.0.2", .node = "node-b"};

static void given_a_cluster(void)
{
	put_namespace("shop", "team=a");
	put_node("node-b", "10.1.0.2");
	settle();
}

Test(ipcache_bpf, I10_I28_a_restart_with_pinned_maps)
{
	const struct pb_cidr net = prefix("192.168.0.0/16");
	uint32_t range = 0, again = 0;

	agent_start();
	given_a_cluster();
	put_pod(&db);
	settle();
	put_pod(&web);
	cr_assert_eq(pb_peers_cidr_hold(h.peers, &net, &net, &range), 0);
	all_listed();
	settle();
	cr_expect_eq(lookup("10.0.0.2"), 256);
	cr_expect_eq(lookup("10.0.0.1"), 257);
	cr_expect_eq(lookup("fd00::1"), 257);
	cr_expect_eq(lookup("10.1.0.2"), PB_IDENTITY_REMOTE_NODE);
	cr_expect_eq(lookup("192.168.3.4"), range);
	agent_stop();

	agent_start();
	cr_expect_eq(lookup("10.0.0.1"), 257, "the entries are there before any pod is");
	given_a_cluster();
	put_pod(&web);
	settle();
	cr_expect_eq(lookup("10.0.0.2"), 256);
	all_listed();
	settle();
	cr_expect_eq(lookup("10.0.0.1"), 257);
	cr_expect_eq(lookup("fd00::1"), 257);
	cr_expect_eq(lookup("10.0.0.2"), PB_IDENTITY_WORLD, "nobody claimed it");
	put_pod(&db);
	settle();
	cr_expect_eq(lookup("10.0.0.2"), 256, "its number had rested");
	cr_assert_eq(pb_peers_cidr_hold(h.peers, &net, &net, &again), 0);
	cr_expect_eq(again, range);
	agent_stop();
}
