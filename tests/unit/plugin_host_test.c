/* SPDX-License-Identifier: Apache-2.0 */
/* Timers, fds, work, ring events, metrics and commands as a generation sees them. */
#include <criterion/criterion.h>

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <plugin/private.h>

static struct pb_manager m;
static uv_loop_t loop;
static struct pb_generation *gen;
static char log_text[512]; /* what the callbacks said */

static void say(const char *word)
{
	strncat(log_text, word, sizeof(log_text) - strlen(log_text) - 1);
	strncat(log_text, " ", sizeof(log_text) - strlen(log_text) - 1);
}

static struct pb_generation *generation(const char *plugin, enum pb_gen_state state)
{
	struct pb_generation *g = pb_gen_new(&m, pb_plugin_get(&m, plugin), "{}");

	g->state = state;
	if (state == PB_GEN_LIVE) {
		g->plugin->live = g;
		g->hold_data = false;
		g->hold_events = false;
	}
	return g;
}

static void set_up(void)
{
	uv_loop_init(&loop);
	m.env.loop = &loop;
	/* No pump: nothing here publishes, and release must not start one. */
	m.closing = true;
	gen = generation("one", PB_GEN_LIVE);
}

static void tear_down(void)
{
	struct pb_plugin_entry *p, *tmp;
	struct pb_event_name *n, *ntmp;

	LL_FOREACH_SAFE(m.plugins, p, tmp)
	{
		pb_gen_free(p->live);
		pb_gen_free(p->next_gen);
		pb_host_kept_free(p);
		free(p->name);
		free(p);
	}
	LL_FOREACH_SAFE(m.event_names, n, ntmp)
	{
		free(n->name);
		free(n);
	}
	pb_host_metrics_free(&m);
	uv_run(&loop, UV_RUN_DEFAULT);
	cr_expect_eq(m.handles, 0);
	cr_expect_eq(uv_loop_close(&loop), 0, "a handle is left");
}

TestSuite(host, .init = set_up, .fini = tear_down, .timeout = 30);

static const struct pb_host *host(void)
{
	return gen->ctx.host;
}

static void until(const char *expected)
{
	uint64_t end = pb_now_ns() + 5000000000ULL;

	while (strcmp(log_text, expected) != 0 && pb_now_ns() < end)
		uv_run(&loop, UV_RUN_NOWAIT);
	cr_expect_str_eq(log_text, expected);
	log_text[0] = '\0';
}

/* ---- timers ---- */

static void on_timer(struct pb_ctx *ctx, void *arg)
{
	(void)ctx;
	say(arg);
}

static uint32_t own_id;

static void stop_itself(struct pb_ctx *ctx, void *arg)
{
	say(arg);
	cr_expect_eq(ctx->host->timer_stop(ctx, own_id), 0);
}

Test(host, a_timer_fires_once_or_again_and_can_stop_itself)
{
	uint32_t once;

	cr_assert_eq(host()->timer_start(&gen->ctx, 1, 0, on_timer, "once", &once), 0);
	until("once ");
	cr_expect_eq(host()->timer_stop(&gen->ctx, once), -ENOENT, "it has fired");
	cr_assert_eq(host()->timer_start(&gen->ctx, 1, 1, stop_itself, "self", &own_id), 0);
	until("self ");
	cr_expect_null(gen->timers);
}

static unsigned rounds;

static void work_in_turns(struct pb_ctx *ctx, void *arg)
{
	uint64_t end = pb_now_ns() + 2000000;

	while (pb_now_ns() < end)
		;
	if (++rounds < 5)
		ctx->host->timer_start(ctx, 0, 0, work_in_turns, arg, NULL);
}

Test(host, a_timer_that_starts_itself_again_at_once_leaves_the_loop_to_others_in_between)
{
	uint64_t end = pb_now_ns() + 5000000000ULL;

	/* Two of them, so that one's work makes the other's time come. */
	cr_assert_eq(host()->timer_start(&gen->ctx, 0, 0, work_in_turns, NULL, NULL), 0);
	cr_assert_eq(host()->timer_start(&gen->ctx, 0, 0, work_in_turns, NULL, NULL), 0);
	while (rounds < 5 && pb_now_ns() < end) {
		unsigned before = rounds;

		uv_run(&loop, UV_RUN_NOWAIT);
		cr_expect_leq(rounds - before, 2, "%u rounds in one turn", rounds - before);
	}
	cr_expect_geq(rounds, 5);
}

Test(host, a_timer_that_is_due_while_held_fires_on_release_once)
{
	host()->timer_start(&gen->ctx, 1, 1, on_timer, "tick", NULL);
	pb_gen_hold(gen);
	for (uint64_t end = pb_now_ns() + 20000000; pb_now_ns() < end;)
		uv_run(&loop, UV_RUN_NOWAIT);
	cr_expect_str_eq(log_text, "");
	pb_gen_release(gen);
	cr_expect_str_eq(log_text, "tick ");
}

/* ---- fds ---- */

static void on_fd(struct pb_ctx *ctx, void *arg, int fd, uint32_t events)
{
	char c;

	(void)ctx;
	(void)arg;
	if (events & PB_FD_READ && read(fd, &c, 1) == 1)
		say("read");
	else if (events & PB_FD_GONE) {
		say("gone");
		ctx->host->fd_unwatch(ctx, fd);
	}
}

Test(host, an_fd_is_watched_held_and_given_back)
{
	int fds[2];

	cr_assert_eq(pipe(fds), 0);
	cr_assert_eq(host()->fd_watch(&gen->ctx, fds[0], PB_FD_READ, on_fd, NULL), 0);
	cr_expect_eq(host()->fd_watch(&gen->ctx, fds[0], PB_FD_READ, on_fd, NULL), -EEXIST);
	cr_assert_eq(write(fds[1], "x", 1), 1);
	until("read ");
	pb_gen_hold(gen);
	cr_assert_eq(write(fds[1], "x", 1), 1);
	for (int i = 0; i < 10; i++)
		uv_run(&loop, UV_RUN_NOWAIT);
	cr_expect_str_eq(log_text, "");
	pb_gen_release(gen);
	until("read ");
	close(fds[1]);
	until("gone ");
	cr_expect_eq(host()->fd_unwatch(&gen->ctx, fds[0]), -ENOENT);
	cr_expect_eq(fcntl(fds[0], F_GETFD) >= 0, true, "the plugin owns the fd");
	close(fds[0]);
}

/* ---- work ---- */

static int seven(void *arg)
{
	(void)arg;
	return 7;
}

static void done(struct pb_ctx *ctx, void *arg, int result)
{
	char word[32];

	(void)ctx;
	snprintf(word, sizeof(word), "%s:%d", (const char *)arg, result);
	say(word);
}

Test(host, work_ends_on_the_loop)
{
	cr_assert_eq(host()->work(&gen->ctx, seven, done, "w"), 0);
	until("w:7 ");
}

Test(host, work_that_ends_while_held_is_reported_on_release)
{
	host()->work(&gen->ctx, seven, done, "w");
	pb_gen_hold(gen);
	while (gen->works_running)
		uv_run(&loop, UV_RUN_ONCE);
	cr_expect_str_eq(log_text, "");
	pb_gen_release(gen);
	until("w:7 ");
}

Test(host, work_of_an_unborn_generation_begins_when_it_is_live)
{
	struct pb_generation *next = generation("two", PB_GEN_PREPARING);

	next->plugin->live = next;
	cr_assert_eq(host()->work(&next->ctx, seven, done, "w"), 0);
	cr_expect_eq(next->works_running, 0);
	next->state = PB_GEN_LIVE;
	pb_gen_release(next);
	until("w:7 ");
}

Test(host, more_work_than_places_waits_for_its_turn)
{
	for (int i = 0; i < 3 * PB_WORKS_MAX; i++)
		host()->work(&gen->ctx, seven, done, "w");
	cr_expect_eq(m.works_running, PB_WORKS_MAX);
	until("w:7 w:7 w:7 w:7 w:7 w:7 w:7 w:7 w:7 w:7 w:7 w:7 ");
}

Test(host, work_that_never_began_is_cancelled_with_its_argument)
{
	struct pb_generation *next = generation("two", PB_GEN_PREPARING);

	host()->work(&next->ctx, seven, done, "w");
	pb_gen_retire(next);
	cr_expect_str_eq(log_text, "w:-125 ");
}

/* ---- ring events ---- */

static void on_event(struct pb_ctx *ctx, void *arg, const struct pb_event *event)
{
	(void)ctx;
	(void)event;
	say(arg);
}

Test(host, an_event_type_has_one_number_for_all_generations)
{
	struct pb_generation *a = generation("two", PB_GEN_PREPARING);
	struct pb_generation *b = generation("three", PB_GEN_PREPARING);
	uint16_t first = 0, again = 0, foreign = 0;

	a->plugin->live = a;
	b->plugin->live = b;
	cr_assert_eq(host()->event_type(&a->ctx, "flow", &first), 0);
	cr_assert_eq(host()->event_type(&a->ctx, "flow", &again), 0);
	cr_assert_eq(host()->event_type(&b->ctx, "flow", &foreign), 0);
	cr_expect_geq(first, 256, "below are the core's");
	cr_expect_eq(first, again);
	cr_expect_neq(first, foreign);
}

Test(host, an_event_reaches_whichever_generation_goes_on)
{
	struct pb_generation *next = generation("one", PB_GEN_PREPARING);
	struct pb_event event = {.type = 300, .len = sizeof(event)};
	struct pb_event other = {.type = 301, .len = sizeof(other)};

	host()->event_subscribe(&gen->ctx, 300, on_event, "old");
	host()->event_subscribe(&next->ctx, 300, on_event, "new");
	gen->plugin->next_gen = next;
	pb_host_event(&m, &event);
	pb_host_event(&m, &other);
	cr_expect_str_eq(log_text, "old ");
	/* given that the old one is quiesced */
	pb_gen_hold(gen);
	next->collect = true;
	pb_host_event(&m, &event);
	cr_expect_str_eq(log_text, "old ");
	/* when either of them goes on, then it hears what came meanwhile */
	pb_gen_release(next);
	cr_expect_str_eq(log_text, "old new ");
	pb_gen_release(gen);
	cr_expect_str_eq(log_text, "old new old ");
}

Test(host, kept_events_are_bounded)
{
	struct pb_event event = {.type = 300, .len = sizeof(event)};

	host()->event_subscribe(&gen->ctx, 300, on_event, "e");
	pb_gen_hold(gen);
	for (int i = 0; i < PB_HELD_MAX + 10; i++)
		pb_host_event(&m, &event);
	cr_expect_eq(gen->n_held, PB_HELD_MAX);
	cr_expect_eq(gen->n_held_lost, 10);
}

/* ---- metrics ---- */

Test(host, a_metric_keeps_its_value_over_generations)
{
	struct pb_generation *next = generation("one", PB_GEN_PREPARING);
	PB_BUF_FREE struct pb_buf out = {0};
	uint32_t id = 0, again = 0;

	gen->plugin->next_gen = next;
	cr_assert_eq(host()->metric(&gen->ctx, PB_METRIC_COUNTER, "seen", "Seen.", &id), 0);
	host()->metric_add(&gen->ctx, id, 3);
	cr_assert_eq(host()->metric(&next->ctx, PB_METRIC_COUNTER, "seen", "Seen.", &again), 0);
	cr_expect_eq(id, again);
	host()->metric_add(&next->ctx, again, 4);
	host()->metric_add(&next->ctx, 77, 1);
	cr_expect_eq(host()->metric(&next->ctx, PB_METRIC_GAUGE, "seen", "", &again), -EEXIST);
	cr_expect_eq(host()->metric(&next->ctx, PB_METRIC_GAUGE, "No", "", &again), -EINVAL);
	pb_manager_metrics(&m, &out);
	cr_expect_not_null(strstr(out.data, "# HELP patchbay_plugin_one_seen Seen.\n"
					    "# TYPE patchbay_plugin_one_seen counter\n"
					    "patchbay_plugin_one_seen 7\n"));
}

/* ---- steps ---- */

Test(host, two_plugins_whose_metrics_spell_the_same_do_not_share_one)
{
	struct pb_generation *dashed = generation("one-more", PB_GEN_LIVE);
	uint32_t id = 0;

	cr_assert_eq(host()->metric(&gen->ctx, PB_METRIC_COUNTER, "more_packets", "", &id), 0);
	cr_expect_eq(host()->metric(&dashed->ctx, PB_METRIC_COUNTER, "packets", "", &id), -EEXIST);
	cr_expect_str_eq(dashed->fail.text,
			 "metric(): patchbay_plugin_one_more_packets belongs to plugin one");
}

Test(host, an_fd_is_watched_once_even_while_held)
{
	int ends[2];

	cr_assert_eq(pipe2(ends, O_CLOEXEC), 0);
	pb_gen_hold(gen);
	cr_expect_eq(host()->fd_watch(&gen->ctx, ends[0], PB_FD_READ, on_fd, NULL), 0);
	cr_expect_eq(host()->fd_watch(&gen->ctx, ends[0], PB_FD_READ, on_fd, NULL), -EEXIST);
	cr_expect_not_null(strstr(gen->fail.text, "is watched already"));
	cr_expect_eq(host()->fd_unwatch(&gen->ctx, ends[0]), 0);
	close(ends[0]);
	close(ends[1]);
}

Test(host, what_belongs_to_prepare_is_refused_later)
{
	struct pb_command command = {.size = sizeof(command)};
	struct pb_bpf_object object = {.size = sizeof(object)};
	struct pb_slot slot = {.size = sizeof(slot)};
	struct pb_map *map;
	uint16_t type;

	cr_expect_eq(host()->command(&gen->ctx, &command), -EPERM);
	cr_expect_eq(host()->bpf_object(&gen->ctx, &object), -EPERM);
	cr_expect_eq(host()->slot(&gen->ctx, &slot), -EPERM);
	cr_expect_eq(host()->map(&gen->ctx, "m", &map), -EPERM);
	cr_expect_eq(host()->event_type(&gen->ctx, "e", &type), -EPERM);
	cr_expect_eq(host()->kube_watch(&gen->ctx, PB_KUBE_POD, NULL, NULL), -EPERM);
	cr_expect_eq(host()->bpf_const(&gen->ctx, "o", "n", &type, 2), -EPERM);
	cr_expect_str_eq(gen->fail.text,
			 "bpf_const() may be called in prepare() and reconfigure() only");
	gen->state = PB_GEN_STOPPED;
	cr_expect_eq(host()->timer_start(&gen->ctx, 1, 0, on_timer, "", NULL), -EPERM);
	cr_expect_eq(host()->work(&gen->ctx, seven, done, NULL), -EPERM);
	cr_expect_str_eq(gen->fail.text, "work() may be called before stop()");
}

/* ---- options of plugins of other minor versions ---- */

struct sized {
	uint32_t size, first;
	uint64_t later;
};

Test(host, options_of_another_minor_version_are_read_as_far_as_both_know_them)
{
	struct {
		struct sized known;
		uint64_t future;
	} in = {.known = {.first = 7, .later = 9}};
	struct sized out;

	in.known.size = 8;
	cr_expect_eq(pb_host_opts(&out, sizeof(out), 8, &in), 0);
	cr_expect_eq(out.first, 7);
	cr_expect_eq(out.later, 0, "what an older plugin doesn't have is zero");
	in.known.size = sizeof(in.known);
	cr_expect_eq(pb_host_opts(&out, sizeof(out), 8, &in), 0);
	cr_expect_eq(out.later, 9);
	in.known.size = sizeof(in);
	cr_expect_eq(pb_host_opts(&out, sizeof(out), 8, &in), 0, "a tail of zeros says nothing");
	in.future = 1;
	cr_expect_eq(pb_host_opts(&out, sizeof(out), 8, &in), -EINVAL);
	in.known.size = 7;
	cr_expect_eq(pb_host_opts(&out, sizeof(out), 8, &in), -EINVAL);
	cr_expect_eq(pb_host_opts(&out, sizeof(out), 8, NULL), -EINVAL);
}

Test(host, options_without_their_size_are_refused)
{
	struct pb_map_opts map = {.name = "m"};
	struct pb_bpf_object object = {.size = sizeof(object),
				       .name = "o",
				       .elf = "x",
				       .elf_len = 1,
				       .n_maps = 1,
				       .maps = &map};
	struct pb_slot slot = {.name = "s", .object = "o", .program = "p"};
	struct pb_command command = {.name = "c", .size = sizeof(command) - 1};

	gen->state = PB_GEN_PREPARING;
	cr_expect_eq(host()->bpf_object(&gen->ctx, &object), -EINVAL);
	cr_expect_str_eq(gen->fail.text,
			 "bpf_object(): o: every struct pb_map_opts needs its size and a name");
	cr_expect_eq(host()->slot(&gen->ctx, &slot), -EINVAL);
	cr_expect_str_eq(gen->fail.text, "slot(): size must be that of struct pb_slot");
	cr_expect_eq(host()->command(&gen->ctx, &command), -EINVAL);
	gen->state = PB_GEN_LIVE;
}

/* ---- kept fds ---- */

static bool same_file(int a, int b)
{
	struct stat x, y;

	return fstat(a, &x) == 0 && fstat(b, &y) == 0 && x.st_ino == y.st_ino &&
	       x.st_dev == y.st_dev;
}

Test(host, a_kept_fd_reaches_the_next_generation_and_is_a_duplicate)
{
	struct pb_generation *next = generation("one", PB_GEN_PREPARING);
	int fds[2], got = -1, again = -1;

	cr_assert_eq(pipe(fds), 0);
	cr_assert_eq(host()->fd_keep(&gen->ctx, "listener", fds[0]), 0);
	close(fds[0]);
	cr_assert_eq(host()->fd_kept(&next->ctx, "listener", &got), 0, "in any callback");
	cr_expect(fcntl(got, F_GETFD) & FD_CLOEXEC);
	/* what is kept stays when a duplicate is closed */
	close(got);
	cr_assert_eq(host()->fd_kept(&next->ctx, "listener", &again), 0);
	cr_assert_eq(write(fds[1], "x", 1), 1);
	cr_expect_eq(read(again, &(char){0}, 1), 1);
	close(again);
	close(fds[1]);
	pb_gen_free(next);
}

Test(host, a_kept_fd_is_replaced_by_its_name_and_dropped)
{
	int a[2], b[2], got = -1;

	signal(SIGPIPE, SIG_IGN);
	cr_assert_eq(pipe(a) | pipe(b), 0);
	cr_assert_eq(host()->fd_keep(&gen->ctx, "n", a[0]), 0);
	close(a[0]);
	cr_assert_eq(host()->fd_keep(&gen->ctx, "n", b[0]), 0);
	cr_expect_eq(write(a[1], "x", 1), -1, "the first one is closed");
	cr_assert_eq(host()->fd_kept(&gen->ctx, "n", &got), 0);
	cr_expect(same_file(got, b[0]));
	cr_assert_eq(host()->fd_drop(&gen->ctx, "n"), 0);
	cr_expect_eq(host()->fd_drop(&gen->ctx, "n"), -ENOENT);
	cr_expect_str_eq(gen->fail.text, "fd_drop(): nothing is kept as n");
	cr_expect_eq(host()->fd_kept(&gen->ctx, "n", &got), -ENOENT);
	cr_expect_str_eq(gen->fail.text, "fd_kept(): nothing is kept as n");
}

Test(host, kept_fds_belong_to_one_plugin)
{
	struct pb_generation *other = generation("two", PB_GEN_LIVE);
	int fds[2], got = -1;

	cr_assert_eq(pipe(fds), 0);
	cr_assert_eq(host()->fd_keep(&gen->ctx, "n", fds[0]), 0);
	cr_expect_eq(host()->fd_kept(&other->ctx, "n", &got), -ENOENT);
}

Test(host, what_cannot_be_kept_is_said)
{
	struct rlimit all = {4096, 4096};
	int fds[2];

	setrlimit(RLIMIT_NOFILE, &all);
	cr_assert_eq(pipe(fds), 0);
	cr_expect_eq(host()->fd_keep(&gen->ctx, "", fds[0]), -EINVAL);
	cr_expect_str_eq(gen->fail.text, "fd_keep(): a name must be given");
	cr_expect_eq(host()->fd_keep(&gen->ctx, "n", -1), -EBADF);
	cr_expect_str_eq(gen->fail.text, "fd_keep(): n: Bad file descriptor");
	gen->state = PB_GEN_PREPARING;
	cr_expect_eq(host()->fd_keep(&gen->ctx, "n", fds[0]), -EPERM);
	cr_expect_str_eq(gen->fail.text, "fd_keep() may be called from start() until stop()");
	gen->state = PB_GEN_LIVE;
	for (unsigned i = 0; i < PB_KEPT_MAX; i++) {
		char name[16];

		snprintf(name, sizeof(name), "n%u", i);
		cr_assert_eq(host()->fd_keep(&gen->ctx, name, fds[0]), 0, "%s", gen->fail.text);
	}
	cr_expect_eq(host()->fd_keep(&gen->ctx, "more", fds[0]), -EMFILE);
	cr_expect_str_eq(gen->fail.text, "fd_keep(): more: 1024 are kept already; drop those that "
					 "are no longer used");
	cr_expect_eq(host()->fd_keep(&gen->ctx, "n0", fds[1]), 0, "one that is there is replaced");
}
