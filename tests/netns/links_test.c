/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attaching entry programs to real devices and a real cgroup, by TCX and by clsact.
 *
 * Each test has a network of its own: veth pair in0 - out0, both ends here. A frame sent on out0
 * arrives at in0 (dev-ingress), one sent on in0 leaves through it (dev-egress).
 */
#include "sandbox.h"

#include <bpf/bpf.h>
#include <bpf/libbpf.h>
#include <criterion/parameterized.h>
#include <dirent.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <datapath/attach.h>
#include <datapath/links.h>
#include <tests/netns/entry.skel.h>

enum slot { FIRST_IN, FIRST_OUT, SECOND_IN, SECOND_OUT, FOREIGN, FIRST_CONNECT, SECOND_CONNECT };

struct bed {
	uv_loop_t loop;
	struct entry_bpf *bpf;
	struct pb_links *links;
	struct pb_links_env env;
	char cgroup[256];
	/* What pb_links_devices() and the listener for pods were told last. */
	bool settled;
	int result;
	char text[1024];
	uint32_t pod_attached, pod_detached; /* ifindex */
	int pod_result;
	char pod_text[1024];
};

static char *const in0[] = {"in0"};

static int quiet(enum libbpf_print_level level, const char *fmt, va_list ap)
{
	(void)level;
	(void)fmt;
	(void)ap;
	return 0;
}

static int fd_of(const struct bpf_program *prog)
{
	return bpf_program__fd(prog);
}

/* Entry programs of the first agent, or of the one that comes after it. */
static void use_programs(struct bed *bed, bool second)
{
	struct entry_bpf *b = bed->bpf;

	for (int i = 0; i < PB_HOOK_COUNT; i++)
		bed->env.entry_fd[i] = -1;
	bed->env.entry_fd[PB_HOOK_DEV_INGRESS] =
		fd_of(second ? b->progs.second_in : b->progs.first_in);
	bed->env.entry_fd[PB_HOOK_DEV_EGRESS] =
		fd_of(second ? b->progs.second_out : b->progs.first_out);
	bed->env.entry_fd[PB_HOOK_POD_EGRESS] = bed->env.entry_fd[PB_HOOK_DEV_INGRESS];
	bed->env.entry_fd[PB_HOOK_POD_INGRESS] = bed->env.entry_fd[PB_HOOK_DEV_EGRESS];
	bed->env.entry_fd[PB_HOOK_CONNECT4] =
		fd_of(second ? b->progs.second_connect : b->progs.first_connect);
}

static void on_pod_attached(void *arg, uint32_t ifindex, int result, const char *text)
{
	struct bed *bed = arg;

	bed->pod_attached = ifindex;
	bed->pod_result = result;
	snprintf(bed->pod_text, sizeof(bed->pod_text), "%s", text);
}

static void on_pod_detached(void *arg, uint32_t ifindex)
{
	((struct bed *)arg)->pod_detached = ifindex;
}

static void bed_setup(struct bed *bed, enum pb_attach_mode mode)
{
	memset(bed, 0, sizeof(*bed));
	sandbox_enter();
	sh("ip link add in0 type veth peer name out0 && ip link set in0 up && ip link set out0 up");
	sh("sysctl -qw net.ipv6.conf.in0.disable_ipv6=1 net.ipv6.conf.out0.disable_ipv6=1");
	libbpf_set_print(quiet);
	/* One thread: a test that keeps it busy decides when a job begins. */
	setenv("UV_THREADPOOL_SIZE", "1", 1);
	uv_loop_init(&bed->loop);
	bed->bpf = entry_bpf__open_and_load();
	cr_assert_not_null(bed->bpf);
	bed->env.loop = &bed->loop;
	bed->env.bpffs = SANDBOX_BPFFS "/agent";
	bed->env.mode = mode;
	bed->env.pod_attached = on_pod_attached;
	bed->env.pod_detached = on_pod_detached;
	bed->env.arg = bed;
	use_programs(bed, false);
	if (mode == PB_ATTACH_TCX && !pb_tcx_supported(bed->env.entry_fd[PB_HOOK_DEV_INGRESS]))
		cr_skip_test("this kernel has no TCX");
}

static void links_open(struct bed *bed)
{
	struct pb_err err = {0};

	cr_assert_eq(pb_links_new(&bed->env, &bed->links, &err), 0, "%s", err.text);
}

static void set_true(void *arg)
{
	*(bool *)arg = true;
}

static bool is_true(void *arg)
{
	return *(bool *)arg;
}

static void links_shut(struct bed *bed)
{
	bool closed = false;

	pb_links_close(bed->links, set_true, &closed);
	run_until(bed->env.loop, is_true, &closed);
	bed->links = NULL;
}

static void on_settled(void *arg, int result, const char *text)
{
	struct bed *bed = arg;

	bed->settled = true;
	bed->result = result;
	snprintf(bed->text, sizeof(bed->text), "%s", text);
}

static void devices_begin(struct bed *bed, char *const *patterns, size_t n)
{
	struct pb_err err = {0};

	bed->settled = false;
	cr_assert_eq(pb_links_devices(bed->links, patterns, n, on_settled, bed, &err), 0, "%s",
		     err.text);
}

/* Returns the result once everything is done that these patterns ask for; bed->text says more. */
static int devices_set(struct bed *bed, char *const *patterns, size_t n)
{
	devices_begin(bed, patterns, n);
	run_until(bed->env.loop, is_true, &bed->settled);
	return bed->result;
}

static void attach_in0(struct bed *bed)
{
	cr_assert_eq(devices_set(bed, in0, 1), 0, "%s", bed->text);
}

static void bed_end(struct bed *bed)
{
	struct pb_config config = {.datapath.bpffs = (char *)bed->env.bpffs};

	if (bed->links)
		links_shut(bed);
	cr_expect_eq(pb_links_cleanup(&config, NULL), 0);
	if (bed->cgroup[0])
		rmdir(bed->cgroup);
	uv_loop_close(&bed->loop);
	entry_bpf__destroy(bed->bpf);
}

static uint64_t hits(struct bed *bed, uint32_t slot)
{
	uint64_t n = 0;

	cr_assert_eq(bpf_map_lookup_elem(bpf_map__fd(bed->bpf->maps.hits), &slot, &n), 0);
	return n;
}

static void send_frame(const char *device)
{
	struct sockaddr_ll to = {
		.sll_family = AF_PACKET,
		.sll_ifindex = (int)if_nametoindex(device),
		.sll_halen = 6,
	};
	char frame[64] = {'\xff', '\xff', '\xff', '\xff', '\xff', '\xff', 2,
			  0,	  0,	  0,	  0,	  1,	  '\x88', '\xb5'};
	PB_CLOSE int fd = socket(AF_PACKET, SOCK_RAW, 0);

	cr_assert_geq(fd, 0);
	cr_assert_eq(sendto(fd, frame, sizeof(frame), 0, (struct sockaddr *)&to, sizeof(to)),
		     sizeof(frame));
}

struct expected {
	struct bed *bed;
	enum slot slot;
	uint64_t n;
};

static bool has_hits(void *arg)
{
	const struct expected *e = arg;

	return hits(e->bed, e->slot) == e->n;
}

/* One frame in and one out through in0, then these must have been counted. */
static void expect_both_ways(struct bed *bed, enum slot in, uint64_t n)
{
	struct expected arrived = {bed, in, n}, left = {bed, in + 1, n};

	send_frame("out0");
	send_frame("in0");
	run_until(&bed->loop, has_hits, &arrived);
	run_until(&bed->loop, has_hits, &left);
}

static unsigned n_pins(void)
{
	DIR *dir = opendir(SANDBOX_BPFFS "/agent/links");
	const struct dirent *entry;
	unsigned n = 0;

	while (dir && (entry = readdir(dir)))
		n += entry->d_name[0] != '.';
	if (dir)
		closedir(dir);
	return n;
}

static const cJSON *item(const cJSON *items, const char *hook, const char *device)
{
	const cJSON *it;

	cJSON_ArrayForEach (it, items) {
		if (strcmp(pb_json_str(it, "hook", ""), hook) == 0 &&
		    strcmp(pb_json_str(it, "device", ""), device) == 0)
			return it;
	}
	return NULL;
}

static bool is_ok(const cJSON *row)
{
	return row && strcmp(pb_json_str(row, "state", ""), "ok") == 0;
}

struct in_state {
	struct bed *bed;
	const char *state;
	int n;
};

static bool are_in_state(void *arg)
{
	const struct in_state *w = arg;
	PB_JSON_FREE cJSON *items = pb_links_json(w->bed->links);
	const cJSON *it;
	int n = 0;

	cJSON_ArrayForEach (it, items)
		n += strcmp(pb_json_str(it, "state", ""), w->state) == 0;
	return n == w->n;
}

static bool has_no_rows(void *arg)
{
	PB_JSON_FREE cJSON *items = pb_links_json(((struct bed *)arg)->links);

	return cJSON_GetArraySize(items) == 0;
}

static void expect_nothing_attached(struct bed *bed)
{
	run_until(bed->env.loop, has_no_rows, bed);
	cr_expect_eq(n_pins(), 0);
}

/* So many rows get into this state. */
static void expect_states(struct bed *bed, const char *state, int n)
{
	struct in_state w = {bed, state, n};

	run_until(bed->env.loop, are_in_state, &w);
}

struct on_device {
	struct bed *bed;
	const char *device;
	bool attached;
};

static bool is_attached(void *arg)
{
	const struct on_device *o = arg;
	PB_JSON_FREE cJSON *items = pb_links_json(o->bed->links);

	const cJSON *in = item(items, "dev-ingress", o->device);
	const cJSON *out = item(items, "dev-egress", o->device);

	return o->attached ? is_ok(in) && is_ok(out) : !in && !out;
}

static void expect_attached(struct bed *bed, const char *device, bool attached)
{
	struct on_device o = {bed, device, attached};

	run_until(&bed->loop, is_attached, &o);
}

static enum pb_attach_mode modes[] = {PB_ATTACH_TCX, PB_ATTACH_CLSACT};

#define BOTH_MODES(name_)                                                                          \
	ParameterizedTestParameters(links, name_)                                                  \
	{                                                                                          \
		return cr_make_param_array(enum pb_attach_mode, modes, PB_ARRAY_LEN(modes));       \
	}                                                                                          \
	ParameterizedTest(enum pb_attach_mode *mode, links, name_)

Test(links, a_pattern_names_a_device_or_what_it_starts_with)
{
	static char *const patterns[] = {"eth+", "bond0"};
	static const struct {
		const char *device;
		bool matches;
	} cases[] = {{"eth0", true},   {"eth", true},	 {"bond0", true},
		     {"bond1", false}, {"veth0", false}, {"", false}};

	for (size_t i = 0; i < PB_ARRAY_LEN(cases); i++)
		cr_expect_eq(pb_links_match(patterns, 2, cases[i].device), cases[i].matches, "%s",
			     cases[i].device);
}

BOTH_MODES(a_configured_device_is_attached_in_both_directions)
{
	struct bed bed;

	bed_setup(&bed, *mode);
	links_open(&bed);
	attach_in0(&bed);

	PB_JSON_FREE cJSON *items = pb_links_json(bed.links);
	const char *how = *mode == PB_ATTACH_TCX ? "tcx" : "clsact";

	expect_both_ways(&bed, FIRST_IN, 1);
	cr_expect_eq(cJSON_GetArraySize(items), 2);
	cr_expect_str_eq(pb_json_str(item(items, "dev-ingress", "in0"), "how", ""), how);
	cr_expect_str_eq(pb_json_str(item(items, "dev-egress", "in0"), "state", ""), "ok");
	bed_end(&bed);
}

Test(links, auto_uses_tcx_where_the_kernel_has_it)
{
	struct bed bed;

	bed_setup(&bed, PB_ATTACH_AUTO);
	bool tcx = pb_tcx_supported(bed.env.entry_fd[PB_HOOK_DEV_INGRESS]);

	links_open(&bed);
	attach_in0(&bed);
	PB_JSON_FREE cJSON *items = pb_links_json(bed.links);

	cr_expect_str_eq(pb_json_str(item(items, "dev-ingress", "in0"), "how", ""),
			 tcx ? "tcx" : "clsact");
	bed_end(&bed);
}

BOTH_MODES(what_a_dead_agent_attached_goes_on_and_its_successor_adopts_it)
{
	struct bed bed;
	int status;

	/* Given an agent that attached and died without a word */
	bed_setup(&bed, *mode);
	pid_t agent = fork();

	if (agent == 0) {
		uv_loop_t loop;

		uv_loop_init(&loop);
		bed.env.loop = &loop;
		links_open(&bed);
		_exit(devices_set(&bed, in0, 1) < 0);
	}
	cr_assert_eq(waitpid(agent, &status, 0), agent);
	cr_assert_eq(status, 0);
	expect_both_ways(&bed, FIRST_IN, 1);

	/* When a new one starts with programs of its own */
	use_programs(&bed, true);
	links_open(&bed);

	/* Then those run in the same places, before it was told of any device */
	expect_states(&bed, "ok", 2);
	expect_both_ways(&bed, SECOND_IN, 1);
	attach_in0(&bed);
	PB_JSON_FREE cJSON *items = pb_links_json(bed.links);

	cr_expect(pb_json_bool(item(items, "dev-ingress", "in0"), "adopted", false));
	expect_both_ways(&bed, SECOND_IN, 2);
	cr_expect_eq(hits(&bed, FIRST_IN), 1);
	bed_end(&bed);
}

BOTH_MODES(a_device_that_appears_later_is_attached_and_dropped_when_it_goes)
{
	struct bed bed;
	static char *const late[] = {"late+"};

	bed_setup(&bed, *mode);
	links_open(&bed);
	cr_assert_eq(devices_set(&bed, late, 1), 0, "%s", bed.text);
	cr_expect_eq(n_pins(), 0);

	sh("ip link add late0 type veth peer name far0");
	expect_attached(&bed, "late0", true);
	cr_expect_gt(n_pins(), 0);

	sh("ip link set late0 name other0");
	expect_nothing_attached(&bed);

	sh("ip link set other0 name late1");
	expect_attached(&bed, "late1", true);
	sh("ip link del late1");
	expect_nothing_attached(&bed);
	bed_end(&bed);
}

BOTH_MODES(pins_of_a_device_that_went_while_no_agent_ran_are_dropped)
{
	struct bed bed;

	bed_setup(&bed, *mode);
	links_open(&bed);
	attach_in0(&bed);
	links_shut(&bed);
	sh("ip link del in0");

	links_open(&bed);
	cr_assert_eq(devices_set(&bed, NULL, 0), 0, "%s", bed.text);
	PB_JSON_FREE cJSON *items = pb_links_json(bed.links);

	cr_expect_eq(cJSON_GetArraySize(items), 0);
	cr_expect_eq(n_pins(), 0);
	bed_end(&bed);
}

BOTH_MODES(other_patterns_detach_from_what_no_longer_matches)
{
	struct bed bed;
	static char *const out0[] = {"out0"};

	bed_setup(&bed, *mode);
	links_open(&bed);
	attach_in0(&bed);
	cr_assert_eq(devices_set(&bed, out0, 1), 0, "%s", bed.text);
	expect_attached(&bed, "in0", false);
	expect_attached(&bed, "out0", true);
	send_frame("in0");
	struct expected one = {&bed, FIRST_IN, 1};

	run_until(&bed.loop, has_hits, &one);
	cr_expect_eq(hits(&bed, FIRST_OUT), 0);
	bed_end(&bed);
}

struct told {
	const uint32_t *ifindex;
	uint32_t wanted;
};

static bool was_told(void *arg)
{
	const struct told *t = arg;

	return *t->ifindex == t->wanted;
}

static void expect_told(struct bed *bed, const uint32_t *which, uint32_t ifindex)
{
	struct told t = {which, ifindex};

	run_until(&bed->loop, was_told, &t);
}

static void pod_add_begin(struct bed *bed, uint32_t ifindex)
{
	struct pb_err err = {0};

	cr_assert_eq(pb_links_pod_add(bed->links, ifindex, &err), 0, "%s", err.text);
}

BOTH_MODES(a_pod_interface_gets_the_pod_hooks_until_it_is_removed)
{
	struct bed bed;
	struct pb_err err = {0};
	uint32_t pods[2] = {0};
	uint32_t ifindex;

	bed_setup(&bed, *mode);
	links_open(&bed);
	ifindex = if_nametoindex("in0");
	pod_add_begin(&bed, ifindex);
	expect_told(&bed, &bed.pod_attached, ifindex);
	cr_expect_eq(bed.pod_result, 0, "%s", bed.pod_text);
	cr_expect_eq(pb_links_pod_add(bed.links, ifindex, &err), 1, "adding again: %s", err.text);
	cr_expect_eq(pb_links_pods(bed.links, pods, 2), 1);
	cr_expect_eq(pods[0], ifindex);
	expect_both_ways(&bed, FIRST_IN, 1);

	cr_assert_eq(pb_links_pod_remove(bed.links, ifindex), 1);
	cr_expect_eq(pb_links_pods(bed.links, NULL, 0), 0);
	expect_told(&bed, &bed.pod_detached, ifindex);
	send_frame("in0");
	cr_expect_eq(hits(&bed, FIRST_OUT), 1);
	cr_expect_eq(n_pins(), 0);
	cr_expect_eq(pb_links_pod_remove(bed.links, ifindex), 0, "there is nothing any more");
	bed_end(&bed);
}

/* ---- what happens while the pool works ---- */

static uv_sem_t pool_gate;

static void wait_at_gate(uv_work_t *work)
{
	(void)work;
	uv_sem_wait(&pool_gate);
}

/* The pool's only thread does nothing else until it is let go. */
static void pool_hold(struct bed *bed, uv_work_t *work)
{
	uv_sem_init(&pool_gate, 0);
	cr_assert_eq(uv_queue_work(&bed->loop, work, wait_at_gate, NULL), 0);
}

static void pool_let_go(void)
{
	uv_sem_post(&pool_gate);
}

BOTH_MODES(a_pod_removed_before_its_hooks_are_on_ends_without_hooks)
{
	struct bed bed;
	uv_work_t held;
	uint32_t ifindex;

	/* Given a pod whose hooks are being attached */
	bed_setup(&bed, *mode);
	links_open(&bed);
	attach_in0(&bed);
	ifindex = if_nametoindex("out0");
	pool_hold(&bed, &held);
	pod_add_begin(&bed, ifindex);
	expect_states(&bed, "attaching", 2);

	/* When it goes before that ended */
	cr_expect_eq(pb_links_pod_remove(bed.links, ifindex), 1);
	expect_states(&bed, "reversing", 2);
	cr_expect_eq(pb_links_pods(bed.links, NULL, 0), 0);
	pool_let_go();

	/* Then nobody hears of hooks that are on, and they come off again */
	expect_told(&bed, &bed.pod_detached, ifindex);
	cr_expect_eq(bed.pod_attached, 0);
	expect_states(&bed, "ok", 2);
	send_frame("out0");
	cr_expect_eq(hits(&bed, FIRST_OUT), 0);
	bed_end(&bed);
}

BOTH_MODES(a_pod_added_while_its_hooks_come_off_has_them_in_the_end)
{
	struct bed bed;
	uv_work_t held;
	uint32_t ifindex;

	/* Given hooks that are being detached */
	bed_setup(&bed, *mode);
	links_open(&bed);
	ifindex = if_nametoindex("in0");
	pod_add_begin(&bed, ifindex);
	expect_told(&bed, &bed.pod_attached, ifindex);
	pool_hold(&bed, &held);
	cr_expect_eq(pb_links_pod_remove(bed.links, ifindex), 1);
	expect_states(&bed, "detaching", 2);

	/* When another pod gets the interface, then it is told of its own hooks only */
	bed.pod_attached = 0;
	pod_add_begin(&bed, ifindex);
	expect_states(&bed, "reversing", 2);
	pool_let_go();
	expect_told(&bed, &bed.pod_attached, ifindex);
	cr_expect_eq(bed.pod_result, 0, "%s", bed.pod_text);
	cr_expect_eq(bed.pod_detached, 0);
	expect_both_ways(&bed, FIRST_IN, 1);
	bed_end(&bed);
}

BOTH_MODES(a_device_that_goes_while_it_is_attached_leaves_nothing)
{
	struct bed bed;
	uv_work_t held;
	static char *const late[] = {"late+"};

	bed_setup(&bed, *mode);
	links_open(&bed);
	cr_assert_eq(devices_set(&bed, late, 1), 0, "%s", bed.text);
	pool_hold(&bed, &held);
	sh("ip link add late0 type veth peer name far0");
	expect_states(&bed, "attaching", 2);
	sh("ip link del late0");
	expect_states(&bed, "reversing", 2);
	pool_let_go();
	expect_nothing_attached(&bed);
	bed_end(&bed);
}

BOTH_MODES(closing_waits_for_what_is_under_way_and_begins_nothing_else)
{
	struct bed bed;
	uv_work_t held;
	bool closed = false;

	/* Given one device under way and another that waits for its turn */
	bed_setup(&bed, *mode);
	links_open(&bed);
	cr_assert_eq(devices_set(&bed, NULL, 0), 0, "%s", bed.text);
	pool_hold(&bed, &held);
	pod_add_begin(&bed, if_nametoindex("in0"));
	pod_add_begin(&bed, if_nametoindex("out0"));
	expect_states(&bed, "attaching", 4);

	/* When it is closed, then not before the first one is complete */
	pb_links_close(bed.links, set_true, &closed);
	for (int i = 0; i < 10; i++)
		uv_run(&bed.loop, UV_RUN_NOWAIT);
	cr_expect_not(closed);
	pool_let_go();
	run_until(&bed.loop, is_true, &closed);
	bed.links = NULL;
	cr_expect_eq(bed.pod_attached, 0, "nobody is told after closing");
	send_frame("out0");
	cr_expect_eq(hits(&bed, FIRST_IN), 1);
	cr_expect_eq(hits(&bed, FIRST_OUT), 0);

	/* And the next agent finds the first one's hooks */
	links_open(&bed);
	expect_states(&bed, "ok", 2);
	bed_end(&bed);
}

Test(links, hooks_that_a_pod_can_not_get_are_reported_and_tried_again_when_asked)
{
	struct bed bed;
	uint32_t ifindex;

	/* Given somebody's filter at our place */
	bed_setup(&bed, PB_ATTACH_CLSACT);
	ifindex = if_nametoindex("in0");
	sh("tc qdisc add dev in0 clsact");
	struct bpf_tc_hook hook = {.sz = sizeof(hook),
				   .ifindex = (int)ifindex,
				   .attach_point = BPF_TC_EGRESS};
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = PB_TC_HANDLE, .priority = PB_TC_PRIORITY,
		    .prog_fd = fd_of(bed.bpf->progs.foreign));

	cr_assert_eq(bpf_tc_attach(&hook, &opts), 0);
	links_open(&bed);

	/* When a pod is added, then its listener gets the reason */
	pod_add_begin(&bed, ifindex);
	expect_told(&bed, &bed.pod_attached, ifindex);
	cr_expect_eq(bed.pod_result, -EBUSY);
	cr_expect_not_null(strstr(bed.pod_text, "device in0 (pod-ingress, clsact): program "), "%s",
			   bed.pod_text);
	expect_states(&bed, "failed", 1);
	expect_states(&bed, "ok", 1);

	/* When the place is free and it is asked again, then it is attached */
	sh("tc filter del dev in0 egress");
	bed.pod_attached = 0;
	pod_add_begin(&bed, ifindex);
	expect_told(&bed, &bed.pod_attached, ifindex);
	cr_expect_eq(bed.pod_result, 0, "%s", bed.pod_text);
	expect_both_ways(&bed, FIRST_IN, 1);
	bed_end(&bed);
}

/* ---- conflicts ---- */

Test(links, a_device_that_datapath_devices_names_gets_no_pod_hooks)
{
	struct bed bed;
	struct pb_err err = {0};

	bed_setup(&bed, PB_ATTACH_CLSACT);
	links_open(&bed);
	attach_in0(&bed);
	cr_expect_eq(pb_links_pod_add(bed.links, if_nametoindex("in0"), &err), -EBUSY);
	cr_expect_not_null(strstr(err.text, "take it out of datapath.devices"), "%s", err.text);
	bed_end(&bed);
}

BOTH_MODES(cleanup_without_an_agent_leaves_nothing_and_may_be_repeated)
{
	struct bed bed;
	struct pb_config config = {.datapath.bpffs = SANDBOX_BPFFS "/agent"};
	struct pb_err err = {0};

	bed_setup(&bed, *mode);
	links_open(&bed);
	attach_in0(&bed);
	links_shut(&bed);

	cr_assert_eq(pb_links_cleanup(&config, &err), 0, "%s", err.text);
	cr_expect_lt(access(SANDBOX_BPFFS "/agent/links", F_OK), 0);
	sh("test -z \"$(tc qdisc show dev in0 clsact)\"");
	send_frame("in0");
	cr_expect_eq(hits(&bed, FIRST_OUT), 0);
	cr_expect_eq(pb_links_cleanup(&config, &err), 0, "%s", err.text);
	bed_end(&bed);
}

Test(links, a_foreign_tcx_program_and_ours_both_see_every_packet)
{
	struct bed bed;

	bed_setup(&bed, PB_ATTACH_TCX);
	PB_CLOSE int foreign = bpf_link_create(fd_of(bed.bpf->progs.foreign),
					       (int)if_nametoindex("in0"), 47, NULL);

	cr_assert_geq(foreign, 0);
	links_open(&bed);
	attach_in0(&bed);
	expect_both_ways(&bed, FIRST_IN, 1);
	cr_expect_eq(hits(&bed, FOREIGN), 1);
	bed_end(&bed);
}

Test(links, a_foreign_filter_and_its_qdisc_survive_attach_and_cleanup)
{
	struct bed bed;

	/* Given somebody's filter on the clsact qdisc that we made */
	bed_setup(&bed, PB_ATTACH_CLSACT);
	links_open(&bed);
	attach_in0(&bed);
	struct bpf_tc_hook hook = {.sz = sizeof(hook),
				   .ifindex = (int)if_nametoindex("in0"),
				   .attach_point = BPF_TC_EGRESS};
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = 7, .priority = 7,
		    .prog_fd = fd_of(bed.bpf->progs.foreign));

	cr_assert_eq(bpf_tc_attach(&hook, &opts), 0);
	expect_both_ways(&bed, FIRST_IN, 1);

	/* When we go, theirs stays */
	bed_end(&bed);
	sh("tc filter show dev in0 egress | grep -q foreign");
	sh("test -z \"$(tc filter show dev in0 ingress)\"");
}

BOTH_MODES(a_qdisc_that_we_did_not_make_survives_cleanup)
{
	struct bed bed;

	bed_setup(&bed, *mode);
	sh("tc qdisc add dev in0 clsact");
	links_open(&bed);
	attach_in0(&bed);
	bed_end(&bed);
	sh("tc qdisc show dev in0 clsact | grep -q clsact");
}

static void replace_behind_its_back(struct bed *bed, enum pb_attach_mode mode)
{
	if (mode == PB_ATTACH_TCX) {
		char pin[128];

		snprintf(pin, sizeof(pin), SANDBOX_BPFFS "/agent/links/dev-egress_%u",
			 if_nametoindex("in0"));
		PB_CLOSE int link = bpf_obj_get(pin);

		cr_assert_eq(bpf_link_update(link, fd_of(bed->bpf->progs.foreign), NULL), 0);
		return;
	}
	struct bpf_tc_hook hook = {.sz = sizeof(hook),
				   .ifindex = (int)if_nametoindex("in0"),
				   .attach_point = BPF_TC_EGRESS};
	LIBBPF_OPTS(bpf_tc_opts, opts, .handle = PB_TC_HANDLE, .priority = PB_TC_PRIORITY,
		    .flags = BPF_TC_F_REPLACE, .prog_fd = fd_of(bed->bpf->progs.foreign));

	cr_assert_eq(bpf_tc_attach(&hook, &opts), 0);
}

BOTH_MODES(an_agent_that_lost_a_place_to_another_says_so_and_does_not_fight)
{
	struct bed bed;

	bed_setup(&bed, *mode);
	links_open(&bed);
	attach_in0(&bed);
	replace_behind_its_back(&bed, *mode);
	pb_links_check(bed.links);
	expect_states(&bed, "replaced", 1);
	attach_in0(&bed);
	PB_JSON_FREE cJSON *items = pb_links_json(bed.links);

	cr_expect_str_eq(pb_json_str(item(items, "dev-egress", "in0"), "state", ""), "replaced");
	send_frame("in0");
	cr_expect_eq(hits(&bed, FOREIGN), 1);
	cr_expect_eq(hits(&bed, FIRST_OUT), 0);
	bed_end(&bed);
}

Test(links, a_clsact_place_that_another_agent_holds_is_refused_and_left_alone)
{
	struct bed bed, other;

	bed_setup(&bed, PB_ATTACH_CLSACT);
	links_open(&bed);
	attach_in0(&bed);

	other = bed;
	other.env.bpffs = SANDBOX_BPFFS "/other";
	use_programs(&other, true);
	links_open(&other);
	cr_expect_eq(devices_set(&other, in0, 1), -EBUSY);
	cr_expect_not_null(strstr(other.text, "device in0 (dev-ingress, clsact): program "), "%s",
			   other.text);
	cr_expect_not_null(strstr(other.text, "is a second agent attached there?"), "%s",
			   other.text);
	links_shut(&other);
	expect_both_ways(&bed, FIRST_IN, 1);
	bed_end(&bed);
}

/* The kernel lets go of a link whose pin was removed a moment later. */
static bool reconfigured(void *arg)
{
	struct bed *bed = arg;

	return devices_set(bed, in0, 1) == 0;
}

BOTH_MODES(what_somebody_detached_is_attached_again_on_reconfiguration)
{
	struct bed bed;

	bed_setup(&bed, *mode);
	links_open(&bed);
	attach_in0(&bed);
	if (*mode == PB_ATTACH_TCX)
		sh("rm " SANDBOX_BPFFS "/agent/links/dev-*");
	else
		sh("tc qdisc del dev in0 clsact");
	pb_links_check(bed.links);
	expect_states(&bed, "detached", 2);

	run_until(&bed.loop, reconfigured, &bed);
	expect_states(&bed, "ok", 2);
	expect_both_ways(&bed, FIRST_IN, 1);
	bed_end(&bed);
}

static void join_and_connect(const char *cgroup)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
	pid_t child = fork();
	int status;

	to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	if (child == 0) {
		char path[300];

		snprintf(path, sizeof(path), "%s/cgroup.procs", cgroup);
		PB_FCLOSE FILE *procs = fopen(path, "we");

		if (!procs || fputs("0", procs) < 0 || fflush(procs) != 0)
			_exit(1);
		/* A socket belongs to the cgroup it was made in. */
		PB_CLOSE int fd = socket(AF_INET, SOCK_DGRAM, 0);

		_exit(connect(fd, (struct sockaddr *)&to, sizeof(to)) < 0 ? 2 : 0);
	}
	cr_assert_eq(waitpid(child, &status, 0), child);
	cr_assert_eq(status, 0);
}

Test(links, socket_hooks_are_attached_to_the_cgroup_and_adopted)
{
	struct bed bed;

	bed_setup(&bed, PB_ATTACH_AUTO);
	sandbox_cgroup(bed.cgroup, sizeof(bed.cgroup));
	if (!bed.cgroup[0])
		cr_skip_test("no cgroup2 mount that allows a new cgroup");
	bed.env.cgroup = bed.cgroup;
	links_open(&bed);
	cr_expect_eq(devices_set(&bed, NULL, 0), 0, "%s", bed.text);
	join_and_connect(bed.cgroup);
	cr_expect_eq(hits(&bed, FIRST_CONNECT), 1);
	links_shut(&bed);

	use_programs(&bed, true);
	links_open(&bed);
	expect_states(&bed, "ok", 1);
	join_and_connect(bed.cgroup);
	cr_expect_eq(hits(&bed, FIRST_CONNECT), 1);
	cr_expect_eq(hits(&bed, SECOND_CONNECT), 1);
	bed_end(&bed);
}

Test(links, a_cgroup_that_is_none_is_an_error_that_leaves_the_devices_attached)
{
	struct bed bed;

	bed_setup(&bed, PB_ATTACH_AUTO);
	bed.env.cgroup = "/tmp";
	links_open(&bed);
	cr_expect_eq(devices_set(&bed, in0, 1), -ENOTSUP);
	cr_expect_not_null(strstr(bed.text, "datapath.cgroup /tmp: not a cgroup2 directory; choose "
					    "one in "),
			   "%s", bed.text);
	expect_both_ways(&bed, FIRST_IN, 1);
	bed_end(&bed);
}
