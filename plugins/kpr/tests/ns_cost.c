/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a packet through a Service costs the node's programs: one line a kind of packet, run by
 * hand or by `make bench`. Each figure is the median over rounds of the difference to a chain that
 * only puts the packet back, in the same round.
 */
#include "ns_bed.h"

#include <stdio.h>
#include <stdlib.h>

#include <plugins/kpr/tests/ns_restore.skel.h>

TestSuite(ns_cost, .init = bed_enter, .fini = bed_leave);

#define ROUNDS 15
#define REPEAT 20000
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

/* The next key first: from the start again it would be a walk over all that is empty by now. */
static void flush(void)
{
	struct pb_ct_key key, next;
	int rc = bpf_map_get_next_key(bed_map("pb_ct"), NULL, &key);

	while (rc == 0) {
		rc = bpf_map_get_next_key(bed_map("pb_ct"), &key, &next);
		bpf_map_delete_elem(bed_map("pb_ct"), &key);
		key = next;
	}
}

static double run(uint32_t hook, const struct packet *p, uint32_t moving)
{
	struct restore r = {.len = 54, .moving = moving};
	struct __sk_buff skb = {.ifindex = bed.up};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = p->data, .data_size_in = (uint32_t)p->len,
		    .ctx_in = &skb, .ctx_size_in = sizeof(skb), .repeat = REPEAT);
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

static void measure(const char *what, const struct packet_spec *spec, bool moving)
{
	double ns[ROUNDS];
	struct packet p;

	packet_build(&p, spec);
	for (int i = 0; i < ROUNDS; i++) {
		double base = run(WITHOUT, &p, moving);

		ns[i] = run(WITH, &p, moving) - base;
		if (moving)
			flush();
	}
	qsort(ns, ROUNDS, sizeof(ns[0]), ascending);
	printf("{\"bench\":\"kpr_ns\",\"packet\":\"%s\",\"ns\":%.0f,\"min\":%.0f,\"max\":%.0f}\n",
	       what, ns[ROUNDS / 2], ns[0], ns[ROUNDS - 1]);
	fflush(stdout);
	cr_assert_gt(ns[ROUNDS - 1], 0);
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
	measure("no Service", BED_TCP(CLIENT4, 40000, NODE4, 30081, ACK), false);
	/* The first of its repetitions begins the flow. */
	measure("TCP, a SYN again", BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN), false);
	measure("TCP, established", BED_TCP(CLIENT4, 40000, NODE4, 30080, ACK), false);
	measure("TCP, an answer", BED_TCP(FAR4, 8080, NODE4, 40000, ACK), false);
	measure("UDP, known", BED_UDP(CLIENT4, 40000, NODE4, 30053), false);
	measure("TCP, new", BED_TCP(CLIENT4, 40000, NODE4, 30080, SYN), true);
	measure("UDP, new", BED_UDP(CLIENT4, 40000, NODE4, 30053), true);
	pb_dp_object_free(restore);
}
