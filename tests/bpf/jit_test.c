/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Every tail call of the core and of a chain is a direct jump in the machine code that runs.
 *
 * Reads the JITed image through the kernel's program info. A tail call with a constant index is
 * patched into `jmp rel32` straight into the next program; one with a variable index ends in a
 * jump through a register or a retpoline thunk.
 */
#include "sandbox.h"

TestSuite(jit, .init = sandbox_enter, .fini = sandbox_leave);

#define IMAGE_MAX 65536
#define INSNS_MAX 8192
#define PROLOGUE_MAX 64 /* a tail call enters a program behind its prologue */

struct image {
	unsigned char code[IMAGE_MAX];
	struct bpf_insn insns[INSNS_MAX];
	uint64_t address;
	uint32_t len, n_insns;
};

static void read_image(int fd, struct image *im)
{
	struct bpf_prog_info info = {0};
	uint32_t len = sizeof(info);

	memset(im, 0, sizeof(*im));
	info.jited_prog_insns = (uintptr_t)im->code;
	info.jited_prog_len = sizeof(im->code);
	info.xlated_prog_insns = (uintptr_t)im->insns;
	info.xlated_prog_len = sizeof(im->insns);
	info.jited_ksyms = (uintptr_t)&im->address;
	info.nr_jited_ksyms = 1;
	cr_assert_eq(bpf_obj_get_info_by_fd(fd, &info, &len), 0);
	im->len = info.jited_prog_len;
	im->n_insns = info.xlated_prog_len / sizeof(struct bpf_insn);
	if (im->len == 0 || im->address == 0)
		cr_skip_test("the kernel shows no JITed code (net.core.bpf_jit_enable, "
			     "kernel.kptr_restrict)");
}

static unsigned count_tail_calls(const struct image *im)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < im->n_insns; i++)
		n += im->insns[i].code == (BPF_JMP | BPF_CALL) && im->insns[i].src_reg == 0 &&
		     im->insns[i].imm == BPF_FUNC_tail_call;
	return n;
}

/*
 * How far to go from byte i to the next one that may start an instruction: operands that hold
 * addresses are stepped over, since any byte may occur in them.
 */
static uint32_t step(const struct image *im, uint32_t i)
{
	const unsigned char *c = &im->code[i];

	if ((c[0] == 0x48 || c[0] == 0x49) && (c[1] & 0xf8) == 0xb8)
		return 10; /* mov reg, imm64 */
	if (c[0] == 0xe8 || c[0] == 0xe9)
		return 5; /* call or jmp rel32 */
	if (c[0] == 0x0f && (c[1] & 0xf0) == 0x80)
		return 6; /* jcc rel32 */
	return 1;
}

/* `jmp rel32` whose target lies at the start of `to`. */
static unsigned count_jumps(const struct image *im, uint64_t to, uint64_t size)
{
	unsigned n = 0;

	for (uint32_t i = 0; i + 5 <= im->len; i += step(im, i)) {
		int32_t rel;

		if (im->code[i] != 0xe9)
			continue;
		memcpy(&rel, &im->code[i + 1], sizeof(rel));
		n += im->address + i + 5 + (uint64_t)(int64_t)rel - to < size;
	}
	return n;
}

/* `jmp *reg`, or `jmp` into the kernel's retpoline thunks. */
static unsigned count_indirect(const struct image *im)
{
	FILE *f = fopen("/proc/kallsyms", "re");
	unsigned n = 0;
	char line[256];

	for (uint32_t i = 0; i + 2 <= im->len; i += step(im, i))
		n += im->code[i] == 0xff && (im->code[i + 1] & 0xf8) == 0xe0;
	while (f && fgets(line, sizeof(line), f)) {
		unsigned long long address;

		if (strstr(line, "__x86_indirect_") && sscanf(line, "%llx", &address) == 1 &&
		    address)
			n += count_jumps(im, address, 1);
	}
	if (f)
		fclose(f);
	return n;
}

static int slot_fd(int array_fd, uint32_t slot)
{
	uint32_t id = 0;
	int fd;

	cr_assert_eq(bpf_map_lookup_elem(array_fd, &slot, &id), 0, "slot %u is empty", slot);
	fd = bpf_prog_get_fd_by_id(id);
	cr_assert_geq(fd, 0);
	return fd;
}

/* Start of the program in a slot. */
static uint64_t slot_address(int array_fd, uint32_t slot)
{
	static struct image im;
	int fd = slot_fd(array_fd, slot);

	read_image(fd, &im);
	close(fd);
	return im.address;
}

static void need_x86(void)
{
#ifndef __x86_64__
	cr_skip_test("knows the machine code of x86-64 only");
#endif
}

Test(jit, every_entry_jumps_straight_into_its_chain)
{
	static struct image im;

	need_x86();
	sandbox_open();
	for (uint32_t hook = 0; hook < PB_HOOK_COUNT; hook++) {
		uint64_t first =
			slot_address(sandbox.dp->gate_fd[hook], pb_hook_kinds[hook].gate_index);

		read_image(sandbox.dp->entry_fd[hook], &im);
		cr_expect_eq(count_tail_calls(&im), 1, "%s", pb_hook_name(hook));
		cr_expect_eq(count_jumps(&im, first, PROLOGUE_MAX), 1, "%s", pb_hook_name(hook));
		cr_expect_eq(count_indirect(&im), 0, "%s", pb_hook_name(hook));
	}
}

Test(jit, every_way_out_of_a_chains_program_is_a_direct_jump)
{
	const uint32_t hook = PB_HOOK_POD_EGRESS;
	static struct image im;
	struct pb_dp_object *object;
	struct pb_dp_slot slots[3];
	uint64_t address[4];
	int array_fd;

	/* given: programs with one way out and with several; an observer, so that next and exit
	 * differ */
	need_x86();
	sandbox_open();
	object = sandbox_stages("stages");
	slots[0] = sandbox_slot(hook, PB_BAND_SERVICE, object, "a", "stages_branches");
	slots[1] = sandbox_slot(hook, PB_BAND_POLICY, object, "b", "stages_next");
	slots[2] = sandbox_slot(hook, PB_BAND_OBSERVE, object, "c", "stages_observe");
	sandbox_chain(slots, 3, hook);
	array_fd = sandbox.dp->live[hook]->array_fd;
	for (uint32_t i = 0; i < 4; i++)
		address[i] = slot_address(array_fd, i);

	/* then: every tail call of the code is a jump to the next slot or to the end of the chain
	 */
	for (uint32_t i = 0; i < 3; i++) {
		int fd = slot_fd(array_fd, i);
		unsigned calls, jumps;

		read_image(fd, &im);
		close(fd);
		calls = count_tail_calls(&im);
		jumps = count_jumps(&im, address[i + 1], PROLOGUE_MAX);
		if (i == 0)
			jumps += count_jumps(&im, address[2], PROLOGUE_MAX);
		cr_expect_gt(calls, 0);
		cr_expect_eq(jumps, calls, "slot %u: %u of %u tail calls are direct", i, jumps,
			     calls);
		cr_expect_eq(count_indirect(&im), 0, "slot %u", i);
	}
	pb_dp_object_free(object);
}

Test(jit, the_search_does_find_an_indirect_jump_where_there_is_one)
{
	static struct image im;
	struct pb_dp_object *object;
	struct pb_dp_slot slot;
	int fd;

	need_x86();
	sandbox_open();
	object = sandbox_stages("stages");
	slot = sandbox_slot(PB_HOOK_POD_EGRESS, PB_BAND_POLICY, object, "a", "stages_indirect");
	sandbox_chain(&slot, 1, PB_HOOK_POD_EGRESS);
	fd = slot_fd(sandbox.dp->live[PB_HOOK_POD_EGRESS]->array_fd, 0);
	read_image(fd, &im);
	close(fd);
	cr_expect_eq(count_tail_calls(&im), 1);
	cr_expect_gt(count_indirect(&im), 0);
	pb_dp_object_free(object);
}
