/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How a plugin author tests a program without an agent: load the object, say which place in the
 * chain it has, put a stub behind it and run frames through it. docs/plugin-author.md quotes it.
 */
#include <criterion/criterion.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <hello.skel.h>
#include <patchbay/abi.h>

/* Ends the chain as the agent's exit does: TC_ACT_UNSPEC. */
static int load_stub(void)
{
	static const struct bpf_insn insns[] = {
		{.code = BPF_ALU64 | BPF_MOV | BPF_K, .dst_reg = BPF_REG_0, .imm = -1},
		{.code = BPF_JMP | BPF_EXIT},
	};

	return bpf_prog_load(BPF_PROG_TYPE_SCHED_CLS, "stub", "GPL", insns, 2, NULL);
}

static struct hello_bpf *load(uint32_t hook)
{
	struct hello_bpf *bpf = hello_bpf__open();
	uint32_t next = 1;
	int stub;

	cr_assert_not_null(bpf);
	bpf->rodata->pb_hook_id = hook;
	bpf->rodata->pb_slot_next = next;
	bpf->rodata->pb_slot_exit = next;
	cr_assert_eq(hello_bpf__load(bpf), 0);
	stub = load_stub();
	cr_assert_geq(stub, 0);
	cr_assert_eq(bpf_map_update_elem(bpf_map__fd(bpf->maps.pb_chain), &next, &stub, 0), 0);
	close(stub);
	return bpf;
}

static int run(struct hello_bpf *bpf, uint32_t times)
{
	char frame[64] = {0};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = sizeof(frame),
		    .repeat = (int)times);

	cr_assert_eq(bpf_prog_test_run_opts(bpf_program__fd(bpf->progs.hello_count), &opts), 0);
	return (int)opts.retval;
}

static uint64_t packets(struct hello_bpf *bpf, uint32_t hook)
{
	int n_cpus = libbpf_num_possible_cpus();
	uint64_t *values = calloc((size_t)n_cpus, sizeof(*values));
	uint64_t sum = 0;

	cr_assert_eq(bpf_map_lookup_elem(bpf_map__fd(bpf->maps.packets), &hook, values), 0);
	for (int cpu = 0; cpu < n_cpus; cpu++)
		sum += values[cpu];
	free(values);
	return sum;
}

Test(hello_bpf, every_packet_is_counted_under_its_hook_and_goes_on)
{
	if (geteuid() != 0)
		cr_skip_test("needs root to load BPF programs");
	struct hello_bpf *bpf = load(PB_HOOK_POD_EGRESS);

	cr_expect_eq(run(bpf, 5), -1);
	cr_expect_eq(packets(bpf, PB_HOOK_POD_EGRESS), 5);
	cr_expect_eq(packets(bpf, PB_HOOK_DEV_INGRESS), 0);
	hello_bpf__destroy(bpf);
}

Test(hello_bpf, a_chain_with_a_hole_drops)
{
	if (geteuid() != 0)
		cr_skip_test("needs root to load BPF programs");
	struct hello_bpf *bpf = load(PB_HOOK_DEV_INGRESS);
	uint32_t next = 1;

	cr_assert_eq(bpf_map_delete_elem(bpf_map__fd(bpf->maps.pb_chain), &next), 0);
	cr_expect_eq(run(bpf, 1), 2, "TC_ACT_SHOT");
	hello_bpf__destroy(bpf);
}
