/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What Services cost the node's programs: one line a kind of packet, and one for loading all of
 * them as a reload does. Run by `make bench`, or by hand. A packet's figure is the median over
 * rounds of the difference to a chain that only puts the packet back, in the same round.
 *
 * New flows are measured twice: a few whose memory is in the caches since the round before, and so
 * many that each meets memory that nobody has touched for long.
 */
#include "ns_bed.h"

#include <stdio.h>
#include <stdlib.h>

#include <plugins/kpr/tests/ns_restore.skel.h>

TestSuite(ns_cost, .init = bed_enter, .fini = bed_leave);

#define ROUNDS 15
#define REPEAT 20000
#define FEW 64 /* flows */
#define FEW_RUNS 40
#define SYN PACKET_SYN
#define ACK PACKET_ACK

struct restore {
	uint8_t head[64];
	uint32_t len, moving, count;
};

static struct pb_dp_object *restore;

/* Hooks cost the same: one has the programs, another has not. */
#define WITH PB_HOOK_DEV_INGRESS
#define WITHOUT PB_HOOK_POD_EGRESS

static void make_chains(void)
{
	struct pb_dp_slot slots[3];

	slots[0] = sandbox_slot(WITH, PB_BAND_SERVICE, bed.object, "kpr", "kpr_dev_ingress");
	slots[1] =
		sandbox_slot(WITH, PB_BAND_SERVICE, bed.object, "kpr-nat", "kpr_nat_dev_ingress");
	slots[2] = sandbox_slot(WITH, PB_BAND_OBSERVE, restore, "restore", "ns_restore");
	sandbox_chain(slots, 3, WITH);
	slots[2].hook = WITHOUT;
	sandbox_chain(&slots[2], 1, WITHOUT);
}

/* The entries of the few flows: they are the same each time. */
struct entries {
	struct pb_ct_key keys[2 * FEW];
	unsigned n;
};

/* The next key first: from the start again it would be a walk over all that is empty by now. */
static void flush(struct entries *ret)
{
	struct pb_ct_key key, next;
	int rc = bpf_map_get_next_key(bed_map("pb_ct"), NULL, &key);

	ret->n = 0;
	while (rc == 0) {
		rc = bpf_map_get_next_key(bed_map("pb_ct"), &key, &next);
		bpf_map_delete_elem(bed_map("pb_ct"), &key);
		if (ret->n < PB_ARRAY_LEN(ret->keys))
			ret->keys[ret->n++] = key;
		key = next;
	}
}

/* Without the walk, which would leave nothing else in the caches. */
static void flush_few(const struct entries *entries)
{
	for (unsigned i = 0; i < entries->n; i++)
		cr_assert_eq(bpf_map_delete_elem(bed_map("pb_ct"), &entries->keys[i]), 0);
}

/* What the repetitions are. */
enum kind {
	SAME,	 /* one packet */
	FEW_NEW, /* flows that have all been there before */
	MANY_NEW,
};

static double run(uint32_t hook, const struct packet *p, enum kind kind)
{
	struct restore r = {.len = 54, .moving = kind != SAME};
	struct __sk_buff skb = {.ifindex = bed.up};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = p->data, .data_size_in = (uint32_t)p->len,
		    .ctx_in = &skb, .ctx_size_in = sizeof(skb),
		    .repeat = kind == FEW_NEW ? FEW : REPEAT);
	uint32_t zero = 0;

	memcpy(r.head, p->data, 54);
	cr_assert_eq(bpf_map_update_elem(pb_object_map(restore, "ns_restore_state")->fd, &zero, &r,
					 0),
		     0);
	cr_assert_eq(bpf_prog_test_run_opts(sandbox.dp->entry_fd[hook], &opts), 0);
	return opts.duration;
}

static int ascending(const void *a, const void *b)
{
	return (*(const double *)a > *(const double *)b) -
	       (*(const double *)a < *(const double *)b);
}

static double difference(const struct packet *p, enum kind kind)
{
	const int runs = kind == FEW_NEW ? FEW_RUNS : 1;
	static struct entries entries;
	double sum = 0;

	if (kind == FEW_NEW) {
		flush(&entries);
		run(WITH, p, kind);
		flush(&entries);
		cr_assert_eq(entries.n, 2 * FEW);
	}
	for (int i = 0; i < runs; i++) {
		sum -= run(WITHOUT, p, kind);
		sum += run(WITH, p, kind);
		if (kind == FEW_NEW)
			flush_few(&entries);
		else if (kind == MANY_NEW)
			flush(&entries);
	}
	return sum / runs;
}

static void print(const char *bench, const char *what, const char *unit, double figures[ROUNDS])
{
	qsort(figures, ROUNDS, sizeof(figures[0]), ascending);
	printf("{\"bench\":\"%s\",\"what\":\"%s\",\"%s\":%.1f,\"min\":%.1f,\"max\":%.1f}\n", bench,
	       what, unit, figures[ROUNDS / 2], figures[0], figures[ROUNDS - 1]);
	fflush(stdout);
	cr_assert_gt(figures[ROUNDS - 1], 0);
}

static void measure(const char *what, const struct packet_spec *spec, enum kind kind)
{
	double ns[ROUNDS];
	struct packet p;

	packet_build(&p, spec);
	for (int i = 0; i < ROUNDS; i++)
		ns[i] = difference(&p, kind);
	print("kpr_ns", what, "ns", ns);
}

/* All programs of packets, as a reload of the plugin builds them. */
static void measure_load(void)
{
	static const struct {
		uint32_t hook;
		const char *slot, *program;
	} plan[] = {
		{PB_HOOK_DEV_INGRESS, "kpr", "kpr_dev_ingress"},
		{PB_HOOK_DEV_INGRESS, "kpr-nat", "kpr_nat_dev_ingress"},
		{PB_HOOK_POD_EGRESS, "kpr", "kpr_pod_egress"},
		{PB_HOOK_POD_EGRESS, "kpr-nat", "kpr_nat_pod_egress"},
		{PB_HOOK_POD_INGRESS, "kpr", "kpr_pod_ingress"},
		{PB_HOOK_DEV_EGRESS, "kpr", "kpr_dev_egress"},
	};
	struct pb_dp_slot slots[PB_ARRAY_LEN(plan)];
	uint32_t hooks = 0;
	double ms[ROUNDS];

	for (size_t i = 0; i < PB_ARRAY_LEN(plan); i++) {
		slots[i] = sandbox_slot(plan[i].hook, PB_BAND_SERVICE, bed.object, plan[i].slot,
					plan[i].program);
		hooks |= 1U << plan[i].hook;
	}
	for (int i = 0; i < ROUNDS; i++) {
		struct pb_dp_build *build = NULL;
		uint64_t start = pb_now_ns();

		cr_assert_eq(pb_dp_build(sandbox.dp, slots, PB_ARRAY_LEN(slots), hooks, &build,
					 &sandbox.err),
			     0, "%s", sandbox.err.text);
		ms[i] = (double)(pb_now_ns() - start) / 1e6;
		pb_dp_build_free(build);
	}
	print("kpr_load", "four chains", "ms", ms);
}

Test(ns_cost, loading, .timeout = 600)
{
	measure_load();
}

Test(ns_cost, packets_from_a_device, .timeout = 600)
{
	size_t len;
	const void *elf = ns_restore_bpf__elf_bytes(&len);

	restore = sandbox_object("bench", "restore", elf, len);
	make_chains();
	bed_service(&(struct bed_service){NODE4, 30080, IPPROTO_TCP, .flags = NODE_PORT,
					  .backends = {{FAR4, 8080, false}}});
	bed_service(&(struct bed_service){NODE4, 30053, IPPROTO_UDP, .flags = NODE_PORT,
					  .backends = {{FAR4, 53, false}}});
	measure("no Service", BED_TCP(CLIENT4, 40000, NODE4, 30081, ACK), SAME);
	/* The first of its repetitions begins the flow. */
	measure("TCP, a SYN again", BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN), SAME);
	measure("TCP, established", BED_TCP(CLIENT4, 40000, NODE4, 30080, ACK), SAME);
	measure("TCP, an answer", BED_TCP(FAR4, 8080, NODE4, 40000, ACK), SAME);
	measure("UDP, known", BED_UDP(CLIENT4, 40000, NODE4, 30053), SAME);
	measure("TCP, new", BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN), FEW_NEW);
	measure("UDP, new", BED_UDP(CLIENT4, 40000, NODE4, 30053), FEW_NEW);
	measure("TCP, new, cold", BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN), MANY_NEW);
	measure("UDP, new, cold", BED_UDP(CLIENT4, 40000, NODE4, 30053), MANY_NEW);
	pb_dp_object_free(restore);
}
