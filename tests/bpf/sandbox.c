/* SPDX-License-Identifier: Apache-2.0 */
/* Makes the private place and runs packets in it. */
#include "sandbox.h"

#include <sched.h>
#include <sys/mount.h>

#include <tests/bpf/stages.skel.h>

struct sandbox sandbox;

void sandbox_enter(void)
{
	cpu_set_t one;

	if (geteuid() != 0)
		cr_skip_test("needs root: loads BPF programs");
	if (unshare(CLONE_NEWNS | CLONE_NEWNET) < 0)
		cr_skip_test("needs CAP_SYS_ADMIN: makes namespaces of its own");
	cr_assert_eq(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL), 0);
	if (mount("bpf", "/sys/fs/bpf", "bpf", 0, NULL) < 0)
		cr_skip_test("can't mount a bpffs here");
	/* Records are per CPU: the packets of a test all run on the CPU that reads them. */
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	cr_assert_eq(sched_setaffinity(0, sizeof(one), &one), 0);
	pb_log_setup(PB_LOG_LOGFMT, PB_LOG_WARN, 2);
	sandbox.config.datapath.bpffs = (char *)"/sys/fs/bpf/patchbay";
	cr_assert_eq(uv_loop_init(&sandbox.loop), 0);
}

void sandbox_open(void)
{
	int rc = pb_dp_open(&sandbox.loop, &sandbox.config, &sandbox.dp, &sandbox.err);

	cr_assert_eq(rc, 0, "pb_dp_open: %s", sandbox.err.text);
}

static void note_closed(void *arg)
{
	*(bool *)arg = true;
}

void sandbox_close(void)
{
	bool closed = false;

	pb_dp_close(PB_TAKE_PTR(sandbox.dp), note_closed, &closed);
	while (!closed)
		uv_run(&sandbox.loop, UV_RUN_ONCE);
}

void sandbox_leave(void)
{
	if (sandbox.dp)
		sandbox_close();
	if (sandbox.config.datapath.bpffs)
		cr_expect_eq(uv_loop_close(&sandbox.loop), 0, "a handle is left on the loop");
}

struct pb_dp_object *sandbox_stages(const char *plugin)
{
	size_t len;
	const void *elf = stages_bpf__elf_bytes(&len);

	return sandbox_object(plugin, "stages", elf, len);
}

struct pb_dp_object *sandbox_object(const char *plugin, const char *name, const void *elf,
				    size_t len)
{
	struct pb_bpf_object opts = {.size = sizeof(opts),
				     .name = name,
				     .elf = elf,
				     .elf_len = len};
	struct pb_dp_object *object = NULL;
	int rc;

	rc = pb_dp_object_new(sandbox.dp, plugin, &opts, &object, &sandbox.err);
	cr_assert_eq(rc, 0, "%s", sandbox.err.text);
	rc = pb_dp_object_prepare(object, &sandbox.err);
	cr_assert_eq(rc, 0, "%s", sandbox.err.text);
	return object;
}

struct pb_dp_slot sandbox_slot(uint32_t hook, uint32_t band, struct pb_dp_object *object,
			       const char *name, const char *program)
{
	return (struct pb_dp_slot){.hook = hook,
				   .band = band,
				   .plugin = pb_object_plugin(object),
				   .name = name,
				   .program = program,
				   .before = "",
				   .after = "",
				   .object = object};
}

void sandbox_chain(const struct pb_dp_slot *slots, size_t n, uint32_t hook)
{
	struct pb_dp_build *build = NULL;
	int rc = pb_dp_build(sandbox.dp, slots, n, 1U << hook, &build, &sandbox.err);

	cr_assert_eq(rc, 0, "build: %s", sandbox.err.text);
	cr_assert_eq(pb_dp_flip(build, &sandbox.err), 0, "flip: %s", sandbox.err.text);
	cr_assert_eq(pb_dp_retire(build, &sandbox.err), 0, "retire: %s", sandbox.err.text);
	pb_dp_build_free(build);
}

int sandbox_run(uint32_t hook, const void *frame, size_t len)
{
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = (uint32_t)len);
	int rc = bpf_prog_test_run_opts(sandbox.dp->entry_fd[hook], &opts);

	cr_assert_eq(rc, 0, "test run: %s", strerror(-rc));
	return (int)opts.retval;
}

struct pb_counters sandbox_counters(uint32_t hook)
{
	int n = libbpf_num_possible_cpus();
	struct pb_counters values[n], sum = {0};

	cr_assert_eq(bpf_map_lookup_elem(pb_dp_core_fd(sandbox.dp, "pb_counters"), &hook, values),
		     0);
	for (int cpu = 0; cpu < n; cpu++) {
		sum.packets += values[cpu].packets;
		sum.bytes += values[cpu].bytes;
		sum.missed += values[cpu].missed;
		for (size_t v = 0; v < PB_VERDICT_COUNT; v++)
			sum.verdicts[v] += values[cpu].verdicts[v];
	}
	return sum;
}

uint64_t sandbox_drops(uint32_t hook, uint32_t reason)
{
	int n = libbpf_num_possible_cpus();
	uint32_t key = hook * PB_REASON_COUNT + reason;
	uint64_t values[n], sum = 0;

	cr_assert_eq(bpf_map_lookup_elem(pb_dp_core_fd(sandbox.dp, "pb_drops"), &key, values), 0);
	for (int cpu = 0; cpu < n; cpu++)
		sum += values[cpu];
	return sum;
}

struct pb_packet sandbox_record(uint32_t hook)
{
	int n = libbpf_num_possible_cpus(), cpu = sched_getcpu();
	size_t stride = (sizeof(struct pb_packet) + 7) & ~7UL;
	unsigned char values[(size_t)n * stride];
	struct pb_packet pkt;

	cr_assert_eq(bpf_map_lookup_elem(pb_dp_core_fd(sandbox.dp, "pb_packets"), &hook, values),
		     0);
	memcpy(&pkt, values + (size_t)cpu * stride, sizeof(pkt));
	return pkt;
}

int sandbox_packet(uint32_t hook, const struct packet *in, struct packet_ctx *ctx,
		   struct packet *ret_out)
{
	int rc = packet_run(sandbox.dp->entry_fd[hook], in, ctx, ret_out);

	cr_assert_eq(rc, 0, "test run: %s", strerror(-rc));
	return ctx->verdict;
}
