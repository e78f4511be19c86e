/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Random packets through what the SDK offers to programs: translation by conntrack, of errors and
 * fragments, too (icmp.bpf.c), and answers (reply.bpf.c).
 */
#include "sandbox.h"

#include <arpa/inet.h>

#include <patchbay/conntrack.h>
#include <tests/bpf/icmp.skel.h>
#include <tests/bpf/reply.skel.h>

#include "packet_fuzz.h"
#include "reply.h"

TestSuite(sdk_fuzz, .init = sandbox_enter, .fini = sandbox_leave, .timeout = 120);

static const char *const v4[] = {"203.0.113.5", "10.0.2.7", "192.168.1.1", "192.0.2.10",
				 "224.0.0.251", "0.0.0.0",  "127.0.0.1",   NULL};
static const char *const v6[] = {"2001:db8::5", "fd10:2::7", "fd00:1::1", "2001:db8:1::10",
				 "ff02::fb",	"::",	     "::1",	  NULL};
static const uint16_t ports[] = {53, 80, 8080, 40000, 50000, 0};
static const struct fuzz_target targets[] = {
	{"192.0.2.10", 80, IPPROTO_TCP},
	{"192.0.2.10", 53, IPPROTO_UDP},
	{"192.168.1.1", 50000, IPPROTO_TCP},
	{"192.168.1.1", 50000, IPPROTO_UDP},
	{"2001:db8:1::10", 80, IPPROTO_TCP},
	{"2001:db8:1::10", 53, IPPROTO_UDP},
	{"fd00:1::1", 50000, IPPROTO_TCP},
	{"fd00:1::1", 50000, IPPROTO_UDP},
	{NULL, 0, 0},
};
static const struct fuzz_pool pool = {.targets = targets, .v4 = v4, .v6 = v6, .ports = ports};

static union pb_addr address(const char *text)
{
	union pb_addr a = {0};

	cr_assert_eq(inet_pton(strchr(text, ':') ? AF_INET6 : AF_INET, text, &a), 1);
	return a;
}

static void put_half(const char *const *a, unsigned from, uint16_t sport, unsigned at,
		     uint16_t dport, uint8_t protocol, unsigned as, uint16_t as_port, unsigned to,
		     uint16_t to_port)
{
	struct pb_ct_key key = {.saddr = address(a[from]),
				.daddr = address(a[at]),
				.sport = htons(sport),
				.dport = htons(dport),
				.protocol = protocol,
				.family = a == v4 ? 4 : 6};
	struct pb_ct ct = {.saddr = address(a[as]),
			   .daddr = address(a[to]),
			   .sport = htons(as_port),
			   .dport = htons(to_port),
			   .expires = UINT32_MAX};

	cr_assert_eq(bpf_map_update_elem(pb_dp_core_fd(sandbox.dp, "pb_ct"), &key, &ct, 0), 0);
}

/* From address 0 to address 3, which becomes from 2 to 1; for every port of a client. */
static void put_flows(void)
{
	static const uint8_t protocols[] = {IPPROTO_TCP, IPPROTO_UDP};

	for (size_t i = 0; ports[i]; i++)
		for (size_t p = 0; p < 4; p++) {
			const char *const *a = p & 1 ? v6 : v4;
			uint8_t protocol = protocols[p / 2];
			uint16_t port = protocol == IPPROTO_TCP ? 80 : 53;

			put_half(a, 0, ports[i], 3, port, protocol, 2, 50000, 1, 8080);
			put_half(a, 1, 8080, 2, 50000, protocol, 3, port, 0, ports[i]);
		}
}

static struct pb_dp_object *put_on(uint32_t hook, const char *name, const void *elf, size_t len,
				   const char *program)
{
	struct pb_dp_object *object = sandbox_object(name, name, elf, len);
	struct pb_dp_slot slot = sandbox_slot(hook, PB_BAND_SERVICE, object, name, program);

	sandbox_chain(&slot, 1, hook);
	return object;
}

static bool goes_wrong(struct fuzz *f, uint32_t hook)
{
	static struct packet in, out;
	struct packet_ctx ctx = {0};
	const char *wrong;

	fuzz_packet(f, &in);
	if (packet_run(sandbox.dp->entry_fd[hook], &in, &ctx, &out) < 0)
		return false; /* no packet to the test run */
	wrong = fuzz_judge(f, &in, &out, &ctx, PB_MARK_TRANSLATED);
	if (wrong) {
		fuzz_show(f, &in, &out);
		cr_expect_fail("packet %llu with PB_FUZZ_SEED=%llu: %s",
			       (unsigned long long)f->done, (unsigned long long)f->seed, wrong);
	}
	return wrong != NULL;
}

static void end(struct fuzz *f, uint32_t hook, struct pb_dp_object *object)
{
	cr_expect_eq(sandbox_counters(hook).missed, 0);
	printf("# %llu packets: %llu translated, %llu answered, %llu dropped, %llu passed\n",
	       (unsigned long long)f->done, (unsigned long long)f->translated,
	       (unsigned long long)f->answered, (unsigned long long)f->dropped,
	       (unsigned long long)f->passed);
	pb_dp_object_free(object);
}

Test(sdk_fuzz, what_is_translated_is_as_right_as_it_came)
{
	static struct fuzz f;
	struct pb_dp_object *object;
	unsigned wrong = 0;
	const void *elf;
	size_t len;

	sandbox_open();
	elf = icmp_bpf__elf_bytes(&len);
	object = put_on(PB_HOOK_DEV_INGRESS, "icmp", elf, len, "icmp_translate");
	put_flows();
	fuzz_start(&f, &pool);
	while (fuzz_goes_on(&f) && wrong < 5)
		wrong += goes_wrong(&f, PB_HOOK_DEV_INGRESS);
	cr_expect_gt(f.translated, f.done / 50);
	cr_expect_gt(sandbox_drops(PB_HOOK_DEV_INGRESS, PB_REASON_FRAG_UNKNOWN), 0);
	end(&f, PB_HOOK_DEV_INGRESS, object);
}

/* Another plan for the next packets, and a bucket that is full. */
static void change_plan(struct fuzz *f, struct pb_dp_object *object)
{
	struct reply_plan plan = {.what = (uint32_t)fuzz_random(f, 3),
				  .mtu = (uint32_t)fuzz_random(f, 65536),
				  .to = address(v4[fuzz_random(f, 4)]),
				  .src = address(v4[fuzz_random(f, 4)]),
				  .port = htons(ports[fuzz_random(f, 6)])};
	size_t size = (size_t)libbpf_num_possible_cpus() * (24 + 48 + 3 * 512);
	void *zeros = calloc(1, size);
	uint32_t zero = 0;

	bpf_map_update_elem(pb_object_map(object, "reply_plan")->fd, &zero, &plan, 0);
	bpf_map_update_elem(pb_object_map(object, "reply_state")->fd, &zero, zeros, 0);
	free(zeros);
}

Test(sdk_fuzz, every_answer_is_right_whatever_is_answered)
{
	static struct fuzz f;
	struct pb_dp_object *object;
	unsigned wrong = 0;
	const void *elf;
	size_t len;

	sandbox_open();
	elf = reply_bpf__elf_bytes(&len);
	object = put_on(PB_HOOK_POD_EGRESS, "reply", elf, len, "reply_answer");
	fuzz_start(&f, &pool);
	while (fuzz_goes_on(&f) && wrong < 5) {
		if (f.done % 50 == 0)
			change_plan(&f, object);
		wrong += goes_wrong(&f, PB_HOOK_POD_EGRESS);
	}
	cr_expect_eq(f.translated, 0);
	cr_expect_gt(f.answered, f.done / 50);
	cr_expect_gt(f.dropped, 0);
	end(&f, PB_HOOK_POD_EGRESS, object);
}
