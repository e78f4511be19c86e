/* SPDX-License-Identifier: Apache-2.0 */
/* Chains: order of programs, verdicts, flips, limits, adoption. */
#include "sandbox.h"

#include <net/if.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/wait.h>

TestSuite(chain, .init = sandbox_enter, .fini = sandbox_leave);

static const unsigned char tcp_frame[] = {
	2,    0,    0, 0,  0, 1, 2, 0, 0,  0, 0, 2, 8,	  0,			      /* Ethernet */
	0x45, 0,    0, 40, 0, 1, 0, 0, 64, 6, 0, 0, 10,	  0, 0,	   1,	 10, 0, 0, 2, /* IPv4 */
	0x30, 0x39, 0, 80, 0, 0, 0, 1, 0,  0, 0, 0, 0x50, 2, 0xff, 0xff, 0,  0, 0, 0,
};

static int run(uint32_t hook)
{
	return sandbox_run(hook, tcp_frame, sizeof(tcp_frame));
}

static const char *why(void)
{
	return sandbox.err.text;
}

/* ---- verdicts ---- */

Test(chain, a_new_agent_passes_every_packet_through_exit_alone)
{
	sandbox_open();
	for (uint32_t hook = 0; hook < PB_HOOK_TC_COUNT; hook++) {
		struct pb_counters c;

		cr_expect_eq(run(hook), -1, "hook %u: pass is TC_ACT_UNSPEC", hook);
		c = sandbox_counters(hook);
		cr_expect_eq(c.packets, 1);
		cr_expect_eq(c.bytes, sizeof(tcp_frame));
		cr_expect_eq(c.verdicts[PB_VERDICT_PASS], 1);
		cr_expect_eq(c.missed, 0);
	}
}

Test(chain, a_drop_is_counted_under_its_reason_and_later_programs_do_not_see_the_packet)
{
	struct pb_dp_object *object;
	struct pb_dp_slot slots[2];
	struct pb_counters c;

	sandbox_open();
	object = sandbox_stages("stages");
	slots[0] = sandbox_slot(PB_HOOK_POD_EGRESS, PB_BAND_POLICY, object, "deny", "stages_drop");
	slots[1] = sandbox_slot(PB_HOOK_POD_EGRESS, PB_BAND_FORWARD, object, "pass", "stages_pass");
	sandbox_chain(slots, 2, PB_HOOK_POD_EGRESS);
	cr_expect_eq(run(PB_HOOK_POD_EGRESS), 2, "TC_ACT_SHOT");
	c = sandbox_counters(PB_HOOK_POD_EGRESS);
	cr_expect_eq(c.verdicts[PB_VERDICT_DROP], 1);
	cr_expect_eq(c.verdicts[PB_VERDICT_PASS], 0);
	cr_expect_eq(sandbox_drops(PB_HOOK_POD_EGRESS, PB_REASON_POLICY_DENIED), 1);
	pb_dp_object_free(object);
}

struct stages_counts {
	uint64_t whole, torn, observed, dropped;
};

static struct stages_counts read_counts(const struct pb_dp_object *object)
{
	struct stages_counts c;
	uint32_t zero = 0;

	cr_assert_eq(bpf_map_lookup_elem(pb_object_map(object, "counts")->fd, &zero, &c), 0);
	return c;
}

Test(chain, an_observer_sees_what_an_earlier_program_dropped)
{
	struct pb_dp_object *object;
	struct pb_dp_slot slots[2];
	struct stages_counts c;

	sandbox_open();
	object = sandbox_stages("stages");
	slots[0] =
		sandbox_slot(PB_HOOK_DEV_INGRESS, PB_BAND_OBSERVE, object, "see", "stages_observe");
	slots[1] = sandbox_slot(PB_HOOK_DEV_INGRESS, PB_BAND_POLICY, object, "deny", "stages_drop");
	sandbox_chain(slots, 2, PB_HOOK_DEV_INGRESS);
	cr_expect_eq(run(PB_HOOK_DEV_INGRESS), 2);
	c = read_counts(object);
	cr_expect_eq(c.observed, 1);
	cr_expect_eq(c.dropped, 1);
	cr_expect_eq(sandbox_drops(PB_HOOK_DEV_INGRESS, PB_REASON_POLICY_DENIED), 1);
	pb_dp_object_free(object);
}

Test(chain, a_redirect_is_carried_out_or_dropped_where_the_kernel_cannot)
{
	static const struct {
		uint32_t hook, kind;
		int verdict;
	} cases[] = {
		{PB_HOOK_POD_EGRESS, PB_REDIRECT_EGRESS, 7},
		{PB_HOOK_POD_EGRESS, PB_REDIRECT_INGRESS, 7},
		{PB_HOOK_POD_EGRESS, PB_REDIRECT_PEER, 7},
		{PB_HOOK_DEV_INGRESS, PB_REDIRECT_NEIGH, 7},
		{PB_HOOK_DEV_EGRESS, PB_REDIRECT_PEER, 2},
		{PB_HOOK_POD_EGRESS, 99, 2},
	};
	struct pb_dp_object *object;

	sandbox_open();
	object = sandbox_stages("stages");
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		uint64_t before = sandbox_drops(cases[i].hook, PB_REASON_INVALID_REDIRECT);
		struct pb_dp_slot slot = sandbox_slot(cases[i].hook, PB_BAND_FORWARD, object, "go",
						      "stages_redirect");
		uint32_t lo = 1;

		cr_assert_eq(pb_dp_object_const(object, "stages_kind", &cases[i].kind, 4, NULL), 0);
		cr_assert_eq(pb_dp_object_const(object, "stages_ifindex", &lo, 4, NULL), 0);
		sandbox_chain(&slot, 1, cases[i].hook);
		cr_expect_eq(run(cases[i].hook), cases[i].verdict, "case %zu", i);
		cr_expect_eq(sandbox_drops(cases[i].hook, PB_REASON_INVALID_REDIRECT) - before,
			     cases[i].verdict == 2, "case %zu", i);
	}
	pb_dp_object_free(object);
}

static void keep_event(void *arg, const struct pb_event *event)
{
	memcpy(arg, event, sizeof(struct pb_event_drop));
}

Test(chain, a_drop_is_reported_only_while_somebody_listens)
{
	struct pb_event_drop got = {0};
	struct pb_dp_object *object;
	struct pb_dp_slot slot;

	sandbox_open();
	object = sandbox_stages("stages");
	slot = sandbox_slot(PB_HOOK_POD_INGRESS, PB_BAND_POLICY, object, "deny", "stages_drop");
	sandbox_chain(&slot, 1, PB_HOOK_POD_INGRESS);
	pb_dp_events(sandbox.dp, keep_event, &got);
	run(PB_HOOK_POD_INGRESS);
	uv_run(&sandbox.loop, UV_RUN_NOWAIT);
	cr_expect_eq(got.head.type, 0, "nobody had asked for drops");
	cr_assert_eq(pb_dp_observe_drops(sandbox.dp, true), 0);
	run(PB_HOOK_POD_INGRESS);
	for (int i = 0; i < 1000 && got.head.type == 0; i++)
		uv_run(&sandbox.loop, UV_RUN_NOWAIT);
	cr_expect_eq(got.head.type, PB_EVENT_DROP);
	cr_expect_eq(got.head.hook, PB_HOOK_POD_INGRESS);
	cr_expect_eq(got.packet.reason, PB_REASON_POLICY_DENIED);
	cr_expect_eq(got.packet.generation, sandbox.dp->live[PB_HOOK_POD_INGRESS]->generation);
	cr_expect_eq(got.packet.dport, htons(80));
	pb_dp_object_free(object);
}

/* ---- what is refused ---- */

Test(chain, an_agent_that_starts_listens_to_no_drops_of_the_process_before)
{
	const uint32_t zero = 0;
	uint32_t observe = 42;

	sandbox_open();
	cr_assert_eq(pb_dp_observe_drops(sandbox.dp, true), 0);
	sandbox_close();
	sandbox_open();
	cr_assert_eq(bpf_map_lookup_elem(pb_dp_core_fd(sandbox.dp, "pb_switches"), &zero, &observe),
		     0);
	cr_expect_eq(observe, 0);
}

Test(chain, a_chain_holds_29_programs_and_exit_and_a_30th_is_refused)
{
	struct pb_dp_slot slots[PB_CHAIN_MAX];
	char names[PB_CHAIN_MAX][8];
	struct pb_dp_build *build = NULL;
	struct pb_dp_object *object;

	sandbox_open();
	object = sandbox_stages("stages");
	for (size_t i = 0; i < PB_CHAIN_MAX; i++) {
		snprintf(names[i], sizeof(names[i]), "s%zu", i);
		slots[i] = sandbox_slot(PB_HOOK_POD_EGRESS, PB_BAND_POLICY, object, names[i],
					"stages_next");
	}
	sandbox_chain(slots, PB_CHAIN_MAX - 1, PB_HOOK_POD_EGRESS);
	cr_expect_eq(run(PB_HOOK_POD_EGRESS), -1);
	cr_expect_eq(sandbox_counters(PB_HOOK_POD_EGRESS).missed, 0);
	cr_expect_eq(pb_dp_build(sandbox.dp, slots, PB_CHAIN_MAX, 1U << PB_HOOK_POD_EGRESS, &build,
				 &sandbox.err),
		     -E2BIG);
	cr_expect_not_null(strstr(why(), "30 programs and exit are more than the 30 of a chain"),
			   "%s", why());
	pb_dp_object_free(object);
}

Test(chain, a_refused_build_names_the_cause_and_leaves_the_live_chain)
{
	static const struct {
		const char *program, *text;
		uint32_t hook;
		int rc;
	} cases[] = {
		{"stages_nothing", "the object has no program named stages_nothing",
		 PB_HOOK_POD_EGRESS, -ENOENT},
		{"stages_next",
		 "program stages_next is SEC(\"tc\"); hook connect4 needs "
		 "SEC(\"cgroup/connect4\")",
		 PB_HOOK_CONNECT4, -EINVAL},
	};
	struct pb_dp_object *object;

	sandbox_open();
	object = sandbox_stages("stages");
	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++) {
		struct pb_dp_slot slot =
			sandbox_slot(cases[i].hook, PB_BAND_POLICY, object, "s", cases[i].program);
		struct pb_chain *live = sandbox.dp->live[cases[i].hook];
		struct pb_dp_build *build = NULL;

		cr_expect_eq(pb_dp_build(sandbox.dp, &slot, 1, 1U << cases[i].hook, &build,
					 &sandbox.err),
			     cases[i].rc);
		cr_expect_not_null(strstr(why(), cases[i].text), "%s", why());
		cr_expect_eq(sandbox.dp->live[cases[i].hook], live);
	}
	cr_expect_eq(run(PB_HOOK_POD_EGRESS), -1);
	pb_dp_object_free(object);
}

Test(chain, slots_that_wait_for_each_other_refuse_the_build_and_show_the_cycle)
{
	struct pb_dp_build *build = NULL;
	struct pb_dp_object *object;
	struct pb_dp_slot slots[2];

	sandbox_open();
	object = sandbox_stages("stages");
	slots[0] = sandbox_slot(PB_HOOK_POD_EGRESS, PB_BAND_POLICY, object, "a", "stages_next");
	slots[1] = sandbox_slot(PB_HOOK_POD_EGRESS, PB_BAND_POLICY, object, "b", "stages_next");
	slots[0].after = "b";
	slots[1].after = "a";
	cr_expect_eq(pb_dp_build(sandbox.dp, slots, 2, 1U << PB_HOOK_POD_EGRESS, &build,
				 &sandbox.err),
		     -ELOOP);
	cr_expect_not_null(strstr(why(), "a -> b -> a"), "%s", why());
	cr_expect_eq(run(PB_HOOK_POD_EGRESS), -1);
	pb_dp_object_free(object);
}

/* ---- another agent's datapath ---- */

static uint32_t gate_prog_id(uint32_t hook)
{
	uint32_t id = 0;

	bpf_map_lookup_elem(sandbox.dp->gate_fd[hook], &pb_hook_kinds[hook].gate_index, &id);
	return id;
}

static bool pinned(uint32_t hook, uint32_t generation)
{
	PB_FREE char *path = pb_sprintf("%s/chains/%s_%u", sandbox.config.datapath.bpffs,
					pb_hook_name(hook), generation);

	return access(path, F_OK) == 0;
}

Test(chain, a_restarted_agent_adopts_the_chain_and_the_first_flip_removes_its_pin)
{
	const uint32_t hook = PB_HOOK_POD_EGRESS;
	struct pb_dp_object *object;
	struct pb_dp_slot slot;
	uint32_t id, generation;

	/* given: an agent that left a chain which drops */
	sandbox_open();
	object = sandbox_stages("stages");
	slot = sandbox_slot(hook, PB_BAND_POLICY, object, "deny", "stages_drop");
	sandbox_chain(&slot, 1, hook);
	id = gate_prog_id(hook);
	generation = sandbox.dp->live[hook]->generation;
	pb_dp_object_free(object);
	sandbox_close();

	/* when: another one opens the same directory */
	sandbox_open();

	/* then: its new entry programs lead to the old chain */
	cr_expect_eq(gate_prog_id(hook), id);
	cr_expect(sandbox.dp->live[hook]->adopted);
	cr_expect_eq(sandbox.dp->live[hook]->generation, generation);
	cr_expect_eq(run(hook), 2, "the old chain drops");
	cr_expect_eq(sandbox_counters(hook).missed, 0);
	cr_expect(pinned(hook, generation));

	/* and after its first flip nothing of the old generation is left */
	sandbox_chain(NULL, 0, hook);
	cr_expect_gt(sandbox.dp->live[hook]->generation, generation);
	cr_expect_eq(run(hook), -1);
	cr_expect_not(pinned(hook, generation));
	cr_expect(pinned(hook, sandbox.dp->live[hook]->generation));
}

Test(chain, a_build_that_never_went_live_is_removed_by_the_next_agent)
{
	const uint32_t hook = PB_HOOK_DEV_EGRESS;
	PB_FREE char *path = NULL;
	struct pb_dp_build *build = NULL;
	uint32_t generation;

	/* given: an agent killed between build and flip */
	sandbox_open();
	cr_assert_eq(pb_dp_build(sandbox.dp, NULL, 0, 1U << hook, &build, &sandbox.err), 0);
	generation = sandbox.dp->generation;
	cr_assert(pinned(hook, generation));
	sandbox_close();

	sandbox_open();
	cr_expect_not(pinned(hook, generation));
	cr_expect_eq(run(hook), -1);
}

/* Runs fn in another process: 0 when it was refused and told that this one holds the lock. */
static int refused_in_child(int (*fn)(struct pb_err *err))
{
	int status = 1;
	pid_t pid = fork();

	if (pid == 0) {
		struct pb_err err = {0};
		char holder[32];

		snprintf(holder, sizeof(holder), "(pid %d)", getppid());
		_exit(fn(&err) == -EBUSY && strstr(err.text, holder) ? 0 : 1);
	}
	cr_assert_eq(waitpid(pid, &status, 0), pid);
	return status;
}

static int open_second(struct pb_err *err)
{
	struct pb_dp *second = NULL;
	uv_loop_t loop;

	uv_loop_init(&loop);
	return pb_dp_open(&loop, &sandbox.config, &second, err);
}

static int clean_up(struct pb_err *err)
{
	return pb_dp_cleanup(&sandbox.config, err);
}

Test(chain, a_second_agent_is_refused_and_told_who_holds_the_directory)
{
	sandbox_open();
	cr_expect_eq(refused_in_child(open_second), 0);
}

Test(chain, a_directory_that_is_not_on_a_bpffs_is_refused_with_the_remedy)
{
	sandbox.config.datapath.bpffs = (char *)"/proc/patchbay";
	cr_expect_eq(pb_dp_open(&sandbox.loop, &sandbox.config, &sandbox.dp, &sandbox.err),
		     -EINVAL);
	cr_expect_not_null(strstr(why(), "mount -t bpf bpf /proc/patchbay"), "%s", why());
}

Test(chain, reports_name_hooks_slots_and_counters)
{
	struct pb_dp_object *object;
	struct pb_dp_slot slot;
	PB_JSON_FREE cJSON *chain = NULL;
	PB_JSON_FREE cJSON *status = NULL;
	const cJSON *first;

	sandbox_open();
	object = sandbox_stages("stages");
	slot = sandbox_slot(PB_HOOK_POD_EGRESS, PB_BAND_POLICY, object, "deny", "stages_drop");
	sandbox_chain(&slot, 1, PB_HOOK_POD_EGRESS);
	run(PB_HOOK_POD_EGRESS);
	chain = pb_dp_chain_json(sandbox.dp);
	first = cJSON_GetArrayItem(pb_json_path(chain, "items"), 0);
	cr_expect_str_eq(pb_json_str(first, "hook", ""), "pod-egress");
	cr_expect_str_eq(pb_json_str(first, "band", ""), "policy");
	cr_expect_str_eq(pb_json_str(first, "slot", ""), "deny");
	cr_expect_str_eq(pb_json_str(first, "plugin", ""), "stages");
	status = pb_dp_status_json(sandbox.dp);
	first = cJSON_GetArrayItem(pb_json_path(status, "drops"), 0);
	cr_expect_str_eq(pb_json_str(first, "reason", ""), "policy denied");
	cr_expect_eq(pb_json_num(first, "packets", 0), 1);
	cr_expect_eq(pb_json_num(status, "missed", -1), 0);
	pb_dp_object_free(object);
}

/* ---- with real packets ---- */

static void send_over_loopback(void)
{
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	struct sockaddr_in to = {.sin_family = AF_INET,
				 .sin_port = htons(9),
				 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	PB_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	cr_assert_eq(ioctl(fd, SIOCSIFFLAGS, &ifr), 0);
	cr_assert_eq(sendto(fd, "x", 1, 0, (struct sockaddr *)&to, sizeof(to)), 1);
}

static void attach_ended(void *arg, int result, const char *text)
{
	cr_expect_eq(result, 0, "%s", text);
	*(bool *)arg = true;
}

static void attach(void)
{
	bool ended = false;

	cr_assert_eq(pb_dp_attach(sandbox.dp, attach_ended, &ended, &sandbox.err), 0, "%s", why());
	while (!ended)
		uv_run(&sandbox.loop, UV_RUN_ONCE);
}

Test(chain, the_datapath_goes_on_without_an_agent_and_cleanup_removes_it)
{
	char *devices[] = {(char *)"lo"};
	struct pb_counters before;

	/* given: an agent that attached and went */
	sandbox.config.datapath.devices = devices;
	sandbox.config.datapath.n_devices = 1;
	sandbox_open();
	attach();
	sandbox_close();

	/* when: a packet leaves and arrives while none runs; then: both hooks counted it */
	send_over_loopback();
	sandbox_open();
	before = sandbox_counters(PB_HOOK_DEV_EGRESS);
	cr_expect_geq(before.packets, 1);
	cr_expect_eq(before.verdicts[PB_VERDICT_PASS], before.packets);
	cr_expect_geq(sandbox_counters(PB_HOOK_DEV_INGRESS).packets, 1);
	cr_expect_eq(before.missed, 0);

	/* when: cleaned up while an agent runs; then: refused */
	cr_expect_eq(refused_in_child(clean_up), 0);
	/* when: cleaned up after it; then: nothing is left */
	sandbox_close();
	cr_expect_eq(pb_dp_cleanup(&sandbox.config, &sandbox.err), 0, "%s", why());
	cr_expect_neq(access(sandbox.config.datapath.bpffs, F_OK), 0);
}
