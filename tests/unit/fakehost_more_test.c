/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the fake host offers since ABI 1.1 and 1.2, and the order of records, shown by a plugin that
 * writes down what it is told.
 */
#include <criterion/criterion.h>
#include <linux/bpf.h>

#include <base/base.h>
#include <patchbay/testing.h>

static char told[1024]; /* "+key=value" "-key" "S" */

static void tell(const char *fmt, ...)
{
	size_t len = strlen(told);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(told + len, sizeof(told) - len, fmt, ap);
	va_end(ap);
}

static const char *heard(void)
{
	static char copy[sizeof(told)];

	memcpy(copy, told, sizeof(copy));
	told[0] = '\0';
	return copy;
}

static void on_record(struct pb_ctx *ctx, void *arg, const struct pb_record *r)
{
	(void)ctx;
	(void)arg;
	if (r->kind == PB_RECORD_PUT)
		tell("+%s=%.*s ", r->key, (int)r->len, (const char *)r->value);
	else if (r->kind == PB_RECORD_DELETE)
		tell("-%s ", r->key);
	else
		tell("S ");
}

static bool close_inside;
static uint32_t watch_id;

static void on_pod(struct pb_ctx *ctx, void *arg, const struct pb_kube_event *event)
{
	const struct pb_kube_meta *meta = event->object;

	(void)arg;
	cr_assert_not_null(event->api_version);
	if (event->kind == PB_KUBE_SYNCED)
		tell("S(%s) ", event->api_version);
	else
		tell("%s%s ", event->kind == PB_KUBE_DELETE ? "-" : "+", meta->name);
	if (close_inside)
		cr_expect_eq(ctx->host->kube_watch_close(ctx, watch_id), 0);
}

static int open_watch(struct pb_ctx *ctx)
{
	return ctx->host->kube_watch_open(ctx, PB_KUBE_POD, on_pod, NULL, &watch_id);
}

struct listener {
	struct pb_map *words, *plain;
};

static const struct pb_cidr lan = {.family = 4, .bits = 8, .addr.bytes = {10}};

static void register_objects(struct pb_ctx *ctx)
{
	struct pb_map_opts map = {.size = sizeof(map),
				  .name = "owner__words",
				  .flags = PB_MAP_BORROWED};
	struct pb_bpf_object object = {
		.size = sizeof(object), .name = "reader", .elf = "", .maps = &map, .n_maps = 1};

	cr_expect_eq(ctx->host->bpf_object(ctx, &object), 0, "a borrowed map is only recorded");
	object.name = "wrong";
	map.flags = 1U << 7;
	cr_expect_eq(ctx->host->bpf_object(ctx, &object), -EINVAL);
}

static int prepare(struct pb_ctx *ctx)
{
	struct listener *self = calloc(1, sizeof(*self));
	uint32_t identity;
	void *at;
	size_t len;

	cr_assert_not_null(self);
	ctx->self = self;
	register_objects(ctx);
	cr_expect_eq(open_watch(ctx), -EPERM, "nothing may be watched by hand yet");
	cr_assert_eq(ctx->host->map(ctx, "words", &self->words), 0);
	cr_assert_eq(ctx->host->map(ctx, "plain", &self->plain), 0);
	cr_expect_eq(ctx->host->map_memory(self->words, &at, &len), -ENXIO);
	cr_expect_eq(ctx->host->cidr_hold(ctx, &lan, &identity), 0);
	return ctx->host->subscribe(ctx, "t", 1, on_record, NULL);
}

static struct pb_ctx *running;

static int start(struct pb_ctx *ctx)
{
	running = ctx;
	return 0;
}

static void stop(struct pb_ctx *ctx)
{
	free(ctx->self);
}

PB_PLUGIN("listener", "1.0.0", .prepare = prepare, .start = start, .stop = stop);

static const struct pb_host *host(void)
{
	return running->host;
}

static void put(struct pb_fake *fake, const char *key, const char *value)
{
	cr_assert_eq(pb_fake_publish(fake, "t", 1, key, value, strlen(value)), 0);
}

static struct pb_fake *make_fake(void)
{
	struct pb_fake *fake = pb_fake_new(&pb_manifest_v1, &pb_plugin_v1, NULL, "node-a");

	cr_assert_not_null(fake);
	cr_assert_eq(pb_fake_map_define(fake, "words", BPF_MAP_TYPE_ARRAY, 4, 12, 10), 0);
	cr_assert_eq(pb_fake_map_define(fake, "plain", BPF_MAP_TYPE_ARRAY, 4, 12, 10), 0);
	cr_assert_eq(pb_fake_map_mappable(fake, "words"), 0);
	return fake;
}

Test(fakehost_more, a_replay_goes_by_the_order_of_the_last_publication)
{
	struct pb_fake *fake = make_fake();

	put(fake, "a", "1");
	put(fake, "b", "1");
	put(fake, "gone", "1");
	put(fake, "a", "2");
	put(fake, "b", "1");
	cr_assert_eq(pb_fake_withdraw(fake, "t", "gone"), 0);
	cr_assert_eq(pb_fake_synced(fake, "t"), 0);
	cr_assert_eq(pb_fake_load(fake), 0);
	cr_expect_str_eq(heard(), "+a=2 +b=1 S ");
	pb_fake_free(fake);
}

/* ---- watches that are opened and closed ---- */

static struct pb_kube_pod make_pod(const char *name)
{
	return (struct pb_kube_pod){.meta = {.size = sizeof(struct pb_kube_pod),
					     .kind = PB_KUBE_POD,
					     .ns = "default",
					     .name = name}};
}

Test(fakehost_more, an_open_watch_gets_a_replay_and_what_follows_until_it_is_closed)
{
	struct pb_kube_pod a = make_pod("a"), b = make_pod("b"), c = make_pod("c");
	struct pb_fake *fake = make_fake();

	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_PUT, &a.meta), 0);
	cr_assert_eq(pb_fake_kube_version(fake, PB_KUBE_POD, "v1"), 0);
	cr_assert_eq(pb_fake_kube_synced(fake, PB_KUBE_POD), 0);
	cr_assert_eq(pb_fake_load(fake), 0);
	cr_expect_not(pb_fake_kube_watched(fake, PB_KUBE_POD));
	cr_assert_eq(open_watch(running), 0);
	cr_expect_str_eq(heard(), "", "never inside the call");
	cr_expect(pb_fake_kube_watched(fake, PB_KUBE_POD));
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_PUT, &b.meta), 0);
	cr_expect_str_eq(heard(), "+a S(v1) +b ");
	cr_expect_eq(host()->kube_watch_close(running, watch_id), 0);
	cr_expect_eq(host()->kube_watch_close(running, watch_id), -ENOENT);
	cr_expect_eq(host()->kube_watch_close(running, 0), -ENOENT);
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_PUT, &c.meta), 0);
	cr_expect_str_eq(heard(), "");
	pb_fake_free(fake);
}

Test(fakehost_more, a_watch_may_be_closed_inside_its_callback)
{
	struct pb_kube_pod a = make_pod("a"), b = make_pod("b");
	struct pb_fake *fake = make_fake();

	close_inside = true;
	cr_assert_eq(pb_fake_load(fake), 0);
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_PUT, &a.meta), 0);
	cr_assert_eq(open_watch(running), 0);
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_PUT, &b.meta), 0);
	cr_expect_str_eq(heard(), "+a ");
	pb_fake_free(fake);
}

Test(fakehost_more, an_open_watch_is_held_while_quiesced_and_kept_when_the_reload_is_called_off)
{
	struct pb_kube_pod a = make_pod("a");
	struct pb_fake *fake = make_fake();

	cr_assert_eq(pb_fake_load(fake), 0);
	cr_assert_eq(open_watch(running), 0);
	cr_assert_eq(pb_fake_quiesce(fake), 0);
	cr_expect_eq(open_watch(running), -EPERM);
	cr_assert_eq(pb_fake_kube(fake, PB_KUBE_PUT, &a.meta), 0);
	cr_expect_str_eq(heard(), "");
	cr_assert_eq(pb_fake_resume(fake), 0);
	cr_expect_str_eq(heard(), "+a ");
	/* A successor starts without it. */
	cr_assert_eq(pb_fake_reload(fake), 0);
	cr_expect_not(pb_fake_kube_watched(fake, PB_KUBE_POD));
	pb_fake_free(fake);
}

/* ---- memory of maps ---- */

Test(fakehost_more, the_memory_of_a_map_is_what_lookups_see)
{
	struct pb_fake *fake = make_fake();
	struct listener *self;
	uint32_t key = 9, value[3] = {0};
	uint32_t *at;
	void *memory = NULL;
	size_t len;

	cr_assert_eq(pb_fake_load(fake), 0);
	self = pb_fake_self(fake);
	cr_expect_eq(host()->map_memory(self->plain, &memory, &len), -EOPNOTSUPP);
	cr_assert_eq(host()->map_memory(self->words, &memory, &len), 0);
	cr_expect_eq(len, 160, "12 bytes of a value take 16");
	at = (uint32_t *)((char *)memory + 9 * (size_t)16);
	at[2] = 42;
	cr_assert_eq(pb_fake_map_get(fake, "words", &key, value), 0);
	cr_expect_eq(value[2], 42);
	value[1] = 7;
	cr_assert_eq(host()->map_update(self->words, &key, value, PB_MAP_ANY), 0);
	cr_expect_eq(at[1], 7);
	pb_fake_free(fake);
}

/* ---- identities of ranges ---- */

Test(fakehost_more, a_range_has_one_number_as_long_as_anybody_holds_it)
{
	struct pb_cidr other = {.family = 6, .bits = 7, .addr.bytes = {0xfc}};
	struct pb_fake *fake = make_fake();
	uint32_t first, second;

	cr_assert_eq(pb_fake_load(fake), 0);
	first = pb_fake_cidr(fake, &lan);
	cr_expect_geq(first, PB_IDENTITY_CIDR);
	cr_assert_eq(pb_fake_reload(fake), 0);
	cr_expect_eq(pb_fake_cidr(fake, &lan), first, "the successor held it before the end");
	cr_expect_eq(host()->cidr_hold(running, &other, &second), 0);
	cr_expect_neq(second, first);
	cr_expect_eq(host()->cidr_release(running, &other), 0);
	cr_expect_eq(host()->cidr_release(running, &other), -ENOENT);
	cr_expect_eq(pb_fake_cidr(fake, &other), 0);
	cr_assert_eq(pb_fake_unload(fake), 0);
	cr_expect_eq(pb_fake_cidr(fake, &lan), 0);
	pb_fake_free(fake);
}

Test(fakehost_more, a_range_that_is_none_is_refused)
{
	static const struct pb_cidr wrong[] = {
		{.family = 5, .bits = 8, .addr.bytes = {10}},
		{.family = 4, .bits = 33, .addr.bytes = {10}},
		{.family = 4, .bits = 8, .addr.bytes = {10, 1}},
		{.family = 6, .bits = 127, .addr.bytes = {[15] = 1}},
	};
	struct pb_fake *fake = make_fake();
	uint32_t identity = 0;

	cr_assert_eq(pb_fake_load(fake), 0);
	for (size_t i = 0; i < PB_ARRAY_LEN(wrong); i++)
		cr_expect_eq(host()->cidr_hold(running, &wrong[i], &identity), -EINVAL, "%zu", i);
	cr_expect_eq(identity, 0);
	pb_fake_free(fake);
}

Test(fakehost_more, a_kept_fd_outlives_a_generation_and_goes_with_the_plugin)
{
	struct pb_fake *fake = make_fake();
	int fds[2], got = -1;

	cr_assert_eq(pb_fake_load(fake), 0);
	cr_assert_eq(pipe(fds), 0);
	cr_expect_eq(host()->fd_keep(running, "", fds[0]), -EINVAL);
	cr_expect_eq(host()->fd_keep(running, "n", -1), -EBADF);
	cr_assert_eq(host()->fd_keep(running, "n", fds[0]), 0);
	cr_assert_eq(host()->fd_keep(running, "n", fds[0]), 0, "replaced");
	cr_expect_eq(pb_fake_kept(fake), 1);
	close(fds[0]);
	cr_assert_eq(pb_fake_reload(fake), 0);
	cr_assert_eq(host()->fd_kept(running, "n", &got), 0);
	cr_expect_eq(write(fds[1], "x", 1), 1, "a reader is there");
	close(got);
	cr_assert_eq(host()->fd_drop(running, "n"), 0);
	cr_expect_eq(host()->fd_drop(running, "n"), -ENOENT);
	cr_expect_str_eq(pb_fake_failure(fake), "fd_drop(): nothing is kept as n");
	cr_expect_eq(host()->fd_kept(running, "n", &got), -ENOENT);
	cr_assert_eq(host()->fd_keep(running, "n", fds[1]), 0);
	cr_assert_eq(pb_fake_unload(fake), 0);
	cr_expect_eq(pb_fake_kept(fake), 0);
	close(fds[1]);
	pb_fake_free(fake);
}
