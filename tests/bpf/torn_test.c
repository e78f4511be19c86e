/* SPDX-License-Identifier: Apache-2.0 */
/*
 * No packet sees two generations, however fast chains are replaced.
 *
 * One thread runs packets through the hook, another builds, flips and retires a chain of two
 * programs over and over. The first program notes its generation, the second compares.
 */
#include "sandbox.h"

#include <pthread.h>
#include <stdatomic.h>

#define GENERATIONS 2000
#define RETIRE_EVERY 16 /* waiting for RCU takes longer than all the rest */

TestSuite(torn, .init = sandbox_enter, .fini = sandbox_leave);

static atomic_bool stop;

static void *run_packets(void *arg)
{
	const unsigned char frame[64] = {2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45};
	LIBBPF_OPTS(bpf_test_run_opts, opts, .data_in = frame, .data_size_in = sizeof(frame),
		    .repeat = 1000);
	uint64_t *n = arg;

	for (*n = 0; !atomic_load(&stop); *n += 1000)
		if (bpf_prog_test_run_opts(sandbox.dp->entry_fd[PB_HOOK_POD_EGRESS], &opts) < 0)
			break;
	return NULL;
}

/* The fixture keeps everything on one CPU; here the two threads must really overlap. */
static void use_all_cpus(void)
{
	cpu_set_t all;

	CPU_ZERO(&all);
	for (int cpu = 0; cpu < CPU_SETSIZE && cpu < libbpf_num_possible_cpus(); cpu++)
		CPU_SET(cpu, &all);
	cr_assert_eq(sched_setaffinity(0, sizeof(all), &all), 0);
}

static void flip_once(const struct pb_dp_slot *slots, bool retire)
{
	struct pb_dp_build *build = NULL;

	cr_assert_eq(pb_dp_build(sandbox.dp, slots, 2, 1U << PB_HOOK_POD_EGRESS, &build,
				 &sandbox.err),
		     0, "%s", sandbox.err.text);
	cr_assert_eq(pb_dp_flip(build, &sandbox.err), 0, "%s", sandbox.err.text);
	if (retire)
		cr_assert_eq(pb_dp_retire(build, &sandbox.err), 0, "%s", sandbox.err.text);
	pb_dp_build_free(build);
}

Test(torn, no_packet_is_torn_or_lost_while_2000_generations_replace_each_other)
{
	struct {
		uint64_t whole, torn, observed, dropped;
	} counts;
	const uint32_t hook = PB_HOOK_POD_EGRESS;
	struct pb_dp_object *object;
	struct pb_dp_slot slots[2];
	struct pb_counters c;
	uint32_t zero = 0;
	uint64_t packets = 0;
	pthread_t thread;

	/* given */
	use_all_cpus();
	sandbox_open();
	object = sandbox_stages("stages");
	slots[0] = sandbox_slot(hook, PB_BAND_SERVICE, object, "first", "stages_first");
	slots[1] = sandbox_slot(hook, PB_BAND_POLICY, object, "second", "stages_second");
	flip_once(slots, true);

	/* when */
	cr_assert_eq(pthread_create(&thread, NULL, run_packets, &packets), 0);
	for (unsigned i = 1; i <= GENERATIONS; i++)
		flip_once(slots, i % RETIRE_EVERY == 0);
	atomic_store(&stop, true);
	pthread_join(thread, NULL);

	/* then */
	cr_assert_eq(bpf_map_lookup_elem(pb_object_map(object, "counts")->fd, &zero, &counts), 0);
	c = sandbox_counters(hook);
	cr_expect_gt(packets, 100 * GENERATIONS, "only %lu packets ran", (unsigned long)packets);
	cr_expect_eq(c.packets, packets);
	cr_expect_eq(c.verdicts[PB_VERDICT_PASS], packets);
	cr_expect_eq(counts.whole, packets);
	cr_expect_eq(counts.torn, 0);
	cr_expect_eq(c.missed, 0);
	pb_dp_object_free(object);
}
