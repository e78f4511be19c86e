/* SPDX-License-Identifier: Apache-2.0 */
/* Topics between generations, through the functions that plugins call. */
#include <criterion/criterion.h>

#include <plugin/topic.h>

static struct pb_manager m;
static uv_loop_t loop;
static struct pb_generation *pub, *sub, *all[16];
static unsigned n_all;
static char told[4096]; /* what the subscriber has heard: "+key=value" "-key" "S" */

static struct pb_generation *generation(const char *plugin, enum pb_gen_state state)
{
	struct pb_plugin_entry *p = pb_plugin_get(&m, plugin);
	struct pb_generation *gen = pb_gen_new(&m, p, "{}");

	all[n_all++] = gen;
	gen->state = state;
	if (state == PB_GEN_LIVE) {
		p->live = gen;
		gen->hold_data = false;
		gen->hold_events = false;
	}
	return gen;
}

static void hear(struct pb_ctx *ctx, void *arg, const struct pb_record *r)
{
	size_t len = strlen(told);

	(void)ctx;
	(void)arg;
	if (r->kind == PB_RECORD_PUT)
		snprintf(told + len, sizeof(told) - len, "+%s=%.*s ", r->key, (int)r->len,
			 (const char *)r->value);
	else if (r->kind == PB_RECORD_DELETE)
		snprintf(told + len, sizeof(told) - len, "-%s ", r->key);
	else
		snprintf(told + len, sizeof(told) - len, "S ");
}

static const char *heard(void)
{
	static char copy[sizeof(told)];

	while (uv_is_active((uv_handle_t *)&m.pump))
		uv_run(&loop, UV_RUN_NOWAIT);
	strcpy(copy, told);
	told[0] = '\0';
	return copy;
}

static int put(struct pb_generation *gen, const char *key, const char *value)
{
	return gen->ctx.host->publish(&gen->ctx, "t", 1, key, value, strlen(value));
}

/* A subscriber as it is between restore() and start(): its replay runs. */
static struct pb_generation *subscriber(const char *plugin, uint32_t version, int *ret_rc)
{
	struct pb_generation *gen = generation(plugin, PB_GEN_PREPARING);
	struct pb_err err = {0};

	cr_assert_eq(gen->ctx.host->subscribe(&gen->ctx, "t", version, hear, NULL), 0);
	gen->state = PB_GEN_TAKEOVER;
	*ret_rc = pb_gen_watch(gen, &err);
	return gen;
}

static void set_up(void)
{
	int rc;

	uv_loop_init(&loop);
	m.env.loop = &loop;
	pb_topic_pump_open(&m);
	pub = generation("pub", PB_GEN_LIVE);
	sub = subscriber("sub", 1, &rc);
	cr_assert_eq(rc, 0);
}

static void tear_down(void)
{
	struct pb_plugin_entry *p, *tmp;

	for (unsigned i = 0; i < n_all; i++)
		pb_gen_free(all[i]);
	LL_FOREACH_SAFE(m.plugins, p, tmp)
	{
		free(p->name);
		free(p);
	}
	pb_topics_free(&m);
	pb_core_topics_free(&m);
	uv_close((uv_handle_t *)&m.pump, NULL);
	uv_run(&loop, UV_RUN_DEFAULT);
	cr_expect_eq(uv_loop_close(&loop), 0);
}

TestSuite(topic, .init = set_up, .fini = tear_down);

Test(topic, a_record_is_put_replaced_and_withdrawn)
{
	put(pub, "a", "1");
	cr_expect_str_eq(heard(), "+a=1 ");
	put(pub, "a", "2");
	cr_expect_str_eq(heard(), "+a=2 ");
	cr_expect_eq(pub->ctx.host->withdraw(&pub->ctx, "t", "a"), 0);
	cr_expect_str_eq(heard(), "-a ");
	cr_expect_eq(pub->ctx.host->withdraw(&pub->ctx, "t", "a"), -ENOENT);
}

Test(topic, nothing_is_delivered_inside_publish_and_changes_coalesce)
{
	put(pub, "a", "1");
	put(pub, "b", "1");
	put(pub, "a", "2");
	cr_expect_str_eq(told, "");
	cr_expect_str_eq(heard(), "+b=1 +a=2 ");
	put(pub, "c", "1");
	pub->ctx.host->withdraw(&pub->ctx, "t", "c");
	cr_expect_str_eq(heard(), "", "a record that came and went is nobody's business");
}

Test(topic, records_come_in_the_order_of_their_last_publication)
{
	int rc;

	put(pub, "gone", "1");
	put(pub, "a", "1");
	put(pub, "b", "1");
	put(pub, "c", "1");
	heard();
	/* given changes that wait, when some of them change again, then those go to the end */
	put(pub, "a", "2");
	pub->ctx.host->withdraw(&pub->ctx, "t", "gone");
	put(pub, "b", "2");
	put(pub, "c", "2");
	put(pub, "a", "3");
	put(pub, "b", "2");
	cr_expect_str_eq(heard(), "-gone +c=2 +a=3 +b=2 ",
			 "also one that is published again as it was");
	subscriber("late", 1, &rc);
	cr_expect_str_eq(heard(), "+c=2 +a=3 +b=2 ", "and in a replay");
	put(pub, "c", "2");
	cr_expect_str_eq(heard(), "", "what was told isn't told again");
	subscriber("later", 1, &rc);
	cr_expect_str_eq(heard(), "+a=3 +b=2 +c=2 ");
}

Test(topic, a_withdrawal_keeps_the_order_of_what_follows_it)
{
	put(pub, "part-1", "1");
	put(pub, "part-2", "1");
	put(pub, "head", "1");
	heard();
	/* given a record that waits, when it is withdrawn, then that is the latest word */
	put(pub, "part-1", "2");
	put(pub, "part-2", "2");
	pub->ctx.host->withdraw(&pub->ctx, "t", "part-1");
	put(pub, "head", "2");
	cr_expect_str_eq(heard(), "+part-2=2 -part-1 +head=2 ");
}

static unsigned again;

/* Publishes a record anew whenever it hears anything. */
static void hear_and_publish(struct pb_ctx *ctx, void *arg, const struct pb_record *r)
{
	char value[16];

	hear(ctx, arg, r);
	if (r->kind != PB_RECORD_PUT || !again)
		return;
	snprintf(value, sizeof(value), "%u", again--);
	put(pub, "busy", value);
}

static void subscribe_busy(void)
{
	struct pb_generation *gen = generation("busy", PB_GEN_PREPARING);
	struct pb_err err;

	pb_topic_subs_free(sub);
	gen->ctx.host->subscribe(&gen->ctx, "t", 1, hear_and_publish, NULL);
	cr_assert_eq(pb_gen_watch(gen, &err), 0);
}

Test(topic, synced_does_not_wait_for_what_is_published_after_it)
{
	subscribe_busy();
	again = 5;
	put(pub, "busy", "0");
	put(pub, "a", "1");
	put(pub, "b", "1");
	pub->ctx.host->synced(&pub->ctx, "t");
	cr_expect_str_eq(heard(), "+busy=0 +a=1 +b=1 S +busy=3 +busy=2 +busy=1 ");
}

Test(topic, synced_waits_once_for_a_record_that_is_published_again_and_again)
{
	subscribe_busy();
	again = 5;
	put(pub, "a", "1");
	put(pub, "busy", "0");
	put(pub, "b", "1");
	pub->ctx.host->synced(&pub->ctx, "t");
	cr_expect_str_eq(heard(), "+a=1 +b=1 +busy=4 S +busy=3 +busy=2 +busy=1 ");
}

Test(topic, what_is_withdrawn_before_it_was_told_does_not_hold_synced_back)
{
	put(pub, "a", "1");
	pub->ctx.host->synced(&pub->ctx, "t");
	pub->ctx.host->withdraw(&pub->ctx, "t", "a");
	put(pub, "b", "1");
	cr_expect_str_eq(heard(), "S +b=1 ");
}

Test(topic, a_late_subscriber_gets_a_replay_that_ends_with_synced)
{
	int rc;

	put(pub, "a", "1");
	pub->ctx.host->synced(&pub->ctx, "t");
	cr_expect_str_eq(heard(), "+a=1 S ");
	put(pub, "b", "1");
	heard();
	subscriber("late", 1, &rc);
	cr_assert_eq(rc, 0);
	cr_expect_str_eq(heard(), "+a=1 +b=1 S ");
}

Test(topic, a_held_subscriber_hears_the_last_word_when_it_is_released)
{
	sub->hold_data = true;
	put(pub, "a", "1");
	put(pub, "a", "2");
	cr_expect_str_eq(heard(), "");
	sub->hold_data = false;
	pb_topic_pump_wake(&m);
	cr_expect_str_eq(heard(), "+a=2 ");
}

Test(topic, what_an_unborn_generation_publishes_is_unseen_until_it_is_live)
{
	struct pb_generation *next;

	put(pub, "same", "1");
	put(pub, "changed", "1");
	put(pub, "gone", "1");
	pub->ctx.host->synced(&pub->ctx, "t");
	heard();
	/* given a successor that publishes during its replay */
	next = generation("pub", PB_GEN_TAKEOVER);
	cr_expect_eq(put(next, "same", "1"), 0);
	cr_expect_eq(put(next, "changed", "2"), 0);
	next->ctx.host->synced(&next->ctx, "t");
	cr_expect_str_eq(heard(), "");
	/* when it becomes live, then only what differs is told and the rest swept */
	next->state = PB_GEN_LIVE;
	next->plugin->live = next;
	pb_host_pending_apply(next);
	cr_expect_str_eq(heard(), "+changed=2 -gone S ");
}

Test(topic, what_an_unborn_generation_publishes_keeps_its_order)
{
	struct pb_generation *next;

	put(pub, "old", "1");
	heard();
	next = generation("pub", PB_GEN_TAKEOVER);
	put(next, "part-1", "1");
	put(next, "head", "1");
	put(next, "part-2", "1");
	cr_expect_eq(next->ctx.host->withdraw(&next->ctx, "t", "old"), 0);
	put(next, "part-1", "2");
	put(next, "head", "2");
	next->state = PB_GEN_LIVE;
	next->plugin->live = next;
	pb_host_pending_apply(next);
	cr_expect_str_eq(heard(), "+part-2=1 -old +part-1=2 +head=2 ");
}

Test(topic, records_stay_until_the_successor_has_synced)
{
	struct pb_generation *next;

	put(pub, "a", "1");
	heard();
	next = generation("pub", PB_GEN_LIVE);
	put(next, "b", "1");
	cr_expect_str_eq(heard(), "+b=1 ");
	next->ctx.host->synced(&next->ctx, "t");
	cr_expect_str_eq(heard(), "-a S ");
}

Test(topic, a_key_has_one_owner)
{
	struct pb_generation *other = generation("other", PB_GEN_LIVE);

	put(pub, "a", "1");
	cr_expect_eq(put(other, "a", "2"), -EEXIST);
	cr_expect_str_eq(other->fail.text, "publish(): topic t: a is published by plugin pub");
	cr_expect_eq(put(other, "b", "2"), 0);
	cr_expect_eq(other->ctx.host->withdraw(&other->ctx, "t", "a"), -ENOENT);
	cr_expect_str_eq(heard(), "+a=1 +b=2 ");
}

Test(topic, synced_waits_for_every_publisher)
{
	struct pb_generation *other = generation("other", PB_GEN_LIVE);

	put(pub, "a", "1");
	put(other, "b", "1");
	pub->ctx.host->synced(&pub->ctx, "t");
	cr_expect_str_eq(heard(), "+a=1 +b=1 ");
	other->ctx.host->synced(&other->ctx, "t");
	cr_expect_str_eq(heard(), "S ");
}

Test(topic, another_version_is_refused_on_both_sides)
{
	struct pb_generation *late;
	int rc;

	put(pub, "a", "1");
	late = subscriber("late", 2, &rc);
	cr_expect_eq(rc, -EPROTO);
	pb_topic_subs_free(late);
	cr_expect_eq(pub->ctx.host->publish(&pub->ctx, "t", 2, "a", "", 0), -EPROTO);
	cr_expect_str_eq(pub->fail.text, "publish(): topic t is in use as version 1, not 2");
}

Test(topic, an_unloaded_plugin_leaves_no_records)
{
	put(pub, "a", "1");
	heard();
	pb_topic_forget(&m, pub->plugin);
	cr_expect_str_eq(heard(), "-a ");
}

Test(topic, the_core_publishes_as_a_plugin_would)
{
	struct pb_generation *gen = generation("late", PB_GEN_LIVE);
	int rc;

	cr_expect_eq(pb_manager_publish(&m, "t", 1, "a", "1", 1), 0);
	cr_expect_eq(pb_manager_publish(&m, "t", 1, "b", "1", 1), 0);
	pb_manager_synced(&m, "t");
	cr_expect_str_eq(heard(), "+a=1 +b=1 S ");
	cr_expect_eq(pb_manager_publish(&m, "t", 1, "a", NULL, 0), 0);
	cr_expect_eq(pb_manager_publish(&m, "t", 1, "a", NULL, 0), -ENOENT);
	cr_expect_str_eq(heard(), "-a ");
	/* given a key of the core, when a plugin wants it, then it is told whose it is */
	cr_expect_eq(put(gen, "b", "2"), -EEXIST);
	cr_expect_str_eq(gen->fail.text, "publish(): topic t: b is published by the core");
	cr_expect_eq(put(gen, "c", "2"), 0);
	cr_expect_eq(pb_manager_publish(&m, "t", 1, "c", "1", 1), -EEXIST);
	cr_expect_eq(pb_manager_publish(&m, "t", 2, "d", "1", 1), -EPROTO);
	heard();
	subscriber("later", 1, &rc);
	cr_expect_str_eq(heard(), "+b=1 +c=2 ", "no SYNCED before the plugin has synced, too");
}

static const char *kept;

static void keep(struct pb_ctx *ctx, void *arg, const struct pb_record *r)
{
	(void)ctx;
	(void)arg;
	if (r->kind == PB_RECORD_PUT && !kept)
		kept = r->value;
	else if (kept)
		/* Sanitizers see it if the value was freed before we were told. */
		cr_expect_eq(*kept, '1');
}

Test(topic, a_value_stays_valid_until_the_subscriber_was_told_of_its_end)
{
	struct pb_generation *gen = generation("keeper", PB_GEN_PREPARING);
	struct pb_err err;

	gen->ctx.host->subscribe(&gen->ctx, "t", 1, keep, NULL);
	cr_assert_eq(pb_gen_watch(gen, &err), 0);
	put(pub, "a", "1");
	heard();
	pub->ctx.host->withdraw(&pub->ctx, "t", "a");
	heard();
	cr_expect_not_null(kept);
}

Test(topic, the_wrong_step_is_refused_with_its_name)
{
	cr_expect_eq(pub->ctx.host->subscribe(&pub->ctx, "t", 1, hear, NULL), -EPERM);
	cr_expect_str_eq(pub->fail.text, "subscribe() may be called in prepare() only");
	pub->state = PB_GEN_RETIRING;
	cr_expect_eq(put(pub, "a", "1"), -EPERM);
	cr_expect_str_eq(pub->fail.text, "publish() may be called from prepare() to quiesce()");
}

static unsigned calls;
static uint64_t longest_ns, slice_began_ns;

static void count(struct pb_ctx *ctx, void *arg, const struct pb_record *r)
{
	(void)ctx;
	(void)arg;
	calls += r->kind == PB_RECORD_PUT;
}

static void on_check(uv_check_t *check)
{
	uint64_t now = pb_now_ns();

	(void)check;
	if (slice_began_ns && now - slice_began_ns > longest_ns)
		longest_ns = now - slice_began_ns;
	slice_began_ns = now;
}

Test(topic, a_long_replay_never_blocks_the_loop)
{
	struct pb_generation *gen;
	struct pb_err err;
	static uv_check_t check; /* closed by tear_down() */
	char key[16];

	for (int i = 0; i < 50000; i++) {
		snprintf(key, sizeof(key), "%d", i);
		put(pub, key, key);
	}
	heard();
	gen = generation("late", PB_GEN_PREPARING);
	gen->ctx.host->subscribe(&gen->ctx, "t", 1, count, NULL);
	cr_assert_eq(pb_gen_watch(gen, &err), 0);
	uv_check_init(&loop, &check);
	uv_check_start(&check, on_check);
	heard();
	cr_expect_eq(calls, 50000);
	cr_expect_gt(longest_ns, 0);
	cr_expect_lt(longest_ns, 50000000, "a round took %llu ns", (unsigned long long)longest_ns);
	uv_close((uv_handle_t *)&check, NULL);
}

/* A replay is taken in slices: what is published, changed or withdrawn meanwhile comes once. */
Test(topic, what_changes_during_a_replay_is_told_once_and_last)
{
	struct pb_generation *late;
	int rc;

	put(pub, "a", "1");
	put(pub, "b", "1");
	put(pub, "c", "1");
	put(pub, "d", "1");
	pub->ctx.host->synced(&pub->ctx, "t");
	heard();
	sub->hold_data = true;
	late = subscriber("late", 1, &rc);
	cr_assert_eq(rc, 0);
	/* given a replay that stands at b */
	pb_topic_replay_next(late->subs);
	/* when its place moves, a record behind it changes, one goes and one is new */
	put(pub, "b", "2");
	put(pub, "a", "2");
	pub->ctx.host->withdraw(&pub->ctx, "t", "c");
	put(pub, "e", "1");
	pub->ctx.host->withdraw(&pub->ctx, "t", "e");
	put(pub, "d", "1");
	cr_expect_str_eq(heard(), "+b=2 +a=2 +d=1 S ");
}
