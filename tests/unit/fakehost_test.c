/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The fake host keeps the promises of patchbay/plugin.h, shown by a plugin that uses all of
 * them: it counts pods by node in a map, repeats "numbers" as "doubles" and keeps a tick.
 */
#include <criterion/criterion.h>
#include <linux/bpf.h>

#include <base/base.h>
#include <patchbay/testing.h>

struct sample {
	struct pb_map *pods;
	uint32_t ticks;
	uint32_t started;
	uint32_t synced;
	const char *last_node;
	int work_result;
};

static int refuse_start;

static void on_pod(struct pb_ctx *ctx, void *arg, const struct pb_kube_event *event)
{
	struct sample *self = arg;
	const struct pb_kube_pod *pod = event->object;
	uint32_t key = 1, n = 0;

	if (event->kind == PB_KUBE_SYNCED) {
		self->synced++;
		return;
	}
	ctx->host->map_lookup(self->pods, &key, &n);
	n += event->kind == PB_KUBE_DELETE ? -1U : event->old ? 0U : 1U;
	if (ctx->host->map_update(self->pods, &key, &n, PB_MAP_ANY) < 0)
		ctx->host->log(ctx, PB_LOG_WARN, "pod %s: map is full", pod->meta.name);
	self->last_node = pod->node;
}

static void on_number(struct pb_ctx *ctx, void *arg, const struct pb_record *record)
{
	uint32_t value;

	(void)arg;
	if (record->kind == PB_RECORD_SYNCED) {
		ctx->host->synced(ctx, "doubles");
	} else if (record->kind == PB_RECORD_DELETE) {
		ctx->host->withdraw(ctx, "doubles", record->key);
	} else {
		memcpy(&value, record->value, sizeof(value));
		value *= 2;
		ctx->host->publish(ctx, "doubles", 1, record->key, &value, sizeof(value));
	}
}

static void on_tick(struct pb_ctx *ctx, void *arg)
{
	(void)ctx;
	((struct sample *)arg)->ticks++;
}

static int work_run(void *arg)
{
	return ((struct sample *)arg)->ticks == 0 ? -EAGAIN : 7;
}

static void work_done(struct pb_ctx *ctx, void *arg, int result)
{
	(void)ctx;
	((struct sample *)arg)->work_result = result;
}

static int ticks_command(struct pb_ctx *ctx, void *arg, const char *const *args, uint32_t n_args,
			 struct pb_buf *out)
{
	const struct sample *self = arg;
	char text[64];

	if (n_args > 1)
		return ctx->host->fail(ctx, -EINVAL, "ticks: too many arguments");
	snprintf(text, sizeof(text), "{\"ticks\":%u,\"for\":\"%s\"}", self->ticks,
		 n_args ? args[0] : "");
	return ctx->host->buf_append(out, text, strlen(text));
}

static int sample_prepare(struct pb_ctx *ctx)
{
	const struct pb_host *host = ctx->host;
	const struct pb_bpf_object object = {.size = sizeof(object), .name = "sample", .elf = ""};
	const struct pb_slot slot = {.size = sizeof(slot),
				     .hook = PB_HOOK_POD_EGRESS,
				     .band = PB_BAND_SERVICE,
				     .name = "count",
				     .object = "sample",
				     .program = "count"};
	struct pb_command command = {.size = sizeof(command),
				     .name = "ticks show",
				     .usage = "",
				     .help = "shows ticks",
				     .fn = ticks_command};
	struct sample *self;
	int err;

	if (strcmp(host->config(ctx), "{\"bad\":1}") == 0)
		return host->fail(ctx, -EINVAL, "bad: unknown key");
	self = calloc(1, sizeof(*self));
	if (!self)
		return -ENOMEM;
	ctx->self = command.arg = self;
	err = host->bpf_object(ctx, &object);
	if (err == 0)
		err = host->slot(ctx, &slot);
	if (err == 0)
		err = host->map(ctx, "pods", &self->pods);
	if (err == 0)
		err = host->kube_watch(ctx, PB_KUBE_POD, on_pod, self);
	if (err == 0)
		err = host->subscribe(ctx, "numbers", 1, on_number, self);
	if (err == 0)
		err = host->timer_start(ctx, 100, 50, on_tick, self, NULL);
	if (err == 0)
		err = host->command(ctx, &command);
	if (err < 0)
		free(self);
	return err;
}

static int sample_start(struct pb_ctx *ctx)
{
	struct sample *self = ctx->self;

	self->started = 1;
	return refuse_start ? ctx->host->fail(ctx, -EIO, "start refused")
			    : ctx->host->work(ctx, work_run, work_done, self);
}

static int sample_save(struct pb_ctx *ctx, struct pb_buf *out)
{
	const struct sample *self = ctx->self;

	return ctx->host->buf_append(out, &self->ticks, sizeof(self->ticks));
}

static int sample_restore(struct pb_ctx *ctx, const struct pb_state *in)
{
	struct sample *self = ctx->self;

	if (in->len != sizeof(self->ticks))
		return ctx->host->fail(ctx, -EINVAL, "state: %zu bytes", in->len);
	memcpy(&self->ticks, in->data, sizeof(self->ticks));
	return 0;
}

static void sample_stop(struct pb_ctx *ctx)
{
	free(ctx->self);
}

PB_PLUGIN_STATEFUL("sample", "1.0.0", 2, 1, .prepare = sample_prepare, .start = sample_start,
		   .save = sample_save, .restore = sample_restore, .stop = sample_stop);

static struct pb_kube_pod make_pod(const char *name, const char *node)
{
	return (struct pb_kube_pod){.meta = {.size = sizeof(struct pb_kube_pod),
					     .kind = PB_KUBE_POD,
					     .ns = "default",
					     .name = name},
				    .node = node};
}

static struct pb_fake *make_fake(void)
{
	struct pb_fake *fake = pb_fake_new(&pb_manifest_v1, &pb_plugin_v1, NULL, "node-a");

	cr_assert_not_null(fake);
	cr_assert_eq(pb_fake_map_define(fake, "pods", BPF_MAP_TYPE_HASH, 4, 4, 2), 0);
	return fake;
}

static uint32_t map_value(struct pb_fake *fake)
{
	uint32_t key = 1, value = 0;

	cr_assert_eq(pb_fake_map_get(fake, "pods", &key, &value), 0);
	return value;
}

Test(fakehost, objects_known_before_the_load_are_replayed_before_start)
{
	struct pb_fake *fake = make_fake();
	struct pb_kube_pod pod = make_pod("a", "node-a");
	struct sample *self;

	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_PUT, &pod.meta), 0);
	cr_assert_eq(pb_fake_kube_synced(fake, PB_KUBE_POD), 0);
	cr_assert_eq(pb_fake_load(fake), 0);
	self = pb_fake_self(fake);
	cr_assert_eq(self->synced, 1);
	cr_assert_eq(self->started, 1);
	cr_assert_eq(map_value(fake), 1);
	cr_assert_eq(self->work_result, -EAGAIN, "work ran before pb_fake_load() returned");
	cr_assert_not_null(pb_fake_slot(fake, PB_HOOK_POD_EGRESS, "count"));
	cr_assert_null(pb_fake_slot(fake, PB_HOOK_POD_INGRESS, "count"));
	pb_fake_free(fake);
}

Test(fakehost, a_replaced_object_comes_with_the_old_one)
{
	struct pb_fake *fake = make_fake();
	struct pb_kube_pod pod = make_pod("a", "node-a");
	struct pb_kube_pod moved = make_pod("a", "node-b");

	cr_assert_eq(pb_fake_load(fake), 0);
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_PUT, &pod.meta), 0);
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_PUT, &moved.meta), 0);
	cr_assert_eq(map_value(fake), 1, "a replacement is not a second pod");
	cr_assert_str_eq(((struct sample *)pb_fake_self(fake))->last_node, "node-b");
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_DELETE, &moved.meta), 0);
	cr_assert_eq(map_value(fake), 0);
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_DELETE, &moved.meta), -ENOENT);
	pb_fake_free(fake);
}

Test(fakehost, a_reload_hands_over_state_maps_and_topics)
{
	struct pb_fake *fake = make_fake();
	struct pb_kube_pod pod = make_pod("a", "node-a");
	uint32_t five = 5;

	cr_assert_eq(pb_fake_load(fake), 0);
	cr_assert_eq(pb_fake_publish(fake, "numbers", 1, "x", &five, sizeof(five)), 0);
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_PUT, &pod.meta), 0);
	pb_fake_advance_ms(fake, 200);
	cr_assert_eq(pb_fake_reload(fake), 0);
	cr_assert_eq(((struct sample *)pb_fake_self(fake))->ticks, 3);
	cr_assert_eq(map_value(fake), 2, "the map is kept, and the pod is replayed on top");
	cr_assert_eq(*(const uint32_t *)pb_fake_topic_get(fake, "doubles", "x", NULL), 10);
	pb_fake_free(fake);
}

Test(fakehost, a_record_that_a_new_generation_does_not_publish_goes_at_synced)
{
	struct pb_fake *fake = make_fake();
	uint32_t five = 5;

	cr_assert_eq(pb_fake_load(fake), 0);
	pb_fake_publish(fake, "numbers", 1, "x", &five, sizeof(five));
	pb_fake_publish(fake, "numbers", 1, "y", &five, sizeof(five));
	cr_assert_eq(pb_fake_prepare(fake), 0);
	cr_assert_eq(pb_fake_quiesce(fake), 0);
	cr_assert_eq(pb_fake_withdraw(fake, "numbers", "y"), 0);
	cr_assert_eq(pb_fake_start(fake), 0);
	cr_assert_eq(pb_fake_stop(fake), 0);
	cr_assert_eq(pb_fake_topic_count(fake, "doubles"), 2, "kept until synced()");
	cr_assert_eq(pb_fake_synced(fake, "numbers"), 0);
	cr_assert_eq(pb_fake_topic_count(fake, "doubles"), 1);
	cr_assert(pb_fake_topic_synced(fake, "doubles"));
	cr_assert_eq(pb_fake_unload(fake), 0);
	cr_assert_eq(pb_fake_topic_count(fake, "doubles"), 0);
	pb_fake_free(fake);
}

Test(fakehost, what_happens_while_quiesced_arrives_at_resume)
{
	struct pb_fake *fake = make_fake();
	struct pb_kube_pod pod = make_pod("a", "node-a");
	struct sample *self;

	cr_assert_eq(pb_fake_load(fake), 0);
	self = pb_fake_self(fake);
	cr_assert_eq(pb_fake_prepare(fake), 0);
	cr_assert_eq(pb_fake_quiesce(fake), 0);
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_PUT, &pod.meta), 0);
	pb_fake_advance_ms(fake, 100);
	cr_assert_eq(self->ticks, 0);
	cr_assert_null(self->last_node);
	cr_assert_eq(pb_fake_resume(fake), 0);
	cr_assert_str_eq(self->last_node, "node-a");
	pb_fake_advance_ms(fake, 0);
	cr_assert_eq(self->ticks, 1);
	pb_fake_free(fake);
}

Test(fakehost, a_failed_reload_leaves_the_old_generation_running)
{
	struct pb_fake *fake = make_fake();
	void *self;

	cr_assert_eq(pb_fake_load(fake), 0);
	self = pb_fake_self(fake);
	pb_fake_config(fake, "{\"bad\":1}");
	cr_assert_eq(pb_fake_reload(fake), -EINVAL);
	cr_assert_str_eq(pb_fake_failure(fake), "bad: unknown key");
	cr_assert_eq(pb_fake_self(fake), self);
	pb_fake_free(fake);
}

Test(fakehost, a_state_of_a_foreign_schema_or_size_is_refused)
{
	struct pb_fake *fake = make_fake();

	cr_assert_eq(pb_fake_load(fake), 0);
	cr_assert_eq(pb_fake_prepare(fake), 0);
	cr_assert_eq(pb_fake_state_set(fake, 3, "abcd", 4), 0);
	cr_assert_eq(pb_fake_restore(fake), -EPROTO);
	cr_assert_str_eq(pb_fake_failure(fake),
			 "saved state has schema 3, this plugin accepts 1 to 2");
	cr_assert_eq(pb_fake_state_set(fake, 1, "abc", 3), 0);
	cr_assert_eq(pb_fake_restore(fake), -EINVAL);
	cr_assert_eq(pb_fake_state_set(fake, 1, "\3\0\0\0", 4), 0);
	cr_assert_eq(pb_fake_restore(fake), 0);
	pb_fake_free(fake);
}

Test(fakehost, an_undefined_map_and_a_foreign_topic_version_fail_the_load)
{
	struct pb_fake *fake = pb_fake_new(&pb_manifest_v1, &pb_plugin_v1, NULL, "node-a");

	cr_assert_eq(pb_fake_load(fake), -ENOENT);
	cr_assert_str_eq(pb_fake_failure(fake), "map pods: not defined; call pb_fake_map_define()");
	pb_fake_map_define(fake, "pods", BPF_MAP_TYPE_HASH, 4, 4, 2);
	cr_assert_eq(pb_fake_publish(fake, "numbers", 2, "x", "", 0), 0);
	cr_assert_eq(pb_fake_load(fake), -EPROTO);
	cr_assert_str_eq(pb_fake_failure(fake),
			 "topic numbers: published as version 2, subscribed as version 1");
	cr_assert_null(pb_fake_self(fake));
	pb_fake_free(fake);
}

Test(fakehost, a_failure_on_purpose_hits_the_named_call_once)
{
	struct pb_fake *fake = make_fake();
	struct pb_kube_pod pod = make_pod("a", "node-a");

	cr_assert_eq(pb_fake_fail(fake, "nonsense", 0, -EIO), -ENOENT);
	cr_assert_eq(pb_fake_fail(fake, "kube_watch", 0, -EIO), 0);
	cr_assert_eq(pb_fake_load(fake), -EIO);
	cr_assert_eq(pb_fake_load(fake), 0);
	cr_assert_eq(pb_fake_fail(fake, "map_update", 0, -E2BIG), 0);
	pb_fake_kube(fake, PB_KUBE_PUT, &pod.meta);
	cr_assert_str_eq(pb_fake_log(fake), "warn: pod a: map is full\n");
	pb_fake_free(fake);
}

Test(fakehost, commands_answer_and_refuse)
{
	const char *args[] = {"me", "too"};
	struct pb_fake *fake = make_fake();
	PB_FREE char *json = NULL;

	cr_assert_eq(pb_fake_load(fake), 0);
	cr_assert_eq(pb_fake_command(fake, "ticks show", args, 1, &json), 0);
	cr_assert_str_eq(json, "{\"ticks\":0,\"for\":\"me\"}");
	cr_assert_eq(pb_fake_command(fake, "ticks show", args, 2, &json), -EINVAL);
	cr_assert_eq(pb_fake_command(fake, "ticks hide", args, 0, &json), -ENOENT);
	pb_fake_free(fake);
}

Test(fakehost, a_generation_whose_start_fails_stays_loaded)
{
	struct pb_fake *fake = make_fake();

	refuse_start = 1;
	cr_assert_eq(pb_fake_load(fake), -EIO);
	cr_assert_not_null(pb_fake_self(fake));
	pb_fake_free(fake);
}

/* ---- map semantics, without a plugin ---- */

static const struct {
	const char *what;
	uint32_t type;
	uint32_t keys[4];
	uint32_t n_keys;
	int last; /* what the last write returns */
	uint32_t count;
} map_cases[] = {
	{"a hash is full", BPF_MAP_TYPE_HASH, {1, 2, 3}, 3, -E2BIG, 2},
	{"a full hash still takes a known key", BPF_MAP_TYPE_HASH, {1, 2, 1}, 3, 0, 2},
	{"an LRU hash evicts", BPF_MAP_TYPE_LRU_HASH, {1, 2, 3}, 3, 0, 2},
	{"an array has its size", BPF_MAP_TYPE_ARRAY, {0}, 1, 0, 2},
	{"an array ends", BPF_MAP_TYPE_ARRAY, {2}, 1, -E2BIG, 2},
};

Test(fakehost, maps_have_the_semantics_of_the_kernel)
{
	for (size_t i = 0; i < PB_ARRAY_LEN(map_cases); i++) {
		struct pb_fake *fake = pb_fake_new(&pb_manifest_v1, &pb_plugin_v1, NULL, "n");
		uint32_t value = 9;
		int last = 0;

		cr_assert_eq(pb_fake_map_define(fake, "m", map_cases[i].type, 4, 4, 2), 0);
		for (uint32_t k = 0; k < map_cases[i].n_keys; k++)
			last = pb_fake_map_put(fake, "m", &map_cases[i].keys[k], &value);
		cr_expect_eq(last, map_cases[i].last, "%s: %d", map_cases[i].what, last);
		cr_expect_eq(pb_fake_map_count(fake, "m"), map_cases[i].count, "%s",
			     map_cases[i].what);
		pb_fake_free(fake);
	}
}

Test(fakehost, a_plugin_that_the_agent_would_refuse_makes_no_fake)
{
	struct pb_manifest newer = pb_manifest_v1;

	newer.abi_minor = PB_ABI_MINOR + 1;
	cr_assert_null(pb_fake_new(&newer, &pb_plugin_v1, NULL, "n"));
}
